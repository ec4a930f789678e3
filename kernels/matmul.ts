/** Matrix product in f32: `product = a · b`. BLAS's SGEMM without transposition, alpha 1, beta 0. */

import code from "./matmul.wgsl" with { type: "text" };
import codeSubgroup8 from "./matmul_subgroup8.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type KernelLiteral, type Pipeline, type Recorder } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

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

/** Which of the kernels. */
export type MatmulVariant = "registers" | "subgroup8";

/** A kernel that was compiled, with the rows and columns that one of its workgroups computes. */
export interface CompiledMatmul {
  readonly pipeline: Pipeline<
    KernelLiteral & { params: typeof params; bindings: typeof bindings }
  >;
  readonly rows: number;
  readonly columns: number;
}

/**
 * Compiles the variant that suits the adapter, or the one asked for.
 * @throws {KernelError} where the device fails or lacks what the variant needs.
 */
export async function compileMatmul(
  gpu: Gpu,
  variant: MatmulVariant = gpu.subgroupSize === 8 && gpu.adapter.isSoftware
    ? "subgroup8"
    : "registers",
): Promise<CompiledMatmul> {
  if (variant === "subgroup8") {
    return { pipeline: await matmulSubgroup8Kernel.compile(gpu), rows: 32, columns: 32 };
  }
  const { X, Y } = matmulKernel.literal.overrides;
  return { pipeline: await matmulKernel.compile(gpu), rows: 8 * Y, columns: 4 * X };
}

/**
 * Records `product = a · b`: a [M, K], b [K, N], product [M, N], all f32, K and N multiples of four.
 * @throws {RangeError} where the shapes do not fit together.
 */
export function recordMatmul(
  recorder: Recorder,
  compiled: CompiledMatmul,
  { a, b, product }: Record<"a" | "b" | "product", Tensor>,
): void {
  const [rows = 0, inner = 0] = a.shape;
  const [innerOfB = 0, columns = 0] = b.shape;
  if (
    a.shape.length !== 2 || b.shape.length !== 2 || inner !== innerOfB ||
    inner % 4 !== 0 || columns % 4 !== 0 || product.shape.join() !== `${rows},${columns}` ||
    [a, b, product].some(({ type }) => type !== "f32")
  ) {
    throw new RangeError(
      `Cannot multiply ${a.type} [${a.shape.join(", ")}] by ${b.type} [${b.shape.join(", ")}] ` +
        `into ${product.type} [${product.shape.join(", ")}]: ` +
        `[M, K] · [K, N] in f32 is needed, K and N multiples of four`,
    );
  }
  recorder.dispatch(compiled.pipeline, {
    params: { rows, inner4: inner / 4, columns4: columns / 4 },
    bindings: { a, b, product },
  }, [Math.ceil(columns / compiled.columns), Math.ceil(rows / compiled.rows)]);
}
