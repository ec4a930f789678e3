/** OpenSlide as a peer: builds the C program beside this file and talks to it. */

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const SOURCE = join(import.meta.dirname!, "openslide_peer.c");

/** The prefix of an OpenSlide that is to be compared with instead of the system's, such as "/opt/openslide". */
const PREFIX = Deno.env.get("OPENSLIDE_PREFIX");

/**
 * Builds the program once for this source and this OpenSlide, into the system's temporary folder.
 * @returns its path.
 * @throws {Error} that says what to install where there is no compiler or no OpenSlide.
 */
export async function buildPeer(): Promise<string> {
  const folder = join(tmpdir(), "wgslide-peers");
  const which = createHash("sha256").update(readFileSync(SOURCE)).update(PREFIX ?? "").digest(
    "hex",
  );
  const program = join(folder, `openslide_peer-${which.slice(0, 16)}`);
  if (existsSync(program)) return program;
  mkdirSync(folder, { recursive: true });
  const partial = `${program}.${crypto.randomUUID()}`;
  try {
    const flags = await openSlideFlags();
    await run("cc", "-O2", SOURCE, "-o", partial, ...flags, "-lpthread");
  } catch (cause) {
    throw new Error(
      `Cannot build OpenSlide's comparison program: ${(cause as Error).message}; ` +
        `on Debian: apt-get install gcc pkg-config libopenslide-dev, or set OPENSLIDE_PREFIX`,
      { cause },
    );
  }
  renameSync(partial, program);
  return program;
}

/** What compiles and links with it, and finds it when the program runs. */
async function openSlideFlags(): Promise<string[]> {
  const folders = ["lib", "lib64", `lib/${Deno.build.arch}-linux-gnu`]
    .map((lib) => join(PREFIX ?? "", lib, "pkgconfig"));
  // Before the system's own, where the libraries that it needs are.
  const env: Record<string, string> = PREFIX === undefined
    ? {}
    : { PKG_CONFIG_PATH: folders.join(":") };
  const ask = async (...args: string[]) => {
    const command = new Deno.Command("pkg-config", { args: [...args, "openslide"], env });
    const { success, stdout } = await command.output();
    if (!success) throw new Error("pkg-config finds no openslide");
    return new TextDecoder().decode(stdout).trim();
  };
  const version = await ask("--modversion"), lib = await ask("--variable=libdir");
  if (PREFIX !== undefined && !lib.startsWith(PREFIX)) {
    throw new Error(`there is none in "${PREFIX}"`);
  }
  return [
    ...(await ask("--cflags", "--libs")).split(/\s+/),
    // Old tags, since what OpenSlide itself links with lies there too.
    ...(PREFIX === undefined ? [] : [`-Wl,--disable-new-dtags,-rpath,${lib}`]),
    ...(Number.parseInt(version) >= 4 ? ["-DOPENSLIDE_4"] : []),
  ];
}

async function run(command: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args }).output();
  const text = new TextDecoder();
  if (!success) throw new Error(text.decode(stderr).trim() || `${command} failed`);
  return text.decode(stdout);
}

/** Runs one of the program's timed commands. @returns seconds and how many were read. */
export async function timePeer(
  program: string,
  ...args: (string | number)[]
): Promise<{ seconds: number; count: number }> {
  const [seconds, count] = (await run(program, ...args.map(String))).trim().split(" ").map(Number);
  return { seconds: seconds!, count: count! };
}

/** A slide that OpenSlide has open, in a process of its own. */
export class OpenSlidePeer {
  readonly #process: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #rest: Uint8Array = new Uint8Array();

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#writer = process.stdin.getWriter();
    this.#reader = process.stdout.getReader();
  }

  /** @returns undefined where OpenSlide does not read the file. */
  static async open(program: string, path: string): Promise<OpenSlidePeer | undefined> {
    const peer = new OpenSlidePeer(
      new Deno.Command(program, {
        args: ["serve", path],
        stdin: "piped",
        stdout: "piped",
        stderr: "null",
      }).spawn(),
    );
    try {
      await peer.levels();
      return peer;
    } catch {
      await peer.close();
      return undefined;
    }
  }

  async levels(): Promise<{ widthPx: number; heightPx: number; downsample: number }[]> {
    await this.#ask("levels");
    const [count, ...values] = (await this.#line()).split(" ").map(Number);
    return Array.from({ length: count! }, (_, i) => ({
      widthPx: values[3 * i]!,
      heightPx: values[3 * i + 1]!,
      downsample: values[3 * i + 2]!,
    }));
  }

  /** Names of the associated pictures, with their sizes. */
  async associated(): Promise<Map<string, { widthPx: number; heightPx: number }>> {
    await this.#ask("associated");
    const count = Number(await this.#line());
    const sizes = new Map<string, { widthPx: number; heightPx: number }>();
    for (let i = 0; i < count; i++) {
      const [, , name, widthPx, heightPx] = (await this.#line()).match(/^(\d+) (.*) (\d+) (\d+)$/)!;
      sizes.set(name!, { widthPx: Number(widthPx), heightPx: Number(heightPx) });
    }
    return sizes;
  }

  /** An associated picture's RGB over white. @throws {Error} with OpenSlide's words where it cannot. */
  async picture(name: string, pixels: number): Promise<Uint8Array> {
    await this.#ask(`picture ${name}`);
    return await this.#pixels(pixels);
  }

  /** The profile of level 0, empty where there is none, and before OpenSlide 4. */
  async icc(): Promise<Uint8Array> {
    await this.#ask("icc");
    return await this.#bytes(Number(await this.#line()));
  }

  /** OpenSlide's version, such as "3.4.1". */
  async version(): Promise<string> {
    await this.#ask("version");
    return await this.#line();
  }

  async properties(): Promise<Record<string, string>> {
    await this.#ask("properties");
    const count = Number(await this.#line());
    const all: Record<string, string> = {};
    const text = async () => {
      let length = "";
      for (;;) {
        const byte = String.fromCharCode((await this.#bytes(1))[0]!);
        if (byte === " " && length !== "") break;
        length += byte.trim();
      }
      return new TextDecoder().decode(await this.#bytes(Number(length)));
    };
    for (let i = 0; i < count; i++) {
      const name = await text();
      all[name] = await text();
    }
    return all;
  }

  /** RGB over white `[heightPx, widthPx, 3]`. @throws {Error} with OpenSlide's words where it cannot. */
  async region(
    level: number,
    x0Px: number,
    y0Px: number,
    widthPx: number,
    heightPx: number,
  ): Promise<Uint8Array> {
    await this.#ask(`region ${level} ${x0Px} ${y0Px} ${widthPx} ${heightPx}`);
    return await this.#pixels(widthPx * heightPx);
  }

  async #pixels(count: number): Promise<Uint8Array> {
    const status = await this.#line();
    if (status !== "ok") throw new Error(status.replace(/^error /, ""));
    return await this.#bytes(count * 3);
  }

  async close(): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#reader.cancel().catch(() => {});
    await this.#process.status;
  }

  async #ask(line: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(line + "\n"));
  }

  async #more(): Promise<void> {
    const { value, done } = await this.#reader.read();
    if (done) throw new Error("OpenSlide's program has ended");
    const both = new Uint8Array(this.#rest.length + value.length);
    both.set(this.#rest);
    both.set(value, this.#rest.length);
    this.#rest = both;
  }

  async #line(): Promise<string> {
    let end;
    while ((end = this.#rest.indexOf(10)) < 0) await this.#more();
    const line = new TextDecoder().decode(this.#rest.subarray(0, end));
    this.#rest = this.#rest.subarray(end + 1);
    return line;
  }

  async #bytes(count: number): Promise<Uint8Array> {
    const out = new Uint8Array(count);
    let at = 0;
    for (;;) {
      const part = this.#rest.subarray(0, count - at);
      out.set(part, at);
      this.#rest = this.#rest.subarray(part.length);
      at += part.length;
      if (at === count) return out;
      await this.#more();
    }
  }
}
