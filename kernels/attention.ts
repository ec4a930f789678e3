/**
 * Scaled dot-product attention, softmax(scale · q·kᵀ + mask) · v of each head, without the scores ever
 * in memory (Vaswani et al. 2017; Dao et al. 2022): ONNX Attention-23's computation, and that of
 * vision transformers' MatMul, Softmax, MatMul.
 */

import code from "./attention.wgsl" with { type: "text" };
import codeSubgroup8 from "./attention_subgroup8.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import {
  defineKernel,
  type KernelLiteral,
  type Pipeline,
  type Recorder,
  rowOfWorkgroups,
} from "./kernel.ts";
import type { Tensor } from "./tensor.ts";

const params = {
  queries: "u32",
  keys: "u32",
  head4: "u32",
  heads: "u32",
  sharing: "u32",
  count: "u32",
  query_at: "u32",
  query_batch: "u32",
  query_head: "u32",
  query_row: "u32",
  key_at: "u32",
  key_batch: "u32",
  key_head: "u32",
  key_row: "u32",
  value_at: "u32",
  value_batch: "u32",
  value_head: "u32",
  value_row: "u32",
  output_at: "u32",
  output_batch: "u32",
  output_head: "u32",
  output_row: "u32",
  mask_batch: "u32",
  mask_head: "u32",
  mask_row: "u32",
  causal: "u32",
  scale: "f32",
} as const;
const bindings = {
  query: { type: "array<vec4<Element>>", access: "read" },
  key: { type: "array<vec4<Element>>", access: "read" },
  value: { type: "array<vec4<Element>>", access: "read" },
  mask: { type: "array<Element>", access: "read" },
  output: { type: "array<vec4<Element>>", access: "read_write" },
} as const;

/** Through workgroup memory; runs everywhere. */
export const attentionKernel = defineKernel({
  name: "attention",
  code,
  params,
  bindings,
  overrides: { MASK: false, CHUNKS: 4 },
  aliases: { Element: ["f32", "f16"] },
});

/** For subgroups of eight lanes, which are AVX registers: lavapipe. */
export const attentionSubgroup8Kernel = defineKernel({
  name: "attention_subgroup8",
  code: codeSubgroup8,
  params,
  bindings,
  overrides: { MASK: false, CHUNKS: 4 },
  aliases: { Element: ["f32", "f16"] },
  features: ["subgroups"],
});

/** Which of the kernels. */
export type AttentionVariant = "tiled" | "subgroup8";

export interface AttentionOptions {
  /** D, of query, key and value: a multiple of four, at most 128. */
  readonly headSize: number;
  readonly type?: "f32" | "f16";
  /** Whether a mask is added to the scores. */
  readonly mask?: boolean;
  /** By default as suits the adapter. */
  readonly variant?: AttentionVariant;
}

/** A kernel that was compiled, with what it was compiled for. */
export interface CompiledAttention {
  readonly pipeline: Pipeline<
    KernelLiteral & { params: typeof params; bindings: typeof bindings }
  >;
  readonly headSize: number;
  readonly type: "f32" | "f16";
  readonly mask: boolean;
  readonly variant: AttentionVariant;
}

/**
 * Compiles for heads of one size.
 * @throws {RangeError} for a size that is no multiple of four, or above 128.
 * @throws {KernelError} where the device fails or lacks what the variant needs.
 */
export async function compileAttention(
  gpu: Gpu,
  { headSize, type = "f32", mask = false, variant }: AttentionOptions,
): Promise<CompiledAttention> {
  if (!(headSize >= 4 && headSize <= 128) || headSize % 4 !== 0) {
    throw new RangeError(
      `Cannot attend with heads of ${headSize}: a multiple of four is needed, at most 128`,
    );
  }
  variant ??= gpu.subgroupSize === 8 && gpu.adapter.isSoftware ? "subgroup8" : "tiled";
  const kernel = variant === "subgroup8" ? attentionSubgroup8Kernel : attentionKernel;
  const pipeline = await (kernel as typeof attentionKernel).compile(
    gpu,
    { MASK: mask, CHUNKS: Math.ceil(headSize / 32) },
    { Element: type },
  );
  return { pipeline, headSize, type, mask, variant };
}

/** Where a head's rows of D lie in a tensor: the first element, and strides, in elements. */
export interface HeadLayout {
  readonly offset: number;
  readonly batch: number;
  readonly head: number;
  readonly row: number;
}

/** The layout of [B, heads, T, D]. */
export function headsFirst([, heads, rows, size]: readonly [number, number, number, number]) {
  return { offset: 0, batch: heads * rows * size, head: rows * size, row: size };
}

/**
 * The layout of part `part` of [B, T, parts, heads, D]: query, key and value of a projection that
 * makes all three are parts 0, 1 and 2 of 3; [B, T, heads, D] is part 0 of 1.
 */
export function tokensFirst(
  [, rows, parts, heads, size]: readonly [number, number, number, number, number],
  part = 0,
): HeadLayout {
  const row = parts * heads * size;
  return { offset: part * heads * size, batch: rows * row, head: size, row };
}

export interface AttentionAttributes {
  readonly batch: number;
  /** Heads of query. */
  readonly heads: number;
  /** Heads of key and value, each shared by heads / keyHeads neighbours; default `heads`. */
  readonly keyHeads?: number;
  /** Rows of query and output. */
  readonly queries: number;
  /** Rows of key and value. */
  readonly keys: number;
  /** Default [B, heads, T, D] for each. */
  readonly layouts?: {
    readonly query?: HeadLayout;
    readonly key?: HeadLayout;
    readonly value?: HeadLayout;
    readonly output?: HeadLayout;
  };
  /** Default 1/√D. */
  readonly scale?: number;
  /** Query t sees keys 0 to t only. */
  readonly causal?: boolean;
}

/**
 * Records `output = softmax(scale · query · keyᵀ + mask) · value` of each head, all of the compiled
 * type; query, key and value may be one tensor. `mask` is [B or 1, heads or 1, queries or 1, keys];
 * −∞ in it is taken for −10³⁸, so that a query that may see nothing sees all alike. Without keys the
 * output is 0.
 * @throws {RangeError} where sizes, layouts and tensors do not fit together.
 */
export function recordAttention(
  recorder: Recorder,
  compiled: CompiledAttention,
  { query, key, value, mask, output }: {
    readonly query: Tensor;
    readonly key: Tensor;
    readonly value: Tensor;
    readonly mask?: Tensor;
    readonly output: Tensor;
  },
  attributes: AttentionAttributes,
): void {
  const { headSize, type, pipeline, variant } = compiled;
  const { batch, heads, keyHeads = heads, queries, keys, layouts = {}, causal = false } =
    attributes;
  const { scale = 1 / Math.sqrt(headSize) } = attributes;
  const own = headsFirst([batch, heads, queries, headSize]);
  const others = headsFirst([batch, keyHeads, keys, headSize]);
  const places = {
    query: layouts.query ?? own,
    key: layouts.key ?? others,
    value: layouts.value ?? others,
    output: layouts.output ?? own,
  };
  const fits = (tensor: Tensor, place: HeadLayout, heads: number, rows: number) => {
    const values = [place.offset, place.batch, place.head, place.row];
    const count = tensor.shape.reduce((a, b) => a * b, 1);
    const end = place.offset + (batch - 1) * place.batch + (heads - 1) * place.head +
      (rows - 1) * place.row + headSize;
    return tensor.type === type &&
      values.every((v) => Number.isSafeInteger(v) && v >= 0 && v % 4 === 0) &&
      (batch * heads * rows === 0 || end <= count);
  };
  const [maskBatch = 0, maskHeads = 0, maskRows = 0, maskKeys] = mask?.shape ?? [];
  const oneOr = (size: number, all: number) => size === 1 || size === all;
  if (
    heads % keyHeads !== 0 || !fits(query, places.query, heads, queries) ||
    !fits(key, places.key, keyHeads, keys) || !fits(value, places.value, keyHeads, keys) ||
    !fits(output, places.output, heads, queries) || (mask !== undefined) !== compiled.mask ||
    (mask !== undefined &&
      (mask.type !== type || mask.shape.length !== 4 || maskKeys !== keys ||
        !oneOr(maskBatch, batch) || !oneOr(maskHeads, heads) || !oneOr(maskRows, queries)))
  ) {
    const shapes = Object.entries({ query, key, value, mask, output })
      .map(([name, tensor]) =>
        `${name} ${tensor === undefined ? "none" : `${tensor.type} [${tensor.shape.join(", ")}]`}`
      );
    throw new RangeError(
      `Cannot attend to ${batch} × ${keyHeads} × ${keys} keys of ${headSize} by ${batch} × ` +
        `${heads} × ${queries} queries: ${shapes.join(", ")}; ${type} is compiled, ` +
        `${compiled.mask ? "with" : "without"} mask, and layouts are multiples of four within ` +
        `the tensors`,
    );
  }
  const rows = variant === "subgroup8" ? 16 : 64;
  recorder.dispatch(pipeline, {
    params: {
      queries,
      keys,
      head4: headSize / 4,
      heads,
      sharing: heads / keyHeads,
      count: batch * heads,
      query_at: places.query.offset / 4,
      query_batch: places.query.batch / 4,
      query_head: places.query.head / 4,
      query_row: places.query.row / 4,
      key_at: places.key.offset / 4,
      key_batch: places.key.batch / 4,
      key_head: places.key.head / 4,
      key_row: places.key.row / 4,
      value_at: places.value.offset / 4,
      value_batch: places.value.batch / 4,
      value_head: places.value.head / 4,
      value_row: places.value.row / 4,
      output_at: places.output.offset / 4,
      output_batch: places.output.batch / 4,
      output_head: places.output.head / 4,
      output_row: places.output.row / 4,
      mask_batch: maskBatch > 1 ? maskHeads * maskRows * keys : 0,
      mask_head: maskHeads > 1 ? maskRows * keys : 0,
      mask_row: maskRows > 1 ? keys : 0,
      causal: Number(causal),
      scale,
    },
    bindings: { query, key, value, mask: mask ?? query, output },
  }, [Math.ceil(queries / rows), ...rowOfWorkgroups(recorder.gpu, batch * heads)]);
}
