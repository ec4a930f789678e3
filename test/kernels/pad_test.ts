import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import {
  compileConcatChannels,
  compilePad,
  compileSliceChannels,
  recordConcatChannels,
  recordPad,
} from "../../kernels/pad.ts";
import { countOf } from "../../kernels/strides.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/movement.ts";
import { movableTypes, numbersOf, sharedGpu, tensorOf } from "./gpu.ts";

// [shape, before, after]: rows whole, padded and cropped, by more than there is, rank 0 to 8.
const PADS: readonly (readonly [number[], number[], number[]])[] = [
  [[], [], []],
  [[3], [2], [3]],
  [[1], [3], [2]],
  [[5], [-1], [2]],
  [[2, 3], [0, 7], [1, 8]],
  [[2, 3, 4], [0, 1, 0], [0, 2, 0]],
  [[2, 3, 8], [1, 0, 4], [2, 0, 8]],
  [[2, 3, 8], [1, 0, 0], [0, 1, -4]],
  [[1, 3, 4, 5], [0, 0, 1, 1], [0, 0, 1, 1]],
  [[2, 1, 2, 1, 2, 1, 2, 3], [0, 1, 0, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 1, 0, 2]],
  [[2, 2], [-2, 0], [0, 0]],
];

Deno.test("recordPad() pads in every mode, with and without a constant", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu)) {
    const make = (data: number[], shape: readonly number[]) =>
      tensorOf(
        gpu,
        type === "f16"
          ? Float16Array.from(data)
          : type === "i32"
          ? Int32Array.from(data)
          : Float32Array.from(data),
        shape,
      );
    for (const [shape, before, after] of PADS) {
      const data = Array.from({ length: countOf(shape) }, (_, i) => i + 1);
      const input = make(data, shape);
      for (const mode of ["constant", "reflect", "edge", "wrap"] as const) {
        for (const fill of mode === "constant" ? [false, true] : [false]) {
          const constant = fill ? make([-3], [1]) : undefined;
          const compiled = await compilePad(gpu, input, before, after, { mode, fill });
          const output = new Tensor(gpu, type, compiled.output.shape);
          const batch = new Batch(gpu);
          recordPad(batch, compiled, { input, constant, output });
          batch.submit();
          assert.deepEqual(
            await numbersOf(output),
            reference.pad({ data, shape }, before, after, mode, fill ? -3 : 0),
            `${type} ${mode} [${shape}] by [${before}] and [${after}]`,
          );
        }
      }
    }
  }
});

Deno.test("recordPad() pads with −∞, as pools need", async () => {
  const gpu = await sharedGpu();
  const input = tensorOf(gpu, Float32Array.of(1, 2, 3, 4), [1, 4]);
  const constant = tensorOf(gpu, Float32Array.of(-Infinity));
  const compiled = await compilePad(gpu, input, [0, 1], [1, 0], { fill: true });
  const output = new Tensor(gpu, "f32", [2, 5]);
  const batch = new Batch(gpu);
  recordPad(batch, compiled, { input, constant, output });
  batch.submit();
  const no = -Infinity;
  assert.deepEqual(await numbersOf(output), [no, 1, 2, 3, 4, no, no, no, no, no]);
  assert.throws(
    () => recordPad(batch, compiled, { input, output }),
    /constant f32 \[1\] is needed/,
  );
  await assert.rejects(compilePad(gpu, input, [0, -3], [0, -2]), RangeError);
  await assert.rejects(
    compilePad(gpu, new Tensor(gpu, "f32", [0]), [1], [0], { mode: "edge" }),
    RangeError,
  );
});

/** Channels-last data of `channels`, and zeros behind. */
function channelsLast(pixels: number, channels: number, first: number): number[] {
  const padded = 4 * Math.ceil(channels / 4);
  return Array.from(
    { length: pixels * padded },
    (_, i) => i % padded < channels ? first + Math.floor(i / padded) * channels + i % padded : 0,
  );
}

Deno.test("recordConcatChannels() joins any numbers of channels, the padding zero", async () => {
  const gpu = await sharedGpu();
  for (const type of movableTypes(gpu).filter((type) => type !== "i32")) {
    for (
      const numbers of [[4, 8], [3, 3], [1, 1, 1, 1, 1], [5, 4, 2], [64, 32], [3], [8, 3], [3, 8]]
    ) {
      const pixels = 6;
      const inputs = numbers.map((channels, i) => {
        const data = channelsLast(pixels, channels, 100 * i + 1);
        const shape = [1, 2, 3, data.length / pixels];
        const of = type === "f16" ? Float16Array.from(data) : Float32Array.from(data);
        return { data, channels, tensor: tensorOf(gpu, of, shape) };
      });
      const compiled = await compileConcatChannels(
        gpu,
        inputs.map(({ channels, tensor: { type, shape } }) => ({ type, shape, channels })),
      );
      const length = countOf(compiled.output.shape);
      const output = tensorOf(
        gpu,
        type === "f16" ? new Float16Array(length).fill(9) : new Float32Array(length).fill(9),
        compiled.output.shape,
      );
      const batch = new Batch(gpu);
      recordConcatChannels(batch, compiled, {
        inputs: inputs.map(({ tensor }) => tensor),
        output,
      });
      batch.submit();
      const expected: number[] = [];
      for (let pixel = 0; pixel < pixels; pixel++) {
        for (const { data, channels } of inputs) {
          const row = data.length / pixels;
          expected.push(...data.slice(pixel * row, pixel * row + channels));
        }
        while (expected.length % 4 !== 0) expected.push(0);
      }
      assert.deepEqual(await numbersOf(output), expected, `${type} ${numbers}`);
    }
  }
});

Deno.test("compileSliceChannels() cuts channels anywhere, the padding zero", async () => {
  const gpu = await sharedGpu();
  for (
    const [channels, start, end] of [[8, 4, 8], [10, 3, 9], [7, 0, 5], [5, 4, 5], [
      6,
      2,
      2,
    ]] as const
  ) {
    const data = channelsLast(6, channels, 1);
    const row = data.length / 6;
    const input = tensorOf(gpu, Float32Array.from(data), [2, 3, row]);
    const compiled = await compileSliceChannels(
      gpu,
      { ...input, type: "f32", shape: input.shape, channels },
      start,
      end,
    );
    const padded = 4 * Math.ceil((end - start) / 4);
    const output = tensorOf(gpu, new Float32Array(6 * padded).fill(9), [2, 3, padded]);
    const batch = new Batch(gpu);
    recordPad(batch, compiled, { input, output });
    batch.submit();
    const expected = Array.from({ length: 6 }, (_, pixel) => {
      const own = data.slice(pixel * row + start, pixel * row + end);
      return [...own, ...new Array<number>(padded - own.length).fill(0)];
    }).flat();
    assert.deepEqual(await numbersOf(output), expected, `${start} to ${end} of ${channels}`);
  }
});
