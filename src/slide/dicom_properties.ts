/**
 * The attributes of a DICOM file as OpenSlide's properties: "dicom.Rows", "dicom.ImageType[2]",
 * "dicom.OpticalPathSequence[0].ObjectiveLensPower".
 *
 * Which there are and how their values are written is OpenSlide's (openslide-vendor-dicom.c,
 * add_properties) and that of libdicom, which it reads with (dicom-dict-tables.c, dicom-parse.c).
 * They may tell of a patient, as OpenSlide's do.
 */

import { loadDictionary } from "./dcmjs.ts";
import type { Element } from "./dicom_elements.ts";
import { formatDouble } from "./properties.ts";
import type { Source } from "./source.ts";

/** An attribute that has a text or numbers. */
interface Listed {
  /** Its tag after those of the sequences around it, and the index of the item in each of those. */
  readonly tags: readonly number[];
  readonly items: readonly number[];
  readonly vr: string;
  readonly valueAt: number;
  readonly lengthBytes: number;
  /** Its value, where that is short. */
  readonly bytes: Uint8Array | undefined;
}

/** Texts of several values, one after another with a backslash between. */
const TEXTS: ReadonlySet<string> = new Set(
  ["AE", "CS", "DS", "DT", "PN", "SH", "TM", "UI", "UC"],
);
/** Texts that libdicom takes for one, backslashes and all, though some may be several (PS3.5 §6.2). */
const TEXT: ReadonlySet<string> = new Set(["AS", "DA", "IS", "LO", "LT", "ST", "UT", "UR"]);
/** Bytes a number, and how it is written; an AT is two numbers. */
const NUMBERS: Readonly<
  Record<string, readonly [bytes: number, (v: DataView, at: number) => string]>
> = {
  AT: [2, (view, at) => String(view.getUint16(at, true))],
  FL: [4, (view, at) => formatDouble(view.getFloat32(at, true))],
  FD: [8, (view, at) => formatDouble(view.getFloat64(at, true))],
  SL: [4, (view, at) => String(view.getInt32(at, true))],
  SS: [2, (view, at) => String(view.getInt16(at, true))],
  SV: [8, (view, at) => String(view.getBigInt64(at, true))],
  UL: [4, (view, at) => String(view.getUint32(at, true))],
  US: [2, (view, at) => String(view.getUint16(at, true))],
  UV: [8, (view, at) => String(view.getBigUint64(at, true))],
};

/** More than any header has; what lies beyond is left out. */
const MAX_LISTED = 2 ** 15;
const MAX_BYTES = 2 ** 24;

/** Where the attributes lie that a walk over a file comes by. */
export class AttributeList {
  readonly #listed: Listed[] = [];
  #bytes = 0;

  /** @param vr its value representation, which implicit encodings do not write. */
  add({ tag, path, items, valueAt, lengthBytes, value }: Element, vr: string): void {
    if (!TEXTS.has(vr) && !TEXT.has(vr) && !(vr in NUMBERS)) return;
    if (lengthBytes === undefined || this.#listed.length === MAX_LISTED) return;
    if ((this.#bytes += lengthBytes) > MAX_BYTES) return;
    const view = value();
    this.#listed.push({
      tags: [...path, tag],
      items: [...items],
      vr,
      valueAt,
      lengthBytes,
      bytes: view.byteLength < lengthBytes
        ? undefined
        : new Uint8Array(view.buffer, view.byteOffset, lengthBytes).slice(),
    });
  }

  /**
   * Those that the standard knows, by OpenSlide's names.
   * @throws {SourceError} where long ones cannot be read.
   */
  async properties(source: Source): Promise<Record<string, string>> {
    const { nameOf } = await loadDictionary();
    const all: Record<string, string> = {};
    for (const { tags, items, vr, valueAt, lengthBytes, bytes } of this.#listed) {
      const names = tags.map(nameOf);
      if (names.includes(undefined)) continue;
      const name = ["dicom", ...names.map((name, i) => i in items ? `${name}[${items[i]}]` : name)]
        .join(".");
      const values = valuesOf(vr, bytes ?? await source.read(valueAt, lengthBytes));
      for (const [i, value] of values.entries()) {
        all[values.length === 1 ? name : `${name}[${i}]`] = value;
      }
    }
    return all;
  }
}

function valuesOf(vr: string, bytes: Uint8Array): string[] {
  const number = NUMBERS[vr];
  if (number !== undefined) {
    const [size, read] = number;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const count = Math.floor(bytes.length / size);
    return Array.from({ length: count }, (_, i) => read(view, i * size));
  }
  let text = decode(bytes);
  // One byte of padding, whatever else follows a value.
  if (vr !== "UI") text = text.replace(/[ \t\n\v\f\r]$/, "");
  text = text.replace(/\0.*$/s, "");
  return TEXTS.has(vr) ? text.split("\\") : [text];
}

/** OpenSlide gives the bytes as they are, and who reads them takes them for UTF-8. */
function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return new TextDecoder("latin1").decode(bytes);
  }
}
