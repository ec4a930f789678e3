/**
 * A kernel is one `.wgsl` and one `.ts`. The literal given to `defineKernel` says what the WGSL
 * declares: entry point, params, bindings, overrides. From it come the types of every call, the
 * bytes of Params and an explicit bind-group layout; at the first compilation names, types and
 * order are read from the WGSL and compared, so neither side can move alone.
 *
 * Layout of resources (house rule): group 0 only; binding 0 is `params`, a uniform struct of u32,
 * i32 and f32, so member i lies at byte 4i; then storage buffers in the literal's order.
 */

import { BufferUsage, type Gpu } from "./device.ts";
import { KernelError } from "./errors.ts";
import type { Tensor } from "./tensor.ts";

type Scalar = "u32" | "i32" | "f32";

export interface Binding {
  /** As WGSL spells it, such as `array<vec4<f32>>`. */
  readonly type: string;
  readonly access: "read" | "read_write";
}

export interface KernelLiteral {
  /** The entry point's name, the file's, and what errors and profiles call it. */
  readonly name: string;
  /** The WGSL, complete and valid by itself. */
  readonly code: string;
  /** Members of `struct Params`, in order. */
  readonly params: Readonly<Record<string, Scalar>>;
  /** Storage buffers from binding 1, in order. */
  readonly bindings: Readonly<Record<string, Binding>>;
  /** Constants fixed per pipeline, with the WGSL's defaults. Derived ones are not listed. */
  readonly overrides: Readonly<Record<string, number | boolean>>;
  /** Features without which the WGSL does not compile. */
  readonly features?: readonly string[];
}

/** What one dispatch is given: values of Params, and a tensor for each binding. */
export type Arguments<K extends KernelLiteral> = {
  readonly params: { readonly [P in keyof K["params"]]: number };
  readonly bindings: { readonly [B in keyof K["bindings"]]: Tensor };
};

/** A kernel with its pipeline, on one device, for one set of overrides. */
export interface Pipeline<K extends KernelLiteral = KernelLiteral> {
  readonly kernel: K;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** Bind groups by the ids of their tensors: making one costs ten times a dispatch. */
  readonly groups: Map<string, GPUBindGroup>;
}

export interface Kernel<K extends KernelLiteral = KernelLiteral> {
  readonly literal: K;
  /**
   * Compiles for a device, once for each set of overrides: later calls get the same promise.
   * Start all that a model needs before awaiting any: they compile side by side.
   * @throws {KernelError} where literal and WGSL differ, the WGSL does not compile or a feature is missing.
   */
  compile(
    gpu: Gpu,
    overrides?: { readonly [O in keyof K["overrides"]]?: number | boolean },
  ): Promise<Pipeline<K>>;
}

/** Declares a kernel; nothing is compiled yet. */
export function defineKernel<const K extends KernelLiteral>(literal: K): Kernel<K> {
  const compiled = new WeakMap<Gpu, Map<string, Promise<Pipeline<K>>>>();
  return {
    literal,
    compile(gpu, overrides = {}) {
      const constants: Record<string, number> = {};
      for (const [name, byDefault] of Object.entries(literal.overrides)) {
        constants[name] = Number(
          (overrides as Record<string, number | boolean>)[name] ?? byDefault,
        );
      }
      for (const name of Object.keys(overrides)) {
        if (!(name in constants)) {
          return Promise.reject(
            new KernelError(
              `Cannot compile kernel "${literal.name}": it has no override "${name}"`,
              literal.name,
            ),
          );
        }
      }
      let ofDevice = compiled.get(gpu);
      if (ofDevice === undefined) compiled.set(gpu, ofDevice = new Map());
      const key = Object.values(constants).join();
      let pipeline = ofDevice.get(key);
      if (pipeline === undefined) ofDevice.set(key, pipeline = compile(gpu, literal, constants));
      return pipeline;
    },
  };
}

async function compile<K extends KernelLiteral>(
  gpu: Gpu,
  literal: K,
  constants: Record<string, number>,
): Promise<Pipeline<K>> {
  const { name, code } = literal;
  const fail = (why: string, cause?: unknown) =>
    new KernelError(`Cannot compile kernel "${name}": ${why}`, name, { cause });
  compareInterface(literal);
  for (const feature of literal.features ?? []) {
    if (!gpu.features.has(feature)) {
      throw fail(`the GPU "${gpu.adapter.name}" has no "${feature}"`);
    }
  }
  gpu.check();
  const { device } = gpu;
  // Scopes are pushed and popped before the first await, so that parallel compilations nest properly.
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: `kernel ${name}`, code });
  const paramsBytes = Object.keys(literal.params).length * 4;
  const layout = device.createBindGroupLayout({
    label: `kernel ${name}`,
    entries: [
      {
        binding: 0,
        visibility: 4, // GPUShaderStage.COMPUTE
        buffer: { type: "uniform", hasDynamicOffset: true, minBindingSize: paramsBytes },
      },
      ...Object.values(literal.bindings).map(({ type, access }, i) => ({
        binding: i + 1,
        visibility: 4,
        buffer: {
          type: access === "read" ? "read-only-storage" as const : "storage" as const,
          minBindingSize: elementBytes(name, type),
        },
      })),
    ],
  });
  const made = device.createComputePipelineAsync({
    label: `kernel ${name}`,
    layout: device.createPipelineLayout({ label: `kernel ${name}`, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: name, constants },
  });
  made.catch(() => {}); // Awaited below; this only keeps it from being unhandled meanwhile.
  const scope = device.popErrorScope();
  const [error, info] = await gpu.wait(Promise.all([scope, module.getCompilationInfo()]));
  const message = info.messages.find((message) => message.type === "error");
  if (message !== undefined) {
    throw fail(`${name}.wgsl:${message.lineNum}:${message.linePos}: ${message.message}`);
  }
  if (error !== null) throw fail(error.message.split("\n", 1)[0]!);
  try {
    const pipeline = await gpu.wait(made);
    return { kernel: literal, pipeline, layout, groups: new Map() };
  } catch (cause) {
    throw fail((cause as Error).message.split("\n", 1)[0]!, cause);
  }
}

const SCALAR_BYTES: Readonly<Record<string, number>> = { f32: 4, u32: 4, i32: 4, f16: 2 };

/** Bytes of one element of `array<T>`, T a scalar, an atomic, vec2 or vec4 (WGSL §13.4.1). */
function elementBytes(name: string, type: string): number {
  const element = /^array<(.+)>$/.exec(type)?.[1] ?? type;
  const [, lanes, scalar] = /^(?:vec([24])<|atomic<)?(\w+)>?$/.exec(element) ?? [];
  const bytes = SCALAR_BYTES[scalar ?? ""];
  if (bytes === undefined) {
    throw new KernelError(`Cannot lay out kernel "${name}": unknown type "${type}"`, name);
  }
  return bytes * Number(lanes ?? 1);
}

/** What a WGSL file declares, for `compareInterface`. */
interface Interface {
  readonly entries: readonly string[];
  /** `name: type`, in order. */
  readonly params: readonly string[];
  /** `binding access name: type`, by binding. */
  readonly bindings: readonly string[];
  /** `name = default`, those with an expression left out: they are derived. */
  readonly overrides: readonly string[];
}

/** Reads the declarations by the few forms that house style allows. */
function readInterface(code: string): Interface {
  const text = code.replace(/\/\*[\s\S]*?\*\//g, " ").replace(/\/\/[^\n]*/g, " ");
  const squeeze = (type: string) => type.replace(/\s+/g, "").replace(/,(?=[>}])/g, "");
  const struct = /\bstruct\s+Params\s*\{([^}]*)\}/.exec(text)?.[1] ?? "";
  return {
    entries: [...text.matchAll(/@compute\b[^{]*?\bfn\s+(\w+)/g)].map(([, name]) => name!),
    params: struct.split(",").map(squeeze).filter((member) => member !== "").map((member) =>
      member.replace(":", ": ")
    ),
    bindings: [
      ...text.matchAll(
        /@group\((\d+)\)\s*@binding\((\d+)\)\s*var<(\w+)(?:\s*,\s*(\w+))?>\s*(\w+)\s*:\s*([^;]+);/g,
      ),
    ].map(([, group, binding, space, access, name, type]) =>
      `@group(${group}) @binding(${binding}) ${space}${access ? " " + access : ""} ${name}: ${
        squeeze(type!)
      }`
    ),
    overrides: [...text.matchAll(/\boverride\s+(\w+)\s*(?::\s*\w+)?\s*=\s*([^;]+);/g)].map((
      [, name, value],
    ) => [name!, value!.trim().replace(/^(-?[\d.]+)[uif]$/, "$1")] as const).filter(([, value]) =>
      /^(-?[\d.]+|true|false)$/.test(value)
    ).map(([name, value]) => `${name} = ${value}`),
  };
}

/** @throws {KernelError} naming the first thing that literal and WGSL say differently. */
function compareInterface(literal: KernelLiteral): void {
  const found = readInterface(literal.code);
  const declared: Interface = {
    entries: [literal.name],
    params: Object.entries(literal.params).map(([name, type]) => `${name}: ${type}`),
    bindings: [
      "@group(0) @binding(0) uniform params: Params",
      ...Object.entries(literal.bindings).map(([name, { type, access }], i) =>
        `@group(0) @binding(${i + 1}) storage ${access} ${name}: ${type.replace(/\s+/g, "")}`
      ),
    ],
    overrides: Object.entries(literal.overrides).map(([name, value]) => `${name} = ${value}`),
  };
  for (const part of ["entries", "params", "bindings", "overrides"] as const) {
    const count = Math.max(declared[part].length, found[part].length);
    for (let i = 0; i < count; i++) {
      const [here, there] = [declared[part][i], found[part][i]];
      if (here !== there) {
        throw new KernelError(
          `Cannot compile kernel "${literal.name}": its ${part} differ: ` +
            `"${here ?? "nothing"}" is declared, "${there ?? "nothing"}" is in the WGSL`,
          literal.name,
        );
      }
    }
  }
}

/** Dispatches whose Params share one uniform buffer; more are submitted in several parts. */
const PARAMS_SLOTS = 256;
const paramsBuffers = new WeakMap<Gpu, GPUBuffer>();

/**
 * Records dispatches into one encoder and one pass, and submits them.
 * Dispatches run in order; each sees what the ones before it wrote.
 */
export class Batch {
  readonly #gpu: Gpu;
  readonly #slotBytes: number;
  readonly #params: DataView<ArrayBuffer>;
  readonly #paramsBuffer: GPUBuffer;
  #used = 0;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
    this.#slotBytes = gpu.limits.minUniformBufferOffsetAlignment;
    this.#params = new DataView(new ArrayBuffer(this.#slotBytes * PARAMS_SLOTS));
    let buffer = paramsBuffers.get(gpu);
    if (buffer === undefined) {
      buffer = gpu.device.createBuffer({
        label: "params",
        size: this.#params.byteLength,
        usage: BufferUsage.UNIFORM | BufferUsage.COPY_DST,
      });
      paramsBuffers.set(gpu, buffer);
    }
    this.#paramsBuffer = buffer;
  }

  /**
   * Records one dispatch of `workgroups` workgroups along x, y and z.
   * @throws {KernelError} where the device allows no grid of that size.
   */
  dispatch<K extends KernelLiteral>(
    { kernel, pipeline, layout, groups }: Pipeline<K>,
    { params, bindings }: Arguments<K>,
    workgroups: readonly [number, number?, number?],
  ): void {
    const [x, y = 1, z = 1] = workgroups;
    const most = this.#gpu.limits.maxComputeWorkgroupsPerDimension;
    if (Math.max(x, y, z) > most) {
      throw new KernelError(
        `Cannot dispatch kernel "${kernel.name}" over ${x} × ${y} × ${z} workgroups: ` +
          `the GPU "${this.#gpu.adapter.name}" allows ${most} a side`,
        kernel.name,
      );
    }
    if (x === 0 || y === 0 || z === 0) return;
    if (this.#used === PARAMS_SLOTS) this.submit();
    const offset = this.#used++ * this.#slotBytes;
    let at = offset;
    for (const [name, type] of Object.entries(kernel.params)) {
      const value = (params as Record<string, number>)[name]!;
      if (type === "f32") this.#params.setFloat32(at, value, true);
      else if (type === "u32") this.#params.setUint32(at, value, true);
      else this.#params.setInt32(at, value, true);
      at += 4;
    }
    const tensors = Object.keys(kernel.bindings).map((name) =>
      (bindings as Record<string, Tensor>)[name]!
    );
    const key = tensors.map(({ id }) => id).join();
    let group = groups.get(key);
    if (group === undefined) {
      group = this.#gpu.device.createBindGroup({
        label: `kernel ${kernel.name}`,
        layout,
        entries: [
          {
            binding: 0,
            resource: {
              buffer: this.#paramsBuffer,
              size: Object.keys(kernel.params).length * 4,
            },
          },
          ...tensors.map(({ buffer }, i) => ({ binding: i + 1, resource: { buffer } })),
        ],
      });
      if (groups.size >= 1024) groups.clear(); // Tensors come and go; their groups must not pile up.
      groups.set(key, group);
    }
    if (this.#pass === undefined) {
      this.#encoder = this.#gpu.device.createCommandEncoder({ label: `kernel ${kernel.name}` });
      this.#pass = this.#encoder.beginComputePass({ label: `kernel ${kernel.name}` });
    }
    this.#pass.setPipeline(pipeline);
    this.#pass.setBindGroup(0, group, [offset]);
    this.#pass.dispatchWorkgroups(x, y, z);
  }

  /** Submits what was recorded. @throws {KernelError} where the device has failed. */
  submit(): void {
    if (this.#encoder === undefined || this.#pass === undefined) return;
    this.#pass.end();
    this.#gpu.check();
    const used = this.#used * this.#slotBytes;
    this.#gpu.device.queue.writeBuffer(this.#paramsBuffer, 0, this.#params.buffer, 0, used);
    const commands = this.#encoder.finish();
    this.#encoder = this.#pass = undefined;
    this.#used = 0;
    this.#gpu.submit([commands]);
  }
}
