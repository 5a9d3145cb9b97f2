/**
 * A crowd of peers in one process: real control clients on real connections, without stores and links.
 *
 * Told what to do by its parent, one question at a time, each answered by one message. Started by main.ts.
 */
import { createServer, type AddressInfo, type Socket } from "node:net";
import { pino } from "pino";
import { toAppError } from "../../src/base/errors.ts";
import { ControlClient } from "../../src/peer/control/control-client.ts";
import { generatePeerId } from "../../src/peer/membership/credentials.ts";
import { SiteTls } from "../../src/peer/membership/site-tls.ts";
import type { TaskId } from "../../src/protocol/ids.ts";
import { Distribution, type Spread } from "./distribution.ts";

export type CrowdAsk =
  /** That many peers more register, all at once. */
  | { readonly type: "connect"; readonly count: number }
  /** Every peer joins every URL, one URL after the other, so many joins in flight (0: all at once). */
  | { readonly type: "join"; readonly urls: readonly string[]; readonly window: number; readonly whole: boolean }
  /** Answers when every peer has lost its connection, registered again, and joined its last task again. */
  | { readonly type: "awaitReturn" };

export interface Connected {
  readonly seconds: number;
}

export interface Joined {
  readonly joins: number;
  readonly failed: number;
  readonly seconds: number;
  readonly answerMs: Spread;
  /** Messages that came in during it, answers to joins not counted. */
  readonly unasked: number;
}

export interface Returned {
  /** Unix milliseconds. */
  readonly firstLostMs: number;
  readonly firstRegisteredMs: number;
  readonly lastRegisteredMs: number;
  readonly lastJoinedMs: number;
  /** Joins that the supernode refused, by code. */
  readonly failed: Readonly<Record<string, number>>;
}

interface Member {
  readonly client: ControlClient;
  url: string | undefined;
  taskId: TaskId | undefined;
  isAway: boolean;
}

const [host, port, token] = [process.argv[2] as string, Number(process.argv[3]), process.argv[4] as string];
const log = pino({ level: "silent" });
const tls = process.argv[5] === "tls" ? new SiteTls({ config: { kind: "token" }, token, log }) : undefined;
const members: Member[] = [];
const forever = new AbortController().signal;
/** What the seed dials: it accepts and says nothing, for the crowd has no links. */
const links: Socket[] = [];
const listener = createServer((socket) => links.push(socket.on("error", () => undefined)));
let onRegistered = (_member: Member): void => undefined;
let onLost = (_member: Member): void => undefined;
let unasked = 0;

await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", 4096, resolve));
process.on("message", (ask: CrowdAsk) => {
  const answer = ask.type === "connect" ? connect(ask.count) : ask.type === "join" ? joinAll(ask) : awaitReturn();
  void answer.then((message) => process.send?.(message));
});
process.on("disconnect", () => process.exit());

function connect(count: number): Promise<Connected> {
  const startedMs = performance.now();
  const { promise, resolve } = Promise.withResolvers<Connected>();
  let missing = count;
  onRegistered = (): void => {
    if (--missing === 0) resolve({ seconds: (performance.now() - startedMs) / 1000 });
  };
  for (let n = 0; n < count; n++) members.push(newMember());
  return promise;
}

function newMember(): Member {
  const count = (): void => void unasked++;
  const member: Member = {
    url: undefined,
    taskId: undefined,
    isAway: false,
    client: new ControlClient({
      supernodes: [{ host, port }],
      token,
      tls,
      peerId: generatePeerId("crowd"),
      host: {
        address: "127.0.0.1",
        port: (listener.address() as AddressInfo).port,
        name: "crowd",
        program: "dfdaemon",
        version: "0.0.0",
        labels: {},
      },
      log,
      random: Math.random,
      // It waits as long as it takes: what is measured is when the supernode answers.
      connectTimeoutMs: 60_000,
      pendingTimeoutMs: 60_000,
      handlers: {
        onRegistered: () => onRegistered(member),
        onNeighbours: count,
        onImports: count,
        onLength: count,
        onTaskFailed: count,
        onLease: count,
        onLeaseRevoked: count,
        onDisconnected: () => onLost(member),
      },
    }),
  };
  return member;
}

async function joinAll({ urls, window, whole }: Extract<CrowdAsk, { type: "join" }>): Promise<Joined> {
  const answerMs = new Distribution();
  let failed = 0;
  unasked = 0;
  const startedMs = performance.now();
  const queue = urls.flatMap((url) => members.map((member) => ({ url, member })));
  const joins = queue.length;
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let job = queue[next++]; job !== undefined; job = queue[next++]) {
      const { member, url } = job;
      const askedMs = performance.now();
      try {
        // oxlint-disable-next-line no-await-in-loop -- the window
        const { task } = await member.client.join({ url, headers: {} }, { download: true, signal: forever });
        answerMs.add(performance.now() - askedMs);
        member.url = url;
        member.taskId = task.taskId;
        if (whole) live(member, task.taskId);
      } catch {
        failed++;
      }
    }
  };
  await Promise.all(Array.from({ length: window === 0 ? joins : window }, worker));
  return { joins, failed, seconds: (performance.now() - startedMs) / 1000, answerMs: answerMs.spread(), unasked };
}

/** What a peer says of a task after its join, in the good case. */
function live({ client }: Member, taskId: TaskId): void {
  const sources = { seedBytes: 0, peerBytes: 0, originBytes: 0 };
  for (const pieceCount of [4, 16]) {
    client.send({ type: "progress", taskId, pieceCount, complete: pieceCount === 16, sources });
  }
}

function awaitReturn(): Promise<Returned> {
  const { promise, resolve } = Promise.withResolvers<Returned>();
  const failed: Record<string, number> = {};
  let firstLostMs = 0;
  let firstRegisteredMs = 0;
  let lastRegisteredMs = 0;
  let missing = members.length;
  onLost = (member): void => {
    firstLostMs ||= Date.now();
    member.isAway = true;
  };
  const joinedAgain = (): void => {
    if (--missing > 0) return;
    resolve({ firstLostMs, firstRegisteredMs, lastRegisteredMs, lastJoinedMs: Date.now(), failed });
  };
  onRegistered = (member): void => {
    if (!member.isAway) return;
    member.isAway = false;
    lastRegisteredMs = Date.now();
    firstRegisteredMs ||= lastRegisteredMs;
    const { client, url, taskId } = member;
    if (url === undefined || taskId === undefined) return joinedAgain();
    // All sixteen pieces, as a bit set.
    const have = Uint8Array.of(255, 255);
    client.join({ url, headers: {} }, { taskId, have, download: true, signal: forever }).then(joinedAgain, (error: unknown) => {
      const { code } = toAppError(error);
      failed[code] = (failed[code] ?? 0) + 1;
      joinedAgain();
    });
  };
  process.send?.({ type: "watching" });
  return promise;
}
