/** The GPU smoke test of both modes: a matrix product, checked against the host, in the template's words. */

import { Gpu } from "../../kernels/device.ts";
import { KernelError } from "../../kernels/errors.ts";
import { Batch } from "../../kernels/kernel.ts";
import { compileMatmul, recordMatmul } from "../../kernels/matmul.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { NO_GPU_ADVICE } from "../context.ts";

const SIZE = 1000;
/** Elements of the product that the host computes too. */
const CHECKED = 64;

/**
 * Opens the GPU, multiplies two 1000×1000 matrices of seeded normal numbers on it and prints what
 * the original template prints.
 * @returns the GPU, or undefined where there is no adapter.
 * @throws {KernelError} where the adapter that was asked for is not there, or computes wrongly.
 */
export async function smokeTest(
  adapter: string | undefined,
  print: (line: string) => void,
): Promise<Gpu | undefined> {
  const gpu = await Gpu.open(adapter === undefined ? {} : { adapter });
  if (gpu === undefined) {
    print("WebGPU is not available. No GPU detected.");
    print(`To compute, ${NO_GPU_ADVICE}.`);
    return undefined;
  }
  const { name, driver, isSoftware } = gpu.adapter;
  print(
    isSoftware
      ? `No GPU found. Using ${name}: a software adapter, slow.`
      : `WebGPU is available! Using GPU: ${name} (${driver})`,
  );
  const compiling = compileMatmul(gpu, { shape: [SIZE, SIZE, SIZE] }); // Goes on while the host draws numbers.
  const numbers = normals(2 * SIZE * SIZE, 1);
  const a = numbers.subarray(0, SIZE * SIZE), b = numbers.subarray(SIZE * SIZE);
  const [left, right] = [
    Tensor.from(gpu, a, [SIZE, SIZE], "a"),
    Tensor.from(gpu, b, [SIZE, SIZE], "b"),
  ];
  const product = new Tensor(gpu, "f32", [SIZE, SIZE], "product");
  const compiled = await compiling;
  await gpu.done();
  const start = performance.now();
  const batch = new Batch(gpu);
  recordMatmul(batch, compiled, { a: left, b: right, product });
  batch.submit();
  await gpu.done();
  const seconds = (performance.now() - start) / 1000;
  const values = await product.readFloats();
  for (const tensor of [left, right, product]) tensor.destroy();
  check(a, b, values);
  print(`Matrix multiplication (${SIZE}x${SIZE}) completed in ${seconds.toFixed(4)} seconds`);
  print(`Result sample: ${values[0]}`);
  return gpu;
}

/** @throws {KernelError} where an element is off by more than f32 sums are. */
function check(a: Float32Array, b: Float32Array, product: Float32Array): void {
  for (let n = 0; n < CHECKED; n++) {
    // Spread over rows and columns, the last ones among them.
    const row = (n * 523 + 999) % SIZE, column = (n * 811 + 999) % SIZE;
    let sum = 0, magnitude = 0;
    for (let k = 0; k < SIZE; k++) {
      const term = a[row * SIZE + k]! * b[k * SIZE + column]!;
      sum += term;
      magnitude += Math.abs(term);
    }
    // A sum of n f32 products is off by at most n · 2⁻²⁴ · Σ|terms| (Higham 2002, §3.1).
    const bound = SIZE * 2 ** -24 * magnitude;
    const actual = product[row * SIZE + column]!;
    if (!(Math.abs(actual - sum) <= bound)) {
      throw new KernelError(
        `Cannot trust the GPU: element (${row}, ${column}) of the product is ${actual}, ` +
          `the host computes ${sum}`,
        "matmul",
      );
    }
  }
}

/** Normal numbers, mean 0 and variance 1: Marsaglia's polar method over a 32-bit xorshift. */
function normals(count: number, seed: number): Float32Array<ArrayBuffer> {
  const values = new Float32Array(count);
  let state = seed | 0 || 1;
  for (let i = 0; i < count; i += 2) {
    let x, y, r;
    do {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      x = state * 2 ** -31;
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      y = state * 2 ** -31;
      r = x * x + y * y;
    } while (r >= 1 || r === 0);
    const scale = Math.sqrt(-2 * Math.log(r) / r);
    values[i] = x * scale;
    values[i + 1] = y * scale;
  }
  return values;
}
