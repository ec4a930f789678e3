// output[b, h, t, d] = Σ_u p[t, u] · value[b, h, u, d] / Σ_u p[t, u]
// p[t, u] = exp(s[t, u] − max_u s[t, u])
// s[t, u] = scale · Σ_d query[b, h, t, d] · key[b, h, u, d] + mask[b, h, t, u]
//
// query, key, value, output  [B, heads, T, D]  f32 or f16, at any strides of multiples of four, so
//                            that [B, T, 3, heads, D] needs no transposition; f16 saturates
// mask                       [B or 1, heads or 1, T or 1, keys]  the same type, with MASK
//
// A workgroup takes 64 queries of one head, and goes through the keys by 32 (online softmax: Milakov &
// Gimelshein 2018; Dao et al. 2022): whenever a new maximum comes, what was summed so far is scaled
// down. An invocation has four rows of scores, at every eighth of 32 keys, and of output, at every
// eighth of its D / 4 vectors. Query, key and value go through workgroup memory in parts of 32 of D.
// Everything is in f32.

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

// Eight vectors of each of 64 queries; then the p of 64 queries, where vector i has keys i + 8j.
var<workgroup> left: array<vec4f, 512>;
// Eight vectors of each of 32 keys or values, in rows of nine against bank conflicts.
var<workgroup> right: array<vec4f, 288>;
// Of each query, what its eight invocations have.
var<workgroup> parts: array<f32, 512>;

fn load_right(is_key: bool, start: u32, row: u32, key0: u32, chunk: u32, x: u32, y: u32) {
  let vector = 8u * chunk + x;
  for (var i = y; i < 32u; i += 16u) {
    var v = vec4f();
    if (key0 + i < params.keys && vector < params.head4) {
      let at = start + (key0 + i) * row + vector;
      if (is_key) {
        v = vec4f(key[at]);
      } else {
        v = vec4f(value[at]);
      }
    }
    right[9u * i + x] = v;
  }
}

// Scores of a query, masked: those that it may not see are LOWEST and have no weight.
fn masked(dots: vec4f, seen: vec4<bool>, mask_at: u32, keys: vec4u) -> vec4f {
  var s = dots * params.scale;
  if (MASK) {
    let last = vec4u(params.keys - 1u);
    let at = vec4u(mask_at) + min(keys, last);
    s += vec4f(vec4<Element>(mask[at.x], mask[at.y], mask[at.z], mask[at.w]));
  }
  return select(vec4f(LOWEST), max(s, vec4f(LOWEST)), seen);
}

fn seen_by(row: u32, keys: vec4u) -> vec4<bool> {
  let end = select(params.keys, min(params.keys, row + 1u), params.causal != 0u);
  return keys < vec4u(end);
}

fn largest(v: vec4f) -> f32 {
  return max(max(v.x, v.y), max(v.z, v.w));
}

fn largest_part(row: u32) -> f32 {
  var m = LOWEST;
  for (var i = 0u; i < 8u; i++) {
    m = max(m, parts[8u * row + i]);
  }
  return m;
}

fn sum_of_parts(row: u32) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < 8u; i++) {
    sum += parts[8u * row + i];
  }
  return sum;
}

fn store(at: u32, row: u32, vector: u32, sum: vec4f, weight: f32) {
  if (row < params.queries && vector < params.head4) {
    let v = sum / max(weight, 1e-30);
    output[at + row * params.output_row + vector] =
      vec4<Element>(clamp(v, vec4f(-LARGEST), vec4f(LARGEST)));
  }
}

@compute @workgroup_size(8, 16)
fn attention(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  // The same for the whole workgroup, so that all of it leaves or none.
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
  let row0 = 64u * group.x;
  let row = 4u * local.y; // the first of the four, within the workgroup
  let x = local.x;
  var m0 = LOWEST; // largest score so far
  var m1 = LOWEST;
  var m2 = LOWEST;
  var m3 = LOWEST;
  var l0 = 0.0; // Σ p of this invocation's keys
  var l1 = 0.0;
  var l2 = 0.0;
  var l3 = 0.0;
  // Named variables, not an array: drivers keep an array that a loop indexes in memory.
  var o00 = vec4f();
  var o01 = vec4f();
  var o02 = vec4f();
  var o03 = vec4f();
  var o10 = vec4f();
  var o11 = vec4f();
  var o12 = vec4f();
  var o13 = vec4f();
  var o20 = vec4f();
  var o21 = vec4f();
  var o22 = vec4f();
  var o23 = vec4f();
  var o30 = vec4f();
  var o31 = vec4f();
  var o32 = vec4f();
  var o33 = vec4f();
  let end = select(params.keys, min(params.keys, row0 + 64u), params.causal != 0u);
  for (var key0 = 0u; key0 < end; key0 += 32u) {
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      workgroupBarrier(); // Both are read by all before they are overwritten.
      for (var i = local.y; i < 64u; i += 16u) {
        var v = vec4f();
        if (row0 + i < params.queries && 8u * chunk + x < params.head4) {
          v = vec4f(query[query_at + (row0 + i) * params.query_row + 8u * chunk + x]);
        }
        left[8u * i + x] = v;
      }
      load_right(true, key_at, params.key_row, key0, chunk, x, local.y);
      workgroupBarrier(); // Both are there.
      for (var d = 0u; d < 8u; d++) {
        let k = transpose(mat4x4f(
          right[9u * x + d],
          right[9u * (x + 8u) + d],
          right[9u * (x + 16u) + d],
          right[9u * (x + 24u) + d],
        ));
        s0 += k * left[8u * (row + 0u) + d];
        s1 += k * left[8u * (row + 1u) + d];
        s2 += k * left[8u * (row + 2u) + d];
        s3 += k * left[8u * (row + 3u) + d];
      }
    }
    let keys = vec4u(key0 + x) + vec4u(0u, 8u, 16u, 24u);
    let seen0 = seen_by(row0 + row + 0u, keys);
    let seen1 = seen_by(row0 + row + 1u, keys);
    let seen2 = seen_by(row0 + row + 2u, keys);
    let seen3 = seen_by(row0 + row + 3u, keys);
    s0 = masked(s0, seen0, mask_at + min(row0 + row + 0u, params.queries - 1u) * params.mask_row, keys);
    s1 = masked(s1, seen1, mask_at + min(row0 + row + 1u, params.queries - 1u) * params.mask_row, keys);
    s2 = masked(s2, seen2, mask_at + min(row0 + row + 2u, params.queries - 1u) * params.mask_row, keys);
    s3 = masked(s3, seen3, mask_at + min(row0 + row + 3u, params.queries - 1u) * params.mask_row, keys);
    parts[8u * (row + 0u) + x] = largest(s0);
    parts[8u * (row + 1u) + x] = largest(s1);
    parts[8u * (row + 2u) + x] = largest(s2);
    parts[8u * (row + 3u) + x] = largest(s3);
    workgroupBarrier(); // Maxima are there, and left is read by all.
    let n0 = max(m0, largest_part(row + 0u));
    let down0 = exp(m0 - n0);
    m0 = n0;
    let p0 = select(vec4f(), exp(s0 - n0), seen0);
    l0 = l0 * down0 + dot(p0, vec4f(1.0));
    left[8u * (row + 0u) + x] = p0;
    let n1 = max(m1, largest_part(row + 1u));
    let down1 = exp(m1 - n1);
    m1 = n1;
    let p1 = select(vec4f(), exp(s1 - n1), seen1);
    l1 = l1 * down1 + dot(p1, vec4f(1.0));
    left[8u * (row + 1u) + x] = p1;
    let n2 = max(m2, largest_part(row + 2u));
    let down2 = exp(m2 - n2);
    m2 = n2;
    let p2 = select(vec4f(), exp(s2 - n2), seen2);
    l2 = l2 * down2 + dot(p2, vec4f(1.0));
    left[8u * (row + 2u) + x] = p2;
    let n3 = max(m3, largest_part(row + 3u));
    let down3 = exp(m3 - n3);
    m3 = n3;
    let p3 = select(vec4f(), exp(s3 - n3), seen3);
    l3 = l3 * down3 + dot(p3, vec4f(1.0));
    left[8u * (row + 3u) + x] = p3;
    o00 *= down0;
    o01 *= down1;
    o02 *= down2;
    o03 *= down3;
    workgroupBarrier(); // right is read by all, left is there.
    load_right(false, value_at, params.value_row, key0, 0u, x, local.y);
    workgroupBarrier(); // right is there.
    for (var i = 0u; i < 8u; i++) {
      let v = mat4x4f(
        right[9u * (i + 0u) + x],
        right[9u * (i + 8u) + x],
        right[9u * (i + 16u) + x],
        right[9u * (i + 24u) + x],
      );
      o00 += v * left[8u * (row + 0u) + i];
      o01 += v * left[8u * (row + 1u) + i];
      o02 += v * left[8u * (row + 2u) + i];
      o03 += v * left[8u * (row + 3u) + i];
    }
    if (CHUNKS > 1u) {
      o10 *= down0;
      o11 *= down1;
      o12 *= down2;
      o13 *= down3;
      workgroupBarrier(); // right is read by all.
      load_right(false, value_at, params.value_row, key0, 1u, x, local.y);
      workgroupBarrier(); // right is there.
      for (var i = 0u; i < 8u; i++) {
        let v = mat4x4f(
          right[9u * (i + 0u) + x],
          right[9u * (i + 8u) + x],
          right[9u * (i + 16u) + x],
          right[9u * (i + 24u) + x],
        );
        o10 += v * left[8u * (row + 0u) + i];
        o11 += v * left[8u * (row + 1u) + i];
        o12 += v * left[8u * (row + 2u) + i];
        o13 += v * left[8u * (row + 3u) + i];
      }
    }
    if (CHUNKS > 2u) {
      o20 *= down0;
      o21 *= down1;
      o22 *= down2;
      o23 *= down3;
      workgroupBarrier(); // right is read by all.
      load_right(false, value_at, params.value_row, key0, 2u, x, local.y);
      workgroupBarrier(); // right is there.
      for (var i = 0u; i < 8u; i++) {
        let v = mat4x4f(
          right[9u * (i + 0u) + x],
          right[9u * (i + 8u) + x],
          right[9u * (i + 16u) + x],
          right[9u * (i + 24u) + x],
        );
        o20 += v * left[8u * (row + 0u) + i];
        o21 += v * left[8u * (row + 1u) + i];
        o22 += v * left[8u * (row + 2u) + i];
        o23 += v * left[8u * (row + 3u) + i];
      }
    }
    if (CHUNKS > 3u) {
      o30 *= down0;
      o31 *= down1;
      o32 *= down2;
      o33 *= down3;
      workgroupBarrier(); // right is read by all.
      load_right(false, value_at, params.value_row, key0, 3u, x, local.y);
      workgroupBarrier(); // right is there.
      for (var i = 0u; i < 8u; i++) {
        let v = mat4x4f(
          right[9u * (i + 0u) + x],
          right[9u * (i + 8u) + x],
          right[9u * (i + 16u) + x],
          right[9u * (i + 24u) + x],
        );
        o30 += v * left[8u * (row + 0u) + i];
        o31 += v * left[8u * (row + 1u) + i];
        o32 += v * left[8u * (row + 2u) + i];
        o33 += v * left[8u * (row + 3u) + i];
      }
    }
    workgroupBarrier(); // parts is read by all before the next maxima.
  }
  parts[8u * (row + 0u) + x] = l0;
  parts[8u * (row + 1u) + x] = l1;
  parts[8u * (row + 2u) + x] = l2;
  parts[8u * (row + 3u) + x] = l3;
  workgroupBarrier(); // All sums are there.
  let weight0 = sum_of_parts(row + 0u);
  store(output_at, row0 + row + 0u, 0u + x, o00, weight0);
  store(output_at, row0 + row + 0u, 8u + x, o10, weight0);
  store(output_at, row0 + row + 0u, 16u + x, o20, weight0);
  store(output_at, row0 + row + 0u, 24u + x, o30, weight0);
  let weight1 = sum_of_parts(row + 1u);
  store(output_at, row0 + row + 1u, 0u + x, o01, weight1);
  store(output_at, row0 + row + 1u, 8u + x, o11, weight1);
  store(output_at, row0 + row + 1u, 16u + x, o21, weight1);
  store(output_at, row0 + row + 1u, 24u + x, o31, weight1);
  let weight2 = sum_of_parts(row + 2u);
  store(output_at, row0 + row + 2u, 0u + x, o02, weight2);
  store(output_at, row0 + row + 2u, 8u + x, o12, weight2);
  store(output_at, row0 + row + 2u, 16u + x, o22, weight2);
  store(output_at, row0 + row + 2u, 24u + x, o32, weight2);
  let weight3 = sum_of_parts(row + 3u);
  store(output_at, row0 + row + 3u, 0u + x, o03, weight3);
  store(output_at, row0 + row + 3u, 8u + x, o13, weight3);
  store(output_at, row0 + row + 3u, 16u + x, o23, weight3);
  store(output_at, row0 + row + 3u, 24u + x, o33, weight3);
}
