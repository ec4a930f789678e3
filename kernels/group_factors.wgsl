// moments[n, 0, 0, c] = mean of the group of c
// moments[n, 0, 1, c] = scale[c] / √(variance of the group of c + epsilon)
//
// of the means and sums of squares that channel_moments found for slices and channels, joined as
// Chan, Golub & LeVeque (1979) do: what each mean is off the common one is added, squared, to the
// squares.
//
// moments  [N, S, 2, C]  f32, C padded with zeros to a multiple of four
// scale    [C]  f32 or f16
//
// An invocation does one group of one image, whose places in moments no other one reads.

alias Element = f32;

struct Params {
  pixels: u32,
  channels: u32, // C with padding
  slices: u32,
  slice: u32, // pixels
  groups: u32,
  of_group: u32, // channels
  count: u32, // N · groups
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scale: array<Element>;
@group(0) @binding(2) var<storage, read_write> moments: array<f32>;

@compute @workgroup_size(64)
fn group_factors(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let at = id.x + id.y * grid.x * 64u;
  if (at >= params.count) {
    return;
  }
  let from_channel = at % params.groups * params.of_group;
  let start = at / params.groups * params.slices * 2u * params.channels + from_channel;
  let elements = f32(params.pixels) * f32(params.of_group);
  var sum = 0.0;
  for (var s = 0u; s < params.slices; s++) {
    let pixels = f32(min(params.slice, params.pixels - s * params.slice));
    for (var c = 0u; c < params.of_group; c++) {
      sum += pixels * moments[start + s * 2u * params.channels + c];
    }
  }
  let mean = sum / elements;
  var squares = 0.0;
  for (var s = 0u; s < params.slices; s++) {
    let pixels = f32(min(params.slice, params.pixels - s * params.slice));
    for (var c = 0u; c < params.of_group; c++) {
      let place = start + s * 2u * params.channels + c;
      let off = moments[place] - mean;
      squares += moments[place + params.channels] + pixels * off * off;
    }
  }
  let inverse = inverseSqrt(squares / elements + params.epsilon);
  for (var c = 0u; c < params.of_group; c++) {
    moments[start + c] = mean;
    moments[start + params.channels + c] = inverse * f32(scale[from_channel + c]);
  }
}
