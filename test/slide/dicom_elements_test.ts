import assert from "node:assert/strict";
import { SlideFormatError } from "../../src/errors.ts";
import { type Encoding, formatTag, walkElements } from "../../src/slide/dicom_elements.ts";
import { RecordingSource } from "./recording_source.ts";

const EXPLICIT: Encoding = { explicit: true, littleEndian: true };
const IMPLICIT: Encoding = { explicit: false, littleEndian: true };

/** Bytes of a data set written as hexadecimal, spaces as one likes. */
function hex(text: string): Uint8Array {
  return Uint8Array.fromHex(text.replace(/\s/g, ""));
}

/** What a walk visits: tags with the items around them, such as "(0048,0001)[0](0028,0010)". */
async function visited(text: string, encoding = EXPLICIT, enter = false): Promise<string[]> {
  const seen: string[] = [];
  await walkElements(new RecordingSource(hex(text)), 0, encoding, (element) => {
    const { path, items, tag } = element;
    seen.push(path.map((tag, i) => `${formatTag(tag)}[${items[i]}]`).join("") + formatTag(tag));
    return enter && element.vr === "SQ" ? "enter" : "skip";
  });
  return seen;
}

const ITEM = "FEFF00E0", ITEM_END = "FEFF0DE0 00000000", SEQUENCE_END = "FEFFDDE0 00000000";
const UNDEFINED = "FFFFFFFF";
/** (0028,0010) US 1, in 10 bytes; and without a value representation. */
const ROWS = "28001000 5553 0200 0100", IMPLICIT_ROWS = "28001000 02000000 0100";
/** Head of a sequence (0048,0001), but for its length. */
const SEQUENCE = "48000100 5351 0000";

Deno.test("walkElements() visits elements, and enters sequences where it is told to", async () => {
  const two =
    `${ROWS} ${SEQUENCE} 24000000 ${ITEM} 0A000000 ${ROWS} ${ITEM} 0A000000 ${ROWS} ${ROWS}`;
  assert.deepEqual(await visited(two), ["(0028,0010)", "(0048,0001)", "(0028,0010)"]);
  assert.deepEqual(await visited(two, EXPLICIT, true), [
    "(0028,0010)",
    "(0048,0001)",
    "(0048,0001)[0](0028,0010)",
    "(0048,0001)[1](0028,0010)",
    "(0028,0010)",
  ]);
});

Deno.test("walkElements() enters what has no length, told to or not", async () => {
  assert.deepEqual(
    await visited(
      `${SEQUENCE} ${UNDEFINED} ${ITEM} ${UNDEFINED} ${ROWS} ${ITEM_END} ${SEQUENCE_END} ${ROWS}`,
    ),
    ["(0048,0001)", "(0048,0001)[0](0028,0010)", "(0028,0010)"],
  );
  // Of unknown representation: implicit inside (PS3.5 §6.2.2).
  assert.deepEqual(
    await visited(
      `48000100 554E 0000 ${UNDEFINED} ${ITEM} 0A000000 ${IMPLICIT_ROWS} ${SEQUENCE_END} ${ROWS}`,
    ),
    ["(0048,0001)", "(0048,0001)[0](0028,0010)", "(0028,0010)"],
  );
  assert.deepEqual(
    await visited(
      `48000100 ${UNDEFINED} ${ITEM} ${UNDEFINED} ${IMPLICIT_ROWS} ${ITEM_END} ${SEQUENCE_END}`,
      IMPLICIT,
    ),
    ["(0048,0001)", "(0048,0001)[0](0028,0010)"],
  );
});

Deno.test("walkElements() rejects what breaks the rules, and says where", async () => {
  const rows = [
    ["28001000 5553 02", /an element is cut at 0/],
    ["28001000 5553 0400 0100", /\(0028,0010\) claims 4 bytes, more than there are at 0/],
    ["28001000 0002 0200 0100", /\(0028,0010\) has no value representation at 0/],
    [`${ROWS} ${ITEM} 00000000`, /\(FFFE,E000\) is where none of its kind belongs at 10/],
    [`${ROWS} ${ITEM_END}`, /a delimiter is misplaced at 10/],
    [`${SEQUENCE} ${UNDEFINED} ${ROWS}`, /\(0028,0010\) is where an item belongs at 12/],
    [`${SEQUENCE} ${UNDEFINED} ${ITEM} 00000000`, /a sequence has no end at 20/],
    [`${SEQUENCE} ${UNDEFINED} ${ITEM} 0A000000 ${ROWS} ${ITEM_END}`, /misplaced at 30/],
    [`${SEQUENCE} ${UNDEFINED} ${ITEM} 0B000000 ${ROWS}`, /\(FFFE,E000\) claims 11 bytes/],
  ] as const;
  for (const [text, message] of rows) {
    await assert.rejects(visited(text), (error) => {
      assert(error instanceof SlideFormatError);
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("walkElements() bounds nesting, and does not recurse into it", async () => {
  await assert.rejects(
    visited(`${SEQUENCE} ${UNDEFINED} ${ITEM} ${UNDEFINED}`.repeat(100_000)),
    /sequences are nested too deep/,
  );
});

Deno.test("walkElements() reads past values, not through them", async () => {
  const bytes = new Uint8Array(12 + 5e6 + 10);
  bytes.set(hex("09001010 4F42 0000 404B4C00")); // OB of 5,000,000 bytes.
  bytes.set(hex(ROWS), 12 + 5e6);
  const source = new RecordingSource(bytes);
  const tags: number[] = [];
  const end = await walkElements(source, 0, EXPLICIT, ({ tag, value }) => {
    tags.push(tag);
    if (tag === 0x00280010) assert.equal(value().getUint16(0, true), 1);
    return "skip";
  });
  assert.deepEqual(tags, [0x00091010, 0x00280010]);
  assert.equal(end, bytes.length);
  assert(source.bytesRead < 100_000, `${source.bytesRead} bytes were read`);
});
