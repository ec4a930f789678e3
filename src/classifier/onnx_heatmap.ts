/** A score per class and pixel, of which each local maximum is a finding: found on the GPU. */

import { Batch } from "../../kernels/kernel.ts";
import {
  compilePeaks,
  type Peak,
  peakCapacity,
  readPeaks,
  recordPeaks,
} from "../../kernels/peaks.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { requireGpu } from "../context.ts";
import { type HostTensor, numbersOf } from "../model/host_tensor.ts";
import { channelsLast } from "../model/layout.ts";
import type { Plan } from "../model/session.ts";
import { Detections } from "../pipeline/detect.ts";
import { isTissue } from "../pipeline/tissue.ts";
import { multiPointFeature } from "../results/geojson.ts";
import type { Feature, Position } from "../results/schema.ts";
import type { Findings, FoundObject } from "./onnx_findings.ts";
import { checkFinite, checkOutput } from "./onnx_model.ts";
import { type ModelRun, needsHost, runModel } from "./onnx_tiles.ts";
import type { OutputOf } from "./sidecar.ts";

/** Score from which a maximum counts where its class says nothing. */
const DEFAULT_THRESHOLD = 0.5;
/** Of so many batches one is looked through for what is no number. */
const CHECKED_EVERY = 64;
/** Radius of a point whose class says nothing: half a nucleus. */
const DEFAULT_RADIUS_UM = 3;

/**
 * Runs the model and searches its scores.
 * @param wanted a threshold for all classes, instead of theirs and of what the slide would give.
 */
export async function runHeatmap(
  run: ModelRun,
  output: OutputOf<"heatmap">,
  name: string,
  wanted: number | undefined,
): Promise<Findings> {
  const { grid, geometry: { tilePx, marginPx }, sidecar, slide, context, mask } = run;
  const { classes } = sidecar;
  const gpu = requireGpu(context);
  const { widthPx, heightPx } = slide.levels[0]!;
  const mpp0 = grid.mppX / grid.downsample;
  const own = classes.map(({ threshold }) => threshold ?? DEFAULT_THRESHOLD);
  const least = wanted ?? Math.min(...own);
  // Where classes compete all are in one list, else each has its own.
  const lists = classes.map(() => new Detections());
  const listOf = (of: number) => output.compete ? lists[0]! : lists[of]!;
  const peaks = await compilePeaks(gpu, { radius: output.peak_radius, each: !output.compete });
  const owned: Tensor[] = [];
  let tensors: { count: Tensor; found: Tensor } | undefined;
  let batches = 0;
  /** Model pixels per pixel of the map. */
  let stride = 1;
  const finish = (): Findings => findingsOf(run, output, lists, own, wanted);
  try {
    await runModel<Peak[][]>(run, {
      layouts: { [name]: channelsLast(4) },
      async read(plan, started) {
        const early = needsHost(plan) ? await started : undefined;
        const { scores, shape } = scoresOf(plan, name, early, owned);
        checkOutput(sidecar, name, shape);
        const [images = 0, , , width = 0] = shape;
        stride = tilePx / width;
        const core = {
          x: marginPx / stride,
          y: marginPx / stride,
          width: grid.corePx / stride,
          height: grid.corePx / stride,
        };
        const capacity = peakCapacity(core.width, core.height, output.peak_radius) *
          (output.compete ? 1 : scores.shape[3]!);
        if (tensors === undefined) {
          tensors = {
            count: new Tensor(gpu, "u32", [images], "count"),
            found: new Tensor(gpu, "f32", [images, capacity, 4], "found"),
          };
          owned.push(tensors.count, tensors.found);
        }
        // A whole map comes back now and then only: what is no number is so everywhere, as a rule.
        const looked = batches++ % CHECKED_EVERY === 0 ? scores.readFloats() : undefined;
        tensors.count.write(new Uint32Array(images));
        const batch = new Batch(gpu);
        recordPeaks(batch, peaks, { scores, ...tensors }, core, least);
        batch.submit();
        const [found, values] = await Promise.all([readPeaks(tensors), looked]);
        if (values !== undefined) checkFinite(name, values, plan.float);
        return found;
      },
      collect(found, tiles) {
        for (const [i, tile] of tiles.entries()) {
          for (const { x, y, score, channel } of found[i]!) {
            // Of the padding's zeros none is a class.
            if (channel >= classes.length) continue;
            const x0 = (tile.x - marginPx + (x + 0.5) * stride) * grid.downsample;
            const y0 = (tile.y - marginPx + (y + 0.5) * stride) * grid.downsample;
            if (x0 >= widthPx || y0 >= heightPx || x0 < 0 || y0 < 0) continue;
            if (output.tissue_only && !isTissue(mask, x0, y0)) continue;
            if (wanted === undefined && score < own[channel]!) continue;
            const radius = (classes[channel]!.radius_um ?? DEFAULT_RADIUS_UM) / mpp0;
            listOf(channel).add(x0, y0, radius, score, channel);
          }
        }
      },
    });
    return finish();
  } catch (error) {
    if (context.signal.aborted) run.keep(finish());
    throw error;
  } finally {
    for (const tensor of owned) tensor.destroy();
  }
}

/** The scores on the GPU, [N, h, w, K] with K padded: as the plan has them, or brought there from the host. */
function scoresOf(
  plan: Plan,
  name: string,
  early: ReadonlyMap<string, HostTensor> | undefined,
  owned: Tensor[],
): { scores: Tensor; shape: readonly number[] } {
  const value = plan.outputs.get(name)!;
  if (typeof value === "object" && "memory" in value) {
    return { scores: value.tensor, shape: value.shape };
  }
  const tensor = value === "host" ? early!.get(name)! : value;
  const { shape } = tensor;
  const [images = 0, channels = 0, height = 0, width = 0] = shape;
  const values = numbersOf(tensor);
  const pixels = height * width, padded = Math.ceil(channels / 4) * 4;
  const data = new Float32Array(images * pixels * padded);
  for (let image = 0, i = 0; image < images; image++) {
    for (let c = 0; c < channels; c++) {
      for (let at = 0; at < pixels; at++) data[(image * pixels + at) * padded + c] = values[i++]!;
    }
  }
  const scores = Tensor.from(plan.gpu, data, [images, height, width, padded], name);
  owned.push(scores);
  return { scores, shape };
}

/** Suppresses, and makes features of what is left. */
function findingsOf(
  { sidecar: { classes } }: ModelRun,
  { adaptive, suppression, merge_as }: OutputOf<"heatmap">,
  lists: readonly Detections[],
  own: readonly number[],
  wanted: number | undefined,
): Findings {
  const objects: FoundObject[] = [];
  let least = Infinity;
  for (const list of lists) {
    if (list.length === 0) continue;
    const follows = adaptive === undefined
      ? 0
      : adaptive.factor * Math.min(1, list.scoreQuantile(adaptive.quantile));
    const threshold = wanted ?? Math.max(Math.min(...own), follows);
    least = Math.min(least, threshold);
    for (const { x, y, radius, score, kind } of list.suppress(suppression, threshold)) {
      if (classes[kind]!.ignore) continue;
      const side = Math.round(2 * radius);
      const [px, py] = [Math.round(x), Math.round(y)];
      objects.push({
        box: { x: px - side / 2, y: py - side / 2, width: side, height: side },
        score,
        of: kind,
      });
    }
  }
  const places = new Map<string, { name: string; positions: Position[] }>();
  for (const { box, of } of objects) {
    const type = classes[of]!.annotation_type;
    if (type === undefined) continue;
    let place = places.get(type);
    if (place === undefined) places.set(type, place = { name: classes[of]!.name, positions: [] });
    place.positions.push([box.x + box.width / 2, box.y + box.height / 2]);
  }
  const features = [...places].map(([type, { positions }]): Feature =>
    multiPointFeature(positions, type)
  );
  return {
    features,
    objects,
    thresholds: Number.isFinite(least) ? own.map(() => least) : own.map((t) => wanted ?? t),
    ...(merge_as === undefined ? {} : { mergedAs: merge_as }),
  };
}
