/**
 * Tiles that come to lie between pixels, painted as OpenSlide paints them: each pixel is interpolated
 * bilinearly, what was painted first stays in front, and edges add up by cairo's operator SATURATE, so
 * that a tile ends where the next begins.
 *
 * The arithmetic is that of pixman since 0.40, which composites so in f32 (pixman-bits-image.c,
 * bits_image_fetch_pixel_bilinear_float; pixman-combine-float.c, INV_DA_OVER_SA; pixman-utils.c,
 * float_to_unorm), so that pixels are OpenSlide's and not merely near them.
 */

/** Nearer to a whole pixel than this, cairo copies (cairo-matrix.c, _cairo_matrix_is_pixel_exact). */
const EXACT_PX = 1 / 512;

/** Whether a place is that of a pixel, as far as cairo tells. */
export function isWhole(px: number): boolean {
  return Math.abs(px - Math.round(px)) <= EXACT_PX;
}

const f32 = Math.fround;
/** A byte as f32 from 0 to 1. */
const UNIT = Float32Array.from({ length: 256 }, (_, byte) => byte * f32(1 / 255));

/** A tile's pixels, or a part of them. */
export interface PaintedTile {
  /** RGB, `widthPx` wide in rows of `strideBytes`, from `offsetBytes` on. */
  readonly data: Uint8Array;
  readonly offsetBytes: number;
  readonly strideBytes: number;
  readonly widthPx: number;
  readonly heightPx: number;
  /** Opacity, `[heightPx, widthPx]`, by which the colours are weighted; absent where all are opaque. */
  readonly alpha?: Uint8Array;
}

/** A picture that tiles are blended into, first come first. */
export class Blending {
  readonly #widthPx: number;
  readonly #heightPx: number;
  /** Weighted by opacity, `[heightPx, widthPx, 3]`. */
  readonly #data: Uint8Array;
  /** Opacity, `[heightPx, widthPx]`. */
  readonly #alpha: Uint8Array;

  constructor(widthPx: number, heightPx: number) {
    this.#widthPx = widthPx;
    this.#heightPx = heightPx;
    this.#data = new Uint8Array(widthPx * heightPx * 3);
    this.#alpha = new Uint8Array(widthPx * heightPx);
  }

  /**
   * Paints a tile with its corner at (xPx, yPx), behind what is there.
   * @param isRgb whether its pixels have no opacity to cairo, which then composites by bytes where no
   *   edge of the tile is in sight (FAST_PATH_SAMPLES_OPAQUE).
   */
  paint(tile: PaintedTile, xPx: number, yPx: number, isRgb: boolean): void {
    const { data: from, offsetBytes, strideBytes, widthPx, heightPx, alpha: own } = tile;
    const out = this.#data, alpha = this.#alpha, width = this.#widthPx;
    const copies = isWhole(xPx) && isWhole(yPx);
    // In 1/65536 of a pixel, as pixman counts.
    const x16 = copies ? -Math.round(xPx) * 65536 : Math.round(-xPx * 65536);
    const y16 = copies ? -Math.round(yPx) * 65536 : Math.round(-yPx * 65536);
    const toTileX = Math.floor(x16 / 65536), toTileY = Math.floor(y16 / 65536);
    const fx = (x16 - toTileX * 65536) / 65536, fy = (y16 - toTileY * 65536) / 65536;
    const right = f32(fx), left = f32(1 - right), below = f32(fy), above = f32(1 - below);
    const w00 = f32(left * above), w01 = f32(right * above);
    const w10 = f32(left * below), w11 = f32(right * below);

    // Of a pixel whose four neighbours are all the tile's, before anything else.
    const whole = f32(f32(f32(w00 + w01) + w10) + w11);
    const factor = factorOf(whole, 0);
    const wholeByte = toByte(f32(whole * factor));

    const firstX = Math.max(0, (fx === 0 ? 0 : -1) - toTileX);
    const firstY = Math.max(0, (fy === 0 ? 0 : -1) - toTileY);
    const endX = Math.min(width, widthPx - toTileX);
    const endY = Math.min(this.#heightPx, heightPx - toTileY);
    if (firstX >= endX || firstY >= endY) return;
    if (
      isRgb && !copies && firstX + toTileX >= 0 && firstY + toTileY >= 0 &&
      endX + toTileX < widthPx && endY + toTileY < heightPx
    ) {
      const part = cutBetween(
        tile,
        firstX + toTileX + fx,
        firstY + toTileY + fy,
        endX - firstX,
        endY - firstY,
      );
      for (let y = firstY; y < endY; y++) {
        const row = 3 * (y - firstY) * part.widthPx;
        for (let x = firstX; x < endX; x++) {
          const to = y * width + x;
          if (alpha[to] !== 0) continue;
          alpha[to] = 255;
          const i = row + 3 * (x - firstX);
          for (let channel = 0; channel < 3; channel++) {
            out[3 * to + channel] = part.data[i + channel]!;
          }
        }
      }
      return;
    }
    for (let y = firstY; y < endY; y++) {
      const row = y + toTileY;
      const hasAbove = row >= 0, hasBelow = row + 1 < heightPx;
      const at = offsetBytes + row * strideBytes;
      const insideFrom = hasAbove && hasBelow && own === undefined
        ? Math.max(firstX, -toTileX)
        : endX;
      const insideTo = Math.min(endX, widthPx - 1 - toTileX);
      for (let x = firstX; x < endX; x++) {
        const to = y * width + x;
        if (alpha[to] === 255) continue;
        const column = x + toTileX;
        if (alpha[to] === 0 && x >= insideFrom && x < insideTo) {
          let end = x + 1;
          while (end < insideTo && alpha[to + end - x] === 0) end++;
          const last = 3 * (to + end - x);
          for (let k = 3 * to, i = at + 3 * column; k < last; k++, i++) {
            const j = i + strideBytes;
            const value = f32(
              f32(
                f32(f32(UNIT[from[i]!]! * w00) + f32(UNIT[from[i + 3]!]! * w01)) +
                  f32(UNIT[from[j]!]! * w10),
              ) + f32(UNIT[from[j + 3]!]! * w11),
            );
            out[k] = toByte(f32(value * factor));
          }
          alpha.fill(wholeByte, to, to + end - x);
          x = end - 1;
          continue;
        }
        const hasLeft = column >= 0, hasRight = column + 1 < widthPx;
        const a = hasAbove && hasLeft ? w00 : 0, b = hasAbove && hasRight ? w01 : 0;
        const c = hasBelow && hasLeft ? w10 : 0, d = hasBelow && hasRight ? w11 : 0;
        let opacity = f32(f32(f32(a + b) + c) + d);
        if (own !== undefined) {
          const i = row * widthPx + column;
          const weighted = (weight: number, i: number) =>
            weight === 0 ? 0 : f32(UNIT[own[i]!]! * weight);
          opacity = f32(
            f32(f32(weighted(a, i) + weighted(b, i + 1)) + weighted(c, i + widthPx)) +
              weighted(d, i + widthPx + 1),
          );
        }
        if (opacity === 0) continue;
        const before = UNIT[alpha[to]!]!;
        const share = factorOf(opacity, before);
        // Where a weight is 0 any pixel will do.
        const i = at + 3 * column;
        const ia = a === 0 ? offsetBytes : i, ib = b === 0 ? offsetBytes : i + 3;
        const ic = c === 0 ? offsetBytes : i + strideBytes;
        const id = d === 0 ? offsetBytes : i + strideBytes + 3;
        for (let channel = 0; channel < 3; channel++) {
          const value = f32(
            f32(
              f32(f32(UNIT[from[ia + channel]!]! * a) + f32(UNIT[from[ib + channel]!]! * b)) +
                f32(UNIT[from[ic + channel]!]! * c),
            ) + f32(UNIT[from[id + channel]!]! * d),
          );
          const k = 3 * to + channel;
          out[k] = toByte(f32(f32(value * share) + UNIT[out[k]!]!));
        }
        alpha[to] = toByte(f32(f32(opacity * share) + before));
      }
    }
  }

  /** The picture over a background: RGB `[heightPx, widthPx, 3]`. */
  over([red, green, blue]: readonly [number, number, number]): Uint8Array {
    const data = this.#data;
    for (let i = 0, to = 0; i < this.#alpha.length; i++, to += 3) {
      const rest = 255 - this.#alpha[i]!;
      if (rest === 0) continue;
      data[to] = Math.min(255, data[to]! + Math.round(red * rest / 255));
      data[to + 1] = Math.min(255, data[to + 1]! + Math.round(green * rest / 255));
      data[to + 2] = Math.min(255, data[to + 2]! + Math.round(blue * rest / 255));
    }
    return data;
  }
}

/**
 * A part of a tile that begins between its pixels, interpolated with what lies outside as nothing. This is
 * pixman's arithmetic for operators without a division: weights of 7 bits, cut (pixman-inlines.h,
 * bilinear_interpolation).
 * @param tile whole, opaque. @param widthPx of the part.
 */
export function cutBetween(
  tile: PaintedTile,
  xPx: number,
  yPx: number,
  widthPx: number,
  heightPx: number,
): PaintedTile {
  const data = new Uint8Array(widthPx * heightPx * 3), alpha = new Uint8Array(widthPx * heightPx);
  const left = Math.floor(xPx), top = Math.floor(yPx);
  const fx = Math.floor((xPx - left) * 128), fy = Math.floor((yPx - top) * 128);
  const neighbours = [
    [0, 0, (128 - fx) * (128 - fy)],
    [1, 0, fx * (128 - fy)],
    [0, 1, (128 - fx) * fy],
    [1, 1, fx * fy],
  ] as const;
  const sums = [0, 0, 0, 0];
  for (let y = 0; y < heightPx; y++) {
    for (let x = 0; x < widthPx; x++) {
      sums.fill(0);
      for (const [dx, dy, weight] of neighbours) {
        const column = left + x + dx, row = top + y + dy;
        if (weight === 0 || column >= tile.widthPx || row >= tile.heightPx) continue;
        const i = tile.offsetBytes + row * tile.strideBytes + 3 * column;
        for (let channel = 0; channel < 3; channel++) {
          sums[channel]! += weight * tile.data[i + channel]!;
        }
        sums[3]! += weight * 255;
      }
      const to = y * widthPx + x;
      for (let channel = 0; channel < 3; channel++) data[3 * to + channel] = sums[channel]! >> 14;
      alpha[to] = sums[3]! >> 14;
    }
  }
  return { data, offsetBytes: 0, strideBytes: 3 * widthPx, widthPx, heightPx, alpha };
}

/** How much of what comes shows behind what is there. */
function factorOf(opacity: number, before: number): number {
  return Math.min(1, f32(f32(1 - before) / opacity));
}

/** From 0 to 1, cut at its ends, to a byte. */
function toByte(value: number): number {
  return value >= 1 ? 255 : Math.floor(value * 256);
}
