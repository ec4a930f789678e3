/** Matrix product in f32: `product = a · b`. BLAS's SGEMM without transposition, alpha 1, beta 0. */

import code from "./matmul.wgsl" with { type: "text" };
import codeSubgroup8 from "./matmul_subgroup8.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { Batch, defineKernel, type KernelLiteral, type Pipeline } from "./kernel.ts";
import { Tensor } from "./tensor.ts";

const params = { rows: "u32", inner4: "u32", columns4: "u32" } as const;
const bindings = {
  a: { type: "array<vec4<f32>>", access: "read" },
  b: { type: "array<vec4<f32>>", access: "read" },
  product: { type: "array<vec4<f32>>", access: "read_write" },
} as const;

/** Registers only; runs everywhere. */
export const matmulKernel = defineKernel({
  name: "matmul",
  code,
  params,
  bindings,
  overrides: { X: 8, Y: 8 },
});

/** For subgroups of eight lanes, which are AVX registers: lavapipe. */
export const matmulSubgroup8Kernel = defineKernel({
  name: "matmul_subgroup8",
  code: codeSubgroup8,
  params,
  bindings,
  overrides: {},
  features: ["subgroups"],
});

/** Which of the kernels: the adapter's own where `variant` is left out. */
export type MatmulVariant = "registers" | "subgroup8";

/**
 * Multiplies `a` [M, K] by `b` [K, N], both f32, K and N multiples of four; gives [M, N].
 * Submits at once; the result can be read or used right away.
 * @throws {RangeError} where the shapes do not fit together.
 * @throws {KernelError} where the device fails or lacks what `variant` needs.
 */
export async function matmul(
  gpu: Gpu,
  a: Tensor,
  b: Tensor,
  variant: MatmulVariant = gpu.subgroupSize === 8 && gpu.adapter.isSoftware
    ? "subgroup8"
    : "registers",
): Promise<Tensor> {
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
  const pipeline: Pipeline<KernelLiteral & { params: typeof params; bindings: typeof bindings }> =
    variant === "subgroup8"
      ? await matmulSubgroup8Kernel.compile(gpu)
      : await matmulKernel.compile(gpu);
  const product = new Tensor(gpu, "f32", [rows, columns], "product");
  const { X, Y } = matmulKernel.literal.overrides;
  // Columns and rows that a workgroup computes.
  const [width, height] = variant === "subgroup8" ? [32, 32] : [4 * X, 8 * Y];
  const batch = new Batch(gpu);
  batch.dispatch(pipeline, {
    params: { rows, inner4: inner / 4, columns4: columns / 4 },
    bindings: { a, b, product },
  }, [Math.ceil(columns / width), Math.ceil(rows / height)]);
  batch.submit();
  return product;
}
