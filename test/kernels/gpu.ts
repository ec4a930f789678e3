/** One device for a test file. Any adapter will do; where there is none the tests say so and fail. */

import { Gpu } from "../../kernels/device.ts";
import { type CompiledCopy, recordCopy } from "../../kernels/copy.ts";
import { Batch, type Recorder } from "../../kernels/kernel.ts";
import { Tensor, type TensorData } from "../../kernels/tensor.ts";

let opened: Promise<Gpu | undefined> | undefined;

/** The device that all tests of a process share. */
export async function sharedGpu(): Promise<Gpu> {
  const gpu = await (opened ??= Gpu.open({ adapter: Deno.env.get("ADAPTER") }));
  if (gpu === undefined) throw new Error("There is no adapter: run `deno task setup`");
  return gpu;
}

/** A tensor of one axis that holds `data`, or of another shape. */
export function tensorOf(
  gpu: Gpu,
  data: TensorData,
  shape: readonly number[] = [data.length],
): Tensor {
  return Tensor.from(gpu, data, shape);
}

/** Types that kernels move: four bytes, whole numbers, and two bytes where the device has f16. */
export function movableTypes(gpu: Gpu): readonly ("f32" | "f16" | "i32")[] {
  return gpu.features.has("shader-f16") ? ["f32", "i32", "f16"] : ["f32", "i32"];
}

/** What a copy makes of `input`. */
export async function moved(gpu: Gpu, input: Tensor, compiled: CompiledCopy): Promise<number[]> {
  const output = new Tensor(gpu, compiled.output.type, compiled.output.shape);
  const batch = new Batch(gpu);
  recordCopy(batch, compiled, { input, output });
  batch.submit();
  return await numbersOf(output);
}

/**
 * A recorder that records into `recorder`, on a device that claims to allow `most` workgroups a side:
 * for grids that need y where a tensor of more than 65535 workgroups would not fit into memory.
 */
export function narrowRecorder(recorder: Recorder, most: number): Recorder {
  const limits = { maxComputeWorkgroupsPerDimension: most };
  return {
    gpu: Object.create(recorder.gpu, { limits: { value: limits } }) as Gpu,
    dispatch(pipeline, args, workgroups) {
      if (workgroups.some((side) => side! > most)) throw new RangeError(`${workgroups} > ${most}`);
      recorder.dispatch(pipeline, args, workgroups);
    },
  };
}

/** The elements of a tensor of any type but u8. */
export async function numbersOf(tensor: Tensor): Promise<number[]> {
  const bytes = await tensor.readBytes();
  if (tensor.type === "f16") return [...new Float16Array(bytes)];
  if (tensor.type === "i32") return [...new Int32Array(bytes)];
  if (tensor.type === "u32") return [...new Uint32Array(bytes)];
  return [...new Float32Array(bytes)];
}

/**
 * Largest of |actual − expected| / bound, over all elements: at most 1 passes.
 * `magnitudes` are Σ|terms| of each sum; an f32 sum of `terms` products is off by at most
 * terms · 2⁻²⁴ · Σ|terms| (Higham, Accuracy and Stability of Numerical Algorithms, §3.1), and WGSL
 * allows each operation to be as exact as IEEE's at best, so the bound is taken twice.
 */
export function worstError(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  magnitudes: ArrayLike<number>,
  terms: number,
): number {
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const bound = 2 * (terms + 1) * 2 ** -24 * magnitudes[i]! + 1e-30;
    const error = Math.abs(actual[i]! - expected[i]!) / bound;
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  return worst;
}
