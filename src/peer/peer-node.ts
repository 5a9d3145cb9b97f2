/**
 * A host's peer as a whole: store, peer port, control connection, and content for whoever asks.
 * dfdaemon and dfget (as its own peer) are built on it; the supernode composes the parts in its own way.
 */
import type { Server } from "node:http";
import { hostname } from "node:os";
import { join as joinPath } from "node:path";
import { setTimeout as sleepFor } from "node:timers/promises";
import type { Registry } from "prom-client";
import { coarseDelayMs } from "../base/coarse-delay.ts";
import { AppError, toAppError } from "../base/errors.ts";
import type { Priority } from "../base/priority.ts";
import type { Origin } from "../origin/origin.ts";
import { BudgetedOrigin, type OriginBudget } from "../origin/origin-budget.ts";
import type { Source } from "../protocol/control-messages.ts";
import type { TaskId } from "../protocol/ids.ts";
import { topologyOf } from "../protocol/topology.ts";
import type { PeerNodeConfig } from "./config.ts";
import type { Content, ContentInfo, ContentOpener, ContentRequest } from "./content.ts";
import { bringPiece } from "./control/lease-client.ts";
import { ControlClient, type JoinedMessage, type TaskFailedMessage } from "./control/control-client.ts";
import { generatePeerId } from "./membership/credentials.ts";
import type { SiteTls } from "./membership/site-tls.ts";
import { SupernodeClock } from "./membership/supernode-clock.ts";
import { parseTicket } from "./membership/tickets.ts";
import { BackToSource, type BackToSourceDeps } from "./back-to-source.ts";
import { DirectOpener, type DirectOpenerDeps } from "./direct-content.ts";
import { EarlyWords } from "./early-words.ts";
import { failureOf, recordOf } from "./joined-task.ts";
import { LeasedBudget } from "./leased-budget.ts";
import { DiskStore } from "./store/disk-store.ts";
import type { TaskRecord } from "./store/piece-store.ts";
import { hostInfoOf } from "./host-info.ts";
import { HostLimits } from "./host-limits.ts";
import { InvitedTasks } from "./invited-tasks.ts";
import { type KeptTask, KeptTasks } from "./kept-tasks.ts";
import { type Lease, LeaseReader } from "./lease-reader.ts";
import { Peer, type PeerLog, type PeerTask } from "./peer.ts";
import { peerMetrics } from "./peer-metrics.ts";
import { openPeerPort } from "./peer-port.ts";
import { ProgressReports } from "./progress-reports.ts";
import { RateGate } from "./rate-gate.ts";
import { makePrivateFolder } from "./private-folder.ts";
import { explainTask, type TaskReport } from "./explain.ts";
import { InlineContent, SwarmContent } from "./swarm-content.ts";

export interface PeerNodeDeps {
  readonly origin: Origin;
  /** Stays the caller's. Undefined: in the clear. */
  readonly tls?: SiteTls | undefined;
  readonly log: PeerLog;
  readonly onDirect?: BackToSourceDeps["onDirect"];
}

export class PeerNode implements ContentOpener {
  readonly #log: PeerLog;
  readonly #store: DiskStore;
  readonly #peer: Peer;
  readonly #server: Server;
  readonly #control: ControlClient;
  readonly #backToSource: BackToSource;
  readonly #directDeps: DirectOpenerDeps;
  readonly #originLimit: RateGate;
  /** For what others on this host ask origins beside it: it counts against the site's budgets. */
  readonly originBudget: OriginBudget;
  /** To read and change while it runs. */
  readonly limits: HostLimits;
  readonly #kept: KeptTasks;
  /** What became of tasks since they were last joined, while they may not be open here yet. The latest last. */
  readonly #failures = new Map<TaskId, TaskFailedMessage>();
  /** Of the mesh, of what may be brought in, of the length. */
  readonly #words = new EarlyWords<KeptTask>();
  readonly #clock = new SupernodeClock();
  readonly #closing = new AbortController();
  readonly #leases: LeaseReader;
  readonly #invited: InvitedTasks;
  readonly #reports: ProgressReports;
  /** Leases of tasks that are not open here; the supernode takes them back when nothing comes of them. */
  readonly #early = new Map<TaskId, Lease>();
  readonly #openings = new Set<object>();
  /** Tasks left of late, and the openings of that moment: one of them may have had the supernode's word before. */
  readonly #left = new Map<TaskId, Set<object>>();
  readonly metrics: Registry;
  #publicKey: Uint8Array | undefined;

  /** @throws AppError LISTEN_FAILED, DISK_FAILED */
  static async start(config: PeerNodeConfig, deps: PeerNodeDeps): Promise<PeerNode> {
    const started: { node?: PeerNode } = {};
    const directory = joinPath(config.cache.dataDirectory, "cache");
    await makePrivateFolder(directory, (message) => deps.log.warn(message));
    const kept = new KeptTasks();
    const store = await DiskStore.open(
      {
        directory,
        quotaBytes: config.cache.quotaBytes,
        reservedFreeBytes: config.cache.reservedFreeBytes,
        scrubBytesPerSecond: config.cache.scrubBytesPerSecond,
        workerCount: 2,
      },
      {
        log: (level, message, fields) => deps.log[level](fields, message),
        letGo: () => Promise.resolve(kept.dropIdle() > 0),
        // The supernode must not send others here for it, nor remember for ever that they could come.
        onEvicted: (taskId) => {
          if (started.node !== undefined) started.node.#leave(taskId);
        },
      },
    );
    try {
      const server = await openPeerPort(config.peerListen, deps.tls);
      started.node = new PeerNode(config, deps, store, kept, server);
    } catch (thrown) {
      await store.close();
      throw thrown;
    }
    return started.node;
  }

  private constructor(config: PeerNodeConfig, deps: PeerNodeDeps, store: DiskStore, kept: KeptTasks, server: Server) {
    const { tls } = deps;
    this.#log = deps.log;
    this.#store = store;
    this.#kept = kept;
    this.#reports = new ProgressReports({ kept: (taskId) => kept.get(taskId), send: (message) => this.#control.send(message), log: deps.log });
    kept.onUnfinished = (taskId) => this.#leave(taskId);
    this.#server = server;
    this.#originLimit = new RateGate(config.limits.originBytesPerSecond);
    this.originBudget = new LeasedBudget({
      lease: (host, kind) => this.#control.leaseOrigin(host, kind),
      nowMs: () => performance.now(),
    });
    this.#directDeps = { origin: new BudgetedOrigin(deps.origin, this.originBudget), limit: this.#originLimit };
    this.#backToSource = new BackToSource({ direct: new DirectOpener(this.#directDeps), log: deps.log, onDirect: deps.onDirect });
    const peerId = generatePeerId(hostname());
    this.#peer = new Peer({
      peerId,
      token: config.joinToken,
      tls,
      store,
      log: deps.log,
      limits: config.limits,
      topology: topologyOf(config.labels),
      clock: this.#clock,
      needNeighbours: (taskId, lost) => this.#control.send({ type: "needNeighbours", taskId, lost: lost.slice(0, 256) }),
      accuse: (taskId, accused, piece) => this.#control.send({ type: "accuse", taskId, peerId: accused, piece }),
      stored: (session) => this.#reports.gained(session.taskId),
      lengthKnown: (session) => this.#reports.gained(session.taskId),
      lost: ({ taskId }) => this.#lost(taskId),
    });
    this.#leases = new LeaseReader({
      origin: this.#directDeps.origin,
      limit: this.#originLimit,
      bring: (lease, piece, bytes, ticket, signal) => {
        const { supernode } = this.#control;
        if (supernode === undefined) return Promise.reject(new AppError("SUPERNODE_UNREACHABLE", "there is no supernode to bring a piece to"));
        return bringPiece({ supernode, tls, peerId, ticket, lease, piece, bytes, signal });
      },
      failed: ({ taskId, leaseId }) => this.#control.send({ type: "leaseFailed", taskId, leaseId }),
      log: deps.log,
      random: Math.random,
      sleep: (delayMs, signal) => sleepFor(delayMs, undefined, { signal }),
    });
    this.#invited = new InvitedTasks({
      announce: (taskId) => {
        const task = kept.get(taskId);
        if (task !== undefined) this.#rejoin(task);
        return task !== undefined;
      },
      hold: async (taskId, source) => {
        const startedMs = performance.now();
        return await this.#opening(async () => {
          const joined = await this.#join(source, true, this.#closing.signal, taskId);
          return await this.#take(joined, { source, backToSource: false }, startedMs);
        });
      },
      leave: (task) => kept.leave(task),
      log: deps.log,
      signal: this.#closing.signal,
    });
    this.limits = new HostLimits({ ...this.#peer.limits, origin: this.#originLimit });
    this.metrics = peerMetrics(this.#peer, store, () => this.#control.connected);
    this.limits.observe(this.metrics);
    this.#peer.loopLoad.observe(this.metrics);
    server.on("request", (request, response) => {
      if (this.#peer.handleRequest(request, response)) return;
      response.writeHead(404, { "content-type": "application/json" });
      response.end(JSON.stringify({ code: "TASK_UNKNOWN", message: "this port serves links and pieces" }));
    });
    server.on("upgrade", (request, socket, head) => {
      if (!this.#peer.handleUpgrade(request, socket, head)) socket.destroy();
    });
    this.#control = new ControlClient({
      supernodes: config.supernodes,
      token: config.joinToken,
      tls,
      peerId,
      host: hostInfoOf(config, server),
      log: deps.log,
      random: Math.random,
      handlers: {
        onRegistered: (publicKey, _address, unixMs, place) => {
          this.#clock.registered(unixMs);
          this.#peer.setTopology(place ?? topologyOf(config.labels));
          this.#registered(publicKey);
        },
        onInvited: (taskId, url) => this.#invited.invited(taskId, url),
        onNeighbours: (taskId, add, drop) =>
          this.#tell(taskId, ({ task }) => {
            task.disconnect(drop);
            task.connect(add, task.session.ticket);
          }),
        onUnwanted: (taskId) => this.#leaveUnwanted(taskId),
        onImports: (taskId, imports) => this.#tell(taskId, ({ task }) => task.assignImports(imports)),
        onLength: (taskId, lengthBytes, signature) =>
          this.#tell(taskId, ({ task }) => {
            if (task.session.verifier.verifyLength(taskId, lengthBytes, signature)) void task.setLength(lengthBytes, signature);
          }),
        onTaskFailed: (message) => this.#taskFailed(message),
        onLease: (lease) => this.#lent(lease),
        onLeaseRevoked: (leaseId) => this.#leaseRevoked(leaseId),
        onDisconnected: () => {
          this.#clock.disconnected();
          this.#leases.close();
          this.#early.clear();
          // All is told anew to whoever registers us next; asked again besides, it would be once more with each connection lost.
          for (const { rejoining } of this.#kept) rejoining?.abort();
        },
      },
    });
  }

  /** A supernode knows this peer. */
  get ready(): boolean {
    return this.#control.connected;
  }

  async open(request: ContentRequest, signal: AbortSignal): Promise<Content> {
    const startedMs = performance.now();
    try {
      const { joined, kept } = await this.#opening(async () => {
        const answer = await this.#join(request.source, true, signal);
        return { joined: answer, kept: answer.inline === null ? await this.#take(answer, request, startedMs) : undefined };
      });
      if (kept === undefined) return new InlineContent(joined.task, Buffer.from(joined.inline ?? "", "base64"), startedMs);
      const { limitBytesPerSecond } = request;
      kept.readerLimits.push(limitBytesPerSecond);
      kept.task.setDownloadLimit(largest(kept.readerLimits));
      return new SwarmContent({
        task: kept.task,
        info: joined.task,
        source: request.source,
        startedMs,
        direct: request.backToSource ? this.#directDeps : undefined,
        limitBytesPerSecond,
        supernodeConnected: () => this.#control.connected && !kept.isForsaken,
        closed: () => {
          kept.task.expectReader(undefined);
          kept.readerLimits.splice(kept.readerLimits.indexOf(limitBytesPerSecond), 1);
          // The last one's stands for as long as the task loads on without readers.
          if (kept.readerLimits.length > 0) kept.task.setDownloadLimit(largest(kept.readerLimits));
          this.#kept.leave(kept);
        },
      });
    } catch (thrown) {
      return await this.#backToSource.open(request, thrown, startedMs, signal);
    }
  }

  async stat(request: ContentRequest, signal: AbortSignal): Promise<ContentInfo> {
    try {
      const { task } = await this.#join(request.source, false, signal);
      return {
        taskId: task.taskId,
        lengthBytes: task.lengthBytes ?? undefined,
        contentType: task.contentType ?? undefined,
        digest: task.digest ?? undefined,
        headers: task.headers,
      };
    } catch (thrown) {
      return await this.#backToSource.stat(request, thrown, signal);
    }
  }

  /** What this host takes part in, and what each task's time goes by. */
  tasks(): readonly TaskReport[] {
    return [...this.#kept].map(({ task: { session, stored }, source, readers }) => ({
      taskId: session.taskId,
      url: source.invited === true ? null : stored.record.displayUrl,
      lengthBytes: session.lengthBytes ?? null,
      heldBytes: session.heldBytes,
      complete: stored.complete,
      readerCount: readers,
      explanation: explainTask(session, session.sources()),
    }));
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#control.close();
    this.#leases.close();
    this.#kept.close();
    await this.#peer.close();
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => void this.#server.close(() => resolve()));
    this.#originLimit.close();
    await this.#store.close();
  }

  /** @param taskId on invitation */
  #join(source: Source, download: boolean, signal: AbortSignal, taskId?: TaskId): Promise<JoinedMessage> {
    return this.#control.join(source, { ...(taskId === undefined ? {} : { taskId }), download, signal, onJoined: (joined) => this.#joined(joined.task.taskId) });
  }

  /** From a join until its task is held here. */
  async #opening<T>(open: () => Promise<T>): Promise<T> {
    const opening = {};
    this.#openings.add(opening);
    try {
      return await open();
    } finally {
      this.#openings.delete(opening);
      for (const [taskId, openings] of this.#left) if (openings.delete(opening) && openings.size === 0) this.#left.delete(taskId);
    }
  }

  /** The supernode must not count on us for what nobody here takes part in. */
  #leaveUnwanted(taskId: TaskId): void {
    if (this.#kept.get(taskId) === undefined) this.#leave(taskId);
  }

  /** Of who is about to take part, the supernode is told again: it may have let him in before it hears this. */
  #leave(taskId: TaskId): void {
    this.#control.send({ type: "leave", taskId });
    if (this.#openings.size > 0) this.#left.set(taskId, new Set(this.#openings));
  }

  /** The task of a join's answer: opened, linked to its neighbours, one reader counted. */
  async #take(joined: JoinedMessage, { source, backToSource, firstByte }: ContentRequest, startedMs: number): Promise<KeptTask> {
    const { taskId } = joined.task;
    const present = this.#kept.get(taskId);
    if (present !== undefined) {
      this.#kept.use(present, backToSource);
      this.#store.used(taskId);
      // An invitation says less than the one who reads.
      if (source.invited !== true) present.source = source;
      present.task.raise(source.priority ?? "interactive");
      present.task.expectReader(firstByte);
      present.isForsaken = false;
      this.#connect(present, joined);
      return present;
    }
    if (this.#publicKey === undefined) throw new AppError("SUPERNODE_UNREACHABLE", "no supernode has registered us yet");
    const record = recordOf(joined, source, this.#publicKey);
    const waitedMs = performance.now() - startedMs;
    const task = await this.#openFiles(record, source.priority ?? "interactive");
    task.session.account.preceded(waitedMs);
    const kept = this.#kept.hold(task, source, joined.task, backToSource);
    kept.task.session.failure = undefined;
    kept.task.expectReader(firstByte);
    this.#connect(kept, joined);
    this.#words.opened(taskId, kept);
    const failed = this.#failures.get(taskId);
    if (failed !== undefined) this.#fail(kept, failed);
    const early = this.#early.get(taskId);
    this.#early.delete(taskId);
    if (early !== undefined) this.#lent(early);
    // What was here before counts at the supernode, too: others may have it from us.
    if (task.stored.have.count > 0 || this.#left.delete(taskId)) this.#rejoin(kept);
    return kept;
  }

  /** @throws AppError DISK_FAILED, or what the disk has no room for: the task is left then */
  async #openFiles(record: TaskRecord, priority: Priority): Promise<PeerTask> {
    let task: PeerTask | undefined;
    try {
      task = await this.#peer.openTask(record, priority);
      await task.stored.assertRoom();
      return task;
    } catch (thrown) {
      task?.release();
      this.#leaveUnwanted(record.taskId);
      throw thrown;
    }
  }

  #registered(publicKey: Uint8Array): void {
    this.#publicKey = publicKey;
    for (const kept of this.#kept) this.#rejoin(kept);
  }

  /** Tells the supernode what we hold of a task, and takes the neighbours it gives. */
  #rejoin(kept: KeptTask): void {
    const { task, source } = kept;
    const { taskId } = task.session;
    kept.joinings++;
    kept.rejoining?.abort();
    const superseded = new AbortController();
    kept.rejoining = superseded;
    this.#control
      .join(source, {
        taskId,
        have: task.stored.have.toBytes(),
        download: true,
        signal: AbortSignal.any([this.#closing.signal, superseded.signal]),
        onJoined: (joined) => this.#joined(joined.task.taskId),
      })
      .then(
        (joined) => {
          kept.isForsaken = joined.task.taskId !== taskId;
          // The file has changed meanwhile: the old version is completed from those who have it, or fails; the new one is nobody's here.
          if (kept.isForsaken) this.#leaveUnwanted(joined.task.taskId);
          else if (this.#kept.get(taskId) === kept) this.#connect(kept, joined);
          // Let go of meanwhile: what was said of that may have come before this answer.
          else if (!task.stored.complete) this.#leaveUnwanted(taskId);
        },
        (thrown: unknown) => {
          if (superseded.signal.aborted) return;
          const { code, message } = toAppError(thrown);
          // Nobody else is at it now: who takes it next brings an invitation.
          const isAtRest = source.invited === true && code === "TASK_UNKNOWN";
          if (!isAtRest) this.#log.warn({ taskId, error: message }, "a task cannot be joined again");
          this.#renewLater(kept, RENEWAL_LATE_MS);
        },
      )
      .finally(() => kept.joinings--);
  }

  /**
   * Pieces are gone from the disk. Where all had everything no seed takes part any more: who joins again brings it back. Not
   * when they were thrown away because the file has failed: the origin would be asked once more for nothing.
   */
  #lost(taskId: TaskId): void {
    this.#reports.lost(taskId);
    const kept = this.#kept.get(taskId);
    if (kept?.joinings === 0 && kept.task.session.failure === undefined) this.#rejoin(kept);
  }

  #connect(kept: KeptTask, { neighbours, imports, ticket }: JoinedMessage): void {
    kept.task.assignImports(imports);
    kept.task.connect(neighbours, ticket ?? kept.task.session.ticket);
    this.#renewLater(kept);
  }

  /**
   * Asks for another ticket at half the time that is left of ours, as long as somebody waits for pieces.
   *
   * @param lateMs when to ask if nothing is left
   */
  #renewLater(kept: KeptTask, lateMs = RENEWAL_MS_MIN): void {
    clearTimeout(kept.renewal);
    const { session, stored } = kept.task;
    const claims = parseTicket(session.ticket);
    if (claims === undefined || stored.complete || this.#kept.get(session.taskId) !== kept) return;
    const leftMs = claims.expiresUnixMs - this.#clock.unixMs();
    const renew = (): void => {
      if (this.#kept.get(session.taskId) !== kept || stored.complete) return;
      // Who comes to read later joins anew, and gets another ticket by that.
      if (kept.readers > 0) this.#rejoin(kept);
      else this.#renewLater(kept);
    };
    const delayMs = leftMs > 0 ? Math.min(Math.max(leftMs / 2, RENEWAL_MS_MIN), RENEWAL_MS_MAX) : lateMs;
    kept.renewal = setTimeout(renew, coarseDelayMs(delayMs)).unref();
  }

  /** The supernode wants us to read a part of a file from its origin, for all. */
  #lent(lease: Lease): void {
    const kept = this.#kept.get(lease.taskId);
    // A join's answer and a lease may come together: the task's files are still being opened.
    if (kept === undefined) this.#early.set(lease.taskId, lease);
    else if (kept.mayReadOrigin && kept.task.session.lengthBytes !== undefined) this.#leases.read(lease, kept.task, kept.source);
    else this.#control.send({ type: "leaseFailed", taskId: lease.taskId, leaseId: lease.leaseId });
  }

  #leaseRevoked(leaseId: number): void {
    this.#leases.revoke(leaseId);
    for (const [taskId, lease] of this.#early) if (lease.leaseId === leaseId) this.#early.delete(taskId);
  }

  /** The supernode has answered a join: what it said of the task before is over. */
  #joined(taskId: TaskId): void {
    this.#failures.delete(taskId);
    const kept = this.#kept.get(taskId);
    if (kept === undefined) this.#words.joined(taskId);
    else kept.task.session.failure = undefined;
  }

  /** The supernode has a word for a task, which may still be on its way to being open. */
  #tell(taskId: TaskId, word: (kept: KeptTask) => void): void {
    const kept = this.#kept.get(taskId);
    if (kept === undefined) this.#words.keep(taskId, word);
    else word(kept);
  }

  #taskFailed(message: TaskFailedMessage): void {
    const { taskId } = message;
    // It may come while the files of a task just joined are being opened.
    this.#failures.delete(taskId);
    this.#failures.set(taskId, message);
    if (this.#failures.size > FAILURE_COUNT_MAX) this.#failures.delete(this.#failures.keys().next().value as TaskId);
    const kept = this.#kept.get(taskId);
    if (kept !== undefined) this.#fail(kept, message);
  }

  #fail(kept: KeptTask, message: TaskFailedMessage): void {
    const { session, stored } = kept.task;
    const failure = failureOf(message);
    this.#log.warn({ taskId: session.taskId, code: failure.code, why: failure.message }, "the supernode gave a task up");
    session.failure = failure;
    if (message.discard) {
      stored.discard("all").catch((thrown: unknown) => {
        this.#log.warn({ taskId: session.taskId, error: toAppError(thrown).message }, "pieces cannot be thrown away");
      });
      this.#leave(session.taskId);
      this.#kept.expel(kept);
    }
    session.wake();
  }
}

const RENEWAL_MS_MIN = 1_000;
/** When the renewal of a ticket that has run out is refused, or there is no supernode, it is asked for again after this. */
const RENEWAL_LATE_MS = 10_000;
/** So that a peer that wakes from a long sleep finds out in time. */
const RENEWAL_MS_MAX = 60 * 60_000;
/** Of tasks that failed, whether open here or not. */
const FAILURE_COUNT_MAX = 1_000;

/** Whoever wants no limit, or the most, has his way. */
function largest(limits: readonly (number | undefined)[]): number | undefined {
  return limits.includes(undefined) ? undefined : Math.max(...(limits as readonly number[]));
}
