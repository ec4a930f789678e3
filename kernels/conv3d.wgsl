// output[n, z, y, x, o] = act(Σ_{h, i, j, c} input[n, z·stride_z − pad_z + h·dilation_z, y·stride_y − pad_y + i·dilation_y,
//                                               x·stride_x − pad_x + j·dilation_x, c + group · C/groups]
//                                         · weights[h, i, j, c, o] + bias[o])                     (ONNX Conv-11)
//
// input    [N, D, H, W, C]            C padded with zeros to a multiple of four; zero outside
// weights  [KD, KH, KW, C/groups, O]  a group may begin anywhere within a vec4
// bias     [O]                        where BIAS
// output   [N, OD, OH, OW, O]         O padded to a multiple of four; the padding is stored as zero
//
// An invocation computes four output channels of one voxel, each from its own group, which is
// o / (O/groups). A workgroup is 64 of them, channels fastest.

struct Params {
  images: u32, // N
  depth: u32, // D
  height: u32, // H
  width: u32, // W
  channels: u32, // C
  out_depth: u32, // OD
  out_height: u32, // OH
  out_width: u32, // OW
  out_channels: u32, // O without padding
  out_channels4: u32, // O / 4
  group_channels: u32, // C / groups
  group_out_channels: u32, // O / groups
  kernel_depth: u32, // KD
  kernel_height: u32, // KH
  kernel_width: u32, // KW
  stride_z: u32,
  stride_y: u32,
  stride_x: u32,
  pad_z: i32, // in front
  pad_y: i32, // above
  pad_x: i32, // on the left
  dilation_z: u32,
  dilation_y: u32,
  dilation_x: u32,
  a: f32, // the activation's constants
  b: f32,
}

// What is stored: f32 or f16.
alias Element = f32;

override BIAS: bool = false;
// Whether Element is f16, beyond whose largest value stored ones are held.
override SATURATE: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<Element>>;
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

@compute @workgroup_size(64)
fn conv3d(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
) {
  let index = id.y * workgroups.x * 64u + id.x;
  let o = index % params.out_channels4;
  let voxel = index / params.out_channels4;
  let x = voxel % params.out_width;
  let y = voxel / params.out_width % params.out_height;
  let z = voxel / params.out_width / params.out_height % params.out_depth;
  let n = voxel / params.out_width / params.out_height / params.out_depth;
  if (n >= params.images) {
    return;
  }
  // Where the group of each lane begins; padding lanes stay within the voxel, at weights of zero.
  let lanes = vec4u(4u * o) + vec4u(0u, 1u, 2u, 3u);
  let first = min(lanes / params.group_out_channels * params.group_channels, vec4u(params.channels - params.group_channels));
  let size = vec3i(vec3u(params.width, params.height, params.depth));
  let origin = vec3i(vec3u(x * params.stride_x, y * params.stride_y, z * params.stride_z)) - vec3i(params.pad_x, params.pad_y, params.pad_z);
  var sum = vec4f();
  var at = o;
  for (var h = 0u; h < params.kernel_depth; h++) {
    for (var i = 0u; i < params.kernel_height; i++) {
      for (var j = 0u; j < params.kernel_width; j++) {
        let source = origin + vec3i(vec3u(j * params.dilation_x, i * params.dilation_y, h * params.dilation_z));
        let inside = all(source >= vec3i()) && all(source < size);
        let p = vec3u(select(vec3i(), source, inside));
        let voxel_at = ((n * params.depth + p.z) * params.height + p.y) * params.width + p.x;
        let from_lanes = first + voxel_at * params.channels;
        for (var c = 0u; c < params.group_channels; c++) {
          let v = vec4f(
            f32(input[from_lanes.x + c]),
            f32(input[from_lanes.y + c]),
            f32(input[from_lanes.z + c]),
            f32(input[from_lanes.w + c]),
          );
          sum += select(vec4f(), v, inside) * vec4f(weights[at]);
          at += params.out_channels4;
        }
      }
    }
  }
  if (BIAS) {
    sum += vec4f(bias[o]);
  }
  sum = select(vec4f(), activate(sum, params.a, params.b), lanes < vec4u(params.out_channels));
  if (SATURATE) {
    sum = clamp(sum, vec4f(-65504.0), vec4f(65504.0));
  }
  output[index] = vec4<Element>(sum);
}
