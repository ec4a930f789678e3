/** Compressed tiles to interleaved RGB: compression → decoder, each a library. */

import { Buffer } from "node:buffer";
import { inflateSync } from "node:zlib";
import { CodecError, UnsupportedError } from "../errors.ts";
import type { RawTile } from "./slide.ts";
import { hasTurboJpeg, TurboJpeg } from "./turbojpeg.ts";

/** Decodes up to `threads` tiles at a time on threads; with 0, one after the other on the calling one. */
export class TileDecoder {
  readonly #threads: number;
  readonly #places: number;
  /** Decompressors that rest. */
  readonly #idle: TurboJpeg[] = [];
  readonly #waiting: (() => void)[] = [];
  #busy = 0;
  #closed = false;

  constructor(threads: number) {
    this.#threads = threads;
    this.#places = Math.max(1, threads);
  }

  /**
   * Decodes one tile to RGB `[heightPx, widthPx, 3]`, one byte a sample; 16-bit samples keep their
   * high byte. Nothing depends on what was decoded before.
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

  /** Frees the decompressors; those at work are freed when they are done. */
  close(): void {
    this.#closed = true;
    for (const turbo of this.#idle.splice(0)) turbo.close();
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
    if (!hasTurboJpeg) return await decodeJpegWithSharp(tile, stream);
    const turbo = this.#idle.pop() ?? new TurboJpeg();
    try {
      const rgb = new Uint8Array(tile.widthPx * tile.heightPx * 3);
      await turbo.decompress(stream, rgb, this.#threads === 0);
      return rgb;
    } finally {
      if (this.#closed) turbo.close();
      else this.#idle.push(turbo);
    }
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
      samples = inflateSync(data, { maxOutputLength: expected + 65536 });
      break;
    case "lzw":
      return await decodeInTiff(tile, 5); // Undoes the predictor too.
    default:
      throw failure(tile, `there is no decoder for it`);
  }
  if (samples.length < expected) {
    throw failure(tile, `it holds ${samples.length} bytes where ${expected} are due`);
  }
  return tile.predictor === "none" ? samples : undoPredictor(samples, tile);
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

/** Samples to RGB bytes: grey tripled, alpha dropped, the high byte of 16 bits. */
function toRgb(samples: Uint8Array, tile: RawTile): Uint8Array<ArrayBuffer> {
  const { samplesPerPixel: n, bitsPerSample, photometric, littleEndian } = tile;
  const pixels = tile.widthPx * tile.heightPx;
  if (n === 3 && bitsPerSample === 8 && photometric === "rgb") {
    return samples.slice(0, pixels * 3) as Uint8Array<ArrayBuffer>;
  }
  const rgb = new Uint8Array(pixels * 3);
  const step = bitsPerSample / 8;
  const high = step === 2 && littleEndian ? 1 : 0;
  const invert = photometric === "grey-inverted" ? 255 : 0;
  const isGrey = photometric.startsWith("grey");
  for (let i = 0; i < pixels; i++) {
    const at = i * n * step + high;
    for (let c = 0; c < 3; c++) {
      rgb[3 * i + c] = samples[at + (isGrey ? 0 : c * step)]! ^ invert;
    }
  }
  return rgb;
}

/**
 * Decodes the tile as the one strip of a TIFF made around it, by libtiff inside sharp: for
 * compressions that are too rare for a decoder of their own.
 */
async function decodeInTiff(tile: RawTile, compression: number): Promise<Uint8Array> {
  const { data, samplesPerPixel: n, bitsPerSample, littleEndian, photometric } = tile;
  const SHORT = 3, LONG = 4;
  const entries: [tag: number, type: number, value: number][] = [
    [256, LONG, tile.widthPx],
    [257, LONG, tile.heightPx],
    [258, SHORT, bitsPerSample],
    [259, SHORT, compression],
    [262, SHORT, photometric === "rgb" ? 2 : 1],
    [273, LONG, 0], // Set below.
    [277, SHORT, n],
    [278, LONG, tile.heightPx],
    [279, LONG, data.length],
    [284, SHORT, 1],
    [317, SHORT, tile.predictor === "horizontal" ? 2 : 1],
  ];
  const bitsAt = 8 + 2 + 12 * entries.length + 4;
  const dataAt = bitsAt + 2 * n;
  const file = new Uint8Array(dataAt + data.length);
  const out = new DataView(file.buffer);
  out.setUint16(0, littleEndian ? 0x4949 : 0x4d4d);
  out.setUint16(2, 42, littleEndian);
  out.setUint32(4, 8, littleEndian);
  out.setUint16(8, entries.length, littleEndian);
  for (const [i, [tag, type, value]] of entries.entries()) {
    const at = 10 + 12 * i;
    out.setUint16(at, tag, littleEndian);
    out.setUint16(at + 2, type, littleEndian);
    out.setUint32(at + 4, tag === 258 ? n : 1, littleEndian);
    if (tag === 258 && n > 2) out.setUint32(at + 8, bitsAt, littleEndian);
    else if (tag === 258) {
      for (let s = 0; s < n; s++) out.setUint16(at + 8 + 2 * s, bitsPerSample, littleEndian);
    } else if (tag === 273) out.setUint32(at + 8, dataAt, littleEndian);
    else if (type === SHORT) out.setUint16(at + 8, value, littleEndian);
    else out.setUint32(at + 8, value, littleEndian);
  }
  for (let s = 0; s < n; s++) out.setUint16(bitsAt + 2 * s, bitsPerSample, littleEndian);
  file.set(data, dataAt);

  const { default: sharp } = await import("sharp");
  sharp.cache(false); // Tiles are never decoded twice; our own cache holds them.
  const { data: samples, info } = await sharp(file, { failOn: "error" })
    .raw(bitsPerSample === 16 ? { depth: "ushort" } : {})
    .toBuffer({ resolveWithObject: true });
  if (info.width !== tile.widthPx || info.height !== tile.heightPx || info.channels !== n) {
    throw failure(tile, `it is ${info.width} × ${info.height} in ${info.channels} samples`);
  }
  if (bitsPerSample === 16 && !littleEndian) {
    Buffer.from(samples.buffer, samples.byteOffset, samples.byteLength).swap16();
  }
  return samples;
}

/** Marker codes (ITU-T T.81 table B.1). */
const SOI = 0xd8, SOS = 0xda, EOI = 0xd9, DHT = 0xc4, APP14 = 0xee;

/** What a JPEG stream says before its first scan. */
interface JpegHead {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly components: number;
  readonly precision: number;
  readonly sof: number;
  /** Where the bytes of the Adobe marker's transform lie; −1 where there is no such marker. */
  readonly adobeTransformAt: number;
}

/** Reads the markers up to the first scan (ITU-T T.81 §B.1). @throws {Error} where they are broken. */
function readJpegHead(data: Uint8Array): JpegHead {
  if (data[0] !== 0xff || data[1] !== SOI) throw new Error("it does not begin with SOI");
  let frame: Omit<JpegHead, "adobeTransformAt"> | undefined;
  let adobeTransformAt = -1;
  for (let at = 2;;) {
    if (data[at] !== 0xff) throw new Error(`there is no marker at byte ${at}`);
    while (data[at + 1] === 0xff) at++; // Fill bytes (§B.1.1.2).
    const marker = data[at + 1];
    if (marker === undefined) throw new Error("it ends before its first scan");
    if (marker === SOS) break;
    if (marker === EOI) throw new Error("it has no scan");
    const length = (data[at + 2] ?? 0) * 256 + (data[at + 3] ?? 0);
    if (length < 2 || at + 2 + length > data.length) {
      throw new Error(`the segment at byte ${at} is cut`);
    }
    if (marker >= 0xc0 && marker <= 0xcf && marker !== DHT && marker !== 0xc8 && marker !== 0xcc) {
      if (length < 8) throw new Error("its frame header is cut");
      frame = {
        sof: marker - 0xc0,
        precision: data[at + 4]!,
        heightPx: data[at + 5]! * 256 + data[at + 6]!,
        widthPx: data[at + 7]! * 256 + data[at + 8]!,
        components: data[at + 9]!,
      };
    }
    const isAdobe = marker === APP14 && length >= 14 &&
      [0x41, 0x64, 0x6f, 0x62, 0x65].every((byte, i) => data[at + 4 + i] === byte);
    if (isAdobe) adobeTransformAt = at + 15;
    at += 2 + length;
  }
  if (frame === undefined) throw new Error("it has no frame header");
  return { ...frame, adobeTransformAt };
}

/** An Adobe marker with transform 0: the components are RGB (Adobe Technical Note 5116, §18). */
const ADOBE_RGB = Uint8Array.from(
  [0xff, APP14, 0, 14, 0x41, 0x64, 0x6f, 0x62, 0x65, 0, 100, 0, 0, 0, 0, 0],
);

/**
 * A whole JPEG stream from a tile of a TIFF: the shared tables put behind SOI (TIFF Technical
 * Note 2), and components of photometric RGB marked as such, since decoders take three unmarked
 * components for YCbCr. (CMU-1-Small-Region.svs is such a slide.)
 * @throws {Error} where tile or tables are broken or their size is not the tile's.
 */
function assembleJpeg(tile: RawTile): { stream: Uint8Array<ArrayBuffer>; head: JpegHead } {
  const { data, jpegTables, photometric } = tile;
  const head = readJpegHead(data);
  if (head.widthPx !== tile.widthPx || head.heightPx !== tile.heightPx) {
    throw new Error(
      `its picture is ${head.widthPx} × ${head.heightPx}, the tile ` +
        `${tile.widthPx} × ${tile.heightPx}`,
    );
  }
  const isRgb = photometric === "rgb" && head.components === 3;
  let tables: Uint8Array = new Uint8Array();
  if (jpegTables !== undefined && jpegTables.length > 4) {
    const end = jpegTables.length - 2;
    if (
      jpegTables[0] !== 0xff || jpegTables[1] !== SOI || jpegTables[end] !== 0xff ||
      jpegTables[end + 1] !== EOI
    ) throw new Error("its shared tables are broken");
    tables = jpegTables.subarray(2, end);
  }
  const adobe = isRgb && head.adobeTransformAt < 0 ? ADOBE_RGB : new Uint8Array();
  if (tables.length + adobe.length === 0 && (!isRgb || data[head.adobeTransformAt] === 0)) {
    return { stream: data, head };
  }
  const stream = new Uint8Array(data.length + tables.length + adobe.length);
  stream.set(data.subarray(0, 2));
  stream.set(adobe, 2);
  stream.set(tables, 2 + adobe.length);
  stream.set(data.subarray(2), 2 + adobe.length + tables.length);
  if (isRgb && head.adobeTransformAt >= 0) stream[head.adobeTransformAt + tables.length] = 0;
  return { stream, head };
}

/** Five times slower; for platforms where libjpeg-turbo cannot be loaded. */
async function decodeJpegWithSharp(
  tile: RawTile,
  stream: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const { default: sharp } = await import("sharp");
  sharp.cache(false);
  const { data, info } = await sharp(stream, { failOn: "error" })
    .toColourspace("srgb").removeAlpha().raw().toBuffer({ resolveWithObject: true });
  if (info.channels !== 3) throw failure(tile, `it has ${info.channels} samples`);
  return new Uint8Array(data);
}
