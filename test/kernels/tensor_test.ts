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

Deno.test("Tensor holds f16, and what is placed in it is read by its own size", async () => {
  const gpu = await sharedGpu();
  const halves = Float16Array.of(1, -2.5, 65504, 2 ** -14, 0.1);
  const tensor = Tensor.from(gpu, halves, [5]);
  assert.equal(tensor.type, "f16");
  assert.deepEqual([...await tensor.readFloats()], [...halves]);
  const placed = tensor.place("u32", [2]);
  placed.write(Uint32Array.of(7, 9));
  assert.deepEqual([...new Uint32Array(await placed.readBytes())], [7, 9]);
  assert.deepEqual((await tensor.readFloats())[4], halves[4]);
  assert.throws(() => tensor.place("f32", [5]), RangeError);
});
