import assert from "node:assert/strict";
import type { Gpu } from "../../kernels/device.ts";
import { KernelError } from "../../kernels/errors.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { ModelError } from "../../src/errors.ts";
import { fuse } from "../../src/model/fuse.ts";
import type { Graph } from "../../src/model/graph.ts";
import type { DataType, HostTensor } from "../../src/model/host_tensor.ts";
import { channelsLast } from "../../src/model/layout.ts";
import { readModel } from "../../src/model/onnx.ts";
import type { GpuValue } from "../../src/model/plan.ts";
import { ELEMENT } from "../../src/model/proto.ts";
import { loadModel, type Precision, Session } from "../../src/model/session.ts";
import { ModelWriter } from "../../src/model/writer.ts";
import { Tuner } from "../../kernels/tuner.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { runOnHost } from "../reference/onnx.ts";
import { bytes as bytesOf, floats } from "../reference/random.ts";
import {
  type Architecture,
  convnext,
  densenet,
  efficientnetB0,
  resnet18,
  unet,
  vit,
} from "./architectures.ts";
import { modelBytes, node, value } from "./model_builder.ts";

/** Images of [batch, 3, size, size], of which every pixel is in [−1, 1). */
function images(batch: number, size: number, seed: number): HostTensor {
  return {
    type: "float32",
    shape: [batch, 3, size, size],
    data: floats(batch * 3 * size * size, seed),
  };
}

/** Largest difference over the largest absolute value expected. */
function relativeError(actual: HostTensor, expected: HostTensor): number {
  assert.deepEqual(actual.shape, expected.shape);
  let range = 0, worst = 0;
  for (let i = 0; i < expected.data.length; i++) {
    range = Math.max(range, Math.abs(Number(expected.data[i])));
    const difference = Math.abs(Number(actual.data[i]) - Number(expected.data[i]));
    worst = Math.max(worst, Number.isNaN(difference) ? Infinity : difference);
  }
  return worst / range;
}

const CASES: Record<string, { make: () => Architecture; size: number; batch: number }> = {
  "ResNet-18": { make: () => resnet18(32), size: 32, batch: 2 },
  "EfficientNet-B0": { make: () => efficientnetB0(32), size: 32, batch: 1 },
  "U-Net": { make: () => unet(), size: 32, batch: 1 },
  "ViT": {
    make: () => vit({ size: 32, patch: 8, width: 48, heads: 3, depth: 2 }),
    size: 32,
    batch: 2,
  },
  "ViT with spelt layer norms": {
    make: () => vit({ size: 32, patch: 8, width: 48, heads: 3, depth: 2, spelt: true }),
    size: 32,
    batch: 1,
  },
  "ConvNeXt": { make: () => convnext(32), size: 32, batch: 2 },
  "DenseNet": { make: () => densenet(32), size: 32, batch: 2 },
};

// f32: what the issue allows of the output's range; f16 likewise, where each of some tens of layers
// rounds to 2⁻¹¹ of its values.
const BOUNDS: Record<Exclude<Precision, "auto">, number> = { f32: 1e-4, f16: 2e-2 };

async function check(gpu: Gpu, name: string, precision: "f32" | "f16") {
  const { make, size, batch } = CASES[name]!;
  const graph = await readModel(make().bytes);
  const input = images(batch, size, 9);
  const expected = runOnHost(graph, { input });
  const session = new Session(gpu, fuse(graph), { precision });
  const actual = await session.run({ input });
  const error = relativeError(actual.output!, expected.output!);
  assert.ok(error <= BOUNDS[precision], `${error} of the output's range`);
  const plan = await session.plan({ input: input.shape });
  const onHost = plan.laid.parts.flatMap((part) =>
    part.on === "host" ? [part.step.reader.node.op] : []
  );
  assert.deepEqual(onHost, [], "all of it runs on the GPU");
  // The same again: nothing of the first run is left over.
  assert.deepEqual(await session.run({ input }), actual);
  await session.destroy();
}

Deno.test("Session takes the tiles that a tuner timed, and computes the same", async () => {
  const gpu = await sharedGpu();
  const path = await Deno.makeTempFile({ suffix: ".json" });
  await Deno.remove(path);
  try {
    const graph = await readModel(CASES["ViT"]!.make().bytes);
    const input = images(1, 32, 9);
    const tuner = new Tuner(gpu, path);
    const [plain, tuned] = [
      new Session(gpu, fuse(graph)),
      new Session(gpu, fuse(graph), { tuner }),
    ];
    const [expected, actual] = [await plain.run({ input }), await tuned.run({ input })];
    assert.ok(relativeError(actual.output!, expected.output!) <= BOUNDS.f32);
    assert.equal(tuner.problem, undefined);
    await plain.destroy();
    await tuned.destroy();
  } finally {
    await Deno.remove(path).catch(() => {});
  }
});

for (const name of Object.keys(CASES)) {
  Deno.test(`Session runs ${name} as the host does, node by node`, async () => {
    const gpu = await sharedGpu();
    await check(gpu, name, "f32");
  });
  Deno.test(`Session runs ${name} in f16`, async () => {
    const gpu = await sharedGpu();
    if (!gpu.features.has("shader-f16")) return console.log("skipped: no f16");
    await check(gpu, name, "f16");
  });
}

/** A model written node by node. @param write gives the names of its outputs and their types. */
async function graphOf(
  inputs: Readonly<Record<string, readonly [DataType, readonly (number | string)[]]>>,
  write: (w: ModelWriter) => Readonly<Record<string, DataType>>,
  opset = 17,
): Promise<Graph> {
  const writer = new ModelWriter("test", opset);
  for (const [name, [type, shape]] of Object.entries(inputs)) writer.input(name, type, shape);
  for (const [name, type] of Object.entries(write(writer))) writer.output(name, type, []);
  return fuse(await readModel(writer.bytes()));
}

function tensor(shape: readonly number[], seed: number): HostTensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return { type: "float32", shape, data: floats(count, seed) };
}

/** Runs on the GPU and on the host, and compares. */
async function checkAgainstHost(
  session: Session,
  feeds: Readonly<Record<string, HostTensor>>,
  bound = 1e-5,
): Promise<Record<string, HostTensor>> {
  const results = await session.run(feeds);
  for (const [name, expected] of Object.entries(runOnHost(session.graph, feeds))) {
    assert.deepEqual(results[name]!.shape, expected.shape);
    assert.equal(results[name]!.type, expected.type);
    if (expected.data.length === 0) continue;
    assert.ok(relativeError(results[name]!, expected) <= bound, name);
  }
  return results;
}

/** x · w, its largest four of each row by TopK, which the host finds, and twice that. */
const withHostStep = () =>
  graphOf({ x: ["float32", ["rows", 8]] }, (w) => {
    const product = w.node("MatMul", ["x", w.floats([8, 6], floats(48, 1))]);
    w.nodes("TopK", [product, w.integers([4])], {}, ["most", "places"]);
    w.node("Mul", ["most", w.floats([], [2])], {}, "y");
    return { y: "float32", places: "int64" };
  });

Deno.test("Session keeps plans that run, also where more shapes come than it keeps", async () => {
  const session = new Session(await sharedGpu(), await withHostStep());
  // All at once: each waits for the host in the middle while the others come and go.
  const runs = Array.from({ length: 24 }, (_, i) => {
    const x = tensor([1 + i % 12, 8], i);
    return { x, results: session.run({ x }) };
  });
  for (const { x, results } of runs) {
    const { y, places } = await results;
    const expected = runOnHost(session.graph, { x });
    assert.ok(relativeError(y!, expected.y!) < 1e-5);
    assert.deepEqual(places, expected.places);
  }
  // What `plan` gave stays, however many others come.
  const plan = await session.plan({ x: [3, 8] });
  for (let rows = 20; rows < 30; rows++) await session.run({ x: tensor([rows, 8], rows) });
  assert.equal(await session.plan({ x: [3, 8] }), plan);
  const x = tensor([3, 8], 77);
  assert.ok(relativeError((await plan.run({ x })).y!, runOnHost(session.graph, { x }).y!) < 1e-5);
  await session.destroy();
});

Deno.test("Session.destroy() lets runs under way end, and refuses later ones", async () => {
  const session = new Session(await sharedGpu(), await withHostStep());
  const plan = await session.plan({ x: [2, 8] });
  const x = tensor([5, 8], 3);
  const runs = [session.run({ x }), session.run({ x })];
  const destroyed = session.destroy();
  const expected = runOnHost(session.graph, { x }).y!;
  for (const run of runs) assert.ok(relativeError((await run).y!, expected) < 1e-5);
  await destroyed;
  await assert.rejects(session.run({ x }), TypeError);
  await assert.rejects(session.plan({ x: [2, 8] }), TypeError);
  await assert.rejects(plan.start(), TypeError);
});

Deno.test("Plan takes tensors on the GPU and leaves outputs there", async () => {
  const gpu = await sharedGpu();
  const graph = await graphOf({ x: ["float32", ["n", 3, 5, 5]] }, (w) => {
    w.node("Conv", ["x", w.floats([4, 3, 3, 3], floats(108, 2))], {}, "y");
    return { y: "float32" };
  });
  const session = new Session(gpu, graph);
  const x = tensor([2, 3, 5, 5], 4);
  const expected = runOnHost(graph, { x }).y!;
  const onGpu = Tensor.from(gpu, x.data as Float32Array, x.shape);
  assert.ok(relativeError((await session.run({ x: onGpu })).y!, expected) < 1e-5);
  const plan = await session.plan({ x: x.shape });
  plan.inputs.get("x")!.write(x.data as Float32Array);
  await plan.start();
  const output = plan.outputs.get("y") as GpuValue;
  const data = await output.tensor.readFloats();
  assert.ok(relativeError({ type: "float32", shape: expected.shape, data }, expected) < 1e-5);
  onGpu.destroy();
  await session.destroy();
});

Deno.test("Plan takes and gives images in the layout that is asked for", async () => {
  const gpu = await sharedGpu();
  const graph = await graphOf({ x: ["float32", ["n", 3, 4, 4]] }, (w) => {
    w.node("Conv", ["x", w.floats([5, 3, 3, 3], floats(135, 2))], {}, "y");
    return { y: "float32" };
  });
  const session = new Session(gpu, graph);
  const layout = channelsLast(4);
  const plan = await session.plan({ x: [1, 3, 4, 4] }, { layouts: { x: layout, y: layout } });
  const x = tensor([1, 3, 4, 4], 8);
  const input = plan.inputs.get("x")!;
  assert.deepEqual(input.shape, [1, 4, 4, 4]);
  const image = new Float32Array(64);
  for (let c = 0; c < 3; c++) {
    for (let p = 0; p < 16; p++) image[p * 4 + c] = Number(x.data[c * 16 + p]);
  }
  input.write(image);
  await plan.start();
  const { tensor: output } = plan.outputs.get("y") as GpuValue;
  assert.deepEqual(output.shape, [1, 2, 2, 8]);
  const given = await output.readFloats();
  const expected = runOnHost(graph, { x }).y!;
  for (let p = 0; p < 4; p++) {
    for (let c = 0; c < 8; c++) {
      const wanted = c < 5 ? Number(expected.data[c * 4 + p]) : 0;
      assert.ok(Math.abs(given[p * 8 + c]! - wanted) < 1e-5);
    }
  }
  await assert.rejects(plan.run({ x }), /input "x" is row-major, the plan takes it otherwise/);
  await session.destroy();
});

Deno.test("Session.run() refuses what is missing, unknown, of another type or shape", async () => {
  const gpu = await sharedGpu();
  const graph = await graphOf({
    x: ["float32", ["n", 4]],
    ids: ["int64", ["n"]],
  }, (w) => {
    w.node(
      "Add",
      [
        "x",
        w.node("Unsqueeze", [
          w.node("Cast", ["ids"], { to: 1 }),
          w.integers([1]),
        ]),
      ],
      {},
      "y",
    );
    return { y: "float32" };
  });
  const session = new Session(gpu, graph);
  const x = tensor([2, 4], 1);
  const ids: HostTensor = { type: "int64", shape: [2], data: BigInt64Array.of(3n, -1n) };
  await checkAgainstHost(session, { x, ids });
  const refused = (
    feeds: Record<string, HostTensor | Tensor>,
    error: RegExp,
    type: typeof ModelError | typeof RangeError = ModelError,
  ) =>
    assert.rejects(session.run(feeds), (thrown: Error) => {
      assert.ok(thrown instanceof type, `${thrown}`);
      assert.match(thrown.message, error);
      return true;
    });
  await refused({ x }, /input "ids" is missing/);
  await refused({ x, ids, more: x }, /it has no input "more"/);
  await refused({ x, ids: { ...x, shape: [2] } }, /input "ids" is float32 \[2\] of 8 elements/);
  await refused({ x: { ...x, data: new Float32Array(7) }, ids }, /"x" is float32 .* of 7 elements/);
  await refused({ x: { ...x, shape: [2, 2, 2] }, ids }, /"x" has shape \[2, 2, 2\]/, RangeError);
  await refused({ x: { ...x, shape: [4, 2] }, ids }, /"x" has shape \[4, 2\]/, RangeError);
  const three: HostTensor = { type: "int64", shape: [3], data: new BigInt64Array(3) };
  await refused({ x, ids: three }, /"ids" has shape \[3\]/, RangeError);
  const whole = Tensor.from(gpu, new Uint32Array(8), [2, 4]);
  await refused({ x: whole, ids }, /input "x" is u32 \[2, 4\] on the GPU, f32 \[2, 4\] is needed/);
  whole.destroy();
  await checkAgainstHost(session, { x, ids });
  await session.destroy();
});

Deno.test("Session runs on the host what no kernel takes, and goes on on the GPU", async () => {
  const gpu = await sharedGpu();
  // How many there are only a run tells.
  const some = await graphOf({ x: ["float32", [3, 4]] }, (w) => {
    const at = w.node("Transpose", [w.node("NonZero", [w.node("Relu", ["x"])])], { perm: [1, 0] });
    w.node("GatherND", [w.node("Exp", ["x"]), at], {}, "y");
    return { y: "float32" };
  });
  const session = new Session(gpu, some);
  for (const seed of [1, 2, 3]) await checkAgainstHost(session, { x: tensor([3, 4], seed) });
  await session.destroy();

  // Nine axes of which no two can be taken together.
  const nine = [2, 3, 2, 3, 2, 3, 2, 3, 2];
  const many = await graphOf({ x: ["float32", nine] }, (w) => {
    const perm = [8, 7, 6, 5, 4, 3, 2, 1, 0];
    const turned = w.node("Transpose", ["x"], { perm });
    w.node("Relu", [w.node("Add", [turned, "x"])], {}, "y");
    return { y: "float32" };
  });
  const wide = new Session(gpu, many);
  await checkAgainstHost(wide, { x: tensor(nine, 2) });
  await wide.destroy();

  const none = await graphOf({ x: ["float32", ["n", 3, "h", "w"]] }, (w) => {
    const conv = w.node("Conv", ["x", w.floats([2, 3, 1, 1], floats(6, 1))]);
    w.node("Softmax", [w.node("Relu", [conv])], { axis: 1 }, "y");
    return { y: "float32" };
  });
  const empty = new Session(gpu, none);
  await checkAgainstHost(empty, { x: tensor([0, 3, 4, 4], 1) });
  await checkAgainstHost(empty, { x: tensor([2, 3, 4, 4], 1) });
  // What no buffer can hold is the device's limit, by which a caller may choose a smaller batch.
  await assert.rejects(empty.plan({ x: [1 << 12, 3, 1 << 10, 1 << 10] }), (error: Error) => {
    assert.ok(error instanceof KernelError, `${error}`);
    assert.match(error.message, /Cannot allocate \d+ bytes/);
    return true;
  });
  await empty.destroy();
});

Deno.test("PRECISION=auto takes f16 where it is near f32, and f32 where it overflows", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return console.log("skipped: no f16");
  const scaled = (by: number) =>
    graphOf({ x: ["float32", [4, 8]] }, (w) => {
      const product = w.node("MatMul", ["x", w.floats([8, 8], floats(64, 5).map((v) => v * by))]);
      w.node("Mul", [product, w.floats([], [1 / by])], {}, "y");
      w.node("ArgMax", [product], { axis: 1 }, "class");
      return { y: "float32", class: "int64" };
    });
  const x = tensor([4, 8], 1);
  for (
    const [by, float, words] of [[1, "f16", /takes f16: .* f16 differs from f32 by \d/], [
      1e5,
      "f32",
      /takes f32: .* of output "y"/,
    ]] as const
  ) {
    const messages: string[] = [];
    const graph = await scaled(by);
    const session = new Session(gpu, graph, {
      precision: "auto",
      onPrecision: (message) => messages.push(message),
    });
    assert.equal(session.float, undefined);
    const expected = runOnHost(graph, { x });
    // Two at once decide once.
    for (const { y } of await Promise.all([session.run({ x }), session.run({ x })])) {
      assert.ok(relativeError(y!, expected.y!) < 1e-2);
    }
    assert.equal(session.float, float);
    assert.equal(messages.length, 1);
    assert.match(messages[0]!, words);
    // What was made for the other way is gone.
    const only = new Session(gpu, graph, { precision: float });
    await only.run({ x });
    assert.equal(session.weightBytes, only.weightBytes);
    await only.destroy();
    await session.destroy();
    // Also a run that is still deciding ends.
    const another = new Session(gpu, graph, { precision: "auto" });
    const deciding = another.run({ x });
    await another.destroy();
    assert.ok(relativeError((await deciding).y!, expected.y!) < 1e-2);
  }
});

Deno.test("Session runs a U-Net of open height and width at two sizes", async () => {
  const session = new Session(await sharedGpu(), fuse(await readModel(unet().bytes)));
  for (const [height, width] of [[32, 64], [64, 32]] as const) {
    await checkAgainstHost(session, { input: tensor([1, 3, height, width], height) }, 1e-4);
  }
  await session.destroy();
});

Deno.test("Session takes images of bytes, turned into floats and compared on the GPU", async () => {
  const graph = await graphOf({ x: ["uint8", [1, "h", "w", 3]] }, (w) => {
    const turned = w.node("Transpose", ["x"], { perm: [0, 3, 1, 2] });
    const image = w.node("Div", [w.node("Cast", [turned], { to: 1 }), w.floats([], [255])]);
    w.node("Conv", [image, w.floats([5, 3, 3, 3], floats(135, 1))], {}, "y");
    const white = w.constant({ type: "uint8", shape: [], data: Uint8Array.of(250) });
    w.node("Less", ["x", white], {}, "tissue");
    return { y: "float32", tissue: "bool" };
  });
  const session = new Session(await sharedGpu(), graph);
  const x: HostTensor = { type: "uint8", shape: [1, 6, 7, 3], data: bytesOf(126, 3) };
  await checkAgainstHost(session, { x });
  const { laid } = await session.plan({ x: x.shape });
  assert.ok(laid.parts.every(({ on }) => on === "gpu"), "all of it runs on the GPU");
  await session.destroy();
});

Deno.test("Session takes constants that shapes settle anew for each plan", async () => {
  const graph = await graphOf({ x: ["float32", ["n", "m"]] }, (w) => {
    const shape = w.node("Shape", ["x"]);
    const [rows, columns] = [0, 1].map((i) => w.node("Gather", [shape, w.integers([i], true)]));
    const numbers = w.node("Range", [w.integers([0], true), columns!, w.integers([1], true)]);
    const scaled = w.node("Cast", [w.node("Mul", [numbers, rows!])], { to: 1 });
    w.node("MatMul", ["x", w.node("Unsqueeze", [scaled, w.integers([1])])], {}, "y");
    w.node("Add", ["x", scaled], {}, "z");
    return { y: "float32", z: "float32" };
  });
  const session = new Session(await sharedGpu(), graph);
  // Of other sizes, and of other values where sizes are the same.
  for (const shape of [[2, 3], [5, 3], [5, 7], [2, 3]]) {
    await checkAgainstHost(session, { x: tensor(shape, shape[0]!) });
    const { laid } = await session.plan({ x: shape });
    assert.ok(laid.parts.every(({ on }) => on === "gpu"), "all of it runs on the GPU");
  }
  await session.destroy();
});

Deno.test("Session reads weights from a file beside the model, for the GPU and the host", async () => {
  const gpu = await sharedGpu();
  const folder = await Deno.makeTempDir();
  try {
    const [rows, columns] = [1024, 1200];
    const weights = floats(rows * columns, 3);
    const bias = floats(columns, 4);
    const file = new Uint8Array(weights.byteLength + bias.byteLength);
    file.set(new Uint8Array(weights.buffer));
    file.set(new Uint8Array(bias.buffer), weights.byteLength);
    await Deno.writeFile(`${folder}/model.data`, file);
    const external = (name: string, dims: number[], offset: number, length: number) => ({
      name,
      dims,
      data_type: ELEMENT.float32,
      data_location: 1,
      external_data: Object.entries({ location: "model.data", offset, length })
        .map(([key, entry]) => ({ key, value: String(entry) })),
    });
    const bytes = modelBytes({
      inputs: [value("x", ["n", rows])],
      outputs: [value("y", ["n", columns]), value("z", [1, columns])],
      constants: [
        external("w", [rows, columns], 0, weights.byteLength),
        external("b", [columns], weights.byteLength, bias.byteLength),
      ],
      nodes: [
        node("MatMul", "x w", "product"),
        node("Add", "product b", "y"),
        // Einsum is the host's.
        node("Einsum", "y b", "z", { equation: "ij,j->j" }),
      ],
    });
    await Deno.writeFile(`${folder}/model.onnx`, bytes);
    const session = await loadModel(gpu, `${folder}/model.onnx`);
    assert.ok(
      session.graph.nodes.some(({ op, domain }) => op === "MatMul" && domain === "wgslide"),
    );
    const x = tensor([2, rows], 5);
    const { y, z } = await session.run({ x });
    const whole = new Map([
      ["w", { type: "float32", shape: [rows, columns], data: weights } as const],
      ["b", { type: "float32", shape: [columns], data: bias } as const],
    ]);
    const expected = runOnHost({ ...session.graph, constants: whole }, { x });
    assert.ok(relativeError(y!, expected.y!) < 1e-5);
    assert.ok(relativeError(z!, expected.z!) < 1e-5);
    await session.destroy();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("Session runs models in float16, of which inputs and outputs are too", async () => {
  const gpu = await sharedGpu();
  const half = (shape: readonly number[], seed: number): HostTensor => ({
    type: "float16",
    shape,
    data: new Float16Array(floats(shape.reduce((a, b) => a * b, 1), seed)),
  });
  const graph = await graphOf({ x: ["float16", [1, 3, 6, 6]] }, (w) => {
    const conv = w.node("Conv", ["x", w.constant(half([5, 3, 3, 3], 1)), w.constant(half([5], 2))]);
    w.node("Relu", [w.node("Mul", [conv, w.constant(half([5, 1, 1], 3))])], {}, "y");
    return { y: "float16" };
  });
  const x = half([1, 3, 6, 6], 4);
  for (const precision of ["f32", "f16"] as const) {
    const session = new Session(gpu, graph, { precision });
    // Each of three steps on the host rounds to 2⁻¹¹, and so does the GPU's.
    await checkAgainstHost(session, { x }, 4e-3);
    await session.destroy();
  }
});
