import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { parseSidecar } from "../../src/classifier/sidecar.ts";
import { ConfigError, ModelError } from "../../src/errors.ts";
import { readModel } from "../../src/model/onnx.ts";
import { runModelNuclei } from "../../src/tools/model_nuclei.ts";
import { runModelRun } from "../../src/tools/model_run.ts";
import { MODEL_SCHEMA, modelSchemaText } from "../../src/tools/model_schema.ts";
import { BLUE, GREEN, paint, pixelwise, RED, written } from "../classifier/models.ts";

/** Runs with a folder that has a model, its sidecar and a picture: red, green and blue stripes. */
async function withModel(
  bytes: Uint8Array,
  sidecar: unknown,
  run: (paths: { folder: string; model: string; image: string }) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const [model, image] = [join(folder, "model.onnx"), join(folder, "tile.png")];
    writeFileSync(model, bytes);
    writeFileSync(join(folder, "model.json"), JSON.stringify(sidecar));
    const { data } = paint(48, 32, (x) => x < 16 ? RED : x < 32 ? GREEN : BLUE);
    await sharp(data, { raw: { width: 48, height: 32, channels: 3 } }).png().toFile(image);
    await run({ folder, model, image });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const THREE = [{ name: "red", color: "#ff0000" }, { name: "green" }, {
  name: "blue",
  color: "#0000ff",
}];

Deno.test("model:run shows a classifier's probabilities, the largest first", async () => {
  const bytes = written(32, (model, image) => {
    const flat = model.node("Flatten", [model.node("GlobalAveragePool", [image])]);
    model.node("Mul", [flat, model.floats([1], [10])], {}, "logits");
    return [["logits", ["batch", 3]]];
  });
  const sidecar = {
    name: "stripes",
    input: { mpp: 0.5, tile: 32 },
    output: { kind: "classes", activation: "softmax" },
    classes: THREE,
  };
  await withModel(bytes, sidecar, async ({ model, image }) => {
    const lines = (await runModelRun([model, "--image", image])).split("\n");
    assert.match(lines.find((line) => line.startsWith("image"))!, /48 × 32 px, a tile of 32 px/);
    // The tile is red and green by halves.
    const means = [(220 + 60) / 2, (60 + 200) / 2, (60 + 80) / 2];
    const powers = means.map((v) => Math.exp(v / 255 * 10));
    const sum = powers.reduce((a, b) => a + b);
    assert.deepEqual(
      lines.slice(-3).map((line) => line.split(/ +/)),
      ["red", "green", "blue"].map((name, i) => [(powers[i]! / sum).toFixed(4), name]),
    );
  });
});

Deno.test("model:run shows a map's classes, and draws it", async () => {
  const sidecar = {
    name: "stripes",
    input: { mpp: 0.5, tile: 48 },
    output: { kind: "segmentation" },
    classes: THREE,
  };
  const bytes = pixelwise(48, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 0, 0]);
  await withModel(bytes, sidecar, async ({ folder, model, image }) => {
    const out = join(folder, "map.png");
    const text = await runModelRun([model, "--image", image, "--out", out]);
    // Below the picture it is white: all classes are equal, and the first one wins.
    const counts = [...text.matchAll(/^(red|green|blue) +(\d+) /gm)].map((m) => Number(m[2]));
    assert.deepEqual(counts, [16 * 32 + 48 * 16, 16 * 32, 16 * 32]);
    const { data, info } = await sharp(out).raw().toBuffer({ resolveWithObject: true });
    assert.deepEqual([info.width, info.height], [48, 48]);
    const at = (x: number, y: number) => [...data.subarray(3 * (48 * y + x), 3 * (48 * y + x) + 3)];
    assert.deepEqual(at(3, 3), [255, 0, 0]);
    // Green says no colour, and has that of its number.
    assert.deepEqual(at(20, 30), [0, 0x72, 0xb2]);
    assert.deepEqual(at(40, 10), [0, 0, 255]);
    await assert.rejects(
      runModelRun([model, "--image", image, "--out", join(folder, "no", "map.png")]),
      (error: unknown) => error instanceof ConfigError && /Cannot write/.test(error.message),
    );
  });
});

Deno.test("model:run refuses what it cannot do", async () => {
  assert.match(await runModelRun(["--help"]), /Usage: deno task model:run/);
  const sidecar = {
    name: "x",
    input: { mpp: 0.5, tile: 48 },
    output: { kind: "classes" },
    classes: THREE,
  };
  const bytes = pixelwise(48, [[1, 0, 0]], [0]);
  await withModel(bytes, sidecar, async ({ folder, model, image }) => {
    const refuses = (args: string[], type: typeof ConfigError | typeof ModelError, what: RegExp) =>
      assert.rejects(
        runModelRun(args),
        (error: unknown) => error instanceof type && what.test(error.message),
        args.join(" "),
      );
    await refuses([model], ConfigError, /--image is missing/);
    await refuses([], ConfigError, /MODEL must be one path/);
    await refuses([model, "--image", image, "--precision", "f64"], ConfigError, /not f32 or f16/);
    await refuses(
      [join(folder, "no.onnx"), "--image", image],
      ConfigError,
      /Cannot find the model/,
    );
    await refuses([model, "--image", image], ModelError, /as classes of 3 classes: \[N, 3\] is/);
  });
});

Deno.test("model:nuclei writes a model that its own sidecar fits", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const into = join(folder, "nuclei");
    mkdirSync(into);
    assert.match(runModelNuclei([into, "--mpp", "1"]), /model\.onnx and .*model\.json are written/);
    const sidecar = parseSidecar(readFileSync(join(into, "model.json"), "utf8"), "model.json");
    assert.equal(sidecar.input.mpp, 1);
    const { inputs } = await readModel(join(into, "model.onnx"));
    assert.deepEqual(inputs[0]!.shape!.slice(1), [3, sidecar.input.tile, sidecar.input.tile]);
    assert.throws(() => runModelNuclei([into, "--mpp", "0"]), ConfigError);
    assert.throws(() => runModelNuclei([]), ConfigError);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("model.schema.json is what model:schema writes", () => {
  assert.equal(readFileSync(MODEL_SCHEMA, "utf8"), modelSchemaText());
});
