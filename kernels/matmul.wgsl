// product[z, m, n] = act(scale · Σ_k a[z, m, k] · b[z, k, n] + bias[n] + residual[z, m, n])
//
// a         [B, M, K], or [B, K, M] where TRANSPOSE_A; B may be 1 of many
// b         [B, K, N], or [B, N, K] where TRANSPOSE_B; likewise
// bias      [N], or [M] where BIAS is 2
// residual  [B, M, N], added before the activation or after it
// product   [B, M, N]
//
// All of Element, sums in f32; f16 saturates at its largest value, since WGSL knows no infinity.
// Where there is no bias or residual, any buffer may be bound in its place.
//
// An invocation computes 4 rows × 4 columns, a workgroup X · 4 columns × Y · 4 rows. Every element is
// loaded by itself, so that M, K and N may be anything: right on every adapter, fast on none.
// Workgroups are numbered in a row: columns, then rows, then matrices.

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
override X: u32 = 8;
override Y: u32 = 8;

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
@group(0) @binding(1) var<storage, read> a: array<Element>;
@group(0) @binding(2) var<storage, read> b: array<Element>;
@group(0) @binding(3) var<storage, read> bias: array<Element>;
@group(0) @binding(4) var<storage, read> residual: array<Element>;
@group(0) @binding(5) var<storage, read_write> product: array<Element>;

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

@compute @workgroup_size(X, Y)
fn matmul(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let tile = workgroup.x + workgroup.y * workgroups.x;
  if (tile >= params.tiles) {
    return;
  }
  let matrix = tile / (params.across * params.down);
  let row0 = (tile / params.across % params.down * Y + local.y) * 4u;
  let column0 = (tile % params.across * X + local.x) * 4u;
  if (row0 >= params.rows || column0 >= params.columns) {
    return;
  }
  // From one k to the next, and from one row or column to the next.
  let a_inner = select(1u, params.rows, TRANSPOSE_A);
  let a_row = select(params.inner, 1u, TRANSPOSE_A);
  let b_inner = select(params.columns, 1u, TRANSPOSE_B);
  let b_column = select(1u, params.inner, TRANSPOSE_B);
  // Rows and columns past the end read the last one again; the stores below leave them out.
  let rows = min(row0 + vec4u(0u, 1u, 2u, 3u), vec4u(params.rows - 1u));
  let columns = min(column0 + vec4u(0u, 1u, 2u, 3u), vec4u(params.columns - 1u));
  var a_at = matrix * params.a_batch + rows * a_row;
  var b_at = matrix * params.b_batch + columns * b_column;
  var s0 = vec4f();
  var s1 = vec4f();
  var s2 = vec4f();
  var s3 = vec4f();
  for (var k = 0u; k < params.inner; k++) {
    let v = vec4f(f32(b[b_at.x]), f32(b[b_at.y]), f32(b[b_at.z]), f32(b[b_at.w]));
    s0 += f32(a[a_at.x]) * v;
    s1 += f32(a[a_at.y]) * v;
    s2 += f32(a[a_at.z]) * v;
    s3 += f32(a[a_at.w]) * v;
    a_at += vec4u(a_inner);
    b_at += vec4u(b_inner);
  }
  let sums = mat4x4f(s0, s1, s2, s3);
  for (var i = 0u; i < 4u && row0 + i < params.rows; i++) {
    let at = (matrix * params.rows + row0 + i) * params.columns;
    var biases = vec4f();
    if (BIAS == 1u) {
      biases = vec4f(f32(bias[columns.x]), f32(bias[columns.y]), f32(bias[columns.z]), f32(bias[columns.w]));
    } else if (BIAS == 2u) {
      biases = vec4f(f32(bias[row0 + i]));
    }
    var residuals = vec4f();
    if (RESIDUAL != 0u) {
      let near = at + columns;
      residuals = vec4f(f32(residual[near.x]), f32(residual[near.y]), f32(residual[near.z]), f32(residual[near.w]));
    }
    let v = finish(sums[i], biases, residuals);
    for (var j = 0u; j < 4u && column0 + j < params.columns; j++) {
      product[at + column0 + j] = Element(v[j]);
    }
  }
}
