/** Greedy non-maximum suppression of each image's points or boxes, before they come back to the host. */

import boxesCode from "./suppress_boxes.wgsl" with { type: "text" };
import pointsCode from "./suppress_points.wgsl" with { type: "text" };
import { defineKernel, type Pipeline, type Recorder } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const suppressPointsKernel = defineKernel({
  name: "suppress_points",
  code: pointsCode,
  params: { capacity: "u32" },
  bindings: {
    found: { type: "array<vec4<f32>>", access: "read" },
    count: { type: "array<u32>", access: "read" },
    reach: { type: "array<f32>", access: "read" },
    kept: { type: "array<atomic<u32>>", access: "read_write" },
  },
  /** ACROSS: whether points of different channels see each other. */
  overrides: { ACROSS: true },
});

export const suppressBoxesKernel = defineKernel({
  name: "suppress_boxes",
  code: boxesCode,
  params: { capacity: "u32", most_overlap: "f32" },
  bindings: {
    boxes: { type: "array<vec4<f32>>", access: "read" },
    ranks: { type: "array<vec2<f32>>", access: "read" },
    count: { type: "array<u32>", access: "read" },
    kept: { type: "array<atomic<u32>>", access: "read_write" },
  },
  /** ACROSS: whether boxes of different classes see each other. */
  overrides: { ACROSS: false },
});

/** @throws {RangeError} where a tensor has not the type and shape that is needed. */
function check(
  what: string,
  needed: Readonly<Record<string, readonly [Tensor, "f32" | "u32", readonly number[]]>>,
): void {
  for (const [name, [tensor, type, shape]] of Object.entries(needed)) {
    if (tensor.type !== type || tensor.shape.join() !== shape.join()) {
      throw new RangeError(
        `Cannot suppress ${what}: "${name}" is ${tensor.type} [${tensor.shape.join(", ")}], ` +
          `${type} [${shape.join(", ")}] is needed`,
      );
    }
  }
}

/**
 * Records which of an image's points stay: best first, each that has no better kept one within that
 * one's reach, as `Detections.suppress` of the pipeline does. `found` f32 [N, capacity, 4] and
 * `count` u32 [N] are those of `recordPeaks`; `reach` f32 [C], by channel, in the map's pixels;
 * `kept` u32 [N, capacity]: 1 for those that stay, else 0.
 * @throws {RangeError} where the shapes do not fit.
 */
export function recordSuppressPoints(
  recorder: Recorder,
  pipeline: Pipeline<typeof suppressPointsKernel.literal>,
  bindings: Record<"found" | "count" | "reach" | "kept", Tensor>,
): void {
  const { found, count, reach, kept } = bindings;
  const [images = 0, capacity = 0] = found.shape;
  check("points", {
    found: [found, "f32", [images, capacity, 4]],
    count: [count, "u32", [images]],
    reach: [reach, "f32", [Math.max(1, reach.shape[0] ?? 0)]],
    kept: [kept, "u32", [images, capacity]],
  });
  recorder.dispatch(pipeline, { params: { capacity }, bindings }, [images]);
}

/**
 * Records which of an image's boxes stay: best first, each whose intersection over union with every
 * better kept one is at most `mostOverlap`. `boxes` f32 [N, capacity, 4]: left, top, right, bottom;
 * `ranks` f32 [N, capacity, 2]: score and class; `count` u32 [N]; `kept` u32 [N, capacity]: 1 for
 * those that stay, else 0.
 * @throws {RangeError} where the shapes do not fit, or `mostOverlap` is not from 0 to 1.
 */
export function recordSuppressBoxes(
  recorder: Recorder,
  pipeline: Pipeline<typeof suppressBoxesKernel.literal>,
  bindings: Record<"boxes" | "ranks" | "count" | "kept", Tensor>,
  mostOverlap: number,
): void {
  const { boxes, ranks, count, kept } = bindings;
  const [images = 0, capacity = 0] = boxes.shape;
  check("boxes", {
    boxes: [boxes, "f32", [images, capacity, 4]],
    ranks: [ranks, "f32", [images, capacity, 2]],
    count: [count, "u32", [images]],
    kept: [kept, "u32", [images, capacity]],
  });
  if (!(mostOverlap >= 0 && mostOverlap <= 1)) {
    throw new RangeError(
      `Cannot suppress boxes that overlap by more than ${mostOverlap}: 0 to 1 is needed`,
    );
  }
  recorder.dispatch(pipeline, {
    params: { capacity, most_overlap: mostOverlap },
    bindings,
  }, [images]);
}
