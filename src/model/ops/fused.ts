/**
 * Nodes that fusion makes, of domain "wgslide": what each means in ONNX's operators.
 *
 * - Activation(x): attributes `activation`, by a name of kernels/activation.ts, with its constants
 *   `activation_a` and `activation_b`.
 * - Conv(x, weights, bias?, residual?): act(Conv(x, weights, bias) + residual).
 * - ConvTranspose(x, weights, bias?): act(ConvTranspose(x, weights, bias)).
 * - BatchNormalization: act(BatchNormalization(…)).
 * - MatMul(a, b, bias?, residual?): act(scale · a · b + bias + residual), a or b turned by `transA`
 *   or `transB` where both are of two axes; bias has one element a column.
 * - Attention(q, kᵀ, v, mask?): softmax(scale · q · kᵀ + mask) · v.
 */

import type { ActivationName } from "../../../kernels/activation.ts";
import type { AttributeValue } from "../graph.ts";
import type { HostTensor } from "../host_tensor.ts";
import { tensorOf } from "../host_tensor.ts";
import { conv } from "./conv.ts";
import { elementwise } from "./elementwise.ts";
import { broadcastShape } from "./indexing.ts";
import { matmul } from "./matmul.ts";
import { normalisation } from "./normalisation.ts";
import { type Input, NodeReader, type Operator } from "./operator.ts";

const ACTIVATION = ["activation", "activation_a", "activation_b"];

/** Each activation as ONNX has it: the operator, and which attributes its constants are. */
const MEANING: Readonly<Record<ActivationName, readonly [op: string, a?: string, b?: string]>> = {
  identity: ["Identity"],
  relu: ["Relu"],
  leaky_relu: ["LeakyRelu", "alpha"],
  clip: ["Clip", "min", "max"],
  sigmoid: ["Sigmoid"],
  hard_sigmoid: ["HardSigmoid", "alpha", "beta"],
  hard_swish: ["HardSwish"],
  silu: ["Swish", "alpha"],
  tanh: ["Tanh"],
  gelu: ["Gelu"],
  gelu_tanh: ["Gelu"],
  elu: ["Elu", "alpha"],
  softplus: ["Softplus"],
  mish: ["Mish"],
};

/** An operator's value for tensors, as a node of the newest version with those attributes. */
function apply(
  node: NodeReader,
  operator: Operator,
  op: string,
  inputs: readonly (HostTensor | undefined)[],
  attributes: Readonly<Record<string, AttributeValue>> = {},
  opset = 20,
): HostTensor {
  const reader = new NodeReader(
    {
      ...node.node,
      op,
      opset,
      domain: "",
      inputs: inputs.map((input, i) => input === undefined ? "" : String(i)),
      outputs: ["0"],
      attributes: new Map(Object.entries(attributes)),
    },
    inputs.map((known): Input | undefined =>
      known && { type: known.type, shape: known.shape, known }
    ),
  );
  return operator.evaluate(reader, inputs)[0]!;
}

function activated(node: NodeReader, value: HostTensor): HostTensor {
  const name = node.text("activation", "identity") as ActivationName;
  if (name === "identity") return value;
  const [op, a, b] = MEANING[name];
  return apply(node, elementwise[op]!, op, [value], {
    ...(a === undefined ? {} : { [a]: node.number("activation_a", 0) }),
    ...(b === undefined ? {} : { [b]: node.number("activation_b", 0) }),
    ...(name === "gelu_tanh" ? { approximate: "tanh" } : {}),
  }, name === "clip" ? 6 : 24);
}

function plus(node: NodeReader, a: HostTensor, b: HostTensor | undefined): HostTensor {
  return b === undefined ? a : apply(node, elementwise.Add!, "Add", [a, b]);
}

/** The node without what fusion added: as the operator that it was knows it. */
function bare(node: NodeReader, op: string, inputs: number, attributes: ReadonlySet<string>) {
  return new NodeReader({
    ...node.node,
    op,
    domain: "",
    inputs: node.node.inputs.slice(0, inputs),
    attributes: new Map([...node.node.attributes].filter(([name]) => attributes.has(name))),
  }, node.inputs.slice(0, inputs));
}

/** An operator with something behind it: `inputs` are its own, a residual comes after them. */
function fused(op: string, operator: Operator, inputs: number): Operator {
  const own = (node: NodeReader) => bare(node, op, inputs, operator.attributes);
  return {
    attributes: new Set([...operator.attributes, ...ACTIVATION]),
    heavy: true,
    types: (node) => operator.types(own(node)),
    infer: (node) => {
      const [output] = operator.infer(own(node));
      const { type, shape } = output!;
      if (node.inputs[inputs] === undefined || shape === undefined) return [{ type, shape }];
      const residual = node.input(inputs).shape;
      return [{ type, shape: residual && broadcastShape(node, [shape, residual]) }];
    },
    evaluate: (node, given) => {
      const [value] = operator.evaluate(own(node), given.slice(0, inputs));
      return [activated(node, plus(node, value!, given[inputs]))];
    },
  };
}

const activation: Operator = {
  attributes: new Set(ACTIVATION),
  heavy: false,
  types: (node) => [node.input(0).type],
  infer: (node) => [{ type: node.input(0).type, shape: node.input(0).shape }],
  evaluate: (node, [value]) => [activated(node, value!)],
};

/** The product alone, as Gemm has it where an operand is turned, else as MatMul. */
function productOf(node: NodeReader): { op: "Gemm" | "MatMul"; reader: NodeReader } {
  const isTurned = node.number("transA", 0) !== 0 || node.number("transB", 0) !== 0;
  const op = isTurned ? "Gemm" : "MatMul";
  return { op, reader: bare(node, op, 2, isTurned ? new Set(["transA", "transB"]) : new Set()) };
}

const product: Operator = {
  attributes: new Set(["transA", "transB", "scale", ...ACTIVATION]),
  heavy: true,
  types: (node) => [node.input(0).type],
  infer: (node) => {
    const { op, reader } = productOf(node);
    const [{ type, shape }] = matmul[op]!.infer(reader) as [
      { type: Input["type"]; shape: number[] },
    ];
    if (node.inputs[3] === undefined || shape === undefined) return [{ type, shape }];
    const residual = node.input(3).shape;
    return [{ type, shape: residual && broadcastShape(node, [shape, residual]) }];
  },
  evaluate: (node, [a, b, bias, residual]) => {
    const { op, reader } = productOf(node);
    const [value] = matmul[op]!.evaluate(reader, [a, b]);
    const scale = tensorOf(value!.type, [], [node.number("scale", 1)]);
    const scaled = apply(node, elementwise.Mul!, "Mul", [value, scale]);
    return [activated(node, plus(node, plus(node, scaled, bias), residual))];
  },
};

const attention: Operator = {
  attributes: new Set(["scale"]),
  heavy: true,
  types: (node) => [node.input(0).type],
  infer: (node) => {
    const [q, k, v] = [node.shape(0), node.shape(1), node.shape(2)];
    const fits = q.length >= 2 && k.length >= 2 && v.length >= 2 && q.at(-1) === k.at(-2);
    const batch = (shapes: readonly (readonly number[])[]) =>
      broadcastShape(node, shapes.map((shape) => shape.slice(0, -2)));
    // A mask may be of more matrices, or rows, than the product that it is added to.
    const mask = node.inputs[3] === undefined ? [] : [node.shape(3)];
    const scores = broadcastShape(node, [[...batch([q, k]), q.at(-2)!, k.at(-1)!], ...mask]);
    if (!fits || scores.at(-1) !== v.at(-2)) {
      throw node.fail(`[${q.join(", ")}], [${k.join(", ")}] and [${v.join(", ")}]`);
    }
    return [{
      type: node.input(0).type,
      shape: [...batch([scores, v]), scores.at(-2)!, v.at(-1)!],
    }];
  },
  evaluate: (node, [q, k, v, mask]) => {
    const product = apply(node, matmul.MatMul!, "MatMul", [q, k]);
    const scale = tensorOf(product.type, [], [node.number("scale", 1)]);
    const scores = plus(node, apply(node, elementwise.Mul!, "Mul", [product, scale]), mask);
    const weights = apply(node, normalisation.Softmax!, "Softmax", [scores], { axis: -1 });
    return [apply(node, matmul.MatMul!, "MatMul", [weights, v])];
  },
};

export const fusedOperators: Readonly<Record<string, Operator>> = {
  "wgslide.Activation": activation,
  "wgslide.Conv": fused("Conv", conv.Conv!, 3),
  "wgslide.ConvTranspose": fused("ConvTranspose", conv.ConvTranspose!, 3),
  "wgslide.BatchNormalization": fused("BatchNormalization", normalisation.BatchNormalization!, 5),
  "wgslide.MatMul": product,
  "wgslide.Attention": attention,
};
