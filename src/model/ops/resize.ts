/** Images at other sizes and places (ONNX Resize-19, Upsample-9, GridSample-22, AffineGrid-20, Col2Im-18), channels first. */

import { elementCount, type HostTensor, numbersOf } from "../host_tensor.ts";
import { perAxis } from "./conv.ts";
import { around, forEachIndex, stridesOf } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";
import { knownNumbers } from "./shape.ts";

/** What a Resize node does along one axis. */
interface AxisResize {
  readonly length: number;
  readonly out: number;
  readonly scale: number;
  /** The output's length before it was cut to an integer: some coordinates are reckoned by it. */
  readonly exact: number;
  /** Ends of the region, of the length, for tf_crop_and_resize. */
  readonly roi: readonly [number, number];
}

export interface ResizeShape {
  readonly axes: readonly AxisResize[];
  readonly mode: "nearest" | "linear" | "cubic";
  readonly shape: readonly number[];
}

/** Where output elements come from along an axis: output o is Σ over t of `weights[o][t]` · input at `indices[o][t]`. */
export interface Taps {
  readonly indices: readonly (readonly number[])[];
  readonly weights: readonly (readonly number[])[];
  /** Outputs outside the region, which take the extrapolation value. */
  readonly outside: readonly boolean[];
}

function modeOf(node: NodeReader): ResizeShape["mode"] {
  const mode = node.text("mode", "nearest");
  if (mode === "nearest" || mode === "linear" || mode === "cubic") return mode;
  if (mode === "bilinear" && node.node.op === "Upsample") return "linear";
  throw node.fail(`attribute "mode" is "${mode}"`);
}

/** Sizes of a Resize or Upsample node; undefined where they depend on data. */
export function resizeShape(node: NodeReader): ResizeShape | undefined {
  const x = node.shape(0);
  const mode = modeOf(node);
  const { op, opset } = node.node;
  const simple = op === "Upsample" || opset < 11;
  const scaleAt = simple ? 1 : 2;
  const axes = (simple ? undefined : node.numbers("axes"))?.map((a) => node.axis(a, x.length)) ??
    x.map((_, i) => i);
  const given = (at: number) => {
    const input = node.inputs[at];
    return input !== undefined && elementCount(input.shape ?? [1]) > 0;
  };
  const scales = op === "Upsample" && opset < 9
    ? node.numbers("scales")
    : given(scaleAt)
    ? knownNumbers(node, scaleAt)
    : null;
  const sizes = !simple && given(3) ? knownNumbers(node, 3) : null;
  if (scales === undefined || sizes === undefined) return undefined;
  const list = sizes ?? scales;
  if (list === null) throw node.fail("neither scales nor sizes are given");
  if (list.length !== axes.length) {
    throw node.fail(`${list.length} ${sizes ? "sizes" : "scales"} for ${axes.length} axes`);
  }
  let roi: readonly number[] | undefined;
  if (node.text("coordinate_transformation_mode", "") === "tf_crop_and_resize") {
    roi = knownNumbers(node, 1);
    if (roi === undefined) return undefined;
    if (roi.length !== 2 * axes.length) throw node.fail(`a region of ${roi.length} numbers`);
  }
  const policy = node.text("keep_aspect_ratio_policy", "stretch");
  let common: number | undefined;
  if (sizes !== null && policy !== "stretch") {
    const ratios = axes.map((axis, i) => sizes[i]! / x[axis]!);
    if (policy === "not_larger") common = Math.min(...ratios);
    else if (policy === "not_smaller") common = Math.max(...ratios);
    else throw node.fail(`attribute "keep_aspect_ratio_policy" is "${policy}"`);
  }
  const result: AxisResize[] = x.map((length) => {
    return { length, out: length, scale: 1, exact: length, roi: [0, 1] };
  });
  axes.forEach((axis, i) => {
    const length = x[axis]!;
    const region = [roi?.[i] ?? 0, roi?.[axes.length + i] ?? 1] as const;
    if (sizes === null) {
      const scale = scales![i]!;
      if (!(scale > 0)) throw node.fail(`a scale of ${scale}`);
      // Scales are of f32: 3 · 1.3333334 is 4, not 4.0000002 cut.
      const exact = scale * length;
      result[axis] = { length, out: Math.floor(exact), scale, exact, roi: region };
    } else {
      const out = common === undefined ? sizes[i]! : Math.floor(common * length + 0.5);
      const scale = common ?? out / length;
      result[axis] = {
        length,
        out,
        scale,
        exact: common === undefined ? out : common * length,
        roi: region,
      };
    }
    const { out } = result[axis];
    if (!(Number.isInteger(out) && out >= 0 && out < 2 ** 31) || (length === 0 && out > 0)) {
      throw node.fail(`a length of ${out} of ${length}`);
    }
  });
  return { axes: result, mode, shape: result.map(({ out }) => out) };
}

/** Where output position `p` lies in the input. Source: ONNX Resize-19, coordinate_transformation_mode. */
function coordinates(node: NodeReader, axis: AxisResize): (p: number) => number {
  const { length, out, scale, exact, roi: [start, end] } = axis;
  const simple = node.node.op === "Upsample" || node.node.opset < 11;
  const mode = simple ? "asymmetric" : node.text("coordinate_transformation_mode", "half_pixel");
  switch (mode) {
    case "half_pixel":
      return (p) => (p + 0.5) / scale - 0.5;
    case "half_pixel_symmetric":
      return (p) => length / 2 * (1 - out / exact) + (p + 0.5) / scale - 0.5;
    case "pytorch_half_pixel":
      return (p) => out > 1 ? (p + 0.5) / scale - 0.5 : 0;
    case "align_corners":
      return (p) => exact === 1 ? 0 : p * (length - 1) / (exact - 1);
    case "asymmetric":
      return (p) => p / scale;
    case "tf_half_pixel_for_nn":
      return (p) => (p + 0.5) / scale;
    case "tf_crop_and_resize":
      return (p) =>
        exact > 1
          ? start * (length - 1) + p * (end - start) * (length - 1) / (exact - 1)
          : 0.5 * (start + end) * (length - 1);
  }
  throw node.fail(`attribute "coordinate_transformation_mode" is "${mode}"`);
}

/** Keys' cubic. */
export function cubic(x: number, a: number): number {
  const t = Math.abs(x);
  if (t <= 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  if (t < 2) return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a;
  return 0;
}

/** The nearest index. Source: ONNX Resize-19, nearest_mode. */
function nearest(node: NodeReader, scale: number): (at: number) => number {
  if (node.node.op === "Upsample") return Math.floor;
  // Version 10 does not say; its cases take the next one where the image shrinks.
  if (node.node.opset < 11) return scale < 1 ? Math.ceil : Math.floor;
  const mode = node.text("nearest_mode", "round_prefer_floor");
  switch (mode) {
    case "round_prefer_floor":
      return (at) => Math.ceil(at - 0.5);
    case "round_prefer_ceil":
      return (at) => Math.floor(at + 0.5);
    case "floor":
      return Math.floor;
    case "ceil":
      return Math.ceil;
  }
  throw node.fail(`attribute "nearest_mode" is "${mode}"`);
}

/** Taps of each axis of a Resize node, whose product a resized element is the sum over. Source: ONNX Resize-19. */
export function resizeTaps(node: NodeReader, { axes, mode }: ResizeShape): Taps[] {
  const a = node.number("cubic_coeff_a", -0.75);
  const exclude = node.number("exclude_outside", 0) === 1;
  const antialias = node.number("antialias", 0) === 1 && mode !== "nearest";
  const crop = node.text("coordinate_transformation_mode", "") === "tf_crop_and_resize";
  const kernel = mode === "cubic"
    ? (x: number) => cubic(x, a)
    : (x: number) => Math.max(0, 1 - Math.abs(x));
  const reach = mode === "cubic" ? 2 : 1;
  return axes.map((axis) => {
    const { length, out, scale } = axis;
    const from = coordinates(node, axis);
    const pick = nearest(node, scale);
    const taps: { indices: number[][]; weights: number[][]; outside: boolean[] } = {
      indices: [],
      weights: [],
      outside: [],
    };
    const shrink = antialias ? Math.min(1, scale) : 1;
    const first = Math.floor(-reach / shrink) + 1;
    for (let p = 0; p < out; p++) {
      const at = from(p);
      taps.outside.push(crop && (at < 0 || at > length - 1));
      const clamp = (i: number) => Math.min(length - 1, Math.max(0, i));
      if (mode === "nearest") {
        taps.indices.push([clamp(pick(at))]);
        taps.weights.push([1]);
        continue;
      }
      const base = Math.floor(at);
      const [indices, weights]: [number[], number[]] = [[], []];
      for (let i = first; i <= 1 - first; i++) {
        const weight = kernel(shrink * (i - (at - base)));
        const excluded = exclude && (base + i < 0 || base + i >= length);
        if (weight === 0 || excluded) continue;
        indices.push(clamp(base + i));
        weights.push(weight);
      }
      const sum = weights.reduce((s, w) => s + w, 0);
      taps.indices.push(indices);
      taps.weights.push(antialias || exclude ? weights.map((w) => w / sum) : weights);
    }
    return taps;
  });
}

function resize(node: NodeReader, x: HostTensor): Float64Array {
  const geometry = resizeShape(node)!;
  const all = resizeTaps(node, geometry);
  let values = Float64Array.from(numbersOf(x));
  const shape = [...x.shape];
  all.forEach(({ indices, weights }, axis) => {
    const same = indices.length === shape[axis] &&
      indices.every((list, o) => list.length === 1 && list[0] === o && weights[o]![0] === 1);
    if (same) return;
    const [outer, length, inner] = around(shape, axis);
    const next = new Float64Array(outer * indices.length * inner);
    for (let n = 0; n < outer; n++) {
      indices.forEach((list, o) => {
        const to = (n * indices.length + o) * inner;
        list.forEach((index, t) => {
          const [from, weight] = [(n * length + index) * inner, weights[o]![t]!];
          for (let i = 0; i < inner; i++) next[to + i]! += weight * values[from + i]!;
        });
      });
    }
    shape[axis] = indices.length;
    values = next;
  });
  if (all.some(({ outside }) => outside.includes(true))) {
    const value = node.number("extrapolation_value", 0);
    forEachIndex(shape, (index, position) => {
      if (index.some((i, axis) => all[axis]!.outside[i])) values[position] = value;
    });
  }
  return values;
}

/** A position outside [low, high] mirrored into it. */
function reflect(x: number, low: number, high: number): number {
  const range = high - low;
  if (range <= 0) return low;
  const period = ((x - low) % (2 * range) + 2 * range) % (2 * range);
  return low + (period <= range ? period : 2 * range - period);
}

/** Samples of images [N, C, …] at places of a grid [N, …, rank], each in [−1, 1]. Source: ONNX GridSample-22. */
function gridSample(node: NodeReader, x: HostTensor, grid: HostTensor): Float64Array {
  const size = x.shape.slice(2);
  const rank = size.length;
  const mode = node.text("mode", "linear").replace("bilinear", "linear").replace(
    "bicubic",
    "cubic",
  );
  const outside = node.text("padding_mode", "zeros");
  const corners = node.number("align_corners", 0) === 1;
  const [values, places] = [numbersOf(x), numbersOf(grid)];
  const strides = stridesOf(size);
  const plane = elementCount(size);
  const points = elementCount(grid.shape.slice(1, -1));
  const [N, C] = x.shape as [number, number];
  const y = new Float64Array(N * C * points);
  const reach: Record<string, readonly [number, number]> = {
    nearest: [0, 0],
    linear: [0, 1],
    cubic: [-1, 2],
  };
  const [first, last] = reach[mode]!;
  const bound = (p: number, length: number) => {
    if (outside === "border") return Math.min(length - 1, Math.max(0, p));
    if (outside === "reflection") {
      return corners ? reflect(p, 0, length - 1) : reflect(p, -0.5, length - 0.5);
    }
    return p;
  };
  for (let n = 0; n < N; n++) {
    for (let p = 0; p < points; p++) {
      // The grid names the last axis first.
      const at = size.map((length, axis) => {
        const g = places[(n * points + p) * rank + rank - 1 - axis]!;
        const place = corners ? (g + 1) / 2 * (length - 1) : ((g + 1) * length - 1) / 2;
        return mode === "nearest" ? roundEven(place) : place;
      });
      const axes = at.map((place, axis) => {
        const inner = mode === "cubic" ? place : bound(place, size[axis]!);
        const base = Math.floor(inner);
        const taps: [number, number][] = [];
        for (let i = first; i <= last; i++) {
          const t = inner - base - i;
          const weight = mode === "nearest"
            ? 1
            : mode === "linear"
            ? 1 - Math.abs(t)
            : cubic(t, -0.75);
          const index = Math.round(bound(base + i, size[axis]!));
          if (index >= 0 && index < size[axis]!) taps.push([index * strides[axis]!, weight]);
        }
        return taps;
      });
      for (let c = 0; c < C; c++) {
        const from = (n * C + c) * plane;
        const add = (axis: number, offset: number, weight: number): number => {
          if (axis === rank) return weight * values[from + offset]!;
          let sum = 0;
          for (const [o, w] of axes[axis]!) sum += add(axis + 1, offset + o, weight * w);
          return sum;
        };
        y[(n * C + c) * points + p] = add(0, 0, 1);
      }
    }
  }
  return y;
}

function roundEven(x: number): number {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

const RESIZE_ATTRIBUTES = "antialias axes coordinate_transformation_mode cubic_coeff_a " +
  "exclude_outside extrapolation_value keep_aspect_ratio_policy mode nearest_mode";

/** Image and block shapes of a Col2Im node; undefined where they depend on data. */
function columns(node: NodeReader) {
  const [image, block] = [knownNumbers(node, 1), knownNumbers(node, 2)];
  if (image === undefined || block === undefined) return undefined;
  const [n, rows, count] = node.shape(0);
  const rank = image.length;
  const channels = (rows ?? 0) / elementCount(block);
  const strides = perAxis(node, "strides", rank, 1, 1);
  const dilations = perAxis(node, "dilations", rank, 1, 1);
  const pads = perAxis(node, "pads", 2 * rank, 0, 0);
  const windows = image.map((d, i) => {
    const span = dilations[i]! * (block[i]! - 1) + 1;
    return Math.floor((d + pads[i]! + pads[rank + i]! - span) / strides[i]!) + 1;
  });
  const fits = block.length === rank && Number.isInteger(channels) &&
    elementCount(windows) === count && image.every((d) => d > 0 && d < 2 ** 31);
  if (!fits) throw node.fail(`blocks [${block.join(", ")}] of [${image.join(", ")}]`);
  return { n: n!, channels, image, block, windows, strides, dilations, pads };
}

export const resizing: Readonly<Record<string, Operator>> = {
  Resize: define({
    inputs: [1, 4],
    attributes: RESIZE_ATTRIBUTES,
    shapes: (node) => [resizeShape(node)?.shape],
    compute: (node, [x]) => [resize(node, x!)],
  }),
  Upsample: define({
    inputs: [1, 2],
    attributes: "mode scales",
    shapes: (node) => [resizeShape(node)?.shape],
    compute: (node, [x]) => [resize(node, x!)],
  }),
  GridSample: define({
    inputs: [2, 2],
    attributes: "align_corners mode padding_mode",
    heavy: true,
    types: (node) => {
      const mode = node.text("mode", "linear");
      if (!["nearest", "linear", "bilinear", "cubic", "bicubic"].includes(mode)) {
        throw node.fail(`attribute "mode" is "${mode}"`);
      }
      const outside = node.text("padding_mode", "zeros");
      if (!["zeros", "border", "reflection"].includes(outside)) {
        throw node.fail(`attribute "padding_mode" is "${outside}"`);
      }
      return [node.input(0).type];
    },
    shapes: (node) => {
      const [x, grid] = [node.shape(0), node.shape(1)];
      const fits = x.length >= 3 && grid.length === x.length && grid[0] === x[0] &&
        grid.at(-1) === x.length - 2;
      if (!fits) throw node.fail(`images [${x.join(", ")}] at [${grid.join(", ")}]`);
      return [[x[0]!, x[1]!, ...grid.slice(1, -1)]];
    },
    compute: (node, [x, grid]) => [gridSample(node, x!, grid!)],
  }),
  AffineGrid: define({
    inputs: [2, 2],
    attributes: "align_corners",
    floats: true,
    shapes: (node) => {
      const size = knownNumbers(node, 1);
      if (size === undefined) return [undefined];
      const rank = size.length - 2;
      const theta = node.shape(0);
      if (rank < 1 || theta.join() !== [size[0], rank, rank + 1].join()) {
        throw node.fail(`matrices [${theta.join(", ")}] for [${size.join(", ")}]`);
      }
      return [[size[0]!, ...size.slice(2), rank]];
    },
    compute: (node, [theta], [out]) => {
      const corners = node.number("align_corners", 0) === 1;
      const matrices = numbersOf(theta!);
      const shape = out!.shape!;
      const rank = shape.at(-1)!;
      return [
        Float64Array.from(
          (function* () {
            for (let n = 0; n < shape[0]!; n++) {
              const places: number[][] = [];
              forEachIndex(shape.slice(1, -1), (index) => {
                places.push(index.map((i, axis) => {
                  const d = shape[1 + axis]!;
                  if (corners) return d === 1 ? 0 : -1 + 2 * i / (d - 1);
                  return -1 + (2 * i + 1) / d;
                }));
              });
              for (const place of places) {
                for (let r = 0; r < rank; r++) {
                  const row = (n * rank + r) * (rank + 1);
                  let sum = matrices[row + rank]!;
                  for (let c = 0; c < rank; c++) sum += matrices[row + c]! * place[rank - 1 - c]!;
                  yield sum;
                }
              }
            }
          })(),
        ),
      ];
    },
  }),
  Col2Im: define({
    inputs: [3, 3],
    attributes: "dilations pads strides",
    heavy: true,
    shapes: (node) => {
      const c = columns(node);
      return [c && [c.n, c.channels, ...c.image]];
    },
    compute: (node, [x], [out]) => {
      const { n, channels, image, block, windows, strides, dilations, pads } = columns(node)!;
      const values = numbersOf(x!);
      const taps = elementCount(block);
      const count = elementCount(windows);
      const plane = elementCount(image);
      const steps = stridesOf(image);
      const y = new Float64Array(elementCount(out!.shape!));
      forEachIndex(block, (tap, tapAt) => {
        forEachIndex(windows, (window, windowAt) => {
          let at = 0;
          for (let i = 0; i < image.length; i++) {
            const p = window[i]! * strides[i]! + tap[i]! * dilations[i]! - pads[i]!;
            if (p < 0 || p >= image[i]!) return;
            at += p * steps[i]!;
          }
          for (let c = 0; c < n * channels; c++) {
            y[c * plane + at]! += values[(c * taps + tapAt) * count + windowAt]!;
          }
        });
      });
      return [y];
    },
  }),
};
