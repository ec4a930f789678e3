/**
 * Environment and flags in, exit code out. `DEV=1` is development mode, everything else production.
 *
 * The only place that exits, and that turns an error into words and an exit code.
 */

import { availableParallelism, tmpdir } from "node:os";
import { statSync } from "node:fs";
import { parseArgs } from "node:util";
import { KernelError } from "../kernels/errors.ts";
import { type Config, readConfig, VARIABLES } from "./config.ts";
import {
  CodecError,
  ConfigError,
  InterruptedError,
  ResultsError,
  SlideFormatError,
  SourceError,
  TechcyteError,
  UnsupportedError,
} from "./errors.ts";
import { startLog } from "./log.ts";
import { INTERRUPTED, Run } from "./mode/run.ts";

/** Exit codes, as in the README's table. */
const EXIT_CODES: readonly [
  code: number,
  // deno-lint-ignore no-explicit-any -- classes with all kinds of constructors
  classes: readonly (abstract new (...args: any[]) => Error)[],
][] = [
  [2, [ConfigError]],
  [3, [SourceError, SlideFormatError, CodecError, UnsupportedError]],
  [4, [KernelError]],
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

/** What must not appear in any output, whatever error carries it. */
function secretsOf(config: Config): string[] {
  if (config.mode !== "production") return [];
  const { scanUrl, debugFileUploadUrl, credentials } = config;
  const queries = [scanUrl, debugFileUploadUrl].flatMap((url) =>
    url === undefined ? [] : [URL.parse(url.reveal())?.search.slice(1) ?? ""]
  );
  const token = credentials.kind === "jwt" ? credentials.token : credentials.secret;
  return [...queries, token.reveal()].filter((secret) => secret.length >= 4);
}

let run: Run | undefined;
let secrets: string[] = [];

function redact(text: string): string {
  return secrets.reduce((text, secret) => text.replaceAll(secret, "[secret]"), text);
}

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
    secrets = secretsOf(config);
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
    console.error(redact(`error: ${message}`));
    // Unforeseen, or a vendor's own: where it happened is what they need.
    if (code === 1) console.error(redact(inner ?? stack ?? ""));
    return code;
  }
}

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
