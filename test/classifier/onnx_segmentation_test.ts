import assert from "node:assert/strict";
import { classifyWithModel } from "../../src/classifier/onnx.ts";
import { checkResults, type Position, type Results } from "../../src/results/schema.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";
import {
  BLUE,
  fitted,
  GLASS,
  GREEN,
  paint,
  pixelwise,
  RED,
  written,
  type WrittenSidecar,
} from "./models.ts";

/** 900 × 700 px of 0.5 µm: red tissue with a blue square, which has a green hole, and a blue corner. */
const WIDTH = 900, HEIGHT = 700;
const inBox = (x: number, y: number, [l, t, r, b]: readonly number[]) =>
  x >= l! && x < r! && y >= t! && y < b!;
const TISSUE = [40, 40, 860, 660], SQUARE = [200, 160, 520, 480], HOLE = [280, 240, 440, 400];
const CORNER = [700, 40, 860, 200];
const picture = paint(
  WIDTH,
  HEIGHT,
  (x, y) =>
    inBox(x, y, HOLE)
      ? GREEN
      : inBox(x, y, SQUARE) || inBox(x, y, CORNER)
      ? BLUE
      : inBox(x, y, TISSUE)
      ? RED
      : GLASS,
);
const area = ([l, t, r, b]: readonly number[]) => (r! - l!) * (b! - t!) * 0.25 / 1e6;
const BLUE_MM2 = area(SQUARE) - area(HOLE) + area(CORNER);
const GREEN_MM2 = area(HOLE);

/** Red, green, blue by the strongest channel. */
const strongest = (tile: number) =>
  pixelwise(tile, [[20, 0, 0], [0, 20, 0], [0, 0, 20]], [0, 0, 0]);

function sidecar(input: Record<string, unknown>, output: Record<string, unknown> = {}) {
  return {
    input: { mpp: 0.5, ...input },
    output: { kind: "segmentation", activation: "softmax", map_mpp: 2, ...output },
    classes: [
      { name: "stroma", ignore: true },
      { name: "green", annotation_type: "green", color: "#00ff00" },
      { name: "tumor", annotation_type: "tumor" },
    ],
    report: { type: "TumorCellularity", positive: ["tumor"] },
  } satisfies WrittenSidecar;
}

async function classify(model: Parameters<typeof classifyWithModel>[2]): Promise<Results> {
  const context = testContext(await sharedGpu());
  const results = await classifyWithModel(pictureSlide(picture, 0.5), context, model);
  checkResults(results);
  assert.deepEqual(context.warnings, []);
  return results;
}

const numbers = (results: Results) => results.caseResults as Record<string, number>;
const ringArea = (ring: readonly Position[]) =>
  ring.slice(1).reduce((sum, [x, y], i) => sum + ring[i]![0] * y - x * ring[i]![1], 0) / 2;

/** Areas of polygons of a type in level-0 pixels, holes taken off, and how many rings there are. */
function polygons(results: Results, type: string) {
  return results.scanResults[0]!.geojson!.features
    .filter(({ properties }) => properties.annotation_type === type)
    .map(({ geometry }) => {
      assert.equal(geometry.type, "Polygon");
      const rings = geometry.type === "Polygon" ? geometry.coordinates : [];
      const [outer, ...holes] = rings.map((ring) => Math.abs(ringArea(ring)));
      return { area: outer! - holes.reduce((a, b) => a + b, 0), rings: rings.length };
    }).sort((a, b) => b.area - a.area);
}

Deno.test("a segmentation gives polygons with holes and areas, whatever the tiles and overlaps", async () => {
  for (
    const [tile, overlap] of [[256, 64], [256, 128], [192, 0], [160, 32], [960, 64]]
  ) {
    const model = await fitted(strongest(tile!), sidecar({ tile, overlap }));
    const results = await classify(model);
    const name = `${tile}, ${overlap}`;
    // A map's pixel is 2 µm, so 4 px: what is exactly on its borders is exact.
    const { tumorAreaMm2, greenAreaMm2 } = numbers(results);
    assert.ok(Math.abs(tumorAreaMm2! - BLUE_MM2) < 5.1e-4, `${name}: ${tumorAreaMm2}`);
    assert.ok(Math.abs(greenAreaMm2! - GREEN_MM2) < 5.1e-4, `${name}: ${greenAreaMm2}`);
    const [square, corner, ...others] = polygons(results, "tumor");
    assert.deepEqual(others, [], name);
    assert.equal(square!.rings, 2, name);
    assert.equal(square!.area, 320 ** 2 - 160 ** 2, name);
    assert.equal(corner!.area, 160 ** 2, name);
    assert.deepEqual(polygons(results, "green"), [{ area: 160 ** 2, rings: 1 }], name);
  }
});

/** The number of the strongest channel in every `step`th pixel, as int64 or as floats. */
function numbered(tile: number, step: number, cast: boolean): Uint8Array<ArrayBuffer> {
  return written(tile, (model, image) => {
    const small = model.node("AveragePool", [image], {
      kernel_shape: [step, step],
      strides: [step, step],
    });
    const largest = model.node("ArgMax", [small], { axis: 1, keepdims: cast ? 1 : 0 });
    model.node("Cast", [largest], { to: 1 }, "map");
    const size = tile / step;
    return [["map", cast ? ["batch", 1, size, size] : ["batch", size, size]]];
  });
}

Deno.test("a segmentation may be class numbers, coarser than its input too", async () => {
  for (const [step, cast] of [[1, true], [1, false], [4, true], [2, false]] as const) {
    const results = await classify(
      await fitted(
        numbered(256, step, cast),
        sidecar({ tile: 256, overlap: 64 }, {
          activation: "none",
        }),
      ),
    );
    const { tumorAreaMm2, greenAreaMm2 } = numbers(results);
    assert.ok(Math.abs(tumorAreaMm2! - BLUE_MM2) < 5.1e-4, `${step}: ${tumorAreaMm2}`);
    assert.ok(Math.abs(greenAreaMm2! - GREEN_MM2) < 5.1e-4, `${step}: ${greenAreaMm2}`);
    assert.deepEqual(polygons(results, "tumor").map(({ rings }) => rings), [2, 1]);
  }
});

Deno.test("a segmentation's overlaps have no seams, and tiles move outlines by little", async () => {
  // A wide blur before the decision: near a tile's edge the model sees zeros instead of the slide.
  const blurred = (tile: number) =>
    written(tile, (model, image) => {
      const plane = new Array(3 * 25).fill(20 / 25);
      const rows = model.node("Conv", [image, model.floats([3, 1, 1, 25], plane)], {
        group: 3,
        pads: [0, 12, 0, 12],
      });
      const column = plane.map((v) => v / 20);
      model.node("Conv", [rows, model.floats([3, 1, 25, 1], column)], {
        group: 3,
        pads: [12, 0, 12, 0],
      }, "map");
      return [["map", ["batch", 3, tile, tile]]];
    });
  const areas: number[] = [];
  for (const [tile, overlap] of [[256, 96], [256, 128], [320, 96], [960, 96]]) {
    const results = await classify(await fitted(blurred(tile!), sidecar({ tile, overlap })));
    const pieces = polygons(results, "tumor");
    // One piece each: no tile's border cuts them.
    assert.deepEqual(pieces.map(({ rings }) => rings), [2, 1], `${tile}, ${overlap}`);
    areas.push(pieces[0]!.area);
  }
  // A tile weighs 12 px from its edge an eighth of its neighbour, so that the edges' zeros move an
  // outline by less than a pixel of the map, 4 px: of 1920 px of outlines 1 px on average.
  for (const area of areas) assert.ok(Math.abs(area - areas[0]!) <= 1920, `${areas}`);
});

Deno.test("a segmentation leaves out small pieces, what is unsure, and what is no tissue", async () => {
  const run = async (output: Record<string, unknown>, threshold = 0) => {
    const side = sidecar({ tile: 256, overlap: 64 }, output);
    const classes = side.classes.map((each) => ({ ...each, threshold }));
    return await classify(await fitted(strongest(256), { ...side, classes }));
  };
  // The corner has 6400 µm², the hole as much.
  assert.deepEqual(
    polygons(await run({ least_area_um2: 6500 }), "tumor").map(({ rings }) => rings),
    [1],
  );
  assert.deepEqual(
    polygons(await run({ least_area_um2: 6300 }), "tumor").map(({ rings }) => rings),
    [2, 1],
  );
  // exp(20 · 160/255) against two others.
  assert.equal(polygons(await run({}, 0.99), "tumor").length, 2);
  assert.equal(polygons(await run({}, 0.9999999), "tumor").length, 0);
  // Glass is as green as it is red: with a bias to green it is the second class.
  const glass = pixelwise(256, [[20, 0, 0], [0, 20, 0], [0, 0, 20]], [0, 1, 0]);
  const inside = await classify(await fitted(glass, sidecar({ tile: 256, overlap: 64 })));
  // The mask's border lies a little beside the tissue's.
  const beside = numbers(inside).tissueAreaMm2! - area(TISSUE);
  assert.ok(beside < 0.02);
  assert.ok(Math.abs(numbers(inside).greenAreaMm2! - GREEN_MM2 - beside) < 2e-3);
  const all = await classify(
    await fitted(glass, sidecar({ tile: 256, overlap: 64 }, { tissue_only: false })),
  );
  const around = (WIDTH * HEIGHT - 820 * 620) * 0.25 / 1e6;
  // All of the glass that tiles with tissue reach, which here is all.
  assert.ok(Math.abs(numbers(all).greenAreaMm2! - GREEN_MM2 - around) < 1e-3);
});
