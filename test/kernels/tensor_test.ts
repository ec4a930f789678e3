import assert from "node:assert/strict";
import { Tensor } from "../../kernels/tensor.ts";
import { bytes, floats } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

Deno.test("Tensor gives back what was written, at every length around four", async () => {
  const gpu = await sharedGpu();
  for (let length = 0; length < 21; length++) {
    const data = bytes(length, length);
    const tensor = Tensor.from(gpu, data, [length]);
    assert.deepEqual(new Uint8Array(await tensor.readBytes()), data);
    tensor.destroy();
  }
  const values = floats(7, 1);
  assert.deepEqual(await Tensor.from(gpu, values, [7]).readFloats(), values);
});

Deno.test("Tensor takes shared memory, which decoders write into", async () => {
  const gpu = await sharedGpu();
  const shared = new Uint8Array(new SharedArrayBuffer(12));
  shared.set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  const tensor = Tensor.from(gpu, shared.subarray(1, 8), [7]);
  assert.deepEqual([...new Uint8Array(await tensor.readBytes())], [2, 3, 4, 5, 6, 7, 8]);
});

Deno.test("Tensor refuses data of another size and reading as another type", async () => {
  const gpu = await sharedGpu();
  const tensor = new Tensor(gpu, "u32", [3]);
  assert.throws(() => tensor.write(new Uint32Array(4)), RangeError);
  await assert.rejects(tensor.readFloats(), TypeError);
});
