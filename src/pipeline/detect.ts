/** Points from many tiles to one list: suppression across tile borders and scales. */

/** Detections in columns, so that a million of them are a few megabytes. */
export class Detections {
  #x = new Float32Array(1024);
  #y = new Float32Array(1024);
  #radius = new Float32Array(1024);
  #score = new Float32Array(1024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Adds one; position and radius in one unit, level-0 pixels by convention. */
  add(x: number, y: number, radius: number, score: number): void {
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
    }
    this.#x[this.#length] = x;
    this.#y[this.#length] = y;
    this.#radius[this.#length] = radius;
    this.#score[this.#length] = score;
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
  ): Generator<{ x: number; y: number; radius: number; score: number }, void> {
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
      yield { x: xs[i]!, y: ys[i]!, radius: radii[i]!, score: scores[i]! };
      const bucket = bucketOf(column, row);
      next[i] = first[bucket]!;
      first[bucket] = i;
    }
  }
}
