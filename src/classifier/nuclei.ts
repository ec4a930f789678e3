/**
 * A nucleus detector without training, for research use only: tissue mask, haematoxylin by colour
 * deconvolution, blobs by a multi-scale Laplacian of Gaussian, and the best of those that compete.
 */

import { type Context, requireGpu } from "../context.ts";
import { traceMask } from "../pipeline/contour.ts";
import { Detections } from "../pipeline/detect.ts";
import { ASSUMED_MPP, cutGrid, scaleOf } from "../pipeline/grid.ts";
import { overviewOf } from "../pipeline/overview.ts";
import { runTiles } from "../pipeline/run.ts";
import { findTissue, tissueAreaMm2, type TissueMask } from "../pipeline/tissue.ts";
import { featureCollection, multiPointFeature, polygonFeature } from "../results/geojson.ts";
import type { Feature, Position, Results, ScoredPoint } from "../results/schema.ts";
import type { Picture, Slide } from "../slide/slide.ts";
import { haloFor, NucleiNetwork, type Resample } from "./nuclei_network.ts";

/** Micrometres per model pixel. */
const MPP = 0.5;
/** Side of a tile's core in model pixels. */
const CORE_PX = 1024;
/**
 * Without NUCLEI_THRESHOLD a nucleus stands out with this part of what the best tenth of all
 * candidates do, since stains differ in strength, and at least with LEAST_RESPONSE.
 */
const RELATIVE_THRESHOLD = 0.2;
/** Haematoxylin density below which a candidate is noise. */
const LEAST_RESPONSE = 0.1;
/** Micrometres per pixel above which nuclei are specks, and many are missed. */
const COARSEST_MPP = 1.1;
/** Of two detections nearer than this part of the better one's radius, one goes. */
const SUPPRESSION = 0.8;
/** How far the drawn outline of the tissue may leave the mask, in mask pixels. */
const OUTLINE_TOLERANCE_PX = 0.8;

/**
 * Finds nuclei on the whole slide.
 * @returns `caseResults` {nucleusCount, tissueAreaMm2, nucleiPerMm2}, the tissue's outline, all
 *   nuclei as one MultiPoint and a WholeSlideDifferential report.
 * @throws {KernelError} without a GPU or where it fails, what reading throws, and the signal's
 *   reason where it is aborted; then what was found so far has been kept.
 */
export async function classifyNuclei(slide: Slide, context: Context): Promise<Results> {
  const gpu = requireGpu(context);
  const { signal, log, config } = context;
  const { mppX, mppY, assumed } = scaleOf(slide);
  if (assumed) {
    const said = slide.properties.mppX;
    log.warn(
      (said === undefined
        ? "The slide does not say its micrometres per pixel"
        : `The slide says ${said} micrometres per pixel, which no scanner has`) +
        `: ${ASSUMED_MPP} is taken (20x), and areas and sizes are as wrong as that is`,
    );
  }
  const { widthPx, heightPx } = slide.levels[0]!;
  if (Math.max(mppX, mppY) > 1.1 * Math.min(mppX, mppY)) {
    log.warn(
      `The slide's pixels are ${mppX} × ${mppY} µm: what is round on glass is not in them, ` +
        `and nuclei may be missed`,
    );
  }
  const mask = findTissue(await overviewOf(slide, context), mppX);
  // A slide smaller than a tile gets a smaller one.
  const longer = Math.ceil(Math.max(widthPx * mppX, heightPx * mppY) / MPP);
  const corePx = Math.min(CORE_PX, Math.max(64, Math.ceil(longer / 64) * 64));
  const grid = cutGrid(slide, mask, { mpp: MPP, corePx });
  if (grid.mppX > COARSEST_MPP) {
    log.warn(`Nuclei are hardly resolved at ${grid.mppX.toFixed(2)} µm/px: many are missed`);
  }
  const haloPx = haloFor(grid.mppX);
  log.info(
    `Nuclei: tiles of ${corePx} px: ${grid.tiles.length}, at ${grid.mppX.toFixed(3)} µm/px ` +
      `from level ${grid.level}`,
  );
  if (grid.tiles.length === 0) log.warn("No tissue was found: the slide is taken as empty");
  const found = new Detections();
  const least = config.nucleiThreshold ?? LEAST_RESPONSE;
  const network = await NucleiNetwork.create(gpu, grid.mppX, { corePx, haloPx });
  try {
    const side = corePx + 2 * haloPx;
    const readPx = grid.ratio === 1 ? side : Math.ceil(side * grid.ratio) + 1;
    await runTiles<typeof grid.tiles[0], { picture: Picture; resample: Resample }, void>(
      grid.tiles,
      {
        async read(tile, signal) {
          const [x, y] = [(tile.x - haloPx) * grid.ratio, (tile.y - haloPx) * grid.ratio];
          const [xPx, yPx] = [Math.floor(x), Math.floor(y)];
          const picture = await slide.readRegion({
            level: grid.level,
            xPx,
            yPx,
            widthPx: readPx,
            heightPx: readPx,
            signal,
          });
          return { picture, resample: { shiftX: x - xPx, shiftY: y - yPx, ratio: grid.ratio } };
        },
        async infer({ picture, resample }, tile) {
          for (const peak of await network.find(picture, resample, least)) {
            const x0 = (tile.x + peak.x) * grid.downsample;
            const y0 = (tile.y + peak.y) * grid.downsample;
            if (x0 >= widthPx || y0 >= heightPx || !isTissue(mask, x0, y0)) continue;
            found.add(x0, y0, peak.radiusUm / mppX, peak.response);
          }
        },
        collect() {},
      },
      { signal, progress: (done, total) => context.progress(done, total, "tiles") },
    );
  } catch (error) {
    if (signal.aborted) context.keep(report(found, mask, context, { mppX, mppY }));
    throw error;
  } finally {
    network.destroy();
  }
  return report(found, mask, context, { mppX, mppY });
}

function isTissue(mask: TissueMask, x0: number, y0: number): boolean {
  const x = Math.min(mask.widthPx - 1, Math.floor(x0 / mask.downsampleX));
  const y = Math.min(mask.heightPx - 1, Math.floor(y0 / mask.downsampleY));
  return mask.data[y * mask.widthPx + x] !== 0;
}

function report(
  found: Detections,
  mask: TissueMask,
  { scanId, config }: Context,
  { mppX, mppY }: { mppX: number; mppY: number },
): Results {
  const positions: Position[] = [];
  const points: ScoredPoint[] = [];
  const threshold = config.nucleiThreshold ??
    Math.max(LEAST_RESPONSE, RELATIVE_THRESHOLD * Math.min(1, found.scoreQuantile(0.9)));
  for (const { x, y, score } of found.suppress(SUPPRESSION, threshold)) {
    // Whole pixels and thousandths: more would be digits without meaning, a million times.
    const [px, py] = [Math.round(x), Math.round(y)];
    positions.push([px, py]);
    points.push({
      x: px,
      y: py,
      score: Math.round(Math.min(1, score) * 1000) / 1000,
      type: "nucleus",
    });
  }
  const areaMm2 = tissueAreaMm2(mask, mppX, mppY);
  const outlines = traceMask(mask.data, mask.widthPx, mask.heightPx, OUTLINE_TOLERANCE_PX)
    .map(([outer, ...holes]) => {
      const scale = (ring: readonly Position[]): Position[] =>
        ring.map(([x, y]) => [
          Math.round(x * mask.downsampleX),
          Math.round(y * mask.downsampleY),
        ]);
      return [scale(outer), ...holes.map(scale)] as const;
    });
  const features: Feature[] = [];
  if (outlines.length > 0) features.push(polygonFeature(outlines, "tissue"));
  if (positions.length > 0) features.push(multiPointFeature(positions, "nucleus"));
  const round = (value: number) => Math.round(value * 1000) / 1000;
  const counts = {
    nucleusCount: positions.length,
    tissueAreaMm2: round(areaMm2),
    nucleiPerMm2: areaMm2 > 0 ? round(positions.length / areaMm2) : 0,
  };
  return {
    caseResults: counts,
    scanResults: [{
      scanId,
      geojson: featureCollection(features),
      workflow: {
        model_name: "nuclei",
        provider: "WGSlide",
        ruo: true,
        report: {
          type: "WholeSlideDifferential",
          points,
          scores: { nucleus: positions.length },
          positivity_threshold: round(threshold),
        },
      },
    }],
  };
}
