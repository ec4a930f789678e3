import assert from "node:assert/strict";
import { HAEMATOXYLIN_EOSIN } from "../../kernels/normalise.ts";
import { classifyNuclei } from "../../src/classifier/nuclei.ts";
import { haloFor, nucleiModel, RADII_UM } from "../../src/classifier/nuclei_model.ts";
import { classifyWithModel } from "../../src/classifier/onnx.ts";
import { fitModel } from "../../src/classifier/onnx_model.ts";
import { parseSidecar } from "../../src/classifier/sidecar.ts";
import { readModel } from "../../src/model/onnx.ts";
import { loadModel } from "../../src/model/session.ts";
import { Detections } from "../../src/pipeline/detect.ts";
import { overviewOf } from "../../src/pipeline/overview.ts";
import { findTissue, isTissue } from "../../src/pipeline/tissue.ts";
import type { Results, ScoredPoint } from "../../src/results/schema.ts";
import { encodeSample } from "../../src/sample/sample.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Picture } from "../../src/slide/slide.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { normalise } from "../reference/normalise.ts";
import { peaks } from "../reference/peaks.ts";
import { uniform } from "../reference/random.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";

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

/**
 * The model's formula in f64: density of haematoxylin less nine tenths of the residual; smoothing
 * and halving by [1 3 3 1] / 8, or smoothing by [1 2 1] / 4; then, for each radius, −σ² · (∂²/∂x² +
 * ∂²/∂y²) of the Gaussian of σ = radius / √2, over the 2 / e that a disc of density 1 answers.
 * What the smoothing did is taken off σ. Outside the picture there is nothing.
 */
function responses({ data, widthPx: side }: Picture, mpp: number) {
  const stain = normalise(data, [side, side], [side, side], HAEMATOXYLIN_EOSIN, {
    shiftX: 0,
    shiftY: 0,
    ratio: 1,
  });
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

/** The model's response [4, h, w] to a square picture. */
async function respond(picture: Picture, mpp: number, corePx: number) {
  const side = picture.widthPx;
  const image = new Float32Array(3 * side * side);
  for (let i = 0; i < image.length; i++) {
    image[i % 3 * side * side + Math.floor(i / 3)] = (picture.data[i]! + 1) / 256;
  }
  const { bytes, sidecar } = nucleiModel(mpp, corePx);
  assert.equal(sidecar.input.tile, side);
  const session = await loadModel(await sharedGpu(), bytes);
  const { response } = await session.run({
    image: { type: "float32", shape: [1, 3, side, side], data: image },
  });
  await session.destroy();
  return response!.data as Float32Array;
}

Deno.test("nucleiModel() responds as its formula says, in f64", async () => {
  for (const [mpp, corePx] of [[0.5, 64], [0.37, 64], [1, 40], [2.3, 22]] as const) {
    const side = corePx + 2 * haloFor(mpp);
    const picture = discs(side, side, 0.004, corePx);
    const response = await respond(picture, mpp, corePx);
    const { map, size } = responses(picture, mpp);
    let worst = 0;
    for (let scale = 0; scale < 4; scale++) {
      for (let i = 0; i < size * size; i++) {
        worst = Math.max(worst, Math.abs(response[scale * size * size + i]! - map[4 * i + scale]!));
      }
    }
    // Densities to 2.4, of which the Laplacian's gain makes tens, in sums of f32.
    assert.ok(worst < 2e-5, `${mpp} µm/px: ${worst}`);
  }
});

Deno.test("nucleiModel() answers a disc of density 1 with 1, at its centre and radius", async () => {
  const mpp = 0.5, corePx = 64, halo = haloFor(mpp), side = corePx + 2 * halo;
  // Pure haematoxylin of density 1, on white: 256 · 10^−(its share in each channel) − 1.
  const share = [0.650, 0.704, 0.286].map((v) => v / Math.hypot(0.650, 0.704, 0.286));
  const stain = share.map((v) => Math.round(256 * 10 ** -v - 1));
  for (const [scale, radiusUm] of RADII_UM.entries()) {
    const data = new Uint8Array(side * side * 3).fill(255);
    const [x0, y0] = [halo + 31, halo + 31];
    for (let i = 0; i < side * side; i++) {
      const [x, y] = [i % side + 0.5, Math.floor(i / side) + 0.5];
      if (Math.hypot(x - x0, y - y0) < radiusUm / mpp) data.set(stain, 3 * i);
    }
    const response = await respond({ data, widthPx: side, heightPx: side }, mpp, corePx);
    const best = response.reduce((a, v, i) => v > response[a]! ? i : a, 0);
    const size = side / 2;
    assert.equal(Math.floor(best / size ** 2), scale);
    const [x, y] = [(best % size + 0.5) * 2, (Math.floor(best / size) % size + 0.5) * 2];
    assert.ok(Math.hypot(x - x0, y - y0) < 1.5, `(${x}, ${y})`);
    // The smallest is five map pixels wide.
    assert.ok(Math.abs(response[best]! - 1) < 0.1, `${response[best]}`);
  }
});

/** Where a peak of the map lies between pixels: the vertex of a parabola. */
function vertex(before: number, at: number, after: number): number {
  const curvature = before - 2 * at + after;
  return curvature === 0 ? 0 : Math.min(0.5, Math.max(-0.5, (before - after) / 2 / curvature));
}

function pointsOf({ scanResults }: Results): readonly ScoredPoint[] {
  const report = scanResults[0]!.workflow!.report;
  assert.equal(report.type, "WholeSlideDifferential");
  return report.type === "WholeSlideDifferential" ? report.points : [];
}

/** How many of `expected` have one of `actual` within a pixel, of nearly the same score. */
function shared(actual: readonly ScoredPoint[], expected: readonly ScoredPoint[]): number {
  return expected.filter((a) =>
    actual.some((b) => Math.hypot(a.x - b.x, a.y - b.y) <= 1 && Math.abs(a.score - b.score) <= 2e-3)
  ).length;
}

Deno.test("classifyNuclei() finds what the whole chain in f64 finds", async () => {
  const side = 320, mpp = 0.5, halo = haloFor(mpp);
  const picture = discs(side, side, 0.004, 6);
  const slide = pictureSlide(picture, mpp);
  const context = testContext(await sharedGpu());
  const found = pointsOf(await classifyNuclei(slide, context));
  // Beyond the slide there is glass.
  const around = side + 2 * halo;
  const data = new Uint8Array(around * around * 3).fill(255);
  for (let y = 0; y < side; y++) {
    data.set(
      picture.data.subarray(3 * y * side, 3 * (y + 1) * side),
      3 * ((y + halo) * around + halo),
    );
  }
  const { map, size, stride } = responses({ data, widthPx: around, heightPx: around }, mpp);
  const best = (x: number, y: number) =>
    Math.max(...map.subarray(4 * (y * size + x), 4 * (y * size + x) + 4));
  const mask = findTissue(await overviewOf(slide), mpp);
  const candidates = peaks(
    map,
    [size, size],
    { x: halo / stride, y: halo / stride, width: side / stride, height: side / stride },
    0.1,
    2,
  ).map(({ x, y, score, channel }) => ({
    x: (x + vertex(best(x - 1, y), score, best(x + 1, y)) + 0.5) * stride - halo,
    y: (y + vertex(best(x, y - 1), score, best(x, y + 1)) + 0.5) * stride - halo,
    score,
    radius: RADII_UM[channel]! / mpp,
  })).filter(({ x, y }) => isTissue(mask, x, y));
  const scores = new Detections();
  for (const { x, y, radius, score } of candidates) scores.add(x, y, radius, score);
  const threshold = Math.max(0.1, 0.2 * Math.min(1, scores.scoreQuantile(0.9)));
  const kept: typeof candidates = [];
  for (const one of candidates.toSorted((a, b) => b.score - a.score)) {
    if (one.score < threshold) continue;
    if (kept.some((k) => Math.hypot(k.x - one.x, k.y - one.y) < 0.8 * k.radius)) continue;
    kept.push(one);
  }
  const expected = kept.map(({ x, y, score }) => ({
    x: Math.round(x),
    y: Math.round(y),
    score: Math.min(1, score),
    type: "nucleus",
  }));
  assert.ok(expected.length > 100, `${expected.length}`);
  // One in a hundred may be so near to a threshold that f32 decides otherwise.
  const most = Math.ceil(expected.length / 100);
  assert.ok(expected.length - shared(found, expected) <= most, "missing");
  assert.ok(found.length - shared(expected, found) <= most, "too many");
});

Deno.test("nucleiModel() finds the same, however a slide is cut", async () => {
  const context = testContext(await sharedGpu());
  const { svs } = encodeSample({ seed: 3, widthPx: 800, heightPx: 600 });
  const slide = await openSlide(new MemorySource(svs));
  const cut = async (corePx: number) => {
    const { bytes, sidecar } = nucleiModel(0.5, corePx);
    return pointsOf(
      await classifyWithModel(slide, context, fitModel(await readModel(bytes), sidecar)),
    );
  };
  const whole = await cut(832);
  assert.ok(whole.length > 100, `${whole.length}`);
  // At the slide's edges too: the halo there is glass, as it is in the large core's.
  for (const corePx of [128, 192, 320]) {
    const parts = await cut(corePx);
    assert.equal(parts.length, whole.length, `cores of ${corePx} px`);
    assert.equal(shared(parts, whole), whole.length, `cores of ${corePx} px`);
  }
  await slide.close();
});

Deno.test("nucleiModel() gives a sidecar that a file may hold", () => {
  const { sidecar } = nucleiModel(0.5, 1024);
  assert.deepEqual(parseSidecar(JSON.stringify(sidecar), "model.json"), sidecar);
});
