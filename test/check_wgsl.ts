/**
 * Compiles every `kernels/*.wgsl` with Dawn's own compiler, for which no driver and no GPU is needed,
 * after comparing it with the literal that declares it.
 *
 *     deno run -A test/check_wgsl.ts
 *
 * Prints each message as `file:line:column: kind: text`; exits with 1 where one is an error.
 */

import { create } from "webgpu";
import { compareInterface, declaredKernels, withAliases } from "../kernels/kernel.ts";

/** Features that kernels may use; one that the null backend lacks leaves its kernels refused, with the reason. */
const FEATURES: readonly string[] = [
  "shader-f16",
  "subgroups",
  "subgroup-size-control",
  "chromium-experimental-subgroup-matrix",
];

const folder = new URL("../kernels/", import.meta.url);
// Held until the end: once it is collected the process dies.
const gpu = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
const adapter = await gpu.requestAdapter();
if (adapter === null) throw new Error("Dawn has no null backend");
const offered = new Set<string>(adapter.features);
const requiredFeatures = FEATURES.filter((name) => offered.has(name)) as GPUFeatureName[];
const device = await adapter.requestDevice({ requiredFeatures });

const files = [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
for (const name of files.filter((name) => name.endsWith(".ts"))) await import(`${folder}${name}`);
const literals = new Map(declaredKernels().map((literal) => [`${literal.name}.wgsl`, literal]));
const names = files.filter((name) => name.endsWith(".wgsl"));
let errors = 0;
for (const name of names) {
  const code = Deno.readTextFileSync(new URL(name, folder));
  const literal = literals.get(name);
  try {
    if (literal !== undefined) compareInterface(literal);
  } catch (error) {
    console.error(`kernels/${name}: error: ${(error as Error).message}`);
    errors++;
  }
  // Aliases of f32 may stand for f16, but where they say not: both are compiled, each by itself.
  const aliased = [...code.matchAll(/^alias (\w+) = f32;(?! \/\/ not f16)/gm)].map(([, alias]) =>
    alias!
  );
  const variants = [code, ...aliased.map((alias) => withAliases(code, { [alias]: "f16" }))];
  for (const variant of variants) {
    device.pushErrorScope("validation"); // the same errors again: without the scope Dawn prints them
    const module = device.createShaderModule({ label: name, code: variant });
    const { messages } = await module.getCompilationInfo();
    const invalid = await device.popErrorScope();
    for (const { lineNum, linePos, type, message } of messages) {
      console.error(`kernels/${name}:${lineNum}:${linePos}: ${type}: ${message}`);
    }
    const found = messages.filter(({ type }) => type === "error").length;
    if (found === 0 && invalid !== null) {
      console.error(`kernels/${name}: error: ${invalid.message}`);
    }
    errors += Math.max(found, invalid === null ? 0 : 1);
  }
}
console.log(`${names.length} kernels compiled, ${errors} errors`);
device.destroy();
void gpu;
Deno.exit(errors > 0 ? 1 : 0);
