/** A model run node by node on the host, in f64: what the engine's plans are compared with. */

import { evaluateNode } from "../../src/model/fold.ts";
import { type Graph, isExternal } from "../../src/model/graph.ts";
import { type HostTensor, numbersOf } from "../../src/model/host_tensor.ts";
import { NodeReader } from "../../src/model/ops/operator.ts";
import { operatorName, operatorOf } from "../../src/model/support.ts";

/** Tolerances of ONNX's own runner. */
const RELATIVE = 1e-3;
const ABSOLUTE = 1e-7;
/** Neighbours of a bfloat16 are this far apart, and cases of ONNX 1.12 and before cut instead of rounding. */
const RELATIVE_BFLOAT16 = 2 ** -7;

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

/** What is wrong with a result by ONNX's tolerances; undefined where nothing is. */
export function difference(got: HostTensor | undefined, expected: HostTensor): string | undefined {
  if (got === undefined) return "no output";
  const [a, b] = [got, expected].map((t) => `${t.type} [${t.shape.join(", ")}]`);
  if (a !== b) return `${a}, expected ${b}`;
  const x = numbersOf(got);
  const y = numbersOf(expected);
  const relative = got.type === "bfloat16" ? RELATIVE_BFLOAT16 : RELATIVE;
  let worst = -1;
  let excess = 0;
  for (let i = 0; i < y.length; i++) {
    if (x[i] === y[i] || (Number.isNaN(x[i]) && Number.isNaN(y[i]))) continue;
    const over = Math.abs(x[i]! - y[i]!) / (ABSOLUTE + relative * Math.abs(y[i]!));
    if (!(over <= 1) && !(over <= excess)) [worst, excess] = [i, over];
  }
  return worst < 0 ? undefined : `element ${worst} is ${x[worst]}, expected ${y[worst]}`;
}
