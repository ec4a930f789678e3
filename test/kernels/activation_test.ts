import assert from "node:assert/strict";
import { type ActivationName, activationOf, ACTIVATIONS } from "../../kernels/activation.ts";
import activationText from "../../kernels/activation.wgsl" with { type: "text" };
import { Batch, defineKernel } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/activation.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

/** From the override on: what other kernels repeat. */
const REPEATED = activationText.slice(activationText.indexOf("override ACTIVATION"));

const kernel = defineKernel({
  name: "activation_of_each",
  code: `struct Params { a: f32, b: f32 }
${REPEATED}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;
@compute @workgroup_size(1)
fn activation_of_each(@builtin(global_invocation_id) id: vec3<u32>) {
  output[id.x] = activate(input[id.x], params.a, params.b);
}`,
  params: { a: "f32", b: "f32" },
  bindings: {
    input: { type: "array<vec4<f32>>", access: "read" },
    output: { type: "array<vec4<f32>>", access: "read_write" },
  },
  overrides: { ACTIVATION: 0 },
});

Deno.test("activate() is each activation's formula, far from zero and near it", async () => {
  const gpu = await sharedGpu();
  const values = Float32Array.from([
    ...[0, -0, 1e-6, -1e-6, 0.0399, 0.0401, -0.0401, 3, -3, 6, -6, 20, -20, 100, -100, 1e4, -1e4],
    ...floats(43, 1).map((v) => 8 * v),
  ]);
  const input = Tensor.from(gpu, values, [values.length]);
  for (const name of Object.keys(ACTIVATIONS) as ActivationName[]) {
    for (const constants of [{}, { a: 0.3, b: 0.7 }]) {
      const { code, a, b } = activationOf({ name, ...constants });
      const output = new Tensor(gpu, "f32", [values.length]);
      const batch = new Batch(gpu);
      batch.dispatch(await kernel.compile(gpu, { ACTIVATION: code }), {
        params: { a, b },
        bindings: { input, output },
      }, [values.length / 4]);
      batch.submit();
      const actual = await output.readFloats();
      for (const [i, v] of values.entries()) {
        const expected = reference.activate(name, v, a, b);
        // WGSL's exp is off by (3 + 2·|x|) ulp (§15.7.4.1), which at the 24 or so where the result
        // still matters is 3e-6 of it; erf's series by 1.5e-7, times v for GELU.
        const bound = 4e-6 * Math.abs(expected) + 1.5e-7 * Math.max(1, Math.abs(v)) * 2;
        assert.ok(
          Math.abs(actual[i]! - expected) <= bound,
          `${name}(${v}) is ${actual[i]}, not ${expected}`,
        );
      }
    }
  }
});

Deno.test("every kernel that ends in an activation has the text of activation.wgsl", () => {
  const folder = new URL("../../kernels/", import.meta.url);
  for (const { name } of Deno.readDirSync(folder)) {
    if (!name.endsWith(".wgsl")) continue;
    const code = Deno.readTextFileSync(new URL(name, folder));
    if (/fn activate\(/.test(code)) assert.ok(code.includes(REPEATED.trim()), name);
  }
});
