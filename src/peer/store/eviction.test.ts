import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Prng } from "../../base/prng.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { EvictionQueue } from "./eviction.ts";

function id(name: string | number): TaskId {
  return String(name) as TaskId;
}

/** Everything that goes, in its order. */
function drain(queue: EvictionQueue): string[] {
  const victims: string[] = [];
  for (let victim = queue.takeVictim(); victim !== undefined; victim = queue.takeVictim()) victims.push(victim);
  return victims;
}

function queueOf(...names: readonly string[]): EvictionQueue {
  const queue = new EvictionQueue();
  for (const name of names) queue.add(id(name), 10);
  return queue;
}

describe("eviction queue", () => {
  test("those who were never asked for again go in the order they came", () => {
    assert.deepEqual(drain(queueOf("a", "b", "c")), ["a", "b", "c"]);
  });

  test("one that was asked for again outlasts the newcomers", () => {
    const queue = queueOf("a", "b", "c");
    queue.used(id("a"));
    assert.deepEqual(drain(queue), ["b", "c", "a"]);
  });

  test("held ones never go, and count again once they are let go", () => {
    const queue = queueOf("a", "b");
    queue.setHeld(id("a"), true);
    assert.equal(queue.evictableBytes, 10);
    assert.deepEqual(drain(queue), ["b"]);
    queue.setHeld(id("a"), false);
    assert.equal(queue.evictableBytes, 10);
    assert.deepEqual(drain(queue), ["a"]);
    assert.equal(queue.evictableBytes, 0);
  });

  test("what grows is weighed as it is", () => {
    const queue = queueOf("a");
    queue.setBytes(id("a"), 500);
    assert.equal(queue.evictableBytes, 500);
    queue.setHeld(id("a"), true);
    queue.setBytes(id("a"), 700);
    assert.equal(queue.evictableBytes, 0);
    queue.setHeld(id("a"), false);
    assert.equal(queue.evictableBytes, 700);
  });

  test("one that was sent away and comes back soon is no newcomer", () => {
    const queue = queueOf("a", "b", "c");
    assert.equal(queue.takeVictim(), "a");
    queue.add(id("a"), 10);
    assert.equal(queue.place(id("a")).queue, "main");
    assert.deepEqual(drain(queue), ["b", "c", "a"]);
  });

  test("one that was sent away long ago is a newcomer: as much is remembered as is here", () => {
    const queue = queueOf("a", "b", "c", "d");
    // One is left in the end: as much as the last of them.
    for (const name of ["a", "b", "c"]) assert.equal(queue.takeVictim(), name);
    queue.add(id("a"), 10);
    queue.add(id("c"), 10);
    assert.deepEqual([queue.place(id("a")).queue, queue.place(id("c")).queue], ["small", "main"]);
  });

  test("turns go on after a restart: what was noted before it stays before what is noted after", () => {
    const queue = new EvictionQueue();
    queue.add(id("a"), 10, { queue: "small", useCount: 0, turn: 1_000 });
    queue.add(id("b"), 10);
    assert.ok(queue.place(id("a")).turn >= 1_000);
    assert.ok(queue.place(id("b")).turn > queue.place(id("a")).turn);
  });

  test("a place survives a restart", () => {
    const before = queueOf("a", "b", "c", "d");
    before.used(id("a"));
    before.used(id("b"));
    assert.equal(before.takeVictim(), "c");
    const after = new EvictionQueue();
    const places = ["a", "b", "d"].map((name) => ({ name, place: before.place(id(name)) }));
    for (const { name, place } of places.sort((one, other) => one.place.turn - other.place.turn)) after.add(id(name), 10, place);
    assert.deepEqual(drain(after), drain(before));
  });

  test("hundreds of random lives: the sums stay right, and every victim was free", () => {
    for (let seed = 0; seed < 200; seed++) {
      const prng = new Prng(seed);
      const queue = new EvictionQueue();
      const model = new Map<TaskId, { bytes: number; isHeld: boolean }>();
      for (let step = 0; step < 300; step++) {
        const taskId = id(prng.below(30));
        const entry = model.get(taskId);
        const bytes = prng.below(1000);
        if (entry === undefined) {
          queue.add(taskId, bytes);
          model.set(taskId, { bytes, isHeld: false });
        } else {
          const verb = prng.below(6);
          if (verb === 0) {
            queue.remove(taskId);
            model.delete(taskId);
          } else if (verb === 1) {
            queue.setBytes(taskId, (entry.bytes = bytes));
          } else if (verb === 2) {
            queue.setHeld(taskId, (entry.isHeld = !entry.isHeld));
          } else if (verb === 3) {
            const victim = queue.takeVictim();
            if (victim === undefined) assert.ok([...model.values()].every(({ isHeld }) => isHeld));
            else {
              assert.equal(model.get(victim)?.isHeld, false);
              model.delete(victim);
            }
          } else {
            queue.used(taskId);
          }
        }
        const free = [...model.values()].reduce((sum, each) => sum + (each.isHeld ? 0 : each.bytes), 0);
        assert.equal(queue.evictableBytes, free);
      }
    }
  });
});

/** A file that is asked for. */
interface Request {
  readonly name: string;
  readonly bytes: number;
}

/** Bytes of all requests that a cache of `capacityBytes` answers from what it holds, as a share. */
function hitShareOfQueue(trace: readonly Request[], capacityBytes: number): number {
  const queue = new EvictionQueue();
  const held = new Map<TaskId, number>();
  let usedBytes = 0;
  return hitShare(trace, ({ name, bytes }) => {
    const taskId = id(name);
    if (held.has(taskId)) {
      queue.used(taskId);
      return true;
    }
    while (usedBytes + bytes > capacityBytes) {
      const victim = queue.takeVictim() as TaskId;
      usedBytes -= held.get(victim) as number;
      held.delete(victim);
    }
    queue.add(taskId, bytes);
    held.set(taskId, bytes);
    usedBytes += bytes;
    return false;
  });
}

/** The same of a cache that gives up the least recently used. */
function hitShareOfLru(trace: readonly Request[], capacityBytes: number): number {
  const held = new Map<string, number>();
  let usedBytes = 0;
  return hitShare(trace, ({ name, bytes }) => {
    const isHit = held.delete(name);
    if (!isHit) {
      for (const [oldest, oldBytes] of held) {
        if (usedBytes + bytes <= capacityBytes) break;
        held.delete(oldest);
        usedBytes -= oldBytes;
      }
      usedBytes += bytes;
    }
    held.set(name, bytes);
    return isHit;
  });
}

function hitShare(trace: readonly Request[], isHit: (request: Request) => boolean): number {
  let hitBytes = 0;
  let allBytes = 0;
  for (const request of trace) {
    const wasHit = isHit(request);
    // What is asked for once can never be a hit: only what it does to the others counts.
    if (request.name.startsWith("scan")) continue;
    allBytes += request.bytes;
    if (wasHit) hitBytes += request.bytes;
  }
  return hitBytes / allBytes;
}

const MIB = 1024 * 1024;
const CAPACITY_BYTES = 20_000 * MIB;

/** Layers of images as a site pulls them: sizes from 1 MiB to 1 GiB, popularity by Zipf's law. */
function pulls(prng: Prng, count: number, prefix: string, files = 400): Request[] {
  const weights = Array.from({ length: files }, (_, rank) => 1 / (rank + 1));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return Array.from({ length: count }, () => {
    let at = (prng.nextUint32() / 2 ** 32) * total;
    let rank = 0;
    while (rank < files - 1 && (at -= weights[rank] as number) > 0) rank++;
    return sized(`${prefix}${rank}`);
  });
}

function sized(name: string): Request {
  let hash = 7;
  for (let at = 0; at < name.length; at++) hash = (Math.imul(hash, 31) + name.charCodeAt(at)) | 0;
  return { name, bytes: MIB * 2 ** (new Prng(hash).below(1000) / 100) };
}

/** Files in a row, each once: a backup, a scanner of all tags. */
function row(count: number, prefix: string): Request[] {
  return Array.from({ length: count }, (_, at) => sized(`${prefix}${at}`));
}

describe("eviction on traces, bytes from the cache", () => {
  const compare = (trace: readonly Request[]) => ({ queue: hitShareOfQueue(trace, CAPACITY_BYTES), lru: hitShareOfLru(trace, CAPACITY_BYTES) });

  test("a scan of many cold files between pulls leaves what is hot, where LRU gives it up", (t) => {
    const prng = new Prng(1);
    const trace = Array.from({ length: 20 }, (_, round) => [...pulls(prng, 300, "layer"), ...row(300, `scan${round}-`)]).flat();
    const { queue, lru } = compare(trace);
    t.diagnostic(`S3-FIFO ${(queue * 100).toFixed(1)} %, LRU ${(lru * 100).toFixed(1)} %`);
    assert.ok(queue > lru * 1.1, `${queue} against ${lru}`);
  });

  test("in pulls without a scan it is no worse than LRU", (t) => {
    const { queue, lru } = compare(pulls(new Prng(2), 6000, "layer"));
    t.diagnostic(`S3-FIFO ${(queue * 100).toFixed(1)} %, LRU ${(lru * 100).toFixed(1)} %`);
    assert.ok(queue >= lru, `${queue} against ${lru}`);
  });

  test("what was hot last week makes way for what is hot now", (t) => {
    const prng = new Prng(3);
    const trace = [...pulls(prng, 4000, "old"), ...pulls(prng, 4000, "new")];
    const { queue, lru } = compare(trace);
    t.diagnostic(`S3-FIFO ${(queue * 100).toFixed(1)} %, LRU ${(lru * 100).toFixed(1)} %`);
    assert.ok(queue >= lru, `${queue} against ${lru}`);
  });

  test("a round trip over a little more than fits still finds something, where LRU finds nothing", (t) => {
    const files = row(190, "loop");
    assert.ok(files.reduce((sum, { bytes }) => sum + bytes, 0) > CAPACITY_BYTES * 1.1);
    const { queue, lru } = compare(Array.from({ length: 30 }, () => files).flat());
    t.diagnostic(`S3-FIFO ${(queue * 100).toFixed(1)} %, LRU ${(lru * 100).toFixed(1)} %`);
    assert.ok(lru < 0.01 && queue > 0.1, `${queue} against ${lru}`);
  });
});
