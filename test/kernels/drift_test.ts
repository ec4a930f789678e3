/**
 * Every kernel's WGSL and literal, one of the two moved: no such pair compiles. `kernel_test.ts` says
 * of each kind of drift what the message is; here it is every kernel there is, from its own files.
 */

import assert from "node:assert/strict";
import { KernelError } from "../../kernels/errors.ts";
import { declaredKernels, defineKernel, type KernelLiteral } from "../../kernels/kernel.ts";
import { sharedGpu } from "./gpu.ts";

const FOLDER = new URL("../../kernels/", import.meta.url);
const files = [...Deno.readDirSync(FOLDER)].map(({ name }) => name).sort();
for (const name of files.filter((name) => name.endsWith(".ts"))) await import(`${FOLDER}${name}`);
const kernels = [...declaredKernels()];

/** One side of a pair moved; undefined where a kernel has nothing to move. */
type Drift = (literal: KernelLiteral) => KernelLiteral | undefined;

const word = (name: string) => new RegExp(`\\b${name}\\b`, "g");

/** The members of Params as the WGSL spells them, exchanged for what `change` makes of them. */
function withMembers(
  literal: KernelLiteral,
  change: (members: string[]) => readonly string[],
): KernelLiteral {
  const code = literal.code.replace(
    /(\bstruct\s+Params\s*\{)([^}]*)\}/,
    (_, head: string, body: string) => {
      const plain = body.replace(/\/\/[^\n]*/g, "");
      const members = plain.split(",").map((member) => member.trim()).filter(Boolean);
      return `${head} ${change(members).join(", ")} }`;
    },
  );
  return { ...literal, code };
}

function withoutLast<T>(record: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).slice(0, -1));
}

/** The first two entries in each other's place. */
function swapped<T>(record: Readonly<Record<string, T>>): Record<string, T> | undefined {
  const [first, second, ...rest] = Object.entries(record);
  return first && second && Object.fromEntries([second, first, ...rest]);
}

const DRIFTS: Readonly<Record<string, Drift>> = {
  "the entry point renamed in the WGSL": (k) => ({
    ...k,
    code: k.code.replace(new RegExp(`\\bfn\\s+${k.name}\\b`), `fn ${k.name}_`),
  }),
  "a binding renamed in the WGSL": (k) => {
    const [name] = Object.keys(k.bindings);
    return { ...k, code: k.code.replace(word(name!), `${name}_`) };
  },
  "the last binding renamed in the literal": (k) => {
    const [name, binding] = Object.entries(k.bindings).at(-1)!;
    return { ...k, bindings: { ...withoutLast(k.bindings), [`${name}_`]: binding } };
  },
  "two bindings swapped in the literal": (k) => {
    const bindings = swapped(k.bindings);
    return bindings && { ...k, bindings };
  },
  "a binding missing in the literal": (k) => ({ ...k, bindings: withoutLast(k.bindings) }),
  "an access changed in the WGSL": (k) => ({
    ...k,
    code: k.code.replace(
      /var<storage, read>|var<storage, read_write>/,
      (found) => found.includes("write") ? "var<storage, read>" : "var<storage, read_write>",
    ),
  }),
  "an access changed in the literal": (k) => {
    const [name, { type, access }] = Object.entries(k.bindings).at(-1)!;
    const other = access === "read" ? "read_write" : "read";
    return { ...k, bindings: { ...k.bindings, [name]: { type, access: other } } };
  },
  "an element type changed in the literal": (k) => {
    const [name, { access }] = Object.entries(k.bindings)[0]!;
    return { ...k, bindings: { ...k.bindings, [name]: { type: "array<vec2<u32>>", access } } };
  },
  "two params swapped in the WGSL": (k) =>
    Object.keys(k.params).length < 2
      ? undefined
      : withMembers(k, ([first, second, ...rest]) => [second!, first!, ...rest]),
  "a param renamed in the WGSL": (k) =>
    withMembers(k, ([first, ...rest]) => [`renamed_${first}`, ...rest]),
  "a param of another type in the WGSL": (k) =>
    withMembers(k, ([first, ...rest]) => [
      first!.replace(/\b[uif]32$/, (type) => type === "u32" ? "i32" : "u32"),
      ...rest,
    ]),
  "Params short of one in the WGSL": (k) => withMembers(k, (members) => members.slice(0, -1)),
  "Params short of one in the literal": (k) => ({ ...k, params: withoutLast(k.params) }),
  "Params of one more in the literal": (k) => ({ ...k, params: { ...k.params, more: "u32" } }),
  "an override renamed in the literal": (k) => {
    const [first, ...rest] = Object.entries(k.overrides);
    const renamed = first && [`${first[0]}_`, first[1]] as const;
    return renamed && { ...k, overrides: Object.fromEntries([renamed, ...rest]) };
  },
  "another default in the literal": (k) => {
    const [first] = Object.entries(k.overrides);
    if (first === undefined) return undefined;
    const [name, value] = first;
    const other = typeof value === "boolean" ? !value : value + 1;
    return { ...k, overrides: { ...k.overrides, [name]: other } };
  },
  "an alias missing in the literal": (k) => k.aliases && { ...k, aliases: withoutLast(k.aliases) },
  "another first type of an alias in the literal": (k) => {
    const [first] = Object.entries(k.aliases ?? {});
    if (first === undefined) return undefined;
    const [name, types] = first;
    return { ...k, aliases: { ...k.aliases, [name]: [types[0] === "u32" ? "i32" : "u32"] } };
  },
};

Deno.test("every .wgsl file with an entry point is declared by one module, under its own name", () => {
  const entries = files.filter((name) => name.endsWith(".wgsl")).flatMap((name) =>
    /@compute\b/.test(Deno.readTextFileSync(new URL(name, FOLDER))) ? [name] : []
  );
  const declared = kernels.map(({ name }) => `${name}.wgsl`).sort();
  assert.deepEqual(declared, entries.sort());
  for (const { name, code } of kernels) {
    assert.equal(code, Deno.readTextFileSync(new URL(`${name}.wgsl`, FOLDER)), name);
  }
});

for (const [what, drift] of Object.entries(DRIFTS)) {
  Deno.test(`no kernel compiles with ${what}`, async () => {
    const gpu = await sharedGpu();
    let moved = 0;
    for (const literal of kernels) {
      const other = drift(literal);
      if (other === undefined) continue;
      moved++;
      assert.notEqual(
        JSON.stringify(other),
        JSON.stringify(literal),
        `${literal.name} did not move`,
      );
      await assert.rejects(
        defineKernel(other).compile(gpu),
        (error: unknown) => {
          assert.ok(error instanceof KernelError, `${literal.name}: ${error}`);
          assert.equal(error.kernel, other.name);
          // Refused for what moved, not for a feature that this adapter lacks.
          assert.match(error.message, /: its \w+ differ: /, literal.name);
          return true;
        },
        literal.name,
      );
    }
    assert.ok(moved > kernels.length / 4, `${moved} of ${kernels.length} moved`);
  });
}
