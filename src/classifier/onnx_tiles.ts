/**
 * A model run over a slide's tissue: blocks of tiles are read and decoded while the GPU has the ones
 * before, cut into batches, normalised in one pass, run, and handed on.
 */

import { KernelError } from "../../kernels/errors.ts";
import { Batch } from "../../kernels/kernel.ts";
import {
  compileNormalise,
  type Normalisation,
  type NormalisePipelines,
  recordNormalise,
} from "../../kernels/normalise.ts";
import { Tensor } from "../../kernels/tensor.ts";
import { type Context, requireGpu } from "../context.ts";
import { ModelError } from "../errors.ts";
import type { HostTensor } from "../model/host_tensor.ts";
import { channelsLast, type Layout } from "../model/layout.ts";
import type { Plan, Session } from "../model/session.ts";
import type { ModelTile, TileGrid } from "../pipeline/grid.ts";
import { runTiles } from "../pipeline/run.ts";
import type { TissueMask } from "../pipeline/tissue.ts";
import type { Slide } from "../slide/slide.ts";
import type { Findings } from "./onnx_findings.ts";
import { type FittedModel, tilesShape } from "./onnx_model.ts";
import type { Sidecar } from "./sidecar.ts";

/** Tiles in one run where the sidecar leaves it open: what fills a GPU, and what a CPU's caches hold. */
const BATCHES = { hardware: [64, 32, 16, 8, 4, 2, 1], software: [4, 2, 1] } as const;
/** Side of the tiles that the first of those is for: of larger ones fewer are run, as many pixels. */
const BATCHED_TILE_PX = 256;
/** Tiles of the first block that f16 is tried on. */
const DECIDING_TILES = 4;
/** About the side of what is read at one go: neighbours share the slide's own tiles. */
const BLOCK_PX = 1024;

/** A tile as the model sees it: its core begins `margin` model pixels inside it. */
export interface TileGeometry {
  /** Side of the tile, overlaps included, in model pixels. */
  readonly tilePx: number;
  /** From the tile's edge to its core's, on the left and above. */
  readonly marginPx: number;
}

/** `(v / 255 · (high − low) + low − mean) / std`, in the model's order of channels. */
export function normalisationOf(
  { range: [low, high], mean, std, channels }: Sidecar["input"],
): Normalisation {
  const scale = std.map((s) => (high - low) / s) as [number, number, number];
  const [a, b, c] = scale;
  return {
    of: "intensity",
    mix: channels === "RGB" ? [[a, 0, 0], [0, b, 0], [0, 0, c]] : [[0, 0, a], [0, b, 0], [c, 0, 0]],
    offset: [0, 1, 2].map((i) => (low - mean[i]!) / std[i]!) as [number, number, number],
  };
}

/** How normalised pixels, four numbers each, lie in the model's input. */
export function inputLayout(layout: Sidecar["input"]["layout"]): Layout {
  return layout === "NCHW" ? channelsLast(4) : { order: [0, 1, 2, 3], padded: true };
}

/** Tiles of neighbouring rows and columns, read at one go. */
interface Block {
  /** Cores of its tiles, in model pixels. */
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
  readonly tiles: readonly ModelTile[];
}

/** Side of the squares of cores that blocks are, in model pixels: all tiles of one row of them come before the next row's. */
export function blockSpan({ corePx }: TileGrid): number {
  return Math.max(1, Math.floor(BLOCK_PX / corePx)) * corePx;
}

/** Groups tiles into blocks, row by row. */
function blocksOf(grid: TileGrid): Block[] {
  const span = blockSpan(grid);
  const groups = new Map<string, ModelTile[]>();
  for (const tile of grid.tiles) {
    const key = `${Math.floor(tile.y / span)} ${Math.floor(tile.x / span)}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [tile]);
    else group.push(tile);
  }
  return [...groups.values()].map((tiles) => {
    const xs = tiles.map(({ x }) => x), ys = tiles.map(({ y }) => y);
    return {
      left: Math.min(...xs),
      top: Math.min(...ys),
      right: Math.max(...xs) + grid.corePx,
      bottom: Math.max(...ys) + grid.corePx,
      tiles,
    };
  });
}

/** What a run's outputs are read by: on the GPU behind the model, and then on the host. */
export interface OutputSteps<Found> {
  /** Layouts of outputs, where not row-major. */
  readonly layouts?: Readonly<Record<string, Layout>>;
  /**
   * Queues what reads the outputs of a batch, before anything is awaited but `started` where nodes run
   * on the host; resolves with what came back. Outputs past `tiles` are of no tile.
   */
  read(
    plan: Plan,
    started: Promise<ReadonlyMap<string, HostTensor>>,
    tiles: readonly ModelTile[],
  ): Promise<Found>;
  /** Takes results in the order of batches. */
  collect(found: Found, tiles: readonly ModelTile[]): void;
}

/** Everything that is needed to run a model over a grid. */
export interface ModelRun {
  readonly slide: Slide;
  readonly context: Context;
  readonly session: Session;
  readonly model: FittedModel;
  readonly sidecar: Sidecar;
  readonly normalisation: Normalisation;
  readonly grid: TileGrid;
  readonly geometry: TileGeometry;
  readonly mask: TissueMask;
  /** Keeps what is known so far where the run is interrupted. */
  keep(findings: Findings): void;
}

/** Whether some node runs on the host, so that one run has to end before the next begins. */
export function needsHost({ laid }: Plan): boolean {
  return laid.parts.some(({ on }) => on === "host");
}

/** A block's pixels. */
interface Read {
  readonly data: Uint8Array;
  readonly widthPx: number;
  readonly block: Block;
}

/** What came of a batch, and its tiles. */
type Batched<Found> = readonly [Found, readonly ModelTile[]];

/**
 * Runs the model over all tiles of the grid.
 * @throws {KernelError} where the device fails, what reading throws, and the signal's reason.
 */
export async function runModel<Found>(run: ModelRun, steps: OutputSteps<Found>): Promise<void> {
  const { context, grid } = run;
  if (grid.tiles.length === 0) return;
  const gpu = requireGpu(context);
  const blocks = blocksOf(grid);
  await decidePrecision(run, blocks[0]!);
  const { plan, batch } = await planFor(run, steps.layouts ?? {});
  const feed = await feedOf(run, plan, batch);
  const total = grid.tiles.length;
  let done = 0;
  let open: ModelTile[] = [];
  let bytes = new Uint8Array(feed.tileBytes * batch);
  const onHost = needsHost(plan);
  let last: Promise<unknown> = Promise.resolve();
  const start = (tiles: readonly ModelTile[], pixels: Uint8Array): Promise<Found> => {
    feed.write(pixels);
    return steps.read(plan, plan.start(), tiles);
  };
  /** Starts what is cut so far. */
  const launch = async (): Promise<Batched<Found>> => {
    const [tiles, pixels] = [open, bytes];
    open = [];
    if (!onHost) return [await start(tiles, pixels), tiles];
    // Nodes on the host: what is in flight would be mixed up. The next batch's pixels wait beside it.
    bytes = new Uint8Array(bytes.length);
    const found = last.then(() => start(tiles, pixels));
    last = found.catch(() => {});
    return [await found, tiles];
  };
  const collect = ([found, tiles]: Batched<Found>) => {
    steps.collect(found, tiles);
    done += tiles.length;
    context.progress(done, total, "tiles");
  };
  try {
    await runTiles<Block, Read, Batched<Found>[]>(blocks, {
      read: (block, signal) => readBlock(run, block, signal),
      infer(read) {
        const running: Promise<Batched<Found>>[] = [];
        for (const tile of read.block.tiles) {
          feed.cut(read, tile, bytes.subarray(open.length * feed.tileBytes));
          open.push(tile);
          if (open.length === batch) running.push(launch());
        }
        return Promise.all(running);
      },
      collect: (found) => found.forEach(collect),
    }, {
      signal: context.signal,
      // Blocks have several batches, or a part of one: only their beginning is shown here.
      progress: (blocksDone) => blocksDone === 0 && context.progress(0, total, "tiles"),
    });
    if (open.length > 0) {
      collect(await launch());
      context.signal.throwIfAborted();
    }
  } finally {
    // What runs on an error's way out may still read it.
    await gpu.done().catch(() => {});
    feed.destroy();
  }
}

/** Where the tiles' pixels begin in those of their level: what every tile's overlap adds, a whole number. */
function cornerOf({ grid: { ratio }, geometry: { marginPx } }: ModelRun): number {
  return Math.floor(-marginPx * ratio);
}

/** Side of a tile in its level's pixels, with what interpolation reads beyond. */
function sourceSide({ grid: { ratio }, geometry: { tilePx } }: ModelRun): number {
  return ratio === 1 ? tilePx : Math.ceil(tilePx * ratio) + 1;
}

async function readBlock(run: ModelRun, block: Block, signal: AbortSignal): Promise<Read> {
  const { level, ratio, corePx } = run.grid;
  const [corner, side] = [cornerOf(run), sourceSide(run)];
  // The grid is snapped: cores begin on whole pixels of the level.
  const size = (from: number, to: number) => Math.round((to - from - corePx) * ratio) + side;
  const picture = await run.slide.readRegion({
    level,
    xPx: Math.round(block.left * ratio) + corner,
    yPx: Math.round(block.top * ratio) + corner,
    widthPx: size(block.left, block.right),
    heightPx: size(block.top, block.bottom),
    signal,
  });
  return { data: picture.data, widthPx: picture.widthPx, block };
}

/** What brings pixels into a plan's input. */
interface Feed {
  /** Bytes of a tile's pixels. */
  readonly tileBytes: number;
  /** Copies a tile's pixels out of its block's. */
  cut(read: Read, tile: ModelTile, into: Uint8Array): void;
  /** Uploads a batch and normalises it into the plan's input. */
  write(pixels: Uint8Array): void;
  destroy(): void;
}

async function feedOf(run: ModelRun, plan: Plan, batch: number): Promise<Feed> {
  const gpu = requireGpu(run.context);
  const { normalisation, model, geometry: { tilePx, marginPx }, grid: { ratio } } = run;
  const side = sourceSide(run);
  const shift = -marginPx * ratio - cornerOf(run);
  const pipelines: NormalisePipelines = await compileNormalise(gpu, normalisation, {
    type: plan.float,
  });
  const pixels = new Tensor(gpu, "u8", [batch, side, side, 3], "pixels");
  const normalised = plan.inputs.get(model.input)!.place(plan.float, [batch, tilePx, tilePx, 4]);
  const resample = ratio === 1 && shift === 0 ? undefined : { shiftX: shift, shiftY: shift, ratio };
  return {
    tileBytes: 3 * side * side,
    cut({ data, widthPx, block }, tile, into) {
      const x = Math.round((tile.x - block.left) * ratio);
      const y = Math.round((tile.y - block.top) * ratio);
      for (let row = 0; row < side; row++) {
        const from = ((y + row) * widthPx + x) * 3;
        into.set(data.subarray(from, from + side * 3), row * side * 3);
      }
    },
    write(bytes) {
      pixels.write(bytes);
      const recorder = new Batch(gpu);
      recordNormalise(recorder, pipelines, pixels, normalised, normalisation, resample);
      recorder.submit();
    },
    destroy: () => pixels.destroy(),
  };
}

/** Where `PRECISION=auto` is open: runs some of the first block's tiles both ways. */
async function decidePrecision(run: ModelRun, block: Block): Promise<void> {
  const { session, model, sidecar: { input }, context } = run;
  if (session.float !== undefined) return;
  const batch = model.batch ?? Math.min(DECIDING_TILES, block.tiles.length);
  const read = await readBlock(run, block, context.signal);
  await session.decide(
    { [model.input]: tilesShape(input, batch) },
    { layouts: { [model.input]: inputLayout(input.layout) } },
    async (plan) => {
      const feed = await feedOf(run, plan, batch);
      const pixels = new Uint8Array(batch * feed.tileBytes);
      for (const [i, tile] of block.tiles.slice(0, batch).entries()) {
        feed.cut(read, tile, pixels.subarray(i * feed.tileBytes));
      }
      feed.write(pixels);
      const outputs = await plan.read(plan.start());
      feed.destroy();
      return outputs;
    },
  );
}

/** The plan for the largest batch that the device has the memory for, or the sidecar's. */
async function planFor(
  { context, session, sidecar: { input }, model, grid }: ModelRun,
  layouts: Readonly<Record<string, Layout>>,
): Promise<{ plan: Plan; batch: number }> {
  const batches = BATCHES[requireGpu(context).adapter.isSoftware ? "software" : "hardware"];
  // The device's memory is not told, and running out of it is final.
  const most = batches[0] * Math.min(1, (BATCHED_TILE_PX / input.tile) ** 2);
  const candidates = model.batch !== undefined
    ? [model.batch]
    : input.batch !== "auto"
    ? [input.batch]
    : batches.filter((n) => n === 1 || n <= most && n < 2 * grid.tiles.length);
  let last: unknown;
  for (const batch of candidates) {
    try {
      const plan = await session.plan({ [model.input]: tilesShape(input, batch) }, {
        layouts: { ...layouts, [model.input]: inputLayout(input.layout) },
      });
      return { plan, batch };
    } catch (error) {
      // Too large a buffer is refused before anything is allocated: a smaller batch may do.
      if (!(error instanceof KernelError) || !/Cannot allocate/.test(error.message)) throw error;
      last = error;
    }
  }
  throw new ModelError(
    `Cannot run ${candidates.at(-1)} tiles of ${input.tile} px at once: ` +
      `${(last as Error).message}; a smaller input.batch or input.tile of the sidecar takes less`,
    {},
    { cause: last },
  );
}
