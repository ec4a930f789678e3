/** Elements moved as they are: Concat, Slice, Split, Pad, Gather, Expand, Tile, DepthToSpace, SpaceToDepth. */

import {
  compileConcat,
  compileExpand,
  compileSlice,
  compileTile,
  recordConcat,
  recordCopy,
  type Slice,
  sliceOf,
} from "../../../kernels/copy.ts";
import { compileGather, recordGather } from "../../../kernels/gather.ts";
import {
  compileConcatChannels,
  compilePad,
  recordConcatChannels,
  recordPad,
} from "../../../kernels/pad.ts";
import { depthToSpace, type Rearrangement, spaceToDepth } from "../../../kernels/transpose.ts";
import { numbersOf } from "../host_tensor.ts";
import { dense, hasPadding, type Layout, physicalAxis, reshaped, transposed } from "../layout.ts";
import { padding, padValue } from "../ops/movement.ts";
import { NodeReader } from "../ops/operator.ts";
import { GpuValue, type Lowering, type PlanBuilder } from "../plan.ts";
import { toGpu } from "../weights.ts";

/** A list that older operator sets have as an attribute and newer ones as an input. */
export function listOf(
  reader: NodeReader,
  i: number,
  attribute: string,
): readonly number[] | undefined {
  const known = reader.inputs[i]?.known;
  return known === undefined ? reader.numbers(attribute) : [...numbersOf(known)];
}

/** The order of the first operand that is not row-major, padded where an operand is. */
function commonLayout(values: readonly GpuValue[]): Layout {
  const leader = values.find(({ layout }) => layout.order.some((axis, i) => axis !== i));
  const { order } = (leader ?? values[0]!).layout;
  const padded = values.some(({ type, shape, layout }) =>
    (type === "f32" || type === "f16") && hasPadding(shape, layout) &&
    layout.order.at(-1) === order.at(-1)
  );
  return { order, padded };
}

const concat: Lowering = (builder, { reader, outputs }) => {
  const { gpu } = builder;
  const shape = outputs[0]!.shape!;
  const places = reader.inputs.map((_, i) => i).filter((i) => !reader.shape(i).includes(0));
  if (places.length === 0) return false;
  const layout = commonLayout(places.map((i) => builder.input(reader, i)));
  const values = places.map((i) => builder.input(reader, i, layout));
  if (values.length === 1) {
    builder.alias(reader, 0, values[0]!, shape, layout);
    return true;
  }
  const along = reader.axis(reader.number("axis", 1), shape.length);
  const axis = physicalAxis(layout, along);
  const output = builder.output(reader, 0, values[0]!.type, shape, layout);
  if (layout.padded && layout.order.at(-1) === along) {
    builder.step(
      values,
      [output],
      compileConcatChannels(
        gpu,
        values.map(({ type, shape, physical }) => ({
          type,
          shape: physical,
          channels: shape[along]!,
        })),
      ),
      (recorder, compiled) =>
        recordConcatChannels(recorder, compiled, {
          inputs: values.map(({ tensor }) => tensor),
          output: output.tensor,
        }),
    );
    return true;
  }
  builder.step(
    values,
    [output],
    compileConcat(gpu, values.map(({ type, physical }) => ({ type, shape: physical })), axis),
    (recorder, compiled) =>
      recordConcat(recorder, compiled, {
        inputs: values.map(({ tensor }) => tensor),
        output: output.tensor,
      }),
  );
  return true;
};

/**
 * Adds a slice, given along logical axes, of input 0 as output `i`. Padding stays where it is not cut
 * through.
 */
function cut(
  builder: PlanBuilder,
  reader: NodeReader,
  i: number,
  shape: readonly number[],
  axes: readonly number[],
  slice: (layout: Layout, physical: readonly number[]) => Slice,
): void {
  const { order, padded } = builder.input(reader, 0).layout;
  const input = builder.input(reader, 0, {
    order,
    padded: padded && !axes.includes(order.at(-1)!),
  });
  const output = builder.output(reader, i, input.type, shape, input.layout);
  builder.step(
    [input],
    [output],
    compileSlice(
      builder.gpu,
      { type: input.type, shape: input.physical },
      slice(input.layout, input.physical),
    ),
    (recorder, compiled) =>
      recordCopy(recorder, compiled, { input: input.tensor, output: output.tensor }),
  );
}

const slice: Lowering = (builder, { reader, outputs }) => {
  const rank = reader.shape(0).length;
  const starts = listOf(reader, 1, "starts");
  const ends = listOf(reader, 2, "ends");
  if (starts === undefined || ends === undefined) return false;
  const axes = (listOf(reader, 3, "axes") ?? starts.map((_, i) => i))
    .map((axis) => reader.axis(axis, rank));
  const steps = listOf(reader, 4, "steps") ?? starts.map(() => 1);
  cut(builder, reader, 0, outputs[0]!.shape!, axes, (layout, physical) =>
    sliceOf(
      physical,
      starts,
      ends,
      axes.map((axis) => physicalAxis(layout, axis)),
      steps,
    ));
  return true;
};

const split: Lowering = (builder, { reader, outputs }) => {
  const axis = reader.axis(reader.number("axis", 0), reader.shape(0).length);
  let start = 0;
  for (const [i, { shape }] of outputs.entries()) {
    const from = start;
    start += shape![axis]!;
    const end = start;
    if ((reader.node.outputs[i] ?? "") === "") continue;
    cut(
      builder,
      reader,
      i,
      shape!,
      [axis],
      (layout, physical) => sliceOf(physical, [from], [end], [physicalAxis(layout, axis)]),
    );
  }
  return true;
};

const expand: Lowering = (builder, { reader, outputs }) => {
  const shape = outputs[0]!.shape!;
  const input = builder.input(reader, 0, dense(reader.shape(0).length));
  const output = builder.output(reader, 0, input.type, shape);
  builder.step(
    [input],
    [output],
    compileExpand(builder.gpu, { type: input.type, shape: input.shape }, shape),
    (recorder, compiled) =>
      recordCopy(recorder, compiled, { input: input.tensor, output: output.tensor }),
  );
  return true;
};

const tile: Lowering = (builder, { reader, outputs }) => {
  const repeats = reader.inputs[1]?.known;
  if (repeats === undefined || repeats.data.length !== reader.shape(0).length) return false;
  const input = builder.input(reader, 0, dense(reader.shape(0).length));
  const output = builder.output(reader, 0, input.type, outputs[0]!.shape!);
  builder.step(
    [input],
    [output],
    compileTile(
      builder.gpu,
      { type: input.type, shape: input.shape },
      [...numbersOf(repeats)],
    ),
    (recorder, compiled) =>
      recordCopy(recorder, compiled, { input: input.tensor, output: output.tensor }),
  );
  return true;
};

/** Constant, reflected, repeated and wrapped padding; negative amounts cut off. */
const pad: Lowering = (builder, { reader, outputs }) => {
  const found = padding(reader);
  const value = padValue(reader);
  const shape = outputs[0]!.shape!;
  if (found === undefined || shape.includes(0) || reader.shape(0).includes(0)) return false;
  if (found.mode === "constant" && value === undefined) return false;
  const lying = builder.input(reader, 0);
  const input = builder.input(reader, 0, { order: lying.layout.order, padded: false });
  const output = builder.output(reader, 0, input.type, shape, input.layout);
  const inMemory = (list: readonly number[]) => input.layout.order.map((axis) => list[axis]!);
  const fill = found.mode === "constant" && value !== 0;
  const constant = fill
    ? builder.packed(
      `${value}`,
      `padding ${input.type}`,
      { type: "float64", shape: [1], data: Float64Array.of(value!) },
      (tensor) => ({ data: toGpu(tensor, input.type), shape: [1] }),
    )
    : undefined;
  builder.step(
    [input, ...(constant ? [constant] : [])],
    [output],
    compilePad(
      builder.gpu,
      { type: input.type, shape: input.physical },
      inMemory(found.begin),
      inMemory(found.end),
      { mode: found.mode, fill },
    ),
    (recorder, compiled) =>
      recordPad(recorder, compiled, {
        input: input.tensor,
        ...(constant ? { constant: constant.tensor } : {}),
        output: output.tensor,
      }),
  );
  return true;
};

const gather: Lowering = (builder, { reader, outputs }) => {
  const shape = outputs[0]!.shape!;
  if (shape.includes(0) || reader.shape(0).includes(0)) return false;
  const rank = reader.shape(0).length;
  const axis = reader.axis(reader.number("axis", 0), rank);
  const known = reader.inputs[1]!.known;
  if (known?.data.length === 1) {
    // One known index is a slice, which leaves the other axes in the order that they have.
    const index = Number(known.data[0]);
    const from = index < 0 ? index + reader.shape(0)[axis]! : index;
    const own = reader.shape(0).map((size, i) => i === axis ? 1 : size);
    const name = `${reader.node.name}/slice`;
    const sliced = new NodeReader({ ...reader.node, outputs: [name] }, reader.inputs);
    cut(
      builder,
      sliced,
      0,
      own,
      [axis],
      (layout, physical) => sliceOf(physical, [from], [from + 1], [physicalAxis(layout, axis)]),
    );
    const value = builder.inLayout(name);
    const layout = reshaped(own, value.layout, shape);
    if (layout !== undefined) builder.alias(reader, 0, value, shape, layout);
    else builder.alias(reader, 0, builder.inLayout(name, dense(rank)), shape, dense(shape.length));
    return true;
  }
  const input = builder.input(reader, 0, dense(rank));
  const indices = builder.input(reader, 1, dense(reader.shape(1).length));
  if (indices.type !== "i32") return false;
  const output = builder.output(reader, 0, input.type, shape);
  builder.step(
    [input, indices],
    [output],
    compileGather(
      builder.gpu,
      { type: input.type, shape: input.shape },
      { type: "i32", shape: indices.shape },
      axis,
    ),
    (recorder, compiled) =>
      recordGather(recorder, compiled, {
        input: input.tensor,
        indices: indices.tensor,
        output: output.tensor,
      }),
  );
  return true;
};

/** A reshape, a transposition and a reshape: only the order in between has to be made. */
function rearrange(of: (reader: NodeReader) => Rearrangement): Lowering {
  return (builder, { reader, outputs }) => {
    const { view, permutation } = of(reader);
    const shape = outputs[0]!.shape!;
    const lying = builder.input(reader, 0);
    let input = builder.input(reader, 0, { order: lying.layout.order, padded: false });
    let layout = reshaped(input.shape, input.layout, view);
    if (layout === undefined) {
      input = builder.input(reader, 0, dense(input.shape.length));
      layout = dense(view.length);
    }
    const turned = new GpuValue(
      input.type,
      permutation.map((axis) => view[axis]!),
      transposed(layout, permutation),
      input.memory,
      input.label,
    );
    const made = builder.converted(turned, dense(permutation.length));
    builder.alias(reader, 0, made, shape, dense(shape.length));
    return true;
  };
}

const mode = (reader: NodeReader) => reader.text("mode", "DCR") === "CRD" ? "CRD" : "DCR";

export const movement: Readonly<Record<string, Lowering>> = {
  Concat: concat,
  Slice: slice,
  Split: split,
  Pad: pad,
  Gather: gather,
  Expand: expand,
  Tile: tile,
  DepthToSpace: rearrange((reader) =>
    depthToSpace(reader.shape(0), reader.number("blocksize", 1), mode(reader))
  ),
  SpaceToDepth: rearrange((reader) => spaceToDepth(reader.shape(0), reader.number("blocksize", 1))),
};
