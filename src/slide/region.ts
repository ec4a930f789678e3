/** Tiles to any rectangle at any level: the part of a Slide that all tiled formats share. */

import { CodecError, UnsupportedError } from "../errors.ts";
import { TileDecoder } from "./codec.ts";
import { untilAborted } from "./abort.ts";
import { AreaFilter } from "./area_filter.ts";
import { Blending, cutBetween, isWhole, type PaintedTile } from "./blend.ts";
import { levelProperties, pictureProperties } from "./properties.ts";
import type { Level, Picture, Properties, RawTile, Region, ScaledRegion, Slide } from "./slide.ts";
import { convertToSrgb, type SrgbTable } from "./srgb.ts";

/** A rectangle of a tile, and where it lies. */
export interface Placement {
  readonly column: number;
  readonly row: number;
  /** Its corner in the tile, between pixels perhaps. */
  readonly tileXPx: number;
  readonly tileYPx: number;
  /** Its size, whole pixels. */
  readonly widthPx: number;
  readonly heightPx: number;
  /** Where what is a picture in the tile ends; where the rectangle does, where absent. */
  readonly tileEndXPx?: number;
  readonly tileEndYPx?: number;
  /** Where the corner lies in the grid's pixels, fractions too. */
  readonly xPx: number;
  readonly yPx: number;
}

/**
 * Something cut into tiles, row by row from the top left; those at the right and bottom may be padded.
 * With `placements` tiles lie elsewhere, overlap or leave gaps.
 */
export interface TileGrid {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tileWidthPx: number;
  readonly tileHeightPx: number;
  readonly columns: number;
  readonly rows: number;
  /** Level-0 pixels per pixel, where the file knows it better than the sizes. */
  readonly downsample?: number;
  /**
   * What lies in a rectangle of the grid, which may begin between pixels, and perhaps more; of what
   * overlaps the first is seen. Absent where each tile adjoins the next.
   */
  placements?(
    xPx: number,
    yPx: number,
    widthPx: number,
    heightPx: number,
  ): Iterable<Placement>;
  /**
   * Rows of a tile that OpenSlide takes for a tile and paints without opacity (Hamamatsu's), which shows
   * where tiles lie between pixels; absent where OpenSlide's tiles are these.
   */
  readonly seamPx?: number;
  readTile(column: number, row: number, signal?: AbortSignal): Promise<RawTile>;
  /** The level of which missing tiles are made, filtered; absent where they are background. */
  readonly finer?: number;
  /**
   * Says that these tiles are read next, so that a distant source joins their ranges (see
   * `Source.prefetch`). Never fails: reading does. Absent where the source is near.
   */
  announce?(tiles: readonly Pick<Placement, "column" | "row">[], signal: AbortSignal): void;
}

/** What a format finds in a file; `TiledSlide` makes a Slide of it. */
export interface SlideParts {
  readonly format: string;
  /** Largest first. */
  readonly levels: readonly TileGrid[];
  readonly properties: Properties;
  readonly associated: ReadonlyMap<string, TileGrid>;
  readonly background: readonly [number, number, number];
  /** The ICC profile of the colours of level 0. */
  readonly icc?: Uint8Array | undefined;
  close(): Promise<void>;
}

export interface TiledSlideOptions {
  /** Threads that decode; 0 decodes on the calling one. */
  readonly decoders?: number;
  /** Bytes of decoded tiles that are kept for regions that overlap. */
  readonly cacheBytes?: number;
  /** A tile that cannot be decoded: "throw" (default) a CodecError, or fill and count it. */
  readonly onBadTile?: "throw" | "background";
}

/** Tiles of one region that are read or decoded at a time, fewer where they are large. */
const TILES_IN_FLIGHT = 32;
const BYTES_IN_FLIGHT = 2 ** 28;
/** Tiles that are announced before they are read: some megabytes. */
const TILES_AHEAD = 256;
/** A larger region is a mistake: more than a 26,000 px square. */
const MAX_REGION_BYTES = 2 ** 31 - 1;
/** A larger label or macro is an attack: a scanner's are some megabytes. */
const MAX_PICTURE_BYTES = 2 ** 28;
/** After so long in a region timers and signals get their turn, an abort above all. */
const TURN_MS = 50;

function tileKey(name: number | string, column: number, row: number): string {
  return `${name}/${column}/${row}`;
}

/** Bytes of a level that are read at a time to be filtered to a coarser scale. */
const STRIP_BYTES = 16 << 20;

/** Decoded tiles, the least recently used dropped first. */
class TileCache {
  readonly #tiles = new Map<string, Uint8Array>();
  #bytes = 0;
  constructor(readonly maxBytes: number) {}

  get(key: string): Uint8Array | undefined {
    const tile = this.#tiles.get(key);
    if (tile !== undefined) {
      this.#tiles.delete(key);
      this.#tiles.set(key, tile);
    }
    return tile;
  }

  has(key: string): boolean {
    return this.#tiles.has(key);
  }

  put(key: string, tile: Uint8Array): void {
    if (tile.length > this.maxBytes || this.#tiles.has(key)) return;
    this.#tiles.set(key, tile);
    this.#bytes += tile.length;
    for (const [oldest, { length }] of this.#tiles) {
      if (this.#bytes <= this.maxBytes) break;
      this.#tiles.delete(oldest);
      this.#bytes -= length;
    }
  }

  clear(): void {
    this.#tiles.clear();
    this.#bytes = 0;
  }
}

/** A part of a region along an axis: its beginning in the region, and in the level. */
interface Piece {
  readonly atPx: number;
  readonly sizePx: number;
  readonly originPx: number;
}

/** OpenSlide reads at most so much at a time, and rounds where each piece begins (openslide.c). */
const PIECE_PX = 4096;
/** Less than pixman sees of a pixel. */
const SAME_PX = 2 ** -20;

/**
 * Where a side of a region lies in a level, as OpenSlide has it: level-0 pixels divided by the
 * downsample, left of the slide rounded towards it, and every 4096 pixels anew from a whole level-0 pixel.
 * Pieces that continue each other are one, unless `seams` says that their ends make a difference.
 */
function piecesOf(x0Px: number, sizePx: number, downsample: number, seams: boolean): Piece[] {
  const pieces: Piece[] = [];
  for (let atPx = 0; atPx < sizePx; atPx += PIECE_PX) {
    const from = x0Px + Math.trunc(atPx * downsample);
    const originPx = from < 0 ? -Math.trunc(-from / downsample) : from / downsample;
    pieces.push({ atPx, sizePx: Math.min(PIECE_PX, sizePx - atPx), originPx });
  }
  const [first] = pieces as [Piece];
  const isOne = pieces.every(({ atPx, originPx }) =>
    Math.abs(originPx - first.originPx - atPx) < SAME_PX && (!seams || isWhole(originPx))
  );
  return isOne ? [{ atPx: 0, sizePx, originPx: first.originPx }] : pieces;
}

function checkSize(widthPx: number, heightPx: number): void {
  if (
    !Number.isSafeInteger(widthPx) || !Number.isSafeInteger(heightPx) || widthPx < 1 ||
    heightPx < 1 || widthPx * heightPx * 3 > MAX_REGION_BYTES
  ) {
    throw new RangeError(
      `Cannot read a region of ${widthPx} × ${heightPx} pixels: ` +
        `sides are integers of at least 1, and all of it at most ${MAX_REGION_BYTES} bytes`,
    );
  }
}

/** The rectangle of a decoded tile that is placed. */
function partOf(data: Uint8Array, grid: TileGrid, place: Placement): PaintedTile {
  const { tileXPx, tileYPx, widthPx, heightPx } = place;
  const { tileEndXPx = tileXPx + widthPx, tileEndYPx = tileYPx + heightPx } = place;
  const strideBytes = 3 * grid.tileWidthPx;
  if (isWhole(tileXPx) && isWhole(tileYPx)) {
    const x = Math.round(tileXPx), y = Math.round(tileYPx);
    return { data, offsetBytes: y * strideBytes + 3 * x, strideBytes, widthPx, heightPx };
  }
  const whole = { data, offsetBytes: 0, strideBytes, widthPx: tileEndXPx, heightPx: tileEndYPx };
  return cutBetween(whole, tileXPx, tileYPx, widthPx, heightPx);
}

/** A picture that tiles are copied into, the last in front. */
class Copying {
  readonly #data: Uint8Array;

  constructor(
    readonly widthPx: number,
    readonly heightPx: number,
    background: readonly [number, number, number],
  ) {
    const data = this.#data = new Uint8Array(widthPx * heightPx * 3);
    const [red, green, blue] = background;
    if (red === green && green === blue) data.fill(red);
    else for (let i = 0; i < data.length; i += 3) data.set(background, i);
  }

  paint(tile: PaintedTile, xPx: number, yPx: number): void {
    const x = Math.round(xPx), y = Math.round(yPx);
    const fromX = Math.max(0, x), toX = Math.min(this.widthPx, x + tile.widthPx);
    if (fromX >= toX) return;
    const toY = Math.min(this.heightPx, y + tile.heightPx);
    for (let row = Math.max(0, y); row < toY; row++) {
      const from = tile.offsetBytes + (row - y) * tile.strideBytes + 3 * (fromX - x);
      this.#data.set(
        tile.data.subarray(from, from + 3 * (toX - fromX)),
        3 * (row * this.widthPx + fromX),
      );
    }
  }

  over(): Uint8Array {
    return this.#data;
  }
}

/** The tiles of a plain grid that a rectangle touches, without what pads them behind its end. */
function* adjoining(
  { widthPx, heightPx, tileWidthPx, tileHeightPx }: TileGrid,
  leftPx: number,
  topPx: number,
  rightPx: number,
  bottomPx: number,
): Iterable<Placement> {
  const firstColumn = Math.floor(leftPx / tileWidthPx);
  for (let row = Math.floor(topPx / tileHeightPx); row * tileHeightPx < bottomPx; row++) {
    for (let column = firstColumn; column * tileWidthPx < rightPx; column++) {
      yield {
        column,
        row,
        tileXPx: 0,
        tileYPx: 0,
        widthPx: Math.min(tileWidthPx, widthPx - column * tileWidthPx),
        heightPx: Math.min(tileHeightPx, heightPx - row * tileHeightPx),
        xPx: column * tileWidthPx,
        yPx: row * tileHeightPx,
      };
    }
  }
}

/** Tiles in strips of so many rows. */
function* cutAtSeams(
  placements: Iterable<Placement>,
  seamPx: number | undefined,
): Iterable<Placement> {
  for (const place of placements) {
    const step = seamPx ?? place.heightPx;
    for (let at = 0; at < place.heightPx; at += step) {
      yield {
        ...place,
        tileYPx: at,
        yPx: place.yPx + at,
        heightPx: Math.min(step, place.heightPx - at),
      };
    }
  }
}

/** Passes placements on; `announce` hears of each some time before, in few calls. */
function* announcing(
  placements: Iterable<Placement>,
  announce: (places: readonly Placement[]) => void,
): Iterable<Placement> {
  const iterator = placements[Symbol.iterator]();
  const ahead: Placement[] = [];
  for (;;) {
    if (ahead.length <= TILES_AHEAD / 2) {
      const more: Placement[] = [];
      while (ahead.length + more.length < TILES_AHEAD) {
        const next = iterator.next();
        if (next.done) break;
        more.push(next.value);
      }
      if (more.length > 0) announce(more);
      ahead.push(...more);
    }
    const place = ahead.shift();
    if (place === undefined) return;
    yield place;
  }
}

export class TiledSlide implements Slide {
  readonly format: string;
  readonly levels: readonly Level[];
  readonly properties: Properties;
  readonly associated: ReadonlyMap<string, () => Promise<Picture>>;
  readonly background: readonly [number, number, number];
  readonly icc: Uint8Array | undefined;
  readonly #parts: SlideParts;
  readonly #decoder: TileDecoder;
  readonly #cache: TileCache;
  readonly #onBadTile: "throw" | "background";
  /** What the colours of levels are converted by, where they are. */
  readonly #srgb: SrgbTable | undefined;
  /** Tiles that were filled since they could not be decoded, each once. */
  readonly #badTiles = new Set<string>();

  constructor(parts: SlideParts, options: TiledSlideOptions = {}, srgb?: SrgbTable) {
    const { decoders = 0, cacheBytes = 24 << 20, onBadTile = "throw" } = options;
    const [largest] = parts.levels;
    if (largest === undefined) throw new RangeError("Cannot make a slide without levels");
    this.#parts = parts;
    this.#decoder = new TileDecoder(decoders);
    this.#cache = new TileCache(cacheBytes);
    this.#onBadTile = onBadTile;
    this.#srgb = srgb;
    this.format = parts.format;
    this.background = parts.background;
    this.icc = parts.icc;
    this.levels = parts.levels.map((
      { widthPx, heightPx, tileWidthPx, tileHeightPx, downsample },
    ) => ({
      widthPx,
      heightPx,
      downsample: downsample ?? (largest.widthPx / widthPx + largest.heightPx / heightPx) / 2,
      tileWidthPx,
      tileHeightPx,
    }));
    const { properties } = parts;
    this.properties = {
      ...properties,
      // A format may know better, such as OpenSlide's tiles where ours hold several of them.
      all: {
        ...levelProperties(
          properties.vendor,
          this.levels,
          parts.levels.every(({ placements }) => placements === undefined),
        ),
        ...pictureProperties(parts.associated, parts.icc),
        ...properties.all,
      },
    };
    this.associated = new Map(
      [...parts.associated].map(([name, grid]) => [
        name,
        () => this.#readPicture(grid, name),
      ]),
    );
  }

  async readRegion(region: Region): Promise<Picture> {
    if (region.mpp !== undefined) return await this.#readAtMpp(region);
    const { level, widthPx, heightPx, signal } = region;
    const grid = this.#parts.levels[level];
    const at = this.levels[level];
    const [x, y] = region.xPx === undefined ? [region.x0Px, region.y0Px] : [region.xPx, region.yPx];
    if (
      grid === undefined || at === undefined || !Number.isSafeInteger(x) ||
      !Number.isSafeInteger(y)
    ) {
      throw new RangeError(
        `Cannot read a region at (${x}, ${y}) of level ${level}: ` +
          `there are levels 0 to ${this.levels.length - 1}, and corners are integers`,
      );
    }
    if (region.xPx !== undefined) {
      return await this.#readGrid(grid, level, x, y, widthPx, heightPx, signal);
    }
    checkSize(widthPx, heightPx);
    const seams = grid.seamPx !== undefined;
    const across = piecesOf(x, widthPx, at.downsample, seams);
    const down = piecesOf(y, heightPx, at.downsample, seams);
    const read = (x: Piece, y: Piece) =>
      this.#readGrid(grid, level, x.originPx, y.originPx, x.sizePx, y.sizePx, signal);
    if (across.length === 1 && down.length === 1) return await read(across[0]!, down[0]!);
    const data = new Uint8Array(widthPx * heightPx * 3);
    for (const y of down) {
      for (const x of across) {
        const piece = await read(x, y);
        for (let row = 0; row < y.sizePx; row++) {
          const from = 3 * row * x.sizePx;
          data.set(
            piece.data.subarray(from, from + 3 * x.sizePx),
            3 * ((y.atPx + row) * widthPx + x.atPx),
          );
        }
      }
    }
    return { data, widthPx, heightPx };
  }

  get badTiles(): number {
    return this.#badTiles.size;
  }

  levelFor(mpp: number): number {
    const { mppX, mppY } = this.#mpp();
    if (!(mpp > 0 && mpp < Infinity)) {
      throw new RangeError(`Cannot choose a level for ${mpp} µm/px`);
    }
    // A level whose scale differs in its last digits only is as fine as wanted.
    const finest = mpp * (1 + 1e-3) / Math.max(mppX, mppY);
    return Math.max(0, this.levels.findLastIndex(({ downsample }) => downsample <= finest));
  }

  #mpp(): { mppX: number; mppY: number } {
    const { mppX, mppY = mppX } = this.properties;
    if (mppX === undefined || mppY === undefined) {
      throw new RangeError("Cannot read at a scale: the slide does not say its µm/px");
    }
    return { mppX, mppY };
  }

  /** Reads what the rectangle covers of the best level, and filters it by area. */
  async #readAtMpp(region: ScaledRegion): Promise<Picture> {
    const { mpp, x0Px, y0Px, widthPx, heightPx, signal } = region;
    checkSize(widthPx, heightPx);
    const { mppX, mppY } = this.#mpp();
    const level = this.levelFor(mpp);
    const { downsample } = this.levels[level]!;
    // Pixels of the level per pixel that is read, and where the rectangle begins in the level.
    const ratioX = mpp / (mppX * downsample), ratioY = mpp / (mppY * downsample);
    const data = await this.#filter(level, {
      leftPx: x0Px / downsample,
      topPx: y0Px / downsample,
      widthPx,
      heightPx,
      ratioX,
      ratioY,
      signal,
    });
    return { data, widthPx, heightPx };
  }

  /** A rectangle that begins in a level's pixels, filtered to so many: RGB `[heightPx, widthPx, 3]`. */
  async #filter(
    level: number,
    { leftPx, topPx, widthPx, heightPx, ratioX, ratioY, signal }: {
      readonly leftPx: number;
      readonly topPx: number;
      /** Of what comes out. */
      readonly widthPx: number;
      readonly heightPx: number;
      /** The level's pixels per pixel that comes out. */
      readonly ratioX: number;
      readonly ratioY: number;
      readonly signal: AbortSignal | undefined;
    },
  ): Promise<Uint8Array> {
    const grid = this.#parts.levels[level]!;
    // What lies outside the level is not read, however much of it there is.
    const xPx = Math.max(0, Math.floor(leftPx)), yPx = Math.max(0, Math.floor(topPx));
    const width = Math.min(grid.widthPx, Math.ceil(leftPx + widthPx * ratioX)) - xPx;
    const rows = Math.min(grid.heightPx, Math.ceil(topPx + heightPx * ratioY)) - yPx;
    const filter = new AreaFilter({
      sourceWidthPx: Math.max(0, width),
      widthPx,
      heightPx,
      ratioX,
      ratioY,
      shiftX: leftPx - xPx,
      shiftY: topPx - yPx,
      beyond: this.background,
    });
    const perStrip = Math.max(1, Math.floor(STRIP_BYTES / (3 * width)));
    for (let row = 0; width > 0 && row < rows; row += perStrip) {
      const strip = Math.min(perStrip, rows - row);
      filter.add((await this.#readGrid(grid, level, xPx, yPx + row, width, strip, signal)).data);
    }
    return filter.finish();
  }

  async rawTile(level: number, column: number, row: number): Promise<RawTile> {
    const grid = this.#parts.levels[level];
    if (grid === undefined) {
      throw new RangeError(
        `Cannot read a tile of level ${level}: there are 0 to ${this.levels.length - 1}`,
      );
    }
    return await grid.readTile(column, row);
  }

  async close(): Promise<void> {
    this.#cache.clear();
    this.#decoder.close();
    await this.#parts.close();
  }

  async #readPicture(grid: TileGrid, name: string): Promise<Picture> {
    const { widthPx, heightPx } = grid;
    if (widthPx * heightPx * 3 > MAX_PICTURE_BYTES) {
      const feature = `a picture of ${widthPx} × ${heightPx} pixels`;
      throw new UnsupportedError(`Cannot read the ${name}: ${feature} is not supported`, feature);
    }
    return await this.#readGrid(grid, name, 0, 0, widthPx, heightPx);
  }

  /**
   * Reads a rectangle that begins somewhere in the grid's own pixels. `name` is the level's index or
   * the picture's name.
   */
  async #readGrid(
    grid: TileGrid,
    name: number | string,
    xPx: number,
    yPx: number,
    widthPx: number,
    heightPx: number,
    signal?: AbortSignal,
  ): Promise<Picture> {
    checkSize(widthPx, heightPx);
    signal?.throwIfAborted();
    const left = Math.max(0, Math.floor(xPx)), top = Math.max(0, Math.floor(yPx));
    const right = Math.min(grid.widthPx, Math.ceil(xPx + widthPx));
    const bottom = Math.min(grid.heightPx, Math.ceil(yPx + heightPx));
    const isSeen = (place: Placement) =>
      place.xPx < right && place.xPx + place.widthPx > left &&
      place.yPx < bottom && place.yPx + place.heightPx > top;
    const isEmpty = left >= right || top >= bottom;
    const overlapping = isEmpty ? [] : grid.placements && [
      ...grid.placements(xPx, yPx, widthPx, heightPx),
    ].filter(isSeen);
    const isBlended = overlapping === undefined
      ? !isWhole(xPx) || !isWhole(yPx)
      : overlapping.some((place) =>
        !isWhole(place.xPx - xPx) || !isWhole(place.yPx - yPx) || !isWhole(place.tileXPx) ||
        !isWhole(place.tileYPx)
      );
    // Made with the first tile: a header may claim a picture of any size, and hold nothing.
    let canvas: Blending | Copying | undefined;
    const makeCanvas = () =>
      canvas ??= isBlended
        ? new Blending(widthPx, heightPx)
        : new Copying(widthPx, heightPx, this.background);
    // What is copied hides what was there, what is blended goes behind it; from the last tile on, as
    // OpenSlide does, since rounding makes a difference.
    const touched = overlapping !== undefined
      ? isBlended ? overlapping : overlapping.reverse()
      : isBlended
      ? [...cutAtSeams(adjoining(grid, left, top, right, bottom), grid.seamPx)].reverse()
      : adjoining(grid, left, top, right, bottom);
    const inOrder = isBlended || overlapping !== undefined;
    // Aborted when the region is read or has failed: nobody waits for what was announced then.
    const announced = new AbortController();
    const placements = (grid.announce === undefined ? touched : announcing(touched, (places) => {
      const missing = places.filter((place) =>
        !this.#cache.has(tileKey(name, place.column, place.row))
      );
      grid.announce!(missing, announced.signal);
    }))[Symbol.iterator]();
    let isDone = false;

    const paint = async (place: Placement, before: Promise<void> | undefined) => {
      const tile = await this.#tile(grid, name, place.column, place.row, signal);
      await before;
      if (tile === undefined) return;
      const isRgb = grid.seamPx !== undefined;
      makeCanvas().paint(partOf(tile, grid, place), place.xPx - xPx, place.yPx - yPx, isRgb);
    };
    // A file in the page cache and a decoder on this thread are promises already kept, after which
    // no timer and no signal handler would run before the region is read.
    let turnAt = performance.now();
    let turn: Promise<void> | undefined;
    const giveTurn = () =>
      turn ??= new Promise((resolve) =>
        setTimeout(() => {
          turn = undefined;
          turnAt = performance.now();
          resolve();
        })
      );
    const inFlight = Math.max(
      1,
      Math.min(
        TILES_IN_FLIGHT,
        Math.floor(BYTES_IN_FLIGHT / (grid.tileWidthPx * grid.tileHeightPx * 3)),
      ),
    );
    // Each of these takes the next tile when it is done with one, so that few are in memory.
    // Where tiles overlap, those before are painted first, though they are decoded side by side.
    let last: Promise<void> | undefined;
    const painters = Array.from({ length: inFlight }, async () => {
      while (!isDone) {
        if (performance.now() - turnAt > TURN_MS) {
          await giveTurn();
          continue; // Another may have taken the last tile.
        }
        const next = placements.next();
        if (next.done) {
          isDone = true;
          return;
        }
        const painted = paint(next.value, last);
        if (inOrder) last = painted;
        await painted;
      }
    });
    try {
      // A tile that takes long holds up no abort: it is decoded to its end, for nobody.
      await untilAborted(Promise.all(painters), signal);
    } catch (error) {
      isDone = true; // The others stop at their next tile.
      const settled = Promise.allSettled(painters);
      if (!signal?.aborted) await settled;
      throw error;
    } finally {
      announced.abort();
    }
    if (canvas === undefined && typeof name === "string" && this.#onBadTile === "throw") {
      throw new CodecError(`Cannot read the ${name}: the file holds nothing of it`, {
        codec: "none",
      });
    }
    return { data: makeCanvas().over(this.background), widthPx, heightPx };
  }

  /** A tile that the file lacks, made of a finer level. */
  async #fromFiner(
    grid: TileGrid,
    level: number,
    column: number,
    row: number,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    const { tileWidthPx, tileHeightPx } = grid;
    const finer = this.#parts.levels[level]!;
    const ratioX = finer.widthPx / grid.widthPx, ratioY = finer.heightPx / grid.heightPx;
    const xPx = column * tileWidthPx, yPx = row * tileHeightPx;
    const widthPx = Math.min(tileWidthPx, grid.widthPx - xPx);
    const heightPx = Math.min(tileHeightPx, grid.heightPx - yPx);
    const data = await this.#filter(level, {
      leftPx: xPx * ratioX,
      topPx: yPx * ratioY,
      widthPx,
      heightPx,
      ratioX,
      ratioY,
      signal,
    });
    const tile = new Uint8Array(tileWidthPx * tileHeightPx * 3);
    for (let y = 0; y < heightPx; y++) {
      tile.set(data.subarray(3 * y * widthPx, 3 * (y + 1) * widthPx), 3 * y * tileWidthPx);
    }
    return tile;
  }

  /** A decoded tile, or undefined where the file has none. */
  async #tile(
    grid: TileGrid,
    name: number | string,
    column: number,
    row: number,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array | undefined> {
    signal?.throwIfAborted();
    const key = tileKey(name, column, row);
    const known = this.#cache.get(key);
    if (known !== undefined) return known;
    const raw = await grid.readTile(column, row, signal);
    if (raw.data.length === 0) {
      if (grid.finer === undefined) return undefined;
      const tile = await this.#fromFiner(grid, grid.finer, column, row, signal);
      this.#cache.put(key, tile);
      return tile;
    }
    try {
      const tile = await this.#decoder.decode(raw, signal);
      // Label and macro are another camera's.
      if (this.#srgb !== undefined && typeof name === "number") convertToSrgb(tile, this.#srgb);
      this.#cache.put(key, tile);
      return tile;
    } catch (cause) {
      if (!(cause instanceof CodecError)) throw cause;
      if (this.#onBadTile === "background") {
        this.#badTiles.add(key);
        return undefined;
      }
      const where = typeof name === "number" ? `level ${name}` : `the ${name}`;
      throw new CodecError(
        `Cannot decode tile (${column}, ${row}) of ${where}: ${
          cause.message.replace(/^Cannot decode a .*? tile: /, "")
        }`,
        { codec: cause.codec, column, row, ...(typeof name === "number" ? { level: name } : {}) },
        { cause },
      );
    }
  }
}
