/** `deno task model:info MODEL`: what a model is, what was fused, what it costs. */

import { parseArgs } from "node:util";
import { Gpu } from "../../kernels/device.ts";
import { ConfigError } from "../errors.ts";
import { fuse } from "../model/fuse.ts";
import type { ValueInfo } from "../model/graph.ts";
import { elementCount } from "../model/host_tensor.ts";
import { readModel } from "../model/onnx.ts";
import { type Plan, type Precision, Session, type Shapes } from "../model/session.ts";
import { flopsFor, fusionsInWords, operatorCounts, parameterCount } from "../model/statistics.ts";
import { parsing, printable, runTool, table } from "./tool.ts";

const USAGE =
  "deno task model:info MODEL [--shape NAME=1,3,224,224]… [--batch N] [--precision f32|f16] [--time]";
const HELP =
  `Shows what an ONNX model is: inputs and outputs, operators, parameters, operations, memory,
what was fused into one node; with --time, milliseconds of every node on this device.

Usage: ${USAGE}

  MODEL        a path; external weights lie beside it
  --shape      the shape of an input, where the model leaves it open; open sizes are 1 else
  --batch      the first size of inputs that leave it open; default 1
  --precision  how floats are stored between nodes; default f32
  --time       runs each node some times on random data and shows the fastest
  -h, --help   this text
`;

/** A declared shape with 1 where it is open, and `batch` where the first size is. */
function closed({ name, shape }: ValueInfo, batch: number): readonly number[] {
  if (shape === undefined) {
    throw new ConfigError(
      `Input "${name}" says nothing of its shape: give it by --shape ${name}=1,3,224,224`,
      "arguments",
    );
  }
  return shape.map((size, axis) => typeof size === "number" ? size : axis === 0 ? batch : 1);
}

/** @throws {TypeError} for what is no shape. */
function parseShapes(list: readonly string[]): Record<string, number[]> {
  return Object.fromEntries(list.map((text) => {
    const [, name, sizes] = /^(.+)=(\d+(?:,\d+)*)$/.exec(text) ?? [];
    if (name === undefined) throw new TypeError(`"${text}" is no NAME=SIZE,SIZE,…`);
    return [name, sizes!.split(",").map(Number)];
  }));
}

const shown = ({ name, type, shape }: ValueInfo) =>
  `${printable(name)}: ${type} [${
    shape?.map((size) => printable(String(size))).join(", ") ?? "…"
  }]`;

function counted(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([name, count]) => `${printable(name)} × ${count}`).join(", ");
}

/** A number of things with a prefix of thousands. */
function short(count: number, unit: string): string {
  for (const [factor, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    if (count >= factor) return `${(count / factor).toFixed(2)} ${prefix}${unit}`;
  }
  return `${count} ${unit}`;
}

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Seconds of the recording's dispatches [from, to): the fastest of some runs of several at once. */
async function secondsOf(plan: Plan, from: number, to: number): Promise<number> {
  const time = async (repeats: number) => {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) plan.laid.recording.run(from, to);
    await plan.gpu.done();
    return (performance.now() - start) / 1000;
  };
  await time(1);
  const once = await time(1);
  const repeats = Math.max(1, Math.min(100, Math.ceil(0.01 / once)));
  let fastest = Infinity;
  for (let round = 0; round < 3; round++) {
    fastest = Math.min(fastest, await time(repeats) / repeats);
  }
  return fastest;
}

/**
 * Reads the model that the arguments name and gives what to print.
 * @throws {ConfigError} for arguments that make no sense. @throws {ModelError} for the model.
 */
export async function runModelInfo(args: readonly string[]): Promise<string> {
  const { values, path, given, batch } = parsing(USAGE, () => {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        shape: { type: "string", multiple: true, default: [] },
        batch: { type: "string", default: "1" },
        precision: { type: "string", default: "f32" },
        time: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (!values.help && positionals.length !== 1) throw new TypeError("MODEL must be one path");
    if (values.precision !== "f32" && values.precision !== "f16") {
      throw new TypeError(`--precision is "${values.precision}", not f32 or f16`);
    }
    const batch = Number(values.batch);
    if (!Number.isInteger(batch) || batch < 1) {
      throw new TypeError(`--batch is "${values.batch}", not a whole number from 1 on`);
    }
    return { values, path: positionals[0], given: parseShapes(values.shape), batch };
  });
  if (values.help || path === undefined) return HELP;
  const read = await readModel(path);
  const fused = fuse(read);
  const unknown = Object.keys(given).find((name) =>
    !read.inputs.some((input) => input.name === name)
  );
  if (unknown !== undefined) {
    throw new ConfigError(`The model has no input "${unknown}"`, "arguments");
  }
  const shapes: Shapes = Object.fromEntries(
    read.inputs.map((input) => [input.name, given[input.name] ?? closed(input, batch)]),
  );
  let operations: number;
  try {
    operations = flopsFor(fused, shapes);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new ConfigError(error.message, "arguments", { cause: error });
  }
  const lines = [
    `model       ${printable(path)}`,
    ...read.inputs.map((input) => `input       ${shown(input)}`),
    ...read.outputs.map((output) => `output      ${shown(output)}`),
    `operators   ${counted(operatorCounts(read))}`,
    `fused into  ${counted(operatorCounts(fused))}`,
    ...fusionsInWords(read, fused).map((words) => `fused       ${words}`),
    `parameters  ${short(parameterCount(read), "")}`,
    `operations  ${short(operations, "FLOP")} at ${
      Object.entries(shapes).map(([name, shape]) => `${printable(name)} [${shape.join(", ")}]`)
        .join(", ")
    }`,
  ];
  const gpu = await Gpu.open({ adapter: Deno.env.get("ADAPTER") });
  if (gpu === undefined) return [...lines, "device      none: `deno task setup`"].join("\n");
  try {
    const session = new Session(gpu, fused, { precision: values.precision as Precision });
    const plan = await session.plan(shapes);
    const { recording, spans, parts } = plan.laid;
    const onHost = parts.flatMap((part) => part.on === "host" ? [part.step.reader.node.name] : []);
    lines.push(
      `device      ${gpu.adapter.name}, floats stored in ${plan.float}`,
      `dispatches  ${recording.length} of ${recording.pipelines} pipelines` +
        (onHost.length === 0 ? "" : `; on the host: ${onHost.map(printable).join(", ")}`),
      `memory      ${mebibytes(session.weightBytes)} of weights, ` +
        `${mebibytes(plan.valueBytes)} of values`,
    );
    if (values.time) {
      for (const tensor of plan.inputs.values()) {
        // Zeros and ones could be faster than data.
        if (tensor.type !== "f32") continue;
        const data = new Float32Array(elementCount(tensor.shape));
        for (let i = 0; i < data.length; i++) data[i] = Math.random();
        tensor.write(data);
      }
      await plan.start();
      const rows: string[][] = [];
      let total = 0;
      for (const { node, operator, from, to } of spans) {
        const seconds = await secondsOf(plan, from, to);
        total += seconds;
        rows.push([
          (seconds * 1000).toFixed(3),
          String(to - from),
          printable(operator),
          printable(node),
        ]);
      }
      lines.push(
        "",
        ...table([["ms", "dispatches", "operator", "node"], ...rows]),
        `${(total * 1000).toFixed(3)} ms in all`,
      );
    }
    await session.destroy();
  } finally {
    gpu.close();
  }
  return lines.join("\n");
}

if (import.meta.main) await runTool(() => runModelInfo(Deno.args));
