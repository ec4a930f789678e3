// output[n, y, x, o] = act(Σ_{i, j, c} input[n, y·stride_y − pad_y + i·dilation_y, x·stride_x − pad_x + j·dilation_x, c]
//                                      · weights[i, j, c, o] + bias[o] + residual[n, y, x, o])   (ONNX Conv-11)
//
// input     [N, H, W, C]     C padded with zeros to a multiple of four; zero outside
// bias      [O]              where BIAS
// residual  [N, OH, OW, O]   where RESIDUAL
// output    [N, OH, OW, O]   O padded to a multiple of four; the padding is stored as zero
// weights   [KH, KW, C/groups, O]; channels of a group are a multiple of four, of input and output
//
// For adapters whose subgroups have eight lanes (lavapipe), and groups of few output channels, which
// would leave lanes of conv2d_subgroup8 idle. Here lanes are pixels: a subgroup, which is a
// workgroup, computes 32 pixels × 8 output channels; a lane holds both vec4s of 4 pixels, loads one
// of the eight vec4s that four rows of weights are, and hands it to the others by a broadcast. x and
// y are the pixels, z is (group, channels).

enable subgroups;

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

// Where the vec4 of output channels 4·o… of a pixel, counted through all images, is stored.
fn stored_at(pixel: u32, o: u32) -> u32 {
  let x = pixel % params.out_width;
  let y = pixel / params.out_width % params.out_height;
  let n = pixel / params.out_width / params.out_height;
  let row = n * params.stored_height + y * params.step_y + params.from_y;
  return (row * params.stored_width + x * params.step_x + params.from_x) * params.out_channels4 + o;
}

@compute @workgroup_size(8)
fn conv2d_subgroup8_narrow(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let area = params.out_height * params.out_width;
  let pixels = params.images * area;
  let pixel0 = (tile.y * workgroups.x + tile.x) * 32u;
  if (pixel0 >= pixels) {
    return;
  }
  let channels4 = params.group_channels / 4u;
  let group_columns = params.group_out_channels / 4u;
  let tiles = (group_columns + 1u) / 2u;
  let group = tile.z / tiles;
  let first = group * channels4;
  // Pixels and channels past the end read the last ones again; the stores below leave them out.
  let column = tile.z % tiles * 2u;
  let has_second = column + 1u < group_columns;
  let o = group * group_columns + column;
  let p0 = min(pixel0 + 0u + lane, pixels - 1u);
  let image0 = p0 / area * params.height;
  let from_y0 = i32(p0 % area / params.out_width * params.stride_y) - params.pad_y;
  let from_x0 = i32(p0 % params.out_width * params.stride_x) - params.pad_x;
  let p1 = min(pixel0 + 8u + lane, pixels - 1u);
  let image1 = p1 / area * params.height;
  let from_y1 = i32(p1 % area / params.out_width * params.stride_y) - params.pad_y;
  let from_x1 = i32(p1 % params.out_width * params.stride_x) - params.pad_x;
  let p2 = min(pixel0 + 16u + lane, pixels - 1u);
  let image2 = p2 / area * params.height;
  let from_y2 = i32(p2 % area / params.out_width * params.stride_y) - params.pad_y;
  let from_x2 = i32(p2 % params.out_width * params.stride_x) - params.pad_x;
  let p3 = min(pixel0 + 24u + lane, pixels - 1u);
  let image3 = p3 / area * params.height;
  let from_y3 = i32(p3 % area / params.out_width * params.stride_y) - params.pad_y;
  let from_x3 = i32(p3 % params.out_width * params.stride_x) - params.pad_x;
  var s0 = vec4f();
  var t0 = vec4f();
  var s1 = vec4f();
  var t1 = vec4f();
  var s2 = vec4f();
  var t2 = vec4f();
  var s3 = vec4f();
  var t3 = vec4f();
  // Lane 2k + t loads row k of vec4 t.
  var at = o + lane / 2u * params.out_channels4 + select(0u, lane % 2u, has_second);
  for (var i = 0u; i < params.kernel_height; i++) {
    for (var j = 0u; j < params.kernel_width; j++) {
      let source_y0 = from_y0 + i32(i * params.dilation_y);
      let source_x0 = from_x0 + i32(j * params.dilation_x);
      let inside0 = source_y0 >= 0 && source_y0 < i32(params.height) && source_x0 >= 0 && source_x0 < i32(params.width);
      let source0 = select(0u, ((image0 + u32(source_y0)) * params.width + u32(source_x0)) * params.channels4 + first, inside0);
      let source_y1 = from_y1 + i32(i * params.dilation_y);
      let source_x1 = from_x1 + i32(j * params.dilation_x);
      let inside1 = source_y1 >= 0 && source_y1 < i32(params.height) && source_x1 >= 0 && source_x1 < i32(params.width);
      let source1 = select(0u, ((image1 + u32(source_y1)) * params.width + u32(source_x1)) * params.channels4 + first, inside1);
      let source_y2 = from_y2 + i32(i * params.dilation_y);
      let source_x2 = from_x2 + i32(j * params.dilation_x);
      let inside2 = source_y2 >= 0 && source_y2 < i32(params.height) && source_x2 >= 0 && source_x2 < i32(params.width);
      let source2 = select(0u, ((image2 + u32(source_y2)) * params.width + u32(source_x2)) * params.channels4 + first, inside2);
      let source_y3 = from_y3 + i32(i * params.dilation_y);
      let source_x3 = from_x3 + i32(j * params.dilation_x);
      let inside3 = source_y3 >= 0 && source_y3 < i32(params.height) && source_x3 >= 0 && source_x3 < i32(params.width);
      let source3 = select(0u, ((image3 + u32(source_y3)) * params.width + u32(source_x3)) * params.channels4 + first, inside3);
      for (var c = 0u; c < channels4; c++) {
        let w = vec4f(weights[at]);
        let v0 = select(vec4f(), vec4f(input[source0 + c]), inside0);
        let v1 = select(vec4f(), vec4f(input[source1 + c]), inside1);
        let v2 = select(vec4f(), vec4f(input[source2 + c]), inside2);
        let v3 = select(vec4f(), vec4f(input[source3 + c]), inside3);
        let m = mat4x4f(
          subgroupBroadcast(w, 0u),
          subgroupBroadcast(w, 2u),
          subgroupBroadcast(w, 4u),
          subgroupBroadcast(w, 6u),
        );
        s0 += m * v0;
        s1 += m * v1;
        s2 += m * v2;
        s3 += m * v3;
        if (has_second) {
          let m1 = mat4x4f(
            subgroupBroadcast(w, 1u),
            subgroupBroadcast(w, 3u),
            subgroupBroadcast(w, 5u),
            subgroupBroadcast(w, 7u),
          );
          t0 += m1 * v0;
          t1 += m1 * v1;
          t2 += m1 * v2;
          t3 += m1 * v3;
        }
        at += 4u * params.out_channels4;
      }
    }
  }
  if (pixel0 + 0u + lane < pixels) {
    let at0 = stored_at(p0, o);
    store(at0, o, s0);
    if (has_second) {
      store(at0 + 1u, o + 1u, t0);
    }
  }
  if (pixel0 + 8u + lane < pixels) {
    let at1 = stored_at(p1, o);
    store(at1, o, s1);
    if (has_second) {
      store(at1 + 1u, o + 1u, t1);
    }
  }
  if (pixel0 + 16u + lane < pixels) {
    let at2 = stored_at(p2, o);
    store(at2, o, s2);
    if (has_second) {
      store(at2 + 1u, o + 1u, t2);
    }
  }
  if (pixel0 + 24u + lane < pixels) {
    let at3 = stored_at(p3, o);
    store(at3, o, s3);
    if (has_second) {
      store(at3 + 1u, o + 1u, t3);
    }
  }
}
