/** Activations as exporters spell them, in one node each: SiLU, GELU in both forms, HardSwish, Mish. */

import type { Node } from "./graph.ts";
import { Rewriter } from "./rewriter.ts";
import type { Rule } from "./fuse.ts";

/** A product taken apart: coefficient · the factors, and the nodes that only make it. */
export interface Product {
  readonly coefficient: number;
  readonly factors: readonly string[];
  readonly inside: readonly Node[];
}

/** Products within products that are taken apart: no exporter writes more, and a chain may be endless. */
const DEEPEST = 6;

/**
 * Takes the products and quotients by constants that make `name` apart; nodes that others read too
 * are factors as they are.
 * @param root the node that makes `name` where it is to be taken apart whoever reads it.
 */
export function productOf(graph: Rewriter, name: string, root?: Node, depth = 0): Product {
  const scalar = graph.scalar(name);
  if (scalar !== undefined) return { coefficient: scalar, factors: [], inside: [] };
  const node = root ?? graph.producer(name);
  const single: Product = { coefficient: 1, factors: [name], inside: [] };
  if (node === undefined || depth > DEEPEST) return single;
  if (root === undefined && graph.onlyReader(name) === undefined) return single;
  if (node.domain !== "") return single;
  if (node.op === "Mul") {
    const [a, b] = node.inputs.map((input) => productOf(graph, input, undefined, depth + 1)) as [
      Product,
      Product,
    ];
    return {
      coefficient: a.coefficient * b.coefficient,
      factors: [...a.factors, ...b.factors],
      inside: [node, ...a.inside, ...b.inside],
    };
  }
  if (node.op === "Div") {
    const divisor = graph.scalar(node.inputs[1]);
    if (divisor === undefined) return single;
    const a = productOf(graph, node.inputs[0]!, undefined, depth + 1);
    return {
      coefficient: a.coefficient / divisor,
      factors: a.factors,
      inside: [node, ...a.inside],
    };
  }
  if (node.op === "Pow" && graph.scalar(node.inputs[1]) === 3) {
    const [x] = node.inputs as [string];
    return { coefficient: 1, factors: [x, x, x], inside: [node] };
  }
  return single;
}

/** The node of that operator that makes `name` for one reader only. */
export function inner(graph: Rewriter, name: string | undefined, op: string): Node | undefined {
  const node = graph.producer(name);
  return node !== undefined && node.domain === "" && node.op === op &&
      graph.onlyReader(name!) !== undefined
    ? node
    : undefined;
}

/** constant + value, either way round: the value's name. */
export function plus(graph: Rewriter, node: Node, constant: number): string | undefined {
  for (const [value, other] of [[0, 1], [1, 0]] as const) {
    const found = graph.scalar(node.inputs[other]);
    if (found !== undefined && near(found, constant)) return node.inputs[value];
  }
  return undefined;
}

/** Equal up to what exporters round: constants come as f32, or as f16. */
export function near(value: number, wanted: number): boolean {
  return Math.abs(value - wanted) <= 1e-3 * Math.abs(wanted);
}

interface Match {
  readonly activation: string;
  readonly x: string;
  readonly a: number;
  readonly inside: readonly Node[];
}

/** What x · other · coefficient is, where it is an activation of x. */
function match(graph: Rewriter, x: string, other: string, coefficient: number): Match | undefined {
  if (near(coefficient, 1)) {
    const sigmoid = inner(graph, other, "Sigmoid");
    if (sigmoid !== undefined) {
      const argument = productOf(graph, sigmoid.inputs[0]!);
      if (argument.factors.length !== 1 || argument.factors[0] !== x) return undefined;
      return {
        activation: "silu",
        x,
        a: argument.coefficient,
        inside: [sigmoid, ...argument.inside],
      };
    }
    const hard = inner(graph, other, "HardSigmoid");
    if (hard !== undefined && hard.inputs[0] === x) {
      const [alpha, beta] = [
        hard.attributes.get("alpha") ?? 0.2,
        hard.attributes.get("beta") ?? 0.5,
      ];
      return near(Number(alpha), 1 / 6) && near(Number(beta), 0.5)
        ? { activation: "hard_swish", x, a: 0, inside: [hard] }
        : undefined;
    }
    const tanh = inner(graph, other, "Tanh");
    const softplus = inner(graph, tanh?.inputs[0], "Softplus");
    if (softplus?.inputs[0] === x) {
      return { activation: "mish", x, a: 0, inside: [tanh!, softplus] };
    }
  }
  if (near(coefficient, 1 / 6)) {
    const clip = inner(graph, other, "Clip");
    const sum = inner(graph, clip?.inputs[0], "Add");
    const [least, most] = [1, 2].map((i) =>
      clip?.inputs[i] ? graph.scalar(clip.inputs[i]) : clip?.attributes.get(i === 1 ? "min" : "max")
    );
    if (sum !== undefined && least === 0 && most === 6 && plus(graph, sum, 3) === x) {
      return { activation: "hard_swish", x, a: 0, inside: [clip!, sum] };
    }
  }
  if (near(coefficient, 0.5)) {
    const sum = inner(graph, other, "Add");
    const one = sum && plus(graph, sum, 1);
    const erf = inner(graph, one, "Erf");
    if (erf !== undefined) {
      const argument = productOf(graph, erf.inputs[0]!);
      return argument.factors.length === 1 && argument.factors[0] === x &&
          near(argument.coefficient, Math.SQRT1_2)
        ? { activation: "gelu", x, a: 0, inside: [sum!, erf, ...argument.inside] }
        : undefined;
    }
    const tanh = inner(graph, one, "Tanh");
    if (tanh !== undefined) {
      const argument = productOf(graph, tanh.inputs[0]!);
      const cubic = inner(graph, argument.factors[0], "Add");
      if (argument.factors.length !== 1 || !near(argument.coefficient, Math.sqrt(2 / Math.PI))) {
        return undefined;
      }
      for (const [linear, cube] of cubic === undefined ? [] : [[0, 1], [1, 0]] as const) {
        const product = productOf(graph, cubic!.inputs[cube]!);
        if (
          cubic!.inputs[linear] === x && near(product.coefficient, 0.044715) &&
          product.factors.length === 3 && product.factors.every((factor) => factor === x)
        ) {
          return {
            activation: "gelu_tanh",
            x,
            a: 0,
            inside: [sum!, tanh, ...argument.inside, cubic!, ...product.inside],
          };
        }
      }
    }
  }
  return undefined;
}

/** A product or quotient that is an activation of one of its factors. */
const products: Rule = (graph, node) => {
  if (node.domain !== "" || (node.op !== "Mul" && node.op !== "Div")) return false;
  const { coefficient, factors, inside } = productOf(graph, node.outputs[0]!, node);
  if (factors.length !== 2) return false;
  for (const [x, other] of [[0, 1], [1, 0]] as const) {
    const found = match(graph, factors[x]!, factors[other]!, coefficient);
    if (found === undefined) continue;
    graph.replace([...new Set([...inside, ...found.inside])], {
      ...node,
      op: "Activation",
      domain: "wgslide",
      inputs: [found.x],
      attributes: new Map<string, string | number>([
        ["activation", found.activation],
        ["activation_a", found.a],
        ["activation_b", 0],
      ]),
    });
    return true;
  }
  return false;
};

export const activationPatterns: readonly Rule[] = [products];
