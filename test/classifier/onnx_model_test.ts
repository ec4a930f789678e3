import assert from "node:assert/strict";
import { join } from "node:path";
import { loadWithSidecar } from "../../src/classifier/onnx_model.ts";
import { ConfigError, ModelError } from "../../src/errors.ts";
import { ModelWriter } from "../../src/model/writer.ts";
import { fitted, pixelwise, written } from "./models.ts";

const TWO = [{ name: "a" }, { name: "b" }];

/** [batch, …] of constants, whatever the image. */
function giving(
  shape: readonly number[],
  tile: number | string = 64,
  batch: number | string = "n",
) {
  return written(tile, (model, image) => {
    // One number of the image, so that the output depends on it, and as many more as are wanted.
    const mean = model.node("ReduceMean", [image], { axes: [1, 2, 3], keepdims: 0 });
    const one = model.node("Reshape", [mean, model.integers([0, ...shape.map(() => 1)])]);
    const count = shape.reduce((a, b) => a * b, 1);
    model.node("Mul", [one, model.floats([1, ...shape], new Array(count).fill(1))], {}, "out");
    return [["out", [batch, ...shape]]];
  }, { batch });
}

const sidecar = (output: Record<string, unknown>, input: Record<string, unknown> = {}) => ({
  input: { mpp: 0.5, tile: 64, ...input },
  output,
  classes: TWO,
});

async function refuses(
  bytes: Uint8Array<ArrayBuffer>,
  output: Record<string, unknown>,
  message: RegExp,
  input: Record<string, unknown> = {},
) {
  await assert.rejects(
    fitted(bytes, sidecar(output, input)),
    (error: unknown) => error instanceof ModelError && message.test(error.message),
    `${message}`,
  );
}

Deno.test("fitModel() knows what comes out before a slide is opened", async () => {
  const cases: [Record<string, unknown>, number[]][] = [
    [{ kind: "classes" }, [2]],
    [{ kind: "classes" }, [2, 1, 1]],
    [{ kind: "segmentation" }, [2, 64, 64]],
    [{ kind: "segmentation" }, [16, 16]],
    [{ kind: "segmentation" }, [1, 32, 32]],
    [{ kind: "heatmap" }, [2, 8, 8]],
    [{ kind: "boxes", format: "yolov8" }, [6, 50]],
    [{ kind: "boxes", format: "yolov5" }, [50, 7]],
  ];
  for (const [output, shape] of cases) {
    for (const tile of [64, "size"]) {
      const model = await fitted(giving(shape, tile), sidecar(output));
      assert.deepEqual(
        [model.input, model.output, model.outputShape, model.batch],
        ["image", "out", shape, undefined],
      );
    }
  }
  const fixed = await fitted(giving([2], 64, 8), sidecar({ kind: "classes" }, { batch: 8 }));
  assert.equal(fixed.batch, 8);
});

Deno.test("fitModel() refuses an output that is not what the sidecar says, and which is needed", async () => {
  const needed = (shape: string) =>
    new RegExp(`"out" \\[1, .*of 2 classes: ${shape.replace(/[[\]+]/g, "\\$&")} is needed`);
  await refuses(giving([3]), { kind: "classes" }, needed("[N, 2]"));
  await refuses(giving([2, 4, 4]), { kind: "classes" }, needed("[N, 2]"));
  await refuses(giving([3, 8, 8]), { kind: "segmentation" }, needed("[N, 2, h, w] or [N, h, w]"));
  await refuses(giving([2]), { kind: "segmentation" }, needed("[N, 2, h, w] or [N, h, w]"));
  await refuses(giving([2, 8, 16]), { kind: "segmentation" }, /a square map .* is needed/);
  await refuses(giving([2, 60, 60]), { kind: "segmentation" }, /a square map .* is needed/);
  // A pixel of the map is 8 px, and half the overlap 4.
  await refuses(giving([2, 8, 8]), { kind: "heatmap" }, /half the overlap, 4, is a multiple/, {
    overlap: 8,
  });
  await refuses(giving([8, 8]), { kind: "heatmap" }, needed("[N, 2, h, w]"));
  await refuses(giving([7, 50]), { kind: "boxes", format: "yolov8" }, needed("[N, 6, A]"));
  await refuses(giving([50, 6]), { kind: "boxes", format: "yolov5" }, needed("[N, A, 7]"));
  await refuses(
    giving([2]),
    { kind: "classes", name: "logits" },
    /output "logits" .* it has "out"/,
  );
  const decoded = { kind: "boxes", format: "decoded", scores: "scores" };
  await refuses(giving([50, 4]), decoded, /output "scores" of the model: it has "out"/);
  const both = written(64, (model, image) => {
    const mean = model.node("GlobalAveragePool", [image]);
    for (const [name, shape] of [["out", [1, 5, 4]], ["scores", [1, 5, 3]]] as const) {
      const count = shape[1] * shape[2];
      const one = model.node("ReduceMean", [mean], { axes: [1, 3], keepdims: 0 });
      const at = model.node("Reshape", [one, model.integers([0, 1, 1])]);
      model.node("Mul", [at, model.floats([...shape], new Array(count).fill(1))], {}, name);
    }
    return [["out", ["n", 5, 4]], ["scores", ["n", 5, 3]]];
  });
  await refuses(both, { ...decoded, name: "out" }, /"scores" \[1, 5, 3\] as scores .*\[N, 5, 2\]/);
  // The first axis is not that of the tiles.
  const mixed = written(64, (model, image) => {
    const mean = model.node("ReduceMean", [image], { axes: [0, 1, 2, 3], keepdims: 0 });
    model.node("Mul", [mean, model.floats([3, 2], [1, 1, 1, 1, 1, 1])], {}, "out");
    return [["out", [3, 2]]];
  });
  await refuses(mixed, { kind: "classes" }, /"out" \[3, 2\]: a first axis of 1/);
});

Deno.test("fitModel() refuses an input that is no image of the tile", async () => {
  const classes = { kind: "classes" };
  await refuses(giving([2], 32), classes, /"image" is float32 \[n, 3, 32, 32\].*\[N, 3, 64, 64\]/);
  await refuses(giving([2]), classes, /\[N, 64, 64, 3\]/, { layout: "NHWC" });
  await refuses(
    giving([2], 64, 8),
    classes,
    /takes 8 tiles at once, and the sidecar's batch is 4/,
    {
      batch: 4,
    },
  );
  const model = new ModelWriter("two", 17);
  const one = model.input("image", "float32", ["n", 3, 64, 64]);
  const two = model.input("clinical", "float32", ["n", 5]);
  model.node("Concat", [model.node("Flatten", [one]), two], { axis: 1 }, "out");
  model.output("out", "float32", ["n", 3 * 64 * 64 + 5]);
  await refuses(model.bytes(), classes, /takes "image", "clinical", and one image is given/);
  const bytes = new ModelWriter("whole", 17);
  bytes.node("Flatten", [bytes.input("image", "uint8", ["n", 3, 64, 64])], {}, "out");
  bytes.output("out", "uint8", ["n", 3 * 64 * 64]);
  await refuses(bytes.bytes(), classes, /"image" is uint8 .*float32 \[N, 3, 64, 64\]/);
  const flat = new ModelWriter("flat", 17);
  flat.node("Identity", [flat.input("image", "float32", ["n", 2])], {}, "out");
  flat.output("out", "float32", ["n", 2]);
  await refuses(flat.bytes(), classes, /"image" is float32 \[n, 2\]/);
});

Deno.test("loadWithSidecar() says which file is missing or broken", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "model.onnx"), beside = join(folder, "model.json");
    const fails = (type: typeof ConfigError | typeof ModelError, message: RegExp) =>
      assert.rejects(
        loadWithSidecar(path),
        (error: unknown) => error instanceof type && message.test(error.message),
      );
    await fails(ConfigError, /Cannot find the model ".*model\.onnx"/);
    await Deno.writeFile(path, new Uint8Array([1, 2, 3]));
    await fails(ConfigError, /model\.json" is missing, which says what its pixels are/);
    await Deno.writeTextFile(beside, "{");
    await fails(ConfigError, /model\.json": it is no JSON/);
    const right = { name: "x", input: { mpp: 1, tile: 64 }, output: { kind: "heatmap" } };
    await Deno.writeTextFile(beside, JSON.stringify({ ...right, classes: TWO }));
    await fails(ModelError, /model\.onnx/);
    await Deno.writeFile(path, pixelwise(64, [[1, 0, 0], [0, 1, 0]], [0, 0]));
    assert.equal((await loadWithSidecar(path)).output, "map");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
