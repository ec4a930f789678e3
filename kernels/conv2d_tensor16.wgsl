// output[n, y, x, o] = act(Σ_{i, j, c} input[n, y·stride_y − pad_y + i·dilation_y, x·stride_x − pad_x + j·dilation_x, c]
//                                      · weights[i, j, c, o] + bias[o] + residual[n, y, x, o])   (ONNX Conv-11)
//
// input     [N, H, W, C]     C padded with zeros to a multiple of four; zero outside
// bias      [O]              where BIAS
// residual  [N, OH, OW, O]   where RESIDUAL
// output    [N, OH, OW, O]   O padded to a multiple of four; the padding is stored as zero
// weights   [KH, KW, C/groups, O]; channels of a group are a multiple of four, of input and output
//
// For adapters that multiply matrices of 16 × 16 × 16, f16 into f32: implicit GEMM. All is stored as
// f16. A workgroup is eight subgroups of 32 lanes, ROWS × 8/ROWS of them; each computes 4 × 2
// matrices of 16 pixels × 16 output channels of one group. The sums' terms, all (i, j, c) in a row,
// are taken 32 at a time: the panels of a step lie in workgroup memory as vec4<u32>, eight f16 each, a
// row longer by one so that rows lie in different banks; those of the next step are loaded into
// registers meanwhile. x and y are the pixels, z is (group, channels).

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;

struct Params {
  images: u32, // N
  height: u32, // H
  width: u32, // W
  channels4: u32, // C / 4
  out_height: u32, // OH
  out_width: u32, // OW
  out_channels: u32, // O without padding
  out_channels4: u32, // O / 4
  group_channels: u32, // C / groups
  group_out_channels: u32, // O / groups
  kernel_height: u32, // KH
  kernel_width: u32, // KW
  stride_y: u32,
  stride_x: u32,
  pad_y: i32, // above
  pad_x: i32, // on the left
  dilation_y: u32,
  dilation_x: u32,
  stored_height: u32, // of output: OH, or more where a transposed convolution's phases share it
  stored_width: u32,
  step_y: u32, // (y, x) is stored at (y · step_y + from_y, x · step_x + from_x)
  step_x: u32,
  from_y: u32,
  from_x: u32,
  a: f32, // the activation's constants
  b: f32,
}

override BIAS: bool = false;
override RESIDUAL: bool = false;
// Whether stored values are held within what f16 has: always, as all is f16 here.
override SATURATE: bool = true;
// Rows of subgroups: 4, or 2 for more channels.
override ROWS: u32 = 4;
// Whether eight channels in a row belong to one tap: the group's channels are a multiple of eight.
override PAIRED: bool = false;

// Side of a matrix.
const SIZE = 16u;
const LANES = 32u;
const THREADS = 8u * LANES;
// vec4<u32>s of a step's terms, and a row of the input's panel.
const UNITS = SIZE / 4u;
const INPUT_ROW = UNITS + 1u;
override PIXELS = ROWS * 4u * SIZE; // derived
override COLUMNS8 = 8u / ROWS * 2u * SIZE / 8u; // derived
override WEIGHTS_ROW = COLUMNS8 + 1u; // derived
override WEIGHTS_AT = PIXELS * INPUT_ROW; // derived
override PANELS = WEIGHTS_AT + 2u * SIZE * WEIGHTS_ROW; // derived

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f16>>;
@group(0) @binding(4) var<storage, read> residual: array<vec4<f16>>;
@group(0) @binding(5) var<storage, read_write> output: array<vec4<f16>>;

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

// Where the vec4 of output channels 4·o… of a pixel, counted through all images, is stored.
fn stored_at(pixel: u32, o: u32) -> u32 {
  let x = pixel % params.out_width;
  let y = pixel / params.out_width % params.out_height;
  let n = pixel / params.out_width / params.out_height;
  let row = n * params.stored_height + y * params.step_y + params.from_y;
  return (row * params.stored_width + x * params.step_x + params.from_x) * params.out_channels4 + o;
}

// Adds bias and residual, activates, clears padding channels and stores.
fn store(at: u32, o: u32, sum: vec4f) {
  var v = sum;
  if (BIAS) {
    v += vec4f(bias[o]);
  }
  if (RESIDUAL) {
    v += vec4f(residual[at]);
  }
  v = activate(v, params.a, params.b);
  v = select(vec4f(), v, vec4u(4u * o) + vec4u(0u, 1u, 2u, 3u) < vec4u(params.out_channels));
  if (SATURATE) {
    v = clamp(v, vec4f(-65504.0), vec4f(65504.0));
  }
  output[at] = vec4<f16>(v);
}

// Where a loader is in the sums' terms: tap (i, j) and vec4 c of the channels.
struct Term {
  i: u32,
  j: u32,
  c: u32,
}

// The term `count` vec4s on.
fn advance(before: Term, count: u32) -> Term {
  let channels4 = params.group_channels / 4u;
  var term = before;
  term.c += count;
  while (term.c >= channels4) {
    term.c -= channels4;
    term.j++;
    if (term.j == params.kernel_width) {
      term.j = 0u;
      term.i++;
    }
  }
  return term;
}

// A pixel whose inputs are loaded: its image's first row, and where its taps begin.
struct Pixel {
  image: u32,
  y: i32,
  x: i32,
}

fn pixel_at(index: u32) -> Pixel {
  let pixel = min(index, params.images * params.out_height * params.out_width - 1u);
  let x = pixel % params.out_width;
  let y = pixel / params.out_width % params.out_height;
  let n = pixel / params.out_width / params.out_height;
  return Pixel(n * params.height, i32(y * params.stride_y) - params.pad_y, i32(x * params.stride_x) - params.pad_x);
}

fn load4(pixel: Pixel, term: Term, first: u32) -> vec2<u32> {
  let y = pixel.y + i32(term.i * params.dilation_y);
  let x = pixel.x + i32(term.j * params.dilation_x);
  let inside = term.i < params.kernel_height && y >= 0 && y < i32(params.height) && x >= 0 && x < i32(params.width);
  if (!inside) {
    return vec2<u32>();
  }
  let at = ((pixel.image + u32(y)) * params.width + u32(x)) * params.channels4 + first + term.c;
  return bitcast<vec2<u32>>(input[at]);
}

// Eight terms of a pixel: the first four at `term`, the others at `next`, which PAIRED makes its neighbour.
fn load_input(pixel: Pixel, term: Term, next: Term, first: u32) -> vec4<u32> {
  if (PAIRED) {
    let y = pixel.y + i32(term.i * params.dilation_y);
    let x = pixel.x + i32(term.j * params.dilation_x);
    let inside = term.i < params.kernel_height && y >= 0 && y < i32(params.height) && x >= 0 && x < i32(params.width);
    if (!inside) {
      return vec4<u32>();
    }
    let at = ((pixel.image + u32(y)) * params.width + u32(x)) * params.channels4 + first + term.c;
    return vec4<u32>(bitcast<vec2<u32>>(input[at]), bitcast<vec2<u32>>(input[at + 1u]));
  }
  return vec4<u32>(load4(pixel, term, first), load4(pixel, next, first));
}

// Eight output channels of a term, from the vec4 `column` of the group on.
fn load_weights(row: u32, column: u32, group: u32) -> vec4<u32> {
  let group_columns = params.group_out_channels / 4u;
  var w = vec4<u32>();
  if (row < params.kernel_height * params.kernel_width * params.group_channels) {
    let at = row * params.out_channels4 + group * group_columns + column;
    if (column < group_columns) {
      w.x = bitcast<vec2<u32>>(weights[at]).x;
      w.y = bitcast<vec2<u32>>(weights[at]).y;
    }
    if (column + 1u < group_columns) {
      w.z = bitcast<vec2<u32>>(weights[at + 1u]).x;
      w.w = bitcast<vec2<u32>>(weights[at + 1u]).y;
    }
  }
  return w;
}

// The input's panel, the weights', and at the end sums on their way from matrices to the output.
var<workgroup> panels: array<vec4<u32>, PANELS>;

@compute @workgroup_size(THREADS)
fn conv2d_tensor16(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let pixels = params.images * params.out_height * params.out_width;
  let pixel0 = (tile.y * workgroups.x + tile.x) * PIXELS;
  if (pixel0 >= pixels) {
    return;
  }
  let group_columns = params.group_out_channels / 4u;
  let tiles = (group_columns + 2u * COLUMNS8 - 1u) / (2u * COLUMNS8);
  let group = tile.z / tiles;
  let first = group * (params.group_channels / 4u);
  let column0 = tile.z % tiles * 2u * COLUMNS8;
  let terms = params.kernel_height * params.kernel_width * params.group_channels;

  let matrix_row = subgroup % ROWS * 4u;
  let matrix_column = subgroup / ROWS * 2u;

  // UNITS neighbouring invocations load a pixel's terms, COLUMNS8 a term's channels.
  let unit = index % UNITS;
  let load_pixel = index / UNITS;
  const EACH = THREADS / UNITS;
  let p0 = pixel_at(pixel0 + load_pixel);
  let p1 = pixel_at(pixel0 + load_pixel + EACH);
  let p2 = pixel_at(pixel0 + load_pixel + 2u * EACH);
  let p3 = pixel_at(pixel0 + load_pixel + 3u * EACH);
  let input_at = load_pixel * INPUT_ROW + unit;
  let load_column = column0 + 2u * (index % COLUMNS8);
  let load_row = index / COLUMNS8;
  let each_row = THREADS / COLUMNS8;
  let weights_at = WEIGHTS_AT + load_row * WEIGHTS_ROW + index % COLUMNS8;
  var term = advance(Term(), 2u * unit);
  var next = advance(Term(), 2u * unit + 1u);
  var row = load_row;
  var v0 = load_input(p0, term, next, first);
  var v1 = load_input(p1, term, next, first);
  var v2 = vec4<u32>();
  var v3 = vec4<u32>();
  if (ROWS == 4u) {
    v2 = load_input(p2, term, next, first);
    v3 = load_input(p3, term, next, first);
  }
  var w0 = load_weights(row, load_column, group);
  var w1 = vec4<u32>();
  if (ROWS == 2u) {
    w1 = load_weights(row + each_row, load_column, group);
  }
  var s00 = subgroup_matrix_result<f32, SIZE, SIZE>();
  var s01 = subgroup_matrix_result<f32, SIZE, SIZE>();
  var s10 = subgroup_matrix_result<f32, SIZE, SIZE>();
  var s11 = subgroup_matrix_result<f32, SIZE, SIZE>();
  var s20 = subgroup_matrix_result<f32, SIZE, SIZE>();
  var s21 = subgroup_matrix_result<f32, SIZE, SIZE>();
  var s30 = subgroup_matrix_result<f32, SIZE, SIZE>();
  var s31 = subgroup_matrix_result<f32, SIZE, SIZE>();
  for (var step = 0u; step < terms; step += 2u * SIZE) {
    // The panels were read by all before they are written again, and written before they are read.
    workgroupBarrier();
    panels[input_at] = v0;
    panels[input_at + EACH * INPUT_ROW] = v1;
    if (ROWS == 4u) {
      panels[input_at + 2u * EACH * INPUT_ROW] = v2;
      panels[input_at + 3u * EACH * INPUT_ROW] = v3;
    }
    panels[weights_at] = w0;
    if (ROWS == 2u) {
      panels[weights_at + each_row * WEIGHTS_ROW] = w1;
    }
    workgroupBarrier();
    term = advance(term, SIZE / 2u);
    if (!PAIRED) {
      next = advance(next, SIZE / 2u);
    }
    row += 2u * SIZE;
    v0 = load_input(p0, term, next, first);
    v1 = load_input(p1, term, next, first);
    if (ROWS == 4u) {
      v2 = load_input(p2, term, next, first);
      v3 = load_input(p3, term, next, first);
    }
    w0 = load_weights(row, load_column, group);
    if (ROWS == 2u) {
      w1 = load_weights(row + each_row, load_column, group);
    }
    for (var k = 0u; k < 2u; k++) {
      let left_at = matrix_row * SIZE * INPUT_ROW + k * SIZE / 8u;
      let right_at = WEIGHTS_AT + k * SIZE * WEIGHTS_ROW + matrix_column * SIZE / 8u;
      let right0 = subgroupMatrixLoad<subgroup_matrix_right<f16, SIZE, SIZE>, row_major>(&panels, right_at + 0u * SIZE / 8u, WEIGHTS_ROW);
      let right1 = subgroupMatrixLoad<subgroup_matrix_right<f16, SIZE, SIZE>, row_major>(&panels, right_at + 1u * SIZE / 8u, WEIGHTS_ROW);
      let left0 = subgroupMatrixLoad<subgroup_matrix_left<f16, SIZE, SIZE>, row_major>(&panels, left_at + 0u * SIZE * INPUT_ROW, INPUT_ROW);
      s00 = subgroupMatrixMultiplyAccumulate(left0, right0, s00);
      s01 = subgroupMatrixMultiplyAccumulate(left0, right1, s01);
      let left1 = subgroupMatrixLoad<subgroup_matrix_left<f16, SIZE, SIZE>, row_major>(&panels, left_at + 1u * SIZE * INPUT_ROW, INPUT_ROW);
      s10 = subgroupMatrixMultiplyAccumulate(left1, right0, s10);
      s11 = subgroupMatrixMultiplyAccumulate(left1, right1, s11);
      let left2 = subgroupMatrixLoad<subgroup_matrix_left<f16, SIZE, SIZE>, row_major>(&panels, left_at + 2u * SIZE * INPUT_ROW, INPUT_ROW);
      s20 = subgroupMatrixMultiplyAccumulate(left2, right0, s20);
      s21 = subgroupMatrixMultiplyAccumulate(left2, right1, s21);
      let left3 = subgroupMatrixLoad<subgroup_matrix_left<f16, SIZE, SIZE>, row_major>(&panels, left_at + 3u * SIZE * INPUT_ROW, INPUT_ROW);
      s30 = subgroupMatrixMultiplyAccumulate(left3, right0, s30);
      s31 = subgroupMatrixMultiplyAccumulate(left3, right1, s31);
    }
  }

  // A row of matrices at a time goes through workgroup memory, two matrices for each subgroup.
  const MATRIX = SIZE * SIZE / 4u;
  let sums_at = subgroup * 2u * MATRIX;
  workgroupBarrier(); // What was there was read.
  subgroupMatrixStore<row_major>(&panels, sums_at, s00, SIZE / 4u);
  subgroupMatrixStore<row_major>(&panels, sums_at + MATRIX, s01, SIZE / 4u);
  workgroupBarrier(); // The sums are there.
  store_sums(sums_at, lane, pixel0 + (matrix_row + 0u) * SIZE, column0 + matrix_column * SIZE / 4u, group);
  workgroupBarrier(); // What was there was read.
  subgroupMatrixStore<row_major>(&panels, sums_at, s10, SIZE / 4u);
  subgroupMatrixStore<row_major>(&panels, sums_at + MATRIX, s11, SIZE / 4u);
  workgroupBarrier(); // The sums are there.
  store_sums(sums_at, lane, pixel0 + (matrix_row + 1u) * SIZE, column0 + matrix_column * SIZE / 4u, group);
  workgroupBarrier(); // What was there was read.
  subgroupMatrixStore<row_major>(&panels, sums_at, s20, SIZE / 4u);
  subgroupMatrixStore<row_major>(&panels, sums_at + MATRIX, s21, SIZE / 4u);
  workgroupBarrier(); // The sums are there.
  store_sums(sums_at, lane, pixel0 + (matrix_row + 2u) * SIZE, column0 + matrix_column * SIZE / 4u, group);
  workgroupBarrier(); // What was there was read.
  subgroupMatrixStore<row_major>(&panels, sums_at, s30, SIZE / 4u);
  subgroupMatrixStore<row_major>(&panels, sums_at + MATRIX, s31, SIZE / 4u);
  workgroupBarrier(); // The sums are there.
  store_sums(sums_at, lane, pixel0 + (matrix_row + 3u) * SIZE, column0 + matrix_column * SIZE / 4u, group);
}

// Stores two matrices of sums, those of `SIZE` pixels from `pixel0` and of twice as many channels.
fn store_sums(at: u32, lane: u32, pixel0: u32, column0: u32, group: u32) {
  const MATRIX = SIZE * SIZE / 4u;
  let group_columns = params.group_out_channels / 4u;
  let pixels = params.images * params.out_height * params.out_width;
  for (var e = lane; e < 2u * MATRIX; e += LANES) {
    // Neighbouring lanes store neighbouring channels of both matrices.
    let pixel = pixel0 + e / (SIZE / 2u);
    let part = e % (SIZE / 2u);
    let column = column0 + part;
    if (pixel < pixels && column < group_columns) {
      let o = group * group_columns + column;
      let sum_at = at + part / (SIZE / 4u) * MATRIX + e / (SIZE / 2u) * (SIZE / 4u) + part % (SIZE / 4u);
      store(stored_at(pixel, o), o, bitcast<vec4f>(panels[sum_at]));
    }
  }
}
