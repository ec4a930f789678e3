import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UnsupportedError } from "../../src/errors.ts";
import { openSlide } from "../../src/slide/open.ts";
import { MemorySource } from "../../src/slide/source.ts";

/** First bytes of files that OpenSlide knows. */
const KNOWN: readonly [format: string, text: string][] = [
  ["Zeiss CZI", "ZISRAWFILE\0\0\0\0\0\0"],
  ["Sakura SVSlide", `SQLite format 3\0${"x".repeat(500)}CREATE TABLE DataManagerSQLiteConfigXPO`],
  ["Hamamatsu VMS", "[Virtual Microscope Specimen]\r\nNoLayers=1\r\n"],
  ["Hamamatsu VMU", "\xef\xbb\xbf[Uncompressed Virtual Microscope Specimen]\r\n"],
  ["3DHISTECH MIRAX", "\xef\xbb\xbf[GENERAL]\r\nSLIDE_VERSION = 01.03\r\nSLIDE_ID = 1\r\n"],
];
for (const [format, text] of KNOWN) {
  Deno.test(`openSlide() refuses ${format} by its name`, async () => {
    const source = new MemorySource(Uint8Array.from(Buffer.from(text, "latin1")), "a");
    await assert.rejects(openSlide(source), (error) => {
      assert.ok(error instanceof UnsupportedError);
      assert.equal(error.feature, format);
      assert.equal(error.message, `Cannot open "a": ${format} is not supported`);
      return true;
    });
  });
}

Deno.test("openSlide() says what a file is that is often taken for a slide", async () => {
  const rows: [text: string, message: RegExp][] = [
    ["\x1f\x8b\x08\0", /^Cannot open "a": it is compressed by gzip: unpack it first$/],
    ["Rar!\x1a\x07", /: it is an archive of a kind that is not read: unpack it first$/],
    ["7z\xbc\xaf\x27\x1c", /: it is an archive/],
    ["version https://git-lfs.github.com/spec/v1\noid", /: it is a Git LFS pointer/],
    ["\n<!DOCTYPE html><html>", /: it is HTML, such as a server's error$/],
    ["<html>", /: it is HTML/],
    ['<?xml version="1.0"?><Error>', /: it is XML, such as a server's error$/],
    ["<Error><Code>AccessDenied", /: it is XML/],
    ["<svg>", /: it is no TIFF, DICOM, zip, PNG, JPEG or WebP file$/],
  ];
  for (const [text, message] of rows) {
    const source = new MemorySource(Uint8Array.from(Buffer.from(text, "latin1")), "a");
    await assert.rejects(openSlide(source), { name: "SlideFormatError", message });
  }
});

Deno.test("openSlide() does not take other texts and databases for slides that it knows", async () => {
  for (const text of ["SQLite format 3\0 and nothing", "[GENERAL]\n", "see [Virtual Microscope"]) {
    const source = new MemorySource(Uint8Array.from(Buffer.from(text, "latin1")));
    await assert.rejects(openSlide(source), { name: "SlideFormatError" }, text);
  }
});

Deno.test("openSlide() takes no MIRAX for the picture beside its folder", async () => {
  const folder = mkdtempSync(join(tmpdir(), "wgslide-mirax-"));
  try {
    const picture = Uint8Array.of(0xff, 0xd8, 0xff, 0xe0);
    Deno.mkdirSync(join(folder, "a"));
    writeFileSync(join(folder, "a", "Slidedat.ini"), "[GENERAL]");
    writeFileSync(join(folder, "a.jpg"), picture);
    writeFileSync(join(folder, "b.mrxs"), picture);
    for (const name of ["a.jpg", "b.mrxs", "a"]) {
      await assert.rejects(openSlide(join(folder, name)), (error) => {
        assert.ok(error instanceof UnsupportedError, String(error));
        assert.equal(error.feature, "3DHISTECH MIRAX");
        return true;
      });
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
