/**
 * Small TIFFs for tests (TIFF 6.0 §2, BigTIFF): any fields, any bytes for tiles, either byte order;
 * and where each field lies, so that a test can damage it.
 */

import { deflateSync } from "node:zlib";
import sharp from "sharp";

export const BYTE = 1, ASCII = 2, SHORT = 3, LONG = 4, RATIONAL = 5, UNDEFINED = 7, SLONG = 9;
export const FLOAT = 11, DOUBLE = 12, LONG8 = 16;

type Write = (view: DataView, at: number, value: number, littleEndian: boolean) => void;
const u8: Write = (view, at, value) => view.setUint8(at, value);
const u32: Write = (view, at, value, little) => view.setUint32(at, value, little);

/** Bytes a number and how to write one; a RATIONAL is two numbers. */
const TYPES: Readonly<Record<number, readonly [size: number, write: Write]>> = {
  [BYTE]: [1, u8],
  [ASCII]: [1, u8],
  [SHORT]: [2, (view, at, value, little) => view.setUint16(at, value, little)],
  [LONG]: [4, u32],
  [RATIONAL]: [4, u32],
  [UNDEFINED]: [1, u8],
  [SLONG]: [4, (view, at, value, little) => view.setInt32(at, value, little)],
  [FLOAT]: [4, (view, at, value, little) => view.setFloat32(at, value, little)],
  [DOUBLE]: [8, (view, at, value, little) => view.setFloat64(at, value, little)],
  [LONG8]: [8, (view, at, value, little) => view.setBigUint64(at, BigInt(value), little)],
};

/** A field's numbers; a RATIONAL is numerator and denominator. */
export interface Field {
  readonly tag: number;
  readonly type: number;
  readonly values: ArrayLike<number>;
}

export function ascii(tag: number, text: string): Field {
  return { tag, type: ASCII, values: new TextEncoder().encode(`${text}\0`) };
}

/** One directory: tiled where it has a tile size, else in strips. */
export interface Image {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tilePx?: readonly [width: number, height: number];
  readonly rowsPerStrip?: number;
  /** 3 where left out. */
  readonly samples?: number;
  /** 8 where left out. */
  readonly bits?: number;
  /** Tag 259; 1, none, where left out. */
  readonly compression?: number;
  /** Tag 262; 2, RGB, where left out. */
  readonly photometric?: number;
  /** Compressed, row by row. */
  readonly tiles: readonly Uint8Array[];
  /** More fields, or others instead of those that follow from the above. */
  readonly fields?: readonly Field[];
  /** Tags to leave out. */
  readonly without?: readonly number[];
}

export interface Layout {
  readonly littleEndian?: boolean;
  readonly bigTiff?: boolean;
}

/** A change to one entry of a directory; `value` overwrites the value or offset in it. */
export interface Damage {
  readonly tag?: number;
  readonly type?: number;
  readonly count?: number;
  readonly value?: number;
}

export class Tiff {
  readonly #view: DataView;
  constructor(
    readonly bytes: Uint8Array<ArrayBuffer>,
    readonly layout: Layout,
    /** Where each directory begins, and where it says where the next one does. */
    readonly directoryAt: readonly number[],
    readonly nextAt: readonly number[],
    readonly entryAt: readonly ReadonlyMap<number, number>[],
    /** Where each directory's tiles lie. */
    readonly tilesAt: readonly (readonly number[])[],
  ) {
    this.#view = new DataView(bytes.buffer);
  }

  /** A copy with one entry changed. */
  damaged(directory: number, tag: number, damage: Damage): Uint8Array<ArrayBuffer> {
    const { littleEndian = true, bigTiff = false } = this.layout;
    const at = this.entryAt[directory]?.get(tag);
    if (at === undefined) throw new RangeError(`There is no tag ${tag}`);
    const copy = this.bytes.slice();
    const view = new DataView(copy.buffer);
    const type = damage.type ?? this.#view.getUint16(at + 2, littleEndian);
    const valueAt = at + (bigTiff ? 12 : 8);
    if (damage.tag !== undefined) view.setUint16(at, damage.tag, littleEndian);
    view.setUint16(at + 2, type, littleEndian);
    if (damage.count !== undefined) writeWide(view, at + 4, damage.count, this.layout);
    if (damage.value !== undefined) {
      const count = Number(
        bigTiff ? view.getBigUint64(at + 4, littleEndian) : view.getUint32(at + 4, littleEndian),
      );
      const [size, write] = TYPES[type] ?? TYPES[LONG]!;
      if (size * count <= (bigTiff ? 8 : 4)) write(view, valueAt, damage.value, littleEndian);
      else writeWide(view, valueAt, damage.value, this.layout);
    }
    return copy;
  }

  /** A copy with a directory's link to the next one changed. */
  linked(directory: number, next: number): Uint8Array<ArrayBuffer> {
    const copy = this.bytes.slice();
    writeWide(new DataView(copy.buffer), this.nextAt[directory]!, next, this.layout);
    return copy;
  }

  /** A copy with one byte of a tile changed. */
  withTileByte(directory: number, tile: number, at: number, byte: number): Uint8Array<ArrayBuffer> {
    const copy = this.bytes.slice();
    copy[this.tilesAt[directory]![tile]! + at] = byte;
    return copy;
  }
}

function writeWide(
  view: DataView,
  at: number,
  value: number,
  { littleEndian = true, bigTiff = false }: Layout,
): void {
  if (bigTiff) view.setBigUint64(at, BigInt(value), littleEndian);
  else view.setUint32(at, value, littleEndian);
}

/** Header, then of each image the tiles, the values that do not fit, and the directory. */
export function buildTiff(images: readonly Image[], layout: Layout = {}): Tiff {
  const { littleEndian = true, bigTiff = false } = layout;
  const chunks: [at: number, bytes: Uint8Array][] = [];
  let end = bigTiff ? 16 : 8;
  const append = (bytes: Uint8Array): number => {
    const at = end;
    chunks.push([at, bytes]);
    end = at + bytes.length + bytes.length % 2; // Offsets are even (§2).
    return at;
  };
  const header = new Uint8Array(end);
  chunks.push([0, header]);
  const headerView = new DataView(header.buffer);
  headerView.setUint16(0, littleEndian ? 0x4949 : 0x4d4d);
  headerView.setUint16(2, bigTiff ? 43 : 42, littleEndian);
  if (bigTiff) headerView.setUint16(4, 8, littleEndian);
  let link: [view: DataView, at: number] = [headerView, bigTiff ? 8 : 4];

  const directoryAt: number[] = [], nextAt: number[] = [], tilesAt: number[][] = [];
  const entryAt: Map<number, number>[] = [];
  const [countBytes, entryBytes, wideBytes] = bigTiff ? [8, 20, 8] : [2, 12, 4];
  for (const image of images) {
    const offsets = image.tiles.map(append);
    const fields = fieldsOf(image, offsets);
    const directory = new Uint8Array(countBytes + entryBytes * fields.length + wideBytes);
    const view = new DataView(directory.buffer);
    if (bigTiff) view.setBigUint64(0, BigInt(fields.length), littleEndian);
    else view.setUint16(0, fields.length, littleEndian);
    for (const [i, { tag, type, values }] of fields.entries()) {
      const [size, write] = TYPES[type]!;
      const at = countBytes + entryBytes * i;
      view.setUint16(at, tag, littleEndian);
      view.setUint16(at + 2, type, littleEndian);
      writeWide(view, at + 4, values.length / (type === RATIONAL ? 2 : 1), layout);
      const inline = size * values.length <= wideBytes;
      const out = inline ? view : new DataView(new ArrayBuffer(size * values.length));
      const valueAt = at + entryBytes - wideBytes;
      for (let v = 0; v < values.length; v++) {
        write(out, (inline ? valueAt : 0) + size * v, values[v]!, littleEndian);
      }
      if (!inline) writeWide(view, valueAt, append(new Uint8Array(out.buffer)), layout);
    }
    const start = append(directory);
    writeWide(...link, start, layout);
    link = [view, directory.length - wideBytes];
    directoryAt.push(start);
    nextAt.push(start + directory.length - wideBytes);
    entryAt.push(new Map(fields.map(({ tag }, i) => [tag, start + countBytes + entryBytes * i])));
    tilesAt.push(offsets);
  }
  const bytes = new Uint8Array(end);
  for (const [at, chunk] of chunks) bytes.set(chunk, at);
  return new Tiff(bytes, layout, directoryAt, nextAt, entryAt, tilesAt);
}

function writeField(fields: Map<number, Field>, tag: number, type: number, ...values: number[]) {
  fields.set(tag, { tag, type, values });
}

function fieldsOf(image: Image, offsets: readonly number[]): Field[] {
  const { widthPx, heightPx, tilePx, samples = 3, bits = 8 } = image;
  const counts = image.tiles.map(({ length }) => length);
  const fields = new Map<number, Field>();
  writeField(fields, 256, LONG, widthPx);
  writeField(fields, 257, LONG, heightPx);
  writeField(fields, 258, SHORT, ...Array<number>(samples).fill(bits));
  writeField(fields, 259, SHORT, image.compression ?? 1);
  writeField(fields, 262, SHORT, image.photometric ?? 2);
  writeField(fields, 277, SHORT, samples);
  if (tilePx !== undefined) {
    writeField(fields, 322, LONG, tilePx[0]);
    writeField(fields, 323, LONG, tilePx[1]);
    writeField(fields, 324, LONG, ...offsets);
    writeField(fields, 325, LONG, ...counts);
  } else {
    writeField(fields, 273, LONG, ...offsets);
    writeField(fields, 278, LONG, image.rowsPerStrip ?? heightPx);
    writeField(fields, 279, LONG, ...counts);
  }
  for (const field of image.fields ?? []) fields.set(field.tag, field);
  for (const tag of image.without ?? []) fields.delete(tag);
  return [...fields.values()].sort((a, b) => a.tag - b.tag);
}

/** Pixels `[heightPx, widthPx, samples]`, bytes, no two near ones alike. */
export function pattern(widthPx: number, heightPx: number, samples = 3, seed = 0): Uint8Array {
  return Uint8Array.from(
    { length: widthPx * heightPx * samples },
    (_, i) => (i * 31 + (i >> 5) * 7 + seed * 101) & 255,
  );
}

/** Cuts a picture into tiles, row by row, those at the edges padded with zeros. */
export function cutTiles(
  pixels: Uint8Array,
  widthPx: number,
  heightPx: number,
  [tileWidth, tileHeight]: readonly [number, number],
): Uint8Array[] {
  const pixelBytes = pixels.length / widthPx / heightPx;
  const tiles: Uint8Array[] = [];
  for (let top = 0; top < heightPx; top += tileHeight) {
    for (let left = 0; left < widthPx; left += tileWidth) {
      const tile = new Uint8Array(tileWidth * tileHeight * pixelBytes);
      const columns = Math.min(tileWidth, widthPx - left);
      for (let y = 0; y < Math.min(tileHeight, heightPx - top); y++) {
        const from = ((top + y) * widthPx + left) * pixelBytes;
        tile.set(pixels.subarray(from, from + columns * pixelBytes), y * tileWidth * pixelBytes);
      }
      tiles.push(tile);
    }
  }
  return tiles;
}

export function deflate(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(deflateSync(bytes));
}

/** LZW (TIFF 6.0 §13) without any string: each byte is a code, and the table is cleared before codes widen. */
export function lzw(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const CLEAR = 256, END = 257, BITS = 9;
  const codes: number[] = [];
  bytes.forEach((byte, i) => {
    if (i % 200 === 0) codes.push(CLEAR);
    codes.push(byte);
  });
  codes.push(END);
  const out = new Uint8Array(Math.ceil(codes.length * BITS / 8));
  codes.forEach((code, i) => {
    for (let bit = 0; bit < BITS; bit++) {
      const at = i * BITS + bit;
      if (code & (1 << (BITS - 1 - bit))) out[at >> 3]! |= 0x80 >> (at & 7);
    }
  });
  return out;
}

/** A JFIF stream without subsampling: YCbCr of RGB, or grey. */
export async function jpeg(
  pixels: Uint8Array,
  widthPx: number,
  heightPx: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const channels = pixels.length / widthPx / heightPx as 1 | 3;
  const picture = sharp(pixels, { raw: { width: widthPx, height: heightPx, channels } });
  if (channels === 1) picture.toColourspace("b-w");
  return new Uint8Array(
    await picture.jpeg({ quality: 95, chromaSubsampling: "4:4:4" }).toBuffer(),
  );
}

/** RGB pixels as one tiled image, 100 × 70 in tiles of 32 × 32 unless said; 12 tiles. */
export function tiledImage(changes: Partial<Image> & { readonly seed?: number } = {}): Image {
  const { widthPx = 100, heightPx = 70, tilePx = [32, 32] } = changes;
  const pixels = pattern(widthPx, heightPx, 3, changes.seed);
  return {
    widthPx,
    heightPx,
    tilePx,
    tiles: cutTiles(pixels, widthPx, heightPx, tilePx),
    ...changes,
  };
}

/** Levels and a label in every compression: 100 × 70 none, 50 × 35 JPEG, 25 × 17 LZW; deflate. */
export async function mixedImages(): Promise<Image[]> {
  const level1 = tiledImage({ widthPx: 50, heightPx: 35, seed: 1 });
  const level2 = tiledImage({ widthPx: 25, heightPx: 17, seed: 2 });
  return [
    tiledImage({ fields: [ascii(270, "Aperio|MPP = 0.5")] }),
    {
      ...level1,
      compression: 7,
      photometric: 6,
      tiles: await Promise.all(level1.tiles.map((tile) => jpeg(tile, 32, 32))),
    },
    { ...level2, compression: 5, tiles: level2.tiles.map(lzw) },
    {
      widthPx: 20,
      heightPx: 10,
      compression: 8,
      tiles: [deflate(pattern(20, 10))],
      fields: [{ tag: 254, type: SHORT, values: [1] }],
    },
  ];
}
