/**
 * Random small graphs with what they compute: each node is evaluated on the host as it is added, so
 * that every value is known, and a node that ONNX does not allow is left out.
 *
 * Numbers stay tame, so that f16 can be compared as well: inputs are multiples of 1/32 below 2,
 * weights are scaled by what they sum over, and operators that jump (Less, Floor, ArgMax) are given
 * only values that f16 holds exactly. Sizes are small and odd: padding of channels matters nearly
 * everywhere.
 */

import { ModelError } from "../../src/errors.ts";
import { evaluateNode } from "../../src/model/fold.ts";
import { elementCount, type HostTensor, isFloat, tensorOf } from "../../src/model/host_tensor.ts";
import { NodeReader } from "../../src/model/ops/operator.ts";
import { operators } from "../../src/model/ops/operators.ts";
import { ModelWriter, type WrittenAttribute } from "../../src/model/writer.ts";
import { uniform } from "../reference/random.ts";

const OPSET = 18;
/** Elements of the largest value. */
const LARGEST = 6000;

/** A value of the graph: what it is called, what it is, whether f16 holds it exactly. */
interface Value {
  readonly name: string;
  readonly tensor: HostTensor;
  readonly exact: boolean;
  /** Whether it is a constant of the model. */
  readonly constant: boolean;
}

export interface RandomGraph {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly inputs: Readonly<Record<string, HostTensor>>;
  readonly outputs: Readonly<Record<string, HostTensor>>;
  /** Its nodes in words, for a failure's message. */
  readonly text: string;
}

type Attributes = Readonly<Record<string, WrittenAttribute>>;

class GraphMaker {
  readonly writer = new ModelWriter("random", OPSET);
  readonly values: Value[] = [];
  readonly used = new Set<string>();
  readonly lines: string[] = [];
  readonly inputs: Record<string, HostTensor> = {};
  #made = 0;

  constructor(readonly next: () => number) {}

  below(n: number): number {
    return Math.floor(this.next() * n);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  chance(p: number): boolean {
    return this.next() < p;
  }

  /** Numbers that f16 holds: multiples of 1/32 in [−2, 2). */
  exactNumbers(count: number): number[] {
    return Array.from({ length: count }, () => this.below(128) / 32 - 2);
  }

  input(shape: readonly number[], type: "float32" | "int64" = "float32"): Value {
    const name = `input_${Object.keys(this.inputs).length}`;
    const numbers = this.exactNumbers(elementCount(shape));
    const tensor = tensorOf(type, shape, numbers);
    this.inputs[name] = tensor;
    this.writer.input(name, type, shape);
    this.lines.push(`${name} = input [${shape}]`);
    const value = { name, tensor, exact: true, constant: false };
    this.values.push(value);
    return value;
  }

  /** A constant of floats in [−1, 1) · scale, plus `add`. */
  floats(shape: readonly number[], scale = 1, add = 0): Value {
    const data = Float32Array.from(
      { length: elementCount(shape) },
      // Exact in f16: the comparison is of arithmetic, not of rounding weights.
      () => Math.fround(new Float16Array([(2 * this.next() - 1) * scale + add])[0]!),
    );
    return this.#constant({ type: "float32", shape, data });
  }

  integers(list: readonly number[], scalar = false): Value {
    return this.#constant(tensorOf("int64", scalar ? [] : [list.length], list));
  }

  scalar(value: number, type: "float32" | "int32" = "float32"): Value {
    return this.#constant(tensorOf(type, [], [value]));
  }

  #constant(tensor: HostTensor): Value {
    return { name: this.writer.constant(tensor), tensor, exact: true, constant: true };
  }

  /** Adds a node; undefined where ONNX or the bounds of this file do not allow it. */
  nodes(
    op: string,
    inputs: readonly (Value | undefined)[],
    attributes: Attributes = {},
    { outputs = 1, exact = false } = {},
  ): readonly Value[] | undefined {
    const names = Array.from({ length: outputs }, (_, i) => `${op}_${this.#made + i}`);
    const node = {
      name: names[0]!,
      op,
      domain: "",
      opset: OPSET,
      inputs: inputs.map((value) => value?.name ?? ""),
      outputs: names,
      attributes: new Map(
        Object.entries(attributes).map(([key, value]) => [
          key,
          typeof value === "object" && "float" in value ? value.float : value,
        ]),
      ),
    };
    const operator = operators.get(op)!;
    const reader = new NodeReader(
      node,
      inputs.map((value) => value && { ...value.tensor, known: value.tensor }),
    );
    let made: readonly HostTensor[];
    try {
      const typed = operator.infer(reader);
      if (typed.some(({ shape }) => elementCount(shape ?? []) > LARGEST)) return undefined;
      made = evaluateNode(operator, reader);
    } catch (error) {
      if (error instanceof ModelError) return undefined;
      throw error;
    }
    // What overflows f16, or is nothing, is not what this is about.
    for (const { type, data } of made) {
      if (isFloat(type) && !data.every((v) => Math.abs(Number(v)) < 2000)) return undefined;
    }
    this.#made += outputs;
    this.writer.nodes(op, node.inputs, attributes, names);
    for (const name of node.inputs) this.used.add(name);
    const constant = inputs.every((value) => value === undefined || value.constant);
    const values = made.map((tensor, i) => ({ name: names[i]!, tensor, exact, constant }));
    this.values.push(...values);
    const given = inputs.map((value) =>
      value === undefined
        ? ""
        : value.name.startsWith("constant")
        ? `[${value.tensor.shape}]${value.tensor.data.length <= 8 ? `(${value.tensor.data})` : ""}`
        : value.name
    );
    this.lines.push(
      `${names.join(" ")} = ${op}(${given.join(", ")}) ${JSON.stringify(attributes)} → ${
        made.map(({ type, shape }) => `${type} [${shape}]`).join(" ")
      }`,
    );
    return values;
  }

  node(
    op: string,
    inputs: readonly (Value | undefined)[],
    attributes: Attributes = {},
    options: { exact?: boolean } = {},
  ): Value | undefined {
    if (inputs.length > 0 && inputs.every((value) => value === undefined)) return undefined;
    return this.nodes(op, inputs, attributes, options)?.[0];
  }

  /** A value of floats that fulfils a condition, more likely a late one. */
  some(condition: (value: Value) => boolean = () => true): Value | undefined {
    const fitting = this.values.filter((value) =>
      value.tensor.type === "float32" && !value.constant && condition(value)
    );
    if (fitting.length === 0) return undefined;
    const late = Math.floor(Math.sqrt(this.next()) * fitting.length);
    return fitting[late];
  }

  finish(): RandomGraph {
    const outputs: Record<string, HostTensor> = {};
    const results = this.values.filter((value) =>
      !value.constant && !value.name.startsWith("input") &&
      (!this.used.has(value.name) || (value.tensor.type === "float32" && this.chance(0.1)))
    );
    for (const { name, tensor } of results) {
      outputs[name] = tensor;
      this.writer.output(name, tensor.type, tensor.shape);
    }
    return {
      bytes: this.writer.bytes(),
      inputs: this.inputs,
      outputs,
      text: [...this.lines, `outputs ${Object.keys(outputs).join(" ")}`].join("\n"),
    };
  }
}

/** Adds some nodes around a value. */
type Growth = (g: GraphMaker) => unknown;

const isImage = ({ tensor: { shape } }: Value) => shape.length === 4;
const rankOf = ({ tensor }: Value) => tensor.shape.length;

/** A constant that broadcasts with a value: per channel, per row, of one element, of more axes. */
function partner(g: GraphMaker, { tensor: { shape } }: Value, scale = 1, add = 0): Value {
  const own = [...shape];
  const kind = g.below(6);
  if (kind === 0) return g.floats([], scale, add);
  if (kind === 1) return g.floats(own.map(() => 1), scale, add);
  if (kind === 2 && own.length >= 2) {
    return g.floats([own[1]!, ...own.slice(2).map(() => 1)], scale, add);
  }
  if (kind === 3) return g.floats(own.slice(g.below(own.length + 1)), scale, add);
  if (kind === 4) return g.floats([g.pick([1, 2]), ...own], scale, add);
  return g.floats(own.map((size) => g.chance(0.5) ? size : 1), scale, add);
}

const conv: Growth = (g) => {
  const x = g.some((v) => rankOf(v) === 4 || rankOf(v) === 3);
  if (x === undefined || x.tensor.shape.includes(0)) return;
  const { shape } = x.tensor;
  const channels = shape[1]!;
  const axes = shape.length - 2;
  const groups = g.chance(0.3)
    ? g.pick([channels, ...[2, 3, 4].filter((n) => channels % n === 0)])
    : 1;
  const out = groups * (groups === 1 ? 1 + g.below(9) : g.pick([1, 1, 2]));
  const kernel = Array.from({ length: axes }, () => g.pick([1, 1, 2, 3, 3]));
  const fan = channels / groups * elementCount(kernel);
  const list = (make: () => number) => Array.from({ length: axes }, make);
  let input: Value | undefined = x;
  if (g.chance(0.15)) {
    const pads = shape.map((_, i) => i < 2 ? 0 : g.below(3));
    const inputs = [x, g.integers([...pads, ...pads.map((p, i) => i < 2 ? 0 : g.below(2) + p)])];
    if (g.chance(0.5)) inputs.push(g.scalar(0));
    input = g.node("Pad", inputs);
  }
  const y = g.node("Conv", [
    input,
    g.floats([out, channels / groups, ...kernel], 1.5 / Math.sqrt(fan)),
    ...(g.chance(0.6) ? [g.floats([out])] : []),
  ], {
    kernel_shape: kernel,
    group: groups,
    strides: list(() => g.pick([1, 1, 2])),
    dilations: list(() => g.pick([1, 1, 1, 2])),
    pads: [...list(() => g.below(3)), ...list(() => g.below(3))],
  });
  return y && behind(g, y);
};

/** What stands behind convolutions and products. */
function behind(g: GraphMaker, y: Value): Value | undefined {
  let value: Value | undefined = y;
  const channels = y.tensor.shape[1] ?? 1;
  if (rankOf(y) >= 3 && g.chance(0.3)) value = batchNormOf(g, value);
  if (value !== undefined && g.chance(0.2)) {
    const c = g.pick([
      g.floats([channels, ...y.tensor.shape.slice(2).map(() => 1)]),
      partner(g, value),
    ]);
    value = g.node(g.pick(["Mul", "Add"]), g.chance(0.5) ? [value, c] : [c, value]);
  }
  if (value !== undefined && g.chance(0.35)) {
    const own = value;
    const other = g.some((v) =>
      v.name !== own.name && (
        v.tensor.shape.join() === own.tensor.shape.join() || (g.chance(0.3) && broadcasts(v, own))
      )
    );
    if (other !== undefined) value = g.node("Add", g.chance(0.5) ? [own, other] : [other, own]);
  }
  return value && (g.chance(0.5) ? activate(g, value) : value);
}

function broadcasts(a: Value, b: Value): boolean {
  const [x, y] = [a.tensor.shape.toReversed(), b.tensor.shape.toReversed()];
  return x.every((size, i) => y[i] === undefined || size === 1 || y[i] === 1 || size === y[i]);
}

function batchNormOf(g: GraphMaker, x: Value | undefined): Value | undefined {
  if (x === undefined || rankOf(x) < 2) return undefined;
  const c = [x.tensor.shape[1]!];
  return g.node("BatchNormalization", [
    x,
    g.floats(c),
    g.floats(c),
    g.floats(c),
    g.floats(c, 0.4, 1),
  ]);
}

const ACTIVATIONS: readonly (readonly [string, Attributes])[] = [
  ["Relu", {}],
  ["LeakyRelu", { alpha: { float: 0.125 } }],
  ["Sigmoid", {}],
  ["Tanh", {}],
  ["HardSwish", {}],
  ["HardSigmoid", {}],
  ["Softplus", {}],
  ["Elu", { alpha: { float: 0.5 } }],
  ["Mish", {}],
];

function activate(g: GraphMaker, x: Value): Value | undefined {
  if (g.chance(0.2)) return g.node("Clip", [x, g.scalar(-1), g.scalar(0.75)], {}, x);
  if (g.chance(0.25)) {
    const kind = g.below(4);
    if (kind === 0) return g.node("Mul", [x, g.node("Sigmoid", [x])]);
    if (kind === 1) {
      const erf = g.node("Erf", [g.node("Div", [x, g.scalar(Math.SQRT2)])]);
      const sum = erf && g.node("Add", [erf, g.scalar(1)]);
      const product = sum && g.node("Mul", [x, sum]);
      return product && g.node("Mul", [product, g.scalar(0.5)]);
    }
    if (kind === 2) {
      const clip = g.node("Clip", [g.node("Add", [x, g.scalar(3)]), g.scalar(0), g.scalar(6)]);
      return clip && g.node("Div", [g.node("Mul", [x, clip]), g.scalar(6)]);
    }
    return g.node("Mul", [x, g.node("Tanh", [g.node("Softplus", [x])])]);
  }
  const [op, attributes] = g.pick(ACTIVATIONS);
  return g.node(op, [x], attributes, { exact: op === "Relu" && x.exact });
}

const unary: Growth = (g) => {
  const x = g.some();
  if (x === undefined) return;
  const kind = g.below(10);
  if (kind < 4) return activate(g, x);
  if (kind === 4) return g.node(g.pick(["Abs", "Neg"]), [x], {}, x);
  if (kind === 5) return g.node("Sqrt", [g.node("Add", [g.node("Abs", [x]), g.scalar(0.25)])]);
  if (kind === 6) {
    return g.node("Reciprocal", [g.node(g.pick(["Exp", "Cosh"]), [g.node("Tanh", [x])])]);
  }
  if (kind === 7) return g.node(g.pick(["Erf", "Cos", "Sin", "Atan", "Softsign", "Selu"]), [x]);
  if (kind === 8) return g.node("Pow", [x, g.scalar(g.pick([2, 3]))]);
  return g.node("PRelu", [x, g.floats(rankOf(x) === 4 ? [x.tensor.shape[1]!, 1, 1] : [1])]);
};

const binary: Growth = (g) => {
  const x = g.some();
  if (x === undefined) return;
  const op = g.pick(["Add", "Sub", "Mul", "Max", "Min", "Div"]);
  if (op === "Div") {
    const divisor = g.chance(0.5)
      ? partner(g, x, 0.5, 1.5)
      : g.node("Add", [g.node("Abs", [x]), g.scalar(1)]);
    return divisor && g.node("Div", g.chance(0.7) ? [x, divisor] : [partner(g, x), divisor]);
  }
  const other = g.chance(0.5) ? partner(g, x) : g.some((v) => broadcasts(v, x));
  if (other === undefined) return;
  const pair = g.chance(0.5) ? [x, other] : [other, x];
  return g.node(op, pair, {}, { exact: (op === "Max" || op === "Min") && x.exact && other.exact });
};

const variadic: Growth = (g) => {
  const x = g.some();
  if (x === undefined) return;
  const list = [x, partner(g, x), ...(g.chance(0.5) ? [g.some((v) => broadcasts(v, x))!] : [])];
  return g.node(g.pick(["Sum", "Mean", "Max", "Min"]), list.filter((v) => v !== undefined));
};

const compare: Growth = (g) => {
  const x = g.some((v) => v.exact);
  if (x === undefined) return;
  const op = g.pick(["Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual"]);
  const other = g.chance(0.5) ? g.scalar(0.5) : g.some((v) => v.exact && broadcasts(v, x));
  let condition = other && g.node(op, [x, other], {}, { exact: true });
  if (condition !== undefined && g.chance(0.3)) condition = g.node("Not", [condition]);
  if (condition === undefined) return;
  const kind = g.below(4);
  if (kind === 0) return g.node("Cast", [condition], { to: 1 }, { exact: true });
  if (kind === 1) return condition;
  const a = g.chance(0.4) ? g.scalar(1.5) : g.some((v) => broadcasts(v, x));
  const b = g.chance(0.4) ? g.scalar(-0.5) : g.some((v) => broadcasts(v, x));
  return a && b && g.node("Where", g.chance(0.5) ? [condition, a, b] : [condition, b, a]);
};

const casts: Growth = (g) => {
  const x = g.some((v) => v.exact);
  if (x === undefined) return;
  const type = g.pick([6, 7, 9]);
  const whole = g.node("Cast", [x], { to: type }, { exact: true });
  if (whole === undefined) return;
  if (g.chance(0.3)) return whole;
  let value: Value | undefined = whole;
  if (type === 6 && g.chance(0.5)) value = g.node("Add", [whole, g.scalar(3, "int32")]);
  return value && g.node("Cast", [value], { to: 1 }, { exact: true });
};

const roundings: Growth = (g) => {
  const x = g.some((v) => v.exact);
  return x && g.node(g.pick(["Floor", "Ceil", "Round", "Sign"]), [x], {}, { exact: true });
};

const pool: Growth = (g) => {
  const x = g.some(isImage);
  if (x === undefined) return;
  if (g.chance(0.25)) {
    return g.node(g.pick(["GlobalAveragePool", "GlobalMaxPool"]), [x]);
  }
  const op = g.pick(["MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool"]);
  const kernel = [1 + g.below(3), 1 + g.below(3)];
  return g.node(op, [x], {
    kernel_shape: kernel,
    strides: [1 + g.below(2), 1 + g.below(2)],
    // Less than the kernel: a window of nothing is none.
    pads: [0, 1, 0, 1].map((axis) => g.below(kernel[axis]!)),
    ...(g.chance(0.3) ? { ceil_mode: 1 } : {}),
    ...(op === "AveragePool" && g.chance(0.3) ? { count_include_pad: 1 } : {}),
  }, { exact: op === "MaxPool" && x.exact });
};

const transposedConv: Growth = (g) => {
  const x = g.some(isImage);
  if (x === undefined) return;
  const channels = x.tensor.shape[1]!;
  const groups = channels % 2 === 0 && g.chance(0.3) ? 2 : 1;
  const perGroup = 1 + g.below(5);
  const kernel = [1 + g.below(3), 1 + g.below(3)];
  const strides = [1 + g.below(2), 1 + g.below(2)];
  const y = g.node("ConvTranspose", [
    x,
    g.floats([channels, perGroup, ...kernel], 1 / Math.sqrt(channels / groups)),
    ...(g.chance(0.5) ? [g.floats([perGroup * groups])] : []),
  ], {
    kernel_shape: kernel,
    strides,
    group: groups,
    pads: [0, 1, 0, 1].map((axis) => g.below(kernel[axis]!)),
    output_padding: strides.map((stride) => g.below(stride)),
  });
  return y && behind(g, y);
};

const normalise: Growth = (g) => {
  const kind = g.below(6);
  if (kind === 0) return batchNormOf(g, g.some((v) => rankOf(v) >= 2));
  const epsilon = { float: 0.25 };
  if (kind === 1) {
    const x = g.some(isImage);
    const c = [x?.tensor.shape[1] ?? 1];
    return g.node("InstanceNormalization", [x, g.floats(c), g.floats(c)], { epsilon });
  }
  if (kind === 2) return g.node("LRN", [g.some(isImage)], { size: g.pick([1, 3, 5]) });
  const x = g.some((v) => rankOf(v) >= 1);
  if (x === undefined) return;
  const rank = rankOf(x);
  if (kind === 3) {
    return g.node(g.pick(["Softmax", "LogSoftmax"]), [x], { axis: g.below(2 * rank) - rank });
  }
  if (kind === 4) {
    const axis = g.below(rank);
    const shape = x.tensor.shape.slice(axis);
    return g.node("LayerNormalization", [
      x,
      g.floats(shape),
      ...(g.chance(0.5) ? [g.floats(shape)] : []),
    ], { axis: g.chance(0.5) ? axis : axis - rank, epsilon });
  }
  // A layer norm spelt out, as exporters before opset 17 do.
  const mean = g.node("ReduceMean", [x, g.integers([-1])]);
  const centred = mean && g.node("Sub", [x, mean]);
  const square = centred && g.node("Pow", [centred, g.scalar(2)]);
  const variance = square && g.node("ReduceMean", [square, g.integers([-1])]);
  const root = variance && g.node("Sqrt", [g.node("Add", [variance, g.scalar(0.25)])]);
  const y = root && g.node("Div", [centred, root]);
  const scaled = y && g.node("Mul", [y, g.floats([x.tensor.shape.at(-1)!])]);
  return scaled && g.node("Add", [scaled, g.floats([x.tensor.shape.at(-1)!])]);
};

const resize: Growth = (g) => {
  const x = g.some((v) => isImage(v) && v.tensor.data.length < 800);
  const scales = [1, 1, g.pick([0.5, 1, 2, 1.5]), g.pick([0.5, 1, 2, 3])];
  const mode = g.pick(["nearest", "linear"]);
  // ONNX's reference and ONNX Runtime differ about corners of a size that is rounded.
  const whole = x?.tensor.shape.every((size, i) => Number.isInteger(size * scales[i]!));
  const coordinates = ["half_pixel", "asymmetric", ...(whole ? ["align_corners"] : [])];
  return x && g.node("Resize", [x, undefined, scaleList(g, scales)], {
    mode,
    coordinate_transformation_mode: g.pick(coordinates),
    ...(mode === "nearest" ? { nearest_mode: "floor" } : {}),
  });
};

function scaleList(g: GraphMaker, scales: readonly number[]): Value {
  const tensor = tensorOf("float32", [scales.length], scales);
  return { name: g.writer.constant(tensor), tensor, exact: true, constant: true };
}

const movement: Growth = (g) => {
  const x = g.some((v) => rankOf(v) >= 1);
  if (x === undefined) return;
  const { shape } = x.tensor;
  const rank = shape.length;
  const { exact } = x;
  const axis = g.below(rank);
  switch (g.below(13)) {
    case 0: {
      const perm = Array.from({ length: rank }, (_, i) => i);
      for (let i = rank - 1; i > 0; i--) {
        const j = g.below(i + 1);
        [perm[i], perm[j]] = [perm[j]!, perm[i]!];
      }
      return g.node("Transpose", [x], { perm }, { exact });
    }
    case 1: {
      // Merge two axes, split one, or flatten.
      const to = axis + 1 < rank && g.chance(0.5)
        ? [...shape.slice(0, axis), shape[axis]! * shape[axis + 1]!, ...shape.slice(axis + 2)]
        : shape[axis]! % 2 === 0
        ? [...shape.slice(0, axis), 2, shape[axis]! / 2, ...shape.slice(axis + 1)]
        : [shape[0]!, -1];
      return g.node("Reshape", [x, g.integers(to)], {}, { exact });
    }
    case 2:
      return g.node("Flatten", [x], { axis }, { exact });
    case 3: {
      const one = shape.findIndex((size) => size === 1);
      return one >= 0 && g.chance(0.5)
        ? g.node("Squeeze", [x, g.integers([one])], {}, { exact })
        : g.node("Unsqueeze", [x, g.integers([g.below(rank + 1)])], {}, { exact });
    }
    case 4:
    case 5: {
      const others = g.values.filter((v) =>
        v.tensor.type === "float32" && rankOf(v) === rank && !v.constant &&
        v.tensor.shape.every((size, i) => i === axis || size === shape[i])
      );
      const list = Array.from({ length: 1 + g.below(3) }, () => g.pick(others));
      if (g.chance(0.2)) {
        list.push(g.floats(shape.map((size, i) => i === axis ? 1 + g.below(3) : size)));
      }
      return g.node("Concat", [x, ...list], { axis: g.chance(0.5) ? axis : axis - rank }, {
        exact: exact && list.every((v) => v.exact),
      });
    }
    case 6: {
      const count = 1 + g.below(rank);
      const axes = Array.from({ length: rank }, (_, i) => i).slice(-count);
      const steps = axes.map(() => g.pick([1, 1, 1, 2, -1]));
      const starts = axes.map((a, i) => steps[i]! < 0 ? -1 : g.below(Math.min(3, shape[a]!)));
      const ends = axes.map((a, i) => steps[i]! < 0 ? -1000 : shape[a]! - g.below(2));
      const lists = [starts, ends, axes, steps].map((list) => g.integers(list));
      const sliced = g.nodes("Slice", [x, ...lists], {}, { exact })?.[0];
      return sliced;
    }
    case 7: {
      const size = shape[axis]!;
      if (size < 2) return;
      const first = 1 + g.below(size - 1);
      return g.nodes("Split", [x, g.integers([first, size - first])], { axis }, {
        outputs: 2,
        exact,
      });
    }
    case 8: {
      const index = g.pick([[0], [shape[axis]! - 1], [-1, 0], [0, 0, shape[axis]! - 1]]);
      const list = g.integers(index, index.length === 1 && g.chance(0.5));
      return g.node("Gather", [x, list], { axis }, { exact });
    }
    case 9: {
      const to = shape.map((size) => size === 1 && g.chance(0.5) ? 2 + g.below(3) : size);
      return g.node("Expand", [x, g.integers(g.chance(0.2) ? [2, ...to] : to)], {}, { exact });
    }
    case 10:
      return g.node("Tile", [x, g.integers(shape.map(() => g.pick([1, 1, 2])))], {}, { exact });
    case 11: {
      const mode = g.pick(["constant", "reflect", "edge", "wrap"]);
      const pads = [...shape, ...shape].map((size) =>
        g.chance(0.5) ? 0 : g.below(Math.min(size, 3))
      );
      const fill = mode === "constant" && g.chance(0.5) ? [g.scalar(g.pick([0, 1.5]))] : [];
      return g.node("Pad", [x, g.integers(pads), ...fill], { mode }, { exact });
    }
    default: {
      const image = g.some(isImage);
      const [op, attributes] = g.pick<[string, Attributes]>([
        ["DepthToSpace", { blocksize: 2, mode: g.pick(["DCR", "CRD"]) }],
        ["SpaceToDepth", { blocksize: 2 }],
      ]);
      return image && g.node(op, [image], attributes, image);
    }
  }
};

const reduce: Growth = (g) => {
  const x = g.some((v) => rankOf(v) >= 1);
  if (x === undefined) return;
  const rank = rankOf(x);
  if (x.exact && g.chance(0.3)) {
    return g.node(g.pick(["ArgMax", "ArgMin"]), [x], {
      axis: g.below(rank),
      keepdims: g.below(2),
    });
  }
  const op = g.pick(["ReduceMean", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1"]);
  const axes = Array.from({ length: rank }, (_, i) => i).filter(() => g.chance(0.5));
  return g.node(op, [x, g.integers(axes.length > 0 ? axes : [-1])], { keepdims: g.below(2) }, {
    exact: x.exact && /Max|Min/.test(op),
  });
};

const product: Growth = (g) => {
  const x = g.some((v) => rankOf(v) >= 2);
  if (x === undefined) return;
  const { shape } = x.tensor;
  const k = shape.at(-1)!;
  const scale = 1.5 / Math.sqrt(k);
  const n = 1 + g.below(9);
  const kind = g.below(5);
  let y: Value | undefined;
  if (kind <= 1) y = g.node("MatMul", [x, g.floats([k, n], scale)]);
  else if (kind === 2 && shape.length === 2) {
    const turned = g.below(2);
    y = g.node("Gemm", [
      x,
      g.floats(turned ? [n, k] : [k, n], scale),
      ...(g.chance(0.7) ? [g.floats(g.pick([[n], [1, n], [shape[0]!, n], [shape[0]!, 1]]))] : []),
    ], { transB: turned, alpha: { float: g.pick([1, 0.5]) }, beta: { float: g.pick([1, 0.5]) } });
  } else if (kind === 3) {
    const perm = shape.map((_, i) => i);
    perm.push(perm.splice(-2, 1)[0]!);
    const turned = g.node("Transpose", [x], { perm }, x);
    const scaled = g.node("Mul", [x, g.scalar(0.25)]);
    y = turned && scaled && g.node("MatMul", g.chance(0.5) ? [scaled, turned] : [turned, scaled]);
  } else y = g.node("MatMul", [x, g.floats([...shape.slice(0, -2), k, n], scale)]);
  if (y === undefined) return;
  if (g.chance(0.4)) {
    const bias = g.floats([y.tensor.shape.at(-1)!]);
    y = g.node("Add", g.chance(0.5) ? [y, bias] : [bias, y]);
  }
  return y && behind(g, y);
};

const attention: Growth = (g) => {
  const [batch, heads, rows, size] = [
    1 + g.below(2),
    1 + g.below(3),
    2 + g.below(6),
    1 + g.below(9),
  ];
  const x = g.some((v) => v.tensor.data.length === batch * heads * rows * size * 3) ??
    g.input([batch, rows, 3, heads, size]);
  const whole = g.node("Reshape", [x, g.integers([batch, rows, 3, heads, size])]);
  const turned = whole && g.node("Transpose", [whole], { perm: [2, 0, 3, 1, 4] });
  if (turned === undefined) return;
  const [q, k, v] = [0, 1, 2].map((i) => g.node("Gather", [turned, g.integers([i], true)], {}));
  const key = k && g.node("Transpose", [k], { perm: [0, 1, 3, 2] });
  const scale = g.scalar(0.5);
  const before = g.chance(0.5);
  let scores = q && key && g.node("MatMul", [before ? g.node("Mul", [q, scale]) : q, key]);
  if (scores && !before) scores = g.node("Mul", [scores, scale]);
  if (scores && g.chance(0.4)) {
    scores = g.node("Add", [
      scores,
      g.floats(g.pick([[rows, rows], [1, heads, rows, rows], [1, 1, 1, rows]])),
    ]);
  }
  const weights = scores && g.node("Softmax", [scores], { axis: -1 });
  const y = weights && v && g.node("MatMul", [weights, v]);
  const back = y && g.node("Transpose", [y], { perm: [0, 2, 1, 3] });
  return back && g.node("Reshape", [back, g.integers([batch, rows, heads * size])]);
};

/** A block of a network that squeezes and excites: a factor per channel from the image itself. */
const excitation: Growth = (g) => {
  const x = g.some(isImage);
  if (x === undefined) return;
  const mean = g.chance(0.5)
    ? g.node("GlobalAveragePool", [x])
    : g.node("ReduceMean", [x, g.integers([2, 3])], { keepdims: 1 });
  const c = x.tensor.shape[1]!;
  const y = mean && g.node("Conv", [mean, g.floats([c, c, 1, 1], 1 / Math.sqrt(c))]);
  const gate = y && g.node("Sigmoid", [y]);
  return gate && g.node("Mul", [x, gate]);
};

/** What the host computes in the middle of a run. */
const onHost: Growth = (g) => {
  const x = g.some((v) => rankOf(v) >= 2);
  if (x === undefined) return;
  const axis = g.below(rankOf(x));
  if (g.chance(0.5)) return g.node("Trilu", [x], { upper: g.below(2) }, x);
  const most = g.nodes("TopK", [x, g.integers([1 + g.below(x.tensor.shape[axis]!)])], { axis }, {
    outputs: 2,
    exact: x.exact,
  });
  // Which of two that are nearly equal is first is not what this is about.
  if (!x.exact && most !== undefined) g.used.add(most[1]!.name);
};

const GROWTHS: readonly (readonly [Growth, weight: number])[] = [
  [conv, 6],
  [unary, 4],
  [binary, 5],
  [variadic, 1],
  [compare, 2],
  [casts, 1],
  [roundings, 1],
  [pool, 2],
  [transposedConv, 1],
  [normalise, 3],
  [resize, 1],
  [movement, 8],
  [reduce, 2],
  [product, 3],
  [attention, 1],
  [excitation, 1],
  [onHost, 1],
];
const BAG = GROWTHS.flatMap(([growth, weight]) => new Array<Growth>(weight).fill(growth));

/** The graph of a seed; at least one node. */
export function randomGraph(seed: number): RandomGraph {
  const g = new GraphMaker(uniform(seed));
  const size = () => g.pick([1, 2, 3, 4, 5, 7, 8]);
  g.input(g.chance(0.75) ? [1 + g.below(2), size(), size(), size()] : [size(), size(), size()]);
  if (g.chance(0.3)) g.input([1 + g.below(2), size(), size(), size()]);
  const length = 4 + g.below(10);
  for (let i = 0; i < 40 && g.lines.length < length; i++) g.pick(BAG)(g);
  while (Object.keys(g.inputs).length === g.lines.length) unary(g);
  return g.finish();
}
