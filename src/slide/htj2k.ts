/** HTJ2K (ITU-T T.814) through OpenJPH compiled to WebAssembly (@cornerstonejs/codec-openjph). */

import OpenJph from "@cornerstonejs/codec-openjph";
import type { Codestream } from "./codestream.ts";
import { type WasmDecoder, WasmLibrary } from "./wasm_library.ts";

const library = new WasmLibrary<{ HTJ2KDecoder: new () => WasmDecoder }, WasmDecoder>(
  OpenJph,
  ({ HTJ2KDecoder }) => new HTJ2KDecoder(),
);

/**
 * Decodes a checked codestream to interleaved samples `[heightPx, widthPx, components]`, one byte
 * each up to a precision of 8, else two, little-endian.
 * @throws {Error} with OpenJPH's words where it fails.
 */
export async function decodeHtj2k(
  { data, components, precision }: Codestream,
  widthPx: number,
  heightPx: number,
): Promise<Uint8Array> {
  return await library.decode(data, { widthPx, heightPx, components, precision });
}
