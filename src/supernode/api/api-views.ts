/** What the REST API shows, gathered from those who know. */
import { AppError } from "../../base/errors.ts";
import type { HostLabels } from "../../peer/config.ts";
import type { PieceStore } from "../../peer/store/piece-store.ts";
import { isTaskId, type PeerId, type TaskId } from "../../protocol/ids.ts";
import type { SchedulerSnapshot } from "../../scheduler/index.ts";
import type { OriginMeter } from "../cache/origin-meter.ts";
import type { LabelSources } from "../place-map.ts";
import { isLoopback, type PeerTable } from "../peer-table.ts";
import type { SeedCache } from "../cache/seed-cache.ts";
import type { TaskJoins } from "../task-joins.ts";

export interface ApiViewsDeps {
  readonly snapshot: () => SchedulerSnapshot;
  readonly seeds: Pick<SeedCache, "get" | "letGo">;
  /** Somebody at the site still lacks part of the task. */
  readonly isNeeded: (taskId: TaskId) => boolean;
  readonly joins: Pick<TaskJoins, "membersOf">;
  readonly meter: Pick<OriginMeter, "bytesOf">;
  readonly peers: PeerTable;
  readonly store: Pick<PieceStore, "list" | "has" | "usage" | "remove" | "pin" | "verify">;
  readonly quotaBytes: number | undefined;
  readonly seed: { readonly peerId: PeerId; readonly address: string; readonly port: number; readonly labels: HostLabels; readonly labelSources: LabelSources };
  readonly version: string;
}

/** A page of a list sorted by id. */
export interface Page {
  readonly limit: number;
  /** Exclusive; empty: from the start. */
  readonly after: string;
}

type SnapshotTask = SchedulerSnapshot["tasks"][number];

export class ApiViews {
  readonly #deps: ApiViewsDeps;

  constructor(deps: ApiViewsDeps) {
    this.#deps = deps;
  }

  version(): object {
    const { version, seed } = this.#deps;
    return { name: "dragonfly supernode", version, node: process.versions.node, peerId: seed.peerId };
  }

  tasks(page: Page): object {
    // Those that the supernode itself has let go do not count: a page that is not full says that it is the last.
    const known = this.#deps.snapshot().tasks.filter(({ taskId }) => this.#deps.seeds.get(taskId) !== undefined);
    return { tasks: paged(known, (task) => task.taskId, page).flatMap((task) => this.#task(task) ?? []) };
  }

  /** @throws AppError TASK_UNKNOWN */
  task(taskId: string): object {
    const task = this.#deps.snapshot().tasks.find((each) => each.taskId === taskId);
    const view = task === undefined ? undefined : this.#task(task);
    if (task === undefined || view === undefined) throw unknownTask(taskId);
    const known = new Map(this.#deps.joins.membersOf(task.taskId).map((member) => [member.peerId, member]));
    const members = task.members.map(({ peerId, pieceCount, complete, neighbours }) => ({
      peerId,
      pieceCount: peerId === this.#deps.seed.peerId ? view.heldPieces : pieceCount,
      complete,
      neighbours,
      sources: known.get(peerId)?.sources ?? null,
      explanation: known.get(peerId)?.explanation ?? null,
    }));
    return { ...view, members };
  }

  peers(page: Page): object {
    const { seed, version, peers } = this.#deps;
    const shown = paged(this.#deps.snapshot().peers, (peer) => peer.peerId, page);
    return {
      peers: shown.map(({ peerId, connected, taskCount, seed: isSeed, keeper }) => {
        const peer = peers.get(peerId);
        const isSelf = peerId === seed.peerId;
        const where = isSelf ? seed : peers.addressOf(peerId, undefined);
        return {
          peerId,
          seed: isSeed,
          keeper,
          connected,
          name: peer?.host.name ?? "",
          program: isSelf ? "supernode" : (peer?.host.program ?? ""),
          version: isSelf ? version : (peer?.host.version ?? ""),
          address: where?.address ?? "",
          port: where?.port ?? 0,
          labels: isSelf ? seed.labels : { ...peer?.host.labels, ...peer?.place.topology },
          labelSources: isSelf ? seed.labelSources : (peer?.place.sources ?? {}),
          taskCount,
        };
      }),
    };
  }

  links({ limit }: Page): object {
    const links: { taskId: TaskId; peers: readonly [PeerId, PeerId] }[] = [];
    for (const { taskId, members } of this.#deps.snapshot().tasks) {
      for (const { peerId, neighbours } of members) {
        for (const neighbour of neighbours) {
          if (links.length >= limit) return { links };
          // Each pair once.
          if (peerId < neighbour) links.push({ taskId, peers: [peerId, neighbour] });
        }
      }
    }
    return { links };
  }

  cache(page: Page): object {
    const { store, quotaBytes } = this.#deps;
    const { scrubbedAllAtUnixMs, ...usage } = store.usage();
    const cached = paged([...store.list()].sort((left, right) => (left.taskId < right.taskId ? -1 : 1)), (task) => task.taskId, page);
    const tasks = cached.map(({ taskId, displayUrl, digest, lengthBytes, contentType, heldBytes, usedAtUnixMs, isPinned, isInUse }) => ({
      taskId,
      url: displayUrl,
      digest: digest ?? null,
      lengthBytes: lengthBytes ?? null,
      contentType: contentType ?? null,
      heldBytes,
      usedAt: new Date(usedAtUnixMs).toISOString(),
      pinned: isPinned,
      inUse: isInUse,
    }));
    const scrubbedAllAt = scrubbedAllAtUnixMs === undefined ? null : new Date(scrubbedAllAtUnixMs).toISOString();
    return { ...usage, quotaBytes: quotaBytes ?? null, scrubbedAllAt, tasks };
  }

  /**
   * Removes a task for good; one that is open but that nobody needs is closed first.
   * @returns why it stays, for people; undefined when it is gone. @throws AppError TASK_UNKNOWN, DISK_FAILED
   */
  async removeFromCache(id: string): Promise<string | undefined> {
    const { store, seeds, isNeeded } = this.#deps;
    const taskId = await this.#cached(id);
    if (store.list().some((task) => task.taskId === taskId && task.isPinned)) return "it is pinned; unpin it first";
    await seeds.letGo(isNeeded, taskId);
    return seeds.get(taskId) === undefined && (await store.remove(taskId)) ? undefined : "it is in use; try again when it is done";
  }

  /** Durable. @throws AppError TASK_UNKNOWN, DISK_FULL, DISK_FAILED */
  async pinInCache(id: string, isPinned: boolean): Promise<void> {
    if (!(await this.#deps.store.pin(await this.#cached(id), isPinned))) throw unknownTask(id);
  }

  /** Reads all of a task back from the disk. @throws AppError TASK_UNKNOWN, DISK_FAILED */
  async verifyInCache(id: string): Promise<object> {
    const taskId = await this.#cached(id);
    const verified = await this.#deps.store.verify(taskId);
    if (verified === undefined) throw unknownTask(id);
    return { taskId, ...verified };
  }

  async #cached(id: string): Promise<TaskId> {
    if (!isTaskId(id) || !(await this.#deps.store.has(id))) throw unknownTask(id);
    return id;
  }

  #task({ taskId, members }: SnapshotTask): (Readonly<Record<string, unknown>> & { readonly heldPieces: number }) | undefined {
    const seedTask = this.#deps.seeds.get(taskId);
    if (seedTask === undefined) return undefined;
    const { stored } = seedTask.task;
    const { displayUrl, digest, lengthBytes, pieceLengthBytes } = stored.record;
    return {
      taskId,
      url: displayUrl,
      digest: digest ?? null,
      lengthBytes: lengthBytes ?? null,
      pieceLengthBytes,
      heldPieces: stored.have.count,
      complete: stored.complete,
      reading: seedTask.isReading,
      originBytes: this.#deps.meter.bytesOf(taskId),
      memberCount: members.filter((member) => member.peerId !== this.#deps.seed.peerId).length,
    };
  }
}

/** May this address use the API without the join token? */
export function isTrusted(remoteAddress: string | undefined): boolean {
  return remoteAddress !== undefined && isLoopback(remoteAddress);
}

function paged<T>(items: readonly T[], idOf: (item: T) => string, { limit, after }: Page): readonly T[] {
  const from = after === "" ? 0 : items.findIndex((item) => idOf(item) > after);
  return from < 0 ? [] : items.slice(from, from + limit);
}

function unknownTask(taskId: string): AppError {
  return new AppError("TASK_UNKNOWN", `there is no task ${taskId} here`);
}
