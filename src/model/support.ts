/** What of a graph cannot be run: every operator, attribute and type, each with its node. */

import { ModelError, type ModelProblem } from "../errors.ts";
import { type Graph, isExternal, type Node } from "./graph.ts";
import type { DataType } from "./host_tensor.ts";
import { type Input, NodeReader, type Operator } from "./ops/operator.ts";
import { operators } from "./ops/operators.ts";

/** Problems, and nodes of each, that a message names. */
const MAX_NAMED = 40;

/** The operator's name as the table has it and messages show it. */
export function operatorName({ domain, op }: Node): string {
  return domain === "" ? op : `${domain}.${op}`;
}

export function operatorOf(node: Node): Operator | undefined {
  return operators.get(operatorName(node));
}

/** Attributes of a node that its operator does not know. */
export function unknownAttributes(node: Node, operator: Operator): string[] {
  return [...node.attributes.keys()].filter((name) => !operator.attributes.has(name));
}

/** What an error about a node says of it, as a problem. */
export function problemOf(node: Node, error: ModelError): ModelProblem {
  const operator = operatorName(node);
  const named = `Cannot use node "${node.name}" (${operator}): `;
  const what = error.message.startsWith(named) ? error.message.slice(named.length) : error.message;
  return { node: node.name, operator, what };
}

/** Operators whose output's shape depends on their input's elements. */
const OPEN_SHAPE = new Set(["NonZero", "Unique", "Compress", "NonMaxSuppression"]);

/** Walks a graph in order; notes types of values and what cannot be run. */
class Checker {
  readonly types = new Map<string, DataType>();
  readonly problems: ModelProblem[] = [];
  readonly #known = new Map<string, Input>();
  /** Values that a run's data decide, and those of which they decide the shape. */
  readonly #data = new Set<string>();
  readonly #open = new Set<string>();

  graph(graph: Graph): void {
    for (const { name, type } of graph.inputs) {
      this.types.set(name, type);
      this.#data.add(name);
    }
    for (const [name, constant] of graph.constants) {
      const { type, shape } = constant;
      this.types.set(name, type);
      if (!isExternal(constant)) this.#known.set(name, { type, shape, known: constant });
    }
    for (const node of graph.nodes) this.#node(node);
  }

  #node(node: Node): void {
    const { op, domain, inputs, outputs } = node;
    const read = inputs.filter((name) => name !== "");
    const open = OPEN_SHAPE.has(op) || read.some((name) => this.#open.has(name));
    const ofShape = domain === "" && (op === "Shape" || op === "Size");
    const data = ofShape ? open : read.some((name) => this.#data.has(name));
    for (const name of outputs) {
      if (open && !ofShape) this.#open.add(name);
      if (data) this.#data.add(name);
    }
    if (domain === "" && op === "If") return this.#branches(node);
    const operator = operatorOf(node);
    const problem = (what: string) =>
      this.problems.push({ node: node.name, operator: operatorName(node), what });
    if (operator === undefined) {
      problem("");
      return;
    }
    for (const name of unknownAttributes(node, operator)) problem(`attribute "${name}"`);
    // Where an input's type is not known, what it comes from was refused already.
    if (read.some((name) => !this.types.has(name))) return;
    const given = inputs.map((name) => {
      if (name === "") return undefined;
      return this.#known.get(name) ??
        { type: this.types.get(name)!, shape: undefined, known: undefined };
    });
    try {
      operator.types(new NodeReader(node, given)).forEach((type, i) => {
        this.types.set(outputs[i]!, type);
      });
    } catch (error) {
      if (!(error instanceof ModelError)) throw error;
      this.problems.push(problemOf(node, error));
    }
  }

  /** An If is run where shapes settle its condition. */
  #branches(node: Node): void {
    const { name, inputs, outputs } = node;
    if (this.#data.has(inputs[0] ?? "")) {
      this.problems.push({ node: name, operator: "If", what: "its condition depends on data" });
    }
    for (const attribute of ["then_branch", "else_branch"]) {
      const branch = node.attributes.get(attribute);
      if (typeof branch !== "object" || !("nodes" in branch)) {
        this.problems.push({ node: name, operator: "If", what: `no attribute "${attribute}"` });
        continue;
      }
      this.graph(branch);
      branch.outputs.forEach((output, i) => {
        const [type, to] = [this.types.get(output.name), outputs[i]];
        if (type !== undefined && to !== undefined) this.types.set(to, type);
        if (to !== undefined && this.#open.has(output.name)) this.#open.add(to);
      });
    }
  }
}

/** Everything of a graph that no operator of ours runs. */
export function checkSupported(graph: Graph): ModelProblem[] {
  const checker = new Checker();
  checker.graph(graph);
  return checker.problems;
}

/** Types of a graph's values, as far as they can be told. */
export function inferTypes(graph: Graph): ReadonlyMap<string, DataType> {
  const checker = new Checker();
  checker.graph(graph);
  return checker.types;
}

/** The error that names all problems at once, a line for each with its nodes. */
export function refusal(problems: readonly ModelProblem[]): ModelError {
  const groups = new Map<string, Set<string>>();
  for (const { node, operator, what } of problems) {
    const subject = operator === "" ? "" : `operator "${operator}"`;
    const line = [subject, what].filter((s) => s !== "").join(": ");
    const nodes = groups.get(line) ?? new Set();
    groups.set(line, nodes.add(node));
  }
  const more = (count: number) => count > MAX_NAMED ? ` and ${count - MAX_NAMED} more` : "";
  const lines = [...groups].slice(0, MAX_NAMED).map(([line, nodes]) => {
    const named = [...nodes].slice(0, MAX_NAMED).map((n) => `"${n}"`).join(", ");
    return `  ${line} (${nodes.size === 1 ? "node" : "nodes"} ${named}${more(nodes.size)})`;
  });
  const rest = more(groups.size);
  return new ModelError(
    `Cannot run the model, of which this is not supported:\n${lines.join("\n")}${
      rest && `\n ${rest}`
    }`,
    { ...problems[0], problems },
  );
}
