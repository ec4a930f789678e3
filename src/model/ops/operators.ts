/** Every operator that the engine knows, by name; behind its domain and a dot where that is not ONNX's own. */

import { attention } from "./attention.ts";
import { conv } from "./conv.ts";
import { elementwise } from "./elementwise.ts";
import { fusedOperators } from "./fused.ts";
import { matmul } from "./matmul.ts";
import { movement } from "./movement.ts";
import { normalisation } from "./normalisation.ts";
import type { Operator } from "./operator.ts";
import { pool } from "./pool.ts";
import { quantise } from "./quantise.ts";
import { reduce } from "./reduce.ts";
import { resizing } from "./resize.ts";
import { selection } from "./selection.ts";
import { shape } from "./shape.ts";

export const operators: ReadonlyMap<string, Operator> = new Map(
  [
    attention,
    conv,
    elementwise,
    fusedOperators,
    matmul,
    movement,
    normalisation,
    pool,
    quantise,
    reduce,
    resizing,
    selection,
    shape,
  ]
    .flatMap((family) => Object.entries(family)),
);
