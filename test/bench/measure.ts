/**
 * Measures one case after the other on the GPU, and says each as a line of JSON as soon as it is
 * known: what `gpu.ts` starts, and starts again behind the case in which a driver took the process
 * with it.
 *
 *   deno run -A test/bench/measure.ts [--from N] [--only TEXT] [--seconds S] [--install]
 */

import { parseArgs } from "node:util";
import { type AdapterDescription, Gpu, type SubgroupMatrixConfig } from "../../kernels/device.ts";
import { Tuner } from "../../kernels/tuner.ts";
import { classifyNuclei } from "../../src/classifier/nuclei.ts";
import { encodeSample } from "../../src/sample/sample.ts";
import { openSlide } from "../../src/slide/open.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { testContext } from "../classifier/context.ts";
import { isInstalled } from "../peers/onnxruntime.ts";
import { timeOpenBlas } from "../peers/openblas.ts";
import { type KernelCase, kernelCases, Workspace } from "./kernel_cases.ts";
import { type NetworkCase, networkCases, timeNetwork } from "./networks.ts";
import { timeModel, timeTask } from "./peers/onnx_runtime.ts";
import { type Ceilings, measureCeilings } from "./probes.ts";
import { Timer } from "./timer.ts";

/** Operations beyond which a software adapter's peers are left out: they take too long there. */
export const LARGEST_ON_HOST = 20e9;

/** Whose time it is, other than ours. */
export const LIBRARIES = {
  torch: "PyTorch",
  compiled: "compiled",
  ortWebgpu: "ORT WebGPU",
  ortCpu: "ORT CPU",
  openblas: "OpenBLAS",
  openblasAvx2: "its AVX2",
} as const;
export type Library = keyof typeof LIBRARIES;

/** One case; what was not measured is absent. */
export interface Row {
  readonly name: string;
  readonly unit: "FLOP" | "B" | "images";
  /** Of that unit in one run. */
  readonly work: number;
  milliseconds?: number;
  /** Time of twice the repeats over the time of the repeats. */
  linearity?: number;
  /** Milliseconds below which the probes say it cannot be, and by what. */
  ceiling?: number;
  bound?: "arithmetic" | "memory";
  /** Milliseconds of others. */
  readonly peers: Partial<Record<Library, number>>;
  /** Milliseconds over all threads, ours and others', where the work is the CPU's. */
  cpu?: Partial<Record<"ours" | Library, number>>;
  /** What else is known, or why a number is missing. */
  note?: string;
}

/** What this process runs on. */
export interface Device {
  readonly adapter: AdapterDescription;
  readonly features: readonly string[];
  readonly subgroupMatrixConfigs: readonly SubgroupMatrixConfig[];
  readonly clock: "gpu" | "host";
  /** Of peers in this process: what they are, or why they are not there. */
  readonly openblas: string;
  readonly onnxRuntime: string;
}

/** A line: the device first, then each case begun and done, by its number. */
export type Line =
  | { readonly device: Device }
  | { readonly begin: number; readonly name: string }
  | { readonly done: number; readonly ceilings?: Ceilings; readonly row?: Row };

/** A case by its number: 0 are the probes. */
type Step =
  & { readonly name: string }
  & (
    | { readonly kind: "probes" | "nuclei" }
    | { readonly kind: "kernel"; readonly of: KernelCase }
    | { readonly kind: "network"; readonly of: NetworkCase }
  );

export const NUCLEI = "nuclei on a sample of 8192 × 6144, from file to list";

/** All cases in order. */
export function steps(large: boolean, f16: boolean, only?: string): Step[] {
  const all: Step[] = [
    ...kernelCases(large, f16).map((of): Step => ({ kind: "kernel", name: of.name, of })),
    ...networkCases(large, f16).map((of): Step => ({ kind: "network", name: of.name, of })),
    { kind: "nuclei", name: NUCLEI },
  ];
  return [
    { kind: "probes", name: "probes" },
    ...all.filter(({ name }) => only === undefined || name.includes(only)),
  ];
}

/** What `Device` says of OpenBLAS where it is there. */
const OPENBLAS = "installed";
/** Kernels of its own choice, and those of the 256 bits that lavapipe computes with as well. */
const OPENBLAS_KERNELS: readonly (readonly [Library, string | undefined])[] = [
  ["openblas", undefined],
  ...(Deno.build.arch === "x86_64" ? [["openblasAvx2", "Haswell"] as const] : []),
];

class Measurement {
  readonly #gpu: Gpu;
  readonly #timer: Timer;
  readonly #tuner: Tuner;
  readonly #openblas: string;
  readonly #hasOnnxRuntime: boolean;

  /** @param openblas what to say of it. */
  constructor(gpu: Gpu, install: boolean, openblas: string) {
    const { isSoftware } = gpu.adapter;
    this.#gpu = gpu;
    this.#timer = new Timer(
      gpu,
      isSoftware ? { milliseconds: 20, rounds: 12 } : { milliseconds: 25, rounds: 5 },
    );
    this.#tuner = new Tuner(gpu);
    this.#openblas = openblas;
    this.#hasOnnxRuntime = install || isInstalled();
  }

  get device(): Device {
    const { adapter, features, subgroupMatrixConfigs } = this.#gpu;
    return {
      adapter,
      features: [...features].sort(),
      subgroupMatrixConfigs,
      clock: this.#timer.clock,
      openblas: this.#openblas,
      onnxRuntime: this.#hasOnnxRuntime ? "installed" : "it is not installed (--install)",
    };
  }

  ceilings(): Promise<Ceilings> {
    return measureCeilings(this.#gpu, this.#timer);
  }

  async kernel(of: KernelCase): Promise<Row> {
    const { name, operations, bytes } = of;
    const row: Row = {
      name,
      unit: operations === undefined ? "B" : "FLOP",
      work: operations ?? bytes,
      peers: {},
    };
    const on = new Workspace(this.#tuner);
    try {
      const timing = await this.#timer.time(await of.prepare(on));
      const { milliseconds, linearity, cpuMilliseconds } = timing;
      Object.assign(row, { milliseconds, linearity });
      if (cpuMilliseconds !== undefined) row.cpu = { ours: cpuMilliseconds };
    } catch (error) {
      this.#gpu.check(); // A case that does not fit here is a row without a number; a lost device ends all.
      row.note = (error as Error).message;
    } finally {
      on.destroy();
    }
    await this.#peersOf(of, row);
    return row;
  }

  /** Peers that compute in this process, right behind our own time: the machine's load is the same. */
  async #peersOf({ peer, operations = 0 }: KernelCase, row: Row): Promise<void> {
    if (peer === undefined || operations === 0) return;
    if (this.#gpu.adapter.isSoftware && operations > LARGEST_ON_HOST) return;
    if (peer.op === "matmul" && peer.type === "f32" && this.device.openblas === OPENBLAS) {
      const shape = [peer.rows, peer.inner, peer.columns] as const;
      for (const [library, processor] of OPENBLAS_KERNELS) {
        const time = await timeOpenBlas(shape, 400, processor);
        if (typeof time === "string") continue;
        row.peers[library] = time.milliseconds;
        row.cpu = { ...row.cpu, [library]: time.cpuMilliseconds };
      }
    }
    if (!this.#hasOnnxRuntime) return;
    for (const provider of ["webgpu", "cpu"] as const) {
      try {
        const milliseconds = await timeTask(peer, provider, 300);
        if (milliseconds !== undefined) {
          row.peers[provider === "cpu" ? "ortCpu" : "ortWebgpu"] = milliseconds;
        }
      } catch (error) {
        row.note = `ONNX Runtime, ${provider}: ${(error as Error).message.split("\n", 1)[0]}`;
      }
    }
  }

  async network(of: NetworkCase): Promise<Row> {
    const { isSoftware } = this.#gpu.adapter;
    const row: Row = { name: of.name, unit: "images", work: of.batch, peers: {} };
    const made = of.make();
    try {
      const timing = await timeNetwork(this.#gpu, of, made, isSoftware ? 300 : 200);
      const { milliseconds, linearity, dispatches, pipelines } = timing;
      const note = `${dispatches} dispatches, ${pipelines} pipelines`;
      Object.assign(row, { milliseconds, linearity, note });
    } catch (error) {
      this.#gpu.check();
      row.note = (error as Error).message;
    }
    if (!this.#hasOnnxRuntime) return row;
    // On lavapipe its WebGPU provider takes seconds an image.
    for (const provider of isSoftware ? ["cpu"] as const : ["cpu", "webgpu"] as const) {
      try {
        const milliseconds = await timeModel(
          made.bytes,
          provider,
          [of.batch, 3, of.size, of.size],
          500,
        );
        row.peers[provider === "cpu" ? "ortCpu" : "ortWebgpu"] = milliseconds;
      } catch (error) {
        row.note += `; ONNX Runtime, ${provider}: ${(error as Error).message.split("\n", 1)[0]}`;
      }
    }
    return row;
  }

  async nuclei(): Promise<Row> {
    const { svs } = encodeSample({ widthPx: 8192, heightPx: 6144 });
    const slide = await openSlide(new MemorySource(svs), { decoders: 8 });
    let milliseconds = Infinity;
    for (let round = 0; round < 3; round++) {
      const start = performance.now();
      await classifyNuclei(slide, testContext(this.#gpu));
      milliseconds = Math.min(milliseconds, performance.now() - start);
    }
    await slide.close();
    return {
      ...{ name: NUCLEI, unit: "images", work: 1, milliseconds, peers: {} },
      note: "slides a second, decoding included",
    };
  }
}

async function main(): Promise<void> {
  const { values: flags } = parseArgs({
    options: {
      from: { type: "string", default: "0" },
      only: { type: "string" },
      seconds: { type: "string", default: "440" },
      install: { type: "boolean", default: false },
    },
  });
  const begin = performance.now();
  const say = (line: Line) => console.log(JSON.stringify(line));
  const gpu = await Gpu.open({ adapter: Deno.env.get("ADAPTER") });
  if (gpu === undefined) throw new Error("There is no adapter: run `deno task setup`");
  const tried = gpu.adapter.isSoftware
    ? await timeOpenBlas([8, 8, 8], 0)
    : "it computes on the CPU, this adapter does not";
  const openblas = typeof tried === "string" ? tried : OPENBLAS;
  const measurement = new Measurement(gpu, flags.install, openblas);
  say({ device: measurement.device });
  const all = steps(!gpu.adapter.isSoftware, gpu.features.has("shader-f16"), flags.only);
  for (const [i, step] of all.entries()) {
    if (i < Number(flags.from)) continue;
    if ((performance.now() - begin) / 1000 > Number(flags.seconds)) break;
    say({ begin: i, name: step.name });
    if (step.kind === "probes") say({ done: i, ceilings: await measurement.ceilings() });
    if (step.kind === "kernel") say({ done: i, row: await measurement.kernel(step.of) });
    if (step.kind === "network") say({ done: i, row: await measurement.network(step.of) });
    if (step.kind === "nuclei") say({ done: i, row: await measurement.nuclei() });
  }
  Deno.exit(0); // A pool of workers, or Dawn's polling, would keep the process.
}

if (import.meta.main) await main();
