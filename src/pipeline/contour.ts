/** Masks to polygons: the outline of every 4-connected piece, with its holes. */

/** A closed ring of positions, the last one repeating the first. */
export type ContourRing = [x: number, y: number][];

/** What was traced of one piece: its outer ring, then its holes. */
export type PieceRings = [ContourRing, ...ContourRing[]];

/** A piece traced from marks. */
export interface TracedPiece {
  /** Which image of the batch; rings are in that image's pixels. */
  readonly image: number;
  /** The label that its marks carried. */
  readonly label: number;
  readonly rings: PieceRings;
}

/** Sides of a pixel that are on an outline, as kernels/contour_marks.wgsl has them. */
const ABOVE = 1, RIGHT_OF = 2, BELOW = 4, LEFT_OF = 8;

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
): PieceRings[] {
  const labels = label(data, widthPx, heightPx);
  const marks: number[] = [];
  for (let y = 0, at = 0; y < heightPx; y++) {
    for (let x = 0; x < widthPx; x++, at++) {
      const of = labels[at]!;
      if (of === 0) continue;
      const sides = (y === 0 || labels[at - widthPx] !== of ? ABOVE : 0) +
        (x === widthPx - 1 || labels[at + 1] !== of ? RIGHT_OF : 0) +
        (y === heightPx - 1 || labels[at + widthPx] !== of ? BELOW : 0) +
        (x === 0 || labels[at - 1] !== of ? LEFT_OF : 0);
      if (sides !== 0) marks.push(16 * at + sides, of);
    }
  }
  return traceMarks(Uint32Array.from(marks), widthPx, heightPx, tolerancePx).map(({ rings }) =>
    rings
  );
}

/**
 * Traces pieces as `traceMask` does, from the pixels along their outlines alone: what
 * `readContourMarks` of the kernels gives, for a batch of images `[N, heightPx, widthPx]`.
 * @param marks two words each, in any order: 16 · pixel + sides, and the label of a 4-connected piece.
 * @returns pieces in the order of their labels.
 * @throws {RangeError} where a label's marks are not the whole outline of one 4-connected piece.
 */
export function traceMarks(
  marks: Uint32Array,
  widthPx: number,
  heightPx: number,
  tolerancePx = 0,
): TracedPiece[] {
  // As numbers of 64 bits, low word first, they sort by label and then by pixel.
  const sorted = marks.slice();
  new BigUint64Array(sorted.buffer).sort();
  const pieces: TracedPiece[] = [];
  for (let from = 0, to = 0; from < sorted.length; from = to) {
    const label = sorted[from + 1]!;
    while (to < sorted.length && sorted[to + 1] === label) to += 2;
    const image = Math.floor((sorted[from]! >>> 4) / (widthPx * heightPx));
    const rings = tracePiece(sorted.subarray(from, to), widthPx, tolerancePx);
    if (rings === undefined) {
      throw new RangeError(
        `Cannot trace the piece labelled ${label}: its marks are not the outline of one 4-connected piece`,
      );
    }
    for (const position of rings.flat()) position[1] -= image * heightPx;
    pieces.push({ image, label, rings });
  }
  return pieces;
}

/** Edges go with the inside on their right; one bit for each direction that leaves a corner. */
const RIGHT = 1, DOWN = 2, LEFT = 4, UP = 8;

/**
 * Where a piece touches itself at a corner two edges leave it: the right turn keeps outlines of
 * pixels that touch at a corner apart.
 */
const TURNS: Readonly<Record<number, readonly number[]>> = {
  [RIGHT]: [DOWN, RIGHT, UP],
  [DOWN]: [LEFT, DOWN, RIGHT],
  [LEFT]: [UP, LEFT, DOWN],
  [UP]: [RIGHT, UP, LEFT],
};

/** The rings of one piece from its marks by pixel; undefined where they are not one piece's. */
function tracePiece(
  marks: Uint32Array,
  width: number,
  tolerance: number,
): PieceRings | undefined {
  const stride = width + 1;
  const leaving = new Map<number, number>();
  const leave = (corner: number, direction: number) =>
    leaving.set(corner, (leaving.get(corner) ?? 0) | direction);
  for (let i = 0; i < marks.length; i += 2) {
    const pixel = marks[i]! >>> 4, sides = marks[i]! & 15;
    const corner = pixel + Math.floor(pixel / width);
    if (sides & ABOVE) leave(corner, RIGHT);
    if (sides & RIGHT_OF) leave(corner + 1, DOWN);
    if (sides & BELOW) leave(corner + stride + 1, LEFT);
    if (sides & LEFT_OF) leave(corner + stride, UP);
  }
  const step: Readonly<Record<number, number>> = {
    [RIGHT]: 1,
    [DOWN]: stride,
    [LEFT]: -1,
    [UP]: -stride,
  };
  let outer: ContourRing | undefined;
  const holes: ContourRing[] = [];
  for (const start of Uint32Array.from(leaving.keys()).sort()) {
    while (leaving.get(start) !== 0) {
      let direction = [RIGHT, DOWN, LEFT, UP].find((d) => leaving.get(start)! & d)!;
      const ring: ContourRing = [];
      let at = start, last = 0;
      do {
        if (direction !== last) ring.push([at % stride, Math.floor(at / stride)]);
        leaving.set(at, leaving.get(at)! & ~direction);
        at += step[direction]!;
        last = direction;
        const next = leaving.get(at) ?? 0;
        direction = TURNS[direction]!.find((d) => next & d) ?? 0;
      } while (direction !== 0);
      if (at !== start) return undefined;
      ring.push([...ring[0]!]);
      // With y downwards a ring with its inside on the right has a positive area, a hole's negative.
      const simple = simplify(ring, tolerance);
      if (area(ring) < 0) holes.push(simple);
      else if (outer === undefined) outer = simple;
      else return undefined;
    }
  }
  return outer === undefined ? undefined : [outer, ...holes];
}

/** What lies above a threshold in one image. */
export interface IsolineArea {
  readonly image: number;
  /** Which threshold, by its number. */
  readonly level: number;
  /** Its pieces: outer rings, each with its holes. Pixel (x, y) covers [x, x + 1) × [y, y + 1). */
  readonly pieces: PieceRings[];
}

/**
 * Chains the segments of kernels/isolines.wgsl into rings, and puts holes into the pieces that they
 * are in. The same segments in another order give the same rings.
 * @param segments four words each, as `readIsolines` gives them.
 * @param widthPx the map's.
 * @param thresholds how many there were.
 * @param tolerancePx how far a simplified ring may leave the line.
 * @returns by image, then by threshold; those where nothing lies above are left out.
 * @throws {RangeError} where segments are missing.
 */
export function chainIsolines(
  segments: Uint32Array,
  widthPx: number,
  thresholds: number,
  tolerancePx = 0,
): IsolineArea[] {
  const count = segments.length / 4;
  const order = Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) =>
    segments[4 * a + 3]! - segments[4 * b + 3]! || segments[4 * a]! - segments[4 * b]!
  );
  const fractions = new Float32Array(segments.slice().buffer);
  const stride = widthPx + 2;
  const areas: IsolineArea[] = [];
  for (let from = 0, to = 0; from < count; from = to) {
    const map = segments[4 * order[from]! + 3]!;
    const begins = new Map<number, number>();
    for (; to < count && segments[4 * order[to]! + 3] === map; to++) {
      begins.set(segments[4 * order[to]!]!, order[to]!);
    }
    const rings: ContourRing[] = [];
    for (const start of begins.keys()) {
      const ring: ContourRing = [];
      let edge = start;
      for (let i = begins.get(edge); i !== undefined; i = begins.get(edge)) {
        begins.delete(edge);
        // Vertices are pixels' centres, the first of the frame at −½.
        const vertex = edge >>> 1, along = fractions[4 * i + 2]!;
        const x = vertex % stride - 0.5, y = Math.floor(vertex / stride) - 0.5;
        ring.push(edge % 2 === 0 ? [x + along, y] : [x, y + along]);
        edge = segments[4 * i + 1]!;
      }
      if (edge !== start) {
        throw new RangeError(`Cannot chain iso-lines: no segment begins on edge ${edge}`);
      }
      ring.push([...ring[0]!]);
      rings.push(ring);
    }
    const pieces = nest(rings, tolerancePx);
    areas.push({ image: Math.floor(map / thresholds), level: map % thresholds, pieces });
  }
  return areas;
}

/** Rings with their inside on the right into pieces: each hole into the smallest outer ring around it. */
function nest(rings: readonly ContourRing[], tolerance: number): PieceRings[] {
  const outers = rings.map((ring) => ({ ring, area: area(ring), box: boxOf(ring) }))
    // One of no area is around a lone pixel that is exactly the threshold.
    .filter((outer) => outer.area > 0).map((outer) => ({
      ...outer,
      rings: [simplify(outer.ring, tolerance)] as PieceRings,
    }));
  const bySize = [...outers].sort((a, b) => a.area - b.area);
  for (const ring of rings) {
    const holeArea = -area(ring);
    if (holeArea <= 0) continue;
    const [x0, y0, x1, y1] = boxOf(ring);
    const around = bySize.find(({ area, box, ring: outer }) =>
      area > holeArea && box[0] <= x0 && box[1] <= y0 && box[2] >= x1 && box[3] >= y1 &&
      isInside(ring, outer)
    );
    around?.rings.push(simplify(ring, tolerance));
  }
  return outers.map(({ rings }) => rings);
}

function boxOf(ring: ContourRing): [x0: number, y0: number, x1: number, y1: number] {
  const box: [number, number, number, number] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of ring) {
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x);
    box[3] = Math.max(box[3], y);
  }
  return box;
}

/**
 * Whether a ring that does not cross another is inside it. They may touch, where a score is exactly
 * the threshold, and there either answer may come: most of a few positions have it.
 */
function isInside(ring: ContourRing, outer: ContourRing): boolean {
  let votes = 0;
  const step = Math.max(1, Math.floor(ring.length / 8));
  for (let i = 0; i < ring.length; i += step) {
    const [x, y] = ring[i]!;
    let inside = false;
    for (let j = 1; j < outer.length; j++) {
      const [ax, ay] = outer[j - 1]!, [bx, by] = outer[j]!;
      if (ay > y !== by > y && ax + (y - ay) / (by - ay) * (bx - ax) < x) inside = !inside;
    }
    votes += inside ? 1 : -1;
  }
  return votes > 0;
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
