/** A model run node by node on the host, in f64: what the engine's plans are compared with. */

import { evaluateNode } from "../../src/model/fold.ts";
import { type Graph, isExternal } from "../../src/model/graph.ts";
import type { HostTensor } from "../../src/model/host_tensor.ts";
import { NodeReader } from "../../src/model/ops/operator.ts";
import { operatorName, operatorOf } from "../../src/model/support.ts";

/**
 * Outputs of a graph by name.
 * @throws {Error} where an operator's inferred types and shapes are not those of its value.
 */
export function runOnHost(
  graph: Graph,
  inputs: Readonly<Record<string, HostTensor>>,
): Record<string, HostTensor> {
  const values = new Map(Object.entries(inputs));
  for (const [name, constant] of graph.constants) {
    if (isExternal(constant)) throw new Error(`"${name}" lies in another file`);
    values.set(name, constant);
  }
  for (const node of graph.nodes) {
    const given = node.inputs.map((name) => {
      const known = values.get(name);
      if (name !== "" && known === undefined) throw new Error(`"${name}" has no value`);
      return known && { type: known.type, shape: known.shape, known };
    });
    const operator = operatorOf(node);
    if (operator === undefined) throw new Error(`${operatorName(node)} is not known`);
    const reader = new NodeReader(node, given);
    const typed = operator.infer(reader);
    evaluateNode(operator, reader).forEach((value, i) => {
      const { type, shape } = typed[i]!;
      const inferred = `${type} [${shape ?? value.shape}]`;
      const computed = `${value.type} [${value.shape}]`;
      if (inferred !== computed) {
        throw new Error(`"${node.name}": ${inferred} is inferred, ${computed} computed`);
      }
      if (node.outputs[i] !== "") values.set(node.outputs[i]!, value);
    });
  }
  return Object.fromEntries(graph.outputs.map(({ name }) => [name, values.get(name)!]));
}
