import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkWritable, writeWhole } from "../../src/report/files.ts";

function inFolder(run: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    run(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("writeWhole() writes pieces of text and bytes in order, over an old file", () =>
  inFolder((folder) => {
    const path = join(folder, "result.json");
    writeFileSync(path, "an older and longer document");
    writeWhole(path, ["µ", Uint8Array.of(0x20, 0x31), "", new Uint8Array(), "2"]);
    assert.equal(readFileSync(path, "utf8"), "µ 12");
    writeWhole(path, []);
    assert.equal(readFileSync(path, "utf8"), "");
    assert.deepEqual(readdirSync(folder), ["result.json"]);
  }));

Deno.test("writeWhole() leaves the old file and nothing else where it fails", () =>
  inFolder((folder) => {
    const path = join(folder, "result.json");
    writeFileSync(path, "old");
    const failing = function* () {
      yield "half of ";
      assert.equal(readFileSync(path, "utf8"), "old");
      throw new Error("no more");
    };
    assert.throws(() => writeWhole(path, failing()), /no more/);
    assert.equal(readFileSync(path, "utf8"), "old");
    assert.deepEqual(readdirSync(folder), ["result.json"]);
    // A folder lies where the file should: found at the very end.
    mkdirSync(join(folder, "taken"));
    writeFileSync(join(folder, "taken", "file"), "");
    assert.throws(() => writeWhole(join(folder, "taken"), ["text"]));
    assert.throws(() => writeWhole(join(path, "below a file"), ["text"]));
    assert.throws(() => writeWhole(join(folder, "nowhere", "file"), ["text"]));
    assert.deepEqual(readdirSync(folder).sort(), ["result.json", "taken"]);
  }));

Deno.test("checkWritable() makes a folder, and leaves nothing in it", () =>
  inFolder((folder) => {
    const path = join(folder, "a", "b");
    checkWritable(path);
    checkWritable(path);
    assert.deepEqual(readdirSync(path), []);
  }));

Deno.test("checkWritable() refuses a file, what lies below one, and what cannot be written", () =>
  inFolder((folder) => {
    const file = join(folder, "file");
    writeFileSync(file, "text");
    for (const path of [file, join(file, "below"), "/proc/output", "/proc"]) {
      assert.throws(() => checkWritable(path), Error, path);
    }
    assert.equal(readFileSync(file, "utf8"), "text");
    assert.deepEqual(readdirSync(folder), ["file"]);
  }));
