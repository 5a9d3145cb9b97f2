import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import type { Origin, OriginInfo } from "../origin/origin.ts";
import { BackToSource } from "./back-to-source.ts";
import { DirectOpener } from "./direct-content.ts";

test("what was waited for the swarm in vain is put down to it, and belongs to the download", async () => {
  const info: OriginInfo = { lengthBytes: 4, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };
  const origin: Origin = {
    stat: () => Promise.resolve(info),
    open: () => Promise.resolve({ info, startByte: 0, body: Readable.from([Buffer.from("body")]) }),
  };
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const backToSource = new BackToSource({ direct: new DirectOpener({ origin }), log });
  const { signal } = new AbortController();
  const gone = new AppError("SUPERNODE_UNREACHABLE", "gone");
  const content = await backToSource.open({ source: { url: "http://origin/file", headers: {} }, backToSource: true }, gone, performance.now() - 60_000, signal);
  for await (const _ of content.read({ startByte: 0, endByte: undefined }, signal));
  content.close();
  const explanation = content.explanation();
  assert.ok(explanation !== undefined);
  const { boundBy, tookMs, openedMs, firstByteMs, spentMs } = explanation;
  assert.equal(boundBy, "waiting");
  assert.ok(spentMs.waiting >= 60_000 && spentMs.waiting < 61_000, `${spentMs.waiting} ms`);
  for (const ms of [tookMs, openedMs, firstByteMs ?? 0]) assert.ok(ms >= 60_000, `${ms} ms`);
});
