/**
 * The supernode's brain: the mesh of every task, the origin lease, who is alive. See README.md.
 */
import { assert, assertNever, broken } from "../base/assert.ts";
import { Prng } from "../base/prng.ts";
import { BUCKET_COUNT } from "../protocol/topology.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { SchedulerConfig, SchedulerEffect, SchedulerInput, SchedulerSnapshot } from "./contract.ts";
import { Importers } from "./importers.ts";
import { grantLeaseIfNeeded, releaseLease } from "./origin-lease.ts";
import { AVOID_MS, Mesh } from "./mesh.ts";
import { PeerLeases } from "./peer-leases.ts";
import { NeighbourSelector } from "./select-neighbours.ts";
import { snapshotOf } from "./snapshot.ts";
import { Tables, type Member, type Peer, type Task } from "./state.ts";

type InputOf<Type extends SchedulerInput["type"]> = Extract<SchedulerInput, { readonly type: Type }>;

/** Members that must have lost a peer before nobody is given it: one may be the broken one itself. */
const SUSPECT_LOST_BY_COUNT = 2;
/** A join that is asked again waits for the origin as long as this. Source: JOIN_TIMEOUT_MS of the control client. */
const SILENT_MS = 120_000;
/** Changes of who imports what are gathered for this long: when many join at once, each is told once. */
const TELL_IMPORTS_MS = 50;
/** Deterministic: same config, seed and inputs give the same effects, byte for byte. It does no I/O. */
export class Scheduler {
  readonly #config: SchedulerConfig;
  readonly #tables: Tables;
  readonly #mesh: Mesh;
  readonly #peerLeases: PeerLeases;
  readonly #importers: Importers;
  #tellImportsAtMs: number | undefined;
  // Each delay is a constant and time does not decrease, so insertion order is the order of the deadlines.
  readonly #disconnectedUntil = new Map<Peer, number>();
  readonly #emptyUntil = new Map<Task, number>();
  readonly #suspectUntil = new Map<Member, number>();
  /** Whose peer came back and has not spoken of the task since: perhaps it left while nobody heard it. */
  readonly #silentUntil = new Map<Member, number>();
  #nowMs = 0;
  #effects: SchedulerEffect[] = [];

  /** @param seed any 32-bit integer: the only source of randomness */
  constructor(config: SchedulerConfig, seed: number) {
    assert(config.neighbourCount >= 1 && config.neighbourCount <= 64, `neighbourCount ${config.neighbourCount}`);
    assert(config.neighbourCountMax >= config.neighbourCount, "neighbourCountMax is at least neighbourCount");
    assert(config.seedNeighbourCountMax >= 1, "a seed has at least one neighbour");
    assert(config.accuserCountMax >= 1, "somebody must accuse before a peer is expelled");
    assert(config.spanHolderCountMax >= 0 && config.spanPieceCount >= 1 && config.spanMs >= 1, "spans have pieces and time");
    assert(config.importerCountMax >= 1 && config.importerCountMax <= BUCKET_COUNT, `importerCountMax ${config.importerCountMax}`);
    this.#config = config;
    this.#importers = new Importers(config.importerCountMax);
    this.#peerLeases = new PeerLeases(config);
    this.#tables = new Tables(config);
    const selector = new NeighbourSelector(this.#tables, this.#importers, new Prng(seed));
    this.#mesh = new Mesh(config, this.#tables, selector, (effect) => this.#effects.push(effect));
  }

  /**
   * Applies one input and returns what is to be done, in order; the array is the caller's.
   *
   * @param nowMs integer milliseconds of a monotonic clock; must not decrease. Inputs about peers or tasks that are
   *   not (any more) known are of no effect: the world is always a little ahead of us.
   */
  step(input: SchedulerInput, nowMs: number): readonly SchedulerEffect[] {
    if (nowMs < this.#nowMs) broken(`time went from ${this.#nowMs} to ${nowMs} ms`);
    this.#nowMs = nowMs;
    this.#effects = [];
    switch (input.type) {
      case "peerConnected":
        this.#peerConnected(input);
        break;
      case "peerDisconnected":
        this.#peerDisconnected(input.peerId);
        break;
      case "taskJoined":
        this.#taskJoined(input);
        break;
      case "taskLeft":
        this.#withMember(input.peerId, input.taskId, (member) => this.#removeMember(member));
        break;
      case "taskProgressed":
        this.#withMember(input.peerId, input.taskId, (member) => {
          this.#showedLife(member);
          this.#progressed(member, input.pieceCount, input.complete);
          this.#mesh.giveToLate(member, this.#nowMs);
          this.#watchEmptiness(member.task);
        });
        break;
      case "neighboursLost":
        this.#withMember(input.peerId, input.taskId, (member) => this.#neighboursLost(member, input.lost));
        break;
      case "peerAccused":
        this.#peerAccused(input);
        break;
      case "originRead":
        this.#originRead(input);
        break;
      case "readersWanted":
        this.#withTask(input.taskId, (task) => this.#peerLeases.want(task, input.spans, this.#nowMs, this.#effects));
        break;
      case "spanProgressed":
        this.#withTask(input.taskId, (task) => this.#peerLeases.progressed(task, input.leaseId, input.nextPiece, this.#nowMs, this.#effects));
        break;
      case "spanFailed":
        this.#withTask(input.taskId, (task) => this.#peerLeases.failed(task, input.leaseId, this.#nowMs, this.#effects));
        break;
      case "deadlineReached":
        this.#deadlineReached();
        break;
      default:
        assertNever(input);
    }
    if (this.#importers.hasNews) this.#tellImportsAtMs ??= nowMs + TELL_IMPORTS_MS;
    return this.#effects;
  }

  /** The earliest time at which `deadlineReached` is owed, or undefined. */
  nextDeadlineMs(): number | undefined {
    let earliest = this.#peerLeases.nextDeadlineMs;
    if (this.#tellImportsAtMs !== undefined) earliest = Math.min(this.#tellImportsAtMs, earliest ?? this.#tellImportsAtMs);
    for (const deadlines of [this.#disconnectedUntil, this.#emptyUntil, this.#suspectUntil, this.#silentUntil]) {
      for (const dueMs of deadlines.values()) {
        if (earliest === undefined || dueMs < earliest) earliest = dueMs;
        break;
      }
    }
    return earliest;
  }

  /** Somebody who is connected, and no seed, still lacks part of the task. */
  isNeeded(taskId: TaskId): boolean {
    const members = this.#tables.tasks.get(taskId)?.members.values() ?? [];
    for (const { peer, complete } of members) if (!complete && peer.connected && !peer.seed) return true;
    return false;
  }

  /** A copy of all tables, sorted by id; O(everything): for people, not for hot paths. */
  snapshot(): SchedulerSnapshot {
    return snapshotOf(this.#tables);
  }

  #peerConnected(input: InputOf<"peerConnected">): void {
    const peer = this.#tables.connect(input.peerId, input);
    this.#disconnectedUntil.delete(peer);
    if (peer.keeper) for (const task of this.#tables.tasks.values()) if (isWanted(task)) this.#invite(peer, task);
    for (const member of peer.memberships.values()) {
      this.#importers.refresh(member);
      // Who has everything may hold it on disk without a word; who lacks something joins again, as soon as the origin has answered.
      this.#silentUntil.delete(member);
      if (!member.complete && !peer.seed) this.#silentUntil.set(member, this.#nowMs + SILENT_MS);
    }
  }

  #peerDisconnected(peerId: PeerId): void {
    const peer = this.#tables.peers.get(peerId);
    if (peer === undefined || !peer.connected) return;
    this.#tables.disconnect(peer);
    this.#disconnectedUntil.set(peer, this.#nowMs + this.#config.disconnectedPeerMs);
    for (const member of peer.memberships.values()) {
      // Reading and bringing in go on at once elsewhere; the place in the mesh is kept for a while.
      this.#importers.refresh(member);
      if (releaseLease(member) || member.complete) grantLeaseIfNeeded(member.task, false, this.#effects);
      this.#peerLeases.release(member, this.#effects);
      this.#fillSpans(member.task);
      this.#watchEmptiness(member.task);
    }
  }

  #taskJoined({ peerId, taskId, requestId, pieceCount, totalCount }: InputOf<"taskJoined">): void {
    const peer = this.#tables.peers.get(peerId);
    if (peer === undefined || !peer.connected) return;
    const task = this.#tables.task(taskId);
    if (task.expelled.has(peerId)) {
      this.#effects.push({ type: "assign", peerId, taskId, requestId, neighbours: [], imports: [] });
      this.#effects.push({ type: "expel", peerId, taskId });
      return;
    }
    const member = task.members.get(peerId) ?? this.#tables.addMember(peer, task);
    this.#showedLife(member);
    if (pieceCount !== undefined) {
      member.pieceCount = pieceCount;
      member.complete = totalCount !== undefined && pieceCount >= totalCount;
    }
    this.#tables.refresh(member);
    this.#importers.refresh(member);

    const neighbours = this.#mesh.join(member, this.#nowMs);
    this.#effects.push({ type: "assign", peerId, taskId, requestId, neighbours, imports: this.#importers.tell(member) });
    this.#mesh.giveToShort(member, this.#nowMs);
    if (peer.plain && !member.complete) for (const keeper of this.#tables.keepers) this.#invite(keeper, task);
    this.#watchEmptiness(task);
    task.failedSeeds.clear();
    grantLeaseIfNeeded(task, false, this.#effects);
    this.#fillSpans(task);
  }

  /** A keeper that is no member is asked to become one; once, for it may have no room. */
  #invite(keeper: Peer, task: Task): void {
    if (task.members.has(keeper.id) || task.invited.has(keeper) || task.expelled.has(keeper.id)) return;
    task.invited.add(keeper);
    this.#effects.push({ type: "invite", peerId: keeper.id, taskId: task.id });
  }

  #progressed(member: Member, pieceCount: number, complete: boolean): void {
    const wasComplete = member.complete;
    member.pieceCount = pieceCount;
    member.complete = complete;
    this.#tables.refresh(member);
    // A holder that lost its pieces (disk, eviction) may have been the only one.
    if (wasComplete && !complete) grantLeaseIfNeeded(member.task, false, this.#effects);
  }

  #neighboursLost(member: Member, lost: readonly PeerId[]): void {
    this.#showedLife(member);
    const dropped: Member[] = [];
    for (const id of lost) {
      const neighbour = member.task.members.get(id);
      if (!this.#mesh.part(member, id, this.#nowMs) || neighbour === undefined) continue;
      dropped.push(neighbour);
      this.#suspect(neighbour, member);
    }
    if (member.complete) {
      if (dropped.length > 0) this.#mesh.rewire(member, [], dropped);
      return;
    }
    // Who has lost nobody and yet has too little to take perhaps never met one of them: a link broke before anything was said of
    // the task, or one that has everything closed it. It is told of them once more; those that are there stay as they are.
    const standing = lost.length > 0 ? [] : [...member.neighbours].filter(({ peer }) => peer.connected && peer.dialable);
    this.#mesh.replenish(member, dropped, this.#nowMs, standing);
    // Its neighbours are well and have nothing for it: what peers read in the seeds' stead may have gone with its readers.
    if (lost.length === 0 && member.task.spanLeases.size === 0) member.task.failedSeeds.clear();
    grantLeaseIfNeeded(member.task, true, this.#effects);
  }

  /** Somebody lost `neighbour`. Nobody is given it once several did and it has shown no life since; seeds excepted. */
  #suspect(neighbour: Member, by: Member): void {
    if (neighbour.peer.seed) return;
    neighbour.lostBy.add(by.peer.id);
    if (neighbour.suspect || neighbour.lostBy.size < SUSPECT_LOST_BY_COUNT) return;
    neighbour.suspect = true;
    this.#suspectUntil.set(neighbour, this.#nowMs + AVOID_MS);
    this.#tables.refresh(neighbour);
    this.#importers.refresh(neighbour);
  }

  #showedLife(member: Member): void {
    member.lostBy.clear();
    this.#silentUntil.delete(member);
    if (!member.suspect) return;
    member.suspect = false;
    this.#suspectUntil.delete(member);
    this.#tables.refresh(member);
    this.#importers.refresh(member);
  }

  #peerAccused({ accuser: accuserId, accused: accusedId, taskId }: InputOf<"peerAccused">): void {
    const task = this.#tables.tasks.get(taskId);
    const accuser = task?.members.get(accuserId);
    const accused = task?.members.get(accusedId);
    if (task === undefined || accuser === undefined || accused === undefined || accuser === accused) return;
    this.#showedLife(accuser);
    const hadEdge = this.#mesh.part(accuser, accusedId, this.#nowMs);
    const accuserCount = this.#countAccuser(task, accusedId, accuserId);
    if (!accused.peer.seed && accuserCount >= this.#config.accuserCountMax) {
      const former = this.#dismiss(accused);
      task.expelled.add(accusedId);
      this.#effects.push({ type: "expel", peerId: accusedId, taskId });
      for (const neighbour of former) this.#mesh.replenish(neighbour, [accused], this.#nowMs);
      this.#fillSpans(task);
      this.#watchEmptiness(task);
    }
    if (hadEdge) this.#mesh.replenish(accuser, [accused], this.#nowMs);
    grantLeaseIfNeeded(task, true, this.#effects);
  }

  #countAccuser(task: Task, accused: PeerId, accuser: PeerId): number {
    const accusers = task.accusersOf.get(accused) ?? new Set<PeerId>();
    task.accusersOf.set(accused, accusers);
    return accusers.add(accuser).size;
  }

  #originRead({ taskId, holder, outcome }: InputOf<"originRead">): void {
    const task = this.#tables.tasks.get(taskId);
    const member = task?.leaseHolder;
    if (task === undefined || member === undefined || member.peer.id !== holder) return;
    task.leaseHolder = undefined;
    if (outcome === "complete") {
      this.#progressed(member, member.pieceCount, true);
    } else {
      task.failedSeeds.add(holder);
      grantLeaseIfNeeded(task, false, this.#effects);
    }
    this.#watchEmptiness(task);
  }

  #deadlineReached(): void {
    if (this.#tellImportsAtMs !== undefined && this.#tellImportsAtMs <= this.#nowMs) this.#tellImports();
    for (const task of this.#peerLeases.expire(this.#nowMs, this.#effects)) this.#fillSpans(task);
    for (const [member, dueMs] of this.#suspectUntil) {
      if (dueMs > this.#nowMs) break;
      this.#showedLife(member);
    }
    for (const [member, dueMs] of this.#silentUntil) {
      if (dueMs > this.#nowMs) break;
      this.#removeMember(member);
    }
    for (const [peer, dueMs] of this.#disconnectedUntil) {
      if (dueMs > this.#nowMs) break;
      this.#disconnectedUntil.delete(peer);
      for (const member of [...peer.memberships.values()]) this.#removeMember(member);
      this.#tables.peers.delete(peer.id);
    }
    for (const [task, dueMs] of this.#emptyUntil) {
      if (dueMs > this.#nowMs) break;
      this.#emptyUntil.delete(task);
      this.#peerLeases.end(task, this.#effects);
      if (task.members.size > task.seeds.length) {
        for (const seed of [...task.seeds]) this.#dismiss(seed);
        this.#effects.push({ type: "restTask", taskId: task.id });
        continue;
      }
      for (const member of [...task.members.values()]) this.#dismiss(member);
      this.#tables.tasks.delete(task.id);
      this.#effects.push({ type: "forgetTask", taskId: task.id });
    }
  }

  /** The member goes; those who are short of neighbours without it get others. */
  #removeMember(member: Member): void {
    const { task } = member;
    const former = this.#dismiss(member);
    for (const neighbour of former) {
      if (neighbour.degree < this.#tables.shortDegree) this.#mesh.replenish(neighbour, [member], this.#nowMs);
    }
    grantLeaseIfNeeded(task, false, this.#effects);
    this.#fillSpans(task);
    this.#watchEmptiness(task);
  }

  #fillSpans(task: Task): void {
    this.#peerLeases.fill(task, this.#nowMs, this.#effects);
  }

  #dismiss(member: Member): Member[] {
    this.#peerLeases.release(member, this.#effects);
    this.#suspectUntil.delete(member);
    this.#silentUntil.delete(member);
    this.#importers.remove(member);
    return this.#tables.removeMember(member);
  }

  #tellImports(): void {
    this.#tellImportsAtMs = undefined;
    for (const { member, imports } of this.#importers.news()) {
      if (member.peer.connected) this.#effects.push({ type: "assignImports", peerId: member.peer.id, taskId: member.task.id, imports });
    }
  }

  /**
   * A task whose members are all seeds is forgotten after a while, and one where nobody lacks anything rests; but neither
   * while its origin is being read (preheat).
   */
  #watchEmptiness(task: Task): void {
    const isIdle = task.members.size === task.seeds.length || (task.seeds.length > 0 && !isWanted(task));
    if (!isIdle || task.leaseHolder !== undefined) this.#emptyUntil.delete(task);
    else if (!this.#emptyUntil.has(task)) this.#emptyUntil.set(task, this.#nowMs + this.#config.emptyTaskMs);
  }

  #withTask(taskId: TaskId, apply: (task: Task) => void): void {
    const task = this.#tables.tasks.get(taskId);
    if (task !== undefined) apply(task);
  }

  #withMember(peerId: PeerId, taskId: TaskId, apply: (member: Member) => void): void {
    const member = this.#tables.tasks.get(taskId)?.members.get(peerId);
    if (member !== undefined) apply(member);
  }
}

/** Somebody who is no seed lacks part of it, or is away. */
function isWanted({ complete, members, seeds }: Task): boolean {
  return complete.size - seeds.filter((seed) => complete.has(seed)).length < members.size - seeds.length;
}
