/** Products of matrices (ONNX MatMul-13, Gemm-13, Einsum-12, MatMulInteger-10, QLinearMatMul-21, Det-22). */

import { elementCount, type HostTensor, numbersOf } from "../host_tensor.ts";
import { roundHalfToEven } from "./elementwise.ts";
import {
  broadcastShape,
  broadcastStrides,
  broadcastTo,
  forEachIndex,
  stridesOf,
} from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";
import { broadcastChannel, quantisedRange } from "./quantise.ts";

/** A product as matrices: y[batch, m, n] = Σ a[batch, m, k] · b[batch, k, n]. */
export interface MatrixProduct {
  /** Shape of the axes before the matrices', to which both operands broadcast. */
  readonly batch: readonly number[];
  readonly m: number;
  readonly k: number;
  readonly n: number;
  /** Shapes of the operands as matrices, a vector among them with an axis of one. */
  readonly a: readonly number[];
  readonly b: readonly number[];
  /** The output's, from which a vector's axis is gone. */
  readonly shape: readonly number[];
}

/** How a MatMul node's operands multiply. Source: numpy.matmul. @throws {ModelError} where they do not. */
export function matrixProduct(node: NodeReader, aAt = 0, bAt = 1): MatrixProduct {
  const [left, right] = [node.shape(aAt), node.shape(bAt)];
  const a = left.length === 1 ? [1, ...left] : left;
  const b = right.length === 1 ? [...right, 1] : right;
  const [m, k] = [a.at(-2), a.at(-1)];
  const [rows, n] = [b.at(-2), b.at(-1)];
  if (m === undefined || k === undefined || n === undefined || rows !== k) {
    throw node.fail(`[${left.join(", ")}] times [${right.join(", ")}]`);
  }
  const batch = broadcastShape(node, [a.slice(0, -2), b.slice(0, -2)]);
  const shape = [...batch, ...left.length === 1 ? [] : [m], ...right.length === 1 ? [] : [n]];
  return { batch, m, k, n, a, b, shape };
}

function multiply(
  { batch, m, k, n, a, b }: MatrixProduct,
  left: ArrayLike<number>,
  right: ArrayLike<number>,
): Float64Array {
  const count = elementCount(batch);
  const y = new Float64Array(count * m * n);
  const aStrides = broadcastStrides(a.slice(0, -2), batch);
  const bStrides = broadcastStrides(b.slice(0, -2), batch);
  forEachIndex(batch, (index, at) => {
    const aAt = index.reduce((sum, i, axis) => sum + i * aStrides[axis]!, 0) * m * k;
    const bAt = index.reduce((sum, i, axis) => sum + i * bStrides[axis]!, 0) * k * n;
    const yAt = at * m * n;
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < k; j++) {
        const v = left[aAt + i * k + j]!;
        for (let c = 0; c < n; c++) y[yAt + i * n + c]! += v * right[bAt + j * n + c]!;
      }
    }
  });
  return y;
}

export interface GemmShape {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly transA: boolean;
  readonly transB: boolean;
  readonly alpha: number;
  readonly beta: number;
}

/** What a Gemm node computes: α · A · B + β · C. @throws {ModelError} where its operands do not fit. */
export function gemmShape(node: NodeReader): GemmShape {
  const [a, b] = [node.shape(0), node.shape(1)];
  const transA = node.number("transA", 0) !== 0;
  const transB = node.number("transB", 0) !== 0;
  const [m, k] = transA ? [a[1], a[0]] : a;
  const [rows, n] = transB ? [b[1], b[0]] : b;
  const fits = a.length === 2 && b.length === 2 && k === rows;
  if (!fits || m === undefined || k === undefined || n === undefined) {
    throw node.fail(`[${a.join(", ")}] times [${b.join(", ")}]`);
  }
  if (node.inputs[2] !== undefined) {
    const out = broadcastShape(node, [[m, n], node.shape(2)]);
    if (out.join() !== [m, n].join()) {
      throw node.fail(`[${node.shape(2).join(", ")}] added to [${m}, ${n}]`);
    }
  }
  const [alpha, beta] = [node.number("alpha", 1), node.number("beta", 1)];
  return { m, k, n, transA, transB, alpha, beta };
}

function transposed(x: ArrayLike<number>, rows: number, columns: number): Float64Array {
  const y = new Float64Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) y[c * rows + r] = x[r * columns + c]!;
  }
  return y;
}

/** An Einsum equation, its ellipses spelt out in letters of their own. */
interface Equation {
  readonly terms: readonly (readonly string[])[];
  readonly output: readonly string[];
  readonly sizes: ReadonlyMap<string, number>;
}

/** Source: ONNX Einsum-12. @throws {ModelError} where the equation is none or does not fit its operands. */
export function einsumEquation(node: NodeReader): Equation {
  const text = node.text("equation", "").replaceAll(" ", "");
  const [left = "", right] = text.split("->");
  const names = left.split(",");
  const bad = () => node.fail(`equation "${text}"`);
  if (names.length !== node.inputs.length || text.split("->").length > 2) throw bad();
  const sizes = new Map<string, number>();
  let widest = 0;
  const spell = (term: string, rank: number | undefined): string[] => {
    const parts = term.split("...");
    if (parts.length > 2 || !/^[A-Za-z]*$/.test(parts.join(""))) throw bad();
    const letters = parts.map((p) => [...p]);
    if (parts.length === 1) return letters[0]!;
    const width = rank === undefined ? widest : rank - letters.flat().length;
    if (width < 0) throw bad();
    if (rank !== undefined) widest = Math.max(widest, width);
    // Counted from the end, as broadcasting is.
    const dots = Array.from({ length: width }, (_, i) => `.${width - i}`);
    return [...letters[0]!, ...dots, ...letters[1]!];
  };
  const terms = names.map((term, i) => {
    const shape = node.shape(i);
    const letters = spell(term, shape.length);
    if (letters.length !== shape.length) throw bad();
    letters.forEach((letter, axis) => {
      const [d, known] = [shape[axis]!, sizes.get(letter) ?? 1];
      if (d !== 1 && known !== 1 && known !== d) {
        throw node.fail(`"${letter}" is both ${known} and ${d}`);
      }
      sizes.set(letter, known === 1 ? d : known);
    });
    return letters;
  });
  let output: string[];
  if (right !== undefined) output = spell(right, undefined);
  else {
    const all = terms.flat();
    const once = [...new Set(all)].filter((l) => all.filter((o) => o === l).length === 1);
    const dots = [...new Set(all.filter((l) => l.startsWith(".")))].sort().reverse();
    output = [...dots, ...once.filter((l) => !l.startsWith(".")).sort()];
  }
  if (output.some((l) => !sizes.has(l)) || new Set(output).size !== output.length) throw bad();
  return { terms, output, sizes };
}

function einsum(node: NodeReader, inputs: readonly HostTensor[]): Float64Array {
  const { terms, output, sizes } = einsumEquation(node);
  const summed = [...sizes.keys()].filter((letter) => !output.includes(letter));
  const letters = [...output, ...summed];
  const strides = terms.map((term, i) => {
    const shape = node.shape(i);
    const own = stridesOf(shape);
    return letters.map((letter) =>
      term.reduce((sum, l, axis) => sum + (l === letter && shape[axis] !== 1 ? own[axis]! : 0), 0)
    );
  });
  const lists = inputs.map(numbersOf);
  const y = new Float64Array(elementCount(output.map((l) => sizes.get(l)!)));
  const inner = elementCount(summed.map((l) => sizes.get(l)!));
  forEachIndex(letters.map((l) => sizes.get(l)!), (index, position) => {
    let product = 1;
    for (let t = 0; t < lists.length; t++) {
      let at = 0;
      for (let i = 0; i < index.length; i++) at += index[i]! * strides[t]![i]!;
      product *= lists[t]![at]!;
    }
    y[Math.floor(position / inner)]! += product;
  });
  return y;
}

/** Determinant by elimination with the largest pivot. */
function determinant(matrix: Float64Array, n: number): number {
  let det = 1;
  for (let c = 0; c < n; c++) {
    let pivot = c;
    for (let r = c + 1; r < n; r++) {
      if (Math.abs(matrix[r * n + c]!) > Math.abs(matrix[pivot * n + c]!)) pivot = r;
    }
    const top = matrix[pivot * n + c]!;
    if (top === 0) return 0;
    if (pivot !== c) {
      det = -det;
      for (let i = 0; i < n; i++) {
        [matrix[c * n + i], matrix[pivot * n + i]] = [matrix[pivot * n + i]!, matrix[c * n + i]!];
      }
    }
    det *= top;
    for (let r = c + 1; r < n; r++) {
      const factor = matrix[r * n + c]! / top;
      for (let i = c; i < n; i++) matrix[r * n + i]! -= factor * matrix[c * n + i]!;
    }
  }
  return det;
}

/** An integer operand less its zero point: one number, one a row of A, or one a column of B. */
function centredMatrix(x: HostTensor, zero: HostTensor | undefined, axis: number) {
  const values = numbersOf(x);
  if (zero === undefined) return values;
  const rank = x.shape.length;
  if (zero.shape.length > 1) {
    const zeros = numbersOf(broadcastTo(zero, x.shape));
    return Float64Array.from(values, (v, i) => v - zeros[i]!);
  }
  const points = broadcastChannel(zero, x.shape, Math.max(0, rank + axis));
  return Float64Array.from(values, (v, i) => v - points(i));
}

export const matmul: Readonly<Record<string, Operator>> = {
  MatMul: define({
    inputs: [2, 2],
    heavy: true,
    types: (node) => {
      const [a, b] = [node.input(0).type, node.input(1).type];
      if (a !== b) throw node.fail(`types ${a}, ${b}`);
      return [a];
    },
    shapes: (node) => [matrixProduct(node).shape],
    compute: (node, [a, b]) => [multiply(matrixProduct(node), numbersOf(a!), numbersOf(b!))],
  }),
  Gemm: define({
    inputs: [2, 3],
    attributes: "alpha beta transA transB broadcast",
    heavy: true,
    shapes: (node) => {
      const { m, n } = gemmShape(node);
      return [[m, n]];
    },
    compute: (node, [a, b, c]) => {
      const { m, k, n, transA, transB, alpha, beta } = gemmShape(node);
      const left = transA ? transposed(numbersOf(a!), k, m) : numbersOf(a!);
      const right = transB ? transposed(numbersOf(b!), n, k) : numbersOf(b!);
      const product = { batch: [], m, k, n, a: [m, k], b: [k, n], shape: [m, n] };
      const y = multiply(product, left, right);
      const added = c && numbersOf(broadcastTo(c, [m, n]));
      return [y.map((v, i) => alpha * v + (added === undefined ? 0 : beta * added[i]!))];
    },
  }),
  MatMulInteger: define({
    inputs: [2, 4],
    heavy: true,
    types: () => ["int32"],
    shapes: (node) => [matrixProduct(node).shape],
    compute: (node, [a, b, aZero, bZero]) => {
      const [left, right] = [centredMatrix(a!, aZero, -2), centredMatrix(b!, bZero, -1)];
      return [multiply(matrixProduct(node), left, right)];
    },
  }),
  QLinearMatMul: define({
    inputs: [8, 8],
    heavy: true,
    types: (node) => [node.input(7).type],
    shapes: (node) => [matrixProduct(node, 0, 3).shape],
    compute: (node, [a, aScale, aZero, b, bScale, bZero, yScale, yZero], [out]) => {
      const product = matrixProduct(node, 0, 3);
      const y = multiply(product, centredMatrix(a!, aZero, -2), centredMatrix(b!, bZero, -1));
      const [low, high] = quantisedRange(node, out!.type);
      const scalar = (t: HostTensor | undefined) => Number(t!.data[0]);
      const aScales = numbersOf(aScale!);
      const bScales = numbersOf(bScale!);
      return [y.map((v, i) => {
        const row = Math.floor(i / product.n) % product.m;
        const scale = aScales[row % aScales.length]! * bScales[i % product.n % bScales.length]! /
          scalar(yScale);
        return Math.min(high, Math.max(low, roundHalfToEven(v * scale) + scalar(yZero)));
      })];
    },
  }),
  Einsum: define({
    inputs: [1, Infinity],
    attributes: "equation",
    heavy: true,
    shapes: (node) => {
      const { output, sizes } = einsumEquation(node);
      return [output.map((letter) => sizes.get(letter)!)];
    },
    compute: (node, inputs) => [einsum(node, inputs)],
  }),
  Det: define({
    inputs: [1, 1],
    heavy: true,
    floats: true,
    shapes: (node) => {
      const x = node.shape(0);
      if (x.length < 2 || x.at(-1) !== x.at(-2)) throw node.fail(`[${x.join(", ")}] is not square`);
      return [x.slice(0, -2)];
    },
    compute: (_, [x], [out]) => {
      const n = x!.shape.at(-1)!;
      const values = Float64Array.from(numbersOf(x!));
      const y = new Float64Array(elementCount(out!.shape!));
      return [y.map((_, i) => determinant(values.slice(i * n * n, (i + 1) * n * n), n))];
    },
  }),
};
