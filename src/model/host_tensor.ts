/** A tensor in the host's memory, with ONNX's element types (ONNX IR, «Tensor Element Types»). */

/** Element types by ONNX's names; strings, complex numbers and types of less than eight bits are not held. */
export type DataType =
  | "float32"
  | "float16"
  | "float64"
  | "bfloat16"
  | "int8"
  | "uint8"
  | "int16"
  | "uint16"
  | "int32"
  | "uint32"
  | "int64"
  | "uint64"
  | "bool";

/** Memory of each type. A bfloat16 is held as f32, which every one of them is; a bool is 0 or 1. */
const ARRAYS = {
  float32: Float32Array,
  float16: Float16Array,
  float64: Float64Array,
  bfloat16: Float32Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
} as const;

export type HostData =
  | Float32Array
  | Float16Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

export interface HostTensor {
  readonly type: DataType;
  /** Outermost first; [] is a scalar. */
  readonly shape: readonly number[];
  /** Row-major, as many as the shape says. */
  readonly data: HostData;
}

/** Elements of a shape; 1 of a scalar's. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

export function isFloat(type: DataType): boolean {
  return type === "float32" || type === "float16" || type === "float64" || type === "bfloat16";
}

/** Zeros. */
export function emptyData(type: DataType, count: number): HostData {
  return new ARRAYS[type](count);
}

/**
 * The elements as numbers, in f64 where they are of 64 bits: exact to 2⁵³, beyond which no shape,
 * axis or index of a model lies.
 */
export function numbersOf({ data }: HostTensor): Exclude<HostData, BigInt64Array | BigUint64Array> {
  return data instanceof BigInt64Array || data instanceof BigUint64Array
    ? Float64Array.from(data, Number)
    : data;
}

/** A tensor of `type` from numbers, rounded or wrapped as the type's memory does; a bool is what is not 0. */
export function tensorOf(
  type: DataType,
  shape: readonly number[],
  numbers: ArrayLike<number>,
): HostTensor {
  if (type === "int64" || type === "uint64") {
    const data = new ARRAYS[type](numbers.length);
    for (let i = 0; i < numbers.length; i++) data[i] = BigInt(Math.trunc(numbers[i]!) || 0);
    return { type, shape, data };
  }
  if (type === "bool") {
    return { type, shape, data: Uint8Array.from(numbers, (v) => v !== 0 ? 1 : 0) };
  }
  const data = new ARRAYS[type](numbers.length);
  for (let i = 0; i < numbers.length; i++) data[i] = numbers[i]!;
  return { type, shape, data };
}
