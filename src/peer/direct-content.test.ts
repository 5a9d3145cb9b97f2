import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import type { Origin, OriginInfo } from "../origin/origin.ts";
import { DirectOpener, type OriginReading, readOrigin } from "./direct-content.ts";

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
