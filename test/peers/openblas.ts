/** OpenBLAS as a peer: its `cblas_sgemm` through Deno's FFI, where the library is installed. */

const LIBRARY = "libopenblas.so.0";
const ROW_MAJOR = 101, NO_TRANS = 111; // cblas.h

function open() {
  // They would choose another processor's kernels; OpenBLAS reads them when it is loaded.
  for (const name of ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"]) Deno.env.delete(name);
  return Deno.dlopen(LIBRARY, {
    cblas_sgemm: {
      // deno-fmt-ignore
      parameters: [
        "i32", "i32", "i32", "i32", "i32", "i32",
        "f32", "buffer", "i32", "buffer", "i32", "f32", "buffer", "i32",
      ],
      result: "void",
    },
    openblas_set_num_threads: { parameters: ["i32"], result: "void" },
    openblas_get_config: { parameters: [], result: "pointer" },
  });
}

export class OpenBlas {
  private constructor(
    readonly library: ReturnType<typeof open>,
    /** Version and the processor whose kernels it uses, in its own words. */
    readonly about: string,
  ) {}

  /** @returns in words why there is none. */
  static open(threads = navigator.hardwareConcurrency): OpenBlas | string {
    let library;
    try {
      library = open();
    } catch (error) {
      return (error as Error).message;
    }
    library.symbols.openblas_set_num_threads(threads);
    const config = library.symbols.openblas_get_config()!;
    return new OpenBlas(library, new Deno.UnsafePointerView(config).getCString());
  }

  /** product [M, N] = a [M, K] · b [K, N], row-major. */
  multiply(
    [rows, inner, columns]: readonly [number, number, number],
    a: Float32Array<ArrayBuffer>,
    b: Float32Array<ArrayBuffer>,
    product: Float32Array<ArrayBuffer>,
  ): void {
    // deno-fmt-ignore
    this.library.symbols.cblas_sgemm(
      ROW_MAJOR, NO_TRANS, NO_TRANS, rows, columns, inner,
      1, a, inner, b, columns, 0, product, columns,
    );
  }

  close(): void {
    this.library.close();
  }
}
