/**
 * Techcyte's API and the object storage beside it, on this machine: what the platform's contract
 * says is enforced, and everything that may go wrong can be made to.
 *
 * A request that breaks the contract is refused as the platform would and noted in `violations`.
 */

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { configure, TextWriter, Uint8ArrayReader, ZipReader } from "@zip.js/zip.js";

/** How one answer goes wrong; each is used once, in the order in which they were added. */
export type SlideFault =
  /** An error, such as 503 SlowDown. */
  | { status: number; headers?: Record<string, string>; code?: string; message?: string }
  /** The connection breaks where this share of the whole slide has been sent. */
  | { cutAt: number; after?: () => void }
  /** The connection breaks after so many bytes of this answer. */
  | { cutAfterBytes: number; after?: () => void }
  /** This many bytes come, then nothing more; the connection stays. */
  | { stallAfterBytes: number }
  /** This many bytes come every 10 ms. */
  | { dripBytes: number }
  /** Content-Length (of an answer without Range) says this many bytes more than there are, or fewer. */
  | { lengthOff: number }
  /** No answer at all. */
  | { hang: true };

export type PostFault = {
  /** Whether the document is written nevertheless. */
  written: boolean;
  /** A status, a connection that is closed without an answer, or one that stays silent. */
  answer: number | "lost" | "silent";
  headers?: Record<string, string>;
};

interface StoredEvaluation {
  id: number;
  sample_id: number;
  case_id: number;
  task_id: number | null;
  details: unknown;
}

export interface ContractOptions {
  slide?: Uint8Array;
  taskId?: string;
  scanIds?: string[];
}

export const JWT = "jwt-TOPSECRET-e30.e30.c2ln";
export const API_KEY = { id: "key-id", secret: "key-TOPSECRET-pass:word" };
/** Part of every presigned URL here; it must never be seen. */
export const SIGNATURE = "signature-TOPSECRET";

export class ContractServer {
  readonly #server: Server;
  readonly #taskId: string;
  readonly #scanIds: Set<string>;
  readonly #tokens = new Set<string>([JWT]);
  #slide: Uint8Array = new Uint8Array();
  #etag = "";
  #tokenCount = 0;

  /** False: an answer is always the whole slide, with status 200. */
  ranges = true;
  /** False: If-Match is not looked at. */
  conditions = true;
  /** True: answers without Range do not tell a length either. */
  chunked = false;
  /** True: every presigned URL's time is over. */
  expired = false;
  /** Milliseconds before the slide's answers begin. */
  latencyMs = 0;
  /** Where the slide's URL redirects to; undefined serves it there. */
  redirect: { status: number; location: string } | undefined;
  /** A range's answer has at most so many bytes. */
  longestRange = Infinity;
  readonly slideFaults: SlideFault[] = [];
  readonly postFaults: PostFault[] = [];
  /** Statuses of the next questions for evaluations. */
  readonly evaluationFaults: number[] = [];
  /** Statuses of the next uploads. */
  readonly uploadFaults: number[] = [];

  /** Every request, as «GET /bucket/slide»: without its query. */
  readonly requests: string[] = [];
  readonly ranged: (string | undefined)[] = [];
  /** Bytes of the slide that were sent. */
  slideBytes = 0;
  /** Requests for the slide that were answered at the same time, at most. */
  mostInFlight = 0;
  #inFlight = 0;
  readonly violations: string[] = [];
  readonly evaluations: StoredEvaluation[] = [
    // Another task's and a person's: they belong to the case too.
    { id: 1, sample_id: 42, case_id: 7, task_id: 99, details: {} },
    { id: 2, sample_id: 42, case_id: 7, task_id: null, details: { report: { by: "a person" } } },
  ];
  readonly documents: unknown[] = [];
  /** The Content-Length of every post; NaN where it had none. */
  readonly postLengths: number[] = [];
  readonly patches: unknown[] = [];
  readonly uploads: Uint8Array[] = [];

  private constructor(options: ContractOptions) {
    this.#taskId = options.taskId ?? "dGFzazoxODU4MzU=";
    this.#scanIds = new Set(options.scanIds ?? ["8615687"]);
    this.replaceSlide(options.slide ?? new Uint8Array(1000));
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error) => {
        this.violations.push(`the server failed: ${error}`);
        response.destroy();
      });
    });
  }

  static async start(options: ContractOptions = {}): Promise<ContractServer> {
    const contract = new ContractServer(options);
    await new Promise<void>((resolve) => contract.#server.listen(0, "127.0.0.1", resolve));
    return contract;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
  get apiUrl(): string {
    return `${this.origin}/api/v3`;
  }
  get slideUrl(): string {
    return `${this.origin}/bucket/slide?X-Amz-Expires=900&X-Amz-Signature=${SIGNATURE}`;
  }
  /** The slide at another path, where nothing redirects. */
  get movedUrl(): string {
    return this.slideUrl.replace("/bucket/slide", "/bucket/moved");
  }
  get uploadUrl(): string {
    return `${this.origin}/bucket/debug.zip?X-Amz-Signature=${SIGNATURE}`;
  }

  replaceSlide(slide: Uint8Array): void {
    this.#slide = slide;
    this.#etag = `"${createHash("md5").update(slide).digest("hex")}"`;
  }
  /** From now on ETags are this; null sends none. */
  set etag(etag: string | null) {
    this.#etag = etag ?? "";
  }
  /** No token that was handed out is accepted any more. */
  revokeTokens(): void {
    this.#tokens.clear();
  }
  /** Evaluations that this task wrote. */
  get own(): StoredEvaluation[] {
    return this.evaluations.filter(({ task_id }) => task_id === 185835);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "", this.origin);
    this.requests.push(`${request.method} ${url.pathname}`);
    const body = await read(request);
    if (url.pathname.startsWith("/bucket/")) return this.#storage(request, response, url, body);
    if (url.pathname === "/api/v3/token") return this.#token(request, response, body);

    const [, path, task] = /^\/api\/v3\/(external\/\w+)\/([^/]+)$/.exec(url.pathname) ?? [];
    if (task !== encodeURIComponent(this.#taskId)) {
      return this.#refuse(response, 404, `${request.method} ${url.pathname}: no such task`);
    }
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1] ?? "";
    if (!this.#tokens.has(token)) return json(response, 401, { message: "Unauthorized" });
    const method = request.method;
    if (path === "external/results" && method === "POST") {
      return this.#post(request, response, body);
    }
    if (path === "external/case_evaluations" && method === "GET") {
      const fault = this.evaluationFaults.shift();
      return fault === undefined
        ? json(response, 200, this.evaluations)
        : json(response, fault, { message: "try later" });
    }
    if (path === "external/case" && method === "PATCH") return this.#patch(request, response, body);
    this.#refuse(response, 405, `${method} ${url.pathname}: no such call`);
  }

  #token(request: IncomingMessage, response: ServerResponse, body: Uint8Array): void {
    const form = (request.headers["content-type"] ?? "").split(";")[0];
    if (
      request.method !== "POST" || form !== "application/x-www-form-urlencoded" ||
      text(body) !== "grant_type=client_credentials"
    ) {
      return this.#refuse(response, 400, "POST /token: not the form that is asked for");
    }
    if (request.headers.authorization !== `Basic ${btoa(`${API_KEY.id}:${API_KEY.secret}`)}`) {
      return json(response, 401, { message: "Unauthorized" });
    }
    const token = `token-TOPSECRET-${++this.#tokenCount}`;
    this.#tokens.add(token);
    json(response, 200, { access_token: token, token_type: "Bearer" });
  }

  #post(request: IncomingMessage, response: ServerResponse, body: Uint8Array): void {
    if (request.headers["content-type"] !== "application/json") {
      return this.#refuse(response, 415, "POST results: not JSON");
    }
    let document: unknown;
    try {
      document = JSON.parse(text(body));
    } catch {
      return this.#refuse(response, 400, "POST results: a body that does not parse");
    }
    this.postLengths.push(Number(request.headers["content-length"] ?? NaN));
    const fault = this.postFaults.shift();
    if (fault === undefined || fault.written) {
      const wrong = flawOf(document, this.#scanIds);
      if (wrong !== undefined) return this.#refuse(response, 422, `POST results: ${wrong}`);
      this.documents.push(document);
      const { caseResults, scanResults } = document as Document;
      for (const { results } of scanResults) {
        this.evaluations.push({
          id: this.evaluations.length + 1,
          sample_id: 42,
          case_id: 7,
          task_id: 185835,
          details: { report: results, caseReport: caseResults },
        });
      }
    }
    if (fault === undefined) return json(response, 201, null);
    if (fault.answer === "lost") return void request.socket.destroy();
    if (fault.answer === "silent") return;
    json(response, fault.answer, { message: "no luck" }, fault.headers);
  }

  #patch(request: IncomingMessage, response: ServerResponse, body: Uint8Array): void {
    const changes = JSON.parse(text(body));
    if (
      request.headers["content-type"] !== "application/json" ||
      !["string", "undefined"].includes(typeof changes.triage_category) ||
      !["number", "undefined"].includes(typeof changes.triage_score)
    ) {
      return this.#refuse(response, 422, "PATCH case: not as documented");
    }
    this.patches.push(changes);
    response.writeHead(204).end();
  }

  #storage(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
    body: Uint8Array,
  ): void {
    const upload = url.pathname === "/bucket/debug.zip";
    // Signed for one method, and for no header but the host's.
    const method = upload ? "PUT" : "GET";
    if (request.method !== method || url.searchParams.get("X-Amz-Signature") !== SIGNATURE) {
      this.violations.push(`${request.method} ${url.pathname}: not what was signed`);
      return xml(response, 403, "SignatureDoesNotMatch", "The signature does not match");
    }
    if (this.expired) return xml(response, 403, "AccessDenied", "Request has expired");
    if (!upload) {
      this.mostInFlight = Math.max(this.mostInFlight, ++this.#inFlight);
      response.on("close", () => this.#inFlight--);
      if (this.redirect !== undefined && url.pathname === "/bucket/slide") {
        const { status, location } = this.redirect;
        return void response.writeHead(status, { location }).end();
      }
      if (this.latencyMs === 0) return this.#download(request, response);
      return void setTimeout(() => this.#download(request, response), this.latencyMs);
    }

    const fault = this.uploadFaults.shift();
    if (fault !== undefined) return xml(response, fault, "InternalError", "Try again");
    if (request.headers["content-length"] === undefined) {
      return xml(response, 411, "MissingContentLength", "You must provide the length");
    }
    if (request.headers["content-type"] !== undefined) {
      this.violations.push("PUT: a Content-Type that was not signed");
      return xml(response, 403, "SignatureDoesNotMatch", "The signature does not match");
    }
    this.uploads.push(body);
    response.writeHead(200).end();
  }

  #download(request: IncomingMessage, response: ServerResponse): void {
    const { range, "if-match": ifMatch } = request.headers;
    this.ranged.push(range);
    const fault = this.slideFaults.shift();
    if (fault !== undefined && "hang" in fault) return;
    if (fault !== undefined && "status" in fault) {
      return xml(response, fault.status, fault.code ?? "SlowDown", fault.message ?? "", {
        ...fault.headers,
      });
    }
    // A weak ETag matches nothing (RFC 9110 §13.1.1).
    const matches = ifMatch === this.#etag && !this.#etag.startsWith("W/");
    if (this.conditions && ifMatch !== undefined && !matches) {
      return xml(response, 412, "PreconditionFailed", "One of the conditions did not hold");
    }
    const size = this.#slide.byteLength;
    const [, first, last] = (this.ranges && /^bytes=(\d+)-(\d+)?$/.exec(range ?? "")) || [];
    const from = Number(first ?? 0);
    const to = Math.min(Number(last ?? Infinity) + 1, from + this.longestRange, size);
    if (this.ranges && range !== undefined && from >= size) {
      response.setHeader("content-range", `bytes */${size}`);
      return xml(response, 416, "InvalidRange", "The requested range is not satisfiable");
    }
    const partial = this.ranges && range !== undefined;
    const lengthOff = fault !== undefined && "lengthOff" in fault ? fault.lengthOff : 0;
    const headers: Record<string, string | number> = { "accept-ranges": "bytes" };
    if (this.#etag !== "") headers["etag"] = this.#etag;
    if (partial) headers["content-range"] = `bytes ${from}-${to - 1}/${size}`;
    if (!this.chunked) headers["content-length"] = to - from + lengthOff;
    response.writeHead(partial ? 206 : 200, headers);

    let end = to;
    if (fault !== undefined && "cutAt" in fault) end = Math.floor(size * fault.cutAt);
    if (fault !== undefined && "cutAfterBytes" in fault) end = from + fault.cutAfterBytes;
    if (fault !== undefined && "stallAfterBytes" in fault) end = from + fault.stallAfterBytes;
    if (lengthOff < 0) end = to + lengthOff;
    const rest = this.#slide.subarray(from, Math.max(from, end));
    this.slideBytes += rest.byteLength;
    if (fault !== undefined && ("cutAt" in fault || "cutAfterBytes" in fault)) {
      // Destroyed only once the bytes are out: otherwise they would go down with the connection.
      response.write(rest, () => {
        fault.after?.();
        setTimeout(() => request.socket.destroy(), 20);
      });
    } else if (fault !== undefined && "stallAfterBytes" in fault) {
      response.write(rest);
    } else if (fault !== undefined && "dripBytes" in fault) {
      let sent = 0;
      const timer = setInterval(() => {
        response.write(rest.subarray(sent, sent += fault.dripBytes));
        if (sent >= rest.byteLength) response.end();
      }, 10);
      response.on("close", () => clearInterval(timer));
    } else if (lengthOff > 0) {
      response.write(rest, () => setTimeout(() => request.socket.destroy(), 20));
    } else {
      response.end(rest);
    }
  }

  #refuse(response: ServerResponse, status: number, why: string): void {
    this.violations.push(why);
    json(response, status, { message: why });
  }
}

/** Names and texts of a zip's files. */
export async function unzip(zip: Uint8Array): Promise<Map<string, string>> {
  configure({ useWebWorkers: false });
  const reader = new ZipReader(new Uint8ArrayReader(zip));
  const files = new Map<string, string>();
  for (const entry of await reader.getEntries()) {
    if (!entry.directory) files.set(entry.filename, await entry.getData(new TextWriter()));
  }
  await reader.close();
  return files;
}

interface Document {
  caseResults?: unknown;
  scanResults: { results?: unknown }[];
}

const REPORTS = [
  "Basic",
  "WholeSlideDifferential",
  "AreaDifferential",
  "SemiQuantitativeDifferential",
  "RegionCounting",
  "AiMitosisCounting",
  "TumorCellularity",
];

/** Why the platform would refuse a document; written apart from src/results/schema.ts on purpose. */
// deno-lint-ignore no-explicit-any -- what a stranger sent
function flawOf(document: any, scanIds: ReadonlySet<string>): string | undefined {
  if (!Array.isArray(document?.scanResults)) return "no scanResults";
  for (const scan of document.scanResults) {
    if (typeof scan.scanId !== "string" || !/^\d+$/.test(scan.scanId)) return "a wrong scanId";
    if (!scanIds.has(scan.scanId)) return `scan ${scan.scanId} is not of this task`;
    const { summary } = scan.results ?? {};
    if (summary !== undefined && typeof summary !== "string") return "summary is no string";
    if (scan.geojson !== undefined) {
      if (scan.geojson.type !== "FeatureCollection") return "geojson is no FeatureCollection";
      for (const { properties, bbox } of scan.geojson.features) {
        if (typeof properties?.annotation_type !== "string") return "no annotation_type";
        // Without one the platform shows a point set nowhere.
        if (!Array.isArray(bbox) || bbox.length !== 4) return "no bbox";
      }
    }
    if (scan.workflow !== undefined && !REPORTS.includes(scan.workflow.report?.type)) {
      return "an unknown report";
    }
  }
}

async function read(request: IncomingMessage): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of request) pieces.push(piece);
  return new Uint8Array(await new Blob(pieces as Uint8Array<ArrayBuffer>[]).arrayBuffer());
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

function json(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

/** An error as S3 words it; the true one repeats parts of the signature, so this does too. */
function xml(
  response: ServerResponse,
  status: number,
  code: string,
  message: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { "content-type": "application/xml", ...headers });
  response.end(
    `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message>` +
      `<SignatureProvided>${SIGNATURE}</SignatureProvided></Error>`,
  );
}
