/** JPEG-LS (ITU-T T.87) through CharLS compiled to WebAssembly (@cornerstonejs/codec-charls). */

import CharLs from "@cornerstonejs/codec-charls";
import { UnsupportedError } from "../errors.ts";
import { interleave } from "./samples.ts";
import type { RawTile } from "./slide.ts";
import { type WasmDecoder, WasmLibrary } from "./wasm_library.ts";

interface JpegLsDecoder extends WasmDecoder {
  /** 0: a scan for each component. 1, 2: lines or samples of all of them in one. */
  getInterleaveMode(): number;
}

const library = new WasmLibrary<{ JpegLSDecoder: new () => JpegLsDecoder }, JpegLsDecoder>(
  CharLs,
  ({ JpegLSDecoder }) => new JpegLSDecoder(),
);

/** Marker codes (T.87 table C.1). */
const SOI = 0xffd8, SOF55 = 0xfff7, EOI = 0xffd9;

/** What a decoder takes half a second for. */
const MAX_SAMPLES = 2 ** 25;

/**
 * Decodes a tile's JPEG-LS stream to interleaved samples `[heightPx, widthPx, components]`, one byte
 * each up to a precision of 8, else two, little-endian.
 * @throws {Error} where it is damaged, cut, or not what the tile says.
 */
export async function decodeJpegLs(
  tile: RawTile,
): Promise<{ samples: Uint8Array; precision: number }> {
  const { widthPx, heightPx, samplesPerPixel: components } = tile;
  const head = readHead(tile.data);
  if (head.widthPx !== widthPx || head.heightPx !== heightPx) {
    throw new Error(
      `its picture is ${head.widthPx} × ${head.heightPx}, the tile ${widthPx} × ${heightPx}`,
    );
  }
  if (head.components !== components) {
    throw new Error(`it has ${head.components} components, the tile ${components}`);
  }
  if (widthPx * heightPx * components > MAX_SAMPLES) {
    const feature = `a JPEG-LS tile of ${widthPx} × ${heightPx} pixels`;
    throw new UnsupportedError(`Cannot decode ${feature}: it is too large`, feature);
  }
  const { precision } = head;
  let planar = false;
  const samples = await library.decode(
    tile.data,
    { widthPx, heightPx, components, precision },
    (decoder) => planar = decoder.getInterleaveMode() === 0,
  );
  if (!planar || components === 1) return { samples, precision };
  const planeBytes = samples.length / components;
  const planes = Array.from(
    { length: components },
    (_, i) => samples.subarray(i * planeBytes, (i + 1) * planeBytes),
  );
  return { samples: interleave(planes, precision > 8 ? 2 : 1), precision };
}

/** What the frame header says (T.87 C.2.2); the stream must end with EOI, padding aside. */
function readHead(data: Uint8Array) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const u16 = (at: number) => at + 2 <= data.length ? view.getUint16(at) : -1;
  if (u16(0) !== SOI) throw new Error("it does not begin with SOI");
  let end = data.length;
  while (end > 2 && data[end - 1] === 0) end--;
  if (u16(end - 2) !== EOI) throw new Error("it does not end with EOI");
  let at = 2;
  while (u16(at) !== SOF55) {
    const marker = u16(at), length = u16(at + 2);
    // Before the frame there are only segments with lengths, none of which is a scan's.
    if (marker < 0xffe0 || length < 2 || at + 2 + length > data.length) {
      throw new Error(`it has no frame header before byte ${at}`);
    }
    at += 2 + length;
  }
  if (at + 10 > data.length) throw new Error("its frame header is cut");
  return {
    precision: data[at + 4]!,
    heightPx: u16(at + 5),
    widthPx: u16(at + 7),
    components: data[at + 9]!,
  };
}
