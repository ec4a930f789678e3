/**
 * ONNX's own cases under a folder, run and compared: `deno task conformance:onnx DIR`.
 *
 * A case is a folder with `model.onnx` and `test_data_set_*` (`input_N.pb`, `output_N.pb`: tensors
 * in the order of the graph's inputs and outputs), or a file `x.onnx` with `x_output_0.pb`, of which
 * the input is 0, 1, … n − 1 over n. Tolerances are those of ONNX's own runner.
 *
 * Source: onnx/onnx `onnx/backend/test/runner/__init__.py`, `onnx/backend/test/loader/__init__.py`.
 */

import { basename, join, relative } from "node:path";
import { parseArgs } from "node:util";
import { ModelError } from "../../src/errors.ts";
import { Gpu } from "../../kernels/device.ts";
import { fuse } from "../../src/model/fuse.ts";
import type { Graph, ValueInfo } from "../../src/model/graph.ts";
import {
  type DataType,
  elementCount,
  type HostTensor,
  tensorOf,
} from "../../src/model/host_tensor.ts";
import { readModel } from "../../src/model/onnx.ts";
import { decode, TENSOR } from "../../src/model/proto.ts";
import { Session } from "../../src/model/session.ts";
import { operatorName } from "../../src/model/support.ts";
import { elementType, tensorOfBytes, tensorOfProto } from "../../src/model/tensor_proto.ts";
import { difference, runOnHost } from "../reference/onnx.ts";

/** A model that is ready to run, and where each kind of its nodes runs. */
interface Loaded {
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly places: readonly { readonly operator: string; readonly place: string }[];
  run(inputs: Record<string, HostTensor>): Promise<Record<string, HostTensor>>;
}

/** What runs a model. */
type Backend = (path: string) => Promise<Loaded>;

const host: Backend = async (path) => {
  const graph: Graph = await readModel(path);
  return {
    inputs: graph.inputs,
    outputs: graph.outputs,
    places: graph.nodes.map((node) => ({ operator: operatorName(node), place: "host" })),
    run: (inputs) => Promise.resolve(runOnHost(graph, inputs)),
  };
};

/**
 * On the GPU. Inputs but the first are constants where `frozen`, as weights are in real models; a
 * convolution whose weights are an input runs on the host.
 */
function onGpu(gpu: Gpu, frozen: boolean): Backend {
  return async (path) => {
    const graph = await readModel(path);
    const places: { operator: string; place: string }[] = [];
    return {
      inputs: graph.inputs,
      outputs: graph.outputs,
      places,
      run: async (inputs) => {
        const weights = frozen ? graph.inputs.slice(1) : [];
        const session = new Session(
          gpu,
          fuse({
            ...graph,
            inputs: graph.inputs.filter((input) => !weights.includes(input)),
            constants: new Map([
              ...graph.constants,
              ...weights.map(({ name }) => [name, inputs[name]!] as const),
            ]),
          }),
        );
        try {
          const plan = await session.plan(
            Object.fromEntries(session.inputs.map(({ name }) => [name, inputs[name]!.shape])),
          );
          for (const { operator } of plan.laid.spans) places.push({ operator, place: "gpu" });
          for (const part of plan.laid.parts) {
            if (part.on === "gpu") continue;
            places.push({ operator: operatorName(part.step.reader.node), place: "host" });
          }
          return await plan.run(inputs);
        } finally {
          await session.destroy();
        }
      },
    };
  };
}

interface Case {
  readonly name: string;
  readonly model: string;
  /** Folders of inputs and outputs; for a model alone, the file of its output. */
  readonly sets: readonly string[];
  readonly alone: boolean;
}

function findCases(folder: string, root = folder): Case[] {
  const entries = [...Deno.readDirSync(folder)].sort((a, b) => a.name < b.name ? -1 : 1);
  const names = new Set(entries.map(({ name }) => name));
  const cases: Case[] = [];
  const sets = entries.filter((e) => e.isDirectory && e.name.startsWith("test_data_set_"));
  if (names.has("model.onnx") && sets.length > 0) {
    cases.push({
      name: relative(root, folder) || basename(folder),
      model: join(folder, "model.onnx"),
      sets: sets.map(({ name }) => join(folder, name)),
      alone: false,
    });
    return cases;
  }
  for (const { name, isDirectory } of entries) {
    const path = join(folder, name);
    if (isDirectory) cases.push(...findCases(path, root));
    else if (name.endsWith(".onnx")) {
      const output = `${name.slice(0, -".onnx".length)}_output_0.pb`;
      if (!names.has(output)) continue;
      const sets = [join(folder, output)];
      cases.push({ name: relative(root, path), model: path, sets, alone: true });
    }
  }
  return cases;
}

async function readTensor(path: string): Promise<HostTensor> {
  const proto = decode(await Deno.readFile(path), TENSOR, `"${path}"`);
  const element = elementType(proto.data_type);
  if (element.type === undefined) throw new Error(`"${path}" is of ${element.called}`);
  return tensorOfProto(proto, element.type, `"${path}"`);
}

async function readTensors(set: string, kind: string): Promise<HostTensor[]> {
  const tensors: HostTensor[] = [];
  for (let i = 0;; i++) {
    const path = join(set, `${kind}_${i}.pb`);
    try {
      await Deno.stat(path);
    } catch {
      return tensors;
    }
    tensors.push(await readTensor(path));
  }
}

/** The input of a model that comes alone. */
function ramp({ type, shape }: ValueInfo): HostTensor {
  const fixed = shape!.map((d) => typeof d === "number" ? d : 1);
  const n = elementCount(fixed);
  return tensorOf(type, fixed, Float64Array.from({ length: n }, (_, i) => i / n));
}

/** Cases of ONNX 1.12 and before store bfloat16 as its bits. */
function asDeclared(tensor: HostTensor, type: DataType): HostTensor {
  if (type !== "bfloat16" || tensor.type !== "uint16") return tensor;
  const bytes = new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
  return tensorOfBytes(type, tensor.shape, bytes, "a case");
}

async function runCase(
  { model, sets, alone }: Case,
  load: Backend,
  places: Map<string, number>,
): Promise<string | undefined> {
  const loaded = await load(model);
  for (const set of sets) {
    const given = alone ? loaded.inputs.map(ramp) : await readTensors(set, "input");
    const expected = alone ? [await readTensor(set)] : await readTensors(set, "output");
    if (given.length !== loaded.inputs.length) {
      return `${given.length} inputs for ${loaded.inputs.length}`;
    }
    if (expected.length !== loaded.outputs.length) {
      return `${expected.length} outputs expected of ${loaded.outputs.length}`;
    }
    const inputs = Object.fromEntries(
      loaded.inputs.map(({ name, type }, i) => [name, asDeclared(given[i]!, type)]),
    );
    const outputs = await loaded.run(inputs);
    for (const [i, { name, type }] of loaded.outputs.entries()) {
      const wrong = difference(outputs[name], asDeclared(expected[i]!, type));
      if (wrong !== undefined) return `${basename(set)}, output "${name}": ${wrong}`;
    }
  }
  for (const { operator, place } of loaded.places) {
    const key = `${operator} ${place}`;
    places.set(key, (places.get(key) ?? 0) + 1);
  }
  return undefined;
}

async function main(): Promise<number> {
  const { positionals, values } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: { host: { type: "boolean", default: false } },
  });
  const [folder] = positionals;
  if (folder === undefined || positionals.length > 1) {
    console.error("usage: deno task conformance:onnx [--host] DIR");
    return 2;
  }
  const gpu = values.host ? undefined : await Gpu.open({ adapter: Deno.env.get("ADAPTER") });
  if (gpu === undefined && !values.host) {
    console.error("There is no adapter: run `deno task setup`, or take --host");
    return 2;
  }
  // On the GPU each case runs twice: with weights as constants, and as it is.
  const backends = gpu === undefined ? [host] : [onGpu(gpu, true), onGpu(gpu, false)];
  const cases = findCases(folder);
  const places = new Map<string, number>();
  const unsupported = new Map<string, number>();
  let [passed, failed, skipped] = [0, 0, 0];
  for (const one of cases) {
    try {
      let wrong: string | undefined;
      for (const [i, backend] of backends.entries()) {
        wrong ??= await runCase(one, backend, i === 0 ? places : new Map());
      }
      if (wrong === undefined) {
        passed++;
        continue;
      }
      failed++;
      console.log(`failed ${one.name}: ${wrong}`);
    } catch (error) {
      const { problems } = error instanceof ModelError ? error : { problems: [] };
      if (problems.length === 0) {
        failed++;
        console.log(`failed ${one.name}: ${error instanceof Error ? error.message : error}`);
        continue;
      }
      skipped++;
      const reasons = new Set(
        problems.map(({ operator, what }) => [operator, what].filter(Boolean).join(": ")),
      );
      for (const reason of reasons) unsupported.set(reason, (unsupported.get(reason) ?? 0) + 1);
      console.log(`unsupported ${one.name}: ${[...reasons].join("; ")}`);
    }
  }
  console.log("\nnodes of what passed, and where they ran:");
  for (const [key, count] of [...places].sort()) console.log(`  ${key} ${count}`);
  if (unsupported.size > 0) {
    console.log("\nunsupported:");
    for (const [reason, count] of [...unsupported].sort()) console.log(`  ${reason} (${count})`);
  }
  console.log(`\n${passed} passed, ${failed} failed, ${skipped} skipped`);
  return failed > 0 ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main());
