/** Attention in f64, as the formula has it, with what an f32 result may be off by. */

export interface AttentionSizes {
  readonly batch: number;
  readonly heads: number;
  readonly keyHeads: number;
  readonly queries: number;
  readonly keys: number;
  readonly headSize: number;
}

/**
 * softmax(scale · q·kᵀ + mask) · v of tensors [B, heads, T, D]; `mask(b, h, t, u)` is −∞ where a key
 * is not seen.
 *
 * The bound: a score is a sum of D products, off by (D + 2) · 2⁻²⁴ of Σ|terms| (Higham §3.1) and 2 ulp
 * of itself for scale and mask; p = exp(s − max), two roundings of the difference and 3 + 2·|s − max|
 * ulp of exp (WGSL §15.7.4.1), is off by so much relatively, once more for every 32 keys with which
 * it is scaled down again; the sums of p and p·v have a term for each key. All of it twice.
 */
export function attention(
  query: ArrayLike<number>,
  key: ArrayLike<number>,
  value: ArrayLike<number>,
  { batch, heads, keyHeads, queries, keys, headSize }: AttentionSizes,
  scale: number,
  mask: (b: number, h: number, t: number, u: number) => number,
): { data: Float64Array; bound: Float64Array } {
  const data = new Float64Array(batch * heads * queries * headSize);
  const bound = new Float64Array(data.length);
  const unit = 2 ** -24;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const keyHead = b * keyHeads + Math.floor(h / (heads / keyHeads));
      for (let t = 0; t < queries; t++) {
        const row = ((b * heads + h) * queries + t) * headSize;
        const scores: number[] = [], errors: number[] = [];
        for (let u = 0; u < keys; u++) {
          let dot = 0, magnitude = 0;
          for (let d = 0; d < headSize; d++) {
            const product = query[row + d]! * key[(keyHead * keys + u) * headSize + d]!;
            dot += product;
            magnitude += Math.abs(product);
          }
          const added = mask(b, h, t, u);
          scores.push(scale * dot + added);
          const size = added === -Infinity ? 0 : Math.abs(scale * dot) + Math.abs(added);
          errors.push((headSize + 2) * unit * Math.abs(scale) * magnitude + 4 * unit * size);
        }
        const largest = Math.max(...scores);
        const largestError = Math.max(0, ...errors);
        let weight = 0, weightError = 0;
        const sums = new Float64Array(headSize), sumErrors = new Float64Array(headSize);
        for (let u = 0; u < keys; u++) {
          const below = largest - scores[u]!;
          if (!(below < Infinity)) continue;
          const p = Math.exp(-below);
          const relative = errors[u]! + largestError + 2 * (5 + 2 * below) * unit *
              Math.ceil(keys / 32) +
            (keys + 4) * unit;
          weight += p;
          weightError += p * relative;
          for (let d = 0; d < headSize; d++) {
            const v = value[(keyHead * keys + u) * headSize + d]!;
            sums[d]! += p * v;
            sumErrors[d]! += p * Math.abs(v) * relative;
          }
        }
        for (let d = 0; d < headSize && weight > 0; d++) {
          data[row + d] = sums[d]! / weight;
          bound[row + d] = 2 *
            (sumErrors[d]! + Math.abs(sums[d]! / weight) * (weightError + 4 * unit)) / weight;
        }
      }
    }
  }
  return { data, bound };
}
