/** A process's links to other processes: dials, keeps one for each pair of peers, and sends what a turn says in one packet. Knows of no task. */
import type { PeerId } from "../src/protocol/ids.ts";
import type { LinkId } from "../src/swarm/index.ts";
import type { Host } from "./host.ts";
import { type LinkMessage, messageBytes, SimLink } from "./link-model.ts";
import type { Connection, Network } from "./network.ts";

/** How long a dial waits for the other process's handshake. As in the real link table. */
const HANDSHAKE_US = 5_000_000;

/** Whether others can open links to a process: it says no; or it says yes, and they cannot. */
export type Reach = "open" | "closed" | "walled";

/** The process that has the links, and hears what becomes of them. */
export interface LinkOwner {
  readonly peerId: PeerId;
  readonly host: Host;
  readonly gone: boolean;
  readonly reach: Reach;
  readonly links: PeerLinks;
  /** Runs `act` after `delayUs` in this process, unless that is gone by then. */
  soon(delayUs: number, act: () => void): void;
  linkOpened(link: SimLink): void;
  linkClosed(link: SimLink): void;
  unreachable(peerId: PeerId): void;
  messageCame(link: SimLink, message: LinkMessage): void;
  bytesCame(link: SimLink, key: number, bytes: number, last: boolean, corrupt: boolean): void;
}

export class PeerLinks {
  readonly #owner: LinkOwner;
  readonly #network: Network;
  readonly #find: (peerId: PeerId) => LinkOwner | undefined;
  readonly #byId = new Map<LinkId, SimLink>();
  readonly #byPeer = new Map<PeerId, SimLink>();
  readonly #dialling = new Set<PeerId>();
  /** Links with something in their outbox. */
  readonly #unsent: SimLink[] = [];
  #nextLinkId = 1;
  messageCount = 0;
  /** Packets sent: each wakes its receiver once. */
  wakeUpCount = 0;

  constructor(owner: LinkOwner, network: Network, find: (peerId: PeerId) => LinkOwner | undefined) {
    this.#owner = owner;
    this.#network = network;
    this.#find = find;
  }

  get all(): Iterable<SimLink> {
    return this.#byId.values();
  }

  get peerIds(): readonly PeerId[] {
    return [...this.#byPeer.keys()];
  }

  get(linkId: LinkId): SimLink | undefined {
    return this.#byId.get(linkId);
  }

  to(peerId: PeerId): SimLink | undefined {
    return this.#byPeer.get(peerId);
  }

  /** Opens a link, where none is there or on its way. TCP, upgrade and handshake are three round trips. */
  dial(peerId: PeerId): void {
    if (this.#byPeer.has(peerId) || this.#dialling.has(peerId)) return;
    const owner = this.#owner;
    this.#dialling.add(peerId);
    owner.soon(this.#network.roundTripUs * 3, () => {
      const neighbour = this.#find(peerId);
      // A frozen process's kernel takes the connection, and its handshake never comes.
      const deaf = neighbour !== undefined && !neighbour.gone && (neighbour.host.frozen || neighbour.reach === "walled" || this.#network.isCut(owner.host, neighbour.host));
      if (neighbour === undefined || neighbour.gone || deaf) {
        owner.soon(deaf ? HANDSHAKE_US : 0, () => {
          this.#dialling.delete(peerId);
          if (!this.#byPeer.has(peerId)) owner.unreachable(peerId);
        });
        return;
      }
      this.#dialling.delete(peerId);
      if (this.#keepsFormer(peerId, true) || neighbour.links.#keepsFormer(owner.peerId, false)) return;
      const connection = this.#network.connect<readonly LinkMessage[]>(owner.host, neighbour.host);
      const own = this.#add(connection, 0, peerId);
      const other = neighbour.links.#add(connection, 1, owner.peerId);
      this.#established(own);
      neighbour.links.#established(other);
    });
  }

  /** Breaks the link to a peer: both ends hear of it after `afterUs`. */
  break(peerId: PeerId, afterUs: number): void {
    this.#byPeer.get(peerId)?.connection.close([afterUs, afterUs]);
  }

  /** Closes the links to those who cannot be reached: both ends have been silent for each other. */
  breakCut(): void {
    for (const { peerId, connection } of this.#byId.values()) {
      const other = this.#find(peerId);
      if (other !== undefined && this.#network.isCut(this.#owner.host, other.host)) connection.close([0, 0]);
    }
  }

  /** The path is whole again. */
  resume(): void {
    for (const link of this.#byId.values()) link.connection.resume();
  }

  /** The process dies: the others hear of it after `afterUs`. */
  die(afterUs: number): void {
    for (const link of this.#byId.values()) link.connection.close(link.end === 0 ? [undefined, afterUs] : [afterUs, undefined]);
    this.#byId.clear();
    this.#byPeer.clear();
    this.#dialling.clear();
    this.#unsent.length = 0;
  }

  /** What one turn says to one neighbour goes in one packet, at the next flush. */
  send(link: SimLink, message: LinkMessage): void {
    this.messageCount++;
    link.outbox.push(message);
    if (link.outbox.length === 1) this.#unsent.push(link);
  }

  flush(): void {
    for (const link of this.#unsent) {
      const { outbox } = link;
      link.outbox = [];
      this.wakeUpCount++;
      let bytes = 0;
      for (const message of outbox) bytes += messageBytes(message);
      link.connection.send(link.end, outbox, bytes);
    }
    this.#unsent.length = 0;
  }

  /** Both dialled: the link that the smaller id dialled stays, on both sides. A second one of the same side is newer. */
  #keepsFormer(peerId: PeerId, dialled: boolean): boolean {
    const former = this.#byPeer.get(peerId);
    return former !== undefined && (former.end === 0) !== dialled && (former.end === 0) === this.#owner.peerId < peerId;
  }

  #add(connection: Connection<readonly LinkMessage[]>, end: 0 | 1, peerId: PeerId): SimLink {
    const former = this.#byPeer.get(peerId);
    if (former !== undefined) {
      former.connection.close(former.end === 0 ? [undefined, this.#network.options.delayUs] : [this.#network.options.delayUs, undefined]);
      this.#closed(former);
    }
    const link = new SimLink(this.#nextLinkId++, end, peerId, connection);
    this.#byId.set(link.linkId, link);
    this.#byPeer.set(peerId, link);
    return link;
  }

  #established(link: SimLink): void {
    link.connection.listen(link.end, {
      message: (messages) => {
        for (const message of messages) if (this.#byId.get(link.linkId) === link) this.#owner.messageCame(link, message);
      },
      bytes: (key, bytes, last, corrupt) => this.#owner.bytesCame(link, key, bytes, last, corrupt),
      closed: () => this.#closed(link),
    });
    this.#owner.linkOpened(link);
  }

  #closed(link: SimLink): void {
    if (this.#byId.get(link.linkId) !== link) return;
    this.#byId.delete(link.linkId);
    this.#byPeer.delete(link.peerId);
    this.#owner.linkClosed(link);
  }
}
