/** The result picture: every finding over the downsampled slide. */

import type {
  BoundingBox,
  FreeForm,
  Geometry,
  Position,
  Report,
  Results,
  ScoredPoint,
  Segment,
} from "../results/schema.ts";
import type { Picture } from "../slide/slide.ts";
import { Canvas, type Colour, CROSS, DOT, RING } from "./canvas.ts";

const RED: Colour = [255, 0, 0];

/** Where marks would cover more than this share of the picture, smaller ones are taken. */
const MOST_COVERED = 0.15;

/** A feature of the document or of a report; a vendor's may lack a geometry. */
interface Finding {
  readonly bbox?: BoundingBox;
  readonly geometry?: Geometry | null;
  readonly properties?: FreeForm | null;
}

/**
 * Draws findings over a picture of the slide and encodes it as PNG. Boxes and outlines become lines
 * 2 or 3 px wide, points small marks that leave the tissue visible, in the feature's `color`, else in
 * red; the contours of a GeometryCollection take its `contour_colors`. A feature without geometry shows its box.
 * Features, points and objects within a workflow's report are drawn too.
 *
 * @param overview the slide downsampled, RGB; it is not changed.
 * @param scale pixels of `overview` per level-0 pixel.
 * @throws {RangeError} where the picture's data do not fit its size, or the scale is not positive.
 */
export async function renderOverlay(
  overview: Picture,
  scale: number,
  results: Results,
): Promise<Uint8Array> {
  if (!(scale > 0 && scale < Infinity)) {
    throw new RangeError(`Cannot draw findings at a scale of ${scale}`);
  }
  return await encodePng(drawFindings(overview, scale, results));
}

/** The picture of `renderOverlay` before it is encoded. */
export function drawFindings(overview: Picture, scale: number, results: Results): Picture {
  const canvas = new Canvas(overview);
  canvas.lineWidthPx = Math.max(overview.widthPx, overview.heightPx) >= 1024 ? 3 : 2;
  const findings: Finding[] = [];
  const points: (readonly ScoredPoint[])[] = [];
  for (const { geojson, workflow } of results.scanResults) {
    geojson?.features.forEach((feature) => findings.push(feature));
    if (workflow !== undefined) collectReport(workflow.report, findings, points);
  }

  let count = points.reduce((sum, list) => sum + list.length, 0);
  for (const { geometry } of findings) count += countPoints(geometry);
  const most = overview.widthPx * overview.heightPx * MOST_COVERED;
  canvas.shape = [RING, CROSS].find((mark) => count * mark.length <= most) ?? DOT;

  for (const { geometry, bbox, properties } of findings) {
    canvas.colour = colourOf(properties?.color) ?? RED;
    if (geometry) drawGeometry(canvas, scale, geometry, colours(properties));
    else if (bbox) drawBox(canvas, scale, bbox);
  }
  canvas.colour = RED;
  for (const list of points) {
    for (const { x, y } of list) canvas.mark(x * scale, y * scale);
  }
  return canvas;
}

/** Adds what a report shows on the slide to lists. */
function collectReport(
  report: Report,
  findings: Finding[],
  points: (readonly ScoredPoint[])[],
): void {
  const add = (list: readonly Finding[]) => list.forEach((finding) => findings.push(finding));
  const addSegments = (list: readonly Segment[]) =>
    list.forEach((segment) => add(segment.feature_collection.features));
  switch (report.type) {
    case "Basic":
      addSegments(report.segments);
      break;
    case "WholeSlideDifferential":
    case "SemiQuantitativeDifferential":
      points.push(report.points);
      break;
    case "AreaDifferential":
      for (const area of report.regions) {
        findings.push(area.region);
        points.push(area.points);
      }
      break;
    case "RegionCounting":
    case "AiMitosisCounting":
      add(report.regions);
      for (const { x, y, width, height } of report.objects) {
        findings.push({ bbox: [x, y, x + width, y + height] });
      }
      break;
    case "TumorCellularity":
      for (const { region } of Object.values(report.threshold_map)) findings.push(region);
      for (const list of Object.values(report.other_segments ?? {})) addSegments(list);
      break;
  }
}

function countPoints(geometry: Geometry | null | undefined): number {
  switch (geometry?.type) {
    case "Point":
      return 1;
    case "MultiPoint":
      return geometry.coordinates.length;
    case "GeometryCollection":
      return geometry.geometries.reduce((sum, part) => sum + countPoints(part), 0);
    default:
      return 0;
  }
}

/** The colours of a heat map's contours; undefined where one is none. */
function colours(properties: FreeForm | null | undefined): readonly (Colour | undefined)[] {
  const given = properties?.contour_colors;
  if (!Array.isArray(given)) return [];
  return given.map(colourOf);
}

/** `#rrggbb` as a colour; undefined where it is none. */
function colourOf(text: unknown): Colour | undefined {
  const hex = typeof text === "string" ? /^#([0-9a-f]{6})$/i.exec(text)?.[1] : undefined;
  if (hex === undefined) return undefined;
  const value = parseInt(hex, 16);
  return [value >> 16, value >> 8 & 0xff, value & 0xff];
}

/**
 * Draws a geometry of level-0 pixels in the canvas's colour.
 * @param colours of the parts of a GeometryCollection, each for all that is within.
 */
function drawGeometry(
  canvas: Canvas,
  scale: number,
  geometry: Geometry,
  colours: readonly (Colour | undefined)[] = [],
): void {
  switch (geometry.type) {
    case "Point": {
      const [x, y] = geometry.coordinates;
      canvas.mark(x * scale, y * scale);
      break;
    }
    case "MultiPoint": {
      const { coordinates } = geometry;
      for (let k = 0; k < coordinates.length; k++) {
        const position = coordinates[k]!;
        canvas.mark(position[0] * scale, position[1] * scale);
      }
      break;
    }
    case "LineString":
      drawPath(canvas, scale, geometry.coordinates);
      break;
    case "MultiLineString":
    case "Polygon":
      for (const path of geometry.coordinates) drawPath(canvas, scale, path);
      break;
    case "MultiPolygon":
      for (const path of geometry.coordinates.flat()) drawPath(canvas, scale, path);
      break;
    case "GeometryCollection": {
      const outer = canvas.colour;
      geometry.geometries.forEach((part, k) => {
        canvas.colour = colours[k] ?? outer;
        drawGeometry(canvas, scale, part);
      });
      canvas.colour = outer;
      break;
    }
  }
}

function drawPath(canvas: Canvas, scale: number, positions: readonly Position[]): void {
  for (let k = 1; k < positions.length; k++) {
    const [x0, y0] = positions[k - 1]!;
    const [x1, y1] = positions[k]!;
    canvas.line(x0 * scale, y0 * scale, x1 * scale, y1 * scale);
  }
}

function drawBox(canvas: Canvas, scale: number, [left, top, right, bottom]: BoundingBox): void {
  drawPath(canvas, scale, [
    [left, top],
    [left, bottom],
    [right, bottom],
    [right, top],
    [left, top],
  ]);
}

/** Loads what encodes pictures, which takes 0.1 s: called early, it is there when it is needed. */
export async function preloadEncoder(): Promise<void> {
  await import("sharp");
}

async function encodePng({ data, widthPx, heightPx }: Picture): Promise<Uint8Array> {
  const { default: sharp } = await import("sharp");
  sharp.cache(false); // Each picture is encoded once.
  // A busy H&E picture of 2048 × 1536 px on one core: level 1 0.08 s and 7.3 MB, 2 0.14 s and
  // 6.4 MB, 4 0.16 s and 6.2 MB. Adaptive filters would save a third for 0.1 s more.
  return await sharp(data, { raw: { width: widthPx, height: heightPx, channels: 3 } })
    .png({ compressionLevel: 2, adaptiveFiltering: false })
    .toBuffer();
}
