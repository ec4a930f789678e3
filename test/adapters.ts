/**
 * The tests of kernels and of models on every software adapter that can be had: the machine's own;
 * Mesa 26, whose lavapipe has subgroup matrices; SwiftShader, which has no f16 and subgroups of four.
 *
 *   deno task test:adapters [--only own|mesa26|swiftshader] [TESTS...]
 *
 * Mesa 26 and SwiftShader come from Debian forky, the latter in its chromium-common. Their packages
 * and all that these need are unpacked into a cache folder and run under that release's own dynamic
 * loader and C library: nothing is installed, and nobody has to be root. About 350 MB, once. Where
 * there is no apt, no key of Debian's or no network an adapter is skipped and said to be, which is no
 * failure. The last line sums up: `N passed, N failed`.
 */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { Gpu } from "../kernels/device.ts";

const ROOT = join(import.meta.dirname!, "..");
const RELEASE = "forky";
const DEFAULT_TESTS = ["test/kernels", "test/model"];
const env = Deno.env.toObject();
const CACHE = join(
  env["XDG_CACHE_HOME"] ?? join(env["HOME"] ?? "/tmp", ".cache"),
  "wgslide-adapters",
  RELEASE,
);
/** Debian's name of the architecture, where its libraries lie, and its dynamic loader. */
const MACHINES: Readonly<Record<string, readonly [string, string, string]>> = {
  x86_64: ["amd64", "usr/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2"],
  aarch64: ["arm64", "usr/lib/aarch64-linux-gnu", "ld-linux-aarch64.so.1"],
};

/** Where chromium's package is unpacked, and what of it is kept. */
const CHROMIUM = join(CACHE, "chromium");
const SWIFTSHADER = "usr/lib/chromium/libvk_swiftshader.so";

/** How to start a program so that Dawn finds one certain adapter. */
interface Adapter {
  readonly prefix: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** Why an adapter cannot be had here: no failure. */
class Skipped extends Error {}

/** @throws {Skipped} with what it says. @returns its standard output. */
async function call(
  command: string,
  args: readonly string[],
  more: { readonly env?: Record<string, string>; readonly cwd?: string } = {},
): Promise<string> {
  let output;
  try {
    output = await new Deno.Command(command, { args: [...args], ...more, stdin: "null" }).output();
  } catch (error) {
    throw new Skipped(`there is no ${command}: ${(error as Error).message}`);
  }
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  if (!output.success) {
    const lines = text(output.stderr).split("\n");
    throw new Skipped(
      `${command} failed: ${lines.find((line) => line.startsWith("E:")) ?? lines.at(-1)}`,
    );
  }
  return text(output.stdout);
}

/** The mirror that this machine's apt uses for Debian itself. @throws {Skipped} where it names none. */
async function mirror(): Promise<string> {
  const files = ["/etc/apt/sources.list"];
  try {
    for (const { name } of Deno.readDirSync("/etc/apt/sources.list.d")) {
      files.push(`/etc/apt/sources.list.d/${name}`);
    }
  } catch {
    // A system without apt, which is found out below.
  }
  for (const file of files) {
    const text = await Deno.readTextFile(file).catch(() => "");
    const found = /^(?:URIs:|deb(?:\s+\[[^\]]*\])?)\s+(\S+\/debian\/?)(?:\s|$)/m.exec(text)?.[1];
    if (found !== undefined) return found;
  }
  throw new Skipped("apt's sources name no mirror of Debian");
}

/** apt with lists, cache and state of its own, for the other release. */
async function apt(): Promise<(...args: string[]) => Promise<string>> {
  const [architecture] = MACHINES[Deno.build.arch]!;
  const folder = join(CACHE, "apt");
  for (const sub of [join(folder, "lists/partial"), join(folder, "archives/partial"), CHROMIUM]) {
    await Deno.mkdir(sub, { recursive: true });
  }
  const config = join(folder, "apt.conf");
  await Deno.writeTextFile(join(folder, "status"), "");
  await Deno.writeTextFile(join(folder, "sources.list"), `deb ${await mirror()} ${RELEASE} main\n`);
  await Deno.writeTextFile(
    config,
    [
      `Dir::State::Lists "${folder}/lists";`,
      `Dir::State::Status "${folder}/status";`,
      `Dir::Cache::Archives "${folder}/archives";`,
      `Dir::Cache::pkgcache "";`,
      `Dir::Cache::srcpkgcache "";`,
      `Dir::Etc::SourceList "${folder}/sources.list";`,
      `Dir::Etc::SourceParts "/dev/null";`,
      `APT::Architecture "${architecture}";`,
      `APT::Architectures { "${architecture}"; };`,
      `APT::Install-Recommends "false";`,
      `APT::Sandbox::User "${env["USER"] ?? "root"}";`,
      `Acquire::Retries "2";`,
      `APT::Update::Error-Mode "any";`,
      `Debug::NoLocking "true";`,
      "",
    ].join("\n"),
  );
  return (...args) =>
    call("apt-get", ["-q", "-y", ...args], {
      env: { APT_CONFIG: config, DEBIAN_FRONTEND: "noninteractive" },
      cwd: CHROMIUM,
    });
}

/** Unpacks the packages once, and gives the folder in which they lie. */
async function unpacked(): Promise<string> {
  if (Deno.build.os !== "linux" || MACHINES[Deno.build.arch] === undefined) {
    throw new Skipped(`Debian has no packages for ${Deno.build.target}`);
  }
  const root = join(CACHE, "root");
  const ready = join(CACHE, "ready");
  if (await Deno.stat(ready).then(() => true, () => false)) return root;
  console.log(`fetching Mesa 26 and SwiftShader from Debian ${RELEASE}, once`);
  const get = await apt();
  await get("update");
  const archives = join(CACHE, "apt/archives");
  // With all that the drivers need, the C library among it; of chromium's package one file is enough.
  await get("--download-only", "install", "mesa-vulkan-drivers", "libvulkan1");
  await Deno.remove(root, { recursive: true }).catch(() => {});
  await Deno.mkdir(root, { recursive: true });
  for (const { name } of Deno.readDirSync(archives)) {
    if (name.endsWith(".deb")) await call("dpkg-deb", ["--extract", join(archives, name), root]);
  }
  const [, , loader] = MACHINES[Deno.build.arch]!;
  await Deno.stat(join(root, MACHINES[Deno.build.arch]![1], loader)).catch(() => {
    throw new Skipped(`the packages of Debian ${RELEASE} have no ${loader}`);
  });
  await get("download", "chromium-common"); // Into the folder that it is called in.
  const [archive] = [...Deno.readDirSync(CHROMIUM)].filter(({ name }) => name.endsWith(".deb"));
  await call("dpkg-deb", ["--extract", join(CHROMIUM, archive!.name), CHROMIUM]);
  await Deno.mkdir(join(root, "usr/lib/chromium"), { recursive: true });
  await Deno.rename(join(CHROMIUM, SWIFTSHADER), join(root, SWIFTSHADER));
  for (const folder of [CHROMIUM, archives]) await Deno.remove(folder, { recursive: true });
  await Deno.writeTextFile(ready, "");
  return root;
}

/** A program under the other release's loader, with the driver of that library alone. */
async function driver(library: string): Promise<Adapter> {
  const root = await unpacked();
  const [, libraries, loader] = MACHINES[Deno.build.arch]!;
  const icd = join(CACHE, `${library.split("/").at(-1)}.json`);
  await Deno.writeTextFile(
    icd,
    JSON.stringify({
      file_format_version: "1.0.0",
      ICD: { library_path: join(root, library), api_version: "1.1.0" },
    }),
  );
  return {
    prefix: [join(root, libraries, loader), "--library-path", join(root, libraries)],
    env: { VK_DRIVER_FILES: icd },
  };
}

const ADAPTERS: Readonly<Record<string, () => Promise<Adapter>>> = {
  own: () => Promise.resolve({ prefix: [], env: {} }),
  mesa26: () => driver(join(MACHINES[Deno.build.arch]![1], "libvulkan_lvp.so")),
  swiftshader: () => driver(SWIFTSHADER),
};

/** What the adapter of this process says of itself, for the process that started it. */
async function describe(): Promise<void> {
  const gpu = await Gpu.open({ adapter: env["ADAPTER"] });
  if (gpu === undefined) throw new Error("There is no adapter: run `deno task setup`");
  const { adapter, features, subgroupSize, subgroupMatrixConfigs } = gpu;
  const matrices = subgroupMatrixConfigs.map(({ componentType, resultComponentType, M, N, K }) =>
    `${M}×${N}×${K} ${componentType}→${resultComponentType}`
  );
  console.log(`${adapter.name}, ${adapter.driver}`);
  console.log(`  features: ${[...features].sort().join(" ")}`);
  console.log(
    `  subgroups of ${subgroupSize ?? "no certain size"}; matrices: ${
      matrices.join(", ") || "none"
    }`,
  );
  gpu.close();
}

/** Runs Deno so, its output to ours. @returns what it wrote on standard output, and its exit code. */
async function deno(
  { prefix, env: more }: Adapter,
  args: readonly string[],
): Promise<{ text: string; code: number }> {
  const [program, ...before] = [...prefix, Deno.execPath()];
  const child = new Deno.Command(program!, {
    args: [...before, ...args],
    cwd: ROOT,
    env: { ...more, NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let text = "";
  for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += part;
    await Deno.stdout.write(new TextEncoder().encode(part));
  }
  return { text, code: (await child.status).code };
}

async function main(): Promise<number> {
  const { values: { only }, positionals } = parseArgs({
    options: { only: { type: "string" } },
    allowPositionals: true,
  });
  if (only !== undefined && !(only in ADAPTERS)) {
    throw new RangeError(`There is no "${only}": --only takes ${Object.keys(ADAPTERS).join(", ")}`);
  }
  const tests = positionals.length > 0 ? positionals : DEFAULT_TESTS;
  let passed = 0, failed = 0;
  const lines: string[] = [];
  for (const [name, find] of Object.entries(ADAPTERS)) {
    if (only !== undefined && name !== only) continue;
    console.log(`\n== ${name}`);
    let adapter;
    try {
      adapter = await find();
    } catch (error) {
      if (!(error instanceof Skipped)) throw error;
      lines.push(`${name}: skipped: ${error.message}`);
      console.log(lines.at(-1));
      continue;
    }
    const begin = performance.now();
    const said = await deno(adapter, ["run", "-A", "test/adapters.ts", "--describe"]);
    const run = await deno(adapter, ["test", "-A", "--no-check", ...tests]);
    // Deno's own summary: `ok | 12 passed (3 steps) | 0 failed | 1 ignored (2s)`
    const [, good = "0", bad = "0"] =
      /^(?:ok|FAILED) \| (\d+) passed.*?\| (\d+) failed/m.exec(run.text) ?? [];
    // One that ended badly without a test that failed: a crash, or no test at all.
    const broken = Math.max(Number(bad), run.code === 0 && said.code === 0 && good !== "0" ? 0 : 1);
    passed += Number(good);
    failed += broken;
    const seconds = ((performance.now() - begin) / 1000).toFixed(0);
    lines.push(`${name}: ${said.text.trim()}\n  ${good} passed, ${broken} failed in ${seconds} s`);
  }
  console.log(`\n${lines.join("\n")}`);
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

if (Deno.args[0] === "--describe") await describe();
else Deno.exit(await main());
