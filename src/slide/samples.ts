/**
 * Decompressed samples to interleaved RGB bytes, as libtiff shows them (tif_getimage.c), and so
 * OpenSlide: TIFF 6.0 §8, §14, §18 and §21, DICOM PS3.3 C.7.6.3.1.
 */

import type { RawTile } from "./slide.ts";

/** What of a tile says how its samples lie and what they mean. */
export type SampleLayout = Pick<
  RawTile,
  | "widthPx"
  | "heightPx"
  | "samplesPerPixel"
  | "bitsPerSample"
  | "bitsStored"
  | "photometric"
  | "subsampling"
  | "palette"
  | "alpha"
  | "littleEndian"
>;

/** Bytes of a tile's samples once decompressed. */
export function sampleBytes(
  { widthPx, heightPx, samplesPerPixel, bitsPerSample, subsampling }: SampleLayout,
): number {
  if (subsampling === undefined) return widthPx * heightPx * samplesPerPixel * bitsPerSample / 8;
  const [across, down] = subsampling;
  return Math.ceil(widthPx / across) * Math.ceil(heightPx / down) * (across * down + 2);
}

/**
 * Interleaved samples to RGB `[heightPx, widthPx, 3]`, one byte a sample: grey is tripled, palettes
 * and YCbCr are looked up, alpha is blended over white, wider samples are scaled.
 */
export function toRgb(samples: Uint8Array, tile: SampleLayout): Uint8Array<ArrayBuffer> {
  const { samplesPerPixel: n, photometric, alpha } = tile;
  const rgb = new Uint8Array(tile.widthPx * tile.heightPx * 3);
  if (photometric === "palette") {
    lookUp(samples, tile, rgb);
    return rgb;
  }
  if (tile.subsampling !== undefined) {
    expand(samples, tile, tile.subsampling, rgb);
    convertYcbcr(rgb);
    return rgb;
  }
  const bytes = tile.bitsPerSample === 16 || tile.bitsStored !== undefined
    ? toBytes(samples, tile)
    : samples;
  if (n === 3 && !photometric.startsWith("grey")) {
    rgb.set(bytes.subarray(0, rgb.length));
    if (photometric === "ycbcr") convertYcbcr(rgb);
    return rgb;
  }
  const [green, blue] = photometric.startsWith("grey") ? [0, 0] : [1, 2];
  for (let to = 0, from = 0; to < rgb.length; to += 3, from += n) {
    rgb[to] = bytes[from]!;
    rgb[to + 1] = bytes[from + green]!;
    rgb[to + 2] = bytes[from + blue]!;
  }
  if (photometric === "ycbcr") convertYcbcr(rgb);
  if (n === 4 && alpha !== "none") {
    for (let to = 0, from = 3; to < rgb.length; to += 3, from += 4) {
      blendOverWhite(rgb, to, bytes[from]!, alpha);
    }
  }
  if (photometric === "grey-inverted") invert(rgb);
  return rgb;
}

/** White for black. */
export function invert(rgb: Uint8Array): void {
  for (let i = 0; i < rgb.length; i++) rgb[i]! ^= 255;
}

/** Samples of planes, one after the other, each `[heightPx, widthPx]`, to interleaved ones. */
export function interleave(planes: readonly Uint8Array[], bytesPerSample: number): Uint8Array {
  const length = planes[0]?.length ?? 0;
  const samples = new Uint8Array(length * planes.length);
  const step = planes.length * bytesPerSample;
  for (const [p, plane] of planes.entries()) {
    for (let byte = 0; byte < bytesPerSample; byte++) {
      let to = p * bytesPerSample + byte;
      for (let from = byte; from < length; from += bytesPerSample, to += step) {
        samples[to] = plane[from]!;
      }
    }
  }
  return samples;
}

/** Blends the pixel at `at`; weights are rounded as libtiff does it (BuildMapUaToAa). */
function blendOverWhite(
  rgb: Uint8Array,
  at: number,
  opacity: number,
  alpha: "associated" | "unassociated",
): void {
  for (let i = at; i < at + 3; i++) {
    const weighted = alpha === "associated" ? rgb[i]! : Math.floor((rgb[i]! * opacity + 127) / 255);
    rgb[i] = Math.min(255, weighted + 255 - opacity);
  }
}

/**
 * Samples of more or fewer than 8 bits to bytes: of grey the high eight bits, of colours the nearest,
 * both as libtiff does it. Bits that are not used are masked.
 */
function toBytes(samples: Uint8Array, tile: SampleLayout): Uint8Array {
  const { bitsPerSample, photometric, littleEndian } = tile;
  const stored = tile.bitsStored ?? bitsPerSample;
  const max = 2 ** stored - 1;
  const isGrey = photometric.startsWith("grey") && stored >= 8;
  const shift = stored - 8;
  const half = max >> 1;
  if (bitsPerSample === 8) {
    if (stored === 8) return samples;
    return samples.map((value) => Math.floor(((value & max) * 255 + half) / max));
  }
  const [high, low] = littleEndian ? [1, 0] : [0, 1];
  const bytes = new Uint8Array(samples.length >> 1);
  for (let i = 0; i < bytes.length; i++) {
    const value = (samples[2 * i + high]! * 256 + samples[2 * i + low]!) & max;
    bytes[i] = isGrey ? value >> shift : Math.floor((value * 255 + half) / max);
  }
  return bytes;
}

/** Values past the palette's end are its last colour (PS3.3 C.7.6.3.1.5). */
function lookUp(samples: Uint8Array, tile: SampleLayout, rgb: Uint8Array): void {
  const { samplesPerPixel: n, bitsPerSample, littleEndian, palette } = tile;
  if (palette === undefined || palette.length < 3) throw new Error("its palette is missing");
  const last = Math.floor(palette.length / 3) - 1;
  const wide = bitsPerSample === 16;
  const [high, low] = littleEndian ? [1, 0] : [0, 1];
  for (let to = 0, from = 0; to < rgb.length; to += 3, from += n) {
    const value = wide
      ? samples[2 * from + high]! * 256 + samples[2 * from + low]!
      : samples[from]!;
    const at = 3 * Math.min(value, last);
    rgb[to] = palette[at]!;
    rgb[to + 1] = palette[at + 1]!;
    rgb[to + 2] = palette[at + 2]!;
  }
}

/** Data units of subsampled YCbCr (TIFF 6.0 §21) to YCbCr of every pixel, chroma repeated. */
function expand(
  samples: Uint8Array,
  { widthPx, heightPx }: SampleLayout,
  [across, down]: readonly [number, number],
  ycbcr: Uint8Array,
): void {
  const unitBytes = across * down + 2;
  let unit = 0;
  for (let y0 = 0; y0 < heightPx; y0 += down) {
    for (let x0 = 0; x0 < widthPx; x0 += across, unit += unitBytes) {
      const cb = samples[unit + unitBytes - 2]!, cr = samples[unit + unitBytes - 1]!;
      for (let dy = 0; dy < down && y0 + dy < heightPx; dy++) {
        for (let dx = 0; dx < across && x0 + dx < widthPx; dx++) {
          const to = 3 * ((y0 + dy) * widthPx + x0 + dx);
          ycbcr[to] = samples[unit + dy * across + dx]!;
          ycbcr[to + 1] = cb;
          ycbcr[to + 2] = cr;
        }
      }
    }
  }
}

/**
 * YCbCr of ITU-R BT.601 in full range to RGB, in place, in the fixed-point arithmetic of libjpeg and
 * libtiff, so that their pixels are ours (ITU-T T.871 §7).
 */
function convertYcbcr(pixels: Uint8Array): void {
  const HALF = 32768;
  const RED_CR = 91881, GREEN_CR = -46802, GREEN_CB = -22554, BLUE_CB = 116130; // 1.402 … × 2¹⁶.
  const clamp = (value: number) => value < 0 ? 0 : value > 255 ? 255 : value;
  for (let i = 0; i < pixels.length; i += 3) {
    const y = pixels[i]!, cb = pixels[i + 1]! - 128, cr = pixels[i + 2]! - 128;
    pixels[i] = clamp(y + ((RED_CR * cr + HALF) >> 16));
    pixels[i + 1] = clamp(y + ((GREEN_CR * cr + GREEN_CB * cb + HALF) >> 16));
    pixels[i + 2] = clamp(y + ((BLUE_CB * cb + HALF) >> 16));
  }
}
