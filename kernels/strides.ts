/**
 * Shapes and strides of dense row-major tensors, as the kernels of them want them: adjacent axes that
 * lie one behind the other in every operand become one, so that nearly every real case has at most
 * four, and a broadcast axis has stride 0. Strides count elements.
 */

import type { Gpu } from "./device.ts";
import { rowOfWorkgroups } from "./kernel.ts";
import type { ElementType } from "./tensor.ts";

/** Axes that a kernel's Params have room for. */
export const MAX_RANK = 8;

/** Type and shape, as a Tensor has them: what a kernel is compiled for. */
export interface Operand {
  readonly type: ElementType;
  readonly shape: readonly number[];
}

/** Elements of a shape. */
export function countOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** Strides of a dense row-major tensor of that shape. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/** An axis counted from the end where negative, in [0, rank). @throws {RangeError} outside of that. */
export function axisOf(axis: number, rank: number): number {
  const from0 = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || from0 < 0 || from0 >= rank) {
    throw new RangeError(`Cannot take axis ${axis} of ${rank} axes`);
  }
  return from0;
}

/**
 * The shape that all shapes broadcast to: NumPy's rule, which is ONNX's («Broadcasting in ONNX»).
 * @throws {RangeError} where two sizes differ and neither is 1.
 */
export function broadcastShape(...shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(0, ...shapes.map(({ length }) => length));
  return Array.from({ length: rank }, (_, axis) => {
    let size = 1;
    for (const shape of shapes) {
      const own = shape[axis - (rank - shape.length)] ?? 1;
      if (own === 1 || own === size) continue;
      if (size !== 1) {
        throw new RangeError(
          `Cannot broadcast ${shapes.map((shape) => `[${shape.join(", ")}]`).join(" and ")}`,
        );
      }
      size = own;
    }
    return size;
  });
}

/** Strides by which a dense tensor of `shape` is read as one of `to`: 0 along what is repeated. */
export function broadcastStrides(shape: readonly number[], to: readonly number[]): number[] {
  const strides = stridesOf(shape);
  const missing = to.length - shape.length;
  return to.map((_, axis) => (shape[axis - missing] ?? 1) === 1 ? 0 : strides[axis - missing]!);
}

/** Axes innermost first: sizes, and for each operand a stride per axis. At least one axis. */
export interface Axes {
  readonly sizes: readonly number[];
  readonly strides: readonly (readonly number[])[];
}

/**
 * Merges adjacent axes along which every operand goes on where it stopped, and leaves axes of size 1
 * out. Given outermost first, returned innermost first.
 * @throws {RangeError} where more than MAX_RANK axes remain.
 */
export function mergeAxes(
  shape: readonly number[],
  strides: readonly (readonly number[])[],
): Axes {
  const sizes: number[] = [];
  const merged: number[][] = strides.map(() => []);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis]!;
    if (size === 1) continue;
    const last = sizes.length - 1;
    if (
      last >= 0 &&
      strides.every((own, i) => own[axis] === merged[i]![last]! * sizes[last]!)
    ) {
      sizes[last]! *= size;
      continue;
    }
    sizes.push(size);
    for (const [i, own] of strides.entries()) merged[i]!.push(own[axis]!);
  }
  if (sizes.length > MAX_RANK) {
    throw new RangeError(
      `Cannot lay out [${shape.join(", ")}]: ${sizes.length} axes remain, at most ${MAX_RANK} can`,
    );
  }
  if (sizes.length === 0) {
    sizes.push(1);
    for (const own of merged) own.push(0);
  }
  return { sizes, strides: merged };
}

/** The members `name0` to `name7` of a kernel's Params; those past the end are `otherwise`. */
export function numbered<N extends string>(
  name: N,
  values: readonly number[],
  otherwise = 0,
): Record<`${N}${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7}`, number> {
  return Object.fromEntries(
    Array.from({ length: MAX_RANK }, (_, i) => [`${name}${i}`, values[i] ?? otherwise]),
  ) as Record<`${N}${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7}`, number>;
}

/** The declaration of those members, all u32: a negative stride wraps, and so does what it is added to. */
export function numberedParams<N extends string>(
  name: N,
): Record<`${N}${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7}`, "u32"> {
  return Object.fromEntries(
    Array.from({ length: MAX_RANK }, (_, i) => [`${name}${i}`, "u32"]),
  ) as Record<`${N}${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7}`, "u32">;
}

/** Invocations of a workgroup that walks axes, at most. */
const WALKERS = 256;
/** Items of an invocation: as few workgroups as keep a GPU busy, since each costs a software adapter 0.1 µs. */
const WALKED_ITEMS = 4;

/**
 * How a grid walks axes, innermost first: along x the first, along y the second, along z the rest as
 * one, so that only the rest is divided into indices: divisions of lanes' integers are slow, on a
 * software adapter most of all.
 */
export interface Walk {
  /** Invocations of a workgroup along x, y and z: overrides X, Y and Z. */
  readonly size: { readonly X: number; readonly Y: number; readonly Z: number };
  /** Workgroups that take each invocation a few items; fewer take more, since invocations stride. */
  readonly workgroups: readonly [number, number, number];
  /** Items of the axes from the third on. */
  readonly rest: number;
}

/** Chooses how axes of those sizes are walked. */
export function walkOf(sizes: readonly number[]): Walk {
  const [size0 = 1, size1 = 1, ...others] = sizes;
  const rest = countOf(others);
  if (size0 === 0 || size1 === 0 || rest === 0) {
    return { size: { X: 1, Y: 1, Z: 1 }, workgroups: [0, 0, 0], rest };
  }
  // A row is cut evenly; a multiple of eight keeps the number of pipelines small.
  const even = Math.ceil(size0 / Math.ceil(size0 / WALKERS));
  const X = even <= 8 ? even : 8 * Math.ceil(even / 8);
  const Y = Math.min(Math.floor(WALKERS / X), size1);
  const Z = Math.min(Math.floor(WALKERS / (X * Y)), rest, 64);
  let items = WALKED_ITEMS;
  const workgroups = ([[size0, X], [size1, Y], [rest, Z]] as const).map(([size, lanes]) => {
    const steps = Math.min(items, Math.ceil(size / lanes));
    items = Math.ceil(items / steps);
    return Math.ceil(size / (lanes * steps));
  }) as [number, number, number];
  return { size: { X, Y, Z }, workgroups, rest };
}

/** The grid of a walk within the device's limit, or of `workgroups` in a row. */
export function gridOf(
  gpu: Gpu,
  workgroups: Walk["workgroups"] | number,
): [number, number, number] {
  const most = gpu.limits.maxComputeWorkgroupsPerDimension;
  if (typeof workgroups === "number") return [...rowOfWorkgroups(gpu, workgroups), 1];
  const [x, y, z] = workgroups;
  return [Math.min(x, most), Math.min(y, most), Math.min(z, most)];
}

/** `f32 [2, 3]`, for messages. */
export function described({ type, shape }: Operand): string {
  return `${type} [${shape.join(", ")}]`;
}
