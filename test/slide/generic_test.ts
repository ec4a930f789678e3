import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { dataPath } from "../data.ts";
import { compareWithDigests, DIGESTS } from "./digests.ts";
import {
  ascii,
  buildTiff,
  deflate,
  type Field,
  type Image,
  type Layout,
  lzw,
  pattern,
  RATIONAL,
  SHORT,
  tiledImage,
} from "./tiff_builder.ts";

async function open(images: readonly Image[], layout?: Layout) {
  return await openSlide(new MemorySource(buildTiff(images, layout).bytes));
}

function reduced(widthPx: number, heightPx: number, subfileType = 1): Image {
  const fields: Field[] = [{ tag: 254, type: SHORT, values: [subfileType] }];
  return tiledImage({ widthPx, heightPx, fields });
}

for (const name of Object.keys(DIGESTS).filter((name) => !name.endsWith(".svs"))) {
  Deno.test(`openSlide() reads ${name} as ${DIGESTS[name]!.reader} does`, () =>
    compareWithDigests(name));
}

Deno.test("openSlide() reads no TIFF of the data that no other reader vouches for", async () => {
  const folder = dataPath("tiff");
  if (folder === undefined) return;
  for (const file of readdirSync(folder)) {
    if (DIGESTS[`tiff/${file}`] !== undefined) continue;
    const slide = await openSlide(`${folder}/${file}`).catch(() => undefined);
    if (slide === undefined) continue;
    for (const level of slide.levels.keys()) {
      const region = { level, x0Px: 0, y0Px: 0, widthPx: 1, heightPx: 1 };
      await assert.rejects(slide.readRegion(region), UnsupportedError, file);
    }
    await slide.close();
  }
});

for (const bigTiff of [false, true]) {
  for (const littleEndian of [true, false]) {
    const name = `${littleEndian ? "little" : "big"}-endian ${bigTiff ? "BigTIFF" : "TIFF"}`;
    Deno.test(`openSlide() reads the pixels of a tiled ${name}`, async () => {
      const plain = tiledImage({ seed: 1 });
      const images: Image[] = [
        plain,
        { ...plain, compression: 8, tiles: plain.tiles.map(deflate) },
        { ...plain, compression: 32946, tiles: plain.tiles.map(deflate) },
        { ...plain, compression: 5, tiles: plain.tiles.map(lzw) },
      ];
      for (const image of images) {
        const slide = await open([image], { bigTiff, littleEndian });
        assert.equal(slide.format, "generic-tiff");
        const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 100, heightPx: 70 };
        assert.deepEqual((await slide.readRegion(region)).data, pattern(100, 70, 3, 1));
        await slide.close();
      }
    });
  }
}

Deno.test("openSlide() takes the first directory and reduced ones for levels, by width", async () => {
  const slide = await open([
    tiledImage(),
    reduced(25, 17),
    reduced(50, 35),
    reduced(40, 30, 0), // Another picture, not a smaller one of the same.
    reduced(30, 20, 4), // A mask.
    {
      widthPx: 12,
      heightPx: 8,
      tiles: [pattern(12, 8)],
      fields: [{ tag: 254, type: SHORT, values: [1] }],
    },
    reduced(12, 8, 5),
  ]);
  assert.deepEqual(slide.levels.map(({ widthPx }) => widthPx), [100, 50, 25, 12]);
  assert.deepEqual(slide.levels.map(({ downsample }) => downsample), [
    1,
    2,
    (4 + 70 / 17) / 2,
    (100 / 12 + 70 / 8) / 2,
  ]);
  assert.equal(slide.associated.size, 0);
});

Deno.test("openSlide() takes a TIFF in strips for a slide of one level", async () => {
  const strips: Image = { widthPx: 50, heightPx: 40, tiles: [pattern(50, 40, 3, 1)] };
  const slide = await open([strips, reduced(25, 20)]);
  assert.equal(slide.format, "generic-tiff");
  assert.deepEqual(slide.levels.map(({ widthPx }) => widthPx), [50]);
  const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 50, heightPx: 40 };
  assert.deepEqual((await slide.readRegion(region)).data, pattern(50, 40, 3, 1));
  await slide.close();
});

Deno.test("openSlide() gives the profile of the first directory", async () => {
  const profile: Field = { tag: 34675, type: 7, values: [1, 2, 3, 4, 5] };
  const slide = await open([tiledImage({ fields: [profile] })]);
  assert.deepEqual(slide.icc, Uint8Array.of(1, 2, 3, 4, 5));
  await slide.close();
  const without = await open([tiledImage()]);
  assert.equal(without.icc, undefined);
  await without.close();
});

Deno.test("openSlide() knows a generic TIFF's scale from its resolution", async () => {
  const rows: [
    resolution: number[] | undefined,
    unit: number | undefined,
    mpp: number | undefined,
  ][] = [
    [[20000, 1], 3, 0.5],
    [[25400, 1], 2, 1],
    [[25400, 1], undefined, 1], // Inches, where nothing is said.
    [[20000, 1], 1, undefined],
    [[20000, 1], 7, undefined],
    [[0, 1], 3, undefined],
    [[1, 0], 3, undefined],
    [[0, 0], 3, undefined],
    [undefined, 3, undefined],
  ];
  for (const [resolution, unit, mpp] of rows) {
    const fields: Field[] = [];
    if (resolution !== undefined) {
      fields.push({ tag: 282, type: RATIONAL, values: resolution });
      fields.push({ tag: 283, type: RATIONAL, values: resolution });
    }
    if (unit !== undefined) fields.push({ tag: 296, type: SHORT, values: [unit] });
    const { properties } = await open([tiledImage({ fields })]);
    assert.deepEqual(
      [properties.mppX, properties.mppY],
      [mpp, mpp],
      JSON.stringify([resolution, unit]),
    );
    assert.equal(properties.all["openslide.mpp-x"], mpp === undefined ? undefined : String(mpp));
  }
});

Deno.test("openSlide() writes numbers into properties as OpenSlide does", async () => {
  const rows: [numerator: number, denominator: number, text: string][] = [
    [1, 1, "1"],
    [1, 3, "0.33333333333333331"],
    [1, 10000, "0.0001"],
    [1, 100000, "1.0000000000000001e-05"],
    [4000000000, 1, "4000000000"],
    [0, 1, "0"],
    [1, 0, "inf"],
    [0, 0, "nan"],
  ];
  for (const [numerator, denominator, text] of rows) {
    const fields: Field[] = [
      { tag: 282, type: RATIONAL, values: [numerator, denominator] },
      ascii(270, "x"),
    ];
    const { properties } = await open([tiledImage({ fields })]);
    assert.equal(properties.all["tiff.XResolution"], text);
    assert.deepEqual([properties.vendor, properties.all["openslide.comment"]], [
      "generic-tiff",
      "x",
    ]);
  }
});
