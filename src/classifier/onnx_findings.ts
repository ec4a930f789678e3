/** What a model found on a slide, whatever its output was, and the results document made of it. */

import { featureCollection, type Outline, polygonFeature } from "../results/geojson.ts";
import type {
  CountedObject,
  Feature,
  Report,
  ReportFeature,
  Results,
  ScoredPoint,
} from "../results/schema.ts";
import type { ModelClass, Sidecar } from "./sidecar.ts";

/** A finding with a place of its own. */
export interface FoundObject {
  /** Level-0 pixels. */
  readonly box: CountedObject;
  readonly score: number;
  /** The class's number. */
  readonly of: number;
}

/** What all kinds of outputs come to. */
export interface Findings {
  /** What the viewer draws. */
  readonly features: readonly Feature[];
  /** Of each class, where areas are what the model gives: mm². */
  readonly areasMm2?: readonly number[];
  /** Outlines of each class in level-0 pixels, where it gives areas. */
  readonly outlines?: readonly (readonly Outline[])[];
  /** Points and boxes, where it gives those. */
  readonly objects?: readonly FoundObject[];
  /** What points are called where their classes only compete. */
  readonly mergedAs?: string;
  /** The least score that was taken, of each class. */
  readonly thresholds: readonly number[];
}

/** What is known of the slide beside the findings. */
export interface SlideFacts {
  readonly scanId: string;
  readonly tissueAreaMm2: number;
  /** The tissue's outline in level-0 pixels. */
  readonly tissue: readonly Outline[];
  /** The slide's edges in level-0 pixels. */
  readonly slide: Outline;
}

/** Colours that can be told apart, with colour blindness too (Okabe & Ito, 2008), black left out. */
const COLORS = [
  "#d55e00",
  "#0072b2",
  "#009e73",
  "#cc79a7",
  "#e69f00",
  "#56b4e9",
  "#f0e442",
] as const;

/** A class's colour: its own, or one by its number. */
export function colorOf(classes: readonly ModelClass[], of: number): string {
  return classes[of]!.color ?? COLORS[of % COLORS.length]!;
}

/** Thousandths: more would be digits without meaning, a million times. */
function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** A name as a key: `mitotic figure` is `mitoticFigure`. */
function keyOf(name: string): string {
  const words = name.replace(/[^\p{L}\p{N}]+/gu, " ").trim().split(" ");
  return words.map((word, i) => i === 0 ? word : word.charAt(0).toUpperCase() + word.slice(1))
    .join("");
}

/** What an object is called: its class, or the thing that all classes are scales of. */
function nameOf({ of }: FoundObject, classes: readonly ModelClass[], merged?: string): string {
  return merged ?? classes[of]!.name;
}

/** Counts by name, of objects. */
function countsOf(
  objects: readonly FoundObject[],
  classes: readonly ModelClass[],
  merged?: string,
): Record<string, number> {
  const names = merged === undefined
    ? classes.filter(({ ignore }) => !ignore).map(({ name }) => name)
    : [merged];
  const counts = Object.fromEntries(names.map((name) => [name, 0]));
  for (const object of objects) counts[nameOf(object, classes, merged)]!++;
  return counts;
}

const fraction = (part: number, whole: number) => whole > 0 ? rounded(part / whole) : 0;

/** A region of the report: an outline without holes' bookkeeping, as a feature. */
function regionOf(
  outlines: readonly Outline[],
  properties: { readonly name: string; readonly color?: string },
): ReportFeature | undefined {
  if (outlines.length === 0) return undefined;
  const { bbox, geometry } = polygonFeature(outlines, properties.name);
  return { type: "Feature", bbox, geometry, properties };
}

/** The document. */
export function resultsOf(findings: Findings, sidecar: Sidecar, facts: SlideFacts): Results {
  const { classes } = sidecar;
  const { areasMm2, objects, mergedAs } = findings;
  const numbers: Record<string, number> = {};
  if (objects !== undefined) {
    for (const [name, count] of Object.entries(countsOf(objects, classes, mergedAs))) {
      numbers[`${keyOf(name)}Count`] = count;
      numbers[`${keyOf(name)}PerMm2`] = fraction(count, facts.tissueAreaMm2);
    }
  }
  areasMm2?.forEach((area, i) => {
    if (!classes[i]!.ignore) numbers[`${keyOf(classes[i]!.name)}AreaMm2`] = rounded(area);
  });
  numbers.tissueAreaMm2 = rounded(facts.tissueAreaMm2);
  const report = reportOf(findings, sidecar, facts);
  return {
    caseResults: numbers,
    scanResults: [{
      scanId: facts.scanId,
      geojson: featureCollection([
        ...(sidecar.tissue_annotation_type === undefined || facts.tissue.length === 0
          ? []
          : [polygonFeature(facts.tissue, sidecar.tissue_annotation_type)]),
        ...findings.features,
      ]),
      ...(report === undefined ? {} : {
        workflow: {
          model_name: sidecar.name,
          provider: sidecar.provider,
          ruo: sidecar.ruo,
          report,
        },
      }),
    }],
  };
}

/** The report of the sidecar's type. */
function reportOf(findings: Findings, sidecar: Sidecar, facts: SlideFacts): Report | undefined {
  const { classes, report: { type, positive } } = sidecar;
  const { objects = [], areasMm2 = [], outlines = [], mergedAs, thresholds } = findings;
  const isPositive = ({ name, ignore }: ModelClass) => positive?.includes(name) ?? !ignore;
  // What the report is about are the positive classes.
  const own = thresholds.filter((_, i) => isPositive(classes[i]!));
  const threshold = Math.min(...(own.length > 0 ? own : thresholds));
  const counts = countsOf(objects, classes, mergedAs);
  const points = (): ScoredPoint[] =>
    objects.map((object) => ({
      x: object.box.x + object.box.width / 2,
      y: object.box.y + object.box.height / 2,
      score: rounded(Math.min(1, object.score)),
      type: nameOf(object, classes, mergedAs),
    }));
  /** Numbers of each class: counts where there are objects, else parts of the tissue. */
  const scores = () =>
    findings.objects !== undefined ? counts : Object.fromEntries(
      classes.flatMap(({ name, ignore }, i) =>
        ignore ? [] : [[name, fraction(areasMm2[i] ?? 0, facts.tissueAreaMm2)]]
      ),
    );
  const regions = classes.flatMap((of, i) => {
    const properties = { name: of.name, color: colorOf(classes, i) };
    const region = of.ignore ? undefined : regionOf(outlines[i] ?? [], properties);
    return region === undefined ? [] : [{ of, i, region }];
  });
  const tissue = regionOf(facts.tissue, { name: "tissue" });
  switch (type) {
    case "none":
      return undefined;
    case "Basic":
      return {
        type,
        results: [
          ...Object.entries(findings.objects === undefined ? {} : counts)
            .map(([name, count]) => ({ name, result: String(count) })),
          ...classes.flatMap(({ name, ignore }, i) =>
            ignore || areasMm2[i] === undefined
              ? []
              : [{ name, result: `${rounded(areasMm2[i]!)} mm²` }]
          ),
        ],
        segments: regions.map(({ of, i, region }) => ({
          name: of.name,
          result: `${rounded(areasMm2[i] ?? 0)} mm²`,
          feature_collection: {
            type: "FeatureCollection",
            features: [region],
          },
        })),
      };
    case "WholeSlideDifferential":
      return { type, points: points(), scores: scores(), positivity_threshold: rounded(threshold) };
    case "SemiQuantitativeDifferential":
      return { type, points: points(), scores: scores() };
    case "AreaDifferential":
      return {
        type,
        regions: regions.map(({ i, region }) => ({
          region,
          weight: 1,
          score: fraction(areasMm2[i] ?? 0, facts.tissueAreaMm2),
          points: [],
        })),
        scores: scores(),
        positivity_threshold: rounded(threshold),
      };
    case "RegionCounting":
    case "AiMitosisCounting":
      return {
        type,
        objects: objects.filter(({ of }) => isPositive(classes[of]!)).map(({ box }) => box),
        regions: tissue === undefined ? [] : [tissue],
      };
    case "TumorCellularity": {
      const counted = findings.objects !== undefined;
      const amount = (of: ModelClass, i: number) =>
        counted ? counts[mergedAs ?? of.name] ?? 0 : areasMm2[i] ?? 0;
      const listed = classes.map((of, i) => ({ of, amount: amount(of, i) }))
        .filter(({ of }) => !of.ignore);
      const all = listed.reduce((sum, { amount }) => sum + amount, 0);
      const wanted = listed.filter(({ of }) => isPositive(of))
        .reduce((sum, { amount }) => sum + amount, 0);
      // Areas are set against all tissue, since what is no tumour need be no class.
      const whole = counted ? all : facts.tissueAreaMm2;
      return {
        type,
        threshold_map: {
          [`TC ${threshold.toFixed(2)}`]: {
            tumor_cellularity: Math.min(1, fraction(wanted, whole)),
            counts: counted
              ? listed.map(({ of, amount }) => ({ label: of.name, count: amount }))
              : [],
            // A report without a region is refused: where there is no tissue it is about the slide.
            region: tissue ?? regionOf([facts.slide], { name: "slide" })!,
            area: rounded(facts.tissueAreaMm2),
            ...(counted ? {} : {
              distributions: {
                area: listed.map(({ of, amount }) => ({
                  label: of.name,
                  fraction: fraction(amount, whole),
                  area: rounded(amount),
                })),
              },
            }),
          },
        },
      };
    }
  }
}
