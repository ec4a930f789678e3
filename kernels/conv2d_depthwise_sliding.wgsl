// output[n, y, x, c] = act(Σ_{i, j} input[n, y·stride_y − pad_y + i·dilation_y, x − pad_x + j, c]
//                                   · weights[i, j, c] + bias[c] + residual[n, y, x, c])         (ONNX Conv-11, groups = C)
//
// input     [N, H, W, C]     C padded with zeros to a multiple of four; zero outside
// bias      [O]              where BIAS
// residual  [N, OH, OW, O]   where RESIDUAL
// output    [N, OH, OW, O]   O padded to a multiple of four; the padding is stored as zero
// weights   [KH, KW, 1, O]; O = C
//
// For filters that move on by one pixel in x, undilated. An invocation computes 8 neighbours in x of
// four channels: it loads each pixel of their row once, while the row's weights slide past, so that
// it loads KW + 7 of either where conv2d_depthwise loads 8 · KW pixels. A workgroup is 64 of them,
// channels fastest.

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

// Where the vec4 of output channels 4·o… of pixel (n, y, x) is stored.
fn stored_at(n: u32, y: u32, x: u32, o: u32) -> u32 {
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

@compute @workgroup_size(64)
fn conv2d_depthwise_sliding(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
) {
  let index = id.y * workgroups.x * 64u + id.x;
  let o = index % params.channels4;
  let runs = (params.out_width + 7u) / 8u;
  let run = index / params.channels4;
  let row = run / runs;
  if (row >= params.images * params.out_height) {
    return;
  }
  let x0 = (run % runs) * 8u;
  let n = row / params.out_height;
  let y = row % params.out_height;
  var s0 = vec4f();
  var s1 = vec4f();
  var s2 = vec4f();
  var s3 = vec4f();
  var s4 = vec4f();
  var s5 = vec4f();
  var s6 = vec4f();
  var s7 = vec4f();
  let from_y = i32(y * params.stride_y) - params.pad_y;
  let from_x = i32(x0) - params.pad_x;
  for (var i = 0u; i < params.kernel_height; i++) {
    let source_y = from_y + i32(i * params.dilation_y);
    let row_inside = source_y >= 0 && source_y < i32(params.height);
    let source = (n * params.height + u32(select(0, source_y, row_inside))) * params.width;
    // wₖ is the weight of the current pixel for the kth output.
    var w0 = vec4f();
    var w1 = vec4f();
    var w2 = vec4f();
    var w3 = vec4f();
    var w4 = vec4f();
    var w5 = vec4f();
    var w6 = vec4f();
    var w7 = vec4f();
    for (var t = 0u; t < params.kernel_width + 7u; t++) {
      w7 = w6;
      w6 = w5;
      w5 = w4;
      w4 = w3;
      w3 = w2;
      w2 = w1;
      w1 = w0;
      w0 = vec4f();
      if (t < params.kernel_width) {
        w0 = vec4f(weights[(i * params.kernel_width + t) * params.channels4 + o]);
      }
      let x = from_x + i32(t);
      let inside = row_inside && x >= 0 && x < i32(params.width);
      let at = (source + u32(select(0, x, inside))) * params.channels4 + o;
      let v = select(vec4f(), vec4f(input[at]), inside);
      s0 += w0 * v;
      s1 += w1 * v;
      s2 += w2 * v;
      s3 += w3 * v;
      s4 += w4 * v;
      s5 += w5 * v;
      s6 += w6 * v;
      s7 += w7 * v;
    }
  }
  store(stored_at(n, y, x0, o), o, s0);
  if (x0 + 1u < params.out_width) {
    store(stored_at(n, y, x0 + 1u, o), o, s1);
  }
  if (x0 + 2u < params.out_width) {
    store(stored_at(n, y, x0 + 2u, o), o, s2);
  }
  if (x0 + 3u < params.out_width) {
    store(stored_at(n, y, x0 + 3u, o), o, s3);
  }
  if (x0 + 4u < params.out_width) {
    store(stored_at(n, y, x0 + 4u, o), o, s4);
  }
  if (x0 + 5u < params.out_width) {
    store(stored_at(n, y, x0 + 5u, o), o, s5);
  }
  if (x0 + 6u < params.out_width) {
    store(stored_at(n, y, x0 + 6u, o), o, s6);
  }
  if (x0 + 7u < params.out_width) {
    store(stored_at(n, y, x0 + 7u, o), o, s7);
  }
}
