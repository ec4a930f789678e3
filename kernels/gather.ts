/**
 * Dense row-major tensors gathered by indices that are on the GPU: ONNX Gather, GatherND and
 * GatherElements. Indices are i32; one out of range is held within the axis, since a GPU cannot throw.
 */

import codeElements from "./gather_elements.wgsl" with { type: "text" };
import code from "./gather.wgsl" with { type: "text" };
import { itemOf } from "./copy.ts";
import type { Gpu } from "./device.ts";
import { checkOperands, numberType } from "./elementwise.ts";
import {
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
import { bytesOf, type Tensor } from "./tensor.ts";

/** Items that a workgroup moves: ITEMS · 256. */
const ITEMS_PER_WORKGROUP = 1024;

const bindings = {
  input: { type: "array<Item>", access: "read" },
  indices: { type: "array<i32>", access: "read" },
  output: { type: "array<Item>", access: "read_write" },
} as const;

const gatherKernel = defineKernel({
  name: "gather",
  code,
  params: {
    count: "u32",
    picks: "u32",
    inner: "u32",
    outer_stride: "u32",
    ...numberedParams("size"),
    ...numberedParams("stride"),
  },
  bindings,
  overrides: { TUPLE: 1, BATCHED: false },
  aliases: { Item: ["u32", "f16", "vec4<u32>"] },
});

const gatherElementsKernel = defineKernel({
  name: "gather_elements",
  code: codeElements,
  params: {
    count: "u32",
    axis_size: "u32",
    axis_stride: "u32",
    ...numberedParams("size"),
    ...numberedParams("from"),
  },
  bindings,
  overrides: { RANK: 1 },
  aliases: { Item: ["u32", "f16"] },
});

/** A gathering, with what one dispatch of it is given. */
export interface CompiledGather {
  readonly pipeline: Pipeline<KernelLiteral & { bindings: typeof bindings }>;
  readonly params: Readonly<Record<string, number>>;
  readonly input: Operand;
  readonly indices: Operand;
  readonly output: Operand;
}

function checkIndices(action: string, input: Operand, indices: Operand, fits: boolean): void {
  numberType(input.type);
  if (!fits || indices.type !== "i32") {
    throw new RangeError(
      `Cannot ${action} ${described(input)} by ${described(indices)}`,
    );
  }
}

/** Tuples of indices into `sizes`, one list for all of `outer` or one for each. */
async function compileTuples(
  gpu: Gpu,
  [input, indices, output]: readonly [Operand, Operand, Operand],
  outer: number,
  sizes: readonly number[],
  inner: number,
  batched: boolean,
): Promise<CompiledGather> {
  const { item, elements } = itemOf(bytesOf(input.type), true, [inner]);
  const items = inner / elements;
  const count = countOf(output.shape) / elements;
  return {
    pipeline: await gatherKernel.compile(
      gpu,
      { TUPLE: sizes.length, BATCHED: batched },
      { Item: item },
    ),
    params: {
      count,
      picks: outer === 0 || inner === 0 ? 0 : count / outer / items,
      inner: items,
      outer_stride: countOf(sizes) * items,
      ...numbered("size", sizes),
      ...numbered("stride", stridesOf(sizes).map((stride) => stride * items)),
    },
    input: { type: input.type, shape: input.shape },
    indices: { type: indices.type, shape: indices.shape },
    output,
  };
}

/**
 * Compiles ONNX Gather-13 along an axis: output [before axis, indices, after axis].
 * @throws {RangeError} for indices that are no i32, an axis that is not there or has nothing to take.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileGather(
  gpu: Gpu,
  input: Operand,
  indices: Operand,
  axis = 0,
): Promise<CompiledGather> {
  const along = axisOf(axis, input.shape.length);
  const size = input.shape[along]!;
  checkIndices("gather", input, indices, size > 0 || countOf(indices.shape) === 0);
  const before = input.shape.slice(0, along), after = input.shape.slice(along + 1);
  const output = { type: input.type, shape: [...before, ...indices.shape, ...after] };
  return await compileTuples(
    gpu,
    [input, indices, output],
    countOf(before),
    [size],
    countOf(after),
    false,
  );
}

/**
 * Compiles ONNX GatherND-13: the indices' last axis is a tuple into the axes that follow the first
 * `batchDims` ones.
 * @throws {RangeError} for indices that are no i32, a tuple longer than there are axes, or batches
 *     that differ.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileGatherNd(
  gpu: Gpu,
  input: Operand,
  indices: Operand,
  batchDims = 0,
): Promise<CompiledGather> {
  const tuple = indices.shape.at(-1) ?? 0;
  const batches = input.shape.slice(0, batchDims);
  const sizes = input.shape.slice(batchDims, batchDims + tuple);
  const after = input.shape.slice(batchDims + tuple);
  checkIndices(
    "gather tuples of",
    input,
    indices,
    batchDims < indices.shape.length && tuple >= 1 && tuple <= MAX_RANK && sizes.length === tuple &&
      indices.shape.slice(0, batchDims).join() === batches.join(),
  );
  const output = { type: input.type, shape: [...indices.shape.slice(0, -1), ...after] };
  const batched = batchDims > 0;
  return await compileTuples(
    gpu,
    [input, indices, output],
    countOf(batches),
    sizes,
    countOf(after),
    batched,
  );
}

/**
 * Compiles ONNX GatherElements-13: the output is of the indices' shape, and every index stands for the
 * output's own along `axis`.
 * @throws {RangeError} for indices that are no i32, or larger than the input along another axis.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileGatherElements(
  gpu: Gpu,
  input: Operand,
  indices: Operand,
  axis = 0,
): Promise<CompiledGather> {
  const along = axisOf(axis, input.shape.length);
  checkIndices(
    "gather elements of",
    input,
    indices,
    indices.shape.length === input.shape.length &&
      indices.shape.every((size, i) =>
        i === along ? size === 0 || input.shape[i]! > 0 : size <= input.shape[i]!
      ),
  );
  const strides = stridesOf(input.shape);
  const { sizes, strides: [from] } = mergeAxes(indices.shape, [
    strides.map((stride, i) => i === along ? 0 : stride),
  ]);
  return {
    pipeline: await gatherElementsKernel.compile(
      gpu,
      { RANK: sizes.length },
      { Item: input.type === "f16" ? "f16" : "u32" },
    ),
    params: {
      count: countOf(indices.shape),
      axis_size: input.shape[along]!,
      axis_stride: strides[along]!,
      ...numbered("size", sizes),
      ...numbered("from", from!),
    },
    input: { type: input.type, shape: input.shape },
    indices: { type: indices.type, shape: indices.shape },
    output: { type: input.type, shape: indices.shape },
  };
}

/**
 * Records a gathering that was compiled by any of this file's functions.
 * @throws {RangeError} where the tensors are not those that were compiled for.
 */
export function recordGather(
  recorder: Recorder,
  { pipeline, params, input, indices, output }: CompiledGather,
  tensors: Record<"input" | "indices" | "output", Tensor>,
): void {
  checkOperands("gather", tensors, { input, indices, output });
  recorder.dispatch(pipeline, { params, bindings: tensors }, [
    ...rowOfWorkgroups(recorder.gpu, Math.ceil(params.count! / ITEMS_PER_WORKGROUP)),
  ]);
}
