/**
 * ONNX's messages as bytes and back: the fields of onnx.proto3 by number, over protobuf's wire format.
 *
 * Only fields that the engine reads or writes are in the tables; others are skipped. What a hostile
 * file can make of itself is bounded: messages are counted, their nesting is limited, and a list
 * takes at most eight times the bytes that it takes in the file.
 *
 * Sources: onnx/onnx `onnx/onnx.proto3`; Protocol Buffers, «Encoding».
 */

import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { ModelError } from "../errors.ts";

/** TensorProto.DataType */
export const ELEMENT = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
  complex64: 14,
  complex128: 15,
  bfloat16: 16,
  float8e4m3fn: 17,
  float8e4m3fnuz: 18,
  float8e5m2: 19,
  float8e5m2fnuz: 20,
  uint4: 21,
  int4: 22,
  float4e2m1: 23,
  float8e8m0: 24,
} as const;

/** AttributeProto.AttributeType */
export const ATTRIBUTE = {
  FLOAT: 1,
  INT: 2,
  STRING: 3,
  TENSOR: 4,
  GRAPH: 5,
  FLOATS: 6,
  INTS: 7,
  STRINGS: 8,
  TENSORS: 9,
  GRAPHS: 10,
  SPARSE_TENSOR: 11,
  SPARSE_TENSORS: 12,
  TYPE_PROTO: 13,
  TYPE_PROTOS: 14,
} as const;

export interface StringStringEntryProto {
  key: string;
  value: string;
}

export interface TensorProto {
  dims: BigInt64Array;
  data_type: number;
  float_data: Float32Array;
  int32_data: Int32Array;
  int64_data: BigInt64Array;
  double_data: Float64Array;
  uint64_data: BigUint64Array;
  name: string;
  raw_data: Uint8Array | undefined;
  external_data: StringStringEntryProto[];
  /** 1 where the data lie in a file beside the model's. */
  data_location: number;
}

interface DimensionProto {
  dim_value: bigint | undefined;
  dim_param: string;
}

interface TensorShapeProto {
  dim: DimensionProto[];
}

interface TensorTypeProto {
  elem_type: number;
  shape: TensorShapeProto | undefined;
}

export interface TypeProto {
  tensor_type: TensorTypeProto | undefined;
}

export interface ValueInfoProto {
  name: string;
  type: TypeProto | undefined;
}

export interface AttributeProto {
  name: string;
  ref_attr_name: string;
  type: number;
  f: number;
  i: bigint;
  s: Uint8Array | undefined;
  t: TensorProto | undefined;
  g: GraphProto | undefined;
  floats: Float32Array;
  ints: BigInt64Array;
  strings: Uint8Array[];
}

export interface NodeProto {
  input: string[];
  output: string[];
  name: string;
  op_type: string;
  domain: string;
  overload: string;
  attribute: AttributeProto[];
}

export interface GraphProto {
  node: NodeProto[];
  name: string;
  initializer: TensorProto[];
  input: ValueInfoProto[];
  output: ValueInfoProto[];
  sparse_initializer: SparseTensorProto[];
}

interface SparseTensorProto {
  values: TensorProto | undefined;
}

export interface OperatorSetIdProto {
  domain: string;
  version: bigint;
}

export interface FunctionProto {
  name: string;
  domain: string;
  overload: string;
  input: string[];
  output: string[];
  attribute: string[];
  attribute_proto: AttributeProto[];
  node: NodeProto[];
  opset_import: OperatorSetIdProto[];
}

export interface ModelProto {
  ir_version: bigint;
  opset_import: OperatorSetIdProto[];
  producer_name: string;
  graph: GraphProto | undefined;
  functions: FunctionProto[];
}

type ListOf = {
  int32: Int32Array;
  int64: BigInt64Array;
  uint64: BigUint64Array;
  float: Float32Array;
  double: Float64Array;
};
type List = ListOf[keyof ListOf];

/** A field: its number, what it holds (of a message, its table), and how often. */
type Field = readonly [
  number: number,
  kind: keyof ListOf | "string" | "bytes" | (() => AnyTable),
  label?: "repeated" | "optional",
];
type AnyTable = { readonly [name: string]: Field };
/** The fields of a message of type `T`, in the order in which they are written. */
type Table<T> = { readonly [K in keyof T]-?: Field };

const STRING_STRING_ENTRY: Table<StringStringEntryProto> = {
  key: [1, "string"],
  value: [2, "string"],
};
export const TENSOR: Table<TensorProto> = {
  dims: [1, "int64", "repeated"],
  data_type: [2, "int32"],
  float_data: [4, "float", "repeated"],
  int32_data: [5, "int32", "repeated"],
  int64_data: [7, "int64", "repeated"],
  double_data: [10, "double", "repeated"],
  uint64_data: [11, "uint64", "repeated"],
  name: [8, "string"],
  raw_data: [9, "bytes", "optional"],
  external_data: [13, () => STRING_STRING_ENTRY, "repeated"],
  data_location: [14, "int32"],
};
const DIMENSION: Table<DimensionProto> = {
  dim_value: [1, "int64", "optional"],
  dim_param: [2, "string"],
};
const TENSOR_SHAPE: Table<TensorShapeProto> = { dim: [1, () => DIMENSION, "repeated"] };
const TENSOR_TYPE: Table<TensorTypeProto> = {
  elem_type: [1, "int32"],
  shape: [2, () => TENSOR_SHAPE, "optional"],
};
const TYPE: Table<TypeProto> = { tensor_type: [1, () => TENSOR_TYPE, "optional"] };
const VALUE_INFO: Table<ValueInfoProto> = {
  name: [1, "string"],
  type: [2, () => TYPE, "optional"],
};
const ATTRIBUTE_TABLE: Table<AttributeProto> = {
  name: [1, "string"],
  ref_attr_name: [21, "string"],
  type: [20, "int32"],
  f: [2, "float"],
  i: [3, "int64"],
  s: [4, "bytes", "optional"],
  t: [5, () => TENSOR, "optional"],
  g: [6, () => GRAPH, "optional"],
  floats: [7, "float", "repeated"],
  ints: [8, "int64", "repeated"],
  strings: [9, "bytes", "repeated"],
};
const NODE: Table<NodeProto> = {
  input: [1, "string", "repeated"],
  output: [2, "string", "repeated"],
  name: [3, "string"],
  op_type: [4, "string"],
  domain: [7, "string"],
  overload: [8, "string"],
  attribute: [5, () => ATTRIBUTE_TABLE, "repeated"],
};
const SPARSE_TENSOR: Table<SparseTensorProto> = { values: [1, () => TENSOR, "optional"] };
const GRAPH: Table<GraphProto> = {
  node: [1, () => NODE, "repeated"],
  name: [2, "string"],
  initializer: [5, () => TENSOR, "repeated"],
  input: [11, () => VALUE_INFO, "repeated"],
  output: [12, () => VALUE_INFO, "repeated"],
  sparse_initializer: [15, () => SPARSE_TENSOR, "repeated"],
};
const OPERATOR_SET_ID: Table<OperatorSetIdProto> = {
  domain: [1, "string"],
  version: [2, "int64"],
};
const FUNCTION: Table<FunctionProto> = {
  name: [1, "string"],
  domain: [10, "string"],
  overload: [13, "string"],
  input: [4, "string", "repeated"],
  output: [5, "string", "repeated"],
  attribute: [6, "string", "repeated"],
  attribute_proto: [11, () => ATTRIBUTE_TABLE, "repeated"],
  node: [7, () => NODE, "repeated"],
  opset_import: [9, () => OPERATOR_SET_ID, "repeated"],
};
export const MODEL: Table<ModelProto> = {
  ir_version: [1, "int64"],
  opset_import: [8, () => OPERATOR_SET_ID, "repeated"],
  producer_name: [2, "string"],
  graph: [7, () => GRAPH, "optional"],
  functions: [25, () => FUNCTION, "repeated"],
};

/** Messages in one file: the largest networks have a hundred thousand or two. */
const MAX_MESSAGES = 1 << 19;
/** Messages within messages; a graph within a graph takes three. */
const MAX_DEPTH = 64;

const LISTS = {
  int32: Int32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  float: Float32Array,
  double: Float64Array,
} as const;
const WIRE = {
  int32: WireType.Varint,
  int64: WireType.Varint,
  uint64: WireType.Varint,
  float: WireType.Bit32,
  double: WireType.Bit64,
} as const;

/** What absent fields read as. */
const EMPTY = {
  int32: 0,
  int64: 0n,
  uint64: 0n,
  float: 0,
  double: 0,
  string: "",
  bytes: undefined,
} as const;

/** A table as decoding wants it: fields by number, and a message of which nothing was read. */
interface Layout {
  readonly byNumber: ReadonlyMap<number, { readonly name: string; readonly field: Field }>;
  readonly empty: Readonly<Record<string, unknown>>;
}

const layouts = new Map<AnyTable, Layout>();

function layoutOf(table: AnyTable): Layout {
  let layout = layouts.get(table);
  if (layout === undefined) {
    const byNumber = new Map<number, { name: string; field: Field }>();
    const empty: Record<string, unknown> = {};
    for (const [name, field] of Object.entries<Field>(table)) {
      const [number, kind, label] = field;
      byNumber.set(number, { name, field });
      if (label === "repeated") {
        empty[name] = typeof kind === "string" && kind in LISTS
          ? new LISTS[kind as keyof ListOf](0)
          : Object.freeze([]);
      } else {
        empty[name] = label === "optional" || typeof kind === "function" ? undefined : EMPTY[kind];
      }
    }
    layout = { byNumber, empty };
    layouts.set(table, layout);
  }
  return layout;
}

function readScalar(reader: BinaryReader, kind: keyof ListOf): number | bigint {
  switch (kind) {
    case "int32":
      return reader.int32();
    case "int64":
      return BigInt(reader.int64());
    case "uint64":
      return BigInt(reader.uint64());
    case "float":
      return reader.float();
    case "double":
      return reader.double();
  }
}

/** Elements in a packed list: known before one is read, so that memory is claimed once and only for what is there. */
function packedCount(bytes: Uint8Array, kind: keyof ListOf): number {
  if (kind === "float" || kind === "double") {
    const size = kind === "float" ? 4 : 8;
    if (bytes.length % size !== 0) throw new RangeError("a packed list ends within an element");
    return bytes.length / size;
  }
  let count = 0;
  for (let i = 0; i < bytes.length; i++) if (bytes[i]! < 0x80) count++;
  return count;
}

/** A list that grows as its field goes on. */
class Growing {
  #data: List;
  #length = 0;
  constructor(readonly kind: keyof ListOf) {
    this.#data = new LISTS[kind](0);
  }

  add(reader: BinaryReader, wireType: WireType): void {
    if (wireType === WIRE[this.kind]) {
      if (this.#length === this.#data.length) this.#reserve(Math.max(4, this.#length));
      this.#data[this.#length++] = readScalar(reader, this.kind);
      return;
    }
    const bytes = reader.bytes();
    const count = packedCount(bytes, this.kind);
    this.#reserve(count);
    if (this.kind === "float" || this.kind === "double") {
      const { buffer, byteOffset, BYTES_PER_ELEMENT } = this.#data;
      new Uint8Array(buffer, byteOffset + this.#length * BYTES_PER_ELEMENT).set(bytes);
      this.#length += count;
      return;
    }
    const packed = new BinaryReader(bytes);
    while (packed.pos < packed.len) {
      this.#data[this.#length++] = readScalar(packed, this.kind);
    }
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#data.length) return;
    const grown = new LISTS[this.kind](this.#length + count);
    (grown as Float32Array).set(this.#data.subarray(0, this.#length) as Float32Array);
    this.#data = grown;
  }

  finish(): List {
    return this.#length === this.#data.length
      ? this.#data
      : this.#data.subarray(0, this.#length) as List;
  }
}

class Decoder {
  #messages = 0;

  count(): void {
    if (++this.#messages > MAX_MESSAGES) {
      throw new RangeError(`it has more than ${MAX_MESSAGES} messages`);
    }
  }

  message(
    bytes: Uint8Array,
    table: AnyTable,
    depth: number,
    into?: Record<string, unknown>,
  ): Record<string, unknown> {
    this.count();
    if (depth > MAX_DEPTH) throw new RangeError(`its messages nest deeper than ${MAX_DEPTH}`);
    const { byNumber, empty } = layoutOf(table);
    const message = into ?? { ...empty };
    const lists = new Map<string, Growing>();
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const [number, wireType] = reader.tag();
      const known = byNumber.get(number);
      if (known === undefined) {
        reader.skip(wireType, number);
        continue;
      }
      const { name, field: [, kind, label] } = known;
      if (typeof kind === "string" && kind in LISTS) {
        const scalar = kind as keyof ListOf;
        const packed = label === "repeated" && wireType === WireType.LengthDelimited;
        if (wireType !== WIRE[scalar] && !packed) reader.skip(wireType, number);
        else if (label !== "repeated") message[name] = readScalar(reader, scalar);
        else {
          let list = lists.get(name);
          if (list === undefined) lists.set(name, list = new Growing(scalar));
          list.add(reader, wireType);
        }
        continue;
      }
      if (wireType !== WireType.LengthDelimited) {
        reader.skip(wireType, number);
        continue;
      }
      let value: unknown;
      if (kind === "string") value = reader.string();
      else if (kind === "bytes") {
        value = reader.bytes();
        this.count();
      } else {
        const before = label === "repeated" ? undefined : message[name];
        value = this.message(
          reader.bytes(),
          (kind as () => AnyTable)(),
          depth + 1,
          before as Record<string, unknown> | undefined,
        );
      }
      if (label !== "repeated") message[name] = value;
      else if (message[name] === empty[name]) message[name] = [value];
      else (message[name] as unknown[]).push(value);
    }
    for (const [name, list] of lists) message[name] = list.finish();
    return message;
  }
}

/**
 * The message that `bytes` hold; `bytes` fields are views into them. `what` names it in errors.
 * @throws {ModelError} where they are none, or one beyond the bounds above.
 */
export function decode<T>(bytes: Uint8Array, table: Table<T>, what: string): T {
  try {
    return new Decoder().message(bytes, table as AnyTable, 0) as T;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ModelError(
      `Cannot read ${what}: ${why}; it may be cut short, or be no ONNX file`,
      {},
      { cause },
    );
  }
}

/** A message as one may write it: absent fields are left out, lists and integers in whatever form is at hand. */
export type Written<T> = {
  readonly [K in keyof T]?: Exclude<T[K], undefined> extends BigInt64Array | BigUint64Array
    ? ArrayLike<number | bigint>
    : Exclude<T[K], undefined> extends Float32Array | Int32Array | Float64Array ? ArrayLike<number>
    : Exclude<T[K], undefined> extends bigint ? number | bigint
    : Exclude<T[K], undefined> extends Uint8Array ? Uint8Array
    : Exclude<T[K], undefined> extends readonly Uint8Array[] ? readonly Uint8Array[]
    : Exclude<T[K], undefined> extends readonly string[] ? readonly string[]
    : Exclude<T[K], undefined> extends readonly (infer M)[] ? readonly Written<M>[]
    : Exclude<T[K], undefined> extends object ? Written<Exclude<T[K], undefined>>
    : T[K];
};

function writeScalar(writer: BinaryWriter, kind: keyof ListOf, value: number | bigint): void {
  if (kind === "int64" || kind === "uint64") writer[kind](BigInt(value));
  else writer[kind](Number(value));
}

function write(
  writer: BinaryWriter,
  message: Readonly<Record<string, unknown>>,
  table: AnyTable,
) {
  for (const [name, [number, kind, label]] of Object.entries<Field>(table)) {
    const value = message[name];
    if (value === undefined) continue;
    if (typeof kind === "string" && kind in LISTS) {
      const scalar = kind as keyof ListOf;
      if (label === "repeated") {
        const list = value as ArrayLike<number | bigint>;
        if (list.length === 0) continue;
        writer.tag(number, WireType.LengthDelimited).fork();
        for (let i = 0; i < list.length; i++) writeScalar(writer, scalar, list[i]!);
        writer.join();
      } else {
        writeScalar(writer.tag(number, WIRE[scalar]), scalar, value as number | bigint);
      }
      continue;
    }
    for (const item of label === "repeated" ? value as readonly unknown[] : [value]) {
      writer.tag(number, WireType.LengthDelimited);
      if (kind === "string") writer.string(item as string);
      else if (kind === "bytes") writer.bytes(item as Uint8Array);
      else {
        writer.fork();
        write(writer, item as Record<string, unknown>, (kind as () => AnyTable)());
        writer.join();
      }
    }
  }
}

/** The bytes of a message. */
export function encode<T>(message: Written<T>, table: Table<T>): Uint8Array<ArrayBuffer> {
  const writer = new BinaryWriter();
  write(writer, message as Record<string, unknown>, table as AnyTable);
  return writer.finish();
}
