/**
 * Slide, Level, Tile: what every format offers, whatever scanner wrote the file.
 *
 * The meaning of levels, coordinates and properties is OpenSlide's (openslide.h): level 0 is the
 * largest, a region's corner is given in level-0 pixels and its size in its own level's pixels.
 */

/** One resolution of the pyramid. */
export interface Level {
  readonly widthPx: number;
  readonly heightPx: number;
  /** Level-0 pixels per pixel of this level, the mean of both axes; 1 for level 0. */
  readonly downsample: number;
  readonly tileWidthPx: number;
  readonly tileHeightPx: number;
}

/**
 * How a tile's bytes are compressed. "packbits" is TIFF's (TIFF 6.0 §9), "rle" DICOM's (PS3.5 annex
 * G); "jpeg2000" and "htj2k" are codestreams or JP2 files (ITU-T T.800, T.814), "jpeg-ls" ITU-T T.87.
 */
export type Compression =
  | "none"
  | "deflate"
  | "lzw"
  | "packbits"
  | "zstd"
  | "rle"
  | "webp"
  | "jpeg"
  | "jpeg2000"
  | "htj2k"
  | "jpeg-ls";

/** A tile as it lies in the file, with all that a decoder must know. */
export interface RawTile {
  /** Compressed bytes; empty where the file has none for this tile, which then is background. */
  readonly data: Uint8Array<ArrayBuffer>;
  /**
   * Where each sample lies in a plane of its own, compressed by itself: how many bytes of `data`
   * each plane takes, in order. Absent where samples are interleaved, and for "rle" and codecs that
   * say it themselves.
   */
  readonly planeBytes?: readonly number[];
  readonly compression: Compression;
  /** Size of the decoded picture, padding at the slide's edges included. */
  readonly widthPx: number;
  readonly heightPx: number;
  /** Samples per pixel and bits per sample, as stored: 8 or 16, unsigned. Codecs with headers of their own go by those. */
  readonly samplesPerPixel: number;
  readonly bitsPerSample: number;
  /** Bits of a sample that are used, the low ones: the largest value is white. Absent where all are. */
  readonly bitsStored?: number;
  /**
   * What the samples mean once decompressed (TIFF 6.0 §8 and §21, PS3.3 C.7.6.3.1.2). For "jpeg",
   * "rgb" says that the components are RGB whatever markers say, and "ycbcr" that they are what
   * markers say. For "jpeg2000" and "htj2k" it is what is left once the codestream's own
   * transform is undone, so that DICOM's YBR_ICT and YBR_RCT are "rgb".
   */
  readonly photometric: "grey" | "grey-inverted" | "rgb" | "ycbcr" | "palette";
  /**
   * Uncompressed or losslessly compressed YCbCr only: pixels per chroma sample, across and down. A
   * data unit is then that many luma samples, row by row, Cb and Cr (TIFF 6.0 §21; DICOM's
   * YBR_FULL_422 is [2, 1]). Absent where every pixel has its own.
   */
  readonly subsampling?: readonly [across: number, down: number];
  /** For "palette": the colours of the values from 0, RGB `[n, 3]`. */
  readonly palette?: Uint8Array;
  /** What a fourth sample is (TIFF 6.0 §18): blended over white, which associated colours are already weighted for. */
  readonly alpha: "none" | "associated" | "unassociated";
  /** Horizontal differencing (TIFF 6.0 §14), undone after decompression. */
  readonly predictor: "none" | "horizontal";
  /** Byte order of samples wider than a byte. */
  readonly littleEndian: boolean;
  /**
   * JPEG only: the stream is this many times as wide and high, and decoded so much smaller by the
   * inverse DCT (libjpeg's scale_denom). Absent where it is not.
   */
  readonly reduction?: 2 | 4 | 8;
  /** JPEG only: an abbreviated stream of tables that every tile shares (TIFF Technical Note 2, JPEGTables). */
  readonly jpegTables: Uint8Array<ArrayBuffer> | undefined;
}

/** Interleaved RGB, one byte a sample: `[heightPx, widthPx, 3]`. */
export interface Picture {
  readonly data: Uint8Array;
  readonly widthPx: number;
  readonly heightPx: number;
}

interface Rectangle {
  /** Size in the pixels that are read, integers of at least 1. */
  readonly widthPx: number;
  readonly heightPx: number;
  readonly signal?: AbortSignal;
}

interface Corner0 {
  /** Corner in level-0 pixels, integers, may lie outside the slide. */
  readonly x0Px: number;
  readonly y0Px: number;
  readonly xPx?: undefined;
  readonly yPx?: undefined;
}

/**
 * A rectangle of a level, OpenSlide's `read_region`. A corner that lies between the level's pixels is
 * taken as it is: pixels are interpolated, as OpenSlide's are.
 */
export interface LevelRegion extends Rectangle, Corner0 {
  /** Index into `Slide.levels`. */
  readonly level: number;
  readonly mpp?: undefined;
}

/** A rectangle in a level's own pixels, which are as they were decoded. */
export interface PixelRegion extends Rectangle {
  /** Index into `Slide.levels`. */
  readonly level: number;
  /** Corner in the level's own pixels, integers, may lie outside the slide. */
  readonly xPx: number;
  readonly yPx: number;
  readonly x0Px?: undefined;
  readonly y0Px?: undefined;
  readonly mpp?: undefined;
}

/** A rectangle at a scale: filtered by area from the level that `Slide.levelFor` names. */
export interface ScaledRegion extends Rectangle, Corner0 {
  /** Micrometres per pixel. */
  readonly mpp: number;
  readonly level?: undefined;
}

/** A rectangle to read, at a level or at a scale. */
export type Region = LevelRegion | PixelRegion | ScaledRegion;

/** Properties that this project reads itself, beside OpenSlide's names with their values. */
export interface Properties {
  /** OpenSlide's name of the vendor: "aperio", "generic-tiff". */
  readonly vendor: string;
  /** Micrometres per level-0 pixel, where the file says. */
  readonly mppX: number | undefined;
  readonly mppY: number | undefined;
  readonly objectivePower: number | undefined;
  /** OpenSlide's properties, by its names ("openslide.mpp-x", "aperio.AppMag"), values as text. */
  readonly all: Readonly<Record<string, string>>;
}

export interface Slide {
  /** What it is: "aperio", "generic-tiff". */
  readonly format: string;
  /** Largest first; at least one. */
  readonly levels: readonly Level[];
  readonly properties: Properties;
  /** Label, macro, thumbnail: by OpenSlide's names, each decoded when asked for. */
  readonly associated: ReadonlyMap<string, () => Promise<Picture>>;
  /** What lies outside the slide and under missing tiles: red, green, blue, 0 to 255. */
  readonly background: readonly [number, number, number];
  /**
   * The ICC profile of the colours of level 0, as the file holds it. Pixels are as they are stored,
   * unless the slide was opened with `colour: "srgb"`.
   */
  readonly icc: Uint8Array | undefined;
  /**
   * Reads a rectangle at a level or a scale as interleaved RGB `[heightPx, widthPx, 3]`; outside the slide it
   * is the background.
   * @throws {RangeError} where the region makes no sense; {CodecError} where a tile cannot be
   *   decoded; {UnsupportedError} where no tile of the level can be; {SlideFormatError} where the
   *   file places it outside itself; {SourceError} where its bytes cannot be read; the signal's
   *   reason where it is aborted.
   */
  readRegion(region: Region): Promise<Picture>;
  /**
   * The coarsest level that is at least as fine as wanted, else level 0.
   * @param mpp micrometres per pixel. @throws {RangeError} where the slide does not say its own.
   */
  levelFor(mpp: number): number;
  /** Tiles that could not be decoded and were filled with background, where the slide was opened so. */
  readonly badTiles: number;
  /**
   * The undecoded bytes of one tile, and all that a decoder must know of them.
   * @param column counted in the file: in levels that are put together of areas (Leica, Ventana BIF) those
   *   of its directories are side by side, and only `readRegion` knows where in the level they lie.
   * @throws {RangeError} where there is no such tile; {SlideFormatError} where the file places it
   *   outside itself; {UnsupportedError} where no tile of the level can be decoded; {SourceError}.
   */
  rawTile(level: number, column: number, row: number): Promise<RawTile>;
  /** Frees the file, decoders and caches; reads after it fail. */
  close(): Promise<void>;
}
