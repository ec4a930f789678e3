// output[.., indices[p, j], ..] ⊕= updates[p, j] for every j along the axis, one after the other:
// ONNX ScatterElements-18 by REDUCTION as in scatter.ts
//
// indices, updates  dense, of one shape, i32 and Element: p runs over RANK axes of size_k without the
//                   axis, innermost first, with own_k in them and to_k in the output; along the axis
//                   own_axis and to_axis
// output            Element, dense; it holds the data before
//
// An invocation writes what one p can reach, which no other can, so equal indices need no atomics.
// Computed in Value: f32 for f32 and f16, else the integer type. An index is counted from the end
// where negative and held within the axis.

alias Element = f32;
alias Value = f32; // not f16

struct Params {
  count: u32, // Π size_k
  length: u32, // of the indices' axis
  own_axis: u32,
  axis_size: u32, // of the output's
  to_axis: u32,
  size0: u32,
  size1: u32,
  size2: u32,
  size3: u32,
  size4: u32,
  size5: u32,
  size6: u32,
  size7: u32,
  own0: u32,
  own1: u32,
  own2: u32,
  own3: u32,
  own4: u32,
  own5: u32,
  own6: u32,
  own7: u32,
  to0: u32,
  to1: u32,
  to2: u32,
  to3: u32,
  to4: u32,
  to5: u32,
  to6: u32,
  to7: u32,
}

override REDUCTION: u32 = 0;
override RANK: u32 = 1;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> indices: array<i32>;
@group(0) @binding(2) var<storage, read> updates: array<Element>;
@group(0) @binding(3) var<storage, read_write> output: array<Element>;

// What remains of an index, and where the indices and the output are.
struct Place {
  rest: u32,
  at: vec2<u32>,
}

fn along(place: Place, size: u32, own: u32, to: u32) -> Place {
  let rest = place.rest / size;
  return Place(rest, place.at + (place.rest - rest * size) * vec2<u32>(own, to));
}

fn offsets(index: u32) -> vec2<u32> {
  var p = along(Place(index, vec2<u32>()), params.size0, params.own0, params.to0);
  if (RANK > 1u) { p = along(p, params.size1, params.own1, params.to1); }
  if (RANK > 2u) { p = along(p, params.size2, params.own2, params.to2); }
  if (RANK > 3u) { p = along(p, params.size3, params.own3, params.to3); }
  if (RANK > 4u) { p = along(p, params.size4, params.own4, params.to4); }
  if (RANK > 5u) { p = along(p, params.size5, params.own5, params.to5); }
  if (RANK > 6u) { p = along(p, params.size6, params.own6, params.to6); }
  if (RANK > 7u) { p = along(p, params.size7, params.own7, params.to7); }
  return p.at;
}

fn reduced(old: Value, update: Value) -> Value {
  switch (REDUCTION) {
    case 1u: { return old + update; } // add
    case 2u: { return old * update; } // mul
    case 3u: { return min(old, update); }
    case 4u: { return max(old, update); }
    default: { return update; }
  }
}

@compute @workgroup_size(64)
fn scatter_elements(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let p = (group.x + group.y * groups.x) * 64u + lane;
  if (p >= params.count) {
    return;
  }
  let first = offsets(p);
  let size = i32(params.axis_size);
  for (var j = 0u; j < params.length; j++) {
    let own = first.x + j * params.own_axis;
    let index = indices[own];
    let held = clamp(select(index, index + size, index < 0), 0, size - 1);
    let to = first.y + u32(held) * params.to_axis;
    output[to] = Element(reduced(Value(output[to]), Value(updates[own])));
  }
}
