/**
 * Aperio SVS: a tiled TIFF whose first ImageDescription begins with "Aperio".
 *
 * Aperio, «Digital Slides and Third-Party Data Interchange», and OpenSlide's description of the
 * format: tiled directories are levels in file order; strips are the thumbnail (directory 1), the
 * label (subfile type 1) and the macro (9).
 */

import { formatDouble } from "./properties.ts";
import type { SlideParts, TileGrid } from "./region.ts";
import type { Source } from "./source.ts";
import { TAG, type TiffDirectory, tiffProperties } from "./tiff.ts";

/** Whether the directories are an Aperio slide's. */
export function isAperio([first]: readonly TiffDirectory[]): boolean {
  return first !== undefined && first.tiled &&
    (first.text(TAG.ImageDescription)?.startsWith("Aperio") ?? false);
}

/** The slide in the directories of an Aperio file. */
export function openAperio(source: Source, directories: readonly TiffDirectory[]): SlideParts {
  const all: Record<string, string> = tiffProperties(directories[0]!);
  for (const [name, value] of readDescription(directories[0]!.text(TAG.ImageDescription) ?? "")) {
    all[`aperio.${name}`] = value;
  }
  const mpp = double(all["aperio.MPP"]);
  const objectivePower = double(all["aperio.AppMag"]);
  if (mpp !== undefined) {
    all["openslide.mpp-x"] = all["openslide.mpp-y"] = formatDouble(mpp);
  }
  if (objectivePower !== undefined) all["openslide.objective-power"] = formatDouble(objectivePower);
  const associated = new Map<string, TileGrid>();
  for (const directory of directories) {
    if (directory.tiled) continue;
    const name = directory.index === 1
      ? "thumbnail"
      : ({ 1: "label", 9: "macro" } as const)[directory.subfileType as 1 | 9];
    if (name !== undefined) associated.set(name, directory);
  }
  return {
    format: "aperio",
    levels: directories.filter(({ tiled }) => tiled),
    properties: {
      vendor: "aperio",
      mppX: positive(mpp),
      mppY: positive(mpp),
      objectivePower: positive(objectivePower),
      all,
    },
    associated,
    background: [255, 255, 255],
    icc: directories[0]!.bytes(TAG.ICCProfile),
    close: () => source.close(),
  };
}

/** `Aperio …|Name = value|Name = value`: what follows the first bar, both sides trimmed. */
function* readDescription(description: string): Iterable<[name: string, value: string]> {
  for (const part of description.split("|").slice(1)) {
    const at = part.indexOf("=");
    if (at >= 0) yield [part.slice(0, at).trim(), part.slice(at + 1).trim()];
  }
}

function double(text: string | undefined): number | undefined {
  if (text === undefined || text === "") return undefined;
  const value = Number(text.replace(",", "."));
  return Number.isFinite(value) ? value : undefined;
}

function positive(value: number | undefined): number | undefined {
  return value !== undefined && value > 0 ? value : undefined;
}
