import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { classifyWithModel } from "../../src/classifier/onnx.ts";
import { loadWithSidecar } from "../../src/classifier/onnx_model.ts";
import { parseSidecar } from "../../src/classifier/sidecar.ts";
import { ConfigError, ModelError } from "../../src/errors.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";
import { fitted, paint, RED, written } from "./models.ts";

const TILE = 64, MPP = 0.5;
const SLIDE = () => pictureSlide(paint(256, 192, () => RED), MPP);

/** A map [batch, 1, tile, tile] that is 0 divided by 0 where red is, pooled to [batch, 1] where asked for. */
function undefinedScores(pooled: boolean): Uint8Array<ArrayBuffer> {
  return written(TILE, (model, image) => {
    const none = model.node("Conv", [image, model.floats([1, 3, 1, 1], [0, 0, 0])]);
    const nan = model.node("Div", [none, none]);
    if (!pooled) {
      model.node("Identity", [nan], {}, "map");
      return [["map", ["batch", 1, TILE, TILE]]];
    }
    model.node("Flatten", [model.node("GlobalAveragePool", [nan])], {}, "scores");
    return [["scores", ["batch", 1]]];
  });
}

for (const kind of ["classes", "segmentation", "heatmap"] as const) {
  Deno.test(`a model of ${kind} that gives no numbers is an error, not a slide without findings`, async () => {
    const model = await fitted(undefinedScores(kind === "classes"), {
      input: { mpp: MPP, tile: TILE },
      output: { kind },
      classes: [{ name: "tumor", annotation_type: "tumor" }],
    });
    const context = testContext(await sharedGpu());
    await assert.rejects(
      classifyWithModel(SLIDE(), context, model),
      (error: Error) =>
        error instanceof ModelError && /values are NaN or overflow/.test(error.message),
    );
  });
}

Deno.test("logits that are taken for probabilities are an error that says what to set", async () => {
  const bytes = written(TILE, (model, image) => {
    const mean = model.node("GlobalAveragePool", [image]);
    const flat = model.node("Flatten", [mean]);
    model.node("Gemm", [flat, model.floats([2, 3], [9, 0, 0, 0, 0, 9])], { transB: 1 }, "scores");
    return [["scores", ["batch", 2]]];
  });
  const sidecar = (activation: string) => ({
    input: { mpp: MPP, tile: TILE },
    output: { kind: "classes", activation },
    classes: [{ name: "a" }, { name: "b" }],
  });
  const gpu = await sharedGpu();
  await assert.rejects(
    classifyWithModel(SLIDE(), testContext(gpu), await fitted(bytes, sidecar("none"))),
    /one is 7\.\d+; if the model gives logits, set output\.activation/,
  );
  await classifyWithModel(SLIDE(), testContext(gpu), await fitted(bytes, sidecar("softmax")));
});

Deno.test("a report that the output has nothing for is refused with the sidecar", () => {
  const sidecar = (kind: string, type: string) =>
    JSON.stringify({
      name: "x",
      input: { mpp: 0.5, tile: 64 },
      output: { kind },
      classes: [{ name: "a" }],
      report: { type },
    });
  for (
    const [kind, type] of [["segmentation", "RegionCounting"], ["heatmap", "AreaDifferential"]]
  ) {
    assert.throws(() => parseSidecar(sidecar(kind!, type!), "model.json"), /report\.type/);
  }
  parseSidecar(sidecar("heatmap", "AiMitosisCounting"), "model.json");
  parseSidecar(sidecar("segmentation", "TumorCellularity"), "model.json");
});

Deno.test("loadWithSidecar() says what is no model and no sidecar before it reads them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "wgslide-sidecar-"));
  const model = join(folder, "model.onnx"), beside = join(folder, "model.json");
  const fails = (path: string, what: RegExp) =>
    assert.rejects(
      loadWithSidecar(path),
      (error: Error) => error instanceof ConfigError && what.test(error.message),
    );
  try {
    await fails(model, /Cannot find the model/);
    await fails(folder, /it is no file/);
    writeFileSync(model, "x");
    await fails(model, /"[^"]*model\.json" is missing/);
    writeFileSync(beside, " ".repeat(2 ** 20 + 1));
    await fails(model, /1048577 bytes/);
    // A byte order mark is no part of JSON, and no reason to refuse it.
    writeFileSync(beside, "\ufeff{}");
    await fails(model, /name/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
