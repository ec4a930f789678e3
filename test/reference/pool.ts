/** Pooling in f64: every tap of every window visited, in the padding or not. */

import type { PoolAttributes, PoolKind } from "../../kernels/pool.ts";

/**
 * output[n, o…, c] over windows of `input` [N, …, C]; `indices` as ONNX MaxPool-12 numbers them for
 * `channels` channels, row by row or (storageOrder 1) column by column.
 */
export function pool(
  kind: PoolKind,
  input: ArrayLike<number>,
  shape: readonly number[],
  outShape: readonly number[],
  attributes: PoolAttributes & { storageOrder?: 0 | 1; channels?: number },
): { data: Float64Array; indices: Int32Array } {
  const { kernelShape, p = 2, countIncludePad = false, storageOrder = 0 } = attributes;
  const rank = kernelShape.length;
  const spatial = shape.slice(1, -1);
  const C = shape[rank + 1]!;
  const { channels = C } = attributes;
  const count = outShape.reduce((a, b) => a * b, 1);
  const data = new Float64Array(count);
  const indices = new Int32Array(count);
  for (let at = 0; at < count; at++) {
    const out = place(at, outShape);
    const [n, c] = [out[0]!, out[rank + 1]!];
    let best = -Infinity, sum = 0, powers = 0, counted = 0, index = 0;
    for (let tap = 0; tap < kernelShape.reduce((a, b) => a * b, 1); tap++) {
      const position = place(tap, kernelShape).map((t, axis) =>
        out[axis + 1]! * (attributes.strides?.[axis] ?? 1) - (attributes.pads?.[axis] ?? 0) +
        t * (attributes.dilations?.[axis] ?? 1)
      );
      const inside = position.every((x, axis) => x >= 0 && x < spatial[axis]!);
      const padded = position.every((x, axis) =>
        x < spatial[axis]! + (attributes.pads?.[rank + axis] ?? 0)
      );
      if (inside || (countIncludePad && padded)) counted++;
      if (!inside) continue;
      const pixel = position.reduce((sum, x, axis) => sum * spatial[axis]! + x, n);
      const v = input[pixel * C + c]!;
      sum += v;
      powers += Math.abs(v) ** p;
      if (v > best) {
        best = v;
        const order = position.map((x, axis) => [x, spatial[axis]!] as const);
        if (storageOrder === 1) order.reverse();
        index = order.reduce((sum, [x, size]) => sum * size + x, n * channels + c);
      }
    }
    data[at] = kind === "max" ? best : kind === "average" ? sum / counted : powers ** (1 / p);
    indices[at] = index;
  }
  return { data, indices };
}

/** The place along each axis of element `at`. */
function place(at: number, shape: readonly number[]): number[] {
  const places: number[] = [];
  for (const size of shape.toReversed()) {
    places.unshift(at % size);
    at = Math.floor(at / size);
  }
  return places;
}
