/**
 * A peer: piece store, links, and the driver of the swarm's brain. Supernode (seed) and dfdaemon are the same peer.
 */
import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Logger } from "pino";
import { AppError } from "../base/errors.ts";
import type { RateFlow } from "../base/rate-budget.ts";
import type { ByteSources, Neighbour } from "../protocol/control-messages.ts";
import { PIECE_COUNT_MAX } from "../protocol/geometry.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { Imports, Topology } from "../protocol/topology.ts";
import type { Priority, SwarmConfig, SwarmSnapshot } from "../swarm/index.ts";
import type { Link } from "./link/link.ts";
import { Downlink } from "./downlink.ts";
import { LinkTable } from "./link/link-table.ts";
import { LoopLoad } from "./loop-load.ts";
import { OWN_CLOCK, type TicketClock } from "./membership/tickets.ts";
import type { SiteTls } from "./membership/site-tls.ts";
import { servePieces } from "./piece-http.ts";
import { RateGate } from "./rate-gate.ts";
import type { PieceProof, PieceSigner, PieceStore, StoredTask, TaskRecord } from "./store/piece-store.ts";
import { SwarmDriver } from "./swarm-driver.ts";
import { TaskAccount } from "./task-account.ts";
import { EXPECTED_READER_ID, TaskSession } from "./task-session.ts";

/** One task in which this peer takes part. Every `openTask` needs one `release`. */
export interface PeerTask {
  readonly stored: StoredTask;
  /** What readers wait on; see TaskSession. */
  readonly session: TaskSession;
  /** Dials neighbours (existing links are reused) and joins the task on the links, showing `ticket`; a new one to all. */
  connect(neighbours: readonly Neighbour[], ticket: string): void;
  disconnect(peerIds: readonly PeerId[]): void;
  /** What the supernode lets this peer bring into its rack, zone, …; before that, everything. */
  assignImports(imports: readonly Imports[]): void;
  /**
   * A piece read from the origin by this peer under a lease, with the supernode's proof: stored, then offered at once.
   * Buffer rules as StoredTask.storeVerified. One that is here already is left as it is.
   * @throws AppError PIECE_DIGEST_MISMATCH when the proof is not the supernode's, or not this piece's
   */
  addProven(piece: number, bytes: Uint8Array, proof: PieceProof): Promise<void>;
  /** A piece read from the origin by this peer, the seed: stored, then offered at once. */
  addOwn(piece: number, bytes: Uint8Array, sign: PieceSigner): Promise<PieceProof>;
  setLength(lengthBytes: number, signature: Uint8Array): Promise<void>;
  /** Tells the swarm where a reader is blocked; undefined when it is done. */
  readerAt(readerId: number, piece: number | undefined): void;
  /** A reader who will begin at this byte is on its way; undefined: none. Forgotten as soon as any reader says where it is. */
  expectReader(firstByte: number | undefined): void;
  /** Whether a neighbour is known to hold the piece: it may come without the origin. */
  isHeldNearby(piece: number): boolean;
  sources(): ByteSources & { readonly cacheBytes: number };
  /** This task's own download limit, below the host's; undefined = none. Effective at once. */
  setDownloadLimit(bytesPerSecond: number | undefined): void;
  /** Somebody wants the task who is as urgent as told. */
  raise(priority: Priority): void;
  /** A limit made its download wait within the last second: it is slow because it is told to be. */
  isHeldBack(): boolean;
  release(): void;
}

/** The seam that supernode and dfdaemon program against. */
export interface PeerService {
  openTask(record: TaskRecord, priority: Priority): Promise<PeerTask>;
  /** Serves `GET /v1/link` (upgrade). @returns false when the request is not for it */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean;
  /** Serves `GET /v1/tasks/{id}/pieces/{n}` and `/v1/tasks/{id}/content`. @returns false when not for it */
  handleRequest(request: IncomingMessage, response: ServerResponse): boolean;
  openTasks(): readonly { readonly taskId: TaskId; readonly haveCount: number; readonly linkCount: number }[];
  /** Bytes per second; undefined = no limit. Effective at once, shared by all tasks. */
  setLimits(limits: {
    readonly downloadBytesPerSecond: number | undefined;
    readonly uploadBytesPerSecond: number | undefined;
  }): void;
  close(): Promise<void>;
}

export type PeerLog = Pick<Logger, "debug" | "info" | "warn" | "error">;

export interface PeerOptions {
  readonly peerId: PeerId;
  /** The site's join token; undefined = insecure mode. */
  readonly token: string | undefined;
  /** Undefined: links are in the clear. */
  readonly tls?: SiteTls | undefined;
  readonly store: PieceStore;
  readonly log: PeerLog;
  readonly limits: {
    readonly downloadBytesPerSecond: number | undefined;
    readonly uploadBytesPerSecond: number | undefined;
  };
  /** Where this host stands, to begin with; default: nobody knows. */
  readonly topology?: Topology;
  /** The mesh of a task does not feed us. */
  readonly needNeighbours?: (taskId: TaskId, useless: readonly PeerId[]) => void;
  /** A neighbour sent a bad piece or a forged signature. */
  readonly accuse?: (taskId: TaskId, peerId: PeerId, piece: number) => void;
  /** A piece is verified and on disk. */
  readonly stored?: (session: TaskSession, piece: number) => void;
  /** How long the file is is known now: perhaps all of it is here already. */
  readonly lengthKnown?: (session: TaskSession) => void;
  /** Pieces of an open task that were on disk are not, or not as they were. */
  readonly lost?: (session: TaskSession) => void;
  readonly swarm?: Partial<SwarmConfig>;
  /** The time that others' tickets are held against. Default: this machine's. */
  readonly clock?: TicketClock;
}

export class Peer implements PeerService {
  readonly peerId: PeerId;
  readonly #options: PeerOptions;
  readonly #links: LinkTable;
  readonly #driver: SwarmDriver;
  readonly #sessions = new Map<TaskId, TaskSession>();
  readonly #opening = new Map<TaskId, Promise<TaskSession>>();
  readonly #seeds = new Set<PeerId>();
  readonly #upload: RateGate;
  readonly #download: RateGate;
  /** Neighbours that could not be dialled, of whom the supernode is still to be told. */
  readonly #gone = new Map<TaskId, Set<PeerId>>();
  #goneTimer: NodeJS.Timeout | undefined;
  #goneToldMs = Number.NEGATIVE_INFINITY;
  /** For what belongs to no task that is open here. */
  readonly #strayDownload: RateFlow;
  readonly #downlink: Downlink;
  readonly #nowMs = (): number => Math.floor(performance.now());
  /** How busy the process is; it stays the peer's. */
  readonly loopLoad: LoopLoad = new LoopLoad();

  constructor(options: PeerOptions) {
    this.peerId = options.peerId;
    this.#options = options;
    const nowMs = this.#nowMs;
    this.#upload = new RateGate(options.limits.uploadBytesPerSecond);
    this.#download = new RateGate(options.limits.downloadBytesPerSecond);
    this.#strayDownload = this.#download.flow("normal");
    this.#downlink = new Downlink(this.#download);
    this.#links = new LinkTable({
      tls: options.tls,
      handshake: { token: options.token, ownPeerId: options.peerId, randomBytes },
      nowMs,
      uploadLimit: this.#upload,
      downloadLimit: {
        readBytes: (link) => this.#download.readBytes(this.#downloadFlow(link)),
        pay: (link, bytes, go) => this.#payDownload(link, bytes, go),
        count: (bytes) => this.#download.spend(bytes),
      },
      events: {
        opened: (link, peerId) => {
          this.#downlink.linkOpened(link.localAddress);
          this.#driver.linkOpened(link, peerId);
          for (const session of this.#sessions.values()) {
            if (session.neighbours.has(peerId)) this.#driver.join(link, session);
          }
        },
        closed: (link, peerId, why) => {
          options.log.debug({ peerId, why }, "a link ended");
          this.#driver.linkClosed(link);
          // Between the handshake and its join, the brain does not know of it; the supernode does, and will give us nobody else.
          for (const { taskId, neighbours } of this.#sessions.values()) if (neighbours.has(peerId)) this.#driver.feed({ type: "neighbourLost", taskId, peerId });
        },
        unreachable: (peerId, why) => this.#unreachable(peerId, why),
        frame: (link, frame) => this.#driver.frame(link, frame),
        payloadTarget: (...values) => this.#driver.payloadTarget(...values),
        payload: (...values) => this.#driver.payload(...values),
      },
    });
    this.#driver = new SwarmDriver({
      links: this.#links,
      nowMs,
      topology: options.topology ?? {},
      seed: randomBytes(4).readInt32LE(),
      ...(options.swarm === undefined ? {} : { swarm: options.swarm }),
      session: (taskId) => this.#sessions.get(taskId),
      openFromDisk: (taskId) => this.#openFromDisk(taskId),
      isSeed: (peerId) => this.#seeds.has(peerId),
      log: options.log,
      needNeighbours: (taskId, useless) => options.needNeighbours?.(taskId, useless),
      accuse: (taskId, peerId, piece) => options.accuse?.(taskId, peerId, piece),
      stored: (session, piece) => options.stored?.(session, piece),
      lengthKnown: (session) => options.lengthKnown?.(session),
      lost: (session) => options.lost?.(session),
    });
  }

  get counters(): SwarmDriver["counters"] {
    return this.#driver.counters;
  }

  /** Memory taken by pieces that are being received or verified. */
  get receivingBytes(): number {
    return this.#driver.receivingBytes;
  }

  /** The host's limits for what moves over links and plain HTTP. They stay the peer's. */
  get limits(): { readonly download: RateGate; readonly upload: RateGate } {
    return { download: this.#download, upload: this.#upload };
  }

  get linkCount(): number {
    return this.#links.count;
  }

  /** Where this host stands by what the supernode knows of it. */
  setTopology(topology: Topology): void {
    this.#driver.places.moved(topology);
  }

  snapshot(): SwarmSnapshot {
    return this.#driver.snapshot();
  }

  async openTask(record: TaskRecord, priority: Priority): Promise<PeerTask> {
    const session = await this.#open(record.taskId, priority, async () => {
      const stored = await this.#options.store.open(record);
      const known = stored.record;
      const same =
        Buffer.from(known.publicKey).equals(record.publicKey) && known.pieceLengthBytes === record.pieceLengthBytes;
      if (same) return stored;
      // What is on disk was signed by a supernode that is no more (or cut otherwise): nobody could verify it.
      stored.release();
      await this.#options.store.remove(record.taskId);
      return this.#options.store.open(record);
    });
    if (record.lengthBytes !== undefined && record.lengthSignature !== undefined && session.lengthBytes === undefined) {
      await this.#driver.setLength(session, record.lengthBytes, record.lengthSignature);
    }
    return this.#handle(session);
  }

  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean {
    if (request.url !== "/v1/link") return false;
    this.#links.accept(request, socket as Socket, head);
    return true;
  }

  handleRequest(request: IncomingMessage, response: ServerResponse): boolean {
    const find = async (taskId: TaskId): Promise<TaskSession | undefined> => this.#sessions.get(taskId) ?? this.#openFromDisk(taskId);
    return servePieces(request, response, { find, limit: this.#upload });
  }

  openTasks(): readonly { readonly taskId: TaskId; readonly haveCount: number; readonly linkCount: number }[] {
    return [...this.#sessions.values()].map((session) => ({
      taskId: session.taskId,
      haveCount: session.stored.have.count,
      linkCount: [...this.#links].filter((link) => link.ownChannel(session.taskId) !== undefined).length,
    }));
  }

  /** Tasks open here, for those who re-announce them. */
  sessions(): Iterable<TaskSession> {
    return this.#sessions.values();
  }

  setLimits(limits: PeerOptions["limits"]): void {
    this.#download.setRate(limits.downloadBytesPerSecond);
    this.#upload.setRate(limits.uploadBytesPerSecond);
  }

  /** Ends all links. What TLS has taken over a server counts among its connections, and its end waits for them. */
  hangUp(): void {
    this.#links.close();
  }

  async close(): Promise<void> {
    this.#links.close();
    this.#driver.close();
    clearTimeout(this.#goneTimer);
    for (const session of this.#sessions.values()) session.release();
    this.#sessions.clear();
    this.#upload.close();
    this.#download.close();
    this.loopLoad.close();
    await Promise.resolve();
  }

  #payingSession({ payloadTask }: Link): TaskSession | undefined {
    return payloadTask === undefined ? undefined : this.#sessions.get(payloadTask);
  }

  #downloadFlow(link: Link): RateFlow {
    return this.#payingSession(link)?.downloadFlow ?? this.#strayDownload;
  }

  /** @returns false when the link has to wait for `go` */
  #payDownload(link: Link, bytes: number, go: () => void): boolean {
    const session = this.#payingSession(link);
    const request = this.#download.pass(session?.downloadFlow ?? this.#strayDownload, bytes, () => {
      session?.account.held(-1);
      go();
    });
    if (request !== undefined) session?.account.held(1);
    return request === undefined;
  }

  /** One holder more on the session of this task, opened by `open` when there is none. */
  async #open(taskId: TaskId, priority: Priority, open: () => Promise<StoredTask>): Promise<TaskSession> {
    const present = this.#sessions.get(taskId);
    if (present !== undefined) {
      this.#raise(present, priority);
      present.holders++;
      return present;
    }
    const opening = this.#opening.get(taskId);
    if (opening !== undefined) {
      const session = await opening;
      this.#raise(session, priority);
      session.holders++;
      return session;
    }
    const promise = open().then((stored) => {
      const flows = { upload: this.#upload.flow(priority), download: this.#download.flow(priority) };
      const account = new TaskAccount({ nowMs: this.#nowMs, isCpuBusy: () => this.loopLoad.isBusy(), isDownlinkFull: () => this.#downlink.isFull });
      const session: TaskSession = new TaskSession(stored, flows, this.#options.clock ?? OWN_CLOCK, account, (pieces) =>
        this.#driver.lostPieces(session, pieces),
      );
      this.#sessions.set(taskId, session);
      this.#driver.openTask(session, priority);
      return session;
    });
    this.#opening.set(taskId, promise);
    try {
      return await promise;
    } finally {
      this.#opening.delete(taskId);
    }
  }

  /** Of several who want a task, the most urgent counts. */
  #raise(session: TaskSession, priority: Priority): void {
    this.#upload.raise(session.uploadFlow, priority);
    this.#download.raise(session.downloadFlow, priority);
  }

  /** A task that a neighbour or a tool asks for; it stays open for a while after. */
  async #openFromDisk(taskId: TaskId): Promise<TaskSession | undefined> {
    if (!(await this.#options.store.has(taskId))) return undefined;
    const session = await this.#open(taskId, "normal", async () => {
      const stored = await this.#options.store.find(taskId);
      if (stored === undefined) throw new Error("it has just been evicted");
      return stored;
    });
    setTimeout(() => this.#release(session), SERVED_TASK_MS).unref();
    return session;
  }

  #handle(session: TaskSession): PeerTask {
    let released = false;
    return {
      stored: session.stored,
      session,
      connect: (neighbours, ticket) => {
        this.#driver.showTicket(session, ticket);
        for (const neighbour of neighbours) {
          if (neighbour.peerId === this.peerId) continue;
          session.neighbours.set(neighbour.peerId, neighbour);
          if (neighbour.seed) this.#seeds.add(neighbour.peerId);
          // Named anew, it is tried anew before that is said.
          this.#gone.get(session.taskId)?.delete(neighbour.peerId);
          const link = this.#links.get(neighbour.peerId);
          if (link !== undefined) this.#driver.join(link, session);
          else this.#links.dial(neighbour.peerId, neighbour.address, neighbour.port);
        }
      },
      assignImports: (imports) => this.#driver.feed({ type: "importsAssigned", taskId: session.taskId, imports }),
      disconnect: (peerIds) => {
        for (const peerId of peerIds) {
          session.neighbours.delete(peerId);
          const link = this.#links.get(peerId);
          if (link !== undefined) this.#driver.leave(link, session.taskId);
        }
      },
      addOwn: async (piece, bytes, sign) => {
        const proof = await session.stored.storeOwn(piece, bytes, sign);
        session.count("originBytes", bytes.length);
        this.#driver.storedPiece(session, piece);
        return proof;
      },
      addProven: async (piece, bytes, proof) => {
        if (session.stored.have.has(piece)) return;
        if ((await session.stored.storeVerified(piece, bytes, proof)) !== "stored") {
          throw new AppError("PIECE_DIGEST_MISMATCH", `piece ${piece} is not what the supernode signed`);
        }
        session.count("originBytes", bytes.length);
        this.#driver.storedPiece(session, piece);
      },
      setLength: (lengthBytes, signature) => this.#driver.setLength(session, lengthBytes, signature),
      readerAt: (readerId, piece) => {
        this.#driver.feed({ type: "readerMoved", taskId: session.taskId, readerId, piece });
        this.#expectReader(session, undefined);
      },
      expectReader: (firstByte) => this.#expectReader(session, firstByte),
      isHeldNearby: (piece) => this.#driver.intake(session.taskId)?.isHeldNearby(piece) === true,
      sources: () => session.sources(),
      setDownloadLimit: (bytesPerSecond) => this.#download.setFlowLimit(session.downloadFlow, bytesPerSecond),
      raise: (priority) => this.#raise(session, priority),
      isHeldBack: () => this.#download.heldBack(session.downloadFlow, 1000),
      release: () => {
        if (released) return;
        released = true;
        this.#release(session);
      },
    };
  }

  /** Joins say what is wanted first, and are said before anybody reads. */
  #expectReader(session: TaskSession, firstByte: number | undefined): void {
    const piece = firstByte === undefined ? undefined : Math.floor(firstByte / session.pieceLengthBytes);
    if (piece === session.expectedPiece || (piece ?? 0) >= (session.pieceCount ?? PIECE_COUNT_MAX)) return;
    session.expectedPiece = piece;
    this.#driver.feed({ type: "readerMoved", taskId: session.taskId, readerId: EXPECTED_READER_ID, piece });
  }

  #release(session: TaskSession): void {
    if (--session.holders > 0 || this.#sessions.get(session.taskId) !== session) return;
    this.#driver.closeTask(session);
    this.#sessions.delete(session.taskId);
    session.release();
    session.wake();
  }

  #unreachable(peerId: PeerId, why: string): void {
    this.#options.log.debug({ peerId, why }, "a neighbour cannot be reached");
    for (const { taskId, neighbours } of this.#sessions.values()) {
      if (neighbours.has(peerId)) this.#gone.set(taskId, (this.#gone.get(taskId) ?? new Set()).add(peerId));
    }
    if (this.#gone.size === 0) return;
    const sinceToldMs = performance.now() - this.#goneToldMs;
    this.#goneTimer ??= setTimeout(() => this.#tellGone(), Math.max(GATHER_GONE_MS, TELL_GONE_MS_MIN - sinceToldMs)).unref();
  }

  #tellGone(): void {
    this.#goneTimer = undefined;
    this.#goneToldMs = performance.now();
    for (const [taskId, gathered] of this.#gone) {
      // Who has dialled us meanwhile is a neighbour like others.
      const gone = [...gathered].filter((peerId) => this.#links.get(peerId) === undefined);
      for (const peerId of gone) this.#sessions.get(taskId)?.neighbours.delete(peerId);
      if (gone.length > 0) this.#options.needNeighbours?.(taskId, gone);
    }
    this.#gone.clear();
  }
}

/** Where one host is gone, others often are: one message for all of them. */
const GATHER_GONE_MS = 50;
/** One that refuses at once may be all that the supernode can name: it is named again each time. */
const TELL_GONE_MS_MIN = 1_000;
/** A task opened because somebody asked for its pieces stays open this long. */
const SERVED_TASK_MS = 60_000;
