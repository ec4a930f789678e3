/** Matrix product in f32: `product = a · b`. BLAS's SGEMM without transposition, alpha 1, beta 0. */

import code from "./matmul.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { Batch, defineKernel } from "./kernel.ts";
import { Tensor } from "./tensor.ts";

export const matmulKernel = defineKernel({
  name: "matmul",
  code,
  params: { rows: "u32", inner4: "u32", columns4: "u32" },
  bindings: {
    a: { type: "array<vec4<f32>>", access: "read" },
    b: { type: "array<vec4<f32>>", access: "read" },
    product: { type: "array<vec4<f32>>", access: "read_write" },
  },
  overrides: { X: 8, Y: 8 },
});

/** Rows that one invocation computes: `ROWS` in the WGSL. */
const ROWS = 8;

/**
 * Multiplies `a` [M, K] by `b` [K, N], both f32, K and N multiples of four; gives [M, N].
 * Submits at once; the result can be read or used right away.
 * @throws {RangeError} where the shapes do not fit together.
 */
export async function matmul(gpu: Gpu, a: Tensor, b: Tensor): Promise<Tensor> {
  const [rows = 0, inner = 0] = a.shape;
  const [innerOfB = 0, columns = 0] = b.shape;
  if (
    a.shape.length !== 2 || b.shape.length !== 2 || inner !== innerOfB ||
    inner % 4 !== 0 || columns % 4 !== 0 || a.type !== "f32" || b.type !== "f32"
  ) {
    throw new RangeError(
      `Cannot multiply ${a.type} [${a.shape.join(", ")}] by ${b.type} [${b.shape.join(", ")}]: ` +
        `[M, K] · [K, N] in f32 is needed, K and N multiples of four`,
    );
  }
  const pipeline = await matmulKernel.compile(gpu);
  const product = new Tensor(gpu, "f32", [rows, columns], "product");
  const { X, Y } = matmulKernel.literal.overrides;
  const batch = new Batch(gpu);
  batch.dispatch(pipeline, {
    params: { rows, inner4: inner / 4, columns4: columns / 4 },
    bindings: { a, b, product },
  }, [Math.ceil(columns / 4 / X), Math.ceil(rows / (Y * ROWS))]);
  batch.submit();
  return product;
}
