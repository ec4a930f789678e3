/** A slide on one small picture: for the tissue mask and for people. */

import { AreaFilter } from "../slide/area_filter.ts";
import type { Picture, Slide } from "../slide/slide.ts";

export interface Overview extends Picture {
  /** Level-0 pixels per pixel of the overview, on each axis; they differ by rounding only. */
  readonly downsampleX: number;
  readonly downsampleY: number;
}

/** The longer side of an overview, in pixels, where the slide is that large. */
export const OVERVIEW_SIDE_PX = 2048;

/** A smaller level with a longer side of this many pixels will do where else level 0 were read. */
const LEAST_SIDE_PX = 512;

/** Bytes of the strips that a level is read in. */
const STRIP_BYTES = 16 << 20;

const known = new WeakMap<Slide, Overview>();

/**
 * The whole slide at most OVERVIEW_SIDE_PX on its longer side, filtered by area from the smallest
 * level that is as large, or level 1 as it is where only level 0 is. Made once for a slide and kept; memory does not grow with the slide.
 * @throws what `Slide.readRegion` throws.
 */
export async function overviewOf(slide: Slide, signal?: AbortSignal): Promise<Overview> {
  let overview = known.get(slide);
  if (overview === undefined) {
    overview = await readOverview(slide, OVERVIEW_SIDE_PX, signal);
    known.set(slide, overview);
  }
  return overview;
}

async function readOverview(
  slide: Slide,
  sidePx: number,
  signal: AbortSignal | undefined,
): Promise<Overview> {
  const [base] = slide.levels;
  const scale = Math.min(1, sidePx / Math.max(base!.widthPx, base!.heightPx));
  let widthPx = Math.max(1, Math.round(base!.widthPx * scale));
  let heightPx = Math.max(1, Math.round(base!.heightPx * scale));
  let level = Math.max(
    0,
    slide.levels.findLastIndex((level) => level.widthPx >= widthPx && level.heightPx >= heightPx),
  );
  // Level 0 is most of a slide's bytes, which may have to come from far away.
  const second = slide.levels[1];
  if (
    level === 0 && scale < 1 && second !== undefined &&
    Math.max(second.widthPx, second.heightPx) >= LEAST_SIDE_PX
  ) {
    level = 1;
    ({ widthPx, heightPx } = second);
  }
  const from = slide.levels[level]!;
  const filter = new AreaFilter({
    sourceWidthPx: from.widthPx,
    widthPx,
    heightPx,
    ratioX: from.widthPx / widthPx,
    ratioY: from.heightPx / heightPx,
  });
  // Whole rows of tiles, so that no tile is decoded twice.
  const rowsPerStrip = from.tileHeightPx *
    Math.max(1, Math.floor(STRIP_BYTES / (from.widthPx * 3 * from.tileHeightPx)));
  for (let yPx = 0; yPx < from.heightPx; yPx += rowsPerStrip) {
    const { data } = await slide.readRegion({
      level,
      x0Px: 0,
      y0Px: Math.round(yPx * from.downsample),
      widthPx: from.widthPx,
      heightPx: Math.min(rowsPerStrip, from.heightPx - yPx),
      ...(signal === undefined ? {} : { signal }),
    });
    filter.add(data);
  }
  return {
    data: filter.finish(),
    widthPx,
    heightPx,
    downsampleX: base!.widthPx / widthPx,
    downsampleY: base!.heightPx / heightPx,
  };
}
