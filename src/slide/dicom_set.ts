/** Where a slide's DICOM instances lie: beside each other, in a folder or in a zip. */

import { readdirSync, type Stats, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { SourceError } from "../errors.ts";
import { openDicom, openDicomSet } from "./dicom.ts";
import { isDicom } from "./dicom_instance.ts";
import type { SlideParts } from "./region.ts";
import { FileSource, type Source } from "./source.ts";
import { openZip } from "./zip.ts";

/** Far more than the instances of a slide; what a folder holds beyond is somebody's disk. */
const MAX_FILES = 4096;
/** Exports put instances into folders by study and series. */
const MAX_FOLDER_DEPTH = 4;

/**
 * The slide of a DICOM file, with the instances of its series that lie beside it.
 * @param path the file's; undefined where it lies in no folder.
 * @throws as openDicom does.
 */
export async function openDicomFile(source: Source, path: string | undefined): Promise<SlideParts> {
  if (path === undefined) return await openDicom(source);
  return await openDicom(source, openSiblings(resolve(path)));
}

/**
 * The slide in a folder and those in it.
 * @throws as openDicom does; {SourceError} where the folder cannot be read or holds too many files.
 */
export async function openDicomFolder(folder: string): Promise<SlideParts> {
  return await openDicomSet(openFiles(filesIn(folder, MAX_FOLDER_DEPTH)), folder);
}

/**
 * The slide in a zip.
 * @param workDir where deflated files are written until the slide is closed.
 * @throws as openDicom and openZip do.
 */
export async function openDicomZip(
  source: Source,
  workDir: string | undefined,
): Promise<SlideParts> {
  const archive = await openZip(source, { workDir, headBytes: 132, isWanted: isDicom });
  try {
    const parts = await openDicomSet(archive.sources, source.location);
    return {
      ...parts,
      async close() {
        await parts.close();
        await archive.close();
      },
    };
  } catch (error) {
    await archive.close();
    throw error;
  }
}

/** Whether a path is a folder's; not where it cannot be told, of which opening it says why. */
export function isFolder(path: string): boolean {
  return look(path)?.isDirectory() ?? false;
}

/** What lies at a path; undefined where nothing does, or where it may not be looked at, such as links in circles. */
function look(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** Files beside one, as far as they may be read: most have nothing to do with it. */
function* openSiblings(path: string): Iterable<Source> {
  const tryTo = <T>(what: () => T) => {
    try {
      return what();
    } catch (error) {
      if (error instanceof SourceError) return undefined;
      throw error;
    }
  };
  for (const file of tryTo(() => filesIn(dirname(path), 0)) ?? []) {
    const source = file === path ? undefined : tryTo(() => FileSource.open(file));
    if (source !== undefined) yield source;
  }
}

/** Opens one after the other, when it is asked for. */
function* openFiles(paths: Iterable<string>): Iterable<Source> {
  for (const path of paths) yield FileSource.open(path);
}

/** Regular files of a folder and of the folders in it, by name, hidden ones left out. */
function filesIn(folder: string, depth: number): string[] {
  const files: string[] = [];
  const walk = (folder: string, depth: number) => {
    let names: string[];
    try {
      names = readdirSync(folder).sort();
    } catch (cause) {
      throw new SourceError(
        `Cannot look into the folder "${folder}": ${(cause as Error).message}`,
        { location: folder },
        { cause },
      );
    }
    for (const name of names) {
      if (name.startsWith(".")) continue;
      const path = join(folder, name);
      const stat = look(path);
      if (stat?.isDirectory() && depth > 0) walk(path, depth - 1);
      if (stat?.isFile() && files.push(path) > MAX_FILES) {
        throw new SourceError(
          `Cannot look through the folder "${folder}": it holds more than ${MAX_FILES} files`,
          { location: folder },
        );
      }
    }
  };
  walk(folder, depth);
  return files;
}
