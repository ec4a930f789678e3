/**
 * Whole architectures with seeded weights, spelt as PyTorch's exporter spells them: what the engine,
 * ONNX Runtime and the benches run.
 *
 * ResNet (He et al. 2015), EfficientNet-B0 (Tan & Le 2019), U-Net with a ResNet-18 encoder
 * (Ronneberger et al. 2015, as segmentation_models_pytorch has it), ViT-S/16 (Dosovitskiy et al.
 * 2020), ConvNeXt (Liu et al. 2022) and DenseNet (Huang et al. 2016) of a few layers.
 */

import { ModelWriter } from "../../src/model/writer.ts";
import { uniform } from "../reference/random.ts";

export interface Architecture {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** [N, C, H, W] with N open. */
  readonly input: string;
}

/** A network under construction: weights are drawn one after the other from one seed. */
class Network {
  readonly writer: ModelWriter;
  readonly #next: () => number;

  constructor(name: string, seed: number, opset = 17) {
    this.writer = new ModelWriter(name, opset);
    this.#next = uniform(seed);
  }

  /** Uniform weights of that standard deviation about `mean`. */
  weights(shape: readonly number[], deviation: number, mean = 0): string {
    const count = shape.reduce((a, b) => a * b, 1);
    const data = new Float32Array(count);
    const width = deviation * Math.sqrt(12);
    for (let i = 0; i < count; i++) data[i] = mean + width * (this.#next() - 0.5);
    return this.writer.floats(shape, data);
  }

  /** He's deviation, which keeps a ReLU network's values at one size. */
  conv(
    x: string,
    [input, output]: readonly [number, number],
    kernel: number,
    { stride = 1, groups = 1, pad = (kernel - 1) / 2, bias = false, gain = 2 }: {
      stride?: number;
      groups?: number;
      pad?: number;
      bias?: boolean;
      gain?: number;
    } = {},
  ): string {
    const fan = input / groups * kernel ** 2;
    const inputs = [
      x,
      this.weights([output, input / groups, kernel, kernel], Math.sqrt(gain / fan)),
      ...(bias ? [this.weights([output], 0.05)] : []),
    ];
    return this.writer.node("Conv", inputs, {
      dilations: [1, 1],
      group: groups,
      kernel_shape: [kernel, kernel],
      pads: [pad, pad, pad, pad],
      strides: [stride, stride],
    });
  }

  batchNorm(x: string, channels: number): string {
    return this.writer.node("BatchNormalization", [
      x,
      this.weights([channels], 0.1, 1),
      this.weights([channels], 0.1),
      this.weights([channels], 0.1),
      this.weights([channels], 0.1, 1),
    ], { epsilon: 1e-5, momentum: { float: 0.9 } });
  }

  relu(x: string): string {
    return this.writer.node("Relu", [x]);
  }

  /** As the exporter writes SiLU. */
  silu(x: string): string {
    return this.writer.node("Mul", [x, this.writer.node("Sigmoid", [x])]);
  }

  add(a: string, b: string): string {
    return this.writer.node("Add", [a, b]);
  }

  /** Gemm with transposed weights, as the exporter writes Linear on two axes. */
  gemm(x: string, [input, output]: readonly [number, number], name?: string): string {
    return this.writer.node(
      "Gemm",
      [
        x,
        this.weights([output, input], Math.sqrt(1 / input)),
        this.weights([output], 0.05),
      ],
      { alpha: { float: 1 }, beta: { float: 1 }, transB: 1 },
      name,
    );
  }

  /** MatMul and Add, as the exporter writes Linear on three axes. */
  linear(x: string, [input, output]: readonly [number, number], gain = 1): string {
    const product = this.writer.node("MatMul", [
      x,
      this.weights([input, output], Math.sqrt(gain / input)),
    ]);
    return this.add(this.weights([output], 0.02), product);
  }

  layerNorm(x: string, channels: number): string {
    return this.writer.node("LayerNormalization", [
      x,
      this.weights([channels], 0.1, 1),
      this.weights([channels], 0.1),
    ], { axis: -1, epsilon: 1e-6 });
  }

  /** GELU by erf, as exporters before operator set 20 write it. */
  gelu(x: string): string {
    const { writer } = this;
    const erf = writer.node("Erf", [writer.node("Div", [x, writer.floats([], [Math.SQRT2])])]);
    const sum = writer.node("Add", [erf, writer.floats([], [1])]);
    return writer.node("Mul", [writer.node("Mul", [x, sum]), writer.floats([], [0.5])]);
  }

  finish(output: string, shape: readonly (number | string)[]): Architecture {
    this.writer.output(output, "float32", shape);
    return { bytes: this.writer.bytes(), input: "input" };
  }
}

function image(net: Network, size: number | readonly [string, string]): string {
  const [height, width] = typeof size === "number" ? [size, size] : size;
  return net.writer.input("input", "float32", ["batch", 3, height, width]);
}

/** One of ResNet's stages' blocks. */
function residual(
  net: Network,
  x: string,
  input: number,
  width: number,
  stride: number,
  bottleneck: boolean,
): { x: string; channels: number } {
  const output = bottleneck ? 4 * width : width;
  let y: string;
  if (bottleneck) {
    y = net.relu(net.batchNorm(net.conv(x, [input, width], 1), width));
    y = net.relu(net.batchNorm(net.conv(y, [width, width], 3, { stride }), width));
    y = net.batchNorm(net.conv(y, [width, output], 1, { gain: 0.5 }), output);
  } else {
    y = net.relu(net.batchNorm(net.conv(x, [input, width], 3, { stride }), width));
    y = net.batchNorm(net.conv(y, [width, width], 3, { gain: 0.5 }), width);
  }
  const shortcut = stride === 1 && input === output
    ? x
    : net.batchNorm(net.conv(x, [input, output], 1, { stride, gain: 1 }), output);
  return { x: net.relu(net.add(y, shortcut)), channels: output };
}

/** The features of each of ResNet's scales: after the stem, and after each stage. */
function resnetFeatures(net: Network, x: string, blocks: readonly number[], bottleneck: boolean) {
  const features: { x: string; channels: number }[] = [];
  let y = net.relu(net.batchNorm(net.conv(x, [3, 64], 7, { stride: 2 }), 64));
  features.push({ x: y, channels: 64 });
  y = net.writer.node("MaxPool", [y], {
    ceil_mode: 0,
    kernel_shape: [3, 3],
    pads: [1, 1, 1, 1],
    strides: [2, 2],
  });
  let channels = 64;
  for (const [stage, count] of blocks.entries()) {
    for (let block = 0; block < count; block++) {
      const stride = stage > 0 && block === 0 ? 2 : 1;
      ({ x: y, channels } = residual(net, y, channels, 64 << stage, stride, bottleneck));
    }
    features.push({ x: y, channels });
  }
  return features;
}

function resnet(name: string, blocks: readonly number[], bottleneck: boolean, size: number) {
  const net = new Network(name, 1);
  const { x, channels } = resnetFeatures(net, image(net, size), blocks, bottleneck).at(-1)!;
  const pooled = net.writer.node("GlobalAveragePool", [x]);
  const flat = net.writer.node("Flatten", [pooled], { axis: 1 });
  return net.finish(net.gemm(flat, [channels, 1000], "output"), ["batch", 1000]);
}

export const resnet18 = (size = 224): Architecture => resnet("resnet18", [2, 2, 2, 2], false, size);
export const resnet50 = (size = 224): Architecture => resnet("resnet50", [3, 4, 6, 3], true, size);

/** EfficientNet-B0's stages: expansion, channels, blocks, stride, kernel. */
const B0 = [
  [1, 16, 1, 1, 3],
  [6, 24, 2, 2, 3],
  [6, 40, 2, 2, 5],
  [6, 80, 3, 2, 3],
  [6, 112, 3, 1, 5],
  [6, 192, 4, 2, 5],
  [6, 320, 1, 1, 3],
] as const;

export function efficientnetB0(size = 224): Architecture {
  const net = new Network("efficientnet_b0", 2);
  const { writer } = net;
  let x = net.silu(net.batchNorm(net.conv(image(net, size), [3, 32], 3, { stride: 2 }), 32));
  let channels = 32;
  for (const [expansion, output, blocks, firstStride, kernel] of B0) {
    for (let block = 0; block < blocks; block++) {
      const stride = block === 0 ? firstStride : 1;
      const wide = channels * expansion;
      let y = x;
      if (expansion > 1) y = net.silu(net.batchNorm(net.conv(y, [channels, wide], 1), wide));
      y = net.conv(y, [wide, wide], kernel, { stride, groups: wide });
      y = net.silu(net.batchNorm(y, wide));
      // Squeeze and excitation.
      const squeezed = Math.max(1, Math.floor(channels / 4));
      let s = writer.node("ReduceMean", [y], { axes: [2, 3], keepdims: 1 });
      s = net.silu(net.conv(s, [wide, squeezed], 1, { bias: true }));
      s = net.conv(s, [squeezed, wide], 1, { bias: true });
      y = writer.node("Mul", [y, writer.node("Sigmoid", [s])]);
      y = net.batchNorm(net.conv(y, [wide, output], 1, { gain: 4 }), output);
      x = stride === 1 && channels === output ? net.add(y, x) : y;
      channels = output;
    }
  }
  x = net.silu(net.batchNorm(net.conv(x, [channels, 1280], 1), 1280));
  const flat = writer.node("Flatten", [writer.node("GlobalAveragePool", [x])], { axis: 1 });
  return net.finish(net.gemm(flat, [1280, 1000], "output"), ["batch", 1000]);
}

/** U-Net with a ResNet-18 encoder and open height and width, multiples of 32. */
export function unet(classes = 3): Architecture {
  const net = new Network("unet_resnet18", 3);
  const { writer } = net;
  const features = resnetFeatures(net, image(net, ["height", "width"]), [2, 2, 2, 2], false);
  let { x, channels } = features.pop()!;
  for (const width of [256, 128, 64, 32, 16]) {
    x = writer.node("Resize", [x, "", writer.floats([4], [1, 1, 2, 2])], {
      coordinate_transformation_mode: "asymmetric",
      cubic_coeff_a: { float: -0.75 },
      mode: "nearest",
      nearest_mode: "floor",
    });
    const skip = features.pop();
    if (skip !== undefined) {
      x = writer.node("Concat", [x, skip.x], { axis: 1 });
      channels += skip.channels;
    }
    for (const input of [channels, width]) {
      x = net.relu(net.batchNorm(net.conv(x, [input, width], 3), width));
    }
    channels = width;
  }
  const { writer: w } = net;
  const head = net.conv(x, [channels, classes], 3, { bias: true });
  const probabilities = w.node("Softmax", [head], { axis: 1 }, "output");
  return net.finish(probabilities, ["batch", classes, "height", "width"]);
}

/** A vision transformer with a class token; ViT-S/16 where nothing is said. */
export function vit(
  { size = 224, patch = 16, width = 384, heads = 6, depth = 12, spelt = false }: {
    readonly size?: number;
    readonly patch?: number;
    readonly width?: number;
    readonly heads?: number;
    readonly depth?: number;
    /** Layer norm in single operators, as exporters before operator set 17 write it. */
    readonly spelt?: boolean;
  } = {},
): Architecture {
  const net = new Network("vit", 4);
  const { writer } = net;
  const x0 = image(net, size);
  const tokens = (size / patch) ** 2;
  let x = net.conv(x0, [3, width], patch, { stride: patch, pad: 0, bias: true, gain: 1 });
  // As x.flatten(2).transpose(1, 2) comes out where the batch is open.
  const batch = writer.node("Gather", [
    writer.node("Shape", [x]),
    writer.integers([0], true),
  ], { axis: 0 });
  const shape = writer.node("Concat", [
    writer.node("Unsqueeze", [batch, writer.integers([0])]),
    writer.integers([width]),
    writer.integers([-1]),
  ], { axis: 0 });
  x = writer.node("Transpose", [writer.node("Reshape", [x, shape])], { perm: [0, 2, 1] });
  const cls = writer.node("Expand", [
    net.weights([1, 1, width], 0.02),
    writer.node("Concat", [
      writer.node("Unsqueeze", [batch, writer.integers([0])]),
      writer.integers([1]),
      writer.integers([width]),
    ], { axis: 0 }),
  ]);
  x = writer.node("Concat", [cls, x], { axis: 1 });
  x = net.add(x, net.weights([1, tokens + 1, width], 0.02));
  const each = width / heads;
  const norm = (y: string) => {
    if (!spelt) return net.layerNorm(y, width);
    const centred = writer.node("Sub", [y, writer.node("ReduceMean", [y], { axes: [-1] })]);
    const square = writer.node("Pow", [centred, writer.floats([], [2])]);
    const variance = writer.node("ReduceMean", [square], { axes: [-1] });
    const root = writer.node("Sqrt", [writer.node("Add", [variance, writer.floats([], [1e-6])])]);
    const scaled = writer.node("Mul", [
      writer.node("Div", [centred, root]),
      net.weights([width], 0.1, 1),
    ]);
    return writer.node("Add", [scaled, net.weights([width], 0.1)]);
  };
  for (let block = 0; block < depth; block++) {
    const qkv = writer.node("Transpose", [
      writer.node("Reshape", [
        net.linear(norm(x), [width, 3 * width]),
        writer.integers([0, tokens + 1, 3, heads, each]),
      ]),
    ], { perm: [2, 0, 3, 1, 4] });
    const [q, k, v] = [0, 1, 2].map((i) =>
      writer.node("Gather", [qkv, writer.integers([i], true)], { axis: 0 })
    ) as [string, string, string];
    // √scale on either side, as scaled_dot_product_attention is exported.
    const root = writer.floats([], [Math.sqrt(1 / Math.sqrt(each))]);
    const keys = writer.node("Transpose", [k], { perm: [0, 1, 3, 2] });
    const scores = writer.node("MatMul", [
      writer.node("Mul", [q, root]),
      writer.node("Mul", [keys, root]),
    ]);
    const attended = writer.node("MatMul", [writer.node("Softmax", [scores], { axis: -1 }), v]);
    const joined = writer.node("Reshape", [
      writer.node("Transpose", [attended], { perm: [0, 2, 1, 3] }),
      writer.integers([0, tokens + 1, width]),
    ]);
    x = net.add(x, net.linear(joined, [width, width]));
    const hidden = net.gelu(net.linear(norm(x), [width, 4 * width], 2));
    x = net.add(x, net.linear(hidden, [4 * width, width]));
  }
  const token = writer.node("Gather", [norm(x), writer.integers([0], true)], { axis: 1 });
  return net.finish(net.gemm(token, [width, 1000], "output"), ["batch", 1000]);
}

/** Two stages of ConvNeXt: depthwise 7 × 7, and a layer norm and products on channels-last. */
export function convnext(size = 64): Architecture {
  const net = new Network("convnext", 5);
  const { writer } = net;
  const turned = (y: string, work: (inside: string) => string) =>
    writer.node("Transpose", [work(writer.node("Transpose", [y], { perm: [0, 2, 3, 1] }))], {
      perm: [0, 3, 1, 2],
    });
  let channels = 32;
  let x = net.conv(image(net, size), [3, channels], 4, { stride: 4, pad: 0, bias: true, gain: 1 });
  x = turned(x, (inside) => net.layerNorm(inside, channels));
  for (const stage of [0, 1]) {
    for (let block = 0; block < 2; block++) {
      const wide = net.conv(x, [channels, channels], 7, { groups: channels, bias: true, gain: 1 });
      const y = turned(wide, (inside) => {
        const hidden = net.gelu(
          net.linear(net.layerNorm(inside, channels), [channels, 4 * channels]),
        );
        const out = net.linear(hidden, [4 * channels, channels]);
        return writer.node("Mul", [out, net.weights([channels], 0.1, 0.5)]);
      });
      x = net.add(x, y);
    }
    if (stage === 0) {
      const normed = turned(x, (inside) => net.layerNorm(inside, channels));
      x = net.conv(normed, [channels, 2 * channels], 2, { stride: 2, pad: 0, bias: true, gain: 1 });
      channels *= 2;
    }
  }
  const pooled = writer.node("ReduceMean", [x], { axes: [-2, -1], keepdims: 0 });
  return net.finish(net.gemm(net.layerNorm(pooled, channels), [channels, 10], "output"), [
    "batch",
    10,
  ]);
}

/** A dense block and a transition of DenseNet: channels that are no multiples of anything. */
export function densenet(size = 32, growth = 6): Architecture {
  const net = new Network("densenet", 6);
  const { writer } = net;
  let channels = 10;
  let x = net.relu(net.batchNorm(net.conv(image(net, size), [3, channels], 3), channels));
  for (const layers of [3, 2]) {
    for (let layer = 0; layer < layers; layer++) {
      let y = net.relu(net.batchNorm(x, channels));
      y = net.relu(net.batchNorm(net.conv(y, [channels, 4 * growth], 1), 4 * growth));
      y = net.conv(y, [4 * growth, growth], 3);
      x = writer.node("Concat", [x, y], { axis: 1 });
      channels += growth;
    }
    const half = Math.floor(channels / 2);
    x = net.conv(net.relu(net.batchNorm(x, channels)), [channels, half], 1);
    x = writer.node("AveragePool", [x], { kernel_shape: [2, 2], strides: [2, 2] });
    channels = half;
  }
  const pooled = writer.node("GlobalAveragePool", [net.relu(net.batchNorm(x, channels))]);
  const flat = writer.node("Reshape", [pooled, writer.integers([-1, channels])]);
  return net.finish(net.gemm(flat, [channels, 7], "output"), ["batch", 7]);
}

/** Those that the issue names, at their real sizes. */
export const ARCHITECTURES = {
  "ResNet-18": () => resnet18(),
  "ResNet-50": () => resnet50(),
  "EfficientNet-B0": () => efficientnetB0(),
  "U-Net (ResNet-18)": () => unet(),
  "ViT-S/16": () => vit(),
} as const;
