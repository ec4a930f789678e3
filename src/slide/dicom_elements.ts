/**
 * The data elements of a DICOM file: where each one lies, without reading their values.
 *
 * DICOM PS3.5 §7.1 (elements), §7.5 (sequences, of defined and of undefined length), annex A
 * (transfer syntaxes). Every length is held against what contains it, so that what was walked over
 * can be parsed without surprises; nesting is counted, not recursed into.
 */

import { SlideFormatError } from "../errors.ts";
import type { Source } from "./source.ts";

/** How elements are written. */
export interface Encoding {
  /** Whether each element says its value representation. */
  readonly explicit: boolean;
  readonly littleEndian: boolean;
}

/** A data element, where the walk has come to. */
export interface Element {
  /** Group and number, such as 0x7fe00010. */
  readonly tag: number;
  /** Value representation, such as "SQ"; empty in implicit encodings. */
  readonly vr: string;
  /** Where the element begins, and where its value does. */
  readonly offsetBytes: number;
  readonly valueAt: number;
  /** Undefined where it ends with a delimiter. */
  readonly lengthBytes: number | undefined;
  /** Tags of the sequences around it, outermost first, and the index of the item in each. */
  readonly path: readonly number[];
  readonly items: readonly number[];
  /** The value where it takes at most 64 bytes, else what there is of it; valid during the visit alone. */
  value(): DataView;
}

export const ITEM = 0xfffee000, ITEM_END = 0xfffee00d, SEQUENCE_END = 0xfffee0dd;
export const PIXEL_DATA = 0x7fe00010;

/** Of these the length takes four bytes, after two that are reserved (PS3.5 §7.1.2). */
const LONG_VRS: ReadonlySet<string> = new Set(
  ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"],
);
/** A longer value is not looked at during the walk. */
const MAX_SEEN_BYTES = 64;
/** Reads begin small, since most heads are, and grow while what is read follows on. */
const MIN_READ_BYTES = 2 ** 15;
const MAX_READ_BYTES = 2 ** 20;
/** WSI's functional groups are five deep. */
const MAX_DEPTH = 32;
/** Bytes that a walk reads, far more than the positions of a million frames take. */
const MAX_WALKED_BYTES = 2 ** 29;

interface Container {
  /** Whether its elements are items. */
  readonly isSequence: boolean;
  /** Where it ends; undefined where a delimiter ends it, which comes before `limit`. */
  readonly end: number | undefined;
  readonly limit: number;
  readonly encoding: Encoding;
}

/**
 * Visits elements from `startBytes` on, of one group where it is given. The visitor says of each whether to enter it (as a sequence),
 * to go on behind it, or to stop there; what has no defined length is entered anyway.
 * @returns where it stopped: an element's beginning, or the source's end.
 * @throws {SlideFormatError} where a length does not fit in what contains it, a delimiter is
 *   missing or misplaced, or nesting is too deep.
 */
export async function walkElements(
  source: Source,
  startBytes: number,
  encoding: Encoding,
  visit: (element: Element) => "enter" | "skip" | "stop",
  group?: number,
): Promise<number> {
  const { sizeBytes } = source;
  const broken = (what: string, offsetBytes: number) =>
    dicomError(source, `${what} at ${offsetBytes}`, offsetBytes);
  const root = { isSequence: false, end: sizeBytes, limit: sizeBytes, encoding };
  const stack: Container[] = [root];
  const path: number[] = [];
  const items: number[] = [];

  let at = startBytes;
  let window = new DataView(new ArrayBuffer(0));
  let windowAt = 0;
  let readBytes = MIN_READ_BYTES;
  let walked = 0;
  const fill = async () => {
    const follows = at <= windowAt + window.byteLength;
    readBytes = follows ? Math.min(2 * readBytes, MAX_READ_BYTES) : MIN_READ_BYTES;
    const bytes = await source.read(at, readBytes);
    if ((walked += bytes.length) > MAX_WALKED_BYTES) throw broken("its head is too long", at);
    window = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    windowAt = at;
  };
  const leave = (container: Container) => {
    stack.pop();
    if (container.isSequence) {
      path.pop();
      items.pop();
    }
  };

  for (;;) {
    let container = stack.at(-1)!;
    while (container.end !== undefined && at >= container.end && container !== root) {
      leave(container);
      container = stack.at(-1)!;
    }
    if (at >= sizeBytes) {
      if (container !== root) throw broken("a sequence has no end", at);
      return at;
    }
    const wanted = Math.min(12 + MAX_SEEN_BYTES, sizeBytes - at);
    if (at < windowAt || at + wanted > windowAt + window.byteLength) await fill();
    if (window.byteLength + windowAt - at < 8) throw broken("an element is cut", at);

    const { explicit, littleEndian } = container.encoding;
    const from = at - windowAt;
    const tag = window.getUint16(from, littleEndian) * 0x10000 +
      window.getUint16(from + 2, littleEndian);
    // Before the rest of it, since it may be encoded otherwise.
    if (group !== undefined && tag >>> 16 !== group) return at;
    let vr = "";
    let headBytes = 8;
    let length: number;
    // Items and delimiters have no value representation (§7.5).
    if (!explicit || tag >= 0xfffe0000) length = window.getUint32(from + 4, littleEndian);
    else {
      const [a, b] = [window.getUint8(from + 4), window.getUint8(from + 5)];
      if (a < 65 || a > 90 || b < 65 || b > 90) {
        throw broken(`element ${formatTag(tag)} has no value representation`, at);
      }
      vr = String.fromCharCode(a, b);
      if (LONG_VRS.has(vr)) {
        headBytes = 12;
        if (window.byteLength - from < headBytes) throw broken("an element is cut", at);
        length = window.getUint32(from + 8, littleEndian);
      } else length = window.getUint16(from + 6, littleEndian);
    }
    const offsetBytes = at;
    const valueAt = at + headBytes;
    const limit = container.end ?? container.limit;
    const lengthBytes = length === 0xffffffff ? undefined : length;
    if (valueAt + (lengthBytes ?? 0) > limit) {
      throw broken(
        `element ${formatTag(tag)} claims ${lengthBytes ?? "more"} bytes, more than there are`,
        at,
      );
    }

    if (tag === ITEM_END || tag === SEQUENCE_END) {
      const ends = container.isSequence ? SEQUENCE_END : ITEM_END;
      if (tag !== ends || container.end !== undefined) throw broken("a delimiter is misplaced", at);
      leave(container);
      at = valueAt + (lengthBytes ?? 0);
      continue;
    }
    if (container.isSequence || tag === ITEM) {
      if (!container.isSequence || tag !== ITEM) {
        throw broken(
          `element ${formatTag(tag)} is where ${
            container.isSequence ? "an item" : "none of its kind"
          } belongs`,
          at,
        );
      }
      items[items.length - 1]!++;
      stack.push({
        isSequence: false,
        end: lengthBytes === undefined ? undefined : valueAt + lengthBytes,
        limit,
        encoding: container.encoding,
      });
      at = valueAt;
      continue;
    }

    const seen = Math.min(lengthBytes ?? 0, window.byteLength - from - headBytes);
    const value = () => new DataView(window.buffer, window.byteOffset + from + headBytes, seen);
    const step = visit({ tag, vr, offsetBytes, valueAt, lengthBytes, path, items, value });
    if (step === "stop") return offsetBytes;
    if (lengthBytes !== undefined && step === "skip") {
      at = valueAt + lengthBytes;
      continue;
    }
    if (tag === PIXEL_DATA) throw broken("pixel data is nested", at);
    if (stack.length >= 2 * MAX_DEPTH) throw broken("sequences are nested too deep", at);
    path.push(tag);
    items.push(-1);
    stack.push({
      isSequence: true,
      end: lengthBytes === undefined ? undefined : valueAt + lengthBytes,
      limit,
      // What was of unknown representation is implicit inside (§6.2.2, note 4).
      encoding: vr === "UN" ? { explicit: false, littleEndian: true } : container.encoding,
    });
    at = valueAt;
  }
}

/** A tag as the standard writes it: "(0028,0010)". */
export function formatTag(tag: number): string {
  const hex = tag.toString(16).padStart(8, "0").toUpperCase();
  return `(${hex.slice(0, 4)},${hex.slice(4)})`;
}

/** The error for a file that breaks DICOM's rules. */
export function dicomError(
  source: Source,
  what: string,
  offsetBytes?: number,
  options?: ErrorOptions,
): SlideFormatError {
  return new SlideFormatError(
    `Cannot read the DICOM file "${source.location}": ${what}`,
    {
      path: source.location,
      format: "dicom",
      ...(offsetBytes === undefined ? {} : { offsetBytes }),
    },
    options,
  );
}
