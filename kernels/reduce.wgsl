// output[i] = result(⊕ term(input[i, r])) over all r: ONNX's Reduce operators by OPERATION as in reduce.ts
//
// input   Element, dense; i runs over size_k with stride_k, r over length_k with step_k, in elements,
//         both innermost first
// output  Element, dense over i
//
// Computed in Value: f32 for f32 and f16, else the integer type. An invocation computes one output,
// or with ACROSS four that lie one behind the other. With ALONG terms lie so: four are read at once.
// Sums are taken in blocks of BLOCK terms, so that an error grows with BLOCK and the number of blocks
// and not with the number of terms. No workgroup memory: reduce_rows is for GPUs and few outputs.

alias Element = f32;
alias Value = f32; // not f16

struct Params {
  outputs: u32, // Π size_k, in fours with ACROSS
  terms: u32, // Π length_k
  identity: i32, // of the combination, as Value's bits
  lowest: i32, // of the largest, as Value's bits: −∞ of f32
  size0: u32,
  size1: u32,
  size2: u32,
  size3: u32,
  stride0: u32,
  stride1: u32,
  stride2: u32,
  stride3: u32,
  length0: u32,
  length1: u32,
  length2: u32,
  length3: u32,
  step0: u32,
  step1: u32,
  step2: u32,
  step3: u32,
}

override OPERATION: u32 = 0;
override ACROSS: bool = false;
override ALONG: bool = false;
const BLOCK = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Element>>;

// What a term adds, by OPERATION; shift is the largest of all where log_sum_exp wants it.
fn term(v: vec4<Value>, shift: vec4<Value>) -> vec4<Value> {
  switch (OPERATION) {
    case 5u: { return abs(v); } // l1
    case 6u, 7u: { return v * v; } // l2, sum_square
    case 9u: { return vec4<Value>(exp(vec4f(v - shift))); } // log_sum_exp
    default: { return v; }
  }
}

fn combine(a: vec4<Value>, b: vec4<Value>, operation: u32) -> vec4<Value> {
  switch (operation) {
    case 2u: { return max(a, b); }
    case 3u: { return min(a, b); }
    case 4u: { return a * b; } // prod
    default: { return a + b; }
  }
}

fn result(total: vec4<Value>, shift: vec4<Value>) -> vec4<Value> {
  let none = bitcast<Value>(params.lowest); // ln 0, which WGSL may not know
  switch (OPERATION) {
    case 1u: { return total / Value(params.terms); } // mean
    case 6u: { return vec4<Value>(sqrt(vec4f(total))); } // l2
    case 8u, 9u: { // log_sum, log_sum_exp
      return select(vec4<Value>(log(vec4f(total))) + shift, vec4<Value>(none), total == vec4<Value>());
    }
    default: { return total; }
  }
}

// Where the terms of an output begin.
fn base_of(output_index: u32) -> u32 {
  let q0 = output_index / params.size0;
  let q1 = q0 / params.size1;
  let q2 = q1 / params.size2;
  return (output_index - q0 * params.size0) * params.stride0 + (q0 - q1 * params.size1) * params.stride1 +
    (q1 - q2 * params.size2) * params.stride2 + q2 * params.stride3;
}

fn load(at: u32) -> vec4<Value> {
  if (ACROSS || ALONG) {
    return vec4<Value>(input[at / 4u]);
  }
  return vec4<Value>(Value(input[at / 4u][at % 4u]));
}

// ⊕ over all terms from `base` on.
fn fold(base: u32, operation: u32, identity: Value, shift: vec4<Value>, raw: bool) -> vec4<Value> {
  let start = vec4<Value>(identity);
  let step = select(params.step0, 4u, ALONG);
  let length = select(params.length0, params.length0 / 4u, ALONG);
  var total = start;
  for (var r3 = 0u; r3 < params.length3; r3++) {
    for (var r2 = 0u; r2 < params.length2; r2++) {
      for (var r1 = 0u; r1 < params.length1; r1++) {
        let row = base + r3 * params.step3 + r2 * params.step2 + r1 * params.step1;
        for (var r0 = 0u; r0 < length; r0 += BLOCK) {
          var block = start;
          let end = min(r0 + BLOCK, length);
          for (var r = r0; r < end; r++) {
            let v = load(row + r * step);
            if (raw) {
              block = combine(block, v, operation);
            } else {
              block = combine(block, term(v, shift), operation);
            }
          }
          total = combine(total, block, operation);
        }
      }
    }
  }
  if (ALONG) {
    let pairs = combine(total, total.zwxy, operation);
    total = combine(pairs, pairs.yxwz, operation);
  }
  return total;
}

@compute @workgroup_size(64)
fn reduce(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + lane;
  if (i >= params.outputs) {
    return;
  }
  let base = base_of(select(i, 4u * i, ACROSS));
  var shift = vec4<Value>();
  if (OPERATION == 9u) {
    let lowest = bitcast<Value>(params.lowest);
    let largest = fold(base, 2u, lowest, vec4<Value>(), true);
    // Where all is −∞, so is the result, and nothing is to be taken from it.
    shift = select(largest, vec4<Value>(), bitcast<vec4<i32>>(largest) == vec4<i32>(params.lowest));
  }
  let total = fold(base, OPERATION, bitcast<Value>(params.identity), shift, false);
  let value = vec4<Element>(result(total, shift));
  if (ACROSS) {
    output[i] = value;
  } else {
    output[i / 4u][i % 4u] = value.x;
  }
}
