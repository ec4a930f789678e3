/**
 * XML in a TIFF's fields, as a tree (XML 1.0, Namespaces in XML 1.0). Entities that a document declares
 * are not expanded: one that uses them is refused.
 */

import { parseXml, XmlElement } from "@rgrove/parse-xml";

/** An element by its local name: prefixes say nothing, files of the same vendor differ in them. */
export class XmlNode {
  readonly #element: XmlElement;
  constructor(element: XmlElement) {
    this.#element = element;
  }

  /** Name without its prefix. */
  get name(): string {
    return localName(this.#element.name);
  }

  /** Text of it and all below it. */
  get text(): string {
    return this.#element.text;
  }

  /** Attributes by their names with prefixes, in the document's order. */
  get attributes(): readonly (readonly [name: string, value: string])[] {
    return Object.entries(this.#element.attributes);
  }

  attribute(name: string): string | undefined {
    // The parser's record has no prototype.
    return this.#element.attributes[name];
  }

  /** A number in an attribute; undefined where it is absent or none. */
  number(name: string): number | undefined {
    const text = this.attribute(name)?.trim();
    if (text === undefined || text === "") return undefined;
    const value = Number(text);
    return Number.isFinite(value) ? value : undefined;
  }

  /** Elements right below it, of a name or all. */
  children(name?: string): XmlNode[] {
    return this.#element.children.flatMap((child) =>
      child instanceof XmlElement && (name === undefined || localName(child.name) === name)
        ? [new XmlNode(child)]
        : []
    );
  }

  /** The first element at a path below it. */
  find(...path: readonly string[]): XmlNode | undefined {
    const [name, ...rest] = path;
    if (name === undefined) return this;
    for (const child of this.children(name)) {
      const found = child.find(...rest);
      if (found !== undefined) return found;
    }
  }
}

function localName(name: string): string {
  return name.slice(name.indexOf(":") + 1);
}

/** The root element of a document, or undefined where the text is no well-formed XML. */
export function readXml(text: string): XmlNode | undefined {
  try {
    const { root } = parseXml(text.replace(/^\uFEFF/, "").trim());
    return root === null ? undefined : new XmlNode(root);
  } catch {
    return undefined; // Also what is nested too deeply for the parser's stack.
  }
}
