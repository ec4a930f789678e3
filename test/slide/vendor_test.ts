/** Slides as several scanners write them (fixtures/make_vendor_slides.py), compared with OpenSlide. */

import { readFileSync } from "node:fs";
import { openSlide } from "../../src/slide/open.ts";
import { MemorySource, type Source } from "../../src/slide/source.ts";
import digests from "../fixtures/vendor/digests.json" with { type: "json" };
import { compareSlide, type SlideDigests } from "./digests.ts";
import { SparseSource } from "./sparse_source.ts";

const FOLDER = `${import.meta.dirname}/../fixtures/vendor/`;

function sourceOf(name: string): Source {
  const bytes = new Uint8Array(readFileSync(FOLDER + name));
  return name.endsWith(".parts")
    ? new SparseSource(bytes.subarray(0, 16), 2 ** 32, bytes.subarray(16))
    : new MemorySource(bytes);
}

for (const [name, expected] of Object.entries(digests as Record<string, SlideDigests>)) {
  Deno.test(`openSlide() reads ${name} as ${expected.reader} does`, async () => {
    const slide = await openSlide(sourceOf(name), { decoders: 2 });
    await compareSlide(slide, expected);
    await slide.close();
  });
}
