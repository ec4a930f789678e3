/**
 * A synthetic H&E slide with known nuclei: what development mode shows where no slide is mounted,
 * and the truth against which the detector is tested. It is a drawing, not tissue.
 */

import { rename, rm, writeFile } from "node:fs/promises";
import { SourceError } from "../errors.ts";
import type { Picture } from "../slide/slide.ts";
import { Random } from "./noise.ts";
import { Painter } from "./paint.ts";
import { arrange, type NucleusKind } from "./scene.ts";
import { JpegTiles, SvsWriter } from "./svs.ts";

export interface SampleOptions {
  /** A whole number; the same seed and size give the same bytes. Default 1. */
  readonly seed?: number;
  /** Size of level 0, whole numbers from 256 to 16384. Default 3072 × 2304. */
  readonly widthPx?: number;
  readonly heightPx?: number;
}

/** What the drawing shows. */
export interface Truth {
  readonly seed: number;
  readonly widthPx: number;
  readonly heightPx: number;
  /** Micrometres per level-0 pixel. */
  readonly mpp: number;
  /** Every nucleus whose centre lies on the slide. */
  readonly nuclei: readonly TrueNucleus[];
}

/** An ellipse, in level-0 pixels; pixel (i, j) covers [i, i+1) × [j, j+1). */
export interface TrueNucleus {
  readonly x0Px: number;
  readonly y0Px: number;
  /** Half its axes. */
  readonly radiusXPx: number;
  readonly radiusYPx: number;
  /** From the slide's x axis towards its y axis to `radiusXPx`, radians. */
  readonly angle: number;
  readonly kind: NucleusKind;
}

const MPP = 0.5;
const TILE_PX = 240;
const QUALITY = 85;
/** Each level is this much smaller than the one before, as in Aperio's files. */
const STEP = 4;
/** A level exists where both its sides are at least this long. */
const SMALLEST_LEVEL_PX = 96;

/**
 * Draws the slide in memory.
 * @throws {RangeError} for a seed or a size out of range.
 */
export function encodeSample(
  options: SampleOptions = {},
): { svs: Uint8Array<ArrayBuffer>; truth: Truth } {
  const { seed = 1, widthPx = 3072, heightPx = 2304 } = options;
  if (!Number.isSafeInteger(seed)) {
    throw new RangeError(`Cannot draw a slide of seed ${seed}: it must be a whole number`);
  }
  for (const px of [widthPx, heightPx]) {
    if (!Number.isInteger(px) || px < 256 || px > 16384) {
      throw new RangeError(
        `Cannot draw a slide of ${widthPx} × ${heightPx} px: sides must be 256 to 16384`,
      );
    }
  }
  const scene = arrange(seed, widthPx, heightPx);

  // Level 0 exists one row of tiles at a time; the next level is gathered on the way.
  const painter = new Painter(scene, seed, TILE_PX);
  const band = new Uint8ClampedArray(TILE_PX * widthPx * 3);
  const level0 = new JpegTiles(widthPx, heightPx, TILE_PX, QUALITY);
  const reduced = [emptyReduction(widthPx, heightPx)];
  for (let top = 0; top < heightPx; top += TILE_PX) {
    const rows = Math.min(TILE_PX, heightPx - top);
    painter.paint(top, rows, band);
    level0.encodeRow(band, rows);
    reduce(band, widthPx, rows, reduced[0]!, top / STEP);
  }
  for (;;) {
    const { data, widthPx, heightPx } = reduced.at(-1)!;
    const next = emptyReduction(widthPx, heightPx);
    if (Math.min(next.widthPx, next.heightPx) < SMALLEST_LEVEL_PX) break;
    reduce(data, widthPx, heightPx, next, 0);
    reduced.push(next);
  }

  const about = (at: string, what: string) =>
    `Aperio Image Library (synthetic, drawn by WGSlide)\r\n${widthPx}x${heightPx} ` +
    `[0,0 ${widthPx}x${heightPx}] (${TILE_PX}x${TILE_PX})${at} ${what}|AppMag = 20|` +
    `StripeWidth = ${TILE_PX}|ScanScope ID = WGSLIDE|Filename = sample-${seed}|` +
    `Date = 01/01/26|Time = 00:00:00|MPP = ${MPP.toFixed(4)}|Left = 0.000000|Top = 0.000000|` +
    `ImageID = ${seed}|OriginalWidth = ${widthPx}|OriginalHeight = ${heightPx}`;
  const jpeg = `JPEG/YCC Q=${QUALITY}`;
  const thumbnail = reduced.find((picture) => picture.widthPx <= 1024) ?? reduced.at(-1)!;
  const label = drawLabel(seed);
  const macro = drawMacro(reduced.at(-1)!, label);
  const writer = new SvsWriter();
  writer.addTiled(level0, about("", jpeg));
  writer.addStrips(
    thumbnail,
    QUALITY,
    0,
    about(` -> ${thumbnail.widthPx}x${thumbnail.heightPx}`, "-"),
  );
  for (const picture of reduced) {
    const level = new JpegTiles(picture.widthPx, picture.heightPx, TILE_PX, QUALITY);
    for (let top = 0; top < picture.heightPx; top += TILE_PX) {
      const rows = Math.min(TILE_PX, picture.heightPx - top);
      level.encodeRow(
        picture.data.subarray(top * picture.widthPx * 3, (top + rows) * picture.widthPx * 3),
        rows,
      );
    }
    writer.addTiled(level, about(` -> ${picture.widthPx}x${picture.heightPx}`, jpeg));
  }
  const associated = (name: string, { widthPx, heightPx }: Picture) =>
    `Aperio Image Library (synthetic, drawn by WGSlide)\n${name} ${widthPx}x${heightPx}`;
  writer.addLzw(label, 1, associated("label", label));
  writer.addStrips(macro, QUALITY, 9, associated("macro", macro));

  const hundredth = (value: number) => Math.round(value * 100) / 100;
  const nuclei = scene.nuclei
    .map((nucleus): TrueNucleus => ({
      x0Px: hundredth(nucleus.x0Px),
      y0Px: hundredth(nucleus.y0Px),
      radiusXPx: hundredth(nucleus.radiusXPx),
      radiusYPx: hundredth(nucleus.radiusYPx),
      angle: hundredth(nucleus.angle),
      kind: nucleus.kind,
    }))
    .filter(({ x0Px, y0Px }) => x0Px >= 0 && x0Px < widthPx && y0Px >= 0 && y0Px < heightPx);
  return { svs: writer.bytes(), truth: { seed, widthPx, heightPx, mpp: MPP, nuclei } };
}

/**
 * Draws the slide into a file, and what it shows into a JSON file beside it: `out.svs` has
 * `out.truth.json`. Each file appears whole or not at all.
 * @throws {RangeError} for a seed or a size out of range; {SourceError} where a file cannot be written.
 */
export async function drawSample(path: string, options: SampleOptions = {}): Promise<Truth> {
  const { svs, truth } = encodeSample(options);
  const files = [
    { path, partial: `${path}.${crypto.randomUUID()}.partial`, data: svs },
    {
      path: truthPath(path),
      partial: `${truthPath(path)}.${crypto.randomUUID()}.partial`,
      data: JSON.stringify(truth),
    },
  ];
  try {
    for (const { partial, data } of files) await writeFile(partial, data);
    for (const { partial, path } of files) await rename(partial, path);
  } catch (cause) {
    for (const { partial } of files) await rm(partial, { force: true }).catch(() => {});
    throw new SourceError(
      `Cannot write the sample slide "${path}": ${(cause as Error).message}`,
      { location: path },
      { cause },
    );
  }
  return truth;
}

/** Where the truth of a sample lies. */
export function truthPath(path: string): string {
  return path.replace(/\.[^./\\]+$/, "") + ".truth.json";
}

/** A picture a step smaller, to be filled; what is left over at the edges is dropped, as Aperio does. */
function emptyReduction(widthPx: number, heightPx: number): Picture {
  const [width, height] = [Math.floor(widthPx / STEP), Math.floor(heightPx / STEP)];
  return { widthPx: width, heightPx: height, data: new Uint8Array(width * height * 3) };
}

/** Writes the means of squares of `rows` rows into a smaller picture, from its row `toRow` on. */
function reduce(
  data: Uint8Array | Uint8ClampedArray,
  widthPx: number,
  rows: number,
  into: Picture,
  toRow: number,
): void {
  const stride = widthPx * 3;
  const half = STEP * STEP / 2;
  for (let y = 0; y < Math.floor(rows / STEP); y++) {
    let to = (toRow + y) * into.widthPx * 3;
    for (let x = 0; x < into.widthPx; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = half;
        let from = y * STEP * stride + x * STEP * 3 + c;
        for (let j = 0; j < STEP; j++) {
          sum += data[from]! + data[from + 3]! + data[from + 6]! + data[from + 9]!;
          from += stride;
        }
        into.data[to++] = sum / (STEP * STEP);
      }
    }
  }
}

/** A label: a coloured band and bars, no text. */
function drawLabel(seed: number): Picture {
  const label: Picture = { widthPx: 387, heightPx: 431, data: new Uint8Array(387 * 431 * 3) };
  label.data.fill(250);
  fillRectangle(label, 0, 0, 387, 70, [64, 132, 150]);
  const random = new Random(seed);
  for (let x = 40; x < 340;) {
    const bar = 2 + random.below(6);
    fillRectangle(label, x, 120, bar, 150, [20, 20, 20]);
    x += bar + 2 + random.below(7);
  }
  for (let line = 0; line < 3; line++) {
    fillRectangle(label, 40, 310 + 34 * line, 130 + random.below(170), 9, [110, 110, 110]);
  }
  return label;
}

/** The whole glass, seen by a small camera: label, glass, the section in a green frame. */
function drawMacro(section: Picture, label: Picture): Picture {
  const macro: Picture = { widthPx: 1280, heightPx: 431, data: new Uint8Array(1280 * 431 * 3) };
  macro.data.fill(228);
  for (let y = 0; y < label.heightPx; y++) {
    const row = label.data.subarray(y * label.widthPx * 3, (y + 1) * label.widthPx * 3);
    macro.data.set(row, y * macro.widthPx * 3);
  }
  // Larger than in truth, so that it can be seen.
  const scale = Math.min(1, 320 / section.widthPx, 320 / section.heightPx);
  const [width, height] = [
    Math.floor(section.widthPx * scale),
    Math.floor(section.heightPx * scale),
  ];
  const [left, top] = [840 - (width >> 1), 215 - (height >> 1)];
  fillRectangle(macro, left - 4, top - 4, width + 8, height + 8, [40, 190, 60]);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (Math.floor(y / scale) * section.widthPx + Math.floor(x / scale)) * 3;
      const to = ((top + y) * macro.widthPx + left + x) * 3;
      for (let c = 0; c < 3; c++) macro.data[to + c] = section.data[from + c]!;
    }
  }
  return macro;
}

function fillRectangle(
  picture: Picture,
  left: number,
  top: number,
  width: number,
  height: number,
  rgb: readonly [number, number, number],
): void {
  for (let y = top; y < top + height; y++) {
    for (let x = left; x < left + width; x++) picture.data.set(rgb, (y * picture.widthPx + x) * 3);
  }
}
