/**
 * Ventana BIF and TIFF: a TIFF whose first directory has XML with an iScan element in its XMLPacket.
 *
 * OpenSlide's description of the format (openslide-vendor-ventana.c). A description such as
 * `level=0 mag=40 quality=90` marks a level, `Label_Image` the macro and `Thumbnail` the thumbnail. In a
 * BIF level 0 has XML too: areas of tiles, where they lie, and for each pair of neighbours by how much
 * they overlap. All tiles are put at the mean distance, as OpenSlide does, weighted by confidence. A
 * tile of a smaller level holds the same tiles as level 0 does, smaller, and these overlap as well.
 */

import { SlideFormatError, UnsupportedError } from "../errors.ts";
import { Mosaic } from "./mosaic.ts";
import { formatDouble } from "./properties.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { Source } from "./source.ts";
import { TAG, type TiffDirectory, tiffProperties } from "./tiff.ts";
import { readXml, type XmlNode } from "./xml.ts";

const XML_PACKET = 700;
/** A downsample from which a level's tiles hold less than a pixel of level 0's. */
const MAX_DOWNSAMPLE = 4096;

/** Whether the directories are those of a Ventana slide. */
export function isVentana([first]: readonly TiffDirectory[]): boolean {
  return first !== undefined && readPacket(first)?.includes("<iScan") === true;
}

/** Tiles that were scanned together. */
interface Area {
  /** Place of its top left corner in pixels of level 0. */
  readonly xPx: number;
  readonly yPx: number;
  /** Its first tile in the directory of level 0. */
  readonly column: number;
  readonly row: number;
  readonly columns: number;
  readonly rows: number;
}

interface Stitching {
  readonly areas: readonly Area[];
  /** From one tile of level 0 to the next. */
  readonly advanceXPx: number;
  readonly advanceYPx: number;
}

/**
 * The slide in the directories of a Ventana BIF or TIFF.
 * @throws {SlideFormatError} where its XML is broken or does not fit its directories;
 *   {UnsupportedError} where tiles are joined in ways that are not known.
 */
export async function openVentana(
  source: Source,
  directories: readonly TiffDirectory[],
): Promise<SlideParts> {
  const broken = (what: string) =>
    new SlideFormatError(`Cannot read the Ventana slide "${source.location}": ${what}`, {
      path: source.location,
      format: "ventana",
    });
  const unsupported = (feature: string) =>
    new UnsupportedError(
      `Cannot read the Ventana slide "${source.location}": ${feature} is not supported`,
      feature,
    );
  const root = readXml(readPacket(directories[0]!) ?? "");
  const scan = root?.name === "iScan" ? root : root?.find("iScan");
  if (scan === undefined) throw broken("its XMLPacket has no iScan");

  const found: { directory: TiffDirectory; magnification: number }[] = [];
  const associated = new Map<string, TileGrid>();
  for (const directory of directories) {
    const description = directory.text(TAG.ImageDescription) ?? "";
    if (description.includes("level=")) {
      const fields = new Map(
        description.split(" ").map((pair) => {
          const [name = "", value = ""] = pair.split("=");
          return [name, value];
        }),
      );
      const magnification = Number(fields.get("mag") || NaN);
      if (fields.get("level") !== String(found.length)) {
        throw broken(`directory ${directory.index} is not level ${found.length}`);
      }
      if (!(magnification > 0 && magnification < (found.at(-1)?.magnification ?? Infinity))) {
        throw broken(`level ${found.length} has a magnification of ${fields.get("mag")}`);
      }
      if (!directory.tiled) throw broken(`level ${found.length} has no tiles`);
      found.push({ directory, magnification });
    } else if (description === "Label Image" || description === "Label_Image") {
      associated.set("macro", directory);
    } else if (description === "Thumbnail") associated.set("thumbnail", directory);
  }
  const [top] = found;
  if (top === undefined) throw broken("it has no level");
  const { tileWidthPx, tileHeightPx } = top.directory;
  const packet = readPacket(top.directory);
  const stitching = packet === undefined ? undefined : readStitching(packet, top.directory);

  const levels = found.map(({ directory, magnification }, level): TileGrid => {
    const downsample = top.magnification / magnification;
    if (directory.tileWidthPx !== tileWidthPx || directory.tileHeightPx !== tileHeightPx) {
      throw broken(`the tiles of level ${level} have another size than those of level 0`);
    }
    if (stitching === undefined) return withDownsample(directory, downsample);
    if (!Number.isInteger(downsample) || downsample > MAX_DOWNSAMPLE) {
      throw unsupported(`a level that is ${downsample} times smaller`);
    }
    const { areas, advanceXPx, advanceYPx } = stitching;
    let right = 0, bottom = 0;
    for (const { xPx, yPx, columns, rows } of areas) {
      right = Math.max(right, xPx + (columns - 1) * advanceXPx + tileWidthPx);
      bottom = Math.max(bottom, yPx + (rows - 1) * advanceYPx + tileHeightPx);
    }
    return new Mosaic({
      location: source.location,
      format: "ventana",
      widthPx: Math.ceil(right / downsample),
      heightPx: Math.ceil(bottom / downsample),
      downsample,
      areas: areas.map(({ xPx, yPx, column, row, columns, rows }) => ({
        directory,
        cellsPerTile: downsample,
        firstColumn: column,
        firstRow: row,
        columns,
        rows,
        xPx: xPx / downsample,
        yPx: yPx / downsample,
        advanceXPx: advanceXPx / downsample,
        advanceYPx: advanceYPx / downsample,
      })),
    });
  });

  const all = tiffProperties(top.directory);
  for (const [name, value] of scan.attributes) if (value !== "") all[`ventana.${name}`] = value;
  const power = all["ventana.Magnification"] ?? "";
  const objectivePower = /^\d+$/.test(power) ? positive(Number(power)) : undefined;
  if (objectivePower !== undefined) all["openslide.objective-power"] = String(objectivePower);
  const mpp = positive(Number(all["ventana.ScanRes"] ?? NaN));
  if (mpp !== undefined) all["openslide.mpp-x"] = all["openslide.mpp-y"] = formatDouble(mpp);
  for (const [i, { column, row, columns, rows }] of stitching?.areas.entries() ?? []) {
    const { advanceXPx, advanceYPx } = stitching!;
    const region = {
      x: Math.trunc(advanceXPx * column),
      y: Math.trunc(advanceYPx * row),
      width: Math.ceil(advanceXPx * (columns - 1) + tileWidthPx),
      height: Math.ceil(advanceYPx * (rows - 1) + tileHeightPx),
    };
    for (const [name, value] of Object.entries(region)) {
      all[`openslide.region[${i}].${name}`] = String(value);
    }
  }
  return {
    format: "ventana",
    levels,
    properties: { vendor: "ventana", mppX: mpp, mppY: mpp, objectivePower, all },
    associated,
    background: [255, 255, 255],
    icc: await top.directory.profile(),
    close: () => source.close(),
  };

  /** What the XML of level 0 says of a BIF's areas. */
  function readStitching(xml: string, directory: TiffDirectory): Stitching {
    const info = readXml(xml);
    const images = info?.find("SlideStitchInfo")?.children("ImageInfo") ?? [];
    const origins = info?.find("AoiOrigin")?.children() ?? [];
    if (info?.name !== "EncodeInfo" || images.length === 0 || images.length !== origins.length) {
      throw broken(`the XML of level 0 has ${images.length} areas and ${origins.length} origins`);
    }
    const number = (node: XmlNode, name: string) => {
      const value = node.number(name);
      if (value === undefined) throw broken(`the XML of level 0 has no ${name} in ${node.name}`);
      return value;
    };
    const areas: Area[] = [];
    const x = { sum: 0, weight: 0 }, y = { sum: 0, weight: 0 };
    for (const [i, image] of images.entries()) {
      if (number(image, "AOIScanned") === 0) continue;
      const origin = origins[i]!;
      const area: Area = {
        xPx: Math.trunc(number(image, "Pos-X")),
        yPx: Math.trunc(number(image, "Pos-Y")),
        column: number(origin, "OriginX") / tileWidthPx,
        row: number(origin, "OriginY") / tileHeightPx,
        columns: number(image, "NumCols"),
        rows: number(image, "NumRows"),
      };
      if (number(image, "Width") !== tileWidthPx || number(image, "Height") !== tileHeightPx) {
        throw broken(`area ${i} has tiles of another size than its directory`);
      }
      const { column, row, columns, rows } = area;
      const isWhole = [column, row, columns, rows].every(Number.isSafeInteger);
      if (
        !isWhole || column < 0 || row < 0 || columns < 1 || rows < 1 ||
        column + columns > directory.columns || row + rows > directory.rows
      ) {
        throw broken(
          `area ${i} has ${columns} × ${rows} tiles from (${column}, ${row}) on, ` +
            `and level 0 has ${directory.columns} × ${directory.rows}`,
        );
      }
      areas.push(area);
      for (const joint of image.children("TileJointInfo")) {
        const direction = joint.attribute("Direction");
        if (direction !== "RIGHT" && direction !== "UP") {
          throw unsupported(`a join of tiles to the ${direction}`);
        }
        const one = placeOf(number(joint, "Tile1"), area),
          two = placeOf(number(joint, "Tile2"), area);
        const isJoint = direction === "RIGHT"
          ? two.column === one.column + 1 && two.row === one.row
          : two.column === one.column && two.row === one.row - 1;
        if (!isJoint) throw broken(`area ${i} joins tiles that are no neighbours`);
        const weight = number(joint, "Confidence");
        const axis = direction === "RIGHT" ? x : y;
        axis.sum -= weight * number(joint, direction === "RIGHT" ? "OverlapX" : "OverlapY");
        axis.weight += weight;
      }
    }
    if (areas.length === 0) throw broken("the XML of level 0 has no area that was scanned");
    const advanceXPx = tileWidthPx + (x.weight > 0 ? x.sum / x.weight : 0);
    const advanceYPx = tileHeightPx + (y.weight > 0 ? y.sum / y.weight : 0);
    // Pos-Y is from the bottom of an area to some place below all of them.
    const heightOf = ({ rows }: Area) => Math.trunc((rows - 1) * advanceYPx + tileHeightPx);
    const topPx = areas.reduce((most, area) => Math.max(most, area.yPx + heightOf(area)), 0);
    return {
      areas: areas.map((area) => ({ ...area, yPx: topPx - area.yPx - heightOf(area) })),
      advanceXPx,
      advanceYPx,
    };
  }

  /** Where a tile is in its area; they are numbered from 1 from the bottom up, every other row from the right. */
  function placeOf(tile: number, { columns, rows }: Area): { column: number; row: number } {
    if (!Number.isSafeInteger(tile) || tile < 1 || tile > columns * rows) {
      throw broken(`it joins tile ${tile} of ${columns * rows}`);
    }
    const fromBottom = Math.floor((tile - 1) / columns);
    const along = (tile - 1) % columns;
    return {
      column: fromBottom % 2 === 0 ? along : columns - 1 - along,
      row: rows - 1 - fromBottom,
    };
  }
}

/** The text of XMLPacket (Adobe, «XMP Specification» part 3), of whatever type. */
function readPacket(directory: TiffDirectory): string | undefined {
  const text = directory.text(XML_PACKET);
  if (text !== undefined) return text;
  const bytes = directory.numbers(XML_PACKET);
  if (bytes.length === 0) return undefined;
  return new TextDecoder().decode(Uint8Array.from(bytes)).replace(/\0[^]*$/, "");
}

function withDownsample(directory: TiffDirectory, downsample: number): TileGrid {
  const { widthPx, heightPx, tileWidthPx, tileHeightPx, columns, rows } = directory;
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

function positive(value: number | undefined): number | undefined {
  return value !== undefined && value > 0 && Number.isFinite(value) ? value : undefined;
}
