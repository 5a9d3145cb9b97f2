/**
 * Which tasks go when the cache must shrink: S3-FIFO over files, weighed by bytes. Pure.
 *
 * Newcomers wait in a small queue. Who is asked for again while there moves to the main queue; who is not goes first, so
 * one pass over many cold files drives out only itself, where "least recently used" gives up everything that is hot. The
 * main queue gives each file as many more rounds as it was used since the last, three at most, so what was hot once
 * ages. A ghost remembers whom the small queue sent away: who comes back meanwhile goes straight to the main queue.
 * Source: Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023.
 */
import { assert, AssertionError } from "../../base/assert.ts";
import type { TaskId } from "../../protocol/ids.ts";

/** Why tasks were evicted: the cache's own limit, or the file system's free space. */
export type EvictionReason = "quota" | "free-space";

export type QueueName = "small" | "main";

/** What outlives a restart; see index-file.ts. */
export interface QueuePlace {
  readonly queue: QueueName;
  /** Uses since it came, or since its last round; at most {@link USE_COUNT_MAX}. */
  readonly useCount: number;
  /** Rises with each entry into a queue: the order within it. */
  readonly turn: number;
}

interface Node {
  readonly taskId: TaskId;
  bytes: number;
  queue: QueueName;
  useCount: number;
  turn: number;
  /** Open, or pinned by the operator: it stays. */
  isHeld: boolean;
}

/** The small queue's share of all bytes. Source: the paper, §4.1 (10 %). */
const SMALL_SHARE = 0.1;
const USE_COUNT_MAX = 3;
/** Ghosts remembered beyond the bytes rule: bounds memory when files are tiny. */
const GHOST_COUNT_MAX = 100_000;

export class EvictionQueue {
  readonly #nodes = new Map<TaskId, Node>();
  /** In the order of their turns. */
  readonly #queues: Readonly<Record<QueueName, Map<TaskId, Node>>> = { small: new Map(), main: new Map() };
  readonly #queueBytes: Record<QueueName, number> = { small: 0, main: 0 };
  readonly #ghosts = new Map<TaskId, number>();
  #ghostBytes = 0;
  /** Nodes that are not held. */
  readonly #freeCount: Record<QueueName, number> = { small: 0, main: 0 };
  #evictableBytes = 0;
  #nextTurn = 1;

  /** Bytes of all tasks that are not held: what could be freed. */
  get evictableBytes(): number {
    return this.#evictableBytes;
  }

  /**
   * A task comes, held or not; `place` for one that was here before a restart (those in the order of their turns).
   * Its coming is no use yet.
   */
  add(taskId: TaskId, bytes: number, place?: QueuePlace): void {
    assert(!this.#nodes.has(taskId), `task ${taskId} is in the queue already`);
    const ghostBytes = this.#ghosts.get(taskId);
    if (ghostBytes !== undefined) this.#forgetGhost(taskId, ghostBytes);
    const queue = place?.queue ?? (ghostBytes === undefined ? "small" : "main");
    const node: Node = { taskId, bytes, queue, useCount: place?.useCount ?? 0, turn: 0, isHeld: false };
    this.#nodes.set(taskId, node);
    this.#evictableBytes += bytes;
    if (place !== undefined) this.#nextTurn = Math.max(this.#nextTurn, place.turn);
    this.#enter(node, queue);
  }

  /** Somebody asked for a task that was here. */
  used(taskId: TaskId): void {
    const node = this.#node(taskId);
    node.useCount = Math.min(USE_COUNT_MAX, node.useCount + 1);
  }

  /** Held tasks are passed over; their bytes count as what they were when they were last set. */
  setHeld(taskId: TaskId, isHeld: boolean): void {
    const node = this.#node(taskId);
    if (node.isHeld === isHeld) return;
    node.isHeld = isHeld;
    this.#freeCount[node.queue] += isHeld ? -1 : 1;
    this.#evictableBytes += isHeld ? -node.bytes : node.bytes;
  }

  setBytes(taskId: TaskId, bytes: number): void {
    const node = this.#node(taskId);
    this.#queueBytes[node.queue] += bytes - node.bytes;
    if (!node.isHeld) this.#evictableBytes += bytes - node.bytes;
    node.bytes = bytes;
  }

  /** A task is gone for another reason than eviction. */
  remove(taskId: TaskId): void {
    const node = this.#nodes.get(taskId);
    if (node === undefined) return;
    this.#nodes.delete(taskId);
    this.#leave(node);
    if (!node.isHeld) this.#evictableBytes -= node.bytes;
  }

  place(taskId: TaskId): QueuePlace {
    const { queue, useCount, turn } = this.#node(taskId);
    return { queue, useCount, turn };
  }

  /** Takes out the next task to go; undefined when all are held. */
  takeVictim(): TaskId | undefined {
    // Each step ends it, lowers a count, or passes over one that is held, of which the queue chosen has not only such.
    while (this.#freeCount.small + this.#freeCount.main > 0) {
      const smallBytesMax = (this.#queueBytes.small + this.#queueBytes.main) * SMALL_SHARE;
      const isSmall = this.#freeCount.small > 0 && (this.#freeCount.main === 0 || this.#queueBytes.small >= smallBytesMax);
      const queue = isSmall ? "small" : "main";
      const oldest = first(this.#queues[queue]);
      if (oldest.isHeld) {
        this.#move(oldest, queue);
      } else if (oldest.useCount > 0) {
        oldest.useCount = isSmall ? 0 : oldest.useCount - 1;
        this.#move(oldest, "main");
      } else {
        this.remove(oldest.taskId);
        if (isSmall) this.#remember(oldest);
        return oldest.taskId;
      }
    }
    return undefined;
  }

  #remember({ taskId, bytes }: Node): void {
    this.#ghosts.set(taskId, bytes);
    this.#ghostBytes += bytes;
    const limitBytes = this.#queueBytes.main + this.#queueBytes.small;
    for (const [oldest, oldBytes] of this.#ghosts) {
      if (this.#ghostBytes <= limitBytes && this.#ghosts.size <= GHOST_COUNT_MAX) return;
      this.#forgetGhost(oldest, oldBytes);
    }
  }

  #forgetGhost(taskId: TaskId, bytes: number): void {
    this.#ghosts.delete(taskId);
    this.#ghostBytes -= bytes;
  }

  #move(node: Node, queue: QueueName): void {
    this.#leave(node);
    this.#enter(node, queue);
  }

  #enter(node: Node, queue: QueueName): void {
    node.queue = queue;
    node.turn = this.#nextTurn++;
    this.#queues[queue].set(node.taskId, node);
    this.#queueBytes[queue] += node.bytes;
    if (!node.isHeld) this.#freeCount[queue]++;
  }

  #leave({ taskId, queue, bytes, isHeld }: Node): void {
    this.#queues[queue].delete(taskId);
    this.#queueBytes[queue] -= bytes;
    if (!isHeld) this.#freeCount[queue]--;
  }

  #node(taskId: TaskId): Node {
    const node = this.#nodes.get(taskId);
    assert(node !== undefined, `task ${taskId} is not in the queue`);
    return node;
  }
}

function first(queue: ReadonlyMap<TaskId, Node>): Node {
  for (const node of queue.values()) return node;
  throw new AssertionError("a queue with free tasks is empty");
}
