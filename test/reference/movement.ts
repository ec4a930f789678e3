/** What kernels/copy.ts, transpose.ts, pad.ts, gather.ts and scatter.ts do, one element at a time. */

import type { PadMode } from "../../kernels/pad.ts";
import { forEachIndex, positionOf } from "./strides.ts";

/** A tensor on the host. */
export interface Host {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
}

/** Every element of `shape` by what `source` says of its index; undefined is `otherwise`. */
function each(
  shape: readonly number[],
  input: Host,
  source: (index: readonly number[]) => readonly number[] | undefined,
  otherwise = 0,
): number[] {
  const output: number[] = [];
  forEachIndex(shape, (index) => {
    const from = source(index);
    output.push(from === undefined ? otherwise : input.data[positionOf(from, input.shape)]!);
  });
  return output;
}

export function transpose(input: Host, permutation: readonly number[]): number[] {
  const shape = permutation.map((axis) => input.shape[axis]!);
  return each(shape, input, (index) => {
    const from: number[] = [];
    for (const [i, axis] of permutation.entries()) from[axis] = index[i]!;
    return from;
  });
}

/** NumPy's input[start:end:step] along every axis: what JavaScript counts, with no clamping rules. */
export function slice(
  input: Host,
  starts: readonly number[],
  steps: readonly number[],
  shape: readonly number[],
): number[] {
  return each(shape, input, (index) => index.map((i, axis) => starts[axis]! + i * steps[axis]!));
}

export function expand(input: Host, shape: readonly number[]): number[] {
  return each(shape, input, (index) => index);
}

export function tile(input: Host, repeats: readonly number[]): number[] {
  const shape = input.shape.map((size, axis) => size * repeats[axis]!);
  return each(shape, input, (index) => index.map((i, axis) => i % input.shape[axis]!));
}

export function concat(inputs: readonly Host[], axis: number): number[] {
  const shape = [...inputs[0]!.shape];
  shape[axis] = inputs.reduce((sum, input) => sum + input.shape[axis]!, 0);
  const output: number[] = [];
  forEachIndex(shape, (index) => {
    let at = index[axis]!;
    const own = inputs.find(({ shape }) => at < shape[axis]! || (at -= shape[axis]!, false))!;
    output.push(own.data[positionOf(index.with(axis, at), own.shape)]!);
  });
  return output;
}

/** The index that an index outside [0, n) stands for, walked step by step. */
function padded(i: number, n: number, mode: PadMode): number | undefined {
  if (mode === "constant") return i >= 0 && i < n ? i : undefined;
  if (mode === "edge") return Math.min(Math.max(i, 0), n - 1);
  while (i < 0 || i >= n) {
    if (mode === "wrap") i += i < 0 ? n : -n;
    else if (n === 1) i = 0;
    else i = i < 0 ? -i : 2 * (n - 1) - i;
  }
  return i;
}

export function pad(
  input: Host,
  before: readonly number[],
  after: readonly number[],
  mode: PadMode,
  constant = 0,
): number[] {
  const shape = input.shape.map((size, axis) => size + before[axis]! + after[axis]!);
  return each(shape, input, (index) => {
    const from = index.map((i, axis) => padded(i - before[axis]!, input.shape[axis]!, mode));
    return from.includes(undefined) ? undefined : from as number[];
  }, constant);
}

const fromEnd = (i: number, size: number) => i < 0 ? i + size : i;

export function gather(input: Host, indices: Host, axis: number): number[] {
  const rank = indices.shape.length;
  const shape = [
    ...input.shape.slice(0, axis),
    ...indices.shape,
    ...input.shape.slice(axis + 1),
  ];
  return each(shape, input, (index) => [
    ...index.slice(0, axis),
    fromEnd(
      indices.data[positionOf(index.slice(axis, axis + rank), indices.shape)]!,
      input.shape[axis]!,
    ),
    ...index.slice(axis + rank),
  ]);
}

export function gatherElements(input: Host, indices: Host, axis: number): number[] {
  return each(
    indices.shape,
    input,
    (index) =>
      index.with(
        axis,
        fromEnd(indices.data[positionOf(index, indices.shape)]!, input.shape[axis]!),
      ),
  );
}

export function gatherNd(input: Host, indices: Host, batchDims: number): number[] {
  const tuple = indices.shape.at(-1)!;
  const lists = indices.shape.length - 1;
  const shape = [...indices.shape.slice(0, -1), ...input.shape.slice(batchDims + tuple)];
  return each(shape, input, (index) => [
    ...index.slice(0, batchDims),
    ...Array.from({ length: tuple }, (_, t) =>
      fromEnd(
        indices.data[positionOf([...index.slice(0, lists), t], indices.shape)]!,
        input.shape[batchDims + t]!,
      )),
    ...index.slice(lists),
  ]);
}

/** Old and update to new. */
export type Reduce = (old: number, update: number) => number;

export function scatterElements(
  data: Host,
  indices: Host,
  updates: Host,
  axis: number,
  reduce: Reduce,
): number[] {
  const output = Array.from(data.data);
  forEachIndex(indices.shape, (index, position) => {
    const to = fromEnd(indices.data[position]!, data.shape[axis]!);
    const at = positionOf(index.with(axis, to), data.shape);
    output[at] = reduce(output[at]!, updates.data[position]!);
  });
  return output;
}

export function scatterNd(data: Host, indices: Host, updates: Host, reduce: Reduce): number[] {
  const output = Array.from(data.data);
  const tuple = indices.shape.at(-1)!, lists = indices.shape.length - 1;
  forEachIndex(updates.shape, (index, position) => {
    const to = Array.from({ length: tuple }, (_, t) =>
      fromEnd(
        indices.data[positionOf([...index.slice(0, lists), t], indices.shape)]!,
        data.shape[t]!,
      ));
    const at = positionOf([...to, ...index.slice(lists)], data.shape);
    output[at] = reduce(output[at]!, updates.data[position]!);
  });
  return output;
}
