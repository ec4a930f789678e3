/**
 * What the sample slide shows: where tissue, glands, vessels and fat lie, and every nucleus.
 *
 * Shapes are in level-0 pixels of 0.5 µm, continuous: pixel (i, j) covers [i, i+1) × [j, j+1).
 * Smooth things are fields on a coarse lattice; small things are lists. Sizes are those of human
 * tissue at 20×; the arrangement is invented.
 */

import { noiseField, Random } from "./noise.ts";

export type NucleusKind = "epithelium" | "tumour" | "lymphocyte" | "fibroblast" | "endothelium";

/** An ellipse of chromatin. */
export interface Nucleus {
  readonly x0Px: number;
  readonly y0Px: number;
  /** Half the axes; `radiusXPx` lies along `angle`, radians clockwise from the x axis as seen on the picture. */
  readonly radiusXPx: number;
  readonly radiusYPx: number;
  readonly angle: number;
  readonly kind: NucleusKind;
  /** Haematoxylin, as optical density along its vector. */
  readonly density: number;
  /** 0: chromatin evenly dense; 1: pale inside a dark rim. */
  readonly vesicular: number;
  /** Where in the textures its chromatin begins. */
  readonly grain: number;
}

/** A round thing that is no nucleus. */
export interface Disc {
  readonly x0Px: number;
  readonly y0Px: number;
  readonly radiusPx: number;
}

/** Lattice points lie this far apart; point (i, j) is at level-0 pixel (i, j) times this. */
export const LATTICE_PX = 4;

/** Smooth values `[rows, columns]` on the lattice, beyond the slide's right and lower edge by a cell. */
export interface Fields {
  readonly columns: number;
  readonly rows: number;
  /** About the distance in pixels into the tissue; negative on glass, in vessels and tears. */
  readonly tissue: Float32Array;
  /** About the distance in pixels into epithelium; negative outside of it. */
  readonly epithelium: Float32Array;
  /** About the distance in pixels into a gland's lumen; negative outside of it. */
  readonly lumen: Float32Array;
  /** Coordinates across and along the fibres of the stroma, in pixels. */
  readonly across: Float32Array;
  readonly along: Float32Array;
  /** How much stain there is, about 1. */
  readonly thickness: Float32Array;
  /** 0: plain collagen; 1: so full of cells that little of it is left. */
  readonly cellularity: Float32Array;
}

export interface Scene {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly fields: Fields;
  /** Also those that the slide's edge cuts, whose centre may lie outside. */
  readonly nuclei: readonly Nucleus[];
  readonly redCells: readonly Disc[];
  readonly fat: Fat;
  readonly dust: readonly Disc[];
}

/**
 * Fat cells, pressed against each other: each is what is nearer to its centre than to any other.
 */
export class Fat {
  readonly cells: readonly Disc[];
  /** For each cell, the others that are near enough to press on it. */
  readonly #neighbours: readonly (readonly Disc[])[];

  /** @param cells centres and the radii that they have where nothing presses. */
  constructor(cells: readonly Disc[]) {
    this.cells = cells;
    this.#neighbours = cells.map((cell) =>
      cells.filter((other) =>
        other !== cell &&
        Math.hypot(other.x0Px - cell.x0Px, other.y0Px - cell.y0Px) < 2 * cell.radiusPx
      )
    );
  }

  /** About the distance in pixels from a point inside of a cell to its wall; negative beyond it. */
  depth(cell: number, x: number, y: number): number {
    const { x0Px, y0Px, radiusPx } = this.cells[cell]!;
    const own = Math.sqrt((x - x0Px) ** 2 + (y - y0Px) ** 2);
    let depth = radiusPx - own;
    if (depth < -6) return depth;
    let pressed = 0;
    for (const other of this.#neighbours[cell]!) {
      const gap = (Math.sqrt((x - other.x0Px) ** 2 + (y - other.y0Px) ** 2) - own) / 2;
      depth = Math.min(depth, gap);
      // Two walls that are both near round the corner between them.
      if (gap < 16) pressed += Math.exp(-Math.max(0, gap) / 5);
    }
    return depth - 1.5 - Math.max(0, pressed - 0.6) * 3;
  }
}

/** A star-shaped outline: a circle, waved, stretched and turned. */
interface Blob {
  readonly x: number;
  readonly y: number;
  readonly stretch: number;
  readonly cos: number;
  readonly sin: number;
  /** From the centre to the outline, by direction in the blob's own axes: `OUTLINE_STEPS` to the full turn, and the first again. */
  readonly outline: Float32Array;
  readonly meanRadius: number;
  /** Of a circle around all of it. */
  readonly reach: number;
}

const OUTLINE_STEPS = 256;

function blob(random: Random, x: number, y: number, radius: number, roughness: number): Blob {
  const angle = random.between(0, Math.PI);
  const stretch = random.between(1, 1.4);
  const outline = new Float32Array(OUTLINE_STEPS + 1).fill(radius);
  for (const [k, share] of [1, 0.7, 0.5, 0.35].entries()) {
    const amplitude = radius * share * roughness * random.between(0.4, 1);
    const phase = random.between(0, 2 * Math.PI);
    for (let step = 0; step <= OUTLINE_STEPS; step++) {
      outline[step]! += amplitude *
        Math.cos((k + 2) * step * (2 * Math.PI / OUTLINE_STEPS) + phase);
    }
  }
  return {
    x,
    y,
    stretch,
    cos: Math.cos(angle),
    sin: Math.sin(angle),
    outline,
    meanRadius: radius,
    reach: stretch * outline.reduce((most, r) => Math.max(most, r), 0),
  };
}

/** From the centre to the outline in a direction of the blob's own axes, radians. */
function blobRadius(shape: Blob, theta: number): number {
  const step = ((theta / (2 * Math.PI) + 1) % 1) * OUTLINE_STEPS;
  const k = Math.floor(step);
  const before = shape.outline[k]!;
  return before + (shape.outline[k + 1]! - before) * (step - k);
}

/** About the distance into the blob, negative outside. */
function blobDepth(shape: Blob, x: number, y: number): number {
  const dx = x - shape.x;
  const dy = y - shape.y;
  const u = (dx * shape.cos + dy * shape.sin) / shape.stretch;
  const v = (dy * shape.cos - dx * shape.sin) * shape.stretch;
  return blobRadius(shape, Math.atan2(v, u)) - Math.sqrt(u * u + v * v);
}

/** The point at a depth below the outline, in direction `theta` of the blob's own axes. */
function blobPoint(shape: Blob, theta: number, depth: number): [x: number, y: number] {
  const r = blobRadius(shape, theta) - depth;
  const u = r * Math.cos(theta) * shape.stretch;
  const v = r * Math.sin(theta) / shape.stretch;
  return [
    shape.x + u * shape.cos - v * shape.sin,
    shape.y + u * shape.sin + v * shape.cos,
  ];
}

/** Epithelium: a gland where `wall` is the height of its cells, a solid nest where it is Infinity. */
interface Gland {
  readonly shape: Blob;
  readonly wall: number;
}

/** Nuclei so far, by square, so that a new one need only ask its neighbours. */
class Crowd {
  static readonly SQUARE_PX = 32;
  readonly nuclei: Nucleus[] = [];
  readonly #squares = new Map<number, Nucleus[]>();

  static #key(column: number, row: number): number {
    return row * 65536 + column;
  }

  /** Whether there is room: outlines may touch, and overlap where `spacing` is below 1; centres are 6 px apart or more. */
  hasRoom(nucleus: Nucleus, spacing: number): boolean {
    const column = Math.floor(nucleus.x0Px / Crowd.SQUARE_PX);
    const row = Math.floor(nucleus.y0Px / Crowd.SQUARE_PX);
    for (let j = row - 1; j <= row + 1; j++) {
      for (let i = column - 1; i <= column + 1; i++) {
        for (const other of this.#squares.get(Crowd.#key(i, j)) ?? []) {
          const dx = nucleus.x0Px - other.x0Px;
          const dy = nucleus.y0Px - other.y0Px;
          const direction = Math.atan2(dy, dx);
          const touching = spacing * (reach(nucleus, direction) + reach(other, direction));
          if (Math.hypot(dx, dy) < Math.max(6, touching)) return false;
        }
      }
    }
    return true;
  }

  add(nucleus: Nucleus): void {
    this.nuclei.push(nucleus);
    const key = Crowd.#key(
      Math.floor(nucleus.x0Px / Crowd.SQUARE_PX),
      Math.floor(nucleus.y0Px / Crowd.SQUARE_PX),
    );
    const square = this.#squares.get(key);
    if (square === undefined) this.#squares.set(key, [nucleus]);
    else square.push(nucleus);
  }
}

/** From the centre of an ellipse to its outline in a direction. */
function reach(nucleus: Nucleus, direction: number): number {
  const turned = direction - nucleus.angle;
  return 1 /
    Math.hypot(Math.cos(turned) / nucleus.radiusXPx, Math.sin(turned) / nucleus.radiusYPx);
}

/** Value of a field at a level-0 pixel, clamped to the lattice. */
function sample(fields: Fields, field: Float32Array, x: number, y: number): number {
  const u = Math.min(Math.max(x / LATTICE_PX, 0), fields.columns - 1.001);
  const v = Math.min(Math.max(y / LATTICE_PX, 0), fields.rows - 1.001);
  const i = Math.floor(u);
  const j = Math.floor(v);
  const at = j * fields.columns + i;
  const top = field[at]! + (field[at + 1]! - field[at]!) * (u - i);
  const below = at + fields.columns;
  const bottom = field[below]! + (field[below + 1]! - field[below]!) * (u - i);
  return top + (bottom - top) * (v - j);
}

/** The direction in which a field rises most, radians. */
function slope(fields: Fields, field: Float32Array, x: number, y: number): number {
  return Math.atan2(
    sample(fields, field, x, y + LATTICE_PX) - sample(fields, field, x, y - LATTICE_PX),
    sample(fields, field, x + LATTICE_PX, y) - sample(fields, field, x - LATTICE_PX, y),
  );
}

/** The section before anything lies in it: a rounded shape that the lower edge cuts, torn here and there, and a fragment beside it. */
function layGround(random: Random, widthPx: number, heightPx: number): Fields {
  const columns = Math.ceil(widthPx / LATTICE_PX) + 2;
  const rows = Math.ceil(heightPx / LATTICE_PX) + 2;
  const field = () => new Float32Array(columns * rows);
  const fields: Fields = {
    columns,
    rows,
    tissue: field(),
    epithelium: field().fill(-1000),
    lumen: field().fill(-1000),
    across: field(),
    along: field(),
    thickness: field(),
    cellularity: field(),
  };

  const small = Math.min(widthPx, heightPx);
  const fragment = blob(random, widthPx * 0.93, heightPx * 0.1, small * 0.055, 0.2);
  const fibreAngle = random.between(-0.5, 0.5);
  const [fibreCos, fibreSin] = [Math.cos(fibreAngle), Math.sin(fibreAngle)];
  const noise = (featurePx: number) =>
    noiseField(columns, rows, LATTICE_PX, featurePx, random.below(1 << 30));
  const [outline, ragged, frayed] = [noise(520), noise(130), noise(34)];
  const [tears, tearWidth] = [noise(800), noise(300)];
  const [bend, wave, crimp, drift] = [noise(430), noise(120), noise(37), noise(430)];
  const [thick, patchy, loose] = [noise(520), noise(90), noise(350)];
  for (let j = 0; j < rows; j++) {
    for (let i = 0; i < columns; i++) {
      const x = i * LATTICE_PX;
      const y = j * LATTICE_PX;
      const at = j * columns + i;
      const u = Math.abs(x / widthPx - 0.47) / 0.42;
      const v = Math.abs(y / heightPx - 0.6) / 0.5;
      const section = (1 - Math.cbrt(u * u * u + v * v * v)) * small * 0.47 +
        outline[at]! * small * 0.05 + ragged[at]! * 18 + frayed[at]! * 7;
      const tear = Math.abs(tears[at]!) * 800 - 2 + tearWidth[at]! * 28;
      fields.tissue[at] = Math.min(section, tear);
      fields.across[at] = y * fibreCos - x * fibreSin +
        bend[at]! * 190 + wave[at]! * 30 + crimp[at]! * 7;
      fields.along[at] = x * fibreCos + y * fibreSin + drift[at]! * 120;
      fields.thickness[at] = 1 + 0.16 * thick[at]! + 0.09 * patchy[at]!;
      fields.cellularity[at] = Math.max(0, 0.3 * loose[at]!);
    }
  }
  eachNear(fields, fragment, 20, (at, depth) => {
    fields.tissue[at] = Math.max(fields.tissue[at]!, depth + frayed[at]! * 6);
  });
  return fields;
}

/** Visits the lattice points in a shape and within `marginPx` of it, with their depth in it. */
function eachNear(
  { columns, rows }: Fields,
  shape: Blob,
  marginPx: number,
  visit: (at: number, depth: number) => void,
): void {
  const far = shape.reach + marginPx;
  const left = Math.max(0, Math.floor((shape.x - far) / LATTICE_PX));
  const right = Math.min(columns - 1, Math.ceil((shape.x + far) / LATTICE_PX));
  const top = Math.max(0, Math.floor((shape.y - far) / LATTICE_PX));
  const bottom = Math.min(rows - 1, Math.ceil((shape.y + far) / LATTICE_PX));
  for (let j = top; j <= bottom; j++) {
    for (let i = left; i <= right; i++) {
      const depth = blobDepth(shape, i * LATTICE_PX, j * LATTICE_PX);
      if (depth > -marginPx) visit(j * columns + i, depth);
    }
  }
}

/** The area for which the counts below are meant: 3072 × 2304 px. */
const MODEL_AREA_PX = 3072 * 2304;

/** Arranges a slide of that size; the same seed and size give the same scene. */
export function arrange(seed: number, widthPx: number, heightPx: number): Scene {
  const random = new Random(seed);
  /** A count of the model slide, scaled to this one. */
  const share = (count: number) => Math.round(count * widthPx * heightPx / MODEL_AREA_PX);

  const fields = layGround(random, widthPx, heightPx);
  const tissueAt = (x: number, y: number) => sample(fields, fields.tissue, x, y);
  const epitheliumAt = (x: number, y: number) => sample(fields, fields.epithelium, x, y);

  const lumenAt = (x: number, y: number) => sample(fields, fields.lumen, x, y);

  // The larger things keep out of each other's circles.
  const taken: Disc[] = [];
  const settle = (count: number, low: number, high: number, marginPx: number): Disc[] => {
    const settled: Disc[] = [];
    for (let tries = count * 60; tries > 0 && settled.length < count; tries--) {
      const disc: Disc = {
        x0Px: random.between(0, widthPx),
        y0Px: random.between(0, heightPx),
        radiusPx: random.between(low, high),
      };
      const free = tissueAt(disc.x0Px, disc.y0Px) > disc.radiusPx * 0.8 &&
        taken.every((other) =>
          Math.hypot(other.x0Px - disc.x0Px, other.y0Px - disc.y0Px) >
            other.radiusPx + disc.radiusPx + marginPx
        );
      if (!free) continue;
      taken.push(disc);
      settled.push(disc);
    }
    return settled;
  };

  const fatPatches = settle(share(1), 260, 320, 20);
  const nests = settle(share(4), 130, 200, 30);
  const vessels = settle(share(4), 45, 85, 26);
  const follicles = settle(share(3), 70, 110, 15);
  const glandDiscs = settle(share(30), 80, 130, 12);

  const glands: Gland[] = [];
  for (const disc of glandDiscs) {
    const shape = blob(
      random,
      disc.x0Px,
      disc.y0Px,
      disc.radiusPx * 0.8,
      random.between(0.05, 0.16),
    );
    glands.push({ shape, wall: Math.min(random.between(34, 58), shape.meanRadius * 0.75) });
  }
  for (const disc of nests) {
    glands.push({
      shape: blob(random, disc.x0Px, disc.y0Px, disc.radiusPx * 0.85, 0.14),
      wall: Infinity,
    });
  }
  for (const { shape, wall } of glands) {
    eachNear(fields, shape, 90, (at, depth) => {
      fields.epithelium[at] = Math.max(fields.epithelium[at]!, depth);
      if (wall !== Infinity) fields.lumen[at] = Math.max(fields.lumen[at]!, depth - wall);
      // Between glands the stroma is looser; its fibres run round them.
      const near = Math.exp(Math.min(0, depth) / 30);
      fields.cellularity[at] = Math.max(fields.cellularity[at]!, 0.55 * near);
      fields.across[at]! += 70 * near;
    });
  }
  const vesselShapes = vessels.map((disc) =>
    blob(random, disc.x0Px, disc.y0Px, disc.radiusPx * 0.7, 0.12)
  );
  for (const shape of vesselShapes) {
    eachNear(fields, shape, 90, (at, depth) => {
      fields.tissue[at] = Math.min(fields.tissue[at]!, -depth);
      fields.across[at]! += 90 * Math.exp(Math.min(0, depth) / 24);
      // Muscle: a denser ring.
      fields.thickness[at]! += 0.4 * Math.exp(-(((depth + 12) / 10) ** 2));
    });
  }

  for (const disc of follicles) {
    eachNear(fields, blob(random, disc.x0Px, disc.y0Px, disc.radiusPx, 0.1), 60, (at, depth) => {
      const inside = Math.min(1, Math.max(0, 0.5 + depth / 50));
      fields.cellularity[at] = Math.max(fields.cellularity[at]!, inside);
    });
  }

  // Fat: a patch of cells, no two centres too close.
  const fatCells: Disc[] = [];
  for (const patch of fatPatches) {
    for (let tries = 0; tries < 1500; tries++) {
      const angle = random.between(0, 2 * Math.PI);
      const far = Math.sqrt(random.next()) * patch.radiusPx;
      const cell: Disc = {
        x0Px: patch.x0Px + far * Math.cos(angle),
        y0Px: patch.y0Px + far * Math.sin(angle),
        radiusPx: random.between(48, 62),
      };
      const free = tissueAt(cell.x0Px, cell.y0Px) > 50 &&
        fatCells.every((other) => Math.hypot(other.x0Px - cell.x0Px, other.y0Px - cell.y0Px) > 62);
      if (free) fatCells.push(cell);
    }
  }
  const fat = new Fat(fatCells);

  const crowd = new Crowd();
  const place = (
    kind: NucleusKind,
    x0Px: number,
    y0Px: number,
    look: { rx: number; ry: number; angle: number; density: number; vesicular: number },
    spacing: number,
  ): boolean => {
    const thin = Math.min(look.rx, look.ry);
    if (tissueAt(x0Px, y0Px) < thin || lumenAt(x0Px, y0Px) > -thin) return false;
    if (fatCells.some((_, cell) => fat.depth(cell, x0Px, y0Px) > -0.5)) return false;
    const nucleus: Nucleus = {
      x0Px,
      y0Px,
      radiusXPx: look.rx,
      radiusYPx: look.ry,
      angle: look.angle,
      kind,
      density: look.density * sample(fields, fields.thickness, x0Px, y0Px),
      vesicular: look.vesicular,
      grain: random.below(1 << 18),
    };
    if (!crowd.hasRoom(nucleus, spacing)) return false;
    crowd.add(nucleus);
    return true;
  };

  // Glands: nuclei stand side by side near the base, long axis towards the lumen.
  for (const { shape, wall } of glands) {
    if (wall === Infinity) continue;
    const tall = random.between(7, 9.5);
    const dark = random.between(0.62, 0.95);
    const tries = Math.round(2 * Math.PI * shape.meanRadius * 0.55);
    for (let k = 0; k < tries; k++) {
      const theta = random.between(0, 2 * Math.PI);
      const deepest = Math.max(tall + 3, wall - tall - 9);
      const [x, y] = blobPoint(shape, theta, random.between(tall + 2, deepest));
      place("epithelium", x, y, {
        rx: tall * random.between(0.85, 1.12),
        ry: random.between(4.8, 6.2),
        angle: slope(fields, fields.epithelium, x, y) + random.bell() * 0.12,
        density: dark * random.between(0.68, 1.2),
        vesicular: random.between(0.2, 0.8),
      }, 0.9);
    }
  }

  // Nests: larger, rounder and paler nuclei, apart by their cytoplasm.
  for (const { shape, wall } of glands) {
    if (wall !== Infinity) continue;
    const dark = random.between(0.55, 0.8);
    const far = shape.reach;
    const tries = Math.round(far * far / 30);
    for (let k = 0; k < tries; k++) {
      const x = shape.x + random.between(-far, far);
      const y = shape.y + random.between(-far, far);
      if (blobDepth(shape, x, y) < 9) continue;
      const rx = random.between(6.8, 9.6);
      place("tumour", x, y, {
        rx,
        ry: rx * random.between(0.68, 0.95),
        angle: random.between(0, Math.PI),
        density: dark * random.between(0.6, 1.35),
        vesicular: random.between(0.5, 1),
      }, 1.12);
    }
  }

  const lymphocyte = (x: number, y: number, spacing: number): boolean => {
    const rx = random.between(4.9, 6.3);
    return place("lymphocyte", x, y, {
      rx,
      ry: rx * random.between(0.86, 1),
      angle: random.between(0, Math.PI),
      density: random.between(0.95, 1.3),
      vesicular: random.between(0, 0.3),
    }, spacing);
  };
  for (const disc of follicles) {
    const tries = Math.round(disc.radiusPx * disc.radiusPx / 12);
    for (let k = 0; k < tries; k++) {
      const x = disc.x0Px + random.bell() * disc.radiusPx * 0.45;
      const y = disc.y0Px + random.bell() * disc.radiusPx * 0.45;
      if (epitheliumAt(x, y) < -4) lymphocyte(x, y, 0.92);
    }
  }

  // The wall of a vessel: flat nuclei along the lumen.
  for (const shape of vesselShapes) {
    const count = Math.round(shape.meanRadius / 5);
    for (let k = 0; k < count; k++) {
      const [x, y] = blobPoint(shape, random.between(0, 2 * Math.PI), -random.between(5, 6.5));
      place("endothelium", x, y, {
        rx: random.between(7, 10),
        ry: random.between(2.7, 3.5),
        angle: slope(fields, fields.tissue, x, y) + Math.PI / 2,
        density: random.between(0.75, 1.05),
        vesicular: 0.1,
      }, 1.3);
    }
  }

  // Stroma: spindles along the fibres and lymphocytes here and there.
  const scatter = (count: number, put: (x: number, y: number) => boolean) => {
    for (let tries = count * 12, left = count; tries > 0 && left > 0; tries--) {
      const x = random.between(-8, widthPx + 8);
      const y = random.between(-8, heightPx + 8);
      if (tissueAt(x, y) > 8 && epitheliumAt(x, y) < -6 && put(x, y)) left--;
    }
  };
  scatter(share(480), (x, y) =>
    place("fibroblast", x, y, {
      rx: random.between(7.5, 11.5),
      ry: random.between(2.7, 3.8),
      angle: slope(fields, fields.across, x, y) + Math.PI / 2 + random.bell() * 0.15,
      density: random.between(0.7, 1.05),
      vesicular: random.between(0, 0.3),
    }, 1.25));
  scatter(share(260), (x, y) => lymphocyte(x, y, 0.98));

  // A fat cell's own nucleus is squeezed into the wall.
  for (const [k, cell] of fatCells.entries()) {
    if (k % 3 !== 0) continue;
    const direction = random.between(0, 2 * Math.PI);
    for (let far = 10; far < cell.radiusPx + 4; far += 0.5) {
      const x = cell.x0Px + far * Math.cos(direction);
      const y = cell.y0Px + far * Math.sin(direction);
      if (fat.depth(k, x, y) > -0.6) continue;
      place("fibroblast", x, y, {
        rx: random.between(7, 9),
        ry: random.between(2.6, 3.2),
        angle: direction + Math.PI / 2,
        density: random.between(0.75, 1),
        vesicular: 0.1,
      }, 1.3);
      break;
    }
  }

  // Red cells: in the vessels, and a few that leaked.
  const redCells: Disc[] = [];
  const bleed = (x: number, y: number, spreadPx: number, count: number, lumen: boolean) => {
    for (let k = 0; k < count; k++) {
      const disc: Disc = {
        x0Px: x + random.bell() * spreadPx,
        y0Px: y + random.bell() * spreadPx,
        radiusPx: random.between(5.6, 6.9),
      };
      const tissue = tissueAt(disc.x0Px, disc.y0Px);
      if (lumen ? tissue > -7 : tissue < 6 || epitheliumAt(disc.x0Px, disc.y0Px) > -8) continue;
      const room = redCells.every((other) =>
        Math.hypot(other.x0Px - disc.x0Px, other.y0Px - disc.y0Px) > 9.5
      ) && crowd.nuclei.every((nucleus) =>
        Math.hypot(nucleus.x0Px - disc.x0Px, nucleus.y0Px - disc.y0Px) > 12
      );
      if (room) {
        redCells.push(disc);
      }
    }
  };
  for (const shape of vesselShapes) {
    const [x, y] = blobPoint(shape, random.between(0, 2 * Math.PI), shape.meanRadius * 0.6);
    bleed(x, y, shape.meanRadius * 0.5, Math.round(shape.meanRadius * shape.meanRadius / 60), true);
  }
  for (let k = share(7); k > 0; k--) {
    bleed(random.between(0, widthPx), random.between(0, heightPx), 22, 16, false);
  }

  // Dust on the glass: specks, and a lint that wanders.
  const dust: Disc[] = [];
  for (let k = share(9); k > 0; k--) {
    dust.push({
      x0Px: random.between(0, widthPx),
      y0Px: random.between(0, heightPx),
      radiusPx: random.between(1.6, 4.2),
    });
  }
  for (let k = share(1); k > 0; k--) {
    let x = random.between(0.05, 0.2) * widthPx;
    let y = random.between(0.05, 0.2) * heightPx;
    let heading = random.between(0, 2 * Math.PI);
    for (let step = 0; step < 120; step++) {
      dust.push({ x0Px: x, y0Px: y, radiusPx: 1.3 });
      heading += random.bell() * 0.12;
      x += 1.4 * Math.cos(heading);
      y += 1.4 * Math.sin(heading);
    }
  }

  return { widthPx, heightPx, fields, nuclei: crowd.nuclei, redCells, fat, dust };
}
