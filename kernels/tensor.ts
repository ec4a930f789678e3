/** A buffer on the GPU with a shape and a type; uploads and reads back. */

import { BufferUsage, type Gpu, MapMode } from "./device.ts";
import { KernelError } from "./errors.ts";

const BYTES = { f32: 4, f16: 2, u32: 4, i32: 4, u8: 1 } as const;

/** Bytes of one element. */
export function bytesOf(type: ElementType): number {
  return BYTES[type];
}

/** What a tensor is made from and written with. */
export type TensorData = Float32Array | Float16Array | Uint32Array | Int32Array | Uint8Array;

/** Element types; `u8` lies packed, four to a u32, since WGSL has no bytes. */
export type ElementType = keyof typeof BYTES;

let lastId = 0;

/**
 * Buffers to read back through, by size: making and mapping a new one costs 1 to 3 ms for a
 * megabyte, one that was used before 0.2 to 0.7.
 */
const stagingPools = new WeakMap<Gpu, Map<number, GPUBuffer[]>>();
/** Reads of one size that are usually under way at once. */
const POOLED_PER_SIZE = 4;

function stagingPool(gpu: Gpu, size: number): GPUBuffer[] {
  let pools = stagingPools.get(gpu);
  if (pools === undefined) stagingPools.set(gpu, pools = new Map());
  let pool = pools.get(size);
  if (pool === undefined) pools.set(size, pool = []);
  return pool;
}

/** Shape, outermost first, and type over a storage buffer padded to 16 bytes. */
export class Tensor {
  /** Unique in the process: what caches of bind groups go by. */
  readonly id = ++lastId;
  readonly buffer: GPUBuffer;
  /** Bytes of the elements, without padding. */
  readonly byteLength: number;

  /**
   * Allocates on the device; what it holds is zero.
   * @throws {RangeError} for a negative or fractional shape.
   * @throws {KernelError} where the device allows no buffer of that size.
   */
  constructor(
    readonly gpu: Gpu,
    readonly type: ElementType,
    readonly shape: readonly number[],
    readonly label = "tensor",
  ) {
    let count = 1;
    for (const size of shape) {
      if (!Number.isSafeInteger(size) || size < 0) {
        throw new RangeError(`Cannot make a tensor of shape [${shape.join(", ")}]`);
      }
      count *= size;
    }
    this.byteLength = count * BYTES[type];
    const size = Math.max(16, Math.ceil(this.byteLength / 16) * 16);
    const limit = Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
    if (size > limit) {
      throw new KernelError(
        `Cannot allocate ${size} bytes for "${label}" [${shape.join(", ")}]: ` +
          `the GPU "${gpu.adapter.name}" binds at most ${limit}`,
        "device",
      );
    }
    gpu.check();
    this.buffer = gpu.device.createBuffer({
      label,
      size,
      usage: BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST,
    });
  }

  /**
   * The same memory under another shape of as many elements. It is freed with the tensor it is of.
   * @throws {RangeError} where the number of elements differs.
   */
  view(shape: readonly number[]): Tensor {
    const count = (of: readonly number[]) => of.reduce((a, b) => a * b, 1);
    if (count(shape) !== count(this.shape)) {
      throw new RangeError(
        `Cannot view "${this.label}" [${this.shape.join(", ")}] as [${shape.join(", ")}]`,
      );
    }
    return Object.create(this, { shape: { value: shape } }) as Tensor;
  }

  /**
   * The same memory as a tensor of another type or shape, of at most as many bytes as the buffer
   * has: what a plan shares among values whose lives do not overlap. It is freed with this one.
   * @throws {RangeError} where it does not fit.
   */
  place(type: ElementType, shape: readonly number[], label = this.label): Tensor {
    const byteLength = shape.reduce((a, b) => a * b, BYTES[type]);
    if (byteLength > this.buffer.size) {
      throw new RangeError(
        `Cannot place ${type} [${
          shape.join(", ")
        }] in the ${this.buffer.size} bytes of "${this.label}"`,
      );
    }
    return Object.create(this, {
      type: { value: type },
      shape: { value: shape },
      label: { value: label },
      byteLength: { value: byteLength },
    }) as Tensor;
  }

  /** Makes a tensor that holds `data`, whose length must be that of the shape. */
  static from(
    gpu: Gpu,
    data: TensorData,
    shape: readonly number[],
    label?: string,
  ): Tensor {
    const type = data instanceof Float32Array
      ? "f32"
      : data instanceof Float16Array
      ? "f16"
      : data instanceof Uint32Array
      ? "u32"
      : data instanceof Int32Array
      ? "i32"
      : "u8";
    const tensor = new Tensor(gpu, type, shape, label);
    tensor.write(data);
    return tensor;
  }

  /** Uploads all elements. @throws {RangeError} where the number of bytes differs. */
  write(data: TensorData): void {
    if (data.byteLength !== this.byteLength) {
      throw new RangeError(
        `Cannot write ${data.byteLength} bytes into "${this.label}" [${
          this.shape.join(", ")
        }] of ${this.byteLength}`,
      );
    }
    // Dawn takes neither shared memory nor a length that is no multiple of four.
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const whole = bytes.length & ~3;
    const { queue } = this.gpu.device;
    if (whole > 0) {
      const even = bytes.subarray(0, whole);
      queue.writeBuffer(
        this.buffer,
        0,
        even.buffer instanceof ArrayBuffer ? even as Uint8Array<ArrayBuffer> : even.slice(),
      );
    }
    if (whole < bytes.length) {
      const rest = new Uint8Array(4);
      rest.set(bytes.subarray(whole));
      queue.writeBuffer(this.buffer, whole, rest);
    }
  }

  /**
   * Copies the bytes back once everything submitted is done.
   * @throws {KernelError} where the device fails meanwhile.
   */
  async readBytes(): Promise<ArrayBuffer> {
    const { device } = this.gpu;
    const size = Math.max(16, Math.ceil(this.byteLength / 16) * 16);
    const pool = stagingPool(this.gpu, size);
    const staging = pool.pop() ?? device.createBuffer({
      label: "read back",
      size,
      usage: BufferUsage.COPY_DST | BufferUsage.MAP_READ,
    });
    try {
      const encoder = device.createCommandEncoder({ label: `${this.label} read back` });
      encoder.copyBufferToBuffer(this.buffer, 0, staging, 0, size);
      this.gpu.submit([encoder.finish()]);
      await this.gpu.wait(staging.mapAsync(MapMode.READ));
      const bytes = staging.getMappedRange().slice(0, this.byteLength);
      staging.unmap();
      if (pool.length < POOLED_PER_SIZE) pool.push(staging);
      else staging.destroy();
      return bytes;
    } catch (error) {
      staging.destroy();
      throw error;
    }
  }

  /** The elements of an `f32` or `f16` tensor. @throws {TypeError} for another type. */
  async readFloats(): Promise<Float32Array> {
    if (this.type === "f16") return Float32Array.from(new Float16Array(await this.readBytes()));
    if (this.type !== "f32") throw new TypeError(`Cannot read "${this.label}" as floats`);
    return new Float32Array(await this.readBytes());
  }

  /** Frees the device's memory; what still runs on it finishes first. */
  destroy(): void {
    this.buffer.destroy();
  }
}
