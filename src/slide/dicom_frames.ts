/**
 * Where the frames of a DICOM instance lie in its pixel data.
 *
 * DICOM PS3.5 §A.4 (fragments and the Basic Offset Table) and PS3.3 C.7.6.3.1.8 (Extended Offset
 * Table). Of the tables the extended one is believed before the basic one, and where neither makes
 * sense the fragments are looked up one after the other.
 */

import { dicomError, ITEM, SEQUENCE_END } from "./dicom_elements.ts";
import type { ByteRange, Source } from "./source.ts";

/** Frames of one instance. */
export interface Frames {
  /**
   * The bytes of a frame, those of its fragments joined.
   * @throws {SlideFormatError} where the file places it outside itself or between fragments;
   *   {SourceError}.
   */
  read(index: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>>;
  /** Says that these are read next (see `Source.prefetch`). Absent where the source is near. */
  announce?(indices: readonly number[], signal: AbortSignal): void;
}

/** Frames that lie one behind the other, each of the same length. */
export function nativeFrames(source: Source, pixelsAt: number, frameBytes: number): Frames {
  const rangeOf = (index: number): ByteRange => ({
    offsetBytes: pixelsAt + index * frameBytes,
    lengthBytes: frameBytes,
  });
  return {
    async read(index, signal) {
      const range = rangeOf(index);
      source.prefetch?.([range]);
      const data = await source.read(range.offsetBytes, frameBytes, signal);
      if (data.length < frameBytes) {
        throw dicomError(source, `frame ${index} is cut by the file's end`);
      }
      return data;
    },
    ...(source.prefetch && {
      announce: (indices, signal) => source.prefetch!(indices.map(rangeOf), signal),
    }),
  };
}

/** What the pixel data of an encapsulated instance say of themselves. */
export interface Encapsulated {
  /** Where the first item begins, the Basic Offset Table. */
  readonly itemsAt: number;
  readonly frames: number;
  readonly extendedOffsets: ByteRange | undefined;
  readonly extendedLengths: ByteRange | undefined;
  /** How each frame's first fragment begins; undefined where every fragment is a frame (PS3.5 §A.4.2). */
  readonly startsWith: readonly number[] | undefined;
  /** A frame of more bytes is refused before it is read. */
  readonly maxFrameBytes: number;
}

/** Frames in fragments. The tables are read, or the fragments looked up, when a frame is first asked for. */
export function encapsulatedFrames(source: Source, data: Encapsulated): Frames {
  let index: Promise<FrameIndex> | undefined;
  // Shared by all that wait, so that no one's abort ends it; a failure may be the network's.
  const load = () =>
    index ??= readIndex(source, data).catch((error) => {
      index = undefined;
      throw error;
    });
  return {
    async read(frame, signal) {
      signal?.throwIfAborted();
      const place = await (await load()).locate(frame);
      return await readFrame(source, data, place, frame, signal);
    },
    ...(source.prefetch && {
      announce: (frames, signal) =>
        void load().then((index) => {
          const ranges = frames.flatMap((frame): ByteRange[] => {
            // What is not known yet is found when it is read, and too long a frame is refused there.
            const place = index.known(frame);
            if (place === undefined) return [];
            const lengthBytes = place.end - place.begin;
            return lengthBytes <= data.maxFrameBytes
              ? [{ offsetBytes: place.begin, lengthBytes }]
              : [];
          });
          source.prefetch!(ranges, signal);
        }, () => {}), // The read says what is wrong.
    }),
  };
}

/** A frame's first item, and the end of its last. */
interface Place {
  readonly begin: number;
  readonly end: number;
}

interface FrameIndex {
  /** Where a frame is, as far as that is known without reading. */
  known(frame: number): Place | undefined;
  /** @throws {SlideFormatError} where it is not where it should be; {SourceError}. */
  locate(frame: number): Promise<Place>;
}

/** An index from a table: `[frames]` each. An end of 0 is not known before it is looked for. */
function tableIndex(source: Source, begins: Float64Array, ends: Float64Array): FrameIndex {
  const known = (frame: number) =>
    ends[frame]! > 0 ? { begin: begins[frame]!, end: ends[frame]! } : undefined;
  return {
    known,
    async locate(frame) {
      if (ends[frame] === 0) ends[frame] = await findEnd(source, begins[frame]!);
      return known(frame)!;
    },
  };
}

/** Bytes of an item's tag and length. */
const ITEM_BYTES = 8;
const SCAN_BYTES = 2 ** 20;
/** Encoders write one fragment for a frame, some cut it every 64 KiB or so. */
const MAX_FRAGMENTS_PER_FRAME = 1024;
const MAX_FRAGMENTS = 2 ** 23;

async function readIndex(source: Source, data: Encapsulated): Promise<FrameIndex> {
  const head = view(await source.read(data.itemsAt, ITEM_BYTES));
  if (head.byteLength < ITEM_BYTES || readTag(head, 0) !== ITEM) {
    throw dicomError(source, "its pixel data begin with no item", data.itemsAt);
  }
  const tableBytes = head.getUint32(4, true);
  const firstAt = data.itemsAt + ITEM_BYTES + tableBytes;
  if (firstAt > source.sizeBytes) {
    throw dicomError(source, "its Basic Offset Table is cut by the file's end", data.itemsAt);
  }
  return await readExtendedTable(source, data, firstAt) ??
    await readBasicTable(source, data, firstAt, tableBytes) ??
    new FragmentScan(source, data, firstAt);
}

async function readExtendedTable(
  source: Source,
  { frames, extendedOffsets, extendedLengths }: Encapsulated,
  firstAt: number,
): Promise<FrameIndex | undefined> {
  const tableBytes = 8 * frames;
  if (extendedOffsets?.lengthBytes !== tableBytes || extendedLengths?.lengthBytes !== tableBytes) {
    return undefined;
  }
  const offsets = view(await source.read(extendedOffsets.offsetBytes, tableBytes));
  const lengths = view(await source.read(extendedLengths.offsetBytes, tableBytes));
  const begins = new Float64Array(frames), ends = new Float64Array(frames);
  for (let i = 0, end = 0; i < frames; i++) {
    const begin = firstAt + Number(offsets.getBigUint64(8 * i, true));
    if (begin < end) return undefined;
    // The length is the frame's own; the item around it is padded to an even one.
    const length = Number(lengths.getBigUint64(8 * i, true));
    end = begin + ITEM_BYTES + length + length % 2;
    if (!(end <= source.sizeBytes)) return undefined;
    begins[i] = begin;
    ends[i] = end;
  }
  return tableIndex(source, begins, ends);
}

async function readBasicTable(
  source: Source,
  { itemsAt, frames }: Encapsulated,
  firstAt: number,
  tableBytes: number,
): Promise<FrameIndex | undefined> {
  if (tableBytes !== 4 * frames) return undefined;
  const table = view(await source.read(itemsAt + ITEM_BYTES, tableBytes));
  const begins = new Float64Array(frames), ends = new Float64Array(frames);
  for (let i = 0; i < frames; i++) {
    const begin = firstAt + table.getUint32(4 * i, true);
    // Past 4 GiB the table's numbers begin anew (PS3.5 §A.4), and then they fall.
    const before = i === 0 ? firstAt - 1 : begins[i - 1]!;
    if (begin <= before || begin + ITEM_BYTES > source.sizeBytes) return undefined;
    if (i > 0) ends[i - 1] = begin;
    begins[i] = begin;
  }
  return tableIndex(source, begins, ends);
}

/**
 * Looks the fragments up by their heads, in large reads, since heads alone would be as many reads as
 * frames. It goes no further than it must: while every fragment begins as a frame does, each is one,
 * whatever comes behind, so that the first frames of a file at a URL are there before it is read to
 * its end. Otherwise all of them are counted first.
 */
class FragmentScan implements FrameIndex {
  readonly #source: Source;
  readonly #data: Encapsulated;
  readonly #firstAt: number;
  readonly #fragments: number[] = [];
  /** Of the fragments, those that begin as a frame does. */
  readonly #starts: number[] = [];
  #window = view(new Uint8Array());
  #windowAt = 0;
  #at: number;
  /** The first fragment of each frame, once the end was reached. */
  #frames: readonly number[] | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(source: Source, data: Encapsulated, firstAt: number) {
    this.#source = source;
    this.#data = data;
    this.#at = this.#firstAt = firstAt;
  }

  known(frame: number): Place | undefined {
    const { startsWith, frames } = this.#data;
    const fragments = this.#fragments;
    if (this.#frames !== undefined) {
      return { begin: this.#frames[frame]!, end: this.#frames[frame + 1] ?? this.#at };
    }
    const isSure = startsWith !== undefined && frames > 1 &&
      this.#starts.length === fragments.length && frame + 1 < fragments.length;
    return isSure ? { begin: fragments[frame]!, end: fragments[frame + 1]! } : undefined;
  }

  async locate(frame: number): Promise<Place> {
    // One after the other; a failure may be the network's, and is no reason for the next to fail.
    const run = this.#running.then(async () => {
      while (this.known(frame) === undefined) await this.#step();
    });
    this.#running = run.catch(() => {});
    await run;
    return this.known(frame)!;
  }

  /** Goes on by a fragment, or to the end. */
  async #step(): Promise<void> {
    const source = this.#source;
    const { frames, startsWith } = this.#data;
    const fragments = this.#fragments;
    const seenBytes = ITEM_BYTES + (startsWith?.length ?? 0);
    const at = this.#at;
    const wanted = Math.min(seenBytes, source.sizeBytes - at);
    if (at < this.#windowAt || at + wanted > this.#windowAt + this.#window.byteLength) {
      this.#window = view(await source.read(at, SCAN_BYTES));
      this.#windowAt = at;
    }
    const window = this.#window;
    const from = at - this.#windowAt;
    // Some writers end the file without a delimiter.
    const isEnd = window.byteLength - from < ITEM_BYTES || readTag(window, from) === SEQUENCE_END;
    if (isEnd) return this.#finish();
    const length = window.getUint32(from + 4, true);
    if (readTag(window, from) !== ITEM || at + ITEM_BYTES + length > source.sizeBytes) {
      throw dicomError(source, `fragment ${fragments.length} of its pixel data is broken`, at);
    }
    if (fragments.length >= Math.min(frames * MAX_FRAGMENTS_PER_FRAME, MAX_FRAGMENTS)) {
      throw dicomError(source, `its ${frames} frames are in too many fragments`, at);
    }
    if (startsFrame(window, from + ITEM_BYTES, startsWith)) this.#starts.push(fragments.length);
    fragments.push(at);
    this.#at = at + ITEM_BYTES + length;
  }

  #finish(): void {
    const { frames } = this.#data;
    const fragments = this.#fragments;
    const firsts = fragments.length === frames
      ? fragments
      : frames === 1 && fragments.length > 0
      ? [fragments[0]!]
      : this.#starts.map((i) => fragments[i]!);
    if (firsts.length !== frames || firsts[0] !== fragments[0]) {
      throw dicomError(
        this.#source,
        `it has ${frames} frames and ${fragments.length} fragments, ` +
          `of which ${this.#starts.length} begin one`,
        this.#firstAt,
      );
    }
    this.#frames = firsts;
    this.#window = view(new Uint8Array());
  }
}

function startsFrame(window: DataView, at: number, start: readonly number[] | undefined): boolean {
  return start === undefined ||
    start.every((byte, i) => at + i < window.byteLength && window.getUint8(at + i) === byte);
}

async function readFrame(
  source: Source,
  data: Encapsulated,
  { begin, end }: Place,
  frame: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = end - begin;
  if (bytes > data.maxFrameBytes) {
    throw dicomError(source, `frame ${frame} has ${bytes} bytes, too many for its pixels`, begin);
  }
  source.prefetch?.([{ offsetBytes: begin, lengthBytes: bytes }]);
  const items = await source.read(begin, bytes, signal);
  const window = view(items);
  const fragments: Uint8Array<ArrayBuffer>[] = [];
  for (let at = 0; at < items.length;) {
    const cut = at + ITEM_BYTES > items.length;
    if (!cut && fragments.length > 0 && readTag(window, at) === SEQUENCE_END) break;
    const next = cut ? Infinity : at + ITEM_BYTES + window.getUint32(at + 4, true);
    if (next > items.length || readTag(window, at) !== ITEM) {
      throw dicomError(source, `frame ${frame} is not where it should be`, begin + at);
    }
    fragments.push(items.subarray(at + ITEM_BYTES, next));
    at = next;
  }
  return fragments.length === 1 ? fragments[0]! : join(fragments);
}

/** Where the items from `begin` on end: at the delimiter, or at the file's end. */
async function findEnd(source: Source, begin: number): Promise<number> {
  for (let at = begin, items = 0;; items++) {
    source.prefetch?.([{ offsetBytes: at, lengthBytes: ITEM_BYTES }]); // Alone.
    const head = view(await source.read(at, ITEM_BYTES));
    if (head.byteLength < ITEM_BYTES || readTag(head, 0) === SEQUENCE_END) return at;
    if (readTag(head, 0) !== ITEM || items >= MAX_FRAGMENTS_PER_FRAME) {
      throw dicomError(source, "its last frame has no end", at);
    }
    at += ITEM_BYTES + head.getUint32(4, true);
    if (at > source.sizeBytes) {
      throw dicomError(source, "its last frame is cut by the file's end", begin);
    }
  }
}

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Encapsulated data are little-endian, tags too (PS3.5 §A.4). */
function readTag(bytes: DataView, at: number): number {
  return bytes.getUint16(at, true) * 0x10000 +
    bytes.getUint16(at + 2, true);
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
