/** Operators whose output is a choice among the input's elements (ONNX TopK-11, NonZero-13, Unique-11, NonMaxSuppression-11). */

import { elementCount, type HostTensor, numbersOf, tensorOf } from "../host_tensor.ts";
import { around, forEachIndex, listLike } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";
import { knownNumbers } from "./shape.ts";

/** How many a TopK node takes along which axis; undefined where that depends on data. */
export function topKOf(node: NodeReader): { axis: number; k: number } | undefined {
  const x = node.shape(0);
  const axis = node.axis(node.number("axis", -1), x.length);
  const k = node.node.opset < 10 ? node.number("k", -1) : knownNumbers(node, 1)?.[0];
  if (k === undefined) return undefined;
  if (!Number.isInteger(k) || k < 0 || k > x[axis]!) throw node.fail(`${k} of ${x[axis]}`);
  return { axis, k };
}

/** A box as [y1, x1, y2, x2] with the lesser corner first. Source: ONNX NonMaxSuppression-11. */
function corners(
  b: ArrayLike<number>,
  at: number,
  centred: boolean,
): [number, number, number, number] {
  const [p, q, r, s] = [b[at]!, b[at + 1]!, b[at + 2]!, b[at + 3]!];
  if (centred) return [q - s / 2, p - r / 2, q + s / 2, p + r / 2];
  return [Math.min(p, r), Math.min(q, s), Math.max(p, r), Math.max(q, s)];
}

type Box = ReturnType<typeof corners>;

/** Common area of two boxes over that of their union. */
function overlap(a: Box, b: Box): number {
  const height = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const width = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (height <= 0 || width <= 0) return 0;
  const area = (c: Box) => (c[2] - c[0]) * (c[3] - c[1]);
  const common = height * width;
  return common / (area(a) + area(b) - common);
}

function nonMaxSuppression(node: NodeReader, inputs: readonly HostTensor[]): HostTensor {
  const [boxes, scores] = [numbersOf(inputs[0]!), numbersOf(inputs[1]!)];
  const [batches, count] = node.shape(0) as [number, number];
  const [, classes] = node.shape(1) as [number, number];
  const scalar = (i: number) => inputs[i] === undefined ? undefined : Number(inputs[i]!.data[0]);
  const most = scalar(2) ?? 0;
  const mostOverlap = scalar(3) ?? 0;
  const least = scalar(4);
  const centred = node.number("center_point_box", 0) === 1;
  const chosen: number[] = [];
  for (let n = 0; n < batches; n++) {
    for (let c = 0; c < classes; c++) {
      const at = (n * classes + c) * count;
      const order = Array.from({ length: count }, (_, i) => i)
        .filter((i) => least === undefined || scores[at + i]! > least)
        .sort((i, j) => scores[at + j]! - scores[at + i]! || i - j);
      const kept: Box[] = [];
      for (const i of order) {
        if (kept.length >= most) break;
        const box = corners(boxes, (n * count + i) * 4, centred);
        if (kept.some((other) => overlap(box, other) > mostOverlap)) continue;
        kept.push(box);
        chosen.push(n, c, i);
      }
    }
  }
  return tensorOf("int64", [chosen.length / 3, 3], chosen);
}

/** Slices of `x` along an axis, or its elements, each once. Source: ONNX Unique-11. */
function unique(node: NodeReader, x: HostTensor): HostTensor[] {
  const said = node.node.attributes.get("axis");
  const shape = said === undefined ? [elementCount(x.shape)] : x.shape;
  const axis = said === undefined ? 0 : node.axis(node.number("axis", 0), shape.length);
  const [outer, length, inner] = around(shape, axis);
  const list = numbersOf(x);
  const element = (k: number, j: number) =>
    list[(Math.floor(j / inner) * length + k) * inner + j % inner]!;
  const width = outer * inner;
  const compare = (a: number, b: number) => {
    for (let j = 0; j < width; j++) {
      const [p, q] = [element(a, j), element(b, j)];
      if (p !== q) return p < q ? -1 : 1;
    }
    return 0;
  };
  const order = Array.from({ length }, (_, k) => k).sort((a, b) => compare(a, b) || a - b);
  // Groups of equal slices, each by its first.
  let groups: number[][] = [];
  for (const k of order) {
    const last = groups.at(-1);
    if (last !== undefined && compare(last[0]!, k) === 0) last.push(k);
    else groups.push([k]);
  }
  if (node.number("sorted", 1) === 0) groups = groups.sort((a, b) => a[0]! - b[0]!);
  const data = listLike(x.data, width * groups.length);
  const inverse = new Array<number>(length);
  groups.forEach((group, g) => {
    for (const k of group) inverse[k] = g;
    for (let j = 0; j < width; j++) {
      const to = (Math.floor(j / inner) * groups.length + g) * inner + j % inner;
      data[to] = x.data[(Math.floor(j / inner) * length + group[0]!) * inner + j % inner]!;
    }
  });
  const int64s = (numbers: number[]) => tensorOf("int64", [numbers.length], numbers);
  return [
    { type: x.type, shape: shape.with(axis, groups.length), data },
    int64s(groups.map((group) => group[0]!)),
    int64s(inverse),
    int64s(groups.map((group) => group.length)),
  ];
}

export const selection: Readonly<Record<string, Operator>> = {
  TopK: define({
    inputs: [1, 2],
    outputs: 2,
    attributes: "axis k largest sorted",
    heavy: true,
    types: (node) => [node.input(0).type, "int64"],
    shapes: (node) => {
      const top = topKOf(node);
      const shape = top && node.shape(0).with(top.axis, top.k);
      return [shape, shape];
    },
    compute: (node, [x], [out]) => {
      const { axis, k } = topKOf(node)!;
      const largest = node.number("largest", 1) !== 0;
      const [outer, length, inner] = around(x!.shape, axis);
      const values = numbersOf(x!);
      const indices = new Float64Array(outer * k * inner);
      const data = listLike(x!.data, indices.length);
      for (let o = 0; o < outer; o++) {
        for (let i = 0; i < inner; i++) {
          const at = (n: number) => (o * length + n) * inner + i;
          const order = Array.from({ length }, (_, n) => n).sort((a, b) => {
            const difference = values[at(a)]! - values[at(b)]!;
            return (largest ? -difference : difference) || a - b;
          });
          for (let n = 0; n < k; n++) {
            const to = (o * k + n) * inner + i;
            indices[to] = order[n]!;
            data[to] = x!.data[at(order[n]!)]!;
          }
        }
      }
      return [{ type: x!.type, shape: out!.shape!, data }, indices];
    },
  }),
  NonZero: define({
    inputs: [1, 1],
    types: () => ["int64"],
    shapes: () => [undefined],
    compute: (_, [x]) => {
      const list = numbersOf(x!);
      const rank = Math.max(1, x!.shape.length);
      const found: number[][] = [];
      forEachIndex(x!.shape.length === 0 ? [1] : x!.shape, (index, position) => {
        if (list[position] !== 0) found.push([...index]);
      });
      const rows = Array.from({ length: rank }, (_, axis) => found.map((index) => index[axis]!));
      return [tensorOf("int64", [rank, found.length], rows.flat())];
    },
  }),
  Unique: define({
    inputs: [1, 1],
    outputs: 4,
    attributes: "axis sorted",
    types: (node) => [node.input(0).type, "int64", "int64", "int64"],
    shapes: () => [],
    compute: (node, [x]) => unique(node, x!),
  }),
  NonMaxSuppression: define({
    inputs: [2, 5],
    attributes: "center_point_box",
    heavy: true,
    types: () => ["int64"],
    shapes: (node) => {
      const [boxes, scores] = [node.shape(0), node.shape(1)];
      const fits = boxes.length === 3 && scores.length === 3 && boxes[2] === 4 &&
        boxes[0] === scores[0] && boxes[1] === scores[2];
      if (!fits) throw node.fail(`boxes [${boxes.join(", ")}], scores [${scores.join(", ")}]`);
      return [undefined];
    },
    compute: (node, inputs) => [nonMaxSuppression(node, inputs)],
  }),
};
