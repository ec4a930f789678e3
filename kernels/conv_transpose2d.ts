/**
 * Transposed convolution in two dimensions, channels-last (ONNX ConvTranspose-11).
 *
 * Output pixels that are equal modulo the stride, a phase, take the same taps of the filter, and are
 * a convolution of stride 1 with these: so each phase is one dispatch of a kernel of conv2d.ts, which
 * stores every stride-th pixel, and nothing is multiplied with the zeros between input pixels.
 */

import {
  checkConv2d,
  compileConv2d,
  type CompiledConv2d,
  type Conv2dOptions,
  type Conv2dTensors,
  dispatchConv2d,
  packConv2dWeights,
  type Pads,
  resolveConv2d,
} from "./conv2d.ts";
import type { Gpu } from "./device.ts";
import type { Recorder } from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

/** The taps of one phase along one axis. */
interface Phase {
  /** Output pixel plus padding, modulo the stride. */
  readonly remainder: number;
  /** Taps of the filter, in the order in which the convolution meets them: backwards. */
  readonly taps: readonly number[];
  /** Input pixels between neighbouring taps. */
  readonly dilation: number;
  /** Input pixels from a phase's nearest tap to where the output pixel, divided by the stride, lies. */
  readonly offset: number;
}

/** A transposed convolution that was compiled: `recordConvTranspose2d` dispatches its phases. */
export interface CompiledConvTranspose2d {
  readonly options: CompiledConv2d["options"];
  readonly phases: readonly {
    readonly y: Phase;
    readonly x: Phase;
    readonly conv: CompiledConv2d;
  }[];
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

function phasesOf(kernel: number, stride: number, dilation: number): Phase[] {
  return Array.from({ length: stride }, (_, remainder) => {
    // Tap k reaches output pixel stride · input + dilation · k.
    const taps = Array.from({ length: kernel }, (_, tap) => tap)
      .filter((tap) => tap * dilation % stride === remainder);
    return {
      remainder,
      taps: taps.toReversed(),
      dilation: dilation / greatestCommonDivisor(dilation, stride),
      offset: taps.length === 0 ? 0 : (taps[0]! * dilation - remainder) / stride,
    };
  });
}

/**
 * Compiles the kernels of all phases.
 * @throws {RangeError} where the shape is none. @throws {KernelError} where the device fails.
 */
export async function compileConvTranspose2d(
  gpu: Gpu,
  options: Conv2dOptions,
): Promise<CompiledConvTranspose2d> {
  const { kernelHeight, kernelWidth, strideY = 1, strideX = 1 } = options;
  const { dilationY = 1, dilationX = 1 } = options;
  const shape = resolveConv2d(options);
  const phases = phasesOf(kernelHeight, strideY, dilationY).flatMap((y) =>
    phasesOf(kernelWidth, strideX, dilationX).map(async (x) => ({
      y,
      x,
      conv: await compileConv2d(gpu, {
        ...options,
        ...{ kernelHeight: y.taps.length, kernelWidth: x.taps.length },
        ...{ strideY: 1, strideX: 1, dilationY: y.dilation, dilationX: x.dilation },
      }),
    }))
  );
  return { options: shape, phases: await Promise.all(phases) };
}

/**
 * Weights as the phases read them, one array for each.
 * @param weights [C, O/groups, KH, KW], as ONNX has them.
 * @throws {RangeError} where the number of weights is not that of the shape.
 */
export function packConvTranspose2dWeights(
  { options, phases }: CompiledConvTranspose2d,
  weights: ArrayLike<number>,
): ReturnType<typeof packConv2dWeights>[] {
  const { channels, outChannels, kernelHeight, kernelWidth, groups } = options;
  const each = channels / groups, outEach = outChannels / groups;
  if (weights.length !== channels * outEach * kernelHeight * kernelWidth) {
    throw new RangeError(
      `Cannot pack ${weights.length} weights: [${channels}, ${outEach}, ${kernelHeight}, ` +
        `${kernelWidth}] has ${channels * outEach * kernelHeight * kernelWidth}`,
    );
  }
  return phases.map(({ y, x, conv }) => {
    const ofPhase = new Float32Array(outChannels * each * y.taps.length * x.taps.length);
    let at = 0;
    for (let o = 0; o < outChannels; o++) {
      const group = Math.floor(o / outEach);
      for (let c = group * each; c < (group + 1) * each; c++) {
        for (const i of y.taps) {
          for (const j of x.taps) {
            const from = (c * outEach + o % outEach) * kernelHeight + i;
            ofPhase[at++] = weights[from * kernelWidth + j]!;
          }
        }
      }
    }
    return packConv2dWeights(conv, ofPhase);
  });
}

/**
 * Output pixels along an axis: stride·(size − 1) + outputPadding + dilation·(kernel − 1) + 1 − pads
 * (ONNX ConvTranspose-11), at least 0.
 * @param pads on both sides together.
 */
export function transposedSize(
  size: number,
  kernel: number,
  { stride = 1, pads = 0, dilation = 1, outputPadding = 0 }: {
    readonly stride?: number;
    readonly pads?: number;
    readonly dilation?: number;
    readonly outputPadding?: number;
  } = {},
): number {
  return Math.max(0, stride * (size - 1) + outputPadding + dilation * (kernel - 1) + 1 - pads);
}

/** Pads cut pixels off the output; output padding adds some below and on the right. */
export interface TransposedPads extends Pads {
  readonly outputPaddingY?: number;
  readonly outputPaddingX?: number;
}

/**
 * Records `output = act(bias + input ∗ᵀ weights + residual)`: input [N, H, W, C], weights as
 * `packConvTranspose2dWeights` makes them, bias [O], residual and output [N, OH, OW, O], channels as
 * in `recordConv2d`.
 * @throws {RangeError} where the shapes do not fit together.
 */
export function recordConvTranspose2d(
  recorder: Recorder,
  { options, phases }: CompiledConvTranspose2d,
  { weights, ...tensors }: Omit<Conv2dTensors, "weights"> & { readonly weights: readonly Tensor[] },
  pads: TransposedPads = {},
): void {
  const { top = 0, left = 0, bottom = 0, right = 0 } = pads;
  const { kernelHeight, kernelWidth, strideY, strideX, dilationY, dilationX } = options;
  const [, height = 0, width = 0] = tensors.input.shape;
  const outHeight = transposedSize(height, kernelHeight, {
    ...{ stride: strideY, dilation: dilationY, pads: top + bottom },
    outputPadding: pads.outputPaddingY,
  });
  const outWidth = transposedSize(width, kernelWidth, {
    ...{ stride: strideX, dilation: dilationX, pads: left + right },
    outputPadding: pads.outputPaddingX,
  });
  if (weights.length !== phases.length) {
    throw new RangeError(
      `Cannot convolve with the weights of ${weights.length} phases: there are ${phases.length}`,
    );
  }
  for (const [i, { conv }] of phases.entries()) {
    checkConv2d(conv, { ...tensors, weights: weights[i]! }, outHeight, outWidth);
  }
  for (const [i, { y, x, conv }] of phases.entries()) {
    const rows = placePhase(y, strideY, top, outHeight);
    const columns = placePhase(x, strideX, left, outWidth);
    dispatchConv2d(recorder, conv, { ...tensors, weights: weights[i]! }, {
      ...{ outHeight: rows.count, top: rows.pad, stepY: strideY, fromY: rows.from },
      ...{ outWidth: columns.count, left: columns.pad, stepX: strideX, fromX: columns.from },
    });
  }
}

/** A phase's first output pixel, their number, and the padding of its convolution. */
function placePhase(
  { remainder, taps, dilation, offset }: Phase,
  stride: number,
  pad: number,
  size: number,
): { from: number; count: number; pad: number } {
  const from = ((remainder - pad) % stride + stride) % stride;
  const first = (from + pad - remainder) / stride; // Of input pixels, for a tap without offset.
  return {
    from,
    count: Math.max(0, Math.ceil((size - from) / stride)),
    pad: offset + Math.max(0, taps.length - 1) * dilation - first,
  };
}
