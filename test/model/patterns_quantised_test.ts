import assert from "node:assert/strict";
import { fuse } from "../../src/model/fuse.ts";
import { type HostTensor, numbersOf } from "../../src/model/host_tensor.ts";
import { readModel } from "../../src/model/onnx.ts";
import { Session } from "../../src/model/session.ts";
import { operatorCounts } from "../../src/model/statistics.ts";
import { ModelWriter } from "../../src/model/writer.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { runOnHost } from "../reference/onnx.ts";
import { floats } from "../reference/random.ts";

const SCALE = 0.02;

/** Two convolutions as static quantisation leaves them: weights, biases and values in between as integers. */
function quantised({ sameScale = true }: { sameScale?: boolean } = {}): ModelWriter {
  const model = new ModelWriter("quantised", 17);
  let x = model.input("input", "float32", [1, 4, 9, 9]);
  const scalar = (value: number) => model.floats([], [value]);
  const integer = (type: "int8" | "uint8" | "int32", shape: number[], list: number[]): string =>
    model.constant({
      type,
      shape,
      data: type === "int8"
        ? Int8Array.from(list)
        : type === "uint8"
        ? Uint8Array.from(list)
        : Int32Array.from(list),
    });
  const pair = (y: string, zero: string, scale = SCALE) => {
    const q = model.node("QuantizeLinear", [y, scalar(SCALE), zero]);
    return model.node("DequantizeLinear", [q, scalar(scale), zero]);
  };
  x = pair(x, integer("int8", [], [3]));
  for (const layer of [1, 2]) {
    const weights = [...floats(4 * 4 * 9, layer)].map((v) => Math.round(60 * v));
    const w = model.node("DequantizeLinear", [
      integer("int8", [4, 4, 3, 3], weights),
      scalar(0.004),
      integer("int8", [], [0]),
    ]);
    const b = model.node("DequantizeLinear", [
      integer("int32", [4], [10, -20, 30, -40]),
      scalar(0.001),
      integer("int32", [], [0]),
    ]);
    x = model.node("Conv", [x, w, b], { pads: [1, 1, 1, 1] });
    if (layer === 1) x = model.node("Relu", [x]);
    // Zero point 0 of uint8: the quantisation is a ReLU as well.
    x = pair(x, integer("uint8", [], [0]), sameScale ? SCALE : 2 * SCALE);
  }
  const output = model.node("Identity", [x], {}, "output");
  model.output(output, "float32", [1, 4, 9, 9]);
  return model;
}

Deno.test("a quantised model runs in float on the GPU, its clips within the convolutions", async () => {
  const gpu = await sharedGpu();
  const graph = await readModel(quantised().bytes());
  const fused = fuse(graph);
  assert.deepEqual(Object.fromEntries(operatorCounts(fused)), {
    "wgslide.Conv": 2,
    "wgslide.Activation": 1,
    "Identity": 1,
  });
  const input: HostTensor = { type: "float32", shape: [1, 4, 9, 9], data: floats(324, 9) };
  const session = new Session(gpu, fused);
  const { output } = await session.run({ input });
  const expected = numbersOf(runOnHost(graph, { input }).output!);
  // The host rounds three times to steps of 0.02. Half a step of the input, of |weights| ≤ 0.24 over
  // 36 taps, is at most 0.0864 behind the first convolution and 0.0864 · 8.64 behind the second; half
  // a step of the first's result adds 0.0864, and the last rounding 0.01.
  const bound = 0.01 * 8.64 * 8.64 + 0.01 * 8.64 + 0.01;
  let clipped = 0;
  for (const [i, value] of numbersOf(output!).entries()) {
    assert.ok(Math.abs(value - expected[i]!) <= bound, `${i}: ${value}, not ${expected[i]}`);
    assert.ok(value >= 0 && value <= 255 * SCALE + 1e-6);
    if (value === 0) clipped++;
  }
  assert.ok(clipped > 20, "what the quantisation clips stays clipped");
  await session.destroy();
});

Deno.test("a value that is taken up in another scale than it was put down in is no clip", async () => {
  const graph = fuse(await readModel(quantised({ sameScale: false }).bytes()));
  const counts = operatorCounts(graph);
  assert.equal(counts.get("QuantizeLinear"), 2);
  assert.equal(counts.get("DequantizeLinear"), 2);
});
