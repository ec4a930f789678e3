import assert from "node:assert/strict";
import { classifyGrid } from "../../src/classifier/grid.ts";
import { checkResults } from "../../src/results/schema.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";

const slideOf = (widthPx: number, heightPx: number) =>
  pictureSlide({ data: new Uint8Array(), widthPx, heightPx }, 0.5);

Deno.test("classifyGrid() gives the four squares of the original template", () => {
  const results = classifyGrid(slideOf(1600, 800), testContext(undefined, { SCAN_ID: "8615687" }));
  assert.deepEqual(results, {
    caseResults: { mitosisCount: 4 },
    scanResults: [{
      scanId: "8615687",
      geojson: {
        type: "FeatureCollection",
        // Sides of 800 / 8, around (400, 200), (1200, 200), (400, 600) and (1200, 600).
        features: [[350, 150], [1150, 150], [350, 550], [1150, 550]].map(([x = 0, y = 0]) => ({
          type: "Feature",
          bbox: [x, y, x + 100, y + 100],
          geometry: {
            type: "Polygon",
            coordinates: [[[x, y], [x, y + 100], [x + 100, y + 100], [x + 100, y], [x, y]]],
          },
          properties: { annotation_type: "tissue_tumor_positive" },
        })),
      },
    }],
  });
});

Deno.test("classifyGrid() gives a valid document for any size, also without a GPU", () => {
  for (const [width, height] of [[1, 1], [3, 7], [2220, 2967], [1, 100_000]] as const) {
    const results = checkResults(classifyGrid(slideOf(width, height), testContext(undefined)));
    for (const { bbox: [left, top, right, bottom] } of results.scanResults[0]!.geojson!.features) {
      assert.ok(left >= 0 && top >= 0 && right <= width && bottom <= height);
    }
  }
});
