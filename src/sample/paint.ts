/**
 * Paints a scene as a scanner at 20× would see it.
 *
 * Stains absorb: a pixel's optical density is the sum of three dyes' vectors (Ruifrok & Johnston
 * 2001, table 1: haematoxylin, eosin, and the brown third one, here what tissue and blood absorb
 * unstained), its light 10^−density (Beer–Lambert); then the optics blur and the sensor adds noise.
 */

import { Random, texture, TEXTURE_MASK, TEXTURE_SIZE, TEXTURE_UNIT } from "./noise.ts";
import { type Disc, LATTICE_PX, type Nucleus, type Scene } from "./scene.ts";

const HAEMATOXYLIN = [0.650, 0.704, 0.286] as const;
const EOSIN = [0.072, 0.990, 0.105] as const;
const BROWN = [0.268, 0.570, 0.776] as const;

/** Light through bare glass, red, green, blue of 255. */
const GLASS = [243, 243, 244] as const;
/** Deviation of the sensor's noise, of 255. */
const NOISE = 1.3;
/** Noise is at most this, either way; the brightest light and twice this fit into a byte. */
const NOISE_BIAS = 5;

/** Steps of the tables of light to one of density; the densest that they hold is 4. */
const DENSITY_STEPS = 512;
/** For red, green, blue: light of 255 through a density. Never below `NOISE_BIAS`, so that no noise takes it below 0. */
const LIGHT = GLASS.map((glass) =>
  Uint8Array.from(
    { length: 4 * DENSITY_STEPS },
    (_, k) => Math.max(NOISE_BIAS, Math.round(glass * 10 ** -(k / DENSITY_STEPS))),
  )
) as [Uint8Array, Uint8Array, Uint8Array];

/** The blur reaches this far. */
const HALO_PX = 1;

/** 0 below −half a unit, 1 above half a unit, straight between. */
function ramp(t: number): number {
  return t <= -0.5 ? 0 : t >= 0.5 ? 1 : t + 0.5;
}

/** Paints rows of one scene; holds buffers for `rowsAtOnce` of them. */
export class Painter {
  readonly #scene: Scene;
  readonly #rowsAtOnce: number;
  /** Dyes of the rows at hand and the halo: `[rowsAtOnce + 2 * HALO_PX, widthPx]`. */
  readonly #haematoxylin: Float32Array;
  readonly #eosin: Float32Array;
  readonly #brown: Float32Array;
  /** Noise of several grains; `fibre` and `bundle` are long along their x. */
  readonly #white: Uint32Array;
  readonly #fine: Int8Array;
  readonly #medium: Int8Array;
  readonly #fibre: Int8Array;
  readonly #bundle: Int8Array;

  constructor(scene: Scene, seed: number, rowsAtOnce: number) {
    this.#scene = scene;
    this.#rowsAtOnce = rowsAtOnce;
    const size = (rowsAtOnce + 2 * HALO_PX) * scene.widthPx;
    this.#haematoxylin = new Float32Array(size);
    this.#eosin = new Float32Array(size);
    this.#brown = new Float32Array(size);
    const random = new Random(seed ^ 0x5eed);
    this.#white = packedNoise(random);
    this.#fine = texture(random, 1, 1);
    this.#medium = texture(random, 3, 3);
    this.#fibre = texture(random, 14, 1);
    this.#bundle = texture(random, 22, 4);
  }

  /**
   * Paints `rows` rows from `topPx` into `into`, RGB `[rows, widthPx, 3]`.
   * @throws {RangeError} for more rows than the painter was made for.
   */
  paint(topPx: number, rows: number, into: Uint8ClampedArray): void {
    if (rows > this.#rowsAtOnce) {
      throw new RangeError(`Cannot paint ${rows} rows at once: the limit is ${this.#rowsAtOnce}`);
    }
    const first = topPx - HALO_PX;
    const last = topPx + rows + HALO_PX;
    for (let y = first; y < last; y++) this.#paintGround(y, (y - first) * this.#scene.widthPx);
    const { redCells, fat, nuclei, dust } = this.#scene;
    for (const cell of redCells) this.#paintRedCell(cell, first, last);
    for (let k = 0; k < fat.cells.length; k++) this.#paintFatCell(k, first, last);
    for (const nucleus of nuclei) this.#paintNucleus(nucleus, first, last);
    for (const speck of dust) this.#paintDust(speck, first, last);
    this.#expose(topPx, rows, into);
  }

  /** One row of all that is smooth: stroma, epithelium, lumens, glass. */
  #paintGround(y: number, at: number): void {
    const { widthPx, fields } = this.#scene;
    const { columns } = fields;
    const v = Math.min(Math.max(y / LATTICE_PX, 0), fields.rows - 1.001);
    const j = Math.floor(v);
    const t = v - j;
    const upper = j * columns;
    const lower = upper + columns;
    const [haematoxylin, eosin, brown] = [this.#haematoxylin, this.#eosin, this.#brown];
    const [fine, medium, fibre, bundle] = [this.#fine, this.#medium, this.#fibre, this.#bundle];
    const textureRow = (y & TEXTURE_MASK) * TEXTURE_SIZE;
    const mix = (field: Float32Array, i: number) =>
      field[upper + i]! + (field[lower + i]! - field[upper + i]!) * t;

    let tissue1 = mix(fields.tissue, 0);
    for (let x0 = 0, i = 0; x0 < widthPx; x0 += LATTICE_PX, i++) {
      const cell = Math.min(LATTICE_PX, widthPx - x0);
      const tissue0 = tissue1;
      tissue1 = mix(fields.tissue, i + 1);
      if (tissue0 < -14 && tissue1 < -14) {
        haematoxylin.fill(0, at + x0, at + x0 + cell);
        eosin.fill(0, at + x0, at + x0 + cell);
        brown.fill(0, at + x0, at + x0 + cell);
        continue;
      }
      const epithelium0 = mix(fields.epithelium, i);
      const epithelium1 = mix(fields.epithelium, i + 1);
      const lumen0 = mix(fields.lumen, i);
      const lumen1 = mix(fields.lumen, i + 1);
      const across0 = mix(fields.across, i);
      const across1 = mix(fields.across, i + 1);
      const along0 = mix(fields.along, i);
      const along1 = mix(fields.along, i + 1);
      const thickness = mix(fields.thickness, i);
      const cellular = mix(fields.cellularity, i);
      for (let k = 0; k < cell; k++) {
        const x = x0 + k;
        const s = k / LATTICE_PX;
        const grain = fine[textureRow + (x & TEXTURE_MASK)]! / TEXTURE_UNIT;
        const blotch = medium[textureRow + (x & TEXTURE_MASK)]! / TEXTURE_UNIT;
        const tissue = tissue0 + (tissue1 - tissue0) * s;
        const inTissue = ramp((tissue + 2 * blotch) * 0.4);
        if (inTissue === 0) {
          haematoxylin[at + x] = 0;
          eosin[at + x] = 0;
          brown[at + x] = 0;
          continue;
        }
        const epithelium = epithelium0 + (epithelium1 - epithelium0) * s;
        const inEpithelium = ramp((epithelium + 1.2 * blotch) * 0.45);
        let h = 0;
        let e = 0;
        if (inEpithelium < 1) {
          const across = across0 + (across1 - across0) * s;
          const along = along0 + (along1 - along0) * s;
          const thread = fibre[(across & TEXTURE_MASK) * TEXTURE_SIZE + (along & TEXTURE_MASK)]! /
            TEXTURE_UNIT;
          const strand = bundle[
            ((across * 0.6) & TEXTURE_MASK) * TEXTURE_SIZE + ((along * 0.6) & TEXTURE_MASK)
          ]! / TEXTURE_UNIT;
          // Clefts open between bundles, and the section frays along them.
          const edge = tissue < 20 ? (20 - tissue) * 0.05 : 0;
          const cleft = ramp((strand + 0.3 * thread + 1.1 * edge - 1.2 * cellular - 1.5) * 2);
          const collagen = Math.max(0.06, 0.18 - 0.05 * strand + 0.035 * thread + 0.016 * grain);
          const between = 0.1 + 0.02 * blotch + 0.025 * thread;
          e = (collagen + (between - collagen) * cellular) * (1 - 0.94 * cleft) * (1 + 0.3 * edge);
          h = Math.max(0, 0.04 + (0.09 + 0.03 * blotch + 0.02 * grain) * cellular) * (1 - cleft);
        }
        if (inEpithelium > 0) {
          const lumen = lumen0 + (lumen1 - lumen0) * s;
          const solid = 1 - 0.96 * ramp((lumen + 2 * blotch) * 0.4);
          // Towards the lumen the cytoplasm is paler, its border darker.
          const apical = Math.max(0, 1 + Math.min(0, lumen) / 16);
          const border = lumen > -4 ? 0.08 : 0;
          const eIn = (0.13 + 0.022 * grain + 0.02 * blotch - 0.03 * apical + border) * solid;
          const hIn = (0.17 + 0.025 * grain + 0.03 * blotch - 0.09 * apical) * solid;
          e += (Math.max(0, eIn) - e) * inEpithelium;
          h += (Math.max(0, hIn) - h) * inEpithelium;
        }
        const much = inTissue * thickness;
        haematoxylin[at + x] = h * much;
        eosin[at + x] = e * much;
        brown[at + x] = (0.85 * e + 0.25 * h) * much;
      }
    }
  }

  /** The pixels of rows `first` to `last` that lie within `farPx` of a point. */
  #near(x0Px: number, y0Px: number, farPx: number, first: number, last: number) {
    return {
      left: Math.max(0, Math.floor(x0Px - farPx)),
      right: Math.min(this.#scene.widthPx, Math.ceil(x0Px + farPx)),
      top: Math.max(first, Math.floor(y0Px - farPx)),
      bottom: Math.min(last, Math.ceil(y0Px + farPx)),
    };
  }

  #paintRedCell(cell: Disc, first: number, last: number): void {
    const { x0Px, y0Px, radiusPx } = cell;
    const { left, right, top, bottom } = this.#near(x0Px, y0Px, radiusPx + 2, first, last);
    const [haematoxylin, eosin, brown] = [this.#haematoxylin, this.#eosin, this.#brown];
    for (let y = top; y < bottom; y++) {
      let at = (y - first) * this.#scene.widthPx + left;
      for (let x = left; x < right; x++, at++) {
        const d = Math.sqrt((x + 0.5 - x0Px) ** 2 + (y + 0.5 - y0Px) ** 2);
        const cover = ramp((radiusPx - d) * 0.7);
        if (cover === 0) continue;
        // Biconcave: thinner in the middle.
        const thick = 0.75 + 0.25 * Math.min(1, d / (radiusPx * 0.6));
        haematoxylin[at]! *= 1 - cover;
        eosin[at]! += (0.38 * thick - eosin[at]!) * cover;
        brown[at]! += (0.42 * thick - brown[at]!) * cover;
      }
    }
  }

  #paintFatCell(cell: number, first: number, last: number): void {
    const { fat } = this.#scene;
    const { x0Px, y0Px, radiusPx } = fat.cells[cell]!;
    const { left, right, top, bottom } = this.#near(x0Px, y0Px, radiusPx, first, last);
    for (let y = top; y < bottom; y++) {
      let at = (y - first) * this.#scene.widthPx + left;
      for (let x = left; x < right; x++, at++) {
        const keep = 1 - ramp(fat.depth(cell, x + 0.5, y + 0.5) * 0.6);
        this.#haematoxylin[at]! *= keep;
        this.#eosin[at]! *= keep;
        this.#brown[at]! *= keep;
      }
    }
  }

  #paintNucleus(nucleus: Nucleus, first: number, last: number): void {
    const { x0Px, y0Px, radiusXPx, radiusYPx, density, vesicular, grain } = nucleus;
    const far = Math.max(radiusXPx, radiusYPx) * 1.25 + 1;
    const { left, right, top, bottom } = this.#near(x0Px, y0Px, far, first, last);
    const [haematoxylin, eosin, brown] = [this.#haematoxylin, this.#eosin, this.#brown];
    const [fine, medium] = [this.#fine, this.#medium];
    const cos = Math.cos(nucleus.angle);
    const sin = Math.sin(nucleus.angle);
    const edge = Math.min(radiusXPx, radiusYPx) / 1.3;
    const wrap = TEXTURE_SIZE * TEXTURE_SIZE - 1;
    // A nucleolus, off the centre, where the chromatin is open.
    const [nucleolusX, nucleolusY] = [((grain & 7) - 3.5) / 9, ((grain >> 3 & 7) - 3.5) / 9];
    for (let y = top; y < bottom; y++) {
      const dy = y + 0.5 - y0Px;
      let at = (y - first) * this.#scene.widthPx + left;
      for (let x = left; x < right; x++, at++) {
        const dx = x + 0.5 - x0Px;
        const u = (dx * cos + dy * sin) / radiusXPx;
        const v = (dy * cos - dx * sin) / radiusYPx;
        const place = (grain + y * TEXTURE_SIZE + x) & wrap;
        const d = Math.sqrt(u * u + v * v) + 0.07 / TEXTURE_UNIT * medium[place]!;
        const cover = ramp((1 - d) * edge);
        if (cover === 0) continue;
        const rim = Math.max(0, 1 - Math.abs(d - 0.82) * 5);
        let chromatin = 1 + 0.16 / TEXTURE_UNIT * fine[place]! + vesicular * (0.22 * rim - 0.14);
        if (vesicular > 0.4) {
          const spot = Math.sqrt((u - nucleolusX) ** 2 + (v - nucleolusY) ** 2);
          chromatin += 0.45 * Math.max(0, 1 - spot * 4);
        }
        const h = Math.max(0.15, density * chromatin);
        // Where two overlap the denser is seen.
        haematoxylin[at]! += Math.max(0, h - haematoxylin[at]!) * cover;
        eosin[at]! += (0.07 - eosin[at]!) * cover * 0.8;
        brown[at]! += (0.3 * h - brown[at]!) * cover;
      }
    }
  }

  #paintDust(speck: Disc, first: number, last: number): void {
    const { x0Px, y0Px, radiusPx } = speck;
    const { left, right, top, bottom } = this.#near(x0Px, y0Px, radiusPx + 3, first, last);
    for (let y = top; y < bottom; y++) {
      let at = (y - first) * this.#scene.widthPx + left;
      for (let x = left; x < right; x++, at++) {
        // On top of the cover glass, out of focus.
        const d = Math.sqrt((x + 0.5 - x0Px) ** 2 + (y + 0.5 - y0Px) ** 2);
        const cover = ramp((radiusPx - d) * 0.3);
        this.#haematoxylin[at]! += 0.25 * cover;
        this.#brown[at]! += 0.55 * cover;
      }
    }
  }

  /** Dyes to light, light through the optics, onto the sensor. */
  #expose(topPx: number, rows: number, into: Uint8ClampedArray): void {
    const { widthPx } = this.#scene;
    const sharp = new Uint32Array(widthPx);
    // The three rows that the blur needs, blurred along x.
    let above = new Uint32Array(widthPx);
    let here = new Uint32Array(widthPx);
    let below = new Uint32Array(widthPx);
    for (let row = 0; row < rows + 2 * HALO_PX; row++) {
      const [from, to] = [row * widthPx, (row + 1) * widthPx];
      shine(
        this.#haematoxylin.subarray(from, to),
        this.#eosin.subarray(from, to),
        this.#brown.subarray(from, to),
        sharp,
      );
      [above, here, below] = [here, below, above];
      blurAlong(sharp, below);
      if (row < 2 * HALO_PX) continue;
      const y = row - 2 * HALO_PX;
      // Another place of the noise for each row, so that it does not repeat downwards.
      const start = Math.imul(topPx + y + 1, 0x9e3779b1) >>> 8;
      const out = into.subarray(y * widthPx * 3, (y + 1) * widthPx * 3);
      sense(above, here, below, this.#white, start, out);
    }
  }
}

// Light is packed, red | green << 8 | blue << 16, which takes a third of the time of three numbers.

/** Light that passes through a row of dyes. */
function shine(
  haematoxylin: Float32Array,
  eosin: Float32Array,
  brown: Float32Array,
  light: Uint32Array,
): void {
  const [red, green, blue] = LIGHT;
  const last = red.length - 1;
  const [hr, hg, hb] = HAEMATOXYLIN;
  const [er, eg, eb] = EOSIN;
  const [br, bg, bb] = BROWN;
  for (let x = 0; x < light.length; x++) {
    const h = haematoxylin[x]! * DENSITY_STEPS;
    const e = eosin[x]! * DENSITY_STEPS;
    const b = brown[x]! * DENSITY_STEPS;
    light[x] = red[Math.min(last, h * hr + e * er + b * br) | 0]! |
      green[Math.min(last, h * hg + e * eg + b * bg) | 0]! << 8 |
      blue[Math.min(last, h * hb + e * eb + b * bb) | 0]! << 16;
  }
}

/** Weighs three packed pixels 1 2 1, channel by channel, rounding to nearest. */
function blend(a: number, b: number, c: number): number {
  const redBlue = (a & 0xff00ff) + 2 * (b & 0xff00ff) + (c & 0xff00ff) + 0x020002;
  const green = (a & 0xff00) + 2 * (b & 0xff00) + (c & 0xff00) + 0x0200;
  return (redBlue >> 2) & 0xff00ff | (green >> 2) & 0xff00;
}

/** Blurs a row along x. */
function blurAlong(from: Uint32Array, to: Uint32Array): void {
  const last = from.length - 1;
  for (let x = 1; x < last; x++) to[x] = blend(from[x - 1]!, from[x]!, from[x + 1]!);
  to[0] = from[0]!;
  to[last] = from[last]!;
}

/** Blurs along y, adds noise from `white` on, and unpacks to RGB `[n, 3]`. */
function sense(
  above: Uint32Array,
  here: Uint32Array,
  below: Uint32Array,
  white: Uint32Array,
  start: number,
  into: Uint8ClampedArray,
): void {
  const wrap = white.length - 1;
  for (let x = 0, o = 0; x < here.length; x++, o += 3) {
    const pixel = blend(above[x]!, here[x]!, below[x]!) + white[(start + x) & wrap]!;
    into[o] = (pixel & 0xff) - NOISE_BIAS;
    into[o + 1] = (pixel >> 8 & 0xff) - NOISE_BIAS;
    into[o + 2] = (pixel >> 16 & 0xff) - NOISE_BIAS;
  }
}

/** Noise of packed pixels, `NOISE_BIAS` being none; a power of two of them. */
function packedNoise(random: Random): Uint32Array {
  const value = () =>
    Math.max(0, Math.min(2 * NOISE_BIAS, Math.round(random.bell() * NOISE + NOISE_BIAS)));
  return Uint32Array.from({ length: 1 << 15 }, () => value() | value() << 8 | value() << 16);
}
