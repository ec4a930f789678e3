/**
 * Normalisation of images by the mean and variance of groups of channels over all pixels,
 * channels-last: ONNX GroupNormalization-21, and InstanceNormalization-6, whose groups are the
 * channels.
 */

import momentsCode from "./channel_moments.wgsl" with { type: "text" };
import factorsCode from "./group_factors.wgsl" with { type: "text" };
import code from "./group_norm.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const channelMomentsKernel = defineKernel({
  name: "channel_moments",
  code: momentsCode,
  params: { pixels: "u32", channels4: "u32", slices: "u32", slice: "u32", count: "u32" },
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    moments: { type: "array<vec4<f32>>", access: "read_write" },
  },
  overrides: { X: 8, Y: 32 },
  aliases: { Element: ["f32", "f16"] },
});

export const groupFactorsKernel = defineKernel({
  name: "group_factors",
  code: factorsCode,
  params: {
    pixels: "u32",
    channels: "u32",
    slices: "u32",
    slice: "u32",
    groups: "u32",
    of_group: "u32",
    count: "u32",
    epsilon: "f32",
  },
  bindings: {
    scale: { type: "array<Element>", access: "read" },
    moments: { type: "array<f32>", access: "read_write" },
  },
  overrides: {},
  aliases: { Element: ["f32", "f16"] },
});

export const groupNormKernel = defineKernel({
  name: "group_norm",
  code,
  params: { count: "u32", pixels: "u32", channels4: "u32", slices: "u32" },
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    moments: { type: "array<vec4<f32>>", access: "read" },
    bias: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<Element>>", access: "read_write" },
  },
  overrides: {},
  aliases: { Element: ["f32", "f16"] },
});

/** Pixels of a slice, where there are as few slices as the most. */
const SLICE = 1024;
const MOST_SLICES = 64;

/** How the pixels of an image are split, so that one large image keeps a whole GPU busy. */
function slicesOf(shape: readonly number[]) {
  const pixels = shape.slice(1, -1).reduce((a, b) => a * b, 1);
  const slice = Math.max(SLICE, Math.ceil(pixels / MOST_SLICES));
  return { pixels, slice, slices: Math.ceil(pixels / slice) };
}

/** The shape of the f32 tensor that `recordGroupNorm` works in, for an input [N, …, C]. */
export function groupMomentsShape(input: readonly number[]): [number, number, number, number] {
  return [input[0] ?? 0, slicesOf(input).slices, 2, input[input.length - 1] ?? 0];
}

/**
 * Compiles for one type. `parts` invocations, a power of two, share the pixels of a slice; by default
 * as suits the adapter.
 * @throws {KernelError} where the device fails.
 */
export async function compileGroupNorm(
  gpu: Gpu,
  { type = "f32", parts = gpu.adapter.isSoftware ? 1 : 32 }: {
    readonly type?: "f32" | "f16";
    readonly parts?: 1 | 2 | 4 | 8 | 16 | 32;
  } = {},
) {
  const element = { Element: type };
  const [moments, factors, apply] = await Promise.all([
    channelMomentsKernel.compile(gpu, { Y: parts }, element),
    groupFactorsKernel.compile(gpu, {}, element),
    groupNormKernel.compile(gpu, {}, element),
  ]);
  return { type, moments, factors, apply };
}
export type CompiledGroupNorm = Awaited<ReturnType<typeof compileGroupNorm>>;

/**
 * Records `output = (input − mean) / √(variance + epsilon) · scale + bias`: input and output
 * [N, …, C], scale and bias [C], all of the compiled type, C a multiple of four, padded with zeros
 * behind `channels` (default C); mean and variance of an image's `groups` groups of channels, which
 * are neighbours; `moments` f32 of `groupMomentsShape` is what it works in. With as many groups as
 * channels it is instance normalisation.
 * @throws {RangeError} where shapes do not fit together or groups do not divide the channels.
 */
export function recordGroupNorm(
  recorder: Recorder,
  compiled: CompiledGroupNorm,
  { input, scale, bias, output, moments }: Record<
    "input" | "scale" | "bias" | "output" | "moments",
    Tensor
  >,
  { groups, channels = input.shape[input.shape.length - 1], epsilon = 1e-5 }: {
    readonly groups: number;
    readonly channels?: number;
    readonly epsilon?: number;
  },
): void {
  const { type } = compiled;
  const images = input.shape[0] ?? 0;
  const padded = input.shape[input.shape.length - 1] ?? 0;
  const { pixels, slice, slices } = slicesOf(input.shape);
  const ofGroup = (channels ?? 0) / groups;
  if (
    input.shape.length < 2 || padded % 4 !== 0 || !Number.isInteger(ofGroup) || ofGroup < 1 ||
    ofGroup * groups > padded || output.shape.join() !== input.shape.join() ||
    scale.shape.join() !== `${padded}` || bias.shape.join() !== `${padded}` ||
    moments.shape.join() !== groupMomentsShape(input.shape).join() || moments.type !== "f32" ||
    [input, scale, bias, output].some((tensor) => tensor.type !== type)
  ) {
    throw new RangeError(
      `Cannot normalise ${groups} groups of ${channels} channels of ${input.type} ` +
        `[${input.shape.join(", ")}] with scale [${scale.shape.join(", ")}] and bias ` +
        `[${bias.shape.join(", ")}] into [${output.shape.join(", ")}], moments ` +
        `[${moments.shape.join(", ")}]: ${type} [N, …, C] is needed, C a multiple of four`,
    );
  }
  const { X } = channelMomentsKernel.literal.overrides;
  const { gpu } = recorder;
  const channels4 = padded / 4;
  const count = images * pixels * channels4;
  if (count === 0) return;
  recorder.dispatch(compiled.moments, {
    params: { pixels, channels4, slices, slice, count: images * slices },
    bindings: { input, moments },
  }, [Math.ceil(channels4 / X), ...rowOfWorkgroups(gpu, images * slices)]);
  recorder.dispatch(compiled.factors, {
    params: {
      pixels,
      channels: padded,
      slices,
      slice,
      groups,
      of_group: ofGroup,
      count: images * groups,
      epsilon,
    },
    bindings: { scale, moments },
  }, rowOfWorkgroups(gpu, Math.ceil(images * groups / 64)));
  recorder.dispatch(compiled.apply, {
    params: { count, pixels, channels4, slices },
    bindings: { input, moments, bias, output },
  }, rowOfWorkgroups(gpu, Math.ceil(count / 64)));
}
