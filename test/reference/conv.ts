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
