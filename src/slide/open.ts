/** Opens a slide by its content: asks each format in turn whether it is theirs. */

import { fileURLToPath } from "node:url";
import { SlideFormatError, SourceError, UnsupportedError } from "../errors.ts";
import { isAperio, openAperio } from "./aperio.ts";
import { isGenericTiff, openGenericTiff } from "./generic.ts";
import { isHamamatsu, openHamamatsu, readNdpi } from "./hamamatsu.ts";
import { isPhilips, openPhilips } from "./philips.ts";
import { type SlideParts, TiledSlide, type TiledSlideOptions } from "./region.ts";
import type { Slide } from "./slide.ts";
import { FileSource, type Source } from "./source.ts";
import { readTiff, type TiffDirectory } from "./tiff.ts";

/** TIFF's dialects, the most particular first. */
const TIFF_FORMATS: readonly {
  is(directories: readonly TiffDirectory[]): boolean;
  open(source: Source, directories: readonly TiffDirectory[]): SlideParts | Promise<SlideParts>;
}[] = [
  { is: isHamamatsu, open: openHamamatsu },
  { is: isAperio, open: openAperio },
  { is: isPhilips, open: openPhilips },
  { is: isGenericTiff, open: openGenericTiff },
];

/**
 * Opens a slide from a path, a `file:` URL or a source, which the slide closes with itself; a
 * source is closed too where it cannot be opened.
 * @throws {SourceError} where the bytes cannot be had; {SlideFormatError} where they are no slide or
 *   a broken one; {UnsupportedError} where they are of a kind that is not read yet.
 */
export async function openSlide(
  location: string | URL | Source,
  options: TiledSlideOptions = {},
): Promise<Slide> {
  const source = openSource(location);
  try {
    if (source.sizeBytes === 0) {
      throw new SlideFormatError(`Cannot open "${source.location}": it is empty`, {
        path: source.location,
      });
    }
    const directories = await readNdpi(source) ?? await readTiff(source);
    const format = directories && TIFF_FORMATS.find(({ is }) => is(directories));
    if (directories === undefined || format === undefined) {
      throw new SlideFormatError(
        `Cannot open "${source.location}": it is ${
          directories === undefined ? "no TIFF" : "a TIFF without tiles"
        }, and only Aperio SVS and tiled TIFF are read`,
        { path: source.location, ...(directories === undefined ? {} : { format: "tiff" }) },
      );
    }
    return new TiledSlide(await format.open(source, directories), options);
  } catch (error) {
    await source.close();
    throw error;
  }
}

function openSource(location: string | URL | Source): Source {
  if (typeof location === "object" && "read" in location) return location;
  if (typeof location === "string" && !/^(https?|file):\/\//i.test(location)) {
    return FileSource.open(location);
  }
  const url = URL.parse(location);
  // Not quoted: its query may be a signature.
  if (url === null) throw new SourceError("Cannot open a URL that is malformed", { location: "" });
  if (url.protocol === "file:") return FileSource.open(fileURLToPath(url));
  throw new UnsupportedError(
    `Cannot open "${url.protocol}//${url.host}${url.pathname}": ` +
      `slides are read from files; download it first`,
    "remote slides",
  );
}
