/**
 * Environment and flags in, exit code out. `DEV=1` is development mode, everything else production.
 *
 * The only place that exits, and that turns an error into words and an exit code.
 */

import { availableParallelism, tmpdir } from "node:os";
import { statSync } from "node:fs";
import { parseArgs } from "node:util";
import { KernelError } from "../kernels/errors.ts";
import { readConfig, SECRET_VARIABLES, VARIABLES } from "./config.ts";
import { redact } from "./secrets.ts";
import {
  CodecError,
  ConfigError,
  InterruptedError,
  ModelError,
  ResultsError,
  SlideFormatError,
  SourceError,
  TechcyteError,
  UnsupportedError,
} from "./errors.ts";
import { oneLine, startLog } from "./log.ts";
import { INTERRUPTED, Run } from "./mode/run.ts";

/** Exit codes, as in the README's table. */
const EXIT_CODES: readonly [
  code: number,
  // deno-lint-ignore no-explicit-any -- classes with all kinds of constructors
  classes: readonly (abstract new (...args: any[]) => Error)[],
][] = [
  [2, [ConfigError]],
  [3, [SourceError, SlideFormatError, CodecError, UnsupportedError]],
  [4, [KernelError, ModelError]],
  [5, [ResultsError, TechcyteError]],
  [INTERRUPTED, [InterruptedError]],
];

function exitCodeOf(error: unknown): number {
  return EXIT_CODES.find(([, classes]) => classes.some((c) => error instanceof c))?.[0] ?? 1;
}

function help(): string {
  const width = Math.max(...VARIABLES.map(({ name }) => name.length));
  const list = (when: string) =>
    VARIABLES.filter((variable) => variable.when === when)
      .map(({ name, meaning }) => `  ${name.padEnd(width)}  ${meaning}\n`).join("");
  return `WGSlide classifies a whole-slide image on a GPU and hands findings to Techcyte.

Development: DEV=1, a slide in /input, result.png and result.json in /output.
Production:  SCAN_URL, HOST, JWT_TOKEN, TASK_ID and SCAN_ID, as the platform sets them.

Usage: wgslide [--help]      (everything else is set by environment variables)

Both modes
${list("both")}
Development
${list("development")}
Production
${list("production")}
Exit codes
  0  done
  1  processImage or something unforeseen failed
  2  configuration
  3  slide (download, expired URL, format, decoding)
  4  GPU or model
  5  results or posting
  6  interrupted or out of time
`;
}

let run: Run | undefined;

async function main(): Promise<number> {
  try {
    let flags;
    try {
      flags = parseArgs({ args: Deno.args, options: { help: { type: "boolean", short: "h" } } });
    } catch (cause) {
      throw new ConfigError(`${(cause as Error).message}; see --help`, "arguments", { cause });
    }
    if (flags.values.help) {
      console.log(help());
      return 0;
    }
    const config = readConfig(Deno.env.toObject(), {
      cores: availableParallelism(),
      tempDir: tmpdir(),
      isFolder: (path) => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false,
    });
    // What a vendor's code cannot find it cannot print.
    for (const name of SECRET_VARIABLES) Deno.env.delete(name);
    const log = startLog(config.logLevel, (line) => {
      run?.endProgress();
      console.error(redact(line));
    });
    run = await Run.start(config, log);
    try {
      if (config.mode === "development") {
        const { development } = await import("./mode/dev.ts");
        await development(config, run);
      } else {
        const { production } = await import("./mode/production.ts");
        await production(config, run);
      }
    } finally {
      await run.close();
    }
    return 0;
  } catch (error) {
    const code = exitCodeOf(error);
    const { message, stack, cause } = error instanceof Error ? error : new Error(String(error));
    const inner = cause instanceof Error ? cause.stack : undefined;
    console.error(redact(`error: ${oneLine(message)}`));
    // Unforeseen, or a vendor's own: where it happened is what they need.
    if (code === 1) console.error(redact(inner ?? stack ?? ""));
    return code;
  }
}

// Thrown in a timer or a listener, where nobody can catch it.
globalThis.addEventListener("error", (event) => {
  event.preventDefault();
  if (run?.failUnhandled(event.error)) return;
  console.error(redact(`error: Uncaught: ${event.error?.stack ?? event.message}`));
  Deno.exit(1);
});

globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  const { reason } = event;
  if (run?.failUnhandled(reason)) return;
  console.error(
    redact(`error: Unhandled rejection: ${reason instanceof Error ? reason.stack : reason}`),
  );
  Deno.exit(1);
});

Deno.exit(await main());
