/**
 * Techcyte's API: a token, the results of a task, the evaluations and the case that they belong to.
 *
 * Source: Techcyte developer documentation, «Posting Results from an External Model». A post
 * completes the task and is appended to what is there: the same document posted twice is two
 * evaluations of one patient's slide. So a post is repeated only where the first surely did not
 * arrive, or where the platform says that it holds none.
 */

import ky, { HTTPError, type KyInstance, NetworkError, TimeoutError } from "ky";
import * as v from "valibot";
import type { ProductionConfig } from "../config.ts";
import { withoutQuery } from "../config.ts";
import { TechcyteError } from "../errors.ts";
import { redact, Secret } from "../secrets.ts";
import type { Log } from "../log.ts";
import { type Results, serializeResults } from "../results/schema.ts";
import {
  backoffMs,
  kyRetry,
  neverSent,
  reasonOf,
  RETRY,
  type RetryPolicy,
  sleep,
  withoutQueries,
} from "../retry.ts";

/** An evaluation of the task's case, which other tasks and people write too. */
export interface Evaluation {
  readonly id: number | string;
  /** The plain number of the task that wrote it. */
  readonly task_id?: number | string | null;
  readonly details?: unknown;
}

const evaluationsSchema = v.array(v.looseObject({
  id: v.union([v.number(), v.string()]),
  task_id: v.nullish(v.union([v.number(), v.string()])),
}));

const tokenSchema = v.object({ access_token: v.pipe(v.string(), v.nonEmpty()) });

export interface ClientOptions {
  readonly log: Log;
  /** Ends waiting and reading; a post that is under way is let finish, since its fate would be unknown. */
  readonly signal?: AbortSignal;
  readonly retry?: RetryPolicy;
  /** Longest wait for an answer; a post has `postTimeoutMs`. */
  readonly timeoutMs?: number;
  readonly postTimeoutMs?: number;
}

/** The document as it is sent. A Blob has a length that is sent ahead, and can be sent again. */
export function encodeResults(results: Results): Blob {
  const encoder = new TextEncoder();
  const pieces = Array.from(serializeResults(results), (piece) => encoder.encode(piece));
  return new Blob(pieces, { type: "application/json" });
}

/** How often the platform is asked for a post whose answer was lost: it may still be writing it. */
const ASKS = 3;

/** Calls of one task. Every method throws TechcyteError where a call fails and the signal's reason where it is aborted. */
export class TechcyteClient {
  readonly #config: Pick<ProductionConfig, "apiUrl" | "credentials" | "taskId">;
  readonly #log: Log;
  readonly #signal: AbortSignal | undefined;
  readonly #retry: RetryPolicy;
  readonly #postTimeoutMs: number;
  readonly #ky: KyInstance;
  #token: string | undefined;

  constructor(
    config: Pick<ProductionConfig, "apiUrl" | "credentials" | "taskId">,
    options: ClientOptions,
  ) {
    this.#config = config;
    this.#log = options.log;
    this.#signal = options.signal;
    this.#retry = options.retry ?? RETRY;
    this.#postTimeoutMs = options.postTimeoutMs ?? 120_000;
    this.#ky = ky.create({
      timeout: options.timeoutMs ?? 30_000,
      retry: kyRetry(this.#retry),
      // A redirected POST becomes a GET, whose success would look like a post's.
      redirect: "manual",
    });
  }

  /**
   * Posts the document, or what `encodeResults` made of it, which completes the task, and makes sure
   * that it is there once.
   * @throws {TechcyteError} where the platform refuses it, cannot be reached, or cannot say whether
   *   a post whose answer was lost has arrived.
   */
  async postResults(results: Results | Blob): Promise<void> {
    const url = this.#url("external/results");
    const doing = "post the results to";
    const body = results instanceof Blob ? results : encodeResults(results);
    let mayBeThere = false;
    for (let failures = 1;; failures++) {
      this.#signal?.throwIfAborted();
      let failure: unknown;
      try {
        const response = await this.#authorized((headers) =>
          this.#ky.post(url, { headers, body, retry: 0, timeout: this.#postTimeoutMs })
        );
        await response.body?.cancel();
        if (response.status === 201) return;
        failure = new Error(`the server answered ${response.status} instead of 201`);
        mayBeThere = true;
      } catch (error) {
        failure = error;
        mayBeThere ||= mayHaveArrived(error);
      }
      const reason = this.#reason(failure);
      if (mayBeThere && await this.#isThere(doing, reason)) {
        this.#log.warn(`The platform has the results although their post failed: ${reason}`);
        return;
      }
      const response = failure instanceof HTTPError ? failure.response : undefined;
      const again = mayHaveArrived(failure) || neverSent(failure) || response?.status === 429;
      if (!again || failures >= this.#retry.attempts) {
        throw this.#error(doing, "POST", url, failure);
      }
      const delayMs = backoffMs(this.#retry, failures, response);
      this.#log.warn(
        `Posting the results failed (${reason}) and none arrived; trying again in ${
          (delayMs / 1000).toFixed(1)
        } s`,
      );
      await sleep(delayMs, this.#signal);
    }
  }

  /**
   * Exchanges an API key for a token, which the next calls use: a wrong key is better known before
   * the slide is classified than after. Does nothing with a JWT.
   */
  async authenticate(): Promise<void> {
    if (this.#config.credentials.kind === "api-key") this.#token ??= await this.#fetchToken();
  }

  /** Reads every evaluation of the case, also those of other tasks and of people. */
  async caseEvaluations(): Promise<Evaluation[]> {
    const url = this.#url("external/case_evaluations");
    try {
      const response = await this.#authorized((headers) =>
        this.#ky.get(url, { headers, signal: this.#signal })
      );
      return v.parse(evaluationsSchema, await response.json());
    } catch (error) {
      throw this.#error("read the case's evaluations from", "GET", url, error);
    }
  }

  /** Changes the case's triage; what is left out stays as it is. */
  async patchCase(
    changes: { readonly triage_category?: string; readonly triage_score?: number },
  ): Promise<void> {
    const url = this.#url("external/case");
    try {
      const response = await this.#authorized((headers) =>
        this.#ky.patch(url, { headers, json: changes, signal: this.#signal })
      );
      await response.body?.cancel();
    } catch (error) {
      throw this.#error("change the case at", "PATCH", url, error);
    }
  }

  #url(path: string): string {
    return `${this.#config.apiUrl}/${path}/${encodeURIComponent(this.#config.taskId)}`;
  }

  /** Asks whether an evaluation of this task exists, several times where there is none. */
  async #isThere(doing: string, reason: string): Promise<boolean> {
    const url = this.#url("external/results");
    const task = taskNumber(this.#config.taskId);
    const unknown = (why: string, cause?: unknown) =>
      new TechcyteError(
        `Cannot ${doing} "${url}": ${reason}; whether they arrived is unknown (${why}), so they are not posted again`,
        { method: "POST", url },
        { cause },
      );
    if (task === undefined) throw unknown("TASK_ID holds no number to ask for");
    for (let asked = 1; asked <= ASKS; asked++) {
      await sleep(backoffMs(this.#retry, asked), this.#signal);
      let evaluations;
      try {
        evaluations = await this.caseEvaluations();
      } catch (error) {
        if (!(error instanceof TechcyteError)) throw error;
        throw unknown(error.message, error);
      }
      if (evaluations.some(({ task_id }) => String(task_id) === task)) return true;
    }
    return false;
  }

  /** Sends with the token; an API key's is fetched when first needed and once more where it is refused. */
  async #authorized(send: (headers: Record<string, string>) => Promise<Response>) {
    const { credentials } = this.#config;
    if (credentials.kind === "jwt") {
      return await send({ authorization: `Bearer ${credentials.token.reveal()}` });
    }
    this.#token ??= await this.#fetchToken();
    try {
      return await send({ authorization: `Bearer ${this.#token}` });
    } catch (error) {
      if (!(error instanceof HTTPError && error.response.status === 401)) throw error;
      this.#log.debug("The token is no longer accepted; fetching another");
      this.#token = await this.#fetchToken();
      return await send({ authorization: `Bearer ${this.#token}` });
    }
  }

  async #fetchToken(): Promise<string> {
    const { credentials } = this.#config;
    if (credentials.kind !== "api-key") throw new TypeError("Only an API key has tokens");
    const url = `${this.#config.apiUrl}/token`;
    const pair = new TextEncoder().encode(`${credentials.id}:${credentials.secret.reveal()}`);
    try {
      const response = await this.#ky.post(url, {
        headers: { authorization: `Basic ${btoa(String.fromCharCode(...pair))}` },
        body: new URLSearchParams({ grant_type: "client_credentials" }),
        signal: this.#signal,
      });
      const { access_token } = v.parse(tokenSchema, await response.json());
      new Secret(access_token); // So that nothing shows it.
      return access_token;
    } catch (error) {
      throw this.#error("get a token from", "POST", url, error);
    }
  }

  /** What went wrong, without this client's secrets should a server or a library repeat them. */
  #reason(error: unknown): string {
    // The parsers' messages quote what they read, which may be a token.
    if (error instanceof SyntaxError || error instanceof v.ValiError) {
      return "the server's answer is not what its documentation says";
    }
    return redact(reasonOf(error) + (error instanceof HTTPError ? said(error.data) : ""));
  }

  /** The error to throw; one that is typed already, and an abort, pass as they are. */
  #error(doing: string, method: string, url: string, error: unknown): unknown {
    if (error instanceof TechcyteError) return error;
    if (this.#signal?.aborted && error === this.#signal.reason) return error;
    const status = error instanceof HTTPError ? error.response.status : undefined;
    const { kind } = this.#config.credentials;
    const advice = status !== 401 && status !== 403
      ? ""
      : `; check ${kind === "jwt" ? "JWT_TOKEN" : "API_KEY_ID and API_KEY_SECRET"}`;
    const shown = withoutQuery(url);
    // No cause: ky's errors hold the request with its token.
    return new TechcyteError(
      `Cannot ${doing} "${shown}": ${this.#reason(error)}${advice}`,
      status === undefined ? { method, url: shown } : { method, url: shown, status },
    );
  }
}

const SAID_CHARACTERS = 300;

/** The start of what the platform says about a request that it refuses, on one line. */
function said(data: unknown): string {
  if (data === undefined || data === null) return "";
  const text = typeof data === "string" ? data : JSON.stringify(data);
  const line = withoutQueries(text.replaceAll(/[\s\p{Cc}]+/gu, " ").trim());
  return line.length > SAID_CHARACTERS ? `: ${line.slice(0, SAID_CHARACTERS)}…` : `: ${line}`;
}

/** True where the platform may hold the document although no 201 came back. */
function mayHaveArrived(error: unknown): boolean {
  if (error instanceof HTTPError) {
    return error.response.status === 408 || error.response.status >= 500;
  }
  return error instanceof TimeoutError || (error instanceof NetworkError && !neverSent(error));
}

/**
 * The plain number in a task's identifier, which may be base64 of a kind and the number:
 * `dGFzazoxODU4MzU=` is `task:185835`. Undefined where there is none.
 */
export function taskNumber(taskId: string): string | undefined {
  if (/^\d+$/.test(taskId)) return taskId;
  try {
    return /^[^:]*:(\d+)$/.exec(atob(taskId.replaceAll("-", "+").replaceAll("_", "/")))?.[1];
  } catch {
    return undefined; // Not base64.
  }
}
