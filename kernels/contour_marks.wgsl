// marks = a mark for every pixel of a component that has a neighbour of another label, or the image's
//         edge, on one of its four sides
//
// labels  [images, height, width]  u32, 0 for background: those of components.ts
// count   [1]  u32: marks met, also those for which marks had no room; zero before
// marks   [capacity]  vec2 of u32: 16 · pixel + sides, and the pixel's label; in any order
//
// `pixel` is the number of all images · height · width, and `sides` the sum of 1 for above, 2 for
// right, 4 for below and 8 for left. An invocation is one pixel.

struct Params {
  width: u32,
  height: u32,
  pixels: u32, // below 2²⁸, so that four bits are left
  capacity: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> count: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> marks: array<vec2<u32>>;

@compute @workgroup_size(64)
fn contour_marks(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let i = id.x + id.y * grid.x * 64u;
  if (i >= params.pixels) {
    return;
  }
  let label = labels[i];
  if (label == 0u) {
    return;
  }
  let x = i % params.width;
  let y = i / params.width % params.height;
  var sides = 0u;
  if (y == 0u || labels[i - min(i, params.width)] != label) {
    sides |= 1u;
  }
  if (x + 1u == params.width || labels[min(i + 1u, params.pixels - 1u)] != label) {
    sides |= 2u;
  }
  if (y + 1u == params.height || labels[min(i + params.width, params.pixels - 1u)] != label) {
    sides |= 4u;
  }
  if (x == 0u || labels[i - min(i, 1u)] != label) {
    sides |= 8u;
  }
  if (sides == 0u) {
    return;
  }
  let at = atomicAdd(&count[0], 1u);
  if (at < params.capacity) {
    marks[at] = vec2u(16u * i + sides, label);
  }
}
