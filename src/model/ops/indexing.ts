/** Walks over tensors in row-major order: strides, broadcasting and copies that follow them. */

import { elementCount, type HostData, type HostTensor } from "../host_tensor.ts";
import type { NodeReader } from "./operator.ts";

/** Elements between neighbours along each axis of a row-major tensor. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/**
 * The shape that all broadcast to. Source: onnx/onnx `docs/Broadcasting.md`.
 * @throws {ModelError} where they do not.
 */
export function broadcastShape(node: NodeReader, shapes: readonly (readonly number[])[]): number[] {
  const rank = shapes.reduce((most, s) => Math.max(most, s.length), 0);
  const out = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    shape.forEach((d, i) => {
      const axis = rank - shape.length + i;
      if (d === 1 || d === out[axis]) return;
      if (out[axis] !== 1) {
        const all = shapes.map((s) => `[${s.join(", ")}]`).join(" and ");
        throw node.fail(`shapes ${all} do not broadcast`);
      }
      out[axis] = d;
    });
  }
  return out;
}

/** Calls back with an index of each element of `shape`, in row-major order; the array is reused. */
export function forEachIndex(
  shape: readonly number[],
  visit: (index: readonly number[], position: number) => void,
): void {
  const count = elementCount(shape);
  const index = new Array<number>(shape.length).fill(0);
  for (let position = 0; position < count; position++) {
    visit(index, position);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (++index[axis]! < shape[axis]!) break;
      index[axis] = 0;
    }
  }
}

/** An empty list of the same kind. */
export function listLike<T extends HostData>(data: T, count: number): T {
  return new (data.constructor as { new (count: number): T })(count);
}

/** A copy of which the element at index i is the source's at `offset` + i · `strides`. */
export function strided<T extends HostData>(
  data: T,
  shape: readonly number[],
  strides: readonly number[],
  offset = 0,
): T {
  const out = listLike(data, elementCount(shape));
  if (out.length === 0) return out;
  const inner = shape.at(-1) ?? 1;
  const step = strides.at(-1) ?? 0;
  const outer = shape.slice(0, -1);
  const index = new Array<number>(outer.length).fill(0);
  let from = offset;
  for (let at = 0; at < out.length;) {
    for (let i = 0, p = from; i < inner; i++, p += step) out[at++] = data[p]!;
    for (let axis = outer.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < outer[axis]!) break;
      from -= strides[axis]! * outer[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

/** Strides of a tensor of shape `from` read as one of the broader shape `to`. */
export function broadcastStrides(from: readonly number[], to: readonly number[]): number[] {
  const strides = stridesOf(from);
  const lead = to.length - from.length;
  return to.map((_, axis) => axis < lead || from[axis - lead] === 1 ? 0 : strides[axis - lead]!);
}

/** The elements of `tensor`, broadcast to `shape`. */
export function broadcastTo(tensor: HostTensor, shape: readonly number[]): HostTensor {
  const same = tensor.shape.length === shape.length &&
    tensor.shape.every((d, i) => d === shape[i]);
  if (same) return tensor;
  const data = strided(tensor.data, shape, broadcastStrides(tensor.shape, shape));
  return { type: tensor.type, shape, data };
}

/** A shape as three around an axis: elements before, along and after it. */
export function around(shape: readonly number[], axis: number): [number, number, number] {
  return [
    elementCount(shape.slice(0, axis)),
    shape[axis] ?? 1,
    elementCount(shape.slice(axis + 1)),
  ];
}
