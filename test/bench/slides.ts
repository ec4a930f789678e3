/**
 * Reading slides, against OpenSlide's C API in the same run.
 *
 *   deno task bench:slides SLIDE [--tiles N] [--regions N] [--jpeg2000 SLIDE]
 *
 * SLIDE: one of real size, such as shared/data/make_big_slide.sh makes. Level 0 is read tile by tile,
 * in order, RGB delivered; then random squares of 1024; then it is opened. The same tile by tile of a
 * JPEG 2000 slide, which is made from SLIDE unless one is given. Ours takes as many decoders as there
 * are cores; OpenSlide one thread, and as many as we take. With --tiles only the first N are read.
 *
 * Memory is what the process had resident at its most, threads included, while it read the tiles.
 */

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import sharp from "sharp";
import { openSlide } from "../../src/slide/open.ts";
import type { Slide } from "../../src/slide/slide.ts";
import { buildPeer, timePeer } from "../peers/openslide.ts";
import { ascii, buildTiff, cutTiles } from "../slide/tiff_builder.ts";
import { encodeLossyJpeg2000 } from "../slide/wasm_encoders.ts";

const { positionals: [path], values } = parseArgs({
  allowPositionals: true,
  options: {
    tiles: { type: "string", default: "1000000" },
    regions: { type: "string", default: "200" },
    jpeg2000: { type: "string" },
  },
});
if (path === undefined) {
  console.error("error: Cannot bench: name a slide");
  Deno.exit(2);
}
const program = await buildPeer();
const threads = navigator.hardwareConcurrency;
const SIDE = 1024, OPENINGS = 50;
const REGIONS = Number(values.regions);
/** How often the JPEG 2000 slide, which is small, is read. */
const JPEG2000_ROUNDS = 5;
/** Side of the JPEG 2000 slide, whose tiles are of 256. */
const JPEG2000_PX = 3072;

interface Timed {
  readonly seconds: number;
  readonly count: number;
}

/** Level 0 in order; some tiles are asked for ahead, delivered in order. */
async function readTiles(slide: Slide): Promise<Timed> {
  const { widthPx, heightPx, tileWidthPx: tile } = slide.levels[0]!;
  const columns = Math.ceil(widthPx / tile), rows = Math.ceil(heightPx / tile);
  const count = Math.min(columns * rows, Number(values.tiles));
  const ahead = 4 * threads;
  const start = performance.now();
  const pending: Promise<unknown>[] = [];
  for (let at = 0; at < count; at++) {
    pending.push(slide.readRegion({
      level: 0,
      x0Px: at % columns * tile,
      y0Px: Math.floor(at / columns) * tile,
      widthPx: tile,
      heightPx: tile,
    }));
    if (pending.length > ahead) await pending.shift();
  }
  await Promise.all(pending);
  return { seconds: (performance.now() - start) / 1000, count };
}

async function readRegions(slide: Slide): Promise<Timed> {
  const { widthPx, heightPx } = slide.levels[0]!;
  let state = 1;
  const start = performance.now();
  for (let i = 0; i < REGIONS; i++) {
    const at = [widthPx, heightPx].map((size) => {
      // xorshift32, as the peer has it
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) % (size - SIDE);
    });
    await slide.readRegion({ level: 0, x0Px: at[0]!, y0Px: at[1]!, widthPx: SIDE, heightPx: SIDE });
  }
  return { seconds: (performance.now() - start) / 1000, count: REGIONS };
}

async function openings(): Promise<Timed> {
  const start = performance.now();
  for (let i = 0; i < OPENINGS; i++) await (await openSlide(path!)).close();
  return { seconds: (performance.now() - start) / 1000, count: OPENINGS };
}

/** The most memory that was resident since the process began, in MB (proc(5)). */
function peakMegabytes(): number {
  const kilobytes = Number(readFileSync("/proc/self/status", "latin1").match(/VmHWM:\s+(\d+)/)![1]);
  return Math.round(kilobytes * 1024 / 1e6);
}

/**
 * A slide as Aperio's scanners write it in JPEG 2000 (33005), of a piece of level 0. The encoder has no
 * rates, and keeps nearly all there is: the piece is drawn twice as large, so that a tile takes
 * about as much as a scanner's.
 */
async function makeJpeg2000(slide: Slide): Promise<string> {
  const { widthPx, heightPx } = slide.levels[0]!;
  const side = JPEG2000_PX / 2;
  const { data } = await slide.readRegion({
    level: 0,
    x0Px: Math.floor(widthPx / 2),
    y0Px: Math.floor(heightPx / 2),
    widthPx: side,
    heightPx: side,
  });
  const larger = await sharp(data, { raw: { width: side, height: side, channels: 3 } })
    .resize(JPEG2000_PX, JPEG2000_PX, { kernel: "cubic" }).raw().toBuffer();
  const tilePx = [256, 256] as const;
  const tiles: Uint8Array[] = [];
  for (const tile of cutTiles(larger, JPEG2000_PX, JPEG2000_PX, tilePx)) {
    tiles.push(await encodeLossyJpeg2000(tile, ...tilePx, 3, 8));
  }
  const { bytes } = buildTiff([{
    widthPx: JPEG2000_PX,
    heightPx: JPEG2000_PX,
    tilePx,
    compression: 33005,
    tiles,
    fields: [ascii(270, "Aperio Image Library v1.0\r\n|AppMag = 20|MPP = 0.5")],
  }]);
  const file = Deno.makeTempFileSync({ suffix: ".svs" });
  writeFileSync(file, bytes);
  const kilobytes = tiles.reduce((sum, { length }) => sum + length, 0) / tiles.length / 1000;
  console.log(
    `JPEG 2000: ${JPEG2000_PX} × ${JPEG2000_PX}, ${tiles.length} tiles of 256, ` +
      `${kilobytes.toFixed(1)} kB each`,
  );
  return file;
}

function show(what: string, ours: Timed, theirs: Timed): void {
  const [a, b] = [ours.count / ours.seconds, theirs.count / theirs.seconds];
  console.log(
    what.padEnd(32) + `${a.toFixed(0)}/s`.padStart(12) + `${b.toFixed(0)}/s`.padStart(12) +
      (a / b).toFixed(2).padStart(8),
  );
}

/** Of several rounds the best of each, since others may use the machine. */
async function benchTiles(
  what: string,
  file: string,
  slide: Slide,
  ours: Timed,
  rounds = 1,
): Promise<void> {
  const tile = slide.levels[0]!.tileWidthPx;
  const counts = [...new Set([1, threads])];
  const theirs: Timed[] = [];
  const better = (a: Timed | undefined, b: Timed) =>
    a !== undefined && a.seconds < b.seconds ? a : b;
  for (let round = 0; round < rounds; round++) {
    if (round > 0) ours = better(ours, await readTiles(slide));
    for (const [i, n] of counts.entries()) {
      theirs[i] = better(theirs[i], await timePeer(program, "tiles", file, 0, tile, n, ours.count));
    }
  }
  for (const [i, n] of counts.entries()) {
    show(`${what}, ${n} thread${n > 1 ? "s" : ""} of theirs`, ours, theirs[i]!);
  }
}

const slide = await openSlide(path, { decoders: threads, cacheBytes: 0 });
const { widthPx, heightPx } = slide.levels[0]!;
console.log(`${path}: ${widthPx} × ${heightPx}, ${threads} cores`);
const before = peakMegabytes();
const tiles = await readTiles(slide);
const peak = peakMegabytes();
console.log("what".padEnd(32) + "ours".padStart(12) + "OpenSlide".padStart(12) + "   ratio");
await benchTiles("tiles", path, slide, tiles);
if (REGIONS > 0) {
  show(
    `regions of ${SIDE}²`,
    await readRegions(slide),
    await timePeer(program, "regions", path, 0, SIDE, REGIONS),
  );
}
const opened = await openings();
show("openings", opened, await timePeer(program, "open", path, OPENINGS));
console.log(
  `opening takes ${(1000 * opened.seconds / opened.count).toFixed(1)} ms\n` +
    `peak memory ${peak} MB, ${before} MB when the slide had been opened\n`,
);

const wavelets = values.jpeg2000 ?? await makeJpeg2000(slide);
await slide.close();
const other = await openSlide(wavelets, { decoders: threads, cacheBytes: 0 });
await readTiles(other); // Starts the threads and compiles the decoder.
await benchTiles("JPEG 2000 tiles", wavelets, other, await readTiles(other), JPEG2000_ROUNDS);
await other.close();
if (values.jpeg2000 === undefined) rmSync(wavelets);
