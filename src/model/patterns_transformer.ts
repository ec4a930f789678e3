/** Layer norm, RMS norm and attention as exporters spell them, in one node each. */

import type { Rule } from "./fuse.ts";
import type { Node } from "./graph.ts";
import { numbersOf } from "./host_tensor.ts";
import { inner, productOf } from "./patterns_activation.ts";
import { Rewriter } from "./rewriter.ts";

/** A mean over the last axis, kept: its input. */
function meanOverLast(graph: Rewriter, node: Node | undefined): string | undefined {
  if (node === undefined || node.domain !== "" || node.op !== "ReduceMean") return undefined;
  if ((node.attributes.get("keepdims") ?? 1) !== 1) return undefined;
  const constant = graph.constant(node.inputs[1]);
  const axes = (node.attributes.get("axes") as readonly number[] | undefined) ??
    (constant && [...numbersOf(constant)]);
  return axes?.length === 1 && axes[0] === -1 ? node.inputs[0] : undefined;
}

/** x² of either spelling: x. */
function squareOf(
  graph: Rewriter,
  name: string | undefined,
): { x: string; node: Node } | undefined {
  const pow = inner(graph, name, "Pow");
  if (pow !== undefined && graph.scalar(pow.inputs[1]) === 2) {
    return { x: pow.inputs[0]!, node: pow };
  }
  const mul = graph.producer(name);
  if (mul?.op === "Mul" && mul.domain === "" && mul.inputs[0] === mul.inputs[1]) {
    return graph.onlyReader(name!) ? { x: mul.inputs[0]!, node: mul } : undefined;
  }
  return undefined;
}

/** √(mean(x²) + ε) over the last axis. */
function rootMeanSquare(
  graph: Rewriter,
  name: string | undefined,
): { x: string; epsilon: number; inside: readonly Node[] } | undefined {
  const sqrt = inner(graph, name, "Sqrt");
  const sum = inner(graph, sqrt?.inputs[0], "Add");
  if (sum === undefined) return undefined;
  for (const [value, other] of [[0, 1], [1, 0]] as const) {
    const epsilon = graph.scalar(sum.inputs[other]);
    const mean = graph.producer(sum.inputs[value]);
    const of = meanOverLast(graph, mean);
    const square = of === undefined ? undefined : squareOf(graph, of);
    if (epsilon === undefined || square === undefined) continue;
    if (graph.onlyReader(sum.inputs[value]!) !== sum) continue;
    return { x: square.x, epsilon, inside: [sqrt!, sum, mean!, square.node] };
  }
  return undefined;
}

/** value · constant per last axis: the product's node, the constant. */
function scaledBy(
  graph: Rewriter,
  name: string,
  op: "Mul" | "Add",
): { node: Node; constant: string } | undefined {
  const node = graph.onlyReader(name);
  if (node === undefined || node.domain !== "" || node.op !== op) return undefined;
  const constant = node.inputs[0] === name ? node.inputs[1]! : node.inputs[0]!;
  const isRow = graph.constants.get(constant)?.shape.length === 1;
  return isRow ? { node, constant } : undefined;
}

/** LayerNormalization-17 over the last axis: (x − mean) / √(mean((x − mean)²) + ε) · scale + bias. */
export const layerNorm: Rule = (graph, node) => {
  if (node.domain !== "" || node.op !== "Div") return false;
  const deviation = rootMeanSquare(graph, node.inputs[1]);
  if (deviation === undefined) return false;
  const centred = graph.producer(node.inputs[0]);
  const other = graph.producer(deviation.x);
  if (centred?.op !== "Sub" || other?.op !== "Sub") return false;
  const [x] = centred.inputs as [string];
  const mean = graph.producer(centred.inputs[1]);
  if (meanOverLast(graph, mean) !== x || other.inputs[0] !== x) return false;
  // Some exporters subtract twice.
  const otherMean = graph.producer(other.inputs[1]);
  if (meanOverLast(graph, otherMean) !== x) return false;
  const scale = scaledBy(graph, node.outputs[0]!, "Mul");
  if (scale === undefined) return false;
  const bias = scaledBy(graph, scale.node.outputs[0]!, "Add");
  const inside = new Set([
    node,
    ...deviation.inside,
    centred,
    other,
    mean!,
    otherMean!,
    scale.node,
  ]);
  if (bias !== undefined) inside.add(bias.node);
  if (!readOnlyInside(graph, inside)) return false;
  graph.replace([...inside], {
    name: node.name,
    op: "LayerNormalization",
    domain: "",
    opset: 17,
    inputs: bias === undefined ? [x, scale.constant] : [x, scale.constant, bias.constant],
    outputs: (bias ?? scale).node.outputs,
    attributes: new Map([["axis", -1], ["epsilon", deviation.epsilon]]),
  });
  return true;
};

/** True where what the nodes make is read by themselves only, but for the last one's output. */
function readOnlyInside(graph: Rewriter, inside: ReadonlySet<Node>): boolean {
  let leaving = 0;
  for (const { outputs } of inside) {
    for (const name of outputs) {
      if (graph.isOutput(name) || graph.readers(name).some((reader) => !inside.has(reader))) {
        leaving++;
      }
    }
  }
  return leaving <= 1;
}

/** RMSNormalization-23 over the last axis: x / √(mean(x²) + ε) · scale. */
export const rmsNorm: Rule = (graph, node) => {
  if (node.domain !== "") return false;
  let root: ReturnType<typeof rootMeanSquare>, x: string | undefined;
  const inside = [node];
  if (node.op === "Div") {
    root = rootMeanSquare(graph, node.inputs[1]);
    x = node.inputs[0];
  } else if (node.op === "Mul") {
    for (const [value, other] of [[0, 1], [1, 0]] as const) {
      const reciprocal = inner(graph, node.inputs[other], "Reciprocal");
      const found = rootMeanSquare(graph, reciprocal?.inputs[0]);
      if (found !== undefined) {
        root = found;
        x = node.inputs[value];
        inside.push(reciprocal!);
      }
    }
  }
  if (root === undefined || root.x !== x) return false;
  const scale = scaledBy(graph, node.outputs[0]!, "Mul");
  if (scale === undefined) return false;
  graph.replace([...inside, ...root.inside, scale.node], {
    name: node.name,
    op: "RMSNormalization",
    domain: "",
    opset: 23,
    inputs: [x, scale.constant],
    outputs: scale.node.outputs,
    attributes: new Map([["axis", -1], ["epsilon", root.epsilon]]),
  });
  return true;
};

/**
 * softmax(scale · q · kᵀ + mask) · v, where the scale may stand before the product on either side or
 * behind it. Becomes wgslide.Attention of q, kᵀ, v and the mask.
 */
export const attention: Rule = (graph, node) => {
  if (node.domain !== "" || node.op !== "MatMul") return false;
  const softmax = inner(graph, node.inputs[0], "Softmax");
  if (softmax === undefined) return false;
  // The last axis by its number is not known here: how many axes there are only a plan knows.
  if ((softmax.attributes.get("axis") ?? (softmax.opset >= 13 ? -1 : 1)) !== -1) return false;
  const inside: Node[] = [node, softmax];
  let scores = softmax.inputs[0]!;
  let mask = "";
  const sum = inner(graph, scores, "Add");
  if (sum !== undefined) {
    // The mask is the side that is no product of matrices.
    const side = sum.inputs.findIndex((name) => productMatMul(graph, name) !== undefined);
    if (side < 0) return false;
    mask = sum.inputs[1 - side]!;
    scores = sum.inputs[side]!;
    inside.push(sum);
  }
  const found = productMatMul(graph, scores);
  if (found === undefined) return false;
  const { product, matmul } = found;
  let scale = product.coefficient;
  const operands = matmul.inputs.slice(0, 2).map((name) => {
    const operand = productOf(graph, name);
    if (operand.factors.length !== 1) return name;
    scale *= operand.coefficient;
    inside.push(...operand.inside);
    return operand.factors[0]!;
  });
  graph.replace([...new Set([...inside, ...product.inside, matmul])], {
    ...node,
    op: "Attention",
    domain: "wgslide",
    inputs: [operands[0]!, operands[1]!, node.inputs[1]!, mask],
    attributes: new Map([["scale", scale]]),
  });
  return true;
};

/** A product of one matrix product that nobody else reads, and constants. */
function productMatMul(
  graph: Rewriter,
  name: string,
): { product: ReturnType<typeof productOf>; matmul: Node } | undefined {
  const product = productOf(graph, name);
  if (product.factors.length !== 1) return undefined;
  const matmul = inner(graph, product.factors[0], "MatMul");
  return matmul && { product, matmul };
}
