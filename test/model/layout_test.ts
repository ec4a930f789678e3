import assert from "node:assert/strict";
import {
  channelsLast,
  dense,
  hasPadding,
  type Layout,
  physicalShape,
  reshaped,
  rowMajor,
  sameMemory,
  transposed,
} from "../../src/model/layout.ts";
import { uniform } from "../reference/random.ts";

/** Elements 0, 1, 2, … of a row-major tensor as they lie in memory; padding is −1. */
function stored(shape: readonly number[], layout: Layout): number[] {
  const physical = physicalShape(shape, layout);
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  const count = physical.reduce((a, b) => a * b, 1);
  return Array.from({ length: count }, (_, i) => {
    let rest = i, at = 0, outside = false;
    for (let k = physical.length - 1; k >= 0; k--) {
      const index = rest % physical[k]!;
      rest = Math.floor(rest / physical[k]!);
      const axis = layout.order[k]!;
      if (index >= shape[axis]!) outside = true;
      at += index * strides[axis]!;
    }
    return outside ? -1 : at;
  });
}

Deno.test("channelsLast() is [N, H, W, C] with C padded", () => {
  assert.deepEqual(physicalShape([2, 3, 5, 7], channelsLast(4)), [2, 5, 7, 4]);
  assert.deepEqual(physicalShape([2, 8, 5], channelsLast(3)), [2, 5, 8]);
  assert.ok(hasPadding([1, 3, 1, 1], channelsLast(4)));
  assert.ok(!hasPadding([1, 4, 9, 9], channelsLast(4)));
});

Deno.test("sameMemory() sees through axes of size 1, and not through padding", () => {
  assert.ok(sameMemory([2, 8, 1, 1], channelsLast(4), dense(4)));
  assert.ok(!sameMemory([2, 3, 1, 1], channelsLast(4), dense(4)));
  assert.ok(!sameMemory([2, 8, 2, 1], channelsLast(4), dense(4)));
  assert.ok(!sameMemory([1, 1, 4, 4], channelsLast(4), dense(4)));
});

Deno.test("sameMemory(), transposed() and reshaped() say what memory says", () => {
  const next = uniform(7);
  const below = (n: number) => Math.floor(next() * n);
  const shuffled = (rank: number) => {
    const order = Array.from({ length: rank }, (_, i) => i);
    for (let i = rank - 1; i > 0; i--) {
      const j = below(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  };
  let kept = 0;
  for (let round = 0; round < 2000; round++) {
    const rank = 1 + below(4);
    const shape = Array.from({ length: rank }, () => [1, 2, 3, 4][below(4)]!);
    const layout = { order: shuffled(rank), padded: below(4) === 0 };
    const other = { order: shuffled(rank), padded: below(4) === 0 };
    const memory = stored(shape, layout);
    const count = shape.reduce((a, b) => a * b, 1);
    assert.deepEqual(
      [...rowMajor(Int32Array.from(memory), shape, layout)],
      Array.from({ length: count }, (_, i) => i),
    );
    if (sameMemory(shape, layout, other)) assert.deepEqual(stored(shape, other), memory);

    const permutation = shuffled(rank);
    const turned = permutation.map((axis) => shape[axis]!);
    // The transposed tensor's elements by the numbers that they have in the first.
    const names = stored(turned, { order: permutation.map((_, i) => i), padded: false })
      .map((_, i) => {
        let rest = i;
        const index = new Array<number>(rank);
        for (let k = rank - 1; k >= 0; k--) {
          index[permutation[k]!] = rest % turned[k]!;
          rest = Math.floor(rest / turned[k]!);
        }
        return index.reduce((at, value, axis) => at * shape[axis]! + value, 0);
      });
    const seen = stored(turned, transposed(layout, permutation)).map((i) => i < 0 ? -1 : names[i]!);
    assert.deepEqual(seen, memory, `[${shape}] by [${permutation}] stored [${layout.order}]`);

    // Another factorisation of the same elements: merge two axes or split one.
    const at = below(rank);
    const to = below(2) === 0 && rank > 1 && at + 1 < rank
      ? [...shape.slice(0, at), shape[at]! * shape[at + 1]!, ...shape.slice(at + 2)]
      : shape[at] === 4
      ? [...shape.slice(0, at), 2, 2, ...shape.slice(at + 1)]
      : [...shape.slice(0, at), 1, ...shape.slice(at)];
    const view = reshaped(shape, layout, to);
    if (view !== undefined) {
      kept++;
      assert.deepEqual(
        stored(to, view),
        memory,
        `[${shape}] stored [${layout.order}] as [${to}] stored [${view.order}]`,
      );
    }
  }
  assert.ok(kept > 1000, `only ${kept} were seen as they lie`);
});

Deno.test("reshaped() keeps an image channels-last while its pixels are flattened", () => {
  const view = reshaped([2, 8, 3, 5], channelsLast(4), [2, 8, 15])!;
  assert.deepEqual(physicalShape([2, 8, 15], view), [2, 15, 8]);
  assert.deepEqual(physicalShape([2, 15, 8], transposed(view, [0, 2, 1])), [2, 15, 8]);
  assert.deepEqual(transposed(view, [0, 2, 1]).order, [0, 1, 2]);
  // Channels and pixels merged do lie elsewhere.
  assert.equal(reshaped([2, 8, 3, 5], channelsLast(4), [2, 120]), undefined);
  assert.deepEqual(reshaped([2, 8, 1, 1], channelsLast(4), [2, 8])!.order, [0, 1]);
});
