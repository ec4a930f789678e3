import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseSidecar } from "../src/classifier/sidecar.ts";
import { VARIABLES } from "../src/config.ts";
import { MODEL_SCHEMA } from "../src/tools/model_schema.ts";

/** What of a JSON schema is read here. */
interface Schema {
  readonly properties?: Record<string, Schema>;
  readonly oneOf?: readonly Schema[];
  readonly items?: Schema | readonly Schema[];
}

const README = readFileSync(new URL("../README.md", import.meta.url), "utf8");

Deno.test("the README's table has every variable, and no other", () => {
  const rows = [...README.matchAll(/^\| (`[A-Z_`, ]+`) +\| (both|production|development) +\|/gm)];
  const listed = rows.flatMap(([, names, mode]) =>
    names!.split(", ").map((name) => `${name.replaceAll("`", "").trim()} ${mode}`)
  );
  assert.deepEqual(listed.sort(), VARIABLES.map(({ name, when }) => `${name} ${when}`).sort());
});

Deno.test("the README's table has every task", () => {
  const { tasks } = JSON.parse(readFileSync(new URL("../deno.json", import.meta.url), "utf8"));
  const table = /\| task +\| what +\|\n([\s\S]*?)\n\n/.exec(README)![1]!;
  const listed = table.split("\n").slice(1).flatMap((row) =>
    [...row.split("|")[1]!.matchAll(/`([a-z:]+)/g)].map(([, name]) => name)
  );
  assert.deepEqual(listed.sort(), Object.keys(tasks).sort());
});

Deno.test("the README's model.json is one, and its table has every field", () => {
  const example = /```json\n(\{\n {2}"name"[\s\S]*?)```/.exec(README)![1]!;
  assert.equal(parseSidecar(example, "README.md").output.kind, "classes");
  const fields: string[] = [];
  const walk = (schema: Schema, path: string) => {
    for (const [name, of] of Object.entries(schema.properties ?? {})) {
      const at = path === "" ? name : `${path}.${name}`;
      if (name === "$schema") continue;
      if (path === "" && (of.properties ?? of.oneOf)) {
        for (const each of of.oneOf ?? [of]) walk(each, at);
      } else if (of.items !== undefined && "properties" in of.items) {
        walk(of.items, `${at}[]`);
      } else fields.push(at);
    }
  };
  walk(JSON.parse(readFileSync(MODEL_SCHEMA, "utf8")), "");
  const table = /\| field +\| meaning +\| default +\|\n([\s\S]*?)\n\n/.exec(README)![1]!;
  const listed = table.split("\n").slice(1).flatMap((row) =>
    [...row.split("|")[1]!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!)
  );
  assert.deepEqual(listed.sort(), [...new Set(fields)].sort());
});

Deno.test("the README's process_image.ts passes the type checker", async () => {
  const example = /```ts\n([\s\S]*?)```/.exec(README)![1]!;
  assert.match(example, /export async function processImage/);
  const folder = await Deno.makeTempDir();
  try {
    const src = new URL("../src/", import.meta.url).href;
    const file = join(folder, "process_image.ts");
    writeFileSync(file, example.replaceAll('from "./', `from "${src}`));
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["check", "--config", new URL("../deno.json", import.meta.url).pathname, file],
    }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
