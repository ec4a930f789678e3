/** `deno task model:nuclei FOLDER`: writes the nucleus detector as any other model is: two files. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { nucleiModel } from "../classifier/nuclei_model.ts";
import { parsing, runTool } from "./tool.ts";

const USAGE = "deno task model:nuclei FOLDER [--mpp 0.5]";
const HELP = `Writes the built-in nucleus detector as model.onnx and model.json, an example of both.

Usage: ${USAGE}

  FOLDER      where; it is made if it is not there
  --mpp       micrometres per pixel that its filters are made for, 0.1 to 5; default 0.5
  -h, --help  this text
`;
/** Side of a tile without its overlap. */
const CORE_PX = 512;

/** @throws {ConfigError} for arguments that make no sense. */
export function runModelNuclei(args: readonly string[]): string {
  const { help, folder, mpp } = parsing(USAGE, () => {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        mpp: { type: "string", default: "0.5" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (!values.help && positionals.length !== 1) throw new TypeError("FOLDER must be one path");
    const mpp = Number(values.mpp);
    if (!(mpp >= 0.1 && mpp <= 5)) throw new TypeError(`--mpp is "${values.mpp}", not 0.1 to 5`);
    return { help: values.help, folder: positionals[0], mpp };
  });
  if (help || folder === undefined) return HELP;
  const { bytes, sidecar } = nucleiModel(mpp, CORE_PX);
  mkdirSync(folder, { recursive: true });
  const [model, beside] = [join(folder, "model.onnx"), join(folder, "model.json")];
  writeFileSync(model, bytes);
  writeFileSync(beside, JSON.stringify(sidecar, null, 2) + "\n");
  return `${model} and ${beside} are written`;
}

if (import.meta.main) await runTool(() => Promise.resolve(runModelNuclei(Deno.args)));
