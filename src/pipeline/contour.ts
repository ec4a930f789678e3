/** Masks to polygons: the outline of every 4-connected piece, with its holes. */

/** A closed ring of positions, the last one repeating the first. */
export type ContourRing = [x: number, y: number][];

/**
 * Traces the pieces of a mask `[heightPx, widthPx]` along the pixels' edges and simplifies the
 * rings (Douglas & Peucker, Cartographica 10:112, 1973).
 * @param tolerancePx how far a simplified ring may leave the traced one, in mask pixels; 0 keeps
 *   every corner.
 * @returns for each piece its outer ring, then its holes, in mask pixels: pixel (x, y) covers
 *   [x, x + 1) × [y, y + 1).
 */
export function traceMask(
  data: ArrayLike<number>,
  widthPx: number,
  heightPx: number,
  tolerancePx = 0,
): [ContourRing, ...ContourRing[]][] {
  const inside = (x: number, y: number) =>
    x >= 0 && y >= 0 && x < widthPx && y < heightPx && data[y * widthPx + x] !== 0;
  const piece = label(data, widthPx, heightPx);
  const stride = widthPx + 1;
  // Edges go with the inside on their right; one bit for each direction that leaves a corner.
  const RIGHT = 1, DOWN = 2, LEFT = 4, UP = 8;
  const leaving = new Uint8Array(stride * (heightPx + 1));
  for (let y = 0; y < heightPx; y++) {
    for (let x = 0; x < widthPx; x++) {
      if (!inside(x, y)) continue;
      const corner = y * stride + x;
      if (!inside(x, y - 1)) leaving[corner]! |= RIGHT;
      if (!inside(x + 1, y)) leaving[corner + 1]! |= DOWN;
      if (!inside(x, y + 1)) leaving[corner + stride + 1]! |= LEFT;
      if (!inside(x - 1, y)) leaving[corner + stride]! |= UP;
    }
  }
  const step = { [RIGHT]: 1, [DOWN]: stride, [LEFT]: -1, [UP]: -stride } as Record<number, number>;
  // Where two pieces touch at a corner two edges leave it: the right turn stays with its own piece.
  const turns = {
    [RIGHT]: [DOWN, RIGHT, UP],
    [DOWN]: [LEFT, DOWN, RIGHT],
    [LEFT]: [UP, LEFT, DOWN],
    [UP]: [RIGHT, UP, LEFT],
  } as Record<number, number[]>;
  const pieces = new Map<number, { outer?: ContourRing; holes: ContourRing[] }>();
  for (let start = 0; start < leaving.length; start++) {
    while (leaving[start] !== 0) {
      let direction = [RIGHT, DOWN, LEFT, UP].find((d) => leaving[start]! & d)!;
      const [x0, y0] = [start % stride, Math.floor(start / stride)];
      // The pixel on the right of the first edge says which piece this is.
      const [px, py] = direction === RIGHT
        ? [x0, y0]
        : direction === DOWN
        ? [x0 - 1, y0]
        : direction === LEFT
        ? [x0 - 1, y0 - 1]
        : [x0, y0 - 1];
      const owner = piece[py * widthPx + px]!;
      const ring: ContourRing = [];
      let at = start, last = 0;
      do {
        if (direction !== last) ring.push([at % stride, Math.floor(at / stride)]);
        leaving[at]! &= ~direction;
        at += step[direction]!;
        last = direction;
        direction = turns[direction]!.find((d) => leaving[at]! & d) ?? 0;
      } while (direction !== 0);
      ring.push([...ring[0]!]);
      const of = pieces.get(owner) ?? { holes: [] };
      pieces.set(owner, of);
      // With y downwards a ring with its inside on the right has a positive area, a hole's negative.
      const simple = simplify(ring, tolerancePx);
      if (area(ring) > 0) of.outer = simple;
      else of.holes.push(simple);
    }
  }
  return [...pieces.values()].map(({ outer, holes }) => [outer!, ...holes]);
}

/** Labels 4-connected pieces from 1; 0 is outside. */
function label(data: ArrayLike<number>, width: number, height: number): Uint32Array {
  const labels = new Uint32Array(width * height);
  const stack: number[] = [];
  let last = 0;
  for (let start = 0; start < labels.length; start++) {
    if (data[start] === 0 || labels[start] !== 0) continue;
    labels[start] = ++last;
    stack.push(start);
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      const x = at % width, y = (at - x) / width;
      const visit = (next: number) => {
        if (data[next] !== 0 && labels[next] === 0) {
          labels[next] = last;
          stack.push(next);
        }
      };
      if (x > 0) visit(at - 1);
      if (x < width - 1) visit(at + 1);
      if (y > 0) visit(at - width);
      if (y < height - 1) visit(at + width);
    }
  }
  return labels;
}

function area(ring: ContourRing): number {
  let twice = 0;
  for (let i = 1; i < ring.length; i++) {
    const [x1, y1] = ring[i - 1]!, [x2, y2] = ring[i]!;
    twice += x1 * y2 - x2 * y1;
  }
  return twice / 2;
}

/**
 * Drops positions of a closed ring that lie within `tolerance` of what is left; a ring that would
 * have no area left stays as it is.
 */
function simplify(ring: ContourRing, tolerance: number): ContourRing {
  if (tolerance <= 0 || ring.length <= 5) return ring;
  const keep = new Uint8Array(ring.length);
  keep[0] = keep[ring.length - 1] = 1;
  // A closed ring has no two ends: its far point is the other one.
  let far = 0, distance = -1;
  for (let i = 1; i < ring.length - 1; i++) {
    const d = Math.hypot(ring[i]![0] - ring[0]![0], ring[i]![1] - ring[0]![1]);
    if (d > distance) [far, distance] = [i, d];
  }
  keep[far] = 1;
  const stack: [number, number][] = [[0, far], [far, ring.length - 1]];
  for (let part = stack.pop(); part !== undefined; part = stack.pop()) {
    const [from, to] = part;
    const [x1, y1] = ring[from]!, [x2, y2] = ring[to]!;
    const [dx, dy] = [x2 - x1, y2 - y1];
    let worst = tolerance, at = -1;
    for (let i = from + 1; i < to; i++) {
      const [x, y] = ring[i]!;
      // To the segment, not the line: a ring that turns back passes its ends.
      const along = ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1);
      const t = Math.min(1, Math.max(0, along));
      const off = Math.hypot(x - x1 - t * dx, y - y1 - t * dy);
      if (off > worst) [worst, at] = [off, i];
    }
    if (at < 0) continue;
    keep[at] = 1;
    stack.push([from, at], [at, to]);
  }
  const simple = ring.filter((_, i) => keep[i] === 1);
  return simple.length < 4 ? ring : simple;
}
