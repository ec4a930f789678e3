/** Colours to sRGB in f64: a profile of a matrix and a gamma, and CIELAB. */

/** sRGB's primaries and white adapted to D50 by Bradford's matrix (ICC.1:2010 annex E; IEC 61966-2-1). */
const SRGB_OF_XYZ = [
  [3.1338561, -1.6168667, -0.4906146],
  [-0.9787684, 1.9161415, 0.0334540],
  [0.0719453, -0.2289914, 1.4052427],
] as const;
const D50 = [0.9642, 1, 0.8249] as const;

/** XYZ under D50, white 1, to sRGB from 0 to 255, not rounded; what is outside is cut. */
export function srgbOfXyz(xyz: readonly number[]): number[] {
  return SRGB_OF_XYZ.map((row) => {
    const linear = Math.min(1, Math.max(0, row.reduce((sum, w, i) => sum + w * xyz[i]!, 0)));
    return 255 * (linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055);
  });
}

/** A colour from 0 to 255 of a space with these primaries and gamma, to sRGB. */
export function srgbOfMatrix(
  rgb: readonly number[],
  { primaries, gamma }: {
    readonly primaries: readonly (readonly number[])[];
    readonly gamma: number;
  },
): number[] {
  const linear = rgb.map((value) => (value / 255) ** gamma);
  return srgbOfXyz(
    [0, 1, 2].map((i) => primaries.reduce((sum, primary, k) => sum + linear[k]! * primary[i]!, 0)),
  );
}

/** CIELAB under D50 to sRGB. */
export function srgbOfLab([l, a, b]: readonly [number, number, number]): number[] {
  const y = (l + 16) / 116;
  const linear = (t: number) => t > 6 / 29 ? t ** 3 : 3 * (6 / 29) ** 2 * (t - 4 / 29);
  return srgbOfXyz([y + a / 500, y, y - b / 200].map((t, i) => D50[i]! * linear(t)));
}
