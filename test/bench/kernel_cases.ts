/** What is benched of each kernel: shapes that models and slides really have, seeded inputs. */

import { compileAttention, recordAttention, tokensFirst } from "../../kernels/attention.ts";
import { type CompiledCopy, compileExpand, recordCopy } from "../../kernels/copy.ts";
import {
  compileBinary,
  compileUnary,
  recordBinary,
  recordUnary,
} from "../../kernels/elementwise.ts";
import { compileReduce, recordReduce } from "../../kernels/reduce.ts";
import { compileSoftmax, recordSoftmax } from "../../kernels/softmax.ts";
import { countOf } from "../../kernels/strides.ts";
import { compileToChannelsLast, compileTranspose } from "../../kernels/transpose.ts";
import { compileComponents, COMPONENT_FIELDS, recordComponents } from "../../kernels/components.ts";
import {
  compileConv2d,
  type Conv2dOptions,
  convolvedSize,
  packConv2dWeights,
  paddedChannels,
  recordConv2d,
} from "../../kernels/conv2d.ts";
import { contourMarksKernel, recordContourMarks } from "../../kernels/contour_marks.ts";
import type { Gpu } from "../../kernels/device.ts";
import { compileGroupNorm, groupMomentsShape, recordGroupNorm } from "../../kernels/group_norm.ts";
import { compileIsolines, recordIsolines } from "../../kernels/isolines.ts";
import type { Recorder } from "../../kernels/kernel.ts";
import { compileLayerNorm, recordLayerNorm } from "../../kernels/layer_norm.ts";
import {
  compileMatmul,
  type MatmulOptions,
  type MatmulShape,
  recordMatmul,
  tuneMatmul,
} from "../../kernels/matmul.ts";
import {
  compileNormalise,
  HAEMATOXYLIN_EOSIN,
  meanStd,
  type Normalisation,
  type NormaliseOptions,
  recordNormalise,
} from "../../kernels/normalise.ts";
import { compilePeaks, peakCapacity, recordPeaks } from "../../kernels/peaks.ts";
import {
  compileGlobalPool,
  compilePool,
  pooledShape,
  recordGlobalPool,
  recordPool,
} from "../../kernels/pool.ts";
import { compileResize, recordResize, resizedAxes } from "../../kernels/resize.ts";
import { stainHistogramKernel, TISSUE_LEVELS } from "../../kernels/stain.ts";
import { recordSuppressPoints, suppressPointsKernel } from "../../kernels/suppress.ts";
import { bytesOf, type ElementType, Tensor, type TensorData } from "../../kernels/tensor.ts";
import { randomTensor, type Tuner } from "../../kernels/tuner.ts";
import { bytes, floats } from "../reference/random.ts";

/** Tensors of one case, freed together: on a GPU they are larger than its caches. */
export class Workspace {
  readonly #tensors: Tensor[] = [];

  constructor(readonly tuner: Tuner) {}

  get gpu(): Gpu {
    return this.tuner.gpu;
  }

  tensor(type: ElementType, shape: readonly number[]): Tensor {
    return this.#kept(new Tensor(this.gpu, type, shape));
  }

  from(data: TensorData, shape: readonly number[]): Tensor {
    return this.#kept(Tensor.from(this.gpu, data, shape));
  }

  random(type: "f32" | "f16", shape: readonly number[]): Tensor {
    return this.#kept(randomTensor(this.gpu, type, shape));
  }

  #kept(tensor: Tensor): Tensor {
    this.#tensors.push(tensor);
    return tensor;
  }

  destroy(): void {
    for (const tensor of this.#tensors) tensor.destroy();
  }
}

/** The same work for another library; shapes channels-last, as ours are. */
export type PeerTask =
  & { readonly type: "f32" | "f16" }
  & (
    | {
      readonly op: "matmul";
      readonly rows: number;
      readonly inner: number;
      readonly columns: number;
      readonly bias: boolean;
      readonly residual: boolean;
      readonly activation?: "relu" | "gelu";
    }
    | {
      readonly op: "conv2d";
      readonly input: readonly [number, number, number, number];
      readonly kernel: readonly [number, number];
      readonly outChannels: number;
      readonly stride: number;
      readonly groups: number;
    }
    | { readonly op: "relu" | "gelu" | "softmax" | "layer_norm"; readonly shape: readonly number[] }
    | { readonly op: "copy" | "channels_last"; readonly shape: readonly number[] }
    | { readonly op: "add"; readonly shape: readonly number[]; readonly right: readonly number[] }
    | { readonly op: "mean" | "transpose"; shape: readonly number[]; axes: readonly number[] }
    | { readonly op: "max_pool" | "global_average"; readonly shape: readonly number[] }
    | { readonly op: "resize"; shape: readonly number[]; readonly mode: "nearest" | "linear" }
    | { readonly op: "group_norm"; readonly shape: readonly number[]; readonly groups: number }
    | { readonly op: "attention"; batch: number; heads: number; tokens: number; size: number }
    | { readonly op: "normalise"; readonly shape: readonly number[] }
  );

export interface KernelCase {
  readonly name: string;
  /** Floating-point operations of one run, where they are what its rate is told in. */
  readonly operations?: number;
  /** Bytes that one run must read and write at least, each once. */
  readonly bytes: number;
  /** What the operations are done in: f16 has subgroup matrices where the adapter has them. */
  readonly type?: "f32" | "f16";
  /** How often ResNet-50 has this convolution. */
  readonly inResnet50?: number;
  readonly peer?: PeerTask;
  /** Makes inputs on the device and gives what records one run. */
  prepare(on: Workspace): Promise<(recorder: Recorder) => void>;
}

/** [M, K] · [K, N], with what follows it in the model that the shape is of; tiles are picked by timing. */
function matmulCase(
  of: string,
  shape: MatmulShape,
  options: MatmulOptions = {},
): KernelCase {
  const { type = "f32" } = options;
  const [rows, inner, columns] = shape;
  return {
    name: `matmul ${type} ${of}`,
    operations: 2 * rows * inner * columns,
    bytes: bytesOf(type) *
      (rows * inner + inner * columns + rows * columns * (options.residual ? 2 : 1)),
    type,
    peer: {
      ...{ op: "matmul", type, rows, inner, columns },
      bias: options.bias !== undefined,
      residual: options.residual !== undefined,
      activation: options.activation as "relu" | "gelu" | undefined,
    },
    async prepare(on) {
      const tile = await tuneMatmul(on.tuner, options, shape);
      const compiled = await compileMatmul(on.gpu, { ...options, shape, tile });
      const product = on.tensor(type, [rows, columns]);
      const tensors = {
        a: on.random(type, [rows, inner]),
        b: on.random(type, options.transposeB ? [columns, inner] : [inner, columns]),
        ...(options.bias && { bias: on.random(type, [columns]) }),
        ...(options.residual && { residual: on.random(type, product.shape) }),
        product,
      };
      return (recorder) => recordMatmul(recorder, compiled, tensors);
    },
  };
}

/** Products of one type: squares, ViT-S's of 197 tokens, ResNet-50's last layers of 1×1. */
function matmulCases(type: "f32" | "f16", large: boolean): KernelCase[] {
  const images = large ? 64 : 1;
  const of = large ? `, batch ${images}` : "";
  return [
    matmulCase("1000³", [1000, 1000, 1000], { type }),
    ...(large ? [matmulCase("4096³", [4096, 4096, 4096], { type })] : []),
    matmulCase(`ViT-S projection${of}`, [197 * images, 384, 384], {
      ...{ type, bias: "columns", residual: "after" },
    }),
    matmulCase(`ViT-S first of MLP${of}`, [197 * images, 384, 1536], {
      ...{ type, bias: "columns", activation: "gelu", transposeB: true },
    }),
    matmulCase(`ResNet-50 1×1 512→2048, 7×7${of}`, [49 * images, 512, 2048], {
      ...{ type, bias: "columns", residual: "before", activation: "relu" },
    }),
    matmulCase(`ResNet-50 classes${of}`, [images, 2048, 1000], { type, bias: "columns" }),
  ];
}

function convCase(
  name: string,
  [images, height, width, channels]: readonly [number, number, number, number],
  [kernelHeight, kernelWidth, outChannels]: readonly [number, number, number],
  { type = "f32", groups = 1, stride = 1, inResnet50 }: {
    type?: Conv2dOptions["type"];
    groups?: number;
    stride?: number;
    inResnet50?: number;
  } = {},
): KernelCase {
  const padY = (kernelHeight - 1) / 2, padX = (kernelWidth - 1) / 2;
  const outHeight = convolvedSize(height, kernelHeight, stride, 2 * padY);
  const outWidth = convolvedSize(width, kernelWidth, stride, 2 * padX);
  const pixels = images * outHeight * outWidth;
  const taps = kernelHeight * kernelWidth;
  return {
    name: `conv2d ${type} ${name}`,
    operations: 2 * pixels * outChannels * taps * channels / groups,
    // Of a 1 × 1 convolution with strides only the pixels that it looks at.
    bytes: bytesOf(type) * (Math.min(images * height * width, pixels * taps) * channels +
      outChannels * taps * channels / groups + pixels * outChannels),
    ...{ type, inResnet50 },
    peer: {
      ...{ op: "conv2d", type, input: [images, height, width, channels] },
      ...{ kernel: [kernelHeight, kernelWidth], outChannels, stride, groups },
    },
    async prepare(on) {
      const compiled = await compileConv2d(on.gpu, {
        ...{ channels, outChannels, kernelHeight, kernelWidth, groups, type, bias: true },
        ...{ strideY: stride, strideX: stride, activation: "relu" },
        pixels,
      });
      const weights = packConv2dWeights(
        compiled,
        floats(outChannels * channels / groups * taps, 2),
      );
      const out = paddedChannels(outChannels);
      const tensors = {
        input: on.random(type, [images, height, width, paddedChannels(channels)]),
        weights: on.from(weights.data, weights.shape),
        bias: on.random(type, [out]),
        output: on.tensor(type, [images, outHeight, outWidth, out]),
      };
      const pads = { top: padY, left: padX, bottom: padY, right: padX };
      return (recorder) => recordConv2d(recorder, compiled, tensors, pads);
    },
  };
}

/** ResNet-50's convolutions at 224 × 224 (He et al. 2015, table 1), each with how often it is there. */
function resnet50Cases(type: "f32" | "f16", large: boolean): KernelCase[] {
  const n = large ? 64 : 1;
  const layers = new Map<string, { in: number; out: number; k: number; s: number; side: number }>();
  const counts = new Map<string, number>();
  const layer = (side: number, k: number, s: number, input: number, out: number) => {
    const name = `${k}×${k}${s > 1 ? `/${s}` : ""} ${input}→${out}, ${side}×${side}`;
    layers.set(name, { in: input, out, k, s, side });
    counts.set(name, (counts.get(name) ?? 0) + 1);
  };
  layer(224, 7, 2, 3, 64);
  let side = 56, channels = 64;
  for (const [stage, blocks] of [3, 4, 6, 3].entries()) {
    const width = 64 << stage, out = 4 * width;
    for (let block = 0; block < blocks; block++) {
      const stride = stage > 0 && block === 0 ? 2 : 1;
      layer(side, 1, 1, channels, width);
      layer(side, 3, stride, width, width);
      if (block === 0) layer(side, 1, stride, channels, out);
      side /= stride;
      layer(side, 1, 1, width, out);
      channels = out;
    }
  }
  return [...layers].map(([name, { in: input, out, k, s, side }]) =>
    convCase(`${name}, batch ${n}`, [n, side, side, input], [k, k, out], {
      ...{ type, stride: s, inResnet50: counts.get(name) },
    })
  );
}

/** Convolutions of one type: ResNet-50's, then grouped and depthwise ones of other networks. */
function convCases(type: "f32" | "f16", large: boolean): KernelCase[] {
  const n = large ? 64 : 1;
  const of = large ? `, batch ${n}` : "";
  return [
    ...resnet50Cases(type, large),
    convCase(`3×3 128, 32 groups (ResNeXt), 56×56${of}`, [n, 56, 56, 128], [3, 3, 128], {
      ...{ type, groups: 32 },
    }),
    convCase(`3×3 depthwise 32 (EfficientNet), 112×112${of}`, [n, 112, 112, 32], [3, 3, 32], {
      ...{ type, groups: 32 },
    }),
    convCase(`5×5 depthwise 672 (EfficientNet), 14×14${of}`, [n, 14, 14, 672], [5, 5, 672], {
      ...{ type, groups: 672 },
    }),
    convCase(`7×7 depthwise 96 (ConvNeXt), 56×56${of}`, [n, 56, 56, 96], [7, 7, 96], {
      ...{ type, groups: 96 },
    }),
  ];
}

const SIDE = 1024;

/** Bytes that repeat after a million, which is 85 rows of a tile. */
function randomBytes(count: number): Uint8Array<ArrayBuffer> {
  const once = bytes(Math.min(count, 1_000_003), 1);
  const data = new Uint8Array(count);
  for (let at = 0; at < count; at += once.length) {
    data.set(once.subarray(0, Math.min(once.length, count - at)), at);
  }
  return data;
}

const IMAGENET = meanStd([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const AS_IT_IS = { mix: [[1, 0, 0], [0, 1, 0], [0, 0, 1]], offset: [0, 0, 0] } as const;

/** Tiles of 1024² on a GPU by the sixteen, which no cache holds. */
function normaliseCase(
  name: string,
  large: boolean,
  normalisation: Normalisation,
  options: NormaliseOptions = {},
  size = SIDE,
): KernelCase {
  const channels = options.layout === "planar" ? 3 : 4;
  const { type = "f32" } = options;
  const tiles = large ? 16 : 1;
  const isPlain = normalisation === IMAGENET && size === SIDE && channels === 4;
  return {
    name: `normalise u8 → ${type} ${name}, ${large ? `${tiles} × ` : ""}${SIDE}²`,
    bytes: tiles * (SIDE * SIDE * 3 + size * size * channels * bytesOf(type)),
    ...(isPlain && { peer: { op: "normalise", type, shape: [tiles, SIDE, SIDE, 3] } }),
    async prepare(on) {
      const pipelines = await compileNormalise(on.gpu, normalisation, options);
      const pixels = on.from(randomBytes(tiles * SIDE * SIDE * 3), [tiles, SIDE, SIDE, 3]);
      const shape = channels === 3 ? [tiles, 3, size, size] : [tiles, size, size, 4];
      const normalised = on.tensor(type, shape);
      return (recorder) => recordNormalise(recorder, pipelines, pixels, normalised, normalisation);
    },
  };
}

function componentsCase(name: string, inside: (x: number, y: number) => boolean): KernelCase {
  return {
    name: `components ${name}, ${SIDE}²`,
    // The map, and kinds and labels as each of four kernels reads and writes them.
    bytes: SIDE * SIDE * 4 * (3 + 3 + 3 + 2),
    async prepare(on) {
      const pipelines = await compileComponents(on.gpu, { type: "u32" });
      const map = Uint32Array.from(
        { length: SIDE * SIDE },
        (_, i) => inside(i % SIDE, Math.floor(i / SIDE)) ? 1 : 0,
      );
      const shape = [1, SIDE, SIDE];
      const tensors = {
        map: on.from(map, shape),
        labels: on.tensor("u32", shape),
        kinds: on.tensor("u32", shape),
        count: on.tensor("u32", [1]),
        list: on.tensor("u32", [65536, COMPONENT_FIELDS]),
      };
      return (recorder) => recordComponents(recorder, pipelines, tensors);
    },
  };
}

/** One operand through a kernel of dense tensors, bound by memory; `copy` is the measure of the others. */
function denseCases(type: "f32" | "f16", large: boolean): KernelCase[] {
  const bytes = bytesOf(type);
  const images = large ? 256 : 8;
  const shape = [images, 56, 56, 64];
  const count = countOf(shape);
  const copied = (
    name: string,
    of: readonly number[],
    compile: (on: Workspace, input: Tensor) => Promise<CompiledCopy>,
    peer: PeerTask,
  ): KernelCase => ({
    name: `${name} ${type} [${of.join(", ")}]`,
    peer,
    bytes: 2 * countOf(of) * bytes,
    async prepare(on) {
      const input = on.random(type, of);
      const compiled = await compile(on, input);
      const output = on.tensor(type, compiled.output.shape);
      return (recorder) => recordCopy(recorder, compiled, { input, output });
    },
  });
  const added = (name: string, right: readonly number[]): KernelCase => ({
    name: `binary ${type} add ${name}`,
    bytes: (2 * count + countOf(right)) * bytes,
    peer: { op: "add", type, shape, right },
    async prepare(on) {
      const left = on.random(type, shape);
      const tensors = { left, right: on.random(type, right) };
      const compiled = await compileBinary(on.gpu, "add", tensors.left, tensors.right);
      const output = on.tensor(type, shape);
      return (recorder) => recordBinary(recorder, compiled, { ...tensors, output });
    },
  });
  const reduced = (of: readonly number[], axes: readonly number[]): KernelCase => ({
    name: `reduce ${type} mean [${of.join(", ")}] over ${axes}`,
    bytes: countOf(of) * bytes,
    peer: { op: "mean", type, shape: of, axes },
    async prepare(on) {
      const input = on.random(type, of);
      const compiled = await compileReduce(on.gpu, "mean", input, axes);
      const output = on.tensor(type, compiled.output.shape);
      return (recorder) => recordReduce(recorder, compiled, { input, output });
    },
  });
  const rows = [images * 197, 768];
  return [
    copied("copy", shape, (on, input) => compileExpand(on.gpu, input, input.shape), {
      ...{ op: "copy", type, shape },
    }),
    ...(["relu", "gelu"] as const).map((operation): KernelCase => ({
      name: `unary ${type} ${operation} [${shape.join(", ")}]`,
      bytes: 2 * count * bytes,
      peer: { op: operation, type, shape },
      async prepare(on) {
        const compiled = await compileUnary(on.gpu, operation, type);
        const input = on.random(type, shape), output = on.tensor(type, shape);
        return (recorder) => recordUnary(recorder, compiled, { input, output });
      },
    })),
    added(`[${shape.join(", ")}]`, shape),
    added("one of 64 channels each", [64]),
    reduced(shape, [1, 2]),
    reduced(rows, [1]),
    {
      name: `softmax ${type} [${rows.join(", ")}]`,
      bytes: 2 * countOf(rows) * bytes,
      peer: { op: "softmax", type, shape: rows },
      async prepare(on) {
        const input = on.random(type, rows), output = on.tensor(type, rows);
        const compiled = await compileSoftmax(on.gpu, input, -1);
        return (recorder) => recordSoftmax(recorder, compiled, { input, output });
      },
    },
    copied("transpose", rows, (on, input) => compileTranspose(on.gpu, input, [1, 0]), {
      ...{ op: "transpose", type, shape: rows, axes: [1, 0] },
    }),
    copied(
      "heads first",
      [images, 197, 12, 64],
      (on, input) => compileTranspose(on.gpu, input, [0, 2, 1, 3]),
      { op: "transpose", type, shape: [images, 197, 12, 64], axes: [0, 2, 1, 3] },
    ),
    copied(
      "to channels-last",
      [images, 64, 56, 56],
      (on, input) => compileToChannelsLast(on.gpu, input),
      { op: "channels_last", type, shape: [images, 64, 56, 56] },
    ),
  ];
}

/** Pooling, resizing, normalising and attending at the shapes of ResNet-50, U-Nets and ViT-S/16. */
function spatialCases(type: "f32" | "f16", large: boolean): KernelCase[] {
  const bytes = bytesOf(type);
  const images = large ? 64 : 8;
  const window = { kernelShape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] };
  const [tokens, heads, headSize] = [197, 6, 64];
  const width = heads * headSize;
  const rows = [images * (large ? 8 : 1), tokens, width];
  return [
    {
      name: `pool ${type} max 3×3 / 2, 112×112×64, batch ${images}`,
      bytes: images * 112 * 112 * 64 * 1.25 * bytes,
      peer: { op: "max_pool", type, shape: [images, 112, 112, 64] },
      async prepare(on) {
        const compiled = await compilePool(on.gpu, { kind: "max", type });
        const input = on.random(type, [images, 112, 112, 64]);
        const output = on.tensor(type, pooledShape(input.shape, window));
        return (recorder) => recordPool(recorder, compiled, { input, output }, window);
      },
    },
    ...([[4 * images, 7, 7, 2048], [images, 112, 112, 64]] as const).map((shape): KernelCase => ({
      name: `pool ${type} average of all ${shape.slice(1).join("×")}, batch ${shape[0]}`,
      bytes: countOf(shape) * bytes,
      peer: { op: "global_average", type, shape },
      async prepare(on) {
        const compiled = await compileGlobalPool(on.gpu, { kind: "average", type });
        const input = on.random(type, shape);
        const output = on.tensor(type, [shape[0], shape[3]]);
        return (recorder) => recordGlobalPool(recorder, compiled, { input, output });
      },
    })),
    ...(["nearest", "linear"] as const).map((mode): KernelCase => ({
      name: `resize ${type} ${mode} 2×, 56×56×64, batch ${images}`,
      bytes: images * 56 * 56 * 64 * 5 * bytes,
      peer: { op: "resize", type, shape: [images, 56, 56, 64], mode },
      async prepare(on) {
        const shape = [images, 56, 56, 64];
        const axes = resizedAxes(shape, { scales: [2, 2], axes: [1, 2] });
        const compiled = await compileResize(on.gpu, { shape, axes, mode, type });
        const input = on.random(type, shape);
        const output = on.tensor(type, compiled.outShape);
        return (recorder) => recordResize(recorder, compiled, { input, output });
      },
    })),
    {
      name: `layer_norm ${type} [${rows.join(", ")}]`,
      bytes: 2 * countOf(rows) * bytes,
      peer: { op: "layer_norm", type, shape: rows },
      async prepare(on) {
        const compiled = await compileLayerNorm(on.gpu, { row: width, type, bias: true });
        const input = on.random(type, rows), output = on.tensor(type, rows);
        const scale = on.random(type, [width]), bias = on.random(type, [width]);
        return (recorder) => recordLayerNorm(recorder, compiled, { input, scale, bias, output });
      },
    },
    {
      name: `group_norm ${type} 32 of 128, 64×64, batch ${images}`,
      bytes: images * 64 * 64 * 128 * 3 * bytes, // Read twice: once for the moments.
      peer: { op: "group_norm", type, shape: [images, 64, 64, 128], groups: 32 },
      async prepare(on) {
        const compiled = await compileGroupNorm(on.gpu, { type });
        const input = on.random(type, [images, 64, 64, 128]);
        const tensors = {
          input,
          scale: on.random(type, [128]),
          bias: on.random(type, [128]),
          output: on.tensor(type, input.shape),
          moments: on.tensor("f32", groupMomentsShape(input.shape)),
        };
        return (recorder) => recordGroupNorm(recorder, compiled, tensors, { groups: 32 });
      },
    },
    {
      name: `attention ${type} ${tokens} tokens, ${heads} × ${headSize}, batch ${images}`,
      operations: 4 * images * heads * tokens * tokens * headSize,
      bytes: 4 * images * tokens * width * bytes,
      type,
      peer: { op: "attention", type, batch: images, heads, tokens, size: headSize },
      async prepare(on) {
        const compiled = await compileAttention(on.gpu, { headSize, type });
        const shape = [images, tokens, 3, heads, headSize] as const;
        const packed = on.random(type, shape);
        const output = on.tensor(type, [images, tokens, width]);
        const layouts = {
          query: tokensFirst(shape, 0),
          key: tokensFirst(shape, 1),
          value: tokensFirst(shape, 2),
          output: tokensFirst([images, tokens, 1, heads, headSize]),
        };
        return (recorder) =>
          recordAttention(
            recorder,
            compiled,
            { query: packed, key: packed, value: packed, output },
            { batch: images, heads, queries: tokens, keys: tokens, layouts },
          );
      },
    },
  ];
}

/**
 * On a software adapter the large ones take seconds: `large` leaves them to GPUs. `f16` says whether
 * the adapter has it.
 */
export function kernelCases(large: boolean, f16: boolean): KernelCase[] {
  return [
    ...matmulCases("f32", large),
    ...(f16 ? matmulCases("f16", large) : []),
    convCase("3×3 64→64, 56×56, batch 8", [8, 56, 56, 64], [3, 3, 64]),
    ...convCases("f32", large),
    ...(f16 && large ? convCases("f16", large) : []),
    convCase("1×27 4→8, 552×552 (nuclei's rows)", [1, 552, 552, 4], [1, 27, 8]),
    convCase("27×1 8→4, 552×552 (nuclei's columns)", [1, 552, 552, 8], [27, 1, 4]),
    ...denseCases("f32", large),
    ...(f16 && large ? denseCases("f16", large) : []),
    ...spatialCases("f32", large),
    ...(f16 && large ? spatialCases("f16", large) : []),
    normaliseCase("mean/std", large, IMAGENET),
    ...(f16 ? [normaliseCase("mean/std", large, IMAGENET, { type: "f16" })] : []),
    normaliseCase("planar", large, IMAGENET, { layout: "planar" }),
    normaliseCase("stains", large, HAEMATOXYLIN_EOSIN),
    normaliseCase("Macenko", large, {
      ...{ ...IMAGENET, stain: { kind: "densities", ...AS_IT_IS } },
    }),
    normaliseCase("Reinhard", large, { ...IMAGENET, stain: { kind: "cielab", ...AS_IT_IS } }),
    normaliseCase("halved", large, IMAGENET, {}, SIDE / 2),
    {
      name: `stain_histogram, ${SIDE}² of noise`,
      bytes: SIDE * SIDE * (3 + 4),
      async prepare(on) {
        const pipeline = await stainHistogramKernel.compile(on.gpu);
        const pixels = on.from(bytes(SIDE * SIDE * 3, 1), [SIDE, SIDE, 3]);
        const histogram = on.tensor("u32", [TISSUE_LEVELS ** 3]);
        return (recorder) =>
          recorder.dispatch(pipeline, {
            params: { pixel_count: SIDE * SIDE },
            bindings: { pixels, histogram },
          }, [SIDE * SIDE / 256]);
      },
    },
    componentsCase("of blobs", (x, y) => Math.sin(x / 9) * Math.sin(y / 7) > 0.2),
    componentsCase("of one piece", () => true),
    {
      name: `contour_marks of squares, ${SIDE}²`,
      bytes: SIDE * SIDE * 4,
      async prepare(on) {
        const pipeline = await contourMarksKernel.compile(on.gpu);
        // Squares of 16 pixels, each of a label of its own: a quarter of all pixels are marked.
        const label = (i: number) => 1 + (i % SIDE >> 4) + 64 * (i >> 14);
        const values = Uint32Array.from({ length: SIDE * SIDE }, (_, i) => label(i));
        const labels = on.from(values, [1, SIDE, SIDE]);
        const count = on.tensor("u32", [1]);
        const marks = on.tensor("u32", [SIDE * SIDE / 4, 2]);
        return (recorder) => recordContourMarks(recorder, pipeline, { labels, count, marks });
      },
    },
    {
      name: `isolines of waves at 4 thresholds, ${SIDE}²`,
      bytes: SIDE * SIDE * 4 * 4,
      async prepare(on) {
        const pipeline = await compileIsolines(on.gpu);
        const waves = Float32Array.from(
          { length: SIDE * SIDE },
          (_, i) => Math.sin(i % SIDE / 20) * Math.sin(i / SIDE / 17),
        );
        const tensors = {
          scores: on.from(waves, [1, SIDE, SIDE, 1]),
          thresholds: on.from(Float32Array.of(-0.5, 0.1, 0.4, 0.7), [4]),
          count: on.tensor("u32", [1]),
          segments: on.tensor("u32", [SIDE * SIDE / 4, 4]),
        };
        return (recorder) => recordIsolines(recorder, pipeline, tensors);
      },
    },
    {
      name: `peaks ${SIDE}² × 4`,
      bytes: SIDE * SIDE * 16,
      async prepare(on) {
        const pipeline = await compilePeaks(on.gpu);
        const scores = on.from(floats(SIDE * SIDE * 4, 1), [SIDE, SIDE, 4]);
        const count = on.tensor("u32", [1]);
        const found = on.tensor("f32", [peakCapacity(SIDE, SIDE, 2), 4]);
        const core = { x: 0, y: 0, width: SIDE, height: SIDE };
        // A hundredth of random pixels pass: as dense as candidates on tissue.
        return (recorder) => recordPeaks(recorder, pipeline, { scores, count, found }, core, 0.995);
      },
    },
    {
      name: "suppress_points, 8 × 2048",
      // Each round reads what a pair of points is compared by; a few rounds do.
      bytes: 8 * 2048 * 2048 * 32,
      async prepare(on) {
        const pipeline = await suppressPointsKernel.compile(on.gpu);
        const shape = [8, 2048, 4];
        const found = on.from(
          floats(8 * 2048 * 4, 1).map((v, i) => i % 4 === 3 ? 0 : 256 * (v + 1)),
          shape,
        );
        const count = on.from(new Uint32Array(8).fill(2048), [8]);
        const reach = on.from(Float32Array.of(8), [1]);
        const kept = on.tensor("u32", [8, 2048]);
        return (recorder) =>
          recordSuppressPoints(recorder, pipeline, { found, count, reach, kept });
      },
    },
  ];
}
