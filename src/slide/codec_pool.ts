/**
 * Threads for decoders that would block the calling one for milliseconds a tile: those compiled to
 * WebAssembly (wasm_codec.ts).
 */

import { UnsupportedError } from "../errors.ts";
import type { RawTile } from "./slide.ts";

/** What a thread is asked, by a number that its answer bears. */
export interface Question {
  readonly id: number;
  readonly tile: RawTile;
}

/** What a thread says: that it is there, then for every tile its pixels or what is wrong. */
export type Answer =
  | "ready"
  | { readonly id: number; readonly rgb: Uint8Array<ArrayBuffer> }
  | { readonly id: number; readonly message: string; readonly feature: string | undefined };

interface Job {
  readonly id: number;
  /** With undefined where the thread ended before it came to it. */
  resolve(rgb: Uint8Array<ArrayBuffer> | undefined): void;
  reject(reason: unknown): void;
}

interface Thread {
  readonly worker: Worker;
  /** Its modules are loaded, which takes longer than a tile. */
  readonly ready: Promise<void>;
  /** Rejects `ready`. */
  fail(reason: unknown): void;
  /** Whom its next answers are for, in their order. */
  readonly jobs: Job[];
  /** Tiles that are on their way to it or decoded. */
  taken: number;
  /** Ends it where the first of its jobs takes too long. */
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** While a thread decodes one tile the next lies there, so that it waits for nobody in between. */
export const TILES_PER_THREAD = 2;

/** A tile takes some milliseconds; one that keeps a thread so long, for all bounds on it, is an attack. */
const MAX_MS = 10_000;

/**
 * Decodes on threads that are started when there is something for them, up to so many; with 0 on the
 * calling one. Callers bound what waits: `TileDecoder` gives it no more tiles than
 * TILES_PER_THREAD for each.
 */
export class CodecPool {
  readonly #threads: Thread[] = [];
  readonly #waiting: (() => void)[] = [];
  #asked = 0;
  #isClosed = false;

  /** @param maxMs after which a tile that is not decoded is given up, and its thread with it. */
  constructor(readonly size: number, readonly maxMs = MAX_MS) {}

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
    for (;;) {
      const thread = await this.#take();
      try {
        await thread.ready;
        signal?.throwIfAborted();
        if (this.#isClosed) throw new Error("the slide is closed");
        const rgb = await new Promise<Uint8Array<ArrayBuffer> | undefined>((resolve, reject) => {
          const id = this.#asked++;
          thread.worker.postMessage({ id, tile } satisfies Question);
          thread.jobs.push({ id, resolve, reject });
          if (thread.jobs.length === 1) this.#watch(thread);
        });
        if (rgb !== undefined) return rgb;
      } finally {
        thread.taken--;
        this.#waiting.shift()?.();
      }
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

  /** A thread with nothing to do, else a new one, else one that has a tile less than it may; with a place taken. */
  async #take(): Promise<Thread> {
    for (;;) {
      if (this.#isClosed) throw new Error("the slide is closed");
      let thread: Thread | undefined;
      for (const other of this.#threads) {
        if (thread === undefined || other.taken < thread.taken) thread = other;
      }
      if (thread === undefined || (thread.taken > 0 && this.#threads.length < this.size)) {
        thread = this.#start();
      }
      if (thread.taken < TILES_PER_THREAD) {
        thread.taken++;
        return thread;
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #watch(thread: Thread): void {
    clearTimeout(thread.timer);
    thread.timer = thread.jobs.length === 0 ? undefined : setTimeout(
      () => this.#end(thread, new Error(`it took more than ${this.maxMs} ms`)),
      this.maxMs,
    );
  }

  #start(): Thread {
    const worker = new Worker(new URL("./codec_worker.ts", import.meta.url), { type: "module" });
    const { promise: ready, resolve, reject: fail } = Promise.withResolvers<void>();
    ready.catch(() => {}); // Whoever waits for it is told.
    const thread: Thread = { worker, ready, fail, jobs: [], taken: 0, timer: undefined };
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      if (data === "ready") return resolve();
      const [job] = thread.jobs;
      if (job?.id !== data.id) return this.#end(thread, new Error("answers are out of order"));
      thread.jobs.shift();
      this.#watch(thread);
      if ("rgb" in data) job.resolve(data.rgb);
      else {
        const { message, feature } = data;
        job.reject(
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

  /** What it decodes now fails, and what waits for it is decoded elsewhere. */
  #end(thread: Thread, reason: unknown): void {
    thread.worker.terminate();
    const at = this.#threads.indexOf(thread);
    if (at >= 0) this.#threads.splice(at, 1);
    clearTimeout(thread.timer);
    thread.fail(reason);
    thread.jobs.shift()?.reject(reason);
    for (const job of thread.jobs.splice(0)) job.resolve(undefined);
  }
}
