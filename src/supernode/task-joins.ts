/**
 * A join from its message to its answer: which task, is it here, who are the neighbours, and a ticket.
 *
 * Also the memory of who takes part in what, for messages that concern all members of a task.
 */
import type { Logger } from "pino";
import { AppError, toAppError } from "../base/errors.ts";
import type { SigningKey } from "../peer/membership/credentials.ts";
import type { TaskRecord } from "../peer/store/piece-store.ts";
import type { ByteSources, Neighbour, SupernodeToPeer, TaskInfo } from "../protocol/control-messages.ts";
import type { Explanation } from "../protocol/explanation.ts";
import { INLINE_LENGTH_BYTES_MAX, pieceCountOf } from "../protocol/geometry.ts";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import type { SchedulerEffect, SchedulerInput } from "../scheduler/index.ts";
import type { PeerMessage } from "./control-server.ts";
import type { SupernodeMetrics } from "./metrics.ts";
import type { ConnectedPeer, PeerTable } from "./peer-table.ts";
import type { SeedTask } from "./cache/seed-cache.ts";
import { isPrivateSource, mayHaveRunOut } from "./tasks/private-source.ts";
import type { ResolvedTask } from "./tasks/task-resolver.ts";

type ProgressMessage = Extract<PeerMessage, { type: "progress" }>;
type JoinMessage = Extract<PeerMessage, { type: "join" }>;
type Assigned = Pick<Extract<SchedulerEffect, { type: "assign" }>, "neighbours" | "imports">;
type Joined = Extract<SupernodeToPeer, { type: "joined" }>;
type Described = Pick<Joined, "task" | "lengthSignature">;

export interface TaskJoinsDeps {
  readonly resolver: { resolve(source: JoinMessage["source"], hint: TaskId | undefined): Promise<ResolvedTask> };
  readonly seeds: { open(resolved: ResolvedTask): Promise<SeedTask>; get(taskId: TaskId): SeedTask | undefined };
  /** Small content as a whole. */
  readonly inline: (resolved: ResolvedTask) => Promise<Uint8Array>;
  readonly push: (input: SchedulerInput) => void;
  readonly peers: PeerTable;
  readonly key: SigningKey;
  readonly metrics: Pick<SupernodeMetrics, "joins" | "joinSeconds">;
  readonly log: Pick<Logger, "info" | "warn" | "debug">;
  readonly unixMs: () => number;
  /** How long the origin's word holds that a caller may have something, in ms. */
  readonly grantMs: number;
}

interface PendingJoin {
  readonly peer: ConnectedPeer;
  readonly requestId: number;
  readonly described: Described;
  readonly lifeMs: TicketLife;
  readonly done: (result: string) => void;
}

export interface Member {
  readonly peerId: PeerId;
  /** Bytes it took in by where they came from, as it last said. */
  sources: ByteSources | undefined;
  isComplete: boolean;
  /** What its time went by, once it was complete. */
  explanation: Explanation | undefined;
  /** When the origin last let it in. */
  grantedUnixMs: number;
}

export class TaskJoins {
  readonly #deps: TaskJoinsDeps;
  readonly #pending = new Map<number, PendingJoin>();
  readonly #members = new Map<TaskId, Map<PeerId, Member>>();
  #nextRequestId = 1;

  constructor(deps: TaskJoinsDeps) {
    this.#deps = deps;
  }

  get taskCount(): number {
    return this.#members.size;
  }

  /** Members other than the seed, in the order they came. */
  membersOf(taskId: TaskId): readonly Member[] {
    return [...(this.#members.get(taskId)?.values() ?? [])];
  }

  isActive(taskId: TaskId): boolean {
    return this.#members.has(taskId);
  }

  /** Answers a join, sooner or later. Never throws. */
  join(peer: ConnectedPeer, message: JoinMessage): void {
    const startedMs = performance.now();
    const { metrics, log } = this.#deps;
    const done = (result: string): void => {
      metrics.joins.inc({ result });
      metrics.joinSeconds.observe((performance.now() - startedMs) / 1000);
    };
    this.#answer(peer, message, done).catch((thrown: unknown) => {
      const error = toAppError(thrown);
      if (this.#goesOn(peer, message, error, done)) return;
      if (error.code === "INTERNAL") log.warn({ peerId: peer.peerId, err: error }, "a join failed");
      done(error.code);
      this.#refuse(peer, message.requestId, error);
    });
  }

  /** The scheduler's answer to a join. */
  assigned(requestId: number, { neighbours, imports }: Assigned, describe: (peerId: PeerId) => Neighbour | undefined): void {
    const pending = this.#pending.get(requestId);
    if (pending === undefined) return;
    this.#pending.delete(requestId);
    const { peer, described, lifeMs } = pending;
    const { taskId } = described.task;
    const expiresUnixMs = this.#deps.unixMs() + lifeMs.life;
    const outageUnixMs = expiresUnixMs + lifeMs.inOutage;
    this.#send(peer, {
      type: "joined",
      requestId: pending.requestId,
      ...described,
      inline: null,
      ticket: this.#deps.key.signTicket({ taskId, peerId: peer.peerId, expiresUnixMs, outageUnixMs }),
      neighbours: neighbours.flatMap((neighbour) => describe(neighbour) ?? []),
      imports: [...imports],
    });
    pending.done("OK");
  }

  progressed(peerId: PeerId, taskId: TaskId, { sources, complete, explanation }: ProgressMessage): void {
    const member = this.#members.get(taskId)?.get(peerId);
    if (member === undefined) return;
    member.sources = sources;
    member.isComplete = complete;
    member.explanation = explanation ?? member.explanation;
  }

  left(peerId: PeerId, taskId: TaskId): void {
    this.#members.get(taskId)?.delete(peerId);
  }

  /** The task's soft state is gone. */
  forget(taskId: TaskId): void {
    this.#members.delete(taskId);
  }

  /** The connection ended: its joins need no answer. Membership ends with the task, or when the peer says so. */
  disconnected(peer: ConnectedPeer): void {
    for (const [requestId, pending] of this.#pending) {
      if (pending.peer === peer) this.#pending.delete(requestId);
    }
  }

  /** Tells all members that are connected. */
  broadcast(taskId: TaskId, message: SupernodeToPeer): void {
    for (const { peerId } of this.membersOf(taskId)) this.#deps.peers.send(peerId, message);
  }

  async #answer(peer: ConnectedPeer, message: JoinMessage, done: (result: string) => void): Promise<void> {
    const { requestId, source, taskId: hint } = message;
    if (source.invited === true) return this.#follow(peer, message, done);
    const resolved = await this.#deps.resolver.resolve(source, hint);
    const { taskId, record } = resolved;
    if (!message.download || isInline(record)) {
      const content = message.download ? await this.#deps.inline(resolved) : undefined;
      const inline = content === undefined ? null : Buffer.from(content).toString("base64");
      this.#send(peer, { type: "joined", requestId, ...this.#described(record, resolved), inline, ticket: null, neighbours: [], imports: [] });
      done(message.download ? "INLINE" : "STAT");
      return;
    }
    const seedTask = await this.#deps.seeds.open(resolved);
    if (this.#deps.peers.get(peer.peerId) !== peer) return;
    const member = this.#memberOf(taskId, peer.peerId);
    // What the origin said before it could not be asked is no word of now.
    if (resolved.info !== undefined) member.grantedUnixMs = this.#deps.unixMs();
    this.#enter(peer, message, seedTask, this.#described(ownWords(seedTask.task.stored.record, resolved), resolved), done);
  }

  /**
   * A keeper comes to a task that others are at. The operator trusts it as the supernode's own disk, so no origin is asked for its right.
   * @throws AppError TASK_UNKNOWN, also to who is no keeper
   */
  #follow(peer: ConnectedPeer, message: JoinMessage, done: (result: string) => void): void {
    const seedTask = !peer.keeper || message.taskId === undefined || !message.download ? undefined : this.#deps.seeds.get(message.taskId);
    if (seedTask === undefined) throw new AppError("TASK_UNKNOWN", "nobody was invited to that");
    this.#memberOf(seedTask.taskId, peer.peerId);
    this.#enter(peer, message, seedTask, describedOf(seedTask.task.stored.record), done);
  }

  /**
   * A renewal that the origin refuses perhaps only because the caller's token, or signature, has run out meanwhile: what
   * began while it was good may end, as it would in one long answer of the origin's, within an hour.
   */
  #goesOn(peer: ConnectedPeer, message: JoinMessage, error: AppError, done: (result: string) => void): boolean {
    const { taskId, source, download } = message;
    if (taskId === undefined || !download || !mayHaveRunOut(source, error)) return false;
    const member = this.#members.get(taskId)?.get(peer.peerId);
    const seedTask = this.#deps.seeds.get(taskId);
    if (member === undefined || member.isComplete || seedTask === undefined) return false;
    if (this.#deps.unixMs() - member.grantedUnixMs >= TRANSFER_MS_MAX) return false;
    this.#enter(peer, message, seedTask, describedOf(seedTask.task.stored.record), done);
    return true;
  }

  #enter(
    peer: ConnectedPeer,
    { requestId, source, taskId: hint, have: told }: JoinMessage,
    { taskId, task }: SeedTask,
    described: Described,
    done: (result: string) => void,
  ): void {
    const { lengthBytes, pieceLengthBytes } = task.stored.record;
    const have = told === undefined || hint !== taskId ? undefined : PieceSet.fromBytes(Buffer.from(told, "base64"));
    // Half of a grant: what the origin said is remembered for the other half.
    const privateLife = { life: Math.max(this.#deps.grantMs / 2, TICKET_MS_MIN), inOutage: OUTAGE_MS };
    const lifeMs = isPrivateSource(source) ? privateLife : PUBLIC_LIFE;
    const ownRequestId = this.#nextRequestId++;
    this.#pending.set(ownRequestId, { peer, requestId, described, lifeMs, done });
    this.#deps.push({
      type: "taskJoined",
      peerId: peer.peerId,
      taskId,
      requestId: ownRequestId,
      pieceCount: have?.count,
      totalCount: lengthBytes === undefined ? undefined : pieceCountOf(lengthBytes, pieceLengthBytes),
    });
  }

  #memberOf(taskId: TaskId, peerId: PeerId): Member {
    const members = this.#members.get(taskId) ?? new Map<PeerId, Member>();
    this.#members.set(taskId, members);
    const member = members.get(peerId) ?? { peerId, sources: undefined, isComplete: false, explanation: undefined, grantedUnixMs: 0 };
    members.set(peerId, member);
    return member;
  }

  #described(record: TaskRecord, { staleMs }: ResolvedTask): Described {
    if (staleMs === undefined) return describedOf(record);
    // RFC 9111 dropped `Warning`, but no other header says it to a client: not revalidated.
    const said = { age: String(Math.floor(staleMs / 1000)), warning: '110 - "Response is Stale"' };
    return describedOf({ ...record, headers: { ...record.headers, ...said } });
  }

  #refuse(peer: ConnectedPeer, requestId: number, { code, message, details }: AppError): void {
    this.#send(peer, { type: "joinFailed", requestId, code, message: message.slice(0, 4096), details });
  }

  /** A peer that reconnected meanwhile asks again by itself. */
  #send(peer: ConnectedPeer, message: SupernodeToPeer): void {
    peer.channel.send(message);
  }
}

function describedOf(record: TaskRecord): Described {
  const { lengthSignature } = record;
  return {
    task: taskInfoOf(record),
    lengthSignature: lengthSignature === undefined ? null : Buffer.from(lengthSignature).toString("base64"),
  };
}

/** The task as its files have it, in the words of the origin that this caller asked: another place's are not for him. */
function ownWords(stored: TaskRecord, { info, record }: ResolvedTask): TaskRecord {
  return info === undefined ? stored : { ...stored, contentType: record.contentType, headers: record.headers };
}

/** A task as peers are told of it. */
function taskInfoOf(record: TaskRecord): TaskInfo {
  const { taskId, lengthBytes, pieceLengthBytes, contentType, digest, headers } = record;
  return {
    taskId,
    lengthBytes: lengthBytes ?? null,
    pieceLengthBytes,
    contentType: contentType ?? null,
    digest: digest ?? null,
    headers: { ...headers },
  };
}

function isInline({ lengthBytes }: TaskRecord): boolean {
  return lengthBytes !== undefined && lengthBytes <= INLINE_LENGTH_BYTES_MAX;
}

/** For how long tickets are good, in ms. */
interface TicketLife {
  readonly life: number;
  /** How much longer where there is no supernode to renew them. */
  readonly inOutage: number;
}

/** What anybody may have needs no second look soon; its tickets are renewed like others. */
const PUBLIC_LIFE: TicketLife = { life: 12 * 60 * 60_000, inOutage: 0 };
/** So long a supernode may be away without a transfer of private content breaking off. */
const OUTAGE_MS = 30 * 60_000;
/** A ticket must outlive its way to the neighbours. */
const TICKET_MS_MIN = 1_000;
const TRANSFER_MS_MAX = 60 * 60_000;
