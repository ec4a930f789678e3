import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import {
  compileNormalise,
  HAEMATOXYLIN_EOSIN,
  meanStd,
  type Normalisation,
  recordNormalise,
} from "../../kernels/normalise.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/kernels.ts";
import { bytes } from "../reference/random.ts";
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
