/** Overview to tissue mask: Otsu's threshold on colour, holes and specks removed. */

import { reducePicture } from "../slide/area_filter.ts";
import type { Overview } from "./overview.ts";

/** Where there is tissue, on a grid over the whole slide. */
export interface TissueMask {
  /** 1 where there is tissue, else 0: `[heightPx, widthPx]`. */
  readonly data: Uint8Array;
  readonly widthPx: number;
  readonly heightPx: number;
  /** Level-0 pixels per mask pixel. */
  readonly downsampleX: number;
  readonly downsampleY: number;
  /** The threshold that was taken, as a fraction of full colour. */
  readonly threshold: number;
}

/** Micrometres per mask pixel aimed at: a tenth of a gland, and a whole slide in a megapixel. */
const MASK_MPP = 8;
/** Smaller pieces are dust, smaller holes lumens and cracks. */
const SPECK_MM2 = 0.004;
const HOLE_MM2 = 0.02;
/**
 * Otsu always finds two classes, also where all is glass or all is tissue; between these, glass is
 * below and the palest stroma above.
 */
const MIN_THRESHOLD = 0.04;
const MAX_THRESHOLD = 0.10;

/**
 * Finds the tissue. What counts is colour (largest minus smallest channel, relative to the glass):
 * glass, dirt and pen in black have none, both stains do.
 * @param mpp micrometres per level-0 pixel.
 */
export function findTissue(overview: Overview, mpp: number): TissueMask {
  const factor = Math.max(1, MASK_MPP / (mpp * overview.downsampleX));
  const widthPx = Math.max(1, Math.round(overview.widthPx / factor));
  const heightPx = Math.max(1, Math.round(overview.heightPx / factor));
  const { data: rgb } = reducePicture(overview, widthPx, heightPx);
  const colour = smooth(colourOf(rgb), widthPx, heightPx);
  const threshold = Math.min(MAX_THRESHOLD, Math.max(MIN_THRESHOLD, otsu(colour)));
  const data = Uint8Array.from(colour, (c) => c > threshold ? 1 : 0);
  const downsampleX = overview.widthPx * overview.downsampleX / widthPx;
  const downsampleY = overview.heightPx * overview.downsampleY / heightPx;
  const pixelMm2 = downsampleX * downsampleY * (mpp / 1000) ** 2;
  removeSmall(data, widthPx, 1, SPECK_MM2 / pixelMm2);
  removeSmall(data, widthPx, 0, HOLE_MM2 / pixelMm2);
  return { data, widthPx, heightPx, downsampleX, downsampleY, threshold };
}

/** Whether a place is tissue. @param x0 level-0 pixels, at least 0; what lies beyond the mask is its edge. */
export function isTissue(mask: TissueMask, x0: number, y0: number): boolean {
  const x = Math.min(mask.widthPx - 1, Math.floor(x0 / mask.downsampleX));
  const y = Math.min(mask.heightPx - 1, Math.floor(y0 / mask.downsampleY));
  return mask.data[y * mask.widthPx + x] !== 0;
}

/** Level-0 px² of tissue in the square of `side0` level-0 pixels at (x0, y0); what lies off the slide is none. */
export function tissueWithin(mask: TissueMask, x0: number, y0: number, side0: number): number {
  const { downsampleX, downsampleY, widthPx, heightPx, data } = mask;
  const left = x0 / downsampleX, right = Math.min(widthPx, (x0 + side0) / downsampleX);
  const top = y0 / downsampleY, bottom = Math.min(heightPx, (y0 + side0) / downsampleY);
  let sum = 0;
  for (let y = Math.floor(top); y < bottom; y++) {
    const tall = Math.min(y + 1, bottom) - Math.max(y, top);
    for (let x = Math.floor(left); x < right; x++) {
      if (data[y * widthPx + x] === 0) continue;
      sum += tall * (Math.min(x + 1, right) - Math.max(x, left));
    }
  }
  return sum * downsampleX * downsampleY;
}

/** Area of the tissue in mm². @param mpp micrometres per level-0 pixel on each axis. */
export function tissueAreaMm2(mask: TissueMask, mppX: number, mppY: number): number {
  const pixels = mask.data.reduce((sum, inside) => sum + inside, 0);
  return pixels * mask.downsampleX * mppX * mask.downsampleY * mppY / 1e6;
}

/** Per pixel, largest minus smallest channel after division by the glass's colour, 0 to 1. */
function colourOf(rgb: Uint8Array): Float32Array {
  const white = [0, 1, 2].map((channel) => {
    const histogram = new Uint32Array(256);
    for (let i = channel; i < rgb.length; i += 3) histogram[rgb[i]!]!++;
    let left = rgb.length / 3 * 0.05;
    let value = 255;
    while (value > 0 && (left -= histogram[value]!) > 0) value--;
    return value < 200 ? 255 : value; // Nothing is as bright as glass: there is none to see.
  });
  const [red, green, blue] = white as [number, number, number];
  return Float32Array.from({ length: rgb.length / 3 }, (_, i) => {
    const r = Math.min(1, rgb[3 * i]! / red);
    const g = Math.min(1, rgb[3 * i + 1]! / green);
    const b = Math.min(1, rgb[3 * i + 2]! / blue);
    return Math.max(r, g, b) - Math.min(r, g, b);
  });
}

/** Mean of 3 × 3; the edge repeats. */
function smooth(values: Float32Array, width: number, height: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let dy = -1; dy <= 1; dy++) {
        const row = Math.min(height - 1, Math.max(0, y + dy)) * width;
        for (let dx = -1; dx <= 1; dx++) {
          sum += values[row + Math.min(width - 1, Math.max(0, x + dx))]!;
        }
      }
      out[y * width + x] = sum / 9;
    }
  }
  return out;
}

/** The threshold that separates two classes best (Otsu, IEEE Trans SMC 9:62, 1979), for values 0 to 1. */
export function otsu(values: ArrayLike<number>): number {
  const bins = 256;
  const histogram = new Float64Array(bins);
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    const bin = Math.min(bins - 1, Math.floor(values[i]! * bins));
    histogram[bin]!++;
    sum += bin;
  }
  let below = 0, sumBelow = 0, best = -1, first = 0, last = 0;
  for (let bin = 0; bin < bins; bin++) {
    below += histogram[bin]!;
    sumBelow += bin * histogram[bin]!;
    const above = values.length - below;
    if (below === 0 || above === 0) continue;
    const between = below * above * (sumBelow / below - (sum - sumBelow) / above) ** 2;
    if (between > best) [best, first, last] = [between, bin, bin];
    else if (between === best && last === bin - 1) last = bin;
  }
  // Between two classes far apart every bin is as good: the middle of them.
  return ((first + last) / 2 + 1) / bins;
}

/**
 * Flips the 4-connected pieces of `value` that have fewer than `minPixels` pixels. One that reaches
 * the picture's edge may go on beyond it, so its size is not known: it stays.
 */
function removeSmall(data: Uint8Array, width: number, value: 0 | 1, minPixels: number): void {
  const height = data.length / width;
  const seen = new Uint8Array(data.length);
  const stack: number[] = [];
  for (let start = 0; start < data.length; start++) {
    if (seen[start] || data[start] !== value) continue;
    const piece = [start];
    let atEdge = false;
    seen[start] = 1;
    stack.push(start);
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      const x = at % width, y = (at - x) / width;
      atEdge ||= x === 0 || y === 0 || x === width - 1 || y === height - 1;
      for (
        const next of [
          x > 0 ? at - 1 : -1,
          x < width - 1 ? at + 1 : -1,
          y > 0 ? at - width : -1,
          y < height - 1 ? at + width : -1,
        ]
      ) {
        if (next < 0 || seen[next] || data[next] !== value) continue;
        seen[next] = 1;
        if (piece.length < minPixels) piece.push(next);
        stack.push(next);
      }
    }
    if (atEdge || piece.length >= minPixels) continue;
    for (const at of piece) data[at] = value === 1 ? 0 : 1;
  }
}
