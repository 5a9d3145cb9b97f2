import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import type { Origin, OriginInfo } from "../origin/origin.ts";
import { DirectOpener, type OriginReading, readOrigin } from "./direct-content.ts";
import { RateGate } from "./rate-gate.ts";

const content = Buffer.from("0123456789");
const info: OriginInfo = {
  lengthBytes: content.length,
  ranges: true,
  etag: '"v1"',
  lastModified: undefined,
  contentType: undefined,
  headers: {},
};

test("a read that begins elsewhere ends the body that was opened to learn what the file is", async () => {
  const bodies: { readonly startByte: number; readonly body: Readable }[] = [];
  const origin: Origin = {
    stat: () => Promise.resolve(info),
    open: (_request, { startByte, endByte }) => {
      const body = Readable.from([content.subarray(startByte, endByte)]);
      bodies.push({ startByte, body });
      return Promise.resolve({ info, body, startByte });
    },
  };
  const { signal } = new AbortController();
  const opened = await new DirectOpener({ origin }).open({ source: { url: "http://origin/file", headers: {} }, backToSource: true }, signal);
  const chunks: Uint8Array[] = [];
  for await (const chunk of opened.read({ startByte: 4, endByte: undefined }, signal)) chunks.push(chunk);
  assert.equal(Buffer.concat(chunks).toString(), "456789");
  assert.deepEqual(bodies.map(({ startByte }) => startByte), [0, 4]);
  assert.equal(bodies[0]?.body.destroyed, true);
  opened.close();
});

interface Reading {
  /** What each opening sends; the last one again and again. Cut where it is shorter than the content. */
  readonly bodies: readonly Buffer[];
  readonly from?: number;
  readonly promisesRanges?: boolean;
  readonly more?: Partial<OriginReading>;
}

/** Reads an origin without ranges. */
async function readWithoutRanges({ bodies, from = 0, promisesRanges = false, more = {} }: Reading) {
  const opened: number[] = [];
  const plain = { ...info, ranges: promisesRanges, etag: undefined };
  const origin: Origin = {
    stat: () => Promise.resolve(plain),
    open: async (_request, { startByte }) => {
      opened.push(startByte);
      if (startByte > 0) throw new AppError("ORIGIN_PROTOCOL", "no ranges", { details: { ranges: false } });
      const body = bodies[Math.min(opened.filter((at) => at === 0).length, bodies.length) - 1] as Buffer;
      return await Promise.resolve({ info: plain, startByte, body: Readable.from(chunksOf(body)) });
    },
  };
  const reading: OriginReading = {
    origin,
    request: { url: "http://origin/file", headers: {} },
    expected: plain,
    digest: undefined,
    ...more,
  };
  const chunks: Uint8Array[] = [];
  const text = (): string => Buffer.concat(chunks).toString();
  const { signal } = new AbortController();
  const failure = await (async (): Promise<AppError | undefined> => {
    for await (const chunk of readOrigin(reading, { startByte: from, endByte: undefined }, signal)) chunks.push(chunk);
    return undefined;
  })().catch((error: unknown) => error as AppError);
  return { text: text(), opened, code: failure?.code };
}

async function* chunksOf(body: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < body.length; at += 3) yield await Promise.resolve(body.subarray(at, at + 3));
  if (body.length < content.length) throw new AppError("ORIGIN_CUT", "cut");
}

const sha256 = `sha256:${createHash("sha256").update(content).digest("hex")}`;
const prefixOf = (bytes: Buffer) => async function* (): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes);
};

for (const promisesRanges of [false, true]) {
  test(`a cut of an origin without ranges is read again from the start${promisesRanges ? ", though ranges were promised" : ""}`, async () => {
    const { text, opened, code } = await readWithoutRanges({ bodies: [content.subarray(0, 4), content], promisesRanges });
    assert.deepEqual([text, code], ["0123456789", undefined]);
    assert.deepEqual(opened, promisesRanges ? [0, 4, 0] : [0, 0]);
  });
}

for (const digest of [undefined, sha256]) {
  test(`the swarm's rest comes from an origin without ranges, ${digest === undefined ? "no" : "its"} digest known`, async () => {
    const more = { digest, prefix: prefixOf(content.subarray(0, 8)) };
    const { text, opened, code } = await readWithoutRanges({ bodies: [content], from: 8, promisesRanges: true, more });
    assert.deepEqual([text, code, opened], ["89", undefined, [8, 0]]);
  });

  test(`other bytes than those handed on already are no rest of them, ${digest === undefined ? "no" : "its"} digest known`, async () => {
    const more = { digest, prefix: prefixOf(Buffer.from("01X34567")) };
    const { text, code } = await readWithoutRanges({ bodies: [content], from: 8, promisesRanges: true, more });
    assert.deepEqual([text, code], ["", "ORIGIN_CHANGED"]);
  });
}

test("M2: the last bytes of content that has another digest never leave", async () => {
  const wrong = Buffer.from("012345678X");
  const { text, code } = await readWithoutRanges({ bodies: [wrong], more: { digest: sha256 } });
  assert.equal(code, "DIGEST_MISMATCH");
  assert.ok(text.length < wrong.length && wrong.toString().startsWith(text), text);
});

test("a file that changed between two readings is not put together", async () => {
  const changed = Buffer.from("0X23456789");
  const { text, code } = await readWithoutRanges({ bodies: [content.subarray(0, 7), changed] });
  assert.equal(code, "ORIGIN_CHANGED");
  assert.ok("0123456".startsWith(text));
});

test("an origin without ranges is begun again twice, not for ever", async () => {
  const { opened, code } = await readWithoutRanges({ bodies: [content.subarray(0, 4), content.subarray(0, 5), content.subarray(0, 6)] });
  assert.deepEqual([code, opened], ["ORIGIN_CUT", [0, 0, 0]]);
});

test("a range in the middle of an origin without ranges is found by reading up to it", async () => {
  const { text, code } = await readWithoutRanges({ bodies: [content], from: 5 });
  assert.deepEqual([text, code], ["56789", undefined]);
});

test("a part of a file whose length nobody says has no digest that it could be held against; one that ends with it has", async () => {
  const unsaid: OriginInfo = { ...info, lengthBytes: undefined };
  const read = async (sent: string, endByte: number): Promise<string> => {
    const body = (): Readable => Readable.from([Buffer.from(sent.slice(0, endByte))]);
    const origin: Origin = { stat: () => Promise.resolve(unsaid), open: () => Promise.resolve({ info: unsaid, startByte: 0, body: body() }) };
    const reading: OriginReading = { origin, request: { url: "http://origin/file", headers: {} }, expected: undefined, digest: sha256 };
    const chunks: Uint8Array[] = [];
    for await (const chunk of readOrigin(reading, { startByte: 0, endByte }, new AbortController().signal)) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  };
  assert.equal(await read("0123456789", 5), "01234");
  assert.equal(await read("0123456789", 20), "0123456789");
  await assert.rejects(read("012345678X", 20), { code: "DIGEST_MISMATCH" });
});

/** Reads an origin that answers as told: with a body, or not at all. */
async function readAs(answer: (n: number, startByte: number) => Readable | AppError, more: Partial<OriginReading> = {}, range: { startByte: number; endByte: number | undefined } = { startByte: 0, endByte: undefined }) {
  const bodies: Readable[] = [];
  let openCount = 0;
  const expected = more.expected ?? info;
  const origin: Origin = {
    stat: () => Promise.resolve(info),
    open: (_request, { startByte }) => {
      const answered = answer(++openCount, startByte);
      if (answered instanceof AppError) return Promise.reject(answered);
      bodies.push(answered);
      return Promise.resolve({ info: expected, startByte, body: answered });
    },
  };
  const chunks: Uint8Array[] = [];
  const reading = { origin, request: { url: "http://origin/file", headers: {} }, expected, digest: undefined, ...more };
  const failure = await (async (): Promise<AppError | undefined> => {
    for await (const chunk of readOrigin(reading, range, new AbortController().signal)) chunks.push(chunk);
    return undefined;
  })().catch((error: unknown) => error as AppError);
  return { text: Buffer.concat(chunks).toString(), code: failure?.code, openCount, bodies };
}

test("a file that has become shorter than what was handed on is not ended as if that were all", async () => {
  const plain = { ...info, lengthBytes: undefined, ranges: false };
  const cut = async function* (): AsyncGenerator<Buffer> {
    for (const text of ["0123", "4567", "89"]) yield await Promise.resolve(Buffer.from(text));
    throw new AppError("ORIGIN_CUT", "cut");
  };
  const { code, text } = await readAs((n) => Readable.from(n === 1 ? cut() : [Buffer.from("0123")]), { expected: plain });
  assert.equal(code, "ORIGIN_CHANGED");
  assert.equal(text, "01234567");
});

test("an origin that gives nothing is given up after four attempts; each byte begins the count anew", async () => {
  const down = new AppError("ORIGIN_UNREACHABLE", "down");
  // The last answer only bounds who would ask for ever.
  const never = await readAs((n) => (n < 20 ? down : new AppError("ORIGIN_FORBIDDEN", "no")));
  assert.deepEqual([never.openCount, never.code], [4, "ORIGIN_UNREACHABLE"]);
  const slowly = await readAs((n, startByte) => (n % 3 === 0 ? Readable.from(oneByte(startByte)) : down));
  assert.deepEqual([slowly.text, slowly.code], [content.toString(), undefined]);
});

async function* oneByte(startByte: number): AsyncGenerator<Buffer> {
  yield await Promise.resolve(content.subarray(startByte, startByte + 1));
  if (startByte + 1 < content.length) throw new AppError("ORIGIN_CUT", "cut");
}

test("no body of an origin stays open: not one that was cut, nor one that has more than was asked for", async () => {
  const cut = async function* (): AsyncGenerator<Buffer> {
    yield await Promise.resolve(Buffer.from("01"));
    throw new AppError("ORIGIN_CUT", "cut");
  };
  const unending = async function* (startByte: number): AsyncGenerator<Buffer> {
    for (;;) yield await Promise.resolve(content.subarray(startByte));
  };
  const { text, code, bodies } = await readAs((n, startByte) => Readable.from(n === 1 ? cut() : unending(startByte)), {}, { startByte: 0, endByte: 5 });
  assert.deepEqual([text, code], ["01234", undefined]);
  assert.deepEqual(bodies.map(({ destroyed }) => destroyed), [true, true]);
});

test("the swarm's beginning and the origin's rest are held against the digest together", async () => {
  const rest = (): Readable => Readable.from([content.subarray(8)]);
  const read = async (prefix: Buffer) => await readAs(rest, { digest: sha256, prefix: prefixOf(prefix) }, { startByte: 8, endByte: undefined });
  assert.deepEqual((await read(content.subarray(0, 8))).text, "89");
  const { text, code } = await read(Buffer.from("01X34567"));
  assert.deepEqual([text, code], ["", "DIGEST_MISMATCH"]);
});

test("a reading's own limit holds where the host has none", async (t) => {
  const limit = new RateGate(undefined);
  const set = t.mock.method(limit, "setFlowLimit");
  await readAs(() => Readable.from([content]), { limit, limitBytesPerSecond: 1_000_000 });
  assert.deepEqual(set.mock.calls.map(({ arguments: [, bytesPerSecond] }) => bytesPerSecond), [1_000_000]);
});
