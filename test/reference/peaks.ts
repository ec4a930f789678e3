/** The plain twins of kernels/peaks.wgsl and of the kernels that suppress. */

/**
 * found = every pixel of the core of one image [height, width, channels] that is at least threshold
 * and beats its neighbourhood; no fraction. Of one channel where it is given, else of all together.
 */
export function peaks(
  scores: ArrayLike<number>,
  [height, width]: readonly [number, number],
  core: { x: number; y: number; width: number; height: number },
  threshold: number,
  radius: number,
  channels = 4,
  channel?: number,
): { x: number; y: number; score: number; channel: number }[] {
  const found = [];
  const of = Array.from({ length: channels }, (_, c) => c).filter((c) => c === (channel ?? c));
  const at = (x: number, y: number) =>
    channels * (Math.min(Math.max(y, 0), height - 1) * width + Math.min(Math.max(x, 0), width - 1));
  const best = (x: number, y: number) => Math.max(...of.map((c) => scores[at(x, y) + c]!));
  for (let y = core.y; y < core.y + core.height; y++) {
    for (let x = core.x; x < core.x + core.width; x++) {
      const here = best(x, y);
      if (here < threshold) continue;
      let beaten = false;
      for (let dy = -radius; dy <= radius; dy++) {
        for (let dx = -radius; dx <= radius; dx++) {
          const there = best(x + dx, y + dy);
          beaten ||= there > here || (there === here && (dy < 0 || (dy === 0 && dx < 0)));
        }
      }
      if (beaten) continue;
      found.push({ x, y, score: here, channel: of.find((c) => scores[at(x, y) + c] === here)! });
    }
  }
  return found;
}

/** 1 where no better kept one covers i: one after the other, best first. */
export function suppress(
  count: number,
  compare: (i: number, j: number) => number,
  covers: (kept: number, i: number) => boolean,
): number[] {
  const kept: number[] = [];
  const order = Array.from({ length: count }, (_, i) => i).sort(compare);
  for (const i of order) if (!kept.some((j) => covers(j, i))) kept.push(i);
  return Array.from({ length: count }, (_, i) => kept.includes(i) ? 1 : 0);
}
