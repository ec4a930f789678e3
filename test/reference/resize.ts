/**
 * Resizing in f64 as ONNX's reference implementation does it (onnx/reference/ops/op_resize.py,
 * interpolate_nd): axis by axis, recursively, with neighbours looked up in an edge-padded line.
 */

import type { ResizeAttributes, ResizedAxis } from "../../kernels/resize.ts";

/** Coefficients for neighbours of a place whose fraction is `ratio` in (0, 1]. */
function coefficients(ratio: number, scale: number, attributes: ResizeAttributes): number[] {
  const { mode = "nearest", nearestMode = "round_prefer_floor", cubicCoeffA: a = -0.75 } =
    attributes;
  if (mode === "nearest") {
    if (ratio === 1) return [0, 1];
    return {
      round_prefer_floor: ratio <= 0.5 ? [1, 0] : [0, 1],
      round_prefer_ceil: ratio < 0.5 ? [1, 0] : [0, 1],
      floor: [1, 0],
      ceil: [0, 1],
      simple: scale < 1 ? [0, 1] : [1, 0],
    }[nearestMode];
  }
  if (attributes.antialias) {
    const s = Math.min(scale, 1);
    const start = Math.floor(-(mode === "linear" ? 1 : 2) / s) + 1;
    const values = Array.from({ length: 2 - 2 * start }, (_, i) => {
      const x = Math.abs(s * (start + i - ratio));
      if (mode === "linear") return Math.max(0, 1 - x);
      if (x <= 1) return (a + 2) * x ** 3 - (a + 3) * x ** 2 + 1;
      return x < 2 ? a * x ** 3 - 5 * a * x ** 2 + 8 * a * x - 4 * a : 0;
    });
    const sum = values.reduce((a, b) => a + b, 0);
    return values.map((v) => v / sum);
  }
  if (mode === "linear") return [1 - ratio, ratio];
  const far = (d: number) => ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  const near = (d: number) => ((a + 2) * d - (a + 3)) * d * d + 1;
  return [far(ratio + 1), near(ratio), near(1 - ratio), far(2 - ratio)];
}

function line(
  data: readonly number[],
  x: number,
  axis: ResizedAxis,
  attributes: ResizeAttributes,
): number {
  const size = data.length;
  const { outSize, scale = outSize / size, roi = [0, 1] } = axis;
  let place: number;
  switch (attributes.coordinateMode ?? "half_pixel") {
    case "align_corners":
      place = outSize === 1 ? 0 : x * (size - 1) / (outSize - 1);
      break;
    case "asymmetric":
      place = x / scale;
      break;
    case "tf_crop_and_resize":
      place = roi[0] * (size - 1) +
        (outSize === 1
          ? (roi[1] - roi[0]) * (size - 1) / 2
          : x * (roi[1] - roi[0]) * (size - 1) / (outSize - 1));
      if (place < 0 || place > size - 1) return attributes.extrapolationValue ?? 0;
      break;
    case "pytorch_half_pixel":
      place = outSize === 1 ? 0 : (x + 0.5) / scale - 0.5;
      break;
    case "tf_half_pixel_for_nn":
      place = (x + 0.5) / scale;
      break;
    case "half_pixel_symmetric":
      place = size / 2 * (1 - outSize / (scale * size)) + (x + 0.5) / scale - 0.5;
      break;
    case "half_pixel":
      place = (x + 0.5) / scale - 0.5;
  }
  const ratio = Number.isInteger(place) ? 1 : place - Math.floor(place);
  const weights = coefficients(ratio, scale, attributes);
  const n = weights.length;
  // The n places nearest to x, the lower of two as near, in a line that its edges extend.
  const all = Array.from({ length: size + 2 * n + 4 }, (_, i) => i - n - 2);
  const nearest = all.toSorted((a, b) => Math.abs(place - a) - Math.abs(place - b) || a - b)
    .slice(0, n).toSorted((a, b) => a - b);
  if (attributes.excludeOutside) {
    for (const [i, at] of nearest.entries()) if (at < 0 || at >= size) weights[i] = 0;
    const sum = weights.reduce((a, b) => a + b, 0);
    for (const i of weights.keys()) weights[i]! /= sum;
  }
  return nearest.reduce(
    (sum, at, i) => sum + weights[i]! * data[Math.min(Math.max(at, 0), size - 1)]!,
    0,
  );
}

/** output of `data` of `shape`, its `axes` resized. */
export function resize(
  data: ArrayLike<number>,
  shape: readonly number[],
  axes: readonly ResizedAxis[],
  attributes: ResizeAttributes,
): Float64Array {
  let current = Float64Array.from(data);
  let sizes = [...shape];
  for (const axis of axes) {
    const next = sizes.with(axis.axis, axis.outSize);
    const inner = sizes.slice(axis.axis + 1).reduce((a, b) => a * b, 1);
    const size = sizes[axis.axis]!;
    current = Float64Array.from({ length: next.reduce((a, b) => a * b, 1) }, (_, at) => {
      const c = at % inner;
      const x = Math.floor(at / inner) % axis.outSize;
      const outer = Math.floor(at / inner / axis.outSize);
      const from = Array.from({ length: size }, (_, i) => current[(outer * size + i) * inner + c]!);
      return line(from, x, axis, attributes);
    });
    sizes = next;
  }
  return current;
}
