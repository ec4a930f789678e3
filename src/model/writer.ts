/** Models written node by node: the built-in ones, and those that tests run. */

import type { DataType, HostTensor } from "./host_tensor.ts";
import {
  ATTRIBUTE,
  type AttributeProto,
  ELEMENT,
  encode,
  MODEL,
  type ModelProto,
} from "./proto.ts";
import type { GraphProto, NodeProto, ValueInfoProto, Written } from "./proto.ts";
import { protoOfTensor } from "./tensor_proto.ts";

/** IR version of ONNX 1.16: every runtime of the last years reads it, and opsets up to 21. */
const IR_VERSION = 10;

/** A node's attribute; a whole number is an INT, else a FLOAT, unless `float` says so. */
export type WrittenAttribute =
  | number
  | string
  | HostTensor
  | readonly number[]
  | { readonly float: number };

function attributeProto(name: string, value: WrittenAttribute): Written<AttributeProto> {
  if (typeof value === "number") {
    return Number.isInteger(value)
      ? { name, type: ATTRIBUTE.INT, i: value }
      : { name, type: ATTRIBUTE.FLOAT, f: value };
  }
  if (typeof value === "string") {
    return { name, type: ATTRIBUTE.STRING, s: new TextEncoder().encode(value) };
  }
  if ("float" in value) return { name, type: ATTRIBUTE.FLOAT, f: value.float };
  if ("data" in value) return { name, type: ATTRIBUTE.TENSOR, t: protoOfTensor(value) };
  return { name, type: ATTRIBUTE.INTS, ints: value };
}

function valueInfo(
  name: string,
  type: DataType,
  shape: readonly (number | string)[],
): Written<ValueInfoProto> {
  const dim = shape.map((size) =>
    typeof size === "number" ? { dim_value: BigInt(size) } : { dim_param: size }
  );
  return { name, type: { tensor_type: { elem_type: ELEMENT[type], shape: { dim } } } };
}

/** Collects a graph and gives its bytes. Names of values are made from operators and numbers. */
export class ModelWriter {
  readonly #nodes: Written<NodeProto>[] = [];
  readonly #initializers: Written<GraphProto>["initializer"] & unknown[] = [];
  readonly #inputs: Written<ValueInfoProto>[] = [];
  readonly #outputs: Written<ValueInfoProto>[] = [];
  readonly #domains = new Map<string, number>();
  #values = 0;

  constructor(readonly name: string, opset: number) {
    this.#domains.set("", opset);
  }

  input(name: string, type: DataType, shape: readonly (number | string)[]): string {
    this.#inputs.push(valueInfo(name, type, shape));
    return name;
  }

  output(name: string, type: DataType, shape: readonly (number | string)[]): void {
    this.#outputs.push(valueInfo(name, type, shape));
  }

  /** An initialiser. */
  constant(tensor: HostTensor, name = `constant_${this.#values++}`): string {
    this.#initializers.push(protoOfTensor(tensor, name));
    return name;
  }

  /** Floats in f32. */
  floats(shape: readonly number[], data: ArrayLike<number>): string {
    return this.constant({ type: "float32", shape, data: Float32Array.from(data) });
  }

  /** A list of int64, as shapes and axes are; a scalar where `isScalar`. */
  integers(list: readonly number[], isScalar = false): string {
    return this.constant({
      type: "int64",
      shape: isScalar ? [] : [list.length],
      data: BigInt64Array.from(list, BigInt),
    });
  }

  /** A node with one output, whose name is made up unless given. */
  node(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, WrittenAttribute>> = {},
    output = `${op}_${this.#values++}`,
  ): string {
    this.nodes(op, inputs, attributes, [output]);
    return output;
  }

  /** A node with several outputs. */
  nodes(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, WrittenAttribute>>,
    outputs: readonly string[],
  ): void {
    this.#nodes.push({
      op_type: op,
      name: `${op}_${this.#nodes.length}`,
      input: inputs,
      output: outputs,
      attribute: Object.entries(attributes).map(([name, value]) => attributeProto(name, value)),
    });
  }

  /** The model as a file's bytes. */
  bytes(): Uint8Array<ArrayBuffer> {
    const model: Written<ModelProto> = {
      ir_version: IR_VERSION,
      producer_name: "WGSlide",
      opset_import: [...this.#domains].map(([domain, version]) => ({ domain, version })),
      graph: {
        name: this.name,
        node: this.#nodes,
        initializer: this.#initializers,
        input: this.#inputs,
        output: this.#outputs,
      },
    };
    return encode(model, MODEL);
  }
}
