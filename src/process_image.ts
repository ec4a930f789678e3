/**
 * THE file a vendor edits: what this container does with a slide.
 *
 * As shipped it runs the classifier that CLASSIFIER names: `grid`, placeholders for trying the
 * chain, or `nuclei`, a nucleus detector for research use. Put yours in its place; the README has
 * a worked example.
 */

import { classifyGrid } from "./classifier/grid.ts";
import { classifyNuclei } from "./classifier/nuclei.ts";
import type { Context } from "./context.ts";
import type { Results } from "./results/schema.ts";
import type { Slide } from "./slide/slide.ts";

/**
 * Classifies a slide.
 * @param slide the open slide: `slide.levels`, `slide.properties`, `slide.readRegion(…)`.
 * @param context the GPU, `scanId`, `config`, `progress`, `log` and an abort `signal`.
 * @returns the results document, which is checked before it is written or posted.
 */
export async function processImage(slide: Slide, context: Context): Promise<Results> {
  return context.config.classifier === "grid"
    ? classifyGrid(slide, context)
    : await classifyNuclei(slide, context);
}
