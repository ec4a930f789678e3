import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import sharp from "sharp";
import { CodecError, UnsupportedError } from "../../src/errors.ts";
import { TileDecoder } from "../../src/slide/codec.ts";
import type { RawTile } from "../../src/slide/slide.ts";
import { mutate } from "../conformance/mutate.ts";
import { dataPath } from "../data.ts";
import { bytes as randomBytes } from "../reference/random.ts";
import { deflate, jpeg, lzw, pattern } from "./tiff_builder.ts";

const WIDTH = 19, HEIGHT = 7;

const RAW: RawTile = {
  data: pattern(WIDTH, HEIGHT) as Uint8Array<ArrayBuffer>,
  compression: "none",
  widthPx: WIDTH,
  heightPx: HEIGHT,
  samplesPerPixel: 3,
  bitsPerSample: 8,
  photometric: "rgb",
  alpha: "none",
  predictor: "none",
  littleEndian: true,
  jpegTables: undefined,
};

async function decode(tile: RawTile, threads = 0): Promise<Uint8Array> {
  return await new TileDecoder(threads).decode(tile);
}

const COMPRESS = {
  none: (bytes: Uint8Array) => bytes.slice(),
  deflate,
  lzw,
  zstd: (bytes: Uint8Array) => Uint8Array.from(zstdCompressSync(bytes)),
  packbits: packBits,
};

/** PackBits of literals alone, which is as good as any to a decoder. */
function packBits(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const out: number[] = [];
  for (let at = 0; at < bytes.length; at += 128) {
    const literal = bytes.subarray(at, at + 128);
    out.push(literal.length - 1, ...literal);
  }
  return Uint8Array.from(out);
}

/** Samples as a tile of `bits` holds them, differenced along rows where there is a predictor. */
function store(
  samples: ArrayLike<number>,
  { samplesPerPixel: n, bitsPerSample, predictor, littleEndian, widthPx }: RawTile,
): Uint8Array {
  const out = new Uint8Array(samples.length * bitsPerSample / 8);
  const view = new DataView(out.buffer);
  for (let i = 0; i < samples.length; i++) {
    const isFirst = i % (widthPx * n) < n;
    const value = samples[i]! - (predictor === "horizontal" && !isFirst ? samples[i - n]! : 0);
    if (bitsPerSample === 8) view.setUint8(i, value);
    else view.setUint16(2 * i, value, littleEndian);
  }
  return out;
}

/** A tile's pixel, as libtiff shows it, over white. */
function shown(samples: ArrayLike<number>, pixel: number, tile: RawTile): number[] {
  const { samplesPerPixel: n, bitsPerSample, photometric, alpha } = tile;
  const isGrey = photometric.startsWith("grey");
  const byte = (sample: number) => {
    if (bitsPerSample === 8) return sample;
    return isGrey ? sample >> 8 : Math.round(sample / 257);
  };
  return [0, 1, 2].map((channel) => {
    const value = byte(samples[pixel * n + (isGrey ? 0 : channel)]!);
    if (photometric === "grey-inverted") return 255 - value;
    if (alpha === "none") return value;
    const opacity = byte(samples[pixel * n + 3]!);
    const weighted = alpha === "associated" ? value : Math.round(value * opacity / 255);
    return Math.min(255, weighted + 255 - opacity);
  });
}

for (const compression of ["none", "deflate", "lzw", "zstd", "packbits"] as const) {
  for (const predictor of ["none", "horizontal"] as const) {
    const predicts = compression !== "none" && compression !== "packbits";
    if (predictor === "horizontal" && !predicts) continue;
    const name = predictor === "none" ? compression : `${compression} with a predictor`;
    Deno.test(`TileDecoder.decode() reads ${name} of every kind of samples`, async () => {
      const kinds: Partial<RawTile>[] = [
        { photometric: "rgb", samplesPerPixel: 3 },
        { photometric: "rgb", samplesPerPixel: 4, alpha: "none" },
        { photometric: "rgb", samplesPerPixel: 4, alpha: "associated" },
        { photometric: "rgb", samplesPerPixel: 4, alpha: "unassociated" },
        { photometric: "grey", samplesPerPixel: 1 },
        { photometric: "grey", samplesPerPixel: 2 },
        { photometric: "grey-inverted", samplesPerPixel: 1 },
      ];
      for (const kind of kinds) {
        for (const bitsPerSample of [8, 16]) {
          for (const littleEndian of [true, false]) {
            const layout = { ...RAW, compression, predictor, ...kind, bitsPerSample, littleEndian };
            const count = WIDTH * HEIGHT * layout.samplesPerPixel;
            const random = randomBytes(2 * count, 5);
            const samples = bitsPerSample === 8
              ? random.subarray(0, count)
              : new Uint16Array(random.buffer);
            const tile = { ...layout, data: COMPRESS[compression](store(samples, layout)) };
            const expected = Array.from(
              { length: WIDTH * HEIGHT },
              (_, pixel) => shown(samples, pixel, layout),
            ).flat();
            const what = JSON.stringify({ ...kind, bitsPerSample, littleEndian });
            assert.deepEqual(Array.from(await decode(tile)), expected, what);
          }
        }
      }
    });
  }
}

Deno.test("TileDecoder.decode() joins planes, each compressed by itself", async () => {
  const planes = [0, 1, 2].map((p) => RAW.data.filter((_, i) => i % 3 === p));
  for (const [name, compress] of Object.entries(COMPRESS)) {
    const parts = planes.map(compress);
    const tile: RawTile = {
      ...RAW,
      compression: name as keyof typeof COMPRESS,
      data: concat(...parts),
      planeBytes: parts.map(({ length }) => length),
    };
    assert.deepEqual(await decode(tile), RAW.data, name);
    await assert.rejects(decode({ ...tile, planeBytes: tile.planeBytes!.slice(1) }), {
      name: "CodecError",
    });
  }
  const twice = planes.map((plane) => concat(...Array.from(plane, (v) => Uint8Array.of(v, v))));
  const sixteen = {
    ...RAW,
    bitsPerSample: 16,
    data: concat(...twice),
    planeBytes: twice.map(({ length }) => length),
  };
  assert.deepEqual(await decode(sixteen), RAW.data); // 257 v is v of 255.
});

Deno.test("TileDecoder.decode() joins planes of JPEG", async () => {
  const planes = [1, 2, 3].map((seed) => pattern(16, 16, 1, seed));
  const parts = await Promise.all(
    planes.map((plane) =>
      sharp(plane, { raw: { width: 16, height: 16, channels: 1 } }).toColourspace("b-w")
        .jpeg({ quality: 100 }).toBuffer()
    ),
  );
  const tile: RawTile = {
    ...RAW,
    widthPx: 16,
    heightPx: 16,
    compression: "jpeg",
    data: concat(...parts),
    planeBytes: parts.map(({ length }) => length),
  };
  const expected = await Promise.all(
    parts.map((part) => sharp(part).toColourspace("b-w").raw().toBuffer()),
  );
  const rgb = await decode(tile);
  assert.deepEqual(rgb, rgb.map((_, i) => expected[i % 3]![Math.floor(i / 3)]!));
});

Deno.test("TileDecoder.decode() looks palettes up, past their end their last colour", async () => {
  const palette = Uint8Array.of(1, 2, 3, 40, 50, 60, 255, 0, 7);
  const tile = { ...RAW, samplesPerPixel: 1, photometric: "palette", palette } as const;
  const shown = (value: number) =>
    Array.from(palette.subarray(3 * Math.min(value, 2)).subarray(0, 3));
  const values = Array.from({ length: WIDTH * HEIGHT }, (_, i) => i % 5);
  const expected = Uint8Array.from(values.flatMap(shown));
  assert.deepEqual(await decode({ ...tile, data: Uint8Array.from(values) }), expected);
  const wide = concat(...values.map((value) => Uint8Array.of(0, value)));
  assert.deepEqual(
    await decode({ ...tile, bitsPerSample: 16, littleEndian: false, data: wide }),
    expected,
  );
  await assert.rejects(
    decode({ ...tile, palette: new Uint8Array(), data: Uint8Array.from(values) }),
    {
      name: "CodecError",
      message: /its palette is missing/,
    },
  );
});

Deno.test("TileDecoder.decode() converts YCbCr as libjpeg does", async () => {
  // The primaries, black, white and grey by ITU-T T.871, within the rounding of 8 bits.
  const rows: [ycbcr: number[], rgb: number[]][] = [
    [[0, 128, 128], [0, 0, 0]],
    [[255, 128, 128], [255, 255, 255]],
    [[76, 85, 255], [254, 0, 0]],
    [[150, 44, 21], [0, 255, 1]],
    [[29, 255, 107], [0, 0, 254]],
    [[100, 128, 128], [100, 100, 100]],
  ];
  const tile = { ...RAW, photometric: "ycbcr", widthPx: rows.length, heightPx: 1 } as const;
  const data = Uint8Array.from(rows.flatMap(([ycbcr]) => ycbcr));
  assert.deepEqual(Array.from(await decode({ ...tile, data })), rows.flatMap(([, rgb]) => rgb));
});

Deno.test("TileDecoder.decode() repeats the chroma of a data unit, cut at the edges", async () => {
  const [widthPx, heightPx] = [5, 3];
  const luma = (x: number, y: number) => 20 * x + 10 * y;
  for (const [across, down] of [[2, 2], [2, 1], [4, 1], [1, 2]] as const) {
    const units: number[] = [];
    for (let y = 0; y < heightPx; y += down) {
      for (let x = 0; x < widthPx; x += across) {
        for (let i = 0; i < across * down; i++) {
          units.push(luma(x + i % across, y + Math.floor(i / across)));
        }
        units.push(128, 128 + 10 * x + y);
      }
    }
    const layout = { ...RAW, photometric: "ycbcr", widthPx, heightPx } as const;
    const rgb = await decode({
      ...layout,
      subsampling: [across, down],
      data: Uint8Array.from(units),
    });
    const whole: number[] = [];
    for (let y = 0; y < heightPx; y++) {
      for (let x = 0; x < widthPx; x++) {
        whole.push(luma(x, y), 128, 128 + 10 * (x - x % across) + (y - y % down));
      }
    }
    const expected = await decode({ ...layout, data: Uint8Array.from(whole) });
    assert.deepEqual(rgb, expected, `${across} × ${down}`);
    await assert.rejects(
      decode({ ...layout, subsampling: [across, down], data: Uint8Array.from(units.slice(1)) }),
      { name: "CodecError" },
    );
  }
});

Deno.test("TileDecoder.decode() scales the bits that are stored, and passes the others by", async () => {
  const values = [0, 1, 2048, 4095, 0xf000 + 100];
  const data = concat(...values.map((value) => Uint8Array.of(value & 255, value >> 8)));
  const tile = {
    ...RAW,
    data,
    widthPx: values.length,
    heightPx: 1,
    samplesPerPixel: 1,
    bitsPerSample: 16,
    bitsStored: 12,
    photometric: "grey",
  } as const;
  const rgb = await decode(tile);
  assert.deepEqual(Array.from(rgb.filter((_, i) => i % 3 === 0)), [0, 0, 128, 255, 6]);
});

Deno.test("TileDecoder.decode() reads DICOM's RLE", async () => {
  const pixels = WIDTH * HEIGHT;
  const packed = [0, 1, 2].map((p) => packBits(RAW.data.filter((_, i) => i % 3 === p)));
  const header = new Uint8Array(64);
  const view = new DataView(header.buffer);
  view.setUint32(0, 3, true);
  let at = 64;
  for (const [i, { length }] of packed.entries()) {
    view.setUint32(4 + 4 * i, at, true);
    at += length;
  }
  const data = concat(header, ...packed);
  assert.deepEqual(await decode({ ...RAW, compression: "rle", data }), RAW.data);
  await assert.rejects(
    decode({ ...RAW, compression: "rle", data: data.subarray(0, at - pixels) }),
    { name: "CodecError" },
  );
});

Deno.test("TileDecoder.decode() reads WebP with and without alpha", async () => {
  const raw = { width: WIDTH, height: HEIGHT, channels: 3 } as const;
  const webp = new Uint8Array(await sharp(RAW.data, { raw }).webp({ lossless: true }).toBuffer());
  const tile: RawTile = { ...RAW, compression: "webp", data: webp };
  assert.deepEqual(await decode(tile), RAW.data);
  assert.deepEqual(
    await decode({ ...tile, samplesPerPixel: 4, alpha: "unassociated" }),
    RAW.data,
  );
  const png = new Uint8Array(await sharp(RAW.data, { raw }).png().toBuffer());
  for (
    const broken of [
      { data: png },
      { data: webp.slice(0, webp.length / 2) },
      { widthPx: WIDTH + 1 },
    ]
  ) {
    await assert.rejects(decode({ ...tile, ...broken }), { name: "CodecError" });
  }
});

Deno.test("TileDecoder.decode() unpacks no more than a tile's bytes", async () => {
  const bomb = zstdCompressSync(new Uint8Array(50_000_000));
  const data = new Uint8Array(bomb);
  await assert.rejects(decode({ ...RAW, compression: "zstd", data }), { name: "CodecError" });
});

Deno.test("TileDecoder.decode() leaves out what follows a tile's pixels", async () => {
  const longer = new Uint8Array(RAW.data.length + 500);
  longer.set(RAW.data);
  for (const compression of ["none", "deflate", "lzw"] as const) {
    const rgb = await decode({ ...RAW, compression, data: COMPRESS[compression](longer) });
    assert.deepEqual(rgb, RAW.data, compression);
  }
});

/** The largest difference between two pictures. */
function distance(a: Uint8Array, b: Uint8Array): number {
  assert.equal(a.length, b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

/** One colour all over, which JPEG keeps. */
const FLAT = Uint8Array.from({ length: WIDTH * HEIGHT * 3 }, (_, i) => [200, 80, 140][i % 3]!);
const FLAT_JPEG = await jpeg(FLAT, WIDTH, HEIGHT);
/** FLAT's luminance and colour differences (JFIF 1.02). */
const FLAT_YCBCR = Uint8Array.from(FLAT, (_, i) => {
  const [r, g, b] = [200, 80, 140];
  return Math.round(
    [
      0.299 * r + 0.587 * g + 0.114 * b,
      128 - 0.168736 * r - 0.331264 * g + 0.5 * b,
      128 + 0.5 * r - 0.418688 * g - 0.081312 * b,
    ][i % 3]!,
  );
});
const JPEG: RawTile = { ...RAW, compression: "jpeg", photometric: "ycbcr", data: FLAT_JPEG };

function concat(...parts: (Uint8Array | number[])[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => Array.from(part)));
}

/** The segments of a stream before its scan, by marker, and all from SOS on. */
function takeApart(stream: Uint8Array) {
  const segments: [marker: number, bytes: Uint8Array][] = [];
  let at = 2;
  while (stream[at + 1] !== 0xda) {
    const end = at + 2 + stream[at + 2]! * 256 + stream[at + 3]!;
    segments.push([stream[at + 1]!, stream.subarray(at, end)]);
    at = end;
  }
  return { segments, scan: stream.subarray(at) };
}

const SOI = [0xff, 0xd8], EOI = [0xff, 0xd9];
const DQT = 0xdb, DHT = 0xc4;
const PARTS = takeApart(FLAT_JPEG);
const isTable = ([marker]: [number, Uint8Array]) => marker === DQT || marker === DHT;
const TABLES = PARTS.segments.filter(isTable).map(([, bytes]) => bytes);
const FRAME = PARTS.segments.filter(([marker]) => marker >= 0xc0 && marker <= 0xc2)[0]![1];
const JFIF = [0xff, 0xe0, 0, 16, 0x4a, 0x46, 0x49, 0x46, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0];
const adobe = (
  transform: number,
) => [0xff, 0xee, 0, 14, 0x41, 0x64, 0x6f, 0x62, 0x65, 0, 100, 0, 0, 0, 0, transform];
/** A stream without tables, and the tables as tag 347 has them. */
const ABBREVIATED = concat(SOI, FRAME, PARTS.scan);
const SHARED_TABLES = concat(SOI, ...TABLES, EOI);

Deno.test("TileDecoder.decode() takes a JPEG's components for what photometric says", async () => {
  const whole = (...markers: (Uint8Array | number[])[]) =>
    concat(SOI, ...markers, ...TABLES, FRAME, PARTS.scan);
  const rows: [
    name: string,
    photometric: "rgb" | "ycbcr",
    data: Uint8Array<ArrayBuffer>,
    expected: Uint8Array,
  ][] = [
    ["YCbCr with JFIF", "ycbcr", whole(JFIF), FLAT],
    ["YCbCr without a marker", "ycbcr", whole(), FLAT],
    ["YCbCr with Adobe's YCbCr", "ycbcr", whole(adobe(1)), FLAT],
    ["YCbCr that Adobe's marker calls RGB", "ycbcr", whole(adobe(0)), FLAT_YCBCR],
    ["RGB without a marker", "rgb", whole(), FLAT_YCBCR],
    ["RGB with Adobe's RGB", "rgb", whole(adobe(0)), FLAT_YCBCR],
    ["RGB with Adobe's YCbCr", "rgb", whole(adobe(1)), FLAT_YCBCR],
    ["RGB with JFIF", "rgb", whole(JFIF), FLAT_YCBCR],
    ["RGB with JFIF and Adobe's YCbCr", "rgb", whole(JFIF, adobe(1)), FLAT_YCBCR],
  ];
  for (const [name, photometric, data, expected] of rows) {
    const before = data.slice();
    const rgb = await decode({ ...JPEG, photometric, data });
    assert(distance(rgb, expected) <= 2, `${name}: ${rgb.slice(0, 3)}`);
    assert.deepEqual(data, before, `${name}: the tile itself was changed`);
  }
});

Deno.test("TileDecoder.decode() puts shared tables into each JPEG tile", async () => {
  const shared = { ...JPEG, data: ABBREVIATED };
  const whole = await decode(JPEG);
  assert.deepEqual(await decode({ ...shared, jpegTables: SHARED_TABLES }), whole);
  const padded = concat(SHARED_TABLES, [0, 0, 0]);
  assert.deepEqual(await decode({ ...shared, jpegTables: padded }), whole);
  assert.deepEqual(await decode({ ...JPEG, jpegTables: new Uint8Array() }), whole);
  const rgb = await decode({ ...shared, photometric: "rgb", jpegTables: SHARED_TABLES });
  assert(distance(rgb, FLAT_YCBCR) <= 2);
  await assert.rejects(decode(shared), CodecError); // No tables from a decoder's earlier tile.
});

Deno.test("TileDecoder.decode() remembers no tables of an earlier tile", async () => {
  for (const threads of [0, 1]) {
    const decoder = new TileDecoder(threads);
    const shared = { ...JPEG, data: ABBREVIATED };
    await decoder.decode({ ...shared, jpegTables: SHARED_TABLES });
    await assert.rejects(decoder.decode(shared), CodecError);
  }
});

Deno.test("TileDecoder.decode() reads grey JPEG, inverted too", async () => {
  const grey = Uint8Array.from({ length: WIDTH * HEIGHT }, () => 90);
  const data = await jpeg(grey, WIDTH, HEIGHT);
  const tile = { ...JPEG, samplesPerPixel: 1, data };
  const expected = new Uint8Array(3 * grey.length).fill(90);
  assert(distance(await decode({ ...tile, photometric: "grey" }), expected) <= 1);
  const inverted = await decode({ ...tile, photometric: "grey-inverted" });
  assert(distance(inverted, expected.fill(165)) <= 1);
});

Deno.test("TileDecoder.decode() passes over padding before a JPEG's end", async () => {
  const padded = concat(FLAT_JPEG.subarray(0, -2), [0, 0, 0, 0], EOI);
  const expected = await decode(JPEG);
  const cut = { ...JPEG, data: concat(FLAT_JPEG.subarray(0, -8), EOI) };
  for (const threads of [1, 0, 1]) {
    assert.deepEqual(await decode({ ...JPEG, data: padded }, threads), expected);
    // The words of one stream are not taken for another's.
    await assert.rejects(decode(cut, threads), /premature end of data segment/);
  }
});

Deno.test("TileDecoder.decode() gives the same on threads, in any order", async () => {
  const tiles: RawTile[] = [];
  for (let i = 0; i < 24; i++) {
    const data = await jpeg(pattern(WIDTH, HEIGHT, 3, i), WIDTH, HEIGHT);
    tiles.push(
      i % 5 === 4 ? { ...RAW, data: pattern(WIDTH, HEIGHT, 3, i).slice() } : { ...JPEG, data },
    );
  }
  const expected = [];
  for (const tile of tiles) expected.push(await decode(tile));
  for (const threads of [0, 1, 3]) {
    const decoder = new TileDecoder(threads);
    const decoded = await Promise.all(tiles.map((tile) => decoder.decode(tile)));
    assert.deepEqual(decoded, expected);
  }
});

Deno.test("TileDecoder.decode() gives the signal's reason where it was aborted, and its place to others", async () => {
  for (const threads of [0, 2]) {
    const decoder = new TileDecoder(threads);
    const reason = new Error("stop");
    const aborted = Array.from(
      { length: 5 },
      () => decoder.decode(JPEG, AbortSignal.abort(reason)),
    );
    for (const one of await Promise.allSettled(aborted)) {
      assert.deepEqual(one, { status: "rejected", reason });
    }
    assert.equal((await decoder.decode(JPEG)).length, FLAT.length);
  }
});

function withSize(stream: Uint8Array, widthPx: number, heightPx: number): Uint8Array<ArrayBuffer> {
  const copy = stream.slice() as Uint8Array<ArrayBuffer>;
  const at = copy.findIndex((byte, i) => byte === 0xff && copy[i + 1] === FRAME[1]);
  new DataView(copy.buffer).setUint16(at + 5, heightPx);
  new DataView(copy.buffer).setUint16(at + 7, widthPx);
  return copy;
}

function withFrame(type: number, changes: (frame: Uint8Array) => void = () => {}) {
  const frame = FRAME.slice();
  frame[1] = type;
  changes(frame);
  return concat(SOI, ...TABLES, frame, PARTS.scan);
}

const bomb = deflate(new Uint8Array(50_000_000));
const huge = withSize(FLAT_JPEG, 4000, 4000);
/** A marker without a length, behind which libjpeg looks on and a walk by lengths would not. */
const hidden = (marker: number) => {
  const other = takeApart(huge).segments.find(([type]) => type === FRAME[1])![1];
  const disguise = [0xff, marker, 0, 2 + other.length, ...other];
  return concat(SOI, ...TABLES, disguise, FRAME, PARTS.scan);
};

const brokenRows: [name: string, tile: Partial<RawTile>, message: RegExp][] = [
  [
    "too few bytes",
    { data: RAW.data.subarray(1) },
    /^Cannot decode a none tile: it holds 398 bytes where 399 are due$/,
  ],
  [
    "deflated garbage",
    { compression: "deflate", data: randomBytes(300, 1) },
    /^Cannot decode a deflate tile: .*(incorrect|invalid)/,
  ],
  ["deflate cut in the middle", {
    compression: "deflate",
    data: deflate(randomBytes(399, 1)).subarray(0, 200),
  }, /unexpected end of file$/],
  [
    "deflate that holds too little",
    { compression: "deflate", data: deflate(RAW.data.subarray(1)) },
    /it holds 398 bytes where 399 are due$/,
  ],
  [
    "a deflate bomb",
    { compression: "deflate", data: bomb },
    /Cannot create a Buffer larger than|buffer|larger/i,
  ],
  ["deflate of nothing for a large tile", {
    compression: "deflate",
    widthPx: 8192,
    heightPx: 8192,
    data: deflate(new Uint8Array(10)),
  }, /bytes cannot hold 201326592$/],
  ["LZW garbage", { compression: "lzw", data: randomBytes(300, 2) }, /^Cannot decode a lzw tile: /],
  [
    "LZW cut in the middle",
    { compression: "lzw", data: lzw(RAW.data).subarray(0, 200) },
    /^Cannot decode a lzw tile: /,
  ],
  [
    "LZW that holds too little",
    { compression: "lzw", data: lzw(RAW.data.subarray(0, 300)) },
    /^Cannot decode a lzw tile: /,
  ],
  [
    "JPEG garbage",
    { ...JPEG, data: randomBytes(300, 3) },
    /^Cannot decode a jpeg tile: it does not begin with SOI$/,
  ],
  [
    "JPEG of another size",
    { ...JPEG, data: withSize(FLAT_JPEG, WIDTH + 1, HEIGHT) },
    /its picture is 20 × 7, the tile 19 × 7$/,
  ],
  [
    "JPEG of an absurd size",
    { ...JPEG, data: withSize(FLAT_JPEG, 65535, 65535) },
    /its picture is 65535 × 65535/,
  ],
  [
    "JPEG of more blocks than its bytes have bits for",
    { ...JPEG, widthPx: 9000, heightPx: 9000, data: withSize(FLAT_JPEG, 9000, 9000) },
    /\d+ bytes cannot hold 9000 × 9000 pixels$/,
  ],
  ["JPEG of no height", { ...JPEG, data: withSize(FLAT_JPEG, WIDTH, 0) }, /its picture is 19 × 0/],
  [
    "JPEG cut in the scan",
    { ...JPEG, data: FLAT_JPEG.subarray(0, -6) },
    /premature end|Premature end/i,
  ],
  ["JPEG cut before the scan", {
    ...JPEG,
    data: FLAT_JPEG.subarray(0, FLAT_JPEG.length - PARTS.scan.length),
  }, /it ends before its first scan$/],
  [
    "JPEG cut in a segment",
    { ...JPEG, data: FLAT_JPEG.subarray(0, 40) },
    /the segment at byte 2 is cut$/,
  ],
  [
    "JPEG that is SOI alone",
    { ...JPEG, data: Uint8Array.of(0xff, 0xd8) },
    /it ends before its first scan$/,
  ],
  [
    "JPEG without a frame",
    { ...JPEG, data: concat(SOI, ...TABLES, PARTS.scan) },
    /it has no frame header$/,
  ],
  [
    "JPEG whose frame is cut",
    { ...JPEG, data: concat(SOI, [0xff, 0xc0, 0, 4, 8, 0], PARTS.scan) },
    /its frame header is cut$/,
  ],
  ["JPEG without a scan", { ...JPEG, data: concat(SOI, FRAME, EOI) }, /it has no scan$/],
  ["JPEG without tables", { ...JPEG, data: ABBREVIATED }, /table 0x00 was not defined$/],
  ["JPEG that is a tile of tables", { ...JPEG, data: SHARED_TABLES }, /it has no scan$/],
  [
    "shared tables that are garbage",
    { ...JPEG, data: ABBREVIATED, jpegTables: randomBytes(50, 4) },
    /its shared tables are broken: it does not begin with SOI$/,
  ],
  ["shared tables that are cut", {
    ...JPEG,
    data: ABBREVIATED,
    jpegTables: SHARED_TABLES.subarray(0, -2),
  }, /its shared tables are broken: it ends/],
  [
    "shared tables with a larger frame and a scan",
    { ...JPEG, jpegTables: concat(huge) },
    /its shared tables are broken: there is a marker 192 at byte/,
  ],
  ["shared tables with a larger frame", {
    ...JPEG,
    data: ABBREVIATED,
    jpegTables: concat(
      SOI,
      ...TABLES,
      takeApart(huge).segments.find(([type]) => type === FRAME[1])![1],
      EOI,
    ),
  }, /its shared tables are broken: there is a marker 192/],
  ["a larger frame behind RST0", { ...JPEG, data: hidden(0xd0) }, /there is a marker 208 at byte/],
  ["a larger frame behind TEM", { ...JPEG, data: hidden(0x01) }, /there is a marker 1 at byte/],
  [
    "a larger frame behind a stuffed byte",
    { ...JPEG, data: hidden(0x00) },
    /there is a marker 0 at byte/,
  ],
  ["a second SOI", { ...JPEG, data: concat(SOI, FLAT_JPEG) }, /there is a marker 216 at byte 2$/],
  [
    "bytes between segments",
    { ...JPEG, data: concat(SOI, [1, 2, 3], FLAT_JPEG.subarray(2)) },
    /there is no marker at byte 2$/,
  ],
  ["two frames", {
    ...JPEG,
    data: concat(
      SOI,
      ...TABLES,
      takeApart(huge).segments.find(([type]) => type === FRAME[1])![1],
      FRAME,
      PARTS.scan,
    ),
  }, /^Cannot decode a jpeg tile: .*SOF/],
];

for (const [name, changes, message] of brokenRows) {
  Deno.test(`TileDecoder.decode() rejects ${name}`, async () => {
    for (const threads of [0, 1]) {
      await assert.rejects(decode({ ...RAW, ...changes }, threads), (error) => {
        assert(error instanceof CodecError, String(error));
        assert.match(error.message, message);
        assert.equal(error.codec, changes.compression ?? "none");
        return true;
      });
    }
  });
}

const unsupportedRows: [name: string, data: Uint8Array<ArrayBuffer>, process: string][] = [
  ["lossless JPEG", withFrame(0xc3), "process 3 in 3 components of 8 bits"],
  ["arithmetic coding", withFrame(0xc9), "process 9 in 3 components of 8 bits"],
  ["12 bits", withFrame(0xc1, (frame) => frame[4] = 12), "process 1 in 3 components of 12 bits"],
  [
    "four components",
    withFrame(0xc0, (frame) => frame[9] = 4),
    "process 0 in 4 components of 8 bits",
  ],
];

for (const [name, data, process] of unsupportedRows) {
  Deno.test(`TileDecoder.decode() says that ${name} is not supported`, async () => {
    await assert.rejects(decode({ ...JPEG, data }), (error) => {
      assert(error instanceof UnsupportedError, String(error));
      assert.equal(error.message, `Cannot decode a JPEG tile: ${process} is not supported`);
      return true;
    });
  });
}

Deno.test("TileDecoder.decode() rejects a JPEG cut anywhere before its end", async () => {
  const stream = await jpeg(pattern(WIDTH, HEIGHT), WIDTH, HEIGHT);
  const decoder = new TileDecoder(0);
  for (let length = 1; length < stream.length - 2; length++) {
    const cut = { ...JPEG, data: stream.subarray(0, length) };
    await assert.rejects(decoder.decode(cut), CodecError, `cut to ${length} bytes`);
  }
});

Deno.test("TileDecoder.decode() gives a picture or a typed error where a JPEG is damaged", async () => {
  const stream = await jpeg(pattern(WIDTH, HEIGHT), WIDTH, HEIGHT);
  const decoder = new TileDecoder(0);
  for (let i = 0; i < 1500; i++) {
    const { bytes: data, what } = mutate(stream, i);
    try {
      const tile: RawTile = { ...JPEG, data, photometric: i % 2 === 0 ? "rgb" : "ycbcr" };
      assert.equal((await decoder.decode(tile)).length, WIDTH * HEIGHT * 3);
    } catch (error) {
      assert(error instanceof CodecError || error instanceof UnsupportedError, `${what}: ${error}`);
    }
  }
});

/** Width and height as the first frame header says, where there is one. */
function claimedSize(stream: Uint8Array): [number, number] {
  for (let i = 0; i + 9 < stream.length; i++) {
    const marker = stream[i + 1]!;
    if (stream[i] === 0xff && marker >= 0xc0 && marker <= 0xc3) {
      return [stream[i + 7]! * 256 + stream[i + 8]!, stream[i + 5]! * 256 + stream[i + 6]!];
    }
  }
  return [64, 64];
}

Deno.test("TileDecoder.decode() gives a picture or a typed error for every broken JPEG of the data", async () => {
  const folder = dataPath("jpeg-bad");
  if (folder === undefined) return;
  const decoder = new TileDecoder(2);
  let pictures = 0, errors = 0;
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    const path = join(folder, name);
    if (!statSync(path).isFile()) continue;
    const data = new Uint8Array(readFileSync(path));
    const [widthPx, heightPx] = claimedSize(data);
    if (widthPx * heightPx > 16e6) continue; // No tile: TiffDirectory refuses it.
    for (const [width, height] of [[widthPx, heightPx], [64, 64]] as const) {
      const tile = { ...JPEG, widthPx: Math.max(1, width), heightPx: Math.max(1, height), data };
      try {
        const rgb = await decoder.decode(tile);
        assert.equal(rgb.length, tile.widthPx * tile.heightPx * 3);
        pictures++;
      } catch (error) {
        assert(
          error instanceof CodecError || error instanceof UnsupportedError,
          `${name}: ${error}`,
        );
        errors++;
      }
    }
  }
  assert(pictures > 0 && errors > 50, `${pictures} pictures, ${errors} errors`);
});
