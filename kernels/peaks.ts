/** Local maxima of a score map, so that the map itself need not come back to the host. */

import code from "./peaks.wgsl" with { type: "text" };
import { defineKernel, type Pipeline, type Recorder } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const peaksKernel = defineKernel({
  name: "peaks",
  code,
  params: {
    width: "u32",
    height: "u32",
    core_x: "u32",
    core_y: "u32",
    core_width: "u32",
    core_height: "u32",
    capacity: "u32",
    threshold: "f32",
  },
  bindings: {
    scores: { type: "array<vec4<f32>>", access: "read" },
    count: { type: "array<atomic<u32>>", access: "read_write" },
    found: { type: "array<vec4<f32>>", access: "read_write" },
  },
  overrides: { RADIUS: 2 },
});

/** Most peaks that a core of that size can hold: no two are within `radius` on both axes. */
export function peakCapacity(width: number, height: number, radius: number): number {
  return Math.ceil(width / (radius + 1)) * Math.ceil(height / (radius + 1));
}

/**
 * Records the search: `scores` [H, W, 4] f32, over the pixels of `core`; `count` [1] u32, zero
 * before; `found` [capacity, 4] f32: x, y, score and channel of each peak, in no order.
 * @throws {RangeError} where the shapes do not fit or the core leaves the map.
 */
export function recordPeaks(
  recorder: Recorder,
  pipeline: Pipeline<typeof peaksKernel.literal>,
  { scores, count, found }: Record<"scores" | "count" | "found", Tensor>,
  core: { x: number; y: number; width: number; height: number },
  threshold: number,
): void {
  const [height = 0, width = 0, channels] = scores.shape;
  const [capacity = 0, fields] = found.shape;
  if (
    scores.type !== "f32" || channels !== 4 || count.type !== "u32" || found.type !== "f32" ||
    fields !== 4 || core.x < 0 || core.y < 0 || core.x + core.width > width ||
    core.y + core.height > height
  ) {
    throw new RangeError(
      `Cannot search ${core.width} × ${core.height} pixels at (${core.x}, ${core.y}) of ` +
        `[${scores.shape.join(", ")}] for peaks into [${found.shape.join(", ")}]`,
    );
  }
  recorder.dispatch(pipeline, {
    params: {
      width,
      height,
      core_x: core.x,
      core_y: core.y,
      core_width: core.width,
      core_height: core.height,
      capacity,
      threshold,
    },
    bindings: { scores, count, found },
  }, [Math.ceil(core.width / 64), core.height]);
}
