/**
 * What object storage means by its answers to GET: which version of an object, and why not.
 *
 * Source: RFC 9110 §8.8 (validators); Amazon S3 API, «GetObject» and «Error responses».
 */

import { statfsSync } from "node:fs";
import { answered, RETRIED_STATUSES } from "../retry.ts";

/** Why one try ended; the next one may do better. */
export class Broken extends Error {
  constructor(reason: string, readonly response?: Response) {
    super(reason);
  }
}

/** What tells one version of an object from another. */
export interface Version {
  readonly etag: string | null;
  readonly lastModified: string | null;
  /** Of the whole object; undefined where the server does not tell. */
  readonly sizeBytes: number | undefined;
}

/** The version that an answer is of. */
export function versionOf({ headers }: Response, sizeBytes: number | undefined): Version {
  return { etag: headers.get("etag"), lastModified: headers.get("last-modified"), sizeBytes };
}

/** Whether two answers are of one version, as far as they tell. */
export function sameVersion(a: Version, b: Version): boolean {
  if (a.sizeBytes !== b.sizeBytes) return false;
  return a.etag !== null || b.etag !== null ? a.etag === b.etag : a.lastModified === b.lastModified;
}

/** If-Match's value for a version. A weak ETag matches nothing (RFC 9110 §13.1.1). */
export function strongEtag(version: Version | undefined): string | undefined {
  const etag = version?.etag;
  return etag && !etag.startsWith("W/") ? etag : undefined;
}

/** What an answer without success means. */
export interface Refusal {
  /** The same request may do better. */
  readonly retried: boolean;
  /** The signature's time is over. */
  readonly expired: boolean;
  /** In words that may be shown. */
  readonly reason: string;
}

/** Reads why a request was refused. @param url the one that was asked. */
export async function refusalOf(response: Response, url: string): Promise<Refusal> {
  const { status } = response;
  const said = await head(response);
  return {
    // Content delivery networks have statuses of their own above 500 for an origin that does not answer.
    retried: RETRIED_STATUSES.includes(status) || (status > 505 && status < 600),
    expired: (status === 403 || status === 400) &&
      (/expired|<Code>ExpiredToken</i.test(said) || signatureIsOver(url)),
    reason: answered(response, said),
  };
}

/** The first bytes of an answer's body, as text; empty where they do not come. */
async function head(response: Response): Promise<string> {
  let text = "";
  try {
    const decoder = new TextDecoder();
    for await (const piece of response.body ?? []) {
      text += decoder.decode(piece, { stream: true });
      if (text.length > 4096) break;
    }
  } catch {
    // The status alone says enough.
  }
  return text;
}

/** Whether the time that a presigned URL names is past (AWS Signature 4 and 2, Google's signature 4). */
function signatureIsOver(url: string): boolean {
  const query = new URL(url).searchParams;
  for (const vendor of ["X-Amz", "X-Goog"]) {
    const date = query.get(`${vendor}-Date`)?.replace(
      /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/,
      "$1-$2-$3T$4:$5:$6Z",
    );
    const seconds = query.get(`${vendor}-Expires`);
    if (date && seconds) return Date.parse(date) + Number(seconds) * 1000 < Date.now();
  }
  const seconds = query.get("Expires");
  return seconds !== null && Number(seconds) * 1000 < Date.now();
}

/** Free bytes of a folder's disk. */
export function diskFreeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

/** Bytes in words. */
export function megabytes(bytes: number): string {
  return bytes < 1e5 ? `${bytes} bytes` : `${(bytes / 1e6).toFixed(1)} MB`;
}
