/** The kernels' plain twins: loops in f64, written as the formulas at the head of each WGSL file. */

/** product[m, n] = Σ_k a[m, k] · b[k, n] */
export function matmul(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  [rows, inner, columns]: readonly [number, number, number],
): Float64Array {
  const product = new Float64Array(rows * columns);
  for (let m = 0; m < rows; m++) {
    for (let n = 0; n < columns; n++) {
      let sum = 0;
      for (let k = 0; k < inner; k++) sum += a[m * inner + k]! * b[k * columns + n]!;
      product[m * columns + n] = sum;
    }
  }
  return product;
}

/** output[n, y, x, o] = act(bias[o] + Σ_{i, j, c} input[…] · weights[i, j, c, o]) */
export function conv2d(
  input: ArrayLike<number>,
  [images, height, width, channels]: readonly [number, number, number, number],
  weights: ArrayLike<number>,
  [kernelHeight, kernelWidth, , out]: readonly [number, number, number, number],
  bias: ArrayLike<number>,
  { strideY, strideX, padY, padX }: {
    strideY: number;
    strideX: number;
    padY: number;
    padX: number;
  },
  act: (v: number) => number,
): { data: Float64Array; shape: [number, number, number, number] } {
  const outHeight = Math.max(0, Math.floor((height + 2 * padY - kernelHeight) / strideY) + 1);
  const outWidth = Math.max(0, Math.floor((width + 2 * padX - kernelWidth) / strideX) + 1);
  const data = new Float64Array(images * outHeight * outWidth * out);
  let at = 0;
  for (let n = 0; n < images; n++) {
    for (let y = 0; y < outHeight; y++) {
      for (let x = 0; x < outWidth; x++) {
        for (let o = 0; o < out; o++) {
          let sum = bias[o]!;
          for (let i = 0; i < kernelHeight; i++) {
            const sy = y * strideY - padY + i;
            if (sy < 0 || sy >= height) continue;
            for (let j = 0; j < kernelWidth; j++) {
              const sx = x * strideX - padX + j;
              if (sx < 0 || sx >= width) continue;
              for (let c = 0; c < channels; c++) {
                sum += input[((n * height + sy) * width + sx) * channels + c]! *
                  weights[((i * kernelWidth + j) * channels + c) * out + o]!;
              }
            }
          }
          data[at++] = act(sum);
        }
      }
    }
  }
  return { data, shape: [images, outHeight, outWidth, out] };
}

/** found = every pixel of the core that is at least threshold and beats its neighbourhood; no fraction. */
export function peaks(
  scores: ArrayLike<number>,
  [height, width]: readonly [number, number],
  core: { x: number; y: number; width: number; height: number },
  threshold: number,
  radius: number,
): { x: number; y: number; score: number; channel: number }[] {
  const found = [];
  const best = (x: number, y: number) => {
    const at = 4 * (Math.min(Math.max(y, 0), height - 1) * width +
      Math.min(Math.max(x, 0), width - 1));
    return Math.max(scores[at]!, scores[at + 1]!, scores[at + 2]!, scores[at + 3]!);
  };
  for (let y = core.y; y < core.y + core.height; y++) {
    for (let x = core.x; x < core.x + core.width; x++) {
      const here = best(x, y);
      if (here < threshold) continue;
      let beaten = false;
      for (let dy = -radius; dy <= radius; dy++) {
        for (let dx = -radius; dx <= radius; dx++) {
          const there = best(x + dx, y + dy);
          beaten ||= there > here || (there === here && (dy < 0 || (dy === 0 && dx < 0)));
        }
      }
      if (beaten) continue;
      const at = 4 * (y * width + x);
      const channel = [0, 1, 2, 3].find((c) => scores[at + c] === here)!;
      found.push({ x, y, score: here, channel });
    }
  }
  return found;
}
