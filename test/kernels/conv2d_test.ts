import assert from "node:assert/strict";
import { compileConv2d, convolvedSize, recordConv2d } from "../../kernels/conv2d.ts";
import { Batch } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/kernels.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu, worstError } from "./gpu.ts";

const CASES = [
  // A single pixel.
  { input: [1, 1, 1, 4], weights: [1, 1, 4, 4], strideY: 1, strideX: 1, padY: 0, padX: 0 },
  // Padding wider than the image.
  { input: [1, 2, 3, 4], weights: [7, 5, 4, 4], strideY: 1, strideX: 1, padY: 3, padX: 2 },
  // Primes, several images, more channels than one vec4.
  { input: [3, 11, 13, 8], weights: [3, 3, 8, 12], strideY: 1, strideX: 1, padY: 1, padX: 1 },
  // Unequal strides.
  { input: [2, 17, 19, 4], weights: [4, 2, 4, 8], strideY: 2, strideX: 3, padY: 1, padX: 0 },
  // One-dimensional, as a separable filter's two passes; wider than a workgroup's 256 pixels.
  { input: [1, 2, 259, 4], weights: [1, 25, 4, 8], strideY: 1, strideX: 1, padY: 0, padX: 12 },
  { input: [1, 41, 5, 8], weights: [25, 1, 8, 4], strideY: 1, strideX: 1, padY: 12, padX: 0 },
  // No image at all.
  { input: [0, 5, 5, 4], weights: [3, 3, 4, 4], strideY: 1, strideX: 1, padY: 1, padX: 1 },
] as const;

Deno.test("recordConv2d() is ONNX's convolution, with bias and activation", async () => {
  const gpu = await sharedGpu();
  const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
  for (const [i, attributes] of CASES.entries()) {
    const { input: inputShape, weights: weightsShape } = attributes;
    const activation = i % 2 === 0 ? "identity" : "relu";
    const act = (v: number) => activation === "relu" ? Math.max(v, 0) : v;
    const input = floats(count(inputShape), 10 + i);
    const weights = floats(count(weightsShape), 20 + i);
    const bias = floats(weightsShape[3], 30 + i);
    const expected = reference.conv2d(
      input,
      inputShape,
      weights,
      weightsShape,
      bias,
      attributes,
      act,
    );
    const magnitudes = reference.conv2d(
      input.map(Math.abs),
      inputShape,
      weights.map(Math.abs),
      weightsShape,
      bias.map(Math.abs),
      attributes,
      (v) => v,
    );
    const output = new Tensor(gpu, "f32", expected.shape);
    const batch = new Batch(gpu);
    recordConv2d(batch, await compileConv2d(gpu, activation), {
      input: Tensor.from(gpu, input, inputShape),
      weights: Tensor.from(gpu, weights, weightsShape),
      bias: Tensor.from(gpu, bias, [weightsShape[3]]),
      output,
    }, attributes);
    batch.submit();
    const terms = count(weightsShape.slice(0, 3)) + 1;
    const error = worstError(await output.readFloats(), expected.data, magnitudes.data, terms);
    assert.ok(error <= 1, `case ${i}: ${error} of the bound`);
  }
});

Deno.test("recordConv2d() refuses shapes that do not fit", async () => {
  const gpu = await sharedGpu();
  const pipeline = await compileConv2d(gpu);
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const good = {
    input: tensor(1, 8, 8, 4),
    weights: tensor(3, 3, 4, 8),
    bias: tensor(8),
    output: tensor(1, 6, 6, 8),
  };
  const batch = new Batch(gpu);
  recordConv2d(batch, pipeline, good);
  for (
    const wrong of [
      { input: tensor(1, 8, 8, 8) },
      { input: tensor(8, 8, 4) },
      { weights: tensor(3, 3, 4, 6) },
      { bias: tensor(4) },
      { output: tensor(1, 8, 8, 8) },
    ]
  ) {
    assert.throws(() => recordConv2d(batch, pipeline, { ...good, ...wrong }), RangeError);
  }
});

Deno.test("convolvedSize() is never negative", () => {
  assert.equal(convolvedSize(5, 3, 2, 1), 3);
  assert.equal(convolvedSize(2, 5, 1, 0), 0);
});
