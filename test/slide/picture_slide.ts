/** A picture in memory as a slide of one level, for tests of what reads slides. */

import type { Picture, Region, Slide } from "../../src/slide/slide.ts";

/** @param mpp micrometres per pixel; undefined where the slide shall not say. */
export function pictureSlide({ data, widthPx, heightPx }: Picture, mpp: number | undefined): Slide {
  return {
    format: "picture",
    levels: [{ widthPx, heightPx, downsample: 1, tileWidthPx: 256, tileHeightPx: 256 }],
    properties: { vendor: "test", mppX: mpp, mppY: mpp, objectivePower: undefined, all: {} },
    associated: new Map(),
    background: [255, 255, 255],
    icc: undefined,
    // deno-lint-ignore require-await -- async so that an abort rejects
    async readRegion(region: Region): Promise<Picture> {
      region.signal?.throwIfAborted();
      const { xPx = region.x0Px!, yPx = region.y0Px! } = region;
      const out = new Uint8Array(region.widthPx * region.heightPx * 3).fill(255);
      for (let y = 0; y < region.heightPx; y++) {
        for (let x = 0; x < region.widthPx; x++) {
          const [sx, sy] = [xPx + x, yPx + y];
          if (sx < 0 || sy < 0 || sx >= widthPx || sy >= heightPx) continue;
          const from = 3 * (sy * widthPx + sx);
          out.set(data.subarray(from, from + 3), 3 * (y * region.widthPx + x));
        }
      }
      return { data: out, widthPx: region.widthPx, heightPx: region.heightPx };
    },
    levelFor: () => 0,
    badTiles: 0,
    rawTile: () => Promise.reject(new RangeError("There are no tiles")),
    close: () => Promise.resolve(),
  };
}
