/**
 * Any tiled TIFF: the first directory, and those marked as reduced-resolution versions of it
 * (TIFF 6.0 §8, NewSubfileType bit 0), by width. OpenSlide's "generic-tiff".
 */

import { formatDouble } from "./properties.ts";
import type { SlideParts } from "./region.ts";
import type { Source } from "./source.ts";
import { TAG, type TiffDirectory, tiffProperties } from "./tiff.ts";

/** Whether the directories are those of a tiled TIFF. */
export function isGenericTiff([first]: readonly TiffDirectory[]): boolean {
  return first !== undefined && first.tiled;
}

/** The slide in the directories of a tiled TIFF. */
export function openGenericTiff(source: Source, directories: readonly TiffDirectory[]): SlideParts {
  const first = directories[0]!;
  const all = tiffProperties(first);
  // Pixels per inch or centimetre (tag 296; inch where absent); without a unit there is no scale.
  const unit = first.number(TAG.ResolutionUnit) ?? 2;
  const micrometres = ({ 2: 25_400, 3: 10_000 } as const)[unit as 2 | 3];
  const mpp = (tag: number, name: string) => {
    const perUnit = first.number(tag);
    if (micrometres === undefined || perUnit === undefined) return undefined;
    if (!(perUnit > 0) || !Number.isFinite(perUnit)) return undefined;
    all[name] = formatDouble(micrometres / perUnit);
    return micrometres / perUnit;
  };
  const mppX = mpp(TAG.XResolution, "openslide.mpp-x");
  const mppY = mpp(TAG.YResolution, "openslide.mpp-y");
  return {
    format: "generic-tiff",
    levels: directories
      .filter(({ index, tiled, subfileType }) => tiled && (index === 0 || subfileType & 1))
      .sort((a, b) => b.widthPx - a.widthPx),
    properties: { vendor: "generic-tiff", mppX, mppY, objectivePower: undefined, all },
    associated: new Map(),
    background: [255, 255, 255],
    close: () => source.close(),
  };
}
