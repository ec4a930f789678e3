import assert from "node:assert/strict";
import { parseSidecar } from "../../src/classifier/sidecar.ts";
import { ConfigError } from "../../src/errors.ts";

type Json = Record<string, unknown>;

/** A sidecar that is right, with other fields in the places that paths such as "input.mpp" name. */
function sidecar(changes: Json = {}): string {
  const whole: Json = {
    name: "test",
    input: { mpp: 0.5, tile: 64 },
    output: { kind: "classes" },
    classes: [{ name: "a" }, { name: "b" }],
  };
  for (const [path, value] of Object.entries(changes)) {
    const keys = path.split(".");
    const last = keys.pop()!;
    const at = keys.reduce((of, key) => (of[key] ??= {}) as Json, whole);
    at[last] = value;
  }
  return JSON.stringify(whole);
}

Deno.test("parseSidecar() fills in what is left out", () => {
  assert.deepEqual(parseSidecar(sidecar(), "model.json"), {
    name: "test",
    provider: "WGSlide",
    ruo: true,
    input: {
      mpp: 0.5,
      tile: 64,
      overlap: 0,
      layout: "NCHW",
      range: [0, 1],
      mean: [0, 0, 0],
      std: [1, 1, 1],
      channels: "RGB",
      stain: "none",
      batch: "auto",
      tissue: 0.05,
    },
    output: { kind: "classes", activation: "none", contours: [0.5, 0.7, 0.9] },
    classes: [{ name: "a", ignore: false }, { name: "b", ignore: false }],
    report: { type: "none" },
  });
});

const SEGMENTATION = { kind: "segmentation" };
const HEATMAP = { kind: "heatmap" };
const BOXES = { kind: "boxes", format: "yolov8" };

/** What is wrong, and how it is said. */
const FLAWS: readonly [changes: Json, message: RegExp][] = [
  [{ name: "" }, /name must not be empty/],
  [{ name: undefined }, /name is missing/],
  [{ provider: "" }, /provider must not be empty/],
  [{ ruo: 1 }, /ruo must be true or false/],
  [{ colour: "red" }, /colour is no field that there is/],
  [{ input: undefined }, /input is missing/],
  [{ input: 3 }, /input must be an object/],
  [{ "input.mpp": 0 }, /input\.mpp must be at least 0\.02/],
  [{ "input.mpp": "0.5" }, /input\.mpp must be a number/],
  [{ "input.mpp": 30 }, /input\.mpp must be at most 25/],
  [{ "input.tile": 7 }, /input\.tile must be at least 8/],
  [{ "input.tile": 64.5 }, /input\.tile must be a whole number/],
  [{ "input.tile": 10000 }, /input\.tile must be at most 8192/],
  [{ "input.overlap": 3 }, /input\.overlap must be even/],
  [{ "input.overlap": -2 }, /input\.overlap must be at least 0/],
  [{ "input.overlap": 34 }, /input\.overlap must be at most half a tile/],
  [{ "input.layout": "NCWH" }, /input\.layout must be NCHW or NHWC/],
  [{ "input.range": [0] }, /input\.range\.1 is missing/],
  [{ "input.range": 1 }, /input\.range must be two numbers/],
  [{ "input.mean": [0, 0] }, /input\.mean\.2 is missing/],
  [{ "input.std": [1, 0, 1] }, /input\.std\.1 must be at least/],
  [{ "input.channels": "GBR" }, /input\.channels must be RGB or BGR/],
  [{ "input.stain": "vahadane" }, /input\.stain must be none or reinhard or macenko/],
  [{ "input.batch": "many" }, /input\.batch must be "auto" or a whole number/],
  [{ "input.batch": 0 }, /input\.batch must be/],
  [{ "input.tissue": 2 }, /input\.tissue must be at most 1/],
  [{ "input.mpp2": 1 }, /input\.mpp2 is no field that there is/],
  [{ output: undefined }, /output is missing/],
  [{ "output.kind": "points" }, /output\.kind must be classes, segmentation, heatmap or boxes/],
  [{ "output.activation": "relu" }, /output\.activation must be none or softmax or sigmoid/],
  [{ "output.contours": [] }, /output\.contours must not be empty/],
  [{ "output.contours": [2] }, /output\.contours\.0 must be at most 1/],
  [{ "output.iou": 0.5 }, /output\.iou is no field that there is/],
  [{ output: { ...SEGMENTATION, map_mpp: 0 } }, /output\.map_mpp must be at least/],
  [
    { output: { ...SEGMENTATION, least_area_um2: -1 } },
    /output\.least_area_um2 must be at least 0/,
  ],
  [{ output: { ...SEGMENTATION, tissue_only: "no" } }, /output\.tissue_only must be true or false/],
  [{ output: { ...HEATMAP, suppression: 0 } }, /output\.suppression must be at least/],
  [{ output: { ...HEATMAP, peak_radius: 0 } }, /output\.peak_radius must be at least 1/],
  [{ output: { ...HEATMAP, peak_radius: 33 } }, /output\.peak_radius must be at most 32/],
  [{ output: { ...HEATMAP, compete: 0 } }, /output\.compete must be true or false/],
  [{ output: { ...HEATMAP, adaptive: {} } }, /output\.adaptive\.factor is missing/],
  [{ output: { ...HEATMAP, merge_as: "" } }, /output\.merge_as must not be empty/],
  [{ output: { kind: "boxes" } }, /output\.format is missing/],
  [
    { output: { ...BOXES, format: "yolov1" } },
    /output\.format must be yolov8 or yolov5 or decoded/,
  ],
  [{ output: { ...BOXES, scores: "s" } }, /output must name the scores' output for decoded/],
  [{ output: { ...BOXES, format: "decoded" } }, /output must name the scores' output for decoded/],
  [{ output: { ...BOXES, activation: "softmax" } }, /output\.activation must be none or sigmoid/],
  [{ output: { ...BOXES, box: "xywh" } }, /output\.box must be cxcywh or xyxy/],
  [{ output: { ...BOXES, relative: "yes" } }, /output\.relative must be true or false/],
  [{ output: { ...BOXES, iou: 1.5 } }, /output\.iou must be at most 1/],
  [{ classes: [] }, /classes must not be empty/],
  [{ classes: {} }, /classes must be a list/],
  [{ classes: [{ name: "a" }, { name: "a" }] }, /classes has a name twice/],
  [{ classes: [{ name: "a", ignore: true }] }, /classes are all ignored/],
  [{ classes: [{}] }, /classes\.0\.name is missing/],
  [{ classes: [{ name: "a", color: "red" }] }, /classes\.0\.color must be a colour, #rrggbb/],
  [
    { classes: [{ name: "a", annotation_type: "" }] },
    /classes\.0\.annotation_type must not be empty/,
  ],
  [{ classes: [{ name: "a", threshold: "x" }] }, /classes\.0\.threshold must be a number/],
  [{ classes: [{ name: "a", ignore: 1 }] }, /classes\.0\.ignore must be true or false/],
  [{ classes: [{ name: "a", radius_um: 0 }] }, /classes\.0\.radius_um must be at least/],
  [
    { classes: Array.from({ length: 256 }, (_, i) => ({ name: `${i}` })) },
    /classes must be at most 255/,
  ],
  [{ report: { type: "Advanced" } }, /report\.type must be none or Basic or /],
  [
    { report: { type: "Basic", positive: ["c"] } },
    /report\.positive names a class that is not there/,
  ],
  [{ tissue_annotation_type: "" }, /tissue_annotation_type must not be empty/],
];

Deno.test("parseSidecar() refuses what is wrong in every field, by its place", () => {
  for (const [changes, message] of FLAWS) {
    assert.throws(
      () => parseSidecar(sidecar(changes), "the model.json"),
      (error: unknown) =>
        error instanceof ConfigError && error.variable === "MODEL" &&
        error.message.startsWith('Cannot use "the model.json": ') && message.test(error.message),
      `${JSON.stringify(changes)}: ${message}`,
    );
  }
});

Deno.test("parseSidecar() names all that is wrong at once, and what is no JSON", () => {
  assert.throws(
    () => parseSidecar(sidecar({ "input.mpp": 0, "input.layout": "x", name: 3 }), "model.json"),
    /name must be text; input\.mpp must be .*; input\.layout must be/,
  );
  for (const text of ["", "{", "\u0000"]) {
    assert.throws(
      () => parseSidecar(text, "model.json"),
      /Cannot read "model\.json": it is no JSON/,
    );
  }
  for (const text of ["[]", "null", "3"]) {
    assert.throws(() => parseSidecar(text, "model.json"), ConfigError);
  }
});
