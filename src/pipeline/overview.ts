/** A slide on one small picture: for the tissue mask and for people. */

import type { Picture, Slide } from "../slide/slide.ts";

export interface Overview extends Picture {
  /** Level-0 pixels per pixel of the overview, on each axis; they differ by rounding only. */
  readonly downsampleX: number;
  readonly downsampleY: number;
}

/** The longer side of an overview, in pixels, where the slide is that large. */
export const OVERVIEW_SIDE_PX = 2048;

/** Bytes of the strips that a level is read in. */
const STRIP_BYTES = 16 << 20;

const known = new WeakMap<Slide, Overview>();

/**
 * The whole slide at most OVERVIEW_SIDE_PX on its longer side, filtered by area from the smallest
 * level that is as large. Made once for a slide and kept; memory does not grow with the slide.
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
  const widthPx = Math.max(1, Math.round(base!.widthPx * scale));
  const heightPx = Math.max(1, Math.round(base!.heightPx * scale));
  const level = Math.max(
    0,
    slide.levels.findLastIndex((level) => level.widthPx >= widthPx && level.heightPx >= heightPx),
  );
  const from = slide.levels[level]!;
  const reducer = new AreaReducer(from.widthPx, from.heightPx, widthPx, heightPx);
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
    reducer.add(data);
  }
  return {
    data: reducer.finish(),
    widthPx,
    heightPx,
    downsampleX: base!.widthPx / widthPx,
    downsampleY: base!.heightPx / heightPx,
  };
}

/** A picture made smaller by area: each output pixel is the mean of the source it covers. */
export function reducePicture(picture: Picture, widthPx: number, heightPx: number): Picture {
  const reducer = new AreaReducer(picture.widthPx, picture.heightPx, widthPx, heightPx);
  reducer.add(picture.data);
  return { data: reducer.finish(), widthPx, heightPx };
}

/** Reduces rows as they come: one row of sums is all that it holds beside the output. */
class AreaReducer {
  readonly #out: Uint8Array;
  readonly #sums: Float32Array;
  readonly #row: Float32Array;
  #y = 0;
  #outY = 0;

  constructor(
    readonly sourceWidth: number,
    readonly sourceHeight: number,
    readonly width: number,
    readonly height: number,
  ) {
    this.#out = new Uint8Array(width * height * 3);
    this.#sums = new Float32Array(width * 3);
    this.#row = new Float32Array(width * 3);
  }

  /** Takes whole rows of RGB. */
  add(data: Uint8Array): void {
    const bytesPerRow = this.sourceWidth * 3;
    const ratio = this.sourceHeight / this.height;
    for (let at = 0; at + bytesPerRow <= data.length; at += bytesPerRow, this.#y++) {
      this.#reduceRow(data, at);
      // This row lies in [y, y + 1); output row o in [o · ratio, (o + 1) · ratio).
      let top = this.#y;
      while (this.#outY < this.height && top < this.#y + 1) {
        const end = (this.#outY + 1) * ratio;
        const bottom = Math.min(this.#y + 1, end);
        const weight = bottom - top;
        for (let i = 0; i < this.#sums.length; i++) this.#sums[i]! += weight * this.#row[i]!;
        top = bottom;
        // A row that ends within rounding of the output's end ends it.
        if (end - bottom > 1e-6) break;
        this.#emit(ratio);
      }
    }
  }

  finish(): Uint8Array {
    while (this.#outY < this.height) this.#emit(this.sourceHeight / this.height);
    return this.#out;
  }

  #emit(ratio: number): void {
    const at = this.#outY * this.width * 3;
    for (let i = 0; i < this.#sums.length; i++) this.#out[at + i] = this.#sums[i]! / ratio + 0.5;
    this.#sums.fill(0);
    this.#outY++;
  }

  #reduceRow(data: Uint8Array, at: number): void {
    const ratio = this.sourceWidth / this.width;
    const row = this.#row;
    for (let x = 0; x < this.width; x++) {
      const left = x * ratio, right = Math.min(this.sourceWidth, left + ratio);
      let red = 0, green = 0, blue = 0;
      for (let sx = Math.floor(left); sx < right - 1e-6; sx++) {
        const weight = Math.min(sx + 1, right) - Math.max(sx, left);
        const i = at + 3 * sx;
        red += weight * data[i]!;
        green += weight * data[i + 1]!;
        blue += weight * data[i + 2]!;
      }
      row[3 * x] = red / ratio;
      row[3 * x + 1] = green / ratio;
      row[3 * x + 2] = blue / ratio;
    }
  }
}
