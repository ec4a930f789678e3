/**
 * What this machine's GPU does: every kernel's rate beside the ceiling that probes measure, whole
 * networks, nuclei through the whole chain, and other libraries in the same run where they are
 * there. Prints one table and writes test/bench/results/<date>-<device>.json. Under 8 minutes; on a
 * software adapter a shortened set.
 *
 *   deno task bench:gpu [--only TEXT] [--install]
 *
 * `--only` keeps the rows whose name has that text; nothing is written then. `--install` downloads
 * ONNX Runtime where it is not there yet. ADAPTER names an adapter, PYTHON an interpreter with
 * PyTorch, COMMIT what is measured where there is no git. Times are the least of some rounds, of
 * kernels that were warmed up, on seeded random data; one marked "!" was not twice as long for twice
 * the repeats, and is not to be believed. What is measured runs in a process of its own
 * (`measure.ts`): where a driver ends that, the next case goes on in another.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { KernelCase } from "./kernel_cases.ts";
import {
  type Device,
  LARGEST_ON_HOST,
  LIBRARIES,
  type Library,
  type Line,
  type Row,
  steps,
} from "./measure.ts";
import { timeInTorch } from "./peers/torch.ts";
import { ceilingOf, type Ceilings } from "./probes.ts";
import { LINEAR } from "./timer.ts";

const RESULTS = join(import.meta.dirname!, "results");
/** Seconds after which nothing is begun any more, of the eight minutes. */
const BUDGET_SECONDS = 440;
/** Of them, those that our own cases may take; the rest is PyTorch's. */
const OWN_SECONDS = 260;
/** Processes that may die before the rest is left out. */
const MOST_DEATHS = 5;

const { values: flags } = parseArgs({
  options: { only: { type: "string" }, install: { type: "boolean", default: false } },
});
const begin = performance.now();
const secondsSince = () => (performance.now() - begin) / 1000;

/** Runs the cases. @returns what was measured, and which number each case's row has. */
async function measure() {
  let device: Device | undefined;
  let ceilings: Ceilings | undefined;
  const rows = new Map<number, Row>();
  let from = 0;
  for (let deaths = 0; deaths <= MOST_DEATHS;) {
    const left = Math.max(0, OWN_SECONDS - secondsSince());
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-A", "--no-check", join(import.meta.dirname!, "measure.ts")],
        ...["--from", `${from}`, "--seconds", `${left}`],
        ...(flags.only === undefined ? [] : ["--only", flags.only]),
        ...(flags.install ? ["--install"] : []),
      ],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    let at = { number: from, name: "start" };
    let rest = "";
    for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + part).split("\n");
      rest = lines.pop()!;
      for (const text of lines) {
        if (!text.startsWith("{")) continue; // A library's own words.
        const line = JSON.parse(text) as Line;
        if ("device" in line) device = line.device;
        else if ("begin" in line) {
          at = { number: line.begin, name: line.name };
          console.error(line.name);
        } else {
          if (line.ceilings !== undefined) ceilings = line.ceilings;
          if (line.row !== undefined) rows.set(line.done, line.row);
        }
      }
    }
    const { code, signal } = await child.status;
    if (code === 0) break;
    if (device === undefined) throw new Error(`Nothing can be measured: exit code ${code}`);
    deaths++;
    const note = `its process ended with ${signal ?? `exit code ${code}`}`;
    console.error(`${at.name}: ${note}`);
    rows.set(at.number, { name: at.name, unit: "FLOP", work: 0, peers: {}, note });
    from = at.number + 1;
  }
  if (device === undefined || ceilings === undefined) {
    throw new Error("Nothing can be measured: the probes came to no end");
  }
  return { device, ceilings, rows };
}

const loadBefore = loadavg()[0]!;
const { device, ceilings, rows: numbered } = await measure();
const { isSoftware } = device.adapter;
const large = !isSoftware;
const f16 = device.features.includes("shader-f16");
const all = steps(large, f16, flags.only);
const cases = all.flatMap((step) => step.kind === "kernel" ? [step.of] : []);
const networks = all.flatMap((step) => step.kind === "network" ? [step.of] : []);
const missing: string[] = [];
if (device.onnxRuntime !== "installed") {
  missing.push(`ONNX Runtime: not measured, ${device.onnxRuntime}`);
}
if (device.openblas !== "installed") {
  missing.push(`OpenBLAS: not measured, ${device.openblas}`);
}

console.error("PyTorch");
const torch = await timeInTorch(
  cases.flatMap(({ name, peer, operations = 0 }) =>
    peer !== undefined && (large || operations <= LARGEST_ON_HOST) ? [{ name, task: peer }] : []
  ),
  networks.map(({ name, batch, size }) => ({ name, batch, size })),
  Math.max(10, BUDGET_SECONDS - 60 - secondsSince()),
);
if (typeof torch === "string") missing.push(`PyTorch: not measured, ${torch}`);

/** Every case's row, with its ceiling and with PyTorch's times. */
const rows = all.flatMap((step, i): Row[] => {
  if (step.kind === "probes") return [];
  const row: Row = numbered.get(i) ?? {
    ...{ name: step.name, unit: "FLOP", work: 0, peers: {}, note: "no time was left" },
  };
  if (step.kind === "kernel") {
    const { milliseconds, bound } = ceilingOf(ceilings, step.of);
    Object.assign(row, { ceiling: milliseconds, bound });
  }
  if (typeof torch !== "string") {
    const { eager_ms, compiled_ms, problem } = torch.times.get(row.name) ?? {};
    if (eager_ms !== undefined) row.peers.torch = eager_ms;
    if (compiled_ms !== undefined) row.peers.compiled = compiled_ms;
    // That every compilation was left out is plain from its column.
    if (problem !== undefined && large && !problem.endsWith("no time was left")) {
      row.note = [row.note, `PyTorch, ${problem}`].filter(Boolean).join("; ");
    }
  }
  return [row];
});

const batch = large ? 64 : 1;
const SUMMED = {
  f32: `conv2d f32 ResNet-50's 53, batch ${batch}`,
  f16: `conv2d f16 ResNet-50's 53, batch ${batch}`,
};
for (const type of ["f32", "f16"] as const) {
  const parts = cases.filter((of) => of.inResnet50 !== undefined && of.type === type);
  if (parts.length > 0) rows.push(summed(SUMMED[type], parts));
}

/** ResNet-50's convolutions together, each as often as it is there. */
function summed(name: string, cases: readonly KernelCase[]): Row {
  const parts = cases.map((of) => ({
    count: of.inResnet50!,
    row: rows.find((row) => row.name === of.name)!,
  }));
  const sum = (value: (row: Row) => number | undefined) => {
    let total = 0;
    for (const { count, row } of parts) total += count * (value(row) ?? NaN);
    return Number.isFinite(total) ? total : undefined;
  };
  const peers: Row["peers"] = {};
  for (const library of Object.keys(LIBRARIES) as Library[]) {
    const total = sum((row) => row.peers[library]);
    if (total !== undefined) peers[library] = total;
  }
  return {
    name,
    unit: "FLOP",
    work: sum((row) => row.work)!,
    milliseconds: sum((row) => row.milliseconds),
    ceiling: sum((row) => row.ceiling),
    peers,
  };
}

function rateIn(row: Row, milliseconds: number | undefined): string {
  if (milliseconds === undefined) return "–";
  const rate = row.work / milliseconds * 1000;
  if (row.unit === "images") return rate.toFixed(1);
  return (rate / (row.unit === "FLOP" && large ? 1e12 : 1e9)).toFixed(1);
}

function print(rows: readonly Row[]): void {
  const unit = { FLOP: large ? "TFLOP/s" : "GFLOP/s", B: "GB/s", images: "images/s" };
  const libraries = (Object.keys(LIBRARIES) as Library[]).filter((library) =>
    rows.some((row) => row.peers[library] !== undefined)
  );
  const width = Math.max(...rows.map(({ name }) => name.length)) + 2;
  const line = (cells: readonly string[]) =>
    cells[0]!.padEnd(width) + cells.slice(1).map((cell) => cell.padStart(13)).join("");
  console.log(
    line(["kernel", "rate", "ms", "2×/1×", "ceiling", "of it"]) +
      libraries.map((library) => LIBRARIES[library].padStart(13)).join(""),
  );
  for (const row of rows) {
    const { milliseconds, linearity, ceiling, note = "" } = row;
    if (milliseconds === undefined) {
      console.log(line([row.name, "not measured"]) + (note && `  ${note}`));
      continue;
    }
    const isOff = linearity !== undefined &&
      (linearity < LINEAR.least || linearity > LINEAR.most);
    console.log(
      line([
        row.name,
        `${rateIn(row, milliseconds)} ${unit[row.unit]}`,
        milliseconds.toFixed(3),
        linearity === undefined ? "" : linearity.toFixed(2) + (isOff ? "!" : ""),
        rateIn(row, ceiling),
        ceiling === undefined ? "–" : `${(100 * ceiling / milliseconds).toFixed(0)} %`,
        ...libraries.map((library) => rateIn(row, row.peers[library])),
      ]) + (note && `  ${note}`),
    );
  }
}

/** A row that the project holds itself to. */
interface Target {
  readonly what: string;
  readonly must: string;
  /** What came out, as `must` is told; undefined where it was not measured. */
  readonly reached: number | undefined;
  /** The same by the CPU's time, as if all cores were ours: for cores that others use too. */
  readonly byCpuTime?: number;
  readonly least: number;
}

/** Targets of lavapipe on 2 cores, and of an H200: another GPU's are told beside the same numbers. */
function targets(rows: readonly Row[], ceilings: Ceilings): Target[] {
  const find = (name: string) => rows.find((row) => row.name === name);
  const rate = (row: Row | undefined) =>
    row?.milliseconds === undefined ? undefined : row.work / row.milliseconds * 1000;
  const ratio = (row: Row | undefined, library: Library) => {
    const peer = row?.peers[library];
    return row?.milliseconds === undefined || peer === undefined
      ? undefined
      : peer / row.milliseconds;
  };
  const cpu = (row: Row | undefined) => row?.cpu?.ours;
  /** Operations or bytes a second of CPU time, times the cores. */
  const cpuRate = (row: Row | undefined) =>
    cpu(row) === undefined
      ? undefined
      : row!.work / cpu(row)! * 1000 * navigator.hardwareConcurrency;
  const cpuRatio = (row: Row | undefined, library: Library) => {
    const [ours, peer] = [cpu(row), row?.cpu?.[library]];
    return ours === undefined || peer === undefined ? undefined : peer / ours;
  };
  const over = (value: number | undefined, by: number) => value === undefined ? value : value / by;
  /** The least of several rows' bandwidths, in parts of the copy's. */
  const ofCopy = (names: readonly string[]) => {
    const rates = names.map((name) => rate(find(name)));
    return rates.some((r) => r === undefined)
      ? undefined
      : Math.min(...rates.map((r) => r! / ceilings.copy));
  };
  const product = find("matmul f32 1000³");
  const conv = find("conv2d f32 3×3 64→64, 56×56, batch 8");
  const normalise = rows.find(({ name }) => name.startsWith("normalise u8 → f32 mean/std"));
  const on = (hardware: boolean, value: number | undefined) =>
    hardware === large ? value : undefined;
  const memory = rows.filter(({ name }) =>
    /^(normalise u8 → f\d+ mean|pool|unary|binary)/.test(name)
  ).map(({ name }) => name);
  const [lavapipe, h200] = ["lavapipe, 2 cores", "H200"];
  return [
    {
      what: `${lavapipe}: f32 matmul 1000³`,
      must: "60 GFLOP/s",
      reached: over(on(false, rate(product)), 1e9),
      byCpuTime: over(cpuRate(product), 1e9),
      least: 60,
    },
    {
      what: `${lavapipe}: f32 matmul 1000³`,
      must: "0.26 of OpenBLAS by AVX2",
      reached: on(false, ratio(product, "openblasAvx2")),
      byCpuTime: cpuRatio(product, "openblasAvx2"),
      least: 0.26,
    },
    {
      what: `${lavapipe}: 3×3 conv 64→64, 56×56, batch 8`,
      must: "50 GFLOP/s",
      reached: over(on(false, rate(conv)), 1e9),
      byCpuTime: over(cpuRate(conv), 1e9),
      least: 50,
    },
    {
      what: `${lavapipe}: 3×3 conv 64→64, 56×56, batch 8`,
      must: "6 × ONNX Runtime's WebGPU provider",
      reached: on(false, ratio(conv, "ortWebgpu")),
      least: 6,
    },
    {
      what: `${lavapipe}: normalise u8 → f32`,
      must: "10 GB/s",
      reached: over(on(false, rate(normalise)), 1e9),
      byCpuTime: over(cpuRate(normalise), 1e9),
      least: 10,
    },
    {
      what: `${h200}: normalise, pool, elementwise, the least of them`,
      must: "0.8 of the copy's bandwidth",
      reached: on(true, ofCopy(memory)),
      least: 0.8,
    },
    {
      what: `${h200}: matmul f16 4096³`,
      must: "250 TFLOP/s",
      reached: over(on(true, rate(find("matmul f16 4096³"))), 1e12),
      least: 250,
    },
    {
      what: `${h200}: matmul f32 4096³`,
      must: "0.75 of cuBLAS",
      reached: on(true, ratio(find("matmul f32 4096³"), "torch")),
      least: 0.75,
    },
    {
      what: `${h200}: ResNet-50's convolutions, f16, batch 64`,
      must: "0.4 of cuDNN",
      reached: on(true, ratio(find(SUMMED.f16), "torch")),
      least: 0.4,
    },
  ];
}

function tryCommand(command: string, ...args: string[]): string | undefined {
  try {
    return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
      .trim();
  } catch {
    return undefined;
  }
}

console.log(`${device.adapter.name} (${device.adapter.driver})`);
console.log(`features: ${device.features.join(" ")}`);
const tera = (rate: number) =>
  rate >= 1e12 ? `${(rate / 1e12).toFixed(1)} TFLOP/s` : `${(rate / 1e9).toFixed(1)} GFLOP/s`;
console.log(
  `ceilings: f32 ${tera(ceilings.f32)}; f16 by subgroup matrices ${
    ceilings.matrix === undefined
      ? "none here, f32's counts"
      : `${tera(ceilings.matrix)} (${ceilings.matrixShape})`
  }; copy ${(ceilings.copy / 1e9).toFixed(1)} GB/s; clock: the ${
    device.clock === "gpu" ? "GPU's" : "host's"
  }\n`,
);
const measured = new Set(rows.map(({ name }) => name));
const elsewhere: Row[] = large || flags.only !== undefined ? [] : steps(true, true)
  .filter(({ name, kind }) => kind !== "probes" && !measured.has(name))
  .map(({ name }) => ({ name, unit: "FLOP", work: 0, peers: {}, note: "of a GPU" }));
print([...rows, ...elsewhere]);
console.log();
const reached = targets(rows, ceilings);
for (const { what, must, reached: value, least, byCpuTime } of reached) {
  const said = value === undefined
    ? "not measured"
    : `${value.toPrecision(3)}${value < least ? ": MISSED" : ""}` +
      (byCpuTime === undefined ? "" : ` (${byCpuTime.toPrecision(3)} by CPU time)`);
  console.log(`${what.padEnd(62)} must reach ${must.padEnd(36)} ${said}`);
}
for (const line of missing) console.log(line);

const date = new Date().toISOString();
const result = {
  date,
  commit: Deno.env.get("COMMIT") ?? tryCommand("git", "describe", "--always", "--dirty"),
  ...device,
  nvidia: tryCommand("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
  cores: navigator.hardwareConcurrency,
  /** Processes that wanted a core, before and after: a shared machine's rates vary with it. */
  load: [loadBefore, loadavg()[0]!],
  deno: Deno.version.deno,
  torch: typeof torch === "string" ? torch : torch.about,
  seconds: secondsSince(),
  ceilings,
  targets: reached,
  rows,
};
if (flags.only === undefined) {
  mkdirSync(RESULTS, { recursive: true });
  const file = device.adapter.name.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  const path = join(RESULTS, `${date.slice(0, 16).replace(":", "")}-${file}.json`);
  writeFileSync(path, JSON.stringify(result, null, 2) + "\n");
  console.log(`\nwritten to ${path.replace(Deno.cwd() + "/", "")}`);
}
console.log(`${result.seconds.toFixed(0)} s`);
