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
import type { Batch } from "../../kernels/kernel.ts";
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
import { Tensor } from "../../kernels/tensor.ts";
import { randomTensor, Tuner } from "../../kernels/tuner.ts";
import { bytes, floats } from "../reference/random.ts";

export interface KernelCase {
  readonly name: string;
  /** Work of one dispatch: floating-point operations, or bytes read and written where memory is the limit. */
  readonly work: number;
  readonly unit: "FLOP" | "B";
  /** Makes inputs on the device and gives what records one dispatch. */
  prepare(gpu: Gpu): Promise<(batch: Batch) => void>;
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
    work: 2 * rows * inner * columns,
    unit: "FLOP",
    async prepare(gpu) {
      const tile = await tuneMatmul(new Tuner(gpu), options, shape);
      const compiled = await compileMatmul(gpu, { ...options, shape, tile });
      const product = new Tensor(gpu, type, [rows, columns]);
      const tensors = {
        a: randomTensor(gpu, type, [rows, inner]),
        b: randomTensor(gpu, type, options.transposeB ? [columns, inner] : [inner, columns]),
        ...(options.bias && { bias: randomTensor(gpu, type, [columns]) }),
        ...(options.residual && { residual: randomTensor(gpu, type, product.shape) }),
        product,
      };
      return (batch) => recordMatmul(batch, compiled, tensors);
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
  { type = "f32", groups = 1, stride = 1 }: {
    type?: Conv2dOptions["type"];
    groups?: number;
    stride?: number;
  } = {},
): KernelCase {
  const padY = (kernelHeight - 1) / 2, padX = (kernelWidth - 1) / 2;
  const outHeight = convolvedSize(height, kernelHeight, stride, 2 * padY);
  const outWidth = convolvedSize(width, kernelWidth, stride, 2 * padX);
  const sums = images * outHeight * outWidth * outChannels;
  return {
    name: `conv2d ${type} ${name}`,
    work: 2 * sums * kernelHeight * kernelWidth * channels / groups,
    unit: "FLOP",
    async prepare(gpu) {
      const compiled = await compileConv2d(gpu, {
        ...{ channels, outChannels, kernelHeight, kernelWidth, groups, type, bias: true },
        ...{ strideY: stride, strideX: stride, activation: "relu" },
        pixels: images * outHeight * outWidth,
      });
      const random = (shape: number[], seed: number) => {
        const values = floats(shape.reduce((a, b) => a * b, 1), seed);
        return Tensor.from(gpu, type === "f16" ? new Float16Array(values) : values, shape);
      };
      const taps = kernelHeight * kernelWidth;
      const weights = packConv2dWeights(
        compiled,
        floats(outChannels * channels / groups * taps, 2),
      );
      const out = paddedChannels(outChannels);
      const tensors = {
        input: random([images, height, width, paddedChannels(channels)], 1),
        weights: Tensor.from(gpu, weights.data, weights.shape),
        bias: random([out], 3),
        output: new Tensor(gpu, type, [images, outHeight, outWidth, out]),
      };
      const pads = { top: padY, left: padX, bottom: padY, right: padX };
      return (batch) => recordConv2d(batch, compiled, tensors, pads);
    },
  };
}

/** Convolutions of one type: ResNet-50's kinds, then grouped and depthwise ones of other networks. */
function convCases(type: "f32" | "f16", large: boolean): KernelCase[] {
  const n = large ? 64 : 1;
  const of = large ? `, batch ${n}` : "";
  return [
    convCase(`7×7/2 3→64, 224×224${of}`, [n, 224, 224, 3], [7, 7, 64], { type, stride: 2 }),
    convCase(`1×1 256→64, 56×56${of}`, [n, 56, 56, 256], [1, 1, 64], { type }),
    convCase(`1×1 64→256, 56×56${of}`, [n, 56, 56, 64], [1, 1, 256], { type }),
    convCase(`1×1/2 256→512, 56×56${of}`, [n, 56, 56, 256], [1, 1, 512], { type, stride: 2 }),
    convCase(`3×3 64→64, 56×56${of}`, [n, 56, 56, 64], [3, 3, 64], { type }),
    convCase(`3×3/2 128→128, 56×56${of}`, [n, 56, 56, 128], [3, 3, 128], { type, stride: 2 }),
    convCase(`3×3 128→128, 28×28${of}`, [n, 28, 28, 128], [3, 3, 128], { type }),
    convCase(`3×3 256→256, 14×14${of}`, [n, 14, 14, 256], [3, 3, 256], { type }),
    convCase(`3×3 512→512, 7×7${of}`, [n, 7, 7, 512], [3, 3, 512], { type }),
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
const IMAGENET = meanStd([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const AS_IT_IS = { mix: [[1, 0, 0], [0, 1, 0], [0, 0, 1]], offset: [0, 0, 0] } as const;

function normaliseCase(
  name: string,
  normalisation: Normalisation,
  options: NormaliseOptions = {},
  size = SIDE,
): KernelCase {
  const channels = options.layout === "planar" ? 3 : 4;
  return {
    name: `normalise ${name}, ${SIDE}²`,
    work: SIDE * SIDE * 3 + size * size * channels * 4,
    unit: "B",
    async prepare(gpu) {
      const pipelines = await compileNormalise(gpu, normalisation, options);
      const pixels = Tensor.from(gpu, bytes(SIDE * SIDE * 3, 1), [1, SIDE, SIDE, 3]);
      const shape = channels === 3 ? [1, 3, size, size] : [1, size, size, 4];
      const normalised = new Tensor(gpu, "f32", shape);
      return (batch) => recordNormalise(batch, pipelines, pixels, normalised, normalisation);
    },
  };
}

function componentsCase(name: string, inside: (x: number, y: number) => boolean): KernelCase {
  return {
    name: `components ${name}, ${SIDE}²`,
    // The map, and kinds and labels as each of four kernels reads and writes them.
    work: SIDE * SIDE * 4 * (3 + 3 + 3 + 2),
    unit: "B",
    async prepare(gpu) {
      const pipelines = await compileComponents(gpu, { type: "u32" });
      const map = Uint32Array.from(
        { length: SIDE * SIDE },
        (_, i) => inside(i % SIDE, Math.floor(i / SIDE)) ? 1 : 0,
      );
      const shape = [1, SIDE, SIDE];
      const tensors = {
        map: Tensor.from(gpu, map, shape),
        labels: new Tensor(gpu, "u32", shape),
        kinds: new Tensor(gpu, "u32", shape),
        count: new Tensor(gpu, "u32", [1]),
        list: new Tensor(gpu, "u32", [65536, COMPONENT_FIELDS]),
      };
      return (batch) => recordComponents(batch, pipelines, tensors);
    },
  };
}

/** One operand through a kernel of dense tensors, bound by memory; `copy` is the measure of the others. */
function denseCases(type: "f32" | "f16", large: boolean): KernelCase[] {
  const bytes = type === "f32" ? 4 : 2;
  const images = large ? 64 : 8;
  const shape = [images, 56, 56, 64];
  const count = countOf(shape);
  const copied = (
    name: string,
    of: readonly number[],
    compile: (gpu: Gpu, input: Tensor) => Promise<CompiledCopy>,
  ): KernelCase => ({
    name: `${name} ${type} [${of.join(", ")}]`,
    work: 2 * countOf(of) * bytes,
    unit: "B",
    async prepare(gpu) {
      const input = randomTensor(gpu, type, of);
      const compiled = await compile(gpu, input);
      const output = new Tensor(gpu, type, compiled.output.shape);
      return (batch) => recordCopy(batch, compiled, { input, output });
    },
  });
  const added = (name: string, right: readonly number[], work: number): KernelCase => ({
    name: `binary ${type} add ${name}`,
    work,
    unit: "B",
    async prepare(gpu) {
      const left = randomTensor(gpu, type, shape);
      const tensors = { left, right: randomTensor(gpu, type, right) };
      const compiled = await compileBinary(gpu, "add", tensors.left, tensors.right);
      const output = new Tensor(gpu, type, shape);
      return (batch) => recordBinary(batch, compiled, { ...tensors, output });
    },
  });
  const reduced = (of: readonly number[], axes: readonly number[]): KernelCase => ({
    name: `reduce ${type} mean [${of.join(", ")}] over ${axes}`,
    work: countOf(of) * bytes,
    unit: "B",
    async prepare(gpu) {
      const input = randomTensor(gpu, type, of);
      const compiled = await compileReduce(gpu, "mean", input, axes);
      const output = new Tensor(gpu, type, compiled.output.shape);
      return (batch) => recordReduce(batch, compiled, { input, output });
    },
  });
  const rows = [images * 197, 768];
  return [
    copied("copy", shape, (gpu, input) => compileExpand(gpu, input, input.shape)),
    ...(["relu", "gelu"] as const).map((operation): KernelCase => ({
      name: `unary ${type} ${operation} [${shape.join(", ")}]`,
      work: 2 * count * bytes,
      unit: "B",
      async prepare(gpu) {
        const compiled = await compileUnary(gpu, operation, type);
        const input = randomTensor(gpu, type, shape), output = new Tensor(gpu, type, shape);
        return (batch) => recordUnary(batch, compiled, { input, output });
      },
    })),
    added(`[${shape.join(", ")}]`, shape, 3 * count * bytes),
    added("one of 64 channels each", [64], 2 * count * bytes),
    reduced(shape, [1, 2]),
    reduced(rows, [1]),
    {
      name: `softmax ${type} [${rows.join(", ")}]`,
      work: 2 * countOf(rows) * bytes,
      unit: "B",
      async prepare(gpu) {
        const input = randomTensor(gpu, type, rows), output = new Tensor(gpu, type, rows);
        const compiled = await compileSoftmax(gpu, input, -1);
        return (batch) => recordSoftmax(batch, compiled, { input, output });
      },
    },
    copied("transpose", rows, (gpu, input) => compileTranspose(gpu, input, [1, 0])),
    copied(
      "heads first",
      [images, 197, 12, 64],
      (gpu, input) => compileTranspose(gpu, input, [0, 2, 1, 3]),
    ),
    copied("to channels-last", [images, 64, 56, 56], compileToChannelsLast),
  ];
}

/** Pooling, resizing, normalising and attending at the shapes of ResNet-50, U-Nets and ViT-B/16. */
function spatialCases(type: "f32" | "f16", large: boolean): KernelCase[] {
  const bytes = type === "f32" ? 4 : 2;
  const images = large ? 64 : 8;
  const window = { kernelShape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] };
  const [tokens, heads, headSize] = [197, 12, 64];
  const width = heads * headSize;
  return [
    {
      name: `pool ${type} max 3×3 / 2, 112×112×64, batch ${images}`,
      work: images * 112 * 112 * 64 * 1.25 * bytes,
      unit: "B",
      async prepare(gpu) {
        const compiled = await compilePool(gpu, { kind: "max", type });
        const input = randomTensor(gpu, type, [images, 112, 112, 64]);
        const output = new Tensor(gpu, type, pooledShape(input.shape, window));
        return (batch) => recordPool(batch, compiled, { input, output }, window);
      },
    },
    ...[[7, 2048], [112, 64]].map(([side, channels]): KernelCase => ({
      name: `pool ${type} average of all ${side}×${side}×${channels}, batch ${images}`,
      work: images * side! * side! * channels! * bytes,
      unit: "B",
      async prepare(gpu) {
        const compiled = await compileGlobalPool(gpu, { kind: "average", type });
        const input = randomTensor(gpu, type, [images, side!, side!, channels!]);
        const output = new Tensor(gpu, type, [images, channels!]);
        return (batch) => recordGlobalPool(batch, compiled, { input, output });
      },
    })),
    ...(["nearest", "linear"] as const).map((mode): KernelCase => ({
      name: `resize ${type} ${mode} 2×, 56×56×64, batch ${images}`,
      work: images * 56 * 56 * 64 * 5 * bytes,
      unit: "B",
      async prepare(gpu) {
        const shape = [images, 56, 56, 64];
        const axes = resizedAxes(shape, { scales: [2, 2], axes: [1, 2] });
        const compiled = await compileResize(gpu, { shape, axes, mode, type });
        const input = randomTensor(gpu, type, shape);
        const output = new Tensor(gpu, type, compiled.outShape);
        return (batch) => recordResize(batch, compiled, { input, output });
      },
    })),
    {
      name: `layer_norm ${type} ${images} × ${tokens} × ${width}`,
      work: images * tokens * width * 2 * bytes,
      unit: "B",
      async prepare(gpu) {
        const compiled = await compileLayerNorm(gpu, { row: width, type, bias: true });
        const input = randomTensor(gpu, type, [images, tokens, width]);
        const output = new Tensor(gpu, type, input.shape);
        const scale = randomTensor(gpu, type, [width]), bias = randomTensor(gpu, type, [width]);
        return (batch) => recordLayerNorm(batch, compiled, { input, scale, bias, output });
      },
    },
    {
      name: `group_norm ${type} 32 of 128, 64×64, batch ${images}`,
      work: images * 64 * 64 * 128 * 3 * bytes,
      unit: "B",
      async prepare(gpu) {
        const compiled = await compileGroupNorm(gpu, { type });
        const input = randomTensor(gpu, type, [images, 64, 64, 128]);
        const tensors = {
          input,
          scale: randomTensor(gpu, type, [128]),
          bias: randomTensor(gpu, type, [128]),
          output: new Tensor(gpu, type, input.shape),
          moments: new Tensor(gpu, "f32", groupMomentsShape(input.shape)),
        };
        return (batch) => recordGroupNorm(batch, compiled, tensors, { groups: 32 });
      },
    },
    {
      name: `attention ${type} ${tokens} tokens, ${heads} × ${headSize}, batch ${images}`,
      work: 4 * images * heads * tokens * tokens * headSize,
      unit: "FLOP",
      async prepare(gpu) {
        const compiled = await compileAttention(gpu, { headSize, type });
        const shape = [images, tokens, 3, heads, headSize] as const;
        const packed = randomTensor(gpu, type, shape);
        const output = new Tensor(gpu, type, [images, tokens, width]);
        const layouts = {
          query: tokensFirst(shape, 0),
          key: tokensFirst(shape, 1),
          value: tokensFirst(shape, 2),
          output: tokensFirst([images, tokens, 1, heads, headSize]),
        };
        return (batch) =>
          recordAttention(
            batch,
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
    normaliseCase("u8 → f32 mean/std", IMAGENET),
    normaliseCase("u8 → f32 planar", IMAGENET, { layout: "planar" }),
    normaliseCase("u8 → f32 stains", HAEMATOXYLIN_EOSIN),
    normaliseCase("u8 → f32 Macenko", { ...IMAGENET, stain: { kind: "densities", ...AS_IT_IS } }),
    normaliseCase("u8 → f32 Reinhard", { ...IMAGENET, stain: { kind: "cielab", ...AS_IT_IS } }),
    normaliseCase("u8 → f32 halved", IMAGENET, {}, SIDE / 2),
    {
      name: `stain_histogram, ${SIDE}² of noise`,
      work: SIDE * SIDE * (3 + 4),
      unit: "B",
      async prepare(gpu) {
        const pipeline = await stainHistogramKernel.compile(gpu);
        const pixels = Tensor.from(gpu, bytes(SIDE * SIDE * 3, 1), [SIDE, SIDE, 3]);
        const histogram = new Tensor(gpu, "u32", [TISSUE_LEVELS ** 3]);
        return (batch) =>
          batch.dispatch(pipeline, {
            params: { pixel_count: SIDE * SIDE },
            bindings: { pixels, histogram },
          }, [SIDE * SIDE / 256]);
      },
    },
    componentsCase("of blobs", (x, y) => Math.sin(x / 9) * Math.sin(y / 7) > 0.2),
    componentsCase("of one piece", () => true),
    {
      name: `contour_marks of squares, ${SIDE}²`,
      work: SIDE * SIDE * 4,
      unit: "B",
      async prepare(gpu) {
        const pipeline = await contourMarksKernel.compile(gpu);
        // Squares of 16 pixels, each of a label of its own: a quarter of all pixels are marked.
        const label = (i: number) => 1 + (i % SIDE >> 4) + 64 * (i >> 14);
        const values = Uint32Array.from({ length: SIDE * SIDE }, (_, i) => label(i));
        const labels = Tensor.from(gpu, values, [1, SIDE, SIDE]);
        const count = new Tensor(gpu, "u32", [1]);
        const marks = new Tensor(gpu, "u32", [SIDE * SIDE / 4, 2]);
        return (batch) => recordContourMarks(batch, pipeline, { labels, count, marks });
      },
    },
    {
      name: `isolines of waves at 4 thresholds, ${SIDE}²`,
      work: SIDE * SIDE * 4 * 4,
      unit: "B",
      async prepare(gpu) {
        const pipeline = await compileIsolines(gpu);
        const waves = Float32Array.from(
          { length: SIDE * SIDE },
          (_, i) => Math.sin(i % SIDE / 20) * Math.sin(i / SIDE / 17),
        );
        const tensors = {
          scores: Tensor.from(gpu, waves, [1, SIDE, SIDE, 1]),
          thresholds: Tensor.from(gpu, Float32Array.of(-0.5, 0.1, 0.4, 0.7), [4]),
          count: new Tensor(gpu, "u32", [1]),
          segments: new Tensor(gpu, "u32", [SIDE * SIDE / 4, 4]),
        };
        return (batch) => recordIsolines(batch, pipeline, tensors);
      },
    },
    {
      name: `peaks ${SIDE}² × 4`,
      work: SIDE * SIDE * 16,
      unit: "B",
      async prepare(gpu) {
        const pipeline = await compilePeaks(gpu);
        const scores = Tensor.from(gpu, floats(SIDE * SIDE * 4, 1), [SIDE, SIDE, 4]);
        const count = new Tensor(gpu, "u32", [1]);
        const found = new Tensor(gpu, "f32", [peakCapacity(SIDE, SIDE, 2), 4]);
        const core = { x: 0, y: 0, width: SIDE, height: SIDE };
        // A hundredth of random pixels pass: as dense as candidates on tissue.
        return (batch) => recordPeaks(batch, pipeline, { scores, count, found }, core, 0.995);
      },
    },
    {
      name: "suppress_points, 8 × 2048",
      // Each round reads what a pair of points is compared by; a few rounds do.
      work: 8 * 2048 * 2048 * 32,
      unit: "B",
      async prepare(gpu) {
        const pipeline = await suppressPointsKernel.compile(gpu);
        const shape = [8, 2048, 4];
        const found = Tensor.from(
          gpu,
          floats(8 * 2048 * 4, 1).map((v, i) => i % 4 === 3 ? 0 : 256 * (v + 1)),
          shape,
        );
        const count = Tensor.from(gpu, new Uint32Array(8).fill(2048), [8]);
        const reach = Tensor.from(gpu, Float32Array.of(8), [1]);
        const kept = new Tensor(gpu, "u32", [8, 2048]);
        return (batch) => recordSuppressPoints(batch, pipeline, { found, count, reach, kept });
      },
    },
  ];
}
