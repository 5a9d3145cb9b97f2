import assert from "node:assert/strict";
import { test } from "node:test";
import { callerAt } from "./caller.ts";
import type { PingAnswer, UpstreamAsker } from "./passthrough.ts";
import { Pings } from "./ping.ts";
import type { Upstream } from "./registries.ts";

const upstream = { name: "reg.test" } as Upstream;
const anonymous = callerAt({ access: "passthrough" }, undefined);

/** A registry that takes so long for each of its answers, and then says so or breaks. */
function build(answers: readonly (PingAnswer | "broken")[], tookMs = 0): { ask: () => Promise<string | undefined>; askedCount: () => number; clock: { nowMs: number } } {
  const clock = { nowMs: 0 };
  let asked = 0;
  const ping = (): Promise<PingAnswer> => {
    const answer = answers[asked++];
    clock.nowMs += tookMs;
    return answer === "broken" || answer === undefined ? Promise.reject(new Error("reset")) : Promise.resolve(answer);
  };
  const pings = new Pings({ asker: { ping } as unknown as UpstreamAsker, ttlMs: 30_000, nowMs: () => clock.nowMs });
  return { ask: async () => (await pings.ask(upstream, anonymous)).wwwAuthenticate, askedCount: () => asked, clock };
}

const challenge: PingAnswer = { wwwAuthenticate: "Bearer realm=x" };
const open: PingAnswer = { wwwAuthenticate: undefined };

test("a registry's word serves for a while", async () => {
  const { ask, askedCount, clock } = build([open, challenge]);
  assert.deepEqual([await ask(), await ask(), askedCount()], [undefined, undefined, 1]);
  clock.nowMs = 30_000;
  assert.equal(await ask(), challenge.wwwAuthenticate);
});

test("one ping that a registry missed is not its word: it is asked again", async () => {
  const { ask } = build(["broken", challenge]);
  assert.deepEqual([await ask(), await ask()], [undefined, challenge.wwwAuthenticate]);
});

test("where a silent registry made one wait, others are spared it for as long again", async () => {
  const { ask, askedCount, clock } = build(["broken", challenge], 3_000);
  assert.deepEqual([await ask(), await ask(), askedCount()], [undefined, undefined, 1]);
  clock.nowMs += 3_000;
  assert.equal(await ask(), challenge.wwwAuthenticate);
});
