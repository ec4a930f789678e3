/** Small ICC profiles for tests (ICC.1:2001-04, version 2.4): of a matrix and a gamma, and of a table. */

/** The corners of a space of RGB: XYZ of full red, green and blue, adapted to D50. */
export type Primaries = readonly [red: Xyz, green: Xyz, blue: Xyz];
export type Xyz = readonly [x: number, y: number, z: number];

export interface MatrixProfile {
  readonly primaries: Primaries;
  /** In steps of 1/256. */
  readonly gamma: number;
}

/** Adobe RGB (1998), its primaries adapted to D50. */
export const WIDE: MatrixProfile = {
  primaries: [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [
    0.14919,
    0.06322,
    0.74457,
  ]],
  gamma: 2 + 51 / 256,
};

/** A display's profile (§6.3.1.2, three-component matrix-based). */
export function matrixProfile({ primaries, gamma }: MatrixProfile): Uint8Array<ArrayBuffer> {
  const curve = [...text("curv"), ...u32(0), ...u32(1), ...u16(Math.round(gamma * 256)), 0, 0];
  return profile("XYZ ", [
    ["rXYZ", xyz(primaries[0])],
    ["gXYZ", xyz(primaries[1])],
    ["bXYZ", xyz(primaries[2])],
    ["rTRC", curve],
    ["gTRC", curve],
    ["bTRC", curve],
  ]);
}

/**
 * A profile that is a table, as scanners' are (§6.3.1.1 and §6.5.8, lut16Type).
 * @param labOf CIELAB of a colour, its samples from 0 to 1, at each of `points`³ places.
 */
export function tableProfile(
  points: number,
  labOf: (red: number, green: number, blue: number) => readonly [l: number, a: number, b: number],
): Uint8Array<ArrayBuffer> {
  const identity = [...u16(0), ...u16(65535)];
  const table: number[] = [];
  const last = points - 1;
  for (let red = 0; red <= last; red++) {
    for (let green = 0; green <= last; green++) {
      for (let blue = 0; blue <= last; blue++) {
        const [l, a, b] = labOf(red / last, green / last, blue / last);
        // §6.3.4.2, the encoding of 16 bits before version 4.
        table.push(...u16(l * 652.8), ...u16((a + 128) * 256), ...u16((b + 128) * 256));
      }
    }
  }
  return profile("Lab ", [["A2B0", [
    ...text("mft2"),
    ...u32(0),
    ...[3, 3, points, 0],
    ...[1, 0, 0, 0, 1, 0, 0, 0, 1].flatMap(fixed),
    ...u16(2),
    ...u16(2),
    ...[identity, identity, identity].flat(),
    ...table,
    ...[identity, identity, identity].flat(),
  ]]]);
}

function profile(
  connectionSpace: string,
  tags: readonly (readonly [signature: string, data: readonly number[]])[],
): Uint8Array<ArrayBuffer> {
  const D50: Xyz = [0.9642, 1, 0.8249];
  const all = [...tags, ["wtpt", xyz(D50)] as const];
  let at = 128 + 4 + 12 * all.length;
  const table: number[] = [...u32(all.length)];
  const data: number[] = [];
  for (const [signature, bytes] of all) {
    const padded = [...bytes, ...Array<number>((4 - bytes.length % 4) % 4).fill(0)];
    table.push(...text(signature), ...u32(at), ...u32(bytes.length));
    for (const byte of padded) data.push(byte);
    at += padded.length;
  }
  const header = [
    ...u32(at),
    ...u32(0), // No preferred CMM.
    ...u32(0x02400000), // Version 2.4.
    ...text("scnr"),
    ...text("RGB "),
    ...text(connectionSpace),
    ...[2024, 1, 1, 0, 0, 0].flatMap(u16),
    ...text("acsp"),
    ...u32(0), // Platform.
    ...u32(0), // Flags.
    ...u32(0), // Manufacturer,
    ...u32(0), // model,
    ...u32(0), // and attributes,
    ...u32(0), // in eight bytes, of the device.
    ...u32(0), // Perceptual intent.
    ...D50.flatMap(fixed),
  ];
  return Uint8Array.from([
    ...header,
    ...Array<number>(128 - header.length).fill(0),
    ...table,
    ...data,
  ]);
}

function xyz(value: Xyz): number[] {
  return [...text("XYZ "), ...u32(0), ...value.flatMap(fixed)];
}
function text(value: string): number[] {
  return Array.from(value, (letter) => letter.charCodeAt(0));
}
function u16(value: number): number[] {
  const whole = Math.round(Math.min(65535, Math.max(0, value)));
  return [whole >> 8, whole & 255];
}
function u32(value: number): number[] {
  return [value >>> 24, value >>> 16 & 255, value >>> 8 & 255, value & 255];
}
/** s15Fixed16Number (§5.3.2). */
function fixed(value: number): number[] {
  return u32(Math.round(value * 65536));
}
