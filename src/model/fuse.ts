/**
 * A graph in fewer, larger nodes: batch norms, biases, activations and residual
 * additions taken into the convolution or product before them, and what exporters spell out (GELU,
 * SiLU, layer norm, attention) recognised. What a model computes stays the same up to rounding.
 *
 * Fused nodes are of domain "wgslide"; ops/fused.ts says what each means.
 */

import type { ActivationName } from "../../kernels/activation.ts";
import type { Graph, Node } from "./graph.ts";
import { elementCount, type HostTensor, isFloat, numbersOf, tensorOf } from "./host_tensor.ts";
import { attention, layerNorm, rmsNorm } from "./patterns_transformer.ts";
import { activationPatterns } from "./patterns_activation.ts";
import { clipAfterClip, quantisedPair } from "./patterns_quantised.ts";
import { Rewriter } from "./rewriter.ts";

/** Tries to rewrite around a node. @returns true where it did. */
export type Rule = (graph: Rewriter, node: Node) => boolean;

/** Tried in this order, at every node, until none changes anything. */
const RULES: readonly Rule[] = [
  quantisedPair,
  foldBatchNorm,
  foldScale,
  foldShift,
  foldPad,
  gemmToMatMul,
  ...activationPatterns,
  layerNorm,
  rmsNorm,
  attention,
  addBias,
  fuseResidual,
  fuseActivation,
  clipAfterClip,
];

/** Rewrites a graph until no rule applies any more. */
export function fuse(graph: Graph): Graph {
  const rewriter = new Rewriter(graph);
  let changed = true;
  while (changed) {
    changed = false;
    for (const rule of RULES) {
      for (const node of rewriter.nodes) {
        while (rewriter.has(node) && rule(rewriter, node)) changed = true;
      }
    }
  }
  return rewriter.finish();
}

const CONVOLUTIONS = new Set(["Conv", "wgslide.Conv", "ConvTranspose", "wgslide.ConvTranspose"]);

export function keyOf({ op, domain }: Node): string {
  return domain === "" ? op : `${domain}.${op}`;
}

/** True where nothing was fused behind the sum yet. */
function isBare(node: Node): boolean {
  return !node.attributes.has("activation") && (node.inputs[3] ?? "") === "";
}

/**
 * Multiplies a convolution's output channels by `scale` and adds `shift`, in its weights and bias.
 * @returns undefined where the weights are not known or the numbers of channels differ.
 */
function scaledConvolution(
  graph: Rewriter,
  node: Node,
  scale: ArrayLike<number> | undefined,
  shift: ArrayLike<number> | undefined,
): Node | undefined {
  const weights = graph.constant(node.inputs[1]);
  const bias = node.inputs[2] ? graph.constant(node.inputs[2]) : undefined;
  if (weights === undefined || (node.inputs[2] && bias === undefined)) return undefined;
  const isTransposed = node.op === "ConvTranspose";
  const group = Number(node.attributes.get("group") ?? 1);
  // Conv [O, C/g, ...]; ConvTranspose [C, O/g, ...], where output channel o of group g is g · O/g + o.
  const perGroup = weights.shape[1]!;
  const channels = isTransposed ? perGroup * group : weights.shape[0]!;
  for (const list of [scale, shift]) {
    if (list !== undefined && list.length !== channels) return undefined;
  }
  let scaled = node.inputs[1]!;
  if (scale !== undefined) {
    const values = new Float32Array(numbersOf(weights));
    const area = elementCount(weights.shape.slice(2));
    const rows = weights.shape[0]!;
    for (let row = 0, at = 0; row < rows; row++) {
      for (let column = 0; column < perGroup; column++) {
        const channel = isTransposed ? Math.floor(row / (rows / group)) * perGroup + column : row;
        const factor = scale[channel]!;
        for (const end = at + area; at < end; at++) values[at] = values[at]! * factor;
      }
    }
    scaled = graph.addConstant({ type: weights.type, shape: weights.shape, data: values }, scaled);
    if (weights.type !== "float32") {
      graph.constants.set(scaled, tensorOf(weights.type, weights.shape, values));
    }
  }
  const old = bias && numbersOf(bias);
  const shifted = Float32Array.from(
    { length: channels },
    (_, o) => (old?.[o] ?? 0) * (scale?.[o] ?? 1) + (shift?.[o] ?? 0),
  );
  const biasName = graph.addConstant(tensorOf(weights.type, [channels], shifted), node.name);
  return Rewriter.like(node, {
    inputs: [node.inputs[0]!, scaled, biasName, ...node.inputs.slice(3)],
  });
}

/** The convolution, with nothing fused behind it, that makes a value for `reader` alone. */
function convolutionBefore(graph: Rewriter, name: string, reader: Node): Node | undefined {
  const before = graph.producer(name);
  if (before === undefined || !CONVOLUTIONS.has(keyOf(before)) || !isBare(before)) return undefined;
  return graph.onlyReader(name) === reader ? before : undefined;
}

/** BatchNormalization-15 outside training: scale · (x − mean) / √(variance + ε) + bias, per channel. */
function foldBatchNorm(graph: Rewriter, node: Node): boolean {
  if (keyOf(node) !== "BatchNormalization" || node.attributes.get("training_mode") === 1) {
    return false;
  }
  const before = convolutionBefore(graph, node.inputs[0]!, node);
  if (before === undefined || node.outputs.slice(1).some((name) => name !== "")) return false;
  const constants = node.inputs.slice(1, 5).map((name) => graph.constant(name));
  if (constants.length < 4 || constants.some((constant) => constant === undefined)) return false;
  const [scale, bias, mean, variance] = constants.map((constant) => numbersOf(constant!));
  const epsilon = Number(node.attributes.get("epsilon") ?? 1e-5);
  const factor = Float64Array.from(scale!, (s, i) => s / Math.sqrt(variance![i]! + epsilon));
  const shift = Float64Array.from(bias!, (b, i) => b - mean![i]! * factor[i]!);
  const fused = scaledConvolution(graph, before, factor, shift);
  if (fused === undefined) return false;
  graph.replace([before, node], { ...fused, outputs: [node.outputs[0]!] });
  return true;
}

/** A constant per channel of an image of `channels`: [C, 1, 1], [1, C, 1, 1] or one element. */
function perChannel(
  constant: HostTensor | undefined,
  rank: number,
  channels: number,
): ArrayLike<number> | undefined {
  if (constant === undefined || !isFloat(constant.type)) return undefined;
  const values = numbersOf(constant);
  if (values.length === 1 && constant.shape.length <= rank) {
    return new Float64Array(channels).fill(Number(values[0]));
  }
  const shape = [...Array(Math.max(0, rank - constant.shape.length)).fill(1), ...constant.shape];
  const fits = shape.length === rank && shape.every((size, i) => size === (i === 1 ? channels : 1));
  return fits ? values : undefined;
}

function outputChannels(graph: Rewriter, convolution: Node): { rank: number; channels: number } {
  const { shape } = graph.constants.get(convolution.inputs[1]!) ?? { shape: [0, 0] };
  const group = Number(convolution.attributes.get("group") ?? 1);
  return {
    rank: shape.length,
    channels: convolution.op === "ConvTranspose" ? shape[1]! * group : shape[0]!,
  };
}

function foldScale(graph: Rewriter, node: Node): boolean {
  if (keyOf(node) === "Div") return foldIntoConvolution(graph, node, "scale", (c) => 1 / c);
  return keyOf(node) === "Mul" && foldIntoConvolution(graph, node, "scale");
}

function foldShift(graph: Rewriter, node: Node): boolean {
  if (keyOf(node) === "Sub") return foldIntoConvolution(graph, node, "shift", (c) => -c);
  return keyOf(node) === "Add" && foldIntoConvolution(graph, node, "shift");
}

/**
 * A factor, or a summand, per channel behind a convolution.
 * @param inverse of a constant on the right, where the operands may not be exchanged.
 */
function foldIntoConvolution(
  graph: Rewriter,
  node: Node,
  as: "scale" | "shift",
  inverse?: (constant: number) => number,
): boolean {
  for (const [value, other] of inverse ? [[0, 1]] as const : [[0, 1], [1, 0]] as const) {
    const before = convolutionBefore(graph, node.inputs[value]!, node);
    if (before === undefined) continue;
    const { rank, channels } = outputChannels(graph, before);
    const found = perChannel(graph.constant(node.inputs[other]), rank, channels);
    if (found === undefined) continue;
    const list = inverse ? Float64Array.from(found, inverse) : found;
    const fused = as === "scale"
      ? scaledConvolution(graph, before, list, undefined)
      : scaledConvolution(graph, before, undefined, list);
    if (fused === undefined) continue;
    graph.replace([before, node], { ...fused, outputs: node.outputs });
    return true;
  }
  return false;
}

/** Zeros padded around an image, into the convolution that reads them. */
function foldPad(graph: Rewriter, node: Node): boolean {
  if (!["Conv", "wgslide.Conv"].includes(keyOf(node))) return false;
  const pad = graph.producer(node.inputs[0]!);
  if (pad === undefined || keyOf(pad) !== "Pad" || graph.onlyReader(pad.outputs[0]!) !== node) {
    return false;
  }
  if ((pad.attributes.get("mode") ?? "constant") !== "constant") return false;
  const auto = String(node.attributes.get("auto_pad") ?? "NOTSET");
  if (auto !== "NOTSET" && auto !== "VALID") return false;
  if ((pad.inputs[3] ?? "") !== "") return false; // Axes: rare, and the node runs as it is.
  const listed = pad.attributes.get("pads");
  const amounts = listed !== undefined ? listed as readonly number[] : (() => {
    const constant = graph.constant(pad.inputs[1]);
    return constant && [...numbersOf(constant)];
  })();
  const value = pad.inputs[2]
    ? graph.scalar(pad.inputs[2])
    : Number(pad.attributes.get("value") ?? 0);
  if (amounts === undefined || value !== 0 || amounts.some((amount) => amount < 0)) return false;
  const rank = amounts.length / 2;
  if (amounts[0] !== 0 || amounts[1] !== 0 || amounts[rank] !== 0 || amounts[rank + 1] !== 0) {
    return false;
  }
  const added = [...amounts.slice(2, rank), ...amounts.slice(rank + 2)];
  const own = (node.attributes.get("pads") as readonly number[] | undefined) ??
    new Array<number>(added.length).fill(0);
  if (own.length !== added.length) return false;
  graph.replace(
    [pad, node],
    Rewriter.like(node, {
      inputs: [pad.inputs[0]!, ...node.inputs.slice(1)],
      attributes: { pads: own.map((amount, i) => amount + added[i]!), auto_pad: "NOTSET" },
    }),
  );
  return true;
}

/** Gemm-13 is a product with scale, bias and transpositions. */
function gemmToMatMul(graph: Rewriter, node: Node): boolean {
  if (keyOf(node) !== "Gemm") return false;
  const alpha = Number(node.attributes.get("alpha") ?? 1);
  const beta = Number(node.attributes.get("beta") ?? 1);
  const [a, b, c = ""] = node.inputs as [string, string, string?];
  let bias = "";
  if (c !== "") {
    const constant = graph.constants.get(c);
    const columns = graph.constants.get(b)?.shape[node.attributes.get("transB") ? 0 : 1];
    if (
      constant === undefined || elementCount(constant.shape) !== columns ||
      constant.shape.at(-1) !== columns
    ) return false;
    if (beta === 1) bias = c;
    else {
      const values = graph.constant(c);
      if (values === undefined) return false;
      const scaled = Float64Array.from(numbersOf(values), (v) => beta * v);
      bias = graph.addConstant(tensorOf(values.type, [columns], scaled), c);
    }
  }
  graph.replace([node], {
    ...node,
    op: "MatMul",
    domain: "wgslide",
    inputs: [a, b, bias, ""],
    attributes: new Map<string, number>([
      ["transA", Number(node.attributes.get("transA") ?? 0)],
      ["transB", Number(node.attributes.get("transB") ?? 0)],
      ["scale", alpha],
    ]),
  });
  return true;
}

/** MatMul with a constant added to its columns: what PyTorch exports of a Linear on three axes. */
function addBias(graph: Rewriter, node: Node): boolean {
  if (keyOf(node) !== "Add") return false;
  for (const [value, other] of [[0, 1], [1, 0]] as const) {
    const product = graph.producer(node.inputs[value]!);
    if (
      product === undefined || !["MatMul", "wgslide.MatMul"].includes(keyOf(product)) ||
      !isBare(product) || (product.inputs[2] ?? "") !== "" ||
      graph.onlyReader(node.inputs[value]!) !== node
    ) continue;
    const constant = graph.constants.get(node.inputs[other]!);
    const b = graph.constants.get(product.inputs[1]!);
    if (b === undefined || b.shape.length < 2) continue; // A vector has no columns.
    const columns = b.shape.at(product.attributes.get("transB") === 1 ? -2 : -1);
    if (constant === undefined || constant.shape.length !== 1 || constant.shape[0] !== columns) {
      continue;
    }
    graph.replace([product, node], {
      ...Rewriter.like(product, { op: "MatMul", domain: "wgslide" }),
      inputs: [product.inputs[0]!, product.inputs[1]!, node.inputs[other]!, ""],
      outputs: node.outputs,
    });
    return true;
  }
  return false;
}

const FUSABLE = new Set(["Conv", "wgslide.Conv", "MatMul", "wgslide.MatMul"]);

/**
 * x + f(…), where f's last step is a convolution or product that nobody else reads. Its kernel adds
 * x before the activation. The other operand must be there before the node is: it always is, since
 * the Add read both. Shapes must be equal, which only a plan knows: where they are not, the plan
 * adds in a step of its own.
 */
function fuseResidual(graph: Rewriter, node: Node): boolean {
  if (keyOf(node) !== "Add" || node.inputs[0] === node.inputs[1]) return false;
  // The later of two candidates: the shortcut of a residual block is computed first.
  for (const [value, other] of [[1, 0], [0, 1]] as const) {
    const before = graph.producer(node.inputs[value]!);
    if (before === undefined || !FUSABLE.has(keyOf(before)) || !isBare(before)) continue;
    if (graph.onlyReader(node.inputs[value]!) !== node) continue;
    if (graph.constants.has(node.inputs[other]!)) continue;
    const [x, w, bias = ""] = before.inputs as [string, string, string?];
    graph.replace([before, node], {
      ...before,
      domain: "wgslide",
      inputs: [x, w, bias, node.inputs[other]!],
      outputs: node.outputs,
    });
    return true;
  }
  return false;
}

/**
 * ONNX's activations and those of wgslide.Activation, by the names of kernels/activation.ts.
 * @param scalar a constant of one element, by its name.
 */
export function activationOfNode(
  node: Node,
  scalar: (name: string) => number | undefined,
): { name: ActivationName; a: number; b: number } | undefined {
  const attribute = (name: string, byDefault: number) =>
    Number(node.attributes.get(name) ?? byDefault);
  switch (keyOf(node)) {
    case "Relu":
      return { name: "relu", a: 0, b: 0 };
    case "LeakyRelu":
      return { name: "leaky_relu", a: attribute("alpha", 0.01), b: 0 };
    case "Clip": {
      const bound = (i: number, name: string, open: number) =>
        node.inputs[i] ? scalar(node.inputs[i]) : attribute(name, open);
      // The largest f32: «no bound».
      const [a, b] = [
        bound(1, "min", -3.4028234663852886e38),
        bound(2, "max", 3.4028234663852886e38),
      ];
      return a === undefined || b === undefined ? undefined : { name: "clip", a, b };
    }
    case "Sigmoid":
      return { name: "sigmoid", a: 0, b: 0 };
    case "HardSigmoid":
      return { name: "hard_sigmoid", a: attribute("alpha", 0.2), b: attribute("beta", 0.5) };
    case "HardSwish":
      return { name: "hard_swish", a: 0, b: 0 };
    case "Swish":
      return { name: "silu", a: attribute("alpha", 1), b: 0 };
    case "Tanh":
      return { name: "tanh", a: 0, b: 0 };
    case "Gelu":
      return {
        name: node.attributes.get("approximate") === "tanh" ? "gelu_tanh" : "gelu",
        a: 0,
        b: 0,
      };
    case "Elu":
      return { name: "elu", a: attribute("alpha", 1), b: 0 };
    case "Softplus":
      return { name: "softplus", a: 0, b: 0 };
    case "Mish":
      return { name: "mish", a: 0, b: 0 };
    case "wgslide.Activation":
      return {
        name: node.attributes.get("activation") as ActivationName,
        a: attribute("activation_a", 0),
        b: attribute("activation_b", 0),
      };
  }
  return undefined;
}

/** An activation behind a convolution or product that nobody else reads. */
function fuseActivation(graph: Rewriter, node: Node): boolean {
  const activation = activationOfNode(node, (name) => graph.scalar(name));
  if (activation === undefined) return false;
  const before = graph.producer(node.inputs[0]!);
  if (
    before === undefined || before.attributes.has("activation") || before.outputs.length > 1 ||
    !(FUSABLE.has(keyOf(before)) || CONVOLUTIONS.has(keyOf(before)) ||
      keyOf(before) === "BatchNormalization") ||
    graph.onlyReader(node.inputs[0]!) !== node
  ) return false;
  graph.replace([before, node], {
    ...Rewriter.like(before, {
      domain: "wgslide",
      attributes: {
        activation: activation.name,
        activation_a: activation.a,
        activation_b: activation.b,
      },
    }),
    outputs: node.outputs,
  });
  return true;
}
