/**
 * Leica SCN: a tiled BigTIFF whose first ImageDescription is XML of Leica's namespace of 2010.
 *
 * OpenSlide's description of the format (openslide-vendor-leica.c). A collection is the whole glass, in
 * nanometres; its images are areas of it, each with a directory for every resolution and z-plane. The
 * one that covers all of the glass is the macro. Levels put the areas where they lie on the glass.
 */

import { SlideFormatError, UnsupportedError } from "../errors.ts";
import { Mosaic } from "./mosaic.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { Source } from "./source.ts";
import { resolution, TAG, type TiffDirectory, tiffProperties } from "./tiff.ts";
import { readXml, type XmlNode } from "./xml.ts";

const NAMESPACES = [
  "http://www.leica-microsystems.com/scn/2010/03/10",
  "http://www.leica-microsystems.com/scn/2010/10/01",
];
/** Areas whose pixels differ in size by more do not fit together. */
const MAX_DIFFERENCE = 0.02;

/** Whether the directories are those of a Leica SCN. */
export function isLeica([first]: readonly TiffDirectory[]): boolean {
  const description = first?.text(TAG.ImageDescription);
  return first !== undefined && first.tiled && description !== undefined &&
    NAMESPACES.some((namespace) => description.includes(`"${namespace}"`));
}

/** An image at one resolution. */
interface Dimension {
  readonly directory: TiffDirectory;
  readonly nmPerPixel: number;
}

/** An area of the glass. */
interface Image {
  readonly node: XmlNode;
  readonly xNm: number;
  readonly yNm: number;
  readonly isMacro: boolean;
  readonly objective: string | undefined;
  readonly illumination: string | undefined;
  /** Of z-plane 0, the widest first. */
  readonly dimensions: readonly Dimension[];
}

/**
 * The slide in the directories of a Leica SCN.
 * @throws {SlideFormatError} where its XML is broken or does not fit its directories;
 *   {UnsupportedError} where it has no brightfield image, or several that do not fit together.
 */
export async function openLeica(
  source: Source,
  directories: readonly TiffDirectory[],
): Promise<SlideParts> {
  const broken = (what: string) =>
    new SlideFormatError(`Cannot read the Leica SCN "${source.location}": ${what}`, {
      path: source.location,
      format: "leica",
    });
  const unsupported = (feature: string) =>
    new UnsupportedError(
      `Cannot read the Leica SCN "${source.location}": ${feature} is not supported`,
      feature,
    );
  /** A whole number in an attribute. */
  const integer = (node: XmlNode, name: string) => {
    const value = node.number(name);
    if (value === undefined || !Number.isSafeInteger(value)) {
      throw broken(`its XML has no whole number ${name} in ${node.name}`);
    }
    return value;
  };
  const root = readXml(directories[0]!.text(TAG.ImageDescription) ?? "");
  const collection = root?.find("collection");
  if (root?.name !== "scn" || collection === undefined) {
    throw broken("its description is no XML of a collection");
  }
  const widthNm = integer(collection, "sizeX"), heightNm = integer(collection, "sizeY");

  const images = collection.children("image").map((node): Image => {
    const view = node.find("view");
    if (view === undefined) throw broken("its XML has an image without a view");
    const [viewWidthNm, viewHeightNm] = [integer(view, "sizeX"), integer(view, "sizeY")];
    const [xNm, yNm] = [integer(view, "offsetX"), integer(view, "offsetY")];
    const dimensions = (node.find("pixels")?.children("dimension") ?? [])
      .filter((dimension) => (dimension.attribute("z") ?? "0") === "0")
      .map((dimension) => {
        const index = integer(dimension, "ifd");
        const widthPx = integer(dimension, "sizeX");
        const directory = directories[index];
        if (directory === undefined || !directory.tiled) {
          throw broken(`its XML names directory ${index}, and there is no such one with tiles`);
        }
        if (!(widthPx >= 1) || !(viewWidthNm >= 1)) {
          throw broken(`its XML has ${viewWidthNm} nm in ${widthPx} pixels`);
        }
        return { directory, nmPerPixel: viewWidthNm / widthPx, widthPx };
      })
      .sort((a, b) => b.widthPx - a.widthPx);
    const settings = node.find("scanSettings");
    return {
      node,
      xNm,
      yNm,
      isMacro: xNm === 0 && yNm === 0 && viewWidthNm === widthNm && viewHeightNm === heightNm,
      objective: settings?.find("objectiveSettings", "objective")?.text,
      illumination: settings?.find("illuminationSettings", "illuminationSource")?.text,
      dimensions,
    };
  });
  const brightfield = images.filter(({ illumination }) => illumination === "brightfield");
  const areas = brightfield.filter(({ isMacro }) => !isMacro);
  const [main] = areas;
  if (main === undefined || main.dimensions.length === 0) {
    throw unsupported("a slide without a brightfield image");
  }
  const fits = areas.every(({ objective, dimensions }) =>
    objective === main.objective && dimensions.length === main.dimensions.length &&
    dimensions.every(({ nmPerPixel }, i) =>
      Math.abs(nmPerPixel / main.dimensions[i]!.nmPerPixel - 1) <= MAX_DIFFERENCE
    )
  );
  if (!fits) throw unsupported("a slide of areas that differ in resolution");

  const all: Record<string, string> = {};
  const first = main.dimensions[0]!.directory;
  Object.assign(all, tiffProperties(first));
  // All of it is in properties of its own.
  delete all["openslide.comment"];
  delete all["tiff.ImageDescription"];
  const bounds = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
  const levels = main.dimensions.map((_, level) => {
    // The finest, so that none is laid over another.
    const nmPerPixel = areas.reduce(
      (least, { dimensions }) => Math.min(least, dimensions[level]!.nmPerPixel),
      Infinity,
    );
    const placed = areas.map(({ xNm, yNm, dimensions }) => ({
      directory: dimensions[level]!.directory,
      xPx: Math.trunc(xNm / nmPerPixel),
      yPx: Math.trunc(yNm / nmPerPixel),
    }));
    if (level === 0) {
      for (const [i, { directory, xPx, yPx }] of placed.entries()) {
        const { widthPx, heightPx } = directory;
        all[`openslide.region[${i}].x`] = String(xPx);
        all[`openslide.region[${i}].y`] = String(yPx);
        all[`openslide.region[${i}].width`] = String(widthPx);
        all[`openslide.region[${i}].height`] = String(heightPx);
        bounds.left = Math.min(bounds.left, xPx);
        bounds.top = Math.min(bounds.top, yPx);
        bounds.right = Math.max(bounds.right, xPx + widthPx);
        bounds.bottom = Math.max(bounds.bottom, yPx + heightPx);
      }
    }
    return new Mosaic({
      location: source.location,
      format: "leica",
      snaps: true, // As OpenSlide does with this format's areas alone.
      widthPx: Math.ceil(widthNm / nmPerPixel),
      heightPx: Math.ceil(heightNm / nmPerPixel),
      areas: placed.map(({ directory, xPx, yPx }) => ({
        directory,
        cellsPerTile: 1,
        firstColumn: 0,
        firstRow: 0,
        columns: directory.columns,
        rows: directory.rows,
        xPx,
        yPx,
        advanceXPx: directory.tileWidthPx,
        advanceYPx: directory.tileHeightPx,
      })),
    });
  });
  all["openslide.bounds-x"] = String(bounds.left);
  all["openslide.bounds-y"] = String(bounds.top);
  all["openslide.bounds-width"] = String(bounds.right - bounds.left);
  all["openslide.bounds-height"] = String(bounds.bottom - bounds.top);

  const coded = collection.find("barcode")?.text;
  const barcode = coded === undefined
    ? collection.attribute("barcode")
    : new TextDecoder().decode(Buffer.from(coded, "base64"));
  const { node } = main;
  for (
    const [name, value] of Object.entries({
      "leica.barcode": barcode,
      "openslide.barcode": barcode,
      "leica.aperture": node.find("scanSettings", "illuminationSettings", "numericalAperture")
        ?.text,
      "leica.creation-date": node.find("creationDate")?.text,
      "leica.device-model": node.find("device")?.attribute("model"),
      "leica.device-version": node.find("device")?.attribute("version"),
      "leica.illumination-source": main.illumination,
      "leica.objective": main.objective,
    })
  ) {
    if (value !== undefined) all[name] = value;
  }
  const objectivePower = /^\s*\d+\s*$/.test(main.objective ?? "")
    ? Number(main.objective)
    : undefined;
  if (objectivePower !== undefined) all["openslide.objective-power"] = String(objectivePower);

  const associated = new Map<string, TileGrid>();
  const macros = brightfield.filter(({ isMacro }) => isMacro);
  const macro = macros[0]?.dimensions[0];
  if (macros.length > 1) throw unsupported("a slide of several macros");
  if (macro !== undefined) associated.set("macro", macro.directory);
  return {
    format: "leica",
    levels,
    properties: { vendor: "leica", ...resolution(first, all), objectivePower, all },
    associated,
    background: [255, 255, 255],
    icc: await first.profile(),
    close: () => source.close(),
  };
}
