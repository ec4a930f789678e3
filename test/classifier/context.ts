/** A context for classifiers under test: it records what they say. */

import type { Gpu } from "../../kernels/device.ts";
import { readConfig } from "../../src/config.ts";
import type { Context } from "../../src/context.ts";
import type { Results } from "../../src/results/schema.ts";

export interface RecordedContext extends Context {
  readonly warnings: string[];
  readonly kept: Results[];
  readonly shown: [done: number, total: number, what: string][];
}

/** A development context over a GPU, with variables of the environment. */
export function testContext(
  gpu: Gpu | undefined,
  env: Record<string, string> = {},
  signal: AbortSignal = new AbortController().signal,
): RecordedContext {
  const config = readConfig({ DEV: "1", ...env }, {
    cores: 2,
    tempDir: "/tmp",
    isFolder: () => false,
  });
  const warnings: string[] = [], kept: Results[] = [];
  const shown: RecordedContext["shown"] = [];
  return {
    gpu,
    scanId: config.scanId,
    config,
    signal,
    log: {
      debug() {},
      info() {},
      warn: (message) => warnings.push(message),
      error: (message) => warnings.push(message),
      text: () => "",
    },
    progress: (...args) => shown.push(args),
    keep: (results) => kept.push(results),
    warnings,
    kept,
    shown,
  };
}
