// kinds[i] = what pixel i is one of: 0 for background, else the class at it plus one; with THRESHOLDED
//            1 where map[i, channel] is at least threshold
// labels[i] = one more than the first pixel of the run of its kind that i is in, 0 for background:
//             runs are the components that components_merge then unites
//
// map     [rows, width, channels]  f32, or what Element stands for
// kinds   [rows, width]  u32
// labels  [rows, width]  u32
// count   [1]  u32: set to 0, for components_list
//
// A class is rounded towards zero; −1 is background, as no class should be it. An invocation goes
// along 32 pixels of a row, at whose end a run ends too: fewer steps to a root than from pixel to
// pixel.

alias Element = f32;

struct Params {
  width: u32,
  rows: u32,
  channels: u32,
  channel: u32,
  background: u32,
  threshold: f32,
}

override THRESHOLDED: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> map: array<Element>;
@group(0) @binding(2) var<storage, read_write> kinds: array<u32>;
@group(0) @binding(3) var<storage, read_write> labels: array<u32>;
@group(0) @binding(4) var<storage, read_write> count: array<u32>;

fn kindOf(value: Element) -> u32 {
  if (THRESHOLDED) {
    return select(0u, 1u, f32(value) >= params.threshold);
  }
  let class_ = u32(i32(value));
  return select(class_ + 1u, 0u, class_ == params.background);
}

@compute @workgroup_size(64)
fn components_start(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
) {
  let spans = (params.width + 31u) / 32u;
  let span = id.x + id.y * grid.x * 64u;
  if (span == 0u) {
    count[0] = 0u;
  }
  let row = span / spans;
  if (row >= params.rows) {
    return;
  }
  let first = row * params.width + 32u * (span % spans);
  let end = min(first + 32u, (row + 1u) * params.width);
  var run = first;
  var last = 0u;
  for (var i = first; i < end; i++) {
    let kind = kindOf(map[i * params.channels + params.channel]);
    if (kind != last) {
      run = i;
      last = kind;
    }
    kinds[i] = kind;
    labels[i] = select(run + 1u, 0u, kind == 0u);
  }
}
