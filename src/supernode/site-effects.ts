/** What happens at the site becomes inputs of the scheduler; what it decides becomes messages and reads. */
import type { Logger } from "pino";
import { assertNever } from "../base/assert.ts";
import { AppError } from "../base/errors.ts";
import type { SigningKey } from "../peer/membership/credentials.ts";
import type { Neighbour } from "../protocol/control-messages.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { SchedulerEffect, SchedulerInput } from "../scheduler/index.ts";
import type { PeerMessage } from "./control-server.ts";
import type { SupernodeMetrics } from "./metrics.ts";
import type { OriginBudgets } from "./origin-budgets.ts";
import type { OriginMeter } from "./cache/origin-meter.ts";
import type { ConnectedPeer, PeerTable } from "./peer-table.ts";
import type { SeedCache } from "./cache/seed-cache.ts";
import type { LeaseDesk } from "./leases/lease-desk.ts";
import type { TaskJoins } from "./task-joins.ts";

export interface SiteEffectsDeps {
  readonly ownPeerId: PeerId;
  /** How peers dial the seed. Host undefined: as they reached us. The port is known once we listen. */
  readonly advertised: { readonly host: string | undefined; readonly port: number };
  readonly peers: PeerTable;
  readonly budgets: Pick<OriginBudgets, "lease">;
  readonly seeds: Pick<SeedCache, "get" | "grantLease" | "connect" | "disconnect" | "forget">;
  readonly desk: Pick<LeaseDesk, "isActive" | "granted" | "revoked" | "failed" | "nobodyReads" | "end">;
  readonly joins: TaskJoins;
  readonly meter: Pick<OriginMeter, "forget">;
  readonly key: SigningKey;
  readonly metrics: Pick<SupernodeMetrics, "originReads">;
  readonly push: (input: SchedulerInput) => void;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly unixMs: () => number;
}

export class SiteEffects {
  readonly #deps: SiteEffectsDeps;
  /** Slices of budgets that peers wait for. */
  readonly #leasing = new Map<ConnectedPeer, Set<AbortController>>();

  constructor(deps: SiteEffectsDeps) {
    this.#deps = deps;
  }

  peerConnected({ peerId, host, place, keeper }: ConnectedPeer): void {
    this.#deps.log.info({ peerId, program: host.program, version: host.version }, "a peer registered");
    this.#deps.push({ type: "peerConnected", peerId, seed: false, keeper, dialable: host.port !== 0, topology: place.topology });
  }

  peerDisconnected(peer: ConnectedPeer): void {
    this.#deps.log.info({ peerId: peer.peerId }, "a peer is gone");
    this.#deps.joins.disconnected(peer);
    for (const ending of this.#leasing.get(peer) ?? []) ending.abort();
    this.#leasing.delete(peer);
    this.#deps.push({ type: "peerDisconnected", peerId: peer.peerId });
  }

  peerSaid(peer: ConnectedPeer, message: PeerMessage): void {
    const { push, joins } = this.#deps;
    const { peerId } = peer;
    switch (message.type) {
      case "join":
        return joins.join(peer, message);
      case "progress": {
        const { taskId, pieceCount, complete } = message;
        joins.progressed(peerId, taskId, message);
        return push({ type: "taskProgressed", peerId, taskId, pieceCount, complete });
      }
      case "needNeighbours":
        return push({ type: "neighboursLost", peerId, taskId: message.taskId, lost: message.lost });
      case "accuse":
        return push({ type: "peerAccused", accuser: peerId, accused: message.peerId, taskId: message.taskId, piece: message.piece });
      case "leaseFailed":
        return this.#deps.desk.failed(message.taskId, message.leaseId, peerId);
      case "originLease":
        return this.#lease(peer, message);
      case "leave":
        joins.left(peerId, message.taskId);
        return push({ type: "taskLeft", peerId, taskId: message.taskId });
      default:
        return assertNever(message);
    }
  }

  seedOpened(taskId: TaskId, pieceCount: number, totalCount: number | undefined): void {
    this.#deps.push({ type: "taskJoined", peerId: this.#deps.ownPeerId, taskId, requestId: SEED_REQUEST, pieceCount, totalCount });
  }

  seedRead(taskId: TaskId, outcome: "complete" | "failed"): void {
    this.#deps.metrics.originReads.inc({ outcome });
    this.#deps.push({ type: "originRead", taskId, holder: this.#deps.ownPeerId, outcome });
  }

  lengthKnown(taskId: TaskId, lengthBytes: number, signature: Uint8Array): void {
    this.#deps.joins.broadcast(taskId, {
      type: "length",
      taskId,
      lengthBytes,
      signature: Buffer.from(signature).toString("base64"),
    });
  }

  seedFailed(taskId: TaskId, { code, message, details }: AppError, discard: boolean): void {
    const { joins, push, ownPeerId } = this.#deps;
    joins.broadcast(taskId, { type: "taskFailed", taskId, code, message: message.slice(0, 4096), details, discard });
    if (discard) push({ type: "taskLeft", peerId: ownPeerId, taskId });
  }

  execute(effect: SchedulerEffect): void {
    const { ownPeerId, joins, seeds, desk, peers, meter, log } = this.#deps;
    const { taskId } = effect;
    switch (effect.type) {
      case "assign":
        if (effect.peerId === ownPeerId) this.#seedDials(taskId, effect.neighbours);
        else joins.assigned(effect.requestId, effect, (peerId) => this.#describe(peerId, peers.get(effect.peerId)));
        return;
      case "invite": {
        // It may have come back from where it may be none.
        const task = peers.get(effect.peerId)?.keeper === true ? seeds.get(taskId)?.task : undefined;
        if (task !== undefined) peers.send(effect.peerId, { type: "invite", taskId, url: task.stored.record.displayUrl });
        return;
      }
      case "assignImports":
        return peers.send(effect.peerId, { type: "imports", taskId, imports: [...effect.imports] });
      case "rewire": {
        const { peerId, add, drop } = effect;
        if (peerId === ownPeerId) {
          seeds.disconnect(taskId, drop);
          return this.#seedDials(taskId, add);
        }
        const viewer = peers.get(peerId);
        const neighbours = add.flatMap((neighbour) => this.#describe(neighbour, viewer) ?? []);
        return peers.send(peerId, { type: "neighbours", taskId, add: neighbours, drop: [...drop] });
      }
      case "grantLease":
        // What it could not do a moment ago peers do meanwhile.
        if (effect.holder === ownPeerId && desk.isActive(taskId)) this.#deps.push({ type: "originRead", taskId, holder: ownPeerId, outcome: "failed" });
        else if (effect.holder === ownPeerId) seeds.grantLease(taskId);
        else log.warn({ taskId, holder: effect.holder }, "a lease went to a seed that is not us");
        return;
      case "grantSpan": {
        const { holder, leaseId, firstPiece, endPiece } = effect;
        if (desk.granted(taskId, leaseId, holder, effect)) peers.send(holder, { type: "lease", taskId, leaseId, firstPiece, endPiece });
        return;
      }
      case "revokeSpan":
        desk.revoked(taskId, effect.leaseId);
        return peers.send(effect.holder, { type: "leaseRevoked", taskId, leaseId: effect.leaseId });
      case "nobodyReads":
        return desk.nobodyReads(taskId);
      case "restTask":
        desk.end(taskId);
        return seeds.forget(taskId);
      case "forgetTask":
        desk.end(taskId);
        joins.forget(taskId);
        seeds.forget(taskId);
        return meter.forget(taskId);
      case "expel":
        log.warn({ taskId, peerId: effect.peerId }, "a peer gave bad pieces to several others: it is out of this task");
        return peers.send(effect.peerId, {
          type: "taskFailed",
          taskId,
          code: "PIECE_DIGEST_MISMATCH",
          message: "several peers got damaged pieces from this host; check its memory and disk",
          details: {},
          discard: true,
        });
      default:
        return assertNever(effect);
    }
  }

  #lease(peer: ConnectedPeer, { requestId, host, kind }: Extract<PeerMessage, { type: "originLease" }>): void {
    const { budgets, peers } = this.#deps;
    const leasing = this.#leasing.get(peer) ?? new Set<AbortController>();
    this.#leasing.set(peer, leasing);
    // An honest peer has one question under way per host and kind.
    if (leasing.size >= LEASES_PER_PEER_MAX) throw new AppError("PROTOCOL_VIOLATION", "the peer asks for too many slices at a time");
    const ending = new AbortController();
    leasing.add(ending);
    budgets
      .lease(host, kind, ending.signal)
      .then(
        (slice) => {
          if (peers.get(peer.peerId) === peer) peer.channel.send({ type: "originLeased", requestId, ...slice });
        },
        // It went away.
        () => undefined,
      )
      .finally(() => leasing.delete(ending));
  }

  #seedDials(taskId: TaskId, peerIds: readonly PeerId[]): void {
    const { seeds, key, ownPeerId, unixMs } = this.#deps;
    const neighbours = peerIds.flatMap((peerId) => this.#describe(peerId, undefined) ?? []);
    const expiresUnixMs = unixMs() + SEED_TICKET_MS;
    const ticket = key.signTicket({ taskId, peerId: ownPeerId, expiresUnixMs, outageUnixMs: expiresUnixMs });
    seeds.connect(taskId, neighbours, ticket);
  }

  #describe(peerId: PeerId, viewer: ConnectedPeer | undefined): Neighbour | undefined {
    const { ownPeerId, advertised, peers } = this.#deps;
    if (peerId === ownPeerId) {
      if (viewer === undefined) return undefined;
      return { peerId, address: advertised.host ?? viewer.localAddress, port: advertised.port, seed: true };
    }
    const where = peers.addressOf(peerId, viewer);
    return where === undefined ? undefined : { peerId, ...where, seed: false };
  }
}

const LEASES_PER_PEER_MAX = 256;
/** The seed's own joins have nobody to be answered. */
const SEED_REQUEST = 0;
/** It signs its own: this limits nobody, and is renewed by nobody. */
const SEED_TICKET_MS = 365 * 24 * 60 * 60_000;
