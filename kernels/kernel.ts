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

/**
 * What an alias of a kernel may stand for; f16 needs "shader-f16". `vec4<u32>` is for kernels that
 * move sixteen bytes as they move four.
 */
export type AliasedType = "f32" | "f16" | "i32" | "u32" | "vec4<u32>";

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
  /**
   * Types fixed per pipeline, as overrides are values: for each `alias NAME = TYPE;` of the WGSL what
   * it may stand for, the WGSL's own type first. WGSL has no such thing, so that one declaration is
   * exchanged before compiling; the file is complete and valid with the first.
   */
  readonly aliases?: Readonly<Record<string, readonly AliasedType[]>>;
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
    aliases?: { readonly [A in keyof K["aliases"]]?: AliasedType },
  ): Promise<Pipeline<K>>;
}

const declared: KernelLiteral[] = [];

/** What was declared so far, by all modules that were imported: for checks of every kernel. */
export function declaredKernels(): readonly KernelLiteral[] {
  return declared;
}

/** Declares a kernel; nothing is compiled yet. */
export function defineKernel<const K extends KernelLiteral>(literal: K): Kernel<K> {
  declared.push(literal);
  const compiled = new WeakMap<Gpu, Map<string, Promise<Pipeline<K>>>>();
  return {
    literal,
    compile(gpu, overrides = {}, aliases = {}) {
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
      const types: Record<string, AliasedType> = {};
      for (const [name, allowed] of Object.entries(literal.aliases ?? {})) {
        types[name] = (aliases as Record<string, AliasedType>)[name] ?? allowed[0]!;
      }
      for (const [name, type] of Object.entries(aliases as Record<string, AliasedType>)) {
        if (literal.aliases?.[name]?.includes(type) !== true) {
          return Promise.reject(
            new KernelError(
              `Cannot compile kernel "${literal.name}": it has no alias "${name}" of ${type}`,
              literal.name,
            ),
          );
        }
      }
      let ofDevice = compiled.get(gpu);
      if (ofDevice === undefined) compiled.set(gpu, ofDevice = new Map());
      const key = [...Object.values(constants), ...Object.values(types)].join();
      let pipeline = ofDevice.get(key);
      if (pipeline === undefined) {
        ofDevice.set(key, pipeline = compile(gpu, literal, constants, types));
      }
      return pipeline;
    },
  };
}

async function compile<K extends KernelLiteral>(
  gpu: Gpu,
  literal: K,
  constants: Record<string, number>,
  types: Record<string, AliasedType>,
): Promise<Pipeline<K>> {
  const { name } = literal;
  const fail = (why: string, cause?: unknown) =>
    new KernelError(`Cannot compile kernel "${name}": ${why}`, name, { cause });
  compareInterface(literal);
  const code = withAliases(literal.code, types);
  const f16 = Object.values(types).includes("f16") ? ["shader-f16"] : [];
  for (const feature of [...literal.features ?? [], ...f16]) {
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
          minBindingSize: elementBytes(name, type, types),
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

const SCALAR_BYTES: Readonly<Record<string, number>> = {
  f32: 4,
  u32: 4,
  i32: 4,
  f16: 2,
  "vec4<u32>": 16,
};

/**
 * The WGSL with each `alias NAME = TYPE;` standing for the type asked for, and f16 enabled where one
 * does. Lines stay where they are, so that messages name the file's own.
 */
export function withAliases(code: string, types: Readonly<Record<string, AliasedType>>): string {
  for (const [name, type] of Object.entries(types)) {
    code = code.replace(
      new RegExp(`\\balias\\s+${name}\\s*=\\s*\\w+\\s*;`),
      `alias ${name} = ${type};`,
    );
  }
  return Object.values(types).includes("f16") ? `enable f16; ${code}` : code;
}

/** Bytes of one element of `array<T>`, T a scalar, an alias, an atomic, vec2 or vec4 (WGSL §13.4.1). */
function elementBytes(name: string, type: string, types: Record<string, AliasedType>): number {
  const element = /^array<(.+)>$/.exec(type)?.[1] ?? type;
  const [, lanes, scalar = ""] = /^(?:vec([24])<|atomic<)?(\w+)>?$/.exec(element) ?? [];
  const bytes = SCALAR_BYTES[types[scalar] ?? scalar];
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
  /** `name = type`, those of a scalar only. */
  readonly aliases: readonly string[];
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
    aliases: [...text.matchAll(/\balias\s+(\w+)\s*=\s*(f32|f16|i32|u32)\s*;/g)].map((
      [, name, type],
    ) => `${name} = ${type}`),
  };
}

/** @throws {KernelError} naming the first thing that literal and WGSL say differently. */
export function compareInterface(literal: KernelLiteral): void {
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
    aliases: Object.entries(literal.aliases ?? {}).map(([name, [type]]) => `${name} = ${type}`),
  };
  for (const part of ["entries", "params", "bindings", "overrides", "aliases"] as const) {
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

/** Takes dispatches, in order; each sees what the ones before it wrote. */
export interface Recorder {
  readonly gpu: Gpu;
  /**
   * Records one dispatch of `workgroups` workgroups along x, y and z; none where one of them is 0.
   * @throws {KernelError} where the device allows no grid of that size.
   */
  dispatch<K extends KernelLiteral>(
    pipeline: Pipeline<K>,
    args: Arguments<K>,
    workgroups: readonly [number, number?, number?],
  ): void;
}

/**
 * A grid of `count` workgroups in a row that keeps to the device's limit along x: x · y of them, at
 * least `count`. A kernel finds its place by `id.x + id.y · num_workgroups.x · workgroup_size`, and
 * leaves those past the end out.
 */
export function rowOfWorkgroups(gpu: Gpu, count: number): readonly [number, number] {
  const most = gpu.limits.maxComputeWorkgroupsPerDimension;
  if (count <= most) return [count, 1];
  const y = Math.ceil(count / most);
  return [Math.ceil(count / y), y];
}

/** @returns the grid's sides. @throws {KernelError} where the device allows no grid of that size. */
function checkGrid(
  gpu: Gpu,
  kernel: KernelLiteral,
  [x, y = 1, z = 1]: readonly [number, number?, number?],
): readonly [number, number, number] {
  const most = gpu.limits.maxComputeWorkgroupsPerDimension;
  if (Math.max(x, y, z) > most) {
    throw new KernelError(
      `Cannot dispatch kernel "${kernel.name}" over ${x} × ${y} × ${z} workgroups: ` +
        `the GPU "${gpu.adapter.name}" allows ${most} a side`,
      kernel.name,
    );
  }
  return [x, y, z];
}

/** Writes the members of Params one after the other, four bytes each. */
function writeParams(
  into: DataView,
  at: number,
  kernel: KernelLiteral,
  values: Readonly<Record<string, number>>,
): void {
  for (const [name, type] of Object.entries(kernel.params)) {
    const value = values[name]!;
    if (type === "f32") into.setFloat32(at, value, true);
    else if (type === "u32") into.setUint32(at, value, true);
    else into.setInt32(at, value, true);
    at += 4;
  }
}

function bindGroup(
  gpu: Gpu,
  { kernel, layout }: Pipeline,
  paramsBuffer: GPUBuffer,
  tensors: readonly Tensor[],
): GPUBindGroup {
  return gpu.device.createBindGroup({
    label: `kernel ${kernel.name}`,
    layout,
    entries: [
      {
        binding: 0,
        resource: { buffer: paramsBuffer, size: Object.keys(kernel.params).length * 4 },
      },
      ...tensors.map(({ buffer }, i) => ({ binding: i + 1, resource: { buffer } })),
    ],
  });
}

function inOrder<K extends KernelLiteral>(
  kernel: K,
  bindings: Arguments<K>["bindings"],
): readonly Tensor[] {
  return Object.keys(kernel.bindings).map((name) => (bindings as Record<string, Tensor>)[name]!);
}

/** Dispatches whose Params share one uniform buffer; more are submitted in several parts. */
const PARAMS_SLOTS = 256;
const paramsBuffers = new WeakMap<Gpu, GPUBuffer>();

/** Records dispatches into one encoder and one pass, and submits them. */
export class Batch implements Recorder {
  readonly gpu: Gpu;
  readonly #slotBytes: number;
  readonly #params: DataView<ArrayBuffer>;
  readonly #paramsBuffer: GPUBuffer;
  #used = 0;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;

  constructor(gpu: Gpu) {
    this.gpu = gpu;
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

  dispatch<K extends KernelLiteral>(
    pipeline: Pipeline<K>,
    { params, bindings }: Arguments<K>,
    workgroups: readonly [number, number?, number?],
  ): void {
    const { kernel, groups } = pipeline;
    const [x, y, z] = checkGrid(this.gpu, kernel, workgroups);
    if (x === 0 || y === 0 || z === 0) return;
    if (this.#used === PARAMS_SLOTS) this.submit();
    const offset = this.#used++ * this.#slotBytes;
    writeParams(this.#params, offset, kernel, params);
    const tensors = inOrder(kernel, bindings);
    const key = tensors.map(({ id }) => id).join();
    let group = groups.get(key);
    if (group === undefined) {
      group = bindGroup(this.gpu, pipeline, this.#paramsBuffer, tensors);
      if (groups.size >= 1024) groups.clear(); // Tensors come and go; their groups must not pile up.
      groups.set(key, group);
    }
    if (this.#pass === undefined) {
      this.#encoder = this.gpu.device.createCommandEncoder({ label: `kernel ${kernel.name}` });
      this.#pass = this.#encoder.beginComputePass({ label: `kernel ${kernel.name}` });
    }
    this.#pass.setPipeline(pipeline.pipeline);
    this.#pass.setBindGroup(0, group, [offset]);
    this.#pass.dispatchWorkgroups(x, y, z);
  }

  /** Submits what was recorded. @throws {KernelError} where the device has failed. */
  submit(): void {
    if (this.#encoder === undefined || this.#pass === undefined) return;
    this.#pass.end();
    this.gpu.check();
    const used = this.#used * this.#slotBytes;
    this.gpu.device.queue.writeBuffer(this.#paramsBuffer, 0, this.#params.buffer, 0, used);
    const commands = this.#encoder.finish();
    this.#encoder = this.#pass = undefined;
    this.#used = 0;
    this.gpu.submit([commands]);
  }
}

/**
 * Dispatches that are recorded once and run again and again, all in one encoder and one pass: Params
 * are uploaded and bind groups made at the first run, so that a run costs the host 2 µs a dispatch.
 * The tensors are those of the recording: to run on other data write it into them.
 */
export class Recording implements Recorder {
  readonly gpu: Gpu;
  readonly #steps: {
    pipeline: Pipeline;
    params: Readonly<Record<string, number>>;
    tensors: readonly Tensor[];
    grid: readonly [number, number, number];
  }[] = [];
  #ready: { groups: GPUBindGroup[]; params: GPUBuffer } | undefined;

  constructor(gpu: Gpu) {
    this.gpu = gpu;
  }

  /** Dispatches so far. */
  get length(): number {
    return this.#steps.length;
  }

  /** @throws {TypeError} once the recording was run. */
  dispatch<K extends KernelLiteral>(
    pipeline: Pipeline<K>,
    { params, bindings }: Arguments<K>,
    workgroups: readonly [number, number?, number?],
  ): void {
    if (this.#ready !== undefined) throw new TypeError("Cannot add to a recording that was run");
    const grid = checkGrid(this.gpu, pipeline.kernel, workgroups);
    if (grid.includes(0)) return;
    const tensors = inOrder(pipeline.kernel, bindings);
    this.#steps.push({ pipeline: pipeline as unknown as Pipeline, params, tensors, grid });
  }

  /** Different pipelines among them. */
  get pipelines(): number {
    return new Set(this.#steps.map(({ pipeline }) => pipeline)).size;
  }

  /**
   * Submits all dispatches, or those of [from, to) by their numbers.
   * @param timestampWrites of the pass, for "timestamp-query": what a bench times by.
   * @throws {KernelError} where the device has failed.
   */
  run(
    from = 0,
    to = this.#steps.length,
    timestampWrites?: GPUComputePassTimestampWrites,
  ): void {
    if (from >= to) return;
    const slotBytes = this.gpu.limits.minUniformBufferOffsetAlignment;
    const { groups } = this.#ready ??= this.#prepare(slotBytes);
    const encoder = this.gpu.device.createCommandEncoder({ label: "recording" });
    const pass = encoder.beginComputePass({ label: "recording", timestampWrites });
    const offset = [0];
    for (let i = from; i < to; i++) {
      const { pipeline, grid } = this.#steps[i]!;
      offset[0] = i * slotBytes;
      pass.setPipeline(pipeline.pipeline);
      pass.setBindGroup(0, groups[i]!, offset);
      pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
    }
    pass.end();
    this.gpu.submit([encoder.finish()]);
  }

  #prepare(slotBytes: number): { groups: GPUBindGroup[]; params: GPUBuffer } {
    this.gpu.check();
    const values = new DataView(new ArrayBuffer(slotBytes * this.#steps.length));
    for (const [i, { pipeline, params }] of this.#steps.entries()) {
      writeParams(values, i * slotBytes, pipeline.kernel, params);
    }
    const params = this.gpu.device.createBuffer({
      label: "params",
      size: values.byteLength,
      usage: BufferUsage.UNIFORM | BufferUsage.COPY_DST,
    });
    this.gpu.device.queue.writeBuffer(params, 0, values.buffer);
    const groups = this.#steps.map(({ pipeline, tensors }) =>
      bindGroup(this.gpu, pipeline, params, tensors)
    );
    return { groups, params };
  }

  /** Frees what the recording itself holds; its tensors are their owner's. */
  destroy(): void {
    this.#ready?.params.destroy();
  }
}
