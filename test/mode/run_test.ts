/** What becomes of a vendor's processImage, whatever it does; main.ts in a process of its own. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContractServer, JWT, unzip } from "../techcyte/contract_server.ts";
import { copyProject, NO_ADAPTER, type Ran, runMain, type RunOptions } from "./process.ts";
import { tinySlide } from "./tiny_slide.ts";

/** Milliseconds that the copy's runs have to stop in, and half as much again until the watchdog ends them. */
const GRACE_MS = 400;

/** processImage does what SCAN_ID names. */
const PROCESS_IMAGE = `
import { classifyGrid } from "./classifier/grid.ts";
import { CodecError } from "./errors.ts";

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const reject = async (ms, message) => {
  await sleep(ms);
  throw new Error(message);
};
const whole = (slide, context) => ({ ...classifyGrid(slide, context), caseResults: { part: "whole" } });
const partial = (slide, context) => ({ ...classifyGrid(slide, context), caseResults: { part: "half" } });
const aborted = ({ signal }) =>
  new Promise((resolve) => signal.aborted ? resolve() : signal.addEventListener("abort", resolve));
const first = (slide, context, change) => {
  const results = structuredClone(classifyGrid(slide, context));
  change(results.scanResults[0].geojson.features[3]);
  return results;
};

const cases = {
  throws: () => {
    throw new TypeError("the model {is} missing");
  },
  throwsUndefined: () => {
    throw undefined;
  },
  throwsOurs: () => {
    throw new CodecError("Cannot decode tile (1, 2) of level 0: it is torn", { codec: "jpeg" });
  },
  floats: async (slide, context) => {
    reject(50, "a promise that nobody awaited");
    await sleep(60_000);
    return whole(slide, context);
  },
  floatsTwice: async () => {
    reject(50, "the first");
    reject(51, "the second");
    reject(52, "the third");
    await sleep(60_000);
  },
  floatsAndFails: async () => {
    reject(0, "the first");
    await sleep(0);
    for (let i = 0; i < 20; i++) Promise.reject(new Error("one of many"));
    throw new Error("the last");
  },
  nothing: () => {},
  text: () => "results",
  promise: (slide, context) => ({ ...classifyGrid(slide, context), caseResults: { late: sleep(1) } }),
  wrongBox: (slide, context) => first(slide, context, (feature) => feature.bbox = [1, 2, 3]),
  nan: (slide, context) => first(slide, context, (feature) => feature.bbox[2] = NaN),
  noType: (slide, context) =>
    first(slide, context, (feature) => delete feature.properties.annotation_type),
  otherScan: (slide, context) => classifyGrid(slide, { ...context, scanId: undefined }),
  never: async (slide, context) => {
    context.keep(partial(slide, context));
    await new Promise(() => {});
  },
  loops: (slide, context) => {
    context.keep(partial(slide, context));
    context.log.info("looping");
    for (;;);
  },
  keeps: async (slide, context) => {
    context.keep(partial(slide, context));
    context.log.info("waiting");
    await aborted(context);
    throw new Error("in the vendor's own words");
  },
  keepsNothing: async (slide, context) => {
    context.log.info("waiting");
    await aborted(context);
    context.signal.throwIfAborted();
  },
  keepsGarbage: async (slide, context) => {
    context.keep({ scanResults: "garbage", n: 1n });
    context.log.info("waiting");
    await aborted(context);
  },
  returnsHalf: async (slide, context) => {
    context.keep({ ...partial(slide, context), caseResults: { part: "a quarter" } });
    context.log.info("waiting");
    await aborted(context);
    return partial(slide, context);
  },
  ignores: async (slide, context) => {
    context.keep(partial(slide, context));
    context.log.info("waiting");
    for (;;) await sleep(10);
  },
  floatsLater: async (slide, context) => {
    context.log.info("waiting");
    context.signal.addEventListener("abort", () => {
      reject(0, "what was under way");
      reject(1, "what was under way too");
    });
    await aborted(context);
    await sleep(50);
    throw context.signal.reason;
  },
  leavesWork: (slide, context) => {
    setInterval(() => context.progress(1, 2, "leftovers"), 1);
    return whole(slide, context);
  },
};

// SCAN_ID is a number in production.
cases["8615687"] = () => {
  for (let ms = 0; ms < 100; ms += 5) reject(ms, "one of many");
  throw new Error("the last");
};

export async function processImage(slide, context) {
  return await cases[context.scanId](slide, context);
}
`;

async function inCopy(
  run: (
    start: (what: string, env?: Record<string, string>, options?: RunOptions) => Promise<Ran>,
  ) => Promise<void>,
): Promise<void> {
  const root = copyProject(PROCESS_IMAGE, GRACE_MS);
  const slide = join(root, "slide");
  writeFileSync(slide, tinySlide());
  try {
    await run((what, env = {}, options = {}) =>
      runMain({ DEV: "1", SCAN_ID: what, INPUT: slide, ...NO_ADAPTER, ...env }, {
        root,
        ...options,
      })
    );
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}

/** The last of the lines that say an error, and no stack where none is of use. */
function errorOf({ stderr }: Ran): string {
  const lines = stderr.split("\n").filter((line) => line.startsWith("error: "));
  assert.equal(lines.length, 1, stderr);
  return lines[0]!;
}

const TERMINATE = (said: RegExp): RunOptions => ({
  when: { said, then: (process) => process.kill("SIGTERM") },
});

Deno.test("Run.classify() reports what processImage throws, with its stack, exit 1", () =>
  inCopy(async (start) => {
    const thrown = await start("throws");
    assert.deepEqual([thrown.code, thrown.files], [1, []]);
    assert.equal(
      errorOf(thrown),
      "error: processImage failed: TypeError: the model {is} missing",
    );
    // The vendor's own line, as it stands in their file.
    assert.match(thrown.stderr, /TypeError: the model \{is\} missing\n +at .*process_image\.ts:/);
    const nothing = await start("throwsUndefined");
    assert.deepEqual([nothing.code, nothing.files], [1, []]);
    assert.equal(errorOf(nothing), "error: processImage failed: undefined");
    // An error of this project's says itself what it is.
    const ours = await start("throwsOurs");
    assert.deepEqual([ours.code, ours.files], [3, []]);
    assert.equal(errorOf(ours), "error: Cannot decode tile (1, 2) of level 0: it is torn");
    assert.doesNotMatch(ours.stderr, /process_image\.ts/);
  }));

Deno.test("Run.classify() fails by a promise that processImage forgot, exit 1", () =>
  inCopy(async (start) => {
    const one = await start("floats");
    assert.deepEqual([one.code, one.files], [1, []]);
    assert.equal(
      errorOf(one),
      "error: processImage failed: Error: a promise that nobody awaited",
    );
    assert.match(one.stderr, /at .*process_image\.ts:/);
    // The first counts, and those that follow do not cut the run's end short.
    for (const what of ["floatsTwice", "floatsAndFails"]) {
      const several = await start(what, { LOG_LEVEL: "debug" });
      assert.deepEqual([several.code, several.files], [1, []]);
      assert.match(errorOf(several), /^error: processImage failed: Error: the (first|last)$/);
    }
  }));

Deno.test("Run.classify() names what is wrong in a document, exit 5", () =>
  inCopy(async (start) => {
    for (
      const [what, said] of [
        ["nothing", /^error: Cannot accept the results: the document is missing$/],
        ["text", /^error: .*/],
        ["promise", /^error: .*caseResults\.late/],
        ["wrongBox", /^error: .*scanResults\[0\]\.geojson\.features\[3\]\.bbox/],
        ["nan", /^error: .*scanResults\[0\]\.geojson\.features\[3\]\.bbox\[2\]/],
        [
          "noType",
          /^error: .*scanResults\[0\]\.geojson\.features\[3\]\.properties\.annotation_type/,
        ],
        ["otherScan", /^error: .*scanResults\[0\]\.scanId/],
      ] as const
    ) {
      const ran = await start(what);
      assert.deepEqual([ran.code, ran.files], [5, []], `${what}: ${ran.stderr}`);
      assert.match(errorOf(ran), said);
      assert.doesNotMatch(ran.stdout, /Generated|Results JSON/);
    }
  }));

Deno.test("Run.failUnhandled() does not cut short what follows a failure", () =>
  inCopy(async (start) => {
    const server = await ContractServer.start({ slide: tinySlide() });
    try {
      const ran = await start("8615687", {
        DEV: "0",
        INPUT: "",
        SCAN_URL: server.slideUrl,
        HOST: "app.techcyte.com",
        API_URL: server.apiUrl,
        TASK_ID: "dGFzazoxODU4MzU=",
        JWT_TOKEN: JWT,
        DEBUG_FILE_UPLOAD_URL: server.uploadUrl,
        LOG_LEVEL: "debug",
      });
      assert.deepEqual([ran.code, ran.files], [1, []], ran.stderr);
      assert.equal(errorOf(ran), "error: processImage failed: Error: the last");
      assert.match(ran.stderr, /DEBUG Unhandled rejection: Error: one of many\n/);
      assert.equal(server.uploads.length, 1);
      assert.match((await unzip(server.uploads[0]!)).get("error.txt")!, /the last/);
      assert.deepEqual(server.documents, []);
    } finally {
      await server.stop();
    }
  }));

/** What is in result.partial.json, the only file. */
function partOf({ code, files, file, stderr }: Ran): unknown {
  assert.equal(code, 6, stderr);
  assert.deepEqual(files, ["result.partial.json"]);
  assert.match(stderr, /WARNING What was known is in ".*\/result\.partial\.json"\n/);
  return JSON.parse(new TextDecoder().decode(file("result.partial.json"))).caseResults.part;
}

Deno.test("Run.classify() stops at its deadline, with what was kept, exit 6", () =>
  inCopy(async (start) => {
    const ran = await start("never", { DEADLINE_MINUTES: "0.06" });
    assert.equal(
      errorOf(ran),
      "error: Cannot go on: the deadline of 0.06 minutes has come (DEADLINE_MINUTES)",
    );
    assert.match(ran.stderr, /WARNING processImage did not heed context\.signal for 0\.4 s\n/);
    assert.equal(partOf(ran), "half");
  }));

Deno.test("Run.classify() stops at SIGTERM and SIGINT, with what was kept, exit 6", () =>
  inCopy(async (start) => {
    const ran = await start("keeps", {}, TERMINATE(/INFO waiting/));
    assert.equal(errorOf(ran), "error: Cannot go on: SIGTERM was received");
    assert.equal(partOf(ran), "half");
    const interrupted = await start("keeps", {}, {
      when: { said: /INFO waiting/, then: (process) => process.kill("SIGINT") },
    });
    assert.equal(errorOf(interrupted), "error: Cannot go on: SIGINT was received");
    assert.equal(partOf(interrupted), "half");
    const ignoring = await start("ignores", {}, TERMINATE(/INFO waiting/));
    assert.match(ignoring.stderr, /WARNING processImage did not heed context\.signal/);
    assert.equal(partOf(ignoring), "half");
  }));

Deno.test("Run.classify() takes no results that come after the signal for whole ones, exit 6", () =>
  inCopy(async (start) => {
    const ran = await start("returnsHalf", {}, TERMINATE(/INFO waiting/));
    assert.equal(errorOf(ran), "error: Cannot go on: SIGTERM was received");
    assert.equal(partOf(ran), "half");
    assert.doesNotMatch(ran.stdout, /Generated|Results JSON/);
  }));

Deno.test("Run.classify() leaves no file where nothing was kept, or nothing that is a document", () =>
  inCopy(async (start) => {
    for (const what of ["keepsNothing", "keepsGarbage", "floatsLater"]) {
      const ran = await start(what, {}, TERMINATE(/INFO waiting/));
      assert.deepEqual([ran.code, ran.files], [6, []], ran.stderr);
      assert.equal(errorOf(ran), "error: Cannot go on: SIGTERM was received");
    }
  }));

Deno.test("Run.classify() ends a processImage that blocks the event loop, exit 6", () =>
  inCopy(async (start) => {
    const said =
      /^error: Cannot stop in time: processImage does not return to the event loop; await/;
    const deadline = await start("loops", { DEADLINE_MINUTES: "0.06" });
    assert.deepEqual([deadline.code, deadline.files], [6, []], deadline.stderr);
    assert.match(errorOf(deadline), said);
    const signal = await start("loops", {}, TERMINATE(/INFO looping/));
    assert.deepEqual([signal.code, signal.files], [6, []]);
    assert.match(errorOf(signal), said);
  }));

Deno.test("Run.classify() does not wait for what processImage leaves running, exit 0", () =>
  inCopy(async (start) => {
    const { code, files, stdout, stderr } = await start("leavesWork");
    assert.deepEqual([code, files], [0, ["result.json", "result.png"]], stderr);
    assert.match(stdout, /^Results JSON: \{"caseResults":\{"part":"whole"\}/m);
  }));
