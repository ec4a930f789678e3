/**
 * Trestle: a TIFF whose Software begins with "MedScan" and whose directories are all tiled.
 *
 * OpenSlide's description of the format (openslide-vendor-trestle.c). Directories are levels in order;
 * the description's `OverlapsXY` says by how many pixels the tiles of each overlap. XResolution and
 * YResolution are micrometres per pixel, whatever the unit says. The macro is in a file beside it,
 * which is not looked for.
 */

import { Mosaic } from "./mosaic.ts";
import { formatDouble } from "./properties.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { Source } from "./source.ts";
import { TAG, type TiffDirectory, tiffProperties } from "./tiff.ts";

/** Whether the directories are those of a Trestle slide. */
export function isTrestle(directories: readonly TiffDirectory[]): boolean {
  const [first] = directories;
  return first !== undefined && (first.text(TAG.Software)?.startsWith("MedScan") ?? false) &&
    first.text(TAG.ImageDescription) !== undefined && directories.every(({ tiled }) => tiled);
}

/**
 * The slide in the directories of a Trestle TIFF.
 * @throws {SlideFormatError} where tiles overlap by more than half.
 */
export async function openTrestle(
  source: Source,
  directories: readonly TiffDirectory[],
): Promise<SlideParts> {
  const first = directories[0]!;
  const all = tiffProperties(first);
  for (const part of (first.text(TAG.ImageDescription) ?? "").split(";")) {
    const at = part.indexOf("=");
    if (at >= 0) all[`trestle.${part.slice(0, at).trim()}`] = part.slice(at + 1).trim();
  }
  const overlaps = (all["trestle.OverlapsXY"] ?? "").trim().split(/\s+/).map(Number);
  const hasOverlaps = overlaps.some((overlap) => overlap > 0);
  const levels = directories.map((directory, level): TileGrid => {
    if (!hasOverlaps) return directory;
    const overlapX = overlaps[2 * level] || 0, overlapY = overlaps[2 * level + 1] || 0;
    const { widthPx, heightPx, tileWidthPx, tileHeightPx, columns, rows } = directory;
    return new Mosaic({
      location: source.location,
      format: "trestle",
      widthPx: widthPx - (columns - 1) * overlapX,
      heightPx: heightPx - (rows - 1) * overlapY,
      areas: [{
        directory,
        cellsPerTile: 1,
        firstColumn: 0,
        firstRow: 0,
        columns,
        rows,
        xPx: 0,
        yPx: 0,
        advanceXPx: tileWidthPx - overlapX,
        advanceYPx: tileHeightPx - overlapY,
      }],
    });
  });

  const mppX = positive(first.number(TAG.XResolution));
  const mppY = positive(first.number(TAG.YResolution));
  if (mppX !== undefined) all["openslide.mpp-x"] = formatDouble(mppX);
  if (mppY !== undefined) all["openslide.mpp-y"] = formatDouble(mppY);
  const power = all["trestle.Objective Power"] ?? "";
  const objectivePower = /^\d+$/.test(power) ? positive(Number(power)) : undefined;
  if (objectivePower !== undefined) all["openslide.objective-power"] = String(objectivePower);
  const [, colour] = /^([0-9a-fA-F]{6})$/.exec(all["trestle.Background Color"] ?? "") ?? [];
  if (colour !== undefined) all["openslide.background-color"] = colour.toUpperCase();
  const [red = 255, green = 255, blue = 255] =
    colour?.match(/../g)?.map((hex) => parseInt(hex, 16)) ?? [];
  return {
    format: "trestle",
    levels,
    properties: { vendor: "trestle", mppX, mppY, objectivePower, all },
    associated: new Map(),
    background: [red, green, blue],
    icc: await first.profile(),
    close: () => source.close(),
  };
}

function positive(value: number | undefined): number | undefined {
  return value !== undefined && value > 0 && Number.isFinite(value) ? value : undefined;
}
