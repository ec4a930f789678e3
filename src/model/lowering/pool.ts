/** Pooling over windows and over whole images. */

import {
  compileGlobalPool,
  compilePool,
  compilePoolIndices,
  type PoolKind,
  recordGlobalPool,
  recordPool,
  recordPoolIndices,
} from "../../../kernels/pool.ts";
import { isFloat } from "../host_tensor.ts";
import { channelsLast } from "../layout.ts";
import { windowsOf } from "../ops/conv.ts";
import type { Lowering } from "../plan.ts";

/** MaxPool, AveragePool and LpPool. */
function pool(kind: PoolKind): Lowering {
  return (builder, { reader, outputs }) => {
    const { float, gpu } = builder;
    const shape = outputs[0]!.shape!;
    const size = reader.shape(0).slice(2);
    const kernel = reader.numbers("kernel_shape");
    if (kernel === undefined || kernel.length < 1 || kernel.length > 3) return false;
    if (!isFloat(reader.input(0).type)) return false;
    const input = builder.input(reader, 0, channelsLast(shape.length));
    const windows = windowsOf(reader, size, kernel);
    // The kernel counts its windows itself; what it would round up to is settled by the end's pads.
    const attributes = {
      kernelShape: kernel,
      strides: windows.strides,
      dilations: windows.dilations,
      pads: [...windows.padsBegin, ...windows.padsEnd],
      ceilMode: reader.number("ceil_mode", 0) === 1 &&
        reader.text("auto_pad", "NOTSET") === "NOTSET",
      countIncludePad: reader.number("count_include_pad", 0) === 1,
      p: reader.number("p", 2),
    };
    const layout = channelsLast(shape.length);
    const output = builder.output(reader, 0, float, shape, layout);
    const indicesName = reader.node.outputs[1] ?? "";
    if (kind === "max" && indicesName !== "") {
      const indices = builder.output(reader, 1, "i32", shape, layout);
      builder.step(
        [input],
        [output, indices],
        compilePoolIndices(gpu, { type: float }),
        (recorder, compiled) =>
          recordPoolIndices(recorder, compiled, {
            input: input.tensor,
            output: output.tensor,
            indices: indices.tensor,
          }, {
            ...attributes,
            channels: shape[1]!,
            storageOrder: reader.number("storage_order", 0) === 1 ? 1 : 0,
          }),
      );
      return true;
    }
    builder.step(
      [input],
      [output],
      compilePool(gpu, { kind, type: float }),
      (recorder, compiled) =>
        recordPool(recorder, compiled, { input: input.tensor, output: output.tensor }, attributes),
    );
    return true;
  };
}

function globalPool(kind: PoolKind): Lowering {
  return (builder, { reader, outputs }) => {
    const { float, gpu } = builder;
    const shape = outputs[0]!.shape!;
    const layout = channelsLast(shape.length);
    const input = builder.input(reader, 0, layout);
    const output = builder.output(reader, 0, float, shape, layout);
    builder.step(
      [input],
      [output],
      compileGlobalPool(gpu, { kind, type: float }),
      (recorder, compiled) =>
        recordGlobalPool(recorder, compiled, { input: input.tensor, output: output.tensor }, {
          p: reader.number("p", 2),
        }),
    );
    return true;
  };
}

export const pooling: Readonly<Record<string, Lowering>> = {
  MaxPool: pool("max"),
  AveragePool: pool("average"),
  LpPool: pool("lp"),
  GlobalMaxPool: globalPool("max"),
  GlobalAveragePool: globalPool("average"),
  GlobalLpPool: globalPool("lp"),
};
