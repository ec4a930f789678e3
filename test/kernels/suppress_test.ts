import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import { readPeaks } from "../../kernels/peaks.ts";
import {
  recordSuppressBoxes,
  recordSuppressPoints,
  suppressBoxesKernel,
  suppressPointsKernel,
} from "../../kernels/suppress.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { Detections } from "../../src/pipeline/detect.ts";
import { suppress } from "../reference/peaks.ts";
import { uniform } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

/** x, y, score, channel. Coordinates in quarters and few scores: exact in f32, and ties happen. */
function points(count: number, side: number, seed: number): number[][] {
  const next = uniform(seed);
  const quarter = () => Math.floor(4 * side * next()) / 4;
  return Array.from({ length: count }, () => [
    quarter(),
    quarter(),
    Math.floor(next() * 16) / 16,
    Math.floor(next() * 4),
  ]);
}

const REACH = [1, 1.5, 2.25, 4];

async function suppressPoints(
  images: readonly (readonly (readonly number[])[])[],
  capacity: number,
  across = true,
): Promise<
  { kept: Uint32Array; lists: { x: number; y: number; score: number; channel: number }[][] }
> {
  const gpu = await sharedGpu();
  const values = new Float32Array(images.length * capacity * 4);
  images.forEach((list, n) => values.set(list.flat(), n * capacity * 4));
  const tensors = {
    found: Tensor.from(gpu, values, [images.length, capacity, 4]),
    count: Tensor.from(gpu, Uint32Array.from(images, (list) => list.length), [images.length]),
    reach: Tensor.from(gpu, Float32Array.from(REACH), [4]),
    kept: Tensor.from(gpu, new Uint32Array(images.length * capacity).fill(9), [
      images.length,
      capacity,
    ]),
  };
  const batch = new Batch(gpu);
  const pipeline = await suppressPointsKernel.compile(gpu, { ACROSS: across });
  recordSuppressPoints(batch, pipeline, tensors);
  batch.submit();
  const kept = new Uint32Array(await tensors.kept.readBytes());
  return { kept, lists: await readPeaks(tensors, tensors.kept) };
}

const pointOrder = (list: readonly (readonly number[])[]) => (i: number, j: number) => {
  const [a, b] = [list[i]!, list[j]!];
  return b[2]! - a[2]! || a[1]! - b[1]! || a[0]! - b[0]! || REACH[b[3]!]! - REACH[a[3]!]! || i - j;
};

Deno.test("recordSuppressPoints() keeps those that its plain twin keeps, image by image", async () => {
  for (
    const [counts, side] of [[[0], 9], [[1, 0, 2], 3], [[255, 256, 257], 40], [
      [701, 5],
      30,
    ]] as const
  ) {
    const images = counts.map((count, n) => points(count, side, 10 * count + n));
    const capacity = Math.max(...counts) + 1;
    for (const across of [true, false]) {
      const { kept } = await suppressPoints(images, capacity, across);
      images.forEach((list, n) => {
        const expected = suppress(list.length, pointOrder(list), (j, i) => {
          const [a, b] = [list[j]!, list[i]!];
          return (across || a[3] === b[3]) &&
            Math.hypot(a[0]! - b[0]!, a[1]! - b[1]!) < REACH[a[3]!]!;
        });
        const actual = [...kept.subarray(n * capacity, (n + 1) * capacity)];
        const padded = [...expected, ...Array(capacity - list.length).fill(0)];
        assert.deepEqual(actual, padded, `${counts}, image ${n}, ${across}`);
      });
    }
  }
});

Deno.test("recordSuppressPoints() keeps what Detections.suppress() keeps", async () => {
  const list = points(900, 60, 8);
  const { lists: [found] } = await suppressPoints([list], 900);
  const detections = new Detections();
  for (const [x, y, score, channel] of list) detections.add(x!, y!, REACH[channel!]!, score!);
  const expected = [...detections.suppress(1)].map((
    { x, y, radius, score },
  ) => [x, y, score, radius]);
  const actual = found!.map(({ x, y, score, channel }) => [x, y, score, REACH[channel]!]);
  const order = (a: number[], b: number[]) =>
    b[2]! - a[2]! || a[1]! - b[1]! || a[0]! - b[0]! || b[3]! - a[3]!;
  assert.deepEqual(actual.sort(order), expected.sort(order));
  assert.ok(actual.length > 100 && actual.length < 800);
});

Deno.test("recordSuppressPoints() undoes a long chain, each of which takes the next one out", async () => {
  // 1, 2, 3, … in a row: kept are the first, third, … since only what is kept suppresses.
  const list = Array.from({ length: 600 }, (_, i) => [i / 2, 0, 1 - i / 1024, 0]);
  const { kept } = await suppressPoints([list], 600);
  assert.deepEqual([...kept], list.map((_, i) => i % 2 === 0 ? 1 : 0));
});

Deno.test("recordSuppressBoxes() keeps those that its plain twin keeps, within and across classes", async () => {
  const gpu = await sharedGpu();
  const counts = [300, 0, 257, 3];
  const capacity = 301;
  const next = uniform(4);
  const images = counts.map((count) =>
    Array.from({ length: count }, (_, i) => {
      const [x, y] = [Math.floor(next() * 40), Math.floor(next() * 40)];
      // Every seventh has no area, one in fifty its sides the wrong way round.
      const width = i % 7 === 0 ? 0 : i % 50 === 1 ? -3 : 4 + Math.floor(next() * 12);
      return {
        box: [x, y, x + width, y + 4 + Math.floor(next() * 12)],
        score: Math.floor(next() * 16) / 16,
        class: Math.floor(next() * 3),
      };
    })
  );
  const boxes = new Float32Array(counts.length * capacity * 4);
  const ranks = new Float32Array(counts.length * capacity * 2);
  images.forEach((list, n) =>
    list.forEach((item, i) => {
      boxes.set(item.box, 4 * (n * capacity + i));
      ranks.set([item.score, item.class], 2 * (n * capacity + i));
    })
  );
  const tensors = {
    boxes: Tensor.from(gpu, boxes, [counts.length, capacity, 4]),
    ranks: Tensor.from(gpu, ranks, [counts.length, capacity, 2]),
    count: Tensor.from(gpu, Uint32Array.from(counts), [counts.length]),
    kept: new Tensor(gpu, "u32", [counts.length, capacity]),
  };
  for (const across of [false, true]) {
    // Whole numbers are compared, so that a half is met exactly.
    for (const most of [0, 0.5, 1]) {
      const batch = new Batch(gpu);
      const pipeline = await suppressBoxesKernel.compile(gpu, { ACROSS: across });
      recordSuppressBoxes(batch, pipeline, tensors, most);
      batch.submit();
      const kept = new Uint32Array(await tensors.kept.readBytes());
      images.forEach((list, n) => {
        const area = (w: number, h: number) => Math.max(0, w) * Math.max(0, h);
        const expected = suppress(list.length, (i, j) => {
          const [a, b] = [list[i]!, list[j]!];
          return b.score - a.score || a.box[1]! - b.box[1]! || a.box[0]! - b.box[0]! || i - j;
        }, (j, i) => {
          const [p, q] = [list[j]!.box, list[i]!.box];
          const both = area(
            Math.min(p[2]!, q[2]!) - Math.max(p[0]!, q[0]!),
            Math.min(p[3]!, q[3]!) - Math.max(p[1]!, q[1]!),
          );
          const either = area(p[2]! - p[0]!, p[3]! - p[1]!) + area(q[2]! - q[0]!, q[3]! - q[1]!) -
            both;
          return (across || list[j]!.class === list[i]!.class) && either > 0 &&
            both / either > most;
        });
        assert.deepEqual(
          [...kept.subarray(n * capacity, n * capacity + list.length)],
          expected,
          `image ${n}, ${across}, ${most}`,
        );
        if (n === 0 && most === 0) assert.ok(expected.includes(0) && expected.includes(1));
      });
    }
  }
});

Deno.test("suppression refuses shapes that do not fit", async () => {
  const gpu = await sharedGpu();
  const batch = new Batch(gpu);
  const points = await suppressPointsKernel.compile(gpu);
  const boxes = await suppressBoxesKernel.compile(gpu);
  const tensor = (type: "f32" | "u32", ...shape: number[]) => new Tensor(gpu, type, shape);
  const goodPoints = {
    found: tensor("f32", 2, 5, 4),
    count: tensor("u32", 2),
    reach: tensor("f32", 4),
    kept: tensor("u32", 2, 5),
  };
  recordSuppressPoints(batch, points, goodPoints);
  for (
    const change of [
      { found: tensor("f32", 2, 5, 3) },
      { count: tensor("u32", 1) },
      { reach: tensor("f32", 0) },
      { kept: tensor("f32", 2, 5) },
    ]
  ) {
    assert.throws(
      () => recordSuppressPoints(batch, points, { ...goodPoints, ...change }),
      RangeError,
    );
  }
  const goodBoxes = {
    boxes: tensor("f32", 2, 5, 4),
    ranks: tensor("f32", 2, 5, 2),
    count: tensor("u32", 2),
    kept: tensor("u32", 2, 5),
  };
  recordSuppressBoxes(batch, boxes, goodBoxes, 0.5);
  for (const change of [{ ranks: tensor("f32", 2, 5, 4) }, { kept: tensor("u32", 5, 2) }]) {
    assert.throws(
      () => recordSuppressBoxes(batch, boxes, { ...goodBoxes, ...change }, 0.5),
      RangeError,
    );
  }
  assert.throws(() => recordSuppressBoxes(batch, boxes, goodBoxes, NaN), RangeError);
});
