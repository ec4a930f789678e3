import assert from "node:assert/strict";
import {
  compileConv3d,
  packConv3dWeights,
  recordConv3d,
  type Triple,
} from "../../kernels/conv3d.ts";
import { Batch } from "../../kernels/kernel.ts";
import { Tensor } from "../../kernels/tensor.ts";
import * as reference from "../reference/conv.ts";
import { floats } from "../reference/random.ts";
import { convBound, padded, stored, unpadded } from "./conv.ts";
import { sharedGpu } from "./gpu.ts";

const ONE = [1, 1, 1] as const, NONE = [0, 0, 0] as const;
type Five = readonly [number, number, number, number, number];

const CASES: readonly {
  readonly name: string;
  /** [N, D, H, W, C] and [O, C/groups, KD, KH, KW] */
  readonly input: Five;
  readonly weights: Five;
  readonly groups: number;
  readonly strides: Triple;
  readonly dilations: Triple;
  readonly before: Triple;
  readonly behind: Triple;
}[] = [
  {
    name: "one voxel",
    input: [1, 1, 1, 1, 1],
    weights: [1, 1, 1, 1, 1],
    ...{ groups: 1, strides: ONE, dilations: ONE, before: NONE, behind: NONE },
  },
  {
    name: "primes",
    input: [2, 5, 7, 11, 5],
    weights: [7, 5, 3, 3, 3],
    ...{ groups: 1, strides: ONE, dilations: ONE, before: ONE, behind: ONE },
  },
  {
    name: "all unequal, groups of two into three",
    input: [1, 9, 8, 7, 6],
    weights: [9, 2, 2, 3, 1],
    ...{
      groups: 3,
      strides: [1, 2, 3],
      dilations: [3, 2, 1],
      before: [0, 1, 2],
      behind: [2, 0, 1],
    },
  },
  {
    name: "no image",
    input: [0, 3, 3, 3, 4],
    weights: [4, 4, 2, 2, 2],
    ...{ groups: 1, strides: ONE, dilations: ONE, before: NONE, behind: NONE },
  },
];

for (const type of ["f32", "f16"] as const) {
  Deno.test(`recordConv3d() is ONNX's convolution in ${type}`, async () => {
    const gpu = await sharedGpu();
    if (type === "f16" && !gpu.features.has("shader-f16")) return;
    const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
    for (const { name, input: inputShape, weights: weightsShape, ...attributes } of CASES) {
      const [out, each, ...kernel] = weightsShape;
      const input = stored(type, floats(count(inputShape), 1));
      const weights = stored(type, floats(count(weightsShape), 2));
      const bias = stored(type, floats(out, 3));
      const expected = reference.conv3d(input, inputShape, weights, weightsShape, attributes);
      const magnitudes = reference.conv3d(
        ...[input.map(Math.abs), inputShape, weights.map(Math.abs), weightsShape] as const,
        attributes,
      );
      const compiled = await compileConv3d(gpu, {
        ...{ channels: inputShape[4], outChannels: out, kernel, type, bias: true },
        ...{ ...attributes, activation: "relu" },
      });
      const tensor = (values: ArrayLike<number>, shape: readonly number[]) => {
        const { data, shape: paddedShape } = padded(type, values, shape);
        return Tensor.from(gpu, data, paddedShape);
      };
      const output = tensor(new Float32Array(expected.data.length), expected.shape);
      const packed = packConv3dWeights(compiled, weights);
      const tensors = {
        input: tensor(input, inputShape),
        weights: Tensor.from(gpu, packed.data, packed.shape),
        bias: tensor(bias, [out]),
        output,
      };
      const batch = new Batch(gpu);
      recordConv3d(batch, compiled, tensors, attributes);
      batch.submit();
      const actual = unpadded(await output.readFloats(), out);
      for (const [i, sum] of expected.data.entries()) {
        const before = sum + bias[i % out]!;
        const magnitude = magnitudes.data[i]! + Math.abs(bias[i % out]!);
        const terms = each * count(kernel) + 1;
        const bound = convBound(type, Math.max(before, 0), before, magnitude, terms, false);
        const error = Math.abs(actual[i]! - Math.max(before, 0)) / bound;
        assert.ok(error <= 1, `${name}, ${i}: ${error} of the bound`);
      }
      for (
        const wrong of [{ bias: undefined }, { output: tensors.bias }, { weights: tensors.input }]
      ) {
        assert.throws(
          () => recordConv3d(batch, compiled, { ...tensors, ...wrong }, attributes),
          RangeError,
        );
      }
      assert.throws(() => packConv3dWeights(compiled, new Float32Array(2)), RangeError);
    }
    await assert.rejects(
      compileConv3d(gpu, { channels: 4, outChannels: 4, kernel: [1, 1, 1], groups: 3 }),
      RangeError,
    );
  });
}
