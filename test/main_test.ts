/** Flags, variables and exit codes of main.ts, in a process of its own. */

import assert from "node:assert/strict";
import { VARIABLES } from "../src/config.ts";
import { runMain } from "./mode/process.ts";

Deno.test("main.ts --help explains every variable and exit code, whatever is set", async () => {
  for (const flag of ["--help", "-h"]) {
    const { code, stdout, stderr, files } = await runMain({ DEV: "2" }, { args: [flag] });
    assert.deepEqual([code, stderr, files], [0, "", []]);
    for (const { name, meaning } of VARIABLES) {
      assert.match(stdout, new RegExp(`^  ${name} +${RegExp.escape(meaning)}$`, "m"));
    }
    for (let code = 0; code <= 6; code++) assert.match(stdout, new RegExp(`^  ${code}  \\w`, "m"));
  }
});

Deno.test("main.ts refuses what it does not know, exit 2", async () => {
  for (const args of [["--fast"], ["slide.svs"], ["--help=yes"], ["-x"]]) {
    const { code, stdout, stderr, files } = await runMain({ DEV: "1" }, { args });
    assert.deepEqual([code, stdout, files], [2, "", []], `${args}`);
    assert.match(stderr, /^error: .*; see --help\n$/);
  }
});

Deno.test("main.ts refuses nonsense in variables, all at once, exit 2", async () => {
  const wrong = {
    CLASSIFIER: "magic",
    NUCLEI_THRESHOLD: "2",
    DEADLINE_MINUTES: "-1",
    LOG_LEVEL: "loud",
    DECODERS: "many",
    SCAN_ID: "a b",
  };
  const { code, stdout, stderr, files } = await runMain({ DEV: "1", ...wrong });
  assert.deepEqual([code, stdout, files], [2, "", []]);
  assert.match(stderr, /^error: Cannot start in development mode: [^\n]*\n$/);
  for (const name of Object.keys(wrong)) assert.match(stderr, new RegExp(`\\b${name} must be `));
  const mode = await runMain({ DEV: "2" });
  assert.deepEqual([mode.code, mode.stderr], [2, "error: DEV must be 0 or 1\n"]);
});

Deno.test("main.ts without variables is production, names what is missing and the other mode, exit 2", async () => {
  const { code, stdout, stderr } = await runMain({});
  assert.deepEqual([code, stdout], [2, ""]);
  assert.match(
    stderr,
    /^error: Cannot start in production mode: .*\(set DEV=1 for development mode\)\n$/,
  );
  for (const name of ["SCAN_URL", "HOST", "TASK_ID", "SCAN_ID", "JWT_TOKEN"]) {
    assert.match(stderr, new RegExp(`\\b${name} is missing`));
  }
});

Deno.test("main.ts shows no secret of a variable that is wrong", async () => {
  const { code, stdout, stderr } = await runMain({
    SCAN_URL: "s3://bucket/slide?TOPSECRET",
    JWT_TOKEN: "TOPSECRET with spaces",
    API_KEY_SECRET: "TOPSECRET\t",
    DEBUG_FILE_UPLOAD_URL: "TOPSECRET",
    HOST: "user:TOPSECRET@host",
  });
  assert.equal(code, 2);
  assert.doesNotMatch(stdout + stderr, /TOPSECRET/);
});
