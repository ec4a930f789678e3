// found[n] = every pixel (x, y) of the core whose m(x, y) = max_c scores[n, y, x, c] is at least
//            threshold and beats each of the (2·RADIUS + 1)² − 1 around it: larger, or equal and
//            earlier in reading order; with EACH those of every channel by itself, m = scores[…, c]
//
// scores  [images, height, width, 4 · quads]  f32 or f16
// count   [images]  u32: peaks met, also those for which found had no room; zero before
// found   [images, capacity, 4]  f32: x and y in pixels with a fraction, score, c; in any order
//
// The fraction comes from the parabola through a peak and its two neighbours on each axis, and is
// at most half a pixel. An invocation looks at one pixel of the core, with EACH at one of its
// channels; z counts images, with EACH images times channels.

alias Element = f32;

struct Params {
  width: u32,
  height: u32,
  quads: u32, // channels, in fours
  core_x: u32, // the core's corner and size: peaks elsewhere are another tile's
  core_y: u32,
  core_width: u32,
  core_height: u32,
  capacity: u32,
  threshold: f32,
}

override RADIUS: u32 = 2;
override EACH: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> count: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> found: array<vec4<f32>>;

// Where the scores of a pixel begin; the edge repeats, so that it makes no peak of itself.
fn pixel(image: u32, x: i32, y: i32) -> u32 {
  let row = image * params.height + u32(clamp(y, 0, i32(params.height) - 1));
  return (row * params.width + u32(clamp(x, 0, i32(params.width) - 1))) * params.quads;
}

// The score of a pixel, of `channel` with EACH.
fn best(image: u32, channel: u32, x: i32, y: i32) -> f32 {
  let at = pixel(image, x, y);
  if (EACH) {
    return f32(scores[at + channel / 4u][channel % 4u]);
  }
  var most = vec4f(scores[at]);
  for (var quad = 1u; quad < params.quads; quad++) {
    most = max(most, vec4f(scores[at + quad]));
  }
  return max(max(most.x, most.y), max(most.z, most.w));
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
  let channels = select(1u, 4u * params.quads, EACH);
  let image = id.z / channels;
  var c = id.z % channels;
  let here = best(image, c, x, y);
  if (here < params.threshold) {
    return;
  }
  let radius = i32(RADIUS);
  for (var dy = -radius; dy <= radius; dy++) {
    for (var dx = -radius; dx <= radius; dx++) {
      let there = best(image, c, x + dx, y + dy);
      let earlier = dy < 0 || (dy == 0 && dx < 0);
      if (there > here || (there == here && earlier)) {
        return;
      }
    }
  }
  let at = atomicAdd(&count[image], 1u);
  if (at >= params.capacity) {
    return;
  }
  if (!EACH) {
    let first = pixel(image, x, y);
    while (f32(scores[first + c / 4u][c % 4u]) != here && c + 1u < 4u * params.quads) {
      c++;
    }
  }
  found[image * params.capacity + at] = vec4f(
    f32(x) + vertex(best(image, c, x - 1, y), here, best(image, c, x + 1, y)),
    f32(y) + vertex(best(image, c, x, y - 1), here, best(image, c, x, y + 1)),
    here,
    f32(c),
  );
}
