import assert from "node:assert/strict";
import { HAEMATOXYLIN_EOSIN } from "../../kernels/normalise.ts";
import {
  haloFor,
  NucleiNetwork,
  type NucleusPeak,
  RADII_UM,
  type Resample,
} from "../../src/classifier/nuclei_network.ts";
import { encodeSample } from "../../src/sample/sample.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Picture } from "../../src/slide/slide.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { normalise } from "../reference/normalise.ts";
import { peaks } from "../reference/peaks.ts";
import { uniform } from "../reference/random.ts";

const NO_RESAMPLING: Resample = { shiftX: 0, shiftY: 0, ratio: 1 };

/** Dark bluish discs of many sizes over a pink ground with grain, as an eosin field with nuclei. */
function discs(widthPx: number, heightPx: number, perPixel: number, seed: number): Picture {
  const random = uniform(seed);
  const data = new Uint8Array(widthPx * heightPx * 3);
  for (let i = 0; i < data.length; i += 3) {
    data.set([225, 180, 205].map((value) => value + 8 * random()), i);
  }
  for (let n = 0; n < widthPx * heightPx * perPixel; n++) {
    const [x0, y0] = [random() * widthPx, random() * heightPx];
    const [radius, depth] = [3 + 9 * random(), 0.3 + 0.6 * random()];
    for (let y = Math.max(0, Math.ceil(y0 - radius)); y < Math.min(heightPx, y0 + radius); y++) {
      for (let x = Math.max(0, Math.ceil(x0 - radius)); x < Math.min(widthPx, x0 + radius); x++) {
        if (Math.hypot(x - x0, y - y0) > radius) continue;
        const at = 3 * (y * widthPx + x);
        [110, 70, 145].forEach((dark, c) => data[at + c]! -= depth * (data[at + c]! - dark));
      }
    }
  }
  return { data, widthPx, heightPx };
}

function crop({ data, widthPx, heightPx }: Picture, x: number, y: number, side: number): Picture {
  const out = new Uint8Array(side * side * 3).fill(255);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const [sx, sy] = [x + column, y + row];
      if (sx < 0 || sy < 0 || sx >= widthPx || sy >= heightPx) continue;
      const from = 3 * (sy * widthPx + sx);
      out.set(data.subarray(from, from + 3), 3 * (row * side + column));
    }
  }
  return { data: out, widthPx: side, heightPx: side };
}

/**
 * The network's formula in f64: density of haematoxylin less nine tenths of the residual; smoothing
 * and halving by [1 3 3 1] / 8, or smoothing by [1 2 1] / 4; then, for each radius, −σ² · (∂²/∂x² +
 * ∂²/∂y²) of the Gaussian of σ = radius / √2, over the 2 / e that a disc of density 1 answers.
 * What the smoothing did is taken off σ. Outside the picture there is nothing.
 */
function responses(picture: Picture, resample: Resample, mpp: number, side: number) {
  const stain = normalise(
    picture.data,
    [picture.heightPx, picture.widthPx],
    [side, side],
    HAEMATOXYLIN_EOSIN,
    resample,
  );
  const density = (x: number, y: number) =>
    x < 0 || y < 0 || x >= side || y >= side
      ? 0
      : stain[4 * (y * side + x)]! - 0.9 * stain[4 * (y * side + x) + 2]!;
  const stride = mpp < 0.75 ? 2 : 1;
  const [binomial, variance] = stride === 2
    ? [[1 / 8, 3 / 8, 3 / 8, 1 / 8], 0.75]
    : [[1 / 4, 1 / 2, 1 / 4], 0.5];
  const size = side / stride;
  const small = Array.from({ length: size * size }, (_, i) => {
    const [x, y] = [i % size * stride - 1, Math.floor(i / size) * stride - 1];
    let sum = 0;
    binomial.forEach((a, j) => binomial.forEach((b, k) => sum += a * b * density(x + k, y + j)));
    return sum;
  });
  const pixelUm = mpp * stride;
  const sigmas = RADII_UM.map((radius) => radius / Math.SQRT2 / pixelUm);
  const left = sigmas.map((sigma) =>
    Math.sqrt(Math.max(0.25, sigma ** 2 - variance / stride ** 2))
  );
  const half = Math.ceil(3 * Math.max(...left));
  const xs = Array.from({ length: 2 * half + 1 }, (_, i) => i - half);
  const map = new Float64Array(size * size * 4);
  left.forEach((sigma, scale) => {
    const weights = xs.map((x) => Math.exp(-(x ** 2) / 2 / sigma ** 2));
    const total = weights.reduce((a, b) => a + b, 0);
    const gaussian = weights.map((weight) => weight / total);
    // The second derivative of a constant is 0 and that of x² is 2.
    const raw = xs.map((x, i) => (x ** 2 / sigma ** 4 - sigma ** -2) * gaussian[i]!);
    const bias = raw.reduce((a, b) => a + b, 0);
    const unbiased = raw.map((value, i) => value - bias * gaussian[i]!);
    const moment = unbiased.reduce((sum, value, i) => sum + value * xs[i]! ** 2, 0);
    const second = unbiased.map((value) => 2 * value / moment);
    const gain = -(sigmas[scale]! ** 2) / (2 / Math.E);
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        let sum = 0;
        for (let j = -half; j <= half; j++) {
          if (y + j < 0 || y + j >= size) continue;
          for (let k = -half; k <= half; k++) {
            if (x + k < 0 || x + k >= size) continue;
            const weight = gaussian[j + half]! * second[k + half]! +
              second[j + half]! * gaussian[k + half]!;
            sum += weight * small[(y + j) * size + x + k]!;
          }
        }
        map[4 * (y * size + x) + scale] = gain * sum;
      }
    }
  });
  return { map, size, stride };
}

/** Where a peak of the map lies between pixels: the vertex of a parabola. */
function vertex(before: number, at: number, after: number): number {
  const curvature = before - 2 * at + after;
  return curvature === 0 ? 0 : Math.min(0.5, Math.max(-0.5, (before - after) / 2 / curvature));
}

const byPlace = (a: NucleusPeak, b: NucleusPeak) => a.y - b.y || a.x - b.x;

function assertSame(
  actual: readonly NucleusPeak[],
  expected: readonly NucleusPeak[],
  tolerance: number,
  name: string,
): void {
  assert.equal(actual.length, expected.length, `${name}: how many`);
  const left = new Set(actual);
  for (const peak of expected) {
    const same = [...left].find((other) =>
      Math.hypot(other.x - peak.x, other.y - peak.y) <= tolerance &&
      Math.abs(other.response - peak.response) <= 1e-4 && other.radiusUm === peak.radiusUm
    );
    assert.ok(same !== undefined, `${name}: nothing like ${JSON.stringify(peak)}`);
    left.delete(same);
  }
}

Deno.test("NucleiNetwork.find() finds what its formula says, in f64", async () => {
  const gpu = await sharedGpu();
  for (
    const [mpp, corePx, resample] of [
      [0.5, 64, NO_RESAMPLING],
      [0.5, 64, { shiftX: 0.25, shiftY: 0.75, ratio: 1.5 }],
      [0.37, 64, NO_RESAMPLING],
      [1, 40, NO_RESAMPLING],
      [2.3, 22, NO_RESAMPLING],
    ] as const
  ) {
    const haloPx = haloFor(mpp);
    const side = corePx + 2 * haloPx;
    const read = Math.ceil(side * resample.ratio) + 1;
    const picture = discs(read, read, 0.004, corePx);
    const network = await NucleiNetwork.create(gpu, mpp, { corePx, haloPx });
    const threshold = 0.02;
    const found = await network.find(picture, resample, threshold);
    network.destroy();
    const { map, size, stride } = responses(picture, resample, mpp, side);
    const at = haloPx / stride, core = corePx / stride;
    const best = (x: number, y: number) =>
      Math.max(...map.subarray(4 * (y * size + x), 4 * (y * size + x) + 4));
    const expected = peaks(
      map,
      [size, size],
      { x: at, y: at, width: core, height: core },
      threshold,
      2,
    ).map(({ x, y, score, channel }): NucleusPeak => ({
      x: (x + vertex(best(x - 1, y), score, best(x + 1, y)) - at + 0.5) * stride,
      y: (y + vertex(best(x, y - 1), score, best(x, y + 1)) - at + 0.5) * stride,
      response: score,
      radiusUm: RADII_UM[channel]!,
    }));
    assert.ok(expected.length >= 4, `${mpp} µm/px: ${expected.length} peaks`);
    // A vertex divides differences of f32 responses.
    assertSame(found, expected, 0.02, `${mpp} µm/px`);
  }
});

Deno.test("NucleiNetwork.find() answers a disc of density 1 with 1, at its centre and radius", async () => {
  const gpu = await sharedGpu();
  const mpp = 0.5;
  const haloPx = haloFor(mpp), corePx = 64, side = corePx + 2 * haloPx;
  const network = await NucleiNetwork.create(gpu, mpp, { corePx, haloPx });
  // Pure haematoxylin of density 1, on white: 256 · 10^−(its share in each channel) − 1.
  const share = [0.650, 0.704, 0.286].map((v) => v / Math.hypot(0.650, 0.704, 0.286));
  const stain = share.map((v) => Math.round(256 * 10 ** -v - 1));
  for (const radiusUm of RADII_UM) {
    const data = new Uint8Array(side * side * 3).fill(255);
    const [x0, y0] = [haloPx + 31.3, haloPx + 30.6];
    for (let i = 0; i < side * side; i++) {
      const [x, y] = [i % side + 0.5, Math.floor(i / side) + 0.5];
      if (Math.hypot(x - x0, y - y0) < radiusUm / mpp) data.set(stain, 3 * i);
    }
    const peaks = await network.find({ data, widthPx: side, heightPx: side }, NO_RESAMPLING, 0.3);
    assert.equal(peaks.length, 1);
    const [{ x, y, response, radiusUm: radius }] = peaks as [NucleusPeak];
    assert.equal(radius, radiusUm);
    assert.ok(Math.hypot(x - 31.3, y - 30.6) < 0.3, `(${x}, ${y})`);
    // The smallest is five map pixels wide.
    assert.ok(Math.abs(response - 1) < 0.1, `${response}`);
  }
  network.destroy();
});

Deno.test("NucleiNetwork.find() finds the same, however a slide is cut", async () => {
  const side = 320;
  const gpu = await sharedGpu();
  const { svs } = encodeSample({ seed: 3, widthPx: 800, heightPx: 600 });
  const slide = await openSlide(new MemorySource(svs));
  const region = { level: 0, x0Px: 240, y0Px: 140, widthPx: side, heightPx: side };
  const sample = await slide.readRegion(region);
  await slide.close();
  for (
    const [name, picture, mpp] of [
      ["sample", sample, 0.5],
      ["discs", discs(side, side, 0.005, 8), 0.9],
    ] as const
  ) {
    const haloPx = haloFor(mpp);
    const cut = async (corePx: number) => {
      const network = await NucleiNetwork.create(gpu, mpp, { corePx, haloPx });
      const peaks: NucleusPeak[] = [];
      for (let y = 0; y < side; y += corePx) {
        for (let x = 0; x < side; x += corePx) {
          const read = crop(picture, x - haloPx, y - haloPx, corePx + 2 * haloPx);
          for (const peak of await network.find(read, NO_RESAMPLING, 0.1)) {
            peaks.push({ ...peak, x: x + peak.x, y: y + peak.y });
          }
        }
      }
      network.destroy();
      return peaks.sort(byPlace);
    };
    const whole = await cut(side);
    assert.ok(whole.length > 30, `${name}: ${whole.length}`);
    // At the slide's edges too: the halo there is glass, as it is in the large core's.
    for (const corePx of [64, 128, 192]) {
      const parts = (await cut(corePx)).filter(({ x, y }) => x < side && y < side);
      assertSame(parts, whole, 1e-3, `${name}, ${mpp} µm/px, cores of ${corePx} px`);
    }
  }
});

Deno.test("NucleiNetwork.find() may be called again before it answers", async () => {
  const gpu = await sharedGpu();
  const haloPx = haloFor(0.5), side = 64 + 2 * haloPx;
  const network = await NucleiNetwork.create(gpu, 0.5, { corePx: 64, haloPx });
  const pictures = [1, 2, 3, 4].map((seed) => discs(side, side, 0.004, seed));
  const find = (picture: Picture) => network.find(picture, NO_RESAMPLING, 0.05);
  const together = await Promise.all(pictures.map(find));
  for (const [i, picture] of pictures.entries()) {
    const alone = await find(picture);
    assert.ok(alone.length > 0);
    assert.deepEqual(together[i]!.sort(byPlace), alone.sort(byPlace));
  }
  network.destroy();
});
