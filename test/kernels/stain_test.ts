import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { StainError } from "../../kernels/errors.ts";
import { Batch } from "../../kernels/kernel.ts";
import { compileNormalise, type Normalisation, recordNormalise } from "../../kernels/normalise.ts";
import {
  estimateMacenko,
  estimateReinhard,
  MACENKO_TARGET,
  type MacenkoStains,
  REINHARD_TARGET,
  StainAccumulator,
  type StainEstimate,
  stainNormalisation,
  TISSUE_LEVELS,
} from "../../kernels/stain.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { dataPath } from "../data.ts";
import { labOf } from "../reference/normalise.ts";
import { bytes, uniform } from "../reference/random.ts";
import { macenko, macenkoNormalise } from "../reference/stain.ts";
import { sharedGpu } from "./gpu.ts";

interface Rgb {
  readonly data: Uint8Array<ArrayBuffer>;
  readonly width: number;
  readonly height: number;
}

/** The tile at (x, y) of a picture, as u8 [height, width, samples]; alpha is 0. */
function cut({ data, width }: Rgb, x: number, y: number, w: number, h: number, samples = 3) {
  const out = new Uint8Array(w * h * samples);
  for (let row = 0; row < h; row++) {
    for (let column = 0; column < w; column++) {
      const from = 3 * ((y + row) * width + x + column);
      out.set(data.subarray(from, from + 3), samples * (row * w + column));
    }
  }
  return out;
}

/** Counts of a picture cut into tiles of that size, each in a batch of its own. */
async function count(picture: Rgb, tileWidth: number, tileHeight: number, samples = 3) {
  const gpu = await sharedGpu();
  const accumulator = await StainAccumulator.create(gpu);
  try {
    const tiles: [x: number, y: number][] = [];
    for (let y = 0; y < picture.height; y += tileHeight) {
      for (let x = 0; x < picture.width; x += tileWidth) tiles.push([x, y]);
    }
    for (const [x, y] of samples === 4 ? tiles.reverse() : tiles) {
      const w = Math.min(tileWidth, picture.width - x);
      const h = Math.min(tileHeight, picture.height - y);
      const batch = new Batch(gpu);
      const tile = Tensor.from(gpu, cut(picture, x, y, w, h, samples), [h, w, samples]);
      accumulator.record(batch, tile);
      batch.submit();
    }
    return await accumulator.read();
  } finally {
    accumulator.destroy();
  }
}

/** Amounts of two stains in each pixel, as light: 240 · exp(−density) − 1, rounded. */
function painted(
  stains: readonly (readonly number[])[],
  side: number,
  amounts: (i: number) => readonly number[],
): Rgb {
  const data = new Uint8Array(side * side * 3);
  for (let i = 0; i < side * side; i++) {
    const of = amounts(i);
    for (let c = 0; c < 3; c++) {
      const density = stains.reduce((sum, stain, s) => sum + stain[c]! * of[s]!, 0);
      data[3 * i + c] = Math.round(Math.min(255, Math.max(0, 240 * Math.exp(-density) - 1)));
    }
  }
  return { data, width: side, height: side };
}

const H = MACENKO_TARGET.haematoxylin, E = MACENKO_TARGET.eosin;

/** Mostly both stains, sometimes one alone, sometimes glass. */
function tissue(side: number, seed: number): Rgb {
  const next = uniform(seed);
  return painted([H, E], side, () => {
    const kind = next();
    if (kind < 0.2) return [0, 0];
    const amount = 0.5 + 1.5 * next();
    if (kind < 0.3) return [amount, 0];
    if (kind < 0.4) return [0, amount];
    const share = next();
    return [amount * share, amount * (1 - share)];
  });
}

function degrees(a: readonly number[], b: readonly number[]): number {
  const cross = Math.hypot(
    a[1]! * b[2]! - a[2]! * b[1]!,
    a[2]! * b[0]! - a[0]! * b[2]!,
    a[0]! * b[1]! - a[1]! * b[0]!,
  );
  return Math.atan2(cross, a[0]! * b[0]! + a[1]! * b[1]! + a[2]! * b[2]!) * 180 / Math.PI;
}

Deno.test("StainAccumulator counts every colour of tissue, whatever a batch's number of pixels", async () => {
  for (const [height, width] of [[1, 1], [1, 3], [5, 7], [16, 16], [3, 257], [64, 64]] as const) {
    for (const samples of [3, 4] as const) {
      // Few values, on either side of glass, so that runs happen.
      const data = bytes(height * width * 3, width).map((v) => [0, 9, 205, 206][v & 3]!);
      const picture = { data, width, height };
      const { counts } = await count(picture, width, height, samples);
      const expected = new Map<number, number>();
      let total = 0;
      for (let i = 0; i < data.length; i += 3) {
        const [r, g, b] = [data[i]!, data[i + 1]!, data[i + 2]!];
        if (Math.max(r, g, b) > 205) continue;
        const at = (r * 206 + g) * 206 + b;
        expected.set(at, (expected.get(at) ?? 0) + 1);
        total++;
      }
      for (const [at, times] of expected) assert.equal(counts[at], times, `${width}, ${samples}`);
      assert.equal(counts.reduce((sum, v) => sum + v, 0), total);
    }
  }
  assert.equal(TISSUE_LEVELS, 206);
});

Deno.test("a slide's stains have the same bits however it is cut", async () => {
  const picture = tissue(150, 3);
  const whole = await count(picture, 150, 150);
  for (const [w, h, samples] of [[64, 64, 3], [150, 1, 3], [7, 150, 4], [37, 53, 4]] as const) {
    const cutUp = await count(picture, w, h, samples);
    assert.deepEqual(cutUp.counts, whole.counts, `${w} × ${h}`);
    assert.deepEqual(estimateMacenko(cutUp), estimateMacenko(whole));
    assert.deepEqual(estimateReinhard(cutUp), estimateReinhard(whole));
  }
});

Deno.test("estimateMacenko() finds the stains that a picture was painted with", async () => {
  const { haematoxylin, eosin, concentrations } = estimateMacenko(
    await count(tissue(256, 1), 256, 256),
  );
  // A tenth of the tissue is one stain alone, so that the outlying hundredth is it; rounding to a
  // byte moves a density of 0.5 by up to 0.01, which is a degree.
  assert.ok(degrees(haematoxylin, H) < 1.5, `${degrees(haematoxylin, H)}°`);
  assert.ok(degrees(eosin, E) < 1.5, `${degrees(eosin, E)}°`);
  for (const amount of concentrations) assert.ok(amount > 1.5 && amount < 2.1, `${amount}`);
});

/** Every H&E tile of the data, as RGB. */
async function heTiles(): Promise<{ name: string; picture: Rgb }[]> {
  const folder = dataPath("he");
  if (folder === undefined) return [];
  const names = [
    "stardist-histo.jpg",
    ...["HE", "patch1", "patch2"].map((name) => `cellseg/${name}.png`),
    ...readdirSync(join(folder, "dsb2018")).filter((name) => /^\w+\.png$/.test(name))
      .map((name) => `dsb2018/${name}`),
  ];
  return await Promise.all(names.map(async (name) => {
    const { data, info } = await sharp(join(folder, name)).removeAlpha().toColourspace("srgb")
      .raw().toBuffer({ resolveWithObject: true });
    assert.equal(info.channels, 3);
    return {
      name,
      picture: { data: Uint8Array.from(data), width: info.width, height: info.height },
    };
  }));
}

/** A picture through the normalise pass, in light 0 to 255: [height, width, 4]. */
async function normalised(
  { data, width, height }: Rgb,
  source: StainEstimate,
  target: StainEstimate,
) {
  const gpu = await sharedGpu();
  const normalisation: Normalisation = {
    of: "intensity",
    mix: [[255, 0, 0], [0, 255, 0], [0, 0, 255]],
    offset: [0, 0, 0],
    stain: stainNormalisation(source, target),
  };
  const out = new Tensor(gpu, "f32", [1, height, width, 4]);
  const batch = new Batch(gpu);
  const pipelines = await compileNormalise(gpu, normalisation);
  const pixels = Tensor.from(gpu, data, [1, height, width, 3]);
  recordNormalise(batch, pipelines, pixels, out, normalisation);
  batch.submit();
  const values = await out.readFloats();
  out.destroy();
  return { values, mix: normalisation.stain!.mix };
}

Deno.test("Macenko's method on H&E tiles is its f64 twin's, stains and pixels", async () => {
  for (const { name, picture } of await heTiles()) {
    const expected = macenko(picture.data);
    const stains = estimateMacenko(await count(picture, 256, 100));
    // The same pixels in f64 on both sides: what differs is the order of sums, 1e-16 of them a
    // pixel, and how the axes are found; a hundredth of a second of arc is far below either's use.
    assert.ok(degrees(stains.haematoxylin, expected.stains[0]) < 3e-6, name);
    assert.ok(degrees(stains.eosin, expected.stains[1]) < 3e-6, name);
    for (const s of [0, 1] as const) {
      const [a, b] = [stains.concentrations[s], expected.concentrations[s]];
      assert.ok(Math.abs(a - b) < 1e-7 * b, `${name}: ${a} and ${b}`);
    }
    const target = {
      stains: [MACENKO_TARGET.haematoxylin, MACENKO_TARGET.eosin],
      concentrations: MACENKO_TARGET.concentrations,
    } as const;
    const light = macenkoNormalise(picture.data, expected, target);
    const { values, mix } = await normalised(picture, stains, MACENKO_TARGET);
    // WGSL §15.7.4: log2 is off by 3 ulp of up to 8 (1.5e-6), each product and sum by half of one;
    // a row of the mix multiplies that by its magnitudes' sum, exp2 adds (3 + 2 · 8) ulp, 1.2e-6. The
    // exponent's error times ln 2 is the light's, of at most 255.
    const gain = Math.max(...mix.map((row) => row.reduce((sum, v) => sum + Math.abs(v), 0)));
    const bound = 255 * (Math.LN2 * gain * (1.5e-6 + 6 * 8 * 2 ** -24) + 1.2e-6);
    let worst = 0;
    for (let i = 0; i < light.length; i++) {
      worst = Math.max(worst, Math.abs(values[4 * Math.floor(i / 3) + i % 3]! - light[i]!));
    }
    assert.ok(worst <= bound, `${name}: off by ${worst} of 255, ${bound} is allowed`);
  }
});

Deno.test("Reinhard's method gives tissue the target's mean and deviation in CIELAB", async () => {
  const pictures = [{ name: "painted", picture: tissue(128, 5) }, ...await heTiles()];
  for (const { name, picture } of pictures) {
    const colours = estimateReinhard(await count(picture, 64, 64));
    const isTissue = (i: number) => picture.data.subarray(3 * i, 3 * i + 3).every((v) => v < 206);
    const inside = Array.from({ length: picture.width * picture.height }, (_, i) => i).filter(
      isTissue,
    );
    const moments = (labs: readonly (readonly number[])[]) =>
      [0, 1, 2].map((c) => {
        const mean = labs.reduce((sum, lab) => sum + lab[c]!, 0) / labs.length;
        const variance = labs.reduce((sum, lab) => sum + (lab[c]! - mean) ** 2, 0) / labs.length;
        return { mean, std: Math.sqrt(variance) };
      });
    moments(inside.map((i) => labOf([...picture.data.subarray(3 * i, 3 * i + 3)])))
      .forEach(({ mean, std }, c) => {
        // Sums of 1e5 terms in f64, in another order.
        assert.ok(Math.abs(mean - colours.mean[c]!) < 1e-9, name);
        assert.ok(Math.abs(std - colours.std[c]!) < 1e-9, name);
      });
    // A target close to the middle of the gamut, so that nothing is clipped.
    const target = { kind: "reinhard", mean: [55, 10, -5], std: [4, 2, 1.5] } as const;
    const { values } = await normalised(picture, colours, target);
    moments(inside.map((i) => labOf([...values.subarray(4 * i, 4 * i + 3)])))
      .forEach(({ mean, std }, c) => {
        // Light is off by at most 1e-4 of 255, as normalise_test.ts says, and a step of light is
        // at most 1 of L*, a* or b* at these colours.
        assert.ok(Math.abs(mean - target.mean[c]!) < 0.03, `${name}: mean ${mean} of ${c}`);
        assert.ok(Math.abs(std - target.std[c]!) < 0.03, `${name}: deviation ${std} of ${c}`);
      });
    const { values: usual } = await normalised(picture, colours, REINHARD_TARGET);
    assert.ok(usual.every((v) => v >= 0 && v <= 255), name);
  }
});

Deno.test("stainNormalisation() from a slide to itself leaves what the stains explain", async () => {
  const picture = painted([H, E], 64, (i) => [0.2 + i % 64 / 40, 0.2 + (i >> 6) / 50]);
  const stains: MacenkoStains = { ...MACENKO_TARGET, concentrations: [1, 1] };
  const { values } = await normalised(picture, stains, stains);
  for (let i = 0; i < 64 * 64; i++) {
    for (let c = 0; c < 3; c++) {
      // v + 1 of 240 comes back as 240 · e^(−density), which is v + 1; rounding to bytes leaves up
      // to half a value off the stains' plane.
      assert.ok(Math.abs(values[4 * i + c]! - picture.data[3 * i + c]! - 1) < 1, `${i}`);
    }
  }
  const colours = { kind: "reinhard", mean: [50, 3, 4], std: [7, 8, 9] } as const;
  const { mix, offset } = stainNormalisation(colours, colours);
  assert.deepEqual([...mix, offset], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]);
});

Deno.test("an estimate of too little tissue or of one stain is a StainError that says so", async () => {
  const reason = (of: StainError["reason"]) => (error: Error) =>
    error instanceof StainError && error.reason === of;
  const white = { data: new Uint8Array(128 * 128 * 3).fill(255), width: 128, height: 128 };
  const glass = await count(white, 128, 128);
  assert.throws(() => estimateMacenko(glass), reason("too-little-tissue"));
  assert.throws(() => estimateReinhard(glass), reason("too-little-tissue"));
  const few = await count(tissue(64, 1), 64, 64);
  assert.throws(() => estimateMacenko(few), reason("too-little-tissue"));
  const grey = await count({ ...white, data: white.data.map(() => 100) }, 128, 128);
  assert.throws(() => estimateMacenko(grey), reason("one-stain"));
  assert.throws(() => estimateReinhard(grey), reason("one-stain"));
  const black = await count({ ...white, data: white.data.map(() => 0) }, 128, 128);
  assert.throws(() => estimateMacenko(black), reason("one-stain"));
  const next = uniform(2);
  const oneStain = await count(painted([H], 128, () => [0.7 + 1.3 * next()]), 128, 128);
  assert.throws(() => estimateMacenko(oneStain), reason("one-stain"));
});

Deno.test("StainAccumulator and stainNormalisation() refuse what makes no sense", async () => {
  const gpu = await sharedGpu();
  const accumulator = await StainAccumulator.create(gpu);
  const batch = new Batch(gpu);
  const record = (pixels: Tensor) => accumulator.record(batch, pixels);
  assert.throws(() => record(new Tensor(gpu, "u8", [4, 4, 2])), RangeError);
  assert.throws(() => record(new Tensor(gpu, "f32", [4, 4, 3])), RangeError);
  record(new Tensor(gpu, "u8", [0, 4, 3]));
  const tile = new Tensor(gpu, "u8", [4096, 4096, 3]);
  const lists = { gpu, dispatch() {} };
  for (let i = 0; i < 255; i++) accumulator.record(lists, tile);
  assert.throws(() => accumulator.record(lists, tile), /4294967296 pixels/);
  tile.destroy();
  accumulator.destroy();
  const same: MacenkoStains = { ...MACENKO_TARGET, eosin: MACENKO_TARGET.haematoxylin };
  assert.throws(() => stainNormalisation(same, MACENKO_TARGET), RangeError);
});
