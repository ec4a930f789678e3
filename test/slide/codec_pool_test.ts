import assert from "node:assert/strict";
import { UnsupportedError } from "../../src/errors.ts";
import { CodecPool } from "../../src/slide/codec_pool.ts";
import { TileDecoder } from "../../src/slide/codec.ts";
import type { RawTile } from "../../src/slide/slide.ts";
import { bytes as randomBytes } from "../reference/random.ts";
import { encodeJpeg2000, encodeJpegLs } from "./wasm_encoders.ts";

const SIDE = 40;

async function tile(
  seed: number,
  side = SIDE,
  compression: "jpeg2000" | "jpeg-ls" = "jpeg2000",
): Promise<{ tile: RawTile; rgb: Uint8Array }> {
  const rgb = randomBytes(side * side * 3, seed);
  const encode = compression === "jpeg2000" ? encodeJpeg2000 : encodeJpegLs(2);
  return {
    rgb,
    tile: {
      data: await encode(rgb, side, side, 3, 8),
      compression,
      widthPx: side,
      heightPx: side,
      samplesPerPixel: 3,
      bitsPerSample: 8,
      photometric: "rgb",
      alpha: "none",
      predictor: "none",
      littleEndian: true,
      jpegTables: undefined,
    },
  };
}

Deno.test("CodecPool.decode() gives each of many tiles its own pixels, on threads and on none", async () => {
  const tiles = await Promise.all([1, 2, 3, 4, 5, 6, 7].map((seed) => tile(seed)));
  for (const threads of [0, 1, 2]) {
    const pool = new CodecPool(threads);
    const decoded = await Promise.all(tiles.map(({ tile }) => pool.decode(tile)));
    assert.deepEqual(decoded, tiles.map(({ rgb }) => rgb), `${threads} threads`);
    // What was sent is still the caller's.
    assert(tiles.every(({ tile }) => tile.data.length > 0));
    pool.close();
  }
});

Deno.test("CodecPool.decode() says what is wrong as if there were no threads, and goes on", async () => {
  const { tile: good, rgb } = await tile(1);
  const signed = good.data.slice();
  signed.set([0x87, 1, 1, 0x87, 1, 1, 0x87], 42);
  const pool = new CodecPool(1), none = new CodecPool(0);
  for (const broken of [{ ...good, data: new Uint8Array(9) }, { ...good, data: signed }]) {
    const error = await none.decode(broken).catch((error) => error);
    await assert.rejects(pool.decode(broken), (thrown) => {
      assert(thrown instanceof Error);
      assert.equal(thrown.message, error.message);
      assert.equal(thrown instanceof UnsupportedError, error instanceof UnsupportedError);
      return true;
    });
  }
  assert.deepEqual(await pool.decode(good), rgb);
  pool.close();
});

Deno.test("CodecPool.decode() keeps tiles of several libraries and broken ones apart", async () => {
  // The first waits for its library while those behind it are there, or broken at once.
  const tiles = await Promise.all([tile(1), tile(2, SIDE, "jpeg-ls"), tile(3), tile(4, 50)]);
  const broken = { ...tiles[0]!.tile, data: new Uint8Array(9) };
  const unclonable = { ...broken, palette: (() => {}) as unknown as Uint8Array };
  for (const threads of [1, 2]) {
    const pool = new CodecPool(threads);
    const asked = [0, 4, 1, 4, 5, 2, 3, 4, 1, 0].map((i) => tiles[i] ?? i);
    const decoded = await Promise.allSettled(
      asked.map((of) =>
        pool.decode(typeof of === "number" ? of === 4 ? broken : unclonable : of.tile)
      ),
    );
    for (const [i, of] of asked.entries()) {
      const result = decoded[i]!;
      if (typeof of === "number") assert.equal(result.status, "rejected");
      else assert.deepEqual(result.status === "fulfilled" && result.value, of.rgb, `${i}`);
    }
    pool.close();
  }
});

Deno.test("CodecPool.decode() gives up a tile that takes too long, and decodes those behind it", async () => {
  const slow = await tile(5, 1500), quick = await tile(6);
  const pool = new CodecPool(1, 400);
  assert.deepEqual(await pool.decode(quick.tile), quick.rgb); // The library is loaded.
  const [first, second, third] = await Promise.allSettled(
    [slow, quick, quick].map(({ tile }) => pool.decode(tile)),
  );
  assert.equal(first!.status === "rejected" && first!.reason.message, "it took more than 400 ms");
  for (const result of [second!, third!]) {
    assert.deepEqual(result.status === "fulfilled" && result.value, quick.rgb);
  }
  pool.close();
});

Deno.test("CodecPool.decode() decodes nothing once its signal is aborted, nor once it is closed", async () => {
  const { tile: good } = await tile(1);
  const pool = new CodecPool(1);
  const reason = new Error("enough");
  await assert.rejects(pool.decode(good, AbortSignal.abort(reason)), reason);
  const pending = [pool.decode(good), pool.decode(good), pool.decode(good)];
  pool.close();
  for (const decoded of await Promise.allSettled(pending)) {
    assert.equal(decoded.status, "rejected");
    assert.match(
      String(decoded.status === "rejected" && decoded.reason),
      /the slide (is|was) closed/,
    );
  }
  await assert.rejects(pool.decode(good), { message: "the slide is closed" });
});

Deno.test("TileDecoder.close() ends its threads", async () => {
  const { tile: good, rgb } = await tile(2);
  const decoder = new TileDecoder(2);
  assert.deepEqual(await decoder.decode(good), rgb);
  decoder.close(); // Else the test's sanitizer or the process would wait.
  await assert.rejects(decoder.decode(good), { name: "CodecError" });
});
