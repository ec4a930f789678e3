// product[z, m, n] = act(scale · Σ_k a[z, m, k] · b[z, k, n] + bias[n] + residual[z, m, n])
//
// a         [B, M, K], or [B, K, M] where TRANSPOSE_A; B may be 1 of many
// b         [B, K, N], or [B, N, K] where TRANSPOSE_B; likewise
// bias      [N], or [M] where BIAS is 2
// residual  [B, M, N], added before the activation or after it
// product   [B, M, N]
//
// All f16, K and N multiples of eight, M too where TRANSPOSE_A. Sums are f32; the product saturates at
// the largest f16, since WGSL knows no infinity.
// Where there is no bias or residual, any buffer may be bound in its place.
//
// For adapters that multiply matrices of 8 × 8 × 8, f16 into f32, in subgroups of 8 lanes. A
// subgroup computes HEIGHT × 4 such matrices, a workgroup SUBGROUPS_Y × SUBGROUPS_X of those. The panels of
// DEPTH k lie in workgroup memory as they do in a and b, eight f16 a vec4<u32>, each line longer by one
// so that lines lie in different banks; those of the next k are loaded into registers while these are
// multiplied. Each invocation loads the same number of vectors of a panel, four at most. At the end the
// sums go through the panels' memory, two matrices at a time, to where they are finished and stored.

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;

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
override SATURATE: bool = false; // true always, as all is f16
override HEIGHT: u32 = 2; // or 4: fewer loads of workgroup memory for each product, more registers
override SUBGROUPS_X: u32 = 2;
override SUBGROUPS_Y: u32 = 4;
override DEPTH: u32 = 16; // a multiple of SIDE

const SIDE = 8u; // of a matrix
const LANES = 8u;
override THREADS: u32 = LANES * SUBGROUPS_X * SUBGROUPS_Y; // derived
override TILE_ROWS: u32 = HEIGHT * SIDE * SUBGROUPS_Y; // derived
override TILE_COLUMNS: u32 = 4 * SIDE * SUBGROUPS_X; // derived
// Lines of a panel, vectors in one, and those with the one that is there for the banks.
override A_LINES: u32 = select(TILE_ROWS, DEPTH, TRANSPOSE_A); // derived
override B_LINES: u32 = select(DEPTH, TILE_COLUMNS, TRANSPOSE_B); // derived
override A_UNITS: u32 = TILE_ROWS * DEPTH / 8 / A_LINES; // derived
override B_UNITS: u32 = TILE_COLUMNS * DEPTH / 8 / B_LINES; // derived
override A_LINE: u32 = A_UNITS + 1; // derived
override B_LINE: u32 = B_UNITS + 1; // derived
override A_LOADS: u32 = A_LINES * A_UNITS / THREADS; // derived
override B_LOADS: u32 = B_LINES * B_UNITS / THREADS; // derived
override B_AT: u32 = A_LINES * A_LINE; // derived
override SUMS: u32 = SUBGROUPS_X * SUBGROUPS_Y * SIDE * SIDE / 2; // derived
override PANELS: u32 = max(B_AT + B_LINES * B_LINE, SUMS); // derived

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
@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f16>>;
@group(0) @binding(4) var<storage, read> residual: array<vec4<f16>>;
@group(0) @binding(5) var<storage, read_write> product: array<vec4<f16>>;

var<workgroup> panels: array<vec4<u32>, PANELS>; // of a, of b; at last sums

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

// Vector `unit` of a line of a's panel whose first row and k are given; zeros past the end.
fn load_a(base: u32, row0: u32, k0: u32, at: u32) -> vec4<u32> {
  let line = at / A_UNITS;
  let unit = at % A_UNITS;
  let row = row0 + select(line, unit * 8u, TRANSPOSE_A);
  let k = k0 + select(unit * 8u, line, TRANSPOSE_A);
  if (row >= params.rows || k >= params.inner) {
    return vec4<u32>();
  }
  return a[(base + select(row * params.inner + k, k * params.rows + row, TRANSPOSE_A)) / 8u];
}

fn load_b(base: u32, column0: u32, k0: u32, at: u32) -> vec4<u32> {
  let line = at / B_UNITS;
  let unit = at % B_UNITS;
  let column = column0 + select(unit * 8u, line, TRANSPOSE_B);
  let k = k0 + select(line, unit * 8u, TRANSPOSE_B);
  if (column >= params.columns || k >= params.inner) {
    return vec4<u32>();
  }
  return b[(base + select(k * params.columns + column, column * params.inner + k, TRANSPOSE_B)) / 8u];
}

fn panel_a_at(at: u32) -> u32 {
  return at / A_UNITS * A_LINE + at % A_UNITS;
}

fn panel_b_at(at: u32) -> u32 {
  return B_AT + at / B_UNITS * B_LINE + at % B_UNITS;
}

// The matrix of a's panel whose first row and k are given.
fn left(row: u32, k: u32) -> subgroup_matrix_left<f16, SIDE, SIDE> {
  if (TRANSPOSE_A) {
    return subgroupMatrixLoad<subgroup_matrix_left<f16, SIDE, SIDE>, col_major>(&panels, k * A_LINE + row / 8u, A_LINE);
  }
  return subgroupMatrixLoad<subgroup_matrix_left<f16, SIDE, SIDE>, row_major>(&panels, row * A_LINE + k / 8u, A_LINE);
}

fn right(column: u32, k: u32) -> subgroup_matrix_right<f16, SIDE, SIDE> {
  if (TRANSPOSE_B) {
    return subgroupMatrixLoad<subgroup_matrix_right<f16, SIDE, SIDE>, col_major>(&panels, B_AT + column * B_LINE + k / 8u, B_LINE);
  }
  return subgroupMatrixLoad<subgroup_matrix_right<f16, SIDE, SIDE>, row_major>(&panels, B_AT + k * B_LINE + column / 8u, B_LINE);
}

// Finishes and stores two matrices of sums, which lie side by side from `at` on.
fn store_sums(at: u32, lane: u32, matrix: u32, row0: u32, column0: u32) {
  for (var e = lane; e < SIDE * SIDE / 2u; e += LANES) {
    let row = row0 + e / (SIDE / 2u);
    let column = column0 + e % (SIDE / 2u) * 4u;
    if (row < params.rows && column < params.columns) {
      let to = ((matrix * params.rows + row) * params.columns + column) / 4u;
      var biases = vec4f();
      if (BIAS == 1u) {
        biases = vec4f(bias[column / 4u]);
      } else if (BIAS == 2u) {
        biases = vec4f(f32(bias[row / 4u][row % 4u]));
      }
      var residuals = vec4f();
      if (RESIDUAL != 0u) {
        residuals = vec4f(residual[to]);
      }
      product[to] = vec4<f16>(finish(bitcast<vec4f>(panels[at + e]), biases, residuals));
    }
  }
}

@compute @workgroup_size(THREADS)
fn matmul_tensor8(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let tile = workgroup.x + workgroup.y * workgroups.x;
  if (tile >= params.tiles) {
    return; // The same for the whole workgroup: barriers below stay in uniform control flow.
  }
  let matrix = tile / (params.across * params.down);
  let row0 = tile / params.across % params.down * TILE_ROWS;
  let column0 = tile % params.across * TILE_COLUMNS;
  let a_base = matrix * params.a_batch;
  let b_base = matrix * params.b_batch;
  let subgroup_row = subgroup / SUBGROUPS_X * HEIGHT * SIDE;
  let subgroup_column = subgroup % SUBGROUPS_X * 4u * SIDE;
  var a0 = vec4<u32>();
  var a1 = vec4<u32>();
  var a2 = vec4<u32>();
  var a3 = vec4<u32>();
  var b0 = vec4<u32>();
  var b1 = vec4<u32>();
  var b2 = vec4<u32>();
  var b3 = vec4<u32>();
  a0 = load_a(a_base, row0, 0u, index);
  if (A_LOADS > 1u) {
    a1 = load_a(a_base, row0, 0u, index + THREADS);
  }
  if (A_LOADS > 2u) {
    a2 = load_a(a_base, row0, 0u, index + 2u * THREADS);
  }
  if (A_LOADS > 3u) {
    a3 = load_a(a_base, row0, 0u, index + 3u * THREADS);
  }
  b0 = load_b(b_base, column0, 0u, index);
  if (B_LOADS > 1u) {
    b1 = load_b(b_base, column0, 0u, index + THREADS);
  }
  if (B_LOADS > 2u) {
    b2 = load_b(b_base, column0, 0u, index + 2u * THREADS);
  }
  if (B_LOADS > 3u) {
    b3 = load_b(b_base, column0, 0u, index + 3u * THREADS);
  }
  var s00 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s01 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s02 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s03 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s10 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s11 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s12 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s13 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s20 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s21 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s22 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s23 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s30 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s31 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s32 = subgroup_matrix_result<f32, SIDE, SIDE>();
  var s33 = subgroup_matrix_result<f32, SIDE, SIDE>();
  for (var k0 = 0u; k0 < params.inner; k0 += DEPTH) {
    workgroupBarrier(); // The last panels were read by all.
    panels[panel_a_at(index)] = a0;
    if (A_LOADS > 1u) {
      panels[panel_a_at(index + THREADS)] = a1;
    }
    if (A_LOADS > 2u) {
      panels[panel_a_at(index + 2u * THREADS)] = a2;
    }
    if (A_LOADS > 3u) {
      panels[panel_a_at(index + 3u * THREADS)] = a3;
    }
    panels[panel_b_at(index)] = b0;
    if (B_LOADS > 1u) {
      panels[panel_b_at(index + THREADS)] = b1;
    }
    if (B_LOADS > 2u) {
      panels[panel_b_at(index + 2u * THREADS)] = b2;
    }
    if (B_LOADS > 3u) {
      panels[panel_b_at(index + 3u * THREADS)] = b3;
    }
    workgroupBarrier(); // The panels are written.
    a0 = load_a(a_base, row0, k0 + DEPTH, index);
    if (A_LOADS > 1u) {
      a1 = load_a(a_base, row0, k0 + DEPTH, index + THREADS);
    }
    if (A_LOADS > 2u) {
      a2 = load_a(a_base, row0, k0 + DEPTH, index + 2u * THREADS);
    }
    if (A_LOADS > 3u) {
      a3 = load_a(a_base, row0, k0 + DEPTH, index + 3u * THREADS);
    }
    b0 = load_b(b_base, column0, k0 + DEPTH, index);
    if (B_LOADS > 1u) {
      b1 = load_b(b_base, column0, k0 + DEPTH, index + THREADS);
    }
    if (B_LOADS > 2u) {
      b2 = load_b(b_base, column0, k0 + DEPTH, index + 2u * THREADS);
    }
    if (B_LOADS > 3u) {
      b3 = load_b(b_base, column0, k0 + DEPTH, index + 3u * THREADS);
    }
    for (var k = 0u; k < DEPTH; k += SIDE) {
      let right0 = right(subgroup_column + 0u * SIDE, k);
      let right1 = right(subgroup_column + 1u * SIDE, k);
      let right2 = right(subgroup_column + 2u * SIDE, k);
      let right3 = right(subgroup_column + 3u * SIDE, k);
      let left0 = left(subgroup_row + 0u * SIDE, k);
      s00 = subgroupMatrixMultiplyAccumulate(left0, right0, s00);
      s01 = subgroupMatrixMultiplyAccumulate(left0, right1, s01);
      s02 = subgroupMatrixMultiplyAccumulate(left0, right2, s02);
      s03 = subgroupMatrixMultiplyAccumulate(left0, right3, s03);
      let left1 = left(subgroup_row + 1u * SIDE, k);
      s10 = subgroupMatrixMultiplyAccumulate(left1, right0, s10);
      s11 = subgroupMatrixMultiplyAccumulate(left1, right1, s11);
      s12 = subgroupMatrixMultiplyAccumulate(left1, right2, s12);
      s13 = subgroupMatrixMultiplyAccumulate(left1, right3, s13);
      if (HEIGHT > 2u) {
        let left2 = left(subgroup_row + 2u * SIDE, k);
        s20 = subgroupMatrixMultiplyAccumulate(left2, right0, s20);
        s21 = subgroupMatrixMultiplyAccumulate(left2, right1, s21);
        s22 = subgroupMatrixMultiplyAccumulate(left2, right2, s22);
        s23 = subgroupMatrixMultiplyAccumulate(left2, right3, s23);
        let left3 = left(subgroup_row + 3u * SIDE, k);
        s30 = subgroupMatrixMultiplyAccumulate(left3, right0, s30);
        s31 = subgroupMatrixMultiplyAccumulate(left3, right1, s31);
        s32 = subgroupMatrixMultiplyAccumulate(left3, right2, s32);
        s33 = subgroupMatrixMultiplyAccumulate(left3, right3, s33);
      }
    }
  }
  let sums_at = subgroup * SIDE * SIDE / 2u;
  let row = row0 + subgroup_row;
  let column = column0 + subgroup_column;
  workgroupBarrier(); // What lies there was read.
  subgroupMatrixStore<row_major>(&panels, sums_at, s00, SIDE / 2u);
  subgroupMatrixStore<row_major>(&panels, sums_at + SIDE / 4u, s01, SIDE / 2u);
  workgroupBarrier(); // The sums are there.
  store_sums(sums_at, lane, matrix, row + 0u * SIDE, column + 0u * SIDE);
  workgroupBarrier(); // What lies there was read.
  subgroupMatrixStore<row_major>(&panels, sums_at, s02, SIDE / 2u);
  subgroupMatrixStore<row_major>(&panels, sums_at + SIDE / 4u, s03, SIDE / 2u);
  workgroupBarrier(); // The sums are there.
  store_sums(sums_at, lane, matrix, row + 0u * SIDE, column + 2u * SIDE);
  workgroupBarrier(); // What lies there was read.
  subgroupMatrixStore<row_major>(&panels, sums_at, s10, SIDE / 2u);
  subgroupMatrixStore<row_major>(&panels, sums_at + SIDE / 4u, s11, SIDE / 2u);
  workgroupBarrier(); // The sums are there.
  store_sums(sums_at, lane, matrix, row + 1u * SIDE, column + 0u * SIDE);
  workgroupBarrier(); // What lies there was read.
  subgroupMatrixStore<row_major>(&panels, sums_at, s12, SIDE / 2u);
  subgroupMatrixStore<row_major>(&panels, sums_at + SIDE / 4u, s13, SIDE / 2u);
  workgroupBarrier(); // The sums are there.
  store_sums(sums_at, lane, matrix, row + 1u * SIDE, column + 2u * SIDE);
  if (HEIGHT > 2u) {
    workgroupBarrier(); // What lies there was read.
    subgroupMatrixStore<row_major>(&panels, sums_at, s20, SIDE / 2u);
    subgroupMatrixStore<row_major>(&panels, sums_at + SIDE / 4u, s21, SIDE / 2u);
    workgroupBarrier(); // The sums are there.
    store_sums(sums_at, lane, matrix, row + 2u * SIDE, column + 0u * SIDE);
    workgroupBarrier(); // What lies there was read.
    subgroupMatrixStore<row_major>(&panels, sums_at, s22, SIDE / 2u);
    subgroupMatrixStore<row_major>(&panels, sums_at + SIDE / 4u, s23, SIDE / 2u);
    workgroupBarrier(); // The sums are there.
    store_sums(sums_at, lane, matrix, row + 2u * SIDE, column + 2u * SIDE);
    workgroupBarrier(); // What lies there was read.
    subgroupMatrixStore<row_major>(&panels, sums_at, s30, SIDE / 2u);
    subgroupMatrixStore<row_major>(&panels, sums_at + SIDE / 4u, s31, SIDE / 2u);
    workgroupBarrier(); // The sums are there.
    store_sums(sums_at, lane, matrix, row + 3u * SIDE, column + 0u * SIDE);
    workgroupBarrier(); // What lies there was read.
    subgroupMatrixStore<row_major>(&panels, sums_at, s32, SIDE / 2u);
    subgroupMatrixStore<row_major>(&panels, sums_at + SIDE / 4u, s33, SIDE / 2u);
    workgroupBarrier(); // The sums are there.
    store_sums(sums_at, lane, matrix, row + 3u * SIDE, column + 2u * SIDE);
  }
}
