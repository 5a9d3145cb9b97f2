/** The peers of the site: who is connected, and where others reach them. */
import type { ControlChannel } from "../peer/control/control-channel.ts";
import type { HostInfo, SupernodeToPeer } from "../protocol/control-messages.ts";
import type { PeerId } from "../protocol/ids.ts";
import type { Place } from "./place-map.ts";

export interface ConnectedPeer {
  readonly peerId: PeerId;
  readonly host: HostInfo;
  /** As it was told; where its labels come from may change. */
  place: Place;
  /** It wants to be one, and stands where keepers may. */
  readonly keeper: boolean;
  /** The other end of its control connection, as we see it. */
  readonly remoteAddress: string;
  /** Our end: the address by which it reached us. */
  readonly localAddress: string;
  readonly connectedUnixMs: number;
  readonly channel: ControlChannel;
}

/** Keeps a peer's address for a while after its connection ended, as the scheduler keeps its place. */
export class PeerTable {
  readonly #connected = new Map<PeerId, ConnectedPeer>();
  readonly #gone = new Map<PeerId, { readonly peer: ConnectedPeer; readonly untilMs: number }>();
  readonly #nowMs: () => number;

  /** @param nowMs monotonic */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get size(): number {
    return this.#connected.size;
  }

  [Symbol.iterator](): Iterator<ConnectedPeer> {
    return this.#connected.values();
  }

  get(peerId: PeerId): ConnectedPeer | undefined {
    return this.#connected.get(peerId);
  }

  /** @returns the connection that this one replaces: a reconnect that was faster than our knowledge of the loss */
  add(peer: ConnectedPeer): ConnectedPeer | undefined {
    const before = this.#connected.get(peer.peerId);
    this.#gone.delete(peer.peerId);
    this.#connected.set(peer.peerId, peer);
    return before;
  }

  /** @returns false when `peer` had been replaced already */
  remove(peer: ConnectedPeer): boolean {
    if (this.#connected.get(peer.peerId) !== peer) return false;
    this.#connected.delete(peer.peerId);
    const nowMs = this.#nowMs();
    for (const [peerId, { untilMs }] of this.#gone) {
      if (untilMs > nowMs) break;
      this.#gone.delete(peerId);
    }
    this.#gone.set(peer.peerId, { peer, untilMs: nowMs + KEEP_MS });
    return true;
  }

  /** Where `viewer` is to dial `peerId`; undefined when nobody knows, or it cannot be dialled. */
  addressOf(peerId: PeerId, viewer: ConnectedPeer | undefined): { readonly address: string; readonly port: number } | undefined {
    const peer = this.#connected.get(peerId) ?? this.#gone.get(peerId)?.peer;
    if (peer === undefined || peer.host.port === 0) return undefined;
    const { address, port } = peer.host;
    if (address !== "") return { address, port };
    // On our own machine, as the viewer sees it.
    const isHere = isLoopback(peer.remoteAddress) && viewer !== undefined && !isLoopback(viewer.remoteAddress);
    return { address: isHere ? viewer.localAddress : peer.remoteAddress, port };
  }

  /** Sends to a peer if it is connected. */
  send(peerId: PeerId, message: SupernodeToPeer): void {
    this.#connected.get(peerId)?.channel.send(message);
  }
}

/** True for 127.0.0.0/8 and ::1, in whatever spelling sockets have. */
export function isLoopback(address: string): boolean {
  return address === "::1" || plainAddress(address).startsWith("127.");
}

/** An IPv4 address as such, not as mapped into IPv6. */
export function plainAddress(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:(?=\d+\.)/, "");
}

/** Longer than the scheduler keeps a place (`disconnectedPeerMs`). */
const KEEP_MS = 60_000;
