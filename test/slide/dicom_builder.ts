/** DICOM files for tests: every rule of PS3.5 and PS3.10 that a file may keep or break. */

import type { Encoding } from "../../src/slide/dicom_elements.ts";

/** A data element: text, numbers of its VR, bytes, or the items of a sequence. */
export interface ElementSpec {
  readonly tag: number;
  readonly vr: string;
  readonly value: string | readonly number[] | Uint8Array | readonly (readonly ElementSpec[])[];
  /** For a sequence: delimiters instead of lengths. */
  readonly undefinedLength?: boolean;
  /** What is written instead of the value's length. */
  readonly claimedLength?: number;
}

export interface DicomSpec {
  readonly sopClassUid?: string;
  readonly transferSyntaxUid?: string;
  readonly encoding?: Encoding;
  readonly sopInstanceUid?: string;
  readonly seriesInstanceUid?: string;
  readonly flavour?: string;
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tilePx: readonly [width: number, height: number];
  readonly photometric?: string;
  readonly samplesPerPixel?: number;
  readonly bits?: readonly [allocated: number, stored: number];
  /** Absent: TILED_FULL where there are no positions. */
  readonly organization?: string;
  /** NumberOfFrames, where it is not that of `frames`. */
  readonly frameCount?: number;
  /** Native frames, or for each frame its fragments. */
  readonly frames: readonly Uint8Array[] | readonly (readonly Uint8Array[])[];
  /** For encapsulated frames; "none" where absent. */
  readonly table?: "none" | "basic" | "extended";
  /** Changes the offsets of the table. */
  readonly mangle?: (offsets: number[]) => number[];
  /** Beside the others, or instead of those of the same tag. */
  readonly elements?: readonly ElementSpec[];
  readonly withoutDelimiter?: boolean;
}

export const EXPLICIT_LITTLE = "1.2.840.10008.1.2.1", IMPLICIT_LITTLE = "1.2.840.10008.1.2";
export const JPEG = "1.2.840.10008.1.2.4.50", RLE = "1.2.840.10008.1.2.5";
export const WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6";

/** A DICOM file, and where each frame lies in it. */
export interface BuiltDicom {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Of each frame, its native bytes or the first item. */
  readonly framesAt: readonly number[];
  /** Where the value of the pixel data begins. */
  readonly pixelsAt: number;
}

const LONG_VRS = ["OB", "OV", "OW", "SQ", "UN", "UT"];

class Writer {
  readonly #pieces: Uint8Array[] = [];
  length = 0;
  constructor(readonly encoding: Encoding) {}

  bytes(bytes: Uint8Array): this {
    this.#pieces.push(bytes);
    this.length += bytes.length;
    return this;
  }

  u16(...values: number[]): this {
    const out = new DataView(new ArrayBuffer(2 * values.length));
    values.forEach((value, i) => out.setUint16(2 * i, value, this.encoding.littleEndian));
    return this.bytes(new Uint8Array(out.buffer));
  }

  u32(...values: number[]): this {
    const out = new DataView(new ArrayBuffer(4 * values.length));
    values.forEach((value, i) => out.setUint32(4 * i, value, this.encoding.littleEndian));
    return this.bytes(new Uint8Array(out.buffer));
  }

  tag(tag: number): this {
    return this.u16(Math.floor(tag / 0x10000), tag % 0x10000);
  }

  item(length: number): this {
    return this.tag(0xfffee000).u32(length);
  }

  element({ tag, vr, value, undefinedLength, claimedLength }: ElementSpec): this {
    const body = this.#value(vr, value, undefinedLength ?? false);
    const length = undefinedLength ? 0xffffffff : claimedLength ?? body.length;
    this.#head(tag, vr, length).bytes(body);
    if (undefinedLength) this.tag(0xfffee0dd).u32(0);
    return this;
  }

  #head(tag: number, vr: string, length: number): this {
    this.tag(tag);
    if (!this.encoding.explicit) return this.u32(length);
    this.bytes(new TextEncoder().encode(vr));
    return LONG_VRS.includes(vr) ? this.u16(0).u32(length) : this.u16(length);
  }

  /** The head of pixel data in `length` bytes. */
  pixelData(vr: string, length: number): this {
    return this.#head(0x7fe00010, vr, length);
  }

  #value(vr: string, value: ElementSpec["value"], undefinedLength: boolean): Uint8Array {
    const out = new Writer(this.encoding);
    if (value instanceof Uint8Array) out.bytes(value);
    else if (typeof value === "string") {
      const text = new TextEncoder().encode(value);
      out.bytes(text);
      if (text.length % 2 === 1) out.bytes(new Uint8Array([vr === "UI" ? 0 : 32]));
    } else if (vr === "SQ") {
      for (const elements of value as readonly (readonly ElementSpec[])[]) {
        const item = new Writer(this.encoding);
        for (const element of elements) item.element(element);
        out.item(undefinedLength ? 0xffffffff : item.length).bytes(item.join());
        if (undefinedLength) out.tag(0xfffee00d).u32(0);
      }
    } else {
      const numbers = value as readonly number[];
      if (vr === "US") out.u16(...numbers);
      else if (vr === "UL" || vr === "SL") out.u32(...numbers.map((n) => n >>> 0));
      else if (vr === "FL") out.bytes(new Uint8Array(Float32Array.from(numbers).buffer));
      else if (vr === "OV") {
        out.bytes(new Uint8Array(BigUint64Array.from(numbers.map(BigInt)).buffer));
      } else throw new Error(`The builder knows no numbers in ${vr}`);
    }
    return out.join();
  }

  join(): Uint8Array<ArrayBuffer> {
    const whole = new Uint8Array(this.length);
    let at = 0;
    for (const piece of this.#pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    return whole;
  }
}

export function buildDicom(spec: DicomSpec): BuiltDicom {
  const syntax = spec.transferSyntaxUid ?? EXPLICIT_LITTLE;
  const encoding = spec.encoding ??
    { explicit: syntax !== IMPLICIT_LITTLE, littleEndian: true };
  const sopClassUid = spec.sopClassUid ?? WHOLE_SLIDE;
  const sopInstanceUid = spec.sopInstanceUid ?? `1.2.3.${spec.widthPx}.${spec.heightPx}`;
  const meta = new Writer({ explicit: true, littleEndian: true })
    .element({ tag: 0x00020002, vr: "UI", value: sopClassUid })
    .element({ tag: 0x00020003, vr: "UI", value: sopInstanceUid })
    .element({ tag: 0x00020010, vr: "UI", value: syntax });
  const out = new Writer({ explicit: true, littleEndian: true })
    .bytes(new Uint8Array(128)).bytes(new TextEncoder().encode("DICM"))
    .element({ tag: 0x00020000, vr: "UL", value: [meta.length] }).bytes(meta.join());

  const encapsulated = Array.isArray(spec.frames[0]);
  const samples = spec.samplesPerPixel ?? 3;
  const [allocated, stored] = spec.bits ?? [8, 8];
  const elements = new Map<number, ElementSpec>();
  const add = (tag: number, vr: string, value: ElementSpec["value"]) =>
    elements.set(tag, { tag, vr, value });
  add(0x00080008, "CS", `DERIVED\\PRIMARY\\${spec.flavour ?? "VOLUME"}\\NONE`);
  add(0x00080016, "UI", sopClassUid);
  add(0x00080018, "UI", sopInstanceUid);
  add(0x0020000e, "UI", spec.seriesInstanceUid ?? "1.2.3");
  add(0x00209311, "CS", spec.organization ?? "TILED_FULL");
  add(0x00280002, "US", [samples]);
  add(0x00280004, "CS", spec.photometric ?? (samples === 1 ? "MONOCHROME2" : "RGB"));
  if (samples > 1) add(0x00280006, "US", [0]);
  add(0x00280008, "IS", String(spec.frameCount ?? spec.frames.length));
  add(0x00280010, "US", [spec.tilePx[1]]);
  add(0x00280011, "US", [spec.tilePx[0]]);
  add(0x00280100, "US", [allocated]);
  add(0x00280101, "US", [stored]);
  add(0x00280102, "US", [stored - 1]);
  add(0x00280103, "US", [0]);
  add(0x00480006, "UL", [spec.widthPx]);
  add(0x00480007, "UL", [spec.heightPx]);

  const fragments = encapsulated
    ? spec.frames as readonly (readonly Uint8Array[])[]
    : (spec.frames as readonly Uint8Array[]).map((frame) => [frame]);
  const even = (length: number) => length + length % 2;
  let offsets: number[] = [];
  let offset = 0;
  for (const frame of fragments) {
    offsets.push(offset);
    offset += frame.reduce(
      (sum, { length }) => sum + (encapsulated ? 8 + even(length) : length),
      0,
    );
  }
  const written = spec.mangle?.(offsets) ?? offsets;
  if (spec.table === "extended") {
    add(0x7fe00001, "OV", written);
    add(0x7fe00002, "OV", fragments.map(([frame]) => frame!.length));
  }
  for (const element of spec.elements ?? []) elements.set(element.tag, element);
  const dataset = new Writer(encoding);
  for (const element of [...elements.values()].sort((a, b) => a.tag - b.tag)) {
    dataset.element(element);
  }
  dataset.pixelData(allocated === 8 ? "OB" : "OW", encapsulated ? 0xffffffff : offset);
  out.bytes(dataset.join());
  const pixelsAt = out.length;
  if (encapsulated) {
    const table = spec.table === "basic" ? written : [];
    out.item(4 * table.length).u32(...table);
  }
  offsets = offsets.map((offset) => offset + out.length);
  for (const fragment of fragments.flat()) {
    if (encapsulated) out.item(even(fragment.length));
    out.bytes(fragment);
    if (encapsulated && fragment.length % 2 === 1) out.bytes(new Uint8Array(1));
  }
  if (encapsulated && !spec.withoutDelimiter) out.tag(0xfffee0dd).u32(0);
  return { bytes: out.join(), framesAt: offsets, pixelsAt };
}

/** A per-frame functional groups sequence of positions: column and row from 1, perhaps an optical path. */
export function positions(
  places: readonly (readonly [column: number, row: number, opticalPath?: string])[],
  undefinedLength = false,
): ElementSpec {
  const sequence = (tag: number, ...elements: ElementSpec[]): ElementSpec => ({
    tag,
    vr: "SQ",
    value: [elements],
    undefinedLength,
  });
  return {
    tag: 0x52009230,
    vr: "SQ",
    undefinedLength,
    value: places.map(([column, row, path]) => [
      sequence(
        0x0048021a,
        { tag: 0x0040072a, vr: "DS", value: "0.5" },
        { tag: 0x0048021e, vr: "SL", value: [column] },
        { tag: 0x0048021f, vr: "SL", value: [row] },
      ),
      ...(path === undefined
        ? []
        : [sequence(0x00480207, { tag: 0x00480106, vr: "SH", value: path })]),
    ]),
  };
}
