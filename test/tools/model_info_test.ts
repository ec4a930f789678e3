import assert from "node:assert/strict";
import { join } from "node:path";
import { ConfigError, ModelError } from "../../src/errors.ts";
import { fuse } from "../../src/model/fuse.ts";
import { readModel } from "../../src/model/onnx.ts";
import { fusionsInWords } from "../../src/model/statistics.ts";
import { ModelWriter } from "../../src/model/writer.ts";
import { runModelInfo } from "../../src/tools/model_info.ts";
import { floats } from "../reference/random.ts";
import { resnet50, vit } from "../model/architectures.ts";

async function withModel(
  bytes: Uint8Array,
  run: (path: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "model.onnx");
    await Deno.writeFile(path, bytes);
    await run(path);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A convolution of 3 × 3 with batch norm and ReLU, and what only the host has. */
function small(): Uint8Array<ArrayBuffer> {
  const w = new ModelWriter("small", 17);
  w.input("image", "float32", ["batch", 3, "height", 8]);
  const conv = w.node("Conv", ["image", w.floats([4, 3, 3, 3], floats(108, 1))]);
  const list = () => w.floats([4], [1, 2, 3, 4]);
  const norm = w.node("BatchNormalization", [conv, list(), list(), list(), list()]);
  w.node("Trilu", [w.node("Relu", [norm])], {}, "corner");
  w.output("corner", "float32", []);
  return w.bytes();
}

/** The line that begins with a word, without it. */
function line(text: string, word: string): string {
  const found = text.split("\n").find((line) => line.startsWith(word));
  assert.ok(found !== undefined, `no line "${word}" in:\n${text}`);
  return found.slice(word.length).trim();
}

Deno.test("model:info shows what a model is, what was fused and what it takes", async () => {
  await withModel(small(), async (path) => {
    const text = await runModelInfo([path, "--shape", "image=2,3,10,8"]);
    assert.equal(line(text, "model"), path);
    assert.equal(line(text, "input"), "image: float32 [batch, 3, height, 8]");
    assert.equal(line(text, "output"), "corner: float32 []");
    assert.equal(line(text, "operators"), "Conv × 1, BatchNormalization × 1, Relu × 1, Trilu × 1");
    assert.equal(line(text, "fused into"), "wgslide.Conv × 1, Trilu × 1");
    assert.match(text, /^fused +1 batch norm folded$/m);
    assert.match(text, /^fused +1 convolution: 1 with bias, 1 with relu$/m);
    // 108 weights and four lists of four.
    assert.equal(line(text, "parameters"), "124");
    // 2 · 27 products for each of 2 · 4 · 8 · 6 elements, and one step for each of Trilu's.
    assert.match(line(text, "operations"), /^21\.12 kFLOP at image \[2, 3, 10, 8\]$/);
    assert.match(line(text, "device"), /floats stored in f32$/);
    assert.match(line(text, "dispatches"), /^\d+ of \d+ pipelines; on the host: Trilu_3$/);
    assert.match(line(text, "memory"), /^\d\.\d MiB of weights, \d\.\d MiB of values$/);
  });
});

Deno.test("model:info closes what is open: the batch by --batch, else by one", async () => {
  await withModel(resnet50(32).bytes, async (path) => {
    const values = async (...args: string[]) => {
      const text = await runModelInfo([path, ...args]);
      const [, batch] = /input \[(\d+), 3, 32, 32\]/.exec(line(text, "operations"))!;
      const [, mebibytes] = /([\d.]+) MiB of values/.exec(line(text, "memory"))!;
      return { batch: Number(batch), mebibytes: Number(mebibytes) };
    };
    const one = await values();
    assert.equal(one.batch, 1);
    const eight = await values("--batch", "8");
    assert.equal(eight.batch, 8);
    const ratio = eight.mebibytes / one.mebibytes;
    assert.ok(ratio > 6 && ratio < 10, `${ratio} times the memory for eight times the images`);
  });
});

Deno.test("model:info --time has a row for every node and their sum", async () => {
  await withModel(small(), async (path) => {
    const text = await runModelInfo([path, "--shape", "image=1,3,8,8", "--time"]);
    const rows = text.split("\n").filter((line) => /^\d+\.\d{3} +\d+ +\S+ +\S+$/.test(line));
    assert.ok(rows.some((row) => /wgslide\.Conv +Conv_0$/.test(row)), text);
    const sum = rows.reduce((sum, row) => sum + Number(row.split(" ")[0]), 0);
    const [, all] = /^([\d.]+) ms in all$/m.exec(text)!;
    assert.ok(Math.abs(sum - Number(all)) < 1e-3 * rows.length);
  });
});

Deno.test("fusionsInWords() counts what a transformer is made of", async () => {
  const small = { size: 32, patch: 8, width: 48, heads: 3, depth: 2 };
  for (const spelt of [false, true]) {
    const graph = await readModel(vit({ ...small, spelt }).bytes);
    const words = fusionsInWords(graph, fuse(graph));
    assert.ok(words.includes("2 attentions recognised"), words.join("\n"));
    assert.equal(words.includes("5 layer norms recognised"), spelt, words.join("\n"));
    // Four products a block and the head; two of a block end in a residual, one in GELU.
    const products = "9 matrix products: 9 with bias, 4 with a residual, 2 with gelu";
    assert.ok(words.includes(products), words.join("\n"));
  }
});

Deno.test("model:info refuses arguments that make no sense, and models that are none", async () => {
  await assert.rejects(runModelInfo([]), ConfigError);
  assert.match(await runModelInfo(["--help"]), /Usage: deno task model:info MODEL/);
  await withModel(small(), async (path) => {
    for (
      const [args, message] of [
        [["--batch", "0"], /--batch is "0"/],
        [["--batch", "two"], /--batch is "two"/],
        [["--precision", "f64"], /--precision is "f64"/],
        [["--shape", "image"], /"image" is no NAME=SIZE/],
        [["--shape", "other=1,2"], /The model has no input "other"/],
        [["--shape", "image=1,3,8,9"], /input "image" has shape \[1, 3, 8, 9\]/],
      ] as const
    ) {
      await assert.rejects(runModelInfo([path, ...args]), (error: Error) => {
        assert.ok(error instanceof ConfigError, `${error}`);
        assert.match(error.message, message);
        return true;
      });
    }
  });
  await withModel(new Uint8Array([1, 2, 3]), async (path) => {
    await assert.rejects(runModelInfo([path]), ModelError);
  });
});
