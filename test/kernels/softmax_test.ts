import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import { compileSoftmax, recordSoftmax } from "../../kernels/softmax.ts";
import { countOf } from "../../kernels/strides.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { floats } from "../reference/random.ts";
import * as reference from "../reference/reduce.ts";
import { narrowRecorder, sharedGpu, tensorOf } from "./gpu.ts";

// Either side of four and of a workgroup, the axis first, between and last.
const CASES: readonly (readonly [number[], number])[] = [
  [[1], 0],
  [[3], 0],
  [[2, 3], 1],
  [[3, 4], 1],
  [[5, 63], 1],
  [[5, 64], 1],
  [[5, 197], 1],
  [[3, 1000], 1],
  [[2, 1028], 1],
  [[2, 1031], 1],
  [[7, 8], 0],
  [[7, 9], 0],
  [[2, 5, 12], 1],
  [[2, 5, 3, 3], 1],
  [[70, 2], 1],
  [[0, 3], 1],
  [[3, 0], 1],
];

for (const variant of ["serial", "rows"] as const) {
  Deno.test(`recordSoftmax() in ${variant} is exponentials over their sum`, async () => {
    const gpu = await sharedGpu();
    const types = gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const;
    for (const type of types) {
      for (const log of [false, true]) {
        for (const [shape, axis] of CASES) {
          const given = floats(countOf(shape), 1).map((v) => 10 * v);
          // One row with masks and one so far out that only the largest counts, where there is room.
          if (given.length > 8) given.set([-Infinity, 5, -Infinity], 1);
          const data = type === "f16" ? Float16Array.from(given) : given;
          const input = tensorOf(gpu, data, shape);
          const compiled = await compileSoftmax(gpu, input, axis, { log, variant });
          const output = new Tensor(gpu, type, shape);
          const batch = new Batch(gpu);
          recordSoftmax(narrowRecorder(batch, 8192), compiled, { input, output });
          batch.submit();
          const actual = await output.readFloats();
          const expected = reference.softmax({ data, shape }, axis, log);
          const length = shape[axis]!;
          for (const [i, e] of expected.entries()) {
            if (e === -Infinity) {
              assert.equal(actual[i], e, `${type} [${shape}] along ${axis}`);
              continue;
            }
            // exp is off by 3 + 2·|x| ulp, x up to 20 (WGSL §15.7.4.1), the sum by as many ulp as it
            // has terms; f16 then has 11 bits, and none below 2⁻²⁵.
            const ulp = 2 ** -24 * (2 * (3 + 40) + length);
            const bound = log
              ? ulp + 2 ** -21 + 4 * 2 ** -24 * Math.abs(e) +
                (type === "f16" ? 2 ** -11 * Math.abs(e) : 0)
              : (ulp + (type === "f16" ? 2 ** -11 : 0)) * e + (type === "f16" ? 2 ** -24 : 1e-37);
            assert.ok(
              Math.abs(actual[i]! - e) <= bound,
              `${type} ${log} [${shape}] along ${axis}: ${actual[i]}, not ${e}`,
            );
          }
        }
      }
    }
  });

  Deno.test(`recordSoftmax() in ${variant} of rows that are masked whole, and of large numbers`, async () => {
    const gpu = await sharedGpu();
    const no = -Infinity;
    const data = Float32Array.of(no, no, no, no, 1e30, 1e30, -1e30, no, 3e38, -3e38, 0, 0);
    const input = tensorOf(gpu, data, [3, 4]);
    const of = async (log: boolean) => {
      const output = new Tensor(gpu, "f32", [3, 4]);
      const batch = new Batch(gpu);
      const compiled = await compileSoftmax(gpu, input, -1, { log, variant });
      recordSoftmax(batch, compiled, { input, output });
      batch.submit();
      return [...await output.readFloats()];
    };
    assert.deepEqual(await of(false), [0, 0, 0, 0, 0.5, 0.5, 0, 0, 1, 0, 0, 0]);
    assert.deepEqual((await of(true)).slice(0, 4), [no, no, no, no]);
  });
}

Deno.test("compileSoftmax() refuses integers and axes that are not there", async () => {
  const gpu = await sharedGpu();
  await assert.rejects(compileSoftmax(gpu, new Tensor(gpu, "i32", [2]), 0), RangeError);
  await assert.rejects(compileSoftmax(gpu, new Tensor(gpu, "f32", [2]), 1), RangeError);
});
