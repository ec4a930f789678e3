/** The kernels' plain twins: loops in f64, written as the formulas at the head of each WGSL file. */

/** What `matmul` may be given beside its matrices; each left out does nothing. */
export interface MatmulExtras {
  /** Matrices; default 1. */
  readonly batch?: number;
  /** One matrix of a or b serves the whole batch. */
  readonly oneA?: boolean;
  readonly oneB?: boolean;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly scale?: number;
  /** One for each column, or for each row. */
  readonly columnBias?: ArrayLike<number>;
  readonly rowBias?: ArrayLike<number>;
  /** Added before the activation, or after it. */
  readonly residualBefore?: ArrayLike<number>;
  readonly residualAfter?: ArrayLike<number>;
  readonly act?: (v: number) => number;
  /** What is stored is held within f16's range. */
  readonly saturate?: boolean;
}

/** product[z, m, n] = act(scale · Σ_k a[z, m, k] · b[z, k, n] + bias + residual[z, m, n]) */
export function matmul(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  [rows, inner, columns]: readonly [number, number, number],
  extras: MatmulExtras = {},
): Float64Array {
  const { batch = 1, scale = 1, act = (v) => v } = extras;
  const product = new Float64Array(batch * rows * columns);
  for (let z = 0, at = 0; z < batch; z++) {
    const a0 = extras.oneA ? 0 : z * rows * inner, b0 = extras.oneB ? 0 : z * inner * columns;
    for (let m = 0; m < rows; m++) {
      for (let n = 0; n < columns; n++, at++) {
        let sum = 0;
        for (let k = 0; k < inner; k++) {
          sum += a[a0 + (extras.transposeA ? k * rows + m : m * inner + k)]! *
            b[b0 + (extras.transposeB ? n * inner + k : k * columns + n)]!;
        }
        let v = scale * sum + (extras.columnBias?.[n] ?? 0) + (extras.rowBias?.[m] ?? 0);
        v = act(v + (extras.residualBefore?.[at] ?? 0)) + (extras.residualAfter?.[at] ?? 0);
        product[at] = extras.saturate ? Math.min(Math.max(v, -65504), 65504) : v;
      }
    }
  }
  return product;
}
