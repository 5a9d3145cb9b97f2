/**
 * Who brings which pieces into a rack, a zone, a region: so that each crosses the group's boundary once. The first
 * members of a group are its importers and share its buckets evenly; when one goes, its buckets go to the others and the
 * member next in line becomes one. Each bucket has a backup, the importer after its owner.
 */
import { BUCKET_COUNT, type Buckets, type Distance, type Imports, TOPOLOGY_LEVELS } from "../protocol/topology.ts";
import type { Member } from "./state.ts";

export class ImportGroup {
  readonly key: string;
  /** Over links of this distance and more its boundary is crossed. */
  readonly distance: Distance;
  /** Longest here first. */
  readonly members = new Set<Member>();
  readonly importers: Member[] = [];
  readonly ownerOf: (Member | undefined)[] = Array.from({ length: BUCKET_COUNT });

  constructor(key: string, distance: Distance) {
    this.key = key;
    this.distance = distance;
  }

  own(member: Member): Buckets {
    return this.#bucketsWhere((owner) => owner === member);
  }

  backup(member: Member): Buckets {
    const at = this.importers.indexOf(member);
    if (at < 0 || this.importers.length < 2) return 0;
    const before = this.importers[(at + this.importers.length - 1) % this.importers.length];
    return this.#bucketsWhere((owner) => owner === before);
  }

  #bucketsWhere(holds: (owner: Member | undefined) => boolean): Buckets {
    let buckets = 0;
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket++) if (holds(this.ownerOf[bucket])) buckets |= 1 << bucket;
    return buckets;
  }
}

export class Importers {
  readonly #countMax: number;
  /** Members whose imports may have changed since they were told. */
  readonly #stale = new Set<Member>();

  /** @param countMax importers per group, in [1, 32] */
  constructor(countMax: number) {
    this.#countMax = countMax;
  }

  get hasNews(): boolean {
    return this.#stale.size > 0;
  }

  /** Puts the member where its labels and its state say: into its groups, or out of all. */
  refresh(member: Member): void {
    const { peer, task } = member;
    const here = peer.connected && !peer.seed && !member.suspect;
    const keys = here ? peer.poolKeys.slice(1) : [];
    const unchanged = keys.length === member.importGroups.length && keys.every((key, at) => member.importGroups[at]?.key === key);
    if (unchanged) return;
    this.#leave(member);
    const levels = TOPOLOGY_LEVELS.filter((level) => peer.topology[level] !== undefined);
    member.importGroups = keys.map((key, at) => {
      const level = levels[at] as (typeof levels)[number];
      let group = task.importGroups.get(key);
      if (group === undefined) {
        group = new ImportGroup(key, (TOPOLOGY_LEVELS.length - TOPOLOGY_LEVELS.indexOf(level)) as Distance);
        task.importGroups.set(key, group);
      }
      group.members.add(member);
      if (group.importers.length < this.#countMax) this.#promote(group, member);
      return group;
    });
    // It may have been told more, before it was suspect.
    if (member.importGroups.length > 0) this.#stale.add(member);
  }

  remove(member: Member): void {
    this.#leave(member);
    this.#stale.delete(member);
  }

  isImporter(member: Member): boolean {
    return member.importGroups.length === 0 || member.importGroups.some((group) => group.importers.includes(member));
  }

  /** What the member is being told now. From far to near. */
  tell(member: Member): readonly Imports[] {
    this.#stale.delete(member);
    const imports = member.importGroups.map((group) => ({ distance: group.distance, own: group.own(member), backup: group.backup(member) }));
    member.toldImports = JSON.stringify(imports);
    return imports;
  }

  /** Whose imports are not what they were told; they count as told then. */
  *news(): Generator<{ readonly member: Member; readonly imports: readonly Imports[] }> {
    for (const member of this.#stale) {
      const { toldImports } = member;
      const imports = this.tell(member);
      if (member.toldImports !== toldImports) yield { member, imports };
    }
  }

  #leave(member: Member): void {
    this.#stale.delete(member);
    for (const group of member.importGroups) {
      group.members.delete(member);
      const at = group.importers.indexOf(member);
      if (at >= 0) {
        group.importers.splice(at, 1);
        for (const next of group.members) {
          if (group.importers.includes(next)) continue;
          group.importers.push(next);
          break;
        }
        this.#shareOut(group);
        this.#changed(group);
      }
      if (group.members.size === 0) member.task.importGroups.delete(group.key);
    }
    member.importGroups = [];
  }

  #promote(group: ImportGroup, member: Member): void {
    group.importers.push(member);
    this.#shareOut(group);
    this.#changed(group);
  }

  /** Gives what has no importer to those with the fewest buckets, and evens out; as few buckets as possible move. */
  #shareOut({ importers, ownerOf }: ImportGroup): void {
    const counts = new Map<Member, number>(importers.map((importer) => [importer, 0]));
    for (const [bucket, owner] of ownerOf.entries()) {
      if (owner === undefined) continue;
      const count = counts.get(owner);
      if (count === undefined) ownerOf[bucket] = undefined;
      else counts.set(owner, count + 1);
    }
    const extreme = (isBefore: (a: number, b: number) => boolean): Member | undefined => {
      let found: Member | undefined;
      for (const [importer, count] of counts) {
        if (found === undefined || isBefore(count, counts.get(found) as number)) found = importer;
      }
      return found;
    };
    const move = (bucket: number, to: Member): void => {
      const from = ownerOf[bucket];
      if (from !== undefined) counts.set(from, (counts.get(from) as number) - 1);
      counts.set(to, (counts.get(to) as number) + 1);
      ownerOf[bucket] = to;
    };
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket++) {
      const poorest = ownerOf[bucket] === undefined ? extreme((a, b) => a < b) : undefined;
      if (poorest !== undefined) move(bucket, poorest);
    }
    for (;;) {
      const poorest = extreme((a, b) => a < b);
      const richest = extreme((a, b) => a > b);
      if (poorest === undefined || richest === undefined) return;
      if ((counts.get(richest) as number) - (counts.get(poorest) as number) < 2) return;
      move(ownerOf.lastIndexOf(richest), poorest);
    }
  }

  /** Owners and backups may be others now. */
  #changed(group: ImportGroup): void {
    for (const importer of group.importers) this.#stale.add(importer);
  }
}
