/**
 * `DEBUG_FILE_UPLOAD_URL`: one zip of what a vendor wants to see of a run, also of one that failed.
 *
 * Source: Techcyte developer documentation, «Model Hosting Service» (a presigned URL for PUT; the
 * file is then offered for download beside the task).
 */

import { join } from "node:path";
import { BlobWriter, configure, TextReader, ZipWriter } from "@zip.js/zip.js";
import ky from "ky";
import { type ProductionConfig, withoutQuery } from "../config.ts";
import { InterruptedError } from "../errors.ts";
import type { Log } from "../log.ts";
import { redact } from "../secrets.ts";
import { kyRetry, reasonOf, type RetryPolicy, withoutQueries } from "../retry.ts";

/** Files of OUTPUT_DIR that go into the zip, where this run wrote them. */
const OUTPUTS = ["result.png", "result.json", "result.partial.json"];

/** Few tries: the run is over, and what stops it may stop the upload as well. */
const TRIES: RetryPolicy = { attempts: 3, baseMs: 1_000, maxMs: 10_000 };

/** For the one try after an interruption. */
const HURRIED_MS = 4_000;

export interface DebugUploadOptions {
  /** What ended the run, for error.txt. */
  readonly failure?: unknown;
  readonly retry?: RetryPolicy;
  /** For each try, the sending included. */
  readonly timeoutMs?: number;
}

/**
 * Sends log.txt, config.json (whose secrets read "[secret]"), the outputs of this run and, after a
 * failure, error.txt. Nothing is thrown: a run is what it is without it, so a failure is a line in the log. Does nothing where the
 * URL is not set.
 */
export async function uploadDebugFiles(
  config: ProductionConfig,
  log: Log,
  options: DebugUploadOptions = {},
): Promise<void> {
  const secret = config.debugFileUploadUrl;
  if (secret === undefined) return;
  const location = withoutQuery(secret.reveal());
  try {
    const zip = await zipOf(config, log, options.failure);
    // Who was told to stop is killed some seconds later.
    const isHurried = options.failure instanceof InterruptedError;
    const response = await ky.put(secret.reveal(), {
      // No type: S3 refuses a header that the signature does not cover.
      body: new Blob([zip]),
      retry: isHurried ? 0 : kyRetry(options.retry ?? TRIES),
      timeout: isHurried ? HURRIED_MS : options.timeoutMs ?? 60_000,
    });
    await response.body?.cancel();
    log.info(`Uploaded ${zip.size} bytes of debug files to "${location}"`);
  } catch (error) {
    log.warn(`Cannot upload the debug files to "${location}": ${reasonOf(error)}`);
  }
}

async function zipOf(config: ProductionConfig, log: Log, failure: unknown): Promise<Blob> {
  // A thread would cost more to start than the few megabytes to deflate.
  configure({ useWebWorkers: false });
  const zip = new ZipWriter(new BlobWriter());
  await zip.add("log.txt", new TextReader(log.text()));
  const shown = { ...config, credentials: config.credentials.kind };
  await zip.add("config.json", new TextReader(JSON.stringify(shown, null, 2) + "\n"));
  if (failure !== undefined) {
    // A vendor's own error may hold anything, a URL that it was given too.
    await zip.add(
      "error.txt",
      new TextReader(redact(withoutQueries(Deno.inspect(failure))) + "\n"),
    );
  }
  for (const name of OUTPUTS) {
    const file = await openOutput(join(config.outputDir, name));
    // Streamed: a document of a million points has tens of megabytes. The stream closes the file.
    if (file !== undefined) await zip.add(name, file.readable);
  }
  return await zip.close();
}

/** A file that this run wrote; undefined where there is none. */
async function openOutput(path: string): Promise<Deno.FsFile | undefined> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
  } catch {
    return undefined; // Not there, or in a folder that is none: the rest of the zip is worth sending.
  }
  const { isFile, mtime } = await file.stat();
  // What an earlier run left in the folder would be taken for this one's.
  if (isFile && mtime !== null && mtime.getTime() >= performance.timeOrigin) return file;
  file.close();
}
