/** A session's constants on the GPU: each uploaded once in each form that some kernel wants. */

import type { Gpu } from "../../kernels/device.ts";
import { Tensor, type TensorData } from "../../kernels/tensor.ts";
import { type Constant, isExternal } from "./graph.ts";
import {
  type DataType,
  elementCount,
  emptyData,
  type HostTensor,
  isFloat,
  numbersOf,
  tensorOf,
} from "./host_tensor.ts";

/** Element types of values on the GPU: integers of any width and bools are i32 or u32 there. */
export type GpuType = "f32" | "f16" | "i32" | "u32";

/** How floats are stored between dispatches; sums are in f32 either way. */
export type FloatType = "f32" | "f16";

export function gpuTypeOf(type: DataType, float: FloatType): GpuType {
  if (isFloat(type)) return float;
  // A bool is a u32 of 0 or 1.
  return type.startsWith("uint") || type === "bool" ? "u32" : "i32";
}

/** Elements as the GPU holds them; integers beyond 32 bits become the nearest that there is. */
export function toGpu(tensor: HostTensor, type: GpuType): TensorData {
  const { data } = tensor;
  if (type === "f32") {
    return data instanceof Float32Array ? data : Float32Array.from(numbersOf(tensor));
  }
  if (type === "f16") {
    return data instanceof Float16Array ? data : new Float16Array(numbersOf(tensor));
  }
  const [least, most] = type === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
  const numbers = numbersOf(tensor);
  const whole = type === "i32" ? new Int32Array(numbers.length) : new Uint32Array(numbers.length);
  for (let i = 0; i < numbers.length; i++) whole[i] = Math.min(Math.max(numbers[i]!, least), most);
  return whole;
}

/** Bytes from the GPU as the model's type: what was i32 there may be a bool or an int64. */
export function fromGpu(
  bytes: ArrayBuffer,
  gpuType: GpuType,
  type: DataType,
  shape: readonly number[],
): HostTensor {
  if (gpuType === "f32") {
    const data = new Float32Array(bytes);
    return type === "float32" ? { type, shape, data } : tensorOf(type, shape, data);
  }
  if (gpuType === "f16") return tensorOf(type, shape, new Float16Array(bytes));
  return tensorOf(type, shape, gpuType === "u32" ? new Uint32Array(bytes) : new Int32Array(bytes));
}

/** The whole of a constant in the host's memory. @throws {ModelError} where its file is too short. */
export async function loadConstant(constant: Constant): Promise<HostTensor> {
  if (!isExternal(constant)) return constant;
  const { type, shape, byteLength } = constant;
  const bytes = await constant.read(0, byteLength);
  if (type === "bfloat16") {
    // The upper half of an f32.
    const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, elementCount(shape));
    const data = new Float32Array(halves.length);
    const bits = new Uint32Array(data.buffer);
    for (let i = 0; i < bits.length; i++) bits[i] = halves[i]! << 16;
    return { type, shape, data };
  }
  const data = emptyData(type, elementCount(shape));
  new Uint8Array(data.buffer).set(bytes);
  return { type, shape, data };
}

/** Elements and shape of a constant as a kernel wants it. */
export interface Packed {
  readonly data: TensorData;
  readonly shape: readonly number[];
}

/**
 * Uploads under way at once: what was handed to the queue lies in the host's memory a second time
 * until the GPU has it.
 */
const UPLOADED_AT_ONCE = 64 * 2 ** 20;

export class Weights {
  readonly #tensors = new Map<string, Promise<Tensor>>();
  /** Loads come one after the other: a model's weights need not all be in the host's memory at once. */
  #last: Promise<unknown> = Promise.resolve();
  #bytes = 0;
  /** Bytes since uploads were last waited for. */
  #underWay = 0;

  /** Bytes on the GPU so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * The constant's tensor in the form that `key` names; made at the first call.
   * @throws {ModelError} where its file is missing or too short. @throws {KernelError} out of memory.
   */
  get(
    gpu: Gpu,
    key: string,
    constant: Constant,
    pack: (tensor: HostTensor) => Packed | Promise<Packed>,
  ): Promise<Tensor> {
    let made = this.#tensors.get(key);
    if (made === undefined) {
      made = this.#last.then(async () => {
        const { data, shape } = await pack(await loadConstant(constant));
        const tensor = Tensor.from(gpu, data, shape, key);
        this.#bytes += tensor.buffer.size;
        this.#underWay += tensor.buffer.size;
        if (this.#underWay > UPLOADED_AT_ONCE) {
          this.#underWay = 0;
          gpu.submit([]); // Writes wait for a submission.
          await gpu.done();
        }
        return tensor;
      });
      this.#last = made.catch(() => this.#tensors.delete(key));
      this.#tensors.set(key, made);
    }
    return made;
  }

  /** Frees them all; those asked for later are made anew. */
  async destroy(): Promise<void> {
    const tensors = [...this.#tensors.values()];
    this.#tensors.clear();
    this.#bytes = 0;
    for (const made of tensors) await made.then((tensor) => tensor.destroy(), () => {});
  }
}
