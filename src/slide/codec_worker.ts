/** A thread of codec_pool.ts: takes raw tiles, answers with their pixels. */

import { UnsupportedError } from "../errors.ts";
import type { Answer, Question } from "./codec_pool.ts";
import { decodeWithWasm } from "./wasm_codec.ts";

// What a thread sees, which the window's types do not have.
const thread = globalThis as unknown as {
  onmessage(event: MessageEvent<Question>): void;
  postMessage(answer: Answer, transfer?: Transferable[]): void;
};

/** One after the other, since libraries are asked for what they printed last. */
let last = Promise.resolve();
thread.onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};
thread.postMessage("ready");

async function answer({ id, tile }: Question): Promise<void> {
  try {
    const rgb = await decodeWithWasm(tile);
    thread.postMessage({ id, rgb }, [rgb.buffer]);
  } catch (error) {
    const feature = error instanceof UnsupportedError ? error.feature : undefined;
    thread.postMessage({ id, message: (error as Error).message, feature });
  }
}
