/** Walking dense row-major tensors of any rank, index by index. */

/** Calls `visit` with every index of `shape`, in row-major order, and its position. */
export function forEachIndex(
  shape: readonly number[],
  visit: (index: readonly number[], position: number) => void,
): void {
  const count = shape.reduce((a, b) => a * b, 1);
  const index = shape.map(() => 0);
  for (let position = 0; position < count; position++) {
    visit(index, position);
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]; axis--) {
      index[axis] = 0;
    }
  }
}

/** The position of an index in a dense tensor of `shape`, which may be of fewer axes and repeat where it is 1. */
export function positionOf(index: readonly number[], shape: readonly number[]): number {
  const missing = index.length - shape.length;
  return shape.reduce(
    (position, size, axis) => position * size + (size === 1 ? 0 : index[axis + missing]!),
    0,
  );
}
