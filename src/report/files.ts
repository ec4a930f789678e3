/** Files that appear whole or not at all. */

import { closeSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

/**
 * Writes a file in pieces beside its place and then renames it there, so that readers see the old
 * one or the new one. Synchronous: it is the last thing that a run does.
 * @throws {Error} of the file system; nothing is left behind then.
 */
export function writeWhole(path: string, pieces: Iterable<string | Uint8Array>): void {
  const partial = `${path}.${crypto.randomUUID()}.partial`;
  let file: number | undefined;
  try {
    file = openSync(partial, "wx");
    const encoder = new TextEncoder();
    for (const piece of pieces) {
      const bytes = typeof piece === "string" ? encoder.encode(piece) : piece;
      for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
    }
    closeSync(file);
    file = undefined;
    renameSync(partial, path);
  } catch (error) {
    if (file !== undefined) closeSync(file);
    rmSync(partial, { force: true });
    throw error;
  }
}

/** Makes a folder where there is none and tries to write in it. @throws {Error} of the file system. */
export function checkWritable(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const probe = join(folder, `.${crypto.randomUUID()}.partial`);
  try {
    closeSync(openSync(probe, "wx"));
  } finally {
    rmSync(probe, { force: true });
  }
}
