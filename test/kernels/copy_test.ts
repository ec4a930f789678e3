import assert from "node:assert/strict";
import {
  compileConcat,
  compileExpand,
  compileSlice,
  compileTile,
  recordConcat,
  recordCopy,
  sliceOf,
} from "../../kernels/copy.ts";
import type { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import { countOf } from "../../kernels/strides.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/movement.ts";
import { movableTypes, moved, narrowRecorder, numbersOf, sharedGpu, tensorOf } from "./gpu.ts";

/** Elements that are their own positions; f16 has whole numbers up to 2048 only. */
function counted(gpu: Gpu, type: "f32" | "f16" | "i32", shape: readonly number[]) {
  const data = Float32Array.from({ length: countOf(shape) }, (_, i) => i % 2039 - 7);
  const of = type === "f16"
    ? Float16Array.from(data)
    : type === "i32"
    ? Int32Array.from(data)
    : data;
  return { data, shape, tensor: tensorOf(gpu, of, shape) };
}

// [shape, starts, ends, axes, steps]: rows whole and cut, both directions, past either end, to nothing.
const SLICES: readonly (readonly number[][])[] = [
  [[20, 10, 5], [0, 0], [3, 10], [0, 1], [1, 1]],
  [[20, 10, 5], [0, 0, 3], [20, 10, 4]],
  [[20, 10, 5], [1], [1000], [1], [1]],
  [[20, 10, 5], [0], [-1], [1], [1]],
  [[20, 10, 5], [20, 10, 4], [0, 0, 1], [0, 1, 2], [-1, -3, -2]],
  [[5], [-1], [-6], [0], [-1]],
  [[5], [10], [-100], [0], [-2]],
  [[5], [3], [1], [0], [1]],
  [[7, 16], [4], [12], [1], [1]],
  [[7, 16], [2], [6], [-2], [2]],
  [[3, 4, 8], [1, 4], [3, 8], [0, 2], [1, 1]],
  [[2, 3, 2, 3, 2, 3, 2, 3], [1, 1, 1], [2, 3, 3], [1, 5, 7], [1, 1, 1]],
  [[1], [0], [1], [0], [1]],
  [[0, 4], [0], [4], [1], [2]],
];

Deno.test("recordCopy() of a slice is NumPy's, steps of both signs", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (const [shape, starts, ends, axes, steps] of SLICES) {
      const input = counted(gpu, type, shape!);
      const slice = sliceOf(shape!, starts!, ends!, axes, steps);
      const actual = await moved(gpu, input.tensor, await compileSlice(gpu, input.tensor, slice));
      const expected = reference.slice(input, slice.starts, slice.steps, slice.shape);
      assert.deepEqual(actual, expected, `${type} [${shape}] ${starts} ${ends} ${axes} ${steps}`);
    }
  }
});

Deno.test("sliceOf() holds starts and ends as ONNX Slice-13 does", () => {
  // Worked out by hand from the operator's text.
  assert.deepEqual(sliceOf([20, 10, 5], [20, 10, 4], [0, 0, 1], [0, 1, 2], [-1, -3, -2]), {
    starts: [19, 9, 4],
    steps: [-1, -3, -2],
    shape: [19, 3, 2],
  });
  assert.deepEqual(sliceOf([5], [10], [-2147483648], [0], [-2]).shape, [3]);
  assert.deepEqual(sliceOf([5], [-100], [2147483647]).shape, [5]);
  assert.deepEqual(sliceOf([5], [3], [3]).shape, [0]);
  assert.throws(() => sliceOf([5], [0], [1], [1]), /axis 1 of 1 axes/);
  assert.throws(() => sliceOf([5], [0], [1], [0], [0]), /steps of 0/);
  assert.throws(() => sliceOf([5, 5], [0, 0], [1, 1], [0, -2]), /twice/);
});

Deno.test("recordConcat() puts inputs one behind the other along any axis", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (
      const [axis, shapes] of [
        [0, [[3], [0], [1], [5]]],
        [1, [[2, 3, 4], [2, 1, 4], [2, 5, 4]]],
        [2, [[2, 3, 4], [2, 3, 8]]],
        [2, [[2, 3, 1], [2, 3, 2], [2, 3, 7]]],
        [0, [[1, 1, 1, 1], [1, 1, 1, 1]]],
        [7, [[2, 1, 2, 1, 2, 1, 2, 3], [2, 1, 2, 1, 2, 1, 2, 2]]],
      ] as [number, number[][]][]
    ) {
      const inputs = shapes.map((shape) => counted(gpu, type, shape));
      const tensors = inputs.map(({ tensor }) => tensor);
      const compiled = await compileConcat(gpu, tensors, axis - shapes[0]!.length);
      const output = new Tensor(gpu, type, compiled.output.shape);
      const batch = new Batch(gpu);
      recordConcat(batch, compiled, { inputs: tensors, output });
      batch.submit();
      assert.deepEqual(
        await numbersOf(output),
        reference.concat(inputs, axis),
        `${type} axis ${axis} of ${shapes.join(" ")}`,
      );
    }
  }
});

Deno.test("recordCopy() expands and tiles", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (
      const [shape, to] of [
        [[3, 1], [2, 1, 6]],
        [[3, 1], [3, 4]],
        [[], [2, 3]],
        [[1, 8], [5, 8]],
        [[2, 1, 2, 1, 2, 1, 2, 1], [2, 3, 2, 3, 2, 3, 2, 3]],
      ] as [number[], number[]][]
    ) {
      const input = counted(gpu, type, shape);
      const compiled = await compileExpand(gpu, input.tensor, to);
      const expected = reference.expand(input, compiled.output.shape);
      assert.deepEqual(await moved(gpu, input.tensor, compiled), expected, `[${shape}] to [${to}]`);
    }
    for (
      const [shape, repeats] of [
        [[2, 2], [2, 2]],
        [[2, 3, 4], [1, 2, 3]],
        [[5], [7]],
        [[4, 8], [3, 1]],
        [[], []],
        [[2, 3], [0, 2]],
      ] as [number[], number[]][]
    ) {
      const input = counted(gpu, type, shape);
      const compiled = await compileTile(gpu, input.tensor, repeats);
      const expected = reference.tile(input, repeats);
      assert.deepEqual(
        await moved(gpu, input.tensor, compiled),
        expected,
        `[${shape}] × ${repeats}`,
      );
    }
  }
});

Deno.test("recordCopy() keeps every bit of what it moves", async () => {
  const gpu = await sharedGpu();
  const bits = Uint32Array.of(0x7fc12345, 0xff800000, 0x7f800001, 1, 0x80000000, 0xffffffff, 5, 6);
  const input = tensorOf(gpu, bits, [2, 4]);
  const slice = sliceOf([2, 4], [0], [4], [1], [3]);
  const compiled = await compileSlice(gpu, input, slice);
  assert.deepEqual(await moved(gpu, input, compiled), [0x7fc12345, 1, 0x80000000, 6]);
});

Deno.test("recordCopy() goes on where the grid ends, along every axis", async () => {
  const gpu = await sharedGpu();
  const input = counted(gpu, "i32", [70, 50, 303]);
  const slice = sliceOf(input.shape, [1, 1, 1], [70, 50, 302], [0, 1, 2], [1, 1, 1]);
  const compiled = await compileSlice(gpu, input.tensor, slice);
  for (const most of [1, 7]) {
    const output = new Tensor(gpu, "i32", slice.shape);
    const batch = new Batch(gpu);
    recordCopy(narrowRecorder(batch, most), compiled, { input: input.tensor, output });
    batch.submit();
    const expected = reference.slice(input, slice.starts, slice.steps, slice.shape);
    assert.deepEqual(await numbersOf(output), expected);
  }
});

Deno.test("what copies refuses what does not fit", async () => {
  const gpu = await sharedGpu();
  const f32 = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  await assert.rejects(compileConcat(gpu, [f32(2, 3), f32(3, 3)], 1), /\[2, 3\], f32 \[3, 3\]/);
  await assert.rejects(compileConcat(gpu, [], 0), RangeError);
  await assert.rejects(
    compileSlice(gpu, f32(4), { starts: [2], steps: [1], shape: [3] }),
    RangeError,
  );
  await assert.rejects(compileTile(gpu, f32(4), [1, 2]), RangeError);
  await assert.rejects(compileExpand(gpu, f32(3), [2]), RangeError);
  const compiled = await compileExpand(gpu, f32(1), [2]);
  const batch = new Batch(gpu);
  assert.throws(() => recordCopy(batch, compiled, { input: f32(1), output: f32(3) }), RangeError);
});
