/**
 * OpenBLAS as a peer: its `cblas_sgemm` through Deno's FFI, where the library is installed. In a process
 * of its own, since it decides on a processor's kernels when it is loaded.
 *
 *   deno run -A test/peers/openblas.ts M K N MILLISECONDS
 *
 * prints a line of JSON, an `OpenBlasTime`.
 */

import process from "node:process";
import { floats } from "../reference/random.ts";

const LIBRARY = "libopenblas.so.0";
const ROW_MAJOR = 101, NO_TRANS = 111; // cblas.h

export interface OpenBlasTime {
  /** Version and the processor whose kernels it uses, in its own words. */
  readonly about: string;
  /** Of one product, the least. */
  readonly milliseconds: number;
  /** Of one product over all threads, the mean of the round that took least. */
  readonly cpuMilliseconds: number;
}

/**
 * Times a product of [M, K] and [K, N] for some milliseconds, on all cores.
 * @param processor whose kernels it is to use, such as "Haswell" for AVX2; its own choice otherwise.
 * @returns in words why there is none.
 */
export async function timeOpenBlas(
  shape: readonly [number, number, number],
  milliseconds: number,
  processor?: string,
): Promise<OpenBlasTime | string> {
  const { OPENBLAS_CORETYPE: _, OPENBLAS_L2_SIZE: __, ...env } = Deno.env.toObject();
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      import.meta.filename!,
      ...shape.map(String),
      `${milliseconds}`,
    ],
    env: { ...env, NO_COLOR: "1", ...(processor && { OPENBLAS_CORETYPE: processor }) },
    clearEnv: true,
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  if (success) return JSON.parse(text(stdout).split("\n").at(-1)!);
  return /^error: (?:Uncaught )?(.*)$/m.exec(text(stderr))?.[1] ?? "it cannot be called";
}

function time([rows, inner, columns]: readonly [number, number, number], milliseconds: number) {
  const { symbols } = Deno.dlopen(LIBRARY, {
    cblas_sgemm: {
      // deno-fmt-ignore
      parameters: [
        "i32", "i32", "i32", "i32", "i32", "i32",
        "f32", "buffer", "i32", "buffer", "i32", "f32", "buffer", "i32",
      ],
      result: "void",
    },
    openblas_set_num_threads: { parameters: ["i32"], result: "void" },
    openblas_get_config: { parameters: [], result: "pointer" },
  });
  symbols.openblas_set_num_threads(navigator.hardwareConcurrency);
  const a = floats(rows * inner, 1), b = floats(inner * columns, 2);
  const product = new Float32Array(rows * columns);
  const multiply = () =>
    // deno-fmt-ignore
    symbols.cblas_sgemm(
      ROW_MAJOR, NO_TRANS, NO_TRANS, rows, columns, inner,
      1, a, inner, b, columns, 0, product, columns,
    );
  multiply();
  let least = Infinity, leastCpu = Infinity;
  const begin = performance.now();
  while (least === Infinity || performance.now() - begin < milliseconds) {
    // The process's clock is of some microseconds: a round is of several products.
    const cpu = process.cpuUsage();
    let products = 0;
    for (const round = performance.now(); products < 3 || performance.now() - round < 20;) {
      const start = performance.now();
      multiply();
      least = Math.min(least, performance.now() - start);
      products++;
    }
    const { user, system } = process.cpuUsage(cpu);
    leastCpu = Math.min(leastCpu, (user + system) / 1000 / products);
  }
  const about = new Deno.UnsafePointerView(symbols.openblas_get_config()!).getCString();
  return { about, milliseconds: least, cpuMilliseconds: leastCpu } satisfies OpenBlasTime;
}

if (import.meta.main) {
  const [rows, inner, columns, milliseconds] = Deno.args.map(Number);
  console.log(JSON.stringify(time([rows!, inner!, columns!], milliseconds!)));
}
