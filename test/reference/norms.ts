/** Layer, RMS, group and local response normalisation in f64. */

/** What an f32 result may be off by, beside it. */
export interface Normed {
  readonly data: Float64Array;
  /**
   * Off by the roundings of two sums of n terms in f32, each at most n · 2⁻²⁴ of Σ|terms| (Higham,
   * Accuracy and Stability of Numerical Algorithms, §3.1): the mean moves every element, the variance
   * scales it by half its relative error; inverseSqrt has 2 ulp and the rest a rounding each. Twice.
   */
  readonly bound: Float64Array;
}

/** Deviations of `values` from their mean (0 with `rms`) over √(variance + epsilon). */
function standardise(values: readonly number[], epsilon: number, rms: boolean) {
  const n = values.length;
  const mean = rms ? 0 : values.reduce((a, b) => a + b, 0) / n;
  const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / n;
  const inverse = 1 / Math.sqrt(variance + epsilon);
  const unit = (n + 4) * 2 ** -24;
  const meanError = rms ? 0 : unit * values.reduce((sum, v) => sum + Math.abs(v), 0) / n;
  const varianceError = 2 * unit + meanError ** 2 * inverse ** 2;
  const bound = (v: number, scale: number, bias: number) =>
    2 * (Math.abs(scale) * inverse *
        (meanError + Math.abs(v - mean) * (varianceError / 2 + 8 * 2 ** -24)) +
      2 ** -23 * Math.abs(bias));
  return { mean, inverse, bound };
}

/** Rows of `row` elements, of which `channels` count. */
export function layerNorm(
  input: ArrayLike<number>,
  row: number,
  scale: ArrayLike<number>,
  bias: ArrayLike<number> | undefined,
  { epsilon, channels, rms }: { epsilon: number; channels: number; rms: boolean },
): Normed & { means: number[]; inverses: number[] } {
  const data = new Float64Array(input.length), bounds = new Float64Array(input.length);
  const means: number[] = [], inverses: number[] = [];
  for (let from = 0; from < input.length; from += row) {
    const values = Array.from({ length: channels }, (_, i) => input[from + i]!);
    const { mean, inverse, bound } = standardise(values, epsilon, rms);
    for (const [i, v] of values.entries()) {
      data[from + i] = (v - mean) * inverse * scale[i]! + (bias?.[i] ?? 0);
      bounds[from + i] = bound(v, scale[i]!, bias?.[i] ?? 0);
    }
    means.push(mean);
    inverses.push(inverse);
  }
  return { data, bound: bounds, means, inverses };
}

/** Groups of channels of images [N, P, C] over all pixels, `channels` of which are no padding. */
export function groupNorm(
  input: ArrayLike<number>,
  [images, pixels, C]: readonly [number, number, number],
  scale: ArrayLike<number>,
  bias: ArrayLike<number>,
  { groups, channels, epsilon }: { groups: number; channels: number; epsilon: number },
): Normed {
  const data = new Float64Array(input.length), bounds = new Float64Array(input.length);
  const ofGroup = channels / groups;
  for (let n = 0; n < images; n++) {
    for (let g = 0; g < groups; g++) {
      const places: number[] = [];
      for (let p = 0; p < pixels; p++) {
        for (let c = g * ofGroup; c < (g + 1) * ofGroup; c++) {
          places.push((n * pixels + p) * C + c);
        }
      }
      const { mean, inverse, bound } = standardise(places.map((at) => input[at]!), epsilon, false);
      for (const at of places) {
        const c = at % C;
        data[at] = (input[at]! - mean) * inverse * scale[c]! + bias[c]!;
        bounds[at] = bound(input[at]!, scale[c]!, bias[c]!);
      }
    }
  }
  return { data, bound: bounds };
}

/** ONNX LRN-13 over rows of `row` channels, `channels` of which are no padding. */
export function localResponseNorm(
  input: ArrayLike<number>,
  row: number,
  channels: number,
  { size, alpha, beta, bias }: { size: number; alpha: number; beta: number; bias: number },
): Float64Array {
  return Float64Array.from({ length: input.length }, (_, at) => {
    const c = at % row;
    if (c >= channels) return 0;
    let squares = 0;
    for (let j = 0; j < channels; j++) {
      if (j < c - Math.floor((size - 1) / 2) || j > c + Math.ceil((size - 1) / 2)) continue;
      squares += input[at - c + j]! ** 2;
    }
    return input[at]! / (bias + alpha / size * squares) ** beta;
  });
}
