/** Marching squares by a table of its sixteen cases: the plain twin of kernels/isolines.wgsl. */

/** From edge to edge, by the corners inside: 1 above left, 2 above right, 4 below right, 8 below left. */
const CASES: readonly string[] = [
  "", // none
  "AL",
  "RA",
  "RL",
  "BR",
  "AL BR", // 5, cut apart; connected "AR BL"
  "BA",
  "BL",
  "LB",
  "AB",
  "RA LB", // 10, cut apart; connected "RB LA"
  "RB",
  "LR",
  "AR",
  "LA",
  "", // all
];
const CONNECTED: Readonly<Record<number, string>> = { 5: "AR BL", 10: "RB LA" };

export interface Segment {
  readonly from: number;
  readonly to: number;
  readonly fraction: number;
}

/** Segments of the line along which a map [height, width] is `threshold`, in reading order of cells. */
export function isolines(
  score: (x: number, y: number) => number,
  [height, width]: readonly [number, number],
  threshold: number,
): Segment[] {
  const found: Segment[] = [];
  const isMap = (x: number, y: number) => x >= 0 && y >= 0 && x < width && y < height;
  const above = (x: number, y: number) => isMap(x, y) ? score(x, y) - threshold : -1;
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]] as const;
      const values = corners.map(([x, y]) => above(x, y));
      const inside = values.reduce((sum, v, i) => sum + (v >= 0 ? 1 << i : 0), 0);
      const mean = values.reduce((a, b) => a + b, 0);
      const pairs = (mean >= 0 && CONNECTED[inside]) || CASES[inside]!;
      const vertex = (y + 1) * (width + 2) + x + 1;
      // Each edge's number, and its two corners from left to right or from above to below.
      const edges = {
        A: [2 * vertex, 0, 1],
        R: [2 * (vertex + 1) + 1, 1, 2],
        B: [2 * (vertex + width + 2), 3, 2],
        L: [2 * vertex + 1, 0, 3],
      } as const;
      for (const pair of pairs.split(" ").filter((pair) => pair !== "")) {
        const [from, a, b] = edges[pair[0] as "A"];
        const framed = !isMap(...corners[a]) || !isMap(...corners[b]);
        const fraction = framed ? 0.5 : values[a]! / (values[a]! - values[b]!);
        found.push({ from, to: edges[pair[1] as "A"][0], fraction });
      }
    }
  }
  return found;
}
