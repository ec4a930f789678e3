// output[o, a, i] = exp(input[o, a, i] − m) / Σ_a exp(input[o, a, i] − m), m the largest along a;
// with LOG its logarithm: ONNX Softmax-13, LogSoftmax-13
//
// input, output  [outer, axis, inner]  Element
//
// Computed in f32. An invocation computes a row along the axis, or with ACROSS, where inner is a
// multiple of four, four rows; with ALONG, where inner is 1 and the axis a multiple of four, four
// elements of its row at once. Three passes, the latter from the cache. Where all of a row is −∞ the
// result is 0, of LOG −∞. No workgroup memory: softmax_rows is for GPUs.

alias Element = f32;

struct Params {
  rows: u32, // outer · inner, in fours with ACROSS
  length: u32, // of the axis, in fours with ALONG
  inner: u32,
}

override LOG: bool = false;
override ACROSS: bool = false;
override ALONG: bool = false;
const LOWEST = -3.4028234e38; // below it is only −∞, whose difference from itself is no number

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Element>>;

fn load(at: u32) -> vec4f {
  if (ACROSS || ALONG) {
    return vec4f(input[at / 4u]);
  }
  return vec4f(f32(input[at / 4u][at % 4u]));
}

@compute @workgroup_size(64)
fn softmax(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + lane;
  if (i >= params.rows) {
    return;
  }
  let step = select(params.inner, 4u, ALONG);
  let element = select(i, 4u * i, ACROSS);
  let outer = element / params.inner;
  let first = outer * params.length * step + element - outer * params.inner;
  var largest = vec4f(LOWEST);
  for (var a = 0u; a < params.length; a++) {
    largest = max(largest, load(first + a * step));
  }
  if (ALONG) {
    let pairs = max(largest, largest.zwxy);
    largest = max(pairs, pairs.yxwz);
  }
  var sum = vec4f();
  for (var a = 0u; a < params.length; a++) {
    sum += exp(load(first + a * step) - largest);
  }
  if (ALONG) {
    let pairs = sum + sum.zwxy;
    sum = pairs + pairs.yxwz;
  }
  let factor = select(1.0 / sum, vec4f(), sum == vec4f());
  let shift = select(largest + log(sum), vec4f(), sum == vec4f());
  for (var a = 0u; a < params.length; a++) {
    let at = first + a * step;
    var value: vec4f;
    if (LOG) {
      value = load(at) - shift;
    } else {
      value = exp(load(at) - largest) * factor;
    }
    if (ACROSS || ALONG) {
      output[at / 4u] = vec4<Element>(value);
    } else {
      output[at / 4u][at % 4u] = Element(value.x);
    }
  }
}
