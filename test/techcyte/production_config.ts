import assert from "node:assert/strict";
import { type ProductionConfig, readConfig } from "../../src/config.ts";
import { API_KEY, type ContractServer } from "./contract_server.ts";

/** The configuration of a run against the contract's server, with its API key. */
export function productionConfig(
  server: ContractServer,
  folders: { outputDir: string; workDir: string },
): ProductionConfig {
  const config = readConfig({
    SCAN_URL: server.slideUrl,
    HOST: "app.techcyte.com",
    API_URL: server.apiUrl,
    TASK_ID: "dGFzazoxODU4MzU=",
    SCAN_ID: "8615687",
    API_KEY_ID: API_KEY.id,
    API_KEY_SECRET: API_KEY.secret,
    DEBUG_FILE_UPLOAD_URL: server.uploadUrl,
    WORK_DIR: folders.workDir,
    OUTPUT_DIR: folders.outputDir,
  }, { cores: 1, tempDir: folders.workDir, isFolder: () => true });
  assert.equal(config.mode, "production");
  return config as ProductionConfig;
}
