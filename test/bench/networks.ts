/** Whole networks in images per second, inputs and outputs staying on the GPU. */

import type { Gpu } from "../../kernels/device.ts";
import { channelsLast } from "../../src/model/layout.ts";
import { loadModel } from "../../src/model/session.ts";
import {
  type Architecture,
  efficientnetB0,
  resnet18,
  resnet50,
  unet,
  vit,
} from "../model/architectures.ts";
import { floats } from "../reference/random.ts";

const ROUNDS = 4;

export interface NetworkCase {
  readonly name: string;
  readonly batch: number;
  /** Pixels a side. */
  readonly size: number;
  readonly precision: "f32" | "f16";
  make(): Architecture;
}

export interface NetworkTiming {
  readonly milliseconds: number;
  /** Time of twice the runs over the time of the runs. */
  readonly linearity: number;
  readonly dispatches: number;
  /** Different pipelines that it needs. */
  readonly pipelines: number;
}

/** Batches of 64 on a GPU; single images where the adapter computes on the CPU. */
export function networkCases(large: boolean, f16: boolean): NetworkCase[] {
  const batch = large ? 64 : 1;
  // Where f16 is computed by the CPU it is slower than f32.
  const precision = large && f16 ? "f16" : "f32";
  const network = (name: string, size: number, make: () => Architecture): NetworkCase => ({
    name: `${name} ${precision}, ${size} px, batch ${batch}`,
    ...{ batch, size, precision, make },
  });
  return [
    network("ResNet-18", 256, () => resnet18(256)),
    network("ResNet-50", 256, () => resnet50(256)),
    network("EfficientNet-B0", 256, () => efficientnetB0(256)),
    network("U-Net (ResNet-18)", 256, () => unet()),
    network("ViT-S/16", 224, () => vit()),
  ];
}

/**
 * @param milliseconds that the shorter of two series takes at least.
 * @throws {Error} where an output is not finite: no rate is one of nonsense.
 */
export async function timeNetwork(
  gpu: Gpu,
  { name, batch, size, precision }: NetworkCase,
  { bytes, input }: Architecture,
  milliseconds: number,
): Promise<NetworkTiming> {
  const session = await loadModel(gpu, bytes, { precision });
  try {
    const plan = await session.plan({ [input]: [batch, 3, size, size] }, {
      layouts: { [input]: channelsLast(4) },
    });
    const tensor = plan.inputs.get(input)!;
    const values = floats(tensor.shape.reduce((a, b) => a * b, 1), 1);
    tensor.write(tensor.type === "f16" ? new Float16Array(values) : values);
    const run = async (count: number) => {
      const start = performance.now();
      for (let i = 0; i < count; i++) await plan.start();
      await gpu.done();
      return performance.now() - start;
    };
    await run(1);
    const one = Math.min(await run(1), await run(1));
    const runs = Math.max(1, Math.ceil(milliseconds / one));
    let short = Infinity, long = Infinity;
    for (let round = 0; round < ROUNDS; round++) {
      short = Math.min(short, await run(runs));
      long = Math.min(long, await run(2 * runs));
    }
    for (const [of, output] of plan.outputs) {
      if (output === "host" || !("memory" in output)) continue;
      if (!(await output.tensor.readFloats()).every(Number.isFinite)) {
        throw new Error(`Cannot time ${name}: its output "${of}" is not finite`);
      }
    }
    const { length: dispatches, pipelines } = plan.laid.recording;
    const each = (long - short) / runs;
    return { milliseconds: each, linearity: long / short, dispatches, pipelines };
  } finally {
    await session.destroy();
  }
}
