import assert from "node:assert/strict";
import { join } from "node:path";
import { cpuUsage } from "node:process";
import { ModelError } from "../../src/errors.ts";
import { specialise } from "../../src/model/fold.ts";
import { type Graph, isExternal } from "../../src/model/graph.ts";
import { type HostTensor, numbersOf, tensorOf } from "../../src/model/host_tensor.ts";
import { readModel } from "../../src/model/onnx.ts";
import { ELEMENT, encode, MODEL, type TensorProto, type Written } from "../../src/model/proto.ts";
import { protoOfTensor } from "../../src/model/tensor_proto.ts";
import { dataPath } from "../data.ts";
import { runOnHost } from "../reference/onnx.ts";
import { uniform } from "../reference/random.ts";
import { attribute, modelBytes, modelProto, node, value } from "./model_builder.ts";

/**
 * How long a file that is not a model may take, and what memory it may claim. Time is the
 * process's own on the processor: other work on the machine is not the file's fault.
 */
const LIMIT_MS = 2000;
const LIMIT_BYTES = 1 << 30;

function spentMs(): number {
  const { user, system } = cpuUsage();
  return (user + system) / 1000;
}

/** The error that reading gives, within the bounds. */
async function refused(source: Uint8Array | string, pattern: RegExp): Promise<ModelError> {
  const before = Deno.memoryUsage().rss;
  const started = spentMs();
  let error: unknown;
  try {
    await readModel(source);
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(error instanceof ModelError, `not refused with a ModelError: ${error}`);
  assert.match(error.message, pattern);
  assert.ok(spentMs() - started < LIMIT_MS, "it took too long");
  assert.ok(Deno.memoryUsage().rss - before < LIMIT_BYTES, "it took too much memory");
  return error;
}

function constant(name: string, tensor: HostTensor): Written<TensorProto> {
  return protoOfTensor(tensor, name);
}

const floatsOf = (...list: number[]) => tensorOf("float32", [list.length], list);
const int64s = (...list: number[]) => tensorOf("int64", [list.length], list);

/** What a graph without inputs gives. */
function outputsOf(graph: Graph, inputs: Record<string, HostTensor> = {}): number[][] {
  return Object.values(runOnHost(graph, inputs)).map((t) => Array.from(numbersOf(t)));
}

Deno.test("readModel() gives inputs without initialisers, open dimensions named", async () => {
  const graph = await readModel(modelBytes({
    nodes: [node("Add", "x w", "y")],
    inputs: [value("x", ["batch", 3]), value("w", [3])],
    outputs: [value("y", ["batch", 3])],
    constants: [constant("w", floatsOf(1, 2, 3))],
  }));
  assert.deepEqual(graph.inputs, [{ name: "x", type: "float32", shape: ["batch", 3] }]);
  assert.deepEqual(graph.outputs, [{ name: "y", type: "float32", shape: ["batch", 3] }]);
  const x = tensorOf("float32", [2, 3], [0, 0, 0, 1, 1, 1]);
  assert.deepEqual(outputsOf(graph, { x }), [[1, 2, 3, 2, 3, 4]]);
});

Deno.test("readModel() reads every element type from lists and from raw bytes", async () => {
  const cases: [keyof typeof ELEMENT, Written<TensorProto>, number[]][] = [
    ["float32", { float_data: [1.5, -2] }, [1.5, -2]],
    ["float64", { double_data: [0.1, -2] }, [0.1, -2]],
    ["float16", { int32_data: [0x3e00, 0xc000] }, [1.5, -2]],
    ["bfloat16", { int32_data: [0x3fc0, 0xc000] }, [1.5, -2]],
    ["int8", { int32_data: [127, -128] }, [127, -128]],
    ["uint8", { int32_data: [255, 0] }, [255, 0]],
    ["int16", { int32_data: [-32768, 5] }, [-32768, 5]],
    ["uint16", { int32_data: [65535, 5] }, [65535, 5]],
    ["int32", { int32_data: [-1, 5] }, [-1, 5]],
    ["uint32", { uint64_data: [4294967295, 5] }, [4294967295, 5]],
    ["int64", { int64_data: [-1, 2 ** 40] }, [-1, 2 ** 40]],
    ["uint64", { uint64_data: [1, 2 ** 40] }, [1, 2 ** 40]],
    ["bool", { int32_data: [1, 0] }, [1, 0]],
  ];
  for (const [type, lists, expected] of cases) {
    const listed = { dims: [2], data_type: ELEMENT[type], name: "c", ...lists };
    const raw = constant("c", tensorOf(type as "float32", [2], expected));
    for (const proto of [listed, raw]) {
      const graph = await readModel(modelBytes({
        nodes: [node("Identity", "c", "y")],
        outputs: [value("y", [2], type as "float32")],
        constants: [proto],
      }));
      assert.equal(graph.outputs[0]!.type, type);
      assert.deepEqual(outputsOf(graph), [expected], type);
    }
  }
});

Deno.test("readModel() does not copy raw data that are aligned", async () => {
  for (let shift = 0; shift < 4; shift++) {
    const bytes = modelBytes({
      nodes: [node("Mul", "x c", "y")],
      inputs: [value("x", ["n"])],
      outputs: [value("y", ["n"])],
      constants: [constant("c", floatsOf(1, 2, 3, 4))],
    });
    const memory = new Uint8Array(bytes.length + shift);
    memory.set(bytes, shift);
    const graph = await readModel(memory.subarray(shift));
    const c = graph.constants.get("c")!;
    assert.ok(!isExternal(c));
    assert.deepEqual(Array.from(numbersOf(c)), [1, 2, 3, 4]);
    const at = memory.findIndex((_, i) =>
      new Float32Array(memory.slice(i, i + 16).buffer).join() === "1,2,3,4"
    );
    assert.equal(c.data.buffer === memory.buffer, at % 4 === 0);
  }
});

function externalProto(
  name: string,
  shape: number[],
  entries: Record<string, string>,
): Written<TensorProto> {
  return {
    name,
    dims: shape,
    data_type: ELEMENT.float32,
    data_location: 1,
    external_data: Object.entries(entries).map(([key, value]) => ({ key, value })),
  };
}

function externalModel(shape: number[], entries: Record<string, string>): Uint8Array<ArrayBuffer> {
  return modelBytes({
    nodes: [node("Add", "x w", "y")],
    inputs: [value("x", ["n"])],
    outputs: [value("y", ["n"])],
    constants: [externalProto("w", shape, entries)],
  });
}

Deno.test("readModel() finds weights beside the model, beyond 4 GiB too", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const offset = 5 * 2 ** 30;
    const count = 1 << 15;
    const data = Float32Array.from({ length: count }, (_, i) => i);
    {
      using file = await Deno.open(join(folder, "model.onnx.data"), { create: true, write: true });
      await file.seek(offset, Deno.SeekMode.Start); // a hole before
      for (let at = 0; at < data.byteLength;) {
        at += await file.write(new Uint8Array(data.buffer).subarray(at));
      }
    }
    const entries = { location: "model.onnx.data", offset: `${offset}` };
    const path = join(folder, "model.onnx");
    await Deno.writeFile(path, externalModel([count], entries));
    const large = (await readModel(path)).constants.get("w")!;
    assert.ok(isExternal(large));
    assert.equal(large.byteLength, 4 * count);
    const part = await large.read(4000, 8);
    assert.deepEqual([...new Float32Array(part.buffer)], [1000, 1001]);
    await assert.rejects(large.read(4 * count - 4, 8), RangeError);
    // A small one is read at once.
    await Deno.writeFile(path, externalModel([2], { ...entries, length: "8" }));
    const small = (await readModel(path)).constants.get("w")!;
    assert.ok(!isExternal(small));
    assert.deepEqual(Array.from(numbersOf(small)), [0, 1]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("readModel() refuses data beside the model that are not there or not its own", async () => {
  const parent = await Deno.makeTempDir();
  try {
    const folder = join(parent, "model");
    await Deno.mkdir(folder);
    await Deno.writeFile(join(parent, "secret"), new Uint8Array(64));
    await Deno.writeFile(join(folder, "data"), new Uint8Array(64));
    await Deno.symlink(join(parent, "secret"), join(folder, "link"));
    const path = join(folder, "model.onnx");
    const cases: [Record<string, string>, RegExp][] = [
      [{ location: "../secret" }, /"w".*leaves the model's folder/],
      [{ location: join(parent, "secret") }, /leaves the model's folder|cannot be opened/],
      [{ location: "link" }, /leaves the model's folder/],
      [{ location: "." }, /leaves the model's folder|is no file/],
      [{ location: "none" }, /"none" cannot be opened/],
      [{ location: "data", offset: "60" }, /ends at byte 68 of "data", which has 64/],
      [{ location: "data", offset: "-4" }, /its offset is "-4"/],
      [{ location: "data", offset: "1e3" }, /its offset is "1e3"/],
      [{ location: "data", length: "4" }, /takes 8 bytes, 4 are claimed/],
      [{}, /its file is not named/],
    ];
    for (const [entries, pattern] of cases) {
      await Deno.writeFile(path, externalModel([2], entries));
      await refused(path, pattern);
    }
    await refused(externalModel([2], { location: "data" }), /was given as bytes/);
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
});

Deno.test("readModel() writes a function's nodes in place of its calls", async () => {
  const scaled = {
    name: "Scaled",
    domain: "own",
    input: ["a"],
    output: ["b"],
    attribute: ["alpha"],
    attribute_proto: [attribute("beta", 0.5)],
    opset_import: [{ domain: "", version: 17 }],
    node: [
      node("LeakyRelu", "a", "t", {}, {
        attribute: [{ name: "alpha", ref_attr_name: "alpha", type: 1 }],
      }),
      node("Elu", "t", "b", {}, {
        attribute: [{ name: "alpha", ref_attr_name: "beta", type: 1 }],
      }),
    ],
  };
  const twice = {
    name: "Twice",
    domain: "own",
    input: ["t"],
    output: ["b", "t"],
    opset_import: [{ domain: "", version: 17 }, { domain: "own", version: 1 }],
    node: [
      node("Scaled", "t", "m", { alpha: 0.25 }, { domain: "own" }),
      node("Scaled", "m", "b", {}, { domain: "own" }),
    ],
  };
  const graph = await readModel(modelBytes({
    nodes: [node("Twice", "x", "y z", {}, { domain: "own" })],
    inputs: [value("x", [2])],
    outputs: [value("y", [2]), value("z", [2])],
    functions: [scaled, twice],
  }));
  assert.deepEqual(graph.nodes.map(({ op }) => op), [
    "LeakyRelu",
    "Elu",
    "LeakyRelu",
    "Elu",
    "Identity",
  ]);
  const alphas = graph.nodes.map(({ attributes }) => attributes.get("alpha"));
  assert.deepEqual(alphas, [0.25, 0.5, undefined, 0.5, undefined]);
  const [y, z] = outputsOf(graph, { x: floatsOf(-1, 1) });
  const elu = (v: number) => Math.fround(v < 0 ? 0.5 * Math.expm1(v) : v);
  assert.deepEqual(y, [elu(Math.fround(0.01 * elu(-0.25))), 1]);
  assert.deepEqual(z, [-1, 1]);
});

Deno.test("readModel() refuses functions that call themselves or grow without bound", async () => {
  const calling = (name: string, ...called: string[]) => ({
    name,
    domain: "own",
    input: ["a"],
    output: ["b"],
    opset_import: [{ domain: "", version: 17 }, { domain: "own", version: 1 }],
    node: called.map((op, i) =>
      node(op, i === 0 ? "a" : `t${i}`, i === called.length - 1 ? "b" : `t${i + 1}`, {}, {
        domain: op === "Relu" ? "" : "own",
      })
    ),
  });
  const model = (...functions: ReturnType<typeof calling>[]) =>
    modelBytes({
      nodes: [node(functions[0]!.name, "x", "y", {}, { domain: "own" })],
      inputs: [value("x", [2])],
      outputs: [value("y", [2])],
      functions,
    });
  await refused(model(calling("F", "G"), calling("G", "F")), /function "F" calls itself/);
  await refused(model(calling("F", "F")), /function "F" calls itself/);
  await refused(model(calling("F", "Relu"), calling("F", "Relu")), /"F" is defined twice/);
  const doubling = Array.from(
    { length: 30 },
    (_, i) => calling(`F${i}`, ...(i === 29 ? ["Relu"] : [`F${i + 1}`, `F${i + 1}`])),
  );
  await refused(model(...doubling), /more than 262144 nodes/);
});

/** y = x where `condition` holds, else −x; the condition is a value of the graph. */
function branching(
  nodes: Parameters<typeof modelBytes>[0]["nodes"],
  constants: Written<TensorProto>[] = [],
): Uint8Array<ArrayBuffer> {
  const branch = (op: string) => ({
    name: op,
    node: [node(op, "x", `${op}_out`)],
    output: [value(`${op}_out`, ["n"])],
  });
  return modelBytes({
    nodes: [
      ...nodes,
      node("If", "condition", "y", {
        then_branch: branch("Abs"),
        else_branch: branch("Neg"),
      }),
    ],
    inputs: [value("x", ["n"])],
    outputs: [value("y", ["n"])],
    constants,
  });
}

Deno.test("readModel() takes the branch that a constant chooses", async () => {
  for (const condition of [1, 0]) {
    const graph = await readModel(
      branching([], [constant("condition", tensorOf("bool", [], [condition]))]),
    );
    assert.deepEqual(graph.nodes.map(({ op }) => op), [condition ? "Abs" : "Neg", "Identity"]);
    assert.deepEqual(outputsOf(graph, { x: floatsOf(-2) }), [[2]]);
  }
});

Deno.test("specialise() takes the branch that shapes choose", async () => {
  const graph = await readModel(branching(
    [node("Size", "x", "size"), node("Equal", "size three", "condition")],
    [constant("three", tensorOf("int64", [], [3]))],
  ));
  assert.ok(graph.nodes.some(({ op }) => op === "If"));
  for (const [n, op] of [[3, "Abs"], [4, "Neg"]] as const) {
    const { steps } = specialise(graph, { x: [n] });
    assert.deepEqual(steps.map((step) => step.node.op), [op, "Identity"]);
  }
});

Deno.test("readModel() refuses a branch that data choose, and a loop, by name", async () => {
  const nodes = [
    node("ReduceMax", "x", "most", { keepdims: 0 }),
    node("Cast", "most", "condition", { to: ELEMENT.bool }),
  ];
  const error = await refused(branching(nodes), /"If": its condition depends on data \(node "y"\)/);
  assert.deepEqual(error.problems, [
    { node: "y", operator: "If", what: "its condition depends on data" },
  ]);
  const loop = modelBytes({
    nodes: [node("Loop", ",,x", "y", { body: { name: "b", node: [], output: [] } })],
    inputs: [value("x", [1])],
    outputs: [value("y", [1])],
  });
  await refused(loop, /operator "Loop" \(node "y"\)/);
});

Deno.test("readModel() names everything that is not supported at once", async () => {
  const error = await refused(
    modelBytes({
      nodes: [
        node("Foo", "x", "a", {}, { name: "first" }),
        node("Foo", "a", "b", {}, { name: "second" }),
        node("Bar", "b", "c", {}, { domain: "vendor" }),
        node("Relu", "x", "d", { colour: 1 }),
        node("Cast", "d", "e", { to: ELEMENT.string }),
        node("Sum", "c e s", "y"),
      ],
      inputs: [value("x", [1])],
      outputs: [value("y", [1])],
      constants: [{ name: "s", dims: [1], data_type: ELEMENT.int4, int32_data: [1] }],
    }),
    /^Cannot run the model/,
  );
  const lines = error.message.split("\n").slice(1).map((line) => line.trim()).sort();
  assert.deepEqual(lines, [
    'initialiser "s" of int4 (node "s")',
    'operator "Cast": attribute "to" asks for string (node "e")',
    'operator "Foo" (nodes "first", "second")',
    'operator "Relu": attribute "colour" (node "d")',
    'operator "vendor.Bar" (node "c")',
  ]);
});

Deno.test("readModel() reports what the caller cannot run with the rest", async () => {
  const bytes = modelBytes({
    nodes: [node("Relu", "x", "y")],
    inputs: [value("x", [1])],
    outputs: [value("y", [1])],
  });
  const check = (graph: Graph) =>
    graph.nodes.map(({ name, op }) => ({ node: name, operator: op, what: "no kernel" }));
  await assert.rejects(readModel(bytes, { check }), /operator "Relu": no kernel \(node "y"\)/);
});

Deno.test("readModel() sorts nodes, and refuses those that wait for each other", async () => {
  const parts = { inputs: [value("x", [1])], outputs: [value("y", [1])] };
  const nodes = [node("Neg", "b", "y"), node("Exp", "a", "b"), node("Abs", "x", "a")];
  const graph = await readModel(modelBytes({ ...parts, nodes }));
  assert.deepEqual(graph.nodes.map(({ op }) => op), ["Abs", "Exp", "Neg"]);
  const cycle = [node("Add", "x b", "a"), node("Neg", "a", "b"), node("Exp", "b", "y")];
  await refused(
    modelBytes({ ...parts, nodes: cycle }),
    /node "a" \(Add\) waits for its own output/,
  );
  await refused(modelBytes({ ...parts, nodes: [node("Add", "x y", "y")] }), /waits for its own/);
  const long = Array.from(
    { length: 20000 },
    (_, i) => node("Neg", i === 0 ? "x" : `v${i - 1}`, i === 19999 ? "y" : `v${i}`),
  ).reverse();
  assert.equal((await readModel(modelBytes({ ...parts, nodes: long }))).nodes.length, 20000);
});

Deno.test("readModel() refuses names that are given twice or not at all", async () => {
  const parts = { inputs: [value("x", [1])], outputs: [value("y", [1])] };
  const twice = [node("Abs", "x", "y"), node("Neg", "x", "y")];
  await refused(modelBytes({ ...parts, nodes: twice }), /value "y" is given twice/);
  await refused(modelBytes({ ...parts, nodes: [node("Abs", "x", "x")] }), /"x" is given twice/);
  await refused(
    modelBytes({ ...parts, nodes: [node("Abs", "q", "y")] }),
    /node "y" \(Abs\) reads "q", which nothing gives/,
  );
  await refused(modelBytes({ ...parts, nodes: [] }), /output "y" is given by no node/);
  await refused(
    modelBytes({
      ...parts,
      nodes: [node("Abs", "x", "y")],
      constants: [constant("c", floatsOf(1)), constant("c", floatsOf(2))],
    }),
    /initialiser "c" is given twice/,
  );
});

Deno.test("readModel() leaves out what nobody reads, copies, and what constants settle", async () => {
  const graph = await readModel(modelBytes({
    nodes: [
      node("Constant", "", "two", { value: floatsOf(2) }),
      node("Mul", "two two", "four"),
      node("Identity", "x", "copy"),
      node("Dropout", "copy", "kept"),
      node("Add", "kept four", "y"),
      node("Exp", "x", "unread"),
    ],
    inputs: [value("x", ["n"])],
    outputs: [value("y", ["n"])],
  }));
  assert.deepEqual(graph.nodes.map(({ op, inputs }) => [op, ...inputs]), [["Add", "x", "four"]]);
  assert.deepEqual([...graph.constants.keys()], ["four"]);
});

Deno.test("readModel() leaves out inputs and outputs at the end that are none or unread", async () => {
  const graph = await readModel(modelBytes({
    nodes: [
      node("Clip", "x,zero,", "c,"),
      node("MaxPool", "c", "p indices", { kernel_shape: [1] }),
      node("Split", "p", "y unread", { axis: 2 }),
    ],
    inputs: [value("x", [1, 1, "n"])],
    outputs: [value("y", [1, 1, "m"])],
    constants: [constant("zero", tensorOf("float32", [], [0]))],
  }));
  const shown = graph.nodes.map(({ op, inputs, outputs }) => [op, [...inputs], [...outputs]]);
  assert.deepEqual(shown, [
    ["Clip", ["x", "zero"], ["c"]],
    ["MaxPool", ["c"], ["p"]],
    ["Split", ["p"], ["y", "unread"]],
  ]);
});

Deno.test("specialise() settles chains that compute shapes", async () => {
  const graph = await readModel(modelBytes({
    nodes: [
      node("Shape", "x", "shape"),
      node("Gather", "shape zero", "batch"),
      node("Unsqueeze", "batch axes", "first"),
      node("Concat", "first rest", "target", { axis: 0 }),
      node("Reshape", "x target", "y"),
    ],
    inputs: [value("x", ["batch", 2, 3])],
    outputs: [value("y", ["batch", "m"])],
    constants: [
      constant("zero", tensorOf("int64", [], [0])),
      constant("axes", int64s(0)),
      constant("rest", int64s(-1)),
    ],
  }));
  const { steps, values, constants } = specialise(graph, { x: [5, 2, 3] });
  assert.deepEqual(steps.map(({ node }) => node.op), ["Reshape"]);
  assert.deepEqual(values.get("y")?.shape, [5, 6]);
  const target = constants.get("target");
  assert.ok(target !== undefined && !isExternal(target));
  assert.deepEqual(Array.from(numbersOf(target)), [5, -1]);
  assert.throws(() => specialise(graph, { x: [5, 2, 4] }), RangeError);
  assert.throws(() => specialise(graph, {}), RangeError);
});

Deno.test("specialise() leaves shapes open that depend on data", async () => {
  const graph = await readModel(modelBytes({
    nodes: [node("NonZero", "x", "places"), node("Transpose", "places", "y")],
    inputs: [value("x", ["n"])],
    outputs: [value("y", ["m", 1], "int64")],
  }));
  const { values } = specialise(graph, { x: [4] });
  assert.deepEqual(values.get("y"), { type: "int64", shape: undefined, known: undefined });
  assert.deepEqual(outputsOf(graph, { x: floatsOf(0, 1, 0, 2) }), [[1, 3]]);
});

Deno.test("readModel() refuses versions of the operators that it does not know", async () => {
  const bytes = modelBytes({
    nodes: [node("Abs", "x", "y")],
    inputs: [value("x", [1])],
    outputs: [value("y", [1])],
    opset: 99,
  });
  await refused(bytes, /version 99 of ONNX's operators; 1 to 25 are/);
});

Deno.test("readModel() refuses a model of another's operators", async () => {
  const path = dataPath("onnx-bad/super-resolution-custom-domain.onnx");
  if (path === undefined) return;
  await refused(path, /operator "ai\.onnx\.contrib\.\w+" \(node/);
});

Deno.test("readModel() refuses files that are none", async () => {
  await refused(new Uint8Array(0), /it has no graph/);
  await refused(
    new TextEncoder().encode("PK\x03\x04 this is a zip"),
    /it may be cut short, or be no ONNX file$/,
  );
  await refused("/nowhere/model.onnx", /Cannot read the model "\/nowhere\/model\.onnx"/);
  await refused(".", /Cannot read the model "\."/);
});

/** Reads, and plans where that succeeds: nothing but a graph or a ModelError, within the bounds. */
async function survives(bytes: Uint8Array, what: string): Promise<boolean> {
  const before = Deno.memoryUsage().rss;
  const started = spentMs();
  let isRead = false;
  try {
    const graph = await readModel(bytes);
    isRead = true;
    const shapes = Object.fromEntries(graph.inputs.map(({ name, shape }) => {
      return [name, (shape ?? []).map((d) => typeof d === "number" ? d : 2)];
    }));
    specialise(graph, shapes);
  } catch (error) {
    assert.ok(error instanceof ModelError, `${what}: ${error instanceof Error && error.stack}`);
  }
  const elapsed = spentMs() - started;
  assert.ok(elapsed < LIMIT_MS, `${what} took ${elapsed} ms`);
  assert.ok(Deno.memoryUsage().rss - before < LIMIT_BYTES, `${what} took too much memory`);
  return isRead;
}

/** Models with every kind of message in them. */
function samples(): [string, Uint8Array<ArrayBuffer>][] {
  const own = branching(
    [node("Size", "x", "size"), node("Equal", "size three", "condition")],
    [constant("three", tensorOf("int64", [], [3]))],
  );
  const found: [string, Uint8Array<ArrayBuffer>][] = [["own", own]];
  const paths = [
    "node/test_resize_downsample_sizes_cubic/model.onnx",
    "models/mnist-8/model.onnx",
    "light/light_shufflenet.onnx",
  ];
  for (const name of paths) {
    const path = dataPath(`onnx/${name}`);
    if (path !== undefined) found.push([name, Deno.readFileSync(path)]);
  }
  return found;
}

Deno.test("readModel() survives truncation anywhere", async () => {
  for (const [name, bytes] of samples()) {
    const next = uniform(1);
    const lengths = bytes.length < 1000
      ? Array.from({ length: bytes.length }, (_, i) => i)
      : Array.from({ length: 150 }, () => Math.floor(next() * bytes.length));
    for (const length of lengths) {
      await survives(bytes.subarray(0, length), `${name} cut to ${length}`);
    }
  }
});

Deno.test("readModel() survives flipped bits", async () => {
  let [read, all] = [0, 0];
  for (const [name, bytes] of samples()) {
    const next = uniform(2);
    for (let trial = 0; trial < (bytes.length < 1000 ? 600 : 150); trial++) {
      const broken = bytes.slice();
      const flips = 1 + Math.floor(4 * next());
      for (let i = 0; i < flips; i++) {
        const at = Math.floor(next() * broken.length);
        broken[at]! ^= 1 << Math.floor(8 * next());
      }
      all++;
      if (await survives(broken, `${name}, trial ${trial}`)) read++;
    }
  }
  assert.ok(read > 0 && read < all, `${read} of ${all} were read`);
});

Deno.test("readModel() refuses tensors whose shape is not that of their data", async () => {
  const lie = (proto: Written<TensorProto>) =>
    modelBytes({
      nodes: [node("Identity", "c", "y")],
      outputs: [value("y", ["n"])],
      constants: [{ name: "c", data_type: ELEMENT.float32, ...proto }],
    });
  const raw = new Uint8Array(8);
  await refused(lie({ dims: [3], raw_data: raw }), /\[3\] of float32 takes 12 bytes, it has 8/);
  await refused(lie({ dims: [2 ** 40], raw_data: raw }), /claims a dimension of 1099511627776/);
  await refused(lie({ dims: [-1], raw_data: raw }), /claims a dimension of -1/);
  await refused(
    lie({ dims: [2 ** 30, 2 ** 30], raw_data: raw }),
    /takes 4611686018427388000 bytes/,
  );
  await refused(
    lie({ dims: [2 ** 31 - 1], float_data: [1] }),
    /has 2147483647 elements, its list 1/,
  );
  await refused(lie({ dims: [] }), /has 1 elements, its list 0/);
  await refused(lie({ dims: new Array(65).fill(1), float_data: [1] }), /has 65 axes/);
});

Deno.test("a shape that is only claimed takes no memory", async () => {
  const huge = (nodes: ReturnType<typeof node>[], ...constants: Written<TensorProto>[]) =>
    modelBytes({
      nodes,
      inputs: [value("x", [1])],
      outputs: [value("y", ["n"])],
      constants,
    });
  const side = constant("side", int64s(2 ** 30, 2 ** 30));
  const cases: [string, Uint8Array][] = [
    ["ConstantOfShape", huge([node("ConstantOfShape", "side", "y")], side)],
    ["Expand", huge([node("Expand", "x side", "y")], side)],
    ["Tile", huge([node("Tile", "x n", "y")], constant("n", int64s(2 ** 30)))],
    [
      "Range",
      huge(
        [node("Range", "a b c", "y")],
        ...["a", "b", "c"].map((name, i) =>
          constant(name, tensorOf("int64", [], [[0, 2 ** 30, 1][i]!]))
        ),
      ),
    ],
    [
      "chain",
      huge([
        node("ConstantOfShape", "n", "v0"),
        ...Array.from(
          { length: 400 },
          (_, i) => node("Exp", `v${i}`, i === 399 ? "y" : `v${i + 1}`),
        ),
      ], constant("n", int64s(1 << 22))),
    ],
    [
      "MatMul",
      huge([
        node("ConstantOfShape", "n", "a"),
        node("MatMul", "a a", "b"),
        node("MatMul", "b b", "y"),
      ], constant("n", int64s(4000, 4000))),
    ],
    ["Pad", huge([node("Pad", "x n", "y")], constant("n", int64s(0, 2 ** 31 - 2)))],
    [
      "Conv",
      huge([
        node("Reshape", "x s", "a"),
        node("Conv", "a a", "y", {
          pads: [2 ** 30, 2 ** 30],
        }),
      ], constant("s", int64s(1, 1, 1))),
    ],
  ];
  for (const [name, bytes] of cases) await survives(bytes, name);
});

/** `depth` times a message within itself: lengths first, so that it is written once. */
function nested(depth: number, tags: readonly number[]): Uint8Array {
  const varint = (n: number) => {
    const bytes: number[] = [];
    for (; n > 127; n = Math.floor(n / 128)) bytes.push((n & 127) | 128);
    return [...bytes, n];
  };
  const headers: number[][] = [];
  let length = 0;
  for (let i = 0; i < depth; i++) {
    const header = [tags[(depth - 1 - i) % tags.length]!, ...varint(length)];
    headers.push(header);
    length += header.length;
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const header of headers.reverse()) for (const byte of header) bytes[at++] = byte;
  return bytes;
}

Deno.test("readModel() refuses messages that nest without end, or are too many", async () => {
  // ModelProto.graph, then GraphProto.node, NodeProto.attribute, AttributeProto.g over and over.
  const within = nested(1_000_000, [(1 << 3) | 2, (5 << 3) | 2, (6 << 3) | 2]);
  const graph = (body: Uint8Array) => {
    const header = [(7 << 3) | 2];
    let n = body.length;
    for (; n > 127; n = Math.floor(n / 128)) header.push((n & 127) | 128);
    const bytes = new Uint8Array(header.length + 1 + body.length);
    bytes.set([...header, n]);
    bytes.set(body, header.length + 1);
    return bytes;
  };
  await refused(graph(within), /nest deeper than/);
  const nodes = new Uint8Array(4_000_000);
  for (let i = 0; i < nodes.length; i += 2) nodes[i] = (1 << 3) | 2; // an empty node each
  await refused(graph(nodes), /more than 524288 messages/);
});

Deno.test("a node may read more than a call takes arguments", async () => {
  const bytes = modelBytes({
    nodes: [node("Sum", new Array(300_000).fill("x").join(" "), "y")],
    inputs: [value("x", [1])],
    outputs: [value("y", [1])],
  });
  await survives(bytes, "Sum of 300000");
});

Deno.test("a model is read as it was written", async () => {
  const proto = modelProto({
    nodes: [node("Gemm", "x w", "y", { transB: 1, alpha: 0.5 }, { name: "layer" })],
    inputs: [value("x", ["batch", 2])],
    outputs: [value("y", ["batch", 3])],
    constants: [constant("w", tensorOf("float32", [3, 2], [1, 2, 3, 4, 5, 6]))],
  });
  const graph = await readModel(encode(proto, MODEL));
  assert.equal(graph.name, "test");
  const [gemm] = graph.nodes;
  assert.deepEqual([gemm!.name, gemm!.op, gemm!.domain, gemm!.opset], ["layer", "Gemm", "", 17]);
  assert.deepEqual(Object.fromEntries(gemm!.attributes), { transB: 1, alpha: 0.5 });
  const x = tensorOf("float32", [1, 2], [1, 1]);
  assert.deepEqual(outputsOf(graph, { x }), [[1.5, 3.5, 5.5]]);
});
