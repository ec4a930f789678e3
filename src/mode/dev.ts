/** Development: a mounted slide, or the sample, to a picture and printed results. No network. */

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { DevelopmentConfig } from "../config.ts";
import { ConfigError, SlideFormatError, SourceError } from "../errors.ts";
import { isPlaceholder } from "../classifier/grid.ts";
import { oneLine } from "../log.ts";
import { type FeatureCollection, type Results, serializeResults } from "../results/schema.ts";
import { MemorySource, type Source } from "../slide/source.ts";
import type { Run } from "./run.ts";

/** A longer document is not printed: it is in result.json. */
const MOST_PRINTED = 1 << 20;

/**
 * Runs the smoke test, classifies the input and writes result.json and result.png, printing what
 * the original template prints.
 * @throws {ConfigError} for INPUT and OUTPUT_DIR, and what `Run` throws.
 */
export async function development(config: DevelopmentConfig, run: Run): Promise<void> {
  run.checkOutputDir();
  const say = (line: string) => run.print(line + "\n");
  const gpu = await run.startGpu();
  const input = await findInput(config, run);
  say(
    `Processing image: ${
      typeof input === "string"
        ? oneLine(input)
        : `${input.location} (no slide in "${config.inputDir}")`
    }`,
  );
  const results = await run.classify(input, gpu);
  const count = results.scanResults.reduce((sum, { geojson }) => sum + countFindings(geojson), 0);
  const what = count === 1 ? "annotation" : "annotations";
  say(`Generated ${count} ${isPlaceholder(results) ? "fake " : ""}${what}`);
  await run.writeOutputs(input, results);
  say(`Visualization saved to ${join(config.outputDir, "result.png")}`);
  say(`Results JSON: ${print(results, join(config.outputDir, "result.json"))}`);
  gpu?.close();
}

/** Every point of a MultiPoint is a finding, everything else is one as a whole. */
function countFindings(geojson: FeatureCollection | undefined): number {
  return (geojson?.features ?? []).reduce(
    (sum, { geometry }) =>
      sum + (geometry?.type === "MultiPoint" ? geometry.coordinates.length : 1),
    0,
  );
}

function print(results: Results, path: string): string {
  let text = "";
  for (const piece of serializeResults(results)) {
    text += piece;
    if (text.length > MOST_PRINTED) return `too long to print, see ${path}`;
  }
  return text;
}

/** INPUT, else the first slide in INPUT_DIR by name, else the sample. */
async function findInput(
  { input, inputDir, inputDirIsGiven }: DevelopmentConfig,
  run: Run,
): Promise<string | Source> {
  if (input !== undefined) {
    try {
      await run.open(input);
      return input;
    } catch (cause) {
      if (!(cause instanceof SourceError)) throw cause;
      throw new ConfigError(`${cause.message}; INPUT must name a slide`, "INPUT", { cause });
    }
  }
  const files = filesIn(inputDir, inputDirIsGiven);
  for (const path of files) {
    try {
      await run.open(path);
      return path;
    } catch (error) {
      // Something else that lies there is passed over; a slide that is broken is not.
      if (!(error instanceof SlideFormatError) || error.format !== undefined) throw error;
      run.log.info(`${error.message}: passed over`);
    }
  }
  if (files.length > 0) {
    throw new SlideFormatError(
      `Cannot find a slide in "${inputDir}": none of its ${files.length} files is one`,
      { path: inputDir },
    );
  }
  const { encodeSample } = await import("../sample/sample.ts");
  return new MemorySource(encodeSample().svs, "the built-in synthetic sample");
}

/**
 * Regular files of a folder by name, hidden ones left out; none where there is no such folder,
 * unless somebody named it.
 */
function filesIn(folder: string, isGiven: boolean): string[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (cause) {
    if (!isGiven && (cause as { code?: string }).code === "ENOENT") return [];
    throw new ConfigError(
      `Cannot look into INPUT_DIR "${folder}": ${(cause as Error).message}`,
      "INPUT_DIR",
      { cause },
    );
  }
  return names.filter((name) => !name.startsWith(".")).sort().map((name) => join(folder, name))
    .filter(isFile);
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false; // A link to nowhere or to itself.
  }
}
