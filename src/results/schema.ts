/**
 * The results document that Techcyte takes, and its check before it is written or posted.
 *
 * Source: Techcyte developer documentation, «Posting Results from an External Model»; geometries
 * are GeoJSON (RFC 7946) in level-0 pixels. The platform takes a document whole or not at all, so
 * one wrong feature loses a run: what it would refuse is refused here first, with its place.
 *
 * Keys that are not listed here pass as they are, since the platform may know more than this
 * version does; what no JSON text can say (NaN, undefined in an array, a Map) never passes.
 */

import * as v from "valibot";
import { ResultsError } from "../errors.ts";

/** x and y in level-0 pixels, finite. */
export type Position = readonly [number, number];

/** Left, top, right, bottom in level-0 pixels. */
export type BoundingBox = readonly [number, number, number, number];

/** Positions whose last repeats the first, at least four (RFC 7946 §3.1.6). */
export type Ring = readonly Position[];

/** Free form: anything that JSON can say. */
export type FreeForm = { readonly [key: string]: unknown };

/** Where something is (RFC 7946 §3.1), in level-0 pixels. */
export type Geometry =
  | { readonly type: "Point"; readonly coordinates: Position }
  | { readonly type: "MultiPoint" | "LineString"; readonly coordinates: readonly Position[] }
  | { readonly type: "MultiLineString"; readonly coordinates: readonly (readonly Position[])[] }
  | { readonly type: "Polygon"; readonly coordinates: readonly Ring[] }
  | { readonly type: "MultiPolygon"; readonly coordinates: readonly (readonly Ring[])[] }
  | { readonly type: "GeometryCollection"; readonly geometries: readonly Geometry[] };

/** One annotation, as it lies on the slide. `geojson.ts` builds them. */
export interface Feature {
  readonly type: "Feature";
  /** The platform computes a box for polygons only, so every feature brings its own. */
  readonly bbox: BoundingBox;
  readonly geometry: Geometry;
  /** A heat map, a GeometryCollection, has one hex colour per contour in `contour_colors`. */
  readonly properties: FreeForm & { readonly annotation_type: string };
}

/** All annotations of a scan. */
export interface FeatureCollection {
  readonly type: "FeatureCollection";
  readonly features: readonly Feature[];
}

/** A feature within a report: it needs neither a box nor an annotation type. */
export interface ReportFeature {
  readonly type: "Feature";
  readonly bbox?: BoundingBox;
  readonly geometry: Geometry;
  /** In segments: `name` and `color`. */
  readonly properties?: FreeForm | null;
}

/** The features of a segment. */
export interface ReportFeatureCollection {
  readonly type: "FeatureCollection";
  readonly features: readonly ReportFeature[];
}

/** A cell or object that was found; x and y in level-0 pixels. */
export interface ScoredPoint {
  readonly x: number;
  readonly y: number;
  readonly score: number;
  readonly type: string;
}

/** An object's box: its corner and size in level-0 pixels. */
export interface CountedObject {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** A named set of annotations that the viewer can switch on and off. */
export interface Segment {
  readonly name: string;
  readonly result: string;
  readonly feature_collection: ReportFeatureCollection;
}

/** Named results and segments. */
export interface BasicReport {
  readonly type: "Basic";
  readonly results: readonly { readonly name: string; readonly result: string }[];
  readonly segments: readonly Segment[];
}

/** Scored points over the whole slide. */
export interface WholeSlideDifferentialReport {
  readonly type: "WholeSlideDifferential";
  readonly points: readonly ScoredPoint[];
  readonly scores: Readonly<Record<string, number>>;
  readonly positivity_threshold: number;
}

/** Scored points in weighted regions. */
export interface AreaDifferentialReport {
  readonly type: "AreaDifferential";
  readonly regions: readonly {
    readonly region: ReportFeature;
    readonly weight: number;
    readonly score: number;
    readonly points: readonly ScoredPoint[];
  }[];
  readonly scores: Readonly<Record<string, number>>;
  readonly positivity_threshold: number;
}

/** Points over the whole slide, without a threshold. */
export interface SemiQuantitativeDifferentialReport {
  readonly type: "SemiQuantitativeDifferential";
  readonly points: readonly ScoredPoint[];
  readonly scores: Readonly<Record<string, number>>;
}

/** Boxes counted in regions; AiMitosisCounting is the same for mitotic figures. */
export interface RegionCountingReport {
  readonly type: "RegionCounting" | "AiMitosisCounting";
  readonly objects: readonly CountedObject[];
  readonly regions: readonly ReportFeature[];
}

/** Tumour cellularity at one or more thresholds. */
export interface TumorCellularityReport {
  readonly type: "TumorCellularity";
  /** By a threshold's label, such as "TC 0.40". */
  readonly threshold_map: Readonly<
    Record<string, {
      /** A fraction. */
      readonly tumor_cellularity: number;
      readonly counts: readonly { readonly label: string; readonly count: number }[];
      readonly region: ReportFeature;
      readonly area: number;
      readonly distributions?:
        | Readonly<
          Record<
            string,
            readonly { readonly label: string; readonly fraction: number; readonly area: number }[]
          >
        >
        | null;
    }>
  >;
  /** Further layers by a group's name. */
  readonly other_segments?: Readonly<Record<string, readonly Segment[]>> | null;
}

/** A workflow's report; `type` says which widget shows it. */
export type Report =
  | BasicReport
  | WholeSlideDifferentialReport
  | AreaDifferentialReport
  | SemiQuantitativeDifferentialReport
  | RegionCountingReport
  | TumorCellularityReport;

/** The result of an AI workflow over one scan. */
export interface Workflow {
  readonly model_name: string;
  readonly provider: string;
  /** Research use only. */
  readonly ruo: boolean;
  /** Label of the headline value. */
  readonly key?: string;
  readonly value?: string;
  readonly report: Report;
}

/** What is known of one scan. */
export interface ScanResult {
  /** Numeric text in production; a scan of this task. */
  readonly scanId: string;
  readonly geojson?: FeatureCollection;
  /** Free form but for `summary`, which must be a string; `external_url`, a string, becomes a link. */
  readonly results?: FreeForm & { readonly summary?: string };
  /** Omitted or null leaves the scan's quality control as it is; an empty array records a pass. */
  readonly qcFailReasons?: readonly string[] | null;
  readonly workflow?: Workflow;
}

/** The whole document. */
export interface Results {
  /** Free form, such as `{mitosisCount: 4}`. */
  readonly caseResults?: FreeForm;
  /** At least one. */
  readonly scanResults: readonly ScanResult[];
}

/** Where in a value something is wrong, and what. */
interface Flaw {
  readonly at: readonly (string | number)[];
  readonly message: string;
}

const MAX_DEPTH = 100;

/** Finds the first part that no JSON text says as it is. */
function notJson(value: unknown, depth = 0): Flaw | undefined {
  if (value === null || typeof value === "string" || typeof value === "boolean") return undefined;
  if (typeof value === "number") {
    return Number.isFinite(value) ? undefined : { at: [], message: `must be finite, not ${value}` };
  }
  if (typeof value !== "object") return { at: [], message: `must be JSON, not ${nameOf(value)}` };
  // Deeper than anyone means is a cycle.
  if (depth > MAX_DEPTH) return { at: [], message: "is nested too deeply" };
  const prototype = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) {
    return { at: [], message: `must be JSON, not ${nameOf(value)}` };
  }
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const flaw = notJson(value[i], depth + 1);
      if (flaw) return { at: [i, ...flaw.at], message: flaw.message };
    }
    return undefined;
  }
  for (const [key, member] of Object.entries(value)) {
    if (member === undefined) continue; // JSON.stringify leaves it out, which is what it means.
    const flaw = notJson(member, depth + 1);
    if (flaw) return { at: [key, ...flaw.at], message: flaw.message };
  }
}

/** What a value is, without saying what it holds. */
function nameOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  if (typeof value === "object") {
    const name = value.constructor?.name;
    return name && name !== "Object" ? `a ${name}` : "an object";
  }
  return typeof value === "undefined" ? "undefined" : `a ${typeof value}`;
}

/**
 * A schema that looks and does not touch: valibot's own arrays and objects build a copy of each
 * element, which for a million points costs seconds and hundreds of megabytes.
 */
function looked<T>(find: (value: unknown) => Flaw | undefined) {
  return v.pipe(
    v.custom<T>(() => true),
    v.rawCheck(({ dataset, addIssue }) => {
      const flaw = find(dataset.value);
      if (flaw === undefined) return;
      let input: unknown = dataset.value;
      const path = flaw.at.map((key) => {
        const value = (input as Record<string | number, unknown>)[key];
        const item = { type: "unknown" as const, origin: "value" as const, input, key, value };
        input = value;
        return item;
      });
      addIssue({ message: flaw.message, path: path as [typeof path[0], ...typeof path] });
    }),
  );
}

/** A flaw finder for arrays, from one for their elements. */
function each(find: (item: unknown) => Flaw | undefined, atLeast = 0) {
  return (value: unknown): Flaw | undefined => {
    if (!Array.isArray(value)) return { at: [], message: `must be an array, not ${nameOf(value)}` };
    if (value.length < atLeast) {
      return { at: [], message: `must have at least ${atLeast} elements` };
    }
    for (let i = 0; i < value.length; i++) {
      const flaw = find(value[i]);
      if (flaw) return { at: [i, ...flaw.at], message: flaw.message };
    }
  };
}

function position(value: unknown): Flaw | undefined {
  if (!Array.isArray(value) || value.length !== 2) {
    return { at: [], message: "must be a position, [x, y]" };
  }
  if (!Number.isFinite(value[0])) return notFinite(0, value[0]);
  if (!Number.isFinite(value[1])) return notFinite(1, value[1]);
}

const notFinite = (key: string | number, value: unknown): Flaw => ({
  at: [key],
  message: `must be a finite number, not ${nameOf(value)}`,
});

const positions = each(position);

function ring(value: unknown): Flaw | undefined {
  const flaw = positions(value);
  if (flaw) return flaw;
  const all = value as Position[];
  const [first, last] = [all[0], all.at(-1)];
  if (
    first === undefined || last === undefined || all.length < 4 ||
    first[0] !== last[0] || first[1] !== last[1]
  ) {
    return { at: [], message: "must be a closed ring of at least 4 positions" };
  }
}

/** Finite numbers under `numbers` and a string under each of `strings`, in every element. */
function records<T>(numbers: readonly string[], strings: readonly string[]) {
  const known = new Set([...numbers, ...strings]);
  return looked<readonly T[]>(each((item) => {
    if (typeof item !== "object" || item === null) {
      return { at: [], message: `must be an object, not ${nameOf(item)}` };
    }
    const members = item as Record<string, unknown>;
    for (const key of numbers) {
      if (!Number.isFinite(members[key])) return notFinite(key, members[key]);
    }
    for (const key of strings) {
      if (typeof members[key] !== "string") {
        return { at: [key], message: `must be a string, not ${nameOf(members[key])}` };
      }
    }
    for (const key in members) {
      if (known.has(key) || members[key] === undefined) continue;
      const flaw = notJson(members[key]);
      if (flaw) return { at: [key, ...flaw.at], message: flaw.message };
    }
  }));
}

/** Any JSON, as an object's member: there undefined means that it is not there. */
const json = looked<unknown>((value) => value === undefined ? undefined : notJson(value));
const finite = looked<number>((value) =>
  Number.isFinite(value)
    ? undefined
    : { at: [], message: `must be a finite number, not ${nameOf(value)}` }
);
const freeForm = v.record(v.string(), json);

/** An object with these keys; others may be any JSON. */
const object = <E extends v.ObjectEntries>(entries: E) => v.objectWithRest(entries, json);

/** An array whose elements are checked by a schema one after the other, without keeping the copies. */
function arrayOf<S extends v.GenericSchema>(schema: S) {
  return looked<readonly v.InferOutput<S>[]>(each((item) => {
    const checked = v.safeParse(schema, item, { abortEarly: true });
    if (checked.success) return undefined;
    const issue = checked.issues[0];
    return {
      at: (issue.path ?? []).map(({ key }) => typeof key === "number" ? key : String(key)),
      message: complaint(issue),
    };
  }));
}

const geometry: v.GenericSchema<Geometry> = v.lazy(() => geometries);
const geometries = v.variant("type", [
  object({ type: v.literal("Point"), coordinates: looked<Position>(position) }),
  object({
    type: v.picklist(["MultiPoint", "LineString"]),
    coordinates: looked<readonly Position[]>(positions),
  }),
  object({
    type: v.literal("MultiLineString"),
    coordinates: looked<readonly (readonly Position[])[]>(each(positions)),
  }),
  object({
    type: v.literal("Polygon"),
    coordinates: looked<readonly Ring[]>(each(ring, 1)),
  }),
  object({
    type: v.literal("MultiPolygon"),
    coordinates: looked<readonly (readonly Ring[])[]>(each(each(ring, 1), 1)),
  }),
  object({ type: v.literal("GeometryCollection"), geometries: v.array(geometry) }),
]);

const boundingBox = looked<BoundingBox>((value) => {
  if (!Array.isArray(value) || value.length !== 4) {
    return { at: [], message: "must be 4 numbers, [left, top, right, bottom]" };
  }
  const flaw = each((n) => Number.isFinite(n) ? undefined : { at: [], message: "must be finite" })(
    value,
  );
  if (flaw) return flaw;
  if (value[0] > value[2] || value[1] > value[3]) {
    return { at: [], message: "must be [left, top, right, bottom], left ≤ right and top ≤ bottom" };
  }
});

const feature = v.pipe(
  object({
    type: v.literal("Feature"),
    bbox: boundingBox,
    geometry,
    properties: object({
      annotation_type: v.string(),
      contour_colors: v.optional(
        v.array(v.pipe(v.string(), v.regex(/^#[0-9a-f]{6}$/i, "must be a colour, #rrggbb"))),
      ),
    }),
  }),
  v.forward(
    v.partialCheck(
      [["geometry"], ["properties", "contour_colors"]],
      ({ geometry, properties: { contour_colors: colors } }) =>
        colors === undefined || geometry.type !== "GeometryCollection" ||
        colors.length === geometry.geometries.length,
      "must have one colour for each contour",
    ),
    ["properties", "contour_colors"],
  ),
);

const reportFeature = object({
  type: v.literal("Feature"),
  bbox: v.optional(boundingBox),
  geometry,
  properties: v.nullish(freeForm),
});

const scores = v.record(v.string(), finite);
const points = records<ScoredPoint>(["x", "y", "score"], ["type"]);

const segments = v.array(object({
  name: v.string(),
  result: v.string(),
  feature_collection: object({
    type: v.literal("FeatureCollection"),
    features: arrayOf(reportFeature),
  }),
}));

const report = v.variant("type", [
  object({
    type: v.literal("Basic"),
    results: v.array(object({ name: v.string(), result: v.string() })),
    segments,
  }),
  object({
    type: v.literal("WholeSlideDifferential"),
    points,
    scores,
    positivity_threshold: finite,
  }),
  object({
    type: v.literal("AreaDifferential"),
    regions: v.array(object({ region: reportFeature, weight: finite, score: finite, points })),
    scores,
    positivity_threshold: finite,
  }),
  object({ type: v.literal("SemiQuantitativeDifferential"), points, scores }),
  object({
    type: v.picklist(["RegionCounting", "AiMitosisCounting"]),
    objects: records<CountedObject>(["x", "y", "width", "height"], []),
    regions: arrayOf(reportFeature),
  }),
  object({
    type: v.literal("TumorCellularity"),
    threshold_map: v.record(
      v.string(),
      object({
        tumor_cellularity: finite,
        counts: v.array(object({ label: v.string(), count: finite })),
        region: reportFeature,
        area: finite,
        distributions: v.nullish(v.record(
          v.string(),
          v.array(object({ label: v.string(), fraction: finite, area: finite })),
        )),
      }),
    ),
    other_segments: v.nullish(v.record(v.string(), segments)),
  }),
]);

/** The schema of the whole document; `checkResults` says what is wrong in this project's words. */
export const resultsSchema: v.GenericSchema<Results> = object({
  caseResults: v.optional(freeForm),
  scanResults: v.pipe(
    v.array(object({
      scanId: v.pipe(v.string(), v.nonEmpty("must not be empty")),
      geojson: v.optional(object({
        type: v.literal("FeatureCollection"),
        features: arrayOf(feature),
      })),
      results: v.optional(v.objectWithRest({ summary: v.optional(v.string()) }, json)),
      qcFailReasons: v.nullish(v.array(v.string())),
      workflow: v.optional(object({
        model_name: v.string(),
        provider: v.string(),
        ruo: v.boolean(),
        key: v.optional(v.string()),
        value: v.optional(v.string()),
        report,
      })),
    })),
    v.minLength(1, "must have at least one scan"),
  ),
});

/**
 * Checks a document and returns it as it is, not a copy.
 * @throws {ResultsError} whose `path` is the first place that is wrong, such as
 *   `scanResults[0].geojson.features[3].properties.annotation_type`; empty for the document itself.
 */
export function checkResults(value: unknown): Results {
  const checked = v.safeParse(resultsSchema, value, { abortEarly: true });
  if (checked.success) return value as Results;
  const issue = checked.issues[0];
  const path = (issue.path ?? []).map(({ key }) =>
    typeof key === "number"
      ? `[${key}]`
      : /^[\p{ID_Start}_$][\p{ID_Continue}$]*$/u.test(String(key))
      ? `.${key}`
      : `[${JSON.stringify(key)}]`
  ).join("").replace(/^\./, "");
  throw new ResultsError(
    `Cannot accept the results: ${path || "the document"} ${complaint(issue)}`,
    path,
  );
}

function complaint(issue: v.BaseIssue<unknown>): string {
  // Only own messages begin so; valibot's quote the value, which may be anything.
  if (/^(must|is) /.test(issue.message)) return issue.message;
  const last = issue.path?.at(-1);
  const input = last === undefined ? issue.input : last.value;
  if (input === undefined) return "is missing";
  const expected = issue.expected ?? "something else";
  const wanted = ({
    string: "a string",
    boolean: "a boolean",
    Object: "an object",
    Array: "an array",
  } as Record<string, string>)[expected] ??
    expected.replace(/^\(/, "one of ").replace(/[()]/g, "").replaceAll(" | ", ", ");
  // A type is a word of the schema; what else a document holds is not for messages.
  const given = last?.key === "type" && typeof input === "string"
    ? JSON.stringify(input.slice(0, 40))
    : nameOf(input);
  return `must be ${wanted}, not ${given}`;
}

/** Parts of a document up to about this many values go through JSON.stringify at once. */
const VALUES_PER_PIECE = 4096;

/**
 * The document's JSON text in pieces, most of them under 100 kB; joined they are what JSON.stringify
 * gives. For files and request bodies, where one string of a million points would be needless.
 */
export function* serializeResults(results: Results): Generator<string, void, undefined> {
  yield* pieces(results);
}

function* pieces(value: unknown): Generator<string, void, undefined> {
  if (typeof value !== "object" || value === null || count(value, VALUES_PER_PIECE) >= 0) {
    yield JSON.stringify(value);
  } else if (Array.isArray(value)) {
    yield "[";
    let separator = "";
    let small: unknown[] = [];
    let left = VALUES_PER_PIECE;
    const flush = () => separator + JSON.stringify(small).slice(1, -1);
    for (const item of value) {
      const cost = VALUES_PER_PIECE - count(item, VALUES_PER_PIECE);
      if (cost > left && small.length > 0) {
        yield flush();
        separator = ",";
        small = [];
        left = VALUES_PER_PIECE;
      }
      if (cost > VALUES_PER_PIECE) {
        yield separator;
        yield* pieces(item);
        separator = ",";
      } else {
        small.push(item);
        left -= cost;
      }
    }
    if (small.length > 0) yield flush();
    yield "]";
  } else {
    yield "{";
    let separator = "";
    for (const [key, member] of Object.entries(value)) {
      if (member === undefined) continue;
      yield `${separator}${JSON.stringify(key)}:`;
      yield* pieces(member);
      separator = ",";
    }
    yield "}";
  }
}

/** What is left of `budget` after one for every value in it, negative as soon as it is exceeded. */
function count(value: unknown, budget: number): number {
  if (typeof value === "string") return budget - 1 - (value.length >> 4);
  if (typeof value !== "object" || value === null) return budget - 1;
  let left = budget - 1;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length && left >= 0; i++) left = count(value[i], left);
  } else {
    for (const key in value) {
      if (left < 0) break;
      left = count((value as Record<string, unknown>)[key], left - 1);
    }
  }
  return left;
}
