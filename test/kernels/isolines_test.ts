import assert from "node:assert/strict";
import { compileIsolines, readIsolines, recordIsolines } from "../../kernels/isolines.ts";
import { Batch } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { chainIsolines, type ContourRing, type PieceRings } from "../../src/pipeline/contour.ts";
import * as reference from "../reference/isolines.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

async function find(
  scores: Float32Array<ArrayBuffer> | Float16Array<ArrayBuffer>,
  shape: readonly [number, number, number, number],
  thresholds: readonly number[],
  channel = 0,
  capacity = 40000,
): Promise<Uint32Array> {
  const gpu = await sharedGpu();
  const tensors = {
    scores: Tensor.from(gpu, scores, shape),
    thresholds: Tensor.from(gpu, Float32Array.from(thresholds), [thresholds.length]),
    count: new Tensor(gpu, "u32", [1]),
    segments: new Tensor(gpu, "u32", [capacity, 4]),
  };
  const batch = new Batch(gpu);
  const type = scores instanceof Float32Array ? "f32" : "f16";
  recordIsolines(batch, await compileIsolines(gpu, type), tensors, channel);
  batch.submit();
  return await readIsolines(tensors);
}

/** Even-odd at pixels' centres. */
function covers(rings: readonly ContourRing[], x: number, y: number): boolean {
  let inside = false;
  for (const ring of rings) {
    for (let i = 1; i < ring.length; i++) {
      const [ax, ay] = ring[i - 1]!, [bx, by] = ring[i]!;
      if (ay > y !== by > y && ax + (y - ay) / (by - ay) * (bx - ax) < x) inside = !inside;
    }
  }
  return inside;
}

function area(ring: ContourRing): number {
  return ring.slice(1).reduce(
    (sum, [x, y], i) => sum + (ring[i]![0] * y - x * ring[i]![1]) / 2,
    0,
  );
}

Deno.test("recordIsolines() finds the segments that its twin finds, in any channel and type", async () => {
  const gpu = await sharedGpu();
  for (
    const [images, height, width, channels] of [
      [1, 1, 1, 1],
      [2, 5, 3, 4],
      [1, 7, 62, 1],
      [1, 6, 63, 3],
      [3, 9, 64, 1],
      [1, 40, 131, 2],
    ] as const
  ) {
    const thresholds = [-0.25, 0, 0.40625];
    // Multiples of 1/32 but no threshold's: exact in f16, and every fraction's operands in f32.
    const values = floats(images * height * width * channels, width).map((v) =>
      (Math.floor(v * 16) + 0.5) / 16 + 1 / 64
    );
    for (
      const data of [values, ...gpu.features.has("shader-f16") ? [Float16Array.from(values)] : []]
    ) {
      const channel = channels - 1;
      const words = await find(data, [images, height, width, channels], thresholds, channel);
      const fractions = new Float32Array(words.slice().buffer);
      const actual = Array.from({ length: words.length / 4 }, (_, i) => ({
        map: words[4 * i + 3]!,
        from: words[4 * i]!,
        to: words[4 * i + 1]!,
        fraction: fractions[4 * i + 2]!,
      })).sort((a, b) => a.map - b.map || a.from - b.from);
      const expected = Array.from({ length: images * 3 }, (_, map) => {
        const image = Math.floor(map / 3);
        const score = (x: number, y: number) =>
          values[((image * height + y) * width + x) * channels + channel]!;
        return reference.isolines(score, [height, width], thresholds[map % 3]!)
          .map((segment) => ({ map, ...segment }));
      }).flat().sort((a, b) => a.map - b.map || a.from - b.from);
      assert.equal(actual.length, expected.length);
      for (const [i, { fraction, ...ids }] of expected.entries()) {
        const { fraction: of, ...found } = actual[i]!;
        assert.deepEqual(found, ids);
        // One division of exact numbers, 2.5 ulp in WGSL.
        assert.ok(Math.abs(of - fraction) <= 2.5 * 2 ** -23, `${of} instead of ${fraction}`);
      }
    }
  }
});

Deno.test("chainIsolines() makes rings that are around every pixel above the threshold, and no other", async () => {
  for (const [height, width, seed] of [[1, 1, 1], [9, 8, 2], [33, 65, 3], [60, 47, 4]] as const) {
    const values = floats(2 * height * width, seed);
    const thresholds = [-0.5, 0.1, 0.7];
    const segments = await find(values, [2, height, width, 1], thresholds);
    const areas = chainIsolines(segments, width, thresholds.length);
    for (let image = 0; image < 2; image++) {
      for (const [level, threshold] of thresholds.entries()) {
        const pieces = areas.find((of) => of.image === image && of.level === level)?.pieces ?? [];
        for (const [outer, ...holes] of pieces) {
          assert.ok(area(outer) > 0);
          for (const hole of holes) assert.ok(area(hole) < 0);
          for (const ring of [outer, ...holes]) assert.deepEqual(ring.at(-1), ring[0]);
        }
        for (let y = 0; y < height; y++) {
          for (let x = 0; x < width; x++) {
            const is = values[(image * height + y) * width + x]! >= Math.fround(threshold);
            const around = pieces.filter((rings) => covers(rings, x + 0.5, y + 0.5)).length;
            assert.equal(around, is ? 1 : 0, `seed ${seed}, image ${image}, (${x}, ${y})`);
          }
        }
      }
    }
    // The order in which the GPU's invocations came is nothing to the rings.
    const reversed = new Uint32Array(segments.length);
    for (let i = 0; i < segments.length; i += 4) {
      reversed.set(segments.subarray(i, i + 4), segments.length - i - 4);
    }
    assert.deepEqual(chainIsolines(reversed, width, thresholds.length), areas);
  }
});

/** A map [side, side] of a function of pixels' centres. */
function field(side: number, of: (x: number, y: number) => number): Float32Array<ArrayBuffer> {
  return Float32Array.from(
    { length: side * side },
    (_, i) => of(i % side + 0.5, Math.floor(i / side) + 0.5),
  );
}

async function pieces(
  side: number,
  of: (x: number, y: number) => number,
  threshold: number,
  tolerance = 0,
) {
  const segments = await find(field(side, of), [1, side, side, 1], [threshold]);
  const areas = chainIsolines(segments, side, 1, tolerance);
  return areas[0]?.pieces ?? [] as PieceRings[];
}

Deno.test("chainIsolines() follows a circle and a ring within a hundredth of a pixel", async () => {
  const distance = (x: number, y: number) => Math.hypot(x - 20.3, y - 18.6);
  const [[circle, ...none], ...others] = await pieces(40, (x, y) => 12 - distance(x, y), 0) as [
    PieceRings,
  ];
  assert.deepEqual([none, others], [[], []]);
  // Between neighbours a distance is straight but for 1 / (8 · radius) of a pixel at most.
  for (const [x, y] of circle) assert.ok(Math.abs(distance(x, y) - 12) < 1 / 96 + 1e-5);
  // Chords of a pixel's length lie inside the circle by as much.
  assert.ok(Math.abs(area(circle) / (Math.PI * 144) - 1) < 2e-3);
  const [ring, ...more] = await pieces(40, (x, y) => 3 - Math.abs(distance(x, y) - 12), 0);
  assert.equal(more.length, 0);
  assert.equal(ring!.length, 2);
  assert.ok(Math.abs(area(ring![0]) / (Math.PI * 225) - 1) < 2e-3);
  assert.ok(Math.abs(-area(ring![1]!) / (Math.PI * 81) - 1) < 5e-3);
  const [[rough]] = await pieces(40, (x, y) => 12 - distance(x, y), 0, 0.25) as [PieceRings];
  assert.ok(rough.length < circle.length / 2);
  for (const [x, y] of rough) assert.ok(Math.abs(distance(x, y) - 12) < 1 / 96 + 1e-5);
});

Deno.test("chainIsolines() puts an island in a hole into a piece of its own", async () => {
  const rings = await pieces(41, (x, y) => {
    const distance = Math.hypot(x - 20.4, y - 20.6);
    return distance < 4 ? 4 - distance : 3 - Math.abs(distance - 12);
  }, 0);
  assert.deepEqual(rings.map((of) => of.length).sort(), [1, 2]);
});

Deno.test("chainIsolines() runs along the border of a map that is all above", async () => {
  const [[outer, ...holes]] = await pieces(3, () => 1, 0.5) as [PieceRings];
  assert.equal(holes.length, 0);
  // The corners of the border's pixels are cut, as between any two centres.
  assert.equal(area(outer), 9 - 4 * 0.125);
  for (const [x, y] of outer) assert.ok(x === 0 || y === 0 || x === 3 || y === 3);
  assert.deepEqual(await pieces(3, () => 0, 0.5), []);
});

Deno.test("chainIsolines() closes rings where scores are exactly the threshold", async () => {
  for (const side of [1, 2, 7]) {
    const rings = await pieces(side, (x, y) => (Math.floor(x) + Math.floor(y)) % 2, 1);
    for (const [outer] of rings) assert.ok(area(outer) > 0);
  }
  const values = floats(900, 9).map((v) => Math.round(v * 2) / 2);
  const segments = await find(values, [1, 30, 30, 1], [-0.5, 0, 0.5]);
  assert.equal(chainIsolines(segments, 30, 3).length, 3);
});

Deno.test("iso-lines refuse missing segments, too little room and shapes that do not fit", async () => {
  const gpu = await sharedGpu();
  const all = await find(field(8, () => 1), [1, 8, 8, 1], [0]);
  assert.equal(all.length / 4, 32);
  assert.throws(() => chainIsolines(all.subarray(4), 8, 1), /no segment begins on edge/);
  await assert.rejects(
    find(field(8, () => 1), [1, 8, 8, 1], [0], 0, 31),
    /Cannot list 32 segments of iso-lines: there is room for 31/,
  );
  const batch = new Batch(gpu);
  const pipeline = await compileIsolines(gpu);
  const good = {
    scores: new Tensor(gpu, "f32", [1, 4, 5, 2]),
    thresholds: new Tensor(gpu, "f32", [3]),
    count: new Tensor(gpu, "u32", [1]),
    segments: new Tensor(gpu, "u32", [4, 4]),
  };
  recordIsolines(batch, pipeline, good, 1);
  const bad = (change: Partial<typeof good>, channel = 0) =>
    assert.throws(
      () => recordIsolines(batch, pipeline, { ...good, ...change }, channel),
      RangeError,
    );
  bad({}, 2);
  bad({ scores: new Tensor(gpu, "f32", [4, 5, 2]) });
  bad({ scores: new Tensor(gpu, "u32", [1, 4, 5, 2]) });
  bad({ segments: new Tensor(gpu, "u32", [4, 3]) });
  bad({ thresholds: new Tensor(gpu, "f32", [3, 1]) });
});
