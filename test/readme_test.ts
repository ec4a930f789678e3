import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { VARIABLES } from "../src/config.ts";

const README = readFileSync(new URL("../README.md", import.meta.url), "utf8");

Deno.test("the README's table has every variable, and no other", () => {
  const rows = [...README.matchAll(/^\| (`[A-Z_`, ]+`) +\| (both|production|development) +\|/gm)];
  const listed = rows.flatMap(([, names, mode]) =>
    names!.split(", ").map((name) => `${name.replaceAll("`", "").trim()} ${mode}`)
  );
  assert.deepEqual(listed.sort(), VARIABLES.map(({ name, when }) => `${name} ${when}`).sort());
});

Deno.test("the README's table has every task", () => {
  const { tasks } = JSON.parse(readFileSync(new URL("../deno.json", import.meta.url), "utf8"));
  const table = /\| task +\| what +\|\n([\s\S]*?)\n\n/.exec(README)![1]!;
  const listed = table.split("\n").slice(1).flatMap((row) =>
    [...row.split("|")[1]!.matchAll(/`([a-z:]+)/g)].map(([, name]) => name)
  );
  assert.deepEqual(listed.sort(), Object.keys(tasks).sort());
});

Deno.test("the README's process_image.ts passes the type checker", async () => {
  const example = /```ts\n([\s\S]*?)```/.exec(README)![1]!;
  assert.match(example, /export async function processImage/);
  const folder = await Deno.makeTempDir();
  try {
    const src = new URL("../src/", import.meta.url).href;
    const file = join(folder, "process_image.ts");
    writeFileSync(file, example.replaceAll('from "./', `from "${src}`));
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["check", "--config", new URL("../deno.json", import.meta.url).pathname, file],
    }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
