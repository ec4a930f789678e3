/** How the GPU computes each operator, by its name; what has no entry here runs on the host. */

import type { Lowering } from "../plan.ts";
import { attentions } from "./attention.ts";
import { convolutions } from "./conv.ts";
import { elementwise } from "./elementwise.ts";
import { movement } from "./movement.ts";
import { normalisations } from "./normalisation.ts";
import { pooling } from "./pool.ts";
import { products } from "./matmul.ts";
import { reductions } from "./reduce.ts";
import { resizing } from "./resize.ts";
import { shape } from "./shape.ts";

export const lowerings: ReadonlyMap<string, Lowering> = new Map(
  [
    attentions,
    convolutions,
    elementwise,
    movement,
    normalisations,
    pooling,
    products,
    reductions,
    resizing,
    shape,
  ]
    .flatMap((family) => Object.entries(family)),
);
