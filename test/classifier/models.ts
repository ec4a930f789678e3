/** Small models whose answers are known, and pictures that they are asked about. */

import { fitModel, type FittedModel } from "../../src/classifier/onnx_model.ts";
import { parseSidecar } from "../../src/classifier/sidecar.ts";
import { readModel } from "../../src/model/onnx.ts";
import { ModelWriter } from "../../src/model/writer.ts";
import type { Picture } from "../../src/slide/slide.ts";

export type Rgb = readonly [number, number, number];

export const GLASS: Rgb = [244, 244, 244];
export const RED: Rgb = [220, 60, 60];
export const GREEN: Rgb = [60, 200, 80];
export const BLUE: Rgb = [60, 60, 220];

/** A picture of what `at` says of each pixel. */
export function paint(
  widthPx: number,
  heightPx: number,
  at: (x: number, y: number) => Rgb,
): Picture {
  const data = new Uint8Array(widthPx * heightPx * 3);
  for (let y = 0, i = 0; y < heightPx; y++) {
    for (let x = 0; x < widthPx; x++, i += 3) data.set(at(x, y), i);
  }
  return { data, widthPx, heightPx };
}

/** Writes a model that takes [batch, 3, tile, tile]; `build` gives the output's name and shape. */
export function written(
  tile: number | string,
  build: (model: ModelWriter, image: string) => [name: string, shape: (number | string)[]][],
  { batch = "batch", opset = 17 }: { batch?: number | string; opset?: number } = {},
): Uint8Array<ArrayBuffer> {
  const model = new ModelWriter("test", opset);
  const image = model.input("image", "float32", [batch, 3, tile, tile]);
  for (const [name, shape] of build(model, image)) model.output(name, "float32", shape);
  return model.bytes();
}

/**
 * [batch, K, tile, tile]: of each pixel, `weights[k] · RGB + bias[k]`, RGB from 0 to 1, padding apart.
 */
export function pixelwise(
  tile: number | string,
  weights: readonly (readonly [number, number, number])[],
  bias: readonly number[],
): Uint8Array<ArrayBuffer> {
  return written(tile, (model, image) => {
    const K = weights.length;
    model.node(
      "Conv",
      [image, model.floats([K, 3, 1, 1], weights.flat()), model.floats([K], bias)],
      {},
      "map",
    );
    return [["map", ["batch", K, tile, tile]]];
  });
}

/** A sidecar of what matters to a test; the rest is as short as it may be. */
export type WrittenSidecar = Record<string, unknown> & {
  readonly input: Record<string, unknown>;
  readonly output: Record<string, unknown>;
  readonly classes: readonly Record<string, unknown>[];
};

/** A model with its sidecar as they come from their files. */
export async function fitted(
  bytes: Uint8Array<ArrayBuffer>,
  sidecar: WrittenSidecar,
): Promise<FittedModel> {
  const text = JSON.stringify({ name: "test", ...sidecar });
  return fitModel(await readModel(bytes), parseSidecar(text, "model.json"));
}
