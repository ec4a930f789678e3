/**
 * 3 × 3 convolution of stride 1 by Winograd's F(4 × 4, 3 × 3): 36 products for 16 output pixels where
 * 144 are needed otherwise, as one batch of 36 matrix products between two transforms (Lavin & Gray,
 * «Fast Algorithms for Convolutional Neural Networks», 2015). What is between lies in f32, also
 * where f16 is stored, as the transforms enlarge it up to a hundredfold.
 */

import codeInput from "./winograd_input.wgsl" with { type: "text" };
import codeOutput from "./winograd_output.wgsl" with { type: "text" };
import type { CompiledConv2d, Conv2dPlace, Conv2dTensors } from "./conv2d.ts";
import type { Gpu } from "./device.ts";
import { defineKernel, type Pipeline, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import { type CompiledMatmul, compileMatmul, recordMatmul } from "./matmul.ts";
import { Tensor } from "./tensor.ts";

export const winogradInputKernel = defineKernel({
  name: "winograd_input",
  code: codeInput,
  params: {
    height: "u32",
    width: "u32",
    channels4: "u32",
    tiles_y: "u32",
    tiles_x: "u32",
    first_tile: "u32",
    tiles: "u32",
    pad_y: "i32",
    pad_x: "i32",
  },
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    transformed: { type: "array<vec4<f32>>", access: "read_write" },
  },
  overrides: {},
  aliases: { Element: ["f32", "f16"] },
});

export const winogradOutputKernel = defineKernel({
  name: "winograd_output",
  code: codeOutput,
  params: {
    tiles_y: "u32",
    tiles_x: "u32",
    first_tile: "u32",
    tiles: "u32",
    out_height: "u32",
    out_width: "u32",
    out_channels: "u32",
    out_channels4: "u32",
    stored_height: "u32",
    stored_width: "u32",
    step_y: "u32",
    step_x: "u32",
    from_y: "u32",
    from_x: "u32",
    a: "f32",
    b: "f32",
  },
  bindings: {
    products: { type: "array<vec4<f32>>", access: "read" },
    bias: { type: "array<vec4<Element>>", access: "read" },
    residual: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<Element>>", access: "read_write" },
  },
  overrides: { BIAS: false, RESIDUAL: false, SATURATE: false, ACTIVATION: 0 },
  aliases: { Element: ["f32", "f16"] },
});

/** Matrices of a transformed tile. */
const MATRICES = 36;

/** Bytes of either scratch tensor: as many tiles go through at a time as it holds. */
const SCRATCH_BYTES = 1 << 24;

/** Transformed input and products, which all convolutions of a device share: they run one after the other. */
const scratches = new WeakMap<Gpu, Record<"transformed" | "products", Tensor>>();

function scratchOf(gpu: Gpu): Record<"transformed" | "products", Tensor> {
  let scratch = scratches.get(gpu);
  if (scratch === undefined) {
    const tensor = (label: string) => new Tensor(gpu, "f32", [SCRATCH_BYTES / 4], label);
    scratch = { transformed: tensor("transformed"), products: tensor("products") };
    scratches.set(gpu, scratch);
  }
  return scratch;
}

/** What `dispatchWinograd` runs. */
export interface CompiledWinograd {
  readonly input: Pipeline<typeof winogradInputKernel.literal>;
  readonly matmul: CompiledMatmul;
  readonly output: Pipeline<typeof winogradOutputKernel.literal>;
  /** Tiles that go through at a time. */
  readonly tiles: number;
}

/** Most channels of input or output: fewer than 32 tiles at a time would starve the matrix product. */
export const WINOGRAD_CHANNELS = SCRATCH_BYTES / 4 / MATRICES / 32;

/** Compiles both transforms and the product between. @throws {KernelError} where the device fails. */
export async function compileWinograd(
  gpu: Gpu,
  { type, bias, residual, activation }: CompiledConv2d["options"],
  channels: number,
  outChannels: number,
): Promise<CompiledWinograd> {
  const most = Math.floor(SCRATCH_BYTES / 4 / MATRICES / Math.max(channels, outChannels));
  const tiles = most & ~31;
  const [input, matmul, output] = await Promise.all([
    winogradInputKernel.compile(gpu, {}, { Element: type }),
    compileMatmul(gpu, { shape: [tiles, channels, outChannels] }),
    winogradOutputKernel.compile(gpu, {
      BIAS: bias,
      RESIDUAL: residual,
      SATURATE: type === "f16",
      ACTIVATION: activation.code,
    }, { Element: type }),
  ]);
  return { input, matmul, output, tiles };
}

/** G · w for the three weights of a column or row, from `at` and every `step` on; into[to], into[to + stride], … */
function transformWeights(
  from: Float64Array,
  at: number,
  step: number,
  into: Float64Array,
  to: number,
  stride: number,
): void {
  const a = from[at]!, b = from[at + step]!, c = from[at + 2 * step]!;
  into[to] = a / 4;
  into[to + stride] = -(a + b + c) / 6;
  into[to + 2 * stride] = -(a - b + c) / 6;
  into[to + 3 * stride] = a / 24 + b / 12 + c / 6;
  into[to + 4 * stride] = a / 24 - b / 12 + c / 6;
  into[to + 5 * stride] = c;
}

/**
 * The matrices G · w · Gᵀ.
 * @param weights [O, C, 3, 3], as ONNX has them.
 * @returns [36, C, O], C and O padded with zeros to `rows` and `columns`.
 */
export function packWinogradWeights(
  weights: ArrayLike<number>,
  [outChannels, channels]: readonly [number, number],
  [rows, columns]: readonly [number, number],
): { data: Float32Array<ArrayBuffer>; shape: number[] } {
  const data = new Float32Array(MATRICES * rows * columns);
  const source = weights instanceof Float32Array ? weights : Float32Array.from(weights);
  const filter = new Float64Array(9);
  const down = new Float64Array(18);
  const across = new Float64Array(MATRICES);
  // A cache line of output channels at a time.
  for (let first = 0; first < outChannels; first += 16) {
    const end = Math.min(first + 16, outChannels);
    for (let c = 0; c < channels; c++) {
      for (let o = first; o < end; o++) {
        const at = (o * channels + c) * 9;
        for (let i = 0; i < 9; i++) filter[i] = source[at + i]!;
        for (let j = 0; j < 3; j++) transformWeights(filter, j, 3, down, j, 3);
        for (let i = 0; i < 6; i++) transformWeights(down, 3 * i, 1, across, 6 * i, 1);
        for (let i = 0, to = c * columns + o; i < MATRICES; i++, to += rows * columns) {
          data[to] = across[i]!;
        }
      }
    }
  }
  return { data, shape: [MATRICES, rows, columns] };
}

/** Records the transforms and products of tensors that were checked. */
export function dispatchWinograd(
  recorder: Recorder,
  { input: inputPipeline, matmul, output: outputPipeline, tiles: most }: CompiledWinograd,
  { outChannels, activation }: CompiledConv2d["options"],
  { input, weights, bias = weights, residual = input, output }: Conv2dTensors,
  { outHeight, outWidth, top, left, stepY = 1, stepX = 1, fromY = 0, fromX = 0 }: Conv2dPlace,
): void {
  const [images = 0, height = 0, width = 0, channels = 0] = input.shape;
  const [, storedHeight = 0, storedWidth = 0, out = 0] = output.shape;
  const tilesY = Math.ceil(outHeight / 4), tilesX = Math.ceil(outWidth / 4);
  const all = images * tilesY * tilesX;
  const { gpu } = recorder;
  const scratch = scratchOf(gpu);
  for (let first = 0; first < all; first += most) {
    const tiles = Math.min(most, all - first);
    const transformed = scratch.transformed.place("f32", [MATRICES, tiles, channels]);
    const products = scratch.products.place("f32", [MATRICES, tiles, out]);
    const where = { tiles_y: tilesY, tiles_x: tilesX, first_tile: first, tiles };
    recorder.dispatch(inputPipeline, {
      params: { height, width, channels4: channels / 4, ...where, pad_y: top, pad_x: left },
      bindings: { input, transformed },
    }, rowOfWorkgroups(gpu, Math.ceil(tiles * channels / 4 / 64)));
    recordMatmul(recorder, matmul, { a: transformed, b: weights, product: products });
    recorder.dispatch(outputPipeline, {
      params: {
        ...where,
        ...{ out_height: outHeight, out_width: outWidth },
        ...{ out_channels: outChannels, out_channels4: out / 4 },
        ...{ stored_height: storedHeight, stored_width: storedWidth },
        ...{ step_y: stepY, step_x: stepX, from_y: fromY, from_x: fromX },
        ...{ a: activation.a, b: activation.b },
      },
      bindings: { products, bias, residual, output },
    }, rowOfWorkgroups(gpu, Math.ceil(tiles * out / 4 / 64)));
  }
}
