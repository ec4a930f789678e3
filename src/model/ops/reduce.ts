/** Reductions along axes (ONNX ReduceSum-13, ReduceMean-18, ArgMax-13, CumSum-14 and their kin). */

import { elementCount, numbersOf } from "../host_tensor.ts";
import { around, forEachIndex, stridesOf } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";

/**
 * Axes of a node, sorted: from its attribute or, where newer versions have it, from input `at`.
 * Undefined where they depend on data; all where none are said, `none` where there is nothing to do.
 */
export function axesOf(node: NodeReader, at: number): readonly number[] | undefined {
  const rank = node.shape(0).length;
  const input = node.inputs[at];
  if (input !== undefined && input.known === undefined) return undefined;
  const list = input === undefined ? node.numbers("axes") : Array.from(input.known!.data, Number);
  if (list === undefined || list.length === 0) {
    const noop = node.number("noop_with_empty_axes", 0) === 1;
    return noop ? [] : Array.from({ length: rank }, (_, i) => i);
  }
  const axes = list.map((axis) => node.axis(axis, rank)).sort((a, b) => a - b);
  if (new Set(axes).size !== axes.length) throw node.fail(`axes [${list.join(", ")}]`);
  return axes;
}

export interface Reduction {
  readonly axes: readonly number[];
  readonly keep: boolean;
  /** The output's. */
  readonly shape: readonly number[];
}

/** What a node reduces; undefined where its axes depend on data. */
export function reduction(node: NodeReader): Reduction | undefined {
  const axes = axesOf(node, 1);
  if (axes === undefined) return undefined;
  const keep = node.number("keepdims", 1) !== 0;
  const shape = node.shape(0).flatMap((d, i) => axes.includes(i) ? (keep ? [1] : []) : [d]);
  return { axes, keep, shape };
}

interface Reducer {
  readonly from: number;
  step(sum: number, v: number): number;
  end?(sum: number, count: number): number;
}

function reducer(make: Reducer): Operator {
  return define({
    inputs: [1, 2],
    attributes: "axes keepdims noop_with_empty_axes",
    shapes: (node) => [reduction(node)?.shape],
    compute: (node, [x], [out]) => {
      const { axes } = reduction(node)!;
      const values = numbersOf(x!);
      // Steps in the output along each axis of the input.
      const kept = stridesOf(x!.shape.map((d, i) => axes.includes(i) ? 1 : d));
      const strides = kept.map((s, i) => axes.includes(i) ? 0 : s);
      const count = axes.reduce((n, axis) => n * x!.shape[axis]!, 1);
      const y = new Float64Array(elementCount(out!.shape!)).fill(make.from);
      forEachIndex(x!.shape, (index, position) => {
        let at = 0;
        for (let i = 0; i < index.length; i++) at += index[i]! * strides[i]!;
        y[at] = make.step(y[at]!, values[position]!);
      });
      const { end } = make;
      return [end === undefined ? y : y.map((v) => end(v, count))];
    },
  });
}

/** log Σ exp in two passes, so that nothing overflows. */
const logSumExp: Operator = define({
  inputs: [1, 2],
  attributes: "axes keepdims noop_with_empty_axes",
  shapes: (node) => [reduction(node)?.shape],
  compute: (node, [x], [out]) => {
    const { axes } = reduction(node)!;
    const values = numbersOf(x!);
    const kept = stridesOf(x!.shape.map((d, i) => axes.includes(i) ? 1 : d));
    const strides = kept.map((s, i) => axes.includes(i) ? 0 : s);
    const count = elementCount(out!.shape!);
    const most = new Float64Array(count).fill(-Infinity);
    const sums = new Float64Array(count);
    const each = (visit: (at: number, v: number) => void) =>
      forEachIndex(x!.shape, (index, position) => {
        let at = 0;
        for (let i = 0; i < index.length; i++) at += index[i]! * strides[i]!;
        visit(at, values[position]!);
      });
    each((at, v) => most[at] = Math.max(most[at]!, v));
    each((at, v) => sums[at]! += v === most[at] ? 1 : Math.exp(v - most[at]!));
    return [sums.map((sum, i) => Math.log(sum) + (sum === 0 ? 0 : most[i]!))];
  },
});

/** Least or greatest number of the type, which a reduction of nothing gives. */
function extreme(pick: (a: number, b: number) => number, from: number): Operator {
  return reducer({ from, step: pick });
}

function argument(better: (v: number, best: number) => boolean): Operator {
  return define({
    inputs: [1, 1],
    attributes: "axis keepdims select_last_index",
    types: () => ["int64"],
    shapes: (node) => {
      const x = node.shape(0);
      const axis = node.axis(node.number("axis", 0), x.length);
      const keep = node.number("keepdims", 1) !== 0;
      return [x.flatMap((d, i) => i === axis ? (keep ? [1] : []) : [d])];
    },
    compute: (node, [x]) => {
      const axis = node.axis(node.number("axis", 0), x!.shape.length);
      const last = node.number("select_last_index", 0) === 1;
      const [outer, length, inner] = around(x!.shape, axis);
      const values = numbersOf(x!);
      const y = new Float64Array(outer * inner);
      for (let o = 0; o < outer; o++) {
        for (let i = 0; i < inner; i++) {
          let best = 0;
          for (let k = 1; k < length; k++) {
            const v = values[(o * length + k) * inner + i]!;
            const top = values[(o * length + best) * inner + i]!;
            if (better(v, top) || (last && v === top)) best = k;
          }
          y[o * inner + i] = best;
        }
      }
      return [y];
    },
  });
}

/** Running totals along an axis. Source: ONNX CumSum-14. */
function cumulative(from: number, step: (total: number, v: number) => number): Operator {
  return define({
    inputs: [2, 2],
    attributes: "exclusive reverse",
    shapes: (node) => [node.shape(0)],
    compute: (node, [x, axisOf]) => {
      const axis = node.axis(Number(axisOf!.data[0]), x!.shape.length);
      const exclusive = node.number("exclusive", 0) === 1;
      const reverse = node.number("reverse", 0) === 1;
      const [outer, length, inner] = around(x!.shape, axis);
      const values = numbersOf(x!);
      const y = new Float64Array(values.length);
      for (let o = 0; o < outer; o++) {
        for (let i = 0; i < inner; i++) {
          let total = from;
          for (let k = 0; k < length; k++) {
            const at = (o * length + (reverse ? length - 1 - k : k)) * inner + i;
            const next = step(total, values[at]!);
            y[at] = exclusive ? total : next;
            total = next;
          }
        }
      }
      return [y];
    },
  });
}

export const reduce: Readonly<Record<string, Operator>> = {
  ReduceSum: reducer({ from: 0, step: (sum, v) => sum + v }),
  ReduceMean: reducer({ from: 0, step: (sum, v) => sum + v, end: (sum, n) => sum / n }),
  ReduceProd: reducer({ from: 1, step: (sum, v) => sum * v }),
  ReduceMax: extreme(Math.max, -Infinity),
  ReduceMin: extreme(Math.min, Infinity),
  ReduceL1: reducer({ from: 0, step: (sum, v) => sum + Math.abs(v) }),
  ReduceL2: reducer({ from: 0, step: (sum, v) => sum + v * v, end: Math.sqrt }),
  ReduceSumSquare: reducer({ from: 0, step: (sum, v) => sum + v * v }),
  ReduceLogSum: reducer({ from: 0, step: (sum, v) => sum + v, end: Math.log }),
  ReduceLogSumExp: logSumExp,
  ArgMax: argument((v, best) => v > best),
  ArgMin: argument((v, best) => v < best),
  CumSum: cumulative(0, (total, v) => total + v),
  CumProd: cumulative(1, (total, v) => total * v),
};
