import assert from "node:assert/strict";
import {
  type Config,
  type DevelopmentConfig,
  type Machine,
  type ProductionConfig,
  readConfig,
  VARIABLES,
  withoutQuery,
} from "../src/config.ts";
import { Secret } from "../src/secrets.ts";
import { ConfigError } from "../src/errors.ts";

const MACHINE: Machine = { cores: 3, tempDir: "/tmp", isFolder: () => false };

const PRODUCTION = {
  SCAN_URL: "https://bucket.example/slide?X-Amz-Signature=TOPSECRET",
  HOST: "app.techcyte.com",
  JWT_TOKEN: "TOPSECRET-token",
  TASK_ID: "185835",
  SCAN_ID: "8615687",
};

function read(env: Record<string, string | undefined>, machine = MACHINE): Config {
  return readConfig(env, machine);
}

function development(env: Record<string, string> = {}, machine = MACHINE): DevelopmentConfig {
  const config = read({ DEV: "1", ...env }, machine);
  assert.equal(config.mode, "development");
  return config as DevelopmentConfig;
}

function production(env: Record<string, string | undefined> = {}): ProductionConfig {
  const config = read({ ...PRODUCTION, ...env });
  assert.equal(config.mode, "production");
  return config as ProductionConfig;
}

/** What is wrong with an environment, by variable. */
function problems(env: Record<string, string | undefined>): Record<string, string> {
  try {
    read(env);
  } catch (error) {
    assert.ok(error instanceof ConfigError, `${error}`);
    assert.doesNotMatch(error.message + error.stack, /TOPSECRET/);
    const said = error.message.replace(/^Cannot start in \w+ mode: /, "").replace(
      / \(set DEV.*/,
      "",
    );
    const found = Object.fromEntries(
      said.split("; ").map((line) => [line.split(" ")[0]!, line.replace(/^\S+ /, "")]),
    );
    assert.deepEqual(Object.keys(found).sort(), error.variable.split(",").sort());
    return found;
  }
  return {};
}

Deno.test("Secret shows its value to nobody but reveal()", () => {
  const secret = new Secret("TOPSECRET");
  const holder = { secret, list: [secret], map: new Map([["key", secret]]) };
  const said = [
    String(secret),
    `${secret}`,
    "" + secret,
    JSON.stringify(holder),
    Deno.inspect(holder, { depth: 9, showHidden: true, getters: true }),
    JSON.stringify(structuredClone({ ...secret })),
    Object.entries(secret).join(),
    Object.getOwnPropertyNames(secret).join(),
    new Error("with a cause", { cause: secret }).cause,
  ].map(String).join("\n");
  assert.doesNotMatch(said, /TOPSECRET/);
  assert.match(said, /\[secret\]/);
  assert.equal(secret.reveal(), "TOPSECRET");
});

Deno.test("readConfig() needs DEV=1 alone for development", () => {
  assert.deepEqual(development(), {
    mode: "development",
    scanId: "test_scan",
    classifier: "grid",
    adapter: undefined,
    inputDirIsGiven: false,
    nucleiThreshold: undefined,
    model: undefined,
    precision: "auto",
    tuningCache: undefined,
    onBadTile: "throw",
    colour: "raw",
    outputDir: "./output",
    deadlineMinutes: 85,
    logLevel: "info",
    decoders: 3,
    input: undefined,
    inputDir: "./input",
  });
});

Deno.test("readConfig() runs a model that is named, unless another classifier is", () => {
  const { classifier, model, precision } = development({ MODEL: "m.onnx", PRECISION: "f16" });
  assert.deepEqual([classifier, model, precision], ["onnx", "m.onnx", "f16"]);
  assert.equal(production({ MODEL: "m.onnx" }).classifier, "onnx");
  assert.equal(development({ MODEL: "m.onnx", CLASSIFIER: "grid" }).classifier, "grid");
  assert.throws(
    () => development({ CLASSIFIER: "onnx" }),
    (error: unknown) =>
      error instanceof ConfigError && error.variable === "MODEL" &&
      /MODEL is missing/.test(error.message),
  );
  assert.throws(() => development({ PRECISION: "f64" }), /PRECISION must be f32, f16 or auto/);
});

Deno.test("readConfig() takes mounted folders, unless others are named", () => {
  const mounted = { ...MACHINE, isFolder: (path: string) => /^\/(in|out)put$/.test(path) };
  const { inputDir, outputDir } = development({}, mounted);
  assert.deepEqual([inputDir, outputDir], ["/input", "/output"]);
  const named = development({ INPUT_DIR: "in", OUTPUT_DIR: "out dir" }, mounted);
  assert.deepEqual([named.inputDir, named.outputDir], ["in", "out dir"]);
});

Deno.test("readConfig() takes what the platform sets, secrets as such", () => {
  const config = production();
  assert.deepEqual(
    {
      scanId: config.scanId,
      taskId: config.taskId,
      apiUrl: config.apiUrl,
      classifier: config.classifier,
      scanIsZip: config.scanIsZip,
      stream: config.stream,
      workDir: config.workDir,
      kind: config.credentials.kind,
      upload: config.debugFileUploadUrl,
    },
    {
      scanId: "8615687",
      taskId: "185835",
      apiUrl: "https://api.app.techcyte.com/api/v3",
      classifier: "nuclei",
      scanIsZip: false,
      stream: true,
      workDir: "/tmp",
      kind: "jwt",
      upload: undefined,
    },
  );
  assert.equal(config.scanUrl.reveal(), PRODUCTION.SCAN_URL);
  assert.doesNotMatch(JSON.stringify(config) + Deno.inspect(config, { depth: 9 }), /TOPSECRET/);
});

Deno.test("readConfig() prefers an API key to a token, a zip to a slide and API_URL to HOST", () => {
  const key = production({ API_KEY_ID: "id", API_KEY_SECRET: "TOPSECRET" });
  assert.equal(key.credentials.kind, "api-key");
  assert.equal(
    production({ API_URL: "http://localhost:8080/v3//" }).apiUrl,
    "http://localhost:8080/v3",
  );
  const zip = production({ SCAN_URL_ZIP: "https://bucket.example/zip?TOPSECRET" });
  assert.deepEqual([zip.scanIsZip, zip.scanUrl.reveal()], [
    true,
    "https://bucket.example/zip?TOPSECRET",
  ]);
  assert.deepEqual(problems({ ...PRODUCTION, JWT_TOKEN: undefined, API_KEY_ID: "id" }), {
    API_KEY_SECRET: "is missing",
  });
});

Deno.test("readConfig() names all that is missing at once, and development mode", () => {
  for (const DEV of [undefined, "0", ""]) {
    assert.deepEqual(problems({ DEV }), {
      SCAN_URL: "is missing",
      HOST: "is missing",
      JWT_TOKEN: "is missing",
      TASK_ID: "is missing",
      SCAN_ID: "is missing",
    });
  }
  assert.throws(() => read({}), /\(set DEV=1 for development mode\)$/);
  // Set to nothing is not set.
  assert.deepEqual(problems({ ...PRODUCTION, SCAN_ID: " ", HOST: "" }), {
    SCAN_ID: "is missing",
    HOST: "is missing",
  });
});

const WRONG: Record<string, readonly string[]> = {
  SCAN_URL: ["nonsense", "file:///etc/passwd", "s3://bucket/key?TOPSECRET", "http://"],
  SCAN_URL_ZIP: ["nonsense"],
  HOST: ["https://app.techcyte.com", "app techcyte", "a/b", "user:TOPSECRET@host", "-", "a\nb"],
  TASK_ID: ["../1", "a b", ".."],
  SCAN_ID: ["a b", "a\u0007"],
  JWT_TOKEN: ["a b", "a\nTOPSECRET"],
  API_KEY_ID: ["a b"],
  API_KEY_SECRET: ["TOP SECRET"],
  API_URL: ["nonsense", "ftp://host"],
  DEBUG_FILE_UPLOAD_URL: ["nonsense"],
  STREAM: ["2", "yes", "on"],
  WORK_DIR: ["a\0b"],
};
const WRONG_IN_BOTH: Record<string, readonly string[]> = {
  CLASSIFIER: ["Grid", "nuclei ", "mitosis"],
  NUCLEI_THRESHOLD: ["-0.1", "0", "1.5", "1e-1", "NaN", "0x1", "half"],
  OUTPUT_DIR: ["a\0b", "a\nb"],
  DEADLINE_MINUTES: ["0", "-1", "1441", "Infinity", "an hour", "1,5"],
  LOG_LEVEL: ["INFO", "verbose"],
  COLOUR: ["RGB", "sRGB"],
  DECODERS: ["-1", "65", "1.5", "many", "1e1"],
};
const WRONG_IN_DEVELOPMENT: Record<string, readonly string[]> = {
  ...WRONG_IN_BOTH,
  SCAN_ID: ["a b"],
  INPUT: ["a\0b"],
  INPUT_DIR: ["a\nb"],
};

Deno.test("readConfig() refuses nonsense in every variable, by name and without its value", () => {
  for (
    const [base, table] of [
      [{ ...PRODUCTION, API_KEY_ID: "id", API_KEY_SECRET: "secret" }, {
        ...WRONG,
        ...WRONG_IN_BOTH,
      }],
      [{ DEV: "1" }, WRONG_IN_DEVELOPMENT],
    ] as const
  ) {
    for (const [name, values] of Object.entries(table)) {
      for (const value of values) {
        const found = problems({ ...base, [name]: value });
        assert.deepEqual(Object.keys(found), [name], `${name}=${JSON.stringify(value)}`);
        assert.match(found[name]!, /^must be /);
      }
    }
    // All of them at once.
    const all = Object.fromEntries(Object.entries(table).map(([name, [value]]) => [name, value]));
    assert.deepEqual(Object.keys(problems({ ...base, ...all })).sort(), Object.keys(table).sort());
  }
  for (const DEV of ["2", "true", "yes", " 1"]) {
    assert.deepEqual(problems({ ...PRODUCTION, DEV }), { DEV: "must be 0 or 1" });
  }
});

Deno.test("readConfig() takes the ends of ranges, and ignores the other mode's variables", () => {
  const { deadlineMinutes, decoders, nucleiThreshold } = development({
    DEADLINE_MINUTES: "0.01",
    DECODERS: "0",
    NUCLEI_THRESHOLD: "0.01",
    HOST: "no host at all",
    SCAN_URL: "nonsense",
  });
  assert.deepEqual([deadlineMinutes, decoders, nucleiThreshold], [0.01, 0, 0.01]);
  const most = production({ DEADLINE_MINUTES: "1440", DECODERS: "64", NUCLEI_THRESHOLD: "1" });
  assert.deepEqual([most.deadlineMinutes, most.decoders, most.nucleiThreshold], [1440, 64, 1]);
  assert.equal(development({}, { ...MACHINE, cores: 96 }).decoders, 8);
});

Deno.test("VARIABLES lists every variable that is read, and only those", () => {
  const source = Deno.readTextFileSync(new URL("../src/config.ts", import.meta.url));
  const read = [...source.matchAll(/^ +([A-Z_]+): v\.|\bset\["([A-Z_]+)"\]/gm)].map(([, a, b]) =>
    a ?? b
  );
  assert.deepEqual(VARIABLES.map(({ name }) => name).sort(), [...new Set(read)].sort());
});

Deno.test("withoutQuery() leaves host and path, and nothing of what is no URL", () => {
  assert.equal(
    withoutQuery("https://user:TOPSECRET@host:1/a/b?TOPSECRET#TOPSECRET"),
    "https://host:1/a/b",
  );
  assert.equal(withoutQuery("TOPSECRET"), "[not a URL]");
});
