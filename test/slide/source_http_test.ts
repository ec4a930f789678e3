import assert from "node:assert/strict";
import { readdirSync, statSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { Secret } from "../../src/secrets.ts";
import { InterruptedError, SlideFormatError, SourceError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Slide } from "../../src/slide/slide.ts";
import { HttpSource, type HttpSourceOptions, redirectionOf } from "../../src/slide/source_http.ts";
import { dataPath } from "../data.ts";
import { tinySlide } from "../mode/tiny_slide.ts";
import { bytes, uniform } from "../reference/random.ts";
import { ContractServer, SIGNATURE, type SlideFault } from "../techcyte/contract_server.ts";
import { recordingLog } from "../techcyte/recording_log.ts";

const SLIDE = bytes(3_000_017, 1);
const OTHER = bytes(3_000_017, 2);
const KIB = 1024;

interface Scene {
  server: ContractServer;
  workDir: string;
  open(options?: HttpSourceOptions, url?: string): Promise<HttpSource>;
}

/** Runs against a server of its own; afterwards no file is left, and nothing secret was logged. */
async function scene(
  run: (scene: Scene) => Promise<void>,
  slide: Uint8Array = SLIDE,
): Promise<void> {
  const server = await ContractServer.start({ slide });
  const workDir = Deno.makeTempDirSync();
  const log = recordingLog();
  const sources: HttpSource[] = [];
  try {
    await run({
      server,
      workDir,
      async open(options, url = server.slideUrl) {
        const source = await HttpSource.open(url, {
          workDir,
          log,
          retry: { attempts: 4, baseMs: 1, maxMs: 5 },
          ...options,
        });
        sources.push(source);
        return source;
      },
    });
    for (const source of sources) await source.close();
    assert.deepEqual(readdirSync(workDir), []);
    assert.deepEqual(server.violations, []);
    assert.ok(!log.text().includes(SIGNATURE), log.text());
  } finally {
    for (const source of sources) await source.close();
    await server.stop();
    Deno.removeSync(workDir, { recursive: true });
  }
}

/** What a failed read must be: a SourceError without secrets anywhere. */
async function failure(
  read: Promise<unknown>,
  expected: { message: RegExp; status?: number; expired?: boolean },
): Promise<void> {
  const error = await read.then(() => assert.fail("it succeeded"), (error) => error);
  assert.ok(error instanceof SourceError, String(error));
  assert.match(error.message, expected.message);
  assert.match(error.message, /^Cannot (read|download) "http:\/\/127\.0\.0\.1:\d+\/[^?]*": /);
  assert.equal(error.status, expected.status);
  assert.equal(error.expired, expected.expired ?? false);
  assert.ok(!Deno.inspect(error).includes(SIGNATURE), Deno.inspect(error));
}

async function same(source: HttpSource, offset: number, length: number, slide = SLIDE) {
  const data = await source.read(offset, length);
  const expected = slide.subarray(offset, offset + length);
  assert.equal(data.length, expected.length);
  assert.ok(data.every((byte, i) => byte === expected[i]), `${length} bytes at ${offset} differ`);
}

Deno.test("HttpSource.open() asks once, for the head, and never for HEAD", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    assert.equal(source.sizeBytes, SLIDE.length);
    assert.equal(source.location, `${server.origin}/bucket/slide`);
    assert.deepEqual(server.requests, ["GET /bucket/slide"]);
    assert.deepEqual(server.ranged, ["bytes=0-65535"]);
    await same(source, 0, 65_536);
    assert.deepEqual([source.requests, source.bytesFetched], [1, 65_536]);
  }));

Deno.test("HttpSource.read() gives any range, whatever was read before or meanwhile", () =>
  scene(async ({ server, open }) => {
    const next = uniform(7);
    for (const cacheBytes of [1 << 30, 300 * KIB]) {
      const source = await open({ cacheBytes, requestsInFlight: 3 });
      for (let round = 0; round < 12; round++) {
        await Promise.all(Array.from({ length: 8 }, async () => {
          const offset = Math.floor(next() * SLIDE.length);
          const length = Math.floor(next() ** 4 * 400_000);
          await same(source, offset, length);
        }));
      }
      await same(source, 0, SLIDE.length);
      await same(source, SLIDE.length - 5, 100);
      assert.equal((await source.read(SLIDE.length, 1)).length, 0);
      assert.equal((await source.read(10, 0)).length, 0);
      await source.close();
    }
    assert.ok(server.mostInFlight <= 3);
  }));

Deno.test("HttpSource.read() gives bytes that are the caller's own", () =>
  scene(async ({ open }) => {
    const source = await open();
    (await source.read(70_000, 50_000)).fill(99);
    await same(source, 70_000, 50_000);
  }));

Deno.test("HttpSource.read() rejects ranges that are no ranges", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    for (const [offset, length] of [[-1, 5], [0, -5], [0.5, 5], [NaN, 1], [0, 2 ** 60]]) {
      await assert.rejects(source.read(offset!, length!), RangeError);
    }
    assert.equal(server.requests.length, 1);
  }));

Deno.test("HttpSource.read() takes a window of a long read at a time", () => {
  const long = new Uint8Array(20 << 20);
  for (let at = 0; at < long.length; at += SLIDE.length) {
    long.set(SLIDE.subarray(0, long.length - at), at);
  }
  return scene(async ({ server, open }) => {
    const source = await open({ cacheBytes: 4 << 20 });
    await same(source, 0, long.length, long);
    // The head, the window's other 16 MiB and the last 4 in requests of at most 4.
    assert.equal(server.requests.length, 1 + 4 + 1);
    assert.equal(source.bytesFetched, long.length);
  }, long);
});

/** Ranges of the requests after the first, as [from, to). */
function ranges(server: ContractServer): [number, number][] {
  return server.ranged.slice(1).map((range) => {
    const [, from, last] = /^bytes=(\d+)-(\d+)$/.exec(range!)!;
    return [Number(from), Number(last) + 1] as [number, number];
  }).sort(([a], [b]) => a - b);
}

Deno.test("HttpSource.read() joins what is asked for in one turn and lies near", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    await Promise.all([
      same(source, 300_000, 20_000),
      same(source, 200_000, 50_000), // 50,000 before the first: too much for its gap.
      same(source, 320_000, 20_000), // Touches.
      same(source, 345_000, 20_000), // 5,000 between.
      same(source, 1_000_000, 9_000), // Far away.
      same(source, 330_000, 9_000), // Lies in another.
    ]);
    assert.deepEqual(ranges(server), [[200_000, 250_000], [300_000, 365_000], [
      1_000_000,
      1_009_000,
    ]]);
    // What lay between is known now.
    await same(source, 300_000, 65_000);
    assert.equal(server.requests.length, 4);
  }));

Deno.test("HttpSource.read() shares what is on its way", () =>
  scene(async ({ server, open }) => {
    server.latencyMs = 30;
    const source = await open();
    const first = same(source, 500_000, 40_000);
    await new Promise((resolve) => setTimeout(resolve, 10));
    await Promise.all([first, same(source, 500_000, 40_000), same(source, 510_000, 50_000)]);
    assert.deepEqual(ranges(server), [[500_000, 540_000], [540_000, 560_000]]);
  }));

Deno.test("HttpSource.read() reads around a header, and the tail with the first one", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    await same(source, 500_000, 16);
    await same(source, 500_016, 3_000);
    await same(source, 496_000, 3_000);
    await same(source, SLIDE.length - 100, 100);
    assert.deepEqual(ranges(server), [
      [495_904, 516_384],
      [SLIDE.length - 128 * KIB, SLIDE.length],
    ]);
    await same(source, 516_384, 20_000); // Not a header.
    assert.deepEqual(ranges(server)[1], [516_384, 536_384]);
  }));

Deno.test("HttpSource.read() goes on with what is there before a request is at its end", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    server.slideFaults.push({ stallAfterBytes: 30_000 });
    const whole = source.read(100_000, 100_000);
    await same(source, 100_000, 30_000);
    await source.close();
    await assert.rejects(whole, /it is closed$/);
  }));

Deno.test("HttpSource has at most so many requests in flight", () =>
  scene(async ({ server, open }) => {
    server.latencyMs = 20;
    const source = await open({ requestsInFlight: 3 });
    const reads = Array.from({ length: 12 }, (_, i) => same(source, 100_000 + i * 200_000, 9_000));
    await Promise.all(reads);
    assert.equal(server.mostInFlight, 3);
    assert.equal(server.requests.length, 13);
  }));

Deno.test("HttpSource keeps what was read last, within its bound", () =>
  scene(async ({ server, open }) => {
    const source = await open({ cacheBytes: 256 * KIB });
    await same(source, 100_000, 50_000);
    await same(source, 200_000, 50_000);
    await same(source, 100_000, 50_000);
    assert.equal(server.requests.length, 3);
    await same(source, 1_000_000, 150_000); // What was read longest ago goes: the head, 200,000.
    await same(source, 100_000, 50_000);
    assert.equal(server.requests.length, 4);
    await same(source, 200_000, 50_000);
    assert.equal(server.requests.length, 5);
    for (let i = 0; i < 20; i++) await same(source, i * 150_000, 100_000);
    const before = server.requests.length;
    await same(source, 100_000, 10_000);
    assert.equal(server.requests.length, before + 1);
  }));

Deno.test("HttpSource says how many bytes came, of how many", () =>
  scene(async ({ server, open }) => {
    const seen: [number, number][] = [];
    const source = await open({ onProgress: (...of) => seen.push(of) });
    await same(source, 100_000, 200_000);
    assert.deepEqual(seen.at(-1), [265_536, SLIDE.length]);
    assert.deepEqual(
      seen.map(([bytes]) => bytes),
      seen.map(([bytes]) => bytes).sort((a, b) => a - b),
    );
    assert.deepEqual([source.bytesFetched, source.requests], [265_536, server.requests.length]);
  }));

Deno.test("HttpSource.prefetch() joins what is read later, and is taken back by an abort", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    source.prefetch([
      { offsetBytes: 100_000, lengthBytes: 20_000 },
      { offsetBytes: 120_100, lengthBytes: 20_000 },
      { offsetBytes: SLIDE.length - 10, lengthBytes: 500 },
    ]);
    await same(source, 120_100, 20_000);
    await same(source, 100_000, 20_000);
    await same(source, SLIDE.length - 10, 10);
    assert.deepEqual(ranges(server), [[100_000, 140_100], [SLIDE.length - 10, SLIDE.length]]);

    // Before it was asked for, while it comes, and after it came.
    const early = new AbortController(), late = new AbortController();
    source.prefetch([{ offsetBytes: 500_000, lengthBytes: 9_000 }], early.signal);
    early.abort();
    server.slideFaults.push({ stallAfterBytes: 1_000 });
    source.prefetch([{ offsetBytes: 600_000, lengthBytes: 9_000 }], late.signal);
    while (server.ranged.at(-1) !== "bytes=600000-608999") {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    late.abort();
    await same(source, 600_000, 9_000);
    await same(source, 500_000, 9_000);
    late.abort();
    await same(source, 600_000, 9_000);
    assert.equal(server.requests.length, 6);
  }));

Deno.test("HttpSource.prefetch() asks for no more than half the cache holds", () =>
  scene(async ({ server, open }) => {
    const source = await open({ cacheBytes: 400_000 });
    const all = Array.from({ length: 20 }, (_, i) => ({
      offsetBytes: 100_000 + i * 30_000,
      lengthBytes: 30_000,
    }));
    source.prefetch(all);
    await same(source, 100_000, 30_000);
    assert.deepEqual(ranges(server), [[100_000, 280_000]]);
  }));

const retried: { name: string; faults: SlideFault[] }[] = [
  { name: "503 twice", faults: [{ status: 503 }, { status: 503 }] },
  { name: "500", faults: [{ status: 500, code: "InternalError" }] },
  { name: "429 with Retry-After", faults: [{ status: 429, headers: { "retry-after": "0" } }] },
  {
    name: "503 with a Retry-After longer than the longest wait",
    faults: [{ status: 503, headers: { "retry-after": "86400" } }],
  },
  { name: "a status of a network before the server", faults: [{ status: 522 }, { status: 599 }] },
  { name: "a connection that breaks before a byte", faults: [{ cutAfterBytes: 0 }] },
  { name: "a connection that brings nothing more", faults: [{ stallAfterBytes: 1000 }] },
  { name: "a server that does not answer", faults: [{ hang: true }] },
  { name: "a Content-Length that is too short", faults: [{ lengthOff: -500 }] },
  { name: "a slow drip", faults: [{ dripBytes: 10 }] },
];
for (const { name, faults } of retried) {
  Deno.test(`HttpSource outlives ${name}, when it opens and when it reads`, () =>
    scene(async ({ server, open }) => {
      const quick = { timeoutMs: 200, stallMs: 100, stallBytes: 10_000 };
      server.slideFaults.push(...faults);
      const source = await open(quick);
      server.slideFaults.push(...faults);
      await same(source, 1_000_000, 100_000);
      assert.equal(server.requests.length, 2 + 2 * faults.length);
    }));
}

Deno.test("HttpSource goes on where bodies were cut, asking for the rest", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    server.slideFaults.push({ cutAfterBytes: 30_000 }, { cutAfterBytes: 50_000 });
    await same(source, 100_000, 100_000);
    assert.deepEqual(ranges(server), [[100_000, 200_000], [130_000, 200_000], [180_000, 200_000]]);
    assert.equal(source.bytesFetched, 65_536 + 100_000);
  }));

Deno.test("HttpSource is content where more is promised than asked for", () =>
  scene(async ({ server, open }) => {
    server.slideFaults.push({ lengthOff: 500 }, { lengthOff: 500 });
    const source = await open({ retry: { attempts: 1, baseMs: 1, maxMs: 1 } });
    await same(source, 100_000, 50_000);
    assert.equal(server.requests.length, 2);
  }));

Deno.test("HttpSource is not held up by answers that promise more than they bring", async () => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    let asked = "";
    socket.on("error", () => {}).on("data", (data) => {
      asked += data.toString("latin1");
      if (!asked.includes("\r\n\r\n")) return;
      const [, first, last] = /range: bytes=(\d+)-(\d+)/i.exec(asked)!;
      asked = "";
      const body = SLIDE.subarray(Number(first), Number(last) + 1);
      // The connection stays open, and a thousand bytes never come.
      socket.write(
        `HTTP/1.1 206 Partial Content\r\ncontent-length: ${body.length + 1000}\r\n` +
          `content-range: bytes ${first}-${last}/${SLIDE.length}\r\netag: "1"\r\n\r\n`,
      );
      socket.write(body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  try {
    const start = performance.now();
    const source = await HttpSource.open(`http://127.0.0.1:${port}/slide`, {
      requestsInFlight: 1,
      retry: { attempts: 1, baseMs: 1, maxMs: 1 },
    });
    await same(source, 1_000_000, 100_000);
    await same(source, 2_000_000, 100_000);
    await source.close();
    // A second for each, not the half minute after which a connection counts as stalled.
    assert.ok(performance.now() - start < 10_000);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});

Deno.test("HttpSource does not count tries that brought something", () =>
  scene(async ({ server, open }) => {
    const source = await open({ retry: { attempts: 2, baseMs: 1, maxMs: 1 } });
    for (let i = 0; i < 6; i++) server.slideFaults.push({ cutAfterBytes: 15_000 });
    await same(source, 100_000, 100_000);
  }));

Deno.test("HttpSource stays with a connection that is slow but steady", () =>
  scene(async ({ server, open }) => {
    const source = await open({ stallMs: 200, stallBytes: 1_000 });
    server.slideFaults.push({ dripBytes: 5_000 });
    await same(source, 100_000, 200_000);
    assert.equal(server.requests.length, 2);
  }));

Deno.test("HttpSource takes shorter ranges than it asked for", () =>
  scene(async ({ server, open }) => {
    server.longestRange = 40_000;
    const source = await open();
    await same(source, 100_000, 100_000);
    assert.equal(server.requests.length, 2 + 3);
  }));

Deno.test("HttpSource gives up after its last try, and can be read again", () =>
  scene(async ({ server, open }) => {
    server.slideFaults.push(...Array.from({ length: 4 }, () => ({ status: 503 })));
    await failure(open(), {
      message: /: the server answered 503 SlowDown, after 4 tries$/,
      status: 503,
    });
    assert.equal(server.requests.length, 4);
    const source = await open();
    server.slideFaults.push(...Array.from({ length: 4 }, () => ({ cutAfterBytes: 0 })));
    await failure(source.read(100_000, 50_000), { message: /, after 4 tries$/ });
    await same(source, 100_000, 50_000);
  }));

Deno.test("HttpSource fails those who wait for a request, and no others", () =>
  scene(async ({ server, open }) => {
    const source = await open({ requestsInFlight: 1 });
    server.slideFaults.push({ status: 404, code: "NoSuchKey" });
    const refused = { message: /: the server answered 404 NoSuchKey$/, status: 404 };
    await Promise.all([
      failure(source.read(100_000, 50_000), refused),
      failure(source.read(120_000, 50_000), refused),
      same(source, 1_000_000, 50_000),
    ]);
    assert.equal(server.requests.length, 3);
  }));

Deno.test("HttpSource names a server that cannot be reached, without the query", () =>
  scene(async ({ open }) => {
    const closed = createServer();
    await new Promise<void>((resolve) => closed.listen(0, "127.0.0.1", resolve));
    const { port } = closed.address() as { port: number };
    await new Promise((resolve) => closed.close(resolve));
    const url = `http://127.0.0.1:${port}/slide?X-Amz-Signature=${SIGNATURE}`;
    await failure(open({}, url), { message: /Connection refused.*, after 4 tries$/ });
  }));

for (const conditions of [true, false]) {
  const asks = conditions ? "refuses by If-Match" : "does not look at If-Match";
  Deno.test(`HttpSource refuses an object that changed where the server ${asks}`, () =>
    scene(async ({ server, open }) => {
      server.conditions = conditions;
      const source = await open();
      await same(source, 100_000, 50_000);
      server.replaceSlide(OTHER);
      const changed = { message: /: it changed while it was read$/ };
      await failure(source.read(200_000, 50_000), changed);
      server.slideFaults.push({ cutAfterBytes: 10_000, after: () => server.replaceSlide(OTHER) });
      server.replaceSlide(SLIDE);
      await failure(source.read(300_000, 50_000), changed);
      await same(source, 100_000, 50_000); // What is known is of the version that was opened.
    }));
}

Deno.test("HttpSource tells versions apart without a strong ETag", () =>
  scene(async ({ server, open }) => {
    server.etag = 'W/"1"';
    const weak = await open();
    await same(weak, 100_000, 50_000);
    server.etag = 'W/"2"';
    await failure(weak.read(200_000, 50_000), { message: /: it changed while it was read$/ });

    server.etag = null;
    const none = await open();
    await same(none, 100_000, 50_000);
    server.replaceSlide(SLIDE.subarray(0, 2_000_000));
    server.etag = null;
    await failure(none.read(200_000, 50_000), { message: /: it changed while it was read$/ });
    await failure(none.read(2_500_000, 50_000), { message: /: it changed while it was read$/ });
  }));

Deno.test("HttpSource says that a signature has expired, and tries once", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    server.expired = true;
    await failure(source.read(100_000, 50_000), {
      message:
        /: its signature has expired \(403, 65536 bytes of 3\.0 MB fetched\); start the task again for a fresh URL$/,
      status: 403,
      expired: true,
    });
    assert.equal(server.requests.length, 2);
    server.expired = false;
    server.slideFaults.push({ status: 400, code: "ExpiredToken" });
    await failure(source.read(100_000, 50_000), {
      message: /: its signature has expired \(400/,
      status: 400,
      expired: true,
    });
    server.slideFaults.push({ status: 403, code: "AccessDenied", message: "Access Denied" });
    await failure(source.read(100_000, 50_000), {
      message: /: the server answered 403 AccessDenied$/,
      status: 403,
    });
  }));

Deno.test("HttpSource takes a fresh URL once for all reads, and goes on where it was", () =>
  scene(async ({ server, open }) => {
    let asked = 0;
    const source = await open({
      onExpired: async () => {
        asked++;
        await new Promise((resolve) => setTimeout(resolve, 20));
        server.expired = false;
        return new Secret(server.movedUrl);
      },
    });
    server.slideFaults.push({ cutAfterBytes: 10_000, after: () => server.expired = true });
    await Promise.all([
      same(source, 100_000, 50_000),
      same(source, 1_000_000, 50_000),
      same(source, 2_000_000, 50_000),
    ]);
    assert.equal(asked, 1);
    assert.equal(source.location, `${server.origin}/bucket/slide`);
    await same(source, 2_500_000, 50_000);
    assert.equal(server.requests.at(-1), "GET /bucket/moved");
    server.expired = true; // Later, once more.
    await same(source, 2_700_000, 50_000);
    assert.equal(asked, 2);
  }));

Deno.test("HttpSource does not ask for fresh URLs for ever, and hides what the callback says", () =>
  scene(async ({ server, open }) => {
    let asked = 0;
    const stale = await open({
      onExpired: () => {
        asked++;
        return Promise.resolve(new URL(server.slideUrl));
      },
    });
    server.expired = true;
    await failure(stale.read(100_000, 50_000), {
      message: /: its signature has expired \(403/,
      status: 403,
      expired: true,
    });
    assert.equal(asked, 2);
    server.expired = false;
    const answers: [() => Promise<string>, RegExp][] = [
      [
        () => Promise.reject(new Error(`cannot sign ${server.slideUrl}`)),
        /: its signature has expired \(403\), and no fresh URL was given: cannot sign http:\S+\/slide$/,
      ],
      [
        () => Promise.resolve("file:///etc/passwd"),
        /no fresh URL was given: .*no http or https URL$/,
      ],
      [() => Promise.resolve(`nonsense?${SIGNATURE}`), /no fresh URL was given: .*not a URL/],
    ];
    for (const [onExpired, message] of answers) {
      const source = await open({ onExpired });
      server.expired = true;
      await failure(source.read(100_000, 50_000), { message, status: 403, expired: true });
      server.expired = false;
    }
  }));

Deno.test("HttpSource downloads once from a server that knows no ranges, and reads that", () =>
  scene(async ({ server, workDir, open }) => {
    server.ranges = false;
    const seen: number[] = [];
    const source = await open({ onProgress: (bytes) => seen.push(bytes) });
    assert.equal(source.sizeBytes, SLIDE.length);
    await Promise.all([
      same(source, 0, 100_000),
      same(source, 1_000_000, 1_500_000),
      same(source, SLIDE.length - 5, 100),
    ]);
    source.prefetch([{ offsetBytes: 5, lengthBytes: 5 }]);
    assert.equal(server.requests.length, 2);
    assert.equal(seen.at(-1), SLIDE.length);
    const [name] = readdirSync(workDir);
    assert.equal(statSync(join(workDir, name!)).mode & 0o777, 0o600);
    await source.close();
    assert.deepEqual(readdirSync(workDir), []);
    await assert.rejects(source.read(0, 5), /it is closed$/);
  }));

Deno.test("HttpSource downloads where ranges end in the middle, and where sizes are not told", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    await same(source, 100_000, 50_000);
    server.ranges = false;
    server.chunked = true;
    server.slideFaults.push({ dripBytes: 100_000 }, { cutAt: 0.5 });
    await Promise.all([same(source, 100_000, 200_000), same(source, 1_000_000, 200_000)]);
    await same(source, 0, SLIDE.length);
    const { length } = server.requests;
    await same(source, 2_000_000, 200_000);
    assert.equal(server.requests.length, length);
  }));

Deno.test("HttpSource does not mix versions where ranges end in the middle", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    server.replaceSlide(OTHER);
    server.conditions = false;
    server.ranges = false;
    await failure(source.read(100_000, 50_000), { message: /: it changed while it was read$/ });
    await failure(source.read(200_000, 50_000), { message: /: it changed while it was read$/ });
  }));

Deno.test("HttpSource refuses a download that the disk cannot hold", () =>
  scene(async ({ server, open }) => {
    server.ranges = false;
    await failure(open({ freeBytes: () => SLIDE.length - 1 }), {
      message: /: it has 3\.0 MB and the disk of ".*" only 3\.0 MB free; set WORK_DIR/,
    });
  }));

Deno.test("HttpSource takes a fresh URL for a download, too", () =>
  scene(async ({ server, open }) => {
    server.ranges = false;
    server.slideFaults.push({ dripBytes: 100_000 }, {
      cutAt: 0.5,
      after: () => server.expired = true,
    });
    const source = await open({
      onExpired: () => {
        server.expired = false;
        return Promise.resolve(server.movedUrl);
      },
    });
    await same(source, 0, SLIDE.length);
  }));

for (const status of [301, 302, 303, 307, 308]) {
  Deno.test(`HttpSource follows a redirection ${status}, and remembers where to`, () =>
    scene(async ({ server, open }) => {
      server.redirect = { status, location: server.movedUrl };
      const source = await open();
      await same(source, 100_000, 50_000);
      assert.deepEqual(server.requests, [
        "GET /bucket/slide",
        "GET /bucket/moved",
        "GET /bucket/moved",
      ]);
      assert.equal(source.location, `${server.origin}/bucket/slide`);
    }));
}

Deno.test("HttpSource asks the URL itself again where a redirection's target has expired", () =>
  scene(async ({ server, open }) => {
    server.redirect = { status: 302, location: server.movedUrl };
    const source = await open();
    server.slideFaults.push({ status: 403, code: "AccessDenied", message: "Request has expired" });
    await same(source, 100_000, 50_000);
    assert.deepEqual(server.requests.slice(2), [
      "GET /bucket/moved",
      "GET /bucket/slide",
      "GET /bucket/moved",
    ]);
    server.expired = true;
    await failure(source.read(200_000, 50_000), {
      message: /: its signature has expired \(403/,
      status: 403,
      expired: true,
    });
  }));

Deno.test("HttpSource does not follow redirections in circles, to files or to nowhere", () =>
  scene(async ({ server, open }) => {
    server.redirect = { status: 302, location: server.slideUrl };
    await failure(open(), { message: /: it redirects more than 5 times$/, status: 302 });
    assert.equal(server.requests.length, 6);
    for (const location of ["file:///etc/passwd", "data:text/plain,a", "http://[bad", ""]) {
      server.redirect = { status: 302, location };
      const circle = location === "";
      await failure(open(), {
        message: circle ? /more than 5 times$/ : /: it redirects to no http or https URL/,
        status: 302,
      });
    }
  }));

Deno.test("redirectionOf() leads from http to https, and not back", () => {
  const rows: [from: string, location: string, to: string | undefined][] = [
    ["http://a/b/c?d", "e?f", "http://a/b/e?f"],
    ["http://a/b", "https://c/d", "https://c/d"],
    ["https://a/b", "https://c/d", "https://c/d"],
    ["https://a/b", "//c/d", "https://c/d"],
    ["https://a/b", "http://a/b", undefined],
    ["HTTPS://a/b", "HTTP://c", undefined],
    ["https://a/b", "file:///etc/passwd", undefined],
    ["http://a/b", "http://[bad", undefined],
  ];
  for (const [from, location, to] of rows) assert.equal(redirectionOf(from, location), to);
});

Deno.test("HttpSource.read() ends with its signal's reason, and with it what nobody else wants", () =>
  scene(async ({ server, open }) => {
    const source = await open({ requestsInFlight: 1 });
    const reason = new InterruptedError("stopped", "SIGTERM");
    await assert.rejects(source.read(0, 5, AbortSignal.abort(reason)), (e) => e === reason);

    // Alone: its connection is free for the next.
    server.slideFaults.push({ hang: true });
    const alone = new AbortController();
    const read = source.read(100_000, 50_000, alone.signal);
    setTimeout(() => alone.abort(reason), 30);
    await assert.rejects(read, (error) => error === reason);
    await same(source, 100_000, 50_000);

    // One of two that wait for the same: the other's bytes come.
    server.slideFaults.push({ dripBytes: 10_000 });
    const one = new AbortController();
    const first = source.read(200_000, 50_000, one.signal);
    const second = same(source, 220_000, 50_000);
    setTimeout(() => one.abort(reason), 20);
    await assert.rejects(first, (error) => error === reason);
    await second;
    assert.equal(server.requests.length, 4);
  }));

Deno.test("HttpSource ends by its own signal: opening, reading, waiting and downloading", () =>
  scene(async ({ server, open }) => {
    const reason = new InterruptedError("stopped", "SIGTERM");
    await assert.rejects(open({ signal: AbortSignal.abort(reason) }), (e) => e === reason);
    assert.equal(server.requests.length, 0);
    const stopped = async (fault: SlideFault, source?: HttpSource) => {
      const stop = new AbortController();
      const own = source === undefined ? undefined : await open({ signal: stop.signal });
      server.slideFaults.push(fault);
      const retry = { attempts: 2, baseMs: 1, maxMs: 100_000 };
      const work = own?.read(100_000, 50_000) ?? open({ signal: stop.signal, retry });
      setTimeout(() => stop.abort(reason), 30);
      await assert.rejects(work, (error) => error === reason);
      if (own !== undefined) await assert.rejects(own.read(0, 5), (error) => error === reason);
    };
    await stopped({ hang: true });
    await stopped({ status: 503, headers: { "retry-after": "100" } });
    await stopped({ stallAfterBytes: 10 }, await open());
    server.ranges = false;
    server.slideFaults.push({ dripBytes: 1_000_000 });
    await stopped({ stallAfterBytes: 10 });
  }));

Deno.test("HttpSource.close() fails what is under way, and may be called again", () =>
  scene(async ({ server, open }) => {
    const source = await open();
    server.slideFaults.push({ hang: true }, { stallAfterBytes: 1_000 });
    const closed = (error: unknown) => {
      assert.ok(error instanceof SourceError);
      assert.equal(error.message, `Cannot read "${source.location}": it is closed`);
      return true;
    };
    const reads = Promise.all([
      assert.rejects(source.read(100_000, 50_000), closed),
      assert.rejects(source.read(1_000_000, 50_000), closed),
    ]);
    while (server.requests.length < 3) await new Promise((resolve) => setTimeout(resolve, 1));
    const late = assert.rejects(source.read(2_000_000, 50_000), closed); // Not asked for yet.
    await source.close();
    await source.close();
    await Promise.all([reads, late]);
    await assert.rejects(source.read(0, 1), closed);
    source.prefetch([{ offsetBytes: 0, lengthBytes: 5 }]);
    assert.equal(server.requests.length, 3);
  }));

Deno.test("HttpSource.open() takes small and empty objects", async () => {
  for (const size of [1, 15, 65_535, 65_536, 65_537]) {
    const slide = SLIDE.subarray(0, size);
    await scene(async ({ open }) => {
      const source = await open();
      assert.equal(source.sizeBytes, size);
      await same(source, 0, size + 10, slide);
    }, slide);
  }
  await scene(async ({ server, open }) => {
    const source = await open();
    assert.equal(source.sizeBytes, 0);
    assert.equal((await source.read(0, 10)).length, 0);
    await assert.rejects(openSlide(server.slideUrl), (error) => {
      assert.ok(error instanceof SlideFormatError);
      assert.equal(error.message, `Cannot open "${server.origin}/bucket/slide": it is empty`);
      return true;
    });
  }, new Uint8Array());
});

Deno.test("HttpSource.open() refuses what is no http or https URL, without its query", async () => {
  for (const url of ["ftp://host/a?TOPSECRET", new URL("file:///a?TOPSECRET"), "?TOPSECRET", ""]) {
    await assert.rejects(HttpSource.open(url), (error) => {
      assert.ok(error instanceof SourceError);
      assert.match(error.message, /^Cannot open ".*": it is no http or https URL$/);
      assert.doesNotMatch(Deno.inspect(error), /TOPSECRET/);
      return true;
    });
  }
});

Deno.test("openSlide() reads a slide at a URL, which may be a Secret, as it reads a file", () =>
  scene(async ({ server }) => {
    const region = { level: 0, x0Px: 100, y0Px: 200, widthPx: 300, heightPx: 250 };
    const path = Deno.makeTempFileSync();
    Deno.writeFileSync(path, tinySlide());
    const file = await openSlide(path);
    const expected = await file.readRegion(region);
    for (
      const url of [server.slideUrl, new URL(server.slideUrl), new Secret(server.slideUrl)]
    ) {
      const slide = await openSlide(url);
      assert.deepEqual(slide.levels, file.levels);
      assert.deepEqual(await slide.readRegion(region), expected);
      await slide.close();
    }
    await file.close();
    Deno.removeSync(path);
  }, tinySlide()));

Deno.test("Slide.readRegion() of a URL stops at its signal, and fails by what the source says", () =>
  scene(async ({ server, open }) => {
    const reason = new InterruptedError("stopped", "SIGTERM");
    const slide = await openSlide(await open());
    const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 512, heightPx: 512 };
    const stop = new AbortController();
    server.slideFaults.push({ hang: true });
    setTimeout(() => stop.abort(reason), 30);
    await assert.rejects(slide.readRegion({ ...region, signal: stop.signal }), (e) => e === reason);
    server.expired = true;
    await failure(slide.readRegion(region), {
      message: /: its signature has expired/,
      status: 403,
      expired: true,
    });
    server.expired = false;
    assert.equal((await slide.readRegion(region)).data.length, 512 * 512 * 3);
  }, tinySlide()));

const svs = dataPath("slides/svs/CMU-1-Small-Region.svs");

/** Compressed bytes of the tiles that a region of level 0 touches. */
async function tileBytes(
  slide: Slide,
  [xPx, yPx, widthPx, heightPx]: readonly [number, number, number, number],
): Promise<number> {
  const level = slide.levels[0]!;
  const { tileWidthPx, tileHeightPx } = level;
  let sum = 0;
  const right = Math.min(level.widthPx, xPx + widthPx);
  const bottom = Math.min(level.heightPx, yPx + heightPx);
  for (let row = Math.floor(yPx / tileHeightPx); row * tileHeightPx < bottom; row++) {
    for (let column = Math.floor(xPx / tileWidthPx); column * tileWidthPx < right; column++) {
      sum += (await slide.rawTile(0, column, row)).data.length;
    }
  }
  return sum;
}

if (svs !== undefined) {
  const file = () => openSlide(svs);

  Deno.test("openSlide() takes at most 4 requests and 512 KiB for an SVS", () =>
    scene(async ({ server, open }) => {
      const source = await open();
      const slide = await openSlide(source);
      assert.equal(slide.format, "aperio");
      assert.ok(server.requests.length <= 4, server.ranged.join());
      assert.ok(server.slideBytes <= 512 * KIB, `${server.slideBytes}`);
      assert.equal(source.bytesFetched, server.slideBytes);
    }, Deno.readFileSync(svs)));

  const regions: readonly (readonly [number, number, number, number])[] = [
    [960, 720, 240, 240],
    [961, 719, 1, 1],
    [500, 500, 1024, 1024],
    [0, 1000, 2220, 100],
    [1000, 0, 50, 2967],
    [0, 0, 2220, 2967],
    [1900, 2700, 2000, 2000],
  ];
  for (const [xPx, yPx, widthPx, heightPx] of regions) {
    Deno.test(`Slide.readRegion() of ${widthPx} × ${heightPx} at (${xPx}, ${yPx}) of a URL fetches at most 1.25 of its tiles' bytes, and is the file's`, () =>
      scene(async ({ open }) => {
        const local = await file();
        const source = await open();
        const slide = await openSlide(source);
        const before = source.bytesFetched, requests = source.requests;
        const region = { level: 0, x0Px: xPx, y0Px: yPx, widthPx, heightPx };
        const picture = await slide.readRegion(region);
        const needed = await tileBytes(local, [xPx, yPx, widthPx, heightPx]);
        const fetched = source.bytesFetched - before;
        assert.ok(fetched <= 1.25 * needed, `${fetched} of ${needed}`);
        assert.ok(source.requests - requests <= 14, `${source.requests - requests} requests`);
        const { data } = await local.readRegion(region);
        assert.ok(picture.data.every((byte, i) => byte === data[i]));
        await local.close();
      }, Deno.readFileSync(svs)));
  }

  Deno.test("Slide.associated of a URL are the file's, each in a request or two", () =>
    scene(async ({ open }) => {
      const local = await file();
      const source = await open();
      const slide = await openSlide(source);
      for (const [name, read] of slide.associated) {
        const before = source.requests;
        assert.deepEqual(await read(), await local.associated.get(name)!());
        assert.ok(source.requests - before <= 2, `${name}: ${source.requests - before}`);
      }
      await local.close();
    }, Deno.readFileSync(svs)));

  Deno.test("Slide.readRegion() of a URL outlives a server that fails every other time", () =>
    scene(async ({ server, open }) => {
      const local = await file();
      const faults: SlideFault[] = [
        { status: 503 },
        { cutAfterBytes: 5_000 },
        { stallAfterBytes: 5_000 },
        { status: 429, headers: { "retry-after": "0" } },
      ];
      server.slideFaults.push(...faults);
      const source = await open({
        retry: { attempts: 6, baseMs: 1, maxMs: 5 },
        timeoutMs: 500,
        stallMs: 100,
        requestsInFlight: 4,
      });
      const slide = await openSlide(source);
      for (let y0Px = 0; y0Px < 2967; y0Px += 600) {
        server.slideFaults.push(...faults);
        const region = { level: 0, x0Px: 0, y0Px, widthPx: 2220, heightPx: 600 };
        const { data } = await local.readRegion(region);
        assert.ok((await slide.readRegion(region)).data.every((byte, i) => byte === data[i]));
      }
      await local.close();
    }, Deno.readFileSync(svs)));
}
