/** Operators put behind a model's output: what a sidecar says of it, computed with the rest. */

import type { AttributeValue, Graph, Node } from "./graph.ts";

/** Appends one operator behind an output, whose new name is given; the other outputs stay. */
export function appendToOutput(
  graph: Graph,
  output: string,
  op: string,
  attributes: Readonly<Record<string, AttributeValue>>,
): { graph: Graph; name: string } {
  const name = `${output}/${op}`;
  const node: Node = {
    name,
    op,
    domain: "",
    opset: 13,
    inputs: [output],
    outputs: [name],
    attributes: new Map(Object.entries(attributes)),
  };
  return {
    name,
    graph: {
      ...graph,
      nodes: [...graph.nodes, node],
      outputs: graph.outputs.map((each) =>
        each.name === output ? { ...each, name, shape: undefined } : each
      ),
    },
  };
}
