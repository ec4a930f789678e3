/**
 * Every slide under a folder against OpenSlide: levels, dimensions, properties, and pixels at
 * seeded random places of every level and at its edges.
 *
 *   deno task conformance:slides DIR [--regions N] [--seed N]
 *
 * Prints a table and exits with 1 where anything differs by more than its format may.
 */

import { readdirSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { openSlide } from "../../src/slide/open.ts";
import type { Slide } from "../../src/slide/slide.ts";
import { buildPeer, OpenSlidePeer } from "../peers/openslide.ts";
import { uniform } from "../reference/random.ts";

/** Level-0 sides of the regions, in the level's own pixels. */
const SIDE_PX = 256;

/** Largest and mean difference that a slide may have, out of 255. */
interface Tolerance {
  readonly largest: number;
  readonly mean: number;
}

/** Lossless and baseline JPEG decode the same way everywhere; irreversible wavelets round differently. */
const EXACT: Tolerance = { largest: 0, mean: 0 };
const WAVELET: Tolerance = { largest: 1, mean: 0.1 };

/** Properties that are not compared, each with its reason. */
const NOT_COMPARED: readonly RegExp[] = [
  /^openslide\.quickhash-1$/, // A hash of bytes as OpenSlide reads them: an identity, not a property of the slide.
  /^openslide\.mpp-[xy]$/, // Since OpenSlide 4 also for generic TIFF; equal values are checked where both have them.
  /^openslide\.(icc-size|associated\..*)$/, // Since OpenSlide 4.
];

interface Row {
  readonly file: string;
  readonly format: string;
  regions: number;
  largest: number;
  sum: number;
  samples: number;
  readonly problems: string[];
  skipped?: string;
}

const { positionals: [folder], values } = parseArgs({
  allowPositionals: true,
  options: {
    regions: { type: "string", default: "6" },
    seed: { type: "string", default: "1" },
  },
});
if (folder === undefined) {
  console.error("error: Cannot compare: name a folder of slides");
  Deno.exit(2);
}
const perLevel = Number(values.regions);
const random = uniform(Number(values.seed));
const program = await buildPeer();

function* filesIn(path: string): Iterable<string> {
  for (const name of readdirSync(path).sort()) {
    const file = join(path, name);
    const stat = statSync(file, { throwIfNoEntry: false });
    if (stat?.isDirectory()) yield* filesIn(file);
    else if (stat?.isFile() && !name.startsWith(".")) yield file;
  }
}

async function compare(path: string): Promise<Row> {
  const row: Row = {
    file: relative(folder!, path),
    format: "",
    regions: 0,
    largest: 0,
    sum: 0,
    samples: 0,
    problems: [],
  };
  const peer = await OpenSlidePeer.open(program, path);
  let slide: Slide;
  try {
    slide = await openSlide(path, { decoders: 2 });
  } catch (error) {
    const { name, message } = error as Error;
    // A refusal of what OpenSlide does not read either is a right answer.
    if (peer === undefined) row.skipped = `neither reads it: ${name}`;
    else row.problems.push(`${name}: ${message}`);
    await peer?.close();
    return row;
  }
  const shown = { ...row, format: slide.format };
  try {
    if (peer === undefined) await readAll(slide, shown);
    else await comparePixels(slide, peer, shown);
  } catch (error) {
    const { name, message } = error as Error;
    if (peer === undefined && name === "UnsupportedError") {
      shown.skipped = `neither reads it: ${message.replace(/.*": /, "")}`;
    } else shown.problems.push(`${name}: ${message}`);
  } finally {
    await slide.close();
    await peer?.close();
  }
  return shown;
}

/** Where OpenSlide does not read the file: every level must at least be readable. */
async function readAll(slide: Slide, row: Row): Promise<void> {
  for (const [level, { widthPx, heightPx, downsample }] of slide.levels.entries()) {
    for (let i = 0; i < perLevel; i++) {
      await slide.readRegion({
        level,
        x0Px: Math.round(random() * widthPx * downsample) - 20,
        y0Px: Math.round(random() * heightPx * downsample) - 20,
        widthPx: SIDE_PX,
        heightPx: SIDE_PX,
      });
      row.regions++;
    }
  }
  row.skipped = "OpenSlide does not read it; read without a comparison";
}

async function comparePixels(slide: Slide, peer: OpenSlidePeer, row: Row): Promise<void> {
  const levels = await peer.levels();
  const sizes = (of: readonly { widthPx: number; heightPx: number; downsample: number }[]) =>
    of.map(({ widthPx, heightPx, downsample }) => `${widthPx}×${heightPx} /${downsample}`).join(
      ", ",
    );
  if (sizes(levels) !== sizes(slide.levels)) {
    row.problems.push(`levels are ${sizes(slide.levels)}, OpenSlide's ${sizes(levels)}`);
    return;
  }
  const { all } = slide.properties;
  for (const [name, value] of Object.entries(await peer.properties())) {
    if (all[name] === value) continue;
    if (NOT_COMPARED.some((pattern) => pattern.test(name)) && all[name] === undefined) continue;
    row.problems.push(
      `property ${name} is ${JSON.stringify(all[name])}, not ${JSON.stringify(value)}`,
    );
  }
  const isOld = Number.parseInt(await peer.version()) < 4;
  for (const [level, at] of slide.levels.entries()) {
    const { widthPx, heightPx, downsample, tileWidthPx, tileHeightPx } = at;
    // OpenSlide 3 shears a level that is smaller than one of its tiles, when it clips the tile.
    const isSheared = isOld && row.format === "generic-tiff" &&
      (widthPx < tileWidthPx || heightPx < tileHeightPx);
    if (isSheared) continue;
    // Corners in level-0 pixels, so that most lie between pixels of a smaller level.
    const [right, bottom] = [Math.floor(widthPx * downsample), Math.floor(heightPx * downsample)];
    const near = Math.round(20 * downsample);
    const corners = [
      [-7, -5],
      [right - near, -5],
      [-7, bottom - near],
      [right - near, bottom - near],
    ];
    const places = Array.from({ length: perLevel }, () => [
      Math.floor(random() * right),
      Math.floor(random() * bottom),
    ]);
    for (const [x0Px, y0Px] of [...corners, ...places] as [number, number][]) {
      const ours = await slide.readRegion({
        level,
        x0Px,
        y0Px,
        widthPx: SIDE_PX,
        heightPx: SIDE_PX,
      });
      const theirs = await peer.region(level, x0Px, y0Px, SIDE_PX, SIDE_PX);
      row.regions++;
      for (let i = 0; i < theirs.length; i++) {
        const difference = Math.abs(theirs[i]! - ours.data[i]!);
        if (difference > row.largest) row.largest = difference;
        row.sum += difference;
      }
      row.samples += theirs.length;
    }
  }
  const compressions = new Set<string>();
  for (const level of slide.levels.keys()) {
    compressions.add((await slide.rawTile(level, 0, 0)).compression);
  }
  const isWavelet = [...compressions].some((name) => /2000|htj2k/.test(name));
  const { largest, mean } = isWavelet ? WAVELET : EXACT;
  if (row.largest > largest || row.sum / row.samples > mean) {
    row.problems.push(`pixels differ by more than ${largest} or ${mean} in the mean`);
  }
}

const rows: Row[] = [];
console.log("file".padEnd(52) + "format".padEnd(16) + "regions".padStart(8) + " largest    mean");
for (const path of filesIn(folder)) {
  const row = await compare(path);
  rows.push(row);
  console.log(
    row.file.padEnd(52) + row.format.padEnd(16) + String(row.regions).padStart(8) +
      (row.samples > 0
        ? String(row.largest).padStart(8) + (row.sum / row.samples).toFixed(4).padStart(8)
        : "       –       –") +
      (row.skipped === undefined ? "" : `  ${row.skipped}`),
  );
  for (const problem of row.problems) console.log(`    FAILED ${problem}`);
}
const failed = rows.filter(({ problems }) => problems.length > 0).length;
const skipped = rows.filter(({ skipped }) => skipped !== undefined).length;
console.log(`\n${rows.length - failed - skipped} passed, ${failed} failed, ${skipped} skipped`);
Deno.exit(failed > 0 ? 1 : 0);
