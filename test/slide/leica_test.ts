import assert from "node:assert/strict";
import { SlideFormatError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { testDamagedTexts, vendorSource } from "./vendor_slides.ts";

const NAME = "leica.scn";

testDamagedTexts(NAME, [
  ["XML that ends early", "</scn>", "", SlideFormatError, /no XML of a collection/],
  [
    "no size of the glass",
    'sizeX="200000" sizeY',
    'sizeX="2e5.0" sizeY',
    SlideFormatError,
    /no whole number sizeX/,
  ],
  ["a directory that is not there", 'ifd="4"', 'ifd="9"', SlideFormatError, /names directory 9/],
  [
    "no brightfield image",
    "brightfield</illuminationSource>",
    "other</illuminationSource>",
    UnsupportedError,
    /a brightfield image/,
  ],
  [
    "areas of two objectives",
    '<dimension sizeX="20" sizeY="30" r="1" ifd="4" z="0"/>',
    "",
    UnsupportedError,
    /areas that differ in resolution/,
  ],
  [
    "areas of two resolutions",
    '<dimension sizeX="80" sizeY="120" r="0" ifd="3"',
    '<dimension sizeX="40" sizeY="120" r="0" ifd="3"',
    UnsupportedError,
    /areas that differ in resolution/,
  ],
  [
    "an area of no pixels",
    '<dimension sizeX="20"',
    '<dimension sizeX="0"',
    SlideFormatError,
    /nm in 0 pixels/,
  ],
  [
    "a glass of 10 metres",
    'sizeX="200000" sizeY',
    'sizeX="9e15" sizeY',
    SlideFormatError,
    /it is \d+ × 320 pixels/,
  ],
]);

Deno.test("openSlide() places areas of a Leica slide on the glass, and gives its bounds", async () => {
  const slide = await openSlide(vendorSource(NAME));
  assert.deepEqual(slide.levels.map(({ widthPx, heightPx }) => [widthPx, heightPx]), [
    [400, 320],
    [100, 80],
  ]);
  const { all, mppX, objectivePower } = slide.properties;
  assert.deepEqual([mppX, objectivePower], [0.5, 20]);
  assert.equal(all["openslide.barcode"], "code 1");
  const bounds = ["x", "y", "width", "height"].map((side) => all[`openslide.bounds-${side}`]);
  assert.deepEqual(bounds, ["80", "40", "240", "240"]);
  // Tiles of both areas' directories, side by side.
  assert.notEqual((await slide.rawTile(0, 3, 1)).data.length, 0);
  await assert.rejects(slide.rawTile(0, 4, 0), RangeError);
  await assert.rejects(slide.rawTile(0, -1, 0), RangeError);
  await slide.close();
});
