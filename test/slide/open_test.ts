import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { CodecError, SlideFormatError, SourceError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Slide } from "../../src/slide/slide.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { mutate } from "../conformance/mutate.ts";
import { dataPath } from "../data.ts";
import { RecordingSource } from "./recording_source.ts";
import { buildTiff, mixedImages, tiledImage } from "./tiff_builder.ts";

const MIXED = buildTiff(await mixedImages());

/** Opens, reads every level whole and every associated picture, closes. */
async function readAll(slide: Slide): Promise<void> {
  try {
    for (const [level, { widthPx, heightPx }] of slide.levels.entries()) {
      if (widthPx * heightPx > 64e6) continue;
      const { data } = await slide.readRegion({ level, x0Px: 0, y0Px: 0, widthPx, heightPx });
      assert.equal(data.length, widthPx * heightPx * 3);
    }
    for (const decode of slide.associated.values()) await decode();
  } finally {
    await slide.close();
  }
}

function isTyped(error: unknown): error is Error {
  return error instanceof SlideFormatError || error instanceof CodecError ||
    error instanceof UnsupportedError || error instanceof SourceError;
}

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "wgslide-open-"));
  try {
    await run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

Deno.test("openSlide() takes a path, a file URL or a source", () =>
  inFolder(async (folder) => {
    const path = join(folder, "an odd name %20 µ#?.dat"); // Formats are known by content.
    writeFileSync(path, MIXED.bytes);
    const url = pathToFileURL(path);
    for (const location of [path, url, url.href, new MemorySource(MIXED.bytes)]) {
      const slide = await openSlide(location);
      assert.equal(slide.format, "aperio");
      await readAll(slide);
    }
  }));

Deno.test("openSlide() reads directories alone, however large the slide", async () => {
  const large = buildTiff([
    tiledImage({ widthPx: 600, heightPx: 600, tilePx: [100, 100] }),
    tiledImage({ widthPx: 300, heightPx: 300, tilePx: [100, 100] }),
  ]);
  const source = new RecordingSource(large.bytes);
  await openSlide(source);
  assert(source.bytesRead < 8192, `${source.bytesRead} of ${source.sizeBytes} bytes were read`);
});

Deno.test("openSlide() opens CMU-1-Small-Region.svs with less than a hundredth of it", async () => {
  const path = dataPath("slides/svs/CMU-1-Small-Region.svs");
  if (path === undefined) return;
  const source = new RecordingSource(Deno.readFileSync(path));
  const slide = await openSlide(source);
  assert(source.bytesRead < source.sizeBytes / 100, `${source.bytesRead} bytes were read`);
  // One tile, then its three neighbours, then none.
  const counts = [];
  for (const [x0Px, widthPx] of [[10, 20], [230, 20], [0, 480]] as const) {
    source.reads.length = 0;
    await slide.readRegion({ level: 0, x0Px, y0Px: 230, widthPx, heightPx: x0Px === 10 ? 5 : 20 });
    counts.push(source.reads.length);
  }
  assert.deepEqual(counts, [1, 3, 0]);
  await slide.close();
});

Deno.test("Slide.readRegion() fetches the bytes of the tiles that it needs", async () => {
  const source = new RecordingSource(MIXED.bytes);
  const slide = await openSlide(source);
  source.reads.length = 0;
  await slide.readRegion({ level: 0, x0Px: 40, y0Px: 10, widthPx: 30, heightPx: 20 });
  assert.deepEqual(
    source.reads,
    [1, 2].map((tile) => ({ offsetBytes: MIXED.tilesAt[0]![tile], lengthBytes: 32 * 32 * 3 })),
  );
  source.reads.length = 0;
  await slide.readRegion({ level: 0, x0Px: 35, y0Px: 5, widthPx: 55, heightPx: 20 });
  assert.deepEqual(source.reads, [], "tiles that are known were read again");
  await slide.associated.get("label")!();
  assert.deepEqual(source.reads.map(({ offsetBytes }) => offsetBytes), MIXED.tilesAt[3]);
});

Deno.test("Slide.close() closes its source, and reads after it fail", async () => {
  const source = new RecordingSource(MIXED.bytes);
  const slide = await openSlide(source);
  const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 10, heightPx: 10 };
  await slide.readRegion(region);
  await slide.close();
  await slide.close();
  assert(source.closed);
  await assert.rejects(slide.readRegion(region), SourceError);
  await assert.rejects(slide.rawTile(0, 0, 0), SourceError);
  await assert.rejects(slide.associated.get("label")!(), SourceError);
});

Deno.test("openSlide() closes a source that it cannot open", async () => {
  const source = new RecordingSource(new Uint8Array(100));
  await assert.rejects(openSlide(source), SlideFormatError);
  assert(source.closed);
});

Deno.test("Slide.readRegion() passes on what its source throws", async () => {
  const source = new RecordingSource(MIXED.bytes, "gone.svs");
  const slide = await openSlide(source);
  const error = new SourceError("Cannot read: the disk is on fire", { location: "gone.svs" });
  source.beforeRead = () => {
    throw error;
  };
  const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 100, heightPx: 70 };
  await assert.rejects(slide.readRegion(region), (thrown) => thrown === error);
  source.beforeRead = undefined;
  await slide.readRegion(region);
  await slide.close();
});

Deno.test("openSlide() passes on what its source throws", async () => {
  for (let read = 1; read <= 6; read++) {
    const source = new RecordingSource(MIXED.bytes);
    const error = new SourceError("Cannot read: no", { location: "x" });
    source.beforeRead = () => {
      if (source.reads.length === read - 1) throw error;
    };
    await assert.rejects(openSlide(source), (thrown) => thrown === error, `read ${read}`);
  }
});

Deno.test("openSlide() rejects locations that hold no slide", () =>
  inFolder(async (folder) => {
    writeFileSync(join(folder, "empty.svs"), "");
    writeFileSync(join(folder, "text.svs"), "This is a text, and no slide.\n");
    const rows = [
      ["empty.svs", SlideFormatError, "it is empty"],
      ["text.svs", SlideFormatError, "it is no TIFF, DICOM, zip, PNG, JPEG or WebP file"],
      ["none.svs", SourceError, "there is no such file"],
      [".", SlideFormatError, "none of its files is a DICOM file"],
    ] as const;
    for (const [name, type, why] of rows) {
      const path = join(folder, name);
      for (const location of [path, pathToFileURL(path)]) {
        await assert.rejects(openSlide(location), (error) => {
          assert(error instanceof type, String(error));
          assert.equal(
            error.message.replace(/\/"/, '"'),
            `Cannot open "${path.replace(/\/$/, "")}": ${why}`,
          );
          return true;
        });
      }
    }
  }));

Deno.test("openSlide() rejects paths that cannot be followed", () =>
  inFolder(async (folder) => {
    symlinkSync(join(folder, "loop"), join(folder, "loop"));
    writeFileSync(join(folder, "file"), "text");
    for (
      const [path, why] of [
        [join(folder, "loop"), /too many symbolic links/],
        [join(folder, "file", "below"), /not a directory/i],
        [join(folder, "n".repeat(300)), /name too long/],
        ["a\0b", /null bytes/],
      ] as const
    ) {
      await assert.rejects(openSlide(path), { name: "SourceError", message: why });
    }
    // What cannot be looked at is passed by, in a folder too.
    await assert.rejects(openSlide(folder), /none of its files is a DICOM file/);
  }));

Deno.test("openSlide() refuses URLs of other kinds, and keeps the query to itself", async () => {
  await assert.rejects(openSlide(new URL("s3://bucket/key?token=secret")), (error) => {
    assert(error instanceof SourceError);
    assert.equal(error.message, 'Cannot open "s3://bucket/key": it is no http or https URL');
    assert(!Deno.inspect(error).includes("secret"));
    return true;
  });
  await assert.rejects(openSlide("s3://bucket/key?token=secret"), (error) => {
    assert(error instanceof SourceError);
    assert.equal(
      error.message,
      'Cannot open a URL of "s3:": it must be a path, or a URL of file, http or https',
    );
    return true;
  });
  await assert.rejects(openSlide("https://[bad/a?token=secret"), (error) => {
    assert(error instanceof SourceError);
    assert.equal(error.message, "Cannot open a URL that is malformed");
    assert(!Deno.inspect(error).includes("secret"));
    return true;
  });
});

const brokenRows: [
  name: string,
  bytes: () => Uint8Array,
  type: new (...rest: never[]) => Error,
  message: RegExp,
][] = [
  [
    "an IFD that points at itself",
    () => MIXED.linked(0, MIXED.directoryAt[0]!),
    SlideFormatError,
    /as an earlier one does$/,
  ],
  [
    "a chain of IFDs that loops",
    () => MIXED.linked(3, MIXED.directoryAt[1]!),
    SlideFormatError,
    /as an earlier one does$/,
  ],
  [
    "absurd dimensions",
    () => MIXED.damaged(0, 257, { value: 2 ** 31 - 1 }),
    SlideFormatError,
    /lists only 12$/,
  ],
  [
    "an absurd count",
    () => MIXED.damaged(0, 325, { count: 2 ** 31 }),
    SlideFormatError,
    /claims 8589934592 bytes/,
  ],
  [
    "tiles of no width",
    () => MIXED.damaged(0, 322, { value: 0 }),
    SlideFormatError,
    /TileWidth 0$/,
  ],
  [
    "a tile past the end",
    () => MIXED.damaged(3, 273, { value: 2 ** 31 }),
    SlideFormatError,
    /has tile \(0, 0\) in \d+ bytes at 2147483648, past/,
  ],
  [
    "a tile that claims more bytes than the file has",
    () => MIXED.damaged(3, 279, { value: 2 ** 31 }),
    SlideFormatError,
    /has tile \(0, 0\) in 2147483648 bytes at \d+, past/,
  ],
  [
    "a tile that claims fewer bytes than it takes",
    () => MIXED.damaged(3, 279, { value: 12 }),
    CodecError,
    /^Cannot decode tile \(0, 0\) of the label: unexpected end of file$/,
  ],
  [
    "a JPEG tile that is another's size",
    () => MIXED.damaged(1, 322, { value: 40 }),
    CodecError,
    /^Cannot decode tile \(0, 0\) of level 1: its picture is 32 × 32, the tile 40 × 32$/,
  ],
  [
    "a JPEG tile that is garbage",
    () => MIXED.withTileByte(1, 2, 0, 0),
    CodecError,
    /^Cannot decode tile \(0, 1\) of level 1: it does not begin with SOI$/,
  ],
  [
    "a deflate tile that is garbage",
    () => MIXED.withTileByte(3, 0, 0, 0),
    CodecError,
    /^Cannot decode tile \(0, 0\) of the label: incorrect header check$/,
  ],
  [
    "an LZW tile that is garbage",
    () => MIXED.withTileByte(2, 0, 3, 255),
    CodecError,
    /^Cannot decode tile \(0, 0\) of level 2: /,
  ],
  [
    "an unsupported compression",
    () => MIXED.damaged(1, 259, { value: 34925 }),
    UnsupportedError,
    /directory 1 of "a\.svs": TIFF compression 34925 \(LZMA\) is not supported$/,
  ],
  [
    "unsupported samples",
    () => MIXED.damaged(2, 277, { value: 2 }),
    UnsupportedError,
    /photometric interpretation 2 in 2 samples, lzw is not supported$/,
  ],
];

for (const [name, bytes, type, message] of brokenRows) {
  Deno.test(`openSlide() or readRegion() rejects ${name}`, async () => {
    for (const decoders of [0, 2]) {
      const reading = async () =>
        await readAll(await openSlide(new MemorySource(bytes(), "a.svs"), { decoders }));
      await assert.rejects(reading, (error) => {
        assert(error instanceof type, String(error));
        assert.match(error.message, message);
        return true;
      });
    }
  });
}

Deno.test("openSlide() gives a slide or a typed error where a slide is cut anywhere", async () => {
  let cut = 0;
  for (let length = 0; length < MIXED.bytes.length; length += 1 + Math.floor(length / 100)) {
    const source = new MemorySource(MIXED.bytes.subarray(0, length));
    await assert.rejects(
      async () => await readAll(await openSlide(source)),
      isTyped,
      `cut to ${length}`,
    );
    cut++;
  }
  assert(cut > 300);
});

Deno.test("openSlide() gives a slide or a typed error where a slide is damaged", async () => {
  let slides = 0, errors = 0;
  for (let i = 0; i < 1500; i++) {
    const { bytes, what } = mutate(MIXED.bytes, i);
    try {
      await readAll(await openSlide(new MemorySource(bytes)));
      slides++;
    } catch (error) {
      assert(isTyped(error), `${i}, ${what}: ${(error as Error).stack}`);
      errors++;
    }
  }
  assert(slides > 100 && errors > 300, `${slides} slides, ${errors} errors`);
});

for (
  const folder of [
    "tiff",
    "tiff-bad",
    "slides/ndpi",
    "slides/ome-tiff",
    "slides/svs",
    "jpeg-bad",
    "j2k-bad",
  ]
) {
  Deno.test(`openSlide() gives a slide or a typed error for every file of ${folder}`, async () => {
    const path = dataPath(folder);
    if (path === undefined) return;
    let files = 0;
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (!entry.isFile()) continue;
      files++;
      try {
        await readAll(await openSlide(join(path, entry.name)));
      } catch (error) {
        assert(isTyped(error), `${entry.name}: ${(error as Error).stack}`);
      }
    }
    assert(files > 0);
  });
}

Deno.test("openSlide() gives a slide or a typed error for every broken JPEG of the data as a tile", async () => {
  const folder = dataPath("jpeg-bad");
  if (folder === undefined) return;
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".jpg")) continue;
    const tile = Deno.readFileSync(join(folder, name));
    const image = tiledImage({
      widthPx: 64,
      heightPx: 64,
      tilePx: [64, 64],
      compression: 7,
      photometric: 6,
      tiles: [tile],
    });
    try {
      await readAll(await openSlide(new MemorySource(buildTiff([image]).bytes)));
    } catch (error) {
      assert(
        error instanceof CodecError || error instanceof UnsupportedError || tile.length === 0,
        `${name}: ${error}`,
      );
    }
  }
});
