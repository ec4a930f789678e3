/** Boxes of a detector, YOLO's or decoded ones: each belongs to the tile whose core its centre is in. */

import { type HostTensor, numbersOf } from "../model/host_tensor.ts";
import { boxFeature } from "../results/geojson.ts";
import { type Box, suppressBoxes } from "../pipeline/detect.ts";
import { colorOf, type Findings, type FoundObject } from "./onnx_findings.ts";
import { checkFinite, checkOutput } from "./onnx_model.ts";
import { type ModelRun, runModel } from "./onnx_tiles.ts";
import type { FloatType } from "../model/weights.ts";
import type { OutputOf, Sidecar } from "./sidecar.ts";

/** Score from which a box counts where its class says nothing: what YOLO's own tools take. */
const DEFAULT_THRESHOLD = 0.25;
/**
 * Two tiles need not agree on a centre that lies between their cores: each keeps those so many model
 * pixels beyond, where its overlap reaches that far, and suppression takes what both found once.
 */
const SHARED_PX = 4;

/** Boxes and scores as a detector gives them, whatever order its axes have. */
interface Candidates {
  readonly count: number;
  /** Number `field` of candidate `i` of image `n`. */
  box(n: number, i: number, field: number): number;
  score(n: number, i: number, of: number): number;
}

/** @throws {ModelError} where the output's shape is not that of the format. */
function candidatesOf(
  output: OutputOf<"boxes">,
  name: string,
  outputs: Readonly<Record<string, HostTensor>>,
  sidecar: Sidecar,
  float: FloatType,
): Candidates {
  const tensor = outputs[name]!, scores = outputs[output.scores ?? ""];
  checkOutput(sidecar, name, tensor.shape, scores?.shape);
  const [, a = 0, b = 0] = tensor.shape;
  const values = numbersOf(tensor);
  checkFinite(name, values, float);
  if (scores !== undefined) checkFinite(output.scores!, numbersOf(scores), float);
  const act = output.activation === "sigmoid"
    ? (v: number) => 1 / (1 + Math.exp(-v))
    : (v: number) => v;
  switch (output.format) {
    case "yolov8": {
      const at = (n: number, i: number, field: number) => values[(n * a + field) * b + i]!;
      return { count: b, box: at, score: (n, i, of) => act(at(n, i, 4 + of)) };
    }
    case "yolov5": {
      const at = (n: number, i: number, field: number) => values[(n * a + i) * b + field]!;
      return { count: a, box: at, score: (n, i, of) => act(at(n, i, 4)) * act(at(n, i, 5 + of)) };
    }
    case "decoded": {
      const all = numbersOf(scores!), classes = sidecar.classes.length;
      return {
        count: a,
        box: (n, i, field) => values[(n * a + i) * 4 + field]!,
        score: (n, i, of) => act(all[(n * a + i) * classes + of]!),
      };
    }
  }
}

/** Runs the model and suppresses what several tiles found. */
export async function runBoxes(
  run: ModelRun,
  output: OutputOf<"boxes">,
  name: string,
): Promise<Findings> {
  const { grid, geometry: { tilePx, marginPx }, sidecar, slide, context } = run;
  const { classes } = sidecar;
  const shared = Math.min(SHARED_PX, marginPx);
  const level0 = slide.levels[0]!;
  const thresholds = classes.map(({ threshold }) => threshold ?? DEFAULT_THRESHOLD);
  const boxes: Box[] = [];
  const unit = output.relative ? tilePx : 1;
  const finish = (): Findings => {
    const objects: FoundObject[] = [];
    for (const { x, y, width, height, score, kind } of suppressBoxes(boxes, output.iou)) {
      const [left, top] = [Math.max(0, Math.round(x)), Math.max(0, Math.round(y))];
      const box = {
        x: left,
        y: top,
        width: Math.min(level0.widthPx, Math.round(x + width)) - left,
        height: Math.min(level0.heightPx, Math.round(y + height)) - top,
      };
      // What lies off the slide, or is less than a pixel, is nothing to show.
      if (box.width > 0 && box.height > 0) objects.push({ box, score, of: kind });
    }
    const features = objects.flatMap(({ box, score, of }) => {
      const { annotation_type, name } = classes[of]!;
      return annotation_type === undefined ? [] : [boxFeature(
        { x0Px: box.x, y0Px: box.y, widthPx: box.width, heightPx: box.height },
        annotation_type,
        { name, score: Math.round(score * 1000) / 1000, color: colorOf(classes, of) },
      )];
    });
    return { features, objects, thresholds };
  };
  try {
    await runModel<Box[]>(run, {
      async read(plan, started, tiles) {
        const candidates = candidatesOf(
          output,
          name,
          await plan.read(started),
          sidecar,
          plan.float,
        );
        const found: Box[] = [];
        for (const [n, tile] of tiles.entries()) {
          for (let i = 0; i < candidates.count; i++) {
            let kind = 0, score = -Infinity;
            for (let of = 0; of < classes.length; of++) {
              const own = candidates.score(n, i, of);
              if (own > score) [kind, score] = [of, own];
            }
            if (!(score >= thresholds[kind]!) || classes[kind]!.ignore) continue;
            const [p, q, r, s] = [0, 1, 2, 3].map((field) =>
              unit * candidates.box(n, i, field)
            ) as [
              number,
              number,
              number,
              number,
            ];
            const [width, height] = output.box === "cxcywh" ? [r, s] : [r - p, s - q];
            const [cx, cy] = output.box === "cxcywh" ? [p, q] : [(p + r) / 2, (q + s) / 2];
            // What a neighbour's core has the centre of, the neighbour finds whole.
            const [inX, inY] = [cx - marginPx, cy - marginPx];
            const isOwn = (at: number) => at >= -shared && at < grid.corePx + shared;
            if (!isOwn(inX) || !isOwn(inY)) continue;
            const scale = grid.downsample;
            const x = (tile.x + inX - width / 2) * scale, y = (tile.y + inY - height / 2) * scale;
            if (!(width > 0 && height > 0)) continue;
            found.push({ x, y, width: width * scale, height: height * scale, score, kind });
          }
        }
        return found;
      },
      collect(found) {
        for (const box of found) boxes.push(box);
      },
    });
  } catch (error) {
    if (context.signal.aborted) run.keep(finish());
    throw error;
  }
  return finish();
}
