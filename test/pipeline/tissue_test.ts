import assert from "node:assert/strict";
import type { Overview } from "../../src/pipeline/overview.ts";
import {
  findTissue,
  isTissue,
  otsu,
  tissueAreaMm2,
  type TissueMask,
  tissueWithin,
} from "../../src/pipeline/tissue.ts";
import { uniform } from "../reference/random.ts";

type Colour = readonly [number, number, number];
const GLASS: Colour = [243, 242, 244];
const STROMA: Colour = [226, 190, 210];
const PEN: Colour = [25, 24, 28];

/** Micrometres per level-0 pixel; times 16 the mask's 8 µm per pixel. */
const MPP = 0.5;

/** An overview of 8 µm per pixel with grain of ±3 in all channels alike and of ±1 in each. */
function draw(
  widthPx: number,
  heightPx: number,
  colour: (x: number, y: number) => Colour,
): Overview {
  const data = new Uint8Array(widthPx * heightPx * 3);
  const random = uniform(widthPx * heightPx);
  const grain = (size: number) => Math.round((2 * random() - 1) * size);
  for (let i = 0; i < widthPx * heightPx; i++) {
    const brighter = grain(3);
    colour(i % widthPx, Math.floor(i / widthPx)).forEach((value, c) =>
      data[3 * i + c] = Math.min(255, value + brighter + grain(1))
    );
  }
  return { data, widthPx, heightPx, downsampleX: 16, downsampleY: 16 };
}

const within = (left: number, top: number, side: number) => (x: number, y: number) =>
  x >= left && x < left + side && y >= top && y < top + side;

/** How many mask pixels differ from what is expected. */
function difference(mask: TissueMask, expected: (x: number, y: number) => boolean): number {
  let different = 0;
  for (let i = 0; i < mask.data.length; i++) {
    const [x, y] = [i % mask.widthPx, Math.floor(i / mask.widthPx)];
    if ((mask.data[i] === 1) !== expected(x, y)) different++;
  }
  return different;
}

Deno.test("otsu() puts the threshold between two classes", () => {
  const two = [...Array(70).fill(0.2), ...Array(30).fill(0.8)];
  // Every threshold between them separates alike; bins are 1/256 wide.
  assert.ok(Math.abs(otsu(two) - 0.5) <= 1 / 256);
  const random = uniform(1);
  const spread = Array.from(
    { length: 4000 },
    (_, i) => i % 4 === 0 ? 0.6 + 0.3 * random() : 0.1 + 0.2 * random(),
  );
  const threshold = otsu(spread);
  assert.ok(threshold > 0.3 && threshold < 0.6, `${threshold}`);
});

Deno.test("otsu() does not put the threshold into the middle of three classes", () => {
  // By symmetry the gap below the middle class is exactly as good as the one above it.
  const three = [...Array(50).fill(0.1), ...Array(50).fill(0.5), ...Array(50).fill(0.9)];
  const threshold = otsu(three);
  assert.ok(Math.abs(threshold - 0.3) < 0.01 || Math.abs(threshold - 0.7) < 0.01, `${threshold}`);
});

Deno.test("otsu() takes one class, the ends of the range and nothing", () => {
  for (const values of [[], [0], [1], Array(9).fill(0.5)]) {
    const threshold = otsu(values);
    assert.ok(threshold >= 0 && threshold <= 1, `${values}: ${threshold}`);
  }
  assert.ok(Math.abs(otsu([0, 1]) - 0.5) <= 1 / 256);
});

Deno.test("findTissue() finds none on glass, whatever its tint and the slide's size", () => {
  for (const glass of [GLASS, [255, 255, 255], [236, 240, 228], [214, 210, 219]] as const) {
    for (const [width, height] of [[1, 1], [2, 3], [15, 10], [160, 120]] as const) {
      const { data } = findTissue(draw(width, height, () => glass), MPP);
      assert.ok(!data.includes(1), `${glass} ${width} × ${height}`);
    }
  }
});

Deno.test("findTissue() finds all where all is tissue, also on a crop smaller than a speck", () => {
  for (const [width, height] of [[1, 1], [5, 5], [15, 10], [160, 120]] as const) {
    const random = uniform(9);
    const { data } = findTissue(
      draw(width, height, () => random() < 0.3 ? [120, 80, 150] : STROMA),
      MPP,
    );
    assert.ok(!data.includes(0), `${width} × ${height}`);
  }
});

Deno.test("findTissue() finds tissue beside glass, to a pixel at its border", () => {
  const tissue = (x: number, y: number) => Math.hypot(x - 80, y - 60) < 40;
  const mask = findTissue(draw(160, 120, (x, y) => tissue(x, y) ? STROMA : GLASS), MPP);
  assert.deepEqual([mask.widthPx, mask.heightPx], [160, 120]);
  // The circle's border is 251 pixels long.
  assert.ok(difference(mask, tissue) < 251);
  // 5027 pixels of 8 µm.
  const area = tissueAreaMm2(mask, MPP, MPP);
  assert.ok(Math.abs(area - Math.PI * 0.32 ** 2) < 251 * 64e-6, `${area}`);
});

Deno.test("findTissue() does not take black pen and grey dirt for tissue", () => {
  const tissue = within(20, 20, 60);
  const mask = findTissue(
    draw(
      160,
      120,
      (x, y) =>
        tissue(x, y) ? STROMA : x > 110 && x < 130 ? PEN : y > 100 ? [180, 179, 181] : GLASS,
    ),
    MPP,
  );
  assert.ok(difference(mask, tissue) < 4 * 60);
  assert.equal(mask.data[60 * 160 + 120], 0);
});

Deno.test("findTissue() removes specks and fills holes, and keeps larger ones", () => {
  // 0.004 mm² are 62.5 pixels, 0.02 mm² 312.5.
  const body = within(10, 10, 100);
  const [smallHole, largeHole] = [within(20, 20, 12), within(50, 50, 30)];
  const [speck, piece] = [within(130, 10, 5), within(130, 40, 15)];
  const mask = findTissue(
    draw(
      160,
      120,
      (x, y) =>
        smallHole(x, y) || largeHole(x, y)
          ? GLASS
          : body(x, y) || speck(x, y) || piece(x, y)
          ? STROMA
          : GLASS,
    ),
    MPP,
  );
  const at = (x: number, y: number) => mask.data[y * mask.widthPx + x];
  assert.deepEqual(
    { smallHole: at(26, 26), largeHole: at(65, 65), speck: at(132, 12), piece: at(137, 47) },
    { smallHole: 1, largeHole: 0, speck: 0, piece: 1 },
  );
});

Deno.test("findTissue() takes the mask at 8 µm per pixel or the overview's, over the whole slide", () => {
  for (const [mpp, width] of [[0.25, 80], [0.5, 160], [2, 160]] as const) {
    const mask = findTissue(draw(160, 120, () => STROMA), mpp);
    assert.equal(mask.widthPx, width);
    assert.equal(mask.widthPx * mask.downsampleX, 160 * 16);
    assert.equal(mask.heightPx * mask.downsampleY, 120 * 16);
  }
});

Deno.test("tissueAreaMm2() takes each axis's scale", () => {
  const mask = {
    data: Uint8Array.of(1, 0, 1, 1, 0, 1),
    widthPx: 3,
    heightPx: 2,
    downsampleX: 100,
    downsampleY: 50,
    threshold: 0.1,
  };
  // 4 pixels of 100 · 0.5 µm by 50 · 0.25 µm.
  assert.ok(Math.abs(tissueAreaMm2(mask, 0.5, 0.25) - 4 * 50 * 12.5 / 1e6) < 1e-15);
});

Deno.test("tissueWithin() is the part of a square that is tissue, to fractions of the mask's pixels", () => {
  const mask: TissueMask = {
    data: Uint8Array.of(1, 0, 1, 1, 1, 0),
    widthPx: 3,
    heightPx: 2,
    downsampleX: 10,
    downsampleY: 20,
    threshold: 0,
  };
  assert.equal(tissueWithin(mask, 0, 0, 40), 4 * 200);
  assert.equal(tissueWithin(mask, 5, 5, 10), 5 * 10);
  assert.equal(tissueWithin(mask, 5, 15, 10), 5 * 5 + 10 * 5);
  assert.equal(tissueWithin(mask, 25, 0, 100), 5 * 20);
  assert.equal(tissueWithin(mask, 30, 0, 10), 0);
  // Squares side by side have all of it.
  let sum = 0;
  for (let y = 0; y < 40; y += 7) {
    for (let x = 0; x < 30; x += 7) sum += tissueWithin(mask, x, y, 7);
  }
  assert.ok(Math.abs(sum - 800) < 1e-9, `${sum}`);
  assert.deepEqual([isTissue(mask, 9.9, 19.9), isTissue(mask, 10, 0), isTissue(mask, 29, 39)], [
    true,
    false,
    false,
  ]);
});
