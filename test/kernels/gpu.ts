/** One device for a test file. Any adapter will do; where there is none the tests say so and fail. */

import { Gpu } from "../../kernels/device.ts";

let opened: Promise<Gpu | undefined> | undefined;

/** The device that all tests of a process share. */
export async function sharedGpu(): Promise<Gpu> {
  const gpu = await (opened ??= Gpu.open({ adapter: Deno.env.get("ADAPTER") }));
  if (gpu === undefined) throw new Error("There is no adapter: run `deno task setup`");
  return gpu;
}

/**
 * Largest of |actual − expected| / bound, over all elements: at most 1 passes.
 * `magnitudes` are Σ|terms| of each sum; an f32 sum of `terms` products is off by at most
 * terms · 2⁻²⁴ · Σ|terms| (Higham, Accuracy and Stability of Numerical Algorithms, §3.1), and WGSL
 * allows each operation to be as exact as IEEE's at best, so the bound is taken twice.
 */
export function worstError(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  magnitudes: ArrayLike<number>,
  terms: number,
): number {
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const bound = 2 * (terms + 1) * 2 ** -24 * magnitudes[i]! + 1e-30;
    const error = Math.abs(actual[i]! - expected[i]!) / bound;
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  return worst;
}
