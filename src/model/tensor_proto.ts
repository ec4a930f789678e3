/** Tensors of a model's file: TensorProto to tensors of the host and back, and those in files beside it (ONNX IR, «External Tensor Data»). */

import { ModelError } from "../errors.ts";
import type { ExternalTensor } from "./graph.ts";
import {
  type DataType,
  elementCount,
  emptyData,
  type HostData,
  type HostTensor,
  numbersOf,
} from "./host_tensor.ts";
import { ELEMENT, type TensorProto, type Written } from "./proto.ts";

/** Bytes of an element in a file. */
const BYTES: Readonly<Record<DataType, number>> = {
  float32: 4,
  float16: 2,
  float64: 8,
  bfloat16: 2,
  int8: 1,
  uint8: 1,
  int16: 2,
  uint16: 2,
  int32: 4,
  uint32: 4,
  int64: 8,
  uint64: 8,
  bool: 1,
};
const NAMES = new Map(Object.entries(ELEMENT).map(([name, number]) => [number as number, name]));
/** No dimension of a tensor that fits a machine is larger. */
const MAX_DIMENSION = 2 ** 31 - 1;

/** A type of onnx.proto3, by name: one of ours, or what it is called where we do not hold it. */
export function elementType(
  number: number,
): { type: DataType } | { type: undefined; called: string } {
  const name = NAMES.get(number);
  if (name !== undefined && name in BYTES) return { type: name as DataType };
  return { type: undefined, called: name ?? `number ${number}` };
}

/** A tensor's shape. @throws {ModelError} where a dimension is none. */
function shapeOf({ dims }: TensorProto, what: string): number[] {
  if (dims.length > 64) throw new ModelError(`Cannot read ${what}: it has ${dims.length} axes`);
  return Array.from(dims, (d) => {
    if (d < 0n || d > MAX_DIMENSION) {
      throw new ModelError(`Cannot read ${what}: it claims a dimension of ${d}`);
    }
    return Number(d);
  });
}

/** f32 of bfloat16's bits. */
function widen(bits: ArrayLike<number>): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i]! << 16;
  return new Float32Array(wide.buffer);
}

/**
 * The tensor that little-endian, row-major bytes are; where they are aligned, a view of them.
 * @throws {ModelError} where they are not as many as the shape says.
 */
export function tensorOfBytes(
  type: DataType,
  shape: readonly number[],
  bytes: Uint8Array,
  what: string,
): HostTensor {
  const count = elementCount(shape);
  if (bytes.length !== count * BYTES[type]) {
    throw new ModelError(
      `Cannot read ${what}: [${shape.join(", ")}] of ${type} takes ${count * BYTES[type]} bytes, ` +
        `it has ${bytes.length}`,
    );
  }
  const { byteOffset } = bytes;
  const aligned = byteOffset % BYTES[type] === 0 ? bytes : bytes.slice();
  if (type === "bfloat16") {
    const bits = new Uint16Array(aligned.buffer, aligned.byteOffset, count);
    return { type, shape, data: widen(bits) };
  }
  if (type === "bool") return { type, shape, data: bytes.map((v) => v === 0 ? 0 : 1) };
  const { constructor } = emptyData(type, 0) as Float32Array;
  const List = constructor as { new (buffer: ArrayBufferLike, at: number, n: number): HostData };
  return { type, shape, data: new List(aligned.buffer, aligned.byteOffset, count) };
}

/** The list of the message that holds elements of `type`. Source: onnx.proto3, TensorProto. */
function listOf(proto: TensorProto, type: DataType) {
  switch (type) {
    case "float32":
      return proto.float_data;
    case "float64":
      return proto.double_data;
    case "int64":
      return proto.int64_data;
    case "uint32":
    case "uint64":
      return proto.uint64_data;
    default:
      return proto.int32_data;
  }
}

/**
 * The tensor of a message whose data are within it. `what` names it in errors.
 * @throws {ModelError} where its data are not what its shape says.
 */
export function tensorOfProto(proto: TensorProto, type: DataType, what: string): HostTensor {
  const shape = shapeOf(proto, what);
  if (proto.raw_data !== undefined) return tensorOfBytes(type, shape, proto.raw_data, what);
  const list = listOf(proto, type);
  const count = elementCount(shape);
  if (list.length !== count) {
    throw new ModelError(
      `Cannot read ${what}: [${shape.join(", ")}] has ${count} elements, its list ${list.length}`,
    );
  }
  let data: HostData;
  if (type === "float16") data = new Float16Array(Uint16Array.from(list as Int32Array).buffer);
  else if (type === "bfloat16") data = widen(list as Int32Array);
  else if (type === "bool") data = Uint8Array.from(list as Int32Array, (v) => v === 0 ? 0 : 1);
  else if (type === "uint32") data = Uint32Array.from(list as BigUint64Array, Number);
  else {
    data = emptyData(type, 0);
    if (data.constructor === list.constructor) data = list;
    else data = (data.constructor as typeof Int8Array).from(list as Int32Array);
  }
  return { type, shape, data };
}

/** A tensor as a message. */
export function protoOfTensor(tensor: HostTensor, name = ""): Written<TensorProto> {
  const { type, shape, data } = tensor;
  let held: ArrayBufferView = data;
  if (type === "bfloat16") {
    const wide = new Uint32Array(Float32Array.from(numbersOf(tensor)).buffer);
    held = Uint16Array.from(wide, (bits) => bits >>> 16);
  }
  return {
    dims: shape,
    data_type: ELEMENT[type],
    ...(name === "" ? {} : { name }),
    raw_data: new Uint8Array(held.buffer, held.byteOffset, held.byteLength),
  };
}

/**
 * The tensor of a message whose data lie in another file; read when they are asked for.
 * @throws {ModelError} where the file is not in the model's folder, is missing or is too short.
 */
export async function externalTensor(
  proto: TensorProto,
  type: DataType,
  folder: string | undefined,
  what: string,
): Promise<ExternalTensor> {
  const fail = (why: string, cause?: unknown) =>
    new ModelError(`Cannot read ${what}: ${why}`, {}, { cause });
  const entries = new Map(proto.external_data.map(({ key, value }) => [key, value]));
  const location = entries.get("location");
  if (location === undefined) throw fail("its file is not named");
  if (folder === undefined) {
    throw fail(`its data lie in "${location}" beside the model, which was given as bytes`);
  }
  const number = (key: string) => {
    const text = entries.get(key);
    if (text !== undefined && !/^\d{1,15}$/.test(text)) throw fail(`its ${key} is "${text}"`);
    return text === undefined ? undefined : Number(text);
  };
  const shape = shapeOf(proto, what);
  const byteLength = elementCount(shape) * BYTES[type];
  const offset = number("offset") ?? 0;
  const claimed = number("length") ?? byteLength;
  if (claimed !== byteLength) {
    throw fail(
      `[${shape.join(", ")}] of ${type} takes ${byteLength} bytes, ${claimed} are claimed`,
    );
  }
  let path: string, size: number;
  try {
    const root = await Deno.realPath(folder);
    path = await Deno.realPath(`${folder}/${location}`);
    const inside = path.startsWith(root.endsWith("/") ? root : `${root}/`);
    if (!inside || location.startsWith("/")) {
      throw fail(`"${location}" leaves the model's folder`);
    }
    const stat = await Deno.stat(path);
    if (!stat.isFile) throw fail(`"${location}" is no file`);
    size = stat.size;
  } catch (cause) {
    if (cause instanceof ModelError) throw cause;
    throw fail(`"${location}" cannot be opened in the model's folder`, cause);
  }
  if (offset + byteLength > size) {
    throw fail(
      `it ends at byte ${offset + byteLength} of "${location}", which has ${size}`,
    );
  }
  return {
    type,
    shape,
    byteLength,
    read: async (from, length) => {
      if (from < 0 || from + length > byteLength) {
        throw new RangeError(`Cannot read bytes ${from} to ${from + length} of ${byteLength}`);
      }
      const bytes = new Uint8Array(length);
      try {
        using file = await Deno.open(path);
        await file.seek(offset + from, Deno.SeekMode.Start);
        for (let at = 0; at < length;) {
          const n = await file.read(bytes.subarray(at));
          if (n === null) throw fail(`"${location}" ends early`);
          at += n;
        }
      } catch (cause) {
        if (cause instanceof ModelError) throw cause;
        throw fail(`"${location}" cannot be read`, cause);
      }
      return bytes;
    },
  };
}
