/** Memory of plans: who shares with whom, by what steps read and write. */

import assert from "node:assert/strict";
import { ModelError } from "../../src/errors.ts";
import { type GpuValue, PlanBuilder, StepError } from "../../src/model/plan.ts";
import { Weights } from "../../src/model/weights.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { uniform } from "../reference/random.ts";

async function emptyBuilder(): Promise<PlanBuilder> {
  const gpu = await sharedGpu();
  return new PlanBuilder(gpu, "f32", new Weights(), new Map(), new Map(), () => {
    throw new Error("Nothing is converted here");
  });
}

Deno.test("PlanBuilder gives no two values that live at once the same memory, and shares the rest", async () => {
  const next = uniform(5);
  const below = (n: number) => Math.floor(next() * n);
  for (let round = 0; round < 60; round++) {
    const builder = await emptyBuilder();
    /** Values with the steps that first and last touch them. */
    const lives: { value: GpuValue; first: number; last: number; own: boolean }[] = [];
    const steps = 5 + below(40);
    let asked = 0;
    for (let i = 0; i < steps; i++) {
      const made = Array.from({ length: 1 + below(2) }, () => {
        const own = below(10) === 0;
        const value = builder.allocate("f32", [1 + below(5000)], undefined, { own });
        return { value, first: i, last: i, own };
      });
      // Of what is there, the last more likely: a residual is read long after it was made.
      const read = Array.from(
        { length: Math.min(lives.length, below(4)) },
        () => lives[lives.length - 1 - below(Math.min(lives.length, below(3) === 0 ? 20 : 3))]!,
      );
      for (const life of read) life.last = i;
      lives.push(...made);
      asked += made.reduce((sum, { value }) => sum + value.shape[0]! * 4, 0);
      builder.step(
        read.map(({ value }) => value),
        made.map(({ value }) => value),
        Promise.resolve(undefined),
        () => {},
      );
    }
    // One that is handed out: it is nobody else's, whenever it was made.
    const pinned = lives[below(lives.length)]!;
    builder.keep(pinned.value);
    pinned.own = true;
    const { valueBytes, owned } = await builder.lay();
    for (const [i, a] of lives.entries()) {
      assert.ok(a.value.tensor.buffer.size >= a.value.shape[0]! * 4);
      for (const b of lives.slice(i + 1)) {
        if (a.value.tensor.id !== b.value.tensor.id) continue;
        assert.ok(!a.own && !b.own, "memory of one's own is shared");
        assert.ok(
          a.last < b.first || b.last < a.first,
          `steps ${a.first} to ${a.last} and ${b.first} to ${b.last} share memory`,
        );
      }
    }
    if (steps > 30) assert.ok(valueBytes < 0.8 * asked, `${valueBytes} bytes for ${asked}`);
    for (const one of owned) one.destroy();
  }
});

Deno.test("PlanBuilder names the node whose kernel does not compile, or cannot be recorded", async () => {
  for (const when of ["compiling", "recording"] as const) {
    const builder = await emptyBuilder();
    const value = builder.allocate("f32", [4]);
    builder.begin("first", "Relu");
    builder.step([], [value], Promise.resolve(undefined), () => {});
    builder.begin("second", "Conv");
    const failure = new RangeError("nine axes");
    const compiled = when === "compiling" ? Promise.reject(failure) : Promise.resolve();
    builder.step([value], [builder.allocate("f32", [4])], compiled, () => {
      throw failure;
    });
    await assert.rejects(builder.lay(), (error: StepError) => {
      assert.ok(error instanceof StepError);
      assert.deepEqual([error.node, error.operator, error.cause], ["second", "Conv", failure]);
      const told = error.as();
      assert.ok(told instanceof ModelError);
      assert.equal(told.message, 'Cannot use node "second" (Conv): nine axes');
      return true;
    });
  }
});
