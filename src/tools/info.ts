/** `deno task info SLIDE [--json]`: what a slide is, in words or as JSON. */

import { parseArgs } from "node:util";
import { UnsupportedError } from "../errors.ts";
import { openSlide } from "../slide/open.ts";
import type { Level, Slide } from "../slide/slide.ts";
import { parsing, printable, runTool, table } from "./tool.ts";

const USAGE = "deno task info SLIDE [--json]";
const HELP = `Shows what a slide is: format, size, scale, levels, associated pictures, properties.

Usage: ${USAGE}

  SLIDE       a path
  --json      all of it as one JSON object
  -h, --help  this text
`;

/** What the tool shows; as JSON, what is unknown is null. */
export interface SlideInfo {
  readonly path: string;
  readonly format: string;
  readonly vendor: string;
  readonly widthPx: number;
  readonly heightPx: number;
  readonly mppX: number | null;
  readonly mppY: number | null;
  readonly objectivePower: number | null;
  /** Size of the ICC profile. */
  readonly iccBytes: number | null;
  readonly levels: readonly (Level & Readable<{ readonly compression: string }>)[];
  readonly associated: Readonly<
    Record<string, Readable<{ readonly widthPx: number; readonly heightPx: number }>>
  >;
  readonly properties: Readonly<Record<string, string>>;
}

/** A part of a slide, or why it cannot be read, which is no reason to show nothing of the rest. */
type Readable<T> = T | { readonly error: string };

async function readable<T>(read: () => Promise<T>): Promise<Readable<T>> {
  try {
    return await read();
  } catch (error) {
    return {
      error: error instanceof UnsupportedError
        ? `${error.feature} is not supported`
        : (error as Error).message,
    };
  }
}

/** Reads what there is to know of an open slide. */
export async function describeSlide(path: string, slide: Slide): Promise<SlideInfo> {
  const { vendor, mppX, mppY, objectivePower, all } = slide.properties;
  const levels = [];
  for (const [i, level] of slide.levels.entries()) {
    const tile = await readable(async () => {
      const { compression } = await slide.rawTile(i, 0, 0);
      return { compression };
    });
    levels.push({ ...level, ...tile });
  }
  const associated: Record<string, SlideInfo["associated"][string]> = {};
  for (const [name, decode] of slide.associated) {
    associated[name] = await readable(async () => {
      const { widthPx, heightPx } = await decode();
      return { widthPx, heightPx };
    });
  }
  const { widthPx, heightPx } = slide.levels[0]!;
  return {
    path,
    format: slide.format,
    vendor,
    widthPx,
    heightPx,
    mppX: mppX ?? null,
    mppY: mppY ?? null,
    objectivePower: objectivePower ?? null,
    iccBytes: slide.icc?.length ?? null,
    levels,
    associated,
    properties: Object.fromEntries(Object.entries(all).sort(([a], [b]) => a < b ? -1 : 1)),
  };
}

function inWords(info: SlideInfo): string {
  const { widthPx, heightPx, mppX, mppY, objectivePower, iccBytes } = info;
  const millimetres = mppX === null || mppY === null
    ? ""
    : ` (${(widthPx * mppX / 1000).toFixed(2)} × ${(heightPx * mppY / 1000).toFixed(2)} mm)`;
  const scale = (mpp: number) => String(Number(mpp.toPrecision(6)));
  const associated = Object.entries(info.associated);
  const lines = [
    `slide       ${printable(info.path)}`,
    `format      ${info.format}`,
    `vendor      ${info.vendor}`,
    `size        ${widthPx} × ${heightPx} px${millimetres}`,
    `scale       ${
      mppX === null || mppY === null ? "unknown" : `${scale(mppX)} × ${scale(mppY)} µm/px`
    }`,
    `objective   ${objectivePower === null ? "unknown" : `${objectivePower}×`}`,
    `profile     ${iccBytes === null ? "none" : `ICC, ${iccBytes} bytes`}`,
    "",
    ...table([
      ["level", "size in px", "downsample", "tile in px", "compression"],
      ...info.levels.map((level, i) => [
        String(i),
        `${level.widthPx} × ${level.heightPx}`,
        String(Number(level.downsample.toFixed(4))),
        `${level.tileWidthPx} × ${level.tileHeightPx}`,
        "error" in level ? printable(level.error) : level.compression,
      ]),
    ]),
    "",
    ...associated.length === 0 ? [] : table([
      ["associated", "size in px"],
      ...associated.map(([name, picture]) => [
        name,
        "error" in picture ? printable(picture.error) : `${picture.widthPx} × ${picture.heightPx}`,
      ]),
    ]).concat(""),
    "property",
    ...Object.entries(info.properties).map(([name, value]) =>
      `${printable(name)} = ${printable(value)}`
    ),
  ];
  return lines.join("\n");
}

/**
 * Opens the slide that the arguments name and gives what to print.
 * @throws {ConfigError} for arguments that make no sense; what `openSlide` throws.
 */
export async function runInfo(args: readonly string[]): Promise<string> {
  const { values, path } = parsing(USAGE, () => {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { json: { type: "boolean" }, help: { type: "boolean", short: "h" } },
    });
    if (!values.help && positionals.length !== 1) throw new TypeError("SLIDE must be one path");
    return { values, path: positionals[0] };
  });
  if (values.help || path === undefined) return HELP;
  const slide = await openSlide(path);
  try {
    const info = await describeSlide(path, slide);
    return values.json ? JSON.stringify(info, undefined, 2) : inWords(info);
  } finally {
    await slide.close();
  }
}

if (import.meta.main) await runTool(() => runInfo(Deno.args));
