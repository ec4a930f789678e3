/**
 * What each rule makes of a few nodes, where it must leave them alone, and that what they compute
 * stays: every case is computed on the host before and after.
 */

import assert from "node:assert/strict";
import { fuse } from "../../src/model/fuse.ts";
import type { Graph, Node } from "../../src/model/graph.ts";
import { elementCount, type HostTensor } from "../../src/model/host_tensor.ts";
import { readModel } from "../../src/model/onnx.ts";
import { operatorName } from "../../src/model/support.ts";
import { ModelWriter, type WrittenAttribute } from "../../src/model/writer.ts";
import { runOnHost } from "../reference/onnx.ts";
import { floats } from "../reference/random.ts";
import { modelBytes, node, value } from "./model_builder.ts";

/** A model of one input and one or more outputs, written node by node. */
class Case {
  readonly writer: ModelWriter;
  #seed = 1;

  constructor(readonly shape: readonly number[], opset = 17) {
    this.writer = new ModelWriter("case", opset);
    this.writer.input("x", "float32", shape);
  }

  /** Seeded floats, of which none is below `add` − 1. */
  floats(shape: readonly number[], add = 0): string {
    const data = floats(elementCount(shape), this.#seed++).map((v) => v + add);
    return this.writer.floats(shape, data);
  }

  scalar(number: number): string {
    return this.writer.floats([], [number]);
  }

  node(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, WrittenAttribute>> = {},
    output?: string,
  ): string {
    return this.writer.node(op, inputs, attributes, output);
  }

  /** A 3 × 3 convolution of channels that keeps the image's size. */
  conv(x = "x", channels = this.shape[1]!, out = channels): string {
    return this.node("Conv", [x, this.floats([out, channels, 3, 3])], { pads: [1, 1, 1, 1] });
  }

  batchNorm(x: string, channels: number): string {
    const list = () => this.floats([channels]);
    return this.node("BatchNormalization", [x, list(), list(), list(), this.floats([channels], 2)]);
  }
}

function closeTo(actual: HostTensor, expected: HostTensor): void {
  assert.deepEqual(
    [actual.type, actual.shape, actual.data.length],
    [expected.type, expected.shape, expected.data.length],
  );
  let range = 0, worst = 0;
  for (let i = 0; i < expected.data.length; i++) {
    const [a, b] = [Number(actual.data[i]), Number(expected.data[i])];
    range = Math.max(range, Math.abs(b));
    worst = Math.max(worst, Number.isNaN(a) ? Infinity : Math.abs(a - b));
  }
  // Weights that were scaled are rounded to f32 once more, and so are sums of them.
  assert.ok(worst <= 1e-5 * range, `off by ${worst} of ${range}`);
}

/** Fuses a graph, checks that it computes what it did, and gives what it is made of now. */
function fused(graph: Graph, feeds: Readonly<Record<string, HostTensor>>): readonly Node[] {
  const { nodes } = fuse(graph);
  const before = runOnHost(graph, feeds);
  const after = runOnHost(fuse(graph), feeds);
  for (const [name, expected] of Object.entries(before)) closeTo(after[name]!, expected);
  return nodes;
}

/** The operators that a case becomes, in order. */
async function operatorsOf(
  { shape, writer }: Case,
  outputs: string | readonly string[],
): Promise<{ names: string[]; nodes: readonly Node[] }> {
  for (const name of [outputs].flat()) writer.output(name, "float32", []);
  const graph = await readModel(writer.bytes());
  const x: HostTensor = { type: "float32", shape, data: floats(elementCount(shape), 99) };
  const nodes = fused(graph, { x });
  return { names: nodes.map(operatorName), nodes };
}

/** A case's name, the operators expected, and how it is written: gives the names of its outputs. */
type Row = readonly [
  what: string,
  expected: readonly string[],
  shape: readonly number[],
  write: (c: Case) => string | readonly string[],
  opset?: number,
];

const CONV = "wgslide.Conv";
const IMAGE = [2, 3, 5, 7] as const;

function rows(rule: string, list: readonly Row[]): void {
  for (const [what, expected, shape, write, opset] of list) {
    Deno.test(`fuse(), ${rule}: ${what}`, async () => {
      const c = new Case(shape, opset);
      const { names } = await operatorsOf(c, write(c));
      assert.deepEqual(names, expected);
    });
  }
}

rows("batch norm", [
  ["goes into the convolution", ["Conv"], IMAGE, (c) => c.batchNorm(c.conv(), 3)],
  ["goes into one of groups with a bias", ["Conv"], [1, 4, 4, 4], (c) => {
    const inputs = ["x", c.floats([6, 2, 1, 1]), c.floats([6])];
    return c.batchNorm(c.node("Conv", inputs, { group: 2 }), 6);
  }],
  ["goes into a transposed convolution of groups", ["ConvTranspose"], [1, 4, 3, 3], (c) => {
    const inputs = ["x", c.floats([4, 3, 2, 2]), c.floats([6])];
    return c.batchNorm(c.node("ConvTranspose", inputs, { group: 2, strides: [2, 2] }), 6);
  }],
  ["and its activation go along a line as well", [CONV], [2, 3, 9], (c) => {
    const conv = c.node("Conv", ["x", c.floats([5, 3, 3])]);
    return c.node("Relu", [c.batchNorm(conv, 5)]);
  }],
  [
    "stays where the convolution has another reader",
    ["Conv", "BatchNormalization", "Concat"],
    IMAGE,
    (c) => {
      const conv = c.conv();
      return c.node("Concat", [c.batchNorm(conv, 3), conv], { axis: 0 });
    },
  ],
  ["stays where the convolution is an output", ["Conv", "BatchNormalization"], IMAGE, (c) => {
    const conv = c.conv();
    return [c.batchNorm(conv, 3), conv];
  }],
  [
    "stays behind an activation, which is fused",
    [CONV, "BatchNormalization"],
    IMAGE,
    (c) => c.batchNorm(c.node("Relu", [c.conv()]), 3),
  ],
  [
    "takes an activation where there is no convolution",
    ["wgslide.BatchNormalization"],
    IMAGE,
    (c) => c.node("Relu", [c.batchNorm("x", 3)]),
  ],
  [
    "stays where weights are computed",
    ["Abs", "Conv", "BatchNormalization"],
    [3, 3, 3, 3],
    (c) => c.batchNorm(c.node("Conv", ["x", c.node("Abs", ["x"])]), 3),
  ],
]);

rows("scale and shift", [
  ["constants per channel go into the convolution", ["Conv"], IMAGE, (c) => {
    const scaled = c.node("Mul", [c.floats([3, 1, 1]), c.conv()]);
    return c.node("Add", [scaled, c.floats([1, 3, 1, 1])]);
  }],
  [
    "constants of one element do",
    ["Conv"],
    IMAGE,
    (c) => c.node("Add", [c.node("Mul", [c.conv(), c.scalar(3)]), c.floats([1, 1])]),
  ],
  ["quotients and differences by constants do", ["Conv"], IMAGE, (c) => {
    const whole = c.node("Div", [c.conv(), c.floats([3, 1, 1], 2)]);
    return c.node("Sub", [whole, c.floats([1, 3, 1, 1])]);
  }],
  ["quotients and differences of constants do not", ["Conv", "Sub", "Div"], IMAGE, (c) => {
    const rest = c.node("Sub", [c.scalar(300), c.conv()]);
    return c.node("Div", [c.floats([3, 1, 1]), rest]);
  }],
  [
    "a constant per column does not",
    ["Conv", "Mul"],
    IMAGE,
    (c) => c.node("Mul", [c.conv(), c.floats([7])]),
  ],
  [
    "a constant per image does not",
    ["Conv", "Add"],
    IMAGE,
    (c) => c.node("Add", [c.conv(), c.floats([2, 1, 1, 1])]),
  ],
  [
    "a constant of more axes does not",
    ["Conv", "Mul"],
    IMAGE,
    (c) => c.node("Mul", [c.conv(), c.floats([1, 1, 1, 1, 1])]),
  ],
  [
    "a constant that has the channels grow does not",
    ["Conv", "Mul"],
    [1, 3, 2, 2],
    (c) => c.node("Mul", [c.conv("x", 3, 1), c.floats([4, 1, 1])]),
  ],
  ["the square of a convolution stays", ["Conv", "Mul"], IMAGE, (c) => {
    const conv = c.conv();
    return c.node("Mul", [conv, conv]);
  }],
]);

rows("padding", [
  ["of zeros goes into the convolution", ["Conv"], IMAGE, (c) => {
    const pads = c.writer.integers([0, 0, 1, 2, 0, 0, 3, 4]);
    return c.conv(c.node("Pad", ["x", pads]), 3);
  }],
  [
    "as attributes, before version 11, does",
    ["Conv"],
    IMAGE,
    (c) => c.conv(c.node("Pad", ["x"], { pads: [0, 0, 1, 2, 0, 0, 3, 4] }), 3),
    9,
  ],
  ["of another value does not", ["Pad", "Conv"], IMAGE, (c) => {
    const pads = c.writer.integers([0, 0, 1, 2, 0, 0, 3, 4]);
    return c.conv(c.node("Pad", ["x", pads, c.scalar(1)]), 3);
  }],
  ["that reflects does not", ["Pad", "Conv"], IMAGE, (c) => {
    const pads = c.writer.integers([0, 0, 1, 2, 0, 0, 3, 4]);
    return c.conv(c.node("Pad", ["x", pads], { mode: "reflect" }), 3);
  }],
  ["of channels does not", ["Pad", "Conv"], IMAGE, (c) => {
    const pads = c.writer.integers([0, 1, 1, 2, 0, 0, 3, 4]);
    return c.conv(c.node("Pad", ["x", pads]), 4);
  }],
  ["that cuts off does not", ["Pad", "Conv"], IMAGE, (c) => {
    const pads = c.writer.integers([0, 0, -1, 2, 0, 0, 3, 4]);
    return c.conv(c.node("Pad", ["x", pads]), 3);
  }],
  ["before one that pads to the same size does not", ["Pad", "Conv"], IMAGE, (c) => {
    const padded = c.node("Pad", ["x", c.writer.integers([0, 0, 1, 2, 0, 0, 3, 4])]);
    return c.node("Conv", [padded, c.floats([3, 3, 2, 2])], { auto_pad: "SAME_UPPER" });
  }],
  ["that others read does not", ["Pad", "Conv", "Relu"], IMAGE, (c) => {
    const padded = c.node("Pad", ["x", c.writer.integers([0, 0, 1, 2, 0, 0, 3, 4])]);
    return [c.conv(padded, 3), c.node("Relu", [padded])];
  }],
]);

const PRODUCT = "wgslide.MatMul";

rows("products", [
  [
    "Gemm with factors and turned weights",
    [PRODUCT],
    [4, 5],
    (c) =>
      c.node("Gemm", ["x", c.floats([7, 5]), c.floats([1, 7])], {
        transB: 1,
        alpha: 0.5,
        beta: 0.25,
      }),
  ],
  [
    "Gemm turned on the left",
    [PRODUCT],
    [5, 4],
    (c) => c.node("Gemm", ["x", c.floats([5, 7]), c.floats([7])], { transA: 1 }),
  ],
  [
    "Gemm with a whole matrix added stays",
    ["Gemm"],
    [4, 5],
    (c) => c.node("Gemm", ["x", c.floats([5, 7]), c.floats([4, 7])]),
  ],
  [
    "Gemm with a summand per row stays",
    ["Gemm"],
    [7, 5],
    (c) => c.node("Gemm", ["x", c.floats([5, 7]), c.floats([7, 1])]),
  ],
  ["a bias and GELU behind MatMul", [PRODUCT], [2, 4, 5], (c) => {
    const sum = c.node("Add", [c.floats([7]), c.node("MatMul", ["x", c.floats([5, 7])])]);
    const erf = c.node("Erf", [c.node("Div", [sum, c.scalar(Math.SQRT2)])]);
    const product = c.node("Mul", [sum, c.node("Add", [erf, c.scalar(1)])]);
    return c.node("Mul", [product, c.scalar(0.5)]);
  }],
  ["a residual behind bias", [PRODUCT], [2, 4, 5], (c) => {
    const product = c.node("MatMul", ["x", c.floats([5, 5])]);
    return c.node("Add", ["x", c.node("Add", [product, c.floats([5])])]);
  }],
  [
    "a bias behind a product with a vector is none",
    ["MatMul", "Add"],
    [5, 5],
    (c) => c.node("Add", [c.node("MatMul", ["x", c.floats([5])]), c.floats([5])]),
  ],
  [
    "a constant of rows is no bias",
    ["MatMul", "Add"],
    [3, 4, 4],
    (c) => c.node("Add", [c.node("MatMul", ["x", c.floats([4, 4])]), c.floats([4, 1])]),
  ],
  [
    "a bias that widens the product is none",
    ["MatMul", "Add"],
    [4, 5],
    (c) => c.node("Add", [c.node("MatMul", ["x", c.floats([5, 1])]), c.floats([6])]),
  ],
]);

rows("residuals", [
  [
    "of the same shape, with the activation behind",
    [CONV],
    IMAGE,
    (c) => c.node("Relu", [c.node("Add", [c.conv(), "x"])]),
  ],
  ["into the later of two convolutions", [CONV, CONV], IMAGE, (c) => {
    const first = c.node("Relu", [c.conv()]);
    return c.node("Add", [first, c.conv(first)]);
  }],
  [
    "that has to be repeated",
    ["GlobalAveragePool", CONV],
    IMAGE,
    (c) => c.node("Add", [c.conv(), c.node("GlobalAveragePool", ["x"])]),
  ],
  [
    "twice: the second stays",
    [CONV, "Add"],
    IMAGE,
    (c) => c.node("Add", [c.node("Add", [c.conv(), "x"]), "x"]),
  ],
  ["added to itself: x + x has no residual", ["Conv", "Add"], IMAGE, (c) => {
    const conv = c.conv();
    return c.node("Add", [conv, conv]);
  }],
  [
    "behind an activation is none",
    [CONV, "Add"],
    IMAGE,
    (c) => c.node("Add", [c.node("Relu", [c.conv()]), "x"]),
  ],
  [
    "is not taken by a transposed convolution",
    ["ConvTranspose", "Add"],
    IMAGE,
    (c) => c.node("Add", [c.node("ConvTranspose", ["x", c.floats([3, 3, 1, 1])]), "x"]),
  ],
]);

const spelt: Readonly<Record<string, (c: Case, x: string) => string>> = {
  silu: (c, x) => c.node("Mul", [c.node("Sigmoid", [x]), x]),
  "silu of a factor": (c, x) =>
    c.node("Mul", [x, c.node("Sigmoid", [c.node("Mul", [x, c.scalar(1.702)])])]),
  "hard_swish by Clip": (c, x) => {
    const clip = c.node("Clip", [c.node("Add", [x, c.scalar(3)]), c.scalar(0), c.scalar(6)]);
    return c.node("Div", [c.node("Mul", [x, clip]), c.scalar(6)]);
  },
  "hard_swish by HardSigmoid": (c, x) =>
    c.node("Mul", [x, c.node("HardSigmoid", [x], { alpha: 1 / 6 })]),
  mish: (c, x) => c.node("Mul", [x, c.node("Tanh", [c.node("Softplus", [x])])]),
  "gelu, halved first": (c, x) => {
    const erf = c.node("Erf", [c.node("Mul", [x, c.scalar(Math.SQRT1_2)])]);
    return c.node("Mul", [
      c.node("Mul", [c.scalar(0.5), x]),
      c.node("Add", [c.scalar(1), erf]),
    ]);
  },
  gelu_tanh: (c, x) => {
    const cube = c.node("Mul", [c.scalar(0.044715), c.node("Pow", [x, c.scalar(3)])]);
    const inside = c.node("Mul", [c.node("Add", [x, cube]), c.scalar(Math.sqrt(2 / Math.PI))]);
    const sum = c.node("Add", [c.node("Tanh", [inside]), c.scalar(1)]);
    return c.node("Mul", [c.node("Mul", [x, c.scalar(0.5)]), sum]);
  },
};

for (const [name, write] of Object.entries(spelt)) {
  const activation = /^\w+/.exec(name)![0];
  Deno.test(`fuse() knows ${name} as it is spelt, alone and behind a convolution`, async () => {
    const alone = new Case(IMAGE);
    const { nodes: [node], names } = await operatorsOf(alone, write(alone, "x"));
    assert.deepEqual(names, ["wgslide.Activation"]);
    assert.equal(node!.attributes.get("activation"), activation);
    const behind = new Case(IMAGE);
    assert.deepEqual((await operatorsOf(behind, write(behind, behind.conv()))).names, [CONV]);
  });
}

rows("activations that only look like it", [
  [
    "the gate of another value",
    ["Abs", "Sigmoid", "Mul"],
    IMAGE,
    (c) => c.node("Mul", ["x", c.node("Sigmoid", [c.node("Abs", ["x"])])]),
  ],
  ["a gate that others read", ["Sigmoid", "Mul"], IMAGE, (c) => {
    const gate = c.node("Sigmoid", ["x"]);
    return [c.node("Mul", ["x", gate]), gate];
  }],
  ["GELU with another constant", ["Mul", "Erf", "Add", "Mul"], IMAGE, (c) => {
    const erf = c.node("Erf", [c.node("Mul", ["x", c.scalar(0.5)])]);
    return c.node("Mul", ["x", c.node("Add", [erf, c.scalar(1)])]);
  }],
  ["HardSwish with another bound", ["Add", "Clip", "Mul", "Div"], IMAGE, (c) => {
    const clip = c.node("Clip", [c.node("Add", ["x", c.scalar(3)]), c.scalar(0), c.scalar(5)]);
    return c.node("Div", [c.node("Mul", ["x", clip]), c.scalar(6)]);
  }],
  [
    "a Clip whose bound is computed",
    ["Conv", "GlobalMaxPool", "Reshape", "Clip"],
    [1, 1, 3, 3],
    (c) => {
      const none = { type: "int64", shape: [0], data: new BigInt64Array(0) } as const;
      const scalar = c.node("Reshape", [c.node("GlobalMaxPool", ["x"]), c.writer.constant(none)]);
      return c.node("Clip", [c.conv(), "", scalar]);
    },
  ],
]);

/** A layer norm as PyTorch exports it before opset 17. */
function layerNorm(
  c: Case,
  { axes = [-1], scale = [8], bias = [8] as readonly number[] | undefined, twice = false } = {},
): string {
  const mean = c.node("ReduceMean", ["x"], { axes });
  const centred = c.node("Sub", ["x", mean]);
  const again = twice ? c.node("Sub", ["x", mean]) : centred;
  const variance = c.node("ReduceMean", [c.node("Pow", [again, c.scalar(2)])], { axes });
  const root = c.node("Sqrt", [c.node("Add", [variance, c.scalar(1e-3)])]);
  const scaled = c.node("Mul", [c.node("Div", [centred, root]), c.floats(scale)]);
  return bias === undefined ? scaled : c.node("Add", [scaled, c.floats(bias)]);
}

const SPELT_NORM = ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"];

rows("norms", [
  ["a layer norm as it is spelt", ["LayerNormalization"], [2, 3, 8], (c) => layerNorm(c)],
  ["one without bias", ["LayerNormalization"], [2, 3, 8], (c) => layerNorm(c, { bias: undefined })],
  [
    "one that subtracts twice",
    ["LayerNormalization"],
    [2, 3, 8],
    (c) => layerNorm(c, { twice: true }),
  ],
  ["not along another axis", SPELT_NORM, [2, 8, 8], (c) => layerNorm(c, { axes: [1] })],
  ["not along two axes", SPELT_NORM, [2, 8, 8], (c) => layerNorm(c, { axes: [-2, -1] })],
  ["not with factors of more axes", SPELT_NORM, [2, 3, 8], (c) => layerNorm(c, { scale: [3, 8] })],
  ["an RMS norm as it is spelt", ["RMSNormalization"], [2, 3, 8], (c) => {
    const mean = c.node("ReduceMean", [c.node("Pow", ["x", c.scalar(2)])], { axes: [-1] });
    const root = c.node("Sqrt", [c.node("Add", [mean, c.scalar(1e-3)])]);
    const y = c.node("Mul", ["x", c.node("Reciprocal", [root])]);
    return c.node("Mul", [c.floats([8]), y]);
  }],
  [
    "no RMS norm of another value's root",
    ["Abs", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"],
    [
      2,
      3,
      8,
    ],
    (c) => {
      const square = c.node("Pow", [c.node("Abs", ["x"]), c.scalar(2)]);
      const mean = c.node("ReduceMean", [square], { axes: [-1] });
      const root = c.node("Sqrt", [c.node("Add", [mean, c.scalar(1e-3)])]);
      return c.node("Mul", [c.node("Div", ["x", root]), c.floats([8])]);
    },
  ],
]);

Deno.test("fuse() leaves a layer norm whose mean is read elsewhere", async () => {
  const c = new Case([2, 3, 8]);
  const mean = c.node("ReduceMean", ["x"], { axes: [-1] });
  const centred = c.node("Sub", ["x", mean]);
  const variance = c.node("ReduceMean", [c.node("Pow", [centred, c.scalar(2)])], { axes: [-1] });
  const root = c.node("Sqrt", [c.node("Add", [variance, c.scalar(1e-3)])]);
  const y = c.node("Mul", [c.node("Div", [centred, root]), c.floats([8])]);
  const { names } = await operatorsOf(c, [y, mean]);
  assert.ok(!names.includes("LayerNormalization"), names.join());
});

interface Attend {
  readonly mask?: readonly number[];
  readonly axis?: number;
  readonly leak?: boolean;
  readonly before?: boolean;
}

/** Attention of x with itself. */
function attend(c: Case, { mask, axis = -1, leak = false, before = false }: Attend): string[] {
  const rank = c.shape.length;
  const perm = [...Array.from({ length: rank - 2 }, (_, i) => i), rank - 1, rank - 2];
  const key = c.node("Transpose", ["x"], { perm });
  const query = before ? c.node("Mul", ["x", c.scalar(0.5)]) : "x";
  let scores = c.node("MatMul", [query, key]);
  if (!before) scores = c.node("Div", [scores, c.scalar(2)]);
  if (mask !== undefined) scores = c.node("Add", [scores, c.floats(mask)]);
  const weights = c.node("Softmax", [scores], { axis });
  return [c.node("MatMul", [weights, "x"]), ...(leak ? [weights] : [])];
}

const ATTENTION = ["Transpose", "wgslide.Attention"];
rows("attention", [
  ["scaled behind the product", ATTENTION, [2, 3, 5, 4], (c) => attend(c, {})],
  ["scaled before it", ATTENTION, [2, 3, 5, 4], (c) => attend(c, { before: true })],
  ["with a mask", ATTENTION, [2, 3, 5, 4], (c) => attend(c, { mask: [5, 5] })],
  [
    "with a mask of more matrices than the scores",
    ATTENTION,
    [1, 1, 5, 4],
    (c) => attend(c, { mask: [2, 3, 5, 5] }),
  ],
  ["of five axes", ATTENTION, [2, 1, 2, 5, 4], (c) => attend(c, {})],
  [
    "not along another axis",
    ["Transpose", "MatMul", "Div", "Softmax", "MatMul"],
    [2, 3, 5, 4],
    (c) => attend(c, { axis: 2 }),
  ],
  ["not along axis 3 of five", ["Transpose", "MatMul", "Div", "Softmax", "MatMul"], [
    2,
    1,
    2,
    5,
    4,
  ], (c) => attend(c, { axis: 3 })],
  ["not where the weights are an output", ["Transpose", "MatMul", "Div", "Softmax", "MatMul"], [
    2,
    3,
    5,
    4,
  ], (c) => attend(c, { leak: true })],
  [
    "not by a Softmax that flattens, before version 13",
    [
      "Transpose",
      "MatMul",
      "Div",
      "Softmax",
      "MatMul",
    ],
    [2, 3, 5, 4],
    (c) => attend(c, { axis: 2 }),
    11,
  ],
]);

Deno.test("fuse() sees what the branches of an If read", async () => {
  // The condition depends on the batch, so that the If is there when fuse() runs.
  const branch = (name: string, op: string, inputs: string) => ({
    name,
    node: [node(op, inputs, name)],
    output: [value(name, [1])],
  });
  const bytes = modelBytes({
    inputs: [value("x", ["batch", 1, 3, 3])],
    outputs: [value("y", [1])],
    constants: [],
    nodes: [
      node("Constant", "", "w", {
        value: { type: "float32", shape: [1, 1, 1, 1], data: Float32Array.of(2) },
      }),
      node("Shape", "x", "shape", { start: 0, end: 1 }),
      node("Constant", "", "limit", {
        value: { type: "int64", shape: [1], data: BigInt64Array.of(2n) },
      }),
      node("Less", "shape limit", "few"),
      node("Conv", "x w", "conv"),
      node("Relu", "conv", "active"),
      node("If", "few", "picked", {
        then_branch: branch("then", "Identity", "conv"),
        else_branch: branch("else", "Neg", "conv"),
      }),
      node("Add", "active picked", "y"),
    ],
  });
  const graph = await readModel(bytes);
  assert.ok(graph.nodes.some(({ op }) => op === "If"), "the If is not settled yet");
  const after = fuse(graph);
  const conv = after.nodes.find(({ op }) => op === "Conv")!;
  assert.equal(operatorName(conv), "Conv", "nothing goes into a convolution that a branch reads");
  assert.ok(
    after.nodes.findIndex(({ op }) => op === "Conv") <
      after.nodes.findIndex(({ op }) => op === "If"),
    "what a branch reads comes before it",
  );
});

Deno.test("fuse() ends in time on ten thousand products in a row", async () => {
  const c = new Case([4]);
  let y = "x";
  for (let i = 0; i < 10_000; i++) y = c.node("Mul", [y, c.scalar(1 + 1e-5)]);
  c.writer.output(y, "float32", [4]);
  const graph = await readModel(c.writer.bytes());
  const start = performance.now();
  fuse(graph);
  // Some tens of milliseconds; taking every chain apart to its end would be 10⁸ steps, or no stack.
  assert.ok(performance.now() - start < 3000);
});
