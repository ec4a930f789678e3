/** A probability per class for each tile: areas, and a heat map of each class as contours. */

import { Batch } from "../../kernels/kernel.ts";
import { compileIsolines, readIsolines, recordIsolines } from "../../kernels/isolines.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { requireGpu } from "../context.ts";
import { numbersOf } from "../model/host_tensor.ts";
import { chainIsolines } from "../pipeline/contour.ts";
import { tissueWithin } from "../pipeline/tissue.ts";
import type { Outline } from "../results/geojson.ts";
import type { Feature, Position, Ring } from "../results/schema.ts";
import { colorOf, type Findings } from "./onnx_findings.ts";
import { checkFinite, checkOutput, checkProbabilities } from "./onnx_model.ts";
import { type ModelRun, runModel } from "./onnx_tiles.ts";
import type { OutputOf } from "./sidecar.ts";

/** Probability from which a tile is of a class that says nothing itself. */
const DEFAULT_THRESHOLD = 0.5;

/** Probabilities by class on the grid of tiles; 0 where no tile was run. */
interface TileMap {
  readonly columns: number;
  readonly rows: number;
  /** `[class][row · columns + column]`. */
  readonly scores: readonly Float32Array[];
}

/** Runs the model; the area of a tile is that of its core's tissue. */
export async function runClasses(
  run: ModelRun,
  output: OutputOf<"classes">,
  name: string,
): Promise<Findings> {
  const { grid, sidecar, context, mask } = run;
  const { classes } = sidecar;
  const { corePx, tiles } = grid;
  const columns = tiles.reduce((most, { x }) => Math.max(most, x / corePx + 1), 0);
  const rows = tiles.reduce((most, { y }) => Math.max(most, y / corePx + 1), 0);
  const map: TileMap = {
    columns,
    rows,
    scores: classes.map(() => new Float32Array(columns * rows)),
  };
  const known = new Uint8Array(columns * rows);
  const thresholds = classes.map(({ threshold }) => threshold ?? DEFAULT_THRESHOLD);
  const finish = async (): Promise<Findings> => {
    const core0 = corePx * grid.downsample;
    // Of a level-0 pixel.
    const mm2 = grid.mppX * grid.mppY / grid.downsample ** 2 / 1e6;
    const areasMm2 = classes.map(() => 0);
    for (const { x, y } of tiles) {
      const at = y / corePx * columns + x / corePx;
      if (known[at] === 0) continue;
      const best = bestClass(map, at);
      if (map.scores[best]![at]! >= thresholds[best]!) {
        areasMm2[best]! += mm2 *
          tissueWithin(mask, x * grid.downsample, y * grid.downsample, core0);
      }
    }
    const { features, outlines } = await heatMaps(run, map, output.contours, core0);
    return { features, areasMm2, outlines, thresholds };
  };
  try {
    await runModel<ArrayLike<number>>(run, {
      async read(plan, started, batchTiles) {
        const { [name]: result } = await plan.read(started);
        checkOutput(sidecar, name, result!.shape);
        const scores = numbersOf(result!).subarray(0, batchTiles.length * classes.length);
        checkFinite(name, scores, plan.float);
        if (output.activation === "none") checkProbabilities(name, scores);
        return scores;
      },
      collect(scores, batchTiles) {
        for (const [i, { x, y }] of batchTiles.entries()) {
          const at = y / corePx * columns + x / corePx;
          known[at] = 1;
          for (let c = 0; c < classes.length; c++) {
            map.scores[c]![at] = scores[i * classes.length + c]!;
          }
        }
      },
    });
  } catch (error) {
    if (context.signal.aborted) run.keep(await finish());
    throw error;
  }
  return await finish();
}

function bestClass({ scores }: TileMap, at: number): number {
  let best = 0;
  for (let c = 1; c < scores.length; c++) if (scores[c]![at]! > scores[best]![at]!) best = c;
  return best;
}

/** A colour that grows stronger with the level: from the class's own mixed with white. */
function shade(color: string, level: number, levels: number): string {
  const part = (level + 1) / levels;
  const channel = (at: number) =>
    Math.round(255 + (parseInt(color.slice(at, at + 2), 16) - 255) * part)
      .toString(16).padStart(2, "0");
  return `#${channel(1)}${channel(3)}${channel(5)}`;
}

/** Contours of each class that has an annotation type, in one feature each. */
async function heatMaps(
  { context, slide, sidecar: { classes } }: ModelRun,
  { columns, rows, scores }: TileMap,
  thresholds: readonly number[],
  core0: number,
): Promise<{ features: Feature[]; outlines: Outline[][] }> {
  const features: Feature[] = [];
  const outlines: Outline[][] = classes.map(() => []);
  if (columns * rows === 0) return { features, outlines };
  const gpu = requireGpu(context);
  const { widthPx, heightPx } = slide.levels[0]!;
  const levels = [...thresholds].sort((a, b) => a - b);
  const isolines = await compileIsolines(gpu);
  const level = Tensor.from(gpu, Float32Array.from(levels), [levels.length], "thresholds");
  for (
    const [c, { name, annotation_type, threshold = DEFAULT_THRESHOLD, ignore }] of classes.entries()
  ) {
    if (ignore) continue;
    const values = new Float32Array(columns * rows * 4);
    scores[c]!.forEach((score, i) => values[4 * i] = score);
    const map = Tensor.from(gpu, values, [1, rows, columns, 4], "heat map");
    // Every edge of the map's frame may be crossed once by each level.
    const capacity = 2 * (columns + 2) * (rows + 2) * levels.length;
    const count = new Tensor(gpu, "u32", [1], "count");
    const segments = new Tensor(gpu, "u32", [capacity, 4], "segments");
    const batch = new Batch(gpu);
    recordIsolines(batch, isolines, { scores: map, thresholds: level, count, segments }, 0);
    batch.submit();
    const areas = chainIsolines(
      await readIsolines({ count, segments }),
      columns,
      levels.length,
    );
    for (const tensor of [map, count, segments]) tensor.destroy();
    const geometries: { type: "Polygon"; coordinates: readonly Ring[] }[] = [];
    const colors: string[] = [];
    for (const area of areas) {
      for (const piece of area.pieces) {
        const rings = piece.map((ring) =>
          ring.map(([x, y]): Position => [
            Math.min(widthPx, Math.max(0, Math.round(x * core0))),
            Math.min(heightPx, Math.max(0, Math.round(y * core0))),
          ])
        ) as unknown as Outline;
        geometries.push({ type: "Polygon", coordinates: rings });
        colors.push(shade(colorOf(classes, c), area.level, levels.length));
        // The outline nearest to the class's own threshold stands for it in reports.
        const nearest = levels.reduce((a, b) =>
          Math.abs(b - threshold) < Math.abs(a - threshold) ? b : a
        );
        if (levels[area.level] === nearest) outlines[c]!.push(rings);
      }
    }
    if (annotation_type === undefined || geometries.length === 0) continue;
    const xs = geometries.flatMap(({ coordinates }) => coordinates[0]!.map(([x]) => x));
    const ys = geometries.flatMap(({ coordinates }) => coordinates[0]!.map(([, y]) => y));
    const least = (list: readonly number[]) => list.reduce((a, b) => Math.min(a, b));
    const most = (list: readonly number[]) => list.reduce((a, b) => Math.max(a, b));
    features.push({
      type: "Feature",
      bbox: [least(xs), least(ys), most(xs), most(ys)],
      geometry: { type: "GeometryCollection", geometries },
      properties: { annotation_type, name, contour_colors: colors },
    });
  }
  level.destroy();
  return { features, outlines };
}
