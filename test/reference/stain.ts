/**
 * Macenko's method as its public implementations spell it, in f64 and pixel by pixel: the plain twin
 * of kernels/stain.ts and of what normalise.wgsl does with it.
 */

/** −ln((v + 1) / 240) of each pixel, [count][3]. */
function densities(rgb: ArrayLike<number>): number[][] {
  return Array.from(
    { length: rgb.length / 3 },
    (_, i) => [0, 1, 2].map((c) => -Math.log((rgb[3 * i + c]! + 1) / 240)),
  );
}

/** numpy's `percentile`: linear between neighbours of the sorted values. */
function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const rank = (sorted.length - 1) * percent / 100;
  const low = Math.floor(rank), high = Math.min(low + 1, sorted.length - 1);
  return sorted[low]! + (rank - low) * (sorted[high]! - sorted[low]!);
}

const dot = (a: readonly number[], b: readonly number[]) =>
  a.reduce((sum, v, i) => sum + v * b[i]!, 0);

/** The axis that many multiplications by a symmetric matrix turn to, and its variance. */
function dominant(matrix: readonly (readonly number[])[]): { axis: number[]; variance: number } {
  let axis = [0.3, 0.5, 0.8], variance = 0;
  for (let i = 0; i < 5000; i++) {
    const next = matrix.map((row) => dot(row, axis));
    variance = Math.hypot(...next);
    axis = next.map((v) => v / variance);
  }
  return { axis, variance };
}

/** Unit vectors of haematoxylin and eosin, and the 99th percentiles of their concentrations. */
export function macenko(
  rgb: ArrayLike<number>,
): { stains: [number[], number[]]; concentrations: [number, number] } {
  const tissue = densities(rgb).filter((density) => density.every((d) => d >= 0.15));
  const mean = [0, 1, 2].map((c) => tissue.reduce((sum, d) => sum + d[c]!, 0) / tissue.length);
  const covariance = [0, 1, 2].map((r) =>
    [0, 1, 2].map((c) =>
      tissue.reduce((sum, d) => sum + (d[r]! - mean[r]!) * (d[c]! - mean[c]!), 0) /
      (tissue.length - 1)
    )
  );
  const first = dominant(covariance);
  // What is left without the first axis has the second one as its largest.
  const second = dominant(
    covariance.map((row, r) =>
      row.map((v, c) => v - first.variance * first.axis[r]! * first.axis[c]!)
    ),
  );
  const along = dot(first.axis, [1, 1, 1]) < 0 ? first.axis.map((v) => -v) : first.axis;
  const angles = tissue.map((d) => Math.atan2(dot(d, second.axis), dot(d, along)));
  const stain = (angle: number) =>
    along.map((v, c) => v * Math.cos(angle) + second.axis[c]! * Math.sin(angle));
  const ends = [stain(percentile(angles, 1)), stain(percentile(angles, 99))];
  const stains = (ends[0]![0]! > ends[1]![0]! ? ends : ends.reverse()) as [number[], number[]];
  const amounts = tissue.map((density) => concentrationsOf(density, stains));
  return {
    stains,
    concentrations: [0, 1].map((s) => percentile(amounts.map((a) => a[s]!), 99)) as [
      number,
      number,
    ],
  };
}

/** Least squares by the normal equations: (SᵀS)⁻¹ Sᵀ density. */
function concentrationsOf(
  density: readonly number[],
  [a, b]: readonly [readonly number[], readonly number[]],
): [number, number] {
  const [aa, ab, bb] = [dot(a, a), dot(a, b), dot(b, b)];
  const [da, db] = [dot(density, a), dot(density, b)];
  const determinant = aa * bb - ab * ab;
  return [(bb * da - ab * db) / determinant, (aa * db - ab * da) / determinant];
}

type Stains = {
  stains: readonly [readonly number[], readonly number[]];
  concentrations: readonly [number, number];
};

/** 240 · exp(−target · (concentrations · theirs / ours)), at most 255, not rounded. */
export function macenkoNormalise(
  rgb: ArrayLike<number>,
  source: Stains,
  target: Stains,
): Float64Array {
  return Float64Array.from(
    densities(rgb).flatMap((density) => {
      const amounts = concentrationsOf(density, source.stains).map((amount, s) =>
        amount * target.concentrations[s]! / source.concentrations[s]!
      );
      return [0, 1, 2].map((c) =>
        Math.min(
          255,
          240 *
            Math.exp(-(amounts[0]! * target.stains[0][c]! + amounts[1]! * target.stains[1][c]!)),
        )
      );
    }),
  );
}
