/** PyTorch as a peer: `torch_kernels.py` in a process of its own, where there is a Python with torch. */

import { join } from "node:path";
import type { PeerTask } from "../kernel_cases.ts";

const SCRIPT = join(import.meta.dirname!, "torch_kernels.py");

export interface TorchTimes {
  /** Milliseconds of one run, by the case's name. */
  readonly times: ReadonlyMap<string, {
    readonly eager_ms?: number;
    readonly compiled_ms?: number;
    readonly problem?: string;
  }>;
  /** What PyTorch it is, and on what. */
  readonly about: Readonly<Record<string, unknown>>;
}

/**
 * Runs all tasks. `PYTHON` names another interpreter than python3.
 * @param seconds after which nothing more is begun; a minute later the process is ended.
 * @returns in words why there is nothing, where there is no such Python.
 */
export async function timeInTorch(
  tasks: readonly { readonly name: string; readonly task: PeerTask }[],
  networks: readonly { readonly name: string; readonly batch: number; readonly size: number }[],
  seconds: number,
): Promise<TorchTimes | string> {
  const python = Deno.env.get("PYTHON") ?? "python3";
  const env = { ...Deno.env.toObject(), PYTHONUNBUFFERED: "1" } as Record<string, string>;
  // Settings that would choose an older processor's kernels for the peer.
  for (const name of ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"]) delete env[name];
  const options = { env, clearEnv: true, stderr: "piped", stdout: "piped" } as const;
  try {
    const probe = await new Deno.Command(python, { args: ["-c", "import torch"], ...options })
      .output();
    if (!probe.success) {
      const why = new TextDecoder().decode(probe.stderr).trim().split("\n").at(-1);
      return `"${python}" has no PyTorch: ${why}`;
    }
  } catch (error) {
    return `there is no "${python}": ${(error as Error).message}`;
  }
  const child = new Deno.Command(python, {
    args: [SCRIPT],
    ...options,
    stdin: "piped",
    stderr: "inherit",
  }).spawn();
  const end = setTimeout(() => child.kill(), (seconds + 60) * 1000);
  const writer = child.stdin.getWriter();
  await writer.write(
    new TextEncoder().encode(JSON.stringify({
      tasks: tasks.map(({ name, task }) => ({ name, ...task })),
      networks,
      seconds,
    })),
  );
  await writer.close();
  const { stdout } = await child.output();
  clearTimeout(end);
  // What it had said before it ended counts, however it ended.
  const lines = new TextDecoder().decode(stdout).split("\n").filter((line) => line.startsWith("{"));
  const [about, ...times] = lines.map((line) => JSON.parse(line));
  if (about === undefined) return `"${SCRIPT}" said nothing`;
  return { about, times: new Map(times.map((result) => [result.name, result])) };
}
