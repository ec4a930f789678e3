import assert from "node:assert/strict";
import { SlideFormatError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { openWithText, testDamagedTexts, vendorSource } from "./vendor_slides.ts";

const NAME = "philips.tiff";

testDamagedTexts(NAME, [
  [
    "XML that ends early",
    "</DataObject></Array>",
    "</DataObject>",
    SlideFormatError,
    /its description is no XML of a DPUfsImport/,
  ],
  [
    "XML of another type",
    'ObjectType="DPUfsImport"',
    'objectType="DPUfsImport"',
    SlideFormatError,
    /its description is no XML of a DPUfsImport/,
  ],
  [
    "no whole-slide image",
    ">WSI<",
    ">MAP<",
    SlideFormatError,
    /its XML has 0 whole-slide images where one is due/,
  ],
  [
    "two whole-slide images",
    "LABELIMAGE</Attribute>",
    "WSI</Attribute>",
    SlideFormatError,
    /its XML has 2 whole-slide images where one is due/,
  ],
  [
    "levels of another type",
    '"PixelDataRepresentation"',
    '"PixelDataRepresentatioX"',
    SlideFormatError,
    /its XML has 0 levels and the file 3/,
  ],
  [
    "a level without a spacing",
    "&quot;0.0006&quot; &quot;0.0005&quot;",
    "&quot;0.0006&quot;",
    SlideFormatError,
    /level 1 has no pixel spacing/,
  ],
  [
    "a level that is said to be as large as the first",
    "&quot;0.0006&quot; &quot;0.0005&quot;",
    "&quot;0.0003&quot; &quot;0.0002&quot;",
    SlideFormatError,
    /level 1 is 192 × 128 pixels, which 1 times smaller than the first is not/,
  ],
  [
    "a level that is said to be nothing",
    "&quot;0.0012&quot; &quot;0.001&quot;",
    "&quot;9e9&quot; &quot;9e9&quot;",
    SlideFormatError,
    /level 2 is 128 × 64 pixels, which \d+ times smaller than the first is not/,
  ],
]);

Deno.test("openSlide() gives a Philips slide's label and macro, or none where they are broken", async () => {
  const slide = await openSlide(vendorSource(NAME));
  assert.deepEqual([...slide.associated.keys()].sort(), ["label", "macro"]);
  assert.deepEqual([slide.properties.mppX, slide.properties.mppY], [0.25, 0.3]);
  assert.deepEqual(slide.levels.map(({ downsample }) => downsample), [1, 2, 4]);
  await slide.close();
  const broken = await openWithText(NAME, "/9j/4AAQ", "AAAAAAAA");
  assert.deepEqual([...broken.associated.keys()], ["macro"]);
  await broken.close();
});

Deno.test("rawTile() gives nothing for a tile that a Philips slide leaves out", async () => {
  const slide = await openSlide(vendorSource(NAME));
  assert.equal((await slide.rawTile(0, 0, 0)).data.length, 0);
  assert.notEqual((await slide.rawTile(0, 1, 0)).data.length, 0);
  const { data } = await slide.readRegion({
    level: 0,
    x0Px: 0,
    y0Px: 0,
    widthPx: 64,
    heightPx: 64,
  });
  assert.ok(data.every((byte) => byte === 255));
  await slide.close();
});
