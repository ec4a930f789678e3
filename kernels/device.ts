/**
 * The GPU: adapter, device, features, limits, loss, and what Dawn needs to live well inside Deno.
 *
 * Dawn comes as a Node addon (npm `webgpu`). The WebGPU specification is at
 * https://www.w3.org/TR/webgpu/; what departs from it here says why.
 */

import { create, globals } from "webgpu";
import { KernelError } from "./errors.ts";

/**
 * Toggles of Dawn. Subgroup matrices hide behind `allow_unsafe_apis`, f16 on NVIDIA behind its own
 * switch, and timestamps are quantised to 65.5 µs unless told otherwise. Unknown toggles are
 * ignored, so a Dawn without one of them still starts.
 */
const TOGGLES = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia",
  "disable-dawn-features=timestamp_quantization",
];

/** Taken where the adapter has them; nothing requires any of them. */
const WANTED_FEATURES = [
  "shader-f16",
  "subgroups",
  "subgroup-size-control",
  "timestamp-query",
  "chromium-experimental-subgroup-matrix",
] as const;

/** Raised to what the adapter offers; the defaults are those of a phone. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** The constants of WebGPU §5.1 and §5.2, from Dawn: Deno has globals of these names only with a flag. */
export const { GPUBufferUsage: BufferUsage, GPUMapMode: MapMode } = globals as {
  GPUBufferUsage: typeof GPUBufferUsage;
  GPUMapMode: typeof GPUMapMode;
};

/**
 * Keeps what `create()` returns alive for the life of the process: where it is collected, the
 * process dies (SIGSEGV) or hangs.
 */
const pinned: GPU[] = [];

/**
 * Ticks of Dawn's polling that run at full speed after a submit, before it slows down to
 * timers of 1 ms. A software adapter computes on the very cores that polling would burn; a real
 * GPU leaves them idle, and a wait there is worth spinning for.
 */
const EAGER_TICKS = { software: 64, hardware: 4096 };

/**
 * Slows Dawn's polling down. While a promise of Dawn's is pending, dawn.node re-arms
 * `globalThis.setImmediate` for ever, which keeps one core busy; on two cores that halves a
 * software adapter's speed. It reads the global at every tick, so it is replaced here, and only
 * here. Others who call `setImmediate` are told apart: Dawn passes one native function and nothing
 * else.
 */
class Polling {
  static #one: Polling | undefined;
  #ticks = 0;
  #eager = EAGER_TICKS.hardware;

  static install(): Polling {
    return Polling.#one ??= new Polling();
  }

  private constructor() {
    const scope = globalThis as unknown as {
      setImmediate(callback: (...rest: unknown[]) => void, ...rest: unknown[]): unknown;
    };
    const original = scope.setImmediate;
    scope.setImmediate = (callback, ...rest) => {
      const isDawn = rest.length === 0 &&
        Function.prototype.toString.call(callback).includes("[native code]");
      if (isDawn && ++this.#ticks > this.#eager) return setTimeout(callback, 1);
      return original(callback, ...rest);
    };
  }

  set eagerTicks(ticks: number) {
    this.#eager = ticks;
  }

  /** Work was submitted: the answer may come soon. */
  submitted(): void {
    this.#ticks = 0;
  }
}

/** What an adapter says of itself. */
export interface AdapterDescription {
  /** The device's name, such as "Tesla T4" or "llvmpipe (LLVM 19.1.7, 256 bits)". */
  readonly name: string;
  /** The driver with its version, in the adapter's own words. */
  readonly driver: string;
  readonly vendor: string;
  readonly architecture: string;
  /** True for an adapter that computes on the CPU (lavapipe, SwiftShader). */
  readonly isSoftware: boolean;
}

/** A shape of subgroup matrices that an adapter multiplies: M × K by K × N. */
export interface SubgroupMatrixConfig {
  /** Of the factors and of the product: "f16", "f32", "u8" and others. */
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

export interface OpenGpuOptions {
  /** Part of an adapter's name, as it is printed or as its driver spells it, any case; undefined takes the fastest kind. */
  readonly adapter?: string;
}

/** A device with its queue, ready for kernels. */
export class Gpu {
  readonly device: GPUDevice;
  readonly adapter: AdapterDescription;
  readonly features: ReadonlySet<string>;
  readonly limits: GPUSupportedLimits;
  /** The number of lanes in every subgroup, where the adapter has subgroups of one size only. */
  readonly subgroupSize: number | undefined;
  /** What subgroup matrices the adapter multiplies; none where it has no such feature. */
  readonly subgroupMatrixConfigs: readonly SubgroupMatrixConfig[];

  #failure: KernelError | undefined;
  #closed = false;
  #polling: Polling;
  #rejectLost: ((error: KernelError) => void)[] = [];

  private constructor(
    device: GPUDevice,
    adapter: AdapterDescription,
    info: GPUAdapterInfo,
    polling: Polling,
  ) {
    this.device = device;
    this.adapter = adapter;
    this.features = new Set<string>(device.features);
    this.limits = device.limits;
    this.subgroupSize =
      this.features.has("subgroups") && info.subgroupMinSize === info.subgroupMaxSize
        ? info.subgroupMinSize
        : undefined;
    const { subgroupMatrixConfigs = [] } = info as {
      subgroupMatrixConfigs?: readonly SubgroupMatrixConfig[];
    };
    this.subgroupMatrixConfigs = this.features.has("chromium-experimental-subgroup-matrix")
      ? subgroupMatrixConfigs.map(({ componentType, resultComponentType, M, N, K }) => ({
        ...{ componentType, resultComponentType, M, N, K },
      }))
      : [];
    this.#polling = polling;
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      this.#fail(error.message, error.constructor.name === "GPUOutOfMemoryError");
    });
    device.lost.then((info) => {
      if (this.#closed) return;
      this.#failure = new KernelError(
        `Cannot go on computing: the GPU was lost (${info.reason}): ${firstLine(info.message)}`,
        "device",
      );
      for (const reject of this.#rejectLost) reject(this.#failure);
      this.#rejectLost = [];
    });
  }

  /**
   * Opens an adapter: a discrete GPU before an integrated one before a software one.
   * @returns undefined where there is no adapter at all.
   * @throws {KernelError} where `adapter` names none of those there are, or the device does not start.
   */
  static async open(options: OpenGpuOptions = {}): Promise<Gpu | undefined> {
    const polling = Polling.install();
    const adapter = await findAdapter(options.adapter);
    if (adapter === undefined) return undefined;
    const { info } = adapter;
    const description: AdapterDescription = {
      name: info.device || info.description || "unnamed adapter",
      driver: info.description,
      vendor: info.vendor,
      architecture: info.architecture,
      isSoftware: info.isFallbackAdapter || info.architecture === "software" ||
        /llvmpipe|swiftshader/i.test(info.device + info.description),
    };
    polling.eagerTicks = description.isSoftware ? EAGER_TICKS.software : EAGER_TICKS.hardware;
    let device: GPUDevice;
    try {
      device = await adapter.requestDevice({
        requiredFeatures: (WANTED_FEATURES as readonly string[] as readonly GPUFeatureName[])
          .filter((feature) => adapter.features.has(feature)),
        requiredLimits: Object.fromEntries(
          WANTED_LIMITS.map((limit) => [limit, adapter.limits[limit]]),
        ),
      });
    } catch (cause) {
      throw new KernelError(
        `Cannot start the device "${description.name}": ${firstLine((cause as Error).message)}`,
        "device",
        { cause },
      );
    }
    return new Gpu(device, description, info, polling);
  }

  /** Submits recorded commands. @throws {KernelError} where an earlier command failed or the device was lost. */
  submit(commands: GPUCommandBuffer[]): void {
    this.check();
    this.device.queue.submit(commands);
    this.#polling.submitted();
    this.check();
  }

  /** @throws {KernelError} where the device was lost or any command so far failed. */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#closed) throw new KernelError("Cannot use the GPU: it is closed", "device");
  }

  /**
   * Waits for a promise of Dawn's, or for the device's loss, and then checks.
   * @throws {KernelError} where the device is lost or a command failed meanwhile.
   */
  async wait<T>(promise: Promise<T>): Promise<T> {
    this.check();
    let reject!: (error: KernelError) => void;
    const lost = new Promise<never>((_, no) => reject = no);
    this.#rejectLost.push(reject);
    try {
      const value = await Promise.race([promise, lost]);
      this.check();
      return value;
    } catch (cause) {
      this.check(); // What was recorded says more than Dawn's "mapping was aborted".
      if (cause instanceof KernelError) throw cause;
      throw new KernelError(firstLine((cause as Error).message), "device", { cause });
    } finally {
      this.#rejectLost = this.#rejectLost.filter((other) => other !== reject);
    }
  }

  /** Resolves when everything submitted so far is done. */
  async done(): Promise<void> {
    await this.wait(this.device.queue.onSubmittedWorkDone());
  }

  /** Ends the device; buffers made on it are freed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.device.destroy();
  }

  #fail(message: string, outOfMemory: boolean): void {
    if (this.#failure !== undefined || this.#closed) return;
    // Dawn names what it was looking at by its label, and labels here are kernels' names.
    const kernel = /\[\w+ "+kernel ([\w.]+)/.exec(message)?.[1] ?? "device";
    this.#failure = new KernelError(
      outOfMemory
        ? `Cannot go on computing: the GPU "${this.adapter.name}" is out of memory (${
          firstLine(message)
        })`
        : `Cannot run kernel "${kernel}": ${firstLine(message)}`,
      kernel,
    );
  }
}

/**
 * Asks for the adapter of that name, or for the fastest. Dawn compares with the driver's own
 * spelling, such as "NVIDIA H200", and shows another, "nvidia-h200"; so likely spellings are tried,
 * and at last whether the fastest adapter is the one that is meant.
 * @returns undefined where there is none at all.
 * @throws {KernelError} where there are adapters, but none of that name.
 */
async function findAdapter(name: string | undefined): Promise<GPUAdapter | undefined> {
  const ask = (toggles: string[]) => {
    const api = create(toggles);
    pinned.push(api);
    return requestAdapter(api);
  };
  if (name !== undefined) {
    const spaced = name.replaceAll("-", " ");
    for (
      const spelling of new Set([
        name,
        name.toLowerCase(),
        name.toUpperCase(),
        spaced.toUpperCase(),
      ])
    ) {
      const adapter = await ask([...TOGGLES, `adapter=${spelling}`]);
      if (adapter !== null) return adapter;
    }
  }
  const fastest = await ask(TOGGLES);
  if (fastest === null) return undefined;
  if (name === undefined) return fastest;
  const shown = (text: string) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  const { device, description } = fastest.info;
  if (shown(`${device} ${description}`).includes(shown(name))) return fastest;
  throw new KernelError(
    `Cannot find the adapter "${name}"; the fastest there is is "${device}", which is taken ` +
      `where ADAPTER is unset`,
    "device",
  );
}

/**
 * Runs `action` with standard error closed to native code. While Dawn lists adapters it writes
 * warnings and stack traces there that no user can act on: of drivers that are not for this machine,
 * and of limits that it lowers itself. It lists them before `requestAdapter` returns its promise, so
 * that nothing of JavaScript's is lost. Where the C library cannot be called they are shown.
 */
function quietly<T>(action: () => T): T {
  let libc;
  try {
    libc = Deno.dlopen("libc.so.6", {
      dup: { parameters: ["i32"], result: "i32" },
      dup2: { parameters: ["i32", "i32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
      open: { parameters: ["buffer", "i32"], result: "i32" },
    });
  } catch {
    return action();
  }
  const { dup, dup2, close, open } = libc.symbols;
  const STDERR = 2, O_WRONLY = 1;
  const kept = dup(STDERR);
  const nowhere = open(new TextEncoder().encode("/dev/null\0"), O_WRONLY);
  try {
    if (kept >= 0 && nowhere >= 0) dup2(nowhere, STDERR);
    return action();
  } finally {
    if (kept >= 0) {
      dup2(kept, STDERR);
      close(kept);
    }
    if (nowhere >= 0) close(nowhere);
    libc.close();
  }
}

async function requestAdapter(api: GPU): Promise<GPUAdapter | null> {
  try {
    return await quietly(() => api.requestAdapter({ powerPreference: "high-performance" }));
  } catch (cause) {
    const message = (cause as Error).message;
    // Dawn's way of saying that there is none, or none of that name.
    if (message.includes("no suitable backends")) return null;
    throw new KernelError(`Cannot ask for a GPU: ${firstLine(message)}`, "device", { cause });
  }
}

function firstLine(message: string): string {
  return (message.split("\n", 1)[0] ?? "").trim().replace(/\.$/, "");
}
