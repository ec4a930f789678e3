/**
 * Padding of dense row-major tensors: ONNX Pad-21 with its four modes, negative amounts crop; and
 * channels concatenated or sliced in the channels-last layout, whose padding must stay zero.
 */

import code from "./pad.wgsl" with { type: "text" };
import { paddedChannels } from "./conv2d.ts";
import { compileCopy, type CompiledConcat, type CompiledCopy, itemOf, recordCopy } from "./copy.ts";
import type { Gpu } from "./device.ts";
import { checkOperands, numberType } from "./elementwise.ts";
import { defineKernel, type Pipeline, type Recorder } from "./kernel.ts";
import {
  countOf,
  described,
  gridOf,
  MAX_RANK,
  numbered,
  numberedParams,
  type Operand,
  stridesOf,
  type Walk,
  walkOf,
} from "./strides.ts";
import { bytesOf, type Tensor } from "./tensor.ts";

const padKernel = defineKernel({
  name: "pad",
  code,
  params: {
    rest: "u32",
    output_offset: "u32",
    ...numberedParams("size"),
    ...numberedParams("source"),
    ...numberedParams("before"),
    ...numberedParams("from"),
    ...numberedParams("to"),
  },
  bindings: {
    input: { type: "array<Item>", access: "read" },
    constant: { type: "array<Constant>", access: "read" },
    output: { type: "array<Item>", access: "read_write" },
  },
  overrides: { RANK: 1, MODE: 0, FILL: false, X: 256, Y: 1, Z: 1 },
  aliases: { Item: ["u32", "f16", "vec4<u32>"], Constant: ["u32", "f16"] },
});

/** By number, which is MODE's in pad.wgsl. */
const PAD_MODES = { constant: 0, reflect: 1, edge: 2, wrap: 3 } as const;

export type PadMode = keyof typeof PAD_MODES;

export interface CompiledPad {
  readonly pipeline: Pipeline<typeof padKernel.literal>;
  readonly params: { readonly [M in keyof typeof padKernel.literal.params]: number };
  readonly workgroups: Walk["workgroups"];
  readonly input: Operand;
  readonly output: Operand;
  /** Whether `recordPad` is to be given the constant; where not it is 0. */
  readonly fill: boolean;
}

export interface PadOptions {
  readonly mode?: PadMode;
  /** Whether a tensor of one element gives the constant; without it is 0. */
  readonly fill?: boolean;
}

/** An axis while axes are merged: sizes of output and input, and strides in either. */
interface PaddedAxis {
  size: number;
  source: number;
  before: number;
  from: number;
  to: number;
}

/** Compiles padding into a part of the output: `shape` from `offset` on. */
async function compilePadInto(
  gpu: Gpu,
  input: Operand,
  output: Operand,
  shape: readonly number[],
  before: readonly number[],
  to: { readonly strides: readonly number[]; readonly offset: number },
  { mode = "constant", fill = false }: PadOptions,
  from: readonly number[] = stridesOf(input.shape),
): Promise<CompiledPad> {
  numberType(input.type);
  // Innermost first; an axis that is not padded joins the one inside it where that is not either.
  const axes: PaddedAxis[] = [];
  const whole = ({ size, source, before }: PaddedAxis) => before === 0 && size === source;
  for (let i = shape.length - 1; i >= 0; i--) {
    const axis = {
      size: shape[i]!,
      source: input.shape[i]!,
      before: before[i]!,
      from: from[i]!,
      to: to.strides[i]!,
    };
    if (axis.size === 1 && whole(axis)) continue;
    const last = axes.at(-1);
    if (
      last !== undefined && whole(last) && whole(axis) && axis.from === last.from * last.size &&
      axis.to === last.to * last.size
    ) {
      last.size *= axis.size;
      last.source *= axis.source;
    } else axes.push(axis);
  }
  if (axes.length > MAX_RANK) {
    throw new RangeError(`Cannot pad ${described(input)}: more than ${MAX_RANK} axes remain`);
  }
  if (axes.length === 0) axes.push({ size: 1, source: 1, before: 0, from: 1, to: 1 });
  const [inner] = axes as [PaddedAxis];
  const { item, elements } = itemOf(
    bytesOf(input.type),
    // A constant of two bytes cannot be spread over an item of more.
    inner.from === 1 && inner.to === 1 && !(fill && input.type === "f16"),
    [
      inner.size,
      inner.source,
      inner.before,
      to.offset,
      ...axes.slice(1).flatMap(({ from, to }) => [from, to]),
    ].concat(mode === "constant" || whole(inner) ? [] : [1]),
  );
  const scaled = (values: number[]) => values.map((v, i) => i === 0 ? v / elements : v);
  const strides = (values: number[]) => values.map((v, i) => i === 0 ? v : v / elements);
  const sizes = scaled(axes.map(({ size }) => size));
  const walk = walkOf(sizes);
  return {
    pipeline: await padKernel.compile(
      gpu,
      { RANK: axes.length, MODE: PAD_MODES[mode], FILL: fill, ...walk.size },
      { Item: item, Constant: item === "f16" ? "f16" : "u32" },
    ),
    params: {
      rest: walk.rest,
      output_offset: to.offset / elements,
      ...numbered("size", sizes, 1),
      ...numbered("source", scaled(axes.map(({ source }) => source)), 1),
      ...numbered("before", scaled(axes.map(({ before }) => before))),
      ...numbered("from", strides(axes.map(({ from }) => from))),
      ...numbered("to", strides(axes.map(({ to }) => to))),
    },
    workgroups: walk.workgroups,
    input: { type: input.type, shape: input.shape },
    output: { type: output.type, shape: output.shape },
    fill,
  };
}

/**
 * Compiles ONNX Pad-21: `before` and `after` elements along each axis; negative ones crop.
 * @throws {RangeError} where a size becomes negative, or nothing is there to repeat.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compilePad(
  gpu: Gpu,
  input: Operand,
  before: readonly number[],
  after: readonly number[],
  options: PadOptions = {},
): Promise<CompiledPad> {
  const shape = input.shape.map((size, axis) => size + before[axis]! + after[axis]!);
  const { mode = "constant" } = options;
  if (
    before.length !== shape.length || after.length !== shape.length || shape.some((n) => n < 0) ||
    (mode !== "constant" && countOf(shape) > 0 && countOf(input.shape) === 0)
  ) {
    throw new RangeError(
      `Cannot pad ${described(input)} by [${before.join(", ")}] and [${after.join(", ")}] ` +
        `in mode "${mode}"`,
    );
  }
  const output = { type: input.type, shape };
  return await compilePadInto(gpu, input, output, shape, before, {
    strides: stridesOf(shape),
    offset: 0,
  }, options);
}

/**
 * Records a padding; `constant` [1] of the input's type is needed where it was compiled with `fill`.
 * @throws {RangeError} where the tensors are not those that were compiled for.
 */
export function recordPad(
  recorder: Recorder,
  { pipeline, params, workgroups, input, output, fill }: CompiledPad,
  tensors: { readonly input: Tensor; readonly constant?: Tensor; readonly output: Tensor },
): void {
  checkOperands("pad", { input: tensors.input, output: tensors.output }, { input, output });
  const constant = tensors.constant ?? tensors.input;
  if (
    fill &&
    (tensors.constant === undefined || countOf(constant.shape) !== 1 ||
      constant.type !== input.type)
  ) {
    throw new RangeError(`Cannot pad: a constant ${input.type} [1] is needed`);
  }
  recorder.dispatch(pipeline, {
    params,
    bindings: { input: tensors.input, constant, output: tensors.output },
  }, gridOf(recorder.gpu, workgroups));
}

/** Channels-last [..., C] of which `channels` are there, the rest zeros. */
export interface Channels extends Operand {
  readonly channels: number;
}

/** Copies, and what is padded besides with zeros, that make channels-last outputs. */
export interface CompiledConcatChannels {
  readonly copies: CompiledConcat["copies"];
  readonly last: CompiledPad;
  readonly output: Channels;
}

/**
 * Compiles the concatenation of channels in the channels-last layout, whatever number of channels
 * each has: the last input writes the zeros behind.
 * @throws {RangeError} where the other axes or the types differ.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileConcatChannels(
  gpu: Gpu,
  inputs: readonly Channels[],
): Promise<CompiledConcatChannels> {
  const [first] = inputs;
  const outer = (input: Channels) => input.shape.slice(0, -1);
  if (
    first === undefined ||
    inputs.some((input) =>
      input.type !== first.type || outer(input).join() !== outer(first).join() ||
      input.shape.at(-1) !== paddedChannels(input.channels)
    )
  ) {
    throw new RangeError(`Cannot concatenate channels of ${inputs.map(described).join(", ")}`);
  }
  const channels = inputs.reduce((sum, input) => sum + input.channels, 0);
  const padded = paddedChannels(channels);
  const pixels = countOf(outer(first));
  const output = { type: first.type, shape: [...outer(first), padded], channels };
  const copies: Promise<CompiledCopy>[] = [];
  let offset = 0;
  for (const input of inputs.slice(0, -1)) {
    const strides = [input.shape.at(-1)!, 1];
    copies.push(
      compileCopy(gpu, input, output, [pixels, input.channels], { strides, offset: 0 }, {
        strides: [padded, 1],
        offset,
      }),
    );
    offset += input.channels;
  }
  const last = inputs.at(-1)!;
  return {
    copies: await Promise.all(copies),
    last: await compileChannelsInto(gpu, last, output, padded - offset, [0, last.channels], offset),
    output,
  };
}

/** Channels [start, end) of the input, and zeros up to `width`, to `offset` of the output. */
async function compileChannelsInto(
  gpu: Gpu,
  input: Channels,
  output: Operand,
  width: number,
  [start, end]: readonly [number, number],
  offset: number,
): Promise<CompiledPad> {
  const pixels = countOf(input.shape.slice(0, -1));
  const compiled = await compilePadInto(
    gpu,
    { type: input.type, shape: [pixels, end] },
    output,
    [pixels, width],
    [0, -start],
    { strides: [output.shape.at(-1)!, 1], offset },
    {},
    [input.shape.at(-1)!, 1],
  );
  return { ...compiled, input: { type: input.type, shape: input.shape } };
}

/**
 * Compiles the slice [start, end) of the channels in the channels-last layout, padded with zeros to a
 * multiple of four. Recorded by `recordPad`.
 * @throws {RangeError} where there are no such channels.
 * @throws {KernelError} where the device fails or lacks the type.
 */
export async function compileSliceChannels(
  gpu: Gpu,
  input: Channels,
  start: number,
  end: number,
): Promise<CompiledPad> {
  if (
    !(0 <= start && start <= end && end <= input.channels) ||
    input.shape.at(-1) !== paddedChannels(input.channels)
  ) {
    throw new RangeError(
      `Cannot slice channels ${start} to ${end} of ${input.channels} in ${described(input)}`,
    );
  }
  const padded = paddedChannels(end - start);
  const output = { type: input.type, shape: [...input.shape.slice(0, -1), padded] };
  return await compileChannelsInto(gpu, input, output, padded, [start, end], 0);
}

/** Records the concatenation. @throws {RangeError} where the tensors are not those compiled for. */
export function recordConcatChannels(
  recorder: Recorder,
  { copies, last }: CompiledConcatChannels,
  { inputs, output }: { readonly inputs: readonly Tensor[]; readonly output: Tensor },
): void {
  if (inputs.length !== copies.length + 1) {
    throw new RangeError(
      `Cannot concatenate ${inputs.length} tensors: compiled for ${copies.length + 1}`,
    );
  }
  for (const [i, copy] of copies.entries()) {
    recordCopy(recorder, copy, { input: inputs[i]!, output });
  }
  recordPad(recorder, last, { input: inputs.at(-1)!, output });
}
