/**
 * A nucleus detector without training, for research use only: haematoxylin by colour deconvolution,
 * blobs by a multi-scale Laplacian of Gaussian, and the best of those that compete. It is an ONNX
 * model with its sidecar, made for the slide's scale and run as any other.
 */

import type { Context } from "../context.ts";
import { readModel } from "../model/onnx.ts";
import { scaleFor, scaleOf } from "../pipeline/grid.ts";
import type { Results } from "../results/schema.ts";
import type { Slide } from "../slide/slide.ts";
import { nucleiModel } from "./nuclei_model.ts";
import { classifyWithModel } from "./onnx.ts";
import { fitModel } from "./onnx_model.ts";

/** Micrometres per model pixel. */
const MPP = 0.5;
/** Side of a tile's core in model pixels: its maps fit a CPU's caches better than larger ones'. */
const CORE_PX = 512;
/** Tiles in one run: a CPU is busy with one. */
const BATCH = { hardware: 8, software: 1 } as const;
/** Micrometres per pixel above which nuclei are specks, and many are missed. */
const COARSEST_MPP = 1.1;

/**
 * Finds nuclei on the whole slide.
 * @returns `caseResults` {nucleusCount, tissueAreaMm2, nucleiPerMm2}, the tissue's outline, all
 *   nuclei as one MultiPoint and a WholeSlideDifferential report.
 * @throws {KernelError} without a GPU or where it fails, what reading throws, and the signal's
 *   reason where it is aborted; then what was found so far has been kept.
 */
export async function classifyNuclei(slide: Slide, context: Context): Promise<Results> {
  const { mppX, mppY } = scaleOf(slide);
  const { widthPx, heightPx } = slide.levels[0]!;
  // A slide smaller than a tile gets a smaller one.
  const longer = Math.ceil(Math.max(widthPx * mppX, heightPx * mppY) / MPP);
  const corePx = Math.min(CORE_PX, Math.max(64, Math.ceil(longer / 64) * 64));
  const mpp = scaleFor(slide, { mpp: MPP, corePx, snap: true }).mppX;
  if (mpp > COARSEST_MPP) {
    context.log.warn(`Nuclei are hardly resolved at ${mpp.toFixed(2)} µm/px: many are missed`);
  }
  const { bytes, sidecar } = nucleiModel(mpp, corePx);
  const perArea = (results: Results): Results => {
    const { nucleusCount, nucleusPerMm2, tissueAreaMm2 } = results.caseResults as Record<
      string,
      number
    >;
    return {
      ...results,
      caseResults: { nucleusCount, tissueAreaMm2, nucleiPerMm2: nucleusPerMm2 },
    };
  };
  const results = await classifyWithModel(
    slide,
    { ...context, keep: (partial) => context.keep(perArea(partial)) },
    fitModel(await readModel(bytes), {
      ...sidecar,
      input: {
        ...sidecar.input,
        batch: BATCH[context.gpu?.adapter.isSoftware === false ? "hardware" : "software"],
      },
    }),
    // Found nuclei are the same on every device.
    { threshold: context.config.nucleiThreshold, precision: "f32" },
  );
  return perArea(results);
}
