import assert from "node:assert/strict";
import { FETCHED, logProgress } from "../../src/mode/progress.ts";
import type { Log } from "../../src/log.ts";

/** Progress in a log, with a clock that goes only when it is told to. */
function scene() {
  const lines: string[] = [];
  const log: Log = {
    debug() {},
    info: (line) => lines.push(line),
    warn() {},
    error() {},
    text: () => "",
  };
  let nowMs = 1000;
  const progress = logProgress(log, () => nowMs);
  return { lines, progress, pass: (ms: number) => nowMs += ms };
}

Deno.test("logProgress() writes the first, one every 5 s and the last", () => {
  const { lines, progress, pass } = scene();
  for (let done = 0; done <= 120; done++) {
    progress.update(done, 120, "tiles");
    if (done < 120) pass(100);
  }
  assert.deepEqual(lines, [
    "0 of 120 tiles (0 %)",
    "50 of 120 tiles (41 %), about 7 s left",
    "100 of 120 tiles (83 %), about 2 s left",
    "120 of 120 tiles (100 %)",
  ]);
});

Deno.test("logProgress() writes bytes as megabytes, and guesses by what was gained", () => {
  const { lines, progress, pass } = scene();
  progress.update(60_000_000, 100_000_000, "bytes"); // The rest of a download that broke.
  pass(6000);
  progress.update(70_000_000, 100_000_000, "bytes");
  assert.deepEqual(lines, [
    "60.0 of 100.0 MB (60 %)",
    "70.0 of 100.0 MB (70 %), about 18 s left",
  ]);
});

Deno.test("logProgress() writes no more where two things go on at once", () => {
  const { lines, progress, pass } = scene();
  for (let done = 0; done < 100; done++) {
    progress.update(done, 100, "tiles");
    progress.update(done, 100, "regions");
    pass(60);
  }
  // The first of each, and then one in 5 s: the hundred take 6 s.
  assert.deepEqual(lines.map((line) => line.replace(/ \(.*/, "")), [
    "0 of 100 tiles",
    "0 of 100 regions",
    "84 of 100 tiles",
  ]);
});

Deno.test("logProgress() writes an end once, however often it is told", () => {
  const { lines, progress } = scene();
  for (let i = 0; i < 1000; i++) progress.update(3, 3, "tiles");
  assert.deepEqual(lines, ["3 of 3 tiles (100 %)"]);
});

Deno.test("logProgress() writes nothing where there is nothing to do", () => {
  const { lines, progress } = scene();
  progress.update(0, 0, "tiles");
  progress.update(NaN, NaN, "tiles");
  assert.deepEqual(lines, []);
});

Deno.test("logProgress() writes bytes fetched beside what they are fetched for, and alone before it", () => {
  const { lines, progress, pass } = scene();
  progress.update(1_000_000, 90_000_000, FETCHED);
  progress.update(2_000_000, 90_000_000, FETCHED);
  pass(6000);
  progress.update(2_500_000, 90_000_000, FETCHED);
  for (let done = 0; done <= 10; done++) {
    progress.update(3_000_000 + done * 1e6, 90_000_000, FETCHED);
    progress.update(done, 10, "tiles");
    pass(1000);
  }
  assert.deepEqual(lines, [
    "1.0 of 90.0 MB fetched",
    "2.5 of 90.0 MB fetched",
    "0 of 10 tiles (0 %); 3.0 of 90.0 MB fetched",
    "5 of 10 tiles (50 %), about 5 s left; 8.0 of 90.0 MB fetched",
    "10 of 10 tiles (100 %); 13.0 of 90.0 MB fetched",
  ]);
});
