/**
 * How well `nuclei` finds nuclei: precision, recall and F1 on the synthetic sample and on annotated
 * H&E tiles (../shared/data/he), matched one to one within 4 µm.
 *
 *   deno task bench:nuclei [--thresholds 0.1,0.15,0.2]
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import sharp from "sharp";
import { Gpu } from "../../kernels/device.ts";
import { classifyNuclei } from "../../src/classifier/nuclei.ts";
import { encodeSample } from "../../src/sample/sample.ts";
import { openSlide } from "../../src/slide/open.ts";
import type { Slide } from "../../src/slide/slide.ts";
import { MemorySource } from "../../src/slide/source.ts";
import { testContext } from "../classifier/context.ts";
import { compareDetections, type Position } from "../classifier/matching.ts";
import { dataPath } from "../data.ts";
import { pictureSlide } from "../slide/picture_slide.ts";

/** Micrometres per pixel of tiles that do not say: from the size that nuclei have in them. */
const MPP: Readonly<Record<string, number>> = {
  patch1: 0.25,
  patch2: 0.25,
  "00ae65c1c663": 0.35,
  "2246874c8b5b": 0.5,
  "4193474b2f1c": 0.25,
  "57bd029b19c1": 0.25,
  "7f55678298ad": 0.35,
  "9fb32aba1c2f": 0.5,
  "cbff60361ded": 0.5,
  "ebc18868864a": 0.2,
};

const { values } = parseArgs({ options: { thresholds: { type: "string" } } });
const thresholds = values.thresholds?.split(",") ?? [undefined];

const gpu = await Gpu.open();
const cases: { name: string; slide: Slide; mpp: number; truth: Position[] }[] = [];
for (const seed of [1, 2]) {
  const { svs, truth } = encodeSample({ seed });
  cases.push({
    name: `sample ${seed}`,
    slide: await openSlide(new MemorySource(svs)),
    mpp: truth.mpp,
    truth: truth.nuclei.map(({ x0Px, y0Px }) => ({ x: x0Px, y: y0Px })),
  });
}
for (const folder of ["he/cellseg", "he/dsb2018"]) {
  const path = dataPath(folder);
  if (path === undefined) continue;
  for (const file of readdirSync(path).filter((name) => name.endsWith(".centroids.json")).sort()) {
    const name = file.replace(".centroids.json", "");
    const { nuclei } = JSON.parse(readFileSync(join(path, file), "utf8"));
    const { data, info } = await sharp(join(path, `${name}.png`)).removeAlpha().raw()
      .toBuffer({ resolveWithObject: true });
    const mpp = MPP[name]!;
    const picture = { data, widthPx: info.width, heightPx: info.height };
    cases.push({ name, slide: pictureSlide(picture, mpp), mpp, truth: nuclei });
  }
}
for (const threshold of thresholds) {
  console.log(`\nNUCLEI_THRESHOLD ${threshold ?? "as shipped"}`);
  console.log("tile            µm/px  nuclei   found  precision  recall    F1");
  let sum = 0, tiles = 0;
  for (const { name, slide, mpp, truth } of cases) {
    const context = testContext(
      gpu,
      threshold === undefined ? {} : { NUCLEI_THRESHOLD: threshold },
    );
    const { scanResults: [scan] } = await classifyNuclei(slide, context);
    const report = scan!.workflow!.report;
    const points = report.type === "WholeSlideDifferential" ? report.points : [];
    const { precision, recall, f1 } = compareDetections(points, truth, 4 / mpp);
    if (!name.startsWith("sample")) [sum, tiles] = [sum + f1, tiles + 1];
    console.log(
      name.padEnd(15) + mpp.toFixed(2).padStart(6) + String(truth.length).padStart(8) +
        String(points.length).padStart(8) + precision.toFixed(3).padStart(11) +
        recall.toFixed(3).padStart(8) + f1.toFixed(3).padStart(7),
    );
  }
  if (tiles > 0) console.log(`mean F1 of the tiles ${(sum / tiles).toFixed(3)}`);
}
for (const { slide } of cases) await slide.close();
gpu?.close();
