/** What command-line tools share: errors in one line, and the exit codes of the README's table. */

import { KernelError } from "../../kernels/errors.ts";
import {
  CodecError,
  ConfigError,
  ModelError,
  SlideFormatError,
  SourceError,
  UnsupportedError,
} from "../errors.ts";

/**
 * Runs a tool: prints what it gives, or the error, and sets the exit code: 2 for arguments, 3 for
 * the slide, 4 for GPU or model, 1 for what was not foreseen.
 */
export async function runTool(run: () => Promise<string>): Promise<void> {
  try {
    console.log(await run());
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    // A model's error lists what is not supported, a line for each.
    const lines = error instanceof ModelError ? error.message.split("\n") : [error.message];
    console.error(`error: ${lines.map(printable).join("\n")}`);
    Deno.exitCode = exitCodeOf(error);
    if (Deno.exitCode === 1) console.error(error.stack);
  }
}

function exitCodeOf(error: Error): number {
  if (error instanceof ConfigError) return 2;
  if (error instanceof ModelError || error instanceof KernelError) return 4;
  const ofSlide = [SourceError, SlideFormatError, CodecError, UnsupportedError];
  return ofSlide.some((type) => error instanceof type) ? 3 : 1;
}

const ESCAPES: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** Text of a file, or its name, without line ends and what else a terminal would act on. */
export function printable(text: string): string {
  return text.replace(
    // deno-lint-ignore no-control-regex -- those are meant
    /[\0-\x1f\x7f-\x9f]/g,
    (control) => ESCAPES[control] ?? `\\x${control.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

/** Parses arguments, giving what is wrong with them as ConfigError with how to use the tool. */
export function parsing<T>(usage: string, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new ConfigError(`${cause.message}. Usage: ${usage}`, "arguments", { cause });
  }
}

/** Columns as wide as their widest cell, two spaces between them. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd());
}
