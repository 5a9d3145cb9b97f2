import assert from "node:assert/strict";
import { test } from "node:test";
import { type Bound, BoundAccount, boundsOf, mainBound, sharesSince, type Situation } from "./bounds.ts";

const NOTHING: Situation = {
  isDownlinkFull: false,
  isCpuBusy: false,
  isReadingOrigin: false,
  storingCount: 0,
  isStoringFull: false,
  fromSeedCount: 0,
  fromNeighboursCount: 0,
  seedHasMore: () => false,
  neighboursHaveMore: () => false,
  isSeedLinked: false,
  linkCount: 0,
};
const yes = (): boolean => true;

test("each cause is found where it alone is true, and the nearer one where several are", () => {
  const cases: readonly (readonly [what: string, now: Partial<Situation>, shares: Partial<Record<Bound, number>>])[] = [
    ["nobody there", {}, { waiting: 1 }],
    ["the seed holds nothing new", { isSeedLinked: true, linkCount: 3 }, { origin: 1 }],
    ["no seed, and neighbours hold nothing new", { linkCount: 3 }, { neighbours: 1 }],
    ["this host reads the origin", { isReadingOrigin: true, linkCount: 3 }, { origin: 1 }],
    ["the seed has more and does not offer it", { seedHasMore: yes, neighboursHaveMore: yes, isSeedLinked: true, linkCount: 2 }, { seed: 1 }],
    ["neighbours have more and do not offer it", { neighboursHaveMore: yes, isSeedLinked: true, linkCount: 2 }, { neighbours: 1 }],
    ["pieces come from both", { fromSeedCount: 1, fromNeighboursCount: 3, linkCount: 4 }, { seed: 0.25, neighbours: 0.75 }],
    ["pieces come, and one is being written meanwhile", { fromSeedCount: 1, storingCount: 1 }, { seed: 1, neighbours: 0 }],
    ["only the disk is at it", { storingCount: 1, isSeedLinked: true, linkCount: 1, seedHasMore: yes }, { disk: 1 }],
    ["the disk keeps others out", { storingCount: 4, isStoringFull: true, isCpuBusy: true, fromSeedCount: 8 }, { disk: 1 }],
    ["no time left", { isCpuBusy: true, fromNeighboursCount: 8 }, { cpu: 1 }],
    ["a limit of our own", { isDownlinkFull: true, isCpuBusy: true, isStoringFull: true, fromNeighboursCount: 8 }, { downlink: 1 }],
  ];
  for (const [what, now, shares] of cases) assert.deepEqual(boundsOf({ ...NOTHING, ...now }), shares, what);
});

test("intervals add up to the time that has passed, each to its cause; what nobody is charged for is left out", () => {
  const account = new BoundAccount(100);
  account.charge(150, () => ({ waiting: 1 }));
  account.charge(250, () => ({ seed: 0.25, neighbours: 0.75 }));
  account.charge(250, () => assert.fail("no time has passed"));
  const then = account.spentMs();
  account.skip(1_000);
  account.charge(1_300, () => ({ disk: 1 }));
  const { waiting, seed, neighbours, disk } = account.spentMs();
  assert.deepEqual([waiting, seed, neighbours, disk], [50, 25, 75, 300]);
  assert.equal(mainBound(account.spentMs()), "disk");
  assert.equal(mainBound(then), "neighbours");
  assert.equal(mainBound(sharesSince(then, then)), undefined);
});
