/** Windows pooled, and regions (ONNX MaxPool-22, AveragePool-22, LpPool-22, GlobalAveragePool-22, MaxUnpool-11, MaxRoiPool-22, RoiAlign-22), channels first. */

import { elementCount, type HostTensor, numbersOf } from "../host_tensor.ts";
import { perAxis, type Windows, windowsOf } from "./conv.ts";
import { forEachIndex, stridesOf } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";

/** The windows of a pooling node. @throws {ModelError} where its attributes do not fit its image. */
export function poolWindows(node: NodeReader): Windows {
  const x = node.shape(0);
  if (x.length < 3) throw node.fail(`an image of shape [${x.join(", ")}]`);
  const size = x.slice(2);
  if (node.numbers("kernel_shape") === undefined) throw node.fail("no kernel_shape");
  return windowsOf(node, size, perAxis(node, "kernel_shape", size.length, 1, 1));
}

/** Calls back with each window's place in the output and, for each tap inside the image, its place there. */
function forEachTap(
  node: NodeReader,
  windows: Windows,
  visit: (plane: number, out: number, image: number, tap: number) => void,
): void {
  const x = node.shape(0);
  const size = x.slice(2);
  const planes = x[0]! * x[1]!;
  const strides = stridesOf(size);
  const [inPlane, outPlane] = [elementCount(size), elementCount(windows.out)];
  // Taps of each window once, for all channels.
  const taps: [number, number, number][] = [];
  forEachIndex(windows.out, (out, outAt) => {
    forEachIndex(windows.kernel, (kernel, tap) => {
      let at = 0;
      for (let i = 0; i < size.length; i++) {
        const p = out[i]! * windows.strides[i]! + kernel[i]! * windows.dilations[i]! -
          windows.padsBegin[i]!;
        if (p < 0 || p >= size[i]!) return;
        at += p * strides[i]!;
      }
      taps.push([outAt, at, tap]);
    });
  });
  for (let plane = 0; plane < planes; plane++) {
    for (const [out, at, tap] of taps) {
      visit(plane, plane * outPlane + out, plane * inPlane + at, tap);
    }
  }
}

function poolShape(node: NodeReader): number[] {
  return [...node.shape(0).slice(0, 2), ...poolWindows(node).out];
}

/** Taps of each window that count for an average: those in the image or, with the padding, in the padded image. */
export function averageCounts(
  windows: Windows,
  size: readonly number[],
  padded: boolean,
): number[] {
  const counts: number[] = [];
  forEachIndex(windows.out, (out) => {
    let count = 1;
    size.forEach((length, i) => {
      const start = out[i]! * windows.strides[i]! - windows.padsBegin[i]!;
      const low = padded ? -windows.padsBegin[i]! : 0;
      const high = length + (padded ? windows.padsEnd[i]! : 0);
      let along = 0;
      for (let k = 0; k < windows.kernel[i]!; k++) {
        const p = start + k * windows.dilations[i]!;
        if (p >= low && p < high) along++;
      }
      count *= along;
    });
    counts.push(count);
  });
  return counts;
}

const ATTRIBUTES = "auto_pad ceil_mode dilations kernel_shape pads strides";

/** An operator over all of each channel's image. */
function global(attributes: string, reduce: (node: NodeReader, list: Float64Array) => number) {
  return define({
    inputs: [1, 1],
    attributes,
    floats: true,
    shapes: (node) => {
      const x = node.shape(0);
      if (x.length < 2) throw node.fail(`an image of shape [${x.join(", ")}]`);
      return [[...x.slice(0, 2), ...x.slice(2).fill(1)]];
    },
    compute: (node, [x], [out]) => {
      const values = Float64Array.from(numbersOf(x!));
      const plane = elementCount(x!.shape.slice(2));
      const y = new Float64Array(elementCount(out!.shape!));
      return [y.map((_, i) => reduce(node, values.subarray(i * plane, (i + 1) * plane)))];
    },
  });
}

function norm(p: number, list: Float64Array): number {
  return list.reduce((sum, v) => sum + Math.abs(v) ** p, 0) ** (1 / p);
}

/** Mean or maximum of samples of a region. Source: ONNX RoiAlign-16. */
function roiAlign(node: NodeReader, inputs: readonly HostTensor[]): Float64Array {
  const [images, rois, batches] = inputs.map(numbersOf);
  const [, C, H, W] = node.shape(0) as [number, number, number, number];
  const [count] = node.shape(1) as [number];
  const height = node.number("output_height", 1);
  const width = node.number("output_width", 1);
  const scale = node.number("spatial_scale", 1);
  const ratio = node.number("sampling_ratio", 0);
  const byDefault = node.node.opset < 16 ? "output_half_pixel" : "half_pixel";
  const half = node.text("coordinate_transformation_mode", byDefault) === "half_pixel";
  const max = node.text("mode", "avg") === "max";
  const y = new Float64Array(count * C * height * width);
  let to = 0;
  for (let r = 0; r < count; r++) {
    const [x0, y0, x1, y1] = [0, 1, 2, 3].map((i) => rois![4 * r + i]! * scale - (half ? 0.5 : 0));
    let regionWidth = x1! - x0!;
    let regionHeight = y1! - y0!;
    if (!half) [regionWidth, regionHeight] = [Math.max(1, regionWidth), Math.max(1, regionHeight)];
    const [stepY, stepX] = [regionHeight / height, regionWidth / width];
    const gridY = ratio > 0 ? ratio : Math.ceil(stepY);
    const gridX = ratio > 0 ? ratio : Math.ceil(stepX);
    for (let c = 0; c < C; c++) {
      const at = (Number(batches![r]) * C + c) * H * W;
      for (let ph = 0; ph < height; ph++) {
        for (let pw = 0; pw < width; pw++) {
          let sum = 0;
          let most = -Infinity;
          for (let iy = 0; iy < gridY; iy++) {
            const row = y0! + ph * stepY + ((iy + 0.5) * stepY) / gridY;
            for (let ix = 0; ix < gridX; ix++) {
              const column = x0! + pw * stepX + ((ix + 0.5) * stepX) / gridX;
              if (row < -1 || row > H || column < -1 || column > W) {
                most = Math.max(most, 0);
                continue;
              }
              const top = Math.min(H - 1, Math.floor(Math.max(0, row)));
              const left = Math.min(W - 1, Math.floor(Math.max(0, column)));
              const fy = top === H - 1 ? 0 : Math.max(0, row) - top;
              const fx = left === W - 1 ? 0 : Math.max(0, column) - left;
              const [below, right] = [Math.min(H - 1, top + 1), Math.min(W - 1, left + 1)];
              const parts = [
                (1 - fy) * (1 - fx) * images![at + top * W + left]!,
                (1 - fy) * fx * images![at + top * W + right]!,
                fy * (1 - fx) * images![at + below * W + left]!,
                fy * fx * images![at + below * W + right]!,
              ];
              sum += parts.reduce((a, b) => a + b);
              most = Math.max(most, ...parts);
            }
          }
          const samples = Math.max(1, gridY * gridX);
          y[to++] = max ? (gridY * gridX === 0 ? 0 : most) : sum / samples;
        }
      }
    }
  }
  return y;
}

export const pool: Readonly<Record<string, Operator>> = {
  MaxPool: define({
    inputs: [1, 1],
    outputs: 2,
    attributes: `${ATTRIBUTES} storage_order`,
    heavy: true,
    types: (node) => [node.input(0).type, "int64"],
    shapes: (node) => {
      const shape = poolShape(node);
      return [shape, shape];
    },
    compute: (node, [x], [out]) => {
      const values = numbersOf(x!);
      const count = elementCount(out!.shape!);
      const y = new Float64Array(count).fill(-Infinity);
      const from = new Float64Array(count);
      forEachTap(node, poolWindows(node), (_, o, i) => {
        const v = values[i]!;
        if (v > y[o]! || Number.isNaN(v)) [y[o], from[o]] = [v, i];
      });
      if (node.number("storage_order", 0) === 1) {
        // Indices as if the image's axes ran the other way round.
        const size = x!.shape.slice(2);
        const plane = elementCount(size);
        const strides = stridesOf(size);
        from.forEach((i, o) => {
          let rest = i % plane;
          let [column, stride] = [0, 1];
          size.forEach((d, axis) => {
            column += Math.floor(rest / strides[axis]!) * stride;
            rest %= strides[axis]!;
            stride *= d;
          });
          from[o] = i - i % plane + column;
        });
      }
      return [y, from];
    },
  }),
  AveragePool: define({
    inputs: [1, 1],
    attributes: `${ATTRIBUTES} count_include_pad`,
    heavy: true,
    floats: true,
    shapes: (node) => [poolShape(node)],
    compute: (node, [x], [out]) => {
      const windows = poolWindows(node);
      const values = numbersOf(x!);
      const y = new Float64Array(elementCount(out!.shape!));
      forEachTap(node, windows, (_, o, i) => y[o]! += values[i]!);
      const padded = node.number("count_include_pad", 0) === 1;
      const counts = averageCounts(windows, x!.shape.slice(2), padded);
      return [y.map((sum, i) => sum / counts[i % counts.length]!)];
    },
  }),
  LpPool: define({
    inputs: [1, 1],
    attributes: `${ATTRIBUTES} p`,
    heavy: true,
    floats: true,
    shapes: (node) => [poolShape(node)],
    compute: (node, [x], [out]) => {
      const p = node.number("p", 2);
      const values = numbersOf(x!);
      const y = new Float64Array(elementCount(out!.shape!));
      forEachTap(node, poolWindows(node), (_, o, i) => y[o]! += Math.abs(values[i]!) ** p);
      return [y.map((sum) => sum ** (1 / p))];
    },
  }),
  GlobalAveragePool: global("", (_, list) => list.reduce((a, b) => a + b, 0) / list.length),
  GlobalMaxPool: global("", (_, list) => list.reduce((a, b) => Math.max(a, b), -Infinity)),
  GlobalLpPool: global("p", (node, list) => norm(node.number("p", 2), list)),
  MaxUnpool: define({
    inputs: [2, 3],
    attributes: "kernel_shape pads strides",
    shapes: (node) => {
      const x = node.shape(0);
      const rank = x.length - 2;
      if (node.inputs[2] !== undefined) {
        const asked = node.inputs[2].known;
        return [asked && Array.from(asked.data, Number)];
      }
      const kernel = perAxis(node, "kernel_shape", rank, 1, 1);
      const strides = perAxis(node, "strides", rank, 1, 1);
      const pads = perAxis(node, "pads", 2 * rank, 0, 0);
      return [[
        ...x.slice(0, 2),
        ...kernel.map((k, i) => (x[2 + i]! - 1) * strides[i]! + k - pads[i]! - pads[rank + i]!),
      ]];
    },
    compute: (node, [x, indices], [out]) => {
      // Indices are of the image that would follow without output_shape.
      const rank = x!.shape.length - 2;
      const kernel = perAxis(node, "kernel_shape", rank, 1, 1);
      const strides = perAxis(node, "strides", rank, 1, 1);
      const pads = perAxis(node, "pads", 2 * rank, 0, 0);
      const inferred = [
        ...x!.shape.slice(0, 2),
        ...kernel.map((k, i) => {
          return (x!.shape[2 + i]! - 1) * strides[i]! + k - pads[i]! - pads[rank + i]!;
        }),
      ];
      const from = stridesOf(inferred);
      const to = stridesOf(out!.shape!);
      const y = new Float64Array(elementCount(out!.shape!));
      const values = numbersOf(x!);
      numbersOf(indices!).forEach((index: number, i: number) => {
        let at = 0;
        let rest = index;
        from.forEach((stride, axis) => {
          at += Math.floor(rest / stride) * to[axis]!;
          rest %= stride;
        });
        y[at] = values[i]!;
      });
      return [y];
    },
  }),
  RoiAlign: define({
    inputs: [3, 3],
    attributes:
      "coordinate_transformation_mode mode output_height output_width sampling_ratio spatial_scale",
    heavy: true,
    floats: true,
    shapes: (node) => {
      const x = node.shape(0);
      const rois = node.shape(1);
      if (x.length !== 4 || rois.length !== 2 || rois[1] !== 4) {
        throw node.fail(`images [${x.join(", ")}] and regions [${rois.join(", ")}]`);
      }
      const [height, width] = [node.number("output_height", 1), node.number("output_width", 1)];
      return [[rois[0]!, x[1]!, height, width]];
    },
    compute: (node, inputs) => [roiAlign(node, inputs)],
  }),
};
