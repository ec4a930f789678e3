/** A graph while it is rewritten: who makes a value, who reads it, and what replaces what. */

import type { Constant, Graph, Node } from "./graph.ts";
import { isExternal, reads } from "./graph.ts";
import type { AttributeValue } from "./graph.ts";
import { elementCount, type HostTensor, numbersOf } from "./host_tensor.ts";

/**
 * A constant that keeps no file's bytes in memory: one that is a view of a small part of them is
 * copied. What was folded into others would stay there for its sake.
 */
function apart(constant: Constant): Constant {
  if (isExternal(constant)) return constant;
  const { data } = constant;
  return data.byteLength * 2 < data.buffer.byteLength
    ? { ...constant, data: data.slice() }
    : constant;
}

export class Rewriter {
  readonly graph: Graph;
  readonly constants: Map<string, Constant>;
  readonly #nodes: Set<Node>;
  readonly #producers = new Map<string, Node>();
  readonly #readers = new Map<string, Set<Node>>();
  readonly #outputs: ReadonlySet<string>;
  #made = 0;

  constructor(graph: Graph) {
    this.graph = graph;
    this.constants = new Map(graph.constants);
    this.#nodes = new Set();
    this.#outputs = new Set(graph.outputs.map(({ name }) => name));
    for (const node of graph.nodes) this.#link(node);
  }

  #link(node: Node): void {
    this.#nodes.add(node);
    for (const name of node.outputs) if (name !== "") this.#producers.set(name, node);
    for (const name of reads(node)) {
      let readers = this.#readers.get(name);
      if (readers === undefined) this.#readers.set(name, readers = new Set());
      readers.add(node);
    }
  }

  #unlink(node: Node): void {
    this.#nodes.delete(node);
    for (const name of node.outputs) {
      if (this.#producers.get(name) === node) this.#producers.delete(name);
    }
    for (const name of reads(node)) this.#readers.get(name)?.delete(node);
  }

  /** All nodes, as they are now: rewriting while going through them is allowed. */
  get nodes(): readonly Node[] {
    return [...this.#nodes];
  }

  has(node: Node): boolean {
    return this.#nodes.has(node);
  }

  producer(name: string | undefined): Node | undefined {
    return name === undefined ? undefined : this.#producers.get(name);
  }

  readers(name: string): readonly Node[] {
    return [...this.#readers.get(name) ?? []];
  }

  isOutput(name: string): boolean {
    return this.#outputs.has(name);
  }

  /**
   * The node that alone reads a value which is no output of the graph; undefined where there are
   * others, or where a graph within the node does.
   */
  onlyReader(name: string): Node | undefined {
    const readers = this.#readers.get(name);
    if (readers === undefined || readers.size !== 1 || this.#outputs.has(name)) return undefined;
    const [reader] = readers;
    // Once is meant: x · x reads x twice.
    return reader!.inputs.filter((input) => input === name).length === 1 ? reader : undefined;
  }

  /** A constant that is in memory. */
  constant(name: string | undefined): HostTensor | undefined {
    const constant = name === undefined ? undefined : this.constants.get(name);
    return constant === undefined || isExternal(constant) ? undefined : constant;
  }

  /** The only element of a constant. */
  scalar(name: string | undefined): number | undefined {
    const constant = this.constant(name);
    if (constant === undefined || elementCount(constant.shape) !== 1) return undefined;
    return Number(numbersOf(constant)[0]);
  }

  /** Adds a constant under a new name. */
  addConstant(tensor: HostTensor, like: string): string {
    const name = `${like}/wgslide_${this.#made++}`;
    this.constants.set(name, tensor);
    return name;
  }

  /** Puts a node in the place of others; those of their outputs that it does not make must have no readers left. */
  replace(olds: readonly Node[], node: Node): void {
    for (const old of olds) this.#unlink(old);
    this.#link(node);
  }

  /** A node like another with some things changed. */
  static like(
    node: Node,
    changes: Partial<Omit<Node, "attributes">> & {
      readonly attributes?: Readonly<Record<string, AttributeValue>>;
    },
  ): Node {
    const { attributes = {}, ...rest } = changes;
    return {
      ...node,
      ...rest,
      attributes: new Map([...node.attributes, ...Object.entries(attributes)]),
    };
  }

  /** The graph as it is now, sorted, without nodes and constants that nobody reads. */
  finish(): Graph {
    const sorted: Node[] = [];
    const done = new Set<Node>();
    const constants = new Map<string, Constant>();
    // Depth first from the outputs, by a list instead of recursion: graphs are thousands of nodes deep.
    const stack: { node: Node; names: readonly string[]; next: number }[] = [];
    const visit = (name: string) => {
      const constant = this.constants.get(name);
      if (constant !== undefined) constants.set(name, apart(constant));
      const node = this.#producers.get(name);
      if (node !== undefined && !done.has(node)) {
        done.add(node);
        stack.push({ node, names: reads(node), next: 0 });
      }
    };
    for (const { name } of this.graph.outputs) {
      visit(name);
      while (stack.length > 0) {
        const top = stack.at(-1)!;
        if (top.next < top.names.length) visit(top.names[top.next++]!);
        else {
          stack.pop();
          sorted.push(top.node);
        }
      }
    }
    return { ...this.graph, nodes: sorted, constants };
  }
}
