import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import type { Digest } from "../../protocol/ids.ts";
import { MirrorAccess, type MirrorAccessOptions } from "./access.ts";
import { callerAt, type Caller } from "./caller.ts";

const digest = "sha256:aa" as Digest;
const place = { registry: "reg.test", repository: "team/app" };
const target = { ...place, digest };
const as = (authorization: string | undefined): Caller => callerAt({ access: "passthrough" }, authorization);
const anonymous = as(undefined);
const alice = as("Bearer alice");
const bob = as("Bearer bob");

interface Rig {
  readonly access: MirrorAccess;
  readonly clock: { nowMs: number };
  /** Asks an upstream that says yes. */
  readonly isGranted: (caller: Caller, of?: typeof target) => Promise<boolean>;
}

function build(options: Partial<MirrorAccessOptions> = {}): Rig {
  const clock = { nowMs: 0 };
  const access = new MirrorAccess({
    grantMs: 1000, outageGrantMs: 0, absenceMs: 100, entriesMax: 10, nowMs: () => clock.nowMs, ...options,
  });
  // Whether the upstream would have to be asked.
  const isGranted = async (caller: Caller, of = target): Promise<boolean> => {
    let asked = false;
    const no = new AppError("ORIGIN_STATUS", "asked");
    await access.check(caller, of, "blob", () => ((asked = true), Promise.reject(no))).catch(() => {});
    return !asked;
  };
  return { access, clock, isGranted };
}

const yes = (): Promise<void> => Promise.resolve();
const fail = (code: AppError["code"], status?: number) => (): Promise<never> =>
  Promise.reject(new AppError(code, "x", status === undefined ? {} : { details: { status } }));

void test("a caller's scope tells nothing of his credentials, and is the same each time", () => {
  assert.equal(as("Bearer alice").scope, alice.scope);
  assert.notEqual(alice.scope, bob.scope);
  assert.doesNotMatch(alice.scope, /alice/);
});

void test("where callers do not stand for themselves, what they send counts for nothing", () => {
  assert.deepEqual(callerAt({ access: "public" }, "Bearer alice"), anonymous);
  const own = callerAt({ access: "own-credentials" }, "Bearer alice");
  assert.equal(own.authorization, undefined);
  assert.notEqual(own.scope, anonymous.scope);
  assert.deepEqual(callerAt({ access: "own-credentials" }, undefined), own);
});

void test("M14: a grant is of one caller and one repository, opens what it holds, and ends", async () => {
  const { access, clock, isGranted } = build();
  access.grant(alice, place, 0);
  assert.equal(await isGranted(alice), false, "nobody said that the repository holds it");
  access.holds(place, [digest]);
  assert.equal(await isGranted(alice), true);
  assert.equal(await isGranted(bob), false);
  assert.equal(await isGranted(anonymous), false);
  for (const other of [{ ...place, repository: "team/other" }, { ...place, registry: "other.test" }]) {
    access.holds(other, [digest]);
    assert.equal(await isGranted(alice, { ...other, digest }), false);
  }
  clock.nowMs = 1000;
  assert.equal(await isGranted(alice), false);
});

void test("M14: a login's grant is shorter by as long as its token is used again: rights end within a grant's life all the same", async () => {
  const { access, clock, isGranted } = build({ grantMs: 40_000 });
  const login: Caller = { ...alice, authorization: undefined, login: { username: "alice", password: "x" } };
  access.holds(place, [digest]);
  access.grant(login, place, 0);
  clock.nowMs = 9_999;
  assert.equal(await isGranted(login), true);
  clock.nowMs = 10_000;
  assert.equal(await isGranted(login), false);
});

void test("M14: one question per caller and repository: it opens all that the repository is known to hold", async () => {
  const { access, isGranted } = build();
  const other = "sha256:bb" as Digest;
  access.holds(place, [digest, other]);
  assert.equal(await access.check(bob, target, "blob", yes), "asked");
  assert.equal(await isGranted(bob, { ...target, digest: other }), true);
});

void test("M14: a grant ends when it would have, however often it is used, and counts from the question", async () => {
  const { access, clock, isGranted } = build();
  const slow = async (): Promise<void> => {
    clock.nowMs = 400;
    await Promise.resolve();
  };
  await access.check(alice, target, "blob", slow);
  clock.nowMs = 999;
  access.holds(place, [digest]);
  assert.equal(await isGranted(alice), true);
  clock.nowMs = 1000;
  assert.equal(await isGranted(alice), false);
});

void test("what anybody may read, everybody may", async () => {
  const { access, isGranted } = build();
  access.grant(anonymous, place, 0);
  access.holds(place, [digest]);
  assert.equal(await isGranted(bob), true);
});

void test("the upstream is asked once for all who ask at that moment, and not again while its word holds", async () => {
  const outcomes: string[] = [];
  const { access } = build({ onOutcome: (outcome) => outcomes.push(outcome) });
  let askedCount = 0;
  const ask = async (): Promise<void> => {
    askedCount++;
    await Promise.resolve();
  };
  const verdicts = await Promise.all([1, 2, 3].map(() => access.check(alice, target, "blob", ask)));
  assert.deepEqual(verdicts, ["asked", "asked", "asked"]);
  assert.equal(await access.check(alice, target, "blob", ask), "granted");
  assert.equal(askedCount, 1);
  assert.deepEqual(outcomes, ["asked", "granted"]);
});

void test("M14: a refusal is the caller's own, ends his grant, and is asked anew each time", async () => {
  const { access, isGranted } = build();
  access.grant(alice, place, 0);
  access.grant(bob, place, 0);
  access.holds(place, [digest]);
  const other = { ...target, digest: "sha256:bb" as Digest };
  await assert.rejects(access.check(bob, other, "blob", fail("ORIGIN_UNAUTHORIZED")), { code: "ORIGIN_UNAUTHORIZED" });
  assert.equal(await isGranted(bob), false);
  assert.equal(await isGranted(alice), true);
  assert.equal(await access.check(bob, target, "blob", yes), "asked");
});

void test("what is not there is said again to the same caller only, for a moment", async () => {
  const { access, clock } = build();
  await assert.rejects(access.check(bob, target, "blob", fail("ORIGIN_NOT_FOUND")), { code: "ORIGIN_NOT_FOUND" });
  assert.equal(await access.check(alice, target, "blob", yes), "asked");
  await assert.rejects(access.check(bob, target, "blob", yes), { code: "ORIGIN_NOT_FOUND" });
  clock.nowMs = 100;
  assert.equal(await access.check(bob, target, "blob", yes), "asked");
});

void test("a registry that is down leaves the anonymous unverified, and is an error to who brings credentials", async () => {
  const { access } = build();
  for (const down of [fail("ORIGIN_UNREACHABLE"), fail("ORIGIN_STATUS", 500)]) {
    assert.equal(await access.check(anonymous, target, "blob", down), "unverified");
    await assert.rejects(access.check(alice, target, "blob", down), AppError);
  }
  assert.equal(access.hasGrant(anonymous, place, true), false);
});

void test("with the registry down a grant lives on as long as the operator says, and no longer", async () => {
  const { access, clock } = build({ outageGrantMs: 500 });
  access.grant(alice, place, 0);
  access.holds(place, [digest]);
  clock.nowMs = 1499;
  assert.equal(await access.check(alice, target, "blob", fail("ORIGIN_UNREACHABLE")), "granted");
  await assert.rejects(access.check(alice, target, "blob", fail("ORIGIN_FORBIDDEN")), AppError);
  access.grant(alice, place, 0);
  clock.nowMs = 1500;
  await assert.rejects(access.check(alice, target, "blob", fail("ORIGIN_UNREACHABLE")), AppError);
});

void test("with the registry down who never had a grant has none, however young this process is", async () => {
  const { access, clock } = build({ outageGrantMs: 500 });
  access.grant(alice, place, 0);
  access.holds(place, [digest]);
  clock.nowMs = 10;
  await assert.rejects(access.check(bob, target, "blob", fail("ORIGIN_UNREACHABLE")), AppError);
  assert.equal(await access.check(anonymous, target, "blob", fail("ORIGIN_UNREACHABLE")), "unverified");
  assert.equal(access.hasGrant(bob, place, true), false);
});

void test("beyond the bound the oldest is forgotten", async () => {
  const { access, isGranted } = build({ entriesMax: 2 });
  const digests = ["sha256:1", "sha256:2", "sha256:3"] as Digest[];
  access.grant(alice, place, 0);
  access.holds(place, digests);
  const found = [];
  for (const each of digests) found.push(await isGranted(alice, { ...target, digest: each }));
  assert.deepEqual(found, [false, true, true]);
  // A grant that is given again is young again.
  access.grant(bob, place, 0);
  access.grant(alice, place, 0);
  access.grant(as("Bearer carol"), place, 0);
  const target3 = { ...target, digest: "sha256:3" as Digest };
  assert.deepEqual([await isGranted(alice, target3), await isGranted(bob, target3)], [true, false]);
});

void test("that something is no manifest says nothing of whether it is a blob, nor the other way round", async () => {
  for (const [first, second] of [["manifest", "blob"], ["blob", "manifest"]] as const) {
    const { access } = build();
    await assert.rejects(access.check(bob, target, first, fail("ORIGIN_NOT_FOUND")), { code: "ORIGIN_NOT_FOUND" });
    assert.equal(await access.check(bob, target, second, yes), "asked");
  }
});
