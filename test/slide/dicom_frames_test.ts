import assert from "node:assert/strict";
import { SlideFormatError } from "../../src/errors.ts";
import { type Encapsulated, encapsulatedFrames } from "../../src/slide/dicom_frames.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { RecordingSource } from "./recording_source.ts";
import { SparseSource } from "./sparse_source.ts";

const ITEM = [0xfe, 0xff, 0x00, 0xe0], SEQUENCE_END = [0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0];

function u32(...values: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

function u64(...values: number[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values.map(BigInt)).buffer);
}

/** An item, of a length that may be another than its value's. */
function item(value: ArrayLike<number>, lengthBytes = value.length): number[] {
  return [...ITEM, ...u32(lengthBytes), ...Array.from(value)];
}

function bytes(...parts: ArrayLike<number>[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => Array.from(part)));
}

const DATA: Omit<Encapsulated, "frames"> = {
  itemsAt: 0,
  extendedOffsets: undefined,
  extendedLengths: undefined,
  startsWith: [0xff, 0xd8],
  maxFrameBytes: 100,
};

Deno.test("Frames.read() finds frames past 4 GiB by the Extended Offset Table", async () => {
  const far = 5 * 2 ** 30;
  // The table of offsets lies behind the empty basic one, then that of lengths.
  const source = new SparseSource(
    bytes(item([]), u64(0, far), u64(2, 3)),
    8 + far,
    bytes(item([7, 8, 9, 0]), SEQUENCE_END),
  );
  const frames = encapsulatedFrames(source, {
    ...DATA,
    frames: 2,
    extendedOffsets: { offsetBytes: 8, lengthBytes: 16 },
    extendedLengths: { offsetBytes: 24, lengthBytes: 16 },
  });
  assert.deepEqual([...await frames.read(1)].slice(0, 3), [7, 8, 9]);
});

Deno.test("Frames.read() looks fragments up where a Basic Offset Table runs over", async () => {
  // The first frame takes nearly 4 GiB, so that the third begins at 2³² + 16, written as 16.
  const first = 0xfffffff0;
  const head = bytes(item(u32(0, first + 8, 16)), item([0xff, 0xd8], first));
  const source = new SparseSource(
    head,
    head.length - 2 + first,
    bytes(item([0xff, 0xd8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9]), item([0xff, 0xd8, 3, 3])),
  );
  const frames = encapsulatedFrames(source, { ...DATA, frames: 3 });
  assert.deepEqual([...await frames.read(2)], [0xff, 0xd8, 3, 3]);
  await assert.rejects(frames.read(0), /frame 0 has 4294967288 bytes, too many for its pixels/);
});

Deno.test("Frames.read() tells frames apart by how their first fragments begin", async () => {
  const pixels = bytes(
    item([]),
    ...[item([0xff, 0xd8, 1, 1]), item([2, 2]), item([0xff, 0xd8, 3, 3])],
    ...[item([]), item([4, 4]), SEQUENCE_END],
  );
  const read = async (frames: number, index: number, startsWith: number[] | undefined) => [
    ...await encapsulatedFrames(new MemorySource(pixels), { ...DATA, frames, startsWith })
      .read(index),
  ];
  assert.deepEqual(await read(2, 0, [0xff, 0xd8]), [0xff, 0xd8, 1, 1, 2, 2]);
  assert.deepEqual(await read(2, 1, [0xff, 0xd8]), [0xff, 0xd8, 3, 3, 4, 4]);
  // As many fragments as frames are frames, and one frame takes all.
  assert.deepEqual(await read(5, 1, undefined), [2, 2]);
  assert.deepEqual(await read(1, 0, undefined), [0xff, 0xd8, 1, 1, 2, 2, 0xff, 0xd8, 3, 3, 4, 4]);
  await assert.rejects(read(3, 0, [0xff, 0xd8]), /3 frames and 5 fragments, of which 2 begin one/);
});

Deno.test("Frames.read() looks no further for a frame than it must", async () => {
  const frame = (value: number) => {
    const bytes = new Uint8Array(300_000).fill(value);
    bytes.set([0xff, 0xd8]);
    return bytes;
  };
  const whole = (frames: readonly Uint8Array[]) => {
    const parts = frames.flatMap((frame) => [bytes(ITEM, u32(frame.length)), frame]);
    const all = [bytes(item([])), ...parts, bytes(SEQUENCE_END)];
    return new Uint8Array(Buffer.concat(all));
  };
  const values = Array.from({ length: 20 }, (_, i) => i);
  const data = { ...DATA, frames: 20, maxFrameBytes: 1e6 };
  const source = new RecordingSource(whole(values.map(frame)));
  const frames = encapsulatedFrames(source, data);
  const check = async (i: number) => assert.deepEqual(await frames.read(i), frame(i));
  await check(2);
  // The table's head, a look over the first megabyte, and the frame.
  assert.equal(source.reads.length, 3);
  await Promise.all([check(1), check(19), check(0), check(7)]);
  await check(18);

  // With a fragment in the middle that begins none, all are counted before one is believed.
  const cut = values.map(frame);
  cut[10] = cut[10]!.fill(10);
  const unsure = encapsulatedFrames(new RecordingSource(whole(cut)), { ...data, frames: 19 });
  assert.deepEqual(await unsure.read(0), frame(0));
  assert.equal((await unsure.read(9)).length, 600_000);
  assert.deepEqual(await unsure.read(10), frame(11));
  // As many fragments as frames: each is one, however it begins.
  const sure = encapsulatedFrames(new RecordingSource(whole(cut)), data);
  assert.deepEqual(await sure.read(10), cut[10]);
  const wrong = encapsulatedFrames(new RecordingSource(whole(cut)), { ...data, frames: 15 });
  await assert.rejects(wrong.read(12), /15 frames and 20 fragments, of which 19 begin one/);
});

Deno.test("Frames.read() reads tables or fragments once, for all that wait", async () => {
  const source = new RecordingSource(
    bytes(item(u32(0, 10)), item([1, 2]), item([3, 4]), SEQUENCE_END),
  );
  const frames = encapsulatedFrames(source, { ...DATA, frames: 2 });
  assert.deepEqual(
    (await Promise.all([0, 0, 0].map((i) => frames.read(i)))).map((frame) => [...frame]),
    [[1, 2], [1, 2], [1, 2]],
  );
  // The table's head, the table, and each frame.
  assert.equal(source.reads.length, 2 + 3);
});

Deno.test("Frames.read() tries again after a read that failed, and stops for an abort", async () => {
  const source = new RecordingSource(bytes(item([]), item([0xff, 0xd8]), SEQUENCE_END));
  const frames = encapsulatedFrames(source, { ...DATA, frames: 1 });
  source.beforeRead = () => {
    source.beforeRead = undefined;
    throw new Error("the network");
  };
  await assert.rejects(frames.read(0), /the network/);
  const reason = new Error("stop");
  await assert.rejects(frames.read(0, AbortSignal.abort(reason)), (error) => error === reason);
  assert.deepEqual([...await frames.read(0)], [0xff, 0xd8]);
});

Deno.test("Frames.read() rejects fragments that are cut or lie", async () => {
  const rows: [Uint8Array, RegExp][] = [
    [bytes([1, 2, 3, 4, 5, 6, 7, 8]), /begin with no item/],
    [bytes(item([], 1000)), /Basic Offset Table is cut/],
    [bytes(item([]), item([0xff, 0xd8], 100)), /fragment 0 of its pixel data is broken/],
    [bytes(item([]), [1, 2, 3, 4, 5, 6, 7, 8]), /fragment 0 of its pixel data is broken/],
    [bytes(item([]), SEQUENCE_END), /1 frames and 0 fragments/],
    [bytes(item(u32(0)), item([1, 2], 100)), /last frame is cut/],
    [bytes(item(u32(0)), item([1, 2]), [9, 9, 9, 9, 9, 9, 9, 9]), /last frame has no end/],
    [bytes(item([]), ...Array.from({ length: 1025 }, () => item([]))), /in too many fragments/],
  ];
  for (const [pixels, message] of rows) {
    await assert.rejects(
      encapsulatedFrames(new MemorySource(pixels), { ...DATA, frames: 1 }).read(0),
      (error) => error instanceof SlideFormatError && message.test(error.message),
      String(message),
    );
  }
});
