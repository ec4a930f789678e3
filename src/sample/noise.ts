/** Seeded randomness of the sample slide: numbers, smooth noise over the plane, and textures. */

/** A stream of pseudo-random numbers; the same seed gives the same stream on every machine. */
export class Random {
  #state: number;

  /** @param seed any integer; only its lower 32 bits count. */
  constructor(seed: number) {
    this.#state = hash(seed | 0, 0x2545f491);
  }

  /** Uniform in [0, 1) (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** Uniform in [low, high). */
  between(low: number, high: number): number {
    return low + (high - low) * this.next();
  }

  /** Uniform whole number in [0, count). */
  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  /** Bell-shaped with mean 0 and deviation 1, never beyond ±3.5: the sum of four uniform numbers. */
  bell(): number {
    return (this.next() + this.next() + this.next() + this.next() - 2) * 1.7320508;
  }
}

function hash(x: number, y: number): number {
  let h = Math.imul(x, 0x27d4eb2d) ^ Math.imul(y, 0x165667b1);
  h = Math.imul(h ^ (h >>> 15), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/**
 * Smooth noise `[rows, columns]`, about −1 to 1, whose features are `featurePx` in size, at points
 * that lie `stepPx` apart. Value noise: random numbers that far apart, smoothly interpolated.
 */
export function noiseField(
  columns: number,
  rows: number,
  stepPx: number,
  featurePx: number,
  seed: number,
): Float32Array {
  const scale = stepPx / featurePx;
  const smooth = (t: number) => t * t * (3 - 2 * t);
  const cells = Math.floor((columns - 1) * scale) + 2;
  const line = new Float64Array(cells);
  const field = new Float32Array(columns * rows);
  const cell = Int32Array.from({ length: columns }, (_, i) => Math.floor(i * scale));
  const weight = Float64Array.from({ length: columns }, (_, i) => smooth(i * scale - cell[i]!));
  for (let j = 0; j < rows; j++) {
    const row = Math.floor(j * scale);
    const down = smooth(j * scale - row);
    for (let c = 0; c < cells; c++) {
      const upper = hash(hash(c, seed), row);
      const lower = hash(hash(c, seed), row + 1);
      line[c] = (upper + (lower - upper) * down) / 2147483648;
    }
    for (let i = 0, at = j * columns; i < columns; i++, at++) {
      const left = line[cell[i]!]!;
      field[at] = left + (line[cell[i]! + 1]! - left) * weight[i]!;
    }
  }
  return field;
}

/** Side of every texture; a power of two, so that coordinates wrap by `& TEXTURE_MASK`. */
export const TEXTURE_SIZE = 512;
export const TEXTURE_MASK = TEXTURE_SIZE - 1;

/** What 1 is in a texture. */
export const TEXTURE_UNIT = 32;

/**
 * A texture `[TEXTURE_SIZE, TEXTURE_SIZE]` that tiles the plane, mean 0 and deviation
 * `TEXTURE_UNIT`: white noise, blurred by about `blurX` and `blurY` texels. Bytes, so that several
 * fit into a cache.
 */
export function texture(random: Random, blurX: number, blurY: number): Int8Array {
  const size = TEXTURE_SIZE * TEXTURE_SIZE;
  let from = new Float32Array(size);
  let to = new Float32Array(size);
  for (let i = 0; i < size; i++) from[i] = random.next() - 0.5;
  // Two passes of a box make a triangle, close enough to a bell.
  for (let pass = 0; pass < 2 && blurX > 0; pass++) {
    boxAlongX(from, to, blurX);
    [from, to] = [to, from];
  }
  for (let pass = 0; pass < 2 && blurY > 0; pass++) {
    boxAlongY(from, to, blurY);
    [from, to] = [to, from];
  }
  let mean = 0;
  for (let i = 0; i < size; i++) mean += from[i]!;
  mean /= size;
  let variance = 0;
  for (let i = 0; i < size; i++) variance += (from[i]! - mean) * (from[i]! - mean);
  const scale = TEXTURE_UNIT / Math.sqrt(variance / size);
  const bytes = new Int8Array(size);
  for (let i = 0; i < size; i++) {
    bytes[i] = Math.max(-127, Math.min(127, Math.round((from[i]! - mean) * scale)));
  }
  return bytes;
}

/** Sums of the texels at most `radius` away along x. */
function boxAlongX(from: Float32Array, to: Float32Array, radius: number): void {
  for (let row = 0; row < from.length; row += TEXTURE_SIZE) {
    let sum = 0;
    for (let x = -radius; x <= radius; x++) sum += from[row + (x & TEXTURE_MASK)]!;
    for (let x = 0; x < TEXTURE_SIZE; x++) {
      to[row + x] = sum;
      sum += from[row + ((x + radius + 1) & TEXTURE_MASK)]! -
        from[row + ((x - radius) & TEXTURE_MASK)]!;
    }
  }
}

/** Sums of the texels at most `radius` away along y. */
function boxAlongY(from: Float32Array, to: Float32Array, radius: number): void {
  const sums = new Float64Array(TEXTURE_SIZE);
  for (let y = -radius; y <= radius; y++) {
    const row = (y & TEXTURE_MASK) * TEXTURE_SIZE;
    for (let x = 0; x < TEXTURE_SIZE; x++) sums[x]! += from[row + x]!;
  }
  for (let y = 0; y < TEXTURE_SIZE; y++) {
    const row = y * TEXTURE_SIZE;
    const enters = ((y + radius + 1) & TEXTURE_MASK) * TEXTURE_SIZE;
    const leaves = ((y - radius) & TEXTURE_MASK) * TEXTURE_SIZE;
    for (let x = 0; x < TEXTURE_SIZE; x++) {
      to[row + x] = sums[x]!;
      sums[x]! += from[enters + x]! - from[leaves + x]!;
    }
  }
}
