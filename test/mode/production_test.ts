import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readdirSync, readFileSync } from "node:fs";
import { type ProductionConfig, Secret } from "../../src/config.ts";
import { InterruptedError, ResultsError, SourceError, TechcyteError } from "../../src/errors.ts";
import { production, type ProductionRun } from "../../src/mode/production.ts";
import type { Results } from "../../src/results/schema.ts";
import { ContractServer, JWT, unzip } from "../techcyte/contract_server.ts";
import { productionConfig } from "../techcyte/production_config.ts";
import { recordingLog } from "../techcyte/recording_log.ts";

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

Deno.test("production() downloads, classifies, writes, posts and uploads, in that order", () =>
  scene(async ({ server, produce, printed, zip }) => {
    const steps: string[] = [];
    await produce({
      startGpu: () => Promise.resolve(void steps.push("gpu")),
      classify(location) {
        assert.deepEqual(readFileSync(location), Buffer.from(SLIDE));
        steps.push("classify");
        return Promise.resolve(RESULTS);
      },
      writeOutputs(location) {
        assert.ok(readFileSync(location).length > 0, "the picture needs the slide");
        assert.deepEqual(server.documents, []);
        steps.push("write");
        return Promise.resolve();
      },
    });
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

Deno.test("production() posts although the outputs cannot be written", () =>
  scene(async ({ server, produce, zip }) => {
    await produce({ writeOutputs: () => Promise.reject(new Error('Cannot write "/output"')) });
    assert.equal(server.own.length, 1);
    assert.match((await zip()).get("log.txt")!, /ERROR Cannot write "\/output"; the results are/);
  }));

Deno.test("production() does not classify a slide that cannot be downloaded", () =>
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

Deno.test("production() downloads and classifies what SCAN_URL_ZIP names", () =>
  scene(async ({ server, produce }) => {
    let classified = false;
    await produce({
      classify(location) {
        assert.deepEqual(readFileSync(location), Buffer.from(SLIDE));
        classified = true;
        return Promise.resolve(RESULTS);
      },
    }, { scanIsZip: true });
    assert(classified);
    assert.deepEqual(server.documents, [RESULTS]);
  }));
