import assert from "node:assert/strict";
import { ResultsError } from "../../src/errors.ts";
import {
  checkResults,
  type Report,
  type Results,
  serializeResults,
} from "../../src/results/schema.ts";

const ring = [[0, 0], [0, 9], [9, 9], [9, 0], [0, 0]];
const polygon = { type: "Polygon", coordinates: [ring] };
const region = { type: "Feature", geometry: polygon, properties: { name: "Region A" } };
const segment = {
  name: "Tumor",
  result: "80 %",
  feature_collection: { type: "FeatureCollection", features: [region] },
};
const points = [{ x: 1, y: 2, score: 0.5, type: "tumor" }];

/** One valid report of each type, mutable. */
const reports = {
  Basic: {
    type: "Basic",
    results: [{ name: "Result", result: "Benign" }],
    segments: [segment],
  },
  WholeSlideDifferential: {
    type: "WholeSlideDifferential",
    points,
    scores: { proliferation_score: 0.13 },
    positivity_threshold: 0.4,
  },
  AreaDifferential: {
    type: "AreaDifferential",
    regions: [{ region, weight: 0.05, score: 0.2, points }],
    scores: {},
    positivity_threshold: 0.4,
  },
  SemiQuantitativeDifferential: {
    type: "SemiQuantitativeDifferential",
    points,
    scores: { h: 200 },
  },
  RegionCounting: {
    type: "RegionCounting",
    objects: [{ x: 1, y: 2, width: 3, height: 4 }],
    regions: [region],
  },
  AiMitosisCounting: { type: "AiMitosisCounting", objects: [], regions: [] },
  TumorCellularity: {
    type: "TumorCellularity",
    threshold_map: {
      "TC 0.40": {
        tumor_cellularity: 0.4,
        counts: [{ label: "cancer", count: 12000 }],
        region,
        area: 45.5,
        distributions: { cellularity: [{ label: "0 - 0.25", fraction: 0.1, area: 4.55 }] },
      },
      "TC 0.50": { tumor_cellularity: 0.5, counts: [], region, area: 3, distributions: null },
    },
    other_segments: { "Tissue QC": [segment] },
  },
};

const feature = (geometry: unknown = polygon, properties: unknown = { annotation_type: "t" }) => ({
  type: "Feature",
  bbox: [0, 0, 9, 9],
  geometry,
  properties,
});

/** A document of one scan with these keys. */
const document = (scan: Record<string, unknown> = {}) => ({
  caseResults: { mitosisCount: 4 },
  scanResults: [{ scanId: "8615687", ...scan }],
});
const withFeatures = (...features: unknown[]) =>
  document({ geojson: { type: "FeatureCollection", features } });
const withReport = (report: unknown) =>
  document({ workflow: { model_name: "m", provider: "p", ruo: true, report } });

function refused(value: unknown, path: string, message: RegExp): void {
  assert.throws(() => checkResults(value), (error) => {
    assert.ok(error instanceof ResultsError, String(error));
    assert.equal(error.path, path);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("checkResults() returns the document that it was given", () => {
  const given = withFeatures(feature());
  assert.equal(checkResults(given), given);
});

for (const [type, report] of Object.entries(reports)) {
  Deno.test(`checkResults() takes a ${type} report`, () => {
    checkResults(withReport(report));
  });
}

Deno.test("checkResults() takes every key of a scan", () => {
  checkResults(document({
    geojson: { type: "FeatureCollection", features: [] },
    results: { external_url: "https://example.org", summary: "four", anything: [1, { b: null }] },
    qcFailReasons: ["blurry"],
    workflow: {
      model_name: "m",
      provider: "p",
      ruo: false,
      key: "Score",
      value: "4",
      report: reports.Basic,
    },
  }));
  checkResults(document({ qcFailReasons: null }));
  checkResults(document({ qcFailReasons: [] }));
  checkResults({ scanResults: [{ scanId: "test_scan" }] });
});

Deno.test("checkResults() lets keys pass that it does not know", () => {
  checkResults({ ...document({ later: { version: 2 } }), more: [1] });
  refused({ ...document(), more: [NaN] }, "more[0]", /must be finite, not NaN/);
});

const collection = { type: "GeometryCollection", geometries: [polygon, polygon] };
for (
  const geometry of [
    { type: "Point", coordinates: [1, 2] },
    { type: "MultiPoint", coordinates: [[1, 2], [3, 4]] },
    { type: "LineString", coordinates: [[1, 2], [3, 4]] },
    { type: "MultiLineString", coordinates: [[[1, 2], [3, 4]]] },
    polygon,
    { type: "MultiPolygon", coordinates: [[ring], [ring]] },
    collection,
  ]
) {
  Deno.test(`checkResults() takes a ${geometry.type}`, () => {
    checkResults(withFeatures(feature(geometry)));
  });
}

const at = "scanResults[0].geojson.features[1]";
const broken: { name: string; feature: unknown; path: string; message: RegExp }[] = [
  {
    name: "a feature without annotation_type",
    feature: feature(polygon, {}),
    path: `${at}.properties.annotation_type`,
    message:
      /^Cannot accept the results: scanResults\[0\]\.geojson\.features\[1\]\.properties\.annotation_type is missing$/,
  },
  {
    name: "an annotation_type that is a number",
    feature: feature(polygon, { annotation_type: 5 }),
    path: `${at}.properties.annotation_type`,
    message: /annotation_type must be a string, not a number$/,
  },
  {
    name: "a feature without bbox",
    feature: { ...feature(), bbox: undefined },
    path: `${at}.bbox`,
    message: /bbox must be 4 numbers, \[left, top, right, bottom\]$/,
  },
  {
    name: "a bbox of three numbers",
    feature: { ...feature(), bbox: [1, 2, 3] },
    path: `${at}.bbox`,
    message: /must be 4 numbers/,
  },
  {
    name: "a bbox with NaN",
    feature: { ...feature(), bbox: [1, 2, NaN, 4] },
    path: `${at}.bbox[2]`,
    message: /must be finite/,
  },
  {
    name: "a bbox upside down",
    feature: { ...feature(), bbox: [1, 4, 3, 2] },
    path: `${at}.bbox`,
    message: /top ≤ bottom/,
  },
  {
    name: "an infinite coordinate",
    feature: feature({ type: "MultiPoint", coordinates: [[1, 2], [3, Infinity]] }),
    path: `${at}.geometry.coordinates[1][1]`,
    message: /must be a finite number, not Infinity/,
  },
  {
    name: "a coordinate that is text",
    feature: feature({ type: "Point", coordinates: ["1", 2] }),
    path: `${at}.geometry.coordinates[0]`,
    message: /must be a finite number, not a string/,
  },
  {
    name: "a hole in an array of positions",
    feature: feature({ type: "MultiPoint", coordinates: new Array(2) }),
    path: `${at}.geometry.coordinates[0]`,
    message: /must be a position/,
  },
  {
    name: "a ring that is not closed",
    feature: feature({ type: "Polygon", coordinates: [ring, [[0, 0], [0, 1], [1, 1], [1, 0]]] }),
    path: `${at}.geometry.coordinates[1]`,
    message: /must be a closed ring of at least 4 positions/,
  },
  {
    name: "a polygon without rings",
    feature: feature({ type: "Polygon", coordinates: [] }),
    path: `${at}.geometry.coordinates`,
    message: /at least 1/,
  },
  {
    name: "an unknown geometry",
    feature: feature({ type: "Circle", coordinates: [1, 2] }),
    path: `${at}.geometry.type`,
    message: /must be one of "Point", .*"GeometryCollection", not "Circle"/,
  },
  {
    name: "a collection with a broken geometry",
    feature: feature({ ...collection, geometries: [polygon, { type: "Point" }] }),
    path: `${at}.geometry.geometries[1].coordinates`,
    message: /is missing/,
  },
  {
    name: "a heat map with too few colours",
    feature: feature(collection, { annotation_type: "heat", contour_colors: ["#aa0000"] }),
    path: `${at}.properties.contour_colors`,
    message: /must have one colour for each contour/,
  },
  {
    name: "a heat map with a colour's name",
    feature: feature(collection, { annotation_type: "heat", contour_colors: ["#aa0000", "red"] }),
    path: `${at}.properties.contour_colors[1]`,
    message: /must be a colour, #rrggbb/,
  },
];
for (const { name, feature: wrong, path, message } of broken) {
  Deno.test(`checkResults() refuses ${name}`, () => {
    refused(withFeatures(feature(), wrong), path, message);
  });
}

Deno.test("checkResults() names the path of the platform's example", () => {
  const features = [feature(), feature(), feature(), feature(polygon, { annotation_type: null })];
  refused(
    withFeatures(...features),
    "scanResults[0].geojson.features[3].properties.annotation_type",
    /must be a string, not null/,
  );
});

const documents: { name: string; value: unknown; path: string; message: RegExp }[] = [
  { name: "no document", value: undefined, path: "", message: /: the document is missing$/ },
  { name: "text", value: "{}", path: "", message: /the document must be an object, not a string/ },
  { name: "no scanResults", value: {}, path: "scanResults", message: /is missing/ },
  {
    name: "no scan",
    value: { scanResults: [] },
    path: "scanResults",
    message: /at least one scan/,
  },
  {
    name: "a scanId that is a number",
    value: { scanResults: [{ scanId: 8615687 }] },
    path: "scanResults[0].scanId",
    message: /must be a string, not a number/,
  },
  {
    name: "an empty scanId",
    value: { scanResults: [{ scanId: "" }] },
    path: "scanResults[0].scanId",
    message: /must not be empty/,
  },
  {
    name: "a summary that is no string",
    value: document({ results: { summary: 4 } }),
    path: "scanResults[0].results.summary",
    message: /must be a string, not a number/,
  },
  {
    name: "a QC reason that is no string",
    value: document({ qcFailReasons: ["blurry", 1] }),
    path: "scanResults[0].qcFailReasons[1]",
    message: /must be a string/,
  },
  {
    name: "NaN deep in free-form results",
    value: { ...document(), caseResults: { "by region": [{ count: NaN }] } },
    path: 'caseResults["by region"][0].count',
    message: /must be finite, not NaN/,
  },
  {
    name: "a Map",
    value: { ...document(), caseResults: { counts: new Map() } },
    path: "caseResults.counts",
    message: /must be JSON, not a Map/,
  },
  {
    name: "a bigint",
    value: { ...document(), caseResults: { count: 4n } },
    path: "caseResults.count",
    message: /must be JSON, not a bigint/,
  },
  {
    name: "an unknown report",
    value: withReport({ ...reports.Basic, type: "Basik" }),
    path: "scanResults[0].workflow.report.type",
    message: /must be one of "Basic", .*"TumorCellularity", not "Basik"/,
  },
  {
    name: "a workflow without ruo",
    value: document({ workflow: { model_name: "m", provider: "p", report: reports.Basic } }),
    path: "scanResults[0].workflow.ruo",
    message: /is missing/,
  },
];
for (const { name, value, path, message } of documents) {
  Deno.test(`checkResults() refuses ${name}`, () => refused(value, path, message));
}

const inReports: { report: keyof typeof reports; key: string; value: unknown; at: string }[] = [
  { report: "Basic", key: "results", value: [{ name: "a", result: 4 }], at: "results[0].result" },
  { report: "Basic", key: "segments", value: undefined, at: "segments" },
  {
    report: "WholeSlideDifferential",
    key: "points",
    value: [...points, { ...points[0], score: NaN }],
    at: "points[1].score",
  },
  {
    report: "WholeSlideDifferential",
    key: "points",
    value: [{ ...points[0], type: undefined }],
    at: "points[0].type",
  },
  {
    report: "WholeSlideDifferential",
    key: "points",
    value: [{ ...points[0], area: Infinity }],
    at: "points[0].area",
  },
  {
    report: "WholeSlideDifferential",
    key: "positivity_threshold",
    value: "0.4",
    at: "positivity_threshold",
  },
  { report: "WholeSlideDifferential", key: "scores", value: { a: "b" }, at: "scores.a" },
  {
    report: "AreaDifferential",
    key: "regions",
    value: [{ ...reports.AreaDifferential.regions[0], points: [{}] }],
    at: "regions[0].points[0].x",
  },
  { report: "SemiQuantitativeDifferential", key: "points", value: [null], at: "points[0]" },
  {
    report: "RegionCounting",
    key: "objects",
    value: [{ x: 1, y: 2, width: 3 }],
    at: "objects[0].height",
  },
  {
    report: "AiMitosisCounting",
    key: "regions",
    value: [{ ...region, geometry: undefined }],
    at: "regions[0].geometry",
  },
  {
    report: "TumorCellularity",
    key: "threshold_map",
    value: {
      "TC 0.40": { ...reports.TumorCellularity.threshold_map["TC 0.40"], area: undefined },
    },
    at: 'threshold_map["TC 0.40"].area',
  },
  {
    report: "TumorCellularity",
    key: "other_segments",
    value: { QC: [{ ...segment, name: 1 }] },
    at: "other_segments.QC[0].name",
  },
];
for (const { report, key, value, at } of inReports) {
  Deno.test(`checkResults() refuses a ${report} report with a wrong ${at}`, () => {
    refused(
      withReport({ ...reports[report], [key]: value }),
      `scanResults[0].workflow.report.${at}`,
      / (must be|is missing)/,
    );
  });
}

Deno.test("checkResults() refuses a cycle instead of following it", () => {
  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  assert.throws(
    () => checkResults({ ...document(), caseResults: { cycle } }),
    /is nested too deeply/,
  );
});

Deno.test("checkResults() does not quote what a document holds", () => {
  assert.throws(
    () => checkResults(document({ qcFailReasons: "Jane Doe, born 1950" })),
    (error: Error) => !error.message.includes("Jane"),
  );
});

/** A document whose `points` and features take many pieces. */
function large(count: number): Results {
  const report: Report = {
    type: "WholeSlideDifferential",
    points: Array.from(
      { length: count },
      (_, i) => ({ x: i, y: i / 3, score: 1 / (i + 1), type: 'a "b" \u{1F52C}' }),
    ),
    scores: {},
    positivity_threshold: 0.5,
  };
  return {
    caseResults: { left: undefined, text: "x".repeat(100_000), empty: {}, none: [] },
    scanResults: [{
      scanId: "1",
      geojson: {
        type: "FeatureCollection",
        features: [
          {
            type: "Feature",
            bbox: [0, 0, count, count],
            geometry: {
              type: "MultiPoint",
              coordinates: Array.from({ length: count }, (_, i) => [i, -i / 7] as const),
            },
            properties: { annotation_type: "nucleus" },
          },
          ...Array.from({ length: 50 }, (_, i) => ({
            type: "Feature" as const,
            bbox: [i, 0, i, 0] as const,
            geometry: { type: "Point" as const, coordinates: [i, 0] as const },
            properties: { annotation_type: "t" },
          })),
        ],
      },
      workflow: { model_name: "m", provider: "p", ruo: true, report },
    }],
  };
}

for (const count of [0, 1, 1364, 1365, 1366, 50_000]) {
  Deno.test(`serializeResults() gives JSON.stringify's text of ${count} points`, () => {
    const results = checkResults(large(count));
    const pieces = [...serializeResults(results)];
    assert.ok(pieces.join("") === JSON.stringify(results), "the text differs");
    for (const piece of pieces) assert.ok(piece.length < 300_000, `${piece.length} characters`);
  });
}

Deno.test("serializeResults() gives JSON.stringify's text of every report", () => {
  for (const report of Object.values(reports)) {
    const results = checkResults(withReport(report));
    assert.equal([...serializeResults(results)].join(""), JSON.stringify(results));
  }
});
