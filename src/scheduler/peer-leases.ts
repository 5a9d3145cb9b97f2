/**
 * Which peers read the origin in the seeds' stead, and which pieces each: a configured few, spans that never overlap (S8).
 *
 * A span that its holder fails, leaves, or does not get on with goes to another; who failed is not asked again for this task.
 */
import type { PieceSpan, SchedulerConfig, SchedulerEffect } from "./contract.ts";
import type { Member, SpanLease, Task } from "./state.ts";

export class PeerLeases {
  readonly #config: SchedulerConfig;
  // The delay is a constant and time does not decrease, so insertion order is the order of the deadlines.
  readonly #until = new Map<SpanLease, number>();
  #lastLeaseId = 0;

  constructor(config: SchedulerConfig) {
    this.#config = config;
  }

  get nextDeadlineMs(): number | undefined {
    return this.#until.values().next().value;
  }

  /** The seeds cannot read these spans: peers may, in place of whatever was wanted before. None: no peers are needed. */
  want(task: Task, spans: readonly PieceSpan[], nowMs: number, effects: SchedulerEffect[]): void {
    this.end(task, effects);
    task.unreadSpans = portions(spans, this.#config.spanPieceCount);
    this.fill(task, nowMs, effects);
  }

  /** All before `nextPiece` has come; the same as before is a sign of life of a holder that is kept waiting. */
  progressed(task: Task, leaseId: number, nextPiece: number, nowMs: number, effects: SchedulerEffect[]): void {
    const lease = task.spanLeases.get(leaseId);
    if (lease === undefined || nextPiece < lease.nextPiece) return;
    lease.nextPiece = nextPiece;
    this.#until.delete(lease);
    if (lease.nextPiece < lease.endPiece) return void this.#until.set(lease, nowMs + this.#config.spanMs);
    task.spanLeases.delete(leaseId);
    this.fill(task, nowMs, effects);
  }

  /** The holder cannot read it. */
  failed(task: Task, leaseId: number, nowMs: number, effects: SchedulerEffect[]): void {
    const lease = task.spanLeases.get(leaseId);
    if (lease === undefined) return;
    task.failedReaders.add(lease.holder.peer.id);
    this.#takeBack(lease, effects);
    this.fill(task, nowMs, effects);
  }

  /** The member is gone, or its connection: what it had not read yet is another's. Fill the task when its tables are right. */
  release(member: Member, effects: SchedulerEffect[]): void {
    for (const lease of member.task.spanLeases.values()) {
      if (lease.holder === member) return this.#takeBack(lease, effects);
    }
  }

  /** @returns the tasks that have spans to give again */
  expire(nowMs: number, effects: SchedulerEffect[]): ReadonlySet<Task> {
    const tasks = new Set<Task>();
    for (const [lease, dueMs] of this.#until) {
      if (dueMs > nowMs) break;
      const { task, peer } = lease.holder;
      task.failedReaders.add(peer.id);
      this.#takeBack(lease, effects);
      tasks.add(task);
    }
    return tasks;
  }

  /** Gives spans to readers as long as there are both. Costs a look at each member, and only while peers are needed. */
  fill(task: Task, nowMs: number, effects: SchedulerEffect[]): void {
    this.#give(task, nowMs, effects);
    for (let ahead = leaseAheadOfUnread(task); ahead !== undefined; ahead = leaseAheadOfUnread(task)) {
      this.#takeBack(ahead, effects);
      this.#give(task, nowMs, effects);
    }
    if (task.unreadSpans.length === 0 || task.spanLeases.size > 0) return;
    // Nobody is left who could: whoever wants the file has to find another way.
    task.unreadSpans = [];
    effects.push({ type: "nobodyReads", taskId: task.id });
  }

  #give(task: Task, nowMs: number, effects: SchedulerEffect[]): void {
    for (const member of task.members.values()) {
      if (task.unreadSpans.length === 0 || task.spanLeases.size >= this.#config.spanHolderCountMax) break;
      if (!mayRead(member)) continue;
      const { firstPiece, endPiece } = task.unreadSpans.shift() as PieceSpan;
      const lease: SpanLease = { id: ++this.#lastLeaseId, holder: member, nextPiece: firstPiece, endPiece };
      task.spanLeases.set(lease.id, lease);
      this.#until.set(lease, nowMs + this.#config.spanMs);
      effects.push({ type: "grantSpan", taskId: task.id, holder: member.peer.id, leaseId: lease.id, firstPiece, endPiece });
    }
  }

  /** No peer reads this task any more. */
  end(task: Task, effects: SchedulerEffect[]): void {
    for (const lease of task.spanLeases.values()) {
      this.#until.delete(lease);
      effects.push({ type: "revokeSpan", taskId: task.id, holder: lease.holder.peer.id, leaseId: lease.id });
    }
    task.spanLeases.clear();
    task.unreadSpans = [];
  }

  #takeBack(lease: SpanLease, effects: SchedulerEffect[]): void {
    const { task, peer } = lease.holder;
    effects.push({ type: "revokeSpan", taskId: task.id, holder: peer.id, leaseId: lease.id });
    this.#until.delete(lease);
    task.spanLeases.delete(lease.id);
    task.unreadSpans.push({ firstPiece: lease.nextPiece, endPiece: lease.endPiece });
    // Lowest first: readers of the file wait for its beginning.
    task.unreadSpans.sort((left, right) => left.firstPiece - right.firstPiece);
  }
}

/**
 * The file is hashed from its beginning, and who is far ahead of the hash waits for it: with a span between them that nobody
 * reads, because its reader failed, for ever.
 *
 * @returns the lease furthest on of a reader who may as well read that span; undefined: no unread span lies before one
 */
function leaseAheadOfUnread({ unreadSpans, spanLeases }: Task): SpanLease | undefined {
  const [unread] = unreadSpans;
  if (unread === undefined) return undefined;
  let furthest: SpanLease | undefined;
  for (const lease of spanLeases.values()) {
    if (isAble(lease.holder) && lease.nextPiece > (furthest?.nextPiece ?? unread.firstPiece)) furthest = lease;
  }
  return furthest;
}

/** One span at a time each. */
function mayRead(member: Member): boolean {
  if (!isAble(member)) return false;
  for (const { holder } of member.task.spanLeases.values()) if (holder === member) return false;
  return true;
}

function isAble({ peer, task, complete, suspect }: Member): boolean {
  return !peer.seed && peer.connected && !complete && !suspect && !task.failedReaders.has(peer.id);
}

function portions(spans: readonly PieceSpan[], pieceCount: number): PieceSpan[] {
  const parts: PieceSpan[] = [];
  for (const { firstPiece, endPiece } of spans) {
    for (let piece = firstPiece; piece < endPiece; piece += pieceCount) {
      parts.push({ firstPiece: piece, endPiece: Math.min(endPiece, piece + pieceCount) });
    }
  }
  return parts;
}
