import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CodecError, UnsupportedError } from "../../src/errors.ts";
import { TileDecoder } from "../../src/slide/codec.ts";
import type { RawTile } from "../../src/slide/slide.ts";
import { dataPath } from "../data.ts";
import { bytes as randomBytes } from "../reference/random.ts";
import { encodeHtj2k, encodeJpeg2000 } from "./wasm_encoders.ts";

const J2K: Omit<RawTile, "data" | "widthPx" | "heightPx"> = {
  compression: "jpeg2000",
  samplesPerPixel: 3,
  bitsPerSample: 8,
  photometric: "rgb",
  alpha: "none",
  predictor: "none",
  littleEndian: true,
  jpegTables: undefined,
};

const WIDTH = 67, HEIGHT = 61;

async function decode(tile: RawTile): Promise<Uint8Array> {
  return await new TileDecoder(0).decode(tile);
}

/** A portable anymap (netpbm), or a component in OpenJPEG's form of it, of 8 bits. */
function readReference(path: string) {
  const file = readFileSync(path);
  const [head = "", kind] = /^(P[56]|PG)\s(?:#.*\n|\s|[MLS+-]+ |\+?\d+\s)+/.exec(
    file.subarray(0, 200).toString("latin1"),
  ) ?? [];
  const numbers = head.replace(/#.*\n/g, "").replace(/^P./, "").match(/\d+/g)!.map(Number);
  const [widthPx, heightPx] = kind === "PG" ? numbers.slice(1) : numbers;
  const samples = kind === "P6" ? 3 : 1;
  const length = widthPx! * heightPx! * samples;
  return { widthPx: widthPx!, heightPx: heightPx!, samples, data: file.subarray(-length) };
}

// T.803 lets a decoder of class 1 differ from the lossy references; OpenJPEG's own differ by 1 where
// a float is rounded. Lossless ones differ in nothing.
const references: [file: string, pictures: string[], maxDifference: number][] = [
  ["a1_mono.j2c", ["a1_mono.ppm"], 1],
  ["b1_mono.j2c", ["b1_mono.ppm"], 1],
  ["d1_colr.j2c", ["d1_colr.ppm"], 1],
  ["p0_01.j2k", ["c1p0_01_0.pgx"], 0],
  ["p0_04.j2k", ["c1p0_04_0.pgx", "c1p0_04_1.pgx", "c1p0_04_2.pgx"], 2],
  ["p0_09.j2k", ["c1p0_09_0.pgx"], 0],
  ["p0_14.j2k", ["c1p0_14_0.pgx", "c1p0_14_1.pgx", "c1p0_14_2.pgx"], 0],
  ["p0_16.j2k", ["c1p0_16_0.pgx"], 0],
  ["wsirs-rgb_mct.j2k", ["wsirs-rgb_mct.ppm"], 0],
  ["wsirs-rgb_nomct.j2k", ["wsirs-rgb_nomct.ppm"], 0],
];

for (const [file, pictures, maxDifference] of references) {
  Deno.test(`TileDecoder.decode() reads ${file} as its reference shows it`, async () => {
    const path = dataPath(`j2k/${file}`);
    if (path === undefined) return;
    const shown = pictures.map((name) => readReference(dataPath(`j2k/${name}`)!));
    const { widthPx, heightPx } = shown[0]!;
    const components = shown.length === 3 ? 3 : shown[0]!.samples;
    const rgb = await decode({
      ...J2K,
      data: new Uint8Array(readFileSync(path)),
      widthPx,
      heightPx,
      samplesPerPixel: components,
      photometric: components === 1 ? "grey" : "rgb",
    });
    let worst = 0;
    for (let i = 0; i < rgb.length; i++) {
      const pixel = Math.floor(i / 3), channel = i % 3;
      const expected = shown.length === 3
        ? shown[channel]!.data[pixel]!
        : shown[0]!.data[components === 3 ? i : pixel]!;
      worst = Math.max(worst, Math.abs(rgb[i]! - expected));
    }
    assert(worst <= maxDifference, `differs by ${worst}`);
  });
}

Deno.test("TileDecoder.decode() reads an HTJ2K file as OpenJPEG does", async () => {
  const path = dataPath("j2k/byte.jph");
  if (path === undefined) return;
  const data = new Uint8Array(readFileSync(path));
  const tile = { ...J2K, samplesPerPixel: 1, photometric: "grey", data } as const;
  const rgb = await decode({ ...tile, widthPx: 20, heightPx: 20 });
  // The first row by opj_decompress 2.5.0.
  assert.deepEqual(
    Array.from(rgb.subarray(0, 60).filter((_, i) => i % 3 === 0)),
    [
      107,
      123,
      132,
      115,
      132,
      132,
      140,
      132,
      132,
      132,
      107,
      132,
      107,
      132,
      132,
      107,
      123,
      115,
      156,
      148,
    ],
  );
});

Deno.test("TileDecoder.decode() finds the codestream in a JP2 file", async () => {
  const path = dataPath("j2k/file1.jp2");
  if (path === undefined) return;
  const data = new Uint8Array(readFileSync(path));
  const tile = { ...J2K, widthPx: 768, heightPx: 512 };
  const rgb = await decode({ ...tile, data });
  const start = data.findIndex((byte, at) => byte === 0xff && data[at + 1] === 0x4f);
  assert(start > 0);
  assert.deepEqual(rgb, await decode({ ...tile, data: data.slice(start) }));
});

for (const [name, encode] of [["JPEG 2000", encodeJpeg2000], ["HTJ2K", encodeHtj2k]] as const) {
  Deno.test(`TileDecoder.decode() reads lossless ${name} of every kind of samples`, async () => {
    const kinds: [components: number, bits: number][] = [[1, 8], [3, 8], [4, 8], [1, 12], [1, 16]];
    for (const [components, bits] of kinds) {
      const random = randomBytes(WIDTH * HEIGHT * components * 2, 3);
      const values = Array.from(
        { length: WIDTH * HEIGHT * components },
        (_, i) => (random[2 * i]! * 256 + random[2 * i + 1]!) >> (16 - bits),
      );
      const data = await encode(values, WIDTH, HEIGHT, components, bits);
      const isGrey = components === 1;
      const rgb = await decode({
        ...J2K,
        data,
        widthPx: WIDTH,
        heightPx: HEIGHT,
        samplesPerPixel: components,
        bitsPerSample: bits > 8 ? 16 : 8,
        photometric: isGrey ? "grey" : "rgb",
      });
      const shown = (value: number) =>
        isGrey ? value >> (bits - 8) : Math.round(value * 255 / (2 ** bits - 1));
      const expected = Uint8Array.from(
        rgb,
        (_, i) =>
          shown(values[isGrey ? Math.floor(i / 3) : Math.floor(i / 3) * components + i % 3]!),
      );
      assert.deepEqual(rgb, expected, `${components} components of ${bits} bits`);
    }
  });
}

Deno.test("TileDecoder.decode() reads three components of 16 bits, the nearest of 8", async () => {
  const data = new Uint8Array(readFileSync(new URL("../fixtures/rgb_16.j2k", import.meta.url)));
  const [widthPx, heightPx] = [26, 14];
  const rgb = await decode({ ...J2K, bitsPerSample: 16, data, widthPx, heightPx });
  const expected = Uint8Array.from(rgb, (_, i) => {
    const pixel = Math.floor(i / 3);
    const value = 257 * sampleOf(i % 3, pixel % widthPx, Math.floor(pixel / widthPx)) + 100;
    return Math.round(Math.min(value, 65535) / 257);
  });
  assert.deepEqual(rgb, expected);
});

/** What make_j2k.py puts into sample (x, y) of component c. */
const sampleOf = (c: number, x: number, y: number) => (40 * c + 7 * x + 11 * y) % 256;

for (const [name, down] of [["ycbcr_422.j2k", 1], ["ycbcr_420.j2k", 2]] as const) {
  Deno.test(`TileDecoder.decode() converts the subsampled chroma of ${name} as libjpeg does`, async () => {
    const [widthPx, heightPx] = [26, 14];
    const data = new Uint8Array(readFileSync(new URL(`../fixtures/${name}`, import.meta.url)));
    const rgb = await decode({ ...J2K, photometric: "ycbcr", data, widthPx, heightPx });
    const expected = [];
    for (let y = 0; y < heightPx; y++) {
      for (let x = 0; x < widthPx; x++) {
        const [cb, cr] = [1, 2].map((c) => sampleOf(c, x >> 1, Math.floor(y / down)) - 128);
        const luma = sampleOf(0, x, y);
        // ITU-T T.871 §7, rounded to the nearest, which 16 fractional bits do not change here.
        expected.push(
          luma + 1.402 * cr!,
          luma - 0.344136 * cb! - 0.714136 * cr!,
          luma + 1.772 * cb!,
        );
      }
    }
    const rounded = expected.map((value) => Math.max(0, Math.min(255, Math.floor(value + 0.5))));
    const differing = rounded.filter((value, i) => value !== rgb[i]);
    assert.equal(differing.length, 0);
  });
}

Deno.test("TileDecoder.decode() converts chroma of every pixel that Aperio's compression calls YCbCr", async () => {
  const path = dataPath("j2k/wsirs-ycbcr_444.j2k");
  if (path === undefined) return;
  const reference = readFileSync(dataPath("j2k/wsirs-ycbcr_444.ppm")!);
  const rgb = await decode({
    ...J2K,
    photometric: "ycbcr",
    data: new Uint8Array(readFileSync(path)),
    widthPx: 16,
    heightPx: 12,
  });
  const expected = reference.subarray(-16 * 12 * 3);
  // The reference was converted in floats.
  assert(rgb.every((value, i) => Math.abs(value - expected[i]!) <= 1));
});

const GOOD = await encodeJpeg2000(
  Array.from(randomBytes(WIDTH * HEIGHT * 3, 7)),
  WIDTH,
  HEIGHT,
  3,
  8,
);
const TILE: RawTile = { ...J2K, data: GOOD, widthPx: WIDTH, heightPx: HEIGHT };

/** A copy with bytes at a place overwritten. */
function patched(at: number, ...values: number[]): Uint8Array<ArrayBuffer> {
  const copy = GOOD.slice();
  copy.set(values, at);
  return copy;
}

function markerAt(code: number): number {
  for (let at = 0; at + 1 < GOOD.length; at++) {
    if (GOOD[at] === 0xff && GOOD[at + 1] === code) return at;
  }
  throw new RangeError(`There is no marker ${code}`);
}

const COD = markerAt(0x52), SOT = markerAt(0x90);

const brokenRows: [name: string, changes: () => Partial<RawTile>, message: RegExp][] = [
  ["nothing but noise", () => ({ data: randomBytes(500, 1) as Uint8Array<ArrayBuffer> }), /SOC/],
  ["no SIZ", () => ({ data: patched(3, 0x52) }), /SOC is not followed by SIZ/],
  ["another width", () => ({ widthPx: 66 }), /its picture is 67 × 61, the tile 66 × 61/],
  ["another number of samples", () => ({ samplesPerPixel: 1 }), /3 components, the tile 1/],
  ["no EOC", () => ({ data: GOOD.slice(0, -2) }), /the tile-part at \d+ ends|it is cut|no EOC/],
  ["half of it", () => ({ data: GOOD.slice(0, GOOD.length / 2) }), /the tile-part at \d+ ends/],
  ["a tile-part past the end", () => ({ data: patched(SOT + 6, 0, 9, 0, 0) }), /the tile-part at/],
  ["a tile that it has not", () => ({ data: patched(SOT + 4, 0, 7) }), /a tile 7 of 1/],
  ["too many packets", () => ({ data: patched(COD + 6, 0xff, 0xff) }), /cannot hold \d+ packets/],
  ["no area", () => ({ data: patched(8, 0, 0, 0, 0) }), /an area that is empty/],
  ["boxes without a codestream", () => ({
    data: Uint8Array.from([0, 0, 0, 12, 0x6a, 0x50, 0x20, 0x20, 13, 10, 0x87, 10]),
  }), /boxes, but no codestream/],
];

for (const [name, changes, message] of brokenRows) {
  Deno.test(`TileDecoder.decode() rejects JPEG 2000 with ${name}`, async () => {
    await assert.rejects(decode({ ...TILE, ...changes() }), (error) => {
      assert(error instanceof CodecError, String(error));
      assert.equal(error.codec, "jpeg2000");
      assert.match(error.message, message);
      return true;
    });
  });
}

const unsupportedRows: [name: string, tile: () => RawTile, feature: string][] = [
  [
    "signed samples",
    () => ({ ...TILE, data: patched(42, 0x87, 1, 1, 0x87, 1, 1, 0x87) }),
    "signed samples",
  ],
  [
    "samples of 17 bits",
    () => ({ ...TILE, data: patched(42, 16, 1, 1, 16, 1, 1, 16) }),
    "samples of 17 bits",
  ],
  [
    "components of several precisions",
    () => ({ ...TILE, data: patched(42, 7, 1, 1, 6) }),
    "components of different kinds",
  ],
  [
    "a tile for every pixel",
    () => ({ ...TILE, data: patched(24, 0, 0, 0, 1, 0, 0, 0, 1) }),
    "a picture of 4087 tiles",
  ],
  [
    "a picture too large",
    () => ({
      ...TILE,
      widthPx: 9000,
      heightPx: 9000,
      // Size and tile size.
      data: patched(
        8,
        ...[1, 1, 0, 0, 1, 1].flatMap((is) => [0, 0, is * (9000 >> 8), is * (9000 & 255)]),
      ),
    }),
    "a tile of 9000 × 9000 pixels",
  ],
];

for (const [name, tile, feature] of unsupportedRows) {
  Deno.test(`TileDecoder.decode() says that JPEG 2000 of ${name} is not supported`, async () => {
    await assert.rejects(decode(tile()), (error) => {
      assert(error instanceof UnsupportedError, String(error));
      assert.equal(error.feature, `JPEG 2000: ${feature}`);
      return true;
    });
  });
}

Deno.test("TileDecoder.decode() gives no tile's picture for the broken one after it", async () => {
  const good = await decode(TILE);
  const body = GOOD.length - 1500;
  for (let at = body; at < body + 1000; at += 97) {
    const data = patched(at, ...randomBytes(40, at));
    const rgb = await decode({ ...TILE, data }).catch((error) => {
      assert(error instanceof CodecError, String(error));
      return undefined;
    });
    if (rgb !== undefined) assert.notDeepEqual(rgb, good, `after damage at ${at}`);
  }
  assert.deepEqual(await decode(TILE), good);
});

Deno.test("TileDecoder.decode() gives a picture or a typed error where any byte of a header changes", async () => {
  const end = SOT + 14;
  let good = 0;
  for (let at = 0; at < end; at++) {
    for (const value of [0, 1, 0x7f, 0xff]) {
      try {
        const rgb = await decode({ ...TILE, data: patched(at, value) });
        assert.equal(rgb.length, WIDTH * HEIGHT * 3);
        good++;
      } catch (error) {
        assert(error instanceof CodecError || error instanceof UnsupportedError, `${at}: ${error}`);
      }
    }
  }
  assert(good > 0 && good < 4 * end);
});

Deno.test("TileDecoder.decode() rejects broken JPEG 2000 of the data", async () => {
  const folder = dataPath("j2k-bad");
  if (folder === undefined) return;
  for (const file of readdirSync(folder)) {
    const data = new Uint8Array(readFileSync(join(folder, file)));
    for (const samplesPerPixel of [1, 3, 4]) {
      const tile = { ...J2K, data, widthPx: 128, heightPx: 128, samplesPerPixel };
      await assert.rejects(decode(tile), (error) => {
        assert(error instanceof CodecError || error instanceof UnsupportedError, String(error));
        return true;
      });
    }
  }
});
