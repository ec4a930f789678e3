import assert from "node:assert/strict";
import { ModelError } from "../../src/errors.ts";
import { ATTRIBUTE, decode, encode, MODEL, TENSOR } from "../../src/model/proto.ts";
import { dataPath } from "../data.ts";

const bytes = (...list: (number | number[])[]) => Uint8Array.from(list.flat());

Deno.test("decode() reads lists packed, element by element, and in pieces", () => {
  // dims (field 1): 5 by itself, then [300, −1] packed, then 7 by itself.
  const minusOne = [...new Array(9).fill(0xff), 0x01];
  const tensor = decode(
    bytes(0x08, 5, 0x0a, 12, 0xac, 0x02, minusOne, 0x08, 7),
    TENSOR,
    "a test",
  );
  assert.deepEqual([...tensor.dims], [5n, 300n, -1n, 7n]);
  // float_data (field 4): 1 by itself, then [2, 3] packed.
  const float = (v: number) => [...new Uint8Array(Float32Array.of(v).buffer)];
  const list = decode(bytes(0x25, float(1), 0x22, 8, float(2), float(3)), TENSOR, "a test");
  assert.deepEqual([...list.float_data], [1, 2, 3]);
});

Deno.test("decode() skips fields that it does not know, and those of another wire type", () => {
  const unknown = [0xfa, 0x7f, 3, 1, 2, 3]; // field 2047, three bytes
  const group = [0xfb, 0x7f, 0x08, 1, 0xfc, 0x7f]; // the same as a group
  const asBytes = [0x12, 1, 9]; // data_type, but as bytes
  const tensor = decode(bytes(unknown, 0x10, 7, group, asBytes), TENSOR, "a test");
  assert.equal(tensor.data_type, 7);
});

Deno.test("decode() takes the last of several scalars and merges messages", () => {
  const tensor = decode(bytes(0x10, 1, 0x10, 2), TENSOR, "a test");
  assert.equal(tensor.data_type, 2);
  const name = encode({ graph: { name: "a" } }, MODEL);
  const node = encode({ graph: { node: [{ op_type: "Abs" }] } }, MODEL);
  const model = decode(bytes([...name], [...node]), MODEL, "a test");
  assert.equal(model.graph?.name, "a");
  assert.equal(model.graph?.node[0]?.op_type, "Abs");
});

Deno.test("decode() gives views of bytes, not copies", () => {
  const written = encode({ raw_data: bytes(1, 2, 3) }, TENSOR);
  const { raw_data } = decode(written, TENSOR, "a test");
  assert.equal(raw_data?.buffer, written.buffer);
  assert.deepEqual([...raw_data!], [1, 2, 3]);
});

Deno.test("decode() refuses what is no message", () => {
  const broken: [string, Uint8Array][] = [
    ["a length beyond the end", bytes(0x4a, 100, 1)],
    ["a varint that does not end", bytes(0x10, 0xff)],
    ["a tag of 0", bytes(0x00)],
    ["a packed list that ends within an element", bytes(0x22, 3, 0, 0, 0)],
    ["a packed varint that does not end", bytes(0x0a, 2, 1, 0xff)],
    ["a fixed field cut short", bytes(0x25, 0, 0)],
    ["a group that does not end", bytes(0xfb, 0x7f, 0x08, 1)],
  ];
  for (const [what, list] of broken) {
    assert.throws(() => decode(list, TENSOR, "a test"), (error: unknown) => {
      assert.ok(error instanceof ModelError, what);
      assert.match(error.message, /^Cannot read a test: /);
      return true;
    }, what);
  }
});

Deno.test("what encode() writes decode() reads back", () => {
  const attribute = {
    name: "all",
    type: ATTRIBUTE.INTS,
    f: 0.5,
    i: -(2n ** 63n),
    s: bytes(1, 2),
    floats: [1, 2],
    ints: [1, -1, 2n ** 62n],
    strings: [bytes(3), bytes()],
    t: { dims: [2], data_type: 7, int64_data: [1, -1], uint64_data: [2n ** 64n - 1n] },
  };
  const model = decode(
    encode({ ir_version: 8, graph: { node: [{ attribute: [attribute] }] } }, MODEL),
    MODEL,
    "a test",
  );
  const read = model.graph!.node[0]!.attribute[0]!;
  assert.deepEqual([read.f, read.i, [...read.s!]], [0.5, -(2n ** 63n), [1, 2]]);
  assert.deepEqual([[...read.floats], [...read.ints]], [[1, 2], [1n, -1n, 2n ** 62n]]);
  assert.deepEqual(read.strings.map((s) => [...s]), [[3], []]);
  assert.deepEqual([...read.t!.int64_data], [1n, -1n]);
  assert.deepEqual([...read.t!.uint64_data], [2n ** 64n - 1n]);
});

Deno.test("a real model is the same when it is written and read again", () => {
  const path = dataPath("onnx/light/light_shufflenet.onnx");
  if (path === undefined) return;
  const model = decode(Deno.readFileSync(path), MODEL, "a test");
  assert.deepEqual(decode(encode(model, MODEL), MODEL, "a test"), model);
});
