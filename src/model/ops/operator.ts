/** What the engine knows of an operator: shapes, its meaning on the host, and how the GPU computes it. */

import type { AttributeValue, Node } from "../graph.ts";
import { ModelError } from "../../errors.ts";
import { type DataType, type HostTensor, isFloat, tensorOf } from "../host_tensor.ts";

/** A value's type and concrete shape; `undefined` where it depends on data that only a run has. */
export interface Typed {
  readonly type: DataType;
  readonly shape: readonly number[] | undefined;
}

/** A node's input while a plan for concrete shapes is made. */
export interface Input extends Typed {
  /** Its elements, where they are known before the run. */
  readonly known: HostTensor | undefined;
}

/** One operator; a file in this folder holds a family. */
export interface Operator {
  /** Attributes that it knows; a node with another is refused. */
  readonly attributes: ReadonlySet<string>;
  /**
   * Types of the node's outputs, from the types of its inputs alone.
   * @throws {ModelError} where attributes or types break the operator's specification.
   */
  types(node: NodeReader): readonly DataType[];
  /**
   * Types and shapes of the node's outputs, as many as the node names. A shape is undefined where
   * it, or that of an input, depends on data.
   * @throws {ModelError} where attributes, types or shapes break the operator's specification.
   */
  infer(node: NodeReader): readonly Typed[];
  /** Its value, in the specification's words and f64; slow for what is large. */
  evaluate(node: NodeReader, inputs: readonly (HostTensor | undefined)[]): readonly HostTensor[];
  /** Whether an output's element takes more than a step or two: constants are folded within bounds. */
  readonly heavy: boolean;
}

/** How `define` is told of an operator. */
interface Definition {
  /** Names of its attributes in all versions, separated by spaces. */
  readonly attributes?: string;
  /** Fewest and most inputs. */
  readonly inputs: readonly [number, number];
  /** Most outputs; one where that is not said. */
  readonly outputs?: number;
  readonly heavy?: true;
  /** Whether the first input must be of a floating-point type. */
  readonly floats?: true;
  /** Types of the outputs; the first input's where that is not said. */
  types?(node: NodeReader): readonly DataType[];
  /** Shapes of the outputs, where all of the inputs' are known; undefined for one that depends on data. */
  shapes(node: NodeReader): readonly (readonly number[] | undefined)[];
  /** Elements of the outputs, or tensors where a shape depends on data or a type holds more than f64 does. */
  compute(
    node: NodeReader,
    inputs: readonly HostTensor[],
    outputs: readonly Typed[],
  ): readonly (HostTensor | ArrayLike<number>)[];
}

/** An operator of its definition: counts are checked, and what each version shares is done here. */
export function define(definition: Definition): Operator {
  const { inputs: [fewest, most], outputs: mostOutputs = 1 } = definition;
  const types = (node: NodeReader) => {
    const given = node.inputs.length;
    if (given < fewest || given > most) throw node.fail(`it has ${given} inputs`);
    if (node.node.outputs.length > mostOutputs) {
      throw node.fail(`it has ${node.node.outputs.length} outputs`);
    }
    for (let i = 0; i < fewest; i++) node.input(i);
    if (definition.floats && !isFloat(node.input(0).type)) {
      throw node.fail(`type ${node.input(0).type}`);
    }
    const first = () => new Array<DataType>(mostOutputs).fill(node.input(0).type);
    return (definition.types?.(node) ?? first()).slice(0, node.node.outputs.length);
  };
  const infer = (node: NodeReader): readonly Typed[] => {
    const typed = types(node);
    const open = node.inputs.some((input) => input !== undefined && input.shape === undefined);
    const shapes = open ? [] : definition.shapes(node);
    return typed.map((type, i) => ({ type, shape: shapes[i] }));
  };
  return {
    attributes: new Set(definition.attributes?.split(" ")),
    heavy: definition.heavy ?? false,
    types,
    infer,
    evaluate: (node, inputs) => {
      const typed = infer(node);
      // Optional inputs that are left out are undefined: a definition that has them looks.
      const computed = definition.compute(node, inputs as readonly HostTensor[], typed);
      return typed.map(({ type, shape }, i) => {
        const value = computed[i];
        if (value === undefined) throw node.fail(`output ${i} is not computed`);
        if ("data" in value) return value;
        if (shape === undefined) throw node.fail(`output ${i} has no shape`);
        return tensorOf(type, shape, value);
      });
    },
  };
}

/** A node with what is known of its inputs: attributes read with their type checked. */
export class NodeReader {
  constructor(readonly node: Node, readonly inputs: readonly (Input | undefined)[]) {}

  /** An error that names the node. */
  fail(why: string, cause?: unknown): ModelError {
    const { name, op, domain } = this.node;
    const operator = domain === "" ? op : `${domain}.${op}`;
    return new ModelError(`Cannot use node "${name}" (${operator}): ${why}`, {
      node: name,
      operator,
    }, { cause });
  }

  /** The input at `i`. @throws {ModelError} where it is left out. */
  input(i: number): Input {
    const input = this.inputs[i];
    if (input === undefined) throw this.fail(`input ${i} is missing`);
    return input;
  }

  /** The shape of the input at `i`. @throws {ModelError} where it is left out or depends on data. */
  shape(i: number): readonly number[] {
    const { shape } = this.input(i);
    if (shape === undefined) throw this.fail(`the shape of input ${i} depends on the data`);
    return shape;
  }

  #attribute<T>(
    name: string,
    is: (value: AttributeValue) => value is AttributeValue & T,
    kind: string,
  ): T | undefined {
    const value = this.node.attributes.get(name);
    if (value === undefined) return undefined;
    if (!is(value)) throw this.fail(`attribute "${name}" is no ${kind}`);
    return value;
  }

  /** A number (INT or FLOAT). */
  number(name: string, byDefault: number): number {
    return this.#attribute(name, (v) => typeof v === "number", "number") ?? byDefault;
  }

  text(name: string, byDefault: string): string {
    return this.#attribute(name, (v) => typeof v === "string", "string") ?? byDefault;
  }

  /** A list of numbers (INTS or FLOATS). */
  numbers(name: string): readonly number[] | undefined {
    return this.#attribute(
      name,
      (v): v is readonly number[] => Array.isArray(v) && v.every((x) => typeof x === "number"),
      "list of numbers",
    );
  }

  /** A tensor. */
  tensor(name: string): HostTensor | undefined {
    return this.#attribute(
      name,
      (v): v is HostTensor => typeof v === "object" && !Array.isArray(v) && "data" in v,
      "tensor",
    );
  }

  /** An axis of `rank`, counted from the end where it is negative. @throws {ModelError} where it is none. */
  axis(axis: number, rank: number): number {
    const counted = axis < 0 ? axis + rank : axis;
    if (!Number.isInteger(axis) || counted < 0 || counted >= rank) {
      throw this.fail(`axis ${axis} is none of ${rank}`);
    }
    return counted;
  }
}
