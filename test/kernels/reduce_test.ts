import assert from "node:assert/strict";
import type { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import {
  compileArgmax,
  compileCumsum,
  type CompiledReduce,
  compileReduce,
  recordArgmax,
  recordCumsum,
  recordReduce,
  REDUCE_OPERATIONS,
  type ReduceOperation,
} from "../../kernels/reduce.ts";
import { countOf } from "../../kernels/strides.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { floats, uniform } from "../reference/random.ts";
import * as reference from "../reference/reduce.ts";
import { movableTypes, narrowRecorder, numbersOf, sharedGpu, tensorOf } from "./gpu.ts";

async function run(gpu: Gpu, compiled: CompiledReduce, input: Tensor, most?: number) {
  const output = new Tensor(gpu, compiled.output.type, compiled.output.shape);
  const batch = new Batch(gpu);
  recordReduce(most === undefined ? batch : narrowRecorder(batch, most), compiled, {
    input,
    output,
  });
  batch.submit();
  return await numbersOf(output);
}

// Rows, columns, both alternating, all, none; either side of four, of 64 lanes and of a block of 64.
const CASES: readonly (readonly [number[], number[]])[] = [
  [[], []],
  [[1], [0]],
  [[7], [0]],
  [[3, 4], []],
  [[3, 64], [1]],
  [[3, 65], [1]],
  [[64, 3], [0]],
  [[65, 8], [0]],
  [[3, 257], [1]],
  [[2, 1028], [1]],
  [[2, 3, 4, 5], [0, 1, 2, 3]],
  [[2, 3, 4, 5], [1, 3]],
  [[2, 3, 4, 5], [0, 2]],
  [[2, 3, 4, 8], [0, 2]],
  [[2, 3, 4, 8], [1, 3]],
  [[2, 5, 7, 4], [2, 3]],
  [[2, 3, 2, 3, 2, 3, 2, 3], [0, 2, 4, 6]],
  [[2, 3, 2, 3, 2, 3, 2, 3], [1, 3, 5, 7]],
  [[2, 3, 2, 3, 2, 3, 2, 4], [0, 2, 4, 6]],
  [[70, 3, 1], [2]],
];

for (const variant of ["serial", "rows"] as const) {
  Deno.test(`recordReduce() in ${variant} is each operation over any axes`, async () => {
    const gpu = await sharedGpu();
    for (const operation of Object.keys(REDUCE_OPERATIONS) as ReduceOperation[]) {
      for (const [shape, axes] of CASES) {
        const positive = operation === "log_sum";
        const data = floats(countOf(shape), 1).map((v) => positive ? v + 1.5 : 2 * v);
        const input = tensorOf(gpu, data, shape);
        const actual = await run(
          gpu,
          await compileReduce(gpu, operation, input, axes, { variant }),
          input,
        );
        const expected = reference.reduce(operation, { data, shape }, axes);
        const sizes = reference.magnitudes({ data, shape }, axes, /square|l2/.test(operation));
        const terms = axes.reduce((product, axis) => product * shape[axis]!, 1);
        for (const [i, v] of actual.entries()) {
          // A sum of n terms is off by n · 2⁻²⁴ · Σ|terms| at most (Higham §3.1), here by less; a
          // product by n ulp of itself; a logarithm by its sum's relative error, and WGSL's log by
          // 2⁻²¹ near 1 (§15.7.4.1); exp by 3 + 2·|x| ulp with x up to 4.
          const u = 2 ** -24;
          const e = expected[i]!;
          const bound = operation === "max" || operation === "min"
            ? 0
            : operation === "prod"
            ? 2 * (terms + 1) * u * Math.abs(e)
            : operation === "l2"
            ? (terms + 4) * u * e
            : operation === "log_sum" || operation === "log_sum_exp"
            ? (terms + 24) * u + 2 ** -21 + 4 * u * Math.abs(e)
            : 2 * (terms + 1) * u * sizes[i]! / (operation === "mean" ? terms : 1);
          assert.ok(
            Math.abs(v - e) <= bound + 1e-38,
            `${operation} [${shape}] over [${axes}]: ${v}, not ${e}`,
          );
        }
        assert.equal(actual.length, expected.length);
      }
    }
  });

  Deno.test(`recordReduce() in ${variant} keeps the error of long sums small`, async () => {
    const gpu = await sharedGpu();
    // 0.1 is no binary fraction: 2²⁰ of them one after the other in f32 are off by 1 %.
    for (const length of [1 << 20, (1 << 20) - 3]) {
      const data = new Float32Array(length).fill(0.1);
      const input = tensorOf(gpu, data, [1, length]);
      const [sum] = await run(gpu, await compileReduce(gpu, "sum", input, [1], { variant }), input);
      const expected = Math.fround(0.1) * length;
      // Blocks of 64 terms, then length / 64 of them, in four lanes where length is a multiple of
      // four; a lane of the rows takes length / 256. Errors of one sign grow with half of that.
      const depth = variant === "serial" ? 64 + length / 64 : length / 256 + 8;
      assert.ok(Math.abs(sum! / expected - 1) <= depth * 2 ** -24, `${sum} not ${expected}`);
      assert.ok(Math.abs(sum! / expected - 1) <= 1e-3);
    }
  });

  Deno.test(`recordReduce() in ${variant} of infinities, of nothing, and of what overflows`, async () => {
    const gpu = await sharedGpu();
    const no = -Infinity;
    const masks = tensorOf(gpu, Float32Array.of(no, no, no, no, 1, no, 2, no), [2, 4]);
    const of = async (operation: ReduceOperation, input: Tensor) =>
      await run(gpu, await compileReduce(gpu, operation, input, [1], { variant }), input);
    assert.deepEqual(await of("max", masks), [no, 2]);
    assert.deepEqual(await of("min", masks), [no, no]);
    const [none, some] = await of("log_sum_exp", masks);
    assert.equal(none, no);
    assert.ok(Math.abs(some! - (2 + Math.log1p(Math.exp(-1)))) < 1e-6);
    // exp(1000) overflows; the largest is taken out.
    const large = await of("log_sum_exp", tensorOf(gpu, Float32Array.of(1000, 1000), [1, 2]));
    assert.ok(Math.abs(large[0]! - 1000 - Math.LN2) < 1e-3);
    const empty = new Tensor(gpu, "f32", [2, 0]);
    for (
      const [operation, value] of [
        ["sum", 0],
        ["prod", 1],
        ["max", no],
        ["min", Infinity],
        ["l1", 0],
        ["l2", 0],
        ["sum_square", 0],
        ["log_sum", no],
        ["log_sum_exp", no],
      ] as const
    ) assert.deepEqual(await of(operation, empty), [value, value], operation);
    assert.deepEqual(
      await run(
        gpu,
        await compileReduce(gpu, "sum", new Tensor(gpu, "f32", [0, 3]), [1], { variant }),
        new Tensor(gpu, "f32", [0, 3]),
      ),
      [],
    );
    if (!gpu.features.has("shader-f16")) return;
    // Summed in f32: the mean of what overflows f16 in the sum is right.
    const halves = tensorOf(gpu, new Float16Array(64).fill(60000), [1, 64]);
    assert.deepEqual(await of("mean", halves), [60000]);
    assert.deepEqual(await of("sum", halves), [Infinity]);
  });

  Deno.test(`recordReduce() in ${variant} of integers is exact`, async () => {
    const gpu = await sharedGpu();
    const next = uniform(2);
    const signed = Int32Array.from({ length: 3 * 67 }, () => Math.floor(2e7 * (next() - 0.5)));
    const unsigned = Uint32Array.from({ length: 3 * 67 }, () => Math.floor(4e7 * next()) + 2 ** 24);
    for (const data of [signed, unsigned]) {
      const input = tensorOf(gpu, data, [3, 67]);
      for (const operation of ["sum", "mean", "max", "min", "l1"] as const) {
        const compiled = await compileReduce(gpu, operation, input, [-1], { variant });
        const expected = reference.reduce(operation, { data, shape: [3, 67] }, [1]);
        assert.deepEqual(await run(gpu, compiled, input), expected.map(Math.trunc), operation);
      }
    }
    const bools = tensorOf(gpu, Uint32Array.of(0, 1, 0, 0), [2, 2]);
    assert.deepEqual(
      await run(gpu, await compileReduce(gpu, "max", bools, [1], { variant }), bools),
      [1, 0],
    );
  });

  Deno.test(`recordReduce() in ${variant} fills a grid of more workgroups than go along x`, async () => {
    const gpu = await sharedGpu();
    const shape = variant === "rows" ? [61, 8] : [61 * 64, 8];
    const data = floats(countOf(shape), 3);
    const input = tensorOf(gpu, data, shape);
    const compiled = await compileReduce(gpu, "max", input, [1], { variant });
    assert.deepEqual(
      await run(gpu, compiled, input, 8),
      reference.reduce("max", { data, shape }, [1]),
    );
  });
}

Deno.test("compileReduce() gives kept and removed axes, and refuses what is not there", async () => {
  const gpu = await sharedGpu();
  const input = new Tensor(gpu, "f32", [2, 3, 4]);
  assert.deepEqual((await compileReduce(gpu, "sum", input, [0, -1])).output.shape, [1, 3, 1]);
  assert.deepEqual(
    (await compileReduce(gpu, "sum", input, [0, -1], { keepDims: false })).output.shape,
    [3],
  );
  await assert.rejects(compileReduce(gpu, "sum", input, [3]), RangeError);
  await assert.rejects(compileReduce(gpu, "sum", input, [0, -3]), /twice/);
  const compiled = await compileReduce(gpu, "sum", input, [0]);
  const batch = new Batch(gpu);
  assert.throws(() => recordReduce(batch, compiled, { input, output: input }), RangeError);
});

Deno.test("recordArgmax() finds the first or last of the largest or smallest", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (
      const [shape, axis] of [
        [[1], 0],
        [[2, 7], 1],
        [[5, 8], 0],
        [[5, 9], 0],
        [[2, 3, 4, 5], 1],
        [[2, 11, 4, 4], 1],
        [[3, 100], 1],
        [[70, 3], 1],
        [[0, 3], 1],
      ] as [number[], number][]
    ) {
      const next = uniform(4);
      // Few values, so that many are equal.
      const data = Float32Array.from({ length: countOf(shape) }, () => Math.floor(7 * next()) - 3);
      const of = type === "f16"
        ? Float16Array.from(data)
        : type === "i32"
        ? Int32Array.from(data)
        : data;
      const input = tensorOf(gpu, of, shape);
      for (const smallest of [false, true]) {
        for (const selectLastIndex of [false, true]) {
          const compiled = await compileArgmax(gpu, input, axis, { smallest, selectLastIndex });
          const output = new Tensor(gpu, "i32", compiled.output.shape);
          const batch = new Batch(gpu);
          recordArgmax(batch, compiled, { input, output });
          batch.submit();
          const expected = reference.argmax({ data, shape }, axis, smallest, selectLastIndex);
          assert.deepEqual(await numbersOf(output), expected, `${type} [${shape}] along ${axis}`);
        }
      }
    }
  }
  const masked = tensorOf(gpu, Float32Array.of(-Infinity, -Infinity, 3, -Infinity));
  const compiled = await compileArgmax(gpu, masked, 0, { keepDims: false });
  assert.deepEqual(compiled.output.shape, []);
  const output = new Tensor(gpu, "i32", []);
  const batch = new Batch(gpu);
  recordArgmax(batch, compiled, { input: masked, output });
  batch.submit();
  assert.deepEqual(await numbersOf(output), [2]);
  await assert.rejects(compileArgmax(gpu, new Tensor(gpu, "f32", [2, 0]), 1), RangeError);
});

Deno.test("recordCumsum() sums up to each element, both ways", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    for (
      const [shape, axis] of [[[1], 0], [[5], 0], [[2, 67], 1], [[3, 4, 5], 1], [[0, 2], 1]] as [
        number[],
        number,
      ][]
    ) {
      const next = uniform(5);
      // Whole numbers whose sums f16 has as well: nothing is rounded.
      const data = Float32Array.from({ length: countOf(shape) }, () => Math.floor(9 * next()) - 4);
      const of = type === "f16"
        ? Float16Array.from(data)
        : type === "i32"
        ? Int32Array.from(data)
        : data;
      const input = tensorOf(gpu, of, shape);
      for (const reverse of [false, true]) {
        for (const exclusive of [false, true]) {
          const compiled = await compileCumsum(gpu, input, axis, { reverse, exclusive });
          const output = new Tensor(gpu, type, shape);
          const batch = new Batch(gpu);
          recordCumsum(batch, compiled, { input, output });
          batch.submit();
          const expected = reference.cumsum({ data, shape }, axis, reverse, exclusive);
          assert.deepEqual(await numbersOf(output), expected, `${type} [${shape}] along ${axis}`);
        }
      }
    }
  }
});
