/**
 * Philips TIFF: a tiled TIFF whose Software begins with "Philips" and whose first ImageDescription is
 * XML of DataObjects of type DPUfsImport.
 *
 * OpenSlide's description of the format (openslide-vendor-philips-tiff.c). Directories are levels in
 * order, padded to whole tiles; how much smaller a level really is its pixel spacing in the XML says.
 * Tiles without tissue are missing. Label and macro are strips, or JPEG in the XML.
 */

import { SlideFormatError } from "../errors.ts";
import { readJpegHead } from "./codec.ts";
import { formatDouble } from "./properties.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { RawTile } from "./slide.ts";
import type { Source } from "./source.ts";
import { TAG, type TiffDirectory, tiffProperties } from "./tiff.ts";
import { readXml, type XmlNode } from "./xml.ts";

const SCANNED_IMAGES = "PIM_DP_SCANNED_IMAGES";
const LEVELS = "PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE";
/** Larger first numbers among `levels=` are no objective's power. */
const MAX_OBJECTIVE = 200;

/** Whether the directories are those of a Philips TIFF. */
export function isPhilips([first]: readonly TiffDirectory[]): boolean {
  return first !== undefined && first.tiled &&
    (first.text(TAG.Software)?.startsWith("Philips") ?? false) &&
    (first.text(TAG.ImageDescription)?.includes("DPUfsImport") ?? false);
}

/**
 * The slide in the directories of a Philips TIFF.
 * @throws {SlideFormatError} where its XML is broken or does not fit its directories.
 */
export async function openPhilips(
  source: Source,
  directories: readonly TiffDirectory[],
): Promise<SlideParts> {
  const broken = (what: string) =>
    new SlideFormatError(`Cannot read the Philips TIFF "${source.location}": ${what}`, {
      path: source.location,
      format: "philips",
    });
  const first = directories[0]!;
  const root = readXml(first.text(TAG.ImageDescription) ?? "");
  if (root?.name !== "DataObject" || root.attribute("ObjectType") !== "DPUfsImport") {
    throw broken("its description is no XML of a DPUfsImport");
  }
  const images = objectsIn(attributeOf(root, SCANNED_IMAGES));
  const ofType = (type: string) =>
    images.filter((image) => attributeOf(image, "PIM_DP_IMAGE_TYPE")?.text === type);
  const [main, second] = ofType("WSI");
  if (main === undefined || second !== undefined) {
    throw broken(`its XML has ${ofType("WSI").length} whole-slide images where one is due`);
  }

  const tiled = directories.filter((directory) => directory.tiled);
  const spacings = objectsIn(attributeOf(main, LEVELS))
    .filter((object) => object.attribute("ObjectType") === "PixelDataRepresentation")
    .map((object) => readSpacing(attributeOf(object, "DICOM_PIXEL_SPACING")?.text));
  if (spacings.length !== tiled.length) {
    throw broken(`its XML has ${spacings.length} levels and the file ${tiled.length}`);
  }
  const levels = tiled.map((directory, level): TileGrid => {
    const spacing = spacings[level], spacing0 = spacings[0];
    if (spacing === undefined || spacing0 === undefined) {
      throw broken(`level ${level} has no pixel spacing`);
    }
    if (level === 0) return directory;
    if (!(directory.subfileType & 1)) {
      throw broken(`directory ${directory.index} is no smaller version of the first`);
    }
    // Powers of two, as far as is known; what is left over is rounding.
    const downsample = Math.round((spacing.xMm / spacing0.xMm + spacing.yMm / spacing0.yMm) / 2);
    const widthPx = Math.floor(first.widthPx / downsample);
    const heightPx = Math.floor(first.heightPx / downsample);
    if (
      !(downsample >= 1) || widthPx < 1 || heightPx < 1 || widthPx > directory.widthPx ||
      heightPx > directory.heightPx
    ) {
      throw broken(
        `level ${level} is ${directory.widthPx} × ${directory.heightPx} pixels, ` +
          `which ${downsample} times smaller than the first is not`,
      );
    }
    return withSize(directory, widthPx, heightPx, downsample);
  });

  const all = tiffProperties(first);
  // All of it is in properties of its own, pictures aside.
  delete all["openslide.comment"];
  delete all["tiff.ImageDescription"];
  addProperties(all, "philips", root, main);
  const mpp = readSpacing(all["philips.DICOM_PIXEL_SPACING"]);
  if (mpp !== undefined) {
    all["openslide.mpp-x"] = formatDouble(mpp.xMm * 1000);
    all["openslide.mpp-y"] = formatDouble(mpp.yMm * 1000);
  }
  const objectivePower = readObjective(all["philips.DICOM_DERIVATION_DESCRIPTION"] ?? "");
  if (objectivePower !== undefined) all["openslide.objective-power"] = String(objectivePower);
  const barcode = all["philips.PIM_DP_UFS_BARCODE"];
  if (barcode !== undefined) {
    all["openslide.barcode"] = new TextDecoder().decode(Buffer.from(barcode, "base64"));
  }

  const associated = new Map<string, TileGrid>();
  for (const directory of directories) {
    if (directory.tiled) continue;
    const description = directory.text(TAG.ImageDescription) ?? "";
    const name = (["label", "macro"] as const).find((name) =>
      description.toLowerCase().startsWith(name)
    );
    if (name !== undefined) associated.set(name, directory);
  }
  for (const name of ["label", "macro"]) {
    if (associated.has(name)) continue;
    const [image] = ofType(`${name.toUpperCase()}IMAGE`);
    const data = image && attributeOf(image, "PIM_DP_IMAGE_DATA")?.text;
    const grid = data && jpegGrid(Uint8Array.from(Buffer.from(data, "base64")));
    if (grid) associated.set(name, grid);
  }
  return {
    format: "philips",
    levels,
    properties: {
      vendor: "philips",
      mppX: mpp && mpp.xMm * 1000,
      mppY: mpp && mpp.yMm * 1000,
      objectivePower,
      all,
    },
    associated,
    background: [255, 255, 255],
    icc: await first.profile(),
    close: () => source.close(),
  };
}

/** The Attribute of a name right below a DataObject. */
function attributeOf(object: XmlNode, name: string): XmlNode | undefined {
  return object.children("Attribute").find((node) => node.attribute("Name") === name);
}

/** The DataObjects in an Attribute that is an array of them. */
function objectsIn(attribute: XmlNode | undefined): XmlNode[] {
  return attribute?.children("Array").flatMap((array) => array.children("DataObject")) ?? [];
}

/** Values of a DataObject as properties, those of the levels and of the whole-slide image with them. */
function addProperties(
  all: Record<string, string>,
  prefix: string,
  object: XmlNode,
  main: XmlNode,
): void {
  for (const node of object.children("Attribute")) {
    const name = node.attribute("Name");
    if (name === undefined) continue;
    if (name === SCANNED_IMAGES) {
      if (object !== main) addProperties(all, prefix, main, main);
    } else if (name === LEVELS) {
      for (const [i, level] of objectsIn(node).entries()) {
        addProperties(all, `${prefix}.${name}[${i}]`, level, main);
      }
    } else if (node.children().length === 0) all[`${prefix}.${name}`] = node.text;
  }
}

/** `"0.00025" "0.00025"`: millimetres from row to row, then from column to column (PS3.3 C.7.6.3.1.6, Pixel Spacing). */
function readSpacing(text: string | undefined): { xMm: number; yMm: number } | undefined {
  const [yMm, xMm, more] = (text ?? "").replaceAll('"', " ").trim().split(/\s+/).map(Number);
  if (more !== undefined || !isPositive(xMm) || !isPositive(yMm)) return undefined;
  return { xMm, yMm };
}

function isPositive(value: number | undefined): value is number {
  return value !== undefined && value > 0 && Number.isFinite(value);
}

/** The first number of `levels=` in a derivation such as `tiff-useBigTIFF=1-levels=40,10-processor=…`. */
function readObjective(derivation: string): number | undefined {
  for (const item of derivation.split("-")) {
    if (item.startsWith("sourceFilename=")) return undefined; // Quoted, with dashes of its own.
    const [, digits] = /^levels=(\d+)(?:,|$)/.exec(item) ?? [];
    const power = Number(digits);
    if (digits !== undefined) return power > 0 && power <= MAX_OBJECTIVE ? power : undefined;
  }
}

/** The top left part of a directory. */
function withSize(
  directory: TiffDirectory,
  widthPx: number,
  heightPx: number,
  downsample: number,
): TileGrid {
  const { tileWidthPx, tileHeightPx, columns, rows } = directory;
  return {
    widthPx,
    heightPx,
    tileWidthPx,
    tileHeightPx,
    columns,
    rows,
    downsample,
    readTile: (column, row, signal) => directory.readTile(column, row, signal),
    announce: directory.announce?.bind(directory),
  };
}

/** A whole JPEG as one tile; undefined where it is none. */
function jpegGrid(data: Uint8Array<ArrayBuffer>): TileGrid | undefined {
  let head: ReturnType<typeof readJpegHead>;
  try {
    head = readJpegHead(data);
  } catch {
    return undefined; // OpenSlide too has none then.
  }
  const { widthPx, heightPx, components } = head;
  if (widthPx === 0 || heightPx === 0) return undefined;
  const tile: RawTile = {
    data,
    compression: "jpeg",
    widthPx,
    heightPx,
    samplesPerPixel: components,
    bitsPerSample: 8,
    photometric: components === 1 ? "grey" : "ycbcr",
    alpha: "none",
    predictor: "none",
    littleEndian: true,
    jpegTables: undefined,
  };
  return {
    widthPx,
    heightPx,
    tileWidthPx: widthPx,
    tileHeightPx: heightPx,
    columns: 1,
    rows: 1,
    readTile: () => Promise.resolve(tile),
  };
}
