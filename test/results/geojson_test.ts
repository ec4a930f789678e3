import assert from "node:assert/strict";
import {
  boxFeature,
  featureCollection,
  multiPointFeature,
  polygonFeature,
} from "../../src/results/geojson.ts";
import { checkResults, type Feature, type Position } from "../../src/results/schema.ts";

function valid(feature: Feature): void {
  checkResults({ scanResults: [{ scanId: "1", geojson: featureCollection([feature]) }] });
}

Deno.test("boxFeature() draws the ring as the platform's example does", () => {
  const box = boxFeature({ x0Px: 10, y0Px: 20, widthPx: 30, heightPx: 40 }, "tumor", { name: "a" });
  assert.deepEqual(box, {
    type: "Feature",
    bbox: [10, 20, 40, 60],
    geometry: {
      type: "Polygon",
      coordinates: [[[10, 20], [10, 60], [40, 60], [40, 20], [10, 20]]],
    },
    properties: { name: "a", annotation_type: "tumor" },
  });
  valid(box);
});

Deno.test("boxFeature() refuses a negative size and what is not finite", () => {
  const box = { x0Px: 0, y0Px: 0, widthPx: 1, heightPx: 1 };
  assert.throws(() => boxFeature({ ...box, widthPx: -1 }, "t"), RangeError);
  assert.throws(() => boxFeature({ ...box, heightPx: NaN }, "t"), RangeError);
  assert.throws(() => boxFeature({ ...box, x0Px: Infinity }, "t"), RangeError);
});

Deno.test("polygonFeature() closes rings, keeps holes and boxes the outline", () => {
  const outline: Position[] = [[0, 0], [0, 9], [9, 9], [9, 0]];
  const hole: Position[] = [[2, 2], [3, 2], [3, 3], [2, 2]];
  const feature = polygonFeature([[outline, hole]], "tissue");
  assert.deepEqual(feature.geometry, {
    type: "Polygon",
    coordinates: [[...outline, [0, 0]], hole],
  });
  assert.deepEqual(feature.bbox, [0, 0, 9, 9]);
  valid(feature);
});

Deno.test("polygonFeature() makes several outlines a MultiPolygon with one box", () => {
  const feature = polygonFeature([
    [[[0, 0], [0, 1], [1, 1]]],
    [[[-5, 7], [-5, 8], [-4, 8]]],
  ], "tissue");
  assert.equal(feature.geometry.type, "MultiPolygon");
  assert.deepEqual(feature.bbox, [-5, 0, 1, 8]);
  valid(feature);
});

Deno.test("polygonFeature() refuses no outline, and a ring that is a line", () => {
  assert.throws(() => polygonFeature([], "tissue"), RangeError);
  assert.throws(() => polygonFeature([[[[0, 0], [1, 1]]]], "tissue"), RangeError);
  assert.throws(() => polygonFeature([[[[0, 0], [1, 1], [0, 0]]]], "tissue"), RangeError);
});

Deno.test("multiPointFeature() boxes its points", () => {
  const points: Position[] = [[80, 50], [90, 49], [60, 30]];
  const feature = multiPointFeature(points, "nucleus");
  assert.deepEqual(feature, {
    type: "Feature",
    bbox: [60, 30, 90, 50],
    geometry: { type: "MultiPoint", coordinates: points },
    properties: { annotation_type: "nucleus" },
  });
  valid(feature);
});

Deno.test("multiPointFeature() refuses no points, and names a point that is not finite", () => {
  assert.throws(() => multiPointFeature([], "nucleus"), RangeError);
  assert.throws(
    () => multiPointFeature([[1, 2], [NaN, 3]], "nucleus"),
    /Cannot make a feature "nucleus" at \(NaN, 3\)/,
  );
});

Deno.test("a feature's properties cannot hide its annotation type", () => {
  const feature = multiPointFeature([[1, 2]], "nucleus", { annotation_type: 5 });
  assert.equal(feature.properties.annotation_type, "nucleus");
});
