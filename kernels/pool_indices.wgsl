// output[n, z, y, x, c] = max over i, j, k of input[n, z·stride_z + i·dilation_z − pad_z, …, c]
// indices[n, z, y, x, c] = its place: (n · channels + c) · plane + z · index_z + y · index_y + x · index_x
//
// The index is that of the planar tensor [N, channels, depth, height, width], of the first of
// equals in the order of z, y, x (ONNX MaxPool-12); index_z, index_y and index_x say whether rows or
// columns lie together.
//
// input    [N, depth, height, width, C]  f32 or f16, C padded with zeros to a multiple of four
// output   [N, out_depth, out_height, out_width, C]  the same type
// indices  [N, out_depth, out_height, out_width, C]  i32, without meaning in channels of padding
//
// An invocation computes four channels of one output pixel.

alias Element = f32;

struct Params {
  count: u32, // vec4s of output
  channels4: u32,
  channels: i32, // without padding
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
  index_z: i32,
  index_y: i32,
  index_x: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read_write> indices: array<vec4<i32>>;

@compute @workgroup_size(64)
fn pool_indices(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let at = id.x + id.y * grid.x * 64u;
  if (at >= params.count) {
    return;
  }
  var rest = at / params.channels4;
  let channel4 = i32(at % params.channels4);
  let out_x = rest % params.out_width;
  rest /= params.out_width;
  let out_y = rest % params.out_height;
  rest /= params.out_height;
  let z0 = i32(rest % params.out_depth) * params.stride_z - params.pad_z;
  let y0 = i32(out_y) * params.stride_y - params.pad_y;
  let x0 = i32(out_x) * params.stride_x - params.pad_x;
  let image = i32(rest / params.out_depth);
  var found = false;
  var best = vec4<Element>();
  var place = vec4i();
  for (var i = 0; i < params.kernel_z; i++) {
    let z = z0 + i * params.dilation_z;
    if (z < 0 || z >= params.depth) {
      continue;
    }
    for (var j = 0; j < params.kernel_y; j++) {
      let y = y0 + j * params.dilation_y;
      if (y < 0 || y >= params.height) {
        continue;
      }
      for (var k = 0; k < params.kernel_x; k++) {
        let x = x0 + k * params.dilation_x;
        if (x < 0 || x >= params.width) {
          continue;
        }
        let pixel = ((image * params.depth + z) * params.height + y) * params.width + x;
        let v = input[pixel * i32(params.channels4) + channel4];
        let better = (v > best) | vec4<bool>(!found);
        best = select(best, v, better);
        place = select(
          place,
          vec4i(z * params.index_z + y * params.index_y + x * params.index_x),
          better,
        );
        found = true;
      }
    }
  }
  let plane = params.depth * params.height * params.width;
  let channel = vec4i(4 * channel4) + vec4i(0, 1, 2, 3);
  output[at] = best;
  indices[at] = (image * params.channels + channel) * plane + place;
}
