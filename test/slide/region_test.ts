import assert from "node:assert/strict";
import { CodecError, SourceError, UnsupportedError } from "../../src/errors.ts";
import { type SlideParts, TiledSlide, type TiledSlideOptions } from "../../src/slide/region.ts";
import type { TileGrid } from "../../src/slide/region.ts";
import type { Picture, RawTile } from "../../src/slide/slide.ts";
import { uniform } from "../reference/random.ts";
import { cutTiles, pattern } from "./tiff_builder.ts";

/** A picture in uncompressed tiles, that remembers which were read. */
class Tiles implements TileGrid {
  readonly columns: number;
  readonly rows: number;
  readonly pixels: Uint8Array;
  readonly read: string[] = [];
  /** May throw, or give another tile, or none. */
  change: (tile: RawTile, column: number, row: number) => RawTile | Promise<RawTile> = (tile) =>
    tile;
  readonly #tiles: readonly Uint8Array[];

  constructor(
    readonly widthPx: number,
    readonly heightPx: number,
    readonly tileWidthPx: number,
    readonly tileHeightPx: number,
  ) {
    this.columns = Math.ceil(widthPx / tileWidthPx);
    this.rows = Math.ceil(heightPx / tileHeightPx);
    this.pixels = pattern(widthPx, heightPx, 3, widthPx);
    this.#tiles = cutTiles(this.pixels, widthPx, heightPx, [tileWidthPx, tileHeightPx]);
  }

  async readTile(column: number, row: number): Promise<RawTile> {
    this.read.push(`${column},${row}`);
    return await this.change(
      {
        data: this.#tiles[row * this.columns + column]!.slice() as Uint8Array<ArrayBuffer>,
        compression: "none",
        widthPx: this.tileWidthPx,
        heightPx: this.tileHeightPx,
        samplesPerPixel: 3,
        bitsPerSample: 8,
        photometric: "rgb",
        alpha: "none",
        predictor: "none",
        littleEndian: true,
        jpegTables: undefined,
      },
      column,
      row,
    );
  }
}

const EMPTY: RawTile["data"] = new Uint8Array();

function slideOf(
  levels: readonly TileGrid[],
  options: TiledSlideOptions & Partial<Pick<SlideParts, "background" | "associated">> = {},
): TiledSlide {
  return new TiledSlide({
    format: "test",
    levels,
    properties: {
      vendor: "test",
      mppX: undefined,
      mppY: undefined,
      objectivePower: undefined,
      all: { "test.one": "1" },
    },
    associated: options.associated ?? new Map(),
    background: options.background ?? [255, 255, 255],
    close: () => Promise.resolve(),
  }, options);
}

/** A region pixel by pixel: what readRegion is compared with. */
function cut(
  grid: Tiles,
  x: number,
  y: number,
  width: number,
  height: number,
  background: readonly number[] = [255, 255, 255],
): Uint8Array {
  const out = new Uint8Array(width * height * 3);
  for (let i = 0; i < out.length; i++) {
    const [px, py] = [x + Math.floor(i / 3) % width, y + Math.floor(i / 3 / width)];
    const inside = px >= 0 && py >= 0 && px < grid.widthPx && py < grid.heightPx;
    out[i] = inside ? grid.pixels[3 * (py * grid.widthPx + px) + i % 3]! : background[i % 3]!;
  }
  return out;
}

const PYRAMID = () => [
  new Tiles(200, 150, 32, 24),
  new Tiles(100, 75, 32, 24),
  new Tiles(50, 37, 64, 64),
];

Deno.test("TiledSlide.readRegion() gives any rectangle of any level in its own pixels", async () => {
  const grids = PYRAMID();
  for (const decoders of [0, 2]) {
    const slide = slideOf(grids, { decoders });
    const random = uniform(1);
    const between = (low: number, high: number) => Math.floor(low + random() * (high - low + 1));
    for (let i = 0; i < 150; i++) {
      const level = between(0, 2);
      const [xPx, yPx] = [between(-60, 230 >> level), between(-60, 180 >> level)];
      const [widthPx, heightPx] = [between(1, 120), between(1, 120)];
      const picture = await slide.readRegion({ level, xPx, yPx, widthPx, heightPx });
      const expected = cut(grids[level]!, xPx, yPx, widthPx, heightPx);
      const where = JSON.stringify({ level, xPx, yPx });
      assert.ok(Buffer.compare(picture.data, expected) === 0, where);
      if (level > 0) continue;
      const same = await slide.readRegion({ level, x0Px: xPx, y0Px: yPx, widthPx, heightPx });
      assert.ok(Buffer.compare(same.data, expected) === 0, where);
    }
    await slide.close();
  }
});

/** A region whose corner lies between pixels, each a mean of up to four, in f64. */
function interpolated(
  grid: Tiles,
  x: number,
  y: number,
  width: number,
  height: number,
  background: readonly number[],
): Float64Array {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const whole = cut(grid, left, top, width + 1, height + 1, background);
  const [fx, fy] = [x - left, y - top];
  return Float64Array.from({ length: width * height * 3 }, (_, i) => {
    const [column, row, channel] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width), i % 3];
    const at = (dx: number, dy: number) =>
      whole[3 * ((row + dy) * (width + 1) + column + dx) + channel]!;
    return (at(0, 0) * (1 - fx) + at(1, 0) * fx) * (1 - fy) +
      (at(0, 1) * (1 - fx) + at(1, 1) * fx) * fy;
  });
}

Deno.test("TiledSlide.readRegion() interpolates where a corner lies between a level's pixels", async () => {
  const grids = PYRAMID();
  const background = [250, 10, 100] as const;
  const slide = slideOf(grids, { background });
  const random = uniform(2);
  const between = (low: number, high: number) => Math.floor(low + random() * (high - low + 1));
  for (let i = 0; i < 150; i++) {
    const level = between(1, 2);
    const { downsample } = slide.levels[level]!;
    const [x0Px, y0Px] = [between(-60, 230), between(-60, 180)];
    const [widthPx, heightPx] = [between(1, 120), between(1, 120)];
    const { data } = await slide.readRegion({ level, x0Px, y0Px, widthPx, heightPx });
    // What begins left of the slide does so at a whole pixel, rounded towards the slide.
    const at = (px: number) => px < 0 ? Math.ceil(px / downsample) : px / downsample;
    const expected = interpolated(
      grids[level]!,
      at(x0Px),
      at(y0Px),
      widthPx,
      heightPx,
      background,
    );
    for (const [k, value] of data.entries()) {
      // Each of up to four tiles that meet in a pixel is cut to a byte, and so is the background.
      const difference = Math.abs(value - expected[k]!);
      assert.ok(difference < 4, `${JSON.stringify({ level, x0Px, y0Px })}: ${difference} at ${k}`);
    }
  }
  await slide.close();
});

Deno.test("TiledSlide.readRegion() reads a large region in pieces that begin at whole level-0 pixels", async () => {
  const [widthPx, heightPx] = [9000, 4];
  const small = new Tiles(widthPx, heightPx, 3000, 4);
  // A downsample of 3.0001…: 4096 pixels on, a piece begins 0.41 level-0 pixels before its place.
  const slide = slideOf([new Tiles(27_001, 12, 27_001, 12), small]);
  const { downsample } = slide.levels[1]!;
  const { data } = await slide.readRegion({
    level: 1,
    x0Px: 3,
    y0Px: 0,
    widthPx: 8000,
    heightPx: 4,
  });
  for (const atPx of [0, 4096]) {
    const x = (3 + Math.floor(atPx * downsample)) / downsample;
    const expected = interpolated(small, x, 0, 1000, 4, [255, 255, 255]);
    for (let y = 0; y < 4; y++) {
      for (let k = 0; k < 3000; k++) {
        const value = data[3 * (y * 8000 + atPx) + k]!;
        assert.ok(Math.abs(value - expected[3000 * y + k]!) < 2, `${atPx}, ${y}, ${k}`);
      }
    }
  }
  await slide.close();
});

Deno.test("TiledSlide.levels says downsamples as OpenSlide does, the mean of both axes", () => {
  const slide = slideOf([new Tiles(200, 150, 32, 24), new Tiles(66, 50, 32, 24)]);
  assert.deepEqual(slide.levels, [
    { widthPx: 200, heightPx: 150, downsample: 1, tileWidthPx: 32, tileHeightPx: 24 },
    {
      widthPx: 66,
      heightPx: 50,
      downsample: (200 / 66 + 3) / 2,
      tileWidthPx: 32,
      tileHeightPx: 24,
    },
  ]);
  assert.equal(slide.properties.all["openslide.level-count"], "2");
  assert.equal(slide.properties.all["openslide.level[1].downsample"], "3.0151515151515151");
  assert.equal(slide.properties.all["test.one"], "1");
});

Deno.test("TiledSlide.readRegion() reads the tiles that it needs, each once", async () => {
  const grid = new Tiles(320, 240, 32, 24);
  const rows: [region: number[], tiles: string[]][] = [
    [[33, 25, 10, 10], ["1,1"]],
    [[63, 47, 2, 2], ["1,1", "2,1", "1,2", "2,2"]],
    [[-100, -100, 101, 101], ["0,0"]],
    [[319, 239, 500, 500], ["9,9"]],
    [[-50, -50, 50, 500], []],
    [[320, 0, 10, 10], []],
    [[0, 240, 10, 10], []],
    [[96, 0, 96, 1], ["3,0", "4,0", "5,0"]],
  ];
  for (const [[x0Px, y0Px, widthPx, heightPx], tiles] of rows) {
    grid.read.length = 0;
    await slideOf([grid]).readRegion({
      level: 0,
      x0Px: x0Px!,
      y0Px: y0Px!,
      widthPx: widthPx!,
      heightPx: heightPx!,
    });
    assert.deepEqual(grid.read, tiles);
  }
});

Deno.test("TiledSlide.readRegion() takes tiles that it has from its cache", async () => {
  const grid = new Tiles(320, 240, 32, 24);
  const slide = slideOf([grid]);
  const read = async (x0Px: number, y0Px: number, widthPx: number, heightPx: number) => {
    grid.read.length = 0;
    const { data } = await slide.readRegion({ level: 0, x0Px, y0Px, widthPx, heightPx });
    assert.deepEqual(data, cut(grid, x0Px, y0Px, widthPx, heightPx));
    return grid.read.slice();
  };
  assert.deepEqual(await read(0, 0, 64, 24), ["0,0", "1,0"]);
  assert.deepEqual(await read(10, 3, 64, 8), ["2,0"]);
  assert.deepEqual(await read(0, 0, 96, 24), []);
});

Deno.test("TiledSlide.readRegion() keeps no more than cacheBytes, the last used longest", async () => {
  const grid = new Tiles(320, 24, 32, 24);
  const slide = slideOf([grid], { cacheBytes: 2 * 32 * 24 * 3 });
  const read = async (column: number) => {
    grid.read.length = 0;
    await slide.readRegion({ level: 0, x0Px: 32 * column, y0Px: 0, widthPx: 1, heightPx: 1 });
    return grid.read.length === 1;
  };
  assert.deepEqual(
    [await read(0), await read(1), await read(0), await read(2), await read(0), await read(1)],
    [true, true, false, true, false, true],
  );
  const none = slideOf([grid], { cacheBytes: 0 });
  const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 1, heightPx: 1 };
  grid.read.length = 0;
  await none.readRegion(region);
  await none.readRegion(region);
  assert.equal(grid.read.length, 2);
});

Deno.test("TiledSlide.readRegion() does not take one level's tiles for another's", async () => {
  const grids = [new Tiles(64, 48, 32, 24), new Tiles(32, 24, 32, 24)];
  const slide = slideOf(grids);
  const region = { x0Px: 0, y0Px: 0, widthPx: 20, heightPx: 20 };
  for (const level of [0, 1]) {
    const { data } = await slide.readRegion({ ...region, level });
    assert.deepEqual(data, cut(grids[level]!, 0, 0, 20, 20));
  }
});

Deno.test("TiledSlide.readRegion() shows its background outside and under missing tiles", async () => {
  for (const background of [[7, 7, 7], [1, 2, 3]] as const) {
    const grid = new Tiles(64, 48, 32, 24);
    grid.change = (tile, column, row) =>
      column === 1 && row === 0 ? { ...tile, data: EMPTY } : tile;
    const slide = slideOf([grid], { background });
    const { data } = await slide.readRegion({
      level: 0,
      x0Px: -2,
      y0Px: -2,
      widthPx: 70,
      heightPx: 52,
    });
    const expected = cut(grid, -2, -2, 70, 52, background);
    for (let y = 0; y < 24; y++) {
      for (let x = 32; x < 64; x++) expected.set(background, 3 * ((y + 2) * 70 + x + 2));
    }
    assert.deepEqual(data, expected);
  }
});

Deno.test("TiledSlide.readRegion() rejects regions that make no sense", async () => {
  const grid = new Tiles(64, 48, 32, 24);
  const slide = slideOf([grid]);
  const good = { level: 0, x0Px: 0, y0Px: 0, widthPx: 1, heightPx: 1 };
  const rows = [
    { level: 1 },
    { level: -1 },
    { level: 0.5 },
    { level: NaN },
    { x0Px: 0.5 },
    { y0Px: NaN },
    { x0Px: Infinity },
    { x0Px: 2 ** 60 },
    { widthPx: 0 },
    { heightPx: -1 },
    { widthPx: 1.5 },
    { widthPx: NaN },
    { widthPx: 2 ** 20, heightPx: 2 ** 20 },
  ];
  for (const row of rows) {
    await assert.rejects(slide.readRegion({ ...good, ...row }), RangeError, JSON.stringify(row));
  }
  await assert.rejects(slide.rawTile(1, 0, 0), RangeError);
  assert.deepEqual(grid.read, []);
});

Deno.test("TiledSlide.readRegion() says which tile could not be decoded", async () => {
  const grids = [new Tiles(64, 48, 32, 24), new Tiles(32, 24, 32, 24)];
  grids[1]!.change = (tile) => ({ ...tile, data: tile.data.subarray(1) });
  const macro = new Tiles(20, 20, 32, 24);
  macro.change = (tile) => ({ ...tile, compression: "jpeg" });
  const slide = slideOf(grids, { associated: new Map([["macro", macro]]) });
  const region = { level: 1, x0Px: 0, y0Px: 0, widthPx: 5, heightPx: 5 };
  await assert.rejects(slide.readRegion(region), (error) => {
    assert(error instanceof CodecError);
    assert.equal(
      error.message,
      "Cannot decode tile (0, 0) of level 1: it holds 2303 bytes where 2304 are due",
    );
    assert.deepEqual([error.codec, error.level, error.column, error.row], ["none", 1, 0, 0]);
    return true;
  });
  await assert.rejects(slide.associated.get("macro")!(), (error) => {
    assert(error instanceof CodecError);
    assert.match(
      error.message,
      /^Cannot decode tile \(0, 0\) of the macro: it does not begin with SOI$/,
    );
    assert.deepEqual([error.codec, error.level, error.column, error.row], [
      "jpeg",
      undefined,
      0,
      0,
    ]);
    return true;
  });
});

Deno.test("TiledSlide fills and counts tiles that cannot be decoded, where it is told to", async () => {
  const grid = new Tiles(64, 48, 32, 24);
  grid.change = (tile, column, row) =>
    column === 1 && row === 0 ? { ...tile, data: tile.data.subarray(1) } : tile;
  const slide = slideOf([grid], { onBadTile: "background" });
  const all = { level: 0, x0Px: 0, y0Px: 0, widthPx: 64, heightPx: 48 };
  for (let time = 0; time < 2; time++) {
    const { data } = await slide.readRegion(all);
    for (let y = 0; y < 48; y++) {
      for (let x = 0; x < 64; x++) {
        const at = 3 * (y * 64 + x);
        const expected = x >= 32 && y < 24 ? [255, 255, 255] : [...grid.pixels.slice(at, at + 3)];
        assert.deepEqual([...data.slice(at, at + 3)], expected, `(${x}, ${y})`);
      }
    }
    assert.equal(slide.badTiles, 1, "each tile counts once");
  }
});

Deno.test("TiledSlide.readRegion() stops at the first error, and leaves none unhandled", async () => {
  const unhandled: unknown[] = [];
  const remember = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    unhandled.push(event.reason);
  };
  addEventListener("unhandledrejection", remember);
  try {
    for (const decoders of [0, 2]) {
      const grid = new Tiles(400, 300, 4, 3);
      let fail: (error: Error) => void = () => {};
      grid.change = (tile, column, row) => {
        if (row > 0 || column > 4) {
          return new Promise((_, reject) => setTimeout(reject, 1, new Error("later")));
        }
        if (column === 4) return new Promise((_, reject) => fail = reject);
        if (column === 3) queueMicrotask(() => fail(new SourceError("gone", { location: "x" })));
        return tile;
      };
      const slide = slideOf([grid], { decoders });
      await assert.rejects(
        slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx: 400, heightPx: 300 }),
        SourceError,
      );
      assert(grid.read.length < 100, `${grid.read.length} of 10000 tiles were read`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(unhandled, []);
  } finally {
    removeEventListener("unhandledrejection", remember);
  }
});

Deno.test("TiledSlide.readRegion() reads nothing where its signal is aborted before", async () => {
  const grid = new Tiles(64, 48, 32, 24);
  const reason = new Error("stop");
  const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 64, heightPx: 48 };
  await assert.rejects(
    slideOf([grid]).readRegion({ ...region, signal: AbortSignal.abort(reason) }),
    (error) => error === reason,
  );
  assert.deepEqual(grid.read, []);
});

Deno.test("TiledSlide.readRegion() stops between tiles where its signal is aborted", async () => {
  for (const decoders of [0, 2]) {
    const grid = new Tiles(400, 300, 4, 3);
    const controller = new AbortController();
    const reason = new Error("stop");
    grid.change = (tile) => {
      if (grid.read.length === 50) controller.abort(reason);
      return tile;
    };
    const slide = slideOf([grid], { decoders });
    const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 400, heightPx: 300 };
    await assert.rejects(
      slide.readRegion({ ...region, signal: controller.signal }),
      (error) => error === reason,
    );
    assert(grid.read.length >= 50 && grid.read.length < 90, `${grid.read.length} tiles were read`);
    // Its decoder serves on.
    grid.change = (tile) => tile;
    const { data } = await slide.readRegion({ ...region, widthPx: 40, heightPx: 40 });
    assert.deepEqual(data, cut(grid, 0, 0, 40, 40));
  }
});

Deno.test("TiledSlide.readRegion() ends at once when it is aborted, although a tile goes on", async () => {
  const grid = new Tiles(64, 48, 32, 24);
  let finish: (() => void) | undefined;
  grid.change = (tile) => new Promise((resolve) => finish = () => resolve(tile));
  const slide = slideOf([grid]);
  const controller = new AbortController();
  const reason = new Error("stop");
  const { signal } = controller;
  const read = slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx: 30, heightPx: 20, signal });
  setTimeout(() => controller.abort(reason), 5);
  await assert.rejects(read, (error) => error === reason);
  // It ends afterwards, and nobody hears of it.
  finish!();
  await new Promise((resolve) => setTimeout(resolve, 5));
  await slide.close();
});

Deno.test("TiledSlide.readRegion() lets a timer abort it although nothing in it waits", async () => {
  const grid = new Tiles(400, 300, 4, 3);
  const controller = new AbortController();
  const reason = new Error("stop");
  grid.change = (tile) => {
    const end = performance.now() + 1;
    while (performance.now() < end); // 10,000 tiles take ten seconds.
    return tile;
  };
  setTimeout(() => controller.abort(reason), 0);
  const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 400, heightPx: 300 };
  await assert.rejects(
    slideOf([grid]).readRegion({ ...region, signal: controller.signal }),
    (error) => error === reason,
  );
  assert(grid.read.length < 5000, `${grid.read.length} of 10000 tiles were read`);
});

Deno.test("TiledSlide.readRegion() holds few tiles at a time, fewer where they are large", async () => {
  // In flight are as many as 2^28 bytes hold, from 1 to 32.
  for (const [tilePx, most] of [[32, 32], [4096, 5], [16384, 1]] as const) {
    let now = 0, peak = 0;
    const grid: TileGrid = {
      widthPx: 100 * tilePx,
      heightPx: tilePx,
      tileWidthPx: tilePx,
      tileHeightPx: tilePx,
      columns: 100,
      rows: 1,
      readTile: async () => {
        peak = Math.max(peak, ++now);
        await new Promise((resolve) => setTimeout(resolve, 0));
        now--;
        return { data: EMPTY } as RawTile;
      },
    };
    const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 100 * tilePx, heightPx: 1 };
    await slideOf([grid]).readRegion(region);
    assert.equal(peak, most);
  }
});

Deno.test("TiledSlide.associated decodes a picture when it is asked for", async () => {
  const label = new Tiles(50, 40, 50, 16);
  const slide = slideOf([new Tiles(64, 48, 32, 24)], { associated: new Map([["label", label]]) });
  assert.deepEqual([...slide.associated.keys()], ["label"]);
  assert.deepEqual(label.read, []);
  const picture: Picture = await slide.associated.get("label")!();
  assert.deepEqual(picture, { data: label.pixels, widthPx: 50, heightPx: 40 });
});

Deno.test("TiledSlide.associated refuses pictures of absurd sizes without reading them", async () => {
  const label = Object.assign(new Tiles(10, 10, 10, 10), { widthPx: 100_000, heightPx: 100_000 });
  const slide = slideOf([new Tiles(64, 48, 32, 24)], { associated: new Map([["label", label]]) });
  await assert.rejects(slide.associated.get("label")!(), (error) => {
    assert(error instanceof UnsupportedError);
    assert.equal(
      error.message,
      "Cannot read the label: a picture of 100000 × 100000 pixels is not supported",
    );
    return true;
  });
  assert.deepEqual(label.read, []);
});

Deno.test("TiledSlide.associated rejects a picture of which there is nothing, before it takes memory", async () => {
  const label = new Tiles(64, 48, 32, 24);
  label.change = (tile) => ({ ...tile, data: EMPTY });
  const associated = new Map([["label", label]]);
  const slide = slideOf([new Tiles(64, 48, 32, 24)], { associated });
  await assert.rejects(slide.associated.get("label")!(), (error) => {
    assert(error instanceof CodecError);
    assert.equal(error.message, "Cannot read the label: the file holds nothing of it");
    return true;
  });
  // A part is shown, the rest is background.
  label.change = (tile, column) => column === 0 ? tile : { ...tile, data: EMPTY };
  assert.equal((await slide.associated.get("label")!()).data.at(-1), 255);
});

Deno.test("TiledSlide.rawTile() gives a tile undecoded", async () => {
  const grid = new Tiles(64, 48, 32, 24);
  const tile = await slideOf([grid]).rawTile(0, 1, 1);
  assert.deepEqual([tile.compression, tile.widthPx, tile.heightPx], ["none", 32, 24]);
  assert.deepEqual(tile.data, cut(grid, 32, 24, 32, 24));
});

Deno.test("new TiledSlide() rejects a slide without levels", () => {
  assert.throws(() => slideOf([]), RangeError);
});
