/** What the engine knows of an operator: shapes, its meaning on the host, and how the GPU computes it. */

import type { AttributeValue, Node } from "../graph.ts";
import { ModelError } from "../../errors.ts";
import type { DataType, HostTensor } from "../host_tensor.ts";

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
  /**
   * Types and shapes of the node's outputs, as many as the node names.
   * @throws {ModelError} where attributes, types or shapes break the operator's specification.
   */
  infer(node: NodeReader): readonly Typed[];
  /** Its value, in the specification's words and f64; for small tensors: shapes, indices, constants. */
  evaluate?(node: NodeReader, inputs: readonly (HostTensor | undefined)[]): readonly HostTensor[];
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
