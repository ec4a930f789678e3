/** One run, in either mode: from the GPU to written outputs, under a deadline and signals. */

import { join } from "node:path";
import process from "node:process";
import type { Gpu } from "../../kernels/device.ts";
import type { Config } from "../config.ts";
import type { Context } from "../context.ts";
import { ConfigError, InterruptedError, ResultsError } from "../errors.ts";
import { type Log, oneLine } from "../log.ts";
import { overviewOf } from "../pipeline/overview.ts";
import { checkWritable, writeWhole } from "../report/files.ts";
import { renderOverlay } from "../report/overlay.ts";
import { checkResults, type Results, serializeResults } from "../results/schema.ts";
import { redact } from "../secrets.ts";
import { openSlide } from "../slide/open.ts";
import type { Slide } from "../slide/slide.ts";
import type { Source } from "../slide/source.ts";
import { barProgress, logProgress, type Progress } from "./progress.ts";
import { smokeTest } from "./smoke_test.ts";
import { GRACE_MS, startWatchdog } from "./watchdog.ts";

/** Exit code of a run that was interrupted or out of time: see main.ts. */
export const INTERRUPTED = 6;

/** `processImage` threw something of its own. */
export class ProcessImageError extends Error {
  override name = "ProcessImageError";
}

export class Run {
  /** Aborted by the deadline, SIGTERM and SIGINT, with an InterruptedError. */
  readonly signal: AbortSignal;
  readonly #stop = new AbortController();
  readonly #deadline: ReturnType<typeof setTimeout>;
  readonly #deadlineAtMs: number;
  readonly #handlers: [Deno.Signal, () => void][] = [];
  readonly #slides = new Map<string | Source, Slide>();
  #progress: Progress;
  /** Ends the classification under way. */
  #fail: ((error: unknown) => void) | undefined;
  /** Standard output is gone. */
  #isMute = false;
  /** A classification failed or was interrupted. */
  #failed = false;

  private constructor(readonly config: Config, readonly log: Log, progress: Progress) {
    this.#progress = progress;
    this.signal = this.#stop.signal;
    const ms = config.deadlineMinutes * 60_000;
    // Counted from the process's start, as the platform counts.
    this.#deadlineAtMs = performance.timeOrigin + ms;
    this.#deadline = setTimeout(
      () =>
        this.#interrupt(
          new InterruptedError(
            `Cannot go on: the deadline of ${config.deadlineMinutes} minutes has come ` +
              `(DEADLINE_MINUTES)`,
            "deadline",
          ),
        ),
      Math.max(0, this.#deadlineAtMs - Date.now()),
    );
    for (const name of ["SIGTERM", "SIGINT"] as const) {
      const handler = () =>
        this.#interrupt(new InterruptedError(`Cannot go on: ${name} was received`, name));
      Deno.addSignalListener(name, handler);
      this.#handlers.push([name, handler]);
    }
  }

  /** Starts the clock and listens for signals. `close` ends both. */
  static async start(config: Config, log: Log): Promise<Run> {
    return new Run(config, log, Deno.stderr.isTerminal() ? await barProgress() : logProgress(log));
  }

  progress(done: number, total: number, what: string): void {
    this.#progress.update(done, total, what);
  }

  /** Ends a progress bar, so that a line may follow; further progress begins another. */
  endProgress(): void {
    this.#progress.stop();
  }

  /**
   * Writes text to standard output as it is, secrets struck out. Where nobody reads any more or the
   * disk is full that is logged once: what is printed is not what a run is for.
   */
  print(text: string): void {
    this.endProgress();
    if (this.#isMute) return;
    const bytes = new TextEncoder().encode(redact(text));
    try {
      for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
    } catch (error) {
      this.#isMute = true;
      this.log.warn(`Cannot write to standard output: ${(error as Error).message}`);
    }
  }

  /** Finds the GPU and prints the smoke test. @throws {KernelError} */
  async startGpu(): Promise<Gpu | undefined> {
    return await smokeTest(this.config.adapter, (line) => this.print(line + "\n"));
  }

  /** @throws {ConfigError} where OUTPUT_DIR cannot be written to: said before work is done in vain. */
  checkOutputDir(): void {
    try {
      checkWritable(this.config.outputDir);
    } catch (cause) {
      throw new ConfigError(
        `Cannot write to OUTPUT_DIR "${this.config.outputDir}": ${(cause as Error).message}; ` +
          `mount a folder that this user may write to, or set OUTPUT_DIR`,
        "OUTPUT_DIR",
        { cause },
      );
    }
  }

  /**
   * Opens a slide, which `close` closes; a second time it is the same one.
   * @throws what openSlide throws.
   */
  async open(location: string | Source): Promise<Slide> {
    let slide = this.#slides.get(location);
    if (slide === undefined) {
      const { config } = this;
      slide = await openSlide(location, {
        decoders: config.decoders,
        onBadTile: config.onBadTile,
        colour: config.colour,
        ...(config.mode === "production" ? { workDir: config.workDir } : {}),
      });
      this.#slides.set(location, slide);
    }
    return slide;
  }

  /**
   * Runs `processImage` on a slide and checks what it gives.
   * @throws {ProcessImageError} what it threw, unless that is an error of this project's;
   *   {ResultsError} for a wrong document; {InterruptedError} where the run was told to stop: then
   *   what it had kept, or gave after that, is in OUTPUT_DIR/result.partial.json.
   */
  async classify(location: string | Source, gpu: Gpu | undefined): Promise<Results> {
    const slide = await this.open(location);
    const { widthPx, heightPx } = slide.levels[0]!;
    this.log.info(
      `Slide: ${slide.format}, ${widthPx} × ${heightPx} pixels, levels: ${slide.levels.length}, ` +
        `${slide.properties.mppX ?? "unknown"} µm/px${
          this.config.colour === "raw"
            ? ""
            : slide.icc === undefined
            ? ", raw pixels since it has no ICC profile"
            : ", converted to sRGB"
        }`,
    );
    let kept: Results | undefined;
    const context: Context = {
      gpu,
      scanId: this.config.scanId,
      config: this.config,
      log: this.log,
      signal: this.signal,
      progress: (done, total, what) => this.progress(done, total, what),
      keep: (partial) => kept = partial,
    };
    const watchdog = await startWatchdog(
      Math.max(0, this.#deadlineAtMs - Date.now()),
      INTERRUPTED,
    );
    const freeExits = this.#trapExits();
    try {
      this.signal.throwIfAborted();
      const results = await this.#untilInterrupted((async () => {
        // Here and not at the top: a file that does not even parse is the vendor's failure too.
        const { processImage } = await import("../process_image.ts");
        return await processImage(slide, context);
      })());
      if (this.signal.aborted) {
        // Whoever heeds the signal may give what they have: half a count looks like a whole one.
        kept = results ?? kept;
        throw this.signal.reason;
      }
      return withBadTiles(this.#check(results), slide, this.log);
    } catch (error) {
      this.#failed = true;
      if (this.signal.aborted) {
        this.#writePartial(kept);
        throw this.signal.reason;
      }
      throw isOurs(error)
        ? error
        : new ProcessImageError(`processImage failed: ${describe(error)}`, { cause: error });
    } finally {
      freeExits();
      watchdog.stop();
      this.endProgress();
    }
  }

  /** @throws {ResultsError} for a wrong document, also for one that has a scan twice. */
  #check(document: unknown): Results {
    const results = checkResults(document);
    const scans = new Set<string>();
    for (const [i, { scanId }] of results.scanResults.entries()) {
      if (scans.has(scanId)) {
        throw new ResultsError(
          `Cannot use the results: scanResults[${i}].scanId is "${scanId}", as an earlier one's is; ` +
            `every entry becomes an evaluation of its own`,
          `scanResults[${i}].scanId`,
        );
      }
      if (scanId !== this.config.scanId) {
        this.log.warn(`The results have scan "${scanId}", the task's is "${this.config.scanId}"`);
      }
      scans.add(scanId);
    }
    return results;
  }

  /**
   * While processImage runs, an exit fails the classification instead: nothing would be posted, and
   * the platform would see whatever code was given.
   */
  #trapExits(): () => void {
    const { exit } = Deno, exitNode = process.exit;
    const trap = (code?: unknown): never => {
      const error = new Error(`processImage called exit(${code ?? ""}); return or throw instead`);
      this.#fail?.(error);
      throw error;
    };
    Deno.exit = trap;
    process.exit = trap;
    return () => {
      Deno.exit = exit;
      process.exit = exitNode;
    };
  }

  /**
   * Writes result.json and result.png, each whole or not at all; the document first, since it is
   * what counts.
   * @throws {ConfigError} where OUTPUT_DIR cannot be written to; what reading the slide throws.
   */
  async writeOutputs(location: string | Source, results: Results): Promise<void> {
    this.#write("result.json", serializeResults(results));
    const overview = await overviewOf(await this.open(location), this);
    const png = await renderOverlay(overview, 1 / overview.downsampleX, results);
    this.#write("result.png", [png]);
  }

  /**
   * Takes a rejection that nobody handled: a promise that processImage forgot fails the
   * classification, since results without it may be incomplete. After a classification that failed
   * it is one more of its troubles: the run ends by the first.
   * @returns false where no classification is to blame.
   */
  failUnhandled(error: unknown): boolean {
    if (this.#fail !== undefined) this.#fail(error);
    else if (this.#failed) this.log.debug(`Unhandled rejection: ${describe(error)}`);
    else return false;
    return true;
  }

  /** Stops the clock, the signal handlers and the progress, and closes the slides. */
  async close(): Promise<void> {
    clearTimeout(this.#deadline);
    for (const [name, handler] of this.#handlers) Deno.removeSignalListener(name, handler);
    this.endProgress();
    for (const slide of this.#slides.values()) await slide.close();
    this.#slides.clear();
  }

  #interrupt(reason: InterruptedError): void {
    if (this.signal.aborted) return;
    this.log.warn(reason.message);
    this.#stop.abort(reason);
  }

  /** Waits for `work`; once the run is interrupted, for GRACE_MS more and then no longer. */
  async #untilInterrupted<T>(work: Promise<T>): Promise<T> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const done = new AbortController();
    const given = new Promise<never>((_, reject) => {
      this.#fail = reject;
      this.signal.addEventListener("abort", () => {
        timer = setTimeout(() => {
          this.log.warn(`processImage did not heed context.signal for ${GRACE_MS / 1000} s`);
          reject(this.signal.reason);
        }, GRACE_MS);
      }, { once: true, signal: done.signal });
    });
    try {
      return await Promise.race([work, given]);
    } finally {
      clearTimeout(timer);
      done.abort();
      this.#fail = undefined;
      work.catch(() => {}); // Left behind: nobody waits for it any more.
    }
  }

  #writePartial(kept: Results | undefined): void {
    if (kept === undefined) return;
    try {
      this.#write("result.partial.json", serializeResults(checkResults(kept)));
      this.log.warn(
        `What was known is in "${join(this.config.outputDir, "result.partial.json")}"`,
      );
    } catch (error) {
      this.log.error((error as Error).message);
    }
  }

  #write(name: string, pieces: Iterable<string | Uint8Array>): void {
    const path = join(this.config.outputDir, name);
    try {
      checkWritable(this.config.outputDir);
      writeWhole(path, pieces);
    } catch (cause) {
      throw new ConfigError(`Cannot write "${path}": ${(cause as Error).message}`, "OUTPUT_DIR", {
        cause,
      });
    }
  }
}

/** Says in the document how many tiles were filled, since what lay on them was not looked at. */
function withBadTiles(results: Results, { badTiles }: Slide, log: Log): Results {
  if (badTiles === 0) return results;
  log.warn(`${badTiles} tiles could not be decoded and were taken as background`);
  return { ...results, caseResults: { ...results.caseResults, unreadableTiles: badTiles } };
}

/** Errors that say themselves what went wrong: see errors.ts and kernels/errors.ts. */
function isOurs(error: unknown): boolean {
  return error instanceof Error &&
    /^(Config|Source|SlideFormat|Unsupported|Codec|Results|Techcyte|Interrupted|Kernel|Model)Error$/
      .test(error.name);
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : oneLine(String(error));
}
