/**
 * Decoders compiled to WebAssembly by the Cornerstone project, which share one way of being called.
 *
 * They are silent where they fail: a decoder returns what it decoded before. So each picture takes
 * a decoder of its own, which has nothing to return then, and after a failure the instance with its
 * memory is dropped.
 */

/** One decoder of a library. */
export interface WasmDecoder {
  /** Memory for so many bytes of compressed data. */
  getEncodedBuffer(lengthBytes: number): Uint8Array;
  decode(): void;
  getDecodedBuffer(): Uint8Array | Uint8ClampedArray;
  getFrameInfo(): {
    readonly width: number;
    readonly height: number;
    readonly bitsPerSample: number;
    readonly componentCount: number;
    readonly isSigned: boolean;
  };
  delete(): void;
}

/** What a decoded picture must be. */
export interface Expected {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly components: number;
  readonly precision: number;
}

interface Streams {
  print(line: string): void;
  printErr(line: string): void;
}

/** A library, instantiated when first needed. `Exports` is what of it is used. */
export class WasmLibrary<Exports, Decoder extends WasmDecoder> {
  #exports: Promise<Exports> | undefined;
  /** What it printed since decoding began, which else goes to the console. */
  #printed: string[] = [];

  constructor(readonly load: unknown, readonly make: (exports: Exports) => Decoder) {}

  /**
   * Decodes to interleaved samples, of which those wider than a byte are little-endian.
   * @param look called with the decoder once it has decoded.
   * @throws {Error} with the library's words where it fails or the picture is not as expected.
   */
  async decode(
    data: Uint8Array,
    { widthPx, heightPx, components, precision }: Expected,
    look?: (decoder: Decoder) => void,
  ): Promise<Uint8Array> {
    const load = this.load as (streams: Streams) => Promise<Exports>;
    const print = (line: string) => {
      if (this.#printed.length < 20) this.#printed.push(line.trim());
    };
    this.#exports ??= load({ print, printErr: print });
    try {
      const exports = await this.#exports;
      this.#printed = [];
      const decoder = this.make(exports);
      try {
        decoder.getEncodedBuffer(data.length).set(data);
        decoder.decode();
        const info = decoder.getFrameInfo();
        const decoded = decoder.getDecodedBuffer();
        const length = widthPx * heightPx * components * (precision > 8 ? 2 : 1);
        const error = this.#printed.find((line) => /error/i.test(line));
        if (error !== undefined) throw new Error(error);
        if (
          decoded.length !== length || info.width !== widthPx || info.height !== heightPx ||
          info.componentCount !== components || info.bitsPerSample !== precision
        ) {
          throw new Error(
            `${decoded.length} bytes came out where ${length} are due: ${this.#why()}`,
          );
        }
        look?.(decoder);
        return new Uint8Array(decoded); // Some are clamped arrays, and all lie in the memory of WebAssembly.
      } finally {
        decoder.delete();
      }
    } catch (cause) {
      this.#exports = undefined;
      if (cause instanceof Error) throw cause;
      // An exception of C++ is thrown as its address.
      throw new Error(this.#why());
    }
  }

  #why(): string {
    return this.#printed.find((line) => !line.startsWith("[INFO]")) ??
      "the decoder does not say why";
  }
}
