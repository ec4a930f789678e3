/** Quantised numbers, which the engine computes with in float (ONNX QuantizeLinear-21, DequantizeLinear-21). */

import { type DataType, elementCount, type HostTensor, numbersOf } from "../host_tensor.ts";
import { roundHalfToEven, typeNamed } from "./elementwise.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";

const RANGES: Partial<Record<DataType, readonly [number, number]>> = {
  int8: [-128, 127],
  uint8: [0, 255],
  int16: [-32768, 32767],
  uint16: [0, 65535],
  int32: [-(2 ** 31), 2 ** 31 - 1],
};

/** Least and greatest number of a quantised type. @throws {ModelError} where it is none. */
export function quantisedRange(node: NodeReader, type: DataType): readonly [number, number] {
  const range = RANGES[type];
  if (range === undefined) throw node.fail(`type ${type}`);
  return range;
}

/** Reads scales or zero points, one or one for each index along `axis`, by the position in a tensor of `shape`. */
export function broadcastChannel(
  values: HostTensor,
  shape: readonly number[],
  axis: number,
): (position: number) => number {
  const list = numbersOf(values);
  if (list.length === 1) return () => list[0]!;
  const inner = elementCount(shape.slice(axis + 1));
  return (position) => list[Math.floor(position / inner) % list.length]!;
}

/**
 * How scales lie on a tensor: for all of it, along an axis, or for blocks along that axis.
 * @throws {ModelError} where their shape is none of these.
 */
function scaling(node: NodeReader, scaleAt: number): (values: HostTensor) => (p: number) => number {
  const x = node.shape(0);
  const scale = node.shape(scaleAt);
  if (elementCount(scale) === 1 && scale.length <= 1) {
    return (values) => broadcastChannel(values, x, 0);
  }
  const axis = node.axis(node.number("axis", 1), x.length);
  const block = node.number("block_size", 0);
  if (block === 0) {
    if (scale.length !== 1 || scale[0] !== x[axis]) {
      throw node.fail(`scales of shape [${scale.join(", ")}] for [${x.join(", ")}]`);
    }
    return (values) => broadcastChannel(values, x, axis);
  }
  const expected = x.map((d, i) => i === axis ? Math.ceil(d / block) : d);
  if (scale.join() !== expected.join()) {
    throw node.fail(`scales of shape [${scale.join(", ")}] for blocks of ${block}`);
  }
  const inner = elementCount(x.slice(axis + 1));
  return (values) => {
    const list = numbersOf(values);
    return (p) => {
      const at = Math.floor(p / inner) % x[axis]!;
      const outer = Math.floor(p / inner / x[axis]!);
      return list[(outer * expected[axis]! + Math.floor(at / block)) * inner + p % inner]!;
    };
  };
}

export const quantise: Readonly<Record<string, Operator>> = {
  QuantizeLinear: define({
    inputs: [2, 3],
    attributes: "axis saturate block_size output_dtype precision",
    types: (node) => {
      const zero = node.inputs[2]?.type;
      const asked = node.number("output_dtype", 0);
      const type = zero ?? (asked === 0 ? "uint8" : typeNamed(node, asked, "output_dtype"));
      quantisedRange(node, type);
      return [type];
    },
    shapes: (node) => {
      scaling(node, 1);
      return [node.shape(0)];
    },
    compute: (node, [x, scale, zero], [out]) => {
      const read = scaling(node, 1);
      const scales = read(scale!);
      const zeros = zero === undefined ? () => 0 : read(zero);
      const [low, high] = quantisedRange(node, out!.type);
      return [
        Float64Array.from(numbersOf(x!), (v, i) => {
          return Math.min(
            high,
            Math.max(low, roundHalfToEven(Math.fround(v / scales(i))) + zeros(i)),
          );
        }),
      ];
    },
  }),
  DequantizeLinear: define({
    inputs: [2, 3],
    attributes: "axis block_size output_dtype",
    types: (node) => {
      const asked = node.number("output_dtype", 0);
      return [asked === 0 ? node.input(1).type : typeNamed(node, asked, "output_dtype")];
    },
    shapes: (node) => {
      scaling(node, 1);
      return [node.shape(0)];
    },
    compute: (node, [x, scale, zero]) => {
      const read = scaling(node, 1);
      const scales = read(scale!);
      const zeros = zero === undefined ? () => 0 : read(zero);
      return [Float64Array.from(numbersOf(x!), (v, i) => (v - zeros(i)) * scales(i))];
    },
  }),
  DynamicQuantizeLinear: define({
    inputs: [1, 1],
    outputs: 3,
    types: () => ["uint8", "float32", "uint8"],
    shapes: (node) => [node.shape(0), [], []],
    compute: (_, [x]) => {
      const values = numbersOf(x!);
      let [low, high] = [0, 0];
      for (const v of values) [low, high] = [Math.min(low, v), Math.max(high, v)];
      const scale = Math.fround((high - low) / 255) || 1;
      const zero = Math.min(255, Math.max(0, roundHalfToEven(Math.fround(-low / scale))));
      const y = Float64Array.from(values, (v) => {
        return Math.min(255, Math.max(0, roundHalfToEven(Math.fround(v / scale)) + zero));
      });
      return [y, [scale], [zero]];
    },
  }),
};
