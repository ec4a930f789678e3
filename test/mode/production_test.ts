import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readdirSync, readFileSync } from "node:fs";
import { type ProductionConfig } from "../../src/config.ts";
import { Secret } from "../../src/secrets.ts";
import { InterruptedError, ResultsError, SourceError, TechcyteError } from "../../src/errors.ts";
import { production, type ProductionRun } from "../../src/mode/production.ts";
import type { Results } from "../../src/results/schema.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Source } from "../../src/slide/source.ts";
import { ContractServer, JWT, unzip } from "../techcyte/contract_server.ts";
import { productionConfig } from "../techcyte/production_config.ts";
import { recordingLog } from "../techcyte/recording_log.ts";
import { tinySlide } from "./tiny_slide.ts";

const SLIDE = new TextEncoder().encode("a slide, as far as these tests look");
const RESULTS: Results = {
  caseResults: { mitosisCount: 4 },
  scanResults: [{ scanId: "8615687" }],
};

interface Scene {
  server: ContractServer;
  config: ProductionConfig;
  workDir: string;
  stop: AbortController;
  /** What was printed. */
  printed(): string;
  /** The debug zip's files. */
  zip(): Promise<Map<string, string>>;
  produce(run?: Partial<ProductionRun>, config?: Partial<ProductionConfig>): Promise<void>;
}

/** Afterwards no slide is left and nothing secret was said anywhere. */
async function scene(run: (scene: Scene) => Promise<void>): Promise<void> {
  const server = await ContractServer.start({ slide: SLIDE });
  const workDir = Deno.makeTempDirSync();
  const outputDir = Deno.makeTempDirSync();
  const log = recordingLog();
  const stop = new AbortController();
  let printed = "";
  const config: ProductionConfig = {
    ...productionConfig(server, { outputDir, workDir }),
    credentials: { kind: "jwt", token: new Secret(JWT) },
  };
  const fake: ProductionRun = {
    log,
    signal: stop.signal,
    progress() {},
    print: (text) => void (printed += text),
    startGpu: () => Promise.resolve(undefined),
    classify: () => Promise.resolve(RESULTS),
    writeOutputs(_, results) {
      Deno.writeTextFileSync(`${outputDir}/result.json`, JSON.stringify(results));
      return Promise.resolve();
    },
  };
  try {
    await run({
      server,
      config,
      workDir,
      stop,
      printed: () => printed,
      zip: () => {
        assert.equal(server.uploads.length, 1);
        return unzip(server.uploads[0]!);
      },
      produce: (run, changed) => production({ ...config, ...changed }, { ...fake, ...run }),
    });
    assert.deepEqual(readdirSync(workDir), []);
    assert.deepEqual(server.violations, []);
    let said = log.text() + printed;
    for (const zip of server.uploads) said += [...(await unzip(zip)).values()].join("");
    assert.doesNotMatch(said, /TOPSECRET|X-Amz/);
  } finally {
    await server.stop();
    Deno.removeSync(workDir, { recursive: true });
    Deno.removeSync(outputDir, { recursive: true });
  }
}

/** All bytes of a slide that was downloaded, or lies at its URL. */
async function bytesOf(location: string | Source): Promise<Buffer> {
  if (typeof location === "string") return readFileSync(location);
  return Buffer.from(await location.read(0, location.sizeBytes));
}

for (const stream of [true, false]) {
  const reads = stream ? "streams" : "downloads";
  Deno.test(`production() ${reads}, classifies, writes, posts and uploads, in that order`, () =>
    scene(async ({ server, produce, printed, zip }) => {
      const steps: string[] = [];
      await produce({
        startGpu: () => Promise.resolve(void steps.push("gpu")),
        async classify(location) {
          assert.equal(typeof location, stream ? "object" : "string");
          assert.deepEqual(await bytesOf(location), Buffer.from(SLIDE));
          steps.push("classify");
          return RESULTS;
        },
        async writeOutputs(location) {
          assert.ok((await bytesOf(location)).length > 0, "the picture needs the slide");
          assert.deepEqual(server.documents, []);
          steps.push("write");
        },
      }, { stream });
      assert.deepEqual(steps, ["gpu", "classify", "write"]);
      assert.deepEqual(server.requests, [
        "GET /bucket/slide",
        "POST /api/v3/external/results/dGFzazoxODU4MzU%3D",
        "PUT /bucket/debug.zip",
      ]);
      assert.deepEqual(server.documents, [RESULTS]);
      assert.equal(printed(), `Results posted to ${server.apiUrl}\n`);
      assert.deepEqual([...(await zip()).keys()], ["log.txt", "config.json"]);
    }));

  Deno.test(`production() ${reads} from a server that knows no ranges`, () =>
    scene(async ({ server, produce }) => {
      server.ranges = false;
      await produce({
        async classify(location) {
          assert.deepEqual(await bytesOf(location), Buffer.from(SLIDE));
          return RESULTS;
        },
      }, { stream });
      assert.deepEqual(server.documents, [RESULTS]);
    }));
}

Deno.test("production() says how much of the slide it fetched, and closes it", () =>
  scene(async ({ server, produce, zip }) => {
    server.replaceSlide(tinySlide());
    const progress: string[] = [];
    let source: string | Source = "";
    await produce({
      async classify(location) {
        source = location;
        const slide = await openSlide(location);
        await slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx: 9, heightPx: 9 });
        return RESULTS;
      },
      progress: (done, total, what) => progress.push(`${done} of ${total} ${what}`),
    });
    assert.equal(progress.at(-1), `${server.slideBytes} of 786944 bytes fetched`);
    assert.ok(server.slideBytes < 786_944 / 2, `${server.slideBytes}`);
    assert.match((await zip()).get("log.txt")!, /INFO Fetched 0\.\d of 0\.8 MB in \d requests\n/);
    assert.ok(typeof source === "object");
    await assert.rejects((source as Source).read(0, 1), /it is closed$/);
  }));

Deno.test("production() posts nothing where the URL expires in the middle", () =>
  scene(async ({ server, produce, printed, zip }) => {
    server.replaceSlide(tinySlide());
    const expired = produce({
      async classify(location) {
        const slide = await openSlide(location);
        server.expired = true;
        await slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx: 512, heightPx: 512 });
        return RESULTS;
      },
    }, { debugFileUploadUrl: undefined });
    await assert.rejects(expired, (error) => {
      assert.ok(error instanceof SourceError && error.expired);
      assert.match(
        error.message,
        /^Cannot read "http:[^?]*\/slide": its signature has expired \(403, 65536 bytes of 0\.8 MB fetched\); start the task again for a fresh URL$/,
      );
      return true;
    });
    assert.deepEqual(server.documents, []);
    assert.equal(printed(), "");

    // The picture is worth less than the results.
    server.expired = false;
    await produce({
      async writeOutputs(location) {
        const slide = await openSlide(location);
        server.slideFaults.push({ status: 403, message: "Request has expired" });
        await slide.readRegion({ level: 0, x0Px: 0, y0Px: 0, widthPx: 512, heightPx: 512 });
      },
    });
    assert.deepEqual(server.documents, [RESULTS]);
    assert.match((await zip()).get("log.txt")!, /its signature has expired .*posted nevertheless/);
  }));

Deno.test("production() prints the document where it cannot be posted", () =>
  scene(async ({ server, config, produce, printed, zip }) => {
    server.revokeTokens();
    await assert.rejects(produce(), TechcyteError);
    const text = JSON.stringify(RESULTS);
    assert.equal(printed(), `Results JSON (for debugging): ${text}\n`);
    assert.equal(Deno.readTextFileSync(`${config.outputDir}/result.json`), text);
    const files = await zip();
    assert.match(files.get("error.txt")!, /TechcyteError: Cannot post the results/);
    assert.equal(files.get("result.json"), text);
  }));

Deno.test("production() posts what was checked, whatever is changed afterwards", () =>
  scene(async ({ server, produce }) => {
    const results = structuredClone(RESULTS) as { caseResults: Record<string, unknown> };
    await produce({
      classify: () => Promise.resolve(results as typeof RESULTS),
      writeOutputs() {
        results.caseResults["mitosisCount"] = "changed";
        return Promise.resolve();
      },
    });
    assert.deepEqual(server.documents, [RESULTS]);
  }));

Deno.test("production() posts although the outputs cannot be written", () =>
  scene(async ({ server, produce, zip }) => {
    await produce({ writeOutputs: () => Promise.reject(new Error('Cannot write "/output"')) });
    assert.equal(server.own.length, 1);
    assert.match((await zip()).get("log.txt")!, /ERROR Cannot write "\/output"; the results are/);
  }));

Deno.test("production() does not classify a slide that cannot be had", () =>
  scene(async ({ server, produce, zip }) => {
    server.expired = true;
    const classify = () => assert.fail("it classified");
    await assert.rejects(
      produce({ classify }, { debugFileUploadUrl: undefined }),
      (error) => error instanceof SourceError && error.expired,
    );
    assert.deepEqual(server.requests, ["GET /bucket/slide"]);

    server.expired = false;
    server.slideFaults.push({ status: 404, code: "NoSuchKey" });
    await assert.rejects(produce({ classify }), SourceError);
    assert.match((await zip()).get("error.txt")!, /404 NoSuchKey/);
  }));

Deno.test("production() posts nothing after a failure, and uploads what is known", () =>
  scene(async ({ server, produce, zip, printed }) => {
    const failure = new ResultsError("Cannot accept the results: wrong", "caseResults");
    await assert.rejects(
      produce({ classify: () => Promise.reject(failure) }),
      (error) => error === failure,
    );
    assert.deepEqual(server.documents, []);
    assert.equal(printed(), "");
    assert.match((await zip()).get("error.txt")!, /ResultsError: Cannot accept/);
  }));

Deno.test("production() never posts after an interruption", () =>
  scene(async ({ server, produce, stop, printed, zip }) => {
    const reason = new InterruptedError("Stopped by SIGTERM", "SIGTERM");
    const interrupted = produce({
      // The results were there when the signal came.
      writeOutputs() {
        stop.abort(reason);
        return Promise.resolve();
      },
    });
    await assert.rejects(interrupted, (error) => error === reason);
    assert.deepEqual(server.documents, []);
    assert.equal(printed(), "");
    assert.match((await zip()).get("error.txt")!, /Stopped by SIGTERM/);
  }));

Deno.test("production() ends as it would where the debug files cannot be uploaded", () =>
  scene(async ({ server, produce }) => {
    server.uploadFaults.push(403);
    await produce();
    assert.equal(server.own.length, 1);
    server.uploadFaults.push(403);
    server.slideFaults.push({ status: 404 });
    await assert.rejects(produce(), SourceError);
  }));

Deno.test("production() classifies what SCAN_URL_ZIP names", () =>
  scene(async ({ server, produce }) => {
    let classified = false;
    await produce({
      async classify(location) {
        assert.deepEqual(await bytesOf(location), Buffer.from(SLIDE));
        classified = true;
        return RESULTS;
      },
    }, { scanIsZip: true });
    assert(classified);
    assert.deepEqual(server.documents, [RESULTS]);
  }));
