/** Compressed tiles to interleaved RGB: compression → decoder, each a library. */

import { inflateSync } from "node:zlib";
import { CodecError, UnsupportedError } from "../errors.ts";
import type { RawTile } from "./slide.ts";
import { decodeJpeg, hasTurboJpeg } from "./turbojpeg.ts";

/** Decodes up to `threads` tiles at a time on threads; with 0, one after the other on the calling one. */
export class TileDecoder {
  readonly #threads: number;
  readonly #places: number;
  readonly #waiting: (() => void)[] = [];
  #busy = 0;

  constructor(threads: number) {
    this.#threads = threads;
    this.#places = Math.max(1, threads);
  }

  /**
   * Decodes one tile to RGB `[heightPx, widthPx, 3]`, one byte a sample: grey is tripled, alpha
   * blended over white, 16-bit samples scaled. Nothing depends on what was decoded before.
   * @throws {CodecError} where the bytes are not what the tile says; {UnsupportedError} for kinds of
   *   JPEG that are not read; the signal's reason where it is aborted before decoding began.
   */
  async decode(tile: RawTile, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    while (this.#busy >= this.#places) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#busy++;
    try {
      signal?.throwIfAborted();
      return tile.compression === "jpeg"
        ? await this.#decodeJpeg(tile)
        : toRgb(await decompress(tile), tile);
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

  async #decodeJpeg(tile: RawTile): Promise<Uint8Array<ArrayBuffer>> {
    const { stream, head } = assembleJpeg(tile);
    if (head.precision !== 8 || ![1, 3].includes(head.components) || head.sof > 2) {
      throw new UnsupportedError(
        `Cannot decode a JPEG tile: process ${head.sof} in ${head.components} components of ` +
          `${head.precision} bits is not supported`,
        "JPEG process",
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

/** Bytes of the tile's samples once decompressed. */
function sampleBytes({ widthPx, heightPx, samplesPerPixel, bitsPerSample }: RawTile): number {
  return widthPx * heightPx * samplesPerPixel * bitsPerSample / 8;
}

/** Deflate and LZW make at most this many bytes of one (zlib's own bound is 1032; LZW's strings are 4093 long). */
const MAX_EXPANSION = 4096;

async function decompress(tile: RawTile): Promise<Uint8Array> {
  const { data, compression } = tile;
  const expected = sampleBytes(tile);
  if (expected > data.length * MAX_EXPANSION) {
    throw failure(tile, `${data.length} bytes cannot hold ${expected}`);
  }
  let samples: Uint8Array;
  switch (compression) {
    case "none":
      samples = data;
      break;
    case "deflate":
      // More than the tile's bytes is padding that nobody reads, and a bound against bombs.
      samples = withoutBuffer(inflateSync(data, { maxOutputLength: expected + 65536 }));
      break;
    case "lzw":
      samples = await decompressLzw(tile);
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

/** Samples to RGB bytes: grey tripled, alpha blended over white. */
function toRgb(samples: Uint8Array, tile: RawTile): Uint8Array<ArrayBuffer> {
  const { samplesPerPixel: n, photometric, alpha } = tile;
  const pixels = tile.widthPx * tile.heightPx;
  const bytes = tile.bitsPerSample === 16 ? toBytes(samples, tile) : samples;
  if (n === 3 && photometric === "rgb") {
    return bytes.slice(0, pixels * 3) as Uint8Array<ArrayBuffer>;
  }
  const rgb = new Uint8Array(pixels * 3);
  const [green, blue] = photometric.startsWith("grey") ? [0, 0] : [1, 2];
  for (let to = 0, from = 0; to < rgb.length; to += 3, from += n) {
    rgb[to] = bytes[from]!;
    rgb[to + 1] = bytes[from + green]!;
    rgb[to + 2] = bytes[from + blue]!;
    if (n === 4 && alpha !== "none") blendOverWhite(rgb, to, bytes[from + 3]!, alpha);
  }
  if (photometric === "grey-inverted") invert(rgb);
  return rgb;
}

/** Blends the pixel at `at`; weights are rounded as libtiff does it (tif_getimage.c, BuildMapUaToAa). */
function blendOverWhite(
  rgb: Uint8Array,
  at: number,
  opacity: number,
  alpha: "associated" | "unassociated",
): void {
  for (let i = at; i < at + 3; i++) {
    const weighted = alpha === "associated" ? rgb[i]! : Math.floor((rgb[i]! * opacity + 127) / 255);
    rgb[i] = Math.min(255, weighted + 255 - opacity);
  }
}

function invert(rgb: Uint8Array): void {
  for (let i = 0; i < rgb.length; i++) rgb[i]! ^= 255;
}

/**
 * 16-bit samples to bytes as libtiff shows them, and so OpenSlide (tif_getimage.c): the high byte of
 * grey, and of colours the nearest.
 */
function toBytes(samples: Uint8Array, { photometric, littleEndian }: RawTile): Uint8Array {
  const bytes = new Uint8Array(samples.length >> 1);
  const [high, low] = littleEndian ? [1, 0] : [0, 1];
  if (photometric.startsWith("grey")) {
    for (let i = 0; i < bytes.length; i++) bytes[i] = samples[2 * i + high]!;
  } else {
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = Math.floor((samples[2 * i + high]! * 256 + samples[2 * i + low]! + 128) / 257);
    }
  }
  return bytes;
}

/**
 * LZW (TIFF 6.0 §13) by libtiff inside sharp, as the one strip of a TIFF made around it. It says that
 * the samples are grey bytes, whatever they are, so that nothing is converted on the way.
 */
async function decompressLzw(tile: RawTile): Promise<Uint8Array> {
  const SHORT = 3, LONG = 4;
  const rowBytes = sampleBytes(tile) / tile.heightPx;
  const entries: [tag: number, type: number, value: number][] = [
    [256, LONG, rowBytes], // ImageWidth
    [257, LONG, tile.heightPx], // ImageLength
    [258, SHORT, 8], // BitsPerSample
    [259, SHORT, 5], // Compression: LZW
    [262, SHORT, 1], // PhotometricInterpretation: black is zero
    [273, LONG, 0], // StripOffsets, set below
    [277, SHORT, 1], // SamplesPerPixel
    [278, LONG, tile.heightPx], // RowsPerStrip
    [279, LONG, tile.data.length], // StripByteCounts
  ];
  const dataAt = 8 + 2 + 12 * entries.length + 4;
  const file = new Uint8Array(dataAt + tile.data.length);
  const out = new DataView(file.buffer);
  out.setUint32(0, 0x49492a00);
  out.setUint32(4, 8, true);
  out.setUint16(8, entries.length, true);
  for (const [i, [tag, type, value]] of entries.entries()) {
    const at = 10 + 12 * i;
    out.setUint16(at, tag, true);
    out.setUint16(at + 2, type, true);
    out.setUint32(at + 4, 1, true);
    out.setUint32(at + 8, tag === 273 ? dataAt : value, true);
  }
  file.set(tile.data, dataAt);

  const { default: sharp } = await import("sharp");
  sharp.cache(false); // Tiles are never decoded twice; our own cache holds them.
  return withoutBuffer(
    await sharp(file, { failOn: "error" }).toColourspace("b-w").raw().toBuffer(),
  );
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

/** What a JPEG stream says before its first scan. */
interface JpegHead {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly components: number;
  readonly precision: number;
  /** n of SOFn: the process (ITU-T T.81 table B.1). */
  readonly sof: number;
  /** Where the identifiers of JFIF markers and the transforms of Adobe markers lie. */
  readonly jfifAt: readonly number[];
  readonly adobeTransformAt: readonly number[];
}

/** @throws {Error} where the stream is broken before its first scan. */
function readJpegHead(stream: Uint8Array): JpegHead {
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
      };
    } else if (marker === APP0 && startsWith(payload, JFIF)) jfifAt.push(at + 4);
    else if (marker === APP14 && startsWith(payload, ADOBE) && payload.length >= 12) {
      adobeTransformAt.push(at + 4 + 11);
    }
  }
  if (frame === undefined) throw new Error("it has no frame header");
  return { ...frame, jfifAt, adobeTransformAt };
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
