/**
 * Threads for decoders that would block the calling one for milliseconds a tile: those compiled to
 * WebAssembly (wasm_codec.ts).
 */

import { UnsupportedError } from "../errors.ts";
import type { RawTile } from "./slide.ts";

/** What a thread says: that it is there, then for every tile its pixels or what is wrong. */
export type Answer =
  | "ready"
  | { readonly rgb: Uint8Array<ArrayBuffer> }
  | { readonly message: string; readonly feature: string | undefined };

interface Job {
  resolve(rgb: Uint8Array<ArrayBuffer>): void;
  reject(reason: unknown): void;
}

interface Thread {
  readonly worker: Worker;
  /** Its modules are loaded, which takes longer than a tile. */
  readonly ready: Promise<void>;
  /** Whom its next answer is for; undefined where it has nothing to do. */
  job: Job | undefined;
}

const RESERVED: Job = { resolve() {}, reject() {} };

/** A tile takes some milliseconds; one that keeps a thread so long, for all bounds on it, is an attack. */
const MAX_MS = 10_000;

/**
 * Decodes on threads that are started when there is something for them, up to so many; with 0 on the
 * calling one. Callers bound what waits: `TileDecoder` gives it no more tiles than it has threads.
 */
export class CodecPool {
  readonly #threads: Thread[] = [];
  readonly #waiting: (() => void)[] = [];
  #isClosed = false;

  constructor(readonly size: number) {}

  /**
   * Decodes a tile to RGB `[heightPx, widthPx, 3]`.
   * @throws {Error} where it is damaged or takes too long; {UnsupportedError} where it is of a kind
   *   that is not read; the signal's reason where it is aborted before decoding began.
   */
  async decode(tile: RawTile, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    if (this.size === 0) {
      const { decodeWithWasm } = await import("./wasm_codec.ts");
      return await decodeWithWasm(tile);
    }
    const thread = await this.#take();
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      await thread.ready;
      signal?.throwIfAborted();
      if (this.#isClosed) throw new Error("the slide is closed");
      return await new Promise((resolve, reject) => {
        thread.job = { resolve, reject };
        timer = setTimeout(
          () => this.#end(thread, new Error(`it took more than ${MAX_MS} ms`)),
          MAX_MS,
        );
        thread.worker.postMessage(tile);
      });
    } finally {
      clearTimeout(timer);
      thread.job = undefined;
      this.#waiting.shift()?.();
    }
  }

  /** Ends all threads; what they decode now fails. */
  close(): void {
    this.#isClosed = true;
    for (const thread of [...this.#threads]) {
      this.#end(thread, new Error("the slide was closed meanwhile"));
    }
    for (const go of this.#waiting.splice(0)) go();
  }

  /** A thread with nothing to do, reserved. */
  async #take(): Promise<Thread> {
    for (;;) {
      if (this.#isClosed) throw new Error("the slide is closed");
      const idle = this.#threads.find(({ job }) => job === undefined);
      if (idle !== undefined) {
        idle.job = RESERVED;
        return idle;
      }
      if (this.#threads.length < this.size) return this.#start();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #start(): Thread {
    const worker = new Worker(new URL("./codec_worker.ts", import.meta.url), { type: "module" });
    const { promise: ready, resolve, reject } = Promise.withResolvers<void>();
    const thread: Thread = { worker, ready, job: { resolve() {}, reject } };
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      if (data === "ready") resolve();
      else if ("rgb" in data) thread.job?.resolve(data.rgb);
      else {
        const { message, feature } = data;
        thread.job?.reject(
          feature === undefined ? new Error(message) : new UnsupportedError(message, feature),
        );
      }
    };
    worker.onerror = (event) => {
      event.preventDefault(); // Else it ends the process.
      this.#end(thread, new Error(event.message));
    };
    this.#threads.push(thread);
    return thread;
  }

  #end(thread: Thread, reason: unknown): void {
    thread.worker.terminate();
    const at = this.#threads.indexOf(thread);
    if (at >= 0) this.#threads.splice(at, 1);
    thread.job?.reject(reason);
  }
}
