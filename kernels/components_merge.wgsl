// labels: neighbours of one kind get one root, by union and find
//
// kinds   [images, height, width]  u32, 0 for background
// labels  [images, height, width]  u32: one more than another pixel of the component, never a later
//         one; its own number plus one where it is the root
//
// An invocation unites one pixel with those before it in reading order: left where components_start
// ended a run, above, and with EIGHT above to the left and to the right. Others do the same meanwhile: a root is only ever made
// the child of an earlier pixel, by the one atomicMin that saw it a root, so that each step lowers a
// number and none waits for another. Whatever the shape, one pass is enough.

struct Params {
  width: u32,
  height: u32,
  pixels: u32,
}

override EIGHT: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> kinds: array<u32>;
@group(0) @binding(2) var<storage, read_write> labels: array<atomic<u32>>;

fn root(of_: u32) -> u32 {
  var at = of_;
  loop {
    let parent = atomicLoad(&labels[at]) - 1u;
    if (parent == at) {
      return at;
    }
    at = parent;
  }
}

fn unite(a: u32, b: u32) {
  var late = a;
  var early = b;
  loop {
    let x = root(late);
    let y = root(early);
    if (x == y) {
      return;
    }
    late = max(x, y);
    early = min(x, y);
    let before = atomicMin(&labels[late], early + 1u) - 1u;
    if (before == late) {
      return;
    }
    // It was no root any more: what it was under must be united too.
    late = before;
  }
}

@compute @workgroup_size(64)
fn components_merge(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let i = id.x + id.y * grid.x * 64u;
  if (i >= params.pixels) {
    return;
  }
  let kind = kinds[i];
  if (kind == 0u) {
    return;
  }
  let x = i % params.width;
  let y = i / params.width % params.height;
  let left = x > 0u && kinds[i - 1u] == kind;
  if (left && x % 32u == 0u) {
    unite(i, i - 1u);
  }
  if (y == 0u) {
    return;
  }
  let above = i - params.width;
  let up = kinds[above] == kind;
  let up_left = x > 0u && kinds[above - min(x, 1u)] == kind;
  // Where left, above and above to the left are of the kind, the left one is united with above.
  if (up && !(left && up_left)) {
    unite(i, above);
  }
  if (EIGHT && !up) {
    if (up_left && !left) {
      unite(i, above - 1u);
    }
    if (x + 1u < params.width && kinds[above + 1u] == kind) {
      unite(i, above + 1u);
    }
  }
}
