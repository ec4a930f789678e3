/**
 * A graph for concrete shapes, ready to run: every dispatch is known, buffers are shared among
 * values whose lives do not overlap, and one encoder with one pass runs it all.
 *
 * `PlanBuilder` is what lowerings speak to: they ask for a node's inputs in the layout that a kernel
 * takes, get outputs, and add steps. Whatever an operator lacks a kernel for runs on the host,
 * between two parts of the recording.
 */

import type { Gpu } from "../../kernels/device.ts";
import { KernelError } from "../../kernels/errors.ts";
import { type Recorder, Recording } from "../../kernels/kernel.ts";
import { bytesOf, Tensor } from "../../kernels/tensor.ts";
import type { Tuner } from "../../kernels/tuner.ts";
import { ModelError } from "../errors.ts";
import type { Step } from "./fold.ts";
import type { Constant } from "./graph.ts";
import { type DataType, elementCount, type HostTensor } from "./host_tensor.ts";
import { dense, type Layout, physicalShape, sameMemory } from "./layout.ts";
import type { NodeReader, Operator } from "./ops/operator.ts";
import {
  type FloatType,
  type GpuType,
  gpuTypeOf,
  loadConstant,
  type Packed,
  toGpu,
  Weights,
} from "./weights.ts";

/** A node that cannot be computed as it was to be: by its step, where it is one of the graph's. */
export class StepError extends Error {
  override name = "StepError";

  constructor(
    readonly step: Step | undefined,
    readonly node: string,
    readonly operator: string,
    override readonly cause: unknown,
  ) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
  }

  /** What a caller is told: the node's fault, unless the device's. */
  as(): Error {
    const { node, operator, cause, message } = this;
    if (cause instanceof ModelError) return cause;
    if (cause instanceof KernelError && cause.kernel === "device") return cause;
    return new ModelError(
      `Cannot use node "${node}" (${operator}): ${message}`,
      { node, operator },
      { cause },
    );
  }
}

/** Memory that a plan decides about: where it lives is known once all steps are. */
class Memory {
  tensor: Tensor | undefined;
  firstStep = Infinity;
  lastStep = -1;

  constructor(
    readonly bytes: number,
    /** Never shared: inputs, outputs, weights, what the host reads or writes. */
    public own: boolean,
  ) {}
}

/** A value on the GPU: logical shape, layout, memory. */
export class GpuValue {
  constructor(
    readonly type: GpuType,
    readonly shape: readonly number[],
    readonly layout: Layout,
    readonly memory: Memory,
    readonly label: string,
  ) {}

  /** Sizes in memory's order. */
  get physical(): number[] {
    return physicalShape(this.shape, this.layout);
  }

  /** The memory as a tensor of its physical shape. Only once the plan is laid out: when steps record. */
  get tensor(): Tensor {
    return this.as(this.physical);
  }

  /** The memory under another physical shape of as many elements. */
  as(shape: readonly number[]): Tensor {
    return this.memory.tensor!.place(this.type, shape, this.label);
  }
}

/** A constant in the shape that its kernel gave it. */
export class PackedWeight {
  constructor(readonly memory: Memory) {}

  /** Only once the plan is laid out: when steps record. */
  get tensor(): Tensor {
    return this.memory.tensor!;
  }
}

/** Work for the GPU: a kernel that compiles while others do, and how it is recorded. */
interface GpuStep {
  readonly reads: readonly Memory[];
  readonly writes: readonly Memory[];
  readonly record: (recorder: Recorder) => void;
  readonly ready: Promise<unknown>;
  readonly name: string;
}

/** Work for the host, between two parts of the recording. */
export interface HostStep {
  readonly reader: NodeReader;
  /**
   * Inputs by their places: read from the GPU where the host does not have them, as it does what a
   * run is given; taken from an earlier host step; or known.
   */
  readonly inputs: readonly (
    | {
      readonly from: "gpu";
      readonly name: string;
      readonly value: GpuValue;
      readonly type: DataType;
    }
    | { readonly from: "host"; readonly name: string }
    | { readonly from: "known"; readonly load: () => Promise<HostTensor> }
    | undefined
  )[];
  readonly operator: Operator;
  /** Outputs that later steps on the GPU read. */
  readonly uploads: Map<string, GpuValue>;
}

/** A part of a plan that runs at one go. */
export type Part =
  | { readonly on: "gpu"; readonly from: number; readonly to: number }
  | { readonly on: "host"; readonly step: HostStep };

/** Dispatches of one node, for `model:info --time`. */
export interface NodeSpan {
  readonly node: string;
  readonly operator: string;
  readonly from: number;
  readonly to: number;
}

export interface Laid {
  readonly recording: Recording;
  readonly parts: readonly Part[];
  readonly spans: readonly NodeSpan[];
  /** Bytes of buffers for values, without weights. */
  readonly valueBytes: number;
  /** Buffers and tables, to be freed with the plan. */
  readonly owned: readonly { destroy(): void }[];
}

/** Whose a step is. */
interface Owner {
  readonly name: string;
  readonly operator: string;
  readonly step: Step | undefined;
}

/** @throws {StepError} always: what its owner could not do. */
function failed({ name, operator, step }: Owner, cause: unknown): never {
  throw new StepError(step, name, operator, cause);
}

function isOwned(value: unknown): value is { destroy(): void } {
  return typeof value === "object" && value !== null && "destroy" in value;
}

/** A node whose input and output shapes are known, as lowerings take it. */
export type ShapedNode = Pick<Step, "reader" | "outputs">;

/**
 * How the GPU computes a node: adds steps to the builder.
 * @returns false where there is no kernel for its types or attributes: the host computes it then.
 */
export type Lowering = (builder: PlanBuilder, node: ShapedNode) => boolean;

export class PlanBuilder {
  readonly #pending: Promise<unknown>[] = [];
  readonly #kept: Memory[] = [];
  readonly #owned: { destroy(): void }[] = [];
  readonly #steps: (GpuStep | HostStep)[] = [];
  readonly #owners: Owner[] = [];
  /** Values by name, in every layout that somebody asked for; the first is as it was computed. */
  readonly #values = new Map<string, GpuValue[]>();
  readonly #onHost = new Map<string, HostStep>();
  /** Constants that these shapes settled: another plan's of the same name are others. */
  readonly #ownWeights = new Weights();
  #current: Owner = { name: "", operator: "", step: undefined };

  constructor(
    readonly gpu: Gpu,
    readonly float: FloatType,
    readonly weights: Weights,
    readonly constants: ReadonlyMap<string, Constant>,
    /** Those of the model itself, whose forms all plans share. */
    readonly shared: ReadonlyMap<string, Constant>,
    /** Converts between layouts and types: adds the steps for it. */
    readonly convert: (
      builder: PlanBuilder,
      from: GpuValue,
      to: GpuValue,
    ) => void,
    /** Times tiles of matrix products where it is given. */
    readonly tuner?: Tuner,
  ) {}

  /** Names the node whose steps come next. */
  begin(name: string, operator: string, step?: Step): void {
    this.#current = { name, operator, step };
  }

  /** New memory for a value. */
  allocate(
    type: GpuType,
    shape: readonly number[],
    layout: Layout = dense(shape.length),
    { own = false, label = this.#current.name }: { own?: boolean; label?: string } = {},
  ): GpuValue {
    const bytes = elementCount(physicalShape(shape, layout)) * bytesOf(type);
    return new GpuValue(type, shape, layout, new Memory(bytes, own), label);
  }

  /** Gives a value memory of its own although no step may touch it. */
  keep({ memory }: GpuValue): void {
    memory.own = true;
    this.#kept.push(memory);
  }

  /** Defines a value by name. */
  define(name: string, value: GpuValue): void {
    this.#values.set(name, [value]);
  }

  /** A value as it was computed; undefined where the GPU does not have it. */
  find(name: string): GpuValue | undefined {
    return this.#values.get(name)?.[0];
  }

  isOnHost(name: string): boolean {
    return this.#onHost.has(name);
  }

  /** A node's input where it is known before the run, on the host or in a file. */
  constant(reader: NodeReader, i: number): Constant | undefined {
    return reader.inputs[i]?.known ?? this.constants.get(reader.node.inputs[i] ?? "");
  }

  /**
   * A node's input on the GPU, in the layout asked for: converted where no one asked for it before.
   * @param layout undefined takes it as it lies.
   * @throws {ModelError} where the input is left out or depends on data.
   */
  input(reader: NodeReader, i: number, layout?: Layout): GpuValue {
    const { type } = reader.input(i);
    const shape = reader.shape(i);
    const name = reader.node.inputs[i]!;
    if (!this.#values.has(name)) {
      const constant = this.constant(reader, i);
      if (constant !== undefined) {
        this.define(name, this.dense(name, constant, gpuTypeOf(type, this.float)));
      } else if (this.#onHost.has(name)) this.upload(name, type, shape);
    }
    return this.inLayout(name, layout);
  }

  /** A named value in a layout. */
  inLayout(name: string, layout?: Layout): GpuValue {
    let forms = this.#values.get(name);
    if (forms === undefined) throw new ModelError(`Cannot find value "${name}" of the model`);
    if (layout === undefined) return forms[0]!;
    const found = forms.find((form) => sameMemory(form.shape, form.layout, layout));
    if (found !== undefined) {
      return new GpuValue(found.type, found.shape, layout, found.memory, found.label);
    }
    const first = forms[0]!;
    const made = this.allocate(first.type, first.shape, layout, { label: name });
    this.convert(this, first, made);
    forms = [...forms, made];
    this.#values.set(name, forms);
    return made;
  }

  /** A value in another layout or of another type, not remembered by name. */
  converted(value: GpuValue, layout: Layout, type: GpuType = value.type): GpuValue {
    if (type === value.type && sameMemory(value.shape, value.layout, layout)) {
      return new GpuValue(type, value.shape, layout, value.memory, value.label);
    }
    const made = this.allocate(type, value.shape, layout, { label: value.label });
    this.convert(this, value, made);
    return made;
  }

  /** A constant on the GPU as the model has it, row-major; made once for a session where it is the model's. */
  dense(name: string, constant: Constant, type: GpuType): GpuValue {
    const { shape } = constant;
    const { memory } = this.packed(name, type, constant, (tensor) => ({
      data: toGpu(tensor, type),
      shape,
    }));
    return new GpuValue(type, shape, dense(shape.length), memory, name);
  }

  /**
   * A constant on the GPU in the form that a kernel wants; made once for a session where it is the
   * model's, once for the plan where its shapes settled it.
   * @param form what distinguishes it from other forms of the same constant.
   */
  packed(
    name: string,
    form: string,
    constant: Constant,
    pack: (tensor: HostTensor) => Packed | Promise<Packed>,
  ): PackedWeight {
    const memory = new Memory(0, true);
    const owner = this.#current;
    const known = this.constants.get(name);
    const isShared = known === undefined || known === this.shared.get(name);
    const weights = isShared ? this.weights : this.#ownWeights;
    const made = weights.get(this.gpu, `${name} (${form})`, constant, pack).then(
      (tensor) => memory.tensor = tensor,
      (cause) => failed(owner, cause),
    );
    made.catch(() => {}); // Awaited when the plan is laid out.
    this.#pending.push(made);
    return new PackedWeight(memory);
  }

  /** A named value, row-major unless said, in memory that nothing else will use: what a run gives back. */
  pinned(name: string, type: GpuType, layout?: Layout): GpuValue {
    const value = this.inLayout(name);
    const pinned = this.converted(value, layout ?? dense(value.shape.length), type);
    this.keep(pinned);
    return pinned;
  }

  /** Allocates a node's output and defines it. */
  output(reader: NodeReader, i: number, type: GpuType, shape: readonly number[], layout?: Layout) {
    const value = this.allocate(type, shape, layout);
    const name = reader.node.outputs[i];
    if (name !== undefined && name !== "") this.define(name, value);
    return value;
  }

  /** Defines a node's output as the same memory as another value, in other words. */
  alias(reader: NodeReader, i: number, value: GpuValue, shape: readonly number[], layout: Layout) {
    this.define(
      reader.node.outputs[i]!,
      new GpuValue(value.type, shape, layout, value.memory, reader.node.name),
    );
  }

  /** Adds work: `compiled` may still be compiling, `record` runs when all is compiled and laid out. */
  step<C>(
    reads: readonly (GpuValue | PackedWeight)[],
    writes: readonly GpuValue[],
    compiled: Promise<C>,
    record: (recorder: Recorder, compiled: C) => void,
  ): void {
    let done: C;
    const ready = compiled.then((value) => {
      done = value;
      // Tables that a kernel made for these shapes are the plan's.
      if (isOwned(value)) this.#owned.push(value);
    });
    ready.catch(() => {}); // Awaited when the plan is laid out.
    this.#push({
      reads: reads.map(({ memory }) => memory),
      writes: writes.map(({ memory }) => memory),
      ready,
      record: (recorder) => record(recorder, done),
      name: this.#current.name,
    });
  }

  /** Adds a node that runs on the host. Its outputs are there from now on; `name` asks for them on the GPU. */
  hostStep(reader: NodeReader, operator: Operator): void {
    const inputs = reader.node.inputs.map((name, i): HostStep["inputs"][number] => {
      const input = reader.inputs[i];
      if (name === "" || input === undefined) return undefined;
      const constant = this.constant(reader, i);
      if (constant !== undefined) {
        // From its file at the first run only.
        let loaded: Promise<HostTensor> | undefined;
        return { from: "known", load: () => loaded ??= loadConstant(constant) };
      }
      if (this.#onHost.has(name)) return { from: "host", name };
      // As it lies: the host turns it, whatever its axes.
      return { from: "gpu", name, value: this.inLayout(name), type: input.type };
    });
    const step: HostStep = { reader, inputs, operator, uploads: new Map() };
    this.#push(step);
    for (const name of reader.node.outputs) if (name !== "") this.#onHost.set(name, step);
  }

  /** A host step's output on the GPU, uploaded each time the step has run. */
  upload(name: string, type: DataType, shape: readonly number[]): GpuValue {
    const step = this.#onHost.get(name)!;
    let value = step.uploads.get(name);
    if (value === undefined) {
      value = this.allocate(gpuTypeOf(type, this.float), shape, undefined, {
        own: true,
        label: name,
      });
      step.uploads.set(name, value);
      this.define(name, value);
    }
    return value;
  }

  #push(step: GpuStep | HostStep): void {
    const at = this.#steps.length;
    const touched = "record" in step
      ? [...step.reads, ...step.writes]
      : step.inputs.flatMap((input) => input?.from === "gpu" ? [input.value.memory] : []);
    for (const memory of touched) {
      memory.firstStep = Math.min(memory.firstStep, at);
      memory.lastStep = Math.max(memory.lastStep, at);
    }
    this.#steps.push(step);
    this.#owners.push(this.#current);
  }

  /**
   * Waits for all kernels, gives every value its memory and records.
   * @throws {StepError} where a node's kernel cannot be compiled or recorded.
   * @throws {ModelError} where a weight's file is missing or too short.
   * @throws {KernelError} where memory runs out.
   */
  async lay(): Promise<Laid> {
    const made: { destroy(): void }[] = [];
    try {
      await Promise.all([
        ...this.#pending,
        ...this.#steps.map((step, i) =>
          "record" in step
            ? step.ready.catch((cause) => failed(this.#owners[i]!, cause))
            : undefined
        ),
      ]);
      const buffers = this.#assign();
      made.push(...buffers);
      const recording = new Recording(this.gpu);
      const { parts, spans } = this.#record(recording);
      const valueBytes = buffers.reduce((sum, { buffer }) => sum + buffer.size, 0);
      const owned = [recording, ...buffers, this.#ownWeights, ...this.#owned];
      return { recording, parts, spans, valueBytes, owned };
    } catch (error) {
      // Kernels that are still compiling have no tables yet; what is here goes.
      for (const one of [...made, this.#ownWeights, ...this.#owned]) one.destroy();
      throw error;
    }
  }

  #record(recording: Recording): Pick<Laid, "parts" | "spans"> {
    const parts: Part[] = [];
    const spans: { node: string; operator: string; from: number; to: number }[] = [];
    let from = 0;
    const endPart = () => {
      if (recording.length > from) parts.push({ on: "gpu", from, to: recording.length });
      from = recording.length;
    };
    for (const [i, step] of this.#steps.entries()) {
      if (!("record" in step)) {
        endPart();
        parts.push({ on: "host", step });
        continue;
      }
      const begin = recording.length;
      try {
        step.record(recording);
      } catch (cause) {
        failed(this.#owners[i]!, cause);
      }
      const { name: node, operator } = this.#owners[i]!;
      const last = spans.at(-1);
      if (last?.node === node && last.to === begin) last.to = recording.length;
      else spans.push({ node, operator, from: begin, to: recording.length });
    }
    endPart();
    return { parts, spans };
  }

  /** Gives memory to values: each takes the smallest free buffer that is large enough. */
  #assign(): Tensor[] {
    const starts: Memory[][] = this.#steps.map(() => []);
    const ends: Memory[][] = this.#steps.map(() => []);
    // Weights have theirs already, also where one is an output.
    const owned = [...new Set(this.#kept)].filter(({ tensor }) => tensor === undefined);
    const seen = new Set(owned);
    for (const step of this.#steps) {
      const memories = "record" in step
        ? [...step.reads, ...step.writes]
        : [...step.uploads.values()].map(({ memory }) => memory);
      for (const memory of memories) {
        if (seen.has(memory) || memory.tensor !== undefined) continue;
        seen.add(memory);
        if (memory.own) owned.push(memory);
        else {
          starts[memory.firstStep]!.push(memory);
          ends[memory.lastStep]!.push(memory);
        }
      }
    }
    interface Slot {
      bytes: number;
      readonly users: Memory[];
    }
    const slots: Slot[] = [];
    let free: Slot[] = [];
    const slotOf = new Map<Memory, Slot>();
    for (let i = 0; i < this.#steps.length; i++) {
      for (const memory of starts[i]!.sort((a, b) => b.bytes - a.bytes)) {
        const fitting = free.filter(({ bytes }) => bytes >= memory.bytes);
        // The smallest that is large enough, else the largest, grown.
        const slot = fitting.length > 0
          ? fitting.reduce((a, b) => b.bytes < a.bytes ? b : a)
          : free.length > 0
          ? free.reduce((a, b) => b.bytes > a.bytes ? b : a)
          : undefined;
        if (slot === undefined) {
          const made = { bytes: memory.bytes, users: [memory] };
          slots.push(made);
          slotOf.set(memory, made);
          continue;
        }
        free = free.filter((other) => other !== slot);
        slot.bytes = Math.max(slot.bytes, memory.bytes);
        slot.users.push(memory);
        slotOf.set(memory, slot);
      }
      for (const memory of ends[i]!) free.push(slotOf.get(memory)!);
    }
    const make = (bytes: number, users: readonly Memory[], label: string) => {
      const tensor = new Tensor(this.gpu, "u32", [Math.ceil(Math.max(16, bytes) / 4)], label);
      for (const memory of users) memory.tensor = tensor;
      return tensor;
    };
    const made: Tensor[] = [];
    try {
      for (const { bytes, users } of slots) made.push(make(bytes, users, "values"));
      for (const memory of owned) made.push(make(memory.bytes, [memory], "value"));
    } catch (error) {
      for (const tensor of made) tensor.destroy();
      throw error;
    }
    return made;
  }
}
