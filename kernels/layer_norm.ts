/**
 * Normalisation of rows by their own mean and variance: ONNX LayerNormalization-17, and
 * RMSNormalization-23 without the mean. Adds a residual first where there is one.
 */

import code from "./layer_norm.wgsl" with { type: "text" };
import scalarCode from "./layer_norm_scalar.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import { Tensor } from "./tensor.ts";

const overrides = {
  X: 64,
  Y: 4,
  RMS: false,
  RESIDUAL: false,
  BIAS: false,
  STATISTICS: false,
} as const;

/** Four elements at a time. */
export const layerNormKernel = defineKernel({
  name: "layer_norm",
  code,
  params: { rows: "u32", row4: "u32", channels: "u32", epsilon: "f32" },
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    residual: { type: "array<vec4<Element>>", access: "read" },
    scale: { type: "array<vec4<Element>>", access: "read" },
    bias: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<Element>>", access: "read_write" },
    sum: { type: "array<vec4<Element>>", access: "read_write" },
    statistics: { type: "array<f32>", access: "read_write" },
  },
  overrides,
  aliases: { Element: ["f32", "f16"] },
});

/** An element at a time: rows that are no multiple of four. */
export const layerNormScalarKernel = defineKernel({
  name: "layer_norm_scalar",
  code: scalarCode,
  params: { rows: "u32", channels: "u32", epsilon: "f32" },
  bindings: {
    input: { type: "array<Element>", access: "read" },
    residual: { type: "array<Element>", access: "read" },
    scale: { type: "array<Element>", access: "read" },
    bias: { type: "array<Element>", access: "read" },
    output: { type: "array<Element>", access: "read_write" },
    sum: { type: "array<Element>", access: "read_write" },
    statistics: { type: "array<f32>", access: "read_write" },
  },
  overrides,
  aliases: { Element: ["f32", "f16"] },
});

export interface LayerNormOptions {
  /** Elements of a row: the product of the normalised axes, padding of the last one and all. */
  readonly row: number;
  readonly type?: "f32" | "f16";
  /** Takes the root of the mean square instead of the deviation from the mean. */
  readonly rms?: boolean;
  /** Whether there is a bias. */
  readonly bias?: boolean;
  /** Whether a residual is added, and the sum stored. */
  readonly residual?: boolean;
  /** Whether mean and inverse deviation are stored. */
  readonly statistics?: boolean;
  /**
   * Invocations that share a row; by default as suits the adapter: joining their sums costs a
   * software adapter more than its few cores gain by them.
   */
  readonly parts?: 1 | 64;
}

/** What is bound in place of an output that is not wanted: nothing is written to it. */
const unwanted = new WeakMap<Gpu, readonly [sum: Tensor, statistics: Tensor]>();

/** Compiles for rows of one length. @throws {KernelError} where the device fails. */
export async function compileLayerNorm(gpu: Gpu, options: LayerNormOptions) {
  const { row, type = "f32", rms = false, bias = false, residual = false, statistics = false } =
    options;
  const parts = options.parts ?? (gpu.adapter.isSoftware ? 1 : 64);
  const rows = parts === 1 ? 16 : 4;
  const values = {
    X: parts,
    Y: rows,
    RMS: rms,
    RESIDUAL: residual,
    BIAS: bias,
    STATISTICS: statistics,
  };
  const [vectors, scalars] = row % 4 === 0
    ? [await layerNormKernel.compile(gpu, values, { Element: type }), undefined]
    : [undefined, await layerNormScalarKernel.compile(gpu, values, { Element: type })];
  if (!unwanted.has(gpu)) {
    unwanted.set(gpu, [new Tensor(gpu, "f32", [4], "no sum"), new Tensor(gpu, "f32", [4], "none")]);
  }
  return { vectors, scalars, rows, row, type, bias, residual, statistics };
}
export type CompiledLayerNorm = Awaited<ReturnType<typeof compileLayerNorm>>;

export interface LayerNormTensors {
  /** [R…, row…]: any shape whose elements are whole rows. */
  readonly input: Tensor;
  /** As the input, where it was compiled with one. */
  readonly residual?: Tensor;
  /** [row]. */
  readonly scale: Tensor;
  /** [row], where it was compiled with one. */
  readonly bias?: Tensor;
  /** As the input. */
  readonly output: Tensor;
  /** input + residual, where there is one: as the input. */
  readonly sum?: Tensor;
  /** [2, R] f32, mean and inverse deviation of each row, where they were compiled for. */
  readonly statistics?: Tensor;
}

/**
 * Records `output = (sum − mean) / √(variance + epsilon) · scale + bias` over rows, sum = input +
 * residual; all of the compiled type but statistics. `channels` are the elements of a row that count
 * (default all): others are the padding of its end, which become zeros.
 * @throws {RangeError} where shapes do not fit together or a tensor is missing or not compiled for.
 */
export function recordLayerNorm(
  recorder: Recorder,
  compiled: CompiledLayerNorm,
  tensors: LayerNormTensors,
  { epsilon = 1e-5, channels = compiled.row }: {
    readonly epsilon?: number;
    readonly channels?: number;
  } = {},
): void {
  const { vectors, scalars, row, type } = compiled;
  const { input, residual, scale, bias, output, sum, statistics } = tensors;
  const count = input.shape.reduce((a, b) => a * b, 1);
  const rows = row > 0 ? count / row : 0;
  const alike = [input, output, ...compiled.residual ? [residual, sum] : []];
  const perRow = [scale, ...compiled.bias ? [bias] : []];
  if (
    !Number.isInteger(rows) || !(channels >= 1 && channels <= row) ||
    (scalars !== undefined && channels !== row) ||
    alike.some((tensor) => tensor?.shape.join() !== input.shape.join() || tensor.type !== type) ||
    perRow.some((tensor) =>
      tensor?.shape.reduce((a, b) => a * b, 1) !== row || tensor.type !== type
    ) ||
    (compiled.statistics && (statistics?.type !== "f32" || statistics.byteLength !== 8 * rows)) ||
    (residual !== undefined) !== compiled.residual || (bias !== undefined) !== compiled.bias ||
    (sum !== undefined) !== compiled.residual ||
    (statistics !== undefined) !== compiled.statistics
  ) {
    const shapes = Object.entries(tensors as unknown as Record<string, Tensor | undefined>)
      .filter(([, tensor]) => tensor !== undefined)
      .map(([name, tensor]) => `${name} ${tensor!.type} [${tensor!.shape.join(", ")}]`);
    throw new RangeError(
      `Cannot normalise rows of ${row}, ${channels} of which count, over ${shapes.join(", ")}: ` +
        `${type} is compiled, ${compiled.bias ? "with" : "without"} bias, ` +
        `${compiled.residual ? "with" : "without"} residual and sum, ` +
        `${compiled.statistics ? "with" : "without"} statistics`,
    );
  }
  const [noSum, noStatistics] = unwanted.get(recorder.gpu)!;
  const bindings = {
    input,
    residual: residual ?? input,
    scale,
    bias: bias ?? scale,
    output,
    sum: sum ?? noSum,
    statistics: statistics ?? noStatistics,
  };
  const grid = rowOfWorkgroups(recorder.gpu, Math.ceil(rows / compiled.rows));
  if (vectors !== undefined) {
    recorder.dispatch(
      vectors,
      { params: { rows, row4: row / 4, channels, epsilon }, bindings },
      grid,
    );
  } else {
    recorder.dispatch(scalars!, { params: { rows, channels, epsilon }, bindings }, grid);
  }
}
