import assert from "node:assert/strict";
import {
  type AttentionVariant,
  compileAttention,
  headsFirst,
  recordAttention,
  tokensFirst,
} from "../../kernels/attention.ts";
import { Batch } from "../../kernels/kernel.ts";
import type { Gpu } from "../../kernels/device.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { attention, type AttentionSizes } from "../reference/attention.ts";
import { floats } from "../reference/random.ts";
import { sharedGpu } from "./gpu.ts";

function variants(gpu: Gpu): readonly AttentionVariant[] {
  return gpu.subgroupSize === 8 ? ["tiled", "subgroup8"] : ["tiled"];
}

function typesOf(gpu: Gpu): readonly ("f32" | "f16")[] {
  return gpu.features.has("shader-f16") ? ["f32", "f16"] : ["f32"];
}

const typed = (values: Float32Array<ArrayBuffer>, type: "f32" | "f16") =>
  type === "f16" ? Float16Array.from(values) : values;

/** Largest |actual − expected| over its bound, and what f16 rounds in storing. */
function worst(
  actual: ArrayLike<number>,
  { data, bound }: ReturnType<typeof attention>,
  type: "f32" | "f16",
): number {
  let worst = 0;
  for (const [i, v] of data.entries()) {
    const stored = type === "f16" ? 2 ** -11 * Math.abs(v) + 2 ** -25 : 1e-30;
    const error = Math.abs(actual[i]! - v) / (bound[i]! + stored);
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  }
  return worst;
}

const size = (
  batch: number,
  heads: number,
  queries: number,
  keys: number,
  headSize: number,
  keyHeads = heads,
): AttentionSizes => ({ batch, heads, keyHeads, queries, keys, headSize });

const CASES = [
  size(1, 1, 1, 1, 4),
  // Either side of 16 and 64 queries, of 32 keys, and of D's parts of 32 and 64.
  size(1, 2, 15, 31, 28),
  size(1, 1, 17, 33, 36),
  size(2, 1, 63, 32, 32),
  size(1, 1, 65, 7, 64),
  size(1, 1, 5, 64, 68),
  // Head sizes and lengths of vision transformers.
  size(1, 2, 50, 50, 80),
  size(1, 1, 37, 37, 88),
  size(1, 1, 29, 29, 96),
  size(1, 1, 19, 101, 128),
  size(1, 3, 197, 197, 64),
  // Heads that share keys and values.
  size(2, 6, 11, 13, 8, 2),
  size(0, 2, 5, 5, 8),
  size(1, 2, 0, 5, 8),
  size(1, 2, 5, 0, 8),
] as const;

Deno.test("recordAttention() is softmax(scale · q·kᵀ) · v, of every variant and type", async () => {
  const gpu = await sharedGpu();
  for (const [i, sizes] of CASES.entries()) {
    const { batch, heads, keyHeads, queries, keys, headSize } = sizes;
    // Four sizes of kernel are compiled for f32, two of them for f16: each takes a second.
    for (const type of typesOf(gpu).slice(0, headSize <= 32 || headSize > 96 ? 2 : 1)) {
      // The scores' spread grows with i, from weights that are alike to a few that win.
      const query = typed(
        floats(batch * heads * queries * headSize, 1).map((v) => v * (1 + i)),
        type,
      );
      const key = typed(floats(batch * keyHeads * keys * headSize, 2), type);
      const value = typed(floats(batch * keyHeads * keys * headSize, 3), type);
      const expected = attention(query, key, value, sizes, 1 / Math.sqrt(headSize), () => 0);
      for (const variant of variants(gpu)) {
        const output = new Tensor(gpu, type, [batch, heads, queries, headSize]);
        const recorder = new Batch(gpu);
        recordAttention(recorder, await compileAttention(gpu, { headSize, type, variant }), {
          query: Tensor.from(gpu, query, [batch, heads, queries, headSize]),
          key: Tensor.from(gpu, key, [batch, keyHeads, keys, headSize]),
          value: Tensor.from(gpu, value, [batch, keyHeads, keys, headSize]),
          output,
        }, sizes);
        recorder.submit();
        const error = worst(await output.readFloats(), expected, type);
        assert.ok(error <= 1, `${variant} ${type}, case ${i}: ${error} of the bound`);
      }
    }
  }
});

Deno.test("recordAttention() adds masks of every broadcast, and sees no future where causal", async () => {
  const gpu = await sharedGpu();
  const [batch, heads, queries, keys, headSize] = [2, 3, 35, 39, 12];
  const sizes = size(batch, heads, queries, keys, headSize);
  const query = floats(batch * heads * queries * headSize, 1);
  const key = floats(batch * heads * keys * headSize, 2);
  const value = floats(batch * heads * keys * headSize, 3);
  for (
    const maskShape of [
      undefined,
      [1, 1, queries, keys],
      [batch, 1, 1, keys],
      [1, heads, 1, keys],
      [batch, heads, queries, keys],
    ]
  ) {
    const count = maskShape?.reduce((a, b) => a * b, 1) ?? 0;
    // A fifth of the keys, but never the first, is hidden.
    const masks = floats(count, 4).map((v, i) => v < -0.6 && i % keys > 0 ? -Infinity : v);
    const [mb = 1, mh = 1, mt = 1] = maskShape ?? [];
    for (const causal of [false, true]) {
      const at = (b: number, h: number, t: number, u: number) =>
        (((b % mb) * mh + h % mh) * mt + t % mt) * keys + u;
      const expected = attention(
        query,
        key,
        value,
        sizes,
        0.7,
        (b, h, t, u) =>
          causal && u > t ? -Infinity : maskShape === undefined ? 0 : masks[at(b, h, t, u)]!,
      );
      for (const variant of variants(gpu)) {
        const mask = maskShape && Tensor.from(gpu, masks, maskShape);
        const output = new Tensor(gpu, "f32", [batch, heads, queries, headSize]);
        const compiled = await compileAttention(gpu, {
          headSize,
          variant,
          mask: mask !== undefined,
        });
        const recorder = new Batch(gpu);
        recordAttention(recorder, compiled, {
          query: Tensor.from(gpu, query, [batch, heads, queries, headSize]),
          key: Tensor.from(gpu, key, [batch, heads, keys, headSize]),
          value: Tensor.from(gpu, value, [batch, heads, keys, headSize]),
          ...mask === undefined ? {} : { mask },
          output,
        }, { ...sizes, causal, scale: 0.7 });
        recorder.submit();
        const error = worst(await output.readFloats(), expected, "f32");
        assert.ok(
          error <= 1,
          `${variant}, [${maskShape}], causal ${causal}: ${error} of the bound`,
        );
      }
    }
  }
});

Deno.test("recordAttention() reads packed projections and writes tokens first", async () => {
  const gpu = await sharedGpu();
  const [batch, tokens, heads, headSize] = [2, 21, 3, 16];
  const sizes = size(batch, heads, tokens, tokens, headSize);
  const packedShape = [batch, tokens, 3, heads, headSize] as const;
  const packed = floats(batch * tokens * 3 * heads * headSize, 5);
  const rows = headsFirst([batch, heads, tokens, headSize]);
  const part = (index: number) => {
    const layout = tokensFirst(packedShape, index);
    return Float32Array.from({ length: packed.length / 3 }, (_, i) => {
      const b = Math.floor(i / rows.batch), h = Math.floor(i / rows.head) % heads;
      const t = Math.floor(i / rows.row) % tokens;
      return packed[
        layout.offset + b * layout.batch + h * layout.head + t * layout.row + i % headSize
      ]!;
    });
  };
  // [B, T, 3, heads, D] by hand: the second token's value of the second head.
  assert.equal(part(2)[rows.head + rows.row], packed[((1 * 3 + 2) * heads + 1) * headSize]);
  const expected = attention(part(0), part(1), part(2), sizes, 1 / Math.sqrt(headSize), () => 0);
  for (const variant of variants(gpu)) {
    const input = Tensor.from(gpu, packed, packedShape);
    const output = new Tensor(gpu, "f32", [batch, tokens, heads, headSize]);
    const recorder = new Batch(gpu);
    recordAttention(
      recorder,
      await compileAttention(gpu, { headSize, variant }),
      { query: input, key: input, value: input, output },
      {
        ...sizes,
        layouts: {
          query: tokensFirst(packedShape, 0),
          key: tokensFirst(packedShape, 1),
          value: tokensFirst(packedShape, 2),
          output: tokensFirst([batch, tokens, 1, heads, headSize]),
        },
      },
    );
    recorder.submit();
    const actual = await output.readFloats();
    const headFirst = expected.data.map((_, i) => {
      const b = Math.floor(i / rows.batch), h = Math.floor(i / rows.head) % heads;
      const t = Math.floor(i / rows.row) % tokens;
      return actual[((b * tokens + t) * heads + h) * headSize + i % headSize]!;
    });
    assert.ok(worst(headFirst, expected, "f32") <= 1, variant);
  }
});

Deno.test("recordAttention() stays finite where scores, masks or f16 would overflow", async () => {
  const gpu = await sharedGpu();
  for (const type of typesOf(gpu)) {
    for (const variant of variants(gpu)) {
      const tensor = (values: number[]) =>
        Tensor.from(gpu, typed(Float32Array.from(values), type), [1, 1, values.length / 4, 4]);
      // An f16 kernel for lavapipe with a mask takes seven seconds to compile.
      const masked = type === "f32" || variant === "tiled";
      const compiled = await compileAttention(gpu, { headSize: 4, type, variant, mask: masked });
      const hidden = typed(Float32Array.from([0, 0, -Infinity, -Infinity]), type);
      const output = new Tensor(gpu, type, [1, 1, 2, 4]);
      const recorder = new Batch(gpu);
      recordAttention(recorder, compiled, {
        // Scores of 4 · 60000 · 60000 / 2, beyond f16 and e^88; the first key wins, or all are hidden.
        query: tensor(Array.from({ length: 8 }, () => 60000)),
        key: tensor([60000, 60000, 60000, 60000, 1, 1, 1, 1]),
        value: tensor([60000, -60000, 1, 2, 0, 0, 3, 4]),
        ...masked ? { mask: Tensor.from(gpu, hidden, [1, 1, 2, 2]) } : {},
        output,
      }, { batch: 1, heads: 1, queries: 2, keys: 2 });
      recorder.submit();
      assert.deepEqual(
        Array.from(await output.readFloats()),
        [60000, -60000, 1, 2, ...masked ? [30000, -30000, 2, 3] : [60000, -60000, 1, 2]],
        `${variant} ${type}`,
      );
    }
  }
});

Deno.test("compileAttention() and recordAttention() refuse what does not fit", async () => {
  const gpu = await sharedGpu();
  for (const headSize of [0, 6, 132, NaN]) {
    await assert.rejects(compileAttention(gpu, { headSize }), RangeError);
  }
  const compiled = await compileAttention(gpu, { headSize: 8 });
  const tensor = (...shape: number[]) => new Tensor(gpu, "f32", shape);
  const good = {
    query: tensor(1, 2, 5, 8),
    key: tensor(1, 2, 7, 8),
    value: tensor(1, 2, 7, 8),
    output: tensor(1, 2, 5, 8),
  };
  const sizes = { batch: 1, heads: 2, queries: 5, keys: 7 };
  const batch = new Batch(gpu);
  recordAttention(batch, compiled, good, sizes);
  for (
    const wrong of [
      { query: tensor(1, 2, 4, 8) },
      { key: tensor(1, 2, 6, 8) },
      { value: new Tensor(gpu, "i32", [1, 2, 7, 8]) },
      { output: tensor(1, 1, 5, 8) },
      { mask: tensor(1, 1, 5, 7) },
    ]
  ) {
    assert.throws(() => recordAttention(batch, compiled, { ...good, ...wrong }, sizes), RangeError);
  }
  for (
    const wrong of [
      { heads: 3 },
      { keyHeads: 3 },
      { layouts: { query: { offset: 2, batch: 80, head: 40, row: 8 } } },
      { layouts: { value: { offset: 4, batch: 112, head: 56, row: 8 } } },
    ]
  ) {
    assert.throws(() => recordAttention(batch, compiled, good, { ...sizes, ...wrong }), RangeError);
  }
  const masked = await compileAttention(gpu, { headSize: 8, mask: true });
  for (const shape of [[1, 1, 5, 6], [2, 1, 5, 7], [5, 7]]) {
    const mask = tensor(...shape);
    assert.throws(() => recordAttention(batch, masked, { ...good, mask }, sizes), RangeError);
  }
});
