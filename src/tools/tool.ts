/** What command-line tools share: errors in one line, and the exit codes of the README's table. */

import {
  CodecError,
  ConfigError,
  SlideFormatError,
  SourceError,
  UnsupportedError,
} from "../errors.ts";

/**
 * Runs a tool: prints what it gives, or the error in one line, and sets the exit code: 2 for
 * arguments, 3 for the slide, 1 for what was not foreseen.
 */
export async function runTool(run: () => Promise<string>): Promise<void> {
  try {
    console.log(await run());
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    console.error(`error: ${printable(error.message)}`);
    Deno.exitCode = exitCodeOf(error);
    if (Deno.exitCode === 1) console.error(error.stack);
  }
}

function exitCodeOf(error: Error): number {
  if (error instanceof ConfigError) return 2;
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
