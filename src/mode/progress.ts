/** How far the work is: a bar on a terminal, a line every few seconds in logs. */

import type { Log } from "../log.ts";

/** Milliseconds between lines in a log. */
const LINE_INTERVAL_MS = 5000;

export interface Progress {
  update(done: number, total: number, what: string): void;
  /** Ends the bar, so that other lines do not write over it. */
  stop(): void;
}

/** Bytes as megabytes; other things as they are. */
function amount(value: number, what: string): string {
  return what === "bytes" ? `${(value / 1e6).toFixed(1)}` : String(value);
}

/** Progress as lines in the log: the first, one every 5 s, and the last. */
export function logProgress(log: Log, now: () => number = () => performance.now()): Progress {
  let shownMs = -Infinity, current = "", startMs = 0;
  return {
    update(done, total, what) {
      if (what !== current) [current, shownMs, startMs] = [what, -Infinity, now()];
      if (done < total && now() - shownMs < LINE_INTERVAL_MS) return;
      if (total === 0) return;
      shownMs = now();
      const seconds = (now() - startMs) / 1000;
      const left = done > 0 && done < total
        ? `, about ${Math.ceil(seconds / done * (total - done))} s left`
        : "";
      const unit = what === "bytes" ? "MB" : what;
      log.info(
        `${amount(done, what)} of ${amount(total, what)} ${unit} ` +
          `(${Math.floor(100 * done / total)} %)${left}`,
      );
    },
    stop() {},
  };
}

/** Progress as a bar on standard error. */
export async function barProgress(): Promise<Progress> {
  const { default: { Presets, SingleBar } } = await import("cli-progress");
  let bar: InstanceType<typeof SingleBar> | undefined;
  let current = "";
  const stop = () => {
    bar?.stop();
    bar = undefined;
  };
  return {
    update(done, total, what) {
      if (what !== current || bar === undefined) {
        stop();
        current = what;
        bar = new SingleBar({
          format: "{bar} {percentage} % | {value} of {total} {what} | {eta_formatted} left",
          hideCursor: true,
          clearOnComplete: false,
        }, Presets.shades_classic);
        bar.start(total, done, { what });
      }
      bar.update(done);
      if (done >= total) stop();
    },
    stop,
  };
}
