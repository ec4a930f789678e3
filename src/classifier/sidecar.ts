/**
 * `model.json`, the file beside a model: what its pixels are, what its output means, and how findings
 * are reported. Checked when it is read; `model.schema.json` says the same to editors and is made of
 * what stands here.
 */

import * as v from "valibot";
import { ConfigError } from "../errors.ts";

/** A schema with what editors show of it. */
function said<S extends v.GenericSchema>(schema: S, text: string) {
  return v.pipe(schema, v.description(text));
}

/** A number within bounds, which its message names. */
const within = (least: number, most: number) =>
  v.pipe(
    v.number("must be a number"),
    v.minValue(least, `must be at least ${least}`),
    v.maxValue(most, `must be at most ${most}`),
  );
const positive = within(1e-6, 1e9);
const whole = (least: number, most: number) =>
  v.pipe(
    v.number("must be a number"),
    v.integer("must be a whole number"),
    v.minValue(least, `must be at least ${least}`),
    v.maxValue(most, `must be at most ${most}`),
  );
const fraction = within(0, 1);
const finite = v.pipe(v.number("must be a number"), v.finite("must be finite"));
const three = v.tuple([finite, finite, finite], "must be three numbers");
const text = v.pipe(v.string("must be text"), v.nonEmpty("must not be empty"));
const flag = v.boolean("must be true or false");

function oneOf<const T extends readonly string[]>(...options: T) {
  return v.picklist(options, `must be ${options.join(" or ")}`);
}

const input = v.strictObject({
  mpp: said(within(0.02, 25), "Micrometres per pixel that the model was trained at."),
  tile: said(whole(8, 8192), "Side of a tile in model pixels, overlaps included."),
  overlap: v.optional(
    said(
      v.pipe(whole(0, 4096), v.multipleOf(2, "must be even")),
      "Pixels that a tile shares with the next one, on each axis: an even number, at most half a tile.",
    ),
    0,
  ),
  layout: v.optional(
    said(oneOf("NCHW", "NHWC"), "NCHW as PyTorch has it, or NHWC."),
    "NCHW",
  ),
  range: v.optional(
    said(
      v.tuple([finite, finite], "must be two numbers"),
      "What a byte of 0 and of 255 becomes, before mean and std.",
    ),
    [0, 1],
  ),
  mean: v.optional(said(three, "Taken off each channel, in the model's order."), [0, 0, 0]),
  std: v.optional(
    said(
      v.tuple([positive, positive, positive], "must be three numbers"),
      "What each channel is divided by, in the model's order.",
    ),
    [1, 1, 1],
  ),
  channels: v.optional(said(oneOf("RGB", "BGR"), "Order of the channels."), "RGB"),
  stain: v.optional(
    said(
      oneOf("none", "reinhard", "macenko"),
      "Stain normalisation, estimated over the slide's tissue, before all else.",
    ),
    "none",
  ),
  batch: v.optional(
    said(
      v.union([v.literal("auto"), whole(1, 1024)], 'must be "auto" or a whole number to 1024'),
      "Tiles in one run; auto takes 64 of 256 px on a GPU, fewer of larger ones.",
    ),
    "auto",
  ),
  tissue: v.optional(
    said(fraction, "Least part of a tile's core that has to be tissue for the tile to be run."),
    0.05,
  ),
}, "must be an object");

const modelClass = v.strictObject({
  name: said(text, "What the results call it."),
  color: v.optional(
    said(
      v.pipe(v.string("must be text"), v.regex(/^#[0-9a-fA-F]{6}$/, "must be a colour, #rrggbb")),
      "Its colour on the slide, #rrggbb.",
    ),
  ),
  annotation_type: v.optional(
    said(text, "What Techcyte calls the finding; left out, only the class's numbers are reported."),
  ),
  threshold: v.optional(
    said(
      finite,
      "Least probability or score. Default: 0.5 of classes and heat maps, 0.25 of boxes, 0 of segmentations, where the largest wins.",
    ),
  ),
  ignore: v.optional(said(flag, "Neither reported nor drawn: background, glass."), false),
  radius_um: v.optional(
    said(positive, "Radius in µm of a point's neighbourhood, within which the better of two wins."),
  ),
}, "must be an object");

const activation = v.optional(
  said(
    oneOf("none", "softmax", "sigmoid"),
    "How scores become probabilities; none where the model does it.",
  ),
  "none",
);
const outputName = v.optional(
  said(text, "The output's name; the model's first output where it is left out."),
);
const tissueOnly = v.optional(
  said(flag, "Only in the tissue that the slide's overview shows."),
  true,
);

const output = v.variant("kind", [
  v.strictObject({
    kind: said(v.literal("classes"), "[N, K]: a probability per class for a tile."),
    name: outputName,
    activation,
    contours: v.optional(
      said(
        v.pipe(v.array(fraction), v.nonEmpty("must not be empty")),
        "Probabilities at which the heat map has contours.",
      ),
      [0.5, 0.7, 0.9],
    ),
  }),
  v.strictObject({
    kind: said(
      v.literal("segmentation"),
      "[N, K, h, w]: a probability per class and pixel; or [N, h, w]: a class's number.",
    ),
    name: outputName,
    activation,
    map_mpp: v.optional(
      said(
        positive,
        "Micrometres per pixel of the map that polygons are drawn from; default 2, or the output's where coarser.",
      ),
    ),
    least_area_um2: v.optional(
      said(
        v.pipe(finite, v.minValue(0, "must be at least 0")),
        "Pieces and holes smaller than this are not drawn, µm².",
      ),
      0,
    ),
    tissue_only: tissueOnly,
  }),
  v.strictObject({
    kind: said(
      v.literal("heatmap"),
      "[N, K, h, w]: a score per class and pixel, of which each maximum is a finding.",
    ),
    name: outputName,
    activation,
    suppression: v.optional(
      said(positive, "Of two points nearer than this part of the better one's radius, one goes."),
      0.8,
    ),
    peak_radius: v.optional(
      said(whole(1, 32), "Pixels of the map within which a maximum has to be the largest."),
      2,
    ),
    compete: v.optional(
      said(flag, "All classes compete for a place; where false each by itself."),
      true,
    ),
    adaptive: v.optional(
      said(
        v.strictObject({ factor: positive, quantile: fraction }),
        "A threshold that follows the slide: factor times the score that `quantile` of all candidates stay below, at most of 1; classes' thresholds are the least that it becomes.",
      ),
    ),
    merge_as: v.optional(
      said(text, "What points are called where classes only compete, as scales of one thing do."),
    ),
    tissue_only: tissueOnly,
  }),
  v.strictObject({
    kind: said(v.literal("boxes"), "Detections, as a YOLO gives them or decoded."),
    format: said(
      oneOf("yolov8", "yolov5", "decoded"),
      "yolov8: [N, 4 + K, A]; yolov5: [N, A, 5 + K]; decoded: boxes [N, A, 4] and scores [N, A, K].",
    ),
    name: outputName,
    scores: v.optional(said(text, "Name of the scores' output; decoded only.")),
    activation: v.optional(
      said(
        oneOf("none", "sigmoid"),
        "How scores become probabilities; none where the model does it.",
      ),
      "none",
    ),
    box: v.optional(
      said(oneOf("cxcywh", "xyxy"), "cxcywh: centre and size; xyxy: corners."),
      "cxcywh",
    ),
    relative: v.optional(said(flag, "In parts of the tile instead of model pixels."), false),
    iou: v.optional(
      said(
        fraction,
        "Intersection over union above which the worse of two boxes of one class goes.",
      ),
      0.5,
    ),
  }),
], "must be classes, segmentation, heatmap or boxes");

const report = v.strictObject({
  type: said(
    oneOf(
      "none",
      "Basic",
      "WholeSlideDifferential",
      "AreaDifferential",
      "SemiQuantitativeDifferential",
      "RegionCounting",
      "AiMitosisCounting",
      "TumorCellularity",
    ),
    "Techcyte's report type, or none.",
  ),
  positive: v.optional(
    said(
      v.array(text),
      "Names of classes that count as positive; all that are not ignored where it is left out.",
    ),
  ),
}, "must be an object");

/** What an output has that a report can be made of: areas with outlines, or objects with places. */
const REPORTS_OF_AREAS = ["none", "Basic", "AreaDifferential", "TumorCellularity"];
const REPORTS_OF_OBJECTS = [
  "none",
  "Basic",
  "WholeSlideDifferential",
  "SemiQuantitativeDifferential",
  "RegionCounting",
  "AiMitosisCounting",
  "TumorCellularity",
];

/** The schema; `model.schema.json` is made of it. */
export const sidecarSchema = v.pipe(
  v.strictObject({
    $schema: v.optional(said(v.string(), "Where editors find this schema.")),
    name: said(text, "What the platform shows as the model's name."),
    provider: v.optional(said(text, "What the platform shows as its maker."), "WGSlide"),
    ruo: v.optional(said(flag, "For research use only."), true),
    input: said(input, "What the model is given."),
    output: said(output, "What the model's output means."),
    classes: said(
      v.pipe(
        v.array(modelClass, "must be a list"),
        v.nonEmpty("must not be empty"),
        v.maxLength(255, "must be at most 255"),
      ),
      "The classes by the number that the model gives them.",
    ),
    report: v.optional(said(report, "How findings are reported beside the features."), {
      type: "none",
    }),
    tissue_annotation_type: v.optional(
      said(text, "Draws the tissue's outline under this name."),
    ),
  }, "must be an object"),
  v.forward(
    v.check(({ input: { tile, overlap } }) => 2 * overlap <= tile, "must be at most half a tile"),
    ["input", "overlap"],
  ),
  v.forward(
    v.check(
      ({ classes }) => new Set(classes.map(({ name }) => name)).size === classes.length,
      "has a name twice",
    ),
    ["classes"],
  ),
  v.forward(
    v.check(({ classes }) => classes.some(({ ignore }) => !ignore), "are all ignored"),
    ["classes"],
  ),
  v.forward(
    v.check(
      ({ classes, report: { positive } }) =>
        positive === undefined ||
        positive.every((name) => classes.some((each) => each.name === name)),
      "names a class that is not there",
    ),
    ["report", "positive"],
  ),
  v.forward(
    v.check(
      ({ output: { kind }, report: { type } }) =>
        (kind === "classes" || kind === "segmentation" ? REPORTS_OF_AREAS : REPORTS_OF_OBJECTS)
          .includes(type),
      "must be Basic, AreaDifferential, TumorCellularity or none for classes and segmentations, and " +
        "any but AreaDifferential for heat maps and boxes",
    ),
    ["report", "type"],
  ),
  v.forward(
    v.check(
      ({ output }) =>
        output.kind !== "boxes" || (output.format === "decoded") === (output.scores !== undefined),
      "must name the scores' output for decoded boxes, and for those only",
    ),
    ["output"],
  ),
);

/** The checked file, defaults filled in. */
export type Sidecar = v.InferOutput<typeof sidecarSchema>;
export type ModelClass = Sidecar["classes"][number];
export type OutputOf<K extends Sidecar["output"]["kind"]> = Extract<Sidecar["output"], { kind: K }>;

/**
 * Checks a sidecar's text.
 * @param path what errors call it.
 * @throws {ConfigError} that names every field that is wrong.
 */
export function parseSidecar(json: string, path: string): Sidecar {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (cause) {
    throw new ConfigError(
      `Cannot read "${path}": it is no JSON: ${(cause as Error).message}`,
      "MODEL",
      { cause },
    );
  }
  const checked = v.safeParse(sidecarSchema, parsed);
  if (checked.success) return checked.output;
  const flaws = checked.issues.map((issue) => {
    const at = issue.path?.map(({ key }) => String(key)).join(".") ?? "";
    // Valibot's own words of keys that are missing or not known are quotes of its types.
    const what = issue.kind === "schema" && issue.expected === "never"
      ? "is no field that there is"
      : issue.received === "undefined"
      ? "is missing"
      : issue.message;
    return at === "" ? what : `${at} ${what}`;
  });
  throw new ConfigError(`Cannot use "${path}": ${flaws.join("; ")}`, "MODEL");
}
