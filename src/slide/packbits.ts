/** PackBits (TIFF 6.0 §9), and DICOM's run-length encoding, which is PackBits of byte planes (PS3.5 annex G). */

/**
 * Runs and literals to bytes; stops at `lengthBytes`.
 * @returns fewer bytes where the data end before.
 */
export function decodePackBits(data: Uint8Array, lengthBytes: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(lengthBytes);
  let to = 0;
  for (let from = 0; from < data.length && to < lengthBytes;) {
    const control = data[from++]!;
    if (control < 128) {
      const literal = data.subarray(from, from + Math.min(control + 1, lengthBytes - to));
      out.set(literal, to);
      to += literal.length;
      from += control + 1;
    } else if (control > 128 && from < data.length) {
      const end = Math.min(lengthBytes, to + 257 - control);
      out.fill(data[from++]!, to, end);
      to = end;
    }
  }
  return out.subarray(0, to);
}

/** Bytes of the header that says where segments begin (PS3.5 G.5). */
const HEADER_BYTES = 64;

/**
 * A DICOM RLE frame to interleaved samples: a segment for each byte of each sample, the high byte
 * first (PS3.5 G.2).
 * @throws {Error} where segments are not those of such a frame, lie outside it or are short.
 */
export function decodeRle(
  data: Uint8Array,
  { pixels, samplesPerPixel, bytesPerSample, littleEndian }: {
    readonly pixels: number;
    readonly samplesPerPixel: number;
    readonly bytesPerSample: number;
    readonly littleEndian: boolean;
  },
): Uint8Array<ArrayBuffer> {
  if (data.length < HEADER_BYTES) throw new Error("its header is cut");
  const header = new DataView(data.buffer, data.byteOffset, HEADER_BYTES);
  const count = header.getUint32(0, true);
  const step = samplesPerPixel * bytesPerSample;
  if (count !== step) throw new Error(`it has ${count} segments where ${step} are due`);
  const samples = new Uint8Array(pixels * step);
  for (let segment = 0; segment < count; segment++) {
    const start = header.getUint32(4 + 4 * segment, true);
    const end = segment + 1 < count ? header.getUint32(8 + 4 * segment, true) : data.length;
    if (start < HEADER_BYTES || end < start || end > data.length) {
      throw new Error(`segment ${segment} lies at bytes ${start} to ${end} of ${data.length}`);
    }
    const plane = decodePackBits(data.subarray(start, end), pixels);
    if (plane.length < pixels) {
      throw new Error(`segment ${segment} holds ${plane.length} bytes where ${pixels} are due`);
    }
    const byte = segment % bytesPerSample;
    let to = segment - byte + (littleEndian ? bytesPerSample - 1 - byte : byte);
    for (let from = 0; from < pixels; from++, to += step) samples[to] = plane[from]!;
  }
  return samples;
}
