import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { CodecError, ConfigError, SourceError, UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { runRegion } from "../../src/tools/region.ts";
import { matrixProfile, WIDE } from "../slide/icc_builder.ts";
import { buildTiff, SHORT, tiledImage, UNDEFINED } from "../slide/tiff_builder.ts";

const SLIDE = buildTiff([
  tiledImage({ seed: 1 }),
  tiledImage({
    widthPx: 50,
    heightPx: 35,
    seed: 2,
    fields: [{ tag: 254, type: SHORT, values: [1] }],
  }),
]).bytes;

async function inFolder(run: (folder: string, slide: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "wgslide-region-"));
  try {
    writeFileSync(join(folder, "a.tif"), SLIDE);
    await run(folder, join(folder, "a.tif"));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

Deno.test("runRegion() writes what readRegion() gives", () =>
  inFolder(async (folder, path) => {
    const slide = await openSlide(path);
    const out = join(folder, "out.png");
    const rows: [args: string, region: number[]][] = [
      ["--width 40 --height 30", [0, 0, 0, 40, 30]],
      ["--level 1 --x 20 --y 10 --width 45 --height 33", [1, 20, 10, 45, 33]],
      ["--x -5 --y=-7 --width 20 --height 21", [0, -5, -7, 20, 21]],
      ["--level 0 --x 95 --y 65 --width 100 --height 1", [0, 95, 65, 100, 1]],
    ];
    for (const [args, [level, x0Px, y0Px, widthPx, heightPx]] of rows) {
      const said = await runRegion([path, "--out", out, ...args.split(" ")]);
      assert.equal(said, `${widthPx} × ${heightPx} px of level ${level} saved to ${out}`);
      const { data, info } = await sharp(out).raw().toBuffer({ resolveWithObject: true });
      assert.deepEqual([info.width, info.height, info.channels], [widthPx, heightPx, 3]);
      const region = {
        level: level!,
        x0Px: x0Px!,
        y0Px: y0Px!,
        widthPx: widthPx!,
        heightPx: heightPx!,
      };
      assert.deepEqual(new Uint8Array(data), (await slide.readRegion(region)).data, args);
    }
    await slide.close();
    assert.deepEqual(readdirSync(folder).sort(), ["a.tif", "out.png"]);
  }));

Deno.test("runRegion() converts to sRGB where it is told to", () =>
  inFolder(async (folder) => {
    const path = join(folder, "b.tif"), out = join(folder, "out.png");
    const profile = { tag: 34675, type: UNDEFINED, values: matrixProfile(WIDE) };
    writeFileSync(path, buildTiff([tiledImage({ fields: [profile] })]).bytes);
    for (const colour of ["raw", "srgb"] as const) {
      const slide = await openSlide(path, { colour });
      const region = { level: 0, x0Px: 0, y0Px: 0, widthPx: 40, heightPx: 30 };
      const args = ["--width", "40", "--height", "30", "--colour", colour];
      await runRegion([path, "--out", out, ...args]);
      const shown = await sharp(out).raw().toBuffer();
      assert.deepEqual(new Uint8Array(shown), (await slide.readRegion(region)).data);
      await slide.close();
    }
  }));

Deno.test("runRegion() explains itself", async () => {
  assert.match(await runRegion(["--help"]), /Usage: deno task region SLIDE/);
});

Deno.test("runRegion() rejects arguments that make no sense, and writes nothing", () =>
  inFolder(async (folder, path) => {
    const out = join(folder, "out.png");
    const rows: [args: string[], message: RegExp][] = [
      [[], /SLIDE must be one path/],
      [[path, path], /SLIDE must be one path/],
      [[path, "--width", "1", "--height", "1"], /--out must name the PNG/],
      [[path, "--out", out, "--width", "1"], /--height is missing/],
      [
        [path, "--out", out, "--width", "0", "--height", "1"],
        /--width must be a whole number of at least 1/,
      ],
      [[path, "--out", out, "--width", "1e3", "--height", "1"], /--width must be a whole number/],
      [
        [path, "--out", out, "--width", "1", "--height", "1", "--x", "1.5"],
        /--x must be a whole number\./,
      ],
      [
        [path, "--out", out, "--width", "1", "--height", "1", "--y", ""],
        /--y must be a whole number\./,
      ],
      [
        [path, "--out", out, "--width", "1", "--height", "1", "--level", "-1"],
        /--level must be a whole number of at least 0/,
      ],
      [
        [path, "--out", out, "--width", "1", "--height", "1", "--level", "2"],
        /there are levels 0 to 1/,
      ],
      [[path, "--out", out, "--width", "99999", "--height", "99999"], /at most \d+ bytes/],
      [[path, "--out", out, "--depth", "1"], /Unknown option/],
      [
        [path, "--out", out, "--width", "1", "--height", "1", "--colour", "cmyk"],
        /--colour must be raw or srgb/,
      ],
      [
        [path, "--out", join(folder, "none", "out.png"), "--width", "1", "--height", "1"],
        /^Cannot write ".*": ENOENT: no such file or directory$/,
      ],
    ];
    for (const [args, message] of rows) {
      await assert.rejects(runRegion(args), (error) => {
        assert(error instanceof ConfigError, `${args}: ${error}`);
        assert.match(error.message, message);
        return true;
      });
    }
    assert.deepEqual(readdirSync(folder), ["a.tif"]);
  }));

Deno.test("runRegion() leaves nothing where the PNG cannot take its place", () =>
  inFolder(async (folder, path) => {
    const out = join(folder, "out.png");
    mkdirSync(join(out, "full"), { recursive: true });
    const args = [path, "--out", out, "--width", "10", "--height", "10"];
    await assert.rejects(runRegion(args), ConfigError);
    assert.deepEqual(readdirSync(folder).sort(), ["a.tif", "out.png"]);
  }));

Deno.test("runRegion() writes nothing where the slide cannot be read", () =>
  inFolder(async (folder) => {
    const jpeg = buildTiff([tiledImage({ compression: 7, photometric: 6 })]).bytes;
    const wavelets = buildTiff([tiledImage({ compression: 34925 })]).bytes;
    const rows = [
      ["broken.tif", jpeg, CodecError],
      ["other.tif", wavelets, UnsupportedError],
      ["none.tif", undefined, SourceError],
    ] as const;
    for (const [name, bytes, type] of rows) {
      const path = join(folder, name);
      if (bytes !== undefined) writeFileSync(path, bytes);
      const args = [path, "--out", join(folder, "out.png"), "--width", "1", "--height", "1"];
      await assert.rejects(runRegion(args), type);
    }
    assert(!readdirSync(folder).some((name) => name.includes("png")));
  }));
