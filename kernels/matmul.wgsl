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
  var sums: array<vec4<f32>, ROWS>;
  for (var k = 0u; k < params.inner4; k++) {
    let at = 4u * k * params.columns4 + column;
    let b0 = b[at];
    let b1 = b[at + params.columns4];
    let b2 = b[at + 2u * params.columns4];
    let b3 = b[at + 3u * params.columns4];
    for (var r = 0u; r < ROWS; r++) {
      let x = a[min(row0 + r, last) * params.inner4 + k];
      sums[r] += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    if (row0 + r < params.rows) {
      product[(row0 + r) * params.columns4 + column] = sums[r];
    }
  }
}
