/**
 * Any ONNX model over the slide's tissue: `CLASSIFIER=onnx` with `MODEL` and `model.json` beside it.
 */

import { StainError } from "../../kernels/errors.ts";
import { Batch } from "../../kernels/kernel.ts";
import type { Normalisation } from "../../kernels/normalise.ts";
import {
  MACENKO_TARGET,
  REINHARD_TARGET,
  StainAccumulator,
  stainNormalisation,
} from "../../kernels/stain.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { Tuner } from "../../kernels/tuner.ts";
import { type Context, requireGpu } from "../context.ts";
import { appendToOutput } from "../model/append.ts";
import { fuse } from "../model/fuse.ts";
import type { Graph } from "../model/graph.ts";
import { type Precision, Session } from "../model/session.ts";
import { traceMask } from "../pipeline/contour.ts";
import { ASSUMED_MPP, cutGrid, scaleOf } from "../pipeline/grid.ts";
import { overviewOf } from "../pipeline/overview.ts";
import { findTissue, tissueAreaMm2, type TissueMask } from "../pipeline/tissue.ts";
import type { Outline } from "../results/geojson.ts";
import type { Position, Results } from "../results/schema.ts";
import type { Slide } from "../slide/slide.ts";
import { runBoxes } from "./onnx_boxes.ts";
import { runClasses } from "./onnx_classes.ts";
import { type Findings, resultsOf, type SlideFacts } from "./onnx_findings.ts";
import { runHeatmap } from "./onnx_heatmap.ts";
import type { FittedModel } from "./onnx_model.ts";
import { type MapGeometry, mapOf, runSegmentation } from "./onnx_segmentation.ts";
import { type ModelRun, normalisationOf } from "./onnx_tiles.ts";
import type { Sidecar } from "./sidecar.ts";

/** How far the drawn outline of the tissue may leave the mask, in mask pixels. */
const OUTLINE_TOLERANCE_PX = 0.8;
/** Micrometres per pixel at which stains are estimated: a cell is some pixels, and a slide some seconds. */
const STAIN_MPP = 2;
/** Side of what is read at one go for that. */
const STAIN_BLOCK_PX = 1024;

/** What a classifier that is built in says instead of sidecar and configuration. */
export interface ClassifyOptions {
  /** Instead of the classes' own. */
  readonly threshold?: number | undefined;
  readonly precision?: Precision;
}

/** `auto` is f32 on a software adapter, where f16 is converted at every step and never faster. */
function precisionFor({ gpu, config: { precision } }: Context): Precision {
  return precision === "auto" && gpu?.adapter.isSoftware ? "f32" : precision;
}

/**
 * Runs a model over the tissue.
 * @returns findings as the sidecar's output and report say.
 * @throws {KernelError} without a GPU or where it fails. @throws {ModelError} where the model cannot be
 *   run or its output is not what the sidecar says. Also what reading throws, and the signal's reason.
 */
export async function classifyWithModel(
  slide: Slide,
  context: Context,
  model: FittedModel,
  { threshold, precision = precisionFor(context) }: ClassifyOptions = {},
): Promise<Results> {
  const { sidecar } = model;
  const gpu = requireGpu(context);
  const { signal, log, scanId } = context;
  const { mppX, mppY, assumed } = scaleOf(slide);
  if (assumed) {
    const said = slide.properties.mppX;
    log.warn(
      (said === undefined
        ? "The slide does not say its micrometres per pixel"
        : `The slide says ${said} micrometres per pixel, which no scanner has`) +
        `: ${ASSUMED_MPP} is taken (20x), and areas and sizes are as wrong as that is`,
    );
  }
  if (Math.max(mppX, mppY) > 1.1 * Math.min(mppX, mppY)) {
    log.warn(
      `The slide's pixels are ${mppX} × ${mppY} µm: what is round on glass is not in them, ` +
        `and the model may miss it`,
    );
  }
  const mask = findTissue(await overviewOf(slide, context), mppX);
  const { input, output } = sidecar;
  const corePx = input.tile - input.overlap;
  const grid = cutGrid(slide, mask, {
    mpp: input.mpp,
    corePx,
    leastTissue: input.tissue,
    snap: true,
  });
  const marginPx = input.overlap / 2;
  if (grid.mppX > 1.5 * input.mpp) {
    log.warn(
      `The slide has ${grid.mppX.toFixed(2)} µm/px at best, the model wants ${input.mpp}: ` +
        `findings are doubtful`,
    );
  }
  if (grid.tiles.length === 0) log.warn("No tissue was found: the slide is taken as empty");
  const geometry = { tilePx: input.tile, marginPx };
  const map = output.kind === "segmentation"
    ? mapOf(model, output.map_mpp, { grid, geometry })
    : undefined;
  const { name, graph } = prepare(model, map?.isNumbers ? 1 : map?.factor);
  const { tuningCache } = context.config;
  const tuner = tuningCache === undefined ? undefined : new Tuner(gpu, tuningCache);
  const session = new Session(gpu, fuse(graph), {
    precision,
    onPrecision: (message) => log.info(message),
    ...(tuner === undefined ? {} : { tuner }),
  });
  log.info(
    `${sidecar.name}: tiles of ${input.tile} px: ${grid.tiles.length}, at ` +
      `${grid.mppX.toFixed(3)} µm/px from level ${grid.level}`,
  );
  const { widthPx, heightPx } = slide.levels[0]!;
  const facts: SlideFacts = {
    scanId,
    tissueAreaMm2: tissueAreaMm2(mask, mppX, mppY),
    tissue: tissueOutlines(mask),
    slide: [[[0, 0], [0, heightPx], [widthPx, heightPx], [widthPx, 0], [0, 0]]],
  };
  try {
    const run: ModelRun = {
      slide,
      context,
      session,
      model,
      sidecar,
      normalisation: {
        ...normalisationOf(input),
        ...await stainOf(slide, context, mask, input.stain),
      },
      grid,
      geometry,
      mask,
      keep: (findings) => context.keep(resultsOf(findings, sidecar, facts)),
    };
    signal.throwIfAborted();
    const results = resultsOf(await runOutput(run, output, name, map, threshold), sidecar, facts);
    if (tuner?.problem !== undefined) log.warn(`TUNING_CACHE: ${tuner.problem}`);
    return results;
  } finally {
    await session.destroy();
  }
}

function runOutput(
  run: ModelRun,
  output: Sidecar["output"],
  name: string,
  map: MapGeometry | undefined,
  threshold: number | undefined,
): Promise<Findings> {
  switch (output.kind) {
    case "classes":
      return runClasses(run, output, name);
    case "segmentation":
      return runSegmentation(run, output, name, map!);
    case "heatmap":
      return runHeatmap(run, output, name, threshold);
    case "boxes":
      return runBoxes(run, output, name);
  }
}

/** The graph with what the sidecar says of its output appended: activation, and a map's larger pixels. */
export function prepare(
  { graph, sidecar: { output }, output: name }: FittedModel,
  /** Output pixels, on each axis, that become one. */
  factor = 1,
): { graph: Graph; name: string } {
  if (output.kind === "boxes") return { graph, name };
  let prepared = { graph, name };
  if (output.activation !== "none") {
    prepared = appendToOutput(
      prepared.graph,
      prepared.name,
      output.activation === "softmax" ? "Softmax" : "Sigmoid",
      output.activation === "softmax" ? { axis: 1 } : {},
    );
  }
  if (factor > 1) {
    prepared = appendToOutput(prepared.graph, prepared.name, "AveragePool", {
      kernel_shape: [factor, factor],
      strides: [factor, factor],
    });
  }
  return prepared;
}

/** Outlines of the tissue in level-0 pixels. */
export function tissueOutlines(mask: TissueMask): Outline[] {
  return traceMask(mask.data, mask.widthPx, mask.heightPx, OUTLINE_TOLERANCE_PX)
    .map(([outer, ...holes]) => {
      const scale = (ring: readonly Position[]): Position[] =>
        ring.map(([x, y]) => [
          Math.round(x * mask.downsampleX),
          Math.round(y * mask.downsampleY),
        ]);
      return [scale(outer), ...holes.map(scale)];
    });
}

/** What moves the slide's stains to the usual ones, where that is wanted and they can be told. */
async function stainOf(
  slide: Slide,
  context: Context,
  mask: TissueMask,
  kind: Sidecar["input"]["stain"],
): Promise<Pick<Normalisation, "stain">> {
  if (kind === "none" || !mask.data.includes(1)) return {};
  try {
    return { stain: await estimateStain(slide, context, mask, kind) };
  } catch (error) {
    if (!(error instanceof StainError)) throw error;
    // A speck of tissue, or a stain other than the method's: colours as they are do less harm than a guess.
    context.log.warn(`${error.message}: the slide's colours are left as they are`);
    return {};
  }
}

/** Counts the colours of all tissue at a coarser level, and says what moves them to the usual ones. */
async function estimateStain(
  slide: Slide,
  context: Context,
  mask: TissueMask,
  kind: "macenko" | "reinhard",
) {
  const gpu = requireGpu(context);
  const { tiles, level, ratio, corePx } = cutGrid(slide, mask, {
    mpp: STAIN_MPP,
    corePx: STAIN_BLOCK_PX,
    snap: true,
  });
  const { widthPx, heightPx } = slide.levels[level]!;
  const accumulator = await StainAccumulator.create(gpu);
  try {
    for (const [i, { x, y }] of tiles.entries()) {
      const [xPx, yPx] = [Math.round(x * ratio), Math.round(y * ratio)];
      const side = Math.round(corePx * ratio);
      const { data, widthPx: width, heightPx: height } = await slide.readRegion({
        level,
        xPx,
        yPx,
        widthPx: Math.min(side, widthPx - xPx),
        heightPx: Math.min(side, heightPx - yPx),
        signal: context.signal,
      });
      const pixels = Tensor.from(gpu, data, [height, width, 3], "colours");
      const batch = new Batch(gpu);
      accumulator.record(batch, pixels);
      batch.submit();
      await gpu.done();
      pixels.destroy();
      context.progress(i + 1, tiles.length, "blocks for stains");
    }
    return kind === "macenko"
      ? stainNormalisation(await accumulator.estimate("macenko"), MACENKO_TARGET)
      : stainNormalisation(await accumulator.estimate("reinhard"), REINHARD_TARGET);
  } finally {
    accumulator.destroy();
  }
}
