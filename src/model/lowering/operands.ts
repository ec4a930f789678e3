/**
 * Operands of operators that broadcast, as they lie in memory.
 *
 * Kernels know dense row-major tensors. A value in another order is one too, of its physical shape;
 * so an operation with broadcasting becomes one on physical shapes, and all its operands must agree on
 * the order.
 */

import { dense, hasPadding, type Layout, physicalShape } from "../layout.ts";
import { GpuValue, type PlanBuilder, type ShapedNode } from "../plan.ts";

/** A shape with ones put before it. */
export function ofRank(shape: readonly number[], rank: number): number[] {
  return [...new Array<number>(rank - shape.length).fill(1), ...shape];
}

/** True where a dense tensor of the shape, seen with its axes in another order, lies as before. */
function ordersAlike(shape: readonly number[], order: readonly number[]): boolean {
  const longer = order.filter((axis) => shape[axis] !== 1);
  return longer.every((axis, i) => i === 0 || longer[i - 1]! < axis);
}

/** Operands in one order, with the physical shapes by which they broadcast to the output's. */
export interface Broadcast {
  readonly layout: Layout;
  readonly operands: readonly GpuValue[];
  readonly shapes: readonly (readonly number[])[];
}

/**
 * Takes inputs in one order: that of the largest that is as large as the output, so that images stay
 * channels-last. Smaller operands are seen in that order where they lie so (a constant per channel
 * does), else converted.
 * @param padding whether the padding of channels may stay and be computed with: of zeros the operation
 * has to make zero.
 */
export function broadcastInputs(
  builder: PlanBuilder,
  { reader }: ShapedNode,
  places: readonly number[],
  shape: readonly number[],
  padding: boolean,
): Broadcast {
  const rank = shape.length;
  const values = places.map((i) => builder.input(reader, i));
  const full = values.filter((value) => value.shape.join() === shape.join());
  const leader = full.find(({ layout }) => layout.order.some((axis, i) => axis !== i)) ?? full[0];
  let layout = leader?.layout ?? dense(rank);
  const lies = (value: GpuValue) => {
    const own = ofRank(value.shape, rank);
    return ordersAlike(own, layout.order) && value.layout.order.every((axis, i) => axis === i) &&
      !hasPadding(value.shape, value.layout);
  };
  // Padding stays zero: it is kept where nothing but zeros of other operands meets it.
  const all = full.length === values.length;
  if (hasPadding(shape, layout) && !(all && padding)) {
    layout = { order: layout.order, padded: false };
  }
  const operands = places.map((i, k) => {
    const value = values[k]!;
    if (value.shape.join() === shape.join()) return builder.input(reader, i, layout);
    if (lies(value)) return value;
    const own = ofRank(value.shape, rank);
    const seen = new GpuValue(
      value.type,
      own,
      {
        order: [
          ...Array.from({ length: rank - value.shape.length }, (_, axis) => axis),
          ...value.layout.order.map((axis) => axis + rank - value.shape.length),
        ],
        padded: value.layout.padded,
      },
      value.memory,
      value.label,
    );
    return builder.converted(seen, { order: layout.order, padded: false });
  });
  const shapes = operands.map((value) =>
    value.shape.join() === shape.join()
      ? physicalShape(shape, layout)
      : layout.order.map((axis) => ofRank(value.shape, rank)[axis]!)
  );
  return { layout, operands, shapes };
}
