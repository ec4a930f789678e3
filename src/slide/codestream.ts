/**
 * What a JPEG 2000 codestream says before it is decoded (ITU-T T.800 annex A; T.814 for HTJ2K), and
 * whether all of it is there: decoders believe its sizes and pass over what is missing.
 */

import { UnsupportedError } from "../errors.ts";
import type { RawTile } from "./slide.ts";

/** A codestream that has been checked. */
export interface Codestream {
  readonly data: Uint8Array<ArrayBuffer>;
  readonly components: number;
  /** Bits of a sample, 1 to 16, unsigned. */
  readonly precision: number;
  /** Pixels per chroma sample, across and down; [1, 1] where there are none fewer. */
  readonly subsampling: readonly [across: number, down: number];
  /** High-throughput block coding (T.814), for which there is another decoder. */
  readonly highThroughput: boolean;
}

/** Marker codes (T.800 table A.2). */
const SOC = 0xff4f, CAP = 0xff50, SIZ = 0xff51, COD = 0xff52, COC = 0xff53;
const SOT = 0xff90, SOD = 0xff93, EOC = 0xffd9;

/** What a decoder takes some 64 MiB for, and half a second. Scanners' tiles have a hundredth. */
const MAX_SAMPLES = 2 ** 24;
/** Each costs OpenJPEG kilobytes, whatever is in it. */
const MAX_TILES = 1024;

/** Where in the JP2 file's boxes the codestream lies (T.800 annex I); all of it where there are none. */
function unbox(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (data.length < 12 || view.getUint32(0) !== 12 || view.getUint32(4) !== 0x6a502020) return data;
  for (let at = 0; at + 8 <= data.length;) {
    let length = view.getUint32(at), header = 8;
    if (length === 1 && at + 16 <= data.length) {
      length = Number(view.getBigUint64(at + 8));
      header = 16;
    } else if (length === 0) length = data.length - at;
    if (length < header || at + length > data.length) {
      throw new Error(`the box at byte ${at} is cut`);
    }
    if (view.getUint32(at + 4) === 0x6a703263) return data.subarray(at + header, at + length); // jp2c
    at += length;
  }
  throw new Error("it has boxes, but no codestream");
}

/**
 * Checks a tile's codestream, from SOC over every tile-part to EOC.
 * @throws {Error} where it is damaged, cut, or not what the tile says; {UnsupportedError} where its
 *   samples are of a kind that is not read.
 */
export function readCodestream(tile: RawTile): Codestream {
  const data = unbox(tile.data);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const u16 = (at: number) => {
    if (at + 2 > data.length) throw new Error("it is cut");
    return view.getUint16(at);
  };
  /** The segment at `at`: where it ends. */
  const segmentEnd = (at: number) => {
    const length = u16(at + 2);
    if (length < 2 || at + 2 + length > data.length) throw new Error(`the segment at ${at} is cut`);
    return at + 2 + length;
  };

  if (data.length < 4 || u16(0) !== SOC) throw new Error("it does not begin with SOC");
  if (u16(2) !== SIZ) throw new Error("SOC is not followed by SIZ");
  const size = readSize(view.buffer.slice(data.byteOffset + 6, data.byteOffset + segmentEnd(2)));
  check(size, tile, data.length);

  let highThroughput = false;
  let layers = 0;
  const readSegment = (marker: number, at: number, end: number) => {
    if (marker === CAP) highThroughput = true;
    if (marker === COD) {
      if (end - at < 14) throw new Error("its COD is cut");
      layers = Math.max(layers, u16(at + 6));
      checkPackets(data.subarray(at + 4, end), data[at + 4]!, 5, size, size.components, layers);
    }
    if (marker === COC) {
      const wide = size.components > 256 ? 2 : 1;
      if (end - at < 10 + wide) throw new Error("its COC is cut");
      const at0 = at + 4 + wide;
      checkPackets(data.subarray(at0, end), data[at0]!, 1, size, 1, layers);
    }
  };

  let at = segmentEnd(2);
  for (; u16(at) !== SOT; at = segmentEnd(at)) {
    const marker = u16(at);
    if (marker < 0xff00 || marker === EOC || marker === SOD) {
      throw new Error(`its main header ends at byte ${at} without a tile`);
    }
    readSegment(marker, at, segmentEnd(at));
  }
  if (layers === 0) throw new Error("it has no COD");
  const seen = new Set<number>();
  while (u16(at) === SOT) {
    if (u16(at + 2) !== 10 || at + 12 > data.length) throw new Error(`the SOT at ${at} is cut`);
    const index = u16(at + 4);
    if (index >= size.tiles) throw new Error(`it has a tile ${index} of ${size.tiles}`);
    seen.add(index);
    const length = view.getUint32(at + 6);
    const end = length === 0 ? data.lastIndexOf(0xd9) - 1 : at + length;
    let header = at + 12;
    for (; u16(header) !== SOD; header = segmentEnd(header)) {
      if (u16(header) < 0xff00) throw new Error(`there is no marker at byte ${header}`);
      readSegment(u16(header), header, segmentEnd(header));
    }
    if (end < header + 2 || end > data.length) {
      throw new Error(`the tile-part at ${at} ends at ${end} of ${data.length} bytes`);
    }
    at = end;
  }
  if (u16(at) !== EOC) throw new Error(`there is no EOC at byte ${at}`);
  if (seen.size !== size.tiles) throw new Error(`it has ${seen.size} of ${size.tiles} tiles`);
  const { components, precision, subsampling } = size;
  return { data, components, precision, subsampling, highThroughput };

  /** `styles` is COD's or COC's segment from Scod on; `spcod` is where in it decompositions are told. */
  function checkPackets(
    styles: Uint8Array,
    scod: number,
    spcod: number,
    { widthPx, heightPx }: Size,
    components: number,
    layers: number,
  ): void {
    const decompositions = styles[spcod]!;
    if (decompositions > 32) throw new Error(`it has ${decompositions} decompositions`);
    let precincts = 0;
    for (let r = 0; r <= decompositions; r++) {
      const exponents = scod & 1 ? styles[spcod + 5 + r] : 0xff;
      if (exponents === undefined) throw new Error("its precincts are cut");
      const scale = 2 ** (decompositions - r);
      precincts += Math.ceil(widthPx / scale / 2 ** (exponents & 15)) *
        Math.ceil(heightPx / scale / 2 ** (exponents >> 4));
    }
    // A packet takes at least a byte, and a decoder memory for each before it has read any (T.800 B.9).
    const packets = precincts * components * layers;
    if (packets > data.length) {
      throw new Error(`${data.length} bytes cannot hold ${packets} packets`);
    }
  }
}

interface Size {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly tiles: number;
  readonly components: number;
  readonly precision: number;
  readonly subsampling: readonly [across: number, down: number];
  /** What keeps it from being read. */
  readonly unsupported: string | undefined;
}

/** SIZ (T.800 A.5.1), from Rsiz on. */
function readSize(siz: ArrayBuffer): Size {
  if (siz.byteLength < 36) throw new Error("its SIZ is cut");
  const view = new DataView(siz);
  const [x1, y1, x0, y0, tileWidth, tileHeight, tileX0, tileY0] = Array.from(
    { length: 8 },
    (_, i) => view.getUint32(2 + 4 * i),
  ) as [number, number, number, number, number, number, number, number];
  const components = view.getUint16(34);
  if (components < 1 || siz.byteLength !== 36 + 3 * components) throw new Error("its SIZ is cut");
  if (x0 >= x1 || y0 >= y1 || tileWidth === 0 || tileHeight === 0 || tileX0 > x0 || tileY0 > y0) {
    throw new Error("its SIZ has an area that is empty");
  }
  const all = Array.from({ length: components }, (_, i) => ({
    depth: view.getUint8(36 + 3 * i),
    across: view.getUint8(37 + 3 * i),
    down: view.getUint8(38 + 3 * i),
  }));
  const [first, second] = all as [typeof all[0], typeof all[0] | undefined];
  if (all.some(({ across, down }) => across === 0 || down === 0)) {
    throw new Error("its SIZ has components without samples");
  }
  const precision = (first.depth & 127) + 1;
  const subsampling = [second?.across ?? 1, second?.down ?? 1] as const;
  const isSame = all.slice(1).every(({ depth, across, down }) =>
    depth === first.depth && across === subsampling[0] && down === subsampling[1]
  );
  const isSubsampled = subsampling[0] > 1 || subsampling[1] > 1;
  const unsupported = first.depth > 127
    ? "signed samples"
    : precision > 16
    ? `samples of ${precision} bits`
    : components === 2 || components > 4
    ? `${components} components`
    : !isSame || first.across !== 1 || first.down !== 1 ||
        (isSubsampled && (components !== 3 || precision !== 8 || x0 > 0 || y0 > 0)) ||
        subsampling[0] > 2 || subsampling[1] > 2
    ? "components of different kinds"
    : undefined;
  return {
    widthPx: x1 - x0,
    heightPx: y1 - y0,
    tiles: Math.ceil((x1 - tileX0) / tileWidth) * Math.ceil((y1 - tileY0) / tileHeight),
    components,
    precision,
    subsampling,
    unsupported,
  };
}

function check(size: Size, tile: RawTile, lengthBytes: number): void {
  const { widthPx, heightPx, components, tiles } = size;
  if (widthPx !== tile.widthPx || heightPx !== tile.heightPx) {
    throw new Error(
      `its picture is ${widthPx} × ${heightPx}, the tile ${tile.widthPx} × ${tile.heightPx}`,
    );
  }
  if (components !== tile.samplesPerPixel) {
    throw new Error(`it has ${components} components, the tile ${tile.samplesPerPixel}`);
  }
  const what = size.unsupported ??
    (tiles > MAX_TILES ? `a picture of ${tiles} tiles` : undefined) ??
    (widthPx * heightPx * components > MAX_SAMPLES
      ? `a tile of ${widthPx} × ${heightPx} pixels`
      : undefined);
  if (what !== undefined) {
    throw new UnsupportedError(
      `Cannot decode a JPEG 2000 tile: ${what} is not supported`,
      `JPEG 2000: ${what}`,
    );
  }
  // SOT and SOD of each (T.800 A.4.2).
  if (tiles * 14 > lengthBytes) throw new Error(`${lengthBytes} bytes cannot hold ${tiles} tiles`);
}
