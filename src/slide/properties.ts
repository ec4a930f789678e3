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

/** A number as OpenSlide prints it: 17 significant digits, no zeros at the end (C's "%.17g"). */
export function formatDouble(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  const [digits = "", exponent = ""] = value.toExponential(16).split("e");
  const power = Number(exponent);
  const trim = (text: string) => text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  if (power >= -4 && power < 17) return trim(value.toFixed(16 - power));
  const sign = power < 0 ? "-" : "+";
  return `${trim(digits)}e${sign}${String(Math.abs(power)).padStart(2, "0")}`;
}
