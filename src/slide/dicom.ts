/**
 * DICOM whole slide images: instances → levels, label, macro and thumbnail.
 *
 * DICOM PS3.3 A.32.8 and C.8.12.4 (VL Whole Slide Microscopy Image), C.7.6.17 (how frames tile the
 * total pixel matrix). What makes a slide of instances is OpenSlide's (openslide-vendor-dicom.c):
 * those of one series, told apart by the third value of ImageType.
 */

import { SlideFormatError, UnsupportedError } from "../errors.ts";
import { dicomError } from "./dicom_elements.ts";
import {
  firstItem,
  type Instance,
  numbers,
  readFileMeta,
  readInstance,
  WHOLE_SLIDE,
} from "./dicom_instance.ts";
import { formatDouble } from "./properties.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { RawTile } from "./slide.ts";
import type { Source } from "./source.ts";

/** Of TILED_SPARSE: with fewer there is no slide, but a header that claims one. */
const MAX_TILES_PER_FRAME = 1024;
/** Each keeps its file open. */
const MAX_INSTANCES = 1024;

/** By the third value of ImageType (PS3.3 C.8.12.4.1.1), named as OpenSlide does. */
const ASSOCIATED: Readonly<Record<string, string>> = {
  LABEL: "label",
  OVERVIEW: "macro",
  THUMBNAIL: "thumbnail",
};

/**
 * The slide of which `source` is an instance.
 * @param others sources beside it, among which the rest of its series is looked for; those that are
 *   not used are closed.
 * @throws {SlideFormatError} where it or an instance of its series breaks the rules, or there is no
 *   level; {UnsupportedError} where it is no whole slide image, or of a kind that is not read; {SourceError}.
 */
export async function openDicom(
  source: Source,
  others: Iterable<Source> = [],
): Promise<SlideParts> {
  const meta = await readFileMeta(source);
  if (meta === undefined) throw dicomError(source, "it does not begin as one");
  if (meta.sopClassUid !== WHOLE_SLIDE) throw noWholeSlide(source, meta.sopClassUid);
  const named = await readInstance(source, meta);
  const { instances } = await collect(others, named.seriesInstanceUid);
  try {
    return await assemble(instances, named);
  } catch (error) {
    for (const { source } of instances) await source.close();
    throw error;
  }
}

/**
 * The slide in a folder or an archive: of several series the one with the largest level.
 * @param where what they are in, for messages.
 * @throws as openDicom does.
 */
export async function openDicomSet(
  sources: Iterable<Source>,
  where: string,
): Promise<SlideParts> {
  const { instances, otherClass } = await collect(sources, undefined);
  try {
    const largest = instances.filter(isVolume).sort(bySize)[0];
    if (largest === undefined) {
      if (instances.length === 0 && otherClass !== undefined) {
        throw new UnsupportedError(
          `Cannot open "${where}": its DICOM files are of SOP class ${otherClass} and the like, and ` +
            `only whole slide images (${WHOLE_SLIDE}) are read`,
          `SOP class ${otherClass}`,
        );
      }
      throw new SlideFormatError(
        `Cannot open "${where}": ${
          instances.length === 0
            ? "none of its files is a DICOM file"
            : `none of its ${instances.length} DICOM files is a level of a slide`
        }`,
        { path: where, ...(instances.length === 0 ? {} : { format: "dicom" }) },
      );
    }
    return await assemble(instances, largest);
  } catch (error) {
    for (const { source } of instances) await source.close();
    throw error;
  }
}

function noWholeSlide(source: Source, sopClassUid: string): UnsupportedError {
  const feature = `SOP class ${sopClassUid}`;
  return new UnsupportedError(
    `Cannot open "${source.location}": it is a DICOM file of ${feature}, and only whole slide ` +
      `images (${WHOLE_SLIDE}) are read`,
    feature,
  );
}

/** Whole slide instances among sources, of one series where it is given; other sources are closed. */
async function collect(
  sources: Iterable<Source>,
  series: string | undefined,
): Promise<{ instances: Instance[]; otherClass: string | undefined }> {
  const instances: Instance[] = [];
  let otherClass: string | undefined;
  for (const source of sources) {
    let used = false;
    try {
      const meta = await readFileMeta(source);
      if (meta === undefined) continue;
      if (meta.sopClassUid !== WHOLE_SLIDE) {
        otherClass ??= meta.sopClassUid;
        continue;
      }
      const instance = await readInstance(source, meta);
      used = series === undefined || instance.seriesInstanceUid === series;
      if (used && instances.push(instance) > MAX_INSTANCES) {
        throw dicomError(source, `it is one of more than ${MAX_INSTANCES} instances`);
      }
    } catch (error) {
      // Beside a file that was named, a broken one may belong to anything.
      const other = error instanceof SlideFormatError || error instanceof UnsupportedError;
      if (series !== undefined && other) continue;
      for (const { source } of instances) await source.close();
      throw error;
    } finally {
      if (!used) await source.close();
    }
  }
  return { instances, otherClass };
}

function isVolume({ flavour }: Instance): boolean {
  return flavour === "VOLUME";
}

function bySize(a: Instance, b: Instance): number {
  return b.widthPx - a.widthPx || b.heightPx - a.heightPx;
}

/** One level, or one associated picture: an instance, or several that are parts of a concatenation. */
class DicomLevel implements TileGrid {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tileWidthPx: number;
  readonly tileHeightPx: number;
  readonly columns: number;
  readonly rows: number;
  /** In the order of their frames. */
  readonly parts: readonly Instance[];
  readonly announce: TileGrid["announce"];

  constructor(parts: readonly Instance[]) {
    const [first] = this.parts = orderParts(parts);
    this.widthPx = first.widthPx;
    this.heightPx = first.heightPx;
    this.tileWidthPx = first.tileWidthPx;
    this.tileHeightPx = first.tileHeightPx;
    this.columns = Math.ceil(this.widthPx / this.tileWidthPx);
    this.rows = Math.ceil(this.heightPx / this.tileHeightPx);
    this.announce = first.announce && ((tiles, signal) => this.#announce(tiles, signal));
    const frames = this.parts.reduce((sum, part) => sum + part.frames, 0);
    const tiles = this.columns * this.rows;
    if (first.places === undefined ? frames < tiles : tiles > MAX_TILES_PER_FRAME * (frames + 64)) {
      throw dicomError(
        first.source,
        `it has ${frames} frames for ${this.columns} × ${this.rows} tiles`,
      );
    }
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
    const found = this.#frameOf(column, row);
    return found === undefined
      ? this.parts[0]!.emptyTile()
      : await found.part.readFrame(found.frame, signal);
  }

  #announce(tiles: readonly { column: number; row: number }[], signal: AbortSignal): void {
    const frames = new Map<Instance, number[]>();
    for (const { column, row } of tiles) {
      const found = this.#frameOf(column, row);
      if (found === undefined) continue;
      const own = frames.get(found.part);
      if (own === undefined) frames.set(found.part, [found.frame]);
      else own.push(found.frame);
    }
    for (const [part, own] of frames) part.announce?.(own, signal);
  }

  #frameOf(column: number, row: number): { part: Instance; frame: number } | undefined {
    const place = row * this.columns + column;
    let before = 0;
    for (const part of this.parts) {
      // Focal planes and optical paths come after all tiles of the first (PS3.3 C.7.6.17.3).
      const frame = part.places === undefined ? place - before : part.places.get(place);
      if (frame !== undefined && frame < part.frames) return { part, frame };
      before += part.frames;
    }
  }
}

/** @throws {SlideFormatError} where a part is missing, comes twice or does not fit. */
function orderParts(parts: readonly Instance[]): readonly [Instance, ...Instance[]] {
  const ordered = [...parts].sort((a, b) =>
    (a.concatenation?.number ?? 1) - (b.concatenation?.number ?? 1)
  );
  const [first] = ordered as [Instance];
  let frames = 0;
  for (const [i, part] of ordered.entries()) {
    const { number = 1, frameOffset = 0 } = part.concatenation ?? {};
    if (number !== i + 1 || frameOffset !== frames) {
      throw dicomError(
        part.source,
        `it is part ${number} of a concatenation, from frame ${frameOffset}, and the parts before ` +
          `it have ${frames} frames`,
      );
    }
    if (
      part.tileWidthPx !== first.tileWidthPx || part.tileHeightPx !== first.tileHeightPx ||
      (part.places === undefined) !== (first.places === undefined)
    ) {
      throw dicomError(part.source, "its tiles are not those of the concatenation it belongs to");
    }
    frames += part.frames;
  }
  const total = first.concatenation?.total;
  if (total !== undefined && total !== ordered.length) {
    throw dicomError(
      first.source,
      `it is one of ${total} parts of a concatenation, and ${ordered.length} are there`,
    );
  }
  return ordered as [Instance, ...Instance[]];
}

/** Makes a slide of the instances that belong to `main`'s series and pyramid, and closes the others. */
async function assemble(instances: readonly Instance[], main: Instance): Promise<SlideParts> {
  const seen = new Set<string>();
  const used: Instance[] = [];
  // What was asked for comes first, so that a copy of it is what is dropped.
  for (const instance of [main, ...instances.filter((instance) => instance !== main)]) {
    const belongs = instance.seriesInstanceUid === main.seriesInstanceUid &&
      !seen.has(instance.sopInstanceUid) &&
      (!isVolume(instance) || !isVolume(main) || instance.pyramidUid === main.pyramidUid);
    if (belongs) {
      seen.add(instance.sopInstanceUid);
      used.push(instance);
    } else if (instance.source !== main.source) await instance.source.close();
  }
  const levels = groupParts(used.filter(isVolume)).map((parts) => new DicomLevel(parts))
    .sort((a, b) => bySize(a.parts[0]!, b.parts[0]!));
  const [largest] = levels;
  if (largest === undefined) {
    throw new SlideFormatError(
      `Cannot open "${main.source.location}": it is a DICOM ${main.flavour ?? "image"}, and no ` +
        `level of its series is there`,
      { path: main.source.location, format: "dicom" },
    );
  }
  const associated = new Map<string, DicomLevel>();
  for (const instance of used) {
    const name = ASSOCIATED[instance.flavour ?? ""];
    if (name === undefined) continue;
    if (associated.has(name)) {
      throw new UnsupportedError(
        `Cannot open "${instance.source.location}": its series has several pictures of the kind ` +
          `${name}`,
        `several pictures of the kind ${name}`,
      );
    }
    associated.set(name, new DicomLevel([instance]));
  }
  const properties = await readProperties(largest.parts[0]!);
  const all = { ...properties.all };
  for (const [name, { parts: [instance] }] of associated) {
    const profile = profileOf(instance!);
    if (profile) all[`openslide.associated.${name}.icc-size`] = String(profile.length);
  }
  return {
    format: "dicom",
    levels,
    properties: { ...properties, all },
    associated,
    background: [255, 255, 255],
    icc: profileOf(largest.parts[0]!),
    async close() {
      for (const { source } of used) await source.close();
    },
  };
}

/** The ICC profile of its first optical path (PS3.3 C.11.15). */
function profileOf({ attributes }: Instance): Uint8Array | undefined {
  const icc = firstItem(attributes, OPTICAL_PATHS)?.["00282000"]?.Value?.[0];
  return icc instanceof ArrayBuffer && icc.byteLength > 0 ? new Uint8Array(icc) : undefined;
}

/**
 * Instances by concatenation: each is a level.
 * @throws {UnsupportedError} where several are of the same size, such as focal planes in files of their own.
 */
function groupParts(instances: readonly Instance[]): Instance[][] {
  const groups = new Map<string, Instance[]>();
  for (const instance of instances) {
    const { widthPx, heightPx, concatenation, source } = instance;
    const size = `${widthPx} × ${heightPx}`;
    const group = groups.get(size);
    if (group === undefined) groups.set(size, [instance]);
    else if (concatenation !== undefined && group[0]!.concatenation?.uid === concatenation.uid) {
      group.push(instance);
    } else {
      const feature = `two levels of ${size} pixels in one series`;
      throw new UnsupportedError(`Cannot open "${source.location}": ${feature}`, feature);
    }
  }
  return [...groups.values()];
}

const OPTICAL_PATHS = 0x00480105, SHARED_FUNCTIONAL_GROUPS = 0x52009229;
const PIXEL_MEASURES = 0x00289110, PIXEL_SPACING = 0x00280030;
const OBJECTIVE_LENS_POWER = 0x00480112;
const IMAGED_VOLUME_WIDTH = 0x00480001, IMAGED_VOLUME_HEIGHT = 0x00480002;

async function readProperties(instance: Instance): Promise<SlideParts["properties"]> {
  const { source, attributes, meta, listed, widthPx, heightPx } = instance;
  const all = {
    ...await meta.listed.properties(source),
    ...await listed.properties(source),
  };
  const measures = firstItem(firstItem(attributes, SHARED_FUNCTIONAL_GROUPS), PIXEL_MEASURES);
  // Millimetres between rows, then between columns (PS3.3 10.7.1.3).
  const [spacingY, spacingX] = numbers(measures, PIXEL_SPACING);
  const [objectivePower] = numbers(firstItem(attributes, OPTICAL_PATHS), OBJECTIVE_LENS_POWER);
  if (spacingX !== undefined) all["openslide.mpp-x"] = formatDouble(spacingX * 1000);
  if (spacingY !== undefined) all["openslide.mpp-y"] = formatDouble(spacingY * 1000);
  if (objectivePower !== undefined) {
    all["openslide.objective-power"] = formatDouble(objectivePower);
  }
  const barcode = all["dicom.BarcodeValue"];
  if (barcode !== undefined) all["openslide.barcode"] = barcode;
  const [width] = numbers(attributes, IMAGED_VOLUME_WIDTH);
  const [height] = numbers(attributes, IMAGED_VOLUME_HEIGHT);
  return {
    vendor: "dicom",
    mppX: micrometres(spacingX) ?? micrometres(width && width / widthPx),
    mppY: micrometres(spacingY) ?? micrometres(height && height / heightPx),
    objectivePower: objectivePower && objectivePower > 0 ? objectivePower : undefined,
    all,
  };
}

function micrometres(millimetres: number | undefined): number | undefined {
  return millimetres !== undefined && millimetres > 0 ? millimetres * 1000 : undefined;
}
