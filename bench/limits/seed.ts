/** The other side of the measurement, in a process of its own: peers that have files, and a web server that has one without end. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { SigningKey } from "../../src/peer/membership/credentials.ts";
import type { Priority } from "../../src/base/priority.ts";
import type { TaskRecord } from "../../src/peer/store/piece-store.ts";
import type { PeerId } from "../../src/protocol/ids.ts";
import { fill, type LonePeer, makeTask, startPeer } from "./peers.ts";

/** Asked of the seed process, and answered, in order. */
export type SeedAsk =
  | { readonly type: "file"; readonly lengthBytes: number; readonly priority: Priority; readonly peers: number; readonly hostId: PeerId }
  | { readonly type: "upload"; readonly bytesPerSecond: number | undefined };

/** A file that `peers` have, with a ticket for the host. The record's bytes travel as base64. */
export interface SeedFile {
  readonly record: Omit<TaskRecord, "publicKey" | "lengthSignature">;
  readonly publicKey: string;
  readonly lengthSignature: string;
  readonly ticket: string;
  readonly peers: readonly { readonly peerId: PeerId; readonly port: number }[];
}

const [folder = "/dev/shm"] = process.argv.slice(2);
const key = SigningKey.generate();
const peers: LonePeer[] = [];
let uploadBytesPerSecond: number | undefined;

const server = createServer((_request, response) => {
  const block = Buffer.alloc(256 * 1024, 7);
  const more = (): void => {
    while (!response.destroyed && response.write(block));
  };
  response.on("drain", more);
  more();
});
server.listen(0, "127.0.0.1", () => process.send?.({ originPort: (server.address() as AddressInfo).port }));

process.on("message", (ask: SeedAsk) => void answer(ask).then((answered) => process.send?.(answered)));
process.on("disconnect", () => void Promise.all(peers.map((peer) => peer.close())).finally(() => process.exit()));

async function answer(ask: SeedAsk): Promise<object> {
  if (ask.type === "upload") {
    uploadBytesPerSecond = ask.bytesPerSecond;
    for (const { peer } of peers) peer.setLimits({ downloadBytesPerSecond: undefined, uploadBytesPerSecond });
    return {};
  }
  const record = makeTask(key, ask.lengthBytes);
  const holders: LonePeer[] = [];
  for (let i = 0; i < ask.peers; i++) {
    const holder = await startPeer(`seed${peers.length}`, folder);
    holder.peer.setLimits({ downloadBytesPerSecond: undefined, uploadBytesPerSecond });
    peers.push(holder);
    holders.push(holder);
    await fill(await holder.peer.openTask(record, ask.priority), key);
  }
  const { publicKey, lengthSignature, ...rest } = record;
  const file: SeedFile = {
    record: rest,
    publicKey: Buffer.from(publicKey).toString("base64"),
    lengthSignature: Buffer.from(lengthSignature as Uint8Array).toString("base64"),
    ticket: key.signTicket({ taskId: record.taskId, peerId: ask.hostId, expiresUnixMs: Date.now() + 3_600_000, outageUnixMs: Date.now() + 3_600_000 }),
    peers: holders.map(({ peerId, port }) => ({ peerId, port })),
  };
  return file;
}
