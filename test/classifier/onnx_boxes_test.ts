import assert from "node:assert/strict";
import { classifyWithModel } from "../../src/classifier/onnx.ts";
import type { ModelWriter } from "../../src/model/writer.ts";
import { checkResults, type Results } from "../../src/results/schema.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { uniform } from "../reference/random.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";
import { BLUE, fitted, paint, RED, type Rgb, written, type WrittenSidecar } from "./models.ts";

/** As little blue as red has. */
const GREEN: Rgb = [60, 200, 60];
const WIDTH = 800, HEIGHT = 560, MPP = 0.5;

interface Square {
  readonly x: number;
  readonly y: number;
  readonly side: number;
  readonly isBlue: boolean;
}

/** Squares of 12 to 24 px, blue or green, so far apart that no window of the model sees two. */
const squares = (() => {
  const random = uniform(7);
  const list: Square[] = [];
  for (let tries = 0; list.length < 60 && tries < 5000; tries++) {
    const side = 12 + Math.floor(random() * 13);
    const square = {
      x: Math.floor(random() * (WIDTH - side)),
      y: Math.floor(random() * (HEIGHT - side)),
      side,
      isBlue: random() < 0.5,
    };
    if (list.every(({ x, y }) => Math.max(Math.abs(x - square.x), Math.abs(y - square.y)) >= 64)) {
      list.push(square);
    }
  }
  return list;
})();
const picture = paint(WIDTH, HEIGHT, (x, y) => {
  const square = squares.find((s) => x >= s.x && y >= s.y && x < s.x + s.side && y < s.y + s.side);
  return square === undefined ? RED : square.isBlue ? BLUE : GREEN;
});

const STRIDE = 8, WINDOW = 40;

/**
 * A detector that finds squares by moments: around each cell of 8 px it counts blue and green pixels
 * in a window of 40 px, whose mean place is a square's centre and whose root is its side. Cells that
 * are near the centre answer, some at once, with how many there are, so that the whole of a square has
 * more than what a tile's edge cuts off.
 */
function moments(
  tile: number,
  finish: (
    model: ModelWriter,
    parts: { x: string; y: string; side: string; scores: string },
  ) => [string, (number | string)[]][],
): Uint8Array<ArrayBuffer> {
  return written(tile, (model, image) => {
    const grid = tile / STRIDE, cells = grid ** 2;
    // 160/255 is what blue and green have over red; white has nothing.
    const gain = 255 / 160;
    const colours = model.node("Clip", [
      model.node("Conv", [
        image,
        model.floats([2, 3, 1, 1], [-gain, 0, gain, -255 / 140, 255 / 140, 0]),
      ]),
      model.floats([], [0]),
      model.floats([], [1]),
    ]);
    // Pixels' places against the cell's middle.
    const place = (i: number) => i + 0.5 - WINDOW / 2;
    const weights = (of: (u: number, v: number) => number) =>
      Array.from(
        { length: WINDOW ** 2 },
        (_, i) => of(place(i % WINDOW), place(Math.floor(i / WINDOW))),
      );
    const [one, x, y, none] = [
      weights(() => 1),
      weights((u) => u),
      weights((_, v) => v),
      weights(() => 0),
    ];
    const sums = model.node("Conv", [
      colours,
      model.floats([4, 2, WINDOW, WINDOW], [
        ...[...one!, ...none!],
        ...[...none!, ...one!],
        ...[...x!, ...x!],
        ...[...y!, ...y!],
      ]),
    ], { strides: [STRIDE, STRIDE], pads: new Array(4).fill((WINDOW - STRIDE) / 2) });
    const flat = model.node("Reshape", [sums, model.integers([0, 4, cells])]);
    const slice = (from: number, to: number) =>
      model.node("Slice", [
        flat,
        model.integers([from]),
        model.integers([to]),
        model.integers([1]),
      ]);
    const counts = slice(0, 2);
    const count = model.node("Max", [
      model.node("ReduceSum", [counts, model.integers([1])], { keepdims: 1 }),
      model.floats([], [1]),
    ]);
    const middle = (of: (i: number) => number) =>
      model.floats(
        [1, 1, cells],
        Array.from({ length: cells }, (_, i) => (of(i) + 0.5) * STRIDE),
      );
    const [dx, dy] = [slice(2, 3), slice(3, 4)].map((sum) => model.node("Div", [sum, count]));
    // 1 where a centre is less than 5 px away, 0 from 6 px on.
    const near = (d: string) =>
      model.node("Clip", [
        model.node("Sub", [model.floats([], [6]), model.node("Abs", [d])]),
        model.floats([], [0]),
        model.floats([], [1]),
      ]);
    const part = model.node("Div", [counts, model.floats([], [WINDOW ** 2])]);
    return finish(model, {
      x: model.node("Add", [dx!, middle((i) => i % grid)]),
      y: model.node("Add", [dy!, middle((i) => Math.floor(i / grid))]),
      side: model.node("Sqrt", [count]),
      scores: model.node("Mul", [part, model.node("Mul", [near(dx!), near(dy!)])]),
    });
  });
}

const FORMATS: Record<string, {
  output: Record<string, unknown>;
  bytes: (tile: number) => Uint8Array<ArrayBuffer>;
}> = {
  yolov8: {
    output: { format: "yolov8" },
    bytes: (tile) =>
      moments(tile, (model, { x, y, side, scores }) => {
        model.node("Concat", [x, y, side, side, scores], { axis: 1 }, "found");
        return [["found", ["batch", 6, (tile / STRIDE) ** 2]]];
      }),
  },
  yolov5: {
    output: { format: "yolov5", name: "found" },
    bytes: (tile) =>
      moments(tile, (model, { x, y, side, scores }) => {
        const object = model.node("Clip", [side, model.floats([], [1]), model.floats([], [1])]);
        const all = model.node("Concat", [x, y, side, side, object, scores], { axis: 1 });
        model.node("Transpose", [all], { perm: [0, 2, 1] }, "found");
        return [["found", ["batch", (tile / STRIDE) ** 2, 7]]];
      }),
  },
  "decoded corners in parts of the tile": {
    output: { format: "decoded", scores: "scores", box: "xyxy", relative: true },
    bytes: (tile) =>
      moments(tile, (model, { x, y, side, scores }) => {
        const half = model.node("Mul", [side, model.floats([], [0.5])]);
        const corners = [
          model.node("Sub", [x, half]),
          model.node("Sub", [y, half]),
          model.node("Add", [x, half]),
          model.node("Add", [y, half]),
        ];
        const box = model.node("Div", [
          model.node("Concat", corners, { axis: 1 }),
          model.floats([], [tile]),
        ]);
        model.node("Transpose", [box], { perm: [0, 2, 1] }, "boxes");
        model.node("Transpose", [scores], { perm: [0, 2, 1] }, "scores");
        const A = (tile / STRIDE) ** 2;
        return [["boxes", ["batch", A, 4]], ["scores", ["batch", A, 2]]];
      }),
  },
};

const sidecar = (input: Record<string, unknown>, output: Record<string, unknown>) =>
  ({
    input: { mpp: MPP, ...input },
    output: { kind: "boxes", ...output },
    classes: [
      { name: "blue cell", annotation_type: "blue", threshold: 100 / WINDOW ** 2 },
      { name: "green cell", annotation_type: "green", threshold: 100 / WINDOW ** 2 },
    ],
    report: { type: "RegionCounting", positive: ["blue cell"] },
  }) satisfies WrittenSidecar;

function boxes(results: Results): string[] {
  return results.scanResults[0]!.geojson!.features.map(({ bbox, properties }) =>
    `${properties.annotation_type} ${bbox}`
  ).sort();
}

const EXPECTED = squares.map(({ x, y, side, isBlue }) =>
  `${isBlue ? "blue" : "green"} ${[x, y, x + side, y + side]}`
).sort();

for (const [name, { output, bytes }] of Object.entries(FORMATS)) {
  Deno.test(`boxes (${name}) are found once each, exactly, however tiles lie`, async () => {
    assert.ok(squares.length >= 40);
    for (const [tile, overlap] of [[256, 64], [256, 128], [192, 80], [1024, 64]]) {
      const model = await fitted(bytes(tile!), sidecar({ tile, overlap, tissue: 0 }, output));
      const context = testContext(await sharedGpu());
      const results = await classifyWithModel(pictureSlide(picture, MPP), context, model);
      checkResults(results);
      assert.deepEqual(boxes(results), EXPECTED, `${tile}, ${overlap}`);
      const { blueCellCount, greenCellCount } = results.caseResults as Record<string, number>;
      assert.deepEqual(
        [blueCellCount, greenCellCount],
        [true, false].map((blue) => squares.filter(({ isBlue }) => isBlue === blue).length),
      );
      const { report } = results.scanResults[0]!.workflow!;
      assert.ok(report.type === "RegionCounting");
      assert.equal(report.objects.length, blueCellCount);
    }
  });
}

Deno.test("boxes that a tile's edge cuts are suppressed by the whole ones, or stay by iou", async () => {
  const { output, bytes } = FORMATS.yolov8!;
  const found = async (iou: number) => {
    const model = await fitted(
      bytes(128),
      sidecar({ tile: 128, overlap: 24, tissue: 0 }, { ...output, iou }),
    );
    const context = testContext(await sharedGpu());
    return boxes(await classifyWithModel(pictureSlide(picture, MPP), context, model));
  };
  // What is cut to less than 0.3 of a square has its centre too far off for its tile.
  assert.deepEqual(await found(0.3), EXPECTED);
  assert.ok((await found(1)).length > EXPECTED.length);
});
