/**
 * u8 RGB tiles to network input: resampled, moved to other stains, scaled or turned into optical
 * density, mixed by a 3×3 matrix and shifted. Mean/std normalisation and colour deconvolution are
 * both such a mix.
 */

import code from "./normalise.wgsl" with { type: "text" };
import directCode from "./normalise_direct.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Pipeline, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

/** The members of Params that both kernels end with. */
const COLOUR_PARAMS = {
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
  stain00: "f32",
  stain01: "f32",
  stain02: "f32",
  stain10: "f32",
  stain11: "f32",
  stain12: "f32",
  stain20: "f32",
  stain21: "f32",
  stain22: "f32",
  stain_offset0: "f32",
  stain_offset1: "f32",
  stain_offset2: "f32",
} as const;

export const normaliseKernel = defineKernel({
  name: "normalise",
  code,
  params: {
    source_width: "u32",
    source_height: "u32",
    row_pixels: "u32",
    tile_pixels: "u32",
    width: "u32",
    height: "u32",
    shift_x: "f32",
    shift_y: "f32",
    ratio_x: "f32",
    ratio_y: "f32",
    ...COLOUR_PARAMS,
  },
  bindings: {
    pixels: { type: "array<u32>", access: "read" },
    normalised: { type: "array<Element>", access: "read_write" },
  },
  overrides: { SAMPLES: 3, PLANAR: false, STAIN: 0, OPTICAL_DENSITY: false },
  aliases: { Element: ["f32", "f16"] },
});

/** Where no pixel is resampled: four at a time, in whole words. */
export const normaliseDirectKernel = defineKernel({
  name: "normalise_direct",
  code: directCode,
  params: {
    row_groups: "u32",
    pixel_count: "u32",
    row_words: "u32",
    tile_words: "u32",
    ...COLOUR_PARAMS,
  },
  bindings: {
    pixels: { type: "array<u32>", access: "read" },
    normalised: { type: "array<vec4<Element>>", access: "read_write" },
  },
  overrides: { SAMPLES: 3, PLANAR: false, STAIN: 0, OPTICAL_DENSITY: false },
  aliases: { Element: ["f32", "f16"] },
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
  /** What is done to the colours before: nothing where it is left out. */
  readonly stain?: StainNormalisation;
}

/** Colours moved from one slide's stains to others': made by kernels/stain.ts. */
export interface StainNormalisation {
  /**
   * Of light v from 0 to 255: "densities" is 2^(mix · log2(v + 1) + offset), at most 255; "cielab" is
   * mix · f + offset of f(X/Xₙ), f(Y/Yₙ) and f(Z/Zₙ), which CIELAB is made of (CIE 15 §8.2.1), and
   * back; v is sRGB under D65 there, and what leaves its gamut is clipped.
   */
  readonly kind: "densities" | "cielab";
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

/** What is fixed when the normalisation is compiled. */
export interface NormaliseOptions {
  /** "channels-last" [N, H, W, 4], the default, or "planar" [N, 3, H, W]. */
  readonly layout?: "channels-last" | "planar";
  /** The type of what is written; "f16" needs the adapter's "shader-f16". */
  readonly type?: "f32" | "f16";
  /** 3 for RGB, the default; 4 for RGBA, whose alpha is not read. */
  readonly samples?: 3 | 4;
}

/** Both kernels for one kind of normalisation. */
export interface NormalisePipelines extends Required<NormaliseOptions> {
  readonly resampling: Pipeline<typeof normaliseKernel.literal>;
  readonly direct: Pipeline<typeof normaliseDirectKernel.literal>;
}

const STAINS = { densities: 1, cielab: 2 } as const;

/** Compiles for one kind of normalisation: its numbers may differ from call to call, not what it is of. */
export async function compileNormalise(
  gpu: Gpu,
  { of, stain }: Pick<Normalisation, "of" | "stain">,
  { layout = "channels-last", type = "f32", samples = 3 }: NormaliseOptions = {},
): Promise<NormalisePipelines> {
  const overrides = {
    SAMPLES: samples,
    PLANAR: layout === "planar",
    STAIN: stain === undefined ? 0 : STAINS[stain.kind],
    OPTICAL_DENSITY: of === "optical-density",
  };
  const [resampling, direct] = await Promise.all([
    normaliseKernel.compile(gpu, overrides, { Element: type }),
    normaliseDirectKernel.compile(gpu, overrides, { Element: type }),
  ]);
  return { resampling, direct, layout, type, samples };
}

/** Where output pixel (x, y) lies in its tile: from `shift + ratio · (x, y)`, `ratio` a side. */
export interface Resample {
  readonly shiftX: number;
  readonly shiftY: number;
  /** Source pixels per output pixel, at least 0.01; one number for both axes, or x and y. */
  readonly ratio: number | readonly [x: number, y: number];
}

/** Tiles side by side in one picture. */
export interface Strip {
  readonly tileWidth: number;
  /** Pixels from one tile's left edge to the next one's. */
  readonly strideX: number;
}

/**
 * Records the normalisation of N tiles. `pixels` is u8 [N, h, w, 3] or [N, h, w, 4] as compiled, a
 * single tile without its N, or with `strip` one picture [h, W, 3 or 4] that the tiles lie in side
 * by side. `normalised` is f32 or f16 as compiled: [N, H, W, 4], whose last channel is 0, or planar
 * [N, 3, H, W]; without N for a single tile.
 *
 * Without `resample` each tile is brought to H × W, whatever its size: an output pixel is the mean
 * of the area it covers where the tile is larger, and linear between pixels' centres where it is
 * smaller, on each axis by itself. Equal sizes are copied pixel by pixel.
 * @throws {RangeError} where shapes or ratio make no sense or do not fit each other.
 */
export function recordNormalise(
  recorder: Recorder,
  pipelines: NormalisePipelines,
  pixels: Tensor,
  normalised: Tensor,
  normalisation: Normalisation,
  resample?: Resample,
  strip?: Strip,
): void {
  const { layout, type, samples } = pipelines;
  const planar = layout === "planar";
  const input = pixels.shape.length === 3 ? [1, ...pixels.shape] : pixels.shape;
  const output = normalised.shape.length === 3 ? [1, ...normalised.shape] : normalised.shape;
  const [pictures = 0, sourceHeight = 0, pictureWidth = 0, sourceSamples] = input;
  const [tiles = 0] = output;
  const [height = 0, width = 0, channels] = planar
    ? [output[2], output[3], output[1]]
    : output.slice(1);
  const sourceWidth = strip?.tileWidth ?? pictureWidth;
  const { shiftX = 0, shiftY = 0, ratio = [sourceWidth / width, sourceHeight / height] } =
    resample ?? {};
  const [ratioX, ratioY] = typeof ratio === "number" ? [ratio, ratio] : ratio;
  const fits = strip === undefined
    ? pictures === tiles
    : pictures === 1 && Number.isSafeInteger(strip.strideX) && strip.strideX >= 0 &&
      Number.isSafeInteger(sourceWidth) &&
      (tiles - 1) * strip.strideX + sourceWidth <= pictureWidth;
  const empty = tiles * height * width === 0;
  if (
    pixels.type !== "u8" || normalised.type !== type || input.length !== 4 || output.length !== 4 ||
    sourceSamples !== samples || channels !== (planar ? 3 : 4) || sourceWidth < 1 ||
    sourceHeight < 1 || !fits || !(empty || (ratioX >= 0.01 && ratioY >= 0.01)) ||
    !Number.isFinite(shiftX) || !Number.isFinite(shiftY)
  ) {
    throw new RangeError(
      `Cannot normalise ${pixels.type} [${pixels.shape.join(", ")}] into ${normalised.type} ` +
        `[${normalised.shape.join(", ")}]` +
        (strip ? ` from tiles of ${strip.tileWidth} pixels, ${strip.strideX} apart,` : "") +
        ` at ratio ${ratioX} × ${ratioY}: u8 [N, h, w, ${samples}] into ${type} ` +
        `${planar ? "[N, 3, H, W]" : "[N, H, W, 4]"} at 0.01 or more is needed`,
    );
  }
  if (empty) return;
  const colour = colourParams(normalisation);
  const bindings = { pixels, normalised };
  const same = shiftX === 0 && shiftY === 0 && ratioX === 1 && ratioY === 1 &&
    sourceWidth === width && sourceHeight === height;
  const whole = strip === undefined
    // One tile after the other: all are a single row, but for planes that begin at whole vectors.
    ? !planar || height * width % 4 === 0
    : width % 4 === 0 && (samples === 4 || (strip.strideX % 4 === 0 && pictureWidth % 4 === 0));
  if (same && whole) {
    const rows = strip === undefined && !planar ? tiles : 1;
    const pixelCount = rows * height * width;
    const groups = Math.ceil(pixelCount / 4);
    recorder.dispatch(pipelines.direct, {
      params: {
        row_groups: strip === undefined ? groups : width / 4,
        pixel_count: pixelCount,
        row_words: pictureWidth * samples / 4,
        tile_words: (strip === undefined ? height * width : strip.strideX) * samples / 4,
        ...colour,
      },
      bindings,
    }, [...rowOfWorkgroups(recorder.gpu, Math.ceil(groups / 256)), tiles / rows]);
    return;
  }
  recorder.dispatch(pipelines.resampling, {
    params: {
      source_width: sourceWidth,
      source_height: sourceHeight,
      row_pixels: pictureWidth,
      tile_pixels: strip === undefined ? sourceHeight * pictureWidth : strip.strideX,
      width,
      height,
      shift_x: shiftX,
      shift_y: shiftY,
      ratio_x: ratioX,
      ratio_y: ratioY,
      ...colour,
    },
    bindings,
  }, [Math.ceil(width / 64), height, tiles]);
}

type ColourParams = { readonly [P in keyof typeof COLOUR_PARAMS]: number };

/** The members by their names: mix, offset, then the same of the stains, zeros where there are none. */
function colourParams({ mix, offset, stain }: Normalisation): ColourParams {
  const zeros = [0, 0, 0] as const;
  const none = { mix: [zeros, zeros, zeros], offset: zeros };
  const values = [{ mix, offset }, stain ?? none].flatMap((of) => [...of.mix.flat(), ...of.offset]);
  const names = Object.keys(COLOUR_PARAMS);
  return Object.fromEntries(names.map((name, i) => [name, values[i]])) as ColourParams;
}
