import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AppError, toAppError } from "../../base/errors.ts";
import { fromHttpStatus } from "../../origin/http-failure.ts";
import type { OriginInfo } from "../../origin/origin.ts";
import { SigningKey, SignatureVerifier } from "../../peer/membership/credentials.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { FakeOrigin, FakeStore, silentLog } from "../cache/seed-fixture.test.ts";
import { ContentPlaces } from "./content-places.ts";
import { PlaceProver } from "./place-proof.ts";
import { TaskResolver } from "./task-resolver.ts";
import { VersionMemory } from "./version-memory.ts";

const GRANT_MS = 300_000;
const key = SigningKey.generate();
const source = { url: "http://origin/file", headers: {} };
const down = (): AppError => new AppError("ORIGIN_UNREACHABLE", "down");

const HOUR_MS = 3_600_000;

function lab(
  origin: FakeOrigin,
  versions = new VersionMemory(":memory:"),
  store = new FakeStore(),
  staleMs: number | undefined = HOUR_MS,
) {
  const clock = { nowMs: 0, unixMs: 1_000_000 };
  const active = new Set<TaskId>();
  const prover = new PlaceProver({ origin, onRequest: () => {}, randomInt });
  const isActive = (taskId: TaskId): boolean => active.has(taskId);
  const unixMs = (): number => clock.unixMs;
  const resolver = new TaskResolver({
    origin,
    store,
    versions,
    places: new ContentPlaces({ store, versions, prover, isActive, unixMs, log: silentLog }),
    key,
    log: silentLog,
    freshness: { revalidateMs: 1000, staleMs, staleTagMs: 2 * HOUR_MS },
    isActive,
    nowMs: () => clock.nowMs,
    unixMs,
    random: () => 0,
    sleep: () => Promise.resolve(),
    grants: { grantMs: GRANT_MS, outageGrantMs: 0 },
  });
  return { resolver, versions, store, clock, active };
}

/** Puts the whole file of a record into the store. */
async function complete(store: FakeStore, resolved: Awaited<ReturnType<TaskResolver["resolve"]>>): Promise<void> {
  const stored = await store.open(resolved.record);
  await stored.storeOwn(0, new Uint8Array(new SharedArrayBuffer(resolved.record.lengthBytes as number)), () => new Uint8Array());
}

test("callers told apart by a header of their own do not get each other's file, though its version has the same name", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  for (const [etag, lastModified] of [[undefined, undefined], [undefined, "Mon, 02 Nov 2026 10:00:00 GMT"], ['"672c-3e8"', undefined]] as const) {
    Object.assign(origin, { etag, lastModified });
    const { resolver } = lab(origin);
    const [ann, bob] = [await resolver.resolve({ ...source, headers: { "x-api-key": "ann" } }, undefined), await resolver.resolve({ ...source, headers: { "x-api-key": "bob" } }, undefined)];
    assert.notEqual(ann.record.taskId, bob.record.taskId, `${etag} ${lastModified}`);
  }
});

test("the record says what the origin said, and its length is signed", async () => {
  const { resolver } = lab(new FakeOrigin(Buffer.alloc(1000)));
  const { record, taskId, info } = await resolver.resolve(source, undefined);
  assert.equal(record.lengthBytes, 1000);
  assert.equal(record.contentType, "application/x-test");
  assert.deepEqual(record.headers, { "x-relayed": "1", etag: '"v1"' });
  assert.equal(info?.etag, '"v1"');
  assert.ok(new SignatureVerifier(key.publicKey).verifyLength(taskId, 1000, record.lengthSignature as Uint8Array));
});

test("a thousand callers are one question; a second later it is asked again", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, clock } = lab(origin);
  const resolved = await Promise.all(Array.from({ length: 1000 }, () => resolver.resolve(source, undefined)));
  assert.equal(new Set(resolved.map(({ taskId }) => taskId)).size, 1);
  assert.equal(origin.statCount, 1);
  clock.nowMs = 999;
  await resolver.resolve(source, undefined);
  assert.equal(origin.statCount, 1);
  clock.nowMs = 1000;
  origin.etag = '"v2"';
  assert.notEqual((await resolver.resolve(source, undefined)).taskId, resolved[0]?.taskId);
  assert.equal(origin.statCount, 2);
});

test("what turned out to be another version is asked for again at once", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver } = lab(origin);
  const { taskId } = await resolver.resolve(source, undefined);
  origin.etag = '"v2"';
  resolver.forget("f".repeat(64) as TaskId);
  assert.equal((await resolver.resolve(source, undefined)).taskId, taskId);
  resolver.forget(taskId);
  assert.notEqual((await resolver.resolve(source, undefined)).taskId, taskId);
});

test("content known by digest is asked for once per caller, who is asked to be let in", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, clock } = lab(origin);
  const byDigest = { url: `http://origin/v2/r/blobs/sha256:${"a".repeat(64)}`, headers: {} };
  const first = await resolver.resolve(byDigest, undefined);
  clock.nowMs = 60_000;
  await resolver.resolve(byDigest, undefined);
  assert.equal(origin.statCount, 1);
  origin.statErrors = [new AppError("ORIGIN_UNAUTHORIZED", "no")];
  await assert.rejects(resolver.resolve({ ...byDigest, headers: { authorization: "wrong" } }, undefined), { code: "ORIGIN_UNAUTHORIZED" });
  const other = await resolver.resolve({ ...byDigest, headers: { authorization: "right" } }, undefined);
  assert.equal(other.taskId, first.taskId);
  assert.equal(origin.statCount, 3);
});

test("503 and then well is waited out; 404 is final and soon asked again", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, clock } = lab(origin);
  origin.statErrors = [new AppError("ORIGIN_BUSY", "busy"), new AppError("ORIGIN_BUSY", "busy")];
  await resolver.resolve(source, undefined);
  assert.equal(origin.statCount, 3);
  clock.nowMs = 5000;
  origin.statErrors = [new AppError("ORIGIN_NOT_FOUND", "no")];
  await assert.rejects(resolver.resolve(source, undefined), { code: "ORIGIN_NOT_FOUND" });
  await assert.rejects(resolver.resolve(source, undefined), { code: "ORIGIN_NOT_FOUND" });
  assert.equal(origin.statCount, 4);
  clock.nowMs = 6000;
  await resolver.resolve(source, undefined);
  assert.equal(origin.statCount, 5);
});

test("while the origin is down, what it last said stands if the whole file is here, over a restart too", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-versions-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "versions.sqlite");
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const store = new FakeStore();
  const before = lab(origin, new VersionMemory(file), store);
  const fresh = await before.resolver.resolve(source, undefined);
  before.versions.close();

  const after = lab(origin, new VersionMemory(file), store);
  origin.statErrors = Array.from({ length: 20 }, down);
  await assert.rejects(after.resolver.resolve(source, undefined), { code: "ORIGIN_UNREACHABLE" });
  after.clock.nowMs = 2000;
  await complete(store, fresh);
  const stale = await after.resolver.resolve(source, undefined);
  assert.equal(stale.taskId, fresh.taskId);
  assert.equal(stale.info, undefined);
  // Who never had an answer of its own gets none now.
  await assert.rejects(after.resolver.resolve({ ...source, headers: { authorization: "x" } }, undefined), { code: "ORIGIN_UNREACHABLE" });
  after.versions.close();
});

test("while the origin answers 500, 502 or 504, what it last said stands, and the next attempt may go well", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const failed = (status: number): AppError => fromHttpStatus(status, {}, new URL(source.url), 0);
  origin.statErrors = [500, 502, 504].map(failed);
  const fresh = await resolver.resolve(source, undefined);
  assert.equal(origin.statCount, 4);
  await complete(store, fresh);
  for (const status of [500, 502, 504]) {
    clock.nowMs += 2000;
    origin.statErrors = [failed(status)];
    // oxlint-disable-next-line no-await-in-loop -- cases
    const stale = await resolver.resolve(source, undefined);
    assert.deepEqual([stale.taskId, stale.info], [fresh.taskId, undefined]);
  }
});

test("M14: while the origin is down, who brings credentials is let in no longer than a grant lasts", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock, active } = lab(origin);
  const mine = { url: `http://origin/v2/r/blobs/sha256:${"a".repeat(64)}`, headers: { authorization: "Bearer x" } };
  const fresh = await resolver.resolve(mine, undefined);
  await complete(store, fresh);
  const later = async (ms: number, hint?: TaskId): Promise<string> => {
    clock.nowMs += ms;
    clock.unixMs += ms;
    origin.statErrors = Array.from({ length: 4 }, down);
    return await resolver.resolve(mine, hint).then(({ info }) => (info === undefined ? "stale" : "fresh"), (error: unknown) => toAppError(error).code);
  };
  assert.equal(await later(GRANT_MS / 2 - 1), "fresh", "the origin's word is remembered for half a grant, a ticket is the other half");
  assert.equal(await later(1), "stale");
  assert.equal(await later(GRANT_MS), "ORIGIN_UNREACHABLE");
  active.add(fresh.taskId);
  assert.equal(await later(1000, fresh.taskId), "stale", "a transfer under way goes on");
});

test("unless the operator allows it nothing stale is given out, but who took part goes on", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin, undefined, undefined, undefined);
  resolver.setFreshness({ revalidateMs: 1000, staleMs: undefined, staleTagMs: undefined });
  const { taskId, ...resolved } = await resolver.resolve(source, undefined);
  await complete(store, { taskId, ...resolved });
  clock.nowMs = 2000;
  origin.statErrors = Array.from({ length: 4 }, down);
  await assert.rejects(resolver.resolve(source, undefined), { code: "ORIGIN_UNREACHABLE" });
  assert.equal(origin.statCount, 5, "without anything to fall back on it is asked again");
  clock.nowMs = 4000;
  origin.statErrors = [down()];
  assert.equal((await resolver.resolve(source, taskId)).taskId, taskId);
});

test("what is stale is given out as long as the operator says, with its age", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  await complete(store, await resolver.resolve(source, undefined));
  const later = async (ms: number): Promise<number | undefined> => {
    clock.nowMs += ms;
    clock.unixMs += ms;
    origin.statErrors = Array.from({ length: 4 }, down);
    return (await resolver.resolve(source, undefined)).staleMs;
  };
  assert.equal(await later(60_000), 60_000);
  assert.equal(await later(HOUR_MS - 60_000), HOUR_MS);
  await assert.rejects(later(1), { code: "ORIGIN_UNREACHABLE" });
});

test("what cannot have changed is not stale, but is given out no longer than a day while nobody can be asked", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const byDigest = { url: `http://origin/v2/r/blobs/sha256:${"a".repeat(64)}`, headers: {} };
  await complete(store, await resolver.resolve(byDigest, undefined));
  const later = async (ms: number): Promise<number | undefined> => {
    clock.nowMs = clock.unixMs += ms;
    origin.statErrors = Array.from({ length: 4 }, down);
    return (await resolver.resolve(byDigest, undefined)).staleMs;
  };
  assert.equal(await later(24 * HOUR_MS), undefined);
  await assert.rejects(later(1_001), { code: "ORIGIN_UNREACHABLE" });
});

test("M14: who brings credentials gets nothing stale where the operator allows none, nor by having known the file's name", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock, active } = lab(origin);
  const mine = { url: "http://origin/f", headers: { authorization: "Bearer x" } };
  const { taskId, ...fresh } = await resolver.resolve(mine, undefined);
  await complete(store, { taskId, ...fresh });
  const later = async (hint?: TaskId): Promise<string> => {
    clock.nowMs = clock.unixMs += 2_000;
    origin.statErrors = Array.from({ length: 4 }, down);
    return await resolver.resolve(mine, hint).then(() => "stale", (error: unknown) => toAppError(error).code);
  };
  assert.equal(await later(), "stale", "within a grant");
  resolver.setFreshness({ revalidateMs: 1000, staleMs: undefined, staleTagMs: undefined });
  assert.equal(await later(), "ORIGIN_UNREACHABLE");
  assert.equal(await later(taskId), "ORIGIN_UNREACHABLE", "nobody is at it");
  active.add(taskId);
  assert.equal(await later(taskId), "stale");
});

test("what is not here any more, or cannot be looked at, is asked for without conditions", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const { taskId, record } = await resolver.resolve(source, undefined);
  await store.open(record);
  store.findError = new AppError("DISK_FAILED", "input/output error");
  clock.nowMs = 1000;
  assert.equal((await resolver.resolve(source, undefined)).taskId, taskId);
  store.findError = undefined;
  await store.remove(taskId);
  clock.nowMs = 2000;
  await resolver.resolve(source, undefined);
  assert.deepEqual(origin.asked, [undefined, undefined, undefined]);
});

test("a file with a date and no ETag is confirmed by its date", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  origin.etag = undefined;
  origin.lastModified = "Thu, 01 Jan 2026 00:00:00 GMT";
  const { resolver, store, clock } = lab(origin);
  const { taskId, record } = await resolver.resolve(source, undefined);
  await store.open(record);
  clock.nowMs = 1000;
  assert.equal((await resolver.resolve(source, undefined)).taskId, taskId);
  assert.equal(origin.asked[1]?.lastModified, origin.lastModified);
});

test("an origin that says nothing is waited for a minute, with something to fall back on five seconds", async (t) => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const waited: number[] = [];
  const timeout = t.mock.method(AbortSignal, "timeout", (delayMs: number) => (waited.push(delayMs), AbortSignal.abort()));
  const stat = t.mock.method(origin, "stat", () => Promise.reject(new AppError("ABORTED", "given up")));
  await assert.rejects(resolver.resolve(source, undefined), { code: "TIMEOUT" });
  stat.mock.restore();
  clock.nowMs = 2_000;
  await complete(store, await resolver.resolve(source, undefined));
  t.mock.method(origin, "stat", () => Promise.reject(new AppError("ABORTED", "given up")));
  clock.nowMs = 4_000;
  assert.notEqual((await resolver.resolve(source, undefined)).staleMs, undefined);
  assert.deepEqual(waited, [60_000, 60_000, 5_000]);
  timeout.mock.restore();
});

test("a file that was looked at is let go of again, confirmed or given out stale", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const first = await resolver.resolve(source, undefined);
  await complete(store, first);
  const stored = store.tasks.get(first.taskId);
  clock.nowMs = clock.unixMs += 2_000;
  assert.equal((await resolver.resolve(source, undefined)).taskId, first.taskId);
  assert.equal(stored?.releases, 1);
  clock.nowMs = clock.unixMs += 2_000;
  origin.statErrors = [down()];
  assert.notEqual((await resolver.resolve(source, undefined)).staleMs, undefined);
  assert.equal(stored?.releases, 3);
});

test("a tag whose registry said what it means still means that while the registry is down", async () => {
  const digest = `sha256:${"b".repeat(64)}`;
  class Registry extends FakeOrigin {
    override get info(): OriginInfo {
      return { ...super.info, headers: { "docker-content-digest": digest } };
    }
  }
  const origin = new Registry(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const tag = { url: "http://origin/v2/team/app/manifests/v1", headers: {} };
  const named = await resolver.resolve(tag, undefined);
  assert.equal(named.record.digest, digest);
  await complete(store, named);
  clock.nowMs = clock.unixMs += 2_000;
  origin.statErrors = Array.from({ length: 4 }, down);
  assert.equal((await resolver.resolve(tag, undefined)).taskId, named.taskId);
});

test("a refusal of content known by digest is not remembered as long as a grant", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, clock } = lab(origin);
  const byDigest = { url: `http://origin/v2/r/blobs/sha256:${"a".repeat(64)}`, headers: {} };
  origin.statErrors = [new AppError("ORIGIN_NOT_FOUND", "not yet pushed")];
  await assert.rejects(resolver.resolve(byDigest, undefined), { code: "ORIGIN_NOT_FOUND" });
  clock.nowMs = 1_000;
  await resolver.resolve(byDigest, undefined);
  assert.equal(origin.statCount, 2);
});

test("an image's tag has a limit of its own", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const tag = { url: "http://origin/v2/team/app/manifests/v1", headers: {} };
  await complete(store, await resolver.resolve(tag, undefined));
  clock.nowMs = clock.unixMs += 2 * HOUR_MS;
  origin.statErrors = [down()];
  assert.equal((await resolver.resolve(tag, undefined)).staleMs, 2 * HOUR_MS);
  clock.nowMs = clock.unixMs += 1;
  clock.nowMs += 2000;
  origin.statErrors = Array.from({ length: 4 }, down);
  await assert.rejects(resolver.resolve(tag, undefined), { code: "ORIGIN_UNREACHABLE" });
});

test("what is here is confirmed: 304 leaves it as it is, 200 with another version is another task", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const first = await resolver.resolve(source, undefined);
  assert.equal(origin.asked[0], undefined);
  await store.open(first.record);
  clock.nowMs = 1000;
  const second = await resolver.resolve(source, undefined);
  assert.equal(origin.asked[1]?.etag, '"v1"');
  assert.equal(second.taskId, first.taskId);
  assert.deepEqual(second.record, first.record);
  clock.nowMs = 2000;
  origin.etag = '"v2"';
  assert.notEqual((await resolver.resolve(source, undefined)).taskId, first.taskId);
  assert.equal(origin.asked[2]?.etag, '"v1"');
});

test("a file whose length only the reading told stays the same task when it is confirmed", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  origin.tellsLength = false;
  const { resolver, store, clock } = lab(origin);
  const first = await resolver.resolve(source, undefined);
  const stored = await store.open(first.record);
  await stored.setLength(1000, new Uint8Array(64));
  clock.nowMs = 1000;
  const second = await resolver.resolve(source, undefined);
  assert.deepEqual([second.taskId, second.record.lengthBytes], [first.taskId, 1000]);
});

test("content known by digest is never asked whether it changed", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const byDigest = { url: `http://origin/v2/r/blobs/sha256:${"a".repeat(64)}`, headers: {} };
  await complete(store, await resolver.resolve(byDigest, undefined));
  clock.nowMs = HOUR_MS;
  await resolver.resolve(byDigest, undefined);
  assert.deepEqual(origin.asked, [undefined, undefined]);
});

test("another signature of the same file is held against what is here only by a strong ETag", async () => {
  for (const [etag, isAsked] of [['"strong"', true], ['W/"weak"', false]] as const) {
    const origin = new FakeOrigin(Buffer.alloc(1000));
    origin.etag = etag;
    const { resolver, store } = lab(origin);
    const signed = (signature: string) => ({ url: `http://origin/f?X-Amz-Signature=${signature}`, headers: {} });
    // oxlint-disable-next-line no-await-in-loop -- cases
    await store.open((await resolver.resolve(signed("a"), undefined)).record);
    // oxlint-disable-next-line no-await-in-loop -- cases
    await resolver.resolve(signed("b"), undefined);
    assert.equal(origin.asked[1] !== undefined, isAsked, etag);
  }
});

test("404 and 401 are answers: nothing stale is given then", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  await complete(store, await resolver.resolve(source, undefined));
  for (const code of ["ORIGIN_NOT_FOUND", "ORIGIN_UNAUTHORIZED"] as const) {
    clock.nowMs += 2000;
    origin.statErrors = [new AppError(code, "no")];
    // oxlint-disable-next-line no-await-in-loop -- cases
    await assert.rejects(resolver.resolve(source, undefined), { code });
  }
});

test("a peer that took part goes on while the origin is down, though the file is not whole here", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock } = lab(origin);
  const { taskId, record } = await resolver.resolve(source, undefined);
  await store.open(record);
  clock.nowMs = 2000;
  origin.statErrors = [down(), down()];
  assert.equal((await resolver.resolve(source, taskId)).taskId, taskId);
});

test("a version without a name is the same only while somebody is at it", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  origin.etag = undefined;
  const { resolver, clock, active } = lab(origin);
  const later = async (hint?: TaskId): Promise<TaskId> => {
    clock.nowMs += 60_000;
    clock.unixMs += 60_000;
    return (await resolver.resolve(source, hint)).taskId;
  };
  const first = (await resolver.resolve(source, undefined)).taskId;
  assert.equal((await resolver.resolve({ ...source, headers: { "user-agent": "y" } }, undefined)).taskId, first);
  active.add(first);
  assert.equal(await later(), first);
  active.clear();
  assert.equal(await later(first), first);
  const second = await later();
  assert.notEqual(second, first);
  active.add(second);
  origin.content = Buffer.alloc(1001);
  assert.notEqual(await later(), second);
});

test("a broken memory file is put aside", (t) => {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-versions-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "versions.sqlite");
  writeFileSync(file, "this is no database, but long enough to look like a file of some kind".repeat(20));
  const versions = new VersionMemory(file);
  versions.set("k", { taskId: "a".repeat(64) as TaskId, lengthBytes: undefined, seenUnixMs: 5 });
  versions.close();
  const again = new VersionMemory(file);
  assert.deepEqual(again.get("k"), { taskId: "a".repeat(64), lengthBytes: undefined, seenUnixMs: 5 });
  again.close();
});

test("a file that is not whole here is given out stale only while others are at it", async () => {
  const origin = new FakeOrigin(Buffer.alloc(1000));
  const { resolver, store, clock, active } = lab(origin);
  const fresh = await resolver.resolve(source, undefined);
  await store.open(fresh.record);
  const later = async (hint?: TaskId): Promise<string> => {
    clock.nowMs += 10_000;
    origin.statErrors = [down()];
    return await resolver.resolve(source, hint).then(({ taskId }) => taskId, (error: unknown) => toAppError(error).code);
  };
  assert.equal(await later(), "ORIGIN_UNREACHABLE");
  assert.equal(await later(fresh.taskId), fresh.taskId, "who took part goes on");
  active.add(fresh.taskId);
  assert.equal(await later(), fresh.taskId);
});
