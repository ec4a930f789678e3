// output[to + Σ_k i_k · to_k] = input[from + Σ_k i_k · from_k]
//
// input, output  Items: four, two or sixteen bytes that are moved as they are. Offsets and strides
//                count Items and may be negative, wrapped; i runs over RANK axes of size_k,
//                innermost first
//
// An invocation walks a few items of the innermost axis along x, of the next along y, and of the
// rest, which alone is divided into indices, along z.

alias Item = u32;

struct Params {
  rest: u32, // Π size_k from the third on
  input_offset: u32,
  output_offset: u32,
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

override RANK: u32 = 1;
override X: u32 = 256;
override Y: u32 = 1;
override Z: u32 = 1;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Item>;
@group(0) @binding(2) var<storage, read_write> output: array<Item>;

// What remains of an index, and where input and output are.
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
  var p = Place(index, vec2<u32>(params.input_offset, params.output_offset));
  if (RANK <= 3u) { return p.at + p.rest * vec2<u32>(params.from2, params.to2); }
  p = along(p, params.size2, vec2<u32>(params.from2, params.to2));
  if (RANK == 4u) { return p.at + p.rest * vec2<u32>(params.from3, params.to3); }
  p = along(p, params.size3, vec2<u32>(params.from3, params.to3));
  if (RANK == 5u) { return p.at + p.rest * vec2<u32>(params.from4, params.to4); }
  p = along(p, params.size4, vec2<u32>(params.from4, params.to4));
  if (RANK == 6u) { return p.at + p.rest * vec2<u32>(params.from5, params.to5); }
  p = along(p, params.size5, vec2<u32>(params.from5, params.to5));
  if (RANK == 7u) { return p.at + p.rest * vec2<u32>(params.from6, params.to6); }
  p = along(p, params.size6, vec2<u32>(params.from6, params.to6));
  return p.at + p.rest * vec2<u32>(params.from7, params.to7);
}

@compute @workgroup_size(X, Y, Z)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var z = id.z; z < params.rest; z += groups.z * Z) {
    let outer = offsets(z);
    for (var y = id.y; y < params.size1; y += groups.y * Y) {
      let at = outer + y * vec2<u32>(params.from1, params.to1);
      for (var x = id.x; x < params.size0; x += groups.x * X) {
        output[at.y + x * params.to0] = input[at.x + x * params.from0];
      }
    }
  }
}
