/**
 * Times what is recorded: by the GPU's own clock, written at the beginning and the end of the pass
 * (WebGPU §16, "timestamp-query"), or by the host's where the adapter has none.
 *
 * A pass repeats the work until it takes long enough, and then twice as often: where twice the
 * repeats do not take twice the time, something else was timed.
 */

import process from "node:process";
import { BufferUsage, type Gpu, MapMode } from "../../kernels/device.ts";
import { type Recorder, Recording } from "../../kernels/kernel.ts";

/** Repeats that a pass may hold, twice: bind groups are made for each. */
const MOST_REPEATS = 512;
/** Twice the repeats take between these times the time, or the rate is not to be believed. */
export const LINEAR = { least: 1.85, most: 2.15 } as const;

export interface Timing {
  /** Of one run, the least of the rounds. */
  readonly milliseconds: number;
  /** Time of twice the repeats over the time of the repeats. */
  readonly linearity: number;
  /** Repeats in the longer pass. */
  readonly repeats: number;
  /**
   * Of one run over all threads of this process, the least: of an adapter that computes on the CPU
   * what it takes however many others want the cores. Undefined for a GPU.
   */
  readonly cpuMilliseconds?: number;
}

export interface TimerOptions {
  /** How long the shorter pass takes at least, where repeats allow. */
  readonly milliseconds: number;
  readonly rounds: number;
}

export class Timer {
  /** Which clock is read. */
  readonly clock: "gpu" | "host";
  readonly #gpu: Gpu;
  readonly #options: TimerOptions;
  readonly #queries: GPUQuerySet | undefined;
  readonly #resolved: GPUBuffer | undefined;
  readonly #read: GPUBuffer | undefined;

  constructor(gpu: Gpu, options: TimerOptions) {
    this.#gpu = gpu;
    this.#options = options;
    this.clock = gpu.features.has("timestamp-query") ? "gpu" : "host";
    if (this.clock === "host") return;
    const { device } = gpu;
    this.#queries = device.createQuerySet({ type: "timestamp", count: 2 });
    const usage = BufferUsage.QUERY_RESOLVE | BufferUsage.COPY_SRC;
    this.#resolved = device.createBuffer({ size: 16, usage });
    this.#read = device.createBuffer({
      size: 16,
      usage: BufferUsage.COPY_DST | BufferUsage.MAP_READ,
    });
  }

  /** @throws {KernelError} where the device fails. */
  async time(record: (recorder: Recorder) => void): Promise<Timing> {
    const once = new Recording(this.#gpu);
    record(once);
    await this.#run(once, once.length); // Drivers finish compiling at the first run.
    let one = Infinity;
    for (let i = 0; i < 3; i++) one = Math.min(one, await this.#run(once, once.length));
    const each = once.length;
    once.destroy();
    const wanted = Math.ceil(this.#options.milliseconds / one);
    const repeats = Math.max(1, Math.min(MOST_REPEATS, wanted));
    const recording = new Recording(this.#gpu);
    for (let i = 0; i < 2 * repeats; i++) record(recording);
    let short = Infinity, long = Infinity, cpu = Infinity;
    await this.#run(recording, each); // Makes the bind groups.
    for (let round = 0; round < this.#options.rounds; round++) {
      short = Math.min(short, await this.#run(recording, each * repeats));
      const before = process.cpuUsage();
      long = Math.min(long, await this.#run(recording, each * 2 * repeats));
      const { user, system } = process.cpuUsage(before);
      cpu = Math.min(cpu, (user + system) / 1000 / (2 * repeats));
    }
    recording.destroy();
    // On the host's clock the difference leaves out what a submission costs.
    const milliseconds = this.clock === "gpu" ? long / (2 * repeats) : (long - short) / repeats;
    return {
      ...{ milliseconds, linearity: long / short, repeats: 2 * repeats },
      ...(this.#gpu.adapter.isSoftware && { cpuMilliseconds: cpu }),
    };
  }

  /** Milliseconds of the first `count` dispatches. */
  async #run(recording: Recording, count: number): Promise<number> {
    const gpu = this.#gpu;
    if (this.#queries === undefined) {
      const start = performance.now();
      recording.run(0, count);
      await gpu.done();
      return performance.now() - start;
    }
    recording.run(0, count, {
      querySet: this.#queries,
      beginningOfPassWriteIndex: 0,
      endOfPassWriteIndex: 1,
    });
    const encoder = gpu.device.createCommandEncoder({ label: "timestamps" });
    encoder.resolveQuerySet(this.#queries, 0, 2, this.#resolved!, 0);
    encoder.copyBufferToBuffer(this.#resolved!, 0, this.#read!, 0, 16);
    gpu.submit([encoder.finish()]);
    await gpu.wait(this.#read!.mapAsync(MapMode.READ));
    const [begin, end] = new BigUint64Array(this.#read!.getMappedRange());
    const nanoseconds = Number(end! - begin!);
    this.#read!.unmap();
    return nanoseconds / 1e6;
  }

  destroy(): void {
    this.#queries?.destroy();
    this.#resolved?.destroy();
    this.#read?.destroy();
  }
}
