/** What a model is made of and what it costs: parameters, arithmetic, memory. */

import { specialise, type Step } from "./fold.ts";
import type { Graph } from "./graph.ts";
import { elementCount } from "./host_tensor.ts";
import { operatorName } from "./support.ts";

/** Elements of a model's floating-point constants of more than one element: what was trained. */
export function parameterCount({ constants }: Graph): number {
  let count = 0;
  for (const { type, shape } of constants.values()) {
    const elements = elementCount(shape);
    if (elements > 1 && (type.startsWith("float") || type === "bfloat16")) count += elements;
  }
  return count;
}

/** How often each operator occurs. */
export function operatorCounts({ nodes }: Graph): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const node of nodes) {
    const name = operatorName(node);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return new Map([...counts].sort(([, a], [, b]) => b - a));
}

/**
 * Floating-point operations of one node: two for each product of a sum in convolutions and matrix
 * products, one for each element of what anything else computes.
 */
export function flopsOf({ node, reader, outputs }: Step): number {
  const out = outputs.reduce((sum, { shape }) => sum + elementCount(shape ?? []), 0);
  const shape = (i: number) => reader.inputs[i]?.shape ?? [];
  switch (operatorName(node)) {
    case "Conv":
    case "wgslide.Conv":
      return 2 * out * elementCount(shape(1).slice(1));
    case "ConvTranspose":
    case "wgslide.ConvTranspose":
      return 2 * elementCount(shape(0)) * elementCount(shape(1).slice(1));
    case "MatMul":
    case "Gemm":
    case "wgslide.MatMul": {
      const a = shape(0);
      const inner = reader.number("transA", 0) !== 0 ? a.at(-2) : a.at(-1);
      return 2 * out * (inner ?? 1);
    }
    case "wgslide.Attention": {
      const [q, k] = [shape(0), shape(1)];
      return 4 * elementCount(q) * (k.at(-1) ?? 1);
    }
  }
  return out;
}

/** Operations of a whole model for given shapes of its inputs. @throws what `specialise` throws. */
export function flopsFor(
  graph: Graph,
  shapes: Readonly<Record<string, readonly number[]>>,
): number {
  return specialise(graph, shapes).steps.reduce((sum, step) => sum + flopsOf(step), 0);
}
