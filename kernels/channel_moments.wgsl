// moments[n, s, 0, c] = mean over the pixels p of slice s of input[n, p, c]
// moments[n, s, 1, c] = Σ_p (input[n, p, c] − mean)² over them
//
// input    [N, P, C]  f32 or f16, all pixels in one axis, C padded with zeros to a multiple of four
// moments  [N, S, 2, C]  f32
//
// Slice s has the pixels from s · slice on, at most `slice` of them. A workgroup takes X · 4 channels
// of one slice of one image: an invocation every Yth pixel of four of them, then Y partial sums are
// joined in a tree. With Y = 1 there is no tree, which suits software adapters. The mean goes first
// and then the squares of what is left, since those of a large mean would drown them.

alias Element = f32;

struct Params {
  pixels: u32,
  channels4: u32,
  slices: u32,
  slice: u32, // pixels
  count: u32, // N · S
}

override X: u32 = 8;
override Y: u32 = 32; // a power of two

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> moments: array<vec4<f32>>;

var<workgroup> partial: array<vec4f, X * Y>;

// Σ of `part` over the Y invocations of the same channels.
fn over_pixels(part: vec4f, x: u32, y: u32) -> vec4f {
  if (Y == 1u) {
    return part;
  }
  partial[y * X + x] = part;
  workgroupBarrier(); // What the upper half wrote is there before the lower one reads it.
  for (var half = Y / 2u; half > 0u; half /= 2u) {
    if (y < half) {
      partial[y * X + x] += partial[(y + half) * X + x];
    }
    workgroupBarrier(); // The same for the next half.
  }
  let total = partial[x];
  workgroupBarrier(); // And read by all before the next sum overwrites it.
  return total;
}

@compute @workgroup_size(X, Y)
fn channel_moments(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  // Both are the same for the whole workgroup, so that all of it leaves or none.
  let place = group.y + group.z * grid.y;
  if (place >= params.count) {
    return;
  }
  let image = place / params.slices;
  let first = place % params.slices * params.slice;
  let channel = group.x * X + local.x;
  let pixels = min(params.slice, params.pixels - first);
  // Channels past the end have no pixels: they only keep the others company at the barriers.
  let end = select(0u, pixels, channel < params.channels4);
  let start = (image * params.pixels + first) * params.channels4 + channel;
  var part = vec4f();
  for (var p = local.y; p < end; p += Y) {
    part += vec4f(input[start + p * params.channels4]);
  }
  let mean = over_pixels(part, local.x, local.y) / f32(pixels);
  part = vec4f();
  for (var p = local.y; p < end; p += Y) {
    let left = vec4f(input[start + p * params.channels4]) - mean;
    part += left * left;
  }
  let squares = over_pixels(part, local.x, local.y);
  if (local.y == 0u && channel < params.channels4) {
    moments[place * 2u * params.channels4 + channel] = mean;
    moments[(place * 2u + 1u) * params.channels4 + channel] = squares;
  }
}
