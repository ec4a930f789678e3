/** `deno task model:run MODEL --image PICTURE`: one tile through a model, as its sidecar says. */

import { parseArgs } from "node:util";
import { Gpu } from "../../kernels/device.ts";
import { KernelError } from "../../kernels/errors.ts";
import { Batch } from "../../kernels/kernel.ts";
import { compileNormalise, recordNormalise } from "../../kernels/normalise.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { prepare } from "../classifier/onnx.ts";
import { colorOf } from "../classifier/onnx_findings.ts";
import { type FittedModel, loadWithSidecar, tilesShape } from "../classifier/onnx_model.ts";
import { inputLayout, normalisationOf } from "../classifier/onnx_tiles.ts";
import { NO_GPU_ADVICE } from "../context.ts";
import { ConfigError } from "../errors.ts";
import { fuse } from "../model/fuse.ts";
import { type HostTensor, numbersOf } from "../model/host_tensor.ts";
import { Session } from "../model/session.ts";
import { writeWhole } from "../report/files.ts";
import { openSlide } from "../slide/open.ts";
import type { Picture } from "../slide/slide.ts";
import { parsing, printable, runTool, table } from "./tool.ts";

const USAGE = "deno task model:run MODEL --image PICTURE [--out PNG] [--precision f32|f16]";
const HELP = `Runs an ONNX model on one tile and shows what it gives, as model.json beside it says.

Usage: ${USAGE}

  MODEL        a path, with model.json beside it
  --image      a picture at the model's scale; its upper left tile is taken, white where it is smaller
  --out        where a map is drawn: the class of each pixel in its colour, or the largest score in grey, 0 to 1
  --precision  how floats are stored between nodes; default f32
  -h, --help   this text
`;

/**
 * Runs the model that the arguments name and gives what to print.
 * @throws {ConfigError} for arguments that make no sense and for the sidecar. @throws {ModelError} for
 *   the model. @throws {KernelError} without a GPU. Also what reading a picture throws.
 */
export async function runModelRun(args: readonly string[]): Promise<string> {
  const { values, path } = parsing(USAGE, () => {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        image: { type: "string" },
        out: { type: "string" },
        precision: { type: "string", default: "f32" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (!values.help && positionals.length !== 1) throw new TypeError("MODEL must be one path");
    if (!values.help && values.image === undefined) throw new TypeError("--image is missing");
    return { values, path: positionals[0] };
  });
  const { image, out, precision } = values;
  if (values.help || path === undefined || image === undefined) return HELP;
  if (precision !== "f32" && precision !== "f16") {
    throw new ConfigError(`--precision is "${precision}", not f32 or f16`, "arguments");
  }
  const model = await loadWithSidecar(path);
  const { input, output } = model.sidecar;
  if (out !== undefined && output.kind !== "segmentation" && output.kind !== "heatmap") {
    throw new ConfigError(`--out draws maps, and the model gives ${output.kind}`, "arguments");
  }
  const { picture, widthPx, heightPx } = await readTile(image, input.tile);
  const gpu = await Gpu.open({ adapter: Deno.env.get("ADAPTER") });
  if (gpu === undefined) {
    throw new KernelError(`Cannot compute: no GPU was detected; ${NO_GPU_ADVICE}`, "device");
  }
  try {
    const { name, outputs, milliseconds } = await runTile(gpu, model, picture, precision);
    const result = outputs[name]!;
    const lines = [
      `model    ${printable(model.sidecar.name)}: ${printable(path)}`,
      `image    ${printable(image)}: ${widthPx} × ${heightPx} px, a tile of ${input.tile} px taken`,
      `device   ${gpu.adapter.name}, ${milliseconds.toFixed(1)} ms`,
      ...(input.stain === "none"
        ? []
        : [`stain    ${input.stain} is estimated over a slide, and left out here`]),
      ...Object.entries(outputs).map(([of, tensor]) =>
        `output   ${printable(of)}: ${tensor.type} [${tensor.shape.join(", ")}], ${rangeOf(tensor)}`
      ),
      "",
      ...describe(model, result),
    ];
    if (out !== undefined) {
      await writeMap(model, result, out);
      lines.push("", `${printable(out)} is written`);
    }
    return lines.join("\n");
  } finally {
    gpu.close();
  }
}

/** The upper left tile of a picture or slide. */
async function readTile(path: string, tile: number) {
  const slide = await openSlide(path);
  try {
    const { widthPx, heightPx } = slide.levels[0]!;
    const picture = await slide.readRegion({
      level: 0,
      xPx: 0,
      yPx: 0,
      widthPx: tile,
      heightPx: tile,
    });
    return { picture, widthPx, heightPx };
  } finally {
    await slide.close();
  }
}

async function runTile(
  gpu: Gpu,
  model: FittedModel,
  picture: Picture,
  precision: "f32" | "f16",
): Promise<{ name: string; outputs: Record<string, HostTensor>; milliseconds: number }> {
  const { input } = model.sidecar;
  const { graph, name } = prepare(model);
  const session = new Session(gpu, fuse(graph), { precision });
  const batch = model.batch ?? 1;
  const plan = await session.plan({ [model.input]: tilesShape(input, batch) }, {
    layouts: { [model.input]: inputLayout(input.layout) },
  });
  const normalisation = normalisationOf(input);
  const normalise = await compileNormalise(gpu, normalisation, { type: plan.float });
  const { tile } = input;
  // A model that takes several has the same tile several times.
  const pixels = new Uint8Array(batch * picture.data.length);
  for (let i = 0; i < batch; i++) pixels.set(picture.data, i * picture.data.length);
  const source = Tensor.from(gpu, pixels, [batch, tile, tile, 3], "pixels");
  const recorder = new Batch(gpu);
  const into = plan.inputs.get(model.input)!.place(plan.float, [batch, tile, tile, 4]);
  recordNormalise(recorder, normalise, source, into, normalisation);
  recorder.submit();
  // Once to compile, and once for the time.
  await plan.read(plan.start());
  const start = performance.now();
  const outputs = await plan.read(plan.start());
  const milliseconds = performance.now() - start;
  source.destroy();
  await session.destroy();
  return { name, outputs, milliseconds };
}

/** Least, largest and mean of some numbers, of which `count` begin at `from`. */
function statistics(values: ArrayLike<number>, from = 0, count = values.length) {
  let [least, most, sum] = [Infinity, -Infinity, 0];
  for (let i = from; i < from + count; i++) {
    least = Math.min(least, values[i]!);
    most = Math.max(most, values[i]!);
    sum += values[i]!;
  }
  return [least, most, sum / count].map((v) => String(Number(v.toPrecision(4))));
}

function rangeOf(tensor: HostTensor): string {
  const [least, most, mean] = statistics(numbersOf(tensor));
  return `${least} to ${most}, mean ${mean}`;
}

/** What the first tile's output says of each class. */
function describe({ sidecar: { output, classes } }: FittedModel, result: HostTensor): string[] {
  const values = numbersOf(result);
  const K = classes.length;
  if (output.kind === "classes") {
    const order = classes.map((_, i) => i).sort((a, b) => values[b]! - values[a]!);
    return table([
      ["probability", "class"],
      ...order.map((i) => [values[i]!.toFixed(4), printable(classes[i]!.name)]),
    ]);
  }
  if (output.kind === "boxes") return ["what boxes come to, a slide shows: deno task dev"];
  const best = largestOf(result, K);
  return table([
    ["class", "pixels", ...(isMap(result, K) ? ["least", "largest", "mean"] : [])],
    ...classes.map(({ name }, i) => [
      printable(name),
      String(best.reduce((count, of) => count + (of === i ? 1 : 0), 0)),
      ...(isMap(result, K) ? statistics(values, i * best.length, best.length) : []),
    ]),
  ]);
}

/** [N, K, h, w] rather than class numbers. */
function isMap({ shape }: HostTensor, classes: number): boolean {
  return shape.length === 4 && shape[1] === classes;
}

/** The class that is largest in each pixel of the first tile. */
function largestOf(result: HostTensor, classes: number): Uint32Array {
  const values = numbersOf(result);
  const [height = 0, width = 0] = result.shape.slice(-2);
  const pixels = height * width;
  return Uint32Array.from({ length: pixels }, (_, at) => {
    if (!isMap(result, classes)) return values[at]!;
    let best = 0;
    for (let of = 1; of < classes; of++) {
      if (values[of * pixels + at]! > values[best * pixels + at]!) best = of;
    }
    return best;
  });
}

/** Draws the first tile's map. */
async function writeMap(
  { sidecar: { output, classes } }: FittedModel,
  result: HostTensor,
  path: string,
): Promise<void> {
  const [height = 0, width = 0] = result.shape.slice(-2);
  const best = largestOf(result, classes.length);
  const values = numbersOf(result);
  const data = new Uint8Array(3 * best.length);
  best.forEach((of, at) => {
    if (output.kind === "heatmap") {
      const grey = Math.min(255, Math.max(0, 255 * values[of * best.length + at]!));
      data.fill(grey, 3 * at, 3 * at + 3);
    } else if (of < classes.length) {
      const color = parseInt(colorOf(classes, of).slice(1), 16);
      data.set([color >> 16, color >> 8 & 255, color & 255], 3 * at);
    }
  });
  const { default: sharp } = await import("sharp");
  const png = await sharp(data, { raw: { width, height, channels: 3 } }).png().toBuffer();
  try {
    writeWhole(path, [png]);
  } catch (cause) {
    const [why] = (cause as Error).message.split(", "); // What follows names the partial file.
    throw new ConfigError(`Cannot write "${path}": ${why}`, "--out", { cause });
  }
}

if (import.meta.main) await runTool(() => runModelRun(Deno.args));
