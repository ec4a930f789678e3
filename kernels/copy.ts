/**
 * Dense row-major tensors moved: slices, concatenation, expansion, tiling, and whatever else is one
 * strided copy. Elements are moved as they are, sixteen bytes at a time where they lie so.
 */

import code from "./copy.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { checkOperands, numberType } from "./elementwise.ts";
import {
  type AliasedType,
  defineKernel,
  type KernelLiteral,
  type Pipeline,
  type Recorder,
} from "./kernel.ts";
import {
  axisOf,
  broadcastShape,
  broadcastStrides,
  described,
  gridOf,
  mergeAxes,
  numbered,
  numberedParams,
  type Operand,
  stridesOf,
  type Walk,
  walkOf,
} from "./strides.ts";
import { bytesOf, type Tensor } from "./tensor.ts";

const copyKernel = defineKernel({
  name: "copy",
  code,
  params: {
    rest: "u32",
    input_offset: "u32",
    output_offset: "u32",
    ...numberedParams("size"),
    ...numberedParams("from"),
    ...numberedParams("to"),
  },
  bindings: {
    input: { type: "array<Item>", access: "read" },
    output: { type: "array<Item>", access: "read_write" },
  },
  overrides: { RANK: 1, X: 256, Y: 1, Z: 1 },
  aliases: { Item: ["u32", "f16", "vec4<u32>"] },
});

/** A kernel that moves one tensor into another, with what one dispatch of it is given. */
export interface CompiledCopy {
  readonly pipeline: Pipeline<
    KernelLiteral & {
      bindings: Record<"input" | "output", { type: string; access: "read" | "read_write" }>;
    }
  >;
  readonly params: Readonly<Record<string, number>>;
  /** A walk's, or of workgroups in a row. */
  readonly workgroups: Walk["workgroups"] | number;
  /** Types and shapes of what is moved and of what it is moved into. */
  readonly input: Operand;
  readonly output: Operand;
}

/** One operand of a strided copy: a stride per axis, in elements, and where element 0 lies. */
export interface Strided {
  readonly strides: readonly number[];
  readonly offset: number;
}

/**
 * The widest item that elements of `bytes` can be moved as, and the elements in it: all of `multiples`
 * have to be its multiples, and both operands contiguous along the innermost axis.
 */
export function itemOf(
  bytes: number,
  contiguous: boolean,
  multiples: readonly number[],
): { readonly item: AliasedType; readonly elements: number } {
  for (const [item, itemBytes] of [["vec4<u32>", 16], ["u32", 4]] as const) {
    const elements = itemBytes / bytes;
    if (elements === 1 || (contiguous && multiples.every((n) => n % elements === 0))) {
      return { item, elements };
    }
  }
  return { item: "f16", elements: 1 };
}

/**
 * Compiles the copy of `shape` elements from strides of `input` to strides of `output`.
 * @throws {RangeError} where types differ or more axes remain than kernels have.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileCopy(
  gpu: Gpu,
  input: Operand,
  output: Operand,
  shape: readonly number[],
  from: Strided,
  to: Strided,
): Promise<CompiledCopy> {
  numberType(input.type);
  if (input.type !== output.type) {
    throw new RangeError(`Cannot copy ${described(input)} into ${described(output)}`);
  }
  const { sizes, strides } = mergeAxes(shape, [from.strides, to.strides]);
  const [ofInput, ofOutput] = strides as [number[], number[]];
  const { item, elements } = itemOf(
    bytesOf(input.type),
    ofInput[0] === 1 && ofOutput[0] === 1,
    [sizes[0]!, ...ofInput.slice(1), ...ofOutput.slice(1), from.offset, to.offset],
  );
  const inItems = (own: number[]) => own.map((s, axis) => axis === 0 ? s : s / elements);
  const items = sizes.map((size, axis) => axis === 0 ? size / elements : size);
  const walk = walkOf(items);
  return {
    pipeline: await copyKernel.compile(gpu, { RANK: sizes.length, ...walk.size }, { Item: item }),
    params: {
      rest: walk.rest,
      input_offset: from.offset / elements,
      output_offset: to.offset / elements,
      ...numbered("size", items, 1),
      ...numbered("from", inItems(ofInput)),
      ...numbered("to", inItems(ofOutput)),
    },
    workgroups: walk.workgroups,
    input: { type: input.type, shape: input.shape },
    output: { type: output.type, shape: output.shape },
  };
}

/**
 * Records a copy that was compiled by any of this file's functions or transpose.ts's.
 * @throws {RangeError} where the tensors are not those that were compiled for.
 */
export function recordCopy(
  recorder: Recorder,
  { pipeline, params, workgroups, input, output }: CompiledCopy,
  tensors: Record<"input" | "output", Tensor>,
): void {
  checkOperands(pipeline.kernel.name, tensors, { input, output });
  const grid = gridOf(recorder.gpu, workgroups);
  recorder.dispatch(pipeline, { params, bindings: tensors }, grid);
}

/** A slice by its first index, step (which may be negative) and size along every axis. */
export interface Slice {
  readonly starts: readonly number[];
  readonly steps: readonly number[];
  readonly shape: readonly number[];
}

/**
 * ONNX Slice-13's starts, ends, axes and steps as a slice of `shape`: negative ones count from the
 * end, those out of range are held within it.
 * @throws {RangeError} for a step of 0, an axis that is not there or given twice.
 */
export function sliceOf(
  shape: readonly number[],
  starts: readonly number[],
  ends: readonly number[],
  axes: readonly number[] = starts.map((_, i) => i),
  steps: readonly number[] = starts.map(() => 1),
): Slice {
  const slice = { starts: shape.map(() => 0), steps: shape.map(() => 1), shape: [...shape] };
  const seen = new Set<number>();
  for (const [i, given] of axes.entries()) {
    const axis = axisOf(given, shape.length);
    const size = shape[axis]!, step = steps[i]!;
    if (seen.has(axis) || step === 0) {
      throw new RangeError(
        `Cannot slice [${shape.join(", ")}] along axis ${given} ` +
          (step === 0 ? "in steps of 0" : "twice"),
      );
    }
    seen.add(axis);
    const from0 = (v: number) => v < 0 ? v + size : v;
    const [low, high] = step > 0 ? [0, size] : [-1, size - 1];
    const start = Math.min(Math.max(from0(starts[i]!), 0), high);
    // With a negative step an end of −1 is what precedes index 0 only once it is below −size.
    const end = Math.min(Math.max(from0(ends[i]!), low), high);
    slice.starts[axis] = start;
    slice.steps[axis] = step;
    slice.shape[axis] = size === 0 ? 0 : Math.max(0, Math.ceil((end - start) / step));
  }
  return slice;
}

/**
 * Compiles a slice.
 * @throws {RangeError} where it reaches out of the input.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export function compileSlice(gpu: Gpu, input: Operand, slice: Slice): Promise<CompiledCopy> {
  const { starts, steps, shape } = slice;
  const reaches = input.shape.some((size, axis) => {
    const count = shape[axis]!;
    const last = starts[axis]! + (count - 1) * steps[axis]!;
    return count > 0 &&
      (Math.min(starts[axis]!, last) < 0 || Math.max(starts[axis]!, last) >= size);
  });
  if (reaches || shape.length !== input.shape.length) {
    return Promise.reject(
      new RangeError(
        `Cannot slice ${described(input)} from [${starts.join(", ")}] ` +
          `in steps of [${steps.join(", ")}] to [${shape.join(", ")}]`,
      ),
    );
  }
  const strides = stridesOf(input.shape);
  return compileCopy(
    gpu,
    input,
    { type: input.type, shape },
    shape,
    {
      strides: strides.map((stride, axis) => stride * steps[axis]!),
      offset: strides.reduce((sum, stride, axis) => sum + stride * starts[axis]!, 0),
    },
    { strides: stridesOf(shape), offset: 0 },
  );
}

/**
 * Compiles ONNX Expand-13: the input repeated along axes of size 1 to what it and `shape` broadcast to.
 * @throws {RangeError} where they do not broadcast.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileExpand(
  gpu: Gpu,
  input: Operand,
  shape: readonly number[],
): Promise<CompiledCopy> {
  const output = broadcastShape(input.shape, shape);
  return await compileCopy(gpu, input, { type: input.type, shape: output }, output, {
    strides: broadcastStrides(input.shape, output),
    offset: 0,
  }, { strides: stridesOf(output), offset: 0 });
}

/**
 * Compiles ONNX Tile-13: the input repeated `repeats` times along each axis.
 * @throws {RangeError} for as many repeats as there are not axes, or more axes than kernels have.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileTile(
  gpu: Gpu,
  input: Operand,
  repeats: readonly number[],
): Promise<CompiledCopy> {
  if (repeats.length !== input.shape.length || repeats.some((n) => !(n >= 0))) {
    throw new RangeError(`Cannot tile ${described(input)} [${repeats.join(", ")}] times`);
  }
  // [repeats, size] along each axis: the input goes nowhere along the first.
  const shape = input.shape.flatMap((size, axis) => [repeats[axis]!, size]);
  const output = input.shape.map((size, axis) => size * repeats[axis]!);
  return await compileCopy(gpu, input, { type: input.type, shape: output }, shape, {
    strides: stridesOf(input.shape).flatMap((stride) => [0, stride]),
    offset: 0,
  }, { strides: stridesOf(shape), offset: 0 });
}

/** The copies that make a concatenation, one an input. */
export interface CompiledConcat {
  readonly copies: readonly CompiledCopy[];
  readonly output: Operand;
}

/**
 * Compiles ONNX Concat-13 along an axis, negative from the end.
 * @throws {RangeError} where shapes differ along another axis, or types do.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileConcat(
  gpu: Gpu,
  inputs: readonly Operand[],
  axis: number,
): Promise<CompiledConcat> {
  const [first] = inputs;
  if (first === undefined) throw new RangeError("Cannot concatenate nothing");
  const { type } = first;
  const along = axisOf(axis, first.shape.length);
  const others = ({ shape }: Operand) => shape.map((size, i) => i === along ? -1 : size).join();
  if (inputs.some((input) => input.type !== type || others(input) !== others(first))) {
    throw new RangeError(
      `Cannot concatenate ${inputs.map(described).join(", ")} along axis ${axis}`,
    );
  }
  const shape = [...first.shape];
  shape[along] = inputs.reduce((sum, { shape }) => sum + shape[along]!, 0);
  const output: Operand = { type, shape };
  const strides = stridesOf(shape);
  let at = 0;
  const copies = inputs.map((input) => {
    const offset = at * strides[along]!;
    at += input.shape[along]!;
    const from = { strides: stridesOf(input.shape), offset: 0 };
    return compileCopy(gpu, input, output, input.shape, from, { strides, offset });
  });
  return { copies: await Promise.all(copies), output };
}

/** Records a concatenation. @throws {RangeError} where the tensors are not those compiled for. */
export function recordConcat(
  recorder: Recorder,
  { copies }: CompiledConcat,
  { inputs, output }: { readonly inputs: readonly Tensor[]; readonly output: Tensor },
): void {
  if (inputs.length !== copies.length) {
    throw new RangeError(
      `Cannot concatenate ${inputs.length} tensors: compiled for ${copies.length}`,
    );
  }
  for (const [i, copy] of copies.entries()) {
    recordCopy(recorder, copy, { input: inputs[i]!, output });
  }
}
