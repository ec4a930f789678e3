/** Models of a few nodes, as bytes. */

import type { DataType, HostTensor } from "../../src/model/host_tensor.ts";
import {
  ATTRIBUTE,
  type AttributeProto,
  ELEMENT,
  encode,
  type FunctionProto,
  type GraphProto,
  MODEL,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
  type Written,
} from "../../src/model/proto.ts";
import { protoOfTensor } from "../../src/model/tensor_proto.ts";

type Attribute = number | string | readonly number[] | HostTensor | Written<GraphProto>;

/** An attribute; integers are INT or INTS, other numbers FLOAT. */
export function attribute(name: string, value: Attribute): Written<AttributeProto> {
  if (typeof value === "number") {
    return Number.isInteger(value)
      ? { name, type: ATTRIBUTE.INT, i: value }
      : { name, type: ATTRIBUTE.FLOAT, f: value };
  }
  if (typeof value === "string") {
    return { name, type: ATTRIBUTE.STRING, s: new TextEncoder().encode(value) };
  }
  if ("data" in value) return { name, type: ATTRIBUTE.TENSOR, t: protoOfTensor(value) };
  if ("length" in value) return { name, type: ATTRIBUTE.INTS, ints: value };
  return { name, type: ATTRIBUTE.GRAPH, g: value };
}

/** A node; "a b" are two inputs, "a,,c" three of which the second is left out. */
export function node(
  op: string,
  inputs: string,
  outputs: string,
  attributes: Readonly<Record<string, Attribute>> = {},
  more: Written<NodeProto> = {},
): Written<NodeProto> {
  const names = (list: string) => list === "" ? [] : list.split(/[ ,]/);
  return {
    op_type: op,
    input: names(inputs),
    output: names(outputs),
    attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
    ...more,
  };
}

export function value(
  name: string,
  shape: readonly (number | string)[],
  type: DataType = "float32",
): Written<ValueInfoProto> {
  const dim = shape.map((d) => typeof d === "number" ? { dim_value: d } : { dim_param: d });
  return { name, type: { tensor_type: { elem_type: ELEMENT[type], shape: { dim } } } };
}

export interface ModelParts {
  readonly nodes: readonly Written<NodeProto>[];
  readonly inputs?: readonly Written<ValueInfoProto>[];
  readonly outputs: readonly Written<ValueInfoProto>[];
  readonly constants?: readonly Written<TensorProto>[];
  readonly functions?: readonly Written<FunctionProto>[];
  readonly opset?: number;
}

export function modelProto(parts: ModelParts): Written<ModelProto> {
  const { nodes, inputs = [], outputs, constants = [], functions = [], opset = 17 } = parts;
  return {
    ir_version: 8,
    opset_import: [{ domain: "", version: opset }],
    functions,
    graph: { name: "test", node: nodes, input: inputs, output: outputs, initializer: constants },
  };
}

export function modelBytes(parts: ModelParts): Uint8Array<ArrayBuffer> {
  return encode(modelProto(parts), MODEL);
}
