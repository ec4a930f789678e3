import assert from "node:assert/strict";
import { readXml } from "../../src/slide/xml.ts";

Deno.test("readXml() finds elements by their local names, and what is in them", () => {
  const root = readXml(
    '\uFEFF<?xml version="1.0"?>\n<a:r x="1" y=" 2.5 " z=""><b/><a:b k="v"><c>t&amp;<![CDATA[<]]></c></a:b></a:r>\n',
  )!;
  assert.equal(root.name, "r");
  assert.deepEqual(root.attributes, [["x", "1"], ["y", " 2.5 "], ["z", ""]]);
  assert.deepEqual(["x", "y", "z", "w"].map((name) => root.number(name)), [
    1,
    2.5,
    undefined,
    undefined,
  ]);
  assert.equal(root.children("b").length, 2);
  assert.equal(root.find("b", "c")?.text, "t&<");
  assert.equal(root.find("b", "d"), undefined);
  assert.equal(root.attribute("constructor"), undefined);
});

Deno.test("readXml() gives undefined for what is no XML, or uses entities of its own", () => {
  for (
    const text of [
      "",
      "text",
      "<a>",
      "<a></b>",
      "<a/><b/>",
      '<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
      '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>',
      "<a>".repeat(200_000),
    ]
  ) {
    assert.equal(readXml(text), undefined, text.slice(0, 40));
  }
});
