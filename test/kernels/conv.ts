/** What the convolutions' tests share: channels padded for the device, and the bound of errors. */

/** Values as the type stores them. */
export function stored(type: "f32" | "f16", values: Float32Array): Float32Array {
  return type === "f16" ? Float32Array.from(new Float16Array(values)) : values;
}

/** Values with the last axis padded with zeros to a multiple of four, and that shape. */
export function padded(type: "f32" | "f16", values: ArrayLike<number>, shape: readonly number[]) {
  const channels = shape.at(-1)!;
  const to = Math.ceil(channels / 4) * 4;
  const pixels = channels === 0 ? 0 : values.length / channels;
  const data = new (type === "f16" ? Float16Array : Float32Array)(pixels * to);
  for (let i = 0; i < values.length; i++) {
    data[Math.floor(i / channels) * to + i % channels] = values[i]!;
  }
  return { data, shape: [...shape.slice(0, -1), to] };
}

/** The reverse. @throws {Error} where a padding channel is not zero. */
export function unpadded(values: Float32Array, channels: number): Float32Array {
  const to = Math.ceil(channels / 4) * 4;
  const found = new Float32Array(values.length / to * channels);
  for (const [i, value] of values.entries()) {
    const c = i % to;
    if (c < channels) found[Math.floor(i / to) * channels + c] = value;
    else if (value !== 0) throw new Error(`padding channel ${c} is ${value}`);
  }
  return found;
}

/**
 * How far act(sum) may be off: the sum by 2 · terms · 2⁻²⁴ · Σ|terms| (see `worstError`), which no
 * activation here enlarges by more than 1.2; the activation itself by what activation_test.ts allows;
 * what is stored as f16 by half a unit of its last place, 2⁻¹¹ of it or 2⁻²⁵ where subnormal.
 */
export function convBound(
  type: "f32" | "f16",
  expected: number,
  sum: number,
  magnitude: number,
  terms: number,
  activated: boolean,
): number {
  return 2.4 * (terms + 1) * 2 ** -24 * magnitude + 1e-30 +
    (activated ? 4e-6 * Math.abs(expected) + 3e-7 * Math.max(1, Math.abs(sum)) : 0) +
    (type === "f16" ? 2 ** -11 * Math.abs(expected) + 2 ** -25 : 0);
}
