// output[n, c] = max over p of input[n, p, c], or Σ_p / P, or (Σ_p |v|^exponent)^(1/exponent)
//
// KIND 0: max; 1: average; 2: Lp.
//
// input   [N, P, C]  f32 or f16, all pixels in one axis, C padded with zeros to a multiple of four
// output  [N, C]  the same type; f16 saturates at ±65504
//
// A workgroup reduces X · 4 channels of one image: an invocation every Yth pixel of four of them, in
// f32, then Y partial results are joined in a tree, whose shape is always the same. With Y = 1 there
// is no tree, which suits software adapters.

alias Element = f32;

struct Params {
  pixels: u32,
  channels4: u32,
  images: u32,
  exponent: f32,
}

override KIND: u32 = 0;
override X: u32 = 8;
override Y: u32 = 32; // a power of two

// Element's largest number: f16 does not keep 0.1 to f32's digits.
const LARGEST = select(3.4028234e38f, 65504.0f, f32(Element(0.1)) != 0.1f);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Element>>;

var<workgroup> partial: array<vec4f, X * Y>;

@compute @workgroup_size(X, Y)
fn global_pool(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  // Both are the same for the whole workgroup, so that all of it leaves or none.
  let image = group.y + group.z * grid.y;
  if (image >= params.images) {
    return;
  }
  let channel = group.x * X + local.x;
  var pooled = select(vec4f(), vec4f(-LARGEST), KIND == 0u);
  if (channel < params.channels4) {
    var at = (image * params.pixels + local.y) * params.channels4 + channel;
    for (var p = local.y; p < params.pixels; p += Y) {
      let v = vec4f(input[at]);
      if (KIND == 0u) {
        pooled = max(pooled, v);
      } else if (KIND == 1u) {
        pooled += v;
      } else if (params.exponent == 1.0) {
        pooled += abs(v);
      } else if (params.exponent == 2.0) {
        pooled += v * v;
      } else {
        // pow(0, e) may be computed through log(0): kept off.
        pooled += select(vec4f(), pow(max(abs(v), vec4f(1e-30)), vec4f(params.exponent)), v != vec4f());
      }
      at += Y * params.channels4;
    }
  }
  let place = local.y * X + local.x;
  for (var half = Y / 2u; half > 0u; half /= 2u) {
    partial[place] = pooled;
    workgroupBarrier(); // What the upper half wrote is there before the lower one reads it.
    if (local.y < half) {
      let other = partial[place + half * X];
      if (KIND == 0u) {
        pooled = max(pooled, other);
      } else {
        pooled += other;
      }
    }
    workgroupBarrier(); // And read before it is written again.
  }
  if (local.y != 0u || channel >= params.channels4) {
    return;
  }
  if (KIND == 1u) {
    pooled /= f32(params.pixels);
  } else if (KIND == 2u && params.exponent == 2.0) {
    pooled = sqrt(pooled);
  } else if (KIND == 2u && params.exponent != 1.0) {
    pooled = select(vec4f(), pow(max(pooled, vec4f(1e-37)), vec4f(1.0 / params.exponent)), pooled > vec4f());
  }
  output[image * params.channels4 + channel] = vec4<Element>(clamp(pooled, vec4f(-LARGEST), vec4f(LARGEST)));
}
