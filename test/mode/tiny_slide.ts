/**
 * A tiled TIFF of 512 × 512 RGB pixels in four uncompressed tiles, about 786 kB: the smallest thing
 * that a whole run takes for a slide. TIFF 6.0 §2 and §15.
 */
export function tinySlide(): Uint8Array<ArrayBuffer> {
  const size = 512, tile = 256, tileBytes = tile * tile * 3;
  const SHORT = 3, LONG = 4;
  const [bitsAt, offsetsAt, countsAt, tilesAt] = [256, 264, 280, 512];
  const offsets = [0, 1, 2, 3].map((i) => tilesAt + i * tileBytes);
  const entries: [tag: number, type: number, count: number, value: number][] = [
    [256, LONG, 1, size], // ImageWidth
    [257, LONG, 1, size], // ImageLength
    [258, SHORT, 3, bitsAt], // BitsPerSample
    [259, SHORT, 1, 1], // Compression: none
    [262, SHORT, 1, 2], // PhotometricInterpretation: RGB
    [277, SHORT, 1, 3], // SamplesPerPixel
    [284, SHORT, 1, 1], // PlanarConfiguration: chunky
    [322, LONG, 1, tile], // TileWidth
    [323, LONG, 1, tile], // TileLength
    [324, LONG, 4, offsetsAt], // TileOffsets
    [325, LONG, 4, countsAt], // TileByteCounts
  ];
  const bytes = new Uint8Array(tilesAt + 4 * tileBytes);
  const view = new DataView(bytes.buffer);
  bytes.set([0x49, 0x49, 42, 0]);
  view.setUint32(4, 8, true);
  view.setUint16(8, entries.length, true);
  entries.forEach(([tag, type, count, value], i) => {
    const at = 10 + 12 * i;
    view.setUint16(at, tag, true);
    view.setUint16(at + 2, type, true);
    view.setUint32(at + 4, count, true);
    view.setUint32(at + 8, value, true); // Little-endian: a SHORT lies in the first two bytes.
  });
  [8, 8, 8].forEach((bits, i) => view.setUint16(bitsAt + 2 * i, bits, true));
  offsets.forEach((offset, i) => view.setUint32(offsetsAt + 4 * i, offset, true));
  offsets.forEach((_, i) => view.setUint32(countsAt + 4 * i, tileBytes, true));
  for (let i = tilesAt; i < bytes.length; i++) bytes[i] = (i * 7) >> 5;
  return bytes;
}
