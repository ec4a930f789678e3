// kept[n, i] = 1 where no better kept box j has |j ∩ i| / |j ∪ i| > most_overlap, else 0: greedy
//              non-maximum suppression; with ACROSS false only boxes of one class see each other
//
// boxes  [images, capacity, 4]  f32: left, top, right, bottom
// ranks  [images, capacity, 2]  f32: score, class
// count  [images]  u32: boxes, of which those past capacity are not there
// kept   [images, capacity]  u32; 0 past the last box
//
// Better is a larger score, then the box whose top, then left, comes first, then the earlier in the
// list. A workgroup takes an image, in rounds until none is undecided: see suppress_points.wgsl.

struct Params {
  capacity: u32,
  most_overlap: f32,
}

override ACROSS: bool = false;

const UNDECIDED = 2u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> boxes: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> ranks: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> count: array<u32>;
@group(0) @binding(4) var<storage, read_write> kept: array<atomic<u32>>;

var<workgroup> undecided: atomic<u32>;
var<workgroup> left: u32;

// A box with what it is ranked by.
struct Candidate {
  box: vec4f,
  rank: vec2f,
}

// Whether a, at j of the list, comes before b, at i.
fn better(a: Candidate, j: u32, b: Candidate, i: u32) -> bool {
  if (a.rank.x != b.rank.x) {
    return a.rank.x > b.rank.x;
  }
  if (a.box.y != b.box.y) {
    return a.box.y < b.box.y;
  }
  return select(a.box.x < b.box.x, j < i, a.box.x == b.box.x);
}

fn area(size: vec2f) -> f32 {
  return max(size.x, 0.0) * max(size.y, 0.0);
}

// Whether a, where it is kept, takes b out.
fn covers(a: Candidate, b: Candidate) -> bool {
  let both = area(min(a.box.zw, b.box.zw) - max(a.box.xy, b.box.xy));
  let either = area(a.box.zw - a.box.xy) + area(b.box.zw - b.box.xy) - both;
  // Not divided: two boxes of no area are no overlap.
  return (ACROSS || a.rank.y == b.rank.y) && both > params.most_overlap * either;
}

@compute @workgroup_size(256)
fn suppress_boxes(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = group.x * params.capacity;
  let candidates = min(count[group.x], params.capacity);
  for (var i = lane; i < params.capacity; i += 256u) {
    atomicStore(&kept[first + i], select(0u, UNDECIDED, i < candidates));
  }
  loop {
    // Orders what the lanes stored before what any of them reads, and the counter's reset.
    storageBarrier();
    if (lane == 0u) {
      atomicStore(&undecided, 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < candidates; i += 256u) {
      if (atomicLoad(&kept[first + i]) != UNDECIDED) {
        continue;
      }
      let mine = Candidate(boxes[first + i], ranks[first + i]);
      var verdict = 1u;
      for (var j = 0u; j < candidates && verdict != 0u; j++) {
        let other = Candidate(boxes[first + j], ranks[first + j]);
        if (!covers(other, mine) || j == i || !better(other, j, mine, i)) {
          continue;
        }
        let state = atomicLoad(&kept[first + j]);
        if (state == 1u) {
          verdict = 0u;
        } else if (state == UNDECIDED) {
          verdict = UNDECIDED;
        }
      }
      if (verdict == UNDECIDED) {
        atomicAdd(&undecided, 1u);
      } else {
        atomicStore(&kept[first + i], verdict);
      }
    }
    // Orders the additions before the count is read; the load is a barrier itself.
    workgroupBarrier();
    if (lane == 0u) {
      left = atomicLoad(&undecided);
    }
    if (workgroupUniformLoad(&left) == 0u) {
      break;
    }
  }
}
