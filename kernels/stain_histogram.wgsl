// histogram[r, g, b] += the number of pixels of that colour, of those whose r, g and b are all below LEVELS
//
// pixels     [pixel_count, SAMPLES]  u8, interleaved, four bytes to a u32; a fourth sample is not read
// histogram  [LEVELS, LEVELS, LEVELS]  u32
//
// Counts are whole numbers, so that they are the same in whatever order and tiles pixels come. Glass
// is brighter than LEVELS and costs no addition. An invocation takes four pixels, which are SAMPLES
// whole words; runs of one colour among them are added at once.

struct Params {
  pixel_count: u32,
}

override SAMPLES: u32 = 3;
override LEVELS: u32 = 206;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> pixels: array<u32>;
@group(0) @binding(2) var<storage, read_write> histogram: array<atomic<u32>>;

const NONE = 0xffffffffu;

// The place of a colour, red in the lowest byte, in the histogram.
fn place(colour: u32) -> u32 {
  let r = colour & 0xffu;
  let g = (colour >> 8u) & 0xffu;
  let b = (colour >> 16u) & 0xffu;
  if (max(r, max(g, b)) >= LEVELS) {
    return NONE;
  }
  return (r * LEVELS + g) * LEVELS + b;
}

@compute @workgroup_size(64)
fn stain_histogram(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let group = id.x + id.y * grid.x * 64u;
  if (4u * group >= params.pixel_count) {
    return;
  }
  let word = SAMPLES * group;
  let first = pixels[word];
  let second = pixels[word + 1u];
  let third = pixels[word + 2u];
  var colours = vec4u(
    first,
    (first >> 24u) | (second << 8u),
    (second >> 16u) | (third << 16u),
    third >> 8u,
  );
  if (SAMPLES == 4u) {
    colours = vec4u(first, second, third, pixels[word + 3u]);
  }
  var last = NONE;
  var run = 0u;
  for (var i = 0u; i < min(4u, params.pixel_count - 4u * group); i++) {
    let at = place(colours[i]);
    if (at != last) {
      if (last != NONE) {
        atomicAdd(&histogram[last], run);
      }
      last = at;
      run = 0u;
    }
    run++;
  }
  if (last != NONE) {
    atomicAdd(&histogram[last], run);
  }
}
