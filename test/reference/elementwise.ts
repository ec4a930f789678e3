/** The operations of kernels/elementwise.ts in f64, one element at a time. */

import type { ActivationName } from "../../kernels/activation.ts";
import type { BinaryOperation, UnaryOperation } from "../../kernels/elementwise.ts";
import { activate, erf } from "./activation.ts";
import { forEachIndex, positionOf } from "./strides.ts";

/** To the nearest whole number, half to even. */
function roundHalfEven(v: number): number {
  const below = Math.floor(v);
  const rest = v - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

export function unary(operation: UnaryOperation, v: number, a: number, b: number): number {
  switch (operation) {
    case "abs":
      return Math.abs(v);
    case "neg":
      return -v;
    case "sign":
      return Math.sign(v);
    case "not":
      return v === 0 ? 1 : 0;
    case "bitwise_not":
      return ~v;
    case "is_nan":
      return Number.isNaN(v) ? 1 : 0;
    case "is_inf":
      return (a !== 0 && v === Infinity) || (b !== 0 && v === -Infinity) ? 1 : 0;
    case "sqrt":
      return Math.sqrt(v);
    case "rsqrt":
      return 1 / Math.sqrt(v);
    case "reciprocal":
      return 1 / v;
    case "exp":
      return Math.exp(v);
    case "log":
      return Math.log(v);
    case "sin":
      return Math.sin(v);
    case "cos":
      return Math.cos(v);
    case "tan":
      return Math.tan(v);
    case "asin":
      return Math.asin(v);
    case "acos":
      return Math.acos(v);
    case "atan":
      return Math.atan(v);
    case "sinh":
      return Math.sinh(v);
    case "cosh":
      return Math.cosh(v);
    case "asinh":
      return Math.asinh(v);
    case "acosh":
      return Math.acosh(v);
    case "atanh":
      return Math.atanh(v);
    case "erf":
      return erf(v);
    case "floor":
      return Math.floor(v);
    case "ceil":
      return Math.ceil(v);
    case "round":
      return roundHalfEven(v);
    case "selu":
      return b * (v > 0 ? v : a * Math.expm1(v));
    case "celu":
      return v > 0 ? v : a * Math.expm1(v / a);
    case "thresholded_relu":
      return v > a ? v : 0;
    case "softsign":
      return v / (1 + Math.abs(v));
    case "shrink":
      return v > a ? v - b : v < -a ? v + b : 0;
    case "linear":
      return a * v + b;
    default:
      return activate(operation satisfies ActivationName, v, a, b);
  }
}

/** Integers are whole numbers within ±2⁵³ here; the caller wraps. */
export function binary(
  operation: BinaryOperation,
  x: number,
  y: number,
  integers: boolean,
): number {
  switch (operation) {
    case "add":
      return x + y;
    case "sub":
      return x - y;
    case "mul":
      return integers ? Math.imul(x, y) : x * y;
    case "div":
      return integers ? Math.trunc(x / y) : x / y;
    case "pow":
      return x ** y;
    case "min":
      return Math.min(x, y);
    case "max":
      return Math.max(x, y);
    case "mod":
      return x % y === 0 || (x % y < 0) === (y < 0) ? x % y : x % y + y;
    case "fmod":
      return x % y;
    case "prelu":
      return x < 0 ? binary("mul", x, y, integers) : x;
    case "equal":
      return Number(x === y);
    case "less":
      return Number(x < y);
    case "less_or_equal":
      return Number(x <= y);
    case "greater":
      return Number(x > y);
    case "greater_or_equal":
      return Number(x >= y);
    case "and":
      return x & y;
    case "or":
      return x | y;
    case "xor":
      return x ^ y;
    case "shift_left":
      return y > 31 ? 0 : x << y;
    case "shift_right":
      return y > 31 ? 0 : x >>> y;
  }
}

/** `f` of every element of operands that broadcast to `shape`. */
export function broadcast(
  shape: readonly number[],
  operands: readonly { readonly data: ArrayLike<number>; readonly shape: readonly number[] }[],
  f: (...values: number[]) => number,
): Float64Array {
  const output = new Float64Array(shape.reduce((a, b) => a * b, 1));
  forEachIndex(shape, (index, position) => {
    output[position] = f(
      ...operands.map((operand) => operand.data[positionOf(index, operand.shape)]!),
    );
  });
  return output;
}
