// output[o, a] = exp(input[o, a] − m) / Σ_a exp(input[o, a] − m), m the largest along a; with LOG its
// logarithm: softmax.wgsl's formula for rows that lie one behind the other
//
// input, output  [outer, axis]  Element
//
// Computed in f32. A workgroup of LANES invocations computes a row, with FOURS four elements at a
// time. Where all of a row is −∞ the result is 0, of LOG −∞.

alias Element = f32;

struct Params {
  rows: u32,
  length: u32, // of the axis, in fours with FOURS
}

override LOG: bool = false;
override FOURS: bool = false;
override LANES: u32 = 256;
const LOWEST = -3.4028234e38; // below it is only −∞, whose difference from itself is no number

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Element>>;

var<workgroup> parts: array<f32, LANES>;

fn load(row: u32, a: u32) -> vec4f {
  let at = row * params.length + a;
  if (FOURS) {
    return vec4f(input[at]);
  }
  return vec4f(f32(input[at / 4u][at % 4u]));
}

@compute @workgroup_size(LANES)
fn softmax_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return; // The whole workgroup does.
  }
  var largest4 = vec4f(LOWEST);
  for (var a = lane; a < params.length; a += LANES) {
    largest4 = max(largest4, load(row, a));
  }
  parts[lane] = max(max(largest4.x, largest4.y), max(largest4.z, largest4.w));
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier(); // The parts that are read were written by others.
    if (lane < half) {
      parts[lane] = max(parts[lane], parts[lane + half]);
    }
  }
  let largest = workgroupUniformLoad(&parts[0]); // With a barrier before and after.
  var sum4 = vec4f();
  for (var a = lane; a < params.length; a += LANES) {
    sum4 += exp(load(row, a) - largest);
  }
  parts[lane] = select(sum4.x, (sum4.x + sum4.y) + (sum4.z + sum4.w), FOURS);
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier(); // As above.
    if (lane < half) {
      parts[lane] += parts[lane + half];
    }
  }
  let sum = workgroupUniformLoad(&parts[0]);
  let factor = select(1.0 / sum, 0.0, sum == 0.0);
  let shift = select(largest + log(sum), 0.0, sum == 0.0);
  for (var a = lane; a < params.length; a += LANES) {
    var value: vec4f;
    if (LOG) {
      value = load(row, a) - shift;
    } else {
      value = exp(load(row, a) - largest) * factor;
    }
    let at = row * params.length + a;
    if (FOURS) {
      output[at] = vec4<Element>(value);
    } else {
      output[at / 4u][at % 4u] = Element(value.x);
    }
  }
}
