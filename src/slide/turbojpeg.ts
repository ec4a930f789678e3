/**
 * libjpeg-turbo through its own C API, TurboJPEG 3 (turbojpeg.h), called on threads of Deno's.
 *
 * The library is the one that the npm package @julusian/jpeg-turbo ships. Its JavaScript side is
 * passed by because it asks for the fast, inexact inverse DCT (TJFLAG_FASTDCT), whose pixels differ
 * from OpenSlide's by up to 2, and takes a thread of JavaScript for every core.
 */

import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const SYMBOLS = {
  tj3Init: { parameters: ["i32"], result: "pointer" },
  tj3Set: { parameters: ["pointer", "i32", "i32"], result: "i32" },
  tj3GetErrorStr: { parameters: ["pointer"], result: "pointer" },
  tj3Destroy: { parameters: ["pointer"], result: "void" },
  tj3SetScalingFactor: { parameters: ["pointer", { struct: ["i32", "i32"] }], result: "i32" },
  tj3Get: { parameters: ["pointer", "i32"], result: "i32" },
  tj3DecompressHeader: { parameters: ["pointer", "buffer", "usize"], result: "i32" },
  decompressHere: {
    name: "tj3Decompress8",
    parameters: ["pointer", "buffer", "usize", "buffer", "i32", "i32"],
    result: "i32",
  },
  decompressThere: {
    name: "tj3Decompress8",
    parameters: ["pointer", "buffer", "usize", "buffer", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
} as const satisfies Deno.ForeignLibraryInterface;

// Opened with the module: 4 ms, and a thing of the process, not of a slide.
const library = openLibrary();

function openLibrary() {
  if (Deno.build.os !== "linux") return undefined;
  const arch = ({ x86_64: "x64", aarch64: "arm64" } as const)[Deno.build.arch as "x86_64"];
  try {
    const root = dirname(
      createRequire(import.meta.url).resolve("@julusian/jpeg-turbo/package.json"),
    );
    const file = join(root, "prebuilds", `jpeg-turbo-linux-${arch}`, "libturbojpeg.so.0");
    return Deno.dlopen(file, SYMBOLS).symbols;
  } catch {
    return undefined; // Another platform, or another libc: the caller has a slower way.
  }
}

/** Whether the library could be loaded. */
export const hasTurboJpeg = library !== undefined;

const TJINIT_DECOMPRESS = 1;
const TJPF_RGB = 0;
const TJPARAM_JPEGWIDTH = 5;
const TJPARAM_JPEGHEIGHT = 6;
const TJPARAM_SCANLIMIT = 13;
/** Scans of a progressive picture; encoders write about ten, and a bomb thousands. */
const MAX_SCANS = 100;

/** What threads read and write now: nothing else keeps it from the garbage collector. */
const inUse = new Set<readonly ArrayBuffer[]>();

/**
 * Decodes a JPEG stream of a known size to RGB `[heightPx, widthPx, 3]`, on a thread, or with `here`
 * on the calling one; with a reduction, to that many times fewer rows and columns, rounded up. Each takes a decompressor of its own, for 1 µs, since one that was used before
 * lends a stream that lacks tables those of the last.
 * @throws {Error} with libjpeg's words where the stream is damaged, also where a picture came out;
 *   where its size is another; where there is no library or no memory.
 */
export async function decodeJpeg(
  stream: Uint8Array<ArrayBuffer>,
  widthPx: number,
  heightPx: number,
  here: boolean,
  reduction: 1 | 2 | 4 | 8 = 1,
): Promise<Uint8Array<ArrayBuffer>> {
  if (library === undefined) throw new Error("libjpeg-turbo cannot be loaded here");
  const handle = library.tj3Init(TJINIT_DECOMPRESS);
  if (handle === null) throw new Error("libjpeg-turbo cannot start");
  const message = () => {
    const text = library.tj3GetErrorStr(handle);
    return text === null ? "unknown error" : Deno.UnsafePointerView.getCString(text);
  };
  const rgb = new Uint8Array(Math.ceil(widthPx / reduction) * Math.ceil(heightPx / reduction) * 3);
  const buffers = [stream.buffer, rgb.buffer];
  inUse.add(buffers);
  try {
    library.tj3Set(handle, TJPARAM_SCANLIMIT, MAX_SCANS);
    const length = BigInt(stream.length);
    // The library writes as much as the header says, so it is asked itself what it reads there.
    if (library.tj3DecompressHeader(handle, stream, length) !== 0) throw new Error(message());
    const width = library.tj3Get(handle, TJPARAM_JPEGWIDTH);
    const height = library.tj3Get(handle, TJPARAM_JPEGHEIGHT);
    if (width !== widthPx || height !== heightPx) {
      throw new Error(`its picture is ${width} × ${height}, not ${widthPx} × ${heightPx}`);
    }
    const factor = Int32Array.of(1, reduction);
    if (
      reduction !== 1 && library.tj3SetScalingFactor(handle, new Uint8Array(factor.buffer)) !== 0
    ) throw new Error(message());
    if (!here) {
      if (await library.decompressThere(handle, stream, length, rgb, 0, TJPF_RGB) === 0) return rgb;
      // The words of a warning are kept for the thread that met it, and here stand those of an earlier
      // one, of another stream: it is decoded once more.
      return await decodeJpeg(stream, widthPx, heightPx, true, reduction);
    }
    if (library.decompressHere(handle, stream, length, rgb, 0, TJPF_RGB) !== 0) {
      // Padding before the end harms nothing. The first warning is the one that is kept, so that
      // after padding elsewhere there may be worse.
      const text = message();
      if (!text.endsWith("extraneous bytes before marker 0xd9")) throw new Error(text);
    }
    return rgb;
  } finally {
    library.tj3Destroy(handle);
    inUse.delete(buffers);
  }
}
