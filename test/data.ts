/** Where the shared test data lie; tests that need them pass with «skipped: no data» where they do not. */

import { existsSync } from "node:fs";
import { join } from "node:path";

/** The data's folder, which may not be there. */
export const DATA_ROOT = Deno.env.get("WGSLIDE_DATA") ?? "../shared/data";

/** The path of a test file, or undefined, said so, where there are no data. */
export function dataPath(name: string): string | undefined {
  const path = join(DATA_ROOT, name);
  if (existsSync(path)) return path;
  console.log("skipped: no data");
}
