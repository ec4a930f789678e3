import assert from "node:assert/strict";
import { Batch } from "../../kernels/kernel.ts";
import {
  compileResize,
  type CoordinateMode,
  type NearestMode,
  recordResize,
  type ResizeAttributes,
  resizedAxes,
  type ResizedAxis,
  resizedShape,
} from "../../kernels/resize.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { floats } from "../reference/random.ts";
import * as reference from "../reference/resize.ts";
import { sharedGpu } from "./gpu.ts";

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

const COORDINATES: readonly CoordinateMode[] = [
  "half_pixel",
  "half_pixel_symmetric",
  "pytorch_half_pixel",
  "align_corners",
  "asymmetric",
  "tf_half_pixel_for_nn",
  "tf_crop_and_resize",
];
const NEAREST: readonly NearestMode[] = [
  "round_prefer_floor",
  "round_prefer_ceil",
  "floor",
  "ceil",
];

/**
 * Resizes on the device and compares. The taps are known to f32, so a sum of `taps` of them is off by
 * (taps + 3) · 2⁻²⁴ · Σ|w·v|, at most 2.5 a tap and axis for cubic; a place is rounded to f32 where a
 * scale is given, which moves weights by its ulp times the kernel's slope, under 2. Nearest is exact.
 */
async function compare(
  shape: readonly number[],
  axes: readonly ResizedAxis[],
  attributes: ResizeAttributes,
  type: "f32" | "f16" = "f32",
): Promise<void> {
  const gpu = await sharedGpu();
  const values = floats(count(shape), 7);
  const data = type === "f16" ? Float16Array.from(values) : values;
  const outShape = resizedShape(shape, axes);
  const expected = reference.resize(data, shape, axes, attributes);
  const compiled = await compileResize(gpu, { shape, axes, type, ...attributes });
  const output = new Tensor(gpu, type, outShape);
  const batch = new Batch(gpu);
  recordResize(batch, compiled, { input: Tensor.from(gpu, data, shape), output });
  batch.submit();
  const actual = await output.readFloats();
  compiled.destroy();
  const exact = (attributes.mode ?? "nearest") === "nearest";
  const longest = Math.max(1, ...axes.map(({ axis }) => shape[axis]!));
  const f32 = exact ? 0 : (16 + 4 * longest) * 2 ** -22;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    // f16 keeps half an ulp, once more for each pass between which it is stored.
    const stored = type === "f16" ? 3 * 2 ** -11 * Math.max(1, Math.abs(expected[i]!)) : 0;
    const error = Math.abs(actual[i]! - expected[i]!) / (f32 + stored + 1e-30);
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  assert.equal(actual.length, expected.length);
  assert.ok(
    worst <= 1,
    `[${shape}] → [${outShape}] ${JSON.stringify(attributes)}: ${worst} of the bound`,
  );
}

/** Sizes up and down, a scale that is not the ratio of the sizes, and a crop beyond the image. */
const GEOMETRIES = [
  { shape: [1, 5, 7, 4], sizes: [1, 10, 14, 4] },
  { shape: [2, 7, 5, 8], sizes: [2, 3, 11, 8] },
  { shape: [1, 1, 4, 4], sizes: [1, 3, 1, 4] },
] as const;

Deno.test("recordResize() is ONNX's nearest in every mode, on either kind of tensor", async () => {
  for (const coordinateMode of COORDINATES) {
    for (const nearestMode of NEAREST) {
      for (const { shape, sizes } of GEOMETRIES) {
        const roi = [0, 0.12, -0.2, 0, 1, 0.9, 0.7, 1];
        const axes = resizedAxes(shape, {
          sizes,
          ...(coordinateMode === "tf_crop_and_resize" ? { roi } : {}),
        });
        await compare(shape, axes, { coordinateMode, nearestMode, extrapolationValue: 3 });
      }
      // Planar, by scales that are exact in f32, of which one leaves a part of a pixel over.
      await compare(
        [2, 3, 8, 7],
        resizedAxes([2, 3, 8, 7], { scales: [0.75, 1.1875], axes: [2, -1] }),
        { coordinateMode, nearestMode },
      );
    }
  }
});

Deno.test("recordResize() is ONNX's linear and cubic, antialiased or not, edges out or in", async () => {
  for (const mode of ["linear", "cubic"] as const) {
    for (const coordinateMode of COORDINATES) {
      for (const excludeOutside of [false, true]) {
        for (const antialias of [false, true]) {
          const attributes = { mode, coordinateMode, excludeOutside, antialias, cubicCoeffA: -0.5 };
          for (const { shape, sizes } of GEOMETRIES) {
            const roi = [0, 0.12, -0.2, 0, 1, 0.9, 0.7, 1];
            const axes = resizedAxes(shape, {
              sizes,
              ...(coordinateMode === "tf_crop_and_resize" ? { roi } : {}),
            });
            await compare(shape, axes, attributes);
          }
          const shape = [1, 2, 11, 7];
          await compare(
            shape,
            resizedAxes(shape, { scales: [0.6, 1.7], axes: [2, 3] }),
            attributes,
          );
        }
      }
    }
  }
});

Deno.test("recordResize() takes any axes: one, three, all of four, far apart, and f16", async () => {
  const gpu = await sharedGpu();
  const types = gpu.features.has("shader-f16") ? ["f32", "f16"] as const : ["f32"] as const;
  for (const type of types) {
    for (const mode of ["nearest", "linear", "cubic"] as const) {
      for (
        const [shape, sizes] of [
          [[13], [29]],
          [[3, 17, 4], [3, 5, 4]],
          [[2, 3, 4, 5, 8], [2, 5, 2, 7, 8]],
          [[2, 3, 4, 5], [3, 2, 6, 7]],
          [[3, 2, 2, 2, 5], [5, 2, 2, 2, 3]],
          // Either side of a workgroup's 64 invocations.
          [[1, 3, 3, 4], [1, 9, 7, 4]],
          [[1, 3, 3, 4], [1, 13, 5, 4]],
          [[2, 3, 4], [2, 3, 4]],
          [[0, 3, 3, 4], [0, 6, 6, 4]],
          [[1, 3, 3, 4], [1, 0, 6, 4]],
        ] as const
      ) {
        await compare(shape, resizedAxes(shape, { sizes }), { mode }, type);
      }
    }
  }
});

Deno.test("recordResize() saturates where cubic overshoots what f16 holds", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return console.log("skipped: the adapter has no f16");
  const shape = [1, 1, 4, 4];
  const data = Float16Array.from({ length: 16 }, (_, i) => i < 8 ? 65504 : -65504);
  const compiled = await compileResize(gpu, {
    shape,
    axes: resizedAxes(shape, { sizes: [1, 1, 8, 4] }),
    mode: "cubic",
    type: "f16",
  });
  const output = new Tensor(gpu, "f16", [1, 1, 8, 4]);
  const batch = new Batch(gpu);
  recordResize(batch, compiled, { input: Tensor.from(gpu, data, shape), output });
  batch.submit();
  const actual = await output.readFloats();
  assert.ok(actual.every((v) => Math.abs(v) <= 65504));
  assert.equal(Math.max(...actual), 65504);
});

Deno.test("resizedAxes() has ONNX's sizes, policies and order", () => {
  assert.deepEqual(resizedAxes([1, 10], { scales: [0.7], axes: [1] }), [
    { axis: 1, outSize: 7, scale: Math.fround(0.7) },
  ]);
  // ONNX Resize-19, keep_aspect_ratio_policy; halves are rounded up.
  const sizes = (policy: "not_larger" | "not_smaller") =>
    resizedAxes([1, 1, 2, 4], { sizes: [7, 8], axes: [2, 3], policy }).map((a) => a.outSize);
  assert.deepEqual(sizes("not_larger"), [4, 8]);
  assert.deepEqual(sizes("not_smaller"), [7, 14]);
  assert.deepEqual(
    resizedAxes([5, 6], { sizes: [2, 3], axes: [-1, 0], roi: [0.1, 0.2, 0.8, 0.9] }),
    [
      { axis: 1, outSize: 2, roi: [0.1, 0.8] },
      { axis: 0, outSize: 3, roi: [0.2, 0.9] },
    ],
  );
  for (
    const wrong of [
      {},
      { scales: [1], sizes: [1], axes: [0] },
      { sizes: [1] },
      { sizes: [1, 2.5] },
      { scales: [1, 0] },
      { sizes: [1, 1], axes: [0, 0] },
      { sizes: [1], axes: [2] },
      { sizes: [1, 1], roi: [0, 1] },
    ]
  ) {
    assert.throws(() => resizedAxes([5, 6], wrong), RangeError);
  }
});

Deno.test("compileResize() and recordResize() refuse what does not fit", async () => {
  const gpu = await sharedGpu();
  const shape = [1, 4, 4, 4];
  for (
    const axes of [
      [{ axis: 4, outSize: 2 }],
      [{ axis: 1, outSize: -1 }],
      [{ axis: 1, outSize: 2 }, { axis: 1, outSize: 2 }],
      [{ axis: 1, outSize: 2, scale: 1e-9 }],
    ]
  ) {
    await assert.rejects(compileResize(gpu, { shape, axes }), RangeError);
  }
  const nothing = compileResize(gpu, { shape: [1, 0, 4, 4], axes: [{ axis: 1, outSize: 2 }] });
  await assert.rejects(nothing, RangeError);
  const compiled = await compileResize(gpu, { shape, axes: [{ axis: 1, outSize: 2 }] });
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const batch = new Batch(gpu);
  recordResize(batch, compiled, { input: tensor(...shape), output: tensor(1, 2, 4, 4) });
  for (
    const [input, output] of [
      [tensor(1, 4, 4, 8), tensor(1, 2, 4, 4)],
      [tensor(...shape), tensor(...shape)],
      [new Tensor(gpu, "i32", shape), tensor(1, 2, 4, 4)],
    ] as const
  ) {
    assert.throws(() => recordResize(batch, compiled, { input, output }), RangeError);
  }
});
