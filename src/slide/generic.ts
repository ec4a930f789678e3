/**
 * Any other TIFF: the first directory, and where it is tiled those marked as reduced-resolution
 * versions of it (TIFF 6.0 §8, NewSubfileType bit 0), by width. OpenSlide's "generic-tiff", which
 * has only tiled ones; a TIFF in strips is a slide of one level here.
 */

import type { SlideParts } from "./region.ts";
import type { Source } from "./source.ts";
import { resolution, type TiffDirectory, tiffProperties } from "./tiff.ts";

/** Whether there is a directory. */
export function isGenericTiff([first]: readonly TiffDirectory[]): boolean {
  return first !== undefined;
}

/** The slide in the directories of a TIFF. */
export async function openGenericTiff(
  source: Source,
  directories: readonly TiffDirectory[],
): Promise<SlideParts> {
  const first = directories[0]!;
  const all = tiffProperties(first);
  const { mppX, mppY } = resolution(first, all);
  return {
    format: "generic-tiff",
    levels: directories
      .filter(({ index, tiled, subfileType }) =>
        index === 0 || (first.tiled && tiled && subfileType & 1)
      )
      .sort((a, b) => b.widthPx - a.widthPx),
    properties: { vendor: "generic-tiff", mppX, mppY, objectivePower: undefined, all },
    associated: new Map(),
    background: [255, 255, 255],
    icc: await first.profile(),
    close: () => source.close(),
  };
}
