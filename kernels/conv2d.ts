/**
 * Two-dimensional convolution, channels-last, with bias, residual and activation (ONNX Conv-11).
 *
 * A tensor's channels are padded with zeros at the end, to a multiple of four: channel c of a pixel
 * is element c, whatever the groups, so that a group of a number of channels that is no multiple of
 * four begins within a vec4. There is a kernel for each kind of shape and adapter; `conv2dKernels`
 * says which, and `packConv2dWeights` brings ONNX's weights into the order that it reads.
 */

import code from "./conv2d.wgsl" with { type: "text" };
import codeDepthwise from "./conv2d_depthwise.wgsl" with { type: "text" };
import codeDepthwiseSliding from "./conv2d_depthwise_sliding.wgsl" with { type: "text" };
import codeGrouped from "./conv2d_grouped.wgsl" with { type: "text" };
import codeSubgroup8 from "./conv2d_subgroup8.wgsl" with { type: "text" };
import codeSubgroup8Narrow from "./conv2d_subgroup8_narrow.wgsl" with { type: "text" };
import codeTensor16 from "./conv2d_tensor16.wgsl" with { type: "text" };
import codeTensor8 from "./conv2d_tensor8.wgsl" with { type: "text" };
import codeTiled from "./conv2d_tiled.wgsl" with { type: "text" };
import { type Activation, activationOf } from "./activation.ts";
import {
  type CompiledWinograd,
  compileWinograd,
  dispatchWinograd,
  packWinogradWeights,
  WINOGRAD_CHANNELS,
} from "./conv2d_winograd.ts";
import type { Gpu, SubgroupMatrixConfig } from "./device.ts";
import {
  type Arguments,
  type Binding,
  defineKernel,
  type Kernel,
  type KernelLiteral,
  type Pipeline,
  type Recorder,
  rowOfWorkgroups,
} from "./kernel.ts";
import { type CompiledMatmul, compileMatmul, recordMatmul } from "./matmul.ts";
import type { Tensor } from "./tensor.ts";

const params = {
  images: "u32",
  height: "u32",
  width: "u32",
  channels4: "u32",
  out_height: "u32",
  out_width: "u32",
  out_channels: "u32",
  out_channels4: "u32",
  group_channels: "u32",
  group_out_channels: "u32",
  kernel_height: "u32",
  kernel_width: "u32",
  stride_y: "u32",
  stride_x: "u32",
  pad_y: "i32",
  pad_x: "i32",
  dilation_y: "u32",
  dilation_x: "u32",
  stored_height: "u32",
  stored_width: "u32",
  step_y: "u32",
  step_x: "u32",
  from_y: "u32",
  from_x: "u32",
  a: "f32",
  b: "f32",
} as const;

/** All kernels of the family are called alike; `input` is of scalars where groups begin anywhere. */
function literal<const Name extends string, const Input extends string>(
  name: Name,
  text: string,
  input: Input,
  features: readonly string[] = [],
) {
  return {
    name,
    code: text,
    params,
    bindings: {
      input: { type: input, access: "read" },
      weights: { type: "array<vec4<Element>>", access: "read" },
      bias: { type: "array<vec4<Element>>", access: "read" },
      residual: { type: "array<vec4<Element>>", access: "read" },
      output: { type: "array<vec4<Element>>", access: "read_write" },
    },
    overrides: { BIAS: false, RESIDUAL: false, SATURATE: false, ACTIVATION: 0 },
    aliases: { Element: ["f32", "f16"] },
    features,
  } as const satisfies KernelLiteral;
}

type ConvLiteral = ReturnType<typeof literal<string, string>>;

/** Those of subgroup matrices, all of f16, by the side of a matrix. */
function tensorLiteral<const Name extends string>(name: Name, text: string) {
  const f16 = "array<vec4<f16>>";
  return {
    name,
    code: text,
    params,
    bindings: {
      input: { type: f16, access: "read" },
      weights: { type: f16, access: "read" },
      bias: { type: f16, access: "read" },
      residual: { type: f16, access: "read" },
      output: { type: f16, access: "read_write" },
    },
    overrides: {
      BIAS: false,
      RESIDUAL: false,
      SATURATE: true,
      ROWS: 4,
      PAIRED: false,
      ACTIVATION: 0,
    },
    features: ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"],
  } as const satisfies KernelLiteral;
}

type AnyConvLiteral = KernelLiteral & {
  readonly params: typeof params;
  readonly bindings: Readonly<Record<keyof ConvLiteral["bindings"], Binding>>;
};

const VEC4S = "array<vec4<Element>>";
const kernels = {
  conv2d: defineKernel(literal("conv2d", code, VEC4S)),
  conv2d_depthwise: defineKernel(literal("conv2d_depthwise", codeDepthwise, VEC4S)),
  conv2d_depthwise_sliding: defineKernel(
    literal("conv2d_depthwise_sliding", codeDepthwiseSliding, VEC4S),
  ),
  conv2d_grouped: defineKernel(literal("conv2d_grouped", codeGrouped, "array<Element>")),
  conv2d_subgroup8: defineKernel(
    literal("conv2d_subgroup8", codeSubgroup8, VEC4S, ["subgroups"]),
  ),
  conv2d_subgroup8_narrow: defineKernel(
    literal("conv2d_subgroup8_narrow", codeSubgroup8Narrow, VEC4S, ["subgroups"]),
  ),
  conv2d_tiled: defineKernel(literal("conv2d_tiled", codeTiled, VEC4S)),
  conv2d_tensor8: defineKernel(tensorLiteral("conv2d_tensor8", codeTensor8)),
  conv2d_tensor16: defineKernel(tensorLiteral("conv2d_tensor16", codeTensor16)),
};

/** A kernel of the family, by its entry point, or the several of conv2d_winograd.ts, or those of matmul.ts. */
export type Conv2dKernel = keyof typeof kernels | "conv2d_winograd" | "matmul";

/** What a convolution is, as far as it is known when a model is loaded. */
export interface Conv2dShape {
  /** Input and output channels, without padding. */
  readonly channels: number;
  readonly outChannels: number;
  readonly kernelHeight: number;
  readonly kernelWidth: number;
  readonly groups?: number;
  readonly strideY?: number;
  readonly strideX?: number;
  readonly dilationY?: number;
  readonly dilationX?: number;
}

export interface Conv2dOptions extends Conv2dShape {
  /** Of all tensors; sums are f32 always. f16 needs "shader-f16". */
  readonly type?: "f32" | "f16";
  readonly activation?: Activation;
  /** Whether there is a bias, and something to add before the activation. */
  readonly bias?: boolean;
  readonly residual?: boolean;
  /** Output pixels of all images together that are expected, by which a kernel is chosen too. */
  readonly pixels?: number;
  /** Instead of the one that suits the adapter. */
  readonly kernel?: Conv2dKernel;
}

/** Zero padding in pixels; less than nothing cuts off. */
export interface Pads {
  readonly top?: number;
  readonly left?: number;
  readonly bottom?: number;
  readonly right?: number;
}

/** One kernel that does all. */
interface Direct {
  readonly pipeline: Pipeline<AnyConvLiteral>;
  /** Pixels and vec4s of output channels that a workgroup computes, where it computes a tile. */
  readonly tile?: { readonly pixels: number; readonly columns: number };
}

/** A product of pixels and weights, and what computes it where pads or strides are in the way. */
interface Product {
  readonly product: CompiledMatmul;
  readonly otherwise: CompiledConv2d;
}

/** A convolution that was compiled: `recordConv2d` dispatches it. */
export interface CompiledConv2d {
  readonly kernel: Conv2dKernel;
  readonly options: Required<Conv2dShape> & {
    readonly type: "f32" | "f16";
    readonly bias: boolean;
    readonly residual: boolean;
    readonly activation: ReturnType<typeof activationOf>;
  };
  readonly runs: Direct | Product | CompiledWinograd;
}

/** What of an adapter decides over kernels: `Gpu` has it. */
export interface Conv2dAdapter {
  readonly features: ReadonlySet<string>;
  readonly subgroupSize: number | undefined;
  readonly adapter: { readonly isSoftware: boolean };
  readonly subgroupMatrixConfigs: readonly SubgroupMatrixConfig[];
}

/** Channels with their padding: the next multiple of four. */
export function paddedChannels(channels: number): number {
  return Math.ceil(channels / 4) * 4;
}

/** Channels of a group as kernels count them: one group alone is padded, several are as they are. */
function groupChannels(channels: number, groups: number): number {
  return groups === 1 ? paddedChannels(channels) : channels / groups;
}

/** The kernels that can compute a shape on an adapter, the fastest first. */
export function conv2dKernels(adapter: Conv2dAdapter, options: Conv2dOptions): Conv2dKernel[] {
  const kernels = convolutionKernels(adapter, options);
  const { channels, outChannels, groups = 1, type } = options;
  const { kernelHeight, kernelWidth, strideY = 1, strideX = 1 } = options;
  // A product does not clear padding channels.
  const isProduct = [groups, kernelHeight, kernelWidth, strideY, strideX].every((n) => n === 1) &&
    outChannels % 4 === 0;
  if (!isProduct) return kernels;
  // These are made for few channels, and the tensor kernels for such as are no multiple of eight.
  const fits = !["conv2d", "conv2d_subgroup8_narrow"].includes(kernels[0]!) &&
    (type !== "f16" || adapter.subgroupMatrixConfigs.length === 0 ||
      [paddedChannels(channels), outChannels].every((n) => n % 8 === 0));
  return fits ? ["matmul", ...kernels] : [...kernels, "matmul"];
}

/** The same without products. */
function convolutionKernels(
  { features, subgroupSize, adapter, subgroupMatrixConfigs }: Conv2dAdapter,
  options: Conv2dOptions,
): Conv2dKernel[] {
  const { channels, outChannels, groups = 1, type = "f32", pixels = Infinity } = options;
  const { kernelHeight, kernelWidth, strideY = 1, strideX = 1 } = options;
  const { dilationY = 1, dilationX = 1 } = options;
  const each = groupChannels(channels, groups);
  const outEach = groupChannels(outChannels, groups);
  if (each === 1 && outEach === 1) {
    const depthwise: Conv2dKernel[] = ["conv2d_depthwise", "conv2d_grouped"];
    // What a slide saves is as much as the filter is wide.
    if (strideX === 1 && dilationX === 1) {
      depthwise.splice(kernelWidth > 1 ? 0 : 1, 0, "conv2d_depthwise_sliding");
    }
    return depthwise;
  }
  if (each % 4 !== 0 || outEach % 4 !== 0) return ["conv2d_grouped"];

  const multiplies = (side: number) =>
    type === "f16" && features.has("subgroups") &&
    subgroupMatrixConfigs.some(({ componentType, resultComponentType, M, N, K }) =>
      componentType === "f16" && resultComponentType === "f32" && [M, N, K].every((n) => n === side)
    );
  const tensor: Conv2dKernel[] = [];
  if (multiplies(16) && subgroupSize === 32) tensor.push("conv2d_tensor16");
  if (multiplies(8) && subgroupSize === 8) tensor.push("conv2d_tensor8");
  const isWinograd = groups === 1 && Math.max(each, outEach) <= WINOGRAD_CHANNELS &&
    kernelHeight === 3 && kernelWidth === 3 &&
    [strideY, strideX, dilationY, dilationX].every((step) => step === 1);
  const winograd: Conv2dKernel[] = isWinograd ? ["conv2d_winograd"] : [];
  // Those of large tiles leave most of one idle where a group has few channels to store.
  const isNarrow = outEach <= 16;

  if (!adapter.isSoftware) {
    const large: Conv2dKernel[] = [...tensor, "conv2d_tiled"];
    return isNarrow
      ? ["conv2d", ...large, ...winograd, "conv2d_grouped"]
      : [...large, "conv2d", ...winograd, "conv2d_grouped"];
  }
  // Workgroup memory is slow there, and matrices are multiplied no faster than by other means.
  const slow: Conv2dKernel[] = ["conv2d", "conv2d_tiled", ...tensor, "conv2d_grouped"];
  if (subgroupSize !== 8 || !features.has("subgroups")) return [...slow, ...winograd];
  const direct: Conv2dKernel[] = isNarrow
    ? ["conv2d_subgroup8_narrow", "conv2d_subgroup8"]
    : ["conv2d_subgroup8", "conv2d_subgroup8_narrow"];
  // Measured: over fewer pixels its weights, four times as many, cost more than it saves.
  return isWinograd && Math.min(each, outEach) >= 32 && pixels >= 128
    ? [...winograd, ...direct, ...slow]
    : [...direct, ...winograd, ...slow];
}

/**
 * Options with their defaults.
 * @throws {RangeError} where sizes are no whole numbers or groups do not divide the channels.
 */
export function resolveConv2d(options: Conv2dOptions): CompiledConv2d["options"] {
  const { channels, outChannels, kernelHeight, kernelWidth, groups = 1 } = options;
  const { strideY = 1, strideX = 1, dilationY = 1, dilationX = 1 } = options;
  const { type = "f32", bias = false, residual = false, activation = "identity" } = options;
  const whole = [channels, outChannels, groups, strideY, strideX, dilationY, dilationX];
  if (
    !whole.every((size) => Number.isSafeInteger(size) && size > 0) ||
    ![kernelHeight, kernelWidth].every((size) => Number.isSafeInteger(size) && size >= 0) ||
    channels % groups !== 0 || outChannels % groups !== 0
  ) {
    throw new RangeError(
      `Cannot convolve ${channels} channels into ${outChannels} in ${groups} groups by ` +
        `${kernelHeight} × ${kernelWidth}, strides ${strideY} and ${strideX}, dilations ` +
        `${dilationY} and ${dilationX}: whole numbers are needed, and groups that divide the channels`,
    );
  }
  return {
    ...{ channels, outChannels, kernelHeight, kernelWidth, groups },
    ...{ strideY, strideX, dilationY, dilationX, type, bias, residual },
    activation: activationOf(activation),
  };
}

/**
 * Compiles the kernel that suits shape and adapter, or the one asked for.
 * @throws {RangeError} where the shape is none or the kernel asked for cannot compute it here.
 * @throws {KernelError} where the device fails.
 */
export async function compileConv2d(gpu: Gpu, given: Conv2dOptions): Promise<CompiledConv2d> {
  const options = resolveConv2d(given);
  const { channels, outChannels, groups, type, bias, residual, activation } = options;
  const able = conv2dKernels(gpu, given);
  const name = given.kernel ?? able[0]!;
  if (!able.includes(name)) {
    throw new RangeError(
      `Cannot convolve ${channels} channels into ${outChannels} by "${name}": shape or adapter ` +
        `leave ${able.join(", ")}`,
    );
  }
  const compiled = { kernel: name, options };
  if (name === "conv2d_winograd") {
    const [padded, out] = [paddedChannels(channels), paddedChannels(outChannels)];
    return { ...compiled, runs: await compileWinograd(gpu, options, padded, out) };
  }
  if (name === "matmul") {
    const [product, otherwise] = await Promise.all([
      compileMatmul(gpu, {
        type,
        bias: bias ? "columns" : "none",
        residual: residual ? "before" : "none",
        activation: given.activation,
        shape: [given.pixels ?? 4096, paddedChannels(channels), outChannels],
      }),
      compileConv2d(gpu, { ...given, kernel: convolutionKernels(gpu, given)[0]! }),
    ]);
    return { ...compiled, runs: { product, otherwise } };
  }
  const overrides = { BIAS: bias, RESIDUAL: residual, ACTIVATION: activation.code };
  if (name === "conv2d_tensor16" || name === "conv2d_tensor8") {
    const side = name === "conv2d_tensor16" ? 16 : 8;
    // Eight subgroups, each 4 × 2 matrices: two rows of them where there are channels enough.
    const ROWS = groupChannels(outChannels, groups) > 4 * side ? 2 : 4;
    const PAIRED = groupChannels(channels, groups) % 8 === 0;
    const pipeline = await kernels[name].compile(gpu, { ...overrides, ROWS, PAIRED });
    const tile = { pixels: ROWS * 4 * side, columns: 8 / ROWS * 2 * side / 4 };
    return { ...compiled, runs: { pipeline, tile } };
  }
  const pipeline = await (kernels[name] as Kernel<ConvLiteral>).compile(gpu, {
    ...overrides,
    SATURATE: type === "f16",
  }, { Element: type });
  return { ...compiled, runs: { pipeline, tile: TILES[name] } };
}

const TILES: Partial<Record<Conv2dKernel, Direct["tile"]>> = {
  conv2d_subgroup8: { pixels: 32, columns: 8 },
  conv2d_subgroup8_narrow: { pixels: 32, columns: 2 },
  conv2d_tiled: { pixels: 128, columns: 16 },
};

/**
 * Weights as the kernel reads them, which need not be compiled yet: `conv2dKernels` and
 * `resolveConv2d` say which it is.
 * @param weights [O, C/groups, KH, KW], as ONNX has them.
 * @returns [KH, KW, C/groups, O], O padded with zeros to a multiple of four, and so C where there is
 * one group; [36, C, O] in f32 for Winograd's. Upload it with `Tensor.from`.
 * @throws {RangeError} where the number of weights is not that of the shape.
 */
export function packConv2dWeights(
  { kernel, options }: Pick<CompiledConv2d, "kernel" | "options">,
  weights: ArrayLike<number>,
): { data: Float32Array<ArrayBuffer> | Float16Array<ArrayBuffer>; shape: number[] } {
  const { channels, outChannels, kernelHeight, kernelWidth, groups, type } = options;
  const each = channels / groups;
  const taps = kernelHeight * kernelWidth;
  if (weights.length !== outChannels * each * taps) {
    throw new RangeError(
      `Cannot pack ${weights.length} weights: [${outChannels}, ${each}, ${kernelHeight}, ` +
        `${kernelWidth}] has ${outChannels * each * taps}`,
    );
  }
  const padded = [paddedChannels(channels), paddedChannels(outChannels)] as const;
  if (kernel === "conv2d_winograd") {
    return packWinogradWeights(weights, [outChannels, channels], padded);
  }
  const shape = weightsShape(kernel, options);
  const [, , rows, columns] = shape as [number, number, number, number];
  const data = new Float32Array(taps * rows * columns);
  const source = weights instanceof Float32Array ? weights : Float32Array.from(weights);
  // A cache line of output channels at a time: one channel after the other would touch each line
  // sixteen times.
  const filter = each * taps;
  for (let first = 0; first < outChannels; first += 16) {
    const end = Math.min(first + 16, outChannels);
    for (let c = 0; c < each; c++) {
      for (let tap = 0; tap < taps; tap++) {
        const to = (tap * rows + c) * columns;
        let from = first * filter + c * taps + tap;
        for (let o = first; o < end; o++, from += filter) data[to + o] = source[from]!;
      }
    }
  }
  return { data: type === "f16" ? new Float16Array(data) : data, shape };
}

function weightsShape(
  kernel: Conv2dKernel,
  { channels, outChannels, kernelHeight, kernelWidth, groups }: CompiledConv2d["options"],
): number[] {
  if (kernel === "conv2d_winograd") {
    return [36, paddedChannels(channels), paddedChannels(outChannels)];
  }
  return [kernelHeight, kernelWidth, groupChannels(channels, groups), paddedChannels(outChannels)];
}

/**
 * Output pixels along an axis: ⌊(size + pads − dilation·(kernel − 1) − 1) / stride⌋ + 1 (ONNX
 * Conv-11), at least 0.
 * @param pads on both sides together.
 */
export function convolvedSize(
  size: number,
  kernel: number,
  stride = 1,
  pads = 0,
  dilation = 1,
): number {
  return Math.max(0, Math.floor((size + pads - dilation * (kernel - 1) - 1) / stride) + 1);
}

/** What a convolution reads and writes; bias and residual where it was compiled with them. */
export interface Conv2dTensors {
  readonly input: Tensor;
  readonly weights: Tensor;
  readonly bias?: Tensor;
  readonly residual?: Tensor;
  readonly output: Tensor;
}

/**
 * Records `output = act(bias + input ∗ weights + residual)`: input [N, H, W, C], weights as
 * `packConv2dWeights` makes them, bias [O], residual and output [N, OH, OW, O], C and O padded to
 * multiples of four, all of the compiled type. Padding channels of the output become zero; those of
 * the input are multiplied with weights of zero, so that they must be finite. What overflows f16 is
 * stored as ±65504.
 * @throws {RangeError} where the shapes do not fit together.
 */
export function recordConv2d(
  recorder: Recorder,
  compiled: CompiledConv2d,
  tensors: Conv2dTensors,
  { top = 0, left = 0, bottom = 0, right = 0 }: Pads = {},
): void {
  const { kernelHeight, kernelWidth, strideY, strideX, dilationY, dilationX } = compiled.options;
  const [, height = 0, width = 0] = tensors.input.shape;
  const outHeight = convolvedSize(height, kernelHeight, strideY, top + bottom, dilationY);
  const outWidth = convolvedSize(width, kernelWidth, strideX, left + right, dilationX);
  checkConv2d(compiled, tensors, outHeight, outWidth);
  dispatchConv2d(recorder, compiled, tensors, { outHeight, outWidth, top, left });
}

/** @throws {RangeError} where a tensor is not what the convolution reads or writes. */
export function checkConv2d(
  { kernel, options }: CompiledConv2d,
  { input, weights, bias, residual, output }: Conv2dTensors,
  outHeight: number,
  outWidth: number,
): void {
  const out = paddedChannels(options.outChannels);
  const [images = 0, height = 0, width = 0] = input.shape;
  const outShape = [images, outHeight, outWidth, out];
  for (
    const [name, tensor, shape] of [
      ["input", input, [images, height, width, paddedChannels(options.channels)]],
      ["weights", weights, weightsShape(kernel, options)],
      ["bias", bias, options.bias ? [out] : undefined],
      ["residual", residual, options.residual ? outShape : undefined],
      ["output", output, outShape],
    ] as const
  ) {
    const type = name === "weights" && kernel === "conv2d_winograd" ? "f32" : options.type;
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
}

/** Where a convolution reads and stores. */
export interface Conv2dPlace {
  /** Pixels that are computed. */
  readonly outHeight: number;
  readonly outWidth: number;
  /** Padding before the first pixel. */
  readonly top: number;
  readonly left: number;
  /** Pixel (y, x) is stored at (y · stepY + fromY, x · stepX + fromX): a transposed one's phases. */
  readonly stepY?: number;
  readonly stepX?: number;
  readonly fromY?: number;
  readonly fromX?: number;
}

/** Records the dispatches of tensors that were checked. */
export function dispatchConv2d(
  recorder: Recorder,
  { kernel, options, runs }: CompiledConv2d,
  tensors: Conv2dTensors,
  place: Conv2dPlace,
): void {
  if ("matmul" in runs) {
    dispatchWinograd(recorder, runs, options, tensors, place);
    return;
  }
  if ("product" in runs) {
    if (isEveryPixel(tensors, place)) dispatchProduct(recorder, runs.product, tensors);
    else dispatchConv2d(recorder, runs.otherwise, tensors, place);
    return;
  }
  const { input, weights, bias = weights, residual = input, output } = tensors;
  const { outHeight, outWidth, top, left } = place;
  const { channels, outChannels, groups } = options;
  const [images = 0, height = 0, width = 0, paddedIn = 0] = input.shape;
  const [, storedHeight = 0, storedWidth = 0, paddedOut = 0] = output.shape;
  const args: Arguments<AnyConvLiteral> = {
    params: {
      images,
      height,
      width,
      channels4: paddedIn / 4,
      out_height: outHeight,
      out_width: outWidth,
      out_channels: outChannels,
      out_channels4: paddedOut / 4,
      group_channels: groupChannels(channels, groups),
      group_out_channels: groupChannels(outChannels, groups),
      kernel_height: options.kernelHeight,
      kernel_width: options.kernelWidth,
      stride_y: options.strideY,
      stride_x: options.strideX,
      pad_y: top,
      pad_x: left,
      dilation_y: options.dilationY,
      dilation_x: options.dilationX,
      stored_height: storedHeight,
      stored_width: storedWidth,
      step_y: place.stepY ?? 1,
      step_x: place.stepX ?? 1,
      from_y: place.fromY ?? 0,
      from_x: place.fromX ?? 0,
      a: options.activation.a,
      b: options.activation.b,
    },
    // A binding that is not read has to be bound nevertheless.
    bindings: { input, weights, bias, residual, output },
  };
  recorder.dispatch(
    runs.pipeline,
    args,
    gridOf(recorder.gpu, kernel, runs.tile, place, args.params),
  );
}

/** Whether each input pixel becomes the output pixel at its place. */
function isEveryPixel(
  { input, output }: Conv2dTensors,
  { top, left, stepY = 1, stepX = 1 }: Conv2dPlace,
): boolean {
  return top === 0 && left === 0 && stepY === 1 && stepX === 1 &&
    input.shape.slice(0, 3).join() === output.shape.slice(0, 3).join();
}

/** Records a 1 × 1 convolution as the product of pixels and weights. */
function dispatchProduct(
  recorder: Recorder,
  compiled: CompiledMatmul,
  { input, weights, bias, residual, output }: Conv2dTensors,
): void {
  const rows = ({ shape }: Tensor) => [shape[0]! * shape[1]! * shape[2]!, shape[3]!];
  recordMatmul(recorder, compiled, {
    a: input.view(rows(input)),
    b: weights.view(weights.shape.slice(2)),
    bias,
    residual,
    product: output.view(rows(output)),
  });
}

/** What a kernel's file says of its workgroups. */
function gridOf(
  gpu: Gpu,
  kernel: Conv2dKernel,
  tile: Direct["tile"],
  { outHeight, outWidth }: Conv2dPlace,
  { images, out_channels4, group_out_channels }: Arguments<AnyConvLiteral>["params"],
): [number, number, number] {
  const pixels = images * outHeight * outWidth;
  const quads = images * outHeight * Math.ceil(outWidth / 4);
  const row = (count: number) => rowOfWorkgroups(gpu, Math.ceil(count));
  if (tile !== undefined) {
    const columns = group_out_channels / 4;
    const tiles = out_channels4 / columns * Math.ceil(columns / tile.columns);
    return [...row(pixels / tile.pixels), tiles];
  }
  switch (kernel) {
    case "conv2d_depthwise":
      return [...row(quads * out_channels4 / 64), 1];
    case "conv2d_depthwise_sliding":
      return [...row(images * outHeight * Math.ceil(outWidth / 8) * out_channels4 / 64), 1];
    case "conv2d_grouped":
      return [...row(pixels * out_channels4 / 64), 1];
    default:
      return [...row(quads / 64), out_channels4];
  }
}
