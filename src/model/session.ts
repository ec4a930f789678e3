/**
 * A model that is ready to run on one device: its graph, its weights, and a plan for each set of
 * input shapes that it has met.
 */

import type { Gpu } from "../../kernels/device.ts";
import { Tensor } from "../../kernels/tensor.ts";
import type { Tuner } from "../../kernels/tuner.ts";
import { ModelError } from "../errors.ts";
import type { Graph, ValueInfo } from "./graph.ts";
import { elementCount, type HostTensor, isFloat } from "./host_tensor.ts";
import { dense, type Layout, rowMajor } from "./layout.ts";
import { convert } from "./lowering/convert.ts";
import { lowerings } from "./lowering/lowerings.ts";
import { readModel } from "./onnx.ts";
import { type GpuValue, type HostStep, type Laid, PlanBuilder, StepError } from "./plan.ts";
import { evaluateNode, specialise, type Specialised, type Step } from "./fold.ts";
import { type Input, NodeReader } from "./ops/operator.ts";
import { operatorName, operatorOf } from "./support.ts";
import { fuse } from "./fuse.ts";
import { type FloatType, fromGpu, gpuTypeOf, toGpu, Weights } from "./weights.ts";

/** `auto` compares f16 with f32 on the first batch. */
export type Precision = "f32" | "f16" | "auto";

export interface SessionOptions {
  /** How floats are stored between dispatches; default "f32". f16 needs the adapter's "shader-f16", else it is f32. */
  readonly precision?: Precision;
  /** Told once what `auto` decided, and why. */
  readonly onPrecision?: (message: string) => void;
  /** Times the tiles of matrix products that it does not know yet; without it the built-in ones are taken. */
  readonly tuner?: Tuner;
}

/** Plans kept for shapes that were met before; the one that was not used for longest goes. */
const PLANS = 4;

/**
 * Of an output's largest absolute value, how far f16 may be from f32 before `auto` takes f32: what
 * the project's own architectures stay below in f16.
 */
const AUTO_BOUND = 2e-2;

/** Shapes of a model's inputs, by name. */
export type Shapes = Readonly<Record<string, readonly number[]>>;

/** What a run is given: tensors on the host, or on the GPU, row-major, in the model's own shape. */
export type Feeds = Readonly<Record<string, HostTensor | Tensor>>;

export interface PlanOptions {
  /**
   * Inputs and outputs that lie otherwise than row-major, by name, such as `channelsLast(4)`:
   * [N, C, H, W] as [N, H, W, C] with C padded to a multiple of four. An input is in the plan's own
   * type of floats then: `plan.inputs` has the tensors to write into. Outputs are f32.
   */
  readonly layouts?: Readonly<Record<string, Layout>>;
}

/** Reads a model. @throws {ModelError} for a file that is broken or that asks for what is not supported. */
export async function loadModel(
  gpu: Gpu,
  source: Uint8Array | string,
  options: SessionOptions = {},
): Promise<Session> {
  return new Session(gpu, fuse(await readModel(source)), options);
}

/** Feeds a plan, runs it and reads its outputs. */
export type PlanRun = (plan: Plan) => Promise<Record<string, HostTensor>>;

/** A plan that the session keeps, and who is at it. */
interface Kept {
  readonly plan: Promise<Plan>;
  readonly float: FloatType;
  /** Runs under way: a plan is freed once there are none. */
  users: number;
  /** Asked for by `plan`: its caller goes on using it, so that it stays as long as the session. */
  held: boolean;
  gone: boolean;
}

export class Session {
  /** By how floats are stored. */
  readonly #weights: Readonly<Record<FloatType, Weights>> = {
    f32: new Weights(),
    f16: new Weights(),
  };
  readonly #plans = new Map<string, Kept>();
  readonly #running = new Set<Promise<unknown>>();
  readonly #options: SessionOptions;
  #float: FloatType | undefined;
  #deciding: Promise<unknown> | undefined;
  #isDestroyed = false;

  constructor(readonly gpu: Gpu, readonly graph: Graph, options: SessionOptions = {}) {
    this.#options = options;
    const { precision = "f32" } = options;
    if (precision === "f32" || !gpu.features.has("shader-f16")) this.#float = "f32";
    else if (precision === "f16") this.#float = "f16";
  }

  get inputs(): readonly ValueInfo[] {
    return this.graph.inputs;
  }

  get outputs(): readonly ValueInfo[] {
    return this.graph.outputs;
  }

  /** Bytes of weights on the GPU. */
  get weightBytes(): number {
    return this.#weights.f32.bytes + this.#weights.f16.bytes;
  }

  /** How floats are stored; undefined until the first run has decided it. */
  get float(): FloatType | undefined {
    return this.#float;
  }

  /**
   * The plan for those shapes, made at the first call and kept as long as the session. In `auto` it
   * is in f32 until the first run has decided.
   * @throws {RangeError} where the shapes are not what the model takes.
   * @throws {ModelError} where an operator cannot take them.
   * @throws {KernelError} where a kernel does not compile or memory runs out.
   * @throws {TypeError} once the session is destroyed.
   */
  async plan(shapes: Shapes, options: PlanOptions = {}): Promise<Plan> {
    this.#refuseDestroyed();
    const kept = this.#keep(this.#float ?? "f32", shapes, options);
    kept.held = true;
    return await kept.plan;
  }

  #refuseDestroyed(): void {
    if (this.#isDestroyed) throw new TypeError("Cannot run a model whose session was destroyed");
  }

  #keep(float: FloatType, shapes: Shapes, { layouts = {} }: PlanOptions = {}): Kept {
    const key = JSON.stringify([float, this.inputs.map(({ name }) => shapes[name]), layouts]);
    let kept = this.#plans.get(key);
    if (kept === undefined) {
      const plan = Plan.make(
        this.gpu,
        this.graph,
        this.#weights[float],
        float,
        shapes,
        layouts,
        this.#options.tuner,
      );
      const made: Kept = { plan, float, users: 0, held: false, gone: false };
      plan.catch(() => this.#plans.get(key) === made && this.#plans.delete(key));
      kept = made;
    }
    this.#plans.delete(key); // The one used last is last in the map.
    this.#plans.set(key, kept);
    let spare = [...this.#plans.values()].filter(({ held }) => !held).length - PLANS;
    for (const [oldest, old] of this.#plans) {
      if (spare <= 0) break;
      if (old.held || old === kept) continue;
      spare--;
      this.#evict(oldest, old);
    }
    return kept;
  }

  /** Lets a plan go; it is freed as soon as no run needs it. */
  #evict(key: string, kept: Kept): void {
    this.#plans.delete(key);
    kept.gone = true;
    this.#freeIfUnused(kept);
  }

  #freeIfUnused({ plan, users, gone }: Kept): void {
    if (gone && users === 0) plan.then((made) => made.destroy(), () => {});
  }

  async #use(
    float: FloatType,
    shapes: Shapes,
    options: PlanOptions,
    run: PlanRun,
  ): Promise<Record<string, HostTensor>> {
    const kept = this.#keep(float, shapes, options);
    kept.users++;
    try {
      return await run(await kept.plan);
    } finally {
      kept.users--;
      this.#freeIfUnused(kept);
    }
  }

  /**
   * Runs the model. Runs may overlap.
   * @returns each output on the host.
   * @throws {ModelError} where a feed is missing, is none of the model's or has another type.
   * @throws {RangeError} where a feed has a shape that the model does not take.
   * @throws {KernelError} where the device fails.
   * @throws {TypeError} once the session is destroyed.
   */
  async run(feeds: Feeds): Promise<Record<string, HostTensor>> {
    this.#check(feeds);
    const shapes = Object.fromEntries(
      Object.entries(feeds).map(([name, { shape }]) => [name, shape]),
    );
    return await this.decide(shapes, {}, (plan) => plan.run(feeds));
  }

  #check(feeds: Feeds): void {
    for (const { name } of this.inputs) {
      if (feeds[name] === undefined) {
        throw new ModelError(`Cannot run the model: input "${name}" is missing`);
      }
    }
    for (const name of Object.keys(feeds)) {
      if (!this.inputs.some((input) => input.name === name)) {
        throw new ModelError(`Cannot run the model: it has no input "${name}"`);
      }
    }
  }

  /**
   * Runs a plan; where `auto` is still open, both ways, which decides it. Those that come meanwhile
   * wait for it.
   * @param run feeds and runs the plan that it is given, and reads its outputs.
   * @returns the outputs of what was decided.
   * @throws {TypeError} once the session is destroyed. @throws what `plan` and `run` throw.
   */
  async decide(
    shapes: Shapes,
    options: PlanOptions,
    run: PlanRun,
  ): Promise<Record<string, HostTensor>> {
    this.#refuseDestroyed();
    const decided = this.#decide(shapes, options, run);
    this.#running.add(decided);
    try {
      return await decided;
    } finally {
      this.#running.delete(decided);
    }
  }

  async #decide(
    shapes: Shapes,
    options: PlanOptions,
    run: PlanRun,
  ): Promise<Record<string, HostTensor>> {
    while (this.#float === undefined && this.#deciding !== undefined) {
      await this.#deciding.catch(() => {});
    }
    if (this.#float !== undefined) return await this.#use(this.#float, shapes, options, run);
    const compared = this.#compare(shapes, options, run);
    this.#deciding = compared;
    try {
      return await compared;
    } finally {
      this.#deciding = undefined;
    }
  }

  async #compare(
    shapes: Shapes,
    options: PlanOptions,
    run: PlanRun,
  ): Promise<Record<string, HostTensor>> {
    const exact = await this.#use("f32", shapes, options, run);
    const half = await this.#use("f16", shapes, options, run);
    const { worst, output } = worstDifference(exact, half);
    const isGood = worst <= AUTO_BOUND;
    this.#float = isGood ? "f16" : "f32";
    this.#options.onPrecision?.(
      `PRECISION=auto takes ${this.#float}: on the first batch f16 differs from f32 by ` +
        `${Number.isFinite(worst) ? worst.toExponential(1) : "more than can be said"} of output ` +
        `"${output}"'s largest value, where ${AUTO_BOUND} is allowed`,
    );
    await this.#forget(isGood ? "f32" : "f16");
    return isGood ? half : exact;
  }

  /** Frees what was made for the other way of storing floats, unless somebody holds a plan of it. */
  async #forget(float: FloatType): Promise<void> {
    const own = [...this.#plans].filter(([, kept]) => kept.float === float);
    if (own.some(([, { held }]) => held)) return;
    for (const [key, kept] of own) this.#evict(key, kept);
    await this.#weights[float].destroy();
  }

  /** Frees plans and weights, once the runs that are under way are done. */
  async destroy(): Promise<void> {
    this.#isDestroyed = true;
    await Promise.allSettled(this.#running);
    const plans = [...this.#plans.values()];
    this.#plans.clear();
    for (const { plan } of plans) await plan.then((made) => made.destroy(), () => {});
    await this.#weights.f32.destroy();
    await this.#weights.f16.destroy();
  }
}

/**
 * Largest difference of any output, in parts of that output's largest absolute value; Infinity where
 * one is not finite. Of an output of classes or of yes and no: the share of elements that differ.
 */
function worstDifference(
  exact: Readonly<Record<string, HostTensor>>,
  other: Readonly<Record<string, HostTensor>>,
): { worst: number; output: string } {
  let worst = -1, output = "";
  for (const [name, { type, data }] of Object.entries(exact)) {
    const values = other[name]!.data;
    // Where a shape depends on data there may be more or fewer.
    let difference = data.length === values.length ? 0 : Infinity;
    let range = isFloat(type) ? 0 : data.length;
    for (let i = 0; i < data.length && difference < Infinity; i++) {
      const [a, b] = [Number(data[i]), Number(values[i])];
      if (!isFloat(type)) difference += a === b ? 0 : 1;
      else if (!Number.isFinite(a) || !Number.isFinite(b)) difference = Infinity;
      else {
        range = Math.max(range, Math.abs(a));
        difference = Math.max(difference, Math.abs(a - b));
      }
    }
    const relative = difference === 0 ? 0 : difference / range;
    if (relative > worst) [worst, output] = [relative, name];
  }
  return { worst: Math.max(worst, 0), output };
}

/** A model for certain shapes. Runs are one after the other. */
export class Plan {
  #last: Promise<unknown> = Promise.resolve();

  #isDestroyed = false;

  private constructor(
    readonly gpu: Gpu,
    readonly graph: Graph,
    readonly float: FloatType,
    readonly shapes: Shapes,
    /** Bytes of buffers for values, shared ones counted once, without weights. */
    readonly valueBytes: number,
    /** What a run reads: write into these and call `start`. */
    readonly inputs: ReadonlyMap<string, Tensor>,
    /** Each output: on the GPU after `start`, on the host, or known from the beginning. */
    readonly outputs: ReadonlyMap<string, GpuValue | "host" | HostTensor>,
    readonly laid: Laid,
  ) {}

  static async make(
    gpu: Gpu,
    graph: Graph,
    weights: Weights,
    float: FloatType,
    shapes: Shapes,
    layouts: Readonly<Record<string, Layout>>,
    tuner?: Tuner,
  ): Promise<Plan> {
    const specialised = specialise(graph, shapes);
    // What no kernel can take in these shapes runs on the host: that shows when kernels compile.
    const onHost = new Set<Step>();
    for (;;) {
      try {
        return await Plan.#build(
          gpu,
          graph,
          weights,
          float,
          shapes,
          layouts,
          specialised,
          onHost,
          tuner,
        );
      } catch (error) {
        if (!(error instanceof StepError)) throw error;
        const { step, cause } = error;
        if (step === undefined || onHost.has(step) || !(cause instanceof RangeError)) {
          throw error.as();
        }
        onHost.add(step);
      }
    }
  }

  static async #build(
    gpu: Gpu,
    graph: Graph,
    weights: Weights,
    float: FloatType,
    shapes: Shapes,
    layouts: Readonly<Record<string, Layout>>,
    { steps, values, constants }: Specialised,
    onHost: ReadonlySet<Step>,
    tuner: Tuner | undefined,
  ): Promise<Plan> {
    const shared = graph.constants;
    const builder = new PlanBuilder(gpu, float, weights, constants, shared, convert, tuner);
    const inputs: [string, GpuValue][] = [];
    for (const { name, type } of graph.inputs) {
      const shape = shapes[name]!;
      // As it comes it is f32 or an integer; the first step turns it into what the plan computes in.
      const own = gpuTypeOf(type, layouts[name] === undefined ? "f32" : float);
      const layout = layouts[name] ?? dense(shape.length);
      builder.begin(name, "input");
      const value = builder.allocate(own, shape, layout, { own: true, label: name });
      builder.keep(value);
      inputs.push([name, value]);
      builder.define(name, builder.converted(value, layout, gpuTypeOf(type, float)));
    }
    for (const step of steps) {
      const { node, reader, outputs } = step;
      const key = operatorName(node);
      builder.begin(node.name, key, step);
      // The GPU has no f64: what a model wants in it is computed in it. Of nothing kernels know nothing.
      const fits = !onHost.has(step) &&
        [...reader.inputs, ...outputs].every((value) =>
          value === undefined ||
          (value.shape !== undefined && !value.shape.includes(0) && value.type !== "float64")
        );
      try {
        if (fits && lowerings.get(key)?.(builder, step)) continue;
        builder.hostStep(reader, operatorOf(node)!);
      } catch (cause) {
        throw new StepError(step, node.name, key, cause);
      }
    }
    const results = new Map<string, GpuValue | "host" | HostTensor>();
    for (const { name, type } of graph.outputs) {
      builder.begin(name, "output");
      const known = values.get(name)?.known;
      if (known !== undefined) results.set(name, known);
      else if (builder.isOnHost(name)) results.set(name, "host");
      else results.set(name, builder.pinned(name, gpuTypeOf(type, "f32"), layouts[name]));
    }
    const laid = await builder.lay();
    return new Plan(
      gpu,
      graph,
      float,
      shapes,
      laid.valueBytes,
      new Map(inputs.map(([name, value]) => [name, value.tensor])),
      results,
      laid,
    );
  }

  /**
   * Runs with what is in `inputs`: where no node runs on the host all is submitted before this
   * returns, so that runs may overlap; else the caller waits for each before it writes the next.
   * @param given inputs that the host has as well, for nodes that run there.
   * @returns values that were computed on the host; outputs on the GPU are in `outputs`.
   */
  async start(given: Feeds = {}): Promise<ReadonlyMap<string, HostTensor>> {
    if (this.#isDestroyed) throw new TypeError("Cannot run a plan that was destroyed");
    const onHost = new Map<string, HostTensor>();
    for (const [name, feed] of Object.entries(given)) {
      if (!(feed instanceof Tensor)) onHost.set(name, feed);
    }
    for (const part of this.laid.parts) {
      if (part.on === "gpu") this.laid.recording.run(part.from, part.to);
      else await runOnHost(part.step, onHost);
    }
    return onHost;
  }

  /**
   * Runs on feeds and reads all outputs back.
   * @throws {ModelError} where a feed is missing or of another shape or type than the plan's.
   */
  run(feeds: Feeds): Promise<Record<string, HostTensor>> {
    // A step on the host in between would mix two runs up.
    if (!this.laid.parts.some(({ on }) => on === "host")) return this.#run(feeds);
    const run = this.#last.then(() => this.#run(feeds));
    this.#last = run.catch(() => {});
    return run;
  }

  async #run(feeds: Feeds): Promise<Record<string, HostTensor>> {
    for (const { name, type } of this.graph.inputs) this.#feed(name, type, feeds[name]);
    return await this.read(this.start(feeds));
  }

  /**
   * All outputs of a run, on the host.
   * @param started what `start` gave: reading is queued at once behind what it submitted.
   */
  async read(
    started: ReturnType<Plan["start"]>,
  ): Promise<Record<string, HostTensor>> {
    const needsHost = this.laid.parts.some(({ on }) => on === "host");
    const early = needsHost ? await started : undefined;
    const read = this.graph.outputs.map(async ({ name, type }): Promise<[string, HostTensor]> => {
      const output = this.outputs.get(name)!;
      if (output === "host") return [name, (early ?? await started).get(name)!];
      if (!("memory" in output)) return [name, output];
      const bytes = await output.tensor.readBytes();
      return [name, fromGpu(bytes, output.type, type, output.shape)];
    });
    return Object.fromEntries(await Promise.all(read));
  }

  #feed(name: string, type: ValueInfo["type"], feed: HostTensor | Tensor | undefined): void {
    const into = this.inputs.get(name)!;
    if (feed === undefined) {
      throw new ModelError(`Cannot run the model: input "${name}" is missing`);
    }
    if (feed instanceof Tensor) {
      if (feed.gpu !== this.gpu) {
        throw new ModelError(`Cannot run the model: input "${name}" is on another device`);
      }
      if (feed.type !== into.type || feed.byteLength !== into.byteLength) {
        throw new ModelError(
          `Cannot run the model: input "${name}" is ${feed.type} [${feed.shape.join(", ")}] on ` +
            `the GPU, ${into.type} [${into.shape.join(", ")}] is needed`,
        );
      }
      const encoder = this.gpu.device.createCommandEncoder({ label: name });
      encoder.copyBufferToBuffer(
        feed.buffer,
        0,
        into.buffer,
        0,
        Math.ceil(into.byteLength / 4) * 4,
      );
      this.gpu.submit([encoder.finish()]);
      return;
    }
    const shape = this.shapes[name]!;
    if (
      feed.type !== type || feed.shape.join() !== shape.join() ||
      feed.data.length !== elementCount(shape)
    ) {
      throw new ModelError(
        `Cannot run the model: input "${name}" is ${feed.type} [${feed.shape.join(", ")}] of ` +
          `${feed.data.length} elements, ${type} [${shape.join(", ")}] is needed`,
      );
    }
    if (into.shape.join() !== shape.join()) {
      throw new ModelError(
        `Cannot run the model: input "${name}" is row-major, the plan takes it otherwise`,
      );
    }
    into.write(toGpu(feed, into.type as "f32"));
  }

  /** Frees buffers; weights are the session's. */
  destroy(): void {
    if (this.#isDestroyed) return;
    this.#isDestroyed = true;
    for (const owned of this.laid.owned) owned.destroy();
  }
}

/** A value on the GPU in the host's memory, row-major, whichever way it lies there. */
async function readAsItIs(
  { value, type }: { readonly value: GpuValue; readonly type: ValueInfo["type"] },
): Promise<HostTensor> {
  const { shape, layout } = value;
  const stored = fromGpu(await value.tensor.readBytes(), value.type, type, value.physical);
  return { type, shape, data: rowMajor(stored.data, shape, layout) };
}

async function runOnHost(step: HostStep, onHost: Map<string, HostTensor>): Promise<void> {
  const inputs = await Promise.all(step.inputs.map(async (input): Promise<Input | undefined> => {
    if (input === undefined) return undefined;
    const known = input.from === "known"
      ? await input.load()
      : onHost.get(input.name) ?? (input.from === "gpu" ? await readAsItIs(input) : undefined);
    return known && { type: known.type, shape: known.shape, known };
  }));
  // Shapes that depended on data are known by now.
  const outputs = evaluateNode(step.operator, new NodeReader(step.reader.node, inputs));
  for (const [i, name] of step.reader.node.outputs.entries()) {
    if (name === "") continue;
    const output = outputs[i]!;
    onHost.set(name, output);
    const upload = step.uploads.get(name);
    if (upload !== undefined) upload.tensor.write(toGpu(output, upload.type));
  }
}
