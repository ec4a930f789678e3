/** A slide on one small picture: for the tissue mask and for people. */

import { UnsupportedError } from "../errors.ts";
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

/** Level 0 of a slide with a longer side of at most so many pixels is read all the same. */
const SMALL_SIDE_PX = 4096;

/** Bytes of the strips that a level is read in. */
const STRIP_BYTES = 16 << 20;
/** The most that a row of tiles may take, which is read at a time. */
const MOST_ROW_BYTES = 2 ** 29;

/** So few strips are read in no time. */
const SILENT_STRIPS = 8;

/** What ends the work early, and what is told how far it is. */
interface Watch {
  readonly signal?: AbortSignal;
  progress?(done: number, total: number, what: string): void;
}

const known = new WeakMap<Slide, Overview>();

/**
 * The whole slide at most OVERVIEW_SIDE_PX on its longer side, filtered by area from the smallest
 * level that is as large, or level 1 as it is where only a large level 0 is. Made once for a slide
 * and kept; memory does not grow with the slide.
 * @throws what `Slide.readRegion` throws.
 */
export async function overviewOf(slide: Slide, watch: Watch = {}): Promise<Overview> {
  let overview = known.get(slide);
  if (overview === undefined) {
    overview = await readOverview(slide, OVERVIEW_SIDE_PX, watch);
    known.set(slide, overview);
  }
  return overview;
}

async function readOverview(
  slide: Slide,
  sidePx: number,
  watch: Watch,
): Promise<Overview> {
  const { signal } = watch;
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
    level === 0 && Math.max(base!.widthPx, base!.heightPx) > SMALL_SIDE_PX &&
    second !== undefined &&
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
  const rowBytes = from.widthPx * 3 * from.tileHeightPx;
  if (rowBytes > MOST_ROW_BYTES) {
    throw new UnsupportedError(
      `Cannot make an overview: a row of tiles of level ${level} has ${
        Math.round(rowBytes / 2 ** 20)
      } MB, and there is no smaller level`,
      "slides with huge tiles and no pyramid",
    );
  }
  // Whole rows of tiles, so that no tile is decoded twice.
  const rowsPerStrip = from.tileHeightPx *
    Math.max(1, Math.floor(STRIP_BYTES / (from.widthPx * 3 * from.tileHeightPx)));
  for (let yPx = 0; yPx < from.heightPx; yPx += rowsPerStrip) {
    const { data } = await slide.readRegion({
      level,
      xPx: 0,
      yPx,
      widthPx: from.widthPx,
      heightPx: Math.min(rowsPerStrip, from.heightPx - yPx),
      ...(signal === undefined ? {} : { signal }),
    });
    filter.add(data);
    const rows = Math.ceil(from.heightPx / rowsPerStrip);
    if (rows > SILENT_STRIPS) {
      watch.progress?.(Math.floor(yPx / rowsPerStrip) + 1, rows, "strips of the overview");
    }
  }
  return {
    data: filter.finish(),
    widthPx,
    heightPx,
    downsampleX: base!.widthPx / widthPx,
    downsampleY: base!.heightPx / heightPx,
  };
}
