// output[o, i] = the a for which input[o, a, i] is largest, or smallest: ONNX ArgMax-13, ArgMin-13
//
// input   [outer, axis, inner]  Element
// output  [outer, inner]        i32; of equal ones the first, with LAST the last
//
// An invocation computes one output, or with ACROSS, where inner is a multiple of four, four.

alias Element = f32;

struct Params {
  outputs: u32, // outer · inner, in fours with ACROSS
  length: u32, // of the axis
  inner: u32,
}

override SMALLEST: bool = false;
override LAST: bool = false;
override ACROSS: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<i32>>;

fn load(at: u32) -> vec4<Element> {
  if (ACROSS) {
    return input[at / 4u];
  }
  return vec4<Element>(input[at / 4u][at % 4u]);
}

@compute @workgroup_size(64)
fn argmax(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + lane;
  if (i >= params.outputs) {
    return;
  }
  let element = select(i, 4u * i, ACROSS);
  let outer = element / params.inner;
  var at = outer * params.length * params.inner + element - outer * params.inner;
  var best = load(at);
  var found = vec4<i32>();
  for (var a = 1u; a < params.length; a++) {
    at += params.inner;
    let v = load(at);
    var better = v > best;
    if (SMALLEST) { better = v < best; }
    if (LAST) { better = better | (v == best); }
    best = select(best, v, better);
    found = select(found, vec4<i32>(i32(a)), better);
  }
  if (ACROSS) {
    output[i] = found;
  } else {
    output[i / 4u][i % 4u] = found.x;
  }
}
