/** Normalisation by the squares of neighbouring channels, channels-last: ONNX LRN-13. */

import code from "./local_response_norm.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

export const localResponseNormKernel = defineKernel({
  name: "local_response_norm",
  code,
  params: {
    count: "u32",
    row: "u32",
    channels: "u32",
    before: "u32",
    behind: "u32",
    factor: "f32",
    offset: "f32",
    exponent: "f32",
  },
  bindings: {
    input: { type: "array<Element>", access: "read" },
    output: { type: "array<Element>", access: "read_write" },
  },
  overrides: {},
  aliases: { Element: ["f32", "f16"] },
});

/** Compiles for one type. @throws {KernelError} where the device fails. */
export async function compileLocalResponseNorm(gpu: Gpu, type: "f32" | "f16" = "f32") {
  return { type, pipeline: await localResponseNormKernel.compile(gpu, {}, { Element: type }) };
}
export type CompiledLocalResponseNorm = Awaited<ReturnType<typeof compileLocalResponseNorm>>;

/**
 * Records `output = input / (bias + alpha / size · Σ input²)^beta`, the sum over `size` channels, of
 * which ⌊(size − 1) / 2⌋ are before the one; input and output [N, …, C] of the compiled type, padded
 * behind `channels` (default C).
 * @throws {RangeError} where shapes or attributes cannot be.
 */
export function recordLocalResponseNorm(
  recorder: Recorder,
  { pipeline, type }: CompiledLocalResponseNorm,
  { input, output }: Record<"input" | "output", Tensor>,
  { size, channels, alpha = 1e-4, beta = 0.75, bias = 1 }: {
    readonly size: number;
    readonly channels?: number;
    readonly alpha?: number;
    readonly beta?: number;
    readonly bias?: number;
  },
): void {
  const row = input.shape[input.shape.length - 1] ?? 0;
  const count = input.shape.reduce((a, b) => a * b, 1);
  if (
    input.type !== type || output.type !== type || input.shape.length < 2 ||
    output.shape.join() !== input.shape.join() || !Number.isInteger(size) || size < 1 ||
    (channels ?? row) > row
  ) {
    throw new RangeError(
      `Cannot normalise ${input.type} [${input.shape.join(", ")}] over ${size} of ` +
        `${channels ?? row} channels into ${output.type} [${output.shape.join(", ")}]: ` +
        `${type} [N, …, C] is needed`,
    );
  }
  recorder.dispatch(pipeline, {
    params: {
      count,
      row,
      channels: channels ?? row,
      before: Math.floor((size - 1) / 2),
      behind: Math.ceil((size - 1) / 2),
      factor: alpha / size,
      offset: bias,
      exponent: beta,
    },
    bindings: { input, output },
  }, rowOfWorkgroups(recorder.gpu, Math.ceil(count / 64)));
}
