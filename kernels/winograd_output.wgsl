// output[n, 4·row + y, 4·column + x, o] = act((Aᵀ · m · A)[y, x] + bias[o] + residual[…]), m[i, j] =
// products[6·i + j, p, o] of the tile p at that row and column: the output transform of Winograd's
// F(4 × 4, 3 × 3) (Lavin & Gray, «Fast Algorithms for Convolutional Neural Networks», 2015, §4.3).
//
// products  [36, tiles, O]   f32, of the tiles first_tile…
// bias      [O]              where BIAS
// residual  [N, OH, OW, O]   where RESIDUAL
// output    [N, OH, OW, O]   O padded to a multiple of four; the padding is stored as zero
//
// An invocation computes four channels of a tile's 16 pixels; a workgroup is 64 of them, channels
// fastest.

struct Params {
  tiles_y: u32, // of an image
  tiles_x: u32,
  first_tile: u32,
  tiles: u32,
  out_height: u32, // OH
  out_width: u32, // OW
  out_channels: u32, // O without padding
  out_channels4: u32, // O / 4
  stored_height: u32, // of output: OH, or more where a transposed convolution's phases share it
  stored_width: u32,
  step_y: u32, // (y, x) is stored at (y · step_y + from_y, x · step_x + from_x)
  step_x: u32,
  from_y: u32,
  from_x: u32,
  a: f32, // the activation's constants
  b: f32,
}

// What is stored: f32 or f16.
alias Element = f32;

override BIAS: bool = false;
override RESIDUAL: bool = false;
// Whether Element is f16, beyond whose largest value stored ones are held.
override SATURATE: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> products: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read> residual: array<vec4<Element>>;
@group(0) @binding(4) var<storage, read_write> output: array<vec4<Element>>;

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

struct Six {
  v0: vec4f,
  v1: vec4f,
  v2: vec4f,
  v3: vec4f,
  v4: vec4f,
  v5: vec4f,
}

// Aᵀ · m
fn transform(m: Six) -> mat4x4f {
  let p = m.v1 + m.v2;
  let q = m.v1 - m.v2;
  let s = m.v3 + m.v4;
  let t = m.v3 - m.v4;
  return mat4x4f(m.v0 + p + s, q + 2.0 * t, p + 4.0 * s, q + 8.0 * t + m.v5);
}

// A column of six products, transformed.
fn column(at: u32, each: u32) -> mat4x4f {
  let down = 6u * each;
  return transform(Six(
    products[at],
    products[at + down],
    products[at + 2u * down],
    products[at + 3u * down],
    products[at + 4u * down],
    products[at + 5u * down],
  ));
}

// Adds bias and residual, activates, clears padding channels and stores.
fn store(n: u32, y: u32, x: u32, o: u32, sum: vec4f) {
  if (x >= params.out_width) {
    return;
  }
  let row = n * params.stored_height + y * params.step_y + params.from_y;
  let at = (row * params.stored_width + x * params.step_x + params.from_x) * params.out_channels4 + o;
  var v = sum;
  if (BIAS) {
    v += vec4f(bias[o]);
  }
  if (RESIDUAL) {
    v += vec4f(residual[at]);
  }
  v = activate(v, params.a, params.b);
  v = select(vec4f(), v, vec4u(4u * o) + vec4u(0u, 1u, 2u, 3u) < vec4u(params.out_channels));
  if (SATURATE) {
    v = clamp(v, vec4f(-65504.0), vec4f(65504.0));
  }
  output[at] = vec4<Element>(v);
}

// A row of the tile's output, transformed along x.
fn store_row(n: u32, y: u32, x: u32, o: u32, row: Six) {
  if (y >= params.out_height) {
    return;
  }
  let t = transform(row);
  store(n, y, x, o, t[0]);
  store(n, y, x + 1u, o, t[1]);
  store(n, y, x + 2u, o, t[2]);
  store(n, y, x + 3u, o, t[3]);
}

@compute @workgroup_size(64)
fn winograd_output(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
) {
  let index = id.y * workgroups.x * 64u + id.x;
  let o = index % params.out_channels4;
  let tile = index / params.out_channels4;
  if (tile >= params.tiles) {
    return;
  }
  let p = params.first_tile + tile;
  let n = p / params.tiles_x / params.tiles_y;
  let y = p / params.tiles_x % params.tiles_y * 4u;
  let x = p % params.tiles_x * 4u;
  let each = params.tiles * params.out_channels4;
  let m0 = column(index, each);
  let m1 = column(index + 1u * each, each);
  let m2 = column(index + 2u * each, each);
  let m3 = column(index + 3u * each, each);
  let m4 = column(index + 4u * each, each);
  let m5 = column(index + 5u * each, each);
  store_row(n, y, x, o, Six(m0[0], m1[0], m2[0], m3[0], m4[0], m5[0]));
  store_row(n, y + 1u, x, o, Six(m0[1], m1[1], m2[1], m3[1], m4[1], m5[1]));
  store_row(n, y + 2u, x, o, Six(m0[2], m1[2], m2[2], m3[2], m4[2], m5[2]));
  store_row(n, y + 3u, x, o, Six(m0[3], m1[3], m2[3], m3[3], m4[3], m5[3]));
}
