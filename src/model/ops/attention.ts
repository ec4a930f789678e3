/** Attention and what goes with it (ONNX Attention-25, RotaryEmbedding-23, TensorScatter-24). */

import { type DataType, elementCount, type HostTensor, numbersOf } from "../host_tensor.ts";
import { broadcastTo } from "./indexing.ts";
import { define, type NodeReader, type Operator } from "./operator.ts";

/** Sizes of an Attention node; heads of keys may be shared by several of queries. */
export interface AttentionShape {
  readonly batch: number;
  readonly heads: number;
  readonly keyHeads: number;
  readonly queries: number;
  /** Those that are given, without the past's. */
  readonly keys: number;
  readonly past: number;
  readonly headSize: number;
  readonly valueSize: number;
  /** Whether heads lie within the last axis: [N, L, heads · size], not [N, heads, L, size]. */
  readonly flat: boolean;
}

/** Source: ONNX Attention-25. @throws {ModelError} where its inputs do not fit. */
export function attentionShape(node: NodeReader): AttentionShape {
  const [q, k, v] = [node.shape(0), node.shape(1), node.shape(2)];
  const fail = () => {
    const all = [q, k, v].map((s) => `[${s.join(", ")}]`).join(", ");
    return node.fail(`queries, keys and values ${all}`);
  };
  const flat = q.length === 3;
  const rank = flat ? 3 : 4;
  if ([q, k, v].some((s) => s.length !== rank || s[0] !== q[0])) throw fail();
  const heads = flat ? node.number("q_num_heads", 0) : q[1]!;
  const keyHeads = flat ? node.number("kv_num_heads", 0) : k[1]!;
  if (!(heads >= 1 && keyHeads >= 1) || heads % keyHeads !== 0) throw fail();
  const sizeOf = (s: readonly number[], n: number) => flat ? s[2]! / n : s[3]!;
  const past = node.inputs[4] === undefined ? 0 : node.shape(4)[2] ?? 0;
  const shape = {
    batch: q[0]!,
    heads,
    keyHeads,
    queries: q.at(-2)!,
    keys: k.at(-2)!,
    past,
    headSize: sizeOf(q, heads),
    valueSize: sizeOf(v, keyHeads),
    flat,
  };
  const fits = Number.isInteger(shape.headSize) && Number.isInteger(shape.valueSize) &&
    sizeOf(k, keyHeads) === shape.headSize && v.at(-2) === shape.keys &&
    (flat || v[1] === keyHeads);
  if (!fits) throw fail();
  if ((node.inputs[4] === undefined) !== (node.inputs[5] === undefined)) {
    throw node.fail("only one of the past's keys and values is given");
  }
  for (const [at, size] of [[4, shape.headSize], [5, shape.valueSize]] as const) {
    const expected = [shape.batch, keyHeads, past, size];
    if (node.inputs[at] !== undefined && node.shape(at).join() !== expected.join()) {
      throw node.fail(`a past of shape [${node.shape(at).join(", ")}]`);
    }
  }
  return shape;
}

/** Elements as [N, heads, L, size]. */
function byHead(
  x: HostTensor,
  flat: boolean,
  heads: number,
  past?: HostTensor,
): { data: Float64Array; length: number; size: number } {
  const values = numbersOf(x);
  const [batch, own] = [x.shape[0]!, x.shape.at(-2)!];
  const size = flat ? x.shape[2]! / heads : x.shape[3]!;
  const before = past === undefined ? 0 : past.shape[2]!;
  const earlier = past && numbersOf(past);
  const length = own + before;
  const data = new Float64Array(batch * heads * length * size);
  for (let n = 0; n < batch; n++) {
    for (let h = 0; h < heads; h++) {
      for (let l = 0; l < length; l++) {
        const to = ((n * heads + h) * length + l) * size;
        for (let i = 0; i < size; i++) {
          if (l < before) data[to + i] = earlier![((n * heads + h) * before + l) * size + i]!;
          else {
            const at = flat
              ? ((n * own + l - before) * heads + h) * size
              : ((n * heads + h) * own + l - before) * size;
            data[to + i] = values[at + i]!;
          }
        }
      }
    }
  }
  return { data, length, size };
}

/** What is added to the products: −∞ where a key must not be seen. */
function attentionBias(
  node: NodeReader,
  shape: AttentionShape,
  mask: HostTensor | undefined,
  seen: HostTensor | undefined,
): Float64Array {
  const { batch, heads, queries, past } = shape;
  const total = shape.keys + past;
  const bias = new Float64Array(batch * heads * queries * total);
  if (mask !== undefined) {
    // A mask that is too short hides the keys behind it.
    const short = mask.shape.at(-1)!;
    const broad = numbersOf(broadcastTo(mask, [batch, heads, queries, short]));
    const bool = mask.type === "bool";
    for (let i = 0; i < bias.length; i++) {
      const [row, column] = [Math.floor(i / total), i % total];
      if (column >= short) bias[i] = -Infinity;
      else {
        const v = broad[row * short + column]!;
        bias[i] = bool ? (v ? 0 : -Infinity) : v;
      }
    }
  }
  const causal = node.number("is_causal", 0) === 1;
  const left = node.number("left_window_size", -1);
  const right = node.number("right_window_size", -1);
  const lengths = seen && numbersOf(seen);
  for (let i = 0; i < bias.length; i++) {
    const key = i % total;
    const query = Math.floor(i / total) % queries;
    const n = Math.floor(i / total / queries / heads);
    const offset = past > 0 || lengths === undefined ? past : lengths[n]! - queries;
    const place = query + offset;
    const hidden = (causal && key > place) || (left >= 0 && place - key > left) ||
      (right >= 0 && key - place > right) || (lengths !== undefined && key >= lengths[n]!);
    if (hidden) bias[i] = -Infinity;
  }
  return bias;
}

function attend(node: NodeReader, inputs: readonly HostTensor[]): Float64Array[] {
  const shape = attentionShape(node);
  const { batch, heads, keyHeads, queries, flat } = shape;
  const q = byHead(inputs[0]!, flat, heads);
  const k = byHead(inputs[1]!, flat, keyHeads, inputs[4]);
  const v = byHead(inputs[2]!, flat, keyHeads, inputs[5]);
  const total = k.length;
  const bias = attentionBias(node, shape, inputs[3], inputs[6]);
  const scale = node.number("scale", 1 / Math.sqrt(shape.headSize));
  const cap = node.number("softcap", 0);
  const mode = node.number("qk_matmul_output_mode", 0);
  const shown = new Float64Array(bias.length);
  const y = new Float64Array(batch * heads * queries * v.size);
  const row = new Float64Array(total);
  for (let n = 0; n < batch; n++) {
    for (let h = 0; h < heads; h++) {
      const shared = n * keyHeads + Math.floor(h / (heads / keyHeads));
      for (let i = 0; i < queries; i++) {
        const at = ((n * heads + h) * queries + i) * total;
        const from = ((n * heads + h) * queries + i) * q.size;
        let most = -Infinity;
        for (let j = 0; j < total; j++) {
          let sum = 0;
          const key = (shared * total + j) * k.size;
          for (let c = 0; c < q.size; c++) sum += q.data[from + c]! * k.data[key + c]!;
          sum *= scale;
          if (mode === 0) shown[at + j] = sum;
          if (cap > 0) sum = cap * Math.tanh(sum / cap);
          if (mode === 1) shown[at + j] = sum;
          // −∞ hides even what is infinite itself.
          sum = bias[at + j] === -Infinity ? -Infinity : sum + bias[at + j]!;
          if (mode === 2) shown[at + j] = sum;
          row[j] = sum;
          most = Math.max(most, sum);
        }
        let sum = 0;
        for (let j = 0; j < total; j++) {
          // A query that sees no key attends to nothing.
          sum += row[j] = most === -Infinity ? 0 : Math.exp(row[j]! - most);
        }
        const to = flat
          ? ((n * queries + i) * heads + h) * v.size
          : ((n * heads + h) * queries + i) * v.size;
        for (let j = 0; j < total; j++) {
          const weight = sum === 0 ? 0 : row[j]! / sum;
          if (mode === 3) shown[at + j] = weight;
          if (weight === 0) continue;
          const value = (shared * total + j) * v.size;
          for (let c = 0; c < v.size; c++) y[to + c]! += weight * v.data[value + c]!;
        }
      }
    }
  }
  return [y, k.data, v.data, shown];
}

/** Sizes of a RotaryEmbedding node's input as [N, L, heads, size]. */
function rotaryShape(node: NodeReader) {
  const x = node.shape(0);
  const flat = x.length === 3;
  const heads = flat ? node.number("num_heads", 0) : x[1]!;
  const size = flat ? x[2]! / heads : x[3]!;
  const rotated = node.number("rotary_embedding_dim", 0) || size;
  const fits = (flat || x.length === 4) && heads >= 1 && Number.isInteger(size) &&
    rotated % 2 === 0 && rotated <= size;
  if (!fits) throw node.fail(`${heads} heads of [${x.join(", ")}]`);
  const half = rotated / 2;
  if (node.shape(1).at(-1) !== half || node.shape(2).at(-1) !== half) {
    throw node.fail(`caches of ${node.shape(1).at(-1)} and ${node.shape(2).at(-1)} for ${half}`);
  }
  return { batch: x[0]!, length: x.at(-2)!, heads, size, half, flat };
}

export const attention: Readonly<Record<string, Operator>> = {
  Attention: define({
    inputs: [3, 7],
    outputs: 4,
    attributes: "is_causal kv_num_heads left_window_size q_num_heads qk_matmul_output_mode " +
      "right_window_size scale softcap softmax_precision",
    heavy: true,
    floats: true,
    types: (node) => {
      const { type } = node.input(0);
      const value: DataType = node.input(2).type;
      return [type, node.input(1).type, value, type];
    },
    shapes: (node) => {
      const s = attentionShape(node);
      const total = s.keys + s.past;
      return [
        s.flat
          ? [s.batch, s.queries, s.heads * s.valueSize]
          : [s.batch, s.heads, s.queries, s.valueSize],
        [s.batch, s.keyHeads, total, s.headSize],
        [s.batch, s.keyHeads, total, s.valueSize],
        [s.batch, s.heads, s.queries, total],
      ];
    },
    compute: (node, inputs) => attend(node, inputs),
  }),
  RotaryEmbedding: define({
    inputs: [3, 4],
    attributes: "interleaved num_heads rotary_embedding_dim",
    floats: true,
    shapes: (node) => {
      rotaryShape(node);
      return [node.shape(0)];
    },
    compute: (node, [x, cosines, sines, positions]) => {
      const { batch, length, heads, size, half, flat } = rotaryShape(node);
      const interleaved = node.number("interleaved", 0) === 1;
      const [values, cos, sin] = [numbersOf(x!), numbersOf(cosines!), numbersOf(sines!)];
      const places = positions && numbersOf(positions);
      const y = Float64Array.from(values);
      for (let n = 0; n < batch; n++) {
        for (let l = 0; l < length; l++) {
          const angle = (places === undefined ? n * length + l : places[n * length + l]!) * half;
          for (let h = 0; h < heads; h++) {
            const at = flat
              ? ((n * length + l) * heads + h) * size
              : ((n * heads + h) * length + l) * size;
            for (let i = 0; i < half; i++) {
              const first = at + (interleaved ? 2 * i : i);
              const second = first + (interleaved ? 1 : half);
              const [c, s] = [cos[angle + i]!, sin[angle + i]!];
              y[first] = c * values[first]! - s * values[second]!;
              y[second] = s * values[first]! + c * values[second]!;
            }
          }
        }
      }
      return [y];
    },
  }),
  TensorScatter: define({
    inputs: [2, 3],
    attributes: "axis mode",
    shapes: (node) => {
      const [cache, update] = [node.shape(0), node.shape(1)];
      const axis = node.axis(node.number("axis", -2), cache.length);
      const fits = update.length === cache.length && axis > 0 &&
        cache.every((d, i) => i === axis ? update[i]! <= d : update[i] === d);
      if (!fits) throw node.fail(`[${update.join(", ")}] into [${cache.join(", ")}]`);
      return [cache];
    },
    compute: (node, [cache, update, indices]) => {
      const { shape } = cache!;
      const axis = node.axis(node.number("axis", -2), shape.length);
      const circular = node.text("mode", "linear") === "circular";
      const inner = elementCount(shape.slice(axis + 1));
      const perBatch = elementCount(shape.slice(1, axis));
      const [length, added] = [shape[axis]!, update!.shape[axis]!];
      const data = cache!.data.slice();
      for (let o = 0; o < shape[0]! * perBatch; o++) {
        const start = indices === undefined ? 0 : Number(indices.data[Math.floor(o / perBatch)]);
        for (let l = 0; l < added; l++) {
          const place = circular ? (start + l) % length : start + l;
          if (!(place >= 0 && place < length)) throw node.fail(`index ${place} of ${length}`);
          for (let i = 0; i < inner; i++) {
            data[(o * length + place) * inner + i] = update!.data[(o * added + l) * inner + i]!;
          }
        }
      }
      return [{ type: cache!.type, shape, data }];
    },
  }),
};
