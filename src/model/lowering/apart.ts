/** Fused nodes taken apart again where the shapes do not allow what the names did. */

import { activationOfNode } from "../fuse.ts";
import type { Node } from "../graph.ts";
import { NodeReader } from "../ops/operator.ts";
import type { Lowering, PlanBuilder, ShapedNode } from "../plan.ts";
import { elementwise } from "./elementwise.ts";

/**
 * A sum with a residual that has to be broadcast, or to which it has: the sum by itself, then the
 * addition, then the activation.
 * @param shape the sum's own.
 * @param lower what computes the sum where it has no residual.
 */
export function addedApart(
  builder: PlanBuilder,
  { reader, outputs }: ShapedNode,
  shape: readonly number[],
  lower: Lowering,
): boolean {
  const { node, inputs } = reader;
  const typed = outputs[0]!;
  const [sum, total] = [`${node.name}/sum`, `${node.name}/total`];
  const bare: Node = {
    ...node,
    inputs: node.inputs.slice(0, 3),
    outputs: [sum],
    attributes: new Map([...node.attributes].filter(([name]) => !name.startsWith("activation"))),
  };
  if (!lower(builder, { reader: new NodeReader(bare, inputs), outputs: [{ ...typed, shape }] })) {
    return false;
  }
  const activation: Node = {
    ...node,
    op: "Activation",
    domain: "wgslide",
    inputs: [total],
    attributes: node.attributes,
  };
  const isActive = node.attributes.has("activation") &&
    activationOfNode(activation, () => undefined) !== undefined;
  const add: Node = {
    ...node,
    op: "Add",
    domain: "",
    inputs: [sum, node.inputs[3]!],
    outputs: [isActive ? total : node.outputs[0]!],
    attributes: new Map(),
  };
  const known = undefined;
  const added = new NodeReader(add, [{ type: typed.type, shape, known }, inputs[3]]);
  if (!elementwise.Add!(builder, { reader: added, outputs })) return false;
  if (!isActive) return true;
  const active = new NodeReader(activation, [{ ...typed, known }]);
  return elementwise["wgslide.Activation"]!(builder, { reader: active, outputs });
}
