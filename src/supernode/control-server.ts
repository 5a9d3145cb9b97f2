/**
 * The supernode's end of the control connections: proof of the join token, registration, then messages.
 *
 * Whatever a connection sends, at worst that connection ends.
 */
import { randomBytes } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { isDeepStrictEqual } from "node:util";
import type { Logger } from "pino";
import { AppError } from "../base/errors.ts";
import { ControlChannel, parseMessage } from "../peer/control/control-channel.ts";
import { ListenerHandshake, parseHandshakeStep } from "../peer/membership/handshake.ts";
import { refuse } from "../peer/refuse-upgrade.ts";
import { channelBinding, strangerAnswer, strangerReason } from "../peer/membership/tls-connection.ts";
import {
  CONTROL_LENGTH_BYTES_MAX,
  CONTROL_PROTOCOL,
  type HostInfo,
  type PeerToSupernode,
  peerToSupernodeSchema,
} from "../protocol/control-messages.ts";
import type { PeerId } from "../protocol/ids.ts";
import { type IpNetwork, isWithin, parseAddress } from "./ip-network.ts";
import type { PlaceMap } from "./place-map.ts";
import { type ConnectedPeer, type PeerTable, plainAddress } from "./peer-table.ts";

/** A message of a registered peer. */
export type PeerMessage = Exclude<PeerToSupernode, { type: "register" }>;

export interface ControlServerDeps {
  readonly token: string | undefined;
  readonly ownPeerId: PeerId;
  /** SPKI DER. */
  readonly publicKey: Uint8Array;
  readonly peers: PeerTable;
  readonly placeMap: Pick<PlaceMap, "placeOf">;
  /** Networks of keepers. */
  readonly keepers: readonly IpNetwork[];
  readonly log: Pick<Logger, "info" | "warn" | "debug">;
  readonly onConnected: (peer: ConnectedPeer) => void;
  readonly onDisconnected: (peer: ConnectedPeer) => void;
  /** May throw AppError: the connection ends. */
  readonly onMessage: (peer: ConnectedPeer, message: PeerMessage) => void;
  /** Control connections at a time. */
  readonly connectionCountMax: number;
  /** The time that tickets are held against. Default: the machine's. */
  readonly unixMs?: () => number;
  /** From the upgrade to `register`. Default 5,000. */
  readonly handshakeMs?: number;
}

export class ControlServer {
  readonly #deps: ControlServerDeps;
  readonly #channels = new Set<ControlChannel>();
  #isClosed = false;
  /** One line in the log when it begins, not one per peer. */
  #isFullTold = false;

  constructor(deps: ControlServerDeps) {
    this.#deps = deps;
  }

  /** Takes over an upgraded socket. @returns false when the request is not for it */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean {
    if (request.url !== "/v1/control") return false;
    socket.on("error", () => undefined);
    const stranger = strangerReason(socket);
    if (stranger !== undefined) {
      this.#deps.log.warn({ remoteAddress: request.socket.remoteAddress }, `refused a peer: its TLS certificate: ${stranger}`);
      refuse(socket, strangerAnswer(stranger));
    } else if (request.headers.upgrade !== CONTROL_PROTOCOL) {
      refuse(socket, `HTTP/1.1 426 Upgrade Required\r\nUpgrade: ${CONTROL_PROTOCOL}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    } else if (this.#isClosed || this.#isFull()) {
      refuse(socket, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    } else {
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${CONTROL_PROTOCOL}\r\n\r\n`);
      this.#accept(socket as Socket, head);
    }
    return true;
  }

  /** Ends all connections; peers come back to whoever listens next. */
  close(): void {
    this.#isClosed = true;
    for (const channel of this.#channels) channel.close();
  }

  /**
   * Ends the connections of those who by now stand elsewhere than they were told. They come back within a tenth of a
   * second with all that they hold, and are told then, as after any loss of the connection.
   */
  endMoved(): void {
    const { peers, placeMap, log } = this.#deps;
    const moved: ConnectedPeer[] = [];
    for (const peer of peers) {
      const place = placeMap.placeOf(peer.host.labels, peer.remoteAddress);
      if (isDeepStrictEqual(place.topology, peer.place.topology)) peer.place = place;
      else moved.push(peer);
    }
    for (const { channel } of moved) channel.close();
    if (moved.length > 0) log.info({ peerCount: moved.length }, "peers stand elsewhere by the new configuration: they register again");
  }

  #isFull(): boolean {
    const { connectionCountMax, log } = this.#deps;
    if (this.#channels.size < connectionCountMax) {
      this.#isFullTold &&= this.#channels.size > connectionCountMax * 0.9;
      return false;
    }
    if (!this.#isFullTold) log.warn({ connectionCountMax }, "no more peers are taken: this many are connected; a higher limit of open files (LimitNOFILE, ulimit -n) lets up to 20,000 in");
    this.#isFullTold = true;
    return true;
  }

  #accept(socket: Socket, head: Buffer): void {
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 10_000);
    socket.setTimeout(0);
    const { token, ownPeerId, peers, log, onMessage, onDisconnected } = this.#deps;
    const handshake = new ListenerHandshake({ token, ownPeerId, randomBytes, binding: channelBinding(socket) });
    let peerId: PeerId | undefined;
    let peer: ConnectedPeer | undefined;
    const remoteAddress = plainAddress(socket.remoteAddress);
    const localAddress = plainAddress(socket.localAddress);

    const onFrame = (value: unknown): void => {
      if (peerId === undefined) {
        const { reply, peerId: proven } = handshake.answer(parseHandshakeStep(value));
        channel.send(reply);
        if (reply.type === "refused") {
          log.warn({ remoteAddress, code: reply.code }, `refused a peer: ${reply.message}`);
          channel.close();
        } else if (proven === ownPeerId) {
          throw new AppError("PROTOCOL_VIOLATION", "a peer calls itself by our id");
        }
        peerId = proven;
        return;
      }
      const message = parseMessage(peerToSupernodeSchema, value);
      if (message.type === "register") {
        if (peer !== undefined) throw new AppError("PROTOCOL_VIOLATION", "the peer registered twice");
        clearTimeout(deadline);
        channel.allowFrames(CONTROL_LENGTH_BYTES_MAX);
        const place = this.#deps.placeMap.placeOf(message.host.labels, remoteAddress);
        const keeper = this.#isKeeper(message.host, remoteAddress);
        peer = { peerId, host: message.host, place, keeper, remoteAddress, localAddress, connectedUnixMs: Date.now(), channel };
        this.#register(peer);
      } else if (peer === undefined) {
        throw new AppError("PROTOCOL_VIOLATION", `the peer said ${message.type} before register`);
      } else if (peers.get(peerId) === peer) {
        onMessage(peer, message);
      }
    };
    const channel = new ControlChannel(socket, head, {
      frameLengthBytesMax: STRANGER_FRAME_BYTES_MAX,
      onFrame,
      onEnd: (error) => {
        clearTimeout(deadline);
        this.#channels.delete(channel);
        if (error !== undefined) log.info({ peerId, remoteAddress, code: error.code }, `a control connection ended: ${error.message}`);
        if (peer !== undefined && peers.remove(peer)) onDisconnected(peer);
      },
    });
    this.#channels.add(channel);
    const deadline = setTimeout(
      () => channel.fail(new AppError("TIMEOUT", "the peer did not introduce itself in time")),
      this.#deps.handshakeMs ?? 5_000,
    );
    channel.send(handshake.challenge());
  }

  #isKeeper({ program, keeper }: HostInfo, remoteAddress: string): boolean {
    if (program !== "dfdaemon" || keeper !== true) return false;
    const address = parseAddress(remoteAddress);
    const isAllowed = address !== undefined && this.#deps.keepers.some((network) => isWithin(address, network));
    if (!isAllowed) this.#deps.log.warn({ remoteAddress }, "a dfdaemon wants to be a keeper, and `keepers` does not have its address: it is a peer like others");
    return isAllowed;
  }

  #register(peer: ConnectedPeer): void {
    const { peers, publicKey, onConnected, onDisconnected } = this.#deps;
    const before = peers.add(peer);
    if (before !== undefined) {
      onDisconnected(before);
      before.channel.close();
    }
    const address = peer.host.address === "" ? peer.remoteAddress : peer.host.address;
    peer.channel.send({ type: "registered", publicKey: Buffer.from(publicKey).toString("base64"), address, unixMs: (this.#deps.unixMs ?? Date.now)(), place: peer.place.topology });
    onConnected(peer);
  }
}

/** A handshake step and a registration are far smaller. */
const STRANGER_FRAME_BYTES_MAX = 64 * 1024;
