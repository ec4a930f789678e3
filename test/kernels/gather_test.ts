import assert from "node:assert/strict";
import {
  type CompiledGather,
  compileGather,
  compileGatherElements,
  compileGatherNd,
  recordGather,
} from "../../kernels/gather.ts";
import type { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import { countOf } from "../../kernels/strides.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/movement.ts";
import { uniform } from "../reference/random.ts";
import { movableTypes, numbersOf, sharedGpu, tensorOf } from "./gpu.ts";

function counted(gpu: Gpu, type: "f32" | "f16" | "i32", shape: readonly number[]) {
  const data = Float32Array.from({ length: countOf(shape) }, (_, i) => i % 2039 - 7);
  const of = type === "f16"
    ? Float16Array.from(data)
    : type === "i32"
    ? Int32Array.from(data)
    : data;
  return { data, shape, tensor: tensorOf(gpu, of, shape) };
}

/** Indices from −size up to size, `sizes` by their place in the last axis. */
function indicesOf(gpu: Gpu, shape: readonly number[], sizes: readonly number[]) {
  const next = uniform(countOf(shape));
  const data = Int32Array.from(
    { length: countOf(shape) },
    (_, i) => {
      const size = sizes[i % sizes.length]!;
      return Math.floor((2 * next() - 1) * size);
    },
  );
  return { data, shape, tensor: tensorOf(gpu, data, shape) };
}

async function gathered(gpu: Gpu, compiled: CompiledGather, input: Tensor, indices: Tensor) {
  const output = new Tensor(gpu, input.type, compiled.output.shape);
  const batch = new Batch(gpu);
  recordGather(batch, compiled, { input, indices, output });
  batch.submit();
  return await numbersOf(output);
}

Deno.test("recordGather() takes whole slices along an axis", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (
      const [shape, ofIndices, axis] of [
        [[5, 4, 3, 2], [3], 0],
        [[5, 4, 3, 2], [3], 1],
        [[3, 3], [1, 2], 1],
        [[7, 8], [2, 3], 0],
        [[7, 16], [5], 0],
        [[2, 3, 5], [], 2],
        [[1], [1], 0],
        [[4, 3], [0], 0],
        [[2, 1, 2, 1, 3, 1, 2, 4], [2, 2], 4],
      ] as [number[], number[], number][]
    ) {
      const input = counted(gpu, type, shape);
      const indices = indicesOf(gpu, ofIndices, [shape[axis]!]);
      const compiled = await compileGather(gpu, input.tensor, indices.tensor, axis - shape.length);
      assert.deepEqual(
        await gathered(gpu, compiled, input.tensor, indices.tensor),
        reference.gather(input, indices, axis),
        `${type} [${shape}] by [${ofIndices}] along ${axis}`,
      );
    }
  }
});

Deno.test("compileGatherNd() takes tuples, with and without batches", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (
      const [shape, ofIndices, batchDims] of [
        [[2, 2], [2, 2], 0],
        [[2, 2, 2], [2, 1, 2], 0],
        [[2, 3, 4], [2, 1], 1],
        [[2, 3, 8], [2, 5, 1], 1],
        [[2, 3, 4, 5], [2, 3, 4, 2], 2],
        [[2, 3, 2, 3, 2, 3, 2, 3], [3, 8], 0],
      ] as [number[], number[], number][]
    ) {
      const input = counted(gpu, type, shape);
      const tuple = ofIndices.at(-1)!;
      const indices = indicesOf(gpu, ofIndices, shape.slice(batchDims, batchDims + tuple));
      const compiled = await compileGatherNd(gpu, input.tensor, indices.tensor, batchDims);
      assert.deepEqual(
        await gathered(gpu, compiled, input.tensor, indices.tensor),
        reference.gatherNd(input, indices, batchDims),
        `${type} [${shape}] by [${ofIndices}], ${batchDims} of batch`,
      );
    }
  }
});

Deno.test("compileGatherElements() takes an element for each index", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (
      const [shape, ofIndices, axis] of [
        [[2, 2], [2, 2], 1],
        [[3, 3], [2, 3], 0],
        [[4, 5, 6], [3, 7, 6], 1],
        [[4, 5, 6], [4, 4, 9], 2],
        [[5], [11], 0],
        [[2, 1, 2, 1, 3, 1, 2, 4], [2, 1, 2, 1, 2, 1, 2, 3], 4],
      ] as [number[], number[], number][]
    ) {
      const input = counted(gpu, type, shape);
      const indices = indicesOf(gpu, ofIndices, [shape[axis]!]);
      const compiled = await compileGatherElements(gpu, input.tensor, indices.tensor, axis);
      assert.deepEqual(
        await gathered(gpu, compiled, input.tensor, indices.tensor),
        reference.gatherElements(input, indices, axis),
        `${type} [${shape}] by [${ofIndices}] along ${axis}`,
      );
    }
  }
});

Deno.test("recordGather() holds indices within the axis", async () => {
  const gpu = await sharedGpu();
  const input = counted(gpu, "i32", [3]);
  const indices = tensorOf(gpu, Int32Array.of(-100, 100, 3, -4));
  for (const compile of [compileGather, compileGatherElements]) {
    const compiled = await compile(gpu, input.tensor, indices);
    assert.deepEqual(await gathered(gpu, compiled, input.tensor, indices), [-7, -5, -5, -7]);
  }
});

Deno.test("what gathers refuses what does not fit", async () => {
  const gpu = await sharedGpu();
  const f32 = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const i32 = (...shape: number[]) => new Tensor(gpu, "i32", shape);
  await assert.rejects(compileGather(gpu, f32(3), f32(3)), RangeError);
  await assert.rejects(compileGather(gpu, f32(3), i32(3), 1), RangeError);
  await assert.rejects(compileGather(gpu, f32(0), i32(3)), RangeError);
  await assert.rejects(compileGatherNd(gpu, f32(3, 3), i32(2, 3)), RangeError);
  await assert.rejects(compileGatherNd(gpu, f32(2, 3), i32(3, 1), 1), RangeError);
  await assert.rejects(compileGatherElements(gpu, f32(3, 3), i32(4, 4), 0), RangeError);
});
