import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { KernelError } from "../../kernels/errors.ts";
import { MACENKO_TARGET, REINHARD_TARGET } from "../../kernels/stain.ts";
import { classifyWithModel } from "../../src/classifier/onnx.ts";
import { processImage } from "../../src/process_image.ts";
import { checkResults, type Results } from "../../src/results/schema.ts";
import { encodeSample } from "../../src/sample/sample.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Picture } from "../../src/slide/slide.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { labOf, rgbOf } from "../reference/normalise.ts";
import { macenko, macenkoNormalise } from "../reference/stain.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";
import {
  BLUE,
  fitted,
  GLASS,
  paint,
  pixelwise,
  RED,
  type Rgb,
  written,
  type WrittenSidecar,
} from "./models.ts";

/** [batch, 2]: the mean of red and of blue. */
const means = (tile: number) =>
  written(tile, (model, image) => {
    const flat = model.node("Flatten", [model.node("GlobalAveragePool", [image])]);
    model.node("Gemm", [flat, model.floats([2, 3], [1, 0, 0, 0, 0, 1])], { transB: 1 }, "scores");
    return [["scores", ["batch", 2]]];
  });

const CLASSES = [
  { name: "red", annotation_type: "red", threshold: 0.1 },
  { name: "blue", annotation_type: "blue", threshold: 0.1 },
];

const sidecar = (input: Record<string, unknown>, output: Record<string, unknown> = {}) =>
  ({
    input: { mpp: 0.5, ...input },
    output: { kind: "classes", ...output },
    classes: CLASSES,
  }) satisfies WrittenSidecar;

const numbers = (results: Results) => results.caseResults as Record<string, number>;

Deno.test("classifyWithModel() takes slides of any size, smaller than a tile too", async () => {
  const gpu = await sharedGpu();
  for (const [width, height] of [[1, 1], [5, 300], [100, 60], [257, 130]] as const) {
    for (const tile of [64, 512]) {
      const context = testContext(gpu);
      const model = await fitted(means(tile), sidecar({ tile, overlap: 16, tissue: 0 }));
      const slide = pictureSlide(paint(width, height, () => RED), 0.5);
      const results = await classifyWithModel(slide, context, model);
      checkResults(results);
      const { redAreaMm2, tissueAreaMm2, blueAreaMm2 } = numbers(results);
      // One pixel is tissue or not: its area rounds to nothing.
      assert.equal(redAreaMm2! + blueAreaMm2!, tissueAreaMm2, `${width} × ${height}, ${tile}`);
    }
  }
});

Deno.test("classifyWithModel() warns of a slide that is coarser than the model wants", async () => {
  const context = testContext(await sharedGpu());
  const model = await fitted(means(32), sidecar({ tile: 32, tissue: 0 }));
  await classifyWithModel(pictureSlide(paint(200, 100, () => RED), 2), context, model);
  assert.match(
    context.warnings.join("\n"),
    /The slide has 2\.00 µm\/px at best, the model wants 0\.5/,
  );
});

Deno.test("classifyWithModel() needs a GPU", async () => {
  const model = await fitted(means(64), sidecar({ tile: 64 }));
  await assert.rejects(
    classifyWithModel(pictureSlide(paint(9, 9, () => RED), 0.5), testContext(undefined), model),
    KernelError,
  );
});

Deno.test("classifyWithModel() keeps what it has of every kind where it is interrupted", async () => {
  const gpu = await sharedGpu();
  // Rows of blocks of tiles: some are done when others are not.
  const picture = paint(
    300,
    3000,
    (x, y) => x % 40 < 3 && y % 40 < 3 ? [255, 60, 60] : x < 150 ? RED : BLUE,
  );
  const reason = new Error("out of time");
  const boxes = written(128, (model, image) => {
    const mean = model.node("ReduceMean", [image], { axes: [1, 2, 3], keepdims: 0 });
    const one = model.node("Reshape", [mean, model.integers([0, 1, 1])]);
    const zero = model.node("Sub", [one, one]);
    model.node("Add", [zero, model.floats([1, 6, 1], [64, 64, 20, 20, 0.9, 0.1])], {}, "boxes");
    return [["boxes", ["batch", 6, 1]]];
  });
  const map = pixelwise(128, [[1, 0, 0], [0, 0, 1]], [0, 0]);
  for (
    const [kind, bytes] of [
      ["classes", means(128)],
      ["segmentation", map],
      ["heatmap", map],
      ["boxes", boxes],
    ] as const
  ) {
    const model = await fitted(bytes, {
      ...sidecar({ tile: 128, batch: 2, tissue: 0 }),
      output: { kind, ...(kind === "boxes" ? { format: "yolov8" } : {}) },
    });
    const run = async (after: number) => {
      const stop = new AbortController();
      const context = testContext(gpu, {}, stop.signal);
      await assert.rejects(
        classifyWithModel(pictureSlide(picture, 0.5), {
          ...context,
          progress: (done) => done >= after && stop.abort(reason),
        }, model),
        reason,
      );
      return context.kept;
    };
    const whole = await classifyWithModel(pictureSlide(picture, 0.5), testContext(gpu), model);
    const [kept, ...others] = await run(20);
    assert.deepEqual(others, [], kind);
    checkResults(kept!);
    const sum = (results: Results) =>
      Object.entries(numbers(results)).reduce(
        (all, [name, value]) => name === "tissueAreaMm2" ? all : all + value,
        0,
      );
    assert.ok(sum(kept!) > 0 && sum(kept!) < sum(whole), `${kind}: ${sum(kept!)}, ${sum(whole)}`);
  }
});

/** Reinhard's method over what is tissue: every channel below 206 (v + 1 ≤ 240 · e^−0.15). */
function reinhardNormalise(rgb: Uint8Array): Float64Array {
  const pixels = Array.from(
    { length: rgb.length / 3 },
    (_, i) => [...rgb.subarray(3 * i, 3 * i + 3)],
  );
  const tissue = pixels.filter((pixel) => Math.max(...pixel) < 206).map(labOf);
  const mean = [0, 1, 2].map((c) => tissue.reduce((sum, lab) => sum + lab[c]!, 0) / tissue.length);
  const std = [0, 1, 2].map((c) =>
    Math.sqrt(tissue.reduce((sum, lab) => sum + (lab[c]! - mean[c]!) ** 2, 0) / tissue.length)
  );
  return Float64Array.from(pixels.flatMap((pixel) => {
    const [l, a, b] = labOf(pixel).map((v, c) =>
      (v - mean[c]!) / std[c]! * REINHARD_TARGET.std[c]! + REINHARD_TARGET.mean[c]!
    );
    return [...rgbOf([l!, a!, b!])];
  }));
}

Deno.test("a model is given pixels whose stains are normalised over the whole slide", async () => {
  const gpu = await sharedGpu();
  const slide = await openSlide(
    new MemorySource(encodeSample({ seed: 4, widthPx: 700, heightPx: 500 }).svs),
  );
  const { widthPx, heightPx } = slide.levels[0]!;
  const picture = await slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx, heightPx });
  await slide.close();
  // A box in the middle of each tile, whose score is half the mean of red and green.
  const tile = 64;
  const redness = written(tile, (model, image) => {
    const mean = model.node("GlobalAveragePool", [image]);
    const flat = model.node("Reshape", [mean, model.integers([0, 3, 1])]);
    const row = model.floats([1, 5, 3], [...new Array(12).fill(0), 0.5, 0.5, 0]);
    const placed = model.node("MatMul", [row, flat]);
    model.node("Add", [placed, model.floats([1, 5, 1], [32, 32, 20, 20, 0])], {}, "boxes");
    return [["boxes", ["batch", 5, 1]]];
  });
  const plain = Float64Array.from(picture.data);
  const source = macenko(picture.data);
  const expected: Record<string, Float64Array> = {
    none: plain,
    reinhard: reinhardNormalise(picture.data),
    macenko: macenkoNormalise(picture.data, source, {
      stains: [MACENKO_TARGET.haematoxylin, MACENKO_TARGET.eosin],
      concentrations: MACENKO_TARGET.concentrations,
    }),
  };
  for (const [stain, pixels] of Object.entries(expected)) {
    const model = await fitted(redness, {
      // At the scale that stains are estimated at all pixels of the slide count.
      ...sidecar({ mpp: 2, tile, stain, tissue: 0.9 }),
      output: { kind: "boxes", format: "yolov8" },
      classes: [{ name: "red", annotation_type: "red", threshold: 0 }],
    });
    const context = testContext(gpu);
    const results = await classifyWithModel(pictureSlide(picture, 2), context, model);
    assert.deepEqual(context.warnings, []);
    const { features } = results.scanResults[0]!.geojson!;
    assert.ok(features.length > 20, `${features.length}`);
    for (const { bbox, properties } of features) {
      const [x, y] = [bbox[0]! - 22, bbox[1]! - 22];
      if (x + tile > widthPx || y + tile > heightPx) continue; // White beyond the slide.
      let sum = 0;
      for (let i = 0; i < tile ** 2; i++) {
        const at = 3 * ((y + Math.floor(i / tile)) * widthPx + x + i % tile);
        sum += (pixels[at]! + pixels[at + 1]!) / 2;
      }
      const mean = sum / tile ** 2 / 255;
      // Scores are given in thousandths.
      assert.ok(
        Math.abs(properties.score as number - mean) < 0.0006,
        `${stain} at (${x}, ${y}): ${properties.score}, not ${mean}`,
      );
    }
  }
});

Deno.test("stain normalisation leaves colours alone where stains cannot be told", async () => {
  const gpu = await sharedGpu();
  for (const stain of ["reinhard", "macenko"]) {
    const run = async (picture: Picture, kind: string) => {
      const context = testContext(gpu);
      const model = await fitted(means(64), sidecar({ tile: 64, stain: kind }));
      const results = await classifyWithModel(pictureSlide(picture, 0.5), context, model);
      return { results, warnings: context.warnings };
    };
    const dot: Rgb = [150, 60, 150];
    const speck = paint(300, 300, (x, y) => Math.hypot(x - 150, y - 150) < 90 ? dot : GLASS);
    const { results, warnings } = await run(speck, stain);
    assert.match(warnings.join("\n"), /Cannot (estimate|tell).*colours are left as they are/);
    assert.deepEqual(results, (await run(speck, "none")).results);
  }
});

Deno.test("CLASSIFIER=onnx goes from files to a document and a picture", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const model = join(folder, "model.onnx");
    writeFileSync(model, pixelwise(256, [[20, 0, 0], [0, 0, 20]], [0, 0]));
    writeFileSync(
      join(folder, "model.json"),
      JSON.stringify({
        name: "halves",
        ...sidecar({ tile: 256, overlap: 64 }),
        output: { kind: "segmentation", activation: "softmax" },
        classes: [
          { name: "red", annotation_type: "red", color: "#00ffff" },
          { name: "blue", annotation_type: "blue", color: "#ffff00" },
        ],
        report: { type: "Basic" },
      }),
    );
    const picture = paint(600, 400, (x) => x < 300 ? RED : BLUE);
    const input = join(folder, "slide.png");
    await sharp(picture.data, { raw: { width: 600, height: 400, channels: 3 } }).png().toFile(
      input,
    );
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", new URL("../../src/main.ts", import.meta.url).pathname],
      env: { DEV: "1", MODEL: model, INPUT: input, OUTPUT_DIR: folder },
    }).output();
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    const results = JSON.parse(readFileSync(join(folder, "result.json"), "utf8")) as Results;
    checkResults(results);
    const { redAreaMm2, blueAreaMm2 } = numbers(results);
    // 300 × 400 px at 0.5 µm each, which a PNG is taken for.
    assert.deepEqual([redAreaMm2, blueAreaMm2], [0.03, 0.03]);
    const { data, info } = await sharp(join(folder, "result.png")).removeAlpha().raw()
      .toBuffer({ resolveWithObject: true });
    const has = (color: Rgb) => {
      for (let i = 0; i < info.width * info.height; i++) {
        if (color.every((v, c) => data[3 * i + c] === v)) return true;
      }
      return false;
    };
    assert.ok(has([0, 255, 255]) && has([255, 255, 0]), "outlines in the classes' colours");
    // A model that does not fit ends with the code of models.
    writeFileSync(model, pixelwise(128, [[20, 0, 0], [0, 0, 20]], [0, 0]));
    const refused = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", new URL("../../src/main.ts", import.meta.url).pathname],
      env: { DEV: "1", MODEL: model, INPUT: input, OUTPUT_DIR: folder },
    }).output();
    assert.equal(refused.code, 4);
    assert.match(
      new TextDecoder().decode(refused.stderr),
      /error: Cannot feed the model: input "image" is float32 \[batch, 3, 128, 128\]/,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("processImage() runs the model that MODEL names", async () => {
  const folder = await Deno.makeTempDir();
  try {
    writeFileSync(join(folder, "model.onnx"), means(64));
    writeFileSync(
      join(folder, "model.json"),
      JSON.stringify({ name: "means", ...sidecar({ tile: 64 }) }),
    );
    const context = testContext(await sharedGpu(), { MODEL: join(folder, "model.onnx") });
    const results = await processImage(pictureSlide(paint(128, 128, () => RED), 0.5), context);
    assert.equal(numbers(results).redAreaMm2, Math.round(128 ** 2 * 0.25 / 1e3) / 1e3);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
