/**
 * The scheduler's tables: peers, tasks, memberships, edges. The only file that changes them.
 *
 * Besides the tables it keeps two indices, so that a join costs O(neighbours) in a task of any size: `pools` (who may
 * be handed out, by nearness) and `short` (who has too few neighbours). {@link Tables.refresh} re-derives a member's
 * place in both after every change.
 */
import { assert } from "../base/assert.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { TOPOLOGY_LEVELS, type Topology } from "../protocol/topology.ts";
import type { PieceSpan, SchedulerConfig } from "./contract.ts";
import type { ImportGroup } from "./importers.ts";

/** A process with a control connection, or one that had it until a moment ago. */
export class Peer {
  readonly id: PeerId;
  seed = false;
  /** No seed, and takes and gives whatever others take. */
  keeper = false;
  dialable = false;
  connected = false;
  topology: Topology = {};
  /** Keys of the pools it belongs to, from far to near; the first is everybody's. */
  poolKeys: readonly string[] = [EVERYBODY];
  readonly memberships = new Map<TaskId, Member>();

  constructor(id: PeerId) {
    this.id = id;
  }

  /** One of the many: handed out at random, counted when the mesh's degree is weighed. */
  get plain(): boolean {
    return !this.seed && !this.keeper;
  }
}

/** A peer's part in one task. */
export class Member {
  readonly peer: Peer;
  readonly task: Task;
  pieceCount = 0;
  complete = false;
  /** Edges: each is in the sets of both its ends (S1). */
  readonly neighbours = new Set<Member>();
  /** Whom not to give it again, until when; in order of time. */
  readonly avoided = new Map<PeerId, number>();
  /** Who lost it since its last sign of life. */
  readonly lostBy = new Set<PeerId>();
  /** Lost by several without a sign of life since: not handed out. */
  suspect = false;
  /** Its place in each of its pools; empty while it is in none. */
  readonly slots: number[] = [];
  /** Number of the last selection that chose it: nobody is chosen twice in one. */
  chosenBy = 0;
  /** The groups it is counted in, from far to near: those whose level it has a label for. */
  importGroups: readonly ImportGroup[] = [];
  /** As JSON: what it was last told that it may import. */
  toldImports = "[]";

  constructor(peer: Peer, task: Task) {
    this.peer = peer;
    this.task = task;
  }

  get degree(): number {
    return this.neighbours.size;
  }
}

/** Pieces of a task that a peer reads in the seeds' stead. */
export interface SpanLease {
  readonly id: number;
  readonly holder: Member;
  /** All before it has come. */
  nextPiece: number;
  readonly endPiece: number;
}

export class Task {
  readonly id: TaskId;
  readonly members = new Map<PeerId, Member>();
  /** Seeds among the members, oldest first. */
  readonly seeds: Member[] = [];
  /** Keepers among the members. */
  readonly keepers: Member[] = [];
  /** Keepers that have been asked to join, for as long as their connection lasts. */
  readonly invited = new Set<Peer>();
  /** Members that are neither. */
  plainCount = 0;
  /** Sum of their degrees. */
  plainDegreeSum = 0;
  /** Members that hold everything and are connected. */
  readonly complete = new Set<Member>();
  readonly pools = new Map<string, Member[]>();
  /** By the key of the pool with the same members. */
  readonly importGroups = new Map<string, ImportGroup>();
  /** Incomplete connected members below half the wanted degree, longest waiting first. */
  readonly short = new Set<Member>();
  leaseHolder: Member | undefined;
  /** Seeds whose read failed since somebody last joined. */
  readonly failedSeeds = new Set<PeerId>();
  /** Where the seeds cannot read, and peers do. */
  readonly spanLeases = new Map<number, SpanLease>();
  /** To be read by peers, and lent to nobody; ascending. */
  unreadSpans: PieceSpan[] = [];
  /** Peers that failed a span of this task. */
  readonly failedReaders = new Set<PeerId>();
  readonly accusersOf = new Map<PeerId, Set<PeerId>>();
  readonly expelled = new Set<PeerId>();

  constructor(id: TaskId) {
    this.id = id;
  }
}

export class Tables {
  readonly peers = new Map<PeerId, Peer>();
  readonly tasks = new Map<TaskId, Task>();
  /** Those that are connected. */
  readonly keepers = new Set<Peer>();
  readonly #config: SchedulerConfig;
  /** Below this degree an incomplete member is short of neighbours. */
  readonly shortDegree: number;

  constructor(config: SchedulerConfig) {
    this.#config = config;
    this.shortDegree = Math.ceil(config.neighbourCount / 2);
  }

  degreeMax(member: Member): number {
    return !member.peer.plain ? this.#config.seedNeighbourCountMax : this.#config.neighbourCountMax;
  }

  spareDegree(member: Member): number {
    return this.degreeMax(member) - member.degree;
  }

  /** Enters the peer's traits as of its (re)connection. A peer keeps the role it first came with. */
  connect(id: PeerId, traits: { readonly seed: boolean; readonly keeper?: boolean; readonly dialable: boolean; readonly topology: Topology }): Peer {
    let peer = this.peers.get(id);
    if (peer === undefined) {
      peer = new Peer(id);
      peer.seed = traits.seed;
      peer.keeper = traits.keeper === true && !traits.seed;
      this.peers.set(id, peer);
    }
    // The pools a member is in follow from these traits: out under the old ones, in again under the new.
    for (const member of peer.memberships.values()) this.#leavePools(member);
    peer.connected = true;
    if (peer.keeper) this.keepers.add(peer);
    peer.dialable = traits.dialable;
    peer.topology = traits.topology;
    peer.poolKeys = poolKeysOf(traits.topology);
    for (const member of peer.memberships.values()) this.refresh(member);
    return peer;
  }

  disconnect(peer: Peer): void {
    peer.connected = false;
    if (this.keepers.delete(peer)) for (const task of this.tasks.values()) task.invited.delete(peer);
    for (const member of peer.memberships.values()) this.refresh(member);
  }

  task(id: TaskId): Task {
    let task = this.tasks.get(id);
    if (task === undefined) {
      task = new Task(id);
      this.tasks.set(id, task);
    }
    return task;
  }

  addMember(peer: Peer, task: Task): Member {
    const member = new Member(peer, task);
    task.members.set(peer.id, member);
    peer.memberships.set(task.id, member);
    if (peer.seed) task.seeds.push(member);
    else if (peer.keeper) task.keepers.push(member);
    else task.plainCount++;
    return member;
  }

  /** Takes the member out with all its edges. @returns who was its neighbour */
  removeMember(member: Member): Member[] {
    const { peer, task } = member;
    const former = [...member.neighbours];
    for (const neighbour of former) this.removeEdge(member, neighbour);
    this.#leavePools(member);
    task.short.delete(member);
    task.complete.delete(member);
    task.members.delete(peer.id);
    peer.memberships.delete(task.id);
    if (peer.seed) task.seeds.splice(task.seeds.indexOf(member), 1);
    else if (peer.keeper) task.keepers.splice(task.keepers.indexOf(member), 1);
    else task.plainCount--;
    if (task.leaseHolder === member) task.leaseHolder = undefined;
    return former;
  }

  addEdge(a: Member, b: Member): void {
    assert(a !== b && a.task === b.task, "S1: an edge joins two members of one task");
    assert(!a.neighbours.has(b), "S1: an edge is added once");
    assert(this.spareDegree(a) > 0 && this.spareDegree(b) > 0, "S2: an edge needs spare degree at both ends");
    a.neighbours.add(b);
    b.neighbours.add(a);
    a.task.plainDegreeSum += plainEnds(a, b);
    this.refresh(a);
    this.refresh(b);
  }

  /** @returns false when there was no such edge */
  removeEdge(a: Member, b: Member): boolean {
    if (!a.neighbours.delete(b)) return false;
    b.neighbours.delete(a);
    a.task.plainDegreeSum -= plainEnds(a, b);
    this.refresh(a);
    this.refresh(b);
    return true;
  }

  /** Brings the indices up to date with the member's state. */
  refresh(member: Member): void {
    const { peer, task } = member;
    const handedOut = this.mayBeHandedOut(member) && peer.plain;
    if (handedOut && member.slots.length === 0) this.#enterPools(member);
    else if (!handedOut && member.slots.length > 0) this.#leavePools(member);
    if (peer.connected && !member.complete && member.degree < this.shortDegree) task.short.add(member);
    else task.short.delete(member);
    if (peer.connected && member.complete) task.complete.add(member);
    else task.complete.delete(member);
  }

  /** Whether somebody may be told to dial it (S5). */
  mayBeHandedOut(member: Member): boolean {
    return member.peer.connected && member.peer.dialable && !member.suspect && this.spareDegree(member) > 0;
  }

  #enterPools(member: Member): void {
    for (const key of member.peer.poolKeys) {
      let pool = member.task.pools.get(key);
      if (pool === undefined) {
        pool = [];
        member.task.pools.set(key, pool);
      }
      member.slots.push(pool.length);
      pool.push(member);
    }
  }

  #leavePools(member: Member): void {
    if (member.slots.length === 0) return;
    member.peer.poolKeys.forEach((key, level) => {
      const pool = member.task.pools.get(key);
      const slot = member.slots[level];
      const last = pool?.pop();
      assert(pool !== undefined && slot !== undefined && last !== undefined, "S3: a pooled member has a slot per pool");
      if (last !== member) {
        pool[slot] = last;
        last.slots[level] = slot;
      }
      if (pool.length === 0) member.task.pools.delete(key);
    });
    member.slots.length = 0;
  }
}

/** The pool everybody is in. */
export const EVERYBODY = "";

// A key names its level by the length of the array, so that a rack never meets a zone of the same name.
function poolKeysOf(topology: Topology): string[] {
  const keys = [EVERYBODY];
  TOPOLOGY_LEVELS.forEach((level, at) => {
    if (topology[level] !== undefined) keys.push(JSON.stringify(TOPOLOGY_LEVELS.slice(0, at + 1).map((outer) => topology[outer] ?? null)));
  });
  return keys;
}

function plainEnds(a: Member, b: Member): number {
  return (a.peer.plain ? 1 : 0) + (b.peer.plain ? 1 : 0);
}
