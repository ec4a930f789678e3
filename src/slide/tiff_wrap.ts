/** A TIFF of one strip around bytes, to hand them to sharp with all that it must know of them (TIFF 6.0 §2, §8). */

export interface Wrapping {
  readonly widthPx: number;
  readonly heightPx: number;
  /** 1, grey with black at zero, or 3, RGB; of 8 bits each. */
  readonly samplesPerPixel: 1 | 3;
  /** Tag 259: 1 for none, 5 for LZW. */
  readonly compression: 1 | 5;
  /** Tag 34675 (ICC.1:2010 §B.4). */
  readonly icc?: Uint8Array;
}

const SHORT = 3, LONG = 4, UNDEFINED = 7;
const HEADER_BYTES = 8, ENTRY_BYTES = 12;

/** @param data the strip's bytes, compressed as the wrapping says. */
export function wrapInTiff(data: Uint8Array, wrapping: Wrapping): Uint8Array<ArrayBuffer> {
  const { widthPx, heightPx, samplesPerPixel, compression, icc = new Uint8Array() } = wrapping;
  const entries: [tag: number, type: number, count: number, value: number][] = [
    [256, LONG, 1, widthPx], // ImageWidth
    [257, LONG, 1, heightPx], // ImageLength
    [258, SHORT, 1, 8], // BitsPerSample, of every sample
    [259, SHORT, 1, compression], // Compression
    [262, SHORT, 1, samplesPerPixel === 1 ? 1 : 2], // PhotometricInterpretation
    [273, LONG, 1, 0], // StripOffsets, set below
    [277, SHORT, 1, samplesPerPixel], // SamplesPerPixel
    [278, LONG, 1, heightPx], // RowsPerStrip
    [279, LONG, 1, data.length], // StripByteCounts
  ];
  if (icc.length > 0) entries.push([34675, UNDEFINED, icc.length, 0]); // ICC profile
  const iccAt = HEADER_BYTES + 2 + ENTRY_BYTES * entries.length + 4;
  const dataAt = iccAt + icc.length;
  const file = new Uint8Array(dataAt + data.length);
  const out = new DataView(file.buffer);
  out.setUint32(0, 0x49492a00);
  out.setUint32(4, HEADER_BYTES, true);
  out.setUint16(HEADER_BYTES, entries.length, true);
  for (const [i, [tag, type, count, value]] of entries.entries()) {
    const at = HEADER_BYTES + 2 + ENTRY_BYTES * i;
    out.setUint16(at, tag, true);
    out.setUint16(at + 2, type, true);
    out.setUint32(at + 4, count, true);
    out.setUint32(at + 8, tag === 273 ? dataAt : tag === 34675 ? iccAt : value, true);
  }
  file.set(icc, iccAt);
  file.set(data, dataAt);
  return file;
}
