/** JPEG 2000 (ITU-T T.800) through OpenJPEG compiled to WebAssembly (@cornerstonejs/codec-openjpeg). */

import OpenJpeg from "@cornerstonejs/codec-openjpeg";
import type { Codestream } from "./codestream.ts";
import { interleave } from "./samples.ts";
import { type Expected, type WasmDecoder, WasmLibrary } from "./wasm_library.ts";

const library = new WasmLibrary<{ J2KDecoder: new () => WasmDecoder }, WasmDecoder>(
  OpenJpeg,
  ({ J2KDecoder }) => new J2KDecoder(),
);

/**
 * Decodes a checked codestream to interleaved samples `[heightPx, widthPx, components]`, one byte
 * each up to a precision of 8, else two, little-endian. Subsampled chroma is repeated.
 * @throws {Error} with OpenJPEG's words where it fails.
 */
export async function decodeJpeg2000(
  { data, components, precision, subsampling }: Codestream,
  widthPx: number,
  heightPx: number,
): Promise<Uint8Array> {
  const [across, down] = subsampling;
  const size = { widthPx, heightPx, precision };
  if (across === 1 && down === 1) {
    if (components === 1 || components === 3) {
      return await library.decode(data, { ...size, components });
    }
    // OpenJPEG's frame gives one channel or three.
    const planes: Uint8Array[] = [];
    for (let channel = 0; channel < components; channel++) {
      const file = withChannels(data, size, components, [channel]);
      planes.push(await library.decode(file, { ...size, components: 1 }));
    }
    return interleave(planes, precision > 8 ? 2 : 1);
  }
  // In the order of YCbCr the frame would convert them to RGB, truncating where libjpeg and OpenSlide
  // round, so that half of all samples were off by one. In another it leaves them alone. It copies as
  // many samples of each as there are pixels: the first ones of the subsampled are theirs, row after
  // row, and then comes what lies behind them in the instance's memory, which is passed by.
  const file = withChannels(data, size, components, [1, 0, 2]);
  const linear = await library.decode(file, { ...size, components });
  const samples = new Uint8Array(widthPx * heightPx * 3);
  const chromaWidth = Math.ceil(widthPx / across);
  for (let y = 0, to = 0; y < heightPx; y++) {
    const row = Math.floor(y / down) * chromaWidth;
    for (let x = 0; x < widthPx; x++, to += 3) {
      const chroma = 3 * (row + Math.floor(x / across));
      samples[to] = linear[to + 1]!;
      samples[to + 1] = linear[chroma]!;
      samples[to + 2] = linear[chroma + 2]!;
    }
  }
  return samples;
}

/**
 * A JP2 file around a codestream that shows some of its components, in this order (T.800 I.5.3.4 and
 * I.5.3.5; the palette itself is not used).
 */
function withChannels(
  codestream: Uint8Array,
  { widthPx, heightPx, precision }: Omit<Expected, "components">,
  components: number,
  channels: readonly number[],
): Uint8Array<ArrayBuffer> {
  const u32 = (value: number) => [value >>> 24, value >>> 16 & 255, value >>> 8 & 255, value & 255];
  const box = (type: string, ...content: number[]) => [
    ...u32(8 + content.length),
    ...Array.from(type, (letter) => letter.charCodeAt(0)),
    ...content,
  ];
  const depth = precision - 1;
  const depths = channels.map(() => depth);
  const entries = channels.flatMap(() => precision > 8 ? [0, 0] : [0]);
  const jp2 = [0x6a, 0x70, 0x32, 0x20];
  const head = [
    ...box("jP  ", 0x0d, 0x0a, 0x87, 0x0a),
    ...box("ftyp", ...jp2, ...u32(0), ...jp2),
    ...box(
      "jp2h",
      ...box("ihdr", ...u32(heightPx), ...u32(widthPx), 0, components, depth, 7, 0, 0),
      ...box("colr", 1, 0, 0, ...u32(16)),
      ...box("pclr", 0, 1, channels.length, ...depths, ...entries),
      ...box("cmap", ...channels.flatMap((component) => [0, component, 0, 0])),
    ),
    ...u32(8 + codestream.length),
    ...Array.from("jp2c", (letter) => letter.charCodeAt(0)),
  ];
  const file = new Uint8Array(head.length + codestream.length);
  file.set(head);
  file.set(codestream, head.length);
  return file;
}
