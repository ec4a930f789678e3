/** A source that remembers what was read from it. */

import { MemorySource } from "../../src/slide/source.ts";

export class RecordingSource extends MemorySource {
  readonly reads: { readonly offsetBytes: number; readonly lengthBytes: number }[] = [];
  closed = false;
  /** Called before each read. */
  beforeRead: (() => void) | undefined;

  override async read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    this.beforeRead?.();
    this.reads.push({ offsetBytes, lengthBytes });
    return await super.read(offsetBytes, lengthBytes);
  }

  override async close(): Promise<void> {
    this.closed = true;
    await super.close();
  }

  /** Bytes that were asked for, where they lie in the source. */
  get bytesRead(): number {
    return this.reads.reduce(
      (sum, { offsetBytes, lengthBytes }) =>
        sum + Math.max(0, Math.min(lengthBytes, this.sizeBytes - offsetBytes)),
      0,
    );
  }
}
