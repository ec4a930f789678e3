/** ONNX Runtime as a peer: installed once into the system's temporary folder, never a dependency. */

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const VERSION = "1.30.0";

/** Where it computes: on the CPU, or by its own WebGPU provider on the adapter that there is. */
export type Provider = "cpu" | "webgpu";

/** What of its interface is used here. */
interface Runtime {
  readonly InferenceSession: {
    create(model: Uint8Array, options: Record<string, unknown>): Promise<RuntimeSession>;
  };
  readonly Tensor: new (type: string, data: Float32Array, shape: readonly number[]) => unknown;
}

interface RuntimeSession {
  run(
    feeds: Record<string, unknown>,
  ): Promise<Record<string, { data: Float32Array; dims: readonly number[] }>>;
  release(): Promise<void>;
}

let loaded: Promise<Runtime> | undefined;

const folder = join(tmpdir(), "wgslide-peers", `onnxruntime-${VERSION}`);

/** Whether it is there already: `OnnxRuntimePeer.open` would download it otherwise. */
export function isInstalled(): boolean {
  return existsSync(join(folder, "installed"));
}

/** @throws {Error} that says why where it cannot be installed. */
async function runtime(): Promise<Runtime> {
  if (!isInstalled()) {
    mkdirSync(folder, { recursive: true });
    const { success, stderr } = await new Deno.Command("npm", {
      args: [
        "install",
        "--ignore-scripts",
        "--no-save",
        "--prefix",
        folder,
        `onnxruntime-node@${VERSION}`,
      ],
      stdout: "null",
    }).output();
    if (!success) {
      throw new Error(
        `Cannot install onnxruntime-node ${VERSION}: ${new TextDecoder().decode(stderr).trim()}`,
      );
    }
    writeFileSync(join(folder, "installed"), "");
  }
  return createRequire(join(folder, "peer.cjs"))("onnxruntime-node") as Runtime;
}

/** A model open in ONNX Runtime. */
export class OnnxRuntimePeer {
  private constructor(readonly session: RuntimeSession, readonly runtime: Runtime) {}

  /** @param threads of the CPU provider. */
  static async open(
    model: Uint8Array,
    provider: Provider,
    threads = navigator.hardwareConcurrency,
  ): Promise<OnnxRuntimePeer> {
    const ort = await (loaded ??= runtime());
    const session = await ort.InferenceSession.create(model, {
      executionProviders: [provider],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
    });
    return new OnnxRuntimePeer(session, ort);
  }

  /** Runs on one image input, f32. @returns the first output. */
  async run(
    input: string,
    data: Float32Array,
    shape: readonly number[],
  ): Promise<{ data: Float32Array; shape: readonly number[] }> {
    const outputs = await this.session.run({
      [input]: new this.runtime.Tensor("float32", data, shape),
    });
    const [first] = Object.values(outputs);
    return { data: first!.data, shape: first!.dims };
  }

  async close(): Promise<void> {
    await this.session.release();
  }
}
