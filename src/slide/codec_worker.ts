/** A thread of codec_pool.ts: takes raw tiles, answers with their pixels. */

import { UnsupportedError } from "../errors.ts";
import type { Answer } from "./codec_pool.ts";
import type { RawTile } from "./slide.ts";
import { decodeWithWasm } from "./wasm_codec.ts";

// What a thread sees, which the window's types do not have.
const thread = globalThis as unknown as {
  onmessage(event: MessageEvent<RawTile>): void;
  postMessage(answer: Answer, transfer?: Transferable[]): void;
};

thread.onmessage = async ({ data: tile }) => {
  try {
    const rgb = await decodeWithWasm(tile);
    thread.postMessage({ rgb }, [rgb.buffer]);
  } catch (error) {
    const feature = error instanceof UnsupportedError ? error.feature : undefined;
    thread.postMessage({ message: (error as Error).message, feature });
  }
};
thread.postMessage("ready");
