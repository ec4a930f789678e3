/** Tiles of compressions that are decoded by WebAssembly, to RGB: what threads of codec_pool.ts do. */

import { readCodestream } from "./codestream.ts";
import { decodeHtj2k } from "./htj2k.ts";
import { decodeJpeg2000 } from "./jpeg2000.ts";
import { decodeJpegLs } from "./jpegls.ts";
import { toRgb } from "./samples.ts";
import type { RawTile } from "./slide.ts";

/**
 * Decodes a JPEG 2000, HTJ2K or JPEG-LS tile to RGB `[heightPx, widthPx, 3]`.
 * @throws {Error} where it is damaged or not what the tile says; {UnsupportedError} where it is of a
 *   kind that is not read.
 */
export async function decodeWithWasm(tile: RawTile): Promise<Uint8Array<ArrayBuffer>> {
  const { widthPx, heightPx } = tile;
  if (tile.compression === "jpeg-ls") {
    const { samples, precision } = await decodeJpegLs(tile);
    return toRgb(samples, { ...tile, ...layout(precision) });
  }
  const codestream = readCodestream(tile);
  const decode = codestream.highThroughput ? decodeHtj2k : decodeJpeg2000;
  const samples = await decode(codestream, widthPx, heightPx);
  return toRgb(samples, { ...tile, ...layout(codestream.precision) });
}

function layout(precision: number) {
  return {
    bitsPerSample: precision > 8 ? 16 : 8,
    bitsStored: precision,
    littleEndian: true,
  };
}
