/**
 * GeoJSON features (RFC 7946) as Techcyte shows them: in level-0 pixels, each with its `bbox` and
 * its `annotation_type`, without which the platform draws no box or refuses the document.
 */

import type {
  BoundingBox,
  Feature,
  FeatureCollection,
  FreeForm,
  Geometry,
  Position,
  Ring,
} from "./schema.ts";

/** The rings of one polygon: its outline, then its holes. An open ring is closed. */
export type Outline = readonly [Ring, ...Ring[]];

/**
 * A rectangle, as a Polygon whose ring goes from the top left corner down, right, up and back.
 * @throws {RangeError} where a number is not finite or a size is negative.
 */
export function boxFeature(
  box: { x0Px: number; y0Px: number; widthPx: number; heightPx: number },
  annotationType: string,
  properties: FreeForm = {},
): Feature {
  if (!(box.widthPx >= 0 && box.heightPx >= 0)) {
    throw new RangeError(`Cannot make a box of ${box.widthPx} × ${box.heightPx} pixels`);
  }
  const [x1, y1, x2, y2] = [
    box.x0Px,
    box.y0Px,
    box.x0Px + box.widthPx,
    box.y0Px + box.heightPx,
  ];
  const ring: Ring = [[x1, y1], [x1, y2], [x2, y2], [x2, y1], [x1, y1]];
  return feature({ type: "Polygon", coordinates: [ring] }, [ring], annotationType, properties);
}

/**
 * One outline becomes a Polygon, several a MultiPolygon. The box is that of the outer rings.
 * @throws {RangeError} where there is no outline, a ring has fewer than 3 corners or a number is
 *   not finite.
 */
export function polygonFeature(
  outlines: readonly Outline[],
  annotationType: string,
  properties: FreeForm = {},
): Feature {
  const polygons = outlines.map((rings) => rings.map(closed));
  const [only] = polygons;
  return feature(
    polygons.length === 1 && only !== undefined
      ? { type: "Polygon", coordinates: only }
      : { type: "MultiPolygon", coordinates: polygons },
    polygons.map((rings) => rings[0]!),
    annotationType,
    properties,
  );
}

/**
 * All points of one kind in one feature; a million of them are well.
 * @throws {RangeError} where there is no point (leave the feature out) or a number is not finite.
 */
export function multiPointFeature(
  points: readonly Position[],
  annotationType: string,
  properties: FreeForm = {},
): Feature {
  return feature(
    { type: "MultiPoint", coordinates: points },
    [points],
    annotationType,
    properties,
  );
}

/** The features of one scan, in the order in which they are drawn. */
export function featureCollection(features: readonly Feature[]): FeatureCollection {
  return { type: "FeatureCollection", features };
}

function feature(
  geometry: Geometry,
  extent: readonly (readonly Position[])[],
  annotationType: string,
  properties: FreeForm,
): Feature {
  return {
    type: "Feature",
    bbox: boundingBox(extent, annotationType),
    geometry,
    properties: { ...properties, annotation_type: annotationType },
  };
}

function boundingBox(
  lists: readonly (readonly Position[])[],
  annotationType: string,
): BoundingBox {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const positions of lists) {
    for (const [x, y] of positions) {
      // NaN would pass every comparison below unseen.
      if (!Number.isFinite(x) || !Number.isFinite(y)) {
        throw new RangeError(`Cannot make a feature "${annotationType}" at (${x}, ${y})`);
      }
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      if (y > bottom) bottom = y;
    }
  }
  if (left === Infinity) {
    throw new RangeError(`Cannot make a feature "${annotationType}" without positions`);
  }
  return [left, top, right, bottom];
}

function closed(ring: Ring): Ring {
  const [first, last] = [ring[0], ring.at(-1)];
  const open = first === undefined || last === undefined ||
    first[0] !== last[0] || first[1] !== last[1];
  if (ring.length < (open ? 3 : 4)) {
    throw new RangeError(`Cannot make a polygon of ${ring.length} positions`);
  }
  return open ? [...ring, first!] : ring;
}
