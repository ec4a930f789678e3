import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import {
  compileLocalResponseNorm,
  recordLocalResponseNorm,
} from "../../kernels/local_response_norm.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { localResponseNorm } from "../reference/norms.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

Deno.test("recordLocalResponseNorm() is ONNX's LRN, windows of odd and even size", async () => {
  const gpu = await sharedGpu();
  const types = gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const;
  for (const type of types) {
    const compiled = await compileLocalResponseNorm(gpu, type);
    for (const [rows, row, channels] of [[1, 4, 1], [3, 8, 7], [13, 20, 20], [0, 4, 4]] as const) {
      for (const size of [1, 2, 3, 4, 5, 31]) {
        const values = floats(rows * row, size).map((v, at) => at % row < channels ? 3 * v : 0);
        const data = type === "f16" ? Float16Array.from(values) : values;
        const attributes = { size, alpha: 0.5, beta: 0.6, bias: 1.5 };
        const expected = localResponseNorm(data, row, channels, attributes);
        const output = new Tensor(gpu, type, [rows, row]);
        const batch = new Batch(gpu);
        const input = Tensor.from(gpu, data, [rows, row]);
        recordLocalResponseNorm(batch, compiled, { input, output }, { ...attributes, channels });
        batch.submit();
        const actual = await output.readFloats();
        for (const [i, v] of expected.entries()) {
          // A sum of up to `row` squares, and pow as exp2(e · log2(x)) with 3 ulp of the logarithm
          // and 3 + 2·|e · log2 x| of exp2 (WGSL §15.7.4.1), |e · log2 x| under 4 here.
          const relative = (row + 24) * 2 ** -23 + (type === "f16" ? 2 ** -11 : 0);
          const bound = relative * Math.abs(v) + (type === "f16" ? 2 ** -25 : 0);
          assert.ok(Math.abs(actual[i]! - v) <= bound, `${type} [${rows}, ${row}], ${size}: ${i}`);
        }
      }
    }
  }
});

Deno.test("recordLocalResponseNorm() refuses what does not fit", async () => {
  const gpu = await sharedGpu();
  const compiled = await compileLocalResponseNorm(gpu);
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const batch = new Batch(gpu);
  const record = (input: Tensor, output: Tensor, size: number, channels?: number) =>
    recordLocalResponseNorm(batch, compiled, { input, output }, {
      size,
      ...(channels === undefined ? {} : { channels }),
    });
  record(tensor(2, 4), tensor(2, 4), 3);
  assert.throws(() => record(tensor(2, 4), tensor(2, 8), 3), RangeError);
  assert.throws(() => record(tensor(2, 4), tensor(2, 4), 0), RangeError);
  assert.throws(() => record(tensor(2, 4), tensor(2, 4), 3, 5), RangeError);
  assert.throws(() => record(new Tensor(gpu, "i32", [2, 4]), tensor(2, 4), 3), RangeError);
});
