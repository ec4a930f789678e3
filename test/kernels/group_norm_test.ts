import assert from "node:assert/strict";
import { compileGroupNorm, groupMomentsShape, recordGroupNorm } from "../../kernels/group_norm.ts";
import { Batch } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { groupNorm } from "../reference/norms.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

const CASES = [
  { shape: [1, 1, 1, 4], groups: 1, channels: 4 },
  { shape: [2, 7, 5, 12], groups: 12, channels: 12 },
  { shape: [2, 7, 5, 12], groups: 3, channels: 9 },
  // Either side of 32 invocations a slice and of a slice's 1024 pixels; more than a workgroup's 32
  // channels.
  { shape: [1, 31, 4], groups: 2, channels: 4 },
  { shape: [3, 3, 11, 36], groups: 6, channels: 36 },
  { shape: [1, 32, 32, 8], groups: 2, channels: 8 },
  { shape: [2, 25, 41, 4], groups: 2, channels: 4 },
  { shape: [1, 5, 13, 47, 4], groups: 4, channels: 4 },
  { shape: [0, 3, 3, 4], groups: 2, channels: 4 },
] as const;

Deno.test("recordGroupNorm() is ONNX's group and instance normalisation", async () => {
  const gpu = await sharedGpu();
  const types = gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const;
  for (const type of types) {
    const typed = (values: Float32Array<ArrayBuffer>) =>
      type === "f16" ? Float16Array.from(values) : values;
    for (const parts of [1, 32] as const) {
      const compiled = await compileGroupNorm(gpu, { type, parts });
      for (const [i, { shape, groups, channels }] of CASES.entries()) {
        const C = shape[shape.length - 1]!;
        // Every other case far from zero: the squares of its mean would drown its variance.
        const shift = i % 2 === 0 ? 0 : 50;
        const padded = (values: Float32Array<ArrayBuffer>, shift = 0) =>
          typed(values.map((v, at) => at % C < channels ? v + shift : 0));
        const data = padded(floats(count(shape), 10 + i), shift);
        const [scale, bias] = [padded(floats(C, 20 + i)), padded(floats(C, 30 + i))];
        const options = { groups, channels, epsilon: 1e-4 };
        const pixels = count(shape.slice(1, -1));
        const expected = groupNorm(data, [shape[0], pixels, C], scale, bias, options);
        const output = new Tensor(gpu, type, shape);
        const batch = new Batch(gpu);
        recordGroupNorm(batch, compiled, {
          input: Tensor.from(gpu, data, shape),
          scale: Tensor.from(gpu, scale, [C]),
          bias: Tensor.from(gpu, bias, [C]),
          output,
          moments: new Tensor(gpu, "f32", groupMomentsShape(shape)),
        }, options);
        batch.submit();
        const actual = await output.readFloats();
        let worst = 0;
        for (const [at, v] of expected.data.entries()) {
          const stored = type === "f16" ? 2 ** -11 * Math.abs(v) + 2 ** -25 : 1e-30;
          const error = Math.abs(actual[at]! - v) / (expected.bound[at]! + stored);
          worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
        }
        assert.ok(worst <= 1, `${type}, ${parts} a slice, [${shape}]: ${worst} of the bound`);
      }
    }
  }
});

Deno.test("recordGroupNorm() of f16 does not overflow in its squares", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return console.log("skipped: the adapter has no f16");
  const shape = [1, 2, 2, 4];
  const data = Float16Array.from({ length: 16 }, (_, i) => Math.floor(i / 4) % 2 ? 60000 : -60000);
  const output = new Tensor(gpu, "f16", shape);
  const batch = new Batch(gpu);
  recordGroupNorm(batch, await compileGroupNorm(gpu, { type: "f16" }), {
    input: Tensor.from(gpu, data, shape),
    scale: Tensor.from(gpu, Float16Array.from([1, 2, 3, 60000]), [4]),
    bias: Tensor.from(gpu, Float16Array.from([0, 0, 0, 60000]), [4]),
    output,
    moments: new Tensor(gpu, "f32", groupMomentsShape(shape)),
  }, { groups: 4 });
  batch.submit();
  const actual = Array.from(await output.readFloats());
  assert.deepEqual(actual.slice(0, 8), [-1, -2, -3, 0, 1, 2, 3, 65504]);
});

Deno.test("recordGroupNorm() refuses shapes and groups that do not fit", async () => {
  const gpu = await sharedGpu();
  const compiled = await compileGroupNorm(gpu);
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const good = {
    input: tensor(2, 3, 3, 8),
    scale: tensor(8),
    bias: tensor(8),
    output: tensor(2, 3, 3, 8),
    moments: tensor(...groupMomentsShape([2, 3, 3, 8])),
  };
  const batch = new Batch(gpu);
  recordGroupNorm(batch, compiled, good, { groups: 2 });
  assert.throws(() => recordGroupNorm(batch, compiled, good, { groups: 3 }), RangeError);
  assert.throws(
    () => recordGroupNorm(batch, compiled, good, { groups: 1, channels: 9 }),
    RangeError,
  );
  for (
    const wrong of [
      { input: tensor(2, 3, 3, 6) },
      { scale: tensor(4) },
      { bias: tensor(4) },
      { output: tensor(2, 3, 4, 8) },
      { moments: tensor(2, 1, 2, 4) },
    ]
  ) {
    const tensors = { ...good, ...wrong };
    assert.throws(() => recordGroupNorm(batch, compiled, tensors, { groups: 2 }), RangeError);
  }
});
