import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import { compileLayerNorm, recordLayerNorm } from "../../kernels/layer_norm.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { layerNorm } from "../reference/norms.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** Largest |actual − expected| over its bound, and what f16 rounds in storing. */
function worstNormed(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  bounds: ArrayLike<number>,
  type: "f32" | "f16",
): number {
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const stored = type === "f16" ? 2 ** -11 * Math.abs(expected[i]!) + 2 ** -25 : 1e-30;
    const error = Math.abs(actual[i]! - expected[i]!) / (bounds[i]! + stored);
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  return worst;
}

const CASES: readonly { shape: readonly number[]; row: number; channels?: number }[] = [
  { shape: [1, 1], row: 1 },
  { shape: [3, 5, 7], row: 7 },
  // Either side of 64 invocations that share a row, of rows in a workgroup, of four elements.
  { shape: [17, 63], row: 63 },
  { shape: [5, 65], row: 65 },
  { shape: [15, 252], row: 252 },
  { shape: [16, 256], row: 256 },
  { shape: [2, 260], row: 260 },
  // Several axes are normalised; padding at the end of a row.
  { shape: [2, 3, 4, 8], row: 32 },
  { shape: [2, 3, 5], row: 15 },
  { shape: [7, 12], row: 12, channels: 9 },
  { shape: [0, 8], row: 8 },
];

Deno.test("recordLayerNorm() is ONNX's layer and RMS normalisation, with all that is optional", async () => {
  const gpu = await sharedGpu();
  const types = gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const;
  for (const type of types) {
    const typed = (values: Float32Array<ArrayBuffer>) =>
      type === "f16" ? Float16Array.from(values) : values;
    for (const parts of [1, 64] as const) {
      for (const [i, { shape, row, channels = row }] of CASES.entries()) {
        // A GPU's way of sharing rows takes a software adapter half a second each to compile.
        for (const all of parts === 1 ? [false, true] : [i % 3 > 0]) {
          const rms = i % 2 === 0;
          const padded = (values: Float32Array<ArrayBuffer>) =>
            typed(values.map((v, at) => at % row < channels ? v : 0));
          const data = padded(floats(count(shape), 10 + i));
          const residual = padded(floats(count(shape), 20 + i));
          const [scale, bias] = [padded(floats(row, 30 + i)), padded(floats(row, 40 + i))];
          const rows = count(shape) / row;
          const sums = Float64Array.from(data, (v, at) => v + (all ? residual[at]! : 0));
          const options = { epsilon: 1e-3, channels, rms };
          const expected = layerNorm(sums, row, scale, all ? bias : undefined, options);
          const tensors = {
            input: Tensor.from(gpu, data, shape),
            scale: Tensor.from(gpu, scale, [row]),
            output: new Tensor(gpu, type, shape),
          };
          const optional = {
            residual: Tensor.from(gpu, residual, shape),
            bias: Tensor.from(gpu, bias, [row]),
            sum: new Tensor(gpu, type, shape),
            statistics: new Tensor(gpu, "f32", [2, rows]),
          };
          const compiled = await compileLayerNorm(gpu, {
            row,
            type,
            rms,
            parts,
            bias: all,
            residual: all,
            statistics: all,
          });
          const batch = new Batch(gpu);
          recordLayerNorm(batch, compiled, { ...tensors, ...all ? optional : {} }, options);
          batch.submit();
          const what = `${type}, ${parts} a row, [${shape}]${rms ? ", RMS" : ""}`;
          const actual = await tensors.output.readFloats();
          const error = worstNormed(actual, expected.data, expected.bound, type);
          assert.ok(error <= 1, `${what}: ${error} of the bound`);
          if (!all) continue;
          // The sum is one rounding in f32 and one more in f16.
          const sumBounds = sums.map((v) => Math.abs(v) * 2 ** -23);
          assert.ok(worstNormed(await optional.sum.readFloats(), sums, sumBounds, type) <= 1, what);
          const statistics = await optional.statistics.readFloats();
          for (let r = 0; r < rows; r++) {
            // Of values under 2, and sums of `row` of them; the inverse by half the variance's.
            const unit = 4 * (row + 4) * 2 ** -24;
            assert.ok(Math.abs(statistics[r]! - expected.means[r]!) <= unit, `${what}: mean`);
            const inverse = expected.inverses[r]!;
            const inverseBound = inverse * (unit + 2 * (unit * inverse) ** 2);
            assert.ok(
              Math.abs(statistics[rows + r]! - inverse) <= inverseBound,
              `${what}: inverse`,
            );
          }
        }
      }
    }
  }
});

Deno.test("recordLayerNorm() keeps the variance of rows whose mean is far off", async () => {
  const gpu = await sharedGpu();
  const row = 768;
  // Spacing of f32 at 10⁴ is 0.001; the squares of such values have one of 8 and would drown it.
  const data = floats(4 * row, 1).map((v) => 10000 + v);
  const ones = new Float32Array(row).fill(1);
  const expected = layerNorm(data, row, ones, undefined, {
    epsilon: 1e-5,
    channels: row,
    rms: false,
  });
  for (const parts of [1, 64] as const) {
    const output = new Tensor(gpu, "f32", [4, row]);
    const batch = new Batch(gpu);
    recordLayerNorm(batch, await compileLayerNorm(gpu, { row, parts }), {
      input: Tensor.from(gpu, data, [4, row]),
      scale: Tensor.from(gpu, ones, [row]),
      output,
    });
    batch.submit();
    const actual = await output.readFloats();
    // The mean is off by some ulps of the partial sums of 768 · 10⁴: well under 0.05 of a deviation.
    for (const [i, v] of actual.entries()) assert.ok(Math.abs(v - expected.data[i]!) < 0.1);
  }
});

Deno.test("recordLayerNorm() of f16 neither overflows in its squares nor in its output", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return console.log("skipped: the adapter has no f16");
  const data = Float16Array.from([60000, -60000, 60000, -60000, 60000, -60000, 60000, -60000]);
  const scale = Float16Array.from([1, 1, 2, 2, 60000, 60000, 60000, 60000]);
  const bias = Float16Array.from([0, 0, 0, 0, 60000, -60000, 0, 0]);
  const output = new Tensor(gpu, "f16", [1, 8]);
  const batch = new Batch(gpu);
  recordLayerNorm(batch, await compileLayerNorm(gpu, { row: 8, type: "f16", bias: true }), {
    input: Tensor.from(gpu, data, [1, 8]),
    scale: Tensor.from(gpu, scale, [8]),
    bias: Tensor.from(gpu, bias, [8]),
    output,
  });
  batch.submit();
  assert.deepEqual(
    Array.from(await output.readFloats()),
    [1, -1, 2, -2, 65504, -65504, 60000, -60000],
  );
});

Deno.test("recordLayerNorm() refuses what does not fit or was not compiled for", async () => {
  const gpu = await sharedGpu();
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const compiled = await compileLayerNorm(gpu, { row: 8, bias: true });
  const good = { input: tensor(3, 8), scale: tensor(8), bias: tensor(8), output: tensor(3, 8) };
  const batch = new Batch(gpu);
  recordLayerNorm(batch, compiled, good);
  for (
    const wrong of [
      { input: tensor(3, 9) },
      { input: new Tensor(gpu, "i32", [3, 8]) },
      { scale: tensor(4) },
      { bias: undefined },
      { output: tensor(2, 8) },
      { residual: tensor(3, 8) },
      { sum: tensor(3, 8) },
      { statistics: tensor(2, 3) },
    ]
  ) {
    assert.throws(
      () => recordLayerNorm(batch, compiled, { ...good, ...wrong } as typeof good),
      RangeError,
    );
  }
  assert.throws(() => recordLayerNorm(batch, compiled, good, { channels: 9 }), RangeError);
});
