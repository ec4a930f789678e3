// output[o, a, i] = Σ input[o, b, i] over b up to a, or with REVERSE from a on, without a itself with
// EXCLUSIVE: ONNX CumSum-14
//
// input, output  [outer, axis, inner]  Element
//
// Computed in Value: f32 for f32 and f16, else the integer type. An invocation computes a row along
// the axis.

alias Element = f32;
alias Value = f32; // not f16

struct Params {
  rows: u32, // outer · inner
  length: u32, // of the axis
  inner: u32,
}

override REVERSE: bool = false;
override EXCLUSIVE: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn cumsum(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + lane;
  if (i >= params.rows) {
    return;
  }
  let outer = i / params.inner;
  let first = outer * params.length * params.inner + i - outer * params.inner;
  var sum = Value();
  for (var k = 0u; k < params.length; k++) {
    let a = select(k, params.length - 1u - k, REVERSE);
    let at = first + a * params.inner;
    let before = sum;
    sum += Value(input[at]);
    output[at] = Element(select(sum, before, EXCLUSIVE));
  }
}
