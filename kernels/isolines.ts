/**
 * Iso-lines of score maps, as segments that the host chains: contours of heat maps, between pixels'
 * centres, without the map.
 */

import code from "./isolines.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Pipeline, type Recorder } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const isolinesKernel = defineKernel({
  name: "isolines",
  code,
  params: {
    width: "u32",
    height: "u32",
    channels: "u32",
    channel: "u32",
    levels: "u32",
    capacity: "u32",
  },
  bindings: {
    scores: { type: "array<Element>", access: "read" },
    thresholds: { type: "array<f32>", access: "read" },
    count: { type: "array<atomic<u32>>", access: "read_write" },
    segments: { type: "array<vec4<u32>>", access: "read_write" },
  },
  overrides: {},
  aliases: { Element: ["f32", "f16"] },
});

export interface IsolinesPipeline {
  readonly pipeline: Pipeline<typeof isolinesKernel.literal>;
  readonly type: "f32" | "f16";
}

/** Compiles for scores of one type. */
export async function compileIsolines(
  gpu: Gpu,
  type: "f32" | "f16" = "f32",
): Promise<IsolinesPipeline> {
  return { pipeline: await isolinesKernel.compile(gpu, {}, { Element: type }), type };
}

/**
 * Records the search in one channel: `scores` [N, H, W, C] of the type compiled; `thresholds` f32
 * [K]; `count` u32 [1], zero before; `segments` u32 [capacity, 4], in no order, for `chainIsolines`
 * of the pipeline.
 * @throws {RangeError} where the shapes do not fit.
 */
export function recordIsolines(
  recorder: Recorder,
  { pipeline, type }: IsolinesPipeline,
  bindings: Record<"scores" | "thresholds" | "count" | "segments", Tensor>,
  channel = 0,
): void {
  const { scores, thresholds, count, segments } = bindings;
  const [images = 0, height = 0, width = 0, channels = 0] = scores.shape;
  const [levels = 0] = thresholds.shape;
  const [capacity = 0, fields] = segments.shape;
  if (
    scores.type !== type || scores.shape.length !== 4 || thresholds.type !== "f32" ||
    thresholds.shape.length !== 1 || count.type !== "u32" || segments.type !== "u32" ||
    fields !== 4 || !Number.isInteger(channel) || channel < 0 || channel >= channels ||
    (width + 2) * (height + 2) >= 2 ** 31
  ) {
    throw new RangeError(
      `Cannot find iso-lines of channel ${channel} of ${scores.type} ` +
        `[${scores.shape.join(", ")}] at [${thresholds.shape.join(", ")}] thresholds into ` +
        `[${
          segments.shape.join(", ")
        }]: ${type} [N, H, W, C], f32 [K] and u32 [capacity, 4] are needed`,
    );
  }
  recorder.dispatch(pipeline, {
    params: { width, height, channels, channel, levels, capacity },
    bindings,
  }, [Math.ceil((width + 1) / 64), height + 1, images * levels]);
}

/**
 * Reads the segments back, four words each.
 * @throws {RangeError} where there was too little room: it says how much was needed.
 */
export async function readIsolines(
  { count, segments }: Record<"count" | "segments", Tensor>,
): Promise<Uint32Array> {
  const [counted, words] = await Promise.all([count.readBytes(), segments.readBytes()]);
  const met = new Uint32Array(counted)[0]!;
  const capacity = segments.shape[0]!;
  if (met > capacity) {
    throw new RangeError(`Cannot list ${met} segments of iso-lines: there is room for ${capacity}`);
  }
  return new Uint32Array(words, 0, 4 * met);
}
