/** Levels put together of tiles that overlap, lie apart or come from several directories of a TIFF. */

import { SlideFormatError, UnsupportedError } from "../errors.ts";
import type { Placement, TileGrid } from "./region.ts";
import type { RawTile } from "./slide.ts";
import type { TiffDirectory } from "./tiff.ts";

/** A rectangle of cells that lie at even distances; a cell is a tile of a directory, or a part of one. */
export interface MosaicArea {
  readonly directory: TiffDirectory;
  /** Cells side by side in one tile, and below each other; 1 where a cell is a tile. */
  readonly cellsPerTile: number;
  /** The first cell, counted in the directory's, and how many there are. */
  readonly firstColumn: number;
  readonly firstRow: number;
  readonly columns: number;
  readonly rows: number;
  /** Where the first cell's corner lies in the level, and how far it is to the next. */
  readonly xPx: number;
  readonly yPx: number;
  readonly advanceXPx: number;
  readonly advanceYPx: number;
}

export interface MosaicParts {
  /** Of the file, and its format's name: for errors. */
  readonly location: string;
  readonly format: string;
  readonly widthPx: number;
  readonly heightPx: number;
  /** At least one. */
  readonly areas: readonly MosaicArea[];
  readonly downsample?: number;
  /** Whether areas are moved to whole pixels of what is read, towards its corner. */
  readonly snaps?: boolean;
}

/** A larger level is a lie: 2 metres at 1 nm a pixel. */
const MAX_LEVEL_PX = 2 ** 31;

/**
 * A level of areas. Where they overlap the first is seen, and where cells of one directory do, the one
 * that is below or to the right in it, as in OpenSlide (openslide-grid.c, read_tiles: from the last on,
 * what was painted first stays).
 */
export class Mosaic implements TileGrid {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly downsample?: number;
  readonly tileWidthPx: number;
  readonly tileHeightPx: number;
  /** Tiles of all directories side by side. */
  readonly columns: number;
  readonly rows: number;
  readonly announce: TileGrid["announce"];
  readonly #areas: readonly MosaicArea[];
  readonly #snaps: boolean;
  /** Where each directory's tiles begin among the columns. */
  readonly #columnOf = new Map<TiffDirectory, number>();

  /**
   * @throws {SlideFormatError} where areas lie outside their directories or cells overlap by more than
   *   half; {UnsupportedError} where directories differ in the size of their tiles.
   */
  constructor(
    { location, format, widthPx, heightPx, areas, downsample, snaps = false }: MosaicParts,
  ) {
    const [first] = areas;
    if (first === undefined) throw new RangeError("Cannot make a level without areas");
    const { tileWidthPx, tileHeightPx } = first.directory;
    this.widthPx = widthPx;
    this.heightPx = heightPx;
    this.tileWidthPx = tileWidthPx;
    this.tileHeightPx = tileHeightPx;
    if (downsample !== undefined) this.downsample = downsample;
    this.#areas = areas;
    this.#snaps = snaps;
    const broken = (what: string) =>
      new SlideFormatError(`Cannot read the level of "${location}": ${what}`, {
        path: location,
        format,
      });
    for (const side of [widthPx, heightPx]) {
      if (!Number.isInteger(side) || side < 1 || side > MAX_LEVEL_PX) {
        throw broken(`it is ${widthPx} × ${heightPx} pixels`);
      }
    }
    let columns = 0, rows = 0;
    for (const area of areas) {
      const { directory, cellsPerTile: cells } = area;
      if (directory.tileWidthPx !== tileWidthPx || directory.tileHeightPx !== tileHeightPx) {
        throw new UnsupportedError(
          `Cannot read the level of "${location}": tiles of several sizes are not supported`,
          "tiles of several sizes",
        );
      }
      const isInside = area.firstColumn >= 0 && area.firstRow >= 0 && area.columns >= 1 &&
        area.rows >= 1 && area.firstColumn + area.columns <= directory.columns * cells &&
        area.firstRow + area.rows <= directory.rows * cells;
      if (!isInside) {
        throw broken(
          `it has ${area.columns} × ${area.rows} cells from (${area.firstColumn}, ` +
            `${area.firstRow}) on, directory ${directory.index} ` +
            `${directory.columns * cells} × ${directory.rows * cells}`,
        );
      }
      if (
        !(area.advanceXPx >= tileWidthPx / cells / 2) ||
        !(area.advanceYPx >= tileHeightPx / cells / 2) ||
        ![area.xPx, area.yPx, area.advanceXPx, area.advanceYPx].every((px) =>
          Math.abs(px) <= MAX_LEVEL_PX
        )
      ) {
        throw broken(
          `its cells lie ${area.advanceXPx} × ${area.advanceYPx} pixels apart ` +
            `from (${area.xPx}, ${area.yPx}) on`,
        );
      }
      if (this.#columnOf.has(directory)) continue;
      this.#columnOf.set(directory, columns);
      columns += directory.columns;
      rows = Math.max(rows, directory.rows);
    }
    this.columns = columns;
    this.rows = rows;
    if (first.directory.announce === undefined) return;
    this.announce = (tiles, signal) => {
      for (const [directory, first] of this.#columnOf) {
        const own = tiles.filter(({ column }) =>
          column >= first && column < first + directory.columns
        );
        if (own.length === 0) continue;
        directory.announce?.(
          own.map(({ column, row }) => ({ column: column - first, row })),
          signal,
        );
      }
    };
  }

  placements(
    xPx: number,
    yPx: number,
    widthPx: number,
    heightPx: number,
  ): Iterable<Placement> {
    const placements: (Placement & { readonly cellColumn: number; readonly cellRow: number })[] =
      [];
    for (const area of this.#areas) {
      const { directory, cellsPerTile } = area;
      const areaXPx = this.#snaps ? xPx + Math.trunc(area.xPx - xPx) : area.xPx;
      const areaYPx = this.#snaps ? yPx + Math.trunc(area.yPx - yPx) : area.yPx;
      const cellWidthPx = this.tileWidthPx / cellsPerTile;
      const cellHeightPx = this.tileHeightPx / cellsPerTile;
      const columns = span(xPx, widthPx, areaXPx, area.advanceXPx, cellWidthPx, area.columns);
      const rows = span(yPx, heightPx, areaYPx, area.advanceYPx, cellHeightPx, area.rows);
      for (let row = rows.last; row >= rows.first; row--) {
        for (let column = columns.last; column >= columns.first; column--) {
          const cellColumn = area.firstColumn + column, cellRow = area.firstRow + row;
          const x = cut(cellColumn, cellsPerTile, this.tileWidthPx, directory.widthPx);
          const y = cut(cellRow, cellsPerTile, this.tileHeightPx, directory.heightPx);
          const cellXPx = areaXPx + column * area.advanceXPx;
          const cellYPx = areaYPx + row * area.advanceYPx;
          // By the cell's own size: what it has of a last pixel shows nothing by itself.
          const isSeen = x.sizePx > 0 && y.sizePx > 0 && cellXPx + cellWidthPx > xPx &&
            cellYPx + cellHeightPx > yPx && cellXPx < xPx + widthPx && cellYPx < yPx + heightPx;
          if (!isSeen) continue;
          placements.push({
            cellColumn,
            cellRow,
            column: this.#columnOf.get(directory)! + x.tile,
            row: y.tile,
            tileXPx: x.fromPx,
            tileYPx: y.fromPx,
            tileEndXPx: x.endPx,
            tileEndYPx: y.endPx,
            widthPx: x.sizePx,
            heightPx: y.sizePx,
            xPx: cellXPx,
            yPx: cellYPx,
          });
        }
      }
    }
    if (this.#columnOf.size > 1) return placements;
    return placements.sort((a, b) => b.cellRow - a.cellRow || b.cellColumn - a.cellColumn);
  }

  async readTile(column: number, row: number, signal?: AbortSignal): Promise<RawTile> {
    for (const [directory, first] of this.#columnOf) {
      if (column >= first && column < first + directory.columns) {
        return await directory.readTile(column - first, row, signal);
      }
    }
    throw new RangeError(`Cannot read tile (${column}, ${row}) of ${this.columns} × ${this.rows}`);
  }
}

/** Cells along an axis that may touch what begins at `from`. */
function span(
  from: number,
  length: number,
  start: number,
  advance: number,
  size: number,
  count: number,
): { first: number; last: number } {
  // A pixel more at both ends for what lies between pixels.
  return {
    first: Math.max(0, Math.floor((from - start - size - 1) / advance)),
    last: Math.min(count - 1, Math.ceil((from + length - start + 1) / advance)),
  };
}

/**
 * The part of a tile that a cell is, along an axis: from where on, which may be between pixels, how many
 * pixels it takes, and where the tile ends, without padding behind the picture's end.
 */
function cut(
  cell: number,
  cellsPerTile: number,
  tileSizePx: number,
  pictureSizePx: number,
): { tile: number; fromPx: number; sizePx: number; endPx: number } {
  const tile = Math.floor(cell / cellsPerTile);
  const fromPx = cell % cellsPerTile * tileSizePx / cellsPerTile;
  const sizePx = Math.ceil(tileSizePx / cellsPerTile);
  const endPx = Math.min(tileSizePx, pictureSizePx - tile * tileSizePx);
  return { tile, fromPx, endPx, sizePx: Math.min(sizePx, Math.ceil(endPx - fromPx)) };
}
