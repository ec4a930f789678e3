import assert from "node:assert/strict";
import { SlideFormatError, UnsupportedError } from "../../src/errors.ts";
import { openSlide, type SlideOptions } from "../../src/slide/open.ts";
import { TiledSlide } from "../../src/slide/region.ts";
import type { RawTile } from "../../src/slide/slide.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { convertToSrgb, makeSrgbTable, type SrgbTable } from "../../src/slide/srgb.ts";
import { srgbOfLab, srgbOfMatrix } from "../reference/icc.ts";
import { matrixProfile, tableProfile, WIDE } from "./icc_builder.ts";
import { ascii, buildTiff, cutTiles, type Field, pattern, UNDEFINED } from "./tiff_builder.ts";

const PROFILE = matrixProfile(WIDE);
/** Prime, so that all values of all samples come up. */
const STEP = 97;

/** Compares every so many colours of a table; those where `isSeen` says so. */
function differences(
  table: SrgbTable,
  expect: (rgb: readonly number[]) => number[],
  isSeen: (expected: readonly number[]) => boolean = () => true,
): { largest: number; mean: number } {
  let largest = 0, sum = 0, count = 0;
  for (let colour = 0; colour < 2 ** 24; colour += STEP) {
    const expected = expect([colour & 255, colour >> 8 & 255, colour >> 16]);
    if (!isSeen(expected)) continue;
    for (let i = 0; i < 3; i++) {
      const difference = Math.abs((table[colour]! >> 8 * i & 255) - expected[i]!);
      largest = Math.max(largest, difference);
      sum += difference;
      count++;
    }
  }
  assert(count > 100_000);
  return { largest, mean: sum / count };
}

Deno.test("makeSrgbTable() converts by a matrix and curves as the reference does", async () => {
  const table = await makeSrgbTable(PROFILE, "a");
  const { largest, mean } = differences(table, (rgb) => srgbOfMatrix(rgb, WIDE));
  // Half for rounding, and as much again for Little CMS's fixed point of 14 bits.
  assert(largest < 1, String(largest));
  // Rounding alone is off by a quarter in the mean.
  assert(mean < 0.3, String(mean));
});

Deno.test("convertToSrgb() converts each pixel by itself, however many there are", () => {
  const table = Uint32Array.from({ length: 2 ** 24 }, (_, colour) => colour * 7919 & 0xffffff);
  for (let count = 0; count <= 13; count++) {
    const pixels = pattern(count || 1, 1, 3, count).slice(0, 3 * count);
    const expected = Array.from({ length: count }, (_, i) => {
      const [red, green, blue] = pixels.subarray(3 * i);
      const made = table[red! + green! * 256 + blue! * 65536]!;
      return [made % 256, Math.floor(made / 256) % 256, Math.floor(made / 65536)];
    });
    convertToSrgb(pixels, table);
    assert.deepEqual(Array.from(pixels), expected.flat());
  }
});

/** A smooth one, in CIELAB, of samples from 0 to 1. */
const labOf = (red: number, green: number, blue: number): [number, number, number] => [
  100 * (0.3 * red + 0.6 * green + 0.1 * blue) ** 0.9,
  60 * (red - green) * (0.5 + 0.5 * red) + 3,
  60 * (0.5 * (red + green) - blue) - 2,
];
const TABLE_PROFILE = tableProfile(17, labOf);

Deno.test("makeSrgbTable() converts by a table as the reference does", async () => {
  const table = await makeSrgbTable(TABLE_PROFILE, "a");
  // Little CMS makes 33³ points of a table profile and interpolates: where colours are cut at the
  // end of sRGB's gamut, or its curve bends at black, that is off by up to 12. Elsewhere:
  const { largest, mean } = differences(
    table,
    ([red, green, blue]) => srgbOfLab(labOf(red! / 255, green! / 255, blue! / 255)),
    (expected) => expected.every((value) => value >= 32 && value <= 223),
  );
  assert(mean < 0.5, String(mean));
  assert(largest < 8, String(largest));
});

/**
 * `echo 221 182 221 | transicc -t0 -n -i PROFILE -o '*sRGB'` and so on (liblcms2-utils 2.14), which
 * computes in f64: by PROFILE and by TABLE_PROFILE.
 */
const TRANSICC: readonly (readonly [
  colour: readonly number[],
  byMatrix: readonly number[],
  byTable: readonly number[],
])[] = [
  [[221, 182, 221], [235.0364, 183.4798, 223.3996], [214.4707, 189.8596, 209.6371]],
  [[100, 100, 200], [100.0666, 100.0708, 204.2921], [96.6087, 110.8048, 154.1153]],
  [[128, 128, 128], [129.0307, 129.0302, 129.0308], [132.6125, 126.8679, 132.0454]],
  [[200, 90, 120], [228.4423, 89.5686, 121.9411], [169.8655, 109.0263, 121.1293]],
  [[90, 160, 80], [0, 161.4863, 72.7007], [121.5352, 135.4166, 116.1692]],
  [[60, 40, 90], [63.9887, 35.2496, 91.0951], [58.3583, 53.3396, 73.0691]],
  [[250, 240, 245], [253.8912, 240.4622, 245.523], [252.558, 239.9159, 247.3666]],
];

Deno.test("makeSrgbTable() gives what transicc does", async () => {
  for (const [which, profile] of [[1, PROFILE], [2, TABLE_PROFILE]] as const) {
    const table = await makeSrgbTable(profile, "a");
    for (const row of TRANSICC) {
      const pixel = Uint8Array.from(row[0]);
      convertToSrgb(pixel, table);
      for (const [i, value] of pixel.entries()) {
        const difference = Math.abs(value - row[which][i]!);
        // As above; of the table's interpolation these colours see little.
        assert(difference < (which === 1 ? 1 : 2), `${row[0]}: ${pixel}, not ${row[which]}`);
      }
    }
  }
});

const profileField = (icc: Uint8Array): Field => ({ tag: 34675, type: UNDEFINED, values: icc });

/** An Aperio slide with a missing tile and a thumbnail, of 100 × 70 pixels. */
function slideBytes(icc: Uint8Array | undefined): Uint8Array {
  const pixels = pattern(100, 70, 3, 1);
  const tiles = cutTiles(pixels, 100, 70, [32, 32]);
  tiles[5] = new Uint8Array();
  return buildTiff([
    {
      widthPx: 100,
      heightPx: 70,
      tilePx: [32, 32],
      tiles,
      fields: [
        ascii(270, "Aperio\r\n|MPP = 0.25"),
        ...(icc === undefined ? [] : [profileField(icc)]),
      ],
    },
    {
      widthPx: 20,
      heightPx: 10,
      tiles: [pattern(20, 10)],
    },
  ]).bytes;
}

async function open(icc: Uint8Array | undefined, options: SlideOptions) {
  return await openSlide(new MemorySource(slideBytes(icc), "a.svs"), options);
}

const WHOLE = { level: 0, x0Px: -10, y0Px: 0, widthPx: 120, heightPx: 70 };

Deno.test('openSlide({ colour: "srgb" }) converts tiles, and leaves alone what is none of the slide\'s', async () => {
  const raw = await open(PROFILE, {});
  const converted = await open(PROFILE, { colour: "srgb" });
  const before = (await raw.readRegion(WHOLE)).data;
  const after = (await converted.readRegion(WHOLE)).data;
  const table = await makeSrgbTable(PROFILE, "a");
  const expected = before.slice();
  convertToSrgb(expected, table);
  assert.notDeepEqual(expected, before);
  // White stays white by this profile, so that nothing is told of the background.
  assert.deepEqual(after, expected);
  assert.deepEqual(converted.background, [255, 255, 255]);
  // From the cache they are not converted again.
  assert.deepEqual((await converted.readRegion(WHOLE)).data, expected);

  const thumbnail = await converted.associated.get("thumbnail")!();
  assert.deepEqual(thumbnail.data, pattern(20, 10));
  const tile = await converted.rawTile(0, 0, 0);
  assert.deepEqual(tile.data, (await raw.rawTile(0, 0, 0)).data);
  assert.deepEqual(converted.icc, PROFILE);
  await raw.close();
  await converted.close();
});

Deno.test("new TiledSlide() with a table converts no background, neither beside tiles nor for missing ones", async () => {
  const tile: Omit<RawTile, "data"> = {
    compression: "none",
    widthPx: 2,
    heightPx: 1,
    samplesPerPixel: 3,
    bitsPerSample: 8,
    photometric: "rgb",
    alpha: "none",
    predictor: "none",
    littleEndian: true,
    jpegTables: undefined,
  };
  const slide = new TiledSlide(
    {
      format: "test",
      levels: [{
        widthPx: 4,
        heightPx: 1,
        tileWidthPx: 2,
        tileHeightPx: 1,
        columns: 2,
        rows: 1,
        readTile: (column) =>
          Promise.resolve({
            ...tile,
            data: Uint8Array.from(column === 0 ? [200, 90, 120, 200, 90, 120] : []),
          }),
      }],
      properties: {
        vendor: "test",
        mppX: undefined,
        mppY: undefined,
        objectivePower: undefined,
        all: {},
      },
      associated: new Map(),
      background: [200, 90, 120],
      close: () => Promise.resolve(),
    },
    {},
    await makeSrgbTable(PROFILE, "a"),
  );
  const region = { level: 0, x0Px: -1, y0Px: 0, widthPx: 5, heightPx: 1 };
  const [left, first, second, third, fourth] = Array.from(
    { length: 5 },
    ((data) => (_, i) => Array.from(data.subarray(3 * i, 3 * i + 3)))(
      (await slide.readRegion(region)).data,
    ),
  );
  const converted = [228, 90, 122];
  assert.deepEqual([first, second], [converted, converted]);
  for (const pixel of [left, third, fourth]) assert.deepEqual(pixel, [200, 90, 120]);
  await slide.close();
});

Deno.test('openSlide({ colour: "srgb" }) filters to a scale what is converted', async () => {
  const raw = await open(PROFILE, {});
  const converted = await open(PROFILE, { colour: "srgb" });
  const table = await makeSrgbTable(PROFILE, "a");
  const region = { mpp: 0.5, x0Px: 0, y0Px: 0, widthPx: 16, heightPx: 16 };
  const { data } = await converted.readRegion(region);
  const full = (await raw.readRegion({ ...WHOLE, x0Px: 0, widthPx: 32, heightPx: 32 })).data;
  convertToSrgb(full, table);
  for (let y = 0; y < 16; y++) {
    for (let x = 0; x < 16; x++) {
      for (let i = 0; i < 3; i++) {
        const sum = [0, 1, 32, 33].map((d) => full[3 * (2 * y * 32 + 2 * x + d) + i]!)
          .reduce((a, b) => a + b);
        assert.equal(data[3 * (16 * y + x) + i], Math.floor(sum / 4 + 0.5));
      }
    }
  }
  await raw.close();
  await converted.close();
});

Deno.test('openSlide({ colour: "srgb" }) leaves a slide without a profile as it is', async () => {
  const raw = await open(undefined, { colour: "raw" });
  const converted = await open(undefined, { colour: "srgb" });
  assert.equal(converted.icc, undefined);
  assert.deepEqual(await converted.readRegion(WHOLE), await raw.readRegion(WHOLE));
  await raw.close();
  await converted.close();
});

/** A copy with other bytes from an offset on. */
function withBytes(bytes: Uint8Array, at: number, ...others: number[]): Uint8Array {
  const changed = bytes.slice();
  changed.set(others, at);
  return changed;
}
const code = (text: string) => Array.from(text, (letter) => letter.charCodeAt(0));

Deno.test('openSlide({ colour: "srgb" }) rejects a broken profile, which raw pixels do not need', async (t) => {
  const rows: [what: string, icc: Uint8Array, type: unknown, message: RegExp][] = [
    ["a few bytes", Uint8Array.of(1, 2, 3, 4, 5), SlideFormatError, /broken: it has 5 bytes$/],
    ["zeros", new Uint8Array(500), SlideFormatError, /broken: it has no signature$/],
    ["a header alone", PROFILE.slice(0, 128), SlideFormatError, /broken: corrupt profile$/],
    [
      "an end that is cut",
      PROFILE.slice(0, 220),
      SlideFormatError,
      /broken: profile does not support/,
    ],
    ["too many tags", withBytes(PROFILE, 128, 255), SlideFormatError, /broken: corrupt profile$/],
    [
      "tags that lie outside",
      withBytes(withBytes(PROFILE, 136, 127), 148, 127),
      SlideFormatError,
      /broken: profile does not support/,
    ],
    ["no end", new Uint8Array(2 ** 24 + 1), SlideFormatError, /broken: it has 16777217 bytes$/],
    ["CMYK", withBytes(PROFILE, 16, ...code("CMYK")), UnsupportedError, /ICC profile of CMYK is/],
    ["grey", withBytes(PROFILE, 16, ...code("GRAY")), UnsupportedError, /ICC profile of GRAY is/],
    ["a space of \\0", withBytes(PROFILE, 16, 0), UnsupportedError, /ICC profile of no RGB is/],
  ];
  for (const [what, icc, type, message] of rows) {
    await t.step(what, async () => {
      const source = new MemorySource(slideBytes(icc), "a.svs");
      await assert.rejects(openSlide(source, { colour: "srgb" }), (error) => {
        assert(error instanceof (type as typeof SlideFormatError), String(error));
        assert.match(error.message, /^Cannot convert the colours of "a.svs" to sRGB: /);
        assert.match(error.message, message);
        return true;
      });
      await assert.rejects(source.read(0, 1), /it is closed/);
      await (await open(icc, {})).close();
    });
  }
});
