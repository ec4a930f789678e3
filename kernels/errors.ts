/** The errors of `kernels/`: of the device, and of a slide whose stains cannot be told. */

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

/**
 * A slide's stains cannot be estimated: it has too little tissue, or one stain only. What to do is
 * the caller's choice, such as leaving the colours as they are.
 */
export class StainError extends Error {
  override name = "StainError";
  constructor(message: string, readonly reason: "too-little-tissue" | "one-stain") {
    super(message);
  }
}
