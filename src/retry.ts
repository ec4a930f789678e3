/**
 * When a request is tried again, and what may be said of one that failed.
 *
 * ky repeats requests that may be repeated; the two that may not, a download that is resumed and a
 * post that must not arrive twice, repeat themselves by the same rules.
 */

import { setTimeout as wait } from "node:timers/promises";
import { HTTPError, type RetryOptions, TimeoutError } from "ky";
import { withoutQuery } from "./config.ts";

/** How often and how soon. */
export interface RetryPolicy {
  /** Tries in all, the first included. */
  readonly attempts: number;
  /** Wait before the second try, doubled before each further one; tests make it short. */
  readonly baseMs: number;
  /** Longest wait, also where a server asks for more. */
  readonly maxMs: number;
}

/** Six tries within about half a minute: storage that is busy (503 SlowDown) recovers in seconds. */
export const RETRY: RetryPolicy = { attempts: 6, baseMs: 1_000, maxMs: 30_000 };

/** Between half and all of the full wait, so that many containers do not return at once. */
const jitter = (ms: number) => ms * (0.5 + Math.random() / 2);

const exponential = (policy: RetryPolicy, failures: number) =>
  Math.min(policy.maxMs, policy.baseMs * 2 ** (failures - 1));

/**
 * Milliseconds to wait after the `failures`-th failure in a row, from 1; what a server asked for in
 * Retry-After wins, up to the policy's longest wait.
 */
export function backoffMs(policy: RetryPolicy, failures: number, response?: Response): number {
  const header = response?.headers.get("retry-after");
  // RFC 9110 §10.2.3: seconds or a date.
  const asked = header == null
    ? NaN
    : /^\s*\d+\s*$/.test(header)
    ? Number(header) * 1000
    : Date.parse(header) - Date.now();
  return Number.isNaN(asked)
    ? jitter(exponential(policy, failures))
    : Math.min(policy.maxMs, Math.max(0, asked));
}

/** Waits; an abort ends it with the signal's reason. */
export async function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted();
  try {
    await wait(ms, undefined, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/** Statuses after which the same request may do better. */
export const RETRIED_STATUSES: readonly number[] = [408, 429, 500, 502, 503, 504];

/** The policy for ky, for requests that do the same when they arrive twice. */
export function kyRetry(policy: RetryPolicy): RetryOptions {
  return {
    limit: policy.attempts - 1,
    methods: ["get", "put", "post", "patch"],
    statusCodes: [...RETRIED_STATUSES],
    afterStatusCodes: [429, 503],
    maxRetryAfter: policy.maxMs,
    delay: (failures) => exponential(policy, failures),
    jitter,
    retryOnTimeout: true,
  };
}

/** Removes the query of every URL in a text. */
export function withoutQueries(text: string): string {
  return text.replaceAll(/\bhttps?:\/\/[^\s"'<>]+?(?=[)\].,;:]*(?:[\s"'<>]|$))/gi, withoutQuery);
}

/**
 * What went wrong with a request, in words that may be shown. Deno's and ky's own messages hold the
 * URL with its query, and ky's errors the request with its token: they are not for `cause`.
 */
export function reasonOf(error: unknown): string {
  if (error instanceof TimeoutError) return "no answer in time";
  if (error instanceof HTTPError) {
    return answered(error.response, error.data);
  }
  return withoutQueries(innermost(error));
}

/** True where the connection never came to be (refused, DNS, TLS): the request surely did not arrive. */
export function neverSent(error: unknown): boolean {
  return /client error \(Connect\)/.test(innermost(error));
}

/** Deno chains «fetch failed» to the sentence that says why; «error sending request … : why» keeps its end. */
function innermost(error: unknown): string {
  let deepest = error;
  while (deepest instanceof Error && deepest.cause instanceof Error) deepest = deepest.cause;
  return deepest instanceof Error ? deepest.message : String(deepest);
}

/**
 * An answer's status and what it means. Of a body only the code of object storage is repeated
 * (Amazon S3 API, «Error responses»): its other elements hold the signature.
 */
export function answered(response: Response, body: unknown): string {
  const code = typeof body === "string" ? /<Code>(\w+)<\/Code>/.exec(body)?.[1] : undefined;
  return `the server answered ${`${response.status} ${code ?? response.statusText}`.trim()}`;
}
