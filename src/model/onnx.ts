/**
 * A model's file to a graph: weights found, functions and settled branches inlined, constants
 * folded, nodes sorted, and everything that cannot be run named at once.
 *
 * Source: onnx/onnx `docs/IR.md`.
 */

import { dirname } from "node:path";
import { ModelError, type ModelProblem } from "../errors.ts";
import { foldConstants } from "./fold.ts";
import type { AttributeValue, Constant, Graph, Node, ValueInfo } from "./graph.ts";
import { reads } from "./graph.ts";
import { type DataType, type HostTensor, tensorOf } from "./host_tensor.ts";
import {
  ATTRIBUTE,
  type AttributeProto,
  decode,
  type FunctionProto,
  type GraphProto,
  MODEL,
  type ModelProto,
  type NodeProto,
  type OperatorSetIdProto,
  type TensorProto,
  type ValueInfoProto,
} from "./proto.ts";
import { checkSupported, inferTypes, refusal } from "./support.ts";
import { elementType, externalTensor, tensorOfBytes, tensorOfProto } from "./tensor_proto.ts";

export interface ReadOptions {
  /** Where files beside the model lie; a path's own folder where that is not said. */
  readonly folder?: string;
  /** What else the caller cannot run: it is reported with the rest. */
  readonly check?: (graph: Graph) => readonly ModelProblem[];
}

/** Versions of ONNX's operator set that are read. What was otherwise before 6 has attributes or inputs that are refused. */
const OLDEST_OPSET = 1;
const NEWEST_OPSET = 25;
/** Nodes once functions are inlined, which a small file could make many. */
const MAX_NODES = 1 << 18;
/** Functions within functions, and graphs within graphs. */
const MAX_DEPTH = 32;
/** A file of protobuf is at most this long: larger models keep their weights beside it. */
const MAX_FILE_BYTES = 2 ** 31;
/** External tensors up to this size are read at once, since shapes may depend on them… */
const EAGER_BYTES = 1 << 16;
/** …as long as they are not more than this together. */
const MAX_EAGER_BYTES = 1 << 26;

/** Where a name is looked up: a graph within the one around it, or a function by itself. */
class Scope {
  /** Names of the file → names of the graph. */
  readonly names = new Map<string, string>();
  constructor(
    readonly opsets: ReadonlyMap<string, number>,
    readonly outer: Scope | undefined,
    /** What a function was called with, to which its nodes' attributes may refer. */
    readonly attributes: ReadonlyMap<string, AttributeProto>,
    readonly depth: number,
  ) {}

  resolve(name: string): string | undefined {
    return this.names.get(name) ?? this.outer?.resolve(name);
  }
}

/** A graph in the making. */
interface Body {
  readonly nodes: Node[];
  readonly constants: Map<string, Constant>;
}

function domainOf(domain: string): string {
  return domain === "ai.onnx" ? "" : domain;
}

function opsetsOf(imports: readonly OperatorSetIdProto[]): Map<string, number> {
  return new Map(imports.map(({ domain, version }) => [domainOf(domain), Number(version)]));
}

function functionKey(domain: string, name: string, overload: string): string {
  return `${domainOf(domain)}:${name}:${overload}`;
}

class Converter {
  readonly problems: ModelProblem[] = [];
  readonly #functions = new Map<string, FunctionProto>();
  readonly #used = new Set<string>();
  readonly #counters = new Map<string, number>();
  /** A function's tensors are converted once, however often it is called. */
  readonly #tensors = new Map<TensorProto, HostTensor | undefined>();
  readonly #calling = new Set<FunctionProto>();
  /** What external tensors become, once the graph is there. */
  readonly #external: {
    body: Body;
    name: string;
    proto: TensorProto;
    type: DataType;
    what: string;
  }[] = [];
  #nodes = 0;
  readonly #text = new TextDecoder();

  constructor(model: ModelProto) {
    for (const f of model.functions) {
      const key = functionKey(f.domain, f.name, f.overload);
      if (this.#functions.has(key)) {
        throw new ModelError(`Cannot read the model: function "${f.name}" is defined twice`);
      }
      this.#functions.set(key, f);
    }
  }

  /** A name of the graph for one of the file, which another scope may have used. */
  #fresh(name: string): string {
    let fresh = name;
    while (this.#used.has(fresh)) {
      const n = (this.#counters.get(name) ?? 1) + 1;
      this.#counters.set(name, n);
      fresh = `${name}~${n}`;
    }
    this.#used.add(fresh);
    return fresh;
  }

  #define(scope: Scope, name: string): string {
    if (scope.names.has(name)) {
      throw new ModelError(`Cannot read the model: value "${name}" is given twice`);
    }
    const fresh = this.#fresh(name);
    scope.names.set(name, fresh);
    return fresh;
  }

  #problem(node: string, operator: string, what: string): void {
    this.problems.push({ node, operator, what });
  }

  graph(proto: GraphProto, scope: Scope): Graph {
    if (scope.depth > MAX_DEPTH) {
      throw new ModelError(`Cannot read the model: graphs nest deeper than ${MAX_DEPTH}`);
    }
    const body: Body = { nodes: [], constants: new Map() };
    for (const { values } of proto.sparse_initializer) {
      this.#problem(values?.name ?? "", "", "a sparse initialiser");
    }
    const initialised = new Map<string, TensorProto>();
    for (const tensor of proto.initializer) {
      if (initialised.has(tensor.name)) {
        throw new ModelError(`Cannot read the model: initialiser "${tensor.name}" is given twice`);
      }
      initialised.set(tensor.name, tensor);
    }
    // An input that has an initialiser has a default, by which we go.
    const given = proto.input.filter(({ name }) => !initialised.has(name));
    for (const { name } of given) this.#define(scope, name);
    for (const name of initialised.keys()) this.#define(scope, name);
    for (const node of proto.node) {
      for (const name of node.output) if (name !== "") this.#define(scope, name);
    }
    const inputs = given.map((info) => this.#valueInfo(info, scope, "input"));
    for (const [name, tensor] of initialised) {
      this.#constant(body, scope.resolve(name)!, tensor, `initialiser "${name}"`);
    }
    for (const node of proto.node) this.#node(node, scope, body, "");
    const outputs = proto.output.map((info) => this.#valueInfo(info, scope, "output"));
    return { name: proto.name, inputs, outputs, ...body };
  }

  #valueInfo({ name, type }: ValueInfoProto, scope: Scope, kind: string): ValueInfo {
    const resolved = scope.resolve(name);
    if (resolved === undefined) {
      throw new ModelError(`Cannot read the model: output "${name}" is given by no node`);
    }
    // An output's type follows from its node's; so does that of a branch's input.
    const tensor = type?.tensor_type;
    const element = elementType(tensor?.elem_type ?? 0);
    if (element.type === undefined && kind === "input" && scope.depth === 0) {
      const called = tensor === undefined ? "no tensor" : `of type ${element.called}`;
      this.#problem(name, "", `the model's input "${name}", which is ${called}`);
    }
    return {
      name: resolved,
      type: element.type ?? "float32",
      shape: tensor?.shape?.dim.map(({ dim_value, dim_param }, axis) => {
        if (dim_value !== undefined && dim_value >= 0n) return Number(dim_value);
        return dim_param || `${name}.${axis}`;
      }),
    };
  }

  /** Converts a tensor of the file once; undefined, and a problem, where its type is not held. */
  #tensor(
    proto: TensorProto,
    node: string,
    operator: string,
    what: string,
  ): HostTensor | undefined {
    if (this.#tensors.has(proto)) return this.#tensors.get(proto);
    const element = elementType(proto.data_type);
    let tensor: HostTensor | undefined;
    if (element.type === undefined) this.#problem(node, operator, `${what} of ${element.called}`);
    else if (proto.data_location === 1) this.#problem(node, operator, `${what} in another file`);
    else tensor = tensorOfProto(proto, element.type, what);
    this.#tensors.set(proto, tensor);
    return tensor;
  }

  #constant(body: Body, name: string, proto: TensorProto, what: string): void {
    const element = elementType(proto.data_type);
    if (proto.data_location === 1 && element.type !== undefined) {
      this.#external.push({ body, name, proto, type: element.type, what });
    } else {
      const tensor = this.#tensor(proto, name, "", what);
      if (tensor !== undefined) body.constants.set(name, tensor);
      // Refused in the end; until then it is something.
      else body.constants.set(name, { type: "float32", shape: [0], data: new Float32Array(0) });
    }
  }

  #node(proto: NodeProto, scope: Scope, body: Body, caller: string): void {
    if (++this.#nodes > MAX_NODES) {
      throw new ModelError(`Cannot read the model: it has more than ${MAX_NODES} nodes`);
    }
    const domain = domainOf(proto.domain);
    const operator = domain === "" ? proto.op_type : `${domain}.${proto.op_type}`;
    const outputs = proto.output.map((name) => name === "" ? "" : scope.resolve(name)!);
    const name = caller + (proto.name || proto.output.find((o) => o !== "") || proto.op_type);
    const inputs = proto.input.map((input) => {
      if (input === "") return "";
      const resolved = scope.resolve(input);
      if (resolved === undefined) {
        throw new ModelError(
          `Cannot read the model: node "${name}" (${operator}) reads "${input}", which nothing gives`,
          { node: name, operator },
        );
      }
      return resolved;
    });
    // A reference is what the function was called with, or nothing where it was called without.
    const attributes: AttributeProto[] = [];
    const seen = new Set<string>();
    for (const attribute of proto.attribute) {
      if (seen.has(attribute.name)) {
        throw new ModelError(
          `Cannot read the model: node "${name}" (${operator}) has attribute "${attribute.name}" twice`,
          { node: name, operator },
        );
      }
      seen.add(attribute.name);
      if (attribute.ref_attr_name === "") attributes.push(attribute);
      else {
        const referred = scope.attributes.get(attribute.ref_attr_name);
        if (referred !== undefined) attributes.push({ ...referred, name: attribute.name });
      }
    }
    const called = this.#functions.get(functionKey(domain, proto.op_type, proto.overload));
    if (called !== undefined) {
      this.#call(called, { name, inputs, outputs, attributes }, scope, body);
      return;
    }
    const values = new Map<string, AttributeValue>();
    for (const attribute of attributes) {
      const value = this.#attribute(attribute, name, operator, scope);
      if (value !== undefined) values.set(attribute.name, value);
    }
    if (domain === "" && proto.op_type === "Constant") {
      const constant = constantOf(attributes, values);
      if (constant !== undefined) {
        if (outputs[0]) body.constants.set(outputs[0], constant);
        return;
      }
    }
    const opset = scope.opsets.get(domain);
    if (opset === undefined && domain === "") {
      throw new ModelError(
        "Cannot read the model: it does not say its version of ONNX's operators",
      );
    }
    body.nodes.push({
      name,
      op: proto.op_type,
      domain,
      opset: opset ?? 1,
      inputs: withoutTrailing(inputs),
      outputs: withoutTrailing(outputs),
      attributes: values,
    });
  }

  /** Writes a function's nodes in place of a call of it. */
  #call(
    f: FunctionProto,
    call: {
      name: string;
      inputs: readonly string[];
      outputs: readonly string[];
      attributes: readonly AttributeProto[];
    },
    caller: Scope,
    body: Body,
  ): void {
    const operator = f.domain === "" ? f.name : `${f.domain}.${f.name}`;
    const fail = (why: string) =>
      new ModelError(`Cannot read the model: function "${f.name}" ${why}`, {
        node: call.name,
        operator,
      });
    if (this.#calling.has(f)) throw fail("calls itself");
    if (this.#calling.size >= MAX_DEPTH) throw fail(`is ${MAX_DEPTH} calls deep`);
    const attributes = new Map<string, AttributeProto>();
    for (const byDefault of f.attribute_proto) attributes.set(byDefault.name, byDefault);
    for (const attribute of call.attributes) attributes.set(attribute.name, attribute);
    const opsets = f.opset_import.length > 0 ? opsetsOf(f.opset_import) : caller.opsets;
    const scope = new Scope(opsets, undefined, attributes, caller.depth + 1);
    f.input.forEach((formal, i) => {
      if (scope.names.has(formal)) throw fail(`takes "${formal}" twice`);
      scope.names.set(formal, call.inputs[i] ?? "");
    });
    const given = new Map<string, string>();
    f.output.forEach((formal, i) => {
      const actual = call.outputs[i];
      if (actual !== undefined && actual !== "" && !given.has(formal)) given.set(formal, actual);
    });
    for (const node of f.node) {
      for (const name of node.output) {
        const actual = given.get(name);
        if (actual === undefined || name === "") {
          if (name !== "") {
            if (scope.names.has(name)) throw fail(`gives "${name}" twice`);
            scope.names.set(name, this.#fresh(`${call.name}/${name}`));
          }
        } else {
          if (scope.names.has(name)) throw fail(`gives "${name}" twice`);
          scope.names.set(name, actual);
        }
      }
    }
    this.#calling.add(f);
    for (const node of f.node) this.#node(node, scope, body, `${call.name}/`);
    this.#calling.delete(f);
    // An output that is an input, or another output, of the function.
    f.output.forEach((formal, i) => {
      const actual = call.outputs[i] ?? "";
      const source = scope.names.get(formal);
      if (actual === "" || source === actual) return;
      if (source === undefined || source === "") throw fail(`does not give "${formal}"`);
      body.nodes.push({
        name: `${call.name}/${formal}`,
        op: "Identity",
        domain: "",
        opset: NEWEST_OPSET,
        inputs: [source],
        outputs: [actual],
        attributes: new Map(),
      });
    });
  }

  #attribute(
    a: AttributeProto,
    node: string,
    operator: string,
    scope: Scope,
  ): AttributeValue | undefined {
    switch (a.type) {
      case ATTRIBUTE.FLOAT:
        return a.f;
      case ATTRIBUTE.INT:
        return Number(a.i);
      case ATTRIBUTE.STRING:
        return this.#text.decode(a.s);
      case ATTRIBUTE.FLOATS:
        return Array.from(a.floats);
      case ATTRIBUTE.INTS:
        return Array.from(a.ints, Number);
      case ATTRIBUTE.STRINGS:
        return a.strings.map((s) => this.#text.decode(s));
      case ATTRIBUTE.TENSOR:
        if (a.t !== undefined) {
          return this.#tensor(a.t, node, operator, `attribute "${a.name}" of node "${node}"`);
        }
        break;
      case ATTRIBUTE.GRAPH:
        if (a.g !== undefined) {
          const inner = new Scope(scope.opsets, scope, scope.attributes, scope.depth + 1);
          return this.graph(a.g, inner);
        }
        break;
    }
    const kind = Object.entries(ATTRIBUTE).find(([, number]) => number === a.type)?.[0];
    this.#problem(node, operator, `attribute "${a.name}" of kind ${kind ?? a.type}`);
    return undefined;
  }

  /** Opens the files beside the model. */
  async external(folder: string | undefined): Promise<void> {
    let eager = 0;
    for (const { body, name, proto, type, what } of this.#external) {
      const tensor = await externalTensor(proto, type, folder, what);
      const { shape, byteLength } = tensor;
      if (byteLength <= EAGER_BYTES && (eager += byteLength) <= MAX_EAGER_BYTES) {
        const bytes = await tensor.read(0, byteLength);
        body.constants.set(name, tensorOfBytes(type, shape, bytes, what));
      } else body.constants.set(name, tensor);
    }
  }
}

/** Names without those at the end that are left out: some exporters write them. */
function withoutTrailing(names: readonly string[]): readonly string[] {
  return names.slice(0, names.findLastIndex((name) => name !== "") + 1);
}

/** The value of a Constant node; undefined where its form is not held. Source: ONNX Constant-13. */
function constantOf(
  attributes: readonly AttributeProto[],
  values: ReadonlyMap<string, AttributeValue>,
): HostTensor | undefined {
  for (const a of attributes) {
    switch (a.name) {
      case "value":
        return values.get("value") as HostTensor | undefined;
      case "value_float":
        return tensorOf("float32", [], [a.f]);
      case "value_floats":
        return { type: "float32", shape: [a.floats.length], data: a.floats };
      case "value_int":
        return { type: "int64", shape: [], data: BigInt64Array.of(a.i) };
      case "value_ints":
        return { type: "int64", shape: [a.ints.length], data: a.ints };
    }
  }
  return undefined;
}

/**
 * The nodes, each after those whose outputs it reads; in the file's order where that is one.
 * @throws {ModelError} where nodes wait for each other.
 */
function sorted(nodes: readonly Node[]): Node[] {
  const producer = new Map<string, number>();
  nodes.forEach(({ outputs }, i) => outputs.forEach((name) => producer.set(name, i)));
  const before = nodes.map((node) => {
    const found = reads(node).map((name) => producer.get(name));
    return found.filter((i) => i !== undefined);
  });
  const state = new Uint8Array(nodes.length); // 1: waiting for what it reads, 2: placed
  const order: Node[] = [];
  for (let first = 0; first < nodes.length; first++) {
    const path: { node: number; next: number }[] = [];
    const enter = (node: number) => {
      if (state[node] === 2) return;
      if (state[node] === 1) {
        const { name, op } = nodes[node]!;
        throw new ModelError(
          `Cannot read the model: node "${name}" (${op}) waits for its own output`,
          { node: name, operator: op },
        );
      }
      state[node] = 1;
      path.push({ node, next: 0 });
    };
    enter(first);
    while (path.length > 0) {
      const top = path.at(-1)!;
      const waits = before[top.node]!;
      if (top.next < waits.length) enter(waits[top.next++]!);
      else {
        state[top.node] = 2;
        order.push(nodes[top.node]!);
        path.pop();
      }
    }
  }
  return order;
}

/** Sorts a graph and those within it. */
function sortGraph(graph: Graph): Graph {
  const nodes = graph.nodes.map((node) => {
    if (![...node.attributes.values()].some(isGraph)) return node;
    const attributes = new Map(
      [...node.attributes].map(([name, v]) => [name, isGraph(v) ? sortGraph(v) : v]),
    );
    return { ...node, attributes };
  });
  return { ...graph, nodes: sorted(nodes) };
}

function isGraph(value: AttributeValue): value is Graph {
  return typeof value === "object" && "nodes" in value;
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    const { size } = await Deno.stat(path);
    if (size > MAX_FILE_BYTES) {
      throw new RangeError(`it has ${size} bytes, more than protobuf's 2 GiB`);
    }
    return await Deno.readFile(path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ModelError(`Cannot read the model "${path}": ${why}`, {}, { cause });
  }
}

/**
 * Reads a model from its bytes or its path. Its constants are views into the bytes where they are
 * aligned, so that the bytes must not change.
 *
 * @throws {ModelError} where the file is broken, or asks for what is not supported: then with every
 * operator, attribute and type that is not, each with its node.
 */
export async function readModel(
  source: Uint8Array | string,
  options: ReadOptions = {},
): Promise<Graph> {
  try {
    return await read(source, options);
  } catch (cause) {
    if (cause instanceof ModelError) throw cause;
    // What a hostile file provokes: a list too long for a call, an array too long for memory.
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ModelError(`Cannot read the model: ${why}`, {}, { cause });
  }
}

async function read(source: Uint8Array | string, options: ReadOptions): Promise<Graph> {
  const path = typeof source === "string" ? source : undefined;
  const bytes = typeof source === "string" ? await readBytes(source) : source;
  const file = path === undefined ? "the model" : `the model "${path}"`;
  const model = decode(bytes, MODEL, file);
  if (model.graph === undefined) {
    throw new ModelError(`Cannot read ${file}: it has no graph, so that it is no ONNX model`);
  }
  const opsets = opsetsOf(model.opset_import);
  const version = opsets.get("");
  if (version !== undefined && !(version >= OLDEST_OPSET && version <= NEWEST_OPSET)) {
    const what = `version ${version} of ONNX's operators; ${OLDEST_OPSET} to ${NEWEST_OPSET} are`;
    throw refusal([{ node: model.graph.name, operator: "", what }]);
  }
  const converter = new Converter(model);
  const scope = new Scope(opsets, undefined, new Map(), 0);
  const converted = converter.graph(model.graph, scope);
  if (converted.outputs.length === 0) {
    throw new ModelError("Cannot read the model: it has no outputs");
  }
  await converter.external(options.folder ?? (path === undefined ? undefined : dirname(path)));
  const { problems } = converter;
  const graph = foldConstants(sortGraph(converted), bytes.length, problems);
  problems.push(...checkSupported(graph), ...options.check?.(graph) ?? []);
  if (problems.length > 0) throw refusal(problems);
  const types = inferTypes(graph);
  return {
    ...graph,
    outputs: graph.outputs.map((o) => ({ ...o, type: types.get(o.name) ?? o.type })),
  };
}
