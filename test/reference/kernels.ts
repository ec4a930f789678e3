/** The kernels' plain twins: loops in f64, written as the formulas at the head of each WGSL file. */

/** product[m, n] = Σ_k a[m, k] · b[k, n] */
export function matmul(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  [rows, inner, columns]: readonly [number, number, number],
): Float64Array {
  const product = new Float64Array(rows * columns);
  for (let m = 0; m < rows; m++) {
    for (let n = 0; n < columns; n++) {
      let sum = 0;
      for (let k = 0; k < inner; k++) sum += a[m * inner + k]! * b[k * columns + n]!;
      product[m * columns + n] = sum;
    }
  }
  return product;
}

/** found = every pixel of the core that is at least threshold and beats its neighbourhood; no fraction. */
export function peaks(
  scores: ArrayLike<number>,
  [height, width]: readonly [number, number],
  core: { x: number; y: number; width: number; height: number },
  threshold: number,
  radius: number,
): { x: number; y: number; score: number; channel: number }[] {
  const found = [];
  const best = (x: number, y: number) => {
    const at = 4 * (Math.min(Math.max(y, 0), height - 1) * width +
      Math.min(Math.max(x, 0), width - 1));
    return Math.max(scores[at]!, scores[at + 1]!, scores[at + 2]!, scores[at + 3]!);
  };
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
      const at = 4 * (y * width + x);
      const channel = [0, 1, 2, 3].find((c) => scores[at + c] === here)!;
      found.push({ x, y, score: here, channel });
    }
  }
  return found;
}
