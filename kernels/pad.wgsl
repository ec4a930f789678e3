// output[to + Σ_k i_k · to_k] = input[Σ_k s(i_k − before_k) · from_k], s by MODE: ONNX Pad-21
//
// MODE 0 constant: the value where i_k − before_k is outside [0, source_k)
//      1 reflect   2 edge   3 wrap
//
// input, output  Items that are moved as they are; offset and strides count them; i runs over RANK
//                axes of size_k, innermost first
// constant       [1], the value where FILL, else never read, and the value is 0
//
// before_k may be negative: the input is cropped. A workgroup moves ITEMS · 256 Items.

alias Item = u32;
alias Constant = u32;

struct Params {
  count: u32, // Π size_k
  output_offset: u32,
  size0: u32,
  size1: u32,
  size2: u32,
  size3: u32,
  size4: u32,
  size5: u32,
  size6: u32,
  size7: u32,
  source0: u32,
  source1: u32,
  source2: u32,
  source3: u32,
  source4: u32,
  source5: u32,
  source6: u32,
  source7: u32,
  before0: u32,
  before1: u32,
  before2: u32,
  before3: u32,
  before4: u32,
  before5: u32,
  before6: u32,
  before7: u32,
  from0: u32,
  from1: u32,
  from2: u32,
  from3: u32,
  from4: u32,
  from5: u32,
  from6: u32,
  from7: u32,
  to0: u32,
  to1: u32,
  to2: u32,
  to3: u32,
  to4: u32,
  to5: u32,
  to6: u32,
  to7: u32,
}

override RANK: u32 = 1;
override MODE: u32 = 0;
override FILL: bool = false;
const ITEMS = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Item>;
@group(0) @binding(2) var<storage, read> constant: array<Constant>;
@group(0) @binding(3) var<storage, read_write> output: array<Item>;

// What remains of an index, where input and output are, and whether that is inside the input.
struct Place {
  rest: u32,
  at: vec2<u32>,
  inside: bool,
}

// The remainder in [0, n).
fn modulo(v: i32, n: i32) -> i32 {
  let rest = v % n;
  return select(rest, rest + n, rest < 0);
}

fn along(place: Place, size: u32, source: u32, before: u32, from_stride: u32, to_stride: u32) -> Place {
  let rest = place.rest / size;
  let index = place.rest - rest * size;
  let n = i32(source);
  let shifted = i32(index - before);
  var inside = place.inside;
  var s = shifted;
  if (MODE == 0u) {
    inside = inside && shifted >= 0 && shifted < n;
  } else if (MODE == 1u) {
    let period = max(1, 2 * (n - 1));
    s = modulo(shifted, period);
    s = min(s, period - s);
    s = select(s, 0, n == 1);
  } else if (MODE == 2u) {
    s = clamp(shifted, 0, n - 1);
  } else {
    s = modulo(shifted, n);
  }
  return Place(rest, place.at + vec2<u32>(u32(s) * from_stride, index * to_stride), inside);
}

fn place_of(index: u32) -> Place {
  var p = Place(index, vec2<u32>(0u, params.output_offset), true);
  p = along(p, params.size0, params.source0, params.before0, params.from0, params.to0);
  if (RANK > 1u) { p = along(p, params.size1, params.source1, params.before1, params.from1, params.to1); }
  if (RANK > 2u) { p = along(p, params.size2, params.source2, params.before2, params.from2, params.to2); }
  if (RANK > 3u) { p = along(p, params.size3, params.source3, params.before3, params.from3, params.to3); }
  if (RANK > 4u) { p = along(p, params.size4, params.source4, params.before4, params.from4, params.to4); }
  if (RANK > 5u) { p = along(p, params.size5, params.source5, params.before5, params.from5, params.to5); }
  if (RANK > 6u) { p = along(p, params.size6, params.source6, params.before6, params.from6, params.to6); }
  if (RANK > 7u) { p = along(p, params.size7, params.source7, params.before7, params.from7, params.to7); }
  return p;
}

@compute @workgroup_size(256)
fn pad(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * (ITEMS * 256u) + lane;
  for (var k = 0u; k < ITEMS; k++) {
    let i = first + k * 256u;
    if (i < params.count) {
      let p = place_of(i);
      var value = Item();
      if (FILL) { value = Item(constant[0]); }
      if (p.inside) { value = input[p.at.x]; }
      output[p.at.y] = value;
    }
  }
}
