import assert from "node:assert/strict";
import { type Findings, resultsOf, type SlideFacts } from "../../src/classifier/onnx_findings.ts";
import { parseSidecar, type Sidecar } from "../../src/classifier/sidecar.ts";
import type { Outline } from "../../src/results/geojson.ts";
import { checkResults, type Report } from "../../src/results/schema.ts";

const square = (x: number, side: number): Outline => [
  [[x, 0], [x, side], [x + side, side], [x + side, 0], [x, 0]],
];
const FACTS: SlideFacts = {
  scanId: "7",
  tissueAreaMm2: 2,
  tissue: [square(0, 100)],
  slide: square(0, 300),
};

const OF_OBJECTS = new Set([
  "WholeSlideDifferential",
  "SemiQuantitativeDifferential",
  "RegionCounting",
  "AiMitosisCounting",
]);

function sidecar(type: string, positive?: string[]): Sidecar {
  return parseSidecar(
    JSON.stringify({
      name: "model",
      provider: "maker",
      ruo: false,
      input: { mpp: 1, tile: 64 },
      // Each report is one that the output's kind can have.
      output: OF_OBJECTS.has(type) ? { kind: "heatmap" } : { kind: "classes" },
      classes: [
        { name: "background", ignore: true },
        { name: "tumor cell", color: "#010203" },
        { name: "stroma" },
      ],
      report: { type, ...(positive ? { positive } : {}) },
      tissue_annotation_type: "tissue",
    }),
    "model.json",
  );
}

const AREAS: Findings = {
  features: [],
  areasMm2: [0.7, 0.5, 0.8],
  outlines: [[square(0, 9)], [square(0, 10), square(50, 10)], []],
  thresholds: [0.25, 0.25, 0.25],
};
const box = (x: number) => ({ x, y: 10, width: 6, height: 4 });
const OBJECTS: Findings = {
  features: [],
  objects: [
    { box: box(1), score: 0.91234, of: 1 },
    { box: box(30), score: 1.5, of: 2 },
    { box: box(60), score: 0.5, of: 1 },
  ],
  thresholds: [0.5, 0.5, 0.5],
};

/** The report of a valid document. */
function reportOf<T extends Report["type"]>(findings: Findings, type: T, positive?: string[]) {
  const results = resultsOf(findings, sidecar(type, positive), FACTS);
  checkResults(results);
  const { workflow, geojson } = results.scanResults[0]!;
  assert.deepEqual(
    geojson!.features.map(({ properties }) => properties.annotation_type),
    ["tissue"],
  );
  assert.deepEqual([workflow!.model_name, workflow!.provider, workflow!.ruo], [
    "model",
    "maker",
    false,
  ]);
  assert.equal(workflow!.report.type, type);
  return workflow!.report as Extract<Report, { type: unknown }> & { type: T };
}

Deno.test("resultsOf() gives numbers of the case, and no report where none is wanted", () => {
  const none = resultsOf(AREAS, sidecar("none"), FACTS);
  checkResults(none);
  assert.equal(none.scanResults[0]!.workflow, undefined);
  assert.deepEqual(none.caseResults, {
    tumorCellAreaMm2: 0.5,
    stromaAreaMm2: 0.8,
    tissueAreaMm2: 2,
  });
  assert.deepEqual(resultsOf(OBJECTS, sidecar("none"), FACTS).caseResults, {
    tumorCellCount: 2,
    tumorCellPerMm2: 1,
    stromaCount: 1,
    stromaPerMm2: 0.5,
    tissueAreaMm2: 2,
  });
});

Deno.test("resultsOf() reports areas in every type, as the schema wants them", () => {
  const basic = reportOf(AREAS, "Basic");
  assert.deepEqual(basic.results, [
    { name: "tumor cell", result: "0.5 mm²" },
    { name: "stroma", result: "0.8 mm²" },
  ]);
  const [segment, ...others] = basic.segments;
  assert.deepEqual(others, []);
  assert.deepEqual(segment!.feature_collection.features[0]!.properties, {
    name: "tumor cell",
    color: "#010203",
  });
  const differential = reportOf(AREAS, "AreaDifferential");
  assert.deepEqual(differential.scores, { "tumor cell": 0.25, stroma: 0.4 });
  assert.deepEqual(differential.regions.map(({ score }) => score), [0.25]);
  assert.equal(differential.positivity_threshold, 0.25);
  for (const type of ["WholeSlideDifferential", "SemiQuantitativeDifferential"] as const) {
    assert.deepEqual(reportOf(AREAS, type).scores, { "tumor cell": 0.25, stroma: 0.4 });
  }
  const { threshold_map } = reportOf(AREAS, "TumorCellularity", ["tumor cell"]);
  const [name, of] = Object.entries(threshold_map)[0]!;
  assert.deepEqual([name, of.tumor_cellularity, of.area, of.counts], ["TC 0.25", 0.25, 2, []]);
  assert.deepEqual(reportOf(AREAS, "RegionCounting").objects, []);
});

Deno.test("resultsOf() reports objects in every type, as the schema wants them", () => {
  assert.deepEqual(reportOf(OBJECTS, "Basic").results, [
    { name: "tumor cell", result: "2" },
    { name: "stroma", result: "1" },
  ]);
  for (const type of ["WholeSlideDifferential", "SemiQuantitativeDifferential"] as const) {
    const { points, scores } = reportOf(OBJECTS, type);
    // A score beyond 1 is 1, and a point is its box's middle.
    assert.deepEqual(points[0], { x: 4, y: 12, score: 0.912, type: "tumor cell" });
    assert.equal(points[1]!.score, 1);
    assert.deepEqual(scores, { "tumor cell": 2, stroma: 1 });
  }
  for (const type of ["RegionCounting", "AiMitosisCounting"] as const) {
    assert.deepEqual(reportOf(OBJECTS, type, ["tumor cell"]).objects, [box(1), box(60)]);
    assert.equal(reportOf(OBJECTS, type).objects.length, 3);
    assert.equal(reportOf(OBJECTS, type).regions.length, 1);
  }
  const { threshold_map } = reportOf(OBJECTS, "TumorCellularity", ["tumor cell"]);
  const [of] = Object.values(threshold_map);
  assert.equal(of!.tumor_cellularity, 0.667);
  assert.deepEqual(of!.counts, [{ label: "tumor cell", count: 2 }, { label: "stroma", count: 1 }]);
  assert.deepEqual(reportOf(OBJECTS, "AreaDifferential").regions, []);
});

Deno.test("resultsOf() counts classes that are scales of one thing as that", () => {
  const results = resultsOf(
    { ...OBJECTS, mergedAs: "nucleus" },
    sidecar("TumorCellularity"),
    FACTS,
  );
  checkResults(results);
  assert.deepEqual(results.caseResults, { nucleusCount: 3, nucleusPerMm2: 1.5, tissueAreaMm2: 2 });
});

Deno.test("resultsOf() gives a valid document of a slide on which there is nothing", () => {
  const facts: SlideFacts = { ...FACTS, tissueAreaMm2: 0, tissue: [] };
  const empty: Findings[] = [
    { features: [], areasMm2: [0, 0, 0], outlines: [[], [], []], thresholds: [0, 0, 0] },
    { features: [], objects: [], thresholds: [0.5, 0.5, 0.5] },
  ];
  for (const findings of empty) {
    for (
      const type of [
        "none",
        "Basic",
        "WholeSlideDifferential",
        "AreaDifferential",
        "SemiQuantitativeDifferential",
        "RegionCounting",
        "AiMitosisCounting",
        "TumorCellularity",
      ]
    ) {
      const results = resultsOf(findings, sidecar(type), facts);
      checkResults(results);
      assert.deepEqual(results.scanResults[0]!.geojson!.features, []);
    }
  }
});
