/** Seeded random numbers, so that a failing case can be run again. */

/** Uniform numbers in [0, 1): mulberry32, by Tommy Ettinger (public domain). */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` floats, uniform in [−1, 1). */
export function floats(count: number, seed: number): Float32Array<ArrayBuffer> {
  const next = uniform(seed);
  return Float32Array.from({ length: count }, () => 2 * next() - 1);
}

/** `count` bytes. */
export function bytes(count: number, seed: number): Uint8Array<ArrayBuffer> {
  const next = uniform(seed);
  return Uint8Array.from({ length: count }, () => Math.floor(256 * next()));
}
