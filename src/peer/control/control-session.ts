/** One control connection as the peer opens it: HTTP upgrade, handshake, registration; then messages both ways. */
import { randomBytes } from "node:crypto";
import { type ClientRequest, request } from "node:http";
import { request as requestByTls } from "node:https";
import type { Socket } from "node:net";
import type { Logger } from "pino";
import { AppError } from "../../base/errors.ts";
import {
  CONTROL_PROTOCOL,
  type HostInfo,
  type PeerToSupernode,
  type SupernodeToPeer,
  supernodeToPeerSchema,
} from "../../protocol/control-messages.ts";
import type { PeerId } from "../../protocol/ids.ts";
import { ControlChannel, parseMessage } from "./control-channel.ts";
import { DialerHandshake, parseHandshakeStep } from "../membership/handshake.ts";
import { isPlainRefusal } from "../membership/plain-refusal.ts";
import type { SiteTls } from "../membership/site-tls.ts";
import { channelBinding, plainRefused, refusedCertificate, tlsFailure } from "../membership/tls-connection.ts";

/** What the control connection logs with; pino's own shape. */
export type ControlLog = Pick<Logger, "debug" | "info" | "warn" | "error">;

export interface ControlSessionOptions {
  readonly supernode: { readonly host: string; readonly port: number };
  readonly token: string | undefined;
  /** Undefined: in the clear. */
  readonly tls?: SiteTls | undefined;
  readonly peerId: PeerId;
  readonly host: HostInfo;
  /** From the first SYN until the supernode's machine takes the connection. */
  readonly reachMs: number;
  /** From then to the answer to `register`. */
  readonly answerMs: number;
  /** The supernode's machine has taken the connection. */
  readonly onReached?: () => void;
  readonly signal: AbortSignal;
  /** The session is open; called before any message. */
  readonly onOpen: (session: ControlSession, registered: RegisteredMessage) => void;
  /** Messages after that. What it throws ends the connection. */
  readonly onMessage: (message: SupernodeToPeer) => void;
  /** Called once, and only for a session that was opened. */
  readonly onEnd: (error: AppError | undefined) => void;
}

export interface ControlSession {
  send(message: PeerToSupernode): void;
  close(): void;
}

export type RegisteredMessage = Extract<SupernodeToPeer, { type: "registered" }>;

/**
 * Connects, proves the join token, registers.
 * @throws AppError SUPERNODE_UNREACHABLE, TIMEOUT, ABORTED (retriable), TLS_FAILED, TOKEN_REFUSED, VERSION_UNSUPPORTED,
 *   PROTOCOL_VIOLATION
 */
export async function openControlSession(options: ControlSessionOptions): Promise<void> {
  const timeout = new AbortController();
  let limitMs = options.reachMs;
  let timer = setTimeout(() => timeout.abort(), limitMs);
  const reached = (): void => {
    clearTimeout(timer);
    limitMs = options.answerMs;
    timer = setTimeout(() => timeout.abort(), limitMs);
    options.onReached?.();
  };
  const signal = AbortSignal.any([timeout.signal, options.signal]);
  try {
    const { socket, head } = await upgrade(options, signal, reached);
    await register(socket, head, options, signal);
  } catch (error) {
    const { host, port } = options.supernode;
    if (options.signal.aborted) throw new AppError("ABORTED", "connecting to the supernode was given up", { cause: error });
    if (timeout.signal.aborted) {
      const message = `the supernode ${host}:${port} did not answer within ${limitMs} ms`;
      throw new AppError("TIMEOUT", message, { cause: error });
    }
    if (error instanceof AppError) throw error;
    const failure = options.tls === undefined ? undefined : tlsFailure(error, `the supernode ${host}:${port}`);
    if (failure !== undefined) throw failure;
    const why = error instanceof Error ? error.message : String(error);
    throw new AppError("SUPERNODE_UNREACHABLE", `cannot reach the supernode ${host}:${port}: ${why}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

function upgrade(
  { supernode, tls }: ControlSessionOptions,
  signal: AbortSignal,
  reached: () => void,
): Promise<{ readonly socket: Socket; readonly head: Buffer }> {
  return new Promise((resolve, reject) => {
    const { host, port } = supernode;
    const question = { host, port, path: "/v1/control", headers: { connection: "Upgrade", upgrade: CONTROL_PROTOCOL }, agent: false, signal } as const;
    const asked: ClientRequest = tls === undefined ? request(question) : requestByTls({ ...question, ...tls.toSupernode(host) });
    asked.on("socket", (socket) => socket.once("connect", reached));
    asked.on("upgrade", (_response, socket: Socket, head) => resolve({ socket, head }));
    asked.on("response", (response) => {
      response.destroy();
      if (isPlainRefusal(response.statusCode, response.headers.upgrade)) return reject(plainRefused(`the supernode ${host}:${port}`));
      if (tls !== undefined && response.statusCode === 403) return reject(refusedCertificate(`the supernode ${host}:${port}`, response.statusMessage));
      const isBusy = response.statusCode === 503;
      const message = isBusy
        ? `the supernode ${host}:${port} takes no more peers now; its log says why`
        : `${host}:${port} answered ${response.statusCode}; is it a supernode of this version?`;
      return reject(new AppError(isBusy ? "SUPERNODE_UNREACHABLE" : "PROTOCOL_VIOLATION", message));
    });
    asked.on("error", reject);
    asked.end();
  });
}

/** Handshake, then `register`; resolves after `onOpen`. */
function register(
  socket: Socket,
  head: Buffer,
  options: ControlSessionOptions,
  signal: AbortSignal,
): Promise<void> {
  socket.setNoDelay(true);
  socket.setKeepAlive(true, 10_000);
  return new Promise((resolve, reject) => {
    const { token, peerId } = options;
    const handshake = new DialerHandshake({ token, ownPeerId: peerId, randomBytes, binding: channelBinding(socket) });
    let phase: "challenge" | "welcome" | "registering" | "open" = "challenge";
    const channel = new ControlChannel(socket, head, {
      onFrame: (value) => {
        if (phase === "challenge") {
          channel.send(handshake.onChallenge(parseHandshakeStep(value)));
          phase = "welcome";
        } else if (phase === "welcome") {
          handshake.onWelcome(parseHandshakeStep(value));
          channel.send({ type: "register", host: options.host } satisfies PeerToSupernode);
          phase = "registering";
        } else if (phase === "registering") {
          const registered = parseMessage(supernodeToPeerSchema, value);
          if (registered.type !== "registered") throw outOfTurn(registered.type);
          signal.removeEventListener("abort", onAbort);
          phase = "open";
          options.onOpen(channel, registered);
          resolve();
        } else {
          options.onMessage(parseMessage(supernodeToPeerSchema, value));
        }
      },
      onEnd: (error) => {
        signal.removeEventListener("abort", onAbort);
        if (phase === "open") options.onEnd(error);
        else reject(error ?? new AppError("SUPERNODE_UNREACHABLE", "the supernode closed the connection"));
      },
    });
    const onAbort = (): void => channel.fail(new AppError("ABORTED", "connecting was given up"));
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
  });
}

function outOfTurn(type: string): AppError {
  return new AppError("PROTOCOL_VIOLATION", `the supernode said ${type} before registered`);
}
