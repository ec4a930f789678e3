import assert from "node:assert/strict";
import { SlideFormatError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { openWithText, testDamagedTexts, vendorSource } from "./vendor_slides.ts";

const NAME = "trestle.tif";

testDamagedTexts(NAME, [
  [
    "tiles that overlap by more than half",
    " 8 4 0 2",
    "33 4 0 2",
    SlideFormatError,
    /its cells lie 31 × 60 pixels apart/,
  ],
  ["an overlap of nonsense", " 8 4 0 2", "-9e9 4 9", SlideFormatError, /pixels/],
]);

Deno.test("openSlide() takes a Trestle slide's overlaps, scale and background from its description", async () => {
  const slide = await openSlide(vendorSource(NAME));
  assert.deepEqual(slide.background, [0xe6, 0xe6, 0xe6]);
  const { mppX, mppY, objectivePower, all } = slide.properties;
  assert.deepEqual([mppX, mppY, objectivePower], [0.465, 0.465, 20]);
  assert.equal(all["openslide.background-color"], "E6E6E6");
  assert.deepEqual(slide.levels.map(({ widthPx }) => widthPx), [176, 88]);
  await slide.close();
});

Deno.test("openSlide() takes a Trestle slide without overlaps for a plain grid", async () => {
  const slide = await openWithText(NAME, " 8 4 0 2", " 0 0 0 0");
  assert.deepEqual(slide.levels.map(({ widthPx }) => widthPx), [200, 88]);
  assert.equal(slide.properties.all["openslide.level[0].tile-width"], "64");
  await slide.close();
});
