/** Element by element: activations, arithmetic with broadcasting, comparisons, Where, Cast. */

import {
  type BinaryOperation,
  compileBinary,
  compileConvert,
  compileUnary,
  compileWhere,
  recordBinary,
  recordConvert,
  recordUnary,
  recordWhere,
  type UnaryOperation,
} from "../../../kernels/elementwise.ts";
import { broadcastShape } from "../../../kernels/strides.ts";
import { activationOfNode } from "../fuse.ts";
import { isFloat, numbersOf } from "../host_tensor.ts";
import { GpuValue, type Lowering, type PlanBuilder, type ShapedNode } from "../plan.ts";
import { dense, hasPadding } from "../layout.ts";
import { preluSlopeShape } from "../ops/elementwise.ts";
import { NodeReader } from "../ops/operator.ts";
import { type GpuType, gpuTypeOf } from "../weights.ts";
import { broadcastInputs } from "./operands.ts";

/** Those that make zero of padding's zeros, and floats, which alone are padded. */
const ZERO_OF_ZEROS: ReadonlySet<BinaryOperation> = new Set<BinaryOperation>([
  ...["add", "sub", "mul", "min", "max", "prelu"] as const,
]);

/** Input 0 as it lies, but without padding where the result is no float. */
function lying(builder: PlanBuilder, reader: NodeReader, type: GpuType): GpuValue {
  const { order, padded } = builder.input(reader, 0).layout;
  const isFloat = type === "f32" || type === "f16";
  return builder.input(reader, 0, { order, padded: padded && isFloat });
}

/** Adds an operation on one value; the result lies as it does. */
export function unary(
  builder: PlanBuilder,
  node: ShapedNode,
  operation: UnaryOperation,
  constants: { readonly a?: number; readonly b?: number } = {},
): boolean {
  const { reader, outputs } = node;
  const type = gpuTypeOf(outputs[0]!.type, builder.float);
  const input = lying(builder, reader, type);
  // Padding stays zero: what an operation makes of zeros need not be.
  const padded = hasPadding(input.shape, input.layout);
  const channels = padded ? input.shape[input.layout.order.at(-1)!]! : undefined;
  const output = builder.output(reader, 0, type, input.shape, input.layout);
  builder.step(
    [input],
    [output],
    compileUnary(builder.gpu, operation, input.type, constants, padded),
    (recorder, compiled) =>
      recordUnary(recorder, compiled, { input: input.tensor, output: output.tensor }, channels),
  );
  return true;
}

/** Adds an operation on the inputs at two places, or on an intermediate result and one of them. */
function binary(builder: PlanBuilder, node: ShapedNode, operation: BinaryOperation): boolean {
  const { reader, outputs } = node;
  const { shape, type } = outputs[0]!;
  const broadcast = broadcastInputs(
    builder,
    node,
    [0, 1],
    shape!,
    ZERO_OF_ZEROS.has(operation),
  );
  const [left, rightAsIs] = broadcast.operands as [GpuValue, GpuValue];
  // Pow's exponent may be of another type.
  const right = rightAsIs.type === left.type
    ? rightAsIs
    : builder.converted(rightAsIs, rightAsIs.layout, left.type);
  const [leftShape, rightShape] = broadcast.shapes as [readonly number[], readonly number[]];
  const output = builder.output(
    reader,
    0,
    gpuTypeOf(type, builder.float),
    shape!,
    broadcast.layout,
  );
  addBinary(builder, operation, left, leftShape, right, rightShape, output);
  return true;
}

function addBinary(
  builder: PlanBuilder,
  operation: BinaryOperation,
  left: GpuValue,
  leftShape: readonly number[],
  right: GpuValue,
  rightShape: readonly number[],
  output: GpuValue,
): void {
  builder.step(
    [left, right],
    [output],
    compileBinary(
      builder.gpu,
      operation,
      { type: left.type, shape: leftShape },
      { type: right.type, shape: rightShape },
    ),
    (recorder, compiled) =>
      recordBinary(recorder, compiled, {
        left: left.as(leftShape),
        right: right.as(rightShape),
        output: output.as(compiled.output.shape),
      }),
  );
}

/** Sum, Mean, Min and Max of any number of inputs, two at a time. */
function variadic(operation: "add" | "min" | "max", isMean = false): Lowering {
  return (builder, node) => {
    const { reader, outputs } = node;
    const { shape, type } = outputs[0]!;
    const count = reader.node.inputs.length;
    const { operands, shapes, layout } = broadcastInputs(
      builder,
      node,
      reader.inputs.map((_, i) => i),
      shape!,
      true,
    );
    const gpuType = gpuTypeOf(type, builder.float);
    if (count === 1) {
      builder.alias(reader, 0, operands[0]!, shape!, layout);
      return true;
    }
    const result = builder.output(reader, 0, gpuType, shape!, layout);
    let sum = operands[0]!, sumShape = shapes[0]!;
    for (let i = 1; i < count; i++) {
      // Operands grow as they meet: only the last result is sure to be of the output's shape.
      const nextShape = broadcastShape(sumShape, shapes[i]!);
      const next = i === count - 1 && !isMean ? result : builder.allocate(gpuType, nextShape);
      addBinary(builder, operation, sum, sumShape, operands[i]!, shapes[i]!, next);
      [sum, sumShape] = [next, nextShape];
    }
    if (isMean) {
      const total = sum;
      builder.step(
        [total],
        [result],
        compileUnary(builder.gpu, "linear", total.type, { a: 1 / count, b: 0 }),
        (recorder, compiled) =>
          recordUnary(recorder, compiled, {
            input: total.as(result.physical),
            output: result.tensor,
          }),
      );
    }
    return true;
  };
}

/** ONNX's names of operations on one value. */
const UNARY: Readonly<Record<string, UnaryOperation>> = {
  Abs: "abs",
  Neg: "neg",
  Sign: "sign",
  Not: "not",
  BitwiseNot: "bitwise_not",
  IsNaN: "is_nan",
  Sqrt: "sqrt",
  Reciprocal: "reciprocal",
  Exp: "exp",
  Log: "log",
  Sin: "sin",
  Cos: "cos",
  Tan: "tan",
  Asin: "asin",
  Acos: "acos",
  Atan: "atan",
  Sinh: "sinh",
  Cosh: "cosh",
  Asinh: "asinh",
  Acosh: "acosh",
  Atanh: "atanh",
  Erf: "erf",
  Floor: "floor",
  Ceil: "ceil",
  Round: "round",
  Softsign: "softsign",
};

/** Those whose constants are attributes: the names of `a` and `b`, and their defaults. */
const UNARY_WITH_CONSTANTS: Readonly<
  Record<
    string,
    readonly [UnaryOperation, a: readonly [string, number], b?: readonly [string, number]]
  >
> = {
  Selu: ["selu", ["alpha", 1.6732632423543772], ["gamma", 1.0507009873554805]],
  Celu: ["celu", ["alpha", 1]],
  ThresholdedRelu: ["thresholded_relu", ["alpha", 1]],
  Shrink: ["shrink", ["lambd", 0.5], ["bias", 0]],
  IsInf: ["is_inf", ["detect_positive", 1], ["detect_negative", 1]],
};

const BINARY: Readonly<Record<string, BinaryOperation>> = {
  Add: "add",
  Sub: "sub",
  Mul: "mul",
  Div: "div",
  Equal: "equal",
  Less: "less",
  LessOrEqual: "less_or_equal",
  Greater: "greater",
  GreaterOrEqual: "greater_or_equal",
  And: "and",
  Or: "or",
  Xor: "xor",
  BitwiseAnd: "and",
  BitwiseOr: "or",
  BitwiseXor: "xor",
};

const ACTIVATION_OPERATORS = [
  "Relu",
  "LeakyRelu",
  "Clip",
  "Sigmoid",
  "HardSigmoid",
  "HardSwish",
  "Swish",
  "Tanh",
  "Gelu",
  "Elu",
  "Softplus",
  "Mish",
  "wgslide.Activation",
];

/** Results of less than 32 bits wrap at their width, which the GPU's do not. What is read is as it is. */
function wrapsOnGpu({ outputs }: ShapedNode): boolean {
  return outputs.some(({ type }) => /^u?int(8|16|64)$/.test(type) && type !== "int64");
}

const activation: Lowering = (builder, node) => {
  const { reader } = node;
  const found = activationOfNode(reader.node, (name) => {
    const known = reader.inputs[reader.node.inputs.indexOf(name)]?.known;
    return known?.data.length === 1 ? Number(numbersOf(known)[0]) : undefined;
  });
  if (found === undefined || !isFloat(reader.input(0).type)) return false;
  return unary(builder, node, found.name, { a: found.a, b: found.b });
};

/** PRelu-16, whose slope older models give as one number a channel, whatever the rank. */
const prelu: Lowering = (builder, node) => {
  const { reader } = node;
  const shape = preluSlopeShape(reader);
  const slope = reader.input(1);
  if (shape.join() === slope.shape!.join()) return binary(builder, node, "prelu");
  const name = `${reader.node.name}/slope`;
  const value = builder.input(reader, 1, dense(slope.shape!.length));
  builder.define(name, new GpuValue(value.type, shape, dense(shape.length), value.memory, name));
  const seen = new NodeReader(
    { ...reader.node, inputs: [reader.node.inputs[0]!, name] },
    [reader.inputs[0], { type: slope.type, shape, known: undefined }],
  );
  return binary(builder, { reader: seen, outputs: node.outputs }, "prelu");
};

/** Pow-15; a square is a product. */
const pow: Lowering = (builder, node) => {
  const { reader, outputs } = node;
  const exponent = reader.inputs[1]!.known;
  const [base] = reader.inputs;
  if (
    exponent?.data.length === 1 && Number(exponent.data[0]) === 2 &&
    isFloat(base!.type) && outputs[0]!.shape!.join() === base!.shape!.join()
  ) {
    const [name] = reader.node.inputs as [string];
    const squared = new NodeReader({ ...reader.node, inputs: [name, name] }, [base, base]);
    return binary(builder, { reader: squared, outputs }, "mul");
  }
  return !wrapsOnGpu(node) && binary(builder, node, "pow");
};

const where: Lowering = (builder, node) => {
  const { reader, outputs } = node;
  const { shape, type } = outputs[0]!;
  // The condition is no float, and only floats are padded.
  const { operands, shapes, layout } = broadcastInputs(builder, node, [0, 1, 2], shape!, false);
  const [condition, left, right] = operands as [GpuValue, GpuValue, GpuValue];
  const output = builder.output(reader, 0, gpuTypeOf(type, builder.float), shape!, layout);
  const operand = (i: number) => ({ type: operands[i]!.type, shape: shapes[i]! });
  builder.step(
    operands,
    [output],
    compileWhere(builder.gpu, operand(0), operand(1), operand(2)),
    (recorder, compiled) =>
      recordWhere(recorder, compiled, {
        condition: condition.as(shapes[0]!),
        left: left.as(shapes[1]!),
        right: right.as(shapes[2]!),
        output: output.as(compiled.output.shape),
      }),
  );
  return true;
};

const cast: Lowering = (builder, node) => {
  const { reader, outputs } = node;
  const { type } = outputs[0]!;
  if (wrapsOnGpu(node)) return false; // To eight or sixteen bits: wraps, and the host does it.
  const to = gpuTypeOf(type, builder.float);
  const input = lying(builder, reader, to);
  if (to === input.type && type !== "bool") {
    builder.alias(reader, 0, input, input.shape, input.layout);
    return true;
  }
  const output = builder.output(reader, 0, to, input.shape, input.layout);
  builder.step(
    [input],
    [output],
    compileConvert(builder.gpu, input.type, type === "bool" ? "bool" : to),
    (recorder, compiled) =>
      recordConvert(recorder, compiled, { input: input.tensor, output: output.tensor }),
  );
  return true;
};

export const elementwise: Readonly<Record<string, Lowering>> = {
  ...Object.fromEntries(
    Object.entries(UNARY).map(([op, operation]): [string, Lowering] => [
      op,
      (builder, node) => !wrapsOnGpu(node) && unary(builder, node, operation),
    ]),
  ),
  ...Object.fromEntries(
    Object.entries(UNARY_WITH_CONSTANTS).map(([op, [operation, a, b]]): [string, Lowering] => [
      op,
      (builder, node) =>
        unary(builder, node, operation, {
          a: node.reader.number(...a),
          ...(b === undefined ? {} : { b: node.reader.number(...b) }),
        }),
    ]),
  ),
  ...Object.fromEntries(ACTIVATION_OPERATORS.map((op) => [op, activation])),
  ...Object.fromEntries(
    Object.entries(BINARY).map(([op, operation]): [string, Lowering] => [
      op,
      (builder, node) => !wrapsOnGpu(node) && binary(builder, node, operation),
    ]),
  ),
  Mod: (builder, node) =>
    !wrapsOnGpu(node) &&
    binary(builder, node, node.reader.number("fmod", 0) !== 0 ? "fmod" : "mod"),
  Sum: variadic("add"),
  Mean: variadic("add", true),
  Min: (builder, node) => !wrapsOnGpu(node) && variadic("min")(builder, node),
  Max: (builder, node) => !wrapsOnGpu(node) && variadic("max")(builder, node),
  Pow: pow,
  PRelu: prelu,
  Where: where,
  Cast: cast,
  CastLike: cast,
};
