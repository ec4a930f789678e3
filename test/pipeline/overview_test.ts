import assert from "node:assert/strict";
import { OVERVIEW_SIDE_PX, overviewOf } from "../../src/pipeline/overview.ts";
import { reducePicture } from "../../src/slide/area_filter.ts";
import type { Picture, Region, Slide } from "../../src/slide/slide.ts";
import { bytes } from "../reference/random.ts";
import { pictureSlide } from "../slide/picture_slide.ts";

/** out[Y, X, c] = mean of source[.., .., c] over the rectangle that (X, Y) covers, in f64. */
function areaMean({ data, widthPx, heightPx }: Picture, width: number, height: number): number[] {
  const [ratioX, ratioY] = [widthPx / width, heightPx / height];
  const part = (cell: number, from: number, to: number) =>
    Math.max(0, Math.min(cell + 1, to) - Math.max(cell, from));
  const out: number[] = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let sy = 0; sy < heightPx; sy++) {
          const high = part(sy, y * ratioY, (y + 1) * ratioY);
          for (let sx = 0; high > 0 && sx < widthPx; sx++) {
            const wide = part(sx, x * ratioX, (x + 1) * ratioX);
            sum += high * wide * data[3 * (sy * widthPx + sx) + c]!;
          }
        }
        out.push(sum / ratioX / ratioY);
      }
    }
  }
  return out;
}

/** A slide whose every level is a picture; records what is read of it. */
function pyramid(levels: readonly Picture[]): Slide & { readonly reads: Region[] } {
  const [base] = levels;
  const reads: Region[] = [];
  return {
    ...pictureSlide(base!, 0.5),
    levels: levels.map(({ widthPx, heightPx }) => ({
      widthPx,
      heightPx,
      downsample: (base!.widthPx / widthPx + base!.heightPx / heightPx) / 2,
      tileWidthPx: 100,
      tileHeightPx: 100,
    })),
    async readRegion(region) {
      await Promise.resolve();
      region.signal?.throwIfAborted();
      reads.push(region);
      const { data, widthPx } = levels[region.level!]!;
      assert.deepEqual([region.xPx, region.widthPx], [0, widthPx]);
      const top = region.yPx!;
      return {
        data: data.slice(3 * top * widthPx, 3 * (top + region.heightPx) * widthPx),
        widthPx,
        heightPx: region.heightPx,
      };
    },
    reads,
  };
}

function picture(widthPx: number, heightPx: number, seed = 1): Picture {
  return { data: bytes(widthPx * heightPx * 3, seed), widthPx, heightPx };
}

Deno.test("reducePicture() is the mean over each pixel's area", () => {
  for (
    const [width, height, toWidth, toHeight] of [
      [1, 1, 1, 1],
      [13, 17, 13, 17],
      [16, 8, 4, 4],
      [7, 5, 3, 2],
      [101, 3, 7, 3],
      [3, 97, 1, 96],
      [61, 67, 60, 1],
    ] as const
  ) {
    const source = picture(width, height, width);
    const { data, widthPx, heightPx } = reducePicture(source, toWidth, toHeight);
    assert.deepEqual([widthPx, heightPx, data.length], [toWidth, toHeight, toWidth * toHeight * 3]);
    areaMean(source, toWidth, toHeight).forEach((mean, i) => {
      // Half a step of a byte, and sums of f32.
      assert.ok(Math.abs(data[i]! - mean) <= 0.5 + 1e-3, `${toWidth} × ${toHeight}, ${i}`);
    });
  }
});

Deno.test("reducePicture() leaves white white and black black, whatever the ratio", () => {
  for (const value of [0, 255]) {
    for (const [width, height] of [[333, 7], [1, 401], [99, 100]] as const) {
      const source = {
        data: new Uint8Array(333 * 401 * 3).fill(value),
        widthPx: 333,
        heightPx: 401,
      };
      const { data } = reducePicture(source, width, height);
      assert.ok(data.every((byte) => byte === value), `${value}, ${width} × ${height}`);
    }
  }
});

Deno.test("overviewOf() gives a small slide as it is", async () => {
  for (const [width, height] of [[1, 1], [37, 5]] as const) {
    const source = picture(width, height);
    const overview = await overviewOf(pictureSlide(source, undefined));
    assert.deepEqual(overview, { ...source, downsampleX: 1, downsampleY: 1 });
  }
});

Deno.test("overviewOf() reads the smallest level that is large enough, once, in strips of whole tiles", async () => {
  // The second level's height is odd, so that its downsample is not the height's.
  const empty = (widthPx: number, heightPx: number) => ({
    data: new Uint8Array(),
    widthPx,
    heightPx,
  });
  const data = Uint8Array.from({ length: 4100 * 1500 * 3 }, (_, i) => (i * 7) >> 5);
  const read = { data, widthPx: 4100, heightPx: 1500 };
  const levels = [empty(8200, 3001), read, empty(1025, 375)];
  const slide = pyramid(levels);
  const overview = await overviewOf(slide);
  assert.deepEqual([overview.widthPx, overview.heightPx], [OVERVIEW_SIDE_PX, 750]);
  assert.equal(overview.downsampleX, 8200 / OVERVIEW_SIDE_PX);
  assert.equal(overview.downsampleY, 3001 / 750);
  assert.ok(slide.reads.length > 1);
  let row = 0;
  for (const { level, heightPx } of slide.reads) {
    assert.equal(level, 1);
    assert.equal(row % 100, 0);
    row += heightPx;
  }
  assert.equal(row, 1500);
  // In strips or in one, it is the same mean.
  const whole = reducePicture(read, OVERVIEW_SIDE_PX, 750);
  assert.ok(overview.data.every((byte, i) => byte === whole.data[i]));
});

Deno.test("overviewOf() does not read level 0 where a smaller level will do", async () => {
  const rows: [level1: number, read: number, sidePx: number][] = [
    [2100, 1, OVERVIEW_SIDE_PX],
    [1000, 1, 1000],
    [512, 1, 512],
    [511, 0, OVERVIEW_SIDE_PX],
  ];
  for (const [side, level, sidePx] of rows) {
    const slide = pyramid([
      picture(5000, 25),
      picture(side, Math.ceil(side / 200)),
      picture(100, 1),
    ]);
    const overview = await overviewOf(slide);
    assert.deepEqual([slide.reads[0]!.level, overview.widthPx], [level, sidePx]);
    assert.equal(overview.downsampleX, 5000 / sidePx);
  }
});

Deno.test("overviewOf() keeps a long thin slide's pixel", async () => {
  const overview = await overviewOf(pyramid([picture(20_000, 3)]));
  assert.deepEqual([overview.widthPx, overview.heightPx], [OVERVIEW_SIDE_PX, 1]);
  assert.deepEqual([overview.downsampleX, overview.downsampleY], [20_000 / OVERVIEW_SIDE_PX, 3]);
});

Deno.test("overviewOf() reads a slide once", async () => {
  const slide = pyramid([picture(300, 200)]);
  assert.equal(await overviewOf(slide), await overviewOf(slide));
  assert.equal(slide.reads.length, 1);
});

Deno.test("overviewOf() does not keep what was aborted or failed", async () => {
  const slide = pyramid([picture(300, 200)]);
  const reason = new Error("enough");
  await assert.rejects(overviewOf(slide, { signal: AbortSignal.abort(reason) }), reason);
  const { readRegion } = slide;
  slide.readRegion = () => Promise.reject(new Error("a broken tile"));
  await assert.rejects(overviewOf(slide), /a broken tile/);
  slide.readRegion = readRegion;
  assert.deepEqual((await overviewOf(slide)).widthPx, 300);
});

Deno.test("overviewOf() of one caller does not fail by another's signal", async () => {
  const slide = pyramid([picture(300, 200)]);
  const stop = new AbortController();
  const aborted = overviewOf(slide, { signal: stop.signal });
  const other = overviewOf(slide);
  stop.abort(new Error("enough"));
  await assert.rejects(aborted, /enough/);
  assert.equal((await other).widthPx, 300);
});
