import type { Log } from "../../src/log.ts";

/** A log that only remembers. */
export function recordingLog(): Log {
  const lines: string[] = [];
  const say = (level: string) => (message: string) => void lines.push(`${level} ${message}\n`);
  return {
    debug: say("DEBUG"),
    info: say("INFO"),
    warn: say("WARNING"),
    error: say("ERROR"),
    text: () => lines.join(""),
  };
}
