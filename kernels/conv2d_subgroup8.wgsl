// output[n, y, x, o] = act(Σ_{i, j, c} input[n, y·stride_y − pad_y + i·dilation_y, x·stride_x − pad_x + j·dilation_x, c]
//                                      · weights[i, j, c, o] + bias[o] + residual[n, y, x, o])   (ONNX Conv-11)
//
// input     [N, H, W, C]     C padded with zeros to a multiple of four; zero outside
// bias      [O]              where BIAS
// residual  [N, OH, OW, O]   where RESIDUAL
// output    [N, OH, OW, O]   O padded to a multiple of four; the padding is stored as zero
// weights   [KH, KW, C/groups, O]; channels of a group are a multiple of four, of input and output
//
// For adapters whose subgroups have eight lanes (lavapipe): implicit GEMM like matmul_subgroup8.wgsl.
// A subgroup, which is a workgroup, computes 32 pixels × 32 output channels: a lane holds four
// channels of all pixels and loads the inputs of four, which it hands to the others by broadcasts
// of constant lanes. x and y are the pixels, z is (group, channels).

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
fn conv2d_subgroup8(
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
  let tiles = (group_columns + 7u) / 8u;
  let group = tile.z / tiles;
  let first = group * channels4;
  // Pixels and channels past the end read the last ones again; the stores below leave them out.
  let column = tile.z % tiles * 8u + lane;
  let o = group * group_columns + min(column, group_columns - 1u);
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
  var at = o;
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
        let m = mat4x4f(
          vec4f(weights[at]),
          vec4f(weights[at + params.out_channels4]),
          vec4f(weights[at + 2u * params.out_channels4]),
          vec4f(weights[at + 3u * params.out_channels4]),
        );
        let v0 = select(vec4f(), vec4f(input[source0 + c]), inside0);
        let v1 = select(vec4f(), vec4f(input[source1 + c]), inside1);
        let v2 = select(vec4f(), vec4f(input[source2 + c]), inside2);
        let v3 = select(vec4f(), vec4f(input[source3 + c]), inside3);
        s0 += m * subgroupBroadcast(v0, 0u);
        s1 += m * subgroupBroadcast(v0, 1u);
        s2 += m * subgroupBroadcast(v0, 2u);
        s3 += m * subgroupBroadcast(v0, 3u);
        s4 += m * subgroupBroadcast(v0, 4u);
        s5 += m * subgroupBroadcast(v0, 5u);
        s6 += m * subgroupBroadcast(v0, 6u);
        s7 += m * subgroupBroadcast(v0, 7u);
        s8 += m * subgroupBroadcast(v1, 0u);
        s9 += m * subgroupBroadcast(v1, 1u);
        s10 += m * subgroupBroadcast(v1, 2u);
        s11 += m * subgroupBroadcast(v1, 3u);
        s12 += m * subgroupBroadcast(v1, 4u);
        s13 += m * subgroupBroadcast(v1, 5u);
        s14 += m * subgroupBroadcast(v1, 6u);
        s15 += m * subgroupBroadcast(v1, 7u);
        s16 += m * subgroupBroadcast(v2, 0u);
        s17 += m * subgroupBroadcast(v2, 1u);
        s18 += m * subgroupBroadcast(v2, 2u);
        s19 += m * subgroupBroadcast(v2, 3u);
        s20 += m * subgroupBroadcast(v2, 4u);
        s21 += m * subgroupBroadcast(v2, 5u);
        s22 += m * subgroupBroadcast(v2, 6u);
        s23 += m * subgroupBroadcast(v2, 7u);
        s24 += m * subgroupBroadcast(v3, 0u);
        s25 += m * subgroupBroadcast(v3, 1u);
        s26 += m * subgroupBroadcast(v3, 2u);
        s27 += m * subgroupBroadcast(v3, 3u);
        s28 += m * subgroupBroadcast(v3, 4u);
        s29 += m * subgroupBroadcast(v3, 5u);
        s30 += m * subgroupBroadcast(v3, 6u);
        s31 += m * subgroupBroadcast(v3, 7u);
        at += 4u * params.out_channels4;
      }
    }
  }
  if (column >= group_columns) {
    return;
  }
  store(stored_at(pixel0, o), o, s0);
  if (pixel0 + 1u < pixels) {
    store(stored_at(pixel0 + 1u, o), o, s1);
  }
  if (pixel0 + 2u < pixels) {
    store(stored_at(pixel0 + 2u, o), o, s2);
  }
  if (pixel0 + 3u < pixels) {
    store(stored_at(pixel0 + 3u, o), o, s3);
  }
  if (pixel0 + 4u < pixels) {
    store(stored_at(pixel0 + 4u, o), o, s4);
  }
  if (pixel0 + 5u < pixels) {
    store(stored_at(pixel0 + 5u, o), o, s5);
  }
  if (pixel0 + 6u < pixels) {
    store(stored_at(pixel0 + 6u, o), o, s6);
  }
  if (pixel0 + 7u < pixels) {
    store(stored_at(pixel0 + 7u, o), o, s7);
  }
  if (pixel0 + 8u < pixels) {
    store(stored_at(pixel0 + 8u, o), o, s8);
  }
  if (pixel0 + 9u < pixels) {
    store(stored_at(pixel0 + 9u, o), o, s9);
  }
  if (pixel0 + 10u < pixels) {
    store(stored_at(pixel0 + 10u, o), o, s10);
  }
  if (pixel0 + 11u < pixels) {
    store(stored_at(pixel0 + 11u, o), o, s11);
  }
  if (pixel0 + 12u < pixels) {
    store(stored_at(pixel0 + 12u, o), o, s12);
  }
  if (pixel0 + 13u < pixels) {
    store(stored_at(pixel0 + 13u, o), o, s13);
  }
  if (pixel0 + 14u < pixels) {
    store(stored_at(pixel0 + 14u, o), o, s14);
  }
  if (pixel0 + 15u < pixels) {
    store(stored_at(pixel0 + 15u, o), o, s15);
  }
  if (pixel0 + 16u < pixels) {
    store(stored_at(pixel0 + 16u, o), o, s16);
  }
  if (pixel0 + 17u < pixels) {
    store(stored_at(pixel0 + 17u, o), o, s17);
  }
  if (pixel0 + 18u < pixels) {
    store(stored_at(pixel0 + 18u, o), o, s18);
  }
  if (pixel0 + 19u < pixels) {
    store(stored_at(pixel0 + 19u, o), o, s19);
  }
  if (pixel0 + 20u < pixels) {
    store(stored_at(pixel0 + 20u, o), o, s20);
  }
  if (pixel0 + 21u < pixels) {
    store(stored_at(pixel0 + 21u, o), o, s21);
  }
  if (pixel0 + 22u < pixels) {
    store(stored_at(pixel0 + 22u, o), o, s22);
  }
  if (pixel0 + 23u < pixels) {
    store(stored_at(pixel0 + 23u, o), o, s23);
  }
  if (pixel0 + 24u < pixels) {
    store(stored_at(pixel0 + 24u, o), o, s24);
  }
  if (pixel0 + 25u < pixels) {
    store(stored_at(pixel0 + 25u, o), o, s25);
  }
  if (pixel0 + 26u < pixels) {
    store(stored_at(pixel0 + 26u, o), o, s26);
  }
  if (pixel0 + 27u < pixels) {
    store(stored_at(pixel0 + 27u, o), o, s27);
  }
  if (pixel0 + 28u < pixels) {
    store(stored_at(pixel0 + 28u, o), o, s28);
  }
  if (pixel0 + 29u < pixels) {
    store(stored_at(pixel0 + 29u, o), o, s29);
  }
  if (pixel0 + 30u < pixels) {
    store(stored_at(pixel0 + 30u, o), o, s30);
  }
  if (pixel0 + 31u < pixels) {
    store(stored_at(pixel0 + 31u, o), o, s31);
  }
}
