/** Two-dimensional convolution in f32, channels-last, with bias and activation (ONNX Conv-11, group 1). */

import code from "./conv2d.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Pipeline, type Recorder } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const conv2dKernel = defineKernel({
  name: "conv2d",
  code,
  params: {
    height: "u32",
    width: "u32",
    channels4: "u32",
    out_height: "u32",
    out_width: "u32",
    out_channels4: "u32",
    kernel_height: "u32",
    kernel_width: "u32",
    stride_y: "u32",
    stride_x: "u32",
    pad_y: "u32",
    pad_x: "u32",
  },
  bindings: {
    input: { type: "array<vec4<f32>>", access: "read" },
    weights: { type: "array<vec4<f32>>", access: "read" },
    bias: { type: "array<vec4<f32>>", access: "read" },
    output: { type: "array<vec4<f32>>", access: "read_write" },
  },
  overrides: { ACTIVATION: 0 },
});

export type Activation = "identity" | "relu";

/** Strides and zero padding, in pixels, the same on both sides of an axis. */
export interface ConvAttributes {
  readonly strideY?: number;
  readonly strideX?: number;
  readonly padY?: number;
  readonly padX?: number;
}

/** Compiles for one activation. */
export function compileConv2d(
  gpu: Gpu,
  activation: Activation = "identity",
): Promise<Pipeline<typeof conv2dKernel.literal>> {
  return conv2dKernel.compile(gpu, { ACTIVATION: activation === "relu" ? 1 : 0 });
}

/** Output pixels along an axis: ⌊(size + 2·pad − kernel) / stride⌋ + 1 (ONNX Conv-11), at least 0. */
export function convolvedSize(size: number, kernel: number, stride: number, pad: number): number {
  return Math.max(0, Math.floor((size + 2 * pad - kernel) / stride) + 1);
}

/**
 * Records `output = act(bias + input ∗ weights)`: input [N, H, W, C], weights [KH, KW, C, O],
 * bias [O], output [N, OH, OW, O], all f32, C and O multiples of four.
 * @throws {RangeError} where the shapes do not fit together.
 */
export function recordConv2d(
  recorder: Recorder,
  pipeline: Pipeline<typeof conv2dKernel.literal>,
  { input, weights, bias, output }: Record<"input" | "weights" | "bias" | "output", Tensor>,
  { strideY = 1, strideX = 1, padY = 0, padX = 0 }: ConvAttributes = {},
): void {
  const [images = 0, height = 0, width = 0, channels = 0] = input.shape;
  const [kernelHeight = 0, kernelWidth = 0, channelsOfWeights, outChannels = 0] = weights.shape;
  const outHeight = convolvedSize(height, kernelHeight, strideY, padY);
  const outWidth = convolvedSize(width, kernelWidth, strideX, padX);
  const expected = [images, outHeight, outWidth, outChannels];
  if (
    input.shape.length !== 4 || weights.shape.length !== 4 || channels !== channelsOfWeights ||
    channels % 4 !== 0 || outChannels % 4 !== 0 ||
    bias.shape.join() !== String(outChannels) || output.shape.join() !== expected.join() ||
    [input, weights, bias, output].some(({ type }) => type !== "f32")
  ) {
    throw new RangeError(
      `Cannot convolve [${input.shape.join(", ")}] with [${weights.shape.join(", ")}] and bias ` +
        `[${bias.shape.join(", ")}] into [${output.shape.join(", ")}]: expected ` +
        `[${expected.join(", ")}], f32, channels in multiples of four`,
    );
  }
  recorder.dispatch(pipeline, {
    params: {
      height,
      width,
      channels4: channels / 4,
      out_height: outHeight,
      out_width: outWidth,
      out_channels4: outChannels / 4,
      kernel_height: kernelHeight,
      kernel_width: kernelWidth,
      stride_y: strideY,
      stride_x: strideX,
      pad_y: padY,
      pad_x: padX,
    },
    bindings: { input, weights, bias, output },
  }, [Math.ceil(outWidth / 256), images * outHeight, outChannels / 4]);
}
