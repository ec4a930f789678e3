/** What independent readers made of the data's slides (fixtures/make_slide_digests.py), to compare with. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { openSlide } from "../../src/slide/open.ts";
import type { Picture, Slide } from "../../src/slide/slide.ts";
import { dataPath } from "../data.ts";
import digests from "../fixtures/slide_digests.json" with { type: "json" };

interface PictureDigest {
  readonly widthPx: number;
  readonly heightPx: number;
  /** Of interleaved RGB, in hexadecimal. */
  readonly sha256: string;
}

export interface SlideDigests {
  /** Who read it. */
  readonly reader: string;
  readonly levels: readonly PictureDigest[];
  readonly regions: readonly (PictureDigest & {
    readonly level: number;
    readonly x0Px: number;
    readonly y0Px: number;
  })[];
  /** OpenSlide's, without its quickhash; where it read the slide. */
  readonly properties?: Readonly<Record<string, string>>;
  readonly associated?: Readonly<Record<string, PictureDigest>>;
}

/** By path in the data's folder. */
export const DIGESTS = digests as Readonly<Record<string, SlideDigests>>;

function digestOf({ data, widthPx, heightPx }: Picture): PictureDigest {
  assert.equal(data.length, widthPx * heightPx * 3);
  return { widthPx, heightPx, sha256: createHash("sha256").update(data).digest("hex") };
}

/** OpenSlide has these since 4.0, and the digests are 3.4.1's. */
const NEW = /^openslide\.(icc-size|associated\..*)$/;
const NEWER: Readonly<Record<string, RegExp>> = {
  "generic-tiff": /^openslide\.mpp-[xy]$/,
  "leica": /^openslide\.barcode$/,
  "philips": /^openslide\.(barcode|objective-power)$/,
};

/** Levels, regions, properties and associated pictures of a slide are those of the digests. */
export async function compareWithDigests(name: string): Promise<void> {
  const path = dataPath(name);
  if (path === undefined) return;
  // Threads and none take different ways through the decoder.
  for (const decoders of [0, 2]) {
    const slide = await openSlide(path, { decoders });
    await compareSlide(slide, DIGESTS[name]!);
    await slide.close();
  }
}

/** Levels, regions, properties and associated pictures of an open slide are those of the digests. */
export async function compareSlide(slide: Slide, expected: SlideDigests): Promise<void> {
  await comparePictures(slide, expected);
  if (expected.properties === undefined) return;
  const newer = NEWER[slide.format];
  const all = Object.entries(slide.properties.all).filter(([name]) =>
    !NEW.test(name) && !newer?.test(name)
  );
  assert.deepEqual(Object.fromEntries(all), expected.properties);
}

async function comparePictures(slide: Slide, expected: SlideDigests): Promise<void> {
  assert.equal(slide.levels.length, expected.levels.length);
  for (const [level, digest] of expected.levels.entries()) {
    const { widthPx, heightPx } = slide.levels[level]!;
    const picture = await slide.readRegion({ level, x0Px: 0, y0Px: 0, widthPx, heightPx });
    assert.deepEqual(digestOf(picture), digest, `level ${level}, by ${expected.reader}`);
  }
  for (const { sha256, ...region } of expected.regions) {
    const { widthPx, heightPx } = region;
    const picture = await slide.readRegion(region);
    assert.deepEqual(
      digestOf(picture),
      { widthPx, heightPx, sha256 },
      `${JSON.stringify(region)}, by ${expected.reader}`,
    );
  }
  const associated: Record<string, PictureDigest> = {};
  for (const [name, decode] of slide.associated) associated[name] = digestOf(await decode());
  assert.deepEqual(associated, expected.associated ?? {});
}
