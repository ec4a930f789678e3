/**
 * Element by element over dense row-major tensors of any rank: unary and binary operations, a choice
 * by condition, conversion between types; ONNX's operators of those names. Binary and choice
 * broadcast as NumPy does.
 *
 * Types: f32 and f16 are computed in f32; i32 and u32 in their own arithmetic, which wraps. A bool is
 * a u32 of 0 or 1. Outputs must not be inputs.
 */

import codeBinary from "./binary.wgsl" with { type: "text" };
import codeConvert from "./convert.wgsl" with { type: "text" };
import codeTernary from "./ternary.wgsl" with { type: "text" };
import codeUnary from "./unary.wgsl" with { type: "text" };
import { type Activation, type ActivationName, activationOf, ACTIVATIONS } from "./activation.ts";
import type { Gpu } from "./device.ts";
import {
  type AliasedType,
  defineKernel,
  type Pipeline,
  type Recorder,
  rowOfWorkgroups,
} from "./kernel.ts";
import {
  broadcastShape,
  broadcastStrides,
  countOf,
  described,
  gridOf,
  mergeAxes,
  numbered,
  numberedParams,
  type Operand,
  type Walk,
  walkOf,
} from "./strides.ts";
import type { ElementType, Tensor } from "./tensor.ts";

/** vec4s that a workgroup of unary and convert computes: ITEMS · 256. */
const VEC4S_PER_WORKGROUP = 1024;

const unaryKernel = defineKernel({
  name: "unary",
  code: codeUnary,
  params: { count4: "u32", a: "f32", b: "f32", row4: "u32", channels: "u32" },
  bindings: {
    input: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<Output>>", access: "read_write" },
  },
  overrides: { OPERATION: 0, PADDED: false, ACTIVATION: 0 },
  aliases: {
    Element: ["f32", "f16", "i32", "u32"],
    Value: ["f32", "i32", "u32"],
    Output: ["f32", "f16", "i32", "u32"],
  },
});

const binaryKernel = defineKernel({
  name: "binary",
  code: codeBinary,
  params: {
    rest: "u32",
    ...numberedParams("size"),
    ...numberedParams("left"),
    ...numberedParams("right"),
  },
  bindings: {
    left: { type: "array<vec4<Element>>", access: "read" },
    right: { type: "array<vec4<Element>>", access: "read" },
    output: { type: "array<vec4<Output>>", access: "read_write" },
  },
  overrides: { OPERATION: 0, RANK: 1, LEFT: 0, RIGHT: 0, X: 256, Y: 1, Z: 1 },
  aliases: {
    Element: ["f32", "f16", "i32", "u32"],
    Value: ["f32", "i32", "u32"],
    Output: ["f32", "f16", "i32", "u32"],
  },
});

const ternaryKernel = defineKernel({
  name: "ternary",
  code: codeTernary,
  params: {
    rest: "u32",
    ...numberedParams("size"),
    ...numberedParams("condition"),
    ...numberedParams("left"),
    ...numberedParams("right"),
  },
  bindings: {
    condition: { type: "array<vec4<u32>>", access: "read" },
    left: { type: "array<vec4<Item>>", access: "read" },
    right: { type: "array<vec4<Item>>", access: "read" },
    output: { type: "array<vec4<Item>>", access: "read_write" },
  },
  overrides: { RANK: 1, ACCESS: 0, X: 256, Y: 1, Z: 1 },
  aliases: { Item: ["u32", "f16"] },
});

const convertKernel = defineKernel({
  name: "convert",
  code: codeConvert,
  params: { count4: "u32" },
  bindings: {
    input: { type: "array<vec4<Input>>", access: "read" },
    output: { type: "array<vec4<Output>>", access: "read_write" },
  },
  overrides: { TO_BOOL: false },
  aliases: { Input: ["f32", "f16", "i32", "u32"], Output: ["f32", "f16", "i32", "u32"] },
});

/** By number, which is OPERATION's in unary.wgsl; `a` and `b` are constants of the call. */
export const UNARY_OPERATIONS = {
  abs: 1,
  neg: 2,
  sign: 3,
  /** 1 where the element is 0, else 0; to a bool. */
  not: 4,
  /** Integers only. */
  bitwise_not: 5,
  /** To a bool. */
  is_nan: 6,
  /** To a bool; of positive infinities where `a` is not 0, of negative ones where `b` is not. */
  is_inf: 7,
  sqrt: 8,
  rsqrt: 9,
  reciprocal: 10,
  exp: 11,
  log: 12,
  /** Exact to f32 for |x| up to 8192, as are cos and tan. */
  sin: 13,
  cos: 14,
  tan: 15,
  asin: 16,
  acos: 17,
  atan: 18,
  sinh: 19,
  cosh: 20,
  asinh: 21,
  acosh: 22,
  atanh: 23,
  erf: 24,
  floor: 25,
  ceil: 26,
  /** Half to even. */
  round: 27,
  /** b·(a·(eᵛ − 1)) below zero, else b·v: ONNX Selu-6. */
  selu: 28,
  /** a·(e^(v/a) − 1) below zero, else v: ONNX Celu-12. */
  celu: 29,
  /** v above a, else 0: ONNX ThresholdedRelu-10. */
  thresholded_relu: 30,
  softsign: 31,
  /** v − b above a, v + b below −a, else 0: ONNX Shrink-9 with lambd a, bias b. */
  shrink: 32,
  /** a·v + b. */
  linear: 33,
} as const;

export type UnaryOperation = keyof typeof UNARY_OPERATIONS | ActivationName;

/** ONNX's defaults where the operator has constants. */
const UNARY_DEFAULTS: Partial<Record<UnaryOperation, readonly [a: number, b: number]>> = {
  is_inf: [1, 1],
  selu: [1.6732632423543772, 1.0507009873554805],
  celu: [1, 0],
  thresholded_relu: [1, 0],
  shrink: [0.5, 0],
  linear: [1, 0],
};

/** Those that integers have. */
const UNARY_OF_INTEGERS: readonly UnaryOperation[] = ["abs", "neg", "sign", "not", "bitwise_not"];
const UNARY_TO_BOOL: readonly UnaryOperation[] = ["not", "is_nan", "is_inf"];

const isInteger = (type: ElementType) => type === "i32" || type === "u32";

/** @throws {RangeError} for u8, of which only `normalise` knows. */
export function numberType(type: ElementType): AliasedType {
  if (type === "u8") throw new RangeError("Cannot compute with u8: f32, f16, i32 or u32 is needed");
  return type;
}

export interface CompiledUnary {
  readonly pipeline: Pipeline<typeof unaryKernel.literal>;
  readonly operation: UnaryOperation;
  readonly type: ElementType;
  readonly outputType: ElementType;
  readonly a: number;
  readonly b: number;
  readonly padded: boolean;
}

/**
 * Compiles an operation or an activation for elements of `type`. Constants not given are ONNX's
 * defaults.
 * @throws {RangeError} where elements of that type have no such operation.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileUnary(
  gpu: Gpu,
  operation: UnaryOperation,
  type: ElementType,
  constants: { readonly a?: number; readonly b?: number } = {},
  /** Whether rows are padded at their end, with zeros that are to stay zeros. */
  padded = false,
): Promise<CompiledUnary> {
  const integers = isInteger(type);
  if (
    integers ? !UNARY_OF_INTEGERS.includes(operation) : operation === "bitwise_not" || type === "u8"
  ) throw new RangeError(`Cannot compute "${operation}" of ${type}`);
  const outputType = UNARY_TO_BOOL.includes(operation) ? "u32" : type;
  const isActivation = operation in ACTIVATIONS;
  const activation = isActivation
    ? activationOf({ name: operation, ...constants } as Activation)
    : undefined;
  const [a, b] = UNARY_DEFAULTS[operation] ?? [0, 0];
  const pipeline = await unaryKernel.compile(gpu, {
    OPERATION: isActivation ? 0 : UNARY_OPERATIONS[operation as keyof typeof UNARY_OPERATIONS],
    PADDED: padded,
    ACTIVATION: activation?.code ?? 0,
  }, {
    Element: numberType(type),
    Value: integers ? numberType(type) : "f32",
    Output: numberType(outputType),
  });
  return {
    pipeline,
    operation,
    type,
    outputType,
    a: activation?.a ?? constants.a ?? a,
    b: activation?.b ?? constants.b ?? b,
    padded,
  };
}

/**
 * Records `output = f(input)`, of one shape. Where it was compiled for padding, `channels` is how
 * many elements of a row of the last axis, a multiple of four, are no padding.
 * @throws {RangeError} where types or shapes are others than those compiled for, or differ.
 */
export function recordUnary(
  recorder: Recorder,
  { pipeline, operation, type, outputType, a, b, padded }: CompiledUnary,
  { input, output }: Record<"input" | "output", Tensor>,
  channels = input.shape.at(-1) ?? 1,
): void {
  const row = input.shape.at(-1) ?? 1;
  if (
    input.type !== type || output.type !== outputType ||
    input.shape.join() !== output.shape.join() ||
    (padded ? row % 4 !== 0 || channels > row : channels !== row)
  ) {
    throw new RangeError(
      `Cannot compute "${operation}" of ${described(input)} into ${described(output)}: ` +
        `${type} into ${outputType} of the same shape is needed`,
    );
  }
  const count4 = Math.ceil(countOf(output.shape) / 4);
  const params = { count4, a, b, row4: row / 4, channels };
  recorder.dispatch(pipeline, { params, bindings: { input, output } }, [
    ...rowOfWorkgroups(recorder.gpu, Math.ceil(count4 / VEC4S_PER_WORKGROUP)),
  ]);
}

/** By number, which is OPERATION's in binary.wgsl. */
export const BINARY_OPERATIONS = {
  add: 0,
  sub: 1,
  mul: 2,
  /** Of integers truncated toward zero. */
  div: 3,
  /** Exact for integers, exponents up to 63. */
  pow: 4,
  min: 5,
  max: 6,
  /** The remainder with the divisor's sign: ONNX Mod-13 with fmod 0. */
  mod: 7,
  /** The remainder with the dividend's sign: ONNX Mod-13 with fmod 1. */
  fmod: 8,
  /** left · right where left is below zero, else left. */
  prelu: 9,
  /** The comparisons give a bool. */
  equal: 10,
  less: 11,
  less_or_equal: 12,
  greater: 13,
  greater_or_equal: 14,
  /** Of integers bit by bit, and of bools. */
  and: 15,
  or: 16,
  xor: 17,
  /** Of u32: by 32 bits and more gives 0. */
  shift_left: 18,
  shift_right: 19,
} as const;

export type BinaryOperation = keyof typeof BINARY_OPERATIONS;

export interface CompiledBinary {
  readonly pipeline: Pipeline<typeof binaryKernel.literal>;
  readonly operation: BinaryOperation;
  readonly left: Operand;
  readonly right: Operand;
  /** What the operands broadcast to, and the type of the result. */
  readonly output: Operand;
  readonly params: { readonly [M in keyof typeof binaryKernel.literal.params]: number };
  readonly workgroups: Walk["workgroups"];
}

/** How an operand is read: LEFT's and RIGHT's numbers. */
const DENSE = 0, VECTOR = 1, SPLAT = 2, EACH = 3;

/**
 * How operands that broadcast to `shape` are read, four elements of the output at a time where they
 * lie so. Where one must be read element by element all are.
 */
function accessOf(
  shape: readonly number[],
  operands: readonly (readonly number[])[],
): {
  readonly sizes: readonly number[];
  readonly strides: readonly (readonly number[])[];
  readonly rank: number;
  readonly access: readonly number[];
} {
  const { sizes, strides } = mergeAxes(
    shape,
    operands.map((own) => broadcastStrides(own, shape)),
  );
  const count = countOf(shape);
  const dense = operands.map((own) => countOf(own) === count);
  const four = dense.every(Boolean) ||
    strides.every((own, i) => dense[i] || sizes[0]! % 4 === 0 || own.every((s) => s === 0));
  const rank = sizes.length;
  if (!four) {
    return { sizes, strides, rank, access: operands.map(() => EACH) };
  }
  const access = dense.map((own, i) => own ? DENSE : strides[i]![0] === 0 ? SPLAT : VECTOR);
  return {
    sizes: sizes.map((size, axis) => axis === 0 ? Math.ceil(size / 4) : size),
    // A vec4 that moves along the innermost axis counts vec4s along all: their strides are its multiples.
    strides: strides.map((own, i) =>
      access[i] === VECTOR ? own.map((s, axis) => axis === 0 ? 1 : s / 4) : own
    ),
    rank,
    access,
  };
}

/**
 * Compiles an operation for operands of two shapes that broadcast.
 * @throws {RangeError} where shapes do not broadcast, types differ or have no such operation.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileBinary(
  gpu: Gpu,
  operation: BinaryOperation,
  left: Operand,
  right: Operand,
): Promise<CompiledBinary> {
  const code = BINARY_OPERATIONS[operation];
  const { type } = left;
  const integers = isInteger(type);
  const allowed = code >= BINARY_OPERATIONS.shift_left
    ? type === "u32"
    : code >= BINARY_OPERATIONS.and
    ? integers
    : true;
  if (!allowed || type !== right.type || type === "u8") {
    throw new RangeError(
      `Cannot compute "${operation}" of ${described(left)} and ${described(right)}`,
    );
  }
  const shape = broadcastShape(left.shape, right.shape);
  const { sizes, strides, rank, access } = accessOf(shape, [left.shape, right.shape]);
  const walk = walkOf(sizes);
  const outputType = code >= BINARY_OPERATIONS.equal && code <= BINARY_OPERATIONS.greater_or_equal
    ? "u32"
    : type;
  const pipeline = await binaryKernel.compile(
    gpu,
    { OPERATION: code, RANK: rank, LEFT: access[0]!, RIGHT: access[1]!, ...walk.size },
    {
      Element: numberType(type),
      Value: integers ? numberType(type) : "f32",
      Output: numberType(outputType),
    },
  );
  return {
    pipeline,
    operation,
    left: { type, shape: left.shape },
    right: { type, shape: right.shape },
    output: { type: outputType, shape },
    params: {
      rest: walk.rest,
      ...numbered("size", sizes, 1),
      ...numbered("left", strides[0]!),
      ...numbered("right", strides[1]!),
    },
    workgroups: walk.workgroups,
  };
}

/** @throws {RangeError} where the tensors are not those that were compiled for. */
export function checkOperands(
  action: string,
  tensors: Readonly<Record<string, Operand>>,
  wanted: Readonly<Record<string, Operand>>,
): void {
  for (const [name, { type, shape }] of Object.entries(wanted)) {
    const tensor = tensors[name]!;
    if (tensor.type !== type || tensor.shape.join() !== shape.join()) {
      throw new RangeError(
        `Cannot ${action}: "${name}" is ${described(tensor)}, compiled for ${
          described({ type, shape })
        }`,
      );
    }
  }
}

/**
 * Records `output = f(left, right)`, of the shapes that were compiled for.
 * @throws {RangeError} for others.
 */
export function recordBinary(
  recorder: Recorder,
  compiled: CompiledBinary,
  tensors: Record<"left" | "right" | "output", Tensor>,
): void {
  const { pipeline, params, workgroups, left, right, output } = compiled;
  checkOperands(`compute "${compiled.operation}"`, tensors, { left, right, output });
  const grid = gridOf(recorder.gpu, workgroups);
  recorder.dispatch(pipeline, { params, bindings: tensors }, grid);
}

export interface CompiledWhere {
  readonly pipeline: Pipeline<typeof ternaryKernel.literal>;
  readonly condition: Operand;
  readonly left: Operand;
  readonly right: Operand;
  /** What all three broadcast to. */
  readonly output: Operand;
  readonly params: { readonly [M in keyof typeof ternaryKernel.literal.params]: number };
  readonly workgroups: Walk["workgroups"];
}

/**
 * Compiles ONNX Where-16: `left` where the bool `condition` is set, else `right`; elements are moved
 * bit by bit, so infinities and NaN are safe.
 * @throws {RangeError} where shapes do not broadcast or types do not fit.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileWhere(
  gpu: Gpu,
  condition: Operand,
  left: Operand,
  right: Operand,
): Promise<CompiledWhere> {
  const { type } = left;
  if (condition.type !== "u32" || type !== right.type || type === "u8") {
    throw new RangeError(
      `Cannot choose by ${described(condition)} from ${described(left)} and ${described(right)}`,
    );
  }
  const shapes = [condition.shape, left.shape, right.shape];
  const shape = broadcastShape(...shapes);
  const { sizes, strides, rank, access } = accessOf(shape, shapes);
  const walk = walkOf(sizes);
  const each = access.includes(EACH);
  const dense = access.every((own) => own === DENSE);
  // One access stands for all three, so that an operand that is dense goes by its strides as well.
  const own = each || dense
    ? strides
    : strides.map((s, i) => access[i] === DENSE ? s.map((v, axis) => axis === 0 ? 1 : v / 4) : s);
  const pipeline = await ternaryKernel.compile(
    gpu,
    { RANK: rank, ACCESS: each ? 3 : dense ? 0 : 1, ...walk.size },
    { Item: type === "f16" ? "f16" : "u32" },
  );
  return {
    pipeline,
    condition: { type: "u32", shape: condition.shape },
    left: { type, shape: left.shape },
    right: { type, shape: right.shape },
    output: { type, shape },
    params: {
      rest: walk.rest,
      ...numbered("size", sizes, 1),
      ...numbered("condition", own[0]!),
      ...numbered("left", own[1]!),
      ...numbered("right", own[2]!),
    },
    workgroups: walk.workgroups,
  };
}

/**
 * Records the choice, of the shapes that were compiled for.
 * @throws {RangeError} for others.
 */
export function recordWhere(
  recorder: Recorder,
  compiled: CompiledWhere,
  tensors: Record<"condition" | "left" | "right" | "output", Tensor>,
): void {
  const { pipeline, params, workgroups, condition, left, right, output } = compiled;
  checkOperands("choose", tensors, { condition, left, right, output });
  const grid = gridOf(recorder.gpu, workgroups);
  recorder.dispatch(pipeline, { params, bindings: tensors }, grid);
}

export interface CompiledConvert {
  readonly pipeline: Pipeline<typeof convertKernel.literal>;
  readonly from: ElementType;
  readonly to: ElementType;
}

/**
 * Compiles ONNX Cast-21. To an integer elements are rounded toward zero and held within what f32 has of
 * its range (WGSL §15.7.6), from f32 to f16 to the nearest or to infinity; to "bool" is to a u32 of 0 or 1.
 * @throws {RangeError} for u8.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileConvert(
  gpu: Gpu,
  from: ElementType,
  to: ElementType | "bool",
): Promise<CompiledConvert> {
  const output = to === "bool" ? "u32" : to;
  const pipeline = await convertKernel.compile(gpu, { TO_BOOL: to === "bool" }, {
    Input: numberType(from),
    Output: numberType(output),
  });
  return { pipeline, from, to: output };
}

/** Records the conversion. @throws {RangeError} where types or shapes do not fit. */
export function recordConvert(
  recorder: Recorder,
  { pipeline, from, to }: CompiledConvert,
  { input, output }: Record<"input" | "output", Tensor>,
): void {
  checkOperands("convert", { input, output }, {
    input: { type: from, shape: output.shape },
    output: { type: to, shape: output.shape },
  });
  const count4 = Math.ceil(countOf(output.shape) / 4);
  recorder.dispatch(pipeline, { params: { count4 }, bindings: { input, output } }, [
    ...rowOfWorkgroups(recorder.gpu, Math.ceil(count4 / VEC4S_PER_WORKGROUP)),
  ]);
}
