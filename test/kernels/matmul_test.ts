import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import { compileMatmul, type MatmulVariant, recordMatmul } from "../../kernels/matmul.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/kernels.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu, worstError } from "./gpu.ts";

// Size 1, primes, either side of a workgroup's tile (32, 64 rows; 32 columns) and of four.
const SHAPES = [
  [1, 4, 4],
  [7, 4, 8],
  [31, 12, 28],
  [32, 32, 32],
  [33, 36, 36],
  [61, 100, 44],
  [65, 8, 68],
] as const;

for (const variant of ["registers", "subgroup8"] as const satisfies MatmulVariant[]) {
  Deno.test(`recordMatmul() in ${variant} is the sum of products`, async () => {
    const gpu = await sharedGpu();
    if (variant === "subgroup8" && gpu.subgroupSize !== 8) {
      return console.log("skipped: no subgroups of eight lanes");
    }
    for (const [rows, inner, columns] of SHAPES) {
      const a = floats(rows * inner, 1);
      const b = floats(inner * columns, 2);
      const product = new Tensor(gpu, "f32", [rows, columns]);
      const batch = new Batch(gpu);
      recordMatmul(batch, await compileMatmul(gpu, variant), {
        a: Tensor.from(gpu, a, [rows, inner]),
        b: Tensor.from(gpu, b, [inner, columns]),
        product,
      });
      batch.submit();
      const expected = reference.matmul(a, b, [rows, inner, columns]);
      const magnitudes = reference.matmul(a.map(Math.abs), b.map(Math.abs), [rows, inner, columns]);
      const error = worstError(await product.readFloats(), expected, magnitudes, inner);
      assert.ok(error <= 1, `[${rows}, ${inner}] · [${inner}, ${columns}]: ${error} of the bound`);
    }
  });
}

Deno.test("recordMatmul() refuses shapes that do not fit", async () => {
  const gpu = await sharedGpu();
  const compiled = await compileMatmul(gpu);
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const good = { a: tensor(2, 4), b: tensor(4, 4), product: tensor(2, 4) };
  const batch = new Batch(gpu);
  recordMatmul(batch, compiled, good);
  for (
    const wrong of [
      { b: tensor(8, 4) },
      { a: tensor(2, 3), b: tensor(3, 4) },
      { b: new Tensor(gpu, "u32", [4, 4]) },
      { product: tensor(4, 2) },
    ]
  ) assert.throws(() => recordMatmul(batch, compiled, { ...good, ...wrong }), RangeError);
});

Deno.test("recordMatmul() of no rows does nothing", async () => {
  const gpu = await sharedGpu();
  const product = new Tensor(gpu, "f32", [0, 4]);
  const batch = new Batch(gpu);
  recordMatmul(batch, await compileMatmul(gpu), {
    a: new Tensor(gpu, "f32", [0, 4]),
    b: new Tensor(gpu, "f32", [4, 4]),
    product,
  });
  batch.submit();
  assert.equal((await product.readFloats()).length, 0);
});
