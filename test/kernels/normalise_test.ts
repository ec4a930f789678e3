import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import directText from "../../kernels/normalise_direct.wgsl" with { type: "text" };
import normaliseText from "../../kernels/normalise.wgsl" with { type: "text" };
import {
  compileNormalise,
  HAEMATOXYLIN_EOSIN,
  meanStd,
  type Normalisation,
  type NormaliseOptions,
  recordNormalise,
  type Resample,
  type StainNormalisation,
  type Strip,
} from "../../kernels/normalise.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/normalise.ts";
import { bytes, uniform } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

const IMAGENET = meanStd([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

async function run(
  pixels: Uint8Array<ArrayBuffer>,
  source: readonly [number, number],
  size: readonly [number, number],
  normalisation: Normalisation,
  resample: { shiftX: number; shiftY: number; ratio: number },
): Promise<Float32Array> {
  const gpu = await sharedGpu();
  const normalised = new Tensor(gpu, "f32", [...size, 4]);
  const batch = new Batch(gpu);
  recordNormalise(
    batch,
    await compileNormalise(gpu, normalisation),
    Tensor.from(gpu, pixels, [...source, 3]),
    normalised,
    normalisation,
    resample,
  );
  batch.submit();
  return await normalised.readFloats();
}

Deno.test("recordNormalise() is its formula for intensity and optical density", async () => {
  const cases = [
    // Every number of bytes past a u32; a workgroup is 64 pixels wide.
    { source: [1, 1], size: [1, 1], shiftX: 0, shiftY: 0, ratio: 1 },
    { source: [3, 7], size: [3, 7], shiftX: 0, shiftY: 0, ratio: 1 },
    { source: [2, 63], size: [2, 63], shiftX: 0, shiftY: 0, ratio: 1 },
    { source: [2, 65], size: [2, 65], shiftX: 0, shiftY: 0, ratio: 1 },
    { source: [5, 4], size: [5, 4], shiftX: 0, shiftY: 0, ratio: 1 },
    // Down by two, by a fraction with a shift, and up.
    { source: [22, 26], size: [11, 13], shiftX: 0, shiftY: 0, ratio: 2 },
    { source: [24, 29], size: [12, 15], shiftX: 0.375, shiftY: 0.75, ratio: 1.875 },
    { source: [5, 6], size: [10, 12], shiftX: 0, shiftY: 0, ratio: 0.5 },
    // A shift that begins before the source: the edge repeats.
    { source: [5, 6], size: [6, 7], shiftX: -1, shiftY: -1, ratio: 1 },
  ] as const;
  for (const [i, { source, size, ...resample }] of cases.entries()) {
    const pixels = bytes(source[0] * source[1] * 3, i);
    for (const normalisation of [IMAGENET, HAEMATOXYLIN_EOSIN]) {
      const expected = reference.normalise(pixels, source, size, normalisation, resample);
      const actual = await run(pixels, source, size, normalisation, resample);
      // WGSL §15.7.4: log2 outside [0.5, 2] is right to 3 ulp, inside to 2⁻²¹ absolute; a density is
      // at most 2.41 and the deconvolution's rows sum to at most 3.6 in magnitude, the means' scale
      // to 4.5. Eight roundings of f32 beside it: 1e-5 holds both with a small margin.
      for (let at = 0; at < expected.length; at++) {
        assert.ok(
          Math.abs(actual[at]! - expected[at]!) <= 1e-5,
          `case ${i}, element ${at}: ${actual[at]} instead of ${expected[at]}`,
        );
      }
    }
  }
});

Deno.test("recordNormalise() deconvolves the stains' own colours into one stain each", async () => {
  // Light that passes unit densities of haematoxylin, of eosin and of nothing.
  const light = (density: readonly number[]) => density.map((d) => 256 * 10 ** (-0.5 * d) - 1);
  const length = Math.hypot(0.650, 0.704, 0.286);
  const haematoxylin = light([0.650 / length, 0.704 / length, 0.286 / length]);
  const eosinLength = Math.hypot(0.072, 0.990, 0.105);
  const eosin = light([0.072 / eosinLength, 0.990 / eosinLength, 0.105 / eosinLength]);
  const pixels = Uint8Array.from([...haematoxylin, ...eosin, 255, 255, 255], Math.round);
  const [h0, e0, , , h1, e1, , , h2, e2] = await run(
    pixels,
    [1, 3],
    [1, 3],
    HAEMATOXYLIN_EOSIN,
    { shiftX: 0, shiftY: 0, ratio: 1 },
  );
  const near = (actual: number | undefined, expected: number) =>
    // Rounding to a byte moves a density by at most 0.5 / (82 · ln 10) = 0.003, times 3 channels.
    assert.ok(Math.abs(actual! - expected) < 0.01, `${actual} instead of ${expected}`);
  near(h0, 0.5);
  near(e0, 0);
  near(h1, 0);
  near(e1, 0.5);
  assert.equal(h2, 0);
  assert.equal(e2, 0);
});

Deno.test("recordNormalise() refuses shapes that do not fit", async () => {
  const gpu = await sharedGpu();
  const pipeline = await compileNormalise(gpu, IMAGENET);
  const batch = new Batch(gpu);
  const record = (pixels: Tensor, normalised: Tensor, ratio = 1) =>
    recordNormalise(batch, pipeline, pixels, normalised, IMAGENET, { shiftX: 0, shiftY: 0, ratio });
  const [good, out] = [new Tensor(gpu, "u8", [4, 4, 3]), new Tensor(gpu, "f32", [4, 4, 4])];
  record(good, out);
  assert.throws(() => record(new Tensor(gpu, "u8", [4, 4, 4]), out), RangeError);
  assert.throws(() => record(new Tensor(gpu, "u8", [0, 4, 3]), out), RangeError);
  assert.throws(() => record(good, new Tensor(gpu, "f32", [4, 4, 3])), RangeError);
  assert.throws(() => record(good, out, NaN), RangeError);
});

/** N tiles through the kernel; expected from the twin, in the order of the layout. */
async function checkTiles(
  { tiles, source, size, strip, resample, normalisation, options, bound }: {
    tiles: number;
    source: readonly [number, number];
    size: readonly [number, number];
    strip?: Strip & { readonly width: number };
    resample?: Resample;
    normalisation: Normalisation;
    options: NormaliseOptions;
    bound: number;
  },
  name: string,
): Promise<void> {
  const gpu = await sharedGpu();
  const { layout = "channels-last", type = "f32", samples = 3 } = options;
  const [height, width] = size;
  const shape = strip === undefined
    ? [tiles, ...source, samples]
    : [source[0], strip.width, samples];
  const pixels = bytes(shape.reduce((a, b) => a * b, 1), height + width);
  const planar = layout === "planar";
  const normalised = new Tensor(gpu, type, [tiles, ...planar ? [3, ...size] : [...size, 4]]);
  const batch = new Batch(gpu);
  const pipelines = await compileNormalise(gpu, normalisation, options);
  const input = Tensor.from(gpu, pixels, shape);
  recordNormalise(batch, pipelines, input, normalised, normalisation, resample, strip);
  batch.submit();
  const actual = await normalised.readFloats();
  const plane = height * width;
  for (let n = 0; n < tiles; n++) {
    const expected = reference.normalise(
      pixels,
      source,
      size,
      normalisation,
      resample ?? { shiftX: 0, shiftY: 0, ratio: [source[1] / width, source[0] / height] },
      strip === undefined
        ? { samples, firstPixel: n * source[0] * source[1] }
        : { samples, firstPixel: n * strip.strideX, rowPixels: strip.width },
    );
    for (let pixel = 0; pixel < plane; pixel++) {
      for (let c = 0; c < (planar ? 3 : 4); c++) {
        const at = planar ? (n * 3 + c) * plane + pixel : (n * plane + pixel) * 4 + c;
        const value = expected[4 * pixel + c]!;
        // Beside f32's bound half a unit in the last place of f16: 2⁻¹¹ of the value, 2⁻²⁵ near 0.
        const most = bound + (type === "f16" ? 2 ** -11 * Math.abs(value) + 2 ** -25 : 0);
        assert.ok(
          Math.abs(actual[at]! - value) <= most,
          `${name}, tile ${n}, pixel ${pixel}, channel ${c}: ${actual[at]} instead of ${value}`,
        );
      }
    }
  }
}

Deno.test("recordNormalise() takes batches and strips, RGB and RGBA, into both layouts and types", async () => {
  const gpu = await sharedGpu();
  const sources = [
    { tiles: 1, source: [1, 1], size: [1, 1] },
    { tiles: 3, source: [4, 4], size: [4, 4] },
    // A tile ends within a word, and a batch within four pixels.
    { tiles: 3, source: [5, 7], size: [5, 7] },
    { tiles: 2, source: [16, 20], size: [16, 20] },
    // Either side of a workgroup of 256 fours, then of one of 64 resampled pixels.
    { tiles: 1, source: [31, 33], size: [31, 33] },
    { tiles: 1, source: [32, 32], size: [32, 32] },
    { tiles: 1, source: [25, 41], size: [25, 41] },
    { tiles: 2, source: [4, 130], size: [2, 63] },
    { tiles: 2, source: [3, 70], size: [4, 65] },
    { tiles: 2, source: [9, 14], size: [5, 7] },
    { tiles: 2, source: [5, 7], size: [13, 11] },
    { tiles: 2, source: [12, 5], size: [7, 9] },
    {
      tiles: 2,
      source: [12, 9],
      size: [7, 6],
      resample: { shiftX: 0.5, shiftY: 0.25, ratio: 1.25 },
    },
    // Strips: side by side in whole words, with a gap, overlapped, from odd places, resampled.
    { tiles: 3, source: [6, 8], size: [6, 8], strip: { tileWidth: 8, strideX: 8, width: 24 } },
    { tiles: 3, source: [6, 8], size: [6, 8], strip: { tileWidth: 8, strideX: 12, width: 36 } },
    { tiles: 3, source: [6, 8], size: [6, 8], strip: { tileWidth: 8, strideX: 4, width: 16 } },
    { tiles: 3, source: [6, 7], size: [6, 7], strip: { tileWidth: 7, strideX: 9, width: 26 } },
    { tiles: 2, source: [6, 8], size: [6, 8], strip: { tileWidth: 8, strideX: 9, width: 17 } },
    { tiles: 2, source: [6, 8], size: [3, 5], strip: { tileWidth: 8, strideX: 9, width: 17 } },
  ] as const;
  for (const source of sources) {
    for (const samples of [3, 4] as const) {
      for (const layout of ["channels-last", "planar"] as const) {
        for (
          const type of gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const
        ) {
          const options = { samples, layout, type };
          const name = JSON.stringify({ ...source, ...options });
          // Beside the bound above, where tiles are resampled: a footprint's end at p is off by three
          // roundings, 3 · 2⁻²⁴ · p, and light between black and white by as much at either end.
          const { source: [h, w], size: [height, width] } = source;
          const moved = (h === height ? 0 : h) + (w === width ? 0 : w);
          const bound = 1e-5 + 6 * 2 ** -24 * moved / 0.224;
          await checkTiles({ ...source, normalisation: IMAGENET, options, bound }, name);
        }
      }
    }
  }
});

Deno.test("recordNormalise() brings colours to other stains before anything else", async () => {
  const next = uniform(7);
  const around = (values: readonly number[], by: number) =>
    values.map((v) => v + by * (2 * next() - 1)) as [number, number, number];
  const mix = (by: number) =>
    [around([1, 0, 0], by), around([0, 1, 0], by), around([0, 0, 1], by)] as const;
  const stains: StainNormalisation[] = [
    { kind: "densities", mix: mix(0.2), offset: around([0, 0, 0], 0.2) },
    { kind: "densities", mix: mix(0), offset: [1, 0, -1] },
    { kind: "cielab", mix: mix(0.1), offset: around([0, 0, 0], 0.05) },
    { kind: "cielab", mix: mix(0), offset: [0, 0, 0] },
  ];
  for (const stain of stains) {
    for (const measure of ["intensity", "optical-density"] as const) {
      const normalisation: Normalisation = {
        of: measure,
        mix: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        offset: [0, 0, 0],
        stain,
      };
      // log2 is off by 3 ulp of at most 8, 1.5e-6, exp2 by (3 + 2 · 8) ulp; the mix multiplies by at
      // most 1.6: of 1 at most 6e-6, also in densities. CIELAB has three powers, each of which
      // multiplies what comes before it by its exponent at most 3, and its last matrix by 4.3 in
      // sum; dark densities magnify by 1 / ln 10 · 256 / (v + 1) what is left of a dark light.
      const bound = stain.kind === "densities" ? 2e-5 : measure === "intensity" ? 1e-4 : 1e-2;
      for (const size of [[8, 8], [5, 6]] as const) {
        const tiles = {
          tiles: 2,
          source: [8, 8],
          size,
          normalisation,
          options: {},
          bound,
        } as const;
        await checkTiles(tiles, `${stain.kind} ${measure}`);
      }
    }
  }
});

Deno.test("both kernels of normalise treat colours by the same text", () => {
  const colour = (text: string) => /override STAIN[\s\S]*?\nfn colour[\s\S]*?\n}\n/.exec(text)?.[0];
  assert.ok(colour(directText));
  assert.equal(colour(directText), colour(normaliseText));
});

Deno.test("recordNormalise() refuses strips, layouts and types that do not fit", async () => {
  const gpu = await sharedGpu();
  const pipelines = await compileNormalise(gpu, IMAGENET);
  const planar = await compileNormalise(gpu, IMAGENET, { layout: "planar" });
  const batch = new Batch(gpu);
  const strip = new Tensor(gpu, "u8", [4, 12, 3]);
  const record = (of: typeof pipelines, out: Tensor, pixels = strip, tile?: Strip) =>
    recordNormalise(batch, of, pixels, out, IMAGENET, undefined, tile);
  const three = new Tensor(gpu, "f32", [3, 4, 4, 4]);
  record(pipelines, three, strip, { tileWidth: 4, strideX: 4 });
  assert.throws(() => record(pipelines, three, strip, { tileWidth: 4, strideX: 5 }), RangeError);
  assert.throws(() => record(pipelines, three, strip, { tileWidth: 4, strideX: -4 }), RangeError);
  assert.throws(() => record(pipelines, three, strip, { tileWidth: 0, strideX: 4 }), RangeError);
  assert.throws(() => record(pipelines, three), RangeError);
  assert.throws(() => record(planar, three), RangeError);
  assert.throws(() => record(pipelines, new Tensor(gpu, "u32", [1, 4, 4, 4])), RangeError);
  const rgba = new Tensor(gpu, "u8", [3, 4, 4, 4]);
  assert.throws(() => record(pipelines, three, rgba), RangeError);
  // A hundredth is the least: 1 pixel to 101.
  assert.throws(
    () =>
      record(
        pipelines,
        new Tensor(gpu, "f32", [1, 101, 4, 4]),
        new Tensor(gpu, "u8", [1, 1, 4, 3]),
      ),
    /ratio 1 × 0\.0099/,
  );
  // No tiles are no work.
  record(pipelines, new Tensor(gpu, "f32", [0, 4, 4, 4]), new Tensor(gpu, "u8", [0, 4, 4, 3]));
});

Deno.test("recordNormalise() writes nothing past its last pixel", async () => {
  const gpu = await sharedGpu();
  const pipelines = await compileNormalise(gpu, IMAGENET);
  for (let width = 1; width <= 8; width++) {
    // A larger buffer, as a plan shares it among values.
    const buffer = Tensor.from(gpu, new Float32Array(64).fill(7), [64]);
    const batch = new Batch(gpu);
    const pixels = Tensor.from(gpu, bytes(3 * width, width), [1, 1, width, 3]);
    recordNormalise(batch, pipelines, pixels, buffer.place("f32", [1, 1, width, 4]), IMAGENET);
    batch.submit();
    const values = await buffer.readFloats();
    assert.ok(values.subarray(0, 4 * width).every((v) => v !== 7), `${width}`);
    assert.ok(values.subarray(4 * width).every((v) => v === 7), `${width}`);
  }
});
