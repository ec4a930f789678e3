import assert from "node:assert/strict";
import { join } from "node:path";
import type { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import { compileMatmul, matmulTiles, recordMatmul, tuneMatmul } from "../../kernels/matmul.ts";
import {
  type Candidate,
  type Choice,
  randomTensor,
  sizeClass,
  Tuner,
} from "../../kernels/tuner.ts";
import { sharedGpu } from "./gpu.ts";

/** Runs with a path in a folder that goes away. */
async function withPath(run: (path: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  try {
    await run(join(folder, "tuner.json"));
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** Products of which the work is a hundred times as much where `slow` is 1. */
async function race(gpu: Gpu): Promise<(choice: Choice) => Promise<Candidate>> {
  const compiled = await compileMatmul(gpu, { variant: "plain", shape: [64, 64, 64] });
  return ({ slow }) => {
    const tensors = {
      a: randomTensor(gpu, "f32", [64, 64]),
      b: randomTensor(gpu, "f32", [64, 64]),
      product: randomTensor(gpu, "f32", [64, 64]),
    };
    return Promise.resolve({
      record: (recorder) => {
        for (let i = 0; i < (slow === 1 ? 100 : 1); i++) recordMatmul(recorder, compiled, tensors);
      },
      destroy: () => Object.values(tensors).forEach((tensor) => tensor.destroy()),
    });
  };
}

const CHOICES = [{ slow: 1 }, { slow: 0 }];
const never = () => Promise.reject(new Error("nothing is to be timed"));

Deno.test("Tuner.pick() takes the fastest, once, and the next process knows it from the file", async () => {
  const gpu = await sharedGpu();
  await withPath(async (path) => {
    const tuner = new Tuner(gpu, path);
    const make = await race(gpu);
    let made = 0;
    const counting = (choice: Choice) => (made++, make(choice));
    const both = await Promise.all([
      tuner.pick("k", CHOICES, counting),
      tuner.pick("k", CHOICES, counting),
    ]);
    assert.deepEqual(both, [{ slow: 0 }, { slow: 0 }]);
    assert.equal(made, 2, "two who ask at once share a race");
    assert.deepEqual(await tuner.pick("k", CHOICES, never), { slow: 0 });
    assert.deepEqual(await new Tuner(gpu, path).pick("k", CHOICES, never), { slow: 0 });
    assert.equal(tuner.problem, undefined);
    // Only the file is left in its folder.
    assert.deepEqual([...Deno.readDirSync(join(path, ".."))].map(({ name }) => name), [
      "tuner.json",
    ]);
  });
});

Deno.test("Tuner.pick() leaves out what cannot be made, and fails where nothing can", async () => {
  const gpu = await sharedGpu();
  const tuner = new Tuner(gpu);
  const make = await race(gpu);
  const picky = (choice: Choice) =>
    choice.slow === 0 ? Promise.reject(new Error("too large")) : make(choice);
  assert.deepEqual(await tuner.pick("k", CHOICES, picky), { slow: 1 });
  await assert.rejects(tuner.pick("other", CHOICES, never), /nothing is to be timed/);
  await assert.rejects(tuner.pick("none", [], never), RangeError);
  assert.deepEqual(await tuner.pick("single", [{ slow: 7 }], never), { slow: 7 });
});

Deno.test("Tuner works with a file that is damaged, foreign or cannot be written", async () => {
  const gpu = await sharedGpu();
  const make = await race(gpu);
  const device = `${gpu.adapter.name} (${gpu.adapter.driver})`;
  const file = (version: number, picks: unknown) =>
    JSON.stringify({ version, devices: { [device]: picks } });
  for (
    const [text, problem] of [
      ["", /no table of picks/],
      ['{"version": 1, "devices": {', /no table of picks/],
      ["null", /no table of picks/],
      [file(0, { k: { slow: 1 } }), /no table of picks/],
      [file(1, { k: "slow" }), /no table of picks/],
      [file(1, { k: { slow: "1" } }), /no table of picks/],
      [file(1, { k: { slow: 2 } }), undefined], // a choice that there is no more
      [file(1, { k: { slow: 1, other: 1 } }), undefined],
      [file(1, { k: {} }), undefined],
    ] as const
  ) {
    await withPath(async (path) => {
      Deno.writeTextFileSync(path, text);
      const tuner = new Tuner(gpu, path);
      if (problem === undefined) assert.equal(tuner.problem, undefined, text);
      else assert.match(tuner.problem ?? "", problem, text);
      assert.deepEqual(await tuner.pick("k", CHOICES, make), { slow: 0 }, text);
      assert.equal(tuner.problem, undefined, text);
      assert.deepEqual(await new Tuner(gpu, path).pick("k", CHOICES, never), { slow: 0 }, text);
    });
  }
  await withPath(async (path) => {
    const nowhere = join(path, "missing", "tuner.json");
    const tuner = new Tuner(gpu, nowhere);
    assert.deepEqual(await tuner.pick("k", CHOICES, make), { slow: 0 });
    assert.match(tuner.problem ?? "", /^Cannot write ".*tuner.json": /);
    assert.deepEqual(await tuner.pick("k", CHOICES, never), { slow: 0 });
  });
  await withPath(async (path) => {
    Deno.mkdirSync(path); // a folder where the file should be
    const tuner = new Tuner(gpu, path);
    assert.match(tuner.problem ?? "", /^Cannot read /);
    assert.deepEqual(await tuner.pick("k", CHOICES, make), { slow: 0 });
    assert.match(tuner.problem ?? "", /^Cannot write /);
  });
});

Deno.test("Tuner keeps what others wrote meanwhile, of its device and of others", async () => {
  const gpu = await sharedGpu();
  const make = await race(gpu);
  await withPath(async (path) => {
    const other = { version: 1, devices: { other: { k: { slow: 1 } } } };
    Deno.writeTextFileSync(path, JSON.stringify(other));
    const [first, second] = [new Tuner(gpu, path), new Tuner(gpu, path)];
    await first.pick("a", CHOICES, make);
    await second.pick("b", CHOICES, make);
    const { devices } = JSON.parse(Deno.readTextFileSync(path));
    assert.deepEqual(devices.other, other.devices.other);
    const device = `${gpu.adapter.name} (${gpu.adapter.driver})`;
    assert.deepEqual(Object.keys(devices[device]).sort(), ["a", "b"]);
  });
});

Deno.test("tuneMatmul() picks one of the variant's tiles, by class of shape and transposition", async () => {
  const gpu = await sharedGpu();
  await withPath(async (path) => {
    const tuner = new Tuner(gpu, path);
    const shape = [30, 20, 60] as const;
    const tile = await tuneMatmul(tuner, { variant: "tiled", transposeB: true }, shape);
    assert.ok(
      matmulTiles("tiled", shape).some((other) => JSON.stringify(other) === JSON.stringify(tile)),
    );
    const compiled = await compileMatmul(gpu, { variant: "tiled", tile, shape });
    const batch = new Batch(gpu);
    recordMatmul(batch, compiled, {
      a: randomTensor(gpu, "f32", [30, 20]),
      b: randomTensor(gpu, "f32", [20, 60]),
      product: randomTensor(gpu, "f32", [30, 60]),
    });
    batch.submit();
    await gpu.done();
    const { devices } = JSON.parse(Deno.readTextFileSync(path));
    const [picks] = Object.values(devices) as [Record<string, unknown>];
    assert.deepEqual(picks, { "matmul_tiled f32 nt 32×32×64": tile });
  });
  assert.deepEqual([1, 3, 64, 65, 5000].map(sizeClass), [1, 4, 64, 128, 2048]);
});

Deno.test("randomTensor() has numbers all over [−1, 1), also beyond those that it repeats", async () => {
  const gpu = await sharedGpu();
  for (const count of [3, 1 << 16, (1 << 17) + 5]) {
    const values = await randomTensor(gpu, "f32", [count]).readFloats();
    assert.ok(values.every((v) => v >= -1 && v < 1));
    assert.ok(new Set(values).size >= Math.min(count, 60000));
    assert.ok(values.slice(-3).every((v) => v !== 0));
  }
});
