import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { CodecError, SlideFormatError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Slide } from "../../src/slide/slide.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { RecordingSource } from "./recording_source.ts";
import { pattern } from "./tiff_builder.ts";

const WIDTH = 300, HEIGHT = 270; // Either side of a tile.
const PIXELS = pattern(WIDTH, HEIGHT);

function picture(samples = PIXELS, channels: 1 | 3 | 4 = 3) {
  return sharp(samples, { raw: { width: WIDTH, height: HEIGHT, channels } });
}

async function open(bytes: Uint8Array): Promise<Slide> {
  return await openSlide(new MemorySource(new Uint8Array(bytes), "a"));
}

async function readAll(slide: Slide): Promise<Uint8Array> {
  const { widthPx, heightPx } = slide.levels[0]!;
  return (await slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx, heightPx })).data;
}

for (const format of ["png", "webp"] as const) {
  Deno.test(`openSlide() takes a ${format} file for a slide of one level`, async () => {
    const slide = await open(await picture().toFormat(format, { lossless: true }).toBuffer());
    assert.equal(slide.format, format);
    assert.equal(slide.properties.vendor, format);
    assert.deepEqual(slide.levels, [
      { widthPx: WIDTH, heightPx: HEIGHT, downsample: 1, tileWidthPx: 256, tileHeightPx: 256 },
    ]);
    assert.deepEqual(await readAll(slide), PIXELS);
    const region = { level: 0, x0Px: 250, y0Px: 260, widthPx: 60, heightPx: 2 };
    const corner = await slide.readRegion(region);
    const at = 3 * (260 * WIDTH + 250);
    assert.deepEqual(corner.data.subarray(0, 150), PIXELS.subarray(at, at + 150));
    assert.deepEqual(corner.data.subarray(150, 180), new Uint8Array(30).fill(255));
    await slide.close();
  });
}

for (const progressive of [false, true]) {
  const kind = progressive ? "progressive" : "baseline";
  Deno.test(`openSlide() takes a ${kind} JPEG file for a slide of one level`, async () => {
    const file = await picture().jpeg({ progressive, mozjpeg: false }).toBuffer();
    const slide = await open(file);
    assert.equal(slide.format, "jpeg");
    // libvips decodes with libjpeg-turbo too, in its accurate mode.
    assert.deepEqual(await readAll(slide), new Uint8Array(await sharp(file).raw().toBuffer()));
    await slide.close();
  });
}

Deno.test("openSlide() shows grey pictures in three samples and alpha over white", async () => {
  const grey = await open(
    await picture(PIXELS.subarray(0, WIDTH * HEIGHT), 1).toColourspace("b-w").png().toBuffer(),
  );
  const shown = await readAll(grey);
  assert.deepEqual(shown.filter((_, i) => i % 3 === 1), PIXELS.subarray(0, WIDTH * HEIGHT));
  await grey.close();
  const rgba = new Uint8Array(WIDTH * HEIGHT * 4);
  for (let i = 0; i < rgba.length; i += 4) rgba.set([200, 100, 0, i % 8 === 0 ? 255 : 0], i);
  const blended = await open(await picture(rgba, 4).png().toBuffer());
  assert.deepEqual(Array.from((await readAll(blended)).subarray(0, 6)), [
    200,
    100,
    0,
    255,
    255,
    255,
  ]);
  await blended.close();
});

Deno.test("openSlide() leaves a picture's pixels as they are, whatever its profile and orientation", async () => {
  const file = await picture().withIccProfile("p3").withMetadata({ orientation: 6, icc: "p3" })
    .png().toBuffer();
  const { icc, orientation } = await sharp(file).metadata();
  assert(icc !== undefined && orientation === 6); // Else the test shows nothing.
  const slide = await open(file);
  assert.deepEqual(slide.icc, new Uint8Array(icc));
  assert.equal(slide.levels[0]!.widthPx, WIDTH);
  const plain = await sharp(file, { ignoreIcc: true }).raw().toBuffer();
  assert.deepEqual(await readAll(slide), new Uint8Array(plain));
  await slide.close();
});

Deno.test("openSlide() decodes a large picture to disk, and leaves nothing there", async () => {
  const [widthPx, heightPx] = [5000, 4500]; // 64 MiB are 4,729² pixels.
  const file = await sharp({
    create: { width: widthPx, height: heightPx, channels: 3, background: { r: 1, g: 2, b: 3 } },
  }).composite([{ input: await picture().png().toBuffer(), left: 4600, top: 4200 }]).png()
    .toBuffer();
  const workDir = mkdtempSync(join(tmpdir(), "wgslide-test-"));
  try {
    const slide = await openSlide(new MemorySource(new Uint8Array(file)), { workDir });
    const region = { level: 0, x0Px: 4599, y0Px: 4200, widthPx: WIDTH + 1, heightPx: HEIGHT };
    const { data } = await slide.readRegion(region);
    assert.deepEqual(Array.from(data.subarray(0, 3)), [1, 2, 3]);
    const row = 3 * (WIDTH + 1);
    for (let y = 0; y < HEIGHT; y += 100) {
      assert.deepEqual(
        data.subarray(y * row + 3, (y + 1) * row),
        PIXELS.subarray(3 * y * WIDTH, 3 * (y + 1) * WIDTH),
      );
    }
    await slide.close();
    assert.deepEqual(readdirSync(workDir), []);
  } finally {
    rmSync(workDir, { recursive: true });
  }
});

Deno.test("readRegion() decodes a picture once", async () => {
  const source = new RecordingSource(new Uint8Array(await picture().png().toBuffer()));
  const slide = await openSlide(source);
  const reads = source.reads.length;
  await readAll(slide);
  await readAll(slide);
  assert.equal(source.reads.length, reads);
  await slide.close();
});

const cut = async (format: "png" | "jpeg" | "webp", part: number) => {
  const file = await picture().toFormat(format).toBuffer();
  return file.subarray(0, Math.floor(file.length * part));
};

Deno.test("openSlide() rejects a picture whose header is cut", async () => {
  for (const format of ["png", "jpeg", "webp"] as const) {
    const bytes = (await cut(format, 1)).subarray(0, 14);
    await assert.rejects(open(bytes), (error) => {
      assert(error instanceof SlideFormatError, String(error));
      assert.equal(error.format, format);
      assert.match(error.message, new RegExp(`^Cannot open "a": its ${format} header is broken: `));
      return true;
    });
  }
});

Deno.test("readRegion() rejects a picture that is cut", async () => {
  for (const format of ["png", "jpeg", "webp"] as const) {
    let slide: Slide;
    try {
      slide = await open(await cut(format, 0.6));
    } catch (error) {
      // libwebp wants all of a file that is not animated for its header.
      assert(error instanceof SlideFormatError && format === "webp", String(error));
      continue;
    }
    await assert.rejects(readAll(slide), (error) => {
      assert(error instanceof CodecError, String(error));
      assert.equal(error.codec, format);
      return true;
    });
    await slide.close();
  }
});

Deno.test("openSlide() rejects a picture that claims too many pixels, and one in CMYK", async () => {
  const png = new Uint8Array(await picture().png().toBuffer());
  new DataView(png.buffer).setUint32(16, 100_000);
  new DataView(png.buffer).setUint32(20, 100_000);
  const cmyk = await picture().toColourspace("cmyk").jpeg().toBuffer();
  await assert.rejects(open(png), (error) => {
    assert(error instanceof UnsupportedError || error instanceof SlideFormatError, String(error));
    return true;
  });
  await assert.rejects(open(cmyk), { name: "UnsupportedError", feature: "CMYK" });
});
