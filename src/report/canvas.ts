/** Lines and marks on an RGB picture, without anti-aliasing and without allocation: a million marks are quick. */

import type { Picture } from "../slide/slide.ts";

/** Red, green, blue, 0 to 255. */
export type Colour = readonly [number, number, number];

/** The pixels of a mark, as x and y from its centre. */
export type Mark = readonly (readonly [number, number])[];

/** A ring five pixels wide: what it marks stays visible within. */
export const RING: Mark = [
  ...[-1, 0, 1].flatMap((k) => [[k, -2], [k, 2], [-2, k], [2, k]] as const),
];
/** A cross three pixels wide, where there are too many for rings. */
export const CROSS: Mark = [[0, -1], [-1, 0], [0, 0], [1, 0], [0, 1]];
/** One pixel. */
export const DOT: Mark = [[0, 0]];

/** How far a mark or half a line's width reaches from its centre, at most. */
const REACH_PX = 2;

/** Draws on a copy of a picture; what lies outside of it is clipped, and what is not finite is left out. */
export class Canvas {
  readonly data: Uint8Array;
  readonly widthPx: number;
  readonly heightPx: number;
  /** What lines and marks are drawn in. */
  colour: Colour = [255, 0, 0];
  /** Width of lines, 1 to 4 pixels. */
  lineWidthPx = 3;
  #shape: Mark = [];
  /** The same as byte offsets in `data`. */
  #shapeOffsets = new Int32Array(0);

  /** @throws {RangeError} where the picture's data do not fit its size. */
  constructor(picture: Picture) {
    if (picture.data.length !== picture.widthPx * picture.heightPx * 3) {
      throw new RangeError(
        `Cannot draw on ${picture.widthPx} × ${picture.heightPx} px of ${picture.data.length} bytes`,
      );
    }
    this.data = picture.data.slice();
    this.widthPx = picture.widthPx;
    this.heightPx = picture.heightPx;
    this.shape = RING;
  }

  /** What `mark` draws. */
  set shape(shape: Mark) {
    this.#shape = shape;
    this.#shapeOffsets = Int32Array.from(shape, ([dx, dy]) => (dy * this.widthPx + dx) * 3);
  }

  /** Marks the pixel in which a position of the picture lies. */
  mark(x: number, y: number): void {
    const { data, widthPx, heightPx } = this;
    const column = Math.floor(x);
    const row = Math.floor(y);
    if (
      column >= REACH_PX && column < widthPx - REACH_PX &&
      row >= REACH_PX && row < heightPx - REACH_PX
    ) {
      const { colour } = this;
      const offsets = this.#shapeOffsets;
      const centre = (row * widthPx + column) * 3;
      for (let i = 0; i < offsets.length; i++) {
        const at = centre + offsets[i]!;
        data[at] = colour[0];
        data[at + 1] = colour[1];
        data[at + 2] = colour[2];
      }
    } else if (
      column >= -REACH_PX && column < widthPx + REACH_PX &&
      row >= -REACH_PX && row < heightPx + REACH_PX
    ) {
      for (const [dx, dy] of this.#shape) this.#fill(column + dx, row + dy, 1, 1);
    }
  }

  /** Joins two positions of the picture by a line, both ends included. */
  line(x0: number, y0: number, x1: number, y1: number): void {
    // Liang & Barsky 1984: the part of the line that lies near the picture, from t0 to t1.
    const dx = x1 - x0;
    const dy = y1 - y0;
    const margin = REACH_PX + 1;
    let t0 = 0;
    let t1 = 1;
    for (let side = 0; side < 4; side++) {
      const along = side < 2 ? dx : dy;
      const from = side < 2 ? x0 : y0;
      const size = side < 2 ? this.widthPx : this.heightPx;
      const lower = side % 2 === 0;
      const room = lower ? from + margin : size + margin - from;
      const rate = lower ? -along : along;
      // Not `room < 0`, which is false of NaN.
      if (rate === 0) {
        if (!(room >= 0)) return;
      } else if (rate < 0) t0 = Math.max(t0, room / rate);
      else t1 = Math.min(t1, room / rate);
    }
    if (!(t0 <= t1) || !Number.isFinite(dx) || !Number.isFinite(dy)) return;
    const startX = Math.floor(x0 + t0 * dx);
    const startY = Math.floor(y0 + t0 * dy);
    const endX = Math.floor(x0 + t1 * dx);
    const endY = Math.floor(y0 + t1 * dy);
    const width = this.lineWidthPx;
    const back = (width - 1) >> 1;
    if (startX === endX || startY === endY) {
      this.#fill(
        Math.min(startX, endX) - back,
        Math.min(startY, endY) - back,
        Math.abs(endX - startX) + width,
        Math.abs(endY - startY) + width,
      );
      return;
    }
    const steps = Math.max(Math.abs(endX - startX), Math.abs(endY - startY));
    for (let k = 0; k <= steps; k++) {
      const x = startX + Math.round((endX - startX) * k / steps);
      const y = startY + Math.round((endY - startY) * k / steps);
      this.#fill(x - back, y - back, width, width);
    }
  }

  #fill(left: number, top: number, widthPx: number, heightPx: number): void {
    const [red, green, blue] = this.colour;
    const right = Math.min(this.widthPx, left + widthPx);
    const bottom = Math.min(this.heightPx, top + heightPx);
    const from = Math.max(0, left);
    for (let y = Math.max(0, top); y < bottom; y++) {
      let at = (y * this.widthPx + from) * 3;
      for (let x = from; x < right; x++) {
        this.data[at++] = red;
        this.data[at++] = green;
        this.data[at++] = blue;
      }
    }
  }
}
