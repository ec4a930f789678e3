import assert from "node:assert/strict";
import { type ContourRing, traceMask } from "../../src/pipeline/contour.ts";
import { uniform } from "../reference/random.ts";

interface Mask {
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** A mask from a drawing in which # is inside. */
function mask(...rows: string[]): Mask {
  const width = rows[0]?.length ?? 0;
  const data = Uint8Array.from(rows.join(""), (character) => character === "#" ? 1 : 0);
  return { data, width, height: rows.length };
}

function randomMask(seed: number): Mask {
  const random = uniform(seed);
  const width = 1 + Math.floor(random() * 14), height = 1 + Math.floor(random() * 14);
  const density = random();
  const data = Uint8Array.from({ length: width * height }, () => random() < density ? 1 : 0);
  return { data, width, height };
}

/** Pieces by 4-connectivity, numbered from 1 in reading order of their first pixels. */
function pieces({ data, width, height }: Mask): Uint32Array {
  const of = new Uint32Array(width * height);
  let last = 0;
  const flood = (x: number, y: number, piece: number) => {
    const at = y * width + x;
    if (x < 0 || y < 0 || x >= width || y >= height || data[at] === 0 || of[at] !== 0) return;
    of[at] = piece;
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) flood(x + dx!, y + dy!, piece);
  };
  for (let at = 0; at < of.length; at++) {
    if (data[at] !== 0 && of[at] === 0) flood(at % width, Math.floor(at / width), ++last);
  }
  return of;
}

/** Even-odd: 1 where a ray from the pixel's centre to the left meets an odd number of edges. */
function fill(rings: readonly ContourRing[], width: number, height: number): Uint8Array {
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (const ring of rings) {
        for (let i = 1; i < ring.length; i++) {
          const [x1, y1] = ring[i - 1]!, [x2, y2] = ring[i]!;
          if (y1 > y + 0.5 === y2 > y + 0.5) continue;
          if (x1 + (y + 0.5 - y1) / (y2 - y1) * (x2 - x1) < x + 0.5) data[y * width + x]! ^= 1;
        }
      }
    }
  }
  return data;
}

function area(ring: ContourRing): number {
  return ring.slice(1).reduce(
    (sum, [x, y], i) => sum + (ring[i]![0] * y - x * ring[i]![1]) / 2,
    0,
  );
}

/** What holds for every tracing without tolerance. */
function check({ data, width, height }: Mask, name: string): void {
  const of = pieces({ data, width, height });
  const polygons = traceMask(data, width, height);
  assert.equal(polygons.length, of.reduce((a, b) => Math.max(a, b), 0), `${name}: pieces`);
  for (const rings of polygons) {
    const [outer, ...holes] = rings;
    assert.ok(area(outer) > 0, `${name}: an outer ring's area`);
    for (const hole of holes) assert.ok(area(hole) < 0, `${name}: a hole's area`);
    for (const ring of rings) {
      assert.deepEqual(ring.at(-1), ring[0], `${name}: a ring is closed`);
      for (let i = 1; i < ring.length; i++) {
        const [x0] = ring[(i === 1 ? ring.length : i) - 2]!;
        const [x1, y1] = ring[i - 1]!, [x2, y2] = ring[i]!;
        assert.ok((x1 === x2) !== (y1 === y2), `${name}: edges along an axis`);
        assert.ok((x0 === x1) !== (x1 === x2), `${name}: every position is a corner`);
      }
    }
    // Each polygon alone is one piece, whole, with nothing of another.
    const filled = fill(rings, width, height);
    const piece = of[filled.indexOf(1)]!;
    assert.notEqual(piece, 0, name);
    assert.deepEqual(filled, Uint8Array.from(of, (p) => p === piece ? 1 : 0), `${name}: a piece`);
  }
  assert.deepEqual(fill(polygons.flat(), width, height), data, `${name}: the mask`);
}

function distance([x, y]: readonly [number, number], ring: ContourRing): number {
  let least = Infinity;
  for (let i = 1; i < ring.length; i++) {
    const [x1, y1] = ring[i - 1]!, [x2, y2] = ring[i]!;
    const length2 = (x2 - x1) ** 2 + (y2 - y1) ** 2;
    const t = length2 === 0
      ? 0
      : Math.min(1, Math.max(0, ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length2));
    least = Math.min(least, Math.hypot(x - x1 - t * (x2 - x1), y - y1 - t * (y2 - y1)));
  }
  return least;
}

Deno.test("traceMask() gives a mask's outlines back exactly, for any mask", () => {
  for (let seed = 1; seed <= 400; seed++) check(randomMask(seed), `seed ${seed}`);
});

Deno.test("traceMask() traces pieces that touch at corners, holes, islands and borders", () => {
  const cases = {
    pixel: mask("#"),
    nothing: mask("..", ".."),
    all: mask("###", "###"),
    "two that touch": mask("#.", ".#"),
    "two that touch, the other way": mask(".#", "#."),
    "a chessboard": mask("#.#.", ".#.#", "#.#.", ".#.#"),
    "one that touches itself around a hole": mask("###.", "#.##", "##.#", ".###"),
    "a hole open at a corner only": mask(".###", "#.##", "####"),
    "two holes that touch": mask("####", "#.##", "##.#", "####"),
    "an island in a hole": mask("#####", "#...#", "#.#.#", "#...#", "#####"),
    "an island that touches its hole's corner": mask("####", "##.#", "#.##", "####"),
    "an island in a hole in an island": mask(
      "#########",
      "#.......#",
      "#.#####.#",
      "#.#...#.#",
      "#.#.#.#.#",
      "#.#...#.#",
      "#.#####.#",
      "#.......#",
      "#########",
    ),
    "a spiral": mask("######", "#.....", "#.####", "#.#..#", "#.##.#", "#....#", "######"),
  };
  for (const [name, shape] of Object.entries(cases)) check(shape, name);
});

Deno.test("traceMask() gives a pixel as a square, and an outer ring before its hole", () => {
  const { data, width, height } = mask("....", ".###", ".#.#", ".###");
  assert.deepEqual(traceMask(data, width, height), [[
    [[1, 1], [4, 1], [4, 4], [1, 4], [1, 1]],
    [[2, 2], [2, 3], [3, 3], [3, 2], [2, 2]],
  ]]);
  assert.deepEqual(traceMask([], 0, 0), []);
});

Deno.test("traceMask() with a tolerance drops corners, and leaves none further off than that", () => {
  let dropped = 0;
  const spiral = mask(
    "########",
    "#......#",
    "#.####.#",
    "#.#..#.#",
    "#.##.#.#",
    "#....#.#",
    "######.#",
  );
  // Left of its first corner the ring passes close to the line that goes on from there.
  const bump = mask(
    ".".repeat(10) + "#" + ".".repeat(49),
    "#".repeat(60),
    ...Array.from({ length: 40 }, () => ".".repeat(55) + "#".repeat(5)),
  );
  const masks = [spiral, bump, ...Array.from({ length: 300 }, (_, i) => randomMask(i + 1))];
  for (const [seed, { data, width, height }] of masks.entries()) {
    const exact = traceMask(data, width, height);
    for (const tolerance of [0.8, 1.5, 4]) {
      const rough = traceMask(data, width, height, tolerance);
      const name = `seed ${seed}, tolerance ${tolerance}`;
      assert.deepEqual(
        rough.map((rings) => rings.length),
        exact.map((rings) => rings.length),
        name,
      );
      for (const [p, rings] of exact.entries()) {
        for (const [r, ring] of rings.entries()) {
          const simple = rough[p]![r]!;
          assert.ok(simple.length >= 4, name);
          assert.deepEqual(simple.at(-1), simple[0], name);
          for (const position of simple) {
            assert.ok(ring.some(([x, y]) => x === position[0] && y === position[1]), name);
          }
          for (const position of ring) assert.ok(distance(position, simple) <= tolerance, name);
          dropped += ring.length - simple.length;
        }
      }
    }
  }
  assert.ok(dropped > 1000);
});
