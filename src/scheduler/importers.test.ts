import assert from "node:assert/strict";
import { test } from "node:test";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { ALL_BUCKETS, BUCKET_COUNT } from "../protocol/topology.ts";
import { DEFAULT_SCHEDULER_CONFIG, type Imports, Scheduler, type SchedulerEffect, type SchedulerInput, type Topology } from "./index.ts";

const TASK = "0".repeat(64) as TaskId;

/** Peers with labels in one task, and what each was last told that it may import. */
class Site {
  readonly scheduler = new Scheduler(DEFAULT_SCHEDULER_CONFIG, 1);
  readonly told = new Map<string, readonly Imports[]>();
  /** Messages about imports alone. */
  toldCount = 0;
  #nowMs = 0;

  step(input: SchedulerInput): void {
    this.#note(this.scheduler.step(input, this.#nowMs));
  }

  join(name: string, topology: Topology): void {
    const peerId = name as PeerId;
    this.step({ type: "peerConnected", peerId, seed: false, dialable: true, topology });
    this.step({ type: "taskJoined", peerId, taskId: TASK, requestId: 1, pieceCount: 0, totalCount: 100 });
  }

  wait(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (let dueMs = this.scheduler.nextDeadlineMs(); dueMs !== undefined && dueMs <= endMs; dueMs = this.scheduler.nextDeadlineMs()) {
      this.#nowMs = dueMs;
      this.step({ type: "deadlineReached" });
    }
    this.#nowMs = endMs;
  }

  /** Checks that each bucket has one owner among these, and one backup if there are two. @returns buckets by owner */
  shares(distance: number, names: readonly string[]): readonly number[] {
    const entries = names.map((name) => this.told.get(name)?.find((entry) => entry.distance === distance));
    for (const kind of ["own", "backup"] as const) {
      if (kind === "backup" && names.length < 2) continue;
      const all = entries.reduce((sum, entry) => sum + popcount(entry?.[kind] ?? 0), 0);
      assert.equal(all, BUCKET_COUNT, `${kind} at ${distance}: each bucket once`);
      assert.equal(entries.reduce((union, entry) => union | (entry?.[kind] ?? 0), 0), ALL_BUCKETS, `${kind} at ${distance}: every bucket`);
    }
    for (const entry of entries) assert.equal((entry?.own ?? 0) & (entry?.backup ?? 0), 0, "nobody is their own backup");
    return entries.map((entry) => popcount(entry?.own ?? 0));
  }

  #note(effects: readonly SchedulerEffect[]): void {
    for (const effect of effects) {
      if (effect.type !== "assign" && effect.type !== "assignImports") continue;
      this.told.set(effect.peerId, effect.imports);
      if (effect.type === "assignImports") this.toldCount++;
    }
  }
}

function popcount(buckets: number): number {
  let count = 0;
  for (let bits = buckets; bits !== 0; bits &= bits - 1) count++;
  return count;
}

const names = (count: number, prefix = "p"): string[] => Array.from({ length: count }, (_, i) => `${prefix}${i}`);

test("a rack's members share the pieces evenly, each piece to one of them, with another as backup", () => {
  for (const count of [1, 2, 3, 4, 7, 16]) {
    const site = new Site();
    for (const name of names(count)) site.join(name, { rack: "r" });
    site.wait(100);
    const shares = site.shares(2, names(count));
    assert.ok(Math.max(...shares) - Math.min(...shares) <= 1, `${shares.join(" ")}`);
  }
});

test("of many members a few import, and all of them are told in few messages", () => {
  const site = new Site();
  for (const name of names(40)) site.join(name, { rack: "r" });
  site.wait(100);
  const shares = site.shares(2, names(40));
  assert.equal(shares.filter((share) => share > 0).length, DEFAULT_SCHEDULER_CONFIG.importerCountMax);
  assert.ok(site.toldCount <= DEFAULT_SCHEDULER_CONFIG.importerCountMax, `${site.toldCount} messages`);
});

test("when an importer goes, another has its pieces within a tenth of a second, whether it left, died or is suspect", () => {
  const endings: readonly ((site: Site) => void)[] = [
    (site) => site.step({ type: "taskLeft", peerId: "p1" as PeerId, taskId: TASK }),
    (site) => site.step({ type: "peerDisconnected", peerId: "p1" as PeerId }),
    (site) => {
      for (const name of ["p2", "p3"]) site.step({ type: "neighboursLost", peerId: name as PeerId, taskId: TASK, lost: ["p1" as PeerId] });
    },
  ];
  for (const end of endings) {
    const site = new Site();
    for (const name of names(20)) site.join(name, { rack: "r" });
    site.wait(100);
    end(site);
    site.wait(100);
    const shares = site.shares(2, names(20).filter((name) => name !== "p1"));
    assert.equal(shares.filter((share) => share > 0).length, 16, "the next in line has become one");
  }
});

test("levels are apart: a zone's importers bring into the zone, a rack's into the rack; who has no label may take all", () => {
  const site = new Site();
  for (const [i, name] of names(8).entries()) site.join(name, { zone: "z", rack: i < 4 ? "a" : "b" });
  site.join("loner", {});
  site.wait(100);
  assert.deepEqual(site.told.get("loner"), []);
  site.shares(3, names(8));
  assert.deepEqual(site.shares(2, names(4)), [8, 8, 8, 8]);
  assert.deepEqual(site.shares(2, names(8).slice(4)), [8, 8, 8, 8]);
});
