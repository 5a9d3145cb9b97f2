/**
 * Power cuts: a store lives on a disk that keeps a log; the log is cut at every operation, what was not synced is lost,
 * kept, torn or reordered, and a new store opens what is left.
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { before, describe, test, type TestContext } from "node:test";
import { Prng } from "../../base/prng.ts";
import { AppError } from "../../base/errors.ts";
import { DiskStore } from "./disk-store.ts";
import { assertSameBytes, pieceBytes, recordOf, storePiece, taskId, temporaryDirectory } from "./fixture.test.ts";
import { MemoryDisk, type Survival } from "./memory-disk.test.ts";
import type { StoredTask } from "./piece-store.ts";

const PIECE = 1024;
const RANDOM_CUTS = 3;

/** What must be true of the disk after operations [fromOperation, untilOperation). */
interface Fact {
  readonly what: "held" | "not held" | "pinned" | "not pinned" | "gone";
  readonly name: string;
  readonly piece: number;
  readonly fromOperation: number;
  untilOperation: number;
}

/** The life that is cut, and what it was promised. */
class Life {
  readonly directory: string;
  readonly disk: MemoryDisk;
  readonly facts: Fact[] = [];

  constructor(directory: string) {
    this.directory = directory;
    this.disk = new MemoryDisk(directory);
  }

  /** From now on `what` holds, whatever happens, until {@link nowMayChange}. */
  now(what: Fact["what"], name: string, ...pieces: readonly number[]): void {
    for (const piece of pieces.length === 0 ? [0] : pieces) {
      this.facts.push({ what, name, piece, fromOperation: this.disk.log.length, untilOperation: Infinity });
    }
  }

  nowMayChange(...names: readonly string[]): void {
    for (const fact of this.facts) {
      if (names.includes(fact.name)) fact.untilOperation = Math.min(fact.untilOperation, this.disk.log.length);
    }
  }

  async live(): Promise<void> {
    await this.#firstRun();
    await this.#secondRun();
    await this.#thirdRun();
  }

  async #firstRun(): Promise<void> {
    const store = await openOn(this.disk, this.directory);
    const a = await store.open(recordOf("a", 5 * PIECE, PIECE));
    const b = await store.open(recordOf("b", undefined, PIECE));
    await storeAt(a, "a", 0, 1, 2, 3, 4);
    await storeAt(b, "b", 0, 1);
    a.release();
    b.release();
    await store.close();
    this.now("held", "a", 0, 1, 2, 3, 4);
    this.now("held", "b", 0, 1);
  }

  async #secondRun(): Promise<void> {
    const { disk } = this;
    const store = await openOn(disk, this.directory);
    const b = await store.open(recordOf("b", undefined, PIECE));
    await storePiece(b, "b", 2, 77);
    await b.setLength(2 * PIECE + 77, new Uint8Array(64).fill(4));
    const c = await store.open(recordOf("c", 6 * PIECE, PIECE));
    await storeAt(c, "c", 0, 1, 2);
    // The background flush, to its end.
    await sleep(1_200);
    for (let operationCount = -1; operationCount !== disk.log.length; ) {
      operationCount = disk.log.length;
      await sleep(100);
    }
    this.now("held", "b", 2);
    this.now("held", "c", 0, 1, 2);

    const a = (await store.find(taskId("a"))) as StoredTask;
    this.nowMayChange("a");
    await a.discard([1, 3]);
    this.now("held", "a", 0, 2, 4);
    this.now("not held", "a", 1, 3);
    this.nowMayChange("a");
    await storeAt(a, "a", 1);
    await store.pin(taskId("a"), true);
    this.now("pinned", "a");
    this.nowMayChange("c");
    await c.discard("all");
    this.now("not held", "c", 0, 1, 2);
    this.nowMayChange("c");
    await storeAt(c, "c", 5, 0);
    b.release();
    this.nowMayChange("b");
    assert.equal(await store.remove(taskId("b")), true);
    this.now("gone", "b");
    a.release();
    c.release();
    await store.close();
    this.nowMayChange("a", "c");
    this.now("held", "a", 0, 1, 2, 4);
    this.now("held", "c", 0, 5);
    this.now("pinned", "a");
  }

  async #thirdRun(): Promise<void> {
    // Room for four pieces more than what is pinned: c has to go for d.
    const store = await openOn(this.disk, this.directory, 8 * PIECE);
    const d = await store.open(recordOf("d", 4 * PIECE, PIECE));
    this.nowMayChange("c");
    await storeAt(d, "d", 0, 1, 2, 3);
    this.nowMayChange("a");
    await store.pin(taskId("a"), false);
    this.now("held", "a", 0, 1, 2, 4);
    this.now("not pinned", "a");
    this.nowMayChange("b");
    const b = await store.open(recordOf("b", 2 * PIECE, PIECE));
    this.nowMayChange("a", "d");
    d.release();
    await storeAt(b, "b", 1);
    b.release();
    await store.close();
    this.now("held", "b", 1);
  }
}

async function storeAt(task: StoredTask, name: string, ...pieces: readonly number[]): Promise<void> {
  await Promise.all(pieces.map(async (piece) => assert.equal(await storePiece(task, name, piece, PIECE), "stored")));
}

function openOn(disk: MemoryDisk, directory: string, quotaBytes?: number): Promise<DiskStore> {
  const config = { directory, quotaBytes, reservedFreeBytes: 0, workerCount: 1, scrubBytesPerSecond: 0 };
  return DiskStore.open(config, { disk, runner: disk.runner() });
}

/** Opens what a cut left: all that is given out is right, all that was promised is there, and it can be used. */
async function checkStore(disk: MemoryDisk, directory: string, facts: readonly Fact[]): Promise<void> {
  await withStore(disk, directory, (store) => checkFacts(store, facts));
  await withStore(disk, directory, async (store) => {
    for (const name of NEW) {
      const task = await store.open(recordOf(name, 6 * PIECE, PIECE));
      await storeAt(task, name, 0, 1, 2, 3, 4, 5);
      task.release();
    }
  });
  await withStore(disk, directory, async (store) => {
    for (const name of NEW) {
      const task = (await store.find(taskId(name))) as StoredTask;
      assert.ok(task.complete);
      for (let piece = 0; piece < 6; piece++) assert.ok(await isReadRight(task, name, piece));
      task.release();
    }
  });
}

/** Stored after the cut: one that may be there in part, and one that is not. */
const NEW = ["c", "e"];

async function withStore(disk: MemoryDisk, directory: string, work: (store: DiskStore) => Promise<void>): Promise<void> {
  const store = await openOn(disk, directory);
  try {
    await work(store);
  } finally {
    await store.close();
  }
}

async function checkFacts(store: DiskStore, facts: readonly Fact[]): Promise<void> {
  const held = new Map<string, ReadonlySet<number>>();
  for (const name of ["a", "b", "c", "d"]) {
    const task = await store.find(taskId(name));
    if (task === undefined) continue;
    const right = new Set<number>();
    for (const piece of [...task.have]) if (await isReadRight(task, name, piece)) right.add(piece);
    held.set(name, right);
    task.release();
  }
  const pinned = new Set(store.list().flatMap((task) => (task.isPinned ? [task.taskId] : [])));
  for (const { what, name, piece } of facts) {
    const isHeld = held.get(name)?.has(piece) === true;
    if (what === "held") assert.ok(isHeld, `piece ${piece} of ${name} was on the device`);
    if (what === "not held") assert.ok(!isHeld, `piece ${piece} of ${name} was thrown away`);
    if (what === "gone") assert.equal(held.get(name), undefined, `${name} was removed`);
    if (what === "pinned") assert.ok(pinned.has(taskId(name)), `${name} was pinned`);
    if (what === "not pinned") assert.ok(!pinned.has(taskId(name)), `${name} was unpinned`);
  }
}

/** @returns false when the store says that it has lost it after all. Wrong bytes are a failure of the test. */
async function isReadRight(task: StoredTask, name: string, piece: number): Promise<boolean> {
  const lengthBytes = name === "b" && piece === 2 ? 77 : PIECE;
  const into = new Uint8Array(lengthBytes);
  try {
    await task.read(piece * PIECE, into);
  } catch (thrown) {
    assert.ok(thrown instanceof AppError && ["CACHE_CORRUPT", "PIECE_UNKNOWN"].includes(thrown.code), String(thrown));
    assert.ok(!task.have.has(piece), "and does not say that it holds it");
    return false;
  }
  assertSameBytes(into, pieceBytes(name, piece, lengthBytes), `piece ${piece} of ${name}`);
  return true;
}

function factsAt(facts: readonly Fact[], operation: number): readonly Fact[] {
  return facts.filter(({ fromOperation, untilOperation }) => fromOperation <= operation && operation <= untilOperation);
}

describe("disk store after a power cut", () => {
  let life: Life;
  before(async () => {
    // The lock is a real file's; all else is in memory.
    life = new Life(temporaryDirectory({ after: () => undefined } as unknown as TestContext));
    await life.live();
  });

  for (const [title, survivals] of [
    ["all of what was not synced lost", (): Survival[] => ["none"]],
    ["all of what was not synced kept", (): Survival[] => ["all"]],
    ["any part of what was not synced kept, lost or torn", (cut: number): Survival[] => Array.from({ length: RANDOM_CUTS }, (_, at) => new Prng(cut * 1000 + at))],
  ] as const) {
    test(`at every operation, ${title}: no wrong byte, nothing promised lost, still of use`, async (t) => {
      const { disk, directory, facts } = life;
      let count = 0;
      for (let cut = 0; cut <= disk.log.length; cut++) {
        for (const [at, survival] of survivals(cut).entries()) {
          count++;
          await checkStore(disk.afterPowerCut(cut, survival), directory, factsAt(facts, cut)).catch((error: unknown) => {
            throw new Error(`cut after operation ${cut} of ${disk.log.length}, survival ${at}`, { cause: error });
          });
        }
      }
      t.diagnostic(`${count} power cuts in ${disk.log.length} operations`);
      assert.ok(count > 150);
    });
  }

  test("in the midst of the recovery from another cut: the same", async (t) => {
    const { disk, directory, facts } = life;
    let count = 0;
    for (let cut = 5; cut <= disk.log.length; cut += 9) {
      const prng = new Prng(cut);
      const left = disk.afterPowerCut(cut, prng);
      await withStore(left, directory, async (store) => {
        for (const name of ["a", "b", "c", "d"]) (await store.find(taskId(name)))?.release();
      });
      for (let second = 0; second <= left.log.length; second += 3) {
        count++;
        await checkStore(left.afterPowerCut(second, prng), directory, factsAt(facts, cut)).catch((error: unknown) => {
          throw new Error(`cut after operation ${cut}, then after ${second} of the recovery`, { cause: error });
        });
      }
    }
    t.diagnostic(`${count} second power cuts`);
    assert.ok(count > 20);
  });
});
