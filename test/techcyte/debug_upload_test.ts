import assert from "node:assert/strict";
import type { ProductionConfig } from "../../src/config.ts";
import { SourceError } from "../../src/errors.ts";
import { type DebugUploadOptions, uploadDebugFiles } from "../../src/techcyte/debug_upload.ts";
import { ContractServer, unzip } from "./contract_server.ts";
import { productionConfig } from "./production_config.ts";
import { recordingLog } from "./recording_log.ts";

interface Scene {
  server: ContractServer;
  log: ReturnType<typeof recordingLog>;
  config: ProductionConfig;
  upload(options?: DebugUploadOptions): Promise<void>;
}

async function scene(run: (scene: Scene) => Promise<void>): Promise<void> {
  const server = await ContractServer.start();
  const outputDir = Deno.makeTempDirSync();
  const log = recordingLog();
  const config = productionConfig(server, { outputDir, workDir: outputDir });
  try {
    await run({
      server,
      log,
      config,
      upload: (options) =>
        uploadDebugFiles(config, log, {
          retry: { attempts: 3, baseMs: 1, maxMs: 2 },
          ...options,
        }),
    });
    assert.deepEqual(server.violations, []);
    assert.doesNotMatch(log.text(), /TOPSECRET/);
    for (const zip of server.uploads) {
      for (const [name, text] of await unzip(zip)) assert.doesNotMatch(text, /TOPSECRET/, name);
    }
  } finally {
    await server.stop();
    Deno.removeSync(outputDir, { recursive: true });
  }
}

Deno.test("uploadDebugFiles() sends the log, the configuration and this run's outputs", () =>
  scene(async ({ server, log, config, upload }) => {
    log.info("a line");
    Deno.writeTextFileSync(`${config.outputDir}/result.json`, '{"scanResults":[]}');
    Deno.writeTextFileSync(`${config.outputDir}/result.png`, "of an earlier run");
    Deno.utimeSync(`${config.outputDir}/result.png`, 1e9, 1e9);
    await upload();
    assert.equal(server.uploads.length, 1);
    const files = await unzip(server.uploads[0]!);
    assert.deepEqual([...files.keys()], ["log.txt", "config.json", "result.json"]);
    assert.equal(files.get("log.txt"), "INFO a line\n");
    assert.equal(files.get("result.json"), '{"scanResults":[]}');
    const shown = JSON.parse(files.get("config.json")!);
    assert.equal(shown.taskId, config.taskId);
    assert.equal(shown.credentials, "api-key");
    assert.equal(shown.scanUrl, "[secret]");
    assert.equal(shown.debugFileUploadUrl, "[secret]");
  }));

Deno.test("uploadDebugFiles() says what ended the run, without a URL's query", () =>
  scene(async ({ server, upload }) => {
    const failure = new SourceError("Cannot download", { location: "x" }, {
      cause: new Error(`at ${server.slideUrl}`),
    });
    await upload({ failure });
    const text = (await unzip(server.uploads[0]!)).get("error.txt");
    assert.match(text!, /SourceError: Cannot download/);
    assert.match(text!, /at http:\/\/127\.0\.0\.1:\d+\/bucket\/slide\n/);
  }));

Deno.test("uploadDebugFiles() tries again where storage is busy", () =>
  scene(async ({ server, log, upload }) => {
    server.uploadFaults.push(503, 500);
    await upload();
    assert.equal(server.uploads.length, 1);
    assert.match(
      log.text(),
      /^INFO Uploaded \d+ bytes of debug files to ".*\/bucket\/debug\.zip"$/m,
    );
  }));

Deno.test("uploadDebugFiles() only logs that it failed", () =>
  scene(async ({ server, log, upload }) => {
    server.uploadFaults.push(403);
    await upload();
    assert.deepEqual(server.uploads, []);
    assert.match(
      log.text(),
      /^WARNING Cannot upload the debug files to ".*\/bucket\/debug\.zip": the server answered 403/m,
    );
    await server.stop();
    await upload();
    assert.match(log.text(), /debug\.zip": .*Connection refused/);
  }));

Deno.test("uploadDebugFiles() does nothing where no URL is set", () =>
  scene(async ({ server, log, config }) => {
    await uploadDebugFiles({ ...config, debugFileUploadUrl: undefined }, log);
    assert.deepEqual(server.requests, []);
    assert.equal(log.text(), "");
  }));
