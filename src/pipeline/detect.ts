/** Points from many tiles to one list: suppression across tile borders and scales. */

/** Detections in columns, so that a million of them are a few megabytes. */
export class Detections {
  #x = new Float32Array(1024);
  #y = new Float32Array(1024);
  #radius = new Float32Array(1024);
  #score = new Float32Array(1024);
  #kind = new Uint16Array(1024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Adds one; position and radius in one unit, level-0 pixels by convention; `kind` is the caller's. */
  add(x: number, y: number, radius: number, score: number, kind = 0): void {
    if (this.#length === this.#x.length) {
      const grow = (old: Float32Array<ArrayBuffer>) => {
        const more = new Float32Array(old.length * 2);
        more.set(old);
        return more;
      };
      this.#x = grow(this.#x);
      this.#y = grow(this.#y);
      this.#radius = grow(this.#radius);
      this.#score = grow(this.#score);
      const kinds = new Uint16Array(this.#kind.length * 2);
      kinds.set(this.#kind);
      this.#kind = kinds;
    }
    this.#x[this.#length] = x;
    this.#y[this.#length] = y;
    this.#radius[this.#length] = radius;
    this.#score[this.#length] = score;
    this.#kind[this.#length] = kind;
    this.#length++;
  }

  /** The score that `fraction` of all detections lie below; 0 where there are none. */
  scoreQuantile(fraction: number): number {
    const scores = this.#score.slice(0, this.#length).sort();
    return scores[Math.min(this.#length - 1, Math.floor(fraction * this.#length))] ?? 0;
  }

  /**
   * Keeps, best first, every detection that has no better kept one within `fraction` of that
   * one's radius (greedy non-maximum suppression). The answer does not depend on the order in which
   * they were added, hence not on how the slide was cut.
   * @param threshold least score of those that are kept.
   */
  *suppress(
    fraction: number,
    threshold = 0,
  ): Generator<{ x: number; y: number; radius: number; score: number; kind: number }, void> {
    const [xs, ys, radii, scores] = [this.#x, this.#y, this.#radius, this.#score];
    const order = Uint32Array.from({ length: this.#length }, (_, i) => i).sort((a, b) =>
      scores[b]! - scores[a]! || ys[a]! - ys[b]! || xs[a]! - xs[b]! || radii[b]! - radii[a]!
    );
    let reach = 1;
    for (let i = 0; i < this.#length; i++) reach = Math.max(reach, fraction * radii[i]!);
    // Cells as wide as the longest reach: what suppresses a point is in its cell or one beside it.
    // Cells share buckets, which only costs distances that are computed in vain; lists in typed
    // arrays, since a million small objects would be most of a run's memory.
    const mask = 2 ** Math.ceil(Math.log2(2 * this.#length + 2)) - 1;
    const bucketOf = (column: number, row: number) =>
      (Math.imul(column, 0x9e3779b1) ^ Math.imul(row, 0x85ebca6b)) & mask;
    const first = new Int32Array(mask + 1).fill(-1);
    const next = new Int32Array(this.#length);
    for (const i of order) {
      if (scores[i]! < threshold) return;
      const column = Math.floor(xs[i]! / reach), row = Math.floor(ys[i]! / reach);
      let beaten = false;
      for (let dy = -1; dy <= 1 && !beaten; dy++) {
        for (let dx = -1; dx <= 1 && !beaten; dx++) {
          let k = first[bucketOf(column + dx, row + dy)]!;
          while (k >= 0 && !beaten) {
            beaten = Math.hypot(xs[i]! - xs[k]!, ys[i]! - ys[k]!) < fraction * radii[k]!;
            k = next[k]!;
          }
        }
      }
      if (beaten) continue;
      yield {
        x: xs[i]!,
        y: ys[i]!,
        radius: radii[i]!,
        score: scores[i]!,
        kind: this.#kind[i]!,
      };
      const bucket = bucketOf(column, row);
      next[i] = first[bucket]!;
      first[bucket] = i;
    }
  }
}

/** A box with a score; `kind` says what competes with what. */
export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly score: number;
  readonly kind: number;
}

/** Intersection over union. */
function overlapOf(a: Box, b: Box): number {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  if (width <= 0 || height <= 0) return 0;
  const both = width * height;
  return both / (a.width * a.height + b.width * b.height - both);
}

/**
 * Keeps, best first, every box that no better kept one of its kind overlaps by more than `iou`
 * (greedy non-maximum suppression). The answer does not depend on the order of the boxes.
 */
export function suppressBoxes(boxes: readonly Box[], iou: number): Box[] {
  const order = [...boxes].sort((a, b) =>
    b.score - a.score || a.y - b.y || a.x - b.x || a.width - b.width || a.height - b.height ||
    a.kind - b.kind
  );
  // Cells as large as the largest box: what overlaps one is in its centre's cell or one beside it.
  const side = boxes.reduce((most, { width, height }) => Math.max(most, width, height), 1);
  const cells = new Map<string, Box[]>();
  const kept: Box[] = [];
  for (const box of order) {
    const column = Math.floor((box.x + box.width / 2) / side);
    const row = Math.floor((box.y + box.height / 2) / side);
    let beaten = false;
    for (let dy = -1; dy <= 1 && !beaten; dy++) {
      for (let dx = -1; dx <= 1 && !beaten; dx++) {
        beaten = cells.get(`${box.kind} ${column + dx} ${row + dy}`)
          ?.some((other) => overlapOf(other, box) > iou) ?? false;
      }
    }
    if (beaten) continue;
    kept.push(box);
    const key = `${box.kind} ${column} ${row}`;
    const cell = cells.get(key);
    if (cell === undefined) cells.set(key, [box]);
    else cell.push(box);
  }
  return kept;
}
