/** Conv and ConvTranspose, with what was fused behind them. */

import { type Activation, type ActivationName } from "../../../kernels/activation.ts";
import {
  compileConv2d,
  conv2dKernels,
  packConv2dWeights,
  paddedChannels,
  recordConv2d,
  resolveConv2d,
} from "../../../kernels/conv2d.ts";
import { compileConv3d, packConv3dWeights, recordConv3d } from "../../../kernels/conv3d.ts";
import {
  compileConvTranspose2d,
  packConvTranspose2dWeights,
  recordConvTranspose2d,
  transposedSize,
} from "../../../kernels/conv_transpose2d.ts";
import { type Constant, isExternal } from "../graph.ts";
import { elementCount, type HostTensor, numbersOf } from "../host_tensor.ts";
import { channelsLast } from "../layout.ts";
import { convolution, transposedConvolution } from "../ops/conv.ts";
import type { NodeReader } from "../ops/operator.ts";
import type { GpuValue, Lowering, PackedWeight, PlanBuilder } from "../plan.ts";
import { addedApart } from "./apart.ts";

/** What fusion put behind a sum. */
export function fusedActivation(reader: NodeReader): Activation {
  const name = reader.text("activation", "") as ActivationName | "";
  if (name === "") return "identity";
  return { name, a: reader.number("activation_a", 0), b: reader.number("activation_b", 0) };
}

/** A one- or two-dimensional list as a two-dimensional one: a line is an image of one row. */
function inTwo(list: readonly number[], fill: number): [number, number] {
  return list.length === 2 ? [list[0]!, list[1]!] : [fill, list[0]!];
}

/** A constant per channel on the GPU, padded. */
export function paddedConstant(
  builder: PlanBuilder,
  name: string,
  form: string,
  constant: Constant,
  channels: number,
): PackedWeight {
  const padded = paddedChannels(channels);
  return builder.packed(name, `${form} padded ${builder.float}`, constant, (tensor) => {
    const data = new (builder.float === "f16" ? Float16Array : Float32Array)(padded);
    data.set(numbersOf(tensor));
    return { data, shape: [padded] };
  });
}

const conv: Lowering = (builder, { reader, outputs }) => {
  const c = convolution(reader);
  const weights = builder.constant(reader, 1);
  if (c.size.length === 3 && (reader.node.inputs[3] ?? "") === "") {
    return volume(builder, { reader, outputs });
  }
  if (weights === undefined || c.size.length > 2) return false;
  const biasName = reader.node.inputs[2] ?? "";
  const biasConstant = builder.constant(reader, 2);
  if (biasName !== "" && biasConstant === undefined) return false;
  const { float, gpu } = builder;
  const rank = c.size.length + 2;
  const shape = [c.batch, c.outChannels, ...c.out];
  // The residual was fused without knowing shapes: one of another shape is added by itself.
  const fits = (reader.node.inputs[3] ?? "") !== "" && reader.shape(3).join() === shape.join();
  if ((reader.node.inputs[3] ?? "") !== "" && !fits) {
    return addedApart(builder, { reader, outputs }, shape, conv);
  }
  const bias = biasConstant &&
    paddedConstant(builder, biasName, "bias", biasConstant, c.outChannels);
  const layout = channelsLast(rank);
  const input = builder.input(reader, 0, layout);
  const residual = fits ? builder.input(reader, 3, layout) : undefined;
  const output = builder.output(reader, 0, float, shape, layout);
  const [kernelHeight, kernelWidth] = inTwo(c.kernel, 1);
  const [strideY, strideX] = inTwo(c.strides, 1);
  const [dilationY, dilationX] = inTwo(c.dilations, 1);
  const [top, left] = inTwo(c.padsBegin, 0);
  const [bottom, right] = inTwo(c.padsEnd, 0);
  const options = {
    ...{ channels: c.inChannels, outChannels: c.outChannels, kernelHeight, kernelWidth },
    ...{ groups: c.group, strideY, strideX, dilationY, dilationX, type: float },
    activation: fusedActivation(reader),
    bias: bias !== undefined,
    residual: fits,
    pixels: c.batch * elementCount(c.out),
  };
  const compiled = compileConv2d(gpu, options);
  // How weights are packed is the kernel's matter, of which the number of pixels decides too. It is
  // done while kernels compile.
  const kernel = conv2dKernels(gpu, options)[0]!;
  const packed = builder.packed(
    reader.node.inputs[1]!,
    `conv ${float} ${c.group} ${kernel}`,
    weights,
    (tensor) => packConv2dWeights({ kernel, options: resolveConv2d(options) }, numbersOf(tensor)),
  );
  const image = (value: GpuValue) =>
    value.as([c.batch, ...inTwo(value.physical.slice(1, -1), 1), value.physical.at(-1)!]);
  builder.step(
    [input, packed, ...(bias ? [bias] : []), ...(residual ? [residual] : [])],
    [output],
    compiled,
    (recorder, ready) =>
      recordConv2d(recorder, ready, {
        input: image(input),
        weights: packed.tensor,
        ...(bias ? { bias: bias.tensor } : {}),
        ...(residual ? { residual: image(residual) } : {}),
        output: image(output),
      }, { top, left, bottom, right }),
  );
  return true;
};

/** Three numbers of three or fewer: a plane is a volume of one slice. */
function inThree(list: readonly number[], fill: number): [number, number, number] {
  return [...new Array<number>(3 - list.length).fill(fill), ...list] as [number, number, number];
}

/** Conv over three axes. */
const volume: Lowering = (builder, { reader, outputs }) => {
  const c = convolution(reader);
  const { float, gpu } = builder;
  const weights = builder.constant(reader, 1);
  const biasName = reader.node.inputs[2] ?? "";
  const biasConstant = builder.constant(reader, 2);
  if (weights === undefined || (biasName !== "" && biasConstant === undefined)) return false;
  const bias = biasConstant &&
    paddedConstant(builder, biasName, "bias", biasConstant, c.outChannels);
  const layout = channelsLast(5);
  const input = builder.input(reader, 0, layout);
  const output = builder.output(reader, 0, float, outputs[0]!.shape!, layout);
  const compiled = compileConv3d(gpu, {
    channels: c.inChannels,
    outChannels: c.outChannels,
    kernel: inThree(c.kernel, 1),
    groups: c.group,
    strides: inThree(c.strides, 1),
    dilations: inThree(c.dilations, 1),
    type: float,
    activation: fusedActivation(reader),
    bias: bias !== undefined,
  });
  const packed = builder.packed(
    reader.node.inputs[1]!,
    `conv ${float} ${c.group}`,
    weights,
    async (tensor) => packConv3dWeights(await compiled, numbersOf(tensor)),
  );
  builder.step(
    [input, packed, ...(bias ? [bias] : [])],
    [output],
    compiled,
    (recorder, ready) =>
      recordConv3d(recorder, ready, {
        input: input.tensor,
        weights: packed.tensor,
        ...(bias ? { bias: bias.tensor } : {}),
        output: output.tensor,
      }, { before: inThree(c.padsBegin, 0), behind: inThree(c.padsEnd, 0) }),
  );
  return true;
};

const convTranspose: Lowering = (builder, { reader, outputs }) => {
  const c = transposedConvolution(reader);
  const { float, gpu } = builder;
  const weights = builder.constant(reader, 1);
  const biasName = reader.node.inputs[2] ?? "";
  const biasConstant = builder.constant(reader, 2);
  if (weights === undefined || c.size.length > 2) return false;
  if (biasName !== "" && biasConstant === undefined) return false;
  const bias = biasConstant &&
    paddedConstant(builder, biasName, "bias", biasConstant, c.outChannels);
  const shape = outputs[0]!.shape!;
  const layout = channelsLast(shape.length);
  const [kernelHeight, kernelWidth] = inTwo(c.kernel, 1);
  const [strideY, strideX] = inTwo(c.strides, 1);
  const [dilationY, dilationX] = inTwo(c.dilations, 1);
  const [top, left] = inTwo(c.padsBegin, 0);
  const [bottom, right] = inTwo(c.padsEnd, 0);
  const [height, width] = inTwo(c.size, 1);
  const [outHeight, outWidth] = inTwo(c.out, 1);
  // What `output_shape` asks for beyond the usual is output padding by another name.
  const outputPaddingY = outHeight -
    transposedSize(height, kernelHeight, {
      stride: strideY,
      dilation: dilationY,
      pads: top + bottom,
    });
  const outputPaddingX = outWidth -
    transposedSize(width, kernelWidth, {
      stride: strideX,
      dilation: dilationX,
      pads: left + right,
    });
  if (outputPaddingY < 0 || outputPaddingX < 0) return false;
  const input = builder.input(reader, 0, layout);
  const output = builder.output(reader, 0, float, shape, layout);
  const compiled = compileConvTranspose2d(gpu, {
    channels: c.inChannels,
    outChannels: c.outChannels,
    kernelHeight,
    kernelWidth,
    groups: c.group,
    strideY,
    strideX,
    dilationY,
    dilationX,
    type: float,
    activation: fusedActivation(reader),
    bias: bias !== undefined,
  });
  // One array of weights for each phase of the output, packed together.
  let all: Promise<ReturnType<typeof packConvTranspose2dWeights>> | undefined;
  const packed = Array.from({ length: strideY * strideX }, (_, phase) =>
    builder.packed(
      reader.node.inputs[1]!,
      `transposed ${float} ${c.group} ${c.strides} ${c.dilations}, phase ${phase}`,
      weights,
      async (tensor) => {
        all ??= compiled.then((ready) => packConvTranspose2dWeights(ready, numbersOf(tensor)));
        return (await all)[phase]!;
      },
    ));
  const image = (value: GpuValue) =>
    value.as([c.batch, ...inTwo(value.physical.slice(1, -1), 1), value.physical.at(-1)!]);
  builder.step(
    [input, ...packed, ...(bias ? [bias] : [])],
    [output],
    compiled,
    (recorder, ready) =>
      recordConvTranspose2d(recorder, ready, {
        input: image(input),
        weights: packed.map(({ tensor }) => tensor),
        ...(bias ? { bias: bias.tensor } : {}),
        output: image(output),
      }, { top, left, bottom, right, outputPaddingY, outputPaddingX }),
  );
  return true;
};

/**
 * BatchNormalization-15 that nothing before it could take in: a factor and a summand per channel,
 * which is a depthwise convolution of one pixel.
 */
const batchNorm: Lowering = (builder, { reader, outputs }) => {
  const { float, gpu } = builder;
  const shape = outputs[0]!.shape!;
  if (shape.length < 2 || reader.number("training_mode", 0) !== 0 || outputs.length > 1) {
    return false;
  }
  const constants = [1, 2, 3, 4].map((i) => builder.constant(reader, i));
  if (constants.some((constant) => constant === undefined || isExternal(constant))) return false;
  const [scale, bias, mean, variance] = constants.map((constant) =>
    numbersOf(constant as HostTensor)
  );
  const epsilon = reader.number("epsilon", 1e-5);
  const channels = shape[1]!;
  const factor = Float32Array.from(
    { length: channels },
    (_, c) => scale![c]! / Math.sqrt(variance![c]! + epsilon),
  );
  const shift = Float32Array.from(
    { length: channels },
    (_, c) => bias![c]! - mean![c]! * factor[c]!,
  );
  const layout = channelsLast(shape.length);
  const input = builder.input(reader, 0, layout);
  const output = builder.output(reader, 0, float, shape, layout);
  const compiled = compileConv2d(gpu, {
    channels,
    outChannels: channels,
    kernelHeight: 1,
    kernelWidth: 1,
    groups: channels,
    type: float,
    activation: fusedActivation(reader),
    bias: true,
  });
  const [name, shiftName] = [reader.node.inputs[1]!, reader.node.inputs[2]!];
  const of = { type: "float32", shape: [channels] } as const;
  const own = `of ${reader.node.outputs[0]}, ${float}`;
  const weights = builder.packed(
    name,
    `factors ${own}`,
    { ...of, data: factor },
    async (tensor) => packConv2dWeights(await compiled, numbersOf(tensor)),
  );
  const shifts = paddedConstant(
    builder,
    shiftName,
    `summands ${own}`,
    { ...of, data: shift },
    channels,
  );
  const pixels = elementCount(shape) / channels;
  const image = (value: GpuValue) => value.as([1, 1, pixels, paddedChannels(channels)]);
  builder.step(
    [input, weights, shifts],
    [output],
    compiled,
    (recorder, ready) =>
      recordConv2d(recorder, ready, {
        input: image(input),
        weights: weights.tensor,
        bias: shifts.tensor,
        output: image(output),
      }),
  );
  return true;
};

export const convolutions: Readonly<Record<string, Lowering>> = {
  "Conv": conv,
  "wgslide.Conv": conv,
  "ConvTranspose": convTranspose,
  "wgslide.ConvTranspose": convTranspose,
  "BatchNormalization": batchNorm,
  "wgslide.BatchNormalization": batchNorm,
};
