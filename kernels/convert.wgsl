// output[i] = Output(input[i]): ONNX Cast-21 between numbers
//
// input, output  [4 · count4]  Input and Output, the last four padded
//
// To an integer it is rounded toward zero and held within the type; between i32 and u32 the bits
// stay. With TO_BOOL it is 1 where input is not 0, NaN included, else 0. A workgroup computes
// ITEMS · 256 vec4s.

alias Input = f32;
alias Output = f32;

struct Params {
  count4: u32,
}

override TO_BOOL: bool = false;
const ITEMS = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Input>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Output>>;

@compute @workgroup_size(256)
fn convert(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * (ITEMS * 256u) + lane;
  for (var k = 0u; k < ITEMS; k++) {
    let i = first + k * 256u;
    if (i < params.count4) {
      let v = input[i];
      if (TO_BOOL) {
        output[i] = select(vec4<Output>(1), vec4<Output>(), v == vec4<Input>());
      } else {
        output[i] = vec4<Output>(v);
      }
    }
  }
}
