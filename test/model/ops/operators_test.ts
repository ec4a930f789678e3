import assert from "node:assert/strict";
import cases from "../../fixtures/onnx_cases.json" with { type: "json" };
import { ModelError } from "../../../src/errors.ts";
import { specialise } from "../../../src/model/fold.ts";
import type { ValueInfo } from "../../../src/model/graph.ts";
import { type HostTensor, numbersOf, tensorOf } from "../../../src/model/host_tensor.ts";
import { readModel } from "../../../src/model/onnx.ts";
import { decode, type NodeProto, TENSOR, type Written } from "../../../src/model/proto.ts";
import { elementType, tensorOfProto } from "../../../src/model/tensor_proto.ts";
import { difference, runOnHost } from "../../reference/onnx.ts";
import { floats } from "../../reference/random.ts";
import { modelBytes, type ModelParts, node, value } from "../model_builder.ts";

function tensorOfCase(base64: string): HostTensor {
  const proto = decode(Uint8Array.fromBase64(base64), TENSOR, "a case's tensor");
  return tensorOfProto(proto, elementType(proto.data_type).type!, "a case's tensor");
}

for (const [name, { model, inputs, outputs }] of Object.entries(cases)) {
  Deno.test(`ONNX's case ${name} is met on the host`, async () => {
    const graph = await readModel(Uint8Array.fromBase64(model));
    const given = graph.inputs.map(({ name }, i) => [name, tensorOfCase(inputs[i]!)] as const);
    const got = runOnHost(graph, Object.fromEntries(given));
    graph.outputs.forEach(({ name }, i) => {
      assert.equal(difference(got[name], tensorOfCase(outputs[i]!)), undefined, name);
    });
  });
}

function random(shape: readonly number[], seed: number): HostTensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return tensorOf("float32", shape, floats(count, seed));
}

const list = (...numbers: number[]) => tensorOf("float32", [numbers.length], numbers);
const int64s = (...numbers: number[]) => tensorOf("int64", [numbers.length], numbers);

/** Values a, b, … in, the values named y, z, … out. */
async function run(
  nodes: readonly Written<NodeProto>[],
  inputs: readonly HostTensor[],
  outputs = "y",
  more: Partial<ModelParts> = {},
): Promise<HostTensor[]> {
  const names = "abcdefgh";
  const graph = await readModel(modelBytes({
    nodes,
    inputs: inputs.map(({ type, shape }, i) => value(names[i]!, shape, type)),
    outputs: outputs.split(" ").map((name) => value(name, [])),
    ...more,
  }));
  const given = Object.fromEntries(inputs.map((tensor, i) => [names[i]!, tensor]));
  return Object.values(runOnHost(graph, given));
}

const microsoft = { domain: "com.microsoft" };

/** Operators of ONNX Runtime, and what they are by ONNX's own. */
const SYNONYMS: [
  string,
  Written<NodeProto>[],
  Written<NodeProto>[],
  HostTensor[],
][] = [
  [
    "Gelu",
    [node("Gelu", "a", "y", {}, microsoft)],
    [node("Gelu", "a", "y")],
    [random([3, 5], 1)],
  ],
  [
    "FastGelu",
    [node("FastGelu", "a b", "y", {}, microsoft)],
    [node("Add", "a b", "s"), node("Gelu", "s", "y", { approximate: "tanh" })],
    [random([3, 5], 1), random([5], 2)],
  ],
  [
    "BiasGelu",
    [node("BiasGelu", "a b", "y", {}, microsoft)],
    [node("Add", "a b", "s"), node("Gelu", "s", "y")],
    [random([3, 5], 1), random([5], 2)],
  ],
  [
    "QuickGelu",
    [node("QuickGelu", "a", "y", { alpha: 1.5 }, microsoft)],
    [node("Swish", "a", "y", { alpha: 1.5 })],
    [random([3, 5], 1)],
  ],
  [
    "LayerNormalization",
    [node("LayerNormalization", "a b c", "y", {}, microsoft)],
    [node("LayerNormalization", "a b c", "y")],
    [random([3, 5], 1), random([5], 2), random([5], 3)],
  ],
  [
    "SimplifiedLayerNormalization",
    [node("SimplifiedLayerNormalization", "a b", "y", { epsilon: 0.001 })],
    [node("RMSNormalization", "a b", "y", { epsilon: 0.001 })],
    [random([3, 5], 1), random([5], 2)],
  ],
  [
    "SkipLayerNormalization",
    [node("SkipLayerNormalization", "a b c d e", "y,,,z", { epsilon: 0.001 }, microsoft)],
    [
      node("Add", "a b", "s"),
      node("Add", "s e", "z"),
      node("LayerNormalization", "z c d", "y", { epsilon: 0.001 }),
    ],
    [random([2, 3, 5], 1), random([2, 3, 5], 2), random([5], 3), random([5], 4), random([5], 5)],
  ],
  [
    "SkipSimplifiedLayerNormalization",
    [node("SkipSimplifiedLayerNormalization", "a b c d", "y,,,z", { epsilon: 0.001 }, microsoft)],
    [
      node("Add", "a b", "s"),
      node("Add", "s d", "z"),
      node("RMSNormalization", "z c", "y", { epsilon: 0.001 }),
    ],
    [random([2, 3, 5], 1), random([2, 3, 5], 2), random([5], 3), random([5], 4)],
  ],
  [
    "FusedConv",
    [node("FusedConv", "a b c d", "y", { activation: "Relu", pads: [1, 1, 1, 1] }, microsoft)],
    [
      node("Conv", "a b c", "s", { pads: [1, 1, 1, 1] }),
      node("Add", "s d", "t"),
      node("Relu", "t", "y"),
    ],
    [random([1, 2, 4, 5], 1), random([3, 2, 3, 3], 2), random([3], 3), random([1, 3, 4, 5], 4)],
  ],
];

for (const [name, theirs, ours, inputs] of SYNONYMS) {
  Deno.test(`${name} is what ONNX's own operators make of it`, async () => {
    const outputs = theirs[0]!.output!.includes("z") ? "y z" : "y";
    const [a, b] = [
      await run(theirs, inputs, outputs, { opset: 24 }),
      await run(ours, inputs, outputs, { opset: 24 }),
    ];
    a.forEach((tensor, i) => assert.equal(difference(tensor, b[i]!), undefined));
  });
}

Deno.test("CumProd multiplies along an axis", async () => {
  const [y] = await run(
    [node("CumProd", "a b", "y", { reverse: 1 })],
    [list(1, 2, 3), tensorOf("int64", [], [0])],
  );
  assert.deepEqual([...numbersOf(y!)], [6, 6, 3]);
});

Deno.test("GlobalLpPool takes a norm of each channel", async () => {
  const x = tensorOf("float32", [1, 2, 1, 2], [3, -4, 1, 2]);
  const [y] = await run([node("GlobalLpPool", "a", "y")], [x]);
  assert.equal(difference(y, tensorOf("float32", [1, 2, 1, 1], [5, Math.sqrt(5)])), undefined);
});

Deno.test("integers of 64 bits stay exact where they are moved and combined", async () => {
  const big = { type: "int64", shape: [2], data: BigInt64Array.of(2n ** 62n + 1n, -3n) } as const;
  const [sum] = await run([node("Add", "a b", "y")], [big, int64s(1, 1)]);
  assert.deepEqual([...sum!.data], [2n ** 62n + 2n, -2n]);
  const [moved] = await run([node("Gather", "a b", "y")], [big, int64s(1, 0)]);
  assert.deepEqual([...moved!.data], [-3n, 2n ** 62n + 1n]);
  const [chosen] = await run([node("Max", "a b", "y")], [big, int64s(0, 0)]);
  assert.deepEqual([...chosen!.data], [2n ** 62n + 1n, 0n]);
});

Deno.test("Add-6 broadcasts from the axis that it is told", async () => {
  const more = { opset: 6 };
  const x = tensorOf("float32", [1, 2, 2], [0, 0, 0, 0]);
  const nodes = [node("Add", "a b", "y", { broadcast: 1, axis: 1 })];
  const [y] = await run(nodes, [x, list(1, 2)], "y", more);
  assert.deepEqual([...numbersOf(y!)], [1, 1, 2, 2]);
});

Deno.test("Cast rounds to bfloat16 and cuts to integers", async () => {
  const [half] = await run([node("Cast", "a", "y", { to: 16 })], [list(1.00390625, 1.01171875)]);
  assert.deepEqual([...numbersOf(half!)], [1, 1.015625]); // halves to the even one
  const [cut] = await run([node("Cast", "a", "y", { to: 7 })], [list(-1.9, 1.9)]);
  assert.deepEqual([...cut!.data], [-1n, 1n]);
});

/** Nodes that break their operator's specification, and what is said. */
const WRONG: [string, Written<NodeProto>, HostTensor[], RegExp][] = [
  ["Add", node("Add", "a b", "y"), [random([2], 1), random([3], 2)], /\[2\] and \[3\] do not/],
  ["Add", node("Add", "a b", "y"), [random([2], 1), int64s(1, 2)], /types float32, int64/],
  ["Conv", node("Conv", "a b", "y"), [random([1, 3, 4, 4], 1), random([2, 2, 3, 3], 2)], /groups/],
  [
    "Conv",
    node("Conv", "a b", "y"),
    [random([1, 1, 2, 2], 1), random([1, 1, 3, 3], 2)],
    /no window/,
  ],
  [
    "Conv",
    node("Conv", "a b", "y", { strides: [0, 1] }),
    [random([1, 1, 3, 3], 1), random([1, 1, 3, 3], 2)],
    /"strides" has 0/,
  ],
  [
    "Conv",
    node("Conv", "a b", "y", { auto_pad: "SOME" }),
    [random([1, 1, 3, 3], 1), random([1, 1, 3, 3], 2)],
    /"auto_pad" is "SOME"/,
  ],
  ["Conv", node("Conv", "a", "y"), [random([1, 1, 3, 3], 1)], /it has 1 inputs/],
  ["MaxPool", node("MaxPool", "a", "y"), [random([1, 1, 3, 3], 1)], /no kernel_shape/],
  ["MatMul", node("MatMul", "a b", "y"), [random([2, 3], 1), random([2, 3], 2)], /times/],
  ["Gemm", node("Gemm", "a b", "y"), [random([2, 3], 1), random([2, 3], 2)], /times/],
  [
    "Concat",
    node("Concat", "a b", "y", { axis: 0 }),
    [random([2, 3], 1), random([2, 2], 2)],
    /along/,
  ],
  ["Softmax", node("Softmax", "a", "y", { axis: 2 }), [random([2, 3], 1)], /axis 2 is none of 2/],
  ["Transpose", node("Transpose", "a", "y", { perm: [0, 0] }), [random([2, 3], 1)], /perm/],
  [
    "BatchNormalization",
    node("BatchNormalization", "a b b b b", "y", { training_mode: 1 }),
    [random([1, 2, 3], 1), random([2], 2)],
    /training_mode is on/,
  ],
  ["Relu", node("Relu", "a", "y z"), [random([2], 1)], /it has 2 outputs/],
  ["Einsum", node("Einsum", "a", "y", { equation: "ij->k" }), [random([2, 3], 1)], /"ij->k"/],
  [
    "DepthToSpace",
    node("DepthToSpace", "a", "y", { blocksize: 2 }),
    [random([1, 3, 2, 2], 1)],
    /3 ch/,
  ],
];

for (const [name, wrong, inputs, pattern] of WRONG) {
  Deno.test(`${name} says what is wrong: ${pattern.source}`, async () => {
    await assert.rejects(run([wrong], inputs), (error: unknown) => {
      assert.ok(error instanceof ModelError);
      assert.match(error.message, pattern);
      assert.deepEqual([error.node, error.operator], ["y", name]);
      return true;
    });
  });
}

Deno.test("shapes that are wrong only for a run are refused by specialise()", async () => {
  const graph = await readModel(modelBytes({
    nodes: [node("MaxPool", "x", "y", { kernel_shape: [3, 3] }, { name: "pool" })],
    inputs: [value("x", ["n", 1, "h", "w"])],
    outputs: [value("y", [])],
  }));
  const shapeOf = (h: number) => specialise(graph, { x: [2, 1, h, 9] }).values.get("y")?.shape;
  assert.deepEqual(shapeOf(5), [2, 1, 3, 7]);
  assert.throws(() => shapeOf(2), (error: unknown) => {
    assert.ok(error instanceof ModelError);
    assert.deepEqual([error.node, error.operator], ["pool", "MaxPool"]);
    return true;
  });
});

Deno.test("an operator's types are told without shapes", async () => {
  const graph = await readModel(modelBytes({
    nodes: [
      node("NonZero", "x", "places"),
      node("Cast", "places", "numbers", { to: 11 }),
      node("Greater", "numbers numbers", "y"),
    ],
    inputs: [value("x", ["n"])],
    outputs: [{ name: "y" }],
  }));
  assert.deepEqual(
    graph.outputs,
    [
      { name: "y", type: "bool", shape: undefined },
    ] satisfies ValueInfo[],
  );
});
