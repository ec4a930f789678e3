/** Three-dimensional convolution, channels-last, with bias and activation (ONNX Conv-11). Plain. */

import code from "./conv3d.wgsl" with { type: "text" };
import { type Activation, activationOf } from "./activation.ts";
import { convolvedSize, paddedChannels } from "./conv2d.ts";
import type { Gpu } from "./device.ts";
import { defineKernel, type Pipeline, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const conv3dKernel = defineKernel({
  name: "conv3d",
  code,
  params: {
    images: "u32",
    depth: "u32",
    height: "u32",
    width: "u32",
    channels: "u32",
    out_depth: "u32",
    out_height: "u32",
    out_width: "u32",
    out_channels: "u32",
    out_channels4: "u32",
    group_channels: "u32",
    group_out_channels: "u32",
    kernel_depth: "u32",
    kernel_height: "u32",
    kernel_width: "u32",
    stride_z: "u32",
    stride_y: "u32",
    stride_x: "u32",
    pad_z: "i32",
    pad_y: "i32",
    pad_x: "i32",
    dilation_z: "u32",
    dilation_y: "u32",
    dilation_x: "u32",
    a: "f32",
    b: "f32",
  },
  bindings: {
    input: { type: "array<Element>", access: "read" },
    weights: { type: "array<vec4<Element>>", access: "read" },
    bias: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<Element>>", access: "read_write" },
  },
  overrides: { BIAS: false, SATURATE: false, ACTIVATION: 0 },
  aliases: { Element: ["f32", "f16"] },
});

/** Along depth, height and width. */
export type Triple = readonly [z: number, y: number, x: number];

export interface Conv3dOptions {
  /** Input and output channels, without padding. */
  readonly channels: number;
  readonly outChannels: number;
  readonly kernel: Triple;
  readonly groups?: number;
  readonly strides?: Triple;
  readonly dilations?: Triple;
  readonly type?: "f32" | "f16";
  readonly activation?: Activation;
  readonly bias?: boolean;
}

/** A convolution that was compiled: `recordConv3d` dispatches it. */
export interface CompiledConv3d {
  readonly options: Required<Conv3dOptions>;
  readonly pipeline: Pipeline<typeof conv3dKernel.literal>;
}

/**
 * Compiles for one activation.
 * @throws {RangeError} where groups do not divide the channels. @throws {KernelError} where the device fails.
 */
export async function compileConv3d(gpu: Gpu, options: Conv3dOptions): Promise<CompiledConv3d> {
  const { channels, outChannels, groups = 1, type = "f32", bias = false } = options;
  const { strides = [1, 1, 1], dilations = [1, 1, 1], activation = "identity" } = options;
  const whole = [channels, outChannels, groups, ...options.kernel, ...strides, ...dilations];
  if (
    !whole.every((size) => Number.isSafeInteger(size) && size > 0) ||
    channels % groups !== 0 || outChannels % groups !== 0
  ) {
    throw new RangeError(
      `Cannot convolve ${channels} channels into ${outChannels} in ${groups} groups by ` +
        `[${options.kernel.join(", ")}], strides [${strides.join(", ")}], dilations ` +
        `[${dilations.join(", ")}]: whole numbers are needed, and groups that divide the channels`,
    );
  }
  const pipeline = await conv3dKernel.compile(gpu, {
    BIAS: bias,
    SATURATE: type === "f16",
    ACTIVATION: activationOf(activation).code,
  }, { Element: type });
  return {
    options: { ...options, groups, strides, dilations, type, activation, bias },
    pipeline,
  };
}

function weightsShape({ channels, outChannels, groups, kernel }: CompiledConv3d["options"]) {
  const each = groups === 1 ? paddedChannels(channels) : channels / groups;
  return [...kernel, each, paddedChannels(outChannels)];
}

/**
 * Weights as the kernel reads them.
 * @param weights [O, C/groups, KD, KH, KW], as ONNX has them.
 * @returns [KD, KH, KW, C/groups, O], padded as `packConv2dWeights` does.
 * @throws {RangeError} where the number of weights is not that of the shape.
 */
export function packConv3dWeights(
  { options }: CompiledConv3d,
  weights: ArrayLike<number>,
): { data: Float32Array<ArrayBuffer> | Float16Array<ArrayBuffer>; shape: number[] } {
  const { channels, outChannels, groups, kernel, type } = options;
  const each = channels / groups;
  const taps = kernel[0] * kernel[1] * kernel[2];
  if (weights.length !== outChannels * each * taps) {
    throw new RangeError(
      `Cannot pack ${weights.length} weights: [${outChannels}, ${each}, ${kernel.join(", ")}] ` +
        `has ${outChannels * each * taps}`,
    );
  }
  const shape = weightsShape(options);
  const rows = shape[3]!, columns = shape[4]!;
  const data = new (type === "f16" ? Float16Array : Float32Array)(taps * rows * columns);
  for (let o = 0; o < outChannels; o++) {
    for (let c = 0; c < each; c++) {
      for (let tap = 0; tap < taps; tap++) {
        data[(tap * rows + c) * columns + o] = weights[(o * each + c) * taps + tap]!;
      }
    }
  }
  return { data, shape };
}

/**
 * Records `output = act(bias + input ∗ weights)`: input [N, D, H, W, C], weights as
 * `packConv3dWeights` makes them, bias [O], output [N, OD, OH, OW, O], channels as in `recordConv2d`.
 * @param pads zero padding before and behind, along each axis.
 * @throws {RangeError} where the shapes do not fit together.
 */
export function recordConv3d(
  recorder: Recorder,
  { options, pipeline }: CompiledConv3d,
  { input, weights, bias, output }: {
    readonly input: Tensor;
    readonly weights: Tensor;
    readonly bias?: Tensor;
    readonly output: Tensor;
  },
  { before = [0, 0, 0], behind = [0, 0, 0] }: {
    readonly before?: Triple;
    readonly behind?: Triple;
  } = {},
): void {
  const { kernel, strides, dilations, groups, type } = options;
  const [images = 0, depth = 0, height = 0, width = 0] = input.shape;
  const out = paddedChannels(options.outChannels);
  const [outDepth, outHeight, outWidth] = [depth, height, width].map((size, axis) =>
    convolvedSize(
      size,
      kernel[axis]!,
      strides[axis],
      before[axis]! + behind[axis]!,
      dilations[axis],
    )
  ) as [number, number, number];
  for (
    const [name, tensor, shape] of [
      ["input", input, [images, depth, height, width, paddedChannels(options.channels)]],
      ["weights", weights, weightsShape(options)],
      ["bias", bias, options.bias ? [out] : undefined],
      ["output", output, [images, outDepth, outHeight, outWidth, out]],
    ] as const
  ) {
    if (
      tensor?.shape.join() !== shape?.join() || (tensor !== undefined && tensor.type !== type)
    ) {
      throw new RangeError(
        `Cannot convolve [${input.shape.join(", ")}]: "${name}" is ` +
          `${
            tensor === undefined ? "absent" : `${tensor.type} [${tensor.shape.join(", ")}]`
          }, not ` +
          `${shape === undefined ? "absent" : `${type} [${shape.join(", ")}]`}`,
      );
    }
  }
  const { a, b } = activationOf(options.activation);
  const channels = paddedChannels(options.channels);
  const voxels = images * outDepth * outHeight * outWidth;
  recorder.dispatch(pipeline, {
    params: {
      ...{ images, depth, height, width, channels },
      ...{ out_depth: outDepth, out_height: outHeight, out_width: outWidth },
      out_channels: options.outChannels,
      out_channels4: out / 4,
      group_channels: groups === 1 ? channels : options.channels / groups,
      group_out_channels: groups === 1 ? out : options.outChannels / groups,
      ...{ kernel_depth: kernel[0], kernel_height: kernel[1], kernel_width: kernel[2] },
      ...{ stride_z: strides[0], stride_y: strides[1], stride_x: strides[2] },
      ...{ pad_z: before[0], pad_y: before[1], pad_x: before[2] },
      ...{ dilation_z: dilations[0], dilation_y: dilations[1], dilation_x: dilations[2] },
      ...{ a, b },
    },
    // A binding that is not read has to be bound nevertheless.
    bindings: { input, weights, bias: bias ?? weights, output },
  }, rowOfWorkgroups(recorder.gpu, Math.ceil(voxels * out / 4 / 64)));
}
