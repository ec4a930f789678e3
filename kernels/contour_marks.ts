/** The pixels along components' outlines, so that the host traces contours without the map. */

import code from "./contour_marks.wgsl" with { type: "text" };
import { defineKernel, type Pipeline, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const contourMarksKernel = defineKernel({
  name: "contour_marks",
  code,
  params: { width: "u32", height: "u32", pixels: "u32", capacity: "u32" },
  bindings: {
    labels: { type: "array<u32>", access: "read" },
    count: { type: "array<atomic<u32>>", access: "read_write" },
    marks: { type: "array<vec2<u32>>", access: "read_write" },
  },
  overrides: {},
});

/**
 * Records the search: `labels` u32 [N, H, W], as `recordComponents` leaves them for 4 neighbours;
 * `count` u32 [1], zero before; `marks` u32 [capacity, 2]: 16 · pixel + sides, and the label, of each
 * pixel on an outline, in no order. Pixels are numbered over the batch; sides are 1 above, 2 right,
 * 4 below, 8 left.
 * @throws {RangeError} where the shapes do not fit, or the batch has 2²⁸ pixels or more.
 */
export function recordContourMarks(
  recorder: Recorder,
  pipeline: Pipeline<typeof contourMarksKernel.literal>,
  { labels, count, marks }: Record<"labels" | "count" | "marks", Tensor>,
): void {
  const [images = 0, height = 0, width = 0] = labels.shape;
  const [capacity = 0, fields] = marks.shape;
  const pixels = images * height * width;
  if (
    labels.type !== "u32" || labels.shape.length !== 3 || count.type !== "u32" ||
    marks.type !== "u32" || fields !== 2 || pixels >= 2 ** 28
  ) {
    throw new RangeError(
      `Cannot mark the contours of ${labels.type} [${labels.shape.join(", ")}] in ${marks.type} ` +
        `[${marks.shape.join(", ")}]: u32 [N, H, W] of fewer than 2²⁸ pixels and u32 ` +
        `[capacity, 2] are needed`,
    );
  }
  recorder.dispatch(pipeline, {
    params: { width, height, pixels, capacity },
    bindings: { labels, count, marks },
  }, rowOfWorkgroups(recorder.gpu, Math.ceil(pixels / 64)));
}

/**
 * Reads the marks back, for `traceMarks` of the pipeline: two words each.
 * @throws {RangeError} where there was too little room: it says how much was needed.
 */
export async function readContourMarks(
  { count, marks }: Record<"count" | "marks", Tensor>,
): Promise<Uint32Array> {
  const [counted, words] = await Promise.all([count.readBytes(), marks.readBytes()]);
  const met = new Uint32Array(counted)[0]!;
  const capacity = marks.shape[0]!;
  if (met > capacity) {
    throw new RangeError(`Cannot list ${met} marks of contours: there is room for ${capacity}`);
  }
  return new Uint32Array(words, 0, 2 * met);
}
