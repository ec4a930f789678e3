/** The watchdog's thread. `Deno.exit` would only end the thread, so the C library's `_exit` is called. */

/// <reference lib="deno.worker" />

import type { WatchdogOrder } from "./watchdog.ts";

self.onmessage = ({ data: { deadlineMs, graceMs, exitCode } }: MessageEvent<WatchdogOrder>) => {
  const libc = Deno.dlopen("libc.so.6", { _exit: { parameters: ["i32"], result: "void" } });
  const endIn = (ms: number) =>
    setTimeout(() => {
      console.error(
        "error: Cannot stop in time: processImage does not return to the event loop; " +
          "await something now and then, and heed context.signal",
      );
      libc.symbols._exit(exitCode);
    }, ms);
  endIn(deadlineMs + graceMs);
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    Deno.addSignalListener(name, () => endIn(graceMs));
  }
  self.postMessage("listening");
};
