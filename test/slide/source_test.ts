import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SourceError } from "../../src/errors.ts";
import { FileSource, MemorySource, type Source } from "../../src/slide/source.ts";

const BYTES = Uint8Array.from({ length: 1000 }, (_, i) => i & 255);

async function inFolder(run: (folder: string) => Promise<void> | void): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "wgslide-source-"));
  try {
    await run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const sources: [name: string, open: (folder: string) => Source][] = [
  ["FileSource", (folder) => {
    writeFileSync(join(folder, "bytes"), BYTES);
    return FileSource.open(join(folder, "bytes"));
  }],
  ["MemorySource", () => new MemorySource(BYTES)],
];

for (const [name, open] of sources) {
  Deno.test(`${name}.read() gives a range, and at the end what there is`, () =>
    inFolder(async (folder) => {
      const source = open(folder);
      assert.equal(source.sizeBytes, 1000);
      assert.deepEqual(await source.read(0, 4), Uint8Array.of(0, 1, 2, 3));
      assert.deepEqual(await source.read(998, 100), Uint8Array.of(230, 231));
      assert.equal((await source.read(300, 0)).length, 0);
      assert.equal((await source.read(1000, 1)).length, 0);
      assert.equal((await source.read(5000, 7)).length, 0);
      await source.close();
    }));

  Deno.test(`${name}.read() gives bytes that are the caller's own`, () =>
    inFolder(async (folder) => {
      const source = open(folder);
      (await source.read(10, 5)).fill(99);
      assert.deepEqual(await source.read(10, 2), Uint8Array.of(10, 11));
      await source.close();
    }));

  Deno.test(`${name}.read() rejects ranges that are no ranges`, () =>
    inFolder(async (folder) => {
      const source = open(folder);
      const rows = [[-1, 5], [0, -5], [0.5, 5], [0, 1.5], [NaN, 1], [0, 2 ** 60]];
      for (const [offset, length] of rows) {
        await assert.rejects(source.read(offset!, length!), RangeError);
      }
      await source.close();
    }));

  Deno.test(`${name}.close() makes reads fail, and may be called again`, () =>
    inFolder(async (folder) => {
      const source = open(folder);
      await source.close();
      await source.close();
      await assert.rejects(source.read(0, 1), (error) => {
        assert(error instanceof SourceError);
        assert.equal(error.message, `Cannot read "${source.location}": it is closed`);
        return true;
      });
    }));
}

Deno.test("FileSource.open() rejects what is no regular file", () =>
  inFolder((folder) => {
    const pipe = join(folder, "pipe");
    assert(new Deno.Command("mkfifo", { args: [pipe] }).outputSync().success);
    const rows: [path: string, why: RegExp][] = [
      [folder, /: it is a folder$/],
      [pipe, /: it is not a regular file$/],
      ["/dev/null", /: it is not a regular file$/],
      [join(folder, "none"), /: there is no such file$/],
      [join(pipe, "below"), /ENOTDIR|not a directory/i],
      [join(folder, "n".repeat(300)), /too long/i],
      [join(folder, "nul\0"), /null byte/i],
      ["", /there is no such file/],
    ];
    for (const [path, why] of rows) {
      assert.throws(() => FileSource.open(path), (error) => {
        assert(error instanceof SourceError, path);
        assert.match(error.message, why);
        assert(error.message.startsWith(`Cannot open "${path}": `), error.message);
        assert.equal(error.location, path);
        return true;
      });
    }
  }));

Deno.test("FileSource.read() gives what is left of a file that shrank", () =>
  inFolder(async (folder) => {
    const path = join(folder, "bytes");
    writeFileSync(path, BYTES);
    const source = FileSource.open(path);
    truncateSync(path, 3);
    assert.deepEqual(await source.read(1, 10), Uint8Array.of(1, 2));
    await source.close();
  }));
