/** Each task's mesh: who is given whom, who parts from whom, and what they are told of it. Seeds and keepers come first; the choice is the selector's. */
import type { PeerId } from "../protocol/ids.ts";
import type { SchedulerConfig, SchedulerEffect } from "./contract.ts";
import type { NeighbourSelector } from "./select-neighbours.ts";
import { EVERYBODY, type Member, type Tables } from "./state.ts";

/** Who lost a neighbour is not given it again for this long: outlasts a restart of a host's daemon. */
export const AVOID_MS = 30_000;
/** Lost neighbours remembered per member: more than any mesh has, so that a chatty peer costs no memory. */
const AVOIDED_COUNT_MAX = 64;
/** Short members looked at when a newcomer has degree to spare; bounds the cost of a join. */
const SHORT_LOOKED_AT_MAX = 32;

export class Mesh {
  readonly #config: SchedulerConfig;
  readonly #tables: Tables;
  readonly #selector: NeighbourSelector;
  readonly #emit: (effect: SchedulerEffect) => void;

  constructor(config: SchedulerConfig, tables: Tables, selector: NeighbourSelector, emit: (effect: SchedulerEffect) => void) {
    this.#config = config;
    this.#tables = tables;
    this.#selector = selector;
    this.#emit = emit;
  }

  /** Gives a joiner its neighbours. @returns whom it is to dial: those that it had and those that are new */
  join(member: Member, nowMs: number): PeerId[] {
    const kept = [...member.neighbours].filter((neighbour) => neighbour.peer.dialable);
    const added = this.#giveNeighbours(member, this.#joinDegree(member) - member.degree, nowMs);
    return [...kept, ...added].map((neighbour) => neighbour.peer.id);
  }

  /**
   * The degree a joiner starts with: full while the mesh is small; half of it later, for those who come after add the
   * other half. Full degree for everybody would use up all spare degree but that of the latest joiners, and a mesh in
   * which everybody knows only those who came right before and after is a chain, not an expander.
   */
  #joinDegree(member: Member): number {
    const { neighbourCount } = this.#config;
    if (member.peer.seed) return neighbourCount;
    if (member.complete) return 0;
    if (member.peer.keeper) return neighbourCount;
    const { plainCount, plainDegreeSum } = member.task;
    const degreeSumWanted = neighbourCount * plainCount;
    const others = plainDegreeSum - member.degree;
    return Math.min(neighbourCount, Math.max(this.#tables.shortDegree, (degreeSumWanted - others + 1) >> 1));
  }

  /** Makes up to `count` edges to others; `member` is to dial them. */
  #giveNeighbours(member: Member, count: number, nowMs: number): Member[] {
    if (count > 0 && !member.complete) this.#makeRoom(member, nowMs);
    const chosen = this.#selector.select(member, count, nowMs);
    for (const neighbour of chosen) this.#tables.addEdge(member, neighbour);
    return chosen;
  }

  /** A seed or keeper with no spare degree gives up a neighbour that holds everything: such an edge carries nothing. */
  #makeRoom(member: Member, nowMs: number): void {
    const { task } = member;
    if (task.complete.size <= 1) return;
    for (const giver of [...task.seeds, ...task.keepers]) {
      if (!giver.complete || this.#tables.spareDegree(giver) > 0 || !this.#selector.suits(member, giver, nowMs)) continue;
      for (const neighbour of giver.neighbours) {
        if (!neighbour.complete) continue;
        this.#tables.removeEdge(giver, neighbour);
        this.rewire(neighbour, [], [giver]);
        break;
      }
    }
  }

  /** Tells members with too few neighbours to dial the newcomer, as far as its degree goes. */
  giveToShort(newcomer: Member, nowMs: number): void {
    let lookedAt = 0;
    for (const member of newcomer.task.short) {
      if (!this.#tables.mayBeHandedOut(newcomer) || lookedAt++ >= SHORT_LOOKED_AT_MAX) return;
      if (this.#tables.spareDegree(member) <= 0 || !this.#selector.suits(member, newcomer, nowMs)) continue;
      this.#tables.addEdge(member, newcomer);
      this.rewire(member, [newcomer], []);
    }
  }

  /**
   * Those who joined last have half the neighbours of others, and nobody comes after them: in a world of unequal uplinks they
   * are the last to finish. Once they have begun, they are given three quarters. Source: docs/policy.md, "Neighbours".
   */
  giveToLate(member: Member, nowMs: number): void {
    if (member.complete || !member.peer.plain || !member.peer.connected) return;
    const added = this.#giveNeighbours(member, Math.max(this.#lateDegree - member.degree, this.#missingNearby(member)), nowMs);
    if (added.length > 0) this.rewire(member, added, []);
  }

  get #lateDegree(): number {
    return Math.ceil((this.#config.neighbourCount * 3) / 4);
  }

  /**
   * Neighbours that it lacks in its own rack, or whatever its nearest group is: as many are to be there, as nearly all
   * that comes comes from them. Later racks are given links to those of the first, which may have used up their degree by that.
   */
  #missingNearby({ peer, task, neighbours }: Member): number {
    const key = peer.poolKeys.at(-1);
    if (key === undefined || key === EVERYBODY) return 0;
    let near = 0;
    for (const neighbour of neighbours) if (neighbour.peer.poolKeys.at(-1) === key) near++;
    const others = (task.pools.get(key)?.length ?? 0) - 1;
    return Math.min(others, this.#lateDegree) - near;
  }

  /**
   * Brings an incomplete member back to a joiner's degree, by at least one, and tells it whom it lost.
   *
   * @param standing neighbours that it is to be told of again
   */
  replenish(member: Member, dropped: readonly Member[], nowMs: number, standing: readonly Member[] = []): void {
    if (!member.peer.connected) return;
    const added = member.complete ? [] : this.#giveNeighbours(member, Math.max(1, this.#joinDegree(member) - member.degree), nowMs);
    const add = [...standing, ...added];
    if (add.length > 0 || dropped.length > 0) this.rewire(member, add, dropped);
  }

  rewire(member: Member, add: readonly Member[], drop: readonly Member[]): void {
    // Who is not connected cannot be told; its next join's answer says it all.
    if (!member.peer.connected) return;
    this.#emit({
      type: "rewire",
      peerId: member.peer.id,
      taskId: member.task.id,
      add: add.map((neighbour) => neighbour.peer.id),
      drop: drop.map((neighbour) => neighbour.peer.id),
    });
  }

  /** Whatever there was between the two is over, and not to be had again for a while. @returns whether they were neighbours */
  part(member: Member, id: PeerId, nowMs: number): boolean {
    this.#avoid(member, id, nowMs);
    const other = member.task.members.get(id);
    return other !== undefined && other !== member && this.#tables.removeEdge(member, other);
  }

  #avoid(member: Member, id: PeerId, nowMs: number): void {
    member.avoided.delete(id);
    member.avoided.set(id, nowMs + AVOID_MS);
    if (member.avoided.size <= AVOIDED_COUNT_MAX) return;
    for (const oldest of member.avoided.keys()) {
      member.avoided.delete(oldest);
      return;
    }
  }
}
