/** Read ▸ infer ▸ collect over many tiles, overlapped: while the GPU has one, the next is read. */

/** What each step does with a tile. */
export interface Steps<Tile, Input, Output> {
  /** Reads and decodes. */
  read(tile: Tile, signal: AbortSignal): Promise<Input>;
  /** Hands to the GPU before it first waits; resolves with what came back. */
  infer(input: Input, tile: Tile): Promise<Output>;
  /** Takes the results, in the tiles' order. */
  collect(output: Output, tile: Tile): void;
}

/** Tiles that are read ahead of the GPU, and tiles whose results are awaited: memory's bound. */
const READ_AHEAD = 2;
const IN_FLIGHT = 2;

/**
 * Runs all tiles. At most five are in memory, whatever their number.
 * @throws what a step throws, once nothing runs any more; the signal's reason where it is aborted.
 */
export async function runTiles<Tile, Input, Output>(
  tiles: readonly Tile[],
  steps: Steps<Tile, Input, Output>,
  { signal, progress }: { signal: AbortSignal; progress(done: number, total: number): void },
): Promise<void> {
  // Aborted with the caller's signal, or by the first failure.
  const stop = new AbortController();
  const all = AbortSignal.any([signal, stop.signal]);
  const reading: Promise<Input>[] = [];
  const inferring: { tile: Tile; output: Promise<Output> }[] = [];
  const fail = (error: unknown) => stop.abort(error);
  let next = 0, done = 0;
  const readNext = () => {
    const tile = tiles[next++];
    if (tile === undefined) return;
    const input = steps.read(tile, all);
    input.catch(fail); // Awaited in its turn; until then it is not unhandled.
    reading.push(input);
  };
  const collectOne = async () => {
    const { tile, output } = inferring.shift()!;
    steps.collect(await output, tile);
    progress(++done, tiles.length);
  };
  signal.throwIfAborted();
  progress(0, tiles.length);
  try {
    for (let i = 0; i < READ_AHEAD; i++) readNext();
    for (const tile of tiles) {
      signal.throwIfAborted();
      const input = await reading.shift()!;
      readNext();
      const output = steps.infer(input, tile);
      output.catch(fail);
      inferring.push({ tile, output });
      if (inferring.length >= IN_FLIGHT) await collectOne();
    }
    while (inferring.length > 0) await collectOne();
    signal.throwIfAborted();
  } catch (error) {
    fail(error);
    await Promise.allSettled([...reading, ...inferring.map(({ output }) => output)]);
    throw all.reason; // What failed first: later steps may only have failed by its abort.
  }
}
