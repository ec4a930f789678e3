// output[i] = f(left[i], right[i]) with broadcasting; f is OPERATION by number as in elementwise.ts
//
// left, right  dense row-major, Element, read by strides along RANK axes, innermost first
// output       dense row-major, Output, padded to a multiple of four
//
// Computed in Value: f32 for f32 and f16, else the integer type. How an operand is read, by LEFT and
// RIGHT: 0 as the output lies; 1 a vec4 by strides that count vec4s; 2 one element for all four; 3,
// then both, each element by itself, and sizes and strides count elements. An invocation walks a few
// items of the innermost axis along x, of the next along y, and of the rest, which alone is divided
// into indices, along z.

alias Element = f32;
alias Value = f32; // not f16
alias Output = f32;

struct Params {
  rest: u32, // Π size_k from the third on
  size0: u32, // of the output's axes, in vec4s along the innermost but where operands are read by 3
  size1: u32,
  size2: u32,
  size3: u32,
  size4: u32,
  size5: u32,
  size6: u32,
  size7: u32,
  left0: u32,
  left1: u32,
  left2: u32,
  left3: u32,
  left4: u32,
  left5: u32,
  left6: u32,
  left7: u32,
  right0: u32,
  right1: u32,
  right2: u32,
  right3: u32,
  right4: u32,
  right5: u32,
  right6: u32,
  right7: u32,
}

override OPERATION: u32 = 0;
override RANK: u32 = 1;
override LEFT: u32 = 0;
override RIGHT: u32 = 0;
override X: u32 = 256;
override Y: u32 = 1;
override Z: u32 = 1;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> left: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> right: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<Output>>;

// What remains of an index, and where left and right are.
struct Place {
  rest: u32,
  at: vec2<u32>,
}

fn along(place: Place, size: u32, stride: vec2<u32>) -> Place {
  let rest = place.rest / size;
  return Place(rest, place.at + (place.rest - rest * size) * stride);
}

// Where they are for axes from the third on, of that index.
fn offsets(index: u32) -> vec2<u32> {
  var p = Place(index, vec2<u32>());
  if (RANK <= 3u) { return p.at + p.rest * vec2<u32>(params.left2, params.right2); }
  p = along(p, params.size2, vec2<u32>(params.left2, params.right2));
  if (RANK == 4u) { return p.at + p.rest * vec2<u32>(params.left3, params.right3); }
  p = along(p, params.size3, vec2<u32>(params.left3, params.right3));
  if (RANK == 5u) { return p.at + p.rest * vec2<u32>(params.left4, params.right4); }
  p = along(p, params.size4, vec2<u32>(params.left4, params.right4));
  if (RANK == 6u) { return p.at + p.rest * vec2<u32>(params.left5, params.right5); }
  p = along(p, params.size5, vec2<u32>(params.left5, params.right5));
  if (RANK == 7u) { return p.at + p.rest * vec2<u32>(params.left6, params.right6); }
  p = along(p, params.size6, vec2<u32>(params.left6, params.right6));
  return p.at + p.rest * vec2<u32>(params.left7, params.right7);
}

fn left_at(at: u32) -> Value {
  return Value(left[at / 4u][at % 4u]);
}

fn right_at(at: u32) -> Value {
  return Value(right[at / 4u][at % 4u]);
}

// xʸ, for whole y up to 63 by squaring: exact for integers, and right for negative x. What is no real
// number is NaN, whose bits WGSL lets no constant have.
fn power(x: vec4<Value>, y: vec4<Value>) -> vec4<Value> {
  let by = vec4f(y);
  let whole = round(by) == by;
  let times = vec4<u32>(min(abs(by), vec4f(63.0)));
  var base = x;
  var product = vec4<Value>(1);
  for (var bit = 0u; bit < 6u; bit++) {
    product = select(product, product * base, ((times >> vec4<u32>(bit)) & vec4<u32>(1u)) != vec4<u32>());
    base = base * base;
  }
  let squared = select(product, vec4<Value>(1) / product, by < vec4f());
  let m = abs(vec4f(x));
  let odd = whole & (fract(0.5 * by) != vec4f());
  let curve = exp2(by * log2(m));
  let signed = select(curve, -curve, odd & (vec4f(x) < vec4f()));
  let nan = bitcast<vec4f>(vec4<u32>(0x7fc00000u | (params.size0 & 0u)));
  let real = select(signed, nan, !whole & (vec4f(x) < vec4f()));
  let zero_or = select(real, vec4f(), (m == vec4f()) & (by > vec4f()));
  return select(vec4<Value>(zero_or), squared, whole & (abs(by) <= vec4f(63.0)));
}

// x − y · trunc(x / y), of x's sign: the quotient is rounded, so the rest may be one y off.
fn remainder(x: vec4<Value>, y: vec4<Value>) -> vec4<Value> {
  let rest = x % y;
  let zero = vec4<Value>();
  let off = ((rest > zero) & (x < zero)) | ((rest < zero) & (x > zero));
  let moved = select(rest, select(rest - abs(y), rest + abs(y), x > zero), off);
  return select(moved, zero, (abs(moved) >= abs(y)) & (y != zero));
}

fn compute(x: vec4<Value>, y: vec4<Value>) -> vec4<Output> {
  let zero = vec4<Value>();
  let xbits = bitcast<vec4<u32>>(x);
  let ybits = bitcast<vec4<u32>>(y);
  let no = vec4<Output>();
  let yes = vec4<Output>(1);
  switch (OPERATION) {
    case 0u: { return vec4<Output>(x + y); } // add
    case 1u: { return vec4<Output>(x - y); } // sub
    case 2u: { return vec4<Output>(x * y); } // mul
    case 3u: { return vec4<Output>(x / y); } // div
    case 4u: { return vec4<Output>(power(x, y)); } // pow
    case 5u: { return vec4<Output>(min(x, y)); } // min
    case 6u: { return vec4<Output>(max(x, y)); } // max
    case 7u: { // mod: of the divisor's sign
      let rest = remainder(x, y);
      let other = ((rest > zero) & (y < zero)) | ((rest < zero) & (y > zero));
      return vec4<Output>(select(rest, rest + y, other));
    }
    case 8u: { return vec4<Output>(remainder(x, y)); } // fmod: of the dividend's sign
    case 9u: { return vec4<Output>(select(x, x * y, x < zero)); } // prelu
    case 10u: { return select(no, yes, x == y); } // equal
    case 11u: { return select(no, yes, x < y); } // less
    case 12u: { return select(no, yes, x <= y); } // less_or_equal
    case 13u: { return select(no, yes, x > y); } // greater
    case 14u: { return select(no, yes, x >= y); } // greater_or_equal
    case 15u: { return vec4<Output>(bitcast<vec4<Value>>(xbits & ybits)); } // and
    case 16u: { return vec4<Output>(bitcast<vec4<Value>>(xbits | ybits)); } // or
    case 17u: { return vec4<Output>(bitcast<vec4<Value>>(xbits ^ ybits)); } // xor
    case 18u: { // shift_left; by 32 and more everything is shifted out
      return vec4<Output>(bitcast<vec4<Value>>(select(vec4<u32>(), xbits << (ybits & vec4<u32>(31u)), ybits < vec4<u32>(32u))));
    }
    default: { // shift_right
      return vec4<Output>(bitcast<vec4<Value>>(select(vec4<u32>(), xbits >> (ybits & vec4<u32>(31u)), ybits < vec4<u32>(32u))));
    }
  }
}

// The output's item i, whose operands are at `at` where they are not dense.
fn item(i: u32, at: vec2<u32>) {
  if (LEFT == 3u) {
    output[i / 4u][i % 4u] = compute(vec4<Value>(left_at(at.x)), vec4<Value>(right_at(at.y))).x;
    return;
  }
  var x: vec4<Value>;
  var y: vec4<Value>;
  if (LEFT == 0u) { x = vec4<Value>(left[i]); }
  if (LEFT == 1u) { x = vec4<Value>(left[at.x]); }
  if (LEFT == 2u) { x = vec4<Value>(left_at(at.x)); }
  if (RIGHT == 0u) { y = vec4<Value>(right[i]); }
  if (RIGHT == 1u) { y = vec4<Value>(right[at.y]); }
  if (RIGHT == 2u) { y = vec4<Value>(right_at(at.y)); }
  output[i] = compute(x, y);
}

@compute @workgroup_size(X, Y, Z)
fn binary(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var z = id.z; z < params.rest; z += groups.z * Z) {
    let outer = offsets(z);
    for (var y = id.y; y < params.size1; y += groups.y * Y) {
      let row = (z * params.size1 + y) * params.size0;
      let at = outer + y * vec2<u32>(params.left1, params.right1);
      for (var x = id.x; x < params.size0; x += groups.x * X) {
        item(row + x, at + x * vec2<u32>(params.left0, params.right0));
      }
    }
  }
}
