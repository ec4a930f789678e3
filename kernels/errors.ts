/** The one error of `kernels/`. */

/**
 * A kernel, or the device it runs on, failed: validation, out of memory, device loss, no adapter.
 * `kernel` is the kernel's name, or "device" where no kernel is to blame; Dawn's words are in the
 * message.
 */
export class KernelError extends Error {
  override name = "KernelError";
  constructor(message: string, readonly kernel: string, options?: ErrorOptions) {
    super(message, options);
  }
}
