import assert from "node:assert/strict";
import { meanStd } from "../../kernels/normalise.ts";
import { normalisationOf, runModel } from "../../src/classifier/onnx_tiles.ts";
import { fuse } from "../../src/model/fuse.ts";
import { numbersOf } from "../../src/model/host_tensor.ts";
import { type Precision, Session } from "../../src/model/session.ts";
import { ModelWriter } from "../../src/model/writer.ts";
import { cutGrid, type ModelTile } from "../../src/pipeline/grid.ts";
import { reducePicture } from "../../src/slide/area_filter.ts";
import type { Picture, Slide } from "../../src/slide/slide.ts";
import { sharedGpu } from "../kernels/gpu.ts";
import { uniform } from "../reference/random.ts";
import { pictureSlide } from "../slide/picture_slide.ts";
import { testContext } from "./context.ts";
import { fitted, paint, written } from "./models.ts";

/** Gives its input, always as [batch, 3, tile, tile]. */
function copying(tile: number, layout: "NCHW" | "NHWC", batch: number | string = "batch") {
  const model = new ModelWriter("copy", 17);
  const shape = layout === "NCHW" ? [batch, 3, tile, tile] : [batch, tile, tile, 3];
  const image = model.input("image", "float32", shape);
  model.node("Transpose", [image], {
    perm: layout === "NCHW" ? [0, 1, 2, 3] : [0, 3, 1, 2],
  }, "copy");
  model.output("copy", "float32", [batch, 3, tile, tile]);
  return model.bytes();
}

const random = uniform(4);
/** Noise over a gradient: every pixel is another. */
const picture = paint(
  230,
  170,
  (x, y) =>
    [x, y, 255 - x].map((v) => Math.floor(v * 0.7 + 70 * random())) as [
      number,
      number,
      number,
    ],
);

const THREE = [{ name: "a" }, { name: "b" }, { name: "c" }];

interface Options {
  readonly slide?: Slide;
  readonly input: Record<string, unknown> & { tile: number; overlap?: number };
  readonly bytes?: Uint8Array<ArrayBuffer>;
  readonly precision?: Precision;
  readonly isTissue?: (x: number, y: number) => boolean;
}

/** Every tile with what the model gave for it, and what the session said. */
async function outputsOf({ slide, input, bytes, precision = "f32", isTissue }: Options) {
  const gpu = await sharedGpu();
  const layout = input.layout === "NHWC" ? "NHWC" : "NCHW";
  const of = slide ?? pictureSlide(picture, 0.5);
  const model = await fitted(bytes ?? copying(input.tile, layout), {
    input: { mpp: 0.5, ...input },
    // What an output means is no matter here: it only has to fit.
    output: { kind: bytes === undefined ? "heatmap" : "classes" },
    classes: THREE,
  });
  const context = testContext(gpu);
  const said: string[] = [];
  const session = new Session(gpu, fuse(model.graph), {
    precision,
    onPrecision: (message) => said.push(message),
  });
  const { widthPx, heightPx } = of.levels[0]!;
  const side = 10;
  const mask = {
    widthPx: Math.ceil(widthPx / side),
    heightPx: Math.ceil(heightPx / side),
    downsampleX: side,
    downsampleY: side,
    threshold: 0,
    data: new Uint8Array(Math.ceil(widthPx / side) * Math.ceil(heightPx / side)),
  };
  mask.data.forEach((_, i) => {
    const [x, y] = [i % mask.widthPx * side, Math.floor(i / mask.widthPx) * side];
    mask.data[i] = isTissue?.(x, y) === false ? 0 : 1;
  });
  const { sidecar } = model;
  const grid = cutGrid(of, mask, {
    mpp: sidecar.input.mpp,
    corePx: sidecar.input.tile - sidecar.input.overlap,
    leastTissue: sidecar.input.tissue,
    snap: true,
  });
  const found: { tile: ModelTile; values: Float32Array }[] = [];
  await runModel<Float32Array>({
    slide: of,
    context,
    session,
    model,
    sidecar,
    normalisation: normalisationOf(sidecar.input),
    grid,
    geometry: { tilePx: sidecar.input.tile, marginPx: sidecar.input.overlap / 2 },
    mask,
    keep() {},
  }, {
    async read(plan, started) {
      const { [model.output]: result } = await plan.read(started);
      return Float32Array.from(numbersOf(result!));
    },
    collect(values, tiles) {
      const each = bytes === undefined ? 3 * input.tile ** 2 : 3;
      tiles.forEach((tile, i) =>
        found.push({ tile, values: values.subarray(i * each, (i + 1) * each) })
      );
    },
  });
  const float = session.float;
  await session.destroy();
  assert.deepEqual(
    found.map(({ tile }) => `${tile.x} ${tile.y}`).sort(),
    grid.tiles.map(({ x, y }) => `${x} ${y}`).sort(),
  );
  const total = grid.tiles.length;
  if (total > 0) assert.deepEqual(context.shown.at(-1), [total, total, "tiles"]);
  return { found, grid, said, float };
}

/** A pixel of a picture, white beyond it. */
const pixelOf = ({ data, widthPx, heightPx }: Picture, x: number, y: number, c: number) =>
  x < 0 || y < 0 || x >= widthPx || y >= heightPx ? 255 : data[3 * (y * widthPx + x) + c]!;

Deno.test("runModel() gives the model pixels as range, mean, std, layout and channels say", async () => {
  const range: [number, number] = [-1, 3];
  const mean: [number, number, number] = [0.5, 0.4, 0.3],
    std: [number, number, number] = [2, 0.5, 1];
  for (const layout of ["NCHW", "NHWC"]) {
    for (const channels of ["RGB", "BGR"]) {
      const tile = 32, overlap = 8, margin = overlap / 2;
      const { found } = await outputsOf({
        input: { tile, overlap, layout, channels, range, mean, std },
      });
      assert.ok(found.length > 60);
      for (const { tile: { x, y }, values } of found) {
        let worst = 0;
        for (let i = 0; i < values.length; i++) {
          const [c, at] = [Math.floor(i / tile ** 2), i % tile ** 2];
          const of = channels === "RGB" ? c : 2 - c;
          const value = pixelOf(
            picture,
            x - margin + at % tile,
            y - margin + Math.floor(at / tile),
            of,
          );
          const expected = (value / 255 * (range[1] - range[0]) + range[0] - mean[c]!) / std[c]!;
          worst = Math.max(worst, Math.abs(values[i]! - expected));
        }
        // Values to 7, in f32.
        assert.ok(worst < 2e-6, `${layout} ${channels} at (${x}, ${y}): ${worst}`);
      }
    }
  }
  assert.deepEqual(
    normalisationOf(
      {
        range: [0, 1],
        mean,
        std,
        channels: "RGB",
      } as Parameters<typeof normalisationOf>[0],
    ),
    meanStd(mean, std),
  );
});

/** A pyramid whose levels are given; each must be as large as its downsample says. */
function pyramid(pictures: readonly Picture[], mpp: number): Slide {
  const slides = pictures.map((each) => pictureSlide(each, mpp));
  return {
    ...slides[0]!,
    levels: slides.map(({ levels: [level] }, i) => ({
      ...level!,
      downsample: pictures[0]!.widthPx / pictures[i]!.widthPx,
    })),
    readRegion: (region) => {
      assert.ok(region.level !== undefined);
      return slides[region.level]!.readRegion({ ...region, level: 0 });
    },
  };
}

Deno.test("runModel() reads the level that is fine enough, and the mean of what its pixels cover", async () => {
  const small = reducePicture(picture, 115, 85);
  for (const [mpp, level] of [[0.5, 0], [0.75, 0], [1, 1], [1.3, 1], [3, 1], [0.1, 0]] as const) {
    const tile = 16;
    const { found, grid } = await outputsOf({
      slide: pyramid([picture, small], 0.5),
      input: { mpp, tile, overlap: 4, tissue: 0 },
    });
    assert.equal(grid.level, level);
    const source = [picture, small][level]!;
    // To half a pixel of the level in a core, and never enlarged.
    assert.ok(
      Math.abs(grid.ratio - Math.max(1, mpp / (0.5 * 2 ** level))) <= 0.5 / grid.corePx + 1e-9,
      `${mpp}: ${grid.ratio}`,
    );
    let worst = 0;
    for (const { tile: { x, y }, values } of found) {
      for (let i = 0; i < values.length; i++) {
        const [c, at] = [Math.floor(i / tile ** 2), i % tile ** 2];
        const left = (x - 2 + at % tile) * grid.ratio;
        const top = (y - 2 + Math.floor(at / tile)) * grid.ratio;
        let sum = 0;
        for (let v = Math.floor(top); v < top + grid.ratio; v++) {
          for (let u = Math.floor(left); u < left + grid.ratio; u++) {
            const part = (Math.min(u + 1, left + grid.ratio) - Math.max(u, left)) *
              (Math.min(v + 1, top + grid.ratio) - Math.max(v, top));
            sum += part * pixelOf(source, u, v, c);
          }
        }
        worst = Math.max(worst, Math.abs(values[i]! - sum / grid.ratio ** 2 / 255));
      }
    }
    // Parts of pixels are in f32, of coordinates to some hundreds.
    assert.ok(worst < 2e-5, `${mpp} µm/px: ${worst}`);
  }
});

Deno.test("runModel() takes any batch: auto, the sidecar's, the model's own", async () => {
  const tile = 16;
  const auto = await outputsOf({ input: { tile } });
  const places = (found: typeof auto.found) =>
    new Map(found.map(({ tile: { x, y }, values }) => [`${x} ${y}`, [...values]]));
  for (const batch of [1, 3, 64]) {
    const { found } = await outputsOf({ input: { tile, batch } });
    assert.deepEqual(places(found), places(auto.found), `${batch}`);
  }
  const [bytes, sizes] = [copying(tile, "NCHW", 5), { tile }];
  const model = await fitted(bytes, {
    input: { mpp: 0.5, ...sizes },
    output: { kind: "heatmap" },
    classes: THREE,
  });
  assert.equal(model.batch, 5);
});

/** [batch, 3]: the means of red, green and blue in order of size, which is found on the host. */
function sorting(tile: number): Uint8Array<ArrayBuffer> {
  return written(tile, (model, image) => {
    const mean = model.node("GlobalAveragePool", [image]);
    const flat = model.node("Flatten", [mean]);
    model.nodes("TopK", [flat, model.integers([3])], {}, ["sorted", "order"]);
    return [["sorted", ["batch", 3]]];
  });
}

Deno.test("runModel() keeps runs apart where nodes run on the host", async () => {
  const tile = 16;
  for (const batch of [1, 4]) {
    const { found } = await outputsOf({ input: { tile, batch, tissue: 0 }, bytes: sorting(tile) });
    assert.ok(found.length > 100);
    for (const { tile: { x, y }, values } of found) {
      const means = [0, 1, 2].map((c) => {
        let sum = 0;
        for (let i = 0; i < tile ** 2; i++) {
          sum += pixelOf(picture, x + i % tile, y + Math.floor(i / tile), c);
        }
        return sum / tile ** 2 / 255;
      }).sort((a, b) => b - a);
      // 256 values, added up in f32.
      means.forEach((mean, i) =>
        assert.ok(Math.abs(values[i]! - mean) < 1e-5, `(${x}, ${y}): ${values}, not ${means}`)
      );
    }
  }
});

Deno.test("runModel() runs only tiles with as much tissue as is wanted", async () => {
  const isTissue = (x: number, y: number) => x >= 90 && x < 110 && y >= 40 && y < 80;
  const count = async (tissue: number) =>
    (await outputsOf({ input: { tile: 40, tissue }, isTissue })).found.length;
  assert.deepEqual([await count(0), await count(0.5), await count(0.6)], [1, 1, 0]);
  // Half of each of four tiles of 20 px.
  assert.equal((await outputsOf({ input: { tile: 20, tissue: 0.4 }, isTissue })).found.length, 4);
});

Deno.test("runModel() stores floats as PRECISION says, and tries f16 on the first tiles for auto", async () => {
  const gpu = await sharedGpu();
  if (!gpu.features.has("shader-f16")) return console.log("skipped: no f16");
  const tile = 16;
  const exact = await outputsOf({ input: { tile } });
  assert.equal(exact.float, "f32");
  const half = await outputsOf({ input: { tile }, precision: "f16" });
  assert.equal(half.float, "f16");
  const auto = await outputsOf({ input: { tile }, precision: "auto" });
  assert.equal(auto.float, "f16");
  assert.match(auto.said.join("\n"), /^PRECISION=auto takes f16: on the first batch /);
  assert.deepEqual(auto.found, half.found);
  half.found.forEach(({ values }, i) =>
    values.forEach((value, j) =>
      // To 2⁻¹¹ of a value of at most 1.
      assert.ok(Math.abs(value - exact.found[i]!.values[j]!) < 2 ** -11)
    )
  );
  // 1e5 is no f16.
  const large = await outputsOf({
    input: { tile, range: [0, 1e5] },
    precision: "auto",
  });
  assert.equal(large.float, "f32");
  assert.match(large.said.join("\n"), /takes f32: on the first batch f16 differs from f32 by more/);
});
