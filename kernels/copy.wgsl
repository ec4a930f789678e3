// output[to + Σ_k i_k · to_k] = input[from + Σ_k i_k · from_k]
//
// input, output  Items: four, two or sixteen bytes that are moved as they are. Offsets and strides
//                count Items and may be negative, wrapped; i runs over RANK axes of size_k,
//                innermost first
//
// A workgroup moves ITEMS · 256 Items.

alias Item = u32;

struct Params {
  count: u32, // Π size_k
  input_offset: u32,
  output_offset: u32,
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
  to0: u32,
  to1: u32,
  to2: u32,
  to3: u32,
  to4: u32,
  to5: u32,
  to6: u32,
  to7: u32,
}

override RANK: u32 = 1;
const ITEMS = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Item>;
@group(0) @binding(2) var<storage, read_write> output: array<Item>;

// What remains of an index, and where input and output are.
struct Place {
  rest: u32,
  at: vec2<u32>,
}

fn along(place: Place, size: u32, from_stride: u32, to_stride: u32) -> Place {
  let rest = place.rest / size;
  return Place(rest, place.at + (place.rest - rest * size) * vec2<u32>(from_stride, to_stride));
}

fn offsets(index: u32) -> vec2<u32> {
  var p = Place(index, vec2<u32>(params.input_offset, params.output_offset));
  if (RANK == 1u) { return p.at + p.rest * vec2<u32>(params.from0, params.to0); }
  p = along(p, params.size0, params.from0, params.to0);
  if (RANK == 2u) { return p.at + p.rest * vec2<u32>(params.from1, params.to1); }
  p = along(p, params.size1, params.from1, params.to1);
  if (RANK == 3u) { return p.at + p.rest * vec2<u32>(params.from2, params.to2); }
  p = along(p, params.size2, params.from2, params.to2);
  if (RANK == 4u) { return p.at + p.rest * vec2<u32>(params.from3, params.to3); }
  p = along(p, params.size3, params.from3, params.to3);
  if (RANK == 5u) { return p.at + p.rest * vec2<u32>(params.from4, params.to4); }
  p = along(p, params.size4, params.from4, params.to4);
  if (RANK == 6u) { return p.at + p.rest * vec2<u32>(params.from5, params.to5); }
  p = along(p, params.size5, params.from5, params.to5);
  if (RANK == 7u) { return p.at + p.rest * vec2<u32>(params.from6, params.to6); }
  p = along(p, params.size6, params.from6, params.to6);
  return p.at + p.rest * vec2<u32>(params.from7, params.to7);
}

@compute @workgroup_size(256)
fn copy(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * (ITEMS * 256u) + lane;
  for (var k = 0u; k < ITEMS; k++) {
    let i = first + k * 256u;
    if (i < params.count) {
      let at = offsets(i);
      output[at.y] = input[at.x];
    }
  }
}
