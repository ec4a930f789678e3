import assert from "node:assert/strict";
import { runTiles, type Steps } from "../../src/pipeline/run.ts";

const never = new AbortController().signal;
const TILES = Array.from({ length: 9 }, (_, i) => i);

/** A turn of the event loop, in which every promise that can go on does. */
const turn = () => new Promise<void>((resolve) => setTimeout(resolve));

/** Steps that record what happens: each read and inference takes a turn. */
function recorded(faults: Partial<Steps<number, { tile: number }, string>> = {}) {
  const said: string[] = [];
  let running = 0;
  const busy = async <T>(what: string, work: () => Promise<T> | T): Promise<T> => {
    said.push(what);
    running++;
    try {
      await turn();
      return await work();
    } finally {
      running--;
    }
  };
  const steps: Steps<number, { tile: number }, string> = {
    read: (tile, signal) =>
      busy(`read ${tile}`, () => faults.read?.(tile, signal) ?? Promise.resolve({ tile })),
    infer: (input, tile) =>
      busy(`infer ${tile}`, () => {
        assert.equal(input.tile, tile);
        return faults.infer?.(input, tile) ?? Promise.resolve(`result ${tile}`);
      }),
    collect(output, tile) {
      said.push(`collect ${tile}`);
      faults.collect?.(output, tile);
      assert.equal(output, `result ${tile}`);
    },
  };
  return { steps, said, running: () => running };
}

/** Counts what nobody handles while `work` runs and a while after. */
async function unhandledIn(work: () => Promise<void>): Promise<number> {
  let unhandled = 0;
  const count = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    unhandled++;
  };
  globalThis.addEventListener("unhandledrejection", count);
  try {
    await work();
    for (let i = 0; i < 5; i++) await turn();
  } finally {
    globalThis.removeEventListener("unhandledrejection", count);
  }
  return unhandled;
}

Deno.test("runTiles() takes every tile through every step, in order", async () => {
  for (const count of [0, 1, 2, 3, 9]) {
    const { steps, said } = recorded();
    const shown: number[][] = [];
    const tiles = TILES.slice(0, count);
    await runTiles(tiles, steps, { signal: never, progress: (...all) => shown.push(all) });
    for (const step of ["read", "infer", "collect"]) {
      assert.deepEqual(
        said.filter((line) => line.startsWith(step)),
        tiles.map((tile) => `${step} ${tile}`),
      );
    }
    assert.deepEqual(shown, [0, ...tiles.map((i) => i + 1)].map((done) => [done, count]));
  }
});

Deno.test("runTiles() takes results in the tiles' order, whatever comes first", async () => {
  const waits = [30, 0, 20, 0, 10, 0, 5, 0, 1];
  const { steps, said } = recorded({
    infer: async (_, tile) => {
      await new Promise((resolve) => setTimeout(resolve, waits[tile]));
      return `result ${tile}`;
    },
  });
  await runTiles(TILES, steps, { signal: never, progress() {} });
  assert.deepEqual(
    said.filter((line) => line.startsWith("collect")),
    TILES.map((tile) => `collect ${tile}`),
  );
});

Deno.test("runTiles() reads on and hands on while a result is awaited", async () => {
  let answer: (() => void) | undefined;
  const { steps, said } = recorded({
    infer: (_, tile) =>
      tile === 0
        ? new Promise((resolve) => answer = () => resolve("result 0"))
        : Promise.resolve(`result ${tile}`),
  });
  const done = runTiles(TILES, steps, { signal: never, progress() {} });
  for (let i = 0; i < 20; i++) await turn();
  // The first result is not there yet: another tile is with the GPU and the next ones are read.
  assert.deepEqual(said.toSorted(), ["infer 0", "infer 1", "read 0", "read 1", "read 2", "read 3"]);
  answer!();
  await done;
  assert.equal(said.length, 3 * TILES.length);
});

Deno.test("runTiles() has at most five tiles in memory, whichever step is slow", async () => {
  for (const slow of ["read", "infer"] as const) {
    let held = 0, most = 0;
    const wait = (step: string) =>
      new Promise<void>((resolve) => setTimeout(resolve, step === slow ? 3 : 0));
    await runTiles(Array.from({ length: 30 }, (_, i) => i), {
      async read(tile) {
        most = Math.max(most, ++held);
        await wait("read");
        return tile;
      },
      async infer(input) {
        await wait("infer");
        return input;
      },
      collect() {
        held--;
      },
    }, { signal: never, progress() {} });
    assert.equal(held, 0);
    assert.ok(most > 2 && most <= 5, `${most} with a slow ${slow}`);
  }
});

Deno.test("runTiles() fails as a step fails, with nothing left running or unhandled", async () => {
  for (const step of ["read", "infer", "collect"] as const) {
    for (const at of [0, 1, 4, 8]) {
      for (const synchronously of [false, true]) {
        if (step === "collect" && !synchronously) continue;
        const failure = new Error(`${step} ${at}`);
        const { steps, running } = recorded();
        const original = steps[step] as (...all: unknown[]) => unknown;
        Object.assign(steps, {
          [step](...all: unknown[]) {
            const tile = step === "read" ? all[0] : all[1];
            if (tile !== at) return original(...all);
            if (synchronously) throw failure;
            return turn().then(() => Promise.reject(failure));
          },
        });
        const unhandled = await unhandledIn(async () => {
          await assert.rejects(runTiles(TILES, steps, { signal: never, progress() {} }), failure);
          assert.equal(running(), 0, `${step} ${at}: something runs on`);
        });
        assert.equal(unhandled, 0);
      }
    }
  }
});

Deno.test("runTiles() tells the reads under way that another step failed", async () => {
  const failure = new Error("lost the GPU");
  const aborted: number[] = [];
  const { steps, running } = recorded({
    read: (tile, signal) =>
      tile < 1 ? Promise.resolve({ tile }) : new Promise((_, reject) => {
        const stop = () => {
          aborted.push(tile);
          reject(signal.reason);
        };
        if (signal.aborted) stop();
        else signal.addEventListener("abort", stop);
      }),
    infer: () => Promise.reject(failure),
  });
  const unhandled = await unhandledIn(() =>
    assert.rejects(runTiles(TILES, steps, { signal: never, progress() {} }), failure)
  );
  assert.deepEqual([aborted, running(), unhandled], [[1, 2], 0, 0]);
});

Deno.test("runTiles() ends with the signal's reason, whatever the steps make of it", async () => {
  const reason = new Error("out of time");
  const faults: Partial<Steps<number, { tile: number }, string>>[] = [
    {},
    { read: (tile, signal) => (signal.throwIfAborted(), Promise.resolve({ tile })) },
    {
      read: (tile, signal) =>
        signal.aborted
          ? Promise.reject(new Error("my own words for an abort"))
          : Promise.resolve({ tile }),
    },
  ];
  for (const fault of faults) {
    for (const after of [0, 1, 5, 9]) {
      const stop = new AbortController();
      const { steps, said, running } = recorded(fault);
      const unhandled = await unhandledIn(async () => {
        await assert.rejects(
          runTiles(TILES, steps, {
            signal: stop.signal,
            progress: (done) => done === after && stop.abort(reason),
          }),
          reason,
        );
        assert.equal(running(), 0);
      });
      assert.equal(unhandled, 0);
      assert.ok(said.filter((line) => line.startsWith("collect")).length <= after + 2);
    }
  }
});

Deno.test("runTiles() reads nothing where it is aborted before", async () => {
  const reason = new Error("out of time");
  const { steps, said } = recorded();
  await assert.rejects(
    runTiles(TILES, steps, { signal: AbortSignal.abort(reason), progress() {} }),
    reason,
  );
  assert.deepEqual(said, []);
});
