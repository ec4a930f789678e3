// output[b, x, y] = Output(input[b, y, x]), and 0 for y from rows to stored_rows
//
// input   [.., rows, columns]         rows input_row apart, columns contiguous
// output  [.., columns, stored_rows]  its rows output_row apart, contiguous along y
// b       over RANK axes of size_k, innermost first, with strides from_k and to_k; all in elements
//
// An invocation turns a block of 4 × 4 in registers: four vec4s are read along x and four written
// along y, so that the eight lanes of either direction read and write 128 bytes in a row. Workgroup
// memory would give a GPU nothing more and costs a software adapter. A workgroup has
// LANES_X · LANES_Y = 64 blocks. LOAD4 and STORE4 say that every row begins at a multiple of four
// elements, and STORE4 that stored_rows is one.

alias Input = u32;
alias Output = u32;

struct Params {
  columns: u32,
  rows: u32,
  stored_rows: u32,
  input_row: u32,
  output_row: u32,
  tiles_x: u32, // workgroups along x and y
  tiles_y: u32,
  batches: u32, // Π size_k
  size0: u32,
  size1: u32,
  size2: u32,
  size3: u32,
  size4: u32,
  size5: u32,
  size6: u32,
  size7: u32,
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

override LANES_X: u32 = 8;
override LANES_Y: u32 = 8;
override RANK: u32 = 1;
override LOAD4: bool = false;
override STORE4: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Input>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Output>>;

// What remains of an index, and where input and output are.
struct Place {
  rest: u32,
  at: vec2<u32>,
}

fn along(place: Place, size: u32, from_stride: u32, to_stride: u32) -> Place {
  let rest = place.rest / size;
  return Place(rest, place.at + (place.rest - rest * size) * vec2<u32>(from_stride, to_stride));
}

fn offsets(index: u32) -> vec2<u32> {
  var p = Place(index, vec2<u32>());
  if (RANK == 1u) { return p.at + p.rest * vec2<u32>(params.from0, params.to0); }
  p = along(p, params.size0, params.from0, params.to0);
  if (RANK == 2u) { return p.at + p.rest * vec2<u32>(params.from1, params.to1); }
  p = along(p, params.size1, params.from1, params.to1);
  if (RANK == 3u) { return p.at + p.rest * vec2<u32>(params.from2, params.to2); }
  p = along(p, params.size2, params.from2, params.to2);
  if (RANK == 4u) { return p.at + p.rest * vec2<u32>(params.from3, params.to3); }
  p = along(p, params.size3, params.from3, params.to3);
  if (RANK == 5u) { return p.at + p.rest * vec2<u32>(params.from4, params.to4); }
  p = along(p, params.size4, params.from4, params.to4);
  return p.at + p.rest * vec2<u32>(params.from5, params.to5);
}

fn element(at: u32) -> Output {
  return Output(input[at / 4u][at % 4u]);
}

// Elements x to x + 3 of row y, 0 where there is none.
fn row(first: u32, x: u32, y: u32) -> vec4<Output> {
  if (y >= params.rows) {
    return vec4<Output>();
  }
  let at = first + y * params.input_row + x;
  if (LOAD4) {
    return vec4<Output>(input[at / 4u]);
  }
  // Past the last column the last one again; the store leaves it out.
  let last = params.columns - 1u - x;
  return vec4<Output>(element(at), element(at + min(1u, last)), element(at + min(2u, last)), element(at + min(3u, last)));
}

fn store(first: u32, x: u32, y: u32, value: vec4<Output>) {
  if (x >= params.columns) {
    return;
  }
  let at = first + x * params.output_row + y;
  if (STORE4) {
    output[at / 4u] = value;
    return;
  }
  let rows = params.stored_rows - y;
  output[at / 4u][at % 4u] = value.x;
  if (rows > 1u) { output[(at + 1u) / 4u][(at + 1u) % 4u] = value.y; }
  if (rows > 2u) { output[(at + 2u) / 4u][(at + 2u) % 4u] = value.z; }
  if (rows > 3u) { output[(at + 3u) / 4u][(at + 3u) % 4u] = value.w; }
}

@compute @workgroup_size(LANES_X, LANES_Y)
fn transpose(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) lane: vec3<u32>,
) {
  let tile = group.x + group.y * groups.x;
  let band = tile / params.tiles_x;
  let batch = band / params.tiles_y;
  let x = 4u * ((tile - band * params.tiles_x) * LANES_X + lane.x);
  let y = 4u * ((band - batch * params.tiles_y) * LANES_Y + lane.y);
  if (batch >= params.batches || x >= params.columns || y >= params.stored_rows) {
    return;
  }
  let at = offsets(batch);
  let r0 = row(at.x, x, y);
  let r1 = row(at.x, x, y + 1u);
  let r2 = row(at.x, x, y + 2u);
  let r3 = row(at.x, x, y + 3u);
  store(at.y, x, y, vec4<Output>(r0.x, r1.x, r2.x, r3.x));
  store(at.y, x + 1u, y, vec4<Output>(r0.y, r1.y, r2.y, r3.y));
  store(at.y, x + 2u, y, vec4<Output>(r0.z, r1.z, r2.z, r3.z));
  store(at.y, x + 3u, y, vec4<Output>(r0.w, r1.w, r2.w, r3.w));
}
