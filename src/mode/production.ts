/**
 * Production: a presigned URL in, posted results out.
 *
 * Source: Techcyte External Container Service, «Production». The platform starts the container once
 * for a task and stops it after 90 minutes; what it prints is what a vendor sees.
 */

import { rm } from "node:fs/promises";
import type { Gpu } from "../../kernels/device.ts";
import type { ProductionConfig } from "../config.ts";
import { TechcyteError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Results } from "../results/schema.ts";
import { encodeResults, TechcyteClient } from "../techcyte/client.ts";
import { uploadDebugFiles } from "../techcyte/debug_upload.ts";
import type { Source } from "../slide/source.ts";
import { downloadSlide } from "../slide/source_download.ts";
import { HttpSource } from "../slide/source_http.ts";
import { FETCHED } from "./progress.ts";

/** What production needs of a run. */
export interface ProductionRun {
  readonly log: Log;
  readonly signal: AbortSignal;
  progress(done: number, total: number, what: string): void;
  /** Writes text to standard output as it is, without a line break. */
  print(text: string): void;
  /** Finds the GPU and prints the smoke test. */
  startGpu(): Promise<Gpu | undefined>;
  /** Opens the slide and classifies it; the results are checked. */
  classify(location: string | Source, gpu: Gpu | undefined): Promise<Results>;
  /** Writes result.png and result.json into OUTPUT_DIR, each whole or not at all. */
  writeOutputs(location: string | Source, results: Results): Promise<void>;
}

/**
 * Classifies the slide at the URL, read as it goes or downloaded first, and posts. What was
 * downloaded is deleted and the debug files are uploaded whatever happens.
 * @throws {SourceError} where the slide cannot be had, {TechcyteError} where the results cannot be
 *   posted (they are printed then), what `classify` throws, and {InterruptedError} where the run was
 *   told to stop; then nothing is posted that was not on its way.
 */
export async function production(config: ProductionConfig, run: ProductionRun): Promise<void> {
  let failure: unknown;
  try {
    const client = new TechcyteClient(config, { log: run.log, signal: run.signal });
    // A wrong key is better known before the work than after it.
    await client.authenticate();
    const document = await classifyScan(config, run);
    await post(client, config, run, document);
  } catch (error) {
    failure = error;
    // The upload below may be the last thing that there is time for.
    if (run.signal.aborted) run.log.error((error as Error).message);
    throw error;
  } finally {
    await uploadDebugFiles(config, run.log, { failure });
  }
}

/** @returns the document as it is posted. */
async function classifyScan(config: ProductionConfig, run: ProductionRun): Promise<Blob> {
  const gpu = await run.startGpu();
  const { location, free } = await (config.stream ? stream : download)(config, run);
  try {
    const results = await run.classify(location, gpu);
    // Now, so that what is posted is what was checked, whatever processImage left running changes.
    const document = encodeResults(results);
    try {
      await run.writeOutputs(location, results);
    } catch (error) {
      run.signal.throwIfAborted();
      // The post is what the platform waits for; a full or missing folder must not cost it.
      run.log.error(`${(error as Error).message}; the results are posted nevertheless`);
    }
    gpu?.close();
    return document;
  } finally {
    await free();
  }
}

/** A slide that can be opened, until it is freed. */
interface Scan {
  readonly location: string | Source;
  free(): Promise<void>;
}

/** The slide where it lies, read as it goes. */
async function stream(config: ProductionConfig, run: ProductionRun): Promise<Scan> {
  const source = await HttpSource.open(config.scanUrl, {
    workDir: config.workDir,
    signal: run.signal,
    log: run.log,
    onProgress: (fetched, total) => run.progress(fetched, total, FETCHED),
  });
  return {
    location: source,
    async free() {
      await source.close();
      const { requests, bytesFetched, sizeBytes } = source;
      run.log.info(
        `Fetched ${(bytesFetched / 1e6).toFixed(1)} of ${(sizeBytes / 1e6).toFixed(1)} MB in ` +
          `${requests} requests`,
      );
    },
  };
}

/** The slide in a file. */
async function download(config: ProductionConfig, run: ProductionRun): Promise<Scan> {
  const { path } = await downloadSlide({
    url: config.scanUrl,
    workDir: config.workDir,
    signal: run.signal,
    log: run.log,
    progress: (done, total, what) => run.progress(done, total, what),
  });
  return { location: path, free: () => rm(path, { force: true }) };
}

async function post(
  client: TechcyteClient,
  config: ProductionConfig,
  run: ProductionRun,
  document: Blob,
): Promise<void> {
  run.signal.throwIfAborted();
  try {
    await untilHurried(client.postResults(document), run.signal);
    run.print(`Results posted to ${config.apiUrl}\n`);
  } catch (error) {
    if (error instanceof TechcyteError || run.signal.aborted) {
      run.print("Results JSON (for debugging): ");
      const pieces = document.stream().pipeThrough(new TextDecoderStream());
      for await (const piece of pieces) run.print(piece);
      run.print("\n");
    }
    throw error;
  }
}

/** Milliseconds that a post under way has to be answered once the run is told to stop. */
const HURRIED_MS = 3_000;

/** Waits for a post, but not long where the run was told to stop: `docker stop` kills after 10 s. */
async function untilHurried(posting: Promise<void>, signal: AbortSignal): Promise<void> {
  const done = new AbortController();
  const hurried = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => {
      const timer = setTimeout(() => reject(signal.reason), HURRIED_MS);
      done.signal.addEventListener("abort", () => clearTimeout(timer));
    }, { signal: done.signal });
  });
  try {
    await Promise.race([posting, hurried]);
  } finally {
    done.abort();
    posting.catch(() => {}); // Left behind: its fate is no longer this run's to say.
  }
}
