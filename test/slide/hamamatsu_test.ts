import { compareWithDigests, DIGESTS } from "./digests.ts";

for (const name of Object.keys(DIGESTS).filter((name) => name.endsWith(".ndpi"))) {
  Deno.test(`openSlide() reads ${name} as ${DIGESTS[name]!.reader} does`, () =>
    compareWithDigests(name));
}
