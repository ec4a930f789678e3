import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import sharp from "sharp";
import { CodecError, SlideFormatError, SourceError, UnsupportedError } from "../../src/errors.ts";
import { TileDecoder } from "../../src/slide/codec.ts";
import { type Instance, readFileMeta, readInstance } from "../../src/slide/dicom_instance.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Picture, Slide } from "../../src/slide/slide.ts";
import { FileSource, MemorySource } from "../../src/slide/source.ts";
import { mutate } from "../conformance/mutate.ts";
import { dataPath } from "../data.ts";
import dicomDigests from "../fixtures/dicom_digests.json" with { type: "json" };
import {
  buildDicom,
  type DicomSpec,
  type ElementSpec,
  EXPLICIT_LITTLE,
  IMPLICIT_LITTLE,
  JPEG,
  positions,
} from "./dicom_builder.ts";
import { RecordingSource } from "./recording_source.ts";
import { jpeg } from "./tiff_builder.ts";

const ENCAPSULATED_RAW = "1.2.840.10008.1.2.1.98";

async function whole(slide: Slide, level = 0): Promise<Picture> {
  const { widthPx, heightPx } = slide.levels[level]!;
  return await slide.readRegion({ level, x0Px: 0, y0Px: 0, widthPx, heightPx });
}

/** Opens, reads all of it, closes. */
async function readAll(location: string | MemorySource): Promise<Picture[]> {
  const slide = await openSlide(location);
  try {
    const pictures = [];
    for (const level of slide.levels.keys()) pictures.push(await whole(slide, level));
    for (const decode of slide.associated.values()) pictures.push(await decode());
    return pictures;
  } finally {
    await slide.close();
  }
}

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "wgslide-dicom-"));
  try {
    await run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Frames of one colour each: frame i is (i + 1) × 10. */
function plain(count: number, bytes = 12, from = 0): Uint8Array<ArrayBuffer>[] {
  return Array.from({ length: count }, (_, i) => new Uint8Array(bytes).fill((from + i + 1) * 10));
}

/** 2 × 2 px frames in a matrix of 5 × 3, so 3 × 2 of them. */
const SMALL: DicomSpec = { widthPx: 5, heightPx: 3, tilePx: [2, 2], frames: plain(6) };

/** The red of each pixel of a picture, row by row. */
async function reds(spec: DicomSpec): Promise<number[][]> {
  const [picture] = await readAll(new MemorySource(buildDicom(spec).bytes));
  return rows(picture!);
}

function rows({ data, widthPx, heightPx }: Picture): number[][] {
  return Array.from(
    { length: heightPx },
    (_, y) => Array.from({ length: widthPx }, (_, x) => data[3 * (y * widthPx + x)]!),
  );
}

const SMALL_REDS = [[10, 10, 20, 20, 30], [10, 10, 20, 20, 30], [40, 40, 50, 50, 60]];

Deno.test("openSlide() reads a DICOM instance, explicit and implicit, padded at its edges", async () => {
  assert.deepEqual(await reds(SMALL), SMALL_REDS);
  assert.deepEqual(await reds({ ...SMALL, transferSyntaxUid: IMPLICIT_LITTLE }), SMALL_REDS);
});

for (const table of ["none", "basic", "extended"] as const) {
  const spec: DicomSpec = {
    ...SMALL,
    transferSyntaxUid: ENCAPSULATED_RAW,
    frames: SMALL.frames.map((frame) => [frame as Uint8Array]),
    table,
  };
  Deno.test(`openSlide() finds frames with ${table} offset table`, async () => {
    assert.deepEqual(await reds(spec), SMALL_REDS);
    if (table === "none") {
      assert.deepEqual(await reds({ ...spec, withoutDelimiter: true }), SMALL_REDS);
    } else {
      // A table that makes no sense is not believed.
      for (
        const mangle of [
          (offsets: number[]) => offsets.map((offset) => offset + 1e9),
          (offsets: number[]) => [...offsets].reverse(),
          (offsets: number[]) => offsets.slice(1),
          (offsets: number[]) => offsets.map(() => 0),
        ]
      ) {
        assert.deepEqual(await reds({ ...spec, mangle }), SMALL_REDS);
      }
      // One that is merely wrong leads between fragments.
      await assert.rejects(
        reds({ ...spec, mangle: (offsets) => offsets.map((offset) => offset + 2) }),
        (error) => error instanceof SlideFormatError && error.format === "dicom",
      );
    }
  });

  Deno.test(`Slide.rawTile() fetches a frame alone, with ${table} offset table`, async () => {
    const frames = Array.from({ length: 6 }, (_, i) => [new Uint8Array(3 * 64 * 64).fill(i)]);
    const { bytes, framesAt } = buildDicom({
      widthPx: 180,
      heightPx: 100,
      tilePx: [64, 64],
      transferSyntaxUid: ENCAPSULATED_RAW,
      frames,
      table,
    });
    const source = new RecordingSource(bytes);
    const slide = await openSlide(source);
    assert(source.bytesRead < 70_000, `${source.bytesRead} bytes were read to open it`);
    await slide.rawTile(0, 0, 0); // The index is read with the first.
    source.reads.length = 0;
    const { data } = await slide.rawTile(0, 1, 1);
    assert.deepEqual(data, frames[4]![0]);
    assert.deepEqual(source.reads, [{
      offsetBytes: framesAt[4]!,
      lengthBytes: 8 + 3 * 64 * 64,
    }]);
    await slide.close();
  });
}

Deno.test("openSlide() reads nothing of the pixels, however many there are", async () => {
  const frames = [new Uint8Array(3 * 1024 * 1024)];
  const source = new RecordingSource(
    buildDicom({ widthPx: 1024, heightPx: 1024, tilePx: [1024, 1024], frames }).bytes,
  );
  const slide = await openSlide(source);
  assert(source.bytesRead < 70_000, `${source.bytesRead} of ${source.sizeBytes} bytes were read`);
  assert(source.reads.length < 8, `${source.reads.length} reads`);
  await slide.close();
  assert(source.closed);
});

Deno.test("openSlide() joins the fragments of a frame", async () => {
  const pictures = [20, 60, 100, 140].map((grey) => new Uint8Array(32 * 32 * 3).fill(grey));
  const frames = await Promise.all(pictures.map(async (picture) => {
    const stream = await jpeg(picture, 32, 32);
    return [stream.subarray(0, 100), stream.subarray(100, 300), stream.subarray(300)];
  }));
  for (const table of ["none", "basic"] as const) {
    const seen = await reds({
      widthPx: 64,
      heightPx: 64,
      tilePx: [32, 32],
      transferSyntaxUid: JPEG,
      photometric: "YBR_FULL_422",
      frames,
      table,
    });
    assert.deepEqual([seen[0]![0], seen[0]![63], seen[63]![0], seen[63]![63]], [20, 60, 100, 140]);
  }
});

Deno.test("openSlide() places frames of TILED_SPARSE, and leaves the others white", async () => {
  for (const undefinedLength of [false, true]) {
    for (const transferSyntaxUid of [undefined, IMPLICIT_LITTLE]) {
      const seen = await reds({
        ...SMALL,
        ...(transferSyntaxUid === undefined ? {} : { transferSyntaxUid }),
        organization: "TILED_SPARSE",
        frames: plain(3),
        elements: [positions([[5, 1], [1, 3], [3, 1]], undefinedLength)],
      });
      assert.deepEqual(seen, [
        [255, 255, 30, 30, 10],
        [255, 255, 30, 30, 10],
        [20, 20, 255, 255, 255],
      ]);
    }
  }
});

Deno.test("openSlide() takes the first focal plane and the first optical path", async () => {
  const sparse = await reds({
    ...SMALL,
    organization: "TILED_SPARSE",
    frames: plain(4),
    elements: [positions([[1, 1, "A"], [3, 1, "B"], [3, 1, "A"], [1, 1, "A"]])],
  });
  assert.deepEqual(sparse[0], [10, 10, 30, 30, 255]);
  assert.deepEqual(await reds({ ...SMALL, frames: plain(18) }), SMALL_REDS);
});

Deno.test("openSlide() refuses positions that no grid has", async () => {
  const open = (places: [number, number][]) =>
    reds({
      ...SMALL,
      organization: "TILED_SPARSE",
      frames: plain(2),
      elements: [positions(places)],
    });
  await assert.rejects(open([[1, 1], [2, 1]]), UnsupportedError);
  for (
    const places of [[[1, 1]], [[1, 1], [0, 1]], [[1, 1], [1, 5]], [[1, 1], [-2147483647, 1]]]
  ) {
    await assert.rejects(open(places as [number, number][]), SlideFormatError);
  }
  // The first frame's item is empty.
  const { value, ...sequence } = positions([[1, 1]]);
  await assert.rejects(
    reds({
      ...SMALL,
      organization: "TILED_SPARSE",
      frames: plain(2),
      elements: [{ ...sequence, value: [[], ...value as ElementSpec[][]] }],
    }),
    /frame 0 lies at \(undefined, undefined\)/,
  );
});

/** Elements of part `number` of a concatenation. */
function part(number: number, frameOffset: number, total = 2): ElementSpec[] {
  return [
    { tag: 0x00209161, vr: "UI", value: "1.2.9" },
    { tag: 0x00209162, vr: "US", value: [number] },
    { tag: 0x00209163, vr: "US", value: [total] },
    { tag: 0x00209228, vr: "UL", value: [frameOffset] },
  ];
}

async function openParts(...specs: DicomSpec[]): Promise<Picture[]> {
  let pictures: Picture[] = [];
  await inFolder(async (folder) => {
    for (const [i, spec] of specs.entries()) {
      writeFileSync(join(folder, `${9 - i}.dcm`), buildDicom(spec).bytes);
    }
    pictures = await readAll(folder);
  });
  return pictures;
}

Deno.test("openSlide() joins the parts of a concatenation", async () => {
  const first = { ...SMALL, frames: plain(4), elements: part(1, 0), sopInstanceUid: "1.1" };
  const second = {
    ...SMALL,
    frames: plain(2, 12, 4),
    elements: part(2, 4),
    sopInstanceUid: "1.2",
  };
  const [picture, ...others] = await openParts(first, second);
  assert.deepEqual([rows(picture!), others], [SMALL_REDS, []]);
  // A copy of a part changes nothing.
  assert.equal((await openParts(first, second, second)).length, 1);

  const rejected = [
    [first],
    [second],
    [first, { ...second, elements: part(2, 5) }],
    [first, { ...second, elements: part(3, 4) }],
    [first, { ...second, frames: plain(1), elements: part(2, 4) }],
    [{ ...first, elements: part(1, 0, 3) }, { ...second, elements: part(2, 4, 3) }],
  ];
  for (const [i, specs] of rejected.entries()) {
    await assert.rejects(openParts(...specs), SlideFormatError, `case ${i}`);
  }

  const sparse = { ...SMALL, organization: "TILED_SPARSE" };
  const [sparsePicture] = await openParts(
    {
      ...sparse,
      frames: plain(1),
      elements: [...part(1, 0), positions([[3, 1]])],
      sopInstanceUid: "1",
    },
    {
      ...sparse,
      frames: plain(1, 12, 1),
      elements: [...part(2, 1), positions([[1, 1]])],
      sopInstanceUid: "2",
    },
  );
  assert.deepEqual(rows(sparsePicture!)[0], [20, 20, 10, 10, 255]);
});

Deno.test("openSlide() makes levels, label, macro and thumbnail of a series", () =>
  inFolder(async (folder) => {
    const write = (name: string, spec: Partial<DicomSpec>) =>
      writeFileSync(
        join(folder, name),
        buildDicom({ ...SMALL, sopInstanceUid: name, ...spec } as DicomSpec).bytes,
      );
    const one = (widthPx: number, value: number) => ({
      widthPx,
      heightPx: widthPx,
      tilePx: [widthPx, widthPx] as const,
      frames: [new Uint8Array(3 * widthPx * widthPx).fill(value)],
    });
    write("a", one(2, 1));
    write("b", one(8, 2));
    write("c", one(4, 3));
    write("d", { ...one(6, 4), flavour: "LABEL" });
    write("e", { ...one(7, 5), flavour: "OVERVIEW" });
    mkdirSync(join(folder, "more"));
    write("more/f", { ...one(3, 6), flavour: "THUMBNAIL" });
    write("more/g", { ...one(9, 7), flavour: "LOCALIZER" });
    write("h", { ...one(7, 8), seriesInstanceUid: "1.2.4" });
    write("i", {
      ...one(99, 9),
      sopClassUid: "1.2.840.10008.5.1.4.1.1.7",
      seriesInstanceUid: "1.2.4",
    });
    writeFileSync(join(folder, "readme.txt"), "nothing that matters");
    writeFileSync(join(folder, ".hidden"), buildDicom({ ...SMALL, ...one(64, 1) }).bytes);

    const slide = await openSlide(folder);
    assert.deepEqual(slide.levels.map(({ widthPx, downsample }) => [widthPx, downsample]), [
      [8, 1],
      [4, 2],
      [2, 4],
    ]);
    assert.deepEqual([(await whole(slide, 1)).data[0], (await whole(slide, 2)).data[0]], [3, 1]);
    const associated: Record<string, number[]> = {};
    for (const [name, decode] of slide.associated) {
      const { widthPx, data } = await decode();
      associated[name] = [widthPx, data[0]!];
    }
    assert.deepEqual(associated, { label: [6, 4], macro: [7, 5], thumbnail: [3, 6] });
    await slide.close();

    // A file brings those of its series beside it, not those of folders below.
    const named = await openSlide(join(folder, "d"));
    assert.deepEqual([named.levels.length, [...named.associated.keys()]], [3, ["label", "macro"]]);
    await named.close();
    const other = await openSlide(join(folder, "h"));
    assert.deepEqual(other.levels.map(({ widthPx }) => widthPx), [7]);
    await other.close();
  }));

Deno.test("openSlide() keeps to one pyramid of a series", async () => {
  const pyramid = (uid: string): ElementSpec[] => [{ tag: 0x00080019, vr: "UI", value: uid }];
  const pictures = await openParts(
    { ...SMALL, elements: pyramid("1.5") },
    { ...SMALL, widthPx: 3, elements: pyramid("1.6"), sopInstanceUid: "1.7" },
  );
  assert.deepEqual(pictures.map(({ widthPx }) => widthPx), [5]);
});

Deno.test("openSlide() refuses what makes no slide", async () => {
  const rejected: [DicomSpec[], new (...args: never) => Error, RegExp][] = [
    [[{ ...SMALL, flavour: "LABEL" }], SlideFormatError, /none of its 1 DICOM files is a level/],
    [[{ ...SMALL, sopClassUid: "1.2.840.10008.5.1.4.1.1.7" }], UnsupportedError, /SOP class 1\.2/],
    [
      [SMALL, { ...SMALL, sopInstanceUid: "1.9" }],
      UnsupportedError,
      /two levels of 5 × 3 pixels in one series/,
    ],
    [
      [
        SMALL,
        { ...SMALL, flavour: "LABEL", sopInstanceUid: "1" },
        { ...SMALL, flavour: "LABEL", sopInstanceUid: "2" },
      ],
      UnsupportedError,
      /several pictures of the kind label/,
    ],
  ];
  for (const [specs, type, message] of rejected) {
    await assert.rejects(
      openParts(...specs),
      (error) => error instanceof type && message.test(error.message),
    );
  }
  await assert.rejects(
    readAll(new MemorySource(buildDicom({ ...SMALL, flavour: "LABEL" }).bytes)),
    (error) => error instanceof SlideFormatError && /it is a DICOM LABEL/.test(error.message),
  );
  await inFolder(async (folder) => {
    writeFileSync(join(folder, "a"), "no DICOM");
    await assert.rejects(openSlide(folder), /none of its files is a DICOM file/);
  });
});

Deno.test("openSlide() closes the files that it does not use, and all that it cannot", async () => {
  const open = () => Deno.readDirSync("/proc/self/fd");
  const count = () => [...open()].length;
  if (Deno.build.os !== "linux") return;
  const bad = { ...SMALL, sopInstanceUid: "1.9" };
  await openParts(SMALL, { ...SMALL, seriesInstanceUid: "5", widthPx: 4 });
  const before = count();
  await openParts(SMALL, { ...SMALL, seriesInstanceUid: "5", widthPx: 4 });
  await assert.rejects(openParts(SMALL, bad), UnsupportedError);
  await assert.rejects(openParts({ ...SMALL, flavour: "LABEL" }), SlideFormatError);
  await inFolder(async (folder) => {
    const { bytes } = buildDicom(SMALL);
    writeFileSync(join(folder, "a"), bytes);
    writeFileSync(join(folder, "b"), bytes.subarray(0, 400));
    await assert.rejects(openSlide(folder), SlideFormatError);
    // Beside a file that was named, a broken one may belong to anything.
    await readAll(join(folder, "a"));
  });
  assert.equal(count(), before);
});

Deno.test("openSlide() tells scale and objective power", async () => {
  const group = (tag: number, elements: ElementSpec[]): ElementSpec => ({
    tag,
    vr: "SQ",
    value: [elements],
  });
  const spacing = group(0x52009229, [
    group(0x00289110, [{ tag: 0x00280030, vr: "DS", value: ".0005\\0.00025 " }]),
  ]);
  const icc = Uint8Array.from({ length: 200_000 }, (_, i) => i);
  const path = group(0x00480105, [
    { tag: 0x00282000, vr: "OB", value: icc },
    { tag: 0x00480112, vr: "DS", value: "40" },
  ]);
  const slide = await openSlide(
    new MemorySource(buildDicom({ ...SMALL, elements: [spacing, path] }).bytes),
  );
  const { mppX, mppY, objectivePower, vendor, all } = slide.properties;
  assert.deepEqual([mppX, mppY, objectivePower, vendor], [0.25, 0.5, 40, "dicom"]);
  assert.equal(all["openslide.mpp-x"], "0.25");
  assert.equal(all["openslide.mpp-y"], "0.5");
  assert.equal(all["openslide.objective-power"], "40");
  const measures = "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]";
  assert.equal(all[`${measures}.PixelSpacing[0]`], ".0005");
  assert.equal(all["dicom.ImageType[2]"], "VOLUME");
  assert.deepEqual(slide.icc, icc);
  await slide.close();

  // From the size of the slide, where no spacing is given: 2 mm on 5 px.
  const sized = await openSlide(
    new MemorySource(
      buildDicom({
        ...SMALL,
        elements: [
          { tag: 0x00480001, vr: "FL", value: [2] },
          { tag: 0x00480002, vr: "FL", value: [3] },
        ],
      }).bytes,
    ),
  );
  assert.deepEqual([sized.properties.mppX, sized.properties.mppY], [400, 1000]);
  assert.equal(sized.icc, undefined);
  await sized.close();
});

/** Attributes of every kind, and the properties that OpenSlide 4.0.1 makes of them. */
const TOLD: readonly [ElementSpec, Readonly<Record<string, string>>][] = [
  [{ tag: 0x00080020, vr: "DA", value: "20200102" }, { StudyDate: "20200102" }],
  [{ tag: 0x00080030, vr: "TM", value: "1234\\56" }, {
    "StudyTime[0]": "1234",
    "StudyTime[1]": "56",
  }],
  [{ tag: 0x00080050, vr: "SH", value: "" }, { AccessionNumber: "" }],
  [{ tag: 0x00081030, vr: "LO", value: "one\\text  " }, { StudyDescription: "one\\text " }],
  [{ tag: 0x00100010, vr: "PN", value: "Müller^A" }, { PatientName: "Müller^A" }],
  [{ tag: 0x00101020, vr: "DS", value: "1.50 \\ .25" }, {
    "PatientSize[0]": "1.50 ",
    "PatientSize[1]": " .25",
  }],
  [{ tag: 0x00200013, vr: "IS", value: "7\\8 " }, { InstanceNumber: "7\\8" }],
  [{ tag: 0x00181622, vr: "US", value: [1, 65535] }, {
    "ShutterPresentationValue[0]": "1",
    "ShutterPresentationValue[1]": "65535",
  }],
  [{ tag: 0x00280009, vr: "AT", value: Uint8Array.of(0x20, 0, 0x13, 0) }, {
    "FrameIncrementPointer[0]": "32",
    "FrameIncrementPointer[1]": "19",
  }],
  [{ tag: 0x00480001, vr: "FL", value: [16.0615386962890625] }, {
    ImagedVolumeWidth: "16.061538696289062",
  }],
  [{ tag: 0x0048021e, vr: "SL", value: [-3] }, { ColumnPositionInTotalImagePixelMatrix: "-3" }],
  [{ tag: 0x00281101, vr: "US", value: [] }, {}],
  [{ tag: 0x00282000, vr: "OB", value: Uint8Array.of(1, 2) }, {}],
  [{ tag: 0x00091010, vr: "LO", value: "private" }, {}],
  [{ tag: 0x22000005, vr: "LT", value: "x".repeat(200) }, { BarcodeValue: "x".repeat(200) }],
  [
    {
      tag: 0x0018a001,
      vr: "SQ",
      value: [
        [{ tag: 0x00080070, vr: "LO", value: "maker" }],
        [{
          tag: 0x0040a170,
          vr: "SQ",
          undefinedLength: true,
          value: [[{ tag: 0x00080100, vr: "SH", value: "1" }]],
        }],
      ],
    },
    {
      "ContributingEquipmentSequence[0].Manufacturer": "maker",
      "ContributingEquipmentSequence[1].PurposeOfReferenceCodeSequence[0].CodeValue": "1",
    },
  ],
];

for (const transferSyntaxUid of [EXPLICIT_LITTLE, IMPLICIT_LITTLE]) {
  const how = transferSyntaxUid === IMPLICIT_LITTLE ? "implicit" : "explicit";
  Deno.test(`openSlide() tells DICOM attributes as OpenSlide does, ${how}`, async () => {
    const elements = TOLD.map(([element]) => element);
    const { bytes } = buildDicom({ ...SMALL, transferSyntaxUid, elements });
    const slide = await openSlide(new MemorySource(bytes));
    const { all } = slide.properties;
    const structural = await openSlide(
      new MemorySource(buildDicom({ ...SMALL, transferSyntaxUid }).bytes),
    );
    const told = Object.fromEntries(
      Object.entries(all).filter(([name]) =>
        name.startsWith("dicom.") && !(name in structural.properties.all)
      ),
    );
    const expected = TOLD.flatMap(([, values]) => Object.entries(values))
      .map(([name, value]) => [`dicom.${name}`, value]);
    assert.deepEqual(told, Object.fromEntries(expected));
    assert.equal(all["openslide.barcode"], "x".repeat(200));
    assert.equal(all["dicom.Rows"], "2");
    assert.equal(all["dicom.TransferSyntaxUID"], transferSyntaxUid);
    await slide.close();
    await structural.close();
  });
}

Deno.test("openSlide() says nothing of the patient in errors, whatever comes", async () => {
  const secret = (tag: number, vr: string): ElementSpec => ({ tag, vr, value: "SECRET" });
  const elements: ElementSpec[] = [
    ...[0x00080050, 0x00100020, 0x00200010, 0x00400512].map((tag) => secret(tag, "SH")),
    ...[0x00080090, 0x00100010].map((tag) => secret(tag, "PN")),
    // What cannot be parsed is not repeated, nor printed by libraries.
    secret(0x00280008, "IS"),
    secret(0x00480001, "FL"),
  ];
  const { bytes } = buildDicom({ ...SMALL, elements });
  await assert.rejects(openSlide(new MemorySource(bytes)), (error) => {
    assert(error instanceof SlideFormatError);
    assert.doesNotMatch(error.message, /SECRET/);
    return true;
  });
});

Deno.test("openSlide() reads grey of 8, 12 and 16 bits, inverted too, and planes", async () => {
  const grey = { ...SMALL, widthPx: 2, heightPx: 2, samplesPerPixel: 1 };
  const words = (...values: number[]) => new Uint8Array(Uint16Array.from(values).buffer);
  const cases: [Partial<DicomSpec>, number[]][] = [
    [{ frames: [Uint8Array.of(0, 1, 128, 255)] }, [0, 1, 128, 255]],
    [
      { frames: [Uint8Array.of(0, 1, 128, 255)], photometric: "MONOCHROME1" },
      [255, 254, 127, 0],
    ],
    [{ frames: [words(0, 256, 0x80ff, 0xffff)], bits: [16, 16] }, [0, 1, 128, 255]],
    [{ frames: [words(0, 16, 0x80f, 0xfff)], bits: [16, 12] }, [0, 1, 128, 255]],
    [{
      samplesPerPixel: 3,
      frames: [Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)],
      elements: [{ tag: 0x00280006, vr: "US", value: [1] }],
    }, [1, 2, 3, 4]],
  ];
  for (const [spec, expected] of cases) {
    assert.deepEqual((await reds({ ...grey, ...spec } as DicomSpec)).flat(), expected);
  }
  const [planes] = await readAll(
    new MemorySource(buildDicom({ ...grey, ...cases[4]![0] } as DicomSpec).bytes),
  );
  assert.deepEqual([...planes!.data.subarray(0, 6)], [1, 5, 9, 2, 6, 10]);
});

Deno.test("openSlide() or readRegion() names what it does not read", async () => {
  const refused: [Partial<DicomSpec>, RegExp][] = [
    [{ transferSyntaxUid: "1.2.840.10008.1.2.1.99" }, /deflated explicit little endian/],
    [{ transferSyntaxUid: "1.2.840.10008.1.2.2" }, /explicit big endian/],
    [{ transferSyntaxUid: "1.2.840.10008.1.2.4.70" }, /JPEG lossless/],
    [{ transferSyntaxUid: "1.2.3.4" }, /transfer syntax 1\.2\.3\.4 is not supported/],
    [{ photometric: "PALETTE COLOR" }, /photometric interpretation PALETTE COLOR/],
    [{ bits: [32, 32] }, /32 bits/],
    [{ elements: [{ tag: 0x00280103, vr: "US", value: [1] }] }, /signed samples/],
    [{ elements: [{ tag: 0x00280102, vr: "US", value: [8] }] }, /high bit 8/],
  ];
  for (const [spec, message] of refused) {
    await assert.rejects(reds({ ...SMALL, ...spec }), (error) => {
      assert(error instanceof UnsupportedError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("Instance.readFrame() believes what JPEG frames say of their colours before the file", async () => {
  const picture = new Uint8Array(32 * 32 * 3);
  for (let i = 0; i < picture.length; i += 3) picture.set([200, 40, 90], i);
  const bare = await jpeg(picture, 32, 32);
  const subsampled = new Uint8Array(
    await sharp(picture, { raw: { width: 32, height: 32, channels: 3 } })
      .jpeg({ chromaSubsampling: "4:2:0" }).toBuffer(),
  );
  const marked = (marker: number, text: string, ...rest: number[]) =>
    Uint8Array.of(
      ...[...bare.subarray(0, 2), 0xff, marker, 0, 2 + text.length + rest.length],
      ...new TextEncoder().encode(text),
      ...rest,
      ...bare.subarray(2),
    );
  const jfif = marked(0xe0, "JFIF\0", 1, 1, 0, 0, 1, 0, 1, 0, 0);
  const [adobeRgb, adobeYcbcr] = [0, 1].map((transform) =>
    marked(0xee, "Adobe", 0, 100, 0, 0, 0, 0, transform)
  );
  const cases = [
    [bare, "RGB", "rgb"],
    [bare, "YBR_FULL_422", "ycbcr"],
    [jfif, "RGB", "ycbcr"],
    [jfif, "YBR_FULL", "ycbcr"],
    [subsampled, "RGB", "ycbcr"],
    [adobeYcbcr, "RGB", "ycbcr"],
    [adobeRgb, "YBR_FULL_422", "rgb"],
    [adobeRgb, "RGB", "rgb"],
  ] as const;
  const read = async (stream: Uint8Array, photometric: string) => {
    const [{ data }] = await readAll(
      new MemorySource(
        buildDicom({
          widthPx: 32,
          heightPx: 32,
          tilePx: [32, 32],
          transferSyntaxUid: JPEG,
          photometric,
          frames: [[stream]],
        }).bytes,
      ),
    ) as [Picture];
    return data.subarray(0, 3);
  };
  for (const [i, [stream, photometric, meant]] of cases.entries()) {
    const seen = await read(stream!, photometric);
    const isPicture = [200, 40, 90].every((value, i) => Math.abs(seen[i]! - value) <= 3);
    assert.equal(isPicture, meant === "ycbcr", `case ${i}: ${seen}`);
  }
});

const DIGESTS: Readonly<Record<string, readonly string[]>> = dicomDigests;

async function openInstance(path: string): Promise<Instance> {
  const source = FileSource.open(path);
  return await readInstance(source, (await readFileMeta(source))!);
}

async function decodeFrame(instance: Instance, index = 0): Promise<Uint8Array> {
  return await new TileDecoder(0).decode(await instance.readFrame(index));
}

for (const [name, digests] of Object.entries(DIGESTS)) {
  Deno.test(`Instance.readFrame() gives what decodes as dcmtk and OpenJPEG decode it: ${name}`, async () => {
    const path = dataPath(name);
    if (path === undefined) return;
    const instance = await openInstance(path);
    assert.equal(instance.frames, digests.length);
    for (const [i, digest] of digests.entries()) {
      const rgb = await decodeFrame(instance, i);
      assert.equal(createHash("sha256").update(rgb).digest("hex"), digest, `frame ${i}`);
    }
    await instance.source.close();
  });
}

Deno.test("Instance.readFrame() gives what decodes alike in other transfer syntaxes", async () => {
  const twins = [
    ["dicom/py-SC_rgb_rle.dcm", "dicom/py-SC_rgb_gdcm_KY.dcm"],
    ["dicom/py-SC_rgb_jpeg_dcmtk.dcm", "dicom/py-SC_ybr_full_422_uncompressed.dcm"],
    ["dicom/wg04-VL1_RLE.dcm", "dicom/wg04-VL1_J2KR.dcm"],
    ["slides/dicom/highdicom-sm_image.dcm", "slides/dicom/highdicom-sm_image_jpegls.dcm"],
    ["slides/dicom/wsi2dcm-raw.dcm", "slides/dicom/wsi2dcm-jpeg2000.dcm"],
  ] as const;
  for (const [one, other] of twins) {
    const [a, b] = [dataPath(one), dataPath(other)];
    if (a === undefined || b === undefined) return;
    const [first, second] = [await openInstance(a), await openInstance(b)];
    assert.equal(first.frames, second.frames);
    for (let i = 0; i < first.frames; i++) {
      assert.deepEqual(await decodeFrame(first, i), await decodeFrame(second, i), `${one} ${i}`);
    }
    await first.source.close();
    await second.source.close();
  }
});

Deno.test("Instance.readFrame() gives the pixels of wg04-VL1 uncompressed", async () => {
  const [raw, rle] = [dataPath("dicom/wg04-VL1_UNC.dcm.zst"), dataPath("dicom/wg04-VL1_RLE.dcm")];
  if (raw === undefined || rle === undefined) return;
  const bytes = zstdDecompressSync(Deno.readFileSync(raw));
  const source = new MemorySource(bytes);
  const instance = await readInstance(source, (await readFileMeta(source))!);
  const other = await openInstance(rle);
  assert.deepEqual(await decodeFrame(instance), await decodeFrame(other));
  await other.source.close();
});

Deno.test("openSlide() reads wsi2dcm-jpeg.dcm as its uncompressed twin, but for JPEG's loss", async () => {
  const [raw, lossy] = ["raw", "jpeg"].map((name) => dataPath(`slides/dicom/wsi2dcm-${name}.dcm`));
  if (raw === undefined || lossy === undefined) return;
  const [a, b] = [(await readAll(raw))[0]!, (await readAll(lossy))[0]!];
  // Quality 80 with halved chroma: 2.9 on average over the picture when this was written.
  assert(meanDifference(a.data, b.data) < 4, `${meanDifference(a.data, b.data)}`);
});

function meanDifference(a: Uint8Array, b: Uint8Array): number {
  assert.equal(a.length, b.length);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.abs(a[i]! - b[i]!);
  return sum / a.length;
}

Deno.test("openSlide() reads the CMU-1 series as the SVS that it was made from", async () => {
  const svs = dataPath("slides/svs/CMU-1-Small-Region.svs");
  const folder = dataPath("slides/dicom/cmu-1-small-region");
  if (svs === undefined || folder === undefined) return;
  const [slide, original] = [await openSlide(folder), await openSlide(svs)];
  assert.deepEqual(
    slide.levels.map(({ widthPx, heightPx }) => [widthPx, heightPx]),
    [
      ...[[2220, 2967], [1110, 1483], [555, 741], [277, 370], [138, 185], [69, 92], [34, 46]],
      ...[[17, 23], [8, 11], [4, 5], [2, 2], [1, 1]],
    ],
  );
  assert.equal(slide.properties.mppX, 0.499);
  assert.equal(slide.properties.mppX, original.properties.mppX);
  const [{ data }, expected] = [await whole(slide), await whole(original)];
  // Encoded again with halved chroma; a wrong conversion of colours differs by 30 and more.
  assert(meanDifference(data, expected.data) < 4, `${meanDifference(data, expected.data)}`);
  // Each level is the mean of the one above: so are their means.
  const mean = ({ data }: Picture, from: number) => {
    let sum = 0;
    for (let i = from; i < data.length; i += 3) sum += data[i]!;
    return sum / (data.length / 3);
  };
  for (let level = 1; level < 6; level++) {
    const picture = await whole(slide, level);
    for (let i = 0; i < 3; i++) {
      assert(Math.abs(mean(picture, i) - mean(expected, i)) < 6, `level ${level}`);
    }
  }
  // Its 1 × 1 pixel, and one file of the series brings the others.
  assert.equal((await whole(slide, 11)).data.length, 3);
  await slide.close();
  const one = await openSlide(join(folder, "level-7.dcm"));
  assert.equal(one.levels.length, 12);
  await one.close();
  await original.close();
});

Deno.test("openSlide() reads the boxes of openslide-python: level and thumbnail", () =>
  inFolder(async (folder) => {
    for (const i of [0, 1]) {
      const path = dataPath(`slides/dicom/openslide-boxes_${i}.dcm`);
      if (path === undefined) return;
      copyFileSync(path, join(folder, `boxes_${i}.dcm`));
    }
    const slide = await openSlide(join(folder, "boxes_0.dcm"));
    assert.deepEqual([...slide.associated.keys()], ["thumbnail"]);
    const thumbnail = await slide.associated.get("thumbnail")!();
    assert.deepEqual([thumbnail.widthPx, thumbnail.heightPx], [16, 16]);
    // Quality 30, and RGB without a conversion, as its Adobe marker says.
    const difference = meanDifference((await whole(slide)).data, thumbnail.data);
    assert(difference < 12, `${difference}`);
    assert.equal(slide.properties.objectivePower, 20);
    assert.equal(slide.icc!.length, 456);
    await slide.close();
  }));

Deno.test("openSlide() reads or refuses every DICOM file of the data, in words", async () => {
  const refused: Record<string, RegExp> = {
    "slides/dicom/highdicom-seg_sm_labelmap_palette_TILED_SPARSE.dcm": /SOP class .*66\.7/,
    "dicom/py-MR_small_implicit.dcm": /SOP class/,
    "dicom/py-MR_small_bigendian.dcm": /SOP class/,
    "dicom/wg04-VL1_RLE.dcm": /SOP class/,
    "dicom-bad/py-MR_truncated.dcm": /SOP class/,
    "dicom-bad/py-badVR.dcm": /SOP class/,
    "dicom-bad/py-no_meta.dcm": /it is no TIFF|no slide|not/,
  };
  for (const [name, message] of Object.entries(refused)) {
    const path = dataPath(name);
    if (path === undefined) return;
    await assert.rejects(readAll(path), (error) => {
      assert(error instanceof UnsupportedError || error instanceof SlideFormatError);
      assert.match(error.message, message);
      return true;
    });
  }
  const grey = await readAll(dataPath("slides/dicom/highdicom-sm_image_grayscale.dcm")!);
  assert.deepEqual([grey[0]!.widthPx, grey[0]!.heightPx], [50, 50]);
});

function isTyped(error: unknown): boolean {
  return error instanceof SlideFormatError || error instanceof CodecError ||
    error instanceof UnsupportedError || error instanceof SourceError;
}

Deno.test("openSlide() rejects lengths that lie", async () => {
  const nested = (depth: number): ElementSpec => ({
    tag: 0x00089215,
    vr: "SQ",
    value: depth === 0 ? [] : [[nested(depth - 1)]],
    undefinedLength: true,
  });
  const cases: [Partial<DicomSpec>, RegExp][] = [
    [{ elements: [nested(40)] }, /nested too deep/],
    [{ frameCount: 2_000_000_000 }, /do not fit/],
    [{ frameCount: 5, frames: plain(5) }, /5 frames for 3 × 2 tiles/],
    [{ widthPx: 4_000_000_000 }, /TotalPixelMatrixColumns 4000000000/],
    [{ widthPx: 2 ** 31, heightPx: 2 ** 31 }, /frames for/],
    [{ tilePx: [0, 2] }, /Columns 0/],
    [
      {
        widthPx: 1e6,
        organization: "TILED_SPARSE",
        elements: [positions(plain(6).map((_, i) => [1 + 2 * i, 1] as const))],
      },
      /6 frames for 500000 × 2 tiles/,
    ],
    [{ elements: [{ tag: 0x00091010, vr: "OB", value: "x ", claimedLength: 0xfffffff0 }] }, /more/],
    [{ elements: [{ tag: 0x00091010, vr: "OB", value: "x ", claimedLength: 0xffffffff }] }, /at /],
    [
      {
        elements: [{ tag: 0x52009229, vr: "SQ", value: [[]], claimedLength: 100_000_000 }],
      },
      /more than there are/,
    ],
    [
      {
        transferSyntaxUid: ENCAPSULATED_RAW,
        frames: plain(6).map((f) => [f]),
        frameCount: 1e9,
      },
      /more than it can hold/,
    ],
    [
      { transferSyntaxUid: ENCAPSULATED_RAW, frames: plain(6).map((f) => [f]), frameCount: 7 },
      /7 frames and 6 fragments/,
    ],
    [{ transferSyntaxUid: ENCAPSULATED_RAW }, /not encapsulated/],
    [{ frames: plain(6).map((f) => [f]) }, /have no length/],
  ];
  for (const [spec, message] of cases) {
    await assert.rejects(reds({ ...SMALL, ...spec } as DicomSpec), (error) => {
      assert(error instanceof SlideFormatError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("openSlide() or readRegion() fails in words wherever a file is cut or changed", async () => {
  const stream = await jpeg(new Uint8Array(32 * 32 * 3).fill(99), 32, 32);
  const bases = [
    SMALL,
    {
      ...SMALL,
      organization: "TILED_SPARSE",
      frames: plain(3),
      elements: [positions([[5, 1], [1, 3], [3, 1]], true)],
    },
    {
      widthPx: 64,
      heightPx: 32,
      tilePx: [32, 32] as const,
      transferSyntaxUid: JPEG,
      frames: [[stream], [stream]],
      table: "basic" as const,
    },
  ].map((spec) => buildDicom(spec).bytes);
  const attempt = async (bytes: Uint8Array, what: string) => {
    try {
      await readAll(new MemorySource(bytes));
      return true;
    } catch (error) {
      assert(isTyped(error), `${what}: ${error instanceof Error ? error.stack : error}`);
      return false;
    }
  };
  for (const [which, bytes] of bases.entries()) {
    assert(await attempt(bytes, "as it is"));
    for (let length = 0; length < bytes.length; length += 31) {
      const cut = await attempt(bytes.subarray(0, length), `base ${which} cut at ${length}`);
      // Delimiters at the very end are all that may be missing.
      assert(!cut || length > bytes.length - 16, `base ${which} cut at ${length} was read`);
    }
    for (let i = 0; i < 150; i++) {
      const { bytes: changed, what } = mutate(bytes, i);
      await attempt(changed, `base ${which}, ${what}`);
    }
  }
});

Deno.test("openSlide() walks over the positions of 20,000 frames in bounded reads", async () => {
  const count = 20_000;
  const places = Array.from(
    { length: count },
    (_, i) => [1 + i % 200, 1 + Math.floor(i / 200)] as const,
  );
  const source = new RecordingSource(
    buildDicom({
      widthPx: 200,
      heightPx: 100,
      tilePx: [1, 1],
      organization: "TILED_SPARSE",
      frames: Array.from({ length: count }, (_, i) => Uint8Array.of(i, i >> 8, 0)),
      elements: [positions(places)],
    }).bytes,
  );
  const slide = await openSlide(source);
  // Each byte of the head once, in reads of up to 1 MiB, and the attributes again.
  assert(source.bytesRead < 1.3 * source.sizeBytes, `${source.bytesRead} of ${source.sizeBytes}`);
  assert(source.reads.length < 20, `${source.reads.length} reads`);
  const { data } = await slide.readRegion({
    level: 0,
    x0Px: 199,
    y0Px: 99,
    widthPx: 1,
    heightPx: 1,
  });
  assert.deepEqual([...data], [19_999 % 256, 19_999 >> 8, 0]);
  await slide.close();
});
