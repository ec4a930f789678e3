/** The slides of fixtures/make_vendor_slides.py, whole or damaged. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { openSlide } from "../../src/slide/open.ts";
import type { Slide } from "../../src/slide/slide.ts";
import { MemorySource, type Source } from "../../src/slide/source.ts";
import { SparseSource } from "./sparse_source.ts";

export function vendorBytes(name: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(`${import.meta.dirname}/../fixtures/vendor/${name}`));
}

/** A source of the bytes of a fixture, or of these in place of them. */
export function vendorSource(name: string, bytes = vendorBytes(name)): Source {
  return name.endsWith(".parts")
    ? new SparseSource(bytes.subarray(0, 16), 2 ** 32, bytes.subarray(16))
    : new MemorySource(bytes, name);
}

/** A copy with a text changed everywhere; what is shorter is filled with spaces. */
export function withText(name: string, from: string, to: string): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.from(vendorBytes(name));
  assert.ok(to.length <= from.length, to);
  let at = bytes.indexOf(from);
  assert.ok(at >= 0, `${name} has no ${from}`);
  for (; at >= 0; at = bytes.indexOf(from, at + from.length)) {
    bytes.write(to.padEnd(from.length), at, "latin1");
  }
  return new Uint8Array(bytes);
}

/** A row of broken slides: a text of a fixture, what stands in its place, and what comes of it. */
export type DamagedText = readonly [
  what: string,
  from: string,
  to: string,
  // deno-lint-ignore no-explicit-any -- constructors of errors differ in their parameters
  type: new (...parameters: any[]) => Error,
  message: RegExp,
];

/** Tests that a fixture with each of these texts changed is refused when it is opened. */
export function testDamagedTexts(name: string, rows: readonly DamagedText[]): void {
  for (const [what, from, to, type, message] of rows) {
    Deno.test(`openSlide() rejects ${name} with ${what}`, async () => {
      await assert.rejects(openSlide(vendorSource(name, withText(name, from, to))), (error) => {
        assert.ok(error instanceof type, String(error));
        assert.match(error.message, message);
        return true;
      });
    });
  }
}

/** Opens a fixture with a text changed. */
export async function openWithText(name: string, from: string, to: string): Promise<Slide> {
  return await openSlide(vendorSource(name, withText(name, from, to)));
}
