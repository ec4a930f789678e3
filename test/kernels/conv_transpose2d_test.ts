import assert from "node:assert/strict";
import { type Conv2dKernel, conv2dKernels } from "../../kernels/conv2d.ts";
import {
  compileConvTranspose2d,
  packConvTranspose2dWeights,
  recordConvTranspose2d,
  transposedSize,
} from "../../kernels/conv_transpose2d.ts";
import type { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/conv.ts";
import { floats } from "../reference/random.ts";
import { convBound, padded, stored, unpadded } from "./conv.ts";
import { sharedGpu } from "./gpu.ts";

interface Case extends reference.ConvAttributes {
  readonly name: string;
  /** [N, H, W, C] */
  readonly input: readonly [number, number, number, number];
  /** O, KH, KW */
  readonly filter: readonly [number, number, number];
  readonly outputPadding?: readonly [number, number];
  readonly fused?: boolean;
}

const CASES: readonly Case[] = [
  { name: "one pixel", input: [1, 1, 1, 1], filter: [1, 1, 1] },
  { name: "one pixel by 3 × 2", input: [1, 1, 1, 5], filter: [3, 3, 2], strides: [2, 2] },
  { name: "no image", input: [0, 3, 3, 4], filter: [4, 2, 2], strides: [2, 2] },
  {
    name: "U-Net's 2 × 2, stride 2",
    input: [2, 7, 9, 32],
    filter: [20, 2, 2],
    strides: [2, 2],
    fused: true,
  },
  {
    name: "4 × 4, stride 2, pads",
    input: [1, 5, 8, 16],
    filter: [33, 4, 4],
    strides: [2, 2],
    pads: [1, 1, 1, 1],
    fused: true,
  },
  {
    name: "3 × 3, stride 2, output padding",
    input: [1, 5, 7, 6],
    filter: [8, 3, 3],
    strides: [2, 2],
    pads: [1, 1, 1, 1],
    outputPadding: [1, 1],
  },
  {
    name: "1 × 1, stride 3: pixels that no tap reaches",
    input: [1, 4, 3, 4],
    filter: [5, 1, 1],
    strides: [3, 2],
    outputPadding: [2, 1],
    fused: true,
  },
  {
    name: "unequal pads, strides and dilations that share a divisor",
    input: [2, 6, 5, 7],
    filter: [9, 3, 4],
    strides: [4, 3],
    dilations: [2, 3],
    pads: [2, 0, 1, 3],
  },
  {
    name: "dilations that share none",
    input: [1, 6, 5, 4],
    filter: [4, 4, 3],
    strides: [3, 2],
    dilations: [2, 3],
    pads: [1, 2, 3, 0],
  },
  {
    name: "stride 1, pads beyond the filter",
    input: [1, 9, 8, 8],
    filter: [8, 2, 3],
    pads: [3, 2, 2, 3],
  },
  {
    name: "groups of three into two",
    input: [1, 4, 5, 9],
    filter: [6, 3, 3],
    groups: 3,
    strides: [2, 2],
    pads: [1, 1, 1, 1],
    fused: true,
  },
  {
    name: "groups of four into eight",
    input: [1, 4, 5, 8],
    filter: [16, 3, 3],
    groups: 2,
    strides: [2, 1],
    pads: [0, 1, 1, 0],
  },
  {
    name: "depthwise, as bilinear upsampling",
    input: [1, 5, 4, 6],
    filter: [6, 4, 4],
    groups: 6,
    strides: [2, 2],
    pads: [1, 1, 1, 1],
  },
];

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

async function errorOf(
  gpu: Gpu,
  test: Case,
  kernel: Conv2dKernel | undefined,
  type: "f32" | "f16",
) {
  const { input: inputShape, filter: [out, kernelHeight, kernelWidth], groups = 1 } = test;
  const [top, left, bottom, right] = test.pads ?? [0, 0, 0, 0];
  const [outputPaddingY, outputPaddingX] = test.outputPadding ?? [0, 0];
  const { fused = false } = test;
  const channels = inputShape[3];
  const weightsShape = [channels, out / groups, kernelHeight, kernelWidth] as const;
  const input = stored(type, floats(count(inputShape), 1));
  const weights = stored(type, floats(count(weightsShape), 2));
  const sums = reference.convTranspose2d(
    ...[input, inputShape, weights, weightsShape] as const,
    test,
    test.outputPadding,
  );
  const magnitudes = reference.convTranspose2d(
    ...[input.map(Math.abs), inputShape, weights.map(Math.abs), weightsShape] as const,
    test,
    test.outputPadding,
  );
  const bias = stored(type, fused ? floats(out, 3) : new Float32Array(out));
  const residual = stored(
    type,
    fused ? floats(sums.data.length, 4) : new Float32Array(sums.data.length),
  );
  const compiled = await compileConvTranspose2d(gpu, {
    ...{ channels, outChannels: out, kernelHeight, kernelWidth, groups, type, kernel },
    activation: fused ? "relu" : "identity",
    strideY: test.strides?.[0],
    strideX: test.strides?.[1],
    dilationY: test.dilations?.[0],
    dilationX: test.dilations?.[1],
    bias: fused,
    residual: fused,
  });
  const tensor = (values: ArrayLike<number>, shape: readonly number[]) => {
    const { data, shape: paddedShape } = padded(type, values, shape);
    return Tensor.from(gpu, data, paddedShape);
  };
  const output = tensor(new Float32Array(sums.data.length).fill(7), sums.shape);
  const batch = new Batch(gpu);
  recordConvTranspose2d(batch, compiled, {
    input: tensor(input, inputShape),
    weights: packConvTranspose2dWeights(compiled, weights).map(({ data, shape }) =>
      Tensor.from(gpu, data, shape)
    ),
    ...fused && { bias: tensor(bias, [out]), residual: tensor(residual, sums.shape) },
    output,
  }, { top, left, bottom, right, outputPaddingY, outputPaddingX });
  batch.submit();
  const actual = unpadded(await output.readFloats(), out);
  const terms = channels / groups * kernelHeight * kernelWidth + 2;
  let worst = 0;
  for (const [i, sum] of sums.data.entries()) {
    const before = sum + bias[i % out]! + residual[i]!;
    const magnitude = magnitudes.data[i]! + Math.abs(bias[i % out]!) + Math.abs(residual[i]!);
    const expected = fused ? Math.max(before, 0) : before;
    const bound = convBound(type, expected, before, magnitude, terms, false);
    const error = Math.abs(actual[i]! - expected) / bound;
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  return worst;
}

for (const type of ["f32", "f16"] as const) {
  Deno.test(`recordConvTranspose2d() is ONNX's in ${type}, by every kernel`, async () => {
    const gpu = await sharedGpu();
    if (type === "f16" && !gpu.features.has("shader-f16")) return;
    for (const test of CASES) {
      const [outChannels] = test.filter;
      // Those that compute a filter of any size: the phases' differ.
      const options = {
        ...{ channels: test.input[3], outChannels, kernelHeight: 2, kernelWidth: 2, type },
        groups: test.groups,
      };
      for (const kernel of [undefined, ...conv2dKernels(gpu, options)]) {
        const error = await errorOf(gpu, test, kernel, type);
        assert.ok(error <= 1, `${test.name} by ${kernel ?? "what suits"}: ${error} of the bound`);
      }
    }
  });
}

Deno.test("recordConvTranspose2d() takes Winograd's kernels for phases of 3 × 3", async () => {
  const gpu = await sharedGpu();
  // Thirds and 24ths of such weights are whole, so that f32 rounds nothing and the answer is exact.
  const whole = (count: number, seed: number, by: number) =>
    floats(count, seed).map((v) => by * Math.round(1.2 * v));
  const inputShape = [2, 7, 10, 4] as const, weightsShape = [4, 5, 6, 6] as const;
  const attributes = { strides: [2, 2], pads: [2, 1, 3, 2] } as const;
  const input = whole(count(inputShape), 1, 1);
  const weights = whole(count(weightsShape), 2, 576);
  const expected = reference.convTranspose2d(
    ...[input, inputShape, weights, weightsShape] as const,
    attributes,
  );
  const compiled = await compileConvTranspose2d(gpu, {
    ...{ channels: 4, outChannels: 5, kernelHeight: 6, kernelWidth: 6, strideY: 2, strideX: 2 },
    kernel: "conv2d_winograd",
  });
  const output = new Tensor(gpu, "f32", [...expected.shape.slice(0, 3), 8]);
  const batch = new Batch(gpu);
  recordConvTranspose2d(batch, compiled, {
    input: Tensor.from(gpu, input, inputShape),
    weights: packConvTranspose2dWeights(compiled, weights).map(({ data, shape }) =>
      Tensor.from(gpu, data, shape)
    ),
    output,
  }, { top: 2, left: 1, bottom: 3, right: 2 });
  batch.submit();
  const actual = unpadded(await output.readFloats(), 5);
  assert.ok(expected.data.some((v) => v !== 0));
  assert.deepEqual([...actual], [...expected.data].map((v) => v + 0));
});

Deno.test("recordConvTranspose2d() refuses tensors that do not fit", async () => {
  const gpu = await sharedGpu();
  const compiled = await compileConvTranspose2d(gpu, {
    ...{ channels: 4, outChannels: 8, kernelHeight: 2, kernelWidth: 2, strideY: 2, strideX: 2 },
  });
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const good = {
    input: tensor(1, 3, 3, 4),
    weights: Array.from({ length: 4 }, () => tensor(1, 1, 4, 8)),
    output: tensor(1, 6, 6, 8),
  };
  const batch = new Batch(gpu);
  recordConvTranspose2d(batch, compiled, good);
  for (
    const wrong of [
      { input: tensor(1, 3, 3, 8) },
      { weights: good.weights.slice(1) },
      { weights: [...good.weights.slice(1), tensor(2, 1, 4, 8)] },
      { bias: tensor(8) },
      { output: tensor(1, 5, 5, 8) },
    ]
  ) {
    assert.throws(
      () => recordConvTranspose2d(batch, compiled, { ...good, ...wrong }),
      RangeError,
    );
  }
  assert.throws(() => packConvTranspose2dWeights(compiled, new Float32Array(5)), RangeError);
});

Deno.test("transposedSize() is ONNX's", () => {
  assert.equal(transposedSize(3, 3), 5);
  assert.equal(transposedSize(3, 3, { stride: 3, outputPadding: 1 }), 10);
  assert.equal(transposedSize(3, 3, { stride: 2, pads: 2, dilation: 2 }), 7);
  assert.equal(transposedSize(1, 1, { pads: 3 }), 0);
});
