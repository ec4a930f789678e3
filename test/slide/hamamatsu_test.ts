import assert from "node:assert/strict";
import { CodecError, SlideFormatError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Slide } from "../../src/slide/slide.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { compareWithDigests, DIGESTS } from "./digests.ts";
import { RecordingSource } from "./recording_source.ts";
import { vendorBytes } from "./vendor_slides.ts";

for (const name of Object.keys(DIGESTS).filter((name) => name.endsWith(".ndpi"))) {
  Deno.test(`openSlide() reads ${name} as ${DIGESTS[name]!.reader} does`, () =>
    compareWithDigests(name));
}

/** Where a little-endian NDPI of less than 4 GiB has things. */
class Ndpi {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  readonly directories: number[] = [];
  constructor(name: string) {
    this.bytes = vendorBytes(name);
    this.view = new DataView(this.bytes.buffer);
    for (let at = this.view.getUint32(4, true); at !== 0;) {
      this.directories.push(at);
      at = this.view.getUint32(this.linkAt(this.directories.length - 1), true);
    }
  }

  linkAt(directory: number): number {
    const at = this.directories[directory]!;
    return at + 2 + 12 * this.view.getUint16(at, true);
  }

  entryAt(directory: number, tag: number): number {
    const at = this.directories[directory]!;
    for (let entry = at + 2; entry < this.linkAt(directory); entry += 12) {
      if (this.view.getUint16(entry, true) === tag) return entry;
    }
    throw new RangeError(`There is no tag ${tag}`);
  }

  number(directory: number, tag: number): number {
    return this.view.getUint32(this.entryAt(directory, tag) + 8, true);
  }

  /** Changes the value or offset in an entry. */
  set(directory: number, tag: number, value: number): this {
    this.view.setUint32(this.entryAt(directory, tag) + 8, value, true);
    return this;
  }

  retag(directory: number, tag: number, to: number): this {
    this.view.setUint16(this.entryAt(directory, tag), to, true);
    return this;
  }

  /** Where a marker of a directory's JPEG begins. */
  markerAt(directory: number, marker: number): number {
    const start = this.number(directory, 273);
    for (let at = start;; at++) {
      if (this.bytes[at] === 0xff && this.bytes[at + 1] === marker) return at;
    }
  }

  async open(): Promise<Slide> {
    return await openSlide(new MemorySource(this.bytes, "a.ndpi"));
  }
}

const RESTARTS = "ndpi-restarts.ndpi", UNLISTED = "ndpi-unlisted.ndpi";

Deno.test("openSlide() makes levels of an NDPI's focal plane 0 and of smaller decoding", async () => {
  const slide = await new Ndpi(RESTARTS).open();
  assert.equal(slide.format, "hamamatsu");
  assert.deepEqual(slide.levels.map(({ widthPx }) => widthPx), [160, 80, 40, 20, 10]);
  assert.deepEqual([...slide.associated.keys()], ["macro"]);
  const { mppX, mppY, objectivePower } = slide.properties;
  assert.deepEqual([mppX, mppY, objectivePower], [0.25, 0.5, 20]);
  await slide.close();
});

Deno.test("rawTile() gives intervals of an NDPI as a JPEG by itself", async () => {
  const slide = await new Ndpi(RESTARTS).open();
  const { data, ...tile } = await slide.rawTile(0, 1, 1);
  // Eight intervals of 80 × 8 in the tile above, four are left of twelve.
  assert.deepEqual([tile.widthPx, tile.heightPx, tile.compression], [80, 32, "jpeg"]);
  const markers = [...data.keys()]
    .filter((at) => data[at] === 0xff && data[at + 1]! >= 0xd0 && data[at + 1]! <= 0xd9)
    .map((at) => data[at + 1]);
  assert.deepEqual(markers, [0xd8, 0xd0, 0xd1, 0xd2, 0xd9]);
  assert.equal((await slide.rawTile(2, 0, 0)).reduction, 2);
  await assert.rejects(slide.rawTile(0, 2, 0), RangeError);
  await slide.close();
});

Deno.test("readRegion() reads of an NDPI only the intervals that it needs", async () => {
  const source = new RecordingSource(vendorBytes(RESTARTS));
  const slide = await openSlide(source);
  source.reads.length = 0;
  await slide.readRegion({ level: 0, x0Px: 100, y0Px: 70, widthPx: 20, heightPx: 20 });
  // The tile of the lower right: four intervals, each beside one of the tile to its left.
  assert.equal(source.reads.length, 4);
  assert.ok(source.bytesRead < 0.25 * source.sizeBytes, `${source.bytesRead} bytes`);
  await slide.close();
});

Deno.test("readRegion() finds the restart markers of an NDPI that does not list them, once", async () => {
  const source = new RecordingSource(vendorBytes(UNLISTED));
  const slide = await openSlide(source);
  const read = () => slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx: 96, heightPx: 64 });
  source.reads.length = 0;
  await read();
  const first = source.reads.length;
  await read(); // Of the cache.
  assert.equal(first, 2);
  assert.equal(source.reads.length, first);
  await slide.close();
});

/** What is done to a slide, and what comes of it where it is opened. */
const BROKEN: readonly [string, (ndpi: Ndpi) => unknown, new (...p: never[]) => Error, RegExp][] = [
  [
    "a directory that links to itself",
    (ndpi) => ndpi.view.setUint32(ndpi.linkAt(0), ndpi.directories[0]!, true),
    SlideFormatError,
    /directory 1 begins at \d+, as an earlier one does/,
  ],
  [
    "a link past its end",
    (ndpi) => ndpi.view.setUint32(ndpi.linkAt(0) + 4, 1, true),
    SlideFormatError,
    /directory 1 claims 0 entries at \d+, the file ends at/,
  ],
  [
    "a directory of 65,535 entries",
    (ndpi) => ndpi.view.setUint16(ndpi.directories[1]!, 0xffff, true),
    SlideFormatError,
    /directory 1 claims 65535 entries/,
  ],
  [
    "a list of offsets past its end",
    (ndpi) => ndpi.set(0, 65426, 0xfffffff0),
    SlideFormatError,
    /directory 0 has tag 65426 in 96 bytes at 4294967280/,
  ],
  [
    "a field of an unknown type",
    (ndpi) => ndpi.view.setUint16(ndpi.entryAt(0, 65422) + 2, 99, true),
    SlideFormatError,
    /directory 0 has tag 65422 of the unknown type 99/,
  ],
  [
    "a JPEG past its end",
    (ndpi) => ndpi.set(0, 279, 0x7fffffff),
    SlideFormatError,
    /directory 0 has its JPEG in 2147483647 bytes/,
  ],
  [
    "something else where a JPEG is due",
    (ndpi) => ndpi.set(0, 273, 4),
    SlideFormatError,
    /the JPEG of directory 0 is broken: it does not begin with SOI/,
  ],
  [
    "another width than its JPEG's",
    (ndpi) => ndpi.set(0, 256, 240),
    SlideFormatError,
    /directory 0 is 240 × 96, its JPEG 160 × 96/,
  ],
  [
    "a height that its JPEG cannot hold",
    (ndpi) => {
      // Both say it, so that they agree that the JPEG's own is not to be believed.
      ndpi.set(0, 257, 0x7fffffff);
      ndpi.view.setUint16(ndpi.markerAt(0, 0xc0) + 5, 0);
    },
    SlideFormatError,
    /directory 0 claims \d+ tiles in \d+ bytes/,
  ],
  [
    "a restart marker every 7 MCUs of 20",
    (ndpi) => ndpi.view.setUint16(ndpi.markerAt(0, 0xdd) + 4, 7),
    UnsupportedError,
    /a restart marker every 7 MCUs where a row has 20/,
  ],
  [
    "a large JPEG without restart markers",
    (ndpi) => {
      ndpi.view.setUint16(ndpi.markerAt(0, 0xdd) + 4, 0);
      ndpi.set(0, 256, 60_000).set(0, 257, 60_000);
      const frameAt = ndpi.markerAt(0, 0xc0);
      ndpi.view.setUint16(frameAt + 5, 60_000);
      ndpi.view.setUint16(frameAt + 7, 60_000);
    },
    UnsupportedError,
    /a JPEG of 60000 × 60000 without restart markers/,
  ],
  [
    "levels that do not become smaller",
    (ndpi) => ndpi.set(1, 65424, 0),
    SlideFormatError,
    /directory 1 is no smaller than the level before/,
  ],
  [
    "no level",
    (ndpi) => ndpi.set(0, 65424, 1).set(2, 65424, 1),
    SlideFormatError,
    /it has no level/,
  ],
];
for (const [what, damage, type, message] of BROKEN) {
  Deno.test(`openSlide() rejects an NDPI with ${what}`, async () => {
    const ndpi = new Ndpi(RESTARTS);
    damage(ndpi);
    await assert.rejects(ndpi.open(), (error) => {
      assert.ok(error instanceof type, String(error));
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("readRegion() rejects intervals of an NDPI that are not where it says", async () => {
  for (
    const [what, change] of [
      ["one byte later", (v: number) => v + 1],
      ["eight intervals later, where another marker is due", (_: number, next: number) => next],
      ["past the JPEG", () => 0x7fffffff],
      ["in its header", () => 3],
    ] as const
  ) {
    const ndpi = new Ndpi(RESTARTS);
    const at = ndpi.number(0, 65426) + 4 * 5;
    const next = ndpi.view.getUint32(at + 4, true);
    ndpi.view.setUint32(at, change(ndpi.view.getUint32(at, true), next), true);
    const slide = await ndpi.open();
    const region = { level: 0, x0Px: 80, y0Px: 0, widthPx: 80, heightPx: 96 };
    await assert.rejects(slide.readRegion(region), SlideFormatError, what);
    await slide.close();
  }
});

Deno.test("readRegion() rejects an NDPI with fewer or more restart markers than are due", async () => {
  for (const marker of [0xd2, 0x00]) {
    const ndpi = new Ndpi(UNLISTED);
    if (marker === 0) ndpi.bytes[ndpi.markerAt(0, 0xd1) + 1] = 0; // One that is gone,
    else {
      const at = ndpi.markerAt(0, 0xd1) + 20; // or one too many.
      ndpi.bytes.set([0xff, marker], at);
    }
    const slide = await ndpi.open();
    const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 96, heightPx: 64 };
    await assert.rejects(slide.readRegion(region), {
      name: "SlideFormatError",
      message: /has \d+ restart markers or more, and 7 are due/,
    });
    await slide.close();
  }
});

Deno.test("readRegion() names the tile of an NDPI whose data are damaged", async () => {
  const ndpi = new Ndpi(RESTARTS);
  const list = ndpi.number(0, 65426);
  const from = ndpi.number(0, 273) + ndpi.view.getUint32(list + 4 * 17, true);
  ndpi.bytes.fill(0xff, from, from + 40);
  const slide = await ndpi.open();
  const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 160, heightPx: 96 };
  await assert.rejects(slide.readRegion(region), (error) => {
    assert.ok(error instanceof CodecError, String(error));
    assert.deepEqual([error.level, error.column, error.row], [0, 1, 1]);
    return true;
  });
  await slide.close();
});

Deno.test("readRegion() takes an NDPI's size from the JPEG as far as that says one", async () => {
  const macro = 3;
  const ndpi = new Ndpi(RESTARTS);
  assert.equal(ndpi.number(macro, 65421) | 0, 0xbf800000 | 0); // −1, a FLOAT.
  const frameAt = ndpi.markerAt(macro, 0xc0);
  const [heightPx, widthPx] = [ndpi.number(macro, 257), ndpi.number(macro, 256)];
  ndpi.view.setUint16(frameAt + 5, 0);
  ndpi.set(macro, 256, widthPx + 8);
  const slide = await ndpi.open();
  const picture = await slide.associated.get("macro")!();
  assert.deepEqual([picture.widthPx, picture.heightPx], [widthPx, heightPx]);
  await slide.close();
});

Deno.test("openSlide() takes no TIFF for an NDPI that lacks its tag", async () => {
  const slide = await new Ndpi(RESTARTS).retag(0, 65420, 65419).open();
  assert.equal(slide.format, "generic-tiff");
  await slide.close();
});
