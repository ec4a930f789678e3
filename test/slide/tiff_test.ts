import assert from "node:assert/strict";
import { SlideFormatError, UnsupportedError } from "../../src/errors.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { readTiff, type TiffDirectory, tiffProperties } from "../../src/slide/tiff.ts";
import { RecordingSource } from "./recording_source.ts";
import {
  ascii,
  buildTiff,
  cutTiles,
  DOUBLE,
  type Field,
  FLOAT,
  type Image,
  LONG,
  LONG8,
  pattern,
  RATIONAL,
  SHORT,
  SLONG,
  tiledImage,
  UNDEFINED,
} from "./tiff_builder.ts";

async function read(bytes: Uint8Array): Promise<TiffDirectory[]> {
  const directories = await readTiff(new MemorySource(bytes, "a.tif"));
  assert(directories !== undefined);
  return directories;
}

async function first(image: Image): Promise<TiffDirectory> {
  return (await read(buildTiff([image]).bytes))[0]!;
}

Deno.test("readTiff() gives undefined for what does not begin as a TIFF", async () => {
  const rows = [
    "",
    "II*",
    "II*\0\0\0\0",
    "MM*\0\0\0\0\x08", // Big-endian by its mark, little-endian by its number.
    "%PDF-1.7\n%%EOF    ",
    "\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01",
    "II\x2c\0\x08\0\0\0\0\0\0\0\0\0\0\0",
  ];
  for (const row of rows) {
    const bytes = Uint8Array.from(row, (character) => character.charCodeAt(0));
    assert.equal(await readTiff(new MemorySource(bytes)), undefined, JSON.stringify(row));
  }
});

for (const bigTiff of [false, true]) {
  for (const littleEndian of [false, true]) {
    const name = `${littleEndian ? "little" : "big"}-endian ${bigTiff ? "BigTIFF" : "TIFF"}`;
    Deno.test(`readTiff() reads every tile of a ${name}`, async () => {
      const images = [
        tiledImage({ seed: 1 }),
        tiledImage({ widthPx: 50, heightPx: 35, seed: 2, fields: [ascii(270, "second")] }),
      ];
      for (const types of [[LONG, LONG], [LONG, SHORT], ...bigTiff ? [[LONG8, LONG8]] : []]) {
        const [offsets, counts] = types;
        // Other types for TileOffsets and TileByteCounts, with what was built.
        const built = buildTiff(images, { bigTiff, littleEndian });
        const retyped = buildTiff(
          images.map((image, i) => ({
            ...image,
            fields: [
              ...image.fields ?? [],
              { tag: 324, type: offsets!, values: built.tilesAt[i]! },
              { tag: 325, type: counts!, values: image.tiles.map(({ length }) => length) },
            ],
          })),
          { bigTiff, littleEndian },
        );
        // Types of another width move what follows, but not the first image's tiles.
        const directories = await read(retyped.bytes);
        assert.equal(directories.length, 2);
        const [large, small] = directories as [TiffDirectory, TiffDirectory];
        assert.deepEqual([large.widthPx, large.heightPx, large.columns, large.rows], [
          100,
          70,
          4,
          3,
        ]);
        assert.deepEqual([small.widthPx, small.heightPx, small.columns, small.rows], [
          50,
          35,
          2,
          2,
        ]);
        assert.equal(small.text(270), "second");
        assert.equal(large.text(270), undefined);
        for (let row = 0; row < 3; row++) {
          for (let column = 0; column < 4; column++) {
            const tile = await large.readTile(column, row);
            assert.deepEqual(tile.data, images[0]!.tiles[4 * row + column]);
            assert.equal(tile.littleEndian, littleEndian);
          }
        }
      }
    });
  }
}

Deno.test("TiffDirectory.readTile() says what a decoder must know", async () => {
  const tables = Uint8Array.of(0xff, 0xd8, 0xff, 0xd9);
  const directory = await first(tiledImage({
    compression: 7,
    photometric: 6,
    fields: [{ tag: 347, type: UNDEFINED, values: tables }, { tag: 317, type: SHORT, values: [2] }],
  }));
  const { data: _, ...tile } = await directory.readTile(3, 2);
  assert.deepEqual(tile, {
    compression: "jpeg",
    widthPx: 32,
    heightPx: 32,
    samplesPerPixel: 3,
    bitsPerSample: 8,
    photometric: "ycbcr",
    alpha: "none",
    predictor: "none", // A JPEG has none, whatever the field says.
    littleEndian: true,
    jpegTables: tables,
  });
});

Deno.test("TiffDirectory.readTile() knows what a fourth sample is", async () => {
  const rows = [[0, "associated"], [1, "associated"], [2, "unassociated"], [3, "none"]] as const;
  for (const [extra, alpha] of rows) {
    const directory = await first(tiledImage({
      samples: 4,
      fields: [{ tag: 338, type: SHORT, values: [extra] }],
    }));
    assert.equal((await directory.readTile(0, 0)).alpha, alpha);
  }
  assert.equal((await (await first(tiledImage({ samples: 4 }))).readTile(0, 0)).alpha, "none");
});

Deno.test("TiffDirectory.readTile() gives samples in planes of their own as one tile", async () => {
  const image = tiledImage();
  const planes = [0, 1, 2].flatMap((plane) =>
    image.tiles.map((tile) => tile.filter((_, i) => i % 3 === plane).subarray(plane))
  );
  const fields: Field[] = [{ tag: 284, type: SHORT, values: [2] }];
  const directory = await first({ ...image, tiles: planes, fields });
  const tile = await directory.readTile(2, 1);
  const at = directory.columns + 2, tiles = image.tiles.length;
  const expected = [planes[at]!, planes[tiles + at]!, planes[2 * tiles + at]!];
  assert.deepEqual(tile.planeBytes, [1024, 1023, 1022]);
  assert.deepEqual(Array.from(tile.data), expected.flatMap((plane) => Array.from(plane)));
});

Deno.test("readTiff() rejects planes that are fewer than the samples", async () => {
  const fields: Field[] = [{ tag: 284, type: SHORT, values: [2] }];
  await assert.rejects(first({ ...tiledImage(), fields }), {
    name: "SlideFormatError",
    message:
      'Cannot read the TIFF "a.tif": directory 0 is 100 × 70 pixels in 36 tiles and lists only 12',
  });
});

Deno.test("TiffDirectory.readTile() knows a palette's colours by their high bits", async () => {
  const map = Array.from({ length: 768 }, (_, i) => i * 85);
  const image = tiledImage({ photometric: 3, samples: 1 });
  const colours: Field = { tag: 320, type: SHORT, values: map };
  const { palette } = await (await first({ ...image, fields: [colours] })).readTile(0, 0);
  assert.deepEqual(
    [0, 1, 200].map((i) => Array.from(palette!.subarray(3 * i, 3 * i + 3))),
    [0, 1, 200].map((i) => [0, 256, 512].map((plane) => map[plane + i]! >> 8)),
  );
  // Some writers fill 8 of the 16 bits.
  const low: Field = { tag: 320, type: SHORT, values: map.map((value) => value >> 8) };
  const same = await (await first({ ...image, fields: [low] })).readTile(0, 0);
  assert.deepEqual(same.palette, palette);
});

Deno.test("TiffDirectory.readTile() rejects a palette of another length", async () => {
  const short: Field = { tag: 320, type: SHORT, values: [1, 2, 3] };
  const directory = await first(tiledImage({ photometric: 3, samples: 1, fields: [short] }));
  await assert.rejects(directory.readTile(0, 0), {
    name: "SlideFormatError",
    message: 'Cannot read the TIFF "a.tif": directory 0 has a ColorMap of 3 values',
  });
});

Deno.test("TiffDirectory.readTile() knows how YCbCr is subsampled, and leaves it to codecs that do", async () => {
  const rows: [compression: number, values: number[] | undefined, expected: unknown][] = [
    [1, undefined, [2, 2]],
    [5, [2, 1], [2, 1]],
    [8, [1, 1], undefined],
    [7, [2, 2], undefined],
    [34712, [2, 2], undefined],
  ];
  for (const [compression, values, expected] of rows) {
    const fields = values === undefined ? [] : [{ tag: 530, type: SHORT, values }];
    const directory = await first(tiledImage({ compression, photometric: 6, fields }));
    const tile = await directory.readTile(0, 0);
    assert.equal(tile.photometric, "ycbcr");
    assert.deepEqual(tile.subsampling, expected);
  }
});

Deno.test("TiffDirectory.readTile() knows the colours of Aperio's JPEG 2000 by its compression", async () => {
  for (const [compression, photometric] of [[33003, "ycbcr"], [33005, "rgb"], [34712, "rgb"]]) {
    const directory = await first(tiledImage({ compression: compression as number }));
    const tile = await directory.readTile(0, 0);
    assert.deepEqual([tile.compression, tile.photometric], ["jpeg2000", photometric]);
  }
});

Deno.test("TiffDirectory.readTile() turns bits round where the fill order says so, a codec's own aside", async () => {
  const image = tiledImage({ fields: [{ tag: 266, type: SHORT, values: [2] }] });
  const reverse = (byte: number) =>
    parseInt(byte.toString(2).padStart(8, "0").split("").reverse().join(""), 2);
  const { data } = await (await first(image)).readTile(0, 0);
  assert.deepEqual(Array.from(data), Array.from(image.tiles[0]!, reverse));
  for (const compression of [7, 34712, 50001]) {
    const tile = await (await first({ ...image, compression })).readTile(0, 0);
    assert.deepEqual(tile.data, image.tiles[0]);
  }
});

Deno.test("TiffDirectory.readTile() cuts one long strip into pieces where nothing compresses it", async () => {
  const [widthPx, heightPx] = [500, 1000];
  const pixels = pattern(widthPx, heightPx);
  const image: Image = { widthPx, heightPx, tiles: [pixels] };
  const source = new RecordingSource(buildTiff([image]).bytes, "a.tif");
  const [directory] = (await readTiff(source))!;
  source.reads.length = 0;
  const { tileHeightPx, rows } = directory!;
  assert.deepEqual([tileHeightPx, rows], [174, 6]); // 256 KiB of rows of 1500 bytes.
  const last = await directory!.readTile(0, 5);
  assert.deepEqual(last.data, pixels.subarray(5 * 174 * 1500));
  assert.equal(last.heightPx, 1000 - 5 * 174);
  assert.equal(source.reads.length, 1);
  const whole = await first({ ...image, compression: 8 });
  assert.equal(whole.rows, 1);
});

Deno.test("TiffDirectory.bytes() gives a profile's, and nothing where there is none", async () => {
  const profile = [1, 2, 3, 4, 5];
  const directory = await first(
    tiledImage({ fields: [{ tag: 34675, type: UNDEFINED, values: profile }] }),
  );
  assert.deepEqual(await directory.profile(), Uint8Array.from(profile));
  assert.equal(await (await first(tiledImage())).profile(), undefined);
});

Deno.test("TiffDirectory.readTile() takes a predictor for LZW and deflate alone", async () => {
  const predictor: Field = { tag: 317, type: SHORT, values: [2] };
  for (
    const [compression, expected] of [[1, "none"], [5, "horizontal"], [8, "horizontal"]] as const
  ) {
    const directory = await first(tiledImage({ compression, fields: [predictor] }));
    assert.equal((await directory.readTile(0, 0)).predictor, expected);
  }
});

Deno.test("TiffDirectory.readTile() gives strips as tiles, the last with the rows that are left", async () => {
  const pixels = pattern(10, 25);
  const strips = [pixels.slice(0, 300), pixels.slice(300, 600), pixels.slice(600)];
  const directory = await first({ widthPx: 10, heightPx: 25, rowsPerStrip: 10, tiles: strips });
  assert.equal(directory.tiled, false);
  assert.deepEqual([directory.columns, directory.rows], [1, 3]);
  const read = await Promise.all([0, 1, 2].map((row) => directory.readTile(0, row)));
  assert.deepEqual(read.map(({ data }) => data), strips);
  assert.deepEqual(read.map(({ heightPx }) => heightPx), [10, 10, 5]);
  assert.deepEqual(read.map(({ widthPx }) => widthPx), [10, 10, 10]);
});

Deno.test("readTiff() takes all rows for one strip where RowsPerStrip is missing or endless", async () => {
  const image: Image = { widthPx: 10, heightPx: 25, tiles: [pattern(10, 25)] };
  const endless: Field = { tag: 278, type: LONG, values: [2 ** 32 - 1] };
  for (const changes of [{ without: [278] }, { fields: [endless] }]) {
    const directory = await first({ ...image, ...changes });
    assert.deepEqual([directory.rows, directory.tileHeightPx], [1, 25]);
  }
});

Deno.test("TiffDirectory.readTile() gives no bytes for a tile that the file has not", async () => {
  const tiles = cutTiles(pattern(64, 32), 64, 32, [32, 32]);
  const directory = await first({
    widthPx: 64,
    heightPx: 32,
    tilePx: [32, 32],
    tiles: [tiles[0]!, new Uint8Array()],
  });
  assert.equal((await directory.readTile(0, 0)).data.length, 3072);
  assert.equal((await directory.readTile(1, 0)).data.length, 0);
});

Deno.test("TiffDirectory.readTile() rejects tiles that are not in the grid", async () => {
  const directory = await first(tiledImage());
  for (const [column, row] of [[-1, 0], [0, -1], [4, 0], [0, 3], [0.5, 0], [NaN, 0]]) {
    await assert.rejects(directory.readTile(column!, row!), RangeError);
  }
});

Deno.test("TiffDirectory.text() ends at the first NUL and reads UTF-8", async () => {
  const directory = await first(tiledImage({
    fields: [ascii(270, "0.5 µm"), ascii(305, "one\0two"), ascii(306, "")],
  }));
  assert.equal(directory.text(270), "0.5 µm");
  assert.equal(directory.text(305), "one");
  assert.equal(directory.text(306), "");
  assert.equal(directory.text(256), undefined);
});

Deno.test("TiffDirectory.number() divides a RATIONAL", async () => {
  const directory = await first(tiledImage({
    fields: [
      { tag: 282, type: RATIONAL, values: [1, 3] },
      { tag: 283, type: RATIONAL, values: [5, 0] },
      { tag: 286, type: FLOAT, values: [2.5] },
      { tag: 287, type: DOUBLE, values: [0.1] },
    ],
  }));
  assert.equal(directory.number(282), 1 / 3);
  assert.equal(directory.number(283), Infinity);
  assert.equal(directory.number(286), 2.5);
  assert.equal(directory.number(287), 0.1);
  assert.equal(directory.number(288), undefined);
});

Deno.test("tiffProperties() names fields as OpenSlide does", async () => {
  const directory = await first(tiledImage({
    fields: [
      ascii(270, "described"),
      ascii(271, "maker"),
      { tag: 282, type: RATIONAL, values: [20000, 3] },
      { tag: 296, type: SHORT, values: [3] },
    ],
  }));
  assert.deepEqual(tiffProperties(directory), {
    "openslide.comment": "described",
    "tiff.ImageDescription": "described",
    "tiff.Make": "maker",
    "tiff.XResolution": "6666.666666666667",
    "tiff.ResolutionUnit": "centimeter",
  });
});

Deno.test("readTiff() reads directories and their values, and no tile", async () => {
  const built = buildTiff([
    tiledImage({ widthPx: 1000, heightPx: 1000, tilePx: [256, 256] }),
    tiledImage({ widthPx: 500, heightPx: 500, tilePx: [256, 256], fields: [ascii(270, "small")] }),
  ]);
  const source = new RecordingSource(built.bytes);
  const directories = await readTiff(source);
  assert.equal(directories?.length, 2);
  // geotiff fetches 1,024 bytes at a directory and may fetch it again whole.
  assert(source.bytesRead < 8192, `${source.bytesRead} of ${source.sizeBytes} bytes were read`);
  source.reads.length = 0;
  await directories![0]!.readTile(1, 2);
  assert.deepEqual(source.reads, [
    { offsetBytes: built.tilesAt[0]![4 * 2 + 1], lengthBytes: 256 * 256 * 3 },
  ]);
});

const BASE = buildTiff([tiledImage({ seed: 1 }), tiledImage({ seed: 2 })]);
const BIG = buildTiff([tiledImage()], { bigTiff: true, littleEndian: false });
const SIZE = BASE.bytes.length;

/**
 * 2,000 directories of 1,000 entries each in 230 kB, each an entry further on than the one before: an
 * entry's value holds the next directory's count, and where it lies past 0x30000, tag and type are
 * a link too (type 3, SHORT).
 */
function overlappingDirectories(): Uint8Array<ArrayBuffer> {
  const base = 0x30000, entries = 1000, directories = 2000;
  const bytes = new Uint8Array(base + 2 + 12 * (entries + directories) + 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x49492a00);
  view.setUint32(4, base, true);
  view.setUint16(base, entries, true);
  for (let i = 0; i < entries + directories; i++) {
    const at = base + 2 + 12 * i;
    view.setUint32(at, i < entries ? 0x30000 + i : base + 12 * (i - entries + 1), true);
    view.setUint32(at + 4, 1, true);
    view.setUint16(at + 10, entries, true);
  }
  return bytes;
}

/** Forty fields, each of which claims all of a file of 120 kB. */
function overlappingValues(): Uint8Array<ArrayBuffer> {
  const values = [1, 2, 3, 4, 5];
  const built = buildTiff([tiledImage({
    widthPx: 200,
    heightPx: 200,
    tilePx: [100, 100],
    fields: Array.from({ length: 40 }, (_, i) => ({ tag: 40000 + i, type: UNDEFINED, values })),
  })]);
  const view = new DataView(built.bytes.buffer);
  for (let i = 0; i < 40; i++) {
    const at = built.entryAt[0]!.get(40000 + i)!;
    view.setUint32(at + 4, built.bytes.length - 8, true);
    view.setUint32(at + 8, 8, true);
  }
  return built.bytes;
}

const brokenRows: [name: string, bytes: () => Uint8Array, message: RegExp][] = [
  ["no directory", () => {
    const bytes = BASE.bytes.slice();
    bytes.fill(0, 4, 8);
    return bytes;
  }, /it has no directory$/],
  ["a directory past the end", () => {
    const bytes = BASE.bytes.slice();
    new DataView(bytes.buffer).setUint32(4, SIZE + 10, true);
    return bytes;
  }, /directory 0 begins at \d+, past the file's end at \d+$/],
  [
    "an IFD that points at itself",
    () => BASE.linked(0, BASE.directoryAt[0]!),
    /directory 1 begins at \d+, as an earlier one does$/,
  ],
  [
    "a chain of IFDs that loops",
    () => BASE.linked(1, BASE.directoryAt[0]!),
    /directory 2 begins at \d+, as an earlier one does$/,
  ],
  [
    "a chain that leads past the end",
    () => BASE.linked(1, 2 ** 32 - 2),
    /directory 2 begins at 4294967294, past/,
  ],
  [
    "a directory cut by the end",
    () => BASE.bytes.slice(0, BASE.nextAt[1]!),
    /directory 1 at \d+ is cut by the file's end$/,
  ],
  ["an absurd number of entries", () => {
    const bytes = BASE.bytes.slice();
    new DataView(bytes.buffer).setUint16(BASE.directoryAt[0]!, 65535, true);
    return bytes;
  }, /directory 0 claims 65535 entries$/],
  ["an absurd number of entries in a BigTIFF", () => {
    const bytes = BIG.bytes.slice();
    new DataView(bytes.buffer).setBigUint64(BIG.directoryAt[0]!, 2n ** 63n);
    return bytes;
  }, /directory 0 claims 9223372036854776000 entries$/],
  ["a BigTIFF whose offsets are no eight bytes", () => {
    const bytes = BIG.bytes.slice();
    new DataView(bytes.buffer).setUint16(4, 16);
    return bytes;
  }, /BigTIFF header/],
  ["a BigTIFF header that is cut", () => BIG.bytes.slice(0, 12), /BigTIFF header is cut/],
  [
    "an unknown field type",
    () => BASE.damaged(0, 277, { type: 99 }),
    /tag 277 of directory 0 has the unknown type 99$/,
  ],
  [
    "values past the end",
    () => BASE.damaged(0, 324, { value: SIZE - 10 }),
    /tag 324 of directory 0 claims 48 bytes at \d+, past/,
  ],
  [
    "an absurd count",
    () => BASE.damaged(0, 324, { count: 2 ** 32 - 1 }),
    /tag 324 of directory 0 claims 17179869180 bytes/,
  ],
  [
    "an absurd count in a BigTIFF",
    () => BIG.damaged(0, 324, { count: 2 ** 53 }),
    /tag 324 of directory 0 claims 36028797018963970 bytes/,
  ],
  [
    "a count that would make a field's size negative",
    () => BIG.damaged(0, 324, { count: 2 ** 63 }),
    /tag 324 of directory 0 claims/,
  ],
  [
    "values that claim the file again and again",
    overlappingValues,
    /its directories claim more than \d+ bytes$/,
  ],
  [
    "directories that lie over each other",
    overlappingDirectories,
    /its directories claim more than \d+ bytes$/,
  ],
  [
    "no width",
    () => buildTiff([tiledImage({ without: [256] })]).bytes,
    /directory 0 has ImageWidth missing$/,
  ],
  ["a width of 0", () => BASE.damaged(0, 256, { value: 0 }), /directory 0 has ImageWidth 0$/],
  [
    "an absurd height",
    () => BASE.damaged(0, 257, { value: 2 ** 32 - 1 }),
    /directory 0 has ImageLength 4294967295$/,
  ],
  [
    "dimensions that its tiles do not cover",
    () => BASE.damaged(0, 256, { value: 2 ** 31 }),
    /is 2147483648 × 70 pixels in 201326592 tiles and lists only 12$/,
  ],
  ["a width that is text", () => BASE.damaged(0, 256, { type: 2 }), /directory 0 has ImageWidth/],
  [
    "a fractional width",
    () => BASE.damaged(0, 256, { type: FLOAT, value: 99.5 }),
    /directory 0 has ImageWidth 99.5$/,
  ],
  ["tiles of no width", () => BASE.damaged(0, 322, { value: 0 }), /directory 0 has TileWidth 0$/],
  ["tiles of no height", () => BASE.damaged(1, 323, { value: 0 }), /directory 1 has TileLength 0$/],
  [
    "no TileLength",
    () => buildTiff([tiledImage({ without: [323] })]).bytes,
    /directory 0 has TileLength missing$/,
  ],
  [
    "no TileOffsets",
    () => buildTiff([tiledImage({ without: [324] })]).bytes,
    /directory 0 has no TileOffsets$/,
  ],
  [
    "no TileByteCounts",
    () => buildTiff([tiledImage({ without: [325] })]).bytes,
    /directory 0 has no TileByteCounts$/,
  ],
  [
    "fewer byte counts than tiles",
    () => BASE.damaged(0, 325, { count: 11 }),
    /in 12 tiles and lists only 11$/,
  ],
  [
    "TileOffsets that are text",
    () => BASE.damaged(0, 324, { type: 2 }),
    /directory 0 has no TileOffsets$/,
  ],
  [
    "RowsPerStrip 0",
    () => buildTiff([{ widthPx: 4, heightPx: 4, rowsPerStrip: 0, tiles: [pattern(4, 4)] }]).bytes,
    /has RowsPerStrip 0$/,
  ],
  ["a fractional RowsPerStrip", () =>
    buildTiff([{
      widthPx: 4,
      heightPx: 4,
      tiles: [pattern(4, 4)],
      fields: [{ tag: 278, type: FLOAT, values: [1.5] }],
    }]).bytes, /has RowsPerStrip 1.5$/],
];

for (const [name, bytes, message] of brokenRows) {
  Deno.test(`readTiff() rejects ${name}`, async () => {
    await assert.rejects(readTiff(new MemorySource(bytes(), "a.tif")), (error) => {
      assert(error instanceof SlideFormatError, String(error));
      assert.match(error.message, /^Cannot read the TIFF "a\.tif": /);
      assert.match(error.message, message);
      assert.equal(error.path, "a.tif");
      assert.equal(error.format, "tiff");
      return true;
    });
  });
}

const ONE = buildTiff([tiledImage({ widthPx: 32, heightPx: 32 })]);

const brokenTileRows: [name: string, bytes: () => Uint8Array, message: RegExp][] = [
  [
    "past the end",
    () => ONE.damaged(0, 324, { value: 2 ** 32 - 1 }),
    /has tile \(0, 0\) in 3072 bytes at 4294967295, past the file's end at \d+$/,
  ],
  [
    "whose bytes end past the end",
    () => ONE.damaged(0, 325, { value: ONE.bytes.length }),
    /has tile \(0, 0\) in \d+ bytes at 8, past/,
  ],
  [
    "at a negative offset",
    () => ONE.damaged(0, 324, { type: SLONG, value: -5 }),
    /has tile \(0, 0\) in 3072 bytes at -5$/,
  ],
  [
    "of a negative number of bytes",
    () => ONE.damaged(0, 325, { type: SLONG, value: -5 }),
    /in -5 bytes at 8$/,
  ],
  [
    "at an offset that is no number",
    () => ONE.damaged(0, 324, { type: FLOAT, value: NaN }),
    /in 3072 bytes at NaN$/,
  ],
  [
    "at a fractional offset",
    () => ONE.damaged(0, 324, { type: FLOAT, value: 8.5 }),
    /in 3072 bytes at 8.5$/,
  ],
  ["that claims far more bytes than it has pixels", () => {
    const padded = buildTiff([
      tiledImage({ widthPx: 32, heightPx: 32 }),
      { widthPx: 1, heightPx: 1, tiles: [new Uint8Array(2 ** 21)] },
    ]);
    return padded.damaged(0, 325, { value: 2 ** 21 });
  }, /has tile \(0, 0\) in 2097152 bytes at 8, too many for 3072 bytes of pixels$/],
];

for (const [name, bytes, message] of brokenTileRows) {
  Deno.test(`TiffDirectory.readTile() rejects a tile ${name}`, async () => {
    const source = new RecordingSource(bytes(), "a.tif");
    const directories = await readTiff(source);
    source.reads.length = 0;
    await assert.rejects(directories![0]!.readTile(0, 0), (error) => {
      assert(error instanceof SlideFormatError, String(error));
      assert.match(error.message, /^Cannot read the TIFF "a\.tif": directory 0 /);
      assert.match(error.message, message);
      return true;
    });
    assert.deepEqual(source.reads, []);
  });
}

const unsupportedRows: [name: string, changes: Partial<Image>, feature: string][] = [
  ["LZMA", { compression: 34925 }, "TIFF compression 34925 (LZMA)"],
  ["old JPEG", { compression: 6 }, "TIFF compression 6 (old JPEG)"],
  ["an unknown compression", { compression: 4711 }, "TIFF compression 4711 (unknown)"],
  [
    "WebP in grey",
    { compression: 50001, photometric: 1, samples: 1 },
    "photometric interpretation 1 in 1 samples, webp",
  ],
  ["1 bit a sample", { bits: 1 }, "1/1/1 bits a sample"],
  ["32 bits a sample", { bits: 32 }, "32/32/32 bits a sample"],
  [
    "samples of several sizes",
    { fields: [{ tag: 258, type: SHORT, values: [5, 6, 5] }] },
    "5/6/5 bits a sample",
  ],
  ["no bits a sample", { without: [258] }, "1 bits a sample"],
  [
    "signed samples",
    { fields: [{ tag: 339, type: SHORT, values: [1, 1, 2] }] },
    "samples that are no u8 or u16",
  ],
  [
    "a palette in three samples",
    { photometric: 3 },
    "photometric interpretation 3 in 3 samples, none",
  ],
  ["CMYK", { photometric: 5, samples: 4 }, "photometric interpretation 5 in 4 samples, none"],
  [
    "subsampled YCbCr of 16 bits",
    { photometric: 6, bits: 16 },
    "subsampled YCbCr in 3 samples of 16 bits",
  ],
  [
    "YCbCr of another standard",
    {
      photometric: 6,
      fields: [{ tag: 529, type: RATIONAL, values: [2126, 10000, 7152, 10000, 722, 10000] }],
    },
    "YCbCr that is not BT.601 in full range",
  ],
  ["RGB in two samples", { samples: 2 }, "photometric interpretation 2 in 2 samples, none"],
  ["five samples", { samples: 5 }, "photometric interpretation 2 in 5 samples, none"],
  [
    "three and a half samples",
    { fields: [{ tag: 277, type: FLOAT, values: [3.5] }] },
    "photometric interpretation 2 in 3.5 samples, none",
  ],
  [
    "a predictor for floats",
    { compression: 8, fields: [{ tag: 317, type: SHORT, values: [3] }] },
    "predictor 3",
  ],
  [
    "absurd tiles",
    { tilePx: [2 ** 15, 2 ** 15], tiles: [new Uint8Array(8)] },
    "a tile of 32768 × 32768 pixels",
  ],
];

for (const [name, changes, feature] of unsupportedRows) {
  Deno.test(`TiffDirectory.readTile() says that ${name} is not supported`, async () => {
    const directory = await first({ ...tiledImage(), ...changes });
    await assert.rejects(directory.readTile(0, 0), (error) => {
      assert(error instanceof UnsupportedError, String(error));
      assert.equal(error.feature, feature);
      assert.equal(
        error.message,
        `Cannot read directory 0 of "a.tif": ${feature} is not supported`,
      );
      return true;
    });
  });
}

Deno.test("readTiff() rejects a TIFF cut anywhere, or finds no TIFF, and never reads past it", async () => {
  for (let length = 0; length < SIZE; length += 1 + Math.floor(length / 500)) {
    const source = new RecordingSource(BASE.bytes.subarray(0, length), "a.tif");
    try {
      assert.equal(await readTiff(source), undefined, `cut to ${length} bytes`);
      assert(length < 8, `cut to ${length} bytes`);
    } catch (error) {
      assert(error instanceof SlideFormatError, `cut to ${length} bytes: ${error}`);
    }
  }
});
