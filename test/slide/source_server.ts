/** A server of one object, whatever its size, that serves ranges and counts. */

import type { Source } from "../../src/slide/source.ts";

export interface SourceServer {
  readonly url: string;
  /** Of answers so far. */
  requests: number;
  bytes: number;
  stop(): Promise<void>;
}

/** Serves a source until it is stopped, which closes the source. */
export function serveSource(source: Source): SourceServer {
  const { sizeBytes } = source;
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "") ?? [];
    const body = await source.read(Number(first), Number(last) - Number(first) + 1);
    served.requests++;
    served.bytes += body.length;
    return new Response(body, {
      status: 206,
      headers: {
        "content-range": `bytes ${first}-${Number(first) + body.length - 1}/${sizeBytes}`,
        etag: '"1"',
      },
    });
  });
  const served = {
    url: `http://127.0.0.1:${server.addr.port}/slide`,
    requests: 0,
    bytes: 0,
    async stop() {
      await server.shutdown();
      await source.close();
    },
  };
  return served;
}
