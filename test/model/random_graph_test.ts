/**
 * Seeded random graphs on the GPU against the host's f64, as they are and fused. Where one fails its
 * text is in the message: `randomGraph(seed)` makes it again.
 */

import assert from "node:assert/strict";
import type { Gpu } from "../../kernels/device.ts";
import { fuse } from "../../src/model/fuse.ts";
import type { HostTensor } from "../../src/model/host_tensor.ts";
import { readModel } from "../../src/model/onnx.ts";
import { Session } from "../../src/model/session.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { runOnHost } from "../reference/onnx.ts";
import { type RandomGraph, randomGraph } from "./random_graph.ts";

const GRAPHS = 320;

/**
 * Of the largest value expected, at least 1. f32: some ten nodes in a row, each of sums of less than
 * a hundred terms, stay below 1e-5. f16: each node rounds to 2⁻¹¹ of its values, and norms and
 * products make more of it.
 */
const BOUNDS = { f32: 2e-5, f16: 2e-2 };

function furthest(actual: HostTensor, expected: HostTensor): number {
  assert.deepEqual(
    [actual.type, actual.shape, actual.data.length],
    [expected.type, expected.shape, expected.data.length],
  );
  let range = 1, worst = 0;
  for (let i = 0; i < expected.data.length; i++) {
    const [a, b] = [Number(actual.data[i]), Number(expected.data[i])];
    range = Math.max(range, Math.abs(b));
    worst = Math.max(worst, Number.isNaN(a) ? Infinity : Math.abs(a - b));
  }
  return worst / range;
}

/** Nodes of nothing, and these, run on the host; no other may have ended there. */
const ON_HOST = ["TopK", "Trilu"];

async function checkPlace(
  session: Session,
  inputs: Readonly<Record<string, HostTensor>>,
): Promise<void> {
  const shapes = Object.entries(inputs).map(([name, { shape }]) => [name, shape]);
  const { laid } = await session.plan(Object.fromEntries(shapes));
  for (const part of laid.parts) {
    if (part.on === "gpu") continue;
    const { reader, operator } = part.step;
    const values = [...reader.inputs, ...operator.infer(reader)];
    const isEmpty = values.some((value) => value?.shape?.includes(0));
    assert.ok(isEmpty || ON_HOST.includes(reader.node.op), `${reader.node.op} runs on the host`);
  }
}

async function check(
  gpu: Gpu,
  { bytes, inputs, outputs, text }: RandomGraph,
  fused: boolean,
  precision: "f32" | "f16",
): Promise<void> {
  const graph = await readModel(bytes);
  const session = new Session(gpu, fused ? fuse(graph) : graph, { precision });
  try {
    const results = await session.run(inputs);
    await checkPlace(session, inputs);
    for (const [name, expected] of Object.entries(outputs)) {
      const error = furthest(results[name]!, expected);
      assert.ok(error <= BOUNDS[precision], `${error} of the range of "${name}"`);
    }
  } catch (error) {
    const { message } = error as Error;
    throw new Error(`${fused ? "fused" : "as it is"}, ${precision}: ${message}\n${text}`, {
      cause: error,
    });
  } finally {
    await session.destroy();
  }
}

const PARTS = 8;
for (let part = 0; part < PARTS; part++) {
  Deno.test(`Session computes random graphs as the host does, part ${part + 1} of ${PARTS}`, async () => {
    const gpu = await sharedGpu();
    const hasHalf = gpu.features.has("shader-f16");
    for (let seed = part; seed < GRAPHS; seed += PARTS) {
      const random = randomGraph(seed);
      await check(gpu, random, true, "f32");
      // One of the other ways, each as often.
      const other = Math.floor(seed / PARTS) % 3;
      if (other === 0) await check(gpu, random, false, "f32");
      else if (hasHalf) await check(gpu, random, other === 1, "f16");
    }
  });
}

Deno.test("fuse() leaves what random graphs compute, and takes nodes together", async () => {
  let before = 0, after = 0;
  for (let seed = 0; seed < GRAPHS; seed++) {
    const { bytes, inputs, outputs, text } = randomGraph(seed);
    const graph = await readModel(bytes);
    const fused = fuse(graph);
    before += graph.nodes.length;
    after += fused.nodes.length;
    const results = runOnHost(fused, inputs);
    for (const [name, expected] of Object.entries(outputs)) {
      const error = furthest(results[name]!, expected);
      assert.ok(error <= BOUNDS.f32, `seed ${seed}, ${error} of the range of "${name}"\n${text}`);
    }
  }
  assert.ok(after < 0.9 * before, `${before} nodes became ${after}`);
});
