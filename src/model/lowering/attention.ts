/** Attention that fusion recognised: one kernel where heads are of a size that it takes. */

import { compileAttention, type HeadLayout, recordAttention } from "../../../kernels/attention.ts";
import { broadcastShape } from "../../../kernels/strides.ts";
import type { AttributeValue } from "../graph.ts";
import { type HostTensor, tensorOf } from "../host_tensor.ts";
import { dense } from "../layout.ts";
import { type Input, NodeReader, type Typed } from "../ops/operator.ts";
import type { GpuValue, Lowering, PlanBuilder, ShapedNode } from "../plan.ts";
import { elementwise } from "./elementwise.ts";
import { products } from "./matmul.ts";
import { normalisations } from "./normalisation.ts";
import { ofRank } from "./operands.ts";

/** Elements from one index to the next along each logical axis, as the value lies. */
function stridesOf({ shape, layout: { order } }: GpuValue): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (const axis of order.toReversed()) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/** A value of up to four axes as [batch, heads, rows, size], whose `size` axis lies innermost. */
function heads(
  builder: PlanBuilder,
  reader: NodeReader,
  i: number,
  sizeAxis: 2 | 3,
): { value: GpuValue; layout: HeadLayout } {
  const rank = reader.shape(i).length;
  const inside = sizeAxis - (4 - rank);
  const lying = builder.input(reader, i);
  const fits = lying.layout.order.at(-1) === inside;
  const rest = dense(rank).order.filter((axis) => axis !== inside);
  const order = fits ? lying.layout.order : [...rest, inside];
  const value = builder.input(reader, i, { order, padded: false });
  const strides = stridesOf(value);
  const at = (axis: number) => axis < 4 - rank ? 0 : strides[axis - (4 - rank)]!;
  return {
    value,
    layout: { offset: 0, batch: at(0), head: at(1), row: at(sizeAxis === 3 ? 2 : 3) },
  };
}

/** softmax(scale · q · kᵀ + mask) · v in four steps. */
function apart(builder: PlanBuilder, { reader, outputs }: ShapedNode): boolean {
  const { node, inputs } = reader;
  const [q, k] = [reader.shape(0), reader.shape(1)];
  const { type } = outputs[0]!;
  const product = [
    ...broadcastShape(q.slice(0, -2), k.slice(0, -2)),
    q.at(-2)!,
    k.at(-1)!,
  ];
  const hasMask = (node.inputs[3] ?? "") !== "";
  let made = 0;
  const step = (
    lower: Lowering,
    op: string,
    given: readonly (readonly [string, Input | undefined])[],
    output: Typed,
    attributes: Readonly<Record<string, AttributeValue>> = {},
    name = `${node.name}/${made++}`,
  ): readonly [string, Input] | undefined => {
    const synthetic = {
      ...node,
      op,
      domain: "",
      opset: 13,
      inputs: given.map(([input]) => input),
      outputs: [name],
      attributes: new Map(Object.entries(attributes)),
    };
    const own = new NodeReader(synthetic, given.map(([, input]) => input));
    const done = lower(builder, { reader: own, outputs: [output] });
    return done ? [name, { ...output, known: undefined }] : undefined;
  };
  const input = (i: number) => [node.inputs[i]!, inputs[i]] as const;
  const scale: HostTensor = tensorOf("float32", [], [reader.number("scale", 1)]);
  // Names of values are unique, those of nodes need not be.
  const scaleName = `${node.outputs[0]}/scale`;
  const inProduct: Typed = { type, shape: product };
  const inScores: Typed = {
    type,
    shape: hasMask ? broadcastShape(product, reader.shape(3)) : product,
  };
  let value = step(products.MatMul!, "MatMul", [input(0), input(1)], inProduct);
  value &&= step(elementwise.Mul!, "Mul", [
    value,
    [scaleName, { type: "float32", shape: [], known: scale }],
  ], inProduct);
  if (hasMask) {
    value &&= step(elementwise.Add!, "Add", [value, input(3)], inScores);
  }
  value &&= step(normalisations.Softmax!, "Softmax", [value], inScores, { axis: -1 });
  return value !== undefined &&
    step(products.MatMul!, "MatMul", [value, input(2)], outputs[0]!, {}, node.outputs[0]!) !==
      undefined;
}

const attention: Lowering = (builder, node) => {
  const { reader, outputs } = node;
  const { gpu, float } = builder;
  const shape = outputs[0]!.shape!;
  const rank = shape.length;
  const [q, k, v] = [reader.shape(0), reader.shape(1), reader.shape(2)];
  const hasMask = (reader.node.inputs[3] ?? "") !== "";
  const mask = hasMask ? reader.shape(3) : [];
  const size = q.at(-1)!;
  const batches = (own: readonly number[]) => own.slice(0, -2).join();
  const full = rank >= 2 && rank <= 4 ? ofRank(shape, 4) : undefined;
  const broadcasts = full !== undefined && mask.length <= 4 &&
    ofRank(mask, 4).every((own, i) => own === 1 || own === [...full.slice(0, 3), k.at(-1)!][i]) &&
    (!hasMask || mask.at(-1) === k.at(-1));
  if (
    full === undefined || !broadcasts || size % 4 !== 0 || size > 128 || v.at(-1) !== size ||
    batches(q) !== batches(k) || batches(q) !== batches(v) || batches(q) !== batches(shape) ||
    q.at(-2) !== shape.at(-2) || k.at(-1) !== v.at(-2) ||
    reader.inputs.slice(0, 3).some((input) => input!.type !== outputs[0]!.type) ||
    (hasMask && reader.input(3).type !== outputs[0]!.type)
  ) return apart(builder, node);
  const query = heads(builder, reader, 0, 3);
  const key = heads(builder, reader, 1, 2);
  const value = heads(builder, reader, 2, 3);
  const masking = hasMask ? builder.input(reader, 3, dense(mask.length)) : undefined;
  // Tokens before heads: what follows joins the heads of a token.
  const order = rank === 4 ? [0, 2, 1, 3] : dense(rank).order;
  const output = builder.output(reader, 0, float, shape, { order, padded: false });
  const strides = ofRank(stridesOf(output), 4);
  builder.step(
    [query.value, key.value, value.value, ...(masking ? [masking] : [])],
    [output],
    compileAttention(gpu, { headSize: size, type: float, mask: hasMask }),
    (recorder, compiled) =>
      recordAttention(recorder, compiled, {
        query: query.value.tensor,
        key: key.value.tensor,
        value: value.value.tensor,
        ...(masking ? { mask: masking.as(ofRank(mask, 4)) } : {}),
        output: output.tensor,
      }, {
        batch: full[0]!,
        heads: full[1]!,
        queries: full[2]!,
        keys: k.at(-1)!,
        layouts: {
          query: query.layout,
          key: key.layout,
          value: value.layout,
          output: {
            offset: 0,
            batch: rank < 4 ? 0 : strides[0]!,
            head: rank < 3 ? 0 : strides[1]!,
            row: strides[2]!,
          },
        },
        scale: reader.number("scale", 1),
      }),
  );
  return true;
};

export const attentions: Readonly<Record<string, Lowering>> = { "wgslide.Attention": attention };
