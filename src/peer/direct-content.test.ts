import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import type { Origin, OriginInfo } from "../origin/origin.ts";
import { DirectOpener } from "./direct-content.ts";

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
