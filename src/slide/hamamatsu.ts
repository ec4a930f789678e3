/**
 * Hamamatsu NDPI: a TIFF of 64-bit offsets (tiff.ts) with one JPEG a directory.
 *
 * OpenSlide's description of the format (openslide-vendor-hamamatsu.c, openslide-decode-tifflike.c)
 * and ITU-T T.81. Tag 65421 is the objective's power, −1 for the macro and −2 for the map. The JPEG
 * of a large level has a restart marker every so many MCUs, and what lies between two of them is a
 * tile by itself (T.81 §E.1.4): put behind the level's header, with the tile's size in its frame
 * header, it is a stream that any decoder takes. Tag 65426 says where they begin. The frame header
 * of a level with a side over 65,535 says anything, often 0.
 */

import { SlideFormatError, UnsupportedError } from "../errors.ts";
import { type JpegSegment, readSegments } from "./codec.ts";
import { formatDouble } from "./properties.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { RawTile } from "./slide.ts";
import type { ByteRange, Source } from "./source.ts";
import {
  type Field,
  FIELD_BYTES,
  makeDirectory,
  resolution,
  TAG,
  type TiffDirectory,
  tiffProperties,
} from "./tiff.ts";

/** Tags by the names of OpenSlide. */
const NDPI_FORMAT = 65420;
/** TIFF Technical Note 2. */
const JPEG = 7;
const SOURCE_LENS = 65421, X_OFFSET = 65422, Y_OFFSET = 65423, FOCAL_PLANE = 65424;
const RESTARTS_LOW = 65426, REFERENCE = 65427, RESTARTS_HIGH = 65432, PROPERTY_MAP = 65449;

/** The largest side that libjpeg takes (JPEG_MAX_DIMENSION). */
const MAX_JPEG_PX = 65_500;
/** Restart intervals are put together to tiles about so high: a scanner's are 8 rows and 4,000 columns. */
const TILE_ROWS_PX = 64;
/** Bytes of one decoded picture without restart markers. */
const MAX_WHOLE_BYTES = 2 ** 28;
/** Bytes of a JPEG's header: a scanner's are some hundreds. */
const MAX_HEADER_BYTES = 2 ** 20;
const SCAN_BYTES = 2 ** 20;
/** Bytes that a tile may take beyond twice its decoded size. */
const TILE_SLACK_BYTES = 2 ** 16;

/** Whether the directories are those of an NDPI. */
export function isHamamatsu([first]: readonly TiffDirectory[]): boolean {
  return first?.number(NDPI_FORMAT) !== undefined;
}

/**
 * The slide in the directories of an NDPI, of its focal plane 0.
 * @throws {SlideFormatError} where it has no level, or one whose JPEG is broken; {UnsupportedError};
 *   {SourceError}.
 */
export async function openHamamatsu(
  source: Source,
  directories: readonly TiffDirectory[],
): Promise<SlideParts> {
  const pyramid: NdpiImage[] = [];
  const associated = new Map<string, TileGrid>();
  for (const directory of directories) {
    const lens = directory.number(SOURCE_LENS);
    if (lens === undefined || (lens > 0 && (directory.number(FOCAL_PLANE) ?? 0) !== 0)) continue;
    const name = ({ [-1]: "macro", [-2]: "map" } as const)[lens as -1 | -2];
    if (lens <= 0 && name === undefined) continue;
    if (name !== undefined && directory.number(TAG.Compression) !== JPEG) {
      associated.set(name, directory); // The map is uncompressed grey.
      continue;
    }
    const image = await NdpiImage.open(source, directory);
    if (name !== undefined) associated.set(name, image);
    else {
      if (image.widthPx >= (pyramid.at(-1)?.widthPx ?? Infinity)) {
        throw broken(source, `directory ${directory.index} is no smaller than the level before`);
      }
      pyramid.push(image);
    }
  }
  const first = directories[0]!;
  if (pyramid.length === 0) throw broken(source, "it has no level");
  const levels = withReduced(pyramid);

  const all = tiffProperties(first);
  const { mppX, mppY } = resolution(first, all);
  const objectivePower = first.number(SOURCE_LENS);
  if (objectivePower !== undefined) {
    all["hamamatsu.SourceLens"] = all["openslide.objective-power"] = formatDouble(objectivePower);
  }
  for (
    const [tag, name] of [
      [X_OFFSET, "XOffsetFromSlideCentre"],
      [Y_OFFSET, "YOffsetFromSlideCentre"],
    ] as const
  ) {
    const value = first.number(tag);
    if (value !== undefined) all[`hamamatsu.${name}`] = String(value);
  }
  const reference = first.text(REFERENCE);
  if (reference !== undefined) all["hamamatsu.Reference"] = reference;
  for (const line of first.text(PROPERTY_MAP)?.split("\r\n") ?? []) {
    const at = line.indexOf("=");
    if (at > 0 && at + 1 < line.length) all[`hamamatsu.${line.slice(0, at)}`] = line.slice(at + 1);
  }
  for (const [i, { intervalHeightPx }] of levels.entries()) {
    // OpenSlide's tiles, of which ours hold several.
    all[`openslide.level[${i}].tile-height`] = String(intervalHeightPx);
  }
  return {
    format: "hamamatsu",
    levels,
    properties: {
      vendor: "hamamatsu",
      mppX,
      mppY,
      objectivePower: objectivePower !== undefined && objectivePower > 0
        ? objectivePower
        : undefined,
      all,
    },
    associated,
    background: [255, 255, 255],
    icc: await first.profile(),
    close: () => source.close(),
  };
}

/**
 * The levels with those between and below them that libjpeg can decode from them at a half, a quarter
 * and an eighth, by width; of several of a width the one from the smallest level, as in OpenSlide.
 */
function withReduced(pyramid: readonly NdpiImage[]): NdpiImage[] {
  const byWidth = new Map<number, NdpiImage>();
  for (const image of pyramid) {
    byWidth.set(image.widthPx, image);
    for (const reduction of [2, 4, 8] as const) {
      if (image.tileWidthPx % reduction || image.intervalHeightPx % reduction) continue;
      const reduced = image.reduced(reduction);
      if (reduced.widthPx > 0 && reduced.heightPx > 0) byWidth.set(reduced.widthPx, reduced);
    }
  }
  return [...byWidth.values()].sort((a, b) => b.widthPx - a.widthPx);
}

function broken(source: Source, what: string, offsetBytes?: number): SlideFormatError {
  return new SlideFormatError(`Cannot read the NDPI "${source.location}": ${what}`, {
    path: source.location,
    format: "hamamatsu",
    ...(offsetBytes === undefined ? {} : { offsetBytes }),
  });
}

/** What the header of a JPEG says, SOI to the end of SOS (ITU-T T.81 §B.2). */
interface JpegHeader {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where in it the frame header's 0xff lies. */
  readonly frameAt: number;
  readonly widthPx: number;
  readonly heightPx: number;
  readonly components: number;
  readonly mcuWidthPx: number;
  readonly mcuHeightPx: number;
  /** MCUs from one restart marker to the next, 0 where there are none. */
  readonly restartInterval: number;
}

/** A picture's place in the file, and how it is cut. */
interface NdpiLayout {
  readonly source: Source;
  readonly header: JpegHeader;
  /** Names it in messages. */
  readonly directory: number;
  readonly startBytes: number;
  readonly endBytes: number;
  readonly widthPx: number;
  readonly heightPx: number;
  /** Size of a restart interval; of all of it where there is one, or none. */
  readonly intervalWidthPx: number;
  readonly intervalHeightPx: number;
  readonly columns: number;
  readonly intervalRows: number;
  /** Restart intervals below each other in one tile. */
  readonly intervalsPerTile: number;
  /** Where each interval's data begin in the file, found when first asked for. */
  readonly starts: () => Promise<ArrayLike<number>>;
}

/** One JPEG of an NDPI, at its own size or reduced. */
class NdpiImage implements TileGrid {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tileWidthPx: number;
  readonly tileHeightPx: number;
  readonly columns: number;
  readonly rows: number;
  readonly intervalHeightPx: number;
  readonly announce: TileGrid["announce"];
  readonly seamPx: number;

  private constructor(readonly layout: NdpiLayout, readonly reduction: 1 | 2 | 4 | 8) {
    this.widthPx = Math.floor(layout.widthPx / reduction);
    this.heightPx = Math.floor(layout.heightPx / reduction);
    this.tileWidthPx = layout.intervalWidthPx / reduction;
    this.intervalHeightPx = layout.intervalHeightPx / reduction;
    this.seamPx = this.intervalHeightPx;
    this.tileHeightPx = this.intervalHeightPx * layout.intervalsPerTile;
    this.columns = layout.columns;
    this.rows = Math.ceil(layout.intervalRows / layout.intervalsPerTile);
    this.announce = layout.source.prefetch && ((tiles, signal) =>
      // The read says what is wrong.
      void layout.starts().then((starts) => this.#announce(starts, tiles, signal), () => {}));
  }

  reduced(reduction: 2 | 4 | 8): NdpiImage {
    return new NdpiImage(this.layout, reduction);
  }

  static async open(source: Source, directory: TiffDirectory): Promise<NdpiImage> {
    const startBytes = directory.number(TAG.StripOffsets);
    const lengthBytes = directory.number(TAG.StripByteCounts);
    const where = `directory ${directory.index}`;
    if (directory.rows !== 1 || startBytes === undefined || lengthBytes === undefined) {
      throw broken(source, `${where} is not one strip`);
    }
    const endBytes = startBytes + lengthBytes;
    if (!(lengthBytes > 0) || !(startBytes > 0) || endBytes > source.sizeBytes) {
      throw broken(
        source,
        `${where} has its JPEG in ${lengthBytes} bytes at ${startBytes}, ` +
          `the file ends at ${source.sizeBytes}`,
      );
    }
    let header: JpegHeader;
    try {
      header = await readJpegHeader(source, startBytes, endBytes);
    } catch (cause) {
      if (!(cause instanceof JpegError)) throw cause;
      throw broken(source, `the JPEG of ${where} is broken: ${cause.message}`, startBytes);
    }

    const { restartInterval, mcuWidthPx, mcuHeightPx } = header;
    const isSaid = (px: number) => px > 0 && px <= MAX_JPEG_PX;
    let { widthPx, heightPx } = directory;
    const differs = (isSaid(header.widthPx) && widthPx <= MAX_JPEG_PX &&
      header.widthPx !== widthPx) ||
      (isSaid(header.heightPx) && heightPx <= MAX_JPEG_PX && header.heightPx !== heightPx);
    const shared = { source, header, directory: directory.index, startBytes, endBytes };
    if (restartInterval === 0) {
      // The directories of the smallest levels are known to be wrong.
      if (differs && isSaid(header.widthPx)) widthPx = header.widthPx;
      if (differs && isSaid(header.heightPx)) heightPx = header.heightPx;
      if (
        widthPx > MAX_JPEG_PX || heightPx > MAX_JPEG_PX || widthPx * heightPx * 3 > MAX_WHOLE_BYTES
      ) {
        throw unsupported(source, `a JPEG of ${widthPx} × ${heightPx} without restart markers`);
      }
      return new NdpiImage({
        ...shared,
        widthPx,
        heightPx,
        intervalWidthPx: widthPx,
        intervalHeightPx: heightPx,
        columns: 1,
        intervalRows: 1,
        intervalsPerTile: 1,
        starts: () => Promise.resolve([startBytes + header.bytes.length]),
      }, 1);
    }
    if (differs) {
      throw broken(
        source,
        `${where} is ${widthPx} × ${heightPx}, its JPEG ${header.widthPx} × ${header.heightPx}`,
        startBytes,
      );
    }
    const mcusPerRow = Math.ceil(widthPx / mcuWidthPx);
    if (mcusPerRow % restartInterval !== 0) {
      throw unsupported(
        source,
        `a restart marker every ${restartInterval} MCUs where a row has ${mcusPerRow}`,
      );
    }
    const intervalWidthPx = restartInterval * mcuWidthPx;
    if (intervalWidthPx > MAX_JPEG_PX) {
      throw unsupported(source, `a restart marker every ${intervalWidthPx} pixels`);
    }
    const columns = mcusPerRow / restartInterval;
    const intervalRows = Math.ceil(heightPx / mcuHeightPx);
    const intervals = columns * intervalRows;
    // An interval has at least a bit for each MCU, and a byte.
    if (intervals > lengthBytes || intervals * restartInterval > 8 * lengthBytes) {
      throw broken(
        source,
        `${where} claims ${intervals} tiles in ${lengthBytes} bytes`,
        startBytes,
      );
    }
    const headerEnd = startBytes + header.bytes.length;
    const low = directory.numbers(RESTARTS_LOW), high = directory.numbers(RESTARTS_HIGH);
    const isListed = low.length === intervals && (high.length === 0 || high.length === intervals);
    const listed = isListed
      ? Float64Array.from(low, (v, i) => startBytes + v + (high[i] ?? 0) * 2 ** 32)
      : undefined;
    if (listed !== undefined) listed[0] = headerEnd;
    let found: Promise<readonly number[]> | undefined;
    const find = () =>
      found ??= findRestarts(source, where, headerEnd, endBytes, intervals).catch((error) => {
        found = undefined; // The next one who asks may have a source that answers.
        throw error;
      });
    return new NdpiImage({
      ...shared,
      widthPx,
      heightPx,
      intervalWidthPx,
      intervalHeightPx: mcuHeightPx,
      columns,
      intervalRows,
      intervalsPerTile: Math.min(Math.floor(TILE_ROWS_PX / mcuHeightPx), intervalRows),
      starts: listed === undefined ? find : () => Promise.resolve(listed),
    }, 1);
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
    const { header } = this.layout;
    const runs = await Promise.all(
      this.#runs(column, row).map(({ first, count }) => this.#readIntervals(first, count, signal)),
    );
    const intervals = runs.flat();

    const size = intervals.reduce((sum, { length }) => sum + length + 2, header.bytes.length);
    const data = new Uint8Array(size);
    data.set(header.bytes);
    const frame = new DataView(data.buffer, header.frameAt);
    frame.setUint16(5, intervals.length * this.layout.intervalHeightPx);
    frame.setUint16(7, this.layout.intervalWidthPx);
    let at = header.bytes.length;
    for (const [i, interval] of intervals.entries()) {
      data.set(interval, at);
      at += interval.length;
      data[at++] = 0xff;
      data[at++] = i + 1 < intervals.length ? RST0 + i % 8 : EOI;
    }
    return {
      data,
      compression: "jpeg",
      widthPx: this.tileWidthPx,
      heightPx: intervals.length * this.intervalHeightPx,
      samplesPerPixel: header.components,
      bitsPerSample: 8,
      photometric: header.components === 1 ? "grey" : "ycbcr",
      alpha: "none",
      predictor: "none",
      littleEndian: true,
      jpegTables: undefined,
      ...(this.reduction === 1 ? {} : { reduction: this.reduction }),
    };
  }

  /** The intervals of a tile, as they lie one behind the other: all of them where a row has one. */
  #runs(column: number, row: number): { readonly first: number; readonly count: number }[] {
    const { intervalsPerTile, intervalRows, columns } = this.layout;
    const top = row * intervalsPerTile;
    const rows = Math.min(intervalsPerTile, intervalRows - top);
    if (columns === 1) return [{ first: top, count: rows }];
    return Array.from({ length: rows }, (_, i) => ({
      first: (top + i) * columns + column,
      count: 1,
    }));
  }

  #announce(
    starts: ArrayLike<number>,
    tiles: readonly { readonly column: number; readonly row: number }[],
    signal: AbortSignal,
  ): void {
    const { source, startBytes, endBytes, header } = this.layout;
    const headerEnd = startBytes + header.bytes.length;
    const ranges: ByteRange[] = [];
    for (const { column, row } of tiles) {
      for (const { first, count } of this.#runs(column, row)) {
        const from = Math.max(headerEnd, starts[first]! - 2);
        const to = first + count < starts.length ? starts[first + count]! - 2 : endBytes;
        // Others are refused when they are read.
        if (from < to && to <= endBytes) ranges.push({ offsetBytes: from, lengthBytes: to - from });
      }
    }
    source.prefetch!(ranges, signal);
  }

  /**
   * The entropy-coded data of intervals that lie one behind the other, without the markers around them.
   * @throws {SlideFormatError} where there are no markers, or others than are due.
   */
  async #readIntervals(
    first: number,
    count: number,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array[]> {
    const { source, directory, header, startBytes, endBytes } = this.layout;
    const where = `directory ${directory}`;
    const starts = await this.layout.starts();
    const headerEnd = startBytes + header.bytes.length;
    const endOf = (i: number) => i + 1 < starts.length ? starts[i + 1]! - 2 : endBytes;
    const from = Math.max(headerEnd, starts[first]! - 2);
    const to = endOf(first + count - 1);
    for (let i = first; i < first + count; i++) {
      if (!(starts[i]! >= headerEnd && endOf(i) >= starts[i]! && endOf(i) <= endBytes)) {
        throw broken(
          source,
          `${where} has interval ${i} of its JPEG at ${starts[i]} to ${endOf(i)}, ` +
            `and the JPEG at ${startBytes} to ${endBytes}`,
          startBytes,
        );
      }
    }
    const decodedBytes = this.layout.intervalWidthPx * this.layout.intervalHeightPx * count * 3;
    if (to - from > 2 * decodedBytes + TILE_SLACK_BYTES) {
      throw broken(
        source,
        `${where} has ${to - from} bytes at ${from} for ${decodedBytes} bytes of pixels`,
        from,
      );
    }
    source.prefetch?.([{ offsetBytes: from, lengthBytes: to - from }]);
    const bytes = await source.read(from, to - from, signal);
    if (bytes.length < to - from) {
      throw broken(source, `${where} is cut by the file's end`, from);
    }
    return Array.from({ length: count }, (_, n) => {
      const i = first + n;
      const at = starts[i]! - from;
      if (i > 0 && (bytes[at - 2] !== 0xff || bytes[at - 1] !== RST0 + (i - 1) % 8)) {
        throw broken(
          source,
          `${where} has no restart marker ${(i - 1) % 8} at ${starts[i]! - 2}`,
          starts[i]! - 2,
        );
      }
      const interval = bytes.subarray(at, endOf(i) - from);
      return i + 1 < starts.length ? interval : withoutEnd(interval);
    });
  }
}

/** Marker codes (ITU-T T.81 table B.1). */
const SOF0 = 0xc0, RST0 = 0xd0, RST7 = 0xd7, EOI = 0xd9, SOS = 0xda, DRI = 0xdd;

/** Entropy-coded data up to the end marker, where there is one: bytes of 255 in it are followed by 0 (§F.1.2.3). */
function withoutEnd(data: Uint8Array): Uint8Array {
  for (let at = data.indexOf(0xff); at >= 0; at = data.indexOf(0xff, at + 1)) {
    if (data[at + 1] === EOI) return data.subarray(0, at);
  }
  return data;
}

/**
 * Where the intervals of a JPEG begin, by looking for its restart markers, for files that do not say.
 * @throws {SlideFormatError} where there are fewer or more than are due.
 */
async function findRestarts(
  source: Source,
  where: string,
  fromBytes: number,
  toBytes: number,
  intervals: number,
): Promise<readonly number[]> {
  const starts = [fromBytes];
  // Blocks overlap by a byte, so that no marker lies across two.
  for (
    let offset = fromBytes;
    offset + 1 < toBytes && starts.length <= intervals;
    offset += SCAN_BYTES - 1
  ) {
    const block = await source.read(offset, Math.min(SCAN_BYTES, toBytes - offset));
    for (let at = block.indexOf(0xff); at >= 0; at = block.indexOf(0xff, at + 1)) {
      const code = block[at + 1];
      if (code === undefined || code < RST0 || code > RST7) continue;
      if (starts.push(offset + at + 2) > intervals) break;
    }
  }
  if (starts.length !== intervals) {
    throw broken(
      source,
      `the JPEG of ${where} has ${starts.length - 1} restart markers or more, ` +
        `and ${intervals - 1} are due`,
      fromBytes,
    );
  }
  return starts;
}

/** A header that is not a JPEG's, or not one of an NDPI. */
class JpegError extends Error {
  override name = "JpegError";
}

async function readJpegHeader(
  source: Source,
  startBytes: number,
  endBytes: number,
): Promise<JpegHeader> {
  for (let length = 4096;; length *= 16) {
    const bytes = await source.read(startBytes, Math.min(length, endBytes - startBytes));
    try {
      return parseJpegHeader(bytes);
    } catch (cause) {
      // The whole of it was there, or more than a header ever takes.
      if (length >= Math.min(MAX_HEADER_BYTES, endBytes - startBytes)) {
        throw new JpegError((cause as Error).message, { cause });
      }
    }
  }
}

/** @throws {Error} where the bytes are cut or broken before the first scan. */
function parseJpegHeader(bytes: Uint8Array<ArrayBuffer>): JpegHeader {
  let frame: JpegSegment | undefined;
  let restartInterval = 0;
  for (const segment of readSegments(bytes)) {
    const { marker, at, payload } = segment;
    if (marker === EOI) throw new Error("it has no scan");
    if (marker === SOF0 || marker === SOF0 + 1) frame = segment;
    else if (marker === SOF0 + 2) throw new Error("it is progressive");
    else if (marker === DRI) restartInterval = (payload[0] ?? 0) * 256 + (payload[1] ?? 0);
    if (marker !== SOS) continue;
    const end = at + 2 + (bytes[at + 2] ?? 0) * 256 + (bytes[at + 3] ?? 0);
    if (end > bytes.length) throw new Error("its scan header is cut");
    if (frame === undefined) throw new Error("it has no frame header");
    const [, y1, y0, x1, x0, components] = frame.payload;
    if ((components !== 1 && components !== 3) || frame.payload.length < 6 + 3 * components) {
      throw new Error(`it has ${components} components`);
    }
    if (bytes[at + 4] !== components) throw new Error("it has several scans");
    // One component alone is not interleaved: an MCU is a block (§A.2.2).
    const sampling = components === 1 ? [0x11] : [7, 10, 13].map((i) => frame!.payload[i]!);
    const across = Math.max(...sampling.map((s) => s >> 4));
    const down = Math.max(...sampling.map((s) => s & 15));
    if (sampling.some((s) => s >> 4 < 1 || s >> 4 > 4 || (s & 15) < 1 || (s & 15) > 4)) {
      throw new Error("its sampling factors are wrong");
    }
    return {
      bytes: bytes.slice(0, end),
      frameAt: frame.at,
      widthPx: x1! * 256 + x0!,
      heightPx: y1! * 256 + y0!,
      components,
      mcuWidthPx: 8 * across,
      mcuHeightPx: 8 * down,
      restartInterval,
    };
  }
  throw new Error("it ends before its first scan");
}

function unsupported(source: Source, feature: string): UnsupportedError {
  return new UnsupportedError(
    `Cannot read the NDPI "${source.location}": ${feature} is not supported`,
    feature,
  );
}

/** More than a scanner writes: some dozens of directories, each of some dozens of entries. */
const MAX_DIRECTORIES = 4096, MAX_ENTRIES = 4096;
/** Bytes of all values: a slide of 2³⁷ pixels has a million tiles in all its levels. */
const MAX_VALUE_BYTES = 2 ** 28;
const ASCII = 2;

/**
 * Reads every directory of an NDPI: a little-endian TIFF with 64-bit links, whose entries have the
 * upper 32 bits of their values and offsets in a table behind the link, four bytes each.
 * @returns undefined where the source is none.
 * @throws {SlideFormatError} where it breaks the rules; {SourceError}.
 */
export async function readNdpi(source: Source): Promise<TiffDirectory[] | undefined> {
  const { sizeBytes } = source;
  const head = view(await source.read(0, 16));
  if (head.byteLength < 12 || head.getUint32(0) !== 0x49492a00) return undefined;
  const wide = (low: number, high: number) => low + high * 2 ** 32;
  const directories: TiffDirectory[] = [];
  const seen = new Set<number>();
  const maxClaimed = Math.min(MAX_VALUE_BYTES, 2 * sizeBytes + 2 ** 16);
  let claimed = 0;
  let offset = wide(head.getUint32(4, true), head.getUint32(8, true));
  while (offset !== 0) {
    const index = directories.length;
    const wrong = (what: string) => broken(source, `directory ${index} ${what}`, offset);
    if (seen.has(offset)) throw wrong(`begins at ${offset}, as an earlier one does`);
    if (index === MAX_DIRECTORIES) throw broken(source, "it has too many directories", offset);
    seen.add(offset);
    // The first may be that of a TIFF with 32-bit links, which is not ours to judge.
    const isFirst = index === 0;
    const count = offset + 2 <= sizeBytes
      ? view(await source.read(offset, 2)).getUint16(0, true)
      : 0;
    const bodyBytes = 16 * count + 8;
    if (count === 0 || count > MAX_ENTRIES || offset + 2 + bodyBytes > sizeBytes) {
      if (isFirst) return undefined;
      throw wrong(`claims ${count} entries at ${offset}, the file ends at ${sizeBytes}`);
    }
    const body = view(await source.read(offset + 2, bodyBytes));
    const tags = Array.from({ length: count }, (_, i) => body.getUint16(12 * i, true));
    if (isFirst && !tags.includes(NDPI_FORMAT)) return undefined;

    const fields = new Map<number, Field>();
    let profile: ByteRange | undefined;
    const elsewhere: { tag: number; type: number; values: number; range: ByteRange }[] = [];
    for (const [i, tag] of tags.entries()) {
      const at = 12 * i;
      const type = body.getUint16(at + 2, true);
      const values = body.getUint32(at + 4, true);
      const high = body.getUint32(12 * count + 8 + 4 * i, true);
      const size = FIELD_BYTES[type];
      if (size === undefined) throw wrong(`has tag ${tag} of the unknown type ${type}`);
      const length = size * values;
      const isLong = type === LONG || type === SLONG;
      if (length <= 4 && type !== ASCII) {
        if (high !== 0 && !isLong) throw wrong(`has a value of tag ${tag} that is too wide`);
        const value = readValues(
          new DataView(body.buffer, body.byteOffset + at + 8, 4),
          type,
          values,
        );
        const isWide = high !== 0 && typeof value === "number";
        fields.set(tag, isWide ? wide(value >>> 0, type === SLONG ? high | 0 : high) : value);
        continue;
      }
      const where = wide(body.getUint32(at + 8, true), high);
      claimed += length;
      if (where + length > sizeBytes || claimed > maxClaimed) {
        throw wrong(
          `has tag ${tag} in ${length} bytes at ${where}, the file ends at ${sizeBytes}`,
        );
      }
      const range = { offsetBytes: where, lengthBytes: length };
      if (tag === TAG.ICCProfile) profile = range;
      else elsewhere.push({ tag, type, values, range });
    }
    source.prefetch?.(elsewhere.map(({ range }) => range));
    for (const { tag, type, values, range: { offsetBytes, lengthBytes } } of elsewhere) {
      const bytes = await source.read(offsetBytes, lengthBytes);
      if (bytes.length < lengthBytes) throw wrong("is cut by the file's end");
      fields.set(tag, readValues(view(bytes), type, values));
    }
    fields.delete(TAG.RowsPerStrip); // There is one strip, whatever it says.
    directories.push(makeDirectory(source, index, (tag) => fields.get(tag), true, profile));
    offset = wide(body.getUint32(12 * count, true), body.getUint32(12 * count + 4, true));
  }
  return directories.length === 0 ? undefined : directories;
}

const LONG = 4, SLONG = 9;

/** The values of a field (TIFF 6.0 §2); a RATIONAL is two. */
function readValues(data: DataView, type: number, count: number): Field {
  if (type === ASCII) {
    return new TextDecoder().decode(new Uint8Array(data.buffer, data.byteOffset, count));
  }
  const each = (n: number, read: (i: number) => number) => {
    const values = new Float64Array(n);
    for (let i = 0; i < n; i++) values[i] = read(i);
    return n === 1 ? values[0]! : values;
  };
  switch (type) {
    case 3:
      return each(count, (i) => data.getUint16(2 * i, true));
    case LONG:
    case 13:
      return each(count, (i) => data.getUint32(4 * i, true));
    case 5:
      return each(2 * count, (i) => data.getUint32(4 * i, true));
    case 6:
      return each(count, (i) => data.getInt8(i));
    case 8:
      return each(count, (i) => data.getInt16(2 * i, true));
    case SLONG:
      return each(count, (i) => data.getInt32(4 * i, true));
    case 10:
      return each(2 * count, (i) => data.getInt32(4 * i, true));
    case 11:
      return each(count, (i) => data.getFloat32(4 * i, true));
    case 12:
      return each(count, (i) => data.getFloat64(8 * i, true));
    case 16:
    case 18:
      return each(count, (i) => Number(data.getBigUint64(8 * i, true)));
    case 17:
      return each(count, (i) => Number(data.getBigInt64(8 * i, true)));
    default:
      return new Uint8Array(data.buffer, data.byteOffset, count);
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
