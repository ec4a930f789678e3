import assert from "node:assert/strict";
import { KernelError } from "../../kernels/errors.ts";
import { classifyNuclei } from "../../src/classifier/nuclei.ts";
import { checkResults, type Results } from "../../src/results/schema.ts";
import { encodeSample } from "../../src/sample/sample.ts";
import { reducePicture } from "../../src/slide/area_filter.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Picture, Slide } from "../../src/slide/slide.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";
import { compareDetections } from "./matching.ts";

/** Micrometres within which a detection is the true nucleus. */
const NEAR_UM = 4;

function pointsOf(results: Results) {
  const report = results.scanResults[0]!.workflow!.report;
  assert.equal(report.type, "WholeSlideDifferential");
  return report.type === "WholeSlideDifferential" ? report.points : [];
}

/** What every document of the classifier has, and its points. */
function checked(results: Results) {
  checkResults(results);
  const [{ geojson, workflow }] = results.scanResults as [Results["scanResults"][0]];
  const points = pointsOf(results);
  const { nucleusCount, tissueAreaMm2, nucleiPerMm2 } = results.caseResults as Record<
    string,
    number
  >;
  assert.equal(nucleusCount, points.length);
  // The area is rounded to thousandths.
  const [most, least] = [tissueAreaMm2! + 0.0006, Math.max(0, tissueAreaMm2! - 0.0006)];
  assert.ok(nucleiPerMm2! * most >= points.length * (1 - 1e-3), "too few per mm²");
  assert.ok(nucleiPerMm2! * least <= points.length * (1 + 1e-3), "too many per mm²");
  assert.ok(points.every(({ score, type }) => score > 0 && score <= 1 && type === "nucleus"));
  assert.equal(workflow!.ruo, true);
  const nuclei = geojson!.features.find(({ properties }) =>
    properties.annotation_type === "nucleus"
  );
  assert.deepEqual(
    nuclei?.geometry.type === "MultiPoint" ? nuclei.geometry.coordinates : [],
    points.map(({ x, y }) => [x, y]),
  );
  const outlined = geojson!.features.some(({ properties }) =>
    properties.annotation_type === "tissue"
  );
  assert.ok(outlined || tissueAreaMm2 === 0);
  return points;
}

async function classify(slide: Slide, env: Record<string, string> = {}) {
  const context = testContext(await sharedGpu(), env);
  const points = checked(await classifyNuclei(slide, context));
  assert.deepEqual(context.kept, []);
  return { points, warnings: context.warnings, shown: context.shown };
}

async function pictureOf(slide: Slide): Promise<Picture> {
  const { widthPx, heightPx } = slide.levels[0]!;
  return await slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx, heightPx });
}

/** Every pixel becomes `times` × `times`. */
function enlarge({ data, widthPx, heightPx }: Picture, times: number): Picture {
  const [width, height] = [widthPx * times, heightPx * times];
  const out = new Uint8Array(width * height * 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += 3) {
      const from = 3 * (Math.floor(y / times) * widthPx + Math.floor(x / times));
      out[to] = data[from]!;
      out[to + 1] = data[from + 1]!;
      out[to + 2] = data[from + 2]!;
    }
  }
  return { data: out, widthPx: width, heightPx: height };
}

const blank = (widthPx: number, heightPx: number): Picture => ({
  data: new Uint8Array(widthPx * heightPx * 3).fill(244),
  widthPx,
  heightPx,
});

Deno.test("classifyNuclei() finds the sample's nuclei with F1 of 0.9, within 4 µm", async () => {
  for (const options of [{ seed: 1 }, { seed: 2, widthPx: 1200, heightPx: 900 }]) {
    const { svs, truth } = encodeSample(options);
    const slide = await openSlide(new MemorySource(svs));
    const { points, warnings, shown } = await classify(slide);
    await slide.close();
    const { f1, precision, recall } = compareDetections(
      points,
      truth.nuclei.map(({ x0Px, y0Px }) => ({ x: x0Px, y: y0Px })),
      NEAR_UM / truth.mpp,
    );
    assert.ok(f1 >= 0.9, `seed ${truth.seed}: ${f1}, precision ${precision}, recall ${recall}`);
    assert.deepEqual(warnings, []);
    const total = shown[0]![1];
    assert.deepEqual(shown, Array.from({ length: total + 1 }, (_, i) => [i, total, "tiles"]));
  }
});

/** 600 × 450 px of the sample, which every test below looks at in another way. */
const crop = await (async () => {
  const slide = await openSlide(
    new MemorySource(encodeSample({ seed: 4, widthPx: 600, heightPx: 450 }).svs),
  );
  const picture = await pictureOf(slide);
  await slide.close();
  return picture;
})();

Deno.test("classifyNuclei() finds the same nuclei at 40x and at 60x", async () => {
  const { points } = await classify(pictureSlide(crop, 0.5));
  assert.ok(points.length > 50);
  for (const times of [2, 3]) {
    const enlarged = await classify(pictureSlide(enlarge(crop, times), 0.5 / times));
    const back = enlarged.points.map(({ x, y }) => ({ x: x / times, y: y / times }));
    // Pixels are the means of equal ones: only the tissue's outline and rounding may differ.
    const { f1 } = compareDetections(back, points, 1);
    assert.ok(f1 >= 0.98, `${times} times: ${f1}`);
  }
});

Deno.test("classifyNuclei() finds the same nuclei where its pixels lie between the slide's", async () => {
  const [width, height] = [200, 150];
  const part = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = 3 * ((y + 150) * crop.widthPx + 200);
    part.set(crop.data.subarray(from, from + 3 * width), 3 * y * width);
  }
  const picture = { data: part, widthPx: width, heightPx: height };
  const { points } = await classify(pictureSlide(picture, 0.5));
  assert.ok(points.length > 10);
  // 1.3 pixels for each, and a tile's halo begins between two of them.
  const resampled = reducePicture(enlarge(picture, 13), width * 1.3, height * 1.3);
  const { points: found } = await classify(pictureSlide(resampled, 0.5 / 1.3));
  const back = found.map(({ x, y }) => ({ x: x / 1.3, y: y / 1.3 }));
  const { f1 } = compareDetections(back, points, 2);
  assert.ok(f1 >= 0.9, `${f1}`);
  // Positions are rounded, but on the whole they are not off to one side.
  let [sumX, sumY, count] = [0, 0, 0];
  for (const { x, y } of points) {
    const near = back.find((other) => Math.hypot(other.x - x, other.y - y) <= 2);
    if (near === undefined) continue;
    [sumX, sumY, count] = [sumX + near.x - x, sumY + near.y - y, count + 1];
  }
  assert.ok(Math.hypot(sumX, sumY) / count < 0.3, `(${sumX / count}, ${sumY / count})`);
});

Deno.test("classifyNuclei() gives positions in level-0 pixels on any level of a pyramid", async () => {
  const { points } = await classify(pictureSlide(crop, 0.5));
  const large = pictureSlide(enlarge(crop, 4), 0.125);
  const small = pictureSlide(crop, 0.5);
  const [base] = large.levels;
  const slide: Slide = {
    ...large,
    levels: [base!, { ...small.levels[0]!, downsample: 4 }],
    readRegion: (region) => {
      assert.equal(region.level, 1, "the level that is as fine as wanted");
      assert(region.xPx !== undefined, "in its own pixels, between which nothing is interpolated");
      return small.readRegion({ ...region, level: 0 });
    },
  };
  // The overview of 2400 × 1800 px is made from level 0, so a known one is asked for first.
  const { readRegion } = slide;
  slide.readRegion = (region) => region.level === 0 ? large.readRegion(region) : readRegion(region);
  const found = await classify(slide);
  const { f1 } = compareDetections(
    found.points.map(({ x, y }) => ({ x: x / 4, y: y / 4 })),
    points,
    1,
  );
  assert.ok(f1 >= 0.98, `${f1}`);
});

Deno.test("classifyNuclei() takes a slide without µm/px for 20x, and says so", async () => {
  const known = await classify(pictureSlide(crop, 0.5));
  assert.deepEqual(known.warnings, []);
  const unknown = await classify(pictureSlide(crop, undefined));
  assert.deepEqual(unknown.points, known.points);
  assert.match(unknown.warnings.join("\n"), /^The slide does not say .*0\.5 is taken \(20x\)/);
  const absurd = await classify(pictureSlide(crop, 352.8));
  assert.deepEqual(absurd.points, known.points);
  assert.match(absurd.warnings.join("\n"), /^The slide says 352\.8 .*0\.5 is taken \(20x\)/);
  const coarse = await classify(pictureSlide(crop, 4));
  assert.match(coarse.warnings.join("\n"), /^Nuclei are hardly resolved at 4\.00 µm\/px/);
});

Deno.test("classifyNuclei() finds fewer with a higher NUCLEI_THRESHOLD", async () => {
  const counts = [];
  for (const NUCLEI_THRESHOLD of ["0.05", "0.2", "0.5", "1"]) {
    const { points } = await classify(pictureSlide(crop, 0.5), { NUCLEI_THRESHOLD });
    assert.ok(points.every(({ score }) => score >= Number(NUCLEI_THRESHOLD) - 0.0005));
    counts.push(points.length);
  }
  assert.deepEqual(counts, counts.toSorted((a, b) => b - a));
  assert.ok(counts[0]! > counts[1]! && counts[1]! > counts[2]!, `${counts}`);
});

Deno.test("classifyNuclei() counts no dirt on the glass beside the tissue", async () => {
  const [width, height] = [crop.widthPx + 200, crop.heightPx];
  const data = blank(width, height).data;
  for (let y = 0; y < height; y++) {
    data.set(crop.data.subarray(3 * y * crop.widthPx, 3 * (y + 1) * crop.widthPx), 3 * y * width);
  }
  // As blue and as large as a nucleus, 60 µm from the tissue.
  const [x0, y0] = [crop.widthPx + 120, 200];
  for (let i = 0; i < width * height; i++) {
    const [x, y] = [i % width, Math.floor(i / width)];
    if (Math.hypot(x - x0, y - y0) < 8) data.set([90, 60, 140], 3 * i);
  }
  const { points } = await classify(pictureSlide({ data, widthPx: width, heightPx: height }, 0.5));
  assert.ok(points.length > 50);
  assert.deepEqual(points.filter(({ x }) => x > crop.widthPx + 60), []);
});

Deno.test("classifyNuclei() finds nothing on glass, on one pixel and on black", async () => {
  const pixel = { data: Uint8Array.of(120, 60, 150), widthPx: 1, heightPx: 1 };
  const black = { data: new Uint8Array(300 * 200 * 3), widthPx: 300, heightPx: 200 };
  for (const picture of [blank(1, 1), blank(700, 500), blank(3, 2000), pixel, black]) {
    const { points } = await classify(pictureSlide(picture, 0.5));
    assert.deepEqual(points, [], `${picture.widthPx} × ${picture.heightPx}`);
  }
});

Deno.test("classifyNuclei() needs a GPU", async () => {
  await assert.rejects(
    classifyNuclei(pictureSlide(crop, 0.5), testContext(undefined)),
    (error: unknown) => error instanceof KernelError && /no GPU was detected/.test(error.message),
  );
});

Deno.test("classifyNuclei() keeps what it has where it is interrupted", async () => {
  const gpu = await sharedGpu();
  const { svs } = encodeSample({ seed: 5, widthPx: 2300, heightPx: 600 });
  const slide = await openSlide(new MemorySource(svs));
  const whole = await classify(slide);
  const reason = new Error("out of time");
  for (const after of [0, 1]) {
    const stop = new AbortController();
    const context = testContext(gpu, {}, stop.signal);
    await assert.rejects(
      classifyNuclei(slide, {
        ...context,
        progress: (done) => done === after && stop.abort(reason),
      }),
      reason,
    );
    const [kept, ...others] = context.kept;
    assert.deepEqual(others, []);
    const points = checked(kept!);
    assert.ok(after === 0 || points.length > 0);
    assert.ok(points.length < whole.points.length);
  }
  // Before anything is known, nothing is kept.
  const context = testContext(gpu, {}, AbortSignal.abort(reason));
  await assert.rejects(classifyNuclei(pictureSlide(crop, 0.5), context), reason);
  assert.deepEqual(context.kept, []);
  await slide.close();
});

Deno.test("classifyNuclei() fails as reading fails, and keeps nothing", async () => {
  const context = testContext(await sharedGpu());
  const slide = pictureSlide(crop, 0.5);
  const { readRegion } = slide;
  slide.readRegion = (region) =>
    region.xPx! < 0 ? Promise.reject(new Error("a broken tile")) : readRegion(region);
  await assert.rejects(classifyNuclei(slide, context), /a broken tile/);
  assert.deepEqual(context.kept, []);
});
