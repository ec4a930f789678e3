import assert from "node:assert/strict";
import { CodecError, UnsupportedError } from "../../src/errors.ts";
import { TileDecoder } from "../../src/slide/codec.ts";
import type { RawTile } from "../../src/slide/slide.ts";
import { bytes as randomBytes } from "../reference/random.ts";
import { encodeJpegLs } from "./wasm_encoders.ts";

const WIDTH = 37, HEIGHT = 23;

const LS: Omit<RawTile, "data"> = {
  compression: "jpeg-ls",
  widthPx: WIDTH,
  heightPx: HEIGHT,
  samplesPerPixel: 3,
  bitsPerSample: 8,
  photometric: "rgb",
  alpha: "none",
  predictor: "none",
  littleEndian: true,
  jpegTables: undefined,
};

async function decode(tile: RawTile): Promise<Uint8Array> {
  return await new TileDecoder(0).decode(tile);
}

const RGB = randomBytes(WIDTH * HEIGHT * 3, 11);

for (const [mode, name] of [[0, "planes"], [1, "lines"], [2, "samples"]] as const) {
  Deno.test(`TileDecoder.decode() reads lossless JPEG-LS of three components in ${name}`, async () => {
    const values = mode === 0
      ? [0, 1, 2].flatMap((channel) => Array.from(RGB.filter((_, i) => i % 3 === channel)))
      : RGB;
    const data = await encodeJpegLs(mode)(values, WIDTH, HEIGHT, 3, 8);
    assert.deepEqual(await decode({ ...LS, data }), RGB);
  });
}

Deno.test("TileDecoder.decode() reads lossless JPEG-LS of one component, scaled where it is wider", async () => {
  for (const bits of [8, 12, 16]) {
    const values = Array.from(
      { length: WIDTH * HEIGHT },
      (_, i) => (RGB[i]! * 256 + RGB[2 * i]!) >> (16 - bits),
    );
    const data = await encodeJpegLs(0)(values, WIDTH, HEIGHT, 1, bits);
    const tile = { ...LS, samplesPerPixel: 1, bitsPerSample: 16, photometric: "grey" } as const;
    const rgb = await decode({ ...tile, data });
    assert.deepEqual(rgb, Uint8Array.from(rgb, (_, i) => values[Math.floor(i / 3)]! >> (bits - 8)));
  }
});

const GOOD = await encodeJpegLs(2)(RGB, WIDTH, HEIGHT, 3, 8);

Deno.test("TileDecoder.decode() reads JPEG-LS with padding behind it", async () => {
  const data = new Uint8Array(GOOD.length + 1);
  data.set(GOOD);
  assert.deepEqual(await decode({ ...LS, data }), RGB);
});

const brokenRows: [name: string, changes: Partial<RawTile>, message: RegExp][] = [
  ["noise", { data: randomBytes(300, 2) as Uint8Array<ArrayBuffer> }, /does not begin with SOI/],
  ["no end", { data: GOOD.slice(0, -2) }, /does not end with EOI/],
  ["another size", { heightPx: HEIGHT + 1 }, /its picture is 37 × 23, the tile 37 × 24/],
  ["another number of samples", { samplesPerPixel: 1 }, /3 components, the tile 1/],
  ["nothing but ends", { data: Uint8Array.of(0xff, 0xd8, 0xff, 0xd9) }, /no frame header/],
  [
    "half of its scan",
    { data: Uint8Array.from([...GOOD.subarray(0, GOOD.length / 2), 0xff, 0xd9]) },
    /./,
  ],
];

for (const [name, changes, message] of brokenRows) {
  Deno.test(`TileDecoder.decode() rejects JPEG-LS of ${name}`, async () => {
    await assert.rejects(decode({ ...LS, data: GOOD, ...changes }), (error) => {
      assert(error instanceof CodecError, String(error));
      assert.equal(error.codec, "jpeg-ls");
      assert.match(error.message, message);
      return true;
    });
    assert.deepEqual(await decode({ ...LS, data: GOOD }), RGB); // None the worse for it.
  });
}

Deno.test("TileDecoder.decode() gives a picture or a typed error where any byte of JPEG-LS changes", async () => {
  for (let at = 0; at < GOOD.length; at += at < 40 ? 1 : 53) {
    const data = GOOD.slice();
    data[at]! ^= 0x5a;
    try {
      assert.equal((await decode({ ...LS, data })).length, WIDTH * HEIGHT * 3);
    } catch (error) {
      assert(error instanceof CodecError || error instanceof UnsupportedError, `${at}: ${error}`);
    }
  }
});
