/**
 * u8 RGB tiles to network input: resampled by area, scaled or turned into optical density, mixed
 * by a 3×3 matrix and shifted. Mean/std normalisation and colour deconvolution are both such a mix.
 */

import code from "./normalise.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Pipeline, type Recorder } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const normaliseKernel = defineKernel({
  name: "normalise",
  code,
  params: {
    source_width: "u32",
    source_height: "u32",
    width: "u32",
    height: "u32",
    shift_x: "f32",
    shift_y: "f32",
    ratio: "f32",
    mix00: "f32",
    mix01: "f32",
    mix02: "f32",
    mix10: "f32",
    mix11: "f32",
    mix12: "f32",
    mix20: "f32",
    mix21: "f32",
    mix22: "f32",
    offset0: "f32",
    offset1: "f32",
    offset2: "f32",
  },
  bindings: {
    pixels: { type: "array<u32>", access: "read" },
    normalised: { type: "array<vec4<f32>>", access: "read_write" },
  },
  overrides: { OPTICAL_DENSITY: false },
});

/** Three rows of three: row c makes output channel c from red, green and blue. */
export type Mix = readonly [
  readonly [number, number, number],
  readonly [number, number, number],
  readonly [number, number, number],
];

export interface Normalisation {
  /** What is mixed: v / 255, or −log10((v + 1) / 256). */
  readonly of: "intensity" | "optical-density";
  readonly mix: Mix;
  readonly offset: readonly [number, number, number];
}

/** `(v / 255 − mean) / std` per channel, as torchvision's Normalize does after ToTensor. */
export function meanStd(
  mean: readonly [number, number, number],
  std: readonly [number, number, number],
): Normalisation {
  return {
    of: "intensity",
    mix: [[1 / std[0], 0, 0], [0, 1 / std[1], 0], [0, 0, 1 / std[2]]],
    offset: [-mean[0] / std[0], -mean[1] / std[1], -mean[2] / std[2]],
  };
}

/**
 * Colour deconvolution into haematoxylin, eosin and what is left (Ruifrok & Johnston, Anal Quant
 * Cytol Histol 23:291, 2001): the inverse of the stains' unit optical densities, whose third is
 * perpendicular to the first two. A channel is 1 where the stain's density is 1.
 */
export const HAEMATOXYLIN_EOSIN: Normalisation = {
  of: "optical-density",
  mix: invert(stainVectors([0.650, 0.704, 0.286], [0.072, 0.990, 0.105])),
  offset: [0, 0, 0],
};

type Vector = readonly [number, number, number];

function unit([r, g, b]: Vector): Vector {
  const length = Math.hypot(r, g, b);
  return [r / length, g / length, b / length];
}

function cross(a: Vector, b: Vector): Vector {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

/** Columns are the stains: density = matrix · amounts. */
function stainVectors(first: Vector, second: Vector): Mix {
  const [a, b] = [unit(first), unit(second)];
  const c = unit(cross(a, b));
  return [[a[0], b[0], c[0]], [a[1], b[1], c[1]], [a[2], b[2], c[2]]];
}

function invert(m: Mix): Mix {
  const columns: Vector[] = [0, 1, 2].map((j) => [m[0][j]!, m[1][j]!, m[2][j]!]);
  const [x, y, z] = columns as [Vector, Vector, Vector];
  const yz = cross(y, z);
  const determinant = x[0] * yz[0] + x[1] * yz[1] + x[2] * yz[2];
  const row = (v: Vector): Vector => [v[0] / determinant, v[1] / determinant, v[2] / determinant];
  return [row(yz), row(cross(z, x)), row(cross(x, y))];
}

/** Compiles for one kind of normalisation. */
export function compileNormalise(
  gpu: Gpu,
  { of }: Normalisation,
): Promise<Pipeline<typeof normaliseKernel.literal>> {
  return normaliseKernel.compile(gpu, { OPTICAL_DENSITY: of === "optical-density" });
}

/**
 * Records the normalisation of `pixels` [h, w, 3] u8 into `normalised` [H, W, 4] f32, whose last
 * channel is 0. Output pixel (x, y) is the mean over source pixels from
 * `shift + ratio · (x, y)`, `ratio` a side.
 * @throws {RangeError} where shapes or ratio make no sense.
 */
export function recordNormalise(
  recorder: Recorder,
  pipeline: Pipeline<typeof normaliseKernel.literal>,
  pixels: Tensor,
  normalised: Tensor,
  { mix, offset }: Normalisation,
  resample: { shiftX: number; shiftY: number; ratio: number } = { shiftX: 0, shiftY: 0, ratio: 1 },
): void {
  const [sourceHeight = 0, sourceWidth = 0, samples] = pixels.shape;
  const [height = 0, width = 0, channels] = normalised.shape;
  if (
    pixels.type !== "u8" || normalised.type !== "f32" || samples !== 3 || channels !== 4 ||
    sourceWidth < 1 || sourceHeight < 1 || !(resample.ratio >= 0.01)
  ) {
    throw new RangeError(
      `Cannot normalise ${pixels.type} [${pixels.shape.join(", ")}] into ${normalised.type} ` +
        `[${normalised.shape.join(", ")}] at ratio ${resample.ratio}: ` +
        `u8 [h, w, 3] into f32 [H, W, 4] at 0.01 or more is needed`,
    );
  }
  recorder.dispatch(pipeline, {
    params: {
      source_width: sourceWidth,
      source_height: sourceHeight,
      width,
      height,
      shift_x: resample.shiftX,
      shift_y: resample.shiftY,
      ratio: resample.ratio,
      mix00: mix[0][0],
      mix01: mix[0][1],
      mix02: mix[0][2],
      mix10: mix[1][0],
      mix11: mix[1][1],
      mix12: mix[1][2],
      mix20: mix[2][0],
      mix21: mix[2][1],
      mix22: mix[2][2],
      offset0: offset[0],
      offset1: offset[1],
      offset2: offset[2],
    },
    bindings: { pixels, normalised },
  }, [Math.ceil(width / 64), height]);
}
