/**
 * The environment, checked: text in, a typed Config or one ConfigError that names all that is wrong.
 *
 * Variables of the platform: Techcyte External Container Service. Everything of this project's own
 * is an environment variable too, since vendors set those in a container's definition.
 */

import * as v from "valibot";
import { ConfigError } from "./errors.ts";
import { Secret } from "./secrets.ts";

export type Classifier = "grid" | "nuclei" | "onnx";
export type LogLevel = "debug" | "info" | "warning" | "error";

/** What both modes share. */
export interface CommonConfig {
  readonly scanId: string;
  /** What `processImage` runs as shipped. */
  readonly classifier: Classifier;
  /** Part of an adapter's name, any case; undefined takes the fastest. */
  readonly adapter: string | undefined;
  readonly outputDir: string;
  /** Minutes from the start after which the run stops with what it has. */
  readonly deadlineMinutes: number;
  readonly logLevel: LogLevel;
  /** Haematoxylin density that a nucleus stands out with, for `nuclei`; undefined follows the slide's staining. */
  readonly nucleiThreshold: number | undefined;
  /** The model that `onnx` runs; its sidecar lies beside it. */
  readonly model: string | undefined;
  /** How a model's floats are stored between nodes. */
  readonly precision: "f32" | "f16" | "auto";
  /** File of tile shapes that were timed on this device; undefined takes the built-in ones. */
  readonly tuningCache: string | undefined;
  /** Threads that decode tiles beside the main one; 0 decodes on the main thread. */
  readonly decoders: number;
  /** A tile that cannot be decoded ends the run, or is background and counted in the results. */
  readonly onBadTile: "throw" | "background";
  /** Pixels as the file holds them, or converted to sRGB by the slide's ICC profile. */
  readonly colour: "raw" | "srgb";
}

export interface DevelopmentConfig extends CommonConfig {
  readonly mode: "development";
  /** The file that INPUT names. */
  readonly input: string | undefined;
  /** Where to look for a slide otherwise. */
  readonly inputDir: string;
  /** True where INPUT_DIR names it: then it must be there. */
  readonly inputDirIsGiven: boolean;
}

export type Credentials =
  | { readonly kind: "jwt"; readonly token: Secret }
  | { readonly kind: "api-key"; readonly id: string; readonly secret: Secret };

export interface ProductionConfig extends CommonConfig {
  readonly mode: "production";
  /** Presigned: its query is a secret. */
  readonly scanUrl: Secret;
  /** True where the URL is SCAN_URL_ZIP's: a zip of DICOM instances. */
  readonly scanIsZip: boolean;
  /** Base of the API without a slash at its end, such as `https://api.app.techcyte.com/api/v3`. */
  readonly apiUrl: string;
  readonly taskId: string;
  readonly credentials: Credentials;
  /** Presigned for PUT. */
  readonly debugFileUploadUrl: Secret | undefined;
  /** Whether the slide is read from its URL as it goes; false downloads it first. */
  readonly stream: boolean;
  /** Where a downloaded slide lies while it is read. */
  readonly workDir: string;
}

export type Config = DevelopmentConfig | ProductionConfig;

/** Every variable that is read, with what it means: `--help` and the README say the same. */
export const VARIABLES: readonly {
  readonly name: string;
  readonly when: "production" | "development" | "both";
  readonly meaning: string;
}[] = [
  { name: "DEV", when: "both", meaning: "1: development mode; 0 or unset: production" },
  {
    name: "SCAN_URL",
    when: "production",
    meaning: "presigned URL of the slide (required, or SCAN_URL_ZIP)",
  },
  {
    name: "SCAN_URL_ZIP",
    when: "production",
    meaning: "presigned URL of a zip of DICOM instances",
  },
  {
    name: "HOST",
    when: "production",
    meaning: "Techcyte host, such as app.techcyte.com (required)",
  },
  { name: "TASK_ID", when: "production", meaning: "the task (required)" },
  {
    name: "SCAN_ID",
    when: "both",
    meaning: "the scan (required in production; default test_scan in development)",
  },
  {
    name: "JWT_TOKEN",
    when: "production",
    meaning: "the task's bearer token (required, or an API key)",
  },
  { name: "API_KEY_ID", when: "production", meaning: "API key, wins over JWT_TOKEN" },
  { name: "API_KEY_SECRET", when: "production", meaning: "secret of the API key" },
  {
    name: "API_URL",
    when: "production",
    meaning: "the API's base (default https://api.HOST/api/v3)",
  },
  {
    name: "DEBUG_FILE_UPLOAD_URL",
    when: "production",
    meaning: "presigned URL for PUT of a zip with log, picture and results",
  },
  {
    name: "STREAM",
    when: "production",
    meaning: "1 (default): reads the slide from its URL as it goes; 0: downloads it first",
  },
  {
    name: "WORK_DIR",
    when: "production",
    meaning: "where a slide is downloaded (default the system's temporary folder)",
  },
  { name: "INPUT", when: "development", meaning: "the slide's path" },
  {
    name: "INPUT_DIR",
    when: "development",
    meaning: "folder whose first slide is taken (default /input, else ./input)",
  },
  {
    name: "OUTPUT_DIR",
    when: "both",
    meaning: "folder for result.png and result.json (default /output, else ./output)",
  },
  {
    name: "CLASSIFIER",
    when: "both",
    meaning:
      "grid (default in development), nuclei (default in production) or onnx (default with MODEL)",
  },
  {
    name: "MODEL",
    when: "both",
    meaning: "path of an ONNX model, with model.json beside it, which the onnx classifier runs",
  },
  {
    name: "TUNING_CACHE",
    when: "both",
    meaning: "file that keeps which tile shapes are fastest on this GPU; unset: the built-in ones",
  },
  {
    name: "PRECISION",
    when: "both",
    meaning:
      "how a model's floats are stored: f32, f16, or auto (default), which compares both on the first batch",
  },
  {
    name: "NUCLEI_THRESHOLD",
    when: "both",
    meaning:
      "least haematoxylin density of a nucleus against its surroundings, 0.01 to 1 (default follows the slide's staining)",
  },
  { name: "ADAPTER", when: "both", meaning: "part of the GPU's name, where there are several" },
  {
    name: "DECODERS",
    when: "both",
    meaning: "threads that decode tiles, 0 to 64 (default the cores, at most 8)",
  },
  {
    name: "ON_BAD_TILE",
    when: "both",
    meaning:
      "throw (default): a tile that cannot be decoded ends the run; background: it is filled and counted",
  },
  {
    name: "COLOUR",
    when: "both",
    meaning:
      "raw (default): pixels as the file holds them; srgb: converted by the slide's ICC profile, where it has one",
  },
  {
    name: "DEADLINE_MINUTES",
    when: "both",
    meaning: "minutes after which the run stops, 0.01 to 1440 (default 85)",
  },
  { name: "LOG_LEVEL", when: "both", meaning: "debug, info (default), warning or error" },
];

/** Variables whose values are taken out of the environment once they are read. */
export const SECRET_VARIABLES: readonly string[] = [
  "SCAN_URL",
  "SCAN_URL_ZIP",
  "JWT_TOKEN",
  "API_KEY_SECRET",
  "DEBUG_FILE_UPLOAD_URL",
];

/** Removes the query and any user name from a URL, for messages. Text that is no URL becomes "[not a URL]". */
export function withoutQuery(url: string): string {
  const parsed = URL.parse(url);
  return parsed ? `${parsed.protocol}//${parsed.host}${parsed.pathname}` : "[not a URL]";
}

const text = (what: string) =>
  v.pipe(v.string(), v.regex(/^[^\s\p{Cc}]+$/u, `must be ${what}, without spaces`));
/** What goes into a header: visible ASCII (RFC 9110 §5.5), checked before the run and not after it. */
const token = (what: string) =>
  v.pipe(
    v.string(),
    v.regex(/^[\x21-\x7e]+$/, `must be ${what}, in visible ASCII`),
    v.minLength(6, `must be ${what}, of 6 characters at least`),
  );
const path = v.pipe(
  v.string(),
  v.nonEmpty("must be a path"),
  // deno-lint-ignore no-control-regex -- control characters are what this refuses
  v.regex(/^[^\x00-\x1f]*$/, "must be a path"),
);
const httpUrl = v.pipe(
  v.string(),
  v.check((s) => {
    const url = URL.parse(s);
    return url !== null && (url.protocol === "https:" || url.protocol === "http:");
  }, "must be an http or https URL"),
);
const number = (min: number, max: number, whole: boolean) =>
  v.pipe(
    v.string(),
    v.regex(/^\d+(\.\d+)?$/, "must be a number"),
    v.transform(Number),
    v.check(
      (n) => n >= min && n <= max && (!whole || Number.isInteger(n)),
      `must be ${whole ? "a whole number" : "a number"} from ${min} to ${max}`,
    ),
  );

const common = {
  CLASSIFIER: v.optional(v.picklist(["grid", "nuclei", "onnx"], "must be grid, nuclei or onnx")),
  ADAPTER: v.optional(v.string()),
  NUCLEI_THRESHOLD: v.optional(number(0.01, 1, false)),
  MODEL: v.optional(path),
  TUNING_CACHE: v.optional(path),
  PRECISION: v.optional(v.picklist(["f32", "f16", "auto"], "must be f32, f16 or auto"), "auto"),
  OUTPUT_DIR: v.optional(path),
  DEADLINE_MINUTES: v.optional(number(0.01, 1440, false), "85"),
  LOG_LEVEL: v.optional(
    v.picklist(["debug", "info", "warning", "error"], "must be debug, info, warning or error"),
    "info",
  ),
  DECODERS: v.optional(number(0, 64, true)),
  ON_BAD_TILE: v.optional(
    v.picklist(["throw", "background"], "must be throw or background"),
    "throw",
  ),
  COLOUR: v.optional(v.picklist(["raw", "srgb"], "must be raw or srgb"), "raw"),
};

const developmentSchema = v.object({
  ...common,
  SCAN_ID: v.optional(text("an identifier"), "test_scan"),
  INPUT: v.optional(path),
  INPUT_DIR: v.optional(path),
});

const productionSchema = v.object({
  ...common,
  SCAN_URL: v.optional(httpUrl),
  SCAN_URL_ZIP: v.optional(httpUrl),
  HOST: v.pipe(
    v.string(),
    v.regex(
      /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?$/i,
      "must be a host name, such as app.techcyte.com",
    ),
  ),
  // It becomes a part of a URL's path, where ".." would be another one.
  TASK_ID: v.pipe(
    v.string(),
    v.regex(/^[A-Za-z0-9+/_=-]+$/, "must be the task's number or its base64 text"),
  ),
  SCAN_ID: v.pipe(v.string(), v.regex(/^\d+$/, "must be the scan's number")),
  JWT_TOKEN: v.optional(token("a token")),
  API_KEY_ID: v.optional(text("a key's identifier")),
  API_KEY_SECRET: v.optional(token("a secret")),
  API_URL: v.optional(
    v.pipe(
      httpUrl,
      v.check((s) => {
        const url = URL.parse(s);
        return url === null || url.username + url.password + url.search + url.hash === "";
      }, "must be a URL without user, password, query and fragment"),
    ),
  ),
  DEBUG_FILE_UPLOAD_URL: v.optional(httpUrl),
  STREAM: v.optional(v.picklist(["0", "1"], "must be 0 or 1"), "1"),
  WORK_DIR: v.optional(path),
});

/** What readConfig must know of the machine. */
export interface Machine {
  /** Logical cores. */
  readonly cores: number;
  readonly tempDir: string;
  /** Whether a folder of that path exists. */
  isFolder(path: string): boolean;
}

/**
 * Checks the environment. A variable set to nothing counts as unset.
 * @throws {ConfigError} that names every variable that is missing or wrong, at once.
 */
export function readConfig(
  env: Readonly<Record<string, string | undefined>>,
  machine: Machine,
): Config {
  const set = Object.fromEntries(
    Object.entries(env).filter(([, value]) => value !== undefined && value.trim() !== ""),
  ) as Record<string, string>;
  const dev = set["DEV"];
  if (dev !== undefined && dev !== "0" && dev !== "1") {
    throw new ConfigError(`DEV must be 0 or 1`, "DEV");
  }
  const problems = new Map<string, string>();
  const parse = <S extends v.GenericSchema>(schema: S): v.InferOutput<S> | undefined => {
    const parsed = v.safeParse(schema, set);
    if (parsed.success) return parsed.output;
    for (const issue of parsed.issues) {
      const name = String(issue.path?.[0]?.key ?? "environment");
      problems.set(name, set[name] === undefined ? "is missing" : issue.message);
    }
  };
  if (set["CLASSIFIER"] === "onnx" && set["MODEL"] === undefined) {
    problems.set("MODEL", "is missing, which CLASSIFIER=onnx runs");
  }
  const fail = (): never => {
    const names = [...problems.keys()];
    const lines = names.map((name) => `${name} ${problems.get(name)}`);
    throw new ConfigError(
      `Cannot start in ${dev === "1" ? "development" : "production"} mode: ${lines.join("; ")}` +
        (dev === undefined && problems.has("HOST") ? " (set DEV=1 for development mode)" : ""),
      names.join(","),
    );
  };
  const folder = (given: string | undefined, mounted: string, local: string) =>
    given ?? (machine.isFolder(mounted) ? mounted : local);
  const shared = (
    env: v.InferOutput<typeof developmentSchema> | v.InferOutput<typeof productionSchema>,
    classifier: Classifier,
  ): CommonConfig => ({
    scanId: env.SCAN_ID,
    // A model that is named is one to run.
    classifier: env.CLASSIFIER ?? (env.MODEL === undefined ? classifier : "onnx"),
    adapter: env.ADAPTER,
    nucleiThreshold: env.NUCLEI_THRESHOLD,
    model: env.MODEL,
    precision: env.PRECISION,
    tuningCache: env.TUNING_CACHE,
    outputDir: folder(env.OUTPUT_DIR, "/output", "./output"),
    deadlineMinutes: env.DEADLINE_MINUTES,
    logLevel: env.LOG_LEVEL,
    decoders: env.DECODERS ?? Math.min(8, machine.cores),
    onBadTile: env.ON_BAD_TILE,
    colour: env.COLOUR,
  });

  if (dev === "1") {
    const parsed = parse(developmentSchema);
    if (parsed === undefined || problems.size > 0) return fail();
    return {
      mode: "development",
      ...shared(parsed, "grid"),
      input: parsed.INPUT,
      inputDir: folder(parsed.INPUT_DIR, "/input", "./input"),
      inputDirIsGiven: parsed.INPUT_DIR !== undefined,
    };
  }

  const parsed = parse(productionSchema);
  if (set["SCAN_URL"] === undefined && set["SCAN_URL_ZIP"] === undefined) {
    problems.set("SCAN_URL", "is missing");
  }
  if (set["API_KEY_ID"] === undefined && set["API_KEY_SECRET"] === undefined) {
    if (set["JWT_TOKEN"] === undefined) problems.set("JWT_TOKEN", "is missing");
  } else {
    for (const name of ["API_KEY_ID", "API_KEY_SECRET"]) {
      if (set[name] === undefined) problems.set(name, "is missing");
    }
  }
  if (parsed === undefined || problems.size > 0) return fail();
  const { API_KEY_ID: id, API_KEY_SECRET: secret, JWT_TOKEN: jwt } = parsed;
  return {
    mode: "production",
    ...shared(parsed, "nuclei"),
    scanUrl: new Secret((parsed.SCAN_URL_ZIP ?? parsed.SCAN_URL)!),
    scanIsZip: parsed.SCAN_URL_ZIP !== undefined,
    apiUrl: (parsed.API_URL ?? `https://api.${parsed.HOST}/api/v3`).replace(/\/+$/, ""),
    taskId: parsed.TASK_ID,
    credentials: id !== undefined && secret !== undefined
      ? { kind: "api-key", id, secret: new Secret(secret) }
      : { kind: "jwt", token: new Secret(jwt!) },
    debugFileUploadUrl: parsed.DEBUG_FILE_UPLOAD_URL === undefined
      ? undefined
      : new Secret(parsed.DEBUG_FILE_UPLOAD_URL),
    stream: parsed.STREAM === "1",
    workDir: parsed.WORK_DIR ?? machine.tempDir,
  };
}
