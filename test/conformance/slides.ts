/**
 * Every slide under a folder against OpenSlide: levels, dimensions, properties, profile, associated
 * pictures, and pixels at seeded random places of every level and at its edges.
 *
 *   deno task conformance:slides DIR [--regions N] [--seed N]
 *
 * OPENSLIDE_PREFIX names where an OpenSlide is installed that is to be compared with instead of the
 * system's, such as one of version 4, which reads DICOM.
 * Prints a table and exits with 1 where anything differs by more than its format may.
 */

import { readdirSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { openSlide } from "../../src/slide/open.ts";
import { toRgb } from "../../src/slide/samples.ts";
import { readSegments } from "../../src/slide/codec.ts";
import type { RawTile, Slide } from "../../src/slide/slide.ts";
import { buildPeer, OpenSlidePeer } from "../peers/openslide.ts";
import { uniform } from "../reference/random.ts";

/** Level-0 sides of the regions, in the level's own pixels. */
const SIDE_PX = 256;

/** A larger level is not read whole. */
const MOST_WHOLE_PX = 40e6;

/** Largest and mean difference that a slide may have, out of 255. */
interface Tolerance {
  readonly largest: number;
  readonly mean: number;
}

/** Lossless and baseline JPEG decode the same way everywhere; irreversible wavelets round differently. */
const EXACT: Tolerance = { largest: 0, mean: 0 };
const WAVELET: Tolerance = { largest: 1, mean: 0.1 };

/** A hash of bytes as OpenSlide reads them: an identity, not a property of the slide. */
const NOT_COMPARED = "openslide.quickhash-1";
/** OpenSlide has these since version 4, some of them for some formats only. */
const NEWER = /^openslide\.(mpp-[xy]|objective-power|barcode|icc-size|associated\..*)$/;

/** A picture that is read beyond OpenSlide's; and profiles of pictures of TIFFs are not. */
const BEYOND = "map";
const NOT_TOLD = /^openslide\.associated\..*\.icc-size$/;

interface Row {
  readonly file: string;
  readonly format: string;
  regions: number;
  largest: number;
  sum: number;
  samples: number;
  readonly problems: string[];
  skipped?: string;
  note?: string;
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
  const isOld = Number.parseInt(await peer.version()) < 4;
  const ours = slide.properties.all, theirs = await peer.properties();
  for (const name of new Set([...Object.keys(theirs), ...Object.keys(ours)])) {
    if (ours[name] === theirs[name] || name === NOT_COMPARED) continue;
    if (isOld && theirs[name] === undefined && NEWER.test(name)) continue;
    if (theirs[name] === undefined && name.startsWith(`openslide.associated.${BEYOND}.`)) continue;
    if (slide.format !== "dicom" && NOT_TOLD.test(name)) continue;
    const [one, other] = [ours[name], theirs[name]].map((value) => JSON.stringify(value) ?? "none");
    row.problems.push(`property ${name} is ${one}, OpenSlide's ${other}`);
  }
  await compareAssociated(slide, peer, row);
  const icc = await peer.icc();
  if (!isOld && !isEqual(icc, slide.icc ?? new Uint8Array())) {
    row.problems.push(`its profile has ${slide.icc?.length ?? 0} bytes, OpenSlide's ${icc.length}`);
  }
  // OpenSlide believes the label, and shows as RGB what is YCbCr.
  const isMislabelled = slide.format === "dicom" &&
    ours["dicom.PhotometricInterpretation"] === "RGB" && saysYcbcr(await slide.rawTile(0, 0, 0));
  for (const [level, at] of slide.levels.entries()) {
    const { widthPx, heightPx, downsample, tileWidthPx, tileHeightPx } = at;
    // libtiff's TIFFRGBAImageGet shears a tile that is wider than its image.
    const isSheared = row.format === "generic-tiff" &&
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
    const corner = { level, widthPx: SIDE_PX, heightPx: SIDE_PX };
    let regions = ([...corners, ...places] as [number, number][])
      .map(([x0Px, y0Px]) => ({ ...corner, x0Px, y0Px }));
    // Between pixels colours are mixed, which is not the same before they are converted.
    if (isMislabelled) regions = [{ level, x0Px: 0, y0Px: 0, widthPx, heightPx }];
    for (const region of regions) {
      if (region.widthPx * region.heightPx > MOST_WHOLE_PX) continue;
      const { data } = await slide.readRegion(region);
      const { x0Px, y0Px } = region;
      let other = await peer.region(level, x0Px, y0Px, region.widthPx, region.heightPx);
      if (isMislabelled) other = convertYcbcr(other);
      row.regions++;
      for (let i = 0; i < other.length; i++) {
        const difference = Math.abs(other[i]! - data[i]!);
        if (difference > row.largest) row.largest = difference;
        row.sum += difference;
      }
      row.samples += other.length;
    }
  }
  if (isMislabelled) row.note = "labelled RGB though YCbCr: OpenSlide's pixels were converted";
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

/** Names, sizes and pixels of label, macro and thumbnail. */
async function compareAssociated(slide: Slide, peer: OpenSlidePeer, row: Row): Promise<void> {
  const sizes = await peer.associated();
  const names = (of: Iterable<string>) => [...of].sort().join(", ") || "none";
  const [ours, theirs] = [slide.associated, sizes].map((of) =>
    names([...of.keys()].filter((name) => name !== BEYOND))
  );
  if (ours !== theirs) {
    row.problems.push(`associated pictures are ${ours}, OpenSlide's ${theirs}`);
    return;
  }
  for (const [name, { widthPx, heightPx }] of sizes) {
    const picture = await slide.associated.get(name)!();
    if (picture.widthPx !== widthPx || picture.heightPx !== heightPx) {
      const size = `${picture.widthPx} × ${picture.heightPx}`;
      row.problems.push(`the ${name} is ${size}, OpenSlide's ${widthPx} × ${heightPx}`);
    } else if (!isEqual(picture.data, await peer.picture(name, widthPx * heightPx))) {
      row.problems.push(`the ${name} has other pixels than OpenSlide's`);
    }
  }
}

/** Whether a frame's markers say so, or its subsampling: those of JFIF do, of Adobe only with a transform. */
function saysYcbcr({ compression, photometric, data }: RawTile): boolean {
  if (compression !== "jpeg" || photometric !== "ycbcr") return false;
  const adobe = [...readSegments(data)].find(({ marker }) => marker === 0xee);
  return adobe === undefined || adobe.payload[11] !== 0;
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** YCbCr of every pixel to RGB, in libjpeg's arithmetic. */
function convertYcbcr(pixels: Uint8Array): Uint8Array {
  return toRgb(pixels, {
    widthPx: pixels.length / 3,
    heightPx: 1,
    samplesPerPixel: 3,
    bitsPerSample: 8,
    photometric: "ycbcr",
    alpha: "none",
    littleEndian: true,
  });
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
      [row.skipped, row.note].map((words) => words === undefined ? "" : `  ${words}`).join(""),
  );
  for (const problem of row.problems) console.log(`    FAILED ${problem}`);
}
const failed = rows.filter(({ problems }) => problems.length > 0).length;
const skipped = rows.filter(({ skipped }) => skipped !== undefined).length;
console.log(`\n${rows.length - failed - skipped} passed, ${failed} failed, ${skipped} skipped`);
Deno.exit(failed > 0 ? 1 : 0);
