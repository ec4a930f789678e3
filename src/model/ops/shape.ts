/** Operators that read a shape or give one, without a change of the elements (ONNX Shape-21, Reshape-21, Squeeze-21, Expand-13, Range-11 and their kin). */

import { elementCount, emptyData, type HostTensor, numbersOf } from "../host_tensor.ts";
import { typeNamed } from "./elementwise.ts";
import { broadcastShape, broadcastTo } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";

/** The numbers of an input that a shape depends on; undefined where they are not known. */
export function knownNumbers(node: NodeReader, at: number): readonly number[] | undefined {
  const known = node.inputs[at]?.known;
  return known && Array.from(known.data, Number);
}

/** A shape that a model asks for must be one. */
function checkShape(node: NodeReader, shape: readonly number[]): readonly number[] {
  if (shape.some((d) => !Number.isInteger(d) || d < 0 || d >= 2 ** 31)) {
    throw node.fail(`shape [${shape.join(", ")}]`);
  }
  return shape;
}

/** Source: ONNX Reshape-14. */
function reshaped(node: NodeReader): readonly number[] | undefined {
  const x = node.shape(0);
  const asked = node.node.opset < 5 ? node.numbers("shape") : knownNumbers(node, 1);
  if (asked === undefined) return undefined;
  const keepZero = node.number("allowzero", 0) === 1;
  const count = elementCount(x);
  const shape = asked.map((d, i) => {
    if (d !== 0 || keepZero) return d;
    if (x[i] === undefined) throw node.fail(`shape [${asked.join(", ")}] of [${x.join(", ")}]`);
    return x[i];
  });
  const open = shape.indexOf(-1);
  if (open >= 0) {
    const others = elementCount(shape.filter((_, i) => i !== open));
    shape[open] = others === 0 ? 0 : count / others;
  }
  checkShape(node, shape);
  if (elementCount(shape) !== count) {
    throw node.fail(`shape [${asked.join(", ")}] of [${x.join(", ")}]`);
  }
  return shape;
}

/** Axes of Squeeze or Unsqueeze, from the attribute or the input; null where none are said. */
function axesAsked(node: NodeReader): readonly number[] | null | undefined {
  if (node.inputs[1] !== undefined) return knownNumbers(node, 1);
  return node.numbers("axes") ?? null;
}

function squeezed(node: NodeReader): readonly number[] | undefined {
  const x = node.shape(0);
  const asked = axesAsked(node);
  if (asked === undefined) return undefined;
  if (asked === null) return x.filter((d) => d !== 1);
  const axes = asked.map((axis) => node.axis(axis, x.length));
  if (axes.some((axis) => x[axis] !== 1)) {
    throw node.fail(`axes [${asked.join(", ")}] of [${x.join(", ")}] are not all 1`);
  }
  return x.filter((_, i) => !axes.includes(i));
}

function unsqueezed(node: NodeReader): readonly number[] | undefined {
  const x = node.shape(0);
  const asked = axesAsked(node);
  if (asked === undefined) return undefined;
  const rank = x.length + (asked?.length ?? 0);
  const axes = (asked ?? []).map((axis) => node.axis(axis, rank));
  if (new Set(axes).size !== axes.length) throw node.fail(`axes [${asked?.join(", ")}]`);
  const rest = x.values();
  return Array.from({ length: rank }, (_, i) => axes.includes(i) ? 1 : rest.next().value!);
}

/** The same elements with another shape. */
function view(
  attributes: string,
  inputs: readonly [number, number],
  shape: (node: NodeReader) => readonly number[] | undefined,
): Operator {
  return define({
    attributes,
    inputs,
    shapes: (node) => [shape(node)],
    compute: (node, [x]) => [{ ...x!, shape: shape(node)! }],
  });
}

/** How many numbers a Range has. Source: ONNX Range-11. */
function rangeLength(node: NodeReader): number | undefined {
  const [start, limit, delta] = [0, 1, 2].map((i) => knownNumbers(node, i)?.[0]);
  if (start === undefined || limit === undefined || delta === undefined) return undefined;
  const length = Math.max(0, Math.ceil((limit - start) / delta));
  if (!(length < 2 ** 31)) throw node.fail(`${start} to ${limit} in steps of ${delta}`);
  return length;
}

export const shape: Readonly<Record<string, Operator>> = {
  Shape: define({
    inputs: [1, 1],
    attributes: "start end",
    types: () => ["int64"],
    shapes: (node) => [[shapeAsked(node).length]],
    compute: (node) => [shapeAsked(node)],
  }),
  Size: define({
    inputs: [1, 1],
    types: () => ["int64"],
    shapes: () => [[]],
    compute: (node) => [[elementCount(node.shape(0))]],
  }),
  Reshape: view("allowzero shape", [1, 2], reshaped),
  Flatten: view("axis", [1, 1], (node) => {
    const x = node.shape(0);
    const said = node.number("axis", 1);
    const axis = said < 0 ? said + x.length : said;
    if (axis < 0 || axis > x.length) throw node.fail(`axis ${said} of [${x.join(", ")}]`);
    return [elementCount(x.slice(0, axis)), elementCount(x.slice(axis))];
  }),
  Squeeze: view("axes", [1, 2], squeezed),
  Unsqueeze: view("axes", [1, 2], unsqueezed),
  Expand: define({
    inputs: [2, 2],
    shapes: (node) => {
      const asked = knownNumbers(node, 1);
      return [asked && broadcastShape(node, [node.shape(0), checkShape(node, asked)])];
    },
    compute: (_, [x], [out]) => [broadcastTo(x!, out!.shape!)],
  }),
  ConstantOfShape: define({
    inputs: [1, 1],
    attributes: "value",
    types: (node) => [node.tensor("value")?.type ?? "float32"],
    shapes: (node) => {
      const asked = knownNumbers(node, 0);
      return [asked && checkShape(node, asked)];
    },
    compute: (node, _, [out]) => {
      const { type, shape } = out!;
      const value = node.tensor("value")?.data[0];
      const data = emptyData(type, elementCount(shape!));
      if (value !== undefined) (data as Float64Array).fill(value as number);
      return [{ type, shape: shape!, data }];
    },
  }),
  Range: define({
    inputs: [3, 3],
    shapes: (node) => {
      const length = rangeLength(node);
      return [length === undefined ? undefined : [length]];
    },
    compute: (_, [start, , delta], [out]) => {
      const [from, step] = [Number(start!.data[0]), Number(delta!.data[0])];
      return [Float64Array.from({ length: out!.shape![0]! }, (_, i) => from + i * step)];
    },
  }),
  EyeLike: define({
    inputs: [1, 1],
    attributes: "dtype k",
    types: (node) => {
      const asked = node.number("dtype", 0);
      return [asked === 0 ? node.input(0).type : typeNamed(node, asked, "dtype")];
    },
    shapes: (node) => {
      const x = node.shape(0);
      if (x.length !== 2) throw node.fail(`[${x.join(", ")}] is no matrix`);
      return [x];
    },
    compute: (node, [x]) => {
      const [rows, columns] = x!.shape as [number, number];
      const k = node.number("k", 0);
      const y = new Float64Array(rows * columns);
      for (let r = Math.max(0, -k); r < rows && r + k < columns; r++) y[r * columns + r + k] = 1;
      return [y];
    },
  }),
  OneHot: define({
    inputs: [3, 3],
    attributes: "axis",
    types: (node) => [node.input(2).type],
    shapes: (node) => {
      const depth = knownNumbers(node, 1)?.[0];
      if (depth === undefined) return [undefined];
      const indices = node.shape(0);
      const axis = node.axis(node.number("axis", -1), indices.length + 1);
      return [checkShape(node, indices.toSpliced(axis, 0, depth))];
    },
    compute: (node, [indices, , values], [out]) => {
      const { type, shape } = out!;
      const axis = node.axis(node.number("axis", -1), shape!.length);
      const depth = shape![axis]!;
      const inner = elementCount(shape!.slice(axis + 1));
      const off = values!.data[0]!, on = values!.data[1]!;
      const data = emptyData(type, elementCount(shape!));
      (data as Float64Array).fill(off as number);
      numbersOf(indices!).forEach((index: number, i: number) => {
        const k = index < 0 ? index + depth : index;
        if (k < 0 || k >= depth) return; // all off
        data[(Math.floor(i / inner) * depth + k) * inner + i % inner] = on;
      });
      return [{ type, shape: shape!, data } satisfies HostTensor];
    },
  }),
};

/** The part of a shape that a Shape node gives. Source: ONNX Shape-15. */
function shapeAsked(node: NodeReader): readonly number[] {
  const x = node.shape(0);
  return x.slice(node.number("start", 0), node.number("end", x.length));
}
