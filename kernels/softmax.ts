/** Softmax and its logarithm along an axis of a dense row-major tensor: ONNX Softmax-13, LogSoftmax-13. */

import code from "./softmax.wgsl" with { type: "text" };
import codeRows from "./softmax_rows.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { checkOperands } from "./elementwise.ts";
import {
  defineKernel,
  type KernelLiteral,
  type Pipeline,
  type Recorder,
  rowOfWorkgroups,
} from "./kernel.ts";
import { aroundAxis } from "./reduce.ts";
import { described, type Operand } from "./strides.ts";
import type { Tensor } from "./tensor.ts";

const bindings = {
  input: { type: "array<vec4<Element>>", access: "read" },
  output: { type: "array<vec4<Element>>", access: "read_write" },
} as const;

const softmaxKernel = defineKernel({
  name: "softmax",
  code,
  params: { rows: "u32", length: "u32", inner: "u32" },
  bindings,
  overrides: { LOG: false, ACROSS: false, ALONG: false },
  aliases: { Element: ["f32", "f16"] },
});

const softmaxRowsKernel = defineKernel({
  name: "softmax_rows",
  code: codeRows,
  params: { rows: "u32", length: "u32" },
  bindings,
  overrides: { LOG: false, FOURS: false, LANES: 256 },
  aliases: { Element: ["f32", "f16"] },
});

/** Which of the kernels: one invocation a row, or one workgroup. */
export type SoftmaxVariant = "serial" | "rows";

export interface CompiledSoftmax {
  readonly pipeline: Pipeline<KernelLiteral & { bindings: typeof bindings }>;
  readonly params: Readonly<Record<string, number>>;
  readonly workgroups: number;
  /** Of the output too. */
  readonly input: Operand;
}

/** Elements of a row from which on a workgroup of its own is worth it on a GPU. */
const ROW_LENGTH = 32;

/**
 * Compiles softmax along `axis`, negative from the end, or with `log` its logarithm. A row of −∞ alone
 * gives 0, of which the logarithm is −∞. Without a variant the adapter's and shape's own is taken.
 * @throws {RangeError} for an axis that is not there and types that are no floats.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileSoftmax(
  gpu: Gpu,
  input: Operand,
  axis: number,
  { log = false, variant }: { readonly log?: boolean; readonly variant?: SoftmaxVariant } = {},
): Promise<CompiledSoftmax> {
  const { type, shape } = input;
  if (type !== "f32" && type !== "f16") {
    throw new RangeError(`Cannot compute softmax of ${described(input)}: floats are needed`);
  }
  const { outer, length, inner } = aroundAxis(shape, axis);
  const rows = outer * inner;
  const own = { type, shape };
  const chosen = variant ?? (gpu.adapter.isSoftware || length < ROW_LENGTH ? "serial" : "rows");
  if (inner === 1 && chosen === "rows") {
    const fours = length % 4 === 0;
    const items = fours ? length / 4 : length;
    const lanes = Math.min(256, Math.max(32, 2 ** Math.ceil(Math.log2(items))));
    return {
      pipeline: await softmaxRowsKernel.compile(
        gpu,
        { LOG: log, FOURS: fours, LANES: lanes },
        { Element: type },
      ),
      params: { rows: length === 0 ? 0 : rows, length: items },
      workgroups: length === 0 ? 0 : rows,
      input: own,
    };
  }
  const across = inner % 4 === 0;
  const along = inner === 1 && length % 4 === 0;
  const items = length === 0 ? 0 : across ? rows / 4 : rows;
  return {
    pipeline: await softmaxKernel.compile(
      gpu,
      { LOG: log, ACROSS: across, ALONG: along },
      { Element: type },
    ),
    params: { rows: items, length: along ? length / 4 : length, inner },
    workgroups: Math.ceil(items / 64),
    input: own,
  };
}

/** Records a softmax. @throws {RangeError} where the tensors are not those that were compiled for. */
export function recordSoftmax(
  recorder: Recorder,
  { pipeline, params, workgroups, input }: CompiledSoftmax,
  tensors: Record<"input" | "output", Tensor>,
): void {
  checkOperands("compute softmax", tensors, { input, output: input });
  recorder.dispatch(pipeline, { params, bindings: tensors }, [
    ...rowOfWorkgroups(recorder.gpu, workgroups),
  ]);
}
