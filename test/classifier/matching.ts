/** Detections against a truth: matched one to one, nearest pairs first. */

export interface Position {
  readonly x: number;
  readonly y: number;
}

export interface Agreement {
  readonly matched: number;
  readonly precision: number;
  readonly recall: number;
  /** Harmonic mean of precision and recall; 1 where there is nothing to find and nothing found. */
  readonly f1: number;
}

/** Matches each detection to at most one true position within `distance`, in the same unit. */
export function compareDetections(
  detected: readonly Position[],
  truth: readonly Position[],
  distance: number,
): Agreement {
  const cells = new Map<string, number[]>();
  const key = (x: number, y: number) => `${Math.floor(x)},${Math.floor(y)}`;
  for (const [i, { x, y }] of truth.entries()) {
    const cell = key(x / distance, y / distance);
    cells.set(cell, [...cells.get(cell) ?? [], i]);
  }
  const pairs: [distance: number, detection: number, truth: number][] = [];
  for (const [i, { x, y }] of detected.entries()) {
    for (let dy = -1; dy <= 1; dy++) {
      for (let dx = -1; dx <= 1; dx++) {
        for (const k of cells.get(key(x / distance + dx, y / distance + dy)) ?? []) {
          const d = Math.hypot(truth[k]!.x - x, truth[k]!.y - y);
          if (d <= distance) pairs.push([d, i, k]);
        }
      }
    }
  }
  pairs.sort((a, b) => a[0] - b[0]);
  const taken = new Set<number>(), found = new Set<number>();
  for (const [, i, k] of pairs) {
    if (taken.has(i) || found.has(k)) continue;
    taken.add(i);
    found.add(k);
  }
  const matched = found.size;
  const precision = detected.length === 0 ? 1 : matched / detected.length;
  const recall = truth.length === 0 ? 1 : matched / truth.length;
  const f1 = detected.length + truth.length === 0
    ? 1
    : 2 * matched / (detected.length + truth.length);
  return { matched, precision, recall, f1 };
}
