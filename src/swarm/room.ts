/** How much more may be taken at a time, and what neighbours are told of it: idle, receiving, or full. */
import type { LinkId, SwarmConfig, SwarmEffect } from "./contract.ts";
import type { IntakeRate } from "./intake-rate.ts";
import { placeShareOf } from "./place-share.ts";
import { holdsMissing, isComplete, type Link, type Receive, type Task } from "./tables.ts";

/** No more is agreed than comes in within this at the best rate so far. Source: docs/policy.md, "Downloads that follow the downlink". */
const AHEAD_MS = 4_000;
/** Pieces that are taken at a time however long they need: while one ends another one comes. */
const DOWNLOAD_COUNT_MIN = 3;

export class Room {
  readonly #config: SwarmConfig;
  readonly #links: ReadonlyMap<LinkId, Link>;
  readonly #rate: IntakeRate;
  readonly #emit: (effect: SwarmEffect) => void;
  /** Receives that take up room: agreed or receiving, and not late. In places, as {@link placeShareOf}. */
  #incoming = 0;
  /** Of those, from outside of our rack, zone or region. */
  #farIncoming = 0;
  /** How long the pieces of all of those are. */
  #incomingBytes = 0;
  /** How long the piece is that was agreed last. */
  #pieceBytes = 1;
  /** Pieces whole, but not verified and written yet. */
  #verifying = 0;
  /** Declined as busy: they wait to hear that there is room, in this order. */
  readonly #waiting = new Set<Link>();
  /** Told that there is room, and not heard of since. */
  readonly #invited = new Set<Link>();
  /** Told that there is room for a task that gets nothing, since the last look: who offers another one is not told again. */
  readonly #entreated = new Set<Link>();
  /** Told by the driver that there is no room: they wait for the next look. */
  readonly #shut = new Set<Link>();
  /** All who could send know that nothing comes in here. */
  #idleTold = true;

  /** @param rate what has come in, which others keep up to date */
  constructor(config: SwarmConfig, links: ReadonlyMap<LinkId, Link>, rate: IntakeRate, emit: (effect: SwarmEffect) => void) {
    this.#config = config;
    this.#links = links;
    this.#rate = rate;
    this.#emit = emit;
  }

  // ── What takes up room ────────────────────────────────────────────────────────────────────────────────────────

  agreed(receive: Receive): void {
    this.#count(receive, 1);
    this.#pieceBytes = receive.task.pieceLengthBytes;
  }

  /** The transfer takes up no room any more: it is late, whole, or over. */
  released(receive: Receive): void {
    this.#count(receive, -1);
  }

  verifying(change: 1 | -1): void {
    this.#verifying += change;
  }

  #count({ task, far }: Receive, change: 1 | -1): void {
    const places = change * placeShareOf(task.pieceLengthBytes);
    this.#incoming += places;
    this.#incomingBytes += change * task.pieceLengthBytes;
    task.incomingCount += change;
    if (far) this.#farIncoming += places;
  }

  // ── How much there is ─────────────────────────────────────────────────────────────────────────────────────────

  /**
   * What neighbours are told: idle (0), receiving (1), or full (the capacity), also while disk and digest are behind.
   * Three levels are enough; senders tell equals apart by what they give themselves.
   */
  get load(): number {
    const { downloadCountMax } = this.#config;
    if (this.#left <= 0 || this.isStoringFull) return downloadCountMax;
    return this.#incoming > 0 ? 1 : 0;
  }

  /** As {@link load}, for one neighbour: to those outside we are full sooner, to who has what a task without any needs later. */
  loadFor(link: Link): number {
    return this.#loadFor(link, this.load);
  }

  /** @param load ours, which does not depend on the neighbour: told to many it is worked out once */
  #loadFor(link: Link, load: number): number {
    const { downloadCountMax } = this.#config;
    if (this.#isFarFull(link)) return downloadCountMax;
    return load >= downloadCountMax && this.#canFeedIdleTask(link) ? 1 : load;
  }

  /** Pieces that wait for digest and disk keep others out. */
  get isStoringFull(): boolean {
    return this.#verifying >= this.#config.verifyCountMax;
  }

  /** Whether a piece of the task may come from this neighbour. */
  isFor(link: Link, task: Task): boolean {
    return !this.#isFarFull(link, task) && this.#isForTask(task);
  }

  /**
   * A task that gets nothing is let in although we are full: who came first, or has more neighbours, would keep all room,
   * and a rate limit shares only among those whose bytes come. As many as there is room for besides, at most.
   */
  #isForTask(task: Task): boolean {
    const { downloadCountMax } = this.#config;
    if (this.isStoringFull) return false;
    return this.#left > 0 || (task.incomingCount === 0 && this.#incoming < downloadCountMax * 2);
  }

  /**
   * Pieces that may be agreed beside those under way: as many as the downlink brings in within a few seconds. More would all
   * come late, and be taken in vain from others too. By the best rate so far, not by the present one: who has slow neighbours
   * must take from many of them.
   */
  get #left(): number {
    const places = this.#config.downloadCountMax - this.#incoming;
    const { bestBytesPerMs } = this.#rate;
    if (bestBytesPerMs === 0) return places;
    const leftBytes = bestBytesPerMs * AHEAD_MS - this.#incomingBytes;
    return Math.min(places, Math.max(DOWNLOAD_COUNT_MIN - this.#incoming, Math.ceil(leftBytes / this.#pieceBytes)));
  }

  /**
   * @param task the piece is of it; undefined: of any that comes over the link, the neediest too, for who is told that there is
   * room and then refused would be told again, and come again, for ever
   */
  #isFarFull(link: Link, task?: Task): boolean {
    if (link.distance === 0) return false;
    const { farDownloadCountMax } = this.#config;
    const left = farDownloadCountMax - this.#farIncoming;
    const needed = task === undefined ? mostNeeded(link) : placesNeeded(task);
    return left <= 0 || left < Math.min(needed, farDownloadCountMax);
  }

  #canFeedIdleTask(link: Link): boolean {
    for (const remote of link.remotes.values()) {
      const { task, have, isolated } = remote;
      // A task that is whole misses nothing: of those there are many, and this is asked many times a millisecond.
      if (isolated || task.incomingCount > 0 || isComplete(task)) continue;
      if (this.#isForTask(task) && holdsMissing(have.words, task.have.words)) return true;
    }
    return false;
  }

  // ── What is told of it ────────────────────────────────────────────────────────────────────────────────────────

  /** It was declined as busy. */
  refused(link: Link): void {
    this.#waiting.add(link);
  }

  /** It has been told that we are full, by who knows better than we do. */
  shut(link: Link): void {
    link.toldLoad = this.#config.downloadCountMax;
    this.#shut.add(link);
  }

  /** It has come with an offer. */
  heard(link: Link): void {
    this.#invited.delete(link);
  }

  forget(link: Link): void {
    this.#waiting.delete(link);
    this.#invited.delete(link);
    this.#entreated.delete(link);
    this.#shut.delete(link);
  }

  /** Somebody waits for room, and there is some. */
  get hasNews(): boolean {
    if (this.#waiting.size === 0) return false;
    const { load } = this;
    for (const link of this.#waiting) if (this.#loadFor(link, load) < this.#config.downloadCountMax) return true;
    return false;
  }

  tellStatus(link: Link): void {
    link.toldLoad = this.loadFor(link);
    if (link.toldLoad > 0) this.#idleTold = false;
    // Who hears that we are full must hear when we are not.
    if (link.toldLoad < this.#config.downloadCountMax) this.#waiting.delete(link);
    else this.#waiting.add(link);
    const { linkId } = link;
    this.#emit({ type: "sendStatus", linkId, incoming: link.toldLoad, capacity: this.#config.downloadCountMax });
  }

  /**
   * What cannot wait for something to ride on: that there is room for one that was declined, as many as there is room
   * for; and, when nothing comes in any more, that to everybody.
   */
  tell(): void {
    const { downloadCountMax } = this.#config;
    const load = this.#waiting.size === 0 ? 0 : this.load;
    for (const link of this.#waiting) {
      if (this.#loadFor(link, load) >= downloadCountMax) continue;
      if (this.#invited.size < this.#left) this.#invited.add(link);
      else if (!this.#entreated.has(link) && this.#canFeedIdleTask(link)) this.#entreated.add(link);
      else continue;
      this.tellStatus(link);
    }
    if (this.#incoming > 0 || this.#idleTold || this.load > 0) return;
    this.#idleTold = true;
    for (const link of this.#links.values()) {
      if (link.toldLoad === 0) continue;
      for (const remote of link.remotes.values()) {
        if (isComplete(remote.task)) continue;
        this.tellStatus(link);
        break;
      }
    }
  }

  /** Who was invited and has not come has nothing for us: the next may. */
  inviteOthers(): void {
    this.#invited.clear();
    this.#entreated.clear();
    for (const link of this.#shut) this.#waiting.add(link);
    this.#shut.clear();
    this.tell();
  }
}

/**
 * Room from outside that there must be for one more piece: any part of a place, or whole pieces. When importers fail, several bring the
 * same pieces in, so the fewer are under way the fewer cross twice: with two of sixteen frozen 1.08 copies into a rack for 1.17
 * (sim/sim.test.ts). Who has all of its own share and helps with another's is the backup, too.
 */
function placesNeeded({ relief, pieceLengthBytes }: Task): number {
  const pieces = { none: 0, backup: 1, anybody: 2 }[relief];
  return pieces * placeShareOf(pieceLengthBytes);
}

function mostNeeded(link: Link): number {
  let most = 0;
  for (const { task } of link.remotes.values()) if (!isComplete(task)) most = Math.max(most, placesNeeded(task));
  return most;
}
