/** Values that nothing may show: kept apart from the text around them, and struck out where they got into it. */

/** Shorter values would strike out parts of words. */
const LEAST_LENGTH = 6;

/** Every secret of this process, with its parts that are secret by themselves; the longest first. */
let known: string[] = [];

/** A value that no log, error or JSON may show; `reveal()` is for the one place that sends it. */
export class Secret {
  readonly #value: string;

  /** Also makes `redact` strike the value out: of a URL its query, its parameters and its password. */
  constructor(value: string) {
    this.#value = value;
    const url = URL.parse(value);
    const parts = url === null ? [value] : [
      url.search.slice(1),
      decoded(url.search.slice(1)),
      ...[...url.searchParams.values()].filter((part) => part.length >= 16),
      url.password,
      decoded(url.password),
    ];
    known = [...new Set([...known, ...parts.filter((part) => part.length >= LEAST_LENGTH)])]
      .sort((a, b) => b.length - a.length);
  }

  reveal(): string {
    return this.#value;
  }
  toString(): string {
    return "[secret]";
  }
  toJSON(): string {
    return "[secret]";
  }
  [Symbol.for("Deno.customInspect")](): string {
    return "[secret]";
  }
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return "[secret]";
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Text with every secret of this process struck out. */
export function redact(text: string): string {
  for (const secret of known) text = text.replaceAll(secret, "[secret]");
  return text;
}
