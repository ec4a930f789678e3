/**
 * THE file a vendor edits: what this container does with a slide.
 *
 * As shipped it runs the classifier that CLASSIFIER names: `grid`, placeholders for trying the
 * chain, `nuclei`, a nucleus detector for research use, or `onnx`, the model that MODEL names. Put
 * yours in its place; the README has a worked example.
 */

import { classifyGrid } from "./classifier/grid.ts";
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
  const { classifier, model } = context.config;
  if (model !== undefined && classifier !== "onnx") {
    context.log.warn(`MODEL is not run, since CLASSIFIER is ${classifier}`);
  }
  switch (classifier) {
    case "grid":
      return classifyGrid(slide, context);
    // Loaded when it is asked for: placeholders need no engine.
    case "nuclei": {
      const { classifyNuclei } = await import("./classifier/nuclei.ts");
      return await classifyNuclei(slide, context);
    }
    case "onnx": {
      const [{ classifyWithModel }, { loadWithSidecar }] = await Promise.all([
        import("./classifier/onnx.ts"),
        import("./classifier/onnx_model.ts"),
      ]);
      return await classifyWithModel(slide, context, await loadWithSidecar(model!));
    }
  }
}
