/**
 * Whole architectures at their real sizes against ONNX Runtime on the CPU, and the time of each:
 *
 *   deno task conformance:architectures [--batch N] [--only NAME] [--webgpu]
 *
 * Weights are seeded (test/model/architectures.ts). In f32 an output may differ by 1e-3 of the
 * largest value of ONNX Runtime's, in f16 by 2e-2. `--webgpu` times ONNX Runtime's WebGPU provider
 * on the same adapter as well. Times are the best of some runs, read back included.
 */

import { parseArgs } from "node:util";
import { Gpu } from "../../kernels/device.ts";
import { loadModel } from "../../src/model/session.ts";
import { ARCHITECTURES } from "../model/architectures.ts";
import { OnnxRuntimePeer, type Provider } from "../peers/onnxruntime.ts";
import { floats } from "../reference/random.ts";

const BOUNDS = { f32: 1e-3, f16: 2e-2 } as const;

/** Seconds of the fastest of some runs, at least three or two seconds of them. */
async function best(run: () => Promise<unknown>): Promise<number> {
  let fastest = Infinity;
  const begin = performance.now();
  for (let i = 0; i < 3 || performance.now() - begin < 2000; i++) {
    const start = performance.now();
    await run();
    fastest = Math.min(fastest, (performance.now() - start) / 1000);
  }
  return fastest;
}

const { values: flags } = parseArgs({
  options: {
    batch: { type: "string", default: "1" },
    only: { type: "string" },
    webgpu: { type: "boolean", default: false },
  },
});
const batch = Number(flags.batch);
const gpu = await Gpu.open({ adapter: Deno.env.get("ADAPTER") });
if (gpu === undefined) throw new Error("There is no adapter: run `deno task setup`");
console.log(`${gpu.adapter.name}, batch ${batch}\n`);
let passed = 0, failed = 0;
const milliseconds = (seconds: number) => `${(seconds * 1000).toFixed(1)} ms`.padStart(12);
for (const [name, make] of Object.entries(ARCHITECTURES)) {
  if (flags.only !== undefined && !name.includes(flags.only)) continue;
  const { bytes, input } = make();
  const size = 224;
  const shape = [batch, 3, size, size];
  const data = floats(batch * 3 * size * size, 7);
  const peer = await OnnxRuntimePeer.open(bytes, "cpu");
  const expected = await peer.run(input, data, shape);
  const range = expected.data.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  const peerSeconds = await best(() => peer.run(input, data, shape));
  await peer.close();
  console.log(`${name.padEnd(20)} ONNX Runtime CPU    ${milliseconds(peerSeconds)}`);
  for (
    const precision of gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const
  ) {
    const start = performance.now();
    const session = await loadModel(gpu, bytes, { precision });
    const run = () => session.run({ [input]: { type: "float32", shape, data } });
    const { output } = await run();
    const first = (performance.now() - start) / 1000;
    let worst = 0;
    for (let i = 0; i < expected.data.length; i++) {
      const difference = Math.abs(Number(output!.data[i]) - expected.data[i]!) / range;
      worst = Math.max(worst, Number.isNaN(difference) ? Infinity : difference);
    }
    const plan = await session.plan({ [input]: shape });
    const seconds = await best(run);
    const fits = worst <= BOUNDS[precision] && output!.shape.join() === expected.shape.join();
    fits ? passed++ : failed++;
    console.log(
      `${"".padEnd(20)} ${precision}                 ${milliseconds(seconds)}  ` +
        `${(seconds / peerSeconds).toFixed(2)} × it, first result after ${first.toFixed(2)} s; ` +
        `off by ${worst.toExponential(1)} of the range${fits ? "" : ": FAILED"}; ` +
        `${plan.laid.recording.length} dispatches, ` +
        `${(plan.valueBytes / 2 ** 20).toFixed(1)} MiB of values, ` +
        `${(session.weightBytes / 2 ** 20).toFixed(1)} MiB of weights`,
    );
    await session.destroy();
  }
  if (flags.webgpu) {
    const provider: Provider = "webgpu";
    const other = await OnnxRuntimePeer.open(bytes, provider);
    await other.run(input, data, shape);
    const seconds = await best(() => other.run(input, data, shape));
    console.log(`${"".padEnd(20)} ONNX Runtime WebGPU ${milliseconds(seconds)}`);
    await other.close();
  }
}
console.log(`\n${passed} passed, ${failed} failed`);
Deno.exit(failed > 0 ? 1 : 0);
