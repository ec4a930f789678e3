/** Byte ranges from a file or memory: all that a format's reader knows of where a slide lies. */

import { closeSync, openSync, readSync, statSync } from "node:fs";
import { SourceError } from "../errors.ts";

/** Random access to the bytes of one object. */
export interface Source {
  /** Path, or URL without its query: for messages. */
  readonly location: string;
  readonly sizeBytes: number;
  /**
   * Reads `lengthBytes` from `offsetBytes`, fewer where the object ends before.
   * @throws {SourceError} where the bytes cannot be had; {RangeError} for a negative or fractional range.
   */
  read(
    offsetBytes: number,
    lengthBytes: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Announces what will be read soon, so that a distant source can join its requests and begin them,
   * and fetches no more around them than is asked for. Returns at once and never fails: the read
   * does. An abort takes the announcement back. Sources that are near have none.
   */
  prefetch?(ranges: readonly ByteRange[], signal?: AbortSignal): void;
  close(): Promise<void>;
}

/** A piece of an object. */
export interface ByteRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** How many bytes of a range there are. @throws {RangeError} for a negative or fractional range. */
export function clampRange(sizeBytes: number, offsetBytes: number, lengthBytes: number): number {
  if (
    !Number.isSafeInteger(offsetBytes) || !Number.isSafeInteger(lengthBytes) ||
    offsetBytes < 0 || lengthBytes < 0
  ) {
    throw new RangeError(`Cannot read ${lengthBytes} bytes from offset ${offsetBytes}`);
  }
  return Math.max(0, Math.min(lengthBytes, sizeBytes - offsetBytes));
}

/** A read after `close`. */
export function closedError(location: string): SourceError {
  return new SourceError(`Cannot read "${location}": it is closed`, { location });
}

/** A source over bytes in memory, which it does not copy. */
export class MemorySource implements Source {
  readonly sizeBytes: number;
  #bytes: Uint8Array | undefined;
  constructor(bytes: Uint8Array, readonly location = "memory") {
    this.#bytes = bytes;
    this.sizeBytes = bytes.byteLength;
  }
  // deno-lint-ignore require-await -- async so that misuse rejects instead of throwing
  async read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const length = clampRange(this.sizeBytes, offsetBytes, lengthBytes);
    if (this.#bytes === undefined) throw closedError(this.location);
    return this.#bytes.slice(offsetBytes, offsetBytes + length) as Uint8Array<ArrayBuffer>;
  }
  close(): Promise<void> {
    this.#bytes = undefined;
    return Promise.resolve();
  }
}

/**
 * A source over a file. Reads are synchronous: a tile is some kilobytes and mostly in the page
 * cache, where a hand-over to another thread costs more than the read.
 */
export class FileSource implements Source {
  #descriptor: number | undefined;
  private constructor(
    descriptor: number,
    readonly location: string,
    readonly sizeBytes: number,
  ) {
    this.#descriptor = descriptor;
  }

  /** Opens a regular file. @throws {SourceError} where there is none, it is a folder or it may not be read. */
  static open(path: string): FileSource {
    try {
      // Asked before it is opened, since to open a pipe waits for its writer.
      const stat = statSync(path);
      if (!stat.isFile()) {
        throw new SourceError(
          `Cannot open "${path}": it is ${stat.isDirectory() ? "a folder" : "not a regular file"}`,
          { location: path },
        );
      }
      return new FileSource(openSync(path, "r"), path, stat.size);
    } catch (cause) {
      if (cause instanceof SourceError) throw cause;
      const why = (cause as { code?: string }).code === "ENOENT"
        ? "there is no such file"
        : (cause as Error).message;
      throw new SourceError(`Cannot open "${path}": ${why}`, { location: path }, { cause });
    }
  }

  // deno-lint-ignore require-await -- async so that misuse rejects instead of throwing
  async read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const length = clampRange(this.sizeBytes, offsetBytes, lengthBytes);
    if (this.#descriptor === undefined) throw closedError(this.location);
    const data = new Uint8Array(length);
    let done = 0;
    try {
      while (done < length) {
        const n = readSync(this.#descriptor, data, done, length - done, offsetBytes + done);
        if (n === 0) break; // The file shrank since it was opened.
        done += n;
      }
    } catch (cause) {
      throw new SourceError(
        `Cannot read "${this.location}" at offset ${offsetBytes}: ${(cause as Error).message}`,
        { location: this.location },
        { cause },
      );
    }
    return done === length ? data : data.subarray(0, done);
  }

  close(): Promise<void> {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
    return Promise.resolve();
  }
}
