import assert from "node:assert/strict";
import { decodePackBits, decodeRle } from "../../src/slide/packbits.ts";

Deno.test("decodePackBits() reads the example of TIFF 6.0 §9", () => {
  const packed = [0xfe, 0xaa, 0x02, 0x80, 0x00, 0x2a, 0xfd, 0xaa, 0x03, 0x80, 0x00, 0x2a, 0x22];
  const expected = [
    0xaa,
    0xaa,
    0xaa,
    0x80,
    0x00,
    0x2a,
    0xaa,
    0xaa,
    0xaa,
    0xaa,
    0x80,
    0x00,
    0x2a,
    0x22,
  ];
  assert.deepEqual(decodePackBits(Uint8Array.from(packed), 14), Uint8Array.from(expected));
});

Deno.test("decodePackBits() passes 128 by, stops at the length and at the end", () => {
  const rows: [packed: number[], length: number, expected: number[]][] = [
    [[128, 0, 5, 128], 1, [5]],
    [[255, 7, 255, 8], 3, [7, 7, 8]],
    [[2, 1, 2, 3], 2, [1, 2]],
    [[5, 1, 2], 6, [1, 2]],
    [[200], 6, []],
    [[], 6, []],
  ];
  for (const [packed, length, expected] of rows) {
    assert.deepEqual(decodePackBits(Uint8Array.from(packed), length), Uint8Array.from(expected));
  }
});

/** A frame of segments, each of two literal bytes. */
function frame(segments: readonly (readonly number[])[]): Uint8Array {
  const bytes = new Uint8Array(64 + segments.length * 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, segments.length, true);
  for (const [i, [a, b]] of segments.entries()) {
    view.setUint32(4 + 4 * i, 64 + 4 * i, true);
    bytes.set([1, a!, b!, 0], 64 + 4 * i); // Padded to an even length.
  }
  return bytes;
}

const GREY_16 = { pixels: 2, samplesPerPixel: 1, bytesPerSample: 2, littleEndian: true };

Deno.test("decodeRle() joins segments of samples and of their bytes", () => {
  const rgb = { pixels: 2, samplesPerPixel: 3, bytesPerSample: 1, littleEndian: true };
  assert.deepEqual(
    Array.from(decodeRle(frame([[1, 2], [3, 4], [5, 6]]), rgb)),
    [1, 3, 5, 2, 4, 6],
  );
  const grey = frame([[1, 2], [3, 4]]); // The high bytes first.
  assert.deepEqual(Array.from(decodeRle(grey, GREY_16)), [3, 1, 4, 2]);
  assert.deepEqual(Array.from(decodeRle(grey, { ...GREY_16, littleEndian: false })), [1, 3, 2, 4]);
});

const damaged = (at: number, value: number) => {
  const bytes = frame([[1, 2], [3, 4]]);
  new DataView(bytes.buffer).setUint32(at, value, true);
  return bytes;
};

const brokenRows: [name: string, bytes: Uint8Array, message: string][] = [
  ["no header", new Uint8Array(63), "its header is cut"],
  ["a segment too many", frame([[1, 2], [3, 4], [5, 6]]), "it has 3 segments where 2 are due"],
  ["a segment past the end", damaged(8, 100), "segment 0 lies at bytes 64 to 100 of 72"],
  ["a segment in the header", damaged(4, 4), "segment 0 lies at bytes 4 to 68 of 72"],
  ["segments in the wrong order", damaged(4, 70), "segment 0 lies at bytes 70 to 68 of 72"],
  ["a segment too short", damaged(8, 65), "segment 0 holds 0 bytes where 2 are due"],
];

for (const [name, bytes, message] of brokenRows) {
  Deno.test(`decodeRle() rejects ${name}`, () => {
    assert.throws(() => decodeRle(bytes, GREY_16), { message });
  });
}
