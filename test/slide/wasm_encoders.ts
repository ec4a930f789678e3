/** Codestreams for tests, by the encoders that Cornerstone's packages hold beside the decoders. */

import CharLs from "@cornerstonejs/codec-charls/encoder";
import OpenJpeg from "@cornerstonejs/codec-openjpeg/encoder";
import OpenJph from "@cornerstonejs/codec-openjph";

interface Encoder {
  getDecodedBuffer(info: Record<string, number | boolean>): Uint8Array;
  setQuality?(lossless: boolean, quality: number): void;
  setDecompositions?(count: number): void;
  setInterleaveMode?(mode: number): void;
  encode(): void;
  getEncodedBuffer(): Uint8Array;
  delete(): void;
}

type Load = (streams: Record<string, () => void>) => Promise<Record<string, new () => Encoder>>;

/** Interleaved values of `bits` to a codestream. */
export type Encode = (
  values: ArrayLike<number>,
  widthPx: number,
  heightPx: number,
  components: number,
  bits: number,
) => Promise<Uint8Array<ArrayBuffer>>;

function encoder(
  load: unknown,
  name: string,
  { interleaveMode, lossless = true }: { interleaveMode?: number; lossless?: boolean } = {},
): Encode {
  return async (values, width, height, componentCount, bitsPerSample) => {
    const exports = await (load as Load)({ print() {}, printErr() {} });
    const encoder = new exports[name]!();
    const buffer = encoder.getDecodedBuffer({
      width,
      height,
      bitsPerSample,
      componentCount,
      isSigned: false,
      isUsingColorTransform: componentCount === 3,
    });
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    for (let i = 0; i < values.length; i++) {
      if (bitsPerSample > 8) view.setUint16(2 * i, values[i]!, true);
      else view.setUint8(i, values[i]!);
    }
    encoder.setQuality?.(lossless, 0);
    encoder.setDecompositions?.(3);
    if (interleaveMode !== undefined) encoder.setInterleaveMode?.(interleaveMode);
    encoder.encode();
    const encoded = new Uint8Array(encoder.getEncodedBuffer());
    encoder.delete();
    return encoded;
  };
}

export const encodeJpeg2000 = encoder(OpenJpeg, "J2KEncoder");
/** The irreversible transform, of which the encoder keeps nearly all. */
export const encodeLossyJpeg2000 = encoder(OpenJpeg, "J2KEncoder", { lossless: false });
export const encodeHtj2k = encoder(OpenJph, "HTJ2KEncoder");
/** @param mode 0: a scan for each component, whose values come one after the other; 1: lines, 2: samples. */
export const encodeJpegLs = (mode: 0 | 1 | 2): Encode =>
  encoder(CharLs, "JpegLSEncoder", { interleaveMode: mode });
