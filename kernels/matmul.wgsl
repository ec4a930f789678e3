// product[m, n] = Σ_k a[m, k] · b[k, n]
//
// a        [M, K]  f32, K padded with zeros to a multiple of four
// b        [K, N]  f32, the same K, N padded to a multiple of four
// product  [M, N]  f32
//
// An invocation computes ROWS rows × 4 columns in registers; a workgroup X · 4 columns × Y · ROWS
// rows. No workgroup memory: on a software adapter it is slower than reading again, and a GPU's
// caches hold the rows that neighbours share.

struct Params {
  rows: u32, // M
  inner4: u32, // K / 4
  columns4: u32, // N / 4
}

override X: u32 = 8;
override Y: u32 = 8;

const ROWS = 8u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> product: array<vec4<f32>>;

@compute @workgroup_size(X, Y)
fn matmul(@builtin(global_invocation_id) id: vec3<u32>) {
  let column = id.x;
  let row0 = id.y * ROWS;
  if (column >= params.columns4 || row0 >= params.rows) {
    return;
  }
  // Rows past the end read the last one again; the store below leaves them out.
  let last = params.rows - 1u;
  let r0 = row0 * params.inner4;
  let r1 = min(row0 + 1u, last) * params.inner4;
  let r2 = min(row0 + 2u, last) * params.inner4;
  let r3 = min(row0 + 3u, last) * params.inner4;
  let r4 = min(row0 + 4u, last) * params.inner4;
  let r5 = min(row0 + 5u, last) * params.inner4;
  let r6 = min(row0 + 6u, last) * params.inner4;
  let r7 = min(row0 + 7u, last) * params.inner4;
  // Named variables, not an array: drivers keep an array that a loop indexes in memory.
  var s0 = vec4f();
  var s1 = vec4f();
  var s2 = vec4f();
  var s3 = vec4f();
  var s4 = vec4f();
  var s5 = vec4f();
  var s6 = vec4f();
  var s7 = vec4f();
  var at = column;
  for (var k = 0u; k < params.inner4; k++) {
    let m = mat4x4f(
      b[at],
      b[at + params.columns4],
      b[at + 2u * params.columns4],
      b[at + 3u * params.columns4],
    );
    s0 += m * a[r0 + k];
    s1 += m * a[r1 + k];
    s2 += m * a[r2 + k];
    s3 += m * a[r3 + k];
    s4 += m * a[r4 + k];
    s5 += m * a[r5 + k];
    s6 += m * a[r6 + k];
    s7 += m * a[r7 + k];
    at += 4u * params.columns4;
  }
  if (row0 + 0u <= last) {
    product[(row0 + 0u) * params.columns4 + column] = s0;
  }
  if (row0 + 1u <= last) {
    product[(row0 + 1u) * params.columns4 + column] = s1;
  }
  if (row0 + 2u <= last) {
    product[(row0 + 2u) * params.columns4 + column] = s2;
  }
  if (row0 + 3u <= last) {
    product[(row0 + 3u) * params.columns4 + column] = s3;
  }
  if (row0 + 4u <= last) {
    product[(row0 + 4u) * params.columns4 + column] = s4;
  }
  if (row0 + 5u <= last) {
    product[(row0 + 5u) * params.columns4 + column] = s5;
  }
  if (row0 + 6u <= last) {
    product[(row0 + 6u) * params.columns4 + column] = s6;
  }
  if (row0 + 7u <= last) {
    product[(row0 + 7u) * params.columns4 + column] = s7;
  }
}
