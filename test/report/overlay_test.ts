import assert from "node:assert/strict";
import sharp from "sharp";
import { drawFindings, renderOverlay } from "../../src/report/overlay.ts";
import { boxFeature, featureCollection, multiPointFeature } from "../../src/results/geojson.ts";
import type { Feature, Geometry, Report, Results } from "../../src/results/schema.ts";
import type { Picture } from "../../src/slide/slide.ts";

/** Level-0 pixels are a fourth of the pictures' here. */
const SCALE = 0.25;

function blank(widthPx: number, heightPx: number): Picture {
  return { widthPx, heightPx, data: new Uint8Array(widthPx * heightPx * 3).fill(200) };
}

function resultsOf(...features: Feature[]): Results {
  return { scanResults: [{ scanId: "1", geojson: featureCollection(features) }] };
}

function featureOf(geometry: Geometry, properties: Record<string, unknown> = {}): Feature {
  return {
    type: "Feature",
    bbox: [0, 0, 0, 0],
    geometry,
    properties: { annotation_type: "t", ...properties },
  };
}

function reportOf(report: Report): Results {
  const workflow = { model_name: "m", provider: "p", ruo: true, report };
  return { scanResults: [{ scanId: "1", workflow }] };
}

const COLOURS: Record<string, string> = {
  "200,200,200": ".",
  "255,0,0": "#",
  "0,255,0": "g",
  "0,0,255": "b",
};

/** The picture as text, a row a line: tissue a dot, red a hash. */
function show({ data, widthPx, heightPx }: Picture): string[] {
  return Array.from({ length: heightPx }, (_, y) =>
    Array.from({ length: widthPx }, (_, x) => {
      const at = (y * widthPx + x) * 3;
      return COLOURS[data.subarray(at, at + 3).join()] ?? "?";
    }).join(""));
}

function countRed(picture: Picture): number {
  return show(picture).join("").replaceAll(/[^#]/g, "").length;
}

Deno.test("drawFindings() draws a box as its exact outline, two pixels wide on a small picture", () => {
  const box = boxFeature({ x0Px: 8, y0Px: 8, widthPx: 20, heightPx: 12 }, "t");
  assert.deepEqual(show(drawFindings(blank(12, 9), SCALE, resultsOf(box))), [
    "............",
    "............",
    "..#######...",
    "..#######...",
    "..##...##...",
    "..#######...",
    "..#######...",
    "............",
    "............",
  ]);
});

Deno.test("drawFindings() draws lines three pixels wide on a picture of 1024 px", () => {
  const box = boxFeature({ x0Px: 40, y0Px: 40, widthPx: 400, heightPx: 80 }, "t");
  const rows = show(drawFindings(blank(1024, 40), SCALE, resultsOf(box)));
  assert.equal(rows[20]!.slice(0, 20), ".........###........");
  assert.equal(rows[20]!.slice(105, 115), "....###...");
  assert.equal(
    rows.map((row) => row[60]).join(""),
    `${".".repeat(9)}###${".".repeat(17)}###${".".repeat(8)}`,
  );
});

Deno.test("drawFindings() draws every ring of a MultiPolygon, holes too", () => {
  const square = (from: number, to: number): [number, number][] => [
    [from, from],
    [to, from],
    [to, to],
    [from, to],
    [from, from],
  ];
  const feature = featureOf({
    type: "MultiPolygon",
    coordinates: [[square(4, 60), square(20, 36)], [square(72, 80)]],
  });
  const rows = show(drawFindings(blank(24, 24), SCALE, resultsOf(feature)));
  assert.equal(rows[7], ".##..##..##....##.......");
  assert.equal(rows[19], "..................####..");
});

Deno.test("drawFindings() draws slanted lines without gaps", () => {
  const feature = featureOf({ type: "LineString", coordinates: [[0, 0], [80, 40]] });
  const rows = show(drawFindings(blank(21, 12), SCALE, resultsOf(feature)));
  for (let x = 0; x <= 20; x++) {
    assert.equal(rows[Math.round(x / 2)]![x], "#", `column ${x}`);
  }
  assert.equal(rows[0]!.slice(4), ".".repeat(17));
});

Deno.test("drawFindings() marks points by rings that leave the tissue visible", () => {
  const points = multiPointFeature([[20, 16]], "t");
  const expected = [
    "............",
    "............",
    "....###.....",
    "...#...#....",
    "...#...#....",
    "...#...#....",
    "....###.....",
    "............",
    "............",
  ];
  const picture = blank(12, 9);
  assert.deepEqual(show(drawFindings(picture, SCALE, resultsOf(points))), expected);
  const point = featureOf({ type: "Point", coordinates: [23.9, 19.9] });
  assert.deepEqual(show(drawFindings(picture, SCALE, resultsOf(point))), expected);
  assert.deepEqual(show(picture).join(""), ".".repeat(12 * 9));
});

Deno.test("drawFindings() takes smaller marks where rings would hide the tissue", () => {
  const some = (count: number) =>
    multiPointFeature(
      Array.from({ length: count }, (_, k) => [40 * (k % 8) + 20, 40 * (k >> 3) + 20] as const),
      "t",
    );
  // Of 100 × 100 px 15 % may be covered: 125 rings of 12 px, 300 crosses of 5.
  const red = (count: number) =>
    countRed(drawFindings(blank(100, 100), SCALE, resultsOf(some(64), some(count - 64))));
  assert.equal(red(125), 64 * 12);
  assert.equal(red(126), 64 * 5);
  assert.equal(red(300), (64 + 16) * 5);
  assert.equal(red(301), 64 + 16);
});

Deno.test("drawFindings() colours the contours of a GeometryCollection one by one", () => {
  const line = (y: number): Geometry => ({ type: "LineString", coordinates: [[0, y], [40, y]] });
  const feature = featureOf({
    type: "GeometryCollection",
    geometries: [
      line(4),
      { type: "GeometryCollection", geometries: [line(16), line(28)] },
      line(40),
      line(52),
    ],
  }, { contour_colors: ["#00FF00", "#0000ff", "nonsense"] });
  const later = featureOf(line(64));
  const rows = show(drawFindings(blank(8, 18), SCALE, resultsOf(feature, later)));
  assert.equal(rows.map((row) => row[3]).join(""), ".gg.bb.bb.##.##.##");
});

Deno.test("drawFindings() draws the box of a feature without geometry", () => {
  const bare = { type: "Feature", bbox: [8, 8, 24, 16], geometry: null } as unknown as Feature;
  const box = boxFeature({ x0Px: 8, y0Px: 8, widthPx: 16, heightPx: 8 }, "t");
  const drawn = drawFindings(blank(12, 9), SCALE, resultsOf(bare));
  assert.ok(countRed(drawn) > 0);
  assert.deepEqual(show(drawn), show(drawFindings(blank(12, 9), SCALE, resultsOf(box))));
});

Deno.test("drawFindings() draws what reports show", () => {
  const point = { x: 20, y: 20, score: 1, type: "t" };
  const region = featureOf({ type: "LineString", coordinates: [[40, 40], [60, 40]] });
  const collection = { type: "FeatureCollection", features: [region] } as const;
  const segments = [{ name: "n", result: "r", feature_collection: collection }];
  const differential = { points: [point], scores: {}, positivity_threshold: 0 };
  const ring = 12;
  const line = 7 * 2;
  const cases: [Report, number][] = [
    [{ type: "Basic", results: [], segments }, line],
    [{ type: "WholeSlideDifferential", ...differential }, ring],
    [{ type: "SemiQuantitativeDifferential", points: [point], scores: {} }, ring],
    [{
      type: "AreaDifferential",
      regions: [{ region, weight: 1, score: 1, points: [point] }],
      scores: {},
      positivity_threshold: 0,
    }, ring + line],
    [{
      type: "RegionCounting",
      objects: [{ x: 4, y: 4, width: 12, height: 12 }],
      regions: [region],
    }, line + 5 * 5 - 1],
    [{
      type: "TumorCellularity",
      threshold_map: { t: { tumor_cellularity: 1, counts: [], region, area: 1 } },
      other_segments: {
        s: [{
          ...segments[0]!,
          feature_collection: {
            ...collection,
            features: [featureOf({ type: "Point", coordinates: [20, 20] })],
          },
        }],
      },
    }, line + ring],
  ];
  for (const [report, red] of cases) {
    assert.equal(countRed(drawFindings(blank(24, 24), SCALE, reportOf(report))), red, report.type);
  }
});

Deno.test("drawFindings() clips what lies outside and leaves out what is not finite", () => {
  const far = 1e300;
  const outside = resultsOf(
    featureOf({ type: "MultiPoint", coordinates: [[-100, 4], [4, far], [NaN, 4], [4, -Infinity]] }),
    featureOf({ type: "LineString", coordinates: [[-100, -50], [100, -50], [far, -far]] }),
    featureOf({ type: "LineString", coordinates: [[NaN, 4], [40, 4], [Infinity, 4], [4, NaN]] }),
    featureOf({ type: "Polygon", coordinates: [] }),
    featureOf({ type: "GeometryCollection", geometries: [] }),
  );
  assert.equal(countRed(drawFindings(blank(10, 10), SCALE, outside)), 0);

  const across = featureOf({ type: "LineString", coordinates: [[-1e12, 20], [1e12, 20]] });
  assert.equal(countRed(drawFindings(blank(10, 10), SCALE, resultsOf(across))), 20);
  const slanted = featureOf({ type: "LineString", coordinates: [[-4e6, -4e6], [4e6, 4e6]] });
  const rows = show(drawFindings(blank(10, 10), SCALE, resultsOf(slanted)));
  for (let k = 0; k < 10; k++) assert.equal(rows[k]![k], "#");

  const corners = featureOf({ type: "MultiPoint", coordinates: [[0, 0], [39, 39], [-4, 20]] });
  assert.deepEqual(show(drawFindings(blank(10, 10), SCALE, resultsOf(corners))), [
    "##........",
    "#.........",
    "..........",
    "..........",
    "..........",
    "#.........",
    "..........",
    "..........",
    ".........#",
    "........##",
  ]);
});

Deno.test("drawFindings() draws a hundred thousand features", () => {
  const features = Array.from(
    { length: 100_000 },
    (_, k) => boxFeature({ x0Px: k % 300, y0Px: k % 211, widthPx: 8, heightPx: 8 }, "t"),
  );
  const drawn = drawFindings(blank(100, 100), SCALE, resultsOf(...features.slice(0, 10)));
  const all = { scanResults: [{ scanId: "1", geojson: featureCollection(features) }] };
  assert.ok(countRed(drawFindings(blank(100, 100), SCALE, all)) > countRed(drawn));
});

Deno.test("renderOverlay() gives a PNG of the drawn picture", async () => {
  const results = resultsOf(boxFeature({ x0Px: 8, y0Px: 8, widthPx: 20, heightPx: 12 }, "t"));
  const picture = blank(33, 17);
  const png = await renderOverlay(picture, SCALE, results);
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
  assert.deepEqual([info.width, info.height, info.channels], [33, 17, 3]);
  assert.deepEqual(new Uint8Array(data), drawFindings(picture, SCALE, results).data);
});

Deno.test("renderOverlay() rejects a scale or a picture that makes no sense", async () => {
  const results = resultsOf();
  for (const scale of [0, -1, NaN, Infinity]) {
    await assert.rejects(renderOverlay(blank(4, 4), scale, results), RangeError);
  }
  const torn = { ...blank(4, 4), heightPx: 5 };
  await assert.rejects(renderOverlay(torn, 1, results), RangeError);
});
