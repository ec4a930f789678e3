/** The activations of kernels/activation.wgsl in f64. */

import type { ActivationName } from "../../kernels/activation.ts";

/** erf(x) by its series near zero and its continued fraction far out: exact to 1e-13. */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  if (z < 2.5) {
    let term = z, sum = z;
    for (let n = 1; n < 100; n++) {
      term *= -z * z / n;
      sum += term / (2 * n + 1);
    }
    return Math.sign(x) * 2 / Math.sqrt(Math.PI) * sum;
  }
  let fraction = 0; // erfc(z) = e^(−z²)/√π · 1/(z + ½/(z + 1/(z + 3/2/(z + …
  for (let k = 60; k >= 1; k--) fraction = k / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction));
}

const sigmoid = (v: number) => 1 / (1 + Math.exp(-v));
const softplus = (v: number) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));

/** act(v) with constants a and b. */
export function activate(name: ActivationName, v: number, a: number, b: number): number {
  switch (name) {
    case "identity":
      return v;
    case "relu":
      return Math.max(v, 0);
    case "leaky_relu":
      return v >= 0 ? v : a * v;
    case "clip":
      return Math.min(Math.max(v, a), b);
    case "sigmoid":
      return sigmoid(v);
    case "hard_sigmoid":
      return Math.max(0, Math.min(1, a * v + b));
    case "hard_swish":
      return v * Math.max(0, Math.min(1, v / 6 + 0.5));
    case "silu":
      return v * sigmoid(a * v);
    case "tanh":
      return Math.tanh(v);
    case "gelu":
      return 0.5 * v * (1 + erf(v / Math.SQRT2));
    case "gelu_tanh":
      return 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
    case "elu":
      return v > 0 ? v : a * Math.expm1(v);
    case "softplus":
      return softplus(v);
    case "mish":
      return v * Math.tanh(softplus(v));
  }
}
