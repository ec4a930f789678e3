import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { deflateRawSync } from "node:zlib";
import { join } from "node:path";
import {
  Uint8ArrayReader,
  Uint8ArrayWriter,
  ZipWriter,
  type ZipWriterAddDataOptions,
} from "@zip.js/zip.js";
import { SlideFormatError, SourceError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { openZip } from "../../src/slide/zip.ts";
import { dataPath } from "../data.ts";
import { uniform } from "../reference/random.ts";
import { buildDicom } from "./dicom_builder.ts";
import { RecordingSource } from "./recording_source.ts";

interface Member extends ZipWriterAddDataOptions {
  readonly name: string;
  readonly bytes: Uint8Array;
}

async function buildZip(members: readonly Member[], zip64 = false): Promise<Uint8Array> {
  const writer = new ZipWriter(new Uint8ArrayWriter(), { zip64, useWebWorkers: false });
  for (const { name, bytes, ...options } of members) {
    await writer.add(name, new Uint8ArrayReader(bytes), options);
  }
  return await writer.close();
}

/** A level of one colour, `sidePx` wide and high, in one frame. */
function level(sidePx: number, value: number): Uint8Array {
  return buildDicom({
    widthPx: sidePx,
    heightPx: sidePx,
    tilePx: [sidePx, sidePx],
    frames: [new Uint8Array(3 * sidePx * sidePx).fill(value)],
  }).bytes;
}

/** Noise does not deflate. */
function noise(length: number): Uint8Array {
  const next = uniform(1);
  return Uint8Array.from({ length }, () => 256 * next());
}

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "wgslide-zip-test-"));
  try {
    await run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const ALL = { headBytes: 132, isWanted: () => true };

for (const method of ["stored", "deflated", "mixed"] as const) {
  for (const zip64 of [false, true]) {
    Deno.test(`openSlide() opens a zip, ${method}${zip64 ? ", zip64" : ""}`, () =>
      inFolder(async (workDir) => {
        // The larger one goes to disk where it is deflated, the smaller one stays in memory.
        const levels = [[64, 10], [1000, 20], [16, 30]] as const;
        const members = levels.map(([sidePx, value], i) => ({
          name: `DICOM/${i % 2 === 0 ? "a/" : ""}IM${i}`,
          bytes: level(sidePx, value),
          level: method === "stored" || (method === "mixed" && i === 0) ? 0 : 6,
        }));
        const others = [
          { name: "DICOM/", bytes: new Uint8Array(), directory: true },
          { name: "a.txt", bytes: new TextEncoder().encode("Read me"), level: 6 },
          { name: "b.txt", bytes: new TextEncoder().encode("Read me"), level: 0 },
          { name: "empty", bytes: new Uint8Array(), level: 6 },
        ];
        const source = new RecordingSource(await buildZip([...others, ...members], zip64));
        const slide = await openSlide(source, { workDir });
        const onDisk = () => readdirSync(workDir, { recursive: true }).length;
        assert.equal(onDisk(), method === "stored" ? 0 : 2, "a folder and a file in it");
        assert.deepEqual(slide.levels.map(({ widthPx }) => widthPx), [1000, 64, 16]);
        for (const [i, value] of [20, 10, 30].entries()) {
          const region = { level: i, x0Px: 0, y0Px: 0, widthPx: 1, heightPx: 1 };
          assert.deepEqual([...(await slide.readRegion(region)).data], [value, value, value]);
        }
        await slide.close();
        assert(source.closed);
        assert.equal(onDisk(), 0);
        await assert.rejects(slide.rawTile(0, 0, 0), SourceError);
      }));
  }
}

Deno.test("openSlide() reads of a stored file what it needs, where it lies", async () => {
  const frames = Array.from({ length: 4 }, (_, i) => new Uint8Array(3 * 256 * 256).fill(i));
  const { bytes, framesAt } = buildDicom({
    widthPx: 512,
    heightPx: 512,
    tilePx: [256, 256],
    frames,
  });
  const zip = await buildZip([{ name: "padding", bytes: noise(1000), level: 0 }, {
    name: "one.dcm",
    bytes,
    level: 0,
  }]);
  const source = new RecordingSource(zip);
  const slide = await openSlide(source);
  assert(source.bytesRead < 150_000, `${source.bytesRead} of ${source.sizeBytes} bytes were read`);
  source.reads.length = 0;
  const { data } = await slide.rawTile(0, 1, 1);
  assert.deepEqual(data, frames[3]);
  assert.equal(source.reads.length, 1);
  const [{ offsetBytes, lengthBytes }] = source.reads as [typeof source.reads[0]];
  assert.equal(lengthBytes, 3 * 256 * 256);
  assert.deepEqual(
    zip.subarray(offsetBytes - framesAt[3]!, offsetBytes),
    bytes.subarray(0, framesAt[3]),
  );
  await slide.close();
});

Deno.test("openSlide() opens a zip of the CMU-1 series", () =>
  inFolder(async (workDir) => {
    const folder = dataPath("slides/dicom/cmu-1-small-region");
    if (folder === undefined) return;
    const members = readdirSync(folder).map((name) => ({
      name,
      bytes: Deno.readFileSync(join(folder, name)),
    }));
    const path = join(workDir, "a file without an ending");
    writeFileSync(path, await buildZip(members));
    const [slide, expected] = [await openSlide(path, { workDir }), await openSlide(folder)];
    assert.deepEqual(slide.levels, expected.levels);
    const region = { level: 2, x0Px: 0, y0Px: 0, widthPx: 555, heightPx: 741 };
    assert.deepEqual(await slide.readRegion(region), await expected.readRegion(region));
    await slide.close();
    await expected.close();
    assert.deepEqual(readdirSync(workDir), ["a file without an ending"]);
  }));

Deno.test("openSlide() refuses zips that it cannot read, in words without the files' names", async () => {
  const name = "DOE^JANE.dcm";
  const bytes = level(16, 1);
  const cases: [readonly Member[], new (...args: never) => Error, RegExp][] = [
    [[{ name, bytes: noise(500) }], SlideFormatError, /none of its files is a DICOM file/],
    [[{ name, bytes: noise(500), level: 0 }], SlideFormatError, /none of its files is a DICOM/],
    [[{ name, bytes, password: "secret" }], UnsupportedError, /file 1": an encrypted zip is not/],
    [
      [{ name, bytes }, { name: "b", bytes: bytes.subarray(0, 500) }],
      SlideFormatError,
      /, file 2": .* at \d+$/,
    ],
  ];
  for (const [members, type, message] of cases) {
    const source = new RecordingSource(await buildZip(members));
    await assert.rejects(openSlide(source), (error) => {
      assert(error instanceof type, String(error));
      assert.match(error.message, message);
      assert.doesNotMatch(Deno.inspect(error), /DOE/);
      return true;
    });
    assert(source.closed);
  }
  // bzip2, as the directory says.
  const zip = await buildZip([{ name, bytes }]);
  const directoryAt = findSignature(zip, 0x02014b50);
  zip[directoryAt + 10] = 12;
  await assert.rejects(openSlide(new MemorySource(zip)), (error) => {
    assert(error instanceof UnsupportedError);
    assert.equal(error.feature, "zip compression 12 (bzip2)");
    return true;
  });
});

function findSignature(zip: Uint8Array, signature: number): number {
  const view = new DataView(zip.buffer, zip.byteOffset, zip.byteLength);
  for (let at = zip.length - 4; at >= 0; at--) {
    if (view.getUint32(at, true) === signature) return at;
  }
  return assert.fail("there is no such record");
}

Deno.test("openZip() stops at what inflates to more than it claims, or than any slide does", () =>
  inFolder(async (workDir) => {
    const zeros = await buildZip([{ name: "a", bytes: new Uint8Array(3e6), level: 9 }]);
    const at = findSignature(zeros, 0x02014b50);
    const view = new DataView(zeros.buffer, zeros.byteOffset, zeros.byteLength);
    // Its size uncompressed, in the directory.
    for (
      const [claimed, message] of [
        [2e6, /a file inflates to more than the 2000000 bytes it claims$/],
        [4e6, /a file inflates to 3000000 of the 4000000 bytes it claims$/],
        [2e9, /its files inflate to more than 64 times its size$/],
      ] as const
    ) {
      view.setUint32(at + 24, claimed, true);
      await assert.rejects(
        openZip(new MemorySource(zeros), { ...ALL, workDir }),
        { name: "SlideFormatError", message },
      );
    }
    assert.deepEqual(readdirSync(workDir), []);
  }));

Deno.test("openZip() takes no memory for what deflates to next to nothing", () =>
  inFolder(async (workDir) => {
    // 400 MB in 400 kB, said to be 4 MB.
    const name = new Uint8Array([97]);
    const data = deflateRawSync(new Uint8Array(4e8));
    const zip = new Uint8Array(30 + name.length + data.length + 46 + name.length + 22);
    const view = new DataView(zip.buffer);
    const entry = (at: number) => {
      view.setUint16(at + 4, 8, true); // Deflated.
      view.setUint32(at + 14, data.length, true);
      view.setUint32(at + 18, 4e6, true);
      view.setUint16(at + 22, name.length, true);
    };
    view.setUint32(0, 0x504b0304);
    entry(4);
    zip.set(name, 30);
    zip.set(data, 31);
    const directoryAt = 31 + data.length;
    view.setUint32(directoryAt, 0x504b0102);
    entry(directoryAt + 6);
    zip.set(name, directoryAt + 46);
    const endAt = directoryAt + 47;
    view.setUint32(endAt, 0x504b0506);
    view.setUint16(endAt + 8, 1, true);
    view.setUint16(endAt + 10, 1, true);
    view.setUint32(endAt + 12, 47, true);
    view.setUint32(endAt + 16, directoryAt, true);
    const before = Deno.memoryUsage().rss;
    await assert.rejects(
      openZip(new MemorySource(zip), { ...ALL, workDir }),
      /a file inflates to more than the 4000000 bytes it claims$/,
    );
    assert(Deno.memoryUsage().rss - before < 1e8);
  }));

Deno.test("openZip() rejects a file whose checksum is wrong", () =>
  inFolder(async (workDir) => {
    const zip = await buildZip([{ name: "a", bytes: noise(5000), level: 6 }]);
    const view = new DataView(zip.buffer, zip.byteOffset, zip.byteLength);
    const at = findSignature(zip, 0x02014b50) + 16;
    view.setUint32(at, view.getUint32(at, true) ^ 1, true);
    await assert.rejects(
      openZip(new MemorySource(zip), { ...ALL, workDir }),
      { name: "SlideFormatError", message: /a file's checksum is wrong$/ },
    );
  }));

Deno.test("openZip() says where it cannot unpack", async () => {
  const zip = await buildZip([{ name: "a", bytes: new Uint8Array(3e6), level: 9 }]);
  await assert.rejects(
    openZip(new MemorySource(zip), { ...ALL, workDir: "/nowhere" }),
    (error) => error instanceof SourceError && error.message.includes("/nowhere"),
  );
});

Deno.test("openSlide() fails in words wherever a zip is cut or changed", () =>
  inFolder(async (workDir) => {
    const zip = await buildZip([
      { name: "a", bytes: level(8, 1), level: 0 },
      { name: "b", bytes: level(16, 2), level: 6 },
    ], true);
    const attempt = async (bytes: Uint8Array, what: string) => {
      try {
        const slide = await openSlide(new MemorySource(bytes), { workDir });
        await slide.close();
      } catch (error) {
        assert(
          error instanceof SlideFormatError || error instanceof UnsupportedError ||
            error instanceof SourceError,
          `${what}: ${error instanceof Error ? error.stack : error}`,
        );
      }
    };
    const next = uniform(4);
    for (let length = 0; length < zip.length; length += 23) {
      await attempt(zip.subarray(0, length), `cut at ${length}`);
    }
    for (let i = 0; i < 200; i++) {
      const changed = zip.slice();
      // Half of them in the directory.
      const from = i % 2 === 0 ? 0 : zip.length - 400;
      const at = from + Math.floor(next() * (zip.length - from));
      changed[at] = Math.floor(256 * next());
      await attempt(changed, `change ${i} at ${at}`);
    }
    assert.deepEqual(readdirSync(workDir), []);
  }));
