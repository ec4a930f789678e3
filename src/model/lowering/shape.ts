/** Operators that only speak differently of the same memory: Transpose, Reshape and its kin. */

import { dense, reshaped, transposed } from "../layout.ts";
import type { Lowering } from "../plan.ts";

const transpose: Lowering = (builder, { reader, outputs }) => {
  const input = builder.input(reader, 0);
  const rank = input.shape.length;
  const permutation = reader.numbers("perm") ??
    Array.from({ length: rank }, (_, i) => rank - 1 - i);
  builder.alias(reader, 0, input, outputs[0]!.shape!, transposed(input.layout, permutation));
  return true;
};

/** Moved to row-major order only where the new axes do not lie one after the other as it is. */
const reshape: Lowering = (builder, { reader, outputs }) => {
  const shape = outputs[0]!.shape!;
  const lying = builder.input(reader, 0);
  const input = builder.input(reader, 0, { order: lying.layout.order, padded: false });
  const layout = reshaped(input.shape, input.layout, shape);
  if (layout !== undefined) builder.alias(reader, 0, input, shape, layout);
  else {
    const moved = builder.input(reader, 0, dense(input.shape.length));
    builder.alias(reader, 0, moved, shape, dense(shape.length));
  }
  return true;
};

export const shape: Readonly<Record<string, Lowering>> = {
  Transpose: transpose,
  Reshape: reshape,
  Flatten: reshape,
  Squeeze: reshape,
  Unsqueeze: reshape,
  Identity: reshape,
  Dropout: (builder, node) => node.outputs.length === 1 && reshape(builder, node),
};
