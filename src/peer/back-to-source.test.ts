import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { AppError, type ErrorCode } from "../base/errors.ts";
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

/** An origin read directly that counts, and what the swarm said of it. */
function asked() {
  const counted = { open: 0, stat: 0, told: [] as string[] };
  const direct = {
    open: () => (counted.open++, Promise.resolve({} as Awaited<ReturnType<DirectOpener["open"]>>)),
    stat: () => (counted.stat++, Promise.resolve({} as Awaited<ReturnType<DirectOpener["stat"]>>)),
  };
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const backToSource = new BackToSource({ direct, log, onDirect: ({ code }) => void counted.told.push(code) });
  const { signal } = new AbortController();
  const source = { url: "http://origin/file", headers: {} };
  const ask = async (how: "open" | "stat", code: ErrorCode, isAllowed: boolean): Promise<void> => {
    const request = { source, backToSource: isAllowed };
    const thrown = new AppError(code, "why");
    await (how === "open" ? backToSource.open(request, thrown, performance.now(), signal) : backToSource.stat(request, thrown, signal));
  };
  return { counted, ask };
}

test("what the origin has said, or nobody can mend, is not asked again past the swarm; all else is", async () => {
  const { counted, ask } = asked();
  const final = ["ORIGIN_UNAUTHORIZED", "ORIGIN_NOT_FOUND", "ORIGIN_UNREACHABLE", "DIGEST_MISMATCH", "ABORTED", "HOST_UNRESOLVABLE", "SCHEME_UNSUPPORTED", "TLS_FAILED", "URL_INVALID"] as const;
  for (const how of ["open", "stat"] as const) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    for (const code of final) await assert.rejects(ask(how, code, true), { code });
  }
  assert.deepEqual(counted, { open: 0, stat: 0, told: [] });
  const passing = ["SUPERNODE_UNREACHABLE", "TOKEN_REFUSED", "TIMEOUT", "CACHE_QUOTA_EXCEEDED", "DISK_FAILED"] as const;
  for (const how of ["open", "stat"] as const) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    for (const code of passing) await ask(how, code, true);
  }
  assert.deepEqual(counted, { open: passing.length, stat: passing.length, told: [...passing] });
});

test("where the origin may not be read directly, that is said of a supernode that is away; what else went wrong is said as it is", async () => {
  const { counted, ask } = asked();
  for (const how of ["open", "stat"] as const) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    await assert.rejects(ask(how, "SUPERNODE_UNREACHABLE", false), { code: "BACK_SOURCE_FORBIDDEN" });
    // oxlint-disable-next-line no-await-in-loop -- cases
    for (const code of ["TOKEN_REFUSED", "CACHE_QUOTA_EXCEEDED", "ORIGIN_NOT_FOUND"] as const) await assert.rejects(ask(how, code, false), { code });
  }
  assert.deepEqual(counted, { open: 0, stat: 0, told: [] });
});
