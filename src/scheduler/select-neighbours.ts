/**
 * Who becomes whose neighbour.
 *
 * Any member with spare degree, at random: that makes the mesh an expander, and the degree caps keep it level. Where
 * there is hardly a choice, the least loaded first, ties by id. Preferring the least loaded of a large sample was
 * measured and rejected: those are the latest joiners, so the mesh becomes a chain of generations (10,000 peers: 8
 * hops from end to end instead of 5). With topology labels three quarters come from the nearest group that has them,
 * a quarter from anywhere (5–6 of 8 in the rack, 2–3 outside, in the reference design); for those who bring nothing into
 * any group one is enough, for the case that nobody does. Seeds and the nearest keepers come before all of them.
 */
import type { Prng } from "../base/prng.ts";
import { distanceOf } from "../protocol/topology.ts";
import type { Importers } from "./importers.ts";
import type { Member, Tables } from "./state.ts";
import { EVERYBODY } from "./state.ts";

/** Draws allowed per neighbour wanted; more are in vain when most of the pool does not suit. */
const DRAWS_PER_CHOICE = 3;
/** Two, as one may be gone; more would take the place of near peers. */
const KEEPERS_PER_MEMBER = 2;

export class NeighbourSelector {
  readonly #tables: Tables;
  readonly #importers: Importers;
  readonly #prng: Prng;
  #selectionNumber = 0;

  constructor(tables: Tables, importers: Importers, prng: Prng) {
    this.#tables = tables;
    this.#importers = importers;
    this.#prng = prng;
  }

  /**
   * Chooses up to `count` new neighbours for `member`, seeds first; it makes no edges.
   *
   * Everyone chosen may be dialled, has spare degree, and is no neighbour yet. Whom `member` avoids (or who avoids it)
   * is chosen only when there is nobody else at all.
   */
  select(member: Member, count: number, nowMs: number): Member[] {
    const wanted = Math.min(count, this.#tables.spareDegree(member));
    const chosen: Member[] = [];
    if (wanted <= 0) return chosen;
    this.#selectionNumber++;
    forgetAvoided(member, nowMs);

    if (!member.complete) {
      this.#takeSeeds(member, Math.max(1, wanted >>> 1), chosen, nowMs);
      this.#takeKeepers(member, wanted, chosen, nowMs);
    }
    const { poolKeys } = member.peer;
    const farCount = poolKeys.length > 1 ? Math.min((wanted - chosen.length) >>> 2, this.#importers.isImporter(member) ? wanted : 1) : 0;
    for (let level = poolKeys.length - 1; level > 0; level--) {
      this.#takeFrom(poolKeys[level] as string, member, wanted - farCount, chosen, nowMs);
    }
    this.#takeFrom(EVERYBODY, member, wanted, chosen, nowMs);
    if (chosen.length === 0) this.#takeAvoided(member, wanted, chosen);
    return chosen;
  }

  /** Whether an edge between the two would be of use and is not one already. */
  suits(member: Member, candidate: Member, nowMs: number): boolean {
    return (
      candidate !== member &&
      !(member.complete && candidate.complete) &&
      !member.neighbours.has(candidate) &&
      !accused(member, candidate) &&
      !avoids(member, candidate, nowMs) &&
      !avoids(candidate, member, nowMs)
    );
  }

  #takeSeeds(member: Member, until: number, chosen: Member[], nowMs: number): void {
    for (const seed of member.task.seeds) {
      if (chosen.length >= until) return;
      if (this.#tables.mayBeHandedOut(seed) && this.suits(member, seed, nowMs)) chosen.push(seed);
    }
  }

  /** The nearest, of those the ones with the fewest neighbours; as many as it lacks. */
  #takeKeepers(member: Member, until: number, chosen: Member[], nowMs: number): void {
    const { keepers } = member.task;
    const present = keepers.filter((keeper) => member.neighbours.has(keeper) && keeper.peer.connected && !keeper.suspect);
    const missing = Math.min(KEEPERS_PER_MEMBER - present.length, until - chosen.length);
    if (missing <= 0 || keepers.length === present.length) return;
    const distance = ({ peer }: Member): number => distanceOf(member.peer.topology, peer.topology);
    const suitable = keepers.filter((keeper) => this.#tables.mayBeHandedOut(keeper) && this.suits(member, keeper, nowMs));
    chosen.push(...suitable.sort((a, b) => distance(a) - distance(b) || byLoadThenId(a, b)).slice(0, missing));
  }

  /** Adds members of the pool until `chosen` holds `until`, or too many draws were in vain. */
  #takeFrom(key: string, member: Member, until: number, chosen: Member[], nowMs: number): void {
    const pool = member.task.pools.get(key);
    const missing = until - chosen.length;
    if (pool === undefined || missing <= 0) return;
    const drawCount = missing * DRAWS_PER_CHOICE;
    if (pool.length <= drawCount) {
      const suitable = pool.filter((candidate) => this.#isNew(candidate) && this.suits(member, candidate, nowMs));
      for (const candidate of suitable.sort(byLoadThenId).slice(0, missing)) this.#choose(candidate, chosen);
      return;
    }
    for (let draw = 0; draw < drawCount && chosen.length < until; draw++) {
      const candidate = pool[this.#prng.below(pool.length)] as Member;
      if (this.#isNew(candidate) && this.suits(member, candidate, nowMs)) this.#choose(candidate, chosen);
    }
  }

  #isNew(candidate: Member): boolean {
    return candidate.chosenBy !== this.#selectionNumber;
  }

  #choose(candidate: Member, chosen: Member[]): void {
    candidate.chosenBy = this.#selectionNumber;
    chosen.push(candidate);
  }

  #takeAvoided(member: Member, until: number, chosen: Member[]): void {
    for (const id of member.avoided.keys()) {
      if (chosen.length >= until) return;
      const candidate = member.task.members.get(id);
      if (candidate === undefined || candidate === member || member.neighbours.has(candidate)) continue;
      if ((member.complete && candidate.complete) || accused(member, candidate)) continue;
      // Suspicion is no reason when nobody else is left.
      const reachable = candidate.peer.connected && candidate.peer.dialable;
      if (reachable && this.#tables.spareDegree(candidate) > 0) chosen.push(candidate);
    }
  }
}

/** Who got a bad piece from another is not given it again. */
function accused(a: Member, b: Member): boolean {
  const { accusersOf } = a.task;
  if (accusersOf.size === 0) return false;
  return accusersOf.get(a.peer.id)?.has(b.peer.id) === true || accusersOf.get(b.peer.id)?.has(a.peer.id) === true;
}

function avoids(member: Member, other: Member, nowMs: number): boolean {
  if (member.avoided.size === 0) return false;
  const untilMs = member.avoided.get(other.peer.id);
  return untilMs !== undefined && untilMs > nowMs;
}

function forgetAvoided(member: Member, nowMs: number): void {
  for (const [id, untilMs] of member.avoided) {
    if (untilMs > nowMs) return;
    member.avoided.delete(id);
  }
}

function byLoadThenId(a: Member, b: Member): number {
  return a.degree - b.degree || (a.peer.id < b.peer.id ? -1 : 1);
}
