/** Connected components by flood fill: the plain twin of kernels/components.ts. */

import type { Component } from "../../kernels/components.ts";

/**
 * Components of equal, inside pixels of a batch [images, height, width].
 * @param classOf the class of a pixel by its number, or undefined outside.
 */
export function components(
  classOf: (pixel: number) => number | undefined,
  [images, height, width]: readonly [number, number, number],
  connectivity: 4 | 8,
): { labels: Uint32Array; list: Component[] } {
  const labels = new Uint32Array(images * height * width);
  const list: Component[] = [];
  for (let start = 0; start < labels.length; start++) {
    const of = classOf(start);
    if (of === undefined || labels[start] !== 0) continue;
    const image = Math.floor(start / (height * width));
    const found = { xs: [] as number[], ys: [] as number[] };
    const stack = [start];
    labels[start] = start + 1;
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      const x = at % width, y = Math.floor(at / width) % height;
      found.xs.push(x);
      found.ys.push(y);
      for (let dy = -1; dy <= 1; dy++) {
        for (let dx = -1; dx <= 1; dx++) {
          if (connectivity === 4 && dx !== 0 && dy !== 0) continue;
          if (x + dx < 0 || y + dy < 0 || x + dx >= width || y + dy >= height) continue;
          const next = at + dy * width + dx;
          if (labels[next] !== 0 || classOf(next) !== of) continue;
          labels[next] = start + 1;
          stack.push(next);
        }
      }
    }
    const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
    const least = (values: number[]) => values.reduce((a, b) => Math.min(a, b));
    const most = (values: number[]) => values.reduce((a, b) => Math.max(a, b));
    list.push({
      image,
      label: start + 1,
      class: of,
      areaPx: found.xs.length,
      x0: least(found.xs),
      y0: least(found.ys),
      x1: most(found.xs),
      y1: most(found.ys),
      centroidX: sum(found.xs) / found.xs.length,
      centroidY: sum(found.ys) / found.ys.length,
    });
  }
  return { labels, list };
}
