/**
 * A slide at a URL 20 ms away, on this machine: opened, and a region read, against the download that
 * would have to end first. A loopback is faster than any network, so these ratios are the least
 * there is.
 */

import { Secret } from "../../src/secrets.ts";
import { openSlide } from "../../src/slide/open.ts";
import { downloadSlide } from "../../src/slide/source_download.ts";
import { HttpSource } from "../../src/slide/source_http.ts";
import { bytes } from "../reference/random.ts";
import { buildTiff, jpeg } from "../slide/tiff_builder.ts";
import { ContractServer } from "../techcyte/contract_server.ts";

const LATENCY_MS = 20;
const TILE_PX = 256;
const COLUMNS = 60;
const REGION = { level: 0, x0Px: 5_000, y0Px: 7_000, widthPx: 1024, heightPx: 1024 };

/** JPEG tiles that are all of the same noise: 3,600 of them. */
async function makeSlide(): Promise<Uint8Array<ArrayBuffer>> {
  const noise = bytes(TILE_PX * TILE_PX * 3, 1).map((byte) => 220 + byte / 16);
  const tile = await jpeg(noise, TILE_PX, TILE_PX);
  return buildTiff([{
    widthPx: COLUMNS * TILE_PX,
    heightPx: COLUMNS * TILE_PX,
    tilePx: [TILE_PX, TILE_PX],
    compression: 7,
    photometric: 6,
    tiles: Array.from({ length: COLUMNS ** 2 }, () => tile),
  }]).bytes;
}

const slide = await makeSlide();
const server = await ContractServer.start({ slide });
server.latencyMs = LATENCY_MS;
const workDir = Deno.makeTempDirSync();

/** What the last iteration that read a region fetched. */
let fetched = "";

Deno.bench(
  `url: download ${(slide.length / 1e6).toFixed(0)} MB, open, read 1024 × 1024`,
  { group: "url", baseline: true, n: 10 },
  async () => {
    const { path } = await downloadSlide({
      url: new Secret(server.slideUrl),
      workDir,
      signal: new AbortController().signal,
      log: { info() {}, warn() {} },
      progress() {},
    });
    const local = await openSlide(path);
    await local.readRegion(REGION);
    await local.close();
    Deno.removeSync(path);
  },
);

Deno.bench("url: open, read 1024 × 1024", { group: "url", n: 20 }, async () => {
  const source = await HttpSource.open(server.slideUrl);
  const remote = await openSlide(source);
  await remote.readRegion(REGION);
  await remote.close();
  fetched = `${(source.bytesFetched / 1e6).toFixed(1)} MB in ${source.requests} requests`;
});

Deno.bench("url: open", { group: "url", n: 20 }, async () => {
  await (await openSlide(server.slideUrl)).close();
});

globalThis.addEventListener("unload", () => {
  console.log(`url: opened, and the region read: ${fetched}`);
  Deno.removeSync(workDir, { recursive: true });
});
