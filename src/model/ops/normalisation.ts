/** Normalisations and softmax (ONNX BatchNormalization-15, InstanceNormalization-22, LayerNormalization-17, GroupNormalization-21, RMSNormalization-23, Softmax-13, LRN-13 and their kin). */

import { type DataType, elementCount, type HostTensor, numbersOf } from "../host_tensor.ts";
import { typeNamed } from "./elementwise.ts";
import { around, broadcastShape, broadcastTo } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";

type Numbers = ArrayLike<number>;

/** A list input must have one number for each channel (axis 1). */
function checkChannels(node: NodeReader, first: number, last: number): void {
  const x = node.shape(0);
  for (let i = first; i <= last; i++) {
    const shape = node.shape(i);
    if (x.length < 2 || elementCount(shape) !== x[1]) {
      throw node.fail(`input ${i} of shape [${shape.join(", ")}] for [${x.join(", ")}]`);
    }
  }
}

/** Each run of `length` numbers less its mean, over its deviation. */
function standardised(x: Numbers, length: number, epsilon: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += length) {
    let sum = 0;
    for (let i = 0; i < length; i++) sum += x[at + i]!;
    const mean = sum / length;
    let squares = 0;
    for (let i = 0; i < length; i++) squares += (x[at + i]! - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / length + epsilon);
    for (let i = 0; i < length; i++) y[at + i] = (x[at + i]! - mean) * scale;
  }
  return y;
}

/** Elements from `axis` on, over which a layer is normalised, and their shape. */
export function layerOf(node: NodeReader): { axis: number; length: number; shape: number[] } {
  const x = node.shape(0);
  const axis = node.axis(node.number("axis", -1), x.length);
  const shape = x.slice(axis);
  return { axis, length: elementCount(shape), shape: [...shape] };
}

/** A scale or bias must broadcast to the layer's input. */
function checkLayer(node: NodeReader, at: number): void {
  if (node.inputs[at] === undefined) return;
  const x = node.shape(0);
  if (broadcastShape(node, [x, node.shape(at)]).join() !== x.join()) {
    throw node.fail(`input ${at} of shape [${node.shape(at).join(", ")}] for [${x.join(", ")}]`);
  }
}

function affine(
  y: Float64Array,
  shape: readonly number[],
  scale: HostTensor | undefined,
  bias: HostTensor | undefined,
): Float64Array {
  const s = scale && numbersOf(broadcastTo(scale, shape));
  const b = bias && numbersOf(broadcastTo(bias, shape));
  return y.map((v, i) => v * (s?.[i] ?? 1) + (b?.[i] ?? 0));
}

/** Mean and 1 / deviation of each run. */
function moments(x: Numbers, length: number, epsilon: number): [Float64Array, Float64Array] {
  const count = length === 0 ? 0 : x.length / length;
  const [means, scales] = [new Float64Array(count), new Float64Array(count)];
  for (let r = 0; r < count; r++) {
    let [sum, squares] = [0, 0];
    for (let i = 0; i < length; i++) sum += x[r * length + i]!;
    means[r] = sum / length;
    for (let i = 0; i < length; i++) squares += (x[r * length + i]! - means[r]!) ** 2;
    scales[r] = 1 / Math.sqrt(squares / length + epsilon);
  }
  return [means, scales];
}

/** Each run over the root of its mean square. */
function rootMeanSquare(x: Numbers, length: number, epsilon: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += length) {
    let squares = 0;
    for (let i = 0; i < length; i++) squares += x[at + i]! ** 2;
    const scale = 1 / Math.sqrt(squares / length + epsilon);
    for (let i = 0; i < length; i++) y[at + i] = x[at + i]! * scale;
  }
  return y;
}

/** The axis along which a softmax runs and, before version 13, all behind it. Source: ONNX Softmax-1, Softmax-13. */
export function softmaxRun(node: NodeReader): { outer: number; length: number; inner: number } {
  const x = node.shape(0);
  const old = node.node.opset < 13;
  const said = node.number("axis", old ? 1 : -1);
  // Before 13, an axis at the very end is a run of one.
  if (old && said === x.length) return { outer: elementCount(x), length: 1, inner: 1 };
  const axis = node.axis(said, x.length);
  const [outer, length, inner] = around(x, axis);
  return old ? { outer, length: length * inner, inner: 1 } : { outer, length, inner };
}

function softmaxLike(each: (run: Float64Array) => void): Operator {
  return define({
    inputs: [1, 1],
    attributes: "axis",
    floats: true,
    shapes: (node) => {
      softmaxRun(node);
      return [node.shape(0)];
    },
    compute: (node, [x]) => {
      const { outer, length, inner } = softmaxRun(node);
      const values = numbersOf(x!);
      const y = new Float64Array(values.length);
      const run = new Float64Array(length);
      for (let o = 0; o < outer; o++) {
        for (let i = 0; i < inner; i++) {
          for (let k = 0; k < length; k++) run[k] = values[(o * length + k) * inner + i]!;
          each(run);
          for (let k = 0; k < length; k++) y[(o * length + k) * inner + i] = run[k]!;
        }
      }
      return [y];
    },
  });
}

/** e^x over their sum, in place. */
export function softmax(run: Float64Array): void {
  const most = run.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  for (let k = 0; k < run.length; k++) sum += run[k] = Math.exp(run[k]! - most);
  for (let k = 0; k < run.length; k++) run[k]! /= sum;
}

/** Type in which statistics are given, which `stash_type` names. */
function stash(node: NodeReader): DataType {
  return typeNamed(node, node.number("stash_type", 1), "stash_type");
}

const layer: Operator = define({
  inputs: [2, 3],
  outputs: 3,
  attributes: "axis epsilon stash_type",
  floats: true,
  types: (node) => [node.input(0).type, stash(node), stash(node)],
  shapes: (node) => {
    checkLayer(node, 1);
    checkLayer(node, 2);
    const x = node.shape(0);
    const { axis } = layerOf(node);
    const statistics = x.map((d, i) => i < axis ? d : 1);
    return [x, statistics, statistics];
  },
  compute: (node, [x, scale, bias]) => {
    const { length } = layerOf(node);
    const epsilon = node.number("epsilon", 1e-5);
    const values = numbersOf(x!);
    const [means, deviations] = moments(values, length, epsilon);
    const y = standardised(values, length, epsilon);
    return [affine(y, x!.shape, scale, bias), means, deviations];
  },
});

const rms: Operator = define({
  inputs: [2, 2],
  outputs: 2,
  attributes: "axis epsilon stash_type",
  floats: true,
  shapes: (node) => {
    checkLayer(node, 1);
    const { axis } = layerOf(node);
    return [node.shape(0), node.shape(0).map((d, i) => i < axis ? d : 1)];
  },
  compute: (node, [x, scale]) => {
    const { length } = layerOf(node);
    const epsilon = node.number("epsilon", 1e-5);
    const values = numbersOf(x!);
    const count = length === 0 ? 0 : values.length / length;
    const deviations = Float64Array.from({ length: count }, (_, r) => {
      let squares = 0;
      for (let i = 0; i < length; i++) squares += values[r * length + i]! ** 2;
      return 1 / Math.sqrt(squares / length + epsilon);
    });
    return [
      affine(rootMeanSquare(values, length, epsilon), x!.shape, scale, undefined),
      deviations,
    ];
  },
});

/** A sum with what is skipped around, normalised. Source: ONNX Runtime `docs/ContribOperators.md`, com.microsoft.SkipLayerNormalization. */
function skipLayer(centred: boolean): Operator {
  const biasAt = centred ? 4 : 3;
  return define({
    inputs: [3, 5],
    outputs: 4,
    attributes: "epsilon",
    floats: true,
    types: (node) => [node.input(0).type, "float32", "float32", node.input(0).type],
    shapes: (node) => {
      const x = node.shape(0);
      const statistics = x.with(-1, 1);
      return [x, statistics, statistics, x];
    },
    compute: (node, inputs) => {
      const [x, skip, gamma] = inputs;
      const { shape } = x!;
      const length = shape.at(-1)!;
      const epsilon = node.number("epsilon", centred ? 1e-12 : 1e-5);
      const skipped = numbersOf(broadcastTo(skip!, shape));
      const bias = inputs[biasAt];
      const added = bias && numbersOf(broadcastTo(bias, shape));
      const sum = Float64Array.from(numbersOf(x!), (v, i) => v + skipped[i]! + (added?.[i] ?? 0));
      const [means, deviations] = moments(sum, length, epsilon);
      const y = centred ? standardised(sum, length, epsilon) : rootMeanSquare(sum, length, epsilon);
      return [affine(y, shape, gamma, centred ? inputs[3] : undefined), means, deviations, sum];
    },
  });
}

export const normalisation: Readonly<Record<string, Operator>> = {
  BatchNormalization: define({
    inputs: [5, 5],
    // Those behind the first are of training, and older files name them all the same.
    outputs: 5,
    attributes: "epsilon momentum spatial training_mode is_test consumed_inputs",
    floats: true,
    types: (node) => {
      if (node.number("training_mode", 0) !== 0) throw node.fail("training_mode is on");
      if (node.number("spatial", 1) !== 1) throw node.fail('attribute "spatial" is 0');
      const { type } = node.input(0);
      return [type, type, type, type, type];
    },
    shapes: (node) => {
      checkChannels(node, 1, 4);
      const channels = node.shape(1);
      return [node.shape(0), channels, channels, channels, channels];
    },
    compute: (node, [x, scale, bias, mean, variance]) => {
      const [s, b, m, v] = [scale!, bias!, mean!, variance!].map(numbersOf);
      const epsilon = node.number("epsilon", 1e-5);
      const [, channels, plane] = around(x!.shape, 1);
      const y = Float64Array.from(numbersOf(x!), (value, i) => {
        const c = Math.floor(i / plane) % channels;
        return (value - m![c]!) / Math.sqrt(v![c]! + epsilon) * s![c]! + b![c]!;
      });
      return [y, m!, v!, m!, v!];
    },
  }),
  InstanceNormalization: define({
    inputs: [3, 3],
    attributes: "epsilon consumed_inputs",
    floats: true,
    shapes: (node) => {
      checkChannels(node, 1, 2);
      return [node.shape(0)];
    },
    compute: (node, [x, scale, bias]) => {
      const [, channels, plane] = around(x!.shape, 1);
      const [s, b] = [numbersOf(scale!), numbersOf(bias!)];
      const y = standardised(numbersOf(x!), plane, node.number("epsilon", 1e-5));
      return [y.map((v, i) => {
        const c = Math.floor(i / plane) % channels;
        return v * s[c]! + b[c]!;
      })];
    },
  }),
  GroupNormalization: define({
    inputs: [3, 3],
    attributes: "epsilon num_groups stash_type",
    floats: true,
    shapes: (node) => {
      const x = node.shape(0);
      const groups = node.number("num_groups", 0);
      // Version 18 had one scale a group.
      const scales = node.node.opset < 21 ? groups : x[1];
      const fits = x.length >= 2 && groups >= 1 && x[1]! % groups === 0 &&
        elementCount(node.shape(1)) === scales && elementCount(node.shape(2)) === scales;
      if (!fits) throw node.fail(`${groups} groups of [${x.join(", ")}]`);
      return [x];
    },
    compute: (node, [x, scale, bias]) => {
      const [, channels, plane] = around(x!.shape, 1);
      const groups = node.number("num_groups", 0);
      const perGroup = channels / groups;
      const [s, b] = [numbersOf(scale!), numbersOf(bias!)];
      const y = standardised(numbersOf(x!), perGroup * plane, node.number("epsilon", 1e-5));
      return [y.map((v, i) => {
        const c = Math.floor(i / plane) % channels;
        const at = s.length === channels ? c : Math.floor(c / perGroup);
        return v * s[at]! + b[at]!;
      })];
    },
  }),
  LayerNormalization: layer,
  RMSNormalization: rms,
  "com.microsoft.LayerNormalization": layer,
  // PyTorch's and ONNX Runtime's converters write it into ONNX's own domain.
  SimplifiedLayerNormalization: rms,
  "com.microsoft.SimplifiedLayerNormalization": rms,
  "com.microsoft.SkipLayerNormalization": skipLayer(true),
  "com.microsoft.SkipSimplifiedLayerNormalization": skipLayer(false),
  MeanVarianceNormalization: define({
    inputs: [1, 1],
    attributes: "axes across_channels normalize_variance",
    floats: true,
    shapes: (node) => [node.shape(0)],
    compute: (node, [x]) => {
      const { shape } = x!;
      const axes = (node.numbers("axes") ?? [0, 2, 3]).map((a) => node.axis(a, shape.length));
      const values = numbersOf(x!);
      const sums = new Map<number, [sum: number, squares: number, count: number]>();
      const key = (position: number) => {
        let [at, rest] = [0, position];
        let inner = elementCount(shape);
        shape.forEach((d, axis) => {
          inner /= d;
          const i = Math.floor(rest / inner);
          rest %= inner;
          if (!axes.includes(axis)) at = at * d + i;
        });
        return at;
      };
      for (let i = 0; i < values.length; i++) {
        const [sum, squares, count] = sums.get(key(i)) ?? [0, 0, 0];
        sums.set(key(i), [sum + values[i]!, squares + values[i]! ** 2, count + 1]);
      }
      return [Float64Array.from(values, (v, i) => {
        const [sum, squares, count] = sums.get(key(i))!;
        const mean = sum / count;
        // The specification's constant beside the deviation.
        return (v - mean) / (Math.sqrt(squares / count - mean ** 2) + 1e-9);
      })];
    },
  }),
  LRN: define({
    inputs: [1, 1],
    attributes: "alpha beta bias size",
    heavy: true,
    floats: true,
    shapes: (node) => [node.shape(0)],
    compute: (node, [x]) => {
      const [alpha, beta] = [node.number("alpha", 1e-4), node.number("beta", 0.75)];
      const [bias, size] = [node.number("bias", 1), node.number("size", 1)];
      const [, channels, plane] = around(x!.shape, 1);
      const values = numbersOf(x!);
      return [Float64Array.from(values, (v, i) => {
        const c = Math.floor(i / plane) % channels;
        const first = Math.max(0, c - Math.floor((size - 1) / 2));
        const last = Math.min(channels - 1, c + Math.ceil((size - 1) / 2));
        let sum = 0;
        for (let k = first; k <= last; k++) sum += values[i + (k - c) * plane]! ** 2;
        return v / (bias + alpha / size * sum) ** beta;
      })];
    },
  }),
  LpNormalization: define({
    inputs: [1, 1],
    attributes: "axis p",
    floats: true,
    shapes: (node) => [node.shape(0)],
    compute: (node, [x]) => {
      const axis = node.axis(node.number("axis", -1), x!.shape.length);
      const p = node.number("p", 2);
      const [outer, length, inner] = around(x!.shape, axis);
      const values = numbersOf(x!);
      const y = new Float64Array(values.length);
      for (let o = 0; o < outer; o++) {
        for (let i = 0; i < inner; i++) {
          let sum = 0;
          for (let k = 0; k < length; k++) {
            sum += Math.abs(values[(o * length + k) * inner + i]!) ** p;
          }
          const norm = sum ** (1 / p);
          for (let k = 0; k < length; k++) {
            const at = (o * length + k) * inner + i;
            y[at] = norm === 0 ? 0 : values[at]! / norm;
          }
        }
      }
      return [y];
    },
  }),
  Softmax: softmaxLike(softmax),
  LogSoftmax: softmaxLike((run) => {
    const most = run.reduce((a, b) => Math.max(a, b), -Infinity);
    const sum = run.reduce((total, v) => total + Math.exp(v - most), 0);
    for (let k = 0; k < run.length; k++) run[k] = run[k]! - most - Math.log(sum);
  }),
  Hardmax: softmaxLike((run) => {
    let best = 0;
    run.forEach((v, k) => v > run[best]! && (best = k));
    run.fill(0);
    if (run.length > 0) run[best] = 1;
  }),
};
