import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import type { Digest } from "../../protocol/ids.ts";
import { callerOf, MirrorAccess } from "./access.ts";

const digest = "sha256:aa" as Digest;
const target = { registry: "reg.test", repository: "team/app", digest };
const anonymous = callerOf(undefined);
const alice = callerOf("Bearer alice");
const bob = callerOf("Bearer bob");

function build(entriesMax = 10): { access: MirrorAccess; clock: { nowMs: number } } {
  const clock = { nowMs: 0 };
  return { access: new MirrorAccess({ ttlMs: 1000, entriesMax, nowMs: () => clock.nowMs }), clock };
}

void test("a caller's scope tells nothing of his credentials, and is the same each time", () => {
  assert.equal(callerOf("Bearer alice").scope, alice.scope);
  assert.notEqual(alice.scope, bob.scope);
  assert.doesNotMatch(alice.scope, /alice/);
});

void test("a right is of one caller, one repository, one digest, and ends", () => {
  const { access, clock } = build();
  access.allow(alice, "reg.test", "team/app", [digest]);
  assert.equal(access.isAllowed(alice, target), true);
  assert.equal(access.isAllowed(bob, target), false);
  assert.equal(access.isAllowed(anonymous, target), false);
  assert.equal(access.isAllowed(alice, { ...target, repository: "team/other" }), false);
  assert.equal(access.isAllowed(alice, { ...target, registry: "other.test" }), false);
  clock.nowMs = 1000;
  assert.equal(access.isAllowed(alice, target), false);
});

void test("what anybody may read, everybody may", () => {
  const { access } = build();
  access.allow(anonymous, "reg.test", "team/app", [digest]);
  assert.equal(access.isAllowed(bob, target), true);
});

void test("the upstream is asked once for all who ask at that moment, and not again while its word holds", async () => {
  const { access } = build();
  let askedCount = 0;
  const ask = async (): Promise<void> => {
    askedCount++;
    await Promise.resolve();
  };
  const verdicts = await Promise.all([1, 2, 3].map(() => access.check(alice, target, ask)));
  assert.deepEqual(verdicts, ["allowed", "allowed", "allowed"]);
  assert.equal(await access.check(alice, target, ask), "allowed");
  assert.equal(askedCount, 1);
});

void test("a refusal is the caller's own, and is asked anew each time", async () => {
  const { access } = build();
  const refuse = (): Promise<never> => Promise.reject(new AppError("ORIGIN_UNAUTHORIZED", "no"));
  await assert.rejects(access.check(bob, target, refuse), { code: "ORIGIN_UNAUTHORIZED" });
  assert.equal(await access.check(bob, target, () => Promise.resolve()), "allowed");
});

void test("a registry that is down leaves the anonymous unverified, and is an error to who brings credentials", async () => {
  const { access } = build();
  for (const down of [new AppError("ORIGIN_UNREACHABLE", "x"), new AppError("ORIGIN_STATUS", "x", { details: { status: 500 } })]) {
    assert.equal(await access.check(anonymous, target, () => Promise.reject(down)), "unverified");
    await assert.rejects(access.check(alice, target, () => Promise.reject(down)), { code: down.code });
  }
  assert.equal(access.isAllowed(anonymous, target), false);
});

void test("beyond the bound the oldest rights are forgotten", () => {
  const { access } = build(2);
  const digests = ["sha256:1", "sha256:2", "sha256:3"] as Digest[];
  access.allow(alice, "reg.test", "team/app", digests);
  assert.deepEqual(digests.map((each) => access.isAllowed(alice, { ...target, digest: each })), [false, true, true]);
});
