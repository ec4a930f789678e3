// normalised[n, i, c] = Σ_j mix[c, j] · f(s(pixels[n, i, j])) + offset[c]: normalise.wgsl where every
// output pixel is one source pixel, so that nothing but memory is waited for
//
// f and s are those of normalise.wgsl.
//
// pixels      [N, rows, 4 · row_groups, SAMPLES]  u8, interleaved, four bytes to a u32; a row begins
//             row_words after the one before, a tile tile_words
// normalised  [N, rows, 4 · row_groups, 4], the last channel 0; with PLANAR [N, 3, rows, 4 · row_groups]
//
// An invocation turns four pixels, which are SAMPLES whole words; z counts tiles. Of the last four
// those past `pixel_count`, which is per tile, are left out: without PLANAR only, since planes that
// end within four pixels would not begin at whole vectors.

alias Element = f32;

struct Params {
  row_groups: u32,
  pixel_count: u32,
  row_words: u32,
  tile_words: u32,
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
@group(0) @binding(2) var<storage, read_write> normalised: array<vec4<Element>>;

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

fn bytes(word: u32) -> vec4f {
  return vec4f((vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(0xffu));
}

@compute @workgroup_size(256)
fn normalise_direct(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let group = id.x + id.y * grid.x * 256u;
  let groups = (params.pixel_count + 3u) / 4u;
  if (group >= groups) {
    return;
  }
  let row = group / params.row_groups;
  let word = id.z * params.tile_words + row * params.row_words +
    SAMPLES * (group - row * params.row_groups);
  let first = bytes(pixels[word]);
  let second = bytes(pixels[word + 1u]);
  let third = bytes(pixels[word + 2u]);
  var a = first.xyz;
  var b = vec3f(first.w, second.xy);
  var c = vec3f(second.zw, third.x);
  var d = third.yzw;
  if (SAMPLES == 4u) {
    b = second.xyz;
    c = third.xyz;
    d = bytes(pixels[word + 3u]).xyz;
  }
  a = colour(a);
  b = colour(b);
  c = colour(c);
  d = colour(d);
  if (PLANAR) {
    let at = id.z * 3u * groups + group;
    normalised[at] = vec4<Element>(vec4f(a.x, b.x, c.x, d.x));
    normalised[at + groups] = vec4<Element>(vec4f(a.y, b.y, c.y, d.y));
    normalised[at + 2u * groups] = vec4<Element>(vec4f(a.z, b.z, c.z, d.z));
    return;
  }
  let at = id.z * params.pixel_count + 4u * group;
  let left = params.pixel_count - 4u * group;
  normalised[at] = vec4<Element>(vec4f(a, 0.0));
  if (left > 1u) {
    normalised[at + 1u] = vec4<Element>(vec4f(b, 0.0));
  }
  if (left > 2u) {
    normalised[at + 2u] = vec4<Element>(vec4f(c, 0.0));
  }
  if (left > 3u) {
    normalised[at + 3u] = vec4<Element>(vec4f(d, 0.0));
  }
}
