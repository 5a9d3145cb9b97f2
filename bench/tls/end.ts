/** One end of the measurement: a seed that has the file, or a host that wants it. Told by main.ts what to do. */
import { randomBytes } from "node:crypto";
import { pino } from "pino";
import { generateJoinToken, SigningKey } from "../../src/peer/membership/credentials.ts";
import { SiteTls } from "../../src/peer/membership/site-tls.ts";
import type { TaskRecord } from "../../src/peer/store/piece-store.ts";
import type { PeerId } from "../../src/protocol/ids.ts";
import { fill, makeTask, startPeer } from "../limits/peers.ts";

/** All that a host needs; bytes as base64. */
export interface Offer {
  readonly record: Omit<TaskRecord, "publicKey" | "lengthSignature">;
  readonly publicKey: string;
  readonly lengthSignature: string;
  readonly ticket: string;
  readonly peerId: PeerId;
  readonly port: number;
}

export interface Taken {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly rssBytes: number;
}

const [role, folder = "/dev/shm", token = generateJoinToken(), lengthBytes = "0", hostId = randomBytes(8).toString("hex")] = process.argv.slice(2);
const log = pino({ level: "silent" });
const tls = process.env["BENCH_TLS"] === undefined ? undefined : new SiteTls({ config: { kind: "token" }, token, log });
const peer = await startPeer(role ?? "host", folder, tls);
process.on("disconnect", () => void peer.close().finally(() => process.exit()));
if (role === "seed") await offer();
else process.on("message", (given: Offer) => void take(given));
if (role !== "seed") process.send?.(peer.peerId);

async function offer(): Promise<void> {
  const key = SigningKey.generate();
  const record = makeTask(key, Number(lengthBytes));
  await fill(await peer.peer.openTask(record, "normal"), key);
  const { publicKey, lengthSignature, ...rest } = record;
  const expiresUnixMs = Date.now() + 3_600_000;
  const offered: Offer = {
    record: rest,
    publicKey: Buffer.from(publicKey).toString("base64"),
    lengthSignature: Buffer.from(lengthSignature as Uint8Array).toString("base64"),
    ticket: key.signTicket({ taskId: record.taskId, peerId: hostId as PeerId, expiresUnixMs, outageUnixMs: expiresUnixMs }),
    peerId: peer.peerId,
    port: peer.port,
  };
  process.send?.(offered);
  // What the host asks is how much CPU the other end has used.
  process.on("message", () => process.send?.(cpuSeconds()));
}

async function take({ record, publicKey, lengthSignature, ticket, peerId, port }: Offer): Promise<void> {
  const task = await peer.peer.openTask({ ...record, publicKey: Buffer.from(publicKey, "base64"), lengthSignature: Buffer.from(lengthSignature, "base64") }, "normal");
  const cpuBefore = cpuSeconds();
  const startedMs = performance.now();
  task.connect([{ peerId, address: "127.0.0.1", port, seed: true }], ticket);
  // oxlint-disable-next-line no-await-in-loop -- that is what waiting is
  while (!task.stored.complete) await task.session.changed(100, new AbortController().signal);
  const taken: Taken = { seconds: (performance.now() - startedMs) / 1000, cpuSeconds: cpuSeconds() - cpuBefore, rssBytes: process.memoryUsage.rss() };
  process.send?.(taken);
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
