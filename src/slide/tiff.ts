/**
 * TIFF and BigTIFF: geotiff's directories, checked, as levels of raw tiles.
 *
 * TIFF 6.0 (Adobe, 1992), its Technical Note 2 on JPEG, and the BigTIFF design. geotiff parses;
 * what it is handed is bounded first, since it believes every count and offset in a file.
 */

import type { GeoTIFF as GeoTiffFile } from "geotiff";
import { SlideFormatError, UnsupportedError } from "../errors.ts";
import { formatDouble } from "./properties.ts";
import { sampleBytes } from "./samples.ts";
import type { Compression, RawTile } from "./slide.ts";
import type { ByteRange, Source } from "./source.ts";

/** A field's value: text, or numbers (a RATIONAL is two of them). */
export type Field = string | number | ArrayLike<number>;

/** One image of the file, tiled or in strips; a strip is a tile as wide as the image. */
export interface TiffDirectory {
  /** Place in the file's chain of directories. */
  readonly index: number;
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tiled: boolean;
  readonly tileWidthPx: number;
  readonly tileHeightPx: number;
  readonly columns: number;
  readonly rows: number;
  /** NewSubfileType (TIFF 6.0 §8), 0 where absent. */
  readonly subfileType: number;
  /** Text of an ASCII field without its final NUL; undefined where absent. */
  text(tag: number): string | undefined;
  /** First value of a numeric field; a RATIONAL is divided. */
  number(tag: number): number | undefined;
  /** All values of a numeric field, none where it is absent; a RATIONAL is two. */
  numbers(tag: number): ArrayLike<number>;
  /**
   * The ICC profile (tag 34675), read when it is asked for; undefined where it is absent or empty.
   * @throws {SourceError}
   */
  profile(): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /**
   * The directories that tag 330 names (Adobe PageMaker 6.0 TIFF Technical Notes, Note 1), read when
   * asked for.
   * @throws {SlideFormatError} where one breaks the rules; {SourceError}.
   */
  subDirectories(): Promise<TiffDirectory[]>;
  /**
   * The undecoded bytes of a tile; empty where its byte count is 0.
   * @throws {RangeError} where there is no such tile; {SlideFormatError} where its bytes lie outside
   *   the file; {UnsupportedError} where its pixels are of a kind that is not read.
   */
  readTile(column: number, row: number, signal?: AbortSignal): Promise<RawTile>;
  /** See TileGrid. */
  announce?(tiles: readonly { column: number; row: number }[], signal: AbortSignal): void;
}

/** Tags by number (TIFF 6.0 §8 and later, Technical Note 2). */
export const TAG = {
  NewSubfileType: 254,
  ImageWidth: 256,
  ImageLength: 257,
  BitsPerSample: 258,
  Compression: 259,
  PhotometricInterpretation: 262,
  FillOrder: 266,
  DocumentName: 269,
  ImageDescription: 270,
  Make: 271,
  Model: 272,
  StripOffsets: 273,
  SamplesPerPixel: 277,
  RowsPerStrip: 278,
  StripByteCounts: 279,
  XResolution: 282,
  YResolution: 283,
  PlanarConfiguration: 284,
  XPosition: 286,
  YPosition: 287,
  ResolutionUnit: 296,
  Software: 305,
  DateTime: 306,
  Artist: 315,
  HostComputer: 316,
  Predictor: 317,
  ColorMap: 320,
  TileWidth: 322,
  TileLength: 323,
  TileOffsets: 324,
  TileByteCounts: 325,
  SubIFDs: 330,
  ExtraSamples: 338,
  SampleFormat: 339,
  JPEGTables: 347,
  YCbCrCoefficients: 529,
  YCbCrSubSampling: 530,
  ReferenceBlackWhite: 532,
  Copyright: 33432,
  ICCProfile: 34675,
} as const;

const COMPRESSIONS: Readonly<Record<number, Compression>> = {
  1: "none",
  5: "lzw",
  7: "jpeg",
  8: "deflate",
  32773: "packbits",
  32946: "deflate",
  33003: "jpeg2000", // Aperio's, YCbCr.
  33005: "jpeg2000", // Aperio's, RGB.
  34712: "jpeg2000",
  50000: "zstd",
  50001: "webp",
};

/** Names for refusing; tag 259's registered values. */
const OTHER_COMPRESSIONS: Readonly<Record<number, string>> = {
  2: "CCITT RLE",
  3: "CCITT Group 3",
  4: "CCITT Group 4",
  6: "old JPEG",
  34925: "LZMA",
};

/** More than any scanner writes: a chain longer than this is a trap. */
const MAX_DIRECTORIES = 4096;
const MAX_ENTRIES = 4096;
/** Bytes of all directories with their values: a scanner's come to some megabytes. */
const MAX_DIRECTORY_BYTES = 2 ** 28;
/** Bytes of one decoded tile or strip; a strip of a large plain TIFF may hold all of it. */
const MAX_TILE_BYTES = 2 ** 28;
/** An uncompressed picture in one strip is read in pieces of about so much. */
const VIRTUAL_STRIP_BYTES = 2 ** 18;
/** Bytes that a tile may take beyond twice its decoded size, such as for a JPEG's profile. */
const TILE_SLACK_BYTES = 2 ** 20;

/** Bytes per value, by field type (TIFF 6.0 §2; 13 is IFD, 16 to 18 are BigTIFF's). */
export const FIELD_BYTES: Readonly<Record<number, number>> = {
  1: 1,
  2: 1,
  3: 2,
  4: 4,
  5: 8,
  6: 1,
  7: 1,
  8: 2,
  9: 4,
  10: 8,
  11: 4,
  12: 8,
  13: 4,
  16: 8,
  17: 8,
  18: 8,
};

/**
 * Reads every directory of a TIFF.
 * @returns undefined where the source does not begin as a TIFF.
 * @throws {SlideFormatError} where it does and then breaks the rules; {SourceError} where it cannot be read.
 */
export async function readTiff(source: Source): Promise<TiffDirectory[] | undefined> {
  const check = await checkDirectories(source);
  if (check === undefined) return undefined;
  // Imported when a TIFF is met: it takes 60 ms, which `--help` and other formats need not pay.
  const { GeoTIFF } = await import("geotiff");
  let file: GeoTiffFile;
  const directories: TiffDirectory[] = [];
  /** The directories at offsets that directory `index` names. */
  const below = (index: number) => async (offsets: ArrayLike<number>) => {
    const subDirectories: TiffDirectory[] = [];
    try {
      for (const offset of Array.from(offsets, Number)) {
        await check.more(offset);
        const fields = fieldsOf(await file.parser.parseFileDirectoryAt(offset));
        subDirectories.push(
          makeDirectory(source, index, fields, file.littleEndian, check.profiles.get(offset)),
        );
      }
    } catch (cause) {
      throw wrap(source, cause);
    }
    return subDirectories;
  };
  try {
    file = await GeoTIFF.fromSource(new GeoTiffSource(source, check.hidden) as never);
    // Lazy arrays are read as little-endian whatever the file says.
    file.parser.eager = true;
    for (const [index, offset] of check.offsets.entries()) {
      const { fileDirectory } = await file.getImage(index);
      directories.push(
        new Directory(
          source,
          index,
          fieldsOf(fileDirectory),
          file.littleEndian,
          check.profiles.get(offset),
          below(index),
        ),
      );
    }
  } catch (cause) {
    throw wrap(source, cause);
  }
  return directories;
}

function fieldsOf(directory: { getValue(tag: never): unknown }) {
  return (tag: number) => directory.getValue(tag as never) as Field | undefined;
}

/**
 * A directory whose fields are read; it has none below it.
 * @param profile where its ICC profile lies, if that is not among the fields.
 */
export function makeDirectory(
  source: Source,
  index: number,
  fields: (tag: number) => Field | undefined,
  littleEndian: boolean,
  profile: ByteRange | undefined,
): TiffDirectory {
  return new Directory(source, index, fields, littleEndian, profile, () => Promise.resolve([]));
}

function wrap(source: Source, cause: unknown): Error {
  if (cause instanceof ReadFailure) return cause.cause as Error;
  if (
    cause instanceof SlideFormatError || cause instanceof UnsupportedError ||
    !(cause instanceof RangeError || cause instanceof TypeError || cause instanceof Error) ||
    cause.name === "SourceError" || cause.name === "AbortError"
  ) return cause as Error;
  return new SlideFormatError(
    `Cannot read the TIFF directories of "${source.location}": ${cause.message}`,
    { path: source.location, format: "tiff" },
    { cause },
  );
}

/** Carries what a source threw through geotiff, so that it is not taken for the file's fault. */
class ReadFailure extends Error {
  constructor(cause: unknown) {
    super("Cannot read the source", { cause });
  }
}

/**
 * geotiff's view of a Source (its BaseSource), in which some bytes are zero: it reads every value of
 * every directory, and what has no values is not read.
 */
class GeoTiffSource {
  constructor(readonly source: Source, readonly hidden: readonly ByteRange[]) {}
  get fileSize(): number {
    return this.source.sizeBytes;
  }
  fetch(slices: { offset: number; length: number }[], signal?: AbortSignal) {
    return Promise.all(
      slices.map(async ({ offset, length }) => {
        try {
          const bytes = (await this.source.read(offset, length, signal)).slice();
          for (const { offsetBytes, lengthBytes } of this.hidden) {
            const from = offsetBytes - offset;
            if (from + lengthBytes > 0) bytes.fill(0, Math.max(0, from), from + lengthBytes);
          }
          return bytes.buffer;
        } catch (cause) {
          throw new ReadFailure(cause);
        }
      }),
    );
  }
  async close(): Promise<void> {}
}

interface CheckedChain {
  /** Where the directories of the chain begin. */
  readonly offsets: readonly number[];
  /** Where the ICC profiles of directories lie, by their beginnings; a scanner repeats its own in each. */
  readonly profiles: ReadonlyMap<number, ByteRange>;
  /** The counts of these fields. */
  readonly hidden: readonly ByteRange[];
  /** Checks a directory outside the chain. */
  more(offset: number): Promise<void>;
}

/**
 * Walks the chain of directories and checks that every value lies in the file, so that no count in
 * it can make a parser allocate more than the file holds.
 * @returns undefined where this is no TIFF.
 */
async function checkDirectories(source: Source): Promise<CheckedChain | undefined> {
  const { location, sizeBytes } = source;
  const head = view(await source.read(0, 16));
  if (head.byteLength < 8) return undefined;
  const order = head.getUint16(0);
  if (order !== 0x4949 && order !== 0x4d4d) return undefined;
  const little = order === 0x4949;
  const magic = head.getUint16(2, little);
  if (magic !== 42 && magic !== 43) return undefined;
  const big = magic === 43;
  const broken = (what: string, offsetBytes: number) =>
    new SlideFormatError(`Cannot read the TIFF "${location}": ${what}`, {
      path: location,
      format: "tiff",
      offsetBytes,
    });
  if (big && (head.byteLength < 16 || head.getUint16(4, little) !== 8)) {
    throw broken("its BigTIFF header is cut or has offsets that are not of 8 bytes", 4);
  }
  const wide = (data: DataView, at: number) =>
    big ? Number(data.getBigUint64(at, little)) : data.getUint32(at, little);
  const [countBytes, entryBytes, offsetSize] = big ? [8, 20, 8] : [2, 12, 4];

  // What directories hold may overlap, so that a small file could claim its size a million times.
  const maxClaimed = Math.min(MAX_DIRECTORY_BYTES, 2 * sizeBytes + 2 ** 16);
  let claimed = 0;
  const claim = (bytes: number, offset: number) => {
    claimed += bytes;
    if (claimed > maxClaimed) {
      throw broken(`its directories claim more than ${maxClaimed} bytes`, offset);
    }
  };

  const profiles = new Map<number, ByteRange>();
  const hidden: ByteRange[] = [];
  const seen = new Set<number>();
  let offset = wide(head, big ? 8 : 4);
  if (offset === 0) throw broken("it has no directory", big ? 8 : 4);
  while (offset !== 0) offset = await checkOne(offset);
  return {
    offsets: [...seen],
    profiles,
    hidden,
    async more(offset) {
      await checkOne(offset);
    },
  };

  /** @returns where the next one of the chain begins. */
  async function checkOne(offset: number): Promise<number> {
    if (seen.has(offset)) {
      throw broken(`directory ${seen.size} begins at ${offset}, as an earlier one does`, offset);
    }
    if (seen.size === MAX_DIRECTORIES) {
      throw broken(`it has more than ${MAX_DIRECTORIES} directories`, offset);
    }
    if (offset + countBytes > sizeBytes) {
      throw broken(
        `directory ${seen.size} begins at ${offset}, past the file's end at ${sizeBytes}`,
        offset,
      );
    }
    const countView = view(await source.read(offset, countBytes));
    const entries = big
      ? Number(countView.getBigUint64(0, little))
      : countView.getUint16(0, little);
    if (entries > MAX_ENTRIES) {
      throw broken(`directory ${seen.size} claims ${entries} entries`, offset);
    }
    const bytes = entries * entryBytes + offsetSize;
    claim(bytes, offset);
    const body = view(await source.read(offset + countBytes, bytes));
    if (body.byteLength < bytes) {
      throw broken(`directory ${seen.size} at ${offset} is cut by the file's end`, offset);
    }
    const values: ByteRange[] = [];
    for (let i = 0; i < entries; i++) {
      const at = i * entryBytes;
      const tag = body.getUint16(at, little);
      const type = body.getUint16(at + 2, little);
      const size = FIELD_BYTES[type];
      // §2 would have it skipped, which geotiff cannot; no slide with one is known.
      if (size === undefined) {
        throw broken(
          `tag ${tag} of directory ${seen.size} has the unknown type ${type}`,
          offset + countBytes + at,
        );
      }
      const length = size * wide(body, at + 4);
      const inline = length <= offsetSize;
      if (!inline) {
        const where = wide(body, at + entryBytes - offsetSize);
        if (where + length > sizeBytes) {
          throw broken(
            `tag ${tag} of directory ${seen.size} claims ${length} bytes at ${where}, ` +
              `past the file's end at ${sizeBytes}`,
            offset + countBytes + at,
          );
        }
        claim(length, offset + countBytes + at);
        const range = { offsetBytes: where, lengthBytes: length };
        if (tag === TAG.ICCProfile) {
          profiles.set(offset, range);
          hidden.push({ offsetBytes: offset + countBytes + at + 4, lengthBytes: offsetSize });
        }
        // Of the profiles the first is the slide's, mostly.
        if (tag !== TAG.ICCProfile || seen.size === 0) values.push(range);
      }
    }
    source.prefetch?.(values);
    seen.add(offset);
    return wide(body, entries * entryBytes);
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** What all tiles of a directory have in common. */
type TileLayout = Omit<RawTile, "data" | "planeBytes" | "widthPx" | "heightPx" | "littleEndian">;

class Directory implements TiffDirectory {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tiled: boolean;
  readonly tileWidthPx: number;
  readonly tileHeightPx: number;
  readonly columns: number;
  readonly rows: number;
  readonly subfileType: number;
  #layout: TileLayout | undefined;
  /** Samples that lie in tiles of their own, one set after the other; 1 where none do. */
  readonly #planes: number;
  readonly #offsets: ArrayLike<number>;
  readonly #byteCounts: ArrayLike<number>;
  #below: Promise<TiffDirectory[]> | undefined;
  readonly announce: TiffDirectory["announce"];

  constructor(
    readonly source: Source,
    readonly index: number,
    readonly fields: (tag: number) => Field | undefined,
    readonly littleEndian: boolean,
    readonly profileAt: ByteRange | undefined,
    readonly below: (offsets: ArrayLike<number>) => Promise<TiffDirectory[]>,
  ) {
    this.announce = source.prefetch && ((tiles, signal) => this.#prefetch(tiles, signal));
    this.widthPx = this.#size("ImageWidth");
    this.heightPx = this.#size("ImageLength");
    this.tiled = fields(TAG.TileWidth) !== undefined;
    if (this.tiled) {
      this.tileWidthPx = this.#size("TileWidth");
      this.tileHeightPx = this.#size("TileLength");
    } else {
      this.tileWidthPx = this.widthPx;
      // Absent, or 2³² − 1, means all rows in one strip.
      const perStrip = this.number(TAG.RowsPerStrip) ?? this.heightPx;
      if (!Number.isInteger(perStrip) || perStrip < 1) {
        throw this.#broken(`has RowsPerStrip ${perStrip}`);
      }
      this.tileHeightPx = Math.min(perStrip, this.heightPx);
    }
    this.#planes = this.number(TAG.PlanarConfiguration) === 2
      ? this.number(TAG.SamplesPerPixel) ?? 1
      : 1;
    this.columns = Math.ceil(this.widthPx / this.tileWidthPx);
    this.rows = Math.ceil(this.heightPx / this.tileHeightPx);
    this.subfileType = this.number(TAG.NewSubfileType) ?? 0;
    this.#offsets = this.#numbers(this.tiled ? "TileOffsets" : "StripOffsets");
    this.#byteCounts = this.#numbers(this.tiled ? "TileByteCounts" : "StripByteCounts");
    const tiles = this.columns * this.rows * this.#planes;
    const held = Math.min(this.#offsets.length, this.#byteCounts.length);
    if (held < tiles) {
      throw this.#broken(
        `is ${this.widthPx} × ${this.heightPx} pixels in ${tiles} ` +
          `${this.tiled ? "tiles" : "strips"} and lists only ${held}`,
      );
    }
    // Many a writer puts all rows in one strip; where nothing compresses them, any part can be read.
    const offset = Number(this.#offsets[0]), length = Number(this.#byteCounts[0]);
    const rowBytes = this.widthPx * (this.number(TAG.SamplesPerPixel) ?? 1) *
      (this.number(TAG.BitsPerSample) ?? 1) / 8;
    const piece = Math.max(1, Math.floor(VIRTUAL_STRIP_BYTES / rowBytes));
    if (
      !this.tiled && this.rows === 1 && this.#planes === 1 && piece < this.heightPx &&
      (this.number(TAG.Compression) ?? 1) === 1 && Number.isInteger(rowBytes) &&
      this.number(TAG.PhotometricInterpretation) !== 6 && rowBytes > 0 &&
      length >= rowBytes * this.heightPx && offset + length <= this.source.sizeBytes
    ) {
      this.tileHeightPx = piece;
      this.rows = Math.ceil(this.heightPx / piece);
      const rowsOf = (row: number) => Math.min(piece, this.heightPx - row * piece);
      const all = Array.from({ length: this.rows }, (_, row) => row);
      this.#offsets = all.map((row) => offset + row * piece * rowBytes);
      this.#byteCounts = all.map((row) => rowsOf(row) * rowBytes);
    }
  }

  text(tag: number): string | undefined {
    const value = this.fields(tag);
    if (typeof value !== "string") return undefined;
    const end = value.indexOf("\0");
    return end < 0 ? value : value.slice(0, end);
  }

  number(tag: number): number | undefined {
    const value = this.fields(tag);
    if (typeof value === "number") return value;
    if (value === undefined || typeof value === "string") return undefined;
    const isRational = value.length === 2 && RATIONALS.has(tag);
    return isRational ? value[0]! / value[1]! : value[0];
  }

  numbers(tag: number): ArrayLike<number> {
    const value = this.fields(tag);
    if (value === undefined || typeof value === "string") return [];
    return typeof value === "number" ? [value] : value;
  }

  async subDirectories(): Promise<TiffDirectory[]> {
    return await (this.#below ??= this.below(this.numbers(TAG.SubIFDs)));
  }

  async profile(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (this.profileAt === undefined) return this.#bytes(TAG.ICCProfile);
    const { offsetBytes, lengthBytes } = this.profileAt;
    return await this.source.read(offsetBytes, lengthBytes);
  }

  /** The bytes of a field; undefined where it is absent, empty or text. */
  #bytes(tag: number): Uint8Array<ArrayBuffer> | undefined {
    const values = this.numbers(tag);
    return values.length === 0 ? undefined : Uint8Array.from(values);
  }

  async readTile(column: number, row: number, signal?: AbortSignal): Promise<RawTile> {
    if (
      !Number.isInteger(column) || !Number.isInteger(row) || column < 0 || row < 0 ||
      column >= this.columns || row >= this.rows
    ) {
      throw new RangeError(
        `Cannot read tile (${column}, ${row}) of ${this.columns} × ${this.rows}`,
      );
    }
    const layout = this.#layout ??= this.#readLayout();
    // The last strip holds the rows that are left, a tile at the edge is padded (TIFF 6.0 §15).
    const heightPx = this.tiled
      ? this.tileHeightPx
      : Math.min(this.tileHeightPx, this.heightPx - row * this.tileHeightPx);
    const tile = {
      widthPx: this.tileWidthPx,
      heightPx,
      littleEndian: this.littleEndian,
      ...layout,
    };
    const decodedBytes = sampleBytes(tile) / this.#planes;
    const ranges = Array.from({ length: this.#planes }, (_, plane) => {
      const at = (plane * this.rows + row) * this.columns + column;
      const offset = Number(this.#offsets[at]);
      const length = Number(this.#byteCounts[at]);
      const where = `has tile (${column}, ${row}) in ${length} bytes at ${offset}`;
      // Signed and fractional types are as good as any to a parser.
      if (
        !Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0
      ) {
        throw this.#broken(where);
      }
      if (offset + length > this.source.sizeBytes) {
        throw this.#broken(`${where}, past the file's end at ${this.source.sizeBytes}`, offset);
      }
      // Bounds what tiles in flight take, where they all claim the whole file.
      if (length > 2 * decodedBytes + TILE_SLACK_BYTES) {
        throw this.#broken(`${where}, too many for ${decodedBytes} bytes of pixels`, offset);
      }
      return { offset, length };
    });
    this.source.prefetch?.(
      ranges.map(({ offset, length }) => ({ offsetBytes: offset, lengthBytes: length })),
    );
    const read = await Promise.all(
      ranges.map(({ offset, length }) => this.source.read(offset, length, signal)),
    );
    const data = read.length === 1 ? read[0]! : concat(read);
    return {
      data: this.#reversesBits(layout.compression) ? reverseBits(data) : data,
      ...(read.length === 1 ? {} : { planeBytes: read.map(({ length }) => length) }),
      ...tile,
    };
  }

  #prefetch(tiles: readonly { column: number; row: number }[], signal: AbortSignal): void {
    const ranges: ByteRange[] = [];
    for (const { column, row } of tiles) {
      for (let plane = 0; plane < this.#planes; plane++) {
        const at = (plane * this.rows + row) * this.columns + column;
        const offsetBytes = Number(this.#offsets[at]), lengthBytes = Number(this.#byteCounts[at]);
        // Others are refused when they are read.
        const isRange = Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(lengthBytes) &&
          offsetBytes >= 0 && lengthBytes >= 0;
        if (isRange) ranges.push({ offsetBytes, lengthBytes });
      }
    }
    this.source.prefetch!(ranges, signal);
  }

  /** FillOrder 2: the first pixel is in the low bits (TIFF 6.0 §8). JPEG's bits are its own affair. */
  #reversesBits(compression: Compression): boolean {
    return this.number(TAG.FillOrder) === 2 && compression !== "jpeg" &&
      compression !== "jpeg2000" && compression !== "webp";
  }

  /** What tiles have in common. @throws {UnsupportedError} where they are of a kind that is not read. */
  #readLayout(): TileLayout {
    const unsupported = (feature: string) =>
      new UnsupportedError(
        `Cannot read directory ${this.index} of "${this.source.location}": ` +
          `${feature} is not supported`,
        feature,
      );
    const code = this.number(TAG.Compression) ?? 1;
    const compression = COMPRESSIONS[code];
    if (compression === undefined) {
      throw unsupported(`TIFF compression ${code} (${OTHER_COMPRESSIONS[code] ?? "unknown"})`);
    }
    const samplesPerPixel = this.number(TAG.SamplesPerPixel) ?? 1;
    const perSample = this.#list(TAG.BitsPerSample);
    const bitsPerSample = perSample[0] ?? 1;
    if (perSample.some((b) => b !== bitsPerSample) || ![8, 16].includes(bitsPerSample)) {
      throw unsupported(`${perSample.join("/") || 1} bits a sample`);
    }
    if (this.#list(TAG.SampleFormat).some((format) => format !== 1)) {
      throw unsupported("samples that are no u8 or u16");
    }
    if (this.#planes > 1 && (compression === "jpeg2000" || compression === "webp")) {
      throw unsupported(`planar configuration 2 with ${compression}`);
    }
    const interpretation = this.number(TAG.PhotometricInterpretation) ?? 1;
    // Aperio's codes say the colours, its PhotometricInterpretation RGB where they are YCbCr.
    const photometric = code === 33003 ? "ycbcr" : code === 33005 ? "rgb" : ({
      0: "grey-inverted",
      1: "grey",
      2: "rgb",
      3: "palette",
      6: "ycbcr",
    } as const)[interpretation as 0 | 1 | 2 | 3 | 6];
    const isGrey = photometric?.startsWith("grey") ?? false;
    if (
      photometric === undefined || ![1, 2, 3, 4].includes(samplesPerPixel) ||
      (samplesPerPixel < 3 && !isGrey && photometric !== "palette") ||
      (photometric === "palette" && (samplesPerPixel > 2 || compression === "jpeg")) ||
      (compression === "webp" && (photometric !== "rgb" || bitsPerSample !== 8))
    ) {
      throw unsupported(
        `photometric interpretation ${interpretation} in ${samplesPerPixel} samples, ${compression}`,
      );
    }
    const palette = photometric === "palette" ? this.#palette(bitsPerSample) : undefined;
    // Codecs that know of subsampling do it themselves.
    const subsampling = photometric === "ycbcr" && !["jpeg", "jpeg2000"].includes(compression)
      ? this.#subsampling(samplesPerPixel, bitsPerSample, unsupported)
      : undefined;
    // A scheme of LZW's, deflate's and Zstandard's (§14); with others the field says nothing.
    const predicts = ["lzw", "deflate", "zstd"].includes(compression);
    const predictor = predicts ? this.number(TAG.Predictor) ?? 1 : 1;
    if ((predictor !== 1 && predictor !== 2) || (predictor === 2 && subsampling !== undefined)) {
      throw unsupported(`predictor ${predictor}`);
    }
    // 0, «unspecified», is what older writers of alpha say; libtiff takes it for associated.
    const extra = samplesPerPixel === 4 ? this.#list(TAG.ExtraSamples)[0] : undefined;
    if (
      this.tileWidthPx * this.tileHeightPx * Math.max(3, samplesPerPixel) * bitsPerSample / 8 >
        MAX_TILE_BYTES
    ) {
      throw unsupported(`a tile of ${this.tileWidthPx} × ${this.tileHeightPx} pixels`);
    }
    return {
      compression,
      samplesPerPixel,
      bitsPerSample,
      photometric,
      ...(palette === undefined ? {} : { palette }),
      ...(subsampling === undefined ? {} : { subsampling }),
      alpha: ({ 0: "associated", 1: "associated", 2: "unassociated" } as const)[
        extra as 0 | 1 | 2
      ] ?? "none",
      predictor: predictor === 2 ? "horizontal" : "none",
      jpegTables: this.#bytes(TAG.JPEGTables),
    };
  }

  /** ColorMap (§5): all reds, all greens, all blues, of 16 bits; libtiff takes the high ones. */
  #palette(bitsPerSample: number): Uint8Array {
    const map = this.numbers(TAG.ColorMap);
    const colours = 2 ** bitsPerSample;
    if (map.length !== 3 * colours) throw this.#broken(`has a ColorMap of ${map.length} values`);
    // Some writers fill 8 of the 16 bits (tif_getimage.c, checkcmap).
    const shift = Array.prototype.some.call(map, (value) => value > 255) ? 8 : 0;
    const palette = new Uint8Array(3 * colours);
    for (let i = 0; i < palette.length; i++) {
      palette[i] = map[(i % 3) * colours + Math.floor(i / 3)]! >> shift;
    }
    return palette;
  }

  /** YCbCr without a codec that knows it (§21); undefined where every pixel has its chroma. */
  #subsampling(
    samplesPerPixel: number,
    bitsPerSample: number,
    unsupported: (feature: string) => Error,
  ): readonly [number, number] | undefined {
    const isDefault = (tag: number, values: readonly number[]) => {
      const all = this.numbers(tag);
      return all.length === 0 ||
        values.every((value, i) => Math.abs(all[2 * i]! / all[2 * i + 1]! - value) < 1e-3);
    };
    if (
      !isDefault(TAG.YCbCrCoefficients, [0.299, 0.587, 0.114]) ||
      !isDefault(TAG.ReferenceBlackWhite, [0, 255, 128, 255, 128, 255])
    ) {
      throw unsupported("YCbCr that is not BT.601 in full range");
    }
    const stored = this.numbers(TAG.YCbCrSubSampling);
    const across = stored[0] ?? 2, down = stored[1] ?? 2;
    if (![1, 2, 4].includes(across) || ![1, 2, 4].includes(down)) {
      throw this.#broken(`has YCbCrSubSampling ${across}, ${down}`);
    }
    if (across === 1 && down === 1) return undefined;
    if (samplesPerPixel !== 3 || bitsPerSample !== 8 || this.#planes > 1) {
      throw unsupported(`subsampled YCbCr in ${samplesPerPixel} samples of ${bitsPerSample} bits`);
    }
    return [across, down];
  }

  /** All values of a numeric field; none where it is absent or text. */
  #list(tag: number): number[] {
    const value = this.fields(tag);
    if (value === undefined || typeof value === "string") return [];
    return typeof value === "number" ? [value] : Array.from(value);
  }

  #size(name: "ImageWidth" | "ImageLength" | "TileWidth" | "TileLength"): number {
    const value = this.number(TAG[name]);
    if (value === undefined || !Number.isInteger(value) || value < 1 || value > 2 ** 31) {
      throw this.#broken(`has ${name} ${value ?? "missing"}`);
    }
    return value;
  }

  #numbers(
    name: "TileOffsets" | "TileByteCounts" | "StripOffsets" | "StripByteCounts",
  ): ArrayLike<number> {
    const value = this.fields(TAG[name]);
    if (value === undefined || typeof value === "string") throw this.#broken(`has no ${name}`);
    return typeof value === "number" ? [value] : value;
  }

  #broken(what: string, offsetBytes?: number): SlideFormatError {
    return new SlideFormatError(
      `Cannot read the TIFF "${this.source.location}": directory ${this.index} ${what}`,
      {
        path: this.source.location,
        format: "tiff",
        ...(offsetBytes === undefined ? {} : { offsetBytes }),
      },
    );
  }
}

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function reverseBits(data: Uint8Array): Uint8Array<ArrayBuffer> {
  const reversed = Uint8Array.from({ length: 256 }, (_, byte) => {
    let out = 0;
    for (let bit = 0; bit < 8; bit++) out |= (byte >> bit & 1) << 7 - bit;
    return out;
  });
  return Uint8Array.from(data, (byte) => reversed[byte]!);
}

const RATIONALS: ReadonlySet<number> = new Set([
  TAG.XResolution,
  TAG.YResolution,
  TAG.XPosition,
  TAG.YPosition,
]);

/**
 * Micrometres per pixel, from pixels per inch or centimetre (tag 296; inch where absent); without a
 * unit there is no scale. Also written to `all` by OpenSlide's names.
 */
export function resolution(
  directory: TiffDirectory,
  all: Record<string, string>,
): { mppX: number | undefined; mppY: number | undefined } {
  const unit = directory.number(TAG.ResolutionUnit) ?? 2;
  const micrometres = ({ 2: 25_400, 3: 10_000 } as const)[unit as 2 | 3];
  const mpp = (tag: number, name: string) => {
    const perUnit = directory.number(tag);
    if (micrometres === undefined || perUnit === undefined) return undefined;
    if (!(perUnit > 0) || !Number.isFinite(perUnit)) return undefined;
    all[name] = formatDouble(micrometres / perUnit);
    return micrometres / perUnit;
  };
  return {
    mppX: mpp(TAG.XResolution, "openslide.mpp-x"),
    mppY: mpp(TAG.YResolution, "openslide.mpp-y"),
  };
}

/**
 * OpenSlide's "tiff.*" properties of a directory, and its "openslide.comment"
 * (openslide-decode-tifflike.c, store_and_hash_properties).
 */
export function tiffProperties(directory: TiffDirectory): Record<string, string> {
  const all: Record<string, string> = {};
  const comment = directory.text(TAG.ImageDescription);
  if (comment !== undefined) all["openslide.comment"] = comment;
  for (
    const name of [
      "ImageDescription",
      "Make",
      "Model",
      "Software",
      "DateTime",
      "Artist",
      "HostComputer",
      "Copyright",
      "DocumentName",
    ] as const
  ) {
    const value = directory.text(TAG[name]);
    if (value !== undefined) all[`tiff.${name}`] = value;
  }
  for (const name of ["XResolution", "YResolution", "XPosition", "YPosition"] as const) {
    const value = directory.number(TAG[name]);
    if (value !== undefined) all[`tiff.${name}`] = formatDouble(value);
  }
  const unit = directory.number(TAG.ResolutionUnit) ?? 2;
  all["tiff.ResolutionUnit"] = { 1: "none", 2: "inch", 3: "centimeter" }[unit] ?? "unknown";
  return all;
}
