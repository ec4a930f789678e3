/**
 * Pooling over windows of 1, 2 or 3 spatial axes and over whole images, channels-last: ONNX
 * MaxPool-12, AveragePool-19, LpPool-18, GlobalMaxPool-1, GlobalAveragePool-1, GlobalLpPool-2.
 */

import code from "./pool.wgsl" with { type: "text" };
import globalCode from "./global_pool.wgsl" with { type: "text" };
import indicesCode from "./pool_indices.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

const window = {
  kernel_z: "i32",
  kernel_y: "i32",
  kernel_x: "i32",
  stride_z: "i32",
  stride_y: "i32",
  stride_x: "i32",
  dilation_z: "i32",
  dilation_y: "i32",
  dilation_x: "i32",
  pad_z: "i32",
  pad_y: "i32",
  pad_x: "i32",
} as const;
const sizes = {
  depth: "i32",
  height: "i32",
  width: "i32",
  out_depth: "u32",
  out_height: "u32",
  out_width: "u32",
} as const;

export const poolKernel = defineKernel({
  name: "pool",
  code,
  params: {
    count: "u32",
    channels4: "u32",
    ...sizes,
    ...window,
    padded_z: "i32",
    padded_y: "i32",
    padded_x: "i32",
    count_padding: "u32",
    exponent: "f32",
  },
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<Element>>", access: "read_write" },
  },
  overrides: { KIND: 0 },
  aliases: { Element: ["f32", "f16"] },
});

export const poolIndicesKernel = defineKernel({
  name: "pool_indices",
  code: indicesCode,
  params: {
    count: "u32",
    channels4: "u32",
    channels: "i32",
    ...sizes,
    ...window,
    index_z: "i32",
    index_y: "i32",
    index_x: "i32",
  },
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<Element>>", access: "read_write" },
    indices: { type: "array<vec4<i32>>", access: "read_write" },
  },
  overrides: {},
  aliases: { Element: ["f32", "f16"] },
});

export const globalPoolKernel = defineKernel({
  name: "global_pool",
  code: globalCode,
  params: { pixels: "u32", channels4: "u32", images: "u32", exponent: "f32" },
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<Element>>", access: "read_write" },
  },
  overrides: { KIND: 0, X: 8, Y: 32 },
  aliases: { Element: ["f32", "f16"] },
});

const KINDS = { max: 0, average: 1, lp: 2 } as const;
export type PoolKind = keyof typeof KINDS;

export interface PoolOptions {
  readonly kind: PoolKind;
  /** Of input and output. */
  readonly type?: "f32" | "f16";
}

/** ONNX's attributes by their meaning there; lists have an entry for each spatial axis, outermost first. */
export interface PoolAttributes {
  readonly kernelShape: readonly number[];
  /** Default 1. */
  readonly strides?: readonly number[];
  /** Default 1. */
  readonly dilations?: readonly number[];
  /** Before the first pixel of each axis, then behind the last of each; default 0. */
  readonly pads?: readonly number[];
  readonly ceilMode?: boolean;
  /** Average: whether padding counts as zeros or not at all (default). */
  readonly countIncludePad?: boolean;
  /** Lp: the exponent, at least 1; default 2. */
  readonly p?: number;
}

/** Pixels of output along an axis. */
export interface PooledAxis {
  readonly kernel: number;
  readonly stride?: number;
  readonly dilation?: number;
  readonly padBegin?: number;
  readonly padEnd?: number;
  readonly ceilMode?: boolean;
}

/**
 * Output pixels along an axis of `size`, at least 0: (size + pads − extent of the kernel) / stride,
 * rounded down, or up with `ceilMode`, + 1. A window that would begin in the padding behind the
 * last pixel is left out (ONNX MaxPool-12 and AveragePool-19, as PyTorch has it).
 */
export function pooledSize(
  size: number,
  { kernel, stride = 1, dilation = 1, padBegin = 0, padEnd = 0, ceilMode = false }: PooledAxis,
): number {
  const room = size + padBegin + padEnd - ((kernel - 1) * dilation + 1);
  if (room < 0) return 0;
  if (!ceilMode) return Math.floor(room / stride) + 1;
  const count = Math.ceil(room / stride) + 1;
  return (count - 1) * stride >= size + padBegin ? count - 1 : count;
}

/** One spatial axis with everything that ONNX leaves to defaults. */
function axesOf(attributes: PoolAttributes): Required<PooledAxis>[] {
  const { kernelShape, strides, dilations, pads, ceilMode = false } = attributes;
  const rank = kernelShape.length;
  const axes = kernelShape.map((kernel, axis) => ({
    kernel,
    stride: strides?.[axis] ?? 1,
    dilation: dilations?.[axis] ?? 1,
    padBegin: pads?.[axis] ?? 0,
    padEnd: pads?.[rank + axis] ?? 0,
    ceilMode,
  }));
  const whole = (least: number, ...values: number[]) =>
    values.every((value) => Number.isSafeInteger(value) && value >= least && value < 2 ** 31);
  if (
    rank < 1 || rank > 3 || (strides ?? kernelShape).length !== rank ||
    (dilations ?? kernelShape).length !== rank || (pads?.length ?? 2 * rank) !== 2 * rank ||
    !axes.every(({ kernel, stride, dilation, padBegin, padEnd }) =>
      whole(1, kernel, stride, dilation, kernel * dilation) && whole(0, padBegin, padEnd)
    )
  ) {
    throw new RangeError(
      `Cannot pool with kernel [${kernelShape}], strides [${strides ?? ""}], dilations ` +
        `[${dilations ?? ""}], pads [${pads ?? ""}]: 1 to 3 axes and whole numbers are needed`,
    );
  }
  return axes;
}

/**
 * The shape of the output for `input` [N, …spatial axes, C].
 * @throws {RangeError} where the attributes' axes are not those of the input.
 */
export function pooledShape(input: readonly number[], attributes: PoolAttributes): number[] {
  const axes = axesOf(attributes);
  if (input.length !== axes.length + 2) {
    throw new RangeError(
      `Cannot pool [${input.join(", ")}] with kernel [${attributes.kernelShape}]: ` +
        `[N, ${axes.map(() => "size").join(", ")}, C] is needed`,
    );
  }
  return [
    input[0]!,
    ...axes.map((axis, i) => pooledSize(input[i + 1]!, axis)),
    input[input.length - 1]!,
  ];
}

/** Compiles for one kind and type. @throws {KernelError} where the device fails. */
export async function compilePool(gpu: Gpu, { kind, type = "f32" }: PoolOptions) {
  return {
    type,
    pipeline: await poolKernel.compile(gpu, { KIND: KINDS[kind] }, { Element: type }),
  };
}
export type CompiledPool = Awaited<ReturnType<typeof compilePool>>;

/** What both pool kernels are told of the windows; axes that are not there have one pixel. */
function geometry(
  input: Tensor,
  outputs: readonly Tensor[],
  type: "f32" | "f16",
  attributes: PoolAttributes,
) {
  const shape = pooledShape(input.shape, attributes);
  const channels = shape[shape.length - 1]!;
  const count = shape.reduce((a, b) => a * b, 1);
  const elements = input.shape.reduce((a, b) => a * b, 1);
  if (
    channels % 4 !== 0 || input.type !== type || Math.max(count, elements) / 4 >= 2 ** 31 ||
    outputs.some((output) => output.shape.join() !== shape.join()) || outputs[0]!.type !== type
  ) {
    throw new RangeError(
      `Cannot pool ${input.type} [${input.shape.join(", ")}] into ${
        outputs.map((output) => `${output.type} [${output.shape.join(", ")}]`).join(" and ")
      }: ${type} and [${shape.join(", ")}] are needed, channels in multiples of four`,
    );
  }
  const axes = axesOf(attributes);
  const one: Required<PooledAxis> = {
    kernel: 1,
    stride: 1,
    dilation: 1,
    padBegin: 0,
    padEnd: 0,
    ceilMode: false,
  };
  const missing = 3 - axes.length;
  const [z, y, x] = [...Array.from({ length: missing }, () => one), ...axes] as [
    typeof one,
    typeof one,
    typeof one,
  ];
  const ones = Array.from({ length: missing }, () => 1);
  const [depth, height, width] = [...ones, ...input.shape.slice(1, -1)] as [number, number, number];
  const [outDepth, outHeight, outWidth] = [...ones, ...shape.slice(1, -1)];
  return {
    padEnds: [z.padEnd, y.padEnd, x.padEnd] as const,
    params: {
      count: count / 4,
      channels4: channels / 4,
      depth,
      height,
      width,
      out_depth: outDepth!,
      out_height: outHeight!,
      out_width: outWidth!,
      kernel_z: z.kernel,
      kernel_y: y.kernel,
      kernel_x: x.kernel,
      stride_z: z.stride,
      stride_y: y.stride,
      stride_x: x.stride,
      dilation_z: z.dilation,
      dilation_y: y.dilation,
      dilation_x: x.dilation,
      pad_z: z.padBegin,
      pad_y: y.padBegin,
      pad_x: x.padBegin,
    },
  };
}

/**
 * Records the pooling of `input` [N, …, C] into `output` of `pooledShape`: 1 to 3 spatial axes, both
 * of the compiled type, C a multiple of four.
 * @throws {RangeError} where shapes and attributes do not fit together.
 */
export function recordPool(
  recorder: Recorder,
  { pipeline, type }: CompiledPool,
  { input, output }: Record<"input" | "output", Tensor>,
  attributes: PoolAttributes,
): void {
  const { countIncludePad = false, p = 2 } = attributes;
  checkExponent(p);
  const { params, padEnds } = geometry(input, [output], type, attributes);
  recorder.dispatch(pipeline, {
    params: {
      ...params,
      padded_z: params.depth + padEnds[0],
      padded_y: params.height + padEnds[1],
      padded_x: params.width + padEnds[2],
      count_padding: Number(countIncludePad),
      exponent: p,
    },
    bindings: { input, output },
  }, rowOfWorkgroups(recorder.gpu, Math.ceil(params.count / 64)));
}

/** Compiles max pooling that also says where. @throws {KernelError} where the device fails. */
export async function compilePoolIndices(gpu: Gpu, { type = "f32" }: Pick<PoolOptions, "type">) {
  return { type, pipeline: await poolIndicesKernel.compile(gpu, {}, { Element: type }) };
}
export type CompiledPoolIndices = Awaited<ReturnType<typeof compilePoolIndices>>;

/**
 * Records max pooling as `recordPool` does, and into `indices`, i32 of the output's shape, where each
 * maximum lies in the planar tensor [N, channels, …]: the first of equals. `channels` are those
 * without padding (default C); with `storageOrder` 1 a plane's columns lie together (ONNX MaxPool-12).
 * @throws {RangeError} where shapes and attributes do not fit together, or an index does not fit i32.
 */
export function recordPoolIndices(
  recorder: Recorder,
  { pipeline, type }: CompiledPoolIndices,
  { input, output, indices }: Record<"input" | "output" | "indices", Tensor>,
  attributes: PoolAttributes & {
    readonly channels?: number;
    readonly storageOrder?: 0 | 1;
  },
): void {
  const { params } = geometry(input, [output, indices], type, attributes);
  const { depth, height, width } = params;
  const { channels = 4 * params.channels4, storageOrder = 0 } = attributes;
  const largest = input.shape[0]! * channels * depth * height * width;
  if (indices.type !== "i32" || channels > 4 * params.channels4 || largest > 2 ** 31) {
    throw new RangeError(
      `Cannot number ${channels} channels of [${input.shape.join(", ")}] in ${indices.type} ` +
        `[${indices.shape.join(", ")}]: i32 is needed, and at most 2³¹ elements`,
    );
  }
  // Column-major is over all spatial axes, the first one running fastest; the axes that a 1-D or
  // 2-D tensor lacks have one pixel, so what they count by does not matter.
  const byRows = { index_z: height * width, index_y: width, index_x: 1 };
  const byColumns = { index_z: 1, index_y: depth, index_x: depth * height };
  recorder.dispatch(pipeline, {
    params: { ...params, channels, ...(storageOrder === 0 ? byRows : byColumns) },
    bindings: { input, output, indices },
  }, rowOfWorkgroups(recorder.gpu, Math.ceil(params.count / 64)));
}

/**
 * Compiles for one kind and type. `parts` invocations, a power of two, share the pixels of an image;
 * by default as suits the adapter: joining their results costs a software adapter more than its few
 * cores gain by them.
 * @throws {KernelError} where the device fails.
 */
export async function compileGlobalPool(
  gpu: Gpu,
  { kind, type = "f32", parts = gpu.adapter.isSoftware ? 1 : 32 }: PoolOptions & {
    readonly parts?: 1 | 2 | 4 | 8 | 16 | 32;
  },
) {
  const { X } = globalPoolKernel.literal.overrides;
  const pipeline = await globalPoolKernel.compile(gpu, { KIND: KINDS[kind], Y: parts }, {
    Element: type,
  });
  return { type, pipeline, channels4: X };
}
export type CompiledGlobalPool = Awaited<ReturnType<typeof compileGlobalPool>>;

/**
 * Records the pooling of `input` [N, …, C], any number of spatial axes, over all of them into
 * `output` [N, C] or [N, 1, …, C], both of the compiled type, C a multiple of four. `p` is Lp's.
 * @throws {RangeError} where the shapes do not fit together or there are no pixels.
 */
export function recordGlobalPool(
  recorder: Recorder,
  { pipeline, type, channels4 }: CompiledGlobalPool,
  { input, output }: Record<"input" | "output", Tensor>,
  { p = 2 }: Pick<PoolAttributes, "p"> = {},
): void {
  checkExponent(p);
  const images = input.shape[0] ?? 0;
  const channels = input.shape[input.shape.length - 1] ?? 0;
  const pixels = input.shape.slice(1, -1).reduce((a, b) => a * b, 1);
  const flat = output.shape.filter((size, axis) =>
    axis === 0 || axis === output.shape.length - 1 || size !== 1
  );
  if (
    input.shape.length < 2 || channels % 4 !== 0 || flat.join() !== `${images},${channels}` ||
    input.type !== type || output.type !== type || pixels === 0
  ) {
    throw new RangeError(
      `Cannot pool all of ${input.type} [${input.shape.join(", ")}] into ${output.type} ` +
        `[${output.shape.join(", ")}]: ${type} [N, …, C] into [N, C] is needed, channels in ` +
        `multiples of four and at least one pixel`,
    );
  }
  recorder.dispatch(pipeline, {
    params: { pixels, channels4: channels / 4, images, exponent: p },
    bindings: { input, output },
  }, [
    Math.ceil(channels / 4 / channels4),
    ...rowOfWorkgroups(recorder.gpu, images),
  ]);
}

function checkExponent(p: number): void {
  if (!(p >= 1 && p < Infinity)) {
    throw new RangeError(`Cannot pool with p = ${p}: at least 1 is needed`);
  }
}
