// output[i] = f(input[i]); f is OPERATION by number as in elementwise.ts, 0 is activate()
//
// input, output  [4 · count4]  Element and Output, the last four padded
//
// With PADDED they are rows of row4 vec4s of which the first `channels` elements count: what stands
// behind them becomes 0, whatever f makes of it.
//
// Computed in Value: f32 for f32 and f16, else the integer type. A workgroup computes ITEMS · 256
// vec4s: as few workgroups as keep a GPU busy, since each costs a software adapter 0.1 µs.
// Where WGSL allows a builtin a large error (§15.7.4: sin and cos 2^-11, atan 4096 ulp, log near 1
// 2^-21 absolute) the polynomials of Cephes (S. Moshier, single precision) stand in its place.

alias Element = f32;
alias Value = f32; // not f16
alias Output = f32;

struct Params {
  count4: u32,
  a: f32, // the operation's constants
  b: f32,
  row4: u32, // with PADDED
  channels: u32,
}

override OPERATION: u32 = 0;
override PADDED: bool = false;
const ITEMS = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Output>>;

override ACTIVATION: u32 = 0;

// erf(x), off by at most 1.5e-7 (Abramowitz & Stegun 7.1.26).
fn erf4(x: vec4f) -> vec4f {
  let t = 1.0 / (1.0 + 0.3275911 * abs(x));
  let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(x) * (1.0 - series * exp(-min(x * x, vec4f(80.0))));
}

fn tanh4(x: vec4f) -> vec4f {
  let e = exp(-2.0 * min(abs(x), vec4f(40.0)));
  let square = x * x;
  // Near zero 1 − e cancels: the series takes over where its third term is below 1e-8.
  return select(sign(x) * (1.0 - e) / (1.0 + e), x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0))), abs(x) < vec4f(0.04));
}

fn sigmoid4(x: vec4f) -> vec4f {
  return 1.0 / (1.0 + exp(-clamp(x, vec4f(-80.0), vec4f(80.0))));
}

fn softplus4(x: vec4f) -> vec4f {
  return max(x, vec4f()) + log(1.0 + exp(-min(abs(x), vec4f(80.0))));
}

fn activate(v: vec4f, a: f32, b: f32) -> vec4f {
  switch (ACTIVATION) {
    case 1u: { return max(v, vec4f()); } // relu
    case 2u: { return select(a * v, v, v >= vec4f()); } // leaky_relu
    case 3u: { return min(max(v, vec4f(a)), vec4f(b)); } // clip
    case 4u: { return sigmoid4(v); } // sigmoid
    case 5u: { return clamp(a * v + b, vec4f(), vec4f(1.0)); } // hard_sigmoid
    case 6u: { return v * clamp(v / 6.0 + 0.5, vec4f(), vec4f(1.0)); } // hard_swish
    case 7u: { return v * sigmoid4(a * v); } // silu
    case 8u: { return tanh4(v); } // tanh
    case 9u: { return 0.5 * v * (1.0 + erf4(v * 0.70710678)); } // gelu
    case 10u: { return 0.5 * v * (1.0 + tanh4(0.79788456 * (v + 0.044715 * v * v * v))); } // gelu_tanh
    case 11u: { return select(a * (exp(min(v, vec4f())) - 1.0), v, v > vec4f()); } // elu
    case 12u: { return softplus4(v); } // softplus
    case 13u: { return v * tanh4(softplus4(v)); } // mish
    default: { return v; } // identity
  }
}

// ln(1 + t) for t in [√½ − 1, √2 − 1]: Cephes logf.
fn log1p_near_zero(t: vec4f) -> vec4f {
  let z = t * t;
  var y = 7.0376836292e-2 * t - 1.1514610310e-1;
  y = y * t + 1.1676998740e-1;
  y = y * t - 1.2420140846e-1;
  y = y * t + 1.4249322787e-1;
  y = y * t - 1.6668057665e-1;
  y = y * t + 2.0000714765e-1;
  y = y * t - 2.4999993993e-1;
  y = y * t + 3.3333331174e-1;
  return y * t * z - 0.5 * z + t;
}

fn log1p4(t: vec4f) -> vec4f {
  let near = (t > vec4f(-0.2928932)) & (t < vec4f(0.4142135));
  return select(log(1.0 + t), log1p_near_zero(select(vec4f(), t, near)), near);
}

fn log4(x: vec4f) -> vec4f {
  let near = (x > vec4f(0.7071068)) & (x < vec4f(1.4142135));
  return select(log(x), log1p_near_zero(select(vec4f(), x - 1.0, near)), near);
}

// eˣ − 1: the series to x⁸ where the difference would cancel.
fn expm1_4(x: vec4f) -> vec4f {
  let series = x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0)))))));
  return select(exp(x) - 1.0, series, abs(x) < vec4f(0.5));
}

fn sinh4(x: vec4f) -> vec4f {
  let z = x * x;
  let series = x * (1.0 + z / 6.0 * (1.0 + z / 20.0 * (1.0 + z / 42.0 * (1.0 + z / 72.0))));
  let half = exp(0.5 * abs(x)); // its square is within f32 wherever sinh is
  return select(sign(x) * (0.5 * half * half - 0.5 / half / half), series, abs(x) < vec4f(1.0));
}

fn cosh4(x: vec4f) -> vec4f {
  let half = exp(0.5 * abs(x));
  return 0.5 * half * half + 0.5 / half / half;
}

fn asinh4(x: vec4f) -> vec4f {
  let m = abs(x);
  let held = min(m, vec4f(1e9)); // past it ln(2m), and the square would overflow
  let square = held * held;
  let y = log1p4(held + square / (1.0 + sqrt(1.0 + square)));
  return sign(x) * select(y, log(m) + 0.69314718, m > vec4f(1e9));
}

fn acosh4(x: vec4f) -> vec4f {
  let t = min(x, vec4f(1e9)) - 1.0;
  return select(log1p4(t + sqrt(t * (2.0 + t))), log(x) + 0.69314718, x > vec4f(1e9));
}

// sin(x + shift · π/2): Cody and Waite's reduction, exact to f32 up to |x| of 8192.
fn sin_shifted(x: vec4f, shift: i32) -> vec4f {
  let j = round(x * 0.63661977);
  let y = ((x - j * 1.5703125) - j * 4.837512969970703e-4) - j * 7.54978994e-8;
  let z = y * y;
  let s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * y + y;
  let c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0;
  let quadrant = vec4<i32>(j) + shift;
  let value = select(s, c, (quadrant & vec4<i32>(1)) != vec4<i32>());
  return select(value, -value, (quadrant & vec4<i32>(2)) != vec4<i32>());
}

// asin(m) for m in [0, ½]
fn asin_small(m: vec4f) -> vec4f {
  let z = m * m;
  return ((((4.2163199048e-2 * z + 2.4181311049e-2) * z + 4.5470025998e-2) * z + 7.4953002686e-2) * z + 1.6666752422e-1) * z * m + m;
}

fn asin4(x: vec4f) -> vec4f {
  let m = abs(x);
  let large = m > vec4f(0.5);
  let y = asin_small(select(m, sqrt(0.5 * (1.0 - m)), large));
  return sign(x) * select(y, 1.5707964 - 2.0 * y, large);
}

fn acos4(x: vec4f) -> vec4f {
  let m = abs(x);
  let large = m > vec4f(0.5);
  let y = asin_small(select(m, sqrt(0.5 * (1.0 - m)), large));
  let from_end = select(2.0 * y, 3.1415927 - 2.0 * y, x < vec4f());
  return select(1.5707964 - sign(x) * y, from_end, large);
}

fn atan4(x: vec4f) -> vec4f {
  let m = abs(x);
  let far = m > vec4f(2.4142135);
  let middle = (m > vec4f(0.41421356)) & !far;
  let t = select(select(m, (m - 1.0) / (m + 1.0), middle), -1.0 / m, far);
  let z = t * t;
  let y = (((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z - 3.33329491539e-1) * z * t + t;
  return sign(x) * (y + select(select(vec4f(), vec4f(0.78539816), middle), vec4f(1.5707964), far));
}

// erf(x) to a few ulp near zero too, where erf4's error is absolute.
fn erf_relative(x: vec4f) -> vec4f {
  let z = x * x;
  let series = 1.1283792 * x * (1.0 - z * (0.33333333 - z * (0.1 - z * (0.023809524 - z * (0.0046296296 - z * 0.00075757576)))));
  return select(erf4(x), series, abs(x) < vec4f(0.5));
}

// By bits: WGSL may assume that neither NaN nor infinity is there.
fn magnitude_bits(v: vec4<Value>) -> vec4<u32> {
  return bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
}

fn compute(value: vec4<Value>) -> vec4<Output> {
  let zero = vec4<Value>();
  let one = vec4<Value>(1);
  let v = vec4f(value);
  let a = params.a;
  let b = params.b;
  switch (OPERATION) {
    // In Value's own arithmetic, exact for integers.
    case 1u: { return vec4<Output>(abs(value)); } // abs
    case 2u: { return vec4<Output>(zero - value); } // neg
    case 3u: { return vec4<Output>(select(zero, one, value > zero) - select(zero, one, value < zero)); } // sign
    case 4u: { return select(vec4<Output>(), vec4<Output>(1), value == zero); } // not
    case 5u: { return vec4<Output>(bitcast<vec4<Value>>(~bitcast<vec4<u32>>(value))); } // bitwise_not
    case 6u: { return select(vec4<Output>(), vec4<Output>(1), magnitude_bits(value) > vec4<u32>(0x7f800000u)); } // is_nan
    case 7u: { // is_inf, positive where a, negative where b
      let wanted = vec4<u32>(select(0u, 0x7f800000u, a != 0.0), select(0u, 0xff800000u, b != 0.0), 0u, 0u);
      let bits = bitcast<vec4<u32>>(value);
      return select(vec4<Output>(), vec4<Output>(1), (magnitude_bits(value) == vec4<u32>(0x7f800000u)) & ((bits == wanted.xxxx) | (bits == wanted.yyyy)));
    }
    // In f32.
    case 8u: { return vec4<Output>(sqrt(v)); }
    case 9u: { return vec4<Output>(inverseSqrt(v)); } // rsqrt
    case 10u: { return vec4<Output>(1.0 / v); } // reciprocal
    case 11u: { return vec4<Output>(exp(v)); }
    case 12u: { return vec4<Output>(log4(v)); }
    case 13u: { return vec4<Output>(sin_shifted(v, 0)); } // sin
    case 14u: { return vec4<Output>(sin_shifted(v, 1)); } // cos
    case 15u: { return vec4<Output>(sin_shifted(v, 0) / sin_shifted(v, 1)); } // tan
    case 16u: { return vec4<Output>(asin4(v)); }
    case 17u: { return vec4<Output>(acos4(v)); }
    case 18u: { return vec4<Output>(atan4(v)); }
    case 19u: { return vec4<Output>(sinh4(v)); }
    case 20u: { return vec4<Output>(cosh4(v)); }
    case 21u: { return vec4<Output>(asinh4(v)); }
    case 22u: { return vec4<Output>(acosh4(v)); }
    case 23u: { return vec4<Output>(sign(v) * 0.5 * log1p4(2.0 * abs(v) / (1.0 - abs(v)))); } // atanh
    case 24u: { return vec4<Output>(erf_relative(v)); }
    case 25u: { return vec4<Output>(floor(v)); }
    case 26u: { return vec4<Output>(ceil(v)); }
    case 27u: { return vec4<Output>(round(v)); } // half to even
    case 28u: { return vec4<Output>(b * select(a * expm1_4(min(v, vec4f())), v, v > vec4f())); } // selu
    case 29u: { return vec4<Output>(select(a * expm1_4(min(v, vec4f()) / a), v, v > vec4f())); } // celu
    case 30u: { return vec4<Output>(select(vec4f(), v, v > vec4f(a))); } // thresholded_relu
    case 31u: { return vec4<Output>(v / (1.0 + abs(v))); } // softsign
    case 32u: { return vec4<Output>(select(select(vec4f(), v - b, v > vec4f(a)), v + b, v < vec4f(-a))); } // shrink
    case 33u: { return vec4<Output>(a * v + b); } // linear
    default: { return vec4<Output>(activate(v, a, b)); }
  }
}

@compute @workgroup_size(256)
fn unary(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * (ITEMS * 256u) + lane;
  for (var item = 0u; item < ITEMS; item++) {
    let i = first + item * 256u;
    if (i < params.count4) {
      var value = compute(vec4<Value>(input[i]));
      if (PADDED) {
        let channel = 4u * (i % params.row4) + vec4u(0u, 1u, 2u, 3u);
        value = select(vec4<Output>(), value, channel < vec4u(params.channels));
      }
      output[i] = value;
    }
  }
}
