import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError, SlideFormatError, SourceError } from "../../src/errors.ts";
import { runInfo } from "../../src/tools/info.ts";
import { dataPath } from "../data.ts";
import { ascii, buildTiff, pattern, SHORT, tiledImage, UNDEFINED } from "../slide/tiff_builder.ts";

const SLIDE = buildTiff([
  tiledImage({
    fields: [
      ascii(270, "Aperio\r\n|MPP = 0.25|AppMag = 40|Note = \x1b[31mred\x9b"),
      { tag: 34675, type: UNDEFINED, values: [1, 2, 3] },
    ],
  }),
  tiledImage({ widthPx: 50, heightPx: 35, compression: 34925 }),
  {
    widthPx: 20,
    heightPx: 10,
    tiles: [pattern(20, 10)],
    fields: [{ tag: 254, type: SHORT, values: [1] }],
  },
  {
    widthPx: 20,
    heightPx: 10,
    compression: 7,
    tiles: [pattern(20, 10)],
    fields: [{ tag: 254, type: SHORT, values: [9] }],
  },
]).bytes;

async function withFile(bytes: Uint8Array, run: (path: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "wgslide-info-"));
  try {
    writeFileSync(join(folder, "a.svs"), bytes);
    await run(join(folder, "a.svs"));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

Deno.test("runInfo() says in words what a slide is", () =>
  withFile(SLIDE, async (path) => {
    const text = await runInfo([path]);
    const [head, properties] = text.split("property\n");
    assert.equal(
      head,
      `slide       ${path}
format      aperio
vendor      aperio
size        100 × 70 px (0.03 × 0.02 mm)
scale       0.25 × 0.25 µm/px
objective   40×
profile     ICC, 3 bytes

level  size in px  downsample  tile in px  compression
0      100 × 70    1           32 × 32     none
1      50 × 35     2           32 × 32     TIFF compression 34925 (LZMA) is not supported

associated  size in px
label       20 × 10
macro       Cannot decode tile (0, 0) of the macro: it does not begin with SOI

`,
    );
    assert.match(properties!, /^aperio\.AppMag = 40$/m);
    assert.match(properties!, /^aperio\.Note = \\x1b\[31mred\\x9b$/m);
    assert.match(properties!, /^openslide\.comment = Aperio\\r\\n\|MPP/m);
  }));

Deno.test("runInfo() gives all of it as JSON", () =>
  withFile(SLIDE, async (path) => {
    const { properties, levels, ...info } = JSON.parse(await runInfo(["--json", path]));
    assert.deepEqual(info, {
      path,
      format: "aperio",
      vendor: "aperio",
      widthPx: 100,
      heightPx: 70,
      mppX: 0.25,
      mppY: 0.25,
      objectivePower: 40,
      iccBytes: 3,
      associated: {
        label: { widthPx: 20, heightPx: 10 },
        macro: {
          error: "Cannot decode tile (0, 0) of the macro: it does not begin with SOI",
        },
      },
    });
    assert.deepEqual(levels, [
      {
        widthPx: 100,
        heightPx: 70,
        downsample: 1,
        tileWidthPx: 32,
        tileHeightPx: 32,
        compression: "none",
      },
      {
        widthPx: 50,
        heightPx: 35,
        downsample: 2,
        tileWidthPx: 32,
        tileHeightPx: 32,
        error: "TIFF compression 34925 (LZMA) is not supported",
      },
    ]);
    assert.equal(properties["aperio.MPP"], "0.25");
    assert.equal(properties["openslide.level-count"], "2");
  }));

Deno.test("runInfo() says that it does not know a scale", () =>
  withFile(buildTiff([tiledImage()]).bytes, async (path) => {
    const text = await runInfo([path]);
    assert.match(text, /^size {8}100 × 70 px$/m);
    assert.match(text, /^scale {7}unknown$/m);
    assert.match(text, /^objective {3}unknown$/m);
    assert.match(text, /^profile {5}none$/m);
    assert(!text.includes("associated"));
    const { mppX, mppY, objectivePower, iccBytes } = JSON.parse(await runInfo([path, "--json"]));
    assert.deepEqual([mppX, mppY, objectivePower, iccBytes], [null, null, null, null]);
  }));

Deno.test("runInfo() tells of CMU-1-Small-Region.svs what OpenSlide does", async () => {
  const path = dataPath("slides/svs/CMU-1-Small-Region.svs");
  if (path === undefined) return;
  const text = await runInfo([path]);
  assert.match(text, /^0 {6}2220 × 2967 {2}1 {11}240 × 240 {3}jpeg$/m);
  assert.match(text, /^macro {7}1280 × 431$/m);
});

Deno.test("runInfo() explains itself", async () => {
  for (const args of [["--help"], ["-h"], ["a.svs", "--help"]]) {
    assert.match(await runInfo(args), /Usage: deno task info SLIDE \[--json\]/);
  }
});

Deno.test("runInfo() rejects arguments that make no sense", async () => {
  for (const args of [[], ["a", "b"], ["a", "--xml"], ["a", "--json=1"]]) {
    await assert.rejects(runInfo(args), (error) => {
      assert(error instanceof ConfigError, args.join(" "));
      assert.match(error.message, /Usage: deno task info/);
      return true;
    });
  }
});

Deno.test("runInfo() rejects what is no slide", () =>
  withFile(new Uint8Array(10), async (path) => {
    await assert.rejects(runInfo([path]), SlideFormatError);
    await assert.rejects(runInfo([path + ".none"]), SourceError);
  }));

Deno.test("info.ts prints an error in one line and exits as the README says", () =>
  withFile(SLIDE, async (path) => {
    const rows: [args: string[], code: number, output: RegExp, error: RegExp][] = [
      [[path, "--json"], 0, /^\{\n[^]*\}\n$/, /^$/],
      [[], 2, /^$/, /^error: SLIDE must be one path\. Usage: .*\n$/],
      [
        ["no\nsuch\x1b[2Jfile"],
        3,
        /^$/,
        /^error: Cannot open "no\\nsuch\\x1b\[2Jfile": there is no such file\n$/,
      ],
    ];
    for (const [args, code, output, error] of rows) {
      const done = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "src/tools/info.ts", ...args],
        env: { NO_COLOR: "1" },
      }).output();
      const [out, err] = [done.stdout, done.stderr].map((bytes) => new TextDecoder().decode(bytes));
      assert.equal(done.code, code, err);
      assert.match(out!, output);
      assert.match(err!, error);
    }
  }));
