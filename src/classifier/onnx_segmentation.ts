/**
 * A class per pixel: overlapping tiles are blended into one map over the tissue, of which polygons
 * with holes are drawn. The map's pixels are larger than the model's, and its size is bounded.
 */

import { ModelError } from "../errors.ts";
import { type HostTensor, numbersOf } from "../model/host_tensor.ts";
import { traceMask } from "../pipeline/contour.ts";
import { isTissue } from "../pipeline/tissue.ts";
import { type Outline, polygonFeature } from "../results/geojson.ts";
import type { Feature, Position } from "../results/schema.ts";
import { colorOf, type Findings } from "./onnx_findings.ts";
import { checkFinite, checkOutput, type FittedModel } from "./onnx_model.ts";
import { blockSpan, type ModelRun, runModel } from "./onnx_tiles.ts";
import type { OutputOf, Sidecar } from "./sidecar.ts";

/** Probability from which a pixel is of the class that has the largest, where that says nothing itself. */
const DEFAULT_THRESHOLD = 0;
/** Micrometres per pixel of the map, where the sidecar does not say. */
const MAP_MPP = 2;
/** Pixels of a map: tracing takes five bytes each. */
const MOST_PIXELS = 2 ** 25;
/** How far a drawn outline may leave the map's, in its pixels. */
const TOLERANCE_PX = 0.7;

/** How the map's pixels lie in the model's. */
export interface MapGeometry {
  /** Model pixels per pixel of the map. */
  readonly stride: number;
  /** Output pixels per pixel of the map, on each axis. */
  readonly factor: number;
  /** Pixels of the map on a tile's side. */
  readonly side: number;
  /** The output has a class's number in each pixel instead of probabilities. */
  readonly isNumbers: boolean;
}

/**
 * The map's pixels: about as large as wanted, whole pixels of the output, and such that tiles and
 * overlaps are whole numbers of them.
 * @throws {ModelError} where the output's shape is not known before the run.
 */
export function mapOf(
  { output, outputShape, sidecar: { classes } }: FittedModel,
  wantedMpp: number = MAP_MPP,
  { grid, geometry: { tilePx, marginPx } }: Pick<ModelRun, "grid" | "geometry">,
): MapGeometry {
  if (outputShape === undefined) {
    throw new ModelError(`Cannot blend output "${output}": its shape depends on the pixels`);
  }
  const size = outputShape.at(-1)!;
  const unit = tilePx / size;
  const { corePx, mppX, tiles } = grid;
  const span = (of: (tile: { x: number; y: number }) => number) =>
    tiles.reduce((most, tile) => Math.max(most, of(tile)), 0) -
    tiles.reduce((least, tile) => Math.min(least, of(tile)), Infinity) + corePx;
  const area = tiles.length === 0 ? 0 : span(({ x }) => x) * span(({ y }) => y);
  const divides = (factor: number) =>
    [corePx, marginPx, tilePx].every((length) => length % (factor * unit) === 0);
  const wanted = Math.max(wantedMpp / mppX, Math.sqrt(area / MOST_PIXELS)) / unit;
  let factor = Math.max(1, Math.round(wanted));
  // Upwards, so that the map stays within bounds; downwards where only finer pixels divide.
  const upwards = Array.from({ length: size }, (_, i) => factor + i).find((f) =>
    f <= size && divides(f)
  );
  if (upwards !== undefined) factor = upwards;
  else while (!divides(factor)) factor--;
  const isNumbers = outputShape.length < 3 || outputShape[0] !== classes.length;
  return { stride: factor * unit, factor, side: size / factor, isNumbers };
}

/** Rises from the tile's edge over the overlap, so that neighbours' weights sum to one. */
function windowOf(size: number, margin: number): Float32Array {
  const ramp = 2 * margin;
  return Float32Array.from({ length: size }, (_, i) => {
    const edge = Math.min(i + 0.5, size - i - 0.5);
    return ramp === 0 ? 1 : Math.min(1, edge / ramp);
  });
}

/** The map as it is blended: rows that tiles still reach are sums, those above are classes. */
class ClassMap {
  /** 1 + the class of each pixel, 0 where there is none. */
  readonly classes: Uint8Array;
  readonly #sums: Float32Array;
  readonly #weights: Float32Array;
  /** The first row that is not settled. */
  #top = 0;

  constructor(
    readonly width: number,
    readonly height: number,
    readonly count: number,
    readonly thresholds: readonly number[],
    /** Rows that are held as sums: all that tiles between two calls of `settle` reach. */
    readonly band: number,
    /** Whether a pixel may have a class. */
    readonly isOpen: (column: number, row: number) => boolean,
  ) {
    this.classes = new Uint8Array(width * height);
    this.#sums = new Float32Array(width * band * count);
    this.#weights = new Float32Array(width * band);
  }

  /** Adds a tile's probabilities [count, side, side] whose corner is at (x, y), which may lie outside. */
  add(tile: Float32Array, side: number, x: number, y: number, window: Float32Array): void {
    const { count, width, band } = this;
    const sums = this.#sums, weights = this.#weights;
    const from = Math.max(0, -x), to = Math.min(side, width - x);
    for (let v = Math.max(0, this.#top - y); v < side && y + v < this.height; v++) {
      const row = (y + v) % band * width + x;
      for (let u = from; u < to; u++) {
        const weight = window[u]! * window[v]!;
        weights[row + u]! += weight;
        for (let of = 0, at = v * side + u; of < count; of++, at += side * side) {
          sums[(row + u) * count + of]! += weight * tile[at]!;
        }
      }
    }
  }

  /** Settles all rows above `row`: no tile reaches them any more. */
  settle(row: number): void {
    for (; this.#top < Math.min(row, this.height); this.#top++) {
      const from = this.#top % this.band * this.width;
      for (let column = 0; column < this.width; column++) {
        const at = from + column;
        const weight = this.#weights[at]!;
        if (weight === 0 || !this.isOpen(column, this.#top)) continue;
        let best = 0;
        for (let of = 1; of < this.count; of++) {
          if (this.#sums[at * this.count + of]! > this.#sums[at * this.count + best]!) best = of;
        }
        if (this.#sums[at * this.count + best]! / weight >= this.thresholds[best]!) {
          this.classes[this.#top * this.width + column] = best + 1;
        }
      }
      this.#weights.fill(0, from, from + this.width);
      this.#sums.fill(0, from * this.count, (from + this.width) * this.count);
    }
  }
}

/** Runs the model, blends its maps, and draws polygons of what comes of it. */
export async function runSegmentation(
  run: ModelRun,
  output: OutputOf<"segmentation">,
  name: string,
  geometry: MapGeometry,
): Promise<Findings> {
  const { grid, geometry: { tilePx, marginPx }, sidecar, slide, context, mask } = run;
  const { classes } = sidecar;
  const { stride, side } = geometry;
  const { tiles, corePx } = grid;
  const least = (of: (tile: { x: number; y: number }) => number) =>
    tiles.reduce((a, tile) => Math.min(a, of(tile)), Infinity);
  const most = (of: (tile: { x: number; y: number }) => number) =>
    tiles.reduce((a, tile) => Math.max(a, of(tile)), 0);
  const [left, top] = tiles.length === 0 ? [0, 0] : [least(({ x }) => x), least(({ y }) => y)];
  // The map is of cores only: what overlaps reach beyond them is no tissue.
  const width = tiles.length === 0 ? 0 : (most(({ x }) => x) + corePx - left) / stride;
  const height = tiles.length === 0 ? 0 : (most(({ y }) => y) + corePx - top) / stride;
  const window = windowOf(side, marginPx / stride);
  const span = blockSpan(grid);
  const { widthPx, heightPx } = slide.levels[0]!;
  const map = new ClassMap(
    width,
    height,
    classes.length,
    classes.map(thresholdOf),
    Math.min(Math.max(1, height), (span + tilePx) / stride),
    (column, row) => {
      const x0 = (left + (column + 0.5) * stride) * grid.downsample;
      const y0 = (top + (row + 0.5) * stride) * grid.downsample;
      return x0 < widthPx && y0 < heightPx && (!output.tissue_only || isTissue(mask, x0, y0));
    },
  );
  const finish = (): Findings => {
    map.settle(Infinity);
    return findingsOf(run, output, map, left, top, stride);
  };
  try {
    await runModel<Float32Array>(run, {
      async read(plan, started, batchTiles) {
        const { [name]: result } = await plan.read(started);
        const values = numbersOf(result!);
        const used = values.length / result!.shape[0]! * batchTiles.length;
        checkFinite(name, values.subarray(0, used), plan.float);
        return probabilitiesOf(result!, name, sidecar, geometry);
      },
      collect(found, batchTiles) {
        const size = classes.length * side * side;
        for (const [i, { x, y }] of batchTiles.entries()) {
          // Rows of blocks come one after the other.
          map.settle((Math.floor(y / span) * span - top - marginPx) / stride);
          map.add(
            found.subarray(i * size, (i + 1) * size),
            side,
            (x - left - marginPx) / stride,
            (y - top - marginPx) / stride,
            window,
          );
        }
      },
    });
  } catch (error) {
    if (context.signal.aborted) run.keep(finish());
    throw error;
  }
  return finish();
}

/**
 * A batch's output as [N, K, side, side]: as it is, or of class numbers the part of a pixel of the
 * map that has each.
 * @throws {ModelError} where its shape is another than it was said to be.
 */
function probabilitiesOf(
  result: HostTensor,
  name: string,
  sidecar: Sidecar,
  { factor, side, isNumbers }: MapGeometry,
): Float32Array {
  checkOutput(sidecar, name, result.shape);
  const values = numbersOf(result);
  const K = sidecar.classes.length;
  if (!isNumbers) return values instanceof Float32Array ? values : Float32Array.from(values);
  const size = side * factor;
  const images = values.length / size ** 2;
  const parts = new Float32Array(images * K * side * side);
  for (let image = 0, i = 0; image < images; image++) {
    for (let y = 0; y < size; y++) {
      const row = (image * K * side + Math.floor(y / factor)) * side;
      for (let x = 0; x < size; x++, i++) {
        const of = values[i]!;
        // What is no class's number, such as 255 for «nothing», is no class.
        if (of >= 0 && of < K) parts[row + of * side * side + Math.floor(x / factor)]! += 1;
      }
    }
  }
  for (let i = 0; i < parts.length; i++) parts[i]! /= factor ** 2;
  return parts;
}

function thresholdOf({ threshold }: { readonly threshold?: number | undefined }): number {
  return threshold ?? DEFAULT_THRESHOLD;
}

/** Area of a closed ring. */
function areaOf(ring: readonly (readonly [number, number])[]): number {
  let sum = 0;
  for (let i = 0; i + 1 < ring.length; i++) {
    sum += ring[i]![0] * ring[i + 1]![1] - ring[i + 1]![0] * ring[i]![1];
  }
  return Math.abs(sum) / 2;
}

function findingsOf(
  { grid, sidecar: { classes }, slide }: ModelRun,
  { least_area_um2 }: OutputOf<"segmentation">,
  map: ClassMap,
  left: number,
  top: number,
  stride: number,
): Findings {
  const { widthPx, heightPx } = slide.levels[0]!;
  const pixelUm2 = grid.mppX * stride * grid.mppY * stride;
  const areasMm2 = classes.map(() => 0);
  const outlines: Outline[][] = classes.map(() => []);
  const features: Feature[] = [];
  const mask = new Uint8Array(map.classes.length);
  for (const [of, { name, annotation_type, ignore }] of classes.entries()) {
    if (ignore) continue;
    let pixels = 0;
    for (let i = 0; i < mask.length; i++) pixels += mask[i] = map.classes[i] === of + 1 ? 1 : 0;
    areasMm2[of] = pixels * pixelUm2 / 1e6;
    if (pixels === 0) continue;
    const place = ([x, y]: readonly [number, number]): Position => [
      Math.min(widthPx, Math.round((left + x * stride) * grid.downsample)),
      Math.min(heightPx, Math.round((top + y * stride) * grid.downsample)),
    ];
    for (const [outer, ...holes] of traceMask(mask, map.width, map.height, TOLERANCE_PX)) {
      if (areaOf(outer) * pixelUm2 < least_area_um2) continue;
      outlines[of]!.push([
        outer.map(place),
        ...holes.filter((hole) => areaOf(hole) * pixelUm2 >= least_area_um2)
          .map((hole) => hole.map(place)),
      ]);
    }
    if (annotation_type === undefined) continue;
    // A feature a piece, so that each can be chosen and measured in the viewer.
    for (const outline of outlines[of]!) {
      features.push(
        polygonFeature([outline], annotation_type, { name, color: colorOf(classes, of) }),
      );
    }
  }
  return { features, areasMm2, outlines, thresholds: classes.map(thresholdOf) };
}
