/** Reductions, argmax, softmax and cumulative sums in f64, element by element. */

import type { ReduceOperation } from "../../kernels/reduce.ts";
import type { Host } from "./movement.ts";
import { forEachIndex, positionOf } from "./strides.ts";

/** All terms of one output. */
function reduced(operation: ReduceOperation, terms: readonly number[]): number {
  const sum = (of: (v: number) => number) => terms.reduce((total, v) => total + of(v), 0);
  switch (operation) {
    case "sum":
      return sum((v) => v);
    case "mean":
      return sum((v) => v) / terms.length;
    case "max":
      return terms.reduce((a, b) => Math.max(a, b), -Infinity);
    case "min":
      return terms.reduce((a, b) => Math.min(a, b), Infinity);
    case "prod":
      return terms.reduce((a, b) => a * b, 1);
    case "l1":
      return sum(Math.abs);
    case "l2":
      return Math.sqrt(sum((v) => v * v));
    case "sum_square":
      return sum((v) => v * v);
    case "log_sum":
      return Math.log(sum((v) => v));
    case "log_sum_exp": {
      const largest = terms.reduce((a, b) => Math.max(a, b), -Infinity);
      return largest === -Infinity
        ? largest
        : largest + Math.log(sum((v) => Math.exp(v - largest)));
    }
  }
}

/** The terms of every output, axes kept as size 1. */
function termsOf(input: Host, axes: readonly number[]): number[][] {
  const shape = input.shape.map((size, axis) => axes.includes(axis) ? 1 : size);
  const terms: number[][] = Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => []);
  forEachIndex(input.shape, (index, position) => {
    terms[positionOf(index, shape)]!.push(input.data[position]!);
  });
  return terms;
}

export function reduce(operation: ReduceOperation, input: Host, axes: readonly number[]): number[] {
  return termsOf(input, axes).map((terms) => reduced(operation, terms));
}

/** Σ|terms| of each output: what its error is bounded by. */
export function magnitudes(input: Host, axes: readonly number[], square: boolean): number[] {
  return reduce(square ? "sum_square" : "l1", input, axes);
}

export function argmax(input: Host, axis: number, smallest: boolean, last: boolean): number[] {
  return termsOf(input, [axis]).map((terms) => {
    const best = smallest ? Math.min(...terms) : Math.max(...terms);
    return last ? terms.lastIndexOf(best) : terms.indexOf(best);
  });
}

export function softmax(input: Host, axis: number, log: boolean): number[] {
  const kept = input.shape.with(axis, 1);
  const rows = termsOf(input, [axis]);
  const output: number[] = [];
  forEachIndex(input.shape, (index, position) => {
    const row = rows[positionOf(index, kept)]!;
    const largest = row.reduce((a, b) => Math.max(a, b), -Infinity);
    if (largest === -Infinity) return void output.push(log ? -Infinity : 0);
    const sum = row.reduce((total, v) => total + Math.exp(v - largest), 0);
    const v = input.data[position]! - largest;
    output.push(log ? v - Math.log(sum) : Math.exp(v) / sum);
  });
  return output;
}

export function cumsum(input: Host, axis: number, reverse: boolean, exclusive: boolean): number[] {
  const output: number[] = [];
  forEachIndex(input.shape, (index) => {
    let sum = 0;
    for (let b = 0; b < input.shape[axis]!; b++) {
      const a = index[axis]!;
      const counts = b === a ? !exclusive : reverse ? b > a : b < a;
      if (counts) sum += input.data[positionOf(index.with(axis, b), input.shape)]!;
    }
    output.push(sum);
  });
  return output;
}
