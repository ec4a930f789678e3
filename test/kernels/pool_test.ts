import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import {
  compileGlobalPool,
  compilePool,
  compilePoolIndices,
  type PoolAttributes,
  pooledShape,
  pooledSize,
  recordGlobalPool,
  recordPool,
  recordPoolIndices,
} from "../../kernels/pool.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/pool.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const KINDS = ["max", "average", "lp"] as const;

const CASES: readonly { input: readonly number[]; attributes: PoolAttributes }[] = [
  { input: [1, 1, 1, 4], attributes: { kernelShape: [1, 1] } },
  // Padding on unequal sides, counted and not; primes; either side of a workgroup's 64 invocations.
  {
    input: [2, 7, 11, 12],
    attributes: { kernelShape: [3, 2], strides: [2, 1], pads: [1, 0, 2, 1], countIncludePad: true },
  },
  { input: [1, 3, 21, 4], attributes: { kernelShape: [3, 3], pads: [1, 1, 1, 1] } },
  { input: [1, 5, 13, 4], attributes: { kernelShape: [1, 1] } },
  // A last window that hangs out beyond the padding, and one that would begin in it.
  {
    input: [1, 6, 7, 4],
    attributes: {
      kernelShape: [3, 3],
      strides: [2, 4],
      pads: [0, 0, 1, 1],
      ceilMode: true,
      countIncludePad: true,
    },
  },
  {
    input: [1, 4, 3, 8],
    attributes: { kernelShape: [2, 1], strides: [3, 3], pads: [1, 0, 1, 1], ceilMode: true },
  },
  // Dilation, with taps in front of the image and behind it.
  {
    input: [2, 9, 10, 4],
    attributes: {
      kernelShape: [3, 2],
      dilations: [3, 4],
      pads: [4, 3, 5, 2],
      strides: [1, 2],
      countIncludePad: true,
      p: 3,
    },
  },
  {
    input: [1, 9, 10, 4],
    attributes: { kernelShape: [3, 2], dilations: [3, 4], pads: [2, 3, 2, 3] },
  },
  // One axis and three.
  { input: [3, 17, 4], attributes: { kernelShape: [5], strides: [3], pads: [2, 1], p: 1 } },
  {
    input: [2, 5, 4, 7, 4],
    attributes: {
      kernelShape: [2, 3, 2],
      strides: [2, 1, 3],
      dilations: [2, 1, 1],
      pads: [1, 1, 0, 0, 1, 1],
      ceilMode: true,
      p: 2.5,
    },
  },
  { input: [0, 5, 5, 4], attributes: { kernelShape: [3, 3] } },
];

/**
 * Largest of |actual − expected| / bound. Max is exact. A sum of n terms in f32 is off by n · 2⁻²⁴ of
 * Σ|v| at most, the division by 2.5 ulp. pow(x, e) is exp2(e · log2(x)) (WGSL §15.7.4.1): log2's
 * 3 ulp and the exponent's rounding are multiplied by |e · log2 x| ≤ 2.5 · 20 here, twice over.
 * Storing f16 adds half an ulp, 2⁻¹¹, or 2⁻²⁵ where it is subnormal.
 */
function worst(
  kind: typeof KINDS[number],
  type: "f32" | "f16",
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  magnitudes: ArrayLike<number>,
  terms: number,
): number {
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const relative = kind === "max"
      ? 0
      : kind === "average"
      ? (terms + 8) * 2 ** -24
      : 200 * 2 ** -23;
    const stored = type === "f16" ? 2 ** -11 : 0;
    const bound = relative * magnitudes[i]! + stored * Math.abs(expected[i]!) +
      (stored > 0 ? 2 ** -25 : 1e-30);
    const error = Math.abs(actual[i]! - expected[i]!) / bound;
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  return worst;
}

Deno.test("recordPool() is ONNX's pooling of each kind, in f32 and f16", async () => {
  const gpu = await sharedGpu();
  const types = gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const;
  for (const type of types) {
    for (const kind of KINDS) {
      const compiled = await compilePool(gpu, { kind, type });
      for (const [i, { input: shape, attributes }] of CASES.entries()) {
        const values = floats(count(shape), 10 + i);
        const data = type === "f16" ? Float16Array.from(values) : values;
        const outShape = pooledShape(shape, attributes);
        const expected = reference.pool(kind, data, shape, outShape, attributes).data;
        const magnitudes = reference.pool(kind, data.map(Math.abs), shape, outShape, attributes);
        const output = new Tensor(gpu, type, outShape);
        const batch = new Batch(gpu);
        recordPool(batch, compiled, { input: Tensor.from(gpu, data, shape), output }, attributes);
        batch.submit();
        const error = worst(
          kind,
          type,
          await output.readFloats(),
          expected,
          magnitudes.data,
          count(attributes.kernelShape),
        );
        assert.ok(error <= 1, `${kind} ${type}, case ${i}: ${error} of the bound`);
      }
    }
  }
});

Deno.test("recordPoolIndices() numbers the first maximum in the planar tensor", async () => {
  const gpu = await sharedGpu();
  const compiled = await compilePoolIndices(gpu, {});
  for (const [i, { input: shape, attributes }] of CASES.entries()) {
    for (const storageOrder of [0, 1] as const) {
      // Few values, so that many are equal; all negative, so that padding must not win.
      const data = floats(count(shape), 10 + i).map((v) => Math.floor(2 * v) - 3);
      const channels = shape[shape.length - 1]! - 1; // the last one is padding
      const outShape = pooledShape(shape, attributes);
      const all = { ...attributes, storageOrder, channels };
      const expected = reference.pool("max", data, shape, outShape, all);
      const output = new Tensor(gpu, "f32", outShape);
      const indices = new Tensor(gpu, "i32", outShape);
      const batch = new Batch(gpu);
      recordPoolIndices(batch, compiled, {
        input: Tensor.from(gpu, data, shape),
        output,
        indices,
      }, all);
      batch.submit();
      assert.deepEqual(Array.from(await output.readFloats()), Array.from(expected.data));
      const real = (values: ArrayLike<number>) =>
        Array.from(values).filter((_, at) => at % (channels + 1) < channels);
      assert.deepEqual(real(new Int32Array(await indices.readBytes())), real(expected.indices));
    }
  }
});

Deno.test("recordGlobalPool() pools over all pixels, with and without a tree", async () => {
  const gpu = await sharedGpu();
  const types = gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const;
  for (const type of types) {
    for (const kind of KINDS) {
      const both = [
        await compileGlobalPool(gpu, { kind, type, parts: 1 }),
        await compileGlobalPool(gpu, { kind, type, parts: 32 }),
      ];
      for (const shape of [[1, 1, 1, 4], [3, 7, 7, 36], [2, 31, 8], [1, 5, 7, 11, 28], [0, 2, 4]]) {
        const values = floats(count(shape), 3);
        const data = type === "f16" ? Float16Array.from(values) : values;
        const kernelShape = shape.slice(1, -1);
        const outShape = [shape[0]!, ...kernelShape.map(() => 1), shape[shape.length - 1]!];
        const p = kernelShape.length === 2 ? 2 : 3;
        const attributes = { kernelShape, p };
        const expected = reference.pool(kind, data, shape, outShape, attributes).data;
        const magnitudes = reference.pool(kind, data.map(Math.abs), shape, outShape, attributes);
        for (const compiled of both) {
          const output = new Tensor(gpu, type, outShape);
          const batch = new Batch(gpu);
          recordGlobalPool(batch, compiled, { input: Tensor.from(gpu, data, shape), output }, {
            p,
          });
          batch.submit();
          const terms = count(kernelShape);
          const actual = await output.readFloats();
          const error = worst(kind, type, actual, expected, magnitudes.data, terms);
          assert.ok(error <= 1, `${kind} ${type} [${shape}]: ${error} of the bound`);
        }
      }
    }
  }
});

Deno.test("what f16 cannot hold saturates, and sums on the way to it do not overflow", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return console.log("skipped: the adapter has no f16");
  const data = Float16Array.from({ length: 4 * 4 }, () => 60000);
  const input = Tensor.from(gpu, data, [1, 2, 2, 4]);
  for (const [kind, expected] of [["average", 60000], ["max", 60000], ["lp", 65504]] as const) {
    const [windows, whole] = [new Tensor(gpu, "f16", [1, 1, 1, 4]), new Tensor(gpu, "f16", [1, 4])];
    const options = { kind, type: "f16" } as const;
    const batch = new Batch(gpu);
    const attributes = { kernelShape: [2, 2] };
    recordPool(batch, await compilePool(gpu, options), { input, output: windows }, attributes);
    recordGlobalPool(batch, await compileGlobalPool(gpu, options), { input, output: whole });
    batch.submit();
    for (const output of [windows, whole]) {
      assert.deepEqual(Array.from(await output.readFloats()), [
        expected,
        expected,
        expected,
        expected,
      ]);
    }
  }
});

Deno.test("recordPool(), recordPoolIndices() and recordGlobalPool() refuse what does not fit", async () => {
  const gpu = await sharedGpu();
  const compiled = await compilePool(gpu, { kind: "max" });
  const compiledIndices = await compilePoolIndices(gpu, {});
  const compiledGlobal = await compileGlobalPool(gpu, { kind: "max" });
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const input = tensor(1, 8, 8, 4), output = tensor(1, 6, 6, 4);
  const attributes = { kernelShape: [3, 3] };
  const batch = new Batch(gpu);
  recordPool(batch, compiled, { input, output }, attributes);
  const wrong: [Tensor, Tensor, PoolAttributes][] = [
    [tensor(1, 8, 8, 8), output, attributes],
    [tensor(1, 8, 8, 6), tensor(1, 6, 6, 6), attributes],
    [tensor(1, 8, 4), output, attributes],
    [input, tensor(1, 8, 8, 4), attributes],
    [new Tensor(gpu, "i32", [1, 8, 8, 4]), output, attributes],
    [input, output, { kernelShape: [3, 3], strides: [1] }],
    [input, output, { kernelShape: [3, 3], strides: [1, 0] }],
    [input, output, { kernelShape: [3, 3], pads: [0, 0] }],
    [input, output, { kernelShape: [3, 3], pads: [0, -1, 0, 1] }],
    [input, output, { kernelShape: [3, 3], p: 0 }],
    [input, output, { kernelShape: [1, 1, 1, 1] }],
  ];
  for (const [input, output, attributes] of wrong) {
    assert.throws(() => recordPool(batch, compiled, { input, output }, attributes), RangeError);
  }
  const record = (indices: Tensor, channels: number) =>
    recordPoolIndices(batch, compiledIndices, { input, output, indices }, {
      ...attributes,
      channels,
    });
  assert.throws(() => record(tensor(1, 6, 6, 4), 4), RangeError);
  assert.throws(() => record(new Tensor(gpu, "i32", [1, 6, 6, 4]), 5), RangeError);
  for (const [from, to] of [[input, tensor(2, 4)], [tensor(1, 0, 4), tensor(1, 4)]] as const) {
    assert.throws(
      () => recordGlobalPool(batch, compiledGlobal, { input: from, output: to }),
      RangeError,
    );
  }
});

Deno.test("pooledSize() is ONNX's, with windows that begin in the padding left out", () => {
  assert.equal(pooledSize(5, { kernel: 3, stride: 2, padBegin: 1, padEnd: 1 }), 3);
  assert.equal(pooledSize(4, { kernel: 3, stride: 2, ceilMode: true }), 2);
  // ONNX's node cases maxpool_2d_ceil_output_size_reduce_by_one: 2 pixels, kernel 1, stride 2.
  assert.equal(pooledSize(2, { kernel: 1, stride: 2, ceilMode: true }), 1);
  assert.equal(pooledSize(2, { kernel: 5 }), 0);
});
