/**
 * A presigned URL to a file on disk, through broken connections, busy servers and expired signatures.
 *
 * Source: RFC 9110 §14 (Range), §13.1.1 (If-Match); Amazon S3 API, «GetObject» and «Error
 * responses». A presigned URL is signed for one method, so there is no HEAD: the first GET tells the
 * length. Its query is the signature and appears in no message.
 */

import { type FileHandle, open, rm } from "node:fs/promises";
import { join } from "node:path";
import ky from "ky";
import { withoutQuery } from "../config.ts";
import { type Secret } from "../secrets.ts";
import { SourceError } from "../errors.ts";
import type { Log } from "../log.ts";
import { backoffMs, reasonOf, RETRY, type RetryPolicy, sleep } from "../retry.ts";
import {
  Broken,
  diskFreeBytes,
  megabytes,
  refusalOf,
  sameVersion,
  strongEtag,
  type Version,
  versionOf,
} from "./source_storage.ts";

export interface DownloadOptions {
  /** Presigned for GET. */
  readonly url: Secret;
  /** The folder that the file is written in. */
  readonly workDir: string;
  /** Its abort ends the download with its reason. */
  readonly signal: AbortSignal;
  readonly log: Pick<Log, "info" | "warn">;
  progress(done: number, total: number, what: string): void;
  /** Tries in a row without progress, and the waits between. */
  readonly retry?: RetryPolicy;
  /** How long a server may take to begin its answer. */
  readonly timeoutMs?: number;
  /** A connection that brings fewer than `stallBytes` in `stallMs` is given up and resumed. */
  readonly stallMs?: number;
  readonly stallBytes?: number;
  /** Free bytes of a folder's disk. */
  readonly freeBytes?: (folder: string) => number;
}

/** A file that grew by this much, or by an eighth of the slide, begins its count of tries anew. */
const PROGRESS_BYTES = 1 << 20;

/** The object is another one than before: what is on disk belongs to none. */
class Changed extends Error {}

/**
 * Downloads a slide into a new file of an unpredictable name, readable by this user alone, in
 * constant memory. The caller deletes it; after a failure nothing is left.
 * @throws {SourceError} where it cannot be had: refused, expired, changed while it was read, not
 *   fitting on the disk, or still failing after the last try; the signal's reason where it is aborted.
 */
export async function downloadSlide(
  options: DownloadOptions,
): Promise<{ path: string; version: Version & { sizeBytes: number } }> {
  const path = join(options.workDir, `wgslide-${crypto.randomUUID()}.slide`);
  let file: FileHandle;
  try {
    file = await open(path, "wx", 0o600);
  } catch (cause) {
    throw new SourceError(
      `Cannot write the slide to the folder "${options.workDir}": ${(cause as Error).message}`,
      { location: options.workDir },
      { cause },
    );
  }
  try {
    const version = await new Download(options, file).run();
    await file.close();
    return { path, version };
  } catch (error) {
    await file.close().catch(() => {}); // The first error is the one to tell.
    await rm(path, { force: true });
    throw error;
  }
}

class Download {
  readonly #options: DownloadOptions;
  readonly #file: FileHandle;
  readonly #location: string;
  readonly #retry: RetryPolicy;
  /** Bytes on disk that belong to `#version`. */
  #received = 0;
  #version: Version | undefined;

  constructor(options: DownloadOptions, file: FileHandle) {
    this.#options = options;
    this.#file = file;
    this.#location = withoutQuery(options.url.reveal());
    this.#retry = options.retry ?? RETRY;
  }

  /** Tries until all is there; the version that is in the file. */
  async run(): Promise<Version & { sizeBytes: number }> {
    const { log, signal } = this.#options;
    const startMs = performance.now();
    let failures = 0;
    let changes = 0;
    let furthest = 0;
    for (;;) {
      signal.throwIfAborted();
      try {
        await this.#try();
        const seconds = (performance.now() - startMs) / 1000;
        log.info(
          `Downloaded ${megabytes(this.#received)} from "${this.#location}" in ${
            seconds.toFixed(1)
          } s`,
        );
        return { ...this.#version!, sizeBytes: this.#received };
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof Changed) {
          if (++changes > 1) throw this.#error("it keeps changing while it is read");
          log.warn(`"${this.#location}" changed while it was read: downloading it anew`);
          await this.#startOver();
          continue;
        }
        if (!(error instanceof Broken)) throw error;
        // A server without Range starts over each time: only what no try reached before is progress.
        const eighth = (this.#version?.sizeBytes ?? Infinity) / 8;
        if (this.#received >= furthest + Math.min(PROGRESS_BYTES, eighth)) failures = 0;
        furthest = Math.max(furthest, this.#received);
        failures++;
        const status = error.response?.status;
        const state = `${error.message} (${this.#progressText()})`;
        if (failures >= this.#retry.attempts) {
          throw this.#error(`${state}, after ${failures} tries`, { status });
        }
        const delayMs = backoffMs(this.#retry, failures, error.response);
        log.warn(
          `The download of "${this.#location}" broke: ${state}; going on in ${
            (delayMs / 1000).toFixed(1)
          } s`,
        );
        await sleep(delayMs, signal);
      }
    }
  }

  /** One request, from where the file ends to the object's end. */
  async #try(): Promise<void> {
    const { url, signal, timeoutMs = 30_000 } = this.#options;
    const headers: Record<string, string> = {
      range: `bytes=${this.#received}-`,
      // Lengths and ranges count the object's own bytes.
      "accept-encoding": "identity",
    };
    // Without a strong ETag the answer's version is compared alone.
    const etag = strongEtag(this.#version);
    if (this.#received > 0 && etag !== undefined) headers["if-match"] = etag;

    const stall = new AbortController();
    let response: Response;
    try {
      response = await ky.get(url.reveal(), {
        headers,
        signal: AbortSignal.any([signal, stall.signal]),
        timeout: timeoutMs,
        retry: 0,
        throwHttpErrors: false,
      });
    } catch (error) {
      signal.throwIfAborted();
      throw new Broken(reasonOf(error));
    }
    // An error's text may drip in just like a slide.
    const timer = setTimeout(() => stall.abort(), timeoutMs);
    try {
      await this.#begin(response);
    } catch (error) {
      await response.body?.cancel().catch(() => {}); // Frees the connection; the error is known.
      throw error;
    } finally {
      clearTimeout(timer);
    }
    await this.#receive(response, stall);
    const sizeBytes = this.#version?.sizeBytes;
    if (sizeBytes !== undefined && this.#received < sizeBytes) {
      throw new Broken("the server ended its answer too soon");
    }
    if (this.#received === 0) throw this.#error("it is empty");
  }

  /** Looks at an answer's head: may its body be written where the file ends? */
  async #begin(response: Response): Promise<void> {
    const { status } = response;
    if (status === 412) throw new Changed();
    if (status === 416) {
      if (this.#received > 0) throw new Changed();
      throw this.#error("it is empty", { status });
    }
    if (status !== 200 && status !== 206) throw await this.#refusal(response);

    const version = versionOf(response, this.#sizeOf(response));
    if (status === 206) {
      if (this.#received > 0 && !sameVersion(this.#version!, version)) throw new Changed();
    } else if (this.#received > 0) {
      // No Range here: what comes is the whole object.
      await this.#startOver();
    }
    const first = this.#version === undefined;
    this.#version = version;
    if (first) this.#checkDisk();
  }

  /** Size of the whole object, where the answer tells. */
  #sizeOf(response: Response): number | undefined {
    if (response.status === 206) {
      const range = response.headers.get("content-range") ?? "";
      const [, from, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(range) ?? [];
      if (from === undefined || Number(from) !== this.#received) {
        throw new Broken("the server answered with another range than asked for");
      }
      return total === "*" ? undefined : Number(total);
    }
    const length = response.headers.get("content-length");
    return length === null ? undefined : Number(length);
  }

  #checkDisk(): void {
    const sizeBytes = this.#version?.sizeBytes;
    if (sizeBytes === undefined) return;
    const { workDir, freeBytes = diskFreeBytes } = this.#options;
    const free = freeBytes(workDir);
    if (free < sizeBytes) {
      throw this.#error(
        `it has ${megabytes(sizeBytes)} and the disk of "${workDir}" only ${
          megabytes(free)
        } free; set WORK_DIR to a larger one`,
      );
    }
  }

  /** Writes the body to the file's end, each piece before the next is read. */
  async #receive(response: Response, stall: AbortController): Promise<void> {
    const { signal, progress, stallMs = 30_000, stallBytes = 65_536 } = this.#options;
    const { sizeBytes } = this.#version!;
    let before = this.#received;
    const timer = setInterval(() => {
      if (this.#received - before < stallBytes) stall.abort();
      before = this.#received;
    }, stallMs);
    try {
      for await (const piece of response.body ?? []) {
        if (sizeBytes !== undefined && this.#received + piece.byteLength > sizeBytes) {
          throw new Broken("the server sent more than it said");
        }
        await this.#write(piece);
        progress(this.#received, sizeBytes ?? this.#received, "bytes");
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof SourceError || error instanceof Broken) throw error;
      throw new Broken(stall.signal.aborted ? "the connection stalled" : reasonOf(error));
    } finally {
      clearInterval(timer);
    }
  }

  async #write(piece: Uint8Array): Promise<void> {
    try {
      let done = 0;
      while (done < piece.byteLength) {
        const { bytesWritten } = await this.#file.write(
          piece,
          done,
          piece.byteLength - done,
          this.#received + done,
        );
        done += bytesWritten;
      }
    } catch (cause) {
      throw new SourceError(
        `Cannot write the slide to the folder "${this.#options.workDir}": ${
          (cause as Error).message
        }`,
        { location: this.#options.workDir },
        { cause },
      );
    }
    this.#received += piece.byteLength;
  }

  async #startOver(): Promise<void> {
    await this.#file.truncate(0);
    this.#received = 0;
    this.#version = undefined;
  }

  /** What a status other than success means: Broken where another try may help, else the error to throw. */
  async #refusal(response: Response): Promise<Error> {
    const { status } = response;
    const { retried, expired, reason } = await refusalOf(response, this.#options.url.reveal());
    if (retried) return new Broken(reason, response);
    if (expired) {
      return this.#error(
        `its signature has expired (${status}${
          this.#received > 0 ? `, ${this.#progressText()}` : ""
        }); start the task again for a fresh URL`,
        { status, expired },
      );
    }
    return this.#error(reason, { status });
  }

  #progressText(): string {
    const sizeBytes = this.#version?.sizeBytes;
    return `${megabytes(this.#received)}${
      sizeBytes === undefined ? "" : ` of ${megabytes(sizeBytes)}`
    } received`;
  }

  #error(why: string, details: { status?: number; expired?: boolean } = {}): SourceError {
    return new SourceError(`Cannot download "${this.#location}": ${why}`, {
      location: this.#location,
      ...details,
    });
  }
}
