/** Slides as several scanners write them (fixtures/make_vendor_slides.py), compared with OpenSlide. */

import assert from "node:assert/strict";
import { CodecError, SlideFormatError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import digests from "../fixtures/vendor/digests.json" with { type: "json" };
import { compareSlide, type SlideDigests } from "./digests.ts";
import { vendorBytes, vendorSource } from "./vendor_slides.ts";

const DIGESTS = digests as Record<string, SlideDigests>;

for (const [name, expected] of Object.entries(DIGESTS)) {
  Deno.test(`openSlide() reads ${name} as ${expected.reader} does`, async () => {
    const slide = await openSlide(vendorSource(name), { decoders: 2 });
    await compareSlide(slide, expected);
    await slide.close();
  });

  Deno.test(`openSlide() gives a slide or a typed error for ${name} changed or cut anywhere`, async () => {
    const whole = vendorBytes(name);
    let seed = 1;
    const random = (below: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0; // ISO C's own.
      return Math.floor(seed / 2 ** 32 * below);
    };
    for (let i = 0; i < 40; i++) {
      const isCut = i % 4 === 0;
      const bytes = isCut ? whole.slice(0, 16 + random(whole.length - 16)) : whole.slice();
      // Directories and descriptions lie anywhere; those of the last images near the end.
      const changes = isCut ? 0 : 1 + random(40);
      for (let change = 0; change < changes; change++) {
        bytes[random(bytes.length)] = [0, 1, 255, random(256)][random(4)]!;
      }
      try {
        const slide = await openSlide(vendorSource(name, bytes));
        for (const [level, { widthPx, heightPx, downsample }] of slide.levels.entries()) {
          const at = (sidePx: number) => Math.round(downsample * random(Math.min(sidePx, 2 ** 31)));
          const region = { level, x0Px: at(widthPx), y0Px: at(heightPx) };
          await slide.readRegion({ ...region, widthPx: 50, heightPx: 50 });
        }
        for (const picture of slide.associated.values()) await picture();
        await slide.close();
      } catch (error) {
        const isTyped = [SlideFormatError, UnsupportedError, CodecError]
          .some((type) => error instanceof type);
        assert.ok(isTyped, `${name}, change ${i}: ${(error as Error).stack}`);
      }
    }
  });
}
