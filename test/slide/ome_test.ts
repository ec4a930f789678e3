import assert from "node:assert/strict";
import { SlideFormatError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { dataPath } from "../data.ts";
import { ascii, buildTiff, cutTiles, type Image, LONG, pattern, SHORT } from "./tiff_builder.ts";
import { openWithText, testDamagedTexts, vendorSource } from "./vendor_slides.ts";

const NAME = "ome-subifds.ome.tif";

testDamagedTexts(NAME, [
  ["XML that ends early", "</Pixels>", "", SlideFormatError, /its description is no OME-XML/],
  [
    "a series in no directory",
    'IFD="2"',
    'IFD="7"',
    SlideFormatError,
    /names directory 7, and there are 3/,
  ],
  [
    "a size that is not its directory's",
    'SizeX="90"',
    'SizeX="91"',
    SlideFormatError,
    /directory 1 is 91 × 70/,
  ],
  ["no size", 'SizeX="90"', "", SlideFormatError, /directory 1 is undefined × 70/],
  ["no series", "<Image ", "<Xmage ", SlideFormatError, /./],
]);

Deno.test("openSlide() reads what OME-XML says, whatever series comes first", async () => {
  const slide = await openSlide(vendorSource(NAME));
  assert.equal(slide.format, "ome-tiff");
  const { mppX, mppY, objectivePower, all } = slide.properties;
  assert.deepEqual([mppX, mppY, objectivePower], [0.25, 0.3, 40]);
  assert.equal(all["openslide.mpp-y"], "0.29999999999999999");
  assert.deepEqual([...slide.associated.keys()], ["label", "macro"]);
  await slide.close();
});

Deno.test("openSlide() knows no scale of an OME-TIFF in units that are none", async () => {
  for (const unit of ["px", "xx"]) {
    const slide = await openWithText(NAME, 'Unit="nm"', `Unit="${unit}"`);
    assert.equal(slide.properties.mppX, undefined);
    await slide.close();
  }
});

Deno.test("openSlide() rejects SubIFDs of an OME-TIFF that are directories of its chain", async () => {
  const { bytes, directoryAt } = legacy([[100, 70], [50, 35]], {
    fields: [{ tag: 330, type: LONG, values: [8] }],
  });
  for (const offset of [directoryAt[0]!, 0x7fffffff, bytes.length - 3]) {
    const damaged = legacy([[100, 70], [50, 35]], {
      fields: [{ tag: 330, type: LONG, values: [offset] }],
    });
    await assert.rejects(openSlide(new MemorySource(damaged.bytes)), SlideFormatError);
  }
});

interface Extra {
  readonly names?: readonly string[];
  readonly xml?: string;
  readonly fields?: Image["fields"];
  /** NewSubfileType of all but the first. */
  readonly subfileType?: number;
}

/** An image of grey for each size, and XML of a series for each name. */
function legacy(sizes: readonly (readonly [number, number])[], extra: Extra = {}) {
  const { names = sizes.map(() => "") } = extra;
  const series = names.map((name, i) =>
    `<Image Name="${name}"><Pixels SizeX="${sizes[i]![0]}" SizeY="${sizes[i]![1]}" SizeC="1">` +
    `<Channel SamplesPerPixel="1"/><TiffData IFD="${i}"/></Pixels></Image>`
  ).join("");
  const xml = extra.xml ?? `<OME UUID="urn:uuid:1">${series}</OME>`;
  return buildTiff(sizes.map(([widthPx, heightPx], i): Image => ({
    widthPx,
    heightPx,
    tilePx: [32, 32],
    samples: 1,
    photometric: 1,
    tiles: cutTiles(pattern(widthPx, heightPx, 1, i), widthPx, heightPx, [32, 32]),
    fields: [
      ...i === 0 ? [ascii(270, xml), ...extra.fields ?? []] : [],
      ...i > 0 && extra.subfileType !== undefined
        ? [{ tag: 254, type: SHORT, values: [extra.subfileType] }]
        : [],
    ],
  })));
}

async function widths(sizes: readonly (readonly [number, number])[], extra?: Extra) {
  const slide = await openSlide(new MemorySource(legacy(sizes, extra).bytes));
  await slide.close();
  return slide.levels.map(({ widthPx }) => widthPx);
}

Deno.test("openSlide() takes series of an OME-TIFF for levels where they have the same shape", async () => {
  const sizes = [[100, 70], [50, 35], [25, 18]] as const;
  assert.deepEqual(await widths(sizes), [100, 50, 25]);
  assert.deepEqual(await widths(sizes.toReversed()), [100, 50, 25]);
  // A thumbnail is none, nor is another area.
  assert.deepEqual(await widths(sizes, { names: ["", "", "thumbnail"] }), [100, 50]);
  assert.deepEqual(await widths([[100, 70], [50, 60], [99, 69]]), [100]);
  // One series, and directories that are marked as reduced.
  assert.deepEqual(await widths(sizes, { names: [""], subfileType: 1 }), [100, 50, 25]);
  assert.deepEqual(await widths(sizes, { names: [""], subfileType: 0 }), [100]);
});

Deno.test("openSlide() takes a label for the slide where an OME-TIFF has nothing else", async () => {
  assert.deepEqual(await widths([[100, 70]], { names: ["Label"] }), [100]);
});

Deno.test("readRegion() reads the first channel of an OME-TIFF as grey", async () => {
  const xml = '<OME><Image><Pixels SizeX="40" SizeY="30" SizeC="2"><Channel/><Channel/>' +
    '<TiffData FirstC="1" IFD="0"/><TiffData IFD="1"/></Pixels></Image></OME>';
  const slide = await openSlide(new MemorySource(legacy([[40, 30], [40, 30]], { xml }).bytes));
  const { data } = await slide.readRegion({
    level: 0,
    x0Px: 0,
    y0Px: 0,
    widthPx: 40,
    heightPx: 30,
  });
  const grey = pattern(40, 30, 1, 1); // Directory 1's.
  assert.deepEqual(data, Uint8Array.from(data, (_, i) => grey[Math.floor(i / 3)]!));
  await slide.close();
});

Deno.test("openSlide() rejects an OME-TIFF whose metadata or pixels are in another file", async () => {
  for (
    const inside of [
      '<BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:2"/>',
      '<Image><Pixels SizeX="40" SizeY="30"><TiffData IFD="0">' +
      '<UUID FileName="b.tif">urn:uuid:2</UUID></TiffData></Pixels></Image>',
    ]
  ) {
    const { bytes } = legacy([[40, 30]], { xml: `<OME UUID="urn:uuid:1">${inside}</OME>` });
    await assert.rejects(openSlide(new MemorySource(bytes)), UnsupportedError);
  }
});

Deno.test("openSlide() reads a planar OME-TIFF of the data, and refuses samples that it does not read", async () => {
  const path = dataPath("slides/ome-tiff/cells.ome.tif");
  if (path === undefined) return;
  const slide = await openSlide(path);
  assert.deepEqual([slide.format, slide.properties.mppX], ["ome-tiff", 0.25]);
  await slide.close();
  const signed = await openSlide(dataPath("slides/ome-tiff/multi-channel.ome.tif")!);
  const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 8, heightPx: 8 };
  await assert.rejects(signed.readRegion(region), UnsupportedError);
  await signed.close();
});
