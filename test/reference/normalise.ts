/** The plain twin of kernels/normalise.wgsl, in f64. */

import type { Normalisation, StainNormalisation } from "../../kernels/normalise.ts";

type Colour = [number, number, number];
type Matrix = readonly (readonly number[])[];

function times(m: Matrix, v: readonly number[]): Colour {
  return m.map((row) => row[0]! * v[0]! + row[1]! * v[1]! + row[2]! * v[2]!) as Colour;
}

/** sRGB to XYZ under D65, as scikit-image has it, and back by Cramer's rule. */
const XYZ: Matrix = [
  [0.412453, 0.357580, 0.180423],
  [0.212671, 0.715160, 0.072169],
  [0.019334, 0.119193, 0.950227],
];
const WHITE = [0.95047, 1, 1.08883];

function solve(m: Matrix, v: readonly number[]): Colour {
  const det = (a: Matrix) =>
    a[0]![0]! * (a[1]![1]! * a[2]![2]! - a[1]![2]! * a[2]![1]!) -
    a[0]![1]! * (a[1]![0]! * a[2]![2]! - a[1]![2]! * a[2]![0]!) +
    a[0]![2]! * (a[1]![0]! * a[2]![1]! - a[1]![1]! * a[2]![0]!);
  return [0, 1, 2].map((j) =>
    det(m.map((row, i) => row.map((value, k) => k === j ? v[i]! : value))) / det(m)
  ) as Colour;
}

/** L*, a* and b* (CIE 15 §8.2.1.1) of sRGB 0 to 255. */
export function labOf(rgb: readonly number[]): Colour {
  const linear = rgb.map((v) => v / 255).map((v) =>
    v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  );
  const [x, y, z] = times(XYZ, linear).map((v, i) => v / WHITE[i]!).map((v) =>
    v <= 0.008856 ? 7.787 * v + 16 / 116 : Math.cbrt(v)
  ) as Colour;
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/** sRGB 0 to 255, clipped to its gamut, of L*, a* and b*. */
export function rgbOf([l, a, b]: readonly [number, number, number]): Colour {
  const y = (l + 16) / 116;
  const xyz = [y + a / 500, y, y - b / 200].map((f, i) =>
    WHITE[i]! * (f <= 0.2068966 ? (f - 16 / 116) / 7.787 : f ** 3)
  );
  return solve(XYZ, xyz).map((v) =>
    255 * Math.min(1, Math.max(0, v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055))
  ) as Colour;
}

/** Light 0 to 255 as the target's stains would have let it through. */
export function stained(light: Colour, { kind, mix, offset }: StainNormalisation): Colour {
  const mixed = (v: readonly number[]) => times(mix, v).map((value, c) => value + offset[c]!);
  if (kind === "densities") {
    return mixed(light.map((v) => Math.log2(v + 1))).map((v) => Math.min(255, 2 ** v)) as Colour;
  }
  const [l, a, b] = labOf(light);
  const y = (l + 16) / 116;
  const [gx, gy, gz] = mixed([y + a / 500, y, y - b / 200]) as Colour;
  return rgbOf([116 * gy - 16, 500 * (gx - gy), 200 * (gy - gz)]);
}

/** Source pixels and weights, which sum to 1, of output pixel `i` on one axis. */
function taps(size: number, shift: number, ratio: number, i: number): [at: number, w: number][] {
  const clamp = (cell: number) => Math.min(Math.max(cell, 0), size - 1);
  if (ratio < 1) {
    const centre = shift + ratio * (i + 0.5) - 0.5;
    const first = Math.floor(centre);
    return [[clamp(first), 1 - (centre - first)], [clamp(first + 1), centre - first]];
  }
  const from = shift + i * ratio, to = from + ratio;
  const found: [number, number][] = [];
  for (let cell = Math.floor(from); cell < to; cell++) {
    found.push([clamp(cell), (Math.min(cell + 1, to) - Math.max(cell, from)) / ratio]);
  }
  return found;
}

/**
 * normalised[y, x, c] = Σ_j mix[c, j] · f(s(mean of pixels over the footprint)) + offset[c], of one
 * tile [h, w, samples] whose rows begin `rowPixels` apart.
 */
export function normalise(
  pixels: ArrayLike<number>,
  [sourceHeight, sourceWidth]: readonly [number, number],
  [height, width]: readonly [number, number],
  { of, mix, offset, stain }: Normalisation,
  { shiftX, shiftY, ratio }: {
    shiftX: number;
    shiftY: number;
    ratio: number | readonly [number, number];
  },
  { samples = 3, rowPixels = sourceWidth, firstPixel = 0 } = {},
): Float64Array {
  const [ratioX, ratioY] = typeof ratio === "number" ? [ratio, ratio] : ratio;
  const normalised = new Float64Array(height * width * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let light: Colour = [0, 0, 0];
      for (const [row, high] of taps(sourceHeight, shiftY, ratioY, y)) {
        for (const [column, wide] of taps(sourceWidth, shiftX, ratioX, x)) {
          const at = samples * (firstPixel + row * rowPixels + column);
          for (let j = 0; j < 3; j++) light[j]! += high * wide * pixels[at + j]!;
        }
      }
      if (stain !== undefined) light = stained(light, stain);
      const value = light.map((v) => of === "intensity" ? v / 255 : -Math.log10((v + 1) / 256));
      times(mix, value).forEach((v, c) => normalised[(y * width + x) * 4 + c] = v + offset[c]!);
    }
  }
  return normalised;
}
