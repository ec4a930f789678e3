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
    const [tile, overlap] of [[256, 64], [256, 128], [192, 0], [160, 32], [1024, 64], [640, 64]]
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
