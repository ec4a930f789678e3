/** Placeholder results, as the original template makes them: four boxes in a 2×2 grid. */

import type { Context } from "../context.ts";
import { boxFeature, featureCollection } from "../results/geojson.ts";
import type { Results } from "../results/schema.ts";
import type { Slide } from "../slide/slide.ts";

/** Results that this file made: development mode calls them fake. */
const placeholders = new WeakSet<object>();

/** Whether these are the placeholders of `classifyGrid`. */
export function isPlaceholder(results: Results): boolean {
  return placeholders.has(results);
}

/**
 * Four squares, each centred on a quadrant, of side min(width, height) / 8: for trying the whole
 * chain. They mean nothing.
 */
export function classifyGrid(slide: Slide, { scanId }: Context): Results {
  const { widthPx, heightPx } = slide.levels[0]!;
  const side = Math.min(widthPx, heightPx) / 8;
  const squares = [[1, 1], [3, 1], [1, 3], [3, 3]].map(([column, row]) =>
    boxFeature(
      {
        x0Px: column! * widthPx / 4 - side / 2,
        y0Px: row! * heightPx / 4 - side / 2,
        widthPx: side,
        heightPx: side,
      },
      "tissue_tumor_positive",
    )
  );
  const results: Results = {
    caseResults: { mitosisCount: squares.length },
    scanResults: [{ scanId, geojson: featureCollection(squares) }],
  };
  placeholders.add(results);
  return results;
}
