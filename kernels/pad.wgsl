// output[to + Σ_k i_k · to_k] = input[Σ_k s(i_k − before_k) · from_k], s by MODE: ONNX Pad-21
//
// MODE 0 constant: the value where i_k − before_k is outside [0, source_k)
//      1 reflect   2 edge   3 wrap
//
// input, output  Items that are moved as they are; offset and strides count them; i runs over RANK
//                axes of size_k, innermost first
// constant       [1], the value where FILL, else never read, and the value is 0
//
// before_k may be negative: the input is cropped. An invocation walks a few items of the innermost
// axis along x, of the next along y, and of the rest, which alone is divided into indices, along z.

alias Item = u32;
alias Constant = u32;

struct Params {
  rest: u32, // Π size_k from the third on
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
override X: u32 = 256;
override Y: u32 = 1;
override Z: u32 = 1;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Item>;
@group(0) @binding(2) var<storage, read> constant: array<Constant>;
@group(0) @binding(3) var<storage, read_write> output: array<Item>;

// Where input and output are, and whether that is inside the input.
struct Place {
  at: vec2<u32>,
  inside: bool,
}

// The remainder in [0, n).
fn modulo(v: i32, n: i32) -> i32 {
  let rest = v % n;
  return select(rest, rest + n, rest < 0);
}

// `place` moved to an index of an axis.
fn along(place: Place, index: u32, source: u32, before: u32, from_stride: u32, to_stride: u32) -> Place {
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
  return Place(place.at + vec2<u32>(u32(s) * from_stride, index * to_stride), inside);
}

// Where they are for axes from the third on, of that index.
fn offsets(index: u32) -> Place {
  var p = Place(vec2<u32>(0u, params.output_offset), true);
  var rest = index;
  var next = 0u;
  if (RANK > 2u) {
    next = rest / params.size2;
    p = along(p, rest - next * params.size2, params.source2, params.before2, params.from2, params.to2);
    rest = next;
  }
  if (RANK > 3u) {
    next = rest / params.size3;
    p = along(p, rest - next * params.size3, params.source3, params.before3, params.from3, params.to3);
    rest = next;
  }
  if (RANK > 4u) {
    next = rest / params.size4;
    p = along(p, rest - next * params.size4, params.source4, params.before4, params.from4, params.to4);
    rest = next;
  }
  if (RANK > 5u) {
    next = rest / params.size5;
    p = along(p, rest - next * params.size5, params.source5, params.before5, params.from5, params.to5);
    rest = next;
  }
  if (RANK > 6u) {
    next = rest / params.size6;
    p = along(p, rest - next * params.size6, params.source6, params.before6, params.from6, params.to6);
    rest = next;
  }
  if (RANK > 7u) {
    next = rest / params.size7;
    p = along(p, rest - next * params.size7, params.source7, params.before7, params.from7, params.to7);
    rest = next;
  }
  return p;
}

@compute @workgroup_size(X, Y, Z)
fn pad(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var z = id.z; z < params.rest; z += groups.z * Z) {
    let outer = offsets(z);
    for (var y = id.y; y < params.size1; y += groups.y * Y) {
      let row = along(outer, y, params.source1, params.before1, params.from1, params.to1);
      for (var x = id.x; x < params.size0; x += groups.x * X) {
        let p = along(row, x, params.source0, params.before0, params.from0, params.to0);
        var value = Item();
        if (FILL) { value = Item(constant[0]); }
        if (p.inside) { value = input[p.at.x]; }
        output[p.at.y] = value;
      }
    }
  }
}
