// product[z, m, n] = act(scale · Σ_k a[z, m, k] · b[z, k, n] + bias[n] + residual[z, m, n]),
// through workgroup memory and registers
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
// An invocation computes 8 rows × 4 · WIDTH columns in registers, a workgroup Y · 8 rows × X · 4 · WIDTH
// columns. Panels of DEPTH k of a and b are staged in workgroup memory, k outermost and in f32, so that
// both are read there by vectors; each invocation loads at most one block of 4 × 4 of each, and loads
// the next panel's while this one is multiplied. So Y · DEPTH / 2 and X · WIDTH · DEPTH / 4 are at most
// X · Y, and DEPTH is a multiple of four.

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
override X: u32 = 16;
override Y: u32 = 16;
override WIDTH: u32 = 2; // 1 or 2
override DEPTH: u32 = 16;
override A_COLUMNS: u32 = 2 * Y; // derived: vectors in a row of panel_a
override B_COLUMNS: u32 = WIDTH * X; // derived
override A_BLOCKS: u32 = A_COLUMNS * DEPTH / 4; // derived
override B_BLOCKS: u32 = B_COLUMNS * DEPTH / 4; // derived

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

var<workgroup> panel_a: array<vec4f, A_COLUMNS * DEPTH>; // [DEPTH, rows / 4]
var<workgroup> panel_b: array<vec4f, B_COLUMNS * DEPTH>; // [DEPTH, columns / 4]

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

// A block of 4 × 4: four k of four rows, row i of it being k + i; zeros past the end of k. Rows past
// the end read the last ones again.
fn load_a(base: u32, row: u32, k: u32) -> mat4x4f {
  if (k >= params.inner) {
    return mat4x4f();
  }
  if (TRANSPOSE_A) {
    let rows4 = params.rows / 4u;
    let at = base + k * rows4 + min(row / 4u, rows4 - 1u);
    return mat4x4f(vec4f(a[at]), vec4f(a[at + rows4]), vec4f(a[at + 2u * rows4]), vec4f(a[at + 3u * rows4]));
  }
  let at = base + min(row + vec4u(0u, 1u, 2u, 3u), vec4u(params.rows - 1u)) * (params.inner / 4u) + k / 4u;
  return transpose(mat4x4f(vec4f(a[at.x]), vec4f(a[at.y]), vec4f(a[at.z]), vec4f(a[at.w])));
}

fn load_b(base: u32, column: u32, k: u32) -> mat4x4f {
  if (k >= params.inner) {
    return mat4x4f();
  }
  let columns4 = params.columns / 4u;
  let from_column = min(column / 4u, columns4 - 1u);
  if (TRANSPOSE_B) {
    let inner4 = params.inner / 4u;
    let at = base + from_column * 4u * inner4 + k / 4u;
    return transpose(mat4x4f(vec4f(b[at]), vec4f(b[at + inner4]), vec4f(b[at + 2u * inner4]), vec4f(b[at + 3u * inner4])));
  }
  let at = base + k * columns4 + from_column;
  return mat4x4f(vec4f(b[at]), vec4f(b[at + columns4]), vec4f(b[at + 2u * columns4]), vec4f(b[at + 3u * columns4]));
}

fn store(sum: vec4f, matrix: u32, row: u32, column: u32) {
  if (row >= params.rows || column >= params.columns) {
    return;
  }
  let at = ((matrix * params.rows + row) * params.columns + column) / 4u;
  var biases = vec4f();
  if (BIAS == 1u) {
    biases = vec4f(bias[column / 4u]);
  } else if (BIAS == 2u) {
    biases = vec4f(f32(bias[row / 4u][row % 4u]));
  }
  var residuals = vec4f();
  if (RESIDUAL != 0u) {
    residuals = vec4f(residual[at]);
  }
  product[at] = vec4<Element>(finish(sum, biases, residuals));
}

@compute @workgroup_size(X, Y)
fn matmul_tiled(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let tile = workgroup.x + workgroup.y * workgroups.x;
  if (tile >= params.tiles) {
    return; // The same for the whole workgroup: barriers below stay in uniform control flow.
  }
  let matrix = tile / (params.across * params.down);
  let row0 = tile / params.across % params.down * Y * 8u;
  let column0 = tile % params.across * X * 4u * WIDTH;
  // What this invocation stages: of a neighbours go along k, of b along the columns, as memory does.
  let a_base = matrix * params.a_batch / 4u;
  let b_base = matrix * params.b_batch / 4u;
  let a_block = select(vec2u(index % (DEPTH / 4u), index / (DEPTH / 4u)), vec2u(index / A_COLUMNS, index % A_COLUMNS), TRANSPOSE_A);
  let b_block = select(vec2u(index / B_COLUMNS, index % B_COLUMNS), vec2u(index % (DEPTH / 4u), index / (DEPTH / 4u)), TRANSPOSE_B);
  let stages_a = index < A_BLOCKS;
  let stages_b = index < B_BLOCKS;
  var next_a = mat4x4f();
  var next_b = mat4x4f();
  if (stages_a) {
    next_a = load_a(a_base, row0 + a_block.y * 4u, a_block.x * 4u);
  }
  if (stages_b) {
    next_b = load_b(b_base, column0 + b_block.y * 4u, b_block.x * 4u);
  }
  // Named variables, not an array: drivers keep an array that a loop indexes in memory.
  var l0 = vec4f();
  var r0 = vec4f();
  var l1 = vec4f();
  var r1 = vec4f();
  var l2 = vec4f();
  var r2 = vec4f();
  var l3 = vec4f();
  var r3 = vec4f();
  var l4 = vec4f();
  var r4 = vec4f();
  var l5 = vec4f();
  var r5 = vec4f();
  var l6 = vec4f();
  var r6 = vec4f();
  var l7 = vec4f();
  var r7 = vec4f();
  for (var k0 = 0u; k0 < params.inner; k0 += DEPTH) {
    if (stages_a) {
      let at = a_block.x * 4u * A_COLUMNS + a_block.y;
      panel_a[at] = next_a[0];
      panel_a[at + A_COLUMNS] = next_a[1];
      panel_a[at + 2u * A_COLUMNS] = next_a[2];
      panel_a[at + 3u * A_COLUMNS] = next_a[3];
    }
    if (stages_b) {
      let at = b_block.x * 4u * B_COLUMNS + b_block.y;
      panel_b[at] = next_b[0];
      panel_b[at + B_COLUMNS] = next_b[1];
      panel_b[at + 2u * B_COLUMNS] = next_b[2];
      panel_b[at + 3u * B_COLUMNS] = next_b[3];
    }
    workgroupBarrier(); // The panels are written before anyone multiplies.
    if (stages_a) {
      next_a = load_a(a_base, row0 + a_block.y * 4u, k0 + DEPTH + a_block.x * 4u);
    }
    if (stages_b) {
      next_b = load_b(b_base, column0 + b_block.y * 4u, k0 + DEPTH + b_block.x * 4u);
    }
    for (var k = 0u; k < DEPTH; k++) {
      let top = panel_a[k * A_COLUMNS + 2u * local.y];
      let bottom = panel_a[k * A_COLUMNS + 2u * local.y + 1u];
      let left = panel_b[k * B_COLUMNS + local.x];
      l0 = fma(vec4f(top.x), left, l0);
      l1 = fma(vec4f(top.y), left, l1);
      l2 = fma(vec4f(top.z), left, l2);
      l3 = fma(vec4f(top.w), left, l3);
      l4 = fma(vec4f(bottom.x), left, l4);
      l5 = fma(vec4f(bottom.y), left, l5);
      l6 = fma(vec4f(bottom.z), left, l6);
      l7 = fma(vec4f(bottom.w), left, l7);
      if (WIDTH > 1u) {
        let right = panel_b[k * B_COLUMNS + X + local.x];
        r0 = fma(vec4f(top.x), right, r0);
        r1 = fma(vec4f(top.y), right, r1);
        r2 = fma(vec4f(top.z), right, r2);
        r3 = fma(vec4f(top.w), right, r3);
        r4 = fma(vec4f(bottom.x), right, r4);
        r5 = fma(vec4f(bottom.y), right, r5);
        r6 = fma(vec4f(bottom.z), right, r6);
        r7 = fma(vec4f(bottom.w), right, r7);
      }
    }
    workgroupBarrier(); // Everyone has multiplied before the next panels are written.
  }
  let row = row0 + local.y * 8u;
  let column = column0 + local.x * 4u;
  store(l0, matrix, row + 0u, column);
  store(l1, matrix, row + 1u, column);
  store(l2, matrix, row + 2u, column);
  store(l3, matrix, row + 3u, column);
  store(l4, matrix, row + 4u, column);
  store(l5, matrix, row + 5u, column);
  store(l6, matrix, row + 6u, column);
  store(l7, matrix, row + 7u, column);
  if (WIDTH > 1u) {
    let right = column + X * 4u;
    store(r0, matrix, row + 0u, right);
    store(r1, matrix, row + 1u, right);
    store(r2, matrix, row + 2u, right);
    store(r3, matrix, row + 3u, right);
    store(r4, matrix, row + 4u, right);
    store(r5, matrix, row + 5u, right);
    store(r6, matrix, row + 6u, right);
    store(r7, matrix, row + 7u, right);
  }
}
