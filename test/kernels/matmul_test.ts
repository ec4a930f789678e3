import assert from "node:assert/strict";
import { matmul, type MatmulVariant } from "../../kernels/matmul.ts";
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
  Deno.test(`matmul() in ${variant} is the sum of products`, async () => {
    const gpu = await sharedGpu();
    if (variant === "subgroup8" && gpu.subgroupSize !== 8) {
      return console.log("skipped: no subgroups of eight lanes");
    }
    for (const [rows, inner, columns] of SHAPES) {
      const a = floats(rows * inner, 1);
      const b = floats(inner * columns, 2);
      const product = await matmul(
        gpu,
        Tensor.from(gpu, a, [rows, inner]),
        Tensor.from(gpu, b, [inner, columns]),
        variant,
      );
      const expected = reference.matmul(a, b, [rows, inner, columns]);
      const magnitudes = reference.matmul(a.map(Math.abs), b.map(Math.abs), [rows, inner, columns]);
      const error = worstError(await product.readFloats(), expected, magnitudes, inner);
      assert.ok(error <= 1, `[${rows}, ${inner}] · [${inner}, ${columns}]: ${error} of the bound`);
    }
  });
}

Deno.test("matmul() refuses shapes that do not fit", async () => {
  const gpu = await sharedGpu();
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  await assert.rejects(matmul(gpu, tensor(2, 4), tensor(8, 4)), RangeError);
  await assert.rejects(matmul(gpu, tensor(2, 3), tensor(3, 4)), RangeError);
  await assert.rejects(matmul(gpu, tensor(2, 4), new Tensor(gpu, "u32", [4, 4])), RangeError);
});

Deno.test("matmul() of no rows gives no rows", async () => {
  const gpu = await sharedGpu();
  const product = await matmul(gpu, new Tensor(gpu, "f32", [0, 4]), new Tensor(gpu, "f32", [4, 4]));
  assert.deepEqual(product.shape, [0, 4]);
  assert.equal((await product.readFloats()).length, 0);
});
