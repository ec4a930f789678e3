/** OpenSlide's properties: what all formats have, and how numbers are written. */

import type { Level } from "./slide.ts";

/**
 * Properties that follow from vendor and levels (openslide.c, openslide_open); the size of tiles only
 * where `tileSizes` says that it means something, which OpenSlide finds where they do not overlap.
 */
export function levelProperties(
  vendor: string,
  levels: readonly Level[],
  tileSizes: boolean,
): Record<string, string> {
  const all: Record<string, string> = {
    "openslide.vendor": vendor,
    "openslide.level-count": String(levels.length),
  };
  for (const [i, level] of levels.entries()) {
    all[`openslide.level[${i}].width`] = String(level.widthPx);
    all[`openslide.level[${i}].height`] = String(level.heightPx);
    all[`openslide.level[${i}].downsample`] = formatDouble(level.downsample);
    if (!tileSizes) continue;
    all[`openslide.level[${i}].tile-width`] = String(level.tileWidthPx);
    all[`openslide.level[${i}].tile-height`] = String(level.tileHeightPx);
  }
  return all;
}

/** Properties that follow from the profile and the associated pictures (openslide.c, openslide_open). */
export function pictureProperties(
  associated: ReadonlyMap<string, { readonly widthPx: number; readonly heightPx: number }>,
  icc: Uint8Array | undefined,
): Record<string, string> {
  const all: Record<string, string> = {};
  if (icc !== undefined) all["openslide.icc-size"] = String(icc.length);
  for (const [name, { widthPx, heightPx }] of associated) {
    all[`openslide.associated.${name}.width`] = String(widthPx);
    all[`openslide.associated.${name}.height`] = String(heightPx);
  }
  return all;
}

/** A number as OpenSlide prints it: 17 significant digits, no zeros at the end (C's "%.17g"). */
export function formatDouble(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  const [rounded, exponent] = value.toExponential(16).split("e") as [string, string];
  // Halfway between two, C takes the even one and JavaScript the larger.
  const even = /^(-?\d\.\d{15}[02468])50*e/.exec(value.toExponential(100))?.[1];
  const [sign, digits] = [value < 0 ? "-" : "", (even ?? rounded).replace(/\D/g, "")];
  const power = Number(exponent);
  const point = (before: string, after: string) =>
    `${sign}${before}.${after}`.replace(/\.?0*$/, "");
  if (power >= 17 || power < -4) {
    const size = String(Math.abs(power)).padStart(2, "0");
    return `${point(digits[0]!, digits.slice(1))}e${power < 0 ? "-" : "+"}${size}`;
  }
  return power < 0
    ? point("0", "0".repeat(-1 - power) + digits)
    : point(digits.slice(0, power + 1), digits.slice(power + 1));
}
