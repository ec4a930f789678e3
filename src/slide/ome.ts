/**
 * OME-TIFF: a TIFF whose first ImageDescription is OME-XML.
 *
 * «OME-TIFF specification» and «OME Data Model» 2016-06 (Open Microscopy Environment). An Image of the
 * XML is a series; its TiffData say which directory holds a plane. The slide is the largest series
 * that is not named a label, macro or thumbnail, its plane at Z, C and T 0. Its smaller levels are
 * in SubIFDs (since 6.0 of Bio-Formats), series of the same shape, or directories marked as reduced
 * (both before).
 *
 * Where channels are planes of their own, as in fluorescence, the first is read, as grey: so does
 * OpenSlide, to which such a file is a generic TIFF.
 */

import { SlideFormatError, UnsupportedError } from "../errors.ts";
import { formatDouble } from "./properties.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { Source } from "./source.ts";
import { resolution, TAG, type TiffDirectory, tiffProperties } from "./tiff.ts";
import { readXml, type XmlNode } from "./xml.ts";

/** Micrometres of a unit of length (OME Data Model, UnitsLength); pixels and reference frames have none. */
const MICROMETRES: ReadonlyMap<string, number> = new Map([
  ["pm", 1e-6],
  ["Å", 1e-4],
  ["nm", 1e-3],
  ["um", 1], // Not of the model, but written.
  ["µm", 1], // The micro sign,
  ["μm", 1], // and the Greek letter.
  ["mm", 1e3],
  ["cm", 1e4],
  ["dm", 1e5],
  ["m", 1e6],
  ["thou", 25.4],
  ["in", 25_400],
]);
/** Series whose sizes differ by less are no levels of each other. */
const LEAST_DOWNSAMPLE = 1.5;
/** How much the downsamples of both axes may differ: each level is rounded to whole pixels. */
const MAX_SKEW = 0.02;

/** Whether the directories are those of an OME-TIFF. */
export function isOme([first]: readonly TiffDirectory[]): boolean {
  const description = first?.text(TAG.ImageDescription)?.trimEnd() ?? "";
  return description.startsWith("<") && /<\/(\w+:)?OME>$/.test(description.slice(-80));
}

/** A series of the XML with the directory of its first plane. */
interface Series {
  readonly name: string;
  readonly image: XmlNode;
  readonly pixels: XmlNode;
  readonly directory: TiffDirectory;
}

/**
 * The slide in the directories of an OME-TIFF.
 * @throws {SlideFormatError} where its XML is broken or does not fit its directories;
 *   {UnsupportedError} where its XML or pixels are in other files; {SourceError}.
 */
export async function openOme(
  source: Source,
  directories: readonly TiffDirectory[],
): Promise<SlideParts> {
  const first = directories[0]!;
  const root = readXml(first.text(TAG.ImageDescription) ?? "");
  if (root?.name !== "OME") throw broken(source, "its description is no OME-XML");
  if (root.find("BinaryOnly") !== undefined) throw elsewhere(source, "its OME-XML");
  const all = readSeries(source, root, directories);
  const named = (series: Series) =>
    (["label", "macro", "thumbnail"] as const).find((name) =>
      series.name.toLowerCase().includes(name)
    );
  const area = ({ directory }: Series) => directory.widthPx * directory.heightPx;
  const candidates = all.some((series) => named(series) === undefined)
    ? all.filter((series) => named(series) === undefined)
    : all.slice(0, 1);
  const main = candidates.reduce((a, b) => area(b) > area(a) ? b : a);

  const associated = new Map<string, TileGrid>();
  for (const series of all) {
    const name = named(series);
    if (name !== undefined && series !== main && !associated.has(name)) {
      associated.set(name, series.directory);
    }
  }
  const levels = await pyramidOf(
    main,
    candidates,
    directories,
    new Set(all.map(({ directory }) => directory)),
  );
  const properties = tiffProperties(first);
  const ofTags = resolution(main.directory, properties);
  const mppX = readLength(main.pixels, "X") ?? ofTags.mppX;
  const mppY = readLength(main.pixels, "Y") ?? ofTags.mppY;
  if (mppX !== undefined) properties["openslide.mpp-x"] = formatDouble(mppX);
  if (mppY !== undefined) properties["openslide.mpp-y"] = formatDouble(mppY);
  const objectivePower = readObjective(root, main.image);
  if (objectivePower !== undefined) {
    properties["openslide.objective-power"] = formatDouble(objectivePower);
  }
  return {
    format: "ome-tiff",
    levels,
    properties: { vendor: "ome-tiff", mppX, mppY, objectivePower, all: properties },
    associated,
    background: [255, 255, 255],
    icc: await main.directory.profile(),
    close: () => source.close(),
  };
}

/** The series of the XML that have pixels in this file. */
function readSeries(
  source: Source,
  root: XmlNode,
  directories: readonly TiffDirectory[],
): Series[] {
  const uuid = root.attribute("UUID");
  let next = 0;
  const series = root.children("Image").flatMap((image): Series[] => {
    const pixels = image.find("Pixels");
    if (pixels === undefined) return [];
    const planes = pixels.children("TiffData");
    const at = (node: XmlNode, name: string) => node.number(name) ?? 0;
    // Without any, directories follow in the order of the series.
    const plane = planes.length === 0
      ? undefined
      : planes.find((node) =>
        at(node, "FirstZ") === 0 && at(node, "FirstC") === 0 && at(node, "FirstT") === 0
      ) ?? planes[0];
    const of = plane?.find("UUID")?.text.trim();
    if (of !== undefined && uuid !== undefined && of !== uuid) return [];
    const index = plane === undefined ? next : at(plane, "IFD");
    next = index + countPlanes(pixels);
    const directory = directories[index];
    const widthPx = pixels.number("SizeX"), heightPx = pixels.number("SizeY");
    if (directory === undefined) {
      throw broken(source, `its XML names directory ${index}, and there are ${directories.length}`);
    }
    if (directory.widthPx !== widthPx || directory.heightPx !== heightPx) {
      throw broken(
        source,
        `its XML says that directory ${index} is ${widthPx} × ${heightPx} pixels, ` +
          `and it is ${directory.widthPx} × ${directory.heightPx}`,
      );
    }
    return [{ name: image.attribute("Name") ?? "", image, pixels, directory }];
  });
  if (series.length === 0) {
    if (root.find("Image", "Pixels") === undefined) {
      throw broken(source, "its OME-XML has no image");
    }
    throw elsewhere(source, "its pixels");
  }
  return series;
}

/** Directories that a series takes: samples of a channel share one. */
function countPlanes(pixels: XmlNode): number {
  const samples = pixels.find("Channel")?.number("SamplesPerPixel") ?? 1;
  const size = (name: string) => pixels.number(name) ?? 1;
  return Math.max(1, size("SizeZ") * size("SizeT") * Math.ceil(size("SizeC") / samples));
}

/** The levels of a series, largest first, from where its file keeps them. */
async function pyramidOf(
  main: Series,
  candidates: readonly Series[],
  directories: readonly TiffDirectory[],
  known: ReadonlySet<TiffDirectory>,
): Promise<TiffDirectory[]> {
  const top = main.directory;
  const isSmaller = (level: TiffDirectory) => {
    const x = top.widthPx / level.widthPx, y = top.heightPx / level.heightPx;
    // A pixel more or less is much where there are few.
    const tolerance = MAX_SKEW + 1 / Math.min(level.widthPx, level.heightPx);
    return Math.min(x, y) >= LEAST_DOWNSAMPLE && Math.abs(x / y - 1) <= tolerance;
  };
  const isSameScene = ({ directory, pixels }: Series) => {
    const mpp = readLength(pixels, "X"), mpp0 = readLength(main.pixels, "X");
    if (mpp === undefined || mpp0 === undefined) return true;
    // Some writers repeat the size of level 0.
    return mpp === mpp0 || Math.abs(mpp / mpp0 / (top.widthPx / directory.widthPx) - 1) < 0.05;
  };
  const sources = [
    await top.subDirectories(),
    candidates.filter(isSameScene).map(({ directory }) => directory),
    directories.filter((level) => level.subfileType & 1 && !known.has(level)),
  ];
  const levels = sources.map((found) => found.filter(isSmaller)).find(({ length }) => length > 0);
  const byWidth = new Map([top, ...levels ?? []].map((level) => [level.widthPx, level]));
  return [...byWidth.values()].sort((a, b) => b.widthPx - a.widthPx);
}

/** Micrometres of a pixel along an axis. */
function readLength(pixels: XmlNode, axis: "X" | "Y"): number | undefined {
  const size = pixels.number(`PhysicalSize${axis}`);
  const unit = MICROMETRES.get(pixels.attribute(`PhysicalSize${axis}Unit`) ?? "µm");
  return size !== undefined && size > 0 && unit !== undefined ? size * unit : undefined;
}

/** The magnification that the objective of an image has by its maker. */
function readObjective(root: XmlNode, image: XmlNode): number | undefined {
  const id = image.find("ObjectiveSettings")?.attribute("ID");
  const power = root.children("Instrument")
    .flatMap((instrument) => instrument.children("Objective"))
    .find((objective) => id !== undefined && objective.attribute("ID") === id)
    ?.number("NominalMagnification");
  return power !== undefined && power > 0 ? power : undefined;
}

function broken(source: Source, what: string): SlideFormatError {
  return new SlideFormatError(`Cannot read the OME-TIFF "${source.location}": ${what}`, {
    path: source.location,
    format: "ome-tiff",
  });
}

function elsewhere(source: Source, what: string): UnsupportedError {
  return new UnsupportedError(
    `Cannot read the OME-TIFF "${source.location}": ${what} in another file is not supported`,
    "OME-TIFF in several files",
  );
}
