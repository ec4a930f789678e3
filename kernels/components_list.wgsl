// labels[i] = one more than the first pixel, in reading order, of i's component; 0 for background
// list      = a row for each component, in any order, begun for components_measure
//
// labels  [images, height, width]  u32, as components_merge leaves them
// kinds   [images, height, width]  u32; of a component's first pixel it becomes its row in list
// count   [1]  u32: components met, also those for which list had no room; zero before
// list    [capacity, 12]  u32: label, class, area, least x and y, greatest x and y, Σx and Σy of two
//         words each, low first, image
//
// An invocation is one pixel.

struct Params {
  pixels: u32,
  image_pixels: u32,
  capacity: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> labels: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read_write> kinds: array<u32>;
@group(0) @binding(3) var<storage, read_write> count: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> list: array<u32>;

@compute @workgroup_size(64)
fn components_list(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let i = id.x + id.y * grid.x * 64u;
  if (i >= params.pixels) {
    return;
  }
  var at = atomicLoad(&labels[i]);
  if (at == 0u) {
    return;
  }
  if (at != i + 1u) {
    // Others shorten their own way meanwhile; what they store leads to the same root.
    loop {
      let parent = atomicLoad(&labels[at - 1u]);
      if (parent == at) {
        break;
      }
      at = parent;
    }
    atomicStore(&labels[i], at);
    return;
  }
  let row = atomicAdd(&count[0], 1u);
  let kind = kinds[i];
  kinds[i] = row;
  if (row >= params.capacity) {
    return;
  }
  let to = 12u * row;
  list[to] = at;
  list[to + 1u] = kind - 1u;
  list[to + 2u] = 0u;
  list[to + 3u] = 0xffffffffu;
  list[to + 4u] = 0xffffffffu;
  for (var k = 5u; k < 11u; k++) {
    list[to + k] = 0u;
  }
  list[to + 11u] = i / params.image_pixels;
}
