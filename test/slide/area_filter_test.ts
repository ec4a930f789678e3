import assert from "node:assert/strict";
import { AreaFilter, type AreaGeometry } from "../../src/slide/area_filter.ts";
import { openSlide } from "../../src/slide/open.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { encodeSample } from "../../src/sample/sample.ts";
import { bytes } from "../reference/random.ts";

/** The same, written as the definition: a sum over all source pixels. */
function twin(data: Uint8Array, sourceHeight: number, geometry: AreaGeometry): number[] {
  const { sourceWidthPx, widthPx, heightPx, ratioX, ratioY, shiftX = 0, shiftY = 0, beyond } =
    geometry;
  const part = (cell: number, from: number, to: number) =>
    Math.max(0, Math.min(cell + 1, to) - Math.max(cell, from));
  const out: number[] = [];
  for (let y = 0; y < heightPx; y++) {
    for (let x = 0; x < widthPx; x++) {
      const sums = [0, 0, 0];
      let area = 0;
      for (let sy = 0; sy < sourceHeight; sy++) {
        for (let sx = 0; sx < sourceWidthPx; sx++) {
          const weight = part(sx, shiftX + x * ratioX, shiftX + (x + 1) * ratioX) *
            part(sy, shiftY + y * ratioY, shiftY + (y + 1) * ratioY);
          area += weight;
          for (let c = 0; c < 3; c++) {
            sums[c]! += weight * data[3 * (sy * sourceWidthPx + sx) + c]!;
          }
        }
      }
      if (beyond !== undefined) {
        const rest = ratioX * ratioY - area;
        for (let c = 0; c < 3; c++) sums[c]! += rest * beyond[c]!;
        area += rest;
      }
      out.push(...sums.map((sum) => area === 0 ? 0 : sum / area));
    }
  }
  return out;
}

Deno.test("AreaFilter is the mean over each footprint, however the rows come", () => {
  const cases: [AreaGeometry, number][] = [
    [{ sourceWidthPx: 1, widthPx: 1, heightPx: 1, ratioX: 1, ratioY: 1 }, 1],
    [{ sourceWidthPx: 12, widthPx: 6, heightPx: 4, ratioX: 2, ratioY: 2 }, 8],
    [{ sourceWidthPx: 17, widthPx: 5, heightPx: 3, ratioX: 3.4, ratioY: 11 / 3 }, 11],
    [
      {
        sourceWidthPx: 13,
        widthPx: 4,
        heightPx: 5,
        ratioX: 2.75,
        ratioY: 1.5,
        shiftX: 0.4,
        shiftY: 0.9,
      },
      9,
    ],
    // Smaller than the source's pixels, and past the source's edge.
    [{ sourceWidthPx: 3, widthPx: 7, heightPx: 6, ratioX: 0.4, ratioY: 0.45, shiftX: 0.2 }, 3],
    [{ sourceWidthPx: 5, widthPx: 3, heightPx: 3, ratioX: 2, ratioY: 2 }, 5],
    // A source that lies inside the output, or apart from it.
    ...[
      { ratioX: 2, ratioY: 3, shiftX: -4, shiftY: -6 },
      { ratioX: 2.3, ratioY: 1.7, shiftX: -5.1, shiftY: -3.7 },
      { ratioX: 0.6, ratioY: 0.9, shiftX: -1.1, shiftY: -2.5 },
      { ratioX: 40, ratioY: 50, shiftX: -97, shiftY: -220 },
      { ratioX: 2, ratioY: 2, shiftX: 9, shiftY: -100 },
      { ratioX: 2, ratioY: 2, shiftX: -100, shiftY: 8 },
    ].map((place): [AreaGeometry, number] => [
      { sourceWidthPx: 5, widthPx: 7, heightPx: 9, beyond: [200, 100, 50], ...place },
      4,
    ]),
  ];
  for (const [i, [geometry, height]] of cases.entries()) {
    const data = bytes(3 * geometry.sourceWidthPx * height, i);
    const expected = twin(data, height, geometry);
    for (const rowsAtOnce of [height, 1, 2]) {
      const filter = new AreaFilter(geometry);
      const perRow = 3 * geometry.sourceWidthPx;
      for (let row = 0; row < height; row += rowsAtOnce) {
        filter.add(data.subarray(row * perRow, (row + rowsAtOnce) * perRow));
      }
      const actual = filter.finish();
      assert.equal(actual.length, expected.length);
      // Half a step of rounding, and f32 sums that a tie may tip.
      for (let at = 0; at < actual.length; at++) {
        assert.ok(
          Math.abs(actual[at]! - expected[at]!) <= 0.5 + 1e-3,
          `case ${i}, ${at}: ${actual[at]}, ${expected[at]}`,
        );
      }
    }
  }
});

Deno.test("readRegion() at the scale of level 0 is level 0", async () => {
  const slide = await openSlide(
    new MemorySource(encodeSample({ widthPx: 512, heightPx: 384 }).svs),
  );
  const at = { x0Px: 31, y0Px: -7, widthPx: 200, heightPx: 150 };
  const [scaled, plain] = [
    await slide.readRegion({ ...at, mpp: 0.5 }),
    await slide.readRegion({ ...at, level: 0 }),
  ];
  assert.deepEqual(scaled, plain);
  await slide.close();
});

Deno.test("readRegion() at a scale is the area's mean of the best level", async () => {
  const slide = await openSlide(
    new MemorySource(encodeSample({ widthPx: 2048, heightPx: 1024 }).svs),
  );
  // Levels at 0.5, 2 and 8 µm/px.
  assert.deepEqual(
    [0.1, 0.5, 1.99, 2, 7, 8, 100].map((mpp) => slide.levelFor(mpp)),
    slide.levels.length === 3 ? [0, 0, 0, 1, 1, 2, 2] : [0, 0, 0, 1, 1, 1, 1],
  );
  const { data } = await slide.readRegion({
    mpp: 1,
    x0Px: 100,
    y0Px: 40,
    widthPx: 33,
    heightPx: 21,
  });
  const source = await slide.readRegion({
    level: 0,
    x0Px: 100,
    y0Px: 40,
    widthPx: 66,
    heightPx: 42,
  });
  const expected = twin(source.data, 42, {
    sourceWidthPx: 66,
    widthPx: 33,
    heightPx: 21,
    ratioX: 2,
    ratioY: 2,
  });
  for (const [i, value] of data.entries()) assert.ok(Math.abs(value - expected[i]!) <= 0.5 + 1e-3);
  // Coarser than the coarsest, and partly outside: the background's mean.
  const corner = await slide.readRegion({
    mpp: 32,
    x0Px: -6400,
    y0Px: -6400,
    widthPx: 50,
    heightPx: 50,
  });
  assert.ok(corner.data.every((value) => value === 255));
  // Any distance outside, and as much of it as may be, is background at once.
  const far = { mpp: 1e12, x0Px: -(2 ** 50), y0Px: 2 ** 40, widthPx: 30, heightPx: 20 };
  assert.ok((await slide.readRegion(far)).data.every((value) => value === 255));
  const all = await slide.readRegion({ ...far, x0Px: 0, y0Px: 0 });
  assert.ok(all.data.every((value) => value === 255));
  for (const size of [{ widthPx: 0 }, { heightPx: 1.5 }, { widthPx: 2 ** 31 }]) {
    await assert.rejects(slide.readRegion({ ...far, ...size }), RangeError);
  }
  await slide.close();
});

Deno.test("levelFor() refuses nonsense, and a slide without a scale", async () => {
  const slide = await openSlide(
    new MemorySource(encodeSample({ widthPx: 256, heightPx: 256 }).svs),
  );
  for (const mpp of [0, -1, NaN, Infinity]) assert.throws(() => slide.levelFor(mpp), RangeError);
  await slide.close();
});
