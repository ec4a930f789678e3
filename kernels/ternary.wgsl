// output[i] = condition[i] != 0 ? left[i] : right[i], with broadcasting: ONNX Where-16
//
// condition    u32, left and right  Item: all dense row-major, read by strides along RANK axes,
//              innermost first
// output       Item, dense row-major, padded to a multiple of four
//
// An Item is four or two bytes that are moved as they are, whatever they stand for: masks of −∞ and
// NaN pass. How the operands are read, by ACCESS: 0 all as the output lies; 1 a vec4 by strides that
// count vec4s, or one element where the innermost stride is 0; 3 each element by itself. An
// invocation walks a few items of the innermost axis along x, of the next along y, and of the rest,
// which alone is divided into indices, along z.

alias Item = u32;

struct Params {
  rest: u32, // Π size_k from the third on
  size0: u32,
  size1: u32,
  size2: u32,
  size3: u32,
  size4: u32,
  size5: u32,
  size6: u32,
  size7: u32,
  condition0: u32,
  condition1: u32,
  condition2: u32,
  condition3: u32,
  condition4: u32,
  condition5: u32,
  condition6: u32,
  condition7: u32,
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

override RANK: u32 = 1;
override ACCESS: u32 = 0;
override X: u32 = 256;
override Y: u32 = 1;
override Z: u32 = 1;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> condition: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> left: array<vec4<Item>>;
@group(0) @binding(3) var<storage, read> right: array<vec4<Item>>;
@group(0) @binding(4) var<storage, read_write> output: array<vec4<Item>>;

// What remains of an index, and where condition, left and right are.
struct Place {
  rest: u32,
  at: vec3<u32>,
}

fn along(place: Place, size: u32, stride: vec3<u32>) -> Place {
  let rest = place.rest / size;
  return Place(rest, place.at + (place.rest - rest * size) * stride);
}

// Where they are for axes from the third on, of that index.
fn offsets(index: u32) -> vec3<u32> {
  var p = Place(index, vec3<u32>());
  if (RANK <= 3u) { return p.at + p.rest * vec3<u32>(params.condition2, params.left2, params.right2); }
  p = along(p, params.size2, vec3<u32>(params.condition2, params.left2, params.right2));
  if (RANK == 4u) { return p.at + p.rest * vec3<u32>(params.condition3, params.left3, params.right3); }
  p = along(p, params.size3, vec3<u32>(params.condition3, params.left3, params.right3));
  if (RANK == 5u) { return p.at + p.rest * vec3<u32>(params.condition4, params.left4, params.right4); }
  p = along(p, params.size4, vec3<u32>(params.condition4, params.left4, params.right4));
  if (RANK == 6u) { return p.at + p.rest * vec3<u32>(params.condition5, params.left5, params.right5); }
  p = along(p, params.size5, vec3<u32>(params.condition5, params.left5, params.right5));
  if (RANK == 7u) { return p.at + p.rest * vec3<u32>(params.condition6, params.left6, params.right6); }
  p = along(p, params.size6, vec3<u32>(params.condition6, params.left6, params.right6));
  return p.at + p.rest * vec3<u32>(params.condition7, params.left7, params.right7);
}

fn chosen(at: vec3<u32>) -> Item {
  return select(right[at.z / 4u][at.z % 4u], left[at.y / 4u][at.y % 4u], condition[at.x / 4u][at.x % 4u] != 0u);
}

// The output's item i, whose operands are at `at` where they are not dense.
fn item(i: u32, at: vec3<u32>) {
  if (ACCESS == 0u) {
    output[i] = select(right[i], left[i], condition[i] != vec4<u32>());
    return;
  }
  if (ACCESS == 3u) {
    output[i / 4u][i % 4u] = chosen(at);
    return;
  }
  var c: vec4<u32>;
  var x: vec4<Item>;
  var y: vec4<Item>;
  if (params.condition0 == 0u) { c = vec4<u32>(condition[at.x / 4u][at.x % 4u]); } else { c = condition[at.x]; }
  if (params.left0 == 0u) { x = vec4<Item>(left[at.y / 4u][at.y % 4u]); } else { x = left[at.y]; }
  if (params.right0 == 0u) { y = vec4<Item>(right[at.z / 4u][at.z % 4u]); } else { y = right[at.z]; }
  output[i] = select(y, x, c != vec4<u32>());
}

@compute @workgroup_size(X, Y, Z)
fn ternary(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var z = id.z; z < params.rest; z += groups.z * Z) {
    let outer = offsets(z);
    for (var y = id.y; y < params.size1; y += groups.y * Y) {
      let row = (z * params.size1 + y) * params.size0;
      let at = outer + y * vec3<u32>(params.condition1, params.left1, params.right1);
      for (var x = id.x; x < params.size0; x += groups.x * X) {
        item(row + x, at + x * vec3<u32>(params.condition0, params.left0, params.right0));
      }
    }
  }
}
