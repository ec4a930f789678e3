// output[b, h, t, d] = Σ_u p[t, u] · value[b, h, u, d] / Σ_u p[t, u]
// p[t, u] = exp(s[t, u] − max_u s[t, u])
// s[t, u] = scale · Σ_d query[b, h, t, d] · key[b, h, u, d] + mask[b, h, t, u]
//
// for adapters whose subgroups have eight lanes (lavapipe)
//
// query, key, value, output  [B, heads, T, D]  f32 or f16, at any strides of multiples of four, so
//                            that [B, T, 3, heads, D] needs no transposition; f16 saturates
// mask                       [B or 1, heads or 1, T or 1, keys]  the same type, with MASK
//
// A subgroup, which is a workgroup, takes 16 queries of one head, and goes through the keys by 32
// (online softmax: Milakov & Gimelshein 2018): whenever a new maximum comes, what was summed so far
// is scaled down. A lane has every eighth of 32 keys, and every eighth of the D / 4 vectors of
// output; queries, and p when it meets the values, are handed around by broadcasts and shuffles of
// one lane for all, each an instruction there, where workgroup memory costs many. Everything is in
// f32.

enable subgroups;

alias Element = f32;

struct Params {
  queries: u32,
  keys: u32,
  head4: u32, // D / 4
  heads: u32,
  sharing: u32, // heads of query that share one of key and value
  count: u32, // B · heads
  query_at: u32, // where the first element lies, and strides: all in vec4s
  query_batch: u32,
  query_head: u32,
  query_row: u32,
  key_at: u32,
  key_batch: u32,
  key_head: u32,
  key_row: u32,
  value_at: u32,
  value_batch: u32,
  value_head: u32,
  value_row: u32,
  output_at: u32,
  output_batch: u32,
  output_head: u32,
  output_row: u32,
  mask_batch: u32, // in elements; 0 where the mask is the same for all
  mask_head: u32,
  mask_row: u32,
  causal: u32, // 1: a query sees the keys up to its own number
  scale: f32,
}

override MASK: bool = false;
override CHUNKS: u32 = 4; // D / 32, rounded up; at most 4

// Element's largest number: f16 does not keep 0.1 to f32's digits.
const LARGEST = select(3.4028234e38f, 65504.0f, f32(Element(0.1)) != 0.1f);
// Less than any score: masks of −∞ are raised to it, so that differences of two stay finite.
const LOWEST = -1e38;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> query: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> key: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read> value: array<vec4<Element>>;
@group(0) @binding(4) var<storage, read> mask: array<Element>;
@group(0) @binding(5) var<storage, read_write> output: array<vec4<Element>>;

fn largest(v: vec4f) -> f32 {
  return subgroupMax(max(max(v.x, v.y), max(v.z, v.w)));
}

fn seen_by(row: u32, keys: vec4u) -> vec4<bool> {
  let end = select(params.keys, min(params.keys, row + 1u), params.causal != 0u);
  return keys < vec4u(end);
}

// Scores of a query, masked: those that it may not see are LOWEST and have no weight.
fn masked(dots: vec4f, seen: vec4<bool>, mask_at: u32, keys: vec4u) -> vec4f {
  var s = dots * params.scale;
  if (MASK) {
    let at = vec4u(mask_at) + min(keys, vec4u(params.keys - 1u));
    s += vec4f(vec4<Element>(mask[at.x], mask[at.y], mask[at.z], mask[at.w]));
  }
  return select(vec4f(LOWEST), max(s, vec4f(LOWEST)), seen);
}

// Four keys' values at one vector, `rows` where they begin.
fn values(rows: vec4u, vector: u32) -> mat4x4f {
  return mat4x4f(
    vec4f(value[rows.x + vector]),
    vec4f(value[rows.y + vector]),
    vec4f(value[rows.z + vector]),
    vec4f(value[rows.w + vector]),
  );
}

fn store(at: u32, row: u32, vector: u32, sum: vec4f, weight: f32) {
  if (row < params.queries && vector < params.head4) {
    let v = sum / max(weight, 1e-30);
    output[at + row * params.output_row + vector] =
      vec4<Element>(clamp(v, vec4f(-LARGEST), vec4f(LARGEST)));
  }
}

@compute @workgroup_size(8)
fn attention_subgroup8(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let place = group.y + group.z * grid.y;
  if (place >= params.count) {
    return;
  }
  let batch = place / params.heads;
  let head = place % params.heads;
  let key_head = head / params.sharing;
  let query_at = params.query_at + batch * params.query_batch + head * params.query_head;
  let key_at = params.key_at + batch * params.key_batch + key_head * params.key_head;
  let value_at = params.value_at + batch * params.value_batch + key_head * params.value_head;
  let output_at = params.output_at + batch * params.output_batch + head * params.output_head;
  let mask_at = batch * params.mask_batch + head * params.mask_head;
  // Rows, keys and vectors past the end read the last ones again; weights and stores leave them out.
  let row0 = 16u * group.x;
  let last = params.queries - 1u;
  let last_key = params.keys - 1u;
  let a_at = query_at + min(row0 + lane, last) * params.query_row;
  let b_at = query_at + min(row0 + 8u + lane, last) * params.query_row;
  let vectors = min(vec4u(lane) + vec4u(0u, 8u, 16u, 24u), vec4u(params.head4 - 1u));
  var m0 = LOWEST; // largest score so far
  var m1 = LOWEST;
  var m2 = LOWEST;
  var m3 = LOWEST;
  var m4 = LOWEST;
  var m5 = LOWEST;
  var m6 = LOWEST;
  var m7 = LOWEST;
  var m8 = LOWEST;
  var m9 = LOWEST;
  var m10 = LOWEST;
  var m11 = LOWEST;
  var m12 = LOWEST;
  var m13 = LOWEST;
  var m14 = LOWEST;
  var m15 = LOWEST;
  var l0 = 0.0; // Σ p of this lane’s keys
  var l1 = 0.0;
  var l2 = 0.0;
  var l3 = 0.0;
  var l4 = 0.0;
  var l5 = 0.0;
  var l6 = 0.0;
  var l7 = 0.0;
  var l8 = 0.0;
  var l9 = 0.0;
  var l10 = 0.0;
  var l11 = 0.0;
  var l12 = 0.0;
  var l13 = 0.0;
  var l14 = 0.0;
  var l15 = 0.0;
  // Output at the vectors lane, lane + 8, + 16 and + 24.
  var e0 = vec4f();
  var f0 = vec4f();
  var g0 = vec4f();
  var h0 = vec4f();
  var e1 = vec4f();
  var f1 = vec4f();
  var g1 = vec4f();
  var h1 = vec4f();
  var e2 = vec4f();
  var f2 = vec4f();
  var g2 = vec4f();
  var h2 = vec4f();
  var e3 = vec4f();
  var f3 = vec4f();
  var g3 = vec4f();
  var h3 = vec4f();
  var e4 = vec4f();
  var f4 = vec4f();
  var g4 = vec4f();
  var h4 = vec4f();
  var e5 = vec4f();
  var f5 = vec4f();
  var g5 = vec4f();
  var h5 = vec4f();
  var e6 = vec4f();
  var f6 = vec4f();
  var g6 = vec4f();
  var h6 = vec4f();
  var e7 = vec4f();
  var f7 = vec4f();
  var g7 = vec4f();
  var h7 = vec4f();
  var e8 = vec4f();
  var f8 = vec4f();
  var g8 = vec4f();
  var h8 = vec4f();
  var e9 = vec4f();
  var f9 = vec4f();
  var g9 = vec4f();
  var h9 = vec4f();
  var e10 = vec4f();
  var f10 = vec4f();
  var g10 = vec4f();
  var h10 = vec4f();
  var e11 = vec4f();
  var f11 = vec4f();
  var g11 = vec4f();
  var h11 = vec4f();
  var e12 = vec4f();
  var f12 = vec4f();
  var g12 = vec4f();
  var h12 = vec4f();
  var e13 = vec4f();
  var f13 = vec4f();
  var g13 = vec4f();
  var h13 = vec4f();
  var e14 = vec4f();
  var f14 = vec4f();
  var g14 = vec4f();
  var h14 = vec4f();
  var e15 = vec4f();
  var f15 = vec4f();
  var g15 = vec4f();
  var h15 = vec4f();
  let end = select(params.keys, min(params.keys, row0 + 16u), params.causal != 0u);
  for (var key0 = 0u; key0 < end; key0 += 32u) {
    let keys = vec4u(key0 + lane) + vec4u(0u, 8u, 16u, 24u);
    let keys_at = vec4u(key_at) + min(keys, vec4u(last_key)) * params.key_row;
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    var s4 = vec4f();
    var s5 = vec4f();
    var s6 = vec4f();
    var s7 = vec4f();
    var s8 = vec4f();
    var s9 = vec4f();
    var s10 = vec4f();
    var s11 = vec4f();
    var s12 = vec4f();
    var s13 = vec4f();
    var s14 = vec4f();
    var s15 = vec4f();
    for (var d = 0u; d < params.head4; d++) {
      let k = transpose(mat4x4f(
        vec4f(key[keys_at.x + d]),
        vec4f(key[keys_at.y + d]),
        vec4f(key[keys_at.z + d]),
        vec4f(key[keys_at.w + d]),
      ));
      let a = vec4f(query[a_at + d]);
      let b = vec4f(query[b_at + d]);
      s0 += k * subgroupBroadcast(a, 0u);
      s1 += k * subgroupBroadcast(a, 1u);
      s2 += k * subgroupBroadcast(a, 2u);
      s3 += k * subgroupBroadcast(a, 3u);
      s4 += k * subgroupBroadcast(a, 4u);
      s5 += k * subgroupBroadcast(a, 5u);
      s6 += k * subgroupBroadcast(a, 6u);
      s7 += k * subgroupBroadcast(a, 7u);
      s8 += k * subgroupBroadcast(b, 0u);
      s9 += k * subgroupBroadcast(b, 1u);
      s10 += k * subgroupBroadcast(b, 2u);
      s11 += k * subgroupBroadcast(b, 3u);
      s12 += k * subgroupBroadcast(b, 4u);
      s13 += k * subgroupBroadcast(b, 5u);
      s14 += k * subgroupBroadcast(b, 6u);
      s15 += k * subgroupBroadcast(b, 7u);
    }
    let seen0 = seen_by(row0 + 0u, keys);
    s0 = masked(s0, seen0, mask_at + min(row0 + 0u, last) * params.mask_row, keys);
    let n0 = max(m0, largest(s0));
    let down0 = exp(m0 - n0);
    let p0 = select(vec4f(), exp(s0 - n0), seen0);
    m0 = n0;
    l0 = l0 * down0 + dot(p0, vec4f(1.0));
    e0 *= down0;
    f0 *= down0;
    let seen1 = seen_by(row0 + 1u, keys);
    s1 = masked(s1, seen1, mask_at + min(row0 + 1u, last) * params.mask_row, keys);
    let n1 = max(m1, largest(s1));
    let down1 = exp(m1 - n1);
    let p1 = select(vec4f(), exp(s1 - n1), seen1);
    m1 = n1;
    l1 = l1 * down1 + dot(p1, vec4f(1.0));
    e1 *= down1;
    f1 *= down1;
    let seen2 = seen_by(row0 + 2u, keys);
    s2 = masked(s2, seen2, mask_at + min(row0 + 2u, last) * params.mask_row, keys);
    let n2 = max(m2, largest(s2));
    let down2 = exp(m2 - n2);
    let p2 = select(vec4f(), exp(s2 - n2), seen2);
    m2 = n2;
    l2 = l2 * down2 + dot(p2, vec4f(1.0));
    e2 *= down2;
    f2 *= down2;
    let seen3 = seen_by(row0 + 3u, keys);
    s3 = masked(s3, seen3, mask_at + min(row0 + 3u, last) * params.mask_row, keys);
    let n3 = max(m3, largest(s3));
    let down3 = exp(m3 - n3);
    let p3 = select(vec4f(), exp(s3 - n3), seen3);
    m3 = n3;
    l3 = l3 * down3 + dot(p3, vec4f(1.0));
    e3 *= down3;
    f3 *= down3;
    let seen4 = seen_by(row0 + 4u, keys);
    s4 = masked(s4, seen4, mask_at + min(row0 + 4u, last) * params.mask_row, keys);
    let n4 = max(m4, largest(s4));
    let down4 = exp(m4 - n4);
    let p4 = select(vec4f(), exp(s4 - n4), seen4);
    m4 = n4;
    l4 = l4 * down4 + dot(p4, vec4f(1.0));
    e4 *= down4;
    f4 *= down4;
    let seen5 = seen_by(row0 + 5u, keys);
    s5 = masked(s5, seen5, mask_at + min(row0 + 5u, last) * params.mask_row, keys);
    let n5 = max(m5, largest(s5));
    let down5 = exp(m5 - n5);
    let p5 = select(vec4f(), exp(s5 - n5), seen5);
    m5 = n5;
    l5 = l5 * down5 + dot(p5, vec4f(1.0));
    e5 *= down5;
    f5 *= down5;
    let seen6 = seen_by(row0 + 6u, keys);
    s6 = masked(s6, seen6, mask_at + min(row0 + 6u, last) * params.mask_row, keys);
    let n6 = max(m6, largest(s6));
    let down6 = exp(m6 - n6);
    let p6 = select(vec4f(), exp(s6 - n6), seen6);
    m6 = n6;
    l6 = l6 * down6 + dot(p6, vec4f(1.0));
    e6 *= down6;
    f6 *= down6;
    let seen7 = seen_by(row0 + 7u, keys);
    s7 = masked(s7, seen7, mask_at + min(row0 + 7u, last) * params.mask_row, keys);
    let n7 = max(m7, largest(s7));
    let down7 = exp(m7 - n7);
    let p7 = select(vec4f(), exp(s7 - n7), seen7);
    m7 = n7;
    l7 = l7 * down7 + dot(p7, vec4f(1.0));
    e7 *= down7;
    f7 *= down7;
    let seen8 = seen_by(row0 + 8u, keys);
    s8 = masked(s8, seen8, mask_at + min(row0 + 8u, last) * params.mask_row, keys);
    let n8 = max(m8, largest(s8));
    let down8 = exp(m8 - n8);
    let p8 = select(vec4f(), exp(s8 - n8), seen8);
    m8 = n8;
    l8 = l8 * down8 + dot(p8, vec4f(1.0));
    e8 *= down8;
    f8 *= down8;
    let seen9 = seen_by(row0 + 9u, keys);
    s9 = masked(s9, seen9, mask_at + min(row0 + 9u, last) * params.mask_row, keys);
    let n9 = max(m9, largest(s9));
    let down9 = exp(m9 - n9);
    let p9 = select(vec4f(), exp(s9 - n9), seen9);
    m9 = n9;
    l9 = l9 * down9 + dot(p9, vec4f(1.0));
    e9 *= down9;
    f9 *= down9;
    let seen10 = seen_by(row0 + 10u, keys);
    s10 = masked(s10, seen10, mask_at + min(row0 + 10u, last) * params.mask_row, keys);
    let n10 = max(m10, largest(s10));
    let down10 = exp(m10 - n10);
    let p10 = select(vec4f(), exp(s10 - n10), seen10);
    m10 = n10;
    l10 = l10 * down10 + dot(p10, vec4f(1.0));
    e10 *= down10;
    f10 *= down10;
    let seen11 = seen_by(row0 + 11u, keys);
    s11 = masked(s11, seen11, mask_at + min(row0 + 11u, last) * params.mask_row, keys);
    let n11 = max(m11, largest(s11));
    let down11 = exp(m11 - n11);
    let p11 = select(vec4f(), exp(s11 - n11), seen11);
    m11 = n11;
    l11 = l11 * down11 + dot(p11, vec4f(1.0));
    e11 *= down11;
    f11 *= down11;
    let seen12 = seen_by(row0 + 12u, keys);
    s12 = masked(s12, seen12, mask_at + min(row0 + 12u, last) * params.mask_row, keys);
    let n12 = max(m12, largest(s12));
    let down12 = exp(m12 - n12);
    let p12 = select(vec4f(), exp(s12 - n12), seen12);
    m12 = n12;
    l12 = l12 * down12 + dot(p12, vec4f(1.0));
    e12 *= down12;
    f12 *= down12;
    let seen13 = seen_by(row0 + 13u, keys);
    s13 = masked(s13, seen13, mask_at + min(row0 + 13u, last) * params.mask_row, keys);
    let n13 = max(m13, largest(s13));
    let down13 = exp(m13 - n13);
    let p13 = select(vec4f(), exp(s13 - n13), seen13);
    m13 = n13;
    l13 = l13 * down13 + dot(p13, vec4f(1.0));
    e13 *= down13;
    f13 *= down13;
    let seen14 = seen_by(row0 + 14u, keys);
    s14 = masked(s14, seen14, mask_at + min(row0 + 14u, last) * params.mask_row, keys);
    let n14 = max(m14, largest(s14));
    let down14 = exp(m14 - n14);
    let p14 = select(vec4f(), exp(s14 - n14), seen14);
    m14 = n14;
    l14 = l14 * down14 + dot(p14, vec4f(1.0));
    e14 *= down14;
    f14 *= down14;
    let seen15 = seen_by(row0 + 15u, keys);
    s15 = masked(s15, seen15, mask_at + min(row0 + 15u, last) * params.mask_row, keys);
    let n15 = max(m15, largest(s15));
    let down15 = exp(m15 - n15);
    let p15 = select(vec4f(), exp(s15 - n15), seen15);
    m15 = n15;
    l15 = l15 * down15 + dot(p15, vec4f(1.0));
    e15 *= down15;
    f15 *= down15;
    if (CHUNKS > 2u) {
      g0 *= down0;
      h0 *= down0;
      g1 *= down1;
      h1 *= down1;
      g2 *= down2;
      h2 *= down2;
      g3 *= down3;
      h3 *= down3;
      g4 *= down4;
      h4 *= down4;
      g5 *= down5;
      h5 *= down5;
      g6 *= down6;
      h6 *= down6;
      g7 *= down7;
      h7 *= down7;
      g8 *= down8;
      h8 *= down8;
      g9 *= down9;
      h9 *= down9;
      g10 *= down10;
      h10 *= down10;
      g11 *= down11;
      h11 *= down11;
      g12 *= down12;
      h12 *= down12;
      g13 *= down13;
      h13 *= down13;
      g14 *= down14;
      h14 *= down14;
      g15 *= down15;
      h15 *= down15;
    }
    for (var i = 0u; i < 8u; i++) {
      let rows = vec4u(value_at) +
        min(vec4u(key0 + i) + vec4u(0u, 8u, 16u, 24u), vec4u(last_key)) * params.value_row;
      let v = values(rows, vectors.x);
      let u = values(rows, vectors.y);
      let q0 = subgroupShuffle(p0, i);
      e0 += v * q0;
      f0 += u * q0;
      let q1 = subgroupShuffle(p1, i);
      e1 += v * q1;
      f1 += u * q1;
      let q2 = subgroupShuffle(p2, i);
      e2 += v * q2;
      f2 += u * q2;
      let q3 = subgroupShuffle(p3, i);
      e3 += v * q3;
      f3 += u * q3;
      let q4 = subgroupShuffle(p4, i);
      e4 += v * q4;
      f4 += u * q4;
      let q5 = subgroupShuffle(p5, i);
      e5 += v * q5;
      f5 += u * q5;
      let q6 = subgroupShuffle(p6, i);
      e6 += v * q6;
      f6 += u * q6;
      let q7 = subgroupShuffle(p7, i);
      e7 += v * q7;
      f7 += u * q7;
      let q8 = subgroupShuffle(p8, i);
      e8 += v * q8;
      f8 += u * q8;
      let q9 = subgroupShuffle(p9, i);
      e9 += v * q9;
      f9 += u * q9;
      let q10 = subgroupShuffle(p10, i);
      e10 += v * q10;
      f10 += u * q10;
      let q11 = subgroupShuffle(p11, i);
      e11 += v * q11;
      f11 += u * q11;
      let q12 = subgroupShuffle(p12, i);
      e12 += v * q12;
      f12 += u * q12;
      let q13 = subgroupShuffle(p13, i);
      e13 += v * q13;
      f13 += u * q13;
      let q14 = subgroupShuffle(p14, i);
      e14 += v * q14;
      f14 += u * q14;
      let q15 = subgroupShuffle(p15, i);
      e15 += v * q15;
      f15 += u * q15;
    }
    if (CHUNKS > 2u) {
      for (var i = 0u; i < 8u; i++) {
        let rows = vec4u(value_at) +
          min(vec4u(key0 + i) + vec4u(0u, 8u, 16u, 24u), vec4u(last_key)) * params.value_row;
        let v = values(rows, vectors.z);
        let u = values(rows, vectors.w);
        let q0 = subgroupShuffle(p0, i);
        g0 += v * q0;
        h0 += u * q0;
        let q1 = subgroupShuffle(p1, i);
        g1 += v * q1;
        h1 += u * q1;
        let q2 = subgroupShuffle(p2, i);
        g2 += v * q2;
        h2 += u * q2;
        let q3 = subgroupShuffle(p3, i);
        g3 += v * q3;
        h3 += u * q3;
        let q4 = subgroupShuffle(p4, i);
        g4 += v * q4;
        h4 += u * q4;
        let q5 = subgroupShuffle(p5, i);
        g5 += v * q5;
        h5 += u * q5;
        let q6 = subgroupShuffle(p6, i);
        g6 += v * q6;
        h6 += u * q6;
        let q7 = subgroupShuffle(p7, i);
        g7 += v * q7;
        h7 += u * q7;
        let q8 = subgroupShuffle(p8, i);
        g8 += v * q8;
        h8 += u * q8;
        let q9 = subgroupShuffle(p9, i);
        g9 += v * q9;
        h9 += u * q9;
        let q10 = subgroupShuffle(p10, i);
        g10 += v * q10;
        h10 += u * q10;
        let q11 = subgroupShuffle(p11, i);
        g11 += v * q11;
        h11 += u * q11;
        let q12 = subgroupShuffle(p12, i);
        g12 += v * q12;
        h12 += u * q12;
        let q13 = subgroupShuffle(p13, i);
        g13 += v * q13;
        h13 += u * q13;
        let q14 = subgroupShuffle(p14, i);
        g14 += v * q14;
        h14 += u * q14;
        let q15 = subgroupShuffle(p15, i);
        g15 += v * q15;
        h15 += u * q15;
      }
    }
  }
  let weight0 = subgroupAdd(l0);
  store(output_at, row0 + 0u, lane, e0, weight0);
  store(output_at, row0 + 0u, lane + 8u, f0, weight0);
  store(output_at, row0 + 0u, lane + 16u, g0, weight0);
  store(output_at, row0 + 0u, lane + 24u, h0, weight0);
  let weight1 = subgroupAdd(l1);
  store(output_at, row0 + 1u, lane, e1, weight1);
  store(output_at, row0 + 1u, lane + 8u, f1, weight1);
  store(output_at, row0 + 1u, lane + 16u, g1, weight1);
  store(output_at, row0 + 1u, lane + 24u, h1, weight1);
  let weight2 = subgroupAdd(l2);
  store(output_at, row0 + 2u, lane, e2, weight2);
  store(output_at, row0 + 2u, lane + 8u, f2, weight2);
  store(output_at, row0 + 2u, lane + 16u, g2, weight2);
  store(output_at, row0 + 2u, lane + 24u, h2, weight2);
  let weight3 = subgroupAdd(l3);
  store(output_at, row0 + 3u, lane, e3, weight3);
  store(output_at, row0 + 3u, lane + 8u, f3, weight3);
  store(output_at, row0 + 3u, lane + 16u, g3, weight3);
  store(output_at, row0 + 3u, lane + 24u, h3, weight3);
  let weight4 = subgroupAdd(l4);
  store(output_at, row0 + 4u, lane, e4, weight4);
  store(output_at, row0 + 4u, lane + 8u, f4, weight4);
  store(output_at, row0 + 4u, lane + 16u, g4, weight4);
  store(output_at, row0 + 4u, lane + 24u, h4, weight4);
  let weight5 = subgroupAdd(l5);
  store(output_at, row0 + 5u, lane, e5, weight5);
  store(output_at, row0 + 5u, lane + 8u, f5, weight5);
  store(output_at, row0 + 5u, lane + 16u, g5, weight5);
  store(output_at, row0 + 5u, lane + 24u, h5, weight5);
  let weight6 = subgroupAdd(l6);
  store(output_at, row0 + 6u, lane, e6, weight6);
  store(output_at, row0 + 6u, lane + 8u, f6, weight6);
  store(output_at, row0 + 6u, lane + 16u, g6, weight6);
  store(output_at, row0 + 6u, lane + 24u, h6, weight6);
  let weight7 = subgroupAdd(l7);
  store(output_at, row0 + 7u, lane, e7, weight7);
  store(output_at, row0 + 7u, lane + 8u, f7, weight7);
  store(output_at, row0 + 7u, lane + 16u, g7, weight7);
  store(output_at, row0 + 7u, lane + 24u, h7, weight7);
  let weight8 = subgroupAdd(l8);
  store(output_at, row0 + 8u, lane, e8, weight8);
  store(output_at, row0 + 8u, lane + 8u, f8, weight8);
  store(output_at, row0 + 8u, lane + 16u, g8, weight8);
  store(output_at, row0 + 8u, lane + 24u, h8, weight8);
  let weight9 = subgroupAdd(l9);
  store(output_at, row0 + 9u, lane, e9, weight9);
  store(output_at, row0 + 9u, lane + 8u, f9, weight9);
  store(output_at, row0 + 9u, lane + 16u, g9, weight9);
  store(output_at, row0 + 9u, lane + 24u, h9, weight9);
  let weight10 = subgroupAdd(l10);
  store(output_at, row0 + 10u, lane, e10, weight10);
  store(output_at, row0 + 10u, lane + 8u, f10, weight10);
  store(output_at, row0 + 10u, lane + 16u, g10, weight10);
  store(output_at, row0 + 10u, lane + 24u, h10, weight10);
  let weight11 = subgroupAdd(l11);
  store(output_at, row0 + 11u, lane, e11, weight11);
  store(output_at, row0 + 11u, lane + 8u, f11, weight11);
  store(output_at, row0 + 11u, lane + 16u, g11, weight11);
  store(output_at, row0 + 11u, lane + 24u, h11, weight11);
  let weight12 = subgroupAdd(l12);
  store(output_at, row0 + 12u, lane, e12, weight12);
  store(output_at, row0 + 12u, lane + 8u, f12, weight12);
  store(output_at, row0 + 12u, lane + 16u, g12, weight12);
  store(output_at, row0 + 12u, lane + 24u, h12, weight12);
  let weight13 = subgroupAdd(l13);
  store(output_at, row0 + 13u, lane, e13, weight13);
  store(output_at, row0 + 13u, lane + 8u, f13, weight13);
  store(output_at, row0 + 13u, lane + 16u, g13, weight13);
  store(output_at, row0 + 13u, lane + 24u, h13, weight13);
  let weight14 = subgroupAdd(l14);
  store(output_at, row0 + 14u, lane, e14, weight14);
  store(output_at, row0 + 14u, lane + 8u, f14, weight14);
  store(output_at, row0 + 14u, lane + 16u, g14, weight14);
  store(output_at, row0 + 14u, lane + 24u, h14, weight14);
  let weight15 = subgroupAdd(l15);
  store(output_at, row0 + 15u, lane, e15, weight15);
  store(output_at, row0 + 15u, lane + 8u, f15, weight15);
  store(output_at, row0 + 15u, lane + 16u, g15, weight15);
  store(output_at, row0 + 15u, lane + 24u, h15, weight15);
}
