/**
 * Any tiled TIFF: the first directory, and those marked as reduced-resolution versions of it
 * (TIFF 6.0 §8, NewSubfileType bit 0), by width. OpenSlide's "generic-tiff".
 */

import type { SlideParts } from "./region.ts";
import type { Source } from "./source.ts";
import { resolution, type TiffDirectory, tiffProperties } from "./tiff.ts";

/** Whether the directories are those of a tiled TIFF. */
export function isGenericTiff([first]: readonly TiffDirectory[]): boolean {
  return first !== undefined && first.tiled;
}

/** The slide in the directories of a tiled TIFF. */
export function openGenericTiff(source: Source, directories: readonly TiffDirectory[]): SlideParts {
  const first = directories[0]!;
  const all = tiffProperties(first);
  const { mppX, mppY } = resolution(first, all);
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
