/** Mask to tiles: which rectangles of which level a model reads, at the scale that it wants. */

import type { Slide } from "../slide/slide.ts";
import type { TissueMask } from "./tissue.ts";

/** A tile in model pixels, counted from the slide's top left corner. */
export interface ModelTile {
  readonly x: number;
  readonly y: number;
}

/** How a slide is cut for a model. */
export interface TileGrid {
  /** The level that is read. */
  readonly level: number;
  /** Pixels of that level per model pixel, at least 1; exactly 1 where both are within a tenth. */
  readonly ratio: number;
  /** Micrometres per model pixel as it comes out, on each axis. */
  readonly mppX: number;
  readonly mppY: number;
  /** Level-0 pixels per model pixel. */
  readonly downsample: number;
  /** Sides of a tile's core in model pixels; halos come on top. */
  readonly corePx: number;
  /** Those with tissue in their core, row by row. */
  readonly tiles: readonly ModelTile[];
}

/** Micrometres per pixel taken where a slide does not say: an objective of 20×. */
export const ASSUMED_MPP = 0.5;

/** Micrometres per pixel between which a slide is believed: immersion at 100×, a flatbed scanner. */
const [FINEST_MPP, COARSEST_MPP] = [0.02, 25];

/** Micrometres per level-0 pixel on each axis. */
export interface Scale {
  readonly mppX: number;
  readonly mppY: number;
  /** True where the slide does not say, or what it says cannot be: 72 dpi, a TIFF's default, are 353. */
  readonly assumed: boolean;
}

/** A slide's scale, or ASSUMED_MPP. */
export function scaleOf({ properties: { mppX, mppY } }: Slide): Scale {
  const believed = (mpp: number | undefined) =>
    mpp !== undefined && mpp >= FINEST_MPP && mpp <= COARSEST_MPP ? mpp : undefined;
  const x = believed(mppX) ?? believed(mppY) ?? ASSUMED_MPP;
  return {
    mppX: x,
    mppY: believed(mppY) ?? x,
    assumed: believed(mppX) === undefined && believed(mppY) === undefined,
  };
}

export interface GridOptions {
  /** Micrometres per model pixel. */
  readonly mpp: number;
  /** Side of a tile's core. */
  readonly corePx: number;
  /** Least part of a core that has to be tissue; where it is left out any of it. */
  readonly leastTissue?: number;
  /**
   * Changes the scale by at most half a pixel of the level in a core, so that every core begins on a
   * whole one: all tiles are resampled alike then.
   */
  readonly snap?: boolean;
}

/**
 * At which level a slide is read for a model, and at what scale: the coarsest level that is as fine
 * as wanted; a slide that is coarser everywhere is read as it is, never enlarged.
 */
export function scaleFor(
  slide: Slide,
  { mpp, corePx, snap = false }: Pick<GridOptions, "mpp" | "corePx" | "snap">,
): Omit<TileGrid, "tiles"> {
  const { mppX: mppX0, mppY: mppY0 } = scaleOf(slide);
  // A tenth finer or coarser than wanted is what scanners differ by: not worth resampling.
  const level = Math.max(
    0,
    slide.levels.findLastIndex(({ downsample }) => mppX0 * downsample <= mpp * 1.1),
  );
  const { downsample } = slide.levels[level]!;
  const wanted = mpp / (mppX0 * downsample);
  const exact = wanted > 1.1 ? wanted : 1;
  const ratio = snap ? Math.round(exact * corePx) / corePx : exact;
  return {
    level,
    ratio,
    mppX: mppX0 * downsample * ratio,
    mppY: mppY0 * downsample * ratio,
    downsample: downsample * ratio,
    corePx,
  };
}

/** Cuts a slide into tiles of `corePx` at about `mpp`: at what `scaleFor` gives. */
export function cutGrid(slide: Slide, mask: TissueMask, options: GridOptions): TileGrid {
  const scale = scaleFor(slide, options);
  const { leastTissue = 0, corePx } = options;
  const { level, ratio, downsample } = scale;
  const { widthPx, heightPx } = slide.levels[level]!;
  const width = Math.ceil(widthPx / ratio), height = Math.ceil(heightPx / ratio);
  const tiles: ModelTile[] = [];
  for (let y = 0; y < height; y += corePx) {
    for (let x = 0; x < width; x += corePx) {
      const tissue = tissuePart(mask, x * downsample, y * downsample, corePx * downsample);
      if (tissue > 0 && tissue >= leastTissue) tiles.push({ x, y });
    }
  }
  return { ...scale, tiles };
}

/** The part of a square that is tissue: of what of it is on the slide. */
function tissuePart(mask: TissueMask, x0Px: number, y0Px: number, sidePx: number): number {
  const left = Math.floor(x0Px / mask.downsampleX), top = Math.floor(y0Px / mask.downsampleY);
  const right = Math.min(mask.widthPx, Math.ceil((x0Px + sidePx) / mask.downsampleX));
  const bottom = Math.min(mask.heightPx, Math.ceil((y0Px + sidePx) / mask.downsampleY));
  let inside = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) inside += mask.data[y * mask.widthPx + x]!;
  }
  return inside / Math.max(1, (right - left) * (bottom - top));
}
