// output[indices[n], i] ⊕= updates[n, i] for every n, one after the other: ONNX ScatterND-18 by
// REDUCTION as in scatter.ts
//
// indices  [picks, TUPLE]  i32, negative ones counted from the end, held within their axes
// updates  [picks, inner]  Element
// output   [Π size_t, inner]  Element; it holds the data before
//
// A tuple's place is Σ_t index_t · stride_t. An invocation writes one i of all n, in order, so equal
// tuples need no atomics; where nothing is reduced equal ones may win in any order, and an invocation
// writes one (n, i). Computed in Value: f32 for f32 and f16, else the integer type.

alias Element = f32;
alias Value = f32; // not f16

struct Params {
  picks: u32,
  inner: u32,
  size0: u32,
  size1: u32,
  size2: u32,
  size3: u32,
  size4: u32,
  size5: u32,
  size6: u32,
  size7: u32,
  stride0: u32,
  stride1: u32,
  stride2: u32,
  stride3: u32,
  stride4: u32,
  stride5: u32,
  stride6: u32,
  stride7: u32,
}

override REDUCTION: u32 = 0;
override TUPLE: u32 = 1;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> indices: array<i32>;
@group(0) @binding(2) var<storage, read> updates: array<Element>;
@group(0) @binding(3) var<storage, read_write> output: array<Element>;

fn held(index: i32, size: u32) -> u32 {
  return u32(clamp(select(index, index + i32(size), index < 0), 0, i32(size) - 1));
}

fn place_of(tuple: u32) -> u32 {
  let first = tuple * TUPLE;
  var at = held(indices[first], params.size0) * params.stride0;
  if (TUPLE > 1u) { at += held(indices[first + 1u], params.size1) * params.stride1; }
  if (TUPLE > 2u) { at += held(indices[first + 2u], params.size2) * params.stride2; }
  if (TUPLE > 3u) { at += held(indices[first + 3u], params.size3) * params.stride3; }
  if (TUPLE > 4u) { at += held(indices[first + 4u], params.size4) * params.stride4; }
  if (TUPLE > 5u) { at += held(indices[first + 5u], params.size5) * params.stride5; }
  if (TUPLE > 6u) { at += held(indices[first + 6u], params.size6) * params.stride6; }
  if (TUPLE > 7u) { at += held(indices[first + 7u], params.size7) * params.stride7; }
  return at;
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
fn scatter_nd(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + lane;
  if (REDUCTION == 0u) {
    if (i < params.picks * params.inner) {
      let n = i / params.inner;
      output[place_of(n) + i - n * params.inner] = updates[i];
    }
    return;
  }
  if (i >= params.inner) {
    return;
  }
  for (var n = 0u; n < params.picks; n++) {
    let to = place_of(n) + i;
    output[to] = Element(reduced(Value(output[to]), Value(updates[n * params.inner + i])));
  }
}
