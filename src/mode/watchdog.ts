/**
 * Ends a process whose main thread no longer answers: a vendor's endless loop starves every timer
 * and signal handler there is, but not another thread.
 */

/** Milliseconds that a run has, after it was told to stop, to hand over what it knows. */
export const GRACE_MS = 10_000;

/**
 * Starts a thread that ends the process with `exitCode`, `ms` milliseconds from now, unless it is
 * stopped before.
 */
export function startWatchdog(ms: number, exitCode: number): { stop(): void } {
  const worker = new Worker(new URL("./watchdog_worker.ts", import.meta.url), {
    type: "module",
    name: "watchdog",
  });
  worker.onerror = (event) => event.preventDefault(); // Without a watchdog a run is as good as before.
  worker.postMessage({ ms, exitCode });
  return { stop: () => worker.terminate() };
}
