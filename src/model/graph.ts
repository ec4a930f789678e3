/** A model's graph: nodes in order of computation, values by name (ONNX IR, «Graphs»). */

import type { DataType, HostTensor } from "./host_tensor.ts";

/** What a graph takes or gives: a dimension is a number, or a name where it is open, such as "batch". */
export interface ValueInfo {
  readonly name: string;
  readonly type: DataType;
  /** Undefined where the model does not even say the rank. */
  readonly shape: readonly (number | string)[] | undefined;
}

export type AttributeValue =
  | number
  | string
  | HostTensor
  | Graph
  | readonly number[]
  | readonly string[];

/** An application of an operator. */
export interface Node {
  /** Its name or, where it has none, its first output's: what errors call it. */
  readonly name: string;
  /** The operator, such as "Conv". */
  readonly op: string;
  /** "" is ONNX's own; "wgslide" what fusion makes. */
  readonly domain: string;
  /** The version of the domain's operator set, by which the operator is to be read. */
  readonly opset: number;
  /** Names of values; "" where an optional one is left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, AttributeValue>;
}

/** A weight that lies in a file beside the model's and is read when it is needed. */
export interface ExternalTensor {
  readonly type: DataType;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /**
   * Reads bytes of it, little-endian, row-major.
   * @throws {ModelError} where the file is missing or too short.
   */
  read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>>;
}

/** A value that is known before the model runs. */
export type Constant = HostTensor | ExternalTensor;

export function isExternal(constant: Constant): constant is ExternalTensor {
  return "read" in constant;
}

export interface Graph {
  readonly name: string;
  /** Those that a run is given; initialisers are not among them. */
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /** Each after those whose outputs it reads. */
  readonly nodes: readonly Node[];
  readonly constants: ReadonlyMap<string, Constant>;
}

/** Names that a node reads, those that the graphs within it take from around them among them. */
export function reads(node: Node): string[] {
  const names = node.inputs.filter((name) => name !== "");
  for (const value of node.attributes.values()) {
    if (typeof value !== "object" || !("nodes" in value)) continue;
    for (const name of captures(value)) names.push(name);
  }
  return names;
}

/** Names that a graph within a node takes from around it. */
function captures(graph: Graph): Set<string> {
  const own = new Set([...graph.inputs.map(({ name }) => name), ...graph.constants.keys()]);
  for (const { outputs } of graph.nodes) outputs.forEach((name) => own.add(name));
  const taken = new Set<string>();
  const take = (name: string) => own.has(name) || taken.add(name);
  for (const node of graph.nodes) reads(node).forEach(take);
  for (const { name } of graph.outputs) take(name);
  return taken;
}
