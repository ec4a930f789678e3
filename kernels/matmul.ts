/**
 * Matrix product with what follows it: BLAS's GEMM and ONNX's MatMul-13 and Gemm-13, batched, in f32
 * or f16 with sums in f32. The choice among its WGSL files is `matmulVariant`'s.
 */

import code from "./matmul.wgsl" with { type: "text" };
import codeSubgroup8 from "./matmul_subgroup8.wgsl" with { type: "text" };
import codeTensor16 from "./matmul_tensor16.wgsl" with { type: "text" };
import codeTensor8 from "./matmul_tensor8.wgsl" with { type: "text" };
import codeTiled from "./matmul_tiled.wgsl" with { type: "text" };
import { type Activation, activationOf } from "./activation.ts";
import type { Gpu } from "./device.ts";
import {
  defineKernel,
  type KernelLiteral,
  type Pipeline,
  type Recorder,
  rowOfWorkgroups,
} from "./kernel.ts";
import { Tensor } from "./tensor.ts";
import { randomTensor, sizeClass, type Tuner } from "./tuner.ts";

const params = {
  rows: "u32",
  inner: "u32",
  columns: "u32",
  across: "u32",
  down: "u32",
  tiles: "u32",
  a_batch: "u32",
  b_batch: "u32",
  scale: "f32",
  constant_a: "f32",
  constant_b: "f32",
} as const;

const overrides = {
  TRANSPOSE_A: false,
  TRANSPOSE_B: false,
  BIAS: 0,
  RESIDUAL: 0,
  SATURATE: false,
} as const;
/** The activation's text comes after the others. */
const last = { ACTIVATION: 0 } as const;

const aliases = { Element: ["f32", "f16"] } as const;

const scalars = { type: "array<Element>", access: "read" } as const;
const vectors = { type: "array<vec4<Element>>", access: "read" } as const;
const vectorBindings = {
  a: vectors,
  b: vectors,
  bias: vectors,
  residual: vectors,
  product: { ...vectors, access: "read_write" },
} as const;

/** Element by element: any shape, any adapter. */
export const matmulKernel = defineKernel({
  name: "matmul",
  code,
  params,
  bindings: {
    a: scalars,
    b: scalars,
    bias: scalars,
    residual: scalars,
    product: { ...scalars, access: "read_write" },
  },
  overrides: { ...overrides, X: 8, Y: 8, ...last },
  aliases,
});

/** Panels in workgroup memory, sums in registers: GPUs; on SwiftShader 1.7 times as fast as plain. */
export const matmulTiledKernel = defineKernel({
  name: "matmul_tiled",
  code: codeTiled,
  params,
  bindings: vectorBindings,
  overrides: { ...overrides, X: 16, Y: 16, WIDTH: 2, DEPTH: 16, ...last },
  aliases,
});

/** For subgroups of eight lanes, which are AVX registers: lavapipe. */
export const matmulSubgroup8Kernel = defineKernel({
  name: "matmul_subgroup8",
  code: codeSubgroup8,
  params,
  bindings: vectorBindings,
  overrides: { ...overrides, ROWS: 32, ...last },
  aliases,
  features: ["subgroups"],
});

const halves = { type: "array<vec4<f16>>", access: "read" } as const;
const packed = { type: "array<vec4<u32>>", access: "read" } as const;
const tensorLiteral = {
  params,
  bindings: {
    a: packed,
    b: packed,
    bias: halves,
    residual: halves,
    product: { ...halves, access: "read_write" },
  },
  features: ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"],
} as const;

/** Subgroup matrices of 16 × 16 × 16 in subgroups of 32 lanes: NVIDIA. f16 only. */
export const matmulTensor16Kernel = defineKernel({
  ...tensorLiteral,
  name: "matmul_tensor16",
  code: codeTensor16,
  overrides: { ...overrides, HEIGHT: 2, SUBGROUPS_X: 2, SUBGROUPS_Y: 4, DEPTH: 32, ...last },
});

/** Subgroup matrices of 8 × 8 × 8 in subgroups of eight lanes: Mesa 26's lavapipe. f16 only. */
export const matmulTensor8Kernel = defineKernel({
  ...tensorLiteral,
  name: "matmul_tensor8",
  code: codeTensor8,
  overrides: { ...overrides, HEIGHT: 2, SUBGROUPS_X: 2, SUBGROUPS_Y: 4, DEPTH: 16, ...last },
});

/** Which of the kernels: `plain` is matmul.wgsl, the others are named like their files. */
export type MatmulVariant = "plain" | "tiled" | "subgroup8" | "tensor16" | "tensor8";

/** What a tile is made of: overrides of the variant's kernel. */
export type MatmulTile = Readonly<Record<string, number>>;

/** M, K and N of one matrix product, the batch folded into M where `recordMatmul` does so. */
export type MatmulShape = readonly [rows: number, inner: number, columns: number];

/** What is fixed when a product is compiled. */
export interface MatmulOptions {
  /** Of every tensor; sums are f32 always. Default f32. */
  readonly type?: "f32" | "f16";
  /** a is [..., K, M] instead of [..., M, K]. */
  readonly transposeA?: boolean;
  /** b is [..., N, K] instead of [..., K, N]. */
  readonly transposeB?: boolean;
  /** One for each column [N] or for each row [M]; default none. */
  readonly bias?: "none" | "columns" | "rows";
  /** Added before the activation (ResNet) or after it; default none. */
  readonly residual?: "none" | "before" | "after";
  readonly activation?: Activation;
  /**
   * The shape that is expected, by which variant and tile are chosen. Others may be recorded where
   * the variant takes them: one without a multiple of four or eight only where none is given here.
   */
  readonly shape?: MatmulShape;
  /** Instead of what suits the adapter. */
  readonly variant?: MatmulVariant;
  /** Instead of what suits shape and adapter: one of `matmulTiles`. */
  readonly tile?: MatmulTile;
}

type MatmulPipeline = Pipeline<
  KernelLiteral & { params: typeof params; bindings: typeof vectorBindings }
>;

/** A variant that was compiled, with the rows and columns of one of its tiles. */
interface CompiledVariant {
  readonly pipeline: MatmulPipeline;
  readonly rows: number;
  readonly columns: number;
}

/** A product that was compiled, by variants of which the first that can takes a shape: for `recordMatmul`. */
export interface CompiledMatmul {
  readonly options: MatmulOptions;
  readonly variants: ReadonlyMap<MatmulVariant, CompiledVariant>;
}

/** What `matmulVariant` asks of an adapter. */
export type MatmulAdapter = Pick<Gpu, "features" | "subgroupSize" | "subgroupMatrixConfigs"> & {
  readonly adapter: Pick<Gpu["adapter"], "isSoftware">;
};

/** The first of the sizes that must be a multiple of `of` and is not, in words. */
function misaligned(
  { transposeA = false }: MatmulOptions,
  [rows, inner, columns]: MatmulShape,
  of: number,
): string | undefined {
  for (const [name, size] of Object.entries({ K: inner, N: columns, M: transposeA ? rows : 0 })) {
    if (size % of !== 0) return `${name} = ${size} is no multiple of ${of}`;
  }
  return undefined;
}

/** What M, K and N must be multiples of where they lie side by side. */
const ALIGNMENT = { plain: 1, tiled: 4, subgroup8: 4, tensor16: 8, tensor8: 8 } as const;

/** The variant by subgroup matrices that an adapter has, if any. */
function tensorVariant(
  { subgroupSize, subgroupMatrixConfigs }: MatmulAdapter,
): "tensor16" | "tensor8" | undefined {
  const has = (side: number) =>
    subgroupMatrixConfigs.some(({ componentType, resultComponentType, M, N, K }) =>
      componentType === "f16" && resultComponentType === "f32" && [M, N, K].every((n) => n === side)
    );
  if (subgroupSize === 32 && has(16)) return "tensor16";
  return subgroupSize === 8 && has(8) ? "tensor8" : undefined;
}

/** Which variant computes a shape on an adapter, and why. */
export function matmulVariant(
  gpu: MatmulAdapter,
  options: MatmulOptions,
  shape: MatmulShape,
): { readonly variant: MatmulVariant; readonly reason: string } {
  const { features, subgroupSize, adapter } = gpu;
  const odd = misaligned(options, shape, 4);
  if (odd !== undefined) return { variant: "plain", reason: odd };
  // Before subgroup matrices: on Mesa 26, 2 cores, 512³ in f16, 72 GFLOP/s against 12.
  if (adapter.isSoftware && features.has("subgroups") && subgroupSize === 8) {
    return { variant: "subgroup8", reason: "a software adapter with subgroups of eight lanes" };
  }
  const tensor = tensorVariant(gpu);
  if (options.type !== "f16" || tensor === undefined) {
    return { variant: "tiled", reason: `no subgroup matrices of ${options.type ?? "f32"}` };
  }
  const odd8 = misaligned(options, shape, 8);
  return odd8 === undefined
    ? { variant: tensor, reason: "subgroup matrices of f16" }
    : { variant: "tiled", reason: odd8 };
}

/**
 * The tiles that a variant may have for a shape, the one that is taken untuned first.
 * For GPUs they follow from the kernels' bounds and were not measured.
 */
export function matmulTiles(variant: MatmulVariant, [rows, , columns]: MatmulShape): MatmulTile[] {
  switch (variant) {
    case "plain":
      return [{ X: 8, Y: 8 }];
    case "subgroup8": // Measured: fewer rows only where the others would be computed in vain.
      return [{ ROWS: rows <= 8 ? 8 : rows <= 16 ? 16 : 32 }];
    case "tiled": {
      const flat = { X: 32, Y: 2, WIDTH: 1, DEPTH: 8 }; // 16 × 128
      const small = { X: 8, Y: 8, WIDTH: 2, DEPTH: 16 }; // 64 × 64
      const middle = { X: 16, Y: 16, WIDTH: 1, DEPTH: 16 }; // 128 × 64
      const large = { X: 16, Y: 16, WIDTH: 2, DEPTH: 16 }; // 128 × 128
      if (rows <= 16) return [flat, small];
      // 256 large tiles are two for each multiprocessor of a big GPU; fewer leave some without work.
      const many = Math.ceil(rows / 128) * Math.ceil(columns / 128) >= 256;
      return many ? [large, middle, small] : [small, middle, large];
    }
    case "tensor16": {
      const tile = (HEIGHT: number, SUBGROUPS_Y: number, SUBGROUPS_X: number, DEPTH = 32) => ({
        ...{ HEIGHT, SUBGROUPS_Y, SUBGROUPS_X, DEPTH },
      });
      const small = tile(2, 2, 1); // 64 × 64
      const middle = tile(2, 4, 1); // 128 × 64
      // 128 × 128 by eight subgroups, 256 × 128 by as many, 128 × 128 by four, and with more k at once.
      const large = [tile(2, 4, 2), tile(4, 4, 2), tile(4, 2, 2), tile(2, 4, 2, 64)];
      const many = Math.ceil(rows / 128) * Math.ceil(columns / 128) >= 256;
      return many ? [...large, middle, small] : [small, middle, ...large];
    }
    case "tensor8": {
      const tile = (HEIGHT: number, SUBGROUPS_Y: number, SUBGROUPS_X: number) => ({
        ...{ HEIGHT, SUBGROUPS_Y, SUBGROUPS_X, DEPTH: 16 },
      });
      return [tile(2, 4, 2), tile(2, 2, 1), tile(4, 2, 2)]; // 64 × 64, 32 × 32, 64 × 64
    }
  }
}

/** Rows and columns of a tile. */
function sidesOf(variant: MatmulVariant, tile: MatmulTile): { rows: number; columns: number } {
  switch (variant) {
    case "plain":
      return { rows: 4 * tile.Y!, columns: 4 * tile.X! };
    case "subgroup8":
      return { rows: tile.ROWS!, columns: 32 };
    case "tiled":
      return { rows: 8 * tile.Y!, columns: 4 * tile.WIDTH! * tile.X! };
    case "tensor16":
    case "tensor8": {
      const side = variant === "tensor16" ? 16 : 8;
      return {
        rows: tile.HEIGHT! * side * tile.SUBGROUPS_Y!,
        columns: 4 * side * tile.SUBGROUPS_X!,
      };
    }
  }
}

const KERNELS = {
  plain: matmulKernel,
  tiled: matmulTiledKernel,
  subgroup8: matmulSubgroup8Kernel,
  tensor16: matmulTensor16Kernel,
  tensor8: matmulTensor8Kernel,
} as const;

/** Stands for any shape where none is given: aligned and large. */
const ANY_SHAPE: MatmulShape = [4096, 4096, 4096];

/**
 * Compiles what suits the adapter and the expected shape; where no shape is given, what large ones
 * want and the plain kernel for those that it cannot take.
 * @throws {KernelError} where the device fails or lacks what the variant needs.
 * @throws {RangeError} where the variant that is asked for does not take the shape.
 */
export async function compileMatmul(
  gpu: Gpu,
  options: MatmulOptions = {},
): Promise<CompiledMatmul> {
  const { type = "f32", bias = "none", residual = "none", activation = "identity" } = options;
  const shape = options.shape ?? ANY_SHAPE;
  const variant = options.variant ?? matmulVariant(gpu, options, shape).variant;
  const odd = misaligned(options, shape, ALIGNMENT[variant]);
  if (odd !== undefined || (type !== "f16" && /^tensor/.test(variant))) {
    throw new RangeError(`Cannot compile a matmul by "${variant}": ${odd ?? "it is of f16 only"}`);
  }
  const constants = {
    TRANSPOSE_A: options.transposeA ?? false,
    TRANSPOSE_B: options.transposeB ?? false,
    BIAS: { none: 0, columns: 1, rows: 2 }[bias],
    RESIDUAL: { none: 0, before: 1, after: 2 }[residual],
    SATURATE: type === "f16",
    ACTIVATION: activationOf(activation).code,
  };
  const compile = async (variant: MatmulVariant, tile: MatmulTile): Promise<CompiledVariant> => {
    const kernel = KERNELS[variant] as typeof matmulTiledKernel;
    const types = kernel.literal.aliases === undefined ? {} : { Element: type };
    const pipeline = await kernel.compile(gpu, { ...constants, ...tile }, types);
    return { pipeline: pipeline as unknown as MatmulPipeline, ...sidesOf(variant, tile) };
  };
  const wanted = new Map<MatmulVariant, MatmulTile>();
  wanted.set(variant, options.tile ?? matmulTiles(variant, shape)[0]!);
  if (options.shape === undefined) wanted.set("plain", matmulTiles("plain", shape)[0]!);
  const compiled = await Promise.all(
    [...wanted].map(async ([variant, tile]) => [variant, await compile(variant, tile)] as const),
  );
  return { options, variants: new Map(compiled) };
}

/**
 * The tile that is fastest for an expected shape, timed where the tuner does not know it yet: for
 * `tile` of the same options. Transpositions count, what follows the sum does not.
 * @throws {KernelError} where the device fails.
 */
export function tuneMatmul(
  tuner: Tuner,
  { type = "f32", transposeA = false, transposeB = false, ...rest }: MatmulOptions,
  shape: MatmulShape,
): Promise<MatmulTile> {
  const { gpu } = tuner;
  const options = { type, transposeA, transposeB };
  const variant = rest.variant ?? matmulVariant(gpu, options, shape).variant;
  // A class's sizes are multiples of eight at least, so that every variant takes them.
  const [rows, inner, columns] = shape.map((size) => Math.max(8, sizeClass(size))) as [
    number,
    number,
    number,
  ];
  const timed: MatmulShape = [rows, inner, columns];
  const key = `${KERNELS[variant].literal.name} ${type} ${transposeA ? "t" : "n"}${
    transposeB ? "t" : "n"
  } ${timed.join("×")}`;
  return tuner.pick(key, matmulTiles(variant, shape), async (tile) => {
    const compiled = await compileMatmul(gpu, { ...options, variant, tile, shape: timed });
    const tensors = {
      a: randomTensor(gpu, type, transposeA ? [inner, rows] : [rows, inner]),
      b: randomTensor(gpu, type, transposeB ? [columns, inner] : [inner, columns]),
      product: new Tensor(gpu, type, [rows, columns]),
    };
    return {
      record: (recorder) => recordMatmul(recorder, compiled, tensors),
      destroy: () => Object.values(tensors).forEach((tensor) => tensor.destroy()),
    };
  });
}

/** What a product reads and writes, all of one type; which of bias and residual, the options say. */
export interface MatmulTensors {
  /** [..., M, K], or [..., K, M] where it is transposed. */
  readonly a: Tensor;
  /** [..., K, N], or [..., N, K] where it is transposed. */
  readonly b: Tensor;
  /** [N] for columns, [M] for rows. */
  readonly bias?: Tensor;
  /** As many elements as the product. */
  readonly residual?: Tensor;
  /** [..., M, N]; no other tensor of the call may share its memory. */
  readonly product: Tensor;
}

/**
 * Records `product = act(scale · a · b + bias + residual)` for each matrix of the batch, which is what
 * precedes the last two dimensions; of a or b one matrix may serve all. f16 saturates at ±65504.
 * @throws {RangeError} where shapes or types do not fit together, or a shape was not compiled for.
 */
export function recordMatmul(
  recorder: Recorder,
  { options, variants }: CompiledMatmul,
  { a, b, bias, residual, product }: MatmulTensors,
  { scale = 1 }: { readonly scale?: number } = {},
): void {
  const { type = "f32", transposeA = false, transposeB = false } = options;
  const refuse = (why: string) =>
    new RangeError(
      `Cannot multiply ${a.type} [${a.shape.join(", ")}]${transposeA ? "ᵀ" : ""} by ` +
        `${b.type} [${b.shape.join(", ")}]${transposeB ? "ᵀ" : ""} into ` +
        `${product.type} [${product.shape.join(", ")}]: ${why}`,
    );
  if (Math.min(a.shape.length, b.shape.length, product.shape.length) < 2) {
    throw refuse("two dimensions are needed at least");
  }
  let [rows, inner] = lastTwo(a, transposeA);
  const [innerOfB, columns] = lastTwo(b, transposeB);
  if (inner !== innerOfB) throw refuse(`K is ${inner} and ${innerOfB}`);
  if (lastTwo(product, false).join() !== `${rows},${columns}`) {
    throw refuse(`the product has ${rows} rows and ${columns} columns`);
  }
  const batchShape = product.shape.slice(0, -2);
  let batch = batchShape.reduce((x, y) => x * y, 1);
  /** Elements from one matrix to the next; 0 where one serves all. */
  const step = ({ shape }: Tensor, count: number): number => {
    const own = shape.slice(0, -2);
    if (own.every((size) => size === 1)) return 0;
    if (own.join() === batchShape.join()) return count;
    throw refuse("the batches differ and none is of one matrix");
  };
  let aBatch = step(a, rows * inner);
  const bBatch = step(b, inner * columns);
  for (
    const [tensor, name, wanted, count] of [
      [bias, "bias", options.bias ?? "none", options.bias === "rows" ? rows : columns],
      [residual, "residual", options.residual ?? "none", batch * rows * columns],
    ] as const
  ) {
    const has = tensor?.shape.reduce((x, y) => x * y, 1);
    if (has !== (wanted === "none" ? undefined : count)) {
      throw refuse(`a ${name} of ${wanted === "none" ? 0 : count} is needed, ${has ?? 0} given`);
    }
  }
  for (const tensor of [a, b, product, bias, residual]) {
    if (tensor !== undefined && tensor.type !== type) throw refuse(`${type} was compiled for`);
  }
  // Where one b serves all, the batch is one product of more rows: no tile is cut short between.
  if (bBatch === 0 && (aBatch !== 0 || batch === 1) && !transposeA && options.bias !== "rows") {
    rows *= batch;
    batch = 1;
    aBatch = 0;
  }
  const shape = [rows, inner, columns] as const;
  const compiled = [...variants].find(([variant]) =>
    misaligned(options, shape, ALIGNMENT[variant]) === undefined
  )?.[1];
  if (compiled === undefined) {
    const [first] = variants.keys();
    throw refuse(
      `${misaligned(options, shape, ALIGNMENT[first!])}, and another shape was compiled for`,
    );
  }
  const across = Math.ceil(columns / compiled.columns);
  const down = Math.ceil(rows / compiled.rows);
  const tiles = across * down * batch;
  if (tiles === 0) return;
  const { a: constantA, b: constantB } = activationOf(options.activation ?? "identity");
  recorder.dispatch(compiled.pipeline, {
    params: {
      rows,
      inner,
      columns,
      across,
      down,
      tiles,
      a_batch: aBatch,
      b_batch: bBatch,
      scale,
      constant_a: constantA,
      constant_b: constantB,
    },
    bindings: { a, b, bias: bias ?? a, residual: residual ?? a, product },
  }, rowOfWorkgroups(recorder.gpu, tiles));
}

function lastTwo({ shape }: Tensor, transposed: boolean): [number, number] {
  const [first, second] = shape.slice(-2) as [number, number];
  return transposed ? [second, first] : [first, second];
}
