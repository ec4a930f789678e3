import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import {
  compilePeaks,
  peakCapacity,
  type PeaksOptions,
  readPeaks,
  recordPeaks,
} from "../../kernels/peaks.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/peaks.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

async function search(
  scores: Float32Array<ArrayBuffer>,
  [height, width]: readonly [number, number],
  core: { x: number; y: number; width: number; height: number },
  threshold: number,
  radius: number,
  capacity = peakCapacity(core.width, core.height, radius),
) {
  const gpu = await sharedGpu();
  const count = new Tensor(gpu, "u32", [1]);
  const found = new Tensor(gpu, "f32", [capacity, 4]);
  const batch = new Batch(gpu);
  const pipeline = await compilePeaks(gpu, { radius });
  recordPeaks(
    batch,
    pipeline,
    { scores: Tensor.from(gpu, scores, [height, width, 4]), count, found },
    core,
    threshold,
  );
  batch.submit();
  const met = new Uint32Array(await count.readBytes())[0]!;
  const values = await found.readFloats();
  const peaks = Array.from({ length: Math.min(met, capacity) }, (_, i) => ({
    x: values[4 * i]!,
    y: values[4 * i + 1]!,
    score: values[4 * i + 2]!,
    channel: values[4 * i + 3]!,
  }));
  return { met, peaks };
}

Deno.test("recordPeaks() finds the core's local maxima, ties by reading order", async () => {
  for (
    const [height, width, core, radius] of [
      [1, 1, { x: 0, y: 0, width: 1, height: 1 }, 1],
      [37, 71, { x: 0, y: 0, width: 71, height: 37 }, 2],
      [40, 90, { x: 9, y: 5, width: 65, height: 29 }, 1],
      [40, 90, { x: 9, y: 5, width: 63, height: 29 }, 3],
    ] as const
  ) {
    // Few distinct values, so that plateaus and ties happen.
    const scores = floats(height * width * 4, width + radius).map((v) => Math.round(v * 6) / 6);
    const expected = reference.peaks(scores, [height, width], core, 0.5, radius);
    const { met, peaks } = await search(scores, [height, width], core, 0.5, radius);
    assert.equal(met, expected.length);
    assert.ok(met > 0 || height === 1);
    for (const { x, y, score, channel } of expected) {
      const same = peaks.filter((peak) =>
        Math.abs(peak.x - x) <= 0.5 && Math.abs(peak.y - y) <= 0.5 &&
        peak.score === score && peak.channel === channel
      );
      assert.equal(same.length, 1, `(${x}, ${y})`);
    }
  }
});

Deno.test("recordPeaks() puts a peak where the parabola has its vertex", async () => {
  const [height, width] = [9, 9];
  const scores = Float32Array.from(
    { length: height * width * 4 },
    (_, i) => {
      const pixel = i >> 2;
      return 5 - (pixel % width - 4.3) ** 2 - 0.5 * (Math.floor(pixel / width) - 3.8) ** 2;
    },
  );
  const { peaks } = await search(scores, [height, width], { x: 0, y: 0, width, height }, 1, 2);
  assert.equal(peaks.length, 1);
  // The values have seven digits, and differences of about 1 are divided by about 2.
  assert.ok(Math.abs(peaks[0]!.x - 4.3) < 1e-5 && Math.abs(peaks[0]!.y - 3.8) < 1e-5);
});

Deno.test("recordPeaks() counts what found has no room for, and writes no further", async () => {
  const [height, width] = [16, 16];
  const scores = new Float32Array(height * width * 4);
  for (const [x, y] of [[2, 2], [8, 2], [2, 8], [8, 8]]) scores[4 * (y! * width + x!)] = 1;
  const core = { x: 0, y: 0, width, height };
  const { met, peaks } = await search(scores, [height, width], core, 0.5, 2, 3);
  assert.deepEqual([met, peaks.length], [4, 3]);
});

Deno.test("recordPeaks() refuses a core outside the map", async () => {
  const scores = new Float32Array(4 * 4 * 4);
  await assert.rejects(
    search(scores, [4, 4], { x: 1, y: 0, width: 4, height: 4 }, 0.5, 1),
    RangeError,
  );
});

Deno.test("recordPeaks() takes batches, more channels, each by itself, and f16", async () => {
  const gpu = await sharedGpu();
  const [images, height, width] = [2, 21, 67];
  const core = { x: 3, y: 2, width: 60, height: 17 };
  const options: PeaksOptions[] = [{}, { each: true }];
  if (gpu.features.has("shader-f16")) {
    options.push(...options.map((o) => ({ ...o, type: "f16" as const })));
  }
  for (const channels of [4, 8, 12]) {
    const count = height * width * channels;
    // Eighths, which f16 has exactly; few, so that ties happen.
    const values = floats(images * count, channels).map((v) => Math.round(v * 8) / 8);
    for (const option of options) {
      const { each = false, type = "f32" } = option;
      const capacity = 2000;
      const tensors = {
        scores: Tensor.from(
          gpu,
          type === "f16" ? Float16Array.from(values) : values,
          [images, height, width, channels],
        ),
        count: new Tensor(gpu, "u32", [images]),
        found: new Tensor(gpu, "f32", [images, capacity, 4]),
      };
      const batch = new Batch(gpu);
      recordPeaks(batch, await compilePeaks(gpu, { ...option, radius: 1 }), tensors, core, 0.75);
      batch.submit();
      const lists = await readPeaks(tensors);
      const key = (p: { x: number; y: number; score: number; channel: number }) =>
        [Math.round(p.x), Math.round(p.y), p.score, p.channel].join();
      for (let n = 0; n < images; n++) {
        const of = values.subarray(n * count, (n + 1) * count);
        const expected = (each ? Array.from({ length: channels }, (_, c) => c) : [undefined])
          .flatMap((c) => reference.peaks(of, [height, width], core, 0.75, 1, channels, c));
        assert.ok(expected.length > 20);
        // A vertex half a pixel off would round to the neighbour, but then that were as high.
        const rounded = lists[n]!.filter((p) => p.x % 1 !== 0.5 && p.y % 1 !== 0.5);
        const keys = new Set(expected.map(key));
        assert.equal(lists[n]!.length, expected.length, `${channels}, ${JSON.stringify(option)}`);
        for (const peak of rounded) assert.ok(keys.has(key(peak)), key(peak));
        assert.ok(rounded.length > expected.length / 4);
      }
    }
  }
});

Deno.test("readPeaks() says which image had more peaks than there was room for", async () => {
  const gpu = await sharedGpu();
  const scores = new Float32Array(2 * 16 * 16 * 4);
  for (const [x, y] of [[2, 2], [8, 2], [2, 8], [8, 8]]) scores[4 * (256 + 16 * y! + x!)] = 1;
  const tensors = {
    scores: Tensor.from(gpu, scores, [2, 16, 16, 4]),
    count: new Tensor(gpu, "u32", [2]),
    found: new Tensor(gpu, "f32", [2, 3, 4]),
  };
  const batch = new Batch(gpu);
  const pipeline = await compilePeaks(gpu);
  recordPeaks(batch, pipeline, tensors, { x: 0, y: 0, width: 16, height: 16 }, 0.5);
  batch.submit();
  await assert.rejects(readPeaks(tensors), /Cannot list 4 peaks of image 1: there is room for 3/);
  const found = new Tensor(gpu, "f32", [3, 3, 4]);
  const core = { x: 0, y: 0, width: 16, height: 16 };
  assert.throws(() => recordPeaks(batch, pipeline, { ...tensors, found }, core, 0.5), RangeError);
  const six = new Tensor(gpu, "f32", [2, 16, 16, 6]);
  assert.throws(
    () => recordPeaks(batch, pipeline, { ...tensors, scores: six }, core, 0.5),
    RangeError,
  );
});
