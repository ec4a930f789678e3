/** Development mode, `src/main.ts` in a process of its own. */

import assert from "node:assert/strict";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import sharp from "sharp";
import { checkResults, type Results } from "../../src/results/schema.ts";
import { dataPath } from "../data.ts";
import { buildTiff, tiledImage, UNDEFINED } from "../slide/tiff_builder.ts";
import { NO_ADAPTER, type Ran, runMain } from "./process.ts";
import { tinySlide } from "./tiny_slide.ts";

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  try {
    await run(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** The document in result.json, which is the printed one. */
function documentOf({ stdout, stderr, code, files, file }: Ran): Results {
  assert.equal(code, 0, stderr);
  assert.deepEqual(files, ["result.json", "result.png"]);
  const document = JSON.parse(new TextDecoder().decode(file("result.json")));
  const printed = /^Results JSON: (.*)\n$/m.exec(stdout)?.[1];
  assert.deepEqual(JSON.parse(printed!), document);
  return checkResults(document);
}

/** The lines of a run, what differs between machines left out. */
function lines({ stdout }: Ran): string[] {
  return stdout.trimEnd().split("\n").map((line) =>
    line
      .replace(/^WebGPU is available! Using GPU: .+ \(.+\)$/, "GPU")
      .replace(/^No GPU found\. Using .+: a software adapter, slow\.$/, "GPU")
      .replace(/completed in \d+\.\d{4} seconds/, "completed")
      .replace(/^Result sample: -?\d+\.\d+$/, "Result sample")
      .replace(/^Generated \d{4,} annotations$/, "Generated annotations")
      .replace(/^Visualization saved to .*\/result\.png$/, "Visualization saved")
      .replace(/^Results JSON: \{.*\}$/, "Results JSON")
  );
}

const SMOKE = ["GPU", "Matrix multiplication (1000x1000) completed", "Result sample"];
const OUTPUTS = ["Visualization saved", "Results JSON"];

/** Fails unless the picture has red outlines where the document has boxes, and none beside them. */
async function assertRedBoxes(png: Uint8Array, { scanResults }: Results, scale: number) {
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
  const isRed = (x: number, y: number) => {
    const at = (Math.round(y) * info.width + Math.round(x)) * info.channels;
    return data[at] === 255 && data[at + 1] === 0 && data[at + 2] === 0;
  };
  const { features } = scanResults[0]!.geojson!;
  assert.equal(features.length, 4);
  for (const { bbox } of features) {
    const [left, top, right, bottom] = bbox.map((value) => value * scale) as [
      number,
      number,
      number,
      number,
    ];
    const [x, y] = [(left + right) / 2, (top + bottom) / 2];
    // Lines are two or three pixels wide, so the outline is met within one.
    const near = (x: number, y: number) =>
      [-1, 0, 1].some((d) => [-1, 0, 1].some((e) => isRed(x + d, y + e)));
    for (const at of [[left, y], [right, y], [x, top], [x, bottom], [left, top]] as const) {
      assert.ok(near(...at), `no red at (${at})`);
    }
    const inner = [[x, y], [left + 6, y], [x, bottom - 6]] as const;
    for (const at of inner) assert.ok(!near(...at), `red at (${at})`);
  }
  return info;
}

Deno.test("development() prints the mission's lines for a slide, and draws red boxes", async () => {
  const slide = dataPath("slides/svs/CMU-1-Small-Region.svs");
  if (slide === undefined) return;
  const ran = await runMain({ DEV: "1", INPUT: resolve(slide) });
  assert.deepEqual(lines(ran), [
    ...SMOKE,
    `Processing image: ${resolve(slide)}`,
    "Generated 4 fake annotations",
    ...OUTPUTS,
  ]);
  const document = documentOf(ran);
  assert.deepEqual(document.caseResults, { mitosisCount: 4 });
  assert.equal(document.scanResults[0]!.scanId, "test_scan");
  const { width, height } = await assertRedBoxes(ran.file("result.png"), document, 2048 / 2967);
  assert.deepEqual([width, height], [1532, 2048]);
});

Deno.test("development() takes the sample where there is no slide, and says so", async () => {
  const ran = await runMain({ DEV: "1", CLASSIFIER: "nuclei", SCAN_ID: "8615687" });
  assert.deepEqual(lines(ran), [
    ...SMOKE,
    'Processing image: the built-in synthetic sample (no slide in "./input")',
    "Generated annotations",
    ...OUTPUTS,
  ]);
  const { caseResults, scanResults } = documentOf(ran);
  assert.equal(scanResults[0]!.scanId, "8615687");
  assert.ok(caseResults!.nucleusCount as number > 2000);
  const { width, height } = await sharp(ran.file("result.png")).metadata();
  assert.deepEqual([width, height], [2048, 1536]);
  // Lines of progress and log are not among the mission's.
  assert.match(ran.stderr, /INFO Slide: aperio, 3072 × 2304 pixels/);
  assert.match(ran.stderr, /INFO (\d+) of \1 tiles \(100 %\)\n/);
});

Deno.test("development() works without an adapter, as far as nothing is computed", () =>
  inFolder(async (folder) => {
    const slide = join(folder, "slide with {braces} and ünïcode");
    writeFileSync(slide, tinySlide());
    const env = { DEV: "1", INPUT: slide, ...NO_ADAPTER };
    const grid = await runMain(env);
    const [first, advice, ...others] = lines(grid);
    assert.equal(first, "WebGPU is not available. No GPU detected.");
    assert.match(advice!, /^To compute, install a GPU driver .*mesa-vulkan-drivers/);
    assert.deepEqual(others, [
      `Processing image: ${slide}`,
      "Generated 4 fake annotations",
      ...OUTPUTS,
    ]);
    await assertRedBoxes(grid.file("result.png"), documentOf(grid), 1);
    const nuclei = await runMain({ ...env, CLASSIFIER: "nuclei" });
    assert.deepEqual([nuclei.code, nuclei.files], [4, []]);
    assert.match(nuclei.stderr, /\nerror: Cannot compute: no GPU was detected; install .*\n$/);
  }));

Deno.test("development() refuses an adapter that is not there", async () => {
  const { code, stderr, files } = await runMain({ DEV: "1", ADAPTER: "GeForce 256" });
  assert.deepEqual([code, files], [4, []]);
  assert.match(
    stderr,
    /error: Cannot find the adapter "GeForce 256"; the fastest there is is ".+", which is taken where ADAPTER is unset/,
  );
});

Deno.test("development() takes the first slide in INPUT_DIR, whatever lies beside it", () =>
  inFolder(async (folder) => {
    writeFileSync(join(folder, ".hidden.svs"), "hidden");
    writeFileSync(join(folder, "a.txt"), "no slide");
    writeFileSync(join(folder, "b.svs"), "");
    mkdirSync(join(folder, "c.svs"));
    symlinkSync(join(folder, "nowhere"), join(folder, "d.svs"));
    symlinkSync(join(folder, "e.svs"), join(folder, "e.svs"));
    writeFileSync(join(folder, "elsewhere"), tinySlide());
    symlinkSync("elsewhere", join(folder, "dz"));
    const ran = await runMain({ DEV: "1", INPUT_DIR: folder, ...NO_ADAPTER });
    documentOf(ran);
    assert.match(ran.stdout, new RegExp(`^Processing image: ${join(folder, "dz")}$`, "m"));
    for (const name of ["a.txt", "b.svs"]) {
      assert.match(ran.stderr, new RegExp(`INFO Cannot open ".*${name}": .*: passed over`));
    }
  }));

/** A row: what makes the input, the exit code and the last line of standard error. */
const BROKEN: Record<
  string,
  [make: (folder: string) => Record<string, string>, code: number, said: RegExp]
> = {
  "an INPUT that is missing": [
    (folder) => ({ INPUT: join(folder, "missing.svs") }),
    2,
    /^error: Cannot open ".*missing\.svs": there is no such file; INPUT must name a slide$/,
  ],
  "an INPUT that is a folder without a slide": [
    (folder) => ({ INPUT: folder }),
    3,
    /^error: Cannot open ".*": none of its (0 )?files is a DICOM file$/,
  ],
  "an INPUT that is a device": [
    () => ({ INPUT: "/dev/null" }),
    2,
    /^error: Cannot open "\/dev\/null": it is not a regular file; INPUT must name a slide$/,
  ],
  "an INPUT that is no slide": [
    (folder) => {
      writeFileSync(join(folder, "slide.svs"), "<html>not a slide</html>");
      return { INPUT: join(folder, "slide.svs") };
    },
    3,
    /^error: Cannot open ".*slide\.svs": it is HTML, such as a server's error$/,
  ],
  "an INPUT that is empty": [
    (folder) => {
      writeFileSync(join(folder, "slide.svs"), "");
      return { INPUT: join(folder, "slide.svs") };
    },
    3,
    /^error: Cannot open ".*slide\.svs": it is empty$/,
  ],
  "a slide cut off in a tile": [
    (folder) => {
      writeFileSync(join(folder, "slide.svs"), tinySlide().subarray(0, 500_000));
      return { INPUT: join(folder, "slide.svs") };
    },
    3,
    /^error: Cannot .*slide\.svs".*/,
  ],
  "a slide cut off in its head": [
    (folder) => {
      writeFileSync(join(folder, "slide.svs"), tinySlide().subarray(0, 100));
      return { INPUT_DIR: folder };
    },
    3,
    /^error: Cannot .*slide\.svs".*/,
  ],
  "a slide whose profile is broken, where colours are to be converted by it": [
    (folder) => {
      const profile = { tag: 34675, type: UNDEFINED, values: [1, 2, 3, 4, 5] };
      const slide = buildTiff([tiledImage({ fields: [profile] })]);
      writeFileSync(join(folder, "slide.tif"), slide.bytes);
      return { INPUT_DIR: folder, COLOUR: "srgb" };
    },
    3,
    /^error: Cannot convert the colours of ".*slide\.tif" to sRGB: its ICC profile is broken: /,
  ],
  "an INPUT_DIR without a slide": [
    (folder) => {
      writeFileSync(join(folder, "a.txt"), "no slide");
      writeFileSync(join(folder, "b.txt"), "none either");
      return { INPUT_DIR: folder };
    },
    3,
    /^error: Cannot find a slide in ".*": none of its 2 files is one$/,
  ],
  "an INPUT_DIR that is a file": [
    (folder) => {
      writeFileSync(join(folder, "file"), "text");
      return { INPUT_DIR: join(folder, "file") };
    },
    2,
    /^error: Cannot look into INPUT_DIR ".*file": /,
  ],
  "an OUTPUT_DIR below a file": [
    (folder) => {
      writeFileSync(join(folder, "file"), "text");
      return { OUTPUT_DIR: join(folder, "file", "output") };
    },
    2,
    /^error: Cannot write to OUTPUT_DIR ".*output": .*; mount a folder .* or set OUTPUT_DIR$/,
  ],
  "an OUTPUT_DIR that nobody may write to": [
    () => ({ OUTPUT_DIR: "/proc/self" }),
    2,
    /^error: Cannot write to OUTPUT_DIR "\/proc\/self": /,
  ],
};

for (const [name, [make, code, said]] of Object.entries(BROKEN)) {
  Deno.test(`development() refuses ${name}, exit ${code}`, () =>
    inFolder(async (folder) => {
      const ran = await runMain({ DEV: "1", ...NO_ADAPTER, ...make(folder) });
      assert.equal(ran.code, code, ran.stderr);
      const last = ran.stderr.trimEnd().split("\n").at(-1)!;
      assert.match(last, said);
      // `grid` reads no pixels: its document is whole and written when the picture cannot be drawn.
      assert.deepEqual(ran.files, name === "a slide cut off in a tile" ? ["result.json"] : []);
      assert.doesNotMatch(ran.stdout, /Results JSON|Visualization/);
    }));
}
