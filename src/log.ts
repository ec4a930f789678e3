/**
 * Log lines: to standard error as they come, and kept for the debug zip.
 *
 * The mission's lines and the results go to standard output, so that they can be piped.
 */

import { configureSync, getLogger, type LogRecord, resetSync } from "@logtape/logtape";
import type { LogLevel } from "./config.ts";
import { redact } from "./secrets.ts";

/** What a run says while it works; one message is one line. */
export interface Log {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
  /** Everything logged so far, also what was below the terminal's level; the oldest lines go beyond 10,000. */
  text(): string;
}

const KEPT_LINES = 10_000;

/** Text without control characters: a line break in a file's name makes no second line, an escape no colour. */
export function oneLine(text: string): string {
  // deno-lint-ignore no-control-regex -- control characters are what is looked for
  return text.replace(/[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]/g, (character) => {
    const known: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
    return known[character] ?? `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

function format(record: LogRecord): string {
  const time = new Date(record.timestamp).toISOString();
  const message = oneLine(record.message.join(""));
  return redact(`${time} ${record.level.toUpperCase()} ${message}`);
}

/**
 * Sets the process's logging up, once. `write` takes each finished line, without its line break.
 */
export function startLog(level: LogLevel, write: (line: string) => void): Log {
  const kept: string[] = [];
  const order: readonly string[] = ["trace", "debug", "info", "warning", "error", "fatal"];
  resetSync();
  configureSync({
    sinks: {
      kept(record) {
        kept.push(format(record));
        if (kept.length > KEPT_LINES) kept.splice(0, KEPT_LINES / 10);
      },
      shown(record) {
        if (order.indexOf(record.level) >= order.indexOf(level)) write(format(record));
      },
    },
    loggers: [
      { category: "wgslide", sinks: ["kept", "shown"], lowestLevel: "debug" },
      { category: ["logtape", "meta"], sinks: ["shown"], lowestLevel: "error" },
    ],
  });
  const logger = getLogger("wgslide");
  // The message is a property, never a template: a brace in a file's name is only a brace.
  const say = (at: "debug" | "info" | "warn" | "error") => (message: string) =>
    logger[at]("{message}", { message: new Raw(message) });
  return {
    debug: say("debug"),
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
    text: () => kept.map((line) => line + "\n").join(""),
  };
}

/** Text that is joined as it is. */
class Raw {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}
