/** Every kernel at real shapes, pipelines warm, until the queue is done. */

import { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import { kernelCases } from "./kernel_cases.ts";

const gpu = await Gpu.open({ adapter: Deno.env.get("ADAPTER") });
if (gpu === undefined) throw new Error("There is no adapter: run `deno task setup`");

const f16 = gpu.features.has("shader-f16");
for (const { name, work, unit, prepare } of kernelCases(!gpu.adapter.isSoftware, f16)) {
  const record = await prepare(gpu);
  Deno.bench(`${name} (${(work / 1e9).toFixed(2)} G${unit})`, { group: name }, async () => {
    const batch = new Batch(gpu);
    record(batch);
    batch.submit();
    await gpu.done();
  });
}
