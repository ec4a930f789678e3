// found = every pixel (x, y) of the core whose m(x, y) = max_c scores[y, x, c] is at least threshold
//         and beats each of the (2·RADIUS + 1)² − 1 around it: larger, or equal and earlier in
//         reading order
//
// scores  [height, width, 4]  f32
// count   [1]  u32: peaks met, also those for which found had no room; zero before
// found   [capacity, 4]  f32: x and y in pixels with a fraction, score, c; in any order
//
// The fraction comes from the parabola through a peak and its two neighbours on each axis, and is
// at most half a pixel. An invocation looks at one pixel of the core.

struct Params {
  width: u32,
  height: u32,
  core_x: u32, // the core's corner and size: peaks elsewhere are another tile's
  core_y: u32,
  core_width: u32,
  core_height: u32,
  capacity: u32,
  threshold: f32,
}

override RADIUS: u32 = 2;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> count: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> found: array<vec4<f32>>;

fn best(x: i32, y: i32) -> f32 {
  // The edge repeats, so that it makes no peak of itself.
  let s = scores[
    u32(clamp(y, 0, i32(params.height) - 1)) * params.width +
    u32(clamp(x, 0, i32(params.width) - 1))
  ];
  return max(max(s.x, s.y), max(s.z, s.w));
}

// Where the parabola through (−1, before), (0, at), (1, after) is highest; at is the largest of them.
fn vertex(before: f32, at: f32, after: f32) -> f32 {
  let curvature = before - 2.0 * at + after;
  if (curvature > -1e-12) {
    return 0.0;
  }
  return clamp(0.5 * (before - after) / curvature, -0.5, 0.5);
}

@compute @workgroup_size(64)
fn peaks(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.core_width || id.y >= params.core_height) {
    return;
  }
  let x = i32(params.core_x + id.x);
  let y = i32(params.core_y + id.y);
  let here = best(x, y);
  if (here < params.threshold) {
    return;
  }
  let radius = i32(RADIUS);
  for (var dy = -radius; dy <= radius; dy++) {
    for (var dx = -radius; dx <= radius; dx++) {
      let there = best(x + dx, y + dy);
      let earlier = dy < 0 || (dy == 0 && dx < 0);
      if (there > here || (there == here && earlier)) {
        return;
      }
    }
  }
  let at = atomicAdd(&count[0], 1u);
  if (at >= params.capacity) {
    return;
  }
  let s = scores[u32(y) * params.width + u32(x)];
  let c = select(select(select(3.0, 2.0, s.z == here), 1.0, s.y == here), 0.0, s.x == here);
  found[at] = vec4f(
    f32(x) + vertex(best(x - 1, y), here, best(x + 1, y)),
    f32(y) + vertex(best(x, y - 1), here, best(x, y + 1)),
    here,
    c,
  );
}
