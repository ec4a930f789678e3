/** OpenSlide's properties: what all formats have, and how numbers are written. */

import type { Level } from "./slide.ts";

/** Properties that follow from vendor and levels (openslide.c, openslide_open). */
export function levelProperties(vendor: string, levels: readonly Level[]): Record<string, string> {
  const all: Record<string, string> = {
    "openslide.vendor": vendor,
    "openslide.level-count": String(levels.length),
  };
  for (const [i, level] of levels.entries()) {
    all[`openslide.level[${i}].width`] = String(level.widthPx);
    all[`openslide.level[${i}].height`] = String(level.heightPx);
    all[`openslide.level[${i}].downsample`] = formatDouble(level.downsample);
    all[`openslide.level[${i}].tile-width`] = String(level.tileWidthPx);
    all[`openslide.level[${i}].tile-height`] = String(level.tileHeightPx);
  }
  return all;
}

/** A number as OpenSlide prints it: 17 significant digits, no zeros at the end (g_ascii_dtostr). */
export function formatDouble(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return String(value) === value.toPrecision(17)
    ? String(value)
    : value.toPrecision(17).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}
