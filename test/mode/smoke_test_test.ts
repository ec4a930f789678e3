import assert from "node:assert/strict";
import { KernelError } from "../../kernels/errors.ts";
import { smokeTest } from "../../src/mode/smoke_test.ts";

const ADAPTER = Deno.env.get("ADAPTER");

async function run(adapter: string | undefined) {
  const lines: string[] = [];
  const gpu = await smokeTest(adapter, (line) => lines.push(line));
  return { gpu, lines };
}

Deno.test("smokeTest() prints the adapter, the time and a sample of the product, always the same", async () => {
  const { gpu, lines } = await run(ADAPTER);
  assert.ok(gpu !== undefined, "There is no adapter: run `deno task setup`");
  const { name, driver, isSoftware } = gpu.adapter;
  assert.equal(
    lines[0],
    isSoftware
      ? `No GPU found. Using ${name}: a software adapter, slow.`
      : `WebGPU is available! Using GPU: ${name} (${driver})`,
  );
  assert.match(lines[1]!, /^Matrix multiplication \(1000x1000\) completed in \d+\.\d{4} seconds$/);
  // Computed in f64 from the same seeded numbers; f32 sums of a thousand terms are off by 1e-4.
  const sample = /^Result sample: (-?\d+\.\d+)$/.exec(lines[2]!)?.[1];
  assert.ok(Math.abs(Number(sample) - 3.04732) < 1e-3, lines[2]);
  assert.equal(lines.length, 3);
  gpu.check();
  gpu.close();
});

Deno.test("smokeTest() refuses an adapter that is not there", async () => {
  await assert.rejects(
    run("GeForce 256"),
    (error: unknown) =>
      error instanceof KernelError && /Cannot find the adapter "GeForce 256"/.test(error.message),
  );
});
