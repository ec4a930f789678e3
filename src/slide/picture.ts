/**
 * PNG, JPEG and WebP files as slides of one level, in their own pixels: profiles are not applied,
 * orientation is ignored, alpha is blended over white.
 *
 * Such files have no tiles. A small picture is decoded into memory when its first pixel is wanted, a
 * large one into a tiled TIFF in the temporary folder, a few rows at a time.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CodecError, SlideFormatError, UnsupportedError } from "../errors.ts";
import { TileDecoder } from "./codec.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { RawTile } from "./slide.ts";
import { FileSource, type Source } from "./source.ts";
import { readTiff } from "./tiff.ts";

type PictureFormat = "png" | "jpeg" | "webp";

/** Side of the tiles that are made of a picture. */
const TILE_PX = 256;
/** A larger file is no picture; and it is held while it is decoded. */
const MAX_FILE_BYTES = 2 ** 28;
/** sharp's own bound, a square of 16,383 pixels. */
const MAX_PIXELS = 0x3fff ** 2;
/** Decoded pictures up to this size are held in memory. */
const MAX_MEMORY_BYTES = 2 ** 26;

/** What the first 12 bytes of a file say it is; undefined where it is none of these. */
export function pictureFormat(head: Uint8Array): PictureFormat | undefined {
  const text = String.fromCharCode(...head.subarray(0, 12));
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (text.startsWith("\xff\xd8\xff")) return "jpeg";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "webp";
}

/**
 * The slide in a picture file.
 * @param workDir where a large one is decoded to.
 * @throws {SlideFormatError} where its header is broken; {UnsupportedError} where it is too large, or CMYK;
 *   {SourceError}.
 */
export async function openPicture(
  source: Source,
  format: PictureFormat,
  workDir = tmpdir(),
): Promise<SlideParts> {
  const unsupported = (feature: string) =>
    new UnsupportedError(
      `Cannot open "${source.location}": ${feature} is not supported`,
      feature,
    );
  if (source.sizeBytes > MAX_FILE_BYTES) {
    throw unsupported(`a ${format} file of more than ${MAX_FILE_BYTES} bytes`);
  }
  const file = await source.read(0, source.sizeBytes);
  const { default: sharp } = await import("sharp");
  const meta = await sharp(file).metadata().catch((cause) => {
    throw new SlideFormatError(
      `Cannot open "${source.location}": its ${format} header is broken: ${cause.message}`,
      { path: source.location, format },
      { cause },
    );
  });
  if (meta.space === "cmyk") throw unsupported("CMYK");
  if (meta.width * meta.height > MAX_PIXELS) {
    throw unsupported(`a ${format} picture of ${meta.width} × ${meta.height} pixels`);
  }
  const picture = new PictureGrid(file, format, meta.width, meta.height, workDir);
  return {
    format,
    levels: [picture],
    properties: {
      vendor: format,
      mppX: undefined,
      mppY: undefined,
      objectivePower: undefined,
      all: {},
    },
    associated: new Map(),
    background: [255, 255, 255],
    icc: meta.icc && new Uint8Array(meta.icc),
    async close() {
      await picture.close();
      await source.close();
    },
  };
}

/** Gives a tile's RGB, `[TILE_PX, TILE_PX, 3]`. */
type ReadTile = (column: number, row: number) => RawTile | Promise<RawTile>;

class PictureGrid implements TileGrid {
  readonly tileWidthPx = TILE_PX;
  readonly tileHeightPx = TILE_PX;
  readonly columns: number;
  readonly rows: number;
  /** Compressed; let go once it is decoded. */
  #file: Uint8Array<ArrayBuffer> | undefined;
  #tiles: Promise<ReadTile> | undefined;
  #spool: FileSource | undefined;
  #isClosed = false;

  constructor(
    file: Uint8Array<ArrayBuffer>,
    readonly format: PictureFormat,
    readonly widthPx: number,
    readonly heightPx: number,
    readonly workDir: string,
  ) {
    this.#file = file;
    this.columns = Math.ceil(widthPx / TILE_PX);
    this.rows = Math.ceil(heightPx / TILE_PX);
  }

  async readTile(column: number, row: number): Promise<RawTile> {
    if (
      !Number.isInteger(column) || !Number.isInteger(row) || column < 0 || row < 0 ||
      column >= this.columns || row >= this.rows
    ) {
      throw new RangeError(
        `Cannot read tile (${column}, ${row}) of ${this.columns} × ${this.rows}`,
      );
    }
    const read = await (this.#tiles ??= this.#decode());
    return await read(column, row);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#tiles?.catch(() => {}); // Whoever reads was told.
    this.#tiles = undefined;
    this.#file = undefined;
    await this.#spool?.close();
  }

  async #decode(): Promise<ReadTile> {
    const file = this.#file;
    if (file === undefined || this.#isClosed) {
      throw new CodecError(`Cannot decode a ${this.format} picture: the slide is closed`, {
        codec: this.format,
      });
    }
    try {
      const isSmall = this.widthPx * this.heightPx * 3 <= MAX_MEMORY_BYTES;
      const read = isSmall ? await this.#intoMemory(file) : await this.#ontoDisk(file);
      this.#file = undefined;
      return read;
    } catch (cause) {
      if (cause instanceof CodecError || cause instanceof UnsupportedError) throw cause;
      throw new CodecError(
        `Cannot decode a ${this.format} picture: ${(cause as Error).message}`,
        { codec: this.format },
        { cause },
      );
    }
  }

  async #intoMemory(file: Uint8Array<ArrayBuffer>): Promise<ReadTile> {
    const { widthPx, heightPx } = this;
    const rgb = await this.#decodeJpeg(file) ??
      new Uint8Array(await (await this.#sharp(file)).raw().toBuffer());
    if (rgb.length !== widthPx * heightPx * 3) {
      throw new Error(`${rgb.length} bytes came out, for ${widthPx} × ${heightPx} pixels`);
    }
    return (column, row) => {
      const data = new Uint8Array(TILE_PX * TILE_PX * 3);
      const left = column * TILE_PX, top = row * TILE_PX;
      const bottom = Math.min(heightPx, top + TILE_PX);
      const right = Math.min(widthPx, left + TILE_PX);
      for (let y = top; y < bottom; y++) {
        const from = rgb.subarray(3 * (y * widthPx + left), 3 * (y * widthPx + right));
        data.set(from, 3 * (y - top) * TILE_PX);
      }
      return {
        data,
        compression: "none",
        widthPx: TILE_PX,
        heightPx: TILE_PX,
        samplesPerPixel: 3,
        bitsPerSample: 8,
        photometric: "rgb",
        alpha: "none",
        predictor: "none",
        littleEndian: true,
        jpegTables: undefined,
      };
    };
  }

  /** As tiles of JPEG are, so that both give the same pixels; undefined where it is of another kind. */
  async #decodeJpeg(file: Uint8Array<ArrayBuffer>): Promise<Uint8Array | undefined> {
    if (this.format !== "jpeg") return undefined;
    const { widthPx, heightPx } = this;
    try {
      return await new TileDecoder(0).decode({
        data: file,
        compression: "jpeg",
        widthPx,
        heightPx,
        samplesPerPixel: 3,
        bitsPerSample: 8,
        photometric: "ycbcr",
        alpha: "none",
        predictor: "none",
        littleEndian: true,
        jpegTables: undefined,
      });
    } catch (error) {
      if (error instanceof UnsupportedError) return undefined;
      throw error;
    }
  }

  async #ontoDisk(file: Uint8Array<ArrayBuffer>): Promise<ReadTile> {
    const folder = mkdtempSync(join(this.workDir, "wgslide-picture-"));
    try {
      const path = join(folder, "picture.tif");
      await (await this.#sharp(file)).tiff({
        compression: "none",
        tile: true,
        tileWidth: TILE_PX,
        tileHeight: TILE_PX,
      }).toFile(path);
      this.#spool = FileSource.open(path);
    } finally {
      // What is open stays until it is closed, without a name that could be left behind.
      rmSync(folder, { recursive: true, force: true });
    }
    const [directory] = await readTiff(this.#spool) ?? [];
    if (directory === undefined) throw new Error("no TIFF came out");
    return (column, row) => directory.readTile(column, row);
  }

  /** A pipeline to RGB bytes. */
  async #sharp(file: Uint8Array) {
    const { default: sharp } = await import("sharp");
    sharp.cache(false);
    return sharp(file, {
      failOn: "error",
      ignoreIcc: true,
      sequentialRead: true,
      limitInputPixels: MAX_PIXELS,
    }).flatten({ background: "white" }).toColourspace("srgb");
  }
}
