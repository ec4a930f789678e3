/** Compressed tiles to interleaved RGB: compression → decoder, each a library. */

import { inflateSync, zstdDecompressSync } from "node:zlib";
import { CodecError, UnsupportedError } from "../errors.ts";
import { CodecPool, TILES_PER_THREAD } from "./codec_pool.ts";
import { decodePackBits, decodeRle } from "./packbits.ts";
import { interleave, invert, sampleBytes, toRgb } from "./samples.ts";
import type { Compression, RawTile } from "./slide.ts";
import { wrapInTiff } from "./tiff_wrap.ts";
import { decodeJpeg, hasTurboJpeg } from "./turbojpeg.ts";

/** Decoded by threads of CodecPool. */
const POOLED: ReadonlySet<Compression> = new Set(["jpeg2000", "htj2k", "jpeg-ls"]);

/** Decodes up to `threads` tiles at a time on threads; with 0, one after the other on the calling one. */
export class TileDecoder {
  readonly #threads: number;
  readonly #waiting: (() => void)[] = [];
  readonly #pool: CodecPool;
  #busy = 0;

  constructor(threads: number) {
    this.#threads = threads;
    this.#pool = new CodecPool(threads);
  }

  /**
   * Decodes one tile to RGB `[heightPx, widthPx, 3]`, one byte a sample: grey is tripled, alpha
   * blended over white, 16-bit samples scaled. Nothing depends on what was decoded before.
   * @throws {CodecError} where the bytes are not what the tile says; {UnsupportedError} for kinds of
   *   JPEG that are not read; the signal's reason where it is aborted before decoding began.
   */
  async decode(tile: RawTile, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const perThread = POOLED.has(tile.compression) ? TILES_PER_THREAD : 1;
    const places = Math.max(1, this.#threads * perThread);
    while (this.#busy >= places) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#busy++;
    try {
      signal?.throwIfAborted();
      return await this.#decode(tile, signal);
    } catch (cause) {
      if (
        signal?.aborted || cause instanceof CodecError || cause instanceof UnsupportedError
      ) throw cause;
      throw failure(tile, (cause as Error).message, cause);
    } finally {
      this.#busy--;
      this.#waiting.shift()?.();
    }
  }

  /** Ends the threads that were started; what they decode now fails. */
  close(): void {
    this.#pool.close();
  }

  async #decode(tile: RawTile, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const { compression, planeBytes } = tile;
    if (POOLED.has(compression)) return await this.#pool.decode(tile, signal);
    if (compression !== "jpeg") return toRgb(await decompress(tile), tile);
    return planeBytes === undefined
      ? await this.#decodeJpeg(tile)
      : await this.#decodeJpegPlanes(tile, planeBytes);
  }

  /** Each plane is a picture in grey. */
  async #decodeJpegPlanes(
    tile: RawTile,
    planeBytes: readonly number[],
  ): Promise<Uint8Array<ArrayBuffer>> {
    const planes: Uint8Array[] = [];
    for (const data of cutPlanes(tile, planeBytes)) {
      const { planeBytes: _, ...rest } = tile;
      const grey = await this.#decodeJpeg({
        ...rest,
        data,
        samplesPerPixel: 1,
        photometric: "grey",
      });
      planes.push(grey.filter((_, i) => i % 3 === 0));
    }
    return toRgb(interleave(planes, 1), tile);
  }

  async #decodeJpeg(tile: RawTile): Promise<Uint8Array<ArrayBuffer>> {
    const { stream, head } = assembleJpeg(tile);
    if (head.precision !== 8 || ![1, 3].includes(head.components) || head.sof > 2) {
      throw new UnsupportedError(
        `Cannot decode a JPEG tile: process ${head.sof} in ${head.components} components of ` +
          `${head.precision} bits is not supported`,
        "JPEG process",
      );
    }
    if (leastBytes(head) > stream.length) {
      throw new Error(
        `${stream.length} bytes cannot hold ${head.widthPx} × ${head.heightPx} pixels`,
      );
    }
    const rgb = hasTurboJpeg
      ? await decodeJpeg(
        stream,
        head.widthPx,
        head.heightPx,
        this.#threads === 0,
        tile.reduction,
      )
      : await decodeJpegWithSharp(tile, stream);
    if (tile.photometric === "grey-inverted") invert(rgb);
    return rgb;
  }
}

function failure(tile: RawTile, why: string, cause?: unknown): CodecError {
  return new CodecError(`Cannot decode a ${tile.compression} tile: ${why}`, {
    codec: tile.compression,
  }, { cause });
}

/**
 * At most so many bytes are made of one: zlib's own bound, LZW's longest string, PackBits' runs of 128
 * in two bytes, Zstandard's of 128 KiB in four. WebP's blank pictures have none.
 */
const MAX_EXPANSION: Readonly<Partial<Record<Compression, number>>> = {
  deflate: 1032,
  lzw: 4096,
  packbits: 64,
  rle: 64,
  zstd: 32768,
};

/** Interleaved samples of a tile. */
async function decompress(tile: RawTile): Promise<Uint8Array> {
  if (tile.planeBytes === undefined) return await decompressOne(tile);
  const { planeBytes, ...rest } = tile;
  const planes: Uint8Array[] = [];
  for (const data of cutPlanes(tile, planeBytes)) {
    const one = { ...rest, data, samplesPerPixel: 1 };
    planes.push((await decompressOne(one)).subarray(0, sampleBytes(one)));
  }
  return interleave(planes, tile.bitsPerSample / 8);
}

function cutPlanes(
  { data, samplesPerPixel }: RawTile,
  planeBytes: readonly number[],
): Uint8Array<ArrayBuffer>[] {
  const sum = planeBytes.reduce((a, b) => a + b, 0);
  if (planeBytes.length !== samplesPerPixel || sum !== data.length) {
    throw new Error(
      `its ${planeBytes.length} planes of ${sum} bytes are not its ${samplesPerPixel} samples ` +
        `in ${data.length}`,
    );
  }
  const missing = planeBytes.indexOf(0);
  if (missing >= 0) throw new Error(`plane ${missing} is missing`);
  let from = 0;
  return planeBytes.map((length) => data.subarray(from, from += length));
}

async function decompressOne(tile: RawTile): Promise<Uint8Array> {
  const { data, compression } = tile;
  const expected = sampleBytes(tile);
  if (expected > data.length * (MAX_EXPANSION[compression] ?? Infinity)) {
    throw failure(tile, `${data.length} bytes cannot hold ${expected}`);
  }
  // More than the tile's bytes is padding that nobody reads, and a bound against bombs.
  const maxOutputLength = expected + 65536;
  let samples: Uint8Array;
  switch (compression) {
    case "none":
      samples = data;
      break;
    case "deflate":
      samples = withoutBuffer(inflateSync(data, { maxOutputLength }));
      break;
    case "zstd":
      samples = withoutBuffer(zstdDecompressSync(data, { maxOutputLength }));
      break;
    case "lzw":
      samples = await decompressLzw(tile);
      break;
    case "packbits":
      samples = decodePackBits(data, expected);
      break;
    case "rle":
      samples = decodeRle(data, {
        pixels: tile.widthPx * tile.heightPx,
        samplesPerPixel: tile.samplesPerPixel,
        bytesPerSample: tile.bitsPerSample / 8,
        littleEndian: tile.littleEndian,
      });
      break;
    case "webp":
      samples = await decompressWebp(tile);
      break;
    default:
      throw failure(tile, `there is no decoder for it`);
  }
  if (samples.length < expected) {
    throw failure(tile, `it holds ${samples.length} bytes where ${expected} are due`);
  }
  return tile.predictor === "none" ? samples : undoPredictor(samples, tile);
}

/** The same bytes as a plain array: Buffer's `slice` shares memory, and a small one's memory is a pool's. */
function withoutBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Horizontal differencing (TIFF 6.0 §14): each sample is the difference to the one before it in its row. */
function undoPredictor(differences: Uint8Array, tile: RawTile): Uint8Array {
  const { samplesPerPixel: n, bitsPerSample, littleEndian } = tile;
  const samples = differences.slice(0, sampleBytes(tile));
  const perRow = tile.widthPx * n;
  if (bitsPerSample === 8) {
    for (let row = 0; row < samples.length; row += perRow) {
      for (let i = row + n; i < row + perRow; i++) samples[i]! += samples[i - n]!;
    }
  } else {
    const words = new DataView(samples.buffer, samples.byteOffset, samples.byteLength);
    for (let row = 0; row < samples.length; row += 2 * perRow) {
      for (let at = row + 2 * n; at < row + 2 * perRow; at += 2) {
        const before = words.getUint16(at - 2 * n, littleEndian);
        words.setUint16(at, words.getUint16(at, littleEndian) + before, littleEndian);
      }
    }
  }
  return samples;
}

/**
 * LZW (TIFF 6.0 §13) by libtiff inside sharp, as the one strip of a TIFF made around it. It says that
 * the samples are grey bytes, whatever they are, so that nothing is converted on the way.
 */
async function decompressLzw(tile: RawTile): Promise<Uint8Array> {
  const file = wrapInTiff(tile.data, {
    widthPx: sampleBytes(tile) / tile.heightPx,
    heightPx: tile.heightPx,
    samplesPerPixel: 1,
    compression: 5,
  });
  const { default: sharp } = await import("sharp");
  sharp.cache(false); // Tiles are never decoded twice; our own cache holds them.
  return withoutBuffer(
    await sharp(file, { failOn: "error" }).toColourspace("b-w").raw().toBuffer(),
  );
}

/** WebP (RFC 9649) in RGB, or RGBA where the tile has four samples. */
async function decompressWebp(tile: RawTile): Promise<Uint8Array> {
  const { data, widthPx, heightPx, samplesPerPixel } = tile;
  const text = (from: number) => String.fromCharCode(...data.subarray(from, from + 4));
  // sharp tells formats by their content, and would decode any.
  if (text(0) !== "RIFF" || text(8) !== "WEBP") throw failure(tile, "it does not begin as one");
  const { default: sharp } = await import("sharp");
  sharp.cache(false);
  const picture = sharp(data, { failOn: "error", ignoreIcc: true });
  const { width, height } = await picture.metadata();
  if (width !== widthPx || height !== heightPx) {
    throw failure(
      tile,
      `its picture is ${width} × ${height}, the tile ${widthPx} × ${heightPx}`,
    );
  }
  const colours = samplesPerPixel === 4 ? picture.ensureAlpha() : picture.removeAlpha();
  const { data: samples, info } = await colours.raw().toBuffer({ resolveWithObject: true });
  if (info.channels !== samplesPerPixel) {
    throw failure(tile, `it has ${info.channels} samples a pixel, the tile ${samplesPerPixel}`);
  }
  return withoutBuffer(samples);
}

/** Marker codes (ITU-T T.81 table B.1). */
const SOI = 0xd8, SOS = 0xda, EOI = 0xd9, DHT = 0xc4, JPG = 0xc8, DAC = 0xcc, DQT = 0xdb;
const DRI = 0xdd, APP0 = 0xe0, APP14 = 0xee, APP15 = 0xef, COM = 0xfe;

/** A marker segment (ITU-T T.81 §B.1.1.4). */
export interface JpegSegment {
  readonly marker: number;
  /** Where its 0xff lies. */
  readonly at: number;
  /** Bytes after the length field. */
  readonly payload: Uint8Array;
}

/**
 * The segments of a stream up to its first scan or its end, the marker of which comes last.
 * It takes nothing that libjpeg would take otherwise: what is believed of a stream here holds there.
 * @throws {Error} where there is anything but segments (ITU-T T.81 §B.1.1).
 */
export function* readSegments(stream: Uint8Array): Iterable<JpegSegment> {
  if (stream[0] !== 0xff || stream[1] !== SOI) throw new Error("it does not begin with SOI");
  for (let at = 2;;) {
    if (stream[at] !== 0xff) {
      throw new Error(
        at < stream.length ? `there is no marker at byte ${at}` : "it ends before its first scan",
      );
    }
    while (stream[at + 1] === 0xff) at++; // Fill bytes (§B.1.1.2).
    const marker = stream[at + 1];
    if (marker === undefined) throw new Error("it ends before its first scan");
    if (marker === SOS || marker === EOI) return yield { marker, at, payload: new Uint8Array() };
    // Those below stand alone, without a length (table B.1), and none belongs here.
    if (marker < 0xc0 || (marker >= 0xd0 && marker <= SOI)) {
      throw new Error(`there is a marker ${marker} at byte ${at}`);
    }
    const length = (stream[at + 2] ?? 0) * 256 + (stream[at + 3] ?? 0);
    if (length < 2 || at + 2 + length > stream.length) {
      throw new Error(`the segment at byte ${at} is cut`);
    }
    yield { marker, at, payload: stream.subarray(at + 4, at + 2 + length) };
    at += 2 + length;
  }
}

/**
 * Bytes that a stream has at least: each block of 8 × 8 samples of a component takes a bit for its DC
 * coefficient, and where a scan has all of them another that says that no more come (T.81 §F.1.2, §G.1.2).
 * More bytes are not made of fewer, whatever a header claims.
 */
function leastBytes({ widthPx, heightPx, sof }: JpegHead): number {
  const blocks = Math.ceil(widthPx / 8) * Math.ceil(heightPx / 8);
  return blocks * (sof === 2 ? 1 : 2) / 8;
}

/** What a JPEG stream says before its first scan. */
export interface JpegHead {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly components: number;
  /** Whether the first component is sampled more densely than the second. */
  readonly subsampled: boolean;
  readonly precision: number;
  /** n of SOFn: the process (ITU-T T.81 table B.1). */
  readonly sof: number;
  /** Where the identifiers of JFIF markers and the transforms of Adobe markers lie. */
  readonly jfifAt: readonly number[];
  readonly adobeTransformAt: readonly number[];
}

/** @throws {Error} where the stream is broken before its first scan. */
export function readJpegHead(stream: Uint8Array): JpegHead {
  let frame: Omit<JpegHead, "jfifAt" | "adobeTransformAt"> | undefined;
  const jfifAt: number[] = [], adobeTransformAt: number[] = [];
  for (const { marker, at, payload } of readSegments(stream)) {
    if (marker === EOI) throw new Error("it has no scan");
    if (marker >= 0xc0 && marker <= 0xcf && ![DHT, JPG, DAC].includes(marker)) {
      if (payload.length < 6) throw new Error("its frame header is cut");
      const [precision, y1, y0, x1, x0, components] = payload;
      frame = {
        sof: marker - 0xc0,
        precision: precision!,
        heightPx: y1! * 256 + y0!,
        widthPx: x1! * 256 + x0!,
        components: components!,
        subsampled: components === 3 && payload[7] !== payload[10],
      };
    } else if (marker === APP0 && startsWith(payload, JFIF)) jfifAt.push(at + 4);
    else if (marker === APP14 && startsWith(payload, ADOBE) && payload.length >= 12) {
      adobeTransformAt.push(at + 4 + 11);
    }
  }
  if (frame === undefined) throw new Error("it has no frame header");
  return { ...frame, jfifAt, adobeTransformAt };
}

/**
 * The photometric interpretation of a JPEG stream that its container calls RGB: "ycbcr", which is to
 * follow the markers, where there are some that say (JFIF's or Adobe's) or the chroma is subsampled,
 * as nobody does with green and blue.
 */
export function jpegColours(stream: Uint8Array): "rgb" | "ycbcr" {
  try {
    const { jfifAt, adobeTransformAt, subsampled } = readJpegHead(stream);
    return jfifAt.length > 0 || adobeTransformAt.length > 0 || subsampled ? "ycbcr" : "rgb";
  } catch {
    return "rgb"; // The decoder says what is wrong.
  }
}

const JFIF = new TextEncoder().encode("JFIF\0");
const ADOBE = new TextEncoder().encode("Adobe");

function startsWith(bytes: Uint8Array, start: Uint8Array): boolean {
  return start.every((byte, i) => bytes[i] === byte);
}

/** An Adobe marker with transform 0: the components are RGB (Adobe Technical Note 5116, §18). */
const ADOBE_RGB = Uint8Array.from([0xff, APP14, 0, 14, ...ADOBE, 0, 100, 0, 0, 0, 0, 0]);

/**
 * What lies between SOI and EOI of an abbreviated stream of tables (ITU-T T.81 §B.5).
 * @throws {Error} where it holds anything else: a frame in it would be taken for the tile's.
 */
function readJpegTables(tables: Uint8Array | undefined): Uint8Array {
  if (tables === undefined || tables.length === 0) return new Uint8Array();
  let end = 2;
  try {
    for (const { marker, at } of readSegments(tables)) {
      const isTable = [DQT, DHT, DAC, DRI, COM, EOI].includes(marker) ||
        (marker >= APP0 && marker <= APP15);
      if (!isTable) throw new Error(`there is a marker ${marker} at byte ${at}`);
      end = at;
    }
  } catch (cause) {
    throw new Error(`its shared tables are broken: ${(cause as Error).message}`, { cause });
  }
  return tables.subarray(2, end);
}

/**
 * A whole JPEG stream from a tile of a TIFF: the shared tables put behind SOI (TIFF Technical
 * Note 2), and components of photometric RGB marked as such, since decoders take three components
 * for YCbCr that a JFIF marker or none precedes. (CMU-1-Small-Region.svs is such a slide.)
 * Components of photometric YCbCr that an Adobe marker calls RGB stay RGB: it knows better.
 * @throws {Error} where tile or tables are broken or their size is not the tile's.
 */
function assembleJpeg(tile: RawTile): { stream: Uint8Array<ArrayBuffer>; head: JpegHead } {
  const tables = readJpegTables(tile.jpegTables);
  let stream = tables.length === 0 ? tile.data : spliceBehindSoi(tile.data, tables);
  const head = readJpegHead(stream);
  const { reduction = 1 } = tile;
  if (head.widthPx !== tile.widthPx * reduction || head.heightPx !== tile.heightPx * reduction) {
    throw new Error(
      `its picture is ${head.widthPx} × ${head.heightPx}, the tile ` +
        `${tile.widthPx * reduction} × ${tile.heightPx * reduction}`,
    );
  }
  if (tile.photometric === "rgb" && head.components === 3) {
    const { jfifAt, adobeTransformAt } = head;
    const marked = jfifAt.length === 0 && adobeTransformAt.length > 0 &&
      adobeTransformAt.every((at) => stream[at] === 0);
    if (!marked) {
      stream = stream.slice();
      for (const at of jfifAt) stream[at] = 0; // No longer «JFIF».
      for (const at of adobeTransformAt) stream[at] = 0;
      if (adobeTransformAt.length === 0) stream = spliceBehindSoi(stream, ADOBE_RGB);
    }
  }
  return { stream, head };
}

function spliceBehindSoi(stream: Uint8Array, segments: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(stream.length + segments.length);
  whole.set(stream.subarray(0, 2));
  whole.set(segments, 2);
  whole.set(stream.subarray(2), 2 + segments.length);
  return whole;
}

/** Five times slower; for platforms where libjpeg-turbo cannot be loaded. */
async function decodeJpegWithSharp(
  tile: RawTile,
  stream: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const { default: sharp } = await import("sharp");
  sharp.cache(false);
  const picture = sharp(stream, { failOn: "error" });
  if (tile.reduction !== undefined) picture.resize(tile.widthPx, tile.heightPx, { fit: "fill" });
  const { data, info } = await picture
    .toColourspace("srgb").removeAlpha().raw().toBuffer({ resolveWithObject: true });
  if (info.width !== tile.widthPx || info.height !== tile.heightPx || info.channels !== 3) {
    throw failure(tile, `it is ${info.width} × ${info.height} in ${info.channels} samples`);
  }
  return new Uint8Array(data);
}
