/**
 * Quantised models in float: what a value is rounded to between two nodes is left out, what it is
 * clipped to stays, since that is often where a ReLU went (ONNX Runtime's static quantisation).
 */

import type { Rule } from "./fuse.ts";
import type { DataType } from "./host_tensor.ts";
import { Rewriter } from "./rewriter.ts";

const RANGES: Partial<Record<DataType, readonly [least: number, most: number]>> = {
  int8: [-128, 127],
  uint8: [0, 255],
  int16: [-32768, 32767],
  uint16: [0, 65535],
};

/** QuantizeLinear and DequantizeLinear with the same scale and zero point: a clip. */
export const quantisedPair: Rule = (graph, node) => {
  if (node.domain !== "" || node.op !== "DequantizeLinear") return false;
  const before = graph.producer(node.inputs[0]);
  if (before?.op !== "QuantizeLinear" || before.domain !== "") return false;
  const [scale, again] = [graph.scalar(before.inputs[1]), graph.scalar(node.inputs[1])];
  const zeroPoint = before.inputs[2] ?? "";
  const zero = zeroPoint === "" ? 0 : graph.scalar(zeroPoint);
  const zeroAgain = (node.inputs[2] ?? "") === "" ? 0 : graph.scalar(node.inputs[2]);
  // Without a zero point it is uint8, but where version 21's output_dtype says otherwise.
  const type = zeroPoint === "" ? "uint8" : graph.constant(zeroPoint)?.type;
  const range = type && RANGES[type];
  if (
    scale === undefined || scale !== again || zero === undefined || zero !== zeroAgain ||
    range === undefined || before.attributes.has("output_dtype")
  ) return false;
  const [integers] = before.outputs as [string];
  const others = graph.readers(integers).length > 1 || graph.isOutput(integers);
  // A node that is left reads the value too, and nothing would be fused behind it.
  graph.replace(others ? [node] : [node, before], {
    ...node,
    op: "Activation",
    domain: "wgslide",
    inputs: [before.inputs[0]!],
    attributes: new Map<string, string | number>([
      ["activation", "clip"],
      ["activation_a", (range[0] - zero) * scale],
      ["activation_b", (range[1] - zero) * scale],
    ]),
  });
  return true;
};

/** A clip behind a ReLU or another clip that nobody else reads is one with it. */
export const clipAfterClip: Rule = (graph, node) => {
  if (node.domain !== "wgslide" || node.op !== "Activation") return false;
  if (node.attributes.get("activation") !== "clip") return false;
  const before = graph.producer(node.inputs[0]);
  const activation = before?.attributes.get("activation");
  if (before === undefined || graph.onlyReader(node.inputs[0]!) !== node) return false;
  if (activation !== "relu" && activation !== "clip") return false;
  const bound = (of: typeof node, name: string) => Number(of.attributes.get(name));
  const [least, most] = activation === "relu"
    ? [0, Infinity]
    : [bound(before, "activation_a"), bound(before, "activation_b")];
  const [a, b] = [bound(node, "activation_a"), bound(node, "activation_b")];
  graph.replace([before, node], {
    ...Rewriter.like(before, {
      attributes: {
        activation: "clip",
        // As min(max(min(max(v, least), most), a), b) is.
        activation_a: Math.min(Math.max(least, a), b),
        activation_b: Math.min(Math.max(most, a), b),
      },
    }),
    outputs: node.outputs,
  });
  return true;
};
