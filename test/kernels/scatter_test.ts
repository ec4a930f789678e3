import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import {
  type CompiledScatter,
  compileScatterElements,
  compileScatterNd,
  recordScatter,
} from "../../kernels/scatter.ts";
import { countOf } from "../../kernels/strides.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/movement.ts";
import { uniform } from "../reference/random.ts";
import { movableTypes, numbersOf, sharedGpu, tensorOf } from "./gpu.ts";

const REDUCTIONS = {
  none: (_, update) => update,
  add: (old, update) => old + update,
  mul: (old, update) => old * update,
  min: Math.min,
  max: Math.max,
} as const satisfies Record<string, reference.Reduce>;

/** Small whole numbers, whose sums and products every type has. */
function small(type: "f32" | "f16" | "i32", shape: readonly number[], seed: number) {
  const next = uniform(seed);
  const data = Float32Array.from({ length: countOf(shape) }, () => Math.floor(5 * next()) - 2);
  const of = type === "f16"
    ? Float16Array.from(data)
    : type === "i32"
    ? Int32Array.from(data)
    : data;
  return { data, shape, of };
}

// [data, indices, axis]: equal indices along the axis, fewer than there are along others.
const ELEMENTS: readonly (readonly [number[], number[], number])[] = [
  [[5], [4], 0],
  [[3, 3], [2, 3], 0],
  [[4, 5, 6], [3, 4, 6], 1],
  [[4, 5, 6], [2, 5, 4], 2],
  [[2, 1, 2, 1, 2, 1, 2, 5], [2, 1, 2, 1, 2, 1, 2, 3], 7],
  [[70, 3], [70, 3], 1],
  [[3], [0], 0],
];

// [data, indices of tuples].
const TUPLES: readonly (readonly [number[], number[]])[] = [
  [[8], [4, 1]],
  [[4, 4, 4], [2, 1]],
  [[4, 5, 6], [3, 2, 2]],
  [[4, 5, 6], [7, 3]],
  [[2, 1, 2, 1, 2, 1, 2, 2], [3, 8]],
  [[3, 70], [3, 1]],
  [[3, 2], [0, 1]],
];

Deno.test("recordScatter() writes and reduces elements and slices, equal indices in order", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (const [name, reduce] of Object.entries(REDUCTIONS)) {
      const reduction = name as keyof typeof REDUCTIONS;
      // Integers have one zero.
      const plain = (values: number[]) => type === "i32" ? values.map((v) => v | 0) : values;
      const run = async (
        compiled: CompiledScatter,
        tensors: Record<"data" | "indices" | "updates", Tensor>,
      ) => {
        const output = new Tensor(gpu, type, tensors.data.shape);
        const batch = new Batch(gpu);
        recordScatter(batch, compiled, { ...tensors, output });
        batch.submit();
        return await numbersOf(output);
      };
      for (const [shape, ofIndices, axis] of ELEMENTS) {
        const data = small(type, shape, 1), updates = small(type, ofIndices, 2);
        const next = uniform(3), size = shape[axis]!;
        const positions = Int32Array.from(
          { length: countOf(ofIndices) },
          () => Math.floor((2 * next() - 1) * size),
        );
        const tensors = {
          data: tensorOf(gpu, data.of, shape),
          indices: tensorOf(gpu, positions, ofIndices),
          updates: tensorOf(gpu, updates.of, ofIndices),
        };
        const compiled = await compileScatterElements(
          gpu,
          tensors.data,
          tensors.indices,
          tensors.updates,
          axis - shape.length,
          reduction,
        );
        assert.deepEqual(
          await run(compiled, tensors),
          plain(
            reference.scatterElements(
              data,
              { data: positions, shape: ofIndices },
              updates,
              axis,
              reduce,
            ),
          ),
          `${type} ${name} [${shape}] by [${ofIndices}] along ${axis}`,
        );
      }
      for (const [shape, ofIndices] of TUPLES) {
        const tuple = ofIndices.at(-1)!;
        const ofUpdates = [...ofIndices.slice(0, -1), ...shape.slice(tuple)];
        const data = small(type, shape, 4), updates = small(type, ofUpdates, 5);
        const next = uniform(6);
        // Without a reduction equal tuples may win in any order: there is one of each.
        const seen = new Set<string>();
        const positions = new Int32Array(countOf(ofIndices));
        for (let n = 0; n < positions.length; n += tuple) {
          let list: number[];
          do list = shape.slice(0, tuple).map((size) => Math.floor(next() * size)); while (
            reduction === "none" && seen.has(list.join())
          );
          seen.add(list.join());
          positions.set(list.map((v, t) => n % 2 === 0 ? v : v - shape[t]!), n);
        }
        const tensors = {
          data: tensorOf(gpu, data.of, shape),
          indices: tensorOf(gpu, positions, ofIndices),
          updates: tensorOf(gpu, updates.of, ofUpdates),
        };
        const compiled = await compileScatterNd(
          gpu,
          tensors.data,
          tensors.indices,
          tensors.updates,
          reduction,
        );
        assert.deepEqual(
          await run(compiled, tensors),
          plain(reference.scatterNd(data, { data: positions, shape: ofIndices }, updates, reduce)),
          `${type} ${name} [${shape}] by tuples [${ofIndices}]`,
        );
      }
    }
  }
});

Deno.test("what scatters refuses what does not fit", async () => {
  const gpu = await sharedGpu();
  const f32 = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const i32 = (...shape: number[]) => new Tensor(gpu, "i32", shape);
  await assert.rejects(compileScatterElements(gpu, f32(3), f32(2), f32(2)), RangeError);
  await assert.rejects(compileScatterElements(gpu, f32(3), i32(2), f32(3)), RangeError);
  await assert.rejects(compileScatterElements(gpu, f32(3, 3), i32(2, 4), f32(2, 4)), RangeError);
  await assert.rejects(compileScatterNd(gpu, f32(3, 3), i32(2, 3), f32(2)), RangeError);
  await assert.rejects(compileScatterNd(gpu, f32(3, 3), i32(2, 1), f32(2)), RangeError);
});
