// output[n, p, c] = (input[n, p, c] − moments[n, 0, 0, c]) · moments[n, 0, 1, c] + bias[c]
//
// input    [N, P, C]  f32 or f16, all pixels in one axis, C padded with zeros to a multiple of four
// moments  [N, S, 2, C]  f32: as group_factors leaves them
// bias     [C]  the same type as the input
// output   [N, P, C]  the same type; f16 saturates at ±65504
//
// An invocation computes four channels of one pixel.

alias Element = f32;

struct Params {
  count: u32, // vec4s of output
  pixels: u32,
  channels4: u32,
  slices: u32,
}

// Element's largest number: f16 does not keep 0.1 to f32's digits.
const LARGEST = select(3.4028234e38f, 65504.0f, f32(Element(0.1)) != 0.1f);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> moments: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<Element>>;
@group(0) @binding(4) var<storage, read_write> output: array<vec4<Element>>;

@compute @workgroup_size(64)
fn group_norm(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let at = id.x + id.y * grid.x * 64u;
  if (at >= params.count) {
    return;
  }
  let channel = at % params.channels4;
  let image = at / params.channels4 / params.pixels;
  let place = image * params.slices * 2u * params.channels4 + channel;
  let y = (vec4f(input[at]) - moments[place]) * moments[place + params.channels4] +
    vec4f(bias[channel]);
  output[at] = vec4<Element>(clamp(y, vec4f(-LARGEST), vec4f(LARGEST)));
}
