/** Slides as several scanners write them (fixtures/make_vendor_slides.py), compared with OpenSlide. */

import assert from "node:assert/strict";
import { CodecError, SlideFormatError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { mutate } from "../conformance/mutate.ts";
import digests from "../fixtures/vendor/digests.json" with { type: "json" };
import { uniform } from "../reference/random.ts";
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
    for (let i = 0; i < 40; i++) {
      const { bytes, what } = mutate(whole, i);
      const random = uniform(i);
      try {
        const slide = await openSlide(vendorSource(name, bytes));
        for (const [level, { widthPx, heightPx, downsample }] of slide.levels.entries()) {
          const at = (sidePx: number) => Math.round(downsample * sidePx * random());
          const region = { level, x0Px: at(widthPx), y0Px: at(heightPx) };
          await slide.readRegion({ ...region, widthPx: 50, heightPx: 50 });
        }
        for (const picture of slide.associated.values()) await picture();
        await slide.close();
      } catch (error) {
        const isTyped = [SlideFormatError, UnsupportedError, CodecError]
          .some((type) => error instanceof type);
        assert.ok(isTyped, `${what}: ${(error as Error).stack}`);
      }
    }
  });
}
