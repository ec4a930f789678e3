import assert from "node:assert/strict";
import {
  compileComponents,
  COMPONENT_FIELDS,
  type ComponentsOptions,
  recordComponents,
} from "../../kernels/components.ts";
import {
  contourMarksKernel,
  readContourMarks,
  recordContourMarks,
} from "../../kernels/contour_marks.ts";
import { Batch } from "../../kernels/kernel.ts";
import { Tensor, type TensorData } from "../../kernels/tensor.ts";
import { traceMarks, traceMask } from "../../src/pipeline/contour.ts";
import { masks } from "../reference/masks.ts";
import { uniform } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

/** Marks of a map's components: what a score map is to the host. */
async function mark(
  map: TensorData,
  shape: readonly number[],
  options: ComponentsOptions,
  threshold?: number,
  capacity = 20000,
): Promise<Uint32Array> {
  const gpu = await sharedGpu();
  const size = shape.slice(0, 3);
  const labels = new Tensor(gpu, "u32", size);
  const [count, marks] = [new Tensor(gpu, "u32", [1]), new Tensor(gpu, "u32", [capacity, 2])];
  const batch = new Batch(gpu);
  recordComponents(batch, await compileComponents(gpu, options), {
    map: Tensor.from(gpu, map, shape),
    labels,
    kinds: new Tensor(gpu, "u32", size),
    count: new Tensor(gpu, "u32", [1]),
    list: new Tensor(gpu, "u32", [1, COMPONENT_FIELDS]),
  }, { threshold });
  const pipeline = await contourMarksKernel.compile(gpu);
  recordContourMarks(batch, pipeline, { labels, count, marks });
  batch.submit();
  return await readContourMarks({ count, marks });
}

Deno.test("traceMarks() of the GPU's marks is traceMask() of the whole mask", async () => {
  for (const [name, { data, width, height }] of masks()) {
    const marks = await mark(Uint32Array.from(data), [1, height, width], { type: "u32" });
    for (const tolerance of [0, 1.5]) {
      const pieces = traceMarks(marks, width, height, tolerance);
      const expected = traceMask(data, width, height, tolerance);
      assert.deepEqual(pieces.map(({ rings }) => rings), expected, `${name}, ${tolerance}`);
    }
  }
});

Deno.test("traceMarks() traces every class of a batch at once, each image in its own pixels", async () => {
  const [images, height, width] = [3, 29, 66];
  const random = uniform(3);
  const classes = Uint32Array.from(
    { length: images * height * width },
    () => Math.floor(4 * random()),
  );
  const marks = await mark(classes, [images, height, width], { type: "u32" });
  const pieces = traceMarks(marks, width, height);
  let traced = 0;
  for (let image = 0; image < images; image++) {
    const of = classes.subarray(image * height * width, (image + 1) * height * width);
    for (let value = 1; value < 4; value++) {
      const mine = pieces.filter((piece) =>
        piece.image === image && classes[piece.label - 1] === value
      );
      const mask = Uint8Array.from(of, (v) => v === value ? 1 : 0);
      assert.deepEqual(mine.map(({ rings }) => rings), traceMask(mask, width, height));
      traced += mine.length;
    }
  }
  assert.equal(traced, pieces.length);
});

Deno.test("traceMarks() traces a score map above a threshold", async () => {
  const [height, width] = [70, 90];
  const scores = Float32Array.from(
    { length: height * width * 2 },
    (_, i) => i % 2 === 1 ? 1 : Math.sin((i >> 1) % width / 7) * Math.sin((i >> 1) / width / 5),
  );
  const marks = await mark(scores, [1, height, width, 2], { of: "scores" }, 0.3);
  const mask = Uint8Array.from(
    { length: height * width },
    (_, i) => scores[2 * i]! >= Math.fround(0.3) ? 1 : 0,
  );
  const expected = traceMask(mask, width, height);
  assert.ok(expected.length > 5);
  assert.deepEqual(traceMarks(marks, width, height).map(({ rings }) => rings), expected);
});

Deno.test("traceMarks() refuses marks that are not one piece's outline", async () => {
  // Two pixels that touch at a corner are one piece by 8 neighbours.
  const diagonal = Uint32Array.of(1, 0, 0, 1);
  const marks = await mark(diagonal, [1, 2, 2], { type: "u32", connectivity: 8 });
  assert.throws(() => traceMarks(marks, 2, 2), /labelled 1: its marks are not the outline/);
  const whole = await mark(new Uint32Array(9).fill(1), [1, 3, 3], { type: "u32" });
  assert.equal(traceMarks(whole, 3, 3).length, 1);
  assert.throws(() => traceMarks(whole.subarray(2), 3, 3), RangeError);
  assert.deepEqual(traceMarks(new Uint32Array(0), 3, 3), []);
});

Deno.test("readContourMarks() says how many marks there were where there was no room", async () => {
  const all = new Uint32Array(70 * 70).fill(1);
  await assert.rejects(
    mark(all, [1, 70, 70], { type: "u32" }, undefined, 275),
    /Cannot list 276 marks of contours: there is room for 275/,
  );
  assert.equal((await mark(all, [1, 70, 70], { type: "u32" }, undefined, 276)).length, 2 * 276);
});

Deno.test("recordContourMarks() refuses shapes that do not fit", async () => {
  const gpu = await sharedGpu();
  const batch = new Batch(gpu);
  const pipeline = await contourMarksKernel.compile(gpu);
  const good = {
    labels: new Tensor(gpu, "u32", [1, 4, 5]),
    count: new Tensor(gpu, "u32", [1]),
    marks: new Tensor(gpu, "u32", [4, 2]),
  };
  recordContourMarks(batch, pipeline, good);
  for (
    const change of [
      { labels: new Tensor(gpu, "u32", [4, 5]) },
      { labels: new Tensor(gpu, "f32", [1, 4, 5]) },
      { labels: Object.create(good.labels, { shape: { value: [1, 2 ** 14, 2 ** 14] } }) as Tensor },
      { marks: new Tensor(gpu, "u32", [4, 3]) },
    ]
  ) {
    assert.throws(() => recordContourMarks(batch, pipeline, { ...good, ...change }), RangeError);
  }
});
