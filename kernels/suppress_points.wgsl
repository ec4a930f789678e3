// kept[n, i] = 1 where no better kept point j has |pⱼ − pᵢ| < reach[channel of j], else 0: greedy
//              non-maximum suppression; with ACROSS false only points of one channel see each other
//
// found  [images, capacity, 4]  f32: x, y, score, channel of each point, as peaks.wgsl leaves them
// count  [images]  u32: points, of which those past capacity are not there
// reach  [channels]  f32, in the unit of x and y
// kept   [images, capacity]  u32; 0 past the last point
//
// Better is a larger score, then the earlier in reading order, then the longer reach, then the
// earlier in the list: the order of src/pipeline/detect.ts. A workgroup takes an image, in rounds
// until none is undecided. A point without a better undecided neighbour is decided, and at least the
// best undecided one has none, so that there are at most as many rounds as points. Decisions of a
// round that others see meanwhile change when they end, never how. Each round compares all pairs of
// an undecided point: meant for thousands.

struct Params {
  capacity: u32,
}

override ACROSS: bool = true;

const UNDECIDED = 2u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> found: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> count: array<u32>;
@group(0) @binding(3) var<storage, read> reach: array<f32>;
@group(0) @binding(4) var<storage, read_write> kept: array<atomic<u32>>;

var<workgroup> undecided: atomic<u32>;
var<workgroup> left: u32;

// Whether a, at j of the list, comes before b, at i.
fn better(a: vec4f, j: u32, b: vec4f, i: u32) -> bool {
  if (a.z != b.z) {
    return a.z > b.z;
  }
  if (a.y != b.y) {
    return a.y < b.y;
  }
  if (a.x != b.x) {
    return a.x < b.x;
  }
  let longer = reach[u32(a.w)] - reach[u32(b.w)];
  return select(longer > 0.0, j < i, longer == 0.0);
}

// Whether a, where it is kept, takes b out.
fn covers(a: vec4f, b: vec4f) -> bool {
  let off = a.xy - b.xy;
  let far = reach[u32(a.w)];
  return (ACROSS || a.w == b.w) && dot(off, off) < far * far;
}

@compute @workgroup_size(256)
fn suppress_points(
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
      let mine = found[first + i];
      var verdict = 1u;
      for (var j = 0u; j < candidates && verdict != 0u; j++) {
        let other = found[first + j];
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
