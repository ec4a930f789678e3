import assert from "node:assert/strict";
import { createServer } from "node:net";
import { type Credentials } from "../../src/config.ts";
import { Secret } from "../../src/secrets.ts";
import { InterruptedError, TechcyteError } from "../../src/errors.ts";
import type { Results } from "../../src/results/schema.ts";
import { type ClientOptions, taskNumber, TechcyteClient } from "../../src/techcyte/client.ts";
import { API_KEY, ContractServer, JWT, type PostFault } from "./contract_server.ts";
import { recordingLog } from "./recording_log.ts";

const RESULTS: Results = {
  caseResults: { mitosisCount: 4 },
  scanResults: [{ scanId: "8615687", results: { summary: "four" } }],
};
const jwt: Credentials = { kind: "jwt", token: new Secret(JWT) };
const apiKey: Credentials = {
  kind: "api-key",
  id: API_KEY.id,
  secret: new Secret(API_KEY.secret),
};

interface Scene {
  server: ContractServer;
  log: ReturnType<typeof recordingLog>;
  client(
    config?: Partial<ConstructorParameters<typeof TechcyteClient>[0]>,
    options?: Partial<ClientOptions>,
  ): TechcyteClient;
}

/** Afterwards nothing broke the contract (but for what `allowed` says) and no secret was logged. */
async function scene(run: (scene: Scene) => Promise<void>, allowed: RegExp = /^$/): Promise<void> {
  const server = await ContractServer.start();
  const log = recordingLog();
  try {
    await run({
      server,
      log,
      client: (config, options) =>
        new TechcyteClient({
          apiUrl: server.apiUrl,
          taskId: "dGFzazoxODU4MzU=",
          credentials: jwt,
          ...config,
        }, { log, retry: { attempts: 4, baseMs: 1, maxMs: 5 }, ...options }),
    });
    assert.deepEqual(server.violations.filter((violation) => !allowed.test(violation)), []);
    assert.doesNotMatch(log.text(), /TOPSECRET/);
  } finally {
    await server.stop();
  }
}

async function failure(
  call: Promise<unknown>,
  expected: { message: RegExp; method: string; status?: number },
): Promise<void> {
  const error = await call.then(() => assert.fail("it succeeded"), (error) => error);
  assert.ok(error instanceof TechcyteError, String(error));
  assert.match(error.message, expected.message);
  assert.equal(error.method, expected.method);
  assert.equal(error.status, expected.status);
  assert.doesNotMatch(error.url, /\?/);
  assert.doesNotMatch(Deno.inspect(error), /TOPSECRET/);
}

const posts = (server: ContractServer) =>
  server.requests.filter((request) => request.startsWith("POST /api/v3/external/results/")).length;

Deno.test("postResults() posts the document once, with the task's identifier percent-encoded", () =>
  scene(async ({ server, client }) => {
    await client().postResults(RESULTS);
    assert.deepEqual(server.documents, [RESULTS]);
    assert.equal(server.own.length, 1);
    assert.deepEqual(server.requests, ["POST /api/v3/external/results/dGFzazoxODU4MzU%3D"]);
  }));

Deno.test("postResults() gets a token for an API key, once", () =>
  scene(async ({ server, client }) => {
    const it = client({ credentials: apiKey });
    await it.postResults(RESULTS);
    await it.patchCase({ triage_score: 0.5 });
    assert.equal(server.requests.filter((request) => request.endsWith("/token")).length, 1);
    assert.equal(server.own.length, 1);
  }));

Deno.test("postResults() gets another token where the first is no longer accepted", () =>
  scene(async ({ server, client }) => {
    const it = client({ credentials: apiKey });
    await it.caseEvaluations();
    server.revokeTokens();
    await it.postResults(RESULTS);
    assert.equal(server.own.length, 1);
  }));

Deno.test("postResults() refreshes a token that is refused at once, and only once", () =>
  scene(async ({ server, client }) => {
    server.postFaults.push({ written: false, answer: 401 });
    await client({ credentials: apiKey }).postResults(RESULTS);
    assert.equal(server.own.length, 1);

    server.postFaults.push({ written: false, answer: 401 }, { written: false, answer: 401 });
    await failure(client({ credentials: apiKey }).postResults(RESULTS), {
      message: /: the server answered 401 .*; check API_KEY_ID and API_KEY_SECRET$/,
      method: "POST",
      status: 401,
    });
    assert.equal(posts(server), 4);
  }));

Deno.test("postResults() names JWT_TOKEN where it is refused", () =>
  scene(async ({ server, client }) => {
    server.revokeTokens();
    await failure(client().postResults(RESULTS), {
      message:
        /^Cannot post the results to "http.*%3D": the server answered 401 Unauthorized: .*; check JWT_TOKEN$/,
      method: "POST",
      status: 401,
    });
    assert.equal(posts(server), 1);
  }));

Deno.test("postResults() says that an API key is wrong, without its secret", () =>
  scene(async ({ server, client }) => {
    const wrong = { ...apiKey, secret: new Secret("wrong-TOPSECRET") };
    await failure(client({ credentials: wrong }).postResults(RESULTS), {
      message: /^Cannot get a token from ".*\/token": the server answered 401/,
      method: "POST",
      status: 401,
    });
    assert.equal(posts(server), 0);
  }));

const lost: { name: string; faults: PostFault[]; posts: number }[] = [
  { name: "a lost answer", faults: [{ written: true, answer: "lost" }], posts: 1 },
  {
    name: "a time-out of a post that arrived",
    faults: [{ written: true, answer: "silent" }],
    posts: 1,
  },
  { name: "502 for a post that arrived", faults: [{ written: true, answer: 502 }], posts: 1 },
  { name: "200 for a post that arrived", faults: [{ written: true, answer: 200 }], posts: 1 },
  {
    name: "a connection lost before the post arrived",
    faults: [{ written: false, answer: "lost" }],
    posts: 2,
  },
  {
    name: "a time-out of a post that did not arrive",
    faults: [{ written: false, answer: "silent" }],
    posts: 2,
  },
  { name: "503 with nothing written", faults: [{ written: false, answer: 503 }], posts: 2 },
  {
    name: "429 with Retry-After",
    faults: [{ written: false, answer: 429, headers: { "retry-after": "0" } }],
    posts: 2,
  },
  {
    name: "503, then a lost answer",
    faults: [{ written: false, answer: 503 }, { written: true, answer: "lost" }],
    posts: 2,
  },
  {
    name: "a lost connection, then a refusal because the first arrived late",
    faults: [{ written: false, answer: "lost" }, { written: true, answer: 409 }],
    posts: 2,
  },
];
for (const { name, faults, posts: expected } of lost) {
  Deno.test(`postResults() leaves exactly one evaluation after ${name}`, () =>
    scene(async ({ server, client }) => {
      server.postFaults.push(...faults);
      await client({}, { postTimeoutMs: 100 }).postResults(RESULTS);
      assert.equal(server.own.length, 1);
      assert.equal(posts(server), expected);
    }));
}

Deno.test("postResults() asks again for a post that is still being written", () =>
  scene(async ({ server, client }) => {
    server.postFaults.push({ written: false, answer: "lost" });
    const push = server.requests.push.bind(server.requests);
    // The document appears between the first question and the second.
    server.requests.push = (request) => {
      const asked = server.requests.filter((r) => r.startsWith("GET")).length;
      if (asked === 1 && request.startsWith("GET")) {
        server.evaluations.push({ ...server.evaluations[0]!, id: 77, task_id: 185835 });
      }
      return push(request);
    };
    await client().postResults(RESULTS);
    assert.equal(posts(server), 1);
    assert.equal(server.own.length, 1);
  }));

Deno.test("postResults() does not post again where it cannot ask", () =>
  scene(async ({ server, client }) => {
    server.postFaults.push({ written: true, answer: "lost" });
    server.evaluationFaults.push(403);
    await failure(client().postResults(RESULTS), {
      message: /whether they arrived is unknown \(.*403.*\), so they are not posted again$/,
      method: "POST",
    });
    assert.equal(posts(server), 1);
    assert.equal(server.own.length, 1);
  }));

Deno.test("postResults() does not post again where TASK_ID has no number to ask for", async () => {
  const server = await ContractServer.start({ taskId: "abcd" });
  try {
    server.postFaults.push({ written: true, answer: "lost" });
    const client = new TechcyteClient(
      { apiUrl: server.apiUrl, taskId: "abcd", credentials: jwt },
      { log: recordingLog(), retry: { attempts: 4, baseMs: 1, maxMs: 5 } },
    );
    await failure(client.postResults(RESULTS), {
      message: /whether they arrived is unknown \(TASK_ID holds no number to ask for\)/,
      method: "POST",
    });
    assert.equal(posts(server), 1);
  } finally {
    await server.stop();
  }
});

Deno.test("postResults() outlives a busy server when it asks", () =>
  scene(async ({ server, client }) => {
    server.postFaults.push({ written: true, answer: "lost" });
    server.evaluationFaults.push(503, 500);
    await client().postResults(RESULTS);
    assert.equal(server.own.length, 1);
    assert.equal(posts(server), 1);
  }));

Deno.test("postResults() repeats what the platform says about a document that it refuses", () =>
  scene(async ({ server, client }) => {
    const stranger = { scanResults: [{ scanId: "1" }] };
    await failure(client().postResults(stranger), {
      message: /: the server answered 422 .*scan 1 is not of this task/,
      method: "POST",
      status: 422,
    });
    assert.equal(posts(server), 1);
    assert.equal(server.own.length, 0);
  }, /scan 1 is not of this task/));

Deno.test("postResults() gives up after its last try", () =>
  scene(async ({ server, client }) => {
    server.postFaults.push(
      ...Array.from({ length: 9 }, (): PostFault => ({ written: false, answer: 503 })),
    );
    await failure(client().postResults(RESULTS), {
      message: /: the server answered 503/,
      method: "POST",
      status: 503,
    });
    assert.equal(posts(server), 4);
  }));

Deno.test("postResults() tries again where nothing listens, and never asks", () =>
  scene(async ({ server, client, log }) => {
    const closed = createServer();
    await new Promise<void>((resolve) => closed.listen(0, "127.0.0.1", resolve));
    const { port } = closed.address() as { port: number };
    await new Promise((resolve) => closed.close(resolve));
    await failure(client({ apiUrl: `http://127.0.0.1:${port}/api/v3` }).postResults(RESULTS), {
      message: /Connection refused/,
      method: "POST",
    });
    assert.equal(log.text().match(/trying again/g)?.length, 3);
    assert.deepEqual(server.requests, []);
  }));

Deno.test("postResults() does not take a redirected post for one that arrived", () =>
  scene(async ({ server, client }) => {
    server.postFaults.push({ written: false, answer: 302, headers: { location: "/api/v3/token" } });
    await failure(client().postResults(RESULTS), { message: /302/, method: "POST", status: 302 });
    assert.equal(server.requests.length, 1);
  }));

Deno.test("postResults() lets a post finish that was under way when the run was stopped", () =>
  scene(async ({ server, client }) => {
    const stop = new AbortController();
    server.requests.push = (...requests) => {
      stop.abort(new InterruptedError("stopped", "SIGTERM"));
      return Array.prototype.push.apply(server.requests, requests);
    };
    await client({}, { signal: stop.signal }).postResults(RESULTS);
    assert.equal(server.own.length, 1);
  }));

Deno.test("postResults() neither posts nor repeats after the run was stopped", () =>
  scene(async ({ server, client }) => {
    const reason = new InterruptedError("stopped", "SIGTERM");
    const stopped = AbortSignal.abort(reason);
    await assert.rejects(
      client({}, { signal: stopped }).postResults(RESULTS),
      (error) => error === reason,
    );
    assert.deepEqual(server.requests, []);

    const later = new AbortController();
    server.postFaults.push({ written: false, answer: 429, headers: { "retry-after": "9" } });
    setTimeout(() => later.abort(reason), 50);
    await assert.rejects(
      client({}, { signal: later.signal, retry: { attempts: 3, baseMs: 1, maxMs: 9_000 } })
        .postResults(RESULTS),
      (error) => error === reason,
    );
    assert.equal(posts(server), 1);
  }));

Deno.test("postResults() sends the length ahead of a large document", () =>
  scene(async ({ server, client }) => {
    const points = Array.from({ length: 20_000 }, (_, i) => [i, i / 7] as const);
    const large: Results = {
      scanResults: [{
        scanId: "8615687",
        geojson: {
          type: "FeatureCollection",
          features: [{
            type: "Feature",
            bbox: [0, 0, 20_000, 20_000],
            geometry: { type: "MultiPoint", coordinates: points },
            properties: { annotation_type: "nucleus" },
          }],
        },
      }],
    };
    await client().postResults(large);
    assert.deepEqual(server.documents, [large]);
    assert.ok(server.postLengths[0]! > 100_000);
  }));

Deno.test("caseEvaluations() reads every evaluation of the case", () =>
  scene(async ({ server, client }) => {
    server.evaluationFaults.push(500);
    assert.deepEqual(await client().caseEvaluations(), server.evaluations);
  }));

Deno.test("caseEvaluations() does not quote an answer that it does not understand", () =>
  scene(async ({ server, client }) => {
    server.evaluations.splice(0, 9, { ...server.evaluations[0]!, id: null as unknown as number });
    await failure(client().caseEvaluations(), {
      message: /: the server's answer is not what its documentation says$/,
      method: "GET",
    });
  }));

Deno.test("patchCase() changes the case and leaves out what is not given", () =>
  scene(async ({ server, client }) => {
    await client().patchCase({ triage_category: "High", triage_score: 0.5 });
    await client().patchCase({});
    assert.deepEqual(server.patches, [{ triage_category: "High", triage_score: 0.5 }, {}]);
  }));

Deno.test("patchCase() says what failed", () =>
  scene(async ({ server, client }) => {
    server.revokeTokens();
    await failure(client().patchCase({ triage_score: 1 }), {
      message: /^Cannot change the case at ".*": the server answered 401/,
      method: "PATCH",
      status: 401,
    });
  }));

Deno.test("taskNumber() reads a plain number and one in base64", () => {
  assert.equal(taskNumber("185835"), "185835");
  assert.equal(taskNumber("dGFzazoxODU4MzU="), "185835");
  assert.equal(taskNumber("dGFzazoxODU4MzU"), "185835");
  for (const none of ["abcd", "!!", "", btoa("task:"), btoa("12"), btoa("task:1:2")]) {
    assert.equal(taskNumber(none), undefined, none);
  }
});
