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

/** What fused nodes are called, of which there are one and several. */
const FUSED: Readonly<Record<string, readonly [one: string, several: string]>> = {
  Conv: ["convolution", "convolutions"],
  ConvTranspose: ["transposed convolution", "transposed convolutions"],
  MatMul: ["matrix product", "matrix products"],
  BatchNormalization: ["batch norm", "batch norms"],
};

/** What becomes one node of several, by the operators that only `after` has. */
const RECOGNISED: Readonly<Record<string, readonly [one: string, several: string]>> = {
  "wgslide.Attention": ["attention", "attentions"],
  "LayerNormalization": ["layer norm", "layer norms"],
  "RMSNormalization": ["RMS norm", "RMS norms"],
  "wgslide.Activation": ["activation", "activations"],
};

/**
 * What fusion did, in words: "53 batch norms folded", "53 convolutions: 53 with bias, 16 with a
 * residual, 49 with relu".
 * @param before the graph as it was read. @param after the same graph fused.
 */
export function fusionsInWords(before: Graph, after: Graph): string[] {
  const counts = [before, after].map(operatorCounts) as [Map<string, number>, Map<string, number>];
  const [was, is] = counts.map((own) => (name: string) => own.get(name) ?? 0) as [
    (name: string) => number,
    (name: string) => number,
  ];
  const called = (count: number, [one, several]: readonly [string, string]) =>
    `${count} ${count === 1 ? one : several}`;
  const words: string[] = [];
  const norms = was("BatchNormalization") - is("BatchNormalization") -
    is("wgslide.BatchNormalization");
  if (norms > 0) words.push(`${called(norms, FUSED.BatchNormalization!)} folded`);
  const pads = was("Pad") - is("Pad");
  if (pads > 0) words.push(`${called(pads, ["padding", "paddings"])} folded`);
  for (const [op, names] of Object.entries(FUSED)) {
    const nodes = after.nodes.filter((node) =>
      node.op === op && (node.domain === "" || node.domain === "wgslide")
    );
    const parts = new Map<string, number>();
    const count = (part: string) => parts.set(part, (parts.get(part) ?? 0) + 1);
    for (const { inputs, attributes } of nodes) {
      if (op !== "BatchNormalization" && (inputs[2] ?? "") !== "") count("bias");
      if (op !== "BatchNormalization" && (inputs[3] ?? "") !== "") count("a residual");
      const activation = attributes.get("activation");
      if (activation !== undefined) count(String(activation));
    }
    if (parts.size === 0) continue;
    const list = [...parts].map(([part, own]) => `${own} with ${part}`).join(", ");
    words.push(`${called(nodes.length, names)}: ${list}`);
  }
  for (const [op, names] of Object.entries(RECOGNISED)) {
    const made = is(op) - was(op);
    if (made > 0) words.push(`${called(made, names)} recognised`);
  }
  return words;
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
