/**
 * Aperio SVS: a tiled TIFF whose first ImageDescription begins with "Aperio".
 *
 * Aperio, «Digital Slides and Third-Party Data Interchange», and OpenSlide's description of the
 * format: tiled directories are levels in file order; strips are the thumbnail (directory 1), the
 * label (subfile type 1) and the macro (9). Tiles of byte count 0, which some encoders leave, are
 * made of the level before, as are those of the next levels that cover them, since those are
 * sometimes corrupt.
 */

import { formatDouble } from "./properties.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { RawTile } from "./slide.ts";
import type { Source } from "./source.ts";
import { TAG, type TiffDirectory, tiffProperties } from "./tiff.ts";

/** Whether the directories are an Aperio slide's. */
export function isAperio([first]: readonly TiffDirectory[]): boolean {
  return first !== undefined && first.tiled &&
    (first.text(TAG.ImageDescription)?.startsWith("Aperio") ?? false);
}

/** The slide in the directories of an Aperio file. */
export async function openAperio(
  source: Source,
  directories: readonly TiffDirectory[],
): Promise<SlideParts> {
  const all: Record<string, string> = tiffProperties(directories[0]!);
  for (const [name, value] of readDescription(directories[0]!.text(TAG.ImageDescription) ?? "")) {
    all[`aperio.${name}`] = value;
  }
  const mpp = double(all["aperio.MPP"]);
  const objectivePower = double(all["aperio.AppMag"]);
  if (mpp !== undefined) {
    all["openslide.mpp-x"] = all["openslide.mpp-y"] = formatDouble(mpp);
  }
  if (objectivePower !== undefined) all["openslide.objective-power"] = formatDouble(objectivePower);
  const associated = new Map<string, TileGrid>();
  for (const directory of directories) {
    if (directory.tiled) continue;
    const name = directory.index === 1
      ? "thumbnail"
      : ({ 1: "label", 9: "macro" } as const)[directory.subfileType as 1 | 9];
    if (name !== undefined) associated.set(name, directory);
  }
  return {
    format: "aperio",
    levels: withMissing(directories.filter(({ tiled }) => tiled)),
    properties: {
      vendor: "aperio",
      mppX: positive(mpp),
      mppY: positive(mpp),
      objectivePower: positive(objectivePower),
      all,
    },
    associated,
    background: [255, 255, 255],
    icc: await directories[0]!.profile(),
    close: () => source.close(),
  };
}

const MAX_LEVELS = 8;

/** The levels, from each of which missing tiles are missing, and what lies over them. */
function withMissing(levels: readonly TiffDirectory[]): TileGrid[] {
  let above = new Set<number>();
  return levels.map((level, i) => {
    const { columns, rows } = level;
    const missing = new Set<number>();
    const before = levels[i - 1];
    if (before !== undefined && above.size > 0) {
      const across = Math.max(1, Math.round(before.columns / columns));
      const down = Math.max(1, Math.round(before.rows / rows));
      for (const tile of above) {
        const column = Math.floor(tile % before.columns / across);
        const row = Math.floor(Math.floor(tile / before.columns) / down);
        if (column < columns && row < rows) missing.add(row * columns + column);
      }
    }
    const byteCounts = level.numbers(TAG.TileByteCounts);
    for (let tile = 0; tile < columns * rows; tile++) {
      if (Number(byteCounts[tile]) === 0) missing.add(tile);
    }
    above = missing;
    return missing.size === 0 ? level : new PartialLevel(level, missing, i - 1);
  });
}

/** A level some tiles of which are made of the one before; of the first, they are background. */
class PartialLevel implements TileGrid {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tileWidthPx: number;
  readonly tileHeightPx: number;
  readonly columns: number;
  readonly rows: number;
  readonly finer?: number;
  readonly announce: TileGrid["announce"];

  constructor(
    readonly directory: TiffDirectory,
    readonly missing: ReadonlySet<number>,
    before: number,
  ) {
    this.widthPx = directory.widthPx;
    this.heightPx = directory.heightPx;
    this.tileWidthPx = directory.tileWidthPx;
    this.tileHeightPx = directory.tileHeightPx;
    this.columns = directory.columns;
    this.rows = directory.rows;
    // A chain of levels that are all missing is no scanner's, and costs more with each.
    if (before >= 0 && before < MAX_LEVELS) this.finer = before;
    this.announce = directory.announce?.bind(directory);
  }

  async readTile(column: number, row: number, signal?: AbortSignal): Promise<RawTile> {
    const tile = await this.directory.readTile(column, row, signal);
    const isMissing = this.missing.has(row * this.columns + column);
    return isMissing ? { ...tile, data: new Uint8Array() } : tile;
  }
}

/** `Aperio …|Name = value|Name = value`: what follows the first bar, both sides trimmed. */
function* readDescription(description: string): Iterable<[name: string, value: string]> {
  for (const part of description.split("|").slice(1)) {
    const at = part.indexOf("=");
    if (at >= 0) yield [part.slice(0, at).trim(), part.slice(at + 1).trim()];
  }
}

function double(text: string | undefined): number | undefined {
  if (text === undefined || text === "") return undefined;
  const value = Number(text.replace(",", "."));
  return Number.isFinite(value) ? value : undefined;
}

function positive(value: number | undefined): number | undefined {
  return value !== undefined && value > 0 ? value : undefined;
}
