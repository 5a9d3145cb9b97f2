/** All links of a peer: dialled or accepted, at most one per other peer, silent ones ended. */
import type { IncomingMessage } from "node:http";
import { connect, type NetConnectOpts, type Socket } from "node:net";
import { connect as connectByTls } from "node:tls";
import { toAppError } from "../../base/errors.ts";
import type { HandshakeStep } from "../../protocol/handshake.ts";
import type { PeerId } from "../../protocol/ids.ts";
import { LINK_PROTOCOL, type LinkFrame } from "../../protocol/link-frames.ts";
import { DialerHandshake, type HandshakeConfig, ListenerHandshake, parseHandshakeStep } from "../membership/handshake.ts";
import { isPlainRefusal } from "../membership/plain-refusal.ts";
import type { SiteTls } from "../membership/site-tls.ts";
import { channelBinding, plainRefused, strangerAnswer, strangerReason, tlsFailure } from "../membership/tls-connection.ts";
import { refuse } from "../refuse-upgrade.ts";
import type { LinkId } from "../../swarm/index.ts";
import { Link, type LinkDeps, type LinkEvents } from "./link.ts";

const CONNECT_MS = 3_000;
const HANDSHAKE_MS = 5_000;
/** A link that says nothing for PING_AFTER_MS is asked; for SILENT_MS it is dead. */
const PING_AFTER_MS = 2_000;
const SILENT_MS = 6_000;
const LOOK_MS = 1_000;
/** Links a peer accepts at most: 4 tasks' worth of neighbours beyond any sensible mesh. */
const LINK_COUNT_MAX = 4_096;
const HTTP_HEAD_BYTES_MAX = 8 * 1024;

export interface LinkTableEvents extends Omit<LinkEvents, "closed"> {
  opened(link: Link, peerId: PeerId): void;
  closed(link: Link, peerId: PeerId, why: string): void;
  /** A dial or its handshake failed. */
  unreachable(peerId: PeerId, why: string): void;
}

export interface LinkTableDeps extends Omit<LinkDeps, "events"> {
  readonly handshake: HandshakeConfig;
  /** Undefined: in the clear. */
  readonly tls?: SiteTls | undefined;
  readonly events: LinkTableEvents;
}

export class LinkTable {
  readonly #deps: LinkTableDeps;
  readonly #linkDeps: LinkDeps;
  readonly #byPeer = new Map<PeerId, Link>();
  readonly #byId = new Map<LinkId, Link>();
  readonly #all = new Set<Link>();
  readonly #dialling = new Set<PeerId>();
  readonly #handshakes = new Map<Link, { readonly take: (step: HandshakeStep) => void; readonly timer: NodeJS.Timeout }>();
  readonly #timer: NodeJS.Timeout;
  #nextLinkId = 1;

  constructor(deps: LinkTableDeps) {
    this.#deps = deps;
    const { events } = deps;
    this.#linkDeps = {
      ...deps,
      events: {
        frame: (link, frame) => this.#frame(link, frame),
        payloadTarget: (...values) => events.payloadTarget(...values),
        payload: (...values) => events.payload(...values),
        closed: (link, why) => this.#closed(link, why),
      },
    };
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    this.#timer.unref();
  }

  get(peerId: PeerId): Link | undefined {
    return this.#byPeer.get(peerId);
  }

  byId(linkId: LinkId): Link | undefined {
    return this.#byId.get(linkId);
  }

  get count(): number {
    return this.#byPeer.size;
  }

  [Symbol.iterator](): Iterator<Link> {
    return this.#byPeer.values();
  }

  /** Opens a link unless there is one, or one is being opened. The outcome is an event. */
  dial(peerId: PeerId, host: string, port: number): void {
    if (this.#byPeer.has(peerId) || this.#dialling.has(peerId) || peerId === this.#deps.handshake.ownPeerId) return;
    this.#dialling.add(peerId);
    const link = new Link(this.#nextLinkId++, true, this.#linkDeps);
    this.#all.add(link);
    link.peerId = peerId;
    const at = `${host}:${port}`;
    let head: Uint8Array = new Uint8Array(0);
    let upgraded = false;
    const options = {
      host,
      port,
      onread: link.onread((chunk) => {
        if (upgraded) return link.received(chunk);
        const text = Buffer.concat([head, chunk]);
        const end = text.indexOf("\r\n\r\n");
        if (end < 0) {
          head = text;
          if (head.length > HTTP_HEAD_BYTES_MAX) link.close("its answer is no HTTP");
          return;
        }
        const refusal = refusalIn(text.toString("latin1", 0, end), at);
        if (refusal !== undefined) return link.close(refusal);
        upgraded = true;
        if (text.length > end + 4) link.received(text.subarray(end + 4));
      }),
    };
    const { tls } = this.#deps;
    const socket = tls === undefined ? connect(options as unknown as NetConnectOpts) : connectByTls({ ...options, ...tls.toPeer() });
    socket.once("error", (error) => link.close(tlsFailure(error, at)?.message ?? error.message));
    let dialer: DialerHandshake | undefined;
    this.#await(link, CONNECT_MS + HANDSHAKE_MS, (step) => {
      dialer ??= new DialerHandshake({ ...this.#deps.handshake, binding: channelBinding(socket) });
      if (step.type === "challenge") {
        this.#say(link, dialer.onChallenge(step));
        return;
      }
      const provenId = dialer.onWelcome(step);
      if (provenId !== peerId) throw new Error(`it is ${provenId}, not ${peerId}`);
      this.#established(link, provenId);
    });
    socket.setTimeout(CONNECT_MS, () => {
      if (socket.connecting) link.close(`no connection to ${at} within ${CONNECT_MS} ms`);
    });
    socket.once(tls === undefined ? "connect" : "secureConnect", () => {
      socket.setTimeout(0);
      socket.write(
        `GET /v1/link HTTP/1.1\r\nHost: ${at}\r\nConnection: Upgrade\r\nUpgrade: ${LINK_PROTOCOL}\r\n\r\n`,
      );
    });
    link.attach(socket);
  }

  /** Takes an upgrade request for a link over from the HTTP server. */
  accept(request: IncomingMessage, socket: Socket, head: Uint8Array): void {
    const stranger = strangerReason(socket);
    if (stranger !== undefined) {
      refuse(socket, strangerAnswer(stranger));
      return;
    }
    if (request.headers.upgrade !== LINK_PROTOCOL || this.#all.size >= LINK_COUNT_MAX) {
      const status = request.headers.upgrade === LINK_PROTOCOL ? "503 Service Unavailable" : "426 Upgrade Required";
      refuse(socket, `HTTP/1.1 ${status}\r\nUpgrade: ${LINK_PROTOCOL}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${LINK_PROTOCOL}\r\n\r\n`);
    const link = new Link(this.#nextLinkId++, false, this.#linkDeps);
    this.#all.add(link);
    const listener = new ListenerHandshake({ ...this.#deps.handshake, binding: channelBinding(socket) });
    this.#await(link, HANDSHAKE_MS, (step) => {
      const answer = listener.answer(step);
      this.#say(link, answer.reply);
      if (answer.peerId === undefined) {
        // The refusal should arrive before the end does.
        setImmediate(() => link.close(answer.reply.type === "refused" ? answer.reply.message : "refused"));
        return;
      }
      this.#established(link, answer.peerId);
    });
    link.adopt(socket, head);
    this.#say(link, listener.challenge());
  }

  close(): void {
    clearInterval(this.#timer);
    for (const link of [...this.#all]) link.close("this peer stops");
  }

  #await(link: Link, limitMs: number, take: (step: HandshakeStep) => void): void {
    const timer = setTimeout(() => link.close("the handshake took too long"), limitMs);
    this.#handshakes.set(link, { take, timer });
  }

  #say(link: Link, step: HandshakeStep): void {
    link.send({ type: "handshake", json: Buffer.from(JSON.stringify(step)) });
  }

  #frame(link: Link, frame: LinkFrame): void {
    const handshake = this.#handshakes.get(link);
    if (handshake !== undefined) {
      try {
        if (frame.type !== "handshake") throw new Error(`a ${frame.type} frame came before the handshake`);
        handshake.take(parseHandshakeStep(JSON.parse(Buffer.from(frame.json).toString())));
      } catch (thrown) {
        link.close(toAppError(thrown).message);
      }
      return;
    }
    switch (frame.type) {
      case "handshake":
        return link.close("a handshake frame came after the handshake");
      case "ping":
        return link.send({ type: "pong" });
      case "pong":
        return;
      default:
        this.#deps.events.frame(link, frame);
    }
  }

  #established(link: Link, peerId: PeerId): void {
    clearTimeout(this.#handshakes.get(link)?.timer);
    this.#handshakes.delete(link);
    this.#dialling.delete(peerId);
    link.peerId = peerId;
    const former = this.#byPeer.get(peerId);
    if (former !== undefined) {
      // Both dialled: the link that the smaller id dialled stays, on both sides. A second one of the same side is newer.
      const keepDialled = this.#deps.handshake.ownPeerId < peerId;
      if (former.dialled !== link.dialled && former.dialled === keepDialled) {
        link.close("there is a link already");
        return;
      }
      former.close("a newer link took its place");
    }
    this.#byPeer.set(peerId, link);
    this.#byId.set(link.linkId, link);
    this.#deps.events.opened(link, peerId);
  }

  #closed(link: Link, why: string): void {
    this.#all.delete(link);
    const handshake = this.#handshakes.get(link);
    if (handshake !== undefined) {
      clearTimeout(handshake.timer);
      this.#handshakes.delete(link);
      if (link.dialled && link.peerId !== undefined) {
        this.#dialling.delete(link.peerId);
        if (!this.#byPeer.has(link.peerId)) this.#deps.events.unreachable(link.peerId, why);
      }
      return;
    }
    const { peerId } = link;
    if (peerId === undefined || this.#byPeer.get(peerId) !== link) return;
    this.#byPeer.delete(peerId);
    this.#byId.delete(link.linkId);
    this.#deps.events.closed(link, peerId, why);
  }

  #look(): void {
    const nowMs = this.#deps.nowMs();
    for (const link of this.#byPeer.values()) {
      if (link.isHeld) {
        // It cannot be heard; but the other side shall hear us.
        link.send({ type: "ping" });
        continue;
      }
      const silentMs = nowMs - link.heardMs;
      if (silentMs >= SILENT_MS) link.close(`it was silent for ${silentMs} ms`);
      else if (silentMs >= PING_AFTER_MS) link.send({ type: "ping" });
    }
  }
}

/** Why the other side does not go over to a link; undefined: it does. */
function refusalIn(head: string, at: string): string | undefined {
  const [status = "", ...headers] = head.split("\r\n");
  if (status.startsWith("HTTP/1.1 101 ")) return undefined;
  const upgrade = headers.find((line) => /^upgrade:/i.test(line))?.slice("upgrade:".length).trim();
  if (isPlainRefusal(Number(status.slice(9, 12)), upgrade)) return plainRefused(at).message;
  return `it answered "${status.slice(0, 64)}"`;
}
