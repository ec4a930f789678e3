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
import { type Results, serializeResults } from "../results/schema.ts";
import { TechcyteClient } from "../techcyte/client.ts";
import { uploadDebugFiles } from "../techcyte/debug_upload.ts";
import { downloadSlide } from "../slide/source_download.ts";

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
  classify(location: string, gpu: Gpu | undefined): Promise<Results>;
  /** Writes result.png and result.json into OUTPUT_DIR, each whole or not at all. */
  writeOutputs(location: string, results: Results): Promise<void>;
}

/**
 * Downloads, classifies and posts. The slide is deleted and the debug files are uploaded whatever
 * happens.
 * @throws {SourceError} where the slide cannot be had, {TechcyteError} where the results cannot be
 *   posted (they are printed then), what `classify` throws, and {InterruptedError} where the run was
 *   told to stop; then nothing is posted that was not on its way.
 */
export async function production(config: ProductionConfig, run: ProductionRun): Promise<void> {
  let failure: unknown;
  try {
    const results = await classifyDownload(config, run);
    await post(config, run, results);
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    await uploadDebugFiles(config, run.log, { failure });
  }
}

async function classifyDownload(config: ProductionConfig, run: ProductionRun): Promise<Results> {
  const gpu = await run.startGpu();
  const { path } = await downloadSlide({
    url: config.scanUrl,
    workDir: config.workDir,
    signal: run.signal,
    log: run.log,
    progress: (done, total, what) => run.progress(done, total, what),
  });
  try {
    const results = await run.classify(path, gpu);
    try {
      await run.writeOutputs(path, results);
    } catch (error) {
      run.signal.throwIfAborted();
      // The post is what the platform waits for; a full or missing folder must not cost it.
      run.log.error(`${(error as Error).message}; the results are posted nevertheless`);
    }
    gpu?.close();
    return results;
  } finally {
    await rm(path, { force: true });
  }
}

async function post(
  config: ProductionConfig,
  run: ProductionRun,
  results: Results,
): Promise<void> {
  try {
    await new TechcyteClient(config, { log: run.log, signal: run.signal }).postResults(results);
    run.print(`Results posted to ${config.apiUrl}\n`);
  } catch (error) {
    if (error instanceof TechcyteError) {
      run.print("Results JSON (for debugging): ");
      for (const piece of serializeResults(results)) run.print(piece);
      run.print("\n");
    }
    throw error;
  }
}
