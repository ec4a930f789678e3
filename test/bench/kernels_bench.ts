/** Every kernel at real shapes, pipelines warm, until the queue is done. */

import { Gpu } from "../../kernels/device.ts";
import { Batch, type Recorder } from "../../kernels/kernel.ts";
import { Tuner } from "../../kernels/tuner.ts";
import { kernelCases, Workspace } from "./kernel_cases.ts";

const gpu = await Gpu.open({ adapter: Deno.env.get("ADAPTER") });
if (gpu === undefined) throw new Error("There is no adapter: run `deno task setup`");

const tuner = new Tuner(gpu);
let ready: { name: string; on: Workspace; record: (recorder: Recorder) => void } | undefined;
const f16 = gpu.features.has("shader-f16");
for (const { name, operations, bytes, prepare } of kernelCases(!gpu.adapter.isSoftware, f16)) {
  const work = operations === undefined
    ? `${(bytes / 1e9).toFixed(3)} GB`
    : `${(operations / 1e9).toFixed(2)} GFLOP`;
  Deno.bench(`${name} (${work})`, { group: name }, async () => {
    // Made at the first of the runs that Deno warms up with: all cases at once would not fit.
    if (ready?.name !== name) {
      ready?.on.destroy();
      const on = new Workspace(tuner);
      ready = { name, on, record: await prepare(on) };
    }
    const batch = new Batch(gpu);
    ready.record(batch);
    batch.submit();
    await gpu.done();
  });
}
