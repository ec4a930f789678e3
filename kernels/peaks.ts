/** Local maxima of a score map, so that the map itself need not come back to the host. */

import code from "./peaks.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Pipeline, type Recorder } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const peaksKernel = defineKernel({
  name: "peaks",
  code,
  params: {
    width: "u32",
    height: "u32",
    quads: "u32",
    core_x: "u32",
    core_y: "u32",
    core_width: "u32",
    core_height: "u32",
    capacity: "u32",
    threshold: "f32",
  },
  bindings: {
    scores: { type: "array<vec4<Element>>", access: "read" },
    count: { type: "array<atomic<u32>>", access: "read_write" },
    found: { type: "array<vec4<f32>>", access: "read_write" },
  },
  overrides: { RADIUS: 2, EACH: false },
  aliases: { Element: ["f32", "f16"] },
});

export interface PeaksOptions {
  /** How far around it on each axis a peak is the highest, in pixels; 2 by default. */
  readonly radius?: number;
  /** Whether each channel has its own peaks, or all together the peaks of their maximum, the default. */
  readonly each?: boolean;
  /** The scores' type. */
  readonly type?: "f32" | "f16";
}

export interface PeaksPipeline extends Required<PeaksOptions> {
  readonly pipeline: Pipeline<typeof peaksKernel.literal>;
}

/** Compiles for one radius. */
export async function compilePeaks(
  gpu: Gpu,
  { radius = 2, each = false, type = "f32" }: PeaksOptions = {},
): Promise<PeaksPipeline> {
  const overrides = { RADIUS: radius, EACH: each };
  const pipeline = await peaksKernel.compile(gpu, overrides, { Element: type });
  return { pipeline, radius, each, type };
}

/** Most peaks that a core of that size can hold: no two are within `radius` on both axes. */
export function peakCapacity(width: number, height: number, radius: number): number {
  return Math.ceil(width / (radius + 1)) * Math.ceil(height / (radius + 1));
}

/** What `recordPeaks` reads and writes. */
export interface PeaksTensors {
  /** [N, H, W, C], f32 or f16 as compiled, C a multiple of four; one image without its N. */
  readonly scores: Tensor;
  /** u32 [N]: peaks met, also those for which `found` had no room; zero before. */
  readonly count: Tensor;
  /** f32 [N, capacity, 4]: x, y, score and channel of each peak, in no order; one image without its N. */
  readonly found: Tensor;
}

/**
 * Records the search over the pixels of `core`, the same of every image.
 * @throws {RangeError} where the shapes do not fit or the core leaves the map.
 */
export function recordPeaks(
  recorder: Recorder,
  { pipeline, each, type }: PeaksPipeline,
  { scores, count, found }: PeaksTensors,
  core: { x: number; y: number; width: number; height: number },
  threshold: number,
): void {
  const batched = (tensor: Tensor, dimensions: number) =>
    tensor.shape.length === dimensions ? tensor.shape : [1, ...tensor.shape];
  const input = batched(scores, 4), output = batched(found, 3);
  const [images = 0, height = 0, width = 0, channels = 0] = input;
  const [lists, capacity = 0, fields] = output;
  if (
    scores.type !== type || input.length !== 4 || output.length !== 3 || channels % 4 !== 0 ||
    channels < 4 || count.type !== "u32" || count.shape.join() !== `${images}` ||
    found.type !== "f32" || lists !== images || fields !== 4 || core.x < 0 || core.y < 0 ||
    core.x + core.width > width || core.y + core.height > height
  ) {
    throw new RangeError(
      `Cannot search ${core.width} × ${core.height} pixels at (${core.x}, ${core.y}) of ` +
        `${scores.type} [${scores.shape.join(", ")}] for peaks into [${found.shape.join(", ")}], ` +
        `counted in [${count.shape.join(", ")}]: ${type} [N, H, W, C] with C a multiple of four, ` +
        `[N, capacity, 4] and [N] are needed`,
    );
  }
  recorder.dispatch(pipeline, {
    params: {
      width,
      height,
      quads: channels / 4,
      core_x: core.x,
      core_y: core.y,
      core_width: core.width,
      core_height: core.height,
      capacity,
      threshold,
    },
    bindings: { scores, count, found },
  }, [Math.ceil(core.width / 64), core.height, images * (each ? channels : 1)]);
}

/** A peak of a score map. */
export interface Peak {
  /** Pixels of the map, with a fraction: pixel (x, y) is at (x, y). */
  readonly x: number;
  readonly y: number;
  readonly score: number;
  readonly channel: number;
}

/**
 * Reads the peaks of each image back, in no order.
 * @param kept of suppression, u32 [N, capacity]: only those are given.
 * @throws {RangeError} where an image had more than there was room for: it says how many.
 */
export async function readPeaks(
  { count, found }: Pick<PeaksTensors, "count" | "found">,
  kept?: Tensor,
): Promise<Peak[][]> {
  const [counts, values, flags] = await Promise.all([
    count.readBytes(),
    found.readFloats(),
    kept?.readBytes(),
  ]);
  const keep = flags && new Uint32Array(flags);
  const capacity = found.shape.at(-2)!;
  return Array.from(new Uint32Array(counts), (met, image) => {
    if (met > capacity) {
      throw new RangeError(
        `Cannot list ${met} peaks of image ${image}: there is room for ${capacity}`,
      );
    }
    const peaks: Peak[] = [];
    for (let i = image * capacity; i < image * capacity + met; i++) {
      if (keep?.[i] === 0) continue;
      const [x, y, score, channel] = values.subarray(4 * i, 4 * i + 4) as unknown as
        & number[]
        & { length: 4 };
      peaks.push({ x: x!, y: y!, score: score!, channel: channel! });
    }
    return peaks;
  });
}
