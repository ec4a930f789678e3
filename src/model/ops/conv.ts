/** Convolutions (ONNX Conv-11, ConvTranspose-11, ConvInteger-10, QLinearConv-10, DeformConv-19), channels first as ONNX has them: [N, C, …spatial]. */

import { elementCount, type HostTensor, numbersOf } from "../host_tensor.ts";
import { roundHalfToEven } from "./elementwise.ts";
import { stridesOf } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";
import { broadcastChannel, quantisedRange } from "./quantise.ts";

/** How windows lie on an image; one number for each spatial axis. */
export interface Windows {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  readonly padsBegin: readonly number[];
  readonly padsEnd: readonly number[];
  /** Windows along each axis. */
  readonly out: readonly number[];
}

/** A list attribute with a number for each spatial axis. @throws {ModelError} where it has another length, or one below `least`. */
export function perAxis(
  node: NodeReader,
  name: string,
  rank: number,
  byDefault: number,
  least: number,
): readonly number[] {
  const list = node.numbers(name) ?? new Array<number>(rank).fill(byDefault);
  if (list.length !== rank) {
    throw node.fail(`attribute "${name}" has ${list.length} numbers for ${rank} axes`);
  }
  const bad = list.find((v) => !Number.isInteger(v) || v < least || v >= 2 ** 31);
  if (bad !== undefined) throw node.fail(`attribute "${name}" has ${bad}`);
  return list;
}

/**
 * Windows of `kernel` over an image of `size`, by a node's `strides`, `dilations`, `pads`,
 * `auto_pad` and `ceil_mode`. Source: ONNX Conv-11, MaxPool-22.
 * @throws {ModelError} where no window fits.
 */
export function windowsOf(
  node: NodeReader,
  size: readonly number[],
  kernel: readonly number[],
): Windows {
  const rank = size.length;
  const strides = perAxis(node, "strides", rank, 1, 1);
  const dilations = perAxis(node, "dilations", rank, 1, 1);
  const auto = node.text("auto_pad", "NOTSET");
  const ceil = node.number("ceil_mode", 0) === 1;
  const pads = auto === "NOTSET" ? perAxis(node, "pads", 2 * rank, 0, 0) : [];
  const [padsBegin, padsEnd, out]: [number[], number[], number[]] = [[], [], []];
  for (let i = 0; i < rank; i++) {
    const span = (kernel[i]! - 1) * dilations[i]! + 1;
    let [begin, end, count] = [0, 0, 0];
    if (auto === "SAME_UPPER" || auto === "SAME_LOWER") {
      count = Math.ceil(size[i]! / strides[i]!);
      const total = Math.max(0, (count - 1) * strides[i]! + span - size[i]!);
      begin = auto === "SAME_UPPER" ? Math.floor(total / 2) : Math.ceil(total / 2);
      end = total - begin;
    } else if (auto === "NOTSET" || auto === "VALID") {
      begin = pads[i] ?? 0;
      end = pads[rank + i] ?? 0;
      const steps = (size[i]! + begin + end - span) / strides[i]!;
      count = (ceil ? Math.ceil(steps) : Math.floor(steps)) + 1;
      // A window that would start behind the image is none.
      if (ceil && (count - 1) * strides[i]! >= size[i]! + begin) count--;
    } else throw node.fail(`attribute "auto_pad" is "${auto}"`);
    if (count <= 0 && size[i]! > 0) {
      throw node.fail(`no window of ${span} fits ${size[i]} padded with ${begin} and ${end}`);
    }
    padsBegin.push(begin);
    padsEnd.push(end);
    out.push(Math.max(0, count));
  }
  return { kernel, strides, dilations, padsBegin, padsEnd, out };
}

export interface Convolution extends Windows {
  readonly batch: number;
  readonly inChannels: number;
  readonly outChannels: number;
  readonly group: number;
  /** Of the image. */
  readonly size: readonly number[];
}

/** Spatial size of an image [N, C, …]. */
function spatial(node: NodeReader, shape: readonly number[]): readonly number[] {
  if (shape.length < 3) throw node.fail(`an image of shape [${shape.join(", ")}]`);
  return shape.slice(2);
}

function kernelOf(node: NodeReader, weights: readonly number[]): readonly number[] {
  const kernel = weights.slice(2);
  const said = node.numbers("kernel_shape");
  if (said !== undefined && said.join() !== kernel.join()) {
    throw node.fail(
      `attribute "kernel_shape" is [${said.join(", ")}], the weights [${weights.join(", ")}]`,
    );
  }
  if (kernel.some((k) => k < 1)) throw node.fail(`weights of shape [${weights.join(", ")}]`);
  return kernel;
}

/**
 * What a Conv node computes from [N, C, …] and weights [M, C / group, …].
 * @throws {ModelError} where its shapes or attributes do not fit each other.
 */
export function convolution(node: NodeReader, weightsAt = 1): Convolution {
  const x = node.shape(0);
  const w = node.shape(weightsAt);
  const size = spatial(node, x);
  const group = node.number("group", 1);
  const fits = w.length === x.length && Number.isInteger(group) && group >= 1 &&
    x[1] === w[1]! * group && w[0]! % group === 0;
  if (!fits) {
    throw node.fail(
      `an image [${x.join(", ")}] and weights [${w.join(", ")}] in ${group} groups`,
    );
  }
  const windows = windowsOf(node, size, kernelOf(node, w));
  return { ...windows, batch: x[0]!, inChannels: x[1]!, outChannels: w[0]!, group, size };
}

/** A bias must have a number for each of `channels`. */
function checkBias(node: NodeReader, at: number, channels: number): void {
  if (node.inputs[at] === undefined) return;
  const shape = node.shape(at);
  if (shape.length !== 1 || shape[0] !== channels) {
    throw node.fail(`a bias of shape [${shape.join(", ")}] for ${channels} channels`);
  }
}

/** Three numbers of one to three, for loops over depth, height and width. */
function three(list: readonly number[], fill: number): [number, number, number] {
  return [...new Array<number>(3 - list.length).fill(fill), ...list] as [number, number, number];
}

function threeAxes(node: NodeReader, windows: Windows, size: readonly number[]) {
  if (size.length > 3) throw node.fail(`${size.length} spatial axes`);
  return {
    size: three(size, 1),
    out: three(windows.out, 1),
    kernel: three(windows.kernel, 1),
    strides: three(windows.strides, 1),
    dilations: three(windows.dilations, 1),
    pads: three(windows.padsBegin, 0),
  };
}

/** Outputs o of [0, out) whose tap `o · stride + at` lies in [0, size). */
function tapRange(at: number, stride: number, size: number, out: number): [number, number] {
  const first = at >= 0 ? 0 : Math.ceil(-at / stride);
  const end = Math.min(out, Math.ceil((size - at) / stride));
  return [first, Math.max(first, end)];
}

/** y[n, m, o] = Σ x[n, c, o · stride + k · dilation − pad] · w[m, c, k]. */
function convolve(
  node: NodeReader,
  c: Convolution,
  x: ArrayLike<number>,
  w: ArrayLike<number>,
): Float64Array {
  const { size, out, kernel, strides, dilations, pads } = threeAxes(node, c, c.size);
  const [D, H, W] = size;
  const [OD, OH, OW] = out;
  const plane = OD * OH * OW;
  const y = new Float64Array(c.batch * c.outChannels * plane);
  const perGroup = c.inChannels / c.group;
  const outPerGroup = c.outChannels / c.group;
  for (let n = 0; n < c.batch; n++) {
    for (let m = 0; m < c.outChannels; m++) {
      const yAt = (n * c.outChannels + m) * plane;
      const firstChannel = Math.floor(m / outPerGroup) * perGroup;
      let wAt = m * perGroup * kernel[0] * kernel[1] * kernel[2];
      for (let i = 0; i < perGroup; i++) {
        const xAt = (n * c.inChannels + firstChannel + i) * D * H * W;
        for (let kd = 0; kd < kernel[0]; kd++) {
          const atD = kd * dilations[0] - pads[0];
          const [d0, d1] = tapRange(atD, strides[0], D, OD);
          for (let kh = 0; kh < kernel[1]; kh++) {
            const atH = kh * dilations[1] - pads[1];
            const [h0, h1] = tapRange(atH, strides[1], H, OH);
            for (let kw = 0; kw < kernel[2]; kw++) {
              const atW = kw * dilations[2] - pads[2];
              const [w0, w1] = tapRange(atW, strides[2], W, OW);
              const weight = w[wAt++]!;
              if (weight === 0) continue;
              for (let od = d0; od < d1; od++) {
                for (let oh = h0; oh < h1; oh++) {
                  const row = xAt + ((od * strides[0] + atD) * H + oh * strides[1] + atH) * W + atW;
                  const to = yAt + (od * OH + oh) * OW;
                  for (let ow = w0; ow < w1; ow++) {
                    y[to + ow]! += weight * x[row + ow * strides[2]]!;
                  }
                }
              }
            }
          }
        }
      }
    }
  }
  return y;
}

/** Adds a bias to each channel of [N, M, …]. */
function addBias(y: Float64Array, bias: ArrayLike<number> | undefined, plane: number): void {
  if (bias === undefined) return;
  for (let i = 0; i < y.length; i++) y[i]! += bias[Math.floor(i / plane) % bias.length]!;
}

const ATTRIBUTES = "auto_pad dilations group kernel_shape pads strides";

function convShape(c: Convolution): number[] {
  return [c.batch, c.outChannels, ...c.out];
}

export interface TransposedConvolution extends Convolution {
  readonly outputPadding: readonly number[];
}

/**
 * What a ConvTranspose node computes from [N, C, …] and weights [C, M / group, …]: an image of
 * `out`, of which the padding is what a Conv of that size would have had.
 * @throws {ModelError} where its shapes or attributes do not fit each other.
 */
export function transposedConvolution(node: NodeReader): TransposedConvolution {
  const x = node.shape(0);
  const w = node.shape(1);
  const size = spatial(node, x);
  const rank = size.length;
  const group = node.number("group", 1);
  const fits = w.length === x.length && Number.isInteger(group) && group >= 1 && x[1] === w[0] &&
    w[0]! % group === 0;
  if (!fits) {
    throw node.fail(
      `an image [${x.join(", ")}] and weights [${w.join(", ")}] in ${group} groups`,
    );
  }
  const kernel = kernelOf(node, w);
  const strides = perAxis(node, "strides", rank, 1, 1);
  const dilations = perAxis(node, "dilations", rank, 1, 1);
  const outputPadding = perAxis(node, "output_padding", rank, 0, 0);
  const auto = node.text("auto_pad", "NOTSET");
  const same = auto === "SAME_UPPER" || auto === "SAME_LOWER";
  if (!same && auto !== "NOTSET" && auto !== "VALID") {
    throw node.fail(`attribute "auto_pad" is "${auto}"`);
  }
  let wanted = node.numbers("output_shape");
  // Some exporters write the whole shape.
  if (wanted !== undefined && wanted.length === rank + 2) wanted = wanted.slice(2);
  if (wanted !== undefined && (wanted.length !== rank || wanted.some((v) => v < 1))) {
    throw node.fail(`attribute "output_shape" is [${wanted.join(", ")}]`);
  }
  const pads = auto === "NOTSET" ? perAxis(node, "pads", 2 * rank, 0, 0) : [];
  const [padsBegin, padsEnd, out]: [number[], number[], number[]] = [[], [], []];
  for (let i = 0; i < rank; i++) {
    const span = (kernel[i]! - 1) * dilations[i]! + 1;
    const full = strides[i]! * (size[i]! - 1) + outputPadding[i]! + span;
    let [begin, end] = [pads[i] ?? 0, pads[rank + i] ?? 0];
    const length = wanted?.[i] ?? (same ? size[i]! * strides[i]! : full - begin - end);
    if (wanted !== undefined || same) {
      const total = Math.max(0, full - length);
      begin = auto === "SAME_UPPER" ? Math.floor(total / 2) : Math.ceil(total / 2);
      end = total - begin;
    }
    if (length <= 0 && size[i]! > 0) throw node.fail(`an output of ${length}`);
    padsBegin.push(begin);
    padsEnd.push(end);
    out.push(Math.max(0, length));
  }
  return {
    kernel,
    strides,
    dilations,
    padsBegin,
    padsEnd,
    out,
    outputPadding,
    batch: x[0]!,
    inChannels: x[1]!,
    outChannels: w[1]! * group,
    group,
    size,
  };
}

/** y[n, m, i · stride + k · dilation − pad] += x[n, c, i] · w[c, m, k]. */
function convolveTransposed(
  node: NodeReader,
  c: TransposedConvolution,
  x: ArrayLike<number>,
  w: ArrayLike<number>,
): Float64Array {
  const { size, out, kernel, strides, dilations, pads } = threeAxes(node, c, c.size);
  const [D, H, W] = size;
  const [OD, OH, OW] = out;
  const plane = OD * OH * OW;
  const y = new Float64Array(c.batch * c.outChannels * plane);
  const perGroup = c.inChannels / c.group;
  const outPerGroup = c.outChannels / c.group;
  for (let n = 0; n < c.batch; n++) {
    for (let i = 0; i < c.inChannels; i++) {
      const xAt = (n * c.inChannels + i) * D * H * W;
      let wAt = i * outPerGroup * kernel[0] * kernel[1] * kernel[2];
      for (let m = 0; m < outPerGroup; m++) {
        const yAt = (n * c.outChannels + Math.floor(i / perGroup) * outPerGroup + m) * plane;
        for (let kd = 0; kd < kernel[0]; kd++) {
          const atD = kd * dilations[0] - pads[0];
          const [d0, d1] = tapRange(atD, strides[0], OD, D);
          for (let kh = 0; kh < kernel[1]; kh++) {
            const atH = kh * dilations[1] - pads[1];
            const [h0, h1] = tapRange(atH, strides[1], OH, H);
            for (let kw = 0; kw < kernel[2]; kw++) {
              const atW = kw * dilations[2] - pads[2];
              const [w0, w1] = tapRange(atW, strides[2], OW, W);
              const weight = w[wAt++]!;
              for (let d = d0; d < d1; d++) {
                for (let h = h0; h < h1; h++) {
                  const row = yAt +
                    ((d * strides[0] + atD) * OH + h * strides[1] + atH) * OW + atW;
                  const from = xAt + (d * H + h) * W;
                  for (let v = w0; v < w1; v++) y[row + v * strides[2]]! += weight * x[from + v]!;
                }
              }
            }
          }
        }
      }
    }
  }
  return y;
}

/** x less its zero point, which is one number or one for each of axis 0 or 1. */
function centred(x: HostTensor, zero: HostTensor | undefined, axis: number): ArrayLike<number> {
  const values = numbersOf(x);
  if (zero === undefined) return values;
  const points = broadcastChannel(zero, x.shape, axis);
  return Float64Array.from(values, (v, i) => v - points(i));
}

/** What FusedConv ends with. Source: ONNX Runtime `docs/ContribOperators.md`, com.microsoft.FusedConv. */
function fusedActivation(node: NodeReader): (x: number) => number {
  const name = node.text("activation", "");
  const [a = 0, b = 0] = node.numbers("activation_params") ?? [];
  switch (name) {
    case "":
      return (x) => x;
    case "Relu":
      return (x) => Math.max(0, x);
    case "LeakyRelu":
      return (x) => x < 0 ? a * x : x;
    case "Clip":
      return (x) => Math.min(Math.max(x, a), b);
    case "Sigmoid":
      return (x) => 1 / (1 + Math.exp(-x));
    case "Tanh":
      return Math.tanh;
    case "HardSigmoid":
      return (x) => Math.max(0, Math.min(1, a * x + b));
  }
  throw node.fail(`attribute "activation" is "${name}"`);
}

/**
 * Bilinear interpolation on an image [H, W] at `at`, whose neighbours outside it are 0.
 * Source: ONNX DeformConv-19.
 */
function sample(
  x: ArrayLike<number>,
  at: number,
  h: number,
  w: number,
  y0: number,
  x0: number,
): number {
  const top = Math.floor(y0);
  const left = Math.floor(x0);
  let sum = 0;
  for (const [r, wr] of [[top, top + 1 - y0], [top + 1, y0 - top]] as const) {
    for (const [c, wc] of [[left, left + 1 - x0], [left + 1, x0 - left]] as const) {
      if (r >= 0 && r < h && c >= 0 && c < w) sum += wr * wc * x[at + r * w + c]!;
    }
  }
  return sum;
}

export const conv: Readonly<Record<string, Operator>> = {
  Conv: define({
    inputs: [2, 3],
    attributes: ATTRIBUTES,
    heavy: true,
    floats: true,
    shapes: (node) => {
      const c = convolution(node);
      checkBias(node, 2, c.outChannels);
      return [convShape(c)];
    },
    compute: (node, [x, w, bias]) => {
      const c = convolution(node);
      const y = convolve(node, c, numbersOf(x!), numbersOf(w!));
      addBias(y, bias && numbersOf(bias), elementCount(c.out));
      return [y];
    },
  }),
  "com.microsoft.FusedConv": define({
    inputs: [2, 4],
    attributes: `${ATTRIBUTES} activation activation_params`,
    heavy: true,
    floats: true,
    shapes: (node) => {
      const c = convolution(node);
      checkBias(node, 2, c.outChannels);
      fusedActivation(node);
      return [convShape(c)];
    },
    compute: (node, [x, w, bias, z]) => {
      const c = convolution(node);
      const y = convolve(node, c, numbersOf(x!), numbersOf(w!));
      addBias(y, bias && numbersOf(bias), elementCount(c.out));
      const f = fusedActivation(node);
      const added = z && numbersOf(z);
      return [y.map((v, i) => f(v + (added?.[i] ?? 0)))];
    },
  }),
  ConvTranspose: define({
    inputs: [2, 3],
    attributes: `${ATTRIBUTES} output_padding output_shape`,
    heavy: true,
    floats: true,
    shapes: (node) => {
      const c = transposedConvolution(node);
      checkBias(node, 2, c.outChannels);
      return [convShape(c)];
    },
    compute: (node, [x, w, bias]) => {
      const c = transposedConvolution(node);
      const y = convolveTransposed(node, c, numbersOf(x!), numbersOf(w!));
      addBias(y, bias && numbersOf(bias), elementCount(c.out));
      return [y];
    },
  }),
  ConvInteger: define({
    inputs: [2, 4],
    attributes: ATTRIBUTES,
    heavy: true,
    types: () => ["int32"],
    shapes: (node) => [convShape(convolution(node))],
    compute: (node, [x, w, xZero, wZero]) => {
      const c = convolution(node);
      return [convolve(node, c, centred(x!, xZero, 1), centred(w!, wZero, 0))];
    },
  }),
  QLinearConv: define({
    inputs: [8, 9],
    attributes: ATTRIBUTES,
    heavy: true,
    types: (node) => [node.input(7).type],
    shapes: (node) => [convShape(convolution(node, 3))],
    compute: (node, inputs, [out]) => {
      const [x, xScale, xZero, w, wScale, wZero, yScale, yZero, bias] = inputs;
      const c = convolution(node, 3);
      const y = convolve(node, c, centred(x!, xZero, 1), centred(w!, wZero, 0));
      const plane = elementCount(c.out);
      addBias(y, bias && numbersOf(bias), plane);
      const scales = numbersOf(wScale!);
      const [low, high] = quantisedRange(node, out!.type);
      const zero = Number(yZero!.data[0]);
      const factor = Number(xScale!.data[0]) / Number(yScale!.data[0]);
      return [y.map((v, i) => {
        const scale = scales[Math.floor(i / plane) % c.outChannels % scales.length]!;
        return Math.min(high, Math.max(low, roundHalfToEven(v * scale * factor) + zero));
      })];
    },
  }),
  DeformConv: define({
    inputs: [3, 5],
    attributes: `${ATTRIBUTES} offset_group`,
    heavy: true,
    floats: true,
    shapes: (node) => {
      const c = convolution(node);
      if (c.size.length !== 2) throw node.fail(`${c.size.length} spatial axes`);
      checkBias(node, 3, c.outChannels);
      const groups = node.number("offset_group", 1);
      const taps = elementCount(c.kernel);
      const expected = (each: number) => [c.batch, groups * taps * each, ...c.out];
      if (c.inChannels % groups !== 0 || node.shape(2).join() !== expected(2).join()) {
        throw node.fail(`offsets of shape [${node.shape(2).join(", ")}]`);
      }
      if (node.inputs[4] !== undefined && node.shape(4).join() !== expected(1).join()) {
        throw node.fail(`a mask of shape [${node.shape(4).join(", ")}]`);
      }
      return [convShape(c)];
    },
    compute: (node, [xs, ws, offsets, bias, mask]) => {
      const c = convolution(node);
      const [x, w, offset] = [numbersOf(xs!), numbersOf(ws!), numbersOf(offsets!)];
      const factor = mask && numbersOf(mask);
      const [H, W] = c.size as [number, number];
      const [OH, OW] = c.out as [number, number];
      const [KH, KW] = c.kernel as [number, number];
      const groups = node.number("offset_group", 1);
      const taps = KH * KW;
      const plane = OH * OW;
      const perGroup = c.inChannels / c.group;
      const wStrides = stridesOf(ws!.shape);
      const y = new Float64Array(c.batch * c.outChannels * plane);
      for (let n = 0; n < c.batch; n++) {
        for (let i = 0; i < c.inChannels; i++) {
          const offsetGroup = Math.floor(i / (c.inChannels / groups));
          const group = Math.floor(i / perGroup);
          for (let tap = 0; tap < taps; tap++) {
            const [kh, kw] = [Math.floor(tap / KW), tap % KW];
            const at = (n * groups + offsetGroup) * taps + tap;
            for (let o = 0; o < plane; o++) {
              const oh = Math.floor(o / OW), ow = o % OW;
              const row = oh * c.strides[0]! - c.padsBegin[0]! + kh * c.dilations[0]! +
                offset[2 * at * plane + o]!;
              const column = ow * c.strides[1]! - c.padsBegin[1]! + kw * c.dilations[1]! +
                offset[(2 * at + 1) * plane + o]!;
              const value = sample(x, (n * c.inChannels + i) * H * W, H, W, row, column) *
                (factor?.[at * plane + o] ?? 1);
              if (value === 0) continue;
              const outs = c.outChannels / c.group;
              for (let m = group * outs; m < (group + 1) * outs; m++) {
                const weight = w[m * wStrides[0]! + (i % perGroup) * wStrides[1]! + tap]!;
                y[(n * c.outChannels + m) * plane + o]! += value * weight;
              }
            }
          }
        }
      }
      addBias(y, bias && numbersOf(bias), plane);
      return [y];
    },
  }),
};
