// sum[r, i] = input[r, i] + residual[r, i]
// output[r, i] = (sum[r, i] − mean[r]) · inverse[r] · scale[i] + bias[i]
//
// mean[r] = Σ_i sum[r, i] / channels
// inverse[r] = 1 / √(Σ_i (sum[r, i] − mean[r])² / channels + epsilon)
//
// With RMS the mean is taken for 0. Without RESIDUAL the sum is the input and is not stored; without
// BIAS the bias is 0; statistics are stored with STATISTICS.
//
// input, residual, sum, output  [R, channels]  f32 or f16; f16 saturates at ±65504
// scale, bias                   [channels]  the same type
// statistics                    [2, R]  f32: mean, inverse
//
// This one is for rows that are no multiple of four. X invocations share a row, of which each takes
// every Xth element, in f32; a workgroup has Y rows. The mean goes first and then the squares of
// what is left, since those of a large mean would drown them. A row is read again rather than kept:
// it is in the caches. With X = 1 nothing is shared, which suits software adapters.

alias Element = f32;

struct Params {
  rows: u32,
  channels: u32,
  epsilon: f32,
}

override X: u32 = 64; // a power of two
override Y: u32 = 4;
override RMS: bool = false;
override RESIDUAL: bool = false;
override BIAS: bool = false;
override STATISTICS: bool = false;

// Element's largest number: f16 does not keep 0.1 to f32's digits.
const LARGEST = select(3.4028234e38f, 65504.0f, f32(Element(0.1)) != 0.1f);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> residual: array<Element>;
@group(0) @binding(3) var<storage, read> scale: array<Element>;
@group(0) @binding(4) var<storage, read> bias: array<Element>;
@group(0) @binding(5) var<storage, read_write> output: array<Element>;
@group(0) @binding(6) var<storage, read_write> sum: array<Element>;
@group(0) @binding(7) var<storage, read_write> statistics: array<f32>;

var<workgroup> partial: array<f32, X * Y>;

// Σ of `part` over the invocations of a row.
fn over_row(part: f32, lane: u32, row: u32) -> f32 {
  if (X == 1u) {
    return part;
  }
  let place = row * X + lane;
  partial[place] = part;
  workgroupBarrier(); // What the upper half wrote is there before the lower one reads it.
  for (var half = X / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[place] += partial[place + half];
    }
    workgroupBarrier(); // The same for the next half.
  }
  let total = partial[row * X];
  workgroupBarrier(); // And read by all before the next sum overwrites it.
  return total;
}

fn sum_at(at: u32) -> f32 {
  if (RESIDUAL) {
    return f32(input[at]) + f32(residual[at]);
  }
  return f32(input[at]);
}

@compute @workgroup_size(X, Y)
fn layer_norm_scalar(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * grid.x) * Y + local.y;
  // Rows past the end have no elements: they only keep the others company at the barriers.
  let size = select(0u, params.channels, row < params.rows);
  let at = row * params.channels;
  var mean = 0.0;
  if (!RMS) {
    var part = 0.0;
    for (var i = local.x; i < size; i += X) {
      part += sum_at(at + i);
    }
    mean = over_row(part, local.x, local.y) / f32(params.channels);
  }
  var part = 0.0;
  for (var i = local.x; i < size; i += X) {
    let left = sum_at(at + i) - mean;
    part += left * left;
  }
  let variance = over_row(part, local.x, local.y) / f32(params.channels);
  let inverse = inverseSqrt(variance + params.epsilon);
  for (var i = local.x; i < size; i += X) {
    let v = sum_at(at + i);
    if (RESIDUAL) {
      sum[at + i] = Element(clamp(v, -LARGEST, LARGEST));
    }
    var y = (v - mean) * inverse * f32(scale[i]);
    if (BIAS) {
      y += f32(bias[i]);
    }
    output[at + i] = Element(clamp(y, -LARGEST, LARGEST));
  }
  if (STATISTICS && local.x == 0u && row < params.rows) {
    statistics[row] = mean;
    statistics[params.rows + row] = inverse;
  }
}
