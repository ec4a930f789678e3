import assert from "node:assert/strict";
import { SlideFormatError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { openWithText, testDamagedTexts, vendorSource } from "./vendor_slides.ts";

const NAME = "ventana.bif";

testDamagedTexts(NAME, [
  ["XML that ends early", "</Metadata>", "", SlideFormatError, /its XMLPacket has no iScan/],
  ["a level that is missing", "level=1 mag", "level=3 mag", SlideFormatError, /is not level 1/],
  ["levels in no order", "mag=10", "mag=80", SlideFormatError, /level 2 has a magnification of 80/],
  ["a level 3 times smaller", "mag=10", "mag=7 ", UnsupportedError, /times smaller/],
  ["broken XML of areas", "</EncodeInfo>", "", SlideFormatError, /0 areas and 0 origins/],
  [
    "an area without an origin",
    '<AOI2 OriginX="128" OriginY="0"/>',
    "",
    SlideFormatError,
    /3 areas and 2 origins/,
  ],
  [
    "an area outside its tiles",
    'OriginX="128"',
    'OriginX="256"',
    SlideFormatError,
    /area 2 has 1 × 2 tiles from \(4, 0\)/,
  ],
  ["an area between tiles", 'OriginX="128"', 'OriginX="100"', SlideFormatError, /area 2 has/],
  [
    "an area of endless rows",
    'NumRows="2" NumCols="1"',
    'NumRows="9e9" NumCols="1"'.slice(0, 23),
    SlideFormatError,
    /./,
  ],
  [
    "tiles of another size",
    'Width="64" Height="64"',
    'Width="63" Height="64"',
    SlideFormatError,
    /tiles of another size/,
  ],
  [
    "joins to the left",
    'Direction="UP"',
    'Direction="LT"',
    UnsupportedError,
    /a join of tiles to the LT/,
  ],
  [
    "joins of tiles apart",
    'Tile1="2" Tile2="3"',
    'Tile1="1" Tile2="3"',
    SlideFormatError,
    /no neighbours/,
  ],
  [
    "joins of tiles that are not there",
    'Tile1="2" Tile2="3"',
    'Tile1="2" Tile2="9"',
    SlideFormatError,
    /joins tile 9 of 4/,
  ],
  [
    "tiles that overlap all but wholly",
    'OverlapX="6"',
    'OverlapX="X"',
    SlideFormatError,
    /no OverlapX/,
  ],
  [
    "no area that was scanned",
    'AOIScanned="1"',
    'AOIScanned="0"',
    SlideFormatError,
    /no area that was scanned/,
  ],
]);

Deno.test("openSlide() puts tiles of a BIF where they overlap, and shows the lower and right one", async () => {
  const slide = await openSlide(vendorSource(NAME));
  const { all, mppX, objectivePower } = slide.properties;
  assert.deepEqual([mppX, objectivePower], [0.25, 40]);
  assert.equal(all["openslide.level[0].tile-width"], undefined);
  assert.deepEqual(slide.levels.map(({ downsample }) => downsample), [1, 2, 4]);
  assert.deepEqual([...slide.associated.keys()], ["macro", "thumbnail"]);
  await slide.close();
});

Deno.test("openSlide() puts tiles of a BIF side by side where no join is known", async () => {
  const joined = await openSlide(vendorSource(NAME));
  const slide = await openWithText(NAME, 'Confidence="100"', 'Confidence="0"');
  // One is left across, of 12 pixels; none down.
  assert.equal(slide.levels[0]!.widthPx, joined.levels[0]!.widthPx);
  assert.equal(slide.levels[0]!.heightPx, joined.levels[0]!.heightPx + 4);
  await slide.close();
  await joined.close();
});
