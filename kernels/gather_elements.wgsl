// output[i] = input[Σ_k i_k · from_k + indices[i] · axis_stride]: ONNX GatherElements-13
//
// input            Items that are moved as they are; from_k is 0 along the axis
// indices, output  dense, of one shape; i runs over RANK axes of size_k, innermost first; an index
//                  is counted from the end where negative and held within the axis
//
// A workgroup moves ITEMS · 256 Items.

alias Item = u32;

struct Params {
  count: u32, // Π size_k
  axis_size: u32,
  axis_stride: u32,
  size0: u32,
  size1: u32,
  size2: u32,
  size3: u32,
  size4: u32,
  size5: u32,
  size6: u32,
  size7: u32,
  from0: u32,
  from1: u32,
  from2: u32,
  from3: u32,
  from4: u32,
  from5: u32,
  from6: u32,
  from7: u32,
}

override RANK: u32 = 1;
const ITEMS = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Item>;
@group(0) @binding(2) var<storage, read> indices: array<i32>;
@group(0) @binding(3) var<storage, read_write> output: array<Item>;

// What remains of an index, and where the input is.
struct Place {
  rest: u32,
  at: u32,
}

fn along(place: Place, size: u32, stride: u32) -> Place {
  let rest = place.rest / size;
  return Place(rest, place.at + (place.rest - rest * size) * stride);
}

fn offset(index: u32) -> u32 {
  var p = along(Place(index, 0u), params.size0, params.from0);
  if (RANK > 1u) { p = along(p, params.size1, params.from1); }
  if (RANK > 2u) { p = along(p, params.size2, params.from2); }
  if (RANK > 3u) { p = along(p, params.size3, params.from3); }
  if (RANK > 4u) { p = along(p, params.size4, params.from4); }
  if (RANK > 5u) { p = along(p, params.size5, params.from5); }
  if (RANK > 6u) { p = along(p, params.size6, params.from6); }
  if (RANK > 7u) { p = along(p, params.size7, params.from7); }
  return p.at;
}

@compute @workgroup_size(256)
fn gather_elements(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * (ITEMS * 256u) + lane;
  let size = i32(params.axis_size);
  for (var k = 0u; k < ITEMS; k++) {
    let i = first + k * 256u;
    if (i < params.count) {
      let index = indices[i];
      let held = clamp(select(index, index + size, index < 0), 0, size - 1);
      output[i] = input[offset(i) + u32(held) * params.axis_stride];
    }
  }
}
