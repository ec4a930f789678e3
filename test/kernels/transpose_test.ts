import assert from "node:assert/strict";
import { type CompiledCopy, recordCopy } from "../../kernels/copy.ts";
import { Batch } from "../../kernels/kernel.ts";
import { countOf } from "../../kernels/strides.ts";
import { Tensor } from "../../kernels/tensor.ts";
import {
  compileFromChannelsLast,
  compileToChannelsLast,
  compileTranspose,
  depthToSpace,
  spaceToDepth,
} from "../../kernels/transpose.ts";
import * as reference from "../reference/movement.ts";
import { movableTypes, moved, sharedGpu, tensorOf } from "./gpu.ts";

function counted(shape: readonly number[]): Float32Array {
  return Float32Array.from({ length: countOf(shape) }, (_, i) => i % 2039 - 7);
}

// Either side of blocks of 4 and tiles of 32, rows whole and turned, batches between, rank 0 to 8.
const PERMUTATIONS: readonly (readonly [number[], number[]])[] = [
  [[], []],
  [[5], [0]],
  [[1, 1], [1, 0]],
  [[3, 5], [1, 0]],
  [[4, 8], [1, 0]],
  [[31, 33], [1, 0]],
  [[32, 64], [1, 0]],
  [[36, 65], [1, 0]],
  [[2, 3, 4], [0, 2, 1]],
  [[2, 3, 4], [1, 0, 2]],
  [[2, 3, 4], [2, 1, 0]],
  [[2, 3, 4], [2, 0, 1]],
  [[2, 3, 4], [1, 2, 0]],
  [[2, 12, 8, 4], [0, 2, 1, 3]],
  [[2, 12, 8, 4], [0, 2, 3, 1]],
  [[2, 5, 7, 3], [3, 0, 2, 1]],
  [[2, 3, 2, 3, 2, 3, 2, 3], [7, 6, 5, 4, 3, 2, 1, 0]],
  [[2, 3, 2, 3, 2, 3, 2, 3], [0, 2, 1, 4, 3, 6, 5, 7]],
  [[0, 3], [1, 0]],
];

Deno.test("compileTranspose() permutes axes of every type", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (const [shape, permutation] of PERMUTATIONS) {
      const data = counted(shape);
      const of = type === "f16"
        ? Float16Array.from(data)
        : type === "i32"
        ? Int32Array.from(data)
        : data;
      const input = tensorOf(gpu, of, shape);
      const actual = await moved(gpu, input, await compileTranspose(gpu, input, permutation));
      const expected = reference.transpose({ data, shape }, permutation);
      assert.deepEqual(actual, expected, `${type} [${shape}] by [${permutation}]`);
    }
  }
});

Deno.test("compileTranspose() of more tiles than a workgroup, and no permutation", async () => {
  const gpu = await sharedGpu();
  const shape = [3, 130, 70];
  const data = counted(shape);
  const input = tensorOf(gpu, data, shape);
  const actual = await moved(gpu, input, await compileTranspose(gpu, input, [2, 0, 1]));
  assert.deepEqual(actual, reference.transpose({ data, shape }, [2, 0, 1]));
  await assert.rejects(compileTranspose(gpu, input, [0, 0, 1]), /is no permutation/);
  await assert.rejects(compileTranspose(gpu, input, [0, 1]), RangeError);
});

Deno.test("channels-last conversions pad channels with zeros, take them off and convert", async () => {
  const gpu = await sharedGpu();
  const types = gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const;
  const run = (compiled: CompiledCopy, input: Tensor, output: Tensor) => {
    const batch = new Batch(gpu);
    recordCopy(batch, compiled, { input, output });
    batch.submit();
  };
  for (const from of types) {
    for (const to of types) {
      for (
        const shape of [
          [1, 1, 1, 1],
          [2, 3, 5, 7],
          [1, 4, 4, 4],
          [2, 5, 2, 2],
          [3, 17, 4, 9],
          [1, 36, 11, 13],
          [2, 64, 8, 8],
          [2, 3],
          [2, 3, 9],
          [1, 3, 2, 3, 4],
          [0, 3, 2, 2],
        ]
      ) {
        const data = counted(shape);
        const dense = tensorOf(gpu, from === "f16" ? Float16Array.from(data) : data, shape);
        const [n, c, ...spatial] = shape as [number, number, ...number[]];
        const there = await compileToChannelsLast(gpu, dense, to);
        const padded = 4 * Math.ceil(c / 4);
        assert.deepEqual(there.output.shape, [n, ...spatial, padded]);
        // Memory that held something else: the padding must be written.
        const last = tensorOf(
          gpu,
          to === "f16"
            ? new Float16Array(countOf(there.output.shape)).fill(9)
            : new Float32Array(countOf(there.output.shape)).fill(9),
          there.output.shape,
        );
        run(there, dense, last);
        const pixels = countOf(spatial);
        const expected = Array.from({ length: n * pixels * padded }, (_, i) => {
          const channel = i % padded, pixel = Math.floor(i / padded) % pixels;
          const image = Math.floor(i / padded / pixels);
          return channel < c ? data[(image * c + channel) * pixels + pixel]! : 0;
        });
        assert.deepEqual([...await last.readFloats()], expected, `${from} → ${to} [${shape}]`);
        const back = await compileFromChannelsLast(gpu, dense, to);
        const output = new Tensor(gpu, from, shape);
        run(back, last, output);
        assert.deepEqual([...await output.readFloats()], [...data], `${to} → ${from} [${shape}]`);
      }
    }
  }
  await assert.rejects(compileToChannelsLast(gpu, new Tensor(gpu, "i32", [1, 3, 2])), RangeError);
});

Deno.test("compileToChannelsLast() turns what overflows f16 into an infinity", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return console.log("skipped: no f16");
  const input = tensorOf(gpu, Float32Array.of(70000, -1e9, 65504, 1), [1, 4, 1]);
  const actual = await moved(gpu, input, await compileToChannelsLast(gpu, input, "f16"));
  assert.deepEqual(actual, [Infinity, -Infinity, 65504, 1]);
});

Deno.test("depthToSpace() and spaceToDepth() are ONNX's examples and each other's inverse", () => {
  // ONNX DepthToSpace-13: DCR takes b²·C′ channels as [b, b, C′], CRD as [C′, b, b].
  const shape = [1, 8, 2, 3];
  const input = { data: Array.from({ length: 48 }, (_, i) => i), shape };
  for (const mode of ["DCR", "CRD"] as const) {
    const { view, permutation, shape: to } = depthToSpace(shape, 2, mode);
    assert.deepEqual(to, [1, 2, 4, 6]);
    const output = reference.transpose({ ...input, shape: view }, permutation);
    // Row 0 of channel 0 takes by turns from blocks (0, 0) and (0, 1).
    const other = mode === "DCR" ? 2 * 6 : 6;
    assert.deepEqual(output.slice(0, 6), [0, other, 1, other + 1, 2, other + 2]);
    if (mode === "DCR") {
      const back = spaceToDepth(to, 2);
      assert.deepEqual(back.shape, shape);
      const again = reference.transpose({ data: output, shape: back.view }, back.permutation);
      assert.deepEqual(again, input.data);
    }
  }
  assert.throws(() => depthToSpace([1, 6, 2, 2], 2), RangeError);
  assert.throws(() => spaceToDepth([1, 1, 3, 2], 2), RangeError);
});
