// output[o, k, i] = input[o, indices[b, k], i]: ONNX Gather-13 and GatherND-13
//
// input    [outer, Π size_t, inner]  Items that are moved as they are; every count is in them
// indices  [.., picks, TUPLE]  i32, negative ones counted from the end, held within the axis; one list
//          for all, or with BATCHED one for each o
// output   [outer, picks, inner]
//
// A tuple's index is Σ_t index_t · stride_t. A workgroup moves ITEMS · 256 Items.

alias Item = u32;

struct Params {
  count: u32, // outer · picks · inner
  picks: u32,
  inner: u32,
  outer_stride: u32,
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

override TUPLE: u32 = 1;
override BATCHED: bool = false;
const ITEMS = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Item>;
@group(0) @binding(2) var<storage, read> indices: array<i32>;
@group(0) @binding(3) var<storage, read_write> output: array<Item>;

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

@compute @workgroup_size(256)
fn gather(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * (ITEMS * 256u) + lane;
  for (var k = 0u; k < ITEMS; k++) {
    let i = first + k * 256u;
    if (i < params.count) {
      let row = i / params.inner;
      let outer = row / params.picks;
      let tuple = select(row - outer * params.picks, row, BATCHED);
      output[i] = input[outer * params.outer_stride + place_of(tuple) + i - row * params.inner];
    }
  }
}
