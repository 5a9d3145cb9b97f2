/**
 * A peer's connection to the supernode: kept up for ever, over the supernodes in their order.
 *
 * Joins are questions with an answer; the rest comes as callbacks. When the connection is lost, joins in flight are
 * asked again after a quick reconnect, and `onRegistered` lets the peer join its open tasks again.
 */
import { AppError, isErrorCode } from "../../base/errors.ts";
import type {
  HostInfo,
  Neighbour,
  PeerToSupernode,
  Source,
  SupernodeToPeer,
} from "../../protocol/control-messages.ts";
import type { PeerId, TaskId } from "../../protocol/ids.ts";
import type { Imports, Topology } from "../../protocol/topology.ts";
import type { Lease } from "../lease-reader.ts";
import type { SiteTls } from "../membership/site-tls.ts";
import type { Slice } from "../leased-budget.ts";
import { type ControlLog, type ControlSession, openControlSession, type RegisteredMessage } from "./control-session.ts";

export type JoinedMessage = Extract<SupernodeToPeer, { type: "joined" }>;
export type TaskFailedMessage = Extract<SupernodeToPeer, { type: "taskFailed" }>;

/** What the supernode says unasked, in the order of arrival; never from within a call of the client. */
export interface ControlHandlers {
  /**
   * The connection is up (again). `publicKey`: SPKI DER; `address`: ours as the supernode sees it.
   * @param unixMs the supernode's wall clock
   * @param place where we stand by its word; undefined: it does not say
   */
  readonly onRegistered: (publicKey: Uint8Array, address: string, unixMs: number, place: Topology | undefined) => void;
  readonly onNeighbours: (taskId: TaskId, add: readonly Neighbour[], drop: readonly PeerId[]) => void;
  /** We register as keeper, and somebody takes this file. */
  readonly onInvited?: (taskId: TaskId, url: string) => void;
  /** A join was answered that had been given up: the supernode counts on us. Default: it is told not to. */
  readonly onUnwanted?: (taskId: TaskId) => void;
  readonly onImports: (taskId: TaskId, imports: readonly Imports[]) => void;
  readonly onLength: (taskId: TaskId, lengthBytes: number, signature: Uint8Array) => void;
  readonly onTaskFailed: (message: TaskFailedMessage) => void;
  /** Pieces to be read from the origin by this peer, for all. */
  readonly onLease: (lease: Lease) => void;
  readonly onLeaseRevoked: (leaseId: number) => void;
  readonly onDisconnected: (error: AppError | undefined) => void;
}

export interface ControlClientOptions {
  /** Tried by falling weight (1 when absent), equal ones in this order, from the first after every failure. At least one. */
  readonly supernodes: readonly SupernodeChoice[];
  /** Undefined: insecure mode. */
  readonly token: string | undefined;
  /** Undefined: in the clear. */
  readonly tls?: SiteTls | undefined;
  readonly peerId: PeerId;
  readonly host: HostInfo;
  readonly log: ControlLog;
  readonly handlers: ControlHandlers;
  /** Uniform in [0, 1): jitter. */
  readonly random: () => number;
  /** How long a join waits for a connection when every supernode refuses, or cannot be found. Default 1,000. */
  readonly connectTimeoutMs?: number;
  /** How long while one of them has yet to answer: it may only be busy. Default 5,000, or the other when that is longer. */
  readonly pendingTimeoutMs?: number;
}

interface SupernodeChoice {
  readonly host: string;
  readonly port: number;
  readonly weight?: number;
}

export interface JoinOptions {
  /** With `have`: the task as this peer knows it, after a restart or a reconnect. */
  readonly taskId?: TaskId;
  /** Pieces held, as PieceSet.toBytes. */
  readonly have?: Uint8Array;
  readonly download: boolean;
  readonly signal: AbortSignal;
  /** Called with the answer before any later message is, as the promise is too late to tell what was said first. */
  readonly onJoined?: (joined: JoinedMessage) => void;
}

interface PendingJoin {
  readonly message: Extract<PeerToSupernode, { type: "join" }>;
  readonly resolve: (joined: JoinedMessage) => void;
  readonly reject: (error: AppError) => void;
}

/** Keeps one control connection. Connects from the constructor on, until `close`. */
export class ControlClient {
  readonly #options: ControlClientOptions;
  readonly #supernodes: readonly SupernodeChoice[];
  readonly #connectTimeoutMs: number;
  readonly #pendingTimeoutMs: number;
  /** Those whose last attempt was answered by a refusal, of whatever kind. */
  readonly #refused = new Set<SupernodeChoice>();
  readonly #closing = new AbortController();
  readonly #joins = new Map<number, PendingJoin>();
  /** Of origins' budgets: slices asked for, by request. */
  readonly #slices = new Map<number, (slice: Slice | undefined) => void>();
  /** Tasks left of late, and when: what is said while a connection breaks may never arrive, and the supernode would count on us for ever. */
  readonly #left = new Map<TaskId, number>();
  #session: ControlSession | undefined;
  #registeredAt: SupernodeChoice | undefined;
  /** When the last connection ended. */
  #lostMs = 0;
  #lastError: AppError | undefined;
  /** In the last round one did not know our token, and none took us. */
  #tokenRefusal: AppError | undefined;
  /** One of this round does not; the next one may. */
  #roundRefusal: AppError | undefined;
  #nextRequestId = 1;
  #retry: NodeJS.Timeout | undefined;
  /** Runs while there is no connection: when it fires, nobody waits for one any more. */
  #grace: NodeJS.Timeout | undefined;
  /** `connectTimeoutMs` is over: refused by all, nobody waits any longer. */
  #isConnectTimeOver = false;
  #graceOver = false;
  #failedRounds = 0;
  /** Rounds one after the other in which somebody took the connection and did not answer in time. */
  #slowRounds = 0;

  constructor(options: ControlClientOptions) {
    this.#options = options;
    this.#supernodes = options.supernodes.toSorted((left, right) => (right.weight ?? 1) - (left.weight ?? 1));
    this.#connectTimeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    this.#pendingTimeoutMs = Math.max(options.pendingTimeoutMs ?? PENDING_TIMEOUT_MS, this.#connectTimeoutMs);
    this.#startGrace();
    void this.#connect();
  }

  /** Where we are registered, as far as this side knows. */
  get supernode(): { readonly host: string; readonly port: number } | undefined {
    return this.#session === undefined ? undefined : this.#registeredAt;
  }

  /** Registered at a supernode, as far as this side knows. */
  get connected(): boolean {
    return this.#session !== undefined;
  }

  /**
   * Takes part in a task.
   *
   * Waits for a connection as `connectTimeoutMs` and `pendingTimeoutMs` say; the answer itself may take as long as the origin does.
   * @throws AppError SUPERNODE_UNREACHABLE (retriable), TOKEN_REFUSED, TIMEOUT, ABORTED, SHUTTING_DOWN, or what the
   *   supernode says with its details: any code of Origin.stat
   */
  join(source: Source, { taskId, have, download, signal, onJoined }: JoinOptions): Promise<JoinedMessage> {
    const unreachable = this.#unreachable();
    if (unreachable !== undefined) return Promise.reject(unreachable);
    if (signal.aborted) return Promise.reject(new AppError("ABORTED", "the join was given up"));
    const requestId = this.#nextRequestId++;
    const message: PendingJoin["message"] = { type: "join", requestId, source, download };
    if (taskId !== undefined) message.taskId = taskId;
    if (have !== undefined) message.have = Buffer.from(have).toString("base64");
    return new Promise((resolve, reject) => {
      const done = (): void => {
        this.#joins.delete(requestId);
        clearTimeout(timeout);
        signal.removeEventListener("abort", onAbort);
      };
      const fail = (error: AppError): void => (done(), reject(error));
      const onAbort = (): void => fail(new AppError("ABORTED", "the join was given up"));
      const timeout = setTimeout(
        () => fail(new AppError("TIMEOUT", `the supernode did not answer a join within ${JOIN_TIMEOUT_MS} ms`)),
        JOIN_TIMEOUT_MS,
      );
      signal.addEventListener("abort", onAbort);
      this.#joins.set(requestId, { message, resolve: (joined) => (done(), onJoined?.(joined), resolve(joined)), reject: fail });
      this.#ask(message);
    });
  }

  /**
   * A slice of the site's budget for an origin's host, once the supernode has it to give. Undefined: no supernode is
   * connected, or it went away meanwhile. Never rejects.
   */
  leaseOrigin(host: string, kind: "requests" | "bytes"): Promise<Slice | undefined> {
    if (this.#session === undefined) return Promise.resolve(undefined);
    const requestId = this.#nextRequestId++;
    return new Promise((resolve) => {
      this.#slices.set(requestId, resolve);
      this.#session?.send({ type: "originLease", requestId, host, kind });
    });
  }

  /** Sends a message, or drops it when there is no connection: what it says is told again after the next join; a `leave` as soon as there is one. */
  send(message: Exclude<PeerToSupernode, { type: "join" | "register" }>): void {
    if (message.type === "leave") this.#noteLeft(message.taskId);
    this.#session?.send(message);
  }

  #noteLeft(taskId: TaskId): void {
    this.#left.delete(taskId);
    this.#left.set(taskId, performance.now());
    if (this.#left.size > LEFT_COUNT_MAX) this.#left.delete(this.#left.keys().next().value as TaskId);
  }

  /** Before anything is joined again. */
  #leaveAgain(session: ControlSession): void {
    for (const [taskId, leftMs] of this.#left) {
      if (leftMs < this.#lostMs - ARRIVED_MS) this.#left.delete(taskId);
      else session.send({ type: "leave", taskId });
    }
  }

  /** Ends the connection and fails what waits with SHUTTING_DOWN. No callback comes after it. */
  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    clearTimeout(this.#retry);
    clearTimeout(this.#grace);
    this.#session?.close();
    this.#session = undefined;
    this.#endSlices();
    this.#failJoins(new AppError("SHUTTING_DOWN", "this peer is shutting down"));
  }

  async #connect(): Promise<void> {
    let isSlow = false;
    this.#roundRefusal = undefined;
    for (const supernode of this.#supernodes) {
      if (this.#closing.signal.aborted) return;
      this.#refused.delete(supernode);
      let isReached = false;
      try {
        // oxlint-disable-next-line no-await-in-loop -- in order, one at a time
        await this.#open(supernode, () => (isReached = true));
        return;
      } catch (error) {
        if (!(error instanceof AppError)) throw error;
        if (isReached && error.code === "TIMEOUT") isSlow = true;
        if (error.code === "TOKEN_REFUSED") this.#roundRefusal = error;
        if (error.code !== "TIMEOUT") this.#refused.add(supernode);
        this.#onOpenFailed(error, `${supernode.host}:${supernode.port}`);
      }
    }
    this.#tokenRefusal = this.#roundRefusal;
    if (this.#tokenRefusal !== undefined) this.#failJoins(this.#tokenRefusal);
    const boundMs = this.#lastError?.code === "TOKEN_REFUSED" ? REFUSED_RETRY_MS : Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** this.#failedRounds);
    this.#failedRounds++;
    if (isSlow) this.#slowRounds++;
    this.#reconnectAfter((boundMs * (1 + this.#options.random())) / 2);
  }

  #open(supernode: SupernodeChoice, onReached: () => void): Promise<void> {
    const { token, tls, peerId, host, log } = this.#options;
    const reachMs = Math.max(OPEN_TIMEOUT_MS_MIN, this.#pendingTimeoutMs / this.#supernodes.length);
    return openControlSession({
      supernode,
      token,
      tls,
      peerId,
      host,
      reachMs,
      // Given up and dialled anew, it begins at the end of a busy supernode's queue, and what that has spent on it is lost:
      // ten thousand peers that all give up after the same time never come in.
      answerMs: Math.max(reachMs, Math.min(ANSWER_MS_MAX, reachMs * 2 ** this.#slowRounds)),
      onReached,
      signal: this.#closing.signal,
      onOpen: (session, registered) => {
        log.info({ supernode: `${supernode.host}:${supernode.port}`, place: registered.place }, "registered at the supernode");
        this.#registeredAt = supernode;
        this.#onOpen(session, registered);
      },
      onMessage: (message) => this.#onMessage(message),
      onEnd: (error) => this.#onSessionEnd(error),
    });
  }

  #onOpen(session: ControlSession, registered: RegisteredMessage): void {
    this.#session = session;
    this.#lastError = undefined;
    this.#tokenRefusal = undefined;
    this.#roundRefusal = undefined;
    this.#failedRounds = 0;
    this.#slowRounds = 0;
    clearTimeout(this.#grace);
    this.#leaveAgain(session);
    for (const { message } of this.#joins.values()) this.#ask(message);
    this.#options.handlers.onRegistered(Buffer.from(registered.publicKey, "base64"), registered.address, registered.unixMs, registered.place);
  }

  #onOpenFailed(error: AppError, supernode: string): void {
    // One line when it begins, not one per attempt.
    const known = this.#lastError?.code === error.code;
    this.#lastError = error;
    const { log } = this.#options;
    if (!known) log.warn({ supernode, code: error.code }, `cannot register at the supernode: ${error.message}`);
    else log.debug({ supernode, code: error.code }, "still cannot register at the supernode");
    if (this.#isConnectTimeOver) this.#endGraceIfRefused();
  }

  #onSessionEnd(error: AppError | undefined): void {
    this.#session = undefined;
    this.#lostMs = performance.now();
    this.#endSlices();
    if (this.#closing.signal.aborted) return;
    this.#options.log.warn({ code: error?.code }, `connection to the supernode lost: ${error?.message ?? "it closed"}`);
    this.#startGrace();
    this.#reconnectAfter((RETRY_MS_MIN * (1 + this.#options.random())) / 2);
    // A full queue ends the session from within `send`: its caller is not to be called back meanwhile.
    queueMicrotask(() => {
      if (!this.#closing.signal.aborted) this.#options.handlers.onDisconnected(error);
    });
  }

  #onMessage(message: SupernodeToPeer): void {
    const { handlers } = this.#options;
    switch (message.type) {
      case "registered":
        throw new AppError("PROTOCOL_VIOLATION", "the supernode registered us twice");
      case "joined": {
        this.#left.delete(message.task.taskId);
        const pending = this.#joins.get(message.requestId);
        if (pending !== undefined) pending.resolve(message);
        else if (message.ticket === null) return;
        else if (handlers.onUnwanted === undefined) this.send({ type: "leave", taskId: message.task.taskId });
        else handlers.onUnwanted(message.task.taskId);
        return;
      }
      case "joinFailed": {
        const code = isErrorCode(message.code) ? message.code : "INTERNAL";
        this.#joins.get(message.requestId)?.reject(new AppError(code, message.message, { details: message.details }));
        return;
      }
      case "originLeased":
        this.#slices.get(message.requestId)?.({ amount: message.amount, forMs: message.forMs });
        this.#slices.delete(message.requestId);
        return;
      case "neighbours":
        return handlers.onNeighbours(message.taskId, message.add, message.drop);
      case "invite":
        return handlers.onInvited?.(message.taskId, message.url);
      case "imports":
        return handlers.onImports(message.taskId, message.imports);
      case "length":
        return handlers.onLength(message.taskId, message.lengthBytes, Buffer.from(message.signature, "base64"));
      case "taskFailed":
        return handlers.onTaskFailed(message);
      case "lease":
        return handlers.onLease(message);
      case "leaseRevoked":
        return handlers.onLeaseRevoked(message.leaseId);
    }
  }

  #ask(message: PendingJoin["message"]): void {
    try {
      this.#session?.send(message);
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      this.#joins.get(message.requestId)?.reject(error);
    }
  }

  #reconnectAfter(delayMs: number): void {
    if (this.#closing.signal.aborted) return;
    this.#retry = setTimeout(() => void this.#connect(), delayMs);
  }

  #startGrace(): void {
    clearTimeout(this.#grace);
    this.#graceOver = false;
    this.#isConnectTimeOver = false;
    this.#grace = setTimeout(() => {
      this.#isConnectTimeOver = true;
      this.#grace = setTimeout(() => this.#endGrace(), this.#pendingTimeoutMs - this.#connectTimeoutMs);
      this.#endGraceIfRefused();
    }, this.#connectTimeoutMs);
  }

  #endGraceIfRefused(): void {
    if (!this.#graceOver && this.#refused.size === this.#supernodes.length) this.#endGrace();
  }

  #endGrace(): void {
    clearTimeout(this.#grace);
    this.#graceOver = true;
    const error = this.#unreachable();
    if (error !== undefined) this.#failJoins(error);
  }

  /** Why a join cannot even wait for a connection. */
  #unreachable(): AppError | undefined {
    if (this.#closing.signal.aborted) return new AppError("SHUTTING_DOWN", "this peer is shutting down");
    if (this.#session !== undefined) return undefined;
    if (this.#tokenRefusal !== undefined) return this.#tokenRefusal;
    if (!this.#graceOver) return undefined;
    if (this.#roundRefusal !== undefined) return this.#roundRefusal;
    const names = this.#supernodes.map(({ host, port }) => `${host}:${port}`).join(", ");
    const why = this.#lastError === undefined ? "" : `: ${this.#lastError.message}`;
    return new AppError("SUPERNODE_UNREACHABLE", `no supernode can be reached (${names})${why}`);
  }

  #endSlices(): void {
    for (const resolve of this.#slices.values()) resolve(undefined);
    this.#slices.clear();
  }

  #failJoins(error: AppError): void {
    for (const pending of this.#joins.values()) pending.reject(error);
  }
}

/** What was said so long before a connection ended has arrived: a dead one is found out sooner. */
const ARRIVED_MS = 60_000;
/** Of ten thousand peers that come back at once each may say so much besides. */
const LEFT_COUNT_MAX = 256;
/** Waits between rounds: from 100 ms, doubling to 2 s, each between half and all of it. */
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 2_000;
/** A wrong token does not become right by asking often. */
const REFUSED_RETRY_MS = 10_000;
/** For nobody there, and for a supernode on a machine too busy to accept: sixteen hosts that read the origin are worse. */
const CONNECT_TIMEOUT_MS = 1_000;
const PENDING_TIMEOUT_MS = 5_000;
/** Least time for a supernode to be reached, and to answer. */
const OPEN_TIMEOUT_MS_MIN = 1_500;
/** Most that a supernode may take to answer `register`: of 10,000 peers at once, by TLS, the last was in after 194 s, with a core for each side (bench/control). */
const ANSWER_MS_MAX = 40_000;
/** An origin may take 30 s for its headers, and redirects and retries come on top. */
const JOIN_TIMEOUT_MS = 120_000;
