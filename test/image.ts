/**
 * Builds the image and runs it as a vendor would, on the software adapter and without a network.
 *
 *     deno task image [--at FOLDER]
 *
 * Uses docker where its daemon answers. Elsewhere, as root, buildah: the base image is then made
 * with debootstrap from the mirror that apt uses here. `--at` keeps what is built in a folder and
 * starts from it the next time. Needs a slide: CMU-1-Small-Region.svs in WGSLIDE_DATA.
 */

import assert from "node:assert/strict";
import { parseArgs } from "node:util";
import sharp from "sharp";

const MAX_MB = 450;
const ROOT = `${import.meta.dirname}/..`;

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Until the first byte on standard output; undefined where there was none. */
  readonly firstLineMs: number | undefined;
  readonly totalMs: number;
}

/** What is asked of a container: arguments, variables, mounts (from → to), and another user than the image's. */
interface Request {
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly mounts?: Readonly<Record<string, string>>;
  readonly user?: string;
}

/** A way to build images and run them. */
interface Builder {
  build(): Promise<void>;
  /** Sum of the layers, in bytes. */
  size(): Promise<number>;
  run(request: Request): Promise<Run>;
  /** Runs a shell command in place of the program. */
  shell(command: string): Promise<Run>;
  close(): Promise<void>;
}

async function run(command: readonly string[], env: Record<string, string> = {}): Promise<Run> {
  const began = performance.now();
  const [program, ...args] = command;
  const child = new Deno.Command(program!, {
    args,
    env,
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let firstLineMs: number | undefined;
  let stdout = "";
  const reading = (async () => {
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      firstLineMs ??= performance.now() - began;
      stdout += text;
    }
  })();
  const [stderr, { code }] = await Promise.all([
    new Response(child.stderr).text(),
    child.status,
    reading,
  ]);
  return { code, stdout, stderr, firstLineMs, totalMs: performance.now() - began };
}

async function must(...command: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(command);
  if (code !== 0) {
    const end = `${stdout}${stderr}`.trimEnd().split("\n").slice(-30).join("\n");
    throw new Error(`Cannot run "${command.join(" ")}" (${code}):\n${end}`);
  }
  return stdout.trim();
}

/** Certificates of a network that opens TLS, where this machine names some. */
const certificates = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"]
  .map((name) => Deno.env.get(name)).find((path) => path);
const secret = certificates ? ["--secret", `id=ca,src=${certificates}`] : [];

const docker: Builder = {
  async build() {
    await must("docker", "build", ...secret, "-t", "wgslide", ".");
  },
  async size() {
    return Number(await must("docker", "image", "inspect", "-f", "{{.Size}}", "wgslide"));
  },
  run({ args, env = {}, mounts = {}, user }) {
    return run([
      ...["docker", "run", "--rm", "--network", "none"],
      ...Object.entries(env).flatMap(([name, value]) => ["-e", `${name}=${value}`]),
      ...Object.entries(mounts).flatMap(([from, to]) => ["-v", `${from}:${to}`]),
      ...(user ? ["--user", user] : []),
      "wgslide",
      ...args,
    ]);
  },
  shell(command) {
    return run(["docker", "run", "--rm", "--entrypoint", "sh", "wgslide", "-c", command]);
  },
  close: () => Promise.resolve(),
};

/** `at` holds the store of images. */
function buildah(at: string): Builder {
  const store = ["--root", `${at}/store`, "--runroot", `${at}/run`, "--storage-driver", "overlay"];
  const it = (...args: string[]) => must("buildah", ...store, ...args);
  let container = "";
  const start = async (
    command: readonly string[],
    { env = {}, mounts = {}, user }: Omit<Request, "args"> = {},
  ) =>
    await run([
      ...["unshare", "--net", "buildah", ...store, "run", "--isolation", "chroot"],
      ...Object.entries(env).flatMap(([name, value]) => ["-e", `${name}=${value}`]),
      ...Object.entries(mounts).flatMap(([from, to]) => ["-v", `${from}:${to}`]),
      ...(user ? ["--user", user] : []),
      ...[container, "--", ...command],
    ]);

  /** debian:trixie-slim, from packages: what the one of the registries leaves out is left out. */
  async function makeBase(): Promise<void> {
    const sources = await must(
      "sh",
      "-c",
      "cat /etc/apt/sources.list /etc/apt/sources.list.d/* || :",
    );
    const [, mirror] = /^(?:URIs:|deb(?: \[.*\])?)\s+(\S+)/m.exec(sources) ?? [];
    if (mirror === undefined) throw new Error("Cannot find a mirror in apt's sources");
    const base = `${at}/base`;
    await must("debootstrap", "--variant=minbase", "trixie", base, mirror);
    const unwanted = ["doc", "man", "info", "locale", "lintian"].map((name) => `usr/share/${name}`);
    await Deno.writeTextFile(
      `${base}/etc/dpkg/dpkg.cfg.d/slim`,
      unwanted.map((path) => `path-exclude /${path}/*\n`).join(""),
    );
    for (const path of [...unwanted, "var/cache/apt", "var/lib/apt/lists", "var/log"]) {
      await must("sh", "-c", `rm -rf ${base}/${path}/*`);
    }
    const scratch = await it("from", "scratch");
    await it("add", "-q", scratch, base, "/");
    await it("commit", "-q", scratch, "debian:trixie-slim");
    await it("rm", scratch);
    await Deno.remove(base, { recursive: true });
  }

  return {
    async build() {
      const images = await it("images", "--format", "{{.Name}}:{{.Tag}}");
      if (!images.includes("debian:trixie-slim")) await makeBase();
      await it(
        ...["bud", "--pull-never", "--layers", "--isolation", "chroot", "--network", "host"],
        ...["--format", "docker", ...secret, "-t", "wgslide", "."],
      );
      container = await it("from", "--pull-never", "wgslide");
    },
    async size() {
      const line = await it("images", "--json", "wgslide");
      const [image] = JSON.parse(line) as { size: string }[];
      const [, number, unit] = /^([\d.]+) ([KMG])B$/.exec(image?.size ?? "") ?? [];
      return Number(number) * ({ K: 1e3, M: 1e6, G: 1e9 }[unit ?? ""] ?? NaN);
    },
    async run({ args, ...rest }) {
      const format = "{{index .OCIv1.Config.Entrypoint 0}}";
      const entrypoint = await it("inspect", "--format", format, container);
      return await start([entrypoint, ...args], rest);
    },
    shell: (command) => start(["sh", "-c", command]),
    async close() {
      if (container !== "") await it("rm", container); // it stays mounted else
    },
  };
}

/** The number of pixels of pure red, which no stained tissue has. */
async function countRed(path: string): Promise<number> {
  const { data, info } = await sharp(path).removeAlpha().raw().toBuffer({
    resolveWithObject: true,
  });
  let count = 0;
  for (let i = 0; i < data.length; i += info.channels) {
    if (data[i] === 255 && data[i + 1] === 0 && data[i + 2] === 0) count++;
  }
  return count;
}

async function check(builder: Builder, folder: string, slide: string): Promise<void> {
  console.log("building");
  const began = performance.now();
  await builder.build();
  console.log(`built in ${Math.round((performance.now() - began) / 1000)} s`);
  const sizeMb = await builder.size() / 1e6;
  console.log(`size ${sizeMb.toFixed(0)} MB`);
  assert.ok(sizeMb <= MAX_MB, `the image has at most ${MAX_MB} MB`);

  const other = await builder.shell(
    "id -u; find / -xdev \\( -path '*darwin*' -o -path '*win32*' -o -path '*musl*' \\) -name '*.node'",
  );
  const [uid, ...foreign] = other.stdout.trim().split("\n");
  assert.notEqual(uid, "0", "the user is not root");
  assert.deepEqual(foreign, [], "no other system's binaries");

  const help = await builder.run({ args: ["--help"] });
  assert.equal(help.code, 0, help.stderr);
  assert.match(help.stdout, /SCAN_URL/, "--help names the variables");
  const bare = await builder.shell("echo");
  console.log(`an empty container takes ${bare.totalMs.toFixed(0)} ms of what follows`);
  console.log(`--help ${help.totalMs.toFixed(0)} ms`);

  await Deno.mkdir(`${folder}/input`);
  await Deno.copyFile(slide, `${folder}/input/slide.svs`);
  const develop = async (name: string, more: Partial<Request> = {}): Promise<Run> => {
    const output = `${folder}/${name}`;
    await Deno.mkdir(output);
    await Deno.chmod(output, 0o777);
    const result = await builder.run({
      args: [],
      ...more,
      env: { DEV: "1", ...more.env },
      mounts: { [`${folder}/input`]: "/input", [output]: "/output", ...more.mounts },
    });
    assert.equal(result.code, 0, `${name}: ${result.stdout}${result.stderr}`);
    const { width, height } = await sharp(`${output}/result.png`).metadata();
    assert.ok(
      Math.max(width, height) > 1000 && Math.max(width, height) <= 2048,
      `${width}×${height}`,
    );
    assert.ok(await countRed(`${output}/result.png`) > 500, `${name}: findings in red`);
    const results = JSON.parse(await Deno.readTextFile(`${output}/result.json`));
    assert.equal(results.scanResults[0].scanId, "test_scan");
    console.log(
      `${name}: first line ${result.firstLineMs?.toFixed(0)} ms, total ${
        result.totalMs.toFixed(0)
      } ms`,
    );
    return result;
  };

  const first = await develop("grid");
  console.log(first.stdout.replace(/^/gm, "  ").trimEnd());
  await develop("grid again");
  await develop("nuclei", { env: { CLASSIFIER: "nuclei" } });
  await develop("another user", { user: "4321:4321" });

  const edited = `${folder}/process_image.ts`;
  const source = await Deno.readTextFile(`${ROOT}/src/process_image.ts`);
  await Deno.writeTextFile(edited, `${source}\nconsole.log("edited by a vendor");\n`);
  const mounted = await develop("edited", { mounts: { [edited]: "/app/src/process_image.ts" } });
  assert.match(mounted.stdout, /edited by a vendor/);
}

const { values } = parseArgs({ options: { at: { type: "string" } } });
const data = Deno.env.get("WGSLIDE_DATA") ?? `${ROOT}/../shared/data`;
const found = await run(["find", `${data}/`, "-name", "CMU-1-Small-Region.svs"]);
const slide = found.stdout.split("\n")[0]!;
if (slide === "") {
  console.log("skipped: no data");
  Deno.exit(0);
}
const folder = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "wgslide-image-" });
await Deno.chmod(folder, 0o755); // the container's user reads what is mounted
const hasDocker = (await run(["sh", "-c", "docker info"])).code === 0;
const builder = hasDocker ? docker : buildah(values.at ?? folder);
try {
  if (values.at !== undefined) await Deno.mkdir(values.at, { recursive: true });
  await check(builder, folder, slide);
  console.log("ok");
} finally {
  await builder.close();
  await run(["rm", "-rf", "--one-file-system", folder]); // layers belong to users of their own
}
