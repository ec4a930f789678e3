/** How much of a slide at a URL is fetched, of every format that is read by range. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Uint8ArrayReader, Uint8ArrayWriter, ZipWriter } from "@zip.js/zip.js";
import { openSlide } from "../../src/slide/open.ts";
import type { Region, Slide } from "../../src/slide/slide.ts";
import { MemorySource, type Source } from "../../src/slide/source.ts";
import { HttpSource } from "../../src/slide/source_http.ts";
import { dataPath } from "../data.ts";
import { bytes } from "../reference/random.ts";
import { buildDicom, JPEG } from "./dicom_builder.ts";
import { serveSource } from "./source_server.ts";
import { buildTiff, cutTiles, deflate, jpeg } from "./tiff_builder.ts";

/** Runs on a slide as a server has it and as it lies there; counts from its opening on are given. */
async function served(
  source: Source,
  run: (scene: {
    remote: Slide;
    /** Requests, and bytes that were fetched, since the last call. */
    fetched(): { requests: number; bytes: number };
    open(): Promise<Slide>;
  }) => Promise<void>,
): Promise<void> {
  const server = serveSource(source);
  const slides: Slide[] = [];
  const open = async () => {
    const slide = await openSlide(await HttpSource.open(server.url));
    slides.push(slide);
    return slide;
  };
  const fetched = () => {
    const { requests, bytes } = server;
    server.requests = server.bytes = 0;
    return { requests, bytes };
  };
  try {
    await run({ remote: await open(), fetched, open });
  } finally {
    for (const slide of slides) await slide.close();
    await server.stop();
  }
}

/** Compressed bytes of a level's tiles that a rectangle in its pixels touches. */
async function tileBytes(
  slide: Slide,
  level: number,
  [xPx, yPx, widthPx, heightPx]: readonly [number, number, number, number],
): Promise<number> {
  const { tileWidthPx, tileHeightPx, ...size } = slide.levels[level]!;
  const right = Math.min(size.widthPx, xPx + widthPx);
  const bottom = Math.min(size.heightPx, yPx + heightPx);
  let sum = 0;
  for (let row = Math.floor(yPx / tileHeightPx); row * tileHeightPx < bottom; row++) {
    for (let column = Math.floor(xPx / tileWidthPx); column * tileWidthPx < right; column++) {
      sum += (await slide.rawTile(level, column, row)).data.length;
    }
  }
  return sum;
}

/** One field of a directory that is written by hand. */
type Entry = readonly [tag: number, type: 2 | 3 | 4 | 7, values: ArrayLike<number>];

interface Level {
  readonly widthPx: number;
  readonly heightPx: number;
  /** Strips where absent. */
  readonly tilePx?: number;
  /** Of each tile or strip. */
  readonly bytesEach: number;
  readonly description: string;
  readonly subfileType?: number;
}

/**
 * An Aperio slide of real size as Aperio's library lays it out, the data of each picture before its
 * directory, and that before its values; the data are zeros that nothing holds.
 */
function realAperio(levels: readonly Level[], profileBytes: number): Source {
  const pieces: { at: number; data: Uint8Array }[] = [];
  let end = 8;
  let link = { view: new DataView(new ArrayBuffer(8)), at: 4 };
  link.view.setUint32(0, 0x49492a00);
  pieces.push({ at: 0, data: new Uint8Array(link.view.buffer) });
  for (const { widthPx, heightPx, tilePx, bytesEach, description, subfileType } of levels) {
    const count = tilePx === undefined
      ? Math.ceil(heightPx / 16)
      : Math.ceil(widthPx / tilePx) * Math.ceil(heightPx / tilePx);
    const dataAt = end;
    const offsets = Array.from({ length: count }, (_, i) => dataAt + i * bytesEach);
    const counts = Array<number>(count).fill(bytesEach);
    end += count * bytesEach + count * bytesEach % 2;
    const entries: Entry[] = [
      [254, 4, [subfileType ?? 0]],
      [256, 4, [widthPx]],
      [257, 4, [heightPx]],
      [258, 3, [8, 8, 8]],
      [259, 3, [7]],
      [262, 3, [2]],
      [270, 2, new TextEncoder().encode(description + "\0")],
      ...tilePx === undefined ? [[273, 4, offsets] as const] : [],
      [277, 3, [3]],
      ...tilePx === undefined ? [[278, 4, [16]] as const, [279, 4, counts] as const] : [
        [322, 3, [tilePx]] as const,
        [323, 3, [tilePx]] as const,
        [324, 4, offsets] as const,
        [325, 4, counts] as const,
      ],
      [347, 7, new Uint8Array(289)],
      ...profileBytes > 0 ? [[34675, 7, new Uint8Array(profileBytes)] as const] : [],
    ];
    const directory = new DataView(new ArrayBuffer(2 + 12 * entries.length + 4));
    link.view.setUint32(link.at, end, true);
    link = { view: directory, at: directory.byteLength - 4 };
    pieces.push({ at: end, data: new Uint8Array(directory.buffer) });
    end += directory.byteLength;
    directory.setUint16(0, entries.length, true);
    for (const [i, [tag, type, values]] of entries.entries()) {
      const size = type === 3 ? 2 : type === 4 ? 4 : 1;
      const data = new DataView(new ArrayBuffer(Math.max(4, size * values.length)));
      for (let v = 0; v < values.length; v++) {
        if (size === 1) data.setUint8(v, values[v]!);
        else if (size === 2) data.setUint16(2 * v, values[v]!, true);
        else data.setUint32(4 * v, values[v]!, true);
      }
      const at = 2 + 12 * i;
      directory.setUint16(at, tag, true);
      directory.setUint16(at + 2, type, true);
      directory.setUint32(at + 4, values.length, true);
      const inline = size * values.length <= 4;
      directory.setUint32(at + 8, inline ? data.getUint32(0, true) : end, true);
      if (inline) continue;
      pieces.push({ at: end, data: new Uint8Array(data.buffer) });
      end += data.byteLength + data.byteLength % 2;
    }
  }
  return {
    location: "real.svs",
    sizeBytes: end,
    read(offsetBytes, lengthBytes) {
      const data = new Uint8Array(Math.min(lengthBytes, end - offsetBytes));
      for (const piece of pieces) {
        const from = Math.max(piece.at, offsetBytes);
        const to = Math.min(piece.at + piece.data.length, offsetBytes + data.length);
        if (from < to) {
          data.set(piece.data.subarray(from - piece.at, to - piece.at), from - offsetBytes);
        }
      }
      return Promise.resolve(data);
    },
    close: () => Promise.resolve(),
  };
}

/** Sizes of CMU-1.svs; 26,496 tiles of level 0. */
const CMU_1: readonly Level[] = [
  {
    widthPx: 46_000,
    heightPx: 32_914,
    tilePx: 240,
    bytesEach: 6_000,
    description: "Aperio|AppMag = 20",
  },
  { widthPx: 1024, heightPx: 732, bytesEach: 5_000, description: "Aperio thumbnail" },
  { widthPx: 11_500, heightPx: 8228, tilePx: 240, bytesEach: 6_000, description: "Aperio" },
  { widthPx: 2875, heightPx: 2057, tilePx: 240, bytesEach: 6_000, description: "Aperio" },
  { widthPx: 387, heightPx: 463, bytesEach: 9_000, description: "Aperio label", subfileType: 1 },
  { widthPx: 1280, heightPx: 431, bytesEach: 4_000, description: "Aperio macro", subfileType: 9 },
];

for (const profileBytes of [0, 141_992]) {
  Deno.test(`openSlide() of a URL takes little of an SVS of real size, its profile of ${profileBytes} bytes once`, () =>
    served(realAperio(CMU_1, profileBytes), ({ remote, fetched }) => {
      assert.equal(remote.format, "aperio");
      assert.deepEqual(remote.levels.map(({ widthPx }) => widthPx), [46_000, 11_500, 2875]);
      assert.deepEqual([...remote.associated.keys()], ["thumbnail", "label", "macro"]);
      assert.equal(remote.icc?.length ?? 0, profileBytes);
      const { requests, bytes } = fetched();
      // The head, the tail, the first directory's places of tiles, and each directory, since where
      // one is only the one before says.
      assert(requests <= 3 + CMU_1.length, `${requests} requests`);
      assert(bytes - profileBytes <= 512 * 1024, `${bytes} bytes`);
      return Promise.resolve();
    }));
}

const TILE_PX = 64, COLUMNS = 20, ROWS = 15;

/** Tiles of noise, so that none compresses: 300 of about 6 kB as JPEG, 12 kB otherwise. */
function noise(): Uint8Array[] {
  const pixels = bytes(COLUMNS * TILE_PX * ROWS * TILE_PX * 3, 1);
  return cutTiles(pixels, COLUMNS * TILE_PX, ROWS * TILE_PX, [TILE_PX, TILE_PX]);
}

const SIZE = { widthPx: COLUMNS * TILE_PX, heightPx: ROWS * TILE_PX };
const TILED = { ...SIZE, tilePx: [TILE_PX, TILE_PX] as const };

async function jpegs(): Promise<Uint8Array[]> {
  return await Promise.all(noise().map((tile) => jpeg(tile, TILE_PX, TILE_PX)));
}

async function dicom(table: "none" | "basic" | "extended"): Promise<Uint8Array> {
  const frames = (await jpegs()).map((frame) => [frame]);
  return buildDicom({ ...TILED, transferSyntaxUid: JPEG, photometric: "YBR_FULL", frames, table })
    .bytes;
}

async function zipOf(file: Uint8Array): Promise<Uint8Array> {
  const writer = new ZipWriter(new Uint8ArrayWriter(), { useWebWorkers: false });
  await writer.add("one.dcm", new Uint8ArrayReader(file), { level: 0 });
  return await writer.close();
}

const FORMATS: Readonly<Record<string, () => Promise<Uint8Array> | Uint8Array | undefined>> = {
  "a TIFF of small tiles": async () =>
    buildTiff([{ ...TILED, compression: 7, photometric: 6, tiles: await jpegs() }]).bytes,
  "a BigTIFF in planes": () => {
    const tiles = noise();
    const planes = [0, 1, 2].flatMap((plane) =>
      tiles.map((tile) => deflate(tile.filter((_, i) => i % 3 === plane)))
    );
    const fields = [{ tag: 284, type: 3, values: [2] }];
    return buildTiff([{ ...TILED, compression: 8, tiles: planes, fields }], { bigTiff: true })
      .bytes;
  },
  "a DICOM file with a Basic Offset Table": () => dicom("basic"),
  "a DICOM file with an Extended Offset Table": () => dicom("extended"),
  "an uncompressed DICOM file": () => buildDicom({ ...TILED, frames: noise() }).bytes,
  "a zip of a DICOM file": async () => await zipOf(await dicom("basic")),
  "an NDPI": () => {
    const path = dataPath("slides/ndpi/test3-DAPI-2-387.ndpi");
    return path === undefined ? undefined : new Uint8Array(readFileSync(path));
  },
  "an SVS of JPEG 2000": () => {
    const path = dataPath("slides/svs/CMU-1-JP2K-Region.svs");
    return path === undefined ? undefined : new Uint8Array(readFileSync(path));
  },
};

const REGIONS: readonly (readonly [x: number, y: number, width: number, height: number])[] = [
  [200, 300, 1, 1],
  [130, 200, 64, 64],
  [60, 60, 500, 300],
  [0, 640, 1280, 20],
  [700, 0, 20, 960],
  [900, 700, 1000, 1000],
];

for (const [what, make] of Object.entries(FORMATS)) {
  Deno.test(`Slide.readRegion() of ${what} at a URL fetches at most 1.25 of its tiles' bytes, and is the file's`, async () => {
    const file = await make();
    if (file === undefined) return;
    const local = await openSlide(new MemorySource(file, "a"));
    await served(new MemorySource(file, "a"), async ({ open, fetched }) => {
      for (const [x0Px, y0Px, widthPx, heightPx] of REGIONS) {
        // Another slide each time, since what was read before costs nothing.
        const remote = await open();
        // A DICOM file's offset table is read with its first frame.
        await remote.rawTile(0, 0, 0);
        fetched();
        const region: Region = { level: 0, x0Px, y0Px, widthPx, heightPx };
        const picture = await remote.readRegion(region);
        const { bytes, requests } = fetched();
        const needed = await tileBytes(local, 0, [x0Px, y0Px, widthPx, heightPx]);
        assert(bytes <= 1.25 * needed, `${region}: ${bytes} of ${needed}`);
        assert(requests <= 48, `${requests} requests`);
        assert.deepEqual(picture, await local.readRegion(region));
      }
    });
    await local.close();
  });

  Deno.test(`Slide.rawTile() of ${what} at a URL fetches the tile alone`, async () => {
    const file = await make();
    if (file === undefined) return;
    const local = await openSlide(new MemorySource(file, "a"));
    await served(new MemorySource(file, "a"), async ({ remote, fetched }) => {
      await remote.rawTile(0, 0, 0);
      for (const [column, row] of [[3, 4], [5, 9], [1, 7]] as const) {
        if (column >= Math.ceil(local.levels[0]!.widthPx / local.levels[0]!.tileWidthPx)) continue;
        fetched();
        const tile = await remote.rawTile(0, column, row);
        assert.deepEqual(tile, await local.rawTile(0, column, row));
        assert(fetched().bytes <= 1.25 * tile.data.length);
      }
    });
    await local.close();
  });
}

Deno.test("Slide.readRegion() of a DICOM file without a table at a URL begins before all of it is read", async () => {
  const frames = Array.from(
    { length: 80 },
    (_, i) => [Uint8Array.from([0xff, 0xd8, 0xff, ...bytes(200_000, i)])],
  );
  const file = buildDicom({
    widthPx: 8 * 512,
    heightPx: 10 * 512,
    tilePx: [512, 512],
    transferSyntaxUid: JPEG,
    photometric: "YBR_FULL",
    frames,
    table: "none",
  }).bytes;
  await served(new MemorySource(file, "a"), async ({ remote, fetched }) => {
    fetched();
    // In their order, as a slide is gone through: what is looked over is what is read next.
    for (const i of [0, 1, 2, 8, 9]) {
      const { data } = await remote.rawTile(0, i % 8, Math.floor(i / 8));
      assert.deepEqual(data.subarray(0, 200_003), frames[i]![0]);
    }
    const { bytes } = fetched();
    assert(bytes < 4e6, `${bytes} of ${file.length}`);
  });
});
