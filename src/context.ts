/** What `processImage` is given beside the slide. */

import type { Gpu } from "../kernels/device.ts";
import { KernelError } from "../kernels/errors.ts";
import type { Config } from "./config.ts";
import type { Log } from "./log.ts";
import type { Results } from "./results/schema.ts";

export interface Context {
  /** The GPU, or undefined where there is no adapter at all; `requireGpu` turns that into an error. */
  readonly gpu: Gpu | undefined;
  /** Goes into `scanResults[].scanId`. */
  readonly scanId: string;
  readonly config: Config;
  readonly log: Log;
  /** Aborted at the deadline and by SIGTERM or SIGINT; its reason is an InterruptedError. */
  readonly signal: AbortSignal;
  /** Shows how far the work is: `done` of `total` of what, such as "tiles". Cheap: call it often. */
  progress(done: number, total: number, what: string): void;
  /**
   * Keeps what is known so far. Where the run is interrupted it is written to
   * `OUTPUT_DIR/result.partial.json`, and never posted: half a count looks like a whole one.
   */
  keep(partial: Results): void;
}

/** What to do where no adapter was found. */
export const NO_GPU_ADVICE =
  "install a GPU driver with Vulkan, or Mesa's software driver (Debian: libvulkan1 " +
  "mesa-vulkan-drivers), and start the container with --gpus all";

/** The GPU. @throws {KernelError} with what to install where there is none. */
export function requireGpu({ gpu }: Context): Gpu {
  if (gpu === undefined) {
    throw new KernelError(`Cannot compute: no GPU was detected; ${NO_GPU_ADVICE}`, "device");
  }
  return gpu;
}
