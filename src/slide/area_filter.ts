/** Pictures made smaller by area: each output pixel is the mean of the source that it covers. */

import type { Picture } from "./slide.ts";

/** Where the output lies on the source: output pixel (x, y) covers [shift + ratio · x, … + ratio). */
export interface AreaGeometry {
  /** Pixels of a source row; rows come as they are given. */
  readonly sourceWidthPx: number;
  readonly widthPx: number;
  readonly heightPx: number;
  /** Source pixels per output pixel on each axis, above 0. */
  readonly ratioX: number;
  readonly ratioY: number;
  /** Source pixels before the output's corner; negative where the output begins before the source. */
  readonly shiftX?: number;
  readonly shiftY?: number;
  /** The colour of what lies beyond the source; absent where that does not count. */
  readonly beyond?: readonly [red: number, green: number, blue: number];
}

/** Nearer to a source pixel's edge than this, a footprint ends there. */
const ROUNDING = 1e-6;

/**
 * Filters rows as they come: one row of sums is all that it holds beside the output. Without a colour
 * for what lies beyond the source, a footprint that covers nothing of it is black.
 */
export class AreaFilter {
  readonly #out: Uint8Array;
  readonly #sums: Float32Array;
  readonly #row: Float32Array;
  readonly #geometry: Required<Omit<AreaGeometry, "beyond">>;
  readonly #beyond: readonly [number, number, number] | undefined;
  /** Height of what has gone into the sums. */
  #covered = 0;
  #y = 0;
  #outY = 0;

  constructor(geometry: AreaGeometry) {
    const { beyond, ...rest } = geometry;
    this.#beyond = beyond;
    this.#geometry = { shiftX: 0, shiftY: 0, ...rest };
    this.#out = new Uint8Array(geometry.widthPx * geometry.heightPx * 3);
    this.#sums = new Float32Array(geometry.widthPx * 3);
    this.#row = new Float32Array(geometry.widthPx * 3);
    if (beyond === undefined) return;
    const { heightPx, ratioY, shiftY } = this.#geometry;
    const before = Math.min(heightPx, Math.floor((ROUNDING - shiftY) / ratioY));
    while (this.#outY < before) this.#emit();
  }

  /** Takes whole rows of RGB. */
  add(data: Uint8Array): void {
    const { sourceWidthPx, heightPx, ratioY, shiftY } = this.#geometry;
    const bytesPerRow = sourceWidthPx * 3;
    for (let at = 0; at + bytesPerRow <= data.length; at += bytesPerRow, this.#y++) {
      // This source row lies in [y, y + 1).
      let top = Math.max(this.#y, shiftY + this.#outY * ratioY);
      if (top >= this.#y + 1 || this.#outY >= heightPx) continue;
      this.#filterRow(data, at);
      while (this.#outY < heightPx && top < this.#y + 1) {
        const end = shiftY + (this.#outY + 1) * ratioY;
        const bottom = Math.min(this.#y + 1, end);
        const weight = bottom - top;
        for (let i = 0; i < this.#sums.length; i++) this.#sums[i]! += weight * this.#row[i]!;
        this.#covered += weight;
        top = bottom;
        if (end - bottom > ROUNDING) break;
        this.#emit();
      }
    }
  }

  /** Ends the last row. @returns `[heightPx, widthPx, 3]`. */
  finish(): Uint8Array {
    const { heightPx } = this.#geometry;
    if (this.#covered > 0 && this.#outY < heightPx) this.#emit();
    while (this.#beyond !== undefined && this.#outY < heightPx) this.#emit();
    return this.#out;
  }

  #emit(): void {
    const { widthPx, ratioY } = this.#geometry;
    const at = this.#outY * widthPx * 3;
    this.#addBeyond(this.#sums, ratioY - this.#covered);
    const scale = 1 / (this.#beyond === undefined ? this.#covered : ratioY);
    for (let i = 0; i < this.#sums.length; i++) this.#out[at + i] = this.#sums[i]! * scale + 0.5;
    this.#sums.fill(0);
    this.#covered = 0;
    this.#outY++;
  }

  /** Adds what lies beyond the source to the sums of a row, in so much of its height. */
  #addBeyond(sums: Float32Array, height: number): void {
    if (this.#beyond === undefined || height < ROUNDING) return;
    const [red, green, blue] = this.#beyond;
    for (let i = 0; i < sums.length; i += 3) {
      sums[i]! += height * red;
      sums[i + 1]! += height * green;
      sums[i + 2]! += height * blue;
    }
  }

  #filterRow(data: Uint8Array, at: number): void {
    const { widthPx, sourceWidthPx, ratioX, shiftX } = this.#geometry;
    const row = this.#row;
    for (let x = 0; x < widthPx; x++) {
      const start = shiftX + x * ratioX;
      const left = Math.max(0, start);
      const right = Math.min(sourceWidthPx, start + ratioX);
      let red = 0, green = 0, blue = 0;
      for (let sx = Math.floor(left); sx < right - ROUNDING; sx++) {
        const weight = Math.min(sx + 1, right) - Math.max(sx, left);
        const i = at + 3 * sx;
        red += weight * data[i]!;
        green += weight * data[i + 1]!;
        blue += weight * data[i + 2]!;
      }
      let covered = Math.max(right - left, Number.MIN_VALUE);
      if (this.#beyond !== undefined) {
        const rest = Math.min(ratioX, ratioX - (right - left));
        if (rest > ROUNDING) {
          red += rest * this.#beyond[0];
          green += rest * this.#beyond[1];
          blue += rest * this.#beyond[2];
          covered = ratioX;
        }
      }
      row[3 * x] = red / covered;
      row[3 * x + 1] = green / covered;
      row[3 * x + 2] = blue / covered;
    }
  }
}

/** A whole picture at another, smaller size. */
export function reducePicture(picture: Picture, widthPx: number, heightPx: number): Picture {
  const filter = new AreaFilter({
    sourceWidthPx: picture.widthPx,
    widthPx,
    heightPx,
    ratioX: picture.widthPx / widthPx,
    ratioY: picture.heightPx / heightPx,
  });
  filter.add(picture.data);
  return { data: filter.finish(), widthPx, heightPx };
}
