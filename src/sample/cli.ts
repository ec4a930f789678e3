/** `deno task sample OUT`: draws the sample slide into a file. */

import { parseArgs } from "node:util";
import { ConfigError } from "../errors.ts";
import { drawSample, truthPath } from "./sample.ts";

const USAGE = "deno task sample OUT [--seed N] [--width PX] [--height PX]";

/**
 * Draws what the arguments ask for and prints where it lies.
 * @throws {ConfigError} for arguments that make no sense; {SourceError} where OUT cannot be written.
 */
export async function runSample(args: readonly string[]): Promise<void> {
  const { path, options } = parse(args);
  const truth = await drawSample(path, options);
  console.log(
    `Sample slide of ${truth.widthPx} x ${truth.heightPx} px with ${truth.nuclei.length} nuclei ` +
      `saved to ${path}, its truth to ${truthPath(path)}`,
  );
}

function parse(args: readonly string[]) {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        seed: { type: "string", default: "1" },
        width: { type: "string", default: "3072" },
        height: { type: "string", default: "2304" },
      },
    });
    const [path, ...others] = positionals;
    if (path === undefined || others.length > 0) throw new TypeError("OUT must be one path");
    const whole = (name: "seed" | "width" | "height", low: number, high: number) => {
      const value = Number(values[name]);
      if (!/^\d+$/.test(values[name]) || value < low || value > high) {
        throw new TypeError(`--${name} must be a whole number from ${low} to ${high}`);
      }
      return value;
    };
    return {
      path,
      options: {
        seed: whole("seed", 0, 2 ** 32 - 1),
        widthPx: whole("width", 256, 16384),
        heightPx: whole("height", 256, 16384),
      },
    };
  } catch (cause) {
    const why = (cause as Error).message;
    throw new ConfigError(`Cannot draw a sample: ${why}. Usage: ${USAGE}`, "OUT", { cause });
  }
}

if (import.meta.main) {
  try {
    await runSample(Deno.args);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    console.error(error.message);
    Deno.exitCode = error instanceof ConfigError ? 2 : 1;
  }
}
