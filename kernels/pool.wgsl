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
  rows: u32, // N · out_depth · out_height
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
// A window of SIDE × SIDE pixels; 0: as params say. What is known ahead needs no loop.
override SIDE: i32 = 0;

// Element's largest number: f16 does not keep 0.1 to f32's digits.
const LARGEST = select(3.4028234e38f, 65504.0f, f32(Element(0.1)) != 0.1f);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Element>>;

@compute @workgroup_size(64)
fn pool(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  // Rows go by workgroups: divisions that all invocations share cost a software adapter one, not
  // one each.
  let row_out = group.y + group.z * grid.y;
  if (row_out >= params.rows || id.x >= params.out_width * params.channels4) {
    return;
  }
  let column = id.x / params.channels4;
  let channel = i32(id.x - column * params.channels4);
  let plane_out = row_out / params.out_height;
  let image = plane_out / params.out_depth;
  let z0 = i32(plane_out - image * params.out_depth) * params.stride_z - params.pad_z;
  let y0 = i32(row_out - plane_out * params.out_height) * params.stride_y - params.pad_y;
  let x0 = i32(column) * params.stride_x - params.pad_x;
  let channels4 = i32(params.channels4);
  let kernel_z = select(1, params.kernel_z, SIDE == 0);
  let kernel_y = select(SIDE, params.kernel_y, SIDE == 0);
  let kernel_x = select(SIDE, params.kernel_x, SIDE == 0);
  var taps = 0u; // that count
  var pooled = select(vec4f(), vec4f(-LARGEST), KIND == 0u);
  for (var i = 0; i < kernel_z; i++) {
    let z = z0 + i * params.dilation_z;
    for (var j = 0; j < kernel_y; j++) {
      let y = y0 + j * params.dilation_y;
      let row = ((i32(image) * params.depth + z) * params.height + y) * params.width;
      for (var k = 0; k < kernel_x; k++) {
        let x = x0 + k * params.dilation_x;
        let inside = min(z, min(y, x)) >= 0 && z < params.depth && y < params.height &&
          x < params.width;
        if (KIND == 1u) {
          let in_padding = params.count_padding != 0u && z < params.padded_z &&
            y < params.padded_y && x < params.padded_x;
          taps += u32(inside || in_padding);
        }
        if (!inside) {
          continue;
        }
        let v = vec4f(input[(row + x) * channels4 + channel]);
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
      }
    }
  }
  if (KIND == 1u) {
    pooled /= f32(max(taps, 1u));
  } else if (KIND == 2u && params.exponent == 2.0) {
    pooled = sqrt(pooled);
  } else if (KIND == 2u && params.exponent != 1.0) {
    pooled = select(vec4f(), pow(max(pooled, vec4f(1e-37)), vec4f(1.0 / params.exponent)), pooled > vec4f());
  }
  output[row_out * params.out_width * params.channels4 + id.x] =
    vec4<Element>(clamp(pooled, vec4f(-LARGEST), vec4f(LARGEST)));
}
