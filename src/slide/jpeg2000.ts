/** JPEG 2000 (ITU-T T.800) through OpenJPEG compiled to WebAssembly (@cornerstonejs/codec-openjpeg). */

import OpenJpeg from "@cornerstonejs/codec-openjpeg";
import type { Codestream } from "./codestream.ts";
import { type WasmDecoder, WasmLibrary } from "./wasm_library.ts";

const library = new WasmLibrary<{ J2KDecoder: new () => WasmDecoder }, WasmDecoder>(
  OpenJpeg,
  ({ J2KDecoder }) => new J2KDecoder(),
);

/**
 * Decodes a checked codestream to interleaved samples `[heightPx, widthPx, components]`, one byte
 * each up to a precision of 8, else two, little-endian. Three components of which two are
 * subsampled come out as RGB: OpenJPEG's frame takes those for YCbCr and converts them.
 * @throws {Error} with OpenJPEG's words where it fails.
 */
export async function decodeJpeg2000(
  { data, components, precision }: Codestream,
  widthPx: number,
  heightPx: number,
): Promise<Uint8Array> {
  return await library.decode(data, { widthPx, heightPx, components, precision });
}
