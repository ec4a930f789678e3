import assert from "node:assert/strict";
import { ASSUMED_MPP, cutGrid, scaleOf, type TileGrid } from "../../src/pipeline/grid.ts";
import type { TissueMask } from "../../src/pipeline/tissue.ts";
import type { Slide } from "../../src/slide/slide.ts";
import { uniform } from "../reference/random.ts";
import { pictureSlide } from "../slide/picture_slide.ts";

/** A slide without pixels, whose levels are so much smaller. */
function emptySlide(
  widthPx: number,
  heightPx: number,
  mpp: number | undefined,
  downsamples: readonly number[] = [1],
): Slide {
  return {
    ...pictureSlide({ data: new Uint8Array(), widthPx, heightPx }, mpp),
    levels: downsamples.map((downsample) => ({
      widthPx: Math.ceil(widthPx / downsample),
      heightPx: Math.ceil(heightPx / downsample),
      downsample,
      tileWidthPx: 256,
      tileHeightPx: 256,
    })),
  };
}

function maskOf(
  slide: Slide,
  widthPx: number,
  heightPx: number,
  data: ArrayLike<number>,
): TissueMask {
  const [base] = slide.levels;
  return {
    data: Uint8Array.from(data),
    widthPx,
    heightPx,
    downsampleX: base!.widthPx / widthPx,
    downsampleY: base!.heightPx / heightPx,
    threshold: 0.1,
  };
}

const everywhere = (slide: Slide) => maskOf(slide, 1, 1, [1]);

/** The tiles whose core a position of level 0 lies in. */
function tilesAt({ tiles, corePx, downsample }: TileGrid, x0: number, y0: number) {
  const [x, y] = [x0 / downsample, y0 / downsample];
  return tiles.filter((tile) =>
    x >= tile.x && x < tile.x + corePx && y >= tile.y && y < tile.y + corePx
  );
}

Deno.test("cutGrid() puts every place with tissue into exactly one tile's core", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = uniform(seed);
    const width = 1 + Math.floor(random() * 3000), height = 1 + Math.floor(random() * 3000);
    const mpp = [0.2, 0.25, 0.37, 0.5, 1.3][seed % 5]!;
    const slide = emptySlide(width, height, mpp, [1, 2, 7].slice(0, 1 + seed % 3));
    const columns = 1 + Math.floor(random() * 40), rows = 1 + Math.floor(random() * 40);
    const density = random() ** 3;
    const mask = maskOf(
      slide,
      columns,
      rows,
      Array.from({ length: columns * rows }, () => random() < density ? 1 : 0),
    );
    const grid = cutGrid(slide, mask, { mpp: 0.5, corePx: 64 + 64 * (seed % 3) });
    for (const { x, y } of grid.tiles) assert.deepEqual([x % grid.corePx, y % grid.corePx], [0, 0]);
    const used = new Set<unknown>();
    for (let i = 0; i < mask.data.length; i++) {
      const [column, row] = [i % columns, Math.floor(i / columns)];
      for (const [dx, dy] of [[0.001, 0.001], [0.5, 0.5], [0.999, 0.999], [0.999, 0.001]]) {
        const tiles = tilesAt(
          grid,
          (column + dx!) * mask.downsampleX,
          (row + dy!) * mask.downsampleY,
        );
        if (mask.data[i] === 0) continue;
        assert.equal(tiles.length, 1, `seed ${seed}, mask pixel (${column}, ${row})`);
        used.add(tiles[0]);
      }
    }
    if (!mask.data.includes(1)) assert.equal(grid.tiles.length, 0);
  }
});

Deno.test("cutGrid() reads no tile without tissue, and goes row by row", () => {
  const slide = emptySlide(1000, 1000, 0.5);
  // Tissue only at the first and the last pixel of a mask of 10 level-0 pixels each.
  const mask = maskOf(slide, 100, 100, Array.from({ length: 10_000 }, (_, i) => +(i % 9999 === 0)));
  assert.deepEqual(cutGrid(slide, mask, { mpp: 0.5, corePx: 100 }).tiles, [
    { x: 0, y: 0 },
    { x: 900, y: 900 },
  ]);
  assert.deepEqual(
    cutGrid(slide, everywhere(slide), { mpp: 0.5, corePx: 512 }).tiles,
    [{ x: 0, y: 0 }, { x: 512, y: 0 }, { x: 0, y: 512 }, { x: 512, y: 512 }],
  );
});

Deno.test("cutGrid() covers a last column of less than a model pixel", () => {
  const slide = emptySlide(129, 128, 0.25);
  const { tiles } = cutGrid(slide, everywhere(slide), { mpp: 0.5, corePx: 64 });
  assert.deepEqual(tiles, [{ x: 0, y: 0 }, { x: 64, y: 0 }]);
});

Deno.test("cutGrid() reads the coarsest level that is as fine as wanted", () => {
  for (
    const [mpp, downsamples, level, ratio] of [
      [0.5, [1, 4, 16], 0, 1],
      [0.499, [1, 4, 16], 0, 1],
      [0.25, [1, 2, 4], 1, 1],
      [0.25, [1, 4, 16], 0, 2],
      [0.125, [1, 2, 16], 1, 2],
      [0.1, [1], 0, 5],
      // Within a tenth, as scanners differ, nothing is resampled.
      [0.46, [1], 0, 1],
      [0.549, [1], 0, 1],
      [0.2742, [1, 2], 1, 1],
      [0.44, [1], 0, 0.5 / 0.44],
      // Coarser than wanted is read as it is.
      [0.56, [1, 2], 0, 1],
      [1, [1, 2], 0, 1],
      [8, [1], 0, 1],
    ] as const
  ) {
    const slide = emptySlide(4000, 3000, mpp, downsamples);
    const grid = cutGrid(slide, everywhere(slide), { mpp: 0.5, corePx: 256 });
    assert.equal(grid.level, level, `level for ${mpp} µm/px`);
    assert.ok(Math.abs(grid.ratio - ratio) < 1e-12, `ratio for ${mpp} µm/px: ${grid.ratio}`);
    const downsample = ratio * downsamples[level]!;
    assert.ok(Math.abs(grid.downsample - downsample) < 1e-12);
    assert.ok(Math.abs(grid.mppX - mpp * downsample) < 1e-12);
    assert.equal(grid.mppY, grid.mppX);
  }
});

Deno.test("cutGrid() takes a slide that does not say its scale for 20x", () => {
  const slide = emptySlide(4000, 3000, undefined, [1, 2]);
  const { level, ratio, mppX, mppY } = cutGrid(slide, everywhere(slide), { mpp: 0.5, corePx: 256 });
  assert.deepEqual({ level, ratio, mppX, mppY }, {
    level: 0,
    ratio: 1,
    mppX: ASSUMED_MPP,
    mppY: ASSUMED_MPP,
  });
});

Deno.test("scaleOf() takes one axis for both, and does not believe what no scanner has", () => {
  for (
    const [said, taken, assumed] of [
      [[0.25, 0.25], [0.25, 0.25], false],
      [[0.5, undefined], [0.5, 0.5], false],
      [[undefined, 0.25], [0.25, 0.25], false],
      [[0.5, 0.25], [0.5, 0.25], false],
      [[undefined, undefined], [ASSUMED_MPP, ASSUMED_MPP], true],
      // 72 dpi, and a centimetre taken for a micrometre.
      [[352.8, 352.8], [ASSUMED_MPP, ASSUMED_MPP], true],
      [[0.00005, 0.00005], [ASSUMED_MPP, ASSUMED_MPP], true],
      [[0.25, 352.8], [0.25, 0.25], false],
    ] as const
  ) {
    const slide = emptySlide(100, 100, undefined);
    const properties = { ...slide.properties, mppX: said[0], mppY: said[1] };
    const [mppX, mppY] = taken;
    assert.deepEqual(scaleOf({ ...slide, properties }), { mppX, mppY, assumed }, `${said}`);
  }
});
