// normalised[y, x, c] = Σ_j mix[c, j] · f(mean of pixels[.., .., j] over the footprint) + offset[c]
//
// f(v) = v / 255, or with OPTICAL_DENSITY −log10((v + 1) / 256), which is 0 for white 255
//
// pixels      [source_height, source_width, 3]  u8, interleaved, four bytes to a u32
// normalised  [height, width, 4]  f32
//
// The footprint of an output pixel is a rectangle of `ratio` × `ratio` source pixels, whose mean
// weighs each by the area that it covers: averaged before f, since light adds up and density does
// not. With ratio 1 and no shift it is the pixel itself. An invocation computes one output pixel.

struct Params {
  source_width: u32,
  source_height: u32,
  width: u32,
  height: u32,
  shift_x: f32, // where output pixel 0 begins, in source pixels
  shift_y: f32,
  ratio: f32, // source pixels per output pixel, at least a hundredth
  mix00: f32, // mix[c, j] is mix<c><j>
  mix01: f32,
  mix02: f32,
  mix10: f32,
  mix11: f32,
  mix12: f32,
  mix20: f32,
  mix21: f32,
  mix22: f32,
  offset0: f32,
  offset1: f32,
  offset2: f32,
}

override OPTICAL_DENSITY: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> pixels: array<u32>;
@group(0) @binding(2) var<storage, read_write> normalised: array<vec4<f32>>;

fn sample(byte: u32) -> f32 {
  return f32((pixels[byte / 4u] >> (8u * (byte % 4u))) & 0xffu);
}

// Of the unit interval that begins at `cell`, the length inside [from, to].
fn overlap(cell: i32, from_: f32, to: f32) -> f32 {
  return max(0.0, min(f32(cell) + 1.0, to) - max(f32(cell), from_));
}

@compute @workgroup_size(64)
fn normalise(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.width || id.y >= params.height) {
    return;
  }
  let left = params.shift_x + f32(id.x) * params.ratio;
  let top = params.shift_y + f32(id.y) * params.ratio;
  let right = left + params.ratio;
  let bottom = top + params.ratio;
  var sum = vec3f();
  var area = 0.0;
  for (var y = i32(floor(top)); f32(y) < bottom; y++) {
    let high = overlap(y, top, bottom);
    // The source's edge repeats: a footprint that reaches out by rounding reads no stranger.
    let row = u32(clamp(y, 0, i32(params.source_height) - 1)) * params.source_width;
    for (var x = i32(floor(left)); f32(x) < right; x++) {
      let weight = high * overlap(x, left, right);
      let byte = 3u * (row + u32(clamp(x, 0, i32(params.source_width) - 1)));
      sum += weight * vec3f(sample(byte), sample(byte + 1u), sample(byte + 2u));
      area += weight;
    }
  }
  let mean = sum / area;
  var value = mean / 255.0;
  if (OPTICAL_DENSITY) {
    // log10(v) = log2(v) · log10(2)
    value = -0.30103 * log2((mean + 1.0) / 256.0);
  }
  normalised[id.y * params.width + id.x] = vec4f(
    dot(vec3f(params.mix00, params.mix01, params.mix02), value) + params.offset0,
    dot(vec3f(params.mix10, params.mix11, params.mix12), value) + params.offset1,
    dot(vec3f(params.mix20, params.mix21, params.mix22), value) + params.offset2,
    0.0,
  );
}
