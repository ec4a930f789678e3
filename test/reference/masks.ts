/** Masks that are hard to label and to trace: 1 inside, 0 outside. */

import { uniform } from "./random.ts";

export interface Mask {
  readonly data: Uint8Array<ArrayBuffer>;
  readonly width: number;
  readonly height: number;
}

function from(width: number, height: number, inside: (x: number, y: number) => boolean): Mask {
  const data = Uint8Array.from(
    { length: width * height },
    (_, i) => inside(i % width, Math.floor(i / width)) ? 1 : 0,
  );
  return { data, width, height };
}

/** A path one pixel wide that winds inwards with one pixel between its turns. */
export function spiral(side: number): Mask {
  const data = new Uint8Array(side * side);
  let [x, y, dx, dy] = [0, 0, 1, 0];
  const at = (x: number, y: number) =>
    x < 0 || y < 0 || x >= side || y >= side ? undefined : data[y * side + x];
  data[0] = 1;
  for (let turns = 0; turns < 2;) {
    // On unless what is next, or the one after it, is the edge or an earlier turn.
    if (at(x + dx, y + dy) === 0 && at(x + 2 * dx, y + 2 * dy) !== 1) {
      [x, y] = [x + dx, y + dy];
      data[y * side + x] = 1;
      turns = 0;
    } else {
      [dx, dy] = [-dy, dx];
      turns++;
    }
  }
  return { data, width: side, height: side };
}

/** All that tests of labels and contours go through, by name. */
export function masks(): Map<string, Mask> {
  const found = new Map<string, Mask>();
  for (
    const [width, height] of [
      [1, 1],
      [1, 7],
      [7, 1],
      [31, 3],
      [32, 4],
      [33, 5],
      [63, 2],
      [64, 64],
      [
        65,
        67,
      ],
      [131, 37],
    ] as const
  ) {
    const size = `${width} × ${height}`;
    found.set(`nothing, ${size}`, from(width, height, () => false));
    found.set(`all, ${size}`, from(width, height, () => true));
    found.set(`a checkerboard, ${size}`, from(width, height, (x, y) => (x + y) % 2 === 0));
    // Teeth that meet in the last row only, and in the first.
    found.set(`a comb, ${size}`, from(width, height, (x, y) => x % 2 === 0 || y === height - 1));
    found.set(`a comb from above, ${size}`, from(width, height, (x, y) => x % 2 === 0 || y === 0));
    found.set(
      `rings, ${size}`,
      from(width, height, (x, y) => Math.min(x, y, width - 1 - x, height - 1 - y) % 2 === 0),
    );
    // Around 0.59 and 0.41, where pieces of 4 and of 8 neighbours grow to the mask's size.
    for (const density of [0.1, 0.41, 0.5, 0.59, 0.9]) {
      const random = uniform(width * height + 100 * density);
      found.set(`${density} of noise, ${size}`, from(width, height, () => random() < density));
    }
  }
  for (const side of [9, 64, 127]) found.set(`a spiral of ${side}`, spiral(side));
  found.set("a diagonal", from(70, 70, (x, y) => x === y));
  found.set("the other diagonal", from(70, 70, (x, y) => x === 69 - y));
  return found;
}
