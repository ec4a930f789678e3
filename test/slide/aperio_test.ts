import assert from "node:assert/strict";
import { openSlide } from "../../src/slide/open.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { dataPath } from "../data.ts";
import { compareWithDigests, DIGESTS } from "./digests.ts";
import {
  ascii,
  buildTiff,
  type Image,
  lzw,
  pattern,
  SHORT,
  tiledImage,
  UNDEFINED,
} from "./tiff_builder.ts";

const DESCRIPTION = "Aperio Image Library v1\r\n100x70 [0,0 100x70] (32x32) JPEG/RGB Q=30" +
  "|AppMag = 40|MPP = 0,2520|Focus Offset=-0.1|Empty = |Both = a = b| no value |Filename = x";

function aperio(description = DESCRIPTION): Image {
  return tiledImage({ fields: [ascii(270, description)] });
}

/** An image in one strip, as labels and macros are. */
function strip(subfileType: number | undefined, seed: number): Image {
  const fields = subfileType === undefined
    ? []
    : [{ tag: 254, type: SHORT, values: [subfileType] }];
  return {
    widthPx: 20,
    heightPx: 10,
    compression: 5,
    tiles: [lzw(pattern(20, 10, 3, seed))],
    fields,
  };
}

async function open(images: readonly Image[]) {
  return await openSlide(new MemorySource(buildTiff(images).bytes));
}

for (const name of Object.keys(DIGESTS).filter((name) => name.endsWith(".svs"))) {
  Deno.test(`openSlide() reads ${name} as ${DIGESTS[name]!.reader} does`, () =>
    compareWithDigests(name));
}

Deno.test("openSlide() knows the scale and objective of CMU-1-Small-Region.svs", async () => {
  const path = dataPath("slides/svs/CMU-1-Small-Region.svs");
  if (path === undefined) return;
  const slide = await openSlide(path);
  assert.equal(slide.format, "aperio");
  const { vendor, mppX, mppY, objectivePower } = slide.properties;
  assert.deepEqual([vendor, mppX, mppY, objectivePower], ["aperio", 0.499, 0.499, 20]);
  await slide.close();
});

Deno.test("openSlide() takes an Aperio slide's tiled directories for levels, strips for pictures", async () => {
  const slide = await open([
    aperio(),
    strip(undefined, 1), // The second directory is the thumbnail.
    tiledImage({ widthPx: 50, heightPx: 35 }),
    tiledImage({ widthPx: 25, heightPx: 17 }),
    strip(1, 2),
    strip(9, 3),
    strip(0, 4), // No one knows what this is.
  ]);
  assert.equal(slide.format, "aperio");
  assert.deepEqual(slide.levels.map(({ widthPx }) => widthPx), [100, 50, 25]);
  assert.deepEqual([...slide.associated.keys()], ["thumbnail", "label", "macro"]);
  for (const [seed, name] of [[1, "thumbnail"], [2, "label"], [3, "macro"]] as const) {
    const picture = await slide.associated.get(name)!();
    assert.deepEqual(picture, { data: pattern(20, 10, 3, seed), widthPx: 20, heightPx: 10 });
  }
  await slide.close();
});

/** A level of 32 px tiles of which some are missing. */
function partial(widthPx: number, heightPx: number, seed: number, missing: readonly number[]) {
  const image = tiledImage({ widthPx, heightPx, seed });
  const tiles = image.tiles.map((tile, i) => missing.includes(i) ? new Uint8Array() : tile);
  return { ...image, tiles };
}

/** Each pixel the mean of four. */
function half(data: Uint8Array, widthPx: number, heightPx: number): Uint8Array {
  const out = new Uint8Array(widthPx * heightPx / 4 * 3);
  for (let i = 0; i < out.length; i++) {
    const x = Math.floor(i / 3) % (widthPx / 2), y = Math.floor(i / 3 / (widthPx / 2));
    const at = 3 * (2 * y * widthPx + 2 * x) + i % 3;
    const sum = data[at]! + data[at + 3]! + data[at + 3 * widthPx]! + data[at + 3 * widthPx + 3]!;
    out[i] = Math.floor(sum / 4 + 0.5);
  }
  return out;
}

// OpenSlide 3.4.1 was run on such a slide: its tiles differ by 2 at most, 0.2 in the mean (cairo's
// filter is wider than the area), and are the same ones.
Deno.test("readRegion() makes an Aperio level's missing tiles of the level before", async () => {
  const WIDTH = 128, HEIGHT = 128;
  const [first, ...rest] = [
    partial(WIDTH, HEIGHT, 1, []),
    partial(WIDTH / 2, HEIGHT / 2, 2, [1]),
    partial(WIDTH / 4, HEIGHT / 4, 3, []), // Its one tile covers a missing one: taken for missing.
  ];
  const fields = [ascii(270, DESCRIPTION)];
  const slide = await open([{ ...first!, fields }, ...rest]);
  const read = async (level: number) => {
    const { widthPx, heightPx } = slide.levels[level]!;
    return (await slide.readRegion({ level, x0Px: 0, y0Px: 0, widthPx, heightPx })).data;
  };
  const expected = pattern(WIDTH / 2, HEIGHT / 2, 3, 2);
  const finer = half(pattern(WIDTH, HEIGHT, 3, 1), WIDTH, HEIGHT);
  for (let y = 0; y < 32; y++) {
    const row = 3 * (y * 64 + 32);
    expected.set(finer.subarray(row, row + 96), row);
  }
  assert.deepEqual(await read(1), expected);
  assert.deepEqual(await read(2), half(expected, WIDTH / 2, HEIGHT / 2));
  assert.equal((await slide.rawTile(1, 1, 0)).data.length, 0);
  assert.equal((await slide.rawTile(2, 0, 0)).data.length, 0);
  await slide.close();
});

Deno.test("readRegion() shows what is missing from an Aperio slide's first level as background", async () => {
  const slide = await open([{
    ...partial(64, 64, 1, [0, 1, 2, 3]),
    fields: [ascii(270, DESCRIPTION)],
  }, partial(32, 32, 2, [])]);
  for (const [level, widthPx] of [[0, 64], [1, 32]] as const) {
    const region = { level, x0Px: 0, y0Px: 0, widthPx, heightPx: widthPx };
    const { data } = await slide.readRegion(region);
    assert.deepEqual(data, new Uint8Array(data.length).fill(255));
  }
  await slide.close();
});

Deno.test("openSlide() gives the profile of an Aperio slide", async () => {
  const profile = { tag: 34675, type: UNDEFINED, values: [1, 2, 3, 4, 5] };
  const slide = await open([tiledImage({ fields: [ascii(270, DESCRIPTION), profile] })]);
  assert.deepEqual(slide.icc, Uint8Array.of(1, 2, 3, 4, 5));
  await slide.close();
});

Deno.test("openSlide() reads what Aperio's description says", async () => {
  const { properties } = await open([aperio()]);
  const { vendor, mppX, mppY, objectivePower, all } = properties;
  assert.deepEqual([vendor, mppX, mppY, objectivePower], ["aperio", 0.252, 0.252, 40]);
  const aperioOnly = Object.entries(all).filter(([name]) => name.startsWith("aperio."));
  assert.deepEqual(Object.fromEntries(aperioOnly), {
    "aperio.AppMag": "40",
    "aperio.MPP": "0,2520", // A comma: some scanners write their locale's.
    "aperio.Focus Offset": "-0.1",
    "aperio.Empty": "",
    "aperio.Both": "a = b",
    "aperio.Filename": "x",
  });
  assert.equal(all["openslide.mpp-x"], "0.252");
  assert.equal(all["openslide.objective-power"], "40");
  assert.equal(all["openslide.comment"], DESCRIPTION);
});

Deno.test("openSlide() knows no scale where Aperio's description has none that makes sense", async () => {
  for (const value of ["", "0", "-1", "abc", "NaN", "Infinity", "1e999"]) {
    const { properties } = await open([aperio(`Aperio|MPP = ${value}|AppMag = ${value}`)]);
    assert.equal(properties.mppX, undefined, value);
    assert.equal(properties.objectivePower, undefined, value);
  }
  const { properties } = await open([aperio("Aperio Image Library")]);
  assert.deepEqual([properties.mppX, properties.objectivePower], [undefined, undefined]);
  assert.equal(properties.all["openslide.mpp-x"], undefined);
});

Deno.test("openSlide() takes a TIFF for Aperio's only where its description begins so", async () => {
  const formats = [];
  for (const description of ["Aperio", "aperio Image", " Aperio", "Leica Aperio", ""]) {
    formats.push((await open([aperio(description)])).format);
  }
  assert.deepEqual(formats, [
    "aperio",
    "generic-tiff",
    "generic-tiff",
    "generic-tiff",
    "generic-tiff",
  ]);
});
