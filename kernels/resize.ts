/**
 * Resampling along any axes by nearest, linear or cubic interpolation, with every coordinate mode of
 * ONNX Resize-19. Where each output pixel looks, and with what weights, is computed here once per
 * geometry: rounding decides which pixel is nearest, and must not depend on a GPU's division.
 */

import code from "./resize.wgsl" with { type: "text" };
import scalarCode from "./resize_scalar.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Pipeline, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import { Tensor } from "./tensor.ts";

const params = {
  count: "u32",
  channels: "u32",
  depth: "u32",
  height: "u32",
  width: "u32",
  out_depth: "u32",
  out_height: "u32",
  out_width: "u32",
  count_z: "u32",
  count_y: "u32",
  count_x: "u32",
  taps_y: "u32",
  taps_x: "u32",
  extrapolation: "f32",
} as const;

/** Four channels at a time: channels-last. */
export const resizeKernel = defineKernel({
  name: "resize",
  code,
  params,
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    taps: { type: "array<vec2<u32>>", access: "read" },
    output: { type: "array<vec4<Element>>", access: "read_write" },
  },
  overrides: {},
  aliases: { Element: ["f32", "f16"] },
});

/** An element at a time: what is behind the resized axes is no multiple of four. */
export const resizeScalarKernel = defineKernel({
  name: "resize_scalar",
  code: scalarCode,
  params,
  bindings: {
    input: { type: "array<Element>", access: "read" },
    taps: { type: "array<vec2<u32>>", access: "read" },
    output: { type: "array<Element>", access: "read_write" },
  },
  overrides: {},
  aliases: { Element: ["f32", "f16"] },
});

/** How output pixel x becomes a place between input pixels: `coordinate_transformation_mode`. */
export type CoordinateMode =
  | "half_pixel"
  | "half_pixel_symmetric"
  | "pytorch_half_pixel"
  | "align_corners"
  | "asymmetric"
  | "tf_half_pixel_for_nn"
  | "tf_crop_and_resize";

/** `nearest_mode`; "simple" is what Resize-10 means without saying: ceil where the axis shrinks, else floor. */
export type NearestMode = "round_prefer_floor" | "round_prefer_ceil" | "floor" | "ceil" | "simple";

/** ONNX's attributes, with its defaults. */
export interface ResizeAttributes {
  readonly mode?: "nearest" | "linear" | "cubic";
  readonly coordinateMode?: CoordinateMode;
  readonly nearestMode?: NearestMode;
  readonly cubicCoeffA?: number;
  /** Weights of what lies outside are dropped and the rest scaled up; otherwise the edge repeats. */
  readonly excludeOutside?: boolean;
  /** Widens the window of linear and cubic where the image shrinks. */
  readonly antialias?: boolean;
  /** What tf_crop_and_resize gives outside the image. */
  readonly extrapolationValue?: number;
}

/** One axis to resize. */
export interface ResizedAxis {
  readonly axis: number;
  readonly outSize: number;
  /** Where undefined it is outSize / size, without any rounding. */
  readonly scale?: number;
  /** tf_crop_and_resize: start and end of the crop, 0 the first pixel and 1 the last. */
  readonly roi?: readonly [number, number];
}

/**
 * ONNX Resize-19's inputs for `shape` as axes with their sizes: `scales` or `sizes` with an entry
 * for each of `axes` (default all), `roi` with all starts and then all ends. With `scales` a size is
 * ⌊size · scale⌋; a policy other than "stretch" takes the least or the greatest of sizes' ratios for
 * all axes and rounds half up.
 * @throws {RangeError} where numbers of entries differ, or a size or scale cannot be.
 */
export function resizedAxes(
  shape: readonly number[],
  { scales, sizes, axes = shape.map((_, axis) => axis), roi, policy = "stretch" }: {
    readonly scales?: readonly number[];
    readonly sizes?: readonly number[];
    readonly axes?: readonly number[];
    readonly roi?: readonly number[];
    readonly policy?: "stretch" | "not_larger" | "not_smaller";
  },
): ResizedAxis[] {
  const wanted = sizes ?? scales ?? [];
  const fromBehind = axes.map((axis) => axis < 0 ? axis + shape.length : axis);
  if (
    (scales === undefined) === (sizes === undefined) || wanted.length !== axes.length ||
    new Set(fromBehind).size !== axes.length ||
    fromBehind.some((axis) => shape[axis] === undefined) ||
    (roi?.length ?? 2 * axes.length) !== 2 * axes.length ||
    wanted.some((value) => !(value >= 0 && value < 2 ** 31) || (scales && value === 0)) ||
    sizes?.some((size) => !Number.isInteger(size))
  ) {
    throw new RangeError(
      `Cannot resize axes [${axes.join(", ")}] of [${shape.join(", ")}] by scales ` +
        `[${scales?.join(", ") ?? ""}] or to sizes [${sizes?.join(", ") ?? ""}], roi ` +
        `[${roi?.join(", ") ?? ""}]`,
    );
  }
  const ratios = fromBehind.map((axis, i) => sizes === undefined ? 1 : sizes[i]! / shape[axis]!);
  const common = policy === "not_larger" ? Math.min(...ratios) : Math.max(...ratios);
  return fromBehind.map((axis, i) => {
    const size = shape[axis]!;
    const crop = roi === undefined ? {} : { roi: [roi[i]!, roi[axes.length + i]!] as const };
    if (scales !== undefined) {
      // In f32, as ONNX Runtime has it: 10 · 0.7 is 7, though f32's 0.7 is less.
      const scale = Math.fround(scales[i]!);
      return { axis, outSize: Math.floor(Math.fround(size * scale)), scale, ...crop };
    }
    if (policy === "stretch") return { axis, outSize: sizes![i]!, ...crop };
    return { axis, outSize: Math.floor(common * size + 0.5), scale: common, ...crop };
  });
}

/** `shape` with its axes resized. */
export function resizedShape(shape: readonly number[], axes: readonly ResizedAxis[]): number[] {
  const resized = [...shape];
  for (const { axis, outSize } of axes) resized[axis] = outSize;
  return resized;
}

/**
 * Where output pixel x lies among input pixels, which have whole numbers (ONNX Resize-19,
 * coordinate_transformation_mode). A given scale is f32, and so is the arithmetic of ONNX Runtime:
 * 3 / 0.6 is 5 there, and must be here where floor is taken of it.
 */
function placeOf(
  x: number,
  size: number,
  { outSize, scale, roi }: ResizedAxis,
  mode: CoordinateMode,
): number {
  const round = scale === undefined ? (value: number) => value : Math.fround;
  const divided = (value: number) =>
    scale === undefined ? value * size / outSize : Math.fround(value / scale);
  switch (mode) {
    case "half_pixel":
      return round(divided(x + 0.5) - 0.5);
    case "half_pixel_symmetric": {
      const adjustment = scale === undefined ? 1 : outSize / (scale * size);
      return round(size / 2 * (1 - adjustment) + divided(x + 0.5) - 0.5);
    }
    case "pytorch_half_pixel":
      return outSize > 1 ? round(divided(x + 0.5) - 0.5) : 0;
    case "align_corners":
      return outSize > 1 ? x * (size - 1) / (outSize - 1) : 0;
    case "asymmetric":
      return divided(x);
    case "tf_half_pixel_for_nn":
      return divided(x + 0.5);
    case "tf_crop_and_resize": {
      const [start, end] = roi ?? [0, 1];
      return outSize > 1
        ? start * (size - 1) + x * (end - start) * (size - 1) / (outSize - 1)
        : 0.5 * (start + end) * (size - 1);
    }
  }
}

/** Keys's cubic convolution kernel at distance d, parameter a (IEEE ASSP-29(6), 1981). */
function cubic(d: number, a: number): number {
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/** Which input pixels make one output pixel, and their weights. */
interface Tap {
  readonly index: number;
  readonly weight: number;
}

/** @returns the taps of output pixel x, as many for every x; none outside of a crop. */
function tapsOf(
  x: number,
  size: number,
  axis: ResizedAxis,
  attributes: Required<ResizeAttributes>,
): Tap[] {
  const { mode, coordinateMode, nearestMode, cubicCoeffA, excludeOutside, antialias } = attributes;
  const place = placeOf(x, size, axis, coordinateMode);
  if (coordinateMode === "tf_crop_and_resize" && (place < 0 || place > size - 1)) return [];
  const inside = (index: number) => Math.min(Math.max(index, 0), size - 1);
  if (mode === "nearest") {
    const [below, above] = [Math.floor(place), Math.ceil(place)];
    const nearest = {
      floor: below,
      ceil: above,
      round_prefer_floor: Math.ceil(place - 0.5),
      round_prefer_ceil: Math.floor(place + 0.5),
      simple: (axis.scale ?? axis.outSize / size) < 1 ? above : below,
    }[nearestMode];
    return [{ index: inside(nearest), weight: 1 }];
  }
  // The window reaches `support` pixels to either side, more where an antialiased image shrinks.
  const scale = antialias ? Math.min(axis.scale ?? axis.outSize / size, 1) : 1;
  const support = mode === "linear" ? 1 : 2;
  const base = Math.ceil(place) - 1;
  const first = Math.floor(-support / scale) + 1;
  const taps: { index: number; weight: number }[] = [];
  let sum = 0;
  for (let i = first; i <= 1 - first; i++) {
    const distance = Math.abs(i + base - place) * scale;
    let weight = mode === "linear" ? Math.max(0, 1 - distance) : cubic(distance, cubicCoeffA);
    if (excludeOutside && inside(base + i) !== base + i) weight = 0;
    taps.push({ index: inside(base + i), weight });
    sum += weight;
  }
  if (excludeOutside || antialias) { for (const tap of taps) tap.weight /= sum; }
  return taps;
}

/** What the kernel reads of one axis, index and weight's bits in turn, and how many for each pixel. */
function tableOf(
  size: number,
  axis: ResizedAxis,
  attributes: Required<ResizeAttributes>,
): { words: Uint32Array; count: number } {
  const all = Array.from({ length: axis.outSize }, (_, x) => tapsOf(x, size, axis, attributes));
  const count = all.reduce((most, taps) => Math.max(most, taps.length), 1);
  const words = new Uint32Array(2 * count * axis.outSize);
  const weights = new Float32Array(words.buffer);
  for (const [x, taps] of all.entries()) {
    if (taps.length === 0) words[2 * count * x] = 0xffffffff;
    for (const [i, { index, weight }] of taps.entries()) {
      words[2 * (count * x + i)] = index;
      weights[2 * (count * x + i) + 1] = weight;
    }
  }
  return { words, count };
}

/** One dispatch: up to three neighbouring axes. */
interface Pass {
  readonly pipeline: Pipeline<typeof resizeKernel.literal | typeof resizeScalarKernel.literal>;
  readonly taps: Tensor;
  /** Where the next pass reads; the last one's is the caller's output. */
  readonly between: Tensor | undefined;
  readonly params: { readonly [P in keyof typeof params]: number };
}

/** Kernels and tables for one geometry. */
export interface CompiledResize {
  readonly type: "f32" | "f16";
  readonly shape: readonly number[];
  readonly outShape: readonly number[];
  readonly passes: readonly Pass[];
  /** Frees tables and what lies between passes. */
  destroy(): void;
}

/**
 * Compiles the resizing of `axes` of a tensor of `shape`, and uploads its tables: they are the
 * compiled thing's, to be freed by `destroy`. Channels-last images, whose last axis stays as it is,
 * are read four channels at a time. Axes that lie within three neighbours are one dispatch; where it
 * takes more, what lies between is rounded to `type`.
 * @throws {RangeError} where an axis is not the shape's, an axis of no pixels shall have some, or a
 * scale is more than a pixel off the size.
 * @throws {KernelError} where the device fails.
 */
export async function compileResize(
  gpu: Gpu,
  { shape, axes, type = "f32", ...attributes }: ResizeAttributes & {
    readonly shape: readonly number[];
    readonly axes: readonly ResizedAxis[];
    readonly type?: "f32" | "f16";
  },
): Promise<CompiledResize> {
  const {
    mode = "nearest",
    coordinateMode = "half_pixel",
    nearestMode = "round_prefer_floor",
    cubicCoeffA = -0.75,
    excludeOutside = false,
    antialias = false,
    extrapolationValue = 0,
  } = attributes;
  const all = {
    mode,
    coordinateMode,
    nearestMode,
    cubicCoeffA,
    excludeOutside,
    antialias,
    extrapolationValue,
  };
  const outShape = resizedShape(shape, axes);
  if (
    new Set(axes.map(({ axis }) => axis)).size !== axes.length ||
    axes.some(({ axis, outSize, scale }) => {
      const size = shape[axis];
      return size === undefined || !Number.isSafeInteger(outSize) || outSize < 0 ||
        (size === 0 && outSize > 0) ||
        (scale !== undefined && !(scale > 0 && Math.abs(scale * size - outSize) <= 1));
    })
  ) {
    throw new RangeError(
      `Cannot resize [${shape.join(", ")}] to [${outShape.join(", ")}] by scales ` +
        `[${axes.map(({ scale }) => scale).join(", ")}]`,
    );
  }
  // With a scale of 1 most modes look at the very pixel.
  const moves = coordinateMode === "tf_crop_and_resize" ||
    coordinateMode === "tf_half_pixel_for_nn";
  const sorted = axes.filter(({ axis, outSize, scale = outSize / shape[axis]! }) =>
    outSize !== shape[axis] || scale !== 1 || moves
  ).toSorted((a, b) => a.axis - b.axis);
  const groups: ResizedAxis[][] = [];
  for (const axis of sorted) {
    const group = groups[groups.length - 1];
    if (group !== undefined && axis.axis - group[0]!.axis < 3) group.push(axis);
    else groups.push([axis]);
  }
  // A tensor that stays as it is is still copied.
  if (groups.length === 0) groups.push([]);
  const product = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1);
  const passes: Pass[] = [];
  let current: readonly number[] = shape;
  for (const [i, group] of groups.entries()) {
    const end = group.length === 0 ? 0 : group[group.length - 1]!.axis + 1;
    const begin = group.length === 0 ? 0 : group[0]!.axis;
    const next = resizedShape(current, group);
    const tables: { words: Uint32Array; count: number }[] = [];
    const sizes: number[] = [], outSizes: number[] = [];
    for (let axis = end - 3; axis < end; axis++) {
      const size = axis < begin ? 1 : current[axis]!;
      const given = group.find((resized) => resized.axis === axis);
      sizes.push(size);
      outSizes.push(given?.outSize ?? size);
      tables.push(
        given === undefined
          ? tableOf(size, { axis, outSize: size }, {
            ...all,
            mode: "nearest",
            coordinateMode: "asymmetric",
          })
          : tableOf(size, given, all),
      );
    }
    const inner = product(current.slice(end));
    const lanes = inner % 4 === 0 ? 4 : 1;
    const words = new Uint32Array(tables.reduce((sum, { words }) => sum + words.length, 0));
    const starts: number[] = [];
    let at = 0;
    for (const table of tables) {
      starts.push(at / 2);
      words.set(table.words, at);
      at += table.words.length;
    }
    const count = product(next) / lanes;
    if (Math.max(count, product(current) / lanes) >= 2 ** 32) {
      throw new RangeError(`Cannot resize [${shape.join(", ")}]: it has too many elements`);
    }
    const kernel = lanes === 4 ? resizeKernel : resizeScalarKernel;
    passes.push({
      pipeline: await (kernel as typeof resizeKernel).compile(gpu, {}, { Element: type }),
      taps: Tensor.from(gpu, words, [words.length / 2, 2], "taps"),
      between: i === groups.length - 1 ? undefined : new Tensor(gpu, type, next, "half resized"),
      params: {
        count,
        channels: inner / lanes,
        depth: sizes[0]!,
        height: sizes[1]!,
        width: sizes[2]!,
        out_depth: outSizes[0]!,
        out_height: outSizes[1]!,
        out_width: outSizes[2]!,
        count_z: tables[0]!.count,
        count_y: tables[1]!.count,
        count_x: tables[2]!.count,
        taps_y: starts[1]!,
        taps_x: starts[2]!,
        extrapolation: extrapolationValue,
      },
    });
    current = next;
  }
  return {
    type,
    shape,
    outShape,
    passes,
    destroy() {
      for (const { taps, between } of passes) {
        taps.destroy();
        between?.destroy();
      }
    },
  };
}

/**
 * Records the resizing of `input` into `output`, of the shapes and type that were compiled.
 * @throws {RangeError} where they are others.
 */
export function recordResize(
  recorder: Recorder,
  { type, shape, outShape, passes }: CompiledResize,
  { input, output }: Record<"input" | "output", Tensor>,
): void {
  if (
    input.type !== type || output.type !== type || input.shape.join() !== shape.join() ||
    output.shape.join() !== outShape.join()
  ) {
    throw new RangeError(
      `Cannot resize ${input.type} [${input.shape.join(", ")}] into ${output.type} ` +
        `[${output.shape.join(", ")}]: compiled is ${type} [${shape.join(", ")}] into ` +
        `[${outShape.join(", ")}]`,
    );
  }
  let from = input;
  for (const { pipeline, taps, between, params } of passes) {
    const to = between ?? output;
    recorder.dispatch(
      pipeline,
      { params, bindings: { input: from, taps, output: to } },
      rowOfWorkgroups(recorder.gpu, Math.ceil(params.count / 64)),
    );
    from = to;
  }
}
