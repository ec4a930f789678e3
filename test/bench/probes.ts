/**
 * What a device can do at most, measured by kernels that do nothing else: multiplying and adding in
 * registers, matrices of subgroups in registers, copying more than any cache holds. Each is tried in
 * several shapes and the best counts: a ceiling is what somebody reached.
 */

import type { Gpu, SubgroupMatrixConfig } from "../../kernels/device.ts";
import { defineKernel, rowOfWorkgroups } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { randomTensor } from "../../kernels/tuner.ts";
import type { Timer } from "./timer.ts";

/** Rates per second, for `ceilingOf`. */
export interface Ceilings {
  /** Operations of f32, a multiplication with its addition two. */
  readonly f32: number;
  /** Operations of f16 summed in f32 by subgroup matrices; undefined where the adapter has none. */
  readonly matrix: number | undefined;
  /** The shape of matrices that reached it, such as "16×16×16". */
  readonly matrixShape: string | undefined;
  /** Bytes read and written by a copy. */
  readonly copy: number;
}

/** Milliseconds below which no run of the work can be, and what sets the bound. */
export function ceilingOf(
  { f32, matrix, copy }: Ceilings,
  { operations = 0, bytes, type }: {
    readonly operations?: number;
    readonly bytes: number;
    readonly type?: "f32" | "f16";
  },
): { readonly milliseconds: number; readonly bound: "arithmetic" | "memory" } {
  const arithmetic = operations / (type === "f16" ? matrix ?? f32 : f32);
  const memory = bytes / copy;
  return {
    milliseconds: 1000 * Math.max(arithmetic, memory),
    bound: arithmetic > memory ? "arithmetic" : "memory",
  };
}

const names = (count: number, of: string) => Array.from({ length: count }, (_, i) => `${of}${i}`);

/** Independent sums of one lane that multiply and add, four times in each turn of a loop. */
function multiplyAdd(sums: number, lanes: number) {
  const turn = names(sums, "s").map((s) => `    ${s} = fma(${s}, factor, summand);`).join("\n");
  const code = `
struct Params { turns: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> factors: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;
@compute @workgroup_size(${lanes})
fn multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
  let factor = factors[0]; // Below one: sums stay finite.
  let summand = factors[1];
${names(sums, "s").map((s, i) => `  var ${s} = factors[${2 + i}];`).join("\n")}
  for (var i = 0u; i < params.turns; i++) {
${new Array(4).fill(turn).join("\n")}
  }
  output[id.x] = ${names(sums, "s").join(" + ")};
}`;
  return defineKernel({
    name: "multiply_add",
    code,
    params: { turns: "u32" },
    bindings: {
      factors: { type: "array<f32>", access: "read" },
      output: { type: "array<f32>", access: "read_write" },
    },
    overrides: {},
  });
}

/** `rows` × `columns` products of one subgroup, all of whose factors stay in registers. */
function multiplyMatrices(
  { M, N, K }: SubgroupMatrixConfig,
  rows: number,
  columns: number,
  lanes: number,
) {
  const left = `subgroup_matrix_left<f16, ${K}, ${M}>`;
  const right = `subgroup_matrix_right<f16, ${N}, ${K}>`;
  const sum = `subgroup_matrix_result<f32, ${N}, ${M}>`;
  const cells = names(rows, "a").flatMap((a, i) =>
    names(columns, "b").map((b, j) => ({ a, b, s: `s${i}_${j}`, at: i * columns + j }))
  );
  const code = `
enable f16;
enable chromium_experimental_subgroup_matrix;
struct Params { turns: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> factors: array<f16>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;
var<workgroup> panel: array<f16, ${4 * Math.max(M, N) * K}>;
var<workgroup> sums: array<f32, ${cells.length * M * N}>;
@compute @workgroup_size(${lanes})
fn multiply_matrices(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var i = lane; i < ${4 * Math.max(M, N) * K}u; i += ${lanes}u) { panel[i] = factors[i]; }
  workgroupBarrier(); // The panel is whole.
${
    names(rows, "a").map((a, i) =>
      `  let ${a} = subgroupMatrixLoad<${left}, row_major>(&panel, ${i * M * K}u, ${K}u);`
    ).join("\n")
  }
${
    names(columns, "b").map((b, i) =>
      `  let ${b} = subgroupMatrixLoad<${right}, row_major>(&panel, ${i * K * N}u, ${N}u);`
    ).join("\n")
  }
${cells.map(({ s }) => `  var ${s} = ${sum}();`).join("\n")}
  for (var i = 0u; i < params.turns; i++) {
${
    cells.map(({ s, a, b }) => `    ${s} = subgroupMatrixMultiplyAccumulate(${a}, ${b}, ${s});`)
      .join("\n")
  }
  }
${
    cells.map(({ s, at }) =>
      `  subgroupMatrixStore<row_major>(&sums, ${at * M * N}u, ${s}, ${N}u);`
    ).join("\n")
  }
  workgroupBarrier(); // All sums are stored.
  var total = 0.0;
  for (var i = lane; i < ${cells.length * M * N}u; i += ${lanes}u) { total += sums[i]; }
  output[group.x * ${lanes}u + lane] = total;
}`;
  return defineKernel({
    name: "multiply_matrices",
    code,
    params: { turns: "u32" },
    bindings: {
      factors: { type: "array<f16>", access: "read" },
      output: { type: "array<f32>", access: "read_write" },
    },
    overrides: {},
    features: ["shader-f16", "chromium-experimental-subgroup-matrix"],
  });
}

/** Sixteen bytes an invocation at a time, `each` times a workgroup's width apart. */
function copyBytes(each: number) {
  const code = `
struct Params { count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<u32>>;
@compute @workgroup_size(256)
fn copy_bytes(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * ${256 * each}u + lane;
  if (first + ${256 * (each - 1)}u < params.count) {
${names(each, "v").map((v, i) => `    let ${v} = input[first + ${256 * i}u];`).join("\n")}
${names(each, "v").map((v, i) => `    output[first + ${256 * i}u] = ${v};`).join("\n")}
  }
}`;
  return defineKernel({
    name: "copy_bytes",
    code,
    params: { count: "u32" },
    bindings: {
      input: { type: "array<vec4<u32>>", access: "read" },
      output: { type: "array<vec4<u32>>", access: "read_write" },
    },
    overrides: {},
  });
}

/** Turns of a loop: long beside what comes before and after it. */
const TURNS = { software: 4096, hardware: 2048 } as const;
/** Workgroups on a GPU: several waves on the largest. */
const GROUPS = { software: 64, hardware: 8192 } as const;

async function probeF32(gpu: Gpu, timer: Timer): Promise<number> {
  const kind = gpu.adapter.isSoftware ? "software" : "hardware";
  const turns = TURNS[kind], groups = GROUPS[kind];
  const lanes = gpu.adapter.isSoftware ? 8 : 256;
  let best = 0;
  // Enough sums to hide an addition's latency, few enough for the registers of a CPU.
  for (const sums of [8, 12, 16, 32]) {
    const pipeline = await multiplyAdd(sums, lanes).compile(gpu);
    const factors = Tensor.from(
      gpu,
      Float32Array.from({ length: 2 + sums }, (_, i) => i === 0 ? 0.998 : 0.01 * (i + 1)),
      [2 + sums],
    );
    const output = new Tensor(gpu, "f32", [groups * lanes]);
    const { milliseconds } = await timer.time((recorder) =>
      recorder.dispatch(pipeline, { params: { turns }, bindings: { factors, output } }, [groups])
    );
    best = Math.max(best, 2 * 4 * sums * turns * lanes * groups / milliseconds * 1000);
    factors.destroy();
    output.destroy();
  }
  return best;
}

async function probeMatrices(
  gpu: Gpu,
  timer: Timer,
): Promise<{ rate: number; shape: string } | undefined> {
  const lanes = gpu.subgroupSize;
  if (lanes === undefined || !gpu.features.has("shader-f16")) return undefined;
  const kind = gpu.adapter.isSoftware ? "software" : "hardware";
  const turns = TURNS[kind] / 4, groups = GROUPS[kind];
  let best: { rate: number; shape: string } | undefined;
  for (const config of gpu.subgroupMatrixConfigs) {
    const { componentType, resultComponentType, M, N, K } = config;
    if (componentType !== "f16" || resultComponentType !== "f32") continue;
    for (const [rows, columns] of [[1, 4], [2, 2], [2, 4], [4, 4]] as const) {
      const kernel = multiplyMatrices(config, rows, columns, lanes);
      const pipeline = await kernel.compile(gpu);
      const factors = randomTensor(gpu, "f16", [4 * Math.max(M, N) * K]);
      const output = new Tensor(gpu, "f32", [groups * lanes]);
      const { milliseconds } = await timer.time((recorder) =>
        recorder.dispatch(pipeline, { params: { turns }, bindings: { factors, output } }, [groups])
      );
      const rate = 2 * M * N * K * rows * columns * turns * groups / milliseconds * 1000;
      if (best === undefined || rate > best.rate) best = { rate, shape: `${M}×${N}×${K}` };
      factors.destroy();
      output.destroy();
    }
  }
  return best;
}

async function probeCopy(gpu: Gpu, timer: Timer): Promise<number> {
  const bytes = gpu.adapter.isSoftware ? 96 * 2 ** 20 : 512 * 2 ** 20;
  const input = randomTensor(gpu, "f32", [bytes / 4]);
  const output = new Tensor(gpu, "f32", [bytes / 4]);
  let best = 0;
  for (const each of [1, 2, 4]) {
    const pipeline = await copyBytes(each).compile(gpu);
    const { milliseconds } = await timer.time((recorder) =>
      recorder.dispatch(
        pipeline,
        { params: { count: bytes / 16 }, bindings: { input, output } },
        rowOfWorkgroups(gpu, bytes / 16 / 256 / each),
      )
    );
    best = Math.max(best, 2 * bytes / milliseconds * 1000);
  }
  input.destroy();
  output.destroy();
  return best;
}

/** Measures all. @throws {KernelError} where the device fails. */
export async function measureCeilings(gpu: Gpu, timer: Timer): Promise<Ceilings> {
  const f32 = await probeF32(gpu, timer);
  const matrices = await probeMatrices(gpu, timer);
  const copy = await probeCopy(gpu, timer);
  return { f32, matrix: matrices?.rate, matrixShape: matrices?.shape, copy };
}
