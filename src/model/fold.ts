/**
 * What of a graph is settled before it runs: constants computed, branches of a known condition
 * written in their node's place, copies and nodes that nobody reads left out, and the shape of
 * every value for given shapes of the inputs.
 */

import { ModelError, type ModelProblem } from "../errors.ts";
import {
  type AttributeValue,
  type Constant,
  type Graph,
  isExternal,
  type Node,
  reads,
} from "./graph.ts";
import { elementCount, type HostTensor } from "./host_tensor.ts";
import { type Input, NodeReader, type Operator, type Typed } from "./ops/operator.ts";
import { operatorOf, problemOf, unknownAttributes } from "./support.ts";

/** What computing constants may take, beyond a share of the model's own size. */
interface Budget {
  /** Each writes at most an element. */
  steps: number;
  /** Of what is computed. */
  bytes: number;
}

/** Half a second or so… */
const FOLDING_STEPS = 1 << 24;
/** …and the weights of any network that has them from ConstantOfShape. */
const FOLDING_BYTES = 640 * 2 ** 20;

/** A node with what is known of its inputs and outputs. */
export interface Step {
  readonly node: Node;
  readonly reader: NodeReader;
  readonly outputs: readonly Typed[];
}

/** A graph for concrete shapes. */
export interface Specialised {
  /** In order; those whose outputs are known before the run are not among them. */
  readonly steps: readonly Step[];
  /** Every value that is left by its name: inputs, constants that are read, and steps' outputs. */
  readonly values: ReadonlyMap<string, Input>;
  /** Constants that steps read or that are outputs. */
  readonly constants: ReadonlyMap<string, Constant>;
}

interface Settled {
  readonly nodes: readonly Node[];
  readonly constants: ReadonlyMap<string, Constant>;
  readonly values: ReadonlyMap<string, Input>;
  /** Of the nodes of which all inputs are known by type and shape. */
  readonly steps: ReadonlyMap<Node, Step>;
}

function isGraph(value: AttributeValue): value is Graph {
  return typeof value === "object" && "nodes" in value;
}

/** A node with each name that it reads replaced, in graphs within it as well. */
function renamed(node: Node, name: (of: string) => string): Node {
  const inputs = node.inputs.map(name);
  let attributes = node.attributes;
  if ([...attributes.values()].some(isGraph)) {
    attributes = new Map(
      [...attributes].map(([key, value]) => [key, isGraph(value) ? within(value, name) : value]),
    );
  }
  return { ...node, inputs, attributes };
}

/** Names are unique in a model, so that a graph's own are not among those replaced. */
function within(graph: Graph, name: (of: string) => string): Graph {
  return {
    ...graph,
    nodes: graph.nodes.map((node) => renamed(node, name)),
    outputs: graph.outputs.map((output) => ({ ...output, name: name(output.name) })),
  };
}

/** Whether a node's only output is its first input: Identity, or Dropout where nothing is trained. */
function isCopy(node: Node): boolean {
  if (node.domain !== "" || node.outputs.slice(1).some((name) => name !== "")) return false;
  if (node.op === "Identity") return true;
  return node.op === "Dropout" && (node.inputs[2] ?? "") === "";
}

/** What computing a node takes, at most. */
function cost(
  node: Node,
  operator: Operator,
  outputs: readonly Typed[],
  inputs: readonly Input[],
): Budget {
  const sizes = inputs.map(({ shape }) => elementCount(shape ?? []));
  const largest = sizes.reduce((a, b) => Math.max(a, b), 1);
  const given = outputs.reduce((sum, { shape }) => sum + elementCount(shape ?? [largest]), 0);
  // Filling is much faster than a step.
  const steps = node.op === "ConstantOfShape" ? given / 16 : given + largest;
  const bytes = outputs.some(({ type }) => /64$/.test(type)) ? 8 : 4;
  return { steps: operator.heavy ? given * largest : steps, bytes: bytes * given };
}

/**
 * Settles what can be. With `problems`, what is wrong with a node is noted there and the node is
 * left as it is; without, it is thrown.
 */
function settle(
  graph: Graph,
  given: ReadonlyMap<string, Typed>,
  left: Budget,
  problems?: ModelProblem[],
): Settled {
  const constants = new Map(graph.constants);
  const values = new Map<string, Input>();
  const know = (name: string, constant: Constant) => {
    const { type, shape } = constant;
    const known = isExternal(constant) ? undefined : constant;
    constants.set(name, constant);
    values.set(name, { type, shape, known });
  };
  for (const [name, constant] of constants) know(name, constant);
  for (const [name, typed] of given) values.set(name, { ...typed, known: undefined });
  const outputs = new Set(graph.outputs.map(({ name }) => name));
  const copies = new Map<string, string>();
  const source = (name: string) => copies.get(name) ?? name;
  const kept: Node[] = [];
  const known = new Map<Node, Step>();
  // A branch's nodes take its node's place, so that what waits is a stack.
  const waiting = graph.nodes.toReversed();
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const node = copies.size > 0 ? renamed(next, source) : next;
    if (isCopy(node) && !outputs.has(node.outputs[0]!)) {
      copies.set(node.outputs[0]!, node.inputs[0]!);
      continue;
    }
    if (node.op === "If" && node.domain === "") {
      const condition = values.get(node.inputs[0] ?? "")?.known;
      const taken = condition && node.attributes.get(
        condition.data[0] ? "then_branch" : "else_branch",
      );
      if (taken !== undefined && isGraph(taken)) {
        for (const [name, constant] of taken.constants) know(name, constant);
        waiting.push(...branchOutputs(node, taken).reverse());
        for (let i = taken.nodes.length - 1; i >= 0; i--) waiting.push(taken.nodes[i]!);
        continue;
      }
    }
    kept.push(node);
    const operator = operatorOf(node);
    if (operator === undefined || unknownAttributes(node, operator).length > 0) continue;
    if (node.inputs.some((name) => name !== "" && !values.has(name))) continue;
    const inputs = node.inputs.map((name) => name === "" ? undefined : values.get(name));
    const reader = new NodeReader(node, inputs);
    try {
      const typed = operator.infer(reader);
      node.outputs.forEach((name, i) => {
        if (name !== "") values.set(name, { ...typed[i]!, known: undefined });
      });
      known.set(node, { node, reader, outputs: typed });
      const ofShape = node.domain === "" && (node.op === "Shape" || node.op === "Size") &&
        reader.inputs[0]?.shape !== undefined;
      const all = inputs.filter((input) => input !== undefined);
      if (!ofShape && !all.every((input) => input.known !== undefined)) continue;
      const price = ofShape ? { steps: 1, bytes: 0 } : cost(node, operator, typed, all);
      if (!(price.steps <= left.steps && price.bytes <= left.bytes)) continue;
      left.steps -= price.steps;
      left.bytes -= price.bytes;
      const results = evaluateNode(operator, reader);
      node.outputs.forEach((name, i) => name !== "" && know(name, results[i]!));
      kept.pop();
    } catch (error) {
      const failure = asModelError(reader, error);
      if (problems === undefined) throw failure;
      problems.push(problemOf(node, failure));
    }
  }
  const nodes = living(kept, outputs);
  const read = new Set(outputs);
  for (const node of nodes) reads(node).forEach((name) => read.add(name));
  for (const name of constants.keys()) if (!read.has(name)) constants.delete(name);
  return { nodes, constants, values, steps: known };
}

/** The nodes that hand a branch's outputs on to those of its node. */
function branchOutputs(node: Node, branch: Graph): Node[] {
  return node.outputs.flatMap((name, i) => {
    const from = branch.outputs[i]?.name;
    if (name === "" || from === undefined) return [];
    return [{ ...node, op: "Identity", inputs: [from], outputs: [name], attributes: new Map() }];
  });
}

/** Nodes that an output depends on. */
function living(nodes: readonly Node[], outputs: ReadonlySet<string>): Node[] {
  const wanted = new Set(outputs);
  const alive: Node[] = [];
  for (const node of nodes.toReversed()) {
    if (!node.outputs.some((name) => wanted.has(name))) continue;
    alive.push(node);
    reads(node).forEach((name) => wanted.add(name));
  }
  return alive.reverse();
}

/**
 * A node's outputs on the host, all of its inputs known.
 * @throws {ModelError} where they cannot be computed.
 */
export function evaluateNode(operator: Operator, reader: NodeReader): readonly HostTensor[] {
  try {
    return operator.evaluate(reader, reader.inputs.map((input) => input?.known));
  } catch (cause) {
    throw asModelError(reader, cause);
  }
}

/** What an operator threw: a length that no array has, say, is the model's fault too. */
function asModelError(reader: NodeReader, cause: unknown): ModelError {
  if (cause instanceof ModelError) return cause;
  return reader.fail(cause instanceof Error ? cause.message : String(cause), cause);
}

function budget(fileBytes: number): Budget {
  return { steps: FOLDING_STEPS + 8 * fileBytes, bytes: FOLDING_BYTES + 8 * fileBytes };
}

/**
 * A graph without what its constants and fixed shapes settle. What is wrong with a node goes to
 * `problems`. `fileBytes` is the
 * model's length: a large one may have more to compute.
 */
export function foldConstants(graph: Graph, fileBytes: number, problems: ModelProblem[]): Graph {
  const given = new Map<string, Typed>();
  for (const { name, type, shape } of graph.inputs) {
    const fixed = shape?.filter((d) => typeof d === "number");
    if (shape !== undefined && fixed?.length === shape.length) {
      given.set(name, { type, shape: fixed });
    }
  }
  const { nodes, constants } = settle(graph, given, budget(fileBytes), problems);
  return { ...graph, nodes: withoutUnread(nodes, graph), constants };
}

/** Nodes without outputs at their end that nobody reads, such as a MaxPool's indices. */
function withoutUnread(nodes: readonly Node[], graph: Graph): Node[] {
  const read = new Set(graph.outputs.map(({ name }) => name));
  for (const node of nodes) reads(node).forEach((name) => read.add(name));
  return nodes.map((node) => {
    // How many parts a Split makes is how many outputs it has.
    if (node.op === "Split") return node;
    const last = node.outputs.findLastIndex((name) => read.has(name));
    return last === node.outputs.length - 1
      ? node
      : { ...node, outputs: node.outputs.slice(0, last + 1) };
  });
}

/** Checks shapes that a run is given against those that the model declares. */
function checkInputs(
  graph: Graph,
  shapes: Readonly<Record<string, readonly number[]>>,
): Map<string, Typed> {
  const sizes = new Map<string, number>();
  const given = new Map<string, Typed>();
  for (const { name, type, shape: declared } of graph.inputs) {
    const shape = shapes[name];
    if (shape === undefined) {
      throw new RangeError(`Cannot run the model: input "${name}" is missing`);
    }
    const shown = `[${shape.join(", ")}]`;
    const expected = `[${declared?.join(", ")}]`;
    const wrong = new RangeError(
      `Cannot run the model: input "${name}" has shape ${shown}, ${expected} is expected`,
    );
    if (shape.some((d) => !Number.isInteger(d) || d < 0)) throw wrong;
    if (declared !== undefined) {
      if (declared.length !== shape.length) throw wrong;
      declared.forEach((d, i) => {
        if (typeof d === "number" ? d !== shape[i] : (sizes.get(d) ?? shape[i]) !== shape[i]) {
          throw wrong;
        }
        if (typeof d === "string") sizes.set(d, shape[i]!);
      });
    }
    given.set(name, { type, shape });
  }
  return given;
}

/**
 * The graph for concrete shapes of its inputs: chains that compute shapes become constants, and
 * every value has its shape, but for those that depend on data.
 *
 * @throws {RangeError} where the shapes are not what the model declares.
 * @throws {ModelError} where they, or what is in the model, do not fit an operator, or an If's
 * condition depends on data.
 */
export function specialise(
  graph: Graph,
  shapes: Readonly<Record<string, readonly number[]>>,
): Specialised {
  const given = checkInputs(graph, shapes);
  const { nodes, constants, values, steps } = settle(graph, given, budget(0));
  const used = new Map<string, Input>();
  for (const { name } of graph.inputs) used.set(name, values.get(name)!);
  for (const name of constants.keys()) used.set(name, values.get(name)!);
  return {
    steps: nodes.map((node) => {
      const step = steps.get(node);
      if (step === undefined) {
        const reader = new NodeReader(node, []);
        throw reader.fail(
          node.op === "If" ? "its condition depends on data" : "its inputs cannot be told",
        );
      }
      for (const name of node.outputs) if (name !== "") used.set(name, values.get(name)!);
      return step;
    }),
    values: used,
    constants,
  };
}
