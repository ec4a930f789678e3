/** Operators whose output's element depends on one element of each input (ONNX «Operators»; broadcasting per `docs/Broadcasting.md`). */

import {
  type DataType,
  emptyData,
  type HostData,
  type HostTensor,
  isFloat,
  numbersOf,
} from "../host_tensor.ts";
import { elementType } from "../tensor_proto.ts";
import { broadcastShape, broadcastTo } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";

/** erf by its series of positive terms, exact to f64's last places. Source: DLMF 7.6.2. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  let term = a;
  let sum = a;
  for (let n = 1; Math.abs(term) > 1e-17 * sum; n++) sum += term *= 2 * a * a / (2 * n + 1);
  return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * Math.exp(-a * a) * sum;
}

/** To the nearest integer, halves to the even one. */
export function roundHalfToEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const softplus = (x: number) => x > 20 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x));

/** Lower and upper bound of a Clip node; undefined where one depends on data. Source: ONNX Clip-6, Clip-11. */
export function clipBounds(node: NodeReader): { low: number; high: number } | undefined {
  if (node.node.opset < 11) {
    return { low: node.number("min", -Infinity), high: node.number("max", Infinity) };
  }
  const bound = (i: number, byDefault: number) => {
    const input = node.inputs[i];
    if (input === undefined) return byDefault;
    return input.known === undefined ? undefined : Number(input.known.data[0]);
  };
  const low = bound(1, -Infinity);
  const high = bound(2, Infinity);
  return low === undefined || high === undefined ? undefined : { low, high };
}

/** What a node does to each element, with its attributes read. */
type Unary = (node: NodeReader) => (x: number) => number;

function unary(
  make: Unary,
  options: {
    attributes?: string;
    floats?: true;
    inputs?: readonly [number, number];
    type?: DataType;
  } = {},
): Operator {
  const { attributes = "", floats, inputs = [1, 1], type } = options;
  return define({
    attributes: `${attributes} consumed_inputs`,
    inputs,
    ...(floats ? { floats } : {}),
    ...(type ? { types: () => [type] } : {}),
    shapes: (node) => [node.shape(0)],
    compute: (node, [x]) => {
      const f = make(node);
      const from = numbersOf(x!);
      const to = new Float64Array(from.length);
      for (let i = 0; i < to.length; i++) to[i] = f(from[i]!);
      return [to];
    },
  });
}

const simple = (f: (x: number) => number, floats?: true) =>
  unary(() => f, floats ? { floats } : {});
const scaled = (attributes: string, make: Unary) => unary(make, { attributes, floats: true });

const SELU_ALPHA = 1.67326319217681884765625;
const SELU_GAMMA = 1.05070102214813232421875;

/** x·Φ(x), or its approximation by tanh. Source: ONNX Gelu-20. */
function gelu(approximate: string): (x: number) => number {
  return approximate === "tanh"
    ? (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))
    : (x) => 0.5 * x * (1 + erf(x / Math.SQRT2));
}

/**
 * Shapes of a node's operands as they broadcast. Before version 7 the second broadcasts only where
 * `broadcast` says so, and from `axis` on. Source: ONNX Add-6, Add-7.
 */
export function operandShapes(node: NodeReader): readonly (readonly number[])[] {
  const shapes = node.inputs.map((_, i) => node.shape(i));
  const [a, b] = shapes;
  const axis = node.number("axis", -1);
  if (node.node.opset >= 7 || axis < 0 || a === undefined || b === undefined) return shapes;
  const behind = a.length - axis - b.length;
  if (behind < 0) throw node.fail(`axis ${axis} leaves no place for [${b.join(", ")}]`);
  return [a, [...b, ...new Array<number>(behind).fill(1)]];
}

/** The operands, broadcast to the output's shape. */
function operands(
  node: NodeReader,
  inputs: readonly HostTensor[],
  shape: readonly number[],
): HostTensor[] {
  const shapes = operandShapes(node);
  return inputs.map((x, i) => broadcastTo({ ...x, shape: shapes[i]! }, shape));
}

type Numbers = Exclude<HostData, BigInt64Array | BigUint64Array>;

function variadic(
  combine: (node: NodeReader, type: DataType) => (...x: number[]) => number,
  options: {
    inputs: readonly [number, number];
    attributes?: string;
    type?: DataType;
    floats?: true;
    /** For integers of 64 bits, where f64 would not do. */
    exact?: (node: NodeReader) => (a: bigint, b: bigint) => bigint;
  },
): Operator {
  const { inputs, attributes = "", type, floats, exact } = options;
  return define({
    inputs,
    attributes: `${attributes} axis broadcast consumed_inputs`,
    ...(floats ? { floats } : {}),
    types: (node) => {
      const { type: first } = node.input(0);
      node.inputs.forEach((_, i) => {
        const other = node.input(i).type;
        // Pow's exponent has a type of its own.
        if (other !== first && node.node.op !== "Pow") throw node.fail(`types ${first}, ${other}`);
      });
      return [type ?? first];
    },
    shapes: (node) => [broadcastShape(node, operandShapes(node))],
    compute: (node, inputs, [out]) => {
      const shape = out!.shape!;
      const broad = operands(node, inputs, shape);
      const first = broad[0]!;
      if (exact && broad.length === 2 && (first.type === "int64" || first.type === "uint64")) {
        const f = exact(node);
        const a = first.data as BigInt64Array;
        const b = broad[1]!.data as BigInt64Array;
        const data = emptyData(first.type, a.length) as BigInt64Array;
        for (let i = 0; i < data.length; i++) data[i] = f(a[i]!, b[i]!);
        return [{ type: first.type, shape, data }];
      }
      const f = combine(node, first.type);
      const lists = broad.map(numbersOf);
      const to = new Float64Array(lists[0]!.length);
      if (lists.length === 2) {
        const [a, b] = lists as [Numbers, Numbers];
        for (let i = 0; i < to.length; i++) to[i] = f(a[i]!, b[i]!);
      } else {
        for (let i = 0; i < to.length; i++) to[i] = f(...lists.map((list) => list[i]!));
      }
      return [to];
    },
  });
}

const PAIR = [2, 2] as const;
const MANY = [1, Infinity] as const;

function binary(
  f: (a: number, b: number) => number,
  exact?: (a: bigint, b: bigint) => bigint,
): Operator {
  return variadic(() => f as (...x: number[]) => number, {
    inputs: PAIR,
    ...(exact ? { exact: () => exact } : {}),
  });
}

function comparison(f: (a: number, b: number) => boolean): Operator {
  return variadic(() => (...[a, b]) => f(a!, b!) ? 1 : 0, { inputs: PAIR, type: "bool" });
}

/** a modulo b with the divisor's sign, or with the dividend's where `fmod`. Source: ONNX Mod-13. */
function modulo(node: NodeReader): (a: number, b: number) => number {
  if (node.number("fmod", 0) === 1) return (a, b) => a % b;
  return (a, b) => {
    const rest = a % b;
    return rest !== 0 && (rest < 0) !== (b < 0) ? rest + b : rest;
  };
}

function shift(node: NodeReader): (a: bigint, b: bigint) => bigint {
  const direction = node.text("direction", "");
  if (direction === "LEFT") return (a, b) => a << b;
  if (direction === "RIGHT") return (a, b) => a >> b;
  throw node.fail(`attribute "direction" is "${direction}"`);
}

/** The type an integer of onnx.proto3 names. @throws {ModelError} where it is not held. */
export function typeNamed(node: NodeReader, number: number, attribute: string): DataType {
  const element = elementType(number);
  if (element.type === undefined) {
    throw node.fail(`attribute "${attribute}" asks for ${element.called}`);
  }
  return element.type;
}

/** f32 rounded to the nearest bfloat16, halves to the even one. */
function roundToBfloat16(values: ArrayLike<number>): Float32Array {
  const rounded = Float32Array.from(values);
  const bits = new Uint32Array(rounded.buffer);
  for (let i = 0; i < bits.length; i++) {
    if (Number.isNaN(rounded[i])) continue;
    const b = bits[i]!;
    bits[i] = (b + 0x7fff + ((b >>> 16) & 1)) & 0xffff0000;
  }
  return rounded;
}

/** The tensor with its elements converted. Source: ONNX Cast-13. */
export function castTo(x: HostTensor, type: DataType): HostTensor {
  const { shape } = x;
  if (x.type === type) return x;
  const data = emptyData(type, x.data.length);
  if (type === "bfloat16") return { type, shape, data: roundToBfloat16(numbersOf(x)) };
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    if (x.data instanceof BigInt64Array || x.data instanceof BigUint64Array) {
      for (let i = 0; i < data.length; i++) data[i] = x.data[i]!;
    } else {
      // What is not finite has no integer; 0, as the engine's other integer types have it.
      for (let i = 0; i < data.length; i++) {
        const v = Math.trunc(x.data[i]!);
        data[i] = Number.isFinite(v) ? BigInt(v) : 0n;
      }
    }
    return { type, shape, data };
  }
  if (type === "bool") {
    return { type, shape, data: Uint8Array.from(numbersOf(x), (v) => v !== 0 ? 1 : 0) };
  }
  const narrow = x.data instanceof BigInt64Array || x.data instanceof BigUint64Array;
  if (narrow && !isFloat(type)) {
    // Through 32 bits, which no conversion to fewer reads beyond.
    const source = x.data;
    for (let i = 0; i < data.length; i++) data[i] = Number(BigInt.asIntN(32, source[i] as bigint));
    return { type, shape, data };
  }
  const from = numbersOf(x);
  for (let i = 0; i < data.length; i++) data[i] = from[i]!;
  return { type, shape, data };
}

export const elementwise: Readonly<Record<string, Operator>> = {
  Abs: simple(Math.abs),
  Neg: simple((x) => -x),
  Ceil: simple(Math.ceil, true),
  Floor: simple(Math.floor, true),
  Round: simple(roundHalfToEven, true),
  Sqrt: simple(Math.sqrt, true),
  Exp: simple(Math.exp, true),
  Log: simple(Math.log, true),
  Erf: simple(erf),
  Sign: simple(Math.sign),
  Reciprocal: simple((x) => 1 / x, true),
  Sin: simple(Math.sin, true),
  Cos: simple(Math.cos, true),
  Tan: simple(Math.tan, true),
  Asin: simple(Math.asin, true),
  Acos: simple(Math.acos, true),
  Atan: simple(Math.atan, true),
  Sinh: simple(Math.sinh, true),
  Cosh: simple(Math.cosh, true),
  Tanh: simple(Math.tanh, true),
  Asinh: simple(Math.asinh, true),
  Acosh: simple(Math.acosh, true),
  Atanh: simple(Math.atanh, true),
  Sigmoid: simple(sigmoid, true),
  Relu: simple((x) => Math.max(x, 0)),
  Softplus: simple(softplus, true),
  Softsign: simple((x) => x / (1 + Math.abs(x)), true),
  HardSwish: simple((x) => x * Math.max(0, Math.min(1, x / 6 + 0.5)), true),
  Mish: simple((x) => x * Math.tanh(softplus(x)), true),
  LeakyRelu: scaled("alpha", (node) => {
    const alpha = node.number("alpha", 0.01);
    return (x) => x < 0 ? alpha * x : x;
  }),
  Elu: scaled("alpha", (node) => {
    const alpha = node.number("alpha", 1);
    return (x) => x < 0 ? alpha * Math.expm1(x) : x;
  }),
  Celu: scaled("alpha", (node) => {
    const alpha = node.number("alpha", 1);
    return (x) => Math.max(0, x) + Math.min(0, alpha * Math.expm1(x / alpha));
  }),
  Selu: scaled("alpha gamma", (node) => {
    const alpha = node.number("alpha", SELU_ALPHA);
    const gamma = node.number("gamma", SELU_GAMMA);
    return (x) => gamma * (x > 0 ? x : alpha * Math.expm1(x));
  }),
  HardSigmoid: scaled("alpha beta", (node) => {
    const alpha = node.number("alpha", 0.2);
    const beta = node.number("beta", 0.5);
    return (x) => Math.max(0, Math.min(1, alpha * x + beta));
  }),
  ThresholdedRelu: scaled("alpha", (node) => {
    const alpha = node.number("alpha", 1);
    return (x) => x > alpha ? x : 0;
  }),
  Swish: scaled("alpha", (node) => {
    const alpha = node.number("alpha", 1);
    return (x) => x * sigmoid(alpha * x);
  }),
  Gelu: scaled("approximate", (node) => gelu(node.text("approximate", "none"))),
  Shrink: unary((node) => {
    const lambd = node.number("lambd", 0.5);
    const bias = node.number("bias", 0);
    return (x) => x < -lambd ? x + bias : x > lambd ? x - bias : 0;
  }, { attributes: "lambd bias" }),
  Clip: unary((node) => {
    const { low, high } = clipBounds(node)!;
    return (x) => Math.min(Math.max(x, low), high);
  }, { attributes: "min max", inputs: [1, 3] }),
  Not: unary(() => (x) => x === 0 ? 1 : 0, { type: "bool" }),
  IsNaN: unary(() => (x) => Number.isNaN(x) ? 1 : 0, { type: "bool", floats: true }),
  IsInf: unary((node) => {
    const negative = node.number("detect_negative", 1) === 1;
    const positive = node.number("detect_positive", 1) === 1;
    return (x) => (negative && x === -Infinity) || (positive && x === Infinity) ? 1 : 0;
  }, { attributes: "detect_negative detect_positive", type: "bool", floats: true }),
  BitwiseNot: define({
    inputs: [1, 1],
    shapes: (node) => [node.shape(0)],
    compute: (_, [x]) => [{ ...x!, data: (x!.data as BigInt64Array).map((v) => ~v) }],
  }),
  Identity: define({
    inputs: [1, 1],
    shapes: (node) => [node.shape(0)],
    compute: (_, [x]) => [x!],
  }),
  Cast: define({
    inputs: [1, 1],
    attributes: "to saturate round_mode",
    types: (node) => [typeNamed(node, node.number("to", 0), "to")],
    shapes: (node) => [node.shape(0)],
    compute: (_, [x], [out]) => [castTo(x!, out!.type)],
  }),
  CastLike: define({
    inputs: [2, 2],
    attributes: "saturate round_mode",
    types: (node) => [node.input(1).type],
    shapes: (node) => [node.shape(0)],
    compute: (_, [x], [out]) => [castTo(x!, out!.type)],
  }),
  Dropout: define({
    inputs: [1, 3],
    outputs: 2,
    attributes: "ratio seed is_test consumed_inputs",
    types: (node) => {
      const { type } = node.input(0);
      checkInference(node);
      return [type, node.node.opset < 10 ? type : "bool"];
    },
    shapes: (node) => [node.shape(0), node.shape(0)],
    compute: (_, [x]) => [x!, new Uint8Array(x!.data.length).fill(1)],
  }),

  Add: binary((a, b) => a + b, (a, b) => a + b),
  Sub: binary((a, b) => a - b, (a, b) => a - b),
  Mul: binary((a, b) => a * b, (a, b) => a * b),
  Div: variadic((_, type) => {
    if (isFloat(type)) return (...[a, b]) => a! / b!;
    return (...[a, b]) => Math.trunc(a! / b!);
  }, { inputs: PAIR, exact: () => (a, b) => b === 0n ? 0n : a / b }),
  Pow: binary((a, b) => a ** b),
  Mod: variadic((node) => modulo(node) as (...x: number[]) => number, {
    inputs: PAIR,
    attributes: "fmod",
  }),
  PRelu: define({
    inputs: [2, 2],
    attributes: "consumed_inputs",
    shapes: (node) => [node.shape(0)],
    compute: (node, [x, slope], [out]) => {
      const shape = out!.shape!;
      const aligned = preluSlopeShape(node);
      const a = numbersOf(x!);
      const s = numbersOf(broadcastTo({ ...slope!, shape: aligned }, shape));
      return [Float64Array.from(a, (v, i) => v < 0 ? v * s[i]! : v)];
    },
  }),
  And: variadic(() => (...[a, b]) => a! && b! ? 1 : 0, { inputs: PAIR, type: "bool" }),
  Or: variadic(() => (...[a, b]) => a! || b! ? 1 : 0, { inputs: PAIR, type: "bool" }),
  Xor: comparison((a, b) => (a !== 0) !== (b !== 0)),
  Equal: comparison((a, b) => a === b),
  Less: comparison((a, b) => a < b),
  LessOrEqual: comparison((a, b) => a <= b),
  Greater: comparison((a, b) => a > b),
  GreaterOrEqual: comparison((a, b) => a >= b),
  BitShift: variadic((node) => {
    const f = shift(node);
    return (...[a, b]) => Number(f(BigInt(a!), BigInt(b!)) & 0xffffffffn);
  }, { inputs: PAIR, attributes: "direction", exact: shift }),
  BitwiseAnd: binary((a, b) => a & b, (a, b) => a & b),
  BitwiseOr: binary((a, b) => a | b, (a, b) => a | b),
  BitwiseXor: binary((a, b) => a ^ b, (a, b) => a ^ b),
  Max: variadic(() => Math.max, {
    inputs: MANY,
    exact: () => (a, b) => a > b ? a : b,
  }),
  Min: variadic(() => Math.min, {
    inputs: MANY,
    exact: () => (a, b) => a < b ? a : b,
  }),
  Sum: variadic(() => (...x) => x.reduce((a, b) => a + b), { inputs: MANY, floats: true }),
  Mean: variadic(() => (...x) => x.reduce((a, b) => a + b) / x.length, {
    inputs: MANY,
    floats: true,
  }),
  Where: define({
    inputs: [3, 3],
    types: (node) => {
      if (node.input(0).type !== "bool") throw node.fail(`a condition of ${node.input(0).type}`);
      const [a, b] = [node.input(1).type, node.input(2).type];
      if (a !== b) throw node.fail(`types ${a}, ${b}`);
      return [a];
    },
    shapes: (node) => [broadcastShape(node, [node.shape(0), node.shape(1), node.shape(2)])],
    compute: (_, inputs, [out]) => {
      const { type, shape } = out!;
      const [c, a, b] = inputs.map((x) => broadcastTo(x, shape!).data);
      const data = emptyData(type, c!.length);
      for (let i = 0; i < data.length; i++) data[i] = (c![i] ? a![i] : b![i])!;
      return [{ type, shape: shape!, data }];
    },
  }),

  "com.microsoft.Gelu": simple(gelu("none"), true),
  "com.microsoft.FastGelu": biased(gelu("tanh")),
  "com.microsoft.BiasGelu": biased(gelu("none")),
  "com.microsoft.QuickGelu": scaled("alpha", (node) => {
    const alpha = node.number("alpha", 1.702);
    return (x) => x * sigmoid(alpha * x);
  }),
};

/** Dropout is a copy, unless something is trained. Source: ONNX Dropout-13. */
function checkInference(node: NodeReader): void {
  const training = node.inputs[2];
  if (training === undefined) return;
  if (training.known === undefined) throw node.fail("training_mode depends on data");
  if (Number(training.known.data[0]) !== 0) throw node.fail("training_mode is on");
}

/** The slope's shape as it broadcasts: before version 7 it lies along the channels. Source: ONNX PRelu-6, PRelu-16. */
export function preluSlopeShape(node: NodeReader): readonly number[] {
  const x = node.shape(0);
  const slope = node.shape(1);
  const aligned = node.node.opset < 7 && slope.length === 1 && x.length > 2
    ? [...slope, ...new Array<number>(x.length - 2).fill(1)]
    : slope;
  const out = broadcastShape(node, [x, aligned]);
  if (out.length !== x.length || out.some((d, i) => d !== x[i])) {
    throw node.fail(`a slope of shape [${slope.join(", ")}] for [${x.join(", ")}]`);
  }
  return aligned;
}

/** An activation of a sum with a bias along the last axis, which may be left out. Source: ONNX Runtime `docs/ContribOperators.md`. */
function biased(f: (x: number) => number): Operator {
  return define({
    inputs: [1, 2],
    floats: true,
    shapes: (node) => [node.shape(0)],
    compute: (_, [x, bias], [out]) => {
      const a = numbersOf(x!);
      const b = bias === undefined ? undefined : numbersOf(broadcastTo(bias, out!.shape!));
      return [Float64Array.from(a, (v, i) => f(v + (b?.[i] ?? 0)))];
    },
  });
}
