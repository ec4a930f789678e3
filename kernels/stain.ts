/**
 * Stain normalisation of a whole slide: what its stains are, and how its colours are moved to
 * others'. The GPU counts the tissue's colours, each of them exactly, so that an estimate is that of
 * all pixels at once and has the same bits however the slide is cut; the host takes moments and
 * percentiles of the counts in f64. The colours are then moved within the pass of normalise.ts.
 *
 * Macenko et al., «A method for normalizing histology slides for quantitative analysis», ISBI 2009,
 * with the constants of its public implementations (Io 240, β 0.15, α 1). Reinhard et al., «Color
 * transfer between images», IEEE CG&A 21(5):34, 2001, in CIELAB instead of the paper's lαβ, since
 * that is what torchstain, StainTools and TIAToolbox do and what models were trained on.
 */

import code from "./stain_histogram.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { StainError } from "./errors.ts";
import { defineKernel, type Pipeline, type Recorder, rowOfWorkgroups } from "./kernel.ts";
import type { Mix, StainNormalisation } from "./normalise.ts";
import { Tensor } from "./tensor.ts";

export const stainHistogramKernel = defineKernel({
  name: "stain_histogram",
  code,
  params: { pixel_count: "u32" },
  bindings: {
    pixels: { type: "array<u32>", access: "read" },
    histogram: { type: "array<atomic<u32>>", access: "read_write" },
  },
  overrides: { SAMPLES: 3, LEVELS: 206 },
});

/** The light that glass lets through, of 255: densities are −ln((v + 1) / 240). */
export const TRANSMITTED_LIGHT = 240;

/** Least density, on each channel, of what is taken for tissue: β in Macenko's paper. */
export const TISSUE_DENSITY = 0.15;

/** The number of values that tissue can have: v + 1 ≤ 240 · e^(−0.15), 0 to 205. */
export const TISSUE_LEVELS = Math.floor(TRANSMITTED_LIGHT * Math.exp(-TISSUE_DENSITY));

/** Percent of the tissue that may lie beyond either stain's direction: α in Macenko's paper. */
const OUTLIER_PERCENT = 1;

/** With fewer pixels of tissue a hundredth of them, 41, is too few to stand for a stain. */
const LEAST_PIXELS = 4096;

/** Stains nearer than this, in degrees, cannot be told from one stain whose colour varies. */
const LEAST_ANGLE_DEGREES = 5;

/** How often each colour occurs in tissue. */
export interface ColourCounts {
  /** `[206, 206, 206]`: red, green, blue. */
  readonly counts: Uint32Array;
}

/** Two stains and how much of them there is. */
export interface MacenkoStains {
  readonly kind: "macenko";
  /** Unit vectors of density on red, green and blue; haematoxylin first. */
  readonly haematoxylin: readonly [number, number, number];
  readonly eosin: readonly [number, number, number];
  /** The concentrations that 99 % of the tissue are below, of haematoxylin and eosin. */
  readonly concentrations: readonly [number, number];
}

/** Mean and standard deviation of L*, a* and b* (D65). */
export interface ReinhardColours {
  readonly kind: "reinhard";
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

export type StainEstimate = MacenkoStains | ReinhardColours;

/** The stains that public implementations of Macenko's method normalise to. */
export const MACENKO_TARGET: MacenkoStains = {
  kind: "macenko",
  haematoxylin: [0.5626, 0.7201, 0.4062],
  eosin: [0.2159, 0.8012, 0.5581],
  concentrations: [1.9705, 1.0308],
};

/** The mean of 50,000 tiles of 450 slides of TCGA: Slideflow's preset "v3". */
export const REINHARD_TARGET: ReinhardColours = {
  kind: "reinhard",
  mean: [58.12343, 26.483482, -12.701005],
  std: [14.675022, 7.5744166, 5.226378],
};

/**
 * Counts a slide's colours, tile by tile. Tiles may come in any order and size, each pixel once;
 * glass between them adds nothing.
 */
export class StainAccumulator {
  readonly #histogram: Tensor;
  readonly #pipelines: Readonly<Record<3 | 4, Pipeline<typeof stainHistogramKernel.literal>>>;
  #pixels = 0;

  private constructor(
    histogram: Tensor,
    pipelines: Readonly<Record<3 | 4, Pipeline<typeof stainHistogramKernel.literal>>>,
  ) {
    this.#histogram = histogram;
    this.#pipelines = pipelines;
  }

  /** Compiles, and allocates 35 MB on the device. */
  static async create(gpu: Gpu): Promise<StainAccumulator> {
    const compile = (SAMPLES: number) =>
      stainHistogramKernel.compile(gpu, { SAMPLES, LEVELS: TISSUE_LEVELS });
    const [rgb, rgba] = await Promise.all([compile(3), compile(4)]);
    const shape = [TISSUE_LEVELS, TISSUE_LEVELS, TISSUE_LEVELS];
    const histogram = new Tensor(gpu, "u32", shape, "colours of tissue");
    return new StainAccumulator(histogram, { 3: rgb, 4: rgba });
  }

  /**
   * Records the count of `pixels`, u8 [..., 3] or [..., 4] whose alpha is not read.
   * @throws {RangeError} for another shape, and past 2³² pixels, which a count could not hold.
   */
  record(recorder: Recorder, pixels: Tensor): void {
    const samples = pixels.shape.at(-1);
    if (pixels.type !== "u8" || (samples !== 3 && samples !== 4)) {
      throw new RangeError(
        `Cannot count the colours of ${pixels.type} [${pixels.shape.join(", ")}]: ` +
          `u8 [..., 3] or [..., 4] is needed`,
      );
    }
    const count = pixels.byteLength / samples;
    if (this.#pixels + count >= 2 ** 32) {
      throw new RangeError(
        `Cannot count the colours of ${this.#pixels + count} pixels: fewer than 2³² are needed, ` +
          `of which a coarser level of the slide is made`,
      );
    }
    this.#pixels += count;
    recorder.dispatch(this.#pipelines[samples], {
      params: { pixel_count: count },
      bindings: { pixels, histogram: this.#histogram },
    }, rowOfWorkgroups(recorder.gpu, Math.ceil(count / 256)));
  }

  /**
   * What was counted so far; copies 35 MB from the device.
   * @throws {KernelError} where the device fails.
   */
  async read(): Promise<ColourCounts> {
    return { counts: new Uint32Array(await this.#histogram.readBytes()) };
  }

  /**
   * The stains of what was submitted so far.
   * @throws {StainError} where the tissue does not show them; {KernelError} where the device fails.
   */
  async estimate<K extends StainEstimate["kind"]>(
    kind: K,
  ): Promise<Extract<StainEstimate, { kind: K }>> {
    const counts = await this.read();
    const estimate = kind === "macenko" ? estimateMacenko(counts) : estimateReinhard(counts);
    return estimate as Extract<StainEstimate, { kind: K }>;
  }

  /** Frees the device's memory. */
  destroy(): void {
    this.#histogram.destroy();
  }
}

/** Colours that occur, in columns. */
interface Colours {
  readonly length: number;
  /** Pixels of all. */
  readonly total: number;
  readonly red: Uint8Array;
  readonly green: Uint8Array;
  readonly blue: Uint8Array;
  readonly counts: Uint32Array;
}

/** @throws {StainError} where there are too few pixels to say anything. */
function coloursOf({ counts }: ColourCounts): Colours {
  let length = 0, total = 0;
  for (const count of counts) {
    if (count > 0) length++;
    total += count;
  }
  if (total < LEAST_PIXELS) {
    throw new StainError(
      `Cannot estimate stains from ${total} pixels of tissue: ${LEAST_PIXELS} are needed`,
      "too-little-tissue",
    );
  }
  const colours = {
    length,
    total,
    red: new Uint8Array(length),
    green: new Uint8Array(length),
    blue: new Uint8Array(length),
    counts: new Uint32Array(length),
  };
  let i = 0;
  for (let at = 0; at < counts.length; at++) {
    const count = counts[at]!;
    if (count === 0) continue;
    colours.red[i] = at / TISSUE_LEVELS ** 2;
    colours.green[i] = at / TISSUE_LEVELS % TISSUE_LEVELS;
    colours.blue[i] = at % TISSUE_LEVELS;
    colours.counts[i++] = count;
  }
  return colours;
}

/** −ln((v + 1) / 240) of each value of tissue. */
const DENSITIES = Float64Array.from(
  { length: TISSUE_LEVELS },
  (_, v) => -Math.log((v + 1) / TRANSMITTED_LIGHT),
);

type Vector = readonly [number, number, number];

function dot(a: Vector, b: Vector): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/**
 * Stains by Macenko's method: the plane of the densities' two principal axes, and in it the
 * directions that 1 % of the tissue lie beyond. Other than the public implementations, which take
 * a stain's greatest concentration over all pixels, it is taken over tissue: a slide's share of
 * glass says nothing of its stains.
 * @throws {StainError} where there is too little tissue, or one stain only.
 */
export function estimateMacenko(counts: ColourCounts): MacenkoStains {
  const colours = coloursOf(counts);
  const { length, total, red, green, blue } = colours;
  const density = (i: number): Vector => [
    DENSITIES[red[i]!]!,
    DENSITIES[green[i]!]!,
    DENSITIES[blue[i]!]!,
  ];
  const mean = [0, 0, 0];
  for (let i = 0; i < length; i++) {
    const weight = colours.counts[i]! / total;
    density(i).forEach((d, c) => mean[c]! += weight * d);
  }
  const covariance = [[0, 0, 0], [0, 0, 0], [0, 0, 0]];
  for (let i = 0; i < length; i++) {
    const weight = colours.counts[i]! / (total - 1);
    const off = density(i).map((d, c) => d - mean[c]!);
    for (let r = 0; r < 3; r++) {
      for (let c = 0; c < 3; c++) covariance[r]![c]! += weight * off[r]! * off[c]!;
    }
  }
  const oneStain = (why: string) =>
    new StainError(`Cannot tell two stains apart: ${why}`, "one-stain");
  const [first, second] = principalAxes(covariance);
  // A value is a whole number: below the variance of its rounding there is no second direction.
  if (second.variance < 1e-6) throw oneStain("the tissue's densities lie on one line");
  // Densities are positive, and so must be what is counted along the first axis.
  const sign = first.axis[0] + first.axis[1] + first.axis[2] < 0 ? -1 : 1;
  const along = first.axis.map((v) => sign * v) as unknown as Vector;
  const across = second.axis;
  const angles = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    angles[i] = Math.atan2(dot(density(i), across), dot(density(i), along));
  }
  const direction = (angle: number) =>
    along.map((v, c) => v * Math.cos(angle) + across[c]! * Math.sin(angle)) as unknown as Vector;
  const least = percentile(angles, colours, OUTLIER_PERCENT);
  const most = percentile(angles, colours, 100 - OUTLIER_PERCENT);
  if ((most - least) * 180 / Math.PI < LEAST_ANGLE_DEGREES) {
    throw oneStain(
      `their directions are ${((most - least) * 180 / Math.PI).toFixed(1)}° apart, ` +
        `${LEAST_ANGLE_DEGREES}° are needed`,
    );
  }
  // Haematoxylin takes more of the red.
  const [haematoxylin, eosin] = [direction(least), direction(most)].sort((a, b) => b[0] - a[0]) as [
    Vector,
    Vector,
  ];
  const unmixed = unmix(haematoxylin, eosin);
  const concentrations = unmixed.map((row) => {
    const values = new Float64Array(length);
    for (let i = 0; i < length; i++) values[i] = dot(row, density(i));
    return percentile(values, colours, 99);
  }) as [number, number];
  if (!(Math.min(...concentrations) > 0)) {
    throw oneStain("99 % of the tissue have nothing of the second one");
  }
  return { kind: "macenko", haematoxylin, eosin, concentrations };
}

/**
 * Mean and standard deviation of the tissue's CIELAB.
 * @throws {StainError} where there is too little tissue, or none of its colours varies.
 */
export function estimateReinhard(counts: ColourCounts): ReinhardColours {
  const colours = coloursOf(counts);
  const { length, total, red, green, blue } = colours;
  const labs = new Float64Array(3 * length);
  const mean: [number, number, number] = [0, 0, 0];
  for (let i = 0; i < length; i++) {
    const lab = cielab(red[i]!, green[i]!, blue[i]!);
    labs.set(lab, 3 * i);
    for (let c = 0; c < 3; c++) mean[c]! += lab[c]! * colours.counts[i]! / total;
  }
  const variance = [0, 0, 0];
  for (let i = 0; i < length; i++) {
    for (let c = 0; c < 3; c++) {
      variance[c]! += (labs[3 * i + c]! - mean[c]!) ** 2 * colours.counts[i]! / total;
    }
  }
  const std = variance.map(Math.sqrt) as [number, number, number];
  // A step of one value is about 0.4 of L*: below a hundredth nothing but one colour is left.
  if (Math.min(...std) < 0.01) {
    throw new StainError(
      "Cannot estimate colours: the tissue is of one colour, which cannot be spread to another's",
      "one-stain",
    );
  }
  return { kind: "reinhard", mean, std };
}

/**
 * What moves colours from `source`'s stains to `target`'s, for `Normalisation.stain`. With Macenko
 * what neither stain explains is lost, as in the method; with Reinhard glass is moved too.
 * @throws {RangeError} where the two stains of one are the same.
 */
export function stainNormalisation<E extends StainEstimate>(
  source: E,
  target: E,
): StainNormalisation {
  return source.kind === "macenko"
    ? betweenStains(source, target as MacenkoStains)
    : betweenColours(source, target as ReinhardColours);
}

/** density' = target · diag(their concentrations / ours) · unmix(source) · density, in base 2. */
function betweenStains(source: MacenkoStains, target: MacenkoStains): StainNormalisation {
  const rows = unmix(source.haematoxylin, source.eosin);
  const stains = [target.haematoxylin, target.eosin];
  const gains = [0, 1].map((s) => target.concentrations[s]! / source.concentrations[s]!);
  const mix = [0, 1, 2].map((c) =>
    [0, 1, 2].map((j) =>
      stains[0]![c]! * gains[0]! * rows[0]![j]! + stains[1]![c]! * gains[1]! * rows[1]![j]!
    )
  ) as unknown as Mix;
  // density = ln 240 − ln 2 · log2(v + 1), on both sides.
  const light = Math.log2(TRANSMITTED_LIGHT);
  const offset = mix.map(([a, b, c]) => light * (1 - a - b - c)) as [number, number, number];
  return { kind: "densities", mix, offset };
}

/** L*, a* and b* are linear in f(X), f(Y) and f(Z): so is one scaled and shifted to another. */
function betweenColours(source: ReinhardColours, target: ReinhardColours): StainNormalisation {
  const [l, a, b] = [0, 1, 2].map((c) => {
    const gain = target.std[c]! / source.std[c]!;
    return { gain, shift: target.mean[c]! - gain * source.mean[c]! };
  }) as [Moved, Moved, Moved];
  const lightness = (16 * (1 - l.gain) + l.shift) / 116;
  return {
    kind: "cielab",
    mix: [
      [a.gain, l.gain - a.gain, 0],
      [0, l.gain, 0],
      [0, l.gain - b.gain, b.gain],
    ],
    offset: [lightness + a.shift / 500, lightness, lightness - b.shift / 200],
  };
}

interface Moved {
  readonly gain: number;
  readonly shift: number;
}

/**
 * Rows that give the least-squares concentrations of two stains from a density.
 * @throws {RangeError} where they are the same.
 */
function unmix(a: Vector, b: Vector): [Vector, Vector] {
  const [aa, ab, bb] = [dot(a, a), dot(a, b), dot(b, b)];
  const determinant = aa * bb - ab * ab;
  if (!(determinant > 1e-9 * aa * bb)) {
    throw new RangeError(`Cannot unmix the stains [${a.join(", ")}] and [${b.join(", ")}]`);
  }
  const row = (u: Vector, v: Vector, vv: number): Vector =>
    u.map((value, c) => (vv * value - ab * v[c]!) / determinant) as unknown as Vector;
  return [row(a, b, bb), row(b, a, aa)];
}

/** L*, a* and b* of sRGB 0 to 255 under D65, with the constants of the normalise kernels. */
function cielab(red: number, green: number, blue: number): Vector {
  const linear = [LINEAR[red]!, LINEAR[green]!, LINEAR[blue]!] as const;
  const f = (v: number) => v <= 0.008856 ? 7.787 * v + 16 / 116 : Math.cbrt(v);
  const x = f(dot([0.412453, 0.35758, 0.180423], linear) / 0.95047);
  const y = f(dot([0.212671, 0.71516, 0.072169], linear));
  const z = f(dot([0.019334, 0.119193, 0.950227], linear) / 1.08883);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/** Light of each value of sRGB (IEC 61966-2-1). */
const LINEAR = Float64Array.from({ length: 256 }, (_, v) => {
  const part = v / 255;
  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
});

/** The two axes of largest variance, by Jacobi's rotations (Golub & Van Loan, §8.5). */
function principalAxes(
  covariance: readonly (readonly number[])[],
): [{ axis: Vector; variance: number }, { axis: Vector; variance: number }] {
  const a = covariance.map((row) => [...row]);
  const v = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  // Each sweep squares what is off the diagonal: a few are enough.
  for (let sweep = 0; sweep < 32; sweep++) {
    for (const [p, q] of [[0, 1], [0, 2], [1, 2]] as const) {
      if (a[p]![q]! === 0) continue;
      const theta = (a[q]![q]! - a[p]![p]!) / (2 * a[p]![q]!);
      const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
      const cos = 1 / Math.hypot(t, 1), sin = t * cos;
      for (const row of a) {
        [row[p], row[q]] = [cos * row[p]! - sin * row[q]!, sin * row[p]! + cos * row[q]!];
      }
      const [up, uq] = [a[p]!, a[q]!];
      a[p] = up.map((value, k) => cos * value - sin * uq[k]!);
      a[q] = uq.map((value, k) => sin * up[k]! + cos * value);
      for (const row of v) {
        [row[p], row[q]] = [cos * row[p]! - sin * row[q]!, sin * row[p]! + cos * row[q]!];
      }
    }
  }
  const [first, second] = [0, 1, 2].sort((i, j) => a[j]![j]! - a[i]![i]!).map((j) => ({
    axis: v.map((row) => row[j]!) as unknown as Vector,
    variance: a[j]![j]!,
  }));
  return [first!, second!];
}

/**
 * The value that `percent` of all pixels are below, linear between neighbours in their order, as
 * numpy's `percentile`; `values` are those of the colours.
 */
function percentile(values: Float64Array, { counts, total }: Colours, percent: number): number {
  const rank = (total - 1) * percent / 100;
  const low = Math.floor(rank);
  const lower = ordered(values, counts, low);
  return rank === low ? lower : lower + (rank - low) * (ordered(values, counts, low + 1) - lower);
}

/**
 * The value at `rank` from 0 of all pixels in order: they are dropped into bins, and only the bin
 * that has it is sorted.
 */
function ordered(values: Float64Array, counts: Uint32Array, rank: number): number {
  const BINS = 65536;
  let least = Infinity, most = -Infinity;
  for (const value of values) {
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  const scale = most > least ? (BINS - 1) / (most - least) : 0;
  const binOf = (value: number) => Math.floor((value - least) * scale);
  const bins = new Float64Array(BINS);
  for (let i = 0; i < values.length; i++) bins[binOf(values[i]!)]! += counts[i]!;
  let bin = 0, left = rank;
  while (left >= bins[bin]!) left -= bins[bin++]!;
  const inside: number[] = [];
  for (let i = 0; i < values.length; i++) if (binOf(values[i]!) === bin) inside.push(i);
  inside.sort((i, j) => values[i]! - values[j]!);
  for (const i of inside) {
    if (left < counts[i]!) return values[i]!;
    left -= counts[i]!;
  }
  throw new RangeError(`Cannot take rank ${rank}: there are fewer pixels`);
}
