// normalised[n, y, x, c] = Σ_j mix[c, j] · f(s(mean of pixels[n, .., .., j] over the footprint)) + offset[c]
//
// f(v) = v / 255, or with OPTICAL_DENSITY −log10((v + 1) / 256), which is 0 for white 255
// s(v) = v; with STAIN 1 2^(stain_mix · log2(v + 1) + stain_offset), at most 255;
//        with STAIN 2 v moved in CIELAB, as stain_mix and stain_offset say of what CIELAB is made of
//
// pixels      [N, source_height, source_width, SAMPLES]  u8, interleaved, four bytes to a u32; a row
//             begins row_pixels after the one before, a tile tile_pixels; a fourth sample is not read
// normalised  [N, height, width, 4], the last channel 0; with PLANAR [N, 3, height, width]
//
// On each axis the footprint of output pixel i is, where `ratio` is 1 or more, the interval from
// shift + ratio · i to shift + ratio · (i + 1), whose mean weighs each source pixel by what of it is
// covered; where `ratio` is less, the two pixels around shift + ratio · (i + ½) − ½, weighed
// linearly. Both average light, before s and f: light adds up and density does not. The source's
// edge repeats. An invocation computes one output pixel; z counts tiles.

alias Element = f32;

struct Params {
  source_width: u32,
  source_height: u32,
  row_pixels: u32,
  tile_pixels: u32,
  width: u32,
  height: u32,
  shift_x: f32, // where output pixel 0 begins, in source pixels
  shift_y: f32,
  ratio_x: f32, // source pixels per output pixel, at least a hundredth
  ratio_y: f32,
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
  stain00: f32, // stain_mix[c, j] is stain<c><j>
  stain01: f32,
  stain02: f32,
  stain10: f32,
  stain11: f32,
  stain12: f32,
  stain20: f32,
  stain21: f32,
  stain22: f32,
  stain_offset0: f32,
  stain_offset1: f32,
  stain_offset2: f32,
}

override SAMPLES: u32 = 3;
override PLANAR: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> pixels: array<u32>;
@group(0) @binding(2) var<storage, read_write> normalised: array<Element>;

override STAIN: u32 = 0;
override OPTICAL_DENSITY: bool = false;

fn mixed(m0: vec3f, m1: vec3f, m2: vec3f, offset: vec3f, v: vec3f) -> vec3f {
  return vec3f(dot(m0, v), dot(m1, v), dot(m2, v)) + offset;
}

fn stain_mixed(v: vec3f) -> vec3f {
  return mixed(
    vec3f(params.stain00, params.stain01, params.stain02),
    vec3f(params.stain10, params.stain11, params.stain12),
    vec3f(params.stain20, params.stain21, params.stain22),
    vec3f(params.stain_offset0, params.stain_offset1, params.stain_offset2),
    v,
  );
}

// Powers are of something above zero: log2(0) is no number that WGSL promises.
fn power(v: vec3f, exponent: f32) -> vec3f {
  return exp2(exponent * log2(max(v, vec3f(1e-6))));
}

// The light (0 to 255) that the target's stains would have let through.
fn stained(light: vec3f) -> vec3f {
  switch (STAIN) {
    case 1u: { // Macenko: linear in the logarithms. 2⁷·⁹⁹⁴³⁵ is 255
      return exp2(clamp(stain_mixed(log2(light + 1.0)), vec3f(-40.0), vec3f(7.9943534)));
    }
    case 2u: { // Reinhard: linear in the f(X), f(Y), f(Z) that CIELAB is made of
      let v = light / 255.0;
      let linear = select(power((v + 0.055) / 1.055, 2.4), v / 12.92, v <= vec3f(0.04045));
      let xyz = mixed(
        vec3f(0.412453, 0.35758, 0.180423) / 0.95047,
        vec3f(0.212671, 0.71516, 0.072169),
        vec3f(0.019334, 0.119193, 0.950227) / 1.08883,
        vec3f(),
        linear,
      );
      let f = select(power(xyz, 1.0 / 3.0), 7.787 * xyz + 16.0 / 116.0, xyz <= vec3f(0.008856));
      let g = stain_mixed(f);
      let moved = select(g * g * g, (g - 16.0 / 116.0) / 7.787, g <= vec3f(0.2068966));
      let rgb = mixed(
        vec3f(3.24048134 * 0.95047, -1.53715152, -0.49853633 * 1.08883),
        vec3f(-0.96925495 * 0.95047, 1.87599, 0.04155593 * 1.08883),
        vec3f(0.05564664 * 0.95047, -0.20404134, 1.05731107 * 1.08883),
        vec3f(),
        moved,
      );
      let back = select(1.055 * power(rgb, 1.0 / 2.4) - 0.055, 12.92 * rgb, rgb <= vec3f(0.0031308));
      return 255.0 * clamp(back, vec3f(), vec3f(1.0));
    }
    default: { return light; }
  }
}

fn colour(light: vec3f) -> vec3f {
  let seen = stained(light);
  var value = seen / 255.0;
  if (OPTICAL_DENSITY) {
    // log10(v) = log2(v) · log10(2)
    value = -0.30103 * log2((seen + 1.0) / 256.0);
  }
  return mixed(
    vec3f(params.mix00, params.mix01, params.mix02),
    vec3f(params.mix10, params.mix11, params.mix12),
    vec3f(params.mix20, params.mix21, params.mix22),
    vec3f(params.offset0, params.offset1, params.offset2),
    value,
  );
}

// Red, green and blue of a source pixel by its number, of one word or of two that it lies across.
fn rgb(pixel: u32) -> vec3f {
  let byte = SAMPLES * pixel;
  let shift = 8u * (byte % 4u);
  var word = pixels[byte / 4u] >> shift;
  if (SAMPLES == 3u && shift > 8u) {
    word |= pixels[byte / 4u + 1u] << (32u - shift);
  }
  return vec3f(vec3u(word, word >> 8u, word >> 16u) & vec3u(0xffu));
}

// The source pixels [first, last] that an output pixel's footprint meets, and what weighs them.
struct Footprint {
  first: i32,
  last: i32,
  from_: f32,
  to: f32,
}

fn footprint(shift: f32, ratio: f32, i: u32) -> Footprint {
  if (ratio < 1.0) {
    let centre = shift + ratio * (f32(i) + 0.5) - 0.5;
    let first = i32(floor(centre));
    return Footprint(first, first + 1, centre, centre);
  }
  let from_ = shift + ratio * f32(i);
  let to = from_ + ratio;
  return Footprint(i32(floor(from_)), i32(ceil(to)) - 1, from_, to);
}

fn weight(print: Footprint, cell: i32) -> f32 {
  if (print.from_ == print.to) {
    return max(0.0, 1.0 - abs(f32(cell) - print.from_));
  }
  return max(0.0, min(f32(cell) + 1.0, print.to) - max(f32(cell), print.from_));
}

@compute @workgroup_size(64)
fn normalise(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.width || id.y >= params.height) {
    return;
  }
  let across = footprint(params.shift_x, params.ratio_x, id.x);
  let down = footprint(params.shift_y, params.ratio_y, id.y);
  var sum = vec3f();
  var area = 0.0;
  for (var y = down.first; y <= down.last; y++) {
    let high = weight(down, y);
    let row = id.z * params.tile_pixels +
      u32(clamp(y, 0, i32(params.source_height) - 1)) * params.row_pixels;
    for (var x = across.first; x <= across.last; x++) {
      let share = high * weight(across, x);
      sum += share * rgb(row + u32(clamp(x, 0, i32(params.source_width) - 1)));
      area += share;
    }
  }
  let value = colour(sum / area);
  let plane = params.width * params.height;
  let pixel = id.y * params.width + id.x;
  if (PLANAR) {
    let at = id.z * 3u * plane + pixel;
    normalised[at] = Element(value.x);
    normalised[at + plane] = Element(value.y);
    normalised[at + 2u * plane] = Element(value.z);
  } else {
    let at = 4u * (id.z * plane + pixel);
    normalised[at] = Element(value.x);
    normalised[at + 1u] = Element(value.y);
    normalised[at + 2u] = Element(value.z);
    normalised[at + 3u] = Element();
  }
}
