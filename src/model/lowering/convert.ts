/** Values from one layout and type into another: transposition, padding of channels, f32 to f16. */

import { compileConvert, recordConvert } from "../../../kernels/elementwise.ts";
import { compileSlice, recordCopy, sliceOf } from "../../../kernels/copy.ts";
import {
  compileFromChannelsLast,
  compileToChannelsLast,
  compileTranspose,
} from "../../../kernels/transpose.ts";
import { elementCount } from "../host_tensor.ts";
import { hasPadding, type Layout } from "../layout.ts";
import { GpuValue, type PlanBuilder } from "../plan.ts";

/** Axes but the one at `without`, those of size 1 left out: what a rotation leaves in its order. */
function others(shape: readonly number[], order: readonly number[], without: number): string {
  return order.filter((axis) => axis !== without && shape[axis] !== 1).join();
}

/** An order's sizes as [before, axis, behind]. */
function around(
  shape: readonly number[],
  order: readonly number[],
  axis: number,
): [number, number, number] {
  const at = order.indexOf(axis);
  const sizes = order.map((other) => shape[other]!);
  return [elementCount(sizes.slice(0, at)), shape[axis]!, elementCount(sizes.slice(at + 1))];
}

const isFloat = ({ type }: GpuValue) => type === "f32" || type === "f16";

/** Adds the steps that bring `from` to the layout and type of `to`, which is of the same shape. */
export function convert(builder: PlanBuilder, from: GpuValue, to: GpuValue): void {
  const { gpu } = builder;
  const { shape } = from;
  if (elementCount(shape) === 0) {
    builder.keep(to); // Nothing to do, and yet it has to be somewhere.
    return;
  }
  const { order } = from.layout, wanted = to.layout.order;
  const between = (type: GpuValue["type"], layout: Layout) =>
    builder.allocate(type, shape, layout, { label: from.label });
  if (hasPadding(shape, from.layout)) {
    const channels = order.at(-1)!;
    // A step that leaves the padding out turns the axes and changes the type as well.
    const turns = !hasPadding(shape, to.layout) &&
      others(shape, order, channels) === others(shape, wanted, channels);
    if (turns && isFloat(from) && isFloat(to)) {
      const view = around(shape, wanted, channels);
      builder.step(
        [from],
        [to],
        compileFromChannelsLast(gpu, { type: to.type, shape: view }, from.type),
        (recorder, compiled) =>
          recordCopy(recorder, compiled, {
            input: from.as(compiled.input.shape),
            output: to.as(compiled.output.shape),
          }),
      );
      return;
    }
    const sameOrder = order.join() === wanted.join() && !hasPadding(shape, to.layout) &&
      from.type === to.type;
    const bare = sameOrder ? to : between(from.type, { order, padded: false });
    const { physical } = from;
    const cut = sliceOf(physical, [0], [shape[channels]!], [physical.length - 1]);
    builder.step(
      [from],
      [bare],
      compileSlice(gpu, { type: from.type, shape: physical }, cut),
      (recorder, compiled) =>
        recordCopy(recorder, compiled, {
          input: from.tensor,
          output: bare.as(compiled.output.shape),
        }),
    );
    if (bare !== to) convert(builder, bare, to);
    return;
  }
  if (hasPadding(shape, to.layout)) {
    const channels = wanted.at(-1)!;
    if (!isFloat(from) || !isFloat(to)) {
      // Integers are not padded: nothing that takes padding takes them.
      throw new TypeError(`Cannot pad "${from.label}" of ${from.type}`);
    }
    if (others(shape, order, channels) === others(shape, wanted, channels)) {
      const view = around(shape, order, channels);
      builder.step(
        [from],
        [to],
        compileToChannelsLast(gpu, { type: from.type, shape: view }, to.type),
        (recorder, compiled) =>
          recordCopy(recorder, compiled, {
            input: from.as(compiled.input.shape),
            output: to.as(compiled.output.shape),
          }),
      );
      return;
    }
    const turned = between(from.type, { order: wanted, padded: false });
    convert(builder, from, turned);
    convert(builder, turned, to);
    return;
  }
  const longer = (axis: number) => shape[axis] !== 1;
  if (order.filter(longer).join() === wanted.filter(longer).join()) {
    const flat = [elementCount(shape)];
    builder.step(
      [from],
      [to],
      compileConvert(gpu, from.type, to.type),
      (recorder, compiled) =>
        recordConvert(recorder, compiled, { input: from.as(flat), output: to.as(flat) }),
    );
    return;
  }
  const turned = from.type === to.type ? to : between(from.type, to.layout);
  builder.step(
    [from],
    [turned],
    compileTranspose(
      gpu,
      { type: from.type, shape: from.physical },
      wanted.map((axis) => order.indexOf(axis)),
    ),
    (recorder, compiled) =>
      recordCopy(recorder, compiled, {
        input: from.as(compiled.input.shape),
        output: turned.as(compiled.output.shape),
      }),
  );
  if (turned !== to) convert(builder, turned, to);
}
