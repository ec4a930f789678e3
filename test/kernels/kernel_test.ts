import assert from "node:assert/strict";
import { Gpu } from "../../kernels/device.ts";
import { KernelError } from "../../kernels/errors.ts";
import { Batch, defineKernel, Recording, rowOfWorkgroups } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { sharedGpu } from "./gpu.ts";

const CODE = `
struct Params { count: u32, shift: i32, factor: f32 } // a comment, with a comma
override SQUARE: bool = false;
override WIDTH: u32 = 32u;
override DERIVED: u32 = WIDTH * 2;
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
/* @group(0) @binding(7) var<storage, read> not_this: array<f32>; */
@group(0) @binding(2) var<storage, read_write> output: array<f32>;
@compute @workgroup_size(WIDTH)
fn scale(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < params.count) {
    let v = input[id.x] * params.factor + f32(params.shift) + f32(DERIVED - 2 * WIDTH);
    output[id.x] = select(v, v * v, SQUARE);
  }
}`;

const literal = {
  name: "scale",
  code: CODE,
  params: { count: "u32", shift: "i32", factor: "f32" },
  bindings: {
    input: { type: "array<f32>", access: "read" },
    output: { type: "array<f32>", access: "read_write" },
  },
  overrides: { SQUARE: false, WIDTH: 32 },
} as const;

Deno.test("Batch runs kernels in order, with params and overrides", async () => {
  const gpu = await sharedGpu();
  const kernel = defineKernel(literal);
  const [plain, square] = await Promise.all([
    kernel.compile(gpu),
    kernel.compile(gpu, { SQUARE: true, WIDTH: 64 }),
  ]);
  const [a, b, c] = [
    Tensor.from(gpu, Float32Array.from([1, 2, 3, 4, 5]), [5]),
    new Tensor(gpu, "f32", [5]),
    new Tensor(gpu, "f32", [5]),
  ];
  const batch = new Batch(gpu);
  batch.dispatch(plain, {
    params: { count: 5, shift: -1, factor: 2 },
    bindings: { input: a, output: b },
  }, [1]);
  batch.dispatch(square, {
    params: { count: 4, shift: 0, factor: 1 },
    bindings: { input: b, output: c },
  }, [1]);
  batch.submit();
  assert.deepEqual([...await c.readFloats()], [1, 9, 25, 49, 0]);
});

Deno.test("Batch runs more dispatches than there are slots for params", async () => {
  const gpu = await sharedGpu();
  const pipeline = await defineKernel(literal).compile(gpu);
  const [a, b] = [new Tensor(gpu, "f32", [1]), new Tensor(gpu, "f32", [1])];
  const batch = new Batch(gpu);
  for (let i = 0; i < 600; i++) {
    const [input, output] = i % 2 === 0 ? [a, b] : [b, a];
    batch.dispatch(pipeline, {
      params: { count: 1, shift: i % 3, factor: 1 },
      bindings: { input, output },
    }, [1]);
  }
  batch.submit();
  assert.deepEqual([...await a.readFloats()], [600]);
});

Deno.test("Recording runs the same dispatches again, whole or in part, on new data", async () => {
  const gpu = await sharedGpu();
  const pipeline = await defineKernel(literal).compile(gpu);
  const [a, b, c] = [1, 2, 3].map(() => new Tensor(gpu, "f32", [1])) as [Tensor, Tensor, Tensor];
  const recording = new Recording(gpu);
  for (const [input, output, shift] of [[a, b, 1], [b, c, 10]] as const) {
    recording.dispatch(pipeline, {
      params: { count: 1, shift, factor: 2 },
      bindings: { input, output },
    }, [1]);
  }
  recording.dispatch(pipeline, {
    params: { count: 1, shift: 0, factor: 0 },
    bindings: { input: a, output: c },
  }, [0]);
  assert.equal(recording.length, 2);
  for (const value of [3, 5]) {
    a.write(Float32Array.of(value));
    recording.run();
    assert.deepEqual([...await c.readFloats()], [(2 * value + 1) * 2 + 10]);
  }
  a.write(Float32Array.of(7));
  recording.run(0, 1);
  assert.deepEqual([...await b.readFloats(), ...await c.readFloats()], [15, 32]);
  assert.throws(() =>
    recording.dispatch(pipeline, {
      params: { count: 1, shift: 0, factor: 0 },
      bindings: { input: a, output: c },
    }, [1]), TypeError);
  recording.destroy();
});

Deno.test("an alias stands for the type asked for, and for no other", async () => {
  const gpu = await sharedGpu();
  const generic = {
    ...literal,
    code: CODE.replace("struct Params", "alias Element = f32;\nstruct Params")
      .replaceAll("array<f32>", "array<Element>")
      .replace("input[id.x] *", "f32(input[id.x]) *")
      .replace("select(v, v * v, SQUARE)", "Element(select(v, v * v, SQUARE))"),
    bindings: {
      input: { type: "array<Element>", access: "read" },
      output: { type: "array<Element>", access: "read_write" },
    },
    aliases: { Element: ["f32", "i32", "f16"] },
  } as const;
  const kernel = defineKernel(generic);
  for (const [type, data] of [["f32", Float32Array.of(1.5)], ["i32", Int32Array.of(3)]] as const) {
    const [input, output] = [Tensor.from(gpu, data, [1]), new Tensor(gpu, type, [1])];
    const batch = new Batch(gpu);
    batch.dispatch(await kernel.compile(gpu, {}, { Element: type }), {
      params: { count: 1, shift: 1, factor: 2 },
      bindings: { input, output },
    }, [1]);
    batch.submit();
    const bytes = await output.readBytes();
    assert.equal(
      (type === "f32" ? new Float32Array(bytes) : new Int32Array(bytes))[0],
      data[0]! * 2 + 1,
    );
  }
  await assert.rejects(kernel.compile(gpu, {}, { Element: "u32" }), /no alias "Element" of u32/);
  await assert.rejects(kernel.compile(gpu, {}, { Other: "f32" } as never), /no alias "Other"/);
  await assert.rejects(
    defineKernel({ ...generic, aliases: { Element: ["f16"] } }).compile(gpu),
    /its aliases differ: "Element = f16" is declared, "Element = f32" is in the WGSL/,
  );
});

Deno.test("rowOfWorkgroups() keeps to the device's limit and leaves little over", async () => {
  const gpu = await sharedGpu();
  const most = gpu.limits.maxComputeWorkgroupsPerDimension;
  for (const count of [0, 1, most, most + 1, 3 * most - 1, 1000 * most + 7]) {
    const [x, y] = rowOfWorkgroups(gpu, count);
    assert.ok(
      x <= most && y <= most && x * y >= count && x * y < count + y,
      `${count}: ${x} × ${y}`,
    );
  }
});

Deno.test("compile() gives the same pipeline for the same overrides", async () => {
  const gpu = await sharedGpu();
  const kernel = defineKernel(literal);
  assert.equal(await kernel.compile(gpu), await kernel.compile(gpu, { WIDTH: 32 }));
  assert.notEqual(await kernel.compile(gpu), await kernel.compile(gpu, { WIDTH: 16 }));
});

// Each row moves one side alone; the message must name what differs.
const DRIFT: [string, (code: string) => string, RegExp][] = [
  ["a renamed binding", (c) => c.replaceAll("input", "source"), /bindings differ.*input.*source/],
  [
    "swapped params",
    (c) => c.replace("count: u32, shift: i32", "shift: i32, count: u32"),
    /params differ/,
  ],
  ["a param of another type", (c) => c.replace("shift: i32", "shift: u32"), /params differ/],
  ["a missing param", (c) => c.replace(", factor: f32", ""), /params differ.*factor.*nothing/],
  ["one param more", (c) => c.replace("count: u32", "count: u32, more: u32"), /params differ/],
  [
    "a changed access",
    (c) => c.replace("var<storage, read> input", "var<storage, read_write> input"),
    /bindings differ/,
  ],
  [
    "a changed element type",
    (c) => c.replace("input: array<f32>", "input: array<vec4<f32>>"),
    /bindings differ/,
  ],
  [
    "swapped bindings",
    (c) =>
      c.replace("@binding(1)", "@binding(9)").replace("@binding(2)", "@binding(1)")
        .replace("@binding(9)", "@binding(2)"),
    /bindings differ/,
  ],
  ["a renamed override", (c) => c.replaceAll("SQUARE", "SQUARED"), /overrides differ/],
  ["another default", (c) => c.replace("WIDTH: u32 = 32u", "WIDTH: u32 = 33u"), /overrides differ/],
  ["a renamed entry point", (c) => c.replace("fn scale", "fn scales"), /entries differ/],
];

for (const [what, change, message] of DRIFT) {
  Deno.test(`compile() refuses ${what} in the WGSL`, async () => {
    const gpu = await sharedGpu();
    const code = change(CODE);
    assert.notEqual(code, CODE);
    await assert.rejects(defineKernel({ ...literal, code }).compile(gpu), (error: KernelError) => {
      assert.ok(error instanceof KernelError);
      assert.equal(error.kernel, "scale");
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("compile() says where the WGSL is wrong, and the device lives on", async () => {
  const gpu = await sharedGpu();
  const code = CODE.replace("params.factor +", "params.factor + * 2 +");
  await assert.rejects(
    defineKernel({ ...literal, code }).compile(gpu),
    /Cannot compile kernel "scale": scale.wgsl:13:\d+: /,
  );
  gpu.check();
});

Deno.test("compile() refuses an override that the kernel does not have", async () => {
  const gpu = await sharedGpu();
  const kernel = defineKernel(literal);
  await assert.rejects(kernel.compile(gpu, { HEIGHT: 1 } as never), /no override "HEIGHT"/);
});

Deno.test("compile() names a feature that the adapter lacks", async () => {
  const gpu = await sharedGpu();
  const kernel = defineKernel({ ...literal, features: ["no-such-feature"] });
  await assert.rejects(kernel.compile(gpu), /has no "no-such-feature"/);
});

// These spoil their device, so each has its own.
async function ownGpu(): Promise<Gpu> {
  const gpu = await Gpu.open();
  if (gpu === undefined) throw new Error("There is no adapter: run `deno task setup`");
  return gpu;
}

Deno.test("a validation error surfaces as KernelError with the kernel's name", async () => {
  const gpu = await ownGpu();
  const pipeline = await defineKernel(literal).compile(gpu);
  const tensor = new Tensor(gpu, "f32", [4]);
  const batch = new Batch(gpu);
  const submit = () => {
    // One buffer read and written in one dispatch (WebGPU §3.4.1, usage scopes).
    batch.dispatch(pipeline, {
      params: { count: 4, shift: 0, factor: 1 },
      bindings: { input: tensor, output: tensor },
    }, [1]);
    batch.submit();
  };
  await assert.rejects(async () => {
    submit();
    await gpu.done();
  }, (error: KernelError) => error instanceof KernelError && error.kernel === "scale");
  gpu.close();
});

Deno.test("a lost device surfaces as KernelError wherever it is waited for", async () => {
  const gpu = await ownGpu();
  const tensor = new Tensor(gpu, "f32", [4]);
  const never = gpu.wait(new Promise(() => {}));
  gpu.device.destroy(); // Behind the harness's back, as a driver would.
  await assert.rejects(never, KernelError);
  await assert.rejects(tensor.readBytes(), /GPU was lost/);
  assert.throws(() => new Tensor(gpu, "f32", [4]), KernelError);
});

Deno.test("a tensor larger than the device binds is refused, and says by how much", async () => {
  const gpu = await sharedGpu();
  assert.throws(
    () => new Tensor(gpu, "f32", [2 ** 20, 2 ** 20], "huge"),
    /Cannot allocate 4398046511104 bytes for "huge" \[1048576, 1048576\]/,
  );
  assert.throws(() => new Tensor(gpu, "f32", [-1]), RangeError);
});

Deno.test("out of memory surfaces as KernelError", async () => {
  const gpu = await ownGpu();
  if (!gpu.adapter.isSoftware) return console.log("skipped: a GPU might have that much");
  // One byte less than 4 GiB, which Mesa's software adapter declares and then does not give.
  gpu.device.createBuffer({ label: "huge", size: gpu.limits.maxBufferSize, usage: 0x80 });
  await new Promise((done) => setTimeout(done, 20));
  assert.throws(() => gpu.check(), /out of memory/);
  gpu.close();
});

Deno.test("a grid that the device does not allow is refused with the kernel's name", async () => {
  const gpu = await sharedGpu();
  const pipeline = await defineKernel(literal).compile(gpu);
  const [input, output] = [new Tensor(gpu, "f32", [1]), new Tensor(gpu, "f32", [1])];
  assert.throws(
    () =>
      new Batch(gpu).dispatch(pipeline, {
        params: { count: 1, shift: 0, factor: 1 },
        bindings: { input, output },
      }, [gpu.limits.maxComputeWorkgroupsPerDimension + 1]),
    (error: KernelError) => error.kernel === "scale",
  );
});

Deno.test("Gpu.open() names an adapter that is not there", async () => {
  await assert.rejects(Gpu.open({ adapter: "no such adapter" }), /no such adapter/);
});

Deno.test("Gpu.open() takes an adapter's name as it is shown, in any case", async () => {
  const { name } = (await sharedGpu()).adapter;
  for (const spelling of [name, name.toUpperCase(), name.slice(0, 6)]) {
    const gpu = await Gpu.open({ adapter: spelling });
    assert.equal(gpu?.adapter.name, name, spelling);
    gpu?.close();
  }
});
