import assert from "node:assert/strict";
import { type ActivationName, activationOf } from "../../kernels/activation.ts";
import type { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import {
  compileMatmul,
  type MatmulAdapter,
  type MatmulOptions,
  type MatmulShape,
  matmulTiles,
  type MatmulVariant,
  matmulVariant,
  recordMatmul,
} from "../../kernels/matmul.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { activate } from "../reference/activation.ts";
import * as reference from "../reference/kernels.ts";
import { floats } from "../reference/random.ts";
import { narrowRecorder, sharedGpu } from "./gpu.ts";

/** What a case has beside its options and its shape. */
interface Case extends MatmulOptions {
  readonly batch?: number;
  readonly oneA?: boolean;
  readonly oneB?: boolean;
  readonly scale?: number;
  /** Workgroups a side that the device claims to allow. */
  readonly most?: number;
}

const VARIANTS = [
  "plain",
  "tiled",
  "subgroup8",
  "tensor16",
  "tensor8",
] as const satisfies MatmulVariant[];

/** Why an adapter cannot run a variant, if so. */
function missing(gpu: Gpu, variant: MatmulVariant, type: "f32" | "f16"): string | undefined {
  if (type === "f16" && !gpu.features.has("shader-f16")) return "no f16";
  if (variant === "tensor16" || variant === "tensor8") {
    const side = Number(variant.slice(6));
    if (
      !gpu.subgroupMatrixConfigs.some(({ M, componentType }) =>
        M === side && componentType === "f16"
      )
    ) {
      return `no matrices of ${side} × ${side}`;
    }
  }
  if (variant === "subgroup8" && gpu.subgroupSize !== 8) return "no subgroups of eight lanes";
  return undefined;
}

/**
 * Largest of |actual − expected| / bound of one product of seeded matrices. The sum of K products and
 * two more terms is off by at most (K + 2) · 2⁻²⁴ · Σ|terms| (Higham, Accuracy and Stability of
 * Numerical Algorithms, §3.1), taken twice since products are rounded too; no activation is steeper
 * than 1.5 (hard_swish at 3), and its own error is activation_test's; f16 adds half a unit in the
 * last place, 2⁻¹¹ of the value or half its smallest number.
 */
async function worstOf(
  gpu: Gpu,
  options: Case,
  [rows, inner, columns]: MatmulShape,
): Promise<number> {
  const { type = "f32", batch, oneA, oneB, transposeA, transposeB, scale = 1 } = options;
  const count = batch ?? 1;
  const lead = batch === undefined ? [] : [batch];
  const made = (length: number, seed: number) =>
    type === "f16" ? Float16Array.from(floats(length, seed)) : floats(length, seed);
  const a = made((oneA ? 1 : count) * rows * inner, 1);
  const b = made((oneB ? 1 : count) * inner * columns, 2);
  const bias = options.bias === undefined
    ? undefined
    : made(options.bias === "rows" ? rows : columns, 3);
  const residual = options.residual === undefined ? undefined : made(count * rows * columns, 4);
  const product = new Tensor(gpu, type, [...lead, rows, columns]);
  const compiled = await compileMatmul(gpu, { shape: [rows, inner, columns], ...options });
  if (options.variant !== undefined) {
    assert.deepEqual([...compiled.variants.keys()], [options.variant]);
  }
  const shapeOf = (
    one: boolean | undefined,
    transposed: boolean | undefined,
    m: number,
    n: number,
  ) => [
    ...(one ? [] : lead),
    ...(transposed ? [n, m] : [m, n]),
  ];
  const tensors = {
    a: Tensor.from(gpu, a, shapeOf(oneA, transposeA, rows, inner)),
    b: Tensor.from(gpu, b, shapeOf(oneB, transposeB, inner, columns)),
    ...(bias && { bias: Tensor.from(gpu, bias, [bias.length]) }),
    ...(residual && { residual: Tensor.from(gpu, residual, product.shape) }),
    product,
  };
  const recorder = new Batch(gpu);
  const { most } = options;
  recordMatmul(most === undefined ? recorder : narrowRecorder(recorder, most), compiled, tensors, {
    scale,
  });
  recorder.submit();
  const actual = await product.readFloats();
  for (const tensor of Object.values(tensors)) tensor.destroy();

  const activation = options.activation ?? "identity";
  const { a: constantA, b: constantB } = activationOf(activation);
  const name: ActivationName = typeof activation === "string" ? activation : activation.name;
  const extras = (of: (values: ArrayLike<number>) => ArrayLike<number>) => ({
    ...{ batch, oneA, oneB, transposeA, transposeB },
    ...(bias && { [options.bias === "rows" ? "rowBias" : "columnBias"]: of(bias) }),
    ...(residual && {
      [options.residual === "after" ? "residualAfter" : "residualBefore"]: of(residual),
    }),
  });
  const magnitude = (values: ArrayLike<number>) => Float64Array.from(values, Math.abs);
  const expected = reference.matmul(a, b, [rows, inner, columns], {
    ...extras((values) => values),
    scale,
    act: (v) => activate(name, v, constantA, constantB),
    saturate: type === "f16",
  });
  const magnitudes = reference.matmul(magnitude(a), magnitude(b), [rows, inner, columns], {
    ...extras(magnitude),
    scale: Math.abs(scale),
  });
  let worst = 0;
  assert.equal(actual.length, expected.length);
  for (const [i, value] of expected.entries()) {
    let bound = 2 * (inner + 2) * 2 ** -24 * magnitudes[i]! + 1e-30;
    if (name !== "identity") {
      bound = 1.5 * bound + 4e-6 * Math.abs(value) + 3e-7 * Math.max(1, magnitudes[i]!);
    }
    if (type === "f16") bound += 2 ** -11 * Math.abs(value) + 2 ** -25;
    const error = Math.abs(actual[i]! - value) / bound;
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  return worst;
}

async function check(gpu: Gpu, options: Case, shape: MatmulShape): Promise<void> {
  const worst = await worstOf(gpu, options, shape);
  assert.ok(
    worst <= 1,
    `${JSON.stringify(options)} of [${shape.join(", ")}]: ${worst} of the bound`,
  );
}

// Size 1, primes, either side of a tile of 32 and 64, of four, and of a panel's depth of 16; no k.
const ODD: MatmulShape[] = [
  [1, 1, 1],
  [7, 5, 3],
  [31, 13, 29],
  [33, 37, 35],
  [2, 0, 3],
];
const ALIGNED: MatmulShape[] = [
  [1, 4, 4],
  [7, 16, 8],
  [31, 12, 28],
  [33, 36, 36],
  [61, 100, 44],
  [129, 20, 68],
  [5, 0, 8],
];
const ALIGNED_8: MatmulShape[] = [
  [1, 8, 8],
  [7, 16, 24],
  [31, 24, 40],
  [33, 32, 64],
  [61, 104, 72],
  [129, 40, 136],
  [5, 0, 8],
];
const ALIGNED_8_ROWS: MatmulShape[] = [[8, 8, 8], [24, 16, 40], [72, 104, 56], [136, 40, 264]];
/** Where a is transposed M must be a multiple of four too. */
const ALIGNED_ROWS: MatmulShape[] = [[4, 4, 4], [28, 12, 36], [36, 100, 28], [132, 20, 68]];

for (const variant of VARIANTS) {
  for (const type of variant.startsWith("tensor") ? ["f16"] as const : ["f32", "f16"] as const) {
    Deno.test(`recordMatmul() in ${variant}, ${type}, is the sum of products, transposed or not`, async () => {
      const gpu = await sharedGpu();
      const lack = missing(gpu, variant, type);
      if (lack !== undefined) return console.log(`skipped: ${lack}`);
      for (const transposeA of [false, true]) {
        for (const transposeB of [false, true]) {
          const shapes = variant === "plain"
            ? [...ODD, ...ALIGNED]
            : variant.startsWith("tensor")
            ? transposeA ? ALIGNED_8_ROWS : ALIGNED_8
            : transposeA
            ? ALIGNED_ROWS
            : ALIGNED;
          // One tile for all shapes: on a software adapter compiling takes longer than multiplying.
          const tile = matmulTiles(variant, [64, 64, 64])[0]!;
          for (const shape of shapes) {
            await check(gpu, { variant, type, transposeA, transposeB, tile }, shape);
          }
        }
      }
    });

    Deno.test(`recordMatmul() in ${variant}, ${type}, scales, adds and activates`, async () => {
      const gpu = await sharedGpu();
      const lack = missing(gpu, variant, type);
      if (lack !== undefined) return console.log(`skipped: ${lack}`);
      const epilogues: Omit<Case, "variant" | "type">[] = [
        { scale: -0.25, bias: "columns", activation: "relu" },
        { bias: "columns", residual: "before", activation: { name: "clip", a: -0.5, b: 1.5 } },
        { scale: 2, bias: "rows", residual: "after", activation: "gelu" },
        { residual: "after", activation: { name: "leaky_relu", a: 0.2 } },
        { bias: "columns", activation: "hard_swish" },
      ];
      // What differs between the types is the store, so f16 needs no more than two.
      for (const epilogue of type === "f16" ? epilogues.slice(1, 3) : epilogues) {
        await check(gpu, { variant, type, ...epilogue }, [40, 24, 48]);
        if (variant === "plain") await check(gpu, { variant, type, ...epilogue }, [35, 7, 13]);
      }
    });

    Deno.test(`recordMatmul() in ${variant}, ${type}, takes a batch, of which a or b may be one`, async () => {
      const gpu = await sharedGpu();
      const lack = missing(gpu, variant, type);
      if (lack !== undefined) return console.log(`skipped: ${lack}`);
      const shape = [40, 8, 48] as const;
      for (
        const one of [{}, { oneA: true }, { oneB: true }, { oneA: true, oneB: true }] as Case[]
      ) {
        await check(gpu, { variant, type, batch: 3, ...one }, shape);
        await check(
          gpu,
          { variant, type, batch: 3, ...one, bias: "rows", residual: "before" },
          shape,
        );
        await check(
          gpu,
          { variant, type, batch: 3, ...one, transposeA: true, bias: "columns" },
          shape,
        );
      }
      await check(gpu, { variant, type, batch: 0 }, shape);
      // 3 matrices in several rows of workgroups: of 45 tiles in 7 rows the last is not full.
      const tile = matmulTiles(variant, [64, 64, 64])[0]!;
      await check(gpu, { variant, type, tile, batch: 3, most: 7 }, [72, 8, 136]);
    });
  }

  Deno.test(`recordMatmul() in ${variant} saturates in f16`, async () => {
    const gpu = await sharedGpu();
    const lack = missing(gpu, variant, "f16");
    if (lack !== undefined) return console.log(`skipped: ${lack}`);
    const a = Tensor.from(gpu, Float16Array.from({ length: 8 * 8 }, () => 200), [8, 8]);
    const b = Tensor.from(gpu, Float16Array.from({ length: 64 }, (_, i) => i % 8 - 3), [8, 8]);
    const product = new Tensor(gpu, "f16", [8, 8]);
    const compiled = await compileMatmul(gpu, { type: "f16", variant, shape: [8, 8, 8] });
    const batch = new Batch(gpu);
    recordMatmul(batch, compiled, { a, b, product }, { scale: 20 });
    batch.submit();
    // 20 · Σ of 8 times 200 · (n − 3): −96000, −64000, −32000, 0 …
    const row = [-65504, -64000, -32000, 0, 32000, 64000, 65504, 65504];
    assert.deepEqual([...(await product.readFloats()).subarray(0, 8)], row);
  });

  Deno.test(`recordMatmul() in ${variant} is right with every tile that a tuner may take`, async () => {
    const gpu = await sharedGpu();
    const type = variant.startsWith("tensor") ? "f16" : "f32";
    const lack = missing(gpu, variant, type);
    if (lack !== undefined) return console.log(`skipped: ${lack}`);
    for (const shape of [[8, 24, 40], [136, 40, 136]] as const) {
      for (const tile of matmulTiles(variant, shape)) {
        await check(gpu, { variant, type, tile }, shape);
        await check(gpu, { variant, type, tile, transposeA: true, transposeB: true }, shape);
      }
    }
  });
}

Deno.test("matmulVariant() follows adapter and shape, and says why", () => {
  const config = (side: number) => ({
    ...{ componentType: "f16", resultComponentType: "f32", M: side, N: side, K: side },
  });
  const lavapipe: MatmulAdapter = {
    features: new Set(["subgroups", "shader-f16"]),
    subgroupSize: 8,
    subgroupMatrixConfigs: [config(8)],
    adapter: { isSoftware: true },
  };
  const swiftshader: MatmulAdapter = {
    features: new Set(["subgroups"]),
    subgroupSize: 4,
    subgroupMatrixConfigs: [],
    adapter: { isSoftware: true },
  };
  const gpu: MatmulAdapter = { ...swiftshader, subgroupSize: 32, adapter: { isSoftware: false } };
  const nvidia: MatmulAdapter = { ...gpu, subgroupMatrixConfigs: [config(16), config(8)] };
  const small: MatmulAdapter = { ...gpu, subgroupSize: 8, subgroupMatrixConfigs: [config(8)] };
  const f16 = { type: "f16" } as const;
  const aligned = [64, 64, 64] as const;
  for (
    const [of, options, shape, expected] of [
      [lavapipe, {}, aligned, "subgroup8: a software adapter with subgroups of eight lanes"],
      [lavapipe, f16, aligned, "subgroup8: a software adapter with subgroups of eight lanes"],
      [lavapipe, {}, [64, 64, 5], "plain: N = 5 is no multiple of 4"],
      [swiftshader, {}, aligned, "tiled: no subgroup matrices of f32"],
      [gpu, {}, aligned, "tiled: no subgroup matrices of f32"],
      [gpu, f16, aligned, "tiled: no subgroup matrices of f16"],
      [gpu, {}, [7, 64, 64], "tiled: no subgroup matrices of f32"],
      [gpu, { transposeA: true }, [7, 64, 64], "plain: M = 7 is no multiple of 4"],
      [gpu, {}, [64, 3, 64], "plain: K = 3 is no multiple of 4"],
      [nvidia, {}, aligned, "tiled: no subgroup matrices of f32"],
      [nvidia, f16, aligned, "tensor16: subgroup matrices of f16"],
      [nvidia, f16, [64, 64, 68], "tiled: N = 68 is no multiple of 8"],
      [small, f16, aligned, "tensor8: subgroup matrices of f16"],
    ] as [MatmulAdapter, MatmulOptions, MatmulShape, string][]
  ) {
    const { variant, reason } = matmulVariant(of, options, shape);
    assert.equal(`${variant}: ${reason}`, expected);
  }
});

Deno.test("matmulTiles() keeps to what the kernels say of their overrides, on adapters not at hand too", () => {
  for (const shape of [[8, 64, 64], [64, 64, 64], [8192, 64, 8192]] as const) {
    for (const variant of ["tensor16", "tensor8"] as const) {
      const [side, lanes] = variant === "tensor16" ? [16, 32] : [8, 8];
      for (const tile of matmulTiles(variant, shape)) {
        const { HEIGHT, SUBGROUPS_Y, SUBGROUPS_X, DEPTH } = tile as Record<string, number>;
        const threads = lanes * SUBGROUPS_X! * SUBGROUPS_Y!;
        const rows = HEIGHT! * side * SUBGROUPS_Y!, columns = 4 * side * SUBGROUPS_X!;
        assert.equal(DEPTH! % side, 0);
        for (const lines of [rows, columns]) {
          const loads = lines * DEPTH! / 8 / threads;
          assert.ok(
            Number.isInteger(loads) && loads <= 4,
            `${JSON.stringify(tile)}: ${loads} loads`,
          );
        }
        // With a vector more in each line at most; 48 KiB is what NVIDIA has.
        const bytes = 16 * (rows * (DEPTH! / 8 + 1) + DEPTH! * (columns / 8 + 1));
        assert.ok(bytes <= 49152 && threads <= 1024, `${JSON.stringify(tile)}: ${bytes} bytes`);
      }
    }
    for (const tile of matmulTiles("tiled", shape)) {
      const { X, Y, WIDTH, DEPTH } = tile as Record<string, number>;
      assert.ok(Y! * DEPTH! / 2 <= X! * Y! && X! * WIDTH! * DEPTH! / 4 <= X! * Y!);
      assert.equal(DEPTH! % 4, 0);
      // What every adapter has: 256 invocations, 16 KiB.
      assert.ok(X! * Y! <= 256 && 16 * DEPTH! * (2 * Y! + WIDTH! * X!) <= 16384);
    }
  }
});

Deno.test("matmul_tensor16.wgsl and matmul_tensor8.wgsl differ by their sizes alone", () => {
  const [text16, text8] = [16, 8].map((side) =>
    Deno.readTextFileSync(new URL(`../../kernels/matmul_tensor${side}.wgsl`, import.meta.url))
  );
  const adapted = text16!
    .replace("matrices of 16 × 16 × 16", "matrices of 8 × 8 × 8")
    .replace("subgroups of 32 lanes", "subgroups of 8 lanes")
    .replace("override DEPTH: u32 = 32;", "override DEPTH: u32 = 16;")
    .replace("const SIDE = 16u;", "const SIDE = 8u;")
    .replace("const LANES = 32u;", "const LANES = 8u;")
    .replace("fn matmul_tensor16(", "fn matmul_tensor8(");
  assert.equal(adapted, text8);
});

Deno.test("compileMatmul() without a shape serves all of them, with one that alone", async () => {
  const gpu = await sharedGpu();
  for (const shape of [[5, 7, 3], [36, 8, 40]] as const) {
    await check(gpu, { shape: undefined }, shape);
  }
  await assert.rejects(
    compileMatmul(gpu, { variant: "tiled", shape: [8, 3, 8] }),
    /^RangeError: Cannot compile a matmul by "tiled": K = 3 is no multiple of 4$/,
  );
  await assert.rejects(
    compileMatmul(gpu, { variant: "tensor16" }),
    /^RangeError: Cannot compile a matmul by "tensor16": it is of f16 only$/,
  );
  const compiled = await compileMatmul(gpu, { shape: [8, 8, 8] });
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const odd = { a: tensor(2, 3), b: tensor(3, 4), product: tensor(2, 4) };
  if (!compiled.variants.has("plain")) {
    assert.throws(() => recordMatmul(new Batch(gpu), compiled, odd), /K = 3 is no multiple of 4/);
  }
});

Deno.test("recordMatmul() refuses what does not fit together", async () => {
  const gpu = await sharedGpu();
  const compiled = await compileMatmul(gpu);
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const good = { a: tensor(2, 4), b: tensor(4, 4), product: tensor(2, 4) };
  const batch = new Batch(gpu);
  recordMatmul(batch, compiled, good);
  for (
    const wrong of [
      { b: tensor(8, 4) },
      { b: new Tensor(gpu, "u32", [4, 4]) },
      { product: tensor(4, 2) },
      { product: tensor(8) },
      { a: tensor(3, 2, 4), product: tensor(2, 2, 4) },
      { bias: tensor(4) },
      { residual: tensor(2, 4) },
    ]
  ) {
    assert.throws(() => recordMatmul(batch, compiled, { ...good, ...wrong }), {
      name: "RangeError",
      message: /^Cannot multiply /,
    });
  }
  const wanting = await compileMatmul(gpu, { bias: "columns", residual: "after" });
  const more = { bias: tensor(4), residual: tensor(2, 4) };
  recordMatmul(batch, wanting, { ...good, ...more });
  for (const wrong of [{}, { ...more, bias: tensor(2) }, { ...more, residual: tensor(4) }]) {
    assert.throws(() => recordMatmul(batch, wanting, { ...good, ...wrong }), RangeError);
  }
});
