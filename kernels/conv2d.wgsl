// output[n, y, x, o] = act(bias[o] + Σ_{i, j, c} input[n, y·stride_y − pad_y + i, x·stride_x − pad_x + j, c]
//                                              · weights[i, j, c, o])        (ONNX Conv-11, group 1)
//
// input    [N, H, W, C]   f32, C padded with zeros to a multiple of four; zero outside
// weights  [KH, KW, C, O] f32, C and O padded with zeros to multiples of four
// bias     [O]            f32
// output   [N, OH, OW, O] f32
//
// An invocation computes four neighbours in x of four output channels, so that a weight is read
// once for four pixels. A workgroup is 64 of them along x; y is (n, y), z the channels.

struct Params {
  height: u32, // H
  width: u32, // W
  channels4: u32, // C / 4
  out_height: u32, // OH
  out_width: u32, // OW
  out_channels4: u32, // O / 4
  kernel_height: u32, // KH
  kernel_width: u32, // KW
  stride_y: u32,
  stride_x: u32,
  pad_y: u32,
  pad_x: u32,
}

// 0: identity, 1: max(v, 0)
override ACTIVATION: u32 = 0;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> output: array<vec4<f32>>;

fn act(v: vec4f) -> vec4f {
  if (ACTIVATION == 1u) {
    return max(v, vec4f());
  }
  return v;
}

// The vec4 of input at x of the row that begins at `row`, zero outside.
fn tap(row: u32, x: i32, c: u32) -> vec4f {
  let inside = x >= 0 && x < i32(params.width);
  let at = row + u32(select(0, x, inside)) * params.channels4 + c;
  return select(vec4f(), input[at], inside);
}

@compute @workgroup_size(64)
fn conv2d(@builtin(global_invocation_id) id: vec3<u32>) {
  let x0 = id.x * 4u;
  if (x0 >= params.out_width) {
    return;
  }
  let n = id.y / params.out_height;
  let y = id.y % params.out_height;
  let o = id.z;
  var s0 = bias[o];
  var s1 = s0;
  var s2 = s0;
  var s3 = s0;
  let stride = i32(params.stride_x);
  let from_y = i32(y * params.stride_y) - i32(params.pad_y);
  let from_x = i32(x0 * params.stride_x) - i32(params.pad_x);
  for (var i = 0u; i < params.kernel_height; i++) {
    let source_y = from_y + i32(i);
    if (source_y < 0 || source_y >= i32(params.height)) {
      continue;
    }
    let row = (n * params.height + u32(source_y)) * params.width * params.channels4;
    for (var j = 0u; j < params.kernel_width; j++) {
      let x = from_x + i32(j);
      for (var c = 0u; c < params.channels4; c++) {
        let at = (((i * params.kernel_width + j) * params.channels4 + c) * 4u) * params.out_channels4 + o;
        let m = mat4x4f(
          weights[at],
          weights[at + params.out_channels4],
          weights[at + 2u * params.out_channels4],
          weights[at + 3u * params.out_channels4],
        );
        s0 += m * tap(row, x, c);
        s1 += m * tap(row, x + stride, c);
        s2 += m * tap(row, x + 2 * stride, c);
        s3 += m * tap(row, x + 3 * stride, c);
      }
    }
  }
  let at = (id.y * params.out_width + x0) * params.out_channels4 + o;
  output[at] = act(s0);
  if (x0 + 1u < params.out_width) {
    output[at + params.out_channels4] = act(s1);
  }
  if (x0 + 2u < params.out_width) {
    output[at + 2u * params.out_channels4] = act(s2);
  }
  if (x0 + 3u < params.out_width) {
    output[at + 3u * params.out_channels4] = act(s3);
  }
}
