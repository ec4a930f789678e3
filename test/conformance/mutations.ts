/**
 * Every bad file of the data, and seeded damage to every good slide and codec case: each is refused with
 * a typed error or read, within 2 seconds and 256 MB more memory, and no tile is another's.
 *
 *   deno task mutations [--count N] [--seed N] [--only TEXT] [--replay NAME:SEED]
 *
 * Prints what came of them and exits with 1 where anything else did; `--replay` repeats one.
 */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { ANSWER, type Answer, type Job } from "./mutation_process.ts";
import { type Base, listBad, listBases } from "./mutate.ts";

const MOST_MS = 2000;
const MOST_BYTES = 256e6;
/** A process that says nothing for so long hangs; a loaded machine is slower than MOST_MS. */
const HANGS_AFTER_MS = 30_000;
/** What is slow or large among others may be their doing: it is tried so often by itself. */
const TRIES = 3;

export interface Failure extends Job {
  readonly what: string;
  readonly problem: string;
}

export interface Report {
  /** Good files, bad ones and mutations. */
  readonly bases: number;
  readonly bad: number;
  readonly count: number;
  /** How many were read, and how many refused by which class. */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly slowestMs: number;
  readonly slowest: Job | undefined;
  readonly grewMostBytes: number;
  readonly failures: readonly Failure[];
}

/** A process that reads damaged files, started again where it ended. */
export class Reader {
  #process: Deno.ChildProcess | undefined;
  #lines: ReadableStreamDefaultReader<string> | undefined;
  #text = "";
  #said: Promise<string> | undefined;

  constructor(
    readonly program = join(import.meta.dirname!, "mutation_process.ts"),
    readonly hangsAfterMs = HANGS_AFTER_MS,
  ) {}

  /** @returns its answer, or what became of the process. */
  async ask(job: Job): Promise<Answer | string> {
    const process = this.#process ??= this.#start();
    const writer = process.stdin.getWriter();
    const line = new TextEncoder().encode(JSON.stringify(job) + "\n");
    await writer.write(line).catch(() => {}); // Its end is met below.
    writer.releaseLock();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const hanging = new Promise<"hangs">((resolve) => {
      timer = setTimeout(() => resolve("hangs"), this.hangsAfterMs);
    });
    try {
      const answer = await Promise.race([this.#answer(), hanging]);
      if (typeof answer === "object") return answer;
      if (answer === "hangs") process.kill("SIGKILL");
      const { code, signal } = await process.status;
      const said = (await this.#said)!.trim().split("\n").slice(-5).join("\n");
      this.#process = undefined;
      if (answer === "hangs") return `no answer within ${this.hangsAfterMs} ms`;
      return `the process ended with ${signal ?? code}: ${said}`;
    } finally {
      clearTimeout(timer);
    }
  }

  async close(): Promise<void> {
    await this.#process?.stdin.close().catch(() => {});
    await this.#lines?.cancel();
    await this.#said;
    await this.#process?.status;
    this.#process = undefined;
  }

  #start(): Deno.ChildProcess {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--v8-flags=--expose-gc", this.program],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#lines = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
    this.#text = "";
    this.#said = new Response(process.stderr).text();
    return process;
  }

  /** @returns undefined where the process has ended. */
  async #answer(): Promise<Answer | undefined> {
    for (;;) {
      const from = this.#text.indexOf(ANSWER);
      const end = from < 0 ? -1 : this.#text.indexOf("\n", from);
      if (end >= 0) {
        const answer = JSON.parse(this.#text.slice(from + 1, end));
        this.#text = this.#text.slice(end + 1);
        return answer;
      }
      const { value, done } = await this.#lines!.read();
      if (done) return undefined;
      this.#text += value;
    }
  }
}

function isTooMuch({ ms, grewBytes }: Answer): boolean {
  return ms > MOST_MS || grewBytes > MOST_BYTES;
}

/**
 * Reads the bad files, then damages bases in turn and reads those.
 * @param only part of the names of the files that are wanted.
 * @param onDone called after each, with how many were done.
 */
export async function runMutations(
  { count, seed, only = "", onDone }: {
    readonly count: number;
    readonly seed: number;
    readonly only?: string;
    readonly onDone?: (done: number) => void;
  },
): Promise<Report> {
  const namesOf = (of: Base[]) => of.map(({ name }) => name).filter((name) => name.includes(only));
  const names = namesOf(listBases()), bad = namesOf(listBad());
  const mutations = Array.from({ length: names.length === 0 ? 0 : count }, (_, i) => ({
    name: names[(i + seed) % names.length]!,
    seed: (Math.imul(seed, 1_000_003) + i) >>> 0,
  }));
  const jobs: Job[] = [...bad.map((name) => ({ name, seed: undefined })), ...mutations];
  const outcomes: Record<string, number> = {};
  const failures: Failure[] = [];
  const again: Job[] = [];
  let slowest: Job | undefined;
  let slowestMs = 0, grewMostBytes = 0, done = 0;
  const take = (job: Job, answer: Answer | string) => {
    if (typeof answer === "string") {
      failures.push({ ...job, what: "", problem: answer });
      return;
    }
    outcomes[answer.outcome] = (outcomes[answer.outcome] ?? 0) + 1;
    for (const problem of answer.problems) failures.push({ ...job, what: answer.what, problem });
    if (answer.ms > slowestMs) [slowest, slowestMs] = [job, answer.ms];
    grewMostBytes = Math.max(grewMostBytes, answer.grewBytes);
  };

  const processes = Math.max(1, Math.min(navigator.hardwareConcurrency, 4));
  await Promise.all(Array.from({ length: processes }, async (_, which) => {
    const reader = new Reader();
    try {
      for (const job of jobs) {
        // Each base is always one process's, which reads it as it is first.
        const at = job.seed === undefined ? bad.indexOf(job.name) : names.indexOf(job.name);
        if (at % processes !== which) continue;
        const answer = await reader.ask(job);
        if (typeof answer === "object" && isTooMuch(answer)) again.push(job);
        else take(job, answer);
        onDone?.(++done);
      }
    } finally {
      await reader.close();
    }
  }));
  for (const job of again) {
    let answer: Answer | string = "";
    for (let i = 0; i < TRIES; i++) {
      answer = await askAlone(job);
      if (typeof answer === "string" || !isTooMuch(answer)) break;
    }
    take(job, answer);
    if (typeof answer === "object" && isTooMuch(answer)) {
      const problem = `took ${answer.ms.toFixed(0)} ms and ${megabytes(answer.grewBytes)} MB more`;
      failures.push({ ...job, what: answer.what, problem });
    }
  }
  return {
    ...{
      bases: names.length,
      bad: bad.length,
      count: mutations.length,
      outcomes,
      slowestMs,
      slowest,
      grewMostBytes,
    },
    failures,
  };
}

async function askAlone(job: Job): Promise<Answer | string> {
  const reader = new Reader();
  try {
    return await reader.ask(job);
  } finally {
    await reader.close();
  }
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

/** A failure in words, with what repeats it. */
export function describe({ name, seed, what, problem }: Failure): string {
  return `${name}${seed === undefined ? "" : `:${seed} (${what})`}: ${problem}`;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      count: { type: "string", default: "2000" },
      seed: { type: "string", default: "1" },
      only: { type: "string" },
      replay: { type: "string" },
    },
  });
  if (values.replay !== undefined) {
    const [, name, seed] = values.replay.match(/^(.*):(\d+)$/) ?? [];
    if (name === undefined) {
      console.error("error: Cannot replay: give NAME:SEED");
      Deno.exit(2);
    }
    console.log(await askAlone({ name, seed: Number(seed) }));
    Deno.exit(0);
  }
  const start = performance.now();
  const { only } = values;
  const report = await runMutations({
    count: Number(values.count),
    seed: Number(values.seed),
    ...(only === undefined ? {} : { only }),
    onDone(done) {
      if (done % 500 === 0) console.log(`${done} files read`);
    },
  });
  const { bases, bad, count, outcomes, slowest, slowestMs, grewMostBytes, failures } = report;
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(`\n${bad} bad files and ${count} mutations of ${bases} good ones in ${seconds} s`);
  for (const [outcome, n] of Object.entries(outcomes)) console.log(`  ${outcome}: ${n}`);
  console.log(
    `slowest ${slowestMs.toFixed(0)} ms (${slowest?.name}:${slowest?.seed ?? "as it is"}), ` +
      `at most ${megabytes(grewMostBytes)} MB more memory`,
  );
  for (const failure of failures) console.log(`FAILED ${describe(failure)}`);
  console.log(`${failures.length} failed`);
  Deno.exit(failures.length > 0 ? 1 : 0);
}
