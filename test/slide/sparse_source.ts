/** A file of which most is nothing, for what lies past 4 GiB. */

import { MemorySource, type Source } from "../../src/slide/source.ts";

/** The first bytes of a file, then zeros, and from `tailAt` on the rest. */
export class SparseSource implements Source {
  readonly location = "sparse";
  readonly sizeBytes: number;
  readonly #head: Uint8Array;
  readonly #tail: MemorySource;
  constructor(head: Uint8Array, readonly tailAt: number, tail: Uint8Array) {
    this.#head = head;
    this.#tail = new MemorySource(tail);
    this.sizeBytes = tailAt + tail.length;
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    if (offsetBytes >= this.tailAt) {
      return await this.#tail.read(offsetBytes - this.tailAt, lengthBytes);
    }
    const data = new Uint8Array(Math.min(lengthBytes, this.tailAt - offsetBytes));
    data.set(this.#head.subarray(offsetBytes, offsetBytes + data.length));
    return data;
  }

  async close(): Promise<void> {
    await this.#tail.close();
  }
}
