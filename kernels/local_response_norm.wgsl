// output[p, c] = input[p, c] / (offset + factor · Σ_j input[p, j]²)^exponent, j from c − before to c + behind
//
// input, output  [P, C]  f32 or f16, of which the first `channels` count; the others become zeros;
//                f16 saturates at ±65504
//
// An invocation computes one element.

alias Element = f32;

struct Params {
  count: u32, // elements of output
  row: u32, // C
  channels: u32,
  before: u32, // channels of the window before c
  behind: u32,
  factor: f32,
  offset: f32,
  exponent: f32,
}

// Element's largest number: f16 does not keep 0.1 to f32's digits.
const LARGEST = select(3.4028234e38f, 65504.0f, f32(Element(0.1)) != 0.1f);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn local_response_norm(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let at = id.x + id.y * grid.x * 64u;
  if (at >= params.count) {
    return;
  }
  let c = at % params.row;
  if (c >= params.channels) {
    output[at] = Element();
    return;
  }
  let first = max(c, params.before) - params.before;
  let end = min(c + params.behind + 1u, params.channels);
  var squares = 0.0;
  for (var j = first; j < end; j++) {
    let v = f32(input[at - c + j]);
    squares += v * v;
  }
  let y = f32(input[at]) * pow(params.offset + params.factor * squares, -params.exponent);
  output[at] = Element(clamp(y, -LARGEST, LARGEST));
}
