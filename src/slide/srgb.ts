/**
 * A slide's colours to sRGB (IEC 61966-2-1) through its ICC profile (ICC.1:2010): a table of all
 * colours, made once by Little CMS inside sharp, perceptual intent, eight bits a sample.
 *
 * The table holds every one of the 2²⁴ colours, so that it loses nothing that Little CMS gives. One of
 * 33³ or 65³ colours to interpolate in is off by up to 20 where sRGB's gamut ends, and takes three
 * times as long a tile; a tile given to sharp itself takes eight times as long.
 */

import { SlideFormatError, UnsupportedError } from "../errors.ts";
import { wrapInTiff } from "./tiff_wrap.ts";

const COLOURS = 2 ** 24;
/** Made in parts, so that what is needed beside the table is little. */
const PART_PX = 2 ** 11;
const PART_COLOURS = PART_PX ** 2;
/** Scanners' profiles take up to some hundred kilobytes. */
const MAX_PROFILE_BYTES = 2 ** 24;
/** ICC.1:2010 §7.2: the header, and where in it lie the space of the data and the signature. */
const HEADER_BYTES = 128, SPACE_AT = 16, SIGNATURE_AT = 36;

/** sRGB of the colour r + g · 2⁸ + b · 2¹⁶, in the same form: `[2²⁴]`. */
export type SrgbTable = Uint32Array;

/**
 * Makes the table of a profile: 0.3 s on two cores, 64 MiB.
 * @param path the slide's, for messages.
 * @throws {SlideFormatError} where the profile is broken; {UnsupportedError} where it is not of RGB.
 */
export async function makeSrgbTable(profile: Uint8Array, path: string): Promise<SrgbTable> {
  const broken = (why: string, cause?: unknown) =>
    new SlideFormatError(
      `Cannot convert the colours of "${path}" to sRGB: its ICC profile is broken: ${why}`,
      { path, format: "icc" },
      { cause },
    );
  if (profile.length < HEADER_BYTES || profile.length > MAX_PROFILE_BYTES) {
    throw broken(`it has ${profile.length} bytes`);
  }
  const text = (at: number) => String.fromCharCode(...profile.subarray(at, at + 4));
  if (text(SIGNATURE_AT) !== "acsp") throw broken("it has no signature");
  const space = text(SPACE_AT).trimEnd();
  if (space !== "RGB") {
    const feature = /^\w+$/.test(space) ? `an ICC profile of ${space}` : "an ICC profile of no RGB";
    throw new UnsupportedError(
      `Cannot convert the colours of "${path}" to sRGB: ${feature} is not supported`,
      feature,
    );
  }
  const { default: sharp } = await import("sharp");
  sharp.cache(false);
  const table = new Uint32Array(COLOURS);
  const part = new Uint8Array(3 * PART_COLOURS);
  for (let first = 0; first < COLOURS; first += PART_COLOURS) {
    for (let i = 0, to = 0; i < PART_COLOURS; i++) {
      const colour = first + i;
      part[to++] = colour;
      part[to++] = colour >>> 8;
      part[to++] = colour >>> 16;
    }
    const warnings: string[] = [];
    try {
      const picture = wrapInTiff(part, {
        widthPx: PART_PX,
        heightPx: PART_PX,
        samplesPerPixel: 3,
        compression: 1,
        icc: profile,
      });
      const made = await sharp(picture, { failOn: "error" })
        // A profile that cannot be used is told so, and the colours come out as they were.
        .on("warning", (warning: string) => warnings.push(warning))
        .toColourspace("srgb").raw().toBuffer();
      if (warnings.length > 0) throw new Error(warnings[0]);
      for (let i = 0, from = 0; i < PART_COLOURS; i++, from += 3) {
        table[first + i] = made[from]! | made[from + 1]! << 8 | made[from + 2]! << 16;
      }
    } catch (cause) {
      throw broken((cause as Error).message, cause);
    }
  }
  return table;
}

/**
 * Converts pixels in place, four at a time as three words: a third of the accesses to memory.
 * @param pixels RGB, one byte a sample, from an offset that is a multiple of four.
 */
export function convertToSrgb(pixels: Uint8Array, table: SrgbTable): void {
  const words = new Uint32Array(pixels.buffer, pixels.byteOffset, pixels.length >> 2);
  const whole = words.length - words.length % 3;
  for (let i = 0; i < whole; i += 3) {
    // The first byte of a word is its lowest, on all that Deno runs on.
    const a = words[i]!, b = words[i + 1]!, c = words[i + 2]!;
    const first = table[a & 0xffffff]!;
    const second = table[a >>> 24 | (b & 0xffff) << 8]!;
    const third = table[b >>> 16 | (c & 0xff) << 16]!;
    const fourth = table[c >>> 8]!;
    words[i] = first | second << 24;
    words[i + 1] = second >>> 8 | third << 16;
    words[i + 2] = third >>> 16 | fourth << 8;
  }
  for (let i = 4 * whole; i < pixels.length; i += 3) {
    const made = table[pixels[i]! | pixels[i + 1]! << 8 | pixels[i + 2]! << 16]!;
    pixels[i] = made;
    pixels[i + 1] = made >>> 8;
    pixels[i + 2] = made >>> 16;
  }
}
