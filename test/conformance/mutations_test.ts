import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { listBases, mutate } from "./mutate.ts";
import { describe, Reader, runMutations } from "./mutations.ts";

Deno.test("openSlide() refuses or reads 200 damaged slides, within bounds and as what they are", async () => {
  const { failures, outcomes } = await runMutations({ count: 200, seed: 1 });
  assert.deepEqual(failures.map(describe), []);
  // Damage that breaks nothing, or everything, would show nothing.
  const { read = 0, SlideFormatError = 0, CodecError = 0 } = outcomes;
  assert(read > 20 && SlideFormatError > 20 && CodecError > 10, JSON.stringify(outcomes));
});

Deno.test("mutate() changes a file in many ways, each the same for a seed", async () => {
  const base = listBases().find(({ name }) => name === "built/mixed.svs")!;
  const whole = await base.load();
  const kinds = new Set<string>();
  let unchanged = 0;
  for (let seed = 0; seed < 300; seed++) {
    const { bytes, what } = mutate(whole, seed);
    assert.deepEqual(mutate(whole, seed), { bytes, what });
    if (bytes.length === whole.length && bytes.every((byte, i) => byte === whole[i])) unchanged++;
    kinds.add(what.replace(/-?\d+(e\+\d+)?|«.*»/g, "0"));
  }
  assert.deepEqual(whole, await base.load());
  assert(unchanged < 30, `${unchanged} are as they were`);
  assert(kinds.size >= 10, [...kinds].join("\n"));
});

Deno.test("Reader.ask() says that a process ended or hangs, and starts another", async () => {
  const program = Deno.makeTempFileSync({ suffix: ".ts" });
  writeFileSync(
    program,
    `for await (const piece of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
       const { name } = JSON.parse(piece);
       if (name === "ends") { console.error("in these words"); Deno.exit(3); }
       if (name === "hangs") for (;;);
       console.log("a library's words");
       console.log("\\x1e" + JSON.stringify({ outcome: name }));
     }`,
  );
  const reader = new Reader(program, 3000);
  try {
    const ask = (name: string) => reader.ask({ name, seed: 1 });
    assert.deepEqual(await ask("a"), { outcome: "a" });
    assert.equal(await ask("ends"), "the process ended with 3: in these words");
    assert.deepEqual(await ask("b"), { outcome: "b" });
    assert.equal(await ask("hangs"), "no answer within 3000 ms");
    assert.deepEqual(await ask("c"), { outcome: "c" });
  } finally {
    await reader.close();
    rmSync(program);
  }
});
