/** The convolutions' plain twins: loops in f64 over ONNX's layout of weights, channels last. */

/** Attributes of ONNX Conv-11 in two dimensions; pads as they are applied, [top, left, bottom, right]. */
export interface ConvAttributes {
  readonly groups?: number;
  readonly strides?: readonly [number, number];
  readonly dilations?: readonly [number, number];
  readonly pads?: readonly [number, number, number, number];
}

type Shape4 = readonly [number, number, number, number];

/**
 * sums[n, y, x, o] = Σ_{c, i, j} input[n, y·s − pad + i·d, x·s − pad + j·d, group(o)·C/groups + c] ·
 * weights[o, c, i, j]. Input [N, H, W, C] and sums [N, OH, OW, O] without padding channels.
 */
export function conv2d(
  input: ArrayLike<number>,
  [images, height, width, channels]: Shape4,
  weights: ArrayLike<number>,
  [out, each, kernelHeight, kernelWidth]: Shape4,
  { groups = 1, strides: [sy, sx] = [1, 1], dilations: [dy, dx] = [1, 1], pads = [0, 0, 0, 0] }:
    ConvAttributes,
): { data: Float64Array; shape: [number, number, number, number] } {
  const [top, left, bottom, right] = pads;
  const size = (size: number, kernel: number, stride: number, pads: number, dilation: number) =>
    Math.max(0, Math.floor((size + pads - dilation * (kernel - 1) - 1) / stride) + 1);
  const outHeight = size(height, kernelHeight, sy, top + bottom, dy);
  const outWidth = size(width, kernelWidth, sx, left + right, dx);
  const data = new Float64Array(images * outHeight * outWidth * out);
  let at = 0;
  for (let n = 0; n < images; n++) {
    for (let y = 0; y < outHeight; y++) {
      for (let x = 0; x < outWidth; x++) {
        for (let o = 0; o < out; o++) {
          const first = Math.floor(o / (out / groups)) * each;
          let sum = 0;
          for (let i = 0; i < kernelHeight; i++) {
            const inY = y * sy - top + i * dy;
            if (inY < 0 || inY >= height) continue;
            for (let j = 0; j < kernelWidth; j++) {
              const inX = x * sx - left + j * dx;
              if (inX < 0 || inX >= width) continue;
              const from = ((n * height + inY) * width + inX) * channels + first;
              for (let c = 0; c < each; c++) {
                sum += input[from + c]! *
                  weights[((o * each + c) * kernelHeight + i) * kernelWidth + j]!;
              }
            }
          }
          data[at++] = sum;
        }
      }
    }
  }
  return { data, shape: [images, outHeight, outWidth, out] };
}

/** Bᵀ, G and Aᵀ of Winograd's F(4 × 4, 3 × 3), as Lavin & Gray print them, §4.3. */
const B = [
  [4, 0, -5, 0, 1, 0],
  [0, -4, -4, 1, 1, 0],
  [0, 4, -4, -1, 1, 0],
  [0, -2, -1, 2, 1, 0],
  [0, 2, -1, -2, 1, 0],
  [0, 4, 0, -5, 0, 1],
];
const G = [
  [1 / 4, 0, 0],
  [-1 / 6, -1 / 6, -1 / 6],
  [-1 / 6, 1 / 6, -1 / 6],
  [1 / 24, 1 / 12, 1 / 6],
  [1 / 24, -1 / 12, 1 / 6],
  [0, 0, 1],
];
const A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]];

/** M · x · Mᵀ with |M|. */
function sandwich(matrix: readonly (readonly number[])[], x: number[][]): number[][] {
  const times = (m: readonly (readonly number[])[], x: number[][]) =>
    m.map((row) =>
      x[0]!.map((_, j) => row.reduce((sum, v, k) => sum + Math.abs(v) * x[k]![j]!, 0))
    );
  const turn = (x: number[][]) => x[0]!.map((_, j) => x.map((row) => row[j]!));
  return turn(times(matrix, turn(times(matrix, x))));
}

/**
 * Σ|terms| of each sum of a 3 × 3 convolution by Winograd's F(4 × 4, 3 × 3): the same algorithm with
 * the absolute values of everything, the transforms' coefficients among them.
 */
export function winogradMagnitudes(
  input: ArrayLike<number>,
  [images, height, width, channels]: Shape4,
  weights: ArrayLike<number>,
  [out]: Shape4,
  { pads: [top, left, bottom, right] = [0, 0, 0, 0] }: ConvAttributes,
): Float64Array {
  const outHeight = Math.max(0, height + top + bottom - 2);
  const outWidth = Math.max(0, width + left + right - 2);
  const at = (n: number, y: number, x: number, c: number) =>
    y < 0 || y >= height || x < 0 || x >= width
      ? 0
      : Math.abs(input[((n * height + y) * width + x) * channels + c]!);
  const range = (count: number) => Array.from({ length: count }, (_, i) => i);
  const filters = range(out * channels).map((filter) =>
    sandwich(
      G,
      range(3).map((i) => range(3).map((j) => Math.abs(weights[9 * filter + 3 * i + j]!))),
    )
      .flat()
  );
  const data = new Float64Array(images * outHeight * outWidth * out);
  for (let n = 0; n < images; n++) {
    for (let y0 = 0; y0 < outHeight; y0 += 4) {
      for (let x0 = 0; x0 < outWidth; x0 += 4) {
        const tiles = range(channels).map((c) =>
          sandwich(
            B,
            range(6).map((i) => range(6).map((j) => at(n, y0 - top + i, x0 - left + j, c))),
          )
            .flat()
        );
        for (let o = 0; o < out; o++) {
          const products = range(36).map((t) =>
            tiles.reduce((sum, tile, c) => sum + tile[t]! * filters[o * channels + c]![t]!, 0)
          );
          const sums = sandwich(A, range(6).map((i) => products.slice(6 * i, 6 * i + 6)));
          for (let y = y0; y < Math.min(y0 + 4, outHeight); y++) {
            for (let x = x0; x < Math.min(x0 + 4, outWidth); x++) {
              data[((n * outHeight + y) * outWidth + x) * out + o] = sums[y - y0]![x - x0]!;
            }
          }
        }
      }
    }
  }
  return data;
}

/**
 * sums[n, s·y − pad + d·i, s·x − pad + d·j, o] = Σ_{c, i, j} input[n, y, x, c] ·
 * weights[c, o − group · O/groups, i, j]: ONNX ConvTranspose-11 as it is defined, by scattering.
 */
export function convTranspose2d(
  input: ArrayLike<number>,
  [images, height, width, channels]: Shape4,
  weights: ArrayLike<number>,
  [, outEach, kernelHeight, kernelWidth]: Shape4,
  { groups = 1, strides: [sy, sx] = [1, 1], dilations: [dy, dx] = [1, 1], pads = [0, 0, 0, 0] }:
    ConvAttributes,
  [morey, morex]: readonly [number, number] = [0, 0],
): { data: Float64Array; shape: [number, number, number, number] } {
  const [top, left, bottom, right] = pads;
  const outHeight = sy * (height - 1) + morey + dy * (kernelHeight - 1) + 1 - top - bottom;
  const outWidth = sx * (width - 1) + morex + dx * (kernelWidth - 1) + 1 - left - right;
  const out = outEach * groups;
  const data = new Float64Array(images * outHeight * outWidth * out);
  for (let n = 0; n < images; n++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        for (let c = 0; c < channels; c++) {
          const value = input[((n * height + y) * width + x) * channels + c]!;
          const first = Math.floor(c / (channels / groups)) * outEach;
          for (let i = 0; i < kernelHeight; i++) {
            const outY = y * sy - top + i * dy;
            if (outY < 0 || outY >= outHeight) continue;
            for (let j = 0; j < kernelWidth; j++) {
              const outX = x * sx - left + j * dx;
              if (outX < 0 || outX >= outWidth) continue;
              const at = ((n * outHeight + outY) * outWidth + outX) * out + first;
              for (let o = 0; o < outEach; o++) {
                data[at + o]! += value *
                  weights[((c * outEach + o) * kernelHeight + i) * kernelWidth + j]!;
              }
            }
          }
        }
      }
    }
  }
  return { data, shape: [images, outHeight, outWidth, out] };
}

/** The same as `conv2d` with a depth: input [N, D, H, W, C], weights [O, C/groups, KD, KH, KW]. */
export function conv3d(
  input: ArrayLike<number>,
  [images, depth, height, width, channels]: readonly [number, number, number, number, number],
  weights: ArrayLike<number>,
  [out, each, ...kernel]: readonly [number, number, number, number, number],
  { groups, strides, dilations, before, behind }: {
    groups: number;
    strides: readonly [number, number, number];
    dilations: readonly [number, number, number];
    before: readonly [number, number, number];
    behind: readonly [number, number, number];
  },
): { data: Float64Array; shape: [number, number, number, number, number] } {
  const sizes = [depth, height, width];
  const [od, oh, ow] = sizes.map((size, k) =>
    Math.max(
      0,
      Math.floor(
        (size + before[k]! + behind[k]! - dilations[k]! * (kernel[k]! - 1) - 1) / strides[k]!,
      ) + 1,
    )
  ) as [number, number, number];
  const data = new Float64Array(images * od * oh * ow * out);
  let at = 0;
  const axes = (to: readonly number[], visit: (z: number, y: number, x: number) => void) => {
    for (let z = 0; z < to[0]!; z++) {
      for (let y = 0; y < to[1]!; y++) for (let x = 0; x < to[2]!; x++) visit(z, y, x);
    }
  };
  for (let n = 0; n < images; n++) {
    axes([od, oh, ow], (...voxel) => {
      for (let o = 0; o < out; o++) {
        const first = Math.floor(o / (out / groups)) * each;
        let sum = 0;
        axes(kernel, (...tap) => {
          const [z, y, x] = voxel.map((v, k) =>
            v * strides[k]! - before[k]! + tap[k]! * dilations[k]!
          );
          if ([z, y, x].some((v, k) => v! < 0 || v! >= sizes[k]!)) return;
          const from = (((n * depth + z!) * height + y!) * width + x!) * channels + first;
          for (let c = 0; c < each; c++) {
            const weight = ((o * each + c) * kernel[0] + tap[0]) * kernel[1] + tap[1];
            sum += input[from + c]! * weights[weight * kernel[2] + tap[2]]!;
          }
        });
        data[at++] = sum;
      }
    });
  }
  return { data, shape: [images, od, oh, ow, out] };
}
