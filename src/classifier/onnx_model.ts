/** A model with its sidecar: read, and checked to fit each other before a slide is opened. */

import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ConfigError, ModelError } from "../errors.ts";
import { specialise } from "../model/fold.ts";
import type { Graph, ValueInfo } from "../model/graph.ts";
import { elementCount, isFloat } from "../model/host_tensor.ts";
import { readModel } from "../model/onnx.ts";
import { parseSidecar, type Sidecar } from "./sidecar.ts";

/** A sidecar of 255 classes has some tens of thousands. */
const MOST_SIDECAR_BYTES = 2 ** 20;

/** A model with a sidecar that fits it. */
export interface FittedModel {
  readonly graph: Graph;
  readonly sidecar: Sidecar;
  /** Name of the image that it takes. */
  readonly input: string;
  /** Tiles in one run where the model allows no other number. */
  readonly batch: number | undefined;
  /** Name of the output that the sidecar means. */
  readonly output: string;
  /** Its shape for one tile, without N; undefined where it depends on the pixels. */
  readonly outputShape: readonly number[] | undefined;
}

/**
 * Reads a model and `model.json` beside it.
 * @throws {ConfigError} where a file is missing or the sidecar is wrong. @throws {ModelError} where the
 *   model is, or does not fit the sidecar.
 */
export async function loadWithSidecar(path: string): Promise<FittedModel> {
  const beside = join(dirname(path), "model.json");
  const isFile = (file: string) => statSync(file, { throwIfNoEntry: false })?.isFile();
  if (isFile(path) === undefined) throw new ConfigError(`Cannot find the model "${path}"`, "MODEL");
  if (isFile(path) === false) {
    throw new ConfigError(
      `Cannot read the model "${path}": it is no file; MODEL is the .onnx file's path`,
      "MODEL",
    );
  }
  if (isFile(beside) !== true) {
    throw new ConfigError(
      `Cannot run the model "${path}": "${beside}" is missing, which says what its pixels are and ` +
        `what its output means (README, «Bring your model»)`,
      "MODEL",
    );
  }
  const { size } = statSync(beside);
  if (size > MOST_SIDECAR_BYTES) {
    throw new ConfigError(
      `Cannot read "${beside}": it has ${size} bytes, and at most ${MOST_SIDECAR_BYTES} are read`,
      "MODEL",
    );
  }
  // Editors on Windows put a byte order mark first.
  const text = (await readFile(beside, "utf8")).replace(/^\ufeff/, "");
  const sidecar = parseSidecar(text, beside);
  return fitModel(await readModel(path), sidecar);
}

/** Where kernels hold what overflows, and what is no number at all in places. */
const LARGEST = { f32: 3.4028234e38, f16: 65504 } as const;

/**
 * Checks that an output is of numbers: one that is not would be counted as nothing found.
 * @param float the type in which the model was computed.
 * @throws {ModelError} that says how many are not.
 */
export function checkFinite(
  name: string,
  values: ArrayLike<number>,
  float: keyof typeof LARGEST,
): void {
  const largest = LARGEST[float];
  let broken = 0;
  for (let i = 0; i < values.length; i++) if (!(Math.abs(values[i]!) < largest)) broken++;
  if (broken === 0) return;
  throw new ModelError(
    `Cannot use output "${name}": ${broken} of ${values.length} values are NaN or overflow; if ` +
      `PRECISION=f32 mends it the model overflows f16, else its weights or its normalisation are wrong`,
  );
}

/** How far a probability may be beyond 0 and 1 by rounding, in f16. */
const ROUNDING = 2 ** -8;

/** @throws {ModelError} where values are no probabilities. */
export function checkProbabilities(name: string, values: ArrayLike<number>): void {
  for (let i = 0; i < values.length; i++) {
    if (values[i]! >= -ROUNDING && values[i]! <= 1 + ROUNDING) continue;
    throw new ModelError(
      `Cannot use output "${name}" as probabilities: one is ${values[i]}; if the model gives ` +
        `logits, set output.activation of its sidecar to softmax or sigmoid`,
    );
  }
}

const listed = (shape: readonly (number | string)[] | undefined) =>
  shape === undefined ? "of unknown shape" : `[${shape.join(", ")}]`;

/** The shape of N tiles as the sidecar's layout has them. */
export function tilesShape({ layout, tile }: Sidecar["input"], batch: number): number[] {
  return layout === "NCHW" ? [batch, 3, tile, tile] : [batch, tile, tile, 3];
}

/** Finds what the sidecar means in the model. @throws {ModelError} where they do not fit. */
export function fitModel(graph: Graph, sidecar: Sidecar): FittedModel {
  const input = imageInput(graph, sidecar);
  const { output } = sidecar;
  const name = (wanted: string | undefined): string => {
    const found = wanted ?? graph.outputs[0]!.name;
    if (graph.outputs.some((each) => each.name === found)) return found;
    const known = graph.outputs.map((each) => `"${each.name}"`).join(", ");
    throw new ModelError(`Cannot find output "${found}" of the model: it has ${known}`);
  };
  const declared = input.shape?.[0];
  const batch = typeof declared === "number" ? declared : undefined;
  const { values } = specialise(graph, {
    [input.name]: tilesShape(sidecar.input, batch ?? 1),
  });
  const shapeOf = (of: string) => values.get(of)?.shape;
  const found = name(output.name);
  const shape = shapeOf(found);
  if (shape !== undefined) {
    const scores = output.kind === "boxes" && output.scores !== undefined
      ? shapeOf(name(output.scores))
      : undefined;
    checkOutput(sidecar, found, shape, scores);
    if (shape[0] !== (batch ?? 1)) {
      throw new ModelError(
        `Cannot read output "${found}" [${shape.join(", ")}]: a first axis of ${batch ?? 1}, the ` +
          `tiles that were given, is needed`,
      );
    }
  }
  return {
    graph,
    sidecar,
    input: input.name,
    batch,
    output: found,
    outputShape: shape?.slice(1),
  };
}

/** The model's only input. @throws {ModelError} where it has several, or takes no such image. */
function imageInput({ inputs }: Graph, { input }: Sidecar): ValueInfo {
  const [only, ...others] = inputs;
  if (only === undefined || others.length > 0) {
    throw new ModelError(
      `Cannot feed the model: it takes ${
        inputs.map(({ name }) => `"${name}"`).join(", ") || "nothing"
      }, and one image is given`,
    );
  }
  const { name, type, shape } = only;
  const wanted = tilesShape(input, 1);
  const fits = shape === undefined ||
    shape.length === 4 &&
      shape.every((size, axis) => axis === 0 || typeof size === "string" || size === wanted[axis]);
  if (!isFloat(type) || !fits) {
    throw new ModelError(
      `Cannot feed the model: input "${name}" is ${type} ${
        listed(shape)
      }, and the sidecar's tile ` +
        `and layout give float32 [N, ${wanted.slice(1).join(", ")}]`,
    );
  }
  const batch = shape?.[0];
  if (typeof batch === "number" && input.batch !== "auto" && input.batch !== batch) {
    throw new ModelError(
      `Cannot feed the model: input "${name}" takes ${batch} tiles at once, and the sidecar's batch ` +
        `is ${input.batch}`,
    );
  }
  return only;
}

/**
 * Checks an output against what the sidecar says of it.
 * @param shape with its N. @param scores of decoded boxes, the shape of their own output.
 * @throws {ModelError} that says which shape is needed.
 */
export function checkOutput(
  { input: { tile, overlap }, output, classes }: Sidecar,
  name: string,
  shape: readonly number[],
  scores?: readonly number[],
): void {
  const count = classes.length;
  const fail = (needed: string) => {
    throw new ModelError(
      `Cannot read output "${name}" [${shape.join(", ")}] as ${output.kind} of ${count} ` +
        `${count === 1 ? "class" : "classes"}: ${needed} is needed`,
    );
  };
  const rank = shape.length;
  switch (output.kind) {
    case "classes":
      if (elementCount(shape.slice(1)) !== count) fail(`[N, ${count}]`);
      return;
    case "segmentation":
    case "heatmap": {
      const [height = 0, width = 0] = shape.slice(-2);
      const scale = tile / width;
      const isMap = rank === 4 && shape[1] === count;
      const isNumbers = output.kind === "segmentation" &&
        (rank === 3 || rank === 4 && shape[1] === 1);
      if (!isMap && !isNumbers) {
        fail(`[N, ${count}, h, w]${output.kind === "segmentation" ? " or [N, h, w]" : ""}`);
      }
      if (height !== width || !Number.isInteger(scale) || overlap / 2 % scale !== 0) {
        fail(
          `a square map of which a pixel is a whole number of model pixels, of which half the ` +
            `overlap, ${overlap / 2}, is a multiple,`,
        );
      }
      return;
    }
    case "boxes":
      switch (output.format) {
        case "yolov8":
          if (rank !== 3 || shape[1] !== 4 + count) fail(`[N, ${4 + count}, A]`);
          return;
        case "yolov5":
          if (rank !== 3 || shape[2] !== 5 + count) fail(`[N, A, ${5 + count}]`);
          return;
        case "decoded":
          if (rank !== 3 || shape[2] !== 4) fail("[N, A, 4]");
          if (scores !== undefined && scores.join() !== [shape[0], shape[1], count].join()) {
            throw new ModelError(
              `Cannot read output "${output.scores}" [${
                scores.join(", ")
              }] as scores of "${name}" ` +
                `[${shape.join(", ")}]: [N, ${shape[1]}, ${count}] is needed`,
            );
          }
      }
  }
}
