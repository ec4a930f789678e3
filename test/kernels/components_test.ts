import assert from "node:assert/strict";
import {
  compileComponents,
  type Component,
  COMPONENT_FIELDS,
  type ComponentsOptions,
  readComponents,
  recordComponents,
} from "../../kernels/components.ts";
import { Batch, Recording } from "../../kernels/kernel.ts";
import { Tensor, type TensorData } from "../../kernels/tensor.ts";
import * as reference from "../reference/components.ts";
import { masks, spiral } from "../reference/masks.ts";
import { uniform } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

async function find(
  map: TensorData,
  shape: readonly number[],
  options: ComponentsOptions = {},
  which: Parameters<typeof recordComponents>[3] = {},
  capacity = 20000,
): Promise<{ labels: Uint32Array; list: Component[] }> {
  const gpu = await sharedGpu();
  const size = shape.slice(0, 3);
  const tensors = {
    map: Tensor.from(gpu, map, shape),
    labels: new Tensor(gpu, "u32", size),
    kinds: new Tensor(gpu, "u32", size),
    count: Tensor.from(gpu, Uint32Array.of(77), [1]), // What another call left.
    list: new Tensor(gpu, "u32", [capacity, COMPONENT_FIELDS]),
  };
  try {
    const batch = new Batch(gpu);
    recordComponents(batch, await compileComponents(gpu, options), tensors, which);
    batch.submit();
    const labels = new Uint32Array(await tensors.labels.readBytes());
    return { labels, list: await readComponents(tensors) };
  } finally {
    for (const tensor of Object.values(tensors)) tensor.destroy();
  }
}

Deno.test("recordComponents() labels and measures any mask as a flood fill does", async () => {
  for (const [name, { data, width, height }] of masks()) {
    for (const connectivity of [4, 8] as const) {
      const shape = [1, height, width] as const;
      const classOf = (i: number) => data[i] === 0 ? undefined : 1;
      const expected = reference.components(classOf, shape, connectivity);
      const actual = await find(Uint32Array.from(data), shape, { connectivity, type: "u32" });
      assert.deepEqual(actual.labels, expected.labels, `${name}, ${connectivity}`);
      assert.deepEqual(actual.list, expected.list, `${name}, ${connectivity}`);
    }
  }
});

Deno.test("recordComponents() keeps classes and the images of a batch apart", async () => {
  const shape = [3, 37, 41] as const;
  const count = 3 * 37 * 41;
  const random = uniform(5);
  // Patches of four pixels, so that classes form pieces; −1 is no class.
  const classes = Int32Array.from({ length: count }, () => 0);
  for (let i = 0; i < count; i++) {
    const value = Math.floor(5 * random()) - 1;
    for (const at of [i, i + 1, i + 41, i + 42]) if (random() < 0.7) classes[at] = value;
  }
  for (const connectivity of [4, 8] as const) {
    for (const background of [0, 2]) {
      const classOf = (i: number) =>
        classes[i] === background || classes[i] === -1 ? undefined : classes[i]!;
      const expected = reference.components(classOf, shape, connectivity);
      for (const type of ["i32", "f32"] as const) {
        const map = type === "i32" ? classes : Float32Array.from(classes);
        const actual = await find(map, shape, { connectivity, type }, { background });
        assert.deepEqual(actual, expected, `${type}, ${connectivity}, ${background}`);
      }
      assert.ok(new Set(expected.list.map((component) => component.class)).size > 2);
      assert.ok(new Set(expected.list.map(({ image }) => image)).size === 3);
    }
  }
});

Deno.test("recordComponents() takes one channel of a score map at a threshold", async () => {
  const gpu = await sharedGpu();
  const shape = [2, 19, 70, 3];
  const random = uniform(6);
  // Quarters are exact in f16, and the threshold is met exactly.
  const scores = Float32Array.from(
    { length: 2 * 19 * 70 * 3 },
    () => Math.floor(random() * 8) / 4 - 1,
  );
  for (const channel of [0, 2]) {
    const classOf = (i: number) => scores[3 * i + channel]! >= 0.25 ? 0 : undefined;
    const expected = reference.components(classOf, [2, 19, 70], 4);
    assert.ok(expected.list.length > 10);
    const which = { channel, threshold: 0.25 };
    assert.deepEqual(await find(scores, shape, { of: "scores" }, which), expected);
    if (!gpu.features.has("shader-f16")) continue;
    const half = Float16Array.from(scores);
    assert.deepEqual(await find(half, shape, { of: "scores", type: "f16" }, which), expected);
  }
});

Deno.test("recordComponents() measures what 32 bits do not hold", async () => {
  const [height, width] = [40, 20000];
  const { list } = await find(new Uint32Array(height * width).fill(1), [1, height, width], {
    type: "u32",
  });
  // Σx is 8.0e9.
  assert.deepEqual(list, [{
    image: 0,
    label: 1,
    class: 1,
    areaPx: height * width,
    x0: 0,
    y0: 0,
    x1: width - 1,
    y1: height - 1,
    centroidX: (width - 1) / 2,
    centroidY: (height - 1) / 2,
  }]);
});

Deno.test("recordComponents() follows a long spiral, and may be run again", async () => {
  const gpu = await sharedGpu();
  const side = 601;
  const { data } = spiral(side);
  const tensors = {
    map: Tensor.from(gpu, Uint32Array.from(data), [1, side, side]),
    labels: new Tensor(gpu, "u32", [1, side, side]),
    kinds: new Tensor(gpu, "u32", [1, side, side]),
    count: new Tensor(gpu, "u32", [1]),
    list: new Tensor(gpu, "u32", [4, COMPONENT_FIELDS]),
  };
  const recording = new Recording(gpu);
  recordComponents(recording, await compileComponents(gpu, { type: "u32" }), tensors);
  for (let run = 0; run < 2; run++) {
    recording.run();
    const list = await readComponents(tensors);
    assert.equal(list.length, 1);
    assert.equal(list[0]!.areaPx, data.reduce((a, b) => a + b, 0));
  }
});

Deno.test("readComponents() says how many there were where the list had no room", async () => {
  const map = Uint32Array.from({ length: 64 * 64 }, (_, i) => (i + (i >> 6)) % 2);
  await assert.rejects(
    find(map, [1, 64, 64], { type: "u32" }, {}, 2047),
    /Cannot list 2048 components: the list has room for 2047/,
  );
  assert.equal((await find(map, [1, 64, 64], { type: "u32" }, {}, 2048)).list.length, 2048);
});

Deno.test("recordComponents() refuses shapes that do not fit, and takes an empty batch", async () => {
  const gpu = await sharedGpu();
  const pipelines = await compileComponents(gpu);
  const batch = new Batch(gpu);
  const good = {
    map: new Tensor(gpu, "f32", [1, 4, 5]),
    labels: new Tensor(gpu, "u32", [1, 4, 5]),
    kinds: new Tensor(gpu, "u32", [1, 4, 5]),
    count: new Tensor(gpu, "u32", [1]),
    list: new Tensor(gpu, "u32", [4, COMPONENT_FIELDS]),
  };
  recordComponents(batch, pipelines, good);
  const bad = (change: Partial<typeof good>, which = {}) =>
    assert.throws(
      () => recordComponents(batch, pipelines, { ...good, ...change }, which),
      RangeError,
    );
  bad({ map: new Tensor(gpu, "u32", [1, 4, 5]) });
  bad({ map: new Tensor(gpu, "f32", [4, 5]) });
  bad({ labels: new Tensor(gpu, "u32", [1, 5, 4]) });
  bad({ kinds: good.labels });
  bad({ list: new Tensor(gpu, "u32", [4, 11]) });
  bad({}, { channel: 1 });
  assert.deepEqual((await find(new Float32Array(0), [0, 4, 5])).list, []);
});
