// product[m, n] = Σ_k a[m, k] · b[k, n], for adapters whose subgroups have eight lanes (lavapipe)
//
// a        [M, K]  f32, K padded with zeros to a multiple of four
// b        [K, N]  f32, the same K, N padded to a multiple of four
// product  [M, N]  f32
//
// A subgroup, which is a workgroup, computes 32 rows × 32 columns: a lane holds four columns of all
// 32 rows and loads four rows of a, which it hands to the others by broadcasts of constant lanes.
// There a lane is an element of an AVX register: workgroup memory and loads of one address by all
// lanes cost many times a broadcast. Rows are outer and k is inner, so that a sum is loaded and
// stored once for four k.

enable subgroups;

struct Params {
  rows: u32, // M
  inner4: u32, // K / 4
  columns4: u32, // N / 4
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> product: array<vec4<f32>>;

@compute @workgroup_size(8)
fn matmul_subgroup8(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let row0 = tile.y * 32u;
  // Rows and columns past the end read the last ones again; the stores below leave them out.
  let last_row = params.rows - 1u;
  let column = tile.x * 8u + lane;
  let from_column = min(column, params.columns4 - 1u);
  let a0_at = min(row0 + 0u + lane, last_row) * params.inner4;
  let a1_at = min(row0 + 8u + lane, last_row) * params.inner4;
  let a2_at = min(row0 + 16u + lane, last_row) * params.inner4;
  let a3_at = min(row0 + 24u + lane, last_row) * params.inner4;
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
  var s16 = vec4f();
  var s17 = vec4f();
  var s18 = vec4f();
  var s19 = vec4f();
  var s20 = vec4f();
  var s21 = vec4f();
  var s22 = vec4f();
  var s23 = vec4f();
  var s24 = vec4f();
  var s25 = vec4f();
  var s26 = vec4f();
  var s27 = vec4f();
  var s28 = vec4f();
  var s29 = vec4f();
  var s30 = vec4f();
  var s31 = vec4f();
  var at = from_column;
  for (var k = 0u; k < params.inner4; k++) {
    let m = mat4x4f(
      b[at],
      b[at + params.columns4],
      b[at + 2u * params.columns4],
      b[at + 3u * params.columns4],
    );
    let a0 = a[a0_at + k];
    let a1 = a[a1_at + k];
    let a2 = a[a2_at + k];
    let a3 = a[a3_at + k];
    s0 += m * subgroupBroadcast(a0, 0u);
    s1 += m * subgroupBroadcast(a0, 1u);
    s2 += m * subgroupBroadcast(a0, 2u);
    s3 += m * subgroupBroadcast(a0, 3u);
    s4 += m * subgroupBroadcast(a0, 4u);
    s5 += m * subgroupBroadcast(a0, 5u);
    s6 += m * subgroupBroadcast(a0, 6u);
    s7 += m * subgroupBroadcast(a0, 7u);
    s8 += m * subgroupBroadcast(a1, 0u);
    s9 += m * subgroupBroadcast(a1, 1u);
    s10 += m * subgroupBroadcast(a1, 2u);
    s11 += m * subgroupBroadcast(a1, 3u);
    s12 += m * subgroupBroadcast(a1, 4u);
    s13 += m * subgroupBroadcast(a1, 5u);
    s14 += m * subgroupBroadcast(a1, 6u);
    s15 += m * subgroupBroadcast(a1, 7u);
    s16 += m * subgroupBroadcast(a2, 0u);
    s17 += m * subgroupBroadcast(a2, 1u);
    s18 += m * subgroupBroadcast(a2, 2u);
    s19 += m * subgroupBroadcast(a2, 3u);
    s20 += m * subgroupBroadcast(a2, 4u);
    s21 += m * subgroupBroadcast(a2, 5u);
    s22 += m * subgroupBroadcast(a2, 6u);
    s23 += m * subgroupBroadcast(a2, 7u);
    s24 += m * subgroupBroadcast(a3, 0u);
    s25 += m * subgroupBroadcast(a3, 1u);
    s26 += m * subgroupBroadcast(a3, 2u);
    s27 += m * subgroupBroadcast(a3, 3u);
    s28 += m * subgroupBroadcast(a3, 4u);
    s29 += m * subgroupBroadcast(a3, 5u);
    s30 += m * subgroupBroadcast(a3, 6u);
    s31 += m * subgroupBroadcast(a3, 7u);
    at += 4u * params.columns4;
  }
  if (column >= params.columns4) {
    return;
  }
  if (row0 + 0u < params.rows) {
    product[(row0 + 0u) * params.columns4 + column] = s0;
  }
  if (row0 + 1u < params.rows) {
    product[(row0 + 1u) * params.columns4 + column] = s1;
  }
  if (row0 + 2u < params.rows) {
    product[(row0 + 2u) * params.columns4 + column] = s2;
  }
  if (row0 + 3u < params.rows) {
    product[(row0 + 3u) * params.columns4 + column] = s3;
  }
  if (row0 + 4u < params.rows) {
    product[(row0 + 4u) * params.columns4 + column] = s4;
  }
  if (row0 + 5u < params.rows) {
    product[(row0 + 5u) * params.columns4 + column] = s5;
  }
  if (row0 + 6u < params.rows) {
    product[(row0 + 6u) * params.columns4 + column] = s6;
  }
  if (row0 + 7u < params.rows) {
    product[(row0 + 7u) * params.columns4 + column] = s7;
  }
  if (row0 + 8u < params.rows) {
    product[(row0 + 8u) * params.columns4 + column] = s8;
  }
  if (row0 + 9u < params.rows) {
    product[(row0 + 9u) * params.columns4 + column] = s9;
  }
  if (row0 + 10u < params.rows) {
    product[(row0 + 10u) * params.columns4 + column] = s10;
  }
  if (row0 + 11u < params.rows) {
    product[(row0 + 11u) * params.columns4 + column] = s11;
  }
  if (row0 + 12u < params.rows) {
    product[(row0 + 12u) * params.columns4 + column] = s12;
  }
  if (row0 + 13u < params.rows) {
    product[(row0 + 13u) * params.columns4 + column] = s13;
  }
  if (row0 + 14u < params.rows) {
    product[(row0 + 14u) * params.columns4 + column] = s14;
  }
  if (row0 + 15u < params.rows) {
    product[(row0 + 15u) * params.columns4 + column] = s15;
  }
  if (row0 + 16u < params.rows) {
    product[(row0 + 16u) * params.columns4 + column] = s16;
  }
  if (row0 + 17u < params.rows) {
    product[(row0 + 17u) * params.columns4 + column] = s17;
  }
  if (row0 + 18u < params.rows) {
    product[(row0 + 18u) * params.columns4 + column] = s18;
  }
  if (row0 + 19u < params.rows) {
    product[(row0 + 19u) * params.columns4 + column] = s19;
  }
  if (row0 + 20u < params.rows) {
    product[(row0 + 20u) * params.columns4 + column] = s20;
  }
  if (row0 + 21u < params.rows) {
    product[(row0 + 21u) * params.columns4 + column] = s21;
  }
  if (row0 + 22u < params.rows) {
    product[(row0 + 22u) * params.columns4 + column] = s22;
  }
  if (row0 + 23u < params.rows) {
    product[(row0 + 23u) * params.columns4 + column] = s23;
  }
  if (row0 + 24u < params.rows) {
    product[(row0 + 24u) * params.columns4 + column] = s24;
  }
  if (row0 + 25u < params.rows) {
    product[(row0 + 25u) * params.columns4 + column] = s25;
  }
  if (row0 + 26u < params.rows) {
    product[(row0 + 26u) * params.columns4 + column] = s26;
  }
  if (row0 + 27u < params.rows) {
    product[(row0 + 27u) * params.columns4 + column] = s27;
  }
  if (row0 + 28u < params.rows) {
    product[(row0 + 28u) * params.columns4 + column] = s28;
  }
  if (row0 + 29u < params.rows) {
    product[(row0 + 29u) * params.columns4 + column] = s29;
  }
  if (row0 + 30u < params.rows) {
    product[(row0 + 30u) * params.columns4 + column] = s30;
  }
  if (row0 + 31u < params.rows) {
    product[(row0 + 31u) * params.columns4 + column] = s31;
  }
}
