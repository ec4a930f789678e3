/** Products of matrices, with what was fused behind them. */

import {
  compileMatmul,
  type MatmulOptions,
  recordMatmul,
  tuneMatmul,
} from "../../../kernels/matmul.ts";
import { elementCount, type HostTensor, isFloat, numbersOf } from "../host_tensor.ts";
import { dense, type Layout } from "../layout.ts";
import type { Node } from "../graph.ts";
import { gemmShape, matrixProduct } from "../ops/matmul.ts";
import { NodeReader } from "../ops/operator.ts";
import type { GpuValue, Lowering, PackedWeight, PlanBuilder, ShapedNode } from "../plan.ts";
import { toGpu } from "../weights.ts";
import { addedApart } from "./apart.ts";
import { fusedActivation } from "./conv.ts";
import { elementwise } from "./elementwise.ts";

/** An operand as matrices in memory: which of their axes lies inside, and the matrices before them. */
interface Matrices {
  readonly value: GpuValue | PackedWeight;
  readonly transposed: boolean;
}

/** True where the axes before the last two lie in their order, outermost. */
function batchOutside({ order }: Layout): boolean {
  return order.slice(0, -2).every((axis, i) => axis === i);
}

/** Takes an operand as it lies where the last two axes are inside, in either order. */
function matrices(builder: PlanBuilder, reader: NodeReader, i: number): Matrices {
  const value = builder.input(reader, i);
  const rank = value.shape.length;
  const { order } = value.layout;
  if (rank < 2 || !batchOutside(value.layout)) {
    return { value: builder.input(reader, i, dense(rank)), transposed: false };
  }
  const bare = builder.input(reader, i, { order, padded: false });
  return { value: bare, transposed: order.at(-1) === rank - 2 };
}

/** b where it is a constant of two axes: turned once for all, so that a row of it is read along n. */
function constantMatrix(
  builder: PlanBuilder,
  reader: NodeReader,
  transB: boolean,
): PackedWeight | undefined {
  const constant = builder.constant(reader, 1);
  if (constant === undefined || constant.shape.length !== 2) return undefined;
  const { float } = builder;
  const [rows, columns] = constant.shape as [number, number];
  const name = reader.node.inputs[1]!;
  if (!transB) {
    return builder.packed(
      name,
      `matrix ${float}`,
      constant,
      (tensor) => ({ data: toGpu(tensor, float), shape: [rows, columns] }),
    );
  }
  return builder.packed(name, `matrix turned ${float}`, constant, (tensor) => {
    const values = numbersOf(tensor);
    const data = new (float === "f16" ? Float16Array : Float32Array)(rows * columns);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) data[c * rows + r] = values[r * columns + c]!;
    }
    return { data, shape: [columns, rows] };
  });
}

/** MatMul and wgslide.MatMul: a, b, bias per column, residual; scale and transpositions are attributes. */
const matmul: Lowering = (builder, node) => {
  const { reader, outputs } = node;
  const { gpu, float } = builder;
  if (!isFloat(outputs[0]!.type)) return false;
  const isGemm = reader.number("transA", 0) !== 0 || reader.number("transB", 0) !== 0;
  const product = isGemm ? undefined : matrixProduct(reader);
  const { m, k, n } = product ?? gemmShape(withoutSummands(reader));
  const batch = product?.batch ?? [];
  const shape = product?.shape ?? [m, n];
  if (m * k * n * elementCount(batch) === 0) return false;
  const residualName = reader.node.inputs[3] ?? "";
  if (residualName !== "" && reader.shape(3).join() !== shape.join()) {
    return addedApart(builder, node, shape, matmul);
  }
  // A batch serves as it is where it is the output's or of one matrix.
  const ofBatch = (own: readonly number[]) =>
    own.every((size) => size === 1) ? own.map(() => 1) : own.join() === batch.join();
  const [aShape, bShape] = product === undefined ? [[m, k], [k, n]] : [product.a, product.b];
  if (!ofBatch(aShape.slice(0, -2)) || !ofBatch(bShape.slice(0, -2))) return false;
  const transA = reader.number("transA", 0) !== 0, transB = reader.number("transB", 0) !== 0;
  const packed = constantMatrix(builder, reader, transB);
  const a = matrices(builder, reader, 0);
  const b = packed === undefined
    ? matrices(builder, reader, 1)
    : { value: packed, transposed: false };
  const turnA = a.transposed !== transA;
  const turnB = packed === undefined && b.transposed !== transB;
  const bias = biasOf(builder, reader, n);
  if (bias === undefined && (reader.node.inputs[2] ?? "") !== "") return false;
  const residual = residualName === "" ? undefined : builder.input(reader, 3, dense(shape.length));
  const output = builder.output(reader, 0, float, shape);
  const bBatch = elementCount(bShape.slice(0, -2));
  const rows = bBatch === 1 && !turnA ? m * elementCount(batch) : m;
  const options: MatmulOptions = {
    type: float,
    transposeA: turnA,
    transposeB: turnB,
    bias: bias === undefined ? "none" : "columns",
    residual: residual === undefined ? "none" : "before",
    activation: fusedActivation(reader),
    shape: [rows, k, n],
  };
  const compiled = builder.tuner === undefined
    ? compileMatmul(gpu, options)
    : tuneMatmul(builder.tuner, options, [rows, k, n])
      .then((tile) => compileMatmul(gpu, { ...options, tile }));
  const last = (own: readonly number[], x: number, y: number, turned: boolean) => [
    ...(own.length > 2 ? own.slice(0, -2) : []),
    ...(turned ? [y, x] : [x, y]),
  ];
  const aSeen = last(ranked(aShape, batch.length), m, k, turnA);
  const bSeen = last(ranked(bShape, batch.length), k, n, turnB);
  const scale = reader.number("scale", 1);
  builder.step(
    [a.value, b.value, ...(bias ? [bias] : []), ...(residual ? [residual] : [])],
    [output],
    compiled,
    (recorder, ready) =>
      recordMatmul(recorder, ready, {
        a: seen(a.value, aSeen),
        b: seen(b.value, bSeen),
        ...(bias ? { bias: bias.tensor } : {}),
        ...(residual ? { residual: residual.as([...batch, m, n]) } : {}),
        product: output.as([...batch, m, n]),
      }, { scale }),
  );
  return true;
};

/** A shape of as many axes before the last two as the batch has. */
function ranked(shape: readonly number[], batchRank: number): readonly number[] {
  return [...new Array<number>(Math.max(0, batchRank + 2 - shape.length)).fill(1), ...shape];
}

function seen(value: GpuValue | PackedWeight, shape: readonly number[]) {
  return "as" in value ? value.as(shape) : value.tensor.view(shape);
}

/** The node as Gemm's shapes see it: bias and residual are this engine's. */
function withoutSummands(reader: NodeReader): NodeReader {
  return new NodeReader(
    { ...reader.node, inputs: reader.node.inputs.slice(0, 2) },
    reader.inputs.slice(0, 2),
  );
}

/** A bias per column on the GPU. */
function biasOf(
  builder: PlanBuilder,
  reader: NodeReader,
  columns: number,
): PackedWeight | undefined {
  const constant = builder.constant(reader, 2);
  if (constant === undefined) return undefined;
  return builder.packed(
    reader.node.inputs[2]!,
    `columns ${builder.float}`,
    constant,
    (tensor: HostTensor) => ({ data: toGpu(tensor, builder.float), shape: [columns] }),
  );
}

/**
 * Gemm that fusion left alone, since its C is no constant per column: the product, then the sum.
 */
const gemm: Lowering = (builder, { reader, outputs }) => {
  const { m, n, alpha, beta } = gemmShape(reader);
  if (!isFloat(outputs[0]!.type)) return false;
  const hasC = reader.inputs[2] !== undefined;
  if (hasC && beta !== 1) return false;
  const typed = { ...outputs[0]!, shape: [m, n] };
  const node: Node = {
    ...reader.node,
    op: "MatMul",
    domain: "wgslide",
    inputs: [reader.node.inputs[0]!, reader.node.inputs[1]!, "", ""],
    outputs: hasC ? [`${reader.node.name}/product`] : reader.node.outputs,
    attributes: new Map([...reader.node.attributes, ["scale", alpha]]),
  };
  const product = new NodeReader(node, reader.inputs.slice(0, 2));
  if (!matmul(builder, { reader: product, outputs: [typed] })) return false;
  if (!hasC) return true;
  const add: Node = {
    ...reader.node,
    op: "Add",
    inputs: [node.outputs[0]!, reader.node.inputs[2]!],
    attributes: new Map(),
  };
  const sum: ShapedNode = {
    reader: new NodeReader(add, [{ ...typed, known: undefined }, reader.inputs[2]]),
    outputs: [typed],
  };
  return elementwise.Add!(builder, sum);
};

export const products: Readonly<Record<string, Lowering>> = {
  "MatMul": matmul,
  "wgslide.MatMul": matmul,
  "Gemm": gemm,
};
