// output[n, y, x, o] = act(Σ_{i, j, c} input[n, y·stride_y − pad_y + i·dilation_y, x·stride_x − pad_x + j·dilation_x, c]
//                                      · weights[i, j, c, o] + bias[o] + residual[n, y, x, o])   (ONNX Conv-11)
//
// input     [N, H, W, C]     C padded with zeros to a multiple of four; zero outside
// bias      [O]              where BIAS
// residual  [N, OH, OW, O]   where RESIDUAL
// output    [N, OH, OW, O]   O padded to a multiple of four; the padding is stored as zero
// weights   [KH, KW, C/groups, O]; channels of a group are a multiple of four, of input and output
//
// For GPUs: implicit GEMM through workgroup memory. A workgroup of 16 × 16 computes 128 pixels × 64
// output channels of one group, an invocation 8 pixels × 4 channels in registers. The sums' terms,
// all (i, j, c) in a row, are taken 16 at a time: each invocation loads two vec4s of input and one of
// weights, those of the next step while this one's are multiplied. x and y are the pixels, z is
// (group, channels).

struct Params {
  images: u32, // N
  height: u32, // H
  width: u32, // W
  channels4: u32, // C / 4
  out_height: u32, // OH
  out_width: u32, // OW
  out_channels: u32, // O without padding
  out_channels4: u32, // O / 4
  group_channels: u32, // C / groups
  group_out_channels: u32, // O / groups
  kernel_height: u32, // KH
  kernel_width: u32, // KW
  stride_y: u32,
  stride_x: u32,
  pad_y: i32, // above
  pad_x: i32, // on the left
  dilation_y: u32,
  dilation_x: u32,
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
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<Element>>;
@group(0) @binding(4) var<storage, read> residual: array<vec4<Element>>;
@group(0) @binding(5) var<storage, read_write> output: array<vec4<Element>>;

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

// Where the vec4 of output channels 4·o… of a pixel, counted through all images, is stored.
fn stored_at(pixel: u32, o: u32) -> u32 {
  let x = pixel % params.out_width;
  let y = pixel / params.out_width % params.out_height;
  let n = pixel / params.out_width / params.out_height;
  let row = n * params.stored_height + y * params.step_y + params.from_y;
  return (row * params.stored_width + x * params.step_x + params.from_x) * params.out_channels4 + o;
}

// Adds bias and residual, activates, clears padding channels and stores.
fn store(at: u32, o: u32, sum: vec4f) {
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

// Where a loader is in the sums' terms: tap (i, j) and vec4 c of the channels.
struct Term {
  i: u32,
  j: u32,
  c: u32,
}

// The term `count` vec4s on.
fn advance(before: Term, count: u32) -> Term {
  let channels4 = params.group_channels / 4u;
  var term = before;
  term.c += count;
  while (term.c >= channels4) {
    term.c -= channels4;
    term.j++;
    if (term.j == params.kernel_width) {
      term.j = 0u;
      term.i++;
    }
  }
  return term;
}

// A pixel whose inputs are loaded: its image's first row, and where its taps begin.
struct Pixel {
  image: u32,
  y: i32,
  x: i32,
}

fn pixel_at(index: u32) -> Pixel {
  let pixel = min(index, params.images * params.out_height * params.out_width - 1u);
  let x = pixel % params.out_width;
  let y = pixel / params.out_width % params.out_height;
  let n = pixel / params.out_width / params.out_height;
  return Pixel(n * params.height, i32(y * params.stride_y) - params.pad_y, i32(x * params.stride_x) - params.pad_x);
}

fn load_input(pixel: Pixel, term: Term, first: u32) -> vec4f {
  let y = pixel.y + i32(term.i * params.dilation_y);
  let x = pixel.x + i32(term.j * params.dilation_x);
  let inside = term.i < params.kernel_height && y >= 0 && y < i32(params.height) && x >= 0 && x < i32(params.width);
  if (!inside) {
    return vec4f();
  }
  return vec4f(input[((pixel.image + u32(y)) * params.width + u32(x)) * params.channels4 + first + term.c]);
}

// Pixels of a row of the input's panel, and two more so that its stores spread over the banks.
const PANEL = 130u;

// [4 terms' vec4s][128 pixels] and [16 terms][16 vec4s of channels].
var<workgroup> input_panel: array<vec4f, 4u * PANEL>;
var<workgroup> weights_panel: array<vec4f, 256>;

@compute @workgroup_size(16, 16)
fn conv2d_tiled(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let pixels = params.images * params.out_height * params.out_width;
  let pixel0 = (tile.y * workgroups.x + tile.x) * 128u;
  if (pixel0 >= pixels) {
    return;
  }
  let channels4 = params.group_channels / 4u;
  let group_columns = params.group_out_channels / 4u;
  let tiles = (group_columns + 15u) / 16u;
  let group = tile.z / tiles;
  let first = group * channels4;
  let column = tile.z % tiles * 16u + local.x;
  let o = group * group_columns + column;
  let terms = params.kernel_height * params.kernel_width * params.group_channels;

  // Four neighbouring invocations load 16 neighbouring channels of a pixel.
  let load_term = index % 4u;
  let load_pixel = index / 4u;
  let panel_at = load_term * PANEL + load_pixel;
  let p0 = pixel_at(pixel0 + load_pixel);
  let p1 = pixel_at(pixel0 + load_pixel + 64u);
  var term = advance(Term(), load_term);
  var row = local.y;
  var v0 = vec4f();
  var v1 = vec4f();
  var w = vec4f();
  if (terms > 0u) {
    v0 = load_input(p0, term, first);
    v1 = load_input(p1, term, first);
    if (row < terms && column < group_columns) {
      w = vec4f(weights[row * params.out_channels4 + o]);
    }
  }
  var s0 = vec4f();
  var s1 = vec4f();
  var s2 = vec4f();
  var s3 = vec4f();
  var s4 = vec4f();
  var s5 = vec4f();
  var s6 = vec4f();
  var s7 = vec4f();
  for (var step = 0u; step < terms; step += 16u) {
    // The panels were read by all before they are written again, and written before they are read.
    workgroupBarrier();
    input_panel[panel_at] = v0;
    input_panel[panel_at + 64u] = v1;
    weights_panel[index] = w;
    workgroupBarrier();
    term = advance(term, 4u);
    row += 16u;
    v0 = load_input(p0, term, first);
    v1 = load_input(p1, term, first);
    w = vec4f();
    if (row < terms && column < group_columns) {
      w = vec4f(weights[row * params.out_channels4 + o]);
    }
    for (var k = 0u; k < 4u; k++) {
      let m = mat4x4f(
        weights_panel[(4u * k) * 16u + local.x],
        weights_panel[(4u * k + 1u) * 16u + local.x],
        weights_panel[(4u * k + 2u) * 16u + local.x],
        weights_panel[(4u * k + 3u) * 16u + local.x],
      );
      let at = k * PANEL + local.y * 8u;
      s0 += m * input_panel[at + 0u];
      s1 += m * input_panel[at + 1u];
      s2 += m * input_panel[at + 2u];
      s3 += m * input_panel[at + 3u];
      s4 += m * input_panel[at + 4u];
      s5 += m * input_panel[at + 5u];
      s6 += m * input_panel[at + 6u];
      s7 += m * input_panel[at + 7u];
    }
  }
  if (column >= group_columns) {
    return;
  }
  let pixel = pixel0 + local.y * 8u;
  if (pixel + 0u < pixels) {
    store(stored_at(pixel + 0u, o), o, s0);
  }
  if (pixel + 1u < pixels) {
    store(stored_at(pixel + 1u, o), o, s1);
  }
  if (pixel + 2u < pixels) {
    store(stored_at(pixel + 2u, o), o, s2);
  }
  if (pixel + 3u < pixels) {
    store(stored_at(pixel + 3u, o), o, s3);
  }
  if (pixel + 4u < pixels) {
    store(stored_at(pixel + 4u, o), o, s4);
  }
  if (pixel + 5u < pixels) {
    store(stored_at(pixel + 5u, o), o, s5);
  }
  if (pixel + 6u < pixels) {
    store(stored_at(pixel + 6u, o), o, s6);
  }
  if (pixel + 7u < pixels) {
    store(stored_at(pixel + 7u, o), o, s7);
  }
}
