// output[n, z, y, x, c] = pooled over i, j, k of input[n, z·stride_z + i·dilation_z − pad_z, …, c]
//
// KIND 0: max; 1: Σ / count; 2: (Σ |v|^exponent)^(1/exponent). What lies in the padding counts as
// nothing, except that the average's count takes it in with count_padding (as far as the padding
// reaches: a last window that ceil_mode lets hang out beyond it has fewer).
//
// input   [N, depth, height, width, C]  f32 or f16, C padded with zeros to a multiple of four
// output  [N, out_depth, out_height, out_width, C]  the same type; f16 saturates at ±65504
//
// An invocation computes four channels of one output pixel, in f32; neighbours share their windows
// through the caches.

alias Element = f32;

struct Params {
  count: u32, // vec4s of output
  channels4: u32,
  depth: i32,
  height: i32,
  width: i32,
  out_depth: u32,
  out_height: u32,
  out_width: u32,
  kernel_z: i32,
  kernel_y: i32,
  kernel_x: i32,
  stride_z: i32,
  stride_y: i32,
  stride_x: i32,
  dilation_z: i32,
  dilation_y: i32,
  dilation_x: i32,
  pad_z: i32, // before the first pixel
  pad_y: i32,
  pad_x: i32,
  padded_z: i32, // size and the padding behind it
  padded_y: i32,
  padded_x: i32,
  count_padding: u32,
  exponent: f32,
}

override KIND: u32 = 0;

// Element's largest number: f16 does not keep 0.1 to f32's digits.
const LARGEST = select(3.4028234e38f, 65504.0f, f32(Element(0.1)) != 0.1f);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Element>>;

// The first tap of a window that begins at `at` and is not in front of the first pixel.
fn first_tap(at: i32, dilation: i32) -> i32 {
  return select(0, (dilation - 1 - at) / dilation, at < 0);
}

// One behind the last tap of a window from `at` that is before `end`.
fn end_tap(at: i32, dilation: i32, taps: i32, end: i32) -> i32 {
  return clamp((end - at + dilation - 1) / dilation, 0, taps);
}

@compute @workgroup_size(64)
fn pool(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
  let at = id.x + id.y * grid.x * 64u;
  if (at >= params.count) {
    return;
  }
  var rest = at / params.channels4;
  let channel = i32(at % params.channels4);
  let out_x = rest % params.out_width;
  rest /= params.out_width;
  let out_y = rest % params.out_height;
  rest /= params.out_height;
  let z0 = i32(rest % params.out_depth) * params.stride_z - params.pad_z;
  let y0 = i32(out_y) * params.stride_y - params.pad_y;
  let x0 = i32(out_x) * params.stride_x - params.pad_x;
  let image = i32(rest / params.out_depth) * params.depth;
  let from_z = first_tap(z0, params.dilation_z);
  let from_y = first_tap(y0, params.dilation_y);
  let from_x = first_tap(x0, params.dilation_x);
  let to_z = end_tap(z0, params.dilation_z, params.kernel_z, params.depth);
  let to_y = end_tap(y0, params.dilation_y, params.kernel_y, params.height);
  let to_x = end_tap(x0, params.dilation_x, params.kernel_x, params.width);
  let channels4 = i32(params.channels4);
  let step = params.dilation_x * channels4;
  var pooled = select(vec4f(), vec4f(-LARGEST), KIND == 0u);
  for (var i = from_z; i < to_z; i++) {
    let plane = (image + z0 + i * params.dilation_z) * params.height;
    for (var j = from_y; j < to_y; j++) {
      let row = (plane + y0 + j * params.dilation_y) * params.width;
      var tap = (row + x0 + from_x * params.dilation_x) * channels4 + channel;
      for (var k = from_x; k < to_x; k++) {
        let v = vec4f(input[tap]);
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
        tap += step;
      }
    }
  }
  if (KIND == 1u) {
    var taps = (to_z - from_z) * (to_y - from_y) * (to_x - from_x);
    if (params.count_padding != 0u) {
      taps = end_tap(z0, params.dilation_z, params.kernel_z, params.padded_z) *
        end_tap(y0, params.dilation_y, params.kernel_y, params.padded_y) *
        end_tap(x0, params.dilation_x, params.kernel_x, params.padded_x);
    }
    pooled /= f32(max(taps, 1));
  } else if (KIND == 2u && params.exponent == 2.0) {
    pooled = sqrt(pooled);
  } else if (KIND == 2u && params.exponent != 1.0) {
    pooled = select(vec4f(), pow(max(pooled, vec4f(1e-37)), vec4f(1.0 / params.exponent)), pooled > vec4f());
  }
  output[at] = vec4<Element>(clamp(pooled, vec4f(-LARGEST), vec4f(LARGEST)));
}
