/**
 * Reductions of dense row-major tensors over any of their axes: ONNX's Reduce operators, ArgMax,
 * ArgMin and CumSum. f32 and f16 are summed in f32, in blocks or as a tree, so that long sums keep
 * their error small.
 */

import codeArgmax from "./argmax.wgsl" with { type: "text" };
import codeCumsum from "./cumsum.wgsl" with { type: "text" };
import code from "./reduce.wgsl" with { type: "text" };
import codeRows from "./reduce_rows.wgsl" with { type: "text" };
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
import { axisOf, countOf, described, type Operand, stridesOf } from "./strides.ts";
import type { ElementType, Tensor } from "./tensor.ts";

const params = {
  outputs: "u32",
  terms: "u32",
  identity: "i32",
  lowest: "i32",
  size0: "u32",
  size1: "u32",
  size2: "u32",
  size3: "u32",
  stride0: "u32",
  stride1: "u32",
  stride2: "u32",
  stride3: "u32",
  length0: "u32",
  length1: "u32",
  length2: "u32",
  length3: "u32",
  step0: "u32",
  step1: "u32",
  step2: "u32",
  step3: "u32",
} as const;
const bindings = {
  input: { type: "array<vec4<Element>>", access: "read" },
  output: { type: "array<vec4<Element>>", access: "read_write" },
} as const;
const aliases = { Element: ["f32", "f16", "i32", "u32"], Value: ["f32", "i32", "u32"] } as const;

const reduceKernel = defineKernel({
  name: "reduce",
  code,
  params,
  bindings,
  overrides: { OPERATION: 0, ACROSS: false, ALONG: false },
  aliases,
});

const reduceRowsKernel = defineKernel({
  name: "reduce_rows",
  code: codeRows,
  params,
  bindings,
  overrides: { OPERATION: 0, FOURS: false, LANES: 256 },
  aliases,
});

const argmaxKernel = defineKernel({
  name: "argmax",
  code: codeArgmax,
  params: { outputs: "u32", length: "u32", inner: "u32" },
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<i32>>", access: "read_write" },
  },
  overrides: { SMALLEST: false, LAST: false, ACROSS: false },
  aliases: { Element: ["f32", "f16", "i32", "u32"] },
});

const cumsumKernel = defineKernel({
  name: "cumsum",
  code: codeCumsum,
  params: { rows: "u32", length: "u32", inner: "u32" },
  bindings: {
    input: { type: "array<Element>", access: "read" },
    output: { type: "array<Element>", access: "read_write" },
  },
  overrides: { REVERSE: false, EXCLUSIVE: false },
  aliases,
});

/** By number, which is OPERATION's in reduce.wgsl and reduce_rows.wgsl. */
export const REDUCE_OPERATIONS = {
  sum: 0,
  /** Of integers truncated toward zero. */
  mean: 1,
  max: 2,
  min: 3,
  prod: 4,
  /** Σ|v|. */
  l1: 5,
  /** √Σv². */
  l2: 6,
  sum_square: 7,
  log_sum: 8,
  /** ln Σeᵛ, the largest taken out. */
  log_sum_exp: 9,
} as const;

export type ReduceOperation = keyof typeof REDUCE_OPERATIONS;

/** Which of the kernels: one invocation an output, or one workgroup. */
export type ReduceVariant = "serial" | "rows";

export interface CompiledReduce {
  readonly pipeline: Pipeline<
    KernelLiteral & { params: typeof params; bindings: typeof bindings }
  >;
  readonly operation: ReduceOperation;
  readonly params: { readonly [M in keyof typeof params]: number };
  readonly workgroups: number;
  readonly input: Operand;
  /** Reduced axes have size 1 where they are kept. */
  readonly output: Operand;
}

/** Terms of an output from which on a workgroup of its own is worth it on a GPU. */
const ROW_TERMS = 256;
/** Outputs that fill a GPU with an invocation each, so that no workgroup is needed. */
const MANY_OUTPUTS = 1 << 18;

/** The bits of what combining starts from: in a sum 0, in a product 1, in a largest what is lowest. */
function identityBits(operation: ReduceOperation, type: ElementType): number {
  const floats = type === "f32" || type === "f16";
  switch (operation) {
    case "prod":
      return floats ? 0x3f800000 : 1;
    case "max":
      return floats ? 0xff800000 : type === "i32" ? 0x80000000 : 0;
    case "min":
      return floats ? 0x7f800000 : type === "i32" ? 0x7fffffff : 0xffffffff;
    default:
      return 0;
  }
}

/** One group of axes that are all kept or all reduced, in elements of the dense input. */
interface Group {
  readonly reduced: boolean;
  size: number;
  readonly stride: number;
}

/**
 * Compiles a reduction over `axes`, negative ones counted from the end; over none it is the operation
 * of each element by itself. Without a variant the adapter's and shape's own is taken.
 * @throws {RangeError} for an axis that is not there or given twice, and a type without the operation.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileReduce(
  gpu: Gpu,
  operation: ReduceOperation,
  input: Operand,
  axes: readonly number[],
  options: { readonly keepDims?: boolean; readonly variant?: ReduceVariant } = {},
): Promise<CompiledReduce> {
  const { type, shape } = input;
  const reduced = new Set(axes.map((axis) => axisOf(axis, shape.length)));
  if (reduced.size !== axes.length) {
    throw new RangeError(`Cannot reduce ${described(input)} over [${axes.join(", ")}]: twice`);
  }
  const element = numberType(type);
  const value: AliasedType = element === "f16" ? "f32" : element;
  // Innermost first; neighbours of one kind are one, since the input is dense, so at most 4 + 4 remain.
  const strides = stridesOf(shape);
  const groups: Group[] = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    const last = groups.at(-1);
    if (last?.reduced === reduced.has(axis)) last.size *= shape[axis]!;
    else groups.push({ reduced: reduced.has(axis), size: shape[axis]!, stride: strides[axis]! });
  }
  const kept = groups.filter((group) => !group.reduced);
  const terms = groups.filter((group) => group.reduced);
  if (kept.length > 4 || terms.length > 4) {
    throw new RangeError(`Cannot reduce ${described(input)} over [${axes.join(", ")}]`);
  }
  const inner = groups[0];
  const fours = inner !== undefined && inner.size % 4 === 0 && inner.size > 0;
  const outputs = countOf(kept.map(({ size }) => size));
  const count = countOf(terms.map(({ size }) => size));
  const rows = inner?.reduced === true &&
    (options.variant ??
        (gpu.adapter.isSoftware || count < ROW_TERMS || outputs >= MANY_OUTPUTS
          ? "serial"
          : "rows")) === "rows";
  const across = fours && !inner.reduced;
  const OPERATION = REDUCE_OPERATIONS[operation];
  const types = { Element: element, Value: value };
  const items = across ? outputs / 4 : outputs;
  const four = <N extends string>(name: N, values: readonly number[], otherwise: number) =>
    Object.fromEntries(
      [0, 1, 2, 3].map((i) => [`${name}${i}`, values[i] ?? otherwise]),
    ) as Record<`${N}${0 | 1 | 2 | 3}`, number>;
  return {
    pipeline: rows
      ? await reduceRowsKernel.compile(gpu, {
        OPERATION,
        FOURS: fours,
        LANES: count >= 1024 ? 256 : 64,
      }, types)
      : await reduceKernel.compile(gpu, {
        OPERATION,
        ACROSS: across,
        ALONG: fours && inner.reduced,
      }, types),
    operation,
    params: {
      outputs: items,
      terms: count,
      identity: identityBits(operation, type),
      lowest: identityBits("max", type),
      ...four("size", kept.map(({ size }) => size), 1),
      ...four("stride", kept.map(({ stride }) => stride), 0),
      ...four("length", terms.map(({ size }) => size), 1),
      ...four("step", terms.map(({ stride }) => stride), 0),
    },
    workgroups: rows ? outputs : Math.ceil(items / 64),
    input: { type, shape },
    output: {
      type,
      shape: options.keepDims === false
        ? shape.filter((_, axis) => !reduced.has(axis))
        : shape.map((size, axis) => reduced.has(axis) ? 1 : size),
    },
  };
}

/** Records a reduction. @throws {RangeError} where the tensors are not those that were compiled for. */
export function recordReduce(
  recorder: Recorder,
  { pipeline, operation, params, workgroups, input, output }: CompiledReduce,
  tensors: Record<"input" | "output", Tensor>,
): void {
  checkOperands(`reduce to "${operation}"`, tensors, { input, output });
  recorder.dispatch(pipeline, { params, bindings: tensors }, [
    ...rowOfWorkgroups(recorder.gpu, workgroups),
  ]);
}

/** A tensor as [outer, axis, inner]. */
export function aroundAxis(
  shape: readonly number[],
  axis: number,
): { readonly outer: number; readonly length: number; readonly inner: number } {
  const along = axisOf(axis, shape.length);
  return {
    outer: countOf(shape.slice(0, along)),
    length: shape[along]!,
    inner: countOf(shape.slice(along + 1)),
  };
}

export interface CompiledArgmax {
  readonly pipeline: Pipeline<typeof argmaxKernel.literal>;
  readonly params: { readonly [M in keyof typeof argmaxKernel.literal.params]: number };
  readonly input: Operand;
  /** i32. */
  readonly output: Operand;
}

export interface ArgmaxOptions {
  /** Of the smallest: ONNX ArgMin-13. */
  readonly smallest?: boolean;
  /** Of equal ones the last. */
  readonly selectLastIndex?: boolean;
  /** Whether the axis stays, of size 1; the default. */
  readonly keepDims?: boolean;
}

/**
 * Compiles ONNX ArgMax-13: the index along `axis` of what is largest, as i32.
 * @throws {RangeError} for an axis that is not there or empty.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileArgmax(
  gpu: Gpu,
  input: Operand,
  axis: number,
  { smallest = false, selectLastIndex = false, keepDims = true }: ArgmaxOptions = {},
): Promise<CompiledArgmax> {
  const { type, shape } = input;
  const { outer, length, inner } = aroundAxis(shape, axis);
  if (length === 0) throw new RangeError(`Cannot find the largest of none in ${described(input)}`);
  const along = axisOf(axis, shape.length);
  const across = inner % 4 === 0;
  return {
    pipeline: await argmaxKernel.compile(
      gpu,
      { SMALLEST: smallest, LAST: selectLastIndex, ACROSS: across },
      { Element: numberType(type) },
    ),
    params: { outputs: outer * inner / (across ? 4 : 1), length, inner },
    input: { type, shape },
    output: {
      type: "i32",
      shape: keepDims ? shape.with(along, 1) : shape.toSpliced(along, 1),
    },
  };
}

/** Records an argmax. @throws {RangeError} where the tensors are not those that were compiled for. */
export function recordArgmax(
  recorder: Recorder,
  { pipeline, params, input, output }: CompiledArgmax,
  tensors: Record<"input" | "output", Tensor>,
): void {
  checkOperands("find the largest", tensors, { input, output });
  recorder.dispatch(pipeline, { params, bindings: tensors }, [
    ...rowOfWorkgroups(recorder.gpu, Math.ceil(params.outputs / 64)),
  ]);
}

export interface CompiledCumsum {
  readonly pipeline: Pipeline<typeof cumsumKernel.literal>;
  readonly params: { readonly [M in keyof typeof cumsumKernel.literal.params]: number };
  /** Of the output too. */
  readonly input: Operand;
}

/**
 * Compiles ONNX CumSum-14 along an axis.
 * @throws {RangeError} for an axis that is not there.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileCumsum(
  gpu: Gpu,
  input: Operand,
  axis: number,
  { reverse = false, exclusive = false }: {
    readonly reverse?: boolean;
    readonly exclusive?: boolean;
  } = {},
): Promise<CompiledCumsum> {
  const { outer, length, inner } = aroundAxis(input.shape, axis);
  const element = numberType(input.type);
  return {
    pipeline: await cumsumKernel.compile(gpu, { REVERSE: reverse, EXCLUSIVE: exclusive }, {
      Element: element,
      Value: element === "f16" ? "f32" : element,
    }),
    params: { rows: outer * inner, length, inner },
    input: { type: input.type, shape: input.shape },
  };
}

/** Records a cumulative sum. @throws {RangeError} where the tensors are not those compiled for. */
export function recordCumsum(
  recorder: Recorder,
  { pipeline, params, input }: CompiledCumsum,
  tensors: Record<"input" | "output", Tensor>,
): void {
  checkOperands("sum", tensors, { input, output: input });
  recorder.dispatch(pipeline, { params, bindings: tensors }, [
    ...rowOfWorkgroups(recorder.gpu, Math.ceil(params.rows / 64)),
  ]);
}
