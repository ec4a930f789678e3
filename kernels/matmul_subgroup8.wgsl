// product[z, m, n] = act(scale · Σ_k a[z, m, k] · b[z, k, n] + bias[n] + residual[z, m, n]),
// for adapters whose subgroups have eight lanes (lavapipe)
//
// a         [B, M, K], or [B, K, M] where TRANSPOSE_A; B may be 1 of many
// b         [B, K, N], or [B, N, K] where TRANSPOSE_B; likewise
// bias      [N], or [M] where BIAS is 2
// residual  [B, M, N], added before the activation or after it
// product   [B, M, N]
//
// All of Element, K and N multiples of four, M too where TRANSPOSE_A. Sums are f32; f16 saturates at
// its largest value, since WGSL knows no infinity.
// Where there is no bias or residual, any buffer may be bound in its place.
//
// A subgroup, which is a workgroup, computes ROWS (8, 16 or 32) rows × 32 columns: a lane holds four
// columns of all rows and loads rows of a, which it hands to the others by shuffles of constant
// lanes, a permutation of one AVX register. There a lane is an element of such a register: workgroup
// memory and loads of one address by all lanes cost many times that. Rows are outer and k is inner,
// so that a sum is loaded and stored once for four k. Half of the time goes into loads, which that
// driver does lane by lane, and a loop of more rows no longer fits what the processor keeps decoded.

enable subgroups;

alias Element = f32;

struct Params {
  rows: u32, // M
  inner: u32, // K
  columns: u32, // N
  across: u32, // tiles side by side
  down: u32, // tiles one above the other
  tiles: u32, // across · down · B
  a_batch: u32, // elements from one matrix of a to the next; 0: the same for all
  b_batch: u32,
  scale: f32,
  constant_a: f32, // the activation's
  constant_b: f32,
}

override TRANSPOSE_A: bool = false;
override TRANSPOSE_B: bool = false;
override BIAS: u32 = 0; // 1: one for each column; 2: one for each row
override RESIDUAL: u32 = 0; // 1: added before the activation; 2: after it
override SATURATE: bool = false; // where Element is f16, whose largest value is 65504
override ROWS: u32 = 32;

override ACTIVATION: u32 = 0;

// erf(x), off by at most 1.5e-7 (Abramowitz & Stegun 7.1.26).
fn erf4(x: vec4f) -> vec4f {
  let t = 1.0 / (1.0 + 0.3275911 * abs(x));
  let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(x) * (1.0 - series * exp(-min(x * x, vec4f(80.0))));
}

fn tanh4(x: vec4f) -> vec4f {
  let e = exp(-2.0 * min(abs(x), vec4f(40.0)));
  let square = x * x;
  // Near zero 1 − e cancels: the series takes over where its third term is below 1e-8.
  return select(sign(x) * (1.0 - e) / (1.0 + e), x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0))), abs(x) < vec4f(0.04));
}

fn sigmoid4(x: vec4f) -> vec4f {
  return 1.0 / (1.0 + exp(-clamp(x, vec4f(-80.0), vec4f(80.0))));
}

fn softplus4(x: vec4f) -> vec4f {
  return max(x, vec4f()) + log(1.0 + exp(-min(abs(x), vec4f(80.0))));
}

fn activate(v: vec4f, a: f32, b: f32) -> vec4f {
  switch (ACTIVATION) {
    case 1u: { return max(v, vec4f()); } // relu
    case 2u: { return select(a * v, v, v >= vec4f()); } // leaky_relu
    case 3u: { return min(max(v, vec4f(a)), vec4f(b)); } // clip
    case 4u: { return sigmoid4(v); } // sigmoid
    case 5u: { return clamp(a * v + b, vec4f(), vec4f(1.0)); } // hard_sigmoid
    case 6u: { return v * clamp(v / 6.0 + 0.5, vec4f(), vec4f(1.0)); } // hard_swish
    case 7u: { return v * sigmoid4(a * v); } // silu
    case 8u: { return tanh4(v); } // tanh
    case 9u: { return 0.5 * v * (1.0 + erf4(v * 0.70710678)); } // gelu
    case 10u: { return 0.5 * v * (1.0 + tanh4(0.79788456 * (v + 0.044715 * v * v * v))); } // gelu_tanh
    case 11u: { return select(a * (exp(min(v, vec4f())) - 1.0), v, v > vec4f()); } // elu
    case 12u: { return softplus4(v); } // softplus
    case 13u: { return v * tanh4(softplus4(v)); } // mish
    default: { return v; } // identity
  }
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<Element>>;
@group(0) @binding(4) var<storage, read> residual: array<vec4<Element>>;
@group(0) @binding(5) var<storage, read_write> product: array<vec4<Element>>;

// What is stored of one sum.
fn finish(sum: vec4f, bias: vec4f, residual: vec4f) -> vec4f {
  var v = params.scale * sum + bias;
  if (RESIDUAL == 1u) {
    v += residual;
  }
  v = activate(v, params.constant_a, params.constant_b);
  if (RESIDUAL == 2u) {
    v += residual;
  }
  return select(v, clamp(v, vec4f(-65504.0), vec4f(65504.0)), SATURATE);
}

// Four k of a lane's four columns: column j of the matrix is k0 + j.
fn load_b(at: u32, stride: u32) -> mat4x4f {
  let m = mat4x4f(vec4f(b[at]), vec4f(b[at + stride]), vec4f(b[at + 2u * stride]), vec4f(b[at + 3u * stride]));
  if (TRANSPOSE_B) {
    return transpose(m);
  }
  return m;
}

@compute @workgroup_size(8)
fn matmul_subgroup8(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let tile = workgroup.x + workgroup.y * workgroups.x;
  if (tile >= params.tiles) {
    return;
  }
  let matrix = tile / (params.across * params.down);
  let row0 = tile / params.across % params.down * ROWS;
  let column = tile % params.across * 8u + lane;
  // Rows and columns past the end read the last ones again; the stores below leave them out.
  let inner4 = params.inner / 4u;
  let columns4 = params.columns / 4u;
  let rows4 = params.rows / 4u;
  let last_row = params.rows - 1u;
  let from_column = min(column, columns4 - 1u);
  // Four vectors of b: the same columns at four k, or where it is transposed four columns at the same k.
  var b_at = matrix * params.b_batch / 4u + select(from_column, from_column * params.inner, TRANSPOSE_B);
  let b_stride = select(columns4, inner4, TRANSPOSE_B);
  let b_step = select(params.columns, 1u, TRANSPOSE_B);
  // Four vectors of a: rows lane, lane + 8, … at four k each, or rows 4 · lane … at k, k + 1, ….
  let rows_of_lane = min(row0 + lane + vec4u(0u, 8u, 16u, 24u), vec4u(last_row)) * inner4;
  let columns_of_lane = min(row0 / 4u + lane, rows4 - 1u) + vec4u(0u, 1u, 2u, 3u) * rows4;
  let a_from = matrix * params.a_batch / 4u + select(rows_of_lane, columns_of_lane, TRANSPOSE_A);
  let a_step = select(1u, params.rows, TRANSPOSE_A);
  var a_at = 0u;
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
  for (var k = 0u; k < inner4; k++) {
    let m = load_b(b_at, b_stride);
    if (TRANSPOSE_A) {
      let v = transpose(mat4x4f(vec4f(a[a_from.x + a_at]), vec4f(a[a_from.y + a_at]), vec4f(a[a_from.z + a_at]), vec4f(a[a_from.w + a_at])));
      s0 += m * subgroupShuffle(v[0], 0u);
      s1 += m * subgroupShuffle(v[1], 0u);
      s2 += m * subgroupShuffle(v[2], 0u);
      s3 += m * subgroupShuffle(v[3], 0u);
      s4 += m * subgroupShuffle(v[0], 1u);
      s5 += m * subgroupShuffle(v[1], 1u);
      s6 += m * subgroupShuffle(v[2], 1u);
      s7 += m * subgroupShuffle(v[3], 1u);
      if (ROWS > 8u) {
        s8 += m * subgroupShuffle(v[0], 2u);
        s9 += m * subgroupShuffle(v[1], 2u);
        s10 += m * subgroupShuffle(v[2], 2u);
        s11 += m * subgroupShuffle(v[3], 2u);
        s12 += m * subgroupShuffle(v[0], 3u);
        s13 += m * subgroupShuffle(v[1], 3u);
        s14 += m * subgroupShuffle(v[2], 3u);
        s15 += m * subgroupShuffle(v[3], 3u);
      }
      if (ROWS > 16u) {
        s16 += m * subgroupShuffle(v[0], 4u);
        s17 += m * subgroupShuffle(v[1], 4u);
        s18 += m * subgroupShuffle(v[2], 4u);
        s19 += m * subgroupShuffle(v[3], 4u);
        s20 += m * subgroupShuffle(v[0], 5u);
        s21 += m * subgroupShuffle(v[1], 5u);
        s22 += m * subgroupShuffle(v[2], 5u);
        s23 += m * subgroupShuffle(v[3], 5u);
        s24 += m * subgroupShuffle(v[0], 6u);
        s25 += m * subgroupShuffle(v[1], 6u);
        s26 += m * subgroupShuffle(v[2], 6u);
        s27 += m * subgroupShuffle(v[3], 6u);
        s28 += m * subgroupShuffle(v[0], 7u);
        s29 += m * subgroupShuffle(v[1], 7u);
        s30 += m * subgroupShuffle(v[2], 7u);
        s31 += m * subgroupShuffle(v[3], 7u);
      }
    } else {
      // All loads before the sums: the driver makes branches of them, and registers do not outlive those.
      let a0 = vec4f(a[a_from.x + a_at]);
      var a1 = vec4f();
      var a2 = vec4f();
      var a3 = vec4f();
      if (ROWS > 8u) {
        a1 = vec4f(a[a_from.y + a_at]);
      }
      if (ROWS > 16u) {
        a2 = vec4f(a[a_from.z + a_at]);
        a3 = vec4f(a[a_from.w + a_at]);
      }
      s0 += m * subgroupShuffle(a0, 0u);
      s1 += m * subgroupShuffle(a0, 1u);
      s2 += m * subgroupShuffle(a0, 2u);
      s3 += m * subgroupShuffle(a0, 3u);
      s4 += m * subgroupShuffle(a0, 4u);
      s5 += m * subgroupShuffle(a0, 5u);
      s6 += m * subgroupShuffle(a0, 6u);
      s7 += m * subgroupShuffle(a0, 7u);
      if (ROWS > 8u) {
        s8 += m * subgroupShuffle(a1, 0u);
        s9 += m * subgroupShuffle(a1, 1u);
        s10 += m * subgroupShuffle(a1, 2u);
        s11 += m * subgroupShuffle(a1, 3u);
        s12 += m * subgroupShuffle(a1, 4u);
        s13 += m * subgroupShuffle(a1, 5u);
        s14 += m * subgroupShuffle(a1, 6u);
        s15 += m * subgroupShuffle(a1, 7u);
      }
      if (ROWS > 16u) {
        s16 += m * subgroupShuffle(a2, 0u);
        s17 += m * subgroupShuffle(a2, 1u);
        s18 += m * subgroupShuffle(a2, 2u);
        s19 += m * subgroupShuffle(a2, 3u);
        s20 += m * subgroupShuffle(a2, 4u);
        s21 += m * subgroupShuffle(a2, 5u);
        s22 += m * subgroupShuffle(a2, 6u);
        s23 += m * subgroupShuffle(a2, 7u);
        s24 += m * subgroupShuffle(a3, 0u);
        s25 += m * subgroupShuffle(a3, 1u);
        s26 += m * subgroupShuffle(a3, 2u);
        s27 += m * subgroupShuffle(a3, 3u);
        s28 += m * subgroupShuffle(a3, 4u);
        s29 += m * subgroupShuffle(a3, 5u);
        s30 += m * subgroupShuffle(a3, 6u);
        s31 += m * subgroupShuffle(a3, 7u);
      }
    }
    b_at += b_step;
    a_at += a_step;
  }
  if (column >= columns4) {
    return;
  }
  // One loop over a copy, not 32 times the epilogue: the driver compiles in a fraction of the time.
  var sums = array<vec4f, 32>(
    s0, s1, s2, s3, s4, s5, s6, s7,
    s8, s9, s10, s11, s12, s13, s14, s15,
    s16, s17, s18, s19, s20, s21, s22, s23,
    s24, s25, s26, s27, s28, s29, s30, s31,
  );
  var biases = vec4f();
  if (BIAS == 1u) {
    biases = vec4f(bias[column]);
  }
  for (var i = 0u; i < ROWS && row0 + i < params.rows; i++) {
    let row = row0 + i;
    let at = (matrix * params.rows + row) * columns4 + column;
    if (BIAS == 2u) {
      biases = vec4f(f32(bias[row / 4u][row % 4u]));
    }
    var residuals = vec4f();
    if (RESIDUAL != 0u) {
      residuals = vec4f(residual[at]);
    }
    product[at] = vec4<Element>(finish(sums[i], biases, residuals));
  }
}
