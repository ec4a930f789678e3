/**
 * Task `setup`: gives a fresh machine what it lacks, npm packages and a Vulkan driver that Dawn accepts.
 *
 * A program of its own beside `main.ts`, so it reads the environment itself. It runs before the npm
 * packages are there and imports none. Every other task depends on it: where nothing has changed
 * since it last ended well it compares one small file and is done.
 *
 * Only npm packages that cannot be installed end it with an error. Without a driver it says what to
 * do and goes on, since not everything needs a GPU.
 */

const ROOT = `${import.meta.dirname}/../`;
const STAMP = `${ROOT}node_modules/.wgslide-setup`;
const PACKAGES = ["libvulkan1", "mesa-vulkan-drivers"];
/** Lavapipe of earlier versions lacks dynamic indexing of descriptors, which Dawn demands. */
const OLDEST_MESA = "23.2";

/** A file of apt's sources: its base name, whose ending says which of two forms it has, and its text. */
export interface AptFile {
  readonly name: string;
  readonly text: string;
}

/** What would bring a driver: packages of apt (of the suite, where the release's own are too old), or a command to be told. */
export type Remedy =
  | { readonly kind: "apt"; readonly suite: string | undefined }
  | { readonly kind: "tell"; readonly command: string };

/** The variables of an os-release file, unquoted. Source: os-release(5). */
export function parseOsRelease(text: string): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const line of text.split("\n")) {
    const [, name, value] = /^([A-Z0-9_]+)=(.*)$/.exec(line.trim()) ?? [];
    if (name !== undefined && value !== undefined) {
      variables[name] = value.replace(/^(["'])(.*)\1$/, "$2");
    }
  }
  return variables;
}

/** What brings a driver on a system with this os-release; `apt` says whether it has apt-get. */
export function chooseRemedy(os: Readonly<Record<string, string>>, apt: boolean): Remedy {
  if (apt) {
    // Mesa 22.3 of bookworm itself is refused.
    const old = os["ID"] === "debian" && os["VERSION_CODENAME"] === "bookworm";
    return { kind: "apt", suite: old ? "bookworm-backports" : undefined };
  }
  const family = [os["ID"] ?? "", ...(os["ID_LIKE"] ?? "").split(" ")];
  const commands: readonly (readonly [string, string])[] = [
    ["fedora", "sudo dnf install vulkan-loader mesa-vulkan-drivers"],
    ["rhel", "sudo dnf install vulkan-loader mesa-vulkan-drivers"],
    ["arch", "sudo pacman -S vulkan-icd-loader vulkan-swrast"],
    ["suse", "sudo zypper install libvulkan1 libvulkan_lvp"],
    ["opensuse", "sudo zypper install libvulkan1 libvulkan_lvp"],
  ];
  const command = commands.find(([id]) => family.includes(id))?.[1];
  return {
    kind: "tell",
    command: command ??
      `install the Vulkan loader and Mesa's Vulkan drivers, ${OLDEST_MESA} or newer`,
  };
}

/** Name → value of each stanza of a `.sources` file; a value keeps its continuation lines. Source: sources.list(5), «DEB822-STYLE FORMAT». */
function parseStanzas(text: string): Map<string, string>[] {
  const stanzas: Map<string, string>[] = [];
  let stanza = new Map<string, string>();
  let name: string | undefined;
  for (const line of [...text.split("\n"), ""]) {
    if (line.startsWith("#")) continue;
    const field = /^([^\s:]+):\s*(.*)$/.exec(line);
    if (line.trim() === "") {
      if (stanza.size > 0) stanzas.push(stanza);
      stanza = new Map();
      name = undefined;
    } else if (/^\s/.test(line)) {
      if (name !== undefined) stanza.set(name, `${stanza.get(name)}\n${line.trimEnd()}`);
    } else if (field) {
      name = field[1]!.toLowerCase();
      stanza.set(name, field[2]!.trim());
    }
  }
  return stanzas;
}

/**
 * A sources file for `suite`, such as "bookworm-backports", from the mirror that the given files
 * name for the release itself, with that source's options (such as its keyring) kept.
 * `"present"` where the files have the suite already, undefined where none names the release.
 */
export function suiteSource(
  files: readonly AptFile[],
  suite: string,
): AptFile | "present" | undefined {
  const release = suite.split("-")[0]!;
  const names = [release, "stable", "oldstable"];
  let found: AptFile | undefined;
  for (const { name, text } of files) {
    if (name.endsWith(".sources")) {
      for (const stanza of parseStanzas(text)) {
        const words = (field: string) => (stanza.get(field) ?? "").split(/\s+/).filter(Boolean);
        if (
          !words("types").includes("deb") || /^(no|false|0)$/i.test(stanza.get("enabled") ?? "")
        ) {
          continue;
        }
        if (words("suites").includes(suite)) return "present";
        if (found || !words("suites").some((s) => names.includes(s))) continue;
        stanza.set("types", "deb").set("suites", suite).set("components", "main");
        const lines = [...stanza].map(([field, value]) => `${field}: ${value}\n`);
        found = { name: "wgslide.sources", text: lines.join("") };
      }
    } else if (name.endsWith(".list")) {
      for (const line of text.split("\n")) {
        const [, options, uri, named] =
          /^\s*deb\s+(\[[^\]]*\]\s+)?([^\s#]+)\s+([^\s#]+)/.exec(line) ?? [];
        if (uri === undefined || named === undefined || uri.startsWith("cdrom:")) continue;
        if (named === suite) return "present";
        if (found || !names.includes(named)) continue;
        found = { name: "wgslide.list", text: `deb ${options ?? ""}${uri} ${suite} main\n` };
      }
    }
  }
  return found;
}

/** The commands, for a person to run, that install the driver from apt; `source` is what must be added first. */
export function aptCommands(suite: string | undefined, source: AptFile | undefined): string {
  const install = ["sudo apt-get install -y", ...(suite ? [`-t ${suite}`] : []), ...PACKAGES];
  const lines = ["sudo apt-get update", install.join(" ")];
  if (source) {
    // A mirror's URL may carry a password.
    const text = source.text.replace(/(:\/\/)[^/\s@]+@/g, "$1USER:PASSWORD@").trimEnd();
    const file = `/etc/apt/sources.list.d/${suite}${source.name.slice(source.name.indexOf("."))}`;
    lines.unshift(`echo '${text}' | sudo tee ${file}`);
  }
  return lines.join(" &&\n  ");
}

/** Whether a package's version, such as "22.3.6-1+deb12u1", comes before `oldest`, such as "23.2". */
export function isOlder(version: string, oldest: string): boolean {
  const [major = 0, minor = 0] = version.split(/[^0-9]+/).map(Number);
  const [oldestMajor = 0, oldestMinor = 0] = oldest.split(".").map(Number);
  return major < oldestMajor || (major === oldestMajor && minor < oldestMinor);
}

/** What the stamp remembers: the state that was looked at, and whether Dawn accepted a driver in it. */
export function stampText(state: readonly string[], accepted: boolean): string {
  return [...state, accepted ? "accepted" : "refused", ""].join("\n");
}

/** A line that changes when the file does: its size in bytes and time of change, or that it is missing. */
function fileState(path: string): string {
  try {
    const { size, mtime } = Deno.statSync(path);
    return `${path} ${size} ${mtime?.getTime()}`;
  } catch {
    return `${path} missing`;
  }
}

function entries(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
  } catch {
    return [];
  }
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

/** The files of apt's sources on this machine. */
function aptFiles(): AptFile[] {
  const folder = "/etc/apt/sources.list.d";
  const names = entries(folder).filter((name) => /\.(list|sources)$/.test(name));
  return [
    { name: "sources.list", text: readText("/etc/apt/sources.list") },
    ...names.map((name) => ({ name, text: readText(`${folder}/${name}`) })),
  ];
}

/**
 * Everything by which this machine could come to need another look, a line each: the packages asked
 * for and there, the Vulkan loader, each driver's manifest and library, the GPUs. Cheap: files are
 * looked at, not read, but for the manifests.
 *
 * Source: Khronos, «Vulkan Loader Driver Interface», Driver Discovery on Linux.
 */
export function machineState(env: (name: string) => string | undefined): string[] {
  const { version, build } = Deno;
  const lines = [`deno ${version.deno} ${build.target} ${Deno.osRelease()}`];
  lines.push(fileState(`${ROOT}deno.lock`), fileState(`${ROOT}import_map.json`));
  const { imports } = JSON.parse(readText(`${ROOT}import_map.json`)) as {
    imports: Record<string, string>;
  };
  for (const name of Object.keys(imports)) {
    lines.push(fileState(`${ROOT}node_modules/${name}/package.json`));
  }
  if (build.os !== "linux") return lines; // the driver is the system's

  const list = (name: string, fallback = "") =>
    (env(name) || fallback).split(":").filter((path) => path !== "");
  const home = env("HOME") ?? "";
  const triplet = `${build.arch}-linux-gnu`;
  const libraryFolders = [
    ...list("LD_LIBRARY_PATH"),
    ...["/usr/local/lib", "/usr/lib"].flatMap((path) => [`${path}/${triplet}`, path]),
    "/usr/lib64",
  ];
  const library = (name: string, beside: string) => {
    if (name.startsWith("/")) lines.push(fileState(name));
    else if (name.includes("/")) lines.push(fileState(`${beside}/${name}`));
    else {
      for (const folder of libraryFolders) {
        const state = fileState(`${folder}/${name}`);
        if (!state.endsWith("missing")) lines.push(state);
      }
    }
  };
  // Changes with every package that brings a library, or takes one away that a driver needs.
  lines.push(fileState("/etc/ld.so.cache"));
  library("libvulkan.so.1", "");

  const named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"].flatMap((name) =>
    list(name)
  );
  const folders = [
    ...list("XDG_CONFIG_HOME", `${home}/.config`),
    ...list("XDG_CONFIG_DIRS", "/etc/xdg"),
    ...["/usr/local/etc", "/etc"],
    ...list("XDG_DATA_HOME", `${home}/.local/share`),
    ...list("XDG_DATA_DIRS", "/usr/local/share:/usr/share"),
  ].map((path) => `${path}/vulkan/icd.d`);
  const manifests = [
    ...named,
    ...[...named, ...folders].flatMap((path) => entries(path).map((name) => `${path}/${name}`)),
  ];
  lines.push(`named ${named.join(":")}`);
  for (const path of manifests) {
    lines.push(fileState(path));
    const [, name] = /"library_path"\s*:\s*"([^"]+)"/.exec(readText(path)) ?? [];
    if (name !== undefined) library(name, path.slice(0, path.lastIndexOf("/")));
  }
  const devices = entries("/dev").filter((name) => name.startsWith("nvidia"));
  lines.push(`devices ${[...devices, ...entries("/dev/dri")].join(" ")}`);
  lines.push(readText("/proc/driver/nvidia/version").split("\n")[0]!);
  return lines;
}

function say(message: string): void {
  console.error(`setup: ${message}`);
}

/** Runs a command to its end; `text` is all it printed. One that cannot be started has failed. */
async function run(
  command: string,
  args: readonly string[],
  timeoutMs?: number,
): Promise<{ success: boolean; stdout: string; text: string }> {
  try {
    const output = await new Deno.Command(command, {
      args: [...args],
      cwd: ROOT,
      env: { NO_COLOR: "1" },
      stdin: "null",
      ...(timeoutMs === undefined ? {} : { signal: AbortSignal.timeout(timeoutMs) }),
    }).output();
    const [stdout, stderr] = [output.stdout, output.stderr].map((b) => new TextDecoder().decode(b));
    return { success: output.success, stdout: stdout!, text: `${stdout}${stderr}`.trim() };
  } catch (error) {
    return { success: false, stdout: "", text: String(error) };
  }
}

/**
 * Asks Dawn for a device, in a process of its own: a driver that crashes takes that one down.
 * Returns the adapter's name, or what went wrong.
 */
async function askDawn(): Promise<{ adapter: string } | { refusal: string }> {
  const script = `
    import { create } from "webgpu";
    globalThis.gpu = create([]); // collected too early, it takes the process down
    const adapter = await globalThis.gpu.requestAdapter();
    if (adapter === null) Deno.exit(1); // Dawn has said why on standard error
    globalThis.device = await adapter.requestDevice();
    console.log("adapter: " + (adapter.info.description || adapter.info.device));
    Deno.exit(0);`;
  const { success, stdout, text } = await run(Deno.execPath(), ["eval", "-q", script], 60_000);
  const [, adapter] = /^adapter: (.*)$/m.exec(stdout) ?? [];
  if (success && adapter !== undefined) return { adapter };
  const lines = text.split("\n").filter((line) => line.trim() !== "" && !/^\s+at /.test(line));
  return { refusal: lines.slice(-8).join("\n") || "Dawn found no adapter" };
}

/** What to put before a command that needs root: nothing for root, sudo where it asks for no password, undefined without either. */
async function rootPrefix(): Promise<string[] | undefined> {
  if (Deno.uid() === 0) return [];
  return (await run("sudo", ["-n", "true"], 10_000)).success ? ["sudo", "-n"] : undefined;
}

/**
 * Installs the driver's packages. A suite that the machine's sources lack is read from a copy of
 * them with one more file, so that nothing under /etc changes. Returns whether that succeeded.
 */
async function aptInstall(
  prefix: readonly string[],
  suite: string | undefined,
  source: AptFile | undefined,
): Promise<boolean> {
  const folder = await Deno.makeTempDir({ prefix: "wgslide-apt-" });
  try {
    for (const file of aptFiles()) {
      if (file.name !== "sources.list") {
        await Deno.writeTextFile(`${folder}/${file.name}`, file.text);
      }
    }
    if (source) await Deno.writeTextFile(`${folder}/${source.name}`, source.text);
    const apt = async (...args: string[]) => {
      const [command, ...rest] = [
        ...prefix,
        ...["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"],
        ...["-o", `Dir::Etc::sourceparts=${folder}`, "-o", "DPkg::Lock::Timeout=300"],
        ...args,
      ];
      return await run(command!, rest); // apt gives up by itself; killed midway it leaves packages half configured
    };
    say("reading the lists of packages (apt-get update)");
    const updated = await apt("update"); // where it fails, lists that are there may yet do
    const from = suite ? ` from ${suite}` : "";
    say(`installing ${PACKAGES.join(" ")}${from}, which takes a minute`);
    const target = suite ? ["-t", suite] : [];
    const installed = await apt("install", "--no-install-recommends", ...target, ...PACKAGES);
    if (installed.success) return true;
    const complaints = `${updated.text}\n${installed.text}`.split("\n")
      .filter((line) => /^[WE]: /.test(line));
    say(`Cannot install them:\n${lastLines(complaints.join("\n") || installed.text)}`);
    return false;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function lastLines(text: string): string {
  return text.split("\n").slice(-8).map((line) => `  ${line}`).join("\n");
}

/** Whether the driver's packages come from here: without apt, elsewhere. */
function hasApt(): boolean {
  return Deno.build.os === "linux" && !fileState("/usr/bin/apt-get").endsWith("missing");
}

/** Sees to a driver. Returns whether Dawn accepts one, or undefined where another try may help. */
async function setUpDriver(alreadyRefused: boolean): Promise<boolean | undefined> {
  let answer = await askDawn();
  if ("adapter" in answer) {
    say(`Dawn accepts ${answer.adapter}`);
    return true;
  }
  say(`Dawn accepts no driver here:\n${lastLines(answer.refusal)}`);
  if (Deno.build.os !== "linux") {
    say("going on without: update the graphics driver of this system");
    return undefined;
  }
  const remedy = chooseRemedy(parseOsRelease(readText("/etc/os-release")), hasApt());
  if (remedy.kind === "tell") {
    say(`going on without. To have one: ${remedy.command}`);
    return undefined;
  }
  const found = remedy.suite === undefined ? "present" : suiteSource(aptFiles(), remedy.suite);
  const source = found === "present" ? undefined : found;
  const command = aptCommands(remedy.suite, source);
  if (found === undefined) {
    say(`going on without: add ${remedy.suite} to apt's sources, then\n  ${command}`);
    return undefined;
  }
  const prefix = await rootPrefix();
  if (prefix === undefined) {
    say(`going on without, lacking root or sudo. To have one:\n  ${command}`);
    return undefined;
  }
  if (!alreadyRefused) {
    if (!await aptInstall(prefix, remedy.suite, source)) {
      say(`going on without. To have one:\n  ${command}`);
      return undefined;
    }
    answer = await askDawn();
    if ("adapter" in answer) {
      say(`Dawn accepts ${answer.adapter}`);
      return true;
    }
  }
  const query = await run("dpkg-query", ["-W", "-f=${Version}", PACKAGES[1]!], 10_000);
  const version = query.success ? query.text : "none";
  const why = isOlder(version, OLDEST_MESA)
    ? `is too old, ${OLDEST_MESA} or newer is needed`
    : "is installed, yet Dawn refuses it";
  say(`going on without: Mesa ${version} of this system ${why}:\n${lastLines(answer.refusal)}`);
  return false;
}

async function installPackages(): Promise<void> {
  say("installing npm packages");
  const ci = !["", "0", "false"].includes(Deno.env.get("CI") ?? "");
  const frozen = ci && !fileState(`${ROOT}deno.lock`).endsWith("missing");
  const args = ["install", "--quiet", ...(frozen ? ["--frozen"] : [])];
  const { success, text } = await run(Deno.execPath(), args);
  if (!success) {
    say(`Cannot install the npm packages:\n${text}`);
    Deno.exit(1);
  }
}

async function main(): Promise<void> {
  const state = () => machineState((name) => Deno.env.get(name));
  const stamp = readText(STAMP);
  if (stamp === stampText(state(), true)) return;
  await installPackages();
  try {
    const accepted = await setUpDriver(stamp === stampText(state(), false));
    if (accepted !== undefined) {
      await Deno.writeTextFile(STAMP, stampText(state(), accepted));
    }
  } catch (error) {
    say(`going on after an error: ${error}`);
  }
}

if (import.meta.main) await main();
