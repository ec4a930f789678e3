/**
 * The process that damaged files are read in: takes a Job a line on standard input, answers each with
 * a line that begins with ANSWER. Whoever started it ends it where it does not answer.
 */

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { CodecError, SlideFormatError, SourceError, UnsupportedError } from "../../src/errors.ts";
import { TileDecoder } from "../../src/slide/codec.ts";
import { readFileMeta, readInstance } from "../../src/slide/dicom_instance.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { RawTile, Slide } from "../../src/slide/slide.ts";
import { bytes as randomBytes, uniform } from "../reference/random.ts";
import { type Encode, encodeHtj2k, encodeJpeg2000, encodeJpegLs } from "../slide/wasm_encoders.ts";
import { holdsFrames, listBad, listBases, mutate, sourceOf } from "./mutate.ts";

/** A base to damage with a seed; without one it is read as it is. */
export interface Job {
  readonly name: string;
  readonly seed: number | undefined;
}

export interface Answer {
  /** What was done to the file. */
  readonly what: string;
  /** "read", or the class of the error that refused it. */
  readonly outcome: string;
  readonly message?: string;
  /** What must not be: an error of no type, a rejection that nobody handled, a wrong tile. */
  readonly problems: readonly string[];
  readonly ms: number;
  /** How much more memory the process took at its most, than before; 0 where that cannot be known. */
  readonly grewBytes: number;
}

/** Begins the lines that are answers: libraries may print. */
export const ANSWER = "\x1e";

/** Bases may have thousands of levels once they lie. */
const MOST_LEVELS = 12;
const REGION_PX = 64;

/** Tiles as they were before the damage, by base and place. */
interface Known {
  readonly raw: string;
  readonly decoded: string;
}

const bases = new Map([...listBases(), ...listBad()].map((base) => [base.name, base]));
const baselines = new Map<string, Map<string, Known>>();
/** Which compressed tiles each picture was decoded from, of all bases; none that are of few colours. */
const rawOf = new Map<string, Set<string>>();
/** What decodes on this thread and what does on another, each with what it decoded before. */
const decoders = [new TileDecoder(0), new TileDecoder(1)] as const;
const problems: string[] = [];

globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  problems.push(`a rejection that nobody handles: ${event.reason?.stack ?? event.reason}`);
});
globalThis.addEventListener("error", (event) => {
  event.preventDefault();
  problems.push(`an error that nobody catches: ${event.error?.stack ?? event.message}`);
});

function isTyped(error: unknown): error is Error {
  return error instanceof SlideFormatError || error instanceof UnsupportedError ||
    error instanceof CodecError || error instanceof SourceError;
}

/** Calls back for a few tiles of the file, after it has read regions and pictures of all levels. */
async function read(
  name: string,
  bytes: Uint8Array,
  seed: number,
  onTile: (place: string, tile: RawTile) => Promise<void>,
): Promise<void> {
  const source = sourceOf(name, bytes);
  if (holdsFrames(name)) {
    const meta = await readFileMeta(source);
    if (meta === undefined) {
      throw new SlideFormatError("no DICOM file", { path: name, format: "dicom" });
    }
    const instance = await readInstance(source, meta);
    for (let frame = 0; frame < Math.min(instance.frames, 4); frame++) {
      await onTile(`frame ${frame}`, await instance.readFrame(frame));
    }
    return;
  }
  // Threads and none take different ways.
  const slide = await openSlide(source, { decoders: seed % 4 === 3 ? 2 : 0 });
  try {
    await readRegions(slide, seed);
    for (const decode of slide.associated.values()) await tolerate(decode());
    for (const [level, at] of slide.levels.slice(0, MOST_LEVELS).entries()) {
      const columns = Math.ceil(at.widthPx / at.tileWidthPx);
      const rows = Math.ceil(at.heightPx / at.tileHeightPx);
      const places = new Map(
        [[0, 0], [columns - 1, rows - 1], [columns >> 1, rows >> 1]].map((at) => [String(at), at]),
      );
      for (const [column, row] of places.values() as Iterable<[number, number]>) {
        const tile = await tolerate(slide.rawTile(level, column, row));
        if (tile !== undefined) await onTile(`tile (${column}, ${row}) of level ${level}`, tile);
      }
    }
  } finally {
    await slide.close();
  }
}

let refused: Error | undefined;

/** Goes on after a typed error, which is kept: what lies behind it is damaged too. */
async function tolerate<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    // A mosaic may have fewer tiles than its size says.
    if (error instanceof RangeError && error.message.startsWith("Cannot read tile (")) return;
    if (!isTyped(error)) throw error;
    refused ??= error;
  }
}

async function readRegions(slide: Slide, seed: number): Promise<void> {
  const random = uniform(seed + 1);
  const size = { widthPx: REGION_PX, heightPx: REGION_PX };
  const expect = (data: Uint8Array | undefined) => {
    if (data !== undefined && data.length !== 3 * REGION_PX ** 2) {
      throw new Error(`a region of ${data.length} bytes`);
    }
  };
  for (const [level, { widthPx, heightPx, downsample }] of slide.levels.entries()) {
    if (level === MOST_LEVELS) break;
    const at = (px: number) => Math.floor(random() * px * downsample);
    const corner = (px: number) => Math.floor((px - 9) * downsample);
    for (
      const [x0Px, y0Px] of [[at(widthPx), at(heightPx)], [corner(widthPx), corner(heightPx)]] as [
        number,
        number,
      ][]
    ) {
      expect((await tolerate(slide.readRegion({ level, x0Px, y0Px, ...size })))?.data);
    }
  }
  const { mppX } = slide.properties;
  if (mppX === undefined) return;
  const region = { mpp: 2.7 * mppX, x0Px: 3, y0Px: 5, ...size };
  expect((await tolerate(slide.readRegion(region)))?.data);
}

const sha = (...parts: (Uint8Array | string)[]) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
};

/** Bytes and all that a decoder is told. */
function rawDigest({ data, palette, jpegTables, ...layout }: RawTile): string {
  return sha(data, palette ?? "", jpegTables ?? "", JSON.stringify(layout));
}

/** Whether a picture has colours enough that no other is the same by chance. */
function isTelling(rgb: Uint8Array): boolean {
  const colours = new Set<number>();
  for (let i = 0; i + 2 < rgb.length; i += 3) {
    colours.add(rgb[i]! << 16 | rgb[i + 1]! << 8 | rgb[i + 2]!);
    if (colours.size > 16) return true;
  }
  return false;
}

async function baselineOf(name: string, bytes: Uint8Array): Promise<Map<string, Known>> {
  const known = baselines.get(name);
  if (known !== undefined) return known;
  const baseline = new Map<string, Known>();
  baselines.set(name, baseline);
  const remember = async (place: string, tile: RawTile) => {
    if (tile.data.length === 0) return;
    const rgb = await tolerate(decoders[0].decode(tile));
    if (rgb === undefined) return;
    await makePrimer(tile);
    const raw = rawDigest(tile), decoded = sha(rgb);
    baseline.set(place, { raw, decoded });
    if (!isTelling(rgb)) return;
    const raws = rawOf.get(decoded) ?? new Set();
    rawOf.set(decoded, raws.add(raw));
  };
  try {
    await read(name, bytes, 0, remember);
  } catch (error) {
    if (!isTyped(error)) throw error; // Some are of kinds that are not read.
  }
  return baseline;
}

const ENCODERS: Readonly<Partial<Record<RawTile["compression"], Encode>>> = {
  "jpeg2000": encodeJpeg2000,
  "htj2k": encodeHtj2k,
  "jpeg-ls": encodeJpegLs(1),
};
/** Noise, by the size and kind of tiles that it is as. */
const primers = new Map<string, RawTile>();
/** A larger tile takes the encoder seconds. */
const MOST_PRIMER_PX = 2 ** 19;

function primerKey(tile: RawTile): string {
  const { compression, widthPx, heightPx, samplesPerPixel, bitsPerSample, bitsStored } = tile;
  return [compression, widthPx, heightPx, samplesPerPixel, bitsStored ?? bitsPerSample].join();
}

async function makePrimer(tile: RawTile): Promise<void> {
  const { compression, widthPx, heightPx, samplesPerPixel, bitsPerSample } = tile;
  const { bitsStored: bits = bitsPerSample } = tile;
  const encode = ENCODERS[compression];
  const key = primerKey(tile);
  if (
    encode === undefined || ![1, 3].includes(samplesPerPixel) || bits < 8 ||
    widthPx * heightPx > MOST_PRIMER_PX || primers.has(key)
  ) return;
  const values = randomBytes(widthPx * heightPx * samplesPerPixel, 23);
  const data = await encode(values, widthPx, heightPx, samplesPerPixel, bits);
  const photometric = samplesPerPixel === 3 ? "rgb" : "grey";
  primers.set(key, { ...tile, data, photometric });
}

/**
 * Decodes noise of a tile's size and kind, so that a library that returns what it decoded before where
 * it fails returns that.
 */
async function prime(decoder: TileDecoder, tile: RawTile): Promise<void> {
  const primer = primers.get(primerKey(tile));
  if (primer === undefined) return;
  rawOf.set(sha(await decoder.decode(primer)), new Set([rawDigest(primer)]));
}

/** A tile of a damaged file is what it was where its bytes are, and no other file's where they are not. */
async function check(
  baseline: Map<string, Known>,
  decoder: TileDecoder,
  place: string,
  tile: RawTile,
): Promise<void> {
  if (tile.data.length === 0) return;
  await prime(decoder, tile);
  const rgb = await tolerate(decoder.decode(tile));
  const known = baseline.get(place);
  const raw = rawDigest(tile);
  if (rgb === undefined) {
    if (known?.raw === raw) problems.push(`${place} is not decoded, though it is as it was`);
    return;
  }
  if (rgb.length !== 3 * tile.widthPx * tile.heightPx) {
    problems.push(`${place} gave ${rgb.length} bytes`);
  }
  const decoded = sha(rgb);
  if (known?.raw === raw && known.decoded !== decoded) {
    problems.push(`${place} is another picture, though it is as it was`);
  }
  const raws = rawOf.get(decoded);
  if (raws === undefined || raws.has(raw) || known?.decoded === decoded) return;
  // Some files are of the same pixels, and differ in how they are kept: a decoder that has seen no
  // other tile says the same of those.
  const fresh = new TileDecoder(1);
  const again = await tolerate(fresh.decode(tile));
  fresh.close();
  if (again === undefined || sha(again) !== decoded) {
    problems.push(`${place} is the picture of another tile`);
  }
}

/** Resident memory now and the most of it since `resetPeak`; undefined where there is no /proc. */
function memory(): { now: number; peak: number } | undefined {
  try {
    const status = readFileSync("/proc/self/status", "latin1");
    const kilobytes = (name: string) => Number(status.match(`${name}:\\s+(\\d+)`)?.[1]);
    return { now: 1024 * kilobytes("VmRSS"), peak: 1024 * kilobytes("VmHWM") };
  } catch {
    return undefined;
  }
}

function resetPeak(): void {
  try {
    writeFileSync("/proc/self/clear_refs", "5"); // proc(5).
  } catch {
    // The growth is then the most since the process began, at least what it is.
  }
}

async function run({ name, seed }: Job): Promise<Answer> {
  const whole = await bases.get(name)!.load();
  const baseline = await baselineOf(name, whole);
  refused = undefined;
  problems.length = 0;
  const { bytes, what } = seed === undefined ? { bytes: whole, what: "" } : mutate(whole, seed);
  (globalThis as { gc?: () => void }).gc?.();
  resetPeak();
  const before = memory();
  const start = performance.now();
  const decoder = decoders[seed === undefined ? 0 : seed % 2]!;
  try {
    await read(name, bytes, seed ?? 0, (place, tile) => check(baseline, decoder, place, tile));
  } catch (error) {
    refused = error as Error;
    if (!isTyped(error)) {
      problems.push(`no typed error: ${error instanceof Error ? error.stack : error}`);
    }
  }
  const ms = performance.now() - start;
  const after = memory();
  await new Promise((resolve) => setTimeout(resolve)); // A rejection nobody handles is told of now.
  return {
    what,
    outcome: refused?.name ?? "read",
    ...(refused === undefined ? {} : { message: refused.message }),
    problems: [...problems],
    ms,
    grewBytes: before && after ? Math.max(0, after.peak - before.now) : 0,
  };
}

if (import.meta.main) {
  const lines = process.stdin.setEncoding("utf8");
  let text = "";
  for await (const piece of lines) {
    text += piece;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      const answer = await run(JSON.parse(text.slice(0, end)));
      text = text.slice(end + 1);
      console.log(ANSWER + JSON.stringify(answer));
    }
  }
  for (const decoder of decoders) decoder.close();
}
