import assert from "node:assert/strict";
import type { Gpu } from "../../kernels/device.ts";
import { fuse } from "../../src/model/fuse.ts";
import type { HostTensor } from "../../src/model/host_tensor.ts";
import { readModel } from "../../src/model/onnx.ts";
import { type Precision, Session } from "../../src/model/session.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { runOnHost } from "../reference/onnx.ts";
import { floats } from "../reference/random.ts";
import {
  type Architecture,
  convnext,
  densenet,
  efficientnetB0,
  resnet18,
  unet,
  vit,
} from "./architectures.ts";

/** Images of [batch, 3, size, size], of which every pixel is in [−1, 1). */
function images(batch: number, size: number, seed: number): HostTensor {
  return {
    type: "float32",
    shape: [batch, 3, size, size],
    data: floats(batch * 3 * size * size, seed),
  };
}

/** Largest difference over the largest absolute value expected. */
function relativeError(actual: HostTensor, expected: HostTensor): number {
  assert.deepEqual(actual.shape, expected.shape);
  let range = 0, worst = 0;
  for (let i = 0; i < expected.data.length; i++) {
    range = Math.max(range, Math.abs(Number(expected.data[i])));
    const difference = Math.abs(Number(actual.data[i]) - Number(expected.data[i]));
    worst = Math.max(worst, Number.isNaN(difference) ? Infinity : difference);
  }
  return worst / range;
}

const CASES: Record<string, { make: () => Architecture; size: number; batch: number }> = {
  "ResNet-18": { make: () => resnet18(32), size: 32, batch: 2 },
  "EfficientNet-B0": { make: () => efficientnetB0(32), size: 32, batch: 1 },
  "U-Net": { make: () => unet(), size: 32, batch: 1 },
  "ViT": {
    make: () => vit({ size: 32, patch: 8, width: 48, heads: 3, depth: 2 }),
    size: 32,
    batch: 2,
  },
  "ViT with spelt layer norms": {
    make: () => vit({ size: 32, patch: 8, width: 48, heads: 3, depth: 2, spelt: true }),
    size: 32,
    batch: 1,
  },
  "ConvNeXt": { make: () => convnext(32), size: 32, batch: 2 },
  "DenseNet": { make: () => densenet(32), size: 32, batch: 2 },
};

// f32: what the issue allows of the output's range; f16 likewise, where each of some tens of layers
// rounds to 2⁻¹¹ of its values.
const BOUNDS: Record<Exclude<Precision, "auto">, number> = { f32: 1e-4, f16: 2e-2 };

async function check(gpu: Gpu, name: string, precision: "f32" | "f16") {
  const { make, size, batch } = CASES[name]!;
  const graph = await readModel(make().bytes);
  const input = images(batch, size, 9);
  const expected = runOnHost(graph, { input });
  const session = new Session(gpu, fuse(graph), { precision });
  const actual = await session.run({ input });
  const error = relativeError(actual.output!, expected.output!);
  assert.ok(error <= BOUNDS[precision], `${error} of the output's range`);
  const plan = await session.plan({ input: input.shape });
  const onHost = plan.laid.parts.flatMap((part) =>
    part.on === "host" ? [part.step.reader.node.op] : []
  );
  assert.deepEqual(onHost, [], "all of it runs on the GPU");
  // The same again: nothing of the first run is left over.
  assert.deepEqual(await session.run({ input }), actual);
  await session.destroy();
}

for (const name of Object.keys(CASES)) {
  Deno.test(`Session runs ${name} as the host does, node by node`, async () => {
    const gpu = await sharedGpu();
    await check(gpu, name, "f32");
  });
  Deno.test(`Session runs ${name} in f16`, async () => {
    const gpu = await sharedGpu();
    if (!gpu.features.has("shader-f16")) return console.log("skipped: no f16");
    await check(gpu, name, "f16");
  });
}
