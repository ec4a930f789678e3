/**
 * Dense row-major tensors written to by indices that are on the GPU: ONNX ScatterElements and
 * ScatterND with their reductions. The data is copied to the output, then the updates are written.
 * Indices are i32; one out of range is held within the axis, since a GPU cannot throw.
 */

import codeElements from "./scatter_elements.wgsl" with { type: "text" };
import codeNd from "./scatter_nd.wgsl" with { type: "text" };
import { type CompiledCopy, compileExpand, recordCopy } from "./copy.ts";
import type { Gpu } from "./device.ts";
import { checkOperands, numberType } from "./elementwise.ts";
import {
  type AliasedType,
  defineKernel,
  type KernelLiteral,
  type Pipeline,
  type Recorder,
  rowOfWorkgroups,
} from "./kernel.ts";
import {
  axisOf,
  countOf,
  described,
  MAX_RANK,
  mergeAxes,
  numbered,
  numberedParams,
  type Operand,
  stridesOf,
} from "./strides.ts";
import type { Tensor } from "./tensor.ts";

const bindings = {
  indices: { type: "array<i32>", access: "read" },
  updates: { type: "array<Element>", access: "read" },
  output: { type: "array<Element>", access: "read_write" },
} as const;
const aliases = { Element: ["f32", "f16", "i32", "u32"], Value: ["f32", "i32", "u32"] } as const;

const scatterElementsKernel = defineKernel({
  name: "scatter_elements",
  code: codeElements,
  params: {
    count: "u32",
    length: "u32",
    own_axis: "u32",
    axis_size: "u32",
    to_axis: "u32",
    ...numberedParams("size"),
    ...numberedParams("own"),
    ...numberedParams("to"),
  },
  bindings,
  overrides: { REDUCTION: 0, RANK: 1 },
  aliases,
});

const scatterNdKernel = defineKernel({
  name: "scatter_nd",
  code: codeNd,
  params: {
    picks: "u32",
    inner: "u32",
    ...numberedParams("size"),
    ...numberedParams("stride"),
  },
  bindings,
  overrides: { REDUCTION: 0, TUPLE: 1 },
  aliases,
});

/** By number, which is REDUCTION's in the WGSL. */
const SCATTER_REDUCTIONS = { none: 0, add: 1, mul: 2, min: 3, max: 4 } as const;

export type ScatterReduction = keyof typeof SCATTER_REDUCTIONS;

/** A scattering, with the copy before it and what its dispatch is given. */
export interface CompiledScatter {
  readonly copy: CompiledCopy;
  readonly pipeline: Pipeline<KernelLiteral & { bindings: typeof bindings }>;
  readonly params: Readonly<Record<string, number>>;
  readonly workgroups: number;
  readonly indices: Operand;
  readonly updates: Operand;
}

function checkScatter(data: Operand, indices: Operand, updates: Operand, fits: boolean): void {
  if (!fits || indices.type !== "i32" || updates.type !== data.type) {
    throw new RangeError(
      `Cannot scatter ${described(updates)} into ${described(data)} by ${described(indices)}`,
    );
  }
}

/** Element and Value of a type. */
function typesOf(data: Operand): { readonly Element: AliasedType; readonly Value: AliasedType } {
  const element = numberType(data.type);
  return { Element: element, Value: element === "f16" ? "f32" : element };
}

/**
 * Compiles ONNX ScatterElements-18 along `axis`: of equal indices the last update stays, or all are
 * reduced in order.
 * @throws {RangeError} for indices that are no i32 or of another shape than the updates, or larger
 *     than the data along another axis.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileScatterElements(
  gpu: Gpu,
  data: Operand,
  indices: Operand,
  updates: Operand,
  axis = 0,
  reduction: ScatterReduction = "none",
): Promise<CompiledScatter> {
  const along = axisOf(axis, data.shape.length);
  checkScatter(
    data,
    indices,
    updates,
    indices.shape.length === data.shape.length && indices.shape.join() === updates.shape.join() &&
      indices.shape.every((size, i) =>
        i === along ? size === 0 || data.shape[i]! > 0 : size <= data.shape[i]!
      ),
  );
  const own = stridesOf(indices.shape), to = stridesOf(data.shape);
  const { sizes, strides } = mergeAxes(indices.shape.with(along, 1), [own, to]);
  const count = countOf(indices.shape.with(along, 1));
  return {
    copy: await compileExpand(gpu, data, data.shape),
    pipeline: await scatterElementsKernel.compile(
      gpu,
      { REDUCTION: SCATTER_REDUCTIONS[reduction], RANK: sizes.length },
      typesOf(data),
    ),
    params: {
      count,
      length: indices.shape[along]!,
      own_axis: own[along]!,
      axis_size: data.shape[along]!,
      to_axis: to[along]!,
      ...numbered("size", sizes),
      ...numbered("own", strides[0]!),
      ...numbered("to", strides[1]!),
    },
    workgroups: Math.ceil(count / 64),
    indices: { type: indices.type, shape: indices.shape },
    updates: { type: updates.type, shape: updates.shape },
  };
}

/**
 * Compiles ONNX ScatterND-18: the indices' last axis is a tuple into the data's first axes. Of equal
 * tuples any update stays, or all are reduced in order.
 * @throws {RangeError} for indices that are no i32, a tuple longer than there are axes, or updates
 *     that do not fit.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileScatterNd(
  gpu: Gpu,
  data: Operand,
  indices: Operand,
  updates: Operand,
  reduction: ScatterReduction = "none",
): Promise<CompiledScatter> {
  const tuple = indices.shape.at(-1) ?? 0;
  const sizes = data.shape.slice(0, tuple), after = data.shape.slice(tuple);
  const wanted = [...indices.shape.slice(0, -1), ...after];
  checkScatter(
    data,
    indices,
    updates,
    tuple >= 1 && tuple <= Math.min(MAX_RANK, data.shape.length) &&
      updates.shape.join() === wanted.join(),
  );
  const inner = countOf(after), picks = countOf(indices.shape.slice(0, -1));
  const invocations = picks === 0 ? 0 : reduction === "none" ? picks * inner : inner;
  return {
    copy: await compileExpand(gpu, data, data.shape),
    pipeline: await scatterNdKernel.compile(
      gpu,
      { REDUCTION: SCATTER_REDUCTIONS[reduction], TUPLE: tuple },
      typesOf(data),
    ),
    params: {
      picks,
      inner,
      ...numbered("size", sizes),
      ...numbered("stride", stridesOf(sizes).map((stride) => stride * inner)),
    },
    workgroups: Math.ceil(invocations / 64),
    indices: { type: indices.type, shape: indices.shape },
    updates: { type: updates.type, shape: updates.shape },
  };
}

/**
 * Records a scattering that was compiled by either of this file's functions.
 * @throws {RangeError} where the tensors are not those that were compiled for.
 */
export function recordScatter(
  recorder: Recorder,
  { copy, pipeline, params, workgroups, indices, updates }: CompiledScatter,
  tensors: Record<"data" | "indices" | "updates" | "output", Tensor>,
): void {
  checkOperands("scatter", tensors, { indices, updates });
  recordCopy(recorder, copy, { input: tensors.data, output: tensors.output });
  recorder.dispatch(pipeline, {
    params,
    bindings: { indices: tensors.indices, updates: tensors.updates, output: tensors.output },
  }, [...rowOfWorkgroups(recorder.gpu, workgroups)]);
}
