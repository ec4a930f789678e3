/** ONNX Runtime as a peer of single kernels: models of one product or convolution, in f32. */

import { ModelWriter } from "../../../src/model/writer.ts";
import { OnnxRuntimePeer, type Provider } from "../../peers/onnxruntime.ts";
import { floats } from "../../reference/random.ts";
import type { PeerTask } from "../kernel_cases.ts";

const product = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

interface OneNode {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly shape: readonly number[];
}

/** @returns undefined for what is not compared. */
function modelOf(task: PeerTask): OneNode | undefined {
  if (task.type !== "f32") return undefined;
  const writer = new ModelWriter("peer", 20);
  const random = (shape: readonly number[], seed: number) =>
    writer.floats(shape, floats(product(shape), seed));
  if (task.op === "matmul") {
    const { rows, inner, columns } = task;
    const a = writer.input("input", "float32", [rows, inner]);
    let y = writer.node("MatMul", [a, random([inner, columns], 2)]);
    if (task.bias) y = writer.node("Add", [y, random([columns], 3)]);
    if (task.residual) y = writer.node("Add", [y, random([rows, columns], 4)]);
    if (task.activation !== undefined) {
      y = writer.node(task.activation === "relu" ? "Relu" : "Gelu", [y]);
    }
    writer.output(y, "float32", [rows, columns]);
    return { bytes: writer.bytes(), shape: [rows, inner] };
  }
  if (task.op === "conv2d") {
    const { input: [images, height, width, channels], kernel, outChannels, stride, groups } = task;
    const shape = [images, channels, height, width];
    const [padY, padX] = kernel.map((k) => (k - 1) / 2) as [number, number];
    const y = writer.node("Conv", [
      writer.input("input", "float32", shape),
      random([outChannels, channels / groups, ...kernel], 2),
      random([outChannels], 3),
    ], {
      kernel_shape: [...kernel],
      pads: [padY, padX, padY, padX],
      strides: [stride, stride],
      group: groups,
    });
    writer.output(writer.node("Relu", [y]), "float32", ["n", "c", "h", "w"]);
    return { bytes: writer.bytes(), shape };
  }
  return undefined;
}

/** Milliseconds of one run of a model, the least of three or more in `milliseconds`; input and output move with it. */
export async function timeModel(
  bytes: Uint8Array,
  provider: Provider,
  shape: readonly number[],
  milliseconds: number,
): Promise<number> {
  const peer = await OnnxRuntimePeer.open(bytes, provider);
  try {
    const data = floats(product(shape), 1);
    await peer.run("input", data, shape);
    let least = Infinity;
    const begin = performance.now();
    for (let i = 0; i < 3 || performance.now() - begin < milliseconds; i++) {
      const start = performance.now();
      await peer.run("input", data, shape);
      least = Math.min(least, performance.now() - start);
    }
    return least;
  } finally {
    await peer.close();
  }
}

/** The same for one kernel's work. @returns undefined for what is not compared. */
export async function timeTask(
  task: PeerTask,
  provider: Provider,
  milliseconds: number,
): Promise<number | undefined> {
  const model = modelOf(task);
  return model && await timeModel(model.bytes, provider, model.shape, milliseconds);
}
