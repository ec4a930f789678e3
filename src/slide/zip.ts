/**
 * A zip of files as sources: stored ones are read where they lie, deflated ones are written to disk
 * first.
 *
 * PKWARE APPNOTE 6.3.10; @zip.js/zip.js reads the directory, zip64 included, and zlib inflates. A file
 * is called by its number, since names in such archives tell of patients.
 */

import { closeSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { join } from "node:path";
import { tmpdir } from "node:os";
import { pipeline, Readable } from "node:stream";
import { crc32, createInflateRaw } from "node:zlib";
import type { FileEntry } from "@zip.js/zip.js";
import { SlideFormatError, SourceError, UnsupportedError } from "../errors.ts";
import { FileSource, MemorySource, type Source } from "./source.ts";

export interface Archive {
  /** Files that were wanted, in the order of the directory. Closing one leaves the archive open. */
  readonly sources: readonly Source[];
  /** Closes the archive and removes what was written to disk. */
  close(): Promise<void>;
}

export interface ArchiveOptions {
  /** Where deflated files are written; the system's temporary folder where absent. */
  readonly workDir?: string | undefined;
  /** Bytes from a file's beginning that `isWanted` looks at. */
  readonly headBytes: number;
  /** Whether a file is worth inflating. */
  isWanted(head: Uint8Array): boolean;
}

const STORED = 0, DEFLATED = 8;
/** APPNOTE 4.4.5. */
const OTHER_METHODS: Readonly<Record<number, string>> = {
  9: "Deflate64",
  12: "bzip2",
  14: "LZMA",
  93: "Zstandard",
  95: "xz",
};
const LOCAL_HEADER = 0x504b0304, LOCAL_HEADER_BYTES = 30;
const MAX_FILES = 2 ** 16;
/** A directory of so many files takes some megabytes; it is read whole. */
const MAX_READ_BYTES = 2 ** 26;
/** Read at a time: a read of a server is a request. Inflated at a time. */
const CHUNK_BYTES = 2 ** 20, PIECE_BYTES = 2 ** 16;
/** What inflates to no more stays in memory. */
const MAX_MEMORY_BYTES = 2 ** 20;
/** All files together make at most so much of an archive: uncompressed pixels deflate to a tenth or so. */
const MAX_EXPANSION = 64;
const EXPANSION_SLACK_BYTES = 2 ** 26;

/** Whether a file that begins so is a zip: 4 bytes tell. */
export function isZip(head: Uint8Array): boolean {
  return head[0] === 0x50 && head[1] === 0x4b && head[2] === 3 && head[3] === 4;
}

/**
 * Opens the files of a zip. The archive's own source is the caller's to close where this throws.
 * @throws {SlideFormatError} where it is broken; {UnsupportedError} where files are encrypted or
 *   compressed in a way that is not read; {SourceError} where it cannot be read, or deflated files
 *   cannot be written.
 */
export async function openZip(source: Source, options: ArchiveOptions): Promise<Archive> {
  const sources: Source[] = [];
  let folder: string | undefined;
  const close = async () => {
    for (const file of sources) await file.close();
    await source.close();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  };
  try {
    let inflatedBytes = 0;
    for (const [i, entry] of (await listFiles(source)).entries()) {
      const location = `${source.location}, file ${i + 1}`;
      checkEntry(entry, location);
      if (entry.compressionMethod === STORED) {
        sources.push(new StoredFile(source, entry, location));
        continue;
      }
      if (!options.isWanted(await inflateHead(source, entry, options.headBytes))) continue;
      inflatedBytes += entry.uncompressedSize;
      if (inflatedBytes > MAX_EXPANSION * source.sizeBytes + EXPANSION_SLACK_BYTES) {
        throw broken(source, `its files inflate to more than ${MAX_EXPANSION} times its size`);
      }
      if (entry.uncompressedSize <= MAX_MEMORY_BYTES) {
        sources.push(new MemorySource(await inflateToMemory(source, entry), location));
      } else {
        folder ??= makeFolder(options.workDir ?? tmpdir());
        checkDisk(folder, entry.uncompressedSize);
        const path = join(folder, `${i + 1}.dcm`);
        await inflateToFile(source, entry, path);
        sources.push(FileSource.open(path));
      }
    }
  } catch (cause) {
    // The archive's own source is left to the caller.
    for (const file of sources) await file.close();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    if (isOurs(cause)) throw cause;
    throw broken(source, (cause as Error).message, cause);
  }
  return { sources, close };
}

function isOurs(error: unknown): boolean {
  return error instanceof SlideFormatError || error instanceof UnsupportedError ||
    error instanceof SourceError;
}

function broken(source: Source, why: string, cause?: unknown): SlideFormatError {
  return new SlideFormatError(
    `Cannot read the zip "${source.location}": ${why}`,
    { path: source.location, format: "zip" },
    { cause },
  );
}

async function listFiles(source: Source): Promise<FileEntry[]> {
  const { configure, Reader, ZipReader } = await import("@zip.js/zip.js");
  // Its workers are scripts in data URLs.
  configure({ useWebWorkers: false });
  class SourceReader extends Reader<Source> {
    override size = source.sizeBytes;
    override async readUint8Array(offset: number, length: number): Promise<Uint8Array> {
      if (length > MAX_READ_BYTES) throw broken(source, `its directory claims ${length} bytes`);
      return await source.read(offset, length);
    }
  }
  const files: FileEntry[] = [];
  let entries = 0;
  for await (const entry of new ZipReader(new SourceReader(source)).getEntriesGenerator()) {
    if (++entries > MAX_FILES) throw broken(source, `it has more than ${MAX_FILES} files`);
    if (!entry.directory) files.push(entry);
  }
  return files;
}

function checkEntry({ encrypted, compressionMethod }: FileEntry, location: string): void {
  const feature = encrypted
    ? "an encrypted zip"
    : compressionMethod === STORED || compressionMethod === DEFLATED
    ? undefined
    : `zip compression ${compressionMethod} (${OTHER_METHODS[compressionMethod] ?? "unknown"})`;
  if (feature !== undefined) {
    throw new UnsupportedError(`Cannot read "${location}": ${feature} is not supported`, feature);
  }
}

/** Where a file's data lie: behind the local header, whose extra field is not the directory's (APPNOTE 4.3.7). */
async function findData(
  archive: Source,
  { offset, compressedSize }: FileEntry,
): Promise<number> {
  const bytes = await archive.read(offset, LOCAL_HEADER_BYTES);
  const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (header.byteLength < LOCAL_HEADER_BYTES || header.getUint32(0) !== LOCAL_HEADER) {
    throw broken(archive, `a file does not begin at ${offset}`);
  }
  const dataAt = offset + LOCAL_HEADER_BYTES + header.getUint16(26, true) +
    header.getUint16(28, true);
  if (dataAt + compressedSize > archive.sizeBytes) {
    throw broken(archive, "a file is cut by its end");
  }
  return dataAt;
}

/**
 * A file's bytes as they are inflated, a piece at a time: zlib waits until a piece is taken, so that
 * what deflates to nothing takes no memory. (zip.js inflates all of what it has read at once.)
 * @throws {SlideFormatError} where they are others than the directory says, by number and CRC-32.
 */
async function* inflated(archive: Source, entry: FileEntry): AsyncGenerator<Uint8Array> {
  const { compressedSize, uncompressedSize, signature } = entry;
  const dataAt = await findData(archive, entry);
  async function* deflated() {
    for (let at = 0; at < compressedSize; at += CHUNK_BYTES) {
      yield await archive.read(dataAt + at, Math.min(CHUNK_BYTES, compressedSize - at));
    }
  }
  const inflate = createInflateRaw({ chunkSize: PIECE_BYTES });
  pipeline(Readable.from(deflated(), { objectMode: false }), inflate, () => {}); // The loop is told.
  let length = 0, sum = 0;
  for await (const piece of inflate) {
    length += piece.length;
    sum = crc32(piece, sum);
    if (length > uncompressedSize) {
      throw broken(
        archive,
        `a file inflates to more than the ${uncompressedSize} bytes it claims`,
      );
    }
    yield piece;
  }
  if (length < uncompressedSize) {
    throw broken(
      archive,
      `a file inflates to ${length} of the ${uncompressedSize} bytes it claims`,
    );
  }
  if (sum !== signature) throw broken(archive, "a file's checksum is wrong");
}

/** A file's first bytes. */
async function inflateHead(
  archive: Source,
  entry: FileEntry,
  length: number,
): Promise<Uint8Array> {
  const head = new Uint8Array(Math.min(length, entry.uncompressedSize));
  let at = 0;
  for await (const piece of inflated(archive, entry)) {
    head.set(piece.subarray(0, head.length - at), at);
    at = Math.min(head.length, at + piece.length);
    if (at === head.length) break;
  }
  return head;
}

async function inflateToMemory(archive: Source, entry: FileEntry): Promise<Uint8Array> {
  const bytes = new Uint8Array(entry.uncompressedSize);
  let at = 0;
  for await (const piece of inflated(archive, entry)) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

async function inflateToFile(archive: Source, entry: FileEntry, path: string): Promise<void> {
  const file = openSync(path, "wx", 0o600);
  let at = 0;
  try {
    for await (const piece of inflated(archive, entry)) {
      try {
        for (let done = 0; done < piece.length;) {
          done += writeSync(file, piece, done, piece.length - done, at + done);
        }
      } catch (cause) {
        throw diskError(path, (cause as Error).message, cause);
      }
      at += piece.length;
    }
  } finally {
    closeSync(file);
  }
}

function makeFolder(workDir: string): string {
  try {
    return mkdtempSync(join(workDir, "wgslide-zip-"));
  } catch (cause) {
    throw diskError(workDir, (cause as Error).message, cause);
  }
}

function checkDisk(folder: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < bytes) {
    throw diskError(
      folder,
      `a file takes ${bytes} bytes, and the disk has ${
        bavail * bsize
      } free; set WORK_DIR to a larger one`,
    );
  }
}

function diskError(location: string, why: string, cause?: unknown): SourceError {
  return new SourceError(`Cannot unpack the zip to "${location}": ${why}`, { location }, { cause });
}

/** A file that lies in the archive as it is. */
class StoredFile implements Source {
  readonly sizeBytes: number;
  readonly #archive: Source;
  readonly #entry: FileEntry;
  #dataAt: number | undefined;
  readonly prefetch: Source["prefetch"];

  constructor(archive: Source, entry: FileEntry, readonly location: string) {
    this.#archive = archive;
    this.#entry = entry;
    this.sizeBytes = entry.uncompressedSize;
    this.prefetch = archive.prefetch && ((ranges, signal) => {
      const dataAt = this.#dataAt;
      if (dataAt === undefined) return; // Nothing was read of it yet.
      const inside = ranges.filter(({ offsetBytes, lengthBytes }) =>
        offsetBytes + lengthBytes <= this.sizeBytes
      );
      archive.prefetch!(
        inside.map(({ offsetBytes, lengthBytes }) => ({
          offsetBytes: dataAt + offsetBytes,
          lengthBytes,
        })),
        signal,
      );
    });
  }

  async read(
    offsetBytes: number,
    lengthBytes: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array<ArrayBuffer>> {
    if (offsetBytes < 0 || lengthBytes < 0) {
      throw new RangeError(`Cannot read ${lengthBytes} bytes from offset ${offsetBytes}`);
    }
    this.#dataAt ??= await findData(this.#archive, this.#entry);
    const length = Math.max(0, Math.min(lengthBytes, this.sizeBytes - offsetBytes));
    return await this.#archive.read(this.#dataAt + offsetBytes, length, signal);
  }

  /** The archive is not this file's to close. */
  close(): Promise<void> {
    return Promise.resolve();
  }
}
