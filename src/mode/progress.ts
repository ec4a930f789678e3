/** How far the work is: a bar on a terminal, a line every few seconds in logs. */

import type { Log } from "../log.ts";

/** Milliseconds between lines in a log. */
const LINE_INTERVAL_MS = 5000;

export interface Progress {
  update(done: number, total: number, what: string): void;
  /** Ends the bar, so that other lines do not write over it; the next update begins another. */
  stop(): void;
}

/**
 * Of a slide that is read from its URL: as many as the work needs, which no one knows. It goes
 * beside what the work says of itself.
 */
export const FETCHED = "bytes fetched";

/** "3 of 7 tiles"; bytes as megabytes. */
function amount(done: number, total: number, what: string): string {
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  if (what === FETCHED) return `${megabytes(done)} of ${megabytes(total)} MB fetched`;
  return what === "bytes"
    ? `${megabytes(done)} of ${megabytes(total)} MB`
    : `${done} of ${total} ${what}`;
}

/** Progress as lines in the log: of each thing the first, the last, and one every 5 s. */
export function logProgress(log: Log, now: () => number = () => performance.now()): Progress {
  const known = new Map<string, { startMs: number; startDone: number; ended: boolean }>();
  let shownMs = -Infinity;
  let fetched = "";
  return {
    update(done, total, what) {
      if (!(total > 0)) return;
      if (what === FETCHED) {
        const line = amount(done, total, what);
        const alone = known.values().every(({ ended }) => ended);
        if (alone && now() - shownMs >= LINE_INTERVAL_MS) {
          shownMs = now();
          log.info(line);
        }
        fetched = `; ${line}`;
        return;
      }
      let thing = known.get(what);
      const first = thing === undefined;
      if (thing === undefined) {
        known.set(what, thing = { startMs: now(), startDone: done, ended: false });
      }
      const last = done >= total && !thing.ended;
      if (!first && !last && now() - shownMs < LINE_INTERVAL_MS) return;
      thing.ended = done >= total;
      shownMs = now();
      const [passedMs, gained] = [now() - thing.startMs, done - thing.startDone];
      const left = gained > 0 && done < total
        ? `, about ${Math.ceil(passedMs / 1000 / gained * (total - done))} s left`
        : "";
      const share = Math.floor(100 * done / total);
      log.info(`${amount(done, total, what)} (${share} %)${left}${fetched}`);
    },
    stop() {},
  };
}

/** Progress as a bar on standard error. */
export async function barProgress(): Promise<Progress> {
  const { default: { Presets, SingleBar } } = await import("cli-progress");
  let bar: InstanceType<typeof SingleBar> | undefined;
  let fetched = "";
  const stop = () => {
    bar?.stop();
    bar = undefined;
  };
  return {
    update(done, total, what) {
      if (!(total > 0)) return;
      if (what === FETCHED) {
        fetched = `; ${amount(done, total, what)}`;
        return;
      }
      const text = amount(done, total, what) + fetched;
      if (bar === undefined) {
        bar = new SingleBar({
          format: "{bar} {percentage} % | {amount} | {eta_formatted} left",
          hideCursor: true,
          clearOnComplete: false,
        }, Presets.shades_classic);
        bar.start(total, done, { amount: text });
      }
      bar.setTotal(total);
      bar.update(done, { amount: text });
      if (done >= total) stop();
    },
    stop,
  };
}
