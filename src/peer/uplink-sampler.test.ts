import assert from "node:assert/strict";
import { test } from "node:test";
import type { LinkQueue, SwarmInput } from "../swarm/index.ts";
import { UplinkSampler } from "./uplink-sampler.ts";

const QUEUE: LinkQueue = { heldBytes: 1_000, roundTripMs: 20, leastRoundTripMs: 1 };

function sampler(queues: readonly (LinkQueue | undefined)[]): { readonly told: SwarmInput[]; readonly clock: { nowMs: number }; readonly links: { writer: { queue: LinkQueue | undefined } }[]; readonly uplink: UplinkSampler } {
  const told: SwarmInput[] = [];
  const clock = { nowMs: 0 };
  const links = queues.map((queue) => ({ writer: { queue } }));
  return { told, clock, links, uplink: new UplinkSampler({ links, handedBytes: () => 7_000, feed: (input) => void told.push(input), nowMs: () => clock.nowMs }) };
}

test("the kernel is asked for each link that holds something, and not for every piece", () => {
  const { told, clock, uplink } = sampler([QUEUE, { ...QUEUE, heldBytes: 0 }, undefined]);
  for (const nowMs of [0, 1, 49, 50, 51]) {
    clock.nowMs = nowMs;
    uplink.look();
  }
  assert.deepEqual(told, Array(2).fill({ type: "uplinkSampled", handedBytes: 7_000, links: [QUEUE] }));
});

test("that nothing is held is told, too", () => {
  const { told, uplink } = sampler([{ ...QUEUE, heldBytes: 0 }]);
  uplink.look();
  assert.deepEqual(told, [{ type: "uplinkSampled", handedBytes: 7_000, links: [] }]);
});

test("where no kernel says anything the brain hears nothing", () => {
  const { told, uplink } = sampler([undefined, undefined]);
  uplink.look();
  assert.deepEqual(told, []);
});

test("when those that said something are gone, what they held is no longer held", () => {
  const { told, clock, links, uplink } = sampler([QUEUE]);
  uplink.look();
  links.length = 0;
  clock.nowMs = 50;
  uplink.look();
  assert.deepEqual(told.at(-1), { type: "uplinkSampled", handedBytes: 7_000, links: [] });
});
