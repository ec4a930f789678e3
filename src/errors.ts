/**
 * Every error a caller can act on: one class for each thing they would do differently.
 *
 * Messages state the attempted action in the active voice, quote strings and have no full stop.
 * No message carries a token, a URL's query, label text or a patient's identifier. What came up
 * from below is in `cause`. `main.ts` alone turns a class into an exit code.
 */

/** A variable or flag of the environment is missing or wrong; `variable` names it (comma-separated where several are). */
export class ConfigError extends Error {
  override name = "ConfigError";
  constructor(message: string, readonly variable: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** The bytes of a slide cannot be had: missing file, dead server, expired URL, full disk. */
export class SourceError extends Error {
  override name = "SourceError";
  /** Path, or URL without its query. */
  readonly location: string;
  /** HTTP status, where a server answered. */
  readonly status: number | undefined;
  /** True where a presigned URL's signature is no longer accepted: only a fresh URL helps. */
  readonly expired: boolean;
  constructor(
    message: string,
    details: { location: string; status?: number; expired?: boolean },
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.location = details.location;
    this.status = details.status;
    this.expired = details.expired ?? false;
  }
}

/** A file is not a slide, or breaks the rules of its format. */
export class SlideFormatError extends Error {
  override name = "SlideFormatError";
  /** Path, or URL without its query. */
  readonly path: string;
  /** The format whose rules it breaks, as `Slide.format` would say it; undefined where none was recognised. */
  readonly format: string | undefined;
  /** Where in the file, where that is known. */
  readonly offsetBytes: number | undefined;
  constructor(
    message: string,
    details: { path: string; format?: string; offsetBytes?: number },
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.path = details.path;
    this.format = details.format;
    this.offsetBytes = details.offsetBytes;
  }
}

/** A well-formed thing that this version does not do; `feature` names it. */
export class UnsupportedError extends Error {
  override name = "UnsupportedError";
  constructor(message: string, readonly feature: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** The compressed bytes of one tile cannot be decoded. */
export class CodecError extends Error {
  override name = "CodecError";
  /** Name of the compression, such as "jpeg". */
  readonly codec: string;
  /** The tile's place, where it belongs to a level. */
  readonly level: number | undefined;
  readonly column: number | undefined;
  readonly row: number | undefined;
  constructor(
    message: string,
    details: { codec: string; level?: number; column?: number; row?: number },
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.codec = details.codec;
    this.level = details.level;
    this.column = details.column;
    this.row = details.row;
  }
}

/** A results document breaks the platform's schema; `path` is where, such as `scanResults[0].geojson.features[3].bbox`. */
export class ResultsError extends Error {
  override name = "ResultsError";
  constructor(message: string, readonly path: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** A call of Techcyte's API failed. */
export class TechcyteError extends Error {
  override name = "TechcyteError";
  readonly method: string;
  /** Without query. */
  readonly url: string;
  /** HTTP status, where the server answered. */
  readonly status: number | undefined;
  constructor(
    message: string,
    details: { method: string; url: string; status?: number },
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.method = details.method;
    this.url = details.url;
    this.status = details.status;
  }
}

/** The run was told to stop, by a signal or by its deadline; it is the `reason` of every AbortSignal that says so. */
export class InterruptedError extends Error {
  override name = "InterruptedError";
  constructor(message: string, readonly by: "SIGINT" | "SIGTERM" | "deadline") {
    super(message);
  }
}

/** Something that a model asks for and this version does not do. */
export interface ModelProblem {
  /** The node's name; that of a value where it is not about a node. */
  readonly node: string;
  /** The operator, with its domain where that is not ONNX's own; "" where it is not about a node. */
  readonly operator: string;
  /** Such as `attribute "mode" is "cubic"`; "" where it is the operator itself. */
  readonly what: string;
}

/** A model's file is broken, or asks for what this version does not do; `node` and `operator` say where. */
export class ModelError extends Error {
  override name = "ModelError";
  /** The node's name or, where it has none, its first output's; undefined where the file itself is at fault. */
  readonly node: string | undefined;
  /** The operator, such as "Conv", with its domain where that is not ONNX's own. */
  readonly operator: string | undefined;
  /** All that is not supported, where the model was refused for that; else empty. */
  readonly problems: readonly ModelProblem[];
  constructor(
    message: string,
    details: { node?: string; operator?: string; problems?: readonly ModelProblem[] } = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.node = details.node;
    this.operator = details.operator;
    this.problems = details.problems ?? [];
  }
}
