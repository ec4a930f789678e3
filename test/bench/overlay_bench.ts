/** How long the result picture takes, at 2048 × 1536 px. */

import { drawFindings, renderOverlay } from "../../src/report/overlay.ts";
import { boxFeature, featureCollection, multiPointFeature } from "../../src/results/geojson.ts";
import type { Feature, Position, Results } from "../../src/results/schema.ts";
import { Random } from "../../src/sample/noise.ts";

const random = new Random(1);
const overview = {
  widthPx: 2048,
  heightPx: 1536,
  data: Uint8Array.from({ length: 2048 * 1536 * 3 }, () => 120 + random.below(8)),
};
const scale = 2048 / 100_000;
const position = (): Position => [random.between(0, 100_000), random.between(0, 75_000)];
const resultsOf = (...features: Feature[]): Results => ({
  scanResults: [{ scanId: "1", geojson: featureCollection(features) }],
});
const points = (count: number) => multiPointFeature(Array.from({ length: count }, position), "t");

const million = resultsOf(points(1_000_000));
const rings = resultsOf(points(30_000));
const box = resultsOf(boxFeature({ x0Px: 100, y0Px: 100, widthPx: 9000, heightPx: 9000 }, "t"));

Deno.bench("overlay: draw a million points", { group: "draw" }, () => {
  drawFindings(overview, scale, million);
});
Deno.bench("overlay: draw 30,000 points as rings", { group: "draw" }, () => {
  drawFindings(overview, scale, rings);
});
Deno.bench("overlay: draw a box and encode", { group: "encode" }, async () => {
  await renderOverlay(overview, scale, box);
});
