// segments = the pieces of the lines along which scores[n, y, x, channel] is thresholds[k], linear
//            between pixels' centres: marching squares (Lorensen & Cline 1987, in two dimensions)
//
// scores      [images, height, width, channels]  f32 or f16
// thresholds  [levels]  f32
// count       [1]  u32: segments met, also those for which segments had no room; zero before
// segments    [capacity]  vec4 of u32: the edge it begins on and the edge it ends on, how far along
//             its edge it begins as the bits of an f32, levels · n + k; in any order
//
// Vertices are the centres of pixels and of a frame one pixel wide, numbered row by row; edge 2v goes
// from vertex v to the right, 2v + 1 down. What is at least the threshold is inside, and on the
// right of a segment, with y downwards. Beyond the map all is outside, and lines run along its
// border: half way to the frame. So each edge that is crossed begins one segment and ends one.
// Where only two opposite corners of a cell are inside, they are connected if the corners' mean is
// inside. An invocation is one cell between four vertices; z counts images times levels.

alias Element = f32;

struct Params {
  width: u32,
  height: u32,
  channels: u32,
  channel: u32,
  levels: u32,
  capacity: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<Element>;
@group(0) @binding(2) var<storage, read> thresholds: array<f32>;
@group(0) @binding(3) var<storage, read_write> count: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> segments: array<vec4<u32>>;

// How far the score at a vertex of the framed grid is above the threshold; of the frame −1.
struct Corner {
  above: f32,
  framed: bool,
}

fn corner(image: u32, x: u32, y: u32, threshold: f32) -> Corner {
  if (x == 0u || y == 0u || x > params.width || y > params.height) {
    return Corner(-1.0, true);
  }
  let pixel = (image * params.height + y - 1u) * params.width + x - 1u;
  return Corner(f32(scores[pixel * params.channels + params.channel]) - threshold, false);
}

// Where from a to b the threshold is met.
fn crossing(a: Corner, b: Corner) -> f32 {
  if (a.framed || b.framed) {
    return 0.5;
  }
  return clamp(a.above / (a.above - b.above), 0.0, 1.0);
}

@compute @workgroup_size(64)
fn isolines(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x > params.width || id.y > params.height) {
    return;
  }
  let image = id.z / params.levels;
  let threshold = thresholds[id.z % params.levels];
  // Clockwise from above left, as their edges are: above, right, below, left.
  let c0 = corner(image, id.x, id.y, threshold);
  let c1 = corner(image, id.x + 1u, id.y, threshold);
  let c2 = corner(image, id.x + 1u, id.y + 1u, threshold);
  let c3 = corner(image, id.x, id.y + 1u, threshold);
  let inside = select(0u, 1u, c0.above >= 0.0) + select(0u, 2u, c1.above >= 0.0) +
    select(0u, 4u, c2.above >= 0.0) + select(0u, 8u, c3.above >= 0.0);
  if (inside == 0u || inside == 15u) {
    return;
  }
  let corners = array<Corner, 4>(c0, c1, c2, c3);
  let stride = params.width + 2u;
  let vertex = id.y * stride + id.x;
  let edges = array<u32, 4>(2u * vertex, 2u * vertex + 3u, 2u * (vertex + stride), 2u * vertex + 1u);
  let saddle = inside == 5u || inside == 10u;
  let mean = c0.above + c1.above + c2.above + c3.above;
  for (var i = 0u; i < 4u; i++) {
    let next = (i + 1u) % 4u;
    if (((inside >> i) & 1u) == 0u || ((inside >> next) & 1u) == 1u) {
      continue;
    }
    // Clockwise from inside to outside a segment begins; it ends where the outside does: after it,
    // but for corners that are cut off one by one, where it goes back around its own.
    var end = (i + 3u) % 4u;
    if (!saddle || mean >= 0.0) {
      end = next;
      while (((inside >> ((end + 1u) % 4u)) & 1u) == 0u) {
        end = (end + 1u) % 4u;
      }
    }
    // Edges run to the right and down: above and right they go with the clock, the others against.
    var a = corners[i];
    var b = corners[next];
    if (i >= 2u) {
      a = corners[next];
      b = corners[i];
    }
    let at = atomicAdd(&count[0], 1u);
    if (at < params.capacity) {
      segments[at] = vec4u(edges[i], edges[end], bitcast<u32>(crossing(a, b)), id.z);
    }
  }
}
