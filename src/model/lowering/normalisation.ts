/** Layer, RMS, group, instance and local response norms; softmax. */

import {
  compileGroupNorm,
  groupMomentsShape,
  recordGroupNorm,
} from "../../../kernels/group_norm.ts";
import { compileLayerNorm, recordLayerNorm } from "../../../kernels/layer_norm.ts";
import {
  compileLocalResponseNorm,
  recordLocalResponseNorm,
} from "../../../kernels/local_response_norm.ts";
import { compileSoftmax, recordSoftmax } from "../../../kernels/softmax.ts";
import { elementCount, type HostTensor, numbersOf } from "../host_tensor.ts";
import { channelsLast, dense } from "../layout.ts";
import { layerOf, softmaxRun } from "../ops/normalisation.ts";
import type { NodeReader } from "../ops/operator.ts";
import type { Lowering, PackedWeight, PlanBuilder } from "../plan.ts";
import { toGpu } from "../weights.ts";
import { paddedConstant } from "./conv.ts";

/** A scale or bias of as many elements as a row has. */
function perRow(
  builder: PlanBuilder,
  reader: NodeReader,
  i: number,
  length: number,
): PackedWeight | undefined {
  const constant = builder.constant(reader, i);
  if (constant === undefined || elementCount(constant.shape) !== length) return undefined;
  return builder.packed(
    reader.node.inputs[i]!,
    `row ${builder.float}`,
    constant,
    (tensor: HostTensor) => ({ data: toGpu(tensor, builder.float), shape: [length] }),
  );
}

function layerNorm(rms: boolean): Lowering {
  return (builder, { reader, outputs }) => {
    const { gpu, float } = builder;
    const { axis, length } = layerOf(reader);
    const shape = outputs[0]!.shape!;
    const names = reader.node.outputs;
    // Statistics are asked for by nobody who infers.
    if (names.slice(1).some((name) => name !== "")) return false;
    const scale = perRow(builder, reader, 1, length);
    const hasBias = (reader.node.inputs[2] ?? "") !== "";
    const bias = hasBias ? perRow(builder, reader, 2, length) : undefined;
    if (scale === undefined || (hasBias && bias === undefined) || elementCount(shape) === 0) {
      return false;
    }
    // Rows as they lie: whatever the order of the axes before them.
    const lying = builder.input(reader, 0);
    const inside = lying.layout.order.slice(axis).every((own, i) => own === axis + i);
    const input = builder.input(
      reader,
      0,
      inside ? { order: lying.layout.order, padded: false } : dense(shape.length),
    );
    const output = builder.output(reader, 0, float, shape, input.layout);
    const rows = [elementCount(shape) / length, length];
    builder.step(
      [input, scale, ...(bias ? [bias] : [])],
      [output],
      compileLayerNorm(gpu, { row: length, type: float, rms, bias: hasBias }),
      (recorder, compiled) =>
        recordLayerNorm(recorder, compiled, {
          input: input.as(rows),
          scale: scale.tensor,
          ...(bias ? { bias: bias.tensor } : {}),
          output: output.as(rows),
        }, { epsilon: reader.number("epsilon", 1e-5) }),
    );
    return true;
  };
}

/** InstanceNormalization, where every channel is a group, and GroupNormalization. */
function groupNorm(groupsOf: (reader: NodeReader, channels: number) => number): Lowering {
  return (builder, { reader, outputs }) => {
    const { gpu, float } = builder;
    const shape = outputs[0]!.shape!;
    const channels = shape[1]!;
    const groups = groupsOf(reader, channels);
    const [scale, bias] = [1, 2].map((i) => {
      const constant = builder.constant(reader, i);
      if (constant === undefined) return undefined;
      // GroupNormalization-18 has a factor per group, -21 one per channel.
      const perGroup = elementCount(constant.shape) !== channels;
      if (perGroup && elementCount(constant.shape) !== groups) return undefined;
      if (!perGroup) {
        return paddedConstant(builder, reader.node.inputs[i]!, "norm", constant, channels);
      }
      if ("read" in constant) return undefined;
      const values = numbersOf(constant);
      const data = Float32Array.from(
        { length: channels },
        (_, c) => values[Math.floor(c / (channels / groups))]!,
      );
      const spread: HostTensor = { type: "float32", shape: [channels], data };
      return paddedConstant(builder, reader.node.inputs[i]!, `norm of ${groups}`, spread, channels);
    });
    if (scale === undefined || bias === undefined || elementCount(shape) === 0) return false;
    const layout = channelsLast(shape.length);
    const input = builder.input(reader, 0, layout);
    const output = builder.output(reader, 0, float, shape, layout);
    const moments = builder.allocate("f32", groupMomentsShape(input.physical));
    builder.step(
      [input, scale, bias],
      [output, moments],
      compileGroupNorm(gpu, { type: float }),
      (recorder, compiled) =>
        recordGroupNorm(recorder, compiled, {
          input: input.tensor,
          scale: scale.tensor,
          bias: bias.tensor,
          output: output.tensor,
          moments: moments.tensor,
        }, { groups, channels, epsilon: reader.number("epsilon", 1e-5) }),
    );
    return true;
  };
}

const localResponseNorm: Lowering = (builder, { reader, outputs }) => {
  const { gpu, float } = builder;
  const shape = outputs[0]!.shape!;
  const layout = channelsLast(shape.length);
  const input = builder.input(reader, 0, layout);
  const output = builder.output(reader, 0, float, shape, layout);
  builder.step(
    [input],
    [output],
    compileLocalResponseNorm(gpu, float),
    (recorder, compiled) =>
      recordLocalResponseNorm(recorder, compiled, {
        input: input.tensor,
        output: output.tensor,
      }, {
        size: reader.number("size", 1),
        channels: shape[1]!,
        alpha: reader.number("alpha", 1e-4),
        beta: reader.number("beta", 0.75),
        bias: reader.number("bias", 1),
      }),
  );
  return true;
};

/** Of fewer elements rows are slower than columns, ten times where there are three of them. */
const SHORT_ROW = 16;

/** Softmax and LogSoftmax along one axis, or before version 13 along all from one on. */
function softmax(log: boolean): Lowering {
  return (builder, { reader, outputs }) => {
    const { gpu, float } = builder;
    const shape = outputs[0]!.shape!;
    const rank = shape.length;
    const { outer, length, inner } = softmaxRun(reader);
    if (outer * length * inner === 0) return false;
    const old = reader.node.opset < 13;
    const axis = rank === 0 || old ? -1 : reader.axis(reader.number("axis", -1), rank);
    const { order } = builder.input(reader, 0).layout;
    // A few classes a pixel are summed across pixels: four of those at a time, and nothing is padded.
    const isShort = axis >= 0 && axis < rank - 1 && length < SHORT_ROW && order.at(-1) === axis;
    const input = builder.input(
      reader,
      0,
      axis < 0 || isShort ? dense(rank) : { order, padded: false },
    );
    const along = input.layout.order.indexOf(axis);
    const { physical } = input;
    const view = axis < 0 ? [outer, length, inner] : [
      elementCount(physical.slice(0, along)),
      length,
      elementCount(physical.slice(along + 1)),
    ];
    const output = builder.output(reader, 0, float, shape, input.layout);
    builder.step(
      [input],
      [output],
      compileSoftmax(gpu, { type: float, shape: view }, 1, { log }),
      (recorder, compiled) =>
        recordSoftmax(recorder, compiled, { input: input.as(view), output: output.as(view) }),
    );
    return true;
  };
}

export const normalisations: Readonly<Record<string, Lowering>> = {
  LayerNormalization: layerNorm(false),
  RMSNormalization: layerNorm(true),
  InstanceNormalization: groupNorm((_, channels) => channels),
  GroupNormalization: groupNorm((reader) => reader.number("num_groups", 1)),
  LRN: localResponseNorm,
  Softmax: softmax(false),
  LogSoftmax: softmax(true),
};
