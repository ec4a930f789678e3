/** `deno task region SLIDE …`: a rectangle of a slide as a PNG. */

import { parseArgs } from "node:util";
import { ConfigError } from "../errors.ts";
import { writeWhole } from "../report/files.ts";
import { openSlide } from "../slide/open.ts";
import type { LevelRegion, Picture } from "../slide/slide.ts";
import { parsing, runTool } from "./tool.ts";

const USAGE =
  "deno task region SLIDE [--level N] [--x X] [--y Y] --width W --height H [--colour C] --out PNG";
const HELP =
  `Reads a rectangle of a slide into a PNG. What lies outside the slide is its background.

Usage: ${USAGE}

  SLIDE       a path
  --level N   0, the largest, where left out
  --x X       left and top in pixels of level 0, may be negative; 0 where left out
  --y Y
  --width W   size in pixels of the level
  --height H
  --colour C  raw, where left out: pixels as the file holds them; srgb: converted by its ICC profile
  --out PNG   where to write; appears whole or not at all
  -h, --help  this text
`;

interface Arguments extends LevelRegion {
  readonly path: string;
  readonly colour: "raw" | "srgb";
  readonly out: string;
}

function parse(args: readonly string[]): Arguments | undefined {
  const { values, positionals } = parseArgs({
    args: joinNegative(args),
    allowPositionals: true,
    options: {
      level: { type: "string", default: "0" },
      x: { type: "string", default: "0" },
      y: { type: "string", default: "0" },
      width: { type: "string" },
      height: { type: "string" },
      colour: { type: "string", default: "raw" },
      out: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) return undefined;
  const [path, ...others] = positionals;
  if (path === undefined || others.length > 0) throw new TypeError("SLIDE must be one path");
  if (!values.out) throw new TypeError("--out must name the PNG");
  const { colour } = values;
  if (colour !== "raw" && colour !== "srgb") throw new TypeError("--colour must be raw or srgb");
  const whole = (name: "level" | "x" | "y" | "width" | "height", low: number) => {
    const text = values[name];
    if (text === undefined) throw new TypeError(`--${name} is missing`);
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(value) || value < low) {
      throw new TypeError(
        `--${name} must be a whole number${low === -Infinity ? "" : ` of at least ${low}`}`,
      );
    }
    return value;
  };
  return {
    path,
    colour,
    out: values.out,
    level: whole("level", 0),
    x0Px: whole("x", -Infinity),
    y0Px: whole("y", -Infinity),
    widthPx: whole("width", 1),
    heightPx: whole("height", 1),
  };
}

/** `--x -5` as `--x=-5`: parseArgs takes -5 for an option. */
function joinNegative(args: readonly string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const last = joined.at(-1);
    if (last !== undefined && /^--\w+$/.test(last) && /^-\d+$/.test(arg)) {
      joined[joined.length - 1] = `${last}=${arg}`;
    } else joined.push(arg);
  }
  return joined;
}

/**
 * Reads the rectangle that the arguments name, writes it, and gives what to print.
 * @throws {ConfigError} for arguments that make no sense, and where the PNG cannot be written; what
 *   `openSlide` and `readRegion` throw.
 */
export async function runRegion(args: readonly string[]): Promise<string> {
  const parsed = parsing(USAGE, () => parse(args));
  if (parsed === undefined) return HELP;
  const { path, out, colour, ...region } = parsed;
  const picture = await readRegion(path, colour, region);
  const { default: sharp } = await import("sharp");
  const { widthPx: width, heightPx: height } = picture;
  const png = await sharp(picture.data, { raw: { width, height, channels: 3 } }).png().toBuffer();
  try {
    writeWhole(out, [png]);
  } catch (cause) {
    const [why] = (cause as Error).message.split(", "); // What follows names the partial file.
    throw new ConfigError(`Cannot write "${out}": ${why}`, "--out", { cause });
  }
  return `${width} × ${height} px of level ${region.level} saved to ${out}`;
}

async function readRegion(
  path: string,
  colour: Arguments["colour"],
  region: LevelRegion,
): Promise<Picture> {
  const slide = await openSlide(path, { cacheBytes: 0, colour });
  try {
    return await slide.readRegion(region);
  } catch (cause) {
    // A level that there is not, or a picture too large to hold.
    if (cause instanceof RangeError) throw new ConfigError(cause.message, "arguments", { cause });
    throw cause;
  } finally {
    await slide.close();
  }
}

if (import.meta.main) await runTool(() => runRegion(Deno.args));
