// transformed[6·i + j, p, c] = (Bᵀ · d · B)[i, j], d the 6 × 6 input pixels of tile p, channel c: the input
// transform of Winograd's F(4 × 4, 3 × 3) (Lavin & Gray, «Fast Algorithms for Convolutional Neural
// Networks», 2015, §4.3). Tile p covers the 4 × 4 output pixels at four times its row and column.
//
// input        [N, H, W, C]  f32 or f16, C padded with zeros to a multiple of four; zero outside
// transformed  [36, tiles, C]  f32, of the tiles first_tile…
//
// An invocation transforms four channels of a tile; a workgroup is 64 of them, channels fastest.

struct Params {
  height: u32, // H
  width: u32, // W
  channels4: u32, // C / 4
  tiles_y: u32, // of an image
  tiles_x: u32,
  first_tile: u32,
  tiles: u32,
  pad_y: i32, // above
  pad_x: i32, // on the left
}

// What is stored: f32 or f16.
alias Element = f32;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> transformed: array<vec4<f32>>;

struct Six {
  v0: vec4f,
  v1: vec4f,
  v2: vec4f,
  v3: vec4f,
  v4: vec4f,
  v5: vec4f,
}

// Bᵀ · d
fn transform(d: Six) -> Six {
  let p = d.v4 - 4.0 * d.v2;
  let q = d.v3 - 4.0 * d.v1;
  let s = d.v4 - d.v2;
  let t = 2.0 * (d.v3 - d.v1);
  return Six(
    4.0 * d.v0 - 5.0 * d.v2 + d.v4,
    p + q,
    p - q,
    s + t,
    s - t,
    4.0 * d.v1 - 5.0 * d.v3 + d.v5,
  );
}

fn tap(image: u32, y: i32, x: i32, c: u32) -> vec4f {
  let inside = y >= 0 && y < i32(params.height) && x >= 0 && x < i32(params.width);
  let pixel = select(0u, (image * params.height + u32(y)) * params.width + u32(x), inside);
  return select(vec4f(), vec4f(input[pixel * params.channels4 + c]), inside);
}

// A column of six pixels, transformed.
fn column(image: u32, y: i32, x: i32, c: u32) -> Six {
  return transform(Six(
    tap(image, y, x, c),
    tap(image, y + 1, x, c),
    tap(image, y + 2, x, c),
    tap(image, y + 3, x, c),
    tap(image, y + 4, x, c),
    tap(image, y + 5, x, c),
  ));
}

// Stores a row of the transformed tile, transformed along x.
fn store_row(at: u32, row: Six) {
  let each = params.tiles * params.channels4;
  let t = transform(row);
  transformed[at] = t.v0;
  transformed[at + each] = t.v1;
  transformed[at + 2u * each] = t.v2;
  transformed[at + 3u * each] = t.v3;
  transformed[at + 4u * each] = t.v4;
  transformed[at + 5u * each] = t.v5;
}

@compute @workgroup_size(64)
fn winograd_input(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
) {
  let index = id.y * workgroups.x * 64u + id.x;
  let c = index % params.channels4;
  let tile = index / params.channels4;
  if (tile >= params.tiles) {
    return;
  }
  let p = params.first_tile + tile;
  let image = p / params.tiles_x / params.tiles_y;
  let y = i32(p / params.tiles_x % params.tiles_y * 4u) - params.pad_y;
  let x = i32(p % params.tiles_x * 4u) - params.pad_x;
  let d0 = column(image, y, x, c);
  let d1 = column(image, y, x + 1, c);
  let d2 = column(image, y, x + 2, c);
  let d3 = column(image, y, x + 3, c);
  let d4 = column(image, y, x + 4, c);
  let d5 = column(image, y, x + 5, c);
  let each = 6u * params.tiles * params.channels4;
  store_row(index, Six(d0.v0, d1.v0, d2.v0, d3.v0, d4.v0, d5.v0));
  store_row(index + 1u * each, Six(d0.v1, d1.v1, d2.v1, d3.v1, d4.v1, d5.v1));
  store_row(index + 2u * each, Six(d0.v2, d1.v2, d2.v2, d3.v2, d4.v2, d5.v2));
  store_row(index + 3u * each, Six(d0.v3, d1.v3, d2.v3, d3.v3, d4.v3, d5.v3));
  store_row(index + 4u * each, Six(d0.v4, d1.v4, d2.v4, d3.v4, d4.v4, d5.v4));
  store_row(index + 5u * each, Six(d0.v5, d1.v5, d2.v5, d3.v5, d4.v5, d5.v5));
}
