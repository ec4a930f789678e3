/** The watchdog's thread. `Deno.exit` would only end the thread, so the C library's `_exit` is called. */

/// <reference lib="deno.worker" />

self.onmessage = ({ data: { ms, exitCode } }: MessageEvent<{ ms: number; exitCode: number }>) => {
  const libc = Deno.dlopen("libc.so.6", { _exit: { parameters: ["i32"], result: "void" } });
  setTimeout(() => {
    console.error(
      "error: Cannot stop in time: processImage does not return to the event loop; " +
        "await something now and then, and heed context.signal",
    );
    libc.symbols._exit(exitCode);
  }, ms);
};
