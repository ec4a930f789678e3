import assert from "node:assert/strict";
import { type Activation, activationOf } from "../../kernels/activation.ts";
import {
  compileConv2d,
  type Conv2dKernel,
  conv2dKernels,
  type Conv2dOptions,
  convolvedSize,
  packConv2dWeights,
  recordConv2d,
} from "../../kernels/conv2d.ts";
import type { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { activate } from "../reference/activation.ts";
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
  readonly activation?: Activation;
  readonly bias?: boolean;
  readonly residual?: boolean;
}

const CASES: readonly Case[] = [
  { name: "one pixel, one channel", input: [1, 1, 1, 1], filter: [1, 1, 1] },
  {
    name: "padding wider than the image",
    input: [1, 2, 3, 4],
    filter: [4, 7, 5],
    pads: [3, 2, 3, 2],
  },
  {
    name: "primes, several images",
    input: [3, 11, 13, 7],
    filter: [11, 3, 3],
    pads: [1, 1, 1, 1],
    activation: "relu",
    bias: true,
  },
  {
    name: "unequal strides, dilations and pads",
    input: [2, 17, 19, 5],
    filter: [6, 4, 2],
    strides: [2, 3],
    dilations: [2, 3],
    pads: [1, 0, 3, 2],
    bias: true,
    residual: true,
    activation: { name: "leaky_relu", a: 0.3 },
  },
  { name: "negative padding", input: [1, 9, 8, 4], filter: [4, 3, 3], pads: [-1, 2, 1, -2] },
  {
    name: "1 × 27, wider than a workgroup's pixels",
    input: [1, 2, 259, 4],
    filter: [8, 1, 27],
    pads: [0, 13, 0, 13],
    bias: true,
  },
  { name: "27 × 1", input: [1, 41, 5, 8], filter: [4, 27, 1], pads: [13, 0, 13, 0] },
  { name: "no image", input: [0, 5, 5, 4], filter: [4, 3, 3], pads: [1, 1, 1, 1] },
  { name: "kernel larger than the image: no output", input: [2, 3, 3, 4], filter: [4, 5, 5] },
  {
    name: "1 × 1, either side of tiles",
    input: [1, 9, 15, 33],
    filter: [65, 1, 1],
    residual: true,
    activation: "relu",
  },
  {
    name: "1 × 1, whole vec4s",
    input: [2, 9, 15, 33],
    filter: [68, 1, 1],
    bias: true,
    residual: true,
    activation: "sigmoid",
  },
  {
    name: "1 × 1, whole vec4s, padded, and cut off by as much",
    input: [1, 9, 15, 24],
    filter: [40, 1, 1],
    bias: true,
    pads: [2, -1, -2, 1],
  },
  {
    name: "1 × 1, strided",
    input: [2, 15, 16, 64],
    filter: [128, 1, 1],
    strides: [2, 2],
    bias: true,
  },
  {
    name: "3 × 3 of whole tiles",
    input: [1, 16, 16, 64],
    filter: [64, 3, 3],
    pads: [1, 1, 1, 1],
    bias: true,
    residual: true,
    activation: "relu",
  },
  {
    name: "3 × 3, odd sides, one channel short",
    input: [2, 13, 11, 31],
    filter: [63, 3, 3],
    pads: [1, 1, 1, 1],
    bias: true,
  },
  {
    name: "3 × 3, unequal pads",
    input: [1, 8, 9, 16],
    filter: [20, 3, 3],
    pads: [0, 1, 1, 0],
  },
  {
    name: "the stem of ResNet",
    input: [1, 37, 41, 3],
    filter: [64, 7, 7],
    strides: [2, 2],
    pads: [3, 3, 3, 3],
    bias: true,
    activation: "relu",
  },
  {
    name: "dilated, as DeepLab's",
    input: [1, 19, 23, 16],
    filter: [24, 3, 3],
    dilations: [6, 6],
    pads: [6, 6, 6, 6],
    bias: true,
    activation: "silu",
  },
  {
    name: "sigmoid, whose zero is none, with padding channels",
    input: [1, 5, 7, 6],
    filter: [5, 3, 3],
    bias: true,
    activation: "sigmoid",
  },
  {
    name: "depthwise 3 × 3",
    input: [2, 13, 11, 21],
    filter: [21, 3, 3],
    groups: 21,
    pads: [1, 1, 1, 1],
    bias: true,
    activation: "silu",
  },
  {
    name: "depthwise 5 × 5, strided",
    input: [1, 17, 14, 32],
    filter: [32, 5, 5],
    groups: 32,
    strides: [2, 2],
    pads: [1, 2, 2, 2],
    bias: true,
    residual: true,
  },
  {
    name: "depthwise 7 × 7",
    input: [1, 14, 9, 36],
    filter: [36, 7, 7],
    groups: 36,
    pads: [3, 3, 3, 3],
  },
  {
    name: "depthwise, dilated, strided by three",
    input: [1, 11, 17, 8],
    filter: [8, 3, 3],
    groups: 8,
    strides: [1, 3],
    dilations: [2, 2],
    pads: [2, 2, 2, 2],
  },
  {
    name: "depthwise with a multiplier of three",
    input: [1, 9, 7, 5],
    filter: [15, 3, 3],
    groups: 5,
    pads: [1, 1, 1, 1],
    bias: true,
  },
  {
    name: "depthwise with a multiplier of four",
    input: [1, 9, 7, 8],
    filter: [32, 3, 3],
    groups: 8,
    pads: [1, 1, 1, 1],
  },
  {
    name: "groups of four",
    input: [1, 14, 13, 128],
    filter: [128, 3, 3],
    groups: 32,
    pads: [1, 1, 1, 1],
    bias: true,
    activation: "relu",
  },
  {
    name: "groups of eight into twelve",
    input: [1, 7, 9, 24],
    filter: [36, 3, 3],
    groups: 3,
    strides: [2, 2],
    pads: [1, 1, 1, 1],
  },
  {
    name: "groups of 36 into 44",
    input: [1, 7, 9, 72],
    filter: [88, 3, 3],
    groups: 2,
    pads: [1, 1, 1, 1],
    bias: true,
  },
  {
    name: "groups of three into five",
    input: [2, 7, 9, 9],
    filter: [15, 3, 2],
    groups: 3,
    pads: [1, 0, 1, 1],
    bias: true,
    activation: "gelu",
  },
];

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** Runs a case by one kernel and gives the worst error, as a fraction of the bound. */
async function errorOf(gpu: Gpu, test: Case, kernel: Conv2dKernel, type: "f32" | "f16") {
  const { input: inputShape, filter: [out, kernelHeight, kernelWidth], groups = 1 } = test;
  const { bias: hasBias = false, residual: hasResidual = false, activation = "identity" } = test;
  const [top, left, bottom, right] = test.pads ?? [0, 0, 0, 0];
  const channels = inputShape[3];
  const weightsShape = [out, channels / groups, kernelHeight, kernelWidth] as const;
  const input = stored(type, floats(count(inputShape), 1));
  const weights = stored(type, floats(count(weightsShape), 2));
  const sums = reference.conv2d(input, inputShape, weights, weightsShape, test);
  const magnitudes = kernel === "conv2d_winograd"
    ? reference.winogradMagnitudes(input, inputShape, weights, weightsShape, test)
    : reference.conv2d(
      ...[input.map(Math.abs), inputShape, weights.map(Math.abs), weightsShape] as const,
      test,
    ).data;
  const bias = stored(type, hasBias ? floats(out, 3) : new Float32Array(out));
  const residual = stored(
    type,
    hasResidual ? floats(sums.data.length, 4) : new Float32Array(sums.data.length),
  );

  const compiled = await compileConv2d(gpu, {
    ...{ channels, outChannels: out, kernelHeight, kernelWidth, groups, type, kernel, activation },
    strideY: test.strides?.[0],
    strideX: test.strides?.[1],
    dilationY: test.dilations?.[0],
    dilationX: test.dilations?.[1],
    bias: hasBias,
    residual: hasResidual,
  });
  const packed = packConv2dWeights(compiled, weights);
  const tensor = (values: ArrayLike<number>, shape: readonly number[]) => {
    const { data, shape: paddedShape } = padded(type, values, shape);
    return Tensor.from(gpu, data, paddedShape);
  };
  const output = tensor(new Float32Array(sums.data.length).fill(7), sums.shape);
  const tensors = {
    input: tensor(input, inputShape),
    weights: Tensor.from(gpu, packed.data, packed.shape),
    ...hasBias && { bias: tensor(bias, [out]) },
    ...hasResidual && { residual: tensor(residual, sums.shape) },
    output,
  };
  const batch = new Batch(gpu);
  recordConv2d(batch, compiled, tensors, { top, left, bottom, right });
  batch.submit();
  const actual = unpadded(await output.readFloats(), out);
  for (const leftOver of [...Object.values(tensors)]) leftOver.destroy();

  const { a, b } = activationOf(activation);
  const name = typeof activation === "string" ? activation : activation.name;
  let worst = 0;
  for (const [i, sum] of sums.data.entries()) {
    const before = sum + bias[i % out]! + residual[i]!;
    const magnitude = magnitudes[i]! + Math.abs(bias[i % out]!) + Math.abs(residual[i]!);
    const expected = activate(name, before, a, b);
    // Winograd's: C products, and before and after them sums of six along either axis, weights' too.
    const terms = kernel === "conv2d_winograd"
      ? channels + 6 * 6
      : count(weightsShape.slice(1)) + 2;
    const bound = convBound(type, expected, before, magnitude, terms, name !== "identity");
    const error = Math.abs(actual[i]! - expected) / bound;
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  return worst;
}

for (const type of ["f32", "f16"] as const) {
  Deno.test(`recordConv2d() is ONNX's convolution in ${type}, by every kernel`, async () => {
    const gpu = await sharedGpu();
    if (type === "f16" && !gpu.features.has("shader-f16")) return;
    const met = new Set<string>();
    for (const test of CASES) {
      const [out, kernelHeight, kernelWidth] = test.filter;
      const kernels = conv2dKernels(gpu, {
        ...{ channels: test.input[3], outChannels: out, kernelHeight, kernelWidth, type },
        groups: test.groups,
        strideY: test.strides?.[0],
        strideX: test.strides?.[1],
        dilationY: test.dilations?.[0],
        dilationX: test.dilations?.[1],
      });
      for (const kernel of kernels) {
        met.add(kernel);
        const error = await errorOf(gpu, test, kernel, type);
        assert.ok(error <= 1, `${test.name} by ${kernel}: ${error} of the bound`);
      }
    }
    console.log(`  ${type}: ${[...met].join(" ")}`);
  });
}

Deno.test("recordConv2d() takes Winograd's tiles in parts where there are many", async () => {
  const gpu = await sharedGpu();
  // Thirds and 24ths of such weights are whole, so that f32 rounds nothing and the answer is exact.
  const whole = (count: number, seed: number, by: number) =>
    floats(count, seed).map((v) => by * Math.round(1.2 * v));
  const out = 3000; // So many that the scratch holds 32 of the 2 · 5 · 6 tiles.
  const inputShape = [2, 18, 21, 4] as const, weightsShape = [out, 4, 3, 3] as const;
  const input = whole(count(inputShape), 1, 1);
  const weights = whole(count(weightsShape), 2, 576);
  const expected = reference.conv2d(input, inputShape, weights, weightsShape, {
    pads: [1, 1, 1, 1],
  });
  const compiled = await compileConv2d(gpu, {
    ...{ channels: 4, outChannels: out, kernelHeight: 3, kernelWidth: 3 },
    kernel: "conv2d_winograd",
  });
  const packed = packConv2dWeights(compiled, weights);
  const output = new Tensor(gpu, "f32", expected.shape);
  const batch = new Batch(gpu);
  recordConv2d(batch, compiled, {
    input: Tensor.from(gpu, input, inputShape),
    weights: Tensor.from(gpu, packed.data, packed.shape),
    output,
  }, { top: 1, left: 1, bottom: 1, right: 1 });
  batch.submit();
  const actual = await output.readFloats();
  assert.equal(actual.findIndex((v, i) => v !== expected.data[i]), -1);
});

Deno.test("recordConv2d() sums in f32 what overflows f16, and holds what it stores", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return;
  const options: Conv2dOptions = {
    ...{ channels: 64, outChannels: 32, kernelHeight: 3, kernelWidth: 3, type: "f16" },
    bias: true,
  };
  for (const kernel of conv2dKernels(gpu, options)) {
    const compiled = await compileConv2d(gpu, { ...options, kernel });
    // 288 products of 240² and as many of −240² but for one: 57600 left, after 16.6 million.
    const weights = new Float32Array(32 * 64 * 9);
    for (let o = 0; o < 32; o++) {
      for (let k = 0; k < 576; k++) {
        weights[o * 576 + k] = o === 0
          ? (k < 288 ? 240 : k < 575 ? -240 : 0)
          : o === 1
          ? 240
          : -240;
      }
    }
    const packed = packConv2dWeights(compiled, weights);
    const output = new Tensor(gpu, "f16", [1, 1, 1, 32]);
    const batch = new Batch(gpu);
    recordConv2d(batch, compiled, {
      input: Tensor.from(gpu, new Float16Array(9 * 64).fill(240), [1, 3, 3, 64]),
      weights: Tensor.from(gpu, packed.data, packed.shape),
      bias: new Tensor(gpu, "f16", [32]),
      output,
    });
    batch.submit();
    const actual = await output.readFloats();
    assert.deepEqual([...actual.slice(0, 3)], [57600, 65504, -65504], kernel);
  }
});

Deno.test("conv2dKernels() takes what an adapter offers", () => {
  const adapter = (isSoftware: boolean, subgroupSize?: number, matrices?: 8 | 16) => ({
    features: new Set(subgroupSize === undefined ? [] : ["subgroups", "shader-f16"]),
    subgroupSize,
    adapter: { isSoftware },
    subgroupMatrixConfigs: matrices === undefined ? [] : [
      ...["f16", "f32"].map((resultComponentType) => (
        { componentType: "f16", resultComponentType, M: matrices, N: matrices, K: matrices }
      )),
    ],
  });
  const dense = { channels: 64, outChannels: 64, kernelHeight: 5, kernelWidth: 5 };
  const lavapipe = adapter(true, 8);
  const nvidia = adapter(false, 32, 16);
  const first = (...args: Parameters<typeof conv2dKernels>) => conv2dKernels(...args)[0];
  assert.equal(first(lavapipe, dense), "conv2d_subgroup8");
  const filter3 = { ...dense, kernelHeight: 3, kernelWidth: 3 };
  assert.equal(first(lavapipe, filter3), "conv2d_winograd");
  assert.equal(first(lavapipe, { ...filter3, pixels: 49 }), "conv2d_subgroup8");
  assert.equal(first(lavapipe, { ...filter3, strideX: 2 }), "conv2d_subgroup8");
  assert.equal(first(adapter(true, 8, 8), { ...dense, type: "f16" }), "conv2d_subgroup8");
  assert.equal(first(lavapipe, { ...dense, outChannels: 8 }), "conv2d_subgroup8_narrow");
  assert.equal(first(lavapipe, { ...dense, groups: 16 }), "conv2d_subgroup8_narrow");
  assert.equal(first(adapter(true), dense), "conv2d");
  assert.equal(first(nvidia, dense), "conv2d_tiled");
  assert.equal(first(nvidia, { ...dense, type: "f16" }), "conv2d_tensor16");
  assert.equal(first(adapter(false, 64, 16), { ...dense, type: "f16" }), "conv2d_tiled");
  assert.equal(first(nvidia, { ...dense, type: "f16", groups: 16 }), "conv2d");
  const filter1 = { ...dense, kernelHeight: 1, kernelWidth: 1 };
  assert.equal(first(lavapipe, filter1), "matmul");
  assert.equal(first(lavapipe, { ...filter1, outChannels: 8 }), "conv2d_subgroup8_narrow");
  assert.equal(first(nvidia, { ...filter1, type: "f16" }), "matmul");
  assert.equal(first(nvidia, { ...filter1, channels: 20, type: "f16" }), "conv2d_tensor16");
  assert.equal(first(nvidia, { ...filter1, outChannels: 63 }), "conv2d_tiled");
  for (const any of [lavapipe, adapter(true), nvidia]) {
    assert.equal(first(any, { ...dense, groups: 64 }), "conv2d_depthwise_sliding");
    assert.equal(first(any, { ...dense, groups: 64, strideX: 2 }), "conv2d_depthwise");
    assert.equal(first(any, { ...dense, outChannels: 128, groups: 64 }), "conv2d_grouped");
    assert.equal(first(any, { ...dense, groups: 32 }), "conv2d_grouped");
  }
});

Deno.test("conv2d_tensor8.wgsl and conv2d_tensor16.wgsl differ in their matrices only", async () => {
  const folder = new URL("../../kernels/", import.meta.url);
  const [of8, of16] = await Promise.all(
    [8, 16].map((size) => Deno.readTextFile(new URL(`conv2d_tensor${size}.wgsl`, folder))),
  );
  const body = (text: string) =>
    text.slice(text.indexOf("enable f16")).replaceAll("tensor16", "tensor8");
  assert.equal(
    body(of16!).replace("SIZE = 16u", "SIZE = 8u").replace("LANES = 32u", "LANES = 8u"),
    body(of8!),
  );
});

Deno.test("compileConv2d() refuses shapes that are none", async () => {
  const gpu = await sharedGpu();
  const good = { channels: 8, outChannels: 8, kernelHeight: 3, kernelWidth: 3 };
  for (
    const wrong of [{ groups: 3 }, { channels: 0 }, { strideX: 0 }, { dilationY: 0.5 }, {
      kernelHeight: -1,
    }]
  ) {
    await assert.rejects(compileConv2d(gpu, { ...good, ...wrong }), RangeError);
  }
  for (const kernel of ["conv2d_depthwise", "conv2d_winograd", "conv2d_tensor16"] as const) {
    await assert.rejects(compileConv2d(gpu, { ...good, strideX: 2, kernel }), RangeError);
  }
});

Deno.test("recordConv2d() refuses tensors that do not fit", async () => {
  const gpu = await sharedGpu();
  const compiled = await compileConv2d(gpu, {
    ...{ channels: 3, outChannels: 8, kernelHeight: 3, kernelWidth: 3, bias: true },
  });
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const good = {
    input: tensor(1, 8, 8, 4),
    weights: tensor(3, 3, 4, 8),
    bias: tensor(8),
    output: tensor(1, 6, 6, 8),
  };
  const batch = new Batch(gpu);
  recordConv2d(batch, compiled, good);
  for (
    const wrong of [
      { input: tensor(1, 8, 8, 8) },
      { input: tensor(8, 8, 4) },
      { weights: tensor(3, 3, 4, 6) },
      { bias: tensor(4) },
      { bias: undefined },
      { bias: new Tensor(gpu, "i32", [8]) },
      { residual: tensor(1, 6, 6, 8) },
      { output: tensor(1, 8, 8, 8) },
    ]
  ) {
    assert.throws(() => recordConv2d(batch, compiled, { ...good, ...wrong }), RangeError);
  }
  assert.throws(() => packConv2dWeights(compiled, new Float32Array(5)), RangeError);
});

Deno.test("convolvedSize() is never negative", () => {
  assert.equal(convolvedSize(5, 3, 2, 2), 3);
  assert.equal(convolvedSize(2, 5), 0);
  assert.equal(convolvedSize(9, 3, 1, 0, 4), 1);
});
