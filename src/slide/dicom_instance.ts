/**
 * One DICOM file: its attributes, and its frames as raw tiles.
 *
 * DICOM PS3.10 §7 (file meta information), PS3.3 C.7.6.3 (Image Pixel), C.7.6.16 (multi-frame
 * functional groups), C.8.12.4 (whole slide microscopy). dcmjs reads values; what it is handed has
 * been walked over first, and holds nothing that tells of a patient.
 */

import { UnsupportedError } from "../errors.ts";
import {
  dicomError,
  type Element,
  type Encoding,
  PIXEL_DATA,
  walkElements,
} from "./dicom_elements.ts";
import { encapsulatedFrames, type Frames, nativeFrames } from "./dicom_frames.ts";
import { jpegColours } from "./codec.ts";
import { type Attributes, loadDcmJs, loadDictionary } from "./dcmjs.ts";
import { AttributeList } from "./dicom_properties.ts";
import { sampleBytes } from "./samples.ts";
import type { Compression, RawTile } from "./slide.ts";
import type { ByteRange, Source } from "./source.ts";

/** What a file says of itself before its data set. */
export interface FileMeta {
  readonly sopClassUid: string;
  readonly transferSyntaxUid: string;
  /** Where the file meta information begins, behind its own length, and where it ends. */
  readonly metaAt: number;
  readonly datasetAt: number;
  readonly listed: AttributeList;
}

/** A file of pixels. */
export interface Instance {
  readonly source: Source;
  /** Where the file has none, one that is its own. */
  readonly sopInstanceUid: string;
  /** Empty where the file has none. */
  readonly seriesInstanceUid: string;
  readonly pyramidUid: string | undefined;
  /** VOLUME, LABEL, OVERVIEW, THUMBNAIL: the third value of ImageType. */
  readonly flavour: string | undefined;
  /** Which part of what concatenation it is, and how many frames come before its own (PS3.3 C.7.6.16.2.2.4). */
  readonly concatenation:
    | {
      readonly uid: string;
      readonly number: number;
      readonly total: number | undefined;
      readonly frameOffset: number;
    }
    | undefined;
  /** Size of all tiles together. */
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tileWidthPx: number;
  readonly tileHeightPx: number;
  readonly frames: number;
  /** Columns times row, plus column, to frame; undefined where frames come row by row (TILED_FULL). */
  readonly places: ReadonlyMap<number, number> | undefined;
  readonly meta: FileMeta;
  /** All of them, and what of them is used here. */
  readonly listed: AttributeList;
  readonly attributes: Attributes;
  /** @throws {UnsupportedError} for pixels of a kind that is not read; {SlideFormatError}; {SourceError}. */
  readFrame(index: number, signal?: AbortSignal): Promise<RawTile>;
  readonly announce: Frames["announce"];
  /** What stands for a frame that is not there. @throws {UnsupportedError} as readFrame. */
  emptyTile(): RawTile;
}

/** SOP class of whole slide images (PS3.4 B.5). */
export const WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6";

/** How a transfer syntax writes pixels (PS3.5 annex A). */
const SYNTAXES: Readonly<Record<string, { compression: Compression; encapsulated: boolean }>> = {
  "1.2.840.10008.1.2": { compression: "none", encapsulated: false },
  "1.2.840.10008.1.2.1": { compression: "none", encapsulated: false },
  "1.2.840.10008.1.2.1.98": { compression: "none", encapsulated: true },
  "1.2.840.10008.1.2.4.50": { compression: "jpeg", encapsulated: true },
  "1.2.840.10008.1.2.4.51": { compression: "jpeg", encapsulated: true },
  "1.2.840.10008.1.2.4.80": { compression: "jpeg-ls", encapsulated: true },
  "1.2.840.10008.1.2.4.81": { compression: "jpeg-ls", encapsulated: true },
  "1.2.840.10008.1.2.4.90": { compression: "jpeg2000", encapsulated: true },
  "1.2.840.10008.1.2.4.91": { compression: "jpeg2000", encapsulated: true },
  "1.2.840.10008.1.2.4.201": { compression: "htj2k", encapsulated: true },
  "1.2.840.10008.1.2.4.202": { compression: "htj2k", encapsulated: true },
  "1.2.840.10008.1.2.4.203": { compression: "htj2k", encapsulated: true },
  "1.2.840.10008.1.2.5": { compression: "rle", encapsulated: true },
};

/** Names for refusing. */
const OTHER_SYNTAXES: Readonly<Record<string, string>> = {
  "1.2.840.10008.1.2.1.99": "deflated explicit little endian",
  "1.2.840.10008.1.2.2": "explicit big endian",
  "1.2.840.10008.1.2.4.57": "JPEG lossless",
  "1.2.840.10008.1.2.4.70": "JPEG lossless",
  "1.2.840.10008.1.2.4.92": "JPEG 2000 part 2",
  "1.2.840.10008.1.2.4.93": "JPEG 2000 part 2",
  "1.2.840.10008.1.2.4.110": "JPEG XL",
  "1.2.840.10008.1.2.4.111": "JPEG XL",
  "1.2.840.10008.1.2.4.112": "JPEG XL",
  "1.2.840.10008.1.2.8.1": "deflated frames",
};

/** How a frame of these codecs begins: a JPEG marker, or SOC and SIZ (ITU-T T.800 annex A). */
const FRAME_STARTS: Readonly<Partial<Record<Compression, readonly number[]>>> = {
  jpeg: [0xff, 0xd8, 0xff],
  "jpeg-ls": [0xff, 0xd8, 0xff],
  jpeg2000: [0xff, 0x4f, 0xff, 0x51],
  htj2k: [0xff, 0x4f, 0xff, 0x51],
};

const META_AT = 132, META_GROUP = 2, META_LENGTH = 0x00020000;
const EXPLICIT: Encoding = { explicit: true, littleEndian: true };
const IMPLICIT: Encoding = { explicit: false, littleEndian: true };

/**
 * Reads a file's meta information.
 * @returns undefined where the source is no DICOM file.
 * @throws {SlideFormatError} where it breaks the rules; {SourceError}.
 */
export async function readFileMeta(source: Source): Promise<FileMeta | undefined> {
  if (!isDicom(await source.read(0, META_AT))) return undefined;
  const uids = new Map<number, string>();
  const listed = new AttributeList();
  let metaAt = META_AT;
  const datasetAt = await walkElements(source, META_AT, EXPLICIT, (element) => {
    if (element.tag === META_LENGTH) metaAt = element.valueAt + (element.lengthBytes ?? 0);
    else listed.add(element, element.vr);
    if (element.vr === "UI") uids.set(element.tag, text(element));
    return "skip";
  }, META_GROUP);
  const sopClassUid = uids.get(0x00020002);
  const transferSyntaxUid = uids.get(0x00020010);
  if (sopClassUid === undefined || transferSyntaxUid === undefined) {
    throw dicomError(source, "its meta information names no SOP class or no transfer syntax");
  }
  return { sopClassUid, transferSyntaxUid, metaAt, datasetAt, listed };
}

/** Whether a file that begins so is a DICOM file (PS3.10 §7.1): 132 bytes tell. */
export function isDicom(head: Uint8Array): boolean {
  return [0x44, 0x49, 0x43, 0x4d].every((byte, i) => head[128 + i] === byte);
}

function text({ value }: Element): string {
  const { buffer, byteOffset, byteLength } = value();
  return new TextDecoder("latin1").decode(new Uint8Array(buffer, byteOffset, byteLength))
    .replace(/[\0 ]+$/, "");
}

/**
 * Groups whose attributes describe the picture and how it was taken, and never whom of. Of others
 * single attributes are known (below); private ones are not.
 */
const KEPT_GROUPS: ReadonlySet<number> = new Set([0x0018, 0x0020, 0x0022, 0x0028, 0x0048, 0x5200]);
/** Beside them: image type, SOP and pyramid UIDs, modality, maker, codes, frame types, slide coordinates. */
const KEPT_TAGS: ReadonlySet<number> = new Set([
  ...[0x00080008, 0x00080016, 0x00080018, 0x00080019, 0x00080060, 0x00080070, 0x00080100],
  ...[0x00080102, 0x00080104, 0x00081090, 0x00089007, 0x00089205, 0x00089206, 0x00089207],
  ...[0x00400710, 0x0040072a, 0x0040073a, 0x0040074a],
]);
/** StudyID and ProtocolName, which people fill in. */
const DROPPED_TAGS: ReadonlySet<number> = new Set([0x00200010, 0x00181030]);

/** Whether an attribute is parsed: it holds no name, number, date or label of a patient. */
function isHarmless(tag: number): boolean {
  return (KEPT_GROUPS.has(tag >>> 16) || KEPT_TAGS.has(tag)) && !DROPPED_TAGS.has(tag);
}

const NUMBER_OF_FRAMES = 0x00280008, DIMENSION_ORGANIZATION_TYPE = 0x00209311;
const PER_FRAME_FUNCTIONAL_GROUPS = 0x52009230;
const PLANE_POSITION_SLIDE = 0x0048021a;
const COLUMN_POSITION = 0x0048021e, ROW_POSITION = 0x0048021f;
const OPTICAL_PATH_IDENTIFICATION = 0x00480207, OPTICAL_PATH_IDENTIFIER = 0x00480106;
const EXTENDED_OFFSETS = 0x7fe00001, EXTENDED_LENGTHS = 0x7fe00002;

/** What may take as much as the pixels, and OpenSlide does not tell (libdicom, dicom-file.c). */
const UNLISTED: ReadonlySet<number> = new Set(
  [PER_FRAME_FUNCTIONAL_GROUPS, 0x00480200, EXTENDED_OFFSETS, EXTENDED_LENGTHS],
);

/** More elements than any data set has. */
const MAX_ELEMENTS = 2 ** 16;
/** Ten times those of a slide of 100,000 tiles. */
const MAX_POSITIONS = 2 ** 20;
/** Bytes of attributes, of which an ICC profile takes most. */
const MAX_ATTRIBUTE_BYTES = 2 ** 26;
/** Attributes nearer to each other are read at once. */
const READ_GAP_BYTES = 2 ** 16;
const MAX_FRAMES = 2 ** 31 - 1;
const MAX_TILE_BYTES = 2 ** 28;
/** Bytes that a frame may take beyond twice its decoded size, such as for a JPEG's profile. */
const FRAME_SLACK_BYTES = 2 ** 20;

/** A whole element, its head included. */
interface KeptElement extends ByteRange {
  readonly tag: number;
}

/** What a walk over a data set finds. */
interface Dataset {
  readonly kept: readonly KeptElement[];
  readonly listed: AttributeList;
  readonly pixelsAt: number;
  /** Undefined where they are encapsulated. */
  readonly pixelBytes: number | undefined;
  readonly extendedOffsets: ByteRange | undefined;
  readonly extendedLengths: ByteRange | undefined;
  /** By frame; undefined for one of which nothing is said. */
  readonly positions: readonly (FramePosition | undefined)[];
}

/** Where a frame's top left lies in the total pixel matrix, from 1 (PS3.3 C.8.12.6.1). */
interface FramePosition {
  column: number | undefined;
  row: number | undefined;
  opticalPath: string | undefined;
}

/**
 * Reads a file's attributes; of its pixels only where they lie.
 * @throws {SlideFormatError} where it breaks the rules; {UnsupportedError} where its transfer syntax
 *   is not read; {SourceError}.
 */
export async function readInstance(source: Source, meta: FileMeta): Promise<Instance> {
  const syntax = SYNTAXES[meta.transferSyntaxUid];
  if (syntax === undefined) {
    const name = OTHER_SYNTAXES[meta.transferSyntaxUid];
    const feature = `transfer syntax ${meta.transferSyntaxUid}${name ? ` (${name})` : ""}`;
    throw unsupported(source, feature);
  }
  const { vrOf } = await loadDictionary();
  const encoding = meta.transferSyntaxUid === "1.2.840.10008.1.2" ? IMPLICIT : EXPLICIT;
  const dataset = await walkDataset(source, meta.datasetAt, encoding, vrOf);
  const dict = await readAttributes(source, meta, dataset);

  const number = (tag: number, name: string, most: number, absent?: number) => {
    const [value = absent] = values(dict, tag);
    if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > most) {
      throw dicomError(
        source,
        `it has ${name} ${typeof value === "number" ? value : "missing or unreadable"}`,
      );
    }
    return value;
  };
  const tileHeightPx = number(0x00280010, "Rows", 65535);
  const tileWidthPx = number(0x00280011, "Columns", 65535);
  // Other images are of one tile.
  const isTiled = meta.sopClassUid === WHOLE_SLIDE;
  const widthPx = number(
    0x00480006,
    "TotalPixelMatrixColumns",
    2 ** 31,
    isTiled ? undefined : tileWidthPx,
  );
  const heightPx = number(
    0x00480007,
    "TotalPixelMatrixRows",
    2 ** 31,
    isTiled ? undefined : tileHeightPx,
  );
  const frames = number(NUMBER_OF_FRAMES, "NumberOfFrames", MAX_FRAMES, 1);
  const organization = texts(dict, DIMENSION_ORGANIZATION_TYPE)[0];
  const tiled = { widthPx, heightPx, tileWidthPx, tileHeightPx, frames };
  // Where nothing says, a picture of one tile needs no positions.
  const sparse = organization !== "TILED_FULL" &&
    (dataset.positions.length > 0 || widthPx > tileWidthPx || heightPx > tileHeightPx);
  const places = sparse ? readPlaces(source, dataset.positions, tiled) : undefined;
  const { layout, frames: pixels } = readPixels(source, meta, dataset, dict, tiled);
  const concatenationUid = texts(dict, 0x00209161)[0];
  return {
    source,
    sopInstanceUid: texts(dict, 0x00080018)[0] ?? source.location,
    seriesInstanceUid: texts(dict, 0x0020000e)[0] ?? "",
    pyramidUid: texts(dict, 0x00080019)[0],
    flavour: texts(dict, 0x00080008)[2],
    concatenation: concatenationUid === undefined ? undefined : {
      uid: concatenationUid,
      number: number(0x00209162, "InConcatenationNumber", 65535),
      total: numbers(dict, 0x00209163)[0],
      frameOffset: numbers(dict, 0x00209228)[0] ?? 0,
    },
    ...tiled,
    places,
    meta,
    listed: dataset.listed,
    attributes: dict,
    emptyTile() {
      if (typeof layout === "string") throw unsupported(source, layout);
      return { data: new Uint8Array(), ...layout };
    },
    announce: pixels.announce,
    async readFrame(index, signal) {
      if (!Number.isInteger(index) || index < 0 || index >= frames) {
        throw new RangeError(`Cannot read frame ${index} of ${frames}`);
      }
      if (typeof layout === "string") throw unsupported(source, layout);
      const data = await pixels.read(index, signal);
      const { compression, photometric } = layout;
      return {
        data,
        ...layout,
        // The label may be wrong, as in the CMU-1 series of jcupitt/dicom-wsi-sample.
        photometric: compression === "jpeg" && photometric === "rgb" && data.length > 0
          ? jpegColours(data)
          : photometric,
      };
    },
  };
}

function unsupported(source: Source, feature: string): UnsupportedError {
  return new UnsupportedError(
    `Cannot read the DICOM file "${source.location}": ${feature} is not supported`,
    feature,
  );
}

async function walkDataset(
  source: Source,
  datasetAt: number,
  encoding: Encoding,
  vrOf: (tag: number) => string,
): Promise<Dataset> {
  const kept: KeptElement[] = [];
  const listed = new AttributeList();
  const ranges = new Map<number, ByteRange>();
  const positions: FramePosition[] = [];
  /** The element before, where it is kept. */
  let last: Element | undefined;
  let pixels: Element | undefined;
  let elements = 0;
  let tiledFull = false;

  const visitTop = (element: Element) => {
    const { tag, offsetBytes, valueAt, lengthBytes } = element;
    if (last !== undefined) {
      const { tag, offsetBytes: at } = last;
      kept.push({ tag, offsetBytes: at, lengthBytes: offsetBytes - at });
      last = undefined;
    }
    if (++elements > MAX_ELEMENTS) throw dicomError(source, "it has too many attributes");
    if (tag === PIXEL_DATA) {
      pixels = element;
      return "stop";
    }
    if (lengthBytes !== undefined) ranges.set(tag, { offsetBytes: valueAt, lengthBytes });
    if (tag === DIMENSION_ORGANIZATION_TYPE) tiledFull = text(element) === "TILED_FULL";
    if (tag === PER_FRAME_FUNCTIONAL_GROUPS) return tiledFull ? "skip" : "enter";
    if (isHarmless(tag)) last = element;
    return "skip";
  };
  const visitFrame = (element: Element, frame: number) => {
    const { tag, path } = element;
    if (frame >= MAX_POSITIONS) throw dicomError(source, "it has positions of too many frames");
    const position = positions[frame] ??= {
      column: undefined,
      row: undefined,
      opticalPath: undefined,
    };
    if (path.length === 1) {
      return tag === PLANE_POSITION_SLIDE || tag === OPTICAL_PATH_IDENTIFICATION ? "enter" : "skip";
    }
    if (path.length === 2 && path[1] === PLANE_POSITION_SLIDE && element.lengthBytes === 4) {
      if (tag === COLUMN_POSITION) position.column = element.value().getInt32(0, true);
      if (tag === ROW_POSITION) position.row = element.value().getInt32(0, true);
    } else if (path.length === 2 && tag === OPTICAL_PATH_IDENTIFIER) {
      position.opticalPath = text(element);
    }
    return "skip";
  };
  const list = (element: Element) => {
    const vr = element.vr === "" ? vrOf(element.tag) : element.vr;
    if (vr === "SQ") return "enter";
    listed.add(element, vr);
    return "skip";
  };
  await walkElements(source, datasetAt, encoding, (element) => {
    const [top = element.tag] = element.path;
    if (top === PER_FRAME_FUNCTIONAL_GROUPS && element.path.length > 0) {
      return tiledFull ? "skip" : visitFrame(element, element.items[0]!);
    }
    const step = element.path.length === 0 ? visitTop(element) : "skip";
    return step === "skip" && !UNLISTED.has(top) ? list(element) : step;
  });
  if (pixels === undefined) throw dicomError(source, "it has no pixel data, or was cut before");
  return {
    kept,
    listed,
    pixelsAt: pixels.valueAt,
    pixelBytes: pixels.lengthBytes,
    extendedOffsets: ranges.get(EXTENDED_OFFSETS),
    extendedLengths: ranges.get(EXTENDED_LENGTHS),
    positions,
  };
}

/** Attributes of the kept elements, read from a file made of them alone. */
async function readAttributes(
  source: Source,
  { metaAt, datasetAt }: FileMeta,
  { kept }: Dataset,
): Promise<Attributes> {
  const ranges = [{ offsetBytes: metaAt, lengthBytes: datasetAt - metaAt }, ...kept];
  const keptBytes = ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  if (keptBytes > MAX_ATTRIBUTE_BYTES) {
    throw dicomError(source, `its attributes take ${keptBytes} bytes`);
  }
  const file = new Uint8Array(META_AT + 12 + keptBytes);
  file.set(new TextEncoder().encode("DICM"), 128);
  file.set([2, 0, 0, 0, 0x55, 0x4c, 4, 0], META_AT);
  new DataView(file.buffer).setUint32(META_AT + 8, datasetAt - metaAt, true);
  let at = META_AT + 12;
  for (let i = 0; i < ranges.length;) {
    const first = ranges[i]!.offsetBytes;
    let end = first;
    let next = i;
    while (next < ranges.length && ranges[next]!.offsetBytes - end < READ_GAP_BYTES) {
      end = ranges[next]!.offsetBytes + ranges[next]!.lengthBytes;
      next++;
    }
    const bytes = await source.read(first, end - first);
    for (; i < next; i++) {
      const { offsetBytes, lengthBytes } = ranges[i]!;
      file.set(bytes.subarray(offsetBytes - first, offsetBytes - first + lengthBytes), at);
      at += lengthBytes;
    }
  }
  const { data } = await loadDcmJs();
  const unreadable = "its attributes cannot be parsed";
  let dict: Attributes;
  try {
    ({ dict } = data.DicomMessage.readFile(file.buffer));
  } catch (cause) {
    // Its words are not repeated, since they may quote values.
    throw dicomError(source, unreadable, undefined, { cause });
  }
  // A value of an odd length is read beyond its end, and then all that follows is something else.
  if (kept.some(({ tag }) => !(key(tag) in dict))) throw dicomError(source, unreadable);
  return dict;
}

/** A tag as dcmjs writes it. */
function key(tag: number): string {
  return tag.toString(16).padStart(8, "0").toUpperCase();
}

/** An attribute's values. */
function values(attributes: Attributes | undefined, tag: number): readonly unknown[] {
  return attributes?.[key(tag)]?.Value ?? [];
}

/** An attribute's values that are numbers. */
export function numbers(attributes: Attributes | undefined, tag: number): number[] {
  return values(attributes, tag).filter((value) => typeof value === "number");
}

/** An attribute's values that are text and not empty. */
export function texts(attributes: Attributes | undefined, tag: number): string[] {
  return values(attributes, tag).filter((value) => typeof value === "string")
    .map((value) => value.trim()).filter((value) => value !== "");
}

/** The first item of a sequence. */
export function firstItem(attributes: Attributes | undefined, tag: number): Attributes | undefined {
  const [item] = values(attributes, tag);
  return typeof item === "object" && item !== null ? item as Attributes : undefined;
}

type Tiled = Pick<Instance, "widthPx" | "heightPx" | "tileWidthPx" | "tileHeightPx" | "frames">;

/** Which frame lies at which place of the grid; of several there (focal planes) the first. */
function readPlaces(
  source: Source,
  positions: Dataset["positions"],
  { widthPx, heightPx, tileWidthPx, tileHeightPx, frames }: Tiled,
): Map<number, number> {
  const columns = Math.ceil(widthPx / tileWidthPx);
  const places = new Map<number, number>();
  const path = positions[0]?.opticalPath;
  if (positions.length !== frames) {
    throw dicomError(source, `it has ${frames} frames and positions of ${positions.length}`);
  }
  for (let frame = 0; frame < frames; frame++) {
    const { column, row, opticalPath } = positions[frame] ?? {};
    if (
      column === undefined || row === undefined || column < 1 || row < 1 || column > widthPx ||
      row > heightPx
    ) {
      throw dicomError(source, `frame ${frame} lies at (${column}, ${row})`);
    }
    if ((column - 1) % tileWidthPx !== 0 || (row - 1) % tileHeightPx !== 0) {
      throw unsupported(source, "frames that overlap or lie apart");
    }
    const place = columns * ((row - 1) / tileHeightPx) + (column - 1) / tileWidthPx;
    if (opticalPath === path && !places.has(place)) places.set(place, frame);
  }
  return places;
}

type Layout = Omit<RawTile, "data">;

/** What frames are like, or words for why they are not read; and where they lie. */
function readPixels(
  source: Source,
  { transferSyntaxUid }: FileMeta,
  dataset: Dataset,
  dict: Attributes,
  { tileWidthPx, tileHeightPx, frames }: Tiled,
): { layout: Layout | string; frames: Frames } {
  const { compression, encapsulated } = SYNTAXES[transferSyntaxUid]!;
  const layout = readLayout(dict, compression, tileWidthPx, tileHeightPx);
  const { pixelsAt, pixelBytes } = dataset;
  if (encapsulated !== (pixelBytes === undefined)) {
    throw dicomError(
      source,
      `its pixel data ${encapsulated ? "are not encapsulated" : "have no length"}`,
      pixelsAt,
    );
  }
  const decodedBytes = typeof layout === "string" ? 0 : sampleBytes(layout);
  if (pixelBytes !== undefined) {
    if (pixelBytes < frames * decodedBytes) {
      throw dicomError(
        source,
        `its ${frames} frames of ${decodedBytes} bytes do not fit in ${pixelBytes}`,
        pixelsAt,
      );
    }
    return { layout, frames: nativeFrames(source, pixelsAt, decodedBytes) };
  }
  if (frames > (source.sizeBytes - pixelsAt) / 8) {
    throw dicomError(source, `it claims ${frames} frames, more than it can hold`, pixelsAt);
  }
  return {
    layout,
    frames: encapsulatedFrames(source, {
      itemsAt: pixelsAt,
      frames,
      extendedOffsets: dataset.extendedOffsets,
      extendedLengths: dataset.extendedLengths,
      startsWith: FRAME_STARTS[compression],
      maxFrameBytes: 2 * decodedBytes + FRAME_SLACK_BYTES,
    }),
  };
}

/** How the pixels of a frame lie and what they mean; words where they are of a kind that is not read. */
function readLayout(
  dict: Attributes,
  compression: Compression,
  widthPx: number,
  heightPx: number,
): Layout | string {
  const one = (tag: number, absent: number) => numbers(dict, tag)[0] ?? absent;
  const samplesPerPixel = one(0x00280002, 1);
  const bitsPerSample = one(0x00280100, 8);
  const bitsStored = one(0x00280101, bitsPerSample);
  const planar = one(0x00280006, 0) === 1;
  const interpretation = texts(dict, 0x00280004)[0] ?? "missing";
  const photometric = photometricOf(interpretation, compression);
  if (photometric === undefined || samplesPerPixel !== (photometric.startsWith("grey") ? 1 : 3)) {
    return `photometric interpretation ${interpretation} in ${samplesPerPixel} samples, ${compression}`;
  }
  if ((bitsPerSample !== 8 && bitsPerSample !== 16) || !(bitsStored <= bitsPerSample)) {
    return `${bitsStored} bits a sample in ${bitsPerSample}`;
  }
  if (one(0x00280103, 0) !== 0) return "signed samples";
  const highBit = one(0x00280102, bitsStored - 1);
  if (highBit !== bitsStored - 1) return `high bit ${highBit} of ${bitsStored}`;
  const subsampled = compression === "none" && interpretation === "YBR_FULL_422";
  if (subsampled && (bitsPerSample !== 8 || planar || widthPx % 2 !== 0)) {
    return "YBR_FULL_422 of other than 8 bits, in planes or of an odd width";
  }
  if (widthPx * heightPx * Math.max(3, samplesPerPixel) * bitsPerSample / 8 > MAX_TILE_BYTES) {
    return `a frame of ${widthPx} × ${heightPx} pixels`;
  }
  const planeBytes = widthPx * heightPx * bitsPerSample / 8;
  return {
    compression,
    widthPx,
    heightPx,
    samplesPerPixel,
    bitsPerSample,
    photometric,
    alpha: "none",
    predictor: "none",
    littleEndian: true,
    jpegTables: undefined,
    ...(bitsStored === bitsPerSample ? {} : { bitsStored }),
    ...(subsampled ? { subsampling: [2, 1] } : {}),
    // Codecs see to their planes themselves.
    ...(planar && compression === "none" && samplesPerPixel === 3
      ? { planeBytes: [planeBytes, planeBytes, planeBytes] }
      : {}),
  };
}

/** What a photometric interpretation means (PS3.3 C.7.6.3.1.2) of samples once decompressed (PS3.5 §8.2). */
function photometricOf(
  interpretation: string,
  compression: Compression,
): RawTile["photometric"] | undefined {
  const wavelets = compression === "jpeg2000" || compression === "htj2k";
  switch (interpretation) {
    case "MONOCHROME1":
      return "grey-inverted";
    case "MONOCHROME2":
      return "grey";
    case "RGB":
      return "rgb";
    case "YBR_FULL":
      return "ycbcr";
    case "YBR_FULL_422":
      return compression === "jpeg" || compression === "none" || wavelets ? "ycbcr" : undefined;
    case "YBR_ICT":
    case "YBR_RCT":
      return wavelets ? "rgb" : undefined;
    default:
      return undefined;
  }
}
