/** `src/main.ts` in a process of its own, as shipped or with a vendor's process_image.ts. */

import assert from "node:assert/strict";
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { VARIABLES } from "../../src/config.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** A driver list without drivers: no adapter is found, and a run starts sooner. */
export const NO_ADAPTER = { VK_DRIVER_FILES: "/dev/null" };

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What lies in OUTPUT_DIR, by name. */
  readonly files: readonly string[];
  /** A file of OUTPUT_DIR. */
  file(name: string): Uint8Array<ArrayBuffer>;
}

export interface RunOptions {
  readonly args?: readonly string[];
  /** Where src/ lies. */
  readonly root?: string;
  /** Called once, when the process has said this on standard error or output. */
  readonly when?: { readonly said: RegExp; then(process: Deno.ChildProcess): void };
}

/**
 * Runs main.ts to its end, with an empty OUTPUT_DIR unless one is given and none of the project's
 * variables but those of `env`.
 */
export async function runMain(
  env: Record<string, string>,
  { args = [], root = ROOT, when }: RunOptions = {},
): Promise<Ran> {
  const ours = new Set(VARIABLES.map(({ name }) => name));
  const inherited = Object.entries(Deno.env.toObject()).filter(([name]) => !ours.has(name));
  const outputDir = Deno.makeTempDirSync();
  try {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", join(root, "src/main.ts"), ...args],
      cwd: outputDir, // Where "./input" and "./output" are not.
      clearEnv: true,
      env: {
        ...Object.fromEntries(inherited),
        NO_COLOR: "1",
        DECODERS: "0",
        OUTPUT_DIR: outputDir,
        ...env,
      },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    // A run that does not end fails a test, and does not hold all of them up.
    const hanging = setTimeout(() => process.kill("SIGKILL"), 60_000);
    let all = "", waiting = when;
    const collect = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
      let text = "";
      for await (const piece of stream.pipeThrough(new TextDecoderStream())) {
        text += piece;
        all += piece;
        if (waiting?.said.test(all)) {
          waiting.then(process);
          waiting = undefined;
        }
      }
      return text;
    };
    const [stdout, stderr, { code }] = await Promise.all([
      collect(process.stdout),
      collect(process.stderr),
      process.status,
    ]);
    clearTimeout(hanging);
    assert.equal(waiting, undefined, `${when?.said} was not said: ${stdout}${stderr}`);
    const files = existsSync(outputDir) ? readdirSync(outputDir).sort() : [];
    const contents = new Map(
      files.map((name) => [name, Uint8Array.from(readFileSync(join(outputDir, name)))]),
    );
    return { code, stdout, stderr, files, file: (name) => contents.get(name)! };
  } finally {
    rmSync(outputDir, { recursive: true, force: true });
  }
}

/**
 * A copy of the project with another process_image.ts, and with less time to stop in. The caller
 * removes it.
 */
export function copyProject(processImage: string, graceMs: number): string {
  const root = Deno.makeTempDirSync();
  for (const name of ["src", "kernels", "deno.json", "import_map.json", "deno.lock"]) {
    cpSync(join(ROOT, name), join(root, name), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(root, "node_modules"));
  writeFileSync(join(root, "src/process_image.ts"), processImage);
  const watchdog = join(root, "src/mode/watchdog.ts");
  const source = readFileSync(watchdog, "utf8");
  const shorter = source.replace(/GRACE_MS = [\d_]+;/, `GRACE_MS = ${graceMs};`);
  assert.notEqual(shorter, source);
  writeFileSync(watchdog, shorter);
  return root;
}
