/**
 * Reading slides, against OpenSlide's C API in the same run.
 *
 *   deno task bench:slides SLIDE [--tiles N] [--regions N]
 *
 * SLIDE: one of real size, such as shared/data/make_big_slide.sh makes. Level 0 is read tile by
 * tile, in order, RGB delivered; then random squares of 1024; then opening. Ours takes as many
 * decoders as there are cores; OpenSlide one thread, and as many as we take.
 */

import { parseArgs } from "node:util";
import { openSlide } from "../../src/slide/open.ts";
import { buildPeer, timePeer } from "../peers/openslide.ts";

const { positionals: [path] } = parseArgs({ allowPositionals: true });
if (path === undefined) {
  console.error("error: Cannot bench: name a slide");
  Deno.exit(2);
}
const program = await buildPeer();
const threads = navigator.hardwareConcurrency;
const SIDE = 1024, REGIONS = 200, OPENINGS = 50;
const megabytes = () => Math.round(Deno.memoryUsage().rss / 1e6);

const slide = await openSlide(path, { decoders: threads });
const { widthPx, heightPx, tileWidthPx: tile } = slide.levels[0]!;
const columns = Math.ceil(widthPx / tile), rows = Math.ceil(heightPx / tile);
console.log(
  `${path}: ${widthPx} × ${heightPx}, ${columns * rows} tiles of ${tile}, ${threads} cores\n`,
);

/** Level 0 in order; some tiles are asked for ahead, delivered in order. */
async function readTiles(): Promise<{ seconds: number; count: number; peak: number }> {
  const ahead = 4 * threads;
  const start = performance.now();
  const pending: Promise<unknown>[] = [];
  let peak = 0;
  for (let at = 0; at < columns * rows; at++) {
    pending.push(slide.readRegion({
      level: 0,
      x0Px: at % columns * tile,
      y0Px: Math.floor(at / columns) * tile,
      widthPx: tile,
      heightPx: tile,
    }));
    if (pending.length > ahead) await pending.shift();
    if (at % 1000 === 0) peak = Math.max(peak, megabytes());
  }
  await Promise.all(pending);
  return { seconds: (performance.now() - start) / 1000, count: columns * rows, peak };
}

async function readRegions(): Promise<{ seconds: number; count: number }> {
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

async function openings(): Promise<{ seconds: number; count: number }> {
  const start = performance.now();
  for (let i = 0; i < OPENINGS; i++) await (await openSlide(path!)).close();
  return { seconds: (performance.now() - start) / 1000, count: OPENINGS };
}

console.log(
  "what".padEnd(26) + "ours".padStart(12) + "OpenSlide".padStart(12) + "ratio".padStart(8),
);
function show(
  what: string,
  ours: { seconds: number; count: number },
  theirs: { seconds: number; count: number },
): void {
  const [a, b] = [ours.count / ours.seconds, theirs.count / theirs.seconds];
  console.log(
    what.padEnd(26) + `${a.toFixed(0)}/s`.padStart(12) + `${b.toFixed(0)}/s`.padStart(12) +
      (a / b).toFixed(2).padStart(8),
  );
}
const tiles = await readTiles();
show("tiles, 1 thread of theirs", tiles, await timePeer(program, "tiles", path, 0, tile, 1));
show(
  `tiles, ${threads} threads`,
  tiles,
  await timePeer(program, "tiles", path, 0, tile, threads),
);
show(
  `regions of ${SIDE}²`,
  await readRegions(),
  await timePeer(program, "regions", path, 0, SIDE, REGIONS),
);
show("openings", await openings(), await timePeer(program, "open", path, OPENINGS));
console.log(`\npeak memory of ours ${tiles.peak} MB`);
await slide.close();
