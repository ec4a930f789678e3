/** Reductions along axes, ArgMax and ArgMin, CumSum. */

import {
  compileArgmax,
  compileReduce,
  recordArgmax,
  recordReduce,
  type ReduceOperation,
} from "../../../kernels/reduce.ts";
import { elementCount } from "../host_tensor.ts";
import { type Layout } from "../layout.ts";
import { reduction } from "../ops/reduce.ts";
import type { Lowering } from "../plan.ts";
import { gpuTypeOf } from "../weights.ts";

/** The layout of what is left: axes that are gone are gone from the order too. */
function remaining({ order }: Layout, axes: readonly number[], keep: boolean): Layout {
  if (keep) return { order, padded: false };
  const left = order.filter((axis) => !axes.includes(axis));
  const sorted = [...left].sort((a, b) => a - b);
  return { order: left.map((axis) => sorted.indexOf(axis)), padded: false };
}

function reduce(operation: ReduceOperation): Lowering {
  return (builder, { reader, outputs }) => {
    const found = reduction(reader);
    const shape = outputs[0]!.shape!;
    const type = gpuTypeOf(outputs[0]!.type, builder.float);
    if (found === undefined || elementCount(reader.shape(0)) === 0) return false;
    if (/^u?int(8|16|64)$/.test(outputs[0]!.type) && outputs[0]!.type !== "int64") return false;
    const { axes, keep } = found;
    const lying = builder.input(reader, 0);
    const input = builder.input(reader, 0, { order: lying.layout.order, padded: false });
    if (input.type !== type) return false;
    const layout = remaining(input.layout, axes, keep);
    const output = builder.output(reader, 0, type, shape, layout);
    builder.step(
      [input],
      [output],
      compileReduce(
        builder.gpu,
        operation,
        { type, shape: input.physical },
        axes.map((axis) => input.layout.order.indexOf(axis)),
        { keepDims: keep },
      ),
      (recorder, compiled) =>
        recordReduce(recorder, compiled, {
          input: input.tensor,
          output: output.as(compiled.output.shape),
        }),
    );
    return true;
  };
}

function argmax(smallest: boolean): Lowering {
  return (builder, { reader, outputs }) => {
    const shape = outputs[0]!.shape!;
    if (elementCount(reader.shape(0)) === 0) return false;
    const axis = reader.axis(reader.number("axis", 0), reader.shape(0).length);
    const keepDims = reader.number("keepdims", 1) !== 0;
    const lying = builder.input(reader, 0);
    const input = builder.input(reader, 0, { order: lying.layout.order, padded: false });
    const output = builder.output(
      reader,
      0,
      "i32",
      shape,
      remaining(input.layout, [axis], keepDims),
    );
    builder.step(
      [input],
      [output],
      compileArgmax(
        builder.gpu,
        { type: input.type, shape: input.physical },
        input.layout.order.indexOf(axis),
        { smallest, selectLastIndex: reader.number("select_last_index", 0) !== 0, keepDims },
      ),
      (recorder, compiled) =>
        recordArgmax(recorder, compiled, {
          input: input.tensor,
          output: output.as(compiled.output.shape),
        }),
    );
    return true;
  };
}

export const reductions: Readonly<Record<string, Lowering>> = {
  ReduceSum: reduce("sum"),
  ReduceMean: reduce("mean"),
  ReduceMax: reduce("max"),
  ReduceMin: reduce("min"),
  ReduceProd: reduce("prod"),
  ReduceL1: reduce("l1"),
  ReduceL2: reduce("l2"),
  ReduceSumSquare: reduce("sum_square"),
  ReduceLogSum: reduce("log_sum"),
  ReduceLogSumExp: reduce("log_sum_exp"),
  ArgMax: argmax(false),
  ArgMin: argmax(true),
};
