import assert from "node:assert/strict";
import { type ActivationName, activationOf, ACTIVATIONS } from "../../kernels/activation.ts";
import {
  BINARY_OPERATIONS,
  type BinaryOperation,
  compileBinary,
  compileConvert,
  compileUnary,
  compileWhere,
  recordBinary,
  recordConvert,
  recordUnary,
  recordWhere,
  UNARY_OPERATIONS,
  type UnaryOperation,
} from "../../kernels/elementwise.ts";
import type { Gpu } from "../../kernels/device.ts";
import { Batch } from "../../kernels/kernel.ts";
import { countOf } from "../../kernels/strides.ts";
import { Tensor, type TensorData } from "../../kernels/tensor.ts";
import * as reference from "../reference/elementwise.ts";
import { floats, uniform } from "../reference/random.ts";
import { narrowRecorder, numbersOf, sharedGpu, tensorOf } from "./gpu.ts";

async function unaryOf(
  gpu: Gpu,
  operation: UnaryOperation,
  data: TensorData,
  constants?: { a?: number; b?: number },
): Promise<number[]> {
  const input = Tensor.from(gpu, data, [data.length]);
  const compiled = await compileUnary(gpu, operation, input.type, constants);
  const output = new Tensor(gpu, compiled.outputType, input.shape);
  const batch = new Batch(gpu);
  recordUnary(batch, compiled, { input, output });
  batch.submit();
  return await numbersOf(output);
}

/** Where an operation is defined; elsewhere it is not compared. */
const DOMAINS: Partial<Record<UnaryOperation, (v: number) => boolean>> = {
  sqrt: (v) => v >= 0,
  rsqrt: (v) => v > 0,
  reciprocal: (v) => v !== 0,
  exp: (v) => v < 88,
  log: (v) => v > 0,
  sin: (v) => Math.abs(v) <= 8192,
  cos: (v) => Math.abs(v) <= 8192,
  tan: (v) => Math.abs(v) <= 8192 && Math.abs(Math.cos(v)) > 1e-3,
  asin: (v) => Math.abs(v) <= 1,
  acos: (v) => Math.abs(v) <= 1,
  sinh: (v) => Math.abs(v) < 88,
  cosh: (v) => Math.abs(v) < 88,
  acosh: (v) => v >= 1,
  atanh: (v) => Math.abs(v) < 1,
};

const SPREAD = Float32Array.from([
  ...[0, -0, 1, -1, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 3.5, 1e-6, -1e-6, 1e-3, -1e-3, 0.999, 1.001],
  ...[0.2928, 0.2929, 0.4142, 0.7071, 0.7072, 1.4142, 1.4143, 2.4142, 2.4143, 0.4999, 0.5001],
  ...[20, -20, 80, -80, 100, -100, 1e4, -1e4, 1e10, -1e10, 1e25, -1e25, Math.PI, Math.PI / 2],
  ...floats(60, 1).map((v) => 8 * v),
  ...floats(60, 2),
]);

for (
  const operation of [
    ...Object.keys(UNARY_OPERATIONS),
    ...Object.keys(ACTIVATIONS),
  ] as UnaryOperation[]
) {
  Deno.test(`recordUnary() computes ${operation} in f32`, async () => {
    const gpu = await sharedGpu();
    if (operation === "bitwise_not") return; // Of integers only, below.
    const values = SPREAD.filter(DOMAINS[operation] ?? (() => true));
    for (const constants of [{}, { a: 0.3, b: 0.7 }]) {
      const { a, b } = operation in ACTIVATIONS
        ? activationOf({ name: operation as ActivationName, ...constants })
        : await compileUnary(gpu, operation, "f32", constants);
      const actual = await unaryOf(gpu, operation, values, constants);
      for (const [i, v] of values.entries()) {
        const expected = reference.unary(operation, v, a, b);
        // WGSL §15.7.4: exp is off by (3 + 2·|x|) ulp, which is 1e-5 of it at 80; every other builtin
        // and polynomial by a few ulp of its largest term; erf's series of activate() by 1.5e-7,
        // times v for GELU. Below 1e-37 results may be flushed to zero.
        const size = Math.abs(expected);
        const grows = ["exp", "sinh", "cosh"].includes(operation);
        const floor = ["gelu", "gelu_tanh", "mish"].includes(operation)
          ? 3e-7 * Math.max(1, Math.abs(v))
          : 2e-7;
        const bound = (grows ? 3e-7 * (3 + Math.abs(v)) : 4e-6) * size + floor *
            (operation in ACTIVATIONS ||
                ["sin", "cos", "tan", "selu", "linear", "shrink", "acos"].includes(operation)
              ? 1
              : 1e-30);
        assert.ok(
          Math.abs(actual[i]! - expected) <= bound + 1e-37,
          `${operation}(${v}) is ${actual[i]}, not ${expected}`,
        );
      }
    }
  });
}

Deno.test("recordUnary() tells NaN and infinities apart by their bits", async () => {
  const gpu = await sharedGpu();
  const values = [NaN, Infinity, -Infinity, 3.4e38, -3.4e38, 0, 1e-40];
  for (
    const data of [
      Float32Array.from(values),
      ...(gpu.features.has("shader-f16")
        ? [Float16Array.from([NaN, Infinity, -Infinity, 65504, -65504, 0, 1e-7])]
        : []),
    ]
  ) {
    assert.deepEqual(await unaryOf(gpu, "is_nan", data), [1, 0, 0, 0, 0, 0, 0]);
    assert.deepEqual(await unaryOf(gpu, "is_inf", data), [0, 1, 1, 0, 0, 0, 0]);
    assert.deepEqual(await unaryOf(gpu, "is_inf", data, { b: 0 }), [0, 1, 0, 0, 0, 0, 0]);
    assert.deepEqual(await unaryOf(gpu, "is_inf", data, { a: 0 }), [0, 0, 1, 0, 0, 0, 0]);
  }
});

Deno.test("recordUnary() of integers is exact", async () => {
  const gpu = await sharedGpu();
  const values = [0, 1, -1, 5, -7, 2147483647, -2147483647, 16777217];
  for (const operation of ["abs", "neg", "sign", "not", "bitwise_not"] as const) {
    assert.deepEqual(
      await unaryOf(gpu, operation, Int32Array.from(values)),
      [...Int32Array.from(values, (v) => reference.unary(operation, v, 0, 0))],
      operation,
    );
  }
  assert.deepEqual(await unaryOf(gpu, "bitwise_not", Uint32Array.of(0, 5)), [
    4294967295,
    4294967290,
  ]);
  assert.deepEqual(await unaryOf(gpu, "not", Uint32Array.of(0, 1)), [1, 0]);
});

Deno.test("recordUnary() in f16 rounds f32's result once", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return console.log("skipped: no f16");
  const values = Float16Array.from(floats(1027, 3).map((v) => 6 * v));
  for (const operation of ["exp", "gelu", "silu", "erf", "tanh"] as const) {
    const { a, b } = operation in ACTIVATIONS
      ? activationOf(operation as ActivationName)
      : { a: 0, b: 0 };
    const actual = await unaryOf(gpu, operation, values);
    for (const [i, v] of values.entries()) {
      const expected = reference.unary(operation, v, a, b);
      // Half a unit of f16's 11 bits, and a whole one where a tie went the other way; erf as above.
      assert.ok(
        Math.abs(actual[i]! - expected) <=
          2 ** -10 * Math.abs(expected) + 2 ** -24 + 3e-7 * Math.abs(v),
        `${operation}(${v})`,
      );
    }
  }
  // f16 ends at 65504: what is larger is an infinity, never a wrong number.
  assert.deepEqual(await unaryOf(gpu, "exp", Float16Array.of(12, 11)), [Infinity, 59872]);
});

// Size 1, either side of four elements and of a workgroup's 4096, a prime.
Deno.test("recordUnary() writes every element at any length", async () => {
  const gpu = await sharedGpu();
  for (const length of [0, 1, 3, 4, 5, 4093, 4095, 4096, 4097, 8191]) {
    const values = floats(length, 4);
    assert.deepEqual(await unaryOf(gpu, "neg", values), [...values.map((v) => -v)], String(length));
  }
});

async function binaryOf(
  gpu: Gpu,
  operation: BinaryOperation,
  left: Tensor,
  right: Tensor,
): Promise<{ values: number[]; shape: readonly number[] }> {
  const compiled = await compileBinary(gpu, operation, left, right);
  const output = new Tensor(gpu, compiled.output.type, compiled.output.shape);
  const batch = new Batch(gpu);
  recordBinary(batch, compiled, { left, right, output });
  batch.submit();
  return { values: await numbersOf(output), shape: output.shape };
}

/** Shapes that broadcast, in every position: dense, vec4s, one for four, each by itself; rank 0 to 8. */
const BROADCASTS: readonly (readonly [readonly number[], readonly number[], readonly number[]])[] =
  [
    [[], [], []],
    [[1], [1], [1]],
    [[7], [], [7]],
    [[], [9], [9]],
    [[1023], [1], [1023]],
    [[2, 3, 4, 5], [2, 3, 4, 5], [2, 3, 4, 5]],
    [[3, 8], [8], [3, 8]],
    [[8], [3, 8], [3, 8]],
    [[3, 7], [7], [3, 7]],
    [[2, 3, 4], [3, 1], [2, 3, 4]],
    [[2, 3, 5], [3, 1], [2, 3, 5]],
    [[2, 1, 4], [1, 3, 1], [2, 3, 4]],
    [[2, 1, 5], [1, 3, 1], [2, 3, 5]],
    [[4, 1], [1, 4], [4, 4]],
    [[5, 1], [7], [5, 7]],
    [[2, 12, 1, 1], [2, 12, 3, 4], [2, 12, 3, 4]],
    [[3, 1, 5, 1, 2], [1, 4, 1, 8, 1], [3, 4, 5, 8, 2]],
    [[2, 1, 2, 1, 2, 1, 2, 1], [1, 3, 1, 3, 1, 3, 1, 3], [2, 3, 2, 3, 2, 3, 2, 3]],
    [[2, 1, 2, 1, 2, 1, 2, 1], [1, 3, 1, 3, 1, 3, 1, 4], [2, 3, 2, 3, 2, 3, 2, 4]],
    [[0, 4], [4], [0, 4]],
    [[2, 1], [1, 0], [2, 0]],
  ];

Deno.test("recordBinary() broadcasts in every position, rank 0 to 8", async () => {
  const gpu = await sharedGpu();
  for (const [ofLeft, ofRight, wanted] of BROADCASTS) {
    const left = floats(countOf(ofLeft), 5), right = floats(countOf(ofRight), 6);
    const { values, shape } = await binaryOf(
      gpu,
      "sub",
      Tensor.from(gpu, left, ofLeft),
      Tensor.from(gpu, right, ofRight),
    );
    const expected = reference.broadcast(
      wanted,
      [{ data: left, shape: ofLeft }, { data: right, shape: ofRight }],
      (x, y) => Math.fround(x - y), // One operation, rounded as IEEE does.
    );
    assert.deepEqual(shape, wanted);
    assert.deepEqual(values, [...expected], `[${ofLeft}] − [${ofRight}]`);
  }
});

Deno.test("recordBinary() computes each operation of f32", async () => {
  const gpu = await sharedGpu();
  const next = uniform(7);
  const x = Float32Array.from(
    { length: 500 },
    (_, i) => i % 3 === 0 ? Math.floor(9 * next() - 4) : 8 * next() - 4,
  );
  const y = Float32Array.from(
    { length: 500 },
    (_, i) => i % 2 === 0 ? Math.floor(9 * next() - 4) : 8 * next() - 4,
  );
  for (const operation of Object.keys(BINARY_OPERATIONS) as BinaryOperation[]) {
    if (BINARY_OPERATIONS[operation] >= BINARY_OPERATIONS.and) continue;
    const { values } = await binaryOf(gpu, operation, tensorOf(gpu, x), tensorOf(gpu, y));
    for (const [i, actual] of values.entries()) {
      const expected = reference.binary(operation, x[i]!, y[i]!, false);
      if (!Number.isFinite(expected)) continue; // Division by 0, or a root of what is negative.
      // A remainder is a difference of the operands, as exact as they and as their quotient; a power
      // by squaring is off by an ulp a step, by exp2 and log2 by 3 ulp of an exponent up to 8.
      const bound = operation === "mod" || operation === "fmod"
        ? 4e-6
        : operation === "pow"
        ? 1e-5 * Math.abs(expected)
        : 4e-7 * Math.abs(expected);
      assert.ok(
        Math.abs(actual - expected) <= bound,
        `${operation}(${x[i]}, ${y[i]}) is ${actual}, not ${expected}`,
      );
    }
  }
});

Deno.test("recordBinary() keeps masks of −∞ in max, min and add", async () => {
  const gpu = await sharedGpu();
  const x = tensorOf(gpu, Float32Array.of(-Infinity, -Infinity, 3, Infinity));
  const y = tensorOf(gpu, Float32Array.of(1, -Infinity, -Infinity, 2));
  assert.deepEqual((await binaryOf(gpu, "max", x, y)).values, [1, -Infinity, 3, Infinity]);
  assert.deepEqual((await binaryOf(gpu, "min", x, y)).values, [-Infinity, -Infinity, -Infinity, 2]);
  assert.deepEqual((await binaryOf(gpu, "add", x, y)).values, [
    -Infinity,
    -Infinity,
    -Infinity,
    Infinity,
  ]);
});

Deno.test("recordBinary() of integers is exact and wraps", async () => {
  const gpu = await sharedGpu();
  const next = uniform(8);
  for (const signed of [true, false]) {
    const number = () =>
      Math.floor(next() * 2 ** (31 * next())) * (signed && next() < 0.5 ? -1 : 1);
    const make = (values: number[]) => signed ? Int32Array.from(values) : Uint32Array.from(values);
    for (const operation of Object.keys(BINARY_OPERATIONS) as BinaryOperation[]) {
      if (signed && operation.startsWith("shift")) continue;
      const small = operation.startsWith("shift") || operation === "pow";
      const x = make(
        Array.from({ length: 203 }, () => operation === "pow" ? number() % 8 : number()),
      );
      const y = make(
        Array.from(
          { length: 203 },
          () => small ? Math.floor(next() * (operation === "pow" ? 10 : 34)) : number() || 1,
        ),
      );
      const { values } = await binaryOf(gpu, operation, tensorOf(gpu, x), tensorOf(gpu, y));
      const expected = make(Array.from(x, (v, i) => reference.binary(operation, v, y[i]!, true)));
      assert.deepEqual(values, [...expected], `${operation} ${signed}`);
    }
  }
});

Deno.test("recordBinary() in f16 goes to infinity where f16 ends", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return console.log("skipped: no f16");
  const x = tensorOf(gpu, Float16Array.of(60000, -60000, 300, 1, 0.1));
  const y = tensorOf(gpu, Float16Array.of(2, 2, 300, 2 ** -24, 0.1));
  assert.deepEqual(
    (await binaryOf(gpu, "mul", x, y)).values,
    [...Float16Array.of(Infinity, -Infinity, Infinity, 2 ** -24, 0.1 * 0.1)].map((v, i) =>
      i === 4 ? Float16Array.of(Float16Array.of(0.1)[0]! ** 2)[0]! : v
    ),
  );
});

Deno.test("recordBinary() goes on where the grid ends", async () => {
  const gpu = await sharedGpu();
  const length = 4096 * 30 + 5;
  const x = floats(length, 9);
  const input = tensorOf(gpu, x);
  const compiled = await compileBinary(gpu, "add", input, input);
  const output = new Tensor(gpu, "f32", [length]);
  const batch = new Batch(gpu);
  recordBinary(narrowRecorder(batch, 7), compiled, { left: input, right: input, output });
  batch.submit();
  assert.deepEqual(await numbersOf(output), [...x.map((v) => 2 * v)]);
});

Deno.test("compileBinary() and recordBinary() refuse what does not fit", async () => {
  const gpu = await sharedGpu();
  const f32 = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  await assert.rejects(
    compileBinary(gpu, "add", f32(2, 3), f32(2)),
    /broadcast \[2, 3\] and \[2\]/,
  );
  await assert.rejects(compileBinary(gpu, "and", f32(2), f32(2)), RangeError);
  await assert.rejects(compileBinary(gpu, "add", f32(2), new Tensor(gpu, "i32", [2])), RangeError);
  await assert.rejects(compileUnary(gpu, "exp", "i32"), RangeError);
  const compiled = await compileBinary(gpu, "add", f32(2, 3), f32(3));
  assert.throws(
    () =>
      recordBinary(new Batch(gpu), compiled, {
        left: f32(2, 3),
        right: f32(2, 3),
        output: f32(2, 3),
      }),
    /"right" is f32 \[2, 3\], compiled for f32 \[3\]/,
  );
});

Deno.test("recordWhere() moves bits, and broadcasts all three", async () => {
  const gpu = await sharedGpu();
  const cases: readonly (readonly [number[], number[], number[], number[]])[] = [
    [[], [], [], []],
    [[9], [9], [9], [9]],
    [[2, 3, 8], [8], [], [2, 3, 8]],
    [[3, 1], [2, 1, 8], [1], [2, 3, 8]],
    [[3, 1], [2, 1, 7], [3, 7], [2, 3, 7]],
    [[1, 1, 4, 4], [2, 3, 4, 4], [], [2, 3, 4, 4]],
    [[4, 1, 2, 1, 2, 1, 2], [3, 1, 2, 1, 2, 1], [2], [4, 3, 2, 2, 2, 2, 2]],
    [[0], [1], [], [0]],
  ];
  const next = uniform(10);
  for (const [ofCondition, ofLeft, ofRight, wanted] of cases) {
    const condition = Uint32Array.from(
      { length: countOf(ofCondition) },
      () => next() < 0.5 ? 0 : 1,
    );
    const left = floats(countOf(ofLeft), 11).fill(-Infinity, 0, 1);
    const right = floats(countOf(ofRight), 12).fill(NaN, 0, 1);
    const tensors = {
      condition: Tensor.from(gpu, condition, ofCondition),
      left: Tensor.from(gpu, left, ofLeft),
      right: Tensor.from(gpu, right, ofRight),
    };
    const compiled = await compileWhere(gpu, tensors.condition, tensors.left, tensors.right);
    assert.deepEqual(compiled.output.shape, wanted);
    const output = new Tensor(gpu, "f32", wanted);
    const batch = new Batch(gpu);
    recordWhere(batch, compiled, { ...tensors, output });
    batch.submit();
    const expected = reference.broadcast(wanted, [
      { data: condition, shape: ofCondition },
      { data: left, shape: ofLeft },
      { data: right, shape: ofRight },
    ], (c, x, y) => c !== 0 ? x : y);
    assert.deepEqual(
      await numbersOf(output),
      [...expected],
      `[${ofCondition}] [${ofLeft}] [${ofRight}]`,
    );
  }
});

Deno.test("recordConvert() truncates, saturates and keeps", async () => {
  const gpu = await sharedGpu();
  const convert = async (data: TensorData, to: "f32" | "f16" | "i32" | "u32" | "bool") => {
    const input = tensorOf(gpu, data);
    const compiled = await compileConvert(gpu, input.type, to);
    const output = new Tensor(gpu, compiled.to, input.shape);
    const batch = new Batch(gpu);
    recordConvert(batch, compiled, { input, output });
    batch.submit();
    return await numbersOf(output);
  };
  const values = Float32Array.of(0, 1.9, -1.9, 3e9, -3e9, 1e20, -0.5, 16777216);
  assert.deepEqual(await convert(values, "i32"), [
    0,
    1,
    -1,
    2147483520, // the last f32 before 2³¹: WGSL §15.7.6
    -2147483648,
    2147483520,
    0,
    16777216,
  ]);
  assert.deepEqual(await convert(values, "u32"), [
    0,
    1,
    0,
    3000000000,
    0,
    4294967040,
    0,
    16777216,
  ]);
  assert.deepEqual(await convert(Float32Array.of(0, -0, 0.25, NaN, -3), "bool"), [0, 0, 1, 1, 1]);
  assert.deepEqual(await convert(Int32Array.of(-7, 2147483647, 0), "f32"), [-7, 2147483648, 0]);
  assert.deepEqual(await convert(Int32Array.of(-1, 5), "u32"), [4294967295, 5]);
  if (gpu.features.has("shader-f16")) {
    assert.deepEqual(await convert(Float32Array.of(1, 65504, 70000, -1e9, 2 ** -24), "f16"), [
      1,
      65504,
      Infinity,
      -Infinity,
      2 ** -24,
    ]);
    assert.deepEqual(await convert(Float16Array.of(1.5, -2.5), "i32"), [1, -2]);
  }
});

Deno.test("recordUnary() leaves the padding of rows zero, whatever the operation makes of zeros", async () => {
  const gpu = await sharedGpu();
  for (
    const [operation, row, channels] of [["log", 4, 3], ["exp", 12, 9], ["cos", 8, 8]] as const
  ) {
    const rows = 37;
    const values = floats(rows * row, 5).map((v, i) => i % row < channels ? 1.5 + v : 0);
    const output = new Tensor(gpu, "f32", [rows, row]);
    const batch = new Batch(gpu);
    recordUnary(batch, await compileUnary(gpu, operation, "f32", {}, true), {
      input: Tensor.from(gpu, values, [rows, row]),
      output,
    }, channels);
    batch.submit();
    for (const [i, actual] of (await output.readFloats()).entries()) {
      // WGSL's exp and log near these arguments are off by less than 1e-6.
      const expected = i % row < channels ? Math[operation](values[i]!) : 0;
      assert.ok(
        Math.abs(actual - expected) <= (i % row < channels ? 1e-5 : 0),
        `${operation} ${i}`,
      );
    }
  }
});

Deno.test("recordBinary() gives NaN for what is no power of a real number, and for nothing else", async () => {
  const gpu = await sharedGpu();
  const bases = Float32Array.of(-2, -2, -2, -2, 2, 0, -0.5, -8);
  const exponents = Float32Array.of(0.5, 2, 3, -1, 0.5, 0.5, 1.5, 1 / 3);
  const left = Tensor.from(gpu, bases, [8]), right = Tensor.from(gpu, exponents, [8]);
  const output = new Tensor(gpu, "f32", [8]);
  const batch = new Batch(gpu);
  recordBinary(batch, await compileBinary(gpu, "pow", left, right), { left, right, output });
  batch.submit();
  for (const [i, actual] of (await output.readFloats()).entries()) {
    const expected = bases[i]! ** exponents[i]!;
    // exp2 and log2 of WGSL are off by some ulp at these sizes.
    const close = Number.isNaN(expected)
      ? Number.isNaN(actual)
      : Math.abs(actual - expected) <= 1e-5 * Math.abs(expected);
    assert.ok(close, `${bases[i]} ^ ${exponents[i]} is ${actual}, not ${expected}`);
  }
});
