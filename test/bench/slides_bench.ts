/**
 * How fast slides open and tiles are decoded. An iteration of «every tile» reads level 0 of
 * CMU-1-Small-Region.svs: 130 tiles of 240 × 240 px, RGB JPEG 4:4:4, in regions of a tile each, and
 * nothing is cached; tiles/s is 130 × iter/s.
 */

import { openSlide } from "../../src/slide/open.ts";
import { dataPath } from "../data.ts";

const path = dataPath("slides/svs/CMU-1-Small-Region.svs");

if (path !== undefined) {
  Deno.bench("slides: open CMU-1-Small-Region", { group: "open", n: 200, warmup: 20 }, async () => {
    await (await openSlide(path)).close();
  });

  for (const decoders of [0, 1, 2]) {
    const slide = await openSlide(path, { decoders, cacheBytes: 0 });
    const { widthPx, heightPx, tileWidthPx, tileHeightPx } = slide.levels[0]!;
    const baseline = decoders === 0;
    const name = `with ${decoders} decoders`;

    Deno.bench(`slides: level 0 as one region ${name}`, { group: "region", baseline }, async () => {
      await slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx, heightPx });
    });

    Deno.bench(`slides: every tile ${name}`, { group: "tiles", baseline }, async () => {
      const reads: Promise<unknown>[] = [];
      for (let y0Px = 0; y0Px < heightPx; y0Px += tileHeightPx) {
        for (let x0Px = 0; x0Px < widthPx; x0Px += tileWidthPx) {
          reads.push(slide.readRegion({
            level: 0,
            x0Px,
            y0Px,
            widthPx: Math.min(tileWidthPx, widthPx - x0Px),
            heightPx: Math.min(tileHeightPx, heightPx - y0Px),
          }));
        }
      }
      await Promise.all(reads);
    });
  }
}
