/** Opens a slide by its content: asks each format in turn whether it is theirs. */

import { fileURLToPath } from "node:url";
import { Secret } from "../secrets.ts";
import { SlideFormatError, SourceError } from "../errors.ts";
import { isAperio, openAperio } from "./aperio.ts";
import { isDicom } from "./dicom_instance.ts";
import { isFolder, openDicomFile, openDicomFolder, openDicomZip } from "./dicom_set.ts";
import { isGenericTiff, openGenericTiff } from "./generic.ts";
import { isHamamatsu, openHamamatsu, readNdpi } from "./hamamatsu.ts";
import { isPhilips, openPhilips } from "./philips.ts";
import { isLeica, openLeica } from "./leica.ts";
import { isOme, openOme } from "./ome.ts";
import { openPicture, pictureFormat } from "./picture.ts";
import { mistakenFor, refuseFolder, refuseKnown } from "./refused.ts";
import { type SlideParts, TiledSlide, type TiledSlideOptions } from "./region.ts";
import type { Slide } from "./slide.ts";
import { FileSource, type Source } from "./source.ts";
import { makeSrgbTable } from "./srgb.ts";
import type { HttpSourceOptions } from "./source_http.ts";
import { readTiff, type TiffDirectory } from "./tiff.ts";
import { isTrestle, openTrestle } from "./trestle.ts";
import { isVentana, openVentana } from "./ventana.ts";
import { isZip } from "./zip.ts";

/** TIFF's dialects, the most particular first. */
const TIFF_FORMATS: readonly {
  is(directories: readonly TiffDirectory[]): boolean;
  open(source: Source, directories: readonly TiffDirectory[]): Promise<SlideParts>;
}[] = [
  { is: isHamamatsu, open: openHamamatsu },
  { is: isAperio, open: openAperio },
  { is: isPhilips, open: openPhilips },
  { is: isLeica, open: openLeica },
  { is: isVentana, open: openVentana },
  { is: isTrestle, open: openTrestle },
  { is: isOme, open: openOme },
  { is: isGenericTiff, open: openGenericTiff },
];

export interface SlideOptions extends TiledSlideOptions {
  /** Where files of a zip are unpacked and large pictures decoded; the system's temporary folder where absent. */
  readonly workDir?: string;
  /** How a URL is read. */
  readonly http?: HttpSourceOptions;
  /**
   * "raw" (default): pixels are what the file holds, as OpenSlide's are. "srgb": those of levels are
   * converted to sRGB by the slide's ICC profile, tile by tile, before a scale is made of them; a slide
   * without a profile stays as it is, and so do background, associated pictures and raw tiles.
   */
  readonly colour?: "raw" | "srgb";
}

/**
 * Opens a slide from a path, a `file:`, `http:` or `https:` URL, or a source, which the slide closes
 * with itself; a source is closed too where it cannot be opened. A URL may be a Secret, a path that of
 * a folder or a zip of DICOM instances.
 * @throws {SourceError} where the bytes cannot be had; {SlideFormatError} where they are no slide or
 *   a broken one, or its profile is broken and wanted; {UnsupportedError} where they are of a kind
 *   that is not read yet.
 */
export async function openSlide(
  location: string | URL | Secret | Source,
  options: SlideOptions = {},
): Promise<Slide> {
  const path = pathOf(location);
  if (path !== undefined && isFolder(path)) {
    refuseFolder(path);
    return await makeSlide(await openDicomFolder(path), path, options);
  }
  const source = await openSource(location, options);
  return await makeSlide(await openParts(source, path, options), source.location, options);
}

async function makeSlide(
  parts: SlideParts,
  path: string,
  options: SlideOptions,
): Promise<Slide> {
  try {
    const srgb = options.colour === "srgb" && parts.icc !== undefined
      ? await makeSrgbTable(parts.icc, path)
      : undefined;
    return new TiledSlide(parts, options, srgb);
  } catch (error) {
    await parts.close();
    throw error;
  }
}

/** What the format of a source finds in it. The source is closed where this throws. */
async function openParts(
  source: Source,
  path: string | undefined,
  { workDir }: SlideOptions,
): Promise<SlideParts> {
  try {
    if (source.sizeBytes === 0) {
      throw new SlideFormatError(`Cannot open "${source.location}": it is empty`, {
        path: source.location,
      });
    }
    const head = await source.read(0, 132);
    // Before TIFF, since a file may be both (PS3.10 §7.1), as OpenSlide takes it.
    if (isDicom(head)) return await openDicomFile(source, path);
    if (isZip(head)) return await openDicomZip(source, workDir);
    const picture = pictureFormat(head);
    const directories = picture === undefined
      ? await readNdpi(source) ?? await readTiff(source)
      : undefined;
    if (directories === undefined) await refuseKnown(source);
    if (picture !== undefined) return await openPicture(source, picture, workDir);
    const format = directories && TIFF_FORMATS.find(({ is }) => is(directories));
    if (directories === undefined || format === undefined) {
      const what = mistakenFor(head) ?? "it is no TIFF, DICOM, zip, PNG, JPEG or WebP file";
      throw new SlideFormatError(`Cannot open "${source.location}": ${what}`, {
        path: source.location,
      });
    }
    return await format.open(source, directories);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/**
 * The path that a location names; undefined for other URLs and for sources.
 * @throws {SourceError} for text that is a URL of another protocol.
 */
function pathOf(location: string | URL | Secret | Source): string | undefined {
  if (typeof location === "string" && !/^(https?|file):\/\//i.test(location)) {
    const [, protocol] = /^([a-z][a-z0-9+.-]+:)\/\//i.exec(location) ?? [];
    if (protocol === undefined) return location;
    throw new SourceError(
      `Cannot open a URL of "${protocol}": it must be a path, or a URL of file, http or https`,
      { location: protocol },
    );
  }
  const url = typeof location === "string" || location instanceof URL
    ? URL.parse(location)
    : undefined;
  return url?.protocol === "file:" ? fileURLToPath(url) : undefined;
}

async function openSource(
  location: string | URL | Secret | Source,
  { http }: SlideOptions,
): Promise<Source> {
  if (typeof location === "object" && "read" in location) return location;
  const path = pathOf(location);
  if (path !== undefined) return FileSource.open(path);
  const url = URL.parse(location instanceof Secret ? location.reveal() : location);
  // Not quoted: its query may be a signature.
  if (url === null) throw new SourceError("Cannot open a URL that is malformed", { location: "" });
  // Imported when a URL is met: files need no HTTP.
  const { HttpSource } = await import("./source_http.ts");
  return await HttpSource.open(url, http);
}
