import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromArrayBuffer, type GeoTIFFImage } from "geotiff";
import { ConfigError, SourceError } from "../../src/errors.ts";
import { runSample } from "../../src/sample/cli.ts";
import { drawSample, encodeSample, type Truth, truthPath } from "../../src/sample/sample.ts";
import { arrange } from "../../src/sample/scene.ts";

/** Small, and no multiple of a tile or of a level's step. */
const SMALL = { seed: 7, widthPx: 701, heightPx: 530 };

async function directories(svs: Uint8Array<ArrayBuffer>): Promise<GeoTIFFImage[]> {
  const tiff = await fromArrayBuffer(svs.buffer);
  const count = await tiff.getImageCount();
  return Promise.all(Array.from({ length: count }, (_, k) => tiff.getImage(k)));
}

async function pixels(image: GeoTIFFImage): Promise<Uint8Array> {
  return await image.readRGB({ interleave: true }) as Uint8Array;
}

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "wgslide-sample-"));
  try {
    await run(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

Deno.test("encodeSample() gives the same bytes for the same seed, others for another", () => {
  const first = encodeSample(SMALL);
  const again = encodeSample(SMALL);
  const other = encodeSample({ ...SMALL, seed: 8 });
  assert.deepEqual(first.svs, again.svs);
  assert.deepEqual(first.truth, again.truth);
  assert.notDeepEqual(first.svs, other.svs);
  assert.notDeepEqual(first.truth.nuclei, other.truth.nuclei);
});

Deno.test("encodeSample() lays directories out as Aperio does", async () => {
  const images = await directories(encodeSample(SMALL).svs);
  const seen = await Promise.all(images.map(async (image) => {
    const description = String(await image.fileDirectory.loadValue("ImageDescription"));
    assert.match(description, /^Aperio Image Library /);
    return {
      size: [image.getWidth(), image.getHeight()],
      tile: image.isTiled ? image.getTileWidth() : undefined,
      compression: image.fileDirectory.getValue("Compression"),
      photometric: image.fileDirectory.getValue("PhotometricInterpretation"),
      what: /\n(\w+)/.exec(description)?.[1],
    };
  }));
  const jpeg = { compression: 7, photometric: 6 };
  assert.deepEqual(seen, [
    { size: [701, 530], tile: 240, ...jpeg, what: "701x530" },
    { size: [175, 132], tile: undefined, ...jpeg, what: "701x530" },
    { size: [175, 132], tile: 240, ...jpeg, what: "701x530" },
    { size: [387, 431], tile: undefined, compression: 5, photometric: 2, what: "label" },
    { size: [1280, 431], tile: undefined, ...jpeg, what: "macro" },
  ]);
  const description = String(await images[0]!.fileDirectory.loadValue("ImageDescription"));
  assert.match(description, /\|AppMag = 20\|/);
  assert.match(description, /\|MPP = 0\.5000\|/);
});

Deno.test("encodeSample() writes pictures that decode, each level the mean of the one before", async () => {
  const [level0, thumbnail, level1, label] = await directories(encodeSample(SMALL).svs);
  const [large, small] = [await pixels(level0!), await pixels(level1!)];
  assert.equal(large.length, 701 * 530 * 3);
  let difference = 0;
  for (let y = 0; y < 132; y++) {
    for (let x = 0; x < 175; x++) {
      let sum = 0;
      for (let k = 0; k < 16; k++) {
        sum += large[((4 * y + (k >> 2)) * 701 + 4 * x + (k & 3)) * 3 + 1]!;
      }
      difference += Math.abs(sum / 16 - small[(y * 175 + x) * 3 + 1]!);
    }
  }
  // Both were through JPEG; a shift by one pixel of level 1 makes it 9.
  assert.ok(difference / (175 * 132) < 5.5, `mean difference ${difference / (175 * 132)}`);

  const strips = await pixels(thumbnail!);
  const apart = strips.reduce((sum, value, k) => sum + Math.abs(value - small[k]!), 0);
  assert.ok(apart / strips.length < 3, `mean difference ${apart / strips.length}`);

  // Lossless: the coloured band, then paper down to the last pixel.
  const paper = await pixels(label!);
  assert.deepEqual([...paper.subarray(0, 3)], [64, 132, 150]);
  assert.deepEqual([...paper.subarray(-3)], [250, 250, 250]);
});

Deno.test("encodeSample() draws a dark nucleus wherever the truth has one, and bright glass", async () => {
  const { svs, truth } = encodeSample({ seed: 3, widthPx: 1024, heightPx: 768 });
  const rgb = await pixels((await directories(svs))[0]!);
  const red = (x: number, y: number) => rgb[(Math.floor(y) * 1024 + Math.floor(x)) * 3]!;
  assert.ok(truth.nuclei.length > 100);
  const pale = truth.nuclei.filter(({ x0Px, y0Px }) => red(x0Px, y0Px) > 165);
  assert.ok(
    pale.length <= truth.nuclei.length * 0.01,
    `${pale.length} of ${truth.nuclei.length} nuclei are pale`,
  );
  for (let c = 0; c < 3; c++) assert.ok(rgb[c]! > 235 && rgb[c]! < 252);
});

function checkTruth(truth: Truth): void {
  const kinds = ["epithelium", "tumour", "lymphocyte", "fibroblast", "endothelium"];
  for (const [k, nucleus] of truth.nuclei.entries()) {
    const { x0Px, y0Px, radiusXPx, radiusYPx } = nucleus;
    assert.ok(x0Px >= 0 && x0Px < truth.widthPx && y0Px >= 0 && y0Px < truth.heightPx);
    for (const radius of [radiusXPx, radiusYPx]) assert.ok(radius > 2.5 && radius < 12);
    assert.ok(kinds.includes(nucleus.kind));
    for (const other of truth.nuclei.slice(0, k)) {
      // Six, less what rounding to hundredths takes.
      assert.ok(Math.hypot(other.x0Px - x0Px, other.y0Px - y0Px) > 5.98);
    }
  }
}

Deno.test("encodeSample() keeps nuclei on the slide and their centres 6 px apart", () => {
  checkTruth(encodeSample({ seed: 3, widthPx: 1024, heightPx: 768 }).truth);
});

Deno.test("arrange() places 2,000 to 3,500 nuclei of every kind on a slide of the default size", () => {
  for (const seed of [1, 2]) {
    const { nuclei } = arrange(seed, 3072, 2304);
    assert.ok(nuclei.length > 2000 && nuclei.length < 3500, `${nuclei.length}`);
    assert.equal(new Set(nuclei.map(({ kind }) => kind)).size, 5);
  }
});

Deno.test("encodeSample() rejects a seed or a size out of range", () => {
  for (
    const options of [
      { seed: 0.5 },
      { widthPx: 255 },
      { heightPx: 16385 },
      { widthPx: 1000.5 },
      { heightPx: NaN },
    ]
  ) {
    assert.throws(() => encodeSample(options), RangeError);
  }
});

Deno.test("drawSample() writes the slide and its truth beside it", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "out.svs");
    const truth = await drawSample(path, { seed: 2, widthPx: 300, heightPx: 260 });
    assert.deepEqual((await readdir(folder)).sort(), ["out.svs", "out.truth.json"]);
    assert.deepEqual(JSON.parse(await readFile(truthPath(path), "utf8")), truth);
    const { svs } = encodeSample({ seed: 2, widthPx: 300, heightPx: 260 });
    assert.deepEqual(new Uint8Array(await readFile(path)), svs);
  });
});

Deno.test("drawSample() says where it cannot write, and leaves nothing behind", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "absent", "out.svs");
    await assert.rejects(drawSample(path, { widthPx: 256, heightPx: 256 }), (error) => {
      assert.ok(error instanceof SourceError);
      assert.match(error.message, /^Cannot write the sample slide ".*out\.svs": /);
      return true;
    });
    assert.deepEqual(await readdir(folder), []);
    // A folder stands where the slide should go.
    await Deno.mkdir(join(folder, "taken.svs", "inside"), { recursive: true });
    await assert.rejects(
      drawSample(join(folder, "taken.svs"), { widthPx: 256, heightPx: 256 }),
      SourceError,
    );
    assert.deepEqual(await readdir(folder), ["taken.svs"]);
  });
});

Deno.test("runSample() rejects arguments that make no sense", async () => {
  for (
    const args of [
      [],
      ["a.svs", "b.svs"],
      ["a.svs", "--seed", "x"],
      ["a.svs", "--width", "12"],
      ["a.svs", "--unknown"],
    ]
  ) {
    await assert.rejects(runSample(args), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /Usage: deno task sample OUT/);
      return true;
    });
  }
});
