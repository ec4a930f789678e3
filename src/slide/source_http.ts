/**
 * A slide at a URL, read by range as it is needed: work starts before a download would have ended.
 *
 * Source: RFC 9110 §14 (Range), §13.1.1 (If-Match), §15.4 (redirections); Amazon S3 API, «GetObject»
 * and «Error responses». A presigned URL is signed for one method, so there is no HEAD: the first
 * answer's Content-Range tells the size. A URL's query is a signature and appears in no message.
 */

import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import ky from "ky";
import { withoutQuery } from "../config.ts";
import { Secret } from "../secrets.ts";
import { SourceError } from "../errors.ts";
import type { Log } from "../log.ts";
import { backoffMs, reasonOf, RETRY, type RetryPolicy, sleep, withoutQueries } from "../retry.ts";
import { untilAborted } from "./abort.ts";
import { type ByteRange, clampRange, closedError, FileSource, type Source } from "./source.ts";
import { downloadSlide } from "./source_download.ts";
import {
  Broken,
  megabytes,
  refusalOf,
  sameVersion,
  strongEtag,
  type Version,
  versionOf,
} from "./source_storage.ts";

export interface HttpSourceOptions {
  /** Its abort ends every read with its reason. */
  readonly signal?: AbortSignal;
  /** Asked for a fresh URL of the same object where the signature has expired. */
  readonly onExpired?: () => Promise<string | URL | Secret>;
  /** Called as bytes come: those fetched so far, which may exceed those of the object, and these. */
  readonly onProgress?: (bytesFetched: number, sizeBytes: number) => void;
  /** Hears of retries. */
  readonly log?: Pick<Log, "info" | "warn">;
  /** Bytes that are kept for further reads, the least recently read dropped first. */
  readonly cacheBytes?: number;
  /** Requests at a time. */
  readonly requestsInFlight?: number;
  /** Tries in a row without progress, and the waits between. */
  readonly retry?: RetryPolicy;
  /** How long a server may take to begin its answer. */
  readonly timeoutMs?: number;
  /** A connection that brings fewer than `stallBytes` in `stallMs` is given up and its rest asked for anew. */
  readonly stallMs?: number;
  readonly stallBytes?: number;
  /** Where the object is downloaded to if the server knows no Range; default the system's temporary folder. */
  readonly workDir?: string;
  /** Free bytes of a folder's disk. */
  readonly freeBytes?: (folder: string) => number;
}

/** The first request's bytes: a TIFF's or DICOM's header, all of a small file's. */
const HEAD_BYTES = 64 << 10;
/** The last bytes, fetched with the first header that the head does not hold: an SVS's last directories. */
const TAIL_BYTES = 128 << 10;
/**
 * A read below this is of a header, and what follows it is read next; some writers put a directory's
 * values before it (Hamamatsu's, as in test3-DAPI-2-387.ndpi).
 */
const SMALL_READ_BYTES = 8 << 10;
const READ_AHEAD_BYTES = 16 << 10;
const READ_BEHIND_BYTES = 4 << 10;
/** Ranges so near are one request, unless what lies between is more than a part of what is wanted. */
const JOINED_GAP_BYTES = 64 << 10;
const JOINED_WASTE = 1 / 8;
/** Longer requests are cut, so that several connections share them. */
const REQUEST_BYTES = 4 << 20;
const SEGMENT_BYTES = 1 << 20;
/** Of a longer read so much at a time. */
const WINDOW_BYTES = 16 << 20;
/** A request that brought this much, or an eighth of what it is for, begins its count of tries anew. */
const PROGRESS_BYTES = 1 << 20;
const REDIRECTS = 5;
/** How long an answer may take to end behind its last byte. */
const ENDING_MS = 1_000;
/** Fresh URLs in a row that are expired too. */
const FRESH_TRIES = 2;

/** Bytes that are there, or on their way. */
class Segment {
  bytes: Uint8Array<ArrayBuffer> | undefined;
  /** Bytes there, from the start. */
  received = 0;
  failure: { readonly error: unknown } | undefined;
  /** Reads that want it. */
  readers = 0;
  /** Announced, and not read yet. */
  announced = false;
  /** When it was read last, on the source's own clock. */
  usedAt = 0;
  request: Request | undefined;
  #waiters: { until: number; resolve(): void; reject(error: unknown): void }[] = [];

  constructor(readonly start: number, public end: number) {}

  get length(): number {
    return this.end - this.start;
  }

  /** Resolves once its first `until` bytes are there. */
  async arrived(until: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.failure !== undefined) throw this.failure.error;
    if (this.received >= until) return;
    const arrival = new Promise<void>((resolve, reject) => {
      this.#waiters.push({ until, resolve, reject });
    });
    await untilAborted(arrival, signal);
  }

  add(piece: Uint8Array): void {
    this.bytes!.set(piece, this.received);
    this.received += piece.byteLength;
    this.#waiters = this.#waiters.filter(({ until, resolve }) => {
      if (this.received >= until) resolve();
      return this.received < until;
    });
  }

  fail(error: unknown): void {
    this.failure = { error };
    for (const { reject } of this.#waiters) reject(error);
    this.#waiters = [];
  }
}

/** Segments that touch, fetched as one range. */
class Request {
  readonly stop = new AbortController();
  /** Where the next byte belongs. */
  at: number;
  #next = 0;

  constructor(readonly segments: readonly Segment[]) {
    this.at = this.start;
    for (const segment of segments) segment.request = this;
  }

  get start(): number {
    return this.segments[0]!.start;
  }
  get end(): number {
    return this.segments.at(-1)!.end;
  }
  get unfinished(): readonly Segment[] {
    return this.segments.slice(this.#next);
  }

  /** Allocates, once the request's turn has come. */
  begin(): void {
    for (const segment of this.segments) segment.bytes = new Uint8Array(segment.length);
  }

  add(piece: Uint8Array): void {
    this.at += piece.byteLength;
    while (piece.byteLength > 0) {
      const segment = this.segments[this.#next]!;
      const part = piece.subarray(0, segment.length - segment.received);
      segment.add(part);
      if (segment.received === segment.length) this.#next++;
      piece = piece.subarray(part.byteLength);
    }
  }
}

/** The server answered with the whole object, or did not tell its size. */
class NoRanges extends Error {}

/** The remembered target of a redirection no longer serves: ask the URL itself again. */
class StaleRedirect extends Error {}

/** The signature's time is over; `generation` says of which URL. */
class Expired extends Error {
  constructor(readonly status: number, readonly generation: number) {
    super();
  }
}

/**
 * A source over an object at an http or https URL. Only what is read is fetched; it may be read
 * while the server fails, breaks off or stalls now and then, and is always of one version.
 */
export class HttpSource implements Source {
  readonly location: string;
  /** Requests sent so far, retries and redirections included; a download counts as one. */
  requests = 0;
  /** Bytes of answers that came so far. */
  bytesFetched = 0;
  readonly #options: HttpSourceOptions;
  readonly #retry: RetryPolicy;
  readonly #cacheBytes: number;
  #url: Secret;
  /** Counts fresh URLs. */
  #generation = 0;
  #freshTries = 0;
  #renewal: Promise<void> | undefined;
  /** Where the URL redirects to. */
  #target: string | undefined;
  #version: Version | undefined;
  /** Undefined until the first answer. */
  #sizeBytes: number | undefined;
  /** All that is there or on its way, by offset, without overlap. */
  readonly #segments: Segment[] = [];
  #cachedBytes = 0;
  #clock = 0;
  /** Whether the last bytes were asked for. */
  #hasTail = false;
  /** Segments that no request has yet. */
  #wanted: Segment[] = [];
  #turn: ReturnType<typeof setTimeout> | undefined;
  readonly #queue: Request[] = [];
  readonly #running = new Map<Request, Promise<void>>();
  #spooling: Promise<FileSource> | undefined;
  #spooled: FileSource | undefined;
  #spoolPath: string | undefined;
  /** Aborted by `close` and by the caller's signal, with what reads then fail with. */
  readonly #ended = new AbortController();
  readonly #abort = () => this.#end(this.#options.signal!.reason);

  private constructor(url: Secret, options: HttpSourceOptions) {
    this.#url = url;
    this.#options = options;
    this.#retry = options.retry ?? RETRY;
    this.#cacheBytes = options.cacheBytes ?? 64 << 20;
    this.location = withoutQuery(url.reveal());
  }

  /**
   * Opens an object; its first bytes are fetched.
   * @throws {SourceError} where it cannot be had: refused, expired, still failing after the last try;
   *   the signal's reason where it is aborted.
   */
  static async open(
    url: string | URL | Secret,
    options: HttpSourceOptions = {},
  ): Promise<HttpSource> {
    options.signal?.throwIfAborted();
    const source = new HttpSource(checkUrl(url), options);
    options.signal?.addEventListener("abort", source.#abort);
    try {
      await source.#begin();
      return source;
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes!;
  }

  async read(
    offsetBytes: number,
    lengthBytes: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const length = clampRange(this.sizeBytes, offsetBytes, lengthBytes);
    signal?.throwIfAborted();
    this.#ended.signal.throwIfAborted();
    if (this.#spooled !== undefined) return await this.#spooled.read(offsetBytes, length);
    const data = new Uint8Array(length);
    for (let done = 0; done < length; done += WINDOW_BYTES) {
      const part = data.subarray(done, done + WINDOW_BYTES);
      await this.#fill(part, offsetBytes + done, signal);
    }
    return data;
  }

  prefetch(ranges: readonly ByteRange[], signal?: AbortSignal): void {
    if (signal?.aborted || this.#ended.signal.aborted || this.#spooled !== undefined) return;
    // More would drop what was announced first before it is read.
    let left = this.#cacheBytes / 2;
    const segments: Segment[] = [];
    for (const { offsetBytes, lengthBytes } of ranges) {
      const length = clampRange(this.sizeBytes, offsetBytes, lengthBytes);
      if ((left -= length) < 0) break;
      segments.push(...this.#cover(offsetBytes, offsetBytes + length));
    }
    if (signal === undefined) return;
    for (const segment of segments) segment.announced = true;
    signal.addEventListener("abort", () => {
      for (const segment of segments) segment.announced = false;
      this.#abandon(segments);
    }, { once: true });
  }

  async close(): Promise<void> {
    this.#end(closedError(this.location));
    this.#options.signal?.removeEventListener("abort", this.#abort);
    await Promise.allSettled([...this.#running.values(), this.#spooling]);
    await this.#spooled?.close();
    if (this.#spoolPath !== undefined) await rm(this.#spoolPath, { force: true });
    this.#segments.length = 0;
  }

  #end(reason: unknown): void {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort(reason);
    clearTimeout(this.#turn);
    for (const segment of [...this.#segments]) this.#drop(segment, reason);
    this.#queue.length = 0;
    for (const request of this.#running.keys()) request.stop.abort(reason);
  }

  /** The first request, which tells the size. */
  async #begin(): Promise<void> {
    const head = new Segment(0, HEAD_BYTES);
    this.#insert(0, head);
    const request = new Request([head]);
    this.#start(request);
    await this.#running.get(request);
    if (head.failure !== undefined) throw head.failure.error;
  }

  async #fill(data: Uint8Array, offset: number, signal: AbortSignal | undefined): Promise<void> {
    const end = offset + data.byteLength;
    const isSmall = data.byteLength < SMALL_READ_BYTES;
    const before = this.#wanted.length;
    const segments = this.#cover(offset, end, isSmall);
    // What was announced is no header, however small.
    if (isSmall && !this.#hasTail && this.#wanted.length > before) {
      this.#hasTail = true;
      this.#cover(Math.max(0, this.sizeBytes - TAIL_BYTES), this.sizeBytes);
    }
    for (const segment of segments) segment.readers++;
    try {
      for (const segment of segments) {
        const from = Math.max(offset, segment.start), to = Math.min(end, segment.end);
        await segment.arrived(to - segment.start, signal);
        segment.announced = false;
        segment.usedAt = ++this.#clock;
        data.set(
          segment.bytes!.subarray(from - segment.start, to - segment.start),
          from - offset,
        );
      }
    } finally {
      for (const segment of segments) segment.readers--;
      // Bytes that were read ahead come nevertheless.
      if (signal?.aborted) this.#abandon(segments);
      this.#evict();
    }
  }

  /**
   * The segments over a range. Those that are missing are made, to be fetched with all that is asked
   * for in the same turn; those of a header hold what lies around it.
   */
  #cover(start: number, end: number, isHeader = false): Segment[] {
    const segments: Segment[] = [];
    let i = this.#indexOf(start);
    for (let at = start; at < end; i++) {
      let segment = this.#segments[i];
      if (segment === undefined || segment.start > at) {
        const free = Math.min(this.sizeBytes, segment?.start ?? Infinity);
        const before = this.#segments[i - 1]?.end ?? 0;
        segment = isHeader
          ? new Segment(
            Math.max(before, at - READ_BEHIND_BYTES),
            Math.min(free, at + READ_AHEAD_BYTES),
          )
          : new Segment(at, Math.min(free, end, at + SEGMENT_BYTES));
        this.#insert(i, segment);
        this.#wanted.push(segment);
      }
      segment.usedAt = ++this.#clock;
      segments.push(segment);
      at = segment.end;
    }
    if (this.#wanted.length > 0) this.#turn ??= setTimeout(() => this.#request());
    return segments;
  }

  /** Index of the first segment that ends beyond an offset. */
  #indexOf(offset: number): number {
    let low = 0, high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#segments[middle]!.end > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #insert(index: number, segment: Segment): void {
    this.#segments.splice(index, 0, segment);
    this.#cachedBytes += segment.length;
  }

  /** Forgets a segment; whoever waits for it fails. */
  #drop(segment: Segment, error: unknown): void {
    const i = this.#indexOf(segment.start);
    if (this.#segments[i] !== segment) return;
    this.#segments.splice(i, 1);
    this.#cachedBytes -= segment.length;
    segment.fail(error);
  }

  /**
   * Drops what was read longest ago and nobody waits for, once the cache exceeds its bound, and then
   * an eighth more, so that it is not searched at every read.
   */
  #evict(): void {
    if (this.#cachedBytes <= this.#cacheBytes) return;
    const idle = this.#segments.filter((segment) =>
      segment.readers === 0 && !segment.announced && segment.received === segment.length
    ).sort((a, b) => a.usedAt - b.usedAt);
    for (const segment of idle) {
      if (this.#cachedBytes <= this.#cacheBytes * 7 / 8) break;
      this.#drop(segment, undefined);
    }
  }

  /** Stops the requests of segments that nobody wants any more. */
  #abandon(segments: readonly Segment[]): void {
    const unwanted = (segment: Segment) => segment.readers === 0 && !segment.announced;
    const reason = new DOMException("Nobody waits for it any more", "AbortError");
    for (const segment of segments) {
      if (segment.received === segment.length || segment.failure !== undefined) continue;
      const { request } = segment;
      if (request === undefined) {
        if (unwanted(segment)) this.#drop(segment, reason);
      } else if (request.unfinished.every(unwanted)) {
        // At once, so that no later read joins them.
        for (const segment of request.unfinished) this.#drop(segment, reason);
        request.stop.abort(reason);
      }
    }
  }

  /** Makes requests of all segments that were asked for in this turn. */
  #request(): void {
    this.#turn = undefined;
    const wanted = this.#wanted.filter(({ failure }) => failure === undefined)
      .sort((a, b) => a.start - b.start);
    this.#wanted = [];
    const gaps = this.#gapsToFill(wanted);
    for (const gap of gaps) this.#insert(this.#indexOf(gap.start), gap);
    let run: Segment[] = [];
    for (const segment of [...wanted, ...gaps].sort((a, b) => a.start - b.start)) {
      const touches = run.at(-1)?.end === segment.start;
      if (!touches || segment.end - run[0]!.start > REQUEST_BYTES) {
        if (run.length > 0) this.#queue.push(new Request(run));
        run = [];
      }
      run.push(segment);
    }
    if (run.length > 0) this.#queue.push(new Request(run));
    this.#startNext();
  }

  /** What lies between wanted segments and is worth fetching with them, the smallest gaps first. */
  #gapsToFill(wanted: readonly Segment[]): Segment[] {
    const gaps = wanted.flatMap((segment, i) => {
      const next = wanted[i + 1];
      if (next === undefined || next.start - segment.end > JOINED_GAP_BYTES) return [];
      // Nothing where they touch, or where something between is known.
      if (this.#segments[this.#indexOf(segment.end)] !== next) return [];
      return next.start === segment.end ? [] : [new Segment(segment.end, next.start)];
    }).sort((a, b) => a.length - b.length);
    let left = JOINED_WASTE * wanted.reduce((sum, { length }) => sum + length, 0);
    return gaps.filter(({ length }) => (left -= length) >= 0);
  }

  #startNext(): void {
    const { requestsInFlight = 8 } = this.#options;
    while (this.#running.size < requestsInFlight) {
      const request = this.#queue.shift();
      if (request === undefined) break;
      if (!request.stop.signal.aborted) this.#start(request);
    }
  }

  #start(request: Request): void {
    request.begin();
    const run = this.#run(request).catch((error) => {
      for (const segment of request.unfinished) this.#drop(segment, error);
    }).then(() => {
      this.#running.delete(request);
      this.#evict();
      this.#startNext();
    });
    this.#running.set(request, run);
  }

  /** Tries until a request's bytes are there. */
  async #run(request: Request): Promise<void> {
    const { log } = this.#options;
    const { signal } = request.stop;
    let failures = 0;
    let furthest = request.at;
    while (request.at < request.end) {
      signal.throwIfAborted();
      try {
        if (this.#spooling === undefined) await this.#try(request);
        else await this.#readSpooled(request, await untilAborted(this.#spooling, signal));
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof StaleRedirect) continue;
        if (error instanceof NoRanges) this.#spool();
        else if (error instanceof Expired) await untilAborted(this.#renew(error), signal);
        else if (!(error instanceof Broken)) throw error;
        else {
          const eighth = (request.end - request.start) / 8;
          if (request.at >= furthest + Math.min(PROGRESS_BYTES, eighth)) failures = 0;
          furthest = Math.max(furthest, request.at);
          failures++;
          const status = error.response?.status;
          if (failures >= this.#retry.attempts) {
            throw this.#error(`${error.message}, after ${failures} tries`, { status });
          }
          const delayMs = backoffMs(this.#retry, failures, error.response);
          log?.warn(
            `A read of "${this.location}" broke: ${error.message}; going on in ${
              (delayMs / 1000).toFixed(1)
            } s`,
          );
          await sleep(delayMs, signal);
        }
      }
    }
  }

  /** One request, for what is missing. */
  async #try(request: Request): Promise<void> {
    const { signal } = request.stop;
    const stall = new AbortController();
    const generation = this.#generation;
    const known = this.#target;
    const { response, url } = await this.#get(request, AbortSignal.any([signal, stall.signal]));
    // An error's text may drip in just like a slide.
    const timer = setTimeout(() => stall.abort(), this.#options.timeoutMs ?? 30_000);
    let end: number;
    try {
      if (response.status >= 400 && known !== undefined) {
        // A redirection's target is signed, too, and may be for a shorter time.
        if (this.#target === known) this.#target = undefined;
        throw new StaleRedirect();
      }
      end = await this.#begun(request, response, url, generation);
    } catch (error) {
      await response.body?.cancel().catch(() => {}); // Frees the connection; the error is known.
      throw error;
    } finally {
      clearTimeout(timer);
    }
    this.#freshTries = 0;
    if (url !== this.#url.reveal() && generation === this.#generation) this.#target = url;
    await this.#receive(request, response, end, stall);
  }

  /** Asks, and follows redirections: to http and https alone, and never from https to http. */
  async #get(
    request: Request,
    signal: AbortSignal,
  ): Promise<{ response: Response; url: string }> {
    const headers: Record<string, string> = {
      range: `bytes=${request.at}-${request.end - 1}`,
      // Lengths and ranges count the object's own bytes.
      "accept-encoding": "identity",
    };
    const etag = strongEtag(this.#version);
    if (etag !== undefined) headers["if-match"] = etag;
    let url = this.#target ?? this.#url.reveal();
    for (let hops = 0;; hops++) {
      this.requests++;
      let response: Response;
      try {
        response = await ky.get(url, {
          headers,
          signal,
          redirect: "manual",
          timeout: this.#options.timeoutMs ?? 30_000,
          retry: 0,
          throwHttpErrors: false,
        });
      } catch (error) {
        throw new Broken(reasonOf(error));
      }
      if (![301, 302, 303, 307, 308].includes(response.status)) return { response, url };
      await response.body?.cancel().catch(() => {}); // Frees the connection.
      const next = redirectionOf(url, response.headers.get("location") ?? "");
      const { status } = response;
      if (hops === REDIRECTS) {
        throw this.#error(`it redirects more than ${REDIRECTS} times`, { status });
      }
      if (next === undefined) {
        throw this.#error("it redirects to no http or https URL, or from https to http", {
          status,
        });
      }
      url = next;
    }
  }

  /** Looks at an answer's head. @returns where its bytes end, at most where the request's do. */
  async #begun(
    request: Request,
    response: Response,
    url: string,
    generation: number,
  ): Promise<number> {
    const { status } = response;
    const range = response.headers.get("content-range") ?? "";
    if (status === 412 || (status === 416 && this.#version !== undefined)) throw this.#changed();
    if (status === 416 && /^bytes \*\/0$/.test(range)) {
      this.#pin(request, versionOf(response, 0), 0);
      return 0;
    }
    if (status === 200) throw new NoRanges();
    if (status !== 206) {
      const { retried, expired, reason } = await refusalOf(response, url);
      if (retried) throw new Broken(reason, response);
      if (expired) throw new Expired(status, generation);
      throw this.#error(reason, { status });
    }
    const [, from, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(range) ?? [];
    if (Number(from) !== request.at || Number(last) < request.at) {
      throw new Broken("the server answered with another range than asked for");
    }
    if (total === "*") throw new NoRanges();
    const sizeBytes = Number(total);
    const version = versionOf(response, sizeBytes);
    if (this.#version === undefined) this.#pin(request, version, sizeBytes);
    else if (!sameVersion(this.#version, version)) throw this.#changed();
    return Math.min(request.end, Number(last) + 1);
  }

  /** From now on the object is this one. The first request asked for bytes that it may not have. */
  #pin(request: Request, version: Version, sizeBytes: number): void {
    this.#version = version;
    this.#sizeBytes = sizeBytes;
    const head = request.segments[0]!;
    if (head.end <= sizeBytes) return;
    this.#cachedBytes -= head.end - sizeBytes;
    head.end = sizeBytes;
  }

  async #receive(
    request: Request,
    response: Response,
    end: number,
    stall: AbortController,
  ): Promise<void> {
    const { onProgress, stallMs = 30_000, stallBytes = 65_536 } = this.#options;
    let before = request.at;
    const timer = setInterval(() => {
      if (request.at - before < stallBytes) stall.abort();
      before = request.at;
    }, stallMs);
    let ending: ReturnType<typeof setTimeout> | undefined;
    try {
      for await (const piece of response.body ?? []) {
        this.bytesFetched += piece.byteLength;
        const surplus = request.at + piece.byteLength > end;
        request.add(piece.subarray(0, end - request.at));
        onProgress?.(this.bytesFetched, this.sizeBytes);
        // Only then: an answer that is not read to its end costs the connection. One that promises
        // more than it brings does not hold up the next.
        if (surplus) break;
        if (request.at >= end) ending ??= setTimeout(() => stall.abort(), ENDING_MS);
      }
    } catch (error) {
      // An end that breaks behind the last byte is none of ours.
      if (request.at >= end) return;
      throw new Broken(stall.signal.aborted ? "the connection stalled" : reasonOf(error));
    } finally {
      clearInterval(timer);
      clearTimeout(ending);
    }
    if (request.at < end) throw new Broken("the server ended its answer too soon");
  }

  /** Takes a fresh URL from the caller, once for all requests that found the old one expired. */
  #renew({ status, generation }: Expired): Promise<void> {
    if (generation !== this.#generation) return Promise.resolve();
    return this.#renewal ??= this.#takeFreshUrl(status).finally(() => this.#renewal = undefined);
  }

  async #takeFreshUrl(status: number | undefined): Promise<void> {
    const { onExpired, log } = this.#options;
    const details = { status, expired: true };
    if (onExpired === undefined || this.#freshTries >= FRESH_TRIES) {
      const fetched = this.#sizeBytes === undefined
        ? ""
        : `, ${megabytes(this.bytesFetched)} of ${megabytes(this.#sizeBytes)} fetched`;
      throw this.#error(
        `its signature has expired (${status}${fetched}); start the task again for a fresh URL`,
        details,
      );
    }
    log?.info(`The signature of "${this.location}" has expired: taking a fresh URL`);
    try {
      this.#url = checkUrl(await onExpired());
    } catch (error) {
      // Its message is the caller's, and may show a URL.
      const why = withoutQueries(error instanceof Error ? error.message : String(error));
      throw this.#error(
        `its signature has expired (${status}), and no fresh URL was given: ${why}`,
        details,
      );
    }
    this.#target = undefined;
    this.#generation++;
    this.#freshTries++;
  }

  /** Downloads the object, once, from a server that does not serve ranges. */
  #spool(): void {
    this.#spooling ??= this.#download();
    this.#spooling.catch(() => {}); // Whoever waits for it is told.
  }

  async #download(): Promise<FileSource> {
    const { log, onProgress, workDir = tmpdir() } = this.#options;
    log?.info(`The server of "${this.location}" does not serve ranges: downloading it`);
    const { signal } = this.#ended;
    for (;;) {
      let received = 0;
      try {
        const { path, version } = await downloadSlide({
          ...this.#options,
          url: this.#url,
          workDir,
          signal,
          log: log ?? { info() {}, warn() {} },
          progress: (done, total) => {
            this.bytesFetched += Math.max(0, done - received);
            received = done;
            onProgress?.(this.bytesFetched, total);
          },
        });
        this.#spoolPath = path;
        if (this.#version !== undefined && !sameVersion(this.#version, version)) {
          throw this.#changed();
        }
        this.#version = version;
        return this.#spooled = FileSource.open(path);
      } catch (error) {
        const again = error instanceof SourceError && error.expired &&
          this.#options.onExpired !== undefined && !signal.aborted;
        if (!again) throw error;
        await untilAborted(this.#takeFreshUrl(error.status), signal);
      }
    }
  }

  async #readSpooled(request: Request, file: FileSource): Promise<void> {
    if (this.#sizeBytes === undefined) this.#pin(request, this.#version!, file.sizeBytes);
    request.add(await file.read(request.at, request.end - request.at));
  }

  #changed(): SourceError {
    return this.#error("it changed while it was read");
  }

  #error(why: string, details: { status?: number | undefined; expired?: boolean } = {}) {
    const { status, expired = false } = details;
    return new SourceError(`Cannot read "${this.location}": ${why}`, {
      location: this.location,
      expired,
      ...(status === undefined ? {} : { status }),
    });
  }
}

/**
 * Where a redirection leads.
 * @returns undefined where it must not be followed: to other protocols, and from https to http, where
 *   the signature would be sent in the open.
 */
export function redirectionOf(url: string, location: string): string | undefined {
  const next = URL.parse(location, url);
  if (next === null || !["http:", "https:"].includes(next.protocol)) return undefined;
  const isOpened = next.protocol === "http:" && URL.parse(url)?.protocol === "https:";
  return isOpened ? undefined : next.href;
}

/** @throws {SourceError} where it is no http or https URL. */
function checkUrl(url: string | URL | Secret): Secret {
  const secret = url instanceof Secret ? url : new Secret(String(url));
  const protocol = URL.parse(secret.reveal())?.protocol;
  if (protocol !== "http:" && protocol !== "https:") {
    const location = withoutQuery(secret.reveal());
    throw new SourceError(`Cannot open "${location}": it is no http or https URL`, { location });
  }
  return secret;
}
