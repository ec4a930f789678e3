/**
 * `deno task model:schema`: writes `src/classifier/model.schema.json`, by which editors check and
 * complete a `model.json`, from what checks it when it is read.
 */

import { toJsonSchema } from "@valibot/to-json-schema";
import { sidecarSchema } from "../classifier/sidecar.ts";
import { runTool } from "./tool.ts";

/** Where it lies. */
export const MODEL_SCHEMA = new URL("../classifier/model.schema.json", import.meta.url);

/** The file's text. What relates fields to each other, such as an overlap to its tile, it does not say. */
export function modelSchemaText(): string {
  const schema = toJsonSchema(sidecarSchema, {
    typeMode: "input",
    // Checks over several fields have no counterpart; numbers of JSON are finite.
    ignoreActions: ["check", "finite"],
    target: "draft-07",
  });
  return JSON.stringify(
    { ...schema, title: "WGSlide: model.json, the file beside a model" },
    null,
    2,
  ) + "\n";
}

if (import.meta.main) {
  await runTool(async () => {
    await Deno.writeTextFile(MODEL_SCHEMA, modelSchemaText());
    return `${MODEL_SCHEMA.pathname} is written`;
  });
}
