/**
 * What this machine's GPU does: every kernel's rate, and nuclei through the whole chain. Prints a
 * table and writes test/bench/results/<date>-<device>.json. Well under 8 minutes.
 *
 *   deno task bench:gpu
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import { classifyNuclei } from "../../src/classifier/nuclei.ts";
import { encodeSample } from "../../src/sample/sample.ts";
import { openSlide } from "../../src/slide/open.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { testContext } from "../classifier/context.ts";
import { kernelCases } from "./kernel_cases.ts";

const RESULTS = join(import.meta.dirname!, "results");
/** Seconds that a kernel is repeated for, in each of two lengths. */
const SECONDS = 0.5;
const ROUNDS = 5;

interface Row {
  readonly name: string;
  readonly unit: string;
  /** Best of the rounds, per second. */
  readonly rate: number;
  readonly milliseconds: number;
  /** Time of twice the repeats over time of the repeats: near 2 where the time is the kernel's own. */
  readonly linearity: number;
}

/** Seconds of `repeats` dispatches in one batch, until the queue is done. */
async function seconds(
  gpu: Gpu,
  record: (batch: Batch) => void,
  repeats: number,
): Promise<number> {
  const batch = new Batch(gpu);
  const start = performance.now();
  for (let i = 0; i < repeats; i++) record(batch);
  batch.submit();
  await gpu.done();
  return (performance.now() - start) / 1000;
}

const gpu = await Gpu.open({ adapter: Deno.env.get("ADAPTER") });
if (gpu === undefined) throw new Error("There is no adapter: run `deno task setup`");
console.log(`${gpu.adapter.name} (${gpu.adapter.driver})`);
console.log(`features: ${[...gpu.features].sort().join(" ")}\n`);
console.log("kernel".padEnd(48) + "rate".padStart(18) + "ms".padStart(11) + "  twice/once");
const rows: Row[] = [];
const f16 = gpu.features.has("shader-f16");
for (const { name, work, unit, prepare } of kernelCases(!gpu.adapter.isSoftware, f16)) {
  const record = await prepare(gpu);
  await seconds(gpu, record, 3); // Compiles and warms up.
  const repeats = Math.max(1, Math.ceil(SECONDS / await seconds(gpu, record, 1)));
  let once = Infinity, twice = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    once = Math.min(once, await seconds(gpu, record, repeats));
    twice = Math.min(twice, await seconds(gpu, record, 2 * repeats));
  }
  // The difference leaves out what a submission costs, however often the kernel runs.
  const each = (twice - once) / repeats;
  const row = { name, unit, rate: work / each, milliseconds: each * 1000, linearity: twice / once };
  rows.push(row);
  console.log(
    name.padEnd(48) + `${(row.rate / 1e9).toFixed(1)} G${unit}/s`.padStart(18) +
      row.milliseconds.toFixed(3).padStart(11) + row.linearity.toFixed(2).padStart(12),
  );
}

const { svs } = encodeSample({ widthPx: 8192, heightPx: 6144 });
const slide = await openSlide(new MemorySource(svs), { decoders: 8 });
const nuclei: { seconds: number; megapixelsPerSecond: number }[] = [];
for (let round = 0; round < 3; round++) {
  const start = performance.now();
  await classifyNuclei(slide, testContext(gpu));
  const s = (performance.now() - start) / 1000;
  nuclei.push({ seconds: s, megapixelsPerSecond: 8192 * 6144 / 1e6 / s });
}
await slide.close();
console.log(
  `\nnuclei on a sample of 8192 × 6144: ${nuclei.map((n) => n.seconds.toFixed(2)).join(", ")} s`,
);

function tryCommand(command: string, ...args: string[]): string | undefined {
  try {
    return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
      .trim();
  } catch {
    return undefined;
  }
}
const date = new Date().toISOString();
const result = {
  date,
  commit: Deno.env.get("COMMIT") ?? tryCommand("git", "rev-parse", "--short", "HEAD"),
  adapter: gpu.adapter,
  features: [...gpu.features].sort(),
  nvidia: tryCommand("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
  cores: navigator.hardwareConcurrency,
  deno: Deno.version.deno,
  kernels: rows,
  nuclei,
};
mkdirSync(RESULTS, { recursive: true });
const device = gpu.adapter.name.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
const path = join(RESULTS, `${date.slice(0, 10)}-${device}.json`);
writeFileSync(path, JSON.stringify(result, null, 2) + "\n");
console.log(`written to ${path.replace(Deno.cwd() + "/", "")}`);
gpu.close();
