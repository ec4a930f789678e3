import assert from "node:assert/strict";
import { classifyWithModel } from "../../src/classifier/onnx.ts";
import type { FittedModel } from "../../src/classifier/onnx_model.ts";
import { checkResults, type Feature, type Results } from "../../src/results/schema.ts";
import type { Picture } from "../../src/slide/slide.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";
import { BLUE, fitted, GLASS, paint, RED, written } from "./models.ts";

const WIDTH = 1024, HEIGHT = 768, MPP = 0.5;
/** Tissue everywhere, red on the left, blue from `at` on. */
const halves = (at: number) => paint(WIDTH, HEIGHT, (x) => x < at ? RED : BLUE);

/** [batch, 2]: the mean of red and of blue, as logits where `gain` is given. */
function means(tile: number, gain?: number): Uint8Array<ArrayBuffer> {
  return written(tile, (model, image) => {
    const mean = model.node("GlobalAveragePool", [image]);
    const flat = model.node("Flatten", [mean]);
    const rows = gain === undefined ? [1, 0, 0, 0, 0, 1] : [gain, 0, -gain, -gain, 0, gain];
    model.node("Gemm", [flat, model.floats([2, 3], rows)], { transB: 1 }, "scores");
    return [["scores", ["batch", 2]]];
  });
}

const CLASSES = [
  { name: "stroma", annotation_type: "stroma", color: "#00ff00" },
  { name: "tumor bed", annotation_type: "tumor" },
];

async function classify(picture: Picture, model: FittedModel): Promise<Results> {
  const context = testContext(await sharedGpu());
  const results = await classifyWithModel(pictureSlide(picture, MPP), context, model);
  checkResults(results);
  assert.deepEqual(context.warnings, []);
  return results;
}

const numbers = (results: Results) => results.caseResults as Record<string, number>;
const features = (results: Results) => results.scanResults[0]!.geojson!.features;

/** The contours of a feature: the least and the largest x and the colour of each. */
function contoursOf(feature: Feature) {
  const { geometry, properties } = feature;
  assert.equal(geometry.type, "GeometryCollection");
  const parts = geometry.type === "GeometryCollection" ? geometry.geometries : [];
  const colors = properties.contour_colors as string[];
  assert.equal(colors.length, parts.length);
  return parts.map((part, i) => {
    const xs = part.type === "Polygon" ? part.coordinates[0]!.map(([x]) => x) : [];
    return { left: Math.min(...xs), right: Math.max(...xs), color: colors[i]! };
  });
}

Deno.test("classes give areas, a heat map of contours with a colour each, and a report", async () => {
  const tile = 128;
  const model = await fitted(means(tile), {
    input: { mpp: MPP, tile },
    output: { kind: "classes", contours: [0.7, 0.5] },
    classes: CLASSES,
    report: { type: "TumorCellularity", positive: ["tumor bed"] },
  });
  const results = await classify(halves(512), model);
  const half = 512 * HEIGHT * MPP ** 2 / 1e6;
  const { stromaAreaMm2, tumorBedAreaMm2, tissueAreaMm2 } = numbers(results);
  // The mask's pixels are 8 µm, and divide the halves: areas are right to their thousandths.
  assert.ok(Math.abs(stromaAreaMm2! - half) <= 0.0005, `${stromaAreaMm2}`);
  assert.ok(Math.abs(tumorBedAreaMm2! - half) <= 0.0005, `${tumorBedAreaMm2}`);
  assert.ok(Math.abs(tissueAreaMm2! - 2 * half) <= 0.0005, `${tissueAreaMm2}`);
  const [stroma, tumor, ...others] = features(results);
  assert.deepEqual(others, []);
  assert.deepEqual([stroma!, tumor!].map(({ properties }) => properties.annotation_type), [
    "stroma",
    "tumor",
  ]);
  const contours = contoursOf(stroma!);
  assert.equal(contours.length, 2);
  for (const [i, level] of [0.5, 0.7].entries()) {
    // Linear between the middles of tiles, where red falls from 220 to 60 of 255.
    const [high, low] = [220 / 255, 60 / 255];
    const right = 448 + tile * (high - level) / (high - low);
    assert.ok(Math.abs(contours[i]!.right - right) <= 1, `${contours[i]!.right}, not ${right}`);
    assert.equal(contours[i]!.left, 0, "along the slide's edge");
  }
  // From the class's colour mixed with white to the colour itself.
  assert.deepEqual(contours.map(({ color }) => color), ["#80ff80", "#00ff00"]);
  const { report } = results.scanResults[0]!.workflow!;
  assert.equal(report.type, "TumorCellularity");
  const [map] = report.type === "TumorCellularity" ? Object.values(report.threshold_map) : [];
  assert.equal(map!.tumor_cellularity, 0.5);
});

Deno.test("classes move by no more than the tiles that a border crosses, however tiles lie", async () => {
  const border = 600;
  const areas = [];
  const contours = [];
  for (const [tile, overlap] of [[128, 0], [192, 64], [192, 0], [64, 0], [96, 32], [224, 112]]) {
    const model = await fitted(means(tile!, 10), {
      input: { mpp: MPP, tile, overlap, tissue: 0 },
      output: { kind: "classes", activation: "softmax", contours: [0.5] },
      classes: CLASSES,
    });
    const results = await classify(halves(border), model);
    const { stromaAreaMm2, tumorBedAreaMm2, tissueAreaMm2 } = numbers(results);
    assert.ok(Math.abs(stromaAreaMm2! + tumorBedAreaMm2! - tissueAreaMm2!) <= 0.001);
    // A tile whose middle the border has not reached is red: at most half a core is taken wrongly.
    const bound = (tile! - overlap!) / 2 * HEIGHT * MPP ** 2 / 1e6 + 0.001;
    const exact = border * HEIGHT * MPP ** 2 / 1e6;
    assert.ok(Math.abs(stromaAreaMm2! - exact) <= bound, `${tile}, ${overlap}: ${stromaAreaMm2}`);
    areas.push(stromaAreaMm2!);
    const [only] = contoursOf(features(results)[0]!);
    // And its contour lies between the middles of the tiles around the border.
    assert.ok(Math.abs(only!.right - border) <= tile! - overlap!, `${tile}: ${only!.right}`);
    contours.push(only!.right);
  }
  assert.ok(new Set(areas).size > 1 && new Set(contours).size > 1, "the tiles do matter a little");
});

Deno.test("classes may be one, with a threshold, and need not be drawn", async () => {
  const one = written(64, (model, image) => {
    const mean = model.node("GlobalAveragePool", [image]);
    model.node("Conv", [mean, model.floats([1, 3, 1, 1], [20, 0, -20])], {}, "logit");
    return [["logit", ["batch", 1, 1, 1]]];
  });
  const run = async (threshold: number) => {
    const model = await fitted(one, {
      input: { mpp: MPP, tile: 64 },
      output: { kind: "classes", activation: "sigmoid" },
      classes: [{ name: "red", threshold }],
      report: { type: "Basic" },
    });
    const results = await classify(halves(512), model);
    assert.deepEqual(features(results), []);
    return numbers(results).redAreaMm2!;
  };
  // The logit of red is 20 · 160/255, of blue its negative.
  assert.ok(Math.abs(await run(0.9) - 512 * HEIGHT * MPP ** 2 / 1e6) <= 0.0005);
  assert.ok(Math.abs(await run(1e-6) - WIDTH * HEIGHT * MPP ** 2 / 1e6) <= 0.0005);
});

Deno.test("classes of a slide without tissue are nothing, and said so", async () => {
  const model = await fitted(means(128), {
    input: { mpp: MPP, tile: 128 },
    output: { kind: "classes" },
    classes: CLASSES,
    report: { type: "AreaDifferential" },
    tissue_annotation_type: "tissue",
  });
  const context = testContext(await sharedGpu());
  for (const [width, height] of [[700, 500], [1, 1]] as const) {
    const slide = pictureSlide(paint(width, height, () => GLASS), MPP);
    const results = await classifyWithModel(slide, context, model);
    checkResults(results);
    assert.deepEqual(features(results), []);
    assert.deepEqual(numbers(results), { stromaAreaMm2: 0, tumorBedAreaMm2: 0, tissueAreaMm2: 0 });
    assert.match(context.warnings.at(-1)!, /No tissue was found/);
  }
});
