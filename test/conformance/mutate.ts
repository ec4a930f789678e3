/**
 * Good slides and codec cases, and seeded damage to them: a file is cut, bits and bytes of it change,
 * its lengths, offsets and counts lie, pieces of it are moved, dropped or repeated.
 */

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { Uint8ArrayReader, Uint8ArrayWriter, ZipWriter } from "@zip.js/zip.js";
import { zstdDecompressSync } from "node:zlib";
import { MemorySource, type Source } from "../../src/slide/source.ts";
import { DATA_ROOT } from "../data.ts";
import { bytes as randomBytes, uniform } from "../reference/random.ts";
import { buildDicom, JPEG, positions } from "../slide/dicom_builder.ts";
import { SparseSource } from "../slide/sparse_source.ts";
import { buildTiff, jpeg, mixedImages, pattern, tiledImage } from "../slide/tiff_builder.ts";
import { encodeHtj2k, encodeJpeg2000, encodeJpegLs } from "../slide/wasm_encoders.ts";

const FIXTURES = join(import.meta.dirname!, "../fixtures");

/** A good file, by a name that says where it comes from. */
export interface Base {
  readonly name: string;
  readonly load: () => Promise<Uint8Array<ArrayBuffer>> | Uint8Array<ArrayBuffer>;
}

/** What a reader is given of a base's bytes, as they are or damaged. */
export function sourceOf(name: string, bytes: Uint8Array): Source {
  return name.endsWith(".parts")
    ? new SparseSource(bytes.subarray(0, 16), 2 ** 32, bytes.subarray(16))
    : new MemorySource(bytes, name);
}

/** Whether a base holds frames that are no slide, which are read by themselves. */
export function holdsFrames(name: string): boolean {
  return name.startsWith("dicom/");
}

function files(root: string, folder: string, wanted = /./): Base[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).sort()
    .filter((name) => wanted.test(name) && statSync(join(root, folder, name)).isFile())
    .map((name) => ({
      name: join(folder, name),
      load: () => new Uint8Array(readFileSync(join(root, folder, name))),
    }));
}

/** Every bad file of the data: what others found to break readers. */
export function listBad(): Base[] {
  return ["tiff-bad", "dicom-bad", "jpeg-bad", "j2k-bad"].flatMap((folder) =>
    files(DATA_ROOT, folder)
  );
}

/** Every good file of the data that are there, of the fixtures, and some that are built here. */
export function listBases(): Base[] {
  const asTile = ({ name, load }: Base, wrap: typeof wrapJpeg): Base => ({
    name: `tile/${name}`,
    load: async () => wrap(await load()),
  });
  const jpegs = files(DATA_ROOT, "jpeg", /\.jpg$/);
  const codestreams = [
    ...files(DATA_ROOT, "j2k", /\.(j2k|j2c|jp2|jph)$/),
    ...files(FIXTURES, "", /\.j2k$/),
  ];
  return [
    ...files(DATA_ROOT, "slides", /\.(svs|ndpi|tiff?|dcm|jpg)$/),
    ...files(DATA_ROOT, "tiff"),
    ...files(DATA_ROOT, "dicom").map(({ name, load }) => ({
      name,
      load: async () => {
        const bytes = await load();
        return name.endsWith(".zst") ? new Uint8Array(zstdDecompressSync(bytes)) : bytes;
      },
    })),
    ...jpegs,
    ...jpegs.map((base) => asTile(base, wrapJpeg)),
    ...codestreams.map((base) => asTile(base, wrapCodestream)),
    ...files(FIXTURES, "vendor", /^(?!digests).*/),
    ...BUILT,
  ];
}

const EXPLICIT = "1.2.840.10008.1.2.1";

const BUILT: readonly Base[] = [
  { name: "built/mixed.svs", load: async () => buildTiff(await mixedImages()).bytes },
  {
    name: "built/big-endian.tif",
    load: () => buildTiff([tiledImage({ seed: 3 })], { littleEndian: false, bigTiff: true }).bytes,
  },
  {
    name: "built/jpeg2000.tif",
    load: async () => wrapCodestream(await encodeJpeg2000(noise(67 * 61), 67, 61, 3, 8)),
  },
  {
    name: "built/htj2k.tif",
    load: async () => wrapCodestream(await encodeHtj2k(noise(67 * 61), 67, 61, 3, 8)),
  },
  { name: "built/jpeg-ls.dcm", load: () => dicomOf("1.2.840.10008.1.2.4.80", encodeJpegLs(1)) },
  { name: "built/jpeg2000.dcm", load: () => dicomOf("1.2.840.10008.1.2.4.90", encodeJpeg2000) },
  { name: "built/jpeg.dcm", load: () => level(64, 4) },
  {
    name: "built/sparse.dcm",
    load: () =>
      buildDicom({
        widthPx: 48,
        heightPx: 32,
        tilePx: [16, 16],
        organization: "TILED_SPARSE",
        frames: [5, 6, 7].map((seed) => pattern(16, 16, 3, seed)),
        elements: [positions([[33, 1], [1, 17], [17, 17]], true)],
      }).bytes,
  },
  { name: "built/stored.zip", load: () => zipOf(0) },
  { name: "built/deflated.zip", load: () => zipOf(6) },
];

function noise(pixels: number): Uint8Array {
  return randomBytes(3 * pixels, 17);
}

/** A level of JPEG frames. */
async function level(sidePx: number, seed: number): Promise<Uint8Array<ArrayBuffer>> {
  const frames = await Promise.all(
    [0, 1, 2, 3].map(async (i) => [await jpeg(pattern(32, 32, 3, seed + i), 32, 32)]),
  );
  return buildDicom({
    widthPx: sidePx,
    heightPx: sidePx,
    tilePx: [32, 32],
    transferSyntaxUid: JPEG,
    frames: frames.slice(0, (sidePx / 32) ** 2),
    table: "basic",
  }).bytes;
}

async function dicomOf(
  transferSyntaxUid: string,
  encode: typeof encodeJpeg2000,
): Promise<Uint8Array<ArrayBuffer>> {
  const frames = await Promise.all(
    [8, 9].map(async (seed) => [await encode(randomBytes(3 * 32 * 24, seed), 32, 24, 3, 8)]),
  );
  return buildDicom({ widthPx: 64, heightPx: 24, tilePx: [32, 24], transferSyntaxUid, frames })
    .bytes;
}

async function zipOf(compressionLevel: number): Promise<Uint8Array<ArrayBuffer>> {
  const writer = new ZipWriter(new Uint8ArrayWriter(), { useWebWorkers: false });
  const plain = buildDicom({
    widthPx: 16,
    heightPx: 16,
    tilePx: [16, 16],
    transferSyntaxUid: EXPLICIT,
    frames: [pattern(16, 16, 3, 3)],
  }).bytes;
  const members = { "a/1": await level(64, 1), "a/2": await level(32, 2), "a/3": plain };
  const lastModDate = new Date(2020, 1, 1); // The same file in every process.
  for (const [name, bytes] of Object.entries(members)) {
    const options = { level: compressionLevel, lastModDate };
    await writer.add(name, new Uint8ArrayReader(bytes), options);
  }
  return new Uint8Array(await writer.close());
}

/** A JPEG stream as the one tile of a TIFF, of the size and components that its header says. */
function wrapJpeg(stream: Uint8Array): Uint8Array<ArrayBuffer> {
  let at = 0;
  // SOF0 to SOF3 (ITU-T T.81 table B.1).
  while (at + 10 < stream.length && !(stream[at] === 0xff && (stream[at + 1]! & 0xfc) === 0xc0)) {
    at++;
  }
  const view = new DataView(stream.buffer, stream.byteOffset + at);
  const samples = view.getUint8(9);
  return wrap(stream, view.getUint16(7), view.getUint16(5), samples, 7, samples === 3 ? 6 : 1);
}

/** A JPEG 2000 codestream, or a file with one, as the one tile of a TIFF. */
function wrapCodestream(file: Uint8Array): Uint8Array<ArrayBuffer> {
  let at = 0; // SOC and SIZ (ITU-T T.800 table A.2).
  const start = [0xff, 0x4f, 0xff, 0x51];
  while (!start.every((byte, i) => file[at + i] === byte)) at++;
  const view = new DataView(file.buffer, file.byteOffset + at);
  const [width, height] = [8, 12].map((from) => view.getUint32(from) - view.getUint32(from + 8));
  const samples = view.getUint16(40);
  return wrap(file, width!, height!, samples, 34712, samples >= 3 ? 2 : 1);
}

function wrap(
  tile: Uint8Array,
  widthPx: number,
  heightPx: number,
  samples: number,
  compression: number,
  photometric: number,
): Uint8Array<ArrayBuffer> {
  const tilePx = [widthPx, heightPx] as const;
  return buildTiff([
    { widthPx, heightPx, tilePx, samples, compression, photometric, tiles: [tile] },
  ]).bytes;
}

/** Damaged bytes, and in words what was done to them. */
export interface Mutation {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly what: string;
}

/** Places where a file keeps numbers. */
interface Seams {
  readonly littleEndian: boolean;
  /** Fields of TIFF's directory entries and their counts and links: where, and how many bytes. */
  readonly fields: readonly (readonly [at: number, sizeBytes: number])[];
  /** Behind the markers of JPEG and JPEG 2000, the items of DICOM, the signatures of zip. */
  readonly markers: readonly number[];
  /** Runs of digits in descriptions. */
  readonly digits: readonly (readonly [at: number, length: number])[];
}

const seamsOf = new WeakMap<Uint8Array, Seams>();

/** Does one kind of damage, chosen by the seed as all of it is, to a copy. */
export function mutate(whole: Uint8Array, seed: number): Mutation {
  const random = uniform(seed);
  const below = (n: number) => Math.floor(random() * n);
  const pick = <T>(from: readonly T[]): T => from[below(from.length)]!;
  let seams = seamsOf.get(whole);
  if (seams === undefined) seamsOf.set(whole, seams = findSeams(whole));
  const { fields, markers, digits, littleEndian } = seams;
  const size = whole.length;
  const copy = new Uint8Array(whole);
  const view = new DataView(copy.buffer);
  const change = (what: string): Mutation => ({ bytes: copy, what });

  /** Lies in a number of 1, 2, 4 or 8 bytes; what lies past the end is left. */
  const lie = (at: number, sizeBytes: number, little: boolean): string => {
    const value = pick([
      ...[0, 1, 2, 255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 40, 2 ** 53],
      ...[
        2 ** 63,
        size - 1,
        size,
        size + 1,
        size >> 1,
        below(size),
        below(2 ** 16),
        below(2 ** 32),
      ],
    ]);
    if (at < 0 || at + sizeBytes > size) return "nothing";
    if (sizeBytes === 8) view.setBigUint64(at, BigInt(value), little);
    else if (sizeBytes === 4) view.setUint32(at, value >>> 0, little);
    else if (sizeBytes === 2) view.setUint16(at, value & 0xffff, little);
    else view.setUint8(at, value & 255);
    return `${value} in ${sizeBytes} bytes at ${at}`;
  };

  const kinds: (() => Mutation)[] = [
    () => {
      const length = pick([below(size), size - 1 - below(64), pick([0, ...markers]) + below(20)]);
      return { bytes: copy.slice(0, Math.max(0, length)), what: `cut to ${length} bytes` };
    },
    () => {
      const count = 1 + below(8);
      for (let i = 0; i < count; i++) copy[below(size)]! ^= 1 << below(8);
      return change(`${count} bits flipped`);
    },
    () => {
      const count = 1 + below(40);
      for (let i = 0; i < count; i++) copy[below(size)] = pick([0, 1, 255, 128, below(256)]);
      return change(`${count} bytes changed`);
    },
    () => {
      const at = below(size), length = 1 + below(200), value = pick([0, 255, 0x41]);
      copy.fill(value, at, at + length);
      return change(`${length} bytes at ${at} filled with ${value}`);
    },
    () => {
      const from = below(size), to = below(size), length = 1 + below(1000);
      copy.copyWithin(to, from, Math.min(from + length, size));
      return change(`${length} bytes from ${from} on copied to ${to}`);
    },
    () => {
      const at = below(size), length = 1 + below(pick([4, 100, 5000]));
      const bytes = new Uint8Array(size - Math.min(length, size - at));
      bytes.set(whole.subarray(0, at));
      bytes.set(whole.subarray(at + length), at);
      return { bytes, what: `${length} bytes at ${at} dropped` };
    },
    () => {
      const at = below(size), length = Math.min(1 + below(pick([4, 100, 5000])), size - at);
      const bytes = new Uint8Array(size + length);
      bytes.set(whole.subarray(0, at + length));
      bytes.set(whole.subarray(at), at + length);
      return { bytes, what: `${length} bytes at ${at} repeated` };
    },
    // Heads of most formats are numbers.
    () => change(lie(below(Math.min(size, 600)), pick([1, 2, 4, 8]), random() < 0.5)),
  ];
  if (markers.length > 0) {
    const inMarker = () => change(lie(pick(markers) + below(16), pick([1, 2, 2, 4]), false));
    const inItem = () => change(lie(pick(markers) + below(24), pick([2, 4, 4, 8]), true));
    kinds.push(inMarker, inMarker, inItem, inItem);
  }
  if (fields.length > 0) {
    const inField = () => change(lie(...pick(fields), littleEndian));
    const inFields = () =>
      change([1, 2, 3].map(() => lie(...pick(fields), littleEndian)).join("; "));
    kinds.push(inField, inField, inField, inField, inFields);
  }
  if (digits.length > 0) {
    kinds.push(() => {
      const [at, length] = pick(digits);
      const text = pick(["9".repeat(length), "0".repeat(length), "-", ".", "e", "1e9", " "]);
      copy.set(new TextEncoder().encode(text.slice(0, length)), at);
      return change(`digits at ${at} are now «${text.slice(0, length)}»`);
    });
  }
  return pick(kinds)();
}

/** Past so many of a kind the rest is like the first. */
const MAX_SEAMS = 20_000;

function findSeams(file: Uint8Array): Seams {
  const markers: number[] = [];
  for (let at = 0; at + 4 < file.length && markers.length < MAX_SEAMS; at++) {
    const [a, b, c, d] = file.subarray(at, at + 4);
    const isItem = a === 0xfe && b === 0xff && (c === 0x00 || c === 0x0d || c === 0xdd) &&
      d === 0xe0;
    const isZip = a === 0x50 && b === 0x4b;
    if ((a === 0xff && b! >= 0x4f && b !== 0xff) || isItem || isZip) markers.push(at + 2);
  }
  const digits: [number, number][] = [];
  const text = new TextDecoder("latin1").decode(file);
  for (const match of text.matchAll(/(?<=[="|> ]-?)\d+(?=[."|< \r\n]|$)/g)) {
    if (digits.push([match.index, match[0].length]) >= MAX_SEAMS) break;
  }
  const littleEndian = file[0] === 0x49;
  return { littleEndian, fields: tiffFields(file, littleEndian), markers, digits };
}

/** Every number of a TIFF's header and directories (TIFF 6.0 §2), as far as they can be followed. */
function tiffFields(file: Uint8Array, little: boolean): [at: number, sizeBytes: number][] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 16 || ![0x4949, 0x4d4d].includes(view.getUint16(0))) return [];
  const big = view.getUint16(2, little) === 43;
  const [countBytes, entryBytes, wideBytes] = big ? [8, 20, 8] as const : [2, 12, 4] as const;
  const wide = (at: number) =>
    big ? Number(view.getBigUint64(at, little)) : view.getUint32(at, little);
  const fields: [number, number][] = [[2, 2], [big ? 8 : 4, wideBytes]];
  const seen = new Set<number>();
  const next = [wide(big ? 8 : 4)];
  for (let at = next.pop(); at !== undefined; at = next.pop()) {
    if (at === 0 || seen.has(at) || at + countBytes > file.length) continue;
    seen.add(at);
    fields.push([at, countBytes]);
    const entries = big ? Number(view.getBigUint64(at, little)) : view.getUint16(at, little);
    const end = at + countBytes + entries * entryBytes;
    if (end + wideBytes > file.length) continue;
    for (let entry = at + countBytes; entry < end; entry += entryBytes) {
      const value = entry + entryBytes - wideBytes;
      fields.push([entry, 2], [entry + 2, 2], [entry + 4, wideBytes], [value, wideBytes]);
      if (view.getUint16(entry, little) === 330) next.push(wide(value)); // SubIFDs: the first.
      // What does not fit lies elsewhere: its first and its last number.
      const where = wide(value), count = wide(entry + 4);
      if (count > 4 && where + 4 * count <= file.length) {
        fields.push([where, 4], [where + 4 * (count - 1), 4]);
      }
    }
    fields.push([end, wideBytes]);
    next.push(wide(end));
  }
  return fields;
}
