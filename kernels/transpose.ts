/**
 * Axes of dense row-major tensors permuted, and the two layouts of images converted: dense [N, C, ...]
 * and channels-last [N, ..., C], C padded with zeros to a multiple of four.
 */

import code from "./transpose.wgsl" with { type: "text" };
import { paddedChannels } from "./conv2d.ts";
import { compileCopy, type CompiledCopy } from "./copy.ts";
import type { Gpu } from "./device.ts";
import { numberType } from "./elementwise.ts";
import { type AliasedType, defineKernel } from "./kernel.ts";
import {
  countOf,
  described,
  mergeAxes,
  numbered,
  numberedParams,
  type Operand,
  stridesOf,
} from "./strides.ts";
import type { ElementType } from "./tensor.ts";

const transposeKernel = defineKernel({
  name: "transpose",
  code,
  params: {
    columns: "u32",
    rows: "u32",
    stored_rows: "u32",
    input_row: "u32",
    output_row: "u32",
    tiles_x: "u32",
    tiles_y: "u32",
    batches: "u32",
    ...numberedParams("size"),
    ...numberedParams("from"),
    ...numberedParams("to"),
  },
  bindings: {
    input: { type: "array<vec4<Input>>", access: "read" },
    output: { type: "array<vec4<Output>>", access: "read_write" },
  },
  overrides: { LANES_X: 8, LANES_Y: 8, RANK: 1, LOAD4: false, STORE4: false },
  aliases: { Input: ["u32", "f16", "f32"], Output: ["u32", "f16", "f32"] },
});

/** Blocks of a workgroup. */
const LANES = 64;

/** One matrix after the other turned: columns contiguous in the input, rows in the output. */
interface Turn {
  readonly columns: number;
  readonly rows: number;
  /** Rows written, those past `rows` with zeros. */
  readonly storedRows: number;
  /** Elements from row to row of the input, and of the output. */
  readonly inputRow: number;
  readonly outputRow: number;
  /** The other axes, innermost first. */
  readonly sizes: readonly number[];
  readonly from: readonly number[];
  readonly to: readonly number[];
}

async function compileTurn(
  gpu: Gpu,
  input: Operand,
  output: Operand,
  turn: Turn,
): Promise<CompiledCopy> {
  const { columns, rows, storedRows, inputRow, outputRow, sizes, from, to } = turn;
  const fours = (...numbers: number[]) => numbers.every((n) => n % 4 === 0);
  const blocksX = Math.ceil(columns / 4), blocksY = Math.ceil(storedRows / 4);
  // Eight by eight, or fewer along a side that has no more, such as three channels.
  const upTo8 = (blocks: number) => Math.min(8, 2 ** Math.ceil(Math.log2(Math.max(1, blocks))));
  const lanesX = blocksX < 8 ? upTo8(blocksX) : LANES / upTo8(blocksY);
  const lanesY = LANES / lanesX;
  const tilesX = Math.ceil(blocksX / lanesX), tilesY = Math.ceil(blocksY / lanesY);
  const batches = countOf(sizes);
  // What is only moved is moved as bits, so that one pipeline serves three types.
  const moved = (type: ElementType): AliasedType =>
    input.type !== output.type ? numberType(type) : type === "f16" ? "f16" : "u32";
  return {
    pipeline: await transposeKernel.compile(gpu, {
      LANES_X: lanesX,
      LANES_Y: lanesY,
      RANK: Math.max(1, sizes.length),
      LOAD4: fours(inputRow, ...from),
      STORE4: fours(outputRow, storedRows, ...to),
    }, { Input: moved(input.type), Output: moved(output.type) }),
    params: {
      columns,
      rows,
      stored_rows: storedRows,
      input_row: inputRow,
      output_row: outputRow,
      tiles_x: tilesX,
      tiles_y: tilesY,
      batches,
      ...numbered("size", sizes),
      ...numbered("from", from),
      ...numbered("to", to),
    },
    workgroups: tilesX * tilesY * batches,
    input: { type: input.type, shape: input.shape },
    output: { type: output.type, shape: output.shape },
  };
}

/**
 * Compiles ONNX Transpose-21: axis i of the output is axis `permutation[i]` of the input. Recorded by
 * `recordCopy`.
 * @throws {RangeError} where that is no permutation or more axes remain than kernels have.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileTranspose(
  gpu: Gpu,
  input: Operand,
  permutation: readonly number[],
): Promise<CompiledCopy> {
  if (
    permutation.length !== input.shape.length ||
    input.shape.some((_, axis) => !permutation.includes(axis))
  ) {
    throw new RangeError(
      `Cannot transpose ${described(input)}: [${permutation.join(", ")}] is no permutation`,
    );
  }
  numberType(input.type);
  const shape = permutation.map((axis) => input.shape[axis]!);
  const output: Operand = { type: input.type, shape };
  const strides = stridesOf(input.shape);
  const from = permutation.map((axis) => strides[axis]!);
  const { sizes, strides: [ofInput, ofOutput] } = mergeAxes(shape, [from, stridesOf(shape)]);
  // The axis along which the input is contiguous; where it is the output's own, rows stay whole.
  const across = ofInput!.indexOf(1);
  if (across <= 0) {
    return await compileCopy(gpu, input, output, shape, { strides: from, offset: 0 }, {
      strides: stridesOf(shape),
      offset: 0,
    });
  }
  const others = sizes.map((_, axis) => axis).filter((axis) => axis !== 0 && axis !== across);
  return await compileTurn(gpu, input, output, {
    columns: sizes[across]!,
    rows: sizes[0]!,
    storedRows: sizes[0]!,
    inputRow: ofInput![0]!,
    outputRow: ofOutput![across]!,
    sizes: others.map((axis) => sizes[axis]!),
    from: others.map((axis) => ofInput![axis]!),
    to: others.map((axis) => ofOutput![axis]!),
  });
}

function checkLayouts(gpu: Gpu, dense: Operand, type: ElementType): void {
  if (dense.shape.length < 2 || [dense.type, type].some((t) => t !== "f32" && t !== "f16")) {
    throw new RangeError(
      `Cannot convert ${described(dense)} to or from channels-last ${type}: ` +
        `[N, C, ...] in f32 or f16 is needed`,
    );
  }
  gpu.check();
}

/**
 * Compiles the conversion of dense [N, C, ...] to channels-last [N, ..., C] of type `to`, C padded
 * with zeros to a multiple of four. Recorded by `recordCopy`.
 * @throws {RangeError} for fewer than two axes and types that are no floats.
 * @throws {KernelError} where the device fails or lacks a type.
 */
export async function compileToChannelsLast(
  gpu: Gpu,
  input: Operand,
  to: ElementType = input.type,
): Promise<CompiledCopy> {
  checkLayouts(gpu, input, to);
  const [images, channels, ...spatial] = input.shape as [number, number, ...number[]];
  const padded = paddedChannels(channels), pixels = countOf(spatial);
  return await compileTurn(gpu, input, { type: to, shape: [images, ...spatial, padded] }, {
    columns: pixels,
    rows: channels,
    storedRows: padded,
    inputRow: pixels,
    outputRow: padded,
    sizes: [images],
    from: [channels * pixels],
    to: [pixels * padded],
  });
}

/**
 * Compiles the conversion of channels-last [N, ..., C], C padded to a multiple of four, of type `from`
 * to the dense [N, C, ...] that `output` is. Recorded by `recordCopy`.
 * @throws {RangeError} for fewer than two axes and types that are no floats.
 * @throws {KernelError} where the device fails or lacks a type.
 */
export async function compileFromChannelsLast(
  gpu: Gpu,
  output: Operand,
  from: ElementType = output.type,
): Promise<CompiledCopy> {
  checkLayouts(gpu, output, from);
  const [images, channels, ...spatial] = output.shape as [number, number, ...number[]];
  const padded = paddedChannels(channels), pixels = countOf(spatial);
  return await compileTurn(gpu, { type: from, shape: [images, ...spatial, padded] }, output, {
    columns: channels,
    rows: pixels,
    storedRows: pixels,
    inputRow: padded,
    outputRow: pixels,
    sizes: [images],
    from: [pixels * padded],
    to: [channels * pixels],
  });
}

/** A shape to view a tensor as, the permutation of it, and the shape to view the result as. */
export interface Rearrangement {
  readonly view: readonly number[];
  readonly permutation: readonly number[];
  readonly shape: readonly number[];
}

/**
 * ONNX DepthToSpace-13 of [N, C, H, W] as a transposition: `mode` "DCR" has the block before the
 * depth in C, "CRD" after it.
 * @throws {RangeError} where C is no multiple of block².
 */
export function depthToSpace(
  shape: readonly number[],
  block: number,
  mode: "DCR" | "CRD" = "DCR",
): Rearrangement {
  const [n = 0, c = 0, h = 0, w = 0] = shape;
  const depth = c / (block * block);
  if (shape.length !== 4 || !Number.isInteger(depth)) {
    throw new RangeError(`Cannot rearrange [${shape.join(", ")}] in blocks of ${block}`);
  }
  return {
    view: mode === "DCR" ? [n, block, block, depth, h, w] : [n, depth, block, block, h, w],
    permutation: mode === "DCR" ? [0, 3, 4, 1, 5, 2] : [0, 1, 4, 2, 5, 3],
    shape: [n, depth, h * block, w * block],
  };
}

/**
 * ONNX SpaceToDepth-13 of [N, C, H, W] as a transposition.
 * @throws {RangeError} where H or W is no multiple of the block.
 */
export function spaceToDepth(shape: readonly number[], block: number): Rearrangement {
  const [n = 0, c = 0, h = 0, w = 0] = shape;
  if (shape.length !== 4 || h % block !== 0 || w % block !== 0) {
    throw new RangeError(`Cannot rearrange [${shape.join(", ")}] in blocks of ${block}`);
  }
  return {
    view: [n, c, h / block, block, w / block, block],
    permutation: [0, 3, 5, 1, 2, 4],
    shape: [n, c * block * block, h / block, w / block],
  };
}
