/** The whole of production as the platform starts it, `src/main.ts` in a process of its own. */

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { VARIABLES } from "../../src/config.ts";
import { API_KEY, ContractServer, JWT, unzip } from "../techcyte/contract_server.ts";
import { tinySlide } from "./tiny_slide.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const SLIDE = tinySlide();

/** What `grid` says of the tiny slide. */
const DOCUMENT = {
  caseResults: { mitosisCount: 4 },
  scanResults: [{
    scanId: "8615687",
    geojson: {
      type: "FeatureCollection",
      features: [[96, 96], [352, 96], [96, 352], [352, 352]].map(([x = 0, y = 0]) => ({
        type: "Feature",
        bbox: [x, y, x + 64, y + 64],
        geometry: {
          type: "Polygon",
          coordinates: [[[x, y], [x, y + 64], [x + 64, y + 64], [x + 64, y], [x, y]]],
        },
        properties: { annotation_type: "tissue_tumor_positive" },
      })),
    },
  }],
};

interface Scene {
  server: ContractServer;
  outputDir: string;
  /** Runs main.ts; a variable that is undefined is not set. */
  run(
    environment?: Record<string, string | undefined>,
    meanwhile?: (process: Deno.ChildProcess) => Promise<void>,
  ): Promise<{ code: number; stdout: string; stderr: string }>;
}

/** Afterwards no slide is left, nothing broke the contract and nothing said a secret or a query. */
async function scene(run: (scene: Scene) => Promise<void>): Promise<void> {
  const server = await ContractServer.start({ slide: SLIDE });
  const workDir = Deno.makeTempDirSync();
  const outputDir = Deno.makeTempDirSync();
  const ours = new Set(VARIABLES.map(({ name }) => name));
  const inherited = Object.fromEntries(
    Object.entries(Deno.env.toObject()).filter(([name]) => !ours.has(name)),
  );
  let said = "";
  try {
    await run({
      server,
      outputDir,
      async run(environment = {}, meanwhile) {
        const all: Record<string, string | undefined> = {
          ...inherited,
          SCAN_URL: server.slideUrl,
          HOST: "app.techcyte.com",
          API_URL: server.apiUrl,
          TASK_ID: "dGFzazoxODU4MzU=",
          SCAN_ID: "8615687",
          JWT_TOKEN: JWT,
          CLASSIFIER: "grid",
          DECODERS: "0",
          LOG_LEVEL: "debug",
          DEBUG_FILE_UPLOAD_URL: server.uploadUrl,
          WORK_DIR: workDir,
          OUTPUT_DIR: outputDir,
          ...environment,
        };
        const env = Object.fromEntries(
          Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined),
        );
        const process = new Deno.Command(Deno.execPath(), {
          args: ["run", "-A", MAIN],
          clearEnv: true,
          env,
          stdin: "null",
          stdout: "piped",
          stderr: "piped",
        }).spawn();
        const ended = process.output();
        await meanwhile?.(process);
        const { code, stdout, stderr } = await ended;
        const decoder = new TextDecoder();
        const result = { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
        said += result.stdout + result.stderr;
        return result;
      },
    });
    for (const zip of server.uploads) said += [...(await unzip(zip)).values()].join("");
    assert.doesNotMatch(said, /TOPSECRET|X-Amz/);
    assert.deepEqual(server.violations, []);
    assert.deepEqual(readdirSync(workDir), []);
    assert.deepEqual(
      readdirSync(outputDir).filter((name) => !/^result\.(png|json)$/.test(name)),
      [],
    );
  } finally {
    await server.stop();
    Deno.removeSync(workDir, { recursive: true });
    Deno.removeSync(outputDir, { recursive: true });
  }
}

/** Waits until the server has been asked for something that looks like this. */
async function asked(server: ContractServer, request: RegExp): Promise<void> {
  while (!server.requests.some((one) => request.test(one))) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function succeeded({ code, stderr }: { code: number; stderr: string }, server: ContractServer) {
  assert.equal(code, 0, stderr);
  assert.deepEqual(server.documents, [DOCUMENT]);
  assert.equal(server.own.length, 1);
}

Deno.test("main.ts takes a slide from its URL to posted results, exit 0", () =>
  scene(async ({ server, outputDir, run }) => {
    const it = await run();
    succeeded(it, server);
    assert.match(it.stdout, /^(No GPU found|WebGPU is (not )?available)/m);
    assert.match(it.stdout, /\nResults posted to http:\/\/127\.0\.0\.1:\d+\/api\/v3\n$/);
    assert.deepEqual(JSON.parse(Deno.readTextFileSync(`${outputDir}/result.json`)), DOCUMENT);
    const files = await unzip(server.uploads[0]!);
    assert.deepEqual([...files.keys()], ["log.txt", "config.json", "result.png", "result.json"]);
    assert.match(files.get("log.txt")!, /INFO Fetched 0\.8 of 0\.8 MB in \d requests/);
  }));

Deno.test("main.ts downloads the slide first where STREAM is 0, exit 0", () =>
  scene(async ({ server, run }) => {
    succeeded(await run({ STREAM: "0" }), server);
    assert.deepEqual(server.ranged, ["bytes=0-"]);
    const files = await unzip(server.uploads[0]!);
    assert.match(files.get("log.txt")!, /INFO Downloaded 0\.8 MB/);
  }));

Deno.test("main.ts outlives 503, a cut body, 429 and a lost answer while it streams, exit 0", () =>
  scene(async ({ server, run }) => {
    server.slideFaults.push(
      { status: 503 },
      { cutAfterBytes: 30_000 },
      { status: 429, headers: { "retry-after": "1" } },
    );
    server.postFaults.push({ written: true, answer: "lost" });
    succeeded(await run(), server);
    assert.deepEqual(server.ranged.slice(0, 4), [
      "bytes=0-65535",
      "bytes=0-65535",
      "bytes=30000-65535",
      "bytes=30000-65535",
    ]);
  }));

Deno.test("main.ts says that the slide changed while it streamed, exit 3", () =>
  scene(async ({ server, run }) => {
    const other = SLIDE.slice();
    other[4000] = 255 - other[4000]!;
    server.slideFaults.push({ cutAfterBytes: 30_000, after: () => server.replaceSlide(other) });
    const { code, stderr } = await run({ CLASSIFIER: "grid" });
    assert.equal(code, 3, stderr);
    assert.match(stderr, /error: Cannot read ".*\/slide": it changed while it was read/);
    assert.deepEqual(server.documents, []);
  }));

Deno.test("main.ts outlives 503, bodies cut at a third and two thirds, and a lost answer, exit 0", () =>
  scene(async ({ server, run }) => {
    server.slideFaults.push({ status: 503 }, { cutAt: 1 / 3 }, { cutAt: 2 / 3 });
    server.postFaults.push({ written: true, answer: "lost" });
    succeeded(await run({ STREAM: "0" }), server);
    assert.deepEqual(server.ranged, [
      "bytes=0-",
      "bytes=0-",
      `bytes=${Math.floor(SLIDE.length / 3)}-`,
      `bytes=${Math.floor(SLIDE.length * 2 / 3)}-`,
    ]);
  }));

Deno.test("main.ts outlives an object that changes, a slow drip and a token that ends, exit 0", () =>
  scene(async ({ server, run }) => {
    const other = SLIDE.slice();
    other[4000] = 255 - other[4000]!;
    server.slideFaults.push(
      { cutAt: 0.5, after: () => server.replaceSlide(other) },
      { status: 412, code: "PreconditionFailed" },
      { dripBytes: 20_000 },
    );
    server.postFaults.push({ written: false, answer: 401 });
    const key = { API_KEY_ID: API_KEY.id, API_KEY_SECRET: API_KEY.secret, STREAM: "0" };
    succeeded(await run(key), server);
    assert.equal(server.requests.filter((request) => /token$/.test(request)).length, 2);
  }));

Deno.test("main.ts takes a slide from a server without Range, and no debug URL, exit 0", () =>
  scene(async ({ server, run }) => {
    server.ranges = false;
    succeeded(await run({ DEBUG_FILE_UPLOAD_URL: undefined }), server);
    assert.deepEqual(server.uploads, []);
  }));

Deno.test("main.ts posts although OUTPUT_DIR cannot be written, exit 0", () =>
  scene(async ({ server, run }) => {
    const it = await run({ OUTPUT_DIR: "/dev/null/output" });
    succeeded(it, server);
    assert.match(it.stderr, /ERROR Cannot write "\/dev\/null\/output.*posted nevertheless/);
    assert.deepEqual([...(await unzip(server.uploads[0]!)).keys()], ["log.txt", "config.json"]);
  }));

Deno.test("main.ts names every variable that is missing, exit 2", () =>
  scene(async ({ server, run }) => {
    const names = ["SCAN_URL", "HOST", "TASK_ID", "SCAN_ID", "JWT_TOKEN"];
    const { code, stderr } = await run(Object.fromEntries(names.map((name) => [name, undefined])));
    assert.equal(code, 2);
    for (const name of names) assert.match(stderr, new RegExp(`\\b${name} is missing`));
    assert.deepEqual(server.requests, []);
  }));

Deno.test("main.ts says that a signature has expired, exit 3", () =>
  scene(async ({ server, run }) => {
    server.slideFaults.push({ status: 403, code: "AccessDenied", message: "Request has expired" });
    const { code, stderr } = await run();
    assert.equal(code, 3);
    assert.match(
      stderr,
      /error: Cannot read ".*\/slide": its signature has expired \(403\); start/,
    );
    assert.deepEqual(server.documents, []);
    const files = await unzip(server.uploads[0]!);
    assert.deepEqual([...files.keys()], ["log.txt", "config.json", "error.txt"]);
  }));

Deno.test("main.ts says that a signature expired in the middle, exit 3", () =>
  scene(async ({ server, run }) => {
    server.slideFaults.push({ cutAfterBytes: 30_000, after: () => server.expired = true });
    const { code, stderr } = await run({ DEBUG_FILE_UPLOAD_URL: undefined });
    assert.equal(code, 3, stderr);
    assert.match(
      stderr,
      /error: Cannot read ".*\/slide": its signature has expired \(403, 30000 bytes of 0\.8 MB/,
    );
    assert.deepEqual(server.documents, []);
  }));

Deno.test("main.ts refuses what is no slide, exit 3", () =>
  scene(async ({ server, run }) => {
    server.replaceSlide(new TextEncoder().encode("<html>not a slide</html>"));
    const { code, stderr } = await run();
    assert.equal(code, 3, stderr);
    assert.deepEqual(server.documents, []);
  }));

Deno.test("main.ts prints and keeps the document where its token is refused, exit 5", () =>
  scene(async ({ server, outputDir, run }) => {
    server.revokeTokens();
    const { code, stdout, stderr } = await run();
    assert.equal(code, 5, stderr);
    const printed = /^Results JSON \(for debugging\): (.*)$/m.exec(stdout)?.[1];
    assert.deepEqual(JSON.parse(printed ?? "null"), DOCUMENT);
    assert.deepEqual(JSON.parse(Deno.readTextFileSync(`${outputDir}/result.json`)), DOCUMENT);
    assert.match(stderr, /error: Cannot post the results to .*; check JWT_TOKEN/);
    assert.ok((await unzip(server.uploads[0]!)).has("result.json"));
  }));

Deno.test("main.ts stops at SIGTERM and posts nothing, exit 6", () =>
  scene(async ({ server, run }) => {
    server.slideFaults.push({ stallAfterBytes: 30_000 });
    const { code, stderr } = await run({}, async (process) => {
      await asked(server, /GET \/bucket\/slide/);
      process.kill("SIGTERM");
    });
    assert.equal(code, 6, stderr);
    assert.match(stderr, /error: Cannot go on: SIGTERM was received/);
    assert.deepEqual(server.documents, []);
    assert.equal(server.uploads.length, 1);
  }));

Deno.test("main.ts stops at its deadline and posts nothing, exit 6", () =>
  scene(async ({ server, run }) => {
    server.slideFaults.push({ stallAfterBytes: 30_000 });
    const { code, stderr } = await run({ DEADLINE_MINUTES: "0.03" });
    assert.equal(code, 6, stderr);
    assert.match(stderr, /error: Cannot go on: the deadline of 0\.03 minutes has come/);
    assert.deepEqual(server.documents, []);
  }));
