import assert from "node:assert/strict";
import { type Box, Detections, suppressBoxes } from "../../src/pipeline/detect.ts";
import { uniform } from "../reference/random.ts";

interface Detection {
  readonly x: number;
  readonly y: number;
  readonly radius: number;
  readonly score: number;
  readonly kind: number;
}

function collect(list: readonly Detection[], fraction: number, threshold?: number): Detection[] {
  const detections = new Detections();
  for (const { x, y, radius, score, kind } of list) detections.add(x, y, radius, score, kind);
  assert.equal(detections.length, list.length);
  return [...detections.suppress(fraction, threshold)];
}

/** Best first, each that no kept one suppresses: every pair is compared. */
function suppress(list: readonly Detection[], fraction: number, threshold = 0): Detection[] {
  const kept: Detection[] = [];
  const order = list.toSorted((a, b) =>
    b.score - a.score || a.y - b.y || a.x - b.x || b.radius - a.radius
  );
  for (const one of order) {
    if (one.score < threshold) continue;
    if (kept.some((k) => Math.hypot(one.x - k.x, one.y - k.y) < fraction * k.radius)) continue;
    kept.push(one);
  }
  return kept;
}

/** Numbers that f32 holds exactly, many of them alike. */
function random(count: number, side: number, seed: number): Detection[] {
  const next = uniform(seed);
  return Array.from({ length: count }, () => ({
    x: Math.floor(next() * side * 4) / 4 - side / 4,
    y: Math.floor(next() * side * 4) / 4 - side / 4,
    radius: 1 + Math.floor(next() * 16) / 4,
    score: Math.floor(next() * 32) / 32,
    kind: 0,
  }));
}

function shuffle<T>(list: readonly T[], seed: number): T[] {
  const next = uniform(seed);
  return list.map((item) => [next(), item] as const).sort((a, b) => a[0] - b[0]).map(([, item]) =>
    item
  );
}

Deno.test("Detections keeps what comparing every pair keeps", () => {
  for (const [count, side] of [[0, 1], [1, 1], [2, 2], [37, 12], [300, 40], [2500, 200]] as const) {
    for (const fraction of [0.3, 0.8, 2]) {
      for (const threshold of [0, 0.5]) {
        const list = random(count, side, count + 1);
        assert.deepEqual(
          collect(list, fraction, threshold),
          suppress(list, fraction, threshold),
          `${count} over ${side}, ${fraction}, ${threshold}`,
        );
      }
    }
  }
});

Deno.test("Detections does not depend on the order in which they came", () => {
  // A small side, so that some lie on the very same place with the same score.
  const list = random(3000, 8, 5);
  const kept = collect(list, 0.8);
  assert.ok(kept.length > 1 && kept.length < list.length);
  for (let seed = 1; seed <= 4; seed++) assert.deepEqual(collect(shuffle(list, seed), 0.8), kept);
});

Deno.test("Detections takes a point at exactly the reach for another one", () => {
  const pair = [
    { x: 0, y: 0, radius: 4, score: 1, kind: 0 },
    { x: 2, y: 0, radius: 4, score: 0.5, kind: 1 },
  ];
  assert.equal(collect(pair, 0.5).length, 2);
  assert.equal(collect(pair, 0.75).length, 1);
});

Deno.test("Detections lets only what it keeps suppress others", () => {
  // The second goes by the first, so the third, near the second only, stays.
  const chain = [0, 3, 6].map((x, i) => ({ x, y: 0, radius: 4, score: 1 - i / 4, kind: 7 + i }));
  assert.deepEqual(collect(chain, 1).map(({ x, kind }) => [x, kind]), [[0, 7], [6, 9]]);
});

Deno.test("Detections tells the score that a part of them lie below", () => {
  const detections = new Detections();
  assert.equal(detections.scoreQuantile(0.9), 0);
  for (const i of shuffle(Array.from({ length: 2000 }, (_, i) => i), 3)) detections.add(0, 0, 1, i);
  assert.equal(detections.scoreQuantile(0), 0);
  assert.equal(detections.scoreQuantile(0.9), 1800);
  assert.equal(detections.scoreQuantile(1), 1999);
});

function overlap(a: Box, b: Box): number {
  const width = Math.max(0, Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x));
  const height = Math.max(0, Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y));
  return width * height / (a.width * a.height + b.width * b.height - width * height);
}

/** Boxes with coordinates and scores that many share. */
function randomBoxes(count: number, side: number, seed: number): Box[] {
  const next = uniform(seed);
  const whole = (most: number) => Math.floor(next() * most);
  return Array.from({ length: count }, () => ({
    x: whole(side),
    y: whole(side),
    width: 1 + whole(12),
    height: 1 + whole(12),
    score: whole(16) / 16,
    kind: whole(2),
  }));
}

Deno.test("suppressBoxes() keeps what comparing every pair keeps, in any order", () => {
  for (const [count, side] of [[0, 1], [1, 1], [40, 8], [600, 40], [600, 400]] as const) {
    for (const iou of [0, 0.3, 0.5, 1]) {
      const boxes = randomBoxes(count, side, count + side);
      const order = boxes.toSorted((a, b) =>
        b.score - a.score || a.y - b.y || a.x - b.x || a.width - b.width || a.height - b.height ||
        a.kind - b.kind
      );
      const kept: Box[] = [];
      for (const box of order) {
        if (!kept.some((k) => k.kind === box.kind && overlap(k, box) > iou)) kept.push(box);
      }
      assert.deepEqual(suppressBoxes(boxes, iou), kept);
      assert.deepEqual(suppressBoxes(shuffle(boxes, 9), iou), kept);
    }
  }
});
