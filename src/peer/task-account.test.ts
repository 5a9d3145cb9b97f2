/** The books in virtual time: what the driver tells, in its order, and what is made of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Bound, BOUNDS } from "../base/bounds.ts";
import type { PeerId } from "../protocol/ids.ts";
import type { TaskIntake } from "../swarm/index.ts";
import { figuresSince, TaskAccount } from "./task-account.ts";

interface World {
  readonly account: TaskAccount;
  intake: Partial<Omit<TaskIntake, "hasMore" | "isHeldNearby">> & { seedHasMore?: boolean };
  isCpuBusy: boolean;
  isInterfaceFull: boolean;
  isStoringFull: boolean;
  /** Time passes, unnoticed; with `passes` the books are looked at. */
  moves(ms: number): void;
  passes(ms: number): void;
  spent(): Partial<Record<Bound, number>>;
}

function world(isComplete = false): World {
  let nowMs = 1_000;
  const account: TaskAccount = new TaskAccount({ nowMs: () => nowMs, isCpuBusy: () => it.isCpuBusy, isDownlinkFull: () => it.isInterfaceFull });
  const it: World = {
    account,
    intake: {},
    isCpuBusy: false,
    isInterfaceFull: false,
    isStoringFull: false,
    moves: (ms) => void (nowMs += ms),
    passes: (ms) => {
      it.moves(ms);
      account.look();
    },
    spent: () => {
      const { spentMs } = account.figures();
      return Object.fromEntries(BOUNDS.filter((bound) => spentMs[bound] > 0).map((bound) => [bound, spentMs[bound]]));
    },
  };
  const intake = (): TaskIntake => {
    const { seedHasMore = false, ...rest } = it.intake;
    const hasMore = (from: string): boolean => from === "seed" && seedHasMore;
    return { fromSeedCount: 0, fromNeighboursCount: 0, isSeedLinked: true, linkCount: 1, late: 0, doubled: 0, hasMore, isHeldNearby: () => false, ...rest };
  };
  account.opened({ intake, isStoringFull: () => it.isStoringFull }, isComplete);
  return it;
}

test("a download that met everything: each phase is put down to its cause", () => {
  const it = world();
  it.account.preceded(40);
  it.passes(100); // The seed holds nothing yet.
  it.intake = { fromSeedCount: 2 };
  it.passes(200);
  it.intake = { fromNeighboursCount: 2 };
  it.passes(300);
  it.account.held(1);
  it.passes(70);
  it.account.held(-1);
  it.isCpuBusy = true;
  it.passes(30);
  it.isCpuBusy = false;
  it.isInterfaceFull = true;
  it.passes(5);
  it.isInterfaceFull = false;
  it.intake = {};
  it.account.storing(1);
  it.passes(60);
  it.account.stored(true);
  it.account.storing(-1);
  it.passes(10_000); // Complete: nothing is waited for any more.
  assert.deepEqual(it.spent(), { waiting: 40, origin: 100, seed: 200, neighbours: 300, downlink: 75, cpu: 30, disk: 60 });
  assert.equal(it.account.tookMs, 40 + 100 + 200 + 300 + 70 + 30 + 5 + 60);
  assert.equal(it.account.firstPieceMs, it.account.tookMs);
});

test("a disk that is behind counts only against a task that has pieces with it", () => {
  const [own, other] = [world(), world()];
  for (const it of [own, other]) {
    it.isStoringFull = true;
    it.intake = { fromNeighboursCount: 1 };
  }
  own.account.storing(1);
  own.passes(50);
  other.passes(50);
  assert.deepEqual(own.spent(), { disk: 50 });
  assert.deepEqual(other.spent(), { neighbours: 50 });
});

test("pieces lost after completion: the clock runs again from then on", () => {
  const it = world(true);
  it.passes(500);
  it.account.lost();
  it.intake = { seedHasMore: true };
  it.passes(20);
  assert.deepEqual(it.spent(), { seed: 20 });
  it.account.readingOrigin(1);
  it.intake = {};
  it.passes(7);
  it.account.readingOrigin(-1);
  assert.deepEqual(it.spent(), { seed: 20, origin: 7 });
});

test("a reader's figures are what came since it began", () => {
  const it = world();
  const peers = ["a-1", "b-2"] as PeerId[] as [PeerId, PeerId];
  it.account.kept(peers[0], true, 100);
  it.account.offered();
  const before = it.account.figures();
  it.account.kept(peers[0], true, 10);
  it.account.kept(peers[1], false, 20);
  it.account.offered();
  it.account.declined();
  it.account.rejected();
  it.account.wasted(5);
  it.intake = { late: 3, doubled: 1 };
  const since = figuresSince(before, it.account.figures());
  assert.deepEqual([...since.neighbours], [[peers[0], { seed: true, bytes: 10 }], [peers[1], { seed: false, bytes: 20 }]]);
  assert.deepEqual(since.pieces, { offered: 1, declined: 1, rejected: 1, late: 3, doubled: 1 });
  assert.equal(since.wastedBytes, 5);
});

test("a glance puts nothing down before 100 milliseconds have passed, and then all of them", () => {
  const it = world();
  it.intake = { fromSeedCount: 1 };
  it.passes(1_600);
  it.moves(99);
  it.account.glance();
  it.intake = { fromNeighboursCount: 1 };
  it.moves(1);
  it.account.glance();
  it.intake = { fromSeedCount: 1 };
  it.moves(3);
  assert.deepEqual(it.spent(), { seed: 1_603, neighbours: 100 }, "a figure that is asked for has everything");
});

test("the young task's books are exact to a sixteenth of its life", () => {
  const it = world();
  it.intake = { fromSeedCount: 1 };
  it.moves(32);
  it.account.glance();
  it.intake = { fromNeighboursCount: 1 };
  it.moves(1);
  it.account.glance();
  it.moves(2);
  it.account.storing(1);
  it.intake = {};
  it.moves(5);
  it.account.storing(-1);
  it.account.stored(true);
  assert.deepEqual(it.spent(), { seed: 32, neighbours: 3, disk: 5 });
});
