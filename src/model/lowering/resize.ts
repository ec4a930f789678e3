/** Resize and Upsample along any axes. */

import {
  compileResize,
  type CoordinateMode,
  type NearestMode,
  recordResize,
} from "../../../kernels/resize.ts";
import { channelsLast, physicalAxis } from "../layout.ts";
import { resizeShape } from "../ops/resize.ts";
import type { Lowering } from "../plan.ts";

const resize: Lowering = (builder, { reader, outputs }) => {
  const { gpu, float } = builder;
  const found = resizeShape(reader);
  const shape = outputs[0]!.shape!;
  if (found === undefined || shape.includes(0)) return false;
  const { op, opset } = reader.node;
  const simple = op === "Upsample" || opset < 11;
  const coordinateMode = simple
    ? "asymmetric"
    : reader.text("coordinate_transformation_mode", "half_pixel") as CoordinateMode;
  const crops = coordinateMode === "tf_crop_and_resize";
  // Images stay as they are; other tensors as they lie.
  const rank = shape.length;
  const isImage = rank >= 3 && found.axes.slice(0, 2).every(({ length, out }) => length === out);
  const lying = builder.input(reader, 0);
  const layout = isImage ? channelsLast(rank) : { order: lying.layout.order, padded: false };
  if (lying.type !== float) return false; // Integers.
  const input = builder.input(reader, 0, layout);
  const axes = found.axes.flatMap(({ length, out, scale, roi }, axis) =>
    length === out && scale === 1 && (!crops || (roi[0] === 0 && roi[1] === 1))
      ? []
      : [{ axis: physicalAxis(layout, axis), outSize: out, scale, roi }]
  );
  const output = builder.output(reader, 0, float, shape, layout);
  const nearestMode = op === "Upsample"
    ? "floor"
    : simple
    ? "simple"
    : reader.text("nearest_mode", "round_prefer_floor") as NearestMode;
  builder.step(
    [input],
    [output],
    compileResize(gpu, {
      shape: input.physical,
      axes,
      type: float,
      mode: found.mode,
      coordinateMode,
      nearestMode,
      cubicCoeffA: reader.number("cubic_coeff_a", -0.75),
      excludeOutside: reader.number("exclude_outside", 0) === 1,
      antialias: reader.number("antialias", 0) === 1,
      extrapolationValue: reader.number("extrapolation_value", 0),
    }),
    (recorder, compiled) =>
      recordResize(recorder, compiled, { input: input.tensor, output: output.tensor }),
  );
  return true;
};

export const resizing: Readonly<Record<string, Lowering>> = { Resize: resize, Upsample: resize };
