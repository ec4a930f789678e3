// list: areas, bounding boxes and coordinates' sums of the components that components_list began
//
// labels  [images, height, width]  u32: one more than a component's first pixel, 0 for background
// kinds   [images, height, width]  u32: at a component's first pixel its row in list
// list    [capacity, 12]  u32: label, class, area, least x and y, greatest x and y, Σx and Σy of two
//         words each, low first, image
//
// An invocation goes along 32 pixels of a row and adds what runs of one component come to: sums of
// whole numbers, the same in any order. Where a low word comes round, the one addition that made it
// do so carries.

struct Params {
  width: u32,
  height: u32,
  rows: u32, // height, images times
  capacity: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> kinds: array<u32>;
@group(0) @binding(3) var<storage, read_write> list: array<atomic<u32>>;

fn add(at: u32, value: u32) {
  let before = atomicAdd(&list[at], value);
  if (before + value < before) {
    atomicAdd(&list[at + 1u], 1u);
  }
}

@compute @workgroup_size(64)
fn components_measure(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let spans = (params.width + 31u) / 32u;
  let span = id.x + id.y * grid.x * 64u;
  let row = span / spans;
  if (row >= params.rows) {
    return;
  }
  let y = row % params.height;
  var x = 32u * (span % spans);
  let end = min(params.width, x + 32u);
  while (x < end) {
    let label = labels[row * params.width + x];
    let from_ = x;
    x++;
    while (x < end && labels[row * params.width + x] == label) {
      x++;
    }
    if (label == 0u) {
      continue;
    }
    let place = kinds[label - 1u];
    if (place >= params.capacity) {
      continue;
    }
    let to = 12u * place;
    let length = x - from_;
    atomicAdd(&list[to + 2u], length);
    atomicMin(&list[to + 3u], from_);
    atomicMin(&list[to + 4u], y);
    atomicMax(&list[to + 5u], x - 1u);
    atomicMax(&list[to + 6u], y);
    add(to + 7u, (from_ + x - 1u) * length / 2u);
    add(to + 9u, y * length);
  }
}
