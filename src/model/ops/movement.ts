/** Operators that move elements and compute nothing (ONNX Transpose-21, Concat-13, Slice-13, Gather-13, Pad-21, ScatterND-18 and their kin): exact for every type. */

import {
  type DataType,
  elementCount,
  emptyData,
  type HostData,
  type HostTensor,
  numbersOf,
} from "../host_tensor.ts";
import { around, forEachIndex, listLike, strided, stridesOf } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";
import { knownNumbers } from "./shape.ts";

/** The order of a Transpose node's axes. @throws {ModelError} where it is none. */
export function permutation(node: NodeReader): readonly number[] {
  const rank = node.shape(0).length;
  const order = node.numbers("perm") ?? Array.from({ length: rank }, (_, i) => rank - 1 - i);
  if (order.length !== rank || new Set(order.map((a) => node.axis(a, rank))).size !== rank) {
    throw node.fail(`perm [${order.join(", ")}] of rank ${rank}`);
  }
  return order.map((a) => node.axis(a, rank));
}

/** A slice of each axis, in the axes' order. */
export interface Slices {
  readonly starts: readonly number[];
  readonly steps: readonly number[];
  /** The output's. */
  readonly shape: readonly number[];
}

/** What a Slice node takes; undefined where it depends on data. Source: ONNX Slice-1, Slice-13. */
export function slices(node: NodeReader): Slices | undefined {
  const x = node.shape(0);
  const old = node.node.opset < 10;
  const list = (name: string, at: number) =>
    old ? node.numbers(name) : node.inputs[at] === undefined ? null : knownNumbers(node, at);
  const [starts, ends] = [list("starts", 1), list("ends", 2)];
  const said = list("axes", 3);
  const stepped = old ? null : list("steps", 4);
  if (!old && (said === undefined || stepped === undefined)) return undefined;
  if (!starts || !ends) {
    if (old) throw node.fail("it does not say where it starts and ends");
    return undefined;
  }
  const axes = said ?? starts.map((_, i) => i);
  const steps = stepped ?? starts.map(() => 1);
  const lengths = [starts, ends, axes, steps].map((l) => l.length);
  if (new Set(lengths).size !== 1) throw node.fail(`lists of ${lengths.join(", ")} numbers`);
  const result = { starts: x.map(() => 0), steps: x.map(() => 1), shape: [...x] };
  axes.forEach((said, i) => {
    const axis = node.axis(said, x.length);
    const length = x[axis]!;
    const step = steps[i]!;
    if (step === 0) throw node.fail("a step of 0");
    const clamp = (v: number, low: number, high: number) =>
      Math.min(high, Math.max(low, v < 0 ? v + length : v));
    const start = step > 0 ? clamp(starts[i]!, 0, length) : clamp(starts[i]!, 0, length - 1);
    const end = step > 0 ? clamp(ends[i]!, 0, length) : clamp(ends[i]!, -1, length - 1);
    result.starts[axis] = start;
    result.steps[axis] = step;
    result.shape[axis] = Math.max(0, Math.ceil((end - start) / step));
  });
  return result;
}

export interface Padding {
  /** Elements added before and after each axis; negative where they are taken away. */
  readonly begin: readonly number[];
  readonly end: readonly number[];
  readonly mode: "constant" | "reflect" | "edge" | "wrap";
  readonly shape: readonly number[];
}

/** What a Pad node adds; undefined where it depends on data. Source: ONNX Pad-2, Pad-21. */
export function padding(node: NodeReader): Padding | undefined {
  const x = node.shape(0);
  const pads = node.node.opset < 11
    ? node.numbers("pads") ?? node.numbers("paddings")
    : knownNumbers(node, 1);
  if (pads === undefined) {
    if (node.node.opset < 11) throw node.fail("it has no pads");
    return undefined;
  }
  const said = node.inputs[3] === undefined ? x.map((_, i) => i) : knownNumbers(node, 3);
  if (said === undefined) return undefined;
  const axes = said.map((axis) => node.axis(axis, x.length));
  const integers = pads.every((p) => Number.isInteger(p) && Math.abs(p) < 2 ** 31);
  if (pads.length !== 2 * axes.length || !integers) {
    throw node.fail(`pads [${pads.join(", ")}] of [${x.join(", ")}]`);
  }
  const mode = node.text("mode", "constant");
  if (mode !== "constant" && mode !== "reflect" && mode !== "edge" && mode !== "wrap") {
    throw node.fail(`attribute "mode" is "${mode}"`);
  }
  const [begin, end] = [x.map(() => 0), x.map(() => 0)];
  axes.forEach((axis, i) => {
    begin[axis] = pads[i]!;
    end[axis] = pads[axes.length + i]!;
  });
  const shape = x.map((d, i) => d + begin[i]! + end[i]!);
  if (shape.some((d, i) => d < 0 || (mode !== "constant" && x[i] === 0 && d > 0))) {
    throw node.fail(`pads [${pads.join(", ")}] of [${x.join(", ")}]`);
  }
  return { begin, end, mode, shape };
}

/** Value around a constant Pad; undefined where it depends on data. */
export function padValue(node: NodeReader): number | undefined {
  if (node.node.opset < 11) return node.number("value", 0);
  return node.inputs[2] === undefined ? 0 : knownNumbers(node, 2)?.[0];
}

/** Where position `p` of a padded axis comes from, in [0, length); −1 where from nowhere. */
export function padSource(p: number, length: number, mode: Padding["mode"]): number {
  if (p >= 0 && p < length) return p;
  switch (mode) {
    case "constant":
      return -1;
    case "edge":
      return p < 0 ? 0 : length - 1;
    case "wrap":
      return ((p % length) + length) % length;
    case "reflect": {
      if (length === 1) return 0;
      const period = 2 * (length - 1);
      const q = ((p % period) + period) % period;
      return q < length ? q : period - q;
    }
  }
}

/** Lengths of a Split node's parts; undefined where they depend on data. Source: ONNX Split-2, Split-18. */
export function splitLengths(
  node: NodeReader,
): { axis: number; lengths: readonly number[] } | undefined {
  const x = node.shape(0);
  const axis = node.axis(node.number("axis", 0), x.length);
  const length = x[axis]!;
  const parts = node.node.outputs.length;
  let lengths = node.inputs[1] === undefined ? node.numbers("split") : knownNumbers(node, 1);
  if (lengths === undefined && node.inputs[1] !== undefined) return undefined;
  if (lengths === undefined) {
    const count = node.number("num_outputs", parts);
    const each = Math.ceil(length / count);
    lengths = Array.from({ length: count }, (_, i) => {
      return Math.max(0, Math.min(each, length - i * each));
    });
  }
  const sum = lengths.reduce((a, b) => a + b, 0);
  if (lengths.length !== parts || sum !== length || lengths.some((l) => l < 0)) {
    throw node.fail(`parts [${lengths.join(", ")}] of ${length} for ${parts} outputs`);
  }
  return { axis, lengths };
}

/** An index, counted from the end where it is negative. @throws {ModelError} where it is outside. */
function inside(node: NodeReader, index: number, length: number): number {
  const counted = index < 0 ? index + length : index;
  if (!(counted >= 0 && counted < length)) throw node.fail(`index ${index} of ${length}`);
  return counted;
}

function like(x: HostTensor, shape: readonly number[], data: HostData): HostTensor {
  return { type: x.type, shape, data };
}

type Combine = (a: number | bigint, b: number | bigint) => number | bigint;

/** How scattered values meet those that are there. Source: ONNX ScatterND-18. */
function combiner(node: NodeReader): Combine {
  const reduction = node.text("reduction", "none");
  switch (reduction) {
    case "none":
      return (_, b) => b;
    case "add":
      return (a, b) => (a as number) + (b as number);
    case "mul":
      return (a, b) => (a as number) * (b as number);
    case "max":
      return (a, b) => a > b ? a : b;
    case "min":
      return (a, b) => a < b ? a : b;
  }
  throw node.fail(`attribute "reduction" is "${reduction}"`);
}

function scatterElements(node: NodeReader, inputs: readonly HostTensor[]): HostTensor {
  const [x, indices, updates] = inputs as [HostTensor, HostTensor, HostTensor];
  const axis = node.axis(node.number("axis", 0), x.shape.length);
  const combine = combiner(node);
  const data = x.data.slice();
  const strides = stridesOf(x.shape);
  const list = numbersOf(indices);
  forEachIndex(indices.shape, (index, position) => {
    let at = 0;
    for (let i = 0; i < index.length; i++) {
      at += strides[i]! * (i === axis ? inside(node, list[position]!, x.shape[i]!) : index[i]!);
    }
    data[at] = combine(data[at]!, updates.data[position]!);
  });
  return like(x, x.shape, data);
}

const scatter = define({
  inputs: [3, 3],
  attributes: "axis reduction",
  shapes: (node) => {
    const [x, indices, updates] = [node.shape(0), node.shape(1), node.shape(2)];
    const fits = indices.length === x.length && indices.join() === updates.join();
    if (!fits) throw node.fail(`indices [${indices.join(", ")}], updates [${updates.join(", ")}]`);
    return [x];
  },
  compute: (node, inputs) => [scatterElements(node, inputs)],
});

/** Blocks of an image as channels or back. */
function blockShape(node: NodeReader): [number, number, number, number, number] {
  const x = node.shape(0);
  const block = node.number("blocksize", 0);
  if (x.length !== 4 || !Number.isInteger(block) || block < 1) {
    throw node.fail(`blocks of ${block} of [${x.join(", ")}]`);
  }
  return [...x, block] as [number, number, number, number, number];
}

/** Spatial shape that CenterCropPad asks for, with the rest of the axes as they are. */
function cropped(node: NodeReader): readonly number[] | undefined {
  const x = node.shape(0);
  const asked = knownNumbers(node, 1);
  if (asked === undefined) return undefined;
  const axes = (node.numbers("axes") ?? x.map((_, i) => i)).map((a) => node.axis(a, x.length));
  if (axes.length !== asked.length || asked.some((d) => !(d >= 0 && d < 2 ** 31))) {
    throw node.fail(`shape [${asked.join(", ")}] of [${x.join(", ")}]`);
  }
  const shape = [...x];
  axes.forEach((axis, i) => shape[axis] = asked[i]!);
  return shape;
}

export const movement: Readonly<Record<string, Operator>> = {
  Transpose: define({
    inputs: [1, 1],
    attributes: "perm",
    shapes: (node) => [permutation(node).map((axis) => node.shape(0)[axis]!)],
    compute: (node, [x], [out]) => {
      const strides = stridesOf(x!.shape);
      const order = permutation(node).map((axis) => strides[axis]!);
      return [like(x!, out!.shape!, strided(x!.data, out!.shape!, order))];
    },
  }),
  Concat: define({
    inputs: [1, Infinity],
    attributes: "axis",
    types: (node) => {
      const { type } = node.input(0);
      const other = node.inputs.find((x) => x !== undefined && x.type !== type);
      if (other !== undefined) throw node.fail(`types ${type}, ${other.type}`);
      return [type];
    },
    shapes: (node) => {
      const first = node.shape(0);
      const axis = node.axis(node.number("axis", 1), first.length);
      let length = 0;
      node.inputs.forEach((_, i) => {
        const other = node.shape(i);
        const fits = other.length === first.length &&
          other.every((d, a) => a === axis || d === first[a]);
        if (!fits) {
          throw node.fail(`[${first.join(", ")}] and [${other.join(", ")}] along axis ${axis}`);
        }
        length += other[axis]!;
      });
      return [first.with(axis, length)];
    },
    compute: (node, inputs, [out]) => {
      const { type, shape } = out!;
      const axis = node.axis(node.number("axis", 1), shape!.length);
      const data = emptyData(type, elementCount(shape!));
      const [outer, length, inner] = around(shape!, axis);
      let at = 0;
      for (const x of inputs) {
        const run = x.shape[axis]! * inner;
        for (let o = 0; o < outer; o++) {
          const part = x.data.subarray(o * run, (o + 1) * run);
          (data as Uint8Array).set(part as Uint8Array, o * length * inner + at);
        }
        at += run;
      }
      return [{ type, shape: shape!, data }];
    },
  }),
  Split: define({
    inputs: [1, 2],
    outputs: Infinity,
    attributes: "axis split num_outputs",
    types: (node) => node.node.outputs.map(() => node.input(0).type),
    shapes: (node) => {
      const split = splitLengths(node);
      return node.node.outputs.map((_, i) =>
        split && node.shape(0).with(split.axis, split.lengths[i]!)
      );
    },
    compute: (node, [x], outputs) => {
      const { axis } = splitLengths(node)!;
      const strides = stridesOf(x!.shape);
      let at = 0;
      return outputs.map(({ shape }) => {
        const part = strided(x!.data, shape!, strides, at * strides[axis]!);
        at += shape![axis]!;
        return like(x!, shape!, part);
      });
    },
  }),
  Slice: define({
    inputs: [1, 5],
    attributes: "axes ends starts",
    shapes: (node) => [slices(node)?.shape],
    compute: (node, [x], [out]) => {
      const { starts, steps } = slices(node)!;
      const strides = stridesOf(x!.shape);
      const offset = starts.reduce((sum, s, i) => sum + s * strides[i]!, 0);
      const walk = strides.map((s, i) => s * steps[i]!);
      return [like(x!, out!.shape!, strided(x!.data, out!.shape!, walk, offset))];
    },
  }),
  Gather: define({
    inputs: [2, 2],
    attributes: "axis",
    shapes: (node) => {
      const x = node.shape(0);
      const axis = node.axis(node.number("axis", 0), x.length);
      return [x.toSpliced(axis, 1, ...node.shape(1))];
    },
    compute: (node, [x, indices], [out]) => {
      const axis = node.axis(node.number("axis", 0), x!.shape.length);
      const [outer, length, inner] = around(x!.shape, axis);
      const list = Array.from(numbersOf(indices!), (i) => inside(node, i, length));
      const data = listLike(x!.data, outer * list.length * inner) as Uint8Array;
      let at = 0;
      for (let o = 0; o < outer; o++) {
        for (const i of list) {
          const from = (o * length + i) * inner;
          data.set(x!.data.subarray(from, from + inner) as Uint8Array, at);
          at += inner;
        }
      }
      return [like(x!, out!.shape!, data)];
    },
  }),
  GatherElements: define({
    inputs: [2, 2],
    attributes: "axis",
    shapes: (node) => {
      const [x, indices] = [node.shape(0), node.shape(1)];
      if (x.length !== indices.length) throw node.fail(`indices [${indices.join(", ")}]`);
      return [indices];
    },
    compute: (node, [x, indices], [out]) => {
      const axis = node.axis(node.number("axis", 0), x!.shape.length);
      const strides = stridesOf(x!.shape);
      const list = numbersOf(indices!);
      const data = listLike(x!.data, list.length);
      forEachIndex(indices!.shape, (index, position) => {
        let at = 0;
        for (let i = 0; i < index.length; i++) {
          at += strides[i]! *
            (i === axis ? inside(node, list[position]!, x!.shape[i]!) : index[i]!);
        }
        data[position] = x!.data[at]!;
      });
      return [like(x!, out!.shape!, data)];
    },
  }),
  GatherND: define({
    inputs: [2, 2],
    attributes: "batch_dims",
    shapes: (node) => {
      const [x, indices] = [node.shape(0), node.shape(1)];
      const batch = node.number("batch_dims", 0);
      const depth = indices.at(-1) ?? 0;
      if (depth < 1 || batch + depth > x.length) {
        throw node.fail(`indices [${indices.join(", ")}] of [${x.join(", ")}]`);
      }
      return [[...indices.slice(0, -1), ...x.slice(batch + depth)]];
    },
    compute: (node, [x, indices], [out]) => {
      const batch = node.number("batch_dims", 0);
      const depth = indices!.shape.at(-1)!;
      const list = numbersOf(indices!);
      const strides = stridesOf(x!.shape);
      const run = elementCount(x!.shape.slice(batch + depth));
      const count = list.length / depth;
      const perBatch = count / elementCount(indices!.shape.slice(0, batch));
      const batchSize = elementCount(x!.shape.slice(batch));
      const data = listLike(x!.data, count * run) as Uint8Array;
      for (let i = 0; i < count; i++) {
        let at = Math.floor(i / perBatch) * batchSize;
        for (let d = 0; d < depth; d++) {
          at += strides[batch + d]! * inside(node, list[i * depth + d]!, x!.shape[batch + d]!);
        }
        data.set(x!.data.subarray(at, at + run) as Uint8Array, i * run);
      }
      return [like(x!, out!.shape!, data)];
    },
  }),
  Scatter: scatter,
  ScatterElements: scatter,
  ScatterND: define({
    inputs: [3, 3],
    attributes: "reduction",
    shapes: (node) => {
      const [x, indices, updates] = [node.shape(0), node.shape(1), node.shape(2)];
      const depth = indices.at(-1) ?? 0;
      const expected = [...indices.slice(0, -1), ...x.slice(depth)];
      if (depth > x.length || expected.join() !== updates.join()) {
        throw node.fail(`indices [${indices.join(", ")}], updates [${updates.join(", ")}]`);
      }
      return [x];
    },
    compute: (node, [x, indices, updates]) => {
      const combine = combiner(node);
      const depth = indices!.shape.at(-1)!;
      const list = numbersOf(indices!);
      const strides = stridesOf(x!.shape);
      const run = elementCount(x!.shape.slice(depth));
      const data = x!.data.slice();
      const count = elementCount(indices!.shape.slice(0, -1));
      for (let i = 0; i < count; i++) {
        let at = 0;
        for (let d = 0; d < depth; d++) {
          at += strides[d]! * inside(node, list[i * depth + d]!, x!.shape[d]!);
        }
        for (let k = 0; k < run; k++) {
          data[at + k] = combine(data[at + k]!, updates!.data[i * run + k]!);
        }
      }
      return [like(x!, x!.shape, data)];
    },
  }),
  Tile: define({
    inputs: [2, 2],
    shapes: (node) => {
      const repeats = knownNumbers(node, 1);
      if (repeats === undefined) return [undefined];
      const x = node.shape(0);
      if (repeats.length !== x.length || repeats.some((r) => !(r >= 0 && r < 2 ** 31))) {
        throw node.fail(`repeats [${repeats.join(", ")}] of [${x.join(", ")}]`);
      }
      return [x.map((d, i) => d * repeats[i]!)];
    },
    compute: (_, [x], [out]) => {
      const strides = stridesOf(x!.shape);
      const data = listLike(x!.data, elementCount(out!.shape!));
      forEachIndex(out!.shape!, (index, position) => {
        let at = 0;
        for (let i = 0; i < index.length; i++) at += (index[i]! % x!.shape[i]!) * strides[i]!;
        data[position] = x!.data[at]!;
      });
      return [like(x!, out!.shape!, data)];
    },
  }),
  Pad: define({
    inputs: [1, 4],
    attributes: "mode pads paddings value",
    shapes: (node) => [padding(node)?.shape],
    compute: (node, [x, , value], [out]) => {
      const { begin, mode } = padding(node)!;
      const strides = stridesOf(x!.shape);
      const data = emptyData(x!.type, elementCount(out!.shape!));
      const old = node.node.opset < 11 ? node.number("value", 0) : undefined;
      const fill = old ?? value?.data[0];
      if (fill !== undefined) (data as Float64Array).fill(fill as number);
      forEachIndex(out!.shape!, (index, position) => {
        let at = 0;
        for (let i = 0; i < index.length; i++) {
          const source = padSource(index[i]! - begin[i]!, x!.shape[i]!, mode);
          if (source < 0) return;
          at += source * strides[i]!;
        }
        data[position] = x!.data[at]!;
      });
      return [like(x!, out!.shape!, data)];
    },
  }),
  DepthToSpace: define({
    inputs: [1, 1],
    attributes: "blocksize mode",
    shapes: (node) => {
      const [n, c, h, w, block] = blockShape(node);
      if (c % block ** 2 !== 0) throw node.fail(`${c} channels in blocks of ${block}`);
      return [[n, c / block ** 2, h * block, w * block]];
    },
    compute: (node, [x], [out]) => {
      const [n, c, h, w, block] = blockShape(node);
      const channels = c / block ** 2;
      const mode = node.text("mode", "DCR");
      if (mode !== "DCR" && mode !== "CRD") throw node.fail(`attribute "mode" is "${mode}"`);
      // Steps in the input along n, channel, row, row in block, column, column in block.
      const plane = h * w;
      const steps = mode === "DCR"
        ? [c * plane, plane, w, block * channels * plane, 1, channels * plane]
        : [c * plane, block ** 2 * plane, w, block * plane, 1, plane];
      return [like(x!, out!.shape!, strided(x!.data, [n, channels, h, block, w, block], steps))];
    },
  }),
  SpaceToDepth: define({
    inputs: [1, 1],
    attributes: "blocksize",
    shapes: (node) => {
      const [n, c, h, w, block] = blockShape(node);
      if (h % block !== 0 || w % block !== 0) throw node.fail(`blocks of ${block} of [${h}, ${w}]`);
      return [[n, c * block ** 2, h / block, w / block]];
    },
    compute: (node, [x], [out]) => {
      const [n, c, h, w, block] = blockShape(node);
      const steps = [c * h * w, w, 1, h * w, block * w, block];
      const shape = [n, block, block, c, h / block, w / block];
      return [like(x!, out!.shape!, strided(x!.data, shape, steps))];
    },
  }),
  Trilu: define({
    inputs: [1, 2],
    attributes: "upper",
    shapes: (node) => {
      const x = node.shape(0);
      if (x.length < 2) throw node.fail(`[${x.join(", ")}] is no matrix`);
      return [x];
    },
    compute: (node, [x, kOf]) => {
      const k = kOf === undefined ? 0 : Number(kOf.data[0]);
      const upper = node.number("upper", 1) === 1;
      const [rows, columns] = x!.shape.slice(-2) as [number, number];
      const data = x!.data.slice();
      const zero = listLike(data, 1)[0]!;
      for (let i = 0; i < data.length; i++) {
        const above = i % columns - Math.floor(i / columns) % rows;
        if (upper ? above < k : above > k) data[i] = zero;
      }
      return [like(x!, x!.shape, data)];
    },
  }),
  ReverseSequence: define({
    inputs: [2, 2],
    attributes: "batch_axis time_axis",
    shapes: (node) => [node.shape(0)],
    compute: (node, [x, lengths]) => {
      const batchAxis = node.axis(node.number("batch_axis", 1), x!.shape.length);
      const timeAxis = node.axis(node.number("time_axis", 0), x!.shape.length);
      const strides = stridesOf(x!.shape);
      const list = numbersOf(lengths!);
      const data = listLike(x!.data, x!.data.length);
      forEachIndex(x!.shape, (index, position) => {
        const [time, length] = [index[timeAxis]!, list[index[batchAxis]!]!];
        const from = time < length ? length - 1 - time : time;
        data[position] = x!.data[position + (from - time) * strides[timeAxis]!]!;
      });
      return [like(x!, x!.shape, data)];
    },
  }),
  Compress: define({
    inputs: [2, 2],
    attributes: "axis",
    shapes: () => [undefined],
    compute: (node, [x, condition]) => {
      const said = node.node.attributes.get("axis");
      const shape = said === undefined ? [elementCount(x!.shape)] : x!.shape;
      const axis = said === undefined ? 0 : node.axis(node.number("axis", 0), shape.length);
      const [outer, length, inner] = around(shape, axis);
      const kept: number[] = [];
      condition!.data.forEach((c: unknown, i: number) => {
        if (c && i < length) kept.push(i);
      });
      const data = listLike(x!.data, outer * kept.length * inner);
      let at = 0;
      for (let o = 0; o < outer; o++) {
        for (const k of kept) {
          for (let i = 0; i < inner; i++) data[at++] = x!.data[(o * length + k) * inner + i]!;
        }
      }
      return [like(x!, shape.with(axis, kept.length), data)];
    },
  }),
  CenterCropPad: define({
    inputs: [2, 2],
    attributes: "axes",
    shapes: (node) => [cropped(node)],
    compute: (_, [x], [out]) => {
      const data = emptyData(x!.type as DataType, elementCount(out!.shape!));
      const strides = stridesOf(x!.shape);
      const shift = x!.shape.map((d, i) => {
        const more = out!.shape![i]! - d;
        return more >= 0 ? Math.floor(more / 2) : -Math.floor(-more / 2);
      });
      forEachIndex(out!.shape!, (index, position) => {
        let at = 0;
        for (let i = 0; i < index.length; i++) {
          const p = index[i]! - shift[i]!;
          if (p < 0 || p >= x!.shape[i]!) return;
          at += p * strides[i]!;
        }
        data[position] = x!.data[at]!;
      });
      return [like(x!, out!.shape!, data)];
    },
  }),
};
