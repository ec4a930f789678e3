/**
 * Ends a process whose main thread no longer answers: a vendor's endless loop starves every timer
 * and signal handler there is, but not another thread's.
 */

/**
 * Milliseconds that a run has, after it was told to stop, to hand over what it knows: `docker stop`
 * kills after 10 s.
 */
export const GRACE_MS = 8_000;

/** Milliseconds after which a thread that does not listen is not waited for. */
const LISTENING_MS = 1000;

/** What the watchdog's thread is told. */
export interface WatchdogOrder {
  /** Milliseconds until the run is told to stop anyway. */
  readonly deadlineMs: number;
  /** Milliseconds that it has then, and after SIGTERM or SIGINT. */
  readonly graceMs: number;
  readonly exitCode: number;
}

/**
 * Starts a thread that ends the process with `exitCode` where that still runs half as long again as
 * GRACE_MS after it was told to stop: `deadlineMs` milliseconds from now, or by a signal. Resolves
 * when it listens, some milliseconds later: a loop that began before would hear no signal.
 */
export async function startWatchdog(
  deadlineMs: number,
  exitCode: number,
): Promise<{ stop(): void }> {
  const worker = new Worker(new URL("./watchdog_worker.ts", import.meta.url), {
    type: "module",
    name: "watchdog",
  });
  const listening = new Promise<void>((resolve) => {
    // Without a watchdog a run is as good as before.
    worker.onerror = (event) => {
      event.preventDefault();
      resolve();
    };
    setTimeout(resolve, LISTENING_MS);
    worker.onmessage = () => resolve();
  });
  const order: WatchdogOrder = { deadlineMs, graceMs: 1.5 * GRACE_MS, exitCode };
  worker.postMessage(order);
  await listening;
  return { stop: () => worker.terminate() };
}
