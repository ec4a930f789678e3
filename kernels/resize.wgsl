// output[n, z, y, x, c] = Σ_i Σ_j Σ_k weight_z[z, i] · weight_y[y, j] · weight_x[x, k] · input[n, index_z[z, i], …, c]
//
// or extrapolation where an axis has no weights there. taps[…] holds an index and the bits of a
// weight: those of z from 0, in order of z and i, then those of y from taps_y, then of x.
//
// input   [N, depth, height, width, C]  f32 or f16, C a multiple of four
// taps    [out_depth · count_z + out_height · count_y + out_width · count_x]  u32 and bits of f32
// output  [N, out_depth, out_height, out_width, C]  the same type; f16 saturates at ±65504
//
// An invocation computes four channels of one output pixel, summed in f32.

alias Element = f32;

struct Params {
  count: u32, // vec4s of output
  channels: u32, // C / 4
  depth: u32,
  height: u32,
  width: u32,
  out_depth: u32,
  out_height: u32,
  out_width: u32,
  count_z: u32, // taps of an output pixel
  count_y: u32,
  count_x: u32,
  taps_y: u32,
  taps_x: u32,
  extrapolation: f32,
}

// Element's largest number: f16 does not keep 0.1 to f32's digits.
const LARGEST = select(3.4028234e38f, 65504.0f, f32(Element(0.1)) != 0.1f);
// The index that says that there are no weights.
const OUTSIDE = 0xffffffffu;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> taps: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<Element>>;

@compute @workgroup_size(64)
fn resize(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
  let at = id.x + id.y * grid.x * 64u;
  if (at >= params.count) {
    return;
  }
  let channel = at % params.channels;
  var rest = at / params.channels;
  let from_x = params.taps_x + (rest % params.out_width) * params.count_x;
  rest /= params.out_width;
  let from_y = params.taps_y + (rest % params.out_height) * params.count_y;
  rest /= params.out_height;
  let from_z = (rest % params.out_depth) * params.count_z;
  let image = rest / params.out_depth * params.depth;
  var sum = vec4f();
  if (taps[from_x].x == OUTSIDE || taps[from_y].x == OUTSIDE || taps[from_z].x == OUTSIDE) {
    sum = vec4f(params.extrapolation);
  } else {
    for (var i = 0u; i < params.count_z; i++) {
      let z = taps[from_z + i];
      for (var j = 0u; j < params.count_y; j++) {
        let y = taps[from_y + j];
        let row = ((image + z.x) * params.height + y.x) * params.width;
        var part = vec4f();
        for (var k = 0u; k < params.count_x; k++) {
          let x = taps[from_x + k];
          part += bitcast<f32>(x.y) * vec4f(input[(row + x.x) * params.channels + channel]);
        }
        sum += bitcast<f32>(z.y) * bitcast<f32>(y.y) * part;
      }
    }
  }
  output[at] = vec4<Element>(clamp(sum, vec4f(-LARGEST), vec4f(LARGEST)));
}
