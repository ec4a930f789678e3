/**
 * Slides of other formats that are known and not read, by their contents as OpenSlide knows them: better
 * refused by their name than called no slide, or taken for the small picture that one of their files is.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { UnsupportedError } from "../errors.ts";
import type { Source } from "./source.ts";

/** Enough for the schema of a SQLite database and the first lines of a text. */
const HEAD_BYTES = 2 ** 16;

/** @throws {UnsupportedError} where a source is a slide of such a format; {SourceError}. */
export async function refuseKnown(source: Source): Promise<void> {
  const text = new TextDecoder("latin1").decode(await source.read(0, HEAD_BYTES));
  const format = knownFormat(text);
  if (format !== undefined) throw refusal(source.location, format);
  // A MIRAX is a folder, and beside it a JPEG whose contents are those of any picture.
  const isJpeg = text.startsWith("\xff\xd8\xff");
  const folder = source.location.replace(/\.[^./\\]*$/, "");
  if (isJpeg && (/\.mrxs$/i.test(source.location) || isMirax(folder))) {
    throw refusal(source.location, "3DHISTECH MIRAX");
  }
}

/** @throws {UnsupportedError} where a folder holds a slide of such a format. */
export function refuseFolder(path: string): void {
  if (isMirax(path)) throw refusal(path, "3DHISTECH MIRAX");
}

/** The format of a file that begins so. */
function knownFormat(text: string): string | undefined {
  if (text.startsWith("ZISRAWFILE")) return "Zeiss CZI";
  if (text.startsWith("SQLite format 3\0")) {
    return /SVGigaPixelImage|DataManagerSQLiteConfigXPO/.test(text) ? "Sakura SVSlide" : undefined;
  }
  if (/^(?:\xef\xbb\xbf)?\s*\[(?:Uncompressed )?Virtual Microscope Specimen\]/.test(text)) {
    return text.includes("[Uncompressed ") ? "Hamamatsu VMU" : "Hamamatsu VMS";
  }
  if (/^(?:\xef\xbb\xbf)?\s*\[GENERAL\][^]*\bSLIDE_ID\s*=/.test(text)) return "3DHISTECH MIRAX";
}

/** What else is often taken for a slide, by how it begins, and what to do about it. */
const MISTAKES: readonly (readonly [begins: RegExp, what: string])[] = [
  // deno-lint-ignore no-control-regex -- gzip begins with one
  [/^\x1f\x8b/, "it is compressed by gzip: unpack it first"],
  [/^(?:7z\xbc\xaf|Rar!)/, "it is an archive of a kind that is not read: unpack it first"],
  [/^version https:\/\/git-lfs/, "it is a Git LFS pointer: git lfs pull fetches the file"],
  [/^\s*<(?:!doctype )?html/i, "it is HTML, such as a server's error"],
  [/^\s*<(?:\?xml|Error>)/, "it is XML, such as a server's error"],
];

/** What a file is instead of a slide, in words, as far as its first bytes tell. */
export function mistakenFor(head: Uint8Array): string | undefined {
  const text = String.fromCharCode(...head.subarray(0, 64));
  return MISTAKES.find(([begins]) => begins.test(text))?.[1];
}

function isMirax(folder: string): boolean {
  return existsSync(join(folder, "Slidedat.ini"));
}

function refusal(location: string, format: string): UnsupportedError {
  return new UnsupportedError(`Cannot open "${location}": ${format} is not supported`, format);
}
