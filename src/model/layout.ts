/**
 * How a value lies in memory: the order of its axes, and padding of the innermost.
 *
 * A model speaks of [N, C, H, W]; kernels want [N, H, W, C]. So a value keeps its logical shape and
 * is stored with its axes in another order. Transposing is then a matter of words, and a chain of
 * transposes costs nothing until somebody needs a certain order.
 */

import { elementCount, type HostData } from "./host_tensor.ts";

export interface Layout {
  /** Logical axes from outermost to innermost in memory. */
  readonly order: readonly number[];
  /** True where the innermost axis takes a multiple of four elements, zeros behind its own. */
  readonly padded: boolean;
}

/** Row-major, as ONNX has it. */
export function dense(rank: number): Layout {
  return { order: Array.from({ length: rank }, (_, i) => i), padded: false };
}

/** [N, C, ...] as [N, ..., C] with C padded to a multiple of four: what kernels of images take. */
export function channelsLast(rank: number): Layout {
  return { order: [0, ...Array.from({ length: rank - 2 }, (_, i) => i + 2), 1], padded: true };
}

function upToFour(size: number): number {
  return Math.ceil(size / 4) * 4;
}

/** True where the padding is more than a word. */
export function hasPadding(shape: readonly number[], { order, padded }: Layout): boolean {
  return padded && order.length > 0 && shape[order.at(-1)!]! % 4 !== 0;
}

/** The sizes in memory's order, padding included. */
export function physicalShape(shape: readonly number[], layout: Layout): number[] {
  const sizes = layout.order.map((axis) => shape[axis]!);
  if (hasPadding(shape, layout)) sizes.push(upToFour(sizes.pop()!));
  return sizes;
}

/** True where both put every element of the shape in the same place: axes of size 1 are nowhere. */
export function sameMemory(shape: readonly number[], a: Layout, b: Layout): boolean {
  const padding = hasPadding(shape, a);
  if (padding !== hasPadding(shape, b)) return false;
  if (padding && a.order.at(-1) !== b.order.at(-1)) return false;
  const longer = (axis: number) => shape[axis]! !== 1;
  return a.order.filter(longer).join() === b.order.filter(longer).join();
}

/** The layout of the same memory once axis i of the result is axis `permutation[i]` of the value. */
export function transposed({ order, padded }: Layout, permutation: readonly number[]): Layout {
  return { order: order.map((axis) => permutation.indexOf(axis)), padded };
}

/**
 * The layout of the same memory under another shape of as many elements, in the sense of ONNX's
 * Reshape: undefined where the memory would have to be moved. Axes that are merged must lie one after
 * the other; [N, C, H, W] stored as [N, H, W, C] is [N, C, H·W] stored as [N, H·W, C].
 */
export function reshaped(
  shape: readonly number[],
  layout: Layout,
  to: readonly number[],
): Layout | undefined {
  if (hasPadding(shape, layout)) return undefined;
  if (shape.includes(0)) return dense(to.length);
  const order: number[] = [];
  const ones = to.flatMap((size, axis) => size === 1 ? [axis] : []);
  // Groups of axes, as small as may be, that make up groups of the new ones.
  const groupOf = new Map<number, { from: number[]; into: number[] }>();
  let i = 0, j = 0;
  while (i < shape.length || j < to.length) {
    const from: number[] = [], into: number[] = [];
    let before = 1, after = 1;
    do {
      if (i < shape.length && (before <= after || j >= to.length)) {
        before *= shape[i]!;
        if (shape[i] !== 1) from.push(i);
        i++;
      } else if (j < to.length) {
        after *= to[j]!;
        if (to[j] !== 1) into.push(j);
        j++;
      }
    } while (before !== after && (i < shape.length || j < to.length));
    if (before !== after) return undefined;
    for (const axis of from) groupOf.set(axis, { from, into });
  }
  const stored = layout.order.filter((axis) => shape[axis] !== 1);
  for (let k = 0; k < stored.length;) {
    const { from, into } = groupOf.get(stored[k]!)!;
    if (from.some((axis, l) => stored[k + l] !== axis)) return undefined;
    order.push(...into);
    k += from.length;
  }
  return { order: [...ones, ...order], padded: false };
}

/** Elements that lie in a layout, row-major and without padding; the same array where they lie so. */
export function rowMajor<D extends HostData>(data: D, shape: readonly number[], layout: Layout): D {
  if (sameMemory(shape, layout, dense(shape.length))) return data;
  // Strides of the memory along each logical axis, from the last on.
  const physical = physicalShape(shape, layout);
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let k = physical.length - 1; k >= 0; k--) {
    strides[layout.order[k]!] = stride;
    stride *= physical[k]!;
  }
  const result = data.slice(0, elementCount(shape)) as D;
  const index = new Array<number>(shape.length).fill(0);
  let at = 0;
  for (let i = 0; i < result.length; i++) {
    result[i] = data[at]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      at -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return result;
}

/** Where a logical axis is in memory: 0 is outermost. */
export function physicalAxis({ order }: Layout, axis: number): number {
  return order.indexOf(axis);
}
