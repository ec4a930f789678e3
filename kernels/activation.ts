/** What kernels apply to a sum before they store it: the numbers and constants of activation.wgsl. */

/** By number, which is ACTIVATION's in the WGSL. */
export const ACTIVATIONS = {
  identity: 0,
  /** max(v, 0): ONNX Relu-14. */
  relu: 1,
  /** a·v below zero, else v: ONNX LeakyRelu-16. */
  leaky_relu: 2,
  /** min(max(v, a), b): ONNX Clip-13. */
  clip: 3,
  /** 1 / (1 + e⁻ᵛ): ONNX Sigmoid-13. */
  sigmoid: 4,
  /** max(0, min(1, a·v + b)): ONNX HardSigmoid-6. */
  hard_sigmoid: 5,
  /** v · hard_sigmoid(v) with a = 1/6, b = 1/2: ONNX HardSwish-14. */
  hard_swish: 6,
  /** v · sigmoid(a·v), SiLU where a is 1: ONNX Swish-24. */
  silu: 7,
  tanh: 8,
  /** v/2 · (1 + erf(v/√2)): ONNX Gelu-20. */
  gelu: 9,
  /** ONNX Gelu-20 with `approximate` = "tanh". */
  gelu_tanh: 10,
  /** a·(eᵛ − 1) below zero, else v: ONNX Elu-6. */
  elu: 11,
  /** ln(1 + eᵛ): ONNX Softplus-1. */
  softplus: 12,
  /** v · tanh(softplus(v)): ONNX Mish-18. */
  mish: 13,
} as const;

export type ActivationName = keyof typeof ACTIVATIONS;

/** An activation with its constants; a bare name takes those of ONNX's defaults. */
export type Activation = ActivationName | {
  readonly name: ActivationName;
  readonly a?: number;
  readonly b?: number;
};

const DEFAULTS: Partial<Record<ActivationName, readonly [a: number, b: number]>> = {
  leaky_relu: [0.01, 0],
  clip: [0, 6],
  hard_sigmoid: [0.2, 0.5],
  silu: [1, 0],
  elu: [1, 0],
};

/** Number and constants, as overrides and Params want them. */
export function activationOf(
  activation: Activation,
): { readonly code: number; readonly a: number; readonly b: number } {
  const { name, a, b } = typeof activation === "string"
    ? { name: activation, a: undefined, b: undefined }
    : { a: undefined, b: undefined, ...activation };
  const [defaultA, defaultB] = DEFAULTS[name] ?? [0, 0];
  return { code: ACTIVATIONS[name], a: a ?? defaultA, b: b ?? defaultB };
}
