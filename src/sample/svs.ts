/**
 * Writes an SVS file as Aperio's software does: classic TIFF, little-endian, JPEG tiles with
 * shared tables, the thumbnail as second directory, label and macro last.
 *
 * TIFF 6.0 §2, §13 to §15 and §22; TIFF Technical Note 2 (JPEG in TIFF); the order of directories
 * and the text of their descriptions follow `CMU-1.svs` of OpenSlide's test data.
 */

import { Buffer } from "node:buffer";
import jpegTurbo from "@julusian/jpeg-turbo";
import type { Picture } from "../slide/slide.ts";

/** Tags, TIFF 6.0 appendix A. */
const TAG = {
  newSubfileType: 254,
  imageWidth: 256,
  imageLength: 257,
  bitsPerSample: 258,
  compression: 259,
  photometric: 262,
  imageDescription: 270,
  stripOffsets: 273,
  samplesPerPixel: 277,
  rowsPerStrip: 278,
  stripByteCounts: 279,
  planarConfiguration: 284,
  predictor: 317,
  tileWidth: 322,
  tileLength: 323,
  tileOffsets: 324,
  tileByteCounts: 325,
  jpegTables: 347,
  yCbCrSubSampling: 530,
} as const;

const COMPRESSION_LZW = 5;
const COMPRESSION_JPEG = 7;
const PHOTOMETRIC_RGB = 2;
const PHOTOMETRIC_YCBCR = 6;

/** A field's values: 16-bit, 32-bit, or bytes that are text or undefined. */
type Field =
  | { readonly tag: number; readonly short: readonly number[] }
  | { readonly tag: number; readonly long: readonly number[] }
  | { readonly tag: number; readonly ascii: string }
  | { readonly tag: number; readonly bytes: Uint8Array };

/** Appends pieces of a TIFF file, in memory. */
export class SvsWriter {
  readonly #pieces: Uint8Array[] = [];
  #sizeBytes = 0;
  /** Where the offset of the next directory is to be written: a piece and a byte in it. */
  #link: { piece: DataView; at: number };

  constructor() {
    const header = new Uint8Array(8);
    header.set([0x49, 0x49, 42, 0]);
    this.#append(header);
    this.#link = { piece: new DataView(header.buffer), at: 4 };
  }

  #append(piece: Uint8Array): number {
    // Offsets are even (TIFF 6.0 §2).
    if (this.#sizeBytes % 2 === 1) {
      this.#pieces.push(new Uint8Array(1));
      this.#sizeBytes++;
    }
    const offset = this.#sizeBytes;
    this.#pieces.push(piece);
    this.#sizeBytes += piece.byteLength;
    return offset;
  }

  /** Adds the directory of a tiled level, whose tiles `tiles` has encoded row by row. */
  addTiled(level: JpegTiles, description: string): void {
    const { widthPx, heightPx, tilePx } = level;
    if (level.parts.length !== Math.ceil(widthPx / tilePx) * Math.ceil(heightPx / tilePx)) {
      throw new RangeError(
        `Cannot write a level of ${widthPx} × ${heightPx} px with ${level.parts.length} tiles`,
      );
    }
    this.#addDirectory([
      { tag: TAG.newSubfileType, long: [0] },
      ...jpegFields(level, description),
      { tag: TAG.tileWidth, short: [tilePx] },
      { tag: TAG.tileLength, short: [tilePx] },
      { tag: TAG.tileOffsets, long: level.parts.map((part) => this.#append(part)) },
      { tag: TAG.tileByteCounts, long: level.parts.map((part) => part.byteLength) },
    ]);
  }

  /** Adds a picture in JPEG strips of 16 rows; `subfileType` is 0 for Aperio's thumbnail, 9 for its macro. */
  addStrips(picture: Picture, quality: number, subfileType: number, description: string): void {
    const { widthPx, heightPx, data } = picture;
    const strips = new JpegTiles(widthPx, heightPx, 16, quality);
    for (let top = 0; top < heightPx; top += 16) {
      const rows = Math.min(16, heightPx - top);
      strips.encode(data.subarray(top * widthPx * 3, (top + rows) * widthPx * 3), widthPx, rows);
    }
    this.#addDirectory([
      { tag: TAG.newSubfileType, long: [subfileType] },
      ...jpegFields(strips, description),
      { tag: TAG.rowsPerStrip, short: [16] },
      { tag: TAG.stripOffsets, long: strips.parts.map((part) => this.#append(part)) },
      { tag: TAG.stripByteCounts, long: strips.parts.map((part) => part.byteLength) },
    ]);
  }

  /** Adds a picture in one LZW strip with horizontal differencing, as Aperio stores labels. */
  addLzw(picture: Picture, subfileType: number, description: string): void {
    const { widthPx, heightPx, data } = picture;
    const differences = new Uint8Array(data.length);
    for (let y = 0; y < heightPx; y++) {
      const row = y * widthPx * 3;
      for (let k = 0; k < widthPx * 3; k++) {
        differences[row + k] = data[row + k]! - (k < 3 ? 0 : data[row + k - 3]!);
      }
    }
    const strip = lzw(differences);
    this.#addDirectory([
      { tag: TAG.newSubfileType, long: [subfileType] },
      { tag: TAG.imageWidth, short: [widthPx] },
      { tag: TAG.imageLength, short: [heightPx] },
      { tag: TAG.bitsPerSample, short: [8, 8, 8] },
      { tag: TAG.compression, short: [COMPRESSION_LZW] },
      { tag: TAG.photometric, short: [PHOTOMETRIC_RGB] },
      { tag: TAG.imageDescription, ascii: description },
      { tag: TAG.samplesPerPixel, short: [3] },
      { tag: TAG.planarConfiguration, short: [1] },
      { tag: TAG.predictor, short: [2] },
      { tag: TAG.rowsPerStrip, short: [heightPx] },
      { tag: TAG.stripOffsets, long: [this.#append(strip)] },
      { tag: TAG.stripByteCounts, long: [strip.byteLength] },
    ]);
  }

  #addDirectory(fields: Field[]): void {
    fields.sort((a, b) => a.tag - b.tag);
    const directory = new DataView(new ArrayBuffer(2 + fields.length * 12 + 4));
    directory.setUint16(0, fields.length, true);
    fields.forEach((field, k) => {
      const { type, count, bytes } = encodeField(field);
      const at = 2 + k * 12;
      directory.setUint16(at, field.tag, true);
      directory.setUint16(at + 2, type, true);
      directory.setUint32(at + 4, count, true);
      if (bytes.byteLength <= 4) new Uint8Array(directory.buffer).set(bytes, at + 8);
      else directory.setUint32(at + 8, this.#append(bytes), true);
    });
    const offset = this.#append(new Uint8Array(directory.buffer));
    this.#link.piece.setUint32(this.#link.at, offset, true);
    this.#link = { piece: directory, at: directory.byteLength - 4 };
  }

  /** The file, whole. */
  bytes(): Uint8Array<ArrayBuffer> {
    const file = new Uint8Array(this.#sizeBytes);
    let at = 0;
    for (const piece of this.#pieces) {
      file.set(piece, at);
      at += piece.byteLength;
    }
    return file;
  }
}

function encodeField(field: Field): { type: number; count: number; bytes: Uint8Array } {
  if ("ascii" in field) {
    const bytes = new TextEncoder().encode(field.ascii + "\0");
    return { type: 2, count: bytes.length, bytes };
  }
  if ("bytes" in field) return { type: 7, count: field.bytes.length, bytes: field.bytes };
  const [values, width, type] = "short" in field ? [field.short, 2, 3] : [field.long, 4, 4];
  const view = new DataView(new ArrayBuffer(values.length * width));
  values.forEach((value, k) =>
    width === 2 ? view.setUint16(k * 2, value, true) : view.setUint32(k * 4, value, true)
  );
  return { type, count: values.length, bytes: new Uint8Array(view.buffer) };
}

function jpegFields(picture: JpegTiles, description: string): Field[] {
  return [
    { tag: TAG.imageWidth, short: [picture.widthPx] },
    { tag: TAG.imageLength, short: [picture.heightPx] },
    { tag: TAG.bitsPerSample, short: [8, 8, 8] },
    { tag: TAG.compression, short: [COMPRESSION_JPEG] },
    { tag: TAG.photometric, short: [PHOTOMETRIC_YCBCR] },
    { tag: TAG.imageDescription, ascii: description },
    { tag: TAG.samplesPerPixel, short: [3] },
    { tag: TAG.planarConfiguration, short: [1] },
    { tag: TAG.jpegTables, bytes: picture.tables },
    { tag: TAG.yCbCrSubSampling, short: [2, 2] },
  ];
}

/** The tiles or strips of one picture as JPEG, YCbCr 4:2:0, with the tables that they share. */
export class JpegTiles {
  /** Abbreviated streams of image data, in the order of encoding. */
  readonly parts: Uint8Array[] = [];
  #tables = new Uint8Array(0);

  /** @param tilePx side of a tile, a multiple of 16. */
  constructor(
    readonly widthPx: number,
    readonly heightPx: number,
    readonly tilePx: number,
    readonly quality: number,
  ) {}

  /** The abbreviated stream of tables: quantisation and Huffman. */
  get tables(): Uint8Array {
    return this.#tables;
  }

  /** Encodes RGB `[heightPx, widthPx, 3]` as the next part. */
  encode(rgb: Uint8Array | Uint8ClampedArray, widthPx: number, heightPx: number): void {
    const jpeg = jpegTurbo.compressSync(Buffer.from(rgb.buffer, rgb.byteOffset, rgb.byteLength), {
      format: jpegTurbo.FORMAT_RGB,
      width: widthPx,
      height: heightPx,
      subsampling: jpegTurbo.SAMP_420,
      quality: this.quality,
    });
    const { tables, image } = splitJpeg(jpeg);
    this.#tables = tables;
    this.parts.push(image);
  }

  /**
   * Encodes one row of tiles from `rows` rows of the picture, RGB `[rows, widthPx, 3]`; beyond its
   * right and lower edge a tile repeats the last pixel, which costs a JPEG least.
   */
  encodeRow(rgb: Uint8Array | Uint8ClampedArray, rows: number): void {
    const { widthPx, tilePx } = this;
    const tile = new Uint8Array(tilePx * tilePx * 3);
    for (let left = 0; left < widthPx; left += tilePx) {
      const columns = Math.min(tilePx, widthPx - left);
      for (let y = 0; y < tilePx; y++) {
        const from = (Math.min(y, rows - 1) * widthPx + left) * 3;
        const to = y * tilePx * 3;
        tile.set(rgb.subarray(from, from + columns * 3), to);
        for (let k = to + columns * 3; k < to + tilePx * 3; k++) tile[k] = tile[k - 3]!;
      }
      this.encode(tile, tilePx, tilePx);
    }
  }
}

/** Parts a JPEG stream into its tables and an image that refers to them (ITU-T T.81 B.5). */
function splitJpeg(jpeg: Uint8Array): {
  tables: Uint8Array<ArrayBuffer>;
  image: Uint8Array<ArrayBuffer>;
} {
  const tables: Uint8Array[] = [Uint8Array.of(0xff, 0xd8)];
  const image: Uint8Array[] = [Uint8Array.of(0xff, 0xd8)];
  let at = 2;
  for (;;) {
    const marker = jpeg[at + 1]!;
    if (marker === 0xda) break; // SOS: the scan goes on to the end.
    const end = at + 2 + (jpeg[at + 2]! << 8 | jpeg[at + 3]!);
    const segment = jpeg.subarray(at, end);
    if (marker === 0xdb || marker === 0xc4) tables.push(segment); // DQT, DHT
    else if (marker !== 0xe0) image.push(segment); // All but JFIF's APP0, which TIFF makes needless.
    at = end;
  }
  image.push(jpeg.subarray(at));
  tables.push(Uint8Array.of(0xff, 0xd9));
  return { tables: join(tables), image: join(image) };
}

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.byteLength;
  }
  return joined;
}

/** Compresses bytes by LZW with TIFF's order of bits and its early change of width (TIFF 6.0 §13). */
export function lzw(data: Uint8Array): Uint8Array {
  const CLEAR = 256;
  const END = 257;
  const out = new Uint8Array(data.length * 2 + 16);
  let size = 0;
  let bits = 0;
  let held = 0;
  let width = 9;
  const put = (code: number) => {
    held = (held << width) | code;
    bits += width;
    while (bits >= 8) {
      bits -= 8;
      out[size++] = held >> bits;
    }
    held &= (1 << bits) - 1;
  };
  /** Code of a known string, by the code of all but its last byte and that byte. */
  const codes = new Map<number, number>();
  let next = 258;
  put(CLEAR);
  let prefix = -1;
  for (const byte of data) {
    if (prefix < 0) {
      prefix = byte;
      continue;
    }
    const key = prefix << 8 | byte;
    const known = codes.get(key);
    if (known !== undefined) {
      prefix = known;
      continue;
    }
    put(prefix);
    codes.set(key, next++);
    // The reader is one code behind, and widens one early: at 511, 1023, 2047.
    if (next === 4095) {
      put(CLEAR);
      codes.clear();
      next = 258;
      width = 9;
    } else if (next === (1 << width)) {
      width++;
    }
    prefix = byte;
  }
  if (prefix >= 0) put(prefix);
  put(END);
  if (bits > 0) out[size++] = held << (8 - bits);
  return out.subarray(0, size);
}
