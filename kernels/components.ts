/**
 * Connected components of class maps and of score maps above a threshold: labels that stay on the
 * GPU, and a list of areas, boxes and centroids for the host. By union and find without locks
 * (Playne & Hawick, «A New Algorithm for Parallel Connected-Component Labelling on GPUs», IEEE TPDS
 * 29:1217, 2018): four dispatches whatever the shapes are.
 */

import listCode from "./components_list.wgsl" with { type: "text" };
import measureCode from "./components_measure.wgsl" with { type: "text" };
import mergeCode from "./components_merge.wgsl" with { type: "text" };
import startCode from "./components_start.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Pipeline, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const componentsStartKernel = defineKernel({
  name: "components_start",
  code: startCode,
  params: {
    width: "u32",
    rows: "u32",
    channels: "u32",
    channel: "u32",
    background: "u32",
    threshold: "f32",
  },
  bindings: {
    map: { type: "array<Element>", access: "read" },
    kinds: { type: "array<u32>", access: "read_write" },
    labels: { type: "array<u32>", access: "read_write" },
    count: { type: "array<u32>", access: "read_write" },
  },
  overrides: { THRESHOLDED: false },
  aliases: { Element: ["f32", "f16", "u32", "i32"] },
});

export const componentsMergeKernel = defineKernel({
  name: "components_merge",
  code: mergeCode,
  params: { width: "u32", height: "u32", pixels: "u32" },
  bindings: {
    kinds: { type: "array<u32>", access: "read" },
    labels: { type: "array<atomic<u32>>", access: "read_write" },
  },
  overrides: { EIGHT: false },
});

export const componentsListKernel = defineKernel({
  name: "components_list",
  code: listCode,
  params: { pixels: "u32", image_pixels: "u32", capacity: "u32" },
  bindings: {
    labels: { type: "array<atomic<u32>>", access: "read_write" },
    kinds: { type: "array<u32>", access: "read_write" },
    count: { type: "array<atomic<u32>>", access: "read_write" },
    list: { type: "array<u32>", access: "read_write" },
  },
  overrides: {},
});

export const componentsMeasureKernel = defineKernel({
  name: "components_measure",
  code: measureCode,
  params: { width: "u32", height: "u32", rows: "u32", capacity: "u32" },
  bindings: {
    labels: { type: "array<u32>", access: "read" },
    kinds: { type: "array<u32>", access: "read" },
    list: { type: "array<atomic<u32>>", access: "read_write" },
  },
  overrides: {},
});

export interface ComponentsOptions {
  /** Pixels that touch at a side only, 4, the default, or at a corner too, 8. */
  readonly connectivity?: 4 | 8;
  /** Whether the map holds classes, the default, or scores of which a threshold makes a mask. */
  readonly of?: "classes" | "scores";
  /** The map's type. */
  readonly type?: "f32" | "f16" | "u32" | "i32";
}

export interface ComponentsPipelines {
  readonly type: "f32" | "f16" | "u32" | "i32";
  readonly start: Pipeline<typeof componentsStartKernel.literal>;
  readonly merge: Pipeline<typeof componentsMergeKernel.literal>;
  readonly list: Pipeline<typeof componentsListKernel.literal>;
  readonly measure: Pipeline<typeof componentsMeasureKernel.literal>;
}

/** Compiles all four kernels. */
export async function compileComponents(
  gpu: Gpu,
  { connectivity = 4, of = "classes", type = "f32" }: ComponentsOptions = {},
): Promise<ComponentsPipelines> {
  const [start, merge, list, measure] = await Promise.all([
    componentsStartKernel.compile(gpu, { THRESHOLDED: of === "scores" }, { Element: type }),
    componentsMergeKernel.compile(gpu, { EIGHT: connectivity === 8 }),
    componentsListKernel.compile(gpu),
    componentsMeasureKernel.compile(gpu),
  ]);
  return { type, start, merge, list, measure };
}

/** What `recordComponents` reads and writes. */
export interface ComponentsTensors {
  /** [N, H, W] or [N, H, W, C], of the type that was compiled. */
  readonly map: Tensor;
  /** u32 [N, H, W]: one more than the number of the component's first pixel of all N · H · W, 0 for background. */
  readonly labels: Tensor;
  /** u32 [N, H, W]: for the kernels alone. */
  readonly kinds: Tensor;
  /** u32 [1]: the number of components, also of those that `list` had no room for. */
  readonly count: Tensor;
  /** u32 [capacity, 12]: see `readComponents`. */
  readonly list: Tensor;
}

/**
 * Records the search for components of one class. Images of a batch do not touch each other.
 * @param which the channel of the map, 0 by default; for classes the one that is background, 0 by
 *   default, beside −1; for scores the least that is inside.
 * @throws {RangeError} where the shapes do not fit.
 */
export function recordComponents(
  recorder: Recorder,
  pipelines: ComponentsPipelines,
  { map, labels, kinds, count, list }: ComponentsTensors,
  which: { channel?: number; background?: number; threshold?: number } = {},
): void {
  const { channel = 0, background = 0, threshold = 0.5 } = which;
  const [images = 0, height = 0, width = 0, channels = 1] = map.shape;
  const [capacity = 0, fields] = list.shape;
  const pixels = images * height * width;
  const same = (tensor: Tensor) =>
    tensor.type === "u32" && tensor.shape.join() === [images, height, width].join();
  if (
    map.type !== pipelines.type || map.shape.length < 3 || map.shape.length > 4 || !same(labels) ||
    !same(kinds) || labels.id === kinds.id || count.type !== "u32" || list.type !== "u32" ||
    fields !== COMPONENT_FIELDS || !Number.isInteger(channel) || channel < 0 ||
    channel >= channels ||
    pixels >= 2 ** 32 - 1
  ) {
    throw new RangeError(
      `Cannot find components in channel ${channel} of ${map.type} [${
        map.shape.join(", ")
      }] with ` +
        `labels [${labels.shape.join(", ")}], kinds [${kinds.shape.join(", ")}] and a list ` +
        `[${list.shape.join(", ")}]: ${pipelines.type} [N, H, W] or [N, H, W, C], twice u32 ` +
        `[N, H, W] and u32 [capacity, ${COMPONENT_FIELDS}] are needed`,
    );
  }
  const { gpu } = recorder;
  if (pixels === 0) {
    count.write(new Uint32Array(1));
    return;
  }
  const rows = images * height;
  const spans = rowOfWorkgroups(gpu, Math.ceil(rows * Math.ceil(width / 32) / 64));
  const each = rowOfWorkgroups(gpu, Math.ceil(pixels / 64));
  recorder.dispatch(pipelines.start, {
    params: { width, rows, channels, channel, background, threshold },
    bindings: { map, kinds, labels, count },
  }, spans);
  recorder.dispatch(pipelines.merge, {
    params: { width, height, pixels },
    bindings: { kinds, labels },
  }, each);
  recorder.dispatch(pipelines.list, {
    params: { pixels, image_pixels: height * width, capacity },
    bindings: { labels, kinds, count, list },
  }, each);
  recorder.dispatch(pipelines.measure, {
    params: { width, height, rows, capacity },
    bindings: { labels, kinds, list },
  }, spans);
}

/** Words that the list has of each component; `readComponents` tells them. */
export const COMPONENT_FIELDS = 12;

export interface Component {
  /** Which image of the batch. */
  readonly image: number;
  /** One more than the number, of all N · H · W, of its first pixel in reading order. */
  readonly label: number;
  /** Of a class map the class; of scores 0. */
  readonly class: number;
  readonly areaPx: number;
  /** The box's first and last pixels. */
  readonly x0: number;
  readonly y0: number;
  readonly x1: number;
  readonly y1: number;
  /** The mean of its pixels' coordinates; pixel (x, y) is at (x, y). */
  readonly centroidX: number;
  readonly centroidY: number;
}

/**
 * Reads the list back, in the order of labels.
 * @throws {RangeError} where it had too little room: it says how much was needed.
 */
export async function readComponents(
  { count, list }: Pick<ComponentsTensors, "count" | "list">,
): Promise<Component[]> {
  const [counted, words] = await Promise.all([count.readBytes(), list.readBytes()]);
  const met = new Uint32Array(counted)[0]!;
  const capacity = list.shape[0]!;
  if (met > capacity) {
    throw new RangeError(`Cannot list ${met} components: the list has room for ${capacity}`);
  }
  const rows = new Uint32Array(words);
  return Array.from({ length: met }, (_, i) => {
    const [label, class_, areaPx, x0, y0, x1, y1, xLow, xHigh, yLow, yHigh, image] = rows.subarray(
      COMPONENT_FIELDS * i,
      COMPONENT_FIELDS * (i + 1),
    ) as unknown as number[] & { length: 12 };
    return {
      image: image!,
      label: label!,
      class: class_!,
      areaPx: areaPx!,
      x0: x0!,
      y0: y0!,
      x1: x1!,
      y1: y1!,
      centroidX: (xHigh! * 2 ** 32 + xLow!) / areaPx!,
      centroidY: (yHigh! * 2 ** 32 + yLow!) / areaPx!,
    };
  }).sort((a, b) => a.label - b.label);
}
