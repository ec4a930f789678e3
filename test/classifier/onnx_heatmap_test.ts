import assert from "node:assert/strict";
import { classifyWithModel } from "../../src/classifier/onnx.ts";
import { checkResults, type Results } from "../../src/results/schema.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { uniform } from "../reference/random.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";
import { BLUE, fitted, GREEN, paint, RED, written, type WrittenSidecar } from "./models.ts";

const WIDTH = 700, HEIGHT = 520, MPP = 0.5;

/** Dots of 4 px radius, blue or green, 24 px apart at least, also at the slide's edges. */
const dots = (() => {
  const random = uniform(12);
  const list: { x: number; y: number; isBlue: boolean }[] = [];
  for (let tries = 0; list.length < 150 && tries < 5000; tries++) {
    const dot = {
      x: 4 + Math.floor(random() * (WIDTH - 7)),
      y: 4 + Math.floor(random() * (HEIGHT - 7)),
      isBlue: random() < 0.5,
    };
    if (list.every(({ x, y }) => Math.hypot(x - dot.x, y - dot.y) >= 24)) list.push(dot);
  }
  return list;
})();
const picture = paint(WIDTH, HEIGHT, (x, y) => {
  const dot = dots.find((each) => Math.hypot(x + 0.5 - each.x, y + 0.5 - each.y) < 4);
  return dot === undefined ? RED : dot.isBlue ? BLUE : GREEN;
});

/** How blue, and how green. */
const COLOURS = [[-1, 0, 1], [-1, 1, 0]];

/**
 * [batch, 2, tile / stride, …]: `colours` of what is around a pixel, under a Gaussian whose sum is 1;
 * `host` sends it through an operator of the host.
 */
function blobs(
  tile: number,
  stride: number,
  { colours = COLOURS, host = false } = {},
): Uint8Array<ArrayBuffer> {
  return written(tile, (model, image) => {
    const half = 6,
      taps = Array.from({ length: 2 * half + stride }, (_, i) => {
        const x = i - half - (stride - 1) / 2;
        return Math.exp(-(x * x) / 2 / 9);
      });
    const sum = taps.reduce((a, b) => a + b, 0);
    const plane = taps.flatMap((a) => taps.map((b) => a * b / sum ** 2));
    const size = taps.length;
    const pads = [half, half, half, half];
    const scores = model.node(
      "Conv",
      [
        image,
        model.floats([2, 3, size, size], colours.flat().flatMap((w) => plane.map((v) => w * v))),
      ],
      { strides: [stride, stride], pads },
      host ? "map" : "scores",
    );
    if (host) model.node("Selu", [scores], { alpha: 1, gamma: 1 }, "scores");
    return [["scores", ["batch", 2, tile / stride, tile / stride]]];
  });
}

const sidecar = (input: Record<string, unknown>, output: Record<string, unknown> = {}) =>
  ({
    input: { mpp: MPP, ...input },
    output: { kind: "heatmap", ...output },
    classes: [
      { name: "mitosis", annotation_type: "mitotic_figure", threshold: 0.01, radius_um: 4 },
      { name: "other", annotation_type: "mimic", threshold: 0.01, radius_um: 4 },
    ],
    report: { type: "AiMitosisCounting", positive: ["mitosis"] },
  }) satisfies WrittenSidecar;

async function classify(
  bytes: Uint8Array<ArrayBuffer>,
  side: WrittenSidecar,
): Promise<Results> {
  const context = testContext(await sharedGpu());
  const model = await fitted(bytes, side);
  const results = await classifyWithModel(pictureSlide(picture, MPP), context, model);
  checkResults(results);
  assert.deepEqual(context.warnings, []);
  return results;
}

/** Points of a type, in order. */
function points(results: Results, type: string): string[] {
  const found = results.scanResults[0]!.geojson!.features.filter(({ properties }) =>
    properties.annotation_type === type
  );
  assert.ok(found.length <= 1, "all of one type are one feature");
  const geometry = found[0]?.geometry;
  return (geometry?.type === "MultiPoint" ? geometry.coordinates : []).map(String).sort();
}

/** Every dot has one point within `near` px, and there are no others. */
function assertDots(found: readonly string[], isBlue: boolean, near: number, name: string) {
  const expected = dots.filter((dot) => dot.isBlue === isBlue);
  const left = found.map((each) => each.split(",").map(Number));
  assert.equal(left.length, expected.length, name);
  for (const { x, y } of expected) {
    const at = left.findIndex(([u, v]) => Math.abs(u! - x) <= near && Math.abs(v! - y) <= near);
    assert.ok(at >= 0, `${name}: nothing at (${x}, ${y})`);
    left.splice(at, 1);
  }
}

Deno.test("a heat map gives each maximum once, the same however tiles lie", async () => {
  for (const stride of [1, 2]) {
    const all: string[][] = [];
    for (const [tile, overlap] of [[256, 32], [256, 128], [192, 64], [96, 32], [1024, 64]]) {
      const results = await classify(blobs(tile!, stride), sidecar({ tile, overlap, tissue: 0 }));
      const name = `${tile}, ${overlap}, stride ${stride}`;
      const blue = points(results, "mitotic_figure"), green = points(results, "mimic");
      // Maxima lie within a pixel of the map's, and places are whole pixels.
      assertDots(blue, true, stride, name);
      assertDots(green, false, stride, name);
      all.push([...blue, ...green]);
      const { mitosisCount, otherCount } = results.caseResults as Record<string, number>;
      assert.deepEqual([mitosisCount, otherCount], [blue.length, green.length]);
      const { report } = results.scanResults[0]!.workflow!;
      assert.equal(
        report.type === "AiMitosisCounting" ? report.objects.length : undefined,
        blue.length,
      );
    }
    // The overlap covers what a pixel's score depends on: nothing moves at all.
    for (const other of all) assert.deepEqual(other, all[0]);
  }
});

Deno.test("a heat map's classes compete for a place, or each has its own", async () => {
  // The second answers to blue as well, though less than the first.
  const bytes = blobs(256, 1, { colours: [[-1, 0, 1], [-1, 1, 0.5]] });
  const run = async (compete: boolean) => {
    const results = await classify(
      bytes,
      sidecar({ tile: 256, overlap: 32, tissue: 0 }, { compete }),
    );
    return ["mitotic_figure", "mimic"].map((type) =>
      points(results, type).filter((at) => isInner(at.split(",").map(Number))).length
    );
  };
  // White, which is beyond the slide, is brighter to the second than a dot.
  const isInner = ([x, y]: readonly number[]) =>
    x! > 24 && y! > 24 && x! < WIDTH - 24 && y! < HEIGHT - 24;
  const inner = dots.filter(({ x, y }) => isInner([x, y]));
  const blue = inner.filter(({ isBlue }) => isBlue).length;
  assert.ok(blue > 20 && inner.length - blue > 20);
  assert.deepEqual(await run(true), [blue, inner.length - blue]);
  assert.deepEqual(await run(false), [blue, inner.length]);
});

Deno.test("a heat map may come from a node on the host", async () => {
  const onGpu = await classify(blobs(128, 2), sidecar({ tile: 128, overlap: 32, tissue: 0 }));
  // Selu of alpha and gamma 1 leaves what is positive as it is.
  const onHost = await classify(
    blobs(128, 2, { host: true }),
    sidecar({ tile: 128, overlap: 32, tissue: 0 }),
  );
  assert.deepEqual(points(onHost, "mitotic_figure"), points(onGpu, "mitotic_figure"));
});

Deno.test("a heat map's threshold may follow the slide, and its classes be scales of one thing", async () => {
  const results = await classify(blobs(256, 1), {
    ...sidecar({ tile: 256, overlap: 32, tissue: 0 }, {
      adaptive: { factor: 10, quantile: 0.5 },
      merge_as: "cell",
    }),
    report: { type: "WholeSlideDifferential" },
  });
  // Ten times the middle one's is more than any has.
  assert.deepEqual(Object.keys(results.caseResults as Record<string, number>), [
    "cellCount",
    "cellPerMm2",
    "tissueAreaMm2",
  ]);
  assert.equal((results.caseResults as Record<string, number>).cellCount, 0);
  const { report } = results.scanResults[0]!.workflow!;
  assert.equal(report.type, "WholeSlideDifferential");
  assert.ok(report.type === "WholeSlideDifferential" && report.positivity_threshold > 1);
});
