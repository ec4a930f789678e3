import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { Secret } from "../../src/secrets.ts";
import { InterruptedError, SourceError } from "../../src/errors.ts";
import { type DownloadOptions, downloadSlide } from "../../src/slide/source_download.ts";
import { ContractServer, SIGNATURE, type SlideFault } from "../techcyte/contract_server.ts";
import { recordingLog } from "../techcyte/recording_log.ts";

/** Bytes that are nowhere alike, so that a mixture or a gap shows. */
function noise(sizeBytes: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  let state = seed;
  for (let i = 0; i < sizeBytes; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

const SLIDE = noise(200_003, 1);
const OTHER = noise(200_003, 2);

interface Scene {
  server: ContractServer;
  workDir: string;
  log: ReturnType<typeof recordingLog>;
  download(options?: Partial<DownloadOptions>): ReturnType<typeof downloadSlide>;
}

/** Runs in a folder of its own; afterwards nothing secret was logged and no unsigned request made. */
async function scene(run: (scene: Scene) => Promise<void>): Promise<void> {
  const server = await ContractServer.start({ slide: SLIDE });
  const workDir = Deno.makeTempDirSync();
  const log = recordingLog();
  try {
    await run({
      server,
      workDir,
      log,
      download: (options) =>
        downloadSlide({
          url: new Secret(server.slideUrl),
          workDir,
          signal: new AbortController().signal,
          log,
          progress() {},
          retry: { attempts: 4, baseMs: 1, maxMs: 5 },
          ...options,
        }),
    });
    assert.deepEqual(server.violations, []);
    assert.ok(!log.text().includes(SIGNATURE), log.text());
  } finally {
    await server.stop();
    Deno.removeSync(workDir, { recursive: true });
  }
}

/** What a failed download must be: a SourceError without secrets anywhere, and no file left. */
async function failure(
  { workDir }: Scene,
  download: Promise<unknown>,
  expected: { message: RegExp; status?: number; expired?: boolean },
): Promise<void> {
  const error = await download.then(() => assert.fail("it succeeded"), (error) => error);
  assert.ok(error instanceof SourceError, String(error));
  assert.match(error.message, expected.message);
  assert.equal(error.status, expected.status);
  assert.equal(error.expired, expected.expired ?? false);
  assert.ok(!Deno.inspect(error).includes(SIGNATURE), Deno.inspect(error));
  assert.deepEqual(readdirSync(workDir), []);
}

function same(path: string, bytes: Uint8Array): void {
  assert.ok(readFileSync(path).equals(bytes), "the file is not the slide");
}

Deno.test("downloadSlide() writes the slide to a file that others cannot read", () =>
  scene(async ({ server, workDir, download }) => {
    const seen: [number, number, string][] = [];
    const { path, version: { sizeBytes } } = await download({
      progress: (done, total, what) => seen.push([done, total, what]),
    });
    same(path, SLIDE);
    assert.equal(sizeBytes, SLIDE.byteLength);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.ok(path.startsWith(workDir));
    assert.deepEqual(seen.at(-1), [SLIDE.byteLength, SLIDE.byteLength, "bytes"]);
    assert.deepEqual(server.requests, ["GET /bucket/slide"]);
    assert.deepEqual(server.ranged, ["bytes=0-"]);
  }));

Deno.test("downloadSlide() goes on where a body was cut at a third and at two thirds", () =>
  scene(async ({ server, download }) => {
    server.slideFaults.push({ cutAt: 1 / 3 }, { cutAt: 2 / 3 });
    const { path } = await download();
    same(path, SLIDE);
    const offsets = server.ranged.map((range) => Number(/^bytes=(\d+)-$/.exec(range!)![1]));
    assert.deepEqual(offsets, [0, 66_667, 133_335]);
  }));

const retried: { name: string; faults: SlideFault[] }[] = [
  { name: "503 twice", faults: [{ status: 503 }, { status: 503 }] },
  { name: "500", faults: [{ status: 500, code: "InternalError" }] },
  { name: "429 with Retry-After", faults: [{ status: 429, headers: { "retry-after": "0" } }] },
  {
    name: "503 with a Retry-After longer than the longest wait",
    faults: [{ status: 503, headers: { "retry-after": "86400" } }],
  },
  { name: "a connection that brings nothing more", faults: [{ stallAfterBytes: 1000 }] },
  { name: "a server that does not answer", faults: [{ hang: true }] },
];
for (const { name, faults } of retried) {
  Deno.test(`downloadSlide() outlives ${name}`, () =>
    scene(async ({ server, download }) => {
      server.slideFaults.push(...faults);
      const { path } = await download({ timeoutMs: 200, stallMs: 100 });
      same(path, SLIDE);
      assert.equal(server.requests.length, faults.length + 1);
    }));
}

Deno.test("downloadSlide() resumes what stalled, from where it stalled", () =>
  scene(async ({ server, download }) => {
    server.slideFaults.push({ stallAfterBytes: 70_000 });
    same((await download({ stallMs: 100, stallBytes: 1000 })).path, SLIDE);
    assert.deepEqual(server.ranged, ["bytes=0-", "bytes=70000-"]);
  }));

Deno.test("downloadSlide() leaves a slow drip for a new connection", () =>
  scene(async ({ server, download }) => {
    server.slideFaults.push({ dripBytes: 10 });
    same((await download({ stallMs: 200, stallBytes: 100_000 })).path, SLIDE);
    assert.equal(server.requests.length, 2);
    assert.notEqual(server.ranged[1], "bytes=0-");
  }));

Deno.test("downloadSlide() stays with a connection that is slow but steady", () =>
  scene(async ({ server, download }) => {
    server.slideFaults.push({ dripBytes: 5_000 });
    same((await download({ stallMs: 200, stallBytes: 1_000 })).path, SLIDE);
    assert.equal(server.requests.length, 1);
  }));

Deno.test("downloadSlide() takes a 200 from a server without Range", () =>
  scene(async ({ server, download }) => {
    server.ranges = false;
    same((await download()).path, SLIDE);
  }));

Deno.test("downloadSlide() starts over where a server without Range broke off", () =>
  scene(async ({ server, download }) => {
    server.ranges = false;
    server.slideFaults.push({ cutAt: 0.5 }, { cutAt: 0.2 });
    same((await download()).path, SLIDE);
    assert.equal(server.requests.length, 3);
  }));

Deno.test("downloadSlide() takes a 200 without a length, whole or broken off", () =>
  scene(async ({ server, download }) => {
    server.ranges = false;
    server.chunked = true;
    same((await download()).path, SLIDE);
    server.slideFaults.push({ cutAt: 0.5 });
    same((await download()).path, SLIDE);
  }));

Deno.test("downloadSlide() does not believe a Content-Length that is too long", () =>
  scene(async ({ server, download }) => {
    server.slideFaults.push({ lengthOff: 500 });
    same((await download()).path, SLIDE);
  }));

Deno.test("downloadSlide() fetches the rest where Content-Length was too short", () =>
  scene(async ({ server, download }) => {
    server.slideFaults.push({ lengthOff: -500 });
    same((await download()).path, SLIDE);
    assert.deepEqual(server.ranged, ["bytes=0-", "bytes=199503-"]);
  }));

for (const conditions of [true, false]) {
  const server = conditions ? "refuses by If-Match" : "does not look at If-Match";
  Deno.test(`downloadSlide() starts over once where the object changes and the server ${server}`, () =>
    scene(async ({ server, download }) => {
      server.conditions = conditions;
      server.slideFaults.push({ cutAt: 0.5, after: () => server.replaceSlide(OTHER) });
      same((await download()).path, OTHER);
    }));
}

Deno.test("downloadSlide() keeps nothing of a longer object that was replaced by a shorter one", () =>
  scene(async ({ server, download }) => {
    const short = OTHER.subarray(0, 5_000);
    server.slideFaults.push({ cutAt: 0.5, after: () => server.replaceSlide(short) });
    const { path, version: { sizeBytes } } = await download();
    same(path, short);
    assert.equal(sizeBytes, 5_000);

    server.ranges = false;
    server.replaceSlide(SLIDE);
    server.slideFaults.push({ cutAt: 0.5, after: () => server.replaceSlide(short) });
    same((await download()).path, short);
  }));

Deno.test("downloadSlide() tells versions apart by a weak ETag, which If-Match cannot", () =>
  scene(async ({ server, download }) => {
    server.etag = 'W/"1"';
    server.slideFaults.push({ cutAt: 0.5 });
    same((await download()).path, SLIDE);
    assert.deepEqual(server.ranged, ["bytes=0-", "bytes=100001-"]);

    server.slideFaults.push({
      cutAt: 0.5,
      after: () => {
        server.replaceSlide(OTHER);
        server.etag = 'W/"2"';
      },
    });
    same((await download()).path, OTHER);
  }));

Deno.test("downloadSlide() resumes without any ETag where the length stays", () =>
  scene(async ({ server, download }) => {
    server.etag = null;
    server.slideFaults.push({ cutAt: 0.5 });
    same((await download()).path, SLIDE);
    assert.deepEqual(server.ranged, ["bytes=0-", "bytes=100001-"]);
  }));

Deno.test("downloadSlide() refuses an object that changes twice", () =>
  scene(async (it) => {
    const { server } = it;
    server.slideFaults.push(
      { cutAt: 0.5, after: () => server.replaceSlide(OTHER) },
      { status: 412, code: "PreconditionFailed" },
      { cutAt: 0.5, after: () => server.replaceSlide(SLIDE) },
    );
    await failure(it, it.download(), { message: /: it keeps changing while it is read$/ });
  }));

Deno.test("downloadSlide() says that a signature has expired, and tries once", () =>
  scene(async (it) => {
    it.server.expired = true;
    await failure(it, it.download(), {
      message:
        /^Cannot download "http:\/\/127\.0\.0\.1:\d+\/bucket\/slide": its signature has expired \(403\); start the task again/,
      status: 403,
      expired: true,
    });
    assert.equal(it.server.requests.length, 1);
  }));

Deno.test("downloadSlide() says that a signature expired in the middle", () =>
  scene(async (it) => {
    it.server.slideFaults.push({ cutAt: 0.5, after: () => it.server.expired = true });
    await failure(it, it.download(), {
      message: /its signature has expired \(403, 0\.1 MB of 0\.2 MB received\)/,
      status: 403,
      expired: true,
    });
  }));

Deno.test("downloadSlide() knows an expired signature by the URL's own date", () =>
  scene(async (it) => {
    it.server.slideFaults.push({ status: 403, code: "AccessDenied", message: "Access Denied" });
    const url = new Secret(`${it.server.slideUrl}&X-Amz-Date=20200101T000000Z`);
    await failure(it, it.download({ url }), {
      message: /its signature has expired/,
      status: 403,
      expired: true,
    });
  }));

Deno.test("downloadSlide() does not call every 403 an expired signature", () =>
  scene(async (it) => {
    it.server.slideFaults.push({ status: 403, code: "AccessDenied", message: "Access Denied" });
    await failure(it, it.download(), {
      message: /: the server answered 403 AccessDenied$/,
      status: 403,
    });
  }));

Deno.test("downloadSlide() tries a missing object once", () =>
  scene(async (it) => {
    it.server.slideFaults.push({ status: 404, code: "NoSuchKey" });
    await failure(it, it.download(), {
      message: /: the server answered 404 NoSuchKey$/,
      status: 404,
    });
    assert.equal(it.server.requests.length, 1);
  }));

Deno.test("downloadSlide() refuses an empty object", () =>
  scene(async (it) => {
    it.server.replaceSlide(new Uint8Array());
    await failure(it, it.download(), { message: /: it is empty$/, status: 416 });
    it.server.ranges = false;
    await failure(it, it.download(), { message: /: it is empty$/ });
  }));

Deno.test("downloadSlide() gives up after its last try", () =>
  scene(async (it) => {
    it.server.slideFaults.push(...Array.from({ length: 9 }, () => ({ status: 503 })));
    await failure(it, it.download(), {
      message: /: the server answered 503 SlowDown \(0 bytes received\), after 4 tries$/,
      status: 503,
    });
    assert.equal(it.server.requests.length, 4);
  }));

Deno.test("downloadSlide() does not count tries that brought something", () =>
  scene(async ({ server, download }) => {
    const slide = noise(8 << 20, 3);
    server.replaceSlide(slide);
    for (const eighth of [1, 2, 3, 4, 5, 6, 7]) server.slideFaults.push({ cutAt: eighth / 8 });
    same((await download({ retry: { attempts: 2, baseMs: 1, maxMs: 1 } })).path, slide);
  }));

Deno.test("downloadSlide() refuses early where the disk is too small", () =>
  scene(async (it) => {
    await failure(it, it.download({ freeBytes: () => SLIDE.byteLength - 1 }), {
      message: /: it has 0\.2 MB and the disk of ".*" only 0\.2 MB free; set WORK_DIR/,
    });
    assert.equal(it.server.requests.length, 1);
  }));

Deno.test("downloadSlide() names a folder that it cannot write", () =>
  scene(async ({ server, workDir, download }) => {
    await assert.rejects(
      download({ workDir: `${workDir}/missing` }),
      (error) =>
        error instanceof SourceError && error.location === `${workDir}/missing` &&
        /^Cannot write the slide to the folder ".*missing": /.test(error.message),
    );
    assert.deepEqual(server.requests, []);
  }));

Deno.test("downloadSlide() names a server that cannot be reached, without the query", () =>
  scene(async (it) => {
    const closed = createServer();
    await new Promise<void>((resolve) => closed.listen(0, "127.0.0.1", resolve));
    const { port } = closed.address() as { port: number };
    await new Promise((resolve) => closed.close(resolve));
    const url = new Secret(`http://127.0.0.1:${port}/slide?X-Amz-Signature=${SIGNATURE}`);
    await failure(it, it.download({ url }), { message: /Connection refused.*, after 4 tries$/ });
  }));

Deno.test("downloadSlide() stops with the signal's reason and leaves no file", () =>
  scene(async ({ server, workDir, download }) => {
    const reason = new InterruptedError("stopped", "SIGTERM");
    const already = new AbortController();
    already.abort(reason);
    await assert.rejects(download({ signal: already.signal }), (error) => error === reason);
    assert.deepEqual(server.requests, []);

    const reading = new AbortController();
    server.slideFaults.push({ stallAfterBytes: 50_000 });
    await assert.rejects(
      download({ signal: reading.signal, progress: () => reading.abort(reason) }),
      (error) => error === reason,
    );

    const waiting = new AbortController();
    server.slideFaults.push({ status: 503, headers: { "retry-after": "100" } });
    setTimeout(() => waiting.abort(reason), 50);
    await assert.rejects(
      download({ signal: waiting.signal, retry: { attempts: 2, baseMs: 1, maxMs: 100_000 } }),
      (error) => error === reason,
    );
    assert.deepEqual(readdirSync(workDir), []);
  }));
