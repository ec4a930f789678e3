/**
 * Picks the fastest of a few ways to compute something by timing them on the device, once for each
 * device and class of shapes, and keeps what it picked in a JSON file, whose path the caller knows.
 * A file that cannot be read, is damaged or of another version counts as empty; one that cannot be
 * written leaves the picks to this process. Neither stops anyone from computing.
 */

import type { Gpu } from "./device.ts";
import { Batch, type Recorder } from "./kernel.ts";
import { Tensor } from "./tensor.ts";

/** Of the file; another one's content is not looked at. */
const VERSION = 1;
/** A timing repeats the work until it takes as long: a submission's own 0.1 ms is a hundredth then. */
const LONG_ENOUGH_MS = 10;
const ROUNDS = 3;
/** Sizes above it are timed at it: a tile that is best there is best beyond. */
const LARGEST = 2048;

/** One way among others, such as the overrides of a tile. */
export type Choice = Readonly<Record<string, number>>;

/** A choice made ready. */
export interface Candidate {
  /** Records the work once. */
  readonly record: (recorder: Recorder) => void;
  /** Frees what the work was done on. */
  destroy?(): void;
}

/** Picks by device, then by key. */
type Table = Record<string, Record<string, Choice>>;

/** The power of two at or above a size, at most 2048: shapes of one class share a pick. */
export function sizeClass(size: number): number {
  let of = 1;
  while (of < size && of < LARGEST) of *= 2;
  return of;
}

/**
 * A tensor of numbers in [−1, 1) to time kernels on: they repeat after 2¹⁶, which no kernel can make
 * use of, as it could of zeros.
 */
export function randomTensor(gpu: Gpu, type: "f32" | "f16", shape: readonly number[]): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  const values = type === "f16" ? new Float16Array(count) : new Float32Array(count);
  let state = 1;
  for (let i = 0; i < Math.min(count, 1 << 16); i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0; // Numerical Recipes §7.1
    values[i] = state * 2 ** -31;
  }
  for (let done = 1 << 16; done < count; done *= 2) {
    values.copyWithin(done, 0, Math.min(done, count - done));
  }
  return Tensor.from(gpu, values, shape, "random");
}

/** Picks and keeps; one for each device. */
export class Tuner {
  readonly gpu: Gpu;
  /** What kept the file from being read or written last, in words; undefined where nothing did. */
  problem: string | undefined;
  readonly #path: string | undefined;
  readonly #device: string;
  readonly #picks: Map<string, Choice>;
  readonly #pending = new Map<string, Promise<Choice>>();
  /** Timings go one after the other: two at once would time each other. */
  #last: Promise<unknown> = Promise.resolve();

  /** Reads the file, where a path is given and it is there. */
  constructor(gpu: Gpu, path?: string) {
    this.gpu = gpu;
    this.#path = path;
    this.#device = `${gpu.adapter.name} (${gpu.adapter.driver})`;
    this.#picks = new Map(Object.entries(this.#read()[this.#device] ?? {}));
  }

  /**
   * The choice that was picked for `key` before, or the fastest of `choices` by timing. With a single
   * one nothing is timed. A choice that cannot be made ready is out of the race.
   * @param make Compiles a choice and allocates what it works on, which is seeded random data.
   * @throws {RangeError} without a choice.
   * @throws {KernelError} where no choice can be made ready, or the device fails.
   */
  pick(
    key: string,
    choices: readonly Choice[],
    make: (choice: Choice) => Promise<Candidate>,
  ): Promise<Choice> {
    const [first] = choices;
    if (first === undefined) {
      return Promise.reject(new RangeError(`Cannot pick for "${key}" of none`));
    }
    if (choices.length === 1) return Promise.resolve(first);
    const picked = this.#picks.get(key);
    // What is no choice any more, or never was, is picked anew.
    const known = choices.find((choice) => sameChoice(choice, picked));
    if (known !== undefined) return Promise.resolve(known);
    let pending = this.#pending.get(key);
    if (pending === undefined) {
      pending = this.#last.then(() => this.#race(choices, make)).then((choice) => {
        this.#picks.set(key, choice);
        this.#write();
        return choice;
      }).finally(() => this.#pending.delete(key));
      this.#last = pending.catch(() => {});
      this.#pending.set(key, pending);
    }
    return pending;
  }

  async #race(
    choices: readonly Choice[],
    make: (choice: Choice) => Promise<Candidate>,
  ): Promise<Choice> {
    let best: { choice: Choice; milliseconds: number } | undefined;
    let refused: unknown;
    for (const choice of choices) {
      let candidate;
      try {
        candidate = await make(choice);
      } catch (error) {
        this.gpu.check(); // A tile too large for the device is no failure, a lost device is.
        refused = error;
        continue;
      }
      try {
        const milliseconds = await this.#time(candidate.record);
        if (best === undefined || milliseconds < best.milliseconds) best = { choice, milliseconds };
      } finally {
        candidate.destroy?.();
      }
    }
    if (best === undefined) throw refused;
    return best.choice;
  }

  /** Milliseconds of the work, the least of a few rounds. */
  async #time(record: Candidate["record"]): Promise<number> {
    const run = async (repeats: number) => {
      const batch = new Batch(this.gpu);
      const start = performance.now();
      for (let i = 0; i < repeats; i++) record(batch);
      batch.submit();
      await this.gpu.done();
      return performance.now() - start;
    };
    await run(1); // Drivers finish compiling at the first run.
    let repeats = 1;
    while (repeats < 4096 && await run(repeats) < LONG_ENOUGH_MS) repeats *= 2;
    let least = Infinity;
    for (let round = 0; round < ROUNDS; round++) least = Math.min(least, await run(repeats));
    return least / repeats;
  }

  #read(): Table {
    if (this.#path === undefined) return {};
    let text;
    try {
      text = Deno.readTextFileSync(this.#path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) {
        this.problem = `Cannot read "${this.#path}": ${(error as Error).message}`;
      }
      return {};
    }
    const table = parseTable(text);
    if (table === undefined) this.problem = `Cannot use "${this.#path}": it is no table of picks`;
    return table ?? {};
  }

  /** Adds this device's picks to what is in the file by now, at once or not at all. */
  #write(): void {
    if (this.#path === undefined) return;
    this.problem = undefined;
    const table = { ...this.#read() };
    table[this.#device] = { ...table[this.#device], ...Object.fromEntries(this.#picks) };
    const unfinished = `${this.#path}.${crypto.randomUUID()}`;
    try {
      Deno.writeTextFileSync(
        unfinished,
        JSON.stringify({ version: VERSION, devices: table }, null, 2) + "\n",
      );
      Deno.renameSync(unfinished, this.#path);
      this.problem = undefined;
    } catch (error) {
      this.problem = `Cannot write "${this.#path}": ${(error as Error).message}`;
      try {
        Deno.removeSync(unfinished);
      } catch {
        // It was not even made.
      }
    }
  }
}

function sameChoice(a: Choice, b: Choice | undefined): boolean {
  if (b === undefined) return false;
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @returns undefined for what is no table of this version. */
function parseTable(text: string): Table | undefined {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(file) || file.version !== VERSION || !isObject(file.devices)) return undefined;
  const ofChoices = (picks: unknown) =>
    isObject(picks) &&
    Object.values(picks).every((choice) =>
      isObject(choice) && Object.values(choice).every((value) => typeof value === "number")
    );
  return Object.values(file.devices).every(ofChoices) ? file.devices as Table : undefined;
}
